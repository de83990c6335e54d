// The page of a lab: hears what changed, draws it. What anything means was decided by the server.
import { picture } from '/picture.js';
import { panels, panel, eventsFilter, queryOf } from '/panels.js';
import { listen as listenOrders, undoLast, healAll } from '/orders.js';
import { replay, listen as listenReplay } from '/replay.js';
import { h, morph, seconds, $ } from '/draw.js';

const begun = new URLSearchParams(location.hash.slice(1));
if (begun.has('k')) {
  sessionStorage.setItem('k', begun.get('k'));
  begun.delete('k');
  history.replaceState(null, '', begun.size ? `#${begun}` : location.pathname);
}

/** Everything that is shown. */
export const state = {
  labs: [], kind: 'labs', readOnly: true, lab: null, all: null, nowUs: 0, heardAt: 0, tab: 'overview', lines: [], more: false,
  query: '', run: null, tUs: 0, broken: null,
};

/** Asks the server; an answer that is an error is thrown with its words. */
export async function api(path, order, signal) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem('k') ?? ''}` };
  const options = order ? { method: 'POST', headers: { ...headers, 'Content-Type': 'application/json' }, body: JSON.stringify(order) } : { headers };
  const response = await fetch(path, { ...options, signal, cache: 'no-store' });
  if (response.headers.get('Content-Type') === 'text/event-stream') return response;
  const answer = await response.json();
  if (answer.error) {
    const { what, on, seen, remedy } = answer.error;
    throw Object.assign(new Error([`could not ${what}`, on, seen, remedy].filter(Boolean).join(': ')), { status: response.status });
  }
  return answer;
}

/** The lab's clock now, in microseconds since its journal began. */
export const now = () => state.kind === 'run' || state.all?.link.state !== 'live' ? state.nowUs : state.nowUs + (performance.now() - state.heardAt) * 1e3;

/** What changed, applied to what was there. */
function apply(all, patch) {
  for (const { at, to } of patch) {
    if (!at.length) return to;
    let place = all;
    for (const name of at.slice(0, -1)) place = place[name] ??= {};
    if (to === undefined) delete place[at.at(-1)]; else place[at.at(-1)] = to;
  }
  return all;
}

let stream = null;
async function follow() {
  stream?.abort();
  const mine = stream = new AbortController();
  while (!mine.signal.aborted) {
    try {
      const { body } = await api(`/api/stream?lab=${encodeURIComponent(state.lab)}`, null, mine.signal);
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      state.broken = null;
      for (let text = ''; ;) {
        const { value, done } = await reader.read();
        if (done) throw new Error('the server ended');
        text += value;
        const messages = text.split('\n\n');
        text = messages.pop();
        for (const message of messages) hear(message);
        draw();
      }
    } catch (e) {
      if (mine.signal.aborted) return;
      state.broken = e.message;
      draw();
      await new Promise(again => setTimeout(again, 1500));
    }
  }
}

function hear(message) {
  const data = JSON.parse(message.slice(message.indexOf('data: ') + 6));
  const before = state.all?.newest;
  state.all = data.all ?? apply(state.all, data.patch);
  state.nowUs = data.now_us;
  state.heardAt = performance.now();
  if (state.all.newest !== before) askEvents();
}

let asking = null;
/** The events that meet the query, soon. */
export function askEvents(soon = 250) {
  asking ??= setTimeout(async () => {
    asking = null;
    try {
      const at = state.kind === 'run' ? `&t_us=${Math.round(state.tUs)}` : '';
      const found = await api(`/api/events?lab=${encodeURIComponent(state.lab)}${at}&${state.query}`);
      Object.assign(state, { lines: found.lines, more: found.more, queryWrong: null });
    } catch (e) { state.queryWrong = e.message; }
    draw();
  }, soon);
}

let told = '';
/** Says a change to whoever does not see it: the newest one, at most one in two seconds. */
function say() {
  const sentence = [state.all?.sentence, ...(state.all?.picture.unhealthy ?? [])].filter(Boolean).join('; ').replace(/\d+\.\d s/g, '');
  if (sentence === told) return;
  told = sentence;
  clearTimeout(say.later);
  say.later = setTimeout(() => { $('said').textContent = state.all?.sentence ?? ''; }, 2000);
}

let drawing = false;
/** Draws in the next frame. */
export function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; paint(); });
}

const LINKS = { asking: 'asking …', live: 'live', silent: 'NOT LIVE', down: 'THE LAB IS DOWN: this is how it was', replay: 'a run that ended' };
function paint() {
  const { all } = state;
  const link = state.broken ? `NOT LIVE: ${state.broken}` : all ? LINKS[all.link.state] + (all.link.why ? ` since ${seconds(all.link.since_us - all.from_us)}: ${all.link.why}` : '') : 'asking …';
  const bad = state.broken || ['silent', 'down'].includes(all?.link.state);
  morph($('state'), h('p', { id: 'state' }, h('b', { class: bad ? 'bad' : '' }, link), ' ', all ? h('span', { class: 'clock' }, seconds(now() - all.from_us)) : ''));
  if (!all) return;
  document.title = `${all.name}: ${all.sentence}`;
  const p = all.picture;
  const faults = Object.entries(p.faults);
  const ill = p.unhealthy === null ? h('p', { class: 'soft' }, 'Health is not known yet.') : p.unhealthy.length ? h('p', { class: 'doubt' }, `Not healthy: ${p.unhealthy.join('; ')}.`) : h('p', { class: 'good' }, 'Healthy.');
  morph($('summary'), h('div', { id: 'summary' },
    h('p', { class: 'sentence' }, `${all.sentence}.`), ill,
    ...p.dark.map(([from, to]) => h('p', { class: 'doubt' }, `The networks were dark from ${seconds(from - all.from_us)} to ${seconds(to - all.from_us)}: the supervisor had died.`)),
    faults.length ? h('ul', { class: 'faults', 'aria-label': 'Faults in force' }, ...faults.map(([id, f]) => h('li', {},
      h('b', {}, `${{ true: '●', false: '△', null: '○' }[f.effective]} ${f.kind} ${f.on}`),
      h('span', {}, ` since ${seconds(f.begin_us - all.from_us)}, ${{ true: 'effect proven', false: 'without effect', null: 'no effect yet' }[f.effective]} `),
      state.readOnly ? '' : h('button', { 'data-heal': id }, `Heal ${f.kind}`)))) : ''));
  $('heal-all').hidden = state.readOnly || !faults.length;
  morph($('picture'), h('section', { id: 'picture', 'aria-label': 'Picture of the lab' }, picture(all, { narrow: $('picture').clientWidth < 620, acts: !state.readOnly })));
  morph($('tabs'), h('div', { id: 'tabs', role: 'tablist', 'aria-label': 'Details' }, ...panels(state).map(([id, name]) => h('button', {
    role: 'tab', id: `tab-${id}`, 'data-tab': id, 'aria-selected': String(id === state.tab), 'aria-controls': 'shown', tabindex: id === state.tab ? '0' : '-1',
  }, name))));
  $('filter').hidden = state.tab !== 'events';
  if (state.tab === 'events' && !$('filter').firstChild) $('filter').append(eventsFilter(all));
  morph($('shown'), h('div', { id: 'shown', role: 'tabpanel', tabindex: '0', 'aria-labelledby': `tab-${state.tab}` }, ...panel(state)));
  if (state.run) replay(state);
  say();
}

/** Shows a lab, or a scenario of the run. */
async function choose(name) {
  Object.assign(state, { lab: name, all: null, lines: [], run: null });
  $('labs').value = name;
  $('filter').replaceChildren();
  const words = new URLSearchParams(location.hash.slice(1));
  if (words.get('lab') !== name) history.replaceState(null, '', `#lab=${encodeURIComponent(name)}`);
  if (state.kind === 'labs') follow();
  else {
    state.run = await api(`/api/run?lab=${encodeURIComponent(name)}`);
    const { from_us, to_us } = state.run.extent;
    const t = parseFloat(words.get('lab') === name ? words.get('t') : NaN);
    await goTo(Number.isFinite(t) ? from_us + t * 1e6 : state.run.moments[0]?.t_us ?? to_us);
  }
}

