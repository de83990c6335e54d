//! What a storage group holds, without the bodies: those stay on the disk and are read when asked for.

use super::log::{Label, Record, Scan};
use ccr_contract::dump;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Deliveries that are remembered as stored, deleted or not: more than a dumpster of 18 MB can hold and deliver again, of
/// messages of 72 bytes and more. The oldest are forgotten first, in the order of the log, so that both nodes forget the same.
const REMEMBERED: usize = 1 << 18;

/// A message and where its body is: in the log or segment of its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Names it.
    pub label: Label,
    /// Generation that holds it.
    pub generation: u64,
    /// Epoch of that generation.
    pub epoch: u64,
    /// Where the body begins in the file.
    pub at: u64,
    /// Length of the body.
    pub len: u64,
    /// CRC32C of the body.
    pub crc: u32,
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
    /// Deletions that the database may not have taken in yet: generation and length of what they deleted.
    deleted: BTreeMap<u64, (u64, u64)>,
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
        match record {
            Record::Message { label, crc, at, len } => {
                self.see(label);
                let boxed = self.mailboxes.entry(label.mailbox.clone()).or_default();
                boxed.insert(label.seq);
                let entry = Entry {
                    label: label.clone(),
                    generation,
                    epoch,
                    at: *at,
                    len: *len,
                    crc: *crc,
                };
                self.entries.insert(label.seq, entry);
            }
            Record::Delete(label) => {
                self.last_seq = self.last_seq.max(label.seq);
                if let Some(entry) = self.entries.remove(&label.seq) {
                    self.deleted.insert(label.seq, (entry.generation, entry.len));
                    if let Some(boxed) = self.mailboxes.get_mut(&label.mailbox) {
                        boxed.remove(&label.seq);
                    }
                }
            }
            Record::Tombstone(label) => self.see(label),
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
    /// The database has taken in the deletion of a message: the generation that held it, and the length of its body.
    pub fn take_dead(&mut self, seq: u64) -> Option<(u64, u64)> {
        self.deleted.remove(&seq)
    }
    /// Whether a message that the database once held is deleted there.
    pub fn is_dead(&self, seq: u64) -> bool {
        !self.entries.contains_key(&seq) && !self.deleted.contains_key(&seq)
    }
    /// Forgets the messages of a generation that are not among these; how many that were.
    pub fn keep_of(&mut self, generation: u64, seqs: &BTreeSet<u64>) -> usize {
        let before = self.entries.len();
        let mailboxes = &mut self.mailboxes;
        self.entries.retain(|seq, entry| {
            let keep = entry.generation != generation || seqs.contains(seq);
            if let Some(boxed) = mailboxes.get_mut(&entry.label.mailbox).filter(|_| !keep) {
                boxed.remove(seq);
            }
            keep
        });
        before - self.entries.len()
    }
    /// The body of a message begins elsewhere in its file from now on.
    pub fn moved(&mut self, seq: u64, at: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.at = at;
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
