//! What is done to frames: words, rules, evidence.

use super::*;
use crate::fabric::{Effect, Proto};

/// The rules that the words make, each as network, flow, frames and effect.
fn rules(bench: &Bench, kind: &str, on: Option<&str>, arguments: &[&str]) -> Vec<String> {
    let record = bench.inject(kind, on, arguments).unwrap();
    let shown = |r: &Rule| {
        let which = Some(r.matches.to_string()).filter(|m| !m.is_empty());
        let what: Vec<String> = which.into_iter().chain([r.effect.to_string()]).collect();
        format!("{}:{}>{} {}", r.network, r.from, r.to, what.join(" "))
    };
    let shown = bench.switch.in_force().iter().map(shown).collect();
    bench.switch.remove(RuleOwner::Fault(record.id)).unwrap();
    shown
}

fn spec(fault: &Fault) -> &Traffic {
    match fault {
        Fault::Traffic { spec, .. } => spec,
        other => panic!("{other:?} does nothing to frames"),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_kind_has_its_words_on_the_wire() {
    let bench = Bench::new();
    let on = Some("node1");
    let private = "network=private";
    for (kind, on, arguments, want) in [
        (
            "cut",
            on,
            &[private, "direction=out", "ethertype=arp"][..],
            &["private:node1>* ethertype 0x0806 cut"][..],
        ),
        (
            "loss",
            on,
            &[private, "direction=in", "loss=30%", "burst=4"],
            &["private:*>node1 loss 30% in bursts of 4"],
        ),
        (
            "delay",
            None,
            &[
                "between=node1,hub",
                "delay=100 ms",
                "jitter=10ms",
                "distribution=pareto",
            ],
            &[
                "public:node1>hub delay 100 ms ± 10 ms",
                "public:hub>node1 delay 100 ms ± 10 ms",
            ],
        ),
        (
            "duplicate",
            None,
            &[private, "duplicate=5%"],
            &["private:*>* duplicate 5%"],
        ),
        (
            "reorder",
            on,
            &[private, "direction=out", "reorder=5%", "delay=10 ms", "seed=3"],
            &["private:node1>* delay 10 ms, reorder 5%"],
        ),
        (
            "rate",
            on,
            &[
                private,
                "direction=out",
                "rate=10 Mbit/s",
                "queue=16 KiB",
                "proto=udp",
                "port=3343",
            ],
            &["private:node1>* udp port 3343 rate 10 Mbit/s with a queue of 16 KiB"],
        ),
        (
            "mtu",
            on,
            &[private, "direction=out", "mtu=1400"],
            &["private:node1>* mtu 1400"],
        ),
        (
            "flap",
            None,
            &[private, "down=1 s", "up=5 s"],
            &["private:*>* flap 1 s down 5 s up"],
        ),
        (
            "corrupt",
            None,
            &["network=public", "corrupt=1%", "mend=true", "address=exmbx"],
            &["public:*>* address 10.77.1.21 corrupt 1% with mended checksums"],
        ),
        (
            "isolate",
            on,
            &[],
            &[
                "public:node1>* cut",
                "public:*>node1 cut",
                "private:node1>* cut",
                "private:*>node1 cut",
            ],
        ),
        (
            "partition",
            None,
            &["sides=node1/node2,hub"],
            &[
                "public:node1>node2 cut",
                "public:node2>node1 cut",
                "public:node1>hub cut",
                "public:hub>node1 cut",
                "private:node1>node2 cut",
                "private:node2>node1 cut",
            ],
        ),
        (
            "cut-witness",
            Some("active"),
            &[],
            &["public:node1>hub tcp port 445 cut", "public:hub>node1 tcp port 445 cut"],
        ),
        ("switch-dead", None, &[private], &["private:*>* cut"]),
    ] {
        assert_eq!(rules(&bench, kind, on, arguments), want, "{kind}");
    }
    assert_eq!(rules(&bench, "switch-dead", None, &[]).len(), bench.lab.networks.len());
}

#[test]
fn a_fault_took_effect_only_if_frames_met_what_it_is_about() {
    let bench = Bench::new();
    let counted = |matched, dropped, delayed, duplicated, corrupted| RuleCounters {
        id: String::new(),
        matched,
        dropped,
        delayed,
        duplicated,
        corrupted,
    };
    let on = Some("node1");
    for (kind, arguments, proves, does_not) in [
        (
            "loss",
            &["loss=30%"][..],
            counted(9, 1, 0, 0, 0),
            counted(9, 0, 0, 0, 0),
        ),
        ("mtu", &["mtu=1400"], counted(9, 1, 0, 0, 0), counted(9, 0, 0, 0, 0)),
        (
            "flap",
            &["down=1 s", "up=1 s"],
            counted(9, 1, 0, 0, 0),
            counted(9, 0, 0, 0, 0),
        ),
        ("delay", &["delay=1 s"], counted(9, 0, 9, 0, 0), counted(0, 0, 0, 0, 0)),
        (
            "rate",
            &["rate=1 Mbit/s"],
            counted(9, 0, 2, 0, 0),
            counted(9, 0, 0, 0, 0),
        ),
        (
            "rate",
            &["rate=1 Mbit/s"],
            counted(9, 2, 0, 0, 0),
            counted(0, 0, 0, 0, 0),
        ),
        (
            "reorder",
            &["reorder=5%", "delay=1 s"],
            counted(9, 0, 8, 0, 0),
            counted(9, 0, 9, 0, 0),
        ),
        (
            "duplicate",
            &["duplicate=5%"],
            counted(9, 0, 0, 1, 0),
            counted(9, 1, 1, 0, 1),
        ),
        (
            "corrupt",
            &["corrupt=5%"],
            counted(9, 0, 0, 0, 1),
            counted(9, 1, 1, 1, 0),
        ),
        ("isolate", &[], counted(9, 9, 0, 0, 0), counted(0, 0, 0, 0, 0)),
    ] {
        for (seen, effective) in [(proves, true), (does_not, false)] {
            let mut record = bench.inject(kind, on, arguments).unwrap();
            assert_eq!(record.effective, None);
            let rule = bench.switch.in_force().remove(0);
            bench.switch.counted.lock().unwrap().insert(rule.id, seen.clone());
            bench.undo(&mut record);
            assert_eq!(record.effective, Some(effective), "{kind} {}", record.proof);
            assert_eq!(record.proof["matched"].as_u64().unwrap_or(0), seen.matched);
            assert!(bench.switch.in_force().is_empty());
        }
    }
}

#[test]
fn what_the_host_dropped_on_the_path_is_told_apart() {
    let bench = Bench::new();
    let drops = |network: &str, node: &str, n| PortCounters {
        network: network.into(),
        node: node.into(),
        host_drops_out: n,
        ..PortCounters::default()
    };
    let set = |public, private| {
        *bench.switch.ports.lock().unwrap() = vec![drops("public", "hub", public), drops("private", "node2", private)];
    };
    set(5, 0);
    let mut record = bench.inject("loss", Some("hub"), &["loss=1%"]).unwrap();
    let rule = bench.switch.in_force().remove(0);
    bench
        .switch
        .counted
        .lock()
        .unwrap()
        .insert(rule.id, RuleCounters::default());
    // On another network: no part of this fault's path.
    set(5, 9);
    evidence(&bench, &mut record).unwrap();
    assert_eq!(record.proof.get("host_drops"), None);
    set(8, 9);
    bench.undo(&mut record);
    assert_eq!(record.proof["host_drops"], json!(3));
}

#[test]
fn what_makes_no_sense_names_what_does() {
    let bench = Bench::new();
    let on = Some("node1");
    for (kind, on, arguments, seen) in [
        (
            "loss",
            on,
            &["loss=120%"][..],
            "`120%` is no percentage: write 0% to 100%",
        ),
        ("loss", on, &[], "`loss` is missing add `loss`: share, like 30%"),
        ("loss", on, &["loss=90%", "burst=2"], "at most 66.7%"),
        ("loss", on, &["loss=5%", "burst=0"], "at least one frame"),
        ("rate", on, &["rate=0 Mbit/s"], "a whole number above 0"),
        ("rate", on, &["rate=10"], "`10` is no rate"),
        ("mtu", on, &["mtu=-5"], "longest IP packet"),
        ("delay", on, &["delay=3 h"], "at most 60 s"),
        (
            "delay",
            on,
            &["delay=1 s", "distribution=gauss"],
            "uniform, normal or pareto",
        ),
        ("delay", None, &["delay=1 s"], "name a machine or role"),
        ("flap", on, &["down=1 s"], "`up` is missing"),
        ("flap", on, &["down=0 s", "up=1 s"], "above zero"),
        (
            "corrupt",
            on,
            &["corrupt=1%", "mend=maybe"],
            "true: with right checksums",
        ),
        ("cut", on, &["ethertype=12"], "arp, ipv4, ipv6"),
        (
            "cut",
            on,
            &["address=exmby"],
            "it is an IPv4 address, exmbx, exmbcluster",
        ),
        ("isolate", None, &[], "nothing says whom it hits"),
        ("isolate", on, &["network=publik"], "the networks are public, private"),
        ("isolate", Some("hub"), &["network=private"], "private: node1 node2"),
        ("isolate", on, &["port=25"], "`isolate` takes network"),
        ("partition", None, &[], "nothing says who is on which side"),
        ("partition", None, &["sides=node1"], "not two sides or more"),
        ("partition", None, &["sides=node1/"], "not two sides or more"),
        ("partition", None, &["sides=node1/node1,hub"], "a node is on two sides"),
        ("partition", None, &["sides=node1/node9"], "node1, node2"),
        ("partition", on, &["sides=node1/node2"], "leave the target out"),
        ("cut-witness", Some("hub"), &[], "both names are the same"),
        (
            "switch-dead",
            None,
            &["network=lan"],
            "the networks are public, private",
        ),
    ] {
        let e = bench.ask(kind, on, arguments).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{kind} {arguments:?}");
        let p = e.problem().unwrap();
        let text = format!(
            "{} {}",
            p.observed.clone().unwrap_or_default(),
            p.remedy.clone().unwrap_or_default()
        );
        assert!(text.contains(seen), "{kind} {arguments:?}: {text}");
    }
    let mut without = Bench::new();
    without.lab.shares.clear();
    let e = without.ask("cut-witness", on, &[]).unwrap_err();
    assert!(e.to_string().contains("no share `witness`"), "{e}");
}

#[test]
fn a_run_gives_its_seed_only_where_none_is_given() {
    let bench = Bench::new();
    let seed = |kind: &str, arguments: &[&str]| {
        let fault = bench.ask(kind, Some("node1"), arguments).unwrap().seeded(7);
        spec(&fault).seed
    };
    assert_eq!(seed("loss", &["loss=1%"]), Some(7));
    assert_eq!(seed("loss", &["loss=1%", "seed=3"]), Some(3));
    for kind in TrafficKind::ALL {
        let parameters = Kind::Traffic(*kind).parameters();
        let takes_one = parameters.iter().any(|(name, _)| *name == "seed");
        assert_eq!(kind.is_random(), takes_one, "{kind:?}");
    }
    assert_eq!(seed("cut", &[]), None);
}

#[test]
fn a_record_of_before_is_still_a_cut() {
    let old = json!({"on": {"node": "a"}, "direction": "both", "match": {"proto": "tcp"}, "paths": []});
    let record = FaultRecord {
        id: 1,
        kind: "cut".into(),
        target: old,
        begin_us: 0,
        end_us: None,
        proof: json!({}),
        effective: None,
        pending: false,
    };
    let fault = Fault::of(&record).unwrap();
    let traffic = spec(&fault);
    assert_eq!(
        (&traffic.effect, traffic.matches.proto),
        (&Effect::cut(), Some(Proto::Tcp))
    );
}
