//! Replay: the database takes in closed logs, in batches with one checkpoint each. A copy replays what it has inspected; the
//! active node stays a number of generations behind (lost log resilience), so that its database can lose its newest logs and
//! still be a prefix of what the other node goes on with.

use super::log;
use super::{Outcome, Segment, Store};
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{GroupOp, Op, Part, ReplayStep};

/// Most logs in a batch: whoever is to mount waits for its end.
const BATCH: u64 = 8;

impl Store {
    /// Replays the next logs where there are any up to `through` and nothing else is under way.
    pub fn replay_towards(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, through: u64) {
        let next = self.checkpoint.generation + 1;
        let idle = self.replaying.is_none() && !self.compacting;
        let well = self.damage.is_none() && self.bad.is_none();
        if idle && well && next <= through && self.closed.contains_key(&next) && ctx.due(self.reread_at) {
            self.replaying = Some(through.min(next + BATCH - 1));
            self.replay_next(ctx, next);
        }
    }
    /// Whether generations are on their way into the database.
    pub fn is_replaying(&self) -> bool {
        self.replaying.is_some()
    }
    /// The log at hand is the last one of its batch: what comes behind it may not be right any more.
    pub fn end_batch(&mut self) {
        self.replaying = self.replaying.map(|_| 0);
    }

    fn replay_next(&self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64) {
        let action = DiskAction::Read {
            file: self.log_file(generation),
            offset: 0,
            len: self.size + 1,
        };
        self.disk(ctx, Op::Replay(ReplayStep::Read(generation)), action);
    }

    pub(super) fn on_replay(
        &mut self,
        ctx: &mut Ctx<impl From<GroupOp>>,
        step: ReplayStep,
        result: DiskResult,
    ) -> Vec<Outcome> {
        match (step, result) {
            (ReplayStep::Read(g), DiskResult::Bytes(bytes)) => self.replay_log(ctx, g, &bytes),
            (ReplayStep::Read(g), result @ DiskResult::Failed(_)) => {
                // Not read is not damaged: what was replayed before it counts, and it is read again later.
                let what = self.log_file(g);
                self.unread(ctx, &what, &result);
                self.break_off(ctx);
                Vec::new()
            }
            (ReplayStep::Read(g), other) => self.replay_failed(ctx, g, format!("generation {g}: {other:?}")),
            (ReplayStep::Segment(link), _) => {
                let next = link.generation + 1;
                if self.replaying.is_some_and(|through| next <= through) && self.closed.contains_key(&next) {
                    self.replay_next(ctx, next);
                } else {
                    self.end_with_checkpoint(ctx);
                }
                Vec::new()
            }
            (ReplayStep::Checkpoint(link), _) => {
                self.checkpoint = link;
                self.replaying = None;
                vec![Outcome::Replayed(link.generation)]
            }
        }
    }

    /// The checkpoint waits for its segments: where one could not be written it would say more than is there. False when
    /// there is nothing new.
    fn end_with_checkpoint(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) -> bool {
        let newest = self.segments.last_key_value().map(|(_, s)| s.link);
        match newest.filter(|l| l.generation > self.checkpoint.generation) {
            Some(link) => {
                self.save_checkpoint(ctx, Op::Replay(ReplayStep::Checkpoint(link)), link);
                true
            }
            None => false,
        }
    }

    fn replay_log(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64, bytes: &[u8]) -> Vec<Outcome> {
        let scan = match log::inspect(bytes, self.size as usize) {
            Ok(scan) => scan,
            Err(e) => return self.replay_failed(ctx, generation, format!("generation {generation}: {e}")),
        };
        let link = scan.link();
        if self.closed.get(&generation).map(|c| c.link) != Some(link) {
            return self.replay_failed(
                ctx,
                generation,
                format!("generation {generation} is not what was inspected"),
            );
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
        self.mark_dead(&scan);
        let file = self.segment_file(generation);
        self.disk(
            ctx,
            Op::Replay(ReplayStep::Segment(link)),
            DiskAction::Replace { file, bytes },
        );
        Vec::new()
    }

    /// A log is damaged; what was replayed before it counts.
    fn replay_failed(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64, why: String) -> Vec<Outcome> {
        self.bad = Some(generation);
        if self.mounted() {
            self.suspect(Part::Log(generation));
        }
        self.break_off(ctx);
        vec![Outcome::ReplayFailed(why)]
    }

    fn break_off(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        if !self.end_with_checkpoint(ctx) {
            self.replaying = None;
        }
    }
}
