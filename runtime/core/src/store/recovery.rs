//! Recovery: what is really on the disk after a start, or after divergent logs were dropped.
//!
//! Missing, failed and not understood are three things. A read or listing that fails halts the node before it gets here. A file
//! that is not understood (it is damaged, or of a newer ccrd) seals the group: nothing of it is written, renamed or deleted,
//! it is not mounted, and its copy is Failed. Only a checkpoint that is missing together with everything that could have one,
//! means that there is no database. A seed that is whole takes the place of the copy before anything else is read
//! (`store/seed.rs`).

use super::index::Index;
use super::log::{self, Tail};
use super::{Checkpoint, Segment, SourceState, Store};
use crate::chain::{Closed, GENESIS, Stream};
use crate::ctx::Ctx;
use crate::durable::NotUnderstood;
use crate::io::{DiskAction, DiskResult};
use crate::op::{GroupOp, Op, RecoveryStep};
use crate::planted::Bug;
use ccr_contract::event::EventKind;
use std::collections::VecDeque;

impl RecoveryStep {
    /// What a planted bug makes of a read that failed.
    pub(crate) fn unread(self, ctx: &Ctx<impl From<GroupOp>>) -> Option<DiskResult> {
        match self {
            RecoveryStep::Logs | RecoveryStep::Segments if ctx.plays(Bug::UnlistedIsEmpty) => {
                Some(DiskResult::Files(Vec::new()))
            }
            RecoveryStep::Checkpoint if ctx.plays(Bug::UnreadCheckpointIsNone) => Some(DiskResult::Missing),
            RecoveryStep::SourceState if ctx.plays(Bug::UnreadSourceIsNone) => Some(DiskResult::Missing),
            _ => None,
        }
    }
}

/// The state of a recovery.
#[derive(Debug, Default)]
pub struct Recovery {
    logs: Vec<(String, u64)>,
    segments: Vec<(String, u64)>,
    pub(super) seed: Vec<(String, u64)>,
    /// The files are those of a seed that has just taken the place of the old copy.
    switched: bool,
    /// Segments above the checkpoint.
    uncheckpointed: Vec<u64>,
    todo: VecDeque<RecoveryStep>,
}

/// Longest checkpoint or source file.
const MAX_SMALL: u64 = 64 << 10;
/// In the names of files that were set aside.
const BAD: &str = ".bad-";

impl Store {
    /// Reads what is on the disk. Everything known is forgotten first.
    pub fn recover(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        debug_assert!(self.quiet());
        self.recover_after(ctx);
    }

    /// Begins the recovery that a dismount asked for, as soon as nothing touches the disk any more.
    pub fn recover_when_stale(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        if self.stale && self.quiet() {
            self.recover_after(ctx);
        }
    }

    /// The same behind deletions that were just queued.
    pub(crate) fn recover_after(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        self.begin(ctx, false);
    }

    fn begin(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, switched: bool) {
        self.reset();
        self.recovery = Some(Recovery {
            switched,
            ..Recovery::default()
        });
        let (folder, db, seed) = (self.folder(), format!("{}/db", self.folder()), self.seed_folder());
        self.disk(ctx, Op::Recover(RecoveryStep::Logs), DiskAction::List { folder });
        self.disk(
            ctx,
            Op::Recover(RecoveryStep::Segments),
            DiskAction::List { folder: db },
        );
        self.disk(ctx, Op::Recover(RecoveryStep::Seed), DiskAction::List { folder: seed });
        self.read_small(ctx, RecoveryStep::Marker, self.seed_marker());
    }

    fn read_small(&self, ctx: &mut Ctx<impl From<GroupOp>>, step: RecoveryStep, file: String) {
        let (offset, len) = (0, MAX_SMALL);
        self.disk(ctx, Op::Recover(step), DiskAction::Read { file, offset, len });
    }

    /// No switch is under way: what is known of the source, and the checkpoint.
    fn read_both(&self, ctx: &mut Ctx<impl From<GroupOp>>) {
        self.read_small(ctx, RecoveryStep::SourceState, self.file(".src"));
        self.read_small(ctx, RecoveryStep::Checkpoint, self.file(".chk"));
    }

