// One VM: why it is where it is, and its life; beside it the other side of its migration, on the same axis of time.

import { draw, el, keyed } from "./dom.js";
import { icon } from "./shapes.js";
import { clock, colourOf, faults, lookOf, seconds } from "./words.js";

const LANE = 22;
const AXIS = 20;
const LABEL = 92;
const EDGE = 6;
const TAIL = 40;  // behind the last mark: its label is as wide
const PADDING = 28;  // of the section, both sides
const MARKS = { request: "asked", asked: "asked", sent: "sent", retrying: "retry", refused: "bad", "given-up": "bad", injected: "bad", lost: "bad", rule: "rule", net: "rule", migration: "rule" };

export class Story {
  constructor(doing) {
    this.doing = doing;
    this.node = el("section", { class: "story", "aria-label": "one VM", tabindex: "-1" });
  }

  clear() {
    this.shown = null;
    keyed(this.node, [], (part) => part.key, (part) => part.make(), () => {});
  }

  // `at`: where the slider stands (a time), null if live. Only the parts that have changed are made again: a text that
  // somebody selects, a mark that somebody points at and the focus stay while the story goes on.
  show(story, vm, sledName, at) {
    const self = story.lives.find((life) => life.id === vm.id) ?? story.lives[0];
    const whose = [self.id, story.lives.map((life) => life.id)];
    const before = this.node.querySelector(".lane-box");
    const pointedAt = before !== null && this.shown?.id === self.id && before.matches(":hover");
    const until = at ?? (story.lives.every((life) => life.gone) ? 0 : pointedAt ? this.shown.until : story.at_us);
    const opened = this.shown?.id === self.id && this.node.querySelector("details")?.open;
    const scrolled = before && this.shown?.id === self.id ? { left: before.scrollLeft, atEnd: before.scrollLeft + before.clientWidth >= before.scrollWidth - 2 } : { atEnd: true };
    const focus = document.activeElement?.dataset?.keep;
    this.shown = { id: self.id, until };
    const events = story.lives.map((life) => life.events);
    const sleds = story.lives.map((life) => sledName(life.sled));
    const parts = [
      ["head", [self.name, self.n, self.state, vm.state, vm.gone, vm.role, vm.phase, sleds, colourOf(vm.state)], () => this.head(self, vm, sledName)],
      ["whys", [story.why.says, story.lives.map((life) => life.says), events.map((each) => each.length > 0)], () => this.whys(story, self)],
      ["note", [], () => (story.lives.length > 1 ? el("p", { class: "note", text: "Both sides of its migration, on one axis of time; pauses are shortened." }) : null)],
      ["lanes", [events, until, this.node.clientWidth, sleds, colourOf(vm.state)], () => this.lanes(story, self, sledName, at)],
      ["faults", [vm.gone], () => this.buttons(self, vm)],
      ["events", [events, at, sleds, colourOf(vm.state)], () => this.events(story, self, sledName, at)],
      ["ids", [self.migrations], () => this.ids(self)],
      ["others", [story.others], () => (story.others.length ? el("p", { class: "note" }, "Other lives of this instance: ", story.others.map((each) => el("button", { class: "link", onclick: () => this.doing.open(each.id), text: `v${each.n} (${each.state || "not there yet"})` }))) : null)],
    ].map(([name, told, make]) => ({ key: JSON.stringify([name, whose, told]), make: () => make() ?? el("span", { hidden: true }) }));
    keyed(this.node, parts, (part) => part.key, (part) => part.make(), () => {});
    if (opened) this.node.querySelector("details").open = true;
    const box = this.node.querySelector(".lane-box");
    if (box !== null && at !== null) box.scrollLeft = this.cursorX - box.clientWidth / 2;
    else if (box !== null && box !== before) box.scrollLeft = scrolled.atEnd ? box.scrollWidth : scrolled.left;
    if (focus && document.activeElement?.dataset?.keep !== focus) this.node.querySelector(`[data-keep="${focus}"]`)?.focus();
  }

