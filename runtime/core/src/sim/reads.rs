//! What the members say: status while they run, and the final reads after everything was healed.

use super::clients::{Kind, Operation, Outcome, Recipient};
use super::world::World;
use crate::command::Command;
use crate::io::{Effect, Input, Obstacle, Reply};
use ccr_contract::dump::{Dump, Group};
use ccr_contract::status::{ClusterState, Copy, CopyStatus, ServiceState, Status};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of them.
const MOST_BODY_BYTES: u64 = 16 << 20;
/// Bodies that a hub may hold: those of eight deliveries at once, and four that come next.
const MOST_BODIES: usize = 12;

/// An invariant, and how it was broken.
type Broken = (&'static str, String);

/// What is not as it should be when nothing is broken: who says so, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotWell {
    /// A member does not answer.
    Silent(usize),
    /// A member is in no cluster.
    Apart(usize, Option<ClusterState>),
    /// The service is not online.
    Service(usize, ServiceState),
    /// The members disagree about the active node.
    Disagree,
    /// A copy is not healthy, or lags behind.
    Copy(usize, Copy),
    /// A member reports no copy.
    NoCopy(usize),
    /// A hub has messages, where it answers.
    Hub(usize, Option<u64>),
}

impl std::fmt::Display for NotWell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(i) => write!(f, "node {i} does not answer"),
            Self::Apart(i, state) => write!(f, "node {i} is in no cluster: {state:?}"),
            Self::Service(i, state) => write!(f, "node {i} says the service is {state:?}"),
            Self::Disagree => f.write_str("the members disagree about the active node"),
            Self::Copy(i, c) => write!(
                f,
                "node {i}: copy {:?} queues {} {} {:?}",
                c.status, c.copy_queue, c.replay_queue, c.error
            ),
            Self::NoCopy(i) => write!(f, "node {i} reports no copy"),
            Self::Hub(h, queued) => write!(f, "hub {h} has {queued:?} messages"),
        }
    }
}

impl World {
    /// What a member holds: its answer to `dump`; none where it does not run.
    pub fn ask_dump(&mut self, i: usize) -> Option<Dump> {
        match self.ask(i, Command::Dump)? {
            Reply::Dump(d) => Some(*d),
            _ => None,
        }
    }
    /// What a member or hub says of itself: its answer to `status`; none where it does not run.
    pub fn ask_status(&mut self, i: usize) -> Option<Status> {
        match self.ask(i, Command::Status)? {
            Reply::Status(s) => Some(*s),
            _ => None,
        }
    }
    /// The same, and what of it only an operator ends.
    pub fn ask_what_is_wrong(&mut self, i: usize) -> Option<(Status, Vec<Obstacle>)> {
        let status = self.ask_status(i)?;
        Some((status, self.machines[i].node.as_ref()?.obstacles()))
    }
    fn ask(&mut self, i: usize, command: Command) -> Option<Reply> {
        if !self.runs(i) {
            return None;
        }
        let now = self.clocks(i);
        let req = self.next_req();
        let effects = self.machines[i]
            .node
            .as_mut()?
            .step(now, Input::Operator { req, command });
        let mut found = None;
        for effect in effects {
            match effect {
                Effect::Reply { req: r, reply } if r == req => found = Some(reply),
                other => self.perform(i, other),
            }
        }
        found
    }

    /// I14: what a node holds in memory is bounded: a few bodies, and what was ever delivered. In the end no request waits that nobody
    /// waits for: until then a client may have given up one that waits for a lease.
    fn check_memory(&mut self, end: bool) {
        let sent: usize = self.workload.ops.iter().map(|o| o.to.len()).sum();
        for (i, m) in self.machines.iter().enumerate() {
            let Some(memory) = m.node.as_ref().map(|n| n.memory_use()) else {
                continue;
            };
            let open = self.waiters.keys().filter(|(at, _)| *at == i).count();
            let bodies = memory.bodies > MOST_BODIES || memory.body_bytes > MOST_BODY_BYTES;
            if bodies || memory.remembered > sent || (end && memory.waiting > open) {
                let how =
                    format!("node {i} holds {memory:?}; {open} requests are open, {sent} deliveries were asked for");
                return self.checks.broke("I14", how);
            }
        }
    }

