//! Files, words and the runner, without machines.

use super::expression::{Expression, View};
use super::*;
use crate::spec::{self, Source};
use proptest::prelude::*;

mod head;
mod include;
mod parameters;
mod steps;

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
            pack: &vocabulary(&lab).unwrap(),
            set: &BTreeMap::new(),
            shelf: None,
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
        let lab = spec::example(&name);
        let source = Source::Embedded(name);
        for s in select(&source, &lab, &[], &BTreeMap::new()).unwrap() {
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
    let two = select(&source, &lab(), &["f05".into(), "F00".into()], &BTreeMap::new()).unwrap();
    assert_eq!(two.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["F05", "F00"]);
    let e = select(&source, &lab(), &["F0x".into()], &BTreeMap::new()).unwrap_err();
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

/// What only shows when whole steps, labels and the lab are known.
#[test]
fn findings_of_the_words_that_belong_together() {
    insta::assert_snapshot!(report(
        r#"id = "F99"
title = "x"
steps = [
  { fault = "cut", on = "a", network = "publc", as = "apart" },
  { fault = "loss", on = "a", loss = "3 %%" },
  { fault = "partition", sides = [["a", "hub"], ["b", "a"]] },
  { fault = "freeze", on = "b", for = "5 sec" },
  { expect = "healthy" },
  { expect = "event:log.closd", within = "5s" },
  { expect = "service.active == nobody", within = "5s" },
  { expect = "healthy", within = "5s", since = "apart" },
  { holds = "event:copy.resynced" },
  { holds = "machine-off" },
  { release = "apart" },
  { heal = "cut", on = "a", loss = "3%" },
  { wait = "1s", as = "apart" },
  { wait = "1s", as = "freeze" },
  { wait = 5 },
  { operate = "move-group", group = "all", to = "b" },
  { operate = "mout" },
  { operate = "evict", node = "nobody", force = true },
  { operate = "set", set = { a = 1, b = 2 } },
  { move = "b", to = "a", refused = 3 },
  { waits = "1s" },
  { workload = "mail", mix = { read = -1, write = 2 } },
]
require = { events = ["logs.closed"] }
forbid = [
  { event = "quorum-lost", on = "survivr" },
  { event = "quorum-lost", during = "cut" },
  { event = "quorum-lost", during = "cut..end" },
  { event = "split-brain", on = "a" },
  { on = "a" },
  7,
]
sometimes = ["service-onlin"]
"#
    ));
}

/// Every word in one file.
#[test]
fn every_word_reads() {
    let scenario = read(
        r#"id = "X"
title = "x"
steps = [
  { workload = "mail", rate = "20/s", size = "32 KiB", clients = 4, deadline = "5s", mix = { read = 0 } },
  { until = "load.acks >= 20", within = "60s" },
  { holds = "service-online", on = "a", as = "up" },
  { holds = "cluster.votes >= 2", for = "20s" },
  { fault = "cut", on = "a", network = ["public", "private"], direction = "in", as = "apart" },
  { fault = "partition", sides = [["a"], ["b", "hub"]], for = "5s" },
  { fault = "rate", on = "b", rate = "10 Mbit/s" },
  { expect = "nobody-serves", within = "30s", for = "20s" },
  { expect = "service-offline", on = "b", for = "20s" },
  { expect = "event:quorum-lost", on = "a", within = "30s", since = "up" },
  { expect = "copies.copy_queue == 0", within = "30s" },
  { heal = "cut" },
  { heal = "cut", on = "a", network = ["public", "private"] },
  { heal = "all", as = "mended" },
  { release = "up" },
  { move = "b", comment = "away", refused = "not Healthy" },
  { operate = "move-group", group = "service", to = "b", on = "a" },
  { operate = "mount", group = "First" },
  { operate = "force-quorum", on = "b", refused = true },
  { operate = "join", node = "a" },
  { operate = "set", set = { dial = "best" }, force = true },
  { wait = "5s" },
  { workload = "stop" },
]
require = { acks = 5, events = ["hub.redelivery", { event = "copy.resynced", on = "a", during = "mended.." }] }
forbid = ["split-brain", "service.fenced", { event = "quorum-lost", on = "survivor", during = "apart..mended" }]
sometimes = ["copies.copy_queue >= 1", "event:cluster.path", { event = "service.fenced", on = "a" }, "nobody-serves"]
"#,
    )
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (
            scenario.steps.len(),
            scenario.forbid.len(),
            scenario.require.events.len()
        ),
        (23, 3, 2)
    );
    assert_eq!((scenario.sometimes.len(), scenario.sometimes_events.len()), (2, 2));
    assert_eq!(
        scenario.forbid[2].to_string(),
        "quorum-lost on survivor during apart..mended"
    );
}

