//! The tuned profile of labs/ccr/README.md keeps what the page says of it.

use ccr_core::sim::plan::{Plan, Step, Times, What, Who};
use ccr_core::sim::run_plan;

/// A time of the page's first settings, in milliseconds, or a number.
fn setting(page: &str, key: &str) -> u64 {
    let (_, block) = page.split_once("```toml\n").expect("the page has settings");
    let (block, _) = block.split_once("```").expect("they end");
    let line = block.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(" = "));
    let value = line
        .and_then(|l| l.split('#').next())
        .expect("the setting is there")
        .trim();
    let digits = value.trim_matches('"').trim_end_matches(" ms");
    digits.parse().expect("it is a number, or whole milliseconds")
}

#[test]
fn the_tuned_profile_answers_within_three_seconds() {
    let page = include_str!("../../../labs/ccr/README.md");
    let tolerance = |key| u32::try_from(setting(page, key)).expect("it is small");
    for seed in 0..20 {
        let mut plan = Plan::calm();
        plan.ops = 374;
        plan.times = Times {
            heartbeat: setting(page, "heartbeat"),
            node_tolerance: tolerance("node-tolerance"),
            interface_tolerance: tolerance("interface-tolerance"),
            lease: setting(page, "lease"),
            arbitration_delay: setting(page, "arbitration-delay"),
            witness_beat: setting(page, "witness-beat"),
            ..Times::default()
        };
        // At any moment between two heartbeats.
        let at_us = 30_000_000 + seed * 37_000;
        plan.steps = vec![Step {
            at_us,
            for_us: 30_000_000,
            what: What::PowerOff(Who::Active),
        }];
        let outcome = run_plan(seed, plan, true);
        assert_eq!(outcome.broken, None, "seed {seed}");
        let off = at_us as f64 / 1e6;
        let mut lines = outcome.trace.iter().filter_map(|l| {
            let (at, what) = l.trim_start().split_once(' ')?;
            Some((at.parse::<f64>().ok()?, what))
        });
        let online = |what: &str| what.contains("service.online epoch");
        let taken_over = lines.find(|(at, what)| *at > off && online(what));
        let answered = lines.find(|(_, what)| what.contains("hub.delivered"));
        let seconds = answered.map(|(at, _)| at - off);
        assert!(
            taken_over.is_some() && seconds.is_some_and(|s| s < 3.0),
            "seed {seed}: {seconds:?} s"
        );
        let moves = outcome
            .trace
            .iter()
            .filter(|l| l.contains("service.online epoch"))
            .count();
        assert_eq!(moves, 2, "seed {seed}: it fails over once, and for a cause");
    }
}
