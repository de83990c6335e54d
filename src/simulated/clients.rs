//! The clients of the simulated mail: the same operations as on machines, in virtual time.

use crate::scenario::mail::{Letter, key};
use crate::scenario::{Progress, Workload};
use crate::verify::{OpKind, OpLine, Outcome};
use ccr_contract::reply::By;
use ccr_core::io::{ClientRequest, Reply};
use ccr_core::sim::driven::{Asked, Cluster};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// A workload that runs.
#[derive(Debug)]
struct Load {
    workload: Workload,
    began_us: u64,
    /// The next operation in the timetable.
    next: u64,
    run: String,
    dice: ChaCha8Rng,
    busy: Vec<Option<Conversation>>,
}

/// What one client is in the middle of.
#[derive(Debug)]
struct Conversation {
    op: u64,
    kind: OpKind,
    /// A read that goes on to delete what it has read.
    deletes: bool,
    question: u64,
    until_us: u64,
    uid: u64,
    /// What was read of the message so far, and in how many pieces.
    read: (Vec<u8>, usize),
    /// Key of the message that was read.
    found: Option<String>,
    damaged: Vec<String>,
}

/// All clients, and their journal.
#[derive(Debug, Default)]
pub(super) struct Clients {
    load: Option<Load>,
    loads: u32,
    ops: u64,
    /// The journal.
    pub lines: Vec<OpLine>,
    /// Digests of what was sent, by key.
    sent: BTreeMap<String, blake3::Hash>,
    counted: Progress,
    hubs: usize,
    domain: String,
}

impl Clients {
    pub fn new(hubs: usize, domain: &str) -> Self {
        Self {
            hubs,
            domain: domain.to_owned(),
            ..Self::default()
        }
    }

    pub fn progress(&self) -> Progress {
        self.counted
    }

    pub fn is_busy(&self) -> bool {
        self.load.as_ref().is_some_and(|l| l.busy.iter().any(Option::is_some))
    }

    pub fn start(&mut self, workload: &Workload, now_us: u64, seed: u64) {
        self.loads += 1;
        self.load = Some(Load {
            began_us: now_us,
            next: 0,
            run: format!("s{seed:x}-{}", self.loads),
            dice: ChaCha8Rng::seed_from_u64(workload.seed),
            busy: (0..workload.clients).map(|_| None).collect(),
            workload: workload.clone(),
        });
    }

    /// No more operations begin.
    pub fn stop_timetable(&mut self) {
        if let Some(load) = &mut self.load {
            load.next = u64::MAX;
        }
    }

    pub fn end(&mut self) {
        self.load = None;
    }

    /// When something is due next, where anything is.
    pub fn due_us(&self) -> Option<u64> {
        let load = self.load.as_ref()?;
        let deadlines = load.busy.iter().flatten().map(|c| c.until_us);
        load.next_us().into_iter().chain(deadlines).min()
    }

    /// Does what is due, and hears what was answered.
    pub fn turn(&mut self, cluster: &mut Cluster, answers: Vec<(u64, u64, Option<Reply>)>) {
        for (question, t_us, reply) in answers {
            self.heard(cluster, question, t_us, reply);
        }
        let now = cluster.now_us();
        let clients = self.load.as_ref().map_or(0, |l| l.busy.len());
        for client in 0..clients {
            let late = |c: &mut Conversation| c.until_us <= now;
            if let Some(c) = self.load.as_mut().and_then(|l| l.busy[client].take_if(late)) {
                self.complete(&c, Outcome::Unknown, None, "no answer in time", now);
            }
        }
        while let Some(load) = &mut self.load
            && load.next_us().is_some_and(|t| t <= now)
        {
            load.next += 1;
            self.begin(cluster);
        }
    }

