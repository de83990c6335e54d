//! The hub's queue and dumpster: what is where, without I/O.
//!
//! Invariants:
//! * What is to be tried is tried in the order in which it was accepted, each recipient by itself.
//! * Bodies in memory or on their way there are at most [`HELD`] and [`HELD_BYTES`], or one that is longer; deliveries under way at
//!   most [`PARALLEL`].
//! * A step costs as much as what it changes, however long the queue is.

use crate::durable::{self, NotUnderstood};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Deliveries at once.
pub const PARALLEL: usize = 8;
/// Bodies at once, in memory and on their way there.
pub const HELD: usize = PARALLEL + 4;
/// Bytes of them: a body that is longer than what is left waits, and those behind it with it.
pub const HELD_BYTES: u64 = 16 << 20;
/// The schema of the head of a queue file.
const SCHEMA: u64 = 1;

/// First line of a queue file; the message follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The hub's own id.
    pub id: String,
    /// Envelope sender.
    pub sender: String,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// The client's key; empty without.
    pub key: String,
    /// Service time at acceptance, in milliseconds.
    pub accepted_ms: u64,
    /// Length of the message.
    pub bytes: u64,
    /// CRC32C of the message; files had none before they had a schema.
    #[serde(default)]
    pub sum: Option<u32>,
}

impl Head {
    /// A queue file.
    pub fn encode(&self, mut message: Vec<u8>) -> Vec<u8> {
        let sum = Some(crc32c::crc32c(&message));
        let mut head = durable::encode(SCHEMA, &Head { sum, ..self.clone() });
        head.push(b'\n');
        // In its place: a long message is in memory once.
        message.splice(..0, head);
        message
    }
    /// The head of a queue file.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        durable::decode(SCHEMA, split(bytes)?.0)
    }
    /// The message of a whole queue file, in its place in memory.
    pub fn into_message(mut bytes: Vec<u8>) -> Result<Vec<u8>, NotUnderstood> {
        let len = Self::message(&bytes)?.len();
        bytes.drain(..bytes.len() - len);
        Ok(bytes)
    }
    /// The message in a whole queue file.
    pub fn message(bytes: &[u8]) -> Result<&[u8], NotUnderstood> {
        let (head, message) = split(bytes)?;
        let head: Head = durable::decode(SCHEMA, head)?;
        let bad = |what| Err(NotUnderstood::Damaged(format!("{what} of the message")));
        match head.sum {
            _ if head.bytes != message.len() as u64 => bad("length"),
            Some(sum) if sum != crc32c::crc32c(message) => bad("checksum"),
            _ => Ok(message),
        }
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), NotUnderstood> {
    let end = bytes.iter().position(|b| *b == b'\n');
    let end = end.ok_or_else(|| NotUnderstood::Damaged("no whole head".into()))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// Where one recipient's copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be tried then, after so many failures.
    Waiting { at: u64, tries: u32 },
    /// On its way.
    Sent { tries: u32 },
    /// Acknowledged in this epoch.
    Done { epoch: u64 },
}

/// Where a message stands in the line of what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Nothing is to be done, or something is under way that must end first.
    Nowhere,
    /// Its body is to be read.
    Unread,
    /// Its body is there, and a recipient is to be tried.
    Ready,
    /// A recipient is to be tried then.
    Later(u64),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Read a body.
    Load(String),
    /// Deliver to a recipient.
    Send(String, usize),
}

/// A message.
#[derive(Debug)]
pub struct Mail {
    /// What is known of it.
    pub head: Head,
    /// Its recipients, in order.
    pub states: Vec<State>,
    /// Whether it came back from the dumpster.
    pub again: bool,
    /// From when on its age in the queue counts, in service time, where that is not its acceptance.
    queued_ms: Option<u64>,
    body: Option<Arc<Vec<u8>>>,
    loading: bool,
    accepted: bool,
    retired_ms: u64,
    /// Counts acceptances.
    number: u64,
    readiness: Readiness,
}

impl Mail {
    fn is_held(&self) -> bool {
        self.loading || self.body.is_some()
    }
    fn held_bytes(&self) -> u64 {
        u64::from(self.is_held()) * self.head.bytes
    }
    fn sent(&self) -> usize {
        let sent = |s: &&State| matches!(s, State::Sent { .. });
        self.states.iter().filter(sent).count()
    }
}

