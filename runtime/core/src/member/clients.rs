//! Clients of the store. Nothing is answered before it is durable, and nothing is answered without a valid lease: answers
//! wait for one, and are dropped with the conversation when the service goes offline.

use super::Member;
use crate::io::{ClientRequest, DiskAction, DiskResult, Effect, Listed, LmtpReply, Reply, ReqId};
use crate::mailbox::{group_of, mailbox_of, message_key};
use crate::op::{Op, Part};
use crate::planted::Bug;
use crate::store::active::{Change, Ticket};
use crate::store::log;
use ccr_contract::event::{CopyFault, EventKind};
use ccr_contract::reply::By;
use std::collections::{BTreeMap, VecDeque};

/// Requests that may wait at once.
const MAX_WAITING: usize = 4096;

#[derive(Debug)]
enum Kind {
    Deliver(Vec<Option<LmtpReply>>),
    Delete,
}

/// A change that waits for the disk.
#[derive(Debug)]
struct Txn {
    req: ReqId,
    group: usize,
    left: usize,
    kind: Kind,
    generation: u64,
}

/// Requests under way.
#[derive(Debug, Default)]
pub struct Clients {
    txns: BTreeMap<u64, Txn>,
    next: u64,
    /// Answers that wait for a lease.
    answers: VecDeque<(ReqId, Reply, u64)>,
    fenced: bool,
}

impl Clients {
    /// Requests that have no answer yet.
    pub fn waiting(&self) -> usize {
        self.txns.len() + self.answers.len()
    }
    /// The conversations are over.
    pub fn forget(&mut self) {
        self.txns.clear();
        self.answers.clear();
    }
}

fn refused(why: &str) -> Reply {
    Reply::Refused {
        temporary: true,
        why: why.into(),
    }
}

impl Member {
    pub(super) fn by(&self, group: usize, generation: u64) -> By {
        let stream = self.stores.get(group).and_then(|s| s.stream).map(|s| s.to_string());
        By {
            node: self.config.node.clone(),
            epoch: self.service.epoch(),
            stream: stream.unwrap_or_else(|| "none".into()),
            generation,
        }
    }

    pub(super) fn on_client(&mut self, req: ReqId, request: ClientRequest) {
        if !self.service.serves() {
            return self.ctx.reply(req, refused("the service is not online here"));
        }
        if self.clients.waiting() >= MAX_WAITING {
            return self.ctx.reply(req, refused("too many requests are waiting"));
        }
        match request {
            ClientRequest::Greet => {
                let by = self.by(0, 0);
                self.answer_client(req, Reply::Greeting(by));
            }
            ClientRequest::List { mailbox } => {
                let Some(g) = self.group_for(req, &mailbox) else { return };
                let mailbox = mailbox_of(&mailbox).unwrap_or_default();
                let list = self.stores[g].index.list(&mailbox).map(|e| Listed {
                    uid: e.label.seq,
                    size: e.len,
                });
                let list = list.collect();
                self.answer_client(req, Reply::Listing(list));
            }
            ClientRequest::Retrieve { mailbox, uid } => self.retrieve(req, &mailbox, uid),
            ClientRequest::Deliver {
                envid,
                recipients,
                message,
            } => self.deliver(req, envid.as_deref(), &recipients, &message),
            ClientRequest::Delete { mailbox, uids } => self.delete(req, &mailbox, &uids),
            ClientRequest::Submit { .. } => {
                let why = "this node is no hub".to_owned();
                self.ctx.reply(req, Reply::Refused { temporary: false, why });
            }
        }
    }

    fn group_for(&mut self, req: ReqId, mailbox: &str) -> Option<usize> {
        let group = mailbox_of(mailbox).map(|m| group_of(&m, self.stores.len()));
        match group {
            Some(g) if self.stores[g].mounted() => Some(g),
            Some(_) => {
                self.ctx.reply(req, refused("the database is dismounted"));
                None
            }
            None => {
                let why = "no such mailbox name".to_owned();
                self.ctx.reply(req, Reply::Refused { temporary: false, why });
                None
            }
        }
    }

    fn retrieve(&mut self, req: ReqId, mailbox: &str, uid: u64) {
        let Some(g) = self.group_for(req, mailbox) else { return };
        let store = &self.stores[g];
        let name = mailbox_of(mailbox).unwrap_or_default();
        let Some(entry) = store.index.get(&name, uid) else {
            let why = "no such message".to_owned();
            return self.answer_client(req, Reply::Refused { temporary: false, why });
        };
        let part = store.body_part(entry.generation);
        let file = part.map_or_else(|| store.file(".log"), |p| store.part_file(p));
        let crc = entry.crc;
        let op = Op::Body { req, part, crc };
        let (offset, len) = (entry.at, entry.len);
        store.disk(&mut self.ctx, op, DiskAction::Read { file, offset, len });
    }

    pub(super) fn on_body(&mut self, group: usize, req: ReqId, (part, crc): (Option<Part>, u32), result: DiskResult) {
        let reply = match result {
            DiskResult::Bytes(b) if crc32c::crc32c(&b) == crc => Reply::Message(b),
            other => {
                let seen = if matches!(other, DiskResult::Bytes(_)) {
                    "its checksum is wrong".into()
                } else {
                    format!("{other:?}")
                };
                self.ctx.event(EventKind::CopyFailed {
                    group: self.stores[group].name.clone(),
                    why: CopyFault::Message(seen),
                    epoch: Some(self.reported_epoch()),
                });
                if let Some(part) = part {
                    self.stores[group].suspect(part);
                }
                refused("the message cannot be read")
            }
        };
        self.answer_client(req, reply);
    }

