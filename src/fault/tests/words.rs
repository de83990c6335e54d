//! Faults as they are written, and as they are kept.

use super::*;
use serde_json::json;

#[test]
fn words_that_make_no_sense_name_the_known_ones() {
    let bench = Bench::new();
    for (kind, on, arguments, seen) in [
        ("power-of", Some("node1"), &[][..], "power-off, power-on"),
        ("power-off", None, &[], "nothing says whom it hits"),
        ("power-off", Some("node1"), &["network=public"], "takes no parameter"),
        (
            "link-down",
            Some("node1"),
            &["network=publik"],
            "the networks are public, private",
        ),
        (
            "link-down",
            Some("hub"),
            &["network=private"],
            "hub is not on `private`",
        ),
        ("link-down", Some("node1"), &["network"], "key=value"),
        (
            "link-down",
            Some("node1"),
            &["network=public", "network=public"],
            "given twice",
        ),
        ("cut", None, &[], "nothing says what is cut"),
        ("cut", None, &["network=public", "direction=in"], "no direction"),
        (
            "cut",
            Some("node1"),
            &["between=node1,node2"],
            "both a target and `between`",
        ),
        ("cut", None, &["between=node1"], "not two machines"),
        ("cut", None, &["between=node1,node1"], "both are node1"),
        ("cut", Some("node1"), &["direction=up"], "both, in or out"),
        ("cut", Some("node1"), &["port=0"], "1 to 65535"),
        ("cut", Some("node1"), &["proto=icmp", "port=1"], "of tcp or udp"),
        (
            "cut",
            Some("node1"),
            &["loss=3"],
            "network, direction, between, proto, port, ethertype, address",
        ),
        ("kill", Some("node1"), &[], "which process"),
        ("kill", Some("node1"), &["process=a b"], "no name of a process"),
        ("kill", Some("node1"), &["process=-rf"], "no name of a process"),
        (
            "kill",
            Some("node1"),
            &["process=a-very-long-process-name"],
            "at most 15",
        ),
        (
            "kill",
            Some("node1"),
            &["process=ccrd", "signal=HUP"],
            "KILL, TERM, ABRT or STOP",
        ),
    ] {
        let e = bench.ask(kind, on, arguments).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{kind} {arguments:?}");
        let p = e.problem().unwrap();
        let text = format!("{p} {}", p.remedy.clone().unwrap_or_default());
        assert!(text.contains(seen), "{kind} {arguments:?}: {text}");
    }
}

#[test]
fn a_record_is_all_that_an_undo_needs() {
    let bench = Bench::new();
    for (kind, on, arguments) in [
        ("power-off", Some("active"), &[][..]),
        ("freeze", Some("node2"), &[]),
        ("link-down", Some("node2"), &["network=private"]),
        ("cut", Some("active"), &["direction=in"]),
        ("cut", None, &["network=private"]),
        ("loss", None, &["between=active,hub", "loss=3%", "seed=9"]),
        ("flap", Some("node1"), &["down=1 s", "up=2 s", "ethertype=arp"]),
        ("partition", None, &["sides=active/node2,hub"]),
        ("cut-witness", Some("active"), &[]),
        ("switch-dead", None, &[]),
        ("kill", Some("node1"), &["process=ccrd", "signal=STOP"]),
        ("panic", Some("active"), &[]),
        ("clock", Some("node1"), &["step=-1 h", "strobe=500 ms"]),
        (
            "damage-file",
            Some("node1"),
            &["file=log", "how=old-copy", "which=last"],
        ),
        ("disk-full", Some("hub"), &["disk=root"]),
        ("witness-share", Some("hub"), &["how=read-only"]),
    ] {
        let fault = bench.ask(kind, on, arguments).unwrap();
        let record = fault.record(3, 5);
        let text = serde_json::to_string(&record).unwrap();
        let again: FaultRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(Fault::of(&again).unwrap(), fault);
        assert_eq!(again.kind, kind);
        // On the supervisor's socket it is the first two fields of its record.
        let json = serde_json::to_value(&fault).unwrap();
        assert_eq!(json, json!({"kind": kind, "target": record.target}));
        assert_eq!(serde_json::from_value::<Fault>(json).unwrap(), fault);
    }
    let mut strange = bench.ask("freeze", Some("node1"), &[]).unwrap().record(0, 0);
    strange.kind = "melt".into();
    assert!(
        Fault::of(&strange)
            .unwrap_err()
            .to_string()
            .contains("there is no such fault")
    );
    let unknown = serde_json::from_value::<Fault>(json!({"kind": "melt", "target": {}}));
    assert!(unknown.unwrap_err().to_string().contains("there is no such fault"));
}

#[test]
fn every_kind_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<_> = Kind::all().map(Kind::word).collect();
    assert_eq!(words.len(), 32);
    for kind in Kind::all() {
        assert_eq!(kind.word().parse::<Kind>().unwrap(), kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.word()));
    }
}
