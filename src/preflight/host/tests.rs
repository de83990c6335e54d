//! Every check with a host on which it fires and one on which it is quiet.

use super::facts::{DRIVER, DRIVER_DIRS, IOHELPERS, os_field, subordinate_ids};
use super::*;
use std::collections::BTreeMap;
use std::path::Path;

/// A user on Debian 12 with everything.
fn good() -> Facts {
    Facts {
        os: "Debian GNU/Linux 12 (bookworm)".into(),
        machine: "x86_64".into(),
        uid: 1000,
        user: "ann".into(),
        programs: PROGRAMS
            .iter()
            .map(|(p, _)| ((*p).to_owned(), format!("{p} 1.0")))
            .collect(),
        driver: Some(Path::new(DRIVER_DIRS[0]).join(DRIVER)),
        iohelper: Some(IOHELPERS[0].into()),
        account: true,
        subuids: 65_536,
        subgids: 65_536,
        sysctls: BTreeMap::from([
            ("user.max_user_namespaces".into(), "96365".into()),
            (QUEUE.into(), "512".into()),
        ]),
        namespaces: Ok(()),
        keyring: ("/usr/share/keyrings/debian-archive-keyring.gpg".into(), true),
        rustc: Some("rustc 1.95.0 (59807616e 2026-04-14)".into()),
        memory: 8 << 30,
        disks: vec![("/home/ann/.cache/failoverlab".into(), 50 << 30)],
        kvm: Ok(()),
        kvm_boot: Some(Boot::Booted {
            wall_ms: 700,
            cpu_ms: 650,
        }),
        socket_paths: Ok(()),
        memory_group: None,
        folders: Ok(()),
        damaged: BTreeMap::new(),
    }
}

fn found(facts: &Facts, id: &str) -> Check {
    evaluate(facts).checks.into_iter().find(|c| c.id == id).unwrap()
}

#[test]
fn a_good_host_is_ready() {
    let report = evaluate(&good());
    assert!(
        report.ready && report.checks.iter().all(|c| c.state == State::Ok),
        "{report}"
    );
    assert!(report.to_string().ends_with("This host is ready.\n"));
}

#[test]
fn a_fresh_ubuntu_24_04_hears_of_each_obstacle() {
    let mut facts = good();
    facts.os = "Ubuntu 24.04.3 LTS".into();
    facts.programs = BTreeMap::from([
        ("mke2fs".into(), "mke2fs 1.47.0".into()),
        ("unshare".into(), "unshare from util-linux 2.39.3".into()),
        ("setpriv".into(), "setpriv from util-linux 2.39.3".into()),
    ]);
    facts.driver = None;
    facts
        .sysctls
        .insert("kernel.apparmor_restrict_unprivileged_userns".into(), "1".into());
    facts.namespaces = Err("unshare: write failed /proc/self/uid_map: Operation not permitted".into());
    facts.keyring.1 = false;
    facts.rustc = Some("rustc 1.75.0 (82e1608df 2023-12-21)".into());
    facts.kvm = Err(NoKvm::Denied("Permission denied (os error 13)".into()));
    facts.kvm_boot = None;
    insta::assert_snapshot!(evaluate(&facts).to_string());
    assert!(!evaluate(&facts).ready);
}

type Spoil = fn(&mut Facts);

/// What is spoilt, how its check comes out, and a part of the remedy.
const LACKS: [(&str, State, &str, Spoil); 24] = [
    ("processor", State::Missing, "x86-64", |f| f.machine = "aarch64".into()),
    ("qemu", State::Missing, "install qemu-system-x86", |f| {
        drop(f.programs.remove("qemu-system-x86_64"))
    }),
    ("qemu-img", State::Missing, "install qemu-utils", |f| {
        drop(f.programs.remove("qemu-img"))
    }),
    (
        "libvirt-driver",
        State::Missing,
        "libvirt-daemon libvirt-daemon-driver-qemu",
        |f| f.driver = None,
    ),
    ("libvirt-driver", State::Missing, "install libvirt-daemon", |f| {
        f.iohelper = None
    }),
    ("mmdebstrap", State::Missing, "install mmdebstrap", |f| {
        drop(f.programs.remove("mmdebstrap"))
    }),
    ("image-tools", State::Missing, "install e2fsprogs", |f| {
        drop(f.programs.remove("mke2fs"))
    }),
    ("id-ranges", State::Missing, "install uidmap", |f| {
        drop(f.programs.remove("newgidmap"))
    }),
    ("id-ranges", State::Missing, "sudo usermod --add-subuids", |f| {
        f.subgids = 1000
    }),
    ("user-namespaces", State::Missing, "unprivileged_userns_clone=1", |f| {
        f.namespaces = Err("unshare failed: Operation not permitted".into());
        f.sysctls.insert("kernel.unprivileged_userns_clone".into(), "0".into());
    }),
    ("user-namespaces", State::Missing, "max_user_namespaces=65536", |f| {
        f.namespaces = Err("unshare failed: No space left on device".into());
        f.sysctls.insert("user.max_user_namespaces".into(), "0".into());
    }),
    ("user-namespaces", State::Missing, "container", |f| {
        f.namespaces = Err("mount failed".into())
    }),
    ("debian-keyring", State::Missing, "debian-archive-keyring", |f| {
        f.keyring.1 = false
    }),
    ("kvm", State::Warning, "firmware", |f| f.kvm = Err(NoKvm::Missing)),
    ("kvm", State::Warning, "tries again", |f| {
        f.kvm_boot = Some(Boot::Failed {
            observed: "it hung".into(),
        })
    }),
    ("memory", State::Warning, "close programs", |f| f.memory = 2 << 30),
    ("memory", State::Missing, "close programs", |f| f.memory = 1 << 30),
    ("memory", State::Missing, "raise that group's memory limit", |f| {
        (f.memory, f.memory_group) = (300 << 20, Some("/sys/fs/cgroup/a".into()))
    }),
    ("folders", State::Missing, "run failoverlab as ann", |f| {
        f.folders = Err(("it belongs to ann".into(), "run failoverlab as ann".into()))
    }),
    ("labs", State::Warning, "failoverlab down ccr", |f| {
        f.damaged.insert("ccr".into(), "could not read the lab's record".into());
    }),
    ("disk", State::Missing, "FAILOVERLAB_HOME", |f| {
        f.disks.push(("/s".into(), 1 << 30))
    }),
    (
        "frame-queue",
        State::Warning,
        "sysctl -w net.unix.max_dgram_qlen=512",
        |f| {
            f.sysctls.insert(QUEUE.into(), "10".into());
        },
    ),
    ("frame-queue", State::Warning, "before machines start", |f| {
        f.sysctls.remove(QUEUE);
    }),
    ("rust", State::Warning, "rustup", |f| f.rustc = None),
];

