//! Files of steps: where they come from, their parameters, and whose place a mistake is told with.

use super::*;
use std::fs;
use std::path::Path;

/// A scenario in a folder with these files beside it.
fn read_in(dir: &Path, files: &[(&str, &str)], steps: &str) -> Result<Scenario> {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let shelf = Shelf::beside(&dir.join("s.toml"));
    let lab = lab();
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &vocabulary(&lab).unwrap(),
        set: &BTreeMap::new(),
        shelf: Some(&shelf),
    };
    parse("s.toml", &with_steps(steps), rules)
}

fn with(files: &[(&str, &str)], steps: &str) -> Result<Scenario> {
    let dir = tempfile::tempdir().unwrap();
    read_in(dir.path(), files, steps)
}

const CUT: &str = r#"steps = [
  { fault = "{kind}", on = "{who}", as = "{label}" },
  { wait = "{seconds}s" },
  { heal = "{label}" },
]
[parameters]
kind = "power-off"
who = "active"
label = "off"
seconds = 5
"#;

#[test]
fn steps_of_another_file_stand_where_they_are_included() {
    let steps = r#"{ wait = "1s" },
      { include = "steps/cut.toml" },
      { include = "steps/cut.toml", with = { kind = "freeze", label = "frozen", seconds = 7 } },
      { repeat = 2, steps = [{ include = "steps/cut.toml", with = { label = "again" } }] }"#;
    let s = with(&[("steps/cut.toml", CUT)], steps).unwrap_or_else(|e| panic!("{e}"));
    let texts: Vec<&str> = s.steps.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts.len(), 13);
    assert_eq!(texts[1], r#"fault = "power-off", on = "active", as = "off""#);
    assert_eq!(texts[4], r#"fault = "freeze", on = "active", as = "frozen""#);
    assert_eq!(texts[11], r#"round 2 of 2: wait = "5s""#);
    let places: Vec<_> = s.steps.iter().map(|s| (s.file.as_deref(), s.line)).collect();
    assert_eq!(
        places[..3],
        [(None, 4), (Some("steps/cut.toml"), 2), (Some("steps/cut.toml"), 3)]
    );
    assert_eq!(s.parts.keys().collect::<Vec<_>>(), ["steps/cut.toml"]);
}

#[test]
fn a_file_includes_what_is_beside_it() {
    let outer = r#"steps = [{ include = "deeper/inner.toml", with = { who = "{who}" } }]
[parameters]
who = "b""#;
    let inner = "steps = [{ fault = \"freeze\", on = \"{who}\" }]\n[parameters]\nwho = \"a\"\n";
    let files = [("x/outer.toml", outer), ("x/deeper/inner.toml", inner)];
    let s = with(&files, r#"{ include = "x/outer.toml" }"#).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(s.steps[0].file.as_deref(), Some("x/deeper/inner.toml"));
    assert!(s.steps[0].text.ends_with(r#"on = "b""#), "{}", s.steps[0].text);
}

/// Each mistake is told once, in the file that has it.
#[test]
fn mistakes_have_their_place_in_the_file_that_has_them() {
    let bad = "steps = [\n  { wait = \"5x\" },\n  { expect = \"healthy\" },\n]\n";
    let steps = r#"{ wait = "6y" }, { include = "bad.toml" }, { include = "bad.toml" }"#;
    let text = with(&[("bad.toml", bad)], steps).unwrap_err().to_string();
    for place in ["[s.toml:4:", "[bad.toml:2:", "[bad.toml:3:"] {
        assert_eq!(text.matches(place).count(), 1, "{place}: {text}");
    }
    // What is well beside a file that is not is no mistake.
    let text = with(&[("bad.toml", "steps = 7")], r#"{ include = "bad.toml" }"#)
        .unwrap_err()
        .to_string();
    assert!(text.contains("[bad.toml:1:") && !text.contains("s.toml:4"), "{text}");
    for (part, why) in [
        ("", "steps"),
        ("steps = []\nid = \"X\"", "id"),
        ("steps = [{ wait = \"{x}s\" }]", "there is no parameter `x`"),
        ("steps = [{ wait = \"1s\" }]\n[parameters]\nx = 1", "used nowhere"),
    ] {
        let text = with(&[("bad.toml", part)], r#"{ include = "bad.toml" }"#)
            .unwrap_err()
            .to_string();
        assert!(text.contains(why) && text.contains("bad.toml"), "{part}: {text}");
    }
}

#[test]
fn what_is_given_must_be_a_parameter_of_its_type() {
    for (given, why) in [
        ("with = { nobody = 1 }", "the file has no parameter `nobody`"),
        ("with = { seconds = \"5\" }", "`seconds` is a number, not a text"),
        ("with = { who = [1] }", "`who` is a text, not a list"),
        ("with = 7", "a table of parameters"),
        ("as = \"x\"", "`as` does not belong to `include`"),
    ] {
        let steps = format!(r#"{{ include = "cut.toml", {given} }}"#);
        let text = with(&[("cut.toml", CUT)], &steps).unwrap_err().to_string();
        assert!(text.contains(why) && text.contains("s.toml:4"), "{given}: {text}");
    }
}

#[test]
fn hostile_paths_are_refused() {
    for path in [
        "",
        "/etc/passwd.toml",
        "../s.toml",
        "a/../b.toml",
        "./a.toml",
        "a.txt",
        "a\\\\b.toml",
        "a\\u0000.toml",
        "events.jsonl/a.toml",
        "scenario.toml",
    ] {
        let e = with(&[], &format!("{{ include = \"{path}\" }}")).unwrap_err();
        assert!(e.to_string().contains("cannot be included"), "{path}: {e}");
    }
    let long = format!("{}.toml", "a".repeat(200));
    assert!(
        with(&[], &format!("{{ include = \"{long}\" }}"))
            .unwrap_err()
            .to_string()
            .contains("200 bytes")
    );
    let none = with(&[], r#"{ include = "none.toml" }"#).unwrap_err();
    assert_eq!(none.exit_code(), 2);
    assert!(none.to_string().contains("s.toml:4"), "{none}");
    assert!(
        read(&with_steps(r#"{ include = "a.toml" }"#))
            .unwrap_err()
            .to_string()
            .contains("in no folder")
    );
}

#[test]
fn links_out_of_the_folder_and_things_that_are_no_files_are_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("x.toml"), "steps = [{ wait = \"1s\" }]").unwrap();
    std::os::unix::fs::symlink(other.path(), dir.path().join("out")).unwrap();
    let e = read_in(dir.path(), &[], r#"{ include = "out/x.toml" }"#).unwrap_err();
    assert!(e.to_string().contains("out of the scenario's folder"), "{e}");
    std::os::unix::fs::symlink("in.toml", dir.path().join("link.toml")).unwrap();
    let files = [("in.toml", "steps = [{ wait = \"1s\" }]")];
    read_in(dir.path(), &files, r#"{ include = "link.toml" }"#).unwrap_or_else(|e| panic!("{e}"));
    fs::create_dir(dir.path().join("folder.toml")).unwrap();
    assert!(read_in(dir.path(), &[], r#"{ include = "folder.toml" }"#).is_err());
}

#[test]
fn circles_and_floods_are_refused() {
    let text = with(
        &[
            ("a.toml", r#"steps = [{ include = "b.toml" }]"#),
            ("b.toml", r#"steps = [{ include = "a.toml" }]"#),
        ],
        r#"{ include = "a.toml" }"#,
    )
    .unwrap_err()
    .to_string();
    assert!(
        text.contains("a.toml → b.toml → a.toml") && text.contains("[b.toml:1:"),
        "{text}"
    );
    // Each of these files includes the next one ten times.
    let names: Vec<String> = (0..7).map(|i| format!("f{i}.toml")).collect();
    let texts: Vec<String> = (1..8)
        .map(|i| format!("steps = [{}]", format!("{{ include = \"f{i}.toml\" }},").repeat(10)))
        .collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .zip(&texts)
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    let text = with(&files, r#"{ include = "f0.toml" }"#).unwrap_err().to_string();
    assert!(text.contains("100 times at most"), "{text}");
}

#[test]
fn a_lab_has_its_files_beside_its_scenarios() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("scenarios/steps");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("cut.toml"), CUT).unwrap();
    let text = with_steps(r#"{ include = "steps/cut.toml" }"#);
    fs::write(dir.path().join("scenarios/X.toml"), text).unwrap();
    let source = Source::Folder(dir.path().to_owned());
    let all = select(&source, &lab(), &[], &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((all.len(), all[0].steps.len()), (1, 3));
}