/// A role that the lab cannot have is found before anything starts.
#[test]
fn roles_that_the_lab_does_not_have_are_named() {
    let bare = spec::example("bare");
    let rules = Rules {
        host_names: true,
        lab: &bare,
        pack: &vocabulary(&bare).unwrap(),
        set: &BTreeMap::new(),
        shelf: None,
    };
    for (step, why) in [
        (
            "{ fault = \"freeze\", on = \"witness\" }",
            "has no machine for the role `witness`",
        ),
        (
            "{ expect = \"machine-off\", on = \"hub\", within = \"1s\" }",
            "has no machine for the role `hub`",
        ),
        ("{ move = \"passive\" }", "takes no order `move`"),
    ] {
        let e = parse("own.toml", &with_steps(step), rules).unwrap_err().to_string();
        let flat = e.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(why), "{step}: {e}");
    }
}

#[test]
fn what_one_begins_with_is_a_scenario() {
    let text = beginning("mine-1").unwrap();
    assert_eq!(read(&text).unwrap_or_else(|e| panic!("{e}")).id, "mine-1");
    for bad in ["", "../x", "a b", ".x"] {
        assert_eq!(beginning(bad).unwrap_err().exit_code(), 2, "{bad}");
    }
}

/// What is wrong with several files is told at once.
#[test]
fn all_findings_of_all_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, steps: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, with_steps(steps)).unwrap();
        path.display().to_string()
    };
    let one = file("one.toml", "{ wait = \"1 sec\" }");
    let two = file("two.toml", "{ fault = \"feeze\", on = \"a\" }");
    let well = file("well.toml", "{ wait = \"1s\" }");
    let source = Source::Embedded("ccr".parse().unwrap());
    let e = select(
        &source,
        &lab(),
        &[one.clone(), "F00".into(), two.clone(), well.clone()],
        &BTreeMap::new(),
    )
    .unwrap_err();
    assert_eq!(e.exit_code(), 2);
    let e = e.to_string();
    assert!(
        e.contains("one.toml") && e.contains("two.toml") && !e.contains("well.toml"),
        "{e}"
    );
    let all = select(&source, &lab(), &["F05".into(), well, "F00".into()], &BTreeMap::new()).unwrap();
    assert_eq!(
        all.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(),
        ["F05", "X", "F00"]
    );
    let absent = folder.path().join("absent.toml").display().to_string();
    assert_eq!(
        select(&source, &lab(), &[absent], &BTreeMap::new())
            .unwrap_err()
            .exit_code(),
        2
    );
}

