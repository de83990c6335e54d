//! The real machines as a scenario's [`World`]: a fork of the lab, acted on and looked at through its supervisor.

use super::checkpoint::Store;
use super::client::{Client, LabStream};
use super::forward::Forward;
use super::lifecycle;
use super::protocol::{CaughtUp, LabStatus, Look, RestoreArgs, Verb};
use super::record::LabRecord;
use crate::busy::Gauge;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Draft, Event, Journal, JournalHead, Severity, Source, Step};
use crate::fault::Fault;
use crate::files::Home;
use crate::guest::{Command, Output, Remote};
use crate::hypervisor::DomainState;
use crate::lock::lock;
use crate::runs;
use crate::scenario::mail::{Dial, Endpoints, Load, OpJournal, Service, Wire};
use crate::scenario::resp::Asked;
use crate::scenario::{
    self, Answer, Heal, History, Observation, Order, Progress, Scenario, Workload, WorkloadKind, World, Worlds, names,
};
use crate::spec::{Lab, NodeRole, Runtime};
use crate::verify::{FaultRecord, ScenarioReport, Verdict};
use crate::wait::{Deadline, Slowness};
use serde_json::Value;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a passing of time looks whether the person wants to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// How long the end of a scenario waits for the last events to come over the supervisor's socket, on a fast host.
const LAST_EVENTS: Duration = Duration::from_secs(10);

/// How long a machine may take to say what its system logged, on a fast host.
const LOGS_WITHIN: Duration = Duration::from_secs(3);

/// Bytes that are kept of a machine's console and log each: the last ones.
const LOG_MAX: usize = 1 << 20;

fn end_of(text: &[u8]) -> &[u8] {
    &text[text.len().saturating_sub(LOG_MAX)..]
}

/// A fork for each scenario, from one checkpoint of a healthy lab.
pub struct MachineWorlds {
    home: Home,
    from: RestoreArgs,
    record: LabRecord,
    interrupted: Arc<AtomicBool>,
    journal: Journal,
    keep: bool,
}

impl std::fmt::Debug for MachineWorlds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineWorlds")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl MachineWorlds {
    /// Worlds from a checkpoint; `interrupted` ends a scenario early, `keep` leaves the forks of those that did not pass. What is
    /// waited for is told to `journal`.
    pub fn new(
        home: &Home,
        from: RestoreArgs,
        interrupted: Arc<AtomicBool>,
        journal: Journal,
        keep: bool,
    ) -> Result<Self> {
        let checkpoint = Store::of(home, &from.lab).get(&from.checkpoint)?;
        Ok(Self {
            home: home.clone(),
            record: checkpoint.meta.record.clone(),
            from,
            interrupted,
            journal,
            keep,
        })
    }

    /// The record of the lab that is forked.
    pub fn record(&self) -> &LabRecord {
        &self.record
    }
}

impl Worlds for MachineWorlds {
    fn open(&self, scenario: &Scenario, _: u64, folder: &Path) -> Result<Box<dyn World>> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let instance = lifecycle::claim(&self.home, &self.from.lab)?;
        let step = Step::begin(&self.journal, &scenario.id, None, &format!("bringing back {instance}"));
        lifecycle::restore(&self.home, &instance, &self.from, |_| {})?;
        step.done(&format!("{instance} is healthy"));
        let enter = || {
            let record = LabRecord::load(&self.home.lab(&instance).record())?.unwrap_or_else(|| self.record.clone());
            MachineWorld::enter(
                &self.home,
                &instance,
                record,
                folder,
                self.interrupted.clone(),
                self.keep,
            )
        };
        match enter() {
            Ok(world) => Ok(Box::new(world)),
            Err(e) => {
                let failure = lifecycle::take_down(&self.home, &instance, |_| {}).err();
                Err(e.with_rollback(failure.map(|f| f.to_string())))
            }
        }
    }

    fn ended(&self, report: &ScenarioReport) {
        let why = report.why.as_deref().map(|w| format!(": {w}")).unwrap_or_default();
        let text = format!("{} is {:?}{why}", report.id, report.verdict).to_lowercase();
        let data = serde_json::json!({"step": report.id, "text": text, "ok": report.verdict == Verdict::Pass, "seconds": report.seconds});
        self.journal.emit(Draft::new(Source::Tool, "step.end").data(data));
    }
}

