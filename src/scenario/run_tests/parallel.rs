//! Branches: what each does, that the first failure ends the others, and that nothing happens unseen.

use super::*;
use crate::scenario::fake::Together;

const S: u64 = 1_000_000;

fn together(fake: Fake, steps: &str, rest: &str) -> (Run, Fake) {
    let mut world = Together::new(fake);
    let done = run(&mut world, &scenario(steps, rest), 7).unwrap();
    (done, world.into_inner())
}

fn check<'a>(report: &'a ScenarioReport, id: &str) -> &'a Check {
    let ids: Vec<&str> = report.checks.iter().map(|c| c.id.as_str()).collect();
    report
        .checks
        .iter()
        .find(|c| c.id == id)
        .unwrap_or_else(|| panic!("{id}: {ids:?}"))
}

#[test]
fn branches_run_side_by_side_and_all_are_waited_for() {
    let steps = r#"
      { parallel = [
        { name = "fault", steps = [
          { wait = "2s" }, { fault = "cut", on = "passive", network = "public", as = "apart" }, { wait = "3s" },
        ] },
        { name = "look", steps = [{ wait = "1s" }, { expect = "service-online", within = "1s", for = "6s" }] },
      ] },
      { heal = "apart" },
      { expect = "healthy", within = "10s" },
    "#;
    let (done, world) = together(Fake::new(), steps, "");
    let report = &done.report;
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.why);
    assert_eq!(check(report, "step 1").detail, "fault: 3 steps; look: 2 steps");
    assert!(check(report, "step 1 fault 2").text.starts_with("fault = \"cut\""));
    assert_eq!(check(report, "step 1 look 2").verdict, Verdict::Pass);
    // 2 s and 3 s beside 1 s and 6 s take 7 s.
    let fault = &done.history.faults[0];
    assert_eq!((done.history.faults.len(), fault.begin_us), (1, 2 * S));
    let healed = fault.end_us.unwrap();
    assert!((7 * S..8 * S).contains(&healed), "{healed}");
    assert!(done.history.observations.windows(2).all(|w| w[0].t_us <= w[1].t_us));
    assert!(done.history.marks.iter().any(|m| m.label.as_deref() == Some("apart")));
    assert!(world.faults.is_empty());
}

#[test]
fn the_first_failure_ends_the_others() {
    for (bad, verdict) in [
        (r#"{ expect = "service-offline", within = "2s" }"#, Verdict::Fail),
        (r#"{ until = "load.acks >= 100000", within = "2s" }"#, Verdict::Unknown),
    ] {
        let steps = format!(
            r#"{{ parallel = [
              {{ name = "bad", steps = [{bad}] }},
              {{ name = "long", steps = [{{ wait = "60s" }}, {{ fault = "freeze", on = "a" }}] }},
            ] }}, {{ wait = "50s" }}"#
        );
        let (done, _) = together(Fake::new(), &steps, "");
        assert_eq!(done.report.verdict, verdict, "{:?}", done.report.why);
        let step = check(&done.report, "step 1");
        assert_eq!(step.verdict, verdict);
        assert!(step.detail.starts_with("bad: step 1 bad 1: "), "{}", step.detail);
        assert!(
            step.detail.ends_with("long: ended because another one was"),
            "{}",
            step.detail
        );
        assert!(done.history.faults.is_empty(), "nothing more is begun");
        assert!(done.report.checks.iter().all(|c| c.id != "step 2"));
        assert!(done.history.observations.last().unwrap().t_us < 20 * S);
    }
}

/// What must hold outside is judged while branches do something, and what a branch asks goes on behind it.
#[test]
fn what_must_hold_is_looked_at_in_branches_and_behind_them() {
    let branch = |steps: &str| {
        format!(
            r#"{{ parallel = [{{ name = "x", steps = [{steps}] }}, {{ name = "y", steps = [{{ wait = "9s" }}] }}] }}"#
        )
    };
    let outside = format!(r#"{{ holds = "service-online" }}, {}"#, branch(r#"{ wait = "9s" }"#));
    let inside = branch(r#"{ holds = "service-online", as = "up" }, { wait = "1s" }"#);
    let released = format!(r#"{inside}, {{ release = "up" }}, {{ wait = "9s" }}"#);
    let behind = format!(r#"{inside}, {{ wait = "9s" }}"#);
    for (steps, gone, verdict) in [
        (&outside, 4 * S..5 * S, Verdict::Fail),
        (&outside, 0..0, Verdict::Pass),
        // Behind the end of its branch, before that of the other one.
        (&inside, 4 * S..5 * S, Verdict::Fail),
        (&inside, 0..0, Verdict::Pass),
        (&behind, 12 * S..13 * S, Verdict::Fail),
        (&released, 12 * S..13 * S, Verdict::Pass),
    ] {
        let mut world = Fake::new();
        world.gone = gone;
        let (done, _) = together(world, steps, "");
        assert_eq!(done.report.verdict, verdict, "{steps}: {:?}", done.report.why);
        if verdict == Verdict::Fail {
            assert!(done.report.why.unwrap().starts_with("holds "), "{steps}");
        }
    }
}

#[test]
fn a_person_who_stops_ends_all_branches() {
    let mut world = Fake::new();
    world.interrupt_at = Some(5 * S);
    let steps = r#"{ parallel = [
      { name = "x", steps = [{ fault = "freeze", on = "b" }, { wait = "60s" }] },
      { name = "y", steps = [{ wait = "60s" }] },
    ] }"#;
    let mut world = Together::new(world);
    let e = run(&mut world, &scenario(steps, ""), 7).unwrap_err();
    assert!(matches!(e, Error::Interrupted));
    let world = world.into_inner();
    assert!(world.faults.is_empty() && world.healed.len() == 1);
}

/// Another branch may undo a fault; the record that is closed counts.
#[test]
fn a_fault_of_one_branch_that_another_one_undoes_is_closed() {
    let steps = r#"{ parallel = [
      { name = "x", steps = [{ fault = "cut", on = "b", network = "public" }, { wait = "4s" }] },
      { name = "y", steps = [{ wait = "2s" }, { heal = "all" }] },
    ] }"#;
    let (done, _) = together(Fake::new(), steps, "");
    assert_eq!(done.report.verdict, Verdict::Pass, "{:?}", done.report.why);
    assert_eq!(done.history.faults.len(), 1);
    assert_eq!(done.history.faults[0].end_us, Some(2 * S));
}

#[test]
fn a_world_that_does_one_thing_after_the_other_leaves_it_open() {
    let steps =
        r#"{ parallel = [{ name = "x", steps = [{ wait = "1s" }] }, { name = "y", steps = [{ wait = "1s" }] }] }"#;
    let report = ran(&mut Fake::new(), steps);
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.why.unwrap().contains("one thing is done after the other"));
}
