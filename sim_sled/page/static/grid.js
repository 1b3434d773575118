// Sleds x VMs on a canvas: as large as the number of VMs allows, from tiles with names to a mark of nine pixels.

import { el, setText } from "./dom.js";
import { paint } from "./shapes.js";
import { colourOf, isDark, lookOf, onScheme } from "./words.js";
import { troubleOf } from "./rack.js";

const SIZES = [
  { w: 196, h: 44, mark: 24, label: true, wide: true, most: 60 },
  { w: 148, h: 30, mark: 18, label: true, most: 400 },
  { w: 34, h: 34, mark: 24 },
  { w: 26, h: 26, mark: 20 },
  { w: 20, h: 20, mark: 15 },
  { w: 15, h: 15, mark: 12 },
  { w: 12, h: 12, mark: 10 },
  { w: 9, h: 9, mark: 8 },
];
const HEAD = 20;
const GAP = 14;
const PAD = 12;
const BLOCK_MIN = 148;
const FLASH_MS = 900;

export class Grid {
  constructor(open) {
    this.open = open;
    this.sprites = new Map();
    this.blocks = [];
    this.cursor = null;
    this.selected = null;
    this.meant = () => true;
    this.meansAll = true;
    this.canvas = el("canvas", { class: "cells", "aria-hidden": "true" });
    this.space = el("div", { class: "space" });
    this.tip = el("div", { class: "tip", hidden: true });
    this.said = el("div", { class: "unseen", "aria-live": "polite" });
    this.node = el("div", { class: "grid", tabindex: "0", role: "application", "aria-label": "VMs by sled: arrow keys move, Enter opens" }, this.space, this.canvas, this.tip, this.said);
    this.node.addEventListener("scroll", () => this.redraw());
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.node.addEventListener("pointermove", (event) => this.point(event));
    this.node.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.node.addEventListener("click", (event) => {
      const vm = this.at(event);
      if (vm) { this.cursor = vm.id; this.open(vm.id); }
    });
    this.node.addEventListener("focus", () => this.redraw());
    this.node.addEventListener("blur", () => this.redraw());
    new ResizeObserver(() => this.show(this.rack)).observe(this.node);
    onScheme(() => { this.sprites.clear(); this.redraw(); });
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
  }

  show(rack) {
    if (rack === undefined) return;
    this.rack = rack;
    this.shape();
    this.redraw();
  }

  // Where everything is: anew when rows of the rack or the window have changed, not while somebody scrolls.
  shape() {
    const rack = this.rack;
    const of = new Map([...rack.sleds.keys()].map((id) => [id, []]));
    for (const vm of rack.vms.values()) of.get(vm.sled)?.push(vm);
    const width = this.node.clientWidth;
    const high = this.room ?? this.node.clientHeight;
    this.fit(of, width - 2 * PAD, Math.max(high - 2 * PAD, 240));
  }

  fit(of, width, high) {
    const counts = [...of.values()].map((vms) => vms.length);
    const rackful = counts.reduce((a, b) => a + b, 0);
    let best = null;
    for (const size of SIZES) {
      if (size.most !== undefined && rackful > size.most) continue;
      const most = Math.max(1, Math.floor((width + GAP) / (Math.max(BLOCK_MIN, size.w) + GAP)));
      let tallest = null;
      for (let columns = 1; columns <= Math.min(most, counts.length || 1); columns++) {
        const wide = Math.floor((width - GAP * (columns - 1)) / columns);
        const line = Math.max(1, Math.floor(wide / size.w));
        let tall = 0;
        for (let i = 0; i < counts.length; i += columns) {
          tall += HEAD + GAP + size.h * Math.max(1, ...counts.slice(i, i + columns).map((n) => Math.ceil(n / line)));
        }
        // fewer columns are easier to read: more only where they save room
        if (tallest === null || tall < tallest.tall * 0.9) tallest = { columns, wide, line, tall, size };
      }
      best = tallest;
      if (tallest !== null && tallest.tall <= high) break;
    }
    this.layout = best;
    this.blocks = [];
    let [x, y, row] = [PAD, PAD, 0];
    let column = 0;
    for (const [id, vms] of of) {
      vms.sort((a, b) => a.n - b.n);
      const lines = Math.max(1, Math.ceil(vms.length / best.line));
      const tall = HEAD + lines * best.size.h;
      this.blocks.push({ id, vms, x, y, tall });
      row = Math.max(row, tall);
      column++;
      x += best.wide + GAP;
      if (column === best.columns) {
        [column, x, y, row] = [0, PAD, y + row + GAP, 0];
      }
    }
    this.total = y + row + PAD;
    this.space.style.height = `${this.total}px`;
  }

