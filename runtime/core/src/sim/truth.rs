//! What is really so, and for how long it has been so, as only the environment can know: what I8 (bounded time) and I9
//! (truthful status) are judged against.

use super::disk::Kind;
use super::effects::SHARE_HOST;
use super::plan::What;
use super::world::{PRIVATE, PUBLIC, World};
use crate::cluster::arbitration::LONGEST_WAIT_US;
use crate::command::Command;
use ccr_contract::config::{Settings, Shipping};
use ccr_contract::event::EventKind;
use ccr_contract::status::{ClusterState, CopyStatus, ServiceState, Status, WitnessHealth};
use std::collections::BTreeMap;

/// One sampling period, with what a status may lag behind: a probe and its deadline, or two status probes and an answer
/// that is given up, in microseconds.
fn period_us(s: &Settings) -> u64 {
    let longest = (2 * s.witness_check_ms + 3_000).max(2 * s.status_probe_ms + 9_000);
    1_000 * longest
}
/// Longest time to hold the witness file where the share answers, in microseconds: an attempt from before it answered may
/// last its whole deadline, then come the longest wait and the answer to the next attempt.
fn arbitrate_us(s: &Settings) -> u64 {
    1_000 * s.witness_timeout_ms + LONGEST_WAIT_US + 500_000
}
/// Longest time from an appointment to mounted databases: the other one's last lease with what no clock shows, a salvage
/// that is given up, the logs that the database lacks. Beside that lease.
const MOUNT_US: u64 = 8_500_000;

/// A fact and since when it is one.
#[derive(Debug, Clone, Copy, Default)]
struct Since {
    is: bool,
    at: u64,
}

impl Since {
    fn set(&mut self, now: u64, is: bool) {
        if self.is != is {
            *self = Self { is, at: now };
        }
    }
    /// For how long it has been `is`; nothing when it is not.
    fn held(self, now: u64, is: bool) -> u64 {
        if self.is == is { now - self.at } else { 0 }
    }
}

/// How long the phases of failovers took, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Phases {
    /// From the silence of the other member to its removal.
    pub detect: Vec<u64>,
    /// From the first attempt to the witness file held.
    pub arbitrate: Vec<u64>,
    /// From the appointment to mounted databases.
    pub mount: Vec<u64>,
}

/// What is so of one member.
#[derive(Debug, Clone, Default)]
struct Truth {
    /// The daemon runs.
    runs: Since,
    /// The share answers it.
    share: Since,
    /// Heartbeats go both ways.
    hears: Since,
    /// Streams to the other member's daemon work.
    streams: Since,
    /// It has said that it serves, and lives.
    online: Since,
    /// It counts the other one as part of its cluster.
    believes: Since,
    arbitrates: Option<u64>,
    /// When the attempt began with which it opened the file.
    opened: Option<u64>,
    mounts: Option<u64>,
}

/// A group's history that counts.
#[derive(Debug, Clone, Default)]
struct History {
    epoch: u64,
    /// When generations were closed.
    closed: Vec<(u64, u64)>,
}

/// What is so of both members, and of the logs.
#[derive(Debug, Default)]
pub struct Truths {
    members: [Truth; 2],
    /// What was closed of each group.
    closed: BTreeMap<String, History>,
    /// Measured.
    pub phases: Phases,
}