let going = 0;
/** Goes to a moment of the run. */
export async function goTo(tUs) {
  const { from_us, to_us } = state.run.extent;
  state.tUs = Math.min(Math.max(tUs, from_us), to_us);
  const mine = ++going;
  const all = await api(`/api/at?lab=${encodeURIComponent(state.lab)}&t_us=${Math.round(state.tUs)}`);
  if (mine !== going) return;
  Object.assign(state, { all, nowUs: state.tUs });
  history.replaceState(null, '', `#lab=${encodeURIComponent(state.lab)}&t=${((state.tUs - from_us) / 1e6).toFixed(2)}`);
  askEvents(120);
  draw();
}

function openTab(id) {
  state.tab = id;
  draw();
  requestAnimationFrame(() => document.getElementById(`tab-${id}`)?.focus());
}

function listen() {
  $('labs').addEventListener('change', e => choose(e.target.value));
  $('tabs').addEventListener('click', e => { const id = e.target.closest('[data-tab]')?.dataset.tab; if (id) openTab(id); });
  $('tabs').addEventListener('keydown', e => {
    const ids = panels(state).map(([id]) => id), step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (step) { e.preventDefault(); openTab(ids[(ids.indexOf(state.tab) + step + ids.length) % ids.length]); }
  });
  $('filter').addEventListener('input', e => { state.query = queryOf(e.currentTarget); askEvents(200); });
  $('filter').addEventListener('submit', e => e.preventDefault());
  document.addEventListener('keydown', e => {
    if (e.target.closest('input, select, textarea, dialog')) return;
    if (e.key === '?') $('keys').click();
    else if (e.key === '/') { e.preventDefault(); openTab('events'); requestAnimationFrame(() => document.querySelector('#filter input')?.focus()); }
    else if (e.ctrlKey && e.key === 'z') undoLast();
    else if (e.shiftKey && e.key === 'H') healAll();
  });
  let rest = null;
  document.addEventListener('visibilitychange', () => {
    clearTimeout(rest);
    // A window that nobody sees keeps no connection: a browser has six to one server.
    if (document.hidden) rest = setTimeout(() => stream?.abort(), 5000);
    else if (state.kind === 'labs' && state.lab && stream?.signal.aborted) follow();
  });
  addEventListener('resize', draw);
  setInterval(() => { if (state.all?.link.state === 'live') draw(); }, 500);
}

async function begin() {
  listen();
  listenOrders();
  listenReplay();
  try {
    const list = await api('/api/labs');
    Object.assign(state, { labs: list.labs, kind: list.kind, readOnly: list.read_only });
    $('labs-name').textContent = list.kind === 'run' ? 'Scenario' : 'Lab';
    $('labs').replaceChildren(...list.labs.map(l => h('option', { value: l.name }, [l.name, l.title && `: ${l.title}`, l.verdict && ` (${l.verdict})`].filter(Boolean).join(''))));
    const wanted = new URLSearchParams(location.hash.slice(1)).get('lab');
    const first = list.labs.find(l => l.name === wanted) ?? list.labs[0];
    if (first) await choose(first.name);
    else $('summary').append(h('p', { class: 'sentence' }, 'No lab is up. `failoverlab up ccr` makes one; then load this page again.'));
  } catch (e) {
    state.broken = e.status === 401 ? 'this address has no token: open the one that `failoverlab serve` printed' : e.message;
    paint();
  }
}

begin();
