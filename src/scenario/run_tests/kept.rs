//! Samples: kept, told, and compared with.

use super::*;

const S: u64 = 1_000_000;

#[test]
fn what_was_sampled_is_kept_and_compared_with() {
    let steps = |end: &str| {
        format!(
            r#"{{ wait = "4s" }}, {{ sample = "copies.0.inspected", on = "b", as = "then" }}, {{ wait = "3s" }},
            {{ expect = "copies.inspected > then and then >= 4", within = "1s" }}, {end}"#
        )
    };
    let mut world = Fake::new();
    let done = run(&mut world, &scenario(&steps(r#"{ holds = "then == 4" }"#), ""), 7).unwrap();
    assert_eq!(done.report.verdict, Verdict::Pass, "{:?}", done.report.why);
    let [sample] = done.history.samples.as_slice() else {
        panic!("{:?}", done.history.samples);
    };
    assert_eq!((sample.label.as_deref(), sample.node.as_str()), (Some("then"), "node2"));
    assert_eq!(
        (&sample.value, sample.path.as_str()),
        (&serde_json::json!(4), "copies.0.inspected")
    );
    assert!(world.notes.contains(&"scenario.sample".to_owned()));
    let step = done.report.checks.iter().find(|c| c.id == "step 2").unwrap();
    assert_eq!(step.detail, "copies.0.inspected on node2 = 4");
    let report = ran(
        &mut Fake::new(),
        &steps(r#"{ expect = "copies.inspected < then", within = "2s" }"#),
    );
    assert_eq!(report.verdict, Verdict::Fail);
}

#[test]
fn a_field_that_nobody_knows_leaves_it_open() {
    let steps = r#"{ sample = "hub.queued", on = "a", as = "then" }"#;
    let report = ran(&mut Fake::new(), steps);
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.why.unwrap().contains("node1 has no such field"));
    let mut world = Fake::new();
    world.silent = S..90 * S;
    let report = ran(
        &mut world,
        &format!(r#"{{ wait = "2s" }}, {}"#, steps.replace("hub.queued", "epoch")),
    );
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.why.unwrap().contains("node1 does not answer"));
    // Compared with before it is taken, it says nothing.
    let early = r#"{ until = "then == 1", within = "1s" }, { sample = "epoch", on = "a", as = "then" }"#;
    let lab = spec::example("ccr");
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &vocabulary(&lab).unwrap(),
        set: &BTreeMap::new(),
        shelf: None,
    };
    let text = format!("id = \"X\"\ntitle = \"x\"\nsteps = [{early}]");
    let e = parse("x.toml", &text, rules).unwrap_err();
    assert!(e.to_string().contains("there is no `then`"), "{e}");
}
