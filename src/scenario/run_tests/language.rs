//! What the words of a scenario make of a run.

use super::*;

const S: u64 = 1_000_000;

/// What must be true is looked at in every step and wait, from its beginning to its end.
#[test]
fn what_must_hold_is_looked_at_all_the_while() {
    for (steps, gone, verdict) in [
        // A moment in the middle of a wait, over before the next step.
        (
            r#"{ holds = "service-online", as = "up" }, { wait = "20s" }"#,
            10 * S..11 * S,
            Verdict::Fail,
        ),
        (
            r#"{ holds = "service.state == Online" }, { wait = "20s" }"#,
            10 * S..11 * S,
            Verdict::Fail,
        ),
        (
            r#"{ holds = "service-online", as = "up" }, { wait = "20s" }"#,
            0..0,
            Verdict::Pass,
        ),
        // Behind its end it may be as it likes.
        (
            r#"{ holds = "service-online", as = "up" }, { wait = "5s" }, { release = "up" }, { wait = "9s" }"#,
            10 * S..11 * S,
            Verdict::Pass,
        ),
        (
            r#"{ holds = "service-online", for = "5s" }, { wait = "20s" }"#,
            10 * S..11 * S,
            Verdict::Pass,
        ),
        // Its time is waited for where no step does.
        (
            r#"{ holds = "service-online", for = "15s" }"#,
            10 * S..11 * S,
            Verdict::Fail,
        ),
        // It is wrong from the beginning.
        (
            r#"{ holds = "service-offline", as = "down" }, { wait = "1s" }"#,
            0..0,
            Verdict::Fail,
        ),
    ] {
        let mut world = Fake::new();
        world.gone = gone;
        let report = ran(&mut world, steps);
        assert_eq!(report.verdict, verdict, "{steps}: {:?}", report.why);
        if verdict == Verdict::Fail {
            assert!(report.why.unwrap().starts_with("holds "), "{steps}");
        }
    }
}

