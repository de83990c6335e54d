//! The workload: four operations, each journalled with how it ended.

use super::plan::Plan;
use super::world::{CLIENTS, PUBLIC, SimEvent, Waiter, World};
use super::{GENERATION_BYTES, MESSAGE_BYTES};
use crate::io::{ClientRequest, Reply};
use crate::rng::Rng;
use crate::store::log;
use ccr_contract::reply::By;

/// How long a client waits for one answer.
const PATIENCE_US: u64 = 10_000_000;
const MAILBOXES: [&str; 6] = ["ann", "bob", "eve", "dan", "fay", "gus"];

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To a hub.
    Submit,
    /// Straight to the store.
    Deliver,
    /// List, and fetch one message.
    Read,
    /// List, fetch and delete one message.
    Delete,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    Open,
    /// Acknowledged.
    Ok,
    /// Certainly not done.
    Fail,
    /// Perhaps.
    Unknown,
}

/// One mailbox of an operation.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Its name.
    pub mailbox: &'static str,
    /// How it ended for this one, of a delivery.
    pub outcome: Outcome,
    /// Who acknowledged.
    pub by: Option<By>,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    /// What.
    pub kind: Kind,
    /// The message: of a delete, the one that was deleted.
    pub key: String,
    /// Whose mailboxes: one, but of messages with several recipients.
    pub to: Vec<Recipient>,
    /// How it ended.
    pub outcome: Outcome,
    /// The hub's id.
    pub hub_id: String,
    hub: usize,
    body: u64,
    step: u64,
    uid: u64,
    /// What was fetched of a message so far, and in how many pieces.
    read: (Vec<u8>, usize),
}

/// All operations of a run.
#[derive(Debug)]
pub struct Workload {
    rng: Rng,
    /// In the order of their beginning.
    pub ops: Vec<Operation>,
    /// Where the service address was announced last.
    pub service_at: usize,
}

impl Workload {
    /// A plan's operations.
    pub fn new(mut rng: Rng, plan: &Plan) -> Self {
        let longest = plan.longest;
        let mut more = rng.clone().fork();
        let mut long = more.clone().fork();
        let ops = (0..plan.ops).map(|n| {
            let kind = match rng.range(0, 100) {
                0..40 => Kind::Submit,
                40..75 => Kind::Deliver,
                75..88 => Kind::Read,
                _ => Kind::Delete,
            };
            Operation {
                kind,
                key: if matches!(kind, Kind::Submit | Kind::Deliver) {
                    let key = format!("k{n}");
                    // Four bytes a character: as long as a key may be.
                    if longest { format!("{key:𝄞<128}") } else { key }
                } else {
                    String::new()
                },
                to: recipients(
                    &mut more,
                    kind,
                    rng.range(0, MAILBOXES.len() as u64) as usize,
                    plan.recipients,
                ),
                outcome: Outcome::Open,
                hub_id: String::new(),
                hub: rng.range(0, 2) as usize,
                body: length(rng.range(30, 900), longest, long.chance(plan.long).then_some(&mut long)),
                step: 0,
                uid: 0,
                read: (Vec::new(), 0),
            }
        });
        Self {
            ops: ops.collect(),
            service_at: 0,
            rng,
        }
    }
    /// The message of an operation: at least as long as it says, and no longer where that is the length of a generation or more.
    pub fn message(key: &str, filler: u64) -> Vec<u8> {
        let mut text = format!("Message-ID: <{key}>\r\n\r\n");
        while (text.len() as u64) < filler {
            text.push_str("the quick brown fox ");
        }
        if filler >= ONE_GENERATION {
            text.truncate(filler as usize);
        }
        text.into_bytes()
    }
    /// The message that was sent with this key.
    pub fn sent(&self, key: &str) -> Option<Vec<u8>> {
        let sends = |o: &&Operation| matches!(o.kind, Kind::Submit | Kind::Deliver);
        let sent = self.ops.iter().filter(sends).find(|o| o.key == key)?;
        Some(Self::message(&sent.key, sent.body))
    }
}

/// The longest message that one generation holds.
const ONE_GENERATION: u64 = log::max_message(GENERATION_BYTES) as u64;

/// The length of a message: usual, the longest that a generation holds, or one that spans from two to five of them.
fn length(usual: u64, longest: bool, long: Option<&mut Rng>) -> u64 {
    match long {
        // Just above, some generations, the longest of all.
        Some(rng) => *rng.pick(&[
            ONE_GENERATION + 1,
            rng.clone().range(ONE_GENERATION + 1, MESSAGE_BYTES),
            rng.clone().range(ONE_GENERATION + 1, MESSAGE_BYTES),
            rng.clone().range(ONE_GENERATION + 1, 3 * GENERATION_BYTES),
            MESSAGE_BYTES,
        ]),
        None if longest => ONE_GENERATION,
        None => usual,
    }
}

/// The mailboxes of an operation, the first one given: several for messages alone.
fn recipients(rng: &mut Rng, kind: Kind, first: usize, most: u64) -> Vec<Recipient> {
    let sends = matches!(kind, Kind::Submit | Kind::Deliver);
    let count = if sends && most > 1 { rng.range(1, most + 1) } else { 1 };
    let one = |n: u64| Recipient {
        mailbox: MAILBOXES[(first + n as usize) % MAILBOXES.len()],
        outcome: Outcome::Open,
        by: None,
    };
    (0..count).map(one).collect()
}

impl World {
    /// Operations begin one after another from now on, evenly over `us`.
    pub fn begin_workload(&mut self, us: u64) {
        let count = self.workload.ops.len() as u64;
        for op in 0..count {
            let at = us * op / count + self.workload.rng.range(0, us / count.max(1) + 1);
            self.at(at, SimEvent::Client(op));
        }
    }

