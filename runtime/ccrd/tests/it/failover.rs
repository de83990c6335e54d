//! Two members, a hub and a witness on loopback: forms, takes mail, moves, and survives the death of the active node.

use crate::cluster::{Cluster, NODES};
use crate::samba::Samba;
use ccr_contract::status::{CopyStatus, WitnessHealth};
use ccr_core::rng::Rng;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shorter than the lab's, in the same proportions.
pub const SETTINGS: &str = "heartbeat_ms = 300
lease_ms = 1200
arbitration_delay_ms = 500
idle_roll_ms = 1000
";
pub const SOON: Duration = Duration::from_secs(60);

fn message(key: &str, size: usize) -> String {
    format!("Message-ID: <{key}>\r\nSubject: test\r\n\r\n.{}\r\n", "x".repeat(size))
}

/// The keys of the messages in a mailbox, sorted.
fn keys(cluster: &Cluster, mailbox: &str) -> Option<Vec<String>> {
    let (_, messages) = cluster.read(mailbox, false).ok()?;
    let mut keys: Vec<String> = messages
        .iter()
        .filter_map(|m| Some(m.split_once("Message-ID: <")?.1.split_once('>')?.0.to_owned()))
        .collect();
    keys.sort();
    Some(keys)
}

/// Whether the copy on `node` is healthy, by its own word.
pub fn healthy(cluster: &Cluster, node: &str) -> Option<()> {
    let mine = |c: &ccr_contract::status::Copy| c.node == node && c.status == CopyStatus::Healthy;
    cluster.status(node)?.copies.iter().any(mine).then_some(())
}

pub fn other(node: &str) -> &'static str {
    if node == "node1" { "node2" } else { "node1" }
}

#[test]
fn mail_survives_a_move_and_the_death_of_the_active_node() {
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let first = cluster.until("the service is online", SOON, Cluster::active);
    let began = Instant::now();

    // In by the hub, out by POP3.
    let mut expected = Vec::new();
    for n in 0..5 {
        let key = format!("k{n}@test");
        let answer = cluster
            .submit(&["ann@lab", "bob@lab"], &message(&key, 1000))
            .expect("accepted");
        assert!(answer.starts_with("250"), "{answer}");
        expected.push(key);
    }
    cluster.until("ann has her mail", SOON, |c| {
        (keys(c, "ann")? == expected).then_some(())
    });
    cluster.until("bob has his mail", SOON, |c| {
        (keys(c, "bob")? == expected).then_some(())
    });
    eprintln!("delivered after {:?}", began.elapsed());

    // Straight to the store: its answer says who took it.
    let answers = cluster
        .deliver(&["ann@lab"], &message("k5@test", 100))
        .expect("delivered");
    assert!(answers[0].contains(&format!("node={first} ")), "{answers:?}");
    expected.push("k5@test".into());

    // The longest message that the hub announces is one that the store takes.
    let head = message("k6@test", 0);
    let most = cluster.announced_size().expect("a size");
    let long = message("k6@test", most - head.len());
    assert_eq!(long.len(), most);
    cluster.submit(&["ann@lab"], &long).expect("accepted");
    expected.push("k6@test".into());
    cluster.until("ann has the longest message", SOON, |c| {
        (keys(c, "ann")? == expected).then_some(())
    });

    // A planned move loses nothing.
    cluster.until("the copy is healthy", SOON, |c| healthy(c, other(first)));
    let moved = cluster.ctl(first, &["move", "--to", other(first), "--comment", "test"]);
    assert!(moved.is_ok(), "{moved:?}\n{}", cluster.report());
    let second = cluster.until("the service is online again", SOON, Cluster::active);
    assert_eq!(second, other(first));
    cluster.until("ann has her mail after the move", SOON, |c| {
        (keys(c, "ann")? == expected).then_some(())
    });

    // An unplanned one loses nothing that the hub accepted.
    cluster.until("the copy is healthy", SOON, |c| healthy(c, first));
    for n in 7..10 {
        let key = format!("k{n}@test");
        cluster.submit(&["ann@lab"], &message(&key, 1000)).expect("accepted");
        expected.push(key);
    }
    cluster.until("ann has all her mail", SOON, |c| {
        (keys(c, "ann")?.len() == expected.len()).then_some(())
    });
    let killed = Instant::now();
    cluster.kill(second);
    let third = cluster.until("the survivor serves", SOON, |c| {
        c.read("ann", false).ok().map(|(by, _)| by.node)
    });
    eprintln!("first store answer {:?} after the kill", killed.elapsed());
    assert_eq!(third, first);
    cluster.until("nothing accepted is missing, nothing is there twice", SOON, |c| {
        (keys(c, "ann")? == expected).then_some(())
    });

    // The dead one comes back as the passive one, and both hold the same.
    cluster.power_on(second);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, second));
    assert_eq!(cluster.active(), Some(first));
    cluster.until("both databases hold the same", SOON, |c| {
        let [a, b] = [first, second].map(|n| c.dump(n).groups[0].database.clone());
        (a == b).then_some(())
    });
    for node in NODES {
        let events = cluster.events(node);
        assert!(events.windows(2).all(|w| w[0].seq < w[1].seq), "{node}");
    }
}