    /// An operation of the timetable begins, with a client that has nothing to do.
    fn begin(&mut self, cluster: &mut Cluster) {
        let Some(load) = &mut self.load else { return };
        let m = load.workload.mix;
        let sum = m.submit + m.deliver + m.read + m.delete;
        let dice = load.dice.random_range(0..sum.max(1));
        let (kind, deletes) = match dice {
            d if d < m.submit => (OpKind::Submit, false),
            d if d < m.submit + m.deliver => (OpKind::Deliver, false),
            d => (OpKind::Read, d >= m.submit + m.deliver + m.read),
        };
        let Some(client) = load.busy.iter().position(Option::is_none) else {
            self.counted.shed += 1;
            return;
        };
        self.counted.begun += 1;
        let name = format!("m{}", client + 1);
        let op = self.ops;
        self.ops += 1;
        let now = cluster.now_us();
        let is_read = kind == OpKind::Read;
        let key = if is_read {
            name.clone()
        } else {
            key(&load.run, &name, op)
        };
        let conversation = Conversation {
            op,
            kind,
            deletes,
            question: 0,
            until_us: now + load.workload.deadline.duration().as_micros() as u64,
            uid: 0,
            read: Default::default(),
            found: None,
            damaged: Vec::new(),
        };
        self.lines.push(OpLine::Invoke {
            op,
            client: name.clone(),
            kind,
            key: key.clone(),
            mailbox: name.clone(),
            t_us: now,
        });
        let (whom, request) = self.first(kind, op, &key, &name);
        self.ask(cluster, client, conversation, whom, request);
    }

    fn first(&mut self, kind: OpKind, op: u64, key: &str, mailbox: &str) -> (Asked, ClientRequest) {
        let (seed, size) = self
            .load
            .as_ref()
            .map_or((0, 0), |l| (l.workload.seed, l.workload.size.0));
        let to = format!("{mailbox}@{}", self.domain);
        let mut message = || {
            let text = Letter::new(seed, key, "clients@failoverlab.test", &to, size).text;
            self.sent.insert(key.to_owned(), blake3::hash(&text));
            text
        };
        let recipients = vec![to.clone()];
        match kind {
            OpKind::Submit => {
                let request = ClientRequest::Submit {
                    sender: "clients@failoverlab.test".into(),
                    recipients,
                    message: message(),
                };
                (Asked::Machine(2 + op as usize % self.hubs.max(1)), request)
            }
            OpKind::Deliver => {
                let request = ClientRequest::Deliver {
                    envid: None,
                    recipients,
                    message: message(),
                };
                (Asked::Service, request)
            }
            OpKind::Read | OpKind::Delete => {
                let mailbox = mailbox.to_owned();
                (Asked::Service, ClientRequest::List { mailbox })
            }
        }
    }

    fn ask(&mut self, cluster: &mut Cluster, client: usize, mut c: Conversation, whom: Asked, request: ClientRequest) {
        match cluster.ask(whom, request) {
            Some(question) => {
                c.question = question;
                if let Some(load) = &mut self.load {
                    load.busy[client] = Some(c);
                }
            }
            None => self.complete(&c, Outcome::Fail, None, "no connection", cluster.now_us()),
        }
    }

