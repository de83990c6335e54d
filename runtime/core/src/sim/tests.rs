use super::*;

/// The tier of continuous integration: every seed holds every invariant, and every run is worth something.
#[test]
fn seeds_hold_every_invariant() {
    for seed in 0..500 {
        let outcome = run(seed);
        assert_eq!(outcome.broken, None, "seed {seed}");
        let c = &outcome.counters;
        assert!(
            c.operations >= 300 && c.closed_generations >= 10 && c.faults >= 3,
            "seed {seed}: {c:?}"
        );
    }
}

#[test]
fn one_seed_is_one_history() {
    let trace = |seed| {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        run_plan(seed, plan, true).trace
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}
