//! Handoff: the planned move of the service. It gives the service away only when it is drained, dismounted, and the copy
//! has inspected every log; until then it can be broken off without a loss. Before it begins, the target verifies its databases
//! ([`super::verify`]).

use super::orderly::shipped;
use super::{Outcome, Round, Service, Stage};
use crate::cluster::snapshot::Snapshot;
use crate::io::{AddressKind, Reply};
use crate::member::asker::Asker;
use crate::member::groups::Groups;
use crate::op::Pending;
use ccr_contract::event::EventKind;
use ccr_contract::status::{CopyStatus, ServiceState};

/// How long the preferred member must have been well before the service goes back to it, in microseconds.
const FAILBACK_US: u64 = 20_000_000;
/// How long a handoff may take until it is given up, in microseconds.
pub const HANDOFF_US: u64 = 30_000_000;

/// A planned move that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveOrder {
    /// The member that shall serve.
    pub to: String,
    /// Why.
    pub comment: String,
    /// Although a database is dismounted.
    pub ignore_dismounted: bool,
}

impl MoveOrder {
    /// Of a policy: with all databases.
    pub(super) fn of(to: String, comment: &str) -> Self {
        Self {
            to,
            comment: comment.to_owned(),
            ignore_dismounted: false,
        }
    }
}

impl Service {
    /// Where it is configured, the service goes back to the first member: by a handoff, after a while without trouble.
    pub(super) fn fail_back(&mut self, r: &mut Round<'_>) {
        let first = self.members.first().cloned().unwrap_or_default();
        let wanted = self.failback && first != r.cluster.me;
        let order = MoveOrder::of(first, "failback to the preferred member");
        if !wanted || self.move_problem(&r.cluster, r.groups, &order).is_some() {
            self.preferred_well_since = None;
            return;
        }
        let since = *self.preferred_well_since.get_or_insert(r.ctx.now.boot_us);
        if self.stage == Stage::Online && r.ctx.due(since + FAILBACK_US) {
            self.preferred_well_since = None;
            self.begin_move(r, order, Asker::Nobody);
        }
    }

    /// Begins a handoff; the checks come first.
    pub fn begin_move(&mut self, r: &mut Round<'_>, order: MoveOrder, asker: Asker) {
        let problem = self.move_under_way();
        if let Some(why) = problem.or_else(|| self.move_problem(&r.cluster, r.groups, &order)) {
            self.report_refused(r, &order.to, &why);
            return asker.deny(r.ctx, why);
        }
        self.begin_verifying(r, order, asker);
    }

    /// Whether it would begin.
    pub fn validate_move(&self, r: &mut Round<'_>, order: &MoveOrder) -> Reply {
        let problem = self.move_under_way();
        match problem.or_else(|| self.move_problem(&r.cluster, r.groups, order)) {
            Some(why) => Reply::Denied(why),
            None => Reply::Unchanged(format!(
                "nothing stands in the way of a move to {}; it would verify its databases first",
                order.to
            )),
        }
    }

    fn move_under_way(&self) -> Option<String> {
        match &self.stage {
            Stage::Verifying(v) => Some(format!("a move to {} is under way", v.order.to)),
            _ => None,
        }
    }

    /// Why the service cannot be moved now.
    pub(super) fn move_problem(&self, cluster: &Snapshot<'_>, groups: &Groups, order: &MoveOrder) -> Option<String> {
        let to = &order.to;
        if !self.members.iter().any(|m| m == to) {
            return Some(format!("`{}` is not a member of this cluster", to.escape_debug()));
        }
        let state = self.state(cluster);
        if to == cluster.me {
            return Some(match state {
                ServiceState::Online | ServiceState::PartiallyOnline => format!("the service is on {to} already"),
                _ => format!("the service belongs to {to} already, and is {state:?}"),
            });
        }
        if order.comment.trim().is_empty() {
            return Some("a comment is mandatory: why is the service moved?".into());
        }
        match state {
            ServiceState::Online => {}
            ServiceState::PartiallyOnline if order.ignore_dismounted => {}
            ServiceState::PartiallyOnline => {
                return Some("a database is dismounted: mount it first, or move with --ignore-dismounted".into());
            }
            _ => return Some(format!("the service is {state:?}, not Online")),
        }
        let Some(view) = cluster.member_heartbeat() else {
            return Some(format!("{to} is not up"));
        };
        groups
            .stores()
            .zip(0..)
            .filter(|(s, _)| s.mounted())
            .find_map(|(store, g): (_, usize)| {
                let status = view.groups.get(g).map_or(CopyStatus::ServiceDown, |v| v.status);
                let unwell = status != CopyStatus::Healthy;
                unwell.then(|| format!("the copy of {} on {to} is {status:?}, not Healthy", store.name))
            })
    }

    /// Waits until the copy has everything, then gives the service away; breaks off where that takes too long.
    pub(super) fn draining(&mut self, r: &mut Round<'_>, to: String, asker: Asker, since: u64) {
        r.groups.roll(r.ctx);
        // A database that is dismounted is left as it is: the operator knows.
        let (healthy, shipped) = shipped(r);
        if !healthy || r.ctx.due(since + HANDOFF_US) {
            // Nothing was given away yet: serve on.
            self.stage = Stage::Online;
            let why = if healthy {
                "the copy did not catch up"
            } else {
                "the copy is not Healthy any more"
            };
            self.report_refused(r, &to, why);
            return asker.deny(r.ctx, format!("{why}; the service stays here"));
        }
        if shipped && r.groups.are_drained() {
            let which = AddressKind::Service;
            r.ctx.address(Pending::Address(which, false), which, false);
            self.release(r, to, asker, since);
        }
    }

    /// What is mounted is closed, the copy has inspected it, and the address is on its way: the service is given away. Of a database
    /// that is dismounted the copy may lack something: then the new owner mounts as after a failover.
    pub(super) fn release(&mut self, r: &mut Round<'_>, to: String, asker: Asker, since: u64) {
        let whole = !self.partially();
        r.groups.dismount();
        self.report_offline(r, "handoff", whole);
        self.end_appointment();
        self.stage = Stage::Released {
            to,
            asker,
            since,
            whole,
        };
        r.outcomes.push(Outcome::WentOffline { given: whole });
    }

    /// Waits until the new owner serves, and answers whoever asked for the move.
    pub(super) fn released(&mut self, r: &mut Round<'_>, to: &str, asker: Asker, since: u64) {
        let moved = r.cluster.record.owner == to;
        let view = r.cluster.member_heartbeat();
        if moved && view.is_some_and(|v| v.service == ServiceState::Online) {
            let ms = (r.ctx.now.boot_us - since) / 1000;
            r.ctx.event(EventKind::MoveDone {
                to: to.to_owned(),
                ms,
                done: true,
                epoch: r.cluster.record.owner_epoch,
            });
            self.stage = Stage::Off;
            let text = format!("the service is online on {to} after {ms} ms");
            return asker.answer(r.ctx, Reply::Done(text));
        }
        let lost = !r.cluster.up || !r.cluster.peer_up;
        if lost || r.ctx.due(since + 2 * HANDOFF_US) {
            self.stage = Stage::Off;
            asker.deny(
                r.ctx,
                format!("the service was released to {to}, which is not online yet"),
            );
        }
    }
}
