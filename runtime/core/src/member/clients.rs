//! Clients of the store. Nothing is answered before it is durable, and nothing is answered without a valid lease: answers
//! wait for one, and are dropped with the conversation when the service goes offline.

use super::groups::{Groups, Outcome};
use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::io::{ClientRequest, DiskAction, DiskResult, Effect, Listed, LmtpReply, Now, Reply, ReqId};
use crate::mailbox::{group_of, mailbox_of, message_key};
use crate::op::{BodyRead, Op, Pending};
use crate::planted::Bug;
use crate::store::active::{Change, Ticket};
use crate::store::log::{self, Label};
use ccr_contract::config::Config;
use ccr_contract::event::{CopyFault, EventKind};
use ccr_contract::reply::By;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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
#[derive(Debug)]
pub struct Clients {
    node: String,
    /// How long an answer may wait for a lease, in microseconds.
    hold_us: u64,
    txns: BTreeMap<u64, Txn>,
    next: u64,
    /// Answers that wait for a lease.
    answers: VecDeque<(ReqId, Reply, u64)>,
    fenced: bool,
}

/// What requests are answered from.
pub struct Backend<'a> {
    /// Time and effects.
    pub ctx: &'a mut Ctx<Pending>,
    /// Where messages are.
    pub groups: &'a mut Groups,
    /// The epoch in which the service is here; 0 where it is not.
    pub epoch: u64,
    /// That epoch; where the service is not here, the cluster's.
    pub reported_epoch: u64,
}

impl Clients {
    /// No request is under way.
    pub fn new(config: &Config) -> Self {
        Self {
            node: config.node.clone(),
            hold_us: config.settings.hold_ms * 1000,
            txns: BTreeMap::new(),
            next: 0,
            answers: VecDeque::new(),
            fenced: false,
        }
    }
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

/// What a client knows a message by: the hub's id where there is one, as the number is another one after a redelivery.
fn unique_id(label: &Label) -> String {
    let id = &label.hub_id;
    let plain = (1..=68).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    if plain {
        format!("h.{id}")
    } else {
        label.seq.to_string()
    }
}

fn refused(why: &str) -> Reply {
    Reply::Refused {
        temporary: true,
        why: why.into(),
    }
}

impl Clients {
    fn by(&self, b: &Backend<'_>, group: usize, generation: u64) -> By {
        let stream = b
            .groups
            .stores()
            .nth(group)
            .and_then(|s| s.stream)
            .map(|s| s.to_string());
        By {
            node: self.node.clone(),
            epoch: b.epoch,
            stream: stream.unwrap_or_else(|| "none".into()),
            generation,
        }
    }

    /// A client asks something; `serves` where the service is online, the lease apart.
    pub fn on_client(&mut self, b: &mut Backend<'_>, serves: bool, req: ReqId, request: ClientRequest) {
        if !serves {
            return b.ctx.reply(req, refused("the service is not online here"));
        }
        if self.waiting() >= MAX_WAITING {
            return b.ctx.reply(req, refused("too many requests are waiting"));
        }
        match request {
            ClientRequest::Greet => {
                let by = self.by(b, 0, 0);
                self.answer_later(b.ctx.now, req, Reply::Greeting(by));
            }
            ClientRequest::List { mailbox } => {
                let Some(g) = self.group_for(b, req, &mailbox) else {
                    return;
                };
                let mailbox = mailbox_of(&mailbox).unwrap_or_default();
                let list = b.groups.store(g).index.list(&mailbox).map(|e| Listed {
                    uid: e.label.seq,
                    unique_id: unique_id(&e.label),
                    size: e.len,
                });
                let list = list.collect();
                self.answer_later(b.ctx.now, req, Reply::Listing(list));
            }
            ClientRequest::Retrieve { mailbox, uid, piece } => self.retrieve(b, req, &mailbox, (uid, piece)),
            ClientRequest::Deliver {
                envid,
                recipients,
                message,
            } => self.deliver(b, req, envid.as_deref(), &recipients, &Arc::new(message)),
            ClientRequest::Delete { mailbox, uids } => self.delete(b, req, &mailbox, &uids),
            ClientRequest::Submit { .. } => {
                let why = "this node is no hub".to_owned();
                b.ctx.reply(req, Reply::Refused { temporary: false, why });
            }
        }
    }

    fn group_for(&self, b: &mut Backend<'_>, req: ReqId, mailbox: &str) -> Option<usize> {
        let group = mailbox_of(mailbox).map(|m| group_of(&m, b.groups.len()));
        match group {
            Some(g) if b.groups.store(g).mounted() => Some(g),
            Some(_) => {
                b.ctx.reply(req, refused("the database is dismounted"));
                None
            }
            None => {
                let why = "no such mailbox name".to_owned();
                b.ctx.reply(req, Reply::Refused { temporary: false, why });
                None
            }
        }
    }