    /// I5, I9 and I14: what status says, and what is held.
    pub fn check_status(&mut self) {
        self.check_memory(false);
        let says = [0, 1].map(|i| self.ask_status(i));
        self.check_online(&says);
        for (i, status) in says.into_iter().enumerate() {
            let Some(status) = status else { continue };
            self.check_truth(i, &status);
            for c in &status.copies {
                let ordered = c.replayed <= c.inspected
                    && c.inspected <= c.copied
                    && c.copied <= c.notified
                    && c.notified <= c.generated;
                let queues = c.copy_queue == c.generated - c.inspected.min(c.generated)
                    && c.replay_queue == c.inspected.saturating_sub(c.replayed);
                if !ordered || !queues {
                    self.checks.broke("I5", format!("node {i} reports {c:?}"));
                }
            }
        }
    }

    /// Whether the cluster is as it should be when nothing is broken.
    pub fn converged(&mut self) -> Result<(), NotWell> {
        let status: Vec<_> = (0..self.machines.len()).map(|i| self.ask_status(i)).collect();
        let mut active = None;
        for (i, s) in status.iter().enumerate().take(2) {
            let s = s.as_ref().ok_or(NotWell::Silent(i))?;
            let service = s.service.as_ref();
            let service = service.ok_or(NotWell::Apart(i, s.cluster.as_ref().map(|c| c.state)))?;
            if service.state != ServiceState::Online {
                return Err(NotWell::Service(i, service.state));
            }
            if active.get_or_insert(service.active.clone()) != &service.active {
                return Err(NotWell::Disagree);
            }
            for c in &s.copies {
                if c.status != CopyStatus::Healthy || c.copy_queue > 0 {
                    return Err(NotWell::Copy(i, c.clone()));
                }
            }
            if s.copies.is_empty() {
                return Err(NotWell::NoCopy(i));
            }
        }
        for (h, s) in status.iter().enumerate().skip(2) {
            let queued = s.as_ref().and_then(|s| s.hub.as_ref()).map(|h| h.queued);
            if queued != Some(0) {
                return Err(NotWell::Hub(h, queued));
            }
        }
        Ok(())
    }

    /// The final reads: I3, I4, I5, I6, I11, I14.
    pub fn check_end(&mut self) {
        self.check_memory(true);
        let dumps: Vec<Dump> = (0..2).filter_map(|i| self.ask_dump(i)).collect();
        let [a, b] = dumps.as_slice() else {
            return self.checks.broke("I11", "a member does not answer at the end".into());
        };
        for (ga, gb) in a.groups.iter().zip(&b.groups) {
            let found = self.broken_logs(ga, gb).or_else(|| different_databases(ga, gb));
            if let Some((which, how)) = found {
                return self.checks.broke(which, how);
            }
        }
        let groups = a.groups.clone();
        self.check_messages(&groups);
    }

    /// I6: both hold the same logs. I5: each one's are a chain, and are what their source closed.
    fn broken_logs(&self, ga: &Group, gb: &Group) -> Option<Broken> {
        let links = |g: &Group| {
            g.logs
                .iter()
                .map(|l| (l.generation, (l.epoch, l.checksum.clone())))
                .collect::<BTreeMap<_, _>>()
        };
        let (la, lb) = (links(ga), links(gb));
        for (g, link) in &la {
            if lb.get(g).is_some_and(|other| other != link) {
                let how = format!("generation {g} of {} differs: {link:?} and {:?}", ga.group, lb.get(g));
                return Some(("I6", how));
            }
        }
        for g in [ga, gb] {
            for pair in g.logs.windows(2) {
                if pair[1].generation != pair[0].generation + 1 || pair[1].previous != pair[0].checksum {
                    let how = format!("the chain of {} breaks at {}", g.group, pair[1].generation);
                    return Some(("I5", how));
                }
            }
            for l in &g.logs {
                let announced = self.checks.closed.get(&(g.group.clone(), l.generation, l.epoch));
                if announced.is_some_and(|sum| *sum != l.checksum) {
                    let how = format!("generation {} is not what its source closed", l.generation);
                    return Some(("I5", how));
                }
            }
        }
        None
    }

    /// Whether what was acknowledged to this mailbox may be gone.
    fn may_be_lost(&self, to: &Recipient) -> bool {
        let n = crate::mailbox::group_of(to.mailbox, self.checks.groups.len());
        let group = &self.checks.groups[n];
        to.by.as_ref().is_some_and(|by| self.checks.may_be_lost(by, group))
    }

