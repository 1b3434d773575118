// Small plots: what happened how often, per second of a running daemon, per slice of a finished run.

import { draw, el, setText } from "./dom.js";
import { figure } from "./words.js";

const WIDTH = 240;
const HIGH = 36;
export const SHOWN_S = 120;

export const PLOTS = [
  { name: "changes", says: "states that VMs entered", kinds: ["propolis", "registered"], tone: "good" },
  { name: "reports", says: "reports sent to Nexus", kinds: ["sent"], tone: "calm" },
  { name: "retries", says: "reports that Nexus did not acknowledge", kinds: ["retrying"], tone: "warn" },
  { name: "faults", says: "faults injected, requests refused, reports given up", kinds: ["refused", "given-up", "injected", "lost"], tone: "bad" },
];

export class Plots {
  constructor() {
    this.rows = PLOTS.map((plot) => {
      const bars = draw("path", { class: `bars ${plot.tone}` });
      const cursor = draw("path", { class: "cursor" });
      const now = el("b");
      const most = el("span", { class: "dim" });
      const graph = draw("svg", { viewBox: `0 0 ${WIDTH} ${HIGH}`, preserveAspectRatio: "none", role: "img" }, draw("path", { class: "base", d: `M0 ${HIGH - 0.5}H${WIDTH}` }), bars, cursor);
      return { plot, bars, cursor, now, most, graph, node: el("figure", { title: plot.says }, el("figcaption", {}, el("span", { text: plot.name }), now, most), graph) };
    });
    this.node = el("section", { class: "plots", "aria-label": "rates" }, this.rows.map((row) => row.node));
    this.each = el("p", { class: "dim each", hidden: true });
    this.node.append(this.each);
  }

  // `slices`: counts by kind, oldest first, each of `slice`, which is told once; `at`: where the slider stands, from 0 to
  // 1; live (null) a slice is a second, which the figures say.
  show(slices, at, slice) {
    const unit = at === null ? "/s" : "";
    this.each.hidden = at === null;
    if (at !== null) setText(this.each, `a bar is ${slice}`);
    for (const row of this.rows) {
      const values = slices.map((counts) => row.plot.kinds.reduce((sum, kind) => sum + (counts?.[kind] ?? 0), 0));
      const most = Math.max(1, ...values);
      const step = WIDTH / values.length;
      const path = values.map((value, i) => {
        if (value === 0) return "";
        const high = Math.max(1.5, (value / most) * (HIGH - 4));
        return `M${(i * step).toFixed(2)} ${HIGH}v${-high.toFixed(2)}h${Math.max(step - 0.4, 0.4).toFixed(2)}v${high.toFixed(2)}z`;
      }).join("");
      if (path !== row.path) row.bars.setAttribute("d", path);
      row.path = path;
      row.cursor.setAttribute("d", at === null ? "" : `M${(at * WIDTH).toFixed(1)} 0V${HIGH}`);
      const now = at === null ? values.at(-1) : values[Math.min(values.length - 1, Math.floor(at * values.length))];
      setText(row.now, `${figure(now)}${unit}`);
      setText(row.most, `most ${figure(Math.max(...values))}`);
      row.graph.setAttribute("aria-label", `${row.plot.name}: now ${now}${unit}, at most ${Math.max(...values)}`);
    }
  }
}

// The last seconds of a live rack, without the one that has only begun.
export function lastSeconds(rack) {
  const end = Math.floor(rack.atUs / 1e6);
  return Array.from({ length: SHOWN_S }, (_, i) => rack.counts.get(end - SHOWN_S + i));
}
