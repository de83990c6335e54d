//! What a whole run is judged by: invariants, steps, faults, what is required and what is forbidden.

use super::*;

#[test]
fn a_run_is_judged_by_all_of_it() {
    let scenario = judged(&[I1, I3, I4, I8], &[Forbidden::SplitBrain]);
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
    assert_eq!(forbidden(&Forbidden::RoleChange, &h, &c).verdict, Verdict::Fail);
    assert_eq!(forbidden(&Forbidden::QuorumLost, &h, &c).verdict, Verdict::Pass);
    let (why, epoch) = ("the witness is lost".into(), 3);
    h.events.push(runtime_event(
        "node2",
        h.events[0].t_us,
        &EventKind::QuorumLost { why, epoch },
    ));
    assert_eq!(forbidden(&Forbidden::QuorumLost, &h, &c).verdict, Verdict::Fail);
    let own = Forbidden::parse("log.closed").unwrap();
    assert_eq!(forbidden(&own, &h, &c).verdict, Verdict::Fail);
}
