//! A disk that keeps the order of operations, takes time, loses what was not flushed when the power goes, and tears.

use crate::cluster::CLUSTER_FILE;
use crate::io::{DiskAction, DiskResult, OpId};
use crate::rng::Rng;
use crate::store::log;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Clone, Default)]
struct File {
    data: Vec<u8>,
    /// So many bytes are durable.
    synced: usize,
    /// Whether the name itself is durable.
    named: bool,
    /// What was durable before a cut that is not.
    before: Option<Vec<u8>>,
}

/// What a file is for; of a folder, what its files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `cluster.json`.
    Cluster,
    /// `E00.chk`.
    Checkpoint,
    /// `E00.src`.
    Known,
    /// `E00.log`.
    Open,
    /// `E0000000001.log`.
    Closed,
    /// A segment of the database.
    Segment,
    /// A log in the inspection folder.
    Arrival,
    /// What a seed gathers.
    Seed,
    /// `hub.json`.
    Hub,
    /// A message in the queue of a hub.
    Queue,
    /// A message in the dumpster of a hub.
    Dumpster,
    /// Anything else.
    Other,
}

impl Kind {
    /// By the name.
    pub fn of(name: &str) -> Self {
        let ends = |e| name.ends_with(e);
        match name {
            CLUSTER_FILE => Kind::Cluster,
            "hub.json" => Kind::Hub,
            n if n.starts_with("queue/") => Kind::Queue,
            n if n.starts_with("dumpster/") => Kind::Dumpster,
            n if n.contains("/inspect/") => Kind::Arrival,
            n if n.contains("/seed/") => Kind::Seed,
            _ if ends(".edb") => Kind::Segment,
            _ if ends(".chk") => Kind::Checkpoint,
            _ if ends(".src") => Kind::Known,
            n if n.len() == "E00/E00.log".len() && ends(".log") => Kind::Open,
            n if n.len() == "E00/E0000000001.log".len() && ends(".log") => Kind::Closed,
            _ => Kind::Other,
        }
    }
    fn of_folder(name: &str) -> Self {
        match name {
            "queue" => Kind::Queue,
            "dumpster" => Kind::Dumpster,
            n if n.ends_with("/db") => Kind::Segment,
            n if n.ends_with("/seed") => Kind::Seed,
            n if n.starts_with('E') => Kind::Closed,
            _ => Kind::Other,
        }
    }
}

/// What happens to a file behind the node's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// A bit of it is another one.
    Flip,
    /// It is shorter.
    Truncate,
    /// A sector of it is zeros.
    Zero,
    /// It is what it was before it was replaced last.
    Older,
    /// It is gone.
    Delete,
}

/// Reads of files of a kind, or listings of their folders, that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Which.
    pub kind: Kind,
    /// Listings instead of reads.
    pub listing: bool,
    /// How often.
    pub times: u32,
}

/// What became of the faults of a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Reads that failed.
    pub reads: u64,
    /// Listings that failed.
    pub listings: u64,
    /// Cuts that a loss of power undid.
    pub cuts: u64,
}

/// An operation that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    /// The next write, of whatever kind.
    Write,
    /// The next renaming.
    Renaming,
}

/// The disk of one node.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<String, File>,
    queue: VecDeque<(OpId, DiskAction)>,
    /// Files of which a write failed in this life of the daemon.
    failed_files: BTreeMap<String, DiskResult>,
    /// What fails once.
    pub fail_next: Option<Fails>,
    /// Operations, reads and listings too, that end in a given way.
    pub rule: Option<Rule>,
    /// What cannot be read.
    pub unreadable: Option<Unreadable>,
    /// What became of its faults.
    pub tally: Tally,
    /// Small files as they were before they were replaced last.
    older: BTreeMap<String, Vec<u8>>,
    /// Bytes that fit; none is without bound.
    pub capacity: Option<u64>,
}

/// Which operations end in a given way instead of being carried out.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Whether it concerns this one.
    pub what: fn(&DiskAction) -> bool,
    /// How it ends.
    pub result: DiskResult,
    /// Whether only the first one does.
    pub once: bool,
}

impl File {
    fn durable(data: Vec<u8>) -> Self {
        Self {
            synced: data.len(),
            data,
            named: true,
            before: None,
        }
    }
}

impl Disk {
    fn ruled(&mut self, action: &DiskAction) -> Option<DiskResult> {
        let rule = self.rule.as_ref().filter(|r| (r.what)(action))?;
        let result = rule.result.clone();
        if rule.once {
            self.rule = None;
        }
        Some(result)
    }

