//! Forced quorum: an operator makes a node go on alone, without a majority.
//!
//! It is recorded at the witness, at once where the witness can be seen, otherwise as soon as it can. A second one on the
//! other member is refused while that record, or a holder of the file, can be seen. A forced epoch begins far above what the
//! other side can have reached meanwhile, so that the forced node's record is the one that everybody takes over later. Where both
//! are forced, one after the other and without a witness, neither knows of the other one's epochs: so a forced one is the second
//! of the real-time clock, if that is more, and the later force counts as long as the clocks are about right. If they are not,
//! the hub fences the lower epoch, and it is given up when both hear each other: no two members share an epoch whatever the
//! clocks say ([`crate::record::EpochOwner`]). A regular majority, with the other member or with the witness, ends it.

use super::Cluster;
use crate::ctx::Ctx;
use crate::op::Pending;
use crate::wire::{Phase, WitnessFile};
use ccr_contract::event::EventKind;

/// How far a forced epoch is above every known one, at least.
const EPOCHS_AHEAD: u64 = 1_000;

/// An operator's force on this node.
#[derive(Debug, Default)]
pub(super) struct Force {
    /// It waits for what the witness says.
    pub requested: bool,
    /// The witness file says that the quorum was forced, until both members are there again.
    pub mark: bool,
    /// What came of it.
    outcome: Option<Result<String, String>>,
}

impl Cluster {
    /// Begins to force the quorum on this node. The outcome comes by [`Self::force_outcome`].
    pub fn force_quorum(&mut self, ctx: &mut Ctx<Pending>) -> Result<(), String> {
        match self.membership.phase() {
            Phase::Up => return Err("this node is in a cluster that has its quorum: there is nothing to force".into()),
            Phase::Evicted => return Err("this node was evicted: the other member must take it back".into()),
            Phase::Forming => {}
        }
        if self.peer_is_there(ctx) {
            return Err(format!(
                "{} is heard: the two of them form a cluster by themselves",
                self.peer.name
            ));
        }
        if !self.is_forming() || self.saving.is_some() || self.force.requested {
            return Err("this node is busy: try again".into());
        }
        if self.witness_path.is_none() {
            self.force_alone(ctx, "there is no witness");
            return Ok(());
        }
        self.force.requested = true;
        self.witness.attempt_now();
        Ok(())
    }

    /// What came of a force, once.
    pub fn force_outcome(&mut self) -> Option<Result<String, String>> {
        self.force.outcome.take()
    }

    /// Nobody keeps this node from it, as far as it can see; the witness is not seen.
    pub(super) fn force_alone(&mut self, ctx: &mut Ctx<Pending>, why: &str) {
        self.force.requested = false;
        self.lease.forced = true;
        self.claim_by_force(ctx, 0, why);
        self.force.outcome = Some(Ok(format!(
            "forced in epoch {}; {why}, so that nothing keeps the other member from the same",
            self.force_epoch()
        )));
    }

    /// The witness file was opened for a force: whether this node may go on with it.
    pub(super) fn force_with_witness(
        &mut self,
        ctx: &mut Ctx<Pending>,
        file: Option<&WitnessFile>,
    ) -> Result<(), String> {
        self.force.requested = false;
        let refusal = match file {
            Some(f) if f.cluster != self.name => Some(format!("the witness file belongs to cluster {}", f.cluster)),
            Some(f) => self.forced_elsewhere(f),
            None => None,
        };
        if let Some(why) = refusal {
            self.force.outcome = Some(Err(why.clone()));
            return Err(why);
        }
        self.claim_by_force(ctx, file.map_or(0, |f| f.id.epoch), "recorded at the witness");
        self.force.outcome = Some(Ok(format!(
            "forced in epoch {}, recorded at the witness",
            self.force_epoch()
        )));
        Ok(())
    }

    /// The witness says no: the other member has it.
    pub(super) fn force_refused(&mut self, why: &str) {
        self.force.requested = false;
        self.force.outcome = Some(Err(why.to_owned()));
    }

    /// Whether the file says that the other member was forced, without this node knowing of it.
    pub(super) fn forced_elsewhere(&self, file: &WitnessFile) -> Option<String> {
        let other = file.forced && file.writer != self.me && !self.stand().knows(&file.id);
        other.then(|| {
            format!(
                "the quorum was forced on {} in epoch {}, as the witness says",
                file.writer, file.id.epoch
            )
        })
    }

    /// A regular majority has followed.
    pub(super) fn end_force(&mut self) {
        let has_peer = self.membership.has_peer();
        if has_peer {
            self.force.mark = false;
        }
        if has_peer || self.witness.voted_for(&self.saved.record.id) {
            self.lease.forced = false;
        }
    }

    fn force_epoch(&self) -> u64 {
        self.saving.as_ref().map_or(self.epoch(), |s| s.record.id.epoch)
    }

    fn claim_by_force(&mut self, ctx: &mut Ctx<Pending>, highest_epoch: u64, why: &str) {
        self.force.mark = true;
        let floor = self.saved.record.id.clone();
        let ahead = highest_epoch.max(self.saved.highest_epoch) + EPOCHS_AHEAD;
        let mut record = self.claimed(floor, ahead.max(ctx.now.rtc_us / 1_000_000));
        // An appointment of before may be older than what the other side has answered with: this node serves in the forced epoch,
        // or in none.
        record.owner.clone_from(&self.me);
        record.owner_epoch = record.id.epoch;
        (record.clean, record.redeliver) = (false, true);
        self.save(ctx, record, false);
        let (epoch, why) = (self.force_epoch(), why.to_owned());
        ctx.event(EventKind::QuorumForced { epoch, why });
    }
}
