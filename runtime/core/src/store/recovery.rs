//! Recovery: what is really on the disk after a start, or after divergent logs were dropped.

use super::log::{self, Stream};
use super::{Checkpoint, Closed, GENESIS, Op, Segment, Store};
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::member::Pending;
use ccr_contract::event::kind;
use std::collections::VecDeque;

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The folder of logs.
    Logs,
    /// The folder of segments.
    Segments,
    /// What is known of the source.
    Known,
    /// The checkpoint: comes last of the first four.
    Checkpoint,
    /// A segment.
    Segment(u64),
    /// A closed log.
    Log(u64),
    /// The open log that an earlier life of this node left.
    Open,
}

/// The state of a recovery.
#[derive(Debug, Default)]
pub struct Recovery {
    logs: Vec<(String, u64)>,
    segments: Vec<(String, u64)>,
    todo: VecDeque<Step>,
}

impl Store {
    /// Reads what is on the disk. Everything known is forgotten first.
    pub fn recover(&mut self, ctx: &mut Ctx<Pending>) {
        debug_assert!(self.quiet());
        self.recover_after(ctx);
    }

    /// Begins the recovery that a dismount asked for, as soon as nothing touches the disk any more.
    pub fn recover_when_stale(&mut self, ctx: &mut Ctx<Pending>) {
        if self.stale && self.quiet() {
            self.recover_after(ctx);
        }
    }

    /// The same behind deletions that were just queued.
    pub(crate) fn recover_after(&mut self, ctx: &mut Ctx<Pending>) {
        self.reset();
        self.recovery = Some(Recovery::default());
        let (folder, db) = (self.folder(), format!("{}/db", self.folder()));
        let (known, checkpoint) = (self.file(".src"), self.file(".chk"));
        let whole = |file| DiskAction::Read {
            file,
            offset: 0,
            len: 4096,
        };
        self.disk(ctx, Op::Recover(Step::Logs), DiskAction::List { folder });
        self.disk(ctx, Op::Recover(Step::Segments), DiskAction::List { folder: db });
        self.disk(ctx, Op::Recover(Step::Known), whole(known));
        self.disk(ctx, Op::Recover(Step::Checkpoint), whole(checkpoint));
    }

