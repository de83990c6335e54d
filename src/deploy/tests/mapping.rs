//! Maps, held against what the real programs printed.

use super::super::mapping::{self, Answers};
use super::super::{Pack, Said};
use crate::probe::Probe;
use crate::spec::{Lab, example};
use crate::verify::{NodeView, Observation, health};
use ccr_contract::status::{ClusterState, CopyStatus, ServiceState, Status};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a program printed, by redis-server 7.0.15 and its sentinel (Debian 12) on three addresses of the lab.
#[derive(Debug, Clone, Deserialize)]
struct Printed {
    status: i32,
    stdout: String,
    stderr: String,
}

type Recorded = BTreeMap<String, BTreeMap<String, Printed>>;

fn recorded(state: &str) -> Recorded {
    let path = format!(
        "{}/src/deploy/tests/recorded/sentinel/{state}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn answers(pack: &Pack, printed: &BTreeMap<String, Printed>) -> Answers {
    let probes = pack
        .runtime
        .contract
        .probes
        .iter()
        .filter(|p| printed.contains_key(&p.name));
    let answer = |name: &str, parse| {
        let (p, run) = (&printed[name], Vec::new());
        let probe = Probe {
            name: name.into(),
            run,
            parse,
        };
        probe.answer(p.status, p.stdout.as_bytes(), p.stderr.trim())
    };
    probes.map(|p| (p.name.clone(), answer(&p.name, p.parse))).collect()
}

fn looked(state: &Recorded) -> (Lab, Observation) {
    let (pack, lab) = (Pack::load("sentinel").unwrap(), example("sentinel"));
    let mut seen = Observation::default();
    for node in &lab.nodes {
        let status = mapping::status(&pack, &lab, node, answers(&pack, &state[node.name.as_str()])).unwrap();
        let view = NodeView {
            machine: Some(crate::hypervisor::DomainState::Running),
            status: Some(status),
            ..NodeView::default()
        };
        seen.nodes.insert(node.name.to_string(), view);
    }
    (lab, seen)
}

fn status<'a>(seen: &'a Observation, node: &str) -> &'a Status {
    seen.nodes[node].status.as_ref().unwrap()
}

fn unhealthy(lab: &Lab, seen: &Observation) -> String {
    health(lab, &seen.looks(lab)).all().join("; ")
}

#[test]
fn a_healthy_lab_says_who_serves_who_votes_and_how_far_the_copy_is() {
    let (lab, seen) = looked(&recorded("healthy"));
    assert_eq!(unhealthy(&lab, &seen), "");
    assert_eq!(seen.active(), Some("node1"));
    let replica = status(&seen, "node2");
    assert_eq!((replica.version.as_str(), replica.epoch), ("7.0.15", 0));
    let service = replica.service.as_ref().unwrap();
    assert_eq!(
        (service.state, service.address.as_str()),
        (ServiceState::Online, "10.79.1.11")
    );
    let copy = &replica.copies[0];
    assert_eq!((copy.status, copy.copy_queue), (CopyStatus::Healthy, 0));
    assert!(copy.replayed > 0);
    let votes = &status(&seen, "arbiter").cluster.as_ref().unwrap().votes;
    assert_eq!((votes.total, votes.needed), (3, 2));
    assert_eq!(votes.have[0], "arbiter");
    assert_eq!(votes.have.len(), 3);
    assert!(status(&seen, "arbiter").service.is_none());
    assert_eq!(status(&seen, "node1").facts["role"], "master");
}

#[test]
fn for_a_while_after_a_move_two_take_writes_and_that_is_said() {
    for state in ["moving", "moved"] {
        let (lab, seen) = looked(&recorded(state));
        let serving: Vec<&str> = seen.serving().map(|(n, _)| n).collect();
        assert_eq!(serving, ["node1", "node2"], "{state}");
        assert!(
            unhealthy(&lab, &seen).contains("not exactly one member serves"),
            "{state}"
        );
    }
    assert_eq!(status(&looked(&recorded("moved")).1, "node2").epoch, 1);
}

#[test]
fn a_server_that_is_down_is_unknown_and_the_other_one_takes_over() {
    let (lab, seen) = looked(&recorded("server-down"));
    let why = unhealthy(&lab, &seen);
    assert!(
        why.contains("`info` on node2: it ended with status 1: Could not connect"),
        "{why}"
    );
    assert!(status(&seen, "node2").service.is_none() && status(&seen, "node2").cluster.is_some());
    // Who waits for it has not heard yet that it is gone.
    assert_eq!(status(&seen, "node1").copies[0].status, CopyStatus::Resynchronizing);
    let (lab, seen) = looked(&recorded("failed-over"));
    assert_eq!((seen.active(), status(&seen, "node1").epoch), (Some("node1"), 2));
    assert!(unhealthy(&lab, &seen).contains("node1 sees node2 as Down"));
    assert!(
        unhealthy(
            &looked(&recorded("replica-down")).0,
            &looked(&recorded("replica-down")).1
        )
        .contains("Down")
    );
}

#[test]
fn a_sentinel_that_is_down_is_unknown_and_its_vote_is_missing() {
    let (lab, seen) = looked(&recorded("sentinel-down"));
    let arbiter = status(&seen, "arbiter");
    assert!(arbiter.cluster.is_none() && arbiter.unread["master"].contains("Could not connect"));
    let cluster = status(&seen, "node1").cluster.as_ref().unwrap();
    assert_eq!((cluster.state, cluster.votes.have.len()), (ClusterState::Up, 2));
    assert!(unhealthy(&lab, &seen).contains("`master` on arbiter"));
}

#[test]
fn garbage_is_null_with_a_cause_and_never_healthy() {
    let healthy = recorded("healthy");
    let garbage: [&str; 5] = ["", "{}", "null", "role:master\n", "\u{fffd}\u{0}["];
    for (probe, text) in healthy["node2"].keys().flat_map(|p| garbage.map(|g| (p, g))) {
        let mut state = healthy.clone();
        state.get_mut("node2").unwrap().get_mut(probe).unwrap().stdout = text.into();
        let (lab, seen) = looked(&state);
        assert_ne!(unhealthy(&lab, &seen), "", "{probe}: {text:?}");
    }
}

#[test]
fn what_a_map_cannot_say_is_told_with_its_path_and_expression() {
    let (mut pack, lab) = (Pack::load("sentinel").unwrap(), example("sentinel"));
    let text = "version = \"info.nothing\"\nepoch = \"'x'\"\n[service]\nname = \"1\"\n[[copies]]\neach = \"3\"\n[facts]\nok = \"info.role\"\n";
    pack.runtime.contract.status = Said::Map(toml::from_str(text).unwrap());
    let said = answers(&pack, &recorded("healthy")["node1"]);
    let status = mapping::status(&pack, &lab, &lab.nodes[0], said).unwrap();
    assert!(status.service.is_none() && status.copies.is_empty() && status.version.is_empty());
    assert!(
        status.unread["version"].starts_with("`info.nothing`: "),
        "{:?}",
        status.unread
    );
    assert!(status.unread["epoch"].contains("invalid type"), "{:?}", status.unread);
    assert!(status.unread["service"].contains("invalid type"), "{:?}", status.unread);
    assert_eq!(status.unread["copies"], "`3` is 3, no list");
    assert_eq!(status.facts["ok"], "master");
}