#[test]
fn a_frozen_active_node_never_serves_beside_its_successor() {
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let first = cluster.until("the service is online", SOON, Cluster::active);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, other(first)));
    cluster
        .submit(&["ann@lab"], &message("k1@test", 100))
        .expect("accepted");
    cluster.until("ann has her mail", SOON, |c| {
        (keys(c, "ann")? == ["k1@test"]).then_some(())
    });
    // Its listeners stay: on loopback the successor cannot take the same address before the frozen one lets go.
    cluster.signal(first, Signal::STOP);
    cluster.until("the other one has noticed", SOON, |c| {
        let s = c.status(other(first))?.cluster?;
        s.members
            .iter()
            .any(|m| m.name == first && m.state == ccr_contract::status::MemberState::Down)
            .then_some(())
    });
    cluster.signal(first, Signal::CONT);
    let by = cluster.until("one of them serves", SOON, |c| {
        c.read("ann", false).ok().map(|(by, _)| by.node)
    });
    let active: Vec<&str> = NODES[..2]
        .iter()
        .copied()
        .filter(|n| {
            let service = cluster.status(n).and_then(|s| s.service);
            service.is_some_and(|v| {
                v.state == ccr_contract::status::ServiceState::Online && v.active.as_deref() == Some(*n)
            })
        })
        .collect();
    assert_eq!(active, [by.as_str()], "{}", cluster.report());
}

/// An upgrade: what was acknowledged and lies in the open log is on the other node before the daemon has ended. Straight to the store,
/// so that no hub can deliver it again, and with logs that nothing closes but the end.
#[test]
fn a_daemon_that_is_told_to_end_leaves_nothing_behind() {
    let settings = SETTINGS.replace("idle_roll_ms = 1000", "idle_roll_ms = 600000");
    let Some(mut cluster) = Cluster::start(&settings) else {
        return;
    };
    let first = cluster.until("the service is online", SOON, Cluster::active);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, other(first)));
    let expected: Vec<String> = (0..3).map(|n| format!("k{n}@test")).collect();
    for key in &expected {
        let answers = cluster.deliver(&["ann@lab"], &message(key, 100)).expect("delivered");
        assert!(answers[0].starts_with("250"), "{answers:?}");
    }
    cluster.end(first);
    let told = cluster.log(first);
    assert!(
        told.contains("cluster.ended") && told.contains("\"given\":true"),
        "{told}"
    );
    // Its disk is not there to be asked.
    std::fs::remove_dir_all(cluster.data(first)).expect("its data");
    cluster.until("the other one has everything", SOON, |c| {
        (keys(c, "ann")? == expected).then_some(())
    });
    assert_eq!(cluster.active(), Some(other(first)));
    cluster.end(other(first));
    cluster.end("hub");
}

/// A witness whose disk becomes full is told, on both members; the file has its room, so that the survivor serves all the same.
#[test]
fn a_full_witness_disk_is_told_and_costs_no_failover() {
    let Some(samba) = Samba::start_small() else { return };
    let mut cluster = Cluster::with(samba, &format!("{SETTINGS}witness_check_ms = 500\n"));
    let witness = |c: &Cluster, node: &str| Some(c.status(node)?.cluster?.witness?.health);
    let first = cluster.until("the service is online", SOON, Cluster::active);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, other(first)));
    let both_say = |cluster: &Cluster, health| {
        cluster.until(&format!("{health:?} on both"), SOON, |c| {
            (["node1", "node2"].iter().all(|n| witness(c, n) == Some(health))).then_some(())
        });
    };
    both_say(&cluster, WitnessHealth::Ok);
    cluster.samba.fill();
    both_say(&cluster, WitnessHealth::Failed);
    cluster.kill(first);
    let by = cluster.until("the survivor serves", SOON, |c| {
        c.read("ann", false).ok().map(|(by, _)| by.node)
    });
    assert_eq!(by, other(first));
    cluster.samba.empty();
    cluster.power_on(first);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, first));
    cluster.until("the witness is well", SOON, |c| {
        (witness(c, first)? == WitnessHealth::Ok).then_some(())
    });
}

