//! What happens without a cause: a copy that fails or is made anew (I12), and a loss of quorum or of a member, a fenced answer
//! or a takeover while nothing was in force (I13).

use super::check::{number, text};
use super::world::World;
use ccr_contract::event::{NodeEvent, kind};
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

    pub(super) fn judge_cause(&mut self, i: usize, e: &NodeEvent) {
        if i > 1 {
            return;
        }
        let group = text(e, "group").to_owned();
        let place = (i, group.clone());
        match e.kind.as_str() {
            kind::LOG_CLOSED | kind::COPY_INSPECTED => {
                self.causes.had.insert(place);
            }
            kind::COPY_SEEDED => {
                self.causes.seeding.remove(&place);
                if !self.causes.ordered_next.remove(&place) {
                    self.causes.may_seed.remove(&place);
                }
                self.causes.had.insert(place);
            }
            kind::COPY_DIVERGED => {
                self.causes.may_seed.insert(place);
            }
            kind::COPY_SEEDING | kind::COPY_FAILED => {
                let seeds = e.kind == kind::COPY_SEEDING;
                // Nothing is copied anew because it could not be read once.
                let unread = |i| !seeds && self.checks.unread.contains(&i);
                let hurt = (0..2).any(|i| self.checks.is_hurt(i, &group) || unread(i));
                let fresh = seeds && !self.causes.had.contains(&place);
                if !hurt && !fresh && !self.causes.may_seed.contains(&place) && !text(e, "why").contains("full") {
                    let how = format!("node {i}: {} of {group} without a cause: {}", e.kind, text(e, "why"));
                    self.checks.broke("I12", how);
                }
                if seeds {
                    self.causes.seeding.insert(place.clone());
                }
                self.causes.may_seed.insert(place);
            }
            kind::QUORUM_LOST | kind::MEMBER_DOWN | kind::FENCED => self.judge_calm(i, e),
            kind::ONLINE_PENDING if text(e, "why") != "handoff" && self.causes.served.is_some_and(|s| s != i) => {
                self.judge_calm(i, e);
            }
            kind::ONLINE | kind::PARTIALLY_ONLINE => self.causes.served = Some(i),
            _ => {}
        }
    }

    fn judge_calm(&mut self, i: usize, e: &NodeEvent) {
        if self.causes.window_us == 0 {
            let s = &self.settings;
            let away = s.arbitration_delay_ms + 4 * s.witness_timeout_ms + s.lease_ms + 7_000;
            self.causes.window_us = 1_000 * (self.longest_detection_ms() + away).max(15_000);
        }
        self.look_for_trouble();
        let calm = self.now - self.causes.trouble_at;
        // A clock that drifts like none there is and a real-time clock of whole seconds disagree by more than a second.
        let drifts = e.kind == kind::FENCED && self.plan.drift_ppm >= 1_000;
        if calm > self.causes.window_us && !drifts {
            let how = format!(
                "node {i}: {} in epoch {} ({}) after {} s in which nothing was in force",
                e.kind,
                number(e, "epoch"),
                text(e, "why"),
                calm / 1_000_000
            );
            self.checks.broke("I13", how);
        }
    }
}
