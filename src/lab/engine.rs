//! What a supervisor keeps: the hypervisor, the networks, the ways into the machines, the faults in force.

mod backends;
mod boot;
mod down;
mod faults;
mod operate;
mod pause;
mod preflight;
mod restore;
#[cfg(test)]
mod tests;
mod turn;
mod up;

pub use backends::Backends;

use super::active_faults::ActiveFaults;
use super::cancel::Cancel;
use super::channel::Channels;
use super::protocol::{CaughtUp, LabStatus, Look, MachineStatus, Networks, Verb, looks};
use super::record::LabRecord;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Draft, Journal, Severity, Source, kind};
use crate::fabric::{CaptureFilter, ClientNet, Control, Fabric, FabricConfig, RingConfig, RuleSets};
use crate::files::{Home, LabFiles};
use crate::guest;
use crate::hypervisor::Hypervisor;
use crate::lock::lock;
use crate::verify;
use crate::wait::{Deadline, Probe, wait_until};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use turn::Turn;

/// How long those who use the networks may take to let go of them when these end.
const DARK: Duration = Duration::from_secs(10);

/// The longest that `status` waits for one node's runtime, on a fast host.
const STATUS: Duration = Duration::from_secs(5);

/// The longest that a client is kept waiting for news.
const NEWS: Duration = Duration::from_secs(10);

/// The one lab of this process.
pub struct Engine {
    pub(super) home: Home,
    pub(super) instance: String,
    pub(super) files: LabFiles,
    backends: Backends,
    /// A process can open one root, once.
    hypervisor: Mutex<Option<Arc<dyn Hypervisor>>>,
    state: Mutex<EngineState>,
    /// Work that changes the lab excludes other such work.
    change: Turn,
    pub(super) channels: Arc<Channels>,
}

/// What changes while the lab lives.
#[derive(Debug, Default)]
struct EngineState {
    record: Option<Arc<LabRecord>>,
    fabric: Option<Arc<Fabric>>,
    active_faults: ActiveFaults,
    /// A restore is going on.
    restoring: bool,
    /// When networks were network_outages: the supervisor had died.
    network_outages: Vec<(u64, u64)>,
    /// Why what is on disk cannot be read: nothing but `down` may touch it.
    damaged: Option<Problem>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens what there is of `instance`: a lab whose supervisor died is adopted, its networks lit again.
    pub fn open(home: Home, instance: &str, backends: Backends) -> Result<Self> {
        let files = home.lab(instance);
        let (connector, journal) = (backends.connector.clone(), backends.journal.clone());
        let engine = Self {
            home,
            instance: instance.to_owned(),
            channels: Arc::new(Channels::new(files.clone(), connector, journal)),
            files,
            backends,
            hypervisor: Mutex::default(),
            state: Mutex::default(),
            change: Turn::default(),
        };
        match engine.read() {
            Ok(Some((record, faults, rules))) => engine.adopt(record, faults, rules)?,
            Ok(None) => {}
            Err(e) => {
                let problem = e.problem().cloned().ok_or(e)?;
                engine.state().damaged = Some(problem);
            }
        }
        Ok(engine)
    }

    /// What is on disk of a lab that is there.
    fn read(&self) -> Result<Option<(LabRecord, ActiveFaults, RuleSets)>> {
        let Some(record) = LabRecord::load(&self.files.record())? else {
            return Ok(None);
        };
        let faults = ActiveFaults::load(&self.files)?;
        let rules = faults.rule_sets()?;
        Ok(Some((record, faults, rules)))
    }