    pub(super) fn on_recovered(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, step: RecoveryStep, result: DiskResult) {
        let Some(recovery) = self.recovery.as_mut() else { return };
        match (step, result) {
            (RecoveryStep::Logs, DiskResult::Files(files)) => recovery.logs = files,
            (RecoveryStep::Segments, DiskResult::Files(files)) => recovery.segments = files,
            (RecoveryStep::Seed, DiskResult::Files(files)) => recovery.seed = files,
            (RecoveryStep::Marker, DiskResult::Missing) => self.read_both(ctx),
            (RecoveryStep::Marker, DiskResult::Bytes(bytes)) => match Checkpoint::decode(&bytes) {
                Ok(marker) => {
                    let recovery = std::mem::take(recovery);
                    self.switch(ctx, &marker, &recovery);
                    self.begin(ctx, true);
                }
                Err(e) => {
                    self.seal(&self.seed_marker(), &e);
                    self.read_both(ctx);
                }
            },
            (RecoveryStep::SourceState, DiskResult::Bytes(bytes)) => match SourceState::decode(&bytes) {
                Ok(state) => self.source_state = state,
                Err(e) => self.seal(&self.file(".src"), &e),
            },
            (RecoveryStep::SourceState, DiskResult::Missing) => {}
            (RecoveryStep::Checkpoint, DiskResult::Bytes(bytes)) => {
                let read = Checkpoint::decode(&bytes);
                let read = read.and_then(|c| {
                    let stream = c.stream.parse::<Stream>().map_err(NotUnderstood::Damaged)?;
                    Ok((stream, c.link))
                });
                match read {
                    Ok((stream, link)) => (self.stream, self.checkpoint) = (Some(stream), link),
                    Err(e) => self.seal(&self.file(".chk"), &e),
                }
                self.plan(ctx);
            }
            (RecoveryStep::Checkpoint, DiskResult::Missing) => self.plan(ctx),
            (RecoveryStep::Segment(g), DiskResult::Bytes(bytes)) => self.read_segment(ctx, g, &bytes),
            (RecoveryStep::Log(g), DiskResult::Bytes(bytes)) => self.read_log(ctx, g, &bytes),
            (RecoveryStep::Segment(g), DiskResult::Missing) => {
                self.damage = Some(format!("segment {g} of the database is missing"));
                self.read_next(ctx);
            }
            (RecoveryStep::Log(g), DiskResult::Missing) => {
                self.orphans.insert(g, None);
                self.read_next(ctx);
            }
            (RecoveryStep::Open, DiskResult::Bytes(bytes)) => self.read_open(ctx, &bytes),
            (RecoveryStep::Open, DiskResult::Missing) => {
                self.tail = None;
                self.read_next(ctx);
            }
            (step, other) => {
                debug_assert!(false, "the node halts instead: {step:?} {other:?}");
            }
        }
    }

    /// A file is there and is not understood: nothing of the group is touched any more.
    fn seal(&mut self, file: &str, why: &dyn std::fmt::Display) {
        self.quarantined = true;
        self.damage.get_or_insert_with(|| format!("{file}: {why}"));
    }

    /// Forgets what the disk holds, but not what is under way there and what must be waited for.
    fn reset(&mut self) {
        let new = Store::new(self.at, &self.name, self.size, self.longest);
        let old = std::mem::replace(self, new);
        (self.inflight, self.hold, self.reread_at) = (old.inflight, old.hold, old.reread_at);
        self.next_bad = old.next_bad;
    }

    /// The folders and the checkpoint are known: what is to be read, and what is to be removed.
    fn plan(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let Some(mut recovery) = self.recovery.take() else {
            return;
        };
        let (tmp, open) = (format!("{}tmp.log", self.prefix()), format!("{}.log", self.prefix()));
        let len_of = |name: &str| recovery.logs.iter().find(|(n, _)| n == name).map(|(_, len)| *len);
        let (open_len, tmp_len) = (len_of(&open), len_of(&tmp));
        self.note_files(&recovery);
        if !ctx.plays(Bug::UnreadCheckpointIsNone) {
            self.no_checkpoint(&recovery, open_len);
        }
        self.reserved = recovery.logs.iter().filter(|(n, _)| n.ends_with(".jrs")).count() as u64 == super::RESERVES;
        if self.quarantined {
            return self.finish(ctx, &recovery);
        }
        if open_len.is_none() && tmp_len.is_some() {
            // Between the two renames of a roll; or the log in waiting of a node that became a copy. Empty either way.
            let file = self.file("tmp.log");
            match tmp_len {
                Some(0) => self.disk(ctx, Op::Quiet, DiskAction::Delete { file }),
                _ => self.set_aside(ctx, file, "a log in waiting is empty, and this one is not"),
            }
        }
        self.tail = open_len;
        for (name, _) in &recovery.segments {
            match self.generation_of(name, ".edb") {
                Some(g) if self.stream.is_none() => {
                    // Of a seed that was broken off.
                    let file = self.segment_file(g);
                    self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
                }
                Some(g) if g <= self.checkpoint.generation => recovery.todo.push_back(RecoveryStep::Segment(g)),
                Some(g) => recovery.uncheckpointed.push(g),
                None => {}
            }
        }
        for (name, _) in &recovery.logs {
            if let Some(g) = self.generation_of(name, ".log").filter(|g| *g > 0) {
                recovery.todo.push_back(RecoveryStep::Log(g));
            }
        }
        if open_len.is_some() {
            recovery.todo.push_back(RecoveryStep::Open);
        }
        self.recovery = Some(recovery);
        self.read_next(ctx);
    }

