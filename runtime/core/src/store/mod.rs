//! One storage group on one node: its logs, its database, and the index over both.
//!
//! The log is the truth; the database is replayed from it. Files, for the group with prefix `E00`:
//! `E00/E00.log` the open log, `E00/E00tmp.log` the next one in waiting, `E00/E0000000001.log` closed generations
//! (hexadecimal), `E00/inspect/…` arrivals that are not inspected yet, `E00/db/E0000000001.edb` segments of the database,
//! `E00/E00.chk` the checkpoint, `E00/E00.src` what is known of the source, `E00/seed/…` what a seed gathers, `E00/E00res00001.jrs` and `…2.jrs` the reserve
//! logs: room for closing the open log when the disk is full.
//!
//! Invariants:
//! * `closed` holds logs that are durable under their final names, or whose naming is queued before whatever relies on it; they
//!   are contiguous.
//! * The database is the segments up to `checkpoint`, in order; a segment above it does not exist for anybody.
//! * `index` is exactly the database plus the logs up to `applied`, plus what is durable in the open log.
//! * Nothing is acknowledged before the flush behind it has returned.
//! * What cannot be read is not absent: a read that fails halts the node or is tried again, and a file that is there and is
//!   not understood is left alone, with everything else of its group, until an operator seeds the copy or mends it.

pub mod active;
pub mod compact;
mod files;
pub mod index;
pub mod log;
mod long;
pub mod pieces;
mod recovery;
pub mod replay;
pub mod scrub;
mod seed;
pub mod tail;

use crate::chain::{ChainLink, Closed, GENESIS, Stream};
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{GroupOp, MountRead, Op, Part};
use crate::planted::Bug;
use active::Writer;
use ccr_contract::dump;
use ccr_contract::event::EventKind;
pub use files::{Checkpoint, SourceState};
use index::Index;
use log::Header;
use recovery::Recovery;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A part of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The log it was replayed from.
    pub link: ChainLink,
    /// Its length.
    pub len: u64,
    /// Bytes of it that are bodies of messages.
    pub bodies: u64,
    /// Of these, bodies of messages that the database holds as deleted.
    pub dead: u64,
}

/// Reserve logs of a group.
const RESERVES: u64 = 2;
/// Between two looks for room on a full log disk, in milliseconds.
const FULL_MS: u64 = 10_000;
/// How long what follows an offered checkpoint stays after the last request of whoever seeds from it, in microseconds: longer than
/// a member may be silent.
const RETENTION_HOLD_US: u64 = 20_000_000;
/// Between two attempts at something that could not be read, in milliseconds.
const UNREAD_MS: u64 = 2_000;

/// One storage group.
#[derive(Debug)]
pub struct Store {
    /// Position among the groups.
    pub at: usize,
    /// Its name.
    pub name: String,
    size: u64,
    /// The longest message that is stored.
    longest: u64,
    /// The stream; none without a database.
    pub stream: Option<Stream>,
    /// The last log that the database holds.
    pub checkpoint: ChainLink,
    pub(crate) closed: BTreeMap<u64, Closed>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// The messages.
    pub index: Index,
    applied: u64,
    /// Whether there is an open log on the disk that nobody writes: its length.
    pub(crate) tail: Option<u64>,
    /// Logs on the disk that are not part of the stream: damaged ones, and those behind them, which may be whole.
    pub(crate) orphans: BTreeMap<u64, Option<Closed>>,
    /// A log that was found damaged although it had been whole once.
    pub bad: Option<u64>,
    /// What is known of the source.
    pub source_state: SourceState,
    pub(crate) writer: Option<Writer>,
    recovery: Option<Recovery>,
    /// What was left open is being closed.
    closing_tail: bool,
    /// What the open log held is in the index, and must go: the disk is to be read again.
    stale: bool,
    mounting: Option<Mounting>,
    /// The last log of the batch that is being replayed.
    replaying: Option<u64>,
    /// Segments that are worth being made smaller.
    compactable: BTreeSet<u64>,
    compacting: bool,
    /// Why the database cannot be used, where it cannot.
    pub damage: Option<String>,
    /// Something on the disk is not understood: nothing of this group is written, renamed or deleted.
    pub(crate) quarantined: bool,
    /// Why the open log, as an earlier life left it, cannot be taken in whole: what was flushed of it is damaged.
    pub open_damage: Option<String>,
    /// Names of the group's files that the last recovery found.
    found: Vec<String>,
    /// What a seed has gathered so far.
    seeded: BTreeSet<String>,
    /// The other node seeds its copy from here: logs behind this generation stay, until then at the least.
    retention_hold: Option<(u64, u64)>,
    /// The last log that was there when this node mounted the group.
    pub(crate) begun: u64,
    pub(crate) scrub: scrub::Scrub,
    /// The number of the next file that is set aside.
    next_bad: u64,
    /// Whether the reserve logs are on the disk.
    pub(crate) reserved: bool,
    /// No mount before then, and why: the disk has no room for the reserve logs, or could not be read.
    hold: Option<(u64, String)>,
    /// No replay and no compaction before then: something could not be read.
    reread_at: u64,
    /// Disk operations under way.
    inflight: Cell<u32>,
}

