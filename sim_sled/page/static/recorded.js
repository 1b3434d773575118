// A finished run: the state at any time of it follows from the events before. Forward it goes on, back it begins anew.

import { seconds } from "./words.js";

const FIELDS = ["id", "n", "name", "sled", "state", "since_us", "acked", "tries", "trouble", "held", "stuck", "rule", "instance", "migration", "role", "phase"];
const SLED_FIELDS = ["id", "name", "address", "registration", "down", "vms", "unacknowledged", "threads", "threads_used", "memory_mib", "memory_mib_used"];
export const BUCKETS = 240;

export class Recorded {
  constructor(rack, recording, changed) {
    this.rack = rack;
    this.run = recording;
    this.changed = changed;
    this.endUs = Math.max(recording.elapsed_us, 1);
    this.events = recording.events.map((row) => Object.fromEntries(recording.fields.map((field, i) => [field, row[i]])));
    this.state = "recorded";
    this.bucketUs = this.endUs / BUCKETS;
    this.buckets = Array.from({ length: BUCKETS }, () => ({}));
    for (const event of this.events) {
      const bucket = this.buckets[Math.min(BUCKETS - 1, Math.floor(event.at_us / this.bucketUs))];
      bucket[event.kind] = (bucket[event.kind] ?? 0) + 1;
    }
    this.sledOf = new Map(recording.vms.map((vm) => [vm.n, vm.sled]));
    this.ofVm = new Map();
    for (const event of this.events) {
      if (event.vm < 0) continue;
      if (!this.ofVm.has(event.vm)) this.ofVm.set(event.vm, []);
      this.ofVm.get(event.vm).push(event);
    }
    this.begin();
  }

  begin() {
    this.next = 0;
    this.now = -1;
    this.vms = new Map();
    this.sleds = this.run.sleds.map((name) => ({ name, down: "" }));
    this.fired = new Map();
  }

  can() {
    return false;
  }

  seek(us) {
    const to = Math.max(0, Math.min(this.endUs, Math.round(us)));
    if (to < this.now) this.begin();
    for (; this.next < this.events.length && this.events[this.next].at_us <= to; this.next++) this.happened(this.events[this.next]);
    this.now = to;
    this.show();
    this.changed();
  }

  // The next or the last time before at which anything happens, to the VM alone if one is meant.
  step(forward, vm) {
    const events = vm === undefined ? this.events : this.ofVm.get(vm) ?? [];
    const found = forward ? events.find((event) => event.at_us > this.now) : events.findLast((event) => event.at_us < this.now);
    this.seek(found === undefined ? (forward ? this.endUs : 0) : found.at_us);
  }

  happened(event) {
    if (event.kind === "sled" && event.sled >= 0) this.sleds[event.sled].down = event.text === "up" ? "" : event.text;
    if (event.kind === "rule") {
      const [name] = event.text.split(" (");
      this.fired.set(name, (this.fired.get(name) ?? 0) + 1);
    }
    if (event.vm < 0) return;
    let vm = this.vms.get(event.vm);
    if (vm === undefined) {
      const about = this.run.vms.find((each) => each.n === event.vm);
      vm = { ...about, there: false, state: "", since: 0, acked: "", tries: 0, trouble: "", held: [], stuck: false, rule: "", role: "", phase: "", asked: "" };
      this.vms.set(event.vm, vm);
    }
    happenedTo(vm, event);
  }

  show() {
    const rack = this.rack;
    rack.clear({ fields: FIELDS, sled_fields: SLED_FIELDS, scenario: this.run.name, at_us: this.now });
    const held = [];
    const used = this.sleds.map(() => ({ vms: 0, open: 0 }));
    const rows = [];
    for (const vm of this.vms.values()) {
      if (!vm.there) continue;
      const sled = String(vm.sled);
      if (used[vm.sled]) {
        used[vm.sled].vms++;
        if (vm.tries > 0) used[vm.sled].open++;
      }
      rows.push([String(vm.n), vm.n, vm.name, sled, vm.state, vm.since, vm.acked, vm.tries, vm.trouble, vm.held.length, vm.stuck, vm.rule, vm.name, null, vm.role, vm.phase]);
      for (const one of vm.held) held.push({ rule: one.rule, why: "", id: String(vm.n), n: vm.n, name: vm.name, state: one.state, gen: 0 });
    }
    rack.rows(rows);
    rack.frame({
      at_us: this.now,
      sleds: this.sleds.map((sled, i) => [String(i), sled.name, "", "", sled.down, used[i].vms, used[i].open, 0, 0, 0, 0]),
      rules: this.run.rules.map((rule) => ({ ...rule, manual: "", matched: null, fired: this.fired.get(rule.name) ?? 0, holds: held.some((one) => one.rule === rule.name) })),
      held: held.slice(0, 200),
      held_total: held.length,
    });
    for (const vm of this.vms.values()) {
      if (!vm.there) rack.gone.set(String(vm.n), { id: String(vm.n), n: vm.n, name: vm.name, sled: String(vm.sled), state: vm.state, since_us: vm.since, instance: vm.name, gone: true, held: 0, tries: 0 });
    }
  }

