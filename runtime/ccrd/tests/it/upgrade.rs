//! Files that one version of ccrd wrote and another one finds: nothing is lost, or it is refused with a reason.

use crate::cluster::{Cluster, NODES};
use crate::files::{self, KINDS, Kind};
use crate::samba::Samba;
use ccr_contract::status::{Copy, CopyStatus};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Small logs, so that there are many; times in the lab's proportions.
const SETTINGS: &str = "heartbeat_ms = 300
lease_ms = 1200
arbitration_delay_ms = 500
idle_roll_ms = 500
generation_bytes = 16384
resilience_depth = 2
";
const LATER: Duration = Duration::from_secs(120);
const NEWER: &str = "written by a newer ccrd";

fn message(key: &str) -> String {
    format!("Message-ID: <{key}>\r\nSubject: test\r\n\r\n{}\r\n", "x".repeat(200))
}

/// The keys of the messages in ann's mailbox; each is there once.
fn keys(cluster: &Cluster) -> Option<BTreeSet<String>> {
    let (_, messages) = cluster.read("ann", false).ok()?;
    let key = |m: &String| Some(m.split_once("Message-ID: <")?.1.split_once('>')?.0.to_owned());
    let keys: BTreeSet<String> = messages.iter().filter_map(key).collect();
    assert_eq!(keys.len(), messages.len(), "some are there twice");
    Some(keys)
}

fn submit(cluster: &Cluster, from: usize, to: usize) -> BTreeSet<String> {
    let keys = (from..to).map(|n| format!("k{n}@test"));
    keys.inspect(|key| {
        let answer = cluster.submit(&["ann@lab"], &message(key));
        assert!(answer.is_ok(), "{answer:?}\n{}", cluster.report());
    })
    .collect()
}

/// The service is online, both copies are healthy, and exactly `expected` is there.
fn well(cluster: &Cluster, when: &str, expected: &BTreeSet<String>) {
    cluster.until(&format!("all is well {when}"), LATER, |c| {
        let active = c.active()?;
        let passive = if active == "node1" { "node2" } else { "node1" };
        let whole = |c: &Copy| c.node == passive && c.status == CopyStatus::Healthy && c.copy_queue == 0;
        let healthy = c.status(passive)?.copies.iter().any(whole);
        let hub = c.status("hub")?.hub?;
        let there = c.stored("ann")? >= expected.len() as u64;
        (healthy && hub.queued == 0 && there).then_some(())
    });
    let found = keys(cluster).expect("ann's mail");
    let missing: Vec<&String> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "{when}: missing {missing:?}\n{}", cluster.report());
    assert_eq!(&found, expected, "{when}");
}

/// Waits until the witness file says something.
fn voted(cluster: &Cluster) {
    cluster.until("the witness has voted", LATER, |c| {
        let said = std::fs::read(c.samba.files().join(ccrd::witness::FILE)).ok()?;
        (said.first()? != &0).then_some(())
    });
}

fn off(cluster: &mut Cluster) {
    NODES.iter().for_each(|n| cluster.kill(n));
}

fn on(cluster: &mut Cluster) {
    NODES.iter().for_each(|n| cluster.power_on(n));
}

/// Members and hub are off; so many more messages have their 250 and wait in the queue.
fn off_with_a_queue(cluster: &mut Cluster, from: usize, to: usize) -> BTreeSet<String> {
    cluster.kill("node1");
    cluster.kill("node2");
    let queued = submit(cluster, from, to);
    cluster.kill("hub");
    queued
}

/// A thousand messages, and the whole cluster goes to another version: to one that knows a field less, and from one that knew no schema.
#[test]
fn a_thousand_messages_survive_an_upgrade_and_a_downgrade() {
    let Some(samba) = Samba::start() else { return };
    let mut cluster = Cluster::with(samba, SETTINGS);
    cluster.until("the service is online", LATER, Cluster::active);
    let mut expected = submit(&cluster, 0, 980);
    well(&cluster, "before", &expected);
    for (round, (when, change)) in [
        (
            "after a downgrade by a field",
            files::newer_by_a_field as fn(Kind, &mut serde_json::Value),
        ),
        ("after an upgrade from no schema", files::older),
    ]
    .into_iter()
    .enumerate()
    {
        let from = 980 + 10 * round;
        expected.extend(off_with_a_queue(&mut cluster, from, from + 10));
        for (kind, file) in files::small(&cluster) {
            files::rewrite(kind, &file, change);
        }
        on(&mut cluster);
        well(&cluster, when, &expected);
    }
    assert_eq!(expected.len(), 1000);
}

