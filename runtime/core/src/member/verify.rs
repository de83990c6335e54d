//! Before a planned move the target reads everything that it is to serve: a copy is not whole because nothing was asked of it.
//! The service goes on meanwhile. The active node asks how far the other one is, again and again; that one reads as fast as its
//! disk allows. What it finds refuses the move.

use super::operator::Asker;
use super::stage::Stage;
use super::{Member, source};
use crate::io::{ConnId, Effect, Reply};
use crate::wire::Msg;
use ccr_contract::event::EventKind;

/// Between two questions, in microseconds.
const ASK_US: u64 = 500_000;
/// How long the other member may be without progress, in microseconds.
const STALLED_US: u64 = 15_000_000;

/// A move that waits for the target's verification.
#[derive(Debug)]
pub(super) struct Verifying {
    pub to: String,
    pub comment: String,
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

impl Member {
    /// The checks have passed: the target verifies its databases.
    pub(super) fn begin_verifying(&mut self, to: String, comment: String, asker: Asker) {
        let now = self.ctx.now.boot_us;
        self.service.verifying = Some(Verifying {
            to,
            comment,
            asker,
            id: now,
            moved: now,
            ask_at: now,
            problem: None,
            done: None,
        });
        self.verifying();
    }

    /// Asks how far the target is; gives up where it does not go on.
    pub(super) fn verifying(&mut self) {
        let Some(v) = &self.service.verifying else { return };
        let (id, mut ask_at, moved) = (v.id, v.ask_at, v.moved);
        let now = self.ctx.now.boot_us;
        let problem = self.move_problem(&v.to, &v.comment);
        let since = problem.as_ref().map(|_| v.problem.unwrap_or(now));
        if since == Some(now) {
            ask_at = now;
        }
        if let Some(why) = problem.filter(|_| since.is_some_and(|at| self.ctx.due(at + ASK_US))) {
            return self.refuse_move(&why);
        }
        if let Some(v) = &mut self.service.verifying {
            v.problem = since;
        }
        if self.ctx.due(moved + STALLED_US) {
            return self.refuse_move("the other member does not go on with the verification of its databases");
        }
        if self.ctx.due(ask_at) {
            let next = now + ASK_US;
            self.ctx.wake_at(next);
            let peer = self.cluster.peer_name().to_owned();
            self.streams.send(&mut self.ctx, &peer, &Msg::Verify { id });
            if let Some(v) = &mut self.service.verifying {
                v.ask_at = next;
            }
        }
    }

    /// The move that waits will not be.
    pub(super) fn refuse_move(&mut self, why: &str) {
        let Some(v) = self.service.verifying.take() else { return };
        self.report_refused(&v.to, why);
        self.answer(v.asker, Reply::Denied(format!("{why}; the service stays here")));
    }

    /// The other member asks how far this one is with its verification; a new number begins one.
    pub(super) fn on_verify(&mut self, conn: ConnId, id: u64) {
        let known = self.verification == id && self.stores.iter().all(|s| s.verified().is_some());
        if !known {
            self.verification = id;
            self.stores.iter_mut().for_each(crate::store::Store::verify);
        }
        let each = self.stores.iter().filter_map(|s| Some((s, s.verified()?)));
        let (mut done, mut total, mut ended, mut fault) = (0, 0, true, None);
        for (store, v) in each {
            done += v.done;
            total += v.total;
            ended &= v.ended;
            fault = fault.or_else(|| v.fault.as_ref().map(|why| format!("{}: {why}", store.name)));
        }
        let msg = Msg::Verified {
            id,
            done,
            total,
            ended,
            fault,
        };
        source::send(&mut self.ctx, conn, &msg);
    }

    /// How far the target is.
    pub(super) fn on_verified(&mut self, id: u64, now: (u64, u64), ended: bool, fault: Option<&str>) {
        let Some(v) = self.service.verifying.as_mut().filter(|v| v.id == id) else {
            return;
        };
        if let Some(why) = fault {
            let to = v.to.clone();
            let why = format!("the copy on {to} is damaged ({why}): `reseed` it, then move");
            return self.refuse_move(&why);
        }
        if v.done != Some(now) {
            v.done = Some(now);
            v.moved = self.ctx.now.boot_us;
        }
        let possible = v.problem.is_none() && self.service.stage == Stage::Online;
        if ended
            && possible
            && let Some(v) = self.service.verifying.take()
        {
            self.begin_draining(v.to, &v.comment, v.asker, now.0);
        }
    }

    fn begin_draining(&mut self, to: String, comment: &str, asker: Asker, files: u64) {
        self.ctx.event(EventKind::MoveBegun {
            to: to.clone(),
            comment: comment.to_owned(),
            verified: Some(files),
            epoch: self.reported_epoch(),
        });
        // Clients are told to come back; what they were promised is on the disk.
        self.ctx.emit(Effect::CloseClients);
        self.clients.forget();
        self.service.stage = Stage::Draining {
            to,
            asker,
            since: self.ctx.now.boot_us,
        };
    }
}