    /// What a seed has to clear away, and which numbers are taken among the files that were set aside.
    pub(super) fn note_files(&mut self, recovery: &Recovery) {
        let (folder, prefix) = (self.folder(), self.prefix());
        let seed = self.seed_folder();
        let logs = recovery.logs.iter().map(|(n, _)| (format!("{folder}/{n}"), n));
        let segments = recovery.segments.iter().map(|(n, _)| (format!("{folder}/db/{n}"), n));
        let others = recovery.seed.iter().map(|(n, _)| (format!("{seed}/{n}"), n));
        for (file, name) in logs.chain(segments).chain(others) {
            if let Some((_, n)) = name.rsplit_once(BAD) {
                let n: u64 = n.parse().unwrap_or(0);
                self.next_bad = self.next_bad.max(n.saturating_add(1));
            } else if file.starts_with(&seed) {
                // Not a part of the copy yet.
                self.seeded.extend(name.ends_with(".edb").then_some(file));
            } else if name.starts_with(&prefix) && !name.ends_with(".jrs") {
                self.found.push(file);
            }
        }
    }

    /// A checkpoint that is missing while there is something that had one does not mean that there is no database.
    fn no_checkpoint(&mut self, recovery: &Recovery, open_len: Option<u64>) {
        if self.stream.is_some() || self.quarantined || self.source_state.seeding {
            return;
        }
        let segments = recovery
            .segments
            .iter()
            .filter_map(|(n, _)| self.generation_of(n, ".edb"));
        let logs = recovery.logs.iter().filter_map(|(n, _)| self.generation_of(n, ".log"));
        let (segments, logs) = (segments.count(), logs.count());
        if segments + logs > 0 || open_len.is_some_and(|len| len > log::HEADER as u64) {
            let why = format!("it is missing, and there are {segments} segments of a database and {logs} closed logs");
            self.seal(&self.file(".chk"), &why);
        }
    }

    fn read_next(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let Some(recovery) = self.recovery.as_mut() else { return };
        let Some(step) = recovery.todo.pop_front() else {
            let recovery = std::mem::take(recovery);
            self.recovery = None;
            self.finish(ctx, &recovery);
            self.begin_close(ctx);
            return;
        };
        let file = match step {
            RecoveryStep::Segment(g) => self.segment_file(g),
            RecoveryStep::Log(g) => self.log_file(g),
            RecoveryStep::Open => self.file(".log"),
            RecoveryStep::Logs
            | RecoveryStep::Segments
            | RecoveryStep::Seed
            | RecoveryStep::Marker
            | RecoveryStep::SourceState
            | RecoveryStep::Checkpoint => return,
        };
        let action = DiskAction::Read {
            file,
            offset: 0,
            len: self.size + 1,
        };
        self.disk(ctx, Op::Recover(step), action);
    }

