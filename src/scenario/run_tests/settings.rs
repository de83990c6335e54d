//! Settings: made before the first step, and what a lab is worth that did not take them.

use super::*;

const SETTINGS: &str = r#"settings = { dial = "good", heartbeat_ms = 1200 }"#;

#[test]
fn settings_are_made_before_the_first_step() {
    let mut world = Fake::new();
    let scenario = scenario(
        r#"{ move = "b" }, { expect = "service-online", on = "b", within = "9s" }"#,
        SETTINGS,
    );
    let report = run(&mut world, &scenario, 7).unwrap().report;
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.why);
    let orders: Vec<_> = world
        .orders
        .iter()
        .map(|o| (o.word.as_str(), o.args.get("set")))
        .collect();
    let (dial, heartbeat) = ("dial=good".to_owned(), "heartbeat_ms=1200".to_owned());
    assert_eq!(
        orders,
        [("set", Some(&dial)), ("set", Some(&heartbeat)), ("move", None)]
    );
}

/// Then the scenario says nothing, and its steps are left out.
#[test]
fn a_setting_that_is_not_taken_makes_it_unknown() {
    for lost in [false, true] {
        let mut world = Fake::new();
        (world.refuses, world.lost) = (!lost, lost);
        let report = run(&mut world, &scenario(r#"{ move = "b" }"#, SETTINGS), 7)
            .unwrap()
            .report;
        assert_eq!(report.verdict, Verdict::Unknown, "{:?}", report.why);
        assert!(report.why.unwrap().starts_with("setting dial"));
        assert_eq!(world.orders.len(), 1);
    }
}
