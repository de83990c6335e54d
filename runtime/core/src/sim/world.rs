//! The world of a run: machines with clocks and disks, networks, the share, and one queue of what happens when.

use super::check::Checks;
use super::clients::Workload;
use super::machine::{Machine, Moment, Pause};
use super::share::Share;
use super::streams::{Answered, Stream};
use super::truth::Truths;
use crate::io::{Input, OpId, ReqId, WitnessAction};
use crate::rng::Rng;
use ccr_contract::config::Config;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv4Addr;

/// Place of the workload's clients in the networks.
pub const CLIENTS: usize = 9;
/// The network of clients and hubs.
pub const PUBLIC: usize = 0;
/// The network between the members.
pub const PRIVATE: usize = 1;
/// What happens.
#[derive(Debug)]
pub enum SimEvent {
    /// A node gets an input.
    Input(usize, u64, Input),
    /// A node's disk is done with an operation.
    Disk(usize, u64),
    /// A node's timer.
    Wake(usize, u64, u64),
    /// A witness request reaches the server.
    Witness(usize, u64, u64, OpId, WitnessAction),
    /// A witness operation was answered, or its deadline has come.
    WitnessDone(usize, u64, OpId, crate::io::WitnessResult),
    /// A frame reaches the end of a stream.
    Frame(usize, bool),
    /// A stream has got nothing through for too long.
    StreamDies(usize),
    /// A client acts.
    Client(u64),
    /// A client's request reaches a node.
    Arrive(u64, usize, crate::io::ClientRequest),
    /// A client loses patience.
    GiveUp(u64, u64),
    /// A step of the plan.
    Step(usize),
    /// The end of a step's fault.
    Undo(usize),
    /// The power goes at last, where it has not yet.
    Doom(usize, u64),
    /// The store's answer reaches the hub.
    Answer(Answered),
    /// Look at everything.
    Poll,
    /// A machine comes back.
    PowerOn(usize),
    /// A machine loses power.
    PowerOff(usize),
    /// An operator asks a member.
    Order(usize, usize, crate::command::Command),
    /// The daemon is started again.
    Restart(usize, u64),
    /// The supervisor of a daemon that stands still since then has waited for long enough: kills it, and starts it again so much later.
    Watchdog(usize, u64, u64),
    /// What was to follow a service that came online follows: the step, and who came online.
    Behind(usize, usize),
}

#[derive(Debug)]
struct At(u64, u64, Box<SimEvent>);
impl PartialEq for At {
    fn eq(&self, o: &Self) -> bool {
        (self.0, self.1) == (o.0, o.1)
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for At {
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(o.0, o.1))
    }
}

/// Who waits for a reply of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Client(u64),
    Lmtp {
        hub: usize,
        life: u64,
        op: OpId,
    },
    Operator(u64),
    /// Whoever drives the run from outside, by the number of the question.
    Outside(u64),
}

/// An operator's order: what was served when it was given, by whom and in which epochs, and when that was.
pub(super) type Order = (crate::command::Command, Vec<(usize, u64)>, u64);

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// True time, in microseconds.
    pub now: u64,
    queue: BinaryHeap<Reverse<At>>,
    order: u64,
    /// Random choices of the environment.
    pub rng: Rng,
    /// The machines: two members, then the hubs.
    pub machines: Vec<Machine>,
    /// Directed cuts: network, from, to.
    pub cuts: BTreeSet<(usize, usize, usize)>,
    /// Members whose way to the share is cut, while everything else passes.
    pub share_cuts: BTreeSet<usize>,
    /// Datagrams lost, in percent.
    pub loss: u64,
    /// Most delay added to a packet, in microseconds.
    pub delay_us: u64,
    /// How often an operator had to mend a dismounted database.
    pub mended: u64,
    /// How often one had to seed a failed copy anew.
    pub reseeds: u64,
    /// The step that cuts a member off as soon as it answers a hub.
    pub cut_at_answer: Option<(usize, usize)>,
    /// Whether log shipping is held up.
    pub throttled: bool,
    /// The witness share, on the first hub.
    pub share: Share,
    pub(super) streams: Vec<Stream>,
    pub(super) witness_open: BTreeMap<(usize, u64, OpId), bool>,
    pub(super) waiters: BTreeMap<(usize, ReqId), Waiter>,
    /// What operators have asked and not been answered.
    pub(super) orders: BTreeMap<ReqId, Order>,
    next_req: u64,
    /// The bug that every node plays.
    pub planted: Option<crate::planted::Bug>,
    /// The times and policies of every node.
    pub settings: std::rc::Rc<ccr_contract::config::Settings>,
    /// The workload.
    pub workload: Workload,
    /// The invariants.
    pub checks: Checks,
    /// What is really so.
    pub truths: Truths,
    /// The plan's steps, as far as they are still to come or to be undone.
    pub plan: super::plan::Plan,
    /// What the steps did.
    pub(super) done: Vec<super::act::Done>,
    /// Told when something of interest happens.
    pub trace: Option<Vec<String>>,
    /// What whoever drives the run from outside has not heard yet, where somebody does.
    pub(super) outside: Option<super::driven::Outside>,
    /// The digest of what all nodes have done, where one was asked for.
    pub digest: Option<u64>,
    /// The last datagram that each member got.
    pub last: [Option<Input>; 2],
    /// Random choices of what makes the world harsher: apart, so that the others stay as they were.
    pub(super) more: Rng,
    /// Datagrams that are delayed.
    pub(super) delayed: Option<super::triggers::DelayedDatagrams>,
    /// How soon a daemon that has ended in order is started again; whether it is.
    pub(super) back_after_us: Option<u64>,
    /// Steps that wait for a service to come online.
    pub(super) waiting: Vec<usize>,
    /// What has a cause.
    pub(super) causes: super::cause::Causes,
    /// Whose copy of what was hurt.
    pub(super) atlas: super::damage::Atlas,
}

