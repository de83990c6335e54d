//! The hub's queue and dumpster: what is where, without I/O.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// First line of a queue file; the message follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

impl Head {
    /// A queue file.
    pub fn encode(&self, message: &[u8]) -> Vec<u8> {
        let mut out = serde_json::to_vec(self).expect("plain");
        out.push(b'\n');
        out.extend_from_slice(message);
        out
    }
    /// The head of a queue file.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        serde_json::from_slice(&bytes[..end]).ok()
    }
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

/// A message.
#[derive(Debug)]
pub struct Mail {
    /// What is known of it.
    pub head: Head,
    /// Its recipients, in order.
    pub states: Vec<State>,
    /// Whether it came back from the dumpster.
    pub again: bool,
    body: Option<Arc<Vec<u8>>>,
    loading: bool,
    accepted: bool,
    retired_ms: u64,
}

/// All messages of a hub.
#[derive(Debug, Default)]
pub struct Queue {
    queue: BTreeMap<String, Mail>,
    dumpster: BTreeMap<String, Mail>,
    /// Ids in the dumpster, oldest first.
    order: VecDeque<String>,
    bytes: u64,
}

const NEW: State = State::Waiting { at: 0, tries: 0 };

impl Queue {
    /// A message whose file is being written.
    pub fn arriving(&mut self, head: Head) {
        let states = vec![NEW; head.recipients.len()];
        let mail = Mail {
            states,
            again: false,
            body: None,
            loading: false,
            accepted: false,
            retired_ms: 0,
            head,
        };
        self.queue.insert(mail.head.id.clone(), mail);
    }
    /// Its file is durable.
    pub fn accept(&mut self, id: &str) {
        if let Some(mail) = self.queue.get_mut(id) {
            mail.accepted = true;
        }
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
    /// All that the disk holds was found, in any order: the oldest in the dumpster is the first to leave it again. When it came
    /// there is not known, but when it was accepted, and in which order within that millisecond.
    pub fn restored(&mut self) {
        let age = |id: &String| (self.dumpster.get(id).map(|m| m.retired_ms), id.len(), id.clone());
        self.order.make_contiguous().sort_by_cached_key(age);
    }
    /// It is gone.
    pub fn remove(&mut self, id: &str) {
        self.queue.remove(id);
    }
    /// Every recipient has it.
    pub fn retire(&mut self, id: &str, clock_ms: u64) {
        if let Some(mut mail) = self.queue.remove(id) {
            mail.body = None;
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
        for mail in self.queue.values_mut() {
            for state in mail.states.iter_mut().filter(|s| before(s)) {
                *state = NEW;
            }
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
            for state in mail.states.iter_mut().filter(|s| before(s)) {
                *state = NEW;
            }
            mail.again = true;
            if let Some(mail) = self.dumpster.remove(&id) {
                self.bytes -= mail.head.bytes;
                self.queue.insert(id.clone(), mail);
            }
            again.push(id);
        }
        again
    }
    /// Recipients to be tried now, at most `room`.
    pub fn due(&self, now: u64, room: usize) -> Vec<(String, usize)> {
        let waiting = |s: &State| matches!(s, State::Waiting { at, .. } if *at <= now);
        let mails = self.queue.values().filter(|m| m.accepted && !m.loading);
        let all = mails.flat_map(|m| {
            let due = m.states.iter().enumerate().filter(move |(_, s)| waiting(s));
            due.map(|(i, _)| (m.head.id.clone(), i))
        });
        all.take(room).collect()
    }
    /// When the next recipient is to be tried.
    pub fn next_due(&self, now: u64) -> Option<u64> {
        let times = self.queue.values().filter(|m| m.accepted).flat_map(|m| &m.states);
        times
            .filter_map(|s| match s {
                State::Waiting { at, .. } if *at > now => Some(*at),
                _ => None,
            })
            .min()
    }
    /// Deliveries on their way.
    pub fn in_flight(&self) -> usize {
        let sent = |s: &&State| matches!(s, State::Sent { .. });
        self.queue.values().flat_map(|m| &m.states).filter(sent).count()
    }
    /// A message of the queue.
    pub fn mail(&self, id: &str) -> Option<&Mail> {
        self.queue.get(id)
    }
    /// Its body, where it is in memory.
    pub fn body(&self, id: &str) -> Option<Arc<Vec<u8>>> {
        self.queue.get(id)?.body.clone()
    }
    /// Whether its body must be read now.
    pub fn load(&mut self, id: &str) -> bool {
        self.queue
            .get_mut(id)
            .is_some_and(|m| !std::mem::replace(&mut m.loading, true))
    }
    /// Its file was read.
    pub fn loaded(&mut self, id: &str, file: &[u8]) {
        let Some(mail) = self.queue.get_mut(id) else { return };
        let start = file.iter().position(|b| *b == b'\n').map_or(file.len(), |i| i + 1);
        mail.loading = false;
        mail.body = Some(Arc::new(file[start..].to_vec()));
    }
    /// A delivery began.
    pub fn sent(&mut self, id: &str, recipient: usize) {
        self.change(id, recipient, |s| match s {
            State::Waiting { tries, .. } => State::Sent { tries },
            other => other,
        });
    }
    /// It was acknowledged.
    pub fn done(&mut self, id: &str, recipient: usize, epoch: u64) {
        self.change(id, recipient, |_| State::Done { epoch });
    }
    /// It failed: again after a pause that doubles.
    pub fn failed(&mut self, id: &str, recipient: usize, now: u64, (first, longest): (u64, u64)) {
        self.change(id, recipient, |s| match s {
            State::Sent { tries } => State::Waiting {
                at: now + (first << tries.min(10)).min(longest),
                tries: tries + 1,
            },
            other => other,
        });
        if let Some(mail) = self.queue.get_mut(id)
            && !mail.states.iter().any(|s| matches!(s, State::Sent { .. }))
        {
            mail.body = None;
        }
    }
    /// Whether every recipient has it.
    pub fn is_done(&self, id: &str) -> bool {
        self.queue
            .get(id)
            .is_some_and(|m| m.states.iter().all(|s| matches!(s, State::Done { .. })))
    }
    fn change(&mut self, id: &str, recipient: usize, to: impl Fn(State) -> State) {
        if let Some(state) = self.queue.get_mut(id).and_then(|m| m.states.get_mut(recipient)) {
            *state = to(*state);
        }
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
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_the_dumpster_first_also_after_a_restart() {
        let mut queue = Queue::default();
        // As a restart finds them: by name, the last one first.
        for (n, accepted_ms) in [(9, 40), (11, 60), (10, 40), (1, 10)] {
            let head = Head {
                id: format!("hub-{n}"),
                sender: String::new(),
                recipients: vec!["ann@lab".into()],
                key: String::new(),
                accepted_ms,
                bytes: 100,
            };
            queue.restore(head, true);
        }
        queue.restored();
        assert_eq!(queue.evict(300, 0), ["hub-1"], "first by room");
        assert_eq!(queue.evict(300, 50), ["hub-9", "hub-10"], "then by age");
        assert_eq!((queue.dumpster_len(), queue.dumpster_bytes()), (1, 100));
    }
}
