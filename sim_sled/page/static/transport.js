// Time in hand: the slider of a finished run; pause and step of a running daemon that offers them.

import { el, setText } from "./dom.js";
import { seconds } from "./words.js";

const SPEEDS = [0.25, 1, 4, 16, 60];

export class Transport {
  constructor(source, recording, doing) {
    this.source = source;
    this.recording = recording;
    this.doing = doing;
    this.node = recording ? el("footer", { class: "transport", "aria-label": "time", hidden: true }) : el("div", { class: "pacing", role: "group", "aria-label": "time", hidden: true });
    if (recording) this.buildSlider();
  }

  keys() {
    return this.recording
      ? [["space", "play or stop"], [", .", "the event before, the next one (of the open VM)"], ["[ ]", "a hundredth of the run back, forth"]]
      : [["space", "pause or go on"], [".", "one step, while paused"]];
  }

  // ---- a finished run

  buildSlider() {
    this.play = el("button", { class: "do", onclick: () => this.toggle(), text: "Play" });
    this.slider = el("input", { type: "range", min: 0, max: this.source.endUs / 1e6, step: "any", value: 0, "aria-label": "time of the run", oninput: () => { this.stop(); this.source.seek(this.slider.value * 1e6); } });
    this.marks = el("div", { class: "marks", "aria-hidden": "true" });
    this.time = el("output", { class: "time" });
    this.speed = el("select", { "aria-label": "speed" }, SPEEDS.map((speed) => el("option", { value: speed, text: `${speed}\u00d7` })));
    this.speed.value = "1";
    this.node.append(
      this.play,
      el("button", { "aria-label": "event before", title: ",", onclick: () => this.step(false), text: "\u25c2" }),
      el("button", { "aria-label": "next event", title: ".", onclick: () => this.step(true), text: "\u25b8" }),
      el("div", { class: "track" }, this.marks, this.slider), this.time, this.speed);
  }

  begin() {
    this.node.hidden = false;
    for (const failure of this.recording.failures) {
      const mark = el("i", { class: "failure" });
      mark.style.left = `${failure.at_us / this.source.endUs * 100}%`;
      this.marks.append(mark);
    }
    const seen = new Set();
    for (const event of this.source.events) {
      const share = Math.round(event.at_us / this.source.endUs * 400);
      if (event.kind !== "rule" || seen.has(share)) continue;
      seen.add(share);
      const mark = el("i", { class: "rule" });
      mark.style.left = `${share / 4}%`;
      this.marks.append(mark);
    }
  }

  step(forward) {
    this.stop();
    this.source.step(forward, this.doing.openVm()?.n);
  }

  toggle() {
    if (this.playing) { this.stop(); return; }
    if (this.source.now >= this.source.endUs) this.source.seek(0);
    this.playing = true;
    setText(this.play, "Stop");
    let last = performance.now();
    const go = (now) => {
      if (!this.playing) return;
      const us = this.source.now + (now - last) * 1000 * Number(this.speed.value);
      last = now;
      this.source.seek(us);
      if (us >= this.source.endUs) this.stop();
      else requestAnimationFrame(go);
    };
    requestAnimationFrame(go);
  }

  stop() {
    this.playing = false;
    setText(this.play, "Play");
  }

  // ---- a running daemon

  buildPause() {
    this.built = true;
    this.pause = el("button", { class: "do", onclick: () => this.turn(), text: "Pause" });
    this.once = el("button", { class: "do", title: ".", onclick: () => this.doing.act("step", () => this.source.post("/step")), text: "Step" });
    this.skips = [["+1 s", 1_000], ["+1 min", 60_000]].map(([text, ms]) => el("button", { onclick: () => this.doing.act(text, () => this.source.post("/until", { within_ms: ms })), text }));
    this.time = el("output", { class: "time" });
    this.node.append(this.pause, this.once, ...this.skips, this.time);
    this.node.hidden = false;
  }

  turn() {
    const what = this.paused ? "resume" : "pause";
    this.doing.act(what, () => this.source.post(`/${what}`));
  }

  show(rack) {
    if (this.recording) {
      if (document.activeElement !== this.slider || this.playing) this.slider.value = this.source.now / 1e6;
      setText(this.time, `${seconds(this.source.now)} of ${seconds(this.source.endUs)}`);
      this.slider.setAttribute("aria-valuetext", seconds(this.source.now));
      return;
    }
    // a rack of several processes has no clock that could be stopped: it tells no pace
    if (!this.built && rack.pace !== undefined && this.doing.can("POST /pause")) this.buildPause();
    if (!this.built) return;
    this.node.hidden = rack.pace === undefined;
    this.paused = rack.pace?.paused ?? false;
    setText(this.pause, this.paused ? "Go on" : "Pause");
    this.once.hidden = !(this.paused && this.doing.can("POST /step"));
    for (const skip of this.skips) skip.hidden = !(this.paused && this.doing.can("POST /until"));
    const due = rack.pace?.next_us;
    setText(this.time, !this.paused ? "" : `Time stands; ${due ? `next in ${seconds(Math.max(0, due - rack.atUs))}` : "nothing is due"}`);
  }

  key(event) {
    if (event.target.closest?.("button, input, dialog, .grid") && event.key === " ") return;
    if (this.recording) {
      const share = { "[": -0.01, "]": 0.01 }[event.key];
      if (share) { this.stop(); this.source.seek(this.source.now + share * this.source.endUs); }
      else if (event.key === ",") this.step(false);
      else if (event.key === ".") this.step(true);
      else if (event.key === " ") { event.preventDefault(); this.toggle(); }
    } else if (this.built) {
      if (event.key === " ") { event.preventDefault(); this.turn(); }
      else if (event.key === "." && this.paused) this.once.click();
    }
  }
}
