//! The writing side: records are gathered, appended and flushed together; then, and only then, they are acknowledged.
//!
//! Because the disk keeps the order of operations, a roll needs no pause: end record, zeros, flush, the two renames, and
//! the next header are queued one behind the other, and the next batch behind them.

use super::log::{self, Label, Record};
use super::{Closed, Op, Outcome, Store};
use crate::ctx::Ctx;
use crate::io::DiskAction;
use crate::member::Pending;
use crate::planted::Bug;
use crate::wire::Link;
use ccr_contract::event::kind;
use std::collections::{BTreeSet, VecDeque};

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
        /// The message.
        body: &'a [u8],
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
struct Item {
    record: Option<Record>,
    ticket: Ticket,
}

/// The open log.
#[derive(Debug)]
pub struct Writer {
    epoch: u64,
    generation: u64,
    previous: u32,
    /// Length and checksum of the open log with everything that was queued for the disk.
    len: u64,
    crc: u32,
    has_records: bool,
    last_write: u64,
    last_seq: u64,
    batch: Vec<u8>,
    items: Vec<Item>,
    flights: VecDeque<Vec<Item>>,
    /// Deliveries that are not in the index yet.
    arriving: BTreeSet<(String, String)>,
    closing: u32,
}

impl Store {
    /// Opens a new generation behind the last closed one.
    pub(super) fn open_new(&mut self, ctx: &mut Ctx<Pending>, epoch: u64) {
        let last = self.last();
        let header = self.header(last.generation + 1, epoch, last.checksum).encode();
        self.leftover = None;
        let stream = self.stream.map(|s| s.to_string()).unwrap_or_default();
        let data = [
            ("group", self.name.as_str().into()),
            ("stream", stream.into()),
            ("generation", (last.generation + 1).into()),
            ("epoch", epoch.into()),
        ];
        ctx.info(kind::LOG_OPENED, &data);
        let (open, tmp) = (self.file(".log"), self.file("tmp.log"));
        self.disk(ctx, Op::Quiet, DiskAction::Delete { file: open.clone() });
        self.disk(
            ctx,
            Op::Quiet,
            DiskAction::Append {
                file: open,
                bytes: header.to_vec(),
            },
        );
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
            batch: Vec::new(),
            items: Vec::new(),
            flights: VecDeque::new(),
            arriving: BTreeSet::new(),
            closing: 0,
        });
    }

    /// The open log that an earlier life of this node left: what is whole of it is kept and closed.
    pub(super) fn take_leftover(&mut self, ctx: &mut Ctx<Pending>, bytes: &[u8]) {
        self.leftover = None;
        let last = self.last();
        let Ok(scan) = log::scan(bytes) else { return };
        let h = scan.header;
        let next = h.generation == last.generation + 1 && h.previous == last.checksum;
        if !next || Some(h.stream) != self.stream || scan.records.is_empty() {
            return;
        }
        self.index.apply(&scan);
        self.applied = h.generation;
        let file = self.file(".log");
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
        let link = Link {
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
    fn finish_file(&mut self, ctx: &mut Ctx<Pending>, closed: Closed) {
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

    /// The longest message that is stored.
    pub fn max_message(&self) -> usize {
        log::max_message(self.size)
    }

    /// Queues a change. Its ticket comes back in [`Outcome::Landed`], or never if the group is dismounted before.
    pub fn change(&mut self, ctx: &mut Ctx<Pending>, txn: u64, slot: usize, change: Change<'_>) {
        let Some(w) = self.writer.as_mut() else { return };
        let mut ticket = Ticket {
            txn,
            slot,
            generation: 0,
        };
        if let Change::Store { mailbox, hub_id, .. } = change
            && !hub_id.is_empty()
            && !ctx.plays(Bug::DropDuplicateCheck)
        {
            let id = (hub_id.to_owned(), mailbox.to_owned());
            if self.index.has_seen(hub_id, mailbox) || !w.arriving.insert(id) {
                // A duplicate is acknowledged with the first one: at once, or when that one is durable.
                let item = Item { record: None, ticket };
                match w.flights.back_mut() {
                    Some(flight) if w.items.is_empty() => flight.push(item),
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
            } => (mailbox, hub_id, key, body),
            Change::Delete { mailbox, .. } => (mailbox, "", "", &b""[..]),
        };
        let mut label = Label {
            seq: 0,
            mailbox: mailbox.to_owned(),
            hub_id: hub_id.to_owned(),
            key: key.to_owned(),
        };
        let need = (log::message_len(&label, body.len()) + log::END) as u64;
        if w.len + w.batch.len() as u64 + need > self.size {
            self.roll(ctx);
        }
        let Some(w) = self.writer.as_mut() else { return };
        ticket.generation = w.generation;
        let mut bytes = Vec::new();
        let record = match change {
            Change::Store { .. } => {
                w.last_seq += 1;
                label.seq = w.last_seq;
                log::put_message(&mut bytes, &label, body);
                let end = w.len + (w.batch.len() + bytes.len()) as u64;
                Record::Message {
                    label,
                    crc: crc32c::crc32c(body),
                    at: end - body.len() as u64,
                    len: body.len() as u64,
                }
            }
            Change::Delete { seq, .. } => {
                label.seq = seq;
                log::put_delete(&mut bytes, &label);
                Record::Delete(label)
            }
        };
        w.batch.append(&mut bytes);
        w.has_records = true;
        w.last_write = ctx.now.boot_us;
        w.items.push(Item {
            record: Some(record),
            ticket,
        });
        self.flush(ctx);
    }

    /// Sends the batch to the disk where no flush is under way: records that come meanwhile share the next one.
    fn flush(&mut self, ctx: &mut Ctx<Pending>) {
        if self.writer.as_ref().is_some_and(|w| w.flights.is_empty()) {
            self.flush_now(ctx);
        }
    }

    fn flush_now(&mut self, ctx: &mut Ctx<Pending>) {
        let file = self.file(".log");
        let Some(w) = self.writer.as_mut() else { return };
        if w.items.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut w.batch);
        w.len += bytes.len() as u64;
        w.crc = crc32c::crc32c_append(w.crc, &bytes);
        w.flights.push_back(std::mem::take(&mut w.items));
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

    pub(super) fn on_synced(&mut self, ctx: &mut Ctx<Pending>) -> Vec<Outcome> {
        let Some(w) = self.writer.as_mut() else {
            return Vec::new();
        };
        let Some(flight) = w.flights.pop_front() else {
            return Vec::new();
        };
        let epoch = w.epoch;
        let mut tickets = Vec::with_capacity(flight.len());
        for item in flight {
            if let Some(record) = &item.record {
                if let Record::Message { label, .. } = record {
                    w.arriving.remove(&(label.hub_id.clone(), label.mailbox.clone()));
                }
                self.index.apply_record(record, item.ticket.generation, epoch);
            }
            tickets.push(item.ticket);
        }
        self.flush(ctx);
        vec![Outcome::Landed(tickets)]
    }

    /// Closes the open log and begins the next one.
    pub fn roll(&mut self, ctx: &mut Ctx<Pending>) {
        self.flush_now(ctx);
        let Some(w) = self.writer.as_mut().filter(|w| w.has_records) else {
            return;
        };
        let closed = Closed {
            link: Link {
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
        self.disk(ctx, Op::Quiet, append(&tmp, Vec::new()));
    }

    pub(super) fn on_closed(&mut self, ctx: &mut Ctx<Pending>, closed: Closed) -> Vec<Outcome> {
        let link = closed.link;
        self.closed.insert(link.generation, closed);
        // After a dismount what was flushed last is not in the index: the next mount reads this log.
        if let Some(w) = self.writer.as_mut() {
            self.applied = self.applied.max(link.generation);
            w.closing = w.closing.saturating_sub(1);
        }
        let stream = self.stream.map(|s| s.to_string()).unwrap_or_default();
        let data = [
            ("group", self.name.as_str().into()),
            ("stream", stream.into()),
            ("generation", link.generation.into()),
            ("epoch", link.epoch.into()),
            ("checksum", format!("{:08x}", link.checksum).into()),
        ];
        ctx.info(kind::LOG_CLOSED, &data);
        vec![Outcome::Closed(link.generation)]
    }

    /// Rolls a log that has been left alone for a while, so that what it holds is shipped.
    pub fn roll_when_idle(&mut self, ctx: &mut Ctx<Pending>, idle_us: u64) {
        let Some(w) = self.writer.as_ref().filter(|w| w.has_records) else {
            return;
        };
        if ctx.due(w.last_write + idle_us) {
            self.roll(ctx);
        }
    }

    /// Whether everything that was queued is durable and every record is in a closed log.
    pub fn is_drained(&self) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|w| w.items.is_empty() && w.flights.is_empty() && !w.has_records && w.closing == 0)
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
            self.leftover = Some(w.len);
        }
        self.stale |= mounting || !drained;
    }
}