impl Truths {
    /// A member said something.
    pub fn event(&mut self, now: u64, i: usize, what: &EventKind) {
        let other = self.members[1 - i.min(1)].runs;
        let Some(t) = self.members.get_mut(i) else { return };
        match what {
            EventKind::MemberUp { .. } | EventKind::ClusterJoined { .. } => t.believes.set(now, true),
            EventKind::MemberDown { .. } => {
                // A node that stood still begins to count when it goes on.
                let since = t.hears.at.max(t.runs.at).max(other.at);
                if t.believes.is && !t.hears.is {
                    self.phases.detect.push((now - since) / 1000);
                }
                t.believes.set(now, false);
            }
            EventKind::QuorumLost { .. } => {
                t.believes.set(now, false);
                t.arbitrates = None;
            }
            EventKind::ArbitrationBegin { .. } => t.arbitrates = Some(now),
            EventKind::ArbitrationWon { .. } => {
                let begun = t.opened.take();
                self.phases.arbitrate.extend(begun.map(|at| (now - at) / 1000));
            }
            EventKind::ArbitrationLost { .. } => t.arbitrates = None,
            EventKind::OnlinePending { .. } => t.mounts = Some(now),
            EventKind::Mounted { .. } => {
                let begun = t.mounts.take();
                self.phases.mount.extend(begun.map(|at| (now - at) / 1000));
            }
            EventKind::DialRefused { .. } => t.mounts = None,
            EventKind::Online { .. } | EventKind::PartiallyOnline { .. } => {
                // Without a database that can be mounted it is online in part.
                t.mounts = None;
                t.online.set(now, true);
            }
            EventKind::Offline { .. } => {
                t.mounts = None;
                t.online.set(now, false);
            }
            _ => {}
        }
    }
    /// A log was closed, or the first one of an appointment was opened: what came after it is another history.
    pub fn log(&mut self, now: u64, group: &str, epoch: u64, generation: u64, closed: bool) {
        let known = self.closed.entry(group.to_owned()).or_default();
        if epoch < known.epoch {
            return;
        }
        known.epoch = epoch;
        known.closed.retain(|(_, g)| *g < generation);
        if closed {
            known.closed.push((now, generation));
        }
    }
    /// A member uses another share: nothing is known of it yet.
    pub fn other_share(&mut self, now: u64, i: usize) {
        if let Some(t) = self.members.get_mut(i) {
            t.share.at = now;
        }
    }
    /// The witness file was opened by a member.
    pub fn opened(&mut self, i: usize) {
        if let Some(t) = self.members.get_mut(i) {
            t.opened = t.arbitrates.take();
        }
    }
    /// Whether a member has said that it serves, and lives.
    pub fn serves(&self, i: usize) -> bool {
        self.members[i].online.is
    }
    /// The daemon of a member ended.
    pub fn ended(&mut self, now: u64, i: usize) {
        let Some(t) = self.members.get_mut(i) else { return };
        t.online.set(now, false);
        t.believes.set(now, false);
        (t.arbitrates, t.mounts) = (None, None);
    }
}

impl World {
    /// Whether heartbeats get from each member to the other.
    fn both_ways(&self) -> bool {
        let direction = |a, b| self.passes(PUBLIC, a, b) || self.passes(PRIVATE, a, b);
        direction(0, 1) && direction(1, 0)
    }
    /// A heartbeat arrived: between two looks something got through.
    pub(super) fn heard(&mut self, i: usize) {
        if self.both_ways() {
            let now = self.now;
            self.truths.members[i].hears.set(now, true);
        }
    }

    /// Which members have said that they serve, and run.
    pub(super) fn serving_members(&self) -> [bool; 2] {
        [0, 1].map(|i| self.truths.members[i].online.is && self.truths.members[i].runs.is)
    }
    /// Whether a member has run without a pause since then.
    pub(super) fn has_run_since(&self, i: usize, at: u64) -> bool {
        let runs = self.truths.members[i].runs;
        runs.is && runs.at <= at
    }

    /// Since when both members run, hear each other, and can copy; now, where they do not.
    pub(super) fn calm_since(&self) -> u64 {
        let since = |s: Since| if s.is { s.at } else { self.now };
        let each = self
            .truths
            .members
            .iter()
            .map(|t| since(t.runs).max(since(t.hears)).max(since(t.streams)));
        let bad = self.loss > 0;
        each.max().filter(|_| !bad).unwrap_or(self.now)
    }

