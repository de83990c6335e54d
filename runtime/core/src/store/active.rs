//! The writing side: records are gathered, appended and flushed together; then, and only then, they are acknowledged.
//!
//! Because the disk keeps the order of operations, a roll needs no pause: end record, zeros, flush, the two renames, and
//! the next header are queued one behind the other, and the next batch behind them.
//!
//! Marks ([`log::put_mark`]) tell a torn tail from damage: a batch that follows another one begins with a mark, and the last one is
//! followed by one as soon as it is durable.

use super::log::{self, Label, Record};
use super::long::{Later, Long};
use super::{Outcome, Store};
use crate::chain::{ChainLink, Closed, Stream};
use crate::ctx::Ctx;
use crate::io::DiskAction;
use crate::op::{GroupOp, Op};
use crate::planted::Bug;
use ccr_contract::event::EventKind;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Somebody waits for a record to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The request.
    pub txn: u64,
    /// Which of its parts.
    pub slot: usize,
    /// The generation that holds the record; 0 when nothing had to be written.
    pub generation: u64,
}

/// A change to be made.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Store a message.
    Store {
        /// Whose mailbox.
        mailbox: &'a str,
        /// The hub's id; empty without.
        hub_id: &'a str,
        /// The client's key; empty without.
        key: &'a str,
        /// The message, shared between its recipients.
        body: &'a Arc<Vec<u8>>,
    },
    /// Delete a message.
    Delete {
        /// Whose mailbox.
        mailbox: &'a str,
        /// Which.
        seq: u64,
    },
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) record: Option<Record>,
    /// Who waits for it: nobody for a part.
    pub(super) ticket: Option<Ticket>,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Flight {
    items: Vec<Item>,
    /// The generation it is in, and where it ends there.
    generation: u64,
    end: u64,
}

/// The open log.
#[derive(Debug)]
pub struct Writer {
    epoch: u64,
    pub(super) generation: u64,
    previous: u32,
    /// Length and checksum of the open log with everything that was queued for the disk.
    len: u64,
    crc: u32,
    has_records: bool,
    last_write: u64,
    pub(super) last_seq: u64,
    /// Bytes of the open log that are known to be durable.
    durable: u64,
    /// The most that a mark names of them.
    marked: u64,
    pub(super) batch: Vec<u8>,
    /// The batch begins with a mark, which is filled in when it goes to the disk.
    has_mark: bool,
    pub(super) items: Vec<Item>,
    pub(super) flights: VecDeque<Flight>,
    /// A message on its way into the log that spans generations, and what waits behind it.
    pub(super) long: Option<Long>,
    pub(super) later: VecDeque<Later>,
    /// Deliveries that are not in the index yet.
    arriving: BTreeSet<(String, String)>,
    closing: u32,
}

impl Writer {
    /// Whether a record that begins a batch is to stand behind a mark: something before it may not be named by one yet.
    fn needs_mark(&self) -> bool {
        let named = self.flights.is_empty() && self.marked >= self.durable;
        self.batch.is_empty() && self.len > log::HEADER as u64 && !named
    }
    /// Bytes that one more record may have before the log is full.
    pub(super) fn room(&self, size: u64) -> u64 {
        let mark = u64::from(self.needs_mark()) * log::MARK as u64;
        let used = self.len + self.batch.len() as u64 + mark + log::END as u64;
        size.saturating_sub(used)
    }
    /// A record is about to be put into the batch.
    pub(super) fn begin_record(&mut self, stream: Stream, now_us: u64) {
        if self.needs_mark() {
            self.has_mark = true;
            log::put_mark(&mut self.batch, stream, 0);
        }
        self.has_records = true;
        self.last_write = now_us;
    }
    /// Where the batch ends in the open log.
    pub(super) fn end(&self) -> u64 {
        self.len + self.batch.len() as u64
    }
}

