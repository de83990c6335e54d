//! A small model of a lab that fails over, for tests: it leaves the histories that a healthy run leaves.

mod looks;

pub use looks::{healthy, observation, status};

use super::{FaultRecord, History, NodeView, OnPurpose, OpKind, OpLine, Outcome, RunReport, ScenarioReport, Verdict};
use crate::event::{Draft, Event};
use crate::spec::{self, Lab};
use ccr_contract::dump::{Dump, Group, Log, Message};
use ccr_contract::event::{Claimant, EventKind, NodeEvent, OnlineCause};
use ccr_contract::reply::By;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const STREAM: &str = "3f6a";
const GROUP: &str = "First";
const MEMBERS: [&str; 2] = ["node1", "node2"];
/// Messages in a generation.
const CLOSE: usize = 8;
const MS: u64 = 1000;

/// How the active node changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// By an operator.
    Planned,
    /// By loss of power.
    PowerOff,
}

/// What shall happen.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Operations a second.
    pub rate: u64,
    /// Seconds after each change, and before the first.
    pub stretch: u64,
    pub changes: Vec<Change>,
}

impl Plan {
    pub fn new(changes: &[Change]) -> Self {
        Self {
            seed: 7,
            rate: 20,
            stretch: 8,
            changes: changes.to_vec(),
        }
    }
}

/// A run of `ccr` with these scenarios.
pub fn run(verdict: Verdict, scenarios: Vec<ScenarioReport>) -> RunReport {
    RunReport {
        distributions: Vec::new(),
        on_purpose: OnPurpose::default(),
        lab: "ccr".into(),
        seed: 7,
        accel: "tcg".into(),
        on: "machines".into(),
        verdict,
        scenarios,
    }
}

pub fn lab() -> Lab {
    spec::example("ccr")
}

struct Model {
    lab: Lab,
    random: ChaCha8Rng,
    history: History,
    now: u64,
    active: usize,
    epoch: u64,
    /// Whether the active serves.
    up: bool,
    /// Power of each member.
    power: [bool; 2],
    generation: u64,
    /// Last generation that the passive has inspected.
    inspected: u64,
    in_generation: usize,
    store: Vec<Message>,
    logs: Vec<Log>,
    /// Delivered submits, with their mailbox: the dumpster.
    dumpster: Vec<(String, String)>,
    queue: Vec<(String, String)>,
    next_op: u64,
    deletable: Vec<(String, String)>,
}

/// The history of a run in which everything went well.
pub fn history(plan: &Plan) -> History {
    let mut m = Model {
        lab: lab(),
        random: ChaCha8Rng::seed_from_u64(plan.seed),
        history: History {
            leaks: Some(Vec::new()),
            ..History::default()
        },
        now: 100 * MS,
        active: 0,
        epoch: 3,
        up: true,
        power: [true, true],
        generation: 1,
        inspected: 0,
        in_generation: 0,
        store: Vec::new(),
        logs: Vec::new(),
        dumpster: Vec::new(),
        queue: Vec::new(),
        next_op: 0,
        deletable: Vec::new(),
    };
    m.opened();
    m.look();
    m.load(plan, plan.stretch);
    for change in &plan.changes {
        match change {
            Change::Planned => m.planned(plan),
            Change::PowerOff => m.power_off(plan),
        }
        m.load(plan, plan.stretch);
    }
    m.finish()
}

impl Model {
    fn passive(&self) -> usize {
        1 - self.active
    }

    fn event(&mut self, node: &str, what: &EventKind) {
        let event = runtime_event(node, self.now, what);
        let seq = self.history.events.len() as u64;
        self.history.events.push(Event { seq, ..event });
    }

    fn look(&mut self) {
        let active = self.up.then(|| MEMBERS[self.active]);
        let mut o = observation(
            &self.lab,
            self.now,
            active.unwrap_or("nobody"),
            self.generation - 1,
            self.inspected,
        );
        for (i, name) in MEMBERS.iter().enumerate() {
            if !self.power[i] {
                o.nodes.insert(
                    (*name).to_owned(),
                    NodeView {
                        machine: Some(crate::hypervisor::power(&[], name)),
                        ..NodeView::default()
                    },
                );
            }
        }
        for status in o.nodes.values_mut().filter_map(|v| v.status.as_mut()) {
            status.epoch = self.epoch;
        }
        if let Some(hub) = o.nodes.get_mut("hub").and_then(|v| v.status.as_mut()?.hub.as_mut()) {
            hub.queued = self.queue.len() as u64;
        }
        self.history.observations.push(o);
    }

    /// Clients for so many seconds.
    fn load(&mut self, plan: &Plan, seconds: u64) {
        let until = self.now + seconds * 1_000_000;
        self.load_until(plan, until);
    }

    fn load_until(&mut self, plan: &Plan, until: u64) {
        let mut look = self.now;
        while self.now < until {
            self.operation();
            self.now += 1_000_000 / plan.rate;
            if self.now >= look {
                self.look();
                look = self.now + 250 * MS;
            }
        }
    }

