//! The open log that an earlier life of this node left, or one that went offline in the middle of it: it is closed as soon
//! as the disk was read, and not only when this node mounts. What it holds was acknowledged; the other node can fetch it only
//! once it is a generation.
//!
//! Where the other node has gone on without it, it is a divergent log as any other, and dropped when the chains are compared.

use super::log::{self, Scan};
use super::{Outcome, Store};
use crate::chain::ChainLink;
use crate::chain::Closed;
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{GroupOp, Op, TailStep};

impl Store {
    /// Whether records lie in a log that is not closed; none where that is not known yet.
    pub fn has_open(&self) -> Option<bool> {
        let written = self.mounted() || self.is_mounting();
        let left = self.tail.is_some_and(|len| len > log::HEADER as u64);
        self.recovered().then_some(written || left)
    }

    /// The disk was read: begins to close what was left open.
    pub(super) fn begin_close(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let unsound = self.damage.is_some() || self.open_damage.is_some();
        if self.has_open() != Some(true) || self.stream.is_none() || unsound {
            return;
        }
        self.closing_tail = true;
        let action = DiskAction::Read {
            file: self.file(".log"),
            offset: 0,
            len: self.generation_bytes() + 1,
        };
        self.disk(ctx, Op::Tail(TailStep::Read), action);
    }

    pub(super) fn on_tail(
        &mut self,
        ctx: &mut Ctx<impl From<GroupOp>>,
        step: TailStep,
        result: DiskResult,
    ) -> Vec<Outcome> {
        match (step, result) {
            (TailStep::Read, DiskResult::Bytes(bytes)) => {
                match log::scan(&bytes).ok().filter(|s| self.is_next(s)) {
                    Some(scan) => self.close_tail(ctx, &scan),
                    // It comes behind a log that is missing here, or belongs to another history: it stays as it is.
                    None => self.closing_tail = false,
                }
                Vec::new()
            }
            (TailStep::Closed(closed), DiskResult::Done) => {
                self.closing_tail = false;
                self.tail = None;
                self.on_closed(ctx, closed)
            }
            // It could not be read, or there was no room for it: it stays open, and the other node is told so.
            (TailStep::Read | TailStep::Closed(_), result) => {
                self.closing_tail = false;
                if let DiskResult::Failed(_) = result {
                    self.unread(ctx, "the open log", &result);
                }
                Vec::new()
            }
            (TailStep::Write, _) => Vec::new(),
        }
    }

    /// Whether an open log holds something, and follows the last closed one.
    fn is_next(&self, scan: &Scan) -> bool {
        let (h, last) = (scan.header, self.last());
        let next = h.generation == last.generation + 1 && h.previous == last.checksum;
        next && Some(h.stream) == self.stream && !scan.records.is_empty()
    }

    fn close_tail(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, scan: &Scan) {
        let file = self.file(".log");
        let mut used = scan.used as u64;
        let write = |file: &str, len| DiskAction::SetLen { file: file.into(), len };
        self.disk(ctx, Op::Tail(TailStep::Write), write(&file, used));
        if scan.end.is_none() {
            let mut bytes = Vec::new();
            log::put_end(&mut bytes, scan.crc);
            used += bytes.len() as u64;
            let end = DiskAction::Append {
                file: file.clone(),
                bytes,
            };
            self.disk(ctx, Op::Tail(TailStep::Write), end);
        }
        let closed = Closed {
            link: ChainLink {
                generation: scan.header.generation,
                epoch: scan.header.epoch,
                checksum: scan.crc,
            },
            previous: scan.header.previous,
            used,
        };
        let len = self.generation_bytes().max(used);
        self.disk(ctx, Op::Tail(TailStep::Write), write(&file, len));
        let sync = DiskAction::Sync { file: file.clone() };
        self.disk(ctx, Op::Tail(TailStep::Write), sync);
        let to = self.log_file(closed.link.generation);
        let name = DiskAction::Rename { from: file, to };
        self.disk(ctx, Op::Tail(TailStep::Closed(closed)), name);
    }
}
