//! Handoff: the planned move of the service. It gives the service away only when it is drained, dismounted, and the copy
//! has inspected every log; until then it can be broken off without a loss. Before it begins, the target verifies its databases
//! ([`super::verify`]).

use super::Member;
use super::operator::Asker;
use super::stage::Stage;
use crate::io::{AddressKind, Reply};
use crate::op::Pending;
use ccr_contract::event::EventKind;
use ccr_contract::status::{CopyStatus, ServiceState};

/// How long the preferred member must have been well before the service goes back to it, in microseconds.
const FAILBACK_US: u64 = 20_000_000;
/// How long a handoff may take until it is given up, in microseconds.
pub(super) const HANDOFF_US: u64 = 30_000_000;

impl Member {
    /// Where it is configured, the service goes back to the first member: by a handoff, after a while without trouble.
    pub(super) fn fail_back(&mut self) {
        let first = self.config.members.first().map(|m| m.name.clone()).unwrap_or_default();
        let wanted = self.config.settings.failback && first != self.config.node;
        if !wanted || self.move_problem(&first, "failback").is_some() {
            self.service.preferred_well_since = None;
            return;
        }
        let since = *self.service.preferred_well_since.get_or_insert(self.ctx.now.boot_us);
        if self.service.verifying.is_none() && self.ctx.due(since + FAILBACK_US) {
            self.service.preferred_well_since = None;
            self.begin_move(first, "failback to the preferred member".into(), Asker::Nobody);
        }
    }

    /// Begins a handoff; the checks come first.
    pub(super) fn begin_move(&mut self, to: String, comment: String, asker: Asker) {
        let under_way = self
            .service
            .verifying
            .as_ref()
            .map(|v| format!("a move to {} is under way", v.to));
        if let Some(why) = under_way.or_else(|| self.move_problem(&to, &comment)) {
            self.report_refused(&to, &why);
            return self.answer(asker, Reply::Denied(why));
        }
        self.begin_verifying(to, comment, asker);
    }

    pub(super) fn move_problem(&self, to: &str, comment: &str) -> Option<String> {
        if !self.config.members.iter().any(|m| m.name == to) {
            return Some(format!("`{}` is not a member of this cluster", to.escape_debug()));
        }
        let state = self.service_state();
        if to == self.config.node {
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
        let Some(view) = self.cluster.member_heartbeat() else {
            return Some(format!("{to} is not up"));
        };
        for (g, store) in self.stores.iter().enumerate() {
            let status = view.groups.get(g).map_or(CopyStatus::ServiceDown, |v| v.status);
            if status != CopyStatus::Healthy {
                return Some(format!("the copy of {} on {to} is {status:?}, not Healthy", store.name));
            }
        }
        None
    }

    /// Waits until the copy has everything, then gives the service away; breaks off where that takes too long.
    pub(super) fn draining(&mut self, to: String, asker: Asker, since: u64) {
        for store in &mut self.stores {
            store.roll(&mut self.ctx);
        }
        let view = self.cluster.member_heartbeat();
        let healthy = view.is_some_and(|v| v.groups.iter().all(|g| g.status == CopyStatus::Healthy));
        if !healthy || self.ctx.due(since + HANDOFF_US) {
            // Nothing was given away yet: serve on.
            self.service.stage = Stage::Online;
            let why = if healthy {
                "the copy did not catch up"
            } else {
                "the copy is not Healthy any more"
            };
            self.report_refused(&to, why);
            return self.answer(asker, Reply::Denied(format!("{why}; the service stays here")));
        }
        let shipped = view.is_some_and(|v| {
            let mut pairs = self.stores.iter().zip(&v.groups);
            pairs.all(|(s, g)| g.inspected >= s.last().generation)
        });
        if shipped && self.stores.iter().all(crate::store::Store::is_drained) {
            let which = AddressKind::Service;
            self.ctx.address(Pending::Address(which, false), which, false);
            self.release(to, asker, since);
        }
    }

    /// Everything is closed, the copy has inspected it, and the address is on its way: the service is given away.
    pub(super) fn release(&mut self, to: String, asker: Asker, since: u64) {
        for store in &mut self.stores {
            store.dismount();
        }
        self.report_offline("handoff", true);
        self.service.end_appointment();
        self.service.stage = Stage::Released { to, asker, since };
        if let Some(ending) = &mut self.ending {
            ending.given = true;
        }
    }

    /// Waits until the new owner serves, and answers whoever asked for the move.
    pub(super) fn released(&mut self, to: &str, asker: Asker, since: u64) {
        let moved = self.cluster.record().owner == to;
        let online = self
            .cluster
            .member_heartbeat()
            .is_some_and(|v| v.service == ServiceState::Online);
        if moved && online {
            let ms = (self.ctx.now.boot_us - since) / 1000;
            self.ctx.event(EventKind::MoveDone {
                to: to.to_owned(),
                ms,
                done: true,
                epoch: self.cluster.record().owner_epoch,
            });
            self.service.stage = Stage::Off;
            return self.answer(
                asker,
                Reply::Done(format!("the service is online on {to} after {ms} ms")),
            );
        }
        let lost = !self.cluster.is_up() || !self.cluster.peer_up();
        if lost || self.ctx.due(since + 2 * HANDOFF_US) {
            self.service.stage = Stage::Off;
            self.answer(
                asker,
                Reply::Denied(format!("the service was released to {to}, which is not online yet")),
            );
        }
    }
}