/// All messages of a hub.
#[derive(Debug, Default)]
pub struct Queue {
    queue: BTreeMap<String, Mail>,
    dumpster: BTreeMap<String, Mail>,
    /// Ids in the dumpster, oldest first.
    order: VecDeque<String>,
    bytes: u64,
    /// The queue's ids by their numbers.
    ids: BTreeMap<u64, String>,
    next: u64,
    unread: BTreeSet<u64>,
    ready: BTreeSet<u64>,
    later: BTreeSet<(u64, u64)>,
    held: usize,
    held_bytes: u64,
    sent: usize,
    now: u64,
    /// A planted bug: every body is read at once.
    unbounded: bool,
}

const NEW: State = State::Waiting { at: 0, tries: 0 };

impl Queue {
    /// An empty one; `unbounded` as a planted bug.
    pub fn new(unbounded: bool) -> Self {
        Self {
            unbounded,
            ..Self::default()
        }
    }
    /// A message whose file is being written.
    pub fn arriving(&mut self, head: Head) {
        let states = vec![NEW; head.recipients.len()];
        let mail = Mail {
            states,
            again: false,
            queued_ms: None,
            body: None,
            loading: false,
            accepted: false,
            retired_ms: 0,
            number: self.next,
            readiness: Readiness::Nowhere,
            head,
        };
        self.next += 1;
        self.ids.insert(mail.number, mail.head.id.clone());
        self.queue.insert(mail.head.id.clone(), mail);
    }
    /// Its file is durable.
    pub fn accept(&mut self, id: &str) {
        self.change(id, |mail| mail.accepted = true);
    }
    /// A message found on the disk after a start.
    pub fn restore(&mut self, head: Head, dumpster: bool) {
        let id = head.id.clone();
        let accepted_ms = head.accepted_ms;
        self.arriving(head);
        self.accept(&id);
        if dumpster {
            self.retire(&id, accepted_ms);
        }
    }
    /// All that the disk holds was found, in any order: the oldest in the queue is tried first, and the oldest in the dumpster is
    /// the first to leave it again. When it came there is not known, but when it was accepted, and in which order within that
    /// millisecond.
    pub fn restored(&mut self) {
        let age = |id: &String, m: &Mail| (m.head.accepted_ms, id.len(), id.clone());
        let all = self.queue.iter().chain(&self.dumpster);
        let mut all: Vec<_> = all.map(|(id, m)| age(id, m)).collect();
        all.sort();
        self.ids.clear();
        (self.unread, self.ready, self.later) = Default::default();
        for (number, (_, _, id)) in all.into_iter().enumerate() {
            let number = number as u64;
            self.next = number + 1;
            if let Some(mail) = self.dumpster.get_mut(&id) {
                mail.number = number;
            } else if let Some(mail) = self.queue.get_mut(&id) {
                (mail.number, mail.readiness) = (number, Readiness::Nowhere);
                self.ids.insert(number, id.clone());
                self.change(&id, |_| {});
            }
        }
        let age = |id: &String| self.dumpster.get(id).map(|m| m.number);
        self.order.make_contiguous().sort_by_cached_key(age);
    }
    /// It is gone.
    pub fn remove(&mut self, id: &str) -> Option<Mail> {
        self.change(id, |mail| {
            (mail.body, mail.loading, mail.accepted) = (None, false, false);
            mail.states.clear();
        });
        let mail = self.queue.remove(id)?;
        self.ids.remove(&mail.number);
        Some(mail)
    }
    /// Every recipient has it.
    pub fn retire(&mut self, id: &str, clock_ms: u64) {
        let Some(states) = self.queue.get(id).map(|m| m.states.clone()) else {
            return;
        };
        if let Some(mut mail) = self.remove(id) {
            (mail.states, mail.accepted) = (states, true);
            mail.again = false;
            mail.retired_ms = clock_ms;
            self.bytes += mail.head.bytes;
            self.order.push_back(id.to_owned());
            self.dumpster.insert(id.to_owned(), mail);
        }
    }
    /// Takes the oldest out of the dumpster until it is small and young enough.
    pub fn evict(&mut self, max_bytes: u64, not_before_ms: u64) -> Vec<String> {
        let mut gone = Vec::new();
        while let Some(id) = self.order.front() {
            let old = self.dumpster.get(id).is_none_or(|m| m.retired_ms < not_before_ms);
            if self.bytes <= max_bytes && !old {
                break;
            }
            let id = self.order.pop_front().unwrap_or_default();
            if let Some(mail) = self.dumpster.remove(&id) {
                self.bytes -= mail.head.bytes;
            }
            gone.push(id);
        }
        gone
    }
    /// Queues again all that was acknowledged before `epoch`; returns those that come out of the dumpster.
    pub fn redeliver(&mut self, epoch: u64) -> Vec<String> {
        let before = |s: &State| matches!(s, State::Done { epoch: e } if *e < epoch);
        let renew = |mail: &mut Mail| mail.states.iter_mut().filter(|s| before(s)).for_each(|s| *s = NEW);
        let done = self.queue.iter().filter(|(_, m)| m.states.iter().any(before));
        let done: Vec<String> = done.map(|(id, _)| id.clone()).collect();
        for id in done {
            self.change(&id, renew);
        }
        let mut again = Vec::new();
        for id in std::mem::take(&mut self.order) {
            let Some(mail) = self.dumpster.get_mut(&id) else {
                continue;
            };
            // After a restart of the hub it is not known in which epoch a message was acknowledged.
            let restored = mail.states.iter().all(|s| *s == NEW);
            if !restored && !mail.states.iter().any(before) {
                self.order.push_back(id);
                continue;
            }
            renew(mail);
            mail.again = true;
            if let Some(mail) = self.dumpster.remove(&id) {
                self.bytes -= mail.head.bytes;
                self.ids.insert(mail.number, id.clone());
                self.queue.insert(id.clone(), mail);
                self.change(&id, |_| {});
            }
            again.push(id);
        }
        again
    }
    /// What is to be done now, in the order of acceptance.
    pub fn work(&mut self, now: u64) -> Vec<Work> {
        self.now = self.now.max(now);
        while let Some((at, number)) = self.later.first().copied()
            && at <= self.now
        {
            let id = self.ids.get(&number).cloned().unwrap_or_default();
            self.change(&id, |_| {});
        }
        let mail = |number: &u64| self.queue.get(self.ids.get(number)?);
        let sends = self.ready.iter().filter_map(mail).flat_map(|m| {
            let due = m.states.iter().enumerate().filter(|(_, s)| self.is_due(s));
            due.map(|(i, _)| Work::Send(m.head.id.clone(), i))
        });
        let loads = self.unread.iter().filter_map(mail);
        let mut bytes = self.held_bytes;
        let loads = loads.take_while(|m| {
            let first = bytes == 0;
            bytes += m.head.bytes;
            first || bytes <= HELD_BYTES || self.unbounded
        });
        let loads = loads.map(|m| Work::Load(m.head.id.clone()));
        let sends = sends.take(PARALLEL.saturating_sub(self.sent));
        let room = HELD.saturating_sub(self.held);
        let room = if self.unbounded { usize::MAX } else { room };
        sends.chain(loads.take(room)).collect()
    }
    /// Bodies in memory and on their way there.
    pub fn bodies(&self) -> usize {
        self.held
    }
    /// Their bytes.
    pub fn body_bytes(&self) -> u64 {
        self.held_bytes
    }
    fn is_due(&self, state: &State) -> bool {
        matches!(state, State::Waiting { at, .. } if *at <= self.now)
    }
    /// When the next recipient is to be tried, where that is later than now.
    pub fn next_due(&self) -> Option<u64> {
        self.later.first().map(|(at, _)| *at)
    }
    /// Whether there is a message of this name in the queue or the dumpster.
    pub fn knows(&self, id: &str) -> bool {
        self.queue.contains_key(id) || self.dumpster.contains_key(id)
    }
    /// A message of the queue.
    pub fn mail(&self, id: &str) -> Option<&Mail> {
        self.queue.get(id)
    }
    /// Its body, where it is in memory.
    pub fn body(&self, id: &str) -> Option<Arc<Vec<u8>>> {
        self.queue.get(id)?.body.clone()
    }
    /// Its body is being read.
    pub fn loading(&mut self, id: &str) {
        self.change(id, |mail| mail.loading = true);
    }
    /// It was read.
    pub fn loaded(&mut self, id: &str, message: Vec<u8>) {
        self.change(id, |mail| {
            mail.loading = false;
            mail.body = Some(Arc::new(message));
        });
    }
    /// A delivery began.
    pub fn sent(&mut self, id: &str, recipient: usize) {
        self.set(id, recipient, |s| match s {
            State::Waiting { tries, .. } => State::Sent { tries },
            other => other,
        });
    }
    /// It was acknowledged.
    pub fn done(&mut self, id: &str, recipient: usize, epoch: u64) {
        self.set(id, recipient, |_| State::Done { epoch });
    }
    /// It failed: again after a pause that doubles.
    pub fn failed(&mut self, id: &str, recipient: usize, now: u64, (first, longest): (u64, u64)) {
        self.set(id, recipient, |s| match s {
            State::Sent { tries } => State::Waiting {
                at: now + (first << tries.min(10)).min(longest),
                tries: tries + 1,
            },
            other => other,
        });
    }
    /// Whether a message of the queue has waited for longer than `longest_ms`. One that a takeover asked for again has been
    /// delivered once: its age is no reason to give it up. Nor is it for one that is older when it is found by a start, where service
    /// time stood still since the last attempt: it was in the dumpster.
    pub fn is_expired(&self, id: &str, clock_ms: u64, longest_ms: u64) -> bool {
        let since = |m: &Mail| m.queued_ms.unwrap_or(m.head.accepted_ms);
        let mail = self.queue.get(id).filter(|m| !m.again);
        mail.is_some_and(|m| clock_ms.saturating_sub(since(m)) > longest_ms)
    }
    /// The start is over, at this service time: what is too old for the queue begins anew.
    pub fn forgive(&mut self, clock_ms: u64, longest_ms: u64) {
        let old = |m: &&mut Mail| clock_ms.saturating_sub(m.head.accepted_ms) > longest_ms;
        self.queue
            .values_mut()
            .filter(old)
            .for_each(|m| m.queued_ms = Some(clock_ms));
    }
    /// Whether every recipient has it.
    pub fn is_done(&self, id: &str) -> bool {
        self.queue
            .get(id)
            .is_some_and(|m| m.states.iter().all(|s| matches!(s, State::Done { .. })))
    }
    fn set(&mut self, id: &str, recipient: usize, to: impl Fn(State) -> State) {
        self.change(id, |mail| {
            if let Some(state) = mail.states.get_mut(recipient) {
                *state = to(*state);
            }
        });
    }

