//! Benchmarks of the networks, each beside its reference in the same run: `cargo bench --bench fabric -- NAME...`.
//!
//! Names: `fabric-forward` `fabric-rules` `fabric-latency` `fabric-unix` `guest-tcp`; all where none is given. docs/fabric.md
//! says how to read them.

mod guest;
mod load;
mod plain;
mod vde;

use failoverlab::event::Journal;
use failoverlab::fabric::{
    Control, Effect, Fabric, FabricConfig, Match, NetworkConfig, PortConfig, Proto, RingConfig, Rule, RuleOwner,
};
use failoverlab::hypervisor::{Cable, CableKind};
use failoverlab::spec::Mac;
use failoverlab::units::Span;
use load::{Wire, median};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Runs of each candidate; they take turns, so that a busy moment of the host hits all of them.
const RUNS: usize = 5;
const SIZES: [usize; 2] = [64, 1514];
/// Name of the fabric's frame thread.
const FRAMES: &str = "frames";

fn main() {
    // cargo passes `--bench`; what is no option is a name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    type Bench = fn() -> Result<(), Box<dyn std::error::Error>>;
    let all: [(&str, Bench); 5] = [
        ("fabric-forward", forward),
        ("fabric-rules", rules),
        ("fabric-latency", latency),
        ("fabric-unix", unix),
        ("guest-tcp", guest_tcp),
    ];
    for w in &wanted {
        if !all.iter().any(|(n, _)| n == w) {
            eprintln!("no such benchmark: {w}; there are: {}", all.map(|(n, _)| n).join(" "));
            std::process::exit(2);
        }
    }
    for (name, bench) in all {
        if (wanted.is_empty() || wanted.iter().any(|w| w == name))
            && let Err(e) = bench()
        {
            eprintln!("{name}: {e}");
            std::process::exit(1);
        }
    }
}

/// One line for a person and one for target/bench.jsonl.
fn figure(name: &str, ours: f64, reference: f64, unit: &str, better: &str, against: &str) {
    figure_with(name, ours, reference, unit, better, against, serde_json::Value::Null);
}

