// The page: one source (a running daemon, or a run in this file), one rack, and what shows it.

import { el, keyed, setText } from "./dom.js";
import { Grid } from "./grid.js";
import { Live } from "./live.js";
import { Plots, lastSeconds } from "./plots.js";
import { Rack, TROUBLES, matches, troubleOf } from "./rack.js";
import { Recorded } from "./recorded.js";
import { icon } from "./shapes.js";
import { Story } from "./story.js";
import { Transport } from "./transport.js";
import { clock, colourOf, figure, lookOf, onScheme, seconds, setWords, states } from "./words.js";

const LISTED = 60;
const STORY_MS = 400;
const TICK_MS = 1000;

class Page {
  constructor(root, recording) {
    this.rack = new Rack();
    this.text = "";
    this.only = new Set();
    this.openId = null;
    this.toldOf = [];
    this.lost = null;
    const changed = () => this.ask();
    this.source = recording ? new Recorded(this.rack, recording, changed) : new Live(this.rack, changed);
    this.recording = recording;
    this.grid = new Grid((id) => this.open(id));
    this.grid.meant = (vm) => this.isMeant(vm);
    this.plots = new Plots();
    this.story = new Story({ open: (id) => this.open(id), close: () => this.close(), can: (what) => this.source.can(what), inject: (id, fault) => this.inject(id, fault), seek: (us) => this.source.seek(us) });
    this.transport = new Transport(this.source, recording, { can: (what) => this.source.can(what), act: (what, done) => this.act(what, done), openVm: () => this.openVm() });
    this.build(root);
    document.addEventListener("keydown", (event) => this.key(event));
    onScheme(() => { this.ask(true); });
    if (!recording) setInterval(() => this.tick(), TICK_MS);
    addEventListener("hashchange", () => this.followHash());
    addEventListener("resize", () => { this.ask(); });
  }

