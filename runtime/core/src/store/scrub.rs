//! Scrub: a copy is not whole because nothing was asked of it. Every now and then one file of the group is read, a segment or a
//! closed log, and must be what it was; with a verification of the whole group all of them are, one behind the other.
//!
//! What is found is told upwards. Here nothing is changed, and nothing is deleted. A file that cannot be read is none that is
//! damaged: it is read again in the next round.

use super::index::Held;
use super::{Outcome, Store, log};
use crate::chain::ChainLink;
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{GroupOp, Op, Part};
use std::collections::{BTreeMap, BTreeSet};

/// How far a verification is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Files that were read.
    pub done: u64,
    /// Files to be read.
    pub total: u64,
    /// Whether all of them were.
    pub ended: bool,
    /// The first that is not what it was, or cannot be read, and why.
    pub fault: Option<String>,
}

/// What is being read, and what comes next.
#[derive(Debug, Default)]
pub struct Scrub {
    /// The file that is being read.
    reading: Option<Part>,
    /// The last one that was read in its turn.
    last: Option<Part>,
    /// When the next one is due.
    due: u64,
    /// Files that somebody could not read: their turn is now.
    suspects: BTreeSet<Part>,
    /// Files that are damaged, and how.
    pub(crate) corrupt: BTreeMap<Part, String>,
    /// A verification, and the last file of it that was read.
    verifying: Option<(Verified, Option<Part>)>,
}

impl Store {
    /// Reads the next file where it is time to: one in `every_us`, or one behind the other during a verification.
    pub fn scrub(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, every_us: u64) {
        if self.scrub.reading.is_some() || !self.recovered() || self.is_mounting() || self.damage.is_some() {
            return;
        }
        if self.scrub.due == 0 {
            self.scrub.due = ctx.now.boot_us + every_us;
            ctx.wake_at(self.scrub.due);
        }
        let verifies = matches!(&self.scrub.verifying, Some((v, _)) if !v.ended);
        let suspect = self.scrub.suspects.pop_first();
        let part = if suspect.is_some() {
            suspect
        } else if verifies {
            self.next_to_verify()
        } else if ctx.due(self.scrub.due) {
            self.scrub.due = ctx.now.boot_us + every_us;
            ctx.wake_at(self.scrub.due);
            let last = self.scrub.last;
            self.scrub.last = self.part_after(last).or_else(|| self.part_after(None));
            self.scrub.last
        } else {
            None
        };
        if let Some(part) = part {
            self.scrub.reading = Some(part);
            let action = DiskAction::Read {
                file: self.part_file(part),
                offset: 0,
                len: self.size + 1,
            };
            self.disk(ctx, Op::Scrub(part), action);
        }
    }

    /// Somebody could not read this file, or found it changed.
    pub(crate) fn suspect(&mut self, part: Part) {
        if !self.scrub.corrupt.contains_key(&part) {
            self.scrub.suspects.insert(part);
        }
    }