/// The same, with what else was seen.
fn figure_with(
    name: &str,
    ours: f64,
    reference: f64,
    unit: &str,
    better: &str,
    against: &str,
    seen: serde_json::Value,
) {
    let ratio = if reference == 0.0 { 0.0 } else { ours / reference };
    println!("{name:32} {ours:>12.1} {unit:10} {reference:>12.1}  ratio {ratio:.2}  against {against}");
    let line = serde_json::json!({
        "name": name, "ratio": ratio, "ours": ours, "reference": reference, "unit": unit, "better": better,
        "runs": RUNS, "against": against, "seen": seen,
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.jsonl");
    let appended = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut f| writeln!(f, "{line}"));
    if let Err(e) = appended {
        eprintln!("{path}: {e}");
    }
}

fn take((rate, cost): (f64, f64), rates: &mut Vec<f64>, costs: &mut Vec<f64>) {
    rates.push(rate);
    costs.push(cost);
}

fn config(dir: &Path, kind: CableKind) -> FabricConfig {
    let port = |n: u8| PortConfig {
        network: "net".into(),
        node: format!("node{n}"),
        mac: Mac([2, 0, 0, 0, 0, n]),
        cable: (kind == CableKind::Unix).then(|| Cable::Unix {
            fabric: dir.join(format!("node{n}.0f")),
            local: dir.join(format!("node{n}.0")),
        }),
    };
    FabricConfig {
        networks: vec![NetworkConfig {
            name: "net".into(),
            mtu: 1500,
            workstation: Some(([10, 77, 1, 2].into(), 24)),
        }],
        ports: vec![port(0), port(1), port(2)],
        ring: Some(RingConfig::at(dir.join("ring.pcapng"))),
        ..FabricConfig::default()
    }
}

/// A fabric as a lab has it (ring included) with two machines that know each other.
fn fabric(dir: &Path, kind: CableKind) -> Result<(Fabric, Wire, Wire), Box<dyn std::error::Error>> {
    let f = Fabric::start(config(dir, kind), Journal::in_memory())?;
    let ports = f.ports();
    let (a, b) = (Wire::plug(&ports[0].cable)?, Wire::plug(&ports[1].cable)?);
    load::introduce(&a, &b)?;
    Ok((f, a, b))
}

fn forward() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let (_f, a, b) = fabric(dir.path(), CableKind::Unix)?;
    let (plain, pa, pb) = plain::start()?;
    let vde = vde::start(dir.path());
    if let Err(e) = &vde {
        println!("vde_switch is left out: {e}");
    }
    println!(
        "reference: a loop that only copies batches from one UDP port to the other (benches/fabric/plain.rs); vde_switch -sock DIR"
    );
    for size in SIZES {
        let (mut ours, mut ceiling, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut our_cost, mut plain_cost) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            take(load::throughput(&a, &b, size, FRAMES), &mut ours, &mut our_cost);
            take(
                load::throughput(&pa, &pb, size, plain::PLAIN),
                &mut ceiling,
                &mut plain_cost,
            );
            if let Ok((_, va, vb)) = &vde {
                theirs.push(load::throughput(va, vb, size, "").0);
            }
        }
        figure(
            &format!("fabric-forward/{size}/cpu"),
            median(&mut our_cost),
            median(&mut plain_cost),
            "ns/frame",
            "lower",
            "the plain loop",
        );
        let ours = median(&mut ours);
        figure(
            &format!("fabric-forward/{size}"),
            ours,
            median(&mut ceiling),
            "frames/s",
            "higher",
            "the plain loop",
        );
        if !theirs.is_empty() {
            figure(
                &format!("fabric-forward/{size}/vde"),
                ours,
                median(&mut theirs),
                "frames/s",
                "higher",
                "vde_switch",
            );
        }
    }
    drop(plain);
    Ok(())
}

fn rules() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let (f, a, b) = fabric(dir.path(), CableKind::Unix)?;
    let rule = |n: u16| {
        let (from, to) = [("node0", "*"), ("node0", "node1"), ("*", "node1")][usize::from(n % 3)];
        Rule {
            id: format!("r{n}"),
            network: "net".into(),
            from: from.into(),
            to: to.into(),
            // The frames are UDP to port 9: every rule is looked at, none drops.
            matches: Match {
                proto: Some(Proto::Udp),
                port: Some(1000 + n),
                ..Match::default()
            },
            effect: Effect::cut(),
            seed: 1,
        }
    };
    let hundred: Vec<Rule> = (0..100).map(rule).collect();
    for size in SIZES {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let (mut with_cost, mut without_cost) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            f.set(RuleOwner::Person, hundred.clone())?;
            take(load::throughput(&a, &b, size, FRAMES), &mut with, &mut with_cost);
            f.set(RuleOwner::Person, Vec::new())?;
            take(load::throughput(&a, &b, size, FRAMES), &mut without, &mut without_cost);
        }
        figure(
            &format!("fabric-rules/{size}/cpu"),
            median(&mut with_cost),
            median(&mut without_cost),
            "ns/frame",
            "lower",
            "the same without rules",
        );
        let name = format!("fabric-rules/{size}");
        figure(
            &name,
            median(&mut with),
            median(&mut without),
            "frames/s",
            "higher",
            "the same without rules",
        );
    }
    Ok(())
}