/// One scenario on a fork of its own.
#[derive(Debug)]
pub struct MachineWorld {
    home: Home,
    instance: String,
    record: LabRecord,
    client: Client,
    journal: Journal,
    ops: OpJournal,
    events: Arc<Mutex<Vec<Event>>>,
    /// Brings the lab's events into the journal; in a branch, whoever began it does.
    forward: Option<Forward>,
    /// How much the supervisor had heard of the nodes at the last look.
    heard: u64,
    interrupted: Arc<AtomicBool>,
    /// Of a branch: whether another one wants it to end.
    stop: Option<Arc<AtomicBool>>,
    keep: bool,
    clients: Arc<Mutex<Clients>>,
    busy: Arc<Gauge>,
}

/// The workload.
#[derive(Debug, Default)]
struct Clients {
    load: Option<Load>,
    /// Of the workloads that were stopped.
    counted: Progress,
    loads: u32,
}

impl MachineWorld {
    /// A world on `instance`. The client's journal is written in `folder` as it happens; `interrupted` ends a passing of time early.
    fn enter(
        home: &Home,
        instance: &str,
        record: LabRecord,
        folder: &Path,
        interrupted: Arc<AtomicBool>,
        keep: bool,
    ) -> Result<Self> {
        // Starts a supervisor where none runs: its journal is there then, and its clock is the run's.
        let client = Client::find_or_start(home, instance)?;
        let journal = Journal::in_memory_since(began(&home.lab(instance).events())?);
        let events = Arc::new(Mutex::new(Vec::new()));
        journal.listen({
            let events = events.clone();
            move |e| {
                events.lock().expect("no listener panics").push(e.clone());
                true
            }
        });
        Ok(Self {
            forward: Some(Forward::begin(home, instance, journal.clone())?),
            heard: 0,
            home: home.clone(),
            instance: instance.to_owned(),
            record,
            client,
            ops: OpJournal::create(&folder.join(names::OPS), journal.clone())?,
            journal,
            events,
            interrupted,
            stop: None,
            keep,
            clients: Arc::default(),
            busy: Arc::new(Gauge::begin().tried("measure how busy the host is", instance)?),
        })
    }

    /// Asks the supervisor; one that died is replaced at once, so that the networks are dark for a moment only. Every look then
    /// says so, and the verdict is *unknown*.
    fn get<T: serde::de::DeserializeOwned>(&mut self, verb: Verb) -> Result<T> {
        let now = Client::find_or_start(&self.home, &self.instance)?;
        if now.greeting().pid != self.client.greeting().pid {
            self.client = now;
        }
        self.client.get(verb)
    }

    /// What a look saw.
    fn seen(&mut self, status: LabStatus) -> Observation {
        self.heard = status.heard;
        status.into()
    }

    /// Waits until everything that was seen of the lab is in the run's journal; what is missing in the end, in words.
    fn caught_up(&mut self) -> Result<Vec<String>> {
        let caught: CaughtUp = self.get(Verb::CatchUp)?;
        let mut missing = caught.behind;
        let deadline = Deadline::scaled(LAST_EVENTS, self.slowness());
        if let Some(Err(e)) = self.forward.as_mut().map(|f| f.wait_for(caught.next, deadline)) {
            missing.push(e.to_string());
        }
        Ok(missing)
    }