  build(root) {
    this.title = el("h1", { text: "sim-sled" });
    this.link = el("span", { class: "link-state", role: "status" });
    this.totals = el("span", { class: "dim totals" });
    this.find = el("input", { type: "search", placeholder: "Find: name, v17, state, sled, id", "aria-label": "find VMs", oninput: () => { this.text = this.find.value; this.ask(true); } });
    this.helpButton = el("button", { class: "plain", "aria-label": "keys", title: "keys (?)", onclick: () => this.help.showModal(), text: "?" });
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "states: choose what to see" });
    this.empty = el("div", { class: "empty", hidden: true });
    this.banner = el("div", { class: "banner", role: "alert", hidden: true });
    this.list = el("ol", { class: "list" });
    this.listTitle = el("h2");
    this.held = el("ul", { class: "list held" });
    this.heldTitle = el("h2");
    this.heldBox = el("section", { class: "held-box", hidden: true }, this.heldTitle, this.held);
    this.rules = el("ul", { class: "list rules" });
    this.rulesBox = el("section", { hidden: true }, el("h2", { text: "Rules" }), this.rules);
    this.failures = el("ul", { class: "list failures" });
    this.failuresBox = el("section", { hidden: true }, el("h2"), this.failures);
    this.toast = el("div", { class: "toast", role: "status", "aria-live": "polite", hidden: true });
    this.help = this.helpDialog();
    this.lock = this.lockDialog();
    this.side = el("aside", {}, this.story.node, this.failuresBox, el("section", { class: "look" }, this.listTitle, this.list), this.heldBox, this.rulesBox, this.plots.node);
    root.replaceChildren(
      el("header", { class: "top" }, ...[el("div", { class: "brand" }, this.title, this.link), this.totals, this.recording ? null : this.transport.node, this.find, this.helpButton].filter(Boolean)),
      this.banner,
      this.chips,
      el("main", {}, el("div", { class: "left" }, this.empty, this.grid.node), this.side),
      ...(this.recording ? [this.transport.node] : []), this.toast, this.help, this.lock);
  }

  async begin() {
    if (this.recording) {
      setWords(this.recording.words);
      this.showFailures();
      this.source.seek(0);
      this.followHash();
      this.transport.begin();
      return;
    }
    const words = await fetch("/page/words.json").then((answer) => answer.json());
    setWords(words);
    this.ask(true);
    this.followHash();
    this.source.run();
  }

  // ---- what is shown, once per animation frame at most

  ask(wholly = false) {
    this.wholly = this.wholly || wholly;
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.show();
      this.wholly = false;
    });
  }

  // Nothing has happened, but time goes by: the clock, how long a VM has waited, the plots.
  tick() {
    if (this.source.state !== "live") return;
    // a why counts down, and what a rule notes changes no row of the grid
    if (this.openId !== null && this.openId !== this.lost) this.tell();
    if (this.rack.pace?.paused) return;
    this.ticked = true;
    this.ask();
  }

  show() {
    this.showTop();
    if (this.rack.version !== this.drawn || this.wholly) {
      this.drawn = this.rack.version;
      this.showChips();
      this.showList();
      this.showHeld();
      this.showRules();
      this.grid.meansAll = this.text === "" && this.only.size === 0;
      this.grid.show(this.rack);
      if (this.openId !== null && (this.recording || this.toldOf.some(([id, row]) => this.rack.vms.get(id) !== row))) this.tell();
    } else if (this.ticked) this.showList();
    this.ticked = false;
    this.showEmpty();
    if (this.recording) this.plots.show(this.source.buckets, this.source.now / this.source.endUs, seconds(this.source.bucketUs));
    else this.plots.show(lastSeconds(this.rack), null);
    this.transport.show(this.rack);
    if (this.source.state === "locked" && !this.lock.open) this.lock.showModal();
  }

  showTop() {
    const { rack, source } = this;
    const name = rack.name || "sim-sled";
    setText(this.title, name);
    const words = { live: "live", connecting: "connecting", away: "away, trying again", locked: "token wanted", recorded: "finished run" };
    this.link.dataset.state = source.state;
    setText(this.link, words[source.state]);
    const troubled = [...rack.vms.values()].filter((vm) => troubleOf(vm)).length;
    document.title = `${troubled ? `(${troubled}) ` : ""}${name} \u00b7 sim-sled`;
    const vms = rack.vms.size;
    const parts = [`${figure(vms)} VM${vms === 1 ? "" : "s"} on ${rack.sleds.size} sled${rack.sleds.size === 1 ? "" : "s"}`];
    if (this.recording) parts.push(`seed ${this.recording.seed}`, this.recording.variant && `variant ${this.recording.variant}`, this.recording.sled_variant && `sled variant ${this.recording.sled_variant}`);
    else if (rack.atUs) parts.push(`${clock(rack.atUs).slice(0, 8)} UTC`);
    setText(this.totals, parts.filter(Boolean).join(" \u00b7 "));
    const away = source.state === "away" && rack.fields.length > 0;
    this.banner.hidden = !(away || rack.waiting > 0 || !rack.history);
    if (away) setText(this.banner, "The daemon does not answer. What you see is how it was; the page goes on by itself when it is back.");
    else if (rack.waiting > 0) setText(this.banner, `${rack.waiting} of ${rack.sleds.size} sleds wait until Nexus${rack.nexus ? ` at ${rack.nexus}` : ""} has registered them.`);
    else setText(this.banner, "This daemon keeps no history: no timelines, and the page looks every two seconds.");
    this.grid.node.classList.toggle("stale", away);
  }

  showChips() {
    const of = new Map(states().map((look) => [look.word, 0]));
    const troubles = new Map(TROUBLES.map((each) => [each.word, 0]));
    for (const vm of this.rack.vms.values()) {
      of.set(vm.state, (of.get(vm.state) ?? 0) + 1);
      const trouble = troubleOf(vm);
      if (trouble && trouble !== "failed") troubles.set(trouble, troubles.get(trouble) + 1);
    }
    troubles.delete("failed");
    const chips = [
      ...[...of].map(([word, n]) => ({ word, n, says: lookOf(word)?.says ?? "" })),
      ...[...troubles].map(([word, n]) => ({ word, n, trouble: true, says: TROUBLES.find((each) => each.word === word).says })),
    ];
    const scheme = matchMedia("(prefers-color-scheme: dark)").matches;
    keyed(this.chips, chips, (chip) => `${chip.word}/${scheme}`, (chip) => {
      const n = el("b");
      const node = el("button", { class: chip.trouble ? "chip trouble" : "chip", title: chip.says, "aria-pressed": "false", onclick: () => this.toggle(chip.word) },
        chip.trouble ? el("span", { class: `badge ${chip.word}`, "aria-hidden": "true" }) : icon(lookOf(chip.word), colourOf(chip.word)), el("span", { text: chip.word }), n);
      node.n = n;
      return node;
    }, (node, chip) => {
      setText(node.n, figure(chip.n));
      node.classList.toggle("none", chip.n === 0);
      node.setAttribute("aria-pressed", String(this.only.has(chip.word)));
    });
  }

  toggle(word) {
    if (!this.only.delete(word)) this.only.add(word);
    this.ask(true);
  }

  isMeant(vm) {
    if (this.only.size && !this.only.has(vm.state) && !this.only.has(troubleOf(vm))) return false;
    return this.text === "" || matches(vm, this.rack.sleds.get(vm.sled), this.text);
  }

  // Without a choice whoever needs a look, the longest first; else whoever is meant, also of those that are gone.
  showList() {
    const chosen = this.text !== "" || this.only.size > 0;
    const found = [];
    for (const vm of this.rack.vms.values()) if (chosen ? this.isMeant(vm) : troubleOf(vm)) found.push(vm);
    const worst = (vm) => TROUBLES.findIndex((each) => each.word === troubleOf(vm)) >>> 0;
    found.sort((a, b) => worst(a) - worst(b) || a.since_us - b.since_us || a.n - b.n);
    if (chosen) for (const vm of this.rack.gone.values()) if (this.isMeant(vm)) found.push(vm);
    setText(this.listTitle, chosen ? `${figure(found.length)} found` : found.length ? `${figure(found.length)} need${found.length === 1 ? "s" : ""} a look` : "Nobody needs a look");
    keyed(this.list, found.slice(0, LISTED), (vm) => vm.id, (vm) => {
      const node = el("li", {}, el("button", { class: "row", onclick: () => this.open(vm.id) }));
      node.mark = el("span", { class: "mark-of" });
      node.name = el("b");
      node.rest = el("span", { class: "dim" });
      node.tag = el("span", { class: "tag" });
      node.firstChild.append(node.mark, node.name, node.tag, node.rest);
      return node;
    }, (node, vm) => {
      const trouble = vm.gone ? "gone" : troubleOf(vm);
      const scheme = colourOf(vm.state);
      if (node.look !== `${vm.state}/${scheme}`) node.mark.replaceChildren(icon(lookOf(vm.state), scheme));
      node.look = `${vm.state}/${scheme}`;
      setText(node.name, vm.name || `v${vm.n}`);
      setText(node.tag, trouble === "retrying" ? `attempt ${vm.tries}` : trouble);
      node.tag.className = `tag ${trouble}`;
      const since = vm.gone || !vm.since_us ? "" : ` for ${seconds(Math.max(0, this.rack.atUs - vm.since_us))}`;
      setText(node.rest, `v${vm.n} ${vm.state}${since} \u00b7 ${this.sledName(vm.sled)}${whyOf(vm)}`);
      node.firstChild.setAttribute("aria-current", String(vm.id === this.openId));
    });
  }

  showHeld() {
    const { held, heldTotal } = this.rack;
    this.heldBox.hidden = heldTotal === 0;
    setText(this.heldTitle, `${figure(heldTotal)} report${heldTotal === 1 ? "" : "s"} held`);
    const by = new Map();
    for (const one of held) {
      const key = one.rule || one.why;
      if (!by.has(key)) by.set(key, { key, rule: one.rule, why: one.why, reports: [] });
      by.get(key).reports.push(one);
    }
    keyed(this.held, [...by.values()], (group) => group.key, (group) => {
      const node = el("li", { class: "group" });
      node.reports = el("ul", { class: "list" });
      node.count = el("span", { class: "dim" });
      node.append(el("div", { class: "line" }, el("b", { text: group.rule ? `rule ${group.rule}` : group.why }), node.count,
        group.rule && this.source.can("POST /release/{name}") ? el("button", { class: "do", onclick: () => this.act("release", () => this.source.release(group.rule), `${group.rule} released`), text: "Release" }) : null), node.reports);
      return node;
    }, (node, group) => {
      setText(node.count, `${group.reports.length}`);
      keyed(node.reports, group.reports.slice(0, 8), (one) => `${one.id}/${one.gen}`, (one) => el("li", {},
        el("button", { class: "row", onclick: () => this.open(one.id) }, icon(lookOf(one.state), colourOf(one.state)), el("b", { text: one.name || `v${one.n}` }), el("span", { class: "dim", text: `v${one.n} reports ${one.state}${one.gen ? `, gen ${one.gen}` : ""}` }))), () => {});
    });
  }

  showRules() {
    this.rulesBox.hidden = this.rack.rules.length === 0;
    keyed(this.rules, this.rack.rules, (rule) => rule.name, (rule) => {
      const node = el("li", { class: "line rule" });
      node.count = el("span", { class: "count" });
      node.fire = rule.manual && this.source.can("POST /fire/{name}") ? el("button", { class: "do", onclick: () => this.act("fire", () => this.source.fire(rule.manual), `${rule.manual} fired`), text: "Fire" }) : null;
      node.release = this.source.can("POST /release/{name}") ? el("button", { class: "do", hidden: true, onclick: () => this.act("release", () => this.source.release(rule.name), `${rule.name} released`), text: "Release" }) : null;
      node.append(...[el("div", { class: "grow" }, el("b", { text: rule.name }), ["for", "when", "do"].filter((part) => rule.words[part]).map((part) => el("span", { class: "part" }, el("i", { text: part }), rule.words[part])), el("span", { class: "where dim", text: rule.where })), node.count, node.release, node.fire].filter(Boolean));
      return node;
    }, (node, rule) => {
      // what it holds is in the box above, with its own button; a VM that it stalls is nowhere else
      if (node.release) node.release.hidden = !rule.holds || this.rack.held.some((one) => one.rule === rule.name);
      setText(node.count, rule.matched === null ? `fired ${figure(rule.fired)}` : `fired ${figure(rule.fired)} of ${figure(rule.matched)}`);
      node.classList.toggle("off", !rule.enabled);
      node.classList.toggle("idle", rule.fired === 0);
    });
  }

  showFailures() {
    const { failures, judged } = this.recording;
    this.failuresBox.hidden = judged && failures.length === 0;
    setText(this.failuresBox.firstChild, judged ? `${failures.length} failed` : "Not judged");
    if (!judged) this.failures.append(el("li", { class: "dim", text: "This page is made of a trace that this program plays differently: what failed is not in it." }));
    this.failures.append(...failures.map((failure) => el("li", {},
      el("button", { class: "row", onclick: () => this.seeFailure(failure) }, el("span", { class: "tag failed", text: seconds(failure.at_us) }), el("span", { text: failure.text })),
      failure.why.length ? el("ul", { class: "why" }, failure.why.map((line) => el("li", { text: line }))) : null)));
  }

  seeFailure(failure) {
    this.source.seek(failure.at_us);
    const [, n] = /\bv(\d+)\b/.exec(failure.text) ?? [];
    if (n !== undefined) this.open(n);
  }

  showEmpty() {
    const none = this.rack.vms.size === 0 && this.rack.fields.length > 0 && !this.recording;
    if (this.empty.hidden === !none) return;
    this.empty.hidden = !none;
    this.empty.replaceChildren(
      el("h2", { text: "No VMs yet" }),
      el("p", { text: "As soon as Nexus registers a VM with a sled, it is here. With the model of Nexus that sim-sled up brings along:" }),
      el("pre", { text: "curl -gs http://$(sim-sled port model.control)/v1/instances --json '{\"name\": \"web\"}'" }));
  }

  sledName(id) {
    return this.rack.sleds.get(id)?.name ?? (this.recording ? this.recording.sleds[Number(id)] : undefined) ?? String(id).slice(0, 8);
  }

  // ---- one VM

  openVm() {
    return this.openId === null ? undefined : this.rack.vms.get(this.openId) ?? this.rack.gone.get(this.openId);
  }

  open(id) {
    this.openId = this.grid.selected = this.grid.cursor = id;
    this.lost = null;
    const vm = this.rack.vms.get(id) ?? this.rack.gone.get(id);
    if (vm) history.replaceState(null, "", `#v${vm.n}`);
    document.body.classList.add("telling");
    this.tell(true);
    this.ask(true);
  }

  close() {
    this.openId = this.grid.selected = null;
    document.body.classList.remove("telling");
    history.replaceState(null, "", location.pathname + location.search);
    this.story.clear();
    this.grid.node.focus({ preventScroll: true });
    this.ask(true);
  }

  // Asks for the story of the open VM, now and while it changes: at most so often, and never twice at a time.
  async tell(first = false) {
    if (this.telling) { this.again = true; return; }
    this.telling = true;
    try {
      do {
        this.again = false;
        const id = this.openId;
        if (id === null) break;
        // rows as they are before it is asked: what changes meanwhile is asked for again
        const rows = new Map(this.rack.vms);
        this.toldOf = [[id, rows.get(id)]];
        const story = await this.source.story(id);
        if (id !== this.openId) { this.again = true; continue; }
        this.lost = null;
        this.toldOf = story.lives.map((life) => [life.id, rows.get(life.id)]);
        const self = story.lives.find((life) => life.id === id);
        const vm = this.rack.vms.get(id) ?? { id, ...self, gone: true };
        this.story.show(story, vm, (sled) => this.sledName(sled), this.recording ? this.source.now : null);
        if (first) { this.story.node.focus({ preventScroll: false }); first = false; }
        if (!this.recording) await new Promise((wake) => setTimeout(wake, STORY_MS));
      } while (this.again);
    } catch (error) {
      this.lost = this.openId;  // said once, and not each second; a new row of it is asked about again
      if (this.source.state !== "away") this.say(error.message, true);
    } finally {
      this.telling = false;
    }
  }

  followHash() {
    const [, n] = /^#v(\d+)$/.exec(location.hash) ?? [];
    if (n === undefined) return;
    const find = (tries) => {
      const vm = [...this.rack.vms.values(), ...this.rack.gone.values()].find((each) => each.n === Number(n));
      if (vm && vm.id !== this.openId) this.open(vm.id);
      else if (!vm && tries > 0) setTimeout(() => find(tries - 1), 200);
      else if (!vm) this.findUnseen(Number(n));
    };
    find(this.recording ? 0 : 20);  // a daemon tells its VMs one by one, a finished run knows them all
  }

  // Whoever is gone, or of a run is yet to come, is in no row; its life is known all the same. Who never was is said.
  async findUnseen(n) {
    try {
      const { lives } = await this.source.story(`v${n}`);
      this.open(lives.find((life) => life.n === n).id);
    } catch (error) {
      this.say(error.message, true);
    }
  }

  // ---- doing

  inject(id, fault) {
    this.act("inject", () => this.source.inject(id, fault.body), `${fault.label}: injected`);
  }

  async act(what, done, good) {
    try {
      await done();
      if (good) this.say(good);
    } catch (error) {
      this.say(`${what}: ${error.message}`, true);
    }
  }

  say(text, bad = false) {
    setText(this.toast, text);
    this.toast.hidden = false;
    this.toast.classList.toggle("bad", bad);
    clearTimeout(this.hush);
    this.hush = setTimeout(() => { this.toast.hidden = true; }, bad ? 8000 : 3000);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || this.help.open || this.lock.open) return;
    const typing = event.target === this.find || event.target.tagName === "SELECT";
    if (event.key === "Escape") {
      if (typing && this.text) { this.find.value = this.text = ""; this.ask(true); }
      else if (this.openId !== null) this.close();
      else if (this.only.size) { this.only.clear(); this.ask(true); }
      return;
    }
    if (typing) {
      if (event.key === "Enter") this.list.querySelector("button")?.click();
      return;
    }
    if (event.key === "/") { event.preventDefault(); this.find.focus(); }
    else if (event.key === "?") this.help.showModal();
    else if (event.key === "g") this.grid.node.focus();
    else if (event.key === "n") this.nextTrouble();
    else this.transport.key(event);
  }

  nextTrouble() {
    const buttons = [...this.list.querySelectorAll("button.row")];
    const at = buttons.findIndex((each) => each.getAttribute("aria-current") === "true");
    buttons[(at + 1) % buttons.length]?.click();
  }

  helpDialog() {
    const keys = [["/", "find"], ["g", "the grid; then arrows, Home, End, Enter"], ["n", "next VM that needs a look"], ["Esc", "close, or clear"], ...this.transport.keys(), ["?", "this"]];
    return el("dialog", { class: "help", "aria-label": "keys" }, el("h2", { text: "Keys" }),
      el("dl", {}, keys.map(([name, says]) => [el("dt", {}, el("kbd", { text: name })), el("dd", { text: says })])),
      el("h2", { text: "Marks" }),
      el("dl", {}, TROUBLES.filter((each) => each.word !== "failed").map((each) => [el("dt", {}, el("span", { class: `badge ${each.word}` })), el("dd", { text: `${each.word}: ${each.says}` })])),
      el("form", { method: "dialog" }, el("button", { text: "Close" })));
  }

  lockDialog() {
    const input = el("input", { type: "password", autocomplete: "off", "aria-label": "control token" });
    const enter = (event) => {
      event.preventDefault();
      this.source.setToken(input.value.trim());
      this.lock.close();
      this.source.state = "connecting";
      this.source.run();
    };
    return el("dialog", { "aria-label": "control token" }, el("form", { onsubmit: enter }, el("h2", { text: "This daemon wants its control token" }), el("p", { class: "dim", text: "It stays in this tab." }), input, el("button", { text: "Open" })));
  }
}

// What keeps a VM where it is, in a word: the rule, or what Nexus answered.
function whyOf(vm) {
  if (vm.gone) return "";
  const rule = vm.rule && ["stuck", "held"].includes(troubleOf(vm)) ? `rule ${vm.rule}` : "";
  return [rule, vm.trouble].filter(Boolean).map((text) => ` \u00b7 ${text}`).join("");
}

const embedded = document.getElementById("recording");
new Page(document.getElementById("page"), embedded ? JSON.parse(embedded.textContent) : null).begin();
