//! What happens without a cause: a copy that fails or is made anew (I12), and a loss of quorum or of a member, a fenced answer
//! or a takeover while nothing was in force (I13).

use super::world::World;
use ccr_contract::event::{CopyFault, EventKind, OnlineCause};
use std::collections::BTreeSet;

/// Causes, as the environment knows them.
#[derive(Debug, Default)]
pub struct Causes {
    /// Members and groups that hold something of the stream.
    had: BTreeSet<(usize, String)>,
    /// Members and groups of which a full copy may be made: an operator ordered it, or its history is another one.
    may_seed: BTreeSet<(usize, String)>,
    /// Of which one is being made.
    seeding: BTreeSet<(usize, String)>,
    /// Of which one was ordered while another one was being made: it comes after that.
    ordered_next: BTreeSet<(usize, String)>,
    /// When something was in force last, orders of operators too.
    trouble_at: u64,
    /// Who came online last.
    served: Option<usize>,
    /// The longest time after the end of everything in which what it caused may show.
    window_us: u64,
}

impl World {
    /// Something is, or was until now, in force.
    pub(super) fn trouble(&mut self) {
        self.causes.trouble_at = self.now;
    }

    /// Looks whether something is in force.
    pub(super) fn look_for_trouble(&mut self) {
        let machine = |m: &super::machine::Machine| {
            let d = &m.disk;
            let disk = d.capacity.is_some() || d.fail_next.is_some() || d.unreadable.is_some();
            !m.powered || m.node.is_none() || m.paused.is_some() || m.doomed.is_some() || disk
        };
        let network = !self.cuts.is_empty() || self.loss > 0 || self.delay_us > 2_000 || self.throttled;
        let waits = self.cut_at_answer.is_some() || self.delayed.is_some() || !self.waiting.is_empty();
        if network || waits || self.share.down || self.machines.iter().any(machine) {
            self.trouble();
        }
    }

    /// An operator seeds copies anew.
    pub(super) fn seed_ordered(&mut self, group: Option<&str>) {
        let groups = self.checks.groups.clone();
        for g in groups.into_iter().filter(|g| group.is_none_or(|only| only == g)) {
            for place in [(0, g.clone()), (1, g)] {
                if self.causes.seeding.contains(&place) {
                    self.causes.ordered_next.insert(place.clone());
                }
                self.causes.may_seed.insert(place);
            }
        }
    }

    pub(super) fn judge_cause(&mut self, i: usize, what: &EventKind) {
        if i > 1 {
            return;
        }
        match what {
            EventKind::LogClosed { group, .. } | EventKind::CopyInspected { group, .. } => {
                self.causes.had.insert((i, group.clone()));
            }
            EventKind::CopySeeded { group, .. } => {
                let place = (i, group.clone());
                self.causes.seeding.remove(&place);
                if !self.causes.ordered_next.remove(&place) {
                    self.causes.may_seed.remove(&place);
                }
                self.causes.had.insert(place);
            }
            EventKind::CopyDiverged { group, .. } | EventKind::CopyBeyondResync { group, .. } => {
                self.causes.may_seed.insert((i, group.clone()));
            }
            EventKind::CopySeeding { group, why } => {
                let fresh = !self.causes.had.contains(&(i, group.clone()));
                self.judge_seed(i, group, fresh, what, why);
                self.causes.seeding.insert((i, group.clone()));
            }
            EventKind::CopyFailed { group, why, fault, .. } => {
                // Nothing is copied anew because it could not be read once.
                let unread = (0..2).any(|i| self.checks.unread.contains(&i));
                let excused = unread || *fault == Some(CopyFault::DiskFull);
                self.judge_seed(i, group, excused, what, why);
            }
            EventKind::QuorumLost { why, epoch } | EventKind::MemberDown { why, epoch, .. } => {
                self.judge_calm(i, what, *epoch, why);
            }
            EventKind::Fenced { why, epoch } => self.judge_calm(i, what, *epoch, why),
            EventKind::OnlinePending { why, epoch }
                if *why != OnlineCause::Handoff && self.causes.served.is_some_and(|s| s != i) =>
            {
                self.judge_calm(i, what, *epoch, &why.to_string());
            }
            EventKind::Online { .. } | EventKind::PartiallyOnline { .. } => self.causes.served = Some(i),
            _ => {}
        }
    }

    fn judge_seed(&mut self, i: usize, group: &str, excused: bool, what: &EventKind, why: &str) {
        let place = (i, group.to_owned());
        let hurt = (0..2).any(|i| self.checks.is_hurt(i, group));
        if !hurt && !excused && !self.causes.may_seed.contains(&place) {
            let how = format!("node {i}: {} of {group} without a cause: {why}", what.name());
            self.checks.broke("I12", how);
        }
        self.causes.may_seed.insert(place);
    }

    fn judge_calm(&mut self, i: usize, what: &EventKind, epoch: u64, why: &str) {
        if self.causes.window_us == 0 {
            let s = &self.settings;
            let away = s.arbitration_delay_ms + 4 * s.witness_timeout_ms + s.lease_ms + 7_000;
            self.causes.window_us = 1_000 * (self.longest_detection_ms() + away).max(15_000);
        }
        self.look_for_trouble();
        let calm = self.now - self.causes.trouble_at;
        // A clock that drifts like none there is and a real-time clock of whole seconds disagree by more than a second.
        let drifts = matches!(what, EventKind::Fenced { .. }) && self.plan.drift_ppm >= 1_000;
        if calm > self.causes.window_us && !drifts {
            let how = format!(
                "node {i}: {} in epoch {epoch} ({why}) after {} s in which nothing was in force",
                what.name(),
                calm / 1_000_000
            );
            self.checks.broke("I13", how);
        }
    }
}
