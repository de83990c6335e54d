//! What a whole run is judged by: invariants, steps, faults, what is required and what is forbidden.

use super::*;

#[test]
fn a_run_is_judged_by_all_of_it() {
    let forbid = [Pattern::of(Forbidden::SplitBrain)];
    let scenario = judged(&[I1, I3, I4, I8], &forbid);
    let h = failover();
    let report = judge(scenario, &h, &context(), Vec::new());
    assert_eq!((report.verdict, &report.why), (Verdict::Pass, &None));
    assert_eq!(report.invariants.len(), 4);
}

#[test]
fn a_fault_that_did_nothing_makes_the_run_unknown() {
    let scenario = judged(&[I1], &[]);
    for effective in [Some(false), None] {
        let mut h = failover();
        h.faults[0].effective = effective;
        let report = judge(scenario, &h, &context(), Vec::new());
        assert_eq!(report.verdict, Verdict::Unknown);
        assert!(report.why.unwrap().starts_with("fault 0"));
    }
}

#[test]
fn less_than_required_is_unknown() {
    let h = failover();
    for scenario in [
        Judged {
            acks: 100_000,
            ..judged(&[I1], &[])
        },
        Judged {
            closed_generations: 1000,
            ..judged(&[I1], &[])
        },
        Judged {
            role_changes: 2,
            ..judged(&[I1], &[])
        },
    ] {
        let report = judge(scenario, &h, &context(), Vec::new());
        assert_eq!(report.verdict, Verdict::Unknown, "{:?}", report.why);
    }
    let nothing = Judged {
        acks: 0,
        closed_generations: 0,
        role_changes: 0,
        ..judged(&[], &[])
    };
    let mut no_faults = failover();
    no_faults.faults.clear();
    assert_eq!(
        judge(nothing, &no_faults, &context(), Vec::new()).verdict,
        Verdict::Unknown
    );
}

#[test]
fn a_failed_step_fails_the_run_though_all_invariants_hold() {
    let step = Check {
        id: "step 4".into(),
        text: "expect service-online".into(),
        verdict: Verdict::Fail,
        detail: "not within 30 s".into(),
    };
    let report = judge(judged(&[I1], &[]), &failover(), &context(), vec![step]);
    assert_eq!(report.verdict, Verdict::Fail);
    assert_eq!(report.why.as_deref(), Some("step 4: not within 30 s"));
}

#[test]
fn forbidden_events_are_seen() {
    let mut h = failover();
    let c = context();
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::RoleChange), &h, &c).verdict,
        Verdict::Fail
    );
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::QuorumLost), &h, &c).verdict,
        Verdict::Pass
    );
    let (why, epoch) = ("the witness is lost".into(), 3);
    h.events.push(runtime_event(
        "node2",
        h.events[0].t_us,
        &EventKind::QuorumLost { why, epoch },
    ));
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::QuorumLost), &h, &c).verdict,
        Verdict::Fail
    );
    let own = Pattern::of(Forbidden::parse("log.closed").unwrap());
    assert_eq!(forbidden(&own, &h, &c).verdict, Verdict::Fail);
}

#[test]
fn an_event_is_forbidden_of_one_node_and_for_a_time() {
    const S: u64 = 1_000_000;
    let mut h = failover();
    let at = h.faults[0].begin_us;
    let mark = |label: Option<&str>, begin_us| Mark {
        label: label.map(str::to_owned),
        begin_us,
        nodes: [("survivor".to_owned(), "node2".to_owned())].into(),
    };
    h.marks = vec![
        mark(Some("cut"), at),
        mark(Some("mended"), at + 10 * S),
        mark(None, at + 20 * S),
    ];
    let lost = EventKind::QuorumLost {
        why: "x".into(),
        epoch: 3,
    };
    let pattern = |on: Option<&str>, during: Option<&str>| Pattern {
        what: Forbidden::QuorumLost,
        on: on.map(str::to_owned),
        during: during.map(|d| During::parse(d).unwrap()),
    };
    for (node, after, on, during, verdict) in [
        ("node1", 3 * S, None, None, Verdict::Fail),
        ("node1", 3 * S, Some("survivor"), None, Verdict::Pass),
        ("node2", 3 * S, Some("survivor"), None, Verdict::Fail),
        ("node2", 3 * S, Some("node2"), Some("cut..mended"), Verdict::Fail),
        ("node2", 12 * S, Some("survivor"), Some("cut..mended"), Verdict::Pass),
        ("node2", 12 * S, None, Some("mended.."), Verdict::Fail),
        ("node2", 12 * S, None, Some("..mended"), Verdict::Pass),
        // Within the error of the node's clock nobody can say on which side it was.
        ("node2", 10 * S + 300, None, Some("cut..mended"), Verdict::Unknown),
        ("node2", 300, None, Some("cut.."), Verdict::Unknown),
        // Who is meant is not known, or the step was never begun.
        ("node1", 3 * S, Some("passive"), None, Verdict::Unknown),
        ("node1", 3 * S, None, Some("never.."), Verdict::Unknown),
    ] {
        let mut h = h.clone();
        h.events.push(runtime_event(node, at + after, &lost));
        let found = forbidden(&pattern(on, during), &h, &context());
        assert_eq!(
            found.verdict, verdict,
            "{node} {after} {on:?} {during:?}: {}",
            found.detail
        );
    }
    assert_eq!(During::parse("cut"), None);
    assert_eq!(During::parse(".."), None);
}