  head(self, vm, sledName) {
    const state = vm.gone ? self.state || vm.state : vm.state;
    return el("header", {},
      el("span", { class: "big" }, icon(lookOf(state), colourOf(state), 22)),
      el("div", { class: "who" },
        el("h2", { text: self.name || `v${self.n}` }),
        el("p", { class: "dim" }, `v${self.n} on ${sledName(self.sled)} \u00b7 `, el("b", { text: state === "" ? "not there yet" : vm.gone ? `gone, was ${state}` : state }), vm.role ? ` \u00b7 ${vm.role} of a migration (${vm.phase})` : "")),
      el("button", { class: "plain", "aria-label": "close", "data-keep": "close", title: "Esc", onclick: () => this.doing.close(), text: "\u2715" }));
  }

  // Of a migration each side has its own why: what one waits for is often what the other does not do.
  whys(story, self) {
    const list = (says) => el("ul", { class: "why" }, says.map((line) => el("li", { text: line })));
    if (story.lives.length < 2) return list(story.why.says);
    return el("div", { class: "whys" }, story.lives.map((life) => el("div", {}, el("h3", { class: life === self ? "self" : null, text: `v${life.n}${sideOf(life)}` }), list(life === self ? story.why.says : life.says))));
  }

  ids(self) {
    const known = [["VMM", self.id], ["instance", self.instance], ...(self.migrations ?? []).map((id) => ["migration", id])].filter(([, id]) => id && id.length > 8);
    return known.length ? el("details", { class: "ids" }, el("summary", { text: "ids, and the same on the command line" }),
      el("dl", {}, known.map(([name, id]) => [el("dt", { text: name }), el("dd", {}, el("code", { text: id }))])),
      el("p", {}, el("code", { text: `sim-sled why ${self.id}` })), el("p", {}, el("code", { text: `sim-sled log ${self.id}` }))) : null;
  }

  buttons(self, vm) {
    if (vm.gone || !this.doing.can("POST /vmms/{who}/inject")) return null;
    return el("div", { class: "faults", role: "group", "aria-label": "inject" },
      el("span", { class: "dim", text: "Inject" }),
      faults().map((fault) => el("button", { title: fault.says, "data-keep": fault.label, onclick: () => this.doing.inject(self.id, fault), text: fault.label })));
  }

  // ---- lanes: Propolis, what Nexus knows, and marks between the two; their names stay while the lanes scroll

  lanes(story, self, sledName, at) {
    const lives = story.lives.filter((life) => life.events.length);
    if (lives.length === 0) return null;
    const end = at === null ? story.at_us : Math.max(...lives.map((life) => life.events.at(-1).at_us));
    const scale = new Shortened(lives.flatMap((life) => life.events.map((event) => event.at_us)).concat(end), Math.max(240, this.node.clientWidth - PADDING - LABEL - EDGE - TAIL));
    const [rows, names, marks] = [[], [], []];
    let y = 4;
    for (const life of lives) {
      names.push(draw("text", { x: 0, y: y + 11, class: life === self ? "lane-name self" : "lane-name" }, `v${life.n}${sideOf(life)}`));
      rows.push(draw("text", { x: 6, y: y + 11, class: "lane-label" }, `on ${sledName(life.sled)}`));
      y += 17;
      const lines = [["Propolis", spans(life, ["propolis", "registered", "observed"], end)], ["Nexus knows", spans(life, ["acked"], end)]];
      const phases = phaseSpans(life, end);
      if (phases.length) lines.splice(1, 0, ["phase", phases]);
      for (const [name, bars] of lines) {
        names.push(draw("text", { x: 0, y: y + 14, class: "lane-label" }, name));
        for (const bar of bars) rows.push(this.bar(bar, scale, y, name));
        y += LANE;
      }
      for (const event of life.events) {
        const kind = MARKS[event.kind];
        if (kind) marks.push(mark(kind, EDGE + scale.x(event.at_us), y + 5, `${event.kind}: ${event.text ?? ""}`));
      }
      names.push(draw("text", { x: 0, y: y + 9, class: "lane-label" }, "reports"));
      y += 18;
    }
    const ticks = scale.ticks().map(({ x, us }) => draw("g", {},
      draw("path", { class: "tick", d: `M${EDGE + x} 2V${y}` }),
      draw("text", { class: "axis", x: EDGE + x, y: y + 13, "text-anchor": us === 0 ? "start" : "middle" }, `+${seconds(us)}`)));
    this.cursorX = at === null ? 0 : EDGE + scale.x(at);
    const cursor = at === null ? null : draw("path", { class: "cursor", d: `M${this.cursorX} 2V${y}` });
    const [width, high] = [EDGE + scale.width + TAIL, y + AXIS];
    return el("div", { class: "lane-rows" },
      draw("svg", { width: LABEL, height: high, class: "lane-names", "aria-hidden": "true" }, names),
      el("div", { class: "lane-box", tabindex: "0", role: "group", "aria-label": "timeline; the same as a list below" },
        draw("svg", { width, height: high, "aria-hidden": "true" }, [...ticks, ...rows, ...marks, cursor].filter(Boolean))));
  }

