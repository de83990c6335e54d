//! A lab of fake machines with real disk files.

use super::super::*;
use crate::fabric::{Control, Counters, Revision, Rule, RuleOwner, RuleSets};
use crate::files::{Home, LabFiles};
use crate::guest::agent::Agents;
use crate::guest::agent::tests::serve;
use crate::hypervisor::{Accel, Cable, DiskFormat, DomainState, Fake, Hypervisor, Machine, Mgmt, Port};
use crate::image::qemu_img::QemuImg;
use crate::lab::active_faults::ActiveFaults;
use crate::lab::disks;
use crate::lab::record::LabRecord;
use crate::spec::{Lab, LocalDisk, example};
use crate::units::{Name, Size};
use crate::wait::Slowness;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Networks that only know whether they are held.
#[derive(Default)]
pub(super) struct Wires(pub(super) Mutex<(i32, u32)>);

impl Wires {
    pub(super) fn held(&self) -> i32 {
        self.0.lock().unwrap().0
    }
}

impl Control for Wires {
    fn set(&self, _: RuleOwner, _: Vec<Rule>) -> crate::error::Result<Revision> {
        Ok(Revision(1))
    }
    fn remove(&self, _: RuleOwner) -> crate::error::Result<Option<Revision>> {
        Ok(None)
    }
    fn rules(&self) -> (Revision, RuleSets) {
        (Revision(1), RuleSets::default())
    }
    fn counters(&self) -> Counters {
        Counters {
            revision: 1,
            ..Counters::default()
        }
    }
    fn hold(&self) {
        let mut w = self.0.lock().unwrap();
        w.0 += 1;
        w.1 += 1;
    }
    fn release(&self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) lab: Lab,
    pub(super) fake: Arc<Fake>,
    pub(super) wires: Wires,
    pub(super) qemu_img: QemuImg,
    pub(super) clocks: Arc<Clocks>,
    pub(super) agents: Agents,
}

/// Clock minus the host's, microseconds, by node.
pub(super) type Clocks = Mutex<BTreeMap<String, i64>>;

pub(super) fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// Sets a machine's clock, or only looks; what it says then.
pub(super) fn answer(clocks: &Clocks, node: &str, set: Option<Duration>) -> Duration {
    let mut clocks = clocks.lock().unwrap();
    if let Some(time) = set {
        clocks.insert(node.to_owned(), time.as_micros() as i64 - now_us());
    }
    let now = now_us() + clocks.get(node).copied().unwrap_or(0);
    Duration::from_micros(now.try_into().unwrap())
}

impl World {
    /// Two machines that run; `a` has a data disk; both have the shared disk.
    pub(super) fn new() -> Self {
        let mut lab = example("bare");
        lab.nodes.truncate(2);
        lab.shared_disks[0].shared_by.truncate(2);
        lab.nodes[0].disks.push(LocalDisk {
            name: "data".parse().unwrap(),
            size: Size::mib(8),
            serial: "data".into(),
        });
        let fake = Arc::new(Fake::new());
        let world = World {
            dir: tempfile::tempdir().unwrap(),
            lab,
            fake,
            wires: Wires::default(),
            qemu_img: QemuImg::default(),
            clocks: Arc::default(),
            agents: Agents::new([1; 16]),
        };
        let files = world.files("bare");
        for node in &world.lab.nodes {
            let nf = files.node(&node.name);
            std::fs::create_dir_all(&nf.dir).unwrap();
            for (_, disk) in local_disks(node) {
                world
                    .qemu_img
                    .create(&nf.layer(&disk, 0), DiskFormat::Qcow2, Size::mib(8))
                    .unwrap();
            }
        }
        world.serve_clocks(&files, answer);
        std::fs::create_dir_all(files.keys()).unwrap();
        std::fs::write(files.ssh_key(), "secret").unwrap();
        let shared = files.shared_disk("quorum");
        std::fs::create_dir_all(shared.parent().unwrap()).unwrap();
        std::fs::write(shared, "then").unwrap();
        for m in world.machines(&files, 42000) {
            world.fake.create(&m.to_xml().unwrap(), false).unwrap();
        }
        world
    }

