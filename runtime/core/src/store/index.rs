//! What a storage group holds, without the bodies: those stay on the disk and are read when asked for.

use super::log::{Label, Moved, Record, Scan};
use super::pieces::{Body, Pending, Piece};
use ccr_contract::dump;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Deliveries that are remembered as stored, deleted or not: more than a dumpster of 18 MB can hold and deliver again, of
/// messages of 72 bytes and more. The oldest are forgotten first, in the order of the log, so that both nodes forget the same.
const REMEMBERED: usize = 1 << 18;

/// A message and where its body is: in logs or segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Names it.
    pub label: Label,
    /// Generation that makes it a message.
    pub generation: u64,
    /// Epoch of that generation.
    pub epoch: u64,
    /// Where the body is.
    pub body: Body,
    /// Length of the body.
    pub len: u64,
    /// CRC32C of the body.
    pub crc: u32,
}

impl Entry {
    /// The body's pieces, in their order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let (one, more) = match &self.body {
            Body::At(at) => (Some(*at), &[][..]),
            Body::Pieces(pieces) => (None, &pieces[..]),
        };
        let one = one.map(|at| Piece {
            generation: self.generation,
            at,
            len: self.len,
            crc: self.crc,
        });
        one.into_iter().chain(more.iter().copied())
    }
}

/// What a file of a generation holds of messages: those that it makes one, and pieces of bodies by message and place in the body.
#[derive(Debug, Clone, Default)]
pub struct Held {
    messages: BTreeSet<u64>,
    pieces: BTreeSet<(u64, u64)>,
}

impl Held {
    /// Of what was read of the file.
    pub fn of(scan: &Scan) -> Self {
        let mut held = Self::default();
        for record in &scan.records {
            match record {
                Record::Message { label, .. } => {
                    held.messages.insert(label.seq);
                    held.pieces.insert((label.seq, 0));
                }
                Record::Part { seq, offset, .. } => _ = held.pieces.insert((*seq, *offset)),
                Record::Whole { label, .. } => _ = held.messages.insert(label.seq),
                Record::Delete(_) | Record::Tombstone(_) => {}
            }
        }
        held
    }
    /// Whether it holds all that a message has in this generation.
    fn has(&self, entry: &Entry, generation: u64) -> bool {
        let mut offset = 0;
        let mut pieces = entry.pieces().map(|p| {
            let here = p.generation != generation || self.pieces.contains(&(entry.label.seq, offset));
            offset += p.len;
            here
        });
        let named = entry.generation != generation || self.messages.contains(&entry.label.seq);
        pieces.all(|here| here) && named
    }
}

/// The messages of a storage group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    entries: BTreeMap<u64, Entry>,
    mailboxes: BTreeMap<String, BTreeSet<u64>>,
    /// Hub ids with recipients that were stored once, deleted or not.
    delivered: BTreeSet<(String, String)>,
    /// The same, oldest first.
    order: VecDeque<(String, String)>,
    /// Deletions that the database may not have taken in yet: the pieces of what they deleted.
    deleted: BTreeMap<u64, Vec<Piece>>,
    /// Parts of a message that is not whole yet.
    pending: Pending,
    /// Parts of messages that will never be whole, of which the database may not know yet that they are of no use.
    useless: Vec<Piece>,
    last_seq: u64,
}