  bar({ from, to, word, look }, scale, y, name) {
    const [x, wide] = [EDGE + scale.x(from), Math.max(2, scale.x(to) - scale.x(from))];
    const colour = look ? colourOf(word) : "var(--dim)";
    const told = wide > word.length * 6.4 + (look ? 22 : 8);
    return draw("g", {},
      draw("title", {}, `${name}: ${word}, ${seconds(to - from)}`),
      draw("rect", { x, y: y + 2, width: wide, height: LANE - 6, rx: 2, fill: colour, "fill-opacity": 0.22, stroke: colour }),
      look && wide > 14 ? place(icon(lookOf(word), colour, 11), x + 3, y + 4.5) : null,
      told ? draw("text", { x: x + (look ? 17 : 4), y: y + 14, class: "bar-name" }, word) : null);
  }

  events(story, self, sledName, at) {
    const lives = story.lives;
    const all = lives.flatMap((life, side) => life.events.map((event) => ({ event, side, life }))).sort((a, b) => a.event.at_us - b.event.at_us || a.side - b.side);
    if (all.length === 0) return null;
    const zero = all[0].event.at_us;
    const two = lives.length > 1;
    return el("table", { class: two ? "events two" : "events" },
      el("thead", {}, el("tr", {}, el("th", { text: "time", title: at === null ? `since ${clock(zero)} UTC` : null }), lives.map((life) => el("th", { text: two ? `v${life.n} on ${sledName(life.sled)}${sideOf(life)}` : "what happened" })))),
      el("tbody", {}, all.map(({ event, side }) => el("tr", { class: at !== null && event.at_us > at ? "later" : null },
        el("td", { class: "when", title: at === null ? clock(event.at_us) : null },
          at === null ? `+${((event.at_us - zero) / 1e6).toFixed(3)}` : el("button", { class: "link", onclick: () => this.doing.seek(event.at_us), text: (event.at_us / 1e6).toFixed(3) })),
        lives.map((_, i) => el("td", { class: i === side ? "said" : null, "data-label": two ? `v${lives[i].n}` : null }, i === side ? said(event) : null))))));
  }
}

const LEAVES = ["forgotten", "unregistered", "lost"];

function sideOf(life) {
  const told = life.events.findLast((event) => / (in|out)=/.test(event.text ?? ""));
  if (told === undefined) return "";
  return told.text.includes(" out=") ? " \u2014 source" : " \u2014 target";
}

