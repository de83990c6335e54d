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
