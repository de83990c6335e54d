//! The switches of a lab without any I/O: a frame goes in, a list of who gets it comes out.

use super::compile::{Compiled, Hook, Names};
use super::frame::{self, Summary};
use super::impair::{Decision, Drop};
use super::mactable::MacTable;
use super::rules::{Revision, Rule, RuleOwner, RuleSets};
use super::{Counters, PortCounters, PortId, RuleCounters};
use crate::error::Result;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Most bytes on their way to one port (delays, rates); what comes on top is dropped and counted.
pub const PORT_QUEUE: usize = 8 << 20;
/// Most bytes kept while the fabric is held.
pub const HELD: usize = 16 << 20;
/// Frames that one port may flood in a second, and at once.
const FLOOD_PER_S: u64 = 20_000;
const FLOOD_BURST: u64 = 4_000;
/// Counters of rules that are no longer in force: the last so many are kept for evidence.
const RETIRED: usize = 256;

/// In which direction a frame passes a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the machine.
    In,
    /// To the machine.
    Out,
}

/// Hears every frame at every port, with the reason where it was dropped.
pub trait Tap: Send {
    /// `frame` passed `port`; `dropped` says why it did not. `now` as given to the engine.
    fn frame(&mut self, port: PortId, direction: Direction, frame: &[u8], now: u64, dropped: Option<&str>);
    /// From here on frames are judged by another rule set.
    fn rules(&mut self, _: Revision) {}
    /// When [`Tap::flush`] is to be called at the latest.
    fn flush_at(&self) -> Option<u64> {
        None
    }
    /// Hands on what waits since long enough.
    fn flush(&mut self, _now: u64) {}
    /// Whether anybody listens; reasons are put into words only then.
    fn listens(&self) -> bool {
        true
    }
}

/// No tap.
impl Tap for () {
    fn frame(&mut self, _: PortId, _: Direction, _: &[u8], _: u64, _: Option<&str>) {}
    fn listens(&self) -> bool {
        false
    }
}

/// A frame that goes to a port now.
#[derive(Debug, PartialEq, Eq)]
pub struct Egress {
    /// The port.
    pub to: PortId,
    /// The bytes, where they are not those of the frame that came in.
    pub bytes: Option<Box<[u8]>>,
}

struct Net {
    macs: MacTable,
    mtu: usize,
    ports: Vec<PortId>,
}

struct Port {
    net: usize,
    counters: PortCounters,
    queued: usize,
    flood: Bucket,
    /// Whether a machine may be there; frames to an empty port vanish.
    attached: bool,
}

/// A frame on its way.
struct Waiting {
    due: u64,
    seq: u64,
    from: PortId,
    to: PortId,
    bytes: Box<[u8]>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.seq).cmp(&(other.due, other.seq))
    }
}

#[derive(Default)]
struct HeldFrames {
    frames: VecDeque<(PortId, Box<[u8]>)>,
    bytes: usize,
    since: u64,
}

/// A token bucket: bounds what one port may flood.
struct Bucket {
    tokens: u64,
    at: u64,
}

impl Bucket {
    fn take(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.at) / (1_000_000_000 / FLOOD_PER_S);
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(FLOOD_BURST);
            self.at = now;
        }
        let ok = self.tokens > 0;
        self.tokens -= u64::from(ok);
        ok
    }
}

/// Every switch of a lab.
pub struct Engine<T = ()> {
    names: Names,
    nets: Vec<Net>,
    ports: Vec<Port>,
    /// Whose rules are in force, and how frames are judged by them.
    sets: RuleSets,
    rules: Compiled,
    retired: VecDeque<RuleCounters>,
    revision: Revision,
    waiting: BinaryHeap<Reverse<Waiting>>,
    held: Option<HeldFrames>,
    seq: u64,
    tap: T,
}

