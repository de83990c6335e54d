// The picture of a lab: machines, networks as rails, and each cable as two half-cables, out and in.
// Shape and word come first, colour third. Wide: machines side by side; narrow: one above the other.
import { h, seconds } from '/draw.js';

const MARKS = { active: '■', passive: '○', runs: '□', apart: '≠', 'no-quorum': '⊘', fenced: '#', silent: '…', frozen: '‖', off: '✕', unknown: '?' };
const WORDS = { 'no-quorum': 'no quorum', silent: 'no answer' };
const SHAPES = { active: 'filled', passive: 'outline', runs: 'outline', apart: 'hatched', 'no-quorum': 'hatched', fenced: 'hatched', silent: 'dotted', frozen: 'bars', off: 'struck', unknown: 'dotted' };
const STATES = { whole: 'whole', impaired: 'impaired', cut: 'cut', 'no-carrier': 'no carrier' };
/** Half the distance of the two halves of a cable: each is a target of 28 pixels. */
const HALF = 15;

/** Members first, as the lab file has them. */
const ordered = lab => [...lab.nodes].sort((a, b) => (b.role === 'member') - (a.role === 'member'));

/** Where everything is. */
function place(lab, narrow) {
  const nodes = ordered(lab), nets = lab.networks;
  if (narrow) {
    const w = 212, hgt = 132, gap = 26, width = 376;
    const x = i => w + 48 + i * 74;
    return {
      width, height: 40 + nodes.length * (hgt + gap),
      boxes: nodes.map((n, i) => ({ n, x: 4, y: 36 + i * (hgt + gap), w, h: hgt })),
      rails: nets.map((net, i) => ({ net, x1: x(i), y1: 26, x2: x(i), y2: 30 + nodes.length * (hgt + gap), tx: x(i), ty: 16, anchor: 'middle' })),
      half: (box, i, side) => { const y = box.y + 36 + i * 62 + (side === 'out' ? -HALF : HALF); return [box.x + box.w, y, x(i), y]; },
    };
  }
  const width = 820, gap = 22, w = Math.min(252, (width - 24 - gap * (nodes.length - 1)) / nodes.length), hgt = 136;
  const left = (width - nodes.length * w - (nodes.length - 1) * gap) / 2, y = i => hgt + 104 + i * 66;
  return {
    width, height: y(nets.length - 1) + 24,
    boxes: nodes.map((n, i) => ({ n, x: left + i * (w + gap), y: 6, w, h: hgt })),
    rails: nets.map((net, i) => ({ net, x1: 8, y1: y(i), x2: width - 8, y2: y(i), tx: width - 10, ty: y(i) + 18, anchor: 'end' })),
    half: (box, i, side) => { const x = box.x + 46 + i * 92 + (side === 'out' ? -HALF : HALF); return [x, box.y + box.h, x, y(i)]; },
  };
}

function lines(all, node, name) {
  const p = all.picture, votes = node.votes;
  const out = [];
  if (all.lab.members.includes(name)) out.push(votes ? `votes ${votes.have.length} of ${votes.total}: ${votes.have.join(', ')}` : 'votes not known');
  const facts = [node.epoch !== null && all.lab.members.includes(name) ? `epoch ${node.epoch}` : null, votes && node.quorum_owner === name ? 'owns the quorum' : null];
  if (node.hub) facts.push(`${node.hub.queued} queued, ${node.hub.dumpster} in dumpster`);
  out.push(facts.filter(Boolean).join(' · '));
  if (p.service.active === name && all.lab.service) out.push(`serves ${all.lab.service.name} ${all.lab.service.address}`);
  if (all.lab.witness === name) out.push(p.witness ? `share witness: ${p.witness.health}${p.held_by ? `, held by ${p.held_by}` : ''}` : 'share witness: not known');
  if (node.error) out.push(node.error);
  return out.filter(Boolean);
}

const fit = (text, width) => { const most = Math.floor(width / 6.2); return text.length > most ? `${text.slice(0, most - 1)}…` : text; };

function box(all, { n, x, y, w, h: hgt }, acts) {
  const node = all.picture.nodes[n.name], role = node.role, word = WORDS[role] ?? role;
  const since = node.since_us < all.from_us ? 'from before' : `since ${seconds(node.since_us - all.from_us)}`;
  const said = lines(all, node, n.name);
  const label = `${n.name}, ${word}, ${since}; ${said.join('; ')}`;
  return h('g', { class: `node ${role} ${SHAPES[role]}`, 'data-node': n.name, role: acts ? 'button' : 'img', tabindex: acts ? '0' : null, 'aria-label': acts ? `${label}; menu` : label },
    h('rect', { x, y, width: w, height: hgt, rx: 8, class: 'body' }),
    role === 'off' ? h('path', { d: `M${x + 8} ${y + hgt - 8}L${x + w - 8} ${y + 8}`, class: 'strike' }) : '',
    h('text', { x: x + 14, y: y + 26, class: 'name' }, n.name),
    h('text', { x: x + w - 14, y: y + 26, class: 'role', 'text-anchor': 'end' }, `${MARKS[role]} ${word.toUpperCase()}`),
    h('text', { x: x + 14, y: y + 46, class: 'fact' }, since),
    said.slice(0, 4).map((text, i) => h('text', { x: x + 14, y: y + 66 + i * 18, class: 'fact' }, fit(text, w - 24))),
    h('title', {}, label));
}

