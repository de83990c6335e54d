//! The invariants, checked against what the environment saw, never against what a node believes.

use super::clients::{Kind, Outcome};
use super::world::World;
use crate::cluster::record::Saved;
use crate::io::Reply;
use crate::wire;
use ccr_contract::config::Config;
use ccr_contract::dump::Dump;
use ccr_contract::event::{NodeEvent, Value, kind};
use ccr_contract::reply::By;
use ccr_contract::status::{CopyStatus, ServiceState};
use std::collections::{BTreeMap, BTreeSet};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often things happened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),* }
        impl Counters {
            /// Adds another run's.
            pub fn add(&mut self, other: &Counters) { $(self.$name += other.$name;)* }
            /// Names and values.
            pub fn all(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name)),*] }
        }
    };
}

counters! {
    /// Operations begun.
    operations,
    /// Answers of the store that left.
    store_answers,
    /// Generations closed.
    closed_generations,
    /// Steps of plans.
    faults,
    /// The service came online.
    role_changes,
    /// Arbitrations won by the previous owner of the quorum.
    arbitrations_won_by_owner,
    /// Arbitrations won by a challenger.
    arbitrations_won_by_challenger,
    /// Arbitrations lost.
    arbitrations_lost,
    /// Quorums lost.
    quorums_lost,
    /// Nodes refused to form because the witness had seen a newer cluster.
    partitions_in_time,
    /// Mounts with lost logs.
    lossy_mounts,
    /// Mounts refused by the dial.
    dial_refusals,
    /// Divergences found.
    divergences,
    /// Divergent logs dropped.
    incremental_reseeds,
    /// Full copies of a database completed.
    full_reseeds,
    /// Torn tails cut.
    torn_tails,
    /// Files torn by a loss of power.
    torn_files,
    /// Messages queued again by hubs.
    redeliveries,
    /// Answers with an old epoch that a hub did not count.
    fenced_deliveries,
    /// Answers held back for want of a lease.
    fenced_answers,
    /// Machines paused.
    machine_pauses,
    /// Processes paused.
    process_pauses,
    /// Power losses.
    power_offs,
    /// Quorums forced by an operator.
    forced_quorums,
    /// Planned moves done.
    moves,
    /// Planned moves refused.
    moves_denied,
    /// Daemons that stopped themselves after a failed write.
    halts,
    /// Acknowledged deliveries lost with logs that were not inspected.
    lost_deliveries,
    /// Closed logs damaged or deleted on a disk.
    hurt_logs,
    /// Failed inspections.
    failed_inspections,
}

/// What was seen of an epoch.
#[derive(Debug, Clone, Default)]
struct Epoch {
    node: usize,
    /// First generation of each group.
    opened: BTreeMap<String, u64>,
    clean: bool,
}

/// The watcher.
#[derive(Debug)]
pub struct Checks {
    /// The first invariant that was broken, and how.
    pub broken: Option<(&'static str, String)>,
    /// What happened.
    pub counters: Counters,
    /// Whether an operator has asked to stop the service.
    pub stop_asked: bool,
    stopped_since: Option<u64>,
    epochs: BTreeMap<u64, Epoch>,
    /// The highest epoch acknowledged so far, and by whom.
    acked: (u64, usize),
    /// Highest generation acknowledged, by group's stream and epoch.
    acked_generation: BTreeMap<u64, BTreeMap<String, u64>>,
    /// The epoch that each member was told to serve in last.
    serving: [u64; 2],
    clean_pending: [bool; 2],
    /// Per member and group: the last generation that the other one was heard to have closed.
    heard: [BTreeMap<usize, u64>; 2],
    /// Closed generations as announced: (group, generation, epoch) to checksum.
    closed: BTreeMap<(String, u64, u64), String>,
    /// The highest epoch that an operator forced.
    forced_from: u64,
    tolerated: u64,
    mount_forced: bool,
    groups: Vec<String>,
}

fn text<'a>(e: &'a NodeEvent, name: &str) -> &'a str {
    match e.data.get(name) {
        Some(Value::Text(t)) => t,
        _ => "",
    }
}
fn number(e: &NodeEvent, name: &str) -> u64 {
    match e.data.get(name) {
        Some(Value::Number(n)) => *n,
        _ => 0,
    }
}

