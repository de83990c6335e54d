//! What passed the ports, kept or shown: a ring of the last minutes in two bounded files, and captures on demand.
//!
//! The frame thread only copies; a thread of its own writes. A writer that cannot follow loses records, never frames.

use super::engine::{Direction, Tap};
use super::pcapng::{self, Packet};
use super::{PortId, Revision};
use crate::error::{IoContext, Result};
use crate::private;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes after which records are handed to the writer.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for a writer.
const CHUNKS: usize = 64;
/// Bytes that the ring keeps of a frame: headers and the first words of a dialogue.
const RING_SNAP: usize = 192;
/// Bytes that the ring takes in a second on average, and at once: a flood must not push out what came before it, nor
/// cost the frame path more than it has to.
const RING_RATE: u64 = 512 << 10;
const RING_BURST: u64 = 4 << 20;
/// Records wait at most so long in memory.
const RING_FLUSH: u64 = 1_000_000_000;
const LIVE_FLUSH: u64 = 50_000_000;

/// Where the ring is and how large it may grow.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// The newer file; the older one has `.old` before its extension.
    pub path: PathBuf,
    /// Bytes of both files together.
    pub bytes: u64,
}

impl RingConfig {
    /// At `path`, as large as every lab's: some minutes of a busy lab.
    pub fn at(path: PathBuf) -> Self {
        Self { path, bytes: 32 << 20 }
    }

    /// The older half.
    pub fn older(&self) -> PathBuf {
        self.path.with_extension("old.pcapng")
    }
}

/// Which ports a capture is about; all where absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureFilter {
    /// Only this network.
    pub network: Option<String>,
    /// Only this node.
    pub node: Option<String>,
}

/// A capture that is under way. It ends when this is dropped, or when its output is closed.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Capture {
    /// Records that the output was too slow for; the next one that it takes says so in its comment.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The interfaces of a capture: for each port its index, and their names.
pub(super) struct Interfaces {
    of: Vec<Option<u32>>,
    names: Vec<(String, String)>,
}

impl Interfaces {
    /// `ports`: network, node and a description of each port, in order.
    pub fn new(ports: &[(String, String, String)], filter: &CaptureFilter) -> Self {
        let mut names = Vec::new();
        let mut of = Vec::new();
        for (network, node, description) in ports {
            let wanted =
                filter.network.as_ref().is_none_or(|n| n == network) && filter.node.as_ref().is_none_or(|n| n == node);
            of.push(wanted.then_some(names.len() as u32));
            if wanted {
                names.push((format!("{node}-{network}"), description.clone()));
            }
        }
        Self { of, names }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn head(&self, snap: usize) -> Vec<u8> {
        let mut out = Vec::new();
        pcapng::head(&mut out, &self.names, snap as u32);
        out
    }
}

/// What a writer is given.
pub(super) enum Chunk {
    /// Whole records, to be appended.
    Records(Vec<u8>),
    /// The ring is to be copied as it is now.
    Copy(PathBuf, Sender<std::io::Result<()>>),
}

/// Records on their way to one writer.
pub(super) struct Sink {
    interfaces: Vec<Option<u32>>,
    snap: usize,
    budget: Option<Budget>,
    flush: u64,
    buffer: Vec<u8>,
    since: u64,
    /// Records in the buffer.
    records: u64,
    /// Records that were left out since the last one that was not.
    skipped: u64,
    /// The rule set that was put in force since the last record.
    revision: Option<Revision>,
    out: SyncSender<Chunk>,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

struct Budget {
    left: u64,
    at: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64, now: u64) -> bool {
        let earned = now.saturating_sub(self.at).saturating_mul(RING_RATE) / 1_000_000_000;
        if earned > 0 {
            self.left = (self.left + earned).min(RING_BURST);
            self.at = now;
        }
        let ok = self.left >= bytes;
        if ok {
            self.left -= bytes;
        }
        ok
    }
}

/// The engine's ear: shows every frame to the ring and to the captures.
pub(super) struct Recorder {
    sinks: Vec<Sink>,
    /// Wall time, in nanoseconds since 1970, of the engine's zero.
    epoch: u64,
}

impl Recorder {
    /// For an engine whose clock begins now.
    pub fn new() -> Self {
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        Self {
            sinks: Vec::new(),
            epoch,
        }
    }