impl<T> std::fmt::Debug for Engine<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("names", &self.names)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl<T: Tap> Engine<T> {
    /// Switches for `names`; `mtus` has the largest IP packet of each network in bytes. `tap` hears every frame.
    pub fn new(names: Names, mtus: &[u16], tap: T) -> Self {
        let nets = mtus.iter().enumerate().map(|(n, mtu)| Net {
            macs: MacTable::default(),
            mtu: usize::from(*mtu),
            ports: (0..names.ports.len()).filter(|p| names.ports[*p].0 == n).collect(),
        });
        let ports = names.ports.iter().map(|(net, node)| Port {
            net: *net,
            counters: PortCounters {
                network: names.networks[*net].clone(),
                node: node.clone(),
                ..PortCounters::default()
            },
            queued: 0,
            flood: Bucket {
                tokens: FLOOD_BURST,
                at: 0,
            },
            attached: true,
        });
        let (nets, ports) = (nets.collect(), ports.collect());
        let none = Compiled::new(Vec::new(), &names, 0, &mut Compiled::default());
        let rules = none.expect("no rule is no wrong rule");
        Self {
            names,
            nets,
            ports,
            sets: RuleSets::default(),
            rules,
            retired: VecDeque::new(),
            revision: Revision(0),
            waiting: BinaryHeap::new(),
            held: None,
            seq: 0,
            tap,
        }
    }

    /// Who hears every frame.
    pub fn tap(&mut self) -> &mut T {
        &mut self.tap
    }

    /// Gives `owner` these rules in place of those that it had. Frames that are under way and that they cut are dropped.
    pub fn set(&mut self, owner: RuleOwner, rules: Vec<Rule>, now: u64) -> Result<Revision> {
        let mut sets = self.sets.clone();
        sets.set(owner, rules);
        self.replace(sets, now)
    }

    /// Takes the rules of `owner` out of force; `None` where it had none.
    pub fn remove(&mut self, owner: RuleOwner, now: u64) -> Result<Option<Revision>> {
        let mut sets = self.sets.clone();
        sets.remove(owner).then(|| self.replace(sets, now)).transpose()
    }

    /// Puts everyone's rules in force: what a fabric begins with.
    pub fn replace(&mut self, sets: RuleSets, now: u64) -> Result<Revision> {
        let rules = sets.all();
        let gone: Vec<RuleCounters> = self
            .rules
            .rules
            .iter()
            .filter(|(r, _)| !rules.contains(r))
            .map(|(_, c)| c.clone())
            .collect();
        self.rules = Compiled::new(rules, &self.names, now, &mut self.rules)?;
        self.sets = sets;
        self.retired.extend(gone);
        while self.retired.len() > RETIRED {
            self.retired.pop_front();
        }
        self.revision.0 += 1;
        self.tap.rules(self.revision);
        if self.rules.rules.iter().any(|(r, _)| r.effect.cut) {
            self.sweep(now);
        }
        Ok(self.revision)
    }