fn latency() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let (f, a, b) = fabric(dir.path(), CableKind::Unix)?;
    let (da, db) = Wire::direct()?;
    let direct = load::one_way(&da, &db, 2000, Duration::from_micros(500));
    let ours = load::one_way(&a, &b, 2000, Duration::from_micros(500));
    for (name, p) in [("p50", 0.5), ("p99", 0.99)] {
        let (o, d) = (load::percentile(&ours, p), load::percentile(&direct, p));
        figure(
            &format!("fabric-latency/{name}-added"),
            o - d,
            d,
            "us",
            "lower",
            "one way over a direct UDP pair",
        );
    }
    let delay = Effect {
        delay: Some(Span::millis(100)),
        ..Effect::default()
    };
    let slow = Rule {
        id: "delay".into(),
        network: "net".into(),
        from: "node0".into(),
        to: "*".into(),
        matches: Match::default(),
        effect: delay,
        seed: 1,
    };
    f.set(RuleOwner::Person, vec![slow])?;
    let late = load::one_way(&a, &b, 500, Duration::from_millis(10));
    for (name, p) in [("p01", 0.01), ("p50", 0.5), ("p99", 0.99)] {
        figure(
            &format!("fabric-latency/delay-100ms-{name}"),
            load::percentile(&late, p),
            100_000.0,
            "us",
            "closest",
            "the delay asked for",
        );
    }
    Ok(())
}

/// TCP between two machines. The segments that a sender repeated are part of each figure.
fn guest_tcp() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "reference: a direct UDP pair of QEMU (-netdev socket,udp=…,localaddr=…); the plain loop (benches/fabric/plain.rs)"
    );
    let mut guests = guest::Guests::start()?;
    let mut seen: [(Vec<f64>, Vec<f64>); 4] = Default::default();
    for _ in 0..RUNS {
        for (cable, (speed, again)) in guest::CABLES.iter().zip(&mut seen) {
            let t = guests.transfer(cable)?;
            println!("  {cable:8} {:7.1} Mbit/s, {} retransmitted", t.mbit_s, t.retransmitted);
            speed.push(t.mbit_s);
            again.push(t.retransmitted);
        }
    }
    let [(ours, _), (plain, _), (direct, _), (udp, _)] = seen.each_ref().map(|(s, r)| (median(&mut s.clone()), r));
    let again = |n: usize| seen[n].1.iter().sum::<f64>();
    let retransmitted = serde_json::json!({
        "retransmitted": {"fabric": again(0), "plain": again(1), "direct": again(2), "udp": again(3)},
        "overflow": guests.overflow(), "host_drops": guests.host_drops(),
    });
    println!(
        "  retransmitted in all: fabric {}, plain loop {}, direct pair {}, fabric over UDP {}; dropped by the fabric's own queue: {}, \
         by the host over UDP: {}",
        again(0),
        again(1),
        again(2),
        again(3),
        guests.overflow(),
        guests.host_drops()
    );
    figure_with(
        "guest-tcp/direct",
        ours,
        direct,
        "Mbit/s",
        "higher",
        "a direct UDP pair",
        retransmitted.clone(),
    );
    figure_with(
        "guest-tcp/udp",
        ours,
        udp,
        "Mbit/s",
        "higher",
        "the fabric over UDP",
        retransmitted.clone(),
    );
    figure_with(
        "guest-tcp/loop",
        ours,
        plain,
        "Mbit/s",
        "higher",
        "the plain loop",
        retransmitted,
    );
    Ok(())
}

/// The fabric over either kind of cable.
fn unix() -> Result<(), Box<dyn std::error::Error>> {
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (_udp, a, b) = fabric(here.path(), CableKind::Udp)?;
    let (_unix, ua, ub) = fabric(there.path(), CableKind::Unix)?;
    for size in SIZES {
        let (mut udp, mut unix) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            udp.push(load::throughput(&a, &b, size, FRAMES).0);
            unix.push(load::throughput(&ua, &ub, size, FRAMES).0);
        }
        figure(
            &format!("fabric-unix/{size}"),
            median(&mut unix),
            median(&mut udp),
            "frames/s",
            "higher",
            "the fabric over UDP",
        );
    }
    Ok(())
}
