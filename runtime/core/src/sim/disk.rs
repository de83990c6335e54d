//! A disk that keeps the order of operations, takes time, loses what was not flushed when the power goes, and tears.

use super::rng::Rng;
use crate::io::{DiskAction, DiskResult, OpId};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Clone, Default)]
struct File {
    data: Vec<u8>,
    /// So many bytes are durable.
    synced: usize,
    /// Whether the name itself is durable.
    named: bool,
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
    spoilt: BTreeMap<String, DiskResult>,
    /// What fails once.
    pub fail_next: Option<Fails>,
    /// Operations, reads and listings too, that end in a given way.
    pub rule: Option<Rule>,
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

impl Disk {
    fn ruled(&mut self, action: &DiskAction) -> Option<DiskResult> {
        let rule = self.rule.as_ref().filter(|r| (r.what)(action))?;
        let result = rule.result.clone();
        if rule.once {
            self.rule = None;
        }
        Some(result)
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
        let files: Vec<String> = action.written().map(str::to_owned).collect();
        let result = match files.iter().find_map(|f| self.spoilt.get(f)) {
            Some(earlier) => earlier.clone(),
            None if fails => {
                self.fail_next = None;
                DiskResult::Failed("input/output error".into())
            }
            None => self.apply(action),
        };
        if let DiskResult::Full | DiskResult::Failed(_) = &result {
            self.spoilt.extend(files.into_iter().map(|f| (f, result.clone())));
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
            }
            DiskAction::Replace { file, bytes } => {
                let synced = bytes.len();
                let f = File {
                    data: bytes,
                    synced,
                    named: true,
                };
                self.files.insert(file, f);
            }
            DiskAction::SetLen { file, len } => {
                let f = self.files.entry(file).or_default();
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
        self.spoilt.clear();
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
        self.spoilt.clear();
        let mut torn = 0;
        self.files.retain(|_, f| f.named || rng.chance(50));
        for f in self.files.values_mut() {
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
    /// Replaces a file, durably, behind the node's back.
    #[cfg(test)]
    pub fn put(&mut self, name: &str, data: Vec<u8>) {
        let synced = data.len();
        let file = File {
            data,
            synced,
            named: true,
        };
        self.files.insert(name.into(), file);
    }
    /// Removes a file behind the node's back.
    pub fn remove(&mut self, name: &str) -> bool {
        self.files.remove(name).is_some()
    }
    /// Names of all files.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }
}