#[derive(Debug)]
struct Mounting {
    epoch: u64,
    todo: VecDeque<MountRead>,
}

impl Store {
    /// A group that has not been recovered yet: its logs have so many bytes, its messages at most so many.
    pub fn new(at: usize, name: &str, generation_bytes: u64, message_bytes: u64) -> Self {
        Self {
            at,
            name: name.to_owned(),
            size: generation_bytes,
            longest: message_bytes,
            stream: None,
            checkpoint: GENESIS,
            closed: BTreeMap::new(),
            segments: BTreeMap::new(),
            index: Index::default(),
            applied: 0,
            tail: None,
            orphans: BTreeMap::new(),
            bad: None,
            source_state: SourceState::default(),
            writer: None,
            recovery: None,
            closing_tail: false,
            stale: false,
            mounting: None,
            replaying: None,
            compactable: BTreeSet::new(),
            compacting: false,
            damage: None,
            quarantined: false,
            open_damage: None,
            found: Vec::new(),
            seeded: BTreeSet::new(),
            retention_hold: None,
            begun: 0,
            scrub: scrub::Scrub::default(),
            next_bad: 1,
            reserved: false,
            hold: None,
            reread_at: 0,
            inflight: Cell::new(0),
        }
    }

    pub(crate) fn prefix(&self) -> String {
        format!("E{:02X}", self.at)
    }
    pub(crate) fn folder(&self) -> String {
        self.prefix()
    }
    pub(crate) fn file(&self, suffix: &str) -> String {
        format!("{0}/{0}{suffix}", self.prefix())
    }
    pub(crate) fn log_file(&self, generation: u64) -> String {
        format!("{0}/{0}{generation:08X}.log", self.prefix())
    }
    pub(crate) fn inspect_file(&self, generation: u64) -> String {
        format!("{0}/inspect/{0}{generation:08X}.log", self.prefix())
    }
    fn reserve_file(&self, n: u64) -> String {
        format!("{0}/{0}res{n:05}.jrs", self.prefix())
    }
    /// The reserve logs.
    pub(crate) fn reserve_files(&self) -> Vec<String> {
        (1..=RESERVES).map(|n| self.reserve_file(n)).collect()
    }
    /// Makes room: what the disk has no room for is not written any more, but what the open log holds must be closed.
    pub(crate) fn release_reserves(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        self.reserved = false;
        for file in self.reserve_files() {
            self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
    }
    pub(crate) fn segment_file(&self, generation: u64) -> String {
        format!("{0}/db/{0}{generation:08X}.edb", self.prefix())
    }
    /// The generation in the name of a closed log (`.log`) or segment (`.edb`).
    fn generation_of(&self, name: &str, suffix: &str) -> Option<u64> {
        let hex = name.strip_prefix(&self.prefix())?.strip_suffix(suffix)?;
        let plain = hex.len() >= 8 && hex.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        plain.then(|| u64::from_str_radix(hex, 16).ok()).flatten()
    }
    pub(crate) fn generation_bytes(&self) -> u64 {
        self.size
    }
    /// The longest message that is stored, in bytes.
    pub fn max_message(&self) -> usize {
        usize::try_from(self.longest).unwrap_or(usize::MAX)
    }

    pub(crate) fn disk(&self, ctx: &mut Ctx<impl From<GroupOp>>, op: Op, action: DiskAction) {
        self.inflight.set(self.inflight.get() + 1);
        ctx.disk(GroupOp(self.at, op).into(), action);
    }
    /// Whether no disk operation of this group is under way.
    pub fn quiet(&self) -> bool {
        self.inflight.get() == 0
    }
    /// Whether recovery has ended, and none is needed.
    pub fn recovered(&self) -> bool {
        self.recovery.is_none() && !self.stale && !self.closing_tail
    }
    /// Whether clients can be served from here.
    pub fn mounted(&self) -> bool {
        self.writer.is_some()
    }
    /// Whether mounting is under way.
    pub fn is_mounting(&self) -> bool {
        self.mounting.is_some()
    }
    /// The last closed log: the newest on the disk, or the checkpoint when all were truncated.
    pub fn last(&self) -> ChainLink {
        let newest = self.closed.last_key_value().map(|(_, c)| c.link);
        newest
            .filter(|l| l.generation > self.checkpoint.generation)
            .unwrap_or(self.checkpoint)
    }
    /// The highest epoch that it tells of, at least 1 where there is anything; none before it was read.
    pub fn history(&self) -> Option<u64> {
        let anything = self.stream.is_some() || self.damage.is_some();
        let highest = self
            .last()
            .epoch
            .max(self.source_state.verified)
            .max(u64::from(anything));
        self.recovered().then_some(highest)
    }
    /// The link of this generation, from the log or from the database.
    pub fn link(&self, generation: u64) -> Option<ChainLink> {
        if generation == 0 {
            return Some(GENESIS);
        }
        let log = self.closed.get(&generation).map(|c| c.link);
        log.or_else(|| self.segments.get(&generation).map(|s| s.link))
    }
    /// The file that holds the bodies of this generation; none for the open log.
    pub fn body_part(&self, generation: u64) -> Option<Part> {
        if generation <= self.checkpoint.generation && self.segments.contains_key(&generation) {
            Some(Part::Segment(generation))
        } else {
            (generation != self.open_generation()).then_some(Part::Log(generation))
        }
    }
    /// The last generation in the index.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// A disk operation of this group ended.
    pub(crate) fn ended(&self) {
        self.inflight.set(self.inflight.get().saturating_sub(1));
    }

    /// A disk operation ended. The caller has dealt with failed writes, and with failed reads of a recovery.
    pub fn on_disk(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, op: Op, result: DiskResult) -> Vec<Outcome> {
        self.ended();
        match op {
            Op::Recover(step) => {
                self.on_recovered(ctx, step, result);
                Vec::new()
            }
            Op::Mount(read) => self.on_mount_read(ctx, read, result),
            Op::Synced => self.on_synced(ctx),
            Op::Closed(closed) => self.on_closed(ctx, closed),
            Op::Tail(step) => self.on_tail(ctx, step, result),
            Op::Replay(step) => self.on_replay(ctx, step, result),
            Op::Scrub(part) => self.on_scrub(ctx, part, result),
            Op::Compact(step) => {
                self.on_compact(ctx, step, result);
                Vec::new()
            }
            Op::Quiet | Op::Body(_) | Op::Part { .. } | Op::Copy(_) => Vec::new(),
        }
    }

    /// Begins to mount: reads the logs that the database does not have yet, then opens a new one in `epoch`.
    pub fn mount(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, epoch: u64) -> Vec<Outcome> {
        if self.mounted() || self.mounting.is_some() || !self.quiet() {
            return Vec::new();
        }
        if self.stream.is_none() {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&ctx.random().to_le_bytes());
            id[8..].copy_from_slice(&ctx.random().to_le_bytes());
            self.stream = Some(Stream(id));
            self.source_state.seeding = false;
            self.save_checkpoint(ctx, Op::Quiet, GENESIS);
        }
        let logs = self
            .closed
            .keys()
            .filter(|g| **g > self.applied)
            .map(|g| MountRead::Log(*g));
        let mut todo: VecDeque<_> = logs.collect();
        if self.tail.is_some() {
            todo.push_back(MountRead::Open);
        }
        if !self.reserved {
            todo.extend((1..=RESERVES).map(MountRead::Reserve));
        }
        self.mounting = Some(Mounting { epoch, todo });
        self.mount_next(ctx)
    }