/// A member without quorum serves nothing, and says so; one that does not answer says nothing.
#[test]
fn states_without_quorum_come_true() {
    use ccr_contract::status::ClusterState;
    let lab = crate::verify::sample::lab();
    let roles = Roles::of(&lab);
    let met = |word: &str, on: Option<&str>, seen: &Observation| {
        let word = Expectation::parse_word(word).unwrap().on(on.map(str::to_owned));
        word.met(&lab, &roles, seen).unwrap().0
    };
    let without = |seen: &mut Observation, node: &str| {
        let status = crate::verify::sample::status(seen, node);
        status.service = None;
        let cluster = status.cluster.as_mut().unwrap();
        (cluster.state, cluster.votes.have) = (ClusterState::Forming, vec![node.to_owned()]);
    };
    let healthy = crate::verify::sample::healthy();
    for word in ["nobody-serves", "service-offline", "cluster-no-quorum"] {
        for on in [None, Some("node1")] {
            assert_eq!(met(word, on, &healthy), Truth::No, "{word}");
        }
    }
    assert_eq!(met("nobody-serves", Some("node2"), &healthy), Truth::Yes);
    // One has lost it: nothing is said of the other.
    let mut one = healthy.clone();
    without(&mut one, "node1");
    for word in ["nobody-serves", "service-offline", "cluster-no-quorum"] {
        assert_eq!(met(word, Some("node1"), &one), Truth::Yes, "{word}");
    }
    assert_eq!(met("cluster-no-quorum", None, &one), Truth::No);
    assert_eq!(met("service-online", Some("node1"), &one), Truth::No);
    let mut both = one.clone();
    without(&mut both, "node2");
    for word in [
        "nobody-serves",
        "service-offline",
        "cluster-no-quorum",
        "cluster-forming",
    ] {
        assert_eq!(met(word, None, &both), Truth::Yes, "{word}");
    }
    // One that does not answer may serve; one that is off does not.
    both.nodes.get_mut("node2").unwrap().status = None;
    for word in ["nobody-serves", "service-offline", "cluster-no-quorum"] {
        assert_eq!(met(word, None, &both), Truth::Unknown, "{word}");
    }
    both.nodes.get_mut("node2").unwrap().machine = Some(crate::hypervisor::DomainState::Off);
    assert_eq!(met("nobody-serves", None, &both), Truth::Yes);
    // With enough votes a member that forms waits for something else than a majority.
    let mut forming = healthy;
    crate::verify::sample::status(&mut forming, "node1")
        .cluster
        .as_mut()
        .unwrap()
        .state = ClusterState::Forming;
    assert_eq!(met("cluster-no-quorum", Some("node1"), &forming), Truth::No);
    assert_eq!(met("cluster-forming", Some("node1"), &forming), Truth::Yes);
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
        pack: &vocabulary(&lab).unwrap(),
        set: &BTreeMap::new(),
        shelf: None,
    };
    assert!(parse("own.toml", &text, own).is_ok());
    let both = with_steps("{ fault = \"cut\", between = [\"node1\", \"hub\"] }");
    assert!(report(&both).contains("`node1` is a host name"));
}

fn view_of(text: &str) -> (Truth, String) {
    let observation = crate::verify::sample::observation(&lab(), 0, "node1", 5, 3);
    let mut roles = Roles::of(&lab());
    roles.begin(&observation);
    let progress = Progress {
        acks: 7,
        ..Progress::default()
    };
    Expression::parse(text).unwrap().judge(View {
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
        assert_eq!(is.is_yes(), holds, "{text}: {seen}");
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
        "not hub.queued == 0",
        "service.active != a and load.acks == 0",
    ] {
        let (truth, seen) = Expression::parse(text).unwrap().judge(view);
        assert_eq!(truth, Truth::Unknown, "{text}");
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
    assert!(met(&[domain("node2", DomainState::Running)]).0.is_yes());
    for state in [DomainState::Running, DomainState::Paused, DomainState::Other] {
        assert_eq!(met(&[domain("node1", state)]).0, Truth::No, "{state:?}");
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
        assert!(with(up).0.is_yes(), "{up:?}");
    }
    let (met, shown) = with(Some(false));
    assert!(
        met == Truth::No && shown.contains("node2 has no heartbeats on private node1 → node2"),
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
    assert_eq!(with(|_| ()), (Truth::Yes, "drained".to_owned()));
    let hub_is_silent = |seen: &mut Observation| seen.nodes.get_mut("hub").unwrap().status = None;
    assert_eq!(with(hub_is_silent), (Truth::No, "hub does not answer".to_owned()));
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
        assert!(met == Truth::No && shown.contains(why), "{why}: {shown}");
    }
    // Who stopped the service on purpose waits for nobody.
    let mut stopped = crate::verify::sample::observation(&lab, 0, "none", 5, 5);
    assert_eq!(Expectation::DRAINED.met(&lab, &roles, &stopped).unwrap().0, Truth::No);
    status(&mut stopped, "node1", |s| {
        s.service.as_mut().unwrap().intent = ccr_contract::status::Intent::Stopped
    });
    assert!(Expectation::DRAINED.met(&lab, &roles, &stopped).unwrap().0.is_yes());
    // Nor does a copy replay before a start; what it lacks it lacks.
    status(&mut stopped, "node2", |s| {
        s.copies[0].status = ccr_contract::status::CopyStatus::Stopped;
        s.copies[0].replay_queue = 10;
    });
    assert!(Expectation::DRAINED.met(&lab, &roles, &stopped).unwrap().0.is_yes());
    status(&mut stopped, "node2", |s| s.copies[0].copy_queue = 1);
    assert_eq!(Expectation::DRAINED.met(&lab, &roles, &stopped).unwrap().0, Truth::No);
}
