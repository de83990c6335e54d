//! The invariants, checked against what the environment saw, never against what a node believes.

use super::counters::Counters;
use super::world::World;
use crate::io::Reply;
use crate::record::PersistentState;
use crate::store::log;
use crate::wire;
use ccr_contract::config::Config;
use ccr_contract::event::{CopyFault, EventKind, NodeEvent, OnlineCause, Value};
use ccr_contract::reply::By;
use ccr_contract::status::{CopyStatus, ServiceState};
use std::collections::{BTreeMap, BTreeSet};

/// Longest time from the dial's decision to the opened log, in microseconds.
const MOUNT_US: u64 = 1_500_000;

/// How long both members must have been well before a raw move that loses nothing, in microseconds.
const CALM_US: u64 = 5_000_000;

/// Names of the checks.
pub const CHECKS: [&str; 15] = [
    "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I14", "contract",
];

/// What the check reads of a heartbeat: every one of a run is read here as well, and the whole costs several times as much.
#[derive(serde::Deserialize)]
struct Served {
    service: ServiceState,
    service_epoch: u64,
    groups: Vec<Generated>,
}

#[derive(serde::Deserialize)]
struct Generated {
    #[serde(rename = "g")]
    generated: u64,
}

/// What was seen of an epoch.
#[derive(Debug, Clone, Default)]
struct Epoch {
    node: usize,
    /// First generation of each group.
    opened: BTreeMap<String, u64>,
    /// First generation of each group that may lack what was acknowledged before: that first one, or, where an operator has
    /// accepted a loss, what others wrote since this node served last.
    lost_from: BTreeMap<String, u64>,
    clean: bool,
}

/// A generation that was opened at a mount.
struct Opened {
    group: String,
    stream: String,
    generation: u64,
    epoch: u64,
}

/// The watcher.
#[derive(Debug)]
pub struct Checks {
    /// The first invariant that was broken, and how.
    pub broken: Option<(&'static str, String)>,
    /// The check that is switched off.
    pub off: Option<&'static str>,
    /// What happened.
    pub counters: Counters,
    /// Whether an operator has asked to stop the service.
    pub stop_asked: bool,
    stopped_since: Option<u64>,
    /// When an operator asked for a start last.
    start_asked: u64,
    epochs: BTreeMap<u64, Epoch>,
    /// The highest epoch acknowledged so far, and by whom.
    acked: (u64, usize),
    /// Highest generation acknowledged, by group's stream and epoch.
    acked_generation: BTreeMap<u64, BTreeMap<String, u64>>,
    /// The epoch that each member was told to serve in last.
    serving: [u64; 2],
    clean_pending: [bool; 2],
    /// Epochs that an operator's stop has ended.
    stopped_in: BTreeSet<u64>,
    /// Epochs that an operator's raw move has ended, and when.
    moved_in: BTreeMap<u64, u64>,
    /// Per member and group: the last generation that the other one was heard to have closed.
    heard: [BTreeMap<usize, Vec<(u64, u64)>>; 2],
    /// Closed generations as announced: (group, generation, epoch) to checksum.
    pub(super) closed: BTreeMap<(String, u64, u64), String>,
    /// Who goes on by an operator's force, and has no regular majority yet.
    forced: Option<usize>,
    tolerated: u64,
    /// The longest lease, and a second.
    stops_within_us: u64,
    mount_forced: bool,
    /// Members and groups with a file that was damaged.
    hurt: BTreeSet<(usize, String)>,
    /// Members of which a read has failed.
    pub(super) unread: BTreeSet<usize>,
    /// Open logs that were damaged: group, epoch, generation.
    pub(super) only_there: BTreeSet<(usize, u64, u64)>,
    /// Messages of which a hub's file was damaged, by the hub's id.
    pub(super) spoilt: BTreeSet<String>,
    pub(super) groups: Vec<String>,
}

impl Checks {
    /// Nothing was seen yet.
    pub fn new(config: &Config) -> Self {
        Self {
            broken: None,
            off: None,
            counters: Counters::default(),
            stop_asked: false,
            stopped_since: None,
            start_asked: 0,
            epochs: BTreeMap::new(),
            acked: (0, 0),
            acked_generation: BTreeMap::new(),
            serving: [0; 2],
            clean_pending: [false; 2],
            stopped_in: BTreeSet::new(),
            moved_in: BTreeMap::new(),
            heard: Default::default(),
            closed: BTreeMap::new(),
            forced: None,
            tolerated: config.settings.dial.tolerated(),
            stops_within_us: 1_000_000 + 1_000 * config.settings.lease_ms.max(config.settings.witness_lease_ms),
            mount_forced: false,
            hurt: BTreeSet::new(),
            unread: BTreeSet::new(),
            only_there: BTreeSet::new(),
            spoilt: BTreeSet::new(),
            groups: config.settings.groups.clone(),
        }
    }

