//! Before a planned move the target reads everything that it is to serve: a copy is not whole because nothing was asked of it.
//! The service goes on meanwhile. The active node asks how far the other one is, again and again; that one reads as fast as its
//! disk allows. What it finds refuses the move.

use super::{MoveOrder, Outcome, Round, Service, Stage};
use crate::io::Effect;
use crate::member::asker::Asker;
use crate::wire::Msg;
use ccr_contract::event::EventKind;

/// Between two questions, in microseconds.
const ASK_US: u64 = 500_000;
/// How long the other member may be without progress, in microseconds.
const STALLED_US: u64 = 15_000_000;

/// A move that waits for the target's verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub order: MoveOrder,
    pub asker: Asker,
    id: u64,
    /// When the other member said last that it has read more.
    moved: u64,
    ask_at: u64,
    /// Since when the move is not possible any more; the other member may still say why.
    problem: Option<u64>,
    /// Files read, and files to be read; nothing before the first answer.
    pub done: Option<(u64, u64)>,
}

impl Service {
    /// The checks have passed: the target verifies its databases.
    pub(super) fn begin_verifying(&mut self, r: &mut Round<'_>, order: MoveOrder, asker: Asker) {
        let now = r.ctx.now.boot_us;
        self.stage = Stage::Verifying(Verification {
            order,
            asker,
            id: now,
            moved: now,
            ask_at: now,
            problem: None,
            done: None,
        });
        self.verifying(r);
    }

    /// Asks how far the target is; gives up where it does not go on.
    pub(super) fn verifying(&mut self, r: &mut Round<'_>) {
        let Stage::Verifying(v) = &self.stage else { return };
        let now = r.ctx.now.boot_us;
        let problem = self.move_problem(&r.cluster, r.groups, &v.order);
        let since = problem.as_ref().map(|_| v.problem.unwrap_or(now));
        if let Some(why) = problem.filter(|_| since.is_some_and(|at| r.ctx.due(at + ASK_US))) {
            return self.refuse_move(r, &why);
        }
        if r.ctx.due(v.moved + STALLED_US) {
            return self.refuse_move(
                r,
                "the other member does not go on with the verification of its databases",
            );
        }
        let Stage::Verifying(v) = &mut self.stage else { return };
        v.problem = since;
        if since == Some(now) || r.ctx.due(v.ask_at) {
            v.ask_at = now + ASK_US;
            r.ctx.wake_at(v.ask_at);
            r.streams.send(r.ctx, r.cluster.peer, &Msg::Verify { id: v.id });
        }
    }

    /// The move that waits will not be; the service goes on.
    fn refuse_move(&mut self, r: &mut Round<'_>, why: &str) {
        if let Stage::Verifying(_) = self.stage
            && let Stage::Verifying(v) = std::mem::replace(&mut self.stage, Stage::Online)
        {
            self.refuse(r, v, why);
        }
    }
    pub(super) fn refuse(&self, r: &mut Round<'_>, v: Verification, why: &str) {
        self.report_refused(r, &v.order.to, why);
        v.asker.deny(r.ctx, format!("{why}; the service stays here"));
    }

    /// How far the target is.
    pub fn on_verified(&mut self, r: &mut Round<'_>, id: u64, now: (u64, u64), ended: bool, fault: Option<&str>) {
        let Stage::Verifying(v) = &mut self.stage else { return };
        if v.id != id {
            return;
        }
        if let Some(why) = fault {
            let why = format!("the copy on {} is damaged ({why}): `reseed` it, then move", v.order.to);
            return self.refuse_move(r, &why);
        }
        if v.done != Some(now) {
            v.done = Some(now);
            v.moved = r.ctx.now.boot_us;
        }
        if ended && v.problem.is_none() {
            self.begin_draining(r, now.0);
        }
    }

    fn begin_draining(&mut self, r: &mut Round<'_>, files: u64) {
        let epoch = self.reported_epoch(&r.cluster);
        let Stage::Verifying(v) = &self.stage else { return };
        let (order, asker) = (v.order.clone(), v.asker.clone());
        let to = order.to;
        r.ctx.event(EventKind::MoveBegun {
            to: to.clone(),
            comment: order.comment,
            verified: Some(files),
            epoch,
        });
        // Clients are told to come back; what they were promised is on the disk.
        r.ctx.emit(Effect::CloseClients);
        r.outcomes.push(Outcome::ClientsCut);
        let since = r.ctx.now.boot_us;
        self.stage = Stage::Draining { to, asker, since };
    }
}
