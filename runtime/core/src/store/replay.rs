//! Replay: the database takes in closed logs, one after another. A copy replays what it has inspected; the active node
//! stays a number of generations behind (lost log resilience), so that its database can lose its newest logs and still be
//! a prefix of what the other node goes on with.

use super::log;
use super::{Op, Outcome, Segment, Store};
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::member::Pending;
use crate::wire::Link;

/// One generation on its way into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The log is read.
    Read(u64),
    /// The segment was written.
    Segment(Link),
    /// The checkpoint was written.
    Checkpoint(Link),
}

impl Store {
    /// Replays the next log where it is at most `through` and nothing else is under way.
    pub fn replay_towards(&mut self, ctx: &mut Ctx<Pending>, through: u64) {
        let next = self.checkpoint.generation + 1;
        if self.replaying
            || self.compacting
            || self.damage.is_some()
            || self.bad.is_some()
            || next > through
            || !self.closed.contains_key(&next)
        {
            return;
        }
        self.replaying = true;
        let action = DiskAction::Read {
            file: self.log_file(next),
            offset: 0,
            len: self.size + 1,
        };
        self.disk(ctx, Op::Replay(Step::Read(next)), action);
    }
    /// Whether a generation is on its way into the database.
    pub fn is_replaying(&self) -> bool {
        self.replaying
    }

    pub(super) fn on_replay(&mut self, ctx: &mut Ctx<Pending>, step: Step, result: DiskResult) -> Vec<Outcome> {
        match (step, result) {
            (Step::Read(g), DiskResult::Bytes(bytes)) => self.replay_log(ctx, g, &bytes),
            (Step::Read(g), other) => self.replay_failed(g, format!("generation {g}: {other:?}")),
            // The checkpoint waits for the segment: where that could not be written it would say more than is there.
            (Step::Segment(link), _) => {
                self.save_checkpoint(ctx, Op::Replay(Step::Checkpoint(link)), link);
                Vec::new()
            }
            (Step::Checkpoint(link), _) => {
                self.checkpoint = link;
                self.replaying = false;
                vec![Outcome::Replayed(link.generation)]
            }
        }
    }

    fn replay_log(&mut self, ctx: &mut Ctx<Pending>, generation: u64, bytes: &[u8]) -> Vec<Outcome> {
        let scan = match log::inspect(bytes, self.size as usize) {
            Ok(scan) => scan,
            Err(e) => return self.replay_failed(generation, format!("generation {generation}: {e}")),
        };
        let link = scan.link();
        if self.closed.get(&generation).map(|c| c.link) != Some(link) {
            return self.replay_failed(generation, format!("generation {generation} is not what was inspected"));
        }
        if generation > self.applied {
            self.index.apply(&scan);
            self.applied = generation;
        }
        let bytes = log::to_segment(bytes, &scan);
        let segment = Segment {
            link,
            len: bytes.len() as u64,
            bodies: scan.bodies(),
            dead: 0,
        };
        self.segments.insert(generation, segment);
        self.bury(&scan);
        let file = self.segment_file(generation);
        self.disk(
            ctx,
            Op::Replay(Step::Segment(link)),
            DiskAction::Replace { file, bytes },
        );
        Vec::new()
    }

    fn replay_failed(&mut self, generation: u64, why: String) -> Vec<Outcome> {
        self.replaying = false;
        self.bad = Some(generation);
        vec![Outcome::ReplayFailed(why)]
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
