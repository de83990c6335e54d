//! Pending operations: what a member's effects were for, by layer. It is plain data, so that a layer can ask for an effect
//! without knowing the layer that hands its completion back.

use crate::chain::{ChainLink, Closed};
use crate::io::{AddressKind, ConnId, Now, ReqId};

/// What an operation was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// `cluster.json` was read.
    ClusterRead,
    /// `cluster.json` was written.
    ClusterSaved,
    /// The witness.
    Witness(WitnessStep),
    /// A storage group.
    Group(usize, Op),
    /// An address.
    Address(AddressKind, bool),
    /// Room is made on a full disk.
    Room,
    /// A file was written anew; nothing waits for it.
    Quiet,
}

/// What a witness operation was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WitnessStep {
    /// Open the file.
    Open,
    /// Write and flush, begun then.
    Write(Now),
    /// Say that it is given up, then close.
    LastWrite,
    /// Close.
    Close,
    /// Probe.
    Probe,
}

/// An operation of one storage group, by its position among the groups. It is all that the store knows of the completions
/// that it will be handed: whoever drives it brings a type of its own that can hold one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOp(pub usize, pub Op);

impl From<GroupOp> for Pending {
    fn from(GroupOp(at, op): GroupOp) -> Self {
        Self::Group(at, op)
    }
}

/// What a disk operation of a storage group was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Recovery reads.
    Recover(RecoveryStep),
    /// Mounting reads the logs that the database does not have.
    Mount(MountRead),
    /// Nothing depends on its success but that it was done.
    Quiet,
    /// A batch of records is durable.
    Synced,
    /// A generation is closed, durable, and under its final name.
    Closed(Closed),
    /// What an earlier life left open is closed.
    Tail(TailStep),
    /// Replay.
    Replay(ReplayStep),
    /// A segment is made smaller.
    Compact(CompactStep),
    /// A file is looked at.
    Scrub(Part),
    /// A piece of a body for a client.
    Body(BodyRead),
    /// A part of a log for the copy.
    Part {
        /// The copy's channel.
        conn: ConnId,
        /// Which log or segment.
        generation: u64,
        /// From this byte.
        offset: u64,
        /// Bytes in use.
        total: u64,
        /// Whether a segment was asked for.
        segment: bool,
    },
    /// The copy's own operations.
    Copy(CopyStep),
}

/// A piece of a body for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRead {
    /// The client.
    pub req: ReqId,
    /// The file that holds it, where that does not change any more.
    pub part: Option<Part>,
    /// The checksum that it must have.
    pub crc: u32,
    /// Whether another piece follows.
    pub more: bool,
}

/// What mounting reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountRead {
    /// A closed log.
    Log(u64),
    /// The open log.
    Open,
    /// Writes a reserve log.
    Reserve(u64),
}

/// What a recovery reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryStep {
    /// The folder of logs.
    Logs,
    /// The folder of segments.
    Segments,
    /// The folder of a seed.
    Seed,
    /// The marker of a seed that is whole.
    Marker,
    /// What is known of the source.
    SourceState,
    /// The checkpoint: comes last of the small ones.
    Checkpoint,
    /// A segment.
    Segment(u64),
    /// A closed log.
    Log(u64),
    /// The open log that an earlier life of this node left.
    Open,
}

/// What a disk operation was for that closes the log which an earlier life left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailStep {
    /// The open log is read.
    Read,
    /// It is cut to its last whole record, ended, filled up, flushed.
    Write,
    /// It has its final name.
    Closed(Closed),
}

/// One generation on its way into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayStep {
    /// The log is read.
    Read(u64),
    /// The segment was written.
    Segment(ChainLink),
    /// The checkpoint was written.
    Checkpoint(ChainLink),
}

/// One segment that is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactStep {
    /// It is read.
    Read(u64),
    /// Its smaller successor was written.
    Written,
}

/// What a disk operation of the copy was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// A log lies in the inspection folder.
    Landed(u64),
    /// It was read back.
    Inspect(u64),
    /// It was moved into the stream.
    Moved(Closed),
    /// A segment of the seed is on the disk.
    SeedSegment(ChainLink),
    /// It was read back.
    SeedRead(ChainLink),
    /// The seed's marker is on the disk.
    Seeded,
}

/// A file of a group that does not change any more, compaction apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A segment of the database.
    Segment(u64),
    /// A closed log.
    Log(u64),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Segment(g) => write!(f, "segment {g}"),
            Part::Log(g) => write!(f, "log {g}"),
        }
    }
}