/// Each kind of file, of a newer schema, on every node that has one: it is told, it is left as it is, and nothing else goes with it. As
/// soon as it can be understood again, all is there.
#[test]
fn a_file_of_a_newer_schema_is_refused_with_a_reason_and_left_alone() {
    let Some(samba) = Samba::start() else { return };
    let mut cluster = Cluster::with(samba, SETTINGS);
    cluster.until("the service is online", LATER, Cluster::active);
    let mut expected = submit(&cluster, 0, 20);
    well(&cluster, "before", &expected);
    // The witness votes once, so that its file says something.
    cluster.kill("node2");
    voted(&cluster);
    cluster.power_on("node2");
    well(&cluster, "with both", &expected);
    for (round, kind) in KINDS.into_iter().enumerate() {
        let from = 20 + 2 * round;
        expected.extend(off_with_a_queue(&mut cluster, from, from + 2));
        let hit: Vec<PathBuf> = files::small(&cluster)
            .into_iter()
            .filter(|f| f.0 == kind)
            .map(|f| f.1)
            .collect();
        assert!(!hit.is_empty(), "no file of the kind {kind:?}");
        let before: Vec<Vec<u8>> = hit.iter().map(|f| std::fs::read(f).expect("the file")).collect();
        hit.iter()
            .for_each(|f| files::rewrite(kind, f, files::newer_by_a_schema));
        let newer: Vec<Vec<u8>> = hit.iter().map(|f| std::fs::read(f).expect("the file")).collect();
        let logs = cluster.logs();
        // One member alone needs the witness; what is wrong with it is told by that one.
        let nodes: &[&str] = if kind == Kind::Witness {
            &["node1", "hub"]
        } else {
            &NODES
        };
        nodes.iter().for_each(|n| cluster.power_on(n));
        let teller = if matches!(kind, Kind::HubState | Kind::Queue) {
            "hub"
        } else {
            "node1"
        };
        cluster.until(&format!("{kind:?} is told"), LATER, |c| {
            let all = [c.log(teller)[logs[teller]..].to_owned(), words(c, teller)].concat();
            all.contains(NEWER).then_some(())
        });
        if kind != Kind::Queue {
            assert_eq!(
                cluster.stored("ann"),
                None,
                "{kind:?}: it is served\n{}",
                cluster.report()
            );
        }
        for node in nodes {
            cluster.kill(node);
        }
        for ((file, newer), before) in hit.iter().zip(newer).zip(before) {
            let found = [file.clone(), file.with_extension("bad")].into_iter().chain(bad(file));
            let found = found.into_iter().find(|f| std::fs::read(f).is_ok_and(|b| b == newer));
            let found = found.unwrap_or_else(|| panic!("{kind:?}: {} was touched", file.display()));
            std::fs::write(found, before).expect("the file");
        }
        on(&mut cluster);
        well(&cluster, &format!("after {kind:?}"), &expected);
    }
}

/// `NAME.bad` beside a file.
fn bad(file: &Path) -> Option<PathBuf> {
    Some(file.with_file_name(format!("{}.bad", file.file_name()?.to_str()?)))
}

/// All that an operator is told by a daemon that runs.
fn words(cluster: &Cluster, node: &str) -> String {
    ["status", "events"]
        .map(|w| cluster.ctl(node, &[w]).unwrap_or_default())
        .concat()
}

/// Where files of a version are kept: a folder for each node, one for the share, and what ann has in `expected`.
fn kept(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(version)
}

/// What each version wrote is read by this one: a cluster switched off in the middle of its work, with messages in the hub's queue.
fn are_read(version: &str) {
    let Some(samba) = Samba::start() else { return };
    let mut cluster = Cluster::off(samba, SETTINGS);
    let from = kept(version);
    let expected = std::fs::read_to_string(from.join("expected")).expect("what ann has");
    let expected: BTreeSet<String> = expected.lines().map(str::to_owned).collect();
    for node in NODES {
        files::copy(&from.join(node), &cluster.data(node));
    }
    files::copy(&from.join("witness"), &cluster.samba.files());
    let kinds = files::small(&cluster);
    assert!(KINDS.iter().all(|k| kinds.iter().any(|f| f.0 == *k)), "{kinds:?}");
    on(&mut cluster);
    well(&cluster, &format!("with the files of {version}"), &expected);
}

