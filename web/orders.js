// What a page orders: menus of what is there, a question before danger, and the way back.
import { h, $ } from '/draw.js';
import { api, state } from '/app.js';

const id = () => crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, '0')).join('');

/** Sends an order; what came of it is said, and for a fault the way back is offered. */
async function order(what, said) {
  try {
    const answer = await api('/api/order', { id: id(), lab: state.lab, order: what });
    const refused = answer?.done === false;
    tell(refused ? `Refused: ${answer.seen}` : said, what.fault ? answer.id : null, refused);
  } catch (e) { tell(e.message, null, true); }
}

let away = null;
function tell(text, fault, bad) {
  clearTimeout(away);
  const close = h('button', { 'data-close': '1' }, 'Close');
  $('undo').replaceChildren(h('span', { class: bad ? 'bad' : '' }, text), ...(fault ? [h('button', { 'data-heal': String(fault) }, 'Undo')] : []), close);
  $('undo').hidden = false;
  $('said').textContent = text;
  if (!bad) away = setTimeout(() => { $('undo').hidden = true; }, 10000);
}

export const healAll = () => state.readOnly || order({ heal: {} }, 'Everything is healed.');
export function undoLast() {
  const last = Math.max(...Object.keys(state.all?.picture.faults ?? {}).map(Number));
  if (!state.readOnly && Number.isFinite(last)) order({ heal: { id: last } }, `Fault ${last} is healed.`);
}

let back = null;
/** A dialog with buttons; the first is where the focus is. */
function ask(name, rows) {
  back = document.activeElement;
  const d = $('dialog');
  d.replaceChildren(h('h2', { id: 'dialog-name' }, name), ...rows);
  d.showModal();
}

const LENGTHS = [['', 'until healed'], ['10000', 'for 10 s'], ['60000', 'for 60 s']];
const length = () => h('p', {}, h('label', {}, 'It lasts ', h('select', { id: 'length' }, LENGTHS.map(([v, t]) => h('option', { value: v }, t)))));
const cancel = () => h('p', { class: 'acts' }, h('button', { 'data-cancel': '1' }, 'Cancel'));
let choices = [];
/** Buttons that each do one thing; `danger` is asked once more, with what is lost. */
const choose = list => { choices = list; return h('ul', { class: 'choices' }, list.map(([text], i) => h('li', {}, h('button', { 'data-choice': String(i) }, text)))); };

const fault = (kind, on, ...parameters) => () => {
  const ms = $('length')?.value;
  return [{ fault: { kind, on, parameters, ...(ms ? { for_ms: Number(ms) } : {}) } }, `${kind} ${on ?? parameters.join(' ')} is in force.`];
};
const operate = (word, ...args) => () => [{ operate: { word, args } }, `${[word, ...args].join(' ')}: done.`];

function cableMenu(key) {
  const [node, net, side] = key.split('/'), on = [`network=${net}`, `direction=${side}`], both = [`network=${net}`];
  ask(`${node}, ${net}, ${side === 'out' ? 'outgoing' : 'incoming'}`, [length(), choose([
    ['Cut this direction', fault('cut', node, ...on)], ['Cut both directions', fault('cut', node, ...both)], ['Lose 30 % of the frames', fault('loss', node, 'loss=30%', ...on)],
    ['Slow by 200 ms', fault('delay', node, 'delay=200 ms', ...on)], ['Take the carrier away', fault('link-down', node, ...both)]]), cancel()]);
}

function nodeMenu(node) {
  const off = state.all.picture.nodes[node].role === 'off';
  const list = [['Freeze', fault('freeze', node)], ['Cut it off from everybody', fault('isolate', node)]];
  if (state.all.lab.witness && state.all.lab.witness !== node) list.push(['Cut it off from the witness', fault('cut-witness', node)]);
  if (!off) list.push(['Pull the plug …', fault('power-off', node), `${node} loses its memory at once, and whatever it had not written down. Healing it starts it again.`]);
  ask(node, [length(), choose(list), cancel()]);
}

function serviceMenu() {
  const { lab, picture } = state.all, s = lab.service.name;
  const list = lab.members.filter(m => m !== picture.service.active).map(m => [`Move ${s} to ${m} …`, operate('move', m), `Clients of ${s} wait until ${m} serves.`]);
  list.push([`Take ${s} offline …`, operate('stop'), `No client of ${s} is answered until it is brought online again.`], [`Bring ${s} online`, operate('start')]);
  ask(s, [choose(list), cancel()]);
}

function confirm(text, consequence, act) {
  const d = $('dialog');
  d.replaceChildren(h('h2', { id: 'dialog-name' }, text.replace(' …', '?')), h('p', {}, consequence), h('p', { class: 'acts' }, h('button', { 'data-cancel': '1' }, 'Cancel'), ' ', h('button', { 'data-sure': '1', class: 'danger' }, text.replace(' …', ''))));
  d.querySelector('[data-cancel]').focus();
  confirm.act = act;
}

const KEYS = [['?', 'these keys'], ['/', 'events, and their filter'], ['Tab, Enter', 'a machine, a cable or a network, and its menu'], ['Ctrl+Z', 'heal the last fault'], ['Shift+H', 'heal all'], ['n p', 'in a run: next moment, moment before']];

export function listen() {
  const menu = target => {
    const on = target.closest?.('[data-cable], [data-node], [data-network], [data-service]');
    if (!on || state.readOnly) return false;
    const { cable, node, network, service } = on.dataset;
    if (cable) cableMenu(cable); else if (node) nodeMenu(node); else if (service) serviceMenu();
    else ask(`Network ${network}`, [length(), choose([['Let its switch die: nobody reaches anybody there', fault('switch-dead', null, `network=${network}`)]]), cancel()]);
    return true;
  };
  document.addEventListener('click', e => {
    const d = e.target.dataset ?? {};
    if (d.heal) order({ heal: { id: Number(d.heal) } }, `Fault ${d.heal} is healed.`);
    else if (d.close) $('undo').hidden = true;
    else if (!$('dialog').contains(e.target)) menu(e.target);
  });
  $('picture').addEventListener('keydown', e => { if ((e.key === 'Enter' || e.key === ' ') && menu(e.target)) e.preventDefault(); });
  $('heal-all').addEventListener('click', healAll);
  $('keys').addEventListener('click', () => ask('Keys', [h('dl', { class: 'facts' }, KEYS.flatMap(([k, what]) => [h('dt', {}, k), h('dd', {}, what)])), h('p', { class: 'acts' }, h('button', { 'data-cancel': '1' }, 'Close'))]));
  const d = $('dialog');
  d.addEventListener('close', () => (document.contains(back) ? back : $('main')).focus());
  d.addEventListener('click', e => {
    const { choice, cancel: no, sure } = e.target.dataset;
    if (no) d.close();
    else if (choice !== undefined) {
      const [text, make, consequence] = choices[choice], what = make();
      if (consequence) confirm(text, consequence, what); else { d.close(); order(...what); }
    } else if (sure) { d.close(); order(...confirm.act); }
  });
}
