//! The pack `ccr` in real machines: bare QEMUs, without libvirt, one node at a time.
//!
//! Boots the image that `tests/common` finds; `FAILOVERLAB_TEST_CCRD` names a static ccrd. The share is tried with smbclient.

mod common;
mod machine;

use common::timed;
use failoverlab::deploy::{self, Artifacts, Pack};
use failoverlab::guest::{Remote, wait_ready};
use failoverlab::spec::{Lab, Network};
use machine::{Machine, run, within};
use std::collections::BTreeMap;

fn artifacts(machine: &Machine) -> Artifacts {
    let ccrd = std::env::var_os("FAILOVERLAB_TEST_CCRD").expect("FAILOVERLAB_TEST_CCRD names a static ccrd");
    Artifacts {
        programs: BTreeMap::from([("ccrd".to_owned(), ccrd.into())]),
        secrets: machine.files.keys(),
    }
}

fn deploy_to(remote: &mut dyn Remote, lab: &Lab, machine: &Machine) -> deploy::DeployReport {
    let pack = Pack::load("ccr").unwrap();
    let node = lab.node(&machine.target.node).unwrap();
    let mut say = |text: &str| {
        eprintln!("{text}");
        Ok(())
    };
    let artifacts = artifacts(machine);
    let report = timed("deploy", || {
        deploy::deploy(remote, lab, node, Some(&pack), &artifacts, within(180), &mut say)
    })
    .unwrap();
    eprintln!("{report:?}");
    report
}

/// What smbclient says to `command` on the share, and whether it was content. The password goes through a file.
fn smbclient(machine: &Machine, command: &str) -> (bool, String) {
    let secret = std::fs::read_to_string(machine.files.secret("witness")).unwrap();
    let login = machine.files.keys().join("login");
    std::fs::write(&login, format!("username = witness\npassword = {secret}\n")).unwrap();
    let out = std::process::Command::new("smbclient")
        .args(["//127.0.0.1/witness", "-t", "10", "-m", "SMB3", "-p"])
        .arg(machine.ports[0].1.to_string())
        .arg("-A")
        .arg(&login)
        .args(["-c", command])
        .output()
        .unwrap();
    (
        out.status.success(),
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned(),
    )
}

#[test]
#[ignore = "boots a machine"]
fn the_hub_serves_the_witness_share_to_the_lab_only() {
    let mut lab = machine::lab();
    let mut machine = Machine::boot_with_ports(&lab, "hub", &[445]);
    let (mut ssh, _) = wait_ready(&machine.target, within(300), &mut |_| Ok(())).unwrap();
    assert!(deploy_to(&mut ssh, &lab, &machine).changed);
    eprintln!(
        "{}",
        run(
            &mut ssh,
            &[
                "systemctl",
                "status",
                "--no-pager",
                "witness-share.service",
                "ccrd.service"
            ]
        )
    );
    assert!(!deploy_to(&mut ssh, &lab, &machine).changed);
    assert_eq!(run(&mut ssh, &["stat", "-c", "%a %U", "/srv/witness"]), "700 witness\n");
    assert!(!run(&mut ssh, &["ls", "/run"]).contains("witness-password"));

    // The workstation's way in is no network of the lab: its address is not let in.
    let (content, said) = smbclient(&machine, "ls");
    assert!(!content, "{said}");
    // Now it is one: the lab has changed, so it is deployed again.
    let mut way_in: Network = lab.networks[0].clone();
    way_in.name = "way-in".parse().unwrap();
    way_in.subnet = "10.0.2.0/24".parse().unwrap();
    lab.networks.push(way_in);
    assert!(deploy_to(&mut ssh, &lab, &machine).changed);
    let (content, said) = smbclient(&machine, "put /etc/hostname witness.txt; ls");
    assert!(content && said.contains("witness.txt"), "{said}");
    assert_eq!(
        run(&mut ssh, &["stat", "-c", "%a %U", "/srv/witness/witness.txt"]),
        "600 witness\n"
    );
    let anonymous = std::process::Command::new("smbclient")
        .args(["//127.0.0.1/witness", "-N", "-t", "10", "-m", "SMB3", "-c", "ls", "-p"])
        .arg(machine.ports[0].1.to_string())
        .output()
        .unwrap();
    assert!(
        !anonymous.status.success(),
        "{}",
        String::from_utf8_lossy(&anonymous.stdout)
    );

    let pack = Pack::load("ccr").unwrap();
    let node = lab.node("hub").unwrap();
    let status = deploy::status(&mut ssh, &pack, &lab, node, within(30)).unwrap();
    assert_eq!(status.node, "hub");
    assert!(status.hub.is_some() && status.cluster.is_none(), "{status:?}");
    assert_eq!(
        deploy::dump(&mut ssh, &pack, &lab, node, within(30)).unwrap().node,
        "hub"
    );

    // A client that does not ask for it is not written through; the runtime does.
    run(&mut ssh, &["sync"]);
    machine.power_cycle();
    let (mut ssh, ready) = wait_ready(&machine.target, within(300), &mut |_| Ok(())).unwrap();
    eprintln!("{ready:?}");
    assert_eq!(ready.failed, Vec::<String>::new());
    assert!(!deploy_to(&mut ssh, &lab, &machine).changed);
    let (content, said) = smbclient(&machine, "get witness.txt /dev/null");
    assert!(content, "{said}");
}