    /// Begins to read everything.
    pub(crate) fn verify(&mut self) {
        let segments = self.segments.range(..=self.checkpoint.generation).count();
        let verified = Verified {
            total: (segments + self.closed.len()) as u64,
            ..Verified::default()
        };
        self.scrub.verifying = Some((verified, None));
    }
    /// How far that is; none where it was not begun, or the disk was read afresh meanwhile.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        self.scrub.verifying.as_ref().map(|(v, _)| v)
    }

    pub(crate) fn part_file(&self, part: Part) -> String {
        match part {
            Part::Segment(g) => self.segment_file(g),
            Part::Log(g) => self.log_file(g),
        }
    }
    /// What a file must be; none where there is none of it any more.
    pub(crate) fn part_link(&self, part: Part) -> Option<ChainLink> {
        match part {
            Part::Segment(g) if g > self.checkpoint.generation => None,
            Part::Segment(g) => self.segments.get(&g).map(|s| s.link),
            Part::Log(g) => self.closed.get(&g).map(|c| c.link),
        }
    }
    /// Whether these bytes are that file.
    pub(crate) fn check_part(&self, part: Part, bytes: &[u8], link: ChainLink) -> Result<log::Scan, String> {
        let read = match part {
            Part::Segment(_) => log::segment(bytes),
            Part::Log(_) => log::inspect(bytes, self.size as usize),
        };
        let scan = read.map_err(|e| e.to_string())?;
        if scan.link() != link || Some(scan.header.stream) != self.stream {
            return Err("it is another one".into());
        }
        Ok(scan)
    }

    fn part_after(&self, last: Option<Part>) -> Option<Part> {
        let segment = match last {
            None => Some(0),
            Some(Part::Segment(g)) => Some(g),
            Some(Part::Log(_)) => None,
        };
        let segments = segment.and_then(|g| {
            let through = self.checkpoint.generation.max(g);
            let mut behind = self.segments.range(g + 1..=through.max(g + 1));
            behind
                .next()
                .map(|(g, _)| *g)
                .filter(|g| *g <= self.checkpoint.generation)
        });
        let from = match last {
            Some(Part::Log(g)) => g + 1,
            _ => 0,
        };
        let log = || self.closed.range(from..).next().map(|(g, _)| Part::Log(*g));
        segments.map(Part::Segment).or_else(log)
    }

    fn next_to_verify(&mut self) -> Option<Part> {
        let last = self.scrub.verifying.as_ref().and_then(|(_, last)| *last);
        let next = self.part_after(last);
        let (verified, at) = self.scrub.verifying.as_mut()?;
        match next {
            Some(_) => *at = next,
            None => verified.ended = true,
        }
        next
    }

    pub(super) fn on_scrub(
        &mut self,
        ctx: &mut Ctx<impl From<GroupOp>>,
        part: Part,
        result: DiskResult,
    ) -> Vec<Outcome> {
        // What was asked for before the disk was read afresh says nothing.
        if self.scrub.reading.take_if(|p| *p == part).is_none() {
            return Vec::new();
        }
        ctx.wake_at(ctx.now.boot_us);
        let found = match (self.part_link(part), result) {
            // It was truncated meanwhile, or dropped.
            (None, _) => Ok(()),
            (Some(link), DiskResult::Bytes(bytes)) => self.check_part(part, &bytes, link).map(drop),
            (Some(_), DiskResult::Missing) => Err("its file is gone".into()),
            (Some(_), other) => {
                let what = self.part_file(part);
                let why = self.unread(ctx, &what, &other);
                self.count(part, Some(&why));
                return Vec::new();
            }
        };
        let fault = found.err().map(|why| format!("{part} is damaged: {why}"));
        self.count(part, fault.as_deref());
        match fault {
            Some(why) if self.scrub.corrupt.insert(part, why.clone()).is_none() => vec![Outcome::Damaged(part, why)],
            Some(_) => Vec::new(),
            None => {
                self.scrub.corrupt.remove(&part);
                Vec::new()
            }
        }
    }

    fn count(&mut self, part: Part, fault: Option<&str>) {
        if let Some((verified, at)) = self.scrub.verifying.as_mut().filter(|(v, _)| !v.ended)
            && *at == Some(part)
        {
            verified.done += 1;
            verified.total = verified.total.max(verified.done);
            verified.fault = verified.fault.take().or_else(|| fault.map(str::to_owned));
        }
    }

    /// A damaged file of the node that serves was replaced by the other node's: `scan` is of the new content. Returns how many
    /// messages it lacks: what the other node deleted in logs that are lost, and compacted away, is nowhere any more.
    pub(crate) fn replace_part(
        &mut self,
        ctx: &mut Ctx<impl From<GroupOp>>,
        part: Part,
        bytes: Vec<u8>,
        scan: &log::Scan,
    ) -> usize {
        let mut lacks = 0;
        if let Part::Segment(g) = part
            && let Some(segment) = self.segments.get_mut(&g)
        {
            segment.len = bytes.len() as u64;
            segment.bodies = scan.bodies();
            segment.dead = 0;
            for record in &scan.records {
                let (seq, offset, at, len) = match record {
                    log::Record::Message { label, at, len, .. } => (label.seq, 0, *at, len),
                    log::Record::Part {
                        seq, offset, at, len, ..
                    } => (*seq, *offset, *at, len),
                    _ => continue,
                };
                if self.index.is_dead(seq) {
                    segment.dead += len;
                }
                self.index.moved((seq, offset, at));
            }
            lacks = self.index.keep_of(g, &Held::of(scan));
        }
        self.scrub.corrupt.remove(&part);
        if let Part::Log(g) = part {
            self.bad.take_if(|bad| *bad == g);
        }
        let file = self.part_file(part);
        self.disk(ctx, Op::Quiet, DiskAction::Replace { file, bytes });
        lacks
    }
}