impl Checks {
    /// Nothing was seen yet.
    pub fn new(config: &Config) -> Self {
        Self {
            broken: None,
            counters: Counters::default(),
            stop_asked: false,
            stopped_since: None,
            epochs: BTreeMap::new(),
            acked: (0, 0),
            acked_generation: BTreeMap::new(),
            serving: [0; 2],
            clean_pending: [false; 2],
            heard: Default::default(),
            closed: BTreeMap::new(),
            forced_from: 0,
            tolerated: config.settings.dial.tolerated(),
            mount_forced: false,
            groups: config.settings.groups.clone(),
        }
    }

    /// An invariant is broken.
    pub fn broke(&mut self, which: &'static str, how: String) {
        if self.broken.is_none() {
            self.broken = Some((which, how));
        }
    }
    /// An operator accepted a loss.
    pub fn loss_accepted(&mut self) {
        self.mount_forced = true;
    }
    /// An operator's stop or start was carried out.
    pub fn intent(&mut self, now: u64, stopped: bool) {
        self.stopped_since = stopped.then_some(now);
    }

    /// An answer to a client left a member: I1 and I10.
    pub fn answered(&mut self, now: u64, i: usize, reply: &Reply) {
        let by = match reply {
            Reply::Delivered(r) => r.iter().find(|r| r.code == 250).and_then(|r| By::find(&r.text)),
            Reply::Deleted(by) | Reply::Greeting(by) => Some(by.clone()),
            Reply::Listing(_) | Reply::Message(_) => None,
            _ => return,
        };
        self.counters.store_answers += 1;
        let (epoch, generation) = by.as_ref().map_or((self.serving[i], 0), |b| (b.epoch, b.generation));
        if epoch < self.acked.0 || (epoch == self.acked.0 && i != self.acked.1 && epoch != 0) {
            let (e, n) = self.acked;
            self.broke(
                "I1",
                format!("node {i} answered in epoch {epoch} after node {n} had answered in epoch {e}"),
            );
        }
        if epoch > self.acked.0 {
            self.acked = (epoch, i);
        }
        if let Some(by) = by {
            let known = self
                .acked_generation
                .entry(epoch)
                .or_default()
                .entry(by.stream)
                .or_default();
            *known = generation.max(*known);
        }
        if self.stopped_since.is_some_and(|at| now > at + 5_500_000) {
            self.broke(
                "I10",
                format!("node {i} answered although an operator had stopped the service"),
            );
        }
    }

    /// A heartbeat reached a member: what it may know of the other one's logs.
    pub fn heartbeat(&mut self, i: usize, bytes: &[u8]) {
        let Ok(hb) = wire::decode_heartbeat(bytes) else { return };
        if hb.service == ServiceState::Online && hb.service_epoch == self.acked.0 {
            for (g, view) in hb.groups.iter().enumerate() {
                self.heard[i].insert(g, view.generated);
            }
        }
    }
    /// What was heard does not survive a restart in the core's memory; the checker forgets it as well.
    pub fn forgot(&mut self, i: usize) {
        if i < 2 {
            self.heard[i].clear();
        }
    }

    fn opened(&mut self, i: usize, e: &NodeEvent) {
        let (group, generation, epoch) = (text(e, "group").to_owned(), number(e, "generation"), number(e, "epoch"));
        let stream = text(e, "stream").to_owned();
        let clean = self.clean_pending[i];
        let entry = self.epochs.entry(epoch).or_insert(Epoch {
            node: i,
            clean,
            ..Epoch::default()
        });
        if entry.node != i {
            let other = entry.node;
            return self.broke("I1", format!("epoch {epoch} was used by node {other} and by node {i}"));
        }
        entry.opened.insert(group.clone(), generation);
        if entry.clean {
            let lost = self
                .acked_generation
                .values()
                .filter_map(|m| m.get(&stream))
                .max()
                .copied()
                .unwrap_or(0);
            // Only what came after the last takeover can be lost by this one.
            let before = self.last_opened_before(epoch, &group);
            if lost >= generation
                && before.is_some_and(|(_, g)| g <= lost)
                && self.acked_in_lineage(epoch, &stream, generation)
            {
                self.broke("I2", format!("handoff to node {i} in epoch {epoch} goes on with generation {generation}, answers reach to {lost}"));
            }
        }
        let g = self.groups.iter().position(|n| *n == group).unwrap_or(0);
        let heard = self.heard[i].get(&g).copied().unwrap_or(0);
        let lost = (heard + 1).saturating_sub(generation);
        if lost > self.tolerated && !self.mount_forced {
            self.broke(
                "I3",
                format!(
                    "node {i} mounted {group} with {lost} lost logs, {} are tolerated",
                    self.tolerated
                ),
            );
        }
        self.heard[i].clear();
    }

