//! Everything that crosses the core's skin. The core does no I/O: a shell (the daemon or the simulator) hands in
//! [`Input`]s, each with the time, and carries out the [`Effect`]s in the order in which they come back.
//!
//! What a shell promises:
//! * **Disk**: operations of one node are carried out one after another in the order of their effects, and completed in
//!   that order. Names are relative to the data folder, with `/` between parts; missing folders are made. A failed
//!   operation is reported with the error's own words and never tried again by the shell. After an append, a cut, a sync, a
//!   rename or a deletion has failed, nothing that was queued behind it touches its files: later operations of these kinds
//!   on them, or renames to them, fail in the same way for the rest of the daemon's life. Otherwise the second half of a roll
//!   could give a log without its end the name of a closed one, or put the next log over one that kept its old name. Other
//!   files are written all the same: what depends on another file waits for its completion.
//! * **Witness**: an operation that has not ended within its `timeout_us` is reported as failed, and the whole connection
//!   to the server is dropped then (a late answer of an abandoned open would win the file for nobody).
//! * **Effects in order**: a [`Effect::Reply`] behind a disk effect does not wait for it; the core itself waits for
//!   completions where it matters. [`Effect::CloseClients`] discards replies that have not left yet.
//! * **Time**: [`Input::Tick`] at the latest when `next_deadline()` (boot-time clock) has come. Early or late ticks do no
//!   harm, late ones cost availability only.

use crate::command::Command;
use ccr_contract::dump::Dump;
use ccr_contract::event::NodeEvent;
use ccr_contract::reply::By;
use ccr_contract::status::Status;
use std::net::Ipv4Addr;

/// How long the end of a node may take ([`Input::End`]), in microseconds of its boot-time clock. `TimeoutStopSec` of the
/// unit is longer.
pub const END_US: u64 = 12_000_000;

/// Both clocks, read at the moment an input is handed in. A paused machine's boot-time clock stands still, only its
/// real-time clock goes on: neither alone proves how much time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The boot-time clock (CLOCK_BOOTTIME), microseconds.
    pub boot_us: u64,
    /// The hardware's real-time clock (read from the RTC itself, not the kernel's wall clock), microseconds since 1970.
    /// A resolution of one second is enough.
    pub rtc_us: u64,
}

/// What a node is told once, before its first input.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Random bits, new at each start of the daemon: they make the incarnation, stream ids and hub ids.
    pub entropy: u64,
    /// Version of the runtime, for `status`.
    pub version: String,
    /// A bug to play, where the build has any.
    pub planted: Option<crate::planted::Bug>,
}

/// Number of an operation that the core asked for; completions carry it back. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// Number that the shell gives to a request of a client or operator; the reply carries it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReqId(pub u64);

/// A reliable, ordered channel to a peer's stream port (TCP). Frames on it are a 4-byte big-endian length, at most
/// [`crate::wire::MAX_FRAME`], then that many bytes. The shell does the framing and never looks inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnId {
    /// Opened by [`Effect::Connect`]; numbered by the core.
    Dialled(u64),
    /// Accepted by the shell; numbered by it, never twice.
    Accepted(u64),
}