  async story(id) {
    const n = Number(String(id).replace("v", ""));
    const name = this.run.vms.find((vm) => vm.n === n)?.name;
    if (name === undefined) throw new Error(`no VMM of this run is called 'v${n}'; it has ${this.run.vms.length}, from v1 on`);
    // a trace names no migrations: both sides are the VMMs of one instance that migrate at the same time
    const migrates = (each) => { const told = (this.ofVm.get(each) ?? []).filter((event) => / (in|out)=/.test(event.text)); return told.length ? [told[0].at_us, told.at(-1).at_us] : null; };
    const own = migrates(n);
    const same = this.run.vms.filter((vm) => vm.name === name && vm.n !== n && this.ofVm.has(vm.n));
    const beside = same.filter((vm) => { const span = migrates(vm.n); return own && span && span[0] <= own[1] && own[0] <= span[1]; }).slice(-3);
    const life = (each) => {
      const now = this.vms.get(each);
      const about = this.run.vms.find((vm) => vm.n === each);
      return { id: String(each), n: each, name: about.name, sled: String(about.sled), state: now?.state ?? "", acked: now?.acked ?? "", gone: now !== undefined && !now.there, says: this.says(each), events: this.ofVm.get(each) ?? [] };
    };
    return {
      at_us: this.now,
      why: { says: this.says(n) },
      lives: [n, ...beside.map((vm) => vm.n)].sort((a, b) => a - b).map(life),
      others: same.filter((vm) => !beside.includes(vm)).map((vm) => life(vm.n)),
    };
  }

  says(n) {
    const vm = this.vms.get(n);
    if (vm === undefined) return [`v${n} is not there yet.`];
    const where = this.run.sleds[vm.sled] ?? "no sled";
    const says = [`v${n} (${vm.name}) on ${where} ${vm.there ? "is" : "is gone; it was"} ${vm.state}, since ${seconds(vm.since)}.`];
    if (vm.asked) says.push(`Nexus last asked for ${vm.asked}.`);
    if (vm.stuck) says.push(`Rule ${vm.rule} stalls it.`);
    for (const one of vm.held) says.push(`Its report ${one.state} is kept back by rule ${one.rule}, since ${seconds(one.at)}.`);
    if (vm.tries > 1) says.push(`Nexus does not acknowledge its report: attempt ${vm.tries}${vm.trouble ? `, ${vm.trouble}` : ""}.`);
    says.push(vm.acked ? `Nexus last acknowledged ${vm.acked}.` : "Nexus has acknowledged nothing yet.");
    if (vm.rule && !vm.stuck) says.push(`The last rule that touched it: ${vm.rule}.`);
    return says;
  }
}

function happenedTo(vm, event) {
  const enter = (state) => {
    if (vm.state === state) return;
    vm.state = state;
    vm.since = event.at_us;
    vm.stuck = false;
  };
  switch (event.kind) {
    case "registered":
      vm.there = true;
      enter(event.to);
      break;
    case "propolis": {
      enter(event.to);
      const [, side, phase] = / (in|out)=(\w+)/.exec(event.text) ?? [];
      if (side) [vm.role, vm.phase] = [side === "in" ? "target" : "source", phase];
      break;
    }
    case "sent":
      vm.tries = event.attempt + 1;
      break;
    case "acked":
      vm.acked = event.to;
      vm.tries = 0;
      vm.trouble = "";
      break;
    case "retrying":
    case "given-up":
      vm.trouble = event.text;
      break;
    case "request":
      if (event.text.startsWith("vmm_put_state ")) vm.asked = event.text.slice(14).replace(/: (.*)$/, " and was answered $1");
      break;
    case "rule": {
      const [, name, does] = /^(\S+) \(.*\): (.*)$/.exec(event.text) ?? [];
      if (name) vm.rule = name;
      if (does && does.split(" ").includes("stall")) vm.stuck = true;
      break;
    }
    case "net": {
      const [, state, rule] = /^(\w+) held by (.+)$/.exec(event.text) ?? [];
      if (state) vm.held.push({ state, rule, at: event.at_us });
      const [, free] = /^(\w+) released$/.exec(event.text) ?? [];
      if (free) vm.held = vm.held.filter((one) => one.state !== free);
      break;
    }
    case "forgotten":
    case "unregistered":
    case "lost":
      vm.there = false;
      if (event.to) enter(event.to);
      vm.held = [];
      vm.tries = 0;
      break;
  }
}
