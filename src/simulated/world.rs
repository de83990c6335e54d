//! A simulated lab as a scenario's world.

use super::clients::Clients;
use super::faults::Faults;
use super::orders::command;
use super::{Names, SimWorlds};
use crate::error::{Error, Problem, Result};
use crate::event::{Draft, Event};
use crate::fault::Fault;
use crate::guest::Output;
use crate::hypervisor::DomainState;
use crate::scenario::{Answer, Heal, History, NodeView, Observation, Order, Progress, Workload, World};
use crate::spec::Lab;
use crate::verify::{FaultRecord, Moment};
use crate::wait::Slowness;
use ccr_core::io::Reply;
use ccr_core::sim::driven::Cluster;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest time between two looks at what was answered, in microseconds of virtual time.
const TURN_US: u64 = 5_000;
/// How long an operator waits for an answer.
const ORDER_US: u64 = 120_000_000;
/// Nothing of the cluster is new more often than this.
const NEWS: Duration = Duration::from_millis(100);

/// One scenario's lab.
#[derive(Debug)]
pub(super) struct SimWorld {
    lab: Arc<Lab>,
    names: Names,
    cluster: Cluster,
    clients: Clients,
    faults: Faults,
    events: Vec<Event>,
    seed: u64,
    interrupted: Arc<AtomicBool>,
    /// Answers to operators that nobody has taken yet.
    answered: Vec<(u64, Option<Reply>)>,
}

impl SimWorld {
    pub fn new(worlds: &SimWorlds, cluster: Cluster, seed: u64) -> Self {
        let (lab, names) = (worlds.lab.clone(), worlds.names.clone());
        let service = lab.runtime.as_ref().and_then(|r| r.service.as_ref());
        let domain = service.map_or_else(String::new, |s| s.name.to_string());
        let mut world = Self {
            clients: Clients::new(names.hubs.len(), &domain),
            faults: Faults::new(&worlds.settings),
            events: Vec::new(),
            answered: Vec::new(),
            lab,
            names,
            cluster,
            seed,
            interrupted: worlds.interrupted.clone(),
        };
        world.listen();
        world
    }

    /// Takes in what the nodes told and what was answered.
    fn listen(&mut self) {
        let told = self.cluster.told();
        for (t_us, i, event) in told {
            let Some(node) = self.names.all().nth(i).cloned() else {
                continue;
            };
            let node_seq = Some(event.seq);
            let draft = Draft::of_runtime(&node, event);
            self.push(draft, t_us, node_seq);
        }
        let answers = self.cluster.answers();
        self.answered
            .extend(answers.iter().map(|(q, _, reply)| (*q, reply.clone())));
        self.clients.turn(&mut self.cluster, answers);
        // Only an operator's answer is looked for here, and he looks at once.
        let len = self.answered.len();
        self.answered.drain(..len.saturating_sub(64));
    }

    fn push(&mut self, draft: Draft, t_us: u64, node_seq: Option<u64>) {
        self.events.push(Event {
            seq: self.events.len() as u64,
            t_us,
            src: draft.src,
            node: draft.node,
            kind: draft.kind,
            id: draft.id,
            severity: draft.severity,
            node_t_us: draft.node_t_us,
            skew_us: node_seq.map(|_| 0),
            node_seq,
            data: draft.data,
        });
    }

    fn run_until(&mut self, end_us: u64) -> Result<()> {
        while self.cluster.now_us() < end_us {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let now = self.cluster.now_us();
            let turn = if self.clients.is_busy() { now + TURN_US } else { end_us };
            let due = self.clients.due_us().unwrap_or(end_us).max(now + 1);
            self.cluster.run_until(end_us.min(turn).min(due));
            self.listen();
        }
        Ok(())
    }

    fn ask(&mut self, i: usize, order: &Order) -> Result<Answer> {
        let lost = |seen: &str| Error::Operation(Problem::new(format!("order `{}`", order.word)).observed(seen));
        let command = command(&order.word, &order.args).ok_or_else(|| lost("the simulator has no such order"))?;
        let question = self
            .cluster
            .order(i, command)
            .ok_or_else(|| lost("no daemon runs there"))?;
        let end = self.cluster.now_us() + ORDER_US;
        while self.cluster.now_us() < end {
            self.run_until(self.cluster.now_us() + TURN_US)?;
            if let Some(at) = self.answered.iter().position(|(q, _)| *q == question) {
                let answer = |done, seen| Ok(Answer { done, seen });
                return match self.answered.remove(at).1 {
                    Some(Reply::Done(seen) | Reply::Unchanged(seen)) => answer(true, seen),
                    Some(Reply::Denied(seen)) => answer(false, seen),
                    Some(other) => Err(lost(&format!("{other:?}"))),
                    None => Err(lost("whoever was asked is gone")),
                };
            }
        }
        Err(lost("no answer in time"))
    }
}

