// A run that ended: where in it the page is, and going elsewhere.
import { h, morph, seconds, $ } from '/draw.js';
import { state, goTo } from '/app.js';

const WIDTH = 1000, NAMES = 0;
let playing = null;

/** The strip: roles of each machine, faults, the longest wait, and a slider over all of it. */
export function replay(s) {
  const { extent, tracks, moments } = s.run, long = extent.to_us - extent.from_us;
  const x = us => NAMES + (Math.min(Math.max(us, extent.from_us), extent.to_us) - extent.from_us) * WIDTH / long;
  const rows = tracks.roles.map(([name, track], i) => h('g', {}, track.map(t => h('rect', {
    x: x(t.from_us), y: 20 + i * 16, width: Math.max(x(t.to_us) - x(t.from_us) - 1, 1), height: 12, class: `lane ${t.what}`,
  }, h('title', {}, `${name}: ${t.what}, ${seconds(t.from_us - extent.from_us)} to ${seconds(t.to_us - extent.from_us)}`)))));
  const height = 24 + tracks.roles.length * 16;
  const here = x(s.tUs), past = moments.findLast(m => m.t_us <= s.tUs + 1);
  const wait = tracks.outage ? h('rect', { x: x(tracks.outage[0]), y: 0, width: x(tracks.outage[1]) - x(tracks.outage[0]), height, class: 'waits' }, h('title', {}, `longest time without an answer: ${seconds(tracks.outage[1] - tracks.outage[0])}`)) : '';
  morph($('replay'), h('section', { id: 'replay', 'aria-label': 'Moment of the run' },
    h('div', { class: 'strip' },
      h('svg', { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, wait, rows,
        moments.map(m => h('path', { d: `M${x(m.t_us)} 4V${height}`, class: 'moment' })), h('path', { d: `M${here} 0V${height}`, class: 'here' })),
      h('input', { id: 'at', type: 'range', min: '0', max: String(long), step: '10000', 'aria-label': 'Moment', 'aria-valuetext': `${seconds(s.tUs - extent.from_us)}${past ? `, ${past.what}` : ''}` })),
    h('div', { class: 'acts' },
      h('button', { 'data-go': 'before' }, 'Moment before'), h('button', { 'data-go': 'play', 'aria-pressed': String(!!playing) }, playing ? 'Stop' : 'Play'), h('button', { 'data-go': 'next' }, 'Next moment'),
      h('span', { class: 'clock' }, `${seconds(s.tUs - extent.from_us)} of ${seconds(long)}`), h('b', {}, past ? past.what : 'nothing has happened yet'),
      h('span', { class: 'soft' }, `lanes: ${tracks.roles.map(([n]) => n).join(', ')}`))));
  const slider = $('at');
  if (document.activeElement !== slider || playing) slider.value = String(s.tUs - extent.from_us);
}

function moment(later) {
  const { moments, extent } = state.run;
  const found = later ? moments.find(m => m.t_us > state.tUs + 1) : moments.findLast(m => m.t_us < state.tUs - 1);
  goTo(found?.t_us ?? (later ? extent.to_us : extent.from_us));
}

function play() {
  if (playing) { clearInterval(playing); playing = null; return goTo(state.tUs); }
  if (state.tUs >= state.run.extent.to_us) state.tUs = state.run.extent.from_us;
  let last = performance.now();
  playing = setInterval(() => {
    const now = performance.now();
    goTo(state.tUs + (now - last) * 1e3);
    last = now;
    if (!state.run || state.tUs >= state.run.extent.to_us) { clearInterval(playing); playing = null; }
  }, 200);
}

export function listen() {
  const strip = $('replay');
  strip.addEventListener('input', e => goTo(state.run.extent.from_us + Number(e.target.value)));
  strip.addEventListener('click', e => ({ before: () => moment(false), next: () => moment(true), play })[e.target.dataset.go]?.());
  document.addEventListener('click', e => { const at = e.target.dataset?.moment; if (at) goTo(Number(at)); });
  document.addEventListener('keydown', e => {
    if (!state.run || e.target.closest('input[type=text], select, textarea, dialog, input:not([type])')) return;
    if (e.key === 'n') moment(true);
    else if (e.key === 'p') moment(false);
  });
}
