//! Every injector on fakes: what it does, what proves it, what undoes it, and what it says where nothing can be done.

use super::*;
use crate::fabric::{Counters, Match, PortCounters, Revision, Rule, RuleCounters, RuleOwner, RuleSets};
use crate::guest::{Command, Output};
use crate::hypervisor::{self, Accel, Cable, DomainState, Fake, Machine, Mgmt, Port};
use crate::spec;
use crate::units::Size;
use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

mod inside;
mod record;
mod traffic;
mod words;

#[derive(Debug, Default)]
struct Switch {
    rules: Mutex<RuleSets>,
    counted: Mutex<BTreeMap<String, RuleCounters>>,
    ports: Mutex<Vec<PortCounters>>,
}

impl Switch {
    fn in_force(&self) -> Vec<Rule> {
        self.rules.lock().unwrap().all()
    }
}

impl Control for Switch {
    fn set(&self, owner: RuleOwner, rules: Vec<Rule>) -> Result<Revision> {
        self.rules.lock().unwrap().set(owner, rules);
        Ok(Revision(1))
    }
    fn remove(&self, owner: RuleOwner) -> Result<Option<Revision>> {
        let had = self.rules.lock().unwrap().remove(owner);
        Ok(had.then_some(Revision(1)))
    }
    fn rules(&self) -> (Revision, RuleSets) {
        (Revision(1), self.rules.lock().unwrap().clone())
    }
    fn counters(&self) -> Counters {
        let counted = self.counted.lock().unwrap();
        let of = |id: &String| RuleCounters {
            id: id.clone(),
            ..counted.get(id).cloned().unwrap_or_default()
        };
        Counters {
            rules: self.rules.lock().unwrap().all().iter().map(|r| of(&r.id)).collect(),
            retired: counted.keys().map(of).collect(),
            ports: self.ports.lock().unwrap().clone(),
            ..Counters::default()
        }
    }
    fn hold(&self) {}
    fn release(&self) {}
}

/// Processes of a guest: pid → name, start, state, service.
type Table = BTreeMap<u32, (&'static str, u64, char, &'static str)>;

#[derive(Debug, Default)]
struct Inside {
    processes: Table,
    /// A signal is ignored.
    deaf: bool,
    carrier: bool,
    started: Vec<String>,
    system: inside::System,
}

/// A guest's commands on an invented process table.
#[derive(Debug)]
struct Guest(Arc<Mutex<Inside>>);