    /// Drops what is under way where the new set cuts.
    fn sweep(&mut self, now: u64) {
        for Reverse(w) in std::mem::take(&mut self.waiting).into_vec() {
            match self.rules.cut(w.from, w.to, &frame::summary(&w.bytes)) {
                None => self.waiting.push(Reverse(w)),
                Some(rule) => {
                    self.ports[w.to].queued -= w.bytes.len();
                    self.dropped(w.to, Direction::Out, &w.bytes, now, (rule, Drop::Cut));
                }
            }
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> (Revision, RuleSets) {
        (self.revision, self.sets.clone())
    }

    /// Counters of everything.
    pub fn counters(&self) -> Counters {
        Counters {
            revision: self.revision.0,
            ports: self.ports.iter().map(|p| p.counters.clone()).collect(),
            rules: self.rules.rules.iter().map(|(_, c)| c.clone()).collect(),
            retired: self.retired.iter().cloned().collect(),
        }
    }

    /// How many ports there are.
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// Whether a machine may be at `port`: frames to an empty port vanish, uncounted.
    pub fn attach(&mut self, port: PortId, attached: bool) {
        self.ports[port].attached = attached;
    }

    /// Counters of one port, to be added to by its transport.
    pub fn port(&mut self, port: PortId) -> &mut PortCounters {
        &mut self.ports[port].counters
    }

    /// A frame came from the machine at `from`. Who gets it now is appended to `out`.
    pub fn ingress(&mut self, from: PortId, bytes: &[u8], now: u64, out: &mut Vec<Egress>) {
        let port = &mut self.ports[from];
        let net = port.net;
        if !well_formed(bytes, self.nets[net].mtu) {
            port.counters.malformed += 1;
            return;
        }
        port.counters.frames_in += 1;
        port.counters.bytes_in += bytes.len() as u64;
        if let Some(held) = &mut self.held {
            if held.bytes + bytes.len() > HELD {
                port.counters.overflow += 1;
            } else {
                held.bytes += bytes.len();
                held.frames.push_back((from, bytes.into()));
            }
            return;
        }
        self.forward(from, bytes, now, out);
    }

    fn forward(&mut self, from: PortId, bytes: &[u8], now: u64, out: &mut Vec<Egress>) {
        let net = self.ports[from].net;
        let judged = self.rules.active[net];
        let s = if judged {
            frame::summary(bytes)
        } else {
            Summary::default()
        };
        let mut decision = Decision::default();
        if judged
            && let Some(why) = self
                .rules
                .judge(Hook::Ingress(from), bytes.len(), &s, now, &mut decision)
        {
            self.dropped(from, Direction::In, bytes, now, why);
            return;
        }
        self.tap.frame(from, Direction::In, bytes, now, None);
        let (to_mac, from_mac) = (mac(bytes, 0), mac(bytes, 6));
        let vlan = frame::vlan(bytes);
        self.nets[net].macs.learn(vlan, from_mac, from, now);
        let known = (to_mac[0] & 1 == 0)
            .then(|| self.nets[net].macs.lookup(vlan, to_mac, now))
            .flatten();
        match known {
            Some(to) if to == from => {}
            Some(to) => self.deliver(from, to, bytes, judged.then_some(&s), decision, now, out),
            None => {
                if !self.ports[from].flood.take(now) {
                    self.ports[from].counters.storm += 1;
                    self.tap.frame(from, Direction::In, bytes, now, Some("storm guard"));
                    return;
                }
                for i in 0..self.nets[net].ports.len() {
                    let to = self.nets[net].ports[i];
                    if to != from {
                        self.deliver(from, to, bytes, judged.then_some(&s), decision.clone(), now, out);
                    }
                }
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the inner step of the frame path; a struct would be built for each frame"
    )]
    fn deliver(
        &mut self,
        from: PortId,
        to: PortId,
        bytes: &[u8],
        s: Option<&Summary>,
        mut decision: Decision,
        now: u64,
        out: &mut Vec<Egress>,
    ) {
        if !self.ports[to].attached {
            return;
        }
        if let Some(s) = s {
            for hook in [Hook::Forward(from, to), Hook::Egress(to)] {
                if let Some(why) = self.rules.judge(hook, bytes.len(), s, now, &mut decision) {
                    self.dropped(to, Direction::Out, bytes, now, why);
                    return;
                }
            }
        }
        let copies = usize::from(decision.extra) + 1;
        if decision.delay == 0 && decision.damage.is_empty() {
            for _ in 0..copies {
                self.leaves(to, bytes, now);
                out.push(Egress { to, bytes: None });
            }
            return;
        }
        let mut copy: Box<[u8]> = bytes.into();
        for d in &decision.damage {
            let hit = frame::corrupt(&mut copy, d.place, d.xor, d.mend);
            self.rules.rules[d.rule].1.corrupted += u64::from(hit);
        }
        for _ in 0..copies {
            if decision.delay == 0 {
                self.leaves(to, &copy, now);
                out.push(Egress {
                    to,
                    bytes: Some(copy.clone()),
                });
            } else if self.ports[to].queued + copy.len() > PORT_QUEUE {
                self.ports[to].counters.overflow += 1;
                self.tap.frame(to, Direction::Out, &copy, now, Some("queue full"));
            } else {
                self.ports[to].queued += copy.len();
                self.seq += 1;
                let bytes = copy.clone();
                self.waiting.push(Reverse(Waiting {
                    due: now + decision.delay,
                    seq: self.seq,
                    from,
                    to,
                    bytes,
                }));
            }
        }
    }

    /// When the next delayed frame is due.
    pub fn next_due(&self) -> Option<u64> {
        if self.held.is_some() {
            return None;
        }
        self.waiting.peek().map(|Reverse(w)| w.due)
    }

    /// When the engine wants to be called again, even if no frame comes.
    pub fn next_wake(&self) -> Option<u64> {
        self.next_due().into_iter().chain(self.tap.flush_at()).min()
    }

    /// Appends what is due by `now` to `out`.
    pub fn due(&mut self, now: u64, out: &mut Vec<Egress>) {
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(Reverse(w)) = self.waiting.pop() else { return };
            self.ports[w.to].queued -= w.bytes.len();
            self.leaves(w.to, &w.bytes, now);
            out.push(Egress {
                to: w.to,
                bytes: Some(w.bytes),
            });
        }
    }

    /// Keeps frames from now on.
    pub fn hold(&mut self, now: u64) {
        self.held.get_or_insert(HeldFrames {
            since: now,
            ..HeldFrames::default()
        });
    }

    /// Forwards what was kept, in order; what is under way goes on where it stood.
    pub fn release(&mut self, now: u64, out: &mut Vec<Egress>) {
        let Some(held) = self.held.take() else { return };
        let stood = now.saturating_sub(held.since);
        let waiting = std::mem::take(&mut self.waiting).into_vec();
        self.waiting = waiting
            .into_iter()
            .map(|Reverse(mut w)| {
                w.due += stood;
                Reverse(w)
            })
            .collect();
        for (from, bytes) in held.frames {
            let first = out.len();
            self.forward(from, &bytes, now, out);
            for e in &mut out[first..] {
                e.bytes.get_or_insert_with(|| bytes.clone());
            }
        }
    }

    /// A transport could not take `frames` for `to`: they did not leave after all.
    pub fn refused(&mut self, to: PortId, frames: u64, bytes: u64) {
        let c = &mut self.ports[to].counters;
        c.frames_out -= frames;
        c.bytes_out -= bytes;
        c.overflow += frames;
    }

    fn leaves(&mut self, to: PortId, bytes: &[u8], now: u64) {
        let c = &mut self.ports[to].counters;
        c.frames_out += 1;
        c.bytes_out += bytes.len() as u64;
        self.tap.frame(to, Direction::Out, bytes, now, None);
    }

    fn dropped(&mut self, port: PortId, direction: Direction, bytes: &[u8], now: u64, (rule, why): (usize, Drop)) {
        let c = &mut self.ports[port].counters;
        match (direction, why) {
            (_, Drop::Queue) => c.overflow += 1,
            (Direction::In, _) => c.dropped_in += 1,
            (Direction::Out, _) => c.dropped_out += 1,
        }
        if self.tap.listens() {
            let text = format!("{} by rule {}", reason(why), self.rules.rules[rule].0.id);
            self.tap.frame(port, direction, bytes, now, Some(&text));
        }
    }
}

fn reason(why: Drop) -> &'static str {
    match why {
        Drop::Cut => "cut",
        Drop::Loss => "lost",
        Drop::Mtu => "too long",
        Drop::Queue => "queue full",
    }
}

fn mac(bytes: &[u8], at: usize) -> [u8; 6] {
    bytes[at..at + 6].try_into().expect("six bytes of a well-formed frame")
}

/// A whole Ethernet header, a sender that can be one, no more than the network carries.
fn well_formed(bytes: &[u8], mtu: usize) -> bool {
    if bytes.len() < frame::ETHERNET || bytes[6] & 1 != 0 {
        return false;
    }
    let untagged = mtu + frame::ETHERNET;
    bytes.len() <= untagged || bytes.len() - frame::summary(bytes).payload <= mtu
}

#[cfg(test)]
mod tests;