    /// The last appointment before `epoch` that opened a log of this group.
    fn last_opened_before(&self, epoch: u64, group: &str) -> Option<(u64, u64)> {
        self.epochs
            .range(..epoch)
            .rev()
            .find_map(|(e, seen)| Some((*e, *seen.opened.get(group)?)))
    }
    /// Whether the newest epoch before this one acknowledged something at or after `generation`.
    fn acked_in_lineage(&self, epoch: u64, stream: &str, generation: u64) -> bool {
        let newest = self.acked_generation.range(..epoch).next_back();
        newest
            .and_then(|(_, m)| m.get(stream))
            .is_some_and(|g| *g >= generation)
    }

    /// Whether something acknowledged in `epoch` in this generation may be gone: a later appointment went on before it.
    fn may_be_lost(&self, by: &By, group: &str) -> bool {
        self.epochs
            .range(by.epoch + 1..)
            .any(|(_, e)| e.opened.get(group).is_some_and(|g| *g <= by.generation))
    }
}

impl World {
    pub(super) fn event(&mut self, i: usize, e: &NodeEvent) {
        self.note(|| {
            let data: Vec<String> = e.data.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect();
            format!("node {i}: {} {}", e.kind, data.join(" "))
        });
        let c = &mut self.checks.counters;
        match e.kind.as_str() {
            kind::LOG_CLOSED => {
                c.closed_generations += 1;
                let key = (text(e, "group").to_owned(), number(e, "generation"), number(e, "epoch"));
                let sum = text(e, "checksum").to_owned();
                if let Some(other) = self.checks.closed.insert(key.clone(), sum.clone())
                    && other != sum
                {
                    self.checks
                        .broke("I5", format!("{key:?} was closed with checksum {other} and with {sum}"));
                }
            }
            kind::ONLINE_PENDING if i < 2 => {
                self.checks.serving[i] = number(e, "epoch");
                self.checks.clean_pending[i] = text(e, "why") == "handoff";
            }
            kind::LOG_OPENED => self.checks.opened(i, e),
            kind::ONLINE | kind::PARTIALLY_ONLINE => {
                c.role_changes += 1;
                self.check_votes(i, number(e, "epoch"));
            }
            kind::ARBITRATION_WON if text(e, "as") == "owner" => c.arbitrations_won_by_owner += 1,
            kind::ARBITRATION_WON => c.arbitrations_won_by_challenger += 1,
            kind::ARBITRATION_LOST => c.arbitrations_lost += 1,
            kind::QUORUM_LOST => c.quorums_lost += 1,
            kind::PARTITION_IN_TIME => c.partitions_in_time += 1,
            kind::COPY_LOST => c.lossy_mounts += 1,
            kind::DIAL_REFUSED => c.dial_refusals += 1,
            kind::COPY_DIVERGED => c.divergences += 1,
            kind::COPY_RESYNCED => c.incremental_reseeds += 1,
            kind::COPY_SEEDED => c.full_reseeds += 1,
            kind::COPY_INSPECTION_FAILED => c.failed_inspections += 1,
            kind::LOG_TORN => c.torn_tails += 1,
            kind::HUB_REDELIVERY => c.redeliveries += number(e, "count"),
            kind::HUB_FENCED => c.fenced_deliveries += 1,
            kind::FENCED => c.fenced_answers += 1,
            kind::QUORUM_FORCED => {
                c.forced_quorums += 1;
                let epoch = number(e, "epoch");
                self.checks.forced_from = self.checks.forced_from.max(epoch);
            }
            _ => {}
        }
    }