    fn adopt(&self, record: LabRecord, active_faults: ActiveFaults, rules: RuleSets) -> Result<()> {
        let record = Arc::new(record);
        let (since, mut outages) = super::active_faults::network_outages(&self.files.events(), &self.backends.journal);
        let fabric = self.start_fabric(&record, rules)?;
        {
            let mut state = self.state();
            state.active_faults = active_faults;
            state.fabric = Some(Arc::new(fabric));
            state.record = Some(record.clone());
            outages.push((since, self.backends.journal.now_us()));
            state.network_outages = outages;
        }
        let running = self.hypervisor()?.list()?.len();
        self.backends.journal.emit(
            Draft::new(Source::Tool, kind::ADOPTED)
                .severity(Severity::Warning)
                .data(json!({"text": format!("{running} machines adopted; the networks were dark"), "dark_since_us": since})),
        );
        if let Some(from) = &record.restoring {
            let e = super::saved::half_restored(&self.instance, from);
            let draft = Draft::new(Source::Tool, "lab.half-restored").severity(Severity::Warning);
            self.backends.journal.emit(draft.data(json!({"text": e.to_string()})));
        } else if record.complete {
            self.channels.follow(&record);
        }
        Ok(())
    }

    /// The event journal.
    pub fn journal(&self) -> &Journal {
        &self.backends.journal
    }

    /// Whether there is a lab to keep.
    pub fn keeps_anything(&self) -> bool {
        let state = self.state();
        state.record.is_some() || state.damaged.is_some()
    }

    /// Carries out one request. Blocks.
    pub fn perform(&self, verb: Verb, cancel: &Cancel) -> Result<Value> {
        if let (Some(damaged), false) = (&self.state().damaged, matches!(verb, Verb::Down)) {
            return Err(Error::Operation(damaged.clone()));
        }
        match verb {
            Verb::Up(args) => self.changing(cancel, || self.up(*args, cancel)),
            Verb::Checkpoint { name } => self
                .changing(cancel, || self.checkpoint(&name, None))
                .map(|c| plain(c.meta)),
            Verb::Restore(args) => self
                .changing(cancel, || {
                    self.whole(&args)?;
                    let restored = self.restore(&args, None, cancel)?;
                    let record = self.record()?;
                    // A lab with a machine that was suspended or off comes back like that: there is no health to wait for.
                    if restored.nodes.len() == record.desired.lab.nodes.len() {
                        self.settle(&record, cancel)?;
                    } else if record.complete {
                        self.channels.follow(&record);
                    }
                    Ok(restored)
                })
                .map(plain),
            Verb::Down => self.changing(cancel, || self.down().map(|()| Value::Null)),
            Verb::Status(look) => self.status(look.unwrap_or_default()).map(plain),
            Verb::News { beyond, within_ms } => {
                let most = Duration::from_millis(within_ms).min(NEWS);
                Ok(plain(self.channels.news().wait(beyond, most)))
            }
            Verb::Pause => self.changing(cancel, || self.pause()).map(plain),
            Verb::Resume => self.changing(cancel, || self.resume()).map(plain),
            Verb::Fault(fault) => self.changing(cancel, || self.fault(&fault)).map(plain),
            Verb::Heal { id } => self.changing(cancel, || self.heal(id)).map(plain),
            Verb::Operate { word, args, node } => self.operate(&word, &args, node.as_deref()).map(plain),
            Verb::Dump => self.dump().map(plain),
            Verb::Rules { rules } => self.changing(cancel, || self.rules(rules)).map(plain),
            Verb::Counters => self.counters().map(plain),
            Verb::Preflight => self.preflight().map(plain),
            Verb::KeepRing { to } => self.fabric()?.keep_ring(&to).map(|()| Value::Null),
            Verb::CatchUp => self.catch_up().map(plain),
            Verb::Dial { .. } | Verb::Capture(_) | Verb::Agent { .. } | Verb::Events(_) => Err(Error::Bug(
                Problem::new("carry out the request").observed("it is a stream, not a request"),
            )),
        }
    }

    /// Does `work` when no other change goes on; not at all where the client goes away before.
    pub(super) fn changing<T>(&self, cancel: &Cancel, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _turn = self.change.take(cancel)?;
        work()
    }

    /// A connection from the workstation's own port to an address of the lab.
    pub fn dial(&self, to: std::net::SocketAddrV4, within: Duration) -> Result<UnixStream> {
        Ok(self.fabric()?.connect(to, Deadline::after(within))?)
    }