    pub(super) fn client_acts(&mut self, op: u64) {
        let o = &self.workload.ops[op as usize];
        let message = || Workload::message(&o.key, o.body);
        let mailbox = o.to[0].mailbox.to_owned();
        let recipients: Vec<String> = o.to.iter().map(|r| format!("{}@lab", r.mailbox)).collect();
        self.checks.counters.several_recipients += u64::from(recipients.len() > 1);
        let sends = matches!(o.kind, Kind::Submit | Kind::Deliver);
        self.checks.counters.long_messages += u64::from(sends && o.body > ONE_GENERATION);
        let request = match (o.kind, o.step) {
            (Kind::Submit, _) => ClientRequest::Submit {
                sender: "client@lab".into(),
                recipients,
                message: message(),
            },
            (Kind::Deliver, _) => ClientRequest::Deliver {
                envid: None,
                recipients,
                message: message(),
            },
            (Kind::Read | Kind::Delete, 0) => ClientRequest::List { mailbox },
            (Kind::Read | Kind::Delete, 1) => ClientRequest::Retrieve {
                mailbox,
                uid: o.uid,
                piece: o.read.1,
            },
            (Kind::Read | Kind::Delete, _) => ClientRequest::Delete {
                mailbox,
                uids: vec![o.uid],
            },
        };
        let target = if o.kind == Kind::Submit {
            let hubs = self.machines.len() - 2;
            Some(2 + o.hub % hubs)
        } else {
            self.service_place()
        };
        let target = target.filter(|t| self.machines[*t].powered);
        let Some(target) = target.filter(|t| self.machines[*t].node.is_some()) else {
            self.workload.ops[op as usize].outcome = Outcome::Fail;
            return;
        };
        let step = self.workload.ops[op as usize].step;
        self.at(PATIENCE_US, SimEvent::GiveUp(op, step));
        if self.passes(PUBLIC, CLIENTS, target) {
            let us = self.packet_us();
            self.at(us, SimEvent::Arrive(op, target, request));
        }
    }

    pub(super) fn client_arrives(&mut self, op: u64, i: usize, request: ClientRequest) {
        if self.machines[i].node.is_none() {
            return;
        }
        let req = self.next_req();
        self.waiters.insert((i, req), Waiter::Client(op));
        let life = self.machines[i].life;
        self.at(0, SimEvent::Input(i, life, crate::io::Input::Client { req, request }));
    }

    pub(super) fn client_gives_up(&mut self, op: u64, step: u64) {
        let o = &mut self.workload.ops[op as usize];
        if o.outcome == Outcome::Open && o.step == step {
            o.outcome = Outcome::Unknown;
        }
    }
    pub(super) fn client_lost(&mut self, op: u64) {
        let o = &mut self.workload.ops[op as usize];
        if o.outcome == Outcome::Open {
            o.outcome = Outcome::Unknown;
        }
    }

    pub(super) fn client_replied(&mut self, op: u64, i: usize, reply: Reply) {
        let pick = self.workload.rng.bits();
        let o = &mut self.workload.ops[op as usize];
        if o.outcome != Outcome::Open {
            return;
        }
        let mut next = false;
        match reply {
            Reply::Queued(id) => {
                o.hub_id = id;
                o.outcome = Outcome::Ok;
            }
            Reply::Delivered(replies) if replies.len() != o.to.len() => {
                let how = format!("node {i} gave {} answers for {} recipients", replies.len(), o.to.len());
                self.checks.broke("I4", how);
            }
            Reply::Delivered(replies) => {
                for (to, r) in o.to.iter_mut().zip(&replies) {
                    if r.code == 250 {
                        to.by = By::find(&r.text);
                        to.outcome = Outcome::Ok;
                    } else {
                        to.outcome = Outcome::Fail;
                    }
                }
                let any = o.to.iter().any(|r| r.outcome == Outcome::Ok);
                o.outcome = if any { Outcome::Ok } else { Outcome::Fail };
            }
            Reply::Listing(list) if list.is_empty() => o.outcome = Outcome::Ok,
            Reply::Listing(list) => {
                o.uid = list[(pick % list.len() as u64) as usize].uid;
                next = true;
            }
            Reply::Message { bytes, more: true } => {
                o.read.0.extend(bytes);
                o.read.1 += 1;
                self.checks.counters.pieces_read += 1;
                self.at(500, SimEvent::Client(op));
            }
            Reply::Message { bytes, more: false } => {
                o.read.0.extend(bytes);
                let read = std::mem::take(&mut o.read.0);
                o.key = crate::mailbox::message_key(&read);
                let (kind, key) = (o.kind, o.key.clone());
                if self.workload.sent(&key) != Some(read) {
                    self.checks
                        .broke("I4", format!("a client read a message that nobody sent: key {key:?}"));
                }
                let o = &mut self.workload.ops[op as usize];
                if kind == Kind::Delete {
                    next = true;
                } else {
                    o.outcome = Outcome::Ok;
                }
            }
            Reply::Deleted(by) => {
                o.to[0].by = Some(by);
                o.outcome = Outcome::Ok;
            }
            Reply::Refused { .. } => {
                // A message that somebody else has deleted meanwhile is no loss; the key names nothing then.
                o.outcome = Outcome::Fail;
            }
            other => self
                .checks
                .broke("I4", format!("node {i} answered a client with {other:?}")),
        }
        if next {
            let o = &mut self.workload.ops[op as usize];
            o.step += 1;
            self.at(500, SimEvent::Client(op));
        }
    }
}