    fn mount_next(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) -> Vec<Outcome> {
        let Some(mounting) = self.mounting.as_mut() else {
            return Vec::new();
        };
        let Some(read) = mounting.todo.pop_front() else {
            let epoch = mounting.epoch;
            self.mounting = None;
            self.open_new(ctx, epoch);
            return vec![Outcome::Mounted];
        };
        let file = match read {
            MountRead::Log(g) => self.log_file(g),
            MountRead::Open => self.file(".log"),
            MountRead::Reserve(n) => {
                let bytes = vec![0; self.size as usize];
                let file = self.reserve_file(n);
                self.disk(ctx, Op::Mount(read), DiskAction::Replace { file, bytes });
                return Vec::new();
            }
        };
        let len = self.size;
        self.disk(ctx, Op::Mount(read), DiskAction::Read { file, offset: 0, len });
        Vec::new()
    }

    fn on_mount_read(
        &mut self,
        ctx: &mut Ctx<impl From<GroupOp>>,
        read: MountRead,
        result: DiskResult,
    ) -> Vec<Outcome> {
        if let MountRead::Reserve(n) = read {
            if result != DiskResult::Done {
                self.release_reserves(ctx);
                let why = "the log disk is full: there is no room for the reserve logs".to_owned();
                self.hold = Some((ctx.after_ms(FULL_MS), why.clone()));
                self.mounting = None;
                return vec![Outcome::NoRoom(why)];
            }
            self.reserved = n == RESERVES;
            return self.mount_next(ctx);
        }
        let bytes = match result {
            DiskResult::Bytes(bytes) => bytes,
            // Nothing is known of it, so nothing is lost yet.
            DiskResult::Failed(_) => {
                let what = match read {
                    MountRead::Log(g) => self.log_file(g),
                    _ => self.file(".log"),
                };
                let why = self.unread(ctx, &what, &result);
                self.hold = Some((self.reread_at, why.clone()));
                self.mounting = None;
                return vec![Outcome::MountFailed(why)];
            }
            other => return self.mount_failed(read, format!("{read:?}: {other:?}")),
        };
        match read {
            MountRead::Log(g) => {
                let scan = match log::inspect(&bytes, self.size as usize) {
                    Ok(scan) if Some(scan.link()) == self.link(g) => scan,
                    Ok(_) => return self.mount_failed(read, format!("generation {g} is not what it was")),
                    Err(e) => return self.mount_failed(read, format!("generation {g}: {e}")),
                };
                self.index.apply(&scan);
                self.applied = g;
            }
            MountRead::Open => self.take_tail(ctx, &bytes),
            MountRead::Reserve(_) => {}
        }
        self.mount_next(ctx)
    }