    /// An invariant is broken.
    pub fn broke(&mut self, which: &'static str, how: String) {
        if self.broken.is_none() && self.off != Some(which) {
            self.broken = Some((which, how));
        }
    }
    /// A file of a member's group was damaged.
    pub(super) fn hurt(&mut self, i: usize, group: &str) {
        self.hurt.insert((i, group.to_owned()));
    }
    pub(super) fn is_hurt(&self, i: usize, group: &str) -> bool {
        self.hurt.contains(&(i, group.to_owned()))
    }
    /// An operator accepted a loss.
    pub fn loss_accepted(&mut self) {
        self.mount_forced = true;
    }
    /// An operator asks to start the service.
    pub fn start_asked(&mut self, now: u64) {
        (self.stopped_since, self.start_asked) = (None, now);
    }
    /// An operator, who asked at `asked`, was told whether the service is stopped.
    pub fn stop_told(&mut self, now: u64, asked: u64, stopped: bool) {
        // The answer may come behind a later order to start.
        if asked >= self.start_asked {
            self.stopped_since = stopped.then_some(now);
        }
    }

    /// An operator was told that the service is stopped: nothing of these epochs may be lost any more.
    pub fn stopped_in_order(&mut self, ended: &[(usize, u64)]) {
        self.counters.orderly_stops += u64::from(!ended.is_empty());
        self.stopped_in.extend(ended.iter().map(|(_, e)| *e));
    }
    /// An operator was told that the service is moved, whatever that may cost.
    pub fn moved_without_check(&mut self, now: u64, ended: &[(usize, u64)]) {
        self.moved_in.extend(ended.iter().map(|(_, e)| (*e, now)));
    }
    /// What an order may end: by group the node and the epoch that served it last, where it still does (a database that is dismounted
    /// ended before), and the other one is not about to replace it.
    pub fn served_last(&self, serving: [bool; 2]) -> Vec<(usize, u64)> {
        let groups = self.groups.iter();
        let last = groups.filter_map(|g| self.last_opened_before(u64::MAX, g));
        let last = last.filter_map(|e| Some((self.epochs.get(&e)?.node, e)));
        last.filter(|(i, e)| serving[*i] && self.serving[*i] <= *e && self.serving[1 - i] < *e)
            .collect()
    }

    /// An answer to a client left a member: I1 and I10.
    pub fn answered(&mut self, now: u64, i: usize, reply: &Reply) {
        let by: Vec<By> = match reply {
            Reply::Delivered(r) => {
                let stored = r.iter().filter(|r| r.code == 250);
                stored.filter_map(|r| By::find(&r.text)).collect()
            }
            Reply::Deleted(by) | Reply::Greeting(by) => vec![by.clone()],
            Reply::Listing(_) | Reply::Message { .. } => Vec::new(),
            _ => return,
        };
        self.counters.store_answers += 1;
        let epoch = by.first().map_or(self.serving[i], |b| b.epoch);
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
        for by in by {
            let known = self
                .acked_generation
                .entry(epoch)
                .or_default()
                .entry(by.stream)
                .or_default();
            *known = by.generation.max(*known);
        }
        if self.stopped_since.is_some_and(|at| now > at + self.stops_within_us) {
            self.broke(
                "I10",
                format!("node {i} answered although an operator had stopped the service"),
            );
        }
    }

    /// I5: a generation that is closed twice is the same.
    fn closed_once(&mut self, key: (String, u64, u64), checksum: String) {
        if let Some(other) = self.closed.insert(key.clone(), checksum.clone())
            && other != checksum
        {
            let how = format!("{key:?} was closed with checksum {other} and with {checksum}");
            self.broke("I5", how);
        }
    }

    /// I5: a message that was stored can be read. A failed read is no broken body.
    fn unreadable(&mut self, i: usize, group: &str, why: &str) {
        if !self.is_hurt(i, group) && !self.unread.contains(&i) {
            let how = format!("node {i} says that {why}, and no disk was hurt");
            self.broke("I5", how);
        }
    }

    /// A heartbeat reached a member: what it may know of the other one's logs.
    pub fn heartbeat(&mut self, now: u64, i: usize, bytes: &[u8]) {
        let Ok(hb) = serde_json::from_slice::<Served>(bytes) else {
            return;
        };
        // What a node closes after another one has gone on is of no account.
        let latest = self.epochs.last_key_value().map_or(0, |(e, _)| *e);
        if hb.service == ServiceState::Online && hb.service_epoch == self.acked.0 && hb.service_epoch >= latest {
            for (g, view) in hb.groups.iter().enumerate() {
                let heard = self.heard[i].entry(g).or_default();
                if let Some(old) = heard.iter().rposition(|(at, _)| at + MOUNT_US <= now) {
                    heard.drain(..old);
                }
                heard.push((now, view.generated));
            }
        }
    }
    /// What was heard does not survive a restart in the core's memory; the checker forgets it as well.
    pub fn forgot(&mut self, i: usize) {
        if i < 2 {
            self.heard[i].clear();
        }
    }