    /// Whether the operation fails because it reads what cannot be read now.
    fn fails_to_read(&mut self, action: &DiskAction) -> bool {
        let (kind, listing) = match action {
            DiskAction::Read { file, .. } => (Kind::of(file), false),
            DiskAction::List { folder } => (Kind::of_folder(folder), true),
            _ => return false,
        };
        let Some(u) = self.unreadable.as_mut() else {
            return false;
        };
        if (u.kind, u.listing) != (kind, listing) {
            return false;
        }
        u.times -= 1;
        if u.times == 0 {
            self.unreadable = None;
        }
        if listing {
            self.tally.listings += 1;
        } else {
            self.tally.reads += 1;
        }
        true
    }

    /// Whether the operation at the head changes which files there are, or how long one is.
    pub fn changes(&self) -> bool {
        use DiskAction::{Delete, Rename, Replace, SetLen};
        let head = self.queue.front();
        head.is_some_and(|(_, a)| matches!(a, Replace { .. } | Rename { .. } | Delete { .. } | SetLen { .. }))
    }

    /// An operation waits; true when the disk was idle.
    pub fn push(&mut self, op: OpId, action: DiskAction) -> bool {
        self.queue.push_back((op, action));
        self.queue.len() == 1
    }
    /// How long the operation at the head takes, in microseconds.
    pub fn latency(&self, rng: &mut Rng) -> Option<u64> {
        let (_, action) = self.queue.front()?;
        let slow = if rng.chance(1) { 20 } else { 1 };
        let base = match action {
            DiskAction::Sync { .. } | DiskAction::Replace { .. } => rng.range(500, 4000),
            DiskAction::Rename { .. } | DiskAction::Delete { .. } => rng.range(100, 800),
            _ => rng.range(20, 200),
        };
        Some(base * slow)
    }
    /// Carries out the operation at the head.
    pub fn complete(&mut self) -> Option<(OpId, DiskResult)> {
        let (op, action) = self.queue.pop_front()?;
        let fails = match self.fail_next {
            Some(Fails::Write) => !matches!(action, DiskAction::Read { .. } | DiskAction::List { .. }),
            Some(Fails::Renaming) => matches!(action, DiskAction::Rename { .. }),
            None => false,
        };
        if let Some(result) = self.ruled(&action) {
            return Some((op, result));
        }
        if self.fails_to_read(&action) {
            return Some((op, DiskResult::Failed("input/output error".into())));
        }
        let files: Vec<String> = action.written().map(str::to_owned).collect();
        let result = match files.iter().find_map(|f| self.failed_files.get(f)) {
            Some(earlier) => earlier.clone(),
            None if fails => {
                self.fail_next = None;
                DiskResult::Failed("input/output error".into())
            }
            None => self.apply(action),
        };
        if let DiskResult::Full | DiskResult::Failed(_) = &result {
            self.failed_files.extend(files.into_iter().map(|f| (f, result.clone())));
        }
        Some((op, result))
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.files.values().map(|f| f.data.len() as u64).sum()
    }

    fn apply(&mut self, action: DiskAction) -> DiskResult {
        let growth = match &action {
            DiskAction::SetLen { file, len } => {
                let now = self.files.get(file).map_or(0, |f| f.data.len() as u64);
                len.saturating_sub(now)
            }
            DiskAction::Append { bytes, .. } | DiskAction::Replace { bytes, .. } => bytes.len() as u64,
            _ => 0,
        };
        if self.capacity.is_some_and(|c| growth > 0 && self.used() + growth > c) {
            return DiskResult::Full;
        }
        match action {
            DiskAction::Append { file, bytes } => self.files.entry(file).or_default().data.extend(bytes),
            DiskAction::Sync { file } => {
                let f = self.files.entry(file).or_default();
                f.synced = f.data.len();
                f.named = true;
                f.before = None;
            }
            DiskAction::Replace { file, bytes } => {
                let kind = Kind::of(&file);
                if let Some(old) = self.files.insert(file.clone(), File::durable(bytes))
                    && matches!(kind, Kind::Cluster | Kind::Checkpoint | Kind::Known | Kind::Hub)
                {
                    self.older.insert(file, old.data);
                }
            }
            DiskAction::SetLen { file, len } => {
                let f = self.files.entry(file).or_default();
                if (len as usize) < f.synced && f.named {
                    let durable = f.data[..f.synced].to_vec();
                    f.before.get_or_insert(durable);
                }
                f.data.resize(len as usize, 0);
                f.synced = f.synced.min(f.data.len());
            }
            DiskAction::Rename { from, to } => match self.files.remove(&from) {
                Some(mut f) => {
                    f.named = true;
                    self.files.insert(to, f);
                }
                None => return DiskResult::Missing,
            },
            DiskAction::Delete { file } => {
                self.files.remove(&file);
            }
            DiskAction::Read { file, offset, len } => {
                let Some(f) = self.files.get(&file) else {
                    return DiskResult::Missing;
                };
                let from = (offset as usize).min(f.data.len());
                let to = (from + len as usize).min(f.data.len());
                return DiskResult::Bytes(f.data[from..to].to_vec());
            }
            DiskAction::List { folder } => {
                let inside = |name: &String| {
                    let rest = name.strip_prefix(&folder)?.strip_prefix('/')?;
                    (!rest.contains('/')).then(|| rest.to_owned())
                };
                let found = self
                    .files
                    .iter()
                    .filter_map(|(n, f)| Some((inside(n)?, f.data.len() as u64)));
                return DiskResult::Files(found.collect());
            }
        }
        DiskResult::Done
    }