impl Store {
    /// Opens a new generation behind the last closed one. Logs from there on that were lost go aside first: under their own names
    /// they would be taken for what follows now.
    pub(super) fn open_new(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, epoch: u64) {
        let last = self.last();
        for g in std::mem::take(&mut self.orphans).into_keys() {
            self.set_aside(ctx, self.log_file(g), "mounted without it");
        }
        let header = self.header(last.generation + 1, epoch, last.checksum).encode();
        self.tail = None;
        self.begun = last.generation;
        let stream = self.stream.map(|s| s.to_string()).unwrap_or_default();
        ctx.event(EventKind::LogOpened {
            group: self.name.clone(),
            stream,
            generation: last.generation + 1,
            epoch,
        });
        let (open, tmp) = (self.file(".log"), self.file("tmp.log"));
        self.disk(ctx, Op::Quiet, DiskAction::Delete { file: open.clone() });
        self.disk(
            ctx,
            Op::Quiet,
            DiskAction::Append {
                file: open.clone(),
                bytes: header.to_vec(),
            },
        );
        // Before any record: an open log without a header that holds more than one is damaged.
        self.disk(ctx, Op::Quiet, DiskAction::Sync { file: open });
        self.disk(
            ctx,
            Op::Quiet,
            DiskAction::Append {
                file: tmp,
                bytes: Vec::new(),
            },
        );
        self.writer = Some(Writer {
            epoch,
            generation: last.generation + 1,
            previous: last.checksum,
            len: log::HEADER as u64,
            crc: crc32c::crc32c(&header),
            has_records: false,
            last_write: ctx.now.boot_us,
            last_seq: self.index.last_seq().max(epoch << 32),
            durable: 0,
            marked: 0,
            batch: Vec::new(),
            has_mark: false,
            items: Vec::new(),
            flights: VecDeque::new(),
            long: None,
            later: VecDeque::new(),
            arriving: BTreeSet::new(),
            closing: 0,
        });
    }

    /// The open log that an earlier life of this node left: what is whole of it is kept and closed. What cannot be taken is kept
    /// under another name.
    pub(super) fn take_tail(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, bytes: &[u8]) {
        self.tail = None;
        let last = self.last();
        let file = self.file(".log");
        let damage = self.open_damage.take();
        let scan = match log::scan(bytes) {
            Ok(scan) => scan,
            // A header that was never flushed, and cut away.
            Err(_) if bytes.is_empty() => return,
            Err(e) => return self.set_aside(ctx, file, &damage.unwrap_or_else(|| e.to_string())),
        };
        let h = scan.header;
        let next = h.generation == last.generation + 1 && h.previous == last.checksum;
        if !next || Some(h.stream) != self.stream {
            let why = format!("generation {} does not follow what is there", h.generation);
            return self.set_aside(ctx, file, &damage.unwrap_or(why));
        }
        if let Some(why) = damage {
            // An operator accepts that the rest is lost.
            self.set_aside(ctx, file.clone(), &why);
            let bytes = bytes[..scan.used].to_vec();
            let whole = DiskAction::Append {
                file: file.clone(),
                bytes,
            };
            self.disk(ctx, Op::Quiet, whole);
        }
        if scan.records.is_empty() {
            return;
        }
        self.index.apply(&scan);
        self.applied = h.generation;
        let mut used = scan.used as u64;
        let cut = DiskAction::SetLen {
            file: file.clone(),
            len: used,
        };
        self.disk(ctx, Op::Quiet, cut);
        if scan.end.is_none() {
            let mut end = Vec::new();
            log::put_end(&mut end, scan.crc);
            used += end.len() as u64;
            self.disk(ctx, Op::Quiet, DiskAction::Append { file, bytes: end });
        }
        let link = ChainLink {
            generation: h.generation,
            epoch: h.epoch,
            checksum: scan.crc,
        };
        let closed = Closed {
            link,
            previous: h.previous,
            used,
        };
        self.closed.insert(h.generation, closed);
        self.finish_file(ctx, closed);
    }

    /// Gives the open log its exact size and its final name.
    fn finish_file(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, closed: Closed) {
        let open = self.file(".log");
        let to = self.log_file(closed.link.generation);
        debug_assert!(closed.used <= self.size, "{closed:?} in {} bytes", self.size);
        // Filled up, never cut: inspection refuses a log that is too long, and what was acknowledged stays on the disk.
        let len = self.size.max(closed.used);
        self.disk(
            ctx,
            Op::Quiet,
            DiskAction::SetLen {
                file: open.clone(),
                len,
            },
        );
        self.disk(ctx, Op::Quiet, DiskAction::Sync { file: open.clone() });
        self.disk(ctx, Op::Closed(closed), DiskAction::Rename { from: open, to });
    }

    /// Queues a change. Its ticket comes back in [`Outcome::Landed`], or never if the group is dismounted before.
    pub fn change(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, txn: u64, slot: usize, change: Change<'_>) {
        let Some(w) = self.writer.as_mut() else { return };
        let ticket = Ticket {
            txn,
            slot,
            generation: 0,
        };
        if w.long.is_some() || !w.later.is_empty() {
            return w.later.push_back(Later::new(ticket, change));
        }
        self.put(ctx, ticket, change);
        self.advance(ctx);
    }