impl Remote for Guest {
    fn exec(&mut self, command: &Command, _: Deadline) -> Result<Output> {
        let mut inside = self.0.lock().unwrap();
        let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        let mut out = String::new();
        match argv.as_slice() {
            ["find", "/proc", .., "--", name, "{}", "+"] => {
                for (pid, (n, ..)) in inside.processes.iter().filter(|(_, p)| p.0 == *name) {
                    assert_eq!(n, name);
                    out.push_str(&format!("/proc/{pid}/comm\n"));
                }
            }
            ["cat", "--", files @ ..] => {
                for pid in files
                    .iter()
                    .map(|f| f.split('/').nth(2).unwrap().parse::<u32>().unwrap())
                {
                    if let Some((name, began, state, _)) = inside.processes.get(&pid) {
                        let rest = "0 ".repeat(18);
                        out.push_str(&format!("{pid} ({name}) {state} {rest}{began} 0\n"));
                    }
                }
            }
            ["cat", file] if file.ends_with("/cgroup") => {
                let pid: u32 = file.split('/').nth(2).unwrap().parse().unwrap();
                out = format!("0::/system.slice/{}\n", inside.processes[&pid].3);
            }
            ["cat", file] if file.ends_with("/carrier") => out = if inside.carrier { "1\n" } else { "0\n" }.into(),
            ["sh", "-c", _, "kill", signal, pids @ ..] => {
                let deaf = inside.deaf;
                for pid in pids.iter().map(|p| p.parse::<u32>().unwrap()).filter(|_| !deaf) {
                    match *signal {
                        "STOP" => inside.processes.get_mut(&pid).unwrap().2 = 'T',
                        "CONT" => inside.processes.get_mut(&pid).unwrap().2 = 'S',
                        _ => {
                            inside.processes.remove(&pid);
                        }
                    }
                }
            }
            ["systemctl", "start", "--", unit] => {
                inside.started.push((*unit).to_owned());
                return Ok(inside.system.exec(&argv, &command.stdin));
            }
            other => return Ok(inside.system.exec(other, &command.stdin)),
        }
        Ok(Output {
            status: 0,
            stdout: out.into_bytes(),
            stderr: Vec::new(),
        })
    }
    fn upload(&mut self, _: &[u8], _: &FilePath, _: u32, _: Deadline) -> Result<()> {
        unreachable!("no fault writes files")
    }
    fn download(&mut self, _: &FilePath, _: Deadline) -> Result<Vec<u8>> {
        unreachable!("no fault reads files")
    }
    fn follow(&mut self, _: &Command, _: &mut dyn FnMut(crate::guest::Followed<'_>) -> bool) -> Result<()> {
        unreachable!("no fault follows")
    }
}

struct Bench {
    lab: Lab,
    hypervisor: Fake,
    switch: Switch,
    inside: Arc<Mutex<Inside>>,
    journal: Journal,
    next: AtomicU64,
    /// What the next process would find.
    on_record: Mutex<BTreeMap<u64, FaultRecord>>,
    /// Whether the guests are out of reach.
    silent: AtomicBool,
    /// What they print on their consoles.
    console: tempfile::NamedTempFile,
    /// By how much times are longer; less than 1 where somebody waits in vain.
    times: f64,
}

fn machine(lab: &Lab, node: &str, console: &FilePath) -> Machine {
    let place = lab.nodes.iter().position(|n| n.name.as_str() == node).unwrap() as u16;
    let node = &lab.nodes[usize::from(place)];
    let ports = node.nics.iter().zip(40_000 + 10 * place..).map(|(nic, n)| Port {
        network: nic.network.to_string(),
        mac: nic.mac,
        cable: Cable::Unix {
            local: format!("/run/{n}").into(),
            fabric: format!("/run/{n}f").into(),
        },
        link_up: true,
        mtu: 1500,
    });
    Machine {
        name: node.name.to_string(),
        uuid: "6f6a1b54-4e4b-4b0a-9d5b-0a1f6f3d2c01".into(),
        label: "ccr".into(),
        memory: Size::mib(256),
        vcpus: 1,
        accel: Accel::Tcg,
        kernel: "/k".into(),
        initrd: "/i".into(),
        cmdline: "quiet".into(),
        disks: Vec::new(),
        ports: ports.collect(),
        mgmt: Mgmt {
            mac: node.mgmt_mac,
            ssh: 40_200 + place,
        },
        credentials: Vec::new(),
        console: format!("/{}.c", node.name).into(),
        console_log: console.to_owned(),
        agent: format!("/{}.a", node.name).into(),
        qemu_agent: None,
    }
}

impl Bench {
    fn new() -> Self {
        let lab = spec::example("ccr");
        let bench = Bench {
            hypervisor: Fake::new(),
            switch: Switch::default(),
            inside: Arc::default(),
            journal: Journal::in_memory(),
            next: AtomicU64::new(0),
            on_record: Mutex::default(),
            silent: AtomicBool::new(false),
            console: tempfile::NamedTempFile::new().unwrap(),
            times: 1.0,
            lab,
        };
        for node in ["node1", "node2", "hub"] {
            bench.restart_machine(node).unwrap();
        }
        bench.inside.lock().unwrap().carrier = true;
        bench.inside.lock().unwrap().system.console = Some(bench.console.path().to_owned());
        bench
    }

    fn ask(&self, kind: &str, on: Option<&str>, arguments: &[&str]) -> Result<Fault> {
        let words = Words::from_arguments(kind, on.map(str::to_owned), arguments)?;
        words.resolve(&self.lab, &|word| {
            let role = (word == "active").then(|| word.to_owned());
            let node = if word == "active" { "node1" } else { word };
            Ok(Target {
                role,
                node: node.to_owned(),
            })
        })
    }

    fn inject(&self, kind: &str, on: Option<&str>, arguments: &[&str]) -> Result<FaultRecord> {
        inject(self, &self.ask(kind, on, arguments)?)
    }

    fn state(&self, node: &str) -> Option<DomainState> {
        self.hypervisor.domain(node).map(|d| d.state)
    }

