//! Parameters: where they stand, what sets them, and what is wrong with them.

use super::*;

fn read_with(text: &str, set: &[(&str, &str)]) -> Result<Scenario> {
    let lab = lab();
    let set = set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &vocabulary(&lab).unwrap(),
        set: &set,
        shelf: None,
    };
    parse("s.toml", text, rules)
}

const FILE: &str = r#"id = "X"
title = "about {rate}"
steps = [
  { workload = "mail", rate = "{rate}", clients = "{clients}", mix = { read = "{clients}" } },
  { repeat = "{rounds}", steps = [{ exec = ["sh", "-c", "${HOME} { x; } {word}"], on = "{who}", within = "{rounds}s" }] },
  { until = "load.acks >= {clients}{rounds}", within = "60s" },
]
require = { events = [{ event = "copy.resynced", on = "{who}" }] }
forbid = ["{word2}"]
sometimes = ["service-online", { event = "copy.resynced", on = "{who}" }]
[parameters]
rate = "20/s"
clients = 4
rounds = 2
who = "a"
word = "{rate}"
word2 = "split-brain"
"#;

fn load(scenario: &Scenario) -> &Workload {
    match &scenario.steps[0].action {
        Action::Load(workload) => workload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_parameter_stands_in_values_and_is_what_was_set() {
    let usual = read_with(FILE, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (load(&usual).rate.0, load(&usual).clients, load(&usual).mix.read),
        (20.0, 4, 4)
    );
    assert_eq!(usual.steps.len(), 4);
    assert_eq!(usual.title, "about {rate}");
    let Action::Exec(exec) = &usual.steps[1].action else {
        panic!("{:?}", usual.steps[1]);
    };
    // Neither braces of other kinds nor what is in a value is looked into.
    assert_eq!(exec.argv[2], "${HOME} { x; } {rate}");
    assert_eq!((exec.on.as_str(), exec.within), ("a", crate::units::Span::secs(2)));
    assert!(
        usual.steps[3].text.starts_with(r#"until = "load.acks >= 42""#),
        "{}",
        usual.steps[3].text
    );
    assert_eq!(usual.require.events[0].on.as_deref(), Some("a"));
    let set = [
        ("rate", "40/s"),
        ("rounds", "3"),
        ("who", "hub"),
        ("of-another-file", "1"),
    ];
    let set = read_with(FILE, &set).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((load(&set).rate.0, set.steps.len()), (40.0, 5));
    assert!(set.steps[0].text.contains(r#"rate = "40/s""#), "{}", set.steps[0].text);
    assert_eq!(
        (set.parameters["rate"].as_str(), set.parameters["clients"].as_str()),
        ("40/s", "4")
    );
    // No value becomes a key, a step or another type.
    let evil = r#"20/s" }, { fault = "power-off", on = "a"#;
    assert_eq!(read_with(FILE, &[("rate", evil)]).unwrap_err().exit_code(), 2);
    assert_eq!(read_with(FILE, &[("word", evil)]).unwrap().steps.len(), 4);
}

#[test]
fn what_is_wrong_with_a_parameter_is_found_with_its_place() {
    let with = |value: &str, parameters: &str| {
        let steps = with_steps(&format!("{{ workload = \"mail\", rate = \"{value}\" }}"));
        format!("{steps}[parameters]\n{parameters}\n")
    };
    for (value, parameters, set, why, place) in [
        ("{rat}", "rate = \"1/s\"", "", "did you mean `rate`", "s.toml:4:31"),
        ("{rat}", "rate = \"1/s\"", "", "`rate` is used nowhere", "s.toml:7:1"),
        ("{rate}", "", "", "no parameter `rate`", "s.toml:4:31"),
        ("1/s", "rate = \"1/s\"", "", "`rate` is used nowhere", "s.toml:7:1"),
        ("{rate}", "rate = [1]", "", "a text, a number", "s.toml:7:8"),
        ("1/s", "Rate = 1", "", "`Rate` cannot be a parameter", "s.toml:7:1"),
        ("{rate}/s", "rate = 1", "fast", "was set to `fast`", "s.toml:7:8"),
        ("{rate}/s", "rate = 1.5", "\u{1b}", "was set to `\\u{1b}`", "s.toml:7:8"),
        ("{rate}", "rate = \"1/s\"", "fast", "fast", "s.toml:4:31"),
        (
            "{rate}",
            "rate = 5",
            "",
            "`rate` is a text, not a number",
            "s.toml:4:31",
        ),
    ] {
        let set: Vec<_> = Some(("rate", set)).filter(|(_, v)| !v.is_empty()).into_iter().collect();
        let report = read_with(&with(value, parameters), &set).unwrap_err().to_string();
        assert!(report.contains(why), "{value} {parameters}: {report}");
        assert!(report.contains(place), "{value} {parameters}: {report}");
        // What follows from a value that cannot be is not told as well.
        let once = why.starts_with("was set to") || why.starts_with("a text, a number");
        assert!(!once || report.matches("×").count() == 1, "{report}");
    }
}

/// One that no scenario has is told; one that some have is enough.
#[test]
fn what_is_set_must_be_a_parameter_of_one_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (with, without) = (
        file("with.toml", FILE),
        file("without.toml", &with_steps("{ wait = \"1s\" }")),
    );
    let set = |name: &str| BTreeMap::from([(name.to_owned(), "5/s".to_owned())]);
    let both = check(&[with.clone(), without.clone()], &lab(), &set("rate")).unwrap();
    assert_eq!(load(&both[0]).rate.0, 5.0);
    let source = Source::Embedded("ccr".parse().unwrap());
    assert!(select(&source, &lab(), std::slice::from_ref(&with), &set("rate")).is_ok());
    for e in [
        check(&[with], &lab(), &set("rat")).unwrap_err(),
        check(&[without], &lab(), &set("rate")).unwrap_err(),
        select(&source, &lab(), &[], &set("rate")).unwrap_err(),
        select(&source, &lab(), &["F00".into()], &set("rate")).unwrap_err(),
    ] {
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("none of the scenarios has it"), "{e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_value_of_a_parameter_is_read_or_refused(value in "\\PC{0,60}", inside in "[{}a-z]{0,20}") {
        let file = FILE.replace("{word}", &inside).replace("word = \"{rate}\"\n", "");
        for name in ["rate", "clients", "rounds", "who", "word2"] {
            if let Err(e) = read_with(&file, &[(name, &value)]) {
                prop_assert_eq!(e.exit_code(), 2);
            }
        }
    }
}