function said(event) {
  const mark = MARKS[event.kind];
  const state = event.kind === "propolis" || event.kind === "registered" || event.kind === "acked" ? event.to : "";
  return [el("span", { class: `kind ${mark ?? ""}`, text: event.kind }), state ? icon(lookOf(state), colourOf(state), 12) : null, ` ${stripped(event)}`];
}

function stripped(event) {
  const text = event.text ?? [event.from, event.to].filter(Boolean).join(" -> ");
  const [, from, to, rest] = /^propolis\[(.*?)\] -> \[(.*?)\](.*)$/.exec(text) ?? [];
  if (to) return `${from} -> ${to}${rest}`;
  return text.startsWith(`${event.kind} `) ? text.slice(event.kind.length + 1) : text;
}

function spans(life, kinds, end) {
  const found = [];
  for (const event of life.events) {
    if (LEAVES.includes(event.kind)) {
      if (found.length && found.at(-1).to === end) found.at(-1).to = event.at_us;
      continue;
    }
    // what the agent says counts here only at the end: it may call a VMM failed whatever its Propolis does
    if (!kinds.includes(event.kind) || !event.to || (event.kind === "observed" && !lookOf(event.to)?.ends)) continue;
    const last = found.at(-1);
    if (last && last.word === event.to) continue;
    if (last && last.to === end) last.to = event.at_us;
    found.push({ from: event.at_us, to: end, word: event.to, look: true });
  }
  return found;
}

function phaseSpans(life, end) {
  const found = [];
  for (const event of life.events) {
    if (LEAVES.includes(event.kind) && found.length && found.at(-1).to === end) found.at(-1).to = event.at_us;
    if (event.kind !== "propolis") continue;
    const [, , phase] = / (in|out)=(\w+)/.exec(event.text ?? "") ?? [];
    const last = found.at(-1);
    if (last && last.to === end && (last.word !== phase || event.to !== "migrating")) last.to = event.at_us;
    if (phase && last?.word !== phase) found.push({ from: event.at_us, to: end, word: phase, look: false });
  }
  return found;
}

function mark(kind, x, y, text) {
  const d = { asked: "M-4 -4H4L0 4Z", sent: "M0 -3A3 3 0 1 1 0 3A3 3 0 1 1 0 -3Z", retry: "M-3.5 -3.5L3.5 3.5M3.5 -3.5L-3.5 3.5", bad: "M0 -5L5 4H-5Z", rule: "M0 -5L5 0L0 5L-5 0Z" }[kind];
  return draw("g", { transform: `translate(${x} ${y})`, class: `mark ${kind}` }, draw("title", {}, text), draw("path", { d }));
}

function place(node, x, y) {
  node.setAttribute("x", x);
  node.setAttribute("y", y);
  return node;
}

// An axis of time on which a pause of an hour is only somewhat longer than one of a second.
class Shortened {
  constructor(times, room) {
    this.times = [...new Set(times)].sort((a, b) => a - b);
    const gaps = this.times.map((us, i) => (i === 0 ? 0 : 6 + 16 * Math.log10(1 + (us - this.times[i - 1]) / 2000)));
    const sum = gaps.reduce((a, b) => a + b, 0) || 1;
    const stretch = Math.max(1, room / sum);
    let x = 0;
    this.at = gaps.map((gap) => (x += gap * stretch));
    this.width = Math.max(x, 1);
  }

  x(us) {
    let [low, high] = [0, this.times.length - 1];
    if (us <= this.times[0]) return 0;
    if (us >= this.times[high]) return this.at[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.times[middle] <= us) low = middle;
      else high = middle;
    }
    const share = (us - this.times[low]) / (this.times[high] - this.times[low]);
    return this.at[low] + share * (this.at[high] - this.at[low]);
  }

  ticks() {
    const found = [];
    let last = -80;
    this.times.forEach((us, i) => {
      if (this.at[i] - last < 78) return;
      last = this.at[i];
      found.push({ x: last, us: us - this.times[0] });
    });
    return found;
  }
}