    /// Undoes twice: the second time nothing may happen.
    fn undo(&self, record: &mut FaultRecord) {
        undo(self, record).unwrap();
        let (first, calls) = (record.clone(), self.hypervisor.calls().len());
        assert!(first.end_us.is_some());
        undo(self, record).unwrap();
        assert_eq!(*record, first, "a second undo changed the record");
        let changed = self.hypervisor.calls()[calls..]
            .iter()
            .any(|(k, _)| !matches!(k, hypervisor::Kind::Lookup | hypervisor::Kind::SetLink));
        assert!(!changed, "a second undo acted");
    }
}

impl FaultContext for Bench {
    fn lab(&self) -> &Lab {
        &self.lab
    }
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.hypervisor
    }
    fn fabric(&self) -> &dyn Control {
        &self.switch
    }
    fn remote(&self, node: &str, _: Deadline) -> Result<Box<dyn Remote>> {
        match self.state(node) {
            Some(DomainState::Running) if !self.silent.load(Relaxed) => Ok(Box::new(Guest(self.inside.clone()))),
            _ => Err(Error::Operation(Problem::new("reach the guest").on(node))),
        }
    }
    fn places(&self, node: &str) -> Result<Places> {
        let pack = crate::deploy::Pack::load("ccr")?;
        pack.places(&self.lab, self.lab.node(node).unwrap())
    }
    fn restart_machine(&self, node: &str) -> Result<()> {
        self.inside.lock().unwrap().system.restarted();
        self.hypervisor
            .create(&machine(&self.lab, node, self.console.path()).to_xml()?, false)
    }
    fn journal(&self) -> &Journal {
        &self.journal
    }
    fn slowness(&self) -> Slowness {
        serde_json::from_value(json!(self.times)).unwrap()
    }
    fn next_fault(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }
    fn keep(&self, record: &FaultRecord) -> Result<()> {
        self.on_record.lock().unwrap().insert(record.id, record.clone());
        Ok(())
    }
    fn forget(&self, id: u64) -> Result<()> {
        self.on_record.lock().unwrap().remove(&id);
        Ok(())
    }
}

#[test]
fn power_goes_at_once_and_comes_back() {
    let bench = Bench::new();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let k = kinds.clone();
    bench.journal.listen(move |e| {
        k.lock().unwrap().push(e.kind.clone());
        true
    });
    let mut record = bench.inject("power-off", Some("active"), &[]).unwrap();
    assert_eq!(record.target, json!({"role": "active", "node": "node1"}));
    assert_eq!((record.effective, bench.state("node1")), (Some(true), None));
    let calls: Vec<_> = bench.hypervisor.calls().into_iter().map(|(k, _)| k).collect();
    let at = |kind| calls.iter().position(|k| *k == kind).unwrap();
    assert!(
        at(hypervisor::Kind::Suspend) < at(hypervisor::Kind::Destroy),
        "destroy alone is no power cut"
    );
    assert_eq!(record.proof["suspended_us"], json!(record.begin_us));
    bench.undo(&mut record);
    assert_eq!(bench.state("node1"), Some(DomainState::Running));
    assert_eq!(*kinds.lock().unwrap(), ["fault.begin", "fault.end"]);
}

#[test]
fn a_power_cut_that_libvirt_refuses_leaves_the_machine_running() {
    let bench = Bench::new();
    bench.hypervisor.fail(hypervisor::Kind::Destroy, 1);
    assert_eq!(
        bench.inject("power-off", Some("node1"), &[]).unwrap_err().exit_code(),
        5
    );
    assert_eq!(bench.state("node1"), Some(DomainState::Running));
}

#[test]
fn what_cannot_be_done_to_a_machine_is_said() {
    let bench = Bench::new();
    assert_eq!(bench.inject("power-on", Some("node1"), &[]).unwrap_err().exit_code(), 2);
    assert_eq!(bench.inject("resume", Some("node1"), &[]).unwrap_err().exit_code(), 2);
    bench.inject("power-off", Some("node1"), &[]).unwrap();
    for kind in ["power-off", "freeze"] {
        assert_eq!(
            bench.inject(kind, Some("node1"), &[]).unwrap_err().exit_code(),
            2,
            "{kind}"
        );
    }
    let mut record = bench.inject("power-on", Some("node1"), &[]).unwrap();
    assert_eq!((record.effective, record.end_us.is_some()), (Some(true), true));
    undo(&bench, &mut record).unwrap();
    assert_eq!(
        bench.state("node1"),
        Some(DomainState::Running),
        "there is nothing to take back"
    );
}

#[test]
fn a_frozen_machine_goes_on_again() {
    let bench = Bench::new();
    let mut record = bench.inject("freeze", Some("node2"), &[]).unwrap();
    assert_eq!(
        (record.effective, bench.state("node2")),
        (Some(true), Some(DomainState::Paused))
    );
    bench.undo(&mut record);
    assert_eq!(bench.state("node2"), Some(DomainState::Running));
    assert_eq!(record.effective, Some(true));
    bench.inject("freeze", Some("node2"), &[]).unwrap();
    let resumed = bench.inject("resume", Some("node2"), &[]).unwrap();
    assert_eq!(
        (resumed.effective, bench.state("node2")),
        (Some(true), Some(DomainState::Running))
    );
}