function half(all, box, net, i, side, layout, acts) {
  const cable = all.picture.cables[`${box.n.name}/${net.name}/${side}`];
  const state = cable?.state ?? 'unknown';
  const [x1, y1, x2, y2] = layout.half(box, i, side);
  const upright = x1 === x2, length = upright ? y2 - y1 : x2 - x1;
  const at = part => upright ? [x1, y1 + part * length] : [x1 + part * length, y1];
  // The half that is further from its rail crosses others: its mark is near its machine.
  const [mx, my] = upright ? [x1, y1 + 40] : [x1 + 26, y1];
  const what = cable?.what.length ? cable.what.join(', ') : STATES[state] ?? 'not known';
  const counts = [cable?.frames != null ? `${cable.frames} frames` : null, cable?.dropped ? `${cable.dropped} dropped` : null].filter(Boolean).join(', ');
  const label = `${box.n.name}, ${net.name}, ${side === 'out' ? 'outgoing' : 'incoming'}: ${what}${counts && `; ${counts}`}`;
  const gap = state === 'cut' || state === 'no-carrier' ? 9 : 0;
  const parts = gap ? [[0, (upright ? my - y1 : mx - x1) - gap], [(upright ? my - y1 : mx - x1) + gap, length]] : [[0, length]];
  const line = ([a, b]) => upright ? `M${x1} ${y1 + a}V${y1 + b}` : `M${x1 + a} ${y1}H${x1 + b}`;
  const tip = side === 'out' ? at(1) : at(0), back = side === 'out' ? -1 : 1;
  const head = upright ? `M${tip[0] - 4} ${tip[1] + back * 8}L${tip[0]} ${tip[1] + back}L${tip[0] + 4} ${tip[1] + back * 8}` : `M${tip[0] + back * 8} ${tip[1] - 4}L${tip[0] + back} ${tip[1]}L${tip[0] + back * 8} ${tip[1] + 4}`;
  const mark = { cut: '╳', 'no-carrier': '⊘', impaired: '∿', unknown: '?' }[state];
  return h('g', { class: `cable ${state}`, 'data-cable': `${box.n.name}/${net.name}/${side}`, role: acts ? 'button' : 'img', tabindex: acts ? '0' : null, 'aria-label': acts ? `${label}; menu` : label },
    upright ? h('rect', { x: x1 - 14, y: y1, width: 28, height: length, class: 'hit' }) : h('rect', { x: x1, y: y1 - 14, width: length, height: 28, class: 'hit' }),
    h('path', { d: parts.map(line).join(''), class: 'wire' }), h('path', { d: head, class: 'wire' }),
    mark ? h('text', { x: mx, y: my + 5, class: 'mark', 'text-anchor': 'middle' }, mark) : '',
    h('title', {}, label));
}

/** The picture, and in words what it cannot draw. */
export function picture(all, { narrow, acts }) {
  const layout = place(all.lab, narrow);
  const rail = ({ net, x1, y1, x2, y2, tx, ty, anchor }) => h('g', { class: 'rail', 'data-network': net.name, role: acts ? 'button' : 'img', tabindex: acts ? '0' : null, 'aria-label': `network ${net.name} ${net.subnet}${acts ? '; menu' : ''}` },
    h('path', { d: `M${x1} ${y1}L${x2} ${y2}`, class: 'line' }),
    h('text', { x: tx, y: ty, class: 'net', 'text-anchor': anchor }, narrow ? net.name : `${net.name} ${net.subnet}, ${net.role}`));
  const cables = layout.boxes.flatMap(b => layout.rails.flatMap(({ net }, i) => b.n.nics.some(nic => nic.network === net.name) ? ['out', 'in'].map(side => half(all, b, net, i, side, layout, acts)) : []));
  const unheard = Object.entries(all.picture.paths).filter(([, up]) => up === false).map(([path]) => path.replace('>', ' → ').replace('/', ': '));
  const pattern = (id, size, ...inside) => h('pattern', { id, width: size, height: size, patternUnits: 'userSpaceOnUse' }, ...inside);
  return h('div', {},
    h('svg', { viewBox: `0 0 ${layout.width} ${layout.height}`, role: 'group', 'aria-label': `${all.lab.name}: machines, cables and networks` },
      h('defs', {},
        pattern('hatched', 9, h('path', { d: 'M0 9L9 0M-2 2L2 -2M7 11L11 7', stroke: 'currentColor' })),
        pattern('bars', 12, h('path', { d: 'M2 0v12M6 0v12', stroke: 'currentColor' })),
        pattern('dotted', 8, h('circle', { cx: 3, cy: 3, r: 1, fill: 'currentColor' }))),
      layout.rails.map(rail), cables, layout.boxes.map(b => box(all, b, acts))),
    unheard.length ? h('p', { class: 'bad' }, `No heartbeats arrive on ${unheard.join('; ')}.`) : '',
    clients(all));
}

function clients(all) {
  const c = all.picture.clients;
  const words = {
    idle: all.link.state === 'replay' ? 'No client asks.' : 'No client is seen from here: `verify` keeps their journal.',
    connected: 'Clients are answered.', lost: `Clients WAIT since ${seconds(c.since_us - all.from_us)}.`,
    restored: `Clients are answered again, after ${seconds(c.waited_us)}.`,
  };
  const by = c.last ? ` Last answer: ${c.last.node} in epoch ${c.last.epoch}.` : '';
  const counts = c.acked + c.failed + c.unknown + c.waiting ? ` ${c.acked} answered, ${c.waiting} waiting, ${c.failed} refused, ${c.unknown} not known; longest wait ${seconds(c.longest_us)}.` : '';
  return h('p', { class: `balloon ${c.state}` }, h('b', {}, `${{ idle: '–', connected: '✓', lost: '✕', restored: '✓' }[c.state]} ${words[c.state]}`), by, counts);
}