/// A client that submits until it is told to stop, and remembers what was acknowledged.
pub struct Load {
    over: Arc<AtomicBool>,
    client: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    pub fn start(cluster: &Cluster, size: usize, pause: Duration) -> Self {
        let (submitter, over) = (cluster.submitter(), Arc::new(AtomicBool::new(false)));
        let told = over.clone();
        let client = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("c{n}@test");
                if submitter.submit(&["ann@lab"], &message(&key, size)).is_ok() {
                    acknowledged.push(key);
                }
                // Its rate.
                std::thread::sleep(pause);
            }
            acknowledged
        });
        Self { over, client }
    }

    /// Ends the load; then nothing acknowledged is missing or there twice, and both databases hold the same.
    pub fn judge(self, cluster: &Cluster, least: usize) {
        self.over.store(true, Ordering::Relaxed);
        let acknowledged = self.client.join().expect("the client");
        cluster.until("the hub's queue is empty", SOON, |c| {
            let hub = c.status("hub")?.hub?;
            (hub.queued == 0 && hub.redeliveries == 0).then_some(())
        });
        let stored = cluster.until("the mailbox", SOON, |c| keys(c, "ann"));
        let unique: BTreeSet<&String> = stored.iter().collect();
        let missing: Vec<&String> = acknowledged.iter().filter(|k| !unique.contains(k)).collect();
        eprintln!("{} acknowledged, {} stored", acknowledged.len(), stored.len());
        assert!(acknowledged.len() >= least, "{}", acknowledged.len());
        assert!(missing.is_empty(), "missing: {missing:?}\n{}", cluster.report());
        assert_eq!(unique.len(), stored.len(), "some are there twice\n{}", cluster.report());
        cluster.until("both databases hold the same", SOON, |c| {
            let [a, b] = ["node1", "node2"].map(|n| c.dump(n).groups[0].database.clone());
            (a == b).then_some(())
        });
    }
}

/// Kills the active node again and again while mail comes in.
fn kills(rounds: u32) {
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let mut active = cluster.until("the service is online", SOON, Cluster::active);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, other(active)));
    let load = Load::start(&cluster, 32 << 10, Duration::from_millis(20));
    for round in 0..rounds {
        let before = cluster.stored("ann").unwrap_or(0);
        cluster.until("mail flows", SOON, |c| (c.stored("ann")? > before + 20).then_some(()));
        let killed = Instant::now();
        cluster.kill(active);
        let by = cluster.until("the survivor serves", SOON, |c| {
            c.read("nobody", false).ok().map(|(by, _)| by.node)
        });
        eprintln!(
            "round {round}: {by} serves {:?} after the kill of {active}",
            killed.elapsed()
        );
        assert_eq!(by, other(active));
        cluster.power_on(active);
        cluster.until("the copy is healthy", SOON, |c| healthy(c, active));
        active = other(active);
    }
    load.judge(&cluster, rounds as usize * 20);
}

/// Any fault at any time, one after another, each healed before the next.
fn faults(rounds: u32, seed: u64) {
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let mut dice = Rng::new(seed);
    let mut roll = |sides: u64| dice.range(0, sides);
    let ready = |cluster: &Cluster| {
        let active = cluster.until("the service is online", SOON, Cluster::active);
        cluster.until("the copy is healthy", SOON, |c| healthy(c, other(active)));
        active
    };
    ready(&cluster);
    let load = Load::start(&cluster, 8 << 10, Duration::from_millis(20));
    for round in 0..rounds {
        let active = ready(&cluster);
        // Faults come at any moment, and last.
        std::thread::sleep(Duration::from_millis(roll(2000)));
        let down = Duration::from_millis(roll(4000));
        let what = roll(7);
        eprintln!("round {round}: fault {what} for {down:?}, {active} serves");
        let killed: Vec<&str> = match what {
            0 => vec!["hub"],
            1 => vec![active],
            2 => vec![other(active)],
            3 => vec!["node1", "node2"],
            4 => vec!["node1", "node2", "hub"],
            5 => {
                cluster.signal(active, Signal::STOP);
                std::thread::sleep(down);
                cluster.signal(active, Signal::CONT);
                vec![]
            }
            _ => {
                cluster.samba.stop();
                std::thread::sleep(down);
                cluster.samba.resume();
                vec![]
            }
        };
        for node in &killed {
            cluster.kill(node);
        }
        if !killed.is_empty() {
            std::thread::sleep(down);
        }
        for node in &killed {
            cluster.power_on(node);
        }
    }
    ready(&cluster);
    load.judge(&cluster, rounds as usize);
}

#[test]
fn no_acknowledged_mail_is_lost_or_doubled_when_the_active_node_is_killed() {
    kills(2);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kills() {
    kills(25);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_faults() {
    let seed = std::env::var("CCRD_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(7);
    eprintln!("CCRD_SEED={seed}");
    faults(25, seed);
}

#[test]
fn a_daemon_that_is_started_again_at_once_is_no_obstacle() {
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    for round in 0..6 {
        let active = cluster.until("the service is online", SOON, Cluster::active);
        cluster.until("the copy is healthy", SOON, |c| healthy(c, other(active)));
        let node = if round % 2 == 0 { active } else { other(active) };
        eprintln!("round {round}: {node} is killed, {active} serves");
        cluster.kill(node);
        cluster.power_on(node);
    }
    cluster.until("the service is online", SOON, Cluster::active);
}