#[test]
fn what_nobody_can_say_for_a_while_is_not_known_to_hold() {
    for (silent, verdict) in [(10 * S..12 * S, Verdict::Pass), (10 * S..17 * S, Verdict::Unknown)] {
        let mut world = Fake::new();
        world.silent = silent;
        let report = ran(&mut world, r#"{ holds = "service-online" }, { wait = "20s" }"#);
        assert_eq!(report.verdict, verdict, "{:?}", report.why);
    }
}

#[test]
fn the_rest_of_the_steps_is_left_out_where_something_does_not_hold() {
    let mut world = Fake::new();
    world.gone = 2 * S..3 * S;
    let report = ran(
        &mut world,
        r#"{ holds = "service-online", as = "up" }, { wait = "60s" }, { fault = "power-off", on = "passive" }"#,
    );
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(world.healed.is_empty() && world.now < 60 * S, "the wait ended early");
}

#[test]
fn an_expectation_may_have_to_stay() {
    for (steps, gone, verdict) in [
        (
            r#"{ expect = "service-online", within = "5s", for = "10s" }"#,
            0..0,
            Verdict::Pass,
        ),
        (r#"{ expect = "service-online", for = "10s" }"#, 0..0, Verdict::Pass),
        (
            r#"{ expect = "service-online", for = "10s" }"#,
            8 * S..9 * S,
            Verdict::Fail,
        ),
        (
            r#"{ expect = "service-online", for = "10s" }, { wait = "9s" }"#,
            15 * S..16 * S,
            Verdict::Pass,
        ),
        (
            r#"{ wait = "1s" }, { expect = "service-offline", for = "10s" }"#,
            0..0,
            Verdict::Fail,
        ),
        (
            r#"{ wait = "1s" }, { expect = "nobody-serves", within = "5s", for = "10s" }"#,
            3 * S..90 * S,
            Verdict::Pass,
        ),
    ] {
        let mut world = Fake::new();
        world.gone = gone.clone();
        let report = ran(&mut world, steps);
        let verdict_of_steps = report
            .checks
            .iter()
            .filter(|c| c.id.starts_with("step"))
            .map(|c| c.verdict);
        assert_eq!(
            verdict_of_steps.reduce(Verdict::and),
            Some(verdict),
            "{steps} {gone:?}: {:?}",
            report.why
        );
    }
    // While no node serves, and none shall, the outage is no failure.
    let mut world = Fake::new();
    world.gone = 2 * S..60 * S;
    let steps = r#"{ wait = "3s" }, { holds = "nobody-serves", as = "none" }, { wait = "56s" }, { release = "none" }"#;
    assert_eq!(ran(&mut world, steps).verdict, Verdict::Pass);
}

fn event(node: &str, t_us: u64, what: &ccr_contract::event::EventKind) -> Event {
    sample::runtime_event(node, t_us, what)
}

#[test]
fn an_event_is_waited_for_since_the_last_fault() {
    use ccr_contract::event::EventKind::{HubRedelivery, QuorumLost};
    let redelivery = |t_us| event("hub", t_us, &HubRedelivery { count: 3, epoch: 4 });
    let lost = |t_us| {
        event(
            "node2",
            t_us,
            &QuorumLost {
                why: "x".into(),
                epoch: 3,
            },
        )
    };
    let fault = r#"{ wait = "5s" }, { fault = "power-off", on = "active" }, "#;
    for (expect, told, verdict) in [
        (
            r#"{ expect = "event:hub.redelivery", within = "20s" }"#,
            redelivery(9 * S),
            Verdict::Pass,
        ),
        (
            r#"{ expect = "event:hub.redelivery", on = "hub", within = "20s" }"#,
            redelivery(9 * S),
            Verdict::Pass,
        ),
        (
            r#"{ expect = "event:hub.redelivery", on = "survivor", within = "20s" }"#,
            redelivery(9 * S),
            Verdict::Fail,
        ),
        (
            r#"{ expect = "event:quorum-lost", on = "survivor", within = "20s" }"#,
            lost(9 * S),
            Verdict::Pass,
        ),
        // Too late, before the fault, and where the clocks cannot say.
        (
            r#"{ expect = "event:hub.redelivery", within = "20s" }"#,
            redelivery(40 * S),
            Verdict::Fail,
        ),
        (
            r#"{ expect = "event:hub.redelivery", within = "20s" }"#,
            redelivery(2 * S),
            Verdict::Fail,
        ),
        (
            r#"{ expect = "event:hub.redelivery", within = "20s" }"#,
            redelivery(5 * S + 100),
            Verdict::Unknown,
        ),
    ] {
        let mut world = Fake::new();
        world.told = vec![told];
        let report = ran(&mut world, &format!("{fault}{expect}"));
        let step = report.checks.iter().find(|c| c.id == "step 3").unwrap();
        assert_eq!(step.verdict, verdict, "{expect}: {}", step.detail);
    }
    let mut world = Fake::new();
    world.told = vec![redelivery(2 * S)];
    let since = r#"{ workload = "mail", as = "load" }, { wait = "5s" }, { fault = "power-off", on = "active" },
        { expect = "event:hub.redelivery", within = "20s", since = "load" }"#;
    let report = ran(&mut world, since);
    let step = report.checks.iter().find(|c| c.id == "step 4").unwrap();
    assert_eq!(step.verdict, Verdict::Pass, "{}", step.detail);
    // One that never arrived may have been it.
    let mut world = Fake::new();
    world.history.missing = vec!["events 3 to 9 of node2".into()];
    let report = ran(&mut world, r#"{ expect = "event:hub.redelivery", within = "2s" }"#);
    assert_eq!(report.verdict, Verdict::Unknown, "{:?}", report.why);
}

#[test]
fn what_must_be_so_at_least_once_fails_a_whole_run_only() {
    let with = |steps: &str, rest: &str| {
        let mut world = Fake::new();
        world.gone = 3 * S..4 * S;
        run(&mut world, &scenario(steps, rest), 7).unwrap().report
    };
    let wait = r#"{ wait = "9s" }"#;
    assert_eq!(
        with(wait, r#"sometimes = ["nobody-serves", "load.acks >= 100"]"#).verdict,
        Verdict::Pass
    );
    let never = with(wait, r#"sometimes = ["service-failed"]"#);
    assert_eq!(never.verdict, Verdict::Fail);
    assert!(never.why.unwrap().starts_with("sometimes service-failed"));
    assert_eq!(
        with(wait, r#"sometimes = ["event:copy.diverged"]"#).verdict,
        Verdict::Fail
    );
    assert_eq!(
        with(wait, r#"require = { events = ["copy.diverged"] }"#).verdict,
        Verdict::Unknown
    );
    let until = r#"{ until = "copies.inspected >= 300", within = "2s" }"#;
    for rest in [
        r#"sometimes = ["service-failed"]"#,
        r#"sometimes = ["event:copy.diverged"]"#,
    ] {
        assert_eq!(with(until, rest).verdict, Verdict::Unknown, "{rest}");
    }
}

#[test]
fn a_fault_can_have_a_length_and_one_of_several_can_be_healed() {
    let mut world = Fake::new();
    let steps = r#"{ fault = "cut", on = "a", network = "public", for = "5s" }, { wait = "1s" }"#;
    let done = run(&mut world, &scenario(steps, ""), 7).unwrap();
    assert_eq!(done.report.verdict, Verdict::Pass, "{:?}", done.report.why);
    let fault = &done.history.faults[0];
    let length = fault.end_us.unwrap() - fault.begin_us;
    assert!((5 * S..6 * S).contains(&length), "{length}");
    let two = r#"{ fault = "cut", on = "a", network = "public", as = "first" },
        { fault = "cut", on = "b", network = "public" },
        { fault = "cut", on = "b", network = "private" }, "#;
    for (heal, ids) in [
        (r#"{ heal = "first" }"#, vec![0]),
        (r#"{ heal = "cut", on = "b" }"#, vec![2, 1]),
        (r#"{ heal = "cut", on = "b", network = "private" }"#, vec![2]),
        (r#"{ heal = "cut", network = "public" }"#, vec![1, 0]),
        (r#"{ heal = "cut" }"#, vec![0, 1, 2]),
    ] {
        let mut world = Fake::new();
        let report = ran(&mut world, &format!("{two}{heal}"));
        assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.why);
        let healed: Vec<u64> = world.healed.iter().map(|f| f.id).take(ids.len()).collect();
        assert_eq!(healed, ids, "{heal}");
    }
    let mut world = Fake::new();
    let report = ran(&mut world, &format!("{two}{{ heal = \"cut\", on = \"hub\" }}"));
    assert_eq!(report.verdict, Verdict::Unknown, "there is none to undo");
}

#[test]
fn orders_are_given_in_the_packs_words_and_a_refusal_has_a_cause() {
    let mut world = Fake::new();
    let steps = r#"{ operate = "move-group", group = "cluster", to = "passive" }, { expect = "service-online", within = "9s" },
        { operate = "set", set = { dial = "best" }, force = true }, { operate = "evict", node = "b", on = "a" }"#;
    ran(&mut world, steps);
    let args = |i: usize| -> Vec<(&str, &str)> {
        let order: &Order = &world.orders[i];
        order.args.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
    };
    assert_eq!(args(0), [("group", "cluster"), ("to", "node2")]);
    assert_eq!(args(1), [("force", "true"), ("set", "dial=best")]);
    assert_eq!(args(2), [("node", "node2")]);
    assert_eq!(world.orders[2].on.as_deref(), Some("node1"));
    for (refused, verdict) in [
        ("\"Suspended\"", Verdict::Pass),
        ("\"not reachable\"", Verdict::Fail),
        ("true", Verdict::Pass),
        ("false", Verdict::Fail),
    ] {
        let mut world = Fake::new();
        world.refuses = true;
        let report = ran(&mut world, &format!("{{ move = \"passive\", refused = {refused} }}"));
        assert_eq!(report.verdict, verdict, "{refused}: {:?}", report.why);
    }
}

/// While the world is busy with an act, somebody else looks.
#[test]
fn an_act_is_looked_at_from_beside() {
    let mut world = Fake::new();
    world.beside = true;
    world.busy_for = Some(Duration::from_millis(350));
    let steps = r#"{ holds = "service-online" }, { fault = "freeze", on = "passive" }"#;
    let done = run(&mut world, &scenario(steps, ""), 7).unwrap();
    let beside = done
        .history
        .observations
        .iter()
        .filter(|o| o.nodes["node1"].error.as_deref() == Some("beside"));
    assert!(beside.count() >= 2, "{}", done.history.observations.len());
}

#[test]
fn a_step_with_a_label_is_kept_with_who_was_who() {
    let mut world = Fake::new();
    let steps = r#"{ wait = "2s" }, { fault = "power-off", on = "active", as = "off" },
        { expect = "service-online", on = "survivor", within = "30s", as = "taken" }"#;
    let marks = run(&mut world, &scenario(steps, ""), 7).unwrap().history.marks;
    let labels: Vec<Option<&str>> = marks.iter().map(|m| m.label.as_deref()).collect();
    assert_eq!(labels, [Some("off"), Some("taken"), None]);
    let (off, taken) = (&marks[0], &marks[1]);
    assert_eq!(
        (off.nodes["survivor"].as_str(), off.nodes["a"].as_str()),
        ("node2", "node1")
    );
    assert!(!off.nodes.contains_key("active") && taken.nodes["active"] == "node2");
    assert!(off.begin_us <= taken.begin_us);
}