impl World for SimWorld {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn slowness(&self) -> Slowness {
        Slowness::NONE
    }

    fn now_us(&self) -> u64 {
        self.cluster.now_us()
    }

    fn observe(&mut self, _: Option<u64>) -> Result<Observation> {
        let now = self.cluster.now_us();
        let names: Vec<String> = self.names.all().cloned().collect();
        let view = |(i, name): (usize, String)| {
            let machine = match () {
                () if !self.cluster.is_on(i) => DomainState::Off,
                () if self.cluster.is_frozen(i) => DomainState::Paused,
                () => DomainState::Running,
            };
            let status = self.cluster.status(i);
            let moment = status.as_ref().map(|_| Moment {
                after_us: now,
                heard_us: now,
            });
            let error = status.is_none().then(|| "its daemon does not answer".to_owned());
            let view = NodeView {
                machine: Some(machine),
                status,
                error,
                moment,
            };
            (name, view)
        };
        let nodes = names.into_iter().enumerate().map(view).collect();
        // What a question brought about is heard too.
        self.listen();
        Ok(Observation {
            t_us: now,
            nodes,
            network_outages: Vec::new(),
        })
    }

    fn events(&self, from: usize) -> Vec<Event> {
        self.events.get(from..).unwrap_or_default().to_vec()
    }

    fn await_news(&mut self, most: Duration) -> Result<()> {
        self.pass(most.min(NEWS))
    }

    fn pass(&mut self, time: Duration) -> Result<()> {
        self.run_until(self.cluster.now_us() + time.as_micros() as u64)
    }

    fn inject(&mut self, fault: &Fault) -> Result<FaultRecord> {
        let lab = self.lab.clone();
        let record = self.faults.inject(&mut self.cluster, &self.names, &lab, fault);
        self.listen();
        record
    }

    fn heal(&mut self, which: &Heal) -> Result<Vec<FaultRecord>> {
        let healed = self.faults.heal(&mut self.cluster, |r| which.covers(r));
        self.listen();
        Ok(healed)
    }

    fn operate(&mut self, order: &Order) -> Result<Answer> {
        if let Some(node) = &order.on {
            let place = self.names.place(node);
            let nobody = || Error::Operation(Problem::new("give the order").on(node).observed("it is not simulated"));
            return self.ask(place.ok_or_else(nobody)?, order);
        }
        let seen = self.observe(None)?;
        let active = seen.active().and_then(|n| self.names.place(n));
        let runs = (0..2).find(|i| self.cluster.status(*i).is_some());
        let nobody = || Error::Operation(Problem::new("give the order").observed("no member answers"));
        self.ask(active.or(runs).ok_or_else(nobody)?, order)
    }

    fn exec(&mut self, node: &str, _: &[String], _: Duration) -> Result<Output> {
        let problem = Problem::new("run a command").on(node);
        Err(Error::Operation(
            problem.observed("a simulated machine has no commands"),
        ))
    }

    fn load(&mut self, workload: &Workload) -> Result<()> {
        self.stop_load()?;
        self.clients.start(workload, self.cluster.now_us(), self.seed);
        Ok(())
    }

    fn stop_load(&mut self) -> Result<()> {
        self.clients.stop_timetable();
        while self.clients.is_busy() {
            self.run_until(self.cluster.now_us() + TURN_US)?;
        }
        self.clients.end();
        Ok(())
    }

    fn progress(&self) -> Progress {
        self.clients.progress()
    }

    fn note(&mut self, draft: Draft) {
        let now = self.cluster.now_us();
        self.push(draft, now, None);
    }

    fn finish(&mut self, history: &mut History) -> Result<()> {
        self.stop_load()?;
        let all = self.names.all().count();
        history.dumps = (0..all).filter_map(|i| self.cluster.dump(i)).collect();
        history.leaks = Some(self.faults.left());
        let last = self.observe(None)?;
        history.observations.push(last);
        history.ops = std::mem::take(&mut self.clients.lines);
        history.events = std::mem::take(&mut self.events);
        history.events.sort_by_key(|e| e.t_us);
        Ok(())
    }

    fn end(self: Box<Self>, _: bool) -> Result<()> {
        Ok(())
    }
}