    /// Puts a change into the batch; of a message that fits into no generation only that it is on its way.
    pub(super) fn put(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, mut ticket: Ticket, change: Change<'_>) {
        let Some(w) = self.writer.as_mut() else { return };
        if let Change::Store { mailbox, hub_id, .. } = change
            && !hub_id.is_empty()
            && !ctx.plays(Bug::DropDuplicateCheck)
        {
            let id = (hub_id.to_owned(), mailbox.to_owned());
            let anybody = ctx.plays(Bug::DedupeWithoutRecipient) && self.index.was_delivered_to_any(hub_id);
            if anybody || self.index.was_delivered(hub_id, mailbox) || !w.arriving.insert(id) {
                // A duplicate is acknowledged with the first one: at once, or when that one is durable.
                let item = Item {
                    record: None,
                    ticket: Some(ticket),
                };
                match w.flights.back_mut() {
                    Some(flight) if w.items.is_empty() => flight.items.push(item),
                    _ => w.items.push(item),
                }
                return self.flush(ctx);
            }
        }
        let (mailbox, hub_id, key, body) = match change {
            Change::Store {
                mailbox,
                hub_id,
                key,
                body,
            } => (mailbox, hub_id, key, Some(body)),
            Change::Delete { mailbox, .. } => (mailbox, "", "", None),
        };
        let mut label = Label {
            seq: 0,
            mailbox: mailbox.to_owned(),
            hub_id: hub_id.to_owned(),
            key: key.to_owned(),
        };
        let len = body.map_or(0, |b| b.len());
        if let Some(body) = body.filter(|_| len > log::max_message(self.size)) {
            w.last_seq += 1;
            label.seq = w.last_seq;
            w.long = Some(Long::new(ticket, label, Arc::clone(body)));
            return;
        }
        if log::message_len(&label, len) as u64 > w.room(self.size) {
            self.roll(ctx);
        }
        let stream = self.stream.unwrap_or_default();
        let Some(w) = self.writer.as_mut() else { return };
        w.begin_record(stream, ctx.now.boot_us);
        ticket.generation = w.generation;
        let record = match change {
            Change::Store { body, .. } => {
                w.last_seq += 1;
                label.seq = w.last_seq;
                log::put_message(&mut w.batch, &label, body);
                let len = body.len() as u64;
                Record::Message {
                    label,
                    crc: crc32c::crc32c(body),
                    at: w.end() - len,
                    len,
                }
            }
            Change::Delete { seq, .. } => {
                label.seq = seq;
                log::put_delete(&mut w.batch, &label);
                Record::Delete(label)
            }
        };
        w.items.push(Item {
            record: Some(record),
            ticket: Some(ticket),
        });
        self.flush(ctx);
    }

    /// Sends the batch to the disk where no flush is under way: records that come meanwhile share the next one.
    pub(super) fn flush(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        if self.writer.as_ref().is_some_and(|w| w.flights.is_empty()) {
            self.flush_now(ctx);
        }
    }

