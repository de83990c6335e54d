//! A hub: mail comes in by SMTP, is kept on the disk until the store has it, and for a while longer.
//!
//! Invariants:
//! * A message is accepted (250) only when it is durable under `queue/`.
//! * It moves to `dumpster/` only when every recipient was acknowledged with an epoch that is not below the highest one
//!   this hub has seen, or was refused for good.
//! * What was acknowledged with an older epoch than a redelivery asks for is queued again. Redelivery is at-least-once;
//!   the store recognises duplicates by the hub's id and the recipient.
//! * The sender of what was refused for good is told by a message of its own (`bounce.rs`), which is durable before the recipient
//!   counts as done.
//! * A file that is not understood is kept under `….bad`, told and counted; each start looks whether it is understood now.
//! * Ages are counted in service time, which stands still while the hub does.
//! * What could not be delivered for too long is given up with the attempt that fails then, as if it had been refused for good.

mod bounce;
mod found;
mod queue;
mod status;

use crate::command::Command;
use crate::ctx::Ctx;
use crate::durable::{self, NotUnderstood};
use crate::io::{
    Boot, ClientRequest, ConnId, DiskAction, DiskResult, Effect, Input, LmtpReply, MemoryUse, Node, Now, OpId, Reply,
    ReqId,
};
use crate::links::{End, PeerStreams};
use crate::mailbox::{mailbox_of, message_key};
use crate::planted::Bug;
use crate::wire::{self, Msg};
use ccr_contract::config::Config;
use ccr_contract::event::EventKind;
use ccr_contract::reply::By;
pub use queue::Head;
use queue::{Mail, Queue, Work};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const STATE_FILE: &str = "hub.json";
/// The schema of `hub.json`.
const SCHEMA: u64 = 1;
/// Behind the name of a file that is not understood.
const BAD: &str = ".bad";
/// How long one delivery may take: at least this, and what a message of its length takes over a line of 2 Mbit/s.
const LMTP_US: u64 = 10_000_000;
/// First and longest pause after a failed delivery.
const BACKOFF_US: (u64, u64) = (200_000, 3_000_000);
/// Between two notes of the service time.
const CLOCK_US: u64 = 60_000_000;
/// Longest head of a queue file.
const MAX_HEAD: u64 = 64 << 10;
/// Most recipients of a message: the head that names them stays below [`MAX_HEAD`].
pub const MAX_RECIPIENTS: usize = 200;

/// What an operation was for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pending {
    State,
    Listed {
        dumpster: bool,
    },
    Head {
        name: String,
        dumpster: bool,
    },
    Accepted {
        req: ReqId,
        id: String,
    },
    Bounced(Bounced),
    Body {
        id: String,
    },
    Lmtp {
        id: String,
        recipient: usize,
    },
    Redelivered {
        conn: ConnId,
        to: RedeliveryRequest,
        count: u64,
    },
    Quiet,
}

/// A bounce on its way to the disk, and the recipient that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bounced {
    bounce: String,
    id: String,
    recipient: usize,
}

/// A takeover that asked for redelivery: by whom, and in which epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct RedeliveryRequest {
    who: String,
    epoch: u64,
}

/// Content of `hub.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubState {
    /// The highest epoch seen in an answer of the store or in a request for redelivery.
    pub epoch_seen: u64,
    /// Service time, in milliseconds.
    pub clock_ms: u64,
}

impl HubState {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        durable::encode(SCHEMA, self)
    }
    /// Reads the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        durable::decode(SCHEMA, bytes)
    }
}

/// A hub.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    version: String,
    ctx: Ctx<Pending>,
    streams: PeerStreams,
    queue: Queue,
    saved: HubState,
    started_us: u64,
    noted_us: u64,
    /// Files whose head is still to be read.
    unread: Vec<(String, bool)>,
    /// All files of queue and dumpster that the start found.
    found: BTreeSet<(String, bool)>,
    /// Files that are kept although they are not understood.
    set_aside: u64,
    /// Recipients that the store refused for good.
    refused: u64,
    ready: bool,
    prefix: String,
    next_id: u64,
    /// The last redelivery carried out: for which takeover, and how many messages.
    redelivered: (RedeliveryRequest, u64),
    halted: bool,
}

