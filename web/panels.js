// What is beside the picture, one panel at a time.
import { h, seconds } from '/draw.js';

/** The panels that there are, each with its name. */
export const panels = s => [
  ['overview', 'Overview'], ['copies', 'Copies'], ['events', 'Events'], ['network', 'Network'],
  ...(s.kind === 'run' ? [['run', 'Run']] : [['machines', 'Machines'], ['orders', 'Orders']]),
];

const table = (caption, heads, rows) => h('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': caption }, h('table', {},
  h('caption', {}, caption), h('thead', {}, h('tr', {}, heads.map(x => h('th', { scope: 'col' }, x)))),
  h('tbody', {}, rows.map(cells => h('tr', {}, cells.map((c, i) => i ? h('td', {}, c ?? '–') : h('th', { scope: 'row' }, c)))))));

const PARTS = {
  overview({ all, readOnly }) {
    const p = all.picture, s = p.service, w = p.witness;
    const group = (name, rows) => h('dl', {}, h('dt', { class: 'group' }, name), h('dd', {}, h('dl', { class: 'facts' }, rows.flatMap(([k, v]) => [h('dt', {}, k), h('dd', {}, v ?? 'not known')]))));
    const owner = [...new Set(Object.values(p.nodes).map(n => n.quorum_owner).filter(Boolean))].join(' or ');
    const out = [];
    if (all.lab.cluster) out.push(group('Cluster Group', [['name', all.lab.cluster.name], ['address', all.lab.cluster.address], ['owner', owner || null],
      ['witness', w ? `${w.configured}${w.running && w.running !== w.configured ? ` (in force: ${w.running})` : ''}: ${w.health}` : null], ['share held by', p.held_by ?? 'nobody that is known']]));
    if (all.lab.service) out.push(group(`Service ${all.lab.service.name}`, [['state', s.state], ['on', s.active ?? 'nobody'], ['address', all.lab.service.address], ['epoch', s.epoch === null ? null : String(s.epoch)], ['wanted', s.intent]]));
    if (all.lab.service && !readOnly) out.push(h('p', { class: 'acts' }, h('button', { 'data-service': 'menu', 'aria-haspopup': 'dialog' }, `Move, stop or start ${all.lab.service.name} …`)));
    if (all.lab.members.length) out.push(table('Votes, as each member counts them', ['member', 'votes', 'quorum owner', 'cluster'],
      all.lab.members.map(m => { const n = p.nodes[m]; return [m, n.votes && `${n.votes.have.length} of ${n.votes.total}: ${n.votes.have.join(', ')}`, n.quorum_owner, n.member]; })));
    if (!all.lab.members.length) out.push(table('Machines', ['machine', 'is', 'addresses'], all.lab.nodes.map(n => [n.name, p.nodes[n.name].role, n.nics.map(nic => `${nic.network} ${nic.address}`).join(', ')])));
    if (all.host) out.push(h('p', { class: 'soft' }, `${all.host.accel}, slowness ${all.host.slowness.toFixed(1)}${all.host.mutations.length ? `; misconfigured on purpose: ${all.host.mutations.join('; ')}` : ''}`));
    return out;
  },
  copies({ all }) {
    const rows = Object.entries(all.picture.copies);
    if (!rows.length) return [h('p', { class: 'soft' }, 'No copy is known.')];
    return rows.map(([name, c]) => {
      const most = Math.max(c.generated, 1);
      const bars = ['generated', 'notified', 'copied', 'inspected', 'replayed'];
      const original = all.picture.service.active === c.node;
      return h('section', { class: 'copy' }, h('h2', {}, `${name}: ${original ? 'the original' : c.status}`),
        original ? '' : h('p', {}, `Copy queue ${c.copy_queue}, replay queue ${c.replay_queue}.`),
        c.error ? h('p', { class: 'bad' }, c.error) : '',
        h('svg', { viewBox: '0 0 400 116', role: 'img', 'aria-label': bars.map(b => `${b} ${c[b]}`).join(', ') },
          bars.map((b, i) => h('g', { class: 'gen' }, h('text', { x: 72, y: 16 + i * 22, 'text-anchor': 'end' }, b),
            h('rect', { x: 80, y: 4 + i * 22, width: 270, height: 15, class: 'all' }), h('rect', { x: 80, y: 4 + i * 22, width: 270 * c[b] / most, height: 15, class: 'done' }),
            h('text', { x: 356, y: 16 + i * 22 }, String(c[b]))))));
    });
  },
  events({ all, lines, more, queryWrong }) {
    const marks = { error: '✗', warning: '!' };
    const row = l => l.gap ? h('li', { class: 'error' }, h('b', {}, `Events ${l.gap[0]} to ${l.gap[1]} are missing`)) : h('li', { class: l.severity },
      h('span', { class: 'when' }, `${seconds(l.t_us - all.from_us)}${l.skew_us > 1000 ? ` ± ${(l.skew_us / 1000).toFixed(0)} ms` : ''}`), ' ',
      h('b', {}, `${marks[l.severity] ?? ''} ${l.node ?? '–'}`), ' ', h('code', {}, `${l.kind}${l.id ? ` [${l.id}]` : ''}`), ' ', h('span', { class: 'text' }, l.text));
    return [queryWrong ? h('p', { class: 'bad' }, queryWrong) : '', lines.length ? h('ol', { class: 'events', reversed: true, tabindex: '0', 'aria-label': 'Events, newest first' }, lines.map(row)) : h('p', { class: 'soft' }, 'No event meets this query.'),
      more ? h('p', { class: 'soft' }, `The newest ${lines.length}; there are more.`) : ''].filter(Boolean);
  },
  network({ all }) {
    const known = Object.entries(all.picture.cables).sort(), counted = known.some(([, c]) => c.frames !== null);
    const rows = known.map(([key, c]) => { const [node, net, way] = key.split('/'); return [`${net} ${node} ${way}`, [c.state, ...c.what].join(': '), ...(counted ? [String(c.frames ?? '–'), String(c.dropped ?? '–')] : [])]; });
    const paths = Object.entries(all.picture.paths).map(([path, up]) => [path.replace('>', ' → '), up === null ? 'not known' : up ? 'heard' : 'NOT HEARD']);
    return [known.length ? table('Cables', ['cable', 'state', ...(counted ? ['frames', 'dropped'] : [])], rows) : h('p', { class: 'soft' }, 'Nothing is known of the cables yet.'),
      table('Heartbeats, as the receiver hears them', ['path', 'heard'], paths)];
  },
  machines({ all }) {
    const name = n => all.machines.find(m => m.node === n.name);
    return [table('Machines', ['machine', 'power', 'process', 'addresses', 'log in'], all.lab.nodes.map(n => [n.name, all.picture.nodes[n.name].domain, name(n)?.pid ? String(name(n).pid) : null,
      n.nics.map(nic => `${nic.network} ${nic.address}`).join(', '), h('code', {}, `failoverlab ssh ${all.name} ${n.name}`)]))];
  },
  orders({ all }) {
    if (!all.ordered?.length) return [h('p', { class: 'soft' }, 'Nothing was ordered from a page yet. Each order stands here as the command that does the same.')];
    return [h('ol', { class: 'orders', reversed: true }, [...all.ordered].reverse().map(o => h('li', { class: o.ok ? '' : 'error' }, h('span', { class: 'when' }, seconds(o.t_us - all.from_us)), ' ', h('code', {}, o.line), ' ', h('span', {}, `${o.ok ? '✓' : '✗'} ${o.answer}`))))];
  },
  run({ run }) {
    const t = run.timings, ms = v => v === null || v === undefined ? null : `${(v / 1000).toFixed(2)} s`;
    return [h('p', {}, h('b', { class: run.verdict }, run.verdict), ` ${run.title}`), run.why ? h('p', {}, run.why) : '',
      table('Where the time went', ['what', 'took'], [['longest time without an answer', ms(t.outage_ms)], ['detect', ms(t.detect_ms)], ['arbitrate', ms(t.arbitrate_ms)], ['mount', ms(t.mount_ms)], ['first answer', ms(t.first_ack_ms)]]),
      h('h2', {}, 'Moments'), h('ol', { class: 'moments' }, run.moments.map(m => h('li', {}, h('button', { 'data-moment': String(m.t_us) }, `${seconds(m.t_us - run.extent.from_us)} ${m.what}`))))].filter(Boolean);
  },
};

/** What the chosen panel holds. */
export const panel = s => PARTS[s.tab](s);

/** The fields of the query. */
export function eventsFilter(all) {
  const field = (name, label, input) => h('label', {}, `${label} `, input(name));
  const select = options => name => h('select', { name }, options.map(([value, text]) => h('option', { value }, text)));
  const input = placeholder => name => h('input', { name, placeholder, autocomplete: 'off', spellcheck: 'false' });
  const row = h('div', { class: 'fields' },
    field('text', 'Text', input('any')), field('node', 'Node', select([['', 'all'], ...all.lab.nodes.map(n => [n.name, n.name])])),
    field('severity', 'Least level', select([['', 'info'], ['warning', 'warning'], ['error', 'error']])),
    field('kind', 'Kinds', input('cluster.*')), field('id', 'Numbers', input('1135, 1177-1180')),
    field('src', 'Source', select([['', 'all'], ...['tool', 'hypervisor', 'fabric', 'client', 'node'].map(s => [s, s])])),
    h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'all', value: '1' }), ' all of them'));
  return row;
}

/** The query as the address of the server has it. */
export const queryOf = form => new URLSearchParams([...new FormData(form)].filter(([, v]) => v)).toString();