    fn read_segment(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64, bytes: &[u8]) {
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
                self.mark_dead(&scan);
            }
            Ok(_) => self.damaged(format!("segment {generation} does not follow the one before it")),
            Err(e) if e.is_strange() => self.seal(&self.segment_file(generation), &e),
            Err(e) => self.damaged(format!("segment {generation} of the database: {e}")),
        }
        self.read_next(ctx);
    }

    /// The first thing that is wrong is told: what lies behind it follows from it.
    fn damaged(&mut self, why: String) {
        self.damage.get_or_insert(why);
    }

    /// A closed log that is damaged is left out; so are those after a gap.
    fn read_log(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64, bytes: &[u8]) {
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
                    self.orphan(ctx, generation, Some(closed), "not the next of this stream");
                }
            }
            Ok(_) => self.orphan(ctx, generation, None, "it belongs elsewhere"),
            Err(e) if e.is_strange() => self.seal(&self.log_file(generation), &e),
            Err(e) => self.orphan(ctx, generation, None, &e.to_string()),
        }
        self.read_next(ctx);
    }

    /// Closed logs are contiguous and reach the checkpoint: what lies before a gap that only the database covers is of no use
    /// to anybody.
    fn drop_behind_gap(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let through = self.checkpoint.generation;
        let numbers: Vec<u64> = self.closed.keys().copied().collect();
        let gap = numbers.windows(2).rposition(|w| w[1] != w[0] + 1).map(|at| numbers[at]);
        let short = numbers.last().copied().filter(|last| *last < through);
        let behind = gap.max(short).unwrap_or(0);
        let kept = self.closed.split_off(&(behind + 1));
        let gone = std::mem::replace(&mut self.closed, kept);
        let orphans: Vec<(u64, bool)> = self.orphans.range(..=through).map(|(g, c)| (*g, c.is_some())).collect();
        for (g, whole) in gone.into_keys().map(|g| (g, true)).chain(orphans) {
            let file = self.log_file(g);
            if whole {
                self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
            } else if self.found.contains(&file) {
                self.set_aside(ctx, file, "it is damaged, and the database has taken it in");
            }
        }
    }

    /// Segments above the checkpoint do not exist for anybody: a batch was broken off, and is replayed again from its logs.
    /// Where a log is gone that only a checkpoint behind it lets go, the checkpoint is an older one.
    fn drop_uncheckpointed(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, uncheckpointed: &[u64]) {
        for g in uncheckpointed {
            let file = self.segment_file(*g);
            if self.closed.contains_key(g) {
                self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
            } else if !self.orphans.contains_key(g) {
                let why = format!("older than the database, which has segment {g} and no log to replay it from");
                self.seal(&self.file(".chk"), &why);
                return;
            }
        }
    }

    fn orphan(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, generation: u64, whole: Option<Closed>, why: &str) {
        ctx.event(EventKind::CopyInspectionFailed {
            group: self.name.clone(),
            generation,
            attempt: None,
            why: why.to_owned(),
        });
        self.orphans.insert(generation, whole);
    }

    /// The open log of an earlier life. A write that the power cut off is cut off here, at the last whole record. What was
    /// flushed and cannot be read is no such write: it stays, and the group is not mounted without an operator.
    fn read_open(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, bytes: &[u8]) {
        match log::tail(bytes, self.stream.unwrap_or_default()) {
            Tail::Whole => {}
            Tail::Torn(whole) => self.cut_open(ctx, bytes.len(), whole),
            Tail::Damaged { whole, flushed } => {
                let file = self.file(".log");
                let why = format!("{file} is damaged at byte {whole}: {flushed} bytes of it were flushed");
                ctx.event(EventKind::LogDamaged {
                    group: self.name.clone(),
                    why: why.clone(),
                });
                self.open_damage = Some(why);
            }
            Tail::Strange(e) => self.seal(&self.file(".log"), &e),
        }
        self.read_next(ctx);
    }

    fn cut_open(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, len: usize, whole: usize) {
        ctx.event(EventKind::LogTorn {
            group: self.name.clone(),
            bytes: (len - whole) as u64,
            left: whole as u64,
        });
        let (file, len) = (self.file(".log"), whole as u64);
        let cut = DiskAction::SetLen {
            file: file.clone(),
            len,
        };
        self.disk(ctx, Op::Quiet, cut);
        self.disk(ctx, Op::Quiet, DiskAction::Sync { file });
        self.tail = Some(len);
    }

    fn finish(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, recovery: &Recovery) {
        if !self.quarantined {
            self.drop_uncheckpointed(ctx, &recovery.uncheckpointed);
        }
        if self.quarantined {
            // Nobody mounts it, copies from it, or compares it with anything.
            self.stream = None;
            self.orphans.clear();
            self.index = Index::default();
            (self.applied, self.tail) = (0, None);
        } else {
            // Of a seed that was broken off.
            self.clear_seed(ctx);
            if self.source_state.seeding && self.stream.is_some() {
                self.source_state.seeding = false;
                self.save_source_state(ctx);
            }
        }
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
            self.orphans.extend(behind.into_iter().map(|(g, c)| (g, Some(c))));
        }
        // A log that is missing is no gap where the database has taken it in: those behind it go on from there.
        if self.damage.is_none() && self.stream.is_some() {
            self.drop_behind_gap(ctx);
            self.adopt_orphans();
        }
        // A log that is there but cannot be used is one that is missing.
        self.orphans = self.orphans.split_off(&(self.checkpoint.generation + 1));
        let highest = self.orphans.last_key_value().map_or(0, |(g, _)| *g);
        let damaged = u64::from(self.open_damage.is_some()) * (self.last().generation + 1);
        self.source_state.generated = self.source_state.generated.max(highest).max(damaged);
        if let Some(why) = &self.damage {
            self.report_trouble(ctx, why, None);
        } else if recovery.switched {
            let (group, generation) = (self.name.clone(), self.checkpoint.generation);
            ctx.event(EventKind::CopySeeded { group, generation });
        }
    }
}

fn follows(before: crate::chain::ChainLink, scan: &log::Scan) -> bool {
    scan.header.generation == before.generation + 1 && scan.header.previous == before.checksum
}