    fn retrieve(&mut self, b: &mut Backend<'_>, req: ReqId, mailbox: &str, (uid, piece): (u64, usize)) {
        let Some(g) = self.group_for(b, req, mailbox) else {
            return;
        };
        let store = b.groups.store(g);
        let name = mailbox_of(mailbox).unwrap_or_default();
        let mut pieces = store.index.get(&name, uid).map(|e| e.pieces().skip(piece));
        let mut next = || pieces.as_mut().and_then(Iterator::next);
        let (Some(found), more) = (next(), next().is_some()) else {
            let why = "no such message".to_owned();
            return self.answer_later(b.ctx.now, req, Reply::Refused { temporary: false, why });
        };
        let part = store.body_part(found.generation);
        let file = part.map_or_else(|| store.file(".log"), |p| store.part_file(p));
        let op = Op::Body(BodyRead {
            req,
            part,
            crc: found.crc,
            more: more && !b.ctx.plays(Bug::GiveFirstPiece),
        });
        let (offset, len) = (found.at, found.len);
        store.disk(b.ctx, op, DiskAction::Read { file, offset, len });
    }

    /// A piece of a body was read.
    fn on_body(&mut self, b: &mut Backend<'_>, group: usize, read: BodyRead, result: DiskResult) {
        let BodyRead { req, part, crc, more } = read;
        let reply = match result {
            DiskResult::Bytes(bytes) if crc32c::crc32c(&bytes) == crc => Reply::Message { bytes, more },
            other => {
                let seen = if matches!(other, DiskResult::Bytes(_)) {
                    "its checksum is wrong".into()
                } else {
                    format!("{other:?}")
                };
                b.ctx.event(EventKind::CopyFailed {
                    group: b.groups.store(group).name.clone(),
                    why: format!("a message cannot be read: {seen}"),
                    fault: Some(CopyFault::Message),
                    epoch: Some(b.reported_epoch),
                });
                if let Some(part) = part {
                    b.groups.store(group).suspect(part);
                }
                refused("the message cannot be read")
            }
        };
        self.answer_later(b.ctx.now, req, reply);
    }