    /// Looks at what is so now. Asked for whenever something begins or ends that may not last.
    pub(super) fn look(&mut self) {
        let now = self.now;
        for i in 0..2 {
            let j = 1 - i;
            let passes = |n, a, b| self.passes(n, a, b);
            let share = self.reaches_share(i)
                && self.share_reaches(i)
                && self.kernel_runs(SHARE_HOST)
                && !self.share.down
                && !self.share.full;
            let (runs, other) = (self.runs(i), self.runs(j));
            let hears = other && self.both_ways();
            let both = |n| passes(n, i, j) && passes(n, j, i);
            let private = self.settings.shipping == Shipping::Any && both(PRIVATE);
            let streams = other && (both(PUBLIC) || private) && !self.throttled;
            let t = &mut self.truths.members[i];
            t.runs.set(now, runs);
            t.share.set(now, share);
            t.hears.set(now, hears);
            t.streams.set(now, streams);
            if !runs || !share {
                t.arbitrates = None;
            }
            if !runs {
                t.mounts = None;
                // A process that stands still while its open is answered uses it when it goes on.
                t.opened = t.opened.map(|_| now);
            }
        }
    }

    /// The longest time until a silent member is lost, with what operators set in this run.
    pub(super) fn longest_detection_ms(&self) -> u64 {
        let s = &self.settings;
        let asked = |key: &'static str| {
            let values = self.plan.steps.iter().filter_map(move |step| match &step.what {
                What::Heartbeat(ms) if key == "heartbeat_ms" => Some(*ms),
                What::Ask(_, Command::Set { key: k, value, .. }) if k == key => value.parse().ok(),
                _ => None,
            });
            values.max().unwrap_or(0)
        };
        let beat = s.heartbeat_ms.max(asked("heartbeat_ms"));
        (u64::from(s.node_tolerance).max(asked("node_tolerance")) + 1) * beat
    }

    /// I8: holds the phases that are under way against their limits.
    pub(super) fn check_phases(&mut self, settings: &Settings) {
        self.look();
        let now = self.now;
        let detect_us = (self.longest_detection_ms() + 1_500) * 1000;
        let arbitrate_us = arbitrate_us(settings);
        for i in 0..2 {
            let j = 1 - i;
            let t = &self.truths.members[i];
            let alive = t.runs.held(now, true);
            // What was under way to a node that stood still is answered when it goes on.
            let silent = t.hears.held(now, false).min(now - self.truths.members[j].runs.at);
            if t.believes.held(now, true).min(alive).min(silent) > detect_us {
                let how = format!(
                    "node {i} has not noticed for {} ms that node {j} is gone",
                    detect_us / 1000
                );
                return self.checks.broke("I8", how);
            }
            if let Some(at) = t.arbitrates
                && t.share.held(now, true).min(now - at) > arbitrate_us
            {
                let how = format!("node {i} has not got the witness file for {} ms", (now - at) / 1000);
                return self.checks.broke("I8", how);
            }
            if let Some(at) = t.mounts
                && alive.min(now - at) > MOUNT_US + 1_000 * settings.lease_ms.max(settings.witness_lease_ms)
            {
                let how = format!("node {i} has not mounted for {} ms", (now - at) / 1000);
                return self.checks.broke("I8", how);
            }
        }
    }

    /// I9: what member `i` says is what is so, or was so within one sampling period.
    pub(super) fn check_truth(&mut self, i: usize, status: &Status) {
        let period_us = period_us(&self.settings).max(1_000 * (self.longest_detection_ms() + 5_500));
        let (now, me) = (self.now, &self.truths.members[i]);
        let settled = |held: u64| held.min(me.runs.held(now, true)) > period_us;
        let health = status
            .cluster
            .as_ref()
            .and_then(|c| c.witness.as_ref())
            .map(|w| w.health);
        let mut lie = None;
        if settled(me.share.held(now, false)) && health == Some(WitnessHealth::Ok) {
            lie = Some("the witness is well, and the share has not answered for long".to_owned());
        }
        if settled(me.share.held(now, true)) && health != Some(WitnessHealth::Ok) {
            lie = Some(format!(
                "the witness is {health:?}, and the share has answered for long"
            ));
        }
        if let Some(s) = &status.service
            && matches!(s.state, ServiceState::Online | ServiceState::PartiallyOnline)
            && let Some(active) = &s.active
            && let Some(x) = super::MEMBERS.iter().position(|m| m == active)
            && settled(self.truths.members[x].online.held(now, false))
        {
            lie = Some(format!("{active} serves, and it has not for long"));
        }
        // Somebody answers for every copy, also for one that nobody could ask.
        if status.copies.len() != self.settings.groups.len() {
            lie = Some(format!("there are {} copies", status.copies.len()));
        }
        let evicted = status
            .cluster
            .as_ref()
            .is_some_and(|c| c.state == ClusterState::Stopped);
        let away = settled(self.truths.members[1 - i].runs.held(now, false));
        for c in &status.copies {
            let mine = c.node == status.node;
            let absent = matches!(c.status, CopyStatus::ServiceDown | CopyStatus::Disabled);
            if (mine && evicted && c.status != CopyStatus::Disabled) || (!mine && away && !absent) {
                lie = Some(format!("copy {} on {} is {:?}", c.group, c.node, c.status));
            }
        }
        for c in status.copies.iter().filter(|c| c.status == CopyStatus::Healthy) {
            // A node that stood still says what it knew until it has looked again.
            let other = self.truths.members[1 - i].runs;
            let dead = me.streams.held(now, false);
            if settled(dead) && settled(other.held(now, other.is)) {
                lie = Some(format!("copy {} is Healthy, and nothing can be copied", c.group));
            }
            let known = self.truths.closed.get(&c.group);
            let old = known.and_then(|k| {
                let old = k.closed.iter().filter(|(at, _)| at + period_us < now);
                old.map(|(_, g)| *g).max()
            });
            if let Some(closed) = old
                && settled(period_us + 1)
                && c.generated < closed
            {
                lie = Some(format!(
                    "copy {} is Healthy with {} generated, and {closed} was closed long ago",
                    c.group, c.generated
                ));
            }
        }
        if let Some(lie) = lie {
            self.checks.broke("I9", format!("node {i} says that {lie}"));
        }
    }

    /// I9: a copy that says that it is Healthy has no log of another history than the node that serves.
    pub(super) fn check_healthy(&mut self, i: usize, group: &str) {
        let j = 1 - i;
        if !self.serving_members()[j] || [i, j].iter().any(|m| self.checks.is_hurt(*m, group)) {
            return;
        }
        let Some(g) = self.checks.groups.iter().position(|name| name == group) else {
            return;
        };
        let (ours, theirs) = (&self.machines[i].disk, &self.machines[j].disk);
        let mut logs = ours
            .names()
            .filter(|n| Kind::of(n) == Kind::Closed && n.starts_with(&format!("E{g:02X}/")));
        let other = logs.find(|n| theirs.file(n).is_some_and(|log| ours.file(n) != Some(log)));
        if let Some(log) = other.cloned() {
            self.checks.broke(
                "I9",
                format!("node {i} says that copy {group} is Healthy, and {log} is not that of node {j}"),
            );
        }
    }

    /// I9: two members do not both say that they serve.
    pub(super) fn check_online(&mut self, says: &[Option<Status>]) {
        let online = |s: &Status| {
            let service = s.service.as_ref();
            service.is_some_and(|v| v.state == ServiceState::Online && v.active.as_deref() == Some(&s.node))
        };
        if says.iter().flatten().filter(|s| online(s)).count() > 1 {
            self.checks
                .broke("I9", "both members say that the service is Online there".into());
        }
    }
}
