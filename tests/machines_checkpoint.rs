//! Lab `bare` on real machines: checkpoint, restore in place, a fork beside it.
//!
//! Prints how long each step took.

mod common;

use common::{free_port, image, timed};
use failoverlab::event::Journal;
use failoverlab::fabric::{Control, Fabric, FabricConfig};
use failoverlab::files::{Home, LabFiles};
use failoverlab::guest::agent::Agents;
use failoverlab::guest::keys::Keys;
use failoverlab::guest::qemu_agent::QemuAgent;
use failoverlab::guest::{Command as Run, Remote, credentials};
use failoverlab::hypervisor::{
    Accel, CableKind, DiskFormat, Embedded, Hypervisor, Machine, Mgmt, Port, become_subreaper, log_environment,
};
use failoverlab::image::qemu_img::QemuImg;
use failoverlab::lab::active_faults::ActiveFaults;
use failoverlab::lab::checkpoint::{About, Live, RestoreRequest, Restored, Store, create, restore, unpack};
use failoverlab::lab::disks;
use failoverlab::lab::record::{DesiredState, LabRecord};
use failoverlab::plan::Inputs;
use failoverlab::spec::{Context, Lab, Source, load};
use failoverlab::wait::{Deadline, Probe, Slowness, wait_until};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a checkpoint has of `lab` beside its machines.
fn record(lab: &Lab) -> LabRecord {
    let desired = DesiredState {
        lab: lab.clone(),
        source: "tests/machines_checkpoint.rs".into(),
        accel: Accel::Tcg,
        cables: CableKind::Udp,
        slowness: Slowness::NONE,
        image: (&image()).into(),
        seed: 7,
        programs: BTreeMap::new(),
        inputs: Inputs::default(),
    };
    LabRecord::new("bare", desired, Vec::new())
}

const FORK: &str = "FAILOVERLAB_TEST_FORK";

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(180))
}

fn lab() -> Lab {
    let context = Context {
        images: vec!["debian-12".parse().unwrap()],
        packs: vec![],
        checks: vec![],
        host_memory: None,
    };
    load(&Source::Embedded("bare".parse().unwrap()), &context).unwrap().lab
}

/// One running lab or fork, without the supervisor around it.
struct Running {
    lab: Lab,
    files: LabFiles,
    hypervisor: Arc<Embedded>,
    fabric: Fabric,
    agents: Agents,
    qemu_img: QemuImg,
}

impl Running {
    fn open(home: &Home, instance: &str) -> Self {
        become_subreaper().unwrap();
        let (lab, files) = (lab(), home.lab(instance));
        for dir in [&home.runtime, &files.run, &files.state] {
            Home::private_dir(dir).unwrap();
        }
        let hypervisor = timed("open a root", || Embedded::open(&files.root(), &home.capabilities())).unwrap();
        let fabric = Fabric::start(
            FabricConfig::of(&lab, CableKind::Udp, &[], &files),
            Journal::in_memory(),
        )
        .unwrap();
        Running {
            lab,
            files,
            hypervisor: Arc::new(hypervisor),
            fabric,
            agents: Agents::new([1; 16]),
            qemu_img: QemuImg::default(),
        }
    }

    /// The machines on the disks that are there, on free ports.
    fn machines(&self) -> Vec<Machine> {
        let keys = Keys::ensure(&self.files, self.lab.nodes.iter().map(|n| n.name.as_str())).unwrap();
        let image = image();
        let nodes = self.lab.nodes.iter().enumerate();
        nodes
            .map(|(i, node)| {
                let nf = self.files.node(&node.name);
                let cables = self.fabric.ports();
                let ports = node.nics.iter().map(|nic| {
                    let of = |p: &&failoverlab::fabric::PortAssignment| {
                        p.node == node.name.as_str() && p.network == nic.network.as_str()
                    };
                    let cable = cables.iter().find(of).unwrap();
                    Port {
                        network: nic.network.to_string(),
                        mac: nic.mac,
                        cable: cable.cable.clone(),
                        link_up: true,
                        mtu: 1500,
                    }
                });
                Machine {
                    name: node.name.to_string(),
                    uuid: format!("6f6a1b54-4e4b-4b0a-9d5b-0a1f6f3d2c0{i}"),
                    label: "bare".into(),
                    memory: node.memory,
                    vcpus: 1,
                    accel: Accel::Tcg,
                    kernel: image.kernel.clone(),
                    initrd: image.initrd.clone(),
                    cmdline: format!("{} systemd.hostname={}", image.cmdline, node.name),
                    disks: disks(&self.lab, &self.files, node),
                    ports: ports.collect(),
                    mgmt: Mgmt {
                        mac: node.mgmt_mac,
                        ssh: free_port(),
                    },
                    credentials: credentials::write(&self.lab, node, &keys, &nf).unwrap(),
                    console: nf.console(),
                    console_log: nf.console_log(),
                    agent: nf.agent(),
                    qemu_agent: None,
                }
            })
            .collect()
    }

