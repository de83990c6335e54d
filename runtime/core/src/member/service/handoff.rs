//! Handoff: the planned move of the service. It gives the service away only when it is drained, dismounted, and the copy
//! has inspected every log; until then it can be broken off without a loss. Before it begins, the target verifies its databases
//! ([`super::verify`]).

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

impl Service {
    /// Where it is configured, the service goes back to the first member: by a handoff, after a while without trouble.
    pub(super) fn fail_back(&mut self, r: &mut Round<'_>) {
        let first = self.members.first().cloned().unwrap_or_default();
        let wanted = self.failback && first != r.cluster.me;
        if !wanted || self.move_problem(&r.cluster, r.groups, &first, "failback").is_some() {
            self.preferred_well_since = None;
            return;
        }
        let since = *self.preferred_well_since.get_or_insert(r.ctx.now.boot_us);
        if self.stage == Stage::Online && r.ctx.due(since + FAILBACK_US) {
            self.preferred_well_since = None;
            self.begin_move(r, first, "failback to the preferred member".into(), Asker::Nobody);
        }
    }

    /// Begins a handoff; the checks come first.
    pub fn begin_move(&mut self, r: &mut Round<'_>, to: String, comment: String, asker: Asker) {
        let under_way = match &self.stage {
            Stage::Verifying(v) => Some(format!("a move to {} is under way", v.to)),
            _ => None,
        };
        if let Some(why) = under_way.or_else(|| self.move_problem(&r.cluster, r.groups, &to, &comment)) {
            self.report_refused(r, &to, &why);
            return asker.deny(r.ctx, why);
        }
        self.begin_verifying(r, to, comment, asker);
    }

    /// Why the service cannot be moved now.
    pub(super) fn move_problem(
        &self,
        cluster: &Snapshot<'_>,
        groups: &Groups,
        to: &str,
        comment: &str,
    ) -> Option<String> {
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
        if comment.trim().is_empty() {
            return Some("a comment is mandatory: why is the service moved?".into());
        }
        if state != ServiceState::Online {
            return Some(format!("the service is {state:?}, not Online"));
        }
        let Some(view) = cluster.member_heartbeat() else {
            return Some(format!("{to} is not up"));
        };
        groups.stores().zip(0..).find_map(|(store, g): (_, usize)| {
            let status = view.groups.get(g).map_or(CopyStatus::ServiceDown, |v| v.status);
            let unwell = status != CopyStatus::Healthy;
            unwell.then(|| format!("the copy of {} on {to} is {status:?}, not Healthy", store.name))
        })
    }

    /// Waits until the copy has everything, then gives the service away; breaks off where that takes too long.
    pub(super) fn draining(&mut self, r: &mut Round<'_>, to: String, asker: Asker, since: u64) {
        r.groups.roll(r.ctx);
        let view = r.cluster.member_heartbeat();
        let healthy = view.is_some_and(|v| v.groups.iter().all(|g| g.status == CopyStatus::Healthy));
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
        let shipped = view.is_some_and(|v| {
            let mut pairs = r.groups.stores().zip(&v.groups);
            pairs.all(|(s, g)| g.inspected >= s.last().generation)
        });
        if shipped && r.groups.are_drained() {
            let which = AddressKind::Service;
            r.ctx.address(Pending::Address(which, false), which, false);
            self.release(r, to, asker, since);
        }
    }

    /// Everything is closed, the copy has inspected it, and the address is on its way: the service is given away.
    pub(super) fn release(&mut self, r: &mut Round<'_>, to: String, asker: Asker, since: u64) {
        r.groups.dismount();
        self.report_offline(r, "handoff", true);
        self.end_appointment();
        self.stage = Stage::Released { to, asker, since };
        r.outcomes.push(Outcome::WentOffline { given: true });
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