    /// I7: what goes online was agreed on by two of the three voters, or forced.
    fn check_votes(&mut self, i: usize, epoch: u64) {
        let saved = |i: usize| {
            let bytes = self.machines[i].disk.file(crate::cluster::CLUSTER_FILE)?;
            serde_json::from_slice::<Saved>(bytes).ok().map(|s| s.record.id.epoch)
        };
        let witness = wire::decode_witness(&self.share.content)
            .ok()
            .flatten()
            .map(|w| w.id.epoch);
        let votes = [saved(0), saved(1), witness]
            .into_iter()
            .flatten()
            .filter(|e| *e >= epoch)
            .count();
        if votes < 2 && self.checks.forced_from != epoch {
            self.checks.broke(
                "I7",
                format!("node {i} went online in epoch {epoch} with {votes} of 3 votes"),
            );
        }
    }

    pub(super) fn poll(&mut self) {
        self.share_contact();
    }

    /// What a member says of itself.
    pub fn ask_dump(&mut self, i: usize) -> Option<Dump> {
        match self.ask(i, crate::io::Command::Dump)? {
            Reply::Dump(d) => Some(*d),
            _ => None,
        }
    }
    /// What a member says of itself.
    pub fn ask_status(&mut self, i: usize) -> Option<ccr_contract::status::Status> {
        match self.ask(i, crate::io::Command::Status)? {
            Reply::Status(s) => Some(*s),
            _ => None,
        }
    }
    fn ask(&mut self, i: usize, command: crate::io::Command) -> Option<Reply> {
        if !self.runs(i) {
            return None;
        }
        let now = self.clocks(i);
        let req = self.next_req();
        let effects = self.machines[i]
            .node
            .as_mut()?
            .step(now, crate::io::Input::Operator { req, command });
        let mut found = None;
        for effect in effects {
            match effect {
                crate::io::Effect::Reply { req: r, reply } if r == req => found = Some(reply),
                other => self.carry_out(i, other),
            }
        }
        found
    }