impl Index {
    /// Takes in what a log or segment says.
    pub fn apply(&mut self, scan: &Scan) {
        for record in &scan.records {
            self.apply_record(record, scan.header.generation, scan.header.epoch);
        }
    }
    /// Takes in one record.
    pub fn apply_record(&mut self, record: &Record, generation: u64, epoch: u64) {
        let (label, body, len, crc) = match record {
            Record::Part {
                seq,
                offset,
                crc,
                at,
                len,
            } => {
                self.last_seq = self.last_seq.max(*seq);
                let (at, len, crc) = (*at, *len, *crc);
                let piece = Piece {
                    generation,
                    at,
                    len,
                    crc,
                };
                return self.useless.extend(self.pending.add(*seq, *offset, piece));
            }
            Record::Whole { label, crc, len } => match self.pending.whole(label.seq, *len, *crc) {
                Ok(pieces) => (label, Body::Pieces(pieces), len, crc),
                Err(pieces) => {
                    self.useless.extend(pieces);
                    return self.see(label);
                }
            },
            Record::Message { label, crc, at, len } => {
                self.useless.extend(self.pending.end());
                (label, Body::At(*at), len, crc)
            }
            Record::Delete(label) => return self.delete(label),
            Record::Tombstone(label) => {
                self.useless.extend(self.pending.end());
                return self.see(label);
            }
        };
        self.see(label);
        let boxed = self.mailboxes.entry(label.mailbox.clone()).or_default();
        boxed.insert(label.seq);
        let entry = Entry {
            label: label.clone(),
            generation,
            epoch,
            body,
            len: *len,
            crc: *crc,
        };
        self.entries.insert(label.seq, entry);
    }
    fn delete(&mut self, label: &Label) {
        self.useless.extend(self.pending.end());
        self.last_seq = self.last_seq.max(label.seq);
        if let Some(entry) = self.entries.remove(&label.seq) {
            self.deleted.insert(label.seq, entry.pieces().collect());
            if let Some(boxed) = self.mailboxes.get_mut(&label.mailbox) {
                boxed.remove(&label.seq);
            }
        }
    }
    fn see(&mut self, label: &Label) {
        self.last_seq = self.last_seq.max(label.seq);
        if !label.hub_id.is_empty() {
            let id = (label.hub_id.clone(), label.mailbox.clone());
            if self.delivered.insert(id.clone()) {
                self.order.push_back(id);
            }
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.delivered.remove(&oldest);
            }
        }
    }
    /// The database has taken in the deletion of a message: the pieces of its body.
    pub fn take_dead(&mut self, seq: u64) -> Vec<Piece> {
        self.deleted.remove(&seq).unwrap_or_default()
    }
    /// Pieces that belong to no message, of generations that the database has taken in.
    pub fn take_useless(&mut self, taken_in: impl Fn(u64) -> bool) -> Vec<Piece> {
        let (here, later) = self.useless.drain(..).partition(|p| taken_in(p.generation));
        self.useless = later;
        here
    }
    /// Whether what the database holds of a message is of no use any more: it is deleted there, or was never whole.
    pub fn is_dead(&self, seq: u64) -> bool {
        !self.entries.contains_key(&seq) && !self.deleted.contains_key(&seq) && !self.pending.is(seq)
    }
    /// Forgets the messages of which a generation does not hold everything any more; how many that were.
    pub fn keep_of(&mut self, generation: u64, held: &Held) -> usize {
        let before = self.entries.len();
        let mailboxes = &mut self.mailboxes;
        self.entries.retain(|seq, entry| {
            let keep = held.has(entry, generation);
            if let Some(boxed) = mailboxes.get_mut(&entry.label.mailbox).filter(|_| !keep) {
                boxed.remove(seq);
            }
            keep
        });
        before - self.entries.len()
    }
    /// A piece of a body, which begins there in the body, begins elsewhere in its file from now on.
    pub fn moved(&mut self, (seq, offset, at): Moved) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.body.moved(offset, at);
        } else if self.pending.is(seq) {
            self.pending.moved(offset, at);
        }
    }
    /// Whether this delivery was stored once.
    pub fn was_delivered(&self, hub_id: &str, mailbox: &str) -> bool {
        self.delivered.contains(&(hub_id.to_owned(), mailbox.to_owned()))
    }
    /// What a planted bug asks: whether this message was stored for anybody.
    pub(crate) fn was_delivered_to_any(&self, hub_id: &str) -> bool {
        let mut from = self.delivered.range((hub_id.to_owned(), String::new())..);
        from.next().is_some_and(|(id, _)| id == hub_id)
    }
    /// The highest number given so far.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
    /// A mailbox's messages, oldest first.
    pub fn list(&self, mailbox: &str) -> impl Iterator<Item = &Entry> {
        self.mailboxes
            .get(mailbox)
            .into_iter()
            .flatten()
            .filter_map(|seq| self.entries.get(seq))
    }
    /// A message of this mailbox.
    pub fn get(&self, mailbox: &str, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq).filter(|e| e.label.mailbox == mailbox)
    }
    /// Digest of the content: the same on two nodes that hold the same messages.
    pub fn digest(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |bytes: &[u8]| {
            for b in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for e in self.entries.values() {
            for n in [e.label.seq, e.generation, e.epoch, e.len, u64::from(e.crc)] {
                eat(&n.to_le_bytes());
            }
            for s in [&e.label.mailbox, &e.label.hub_id, &e.label.key] {
                eat(s.as_bytes());
            }
        }
        format!("{hash:016x}")
    }
    /// How many deliveries are remembered.
    pub fn remembered(&self) -> usize {
        self.order.len()
    }
    /// Every message, in order.
    pub fn dump(&self, stream: &str) -> Vec<dump::Message> {
        let some = |s: &String| (!s.is_empty()).then(|| s.clone());
        let message = |e: &Entry| dump::Message {
            key: some(&e.label.key),
            hub_id: some(&e.label.hub_id),
            mailbox: e.label.mailbox.clone(),
            stream: stream.to_owned(),
            generation: e.generation,
            epoch: e.epoch,
            bytes: e.len,
            crc32c: format!("{:08x}", e.crc),
        };
        self.entries.values().map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_deliveries_is_bounded_and_the_newest_are_kept() {
        let mut index = Index::default();
        let label = |n: usize| Label {
            seq: n as u64,
            mailbox: "ann".into(),
            hub_id: format!("hub-{n}"),
            key: String::new(),
        };
        for n in 0..=REMEMBERED {
            index.apply_record(&Record::Tombstone(label(n)), 1, 1);
        }
        assert_eq!((index.delivered.len(), index.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!index.was_delivered("hub-0", "ann") && index.was_delivered("hub-1", "ann"));
        assert!(index.was_delivered(&format!("hub-{REMEMBERED}"), "ann"));
    }
}
