// What the page knows of a rack, from wherever it is told: live by messages, of a finished run by the slider.

const GONE_KEPT = 300;
const SECONDS_KEPT = 900;

function named(fields, row) {
  const found = {};
  fields.forEach((field, i) => { found[field] = row[i]; });
  return found;
}

export class Rack {
  constructor() {
    this.connected = false;
    this.clear({});
  }

  clear(whole) {
    this.sleds = new Map();
    this.vms = new Map();
    this.gone = new Map();
    this.parts = new Map();
    this.rules = [];
    this.held = [];
    this.heldTotal = 0;
    this.waiting = 0;
    this.pace = undefined;
    this.counts = new Map();
    this.fields = whole.fields ?? [];
    this.sledFields = whole.sled_fields ?? [];
    this.name = whole.scenario ?? "";
    this.nexus = whole.nexus ?? "";
    this.history = whole.history ?? true;
    this.heard(whole.at_us ?? 0);
    this.version = (this.version ?? 0) + 1;
    this.count(whole.counts ?? []);
  }

  rows(rows) {
    for (const row of rows) {
      const vm = named(this.fields, row);
      const before = this.vms.get(vm.id);
      vm.changed = before === undefined || before.state !== vm.state ? performance.now() : before.changed;
      this.vms.set(vm.id, vm);
      this.gone.delete(vm.id);
    }
    this.version++;
  }

  frame(frame) {
    this.heard(frame.at_us);
    if (frame.rows) this.rows(frame.rows);
    for (const id of frame.gone ?? []) this.leave(id);
    for (const row of frame.sleds ?? []) {
      const sled = named(this.sledFields, row);
      this.sleds.set(sled.id, sled);
    }
    for (const id of frame.sleds_gone ?? []) {
      this.sleds.delete(id);
      for (const vm of [...this.vms.values()]) if (vm.sled === id) this.leave(vm.id);
    }
    this.figures(frame);
    if (frame.counts) this.count(frame.counts);
    this.version++;
  }

  heard(us) {
    this.heardUs = us;
    this.heardAt = performance.now();
  }

  // What time it is there. Frames come when something has changed: in between, time goes on as it does here.
  get atUs() {
    const goesOn = this.connected && !this.pace?.paused;
    return this.heardUs + (goesOn ? Math.round((performance.now() - this.heardAt) * 1000) : 0);
  }

  connect(yes) {
    if (this.connected && !yes) this.heard(this.atUs);
    this.connected = yes;
  }

  // Everything but VMs and sleds. A rack of several processes tells it in parts.
  figures(frame) {
    const { part = 0, rules, held, held_total, waiting, pace } = frame;
    const known = this.parts.get(part) ?? { rules: [], held: [], held_total: 0, waiting: 0 };
    for (const [key, value] of Object.entries({ rules, held, held_total, waiting, pace })) if (value !== undefined) known[key] = value;
    this.parts.set(part, known);
    const parts = [...this.parts.values()];
    const sum = (key) => parts.reduce((total, each) => total + each[key], 0);
    const byName = new Map();
    for (const rule of parts.flatMap((each) => each.rules)) {
      const before = byName.get(rule.name);
      byName.set(rule.name, before ? { ...before, matched: before.matched + rule.matched, fired: before.fired + rule.fired, holds: before.holds || rule.holds } : rule);
    }
    this.rules = [...byName.values()];
    this.held = parts.flatMap((each) => each.held);
    this.heldTotal = sum("held_total");
    this.waiting = sum("waiting");
    this.pace = known.pace;
  }

  leave(id) {
    const vm = this.vms.get(id);
    if (vm === undefined) return;
    this.vms.delete(id);
    this.gone.set(id, { ...vm, gone: true });
    if (this.gone.size > GONE_KEPT) this.gone.delete(this.gone.keys().next().value);
  }

  count(seconds) {
    for (const [second, counts] of seconds) {
      const known = this.counts.get(second) ?? {};
      for (const [kind, n] of Object.entries(counts)) known[kind] = (known[kind] ?? 0) + n;
      this.counts.set(second, known);
    }
    const oldest = Math.floor(this.atUs / 1e6) - SECONDS_KEPT;
    for (const second of this.counts.keys()) {
      if (second >= oldest) break;
      this.counts.delete(second);
    }
  }
}

// Why somebody should look at a VM, the worst first; "" if nobody needs to.
export function troubleOf(vm) {
  if (vm.state === "failed") return "failed";
  if (vm.stuck) return "stuck";
  if (vm.held > 0) return "held";
  if (vm.tries > 1) return "retrying";
  return "";
}

export const TROUBLES = [
  { word: "failed", says: "given up by Propolis or the agent" },
  { word: "stuck", says: "nothing but a request, a fault or a release ends what it waits for" },
  { word: "held", says: "a rule keeps back its report" },
  { word: "retrying", says: "Nexus does not acknowledge its report" },
];

// Whether a VM is the one somebody types: name, ordinal, state, sled, rule, or the beginning of an id.
export function matches(vm, sled, text) {
  const wanted = text.trim().toLowerCase();
  if (wanted === "") return true;
  return wanted.split(/\s+/).every((word) =>
    `v${vm.n}` === word || vm.name.toLowerCase().includes(word) || vm.state === word || troubleOf(vm) === word ||
    (sled?.name ?? "").toLowerCase() === word || (vm.rule ?? "").toLowerCase() === word ||
    (word.length >= 4 && (vm.id.startsWith(word) || vm.instance.startsWith(word) || (vm.migration ?? "").startsWith(word))));
}
