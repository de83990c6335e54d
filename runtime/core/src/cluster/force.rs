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
    request: Request,
    quorum: ForcedQuorum,
}

/// What became of the order.
#[derive(Debug, Default)]
enum Request {
    /// There is none.
    #[default]
    None,
    /// It waits for what the witness says.
    Waits,
    /// It was carried out, or refused, and whoever gave it was not told yet.
    Decided(Result<String, String>),
}

/// How far the cluster rests on a force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ForcedQuorum {
    /// Not at all.
    #[default]
    No,
    /// The witness file says that the quorum was forced, until both members are there again.
    Marked,
    /// That, and the force stands in for a second vote, until there is one, or the quorum is lost.
    StandsIn,
}

impl Force {
    /// Whether an order waits for the witness.
    pub fn is_requested(&self) -> bool {
        matches!(self.request, Request::Waits)
    }
    /// Whether the witness file says that the quorum was forced.
    pub fn is_marked(&self) -> bool {
        self.quorum != ForcedQuorum::No
    }
    /// Whether it stands in for a second vote.
    pub fn stands_in(&self) -> bool {
        self.quorum == ForcedQuorum::StandsIn
    }
    fn decided(&mut self, outcome: Result<String, String>) {
        self.request = Request::Decided(outcome);
    }
    fn take_outcome(&mut self) -> Option<Result<String, String>> {
        match std::mem::take(&mut self.request) {
            Request::Decided(outcome) => Some(outcome),
            other => {
                self.request = other;
                None
            }
        }
    }
    /// Both members are there, or a second vote is.
    fn regular(&mut self, has_peer: bool, voted: bool) {
        self.quorum = match self.quorum {
            _ if has_peer => ForcedQuorum::No,
            ForcedQuorum::StandsIn if voted => ForcedQuorum::Marked,
            quorum => quorum,
        };
    }
    /// There is no majority any more, and nothing that stands in for one.
    pub fn quorum_lost(&mut self) {
        if self.stands_in() {
            self.quorum = ForcedQuorum::Marked;
        }
    }
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
        if !self.is_forming() || self.saving.is_some() || !matches!(self.force.request, Request::None) {
            return Err("this node is busy: try again".into());
        }
        if self.saved.witness_change_pending {
            self.force_alone(ctx, "it is not known which witness counts");
            return Ok(());
        }
        if self.witness_path.is_none() {
            self.force_alone(ctx, "there is no witness");
            return Ok(());
        }
        self.force.request = Request::Waits;
        self.witness.attempt_now();
        Ok(())
    }

    /// What came of a force, once.
    pub fn force_outcome(&mut self) -> Option<Result<String, String>> {
        self.force.take_outcome()
    }

    /// Nobody keeps this node from it, as far as it can see; the witness is not seen.
    pub(super) fn force_alone(&mut self, ctx: &mut Ctx<Pending>, why: &str) {
        self.force.quorum = ForcedQuorum::StandsIn;
        let epoch = self.claim_by_force(ctx, false, None, why);
        self.force.decided(Ok(format!(
            "forced in epoch {epoch}; {why}, so that nothing keeps the other member from the same"
        )));
    }

    /// The witness file was opened for a force: whether this node may go on with it.
    pub(super) fn force_with_witness(
        &mut self,
        ctx: &mut Ctx<Pending>,
        file: Option<&WitnessFile>,
    ) -> Result<(), String> {
        let refusal = match file {
            Some(f) if f.cluster != self.name => Some(format!("the witness file belongs to cluster {}", f.cluster)),
            Some(f) => self.forced_elsewhere(f),
            None => None,
        };
        if let Some(why) = refusal {
            self.force_refused(&why);
            return Err(why);
        }
        if !self.force.stands_in() {
            self.force.quorum = ForcedQuorum::Marked;
        }
        let epoch = self.claim_by_force(ctx, true, file, "recorded at the witness");
        self.force
            .decided(Ok(format!("forced in epoch {epoch}, recorded at the witness")));
        Ok(())
    }

    /// The witness says no: the other member has it.
    pub(super) fn force_refused(&mut self, why: &str) {
        self.force.decided(Err(why.to_owned()));
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
        let voted = self.witness.voted_for(&self.saved.record.id);
        self.force.regular(self.membership.has_peer(), voted);
    }

    /// Claims the cluster; returns the epoch of that. `recorded`: at the witness, and `file` is what that said before.
    fn claim_by_force(&mut self, ctx: &mut Ctx<Pending>, recorded: bool, file: Option<&WitnessFile>, why: &str) -> u64 {
        let floor = self.saved.record.id.clone();
        let ahead = file.map_or(0, |f| f.id.epoch).max(self.saved.highest_epoch) + EPOCHS_AHEAD;
        let mut record = self.claimed(floor, ahead.max(ctx.now.rtc_us / 1_000_000));
        // An appointment of before may be older than what the other side has answered with: this node serves in the forced epoch,
        // or in none.
        record.owner.clone_from(&self.me);
        record.owner_epoch = record.id.epoch;
        (record.clean, record.redeliver) = (false, true);
        // What the other one did since is given up, but what an operator last wanted is known.
        if let Some(later) = file.filter(|f| !self.stand().knows(&f.id)) {
            record.intent = later.intent;
        }
        // The operator decides that too: the witness that this node's record names counts.
        self.saved.witness_change_pending = false;
        let (epoch, why) = (record.id.epoch, why.to_owned());
        self.save(ctx, record, false);
        ctx.event(EventKind::QuorumForced { epoch, recorded, why });
        epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_force_stands_in_until_a_vote_follows_and_marks_until_both_are_there() {
        let state = |f: &Force| (f.is_marked(), f.stands_in());
        let mut force = Force {
            quorum: ForcedQuorum::StandsIn,
            ..Force::default()
        };
        force.regular(false, false);
        assert_eq!(state(&force), (true, true));
        force.regular(false, true);
        assert_eq!(state(&force), (true, false), "the witness has voted");
        force.regular(false, true);
        assert_eq!(state(&force), (true, false));
        force.regular(true, false);
        assert_eq!(state(&force), (false, false));
        force.quorum = ForcedQuorum::StandsIn;
        force.quorum_lost();
        assert_eq!(state(&force), (true, false), "it stands in once");
    }

    #[test]
    fn an_outcome_is_told_once_and_a_request_is_none() {
        let mut force = Force {
            request: Request::Waits,
            ..Force::default()
        };
        assert_eq!((force.take_outcome(), force.is_requested()), (None, true));
        force.decided(Err("no".into()));
        assert!(!force.is_requested());
        assert_eq!(force.take_outcome(), Some(Err("no".into())));
        assert_eq!(force.take_outcome(), None);
    }
}