    /// Sends `ok` and then what passes the ports of `filter` to `client` as pcapng, until it hangs up or the networks go away.
    pub fn capture(&self, filter: &CaptureFilter, client: &UnixStream, ok: Vec<u8>) -> Result<()> {
        let stream = client.try_clone().tried("send a capture", &self.instance)?;
        // A lab that is taken down, or restored, must not wait for those who look on.
        let fabric = Arc::downgrade(&self.fabric()?);
        let here = || fabric.upgrade().ok_or_else(|| self.not_up());
        let capture = here()?.capture(filter, Box::new(Answer { ok, stream }))?;
        // The client says nothing more: the end of its stream is the only thing to hear.
        let _ = std::io::copy(&mut &*client, &mut std::io::sink());
        fabric.upgrade().map_or(Ok(()), |f| f.end(capture))
    }

    /// Sends `ok` and then runs the one command that `client` asks the agent of `node` for.
    ///
    /// # Errors
    /// The agent does not answer: nothing was sent. Or it went away, or the client is none.
    pub fn relay(&self, node: &str, mut client: &UnixStream, ok: &[u8]) -> Result<()> {
        let record = self.record()?;
        let line = self.channels.line(&record, node)?;
        client.write_all(ok).tried("answer the client", node)?;
        // What goes wrong from here on is seen by the client: its stream ends.
        let client = client.try_clone().tried("answer the client", node)?;
        let _ = guest::agent::relay(&line, client);
        Ok(())
    }

    /// The lab's record; an error where the lab is not up.
    pub(super) fn record(&self) -> Result<Arc<LabRecord>> {
        self.try_record().ok_or_else(|| self.not_up())
    }

    pub(super) fn try_record(&self) -> Option<Arc<LabRecord>> {
        self.state().record.clone()
    }

    /// Keeps a new state of the record, on disk first.
    pub(super) fn keep(&self, record: LabRecord) -> Result<Arc<LabRecord>> {
        record.save(&self.files.record())?;
        let record = Arc::new(record);
        self.state().record = Some(record.clone());
        Ok(record)
    }

    pub(super) fn fabric(&self) -> Result<Arc<Fabric>> {
        let fabric = self.state().fabric.clone();
        fabric.ok_or_else(|| self.not_up())
    }

    pub(super) fn keep_fabric(&self, fabric: Fabric) -> Arc<Fabric> {
        let fabric = Arc::new(fabric);
        self.state().fabric = Some(fabric.clone());
        fabric
    }

    /// Ends the networks: no machine is there any more. When this returns their ports are free.
    pub(super) fn stop_networks(&self) -> Result<()> {
        let mut ours = self.state().fabric.take();
        wait_until("take the networks down", Deadline::after(DARK), || {
            let Some(fabric) = ours.take() else {
                return Ok(Probe::Ready(()));
            };
            // A client that waits for a connection would hold them until its patience ends.
            fabric.hang_up();
            Ok(match Arc::try_unwrap(fabric) {
                Ok(last) => {
                    drop(last);
                    Probe::Ready(())
                }
                Err(shared) => {
                    ours = Some(shared);
                    Probe::NotYet("somebody still asks them something".into())
                }
            })
        })
    }

    /// Notes whether a restore is going on.
    pub(super) fn set_restoring(&self, going_on: bool) {
        self.state().restoring = going_on;
    }

    pub(super) fn active_faults(&self) -> ActiveFaults {
        self.state().active_faults.clone()
    }

    pub(super) fn set_active_faults(&self, active_faults: ActiveFaults) {
        self.state().active_faults = active_faults;
    }

    /// Forgets everything: the lab is gone.
    pub(super) fn forget(&self) {
        self.channels.stop();
        *self.state() = EngineState::default();
    }

    /// The hypervisor, opened when it is first needed.
    pub(super) fn hypervisor(&self) -> Result<Arc<dyn Hypervisor>> {
        let mut slot = lock(&self.hypervisor);
        if let Some(h) = &*slot {
            return Ok(h.clone());
        }
        Home::private_dir(&self.files.root())?;
        let opened = (self.backends.hypervisor)()?;
        let journal = self.backends.journal.clone();
        let begin = journal.begin_us();
        let channels = Arc::downgrade(&self.channels);
        opened.listen(Box::new(move |e| {
            // Whoever let it go on: its clock stood still until now.
            if let (Some(channels), "resumed") = (channels.upgrade(), e.what.as_str()) {
                channels.clock_jumped(&e.name);
            }
            let mut draft = Draft::new(Source::Hypervisor, format!("domain.{}", e.what))
                .node(e.name)
                .data(json!({"detail": e.detail}));
            draft.t_us = Some(e.monotonic_us.saturating_sub(begin));
            journal.emit(draft);
        }));
        Ok(slot.insert(opened).clone())
    }

