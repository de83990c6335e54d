//! A lab of fake machines, as an engine has it.

use super::guests::{Fakes, Guests};
use crate::deploy::Pack;
use crate::error::{Error, Result};
use crate::event::{Event, Journal};
use crate::fault::{Fault, Target, Words};
use crate::files::{Home, LabFiles};
use crate::guest::agent::tests::serve;
use crate::hypervisor::{Accel, CableKind, DiskFormat, DomainState, Fake, Hypervisor};
use crate::image::qemu_img::QemuImg;
use crate::lab::active_faults::ActiveFaults;
use crate::lab::cancel::Cancel;
use crate::lab::checkpoint::Store;
use crate::lab::desired;
use crate::lab::engine::{Backends, Engine};
use crate::lab::protocol::{LabStatus, Look, RestoreArgs, UpArgs, Verb};
use crate::lab::record::{DesiredState, ImageRef, LabRecord};
use crate::plan::Inputs;
use crate::spec::{Lab, example};
use crate::units::Size;
use crate::verify::FaultRecord;
use crate::wait::{Deadline, Probe, Slowness, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A host, a lab's file, and machines that are not there yet.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) home: Home,
    pub(super) lab: Lab,
    /// Runs the lab's machines; it outlives every engine.
    pub(super) fake: Arc<Fake>,
    pub(super) guests: Arc<Guests>,
    /// All that the journal was told, over all engines.
    pub(super) events: Arc<Mutex<Vec<Event>>>,
    slowness: Slowness,
}

impl World {
    /// Three machines without a runtime, `a`, `b` and `c`, that share a disk.
    pub(super) fn bare() -> Self {
        Self::of("bare")
    }

    /// `node1`, `node2` and `hub`, with a runtime that is deployed and watched.
    pub(super) fn ccr() -> Self {
        Self::of("ccr")
    }

    fn of(name: &str) -> Self {
        let mut lab = example(name);
        for node in &mut lab.nodes {
            node.memory = Size::mib(1);
        }
        for disk in &mut lab.shared_disks {
            disk.size = Size::mib(1);
        }
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        for folder in [&home.cache, &home.state, &home.runtime, &dir.path().join("programs")] {
            Home::private_dir(folder).unwrap();
        }
        let image = std::fs::File::create(dir.path().join("image")).unwrap();
        image.set_len(Size::mib(1).bytes()).unwrap();
        for program in Pack::load("ccr").unwrap().runtime.programs {
            std::fs::write(dir.path().join("programs").join(program.name), "a program").unwrap();
        }
        Self {
            dir,
            home,
            lab,
            fake: Arc::default(),
            guests: Arc::default(),
            events: Arc::default(),
            slowness: Slowness::NONE,
        }
    }

    /// The same on a host on which every time that is waited is so many times as long: less than 1 here, where somebody is waited
    /// for in vain.
    pub(super) fn with_times(mut self, factor: f64) -> Self {
        self.slowness = serde_json::from_value(json!(factor)).unwrap();
        self
    }

    pub(super) fn files(&self) -> LabFiles {
        self.home.lab(&self.lab.name)
    }

    /// A supervisor's engine of the lab.
    pub(super) fn open(&self) -> Result<Engine> {
        self.open_as(&self.lab.name, self.fake.clone())
    }

    /// The same of a fork, whose machines `fake` runs.
    pub(super) fn open_as(&self, instance: &str, fake: Arc<Fake>) -> Result<Engine> {
        let files = self.home.lab(instance);
        for folder in [&self.home.labs(), &files.state, &files.run] {
            Home::private_dir(folder).unwrap();
        }
        for node in &self.lab.nodes {
            serve(&files.node(&node.name).agent(), |set| set.unwrap_or_else(since_1970));
        }
        let journal = Journal::open(&files.events(), 0).unwrap();
        let events = self.events.clone();
        journal.listen(move |e| {
            events.lock().unwrap().push(e.clone());
            true
        });
        let connector = Fakes::new(files, self.lab.clone(), fake.clone(), self.guests.clone());
        let backends = Backends {
            hypervisor: Box::new(move || Ok(fake.clone())),
            connector: Arc::new(connector),
            qemu_img: QemuImg::default(),
            programs: self.dir.path().join("programs"),
            journal,
        };
        Engine::open(self.home.clone(), instance, backends)
    }

    pub(super) fn desired(&self) -> DesiredState {
        let image = self.dir.path().join("image");
        DesiredState {
            lab: self.lab.clone(),
            source: "lab.toml".into(),
            accel: Accel::Tcg,
            cables: CableKind::Unix,
            slowness: self.slowness,
            image: ImageRef {
                digest: "d".into(),
                disk: image.clone(),
                format: DiskFormat::Raw,
                kernel: image.clone(),
                initrd: image,
                cmdline: String::new(),
            },
            seed: 7,
            programs: BTreeMap::from([(desired::TOOL.to_owned(), "0123".to_owned())]),
            inputs: Inputs::of(&self.lab),
        }
    }

    pub(super) fn up_args(&self) -> UpArgs {
        UpArgs {
            desired: self.desired(),
            keep: false,
            cold: false,
        }
    }

