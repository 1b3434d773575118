// The tables of the program: states with their looks, faults, kinds of events. Nothing of them is written here again.

const dark = matchMedia("(prefers-color-scheme: dark)");
let table = { states: [], faults: [], kinds: [] };
let looks = new Map();

export function setWords(words) {
  table = words;
  looks = new Map(words.states.map((look) => [look.word, look]));
}

export function states() {
  return table.states;
}

export function faults() {
  return table.faults;
}

export function lookOf(state) {
  return looks.get(state);
}

export function colourOf(state) {
  const look = looks.get(state);
  if (look === undefined) return isDark() ? "#9ca3af" : "#6b7280";
  return isDark() ? look.dark : look.light;
}

export function isDark() {
  return dark.matches;
}

export function onScheme(act) {
  dark.addEventListener("change", act);
}

export function seconds(us) {
  const s = us / 1e6;
  if (s < 10) return `${s.toFixed(3)} s`;
  if (s < 120) return `${s.toFixed(1)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function figure(n) {
  if (n < 1e6) return n.toLocaleString("en");
  return `${(n / 1e6).toFixed(1)}M`;
}

export function clock(us) {
  return new Date(us / 1000).toISOString().slice(11, 23);
}
