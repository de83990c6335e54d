//! A message that fits into no generation goes into the log piece by piece, each as long as the open log has room for: the next one
//! when the one before is durable. So no more of it is on its way to the disk than one generation, beside the message itself, which
//! is there once for all its recipients. Nothing comes between its parts and its whole: other changes wait behind it.

use super::Store;
use super::active::{Change, Item, Ticket};
use super::log::{self, Label, Record};
use crate::ctx::Ctx;
use crate::op::GroupOp;
use crate::planted::Bug;
use std::sync::Arc;

/// Least part of a generation that a piece is worth a record for, where more is to come.
const LEAST: u64 = 16;

/// A message on its way into the log.
#[derive(Debug)]
pub struct Long {
    ticket: Option<Ticket>,
    label: Label,
    body: Arc<Vec<u8>>,
    crc: u32,
    /// Bytes of the body that are in the log or on their way there.
    done: usize,
}

impl Long {
    /// Nothing of it is written yet.
    pub fn new(ticket: Ticket, label: Label, body: Arc<Vec<u8>>) -> Self {
        let crc = crc32c::crc32c(&body);
        Self {
            ticket: Some(ticket),
            label,
            body,
            crc,
            done: 0,
        }
    }
}

/// A change that waits behind a long message.
#[derive(Debug)]
pub struct Later {
    ticket: Ticket,
    mailbox: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Store {
        hub_id: String,
        key: String,
        body: Arc<Vec<u8>>,
    },
    Delete(u64),
}

impl Later {
    /// The change, to be made later.
    pub fn new(ticket: Ticket, change: Change<'_>) -> Self {
        let (mailbox, what) = match change {
            Change::Store {
                mailbox,
                hub_id,
                key,
                body,
            } => {
                let (hub_id, key, body) = (hub_id.to_owned(), key.to_owned(), Arc::clone(body));
                (mailbox, What::Store { hub_id, key, body })
            }
            Change::Delete { mailbox, seq } => (mailbox, What::Delete(seq)),
        };
        let mailbox = mailbox.to_owned();
        Self { ticket, mailbox, what }
    }
    fn change(&self) -> Change<'_> {
        let mailbox = &self.mailbox;
        match &self.what {
            What::Store { hub_id, key, body } => Change::Store {
                mailbox,
                hub_id,
                key,
                body,
            },
            What::Delete(seq) => Change::Delete { mailbox, seq: *seq },
        }
    }
}

impl Store {
    /// The next piece of a long message, where the one before is durable; behind its end what has waited for that.
    pub(super) fn advance(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        while let Some(w) = self.writer.as_mut() {
            if let Some(long) = w.long.take() {
                if !w.flights.is_empty() || !w.items.is_empty() {
                    w.long = Some(long);
                    return;
                }
                self.put_piece(ctx, long);
            } else if let Some(later) = w.later.pop_front() {
                self.put(ctx, later.ticket, later.change());
            } else {
                return;
            }
        }
    }

    fn put_piece(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, mut long: Long) {
        let (size, stream) = (self.generation_bytes(), self.stream.unwrap_or_default());
        let rest = (long.body.len() - long.done) as u64;
        let room = |s: &Self| {
            s.writer
                .as_ref()
                .map_or(0, |w| w.room(size))
                .saturating_sub(log::PART_FRAME as u64)
        };
        if room(self) < rest.min(size / LEAST) {
            self.roll(ctx);
        }
        let len = rest.min(room(self));
        let Some(w) = self.writer.as_mut() else { return };
        w.begin_record(stream, ctx.now.boot_us);
        let (offset, seq) = (long.done as u64, long.label.seq);
        let piece = &long.body[long.done..][..len as usize];
        log::put_part(&mut w.batch, seq, offset, piece);
        let record = Record::Part {
            seq,
            offset,
            crc: crc32c::crc32c(piece),
            at: w.end() - len,
            len,
        };
        let early = ctx.plays(Bug::AckFirstPart).then(|| long.ticket.take()).flatten();
        w.items.push(Item {
            record: Some(record),
            ticket: early.map(|t| Ticket {
                generation: w.generation,
                ..t
            }),
        });
        long.done += len as usize;
        if long.done < long.body.len() {
            w.long = Some(long);
        } else {
            self.put_whole(ctx, long);
        }
        self.flush(ctx);
    }

    fn put_whole(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, long: Long) {
        let need = log::whole_len(&long.label) as u64;
        if self
            .writer
            .as_ref()
            .is_some_and(|w| w.room(self.generation_bytes()) < need)
        {
            self.roll(ctx);
        }
        let stream = self.stream.unwrap_or_default();
        let Some(w) = self.writer.as_mut() else { return };
        w.begin_record(stream, ctx.now.boot_us);
        let (crc, len) = (long.crc, long.body.len() as u64);
        log::put_whole(&mut w.batch, &long.label, crc, len);
        let record = Record::Whole {
            label: long.label,
            crc,
            len,
        };
        let generation = w.generation;
        w.items.push(Item {
            record: Some(record),
            ticket: long.ticket.map(|t| Ticket { generation, ..t }),
        });
    }
}