    /// The engine of a lab that is up.
    pub(super) fn up(&self) -> Engine {
        let engine = self.open().unwrap();
        up(&engine, self.up_args()).unwrap();
        engine
    }

    /// The engine goes as with its process; its machines stay.
    pub(super) fn die(&self, engine: Engine) {
        engine.channels.stop();
        drop(engine);
    }

    /// The record on disk.
    pub(super) fn record(&self) -> Option<LabRecord> {
        LabRecord::load(&self.files().record()).unwrap()
    }

    /// The faults on disk.
    pub(super) fn faults(&self) -> Vec<FaultRecord> {
        ActiveFaults::load(&self.files()).unwrap().faults
    }

    /// Domains: name, whether it runs, process.
    pub(super) fn domains(&self) -> Vec<(String, bool, u32)> {
        let all = self.fake.list().unwrap();
        let of = |d: &crate::hypervisor::Domain| (d.name.clone(), d.state == DomainState::Running, d.pid.unwrap());
        all.iter().map(of).collect()
    }

    /// That the lab is up, each machine running and nothing in force.
    pub(super) fn assert_up(&self, engine: &Engine) {
        let status = status(engine);
        assert_eq!(status.unhealthy, None);
        assert!(status.faults.is_empty() && self.faults().is_empty());
        assert!(self.domains().len() == self.lab.nodes.len() && self.domains().iter().all(|d| d.1));
        let record = self.record().unwrap();
        assert!(record.complete && record.restoring.is_none());
    }

    /// That nothing is left of the lab, on the hypervisor, on disk or in the engine.
    pub(super) fn assert_gone(&self, engine: &Engine) {
        assert_eq!(self.domains(), []);
        assert!(self.record().is_none() && self.faults().is_empty() && !engine.keeps_anything());
        let files = self.files();
        let left = self.lab.nodes.iter().map(|n| files.node(&n.name).dir);
        assert_eq!(left.filter(|d| d.exists()).count(), 0);
        let e = engine.perform(Verb::Counters, &Cancel::default()).unwrap_err();
        assert!(e.to_string().contains("it is not up"), "{e}");
    }

    /// Events of this kind: the node, and what is told.
    pub(super) fn told(&self, kind: &str) -> Vec<(String, Value)> {
        let events = self.events.lock().unwrap();
        let of = |e: &Event| (e.node.clone().unwrap_or_default(), e.data.clone());
        events.iter().filter(|e| e.kind == kind).map(of).collect()
    }

    /// Checkpoints that are kept, by what they are called up to the first dash.
    pub(super) fn kept(&self) -> Vec<String> {
        let (good, bad) = Store::of(&self.home, &self.lab.name).list().unwrap();
        assert!(bad.is_empty());
        let word = |name: &str| name.split('-').next().unwrap().to_owned();
        let mut words: Vec<String> = good.iter().map(|c| word(c.meta.name.as_str())).collect();
        words.sort();
        words
    }

    pub(super) fn fault(&self, kind: &str, on: &str) -> Fault {
        let words = Words::from_arguments(kind, Some(on.to_owned()), &[] as &[&str]).unwrap();
        let who = |name: &str| {
            Ok(Target {
                role: None,
                node: name.to_owned(),
            })
        };
        words.resolve(&self.lab, &who).unwrap()
    }

    pub(super) fn inject(&self, engine: &Engine, kind: &str, on: &str) -> Result<FaultRecord> {
        let fault = Box::new(self.fault(kind, on));
        perform(engine, Verb::Fault(fault)).map(|v| serde_json::from_value(v).unwrap())
    }

    pub(super) fn restore_args(&self, checkpoint: &str) -> RestoreArgs {
        RestoreArgs {
            lab: self.lab.name.clone(),
            checkpoint: checkpoint.parse().unwrap(),
        }
    }
}

pub(super) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

pub(super) fn perform(engine: &Engine, verb: Verb) -> Result<Value> {
    engine.perform(verb, &Cancel::default())
}

pub(super) fn up(engine: &Engine, args: UpArgs) -> Result<Value> {
    perform(engine, Verb::Up(Box::new(args)))
}

pub(super) fn keep(engine: &Engine, name: &str) {
    let name = name.parse().unwrap();
    perform(engine, Verb::Checkpoint { name }).unwrap();
}

pub(super) fn status(engine: &Engine) -> LabStatus {
    serde_json::from_value(perform(engine, Verb::Status(Some(Look::default()))).unwrap()).unwrap()
}

/// Names of the rules that the networks have.
pub(super) fn rules(engine: &Engine) -> Vec<String> {
    let networks = perform(engine, Verb::Counters).unwrap();
    let rules = networks["rules"].as_array().unwrap();
    rules.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
}

/// That an operation failed, and undid all of it.
pub(super) fn assert_undone(e: &Error, seen: &str) {
    let problem = e.problem().unwrap();
    assert!(e.to_string().contains(seen), "{e}");
    assert!(problem.rollback.is_empty(), "{:?}", problem.rollback);
}

/// Waits for a condition.
pub(super) fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let probe = || {
        Ok(match seen() {
            true => Probe::Ready(()),
            false => Probe::NotYet("it is not so".into()),
        })
    };
    wait_until(what, Deadline::after(Duration::from_secs(20)), probe).unwrap();
}