    /// Changes a message of the queue, and gives it its new readiness. A body that nobody waits for leaves memory.
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Mail)) {
        let Some(mail) = self.queue.get_mut(id) else { return };
        let number = mail.number;
        match mail.readiness {
            Readiness::Nowhere => false,
            Readiness::Unread => self.unread.remove(&number),
            Readiness::Ready => self.ready.remove(&number),
            Readiness::Later(at) => self.later.remove(&(at, number)),
        };
        self.held -= usize::from(mail.is_held());
        self.held_bytes -= mail.held_bytes();
        self.sent -= mail.sent();
        change(mail);
        let at = mail.states.iter().filter_map(|s| match s {
            State::Waiting { at, .. } => Some(*at),
            _ => None,
        });
        let next = at.min().filter(|_| mail.accepted && !mail.loading);
        let due = next.is_some_and(|at| at <= self.now);
        if !due && mail.sent() == 0 {
            mail.body = None;
        }
        mail.readiness = match next {
            Some(at) if !due => Readiness::Later(at),
            Some(_) if mail.body.is_some() => Readiness::Ready,
            Some(_) => Readiness::Unread,
            None => Readiness::Nowhere,
        };
        match mail.readiness {
            Readiness::Nowhere => false,
            Readiness::Unread => self.unread.insert(number),
            Readiness::Ready => self.ready.insert(number),
            Readiness::Later(at) => self.later.insert((at, number)),
        };
        self.held += usize::from(mail.is_held());
        self.held_bytes += mail.held_bytes();
        self.sent += mail.sent();
    }
    /// Messages accepted and not yet delivered to all.
    pub fn queued(&self) -> impl Iterator<Item = &Mail> {
        self.queue.values().filter(|m| m.accepted)
    }
    /// Messages in the dumpster.
    pub fn dumpster_len(&self) -> usize {
        self.dumpster.len()
    }
    /// Bytes in the dumpster.
    pub fn dumpster_bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