/// A step of a `repeat` is begun once a round: every round counts.
#[test]
fn a_time_between_steps_that_are_repeated_is_there_in_every_round() {
    const S: u64 = 1_000_000;
    let mut whole = failover();
    let at = whole.faults[0].begin_us;
    let mark = |label: &str, after: u64, who: &str| Mark {
        label: Some(label.to_owned()),
        begin_us: at + after * S,
        nodes: [("survivor".to_owned(), who.to_owned())].into(),
    };
    whole.marks = vec![
        mark("cut", 0, "node2"),
        mark("mended", 10, "node2"),
        mark("cut", 20, "node1"),
        mark("mended", 30, "node1"),
    ];
    // The run broke in its second round.
    let mut broken = whole.clone();
    broken.marks.pop();
    let lost = EventKind::QuorumLost {
        why: "x".into(),
        epoch: 3,
    };
    use Verdict::{Fail, Pass, Unknown};
    for (node, after, during, of_whole, of_broken) in [
        ("node2", 5, "cut..mended", Fail, Fail),
        ("node2", 15, "cut..mended", Pass, Unknown),
        ("node2", 25, "cut..mended", Pass, Unknown),
        ("node1", 25, "cut..mended", Fail, Unknown),
        ("node1", 35, "cut..mended", Pass, Unknown),
        // Behind the first, before the last.
        ("node1", 35, "cut..", Fail, Fail),
        ("node2", 15, "..mended", Pass, Pass),
        ("node1", 5, "..mended", Fail, Fail),
        // From the end of one round to the beginning of the next: behind the last one there is none.
        ("node2", 15, "mended..cut", Fail, Fail),
        ("node2", 5, "mended..cut", Unknown, Pass),
    ] {
        for (history, verdict) in [(&whole, of_whole), (&broken, of_broken)] {
            let mut h = history.clone();
            h.events.push(runtime_event(node, at + after * S, &lost));
            let pattern = Pattern {
                what: Forbidden::QuorumLost,
                on: Some("survivor".into()),
                during: During::parse(during),
            };
            let found = forbidden(&pattern, &h, &context());
            assert_eq!(found.verdict, verdict, "{node} {after} {during}: {}", found.detail);
        }
    }
}

#[test]
fn events_that_are_required_or_must_happen_once() {
    let h = failover();
    let seen = [Pattern::of(Forbidden::parse("hub.redelivery").unwrap())];
    let never = [Pattern::of(Forbidden::parse("copy.seeded").unwrap())];
    let verdict = |events: &[Pattern], sometimes: &[Pattern], steps: Vec<Check>| {
        let scenario = Judged {
            events,
            sometimes,
            ..judged(&[I1], &[])
        };
        judge(scenario, &h, &context(), steps).verdict
    };
    assert_eq!(verdict(&seen, &seen, Vec::new()), Verdict::Pass);
    assert_eq!(verdict(&never, &[], Vec::new()), Verdict::Unknown);
    assert_eq!(verdict(&[], &never, Vec::new()), Verdict::Fail);
    let step = Check {
        id: "step 1".into(),
        text: String::new(),
        verdict: Verdict::Unknown,
        detail: String::new(),
    };
    assert_eq!(
        verdict(&[], &never, vec![step]),
        Verdict::Unknown,
        "it did not come so far"
    );
}