/// What a node learns.
#[derive(Debug, Clone)]
pub enum Input {
    /// First input: recovery begins (it reads the disk by effects).
    Start,
    /// Time has passed.
    Tick,
    /// A datagram arrived at the heartbeat port.
    Datagram {
        /// The network whose address of ours it was sent to.
        network: String,
        /// The sender's address.
        from: Ipv4Addr,
        /// Its payload, undecoded.
        bytes: Vec<u8>,
    },
    /// A peer opened a stream to us.
    Accepted {
        /// The new channel.
        conn: ConnId,
        /// The peer's address.
        from: Ipv4Addr,
    },
    /// A stream that we asked for is open.
    Connected {
        /// The channel.
        conn: ConnId,
    },
    /// A frame arrived.
    Frame {
        /// The channel.
        conn: ConnId,
        /// The frame without its length.
        bytes: Vec<u8>,
    },
    /// A stream ended or could not be opened. Nothing more comes on it; frames handed to it may be lost.
    Closed {
        /// The channel.
        conn: ConnId,
        /// Why, in the error's own words.
        error: String,
    },
    /// A witness operation ended.
    WitnessDone {
        /// Which.
        op: OpId,
        /// How.
        result: WitnessResult,
    },
    /// A disk operation ended.
    DiskDone {
        /// Which.
        op: OpId,
        /// How.
        result: DiskResult,
    },
    /// An address operation ended.
    AddressDone {
        /// Which.
        op: OpId,
        /// The error's own words, where it failed.
        result: Result<(), String>,
    },
    /// A delivery by LMTP that a hub asked for ended.
    LmtpDone {
        /// Which.
        op: OpId,
        /// The final reply of the store, or why there was none. Without a final reply the delivery may have happened.
        result: Result<LmtpReply, String>,
    },
    /// A client asks for something.
    Client {
        /// Number for the reply.
        req: ReqId,
        /// What.
        request: ClientRequest,
    },
    /// An operator asks for something.
    Operator {
        /// Number for the reply.
        req: ReqId,
        /// What.
        command: Command,
    },
    /// The process is told to end, for an upgrade or a shutdown: the node leaves in order what it has, and answers with
    /// [`Effect::Ended`], within [`END_US`] of its boot-time clock. Told again, it ends no sooner.
    End,
}

/// What a node wants done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send one datagram from our address on `network` to the peer's heartbeat port.
    SendDatagram {
        /// Which of our networks.
        network: String,
        /// The peer's address on it.
        to: Ipv4Addr,
        /// The payload, at most [`crate::wire::MAX_DATAGRAM`].
        bytes: Vec<u8>,
    },
    /// Open a stream to a peer's stream port; answered by [`Input::Connected`] or [`Input::Closed`] within `timeout_us`.
    Connect {
        /// Number of the new channel.
        conn: ConnId,
        /// The peer's address.
        to: Ipv4Addr,
        /// How long the attempt may take.
        timeout_us: u64,
    },
    /// Send a frame (the shell puts the length in front). Frames to a closed channel are dropped.
    SendFrame {
        /// The channel.
        conn: ConnId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Close a stream. No [`Input::Closed`] is needed in answer; one does no harm.
    Disconnect {
        /// The channel.
        conn: ConnId,
    },
    /// Do something at the witness share.
    Witness {
        /// Number of the operation.
        op: OpId,
        /// What.
        action: WitnessAction,
        /// How long it may take in all.
        timeout_us: u64,
    },
    /// From now on the witness is this share, with the configuration's port and account. A handle held at the old one is
    /// closed; operations still under way there may end as they like.
    UseWitness {
        /// Address of its host.
        address: Ipv4Addr,
        /// Name of the share.
        share: String,
    },
    /// Do something on the disk.
    Disk {
        /// Number of the operation.
        op: OpId,
        /// What.
        action: DiskAction,
    },
    /// Take or give up an address (with gratuitous ARP when taken).
    Address {
        /// Number of the operation.
        op: OpId,
        /// Which.
        which: AddressKind,
        /// Whether it shall be there.
        up: bool,
    },
    /// Deliver a message by LMTP to the service address (hub only): `MAIL FROM:<sender> ENVID=envid`, one `RCPT TO`, `DATA`.
    Lmtp {
        /// Number of the operation.
        op: OpId,
        /// The service address.
        to: Ipv4Addr,
        /// The hub's own id of the message.
        envid: String,
        /// Envelope sender, may be empty.
        sender: String,
        /// Envelope recipient.
        recipient: String,
        /// The message, shared between its recipients.
        message: std::sync::Arc<Vec<u8>>,
        /// How long the conversation may take in all.
        timeout_us: u64,
    },
    /// Answer a client or operator.
    Reply {
        /// The request.
        req: ReqId,
        /// The answer.
        reply: Reply,
    },
    /// End every client conversation of the store (LMTP and POP3) at once, discarding replies that have not left.
    CloseClients,
    /// Tell the world.
    Event(NodeEvent),
    /// The node must not go on (a write or flush failed, or its disk cannot be understood): exit; the supervisor of
    /// processes starts it afresh, and recovery finds what is really on the disk.
    Halt {
        /// Why.
        why: String,
    },
    /// The node was told to end, and has done what there was to do: exit. The last event says what was left undone.
    Ended,
}

