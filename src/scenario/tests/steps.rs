//! Steps of a file: those that read, and what is said of those that do not.

use super::*;
use crate::units::Span;

#[test]
fn a_command_has_arguments_a_machine_a_time_and_an_end() {
    let steps = r#"{ exec = ["sh", "-c", "echo 'a b' | wc -l"], on = "active", within = "10s" },
      { exec = ["false"], on = "hub", within = "1 min", status = 1, output = "x", as = "no" },
      { exec = ["true"], on = "witness", within = "1s", status = "any" }"#;
    let read = read(&with_steps(steps)).unwrap_or_else(|e| panic!("{e}"));
    let Action::Exec(first) = &read.steps[0].action else {
        panic!("{:?}", read.steps[0]);
    };
    assert_eq!(first.argv, ["sh", "-c", "echo 'a b' | wc -l"]);
    assert_eq!((first.on.as_str(), first.within), ("active", Span::secs(10)));
    let ends: Vec<_> = read
        .steps
        .iter()
        .filter_map(|s| match &s.action {
            Action::Exec(e) => Some((e.status, e.output.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(Some(0), None), (Some(1), Some("x")), (None, None)]);
}

#[test]
fn what_is_wrong_with_a_command_is_found() {
    let rest = r#"on = "a", within = "1s""#;
    for (step, why) in [
        (format!(r#"exec = "ls /", {rest}"#), "a list of texts"),
        (format!(r#"exec = [], {rest}"#), "a list of texts"),
        (format!(r#"exec = [""], {rest}"#), "a list of texts"),
        (format!(r#"exec = ["sleep", 5], {rest}"#), "a list of texts"),
        (format!(r#"exec = ["ls", "a\u0000b"], {rest}"#), "a list of texts"),
        (format!(r#"exec = ["ls"], {rest}, status = 256"#), "from 0 to 255"),
        (format!(r#"exec = ["ls"], {rest}, status = -1"#), "from 0 to 255"),
        (format!(r#"exec = ["ls"], {rest}, status = "all""#), "from 0 to 255"),
        (format!(r#"exec = ["ls"], {rest}, output = """#), "empty text"),
        (format!(r#"exec = ["ls"], {rest}, output = 3"#), "`output` is a text"),
        (
            format!(r#"exec = ["ls"], {rest}, for = "1s""#),
            "`for` does not belong to `exec`",
        ),
        (r#"exec = ["ls"], within = "1s""#.to_owned(), "in which machine"),
        (r#"exec = ["ls"], on = "a""#.to_owned(), "in which time"),
        (r#"exec = ["ls"], on = "z", within = "1s""#.to_owned(), "`z` is no role"),
    ] {
        let report = report(&with_steps(&format!("{{ {step} }}")));
        assert!(report.contains(why), "{step}: {report}");
    }
}

#[test]
fn a_repeat_is_its_steps_once_a_round() {
    let steps = r#"{ wait = "1s" },
      { repeat = 2, steps = [
        { fault = "freeze", on = "active", as = "frozen" },
        { heal = "frozen" },
      ] },
      { expect = "event:cluster.path", within = "1s", since = "frozen" }"#;
    let read = read(&with_steps(steps)).unwrap_or_else(|e| panic!("{e}"));
    let shown: Vec<(&str, usize, Option<&str>)> = read
        .steps
        .iter()
        .map(|s| (s.text.as_str(), s.line, s.label.as_deref()))
        .collect();
    let fault = r#"fault = "freeze", on = "active", as = "frozen""#;
    let heal = r#"heal = "frozen""#;
    let of = |round, text| format!("round {round} of 2: {text}");
    let (f1, h1, f2, h2) = (of(1, fault), of(1, heal), of(2, fault), of(2, heal));
    assert_eq!(
        shown[..5],
        [
            (r#"wait = "1s""#, 4, None),
            (f1.as_str(), 6, Some("frozen")),
            (h1.as_str(), 7, None),
            (f2.as_str(), 6, Some("frozen")),
            (h2.as_str(), 7, None),
        ]
    );
    assert_eq!(shown.len(), 6);
    assert_eq!(read.steps[1].action, read.steps[3].action);
    let most = with_steps(r#"{ repeat = 100, steps = [{ wait = "1s" }] }"#);
    assert_eq!(super::read(&most).unwrap().steps.len(), 100);
}

#[test]
fn what_is_wrong_with_a_repeat_is_found_with_its_place() {
    for (step, why) in [
        (r#"{ repeat = 0, steps = [{ wait = "1s" }] }"#, "from 1 to 100, not 0"),
        (
            r#"{ repeat = 101, steps = [{ wait = "1s" }] }"#,
            "from 1 to 100, not 101",
        ),
        (r#"{ repeat = "2", steps = [{ wait = "1s" }] }"#, "`repeat` is a number"),
        (r#"{ repeat = 2 }"#, "does not say what"),
        (r#"{ repeat = 2, steps = [] }"#, "a list of steps"),
        (r#"{ repeat = 2, steps = { wait = "1s" } }"#, "a list of steps"),
        (r#"{ repeat = 2, steps = ["wait"] }"#, "a step is a table, not a text"),
        (
            r#"{ repeat = 2, steps = [{ repeat = 2, steps = [{ wait = "1s" }] }] }"#,
            "holds no other one",
        ),
        (
            r#"{ repeat = 2, steps = [{ wait = "1s" }], as = "x" }"#,
            "`as` does not belong to `repeat`",
        ),
        (r#"{ repeat = 2, steps = [{ wait = "1s" }], wait = "1s" }"#, "has both"),
        (r#"{ wait = "1s", steps = [] }"#, "`steps` does not belong to `wait`"),
        // A label is written once in a file, and a step names only those before it.
        (
            r#"{ wait = "1s", as = "x" }, { repeat = 2, steps = [{ wait = "1s", as = "x" }] }"#,
            "another step has it already",
        ),
        (
            r#"{ repeat = 2, steps = [{ heal = "x" }, { fault = "freeze", on = "a", as = "x" }] }"#,
            "unknown fault to heal `x`",
        ),
    ] {
        let report = report(&with_steps(step));
        assert!(report.contains(why), "{step}: {report}");
    }
    // All that is wrong in all of them, each where it is.
    let two = r#"{ repeat = 0, steps = [
        { wait = "1 sec" },
        { fault = "feeze", on = "a" } ] }"#;
    let report = report(&with_steps(two));
    for place in ["s.toml:4:14", "s.toml:5:18", "s.toml:6:19"] {
        assert!(report.contains(place), "{place}: {report}");
    }
}

#[test]
fn a_fault_to_heal_is_a_kind_or_a_label_before_it() {
    for (steps, why) in [
        (r#"{ heal = "ct" }"#, "unknown fault to heal `ct`"),
        (
            r#"{ heal = "first" }, { fault = "freeze", on = "a", as = "first" }"#,
            "unknown fault to heal `first`",
        ),
        (
            r#"{ wait = "1s", as = "first" }, { heal = "first" }"#,
            "unknown fault to heal `first`",
        ),
    ] {
        assert!(report(&with_steps(steps)).contains(why), "{steps}");
    }
}

#[test]
fn branches_have_names_and_steps_and_labels_of_their_own() {
    let steps = r#"{ fault = "freeze", on = "a", as = "before" }, { parallel = [
        { name = "x", steps = [{ heal = "before" }, { fault = "freeze", on = "b", as = "mine" }, { heal = "mine" }] },
        { name = "y", steps = [{ repeat = 2, steps = [{ wait = "1s" }] }] },
      ], as = "both" }, { heal = "mine" }"#;
    let read = read(&with_steps(steps)).unwrap_or_else(|e| panic!("{e}"));
    let Action::Parallel(branches) = &read.steps[1].action else {
        panic!("{:?}", read.steps[1]);
    };
    let shapes: Vec<_> = branches.iter().map(|b| (b.name.as_str(), b.steps.len())).collect();
    assert_eq!(shapes, [("x", 3), ("y", 2)]);
    assert_eq!(read.steps[1].text, "parallel: x, y");
    let y = r#"{ name = "y", steps = [{ wait = "1s" }] }"#;
    let labelled = r#"{ name = "x", steps = [{ fault = "freeze", on = "a", as = "l" }] }"#;
    for (branches, why) in [
        (y.to_owned(), "2 to 8 branches"),
        (format!("{y}, {y}"), "cannot be the name"),
        (format!("{y}, {{ steps = [{{ wait = \"1s\" }}] }}"), "no name"),
        (format!("{y}, {{ name = \"x\" }}"), "does not say what"),
        (format!("{y}, {{ name = \"x\", steps = [] }}"), "a list"),
        (
            format!("{y}, {{ name = \"../x\", steps = [{{ wait = \"1s\" }}] }}"),
            "cannot be the name",
        ),
        (
            format!("{y}, {{ name = \"x\", steps = [{{ workload = \"mail\" }}] }}"),
            "stands in no branch",
        ),
        (
            format!("{labelled}, {{ name = \"z\", steps = [{{ heal = \"l\" }}] }}"),
            "unknown fault to heal `l`",
        ),
        (
            format!("{labelled}, {{ name = \"z\", steps = [{{ wait = \"1s\", as = \"l\" }}] }}"),
            "another step has it already",
        ),
        (
            format!("{y}, {{ name = \"x\", steps = [{{ parallel = [{y}, {labelled}] }}] }}"),
            "holds no other one",
        ),
    ] {
        let report = report(&with_steps(&format!("{{ parallel = [{branches}] }}")));
        assert!(report.contains(why), "{branches}: {report}");
    }
}

/// An order may take what elsewhere is a verb.
#[test]
fn what_an_order_takes_is_no_verb() {
    let step = r#"{ operate = "reseed", on = "passive", wait = true }"#;
    let read = read(&with_steps(step)).unwrap_or_else(|e| panic!("{e}"));
    let Action::Operate { args, .. } = &read.steps[0].action else {
        panic!("{:?}", read.steps[0]);
    };
    assert_eq!(args["wait"], "true");
    let two = report(&with_steps(r#"{ operate = "mount", wait = "5s" }"#));
    assert!(two.contains("the step has both `wait` and `operate`"), "{two}");
}

#[test]
fn what_is_wrong_with_a_sample_is_found() {
    let with = |step: &str| with_steps(&format!("{{ {step} }}"));
    for (step, why) in [
        (r#"sample = "epoch""#, "of which machine"),
        (r#"sample = "epoc", on = "a""#, "did you mean `epoch`"),
        (r#"sample = "service.stat", on = "a""#, "`state`"),
        (r#"sample = "epoch", on = "z""#, "`z` is no role"),
        (r#"sample = "epoch", on = "a", within = "5s""#, "does not belong"),
        (r#"sample = "epoch", on = "a", as = "or""#, "cannot be a label"),
        (r#"sample = "epoch", on = "a", as = "7""#, "cannot be a label"),
    ] {
        let report = report(&with(step));
        assert!(report.contains(why), "{step}: {report}");
    }
    let labels = r#"{ wait = "1s", as = "w" }, { sample = "epoch", on = "a", as = "e" }, { expect = "CONDITION", within = "1s" }"#;
    for (condition, well) in [
        ("cluster.epoch > e", true),
        ("e > 3", true),
        ("e == e", true),
        ("service.state == e", true),
        ("cluster.epoch > w", false),
        ("w > 3", false),
        ("e >", false),
    ] {
        let text = with_steps(&labels.replace("CONDITION", condition));
        assert_eq!(read(&text).is_ok(), well, "{condition}");
    }
}

/// What the pack has no word for is known before any machine runs.
#[test]
fn a_kind_of_file_is_one_of_the_pack() {
    let step = |file: &str| {
        with_steps(&format!(
            r#"{{ fault = "damage-file", on = "a", file = "{file}", how = "flip" }}"#
        ))
    };
    for file in vocabulary(&lab()).unwrap().files {
        read(&step(&file)).unwrap_or_else(|e| panic!("{e}"));
    }
    let report = report(&step("segmnt"));
    assert!(
        report.contains("no file `segmnt`") && report.contains("did you mean `segment`"),
        "{report}"
    );
    assert!(report.contains("[s.toml:4:"), "{report}");
}