    /// `calm` is since when both members run and hear each other.
    fn opened(&mut self, now: u64, calm: u64, i: usize, opened: Opened) {
        let Opened {
            group,
            stream,
            generation,
            epoch,
        } = opened;
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
        // A group that is mounted again in its epoch does not bring back what the first time lacked.
        let first = entry.opened.entry(group.clone()).or_insert(generation);
        *first = generation.min(*first);
        let clean = entry.clean;
        let mut lost_from = generation;
        if self.mount_forced {
            let opened = self.epochs.range(..epoch).rev();
            let opened = opened.filter_map(|(_, e)| Some((e.node, *e.opened.get(&group)?)));
            let written = opened.take_while(|(node, _)| *node != i).map(|(_, g)| g).min();
            lost_from = written.map_or(generation, |g| generation.min(g));
        }
        if let Some(entry) = self.epochs.get_mut(&epoch) {
            let first = entry.lost_from.entry(group.clone()).or_insert(lost_from);
            *first = lost_from.min(*first);
        }
        // What the node that handed over had acknowledged is there.
        let handed = self.last_opened_before(epoch, &group);
        let acked = handed.and_then(|e| self.acked_generation.get(&e)?.get(&stream).copied());
        let stopped = handed.is_some_and(|e| self.stopped_in.contains(&e));
        let moved = handed.and_then(|e| self.moved_in.get(&e));
        let moved = moved.is_some_and(|at| calm + CALM_US <= *at);
        let excused = self.mount_forced || !self.hurt.is_empty();
        let orderly = clean || ((stopped || moved) && !excused);
        if orderly && acked.is_some_and(|g| g >= generation) {
            let step = match (clean, stopped) {
                (true, _) => "handoff",
                (_, true) => "start after a stop",
                _ => "raw move",
            };
            self.broke(
                "I2",
                format!("{step} to node {i} in epoch {epoch} goes on with generation {generation}, answers reach to {acked:?}"),
            );
        }
        // What a node acknowledged itself is on its own disk, as long as nobody else wrote since and nothing hurt that.
        let opened = self.epochs.range(..epoch).rev();
        let opened = opened.filter(|(_, e)| e.opened.contains_key(&group));
        let own = opened.take_while(|(_, e)| e.node == i);
        let acked = own
            .filter_map(|(e, _)| self.acked_generation.get(e)?.get(&stream))
            .max();
        if acked.is_some_and(|g| *g >= generation) && !self.mount_forced && !self.is_hurt(i, &group) {
            self.broke(
                "I3",
                format!(
                    "node {i} goes on with generation {generation} of {group} and has itself answered up to {acked:?}"
                ),
            );
        }
        let g = self.groups.iter().position(|n| *n == group).unwrap_or(0);
        // The dial decides before the logs are read: what came in meanwhile was too late for it.
        let heard = self.heard[i].get(&g).into_iter().flatten();
        let heard = heard
            .filter(|(at, _)| at + MOUNT_US <= now)
            .map(|(_, g)| *g)
            .next_back()
            .unwrap_or(0);
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
    fn last_opened_before(&self, epoch: u64, group: &str) -> Option<u64> {
        let mut before = self.epochs.range(..epoch).rev();
        before
            .find(|(_, seen)| seen.opened.contains_key(group))
            .map(|(e, _)| *e)
    }
    /// Whether something acknowledged in `epoch` in this generation may be gone: a later appointment went on before it.
    pub(super) fn may_be_lost(&self, by: &By, group: &str) -> bool {
        let at = self.groups.iter().position(|g| g == group).unwrap_or(0);
        if self.only_there.contains(&(at, by.epoch, by.generation)) {
            return true;
        }
        self.epochs
            .range(by.epoch + 1..)
            .any(|(_, e)| e.lost_from.get(group).is_some_and(|g| *g <= by.generation))
    }
}

impl World {
    pub(super) fn event(&mut self, i: usize, e: &NodeEvent) {
        self.note(|| {
            let data: Vec<String> = e.data.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect();
            format!("node {i}: {} {}", e.kind, data.join(" "))
        });
        let what = e.what();
        self.truths.event(self.now, i, &what);
        self.judge_cause(i, &what);
        self.checks.counters.count(&what);
        match what {
            EventKind::LogClosed {
                group,
                generation,
                epoch,
                checksum,
                ..
            } => {
                self.truths.log(self.now, &group, epoch, generation, true);
                self.checks.closed_once((group, generation, epoch), checksum);
            }
            EventKind::LogOpened {
                group,
                stream,
                generation,
                epoch,
            } => {
                self.truths.log(self.now, &group, epoch, generation, false);
                let opened = Opened {
                    group,
                    stream,
                    generation,
                    epoch,
                };
                let calm = self.calm_since();
                self.checks.opened(self.now, calm, i, opened);
            }
            EventKind::OnlinePending { why, epoch } if i < 2 => {
                self.checks.serving[i] = epoch;
                self.checks.clean_pending[i] = why == OnlineCause::Handoff;
            }
            EventKind::Online { epoch, .. } | EventKind::PartiallyOnline { epoch, .. } => {
                self.check_votes(i, epoch);
                self.came_online(i);
            }
            EventKind::MemberUp { .. } => {
                self.checks.forced.take_if(|forced| *forced == i);
                self.came_back(i);
            }
            EventKind::Ended {
                served, given: true, ..
            } if served != 0 => {
                self.checks.counters.ends_that_gave_all += 1;
                self.checks.stopped_in.insert(served);
            }
            EventKind::CopyStatusChanged {
                group,
                to: CopyStatus::Healthy,
                ..
            } => self.check_healthy(i, &group),
            EventKind::CopyFailed {
                group,
                why,
                fault: Some(CopyFault::Message),
                ..
            } => self.checks.unreadable(i, &group, &why),
            EventKind::CopyInspected { group, generation } => self.check_copied(i, &group, generation),
            EventKind::QuorumForced { recorded, .. } => {
                self.checks.forced = Some(i);
                // Whatever the other one wrote since is given up with it; an order too, where the witness cannot say it.
                self.checks.mount_forced = true;
                if !recorded {
                    self.checks.stopped_since = None;
                }
            }
            EventKind::Unknown { name, data } => {
                let how = format!("{name} of node {i} is not what the contract says: {data:?}");
                self.checks.broke("contract", how);
            }
            _ => {}
        }
    }

