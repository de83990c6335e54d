// Elements, and changing what is there into what shall be, so that focus and scrolling stay.

const SVG = new Set(['svg', 'g', 'rect', 'line', 'path', 'text', 'tspan', 'title', 'defs', 'pattern', 'circle', 'polyline']);

export const $ = id => document.getElementById(id);

/** An element; everything in it is text or an element. */
export function h(tag, attributes, ...children) {
  const e = SVG.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) if (value !== null && value !== undefined && value !== false) e.setAttribute(name, value === true ? '' : value);
  e.append(...children.flat().filter(c => c !== '' && c !== null && c !== undefined && c !== false));
  return e;
}

/** Makes `old` what `next` is. */
export function morph(old, next) {
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const olds = [...old.childNodes], nexts = [...next.childNodes];
  nexts.forEach((child, i) => {
    const was = olds[i];
    if (!was) old.append(child);
    else if (was.nodeName !== child.nodeName || was.nodeType === 1 && (was.id || child.id) && was.id !== child.id) was.replaceWith(child);
    else if (was.nodeType === 3) { if (was.data !== child.data) was.data = child.data; }
    else morph(was, child);
  });
  olds.slice(nexts.length).forEach(n => n.remove());
}

/** Microseconds as people read them. */
export const seconds = us => `${(us / 1e6).toFixed(1)} s`;
