//! The daemon is told to end: an upgrade, `systemctl stop` or `restart`, the shutdown of its machine. What it has acknowledged goes
//! to the other member first: the open log is closed and shipped as at an operator's stop, and where the copy is Healthy the
//! service is handed over as by a move, and the Cluster Group with it. What cannot be done in [`END_US`] is left undone, and told.

use super::Member;
use super::operator::Asker;
use super::stage::Stage;
use crate::command::GroupName;
use crate::io::{END_US, Effect, Reply};
use ccr_contract::event::EventKind;
use ccr_contract::status::ServiceState;

/// A node that was told to end.
#[derive(Debug)]
pub(super) struct Ending {
    /// When it ends, whatever is not done.
    until: u64,
    /// The epoch in which it was up when it was told to; 0 where it was not.
    served: u64,
    /// Whether the other member has all that was acknowledged in that epoch.
    pub(super) given: bool,
    /// Whether the Cluster Group was moved away, or that was tried.
    moved: bool,
}

impl Member {
    /// The process shall end. Told twice, it ends no sooner.
    pub(super) fn begin_end(&mut self) {
        let until = self.ctx.now.boot_us + END_US;
        let (served, given) = match self.service.stage {
            Stage::Online | Stage::Draining { .. } | Stage::Closing { .. } => (self.service.epoch(), false),
            Stage::Released { .. } | Stage::Shipped => (self.service.last_used_epoch, true),
            _ => (0, false),
        };
        self.ending.get_or_insert(Ending {
            until,
            served,
            given,
            moved: false,
        });
    }

    /// Where the service is up, it goes offline in order; where it was only about to be, nothing was acknowledged yet.
    pub(super) fn drive_ending(&mut self) {
        if self.ending.is_none() || !self.cluster.is_up() {
            return;
        }
        match self.service.stage {
            Stage::Online => {
                // Nothing is verified first: whatever that finds, the other one is to serve when this one is gone.
                if let Some(waits) = self.service.verifying.take() {
                    let why = "the daemon ends, and gives the service away by itself".to_owned();
                    self.answer(waits.asker, Reply::Denied(why));
                }
                let to = self.cluster.peer_name().to_owned();
                let comment = format!("ccrd ends on {}", self.config.node);
                let (verified, epoch) = (None, self.reported_epoch());
                self.ctx.event(EventKind::MoveBegun {
                    to,
                    comment,
                    verified,
                    epoch,
                });
                self.begin_closing();
            }
            Stage::Waiting | Stage::Salvaging { .. } | Stage::Mounting | Stage::Address | Stage::Ready => {
                self.go_offline("the daemon ends");
            }
            _ => {}
        }
    }

    /// Ends the node as soon as there is nothing left to do for it, or no time.
    pub(super) fn drive_end(&mut self) {
        let Some(Ending {
            until, served, given, ..
        }) = self.ending
        else {
            return;
        };
        let late = self.ctx.due(until);
        let busy = self.service.is_engaged()
            || self.service.is_released()
            || (self.service.stage == Stage::Shipped && self.cluster.peer_up())
            || self.is_taken_from(served)
            || self.leaves_the_cluster_group();
        if busy && !late {
            return;
        }
        let why = match () {
            () if served == 0 => "nothing was served here",
            () if given => "the other member has everything",
            () => "the other member may lack what was acknowledged here: it is on this node's disk",
        };
        self.ctx.event(EventKind::Ended {
            served,
            given,
            late,
            why: why.to_owned(),
            epoch: self.reported_epoch(),
        });
        self.halted = true;
        self.ctx.emit(Effect::CloseClients);
        self.ctx.emit(Effect::Ended);
    }

    /// Whether the other member, which was appointed meanwhile, still fetches what this one has closed.
    fn is_taken_from(&self, served: u64) -> bool {
        let record = self.cluster.record();
        let view = self.cluster.member_heartbeat();
        let lacks = |v: &crate::wire::Heartbeat| {
            let mut pairs = self.stores.iter().zip(&v.groups);
            v.service != ServiceState::Online && !pairs.all(|(s, g)| g.inspected >= s.last().generation)
        };
        served != 0 && record.owner != self.config.node && view.is_some_and(lacks)
    }

    /// Moves the Cluster Group away, so that the other member looks for the witness's vote before it misses this one's.
    fn leaves_the_cluster_group(&mut self) -> bool {
        let Some(ending) = self.ending.as_mut().filter(|_| self.cluster.peer_up()) else {
            return false;
        };
        if ending.moved || !self.cluster.is_leader() {
            return ending.moved && !self.cluster.committed();
        }
        if self.cluster.committed() {
            ending.moved = true;
            let to = self.cluster.peer_name().to_owned();
            self.move_group(Asker::Nobody, GroupName::Cluster, &to);
        }
        true
    }
}