    /// Adds a writer.
    pub fn add(&mut self, sink: Sink) {
        self.sinks.push(sink);
    }

    /// Hands over what `capture` still waits for, and ends it.
    pub fn end(&mut self, capture: &Capture) {
        for mut s in self.sinks.extract_if(.., |s| Arc::ptr_eq(&s.stop, &capture.stop)) {
            s.hand_over();
        }
    }

    /// Has the ring copied to `to`, all that passed until now; the writer says when it is done. False without a ring.
    pub fn copy_ring(&mut self, to: PathBuf, done: Sender<std::io::Result<()>>) -> bool {
        let Some(ring) = self.sinks.iter_mut().find(|s| s.budget.is_some()) else {
            return false;
        };
        ring.hand_over();
        ring.out.try_send(Chunk::Copy(to, done)).is_ok()
    }
}

impl Tap for Recorder {
    fn frame(&mut self, port: PortId, direction: Direction, bytes: &[u8], now: u64, dropped: Option<&str>) {
        for s in &mut self.sinks {
            let Some(interface) = s.interfaces[port] else { continue };
            let size = bytes.len().min(s.snap) as u64 + 64;
            if s.budget.as_mut().is_some_and(|b| !b.take(size, now)) {
                s.skipped += 1;
                continue;
            }
            if s.buffer.is_empty() {
                s.since = now;
            }
            s.records += 1;
            let remark = remark(dropped, std::mem::take(&mut s.skipped), s.revision.take());
            let inbound = direction == Direction::In;
            let (time, snap, comment) = (self.epoch + now, s.snap, remark.as_deref());
            pcapng::packet(
                &mut s.buffer,
                &Packet {
                    interface,
                    time,
                    inbound,
                    bytes,
                    snap,
                    comment,
                },
            );
            if s.buffer.len() >= CHUNK {
                s.hand_over();
            }
        }
    }

    fn rules(&mut self, revision: Revision) {
        for s in &mut self.sinks {
            s.revision = Some(revision);
        }
    }

    fn listens(&self) -> bool {
        !self.sinks.is_empty()
    }

    fn flush_at(&self) -> Option<u64> {
        self.sinks
            .iter()
            .filter(|s| !s.buffer.is_empty())
            .map(|s| s.since + s.flush)
            .min()
    }

    fn flush(&mut self, now: u64) {
        for s in self
            .sinks
            .iter_mut()
            .filter(|s| !s.buffer.is_empty() && s.since + s.flush <= now)
        {
            s.hand_over();
        }
        self.sinks.retain(|s| !s.stop.load(Ordering::Relaxed));
    }
}

impl std::ops::Drop for Recorder {
    fn drop(&mut self) {
        for s in &mut self.sinks {
            s.hand_over();
        }
    }
}

impl Sink {
    /// The ring.
    fn ring(interfaces: Interfaces, out: SyncSender<Chunk>) -> Self {
        let budget = Some(Budget {
            left: RING_BURST,
            at: 0,
        });
        Self {
            snap: RING_SNAP,
            budget,
            flush: RING_FLUSH,
            ..Self::live(interfaces, out)
        }
    }

    /// A capture of whole frames.
    fn live(interfaces: Interfaces, out: SyncSender<Chunk>) -> Self {
        Self {
            interfaces: interfaces.of,
            snap: usize::MAX,
            budget: None,
            flush: LIVE_FLUSH,
            buffer: Vec::new(),
            since: 0,
            records: 0,
            skipped: 0,
            revision: None,
            out,
            stop: Arc::default(),
            lost: Arc::default(),
        }
    }

    fn hand_over(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK + 4096));
        let records = std::mem::take(&mut self.records);
        match self.out.try_send(Chunk::Records(chunk)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(records, Ordering::Relaxed);
                self.skipped += records;
            }
            // The writer ended: its output is closed.
            Err(TrySendError::Disconnected(_)) => self.stop.store(true, Ordering::Relaxed),
        }
    }
}

