//! A bad disk on the passive member, again and again, under load: the service goes on, the copy ends healthy, nothing that was
//! acknowledged is missing.

use crate::cluster::Cluster;
use crate::failover::{Load, SETTINGS, SOON, healthy, other};
use crate::files;
use ccr_core::rng::Rng;
use std::path::PathBuf;
use std::time::Duration;

/// Flips a bit of one of a node's files; which.
fn flip(cluster: &Cluster, node: &str, dice: &mut Rng) -> String {
    let mut files = files::below(&cluster.data(node));
    files.retain(|f| f.metadata().is_ok_and(|m| m.len() > 0));
    let file = &files[dice.range(0, files.len() as u64) as usize];
    let mut bytes = std::fs::read(file).expect("the file");
    // Half of them at the beginning, where most of what is not zero lies.
    let among = if dice.range(0, 2) == 0 {
        bytes.len()
    } else {
        bytes.len().min(256)
    };
    let at = dice.range(0, among as u64) as usize;
    bytes[at] ^= 1 << dice.range(0, 8);
    std::fs::write(file, bytes).expect("the file");
    format!("byte {at} of {}", file.display())
}

/// Whether the copy on a node is healthy, and what it lacks is less than what the dial tolerates.
fn caught_up(cluster: &Cluster, node: &str) -> Option<()> {
    healthy(cluster, node)?;
    let copies = cluster.status(node)?.copies;
    copies.iter().any(|c| c.node == node && c.copy_queue <= 2).then_some(())
}

/// The copy becomes healthy, with what an operator does who reads what the node says.
fn mended(cluster: &mut Cluster, node: &'static str) {
    let log = cluster.log(node).len();
    // What a damaged copy says may be a moment old: an order is given once for each cause.
    let mut reseeded = None;
    let end = std::time::Instant::now() + SOON * 2;
    while crate::wait::until(Duration::from_millis(500), || caught_up(cluster, node)).is_none() {
        assert!(
            std::time::Instant::now() < end,
            "the copy on {node} stays so\n{}",
            cluster.report()
        );
        if cluster.has_ended(node) {
            let said = cluster.log(node)[log..].to_owned();
            if said.contains("cluster.json: damaged") {
                // Nothing but the record of the cluster, which the other member has as well.
                let file = cluster.data(node).join("cluster.json");
                let aside = PathBuf::from(format!("{}.bad", file.display()));
                std::fs::rename(&file, aside).expect("the damaged file is there, and can be put aside");
            }
            cluster.power_on(node);
            continue;
        }
        let error = cluster.status(node).and_then(|s| {
            let failed = |c: &&ccr_contract::status::Copy| {
                c.node == node && c.status == ccr_contract::status::CopyStatus::Failed
            };
            Some(s.copies.iter().find(failed)?.error.clone())
        });
        if error.is_some() && error != reseeded {
            eprintln!("  reseed: {error:?}");
            let _ = cluster.ctl(node, &["reseed"]);
            reseeded = error;
        }
    }
}

fn damage(rounds: u32, seed: u64) {
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let mut dice = Rng::new(seed.max(1));
    let mut active = cluster.until("the service is online", SOON, Cluster::active);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, other(active)));
    let load = Load::start(&cluster, 8 << 10, Duration::from_millis(40));
    for round in 0..rounds {
        let passive = other(active);
        let before = cluster.stored("ann").unwrap_or(0);
        cluster.until("mail flows", SOON, |c| (c.stored("ann")? > before + 20).then_some(()));
        cluster.kill(passive);
        eprintln!("round {round}: {active} serves, {}", flip(&cluster, passive, &mut dice));
        cluster.power_on(passive);
        let before = cluster.stored("ann").unwrap_or(0);
        cluster.until("the service goes on", SOON, |c| {
            (c.stored("ann")? > before).then_some(())
        });
        mended(&mut cluster, passive);
        // What was mended is good enough to serve.
        cluster.kill(active);
        let by = cluster.until("the mended one serves", SOON, |c| {
            c.read("nobody", false).ok().map(|(by, _)| by.node)
        });
        assert_eq!(by, passive);
        cluster.power_on(active);
        mended(&mut cluster, active);
        active = passive;
    }
    load.judge(&cluster, rounds as usize * 20);
}

#[test]
fn damage_on_the_passive_member_costs_nothing_acknowledged() {
    damage(3, 11);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_damage() {
    let number = |name: &str, otherwise| {
        let set = std::env::var(name).ok();
        set.map_or(otherwise, |s| s.parse().expect("a number"))
    };
    let (rounds, seed) = (number("CCRD_ROUNDS", 40), number("CCRD_SEED", 7));
    eprintln!("CCRD_ROUNDS={rounds} CCRD_SEED={seed}");
    damage(u32::try_from(rounds).expect("a number of rounds"), seed);
}