    fn state(&self) -> MutexGuard<'_, EngineState> {
        lock(&self.state)
    }

    fn not_up(&self) -> Error {
        if let Some(damaged) = &self.state().damaged {
            return Error::Operation(damaged.clone());
        }
        Error::Usage(
            Problem::new("use the lab")
                .on(&self.instance)
                .observed("it is not up")
                .remedy(format!("failoverlab up {}", self.instance)),
        )
    }

    pub(super) fn status(&self, look: Look) -> Result<LabStatus> {
        let record = self.record()?;
        // Before the look: what is heard meanwhile is news.
        let heard = self.channels.news().number();
        let hypervisor = self.hypervisor()?;
        let domains = hypervisor.list()?;
        let within = record.desired.slowness.scale(STATUS);
        let runtimes = self.channels.statuses(&record, &domains, within, look.since_us);
        let now_us = self.backends.journal.now_us();
        let lab = &record.desired.lab;
        let machines: Vec<MachineStatus> = lab
            .nodes
            .iter()
            .zip(runtimes)
            .map(|(node, runtime)| {
                let ssh_port = record.machine(&node.name).map_or(0, |m| m.ssh_port);
                MachineStatus::of(node, ssh_port, &domains, runtime, now_us)
            })
            .collect();
        let state = self.state();
        let health = verify::health(lab, &looks(&machines));
        Ok(LabStatus {
            lab: self.instance.clone(),
            title: lab.title.clone(),
            accel: record.desired.accel,
            slowness: record.desired.slowness.factor(),
            t_us: now_us,
            heard,
            unhealthy: match &record.restoring {
                Some(from) => Some(super::saved::between(&self.instance, from, state.restoring)),
                None => health.clone().all().into_iter().next(),
            },
            unknown: record.restoring.is_none() && health.is_unknown(),
            machines,
            mutations: lab.mutations.iter().map(ToString::to_string).collect(),
            faults: state.active_faults.faults.clone(),
            network_outages: state.network_outages.clone(),
        })
    }

    fn counters(&self) -> Result<Networks> {
        let fabric = self.fabric()?;
        let (revision, rules) = fabric.rules();
        Ok(Networks {
            revision,
            rules: rules.all(),
            counters: fabric.counters(),
        })
    }

    fn dump(&self) -> Result<Vec<Option<ccr_contract::dump::Dump>>> {
        let record = self.record()?;
        Ok(self.channels.dumps(&record))
    }

    /// Waits until the journal has what the nodes have seen.
    fn catch_up(&self) -> Result<CaughtUp> {
        let record = self.record()?;
        let behind = self.channels.catch_up(&record, || self.hypervisor()?.list())?;
        Ok(CaughtUp {
            next: self.backends.journal.next(),
            behind,
        })
    }

    /// Lights the networks, on the UDP ports that the record names where it names some.
    pub(super) fn start_fabric(&self, record: &LabRecord, rules: RuleSets) -> Result<Fabric> {
        let config = FabricConfig {
            rules,
            ring: Some(RingConfig::at(self.files.ring())),
            ..FabricConfig::of(&record.desired.lab, record.desired.cables, &record.ports, &self.files)
        };
        Fabric::start(config, self.backends.journal.clone())
    }
}

/// A client's stream: its reply goes before the first byte, and it is closed in both directions when its writer ends.
struct Answer {
    ok: Vec<u8>,
    stream: UnixStream,
}

impl Write for Answer {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.stream.write_all(&std::mem::take(&mut self.ok))?;
        self.stream.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Where nothing was sent the client is still owed a reply.
        if self.ok.is_empty() {
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn plain(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("a result is plain data")
}