#[test]
fn files_of_the_first_version_are_read() {
    are_read("first");
}

#[test]
fn files_of_this_version_are_read() {
    are_read("this");
}

/// Writes the files of a version anew: `CCRD_FILES=this` with this build, another name with the daemon that `CCRD_OLDER` names.
#[test]
#[ignore = "writes tests/files"]
fn files_are_written_anew() {
    let Ok(version) = std::env::var("CCRD_FILES") else {
        return eprintln!("skipped: CCRD_FILES names no version");
    };
    let samba = Samba::start().expect("a Samba");
    let mut cluster = Cluster::off(samba, SETTINGS);
    if let Some(older) = older() {
        cluster.program = older;
    }
    on(&mut cluster);
    cluster.until("the service is online", LATER, Cluster::active);
    let mut expected = BTreeSet::new();
    for batch in 0..4 {
        expected.extend(submit(&cluster, batch * 2, batch * 2 + 2));
        well(&cluster, "at first", &expected);
        let logs = batch as u64 + 1;
        cluster.until("a log is closed and replayed", LATER, |c| {
            let copies = NODES[..2].iter().filter_map(|n| c.status(n)).flat_map(|s| s.copies);
            copies.into_iter().any(|c| c.replayed >= logs).then_some(())
        });
    }
    cluster.kill("node2");
    voted(&cluster);
    cluster.until("node1 serves", LATER, |c| c.active().filter(|n| *n == "node1"));
    expected.extend(submit(&cluster, 8, 12));
    cluster.until("they are delivered", LATER, |c| (c.stored("ann")? == 12).then_some(()));
    cluster.power_on("node2");
    well(&cluster, "with both", &expected);
    expected.extend(off_with_a_queue(&mut cluster, 12, 14));
    let to = kept(&version);
    let _ = std::fs::remove_dir_all(&to);
    for node in NODES {
        files::copy(&cluster.data(node), &to.join(node));
    }
    std::fs::create_dir_all(to.join("witness")).expect("a folder");
    let witness = cluster.samba.files().join(ccrd::witness::FILE);
    std::fs::copy(witness, to.join("witness").join(ccrd::witness::FILE)).expect("the witness file");
    let lines: Vec<String> = expected.into_iter().map(|k| k + "\n").collect();
    std::fs::write(to.join("expected"), lines.concat()).expect("what ann has");
}

/// The daemon of an older version, where one is named.
fn older() -> Option<PathBuf> {
    std::env::var_os("CCRD_OLDER").map(PathBuf::from)
}

/// The real older daemon: a thousand messages, an upgrade of one node after the other, and a downgrade, which is refused with a reason.
#[test]
#[ignore = "needs CCRD_OLDER, a daemon built from an older commit: make soak"]
fn soak_upgrade_of_a_real_older_daemon() {
    let Some(older) = older() else {
        return eprintln!("skipped: CCRD_OLDER names no daemon");
    };
    let Some(samba) = Samba::start() else { return };
    let mut cluster = Cluster::off(samba, SETTINGS);
    let this = std::mem::replace(&mut cluster.program, older.clone());
    on(&mut cluster);
    cluster.until("the service is online", LATER, Cluster::active);
    let mut expected = submit(&cluster, 0, 990);
    well(&cluster, "with the older one", &expected);
    // One after the other, as an operator would: the passive member first.
    cluster.program = this;
    let first = cluster.active().expect("the active member");
    let second = if first == "node1" { "node2" } else { "node1" };
    for node in [second, first, "hub"] {
        cluster.kill(node);
        cluster.power_on(node);
        well(&cluster, &format!("after the upgrade of {node}"), &expected);
    }
    // And back, all at once.
    expected.extend(off_with_a_queue(&mut cluster, 990, 1000));
    let before = files::small(&cluster).len();
    let logs = cluster.logs();
    cluster.program = older;
    on(&mut cluster);
    for node in ["node1", "node2"] {
        crate::wait::until(LATER, || cluster.has_ended(node).then_some(())).unwrap_or_else(|| panic!("{node} goes on"));
        let said = cluster.log(node)[logs[node]..].to_owned();
        assert!(said.contains("cluster.json"), "{node}: {said}");
    }
    off(&mut cluster);
    assert_eq!(files::small(&cluster).len(), before, "none is gone");
    cluster.program = env!("CARGO_BIN_EXE_ccrd").into();
    on(&mut cluster);
    well(&cluster, "after a downgrade that was refused", &expected);
}