  redraw() {
    if (this.asked || this.rack === undefined) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      const began = performance.now();
      this.drawn = 0;
      this.paint();
      this.node.dataset.drawn = this.drawn;
      this.node.dataset.cell = this.layout?.size.h ?? 0;
      this.node.dataset.took = (performance.now() - began).toFixed(1);
    });
  }

  paint() {
    const dpr = window.devicePixelRatio || 1;
    const [width, high] = [this.node.clientWidth, this.node.clientHeight];
    const canvas = this.canvas;
    if (canvas.width !== Math.round(width * dpr) || canvas.height !== Math.round(high * dpr)) {
      canvas.width = Math.round(width * dpr);
      canvas.height = Math.round(high * dpr);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${high}px`;
    }
    const context = canvas.getContext("2d");
    const top = this.node.scrollTop;
    context.setTransform(dpr, 0, 0, dpr, 0, -top * dpr);
    context.clearRect(0, top, width, high);
    const kind = `${this.layout?.size.mark}/${dpr}/${isDark()}`;
    if (kind !== this.kind) this.sprites.clear();
    this.kind = kind;
    const style = getComputedStyle(this.node);
    this.ink = style.getPropertyValue("--ink").trim();
    this.dim = style.getPropertyValue("--dim").trim();
    this.alarm = style.getPropertyValue("--alarm").trim();
    this.accent = style.getPropertyValue("--accent").trim();
    this.line = style.getPropertyValue("--line").trim();
    this.plate = style.getPropertyValue("--plate").trim();
    const flashing = this.blocks.filter((block) => block.y + block.tall >= top && block.y <= top + high).map((block) => this.paintBlock(context, block, top, high, dpr)).some(Boolean);
    if (flashing) this.redraw();
  }

  paintBlock(context, block, top, high, dpr) {
    const { size, line, wide } = this.layout;
    const sled = this.rack.sleds.get(block.id);
    const bad = sled.down || (sled.registration && sled.registration !== "registered" ? `not registered (${sled.registration})` : "");
    context.textBaseline = "middle";
    context.font = "600 12px system-ui, sans-serif";
    context.fillStyle = bad ? this.alarm : this.ink;
    const name = clip(context, sled.name, wide * 0.55);
    context.fillText(name, block.x, block.y + 8);
    const after = block.x + context.measureText(name).width + 8;
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = bad ? this.alarm : this.dim;
    let told = bad ? `\u26a0 ${bad}` : String(block.vms.length);
    if (!bad && sled.unacknowledged) told += `  ${sled.unacknowledged} unacknowledged`;
    context.fillText(clip(context, told, block.x + wide - after), after, block.y + 8);
    context.fillStyle = this.line;
    context.fillRect(block.x, block.y + 16, wide, 1);
    if (sled.threads > 0 && sled.threads_used > 0) {
      context.fillStyle = this.dim;
      context.fillRect(block.x, block.y + 16, wide * Math.min(1, sled.threads_used / sled.threads), 1);
    }
    const first = Math.max(0, Math.floor((top - block.y - HEAD) / size.h)) * line;
    const last = Math.min(block.vms.length, (Math.ceil((top + high - block.y - HEAD) / size.h) + 1) * line);
    this.drawn += Math.max(0, last - first);
    const now = performance.now();
    const still = this.still.matches;
    const faded = bad ? 0.5 : 1;
    const all = this.meansAll;
    let flashing = false;
    for (let i = first; i < last; i++) {
      const vm = block.vms[i];
      const x = block.x + (i % line) * size.w;
      const y = block.y + HEAD + Math.floor(i / line) * size.h;
      const alpha = all || this.meant(vm) ? faded : 0.13;
      const age = now - vm.changed;
      if (age < FLASH_MS && !still && size.mark > 10) {
        flashing = true;
        context.globalAlpha = alpha * 0.35 * (1 - age / FLASH_MS);
        context.fillStyle = colourOf(vm.state);
        context.fillRect(x + 1, y + 1, size.w - 2, size.h - 2);
      }
      if (context.globalAlpha !== alpha) context.globalAlpha = alpha;
      const sprite = this.sprite(vm, size.mark, dpr);
      const [left, over] = [x + (size.label ? 3 : (size.w - sprite.side) / 2), y + (size.h - sprite.side) / 2];
      context.drawImage(sprite, Math.round(left * dpr) / dpr, Math.round(over * dpr) / dpr, sprite.side, sprite.side);
      if (size.label) {
        const after = x + size.mark + 10;
        context.font = "13px system-ui, sans-serif";
        context.fillStyle = this.ink;
        context.fillText(clip(context, vm.name || `v${vm.n}`, size.w - size.mark - 14), after, y + size.h / 2 + (size.wide ? -7 : 1));
        if (size.wide) {
          context.font = "12px system-ui, sans-serif";
          context.fillStyle = this.dim;
          context.fillText(clip(context, `v${vm.n} ${vm.state}${vm.role && vm.state === "migrating" ? ` \u00b7 ${vm.role}` : ""}`, size.w - size.mark - 14), after, y + size.h / 2 + 9);
        }
      }
      if (vm.id === this.selected || (vm.id === this.cursor && document.activeElement === this.node)) {
        context.globalAlpha = 1;
        context.strokeStyle = this.accent;
        context.lineWidth = vm.id === this.selected ? 2 : 1.5;
        context.setLineDash(vm.id === this.selected ? [] : [3, 2]);
        context.strokeRect(x + 0.5, y + 0.5, size.w - 1, size.h - 1);
        context.setLineDash([]);
      }
    }
    context.globalAlpha = 1;
    return flashing;
  }

  // A state's mark, painted once per look; what is wrong with the VM is a shape of its own around or beside it.
  sprite(vm, size, dpr) {
    const trouble = troubleOf(vm);
    const key = `${vm.state}/${trouble}`;
    const known = this.sprites.get(key);
    if (known) return known;
    const side = size + (size > 10 ? 4 : 0);
    const sprite = document.createElement("canvas");
    sprite.width = sprite.height = Math.round(side * dpr);
    sprite.side = side;
    const context = sprite.getContext("2d");
    context.scale(dpr, dpr);
    paint(context, lookOf(vm.state), colourOf(vm.state), side / 2, side / 2, size * 0.94);
    if (trouble && trouble !== "failed") {
      context.strokeStyle = context.fillStyle = this.alarm;
      context.lineWidth = size > 10 ? 1.6 : 1.2;
      if (trouble === "stuck") context.strokeRect(1, 1, side - 2, side - 2);
      const r = Math.max(2, size * 0.17);
      context.beginPath();
      if (trouble === "held") context.rect(side - 2 * r, 0, 2 * r, 2 * r);
      if (trouble === "retrying") context.arc(side - r, r, r, 0, 7);
      context.fill();
    }
    this.sprites.set(key, sprite);
    return sprite;
  }

  // ---- pointing and moving

  at(event) {
    const box = this.node.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top + this.node.scrollTop];
    const { size, line, wide } = this.layout ?? {};
    const block = this.blocks.find((each) => x >= each.x && x < each.x + wide && y >= each.y + HEAD && y < each.y + each.tall);
    if (!block) return undefined;
    const column = Math.floor((x - block.x) / size.w);
    return column < line ? block.vms[Math.floor((y - block.y - HEAD) / size.h) * line + column] : undefined;
  }

  point(event) {
    const vm = this.at(event);
    this.tip.hidden = vm === undefined;
    this.node.classList.toggle("over", vm !== undefined);
    if (vm === undefined) return;
    setText(this.tip, this.describe(vm));
    const box = this.node.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    this.tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${this.node.scrollTop + (y + 60 > box.height ? y - 40 : y + 16)}px`;
  }

  describe(vm) {
    const sled = this.rack.sleds.get(vm.sled)?.name ?? "a sled that has left";
    const trouble = troubleOf(vm);
    return `${vm.name || "-"} v${vm.n} \u00b7 ${vm.state}${trouble && trouble !== vm.state ? ` \u00b7 ${trouble}` : ""} \u00b7 ${sled}`;
  }

  place(id) {
    for (const block of this.blocks) {
      const i = block.vms.findIndex((vm) => vm.id === id);
      if (i >= 0) return { block, i };
    }
    return undefined;
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const filled = this.blocks.filter((block) => block.vms.length > 0);
    if (filled.length === 0) return;
    const here = this.cursor === null ? undefined : this.place(this.cursor);
    if (event.key === "Enter" || event.key === " ") {
      if (here) this.open(this.cursor);
      event.preventDefault();
      return;
    }
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.layout.line, ArrowDown: this.layout.line };
    let to;
    if (event.key === "Home") to = { block: filled[0], i: 0 };
    else if (event.key === "End") to = { block: filled.at(-1), i: filled.at(-1).vms.length - 1 };
    else if (event.key in moves) to = here === undefined ? { block: filled[0], i: 0 } : this.moved(filled, here, moves[event.key]);
    else return;
    event.preventDefault();
    this.cursor = to.block.vms[to.i].id;
    setText(this.said, this.describe(to.block.vms[to.i]));
    const y = to.block.y + HEAD + Math.floor(to.i / this.layout.line) * this.layout.size.h;
    if (y < this.node.scrollTop + HEAD) this.node.scrollTop = y - HEAD;
    if (y + this.layout.size.h > this.node.scrollTop + this.node.clientHeight) this.node.scrollTop = y + this.layout.size.h - this.node.clientHeight;
    this.redraw();
  }

  moved(filled, here, by) {
    const at = filled.indexOf(here.block);
    const i = here.i + by;
    const { line } = this.layout;
    if (i >= 0 && i < here.block.vms.length) return { block: here.block, i };
    const downward = by > 0;
    const lastLine = Math.floor((here.block.vms.length - 1) / line);
    if (Math.abs(by) > 1 && downward && Math.floor(here.i / line) < lastLine) return { block: here.block, i: here.block.vms.length - 1 };
    const block = filled[at + (downward ? 1 : -1)];
    if (block === undefined) return here;
    if (Math.abs(by) === 1) return { block, i: downward ? 0 : block.vms.length - 1 };
    const column = here.i % line;
    const lines = Math.floor((block.vms.length - 1) / line);
    return { block, i: Math.min(block.vms.length - 1, downward ? column : lines * line + column) };
  }
}

function clip(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (context.measureText(`${text.slice(0, middle)}\u2026`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low === 0 ? "" : `${text.slice(0, low)}\u2026`;
}