#[test]
fn each_lack_is_found_alone() {
    for (id, state, remedy, spoil) in LACKS {
        let mut facts = good();
        spoil(&mut facts);
        let report = evaluate(&facts);
        let bad: Vec<_> = report.checks.iter().filter(|c| c.state != State::Ok).collect();
        assert_eq!(bad.len(), 1, "{report}");
        assert_eq!((bad[0].id.as_str(), bad[0].state), (id, state), "{report}");
        assert!(bad[0].remedy.as_deref().unwrap().contains(remedy), "{report}");
        assert_eq!(report.ready, state != State::Missing);
    }
}

#[test]
fn root_needs_no_ids_and_no_sudo() {
    let mut facts = good();
    (facts.uid, facts.subuids, facts.subgids) = (0, 0, 0);
    facts.programs.remove("newuidmap");
    assert!(evaluate(&facts).ready);
    facts.programs.remove("qemu-img");
    assert_eq!(
        found(&facts, "qemu-img").remedy.as_deref(),
        Some("apt-get install qemu-utils")
    );
}

#[test]
fn root_needs_the_account_that_libvirt_looks_up() {
    let mut facts = good();
    facts.account = false;
    assert!(evaluate(&facts).ready, "a user does not");
    facts.uid = 0;
    let check = found(&facts, "libvirt-account");
    assert_eq!(check.state, State::Missing);
    assert!(!evaluate(&facts).ready);
    let bootstrap = include_str!("../../../scripts/bootstrap");
    assert!(bootstrap.contains(&check.remedy.unwrap()), "bootstrap does the same");
    facts.driver = Some(Path::new(DRIVER_DIRS[1]).join(DRIVER));
    assert_eq!(found(&facts, "libvirt-account").state, State::Ok);
    facts.driver = good().driver;
    facts.account = true;
    assert_eq!(found(&facts, "libvirt-account").state, State::Ok);
}

#[test]
fn a_kvm_that_no_guest_boots_with_is_named() {
    let mut facts = good();
    facts.kvm_boot = Some(Boot::Failed {
        observed: "it hung for 4s".into(),
    });
    assert!(
        found(&facts, "kvm")
            .observed
            .starts_with("/dev/kvm opens but no guest booted (it hung for 4s)")
    );
}

#[test]
fn the_hosts_files_are_read_whatever_is_in_them() {
    assert_eq!(
        subordinate_ids("bob:1:5\nann:100000:65536\n1000:7:10\nann:x\n:::\n", "ann", 1000),
        65_546
    );
    assert_eq!(
        subordinate_ids("ann:1:99999999999999999999\nann:1:-5\n", "ann", 1000),
        0
    );
    assert_eq!(
        os_field("NAME=x\nID=debian\nPRETTY_NAME=\"Debian 12\"", "ID").as_deref(),
        Some("debian")
    );
    assert_eq!(version("rustc 1.95.0-nightly (x)"), Some((1, 95)));
    assert_eq!(version("garbage"), None);
    assert!(version("rustc 1.100.1") > version("1.95"));
}

#[test]
fn this_host_is_judged_without_a_lab() {
    let dir = tempfile::tempdir().unwrap();
    let report = doctor(&Ok(Home::under(dir.path())), BTreeMap::new());
    assert_eq!(report.checks.len(), 18);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn a_folder_that_cannot_be_used_is_a_check_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::under(dir.path());
    std::fs::write(&home.state, "").unwrap();
    let report = doctor(&Ok(home), BTreeMap::new());
    let check = report.checks.iter().find(|c| c.id == "folders").unwrap();
    assert!(!report.ready && check.observed.contains("it is no folder"), "{report}");
    let none = Err(crate::error::Error::Host(
        crate::error::Problem::new("find the home folder").remedy("set HOME"),
    ));
    let report = doctor(&none, BTreeMap::new());
    let check = report.checks.iter().find(|c| c.id == "folders").unwrap();
    assert_eq!(
        (check.state, check.remedy.as_deref()),
        (State::Missing, Some("set HOME"))
    );
}
