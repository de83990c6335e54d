//! Rounds: each is done, and a label means the step in the last one that was begun.

use super::*;

const S: u64 = 1_000_000;

#[test]
fn every_round_is_done_and_named() {
    let mut world = Fake::new();
    let steps = r#"
      { repeat = 3, steps = [
        { fault = "cut", on = "passive", network = "public", as = "apart" },
        { wait = "2s" },
        { heal = "apart" },
      ] },
      { expect = "healthy", within = "10s" },
    "#;
    let done = run(&mut world, &scenario(steps, ""), 7).unwrap();
    assert_eq!(done.report.verdict, Verdict::Pass, "{:?}", done.report.why);
    let faults = &done.history.faults;
    assert_eq!(faults.len(), 3);
    assert!(faults.windows(2).all(|w| w[0].end_us.unwrap() <= w[1].begin_us));
    let steps: Vec<&str> = done
        .report
        .checks
        .iter()
        .filter(|c| c.id.starts_with("step"))
        .map(|c| c.text.split(':').next().unwrap())
        .collect();
    assert_eq!(steps.len(), 10);
    assert_eq!((steps[0], steps[8]), ("round 1 of 3", "round 3 of 3"));
    let labels = done
        .history
        .marks
        .iter()
        .filter(|m| m.label.as_deref() == Some("apart"));
    assert_eq!(labels.count(), 3);
}

#[test]
fn what_is_left_of_an_earlier_round_is_undone_and_released_too() {
    let mut world = Fake::new();
    world.gone = 8 * S..9 * S;
    let steps = r#"
      { repeat = 2, steps = [
        { holds = "service-online", as = "up" },
        { fault = "cut", on = "passive", network = "public", as = "apart" },
        { wait = "2s" },
      ] },
      { release = "up" }, { heal = "apart" }, { wait = "10s" },
    "#;
    let done = run(&mut world, &scenario(steps, ""), 7).unwrap();
    assert_eq!(done.report.verdict, Verdict::Pass, "{:?}", done.report.why);
    assert!(done.history.faults.iter().all(|f| f.end_us < Some(5 * S)));
}

#[test]
fn a_round_that_fails_is_the_last_one() {
    let mut world = Fake::new();
    world.gone = 4 * S..90 * S;
    let steps = r#"{ repeat = 9, steps = [{ wait = "3s" }, { expect = "service-online", within = "1s" }] }"#;
    let report = ran(&mut world, steps);
    assert_eq!(report.verdict, Verdict::Fail);
    let steps: Vec<&Check> = report.checks.iter().filter(|c| c.id.starts_with("step")).collect();
    assert_eq!(steps.len(), 4);
    assert!(steps[3].text.starts_with("round 2 of 9: expect"), "{}", steps[3].text);
}

#[test]
fn since_a_step_of_a_repeat_is_since_its_last_round() {
    use ccr_contract::event::EventKind::HubRedelivery;
    let told = |t_us| sample::runtime_event("hub", t_us, &HubRedelivery { count: 3, epoch: 4 });
    let steps = r#"
      { repeat = 3, steps = [{ wait = "4s", as = "round" }] },
      { expect = "event:hub.redelivery", within = "2s", since = "round" },
    "#;
    // The rounds begin at 0 s, 4 s and 8 s.
    for (at, verdict) in [(S, Verdict::Fail), (6 * S, Verdict::Fail), (10 * S, Verdict::Pass)] {
        let mut world = Fake::new();
        world.told = vec![told(at)];
        let report = ran(&mut world, steps);
        let step = report.checks.iter().find(|c| c.id == "step 4").unwrap();
        assert_eq!(step.verdict, verdict, "{at}: {}", step.detail);
    }
}
