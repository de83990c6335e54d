//! Compaction: the database does not keep what was deleted. A segment of whose bodies more than half belong to messages that
//! the database holds as deleted is written anew without them.
//!
//! Invariants:
//! * Only deletions in logs up to the checkpoint count: a later one may be lost with its log, and its message is there again.
//! * Parts stay as long as their message may still become whole. What has ended it is a record that no other one can replace: whoever
//!   goes on in another history begins with a record of its own.
//! * A segment keeps its place in the chain, and its delete records: whoever seeds gets segments of different ages, and an
//!   older one may still hold the message that a newer one's record deletes.
//! * Reads that were queued before the new file find the old one, those behind it the new one: the index is changed at the
//!   moment when the replacement is queued.

use super::log::{self, Record, Scan};
use super::{Segment, Store};
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{CompactStep, GroupOp, Op};
use crate::planted::Bug;
use ccr_contract::event::EventKind;

impl Store {
    /// A log is part of the database now: what its records delete is dead in the segments that hold it, and so are the parts of
    /// messages that were never whole.
    pub(super) fn mark_dead(&mut self, scan: &Scan) {
        let mut dead = self.index.take_useless(|g| self.segments.contains_key(&g));
        for record in &scan.records {
            if let Record::Delete(label) = record {
                dead.extend(self.index.take_dead(label.seq));
            }
        }
        for piece in dead {
            if let Some(segment) = self.segments.get_mut(&piece.generation) {
                segment.dead += piece.len;
                if segment.dead * 2 > segment.bodies {
                    self.compactable.insert(piece.generation);
                }
            }
        }
    }

    /// Makes one segment smaller, where there is one to gain by and the database is at rest.
    pub fn compact(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        if self.compacting || self.is_replaying() || self.damage.is_some() || !self.recovered() {
            return;
        }
        if self.compactable.is_empty() || !ctx.due(self.reread_at) {
            return;
        }
        let Some(generation) = self.compactable.pop_first() else {
            return;
        };
        self.compacting = true;
        let action = DiskAction::Read {
            file: self.segment_file(generation),
            offset: 0,
            len: self.size + 1,
        };
        self.disk(ctx, Op::Compact(CompactStep::Read(generation)), action);
    }

    pub(super) fn on_compact(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, step: CompactStep, result: DiskResult) {
        match (step, result) {
            (CompactStep::Read(g), DiskResult::Bytes(bytes)) => self.rewrite(ctx, g, &bytes),
            (CompactStep::Read(g), result) => {
                self.compacting = false;
                self.compactable.insert(g);
                let what = self.segment_file(g);
                self.unread(ctx, &what, &result);
            }
            (CompactStep::Written, _) => self.compacting = false,
        }
    }

    fn rewrite(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64, bytes: &[u8]) {
        let link = self.segments.get(&generation).map(|s| s.link);
        let read = log::segment(bytes).map_err(|e| e.to_string());
        let read = read.and_then(|s| {
            let same = Some(s.link()) == link;
            same.then_some(s).ok_or_else(|| "it is not what it was".to_owned())
        });
        let scan = match read {
            Ok(scan) => scan,
            // It stays as it is; the recovery at the next start does not take the database.
            Err(why) => {
                self.compacting = false;
                let why = format!("segment {generation} of the database: {why}");
                return self.report_failed(ctx, &why, None);
            }
        };
        let careless = ctx.plays(Bug::CompactParts);
        let (bytes, moved) = log::compacted(bytes, &scan, |record| {
            let dead = record.body_of().is_some_and(|seq| self.index.is_dead(seq));
            dead || (careless && matches!(record, Record::Part { .. }))
        });
        let segment = Segment {
            link: scan.link(),
            len: bytes.len() as u64,
            bodies: log::segment(&bytes).map_or(0, |s| s.bodies()),
            dead: 0,
        };
        ctx.event(EventKind::DatabaseCompacted {
            group: self.name.clone(),
            generation,
            from: scan.used as u64,
            to: segment.len,
        });
        self.segments.insert(generation, segment);
        moved.into_iter().for_each(|m| self.index.moved(m));
        let file = self.segment_file(generation);
        self.disk(
            ctx,
            Op::Compact(CompactStep::Written),
            DiskAction::Replace { file, bytes },
        );
    }
}