    fn operation(&mut self) {
        let op = self.next_op;
        self.next_op += 1;
        let client = format!("m{}", op % 4 + 1);
        let begin = self.now;
        let took = self.random.random_range(15..90) * MS;
        let dice = self.random.random_range(0..100);
        let kind = match dice {
            0..45 => OpKind::Submit,
            45..85 => OpKind::Deliver,
            85..95 => OpKind::Read,
            _ if self.deletable.len() > 4 => OpKind::Delete,
            _ => OpKind::Read,
        };
        let mut mailbox = client.clone();
        let key = match kind {
            OpKind::Submit | OpKind::Deliver => format!("{op}.{client}.r7@failoverlab.test"),
            OpKind::Read => client.clone(),
            OpKind::Delete => {
                let (key, owner) = self.deletable.remove(0);
                mailbox = owner;
                key
            }
        };
        self.history.ops.push(OpLine::Invoke {
            op,
            client,
            kind,
            key: key.clone(),
            mailbox: mailbox.clone(),
            t_us: begin,
        });
        let (outcome, by, seen) = self.answer(kind, &key, &mailbox);
        let took = if outcome == Outcome::Unknown { 5_000 * MS } else { took };
        self.history.ops.push(OpLine::Complete {
            op,
            outcome,
            by,
            seen,
            keys: None,
            damaged: None,
            t_us: begin + took,
        });
    }

    fn answer(&mut self, kind: OpKind, key: &str, mailbox: &str) -> (Outcome, Option<By>, String) {
        if kind == OpKind::Submit {
            self.queue.push((key.to_owned(), mailbox.to_owned()));
            self.drain();
            return (Outcome::Ok, None, "250 queued".into());
        }
        if !self.up {
            return (Outcome::Fail, None, "no connection: no answer in time".into());
        }
        let generation = match kind {
            OpKind::Deliver => self.store(key, mailbox),
            OpKind::Delete => {
                self.store.retain(|m| m.key.as_deref() != Some(key));
                self.dumpster.retain(|(k, _)| k != key);
                self.generation
            }
            _ => 0,
        };
        if kind == OpKind::Deliver {
            self.deletable.push((key.to_owned(), mailbox.to_owned()));
        }
        let by = By {
            node: MEMBERS[self.active].into(),
            epoch: self.epoch,
            stream: STREAM.into(),
            generation,
        };
        (Outcome::Ok, Some(by.clone()), format!("250 stored {by}"))
    }

    /// What the hub has goes to the store.
    fn drain(&mut self) {
        if self.up {
            for (key, mailbox) in std::mem::take(&mut self.queue) {
                self.store(&key, &mailbox);
                self.dumpster.push((key, mailbox));
            }
        }
    }

    fn store(&mut self, key: &str, mailbox: &str) -> u64 {
        let generation = self.generation;
        if self.store.iter().all(|m| m.key.as_deref() != Some(key)) {
            self.store.push(Message {
                key: Some(key.to_owned()),
                hub_id: None,
                mailbox: mailbox.to_owned(),
                stream: STREAM.into(),
                generation,
                epoch: self.epoch,
                bytes: 32_768,
                crc32c: "00000000".into(),
            });
            self.in_generation += 1;
        }
        if self.in_generation >= CLOSE {
            self.close();
        }
        generation
    }

    /// The active opens its first log of this epoch.
    fn opened(&mut self) {
        let (generation, epoch) = (self.generation, self.epoch);
        let opened = EventKind::LogOpened {
            group: GROUP.into(),
            stream: STREAM.into(),
            generation,
            epoch,
        };
        self.event(MEMBERS[self.active], &opened);
    }

    fn close(&mut self) {
        let (generation, epoch) = (self.generation, self.epoch);
        let checksum = format!("{generation:x}");
        let closed = EventKind::LogClosed {
            group: GROUP.into(),
            stream: STREAM.into(),
            generation,
            epoch,
            checksum: checksum.clone(),
        };
        self.event(MEMBERS[self.active], &closed);
        self.logs.push(Log {
            stream: STREAM.into(),
            generation,
            epoch,
            checksum,
            previous: format!("{:x}", generation - 1),
            bytes: 1 << 20,
        });
        // Now and then the copy is a generation behind.
        if self.power[self.passive()] && self.random.random_range(0..3) > 0 {
            self.inspect();
        }
        self.generation += 1;
        self.in_generation = 0;
    }

    /// The passive inspects everything that is closed.
    fn inspect(&mut self) {
        while self.inspected < self.logs.last().map_or(0, |l| l.generation) {
            self.inspected += 1;
            let (group, generation) = (GROUP.into(), self.inspected);
            self.event(MEMBERS[self.passive()], &EventKind::CopyInspected { group, generation });
        }
    }

