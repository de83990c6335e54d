//! Files, words and the runner, without machines.

use super::expression::{Expression, View};
use super::*;
use crate::spec::{self, Source};
use proptest::prelude::*;

fn lab() -> Lab {
    spec::example("ccr")
}

fn read(text: &str) -> Result<Scenario> {
    let lab = lab();
    parse(
        "s.toml",
        text,
        Rules {
            host_names: false,
            lab: &lab,
        },
    )
}

fn report(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn with_steps(steps: &str) -> String {
    format!("id = \"X\"\ntitle = \"x\"\nsteps = [\n  {steps},\n]\n")
}

#[test]
fn every_scenario_of_every_lab_reads() {
    let mut ids = Vec::new();
    for name in spec::embedded() {
        let source = Source::Embedded(name);
        for s in select(&source, &lab(), &[]).unwrap() {
            assert!(!s.invariants.is_empty(), "{} checks nothing", s.id);
            ids.push(s.id);
        }
    }
    assert!(
        ["F00", "F01", "F05"].iter().all(|id| ids.iter().any(|i| i == id)),
        "{ids:?}"
    );
}

#[test]
fn scenarios_are_selected_by_id_and_unknown_ones_are_named() {
    let source = Source::Embedded("ccr".parse().unwrap());
    let two = select(&source, &lab(), &["f05".into(), "F00".into()]).unwrap();
    assert_eq!(two.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["F05", "F00"]);
    let e = select(&source, &lab(), &["F0x".into()]).unwrap_err();
    assert_eq!(e.exit_code(), 2);
    assert!(e.problem().unwrap().remedy.as_ref().unwrap().contains("F05"));
}

#[test]
fn findings_name_place_and_known_words() {
    insta::assert_snapshot!(report(
        r#"id = "F05"
title = "x"
steps = [
  { fault = "power-of", on = "active" },
  { fault = "cut", on = "actve", network = "public" },
  { until = "copies.inspectd >= 3" },
  { expect = "service-onlin", on = "node1" },
  { wait = "5s", on = "active" },
  { wait = "5s", heal = "all" },
  { on = "active" },
  { fault = "freeze", on = "a", direction = "in" },
  { operate = "move" },
]
forbid = ["splitbrain"]
invariants = ["I1", "I99"]
"#
    ));
}

#[test]
fn shape_is_strict() {
    assert!(report("id = \"a\"\ntitle = \"x\"\nsteps = []\n").contains("does nothing"));
    assert!(report("id = \"../x\"\ntitle = \"x\"\nsteps = [{ wait = \"1s\" }]\n").contains("cannot name a folder"));
    assert!(report(&with_steps("{ wait = \"5 sec\" }")).contains("5 sec"));
    assert!(report(&with_steps("{ waits = \"5s\" }")).contains("unknown key"));
    assert!(report("id = ").contains("s.toml"));
}

#[test]
fn host_names_are_for_a_persons_own_file() {
    let lab = lab();
    let text = with_steps("{ fault = \"freeze\", on = \"node1\" }");
    assert!(report(&text).contains("host name"));
    let own = Rules {
        host_names: true,
        lab: &lab,
    };
    assert!(parse("own.toml", &text, own).is_ok());
    let both = with_steps("{ fault = \"cut\", between = [\"node1\", \"hub\"] }");
    assert!(report(&both).contains("`node1` is a host name"));
}

fn view_of(text: &str) -> (bool, String) {
    let observation = crate::verify::sample::observation(&lab(), 0, "node1", 5, 3);
    let mut roles = Roles::of(&lab());
    roles.begin(&observation);
    let progress = Progress {
        acks: 7,
        ..Progress::default()
    };
    Expression::parse(text).unwrap().holds(View {
        observation: &observation,
        progress: &progress,
        roles: &roles,
    })
}

#[test]
fn expressions_over_a_look_at_the_lab() {
    for (text, holds) in [
        ("copies.inspected >= 3", true),
        ("copies.inspected > 3", false),
        ("copies.inspected == 3 and copies.generated == 5", true),
        ("copies.copy_queue == 2", true),
        ("service.state == Online", true),
        ("service.state != Online", false),
        ("service.active == a", true),
        ("service.active == active", true),
        ("service.active == b", false),
        ("service.active != passive", true),
        ("not service.active == b", true),
        // Three were inspected and five closed when it began: nothing is new.
        ("copies.fresh == 0", true),
        ("copies.fresh >= 1", false),
        ("load.acks >= 7 or copies.inspected > 100", true),
        (
            "(load.acks > 7 or copies.inspected > 100) and service.state == Online",
            false,
        ),
        (
            "cluster.state == up and cluster.votes == 3 and cluster.witness == ok",
            true,
        ),
        ("hub.queued == 0", true),
        ("copies.status == Healthy", true),
        // No node has the role now: neither is nor is not.
        ("service.active == survivor", false),
        ("service.active != survivor", false),
    ] {
        let (is, seen) = view_of(text);
        assert_eq!(is, holds, "{text}: {seen}");
    }
    assert_eq!(
        view_of("copies.inspected >= 9 and load.acks > 1").1,
        "copies.inspected = 3, load.acks = 7"
    );
}

#[test]
fn nothing_holds_of_a_lab_that_does_not_answer() {
    let roles = Roles::of(&lab());
    let (observation, progress) = (Observation::default(), Progress::default());
    let view = View {
        observation: &observation,
        progress: &progress,
        roles: &roles,
    };
    for text in [
        "copies.inspected >= 0",
        "copies.inspected < 1",
        "service.state != Online",
        "hub.queued == 0",
    ] {
        let (holds, seen) = Expression::parse(text).unwrap().holds(view);
        assert!(!holds, "{text}");
        assert!(seen.contains("unknown"), "{seen}");
    }
}

#[test]
fn bad_expressions_say_where() {
    for (text, at, message) in [
        ("", 0, "expected a name"),
        ("copies", 0, "there is no `copies`"),
        ("copies.inspected", 16, "expected =="),
        ("copies.inspected >=", 19, "expected a value"),
        ("copies.inspected >= x", 20, "no number"),
        ("copies.inspected >= -3", 20, "no number"),
        ("copies.status >= Healthy", 14, "has no order"),
        ("copies.status == healthy", 17, "is never `healthy`"),
        ("copies.inspected >= 3 copies.replayed > 1", 22, "expected `and`"),
        ("(copies.inspected >= 3", 22, "expected `)`"),
        ("copies.inspected = 3", 17, "does not belong"),
        ("copies.inspected >= 3 and", 25, "expected a name"),
        ("ä == 1", 0, "does not belong"),
    ] {
        let e = Expression::parse(text).unwrap_err();
        assert!(e.message.contains(message), "{text}: {}", e.message);
        assert_eq!(e.span.start, at, "{text}: {e:?}");
    }
    assert!(Expression::parse(&"(".repeat(500)).is_err());
    assert!(Expression::parse(&"not ".repeat(249)).is_err());
    assert!(
        Expression::parse("copies.inspectd > 1")
            .unwrap_err()
            .help
            .unwrap()
            .contains("copies.inspected")
    );
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_a_finding(text in "\\PC{0,80}") {
        if let Err(e) = Expression::parse(&text) {
            prop_assert!(text.get(e.span.clone()).is_some(), "{e:?}");
        }
    }

    #[test]
    fn any_mix_of_words_ends(words in proptest::collection::vec(prop::sample::select(
        vec!["and", "or", "not", "(", ")", "copies.inspected", ">=", "3", "service.state", "==", "Online"]), 0..40)) {
        let _ = Expression::parse(&words.join(" "));
    }

    #[test]
    fn any_text_is_a_scenario_or_a_report(text in "\\PC{0,200}") {
        if let Err(e) = read(&text) {
            prop_assert_eq!(e.exit_code(), 2);
        }
    }
}

/// A machine that is off has no domain: the hypervisor does not have it, the expectation comes true.
#[test]
fn a_machine_without_a_domain_is_off() {
    use crate::hypervisor::{Domain, DomainState};
    use crate::lab::protocol::MachineStatus;
    let lab = crate::verify::sample::lab();
    let domain = |name: &str, state| Domain {
        name: name.into(),
        state,
        pid: None,
        label: None,
    };
    let seen = |domains: &[Domain]| {
        let machines = lab.nodes.iter().map(|n| MachineStatus::of(n, 1, domains, None, 0));
        let view = |m: MachineStatus| {
            let view = NodeView {
                machine: m.domain,
                ..NodeView::default()
            };
            (m.node, view)
        };
        Observation {
            nodes: machines.map(view).collect(),
            ..Observation::default()
        }
    };
    let roles = Roles::of(&lab);
    let off = Expectation::parse_word("machine-off").unwrap().on(Some("node1".into()));
    let met = |domains: &[Domain]| off.met(&lab, &roles, &seen(domains)).unwrap();
    assert!(met(&[domain("node2", DomainState::Running)]).0);
    for state in [DomainState::Running, DomainState::Paused, DomainState::Other] {
        assert!(!met(&[domain("node1", state)]).0, "{state:?}");
    }
}

/// A dead network is no healthy lab, though no service had to move for it.
#[test]
fn healthy_names_a_network_without_heartbeats() {
    use ccr_contract::status::{Network, NetworkRole, Path};
    let lab = crate::verify::sample::lab();
    let roles = Roles::of(&lab);
    let with = |up| {
        let mut seen = crate::verify::sample::observation(&lab, 0, "node1", 5, 5);
        let status = seen.nodes.get_mut("node2").unwrap().status.as_mut().unwrap();
        let path = Path {
            from: "node1".into(),
            to: "node2".into(),
            up,
        };
        status.cluster.as_mut().unwrap().networks = vec![Network {
            name: "private".into(),
            role: NetworkRole::Internal,
            paths: vec![path],
        }];
        Expectation::HEALTHY.met(&lab, &roles, &seen).unwrap()
    };
    for up in [Some(true), None] {
        assert!(with(up).0, "{up:?}");
    }
    let (met, shown) = with(Some(false));
    assert!(
        !met && shown.contains("node2 has no heartbeats on private node1 → node2"),
        "{shown}"
    );
}

#[test]
fn drained_must_be_said_by_every_node() {
    let lab = lab();
    let roles = Roles::of(&lab);
    let with = |change: fn(&mut Observation)| {
        let mut seen = crate::verify::sample::observation(&lab, 0, "node1", 5, 5);
        change(&mut seen);
        Expectation::DRAINED.met(&lab, &roles, &seen).unwrap()
    };
    let status = |seen: &mut Observation, node: &str, change: fn(&mut ccr_contract::status::Status)| {
        change(seen.nodes.get_mut(node).unwrap().status.as_mut().unwrap());
    };
    assert_eq!(with(|_| ()), (true, "drained".to_owned()));
    let hub_is_silent = |seen: &mut Observation| seen.nodes.get_mut("hub").unwrap().status = None;
    assert_eq!(with(hub_is_silent), (false, "hub does not answer".to_owned()));
    type Change = fn(&mut ccr_contract::status::Status);
    let cases: [(Change, &str, &str); 4] = [
        (|s| s.hub.as_mut().unwrap().queued = 2, "hub", "hub: 2 queued"),
        (|s| s.copies[0].replay_queue = 1, "node2", "replay queue 1"),
        (
            |s| s.service.as_mut().unwrap().redelivery_due = true,
            "node1",
            "a redelivery is due",
        ),
        (
            |s| s.service.as_mut().unwrap().active = None,
            "node1",
            "not exactly one member serves",
        ),
    ];
    for (change, node, why) in cases {
        let mut seen = crate::verify::sample::observation(&lab, 0, "node1", 5, 5);
        status(&mut seen, node, change);
        let (met, shown) = Expectation::DRAINED.met(&lab, &roles, &seen).unwrap();
        assert!(!met && shown.contains(why), "{why}: {shown}");
    }
    // Who stopped the service on purpose waits for nobody.
    let mut stopped = crate::verify::sample::observation(&lab, 0, "none", 5, 5);
    assert!(!Expectation::DRAINED.met(&lab, &roles, &stopped).unwrap().0);
    status(&mut stopped, "node1", |s| {
        s.service.as_mut().unwrap().intent = ccr_contract::status::Intent::Stopped
    });
    assert!(Expectation::DRAINED.met(&lab, &roles, &stopped).unwrap().0);
}