#[test]
#[ignore = "boots a machine"]
fn a_member_keeps_its_data_on_its_own_disk() {
    let lab = machine::lab();
    let mut machine = Machine::boot(&lab, "node1");
    let (mut ssh, _) = wait_ready(&machine.target, within(300), &mut |_| Ok(())).unwrap();
    deploy_to(&mut ssh, &lab, &machine);
    let mounted = run(&mut ssh, &["findmnt", "-no", "FSTYPE,OPTIONS", "/data"]);
    assert!(mounted.starts_with("ext4") && mounted.contains("noatime"), "{mounted}");
    assert_eq!(
        run(&mut ssh, &["stat", "-c", "%a", "/etc/ccrd/witness-password"]),
        "600\n"
    );
    run(&mut ssh, &["touch", "/data/kept"]);
    run(&mut ssh, &["sync"]);

    let pack = Pack::load("ccr").unwrap();
    let node = lab.node("node1").unwrap();
    let status = deploy::status(&mut ssh, &pack, &lab, node, within(30)).unwrap();
    eprintln!("{status:?}");
    assert_eq!((status.node.as_str(), status.schema), ("node1", 1));
    let mut first = None;
    deploy::follow_events(&mut ssh, &pack, &mut |event| {
        first = Some(event);
        false
    })
    .unwrap();
    assert!(first.is_some());
    // A killed daemon comes back by itself.
    let pid = |ssh: &mut dyn Remote| run(ssh, &["systemctl", "show", "-P", "MainPID", "ccrd.service"]);
    let before = pid(&mut ssh);
    run(&mut ssh, &["kill", "-KILL", before.trim()]);
    failoverlab::wait::wait_until("see the daemon again", within(30), || {
        let now = pid(&mut ssh);
        Ok(if now != before && now != "0\n" {
            failoverlab::wait::Probe::Ready(())
        } else {
            failoverlab::wait::Probe::NotYet(now)
        })
    })
    .unwrap();

    machine.power_cycle();
    let (mut ssh, ready) = timed("again", || wait_ready(&machine.target, within(300), &mut |_| Ok(()))).unwrap();
    eprintln!("{ready:?}");
    assert_eq!(ready.failed, Vec::<String>::new());
    assert!(!deploy_to(&mut ssh, &lab, &machine).changed);
    assert_eq!(run(&mut ssh, &["ls", "/data/kept"]), "/data/kept\n");
    assert_eq!(run(&mut ssh, &["systemctl", "is-active", "ccrd.service"]), "active\n");
}