    fn planned(&mut self, plan: &Plan) {
        if self.in_generation > 0 {
            self.close();
        }
        self.inspect();
        let (from, to) = (MEMBERS[self.active], MEMBERS[self.passive()]);
        self.up = false;
        let (why, orderly, epoch) = ("move".into(), false, self.epoch);
        self.event(from, &EventKind::Offline { why, orderly, epoch });
        self.load_until(plan, self.now + 400 * MS);
        self.epoch += 1;
        self.active = self.passive();
        let epoch = self.epoch;
        let why = OnlineCause::Handoff;
        self.event(to, &EventKind::OnlinePending { why, epoch });
        self.load_until(plan, self.now + 200 * MS);
        self.opened();
        self.event(to, &EventKind::Mounted { ms: 120, epoch });
        self.event(to, &EventKind::Online { ms: 130, epoch });
        self.up = true;
        let done = EventKind::MoveDone {
            to: to.into(),
            ms: 900,
            done: true,
            epoch,
        };
        self.event(to, &done);
        self.drain();
    }

    fn power_off(&mut self, plan: &Plan) {
        let (dead, alive) = (self.active, self.passive());
        let record = FaultRecord {
            id: self.history.faults.len() as u64,
            kind: "power-off".into(),
            target: json!({"role": "active", "node": MEMBERS[dead]}),
            begin_us: self.now,
            end_us: None,
            proof: json!({"suspended_us": self.now, "domain": "gone", "pid": 4711}),
            effective: Some(true),
            pending: false,
        };
        self.history.faults.push(record);
        self.up = false;
        self.power[dead] = false;
        self.load_until(plan, self.now + 6_100 * MS);
        let name = MEMBERS[alive];
        let (claimant, epoch) = (Claimant::Challenger, self.epoch);
        let (member, why) = (MEMBERS[dead].into(), "5 heartbeats missed".into());
        self.event(name, &EventKind::MemberDown { member, why, epoch });
        self.event(name, &EventKind::ArbitrationBegin { claimant, epoch });
        self.load_until(plan, self.now + 1_600 * MS);
        self.epoch += 1;
        let epoch = self.epoch;
        self.event(name, &EventKind::ArbitrationWon { claimant, epoch });
        let why = OnlineCause::FailoverOrStart;
        self.event(name, &EventKind::OnlinePending { why, epoch });
        self.load_until(plan, self.now + 300 * MS);
        let closed = self.logs.last().map_or(0, |l| l.generation);
        let inspected = self.inspected;
        if closed > inspected {
            let lost = EventKind::CopyLost {
                group: GROUP.into(),
                from: inspected + 1,
                to: closed,
                lost: closed - inspected,
                epoch,
            };
            self.event(name, &lost);
        }
        self.store.retain(|m| m.generation <= inspected);
        self.logs.retain(|l| l.generation <= inspected);
        self.generation = inspected + 1;
        self.in_generation = 0;
        self.active = alive;
        self.opened();
        self.event(name, &EventKind::Mounted { ms: 210, epoch });
        self.event(name, &EventKind::Online { ms: 220, epoch });
        self.up = true;
        let again: Vec<_> = self
            .dumpster
            .iter()
            .filter(|(k, _)| self.store.iter().all(|m| m.key.as_ref() != Some(k)))
            .cloned()
            .collect();
        let count = again.len() as u64;
        self.event("hub", &EventKind::HubRedelivery { count, epoch });
        self.queue.extend(again);
        self.drain();
        self.load(plan, 4);
        self.power[dead] = true;
        let now = self.now;
        let last = self.history.faults.last_mut().expect("it was pushed above");
        last.end_us = Some(now);
        self.load_until(plan, self.now + 3_000 * MS);
        let back = MEMBERS[dead];
        self.event(back, &EventKind::ClusterJoined { epoch });
        let member = back.into();
        self.event(name, &EventKind::MemberUp { member, epoch });
        if closed > inspected {
            let (group, from, to) = (GROUP.into(), inspected + 1, closed);
            self.event(back, &EventKind::CopyResynced { group, from, to });
        }
        self.inspect();
    }

    fn finish(mut self) -> History {
        self.drain();
        self.close();
        self.inspect();
        // Looks before and behind the final reads.
        for wait in [6_000, 500] {
            self.now += wait * MS;
            self.look();
        }
        let group = Group {
            group: GROUP.into(),
            logs: self.logs.clone(),
            messages: self.store.clone(),
            database: "d1".into(),
        };
        let dump = |node: &str, groups| Dump {
            schema: 1,
            node: node.into(),
            groups,
            queued: Vec::new(),
        };
        self.history.dumps = MEMBERS.iter().map(|n| dump(n, vec![group.clone()])).collect();
        self.history.dumps.push(dump("hub", Vec::new()));
        // Operations overlap: the journal has the lines in the order in which they were written.
        let line_t = |l: &OpLine| match l {
            OpLine::Invoke { t_us, .. } | OpLine::Complete { t_us, .. } => *t_us,
        };
        self.history.ops.sort_by_key(line_t);
        self.history
    }
}

/// What a node tells at this time.
pub fn runtime_event(node: &str, t_us: u64, what: &EventKind) -> Event {
    let draft = Draft::of_runtime(node, NodeEvent::new(0, t_us + 5_000_000, what));
    Event {
        seq: 0,
        t_us,
        src: draft.src,
        node: draft.node,
        kind: draft.kind,
        id: draft.id,
        severity: draft.severity,
        node_t_us: draft.node_t_us,
        skew_us: Some(800),
        node_seq: None,
        data: draft.data,
    }
}