    fn boot(&self) {
        let shared = self.files.shared_disk("quorum");
        Home::private_dir(shared.parent().unwrap()).unwrap();
        self.qemu_img
            .create(&shared, DiskFormat::Raw, self.lab.shared_disks[0].size)
            .unwrap();
        for node in &self.lab.nodes {
            let nf = self.files.node(&node.name);
            Home::private_dir(&nf.dir).unwrap();
            let base = image().disk;
            self.qemu_img
                .create_overlay(&nf.root_overlay(), &base, DiskFormat::Qcow2)
                .unwrap();
        }
        for m in self.machines() {
            timed("create", || self.hypervisor.create(&m.to_xml().unwrap(), false)).unwrap();
        }
        timed("boot until the agents answer", || {
            for node in &self.lab.nodes {
                self.agent(&node.name).wait(soon()).unwrap();
            }
        });
    }

    fn live(&self) -> Live<'_> {
        Live {
            hypervisor: self.hypervisor.clone(),
            fabric: &self.fabric,
            agents: &self.agents,
            lab: &self.lab,
            files: &self.files,
            qemu_img: &self.qemu_img,
            slowness: Slowness::new(3.0),
        }
    }

    fn back(&self, store: &Store, name: &str) -> Restored {
        let c = store.get(&name.parse().unwrap()).unwrap();
        timed("unpack", || unpack(&c, &self.files, &self.qemu_img)).unwrap();
        let machines = self.machines();
        let back = timed("bring back", || {
            restore(
                &c,
                RestoreRequest {
                    hypervisor: self.hypervisor.clone(),
                    fabric: &self.fabric,
                    agents: &self.agents,
                    machines,
                    slowness: Slowness::new(3.0),
                    resumed: &|| {},
                },
            )
        });
        let back = back.unwrap();
        eprintln!("{back:?}");
        back
    }

    fn agent(&self, node: &str) -> QemuAgent {
        QemuAgent::new(self.hypervisor.clone(), node)
    }

    fn run(&self, node: &str, argv: &[&str]) -> String {
        let command = Run::new(argv.iter().copied());
        let out = self.agent(node).exec(&command, soon()).unwrap();
        out.check_text(argv[0], node).unwrap().trim().to_owned()
    }

    /// That `from` has a conversation with the SSH server of `to` through a lab network.
    fn reach(&self, from: &str, to: &str) {
        let script = format!("exec 3<>/dev/tcp/{to}/22 && head -c 4 <&3");
        wait_until("reach the other machine", soon(), || {
            let command = Run::new(["timeout", "20", "bash", "-c", &script]);
            let out = self.agent(from).exec(&command, soon())?;
            Ok(match out.check_text("reach", to) {
                Ok(text) if text == "SSH-" => Probe::Ready(()),
                other => Probe::NotYet(format!("{other:?}")),
            })
        })
        .unwrap();
    }

    /// Writes `text` to the first block of the shared disk, past every cache.
    fn write_block(&self, node: &str, text: &str) {
        let script = format!(
            "printf %-4096s {text} | dd of={QUORUM} bs=4096 count=1 oflag=direct conv=notrunc iflag=fullblock 2>&1"
        );
        self.run(node, &["sh", "-c", &script]);
    }

    fn read_block(&self, node: &str) -> String {
        let script = format!("dd if={QUORUM} bs=4096 count=1 iflag=direct 2>/dev/null");
        self.run(node, &["sh", "-c", &script])
    }

    fn clock_offset(&self, node: &str) -> f64 {
        let guest = self.agent(node).time(soon()).unwrap().as_secs_f64();
        guest - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
    }

    fn pids(&self) -> Vec<Option<u32>> {
        let mut all = self.hypervisor.list().unwrap();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter().map(|d| d.pid).collect()
    }

    fn down(&self) {
        let names: Vec<String> = self.hypervisor.list().unwrap().into_iter().map(|d| d.name).collect();
        std::thread::scope(|s| {
            for n in &names {
                s.spawn(move || self.hypervisor.destroy(n).unwrap());
            }
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for d in self.hypervisor.list().unwrap_or_default() {
            let _ = self.hypervisor.destroy(&d.name);
        }
    }
}

const QUORUM: &str = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_quorum";

/// The fork, in a process of its own: one process can have one root.
#[test]
#[ignore = "run by a_lab_is_one_value in a process of its own"]
fn fork() {
    let Some(dir) = std::env::var_os(FORK) else { return };
    let home = Home::under(Path::new(&dir));
    let fork = Running::open(&home, "bare@1");
    let b = fork.lab.nodes[1].nics[0].address.to_string();
    fork.back(&Store::of(&home, &fork.lab.name), "then");
    assert_eq!(fork.read_block("b"), "then");
    fork.reach("a", &b);
    fork.write_block("a", "fork");
    fork.run("a", &["sh", "-c", "echo fork > /root/who"]);
    assert!((fork.clock_offset("b") + 3600.0).abs() < 5.0);
    std::fs::write(home.state.join("fork-is-up"), "").unwrap();
    wait_until("be told to end", soon(), || {
        Ok(if home.state.join("fork-shall-end").exists() {
            Probe::Ready(())
        } else {
            Probe::NotYet("not told".into())
        })
    })
    .unwrap();
    assert_eq!(fork.read_block("c"), "fork");
    fork.down();
}

#[test]
#[ignore = "boots machines; needs FAILOVERLAB_TEST_IMAGE"]
fn a_lab_is_one_value() {
    let dir = tempfile::Builder::new().prefix("flc").tempdir_in("/tmp").unwrap();
    let home = Home::under(dir.path());
    let w = Running::open(&home, "bare");
    let store = Store::of(&home, &w.lab.name);
    w.boot();
    let b = w.lab.nodes[1].nics[0].address.to_string();
    w.reach("a", &b);
    w.run("a", &["udevadm", "trigger", "--settle", "--subsystem-match=block"]);
    w.run("b", &["udevadm", "trigger", "--settle", "--subsystem-match=block"]);
    w.run("c", &["udevadm", "trigger", "--settle", "--subsystem-match=block"]);
    w.write_block("a", "then");
    w.run("a", &["sh", "-c", "echo then > /root/who"]);
    w.run("b", &["date", "-s", "-1 hour"]);
    let pids = w.pids();

    let about = |name: &str| About {
        name: name.parse().unwrap(),
        layer: None,
        tool: "test".into(),
        record: record(&w.lab),
        active_faults: ActiveFaults::default(),
    };
    let c = timed("checkpoint", || create(&w.live(), &store, about("then"))).unwrap();
    eprintln!("pause {} us, skew {} us", c.meta.pause_us, c.meta.skew_us);
    for n in &c.meta.nodes {
        eprintln!("{n:?}");
    }
    for p in &c.meta.parts {
        eprintln!("{:>10} {}", p.bytes, p.path);
    }
    assert_eq!(w.pids(), pids);
    let offset = |i: usize| c.meta.nodes[i].clock_offset_us.unwrap() as f64 / 1e6;
    assert!((offset(1) + 3600.0).abs() < 5.0);
    w.reach("a", &b);

    // The lab goes on and changes.
    w.write_block("b", "now");
    w.run("a", &["sh", "-c", "echo now > /root/who; sync"]);
    w.run("b", &["date", "-s", "+2 hours"]);
    assert_eq!(w.read_block("a"), "now");

    // Back, in place.
    timed("end three machines", || w.down());
    let back = w.back(&store, "then");
    assert!(back.nodes.iter().all(|n| n.clock_error_us.unwrap().abs() < 500_000));
    for node in ["a", "b", "c"] {
        assert_eq!(w.read_block(node), "then", "{node}");
    }
    assert_eq!(w.run("a", &["cat", "/root/who"]), "then");
    assert!((w.clock_offset("b") - offset(1)).abs() < 0.5);
    assert!((w.clock_offset("a") - offset(0)).abs() < 0.5);
    w.reach("a", &b);
    w.run("a", &["sh", "-c", "echo changed > /root/who; sync"]);

    // A fork beside it: same names and addresses, nothing in common.
    let mut fork = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "fork", "--nocapture"])
        .env(FORK, dir.path())
        .envs(log_environment(&home.state.join("fork.log")))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("see the fork up", soon(), || {
        assert_eq!(fork.try_wait().unwrap(), None, "the fork ended");
        Ok(if home.state.join("fork-is-up").exists() {
            Probe::Ready(())
        } else {
            Probe::NotYet("not up".into())
        })
    })
    .unwrap();
    assert_eq!(w.read_block("c"), "then");
    assert_eq!(w.run("a", &["cat", "/root/who"]), "changed");
    w.reach("a", &b);
    assert!(w.fabric.counters().ports.iter().all(|p| p.foreign == 0));
    std::fs::write(home.state.join("fork-shall-end"), "").unwrap();
    assert!(fork.wait().unwrap().success());
    w.down();
}