    /// The machines' clocks answer from now on like this.
    pub(super) fn serve_clocks(
        &self,
        files: &LabFiles,
        how: impl Fn(&Clocks, &str, Option<Duration>) -> Duration + Clone + Send + 'static,
    ) {
        std::fs::create_dir_all(&files.run).unwrap();
        for node in &self.lab.nodes {
            let (clocks, name, how) = (self.clocks.clone(), node.name.to_string(), how.clone());
            serve(&files.node(&node.name).agent(), move |set| how(&clocks, &name, set));
        }
    }

    pub(super) fn files(&self, instance: &str) -> LabFiles {
        Home::under(self.dir.path()).lab(instance)
    }

    pub(super) fn store(&self) -> Store {
        Store::of(&Home::under(self.dir.path()), &self.lab.name)
    }

    pub(super) fn machines(&self, files: &LabFiles, base: u16) -> Vec<Machine> {
        let nodes = self.lab.nodes.iter().zip(0u16..);
        nodes
            .map(|(node, n)| {
                let nf = files.node(&node.name);
                Machine {
                    name: node.name.to_string(),
                    uuid: format!("6f6a1b54-4e4b-4b0a-9d5b-0a1f6f3d2c0{n}"),
                    label: "bare".into(),
                    memory: node.memory,
                    vcpus: 1,
                    accel: Accel::Tcg,
                    kernel: "/vmlinuz".into(),
                    initrd: "/initrd".into(),
                    cmdline: String::new(),
                    disks: disks(&self.lab, files, node),
                    ports: vec![Port {
                        network: "public".into(),
                        mac: node.nics[0].mac,
                        cable: Cable::Udp {
                            local: base + n,
                            fabric: base + 100,
                        },
                        link_up: true,
                        mtu: 1500,
                    }],
                    mgmt: Mgmt {
                        mac: node.mgmt_mac,
                        ssh: base + 200 + n,
                    },
                    credentials: vec![],
                    console: nf.console(),
                    console_log: nf.console_log(),
                    agent: nf.agent(),
                    qemu_agent: None,
                }
            })
            .collect()
    }

    pub(super) fn live<'a>(&'a self, files: &'a LabFiles) -> Live<'a> {
        Live {
            hypervisor: self.fake.clone(),
            fabric: &self.wires,
            agents: &self.agents,
            lab: &self.lab,
            files,
            qemu_img: &self.qemu_img,
            slowness: Slowness::NONE,
        }
    }

    pub(super) fn checkpoint(&self, name: &str) -> crate::error::Result<Checkpoint> {
        let files = self.files("bare");
        create(&self.live(&files), &self.store(), about(name))
    }

    pub(super) fn restore_request<'a>(&'a self, files: &LabFiles) -> RestoreRequest<'a> {
        RestoreRequest {
            hypervisor: self.fake.clone(),
            fabric: &self.wires,
            agents: &self.agents,
            machines: self.machines(files, 43000),
            slowness: Slowness::NONE,
            resumed: &|| {},
        }
    }

    pub(super) fn down(&self) {
        for d in self.fake.list().unwrap() {
            self.fake.destroy(&d.name).unwrap();
        }
    }

    /// The disks of a machine are what the rule of the highest layer says, and there is nothing above.
    pub(super) fn assert_settled(&self) {
        let files = self.files("bare");
        for node in &self.lab.nodes {
            let Some(domain) = self.fake.domain(&node.name) else {
                continue;
            };
            for (target, disk) in local_disks(node) {
                assert_eq!(
                    domain.described.disk(&target).unwrap(),
                    top_layer(&files.node(&node.name), &disk)
                );
            }
        }
    }

    pub(super) fn assert_goes_on(&self, but: &[&str]) {
        assert_eq!(self.wires.held(), 0);
        for d in self.fake.list().unwrap() {
            let expected = if but.contains(&d.name.as_str()) {
                DomainState::Paused
            } else {
                DomainState::Running
            };
            assert_eq!(d.state, expected, "{}", d.name);
        }
        self.assert_settled();
    }
}

pub(super) fn about(name: &str) -> About {
    About {
        name: name.parse().unwrap(),
        layer: None,
        tool: "test".into(),
        record: LabRecord::sample("bare"),
        active_faults: ActiveFaults::default(),
    }
}

pub(super) fn name(n: &str) -> Name {
    n.parse().unwrap()
}

pub(super) fn unused(_: &Name) -> Option<String> {
    None
}