#[test]
fn a_carrier_goes_and_the_guest_says_so() {
    let bench = Bench::new();
    bench.inside.lock().unwrap().carrier = false;
    let mut record = bench.inject("link-down", Some("node1"), &["network=public"]).unwrap();
    assert_eq!(record.effective, Some(true));
    assert_eq!(record.proof[0]["guest_carrier"], json!(false));
    let mac = bench.lab.node("node1").unwrap().nics[0].mac.to_string();
    assert_eq!(bench.hypervisor.domain("node1").unwrap().link_up(&mac), Some(false));
    bench.undo(&mut record);
    assert_eq!(bench.hypervisor.domain("node1").unwrap().link_up(&mac), Some(true));
    // The guest still sees a carrier: nothing is proven, whatever libvirt says.
    bench.inside.lock().unwrap().carrier = true;
    let record = bench.inject("link-down", Some("node1"), &["network=public"]).unwrap();
    assert_eq!(record.effective, Some(false));
}

#[test]
fn one_cable_that_fails_brings_the_others_back() {
    let bench = Bench::new();
    bench.hypervisor.fail(hypervisor::Kind::SetLink, 2);
    assert!(bench.inject("link-down", Some("node1"), &[]).is_err());
    for nic in &bench.lab.node("node1").unwrap().nics {
        assert_eq!(
            bench.hypervisor.domain("node1").unwrap().link_up(&nic.mac.to_string()),
            Some(true)
        );
    }
}

#[test]
fn a_cut_is_proven_by_the_frames_that_it_met() {
    let bench = Bench::new();
    let own = Rule {
        id: "mine".into(),
        network: "public".into(),
        from: "*".into(),
        to: "*".into(),
        matches: Match::default(),
        effect: crate::fabric::Effect::default(),
        seed: 0,
    };
    bench.switch.set(RuleOwner::Person, vec![own.clone()]).unwrap();
    let mut idle = bench
        .inject("cut", None, &["between=node1,node2", "direction=out"])
        .unwrap();
    assert_eq!(idle.effective, None, "nothing is known before a frame came");
    let ids: Vec<String> = bench
        .switch
        .in_force()
        .iter()
        .map(|r| format!("{}>{}", r.from, r.to))
        .collect();
    assert_eq!(
        ids,
        ["*>*", "node1>node2", "node1>node2"],
        "one for each network that both are on"
    );
    evidence(&bench, &mut idle).unwrap();
    assert_eq!(idle.effective, Some(false));
    let mut busy = bench
        .inject("cut", Some("hub"), &["network=public", "proto=tcp", "port=445"])
        .unwrap();
    let rule = bench.switch.in_force().pop().unwrap();
    assert_eq!((rule.matches.port, rule.effect.cut), (Some(445), true));
    let three = RuleCounters {
        dropped: 3,
        ..RuleCounters::default()
    };
    bench.switch.counted.lock().unwrap().insert(rule.id, three);
    bench.undo(&mut busy);
    assert_eq!((busy.effective, &busy.proof["dropped"]), (Some(true), &json!(3)));
    bench.undo(&mut idle);
    assert_eq!(idle.effective, Some(false));
    assert_eq!(bench.switch.in_force(), [own], "the rules of others stay");
}

#[test]
fn a_cut_whose_rules_went_away_is_not_proven() {
    let bench = Bench::new();
    let mut record = bench.inject("cut", Some("node1"), &[]).unwrap();
    bench.switch.remove(RuleOwner::Fault(record.id)).unwrap();
    undo(&bench, &mut record).unwrap();
    assert_eq!(record.effective, Some(false));
}

#[test]
fn a_killed_process_is_gone_and_its_service_is_started_again() {
    let bench = Bench::new();
    let table = Table::from([
        (301, ("ccrd", 777, 'S', "ccrd.service")),
        (1, ("systemd", 1, 'S', "init.scope")),
    ]);
    bench.inside.lock().unwrap().processes = table.clone();
    let mut record = bench.inject("kill", Some("node1"), &["process=ccrd"]).unwrap();
    assert_eq!(record.effective, Some(true));
    assert_eq!(record.proof["pids"], json!([301]));
    assert_eq!(bench.inside.lock().unwrap().processes.len(), 1);
    undo(&bench, &mut record).unwrap();
    assert_eq!(bench.inside.lock().unwrap().started, ["ccrd.service"]);
    assert_eq!(
        bench
            .inject("kill", Some("node1"), &["process=ccrd"])
            .unwrap_err()
            .exit_code(),
        2,
        "there is no such process"
    );
    bench.inside.lock().unwrap().processes = table;
    let mut stopped = bench
        .inject("kill", Some("node1"), &["process=ccrd", "signal=STOP"])
        .unwrap();
    assert_eq!(
        (stopped.effective, &stopped.proof["seen"]),
        (Some(true), &json!("stopped"))
    );
    undo(&bench, &mut stopped).unwrap();
    assert_eq!(bench.inside.lock().unwrap().processes[&301].2, 'S');
}