fn remark(dropped: Option<&str>, skipped: u64, revision: Option<Revision>) -> Option<String> {
    if dropped.is_none() && skipped == 0 && revision.is_none() {
        return None;
    }
    let parts = [
        revision.map(|r| format!("rules: revision {} from here on", r.0)),
        dropped.map(|why| format!("dropped: {why}")),
        (skipped > 0).then(|| format!("{skipped} frames before this one were not recorded")),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// Starts the ring's writer. The files of a process before stay until the ring comes round.
pub(super) fn ring(config: &RingConfig, interfaces: Interfaces) -> Result<Sink> {
    let (out, chunks) = sync_channel(CHUNKS);
    let mut files = Ring {
        config: config.clone(),
        head: interfaces.head(RING_SNAP),
        file: None,
        size: 0,
    };
    if config.path.exists() {
        std::fs::rename(&config.path, config.older()).tried("keep the last capture", config.path.display())?;
    }
    files.begin().tried("begin the capture", config.path.display())?;
    std::thread::Builder::new()
        .name("ring".into())
        .spawn(move || {
            for chunk in chunks {
                match chunk {
                    // A full disk must not stop the lab: the ring has a hole then.
                    Chunk::Records(records) => drop(files.write(&records)),
                    Chunk::Copy(to, done) => drop(done.send(files.copy(&to))),
                }
            }
        })
        .tried("start the capture's thread", "")?;
    Ok(Sink::ring(interfaces, out))
}

struct Ring {
    config: RingConfig,
    head: Vec<u8>,
    file: Option<std::fs::File>,
    size: u64,
}

impl Ring {
    fn begin(&mut self) -> std::io::Result<()> {
        let mut file = private::create(&self.config.path)?;
        file.write_all(&self.head)?;
        self.size = self.head.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() || self.size + chunk.len() as u64 > self.config.bytes / 2 {
            self.file = None;
            if self.config.path.exists() {
                std::fs::rename(&self.config.path, self.config.older())?;
            }
            self.begin()?;
        }
        let file = self.file.as_mut().ok_or(std::io::ErrorKind::NotConnected)?;
        if let Err(e) = file.write_all(chunk) {
            // Half a record would make the rest unreadable: begin anew with the next chunk.
            let _ = file.set_len(self.size);
            self.file = None;
            return Err(e);
        }
        self.size += chunk.len() as u64;
        Ok(())
    }
}

impl Ring {
    /// Both halves one behind the other: a capture of two sections, which every reader takes.
    fn copy(&self, to: &Path) -> std::io::Result<()> {
        let mut out = private::create(to)?;
        for half in [&self.config.older(), &self.config.path] {
            match std::fs::File::open(half) {
                Ok(mut file) => drop(std::io::copy(&mut file, &mut out)?),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Starts the writer of a capture.
pub(super) fn live(mut to: Box<dyn Write + Send>, interfaces: Interfaces) -> Result<(Sink, Capture)> {
    let (out, chunks): (_, Receiver<Chunk>) = sync_channel(CHUNKS);
    let head = interfaces.head(0);
    std::thread::Builder::new()
        .name("capture".into())
        .spawn(move || {
            // An output that is closed ends the capture: the frame thread sees the channel closed.
            let all = || -> std::io::Result<()> {
                to.write_all(&head)?;
                to.flush()?;
                for chunk in chunks {
                    if let Chunk::Records(records) = chunk {
                        to.write_all(&records)?;
                        to.flush()?;
                    }
                }
                Ok(())
            };
            let _ = all();
        })
        .tried("start the capture's thread", "")?;
    let sink = Sink::live(interfaces, out);
    let capture = Capture {
        stop: sink.stop.clone(),
        lost: sink.lost.clone(),
    };
    Ok((sink, capture))
}

#[cfg(test)]
pub(crate) mod read;
#[cfg(test)]
mod tests;
