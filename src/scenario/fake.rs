//! A world without machines: virtual time, a cluster that takes over after a while, clients that count.

use super::*;

mod together;

pub(super) use together::Together;

use crate::error::{Error, Problem};
use crate::verify::sample;

/// The fake. What goes wrong in it is set before a run.
pub(super) struct Fake {
    pub lab: Lab,
    pub now: u64,
    /// Which node serves; none while a takeover is under way.
    pub active: Option<&'static str>,
    /// Who serves next, and when.
    pub next: Option<(u64, &'static str)>,
    pub off: Vec<String>,
    pub faults: Vec<FaultRecord>,
    pub healed: Vec<FaultRecord>,
    pub loads: Vec<Workload>,
    pub running: bool,
    pub notes: Vec<String>,
    pub orders: Vec<Order>,
    /// How long a takeover takes; none never happens.
    pub takes: Option<Duration>,
    pub effective: Option<bool>,
    pub refuses: bool,
    /// No node answers orders or commands.
    pub lost: bool,
    /// The commands that were run: where, what, and how long they may take.
    pub commands: Vec<(String, Vec<String>, Duration)>,
    /// How a command ends.
    pub ends: Output,
    pub interrupt_at: Option<u64>,
    /// When no node serves, for no reason.
    pub gone: std::ops::Range<u64>,
    pub finished: bool,
    /// When it was looked at, and since when what it says had to be so.
    pub looks: Vec<(u64, Option<u64>)>,
    /// When both members say that they serve.
    pub two: std::ops::Range<u64>,
    /// Whoever does not ask for more hears again what was said first.
    pub repeats: bool,
    pub first: Option<Observation>,
    pub history: History,
    /// What the nodes tell, each when its time has come.
    pub told: Vec<Event>,
    /// Whether somebody else looks while something is done.
    pub beside: bool,
    /// How long a fault takes to be made, in real time.
    pub busy_for: Option<Duration>,
    /// When no node answers.
    pub silent: std::ops::Range<u64>,
    /// What a refusal says.
    pub cause: &'static str,
    pub slowness: Slowness,
    /// From when the host is busy, and how.
    pub busy: (u64, f64),
}

impl Fake {
    pub fn new() -> Self {
        Self {
            lab: sample::lab(),
            now: 0,
            active: Some("node1"),
            next: None,
            off: Vec::new(),
            faults: Vec::new(),
            healed: Vec::new(),
            loads: Vec::new(),
            running: false,
            notes: Vec::new(),
            orders: Vec::new(),
            takes: Some(Duration::from_secs(8)),
            effective: Some(true),
            refuses: false,
            lost: false,
            commands: Vec::new(),
            ends: Output {
                status: 0,
                stdout: Vec::new(),
                stderr: Vec::new(),
            },
            interrupt_at: None,
            gone: 0..0,
            finished: false,
            looks: Vec::new(),
            two: 0..0,
            repeats: false,
            first: None,
            history: History {
                leaks: Some(Vec::new()),
                ..History::default()
            },
            told: Vec::new(),
            beside: false,
            busy_for: None,
            silent: 0..0,
            cause: "the copy is Suspended",
            slowness: Slowness::NONE,
            busy: (0, 1.0),
        }
    }

    fn other(node: &str) -> &'static str {
        if node == "node1" { "node2" } else { "node1" }
    }
}

/// Sees a healthy lab, as often as it may.
struct Beside(Lab, u64);

impl Looker for Beside {
    fn look(&mut self) -> Result<Observation> {
        self.1 += 1;
        let mut seen = sample::observation(&self.0, self.1, "node1", 5, 5);
        seen.nodes.values_mut().for_each(|v| v.error = Some("beside".into()));
        Ok(seen)
    }
}