/// At the witness share. There is at most one held handle ([`WitnessAction::Open`]) at a time; probes have their own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAction {
    /// Open the witness file (made when missing) exclusively, share access none, keep the handle, and read all of it.
    Open,
    /// Replace the file's content through the held handle and flush it. Each beat is such a write.
    Write {
        /// The content, at most [`crate::wire::MAX_WITNESS`].
        bytes: Vec<u8>,
    },
    /// Close the held handle.
    Close,
    /// Open the file `probe-NODE` exclusively, write as much as a witness file takes, flush, close and remove: proves that a lock could be
    /// had and that there is room. Makes the witness file where there is none.
    Probe,
}

/// How a witness operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessResult {
    /// [`WitnessAction::Open`]: we hold it; this is the content.
    Opened(Vec<u8>),
    /// [`WitnessAction::Open`]: somebody else holds it (sharing violation).
    Held,
    /// Written, closed or probed.
    Done,
    /// Anything else, deadline included. The held handle, if any, is gone.
    Failed(String),
}

/// On the disk. Every name is relative to the data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskAction {
    /// Append to the file, made when missing. Durable only after a [`DiskAction::Sync`] of it.
    Append {
        /// The file.
        file: String,
        /// What.
        bytes: Vec<u8>,
    },
    /// fsync the file and the folder that names it.
    Sync {
        /// The file.
        file: String,
    },
    /// Replace the whole file durably and atomically: temporary file, fsync, rename, fsync of the folder.
    Replace {
        /// The file.
        file: String,
        /// The whole content.
        bytes: Vec<u8>,
    },
    /// Set the file's length: cuts a tail, or fills with zeros. Durable only after a [`DiskAction::Sync`].
    SetLen {
        /// The file.
        file: String,
        /// New length.
        len: u64,
    },
    /// Rename durably within the data folder, over an existing file.
    Rename {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// Delete durably. A missing file is no error.
    Delete {
        /// The file.
        file: String,
    },
    /// Read part of a file; fewer bytes come back at its end.
    Read {
        /// The file.
        file: String,
        /// From here.
        offset: u64,
        /// At most so many bytes.
        len: u64,
    },
    /// Files of a folder (not its subfolders), sorted by name; a missing folder is an empty one.
    List {
        /// The folder; empty for the data folder itself.
        folder: String,
    },
}

impl DiskAction {
    /// The files that nothing touches any more once this has failed, and with which it fails where that has happened.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        let (one, other) = match self {
            DiskAction::Append { file, .. }
            | DiskAction::Sync { file }
            | DiskAction::SetLen { file, .. }
            | DiskAction::Delete { file } => (Some(file), None),
            DiskAction::Rename { from, to } => (Some(from), Some(to)),
            _ => (None, None),
        };
        one.into_iter().chain(other).map(String::as_str)
    }
}

/// How a disk operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskResult {
    /// Written, synced, renamed, deleted.
    Done,
    /// What was read.
    Bytes(Vec<u8>),
    /// Name and length of each file.
    Files(Vec<(String, u64)>),
    /// There is no such file (only [`DiskAction::Read`] and [`DiskAction::Rename`]).
    Missing,
    /// No space left on the device.
    Full,
    /// Anything else, in the error's own words.
    Failed(String),
}

/// The two addresses that move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressKind {
    /// Of the Cluster Group.
    Cluster,
    /// Of the service group.
    Service,
}

/// Reply of a store to one recipient of an LMTP delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LmtpReply {
    /// The three digits.
    pub code: u16,
    /// The text behind them.
    pub text: String,
}

