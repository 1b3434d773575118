// How each shape of the table of states is drawn, in a box from -10 to 10: the same path on the canvas and in the page.

import { draw } from "./dom.js";

const SHAPES = {
  square: { d: "M-7 -5A2 2 0 0 1 -5 -7H5A2 2 0 0 1 7 -5V5A2 2 0 0 1 5 7H-5A2 2 0 0 1 -7 5Z" },
  triangle: { d: "M-6 -8L8 0L-6 8Z" },
  wedge: { d: "M-8 -6H8L0 8Z" },
  bar: { d: "M-7 -3H7V3H-7Z" },
  dot: { d: "M0 -3.5A3.5 3.5 0 1 1 0 3.5A3.5 3.5 0 1 1 0 -3.5Z" },
  ring: { d: "M0 -6A6 6 0 1 1 0 6A6 6 0 1 1 0 -6Z", line: 3 },
  arc: { d: "M5 -4.5A6.5 6.5 0 1 0 6.5 1M6.8 -8V-3H1.8", line: 3 },
  cross: { d: "M-6 -6L6 6M6 -6L-6 6", line: 4.5 },
  chevrons: { d: "M-7 -7L0 0L-7 7M1 -7L8 0L1 7", line: 3.6 },
};
const UNKNOWN = { d: "M-6 -6H6V6H-6Z", line: 2 };

export function isDrawn(shape) {
  return shape in SHAPES;
}

export function icon(look, colour, size = 14) {
  const shape = SHAPES[look?.shape] ?? UNKNOWN;
  const path = draw("path", shape.line
    ? { d: shape.d, fill: "none", stroke: colour, "stroke-width": shape.line, "stroke-linecap": "round", "stroke-linejoin": "round" }
    : { d: shape.d, fill: colour });
  return draw("svg", { viewBox: "-10 -10 20 20", width: size, height: size, class: "icon", "aria-hidden": "true" }, path);
}

export function paint(context, look, colour, x, y, size) {
  const shape = SHAPES[look?.shape] ?? UNKNOWN;
  context.save();
  context.translate(x, y);
  context.scale(size / 20, size / 20);
  const path = new Path2D(shape.d);
  if (shape.line) {
    context.strokeStyle = colour;
    context.lineWidth = shape.line;
    context.lineCap = context.lineJoin = "round";
    context.stroke(path);
  } else {
    context.fillStyle = colour;
    context.fill(path);
  }
  context.restore();
}