    /// The process died: the kernel goes on, what was handed to it stays.
    pub fn process_died(&mut self) {
        self.failed_files.clear();
        self.queue.clear();
    }

    /// The power went. Returns how many files were torn.
    pub fn power_lost(&mut self, rng: &mut Rng) -> u64 {
        // The operation at the head may have been carried out without anybody having heard of it.
        if rng.chance(50)
            && let Some((_, action)) = self.queue.pop_front()
        {
            self.apply(action);
        }
        self.queue.clear();
        self.failed_files.clear();
        let mut torn = 0;
        self.files.retain(|_, f| f.named || rng.chance(50));
        for f in self.files.values_mut() {
            if let Some(before) = f.before.take()
                && rng.chance(50)
            {
                *f = File::durable(before);
                self.tally.cuts += 1;
            }
            if f.data.len() > f.synced {
                let keep = rng.range(f.synced as u64, f.data.len() as u64 + 1) as usize;
                f.data.truncate(keep);
                if keep > f.synced {
                    torn += 1;
                    if rng.chance(50) {
                        let at = rng.range(f.synced as u64, keep as u64) as usize;
                        f.data[at] ^= 0x55;
                    }
                }
            }
            f.synced = f.data.len();
            f.named = true;
        }
        torn
    }

    /// Whether a log on the disk has bytes that were not flushed.
    pub fn mid_write(&self) -> bool {
        let mut logs = self.files.iter().filter(|(n, _)| n.ends_with(".log"));
        logs.any(|(_, f)| f.data.len() > f.synced)
    }
    /// A file's bytes, for the checkers and for faults.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|f| f.data.as_slice())
    }
    /// Damages a file: a flipped byte.
    pub fn flip(&mut self, name: &str, at: usize) -> bool {
        match self.files.get_mut(name).and_then(|f| f.data.get_mut(at)) {
            Some(b) => {
                *b ^= 0x20;
                true
            }
            None => false,
        }
    }
    /// Damages the first `most` bytes of a file, or all of it; whether that changed anything.
    pub fn damage(&mut self, name: &str, how: How, most: usize, rng: &mut Rng) -> bool {
        let Some(f) = self.files.get_mut(name) else {
            return false;
        };
        // Zeros at the end of a log say nothing.
        let used = f.data.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1).min(most);
        if used == 0 && how != How::Delete {
            return false;
        }
        let at = rng.range(0, used as u64) as usize;
        match how {
            How::Flip => f.data[at] ^= 1 << rng.range(0, 8),
            How::Truncate => f.data.truncate(at),
            How::Zero => {
                let end = used.min(at / 512 * 512 + 512);
                f.data[at / 512 * 512..end].fill(0);
            }
            How::Older => match self.older.get(name).filter(|old| **old != f.data) {
                Some(old) => f.data.clone_from(old),
                None => return false,
            },
            How::Delete => return self.files.remove(name).is_some(),
        }
        f.synced = f.data.len();
        f.before = None;
        true
    }
    /// Replaces a file, durably, behind the node's back.
    #[cfg(test)]
    pub fn put(&mut self, name: &str, data: Vec<u8>) {
        self.files.insert(name.into(), File::durable(data));
    }
    /// How much of a file is durable.
    pub fn flushed(&self, name: &str) -> usize {
        self.files.get(name).map_or(0, |f| f.synced)
    }
    /// Removes a file behind the node's back.
    pub fn remove(&mut self, name: &str) -> bool {
        self.files.remove(name).is_some()
    }
    /// Whether an open log ends with a part of a message, as far as it is written.
    pub fn is_in_a_message(&self) -> bool {
        let mut open = self.files.iter().filter(|(name, _)| Kind::of(name) == Kind::Open);
        open.any(|(_, f)| {
            let last = log::scan(&f.data).ok().and_then(|scan| scan.records.last().cloned());
            matches!(last, Some(log::Record::Part { .. }))
        })
    }
    /// Names of all files.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }
}