    /// I5: what a copy took in is what its source closed, or will say that it closed. I6: it follows what was there.
    fn check_copied(&mut self, i: usize, group: &str, generation: u64) {
        let at = self.checks.groups.iter().position(|g| g == group).unwrap_or(0);
        let disk = &self.machines[i].disk;
        // Only what is whole says what comes after it.
        let closed = |g: u64| {
            let bytes = disk.file(&format!("E{at:02X}/E{at:02X}{g:08X}.log"))?;
            log::inspect(bytes, bytes.len()).ok()
        };
        let replayed = |g: u64| log::segment(disk.file(&format!("E{at:02X}/db/E{at:02X}{g:08X}.edb"))?).ok();
        let Some(scan) = closed(generation) else { return };
        let before = replayed(generation - 1).or_else(|| closed(generation - 1));
        if before.is_some_and(|b| b.link().checksum != scan.header.previous) {
            let how = format!("node {i} took in generation {generation} of {group}, which does not follow what it has");
            return self.checks.broke("I6", how);
        }
        let key = (group.to_owned(), generation, scan.header.epoch);
        let sum = format!("{:08x}", scan.link().checksum);
        let closed = self.checks.closed.entry(key).or_insert_with(|| sum.clone());
        if *closed != sum {
            let how = format!(
                "node {i} took in generation {generation} of {group} with checksum {sum}, closed with {closed}"
            );
            self.checks.broke("I5", how);
        }
    }

    /// I7: what goes online was agreed on by two of the three voters, or forced.
    fn check_votes(&mut self, i: usize, epoch: u64) {
        let read = |i: usize| {
            let bytes = self.machines[i].disk.file(crate::cluster::CLUSTER_FILE)?;
            PersistentState::decode(bytes).ok()
        };
        // A file that was hurt behind the daemon's back says nothing of what that had agreed to.
        let hurt = self.atlas.cluster == Some(i);
        let saved = |n: usize| read(n).map(|s| s.record.id.epoch).or((n == i && hurt).then_some(epoch));
        // A member that was left alone by an eviction is the whole cluster.
        if read(i).is_some_and(|s| s.record.evicted.is_some() && s.committed) {
            return;
        }
        let witness = self
            .share
            .contents()
            .filter_map(|c| wire::decode_witness(c).ok().flatten())
            .map(|w| w.id.epoch)
            .max();
        let votes = [saved(0), saved(1), witness]
            .into_iter()
            .flatten()
            .filter(|e| *e >= epoch)
            .count();
        if votes < 2 && self.checks.forced != Some(i) {
            self.checks.broke(
                "I7",
                format!("node {i} went online in epoch {epoch} with {votes} of 3 votes"),
            );
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
