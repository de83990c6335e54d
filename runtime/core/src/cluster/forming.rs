//! Forming a cluster: two members that hear each other agree on who leads, and on a record that goes on from what both know.

use super::Cluster;
use crate::ctx::Ctx;
use crate::op::Pending;
use crate::record;
use crate::wire::{Heartbeat, Phase};
use ccr_contract::event::EventKind;
use record::Record;

impl Cluster {
    pub(super) fn drive_forming(&mut self, ctx: &mut Ctx<Pending>) {
        if self.single_member && self.saving.is_none() && self.saved.committed {
            return self.become_up(ctx, |epoch| EventKind::ClusterFormed { epoch });
        }
        let there = self.peer_is_there(ctx);
        if !there || self.saving.is_some() {
            return;
        }
        self.isolated_since = ctx.now.boot_us;
        let Some(view) = self.peer.view.clone() else { return };
        match view.phase {
            Phase::Up => {
                let mine = &self.saved.record.id;
                if let Some(record) = self.offered(&view) {
                    self.save(ctx, record, true);
                } else if view.id == *mine && view.member == Some(self.incarnation) {
                    if self.saved.committed {
                        self.become_up(ctx, |epoch| EventKind::ClusterJoined { epoch });
                        self.peer.member = true;
                        self.peer.was_up = true;
                    } else {
                        let record = self.saved.record.clone();
                        self.save(ctx, record, true);
                    }
                }
            }
            Phase::Forming if self.leads(&view) => {
                let mine = &self.saved.record.id;
                let claimed = mine.by == self.me && (!self.saved.committed || view.id == *mine);
                // Two claims of one epoch are not ordered: neither would be agreed to.
                let clash = view.id.epoch == mine.epoch && view.id.by != mine.by;
                if !claimed || clash || view.highest_epoch > mine.epoch {
                    self.claim(ctx, view.id.clone(), view.highest_epoch);
                }
            }
            Phase::Forming => {
                if let Some(record) = self.offered(&view).filter(|r| r.id.by == view.from) {
                    self.save(ctx, record, true);
                }
            }
            Phase::Evicted => {}
        }
    }

    /// The other member's record, where this node may agree to it. What may not count yet must come after this node's own: two
    /// nodes that each took over what the other one is just giving up would both believe that a majority has it.
    pub(super) fn offered(&self, view: &Heartbeat) -> Option<Record> {
        let mine = &self.saved.record.id;
        let record = view.record.as_ref().filter(|r| r.id == view.id && r.id != *mine)?;
        let later = view.committed || record.id.newer_than(mine);
        (later && view.last_committed.covers_agreed(&self.saved.last_committed)).then(|| record.clone())
    }

    /// Whether the other member is heard, and one with which a cluster could be formed.
    pub(super) fn peer_is_there(&self, ctx: &mut Ctx<Pending>) -> bool {
        let evicted = self.peer.view.as_ref().is_some_and(|v| v.phase == Phase::Evicted);
        !evicted && !self.peer_lost(ctx)
    }

    /// Of two nodes that look for a cluster, the one that knows more leads; of two equal ones, the first in the list.
    pub(super) fn leads(&self, view: &Heartbeat) -> bool {
        let (mine, theirs) = (self.saved.last_committed.rank(), view.last_committed.rank());
        // A follower that has just saved the leader's record holds the same id, and follows on.
        if self.saved.record.id == view.id && !view.id.is_fresh() {
            return view.id.by == self.me || (view.id.by != view.from && self.index == 0);
        }
        mine > theirs || (mine == theirs && self.index == 0)
    }

    /// Begins a new epoch with this node as leader.
    pub(super) fn claim(&mut self, ctx: &mut Ctx<Pending>, floor: record::RecordId, highest_epoch: u64) {
        let record = self.claimed(floor, highest_epoch);
        self.save(ctx, record, false);
    }
    pub(super) fn claimed(&self, mut floor: record::RecordId, highest_epoch: u64) -> Record {
        floor.epoch = floor.epoch.max(highest_epoch).max(self.saved.highest_epoch);
        let mut record = self.saved.record.claimed_by(&self.epoch_owner, &floor);
        if record.owner.is_empty() {
            record.owner.clone_from(&self.me);
        }
        record
    }
}