    /// The logs from the damaged one on are lost here; whether that is too much is not for this layer to say.
    fn mount_failed(&mut self, read: MountRead, why: String) -> Vec<Outcome> {
        self.mounting = None;
        if let MountRead::Log(g) = read {
            self.cut_from(g);
        }
        vec![Outcome::MountFailed(why)]
    }

    /// A log is damaged: it and those behind it are no part of the stream any more.
    pub(crate) fn cut_from(&mut self, generation: u64) {
        self.source_state.generated = self.source_state.generated.max(self.last().generation);
        let behind = self.closed.split_off(&generation);
        self.orphans.extend(behind.into_iter().map(|(g, c)| (g, Some(c))));
        self.orphans.insert(generation, None);
    }
    /// A log that was missing is there again: those behind it, as far as they follow it, are part of the stream again.
    pub(crate) fn adopt_orphans(&mut self) {
        loop {
            let last = self.last();
            self.orphans = self.orphans.split_off(&(last.generation + 1));
            let next = self.orphans.first_key_value().and_then(|(_, c)| *c);
            match next.filter(|c| c.link.generation == last.generation + 1 && c.previous == last.checksum) {
                Some(closed) => self.closed.insert(closed.link.generation, closed),
                None => return,
            };
        }
    }
    /// Whether the disk holds logs that a copy must not have: the open one, damaged ones, and those behind them.
    pub(crate) fn needs_rewind(&self) -> bool {
        self.tail.is_some() || !self.orphans.is_empty() || self.bad.is_some()
    }