    fn flush_now(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let file = self.file(".log");
        let stream = self.stream.unwrap_or_default();
        let Some(w) = self.writer.as_mut() else { return };
        if w.items.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut w.batch);
        if std::mem::take(&mut w.has_mark) {
            let mut mark = Vec::with_capacity(log::MARK);
            log::put_mark(&mut mark, stream, w.durable);
            bytes[..log::MARK].copy_from_slice(&mark);
            w.marked = w.durable;
        }
        w.len += bytes.len() as u64;
        w.crc = crc32c::crc32c_append(w.crc, &bytes);
        w.flights.push_back(Flight {
            items: std::mem::take(&mut w.items),
            generation: w.generation,
            end: w.len,
        });
        let early = ctx.plays(Bug::AckBeforeFlush) && !bytes.is_empty();
        let (appended, synced) = if early {
            (Op::Synced, Op::Quiet)
        } else {
            (Op::Quiet, Op::Synced)
        };
        if !bytes.is_empty() {
            let append = DiskAction::Append {
                file: file.clone(),
                bytes,
            };
            self.disk(ctx, appended, append);
        }
        self.disk(ctx, synced, DiskAction::Sync { file });
    }

    pub(super) fn on_synced(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) -> Vec<Outcome> {
        let Some(w) = self.writer.as_mut() else {
            return Vec::new();
        };
        let Some(flight) = w.flights.pop_front() else {
            return Vec::new();
        };
        if flight.generation == w.generation {
            w.durable = w.durable.max(flight.end);
        }
        let epoch = w.epoch;
        let mut tickets = Vec::with_capacity(flight.items.len());
        for item in flight.items {
            if let Some(record) = &item.record {
                if let Record::Message { label, .. } | Record::Whole { label, .. } = record {
                    w.arriving.remove(&(label.hub_id.clone(), label.mailbox.clone()));
                }
                self.index.apply_record(record, flight.generation, epoch);
            }
            tickets.extend(item.ticket);
        }
        self.flush(ctx);
        self.advance(ctx);
        self.mark(ctx);
        vec![Outcome::Landed(tickets)]
    }

    /// With nothing more to write, notes how much of the open log is durable. The note itself is not flushed: it is there
    /// whenever the process alone dies, and soon after where the power goes.
    fn mark(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let (size, stream) = (self.size, self.stream.unwrap_or_default());
        let Some(w) = self.writer.as_mut() else { return };
        let room = w.len + (log::MARK + log::END) as u64 <= size;
        if !w.flights.is_empty() || !w.batch.is_empty() || !w.has_records || w.marked >= w.durable || !room {
            return;
        }
        let mut bytes = Vec::with_capacity(log::MARK);
        log::put_mark(&mut bytes, stream, w.durable);
        w.marked = w.durable;
        w.len += bytes.len() as u64;
        w.crc = crc32c::crc32c_append(w.crc, &bytes);
        let file = self.file(".log");
        self.disk(ctx, Op::Quiet, DiskAction::Append { file, bytes });
    }

    /// Closes the open log and begins the next one.
    pub fn roll(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        self.flush_now(ctx);
        let Some(w) = self.writer.as_mut().filter(|w| w.has_records) else {
            return;
        };
        let closed = Closed {
            link: ChainLink {
                generation: w.generation,
                epoch: w.epoch,
                checksum: w.crc,
            },
            previous: w.previous,
            used: w.len + log::END as u64,
        };
        let mut end = Vec::new();
        log::put_end(&mut end, w.crc);
        w.generation += 1;
        w.previous = w.crc;
        w.has_records = false;
        w.len = log::HEADER as u64;
        (w.durable, w.marked) = (0, 0);
        w.closing += 1;
        let (generation, epoch, previous) = (w.generation, w.epoch, w.previous);
        let header = self.header(generation, epoch, previous).encode();
        if let Some(w) = self.writer.as_mut() {
            w.crc = crc32c::crc32c(&header);
        }
        let (open, tmp) = (self.file(".log"), self.file("tmp.log"));
        let append = |file: &String, bytes: Vec<u8>| DiskAction::Append {
            file: file.clone(),
            bytes,
        };
        self.disk(ctx, Op::Quiet, append(&open, end));
        self.finish_file(ctx, closed);
        let from = tmp.clone();
        let to = open.clone();
        self.disk(ctx, Op::Quiet, DiskAction::Rename { from, to });
        self.disk(ctx, Op::Quiet, append(&open, header.to_vec()));
        self.disk(ctx, Op::Quiet, DiskAction::Sync { file: open });
        self.disk(ctx, Op::Quiet, append(&tmp, Vec::new()));
    }

    pub(super) fn on_closed(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, closed: Closed) -> Vec<Outcome> {
        let link = closed.link;
        self.closed.insert(link.generation, closed);
        // After a dismount what was flushed last is not in the index: the next mount reads this log.
        if let Some(w) = self.writer.as_mut() {
            self.applied = self.applied.max(link.generation);
            w.closing = w.closing.saturating_sub(1);
        }
        let stream = self.stream.map(|s| s.to_string()).unwrap_or_default();
        ctx.event(EventKind::LogClosed {
            group: self.name.clone(),
            stream,
            generation: link.generation,
            epoch: link.epoch,
            checksum: format!("{:08x}", link.checksum),
        });
        vec![Outcome::Closed(link.generation)]
    }

    /// Rolls a log that has been left alone for a while, so that what it holds is shipped.
    pub fn roll_when_idle(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, idle_us: u64) {
        let Some(w) = self.writer.as_ref().filter(|w| w.has_records) else {
            return;
        };
        if ctx.due(w.last_write + idle_us) {
            self.roll(ctx);
        }
    }

    /// Whether everything that was queued is durable and every record is in a closed log.
    pub fn is_drained(&self) -> bool {
        self.writer.as_ref().is_none_or(|w| {
            let written = w.items.is_empty() && w.flights.is_empty() && w.long.is_none() && w.later.is_empty();
            written && !w.has_records && w.closing == 0
        })
    }

    /// What a planted bug ships: the open log, closed as it is at this moment. Its generation and bytes in use.
    pub(crate) fn open_as_closed(&self) -> Option<(u64, u64)> {
        let w = self.writer.as_ref().filter(|w| w.has_records && w.flights.is_empty())?;
        Some((w.generation, w.len + log::END as u64))
    }
    /// The generation being written.
    pub fn open_generation(&self) -> u64 {
        self.writer.as_ref().map_or(0, |w| w.generation)
    }

    /// Stops writing. Nobody is acknowledged any more. What the open log holds stays on the disk, and leaves the index: it
    /// is part of the stream only when it is closed.
    pub fn dismount(&mut self) {
        let drained = self.is_drained();
        let mounting = self.mounting.take().is_some();
        if let Some(w) = self.writer.take() {
            self.tail = Some(w.len);
        }
        self.stale |= mounting || !drained;
    }
}