impl Hub {
    /// A hub that has not started yet.
    pub fn new(config: Config, boot: Boot) -> Self {
        let mut ctx = Ctx::new(&boot);
        let prefix = format!("{}-{:012x}", config.node, ctx.random() >> 16);
        Self {
            version: boot.version,
            streams: PeerStreams::new(&config),
            queue: Queue::new(boot.planted == Some(Bug::LoadEveryBody)),
            saved: HubState::default(),
            started_us: 0,
            noted_us: 0,
            unread: Vec::new(),
            found: BTreeSet::new(),
            set_aside: 0,
            refused: 0,
            ready: false,
            prefix,
            next_id: 1,
            redelivered: (RedeliveryRequest::default(), 0),
            halted: false,
            ctx,
            config,
        }
    }

    fn clock_ms(&self) -> u64 {
        self.saved.clock_ms + (self.ctx.now.boot_us.saturating_sub(self.started_us)) / 1000
    }

    fn handle(&mut self, input: Input) {
        let ctx = &mut self.ctx;
        match input {
            Input::Start => {
                self.started_us = ctx.now.boot_us;
                self.noted_us = ctx.now.boot_us;
                let read = DiskAction::Read {
                    file: STATE_FILE.into(),
                    offset: 0,
                    len: 4096,
                };
                ctx.disk(Pending::State, read);
                for (dumpster, folder) in [(false, "queue"), (true, "dumpster")] {
                    let folder = folder.to_owned();
                    ctx.disk(Pending::Listed { dumpster }, DiskAction::List { folder });
                }
            }
            Input::Accepted { conn, from } => self.streams.accepted(ctx, conn, from),
            Input::Connected { conn } => self.streams.connected(ctx, conn),
            Input::Closed { conn, .. } => {
                self.streams.closed(conn);
            }
            Input::Frame { conn, bytes } => self.on_frame(conn, &bytes),
            Input::DiskDone { op, result } => self.on_disk(op, result),
            Input::LmtpDone { op, result } => {
                if let Some(Pending::Lmtp { id, recipient }) = ctx.completed(op) {
                    self.on_delivered(&id, recipient, result);
                }
            }
            Input::Client { req, request } => self.on_client(req, request),
            Input::Operator { req, command } => self.on_operator(req, &command),
            // What was accepted is durable, and what is under way is delivered by the next life.
            Input::End => {
                self.halted = true;
                ctx.emit(Effect::CloseClients);
                ctx.emit(Effect::Ended);
            }
            Input::Tick | Input::Datagram { .. } | Input::WitnessDone { .. } | Input::AddressDone { .. } => {}
        }
    }

    fn halt(&mut self, why: String) {
        self.halted = true;
        self.ctx.emit(Effect::CloseClients);
        self.ctx.emit(Effect::Halt { why });
    }