    fn check_messages(&mut self, groups: &[Group]) {
        // By key and mailbox: a message with several recipients is there once for each of them.
        let mut there: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for m in groups.iter().flat_map(|g| &g.messages) {
            let key = m.key.as_deref().unwrap_or_default();
            *there.entry((key, m.mailbox.as_str())).or_default() += 1;
            if let Some(id) = &m.hub_id
                && !ids.insert((id.clone(), m.mailbox.clone()))
            {
                return self.checks.broke("I4", format!("{id} is in {} twice", m.mailbox));
            }
        }
        let ops = &self.workload.ops;
        let all = |o| to_each(o).map(|(key, r)| (key, r.mailbox));
        let sends = |o: &&Operation| matches!(o.kind, Kind::Submit | Kind::Deliver);
        let sent: BTreeSet<(&str, &str)> = ops.iter().filter(sends).flat_map(all).collect();
        // A delete that was begun may have happened, whatever became of the answer.
        let deletes = ops.iter().filter(|o| o.kind == Kind::Delete && !o.key.is_empty());
        let deleted: BTreeSet<(&str, &str)> = deletes.flat_map(all).collect();
        let mut broken = None;
        let mut lost = 0;
        for (what, n) in &there {
            if *n > 1 {
                broken = Some(("I4", format!("message {what:?} is there {n} times")));
            }
            if !sent.contains(what) {
                broken = Some(("I4", format!("message {what:?} was never sent")));
            }
        }
        for m in groups.iter().flat_map(|g| &g.messages) {
            let key = m.key.as_deref().unwrap_or_default();
            let sent = self.workload.sent(key).unwrap_or_default();
            if m.bytes != sent.len() as u64 || m.crc32c != format!("{:08x}", crc32c::crc32c(&sent)) {
                let how = format!("message {key:?} has {} bytes, and {} were sent", m.bytes, sent.len());
                broken = Some(("I4", how));
            }
        }
        for (o, (key, to)) in ops.iter().flat_map(|o| to_each(o).map(move |t| (o, t))) {
            let what = (key, to.mailbox);
            let present = there.contains_key(&what);
            let gone = !present && !deleted.contains(&what);
            match o.kind {
                // The hub's own disk took it.
                Kind::Submit if o.outcome == Outcome::Ok && gone && self.checks.spoilt.contains(&o.hub_id) => {}
                Kind::Submit if o.outcome == Outcome::Ok && gone => {
                    broken = Some(("I3", format!("submitted message {what:?} ({}) is gone", o.hub_id)));
                }
                Kind::Submit if o.outcome == Outcome::Fail && present => {
                    broken = Some(("I4", format!("message {what:?} was refused, and is there")));
                }
                Kind::Deliver if to.outcome == Outcome::Ok && gone => {
                    lost += 1;
                    if !self.may_be_lost(to) {
                        let how = format!("delivered message {what:?} is gone, acknowledged by {:?}", to.by);
                        broken = Some(("I3", how));
                    }
                }
                // Redelivery of a message whose first delivery was lost with its log brings it back.
                Kind::Delete if o.outcome == Outcome::Ok && present && to.by.is_some() => {
                    let nothing = to.by.as_ref().is_some_and(|by| by.generation == 0);
                    if !nothing && !self.may_be_lost(to) {
                        let how = format!(
                            "message {what:?} is there although its deletion was acknowledged by {:?}",
                            to.by
                        );
                        broken = Some(("I3", how));
                    }
                }
                _ => {}
            }
        }
        self.checks.counters.lost_deliveries += lost;
        if let Some((which, how)) = broken {
            self.checks.broke(which, how);
        }
    }
}

/// An operation's key with each of its mailboxes.
fn to_each(o: &Operation) -> impl Iterator<Item = (&str, &Recipient)> {
    o.to.iter().map(|r| (o.key.as_str(), r))
}

/// I11: both databases hold the same.
fn different_databases(ga: &Group, gb: &Group) -> Option<Broken> {
    if ga.database == gb.database {
        return None;
    }
    let only = |x: &Group, y: &Group| {
        let found = x.messages.iter().find(|m| !y.messages.contains(m));
        found.map(|m| {
            format!(
                "{:?} {:?} in generation {} of epoch {}",
                m.key, m.hub_id, m.generation, m.epoch
            )
        })
    };
    let how = format!(
        "the databases of {} differ: only node 0 has {:?}, only node 1 has {:?}",
        ga.group,
        only(ga, gb),
        only(gb, ga)
    );
    Some(("I11", how))
}