    fn deliver(
        &mut self,
        b: &mut Backend<'_>,
        req: ReqId,
        envid: Option<&str>,
        recipients: &[String],
        message: &Arc<Vec<u8>>,
    ) {
        let txn = self.next;
        self.next += 1;
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
                    group = group_of(&mailbox, b.groups.len());
                    let store = b.groups.store(group);
                    if !store.mounted() {
                        slots[slot] = no(451, "4.3.0 the database is dismounted");
                    } else if message.len() > store.max_message() {
                        slots[slot] = no(552, "5.3.4 the message is too long");
                    } else {
                        todo.push((slot, group, mailbox));
                    }
                }
            }
        }
        if todo.is_empty() {
            let replies = slots.into_iter().flatten().collect();
            return self.answer_later(b.ctx.now, req, Reply::Delivered(replies));
        }
        let waiting = Txn {
            req,
            group,
            left: todo.len(),
            kind: Kind::Deliver(slots),
            generation: 0,
        };
        self.txns.insert(txn, waiting);
        for (slot, group, mailbox) in todo {
            let change = Change::Store {
                mailbox: &mailbox,
                hub_id,
                key: &key,
                body: message,
            };
            b.groups.store(group).change(b.ctx, txn, slot, change);
        }
    }

    fn delete(&mut self, b: &mut Backend<'_>, req: ReqId, mailbox: &str, uids: &[u64]) {
        let Some(group) = self.group_for(b, req, mailbox) else {
            return;
        };
        let name = mailbox_of(mailbox).unwrap_or_default();
        let store = b.groups.store(group);
        let there: Vec<u64> = uids
            .iter()
            .copied()
            .filter(|u| store.index.get(&name, *u).is_some())
            .collect();
        if there.is_empty() {
            let by = self.by(b, group, 0);
            return self.answer_later(b.ctx.now, req, Reply::Deleted(by));
        }
        let txn = self.next;
        self.next += 1;
        let waiting = Txn {
            req,
            group,
            left: there.len(),
            kind: Kind::Delete,
            generation: 0,
        };
        self.txns.insert(txn, waiting);
        for seq in there {
            let change = Change::Delete { mailbox: &name, seq };
            b.groups.store(group).change(b.ctx, txn, 0, change);
        }
    }

    /// What disk operations of the groups led to.
    pub fn on_outcomes(&mut self, b: &mut Backend<'_>, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Landed(group, tickets) => self.on_landed(b, group, &tickets),
                Outcome::Body(group, read, result) => self.on_body(b, group, read, result),
            }
        }
    }

    /// Changes in this group are durable: whoever waits for them is answered once the last one is.
    fn on_landed(&mut self, b: &mut Backend<'_>, group: usize, tickets: &[Ticket]) {
        for t in tickets {
            let by = self.by(b, group, t.generation);
            let Some(txn) = self.txns.get_mut(&t.txn) else {
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
                && let Some(txn) = self.txns.remove(&t.txn)
            {
                let reply = match txn.kind {
                    Kind::Deliver(slots) => Reply::Delivered(slots.into_iter().flatten().collect()),
                    Kind::Delete => Reply::Deleted(self.by(b, txn.group, txn.generation)),
                };
                self.answer_later(b.ctx.now, txn.req, reply);
            }
        }
    }

    /// Answers a client as soon as the lease allows it.
    fn answer_later(&mut self, now: Now, req: ReqId, reply: Reply) {
        self.answers.push_back((req, reply, now.boot_us));
    }

    /// One round: answers what waits, where the lease allows it; `serves` as in [`Self::on_client`].
    pub fn drive(&mut self, ctx: &mut Ctx<Pending>, cluster: &Snapshot<'_>, serves: bool, reported_epoch: u64) {
        if self.answers.is_empty() {
            return;
        }
        let careless = ctx.plays(Bug::IgnoreLeaseAfterPause) && ctx.rested_us() > 2_000_000;
        if serves && (careless || cluster.lease_valid) {
            self.fenced = false;
            assert!(
                cluster.promised_until <= ctx.now.boot_us,
                "who has promised not to serve does not answer"
            );
            for (req, reply, _) in std::mem::take(&mut self.answers) {
                ctx.emit(Effect::Reply { req, reply });
            }
            return;
        }
        if !self.fenced {
            self.fenced = true;
            let (why, epoch) = ("the lease is not valid".to_owned(), reported_epoch);
            ctx.event(EventKind::Fenced { why, epoch });
        }
        while let Some((_, _, since)) = self.answers.front() {
            if !ctx.due(since + self.hold_us) {
                break;
            }
            if let Some((req, _, _)) = self.answers.pop_front() {
                ctx.reply(req, refused("this node has lost the right to serve"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::fixture::{EPOCH, Facts, at, config, ctx, told};

    /// What was answered, and the answers' requests; events are dropped.
    fn replies(ctx: &mut Ctx<Pending>) -> Vec<(u64, bool)> {
        let effects = ctx.take_effects();
        let replies = effects.into_iter().filter_map(|e| match e {
            Effect::Reply { req, reply } => Some((req.0, matches!(reply, Reply::Refused { .. }))),
            _ => None,
        });
        replies.collect()
    }
    fn greeted(ctx: &mut Ctx<Pending>, serves: bool) -> Clients {
        let config = config();
        let mut clients = Clients::new(&config);
        let mut backend = Backend {
            ctx,
            groups: &mut Groups::new(&config),
            epoch: EPOCH,
            reported_epoch: EPOCH,
        };
        clients.on_client(&mut backend, serves, ReqId(1), ClientRequest::Greet);
        clients
    }

    #[test]
    fn a_message_is_known_by_the_hubs_id() {
        let label = |hub_id: &str| Label {
            seq: 17,
            mailbox: "ann".into(),
            hub_id: hub_id.into(),
            key: String::new(),
        };
        assert_eq!(unique_id(&label("hub-01-2")), "h.hub-01-2");
        assert_eq!(unique_id(&label("17")), "h.17", "no number");
        for none in ["", "a b", "é", &"x".repeat(69)] {
            assert_eq!(unique_id(&label(none)), "17", "{none}");
        }
    }

    #[test]
    fn an_answer_waits_for_the_lease_and_is_given_up_in_time() {
        let (mut ctx, mut facts) = (ctx(0), Facts::new());
        let mut clients = greeted(&mut ctx, true);
        facts.lease_valid = false;
        clients.drive(&mut ctx, &facts.snapshot(), true, EPOCH);
        let effects = ctx.take_effects();
        assert!(matches!(told(&effects)[..], [EventKind::Fenced { .. }]), "{effects:?}");
        facts.lease_valid = true;
        clients.drive(&mut ctx, &facts.snapshot(), true, EPOCH);
        assert_eq!(replies(&mut ctx), [(1, false)]);

        let mut clients = greeted(&mut ctx, true);
        facts.lease_valid = false;
        clients.drive(&mut ctx, &facts.snapshot(), true, EPOCH);
        assert_eq!(replies(&mut ctx), []);
        at(&mut ctx, config().settings.hold_ms);
        clients.drive(&mut ctx, &facts.snapshot(), true, EPOCH);
        assert_eq!((replies(&mut ctx), clients.waiting()), (vec![(1, true)], 0));
    }

    #[test]
    fn who_was_cut_off_gets_no_answer_and_a_node_that_does_not_serve_refuses() {
        let (mut ctx, facts) = (ctx(0), Facts::new());
        let mut clients = greeted(&mut ctx, true);
        clients.forget();
        clients.drive(&mut ctx, &facts.snapshot(), true, EPOCH);
        assert_eq!(replies(&mut ctx), []);
        greeted(&mut ctx, false);
        assert_eq!(replies(&mut ctx), [(1, true)]);
    }

    #[test]
    #[should_panic(expected = "who has promised not to serve")]
    fn an_answer_within_a_promise_is_a_bug() {
        let (mut ctx, mut facts) = (ctx(0), Facts::new());
        let mut clients = greeted(&mut ctx, true);
        facts.promised_until = 1;
        clients.drive(&mut ctx, &facts.snapshot(), true, EPOCH);
    }
}