impl World {
    /// Machines that are switched on, one after another.
    pub fn new(mut rng: Rng, configs: Vec<Config>, plan: super::plan::Plan, trace: bool) -> Self {
        let more = rng.clone().fork();
        let workload = Workload::new(rng.fork(), &plan);
        let machines: Vec<Machine> = configs
            .into_iter()
            .map(|config| Machine::new(config, plan.drift_ppm, &mut rng))
            .collect();
        let mut checks = Checks::new(&machines[0].config);
        checks.counters.short_heartbeats += u64::from(plan.times.heartbeat < 1_000);
        checks.counters.drifting_clocks += u64::from(plan.drift_ppm >= 1_000);
        let settings = std::rc::Rc::new(machines[0].config.settings.clone());
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            rng,
            machines,
            cuts: BTreeSet::new(),
            share_cuts: BTreeSet::new(),
            loss: 0,
            delay_us: 2_000,
            mended: 0,
            reseeds: 0,
            cut_at_answer: None,
            throttled: false,
            share: Share::default(),
            streams: Vec::new(),
            witness_open: BTreeMap::new(),
            waiters: BTreeMap::new(),
            orders: BTreeMap::new(),
            next_req: 1,
            planted: None,
            settings,
            workload,
            checks,
            truths: Truths::default(),
            done: plan.steps.iter().map(|_| Default::default()).collect(),
            plan,
            trace: trace.then(Vec::new),
            outside: None,
            digest: None,
            last: [None, None],
            more,
            delayed: None,
            back_after_us: None,
            waiting: Vec::new(),
            causes: super::cause::Causes::default(),
            atlas: super::damage::Atlas::default(),
        };
        for i in 0..world.machines.len() {
            let at = world.rng.range(0, 3_000_000);
            world.at(at, SimEvent::PowerOn(i));
        }
        for i in 0..world.plan.steps.len() {
            let at = world.plan.steps[i].at_us;
            world.at(at, SimEvent::Step(i));
        }
        world.at(500_000, SimEvent::Poll);
        world
    }

    /// Writes a line of the timeline.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.4} {}", now as f64 / 1e6, what()));
        }
    }

    /// Something happens `us` after now.
    pub fn at(&mut self, us: u64, what: SimEvent) {
        self.order += 1;
        self.queue.push(Reverse(At(self.now + us, self.order, Box::new(what))));
    }

    /// Whether packets get from one place to another.
    pub fn passes(&self, network: usize, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(network, from, to))
    }
    /// Where an address is: network and machine.
    pub fn machine_at(&self, address: Ipv4Addr) -> Option<(usize, usize)> {
        let o = address.octets();
        let i = match o[3] {
            11 => 0,
            12 => 1,
            n if n >= 100 => 2 + usize::from(n - 100),
            _ => return None,
        };
        (i < self.machines.len()).then_some((usize::from(o[2]) - 1, i))
    }
    pub(super) fn address(&self, network: usize, i: usize) -> Ipv4Addr {
        let last = if i < 2 { 11 + i as u8 } else { 100 + (i - 2) as u8 };
        Ipv4Addr::new(10, 0, 1 + network as u8, last)
    }
    pub(super) fn packet_us(&mut self) -> u64 {
        let most = self.delay_us;
        150 + self.rng.range(0, most)
    }

    /// Runs until `end_us`, or until an invariant is broken.
    pub fn run_until(&mut self, end_us: u64) {
        while self.checks.broken.is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.0 <= end_us => {}
                _ => break,
            }
            let Some(Reverse(At(time, _, what))) = self.queue.pop() else {
                break;
            };
            self.now = time;
            self.happen(*what);
        }
        self.now = self.now.max(end_us);
    }

    fn happen(&mut self, what: SimEvent) {
        match what {
            SimEvent::Input(i, life, input) => self.input(i, life, input),
            SimEvent::Disk(i, life) => {
                if self.machines[i].life != life || !self.kernel_runs(i) {
                    if self.machines[i].life == life && self.machines[i].powered {
                        self.at(50_000, SimEvent::Disk(i, life));
                    }
                    return;
                }
                let done = self.machines[i].disk.complete();
                let m = &self.machines[i];
                let moment = match m.doomed {
                    Some(Moment::Write) => m.disk.mid_write(),
                    Some(Moment::Message) => m.disk.is_in_a_message(),
                    _ => false,
                };
                if moment {
                    // At once, or while the flush is under way.
                    let us = self.rng.range(0, 3_000);
                    self.at(us, SimEvent::Doom(i, life));
                }
                if let Some((op, result)) = done {
                    self.disk_next(i);
                    self.input(i, life, Input::DiskDone { op, result });
                }
            }
            SimEvent::Wake(i, life, wake) => {
                if self.machines[i].life == life && self.machines[i].wake == wake {
                    self.input(i, life, Input::Tick);
                }
            }
            SimEvent::Witness(i, life, session, op, action) => self.witness_arrives(i, life, session, op, &action),
            SimEvent::WitnessDone(i, life, op, result) => self.witness_done(i, life, op, result),
            SimEvent::Frame(s, forth) => self.frame_arrives(s, forth),
            SimEvent::StreamDies(s) => self.close_stream(s, "timed out"),
            SimEvent::Client(op) => self.client_acts(op),
            SimEvent::Arrive(op, i, request) => self.client_arrives(op, i, request),
            SimEvent::GiveUp(op, step) => self.client_gives_up(op, step),
            SimEvent::Step(i) => self.begin_step(i),
            SimEvent::Undo(i) => self.undo_step(i),
            SimEvent::Doom(i, life) => {
                if self.machines[i].life == life && self.machines[i].doomed.is_some() {
                    let c = &mut self.checks.counters;
                    match self.machines[i].doomed {
                        Some(Moment::Change) if i < 2 => c.power_offs_mid_change += 1,
                        Some(Moment::Change) => c.hub_power_offs_mid_change += 1,
                        _ => {}
                    }
                    self.stop_daemon(i, true);
                }
            }
            SimEvent::Answer(answer) => self.answer_arrives(answer),
            SimEvent::Poll => {
                self.share_contact();
                self.look_for_trouble();
                let settings = self.settings.clone();
                self.check_phases(&settings);
                self.at(250_000, SimEvent::Poll);
            }
            SimEvent::Behind(n, i) => self.behind_online(n, i),
            SimEvent::PowerOn(i) => self.power_on(i),
            SimEvent::PowerOff(i) => self.stop_daemon(i, true),
            SimEvent::Order(n, i, command) => self.order(n, i, command),
            SimEvent::Watchdog(i, since, us) => {
                if self.machines[i].paused == Some((Pause::Process, since)) {
                    self.kill_for(i, us);
                }
            }
            SimEvent::Restart(i, life) => {
                if self.machines[i].powered && self.machines[i].life == life && self.machines[i].node.is_none() {
                    self.start_daemon(i);
                }
            }
        }
    }

    pub(super) fn input(&mut self, i: usize, life: u64, input: Input) {
        let m = &mut self.machines[i];
        if m.life != life || m.node.is_none() {
            return;
        }
        if let (Input::Datagram { bytes, .. }, None, true) = (&input, m.paused, i < 2) {
            self.checks.heartbeat(self.now, i, bytes);
            self.last[i] = Some(input.clone());
            self.heard(i);
            self.hears_of_no_lease(i, &input);
        }
        let m = &mut self.machines[i];
        if m.paused.is_some() {
            if !matches!(input, Input::Tick) {
                m.inbox.push(input);
            }
            return;
        }
        let now = self.clocks(i);
        let Some(node) = self.machines[i].node.as_mut() else {
            return;
        };
        let effects = node.step(now, input);
        let deadline = node.next_deadline();
        if let Some(digest) = &mut self.digest {
            let text = format!("{i} {now:?} {effects:?} {deadline:?}");
            *digest = text
                .bytes()
                .fold(*digest, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        }
        self.machines[i].wake += 1;
        let wake = self.machines[i].wake;
        for effect in effects {
            if self.machines[i].life != life {
                break;
            }
            self.perform(i, effect);
        }
        if let Some(deadline) = deadline
            && self.machines[i].life == life
        {
            let wait = deadline.saturating_sub(now.boot_us);
            // A timer is never early, and a little late.
            let late = self.rng.range(10, 1_000);
            self.at(wait + wait / 4000 + late, SimEvent::Wake(i, life, wake));
        }
    }

    pub(super) fn disk_next(&mut self, i: usize) {
        let mut rng = self.rng.clone();
        if let Some(us) = self.machines[i].disk.latency(&mut rng) {
            self.rng = rng;
            let life = self.machines[i].life;
            if self.machines[i].doomed == Some(Moment::Change)
                && self.machines[i].disk.changes()
                && self.more.chance(30)
            {
                let at = self.more.range(0, us);
                self.at(at, SimEvent::Doom(i, life));
            }
            self.at(us, SimEvent::Disk(i, life));
        }
    }

    /// A request number that no node has seen.
    pub fn next_req(&mut self) -> ReqId {
        self.next_req += 1;
        ReqId(self.next_req)
    }
}