    pub(super) fn on_recovered(&mut self, ctx: &mut Ctx<Pending>, step: Step, result: DiskResult) {
        let Some(recovery) = self.recovery.as_mut() else { return };
        match (step, result) {
            (Step::Logs, DiskResult::Files(files)) => recovery.logs = files,
            (Step::Segments, DiskResult::Files(files)) => recovery.segments = files,
            (Step::Known, DiskResult::Bytes(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(known) => self.known = known,
                Err(e) => self.damage = Some(format!("{}: {e}", self.file(".src"))),
            },
            (Step::Checkpoint, DiskResult::Bytes(bytes)) => {
                let read = serde_json::from_slice::<Checkpoint>(&bytes).map_err(|e| e.to_string());
                match read.and_then(|c| Ok((c.stream.parse::<Stream>()?, c.link))) {
                    Ok((stream, link)) => (self.stream, self.checkpoint) = (Some(stream), link),
                    Err(e) => self.damage = Some(format!("{}: {e}", self.file(".chk"))),
                }
                self.plan(ctx);
            }
            (Step::Checkpoint, _) => self.plan(ctx),
            (Step::Segment(g), DiskResult::Bytes(bytes)) => self.read_segment(ctx, g, &bytes),
            (Step::Log(g), DiskResult::Bytes(bytes)) => self.read_log(ctx, g, &bytes),
            (Step::Segment(g), other) => {
                self.damage = Some(format!("segment {g} of the database: {other:?}"));
                self.read_next(ctx);
            }
            (Step::Log(g), _) => {
                self.strays.insert(g, None);
                self.read_next(ctx);
            }
            (Step::Open, DiskResult::Bytes(bytes)) => self.cut_open(ctx, &bytes),
            (Step::Open, _) => self.read_next(ctx),
            (Step::Logs | Step::Segments | Step::Known, _) => {}
        }
    }

    /// Before a full copy: there is no database and no log, and what was known of the old ones does not matter.
    pub(crate) fn forget(&mut self, ctx: &mut Ctx<Pending>) {
        self.reset();
        self.save_known(ctx);
    }

    /// Forgets what the disk holds, but not what is under way there and whether it was full.
    fn reset(&mut self) {
        let (inflight, full_until) = (self.inflight.clone(), self.full_until);
        *self = Store::new(self.at, &self.name, self.size);
        (self.inflight, self.full_until) = (inflight, full_until);
    }

    /// The folders and the checkpoint are known: what is to be read, and what is to be removed.
    fn plan(&mut self, ctx: &mut Ctx<Pending>) {
        let Some(recovery) = self.recovery.take() else { return };
        let (tmp, open) = (format!("{}tmp.log", self.prefix()), format!("{}.log", self.prefix()));
        let has_open = recovery.logs.iter().any(|(n, _)| *n == open);
        if !has_open && recovery.logs.iter().any(|(n, _)| *n == tmp) {
            // Between the two renames of a roll; or the log in waiting of a node that became a copy. Empty either way.
            let file = self.file("tmp.log");
            self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
        self.reserved = recovery.logs.iter().filter(|(n, _)| n.ends_with(".jrs")).count() as u64 == super::RESERVES;
        let open_len = recovery.logs.iter().find(|(n, _)| *n == open).map(|(_, len)| *len);
        self.leftover = open_len;
        let mut todo = VecDeque::new();
        for (name, _) in &recovery.segments {
            match self.generation_of(name, ".edb") {
                Some(g) if g <= self.checkpoint.generation && self.stream.is_some() => todo.push_back(Step::Segment(g)),
                Some(g) => {
                    let file = self.segment_file(g);
                    self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
                }
                None => {}
            }
        }
        for (name, _) in &recovery.logs {
            if let Some(g) = self.generation_of(name, ".log").filter(|g| *g > 0) {
                todo.push_back(Step::Log(g));
            }
        }
        if open_len.is_some() {
            todo.push_back(Step::Open);
        }
        self.recovery = Some(Recovery { todo, ..recovery });
        self.read_next(ctx);
    }

    fn read_next(&mut self, ctx: &mut Ctx<Pending>) {
        let Some(recovery) = self.recovery.as_mut() else { return };
        let Some(step) = recovery.todo.pop_front() else {
            self.recovery = None;
            self.finish(ctx);
            return;
        };
        let file = match step {
            Step::Segment(g) => self.segment_file(g),
            Step::Log(g) => self.log_file(g),
            Step::Open => self.file(".log"),
            Step::Logs | Step::Segments | Step::Known | Step::Checkpoint => return,
        };
        let action = DiskAction::Read {
            file,
            offset: 0,
            len: self.size + 1,
        };
        self.disk(ctx, Op::Recover(step), action);
    }

    fn read_segment(&mut self, ctx: &mut Ctx<Pending>, generation: u64, bytes: &[u8]) {
        let before = self.segments.last_key_value().map_or(GENESIS, |(_, s)| s.link);
        match log::segment(bytes) {
            Ok(scan) if Some(scan.header.stream) == self.stream && follows(before, &scan) => {
                self.index.apply(&scan);
                self.applied = generation;
                let segment = Segment {
                    link: scan.link(),
                    len: bytes.len() as u64,
                    bodies: scan.bodies(),
                    dead: 0,
                };
                self.segments.insert(generation, segment);
                self.bury(&scan);
            }
            Ok(_) => self.damage = Some(format!("segment {generation} does not follow the one before it")),
            Err(e) => self.damage = Some(format!("segment {generation} of the database: {e}")),
        }
        self.read_next(ctx);
    }

    /// A closed log that is damaged is left out; so are those after a gap.
    fn read_log(&mut self, ctx: &mut Ctx<Pending>, generation: u64, bytes: &[u8]) {
        let read = log::inspect(bytes, self.size as usize);
        let ours = |s: &log::Scan| s.header.generation == generation && Some(s.header.stream) == self.stream;
        let before = self.closed.last_key_value().map(|(_, c)| c.link);
        match read {
            Ok(scan) if ours(&scan) => {
                let closed = Closed {
                    link: scan.link(),
                    previous: scan.header.previous,
                    used: scan.used as u64,
                };
                if before.is_none_or(|b| follows(b, &scan)) {
                    self.closed.insert(generation, closed);
                } else {
                    self.stray(ctx, generation, Some(closed), "not the next of this stream");
                }
            }
            Ok(_) => self.stray(ctx, generation, None, "it belongs elsewhere"),
            Err(e) => self.stray(ctx, generation, None, &e.to_string()),
        }
        self.read_next(ctx);
    }

    /// Closed logs are contiguous and reach the checkpoint: what lies before a gap that only the database covers is of no use
    /// to anybody.
    fn drop_behind_gap(&mut self, ctx: &mut Ctx<Pending>) {
        let through = self.checkpoint.generation;
        let numbers: Vec<u64> = self.closed.keys().copied().collect();
        let gap = numbers.windows(2).rposition(|w| w[1] != w[0] + 1).map(|at| numbers[at]);
        let short = numbers.last().copied().filter(|last| *last < through);
        let behind = gap.max(short).unwrap_or(0);
        let kept = self.closed.split_off(&(behind + 1));
        let gone = std::mem::replace(&mut self.closed, kept);
        let strays = self.strays.range(..=through).map(|(g, _)| *g);
        for g in gone.into_keys().chain(strays) {
            let file = self.log_file(g);
            self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
    }

    fn stray(&mut self, ctx: &mut Ctx<Pending>, generation: u64, whole: Option<Closed>, why: &str) {
        let data = [
            ("group", self.name.as_str().into()),
            ("generation", generation.into()),
            ("why", why.into()),
        ];
        ctx.warn(kind::COPY_INSPECTION_FAILED, &data);
        self.strays.insert(generation, whole);
    }

    /// A write that the power cut off is cut off here: at the last whole record.
    fn cut_open(&mut self, ctx: &mut Ctx<Pending>, bytes: &[u8]) {
        let whole = log::scan(bytes).map_or(0, |s| s.used);
        // Zeros are no damage: a roll was cut off between filling the log up and giving it its name.
        if bytes[whole..].iter().any(|b| *b != 0) {
            let data = [
                ("group", self.name.as_str().into()),
                ("bytes", ((bytes.len() - whole) as u64).into()),
                ("left", (whole as u64).into()),
            ];
            ctx.warn(kind::LOG_TORN, &data);
            let file = self.file(".log");
            let len = whole as u64;
            self.disk(
                ctx,
                Op::Quiet,
                DiskAction::SetLen {
                    file: file.clone(),
                    len,
                },
            );
            self.disk(ctx, Op::Quiet, DiskAction::Sync { file });
            self.leftover = Some(len);
        }
        self.read_next(ctx);
    }

    fn finish(&mut self, ctx: &mut Ctx<Pending>) {
        if self.stream.is_none() {
            self.closed.clear();
            self.segments.clear();
            self.checkpoint = GENESIS;
        } else if self.checkpoint.generation > 0 && self.segments.len() as u64 != self.checkpoint.generation {
            let why = format!(
                "the database has {} of {} segments",
                self.segments.len(),
                self.checkpoint.generation
            );
            self.damage.get_or_insert(why);
        } else if self.link(self.checkpoint.generation) != Some(self.checkpoint) {
            self.damage
                .get_or_insert_with(|| "the database does not end at its checkpoint".into());
        }
        // Logs of which the database cannot take the next one are of no use.
        let first = self
            .closed
            .range(self.checkpoint.generation + 1..)
            .next()
            .map(|(g, _)| *g);
        if first.is_some_and(|g| g != self.checkpoint.generation + 1) {
            let behind = self.closed.split_off(&(self.checkpoint.generation + 1));
            self.strays.extend(behind.into_iter().map(|(g, c)| (g, Some(c))));
        }
        // A log that is missing is no gap where the database has taken it in: those behind it go on from there.
        if self.damage.is_none() && self.stream.is_some() {
            self.drop_behind_gap(ctx);
            self.adopt_strays();
        }
        // A log that is there but cannot be used is one that is missing.
        self.strays = self.strays.split_off(&(self.checkpoint.generation + 1));
        let highest = self.strays.last_key_value().map_or(0, |(g, _)| *g);
        self.known.generated = self.known.generated.max(highest);
        if self.damage.is_some() {
            ctx.warn(
                kind::COPY_FAILED,
                &[
                    ("group", self.name.as_str().into()),
                    ("why", self.damage.clone().unwrap_or_default().into()),
                ],
            );
        }
    }
}

fn follows(before: crate::wire::Link, scan: &log::Scan) -> bool {
    scan.header.generation == before.generation + 1 && scan.header.previous == before.checksum
}
