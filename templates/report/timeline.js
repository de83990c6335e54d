// The timeline in motion: zoom, a crosshair, two cursors, addresses. Without it the drawing is whole, and still.
// Every shape has its times in data-t, in microseconds since the scenario began; places are computed from them, never read.
(() => {
  'use strict';
  const box = document.getElementById('timeline');
  const svg = box.querySelector('.plot'), strip = box.querySelector('.overview'), said = box.querySelector('output');
  const end = +svg.dataset.end, LETTER = 7.4, PAD = 6, RIGHT = 52, SMALLEST = 2000;
  const shapes = [...svg.querySelectorAll('[data-t]')].map(el => ({
    el, tag: el.tagName, t: el.dataset.t.split(' ').map(Number), word: el.dataset.w, d: el.getAttribute('d'),
    dx: +(el.dataset.dx || 0),
  }));
  const bars = shapes.filter(s => s.tag === 'text' && s.word !== undefined && s.el.dataset.l);
  const snaps = [...new Set(shapes.flatMap(s => s.tag === 'path' && s.el.dataset.e ? [s.t[0]] : s.t))].sort((a, b) => a - b);
  const skewed = new Map(shapes.filter(s => s.el.dataset.e).map(s => [s.t[0], s.t[2] - s.t[0]]));
  let from = 0, to = end, width = 0, at = null, cursors = [];

  const x = t => PAD + (t - from) / (to - from) * (width - PAD - RIGHT);
  const time = px => from + (px - PAD) / (width - PAD - RIGHT) * (to - from);
  const s = (t, digits = 3) => (t / 1e6).toFixed(digits);
  const make = (tag, attributes, parent = svg) => {
    const el = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) el.setAttribute(name, value);
    return parent.appendChild(el);
  };
  const above = make('g', { class: 'above' });
  const window_ = make('rect', { class: 'window', y: 0, height: 22 }, strip);

  function bar({ el, t, word, dx }) {
    const left = Math.max(PAD, x(t[0])), right = Math.min(width - RIGHT, x(t[1])), mark = word.split(' ')[0];
    const room = right - left - dx - 2;
    el.textContent = [word, mark].find(w => w.length * LETTER <= room) || '';
    el.setAttribute('x', left + dx);
  }
  // Beside the bar where that is too short.
  function fault({ el, t, word, dx }) {
    const left = Math.max(PAD, x(t[0])), right = Math.min(width - RIGHT, x(t[1])), needs = word.length * LETTER + 12;
    const place = right - left > needs ? el.dataset.in : right + needs < width ? 'beside' : left > needs ? 'before' : el.dataset.in;
    el.setAttribute('class', place);
    el.setAttribute('x', place === 'beside' ? right + 6 : place === 'before' ? left - 6 : left + dx);
    const whole = place !== el.dataset.in || right - left > needs;
    el.textContent = whole ? word : right - left > 20 ? word.split(' ')[0] : '';
  }
  function place(shape) {
    const { el, t } = shape;
    const last = Math.max(...t.slice(0, 2)), out = shape.tag !== 'path' && (last < from || t[0] > to);
    el.style.display = out ? 'none' : '';
    if (out) return;
    if (shape.tag === 'rect') {
      const left = Math.max(-8, x(t[0])), right = Math.min(width - RIGHT + 12, x(t[1]));
      el.setAttribute('x', left);
      el.setAttribute('width', Math.max(+el.dataset.least || 1, right - left));
    } else if (shape.tag === 'line') {
      el.setAttribute('x1', x(t[0]) + shape.dx);
      el.setAttribute('x2', x(t[t.length - 1]));
      if (shape.dx && x(t[0]) + shape.dx > x(t[1])) el.style.display = 'none';
    } else if (shape.tag === 'path') {
      let i = 0;
      el.setAttribute('d', shape.d.replace(/([MH])-?[\d.]+/g, (_, letter) => letter + x(t[i++]).toFixed(1)));
    } else if (el.dataset.in) {
      fault(shape);
    } else if (shape.word !== undefined) {
      bar(shape);
    } else {
      el.setAttribute('x', x(t[0]));
    }
  }
  function axis() {
    const group = svg.querySelector('.axis-of');
    group.replaceChildren();
    const y = +group.dataset.y, wanted = (to - from) / Math.max(3, width / 90), power = 10 ** Math.floor(Math.log10(wanted));
    const step = [1, 2, 5, 10].map(f => f * power).find(f => f >= wanted), digits = Math.max(0, 6 - Math.floor(Math.log10(step)));
    make('line', { x1: PAD, x2: width - RIGHT, y1: y, y2: y, class: 'axis' }, group);
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      make('line', { x1: x(t), x2: x(t), y1: y, y2: y + 4, class: 'axis' }, group);
      make('text', { x: Math.max(18, x(t)), y: y + 16, class: 'tick' }, group).textContent = `${s(t, digits)} s`;
    }
  }
  // Labels of takeovers in as many rows as they need.
  function marks() {
    const ends = [], lowest = +svg.dataset.marks;
    for (const { el, t } of shapes.filter(sh => sh.el.classList.contains('mark-text') && t_in(sh.t[0]))) {
      const half = 3.6 * el.textContent.length, middle = Math.min(Math.max(x(t[0]), half), width - half);
      let row = ends.findIndex(e => e < middle - half);
      // Where there is no row left, its line stands alone.
      if (row < 0 && ends.length < +svg.dataset.rows) row = ends.push(0) - 1;
      el.style.display = row < 0 ? 'none' : '';
      if (row < 0) continue;
      ends[row] = middle + half + 6;
      el.setAttribute('x', middle);
      el.setAttribute('y', lowest - 13 * row);
    }
  }
  const t_in = t => t >= from && t <= to;

  function draw() {
    width = box.querySelector('.lanes').clientWidth - box.querySelector('.names').clientWidth;
    svg.setAttribute('viewBox', `0 0 ${width} ${svg.dataset.height}`);
    svg.style.width = `${width}px`;
    for (const el of svg.querySelectorAll('[data-full]')) el.tagName === 'rect'
      ? el.setAttribute('width', width - RIGHT - +el.getAttribute('x') + +(el.dataset.full || 0)) : el.setAttribute('x2', width - RIGHT);
    for (const el of svg.querySelectorAll('.scale')) el.setAttribute('x', width - RIGHT + 6);
    shapes.forEach(place);
    marks();
    axis();
    cross();
    window_.setAttribute('x', from / end * 1000);
    window_.setAttribute('width', Math.max(2, (to - from) / end * 1000));
    for (const [slider, value] of [[sliders[0], from], [sliders[1], to]]) {
      slider.value = value;
      slider.setAttribute('aria-valuetext', `${s(value)} s`);
    }
  }
  function cross() {
    above.replaceChildren();
    const bottom = svg.querySelector('.axis-of').dataset.y;
    if (cursors.length === 2) {
      const [a, b] = cursors.map(x).sort((p, q) => p - q);
      make('rect', { x: a, y: 0, width: b - a, height: bottom, class: 'measured' }, above);
    }
    for (const [i, t] of cursors.entries()) if (t_in(t)) {
      make('line', { x1: x(t), x2: x(t), y1: 0, y2: bottom, class: 'cursor' }, above);
      make('text', { x: x(t) + 3, y: bottom - 3, class: 'cursor-name' }, above).textContent = 'AB'[i];
    }
    if (at !== null && t_in(at)) make('line', { x1: x(at), x2: x(at), y1: 0, y2: bottom, class: 'cross' }, above);
    said.textContent = words();
  }
  const off = t => skewed.get(t) ? ` ± ${s(skewed.get(t), 6)}` : '';
  function words() {
    const parts = [];
    if (cursors.length === 2) {
      const [a, b] = cursors;
      parts.push(`A ${s(a)} s${off(a)}, B ${s(b)} s${off(b)}: ${s(Math.abs(b - a))} s apart.`);
    } else if (cursors.length === 1) {
      parts.push(`A ${s(cursors[0])} s${off(cursors[0])}; set B.`);
    }
    if (at !== null) {
      const lanes = bars.filter(b => b.t[0] <= at && at < b.t[1]).map(b => `${b.el.dataset.l} ${b.word}`);
      parts.push(`At ${s(at)} s: ${lanes.join(', ')}.`);
    }
    return parts.join(' ') || `${s(from)} s to ${s(to)} s of ${s(end)} s. Point at the drawing, or press . and ,`;
  }

  function view(a, b) {
    const length = Math.min(end, Math.max(SMALLEST, b - a));
    from = Math.round(Math.min(Math.max(0, a), end - length));
    to = from + Math.round(length);
    draw();
    remember();
  }
  function zoom(factor, around = at !== null && t_in(at) ? at : (from + to) / 2) {
    view(around - (around - from) * factor, around + (to - around) * factor);
  }
  const pan = part => view(from + part * (to - from), to + part * (to - from));
  const point = t => {
    at = t;
    if (t_in(t)) return cross();
    const half = (to - from) / 2;
    view(t - half, t + half);
  };
  const next = (list, sign) => {
    const now = at ?? (sign > 0 ? from - 1 : to + 1);
    const found = sign > 0 ? list.find(t => t > now) : list.findLast(t => t < now);
    if (found !== undefined) point(found);
  };
  const takeovers = shapes.filter(sh => sh.el.classList.contains('mark-text')).map(sh => sh.t[0]).sort((a, b) => a - b);
  const takeover = () => {
    if (takeovers.length === 0) return;
    const t = takeovers.find(m => m > (at ?? -1)) ?? takeovers[0];
    at = t;
    view(t - 2e6, t + 2e6);
  };
  function measure(t = at) {
    if (t === null) return;
    cursors = cursors.length === 2 ? [t] : [...cursors, t];
    cross();
    remember();
  }
  const clear = () => { cursors = []; at = null; cross(); remember(); };
  const nearest = t => {
    const best = snaps.reduce((a, b) => Math.abs(b - t) < Math.abs(a - t) ? b : a, snaps[0] ?? t);
    return Math.abs(x(best) - x(t)) <= 6 ? best : Math.round(t);
  };

  let mine = '';
  function remember() {
    const whole = from === 0 && to === end;
    const parts = [whole ? '' : `t=${s(from, 6)}-${s(to, 6)}`, cursors.length ? `m=${cursors.map(c => s(c, 6)).join(',')}` : ''];
    mine = parts.filter(Boolean).join(';');
    try { history.replaceState(null, '', `#${mine}`); } catch { /* some policies forbid it: the page works without */ }
  }
  function recall() {
    const hash = decodeURIComponent(location.hash.slice(1));
    if (hash === mine) return;
    const t = /(?:^|;)t=([\d.]+)(?:-([\d.]+))?/.exec(hash), m = /(?:^|;)m=([\d.,]+)/.exec(hash);
    if (!t && !m) return;
    cursors = m ? m[1].split(',').map(Number).filter(Number.isFinite).slice(0, 2).map(v => Math.round(v * 1e6)) : [];
    const a = t ? +t[1] * 1e6 : 0, b = t ? +(t[2] ?? t[1]) * 1e6 : end;
    if (![a, b].every(Number.isFinite)) return;
    // A moment is shown with what is around it.
    if (t && b - a < SMALLEST) at = Math.round(a);
    view(...(t && b - a < SMALLEST ? [a - 1e6, b + 1e6] : [a, b]));
    box.scrollIntoView();
  }

  const keys = {
    ArrowLeft: () => pan(-.2), a: () => pan(-.2), ArrowRight: () => pan(.2), d: () => pan(.2),
    '+': () => zoom(.5), '=': () => zoom(.5), w: () => zoom(.5), ArrowUp: () => zoom(.5),
    '-': () => zoom(2), s: () => zoom(2), ArrowDown: () => zoom(2),
    0: () => view(0, end), t: takeover, '.': () => next(snaps, 1), ',': () => next(snaps, -1), m: () => measure(), Escape: clear,
  };
  const lanes = box.querySelector('.lanes');
  lanes.addEventListener('keydown', e => {
    const does = keys[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (!does || e.ctrlKey || e.altKey || e.metaKey) return;
    e.preventDefault();
    does();
  });
  const buttons = {
    left: () => pan(-.5), right: () => pan(.5), in: () => zoom(.5), out: () => zoom(2), all: () => view(0, end),
    takeover, measure: () => measure(), clear,
  };
  for (const b of box.querySelectorAll('button')) b.addEventListener('click', buttons[b.dataset.do]);
  const sliders = [...box.querySelectorAll('input[type=range]')];
  sliders[0].addEventListener('input', () => view(Math.min(+sliders[0].value, to - SMALLEST), to));
  sliders[1].addEventListener('input', () => view(from, Math.max(+sliders[1].value, from + SMALLEST)));

  const here = e => time(e.clientX - svg.getBoundingClientRect().left);
  let drag = null;
  svg.addEventListener('pointerdown', e => { drag = { x: e.clientX, from, to, moved: false }; });
  svg.addEventListener('pointermove', e => {
    if (drag && e.buttons) {
      const by = (drag.x - e.clientX) / (width - PAD - RIGHT) * (drag.to - drag.from);
      if (Math.abs(drag.x - e.clientX) > 4) drag.moved = true;
      if (drag.moved) return view(drag.from + by, drag.to + by);
    }
    at = Math.min(end, Math.max(0, nearest(here(e))));
    cross();
  });
  svg.addEventListener('pointerup', e => {
    if (drag && !drag.moved) measure(Math.min(end, Math.max(0, nearest(here(e)))));
    drag = null;
  });
  svg.addEventListener('pointerleave', () => { drag = null; });
  svg.addEventListener('wheel', e => {
    if (!e.ctrlKey) return;
    e.preventDefault();
    zoom(e.deltaY > 0 ? 1.25 : .8, here(e));
  }, { passive: false });

  for (const el of document.querySelectorAll('[data-at]')) {
    const [a, b] = el.dataset.at.split(' ').map(Number), link = document.createElement('a');
    const wide = b > a ? (b - a) * .2 : 0;
    link.href = `#t=${s(Math.max(0, a - wide), 6)}-${s((b > a ? b : a) + wide, 6)}`;
    link.append(...el.childNodes);
    el.append(link);
  }
  addEventListener('hashchange', recall);
  new ResizeObserver(draw).observe(lanes);
  box.classList.add('moving');
  draw();
  recall();
})();
