//! Files, waiting and health of a lab without a runtime: what a person reads of what is wrong.

use super::super::*;
use super::example_context;

#[test]
fn what_is_wrong_with_files_waiting_and_health_is_told_with_its_place() {
    let text = r#"schema = 1
name = "x"

[nodes.a]
after = ["b", "nobody"]
[nodes.b]
after = ["c"]
files = { "/etc/x" = { text = "a", template = "b" }, "/etc/y" = { template = "a\n{{ b" }, "/etc/z" = { text = "", mode = "0999" } }
[nodes.c]
after = ["b", "b"]

[health]
must = ["web.a.said ==", "db.a.status == 0", "web.b.status == 0", "web['b'].status == 0"]
probes.web = { run = ["true"], on = ["a"] }
probes.db-1 = { run = ["x"] }
probes.db3 = { run = [] }
"#;
    let report = |text: &str| match parse("lab.toml", text, &example_context()) {
        Err(Error::Invalid(invalid)) => invalid.report,
        other => panic!("{other:?}"),
    };
    let shape = report(text);
    for wrong in [
        "`0999` is no mode",
        "`db-1` is no name in expressions",
        "a list of program and arguments",
    ] {
        assert!(shape.contains(wrong), "{wrong}: {shape}");
    }
    let text = text
        .replace("0999", "0640")
        .replace("db-1", "db2")
        .replace("[] }", "[\"x\"] }");
    insta::assert_snapshot!(report(&text));
}