    /// Whom the clients of a workload talk to.
    fn service(&self, kind: &WorkloadKind) -> Result<Service> {
        let lab = &self.record.desired.lab;
        let refuse = |seen: &str| Error::Usage(Problem::new("start the workload").on(&lab.name).observed(seen));
        let pack = super::channel::pack(&self.record)?;
        let (Some(runtime), Some(pack)) = (&lab.runtime, pack) else {
            return Err(refuse("the lab has no runtime"));
        };
        match kind {
            WorkloadKind::Mail => {
                mail(lab, runtime, pack.workload()).ok_or_else(|| refuse("its runtime takes no mail"))
            }
            WorkloadKind::Named(name) => {
                let spec = pack.runtime.workloads.get(name);
                let spec = spec.ok_or_else(|| refuse("its runtime has no such workload"))?;
                let addresses = || {
                    lab.nodes
                        .iter()
                        .flat_map(|n| n.nics.iter().map(move |nic| (n, nic.address)))
                };
                Ok(Service::Asked(Asked {
                    ask: lab
                        .nodes
                        .iter()
                        .filter(|n| n.role.is_some())
                        .filter_map(|n| n.nics.first())
                        .map(|nic| SocketAddrV4::new(nic.address, spec.ask))
                        .collect(),
                    name: pack.workload_name(spec, lab)?,
                    key: spec.key.clone(),
                    nodes: addresses().map(|(n, address)| (address, n.name.to_string())).collect(),
                }))
            }
        }
    }

    /// What is there and was not before the scenario: faults in force, rules, strange or missing machines.
    fn leaks(&mut self, status: &LabStatus) -> Result<Vec<String>> {
        let counters: Value = self.get(Verb::Counters)?;
        let mut left: Vec<String> = status
            .faults
            .iter()
            .map(|f| format!("fault {} ({})", f.id, f.kind))
            .collect();
        let rules = counters["rules"].as_array().map_or(0, Vec::len);
        if rules > 0 {
            left.push(format!("{rules} rules in the fabric"));
        }
        left.extend(
            status
                .machines
                .iter()
                .filter(|m| !matches!(m.domain, Some(DomainState::Running | DomainState::Paused)))
                .map(|m| format!("{} is not there", m.node)),
        );
        Ok(left)
    }

    /// Whether the person, or another branch, wants this to end.
    fn must_end(&self) -> bool {
        let told = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        told(&self.interrupted) || self.stop.as_ref().is_some_and(told)
    }

    /// How long to wait until the next look at whether the run was interrupted; `None` where the time is over.
    fn glance(&self, until: &Deadline) -> Result<Option<Duration>> {
        if self.must_end() {
            return Err(Error::Interrupted);
        }
        Ok((!until.passed()).then(|| until.left().min(GLANCE)))
    }
}

impl World for MachineWorld {
    fn lab(&self) -> &Lab {
        &self.record.desired.lab
    }

    fn slowness(&self) -> Slowness {
        self.record.desired.slowness
    }

    fn busy(&self) -> f64 {
        self.busy.factor()
    }

    fn now_us(&self) -> u64 {
        self.journal.now_us()
    }

    fn observe(&mut self, since_us: Option<u64>) -> Result<Observation> {
        let status: LabStatus = self.get(Verb::Status(since_us.map(Look::since)))?;
        Ok(self.seen(status))
    }

    fn looker(&self) -> Option<Box<dyn scenario::Looker>> {
        Some(Box::new(Beside {
            home: self.home.clone(),
            instance: self.instance.clone(),
            client: None,
        }))
    }

    fn branch(&self, stop: Arc<AtomicBool>) -> Result<Option<Box<dyn World + Send>>> {
        Ok(Some(Box::new(Self {
            home: self.home.clone(),
            instance: self.instance.clone(),
            record: self.record.clone(),
            client: Client::find_or_start(&self.home, &self.instance)?,
            journal: self.journal.clone(),
            ops: self.ops.clone(),
            events: self.events.clone(),
            forward: None,
            heard: self.heard,
            interrupted: self.interrupted.clone(),
            stop: Some(stop),
            keep: self.keep,
            clients: self.clients.clone(),
            busy: self.busy.clone(),
        })))
    }

    fn events(&self, from: usize) -> Vec<Event> {
        let events = self.events.lock().expect("no listener panics");
        events.get(from..).unwrap_or_default().to_vec()
    }