impl World for Fake {
    fn lab(&self) -> &Lab {
        &self.lab
    }
    fn slowness(&self) -> Slowness {
        self.slowness
    }
    fn busy(&self) -> f64 {
        if self.now >= self.busy.0 { self.busy.1 } else { 1.0 }
    }
    fn now_us(&self) -> u64 {
        self.now
    }
    fn observe(&mut self, since_us: Option<u64>) -> Result<Observation> {
        self.looks.push((self.now, since_us));
        if let (true, None, Some(first)) = (self.repeats, since_us, &self.first) {
            return Ok(Observation {
                t_us: self.now,
                ..first.clone()
            });
        }
        if let Some((at, node)) = self.next
            && self.now >= at
        {
            self.active = Some(node);
            self.next = None;
        }
        let generation = self.now / 1_000_000;
        let mut seen = sample::observation(
            &self.lab,
            self.now,
            self.active
                .filter(|_| !self.gone.contains(&self.now))
                .unwrap_or("nobody"),
            generation,
            generation,
        );
        for node in &self.off {
            seen.nodes.insert(
                node.clone(),
                NodeView {
                    machine: Some(crate::hypervisor::power(&[], node)),
                    ..NodeView::default()
                },
            );
        }
        if self.silent.contains(&self.now) {
            seen.nodes.values_mut().for_each(|v| v.status = None);
        }
        if self.two.contains(&self.now) {
            for (node, view) in &mut seen.nodes {
                if let Some(service) = view.status.as_mut().and_then(|s| s.service.as_mut()) {
                    service.active = Some(node.clone());
                }
            }
        }
        self.first.get_or_insert_with(|| seen.clone());
        Ok(seen)
    }
    fn looker(&self) -> Option<Box<dyn Looker>> {
        self.beside
            .then(|| Box::new(Beside(self.lab.clone(), self.now)) as Box<dyn Looker>)
    }
    fn events(&self, from: usize) -> Vec<Event> {
        let told: Vec<Event> = self.told.iter().filter(|e| e.t_us <= self.now).cloned().collect();
        told.get(from..).unwrap_or_default().to_vec()
    }
    fn pass(&mut self, time: Duration) -> Result<()> {
        self.now += time.as_micros() as u64;
        match self.interrupt_at {
            Some(at) if self.now >= at => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
    fn inject(&mut self, fault: &Fault) -> Result<FaultRecord> {
        if let Some(time) = self.busy_for {
            crate::wait::pause(time);
        }
        let id = self.faults.len() + self.healed.len();
        let mut record = fault.record(id as u64, self.now);
        record.effective = self.effective;
        if let Fault::PowerOff(t) = fault {
            self.off.push(t.node.clone());
            if self.active == Some(&t.node) {
                self.active = None;
                self.next = self
                    .takes
                    .map(|d| (self.now + d.as_micros() as u64, Self::other(&t.node)));
            }
        }
        self.faults.push(record.clone());
        Ok(record)
    }
    fn heal(&mut self, which: &Heal) -> Result<Vec<FaultRecord>> {
        let now = self.now;
        let (mut on, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.faults)
            .into_iter()
            .partition(|f| which.covers(f));
        self.faults = rest;
        on.iter_mut().for_each(|f| f.end_us = Some(now));
        self.off.clear();
        self.healed.extend(on.clone());
        Ok(on)
    }
    fn operate(&mut self, order: &Order) -> Result<Answer> {
        self.orders.push(order.clone());
        if self.lost {
            return Err(Error::Operation(
                Problem::new("reach node1 over SSH").observed("no route"),
            ));
        }
        if !self.refuses && order.word == "move" {
            self.active = None;
            let to = if order.args.get("to").is_some_and(|to| to == "node1") {
                "node1"
            } else {
                "node2"
            };
            self.next = Some((self.now + 1_000_000, to));
        }
        Ok(Answer {
            done: !self.refuses,
            seen: if self.refuses {
                self.cause.into()
            } else {
                "moved".into()
            },
        })
    }
    fn exec(&mut self, node: &str, argv: &[String], within: Duration) -> Result<Output> {
        self.commands.push((node.to_owned(), argv.to_vec(), within));
        if self.lost {
            let problem = Problem::new("run a command through the machine's agent").on(node);
            return Err(Error::Operation(problem.observed("no word from it")));
        }
        Ok(self.ends.clone())
    }
    fn load(&mut self, workload: &Workload) -> Result<()> {
        if self.running {
            return Err(Error::Operation(Problem::new("start twice")));
        }
        self.running = true;
        self.loads.push(workload.clone());
        Ok(())
    }
    fn stop_load(&mut self) -> Result<()> {
        self.running = false;
        Ok(())
    }
    fn progress(&self) -> Progress {
        Progress {
            acks: self.now / 50_000,
            ..Progress::default()
        }
    }
    fn note(&mut self, draft: Draft) {
        self.notes.push(draft.kind);
    }
    fn end(self: Box<Self>, _: bool) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, history: &mut History) -> Result<()> {
        assert!(!self.running, "the final reads come after the last operation");
        assert!(self.faults.is_empty(), "the final reads come after the last heal");
        self.finished = true;
        let ours = self.history.clone();
        (history.ops, history.dumps, history.events) = (ours.ops, ours.dumps, ours.events);
        (history.leaks, history.missing) = (ours.leaks, ours.missing);
        history.observations.extend(ours.observations);
        Ok(())
    }
    fn keep_networks(&mut self, to: &Path) -> Result<()> {
        std::fs::write(to, "frames").map_err(|e| Error::Operation(Problem::new("keep the networks").observed(e)))
    }
}