    fn heard(&mut self, cluster: &mut Cluster, question: u64, t_us: u64, reply: Option<Reply>) {
        let Some(load) = &mut self.load else { return };
        let mine = |c: &Option<Conversation>| c.as_ref().is_some_and(|c| c.question == question);
        let Some(client) = load.busy.iter().position(mine) else {
            return;
        };
        let Some(mut c) = load.busy[client].take() else { return };
        let mailbox = format!("m{}", client + 1);
        match reply {
            // What only reads has certainly changed nothing; whether a write did is not known.
            None if c.kind == OpKind::Read => self.complete(&c, Outcome::Fail, None, "connection reset", t_us),
            None => self.complete(&c, Outcome::Unknown, None, "connection reset", t_us),
            Some(Reply::Queued(id)) => self.complete(&c, Outcome::Ok, None, &format!("250 queued as {id}"), t_us),
            Some(Reply::Delivered(replies)) => match replies.as_slice() {
                [r] if r.code == 250 => self.complete(&c, Outcome::Ok, By::find(&r.text), &r.text, t_us),
                [r] => self.complete(&c, Outcome::Fail, None, &format!("{} {}", r.code, r.text), t_us),
                other => {
                    let seen = format!("{} answers for one recipient", other.len());
                    self.complete(&c, Outcome::Unknown, None, &seen, t_us);
                }
            },
            Some(Reply::Listing(list)) => {
                let pick = load.dice.random_range(0..list.len().max(1));
                let request = match list.get(pick) {
                    Some(listed) => {
                        c.uid = listed.uid;
                        c.read = Default::default();
                        piece(&c, mailbox)
                    }
                    None => {
                        c.deletes = false;
                        ClientRequest::Delete {
                            mailbox,
                            uids: Vec::new(),
                        }
                    }
                };
                self.ask(cluster, client, c, Asked::Service, request);
            }
            Some(Reply::Message { bytes, more: true }) => {
                c.read.0.extend(bytes);
                c.read.1 += 1;
                let request = piece(&c, mailbox);
                self.ask(cluster, client, c, Asked::Service, request);
            }
            Some(Reply::Message { bytes, more: false }) => {
                c.read.0.extend(bytes);
                let bytes = std::mem::take(&mut c.read.0);
                let found = message_key(&bytes);
                if found.as_ref().and_then(|k| self.sent.get(k)) != Some(&blake3::hash(&bytes)) {
                    c.damaged
                        .push(found.clone().unwrap_or_else(|| "a message without a key".into()));
                }
                let request = ClientRequest::Delete {
                    mailbox: mailbox.clone(),
                    uids: Vec::new(),
                };
                c.found = found;
                // The end of the session: its answer says who it was.
                self.ask(cluster, client, c, Asked::Service, request);
            }
            Some(Reply::Deleted(by)) => {
                let seen = format!("+OK {by}");
                self.complete(&c, Outcome::Ok, Some(by), &seen, t_us);
                if let Some(key) = c.found.take().filter(|_| c.deletes) {
                    self.delete(cluster, client, &c, key, mailbox);
                }
            }
            Some(Reply::Refused { why, .. }) => self.complete(&c, Outcome::Fail, None, &why, t_us),
            Some(other) => self.complete(&c, Outcome::Unknown, None, &format!("{other:?}"), t_us),
        }
    }

    /// What was read is deleted: an operation of its own.
    fn delete(&mut self, cluster: &mut Cluster, client: usize, read: &Conversation, key: String, mailbox: String) {
        let op = self.ops;
        self.ops += 1;
        self.counted.begun += 1;
        self.lines.push(OpLine::Invoke {
            op,
            client: mailbox.clone(),
            kind: OpKind::Delete,
            key,
            mailbox: mailbox.clone(),
            t_us: cluster.now_us(),
        });
        let uids = vec![read.uid];
        let c = Conversation {
            op,
            kind: OpKind::Delete,
            deletes: false,
            question: 0,
            until_us: read.until_us,
            uid: read.uid,
            read: Default::default(),
            found: None,
            damaged: Vec::new(),
        };
        self.ask(
            cluster,
            client,
            c,
            Asked::Service,
            ClientRequest::Delete { mailbox, uids },
        );
    }

    fn complete(&mut self, c: &Conversation, outcome: Outcome, by: Option<By>, seen: &str, t_us: u64) {
        match outcome {
            Outcome::Ok => {
                self.counted.acks += u64::from(matches!(c.kind, OpKind::Submit | OpKind::Deliver));
                self.counted.store_answers += u64::from(c.kind != OpKind::Submit);
            }
            Outcome::Fail => self.counted.failed += 1,
            Outcome::Unknown => self.counted.unknown += 1,
        }
        self.lines.push(OpLine::Complete {
            op: c.op,
            outcome,
            by,
            seen: seen.to_owned(),
            keys: None,
            damaged: (!c.damaged.is_empty()).then(|| c.damaged.clone()),
            t_us,
        });
    }
}

impl Load {
    /// When the next operation of the timetable begins.
    fn next_us(&self) -> Option<u64> {
        (self.next < u64::MAX).then(|| self.began_us + (self.next as f64 * 1e6 / self.workload.rate.0) as u64)
    }
}

/// The Message-ID of a message, without brackets.
fn message_key(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("message-id:"))?;
    let value = line.split_once('<')?.1.split_once('>')?.0;
    Some(value.to_owned())
}

/// Asks for the next piece of the message that is being read.
fn piece(c: &Conversation, mailbox: String) -> ClientRequest {
    ClientRequest::Retrieve {
        mailbox,
        uid: c.uid,
        piece: c.read.1,
    }
}
