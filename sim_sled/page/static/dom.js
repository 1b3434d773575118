// Elements made by hand: text is always text, so that nothing a VM is called can become a tag.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function draw(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

// A list that is kept by key: nodes stay where they are, `make` once, `update` each time. Whatever has left goes first:
// a node that is moved to close a gap would lose the focus and its place of scrolling.
export function keyed(node, items, key, make, update) {
  const had = node.keyed ?? (node.keyed = new Map());
  const now = new Map(items.map((item) => [key(item), item]));
  for (const [name, row] of had) if (!now.has(name)) row.remove();
  let at = node.firstChild;
  for (const [name, item] of now) {
    const row = had.get(name) ?? make(item);
    update(row, item);
    now.set(name, row);
    if (row === at) at = at.nextSibling;
    else node.insertBefore(row, at);
  }
  node.keyed = now;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
