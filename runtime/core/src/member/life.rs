//! How a member's life ends: at once, or after room was made on a full disk; and which completions of the disk end it.

use super::groups::Groups;
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult, Effect, Input};
use crate::op::{CompactStep, CopyStep, Op, Pending, ReplayStep, TailStep};
use ccr_contract::event::EventKind;

/// Whether inputs are handled.
#[derive(Debug)]
pub enum Life {
    /// They are.
    Runs,
    /// The disk is full: so many deletions are under way that make room for what the next life must write.
    MakesRoom {
        /// Why this one ends.
        why: String,
        /// Deletions that have not ended.
        left: usize,
    },
    /// They are not any more.
    Over,
}

/// What the end of a disk operation means for the life of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Whoever asked for it deals with it.
    GoesOn,
    /// What is on the disk is known only after a recovery.
    Halts,
    /// The disk is full.
    MakesRoom,
}

/// Judges how a disk operation ended.
pub fn verdict(what: &Pending, result: &DiskResult) -> Verdict {
    let reads = matches!(
        what,
        Pending::ClusterRead
            | Pending::Group(
                _,
                Op::Recover(_)
                    | Op::Mount(_)
                    | Op::Body(_)
                    | Op::Scrub(_)
                    | Op::Part { .. }
                    | Op::Tail(TailStep::Read)
                    | Op::Replay(ReplayStep::Read(_))
                    | Op::Compact(CompactStep::Read(_))
                    | Op::Copy(CopyStep::Inspect(_) | CopyStep::SeedRead(_))
            )
    );
    // What a recovery could not read is not absent: the next life asks again.
    let recovers = matches!(what, Pending::Group(_, Op::Recover(_)));
    let spared = matches!(
        what,
        Pending::Group(_, Op::Tail(_) | Op::Copy(CopyStep::SeedSegment(_) | CopyStep::Seeded))
    );
    match result {
        // A failed write or flush is the end of this life.
        DiskResult::Failed(_) if !reads || recovers => Verdict::Halts,
        DiskResult::Full if !reads && !spared => Verdict::MakesRoom,
        _ => Verdict::GoesOn,
    }
}

impl Life {
    /// Whether an input is handled.
    pub fn runs(&self) -> bool {
        matches!(self, Self::Runs)
    }
    /// Whether nothing is to be done any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// It ends with an error; the next one begins with a recovery.
    pub fn halt(&mut self, ctx: &mut Ctx<Pending>, why: String) {
        *self = Self::Over;
        ctx.emit(Effect::CloseClients);
        ctx.emit(Effect::Halt { why });
    }
    /// It ends as it was told to.
    pub fn end(&mut self, ctx: &mut Ctx<Pending>) {
        *self = Self::Over;
        ctx.emit(Effect::CloseClients);
        ctx.emit(Effect::Ended);
    }

    /// A full disk: nothing is acknowledged any more, and the reserve logs make room for what the next life must write to
    /// close what this one has acknowledged.
    pub fn make_room(&mut self, ctx: &mut Ctx<Pending>, groups: &Groups, why: String) {
        ctx.emit(Effect::CloseClients);
        let mut left = 0;
        for store in groups.stores() {
            if store.reserved {
                let group = store.name.clone();
                ctx.event(EventKind::LogFull { group });
            }
            for file in store.reserve_files() {
                left += 1;
                ctx.disk(Pending::Room, DiskAction::Delete { file });
            }
        }
        *self = Self::MakesRoom { why, left };
    }
    /// An input of a life that makes room: only the end of that counts.
    pub fn on_input(&mut self, ctx: &mut Ctx<Pending>, input: &Input) {
        let Self::MakesRoom { why, left } = self else { return };
        if let Input::DiskDone { op, .. } = input
            && ctx.completed(*op) == Some(Pending::Room)
        {
            *left -= 1;
            if *left == 0 {
                let why = std::mem::take(why);
                self.halt(ctx, why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::OpId;
    use crate::member::fixture::{config, ctx};
    use crate::op::{GroupOp, RecoveryStep};

    #[test]
    fn a_write_that_fails_ends_the_life_a_read_does_not_but_for_a_recovery() {
        let failed = DiskResult::Failed("EIO".into());
        let group = |op| Pending::from(GroupOp(0, op));
        let cases = [
            (Pending::ClusterSaved, Verdict::Halts, Verdict::MakesRoom),
            (Pending::Quiet, Verdict::Halts, Verdict::MakesRoom),
            (group(Op::Synced), Verdict::Halts, Verdict::MakesRoom),
            (Pending::ClusterRead, Verdict::GoesOn, Verdict::GoesOn),
            (group(Op::Replay(ReplayStep::Read(1))), Verdict::GoesOn, Verdict::GoesOn),
            (group(Op::Copy(CopyStep::Inspect(1))), Verdict::GoesOn, Verdict::GoesOn),
            (group(Op::Recover(RecoveryStep::Logs)), Verdict::Halts, Verdict::GoesOn),
            // A seed, and what closes an open log, say themselves what a full disk means for them.
            (group(Op::Copy(CopyStep::Seeded)), Verdict::Halts, Verdict::GoesOn),
            (group(Op::Tail(TailStep::Write)), Verdict::Halts, Verdict::GoesOn),
        ];
        for (what, on_failure, on_full) in cases {
            assert_eq!(verdict(&what, &failed), on_failure, "{what:?}");
            assert_eq!(verdict(&what, &DiskResult::Full), on_full, "{what:?}");
            assert_eq!(verdict(&what, &DiskResult::Done), Verdict::GoesOn, "{what:?}");
        }
    }

    #[test]
    fn a_life_that_makes_room_ends_with_the_last_deletion() {
        let (mut life, mut ctx) = (Life::Runs, ctx(0));
        life.make_room(&mut ctx, &Groups::new(&config()), "full".into());
        let effects = ctx.take_effects();
        let deletions = effects.iter().filter_map(|e| match e {
            Effect::Disk {
                op,
                action: DiskAction::Delete { .. },
            } => Some(*op),
            _ => None,
        });
        let deletions: Vec<OpId> = deletions.collect();
        assert!(deletions.len() > 1 && !life.runs(), "{effects:?}");
        for (n, op) in deletions.iter().enumerate() {
            assert!(!life.is_over(), "{n}");
            life.on_input(&mut ctx, &Input::Tick);
            let result = DiskResult::Done;
            life.on_input(&mut ctx, &Input::DiskDone { op: *op, result });
        }
        assert!(life.is_over());
        let effects = ctx.take_effects();
        assert!(
            matches!(&effects[..], [Effect::CloseClients, Effect::Halt { why }] if why == "full"),
            "{effects:?}"
        );
    }
}