    fn await_news(&mut self, most: Duration) -> Result<()> {
        let until = Deadline::after(most);
        while let Some(within) = self.glance(&until)? {
            let beyond = self.heard;
            let within_ms = within.as_millis().max(1) as u64;
            let heard: u64 = self.get(Verb::News { beyond, within_ms })?;
            // Less than before: another supervisor counts anew.
            if heard != beyond {
                return Ok(());
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<()> {
        let until = Deadline::after(time);
        while let Some(glance) = self.glance(&until)? {
            crate::wait::pause(glance);
        }
        Ok(())
    }

    fn inject(&mut self, fault: &Fault) -> Result<FaultRecord> {
        self.get(Verb::Fault(Box::new(fault.clone())))
    }

    fn heal(&mut self, which: &Heal) -> Result<Vec<FaultRecord>> {
        let status: LabStatus = self.get(Verb::Status(None))?;
        let mut healed = Vec::new();
        for fault in status.faults.iter().rev().filter(|f| which.covers(f)) {
            let records: Vec<FaultRecord> = self.get(Verb::Heal { id: Some(fault.id) })?;
            healed.extend(records);
        }
        Ok(healed)
    }

    fn operate(&mut self, order: &Order) -> Result<Answer> {
        let pack = super::channel::pack(&self.record)?;
        let spec = pack.as_ref().and_then(|p| p.runtime.contract.orders.get(&order.word));
        let verb = Verb::Operate {
            // One that the pack does not have is refused where it is given.
            args: spec.map(|s| s.argv(&order.args)).unwrap_or_default(),
            word: order.word.clone(),
            node: order.on.clone(),
        };
        self.get(verb)
    }

    fn exec(&mut self, node: &str, argv: &[String], within: Duration) -> Result<Output> {
        let deadline = Deadline::after(within);
        let supervisor = Client::find_or_start(&self.home, &self.instance)?;
        let command = Command::new(argv.iter().cloned());
        let listen = &mut |_: Option<&str>| match self.must_end() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        };
        supervisor.agent(node, deadline)?.exec_heard(&command, deadline, listen)
    }

    fn load(&mut self, workload: &Workload) -> Result<()> {
        self.stop_load()?;
        let dial = Arc::new(ThroughSupervisor {
            home: self.home.clone(),
            instance: self.instance.clone(),
        });
        let service = self.service(&workload.kind)?;
        let mut clients = lock(&self.clients);
        clients.loads += 1;
        // Messages of earlier scenarios are in the same store: keys are unique in the life of the host.
        let run = format!("{:x}-{}", self.journal.begin_us(), clients.loads);
        clients.load = Some(Load::start(workload, &service, dial, self.ops.clone(), &run)?);
        Ok(())
    }

    fn stop_load(&mut self) -> Result<()> {
        let mut clients = lock(&self.clients);
        if let Some(load) = clients.load.take() {
            clients.counted = sum(clients.counted, load.stop()?);
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        let clients = lock(&self.clients);
        let running = clients.load.as_ref().map(Load::progress);
        running.map_or(clients.counted, |p| sum(clients.counted, p))
    }

    fn note(&mut self, draft: Draft) {
        self.journal.emit(draft);
    }

    fn end(self: Box<Self>, passed: bool) -> Result<()> {
        if self.keep && !passed {
            let text = format!("{} is left for a look", self.instance);
            let draft = Draft::new(Source::Tool, "fork.kept").severity(Severity::Warning);
            self.journal.emit(draft.data(serde_json::json!({ "text": text })));
            return Ok(());
        }
        lifecycle::take_down(&self.home, &self.instance, |_| {}).map(drop)
    }

    fn keep_logs(&mut self, folder: &Path) -> Result<()> {
        let files = self.home.lab(&self.instance);
        for part in [names::CONSOLES, names::LOGS] {
            Home::private_dir(&folder.join(part))?;
        }
        let nodes: Vec<String> = self.lab().nodes.iter().map(|n| n.name.to_string()).collect();
        for node in nodes {
            let file = format!("{node}.log");
            let console = std::fs::read(files.node(&node).console_log());
            let console = console.unwrap_or_else(|e| format!("it could not be read: {e}\n").into_bytes());
            runs::write(&folder.join(names::CONSOLES).join(&file), end_of(&console))?;
            let argv = ["journalctl", "--no-pager", "--output=short-monotonic", "--lines=4000"].map(str::to_owned);
            let text = match self.exec(&node, &argv, self.slowness().scale(LOGS_WITHIN)) {
                Ok(output) => output.stdout,
                // A machine that is off has no word of its own.
                Err(e) => format!("it could not be asked: {e}\n").into_bytes(),
            };
            runs::write(&folder.join(names::LOGS).join(&file), end_of(&text))?;
        }
        Ok(())
    }

    fn keep_networks(&mut self, to: &Path) -> Result<()> {
        let to = std::path::absolute(to).tried("find the folder", to.display())?;
        self.get::<Value>(Verb::KeepRing { to }).map(drop)
    }

    fn finish(&mut self, history: &mut History) -> Result<()> {
        self.stop_load()?;
        let dumps: Vec<Option<ccr_contract::dump::Dump>> = self.get(Verb::Dump)?;
        history.missing = self.caught_up()?;
        // The last look: whether the networks were dark since the one before.
        let status: LabStatus = self.get(Verb::Status(None))?;
        history.leaks = Some(self.leaks(&status)?);
        history.observations.push(self.seen(status));
        history.dumps = dumps.into_iter().flatten().collect();
        history.ops = self.ops.lines();
        history.events = std::mem::take(&mut *self.events.lock().expect("no listener panics"));
        history.events.sort_by_key(|e| e.t_us);
        Ok(())
    }
}

/// Looks at the lab over a connection of its own, while the world's is busy. It starts no supervisor: that is the world's business.
#[derive(Debug)]
struct Beside {
    home: Home,
    instance: String,
    client: Option<Client>,
}

impl scenario::Looker for Beside {
    fn look(&mut self) -> Result<Observation> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::find(&self.home.lab(&self.instance))?.ok_or_else(|| {
                let problem = Problem::new("look at the lab").on(&self.instance);
                Error::Operation(problem.observed("the lab's supervisor does not run"))
            })?,
        };
        let status: LabStatus = client.get(Verb::Status(None))?;
        self.client = Some(client);
        Ok(status.into())
    }
}

/// Where mail goes; none where the runtime takes none.
fn mail(lab: &Lab, runtime: &Runtime, ports: Option<crate::deploy::Workload>) -> Option<Service> {
    let (service, ports) = (runtime.service.as_ref()?, ports?);
    let hubs = lab.with_role(NodeRole::Hub).filter_map(|n| n.nics.first());
    Some(Service::Mail(Endpoints {
        smtp: hubs.map(|nic| SocketAddrV4::new(nic.address, ports.submit)).collect(),
        lmtp: SocketAddrV4::new(service.address, ports.deliver),
        pop3: SocketAddrV4::new(service.address, ports.read),
        domain: service.name.to_string(),
    }))
}

/// The workstation's own port on the lab's networks, in the supervisor's process.
#[derive(Debug)]
struct ThroughSupervisor {
    home: Home,
    instance: String,
}

impl Dial for ThroughSupervisor {
    fn dial(&self, to: SocketAddrV4, deadline: Deadline) -> io::Result<Box<dyn Wire>> {
        let refused = |e: Error| io::Error::other(e.to_string());
        let client = Client::find(&self.home.lab(&self.instance)).map_err(refused)?;
        let client = client.ok_or_else(|| io::Error::other("the lab's supervisor does not run"))?;
        Ok(Box::new(client.dial(to, deadline.left()).map_err(refused)?))
    }
}

impl Wire for LabStream {
    fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        self.set_timeout(Some(left(deadline)?))?;
        io::Read::read(self, buffer)
    }
    fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        self.set_timeout(Some(left(deadline)?))?;
        io::Write::write_all(self, bytes)
    }
}

fn left(deadline: Deadline) -> io::Result<Duration> {
    let left = deadline.left();
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

fn sum(a: Progress, b: Progress) -> Progress {
    Progress {
        begun: a.begun + b.begun,
        acks: a.acks + b.acks,
        store_answers: a.store_answers + b.store_answers,
        failed: a.failed + b.failed,
        unknown: a.unknown + b.unknown,
        shed: a.shed + b.shed,
    }
}

/// The host's monotonic clock when the journal at `path` began.
fn began(path: &Path) -> Result<u64> {
    let text = fs_err::read_to_string(path).tried("read the lab's journal", path.display())?;
    let head: JournalHead = serde_json::from_str(text.lines().next().unwrap_or_default())
        .tried("read the head of the lab's journal", path.display())?;
    Ok(head.monotonic_us)
}
