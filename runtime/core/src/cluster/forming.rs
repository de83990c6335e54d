//! Forming a cluster: two members that hear each other agree on who leads, and on a record that goes on from what both know.

use super::membership::PeerMembership;
use super::{Cluster, votes};
use crate::ctx::Ctx;
use crate::op::Pending;
use crate::record;
use crate::wire::{Heartbeat, Phase};
use ccr_contract::event::EventKind;
use record::Record;

impl Cluster {
    pub(super) fn drive_forming(&mut self, ctx: &mut Ctx<Pending>) {
        if self.electorate.is_one_member() && self.saving.is_none() && self.saved.committed {
            return self.become_up(ctx, PeerMembership::Apart, |epoch| EventKind::ClusterFormed { epoch });
        }
        let there = self.peer_is_there(ctx);
        if !there || self.saving.is_some() {
            return;
        }
        self.membership.not_alone(ctx.now.boot_us);
        let Some(view) = self.peer.view.clone() else { return };
        match view.phase {
            Phase::Up => {
                let mine = &self.saved.record.id;
                if let Some(record) = self.offered(&view) {
                    self.save(ctx, record, true);
                } else if view.id == *mine && view.member == Some(self.incarnation) {
                    if self.saved.committed {
                        self.become_up(ctx, PeerMembership::Up, |epoch| EventKind::ClusterJoined { epoch });
                    } else {
                        let record = self.saved.record.clone();
                        self.save(ctx, record, true);
                    }
                }
            }
            Phase::Forming if self.leads(&view) => {
                if votes::must_claim(&self.me, self.stand(), stand_of(&view), view.highest_epoch) {
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

    /// The other member's record, where this node may agree to it.
    pub(super) fn offered(&self, view: &Heartbeat) -> Option<Record> {
        let record = view.record.as_ref().filter(|r| r.id == view.id)?;
        votes::agrees(self.stand(), stand_of(view)).then(|| record.clone())
    }

    /// Whether the other member is heard, and one with which a cluster could be formed.
    pub(super) fn peer_is_there(&self, ctx: &mut Ctx<Pending>) -> bool {
        let evicted = self.peer.view.as_ref().is_some_and(|v| v.phase == Phase::Evicted);
        !evicted && !self.peer_lost(ctx)
    }

    /// Whether this node leads, of two that look for a cluster.
    pub(super) fn leads(&self, view: &Heartbeat) -> bool {
        let (ours, theirs) = ((self.me.as_str(), self.stand()), (view.from.as_str(), stand_of(view)));
        votes::leads(ours, theirs, self.index == 0)
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

/// What the other member has of the record.
fn stand_of(view: &Heartbeat) -> votes::Stand<'_> {
    votes::Stand {
        id: &view.id,
        committed: view.committed,
        last_committed: &view.last_committed,
    }
}