/// What a client of the store (LMTP, POP3) or of a hub (SMTP) asks.
#[derive(Debug, Clone)]
pub enum ClientRequest {
    /// Before an LMTP or POP3 greeting: may clients be served now, and by whom?
    Greet,
    /// LMTP: one message for some recipients. Answered by [`Reply::Delivered`] with one answer for each, in order.
    Deliver {
        /// The hub's id, where `ENVID=` was given.
        envid: Option<String>,
        /// Envelope recipients, as given, without angle brackets.
        recipients: Vec<String>,
        /// The message, dots unstuffed.
        message: Vec<u8>,
    },
    /// POP3: what the mailbox holds. Answered by [`Reply::Listing`].
    List {
        /// The user's name.
        mailbox: String,
    },
    /// POP3: one piece of a message. Answered by [`Reply::Message`].
    Retrieve {
        /// The user's name.
        mailbox: String,
        /// From the listing.
        uid: u64,
        /// Which piece, from 0 on.
        piece: usize,
    },
    /// POP3 QUIT: delete these. Answered by [`Reply::Deleted`] once durable.
    Delete {
        /// The user's name.
        mailbox: String,
        /// From the listing; empty asks only who serves.
        uids: Vec<u64>,
    },
    /// SMTP on a hub. Answered by [`Reply::Queued`] once durable.
    Submit {
        /// Envelope sender, may be empty.
        sender: String,
        /// Envelope recipients.
        recipients: Vec<String>,
        /// The message, dots unstuffed.
        message: Vec<u8>,
    },
}

/// One message of a POP3 listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Unique in this mailbox for ever.
    pub uid: u64,
    /// The same for a client who keeps a list of what it has read: a message that a hub delivers again has it again. 1 to 70 printable
    /// characters (RFC 1939 7).
    pub unique_id: String,
    /// Bytes of the message.
    pub size: u64,
}

/// An answer to a client or an operator.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`ClientRequest::Greet`].
    Greeting(By),
    /// To [`ClientRequest::Deliver`], in the order of the recipients.
    Delivered(Vec<LmtpReply>),
    /// To [`ClientRequest::List`].
    Listing(Vec<Listed>),
    /// To [`ClientRequest::Retrieve`].
    Message {
        /// The piece.
        bytes: Vec<u8>,
        /// Whether another one follows.
        more: bool,
    },
    /// To [`ClientRequest::Delete`]; the shell puts `by` into its answer to QUIT.
    Deleted(By),
    /// To [`ClientRequest::Submit`]: the hub's own id.
    Queued(String),
    /// To a client: not now, or not this.
    Refused {
        /// Whether the same may succeed later (SMTP 4xx) or not (5xx).
        temporary: bool,
        /// Why.
        why: String,
    },
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Dump`].
    Dump(Box<Dump>),
    /// To any other command that was carried out: what to tell the operator.
    Done(String),
    /// To any other command that asks for what is so already: nothing was done.
    Unchanged(String),
    /// To a command that was refused, or failed: why. Nothing was changed, or the text says what was.
    Denied(String),
}

/// A node of either role, as a shell drives it.
pub trait Node: std::fmt::Debug {
    /// Hands in one input; returns what is to be done, in order.
    fn step(&mut self, now: Now, input: Input) -> Vec<Effect>;
    /// The boot-time instant, in microseconds, at which [`Input::Tick`] is due at the latest.
    fn next_deadline(&self) -> Option<u64>;
    /// What keeps it from being well until an operator does something about it; `status` says the same in words.
    fn obstacles(&self) -> Vec<Obstacle> {
        Vec::new()
    }
    /// What it holds in memory, for whoever checks that it is bounded.
    fn memory_use(&self) -> MemoryUse {
        MemoryUse::default()
    }
}

/// What only an operator ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The witness has voted for a cluster that this node does not know.
    NewerCluster,
    /// The record of the cluster is gone, and there are logs that tell of one.
    RecordLost,
    /// The other member was asked to agree to another witness, and was not heard since.
    WitnessUnsettled,
    /// A file of a database that is served here is damaged, and the other member cannot give it.
    Irreparable,
}

/// What a node holds in memory that grows with what is asked of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bodies of messages that a hub read to deliver them.
    pub bodies: usize,
    /// Their bytes.
    pub body_bytes: u64,
    /// Requests of clients without an answer.
    pub waiting: usize,
    /// Deliveries that are remembered so that none is stored twice, of all groups.
    pub remembered: usize,
}