    fn on_disk(&mut self, op: OpId, result: DiskResult) {
        let Some(what) = self.ctx.completed(op) else { return };
        let reads = matches!(
            what,
            Pending::State | Pending::Listed { .. } | Pending::Head { .. } | Pending::Body { .. }
        );
        // Only a message that is new here can be refused for want of room.
        let new = matches!(what, Pending::Accepted { .. } | Pending::Bounced(_));
        let refused = new && result == DiskResult::Full;
        if !reads && !refused && matches!(result, DiskResult::Failed(_) | DiskResult::Full) {
            let why = format!("{what:?}: {result:?}");
            return self.halt(why);
        }
        match (what, result) {
            (Pending::State, DiskResult::Bytes(bytes)) => match HubState::decode(&bytes) {
                Ok(saved) => self.saved = saved,
                Err(e) => self.halt(format!("{STATE_FILE}: {e}")),
            },
            (Pending::State, DiskResult::Missing) => {}
            (Pending::Listed { dumpster }, DiskResult::Files(files)) => {
                self.unread.extend(files.into_iter().map(|(name, _)| (name, dumpster)));
                self.found.extend(self.unread.iter().cloned());
                if dumpster {
                    self.read_next();
                }
            }
            (Pending::Head { name, dumpster }, DiskResult::Bytes(bytes)) => {
                self.on_head(&name, dumpster, &bytes);
                self.read_next();
            }
            (Pending::Head { name, .. }, DiskResult::Missing) => {
                self.report_bad(&name, "it was listed, and is gone");
                self.read_next();
            }
            (Pending::Accepted { req, id }, DiskResult::Done) => {
                self.queue.accept(&id);
                self.ctx.event(EventKind::HubQueued { id: id.clone() });
                self.ctx.reply(req, Reply::Queued(id));
            }
            (Pending::Accepted { req, id }, other) => {
                self.queue.remove(&id);
                let why = format!("the queue's disk: {other:?}");
                self.ctx.reply(req, Reply::Refused { temporary: true, why });
            }
            (Pending::Bounced(bounced), result) => self.on_bounced(&bounced, &result),
            (Pending::Body { id }, DiskResult::Bytes(bytes)) => match Head::into_message(bytes) {
                Ok(message) => self.queue.loaded(&id, message),
                Err(why) => {
                    self.queue.remove(&id);
                    self.keep_aside(&id, false, &why.to_string());
                }
            },
            (Pending::Body { id }, DiskResult::Missing) => {
                self.queue.remove(&id);
                self.report_bad(&id, "it is gone from the queue");
            }
            (Pending::Head { .. }, _) if self.ctx.plays(Bug::UnreadMessageIsNone) => self.read_next(),
            // What could not be read is not absent: the next life asks again.
            (Pending::Head { name: id, .. } | Pending::Body { id }, other) => {
                self.halt(format!("queue file {id}: {other:?}"));
            }
            (Pending::Redelivered { conn, to, count }, _) => {
                let epoch = to.epoch;
                self.redelivered = (to, count);
                self.send(conn, &Msg::Redelivered { epoch, count });
            }
            (Pending::State | Pending::Listed { .. }, other) => self.halt(format!("reading the disk: {other:?}")),
            (Pending::Quiet | Pending::Lmtp { .. }, _) => {}
        }
    }

    fn on_client(&mut self, req: ReqId, request: ClientRequest) {
        let refuse = |temporary, why: &str| Reply::Refused {
            temporary,
            why: why.into(),
        };
        let ClientRequest::Submit {
            sender,
            recipients,
            message,
        } = request
        else {
            return self.ctx.reply(req, refuse(false, "this node is a hub, no store"));
        };
        // What no store would take is not queued.
        let too_long = message.len() as u64 > self.config.settings.message_bytes;
        let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'<' && b != b'>';
        let odd = |s: &String| s.len() > 256 || !s.bytes().all(plain);
        let refusal = match () {
            () if !self.ready => Some(refuse(true, "the hub is starting")),
            () if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS => {
                Some(refuse(false, "number of recipients"))
            }
            () if recipients.iter().any(|r| odd(r) || mailbox_of(r).is_none()) || odd(&sender) => {
                Some(refuse(false, "malformed address"))
            }
            () if too_long => Some(refuse(false, "the message is too long")),
            () => None,
        };
        if let Some(refusal) = refusal {
            return self.ctx.reply(req, refusal);
        }
        let id = format!("{}-{}", self.prefix, self.next_id);
        self.next_id += 1;
        let head = Head {
            id: id.clone(),
            sender,
            recipients,
            key: message_key(&message),
            accepted_ms: self.clock_ms(),
            bytes: message.len() as u64,
            sum: None,
        };
        let bytes = head.encode(message);
        self.queue.arriving(head);
        let file = format!("queue/{id}");
        if self.ctx.plays(Bug::QueuedBeforeDurable) {
            self.ctx.reply(req, Reply::Queued(id.clone()));
        }
        self.ctx
            .disk(Pending::Accepted { req, id }, DiskAction::Replace { file, bytes });
    }

    fn on_operator(&mut self, req: ReqId, command: &Command) {
        let reply = match command {
            Command::Status => Reply::Status(Box::new(self.status())),
            Command::Dump => Reply::Dump(Box::new(self.dump())),
            _ => Reply::Denied("a hub has no part in this: ask a member".into()),
        };
        self.ctx.reply(req, reply);
    }