    /// I5 and I9: what status says of the copies.
    pub fn check_status(&mut self) {
        for i in 0..2 {
            let Some(status) = self.ask_status(i) else { continue };
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
    pub fn converged(&mut self) -> Result<(), String> {
        let status: Vec<_> = (0..self.machines.len()).map(|i| self.ask_status(i)).collect();
        let mut active = None;
        for (i, s) in status.iter().enumerate().take(2) {
            let s = s.as_ref().ok_or(format!("node {i} does not answer"))?;
            let service = s.service.as_ref().ok_or(format!(
                "node {i} is in no cluster: {:?}",
                s.cluster.as_ref().map(|c| c.state)
            ))?;
            if service.state != ServiceState::Online {
                return Err(format!("node {i} says the service is {:?}", service.state));
            }
            if active.get_or_insert(service.active.clone()) != &service.active {
                return Err("the members disagree about the active node".into());
            }
            for c in &s.copies {
                if c.status != CopyStatus::Healthy || c.copy_queue > 0 {
                    return Err(format!(
                        "node {i}: copy {:?} queues {} {} {:?}",
                        c.status, c.copy_queue, c.replay_queue, c.error
                    ));
                }
            }
            if s.copies.is_empty() {
                return Err(format!("node {i} reports no copy"));
            }
        }
        for (h, s) in status.iter().enumerate().skip(2) {
            let queued = s.as_ref().and_then(|s| s.hub.as_ref()).map(|h| h.queued);
            if queued != Some(0) {
                return Err(format!("hub {h} has {queued:?} messages"));
            }
        }
        Ok(())
    }

    /// The final reads: I3, I4, I5, I6, I11.
    pub fn check_end(&mut self) {
        let dumps: Vec<Dump> = (0..2).filter_map(|i| self.ask_dump(i)).collect();
        let [a, b] = dumps.as_slice() else {
            return self.checks.broke("I11", "a member does not answer at the end".into());
        };
        for (ga, gb) in a.groups.iter().zip(&b.groups) {
            let of = |g: &ccr_contract::dump::Group| {
                g.logs
                    .iter()
                    .map(|l| (l.generation, (l.epoch, l.checksum.clone())))
                    .collect::<BTreeMap<_, _>>()
            };
            let (la, lb) = (of(ga), of(gb));
            for (g, link) in &la {
                if lb.get(g).is_some_and(|other| other != link) {
                    return self.checks.broke(
                        "I6",
                        format!("generation {g} of {} differs: {link:?} and {:?}", ga.group, lb.get(g)),
                    );
                }
            }
            for g in [ga, gb] {
                for pair in g.logs.windows(2) {
                    if pair[1].generation != pair[0].generation + 1 || pair[1].previous != pair[0].checksum {
                        return self.checks.broke(
                            "I5",
                            format!("the chain of {} breaks at {}", g.group, pair[1].generation),
                        );
                    }
                }
                for l in &g.logs {
                    let announced = self.checks.closed.get(&(g.group.clone(), l.generation, l.epoch));
                    if announced.is_some_and(|sum| *sum != l.checksum) {
                        return self.checks.broke(
                            "I5",
                            format!("generation {} is not what its source closed", l.generation),
                        );
                    }
                }
            }
            if ga.database != gb.database {
                let only = |x: &ccr_contract::dump::Group, y: &ccr_contract::dump::Group| {
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
                return self.checks.broke("I11", how);
            }
        }
        let groups = a.groups.clone();
        self.check_messages(&groups);
    }

    fn check_messages(&mut self, groups: &[ccr_contract::dump::Group]) {
        let mut there: BTreeMap<&str, u64> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for m in groups.iter().flat_map(|g| &g.messages) {
            let key = m.key.as_deref().unwrap_or_default();
            *there.entry(key).or_default() += 1;
            if let Some(id) = &m.hub_id
                && !ids.insert((id.clone(), m.mailbox.clone()))
            {
                return self.checks.broke("I4", format!("{id} is in {} twice", m.mailbox));
            }
        }
        let ops = &self.workload.ops;
        let sent: BTreeSet<&str> = ops
            .iter()
            .filter(|o| matches!(o.kind, Kind::Submit | Kind::Deliver))
            .map(|o| o.key.as_str())
            .collect();
        // A delete that was begun may have happened, whatever became of the answer.
        let deleted: BTreeMap<&str, &super::clients::Operation> = ops
            .iter()
            .filter(|o| o.kind == Kind::Delete && !o.key.is_empty())
            .map(|o| (o.key.as_str(), o))
            .collect();
        let group = |mailbox: &str| {
            let n = crate::member::clients::group_of(mailbox, self.checks.groups.len());
            self.checks.groups[n].clone()
        };
        let mut broken = None;
        let mut lost = 0;
        for (key, n) in &there {
            if *n > 1 {
                broken = Some(("I4", format!("message {key} is there {n} times")));
            }
            if !sent.contains(key) {
                broken = Some(("I4", format!("message {key:?} was never sent")));
            }
        }
        for o in ops {
            let present = there.contains_key(o.key.as_str());
            match (o.kind, o.outcome) {
                (Kind::Submit, Outcome::Ok) if !present && !deleted.contains_key(o.key.as_str()) => {
                    broken = Some(("I3", format!("submitted message {} ({}) is gone", o.key, o.hub_id)));
                }
                (Kind::Deliver, Outcome::Ok) if !present && !deleted.contains_key(o.key.as_str()) => {
                    let excused =
                        o.by.as_ref()
                            .is_some_and(|by| self.checks.may_be_lost(by, &group(o.mailbox)));
                    lost += 1;
                    if !excused {
                        broken = Some((
                            "I3",
                            format!("delivered message {} is gone, acknowledged by {:?}", o.key, o.by),
                        ));
                    }
                }
                (Kind::Submit | Kind::Deliver, Outcome::Fail) if present && o.kind == Kind::Submit => {
                    broken = Some(("I4", format!("message {} was refused, and is there", o.key)));
                }
                (Kind::Delete, Outcome::Ok) if present && o.by.is_some() => {
                    let excused =
                        o.by.as_ref()
                            .is_some_and(|by| by.generation == 0 || self.checks.may_be_lost(by, &group(o.mailbox)));
                    // Redelivery of a message whose first delivery was lost with its log brings it back.
                    if !excused {
                        broken = Some((
                            "I3",
                            format!(
                                "message {} is there although its deletion was acknowledged by {:?}",
                                o.key, o.by
                            ),
                        ));
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

fn plain(v: &Value) -> String {
    match v {
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Text(t) => t.clone(),
    }
}