    fn deliver(&mut self, req: ReqId, envid: Option<&str>, recipients: &[String], message: &[u8]) {
        let txn = self.clients.next;
        self.clients.next += 1;
        let hub_id = envid.filter(|id| id.len() <= log::MAX_HUB_ID).unwrap_or_default();
        let key = message_key(message);
        let mut slots: Vec<Option<LmtpReply>> = vec![None; recipients.len()];
        let no = |code, text: &str| {
            Some(LmtpReply {
                code,
                text: text.into(),
            })
        };
        let mut todo = Vec::new();
        let mut group = 0;
        for (slot, recipient) in recipients.iter().enumerate() {
            match mailbox_of(recipient) {
                None => slots[slot] = no(550, "5.1.1 no such mailbox name"),
                Some(mailbox) => {
                    group = group_of(&mailbox, self.stores.len());
                    let store = &self.stores[group];
                    if !store.mounted() {
                        slots[slot] = no(451, "4.3.0 the database is dismounted");
                    } else if message.len() > store.max_message() {
                        slots[slot] = no(552, "5.3.4 the message is longer than a log");
                    } else {
                        todo.push((slot, group, mailbox));
                    }
                }
            }
        }
        if todo.is_empty() {
            let replies = slots.into_iter().flatten().collect();
            return self.answer_client(req, Reply::Delivered(replies));
        }
        let waiting = Txn {
            req,
            group,
            left: todo.len(),
            kind: Kind::Deliver(slots),
            generation: 0,
        };
        self.clients.txns.insert(txn, waiting);
        for (slot, group, mailbox) in todo {
            let change = Change::Store {
                mailbox: &mailbox,
                hub_id,
                key: &key,
                body: message,
            };
            self.stores[group].change(&mut self.ctx, txn, slot, change);
        }
    }

    fn delete(&mut self, req: ReqId, mailbox: &str, uids: &[u64]) {
        let Some(group) = self.group_for(req, mailbox) else {
            return;
        };
        let name = mailbox_of(mailbox).unwrap_or_default();
        let store = &mut self.stores[group];
        let there: Vec<u64> = uids
            .iter()
            .copied()
            .filter(|u| store.index.get(&name, *u).is_some())
            .collect();
        if there.is_empty() {
            let by = self.by(group, 0);
            return self.answer_client(req, Reply::Deleted(by));
        }
        let txn = self.clients.next;
        self.clients.next += 1;
        let waiting = Txn {
            req,
            group,
            left: there.len(),
            kind: Kind::Delete,
            generation: 0,
        };
        self.clients.txns.insert(txn, waiting);
        for seq in there {
            let change = Change::Delete { mailbox: &name, seq };
            self.stores[group].change(&mut self.ctx, txn, 0, change);
        }
    }

    /// Changes in this group are durable: whoever waits for them is answered once the last one is.
    pub(super) fn on_landed(&mut self, group: usize, tickets: &[Ticket]) {
        for t in tickets {
            let by = self.by(group, t.generation);
            let Some(txn) = self.clients.txns.get_mut(&t.txn) else {
                continue;
            };
            txn.left -= 1;
            txn.generation = txn.generation.max(t.generation);
            if let Kind::Deliver(slots) = &mut txn.kind {
                let what = if t.generation == 0 {
                    "duplicate discarded"
                } else {
                    "stored"
                };
                slots[t.slot] = Some(LmtpReply {
                    code: 250,
                    text: format!("2.1.5 {what} {by}"),
                });
            }
            if txn.left == 0
                && let Some(txn) = self.clients.txns.remove(&t.txn)
            {
                let reply = match txn.kind {
                    Kind::Deliver(slots) => Reply::Delivered(slots.into_iter().flatten().collect()),
                    Kind::Delete => Reply::Deleted(self.by(txn.group, txn.generation)),
                };
                self.answer_client(txn.req, reply);
            }
        }
    }

    /// Answers a client as soon as the lease allows it.
    fn answer_client(&mut self, req: ReqId, reply: Reply) {
        self.clients.answers.push_back((req, reply, self.ctx.now.boot_us));
    }

    pub(super) fn drive_clients(&mut self) {
        if self.clients.answers.is_empty() {
            return;
        }
        let careless = self.ctx.plays(Bug::IgnoreLeaseAfterPause) && self.ctx.rested_us() > 2_000_000;
        if self.service.serves() && (careless || self.cluster.lease_valid(self.ctx.now)) {
            self.clients.fenced = false;
            let promised = self.cluster.promised_until();
            assert!(
                promised <= self.ctx.now.boot_us,
                "who has promised not to serve does not answer"
            );
            for (req, reply, _) in std::mem::take(&mut self.clients.answers) {
                self.ctx.emit(Effect::Reply { req, reply });
            }
            return;
        }
        if !self.clients.fenced {
            self.clients.fenced = true;
            let (why, epoch) = ("the lease is not valid".to_owned(), self.reported_epoch());
            self.ctx.event(EventKind::Fenced { why, epoch });
        }
        let hold_us = self.config.settings.hold_ms * 1000;
        while let Some((_, _, since)) = self.clients.answers.front() {
            if !self.ctx.due(since + hold_us) {
                break;
            }
            if let Some((req, _, _)) = self.clients.answers.pop_front() {
                self.ctx.reply(req, refused("this node has lost the right to serve"));
            }
        }
    }
}