    pub(crate) fn header(&self, generation: u64, epoch: u64, previous: u32) -> Header {
        Header {
            kind: log::FileKind::Log,
            stream: self.stream.unwrap_or_default(),
            generation,
            epoch,
            previous,
        }
    }

    /// What this group holds, for `dump`.
    pub fn dump(&self) -> dump::Group {
        let stream = self.stream.map(|s| s.to_string()).unwrap_or_default();
        let log = |c: &Closed| dump::Log {
            stream: stream.clone(),
            generation: c.link.generation,
            epoch: c.link.epoch,
            checksum: format!("{:08x}", c.link.checksum),
            previous: format!("{:08x}", c.previous),
            bytes: self.size,
        };
        dump::Group {
            group: self.name.clone(),
            logs: self.closed.values().map(log).collect(),
            messages: self.index.dump(&stream),
            database: self.index.digest(),
        }
    }

    /// The other node seeds its copy from the checkpoint that was offered: what follows it stays, whatever was heard of the
    /// copy that it replaces. By the time this ends, heartbeats say what the new one needs.
    pub(crate) fn hold_logs(&mut self, now: u64, offered: Option<u64>) {
        let generation = offered.or(self.retention_hold.map(|(g, _)| g));
        self.retention_hold = generation.map(|g| (g, now + RETENTION_HOLD_US));
    }

    /// Truncates closed logs that neither this node nor the other one (which has replayed `elsewhere`) needs any more.
    pub fn truncate(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, elsewhere: u64, circular: bool) {
        // What is left of a damaged database may need them.
        if self.damage.is_some() {
            return;
        }
        let retention_hold = self.retention_hold.filter(|(_, until)| ctx.now.boot_us < *until);
        let elsewhere = retention_hold.map_or(elsewhere, |(g, _)| g.min(elsewhere));
        let elsewhere = if ctx.plays(Bug::TruncateAlone) {
            u64::MAX
        } else {
            elsewhere
        };
        let mut through = self.checkpoint.generation.min(elsewhere);
        if !circular {
            through = through.min(self.source_state.backed_up);
        }
        let gone: Vec<u64> = self.closed.range(..=through).map(|(g, _)| *g).collect();
        for g in &gone {
            self.closed.remove(g);
            let file = self.log_file(*g);
            self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
        if let Some(last) = gone.last() {
            let (group, through) = (self.name.clone(), *last);
            ctx.event(EventKind::LogTruncated { group, through });
        }
    }
}

/// What an operation led to, for the layers above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The group is mounted.
    Mounted,
    /// It is not, and will not be.
    MountFailed(String),
    /// It is not: a disk is full.
    NoRoom(String),
    /// Records are durable: these may be acknowledged.
    Landed(Vec<active::Ticket>),
    /// A generation was closed.
    Closed(u64),
    /// The database holds this generation now.
    Replayed(u64),
    /// Replay found damage.
    ReplayFailed(String),
    /// A file of the group is not what it was, and how.
    Damaged(Part, String),
}

#[cfg(test)]
mod tests;