    fn on_frame(&mut self, conn: ConnId, bytes: &[u8]) {
        let (Some(end), Ok((msg, _))) = (self.streams.end(conn), wire::decode_frame(bytes)) else {
            self.streams.closed(conn);
            return self.ctx.emit(Effect::Disconnect { conn });
        };
        match (end, msg) {
            (End::Stranger, Msg::Hello { cluster, node }) if self.streams.hello(conn, &cluster, &node) => {}
            (End::Accepted(who), Msg::Redeliver { epoch }) if self.config.members.iter().any(|m| m.name == who) => {
                self.redeliver(conn, RedeliveryRequest { who, epoch });
            }
            (End::Stranger, _) => {
                self.streams.closed(conn);
                self.ctx.emit(Effect::Disconnect { conn });
            }
            _ => {}
        }
    }

    fn send(&mut self, conn: ConnId, msg: &Msg) {
        let bytes = wire::encode_frame(msg, &[]);
        self.ctx.emit(Effect::SendFrame { conn, bytes });
    }

    fn see_epoch(&mut self, epoch: u64) {
        if epoch > self.saved.epoch_seen {
            self.saved.epoch_seen = epoch;
            self.save(Pending::Quiet);
        }
    }

    /// Writes `hub.json`; `what` waits for it.
    fn save(&mut self, what: Pending) {
        let saved = HubState {
            clock_ms: self.clock_ms(),
            ..self.saved
        };
        let bytes = saved.encode();
        let file = STATE_FILE.to_owned();
        self.ctx.disk(what, DiskAction::Replace { file, bytes });
    }

    /// A new active node asks for what the old one may have lost.
    fn redeliver(&mut self, conn: ConnId, to: RedeliveryRequest) {
        let epoch = to.epoch;
        if !self.ready || epoch < self.saved.epoch_seen {
            return;
        }
        if self.redelivered.0 == to {
            let count = self.redelivered.1;
            return self.send(conn, &Msg::Redelivered { epoch, count });
        }
        // Two that were forced may have shared an epoch, where a ccrd did not know yet whose it is: what the other one has
        // acknowledged in it is not here.
        let shared = self.redelivered.0.epoch == epoch;
        self.see_epoch(epoch);
        let again = self.queue.redeliver(epoch + u64::from(shared));
        let count = again.len() as u64;
        for id in again {
            let (from, to) = (format!("dumpster/{id}"), format!("queue/{id}"));
            self.ctx.disk(Pending::Quiet, DiskAction::Rename { from, to });
        }
        self.ctx.event(EventKind::HubRedelivery { count, epoch });
        // Answered behind the renames: the note of the service time is the last write.
        self.save(Pending::Redelivered { conn, to, count });
    }

    fn on_delivered(&mut self, id: &str, recipient: usize, result: Result<LmtpReply, String>) {
        let now = self.ctx.now.boot_us;
        let by = result.as_ref().ok().and_then(|r| By::find(&r.text));
        let verdict = match (&result, &by) {
            (Ok(r), Some(by)) if (200..300).contains(&r.code) => {
                if by.epoch < self.saved.epoch_seen {
                    self.ctx.event(EventKind::HubFenced {
                        id: id.to_owned(),
                        epoch: by.epoch,
                        seen: self.saved.epoch_seen,
                    });
                    None
                } else {
                    self.see_epoch(by.epoch);
                    self.ctx.event(EventKind::HubDelivered {
                        id: id.to_owned(),
                        by_node: by.node.clone(),
                        by_epoch: by.epoch,
                    });
                    Some(by.epoch)
                }
            }
            // Refused for good: nobody will ever take it.
            (Ok(r), _) if (500..600).contains(&r.code) => match self.give_up(id, recipient, r) {
                Some(verdict) => Some(verdict),
                None => return,
            },
            _ if self
                .queue
                .is_expired(id, self.clock_ms(), self.config.settings.queue_age_ms) =>
            {
                let last = result.map_or_else(|why| why, |r| format!("{} {}", r.code, r.text));
                let expired = LmtpReply {
                    code: 550,
                    text: format!("4.4.7 QUEUE.Expired; message expired; the last attempt: {last}"),
                };
                match self.give_up(id, recipient, &expired) {
                    Some(verdict) => Some(verdict),
                    None => return,
                }
            }
            _ => None,
        };
        match verdict {
            Some(epoch) => self.queue.done(id, recipient, epoch),
            None => self.queue.failed(id, recipient, now, BACKOFF_US),
        }
        if self.queue.is_done(id) {
            self.retire(id);
        }
    }

    /// Nobody will ever take it: what the recipient counts as, or nothing where that waits until the sender's message is durable.
    fn give_up(&mut self, id: &str, recipient: usize, reply: &LmtpReply) -> Option<u64> {
        self.refused += 1;
        let (name, why) = (id.to_owned(), reply.text.clone());
        self.ctx.event(EventKind::HubRefused { id: name, why });
        (!self.bounce(id, recipient, reply)).then_some(bounce::REFUSED)
    }

    /// Every recipient has it: into the dumpster, or away.
    fn retire(&mut self, id: &str) {
        let from = format!("queue/{id}");
        if self.config.settings.dumpster_bytes == 0 || self.config.settings.dumpster_age_ms == 0 {
            self.queue.remove(id);
            return self.ctx.disk(Pending::Quiet, DiskAction::Delete { file: from });
        }
        self.queue.retire(id, self.clock_ms());
        let to = format!("dumpster/{id}");
        self.ctx.disk(Pending::Quiet, DiskAction::Rename { from, to });
    }

    fn evict(&mut self) {
        let clock = self.clock_ms();
        let s = &self.config.settings;
        let gone = self
            .queue
            .evict(s.dumpster_bytes, clock.saturating_sub(s.dumpster_age_ms));
        if gone.is_empty() {
            return;
        }
        let count = gone.len() as u64;
        self.ctx.event(EventKind::HubEvicted { count });
        for id in gone {
            let file = format!("dumpster/{id}");
            self.ctx.disk(Pending::Quiet, DiskAction::Delete { file });
        }
    }

    fn reconcile(&mut self) {
        if !self.ready {
            return;
        }
        let now = self.ctx.now.boot_us;
        if self.ctx.due(self.noted_us + CLOCK_US) {
            self.noted_us = now;
            self.ctx.wake_at(now + CLOCK_US);
            self.save(Pending::Quiet);
        }
        self.evict();
        for work in self.queue.work(now) {
            match work {
                Work::Send(id, recipient) => self.send_mail(&id, recipient),
                Work::Load(id) => {
                    self.queue.loading(&id);
                    let file = path(&id, false);
                    let len = self.queue.mail(&id).map_or(0, |m| m.head.bytes) + MAX_HEAD;
                    self.ctx
                        .disk(Pending::Body { id }, DiskAction::Read { file, offset: 0, len });
                }
            }
        }
        if let Some(at) = self.queue.next_due() {
            self.ctx.wake_at(at);
        }
    }

    fn send_mail(&mut self, id: &str, recipient: usize) {
        let (Some(Mail { head, .. }), Some(message)) = (self.queue.mail(id), self.queue.body(id)) else {
            return;
        };
        let (sender, to) = (head.sender.clone(), head.recipients[recipient].clone());
        let bytes = head.bytes;
        self.queue.sent(id, recipient);
        let op = self.ctx.number(Pending::Lmtp {
            id: id.to_owned(),
            recipient,
        });
        self.ctx.emit(Effect::Lmtp {
            op,
            to: self.config.service_address,
            envid: id.to_owned(),
            sender,
            recipient: to,
            message,
            timeout_us: lmtp_us(bytes),
        });
    }
}

fn lmtp_us(bytes: u64) -> u64 {
    LMTP_US + 4 * bytes
}

fn path(name: &str, dumpster: bool) -> String {
    format!("{}/{name}", if dumpster { "dumpster" } else { "queue" })
}

impl Node for Hub {
    fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.halted {
            return Vec::new();
        }
        self.ctx.begin(now);
        self.handle(input);
        if !self.halted {
            self.reconcile();
        }
        self.ctx.take_effects()
    }
    fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            bodies: self.queue.bodies(),
            body_bytes: self.queue.body_bytes(),
            ..MemoryUse::default()
        }
    }
    fn next_deadline(&self) -> Option<u64> {
        if self.halted { None } else { self.ctx.wake() }
    }
}
