//! Commands in machines: how they end, and what is said of it.

use super::*;
use crate::guest::Output;

fn ends(status: i32, stdout: impl Into<Vec<u8>>, stderr: impl Into<Vec<u8>>) -> Fake {
    let mut world = Fake::new();
    world.ends = Output {
        status,
        stdout: stdout.into(),
        stderr: stderr.into(),
    };
    world
}

/// The verdict of a step that runs a command, and what was seen.
fn step(world: &mut Fake, more: &str) -> (Verdict, String) {
    let step = format!("{{ exec = [\"look\", \"a b\", \"$(c)\"], on = \"passive\", within = \"10s\"{more} }}");
    let report = ran(world, &step);
    let check = report.checks.into_iter().find(|c| c.id == "step 1").unwrap();
    assert_eq!(report.verdict, check.verdict);
    (check.verdict, check.detail)
}

#[test]
fn a_command_runs_in_the_machine_that_has_the_role() {
    let mut world = ends(0, "well\n", "");
    world.slowness = Slowness::new(3.0);
    assert_eq!(step(&mut world, ""), (Verdict::Pass, "status 0 on node2".into()));
    let argv = ["look", "a b", "$(c)"].map(str::to_owned).to_vec();
    let within = Duration::from_secs(30);
    assert_eq!(
        world.commands,
        [("node2".to_owned(), argv, within)],
        "a slow host has more time"
    );
}

#[test]
fn its_status_and_its_output_must_be_those_that_are_asked_for() {
    for (status, more, verdict) in [
        (0, "", Verdict::Pass),
        (3, "", Verdict::Fail),
        (137, "", Verdict::Fail),
        (3, ", status = 3", Verdict::Pass),
        (0, ", status = 3", Verdict::Fail),
        (137, ", status = \"any\"", Verdict::Pass),
        (0, ", output = \"is act\"", Verdict::Pass),
        (0, ", output = \"inactive\"", Verdict::Fail),
        (3, ", status = \"any\", output = \"inactive\"", Verdict::Fail),
        (3, ", output = \"is act\"", Verdict::Fail),
        // What it complains about is not what it prints.
        (0, ", output = \"warning\"", Verdict::Fail),
    ] {
        let (is, detail) = step(&mut ends(status, "it is active\n", "a warning\n"), more);
        assert_eq!(is, verdict, "{status}{more}: {detail}");
    }
    let (_, detail) = step(&mut ends(3, "x\n", "first\n\n second\nthird\n"), "");
    assert_eq!(detail, "status 3 on node2, not 0: first | second | third");
    let (_, detail) = step(&mut ends(0, "", "third\n"), ", output = \"\\u001b x\"");
    assert_eq!(
        detail,
        "status 0 on node2, without `\\u{1b} x` in its output: not a word"
    );
}

#[test]
fn a_machine_that_does_not_answer_leaves_it_open() {
    for more in ["", ", status = \"any\"", ", status = 1"] {
        let mut world = Fake::new();
        world.lost = true;
        let (verdict, detail) = step(&mut world, more);
        assert_eq!(verdict, Verdict::Unknown);
        assert!(detail.contains("no word from it"), "{detail}");
    }
}

#[test]
fn hostile_output_is_cut_and_harmless() {
    let evil = "\x1b]0;x\x07\u{202e}\u{9b}31m\0 a\r\n".repeat(1 << 16);
    let bytes: Vec<u8> = (0..1 << 20).map(|i| (i % 256) as u8).collect();
    for said in [evil.into_bytes(), bytes, vec![b'x'; 1 << 20], vec![b'\n'; 1 << 20]] {
        for (mut world, more) in [
            (ends(1, said.clone(), ""), ""),
            (ends(1, "", said.clone()), ""),
            (ends(0, said.clone(), ""), ", output = \"never said\""),
        ] {
            let (verdict, detail) = step(&mut world, more);
            assert_eq!(verdict, Verdict::Fail);
            assert!(detail.chars().count() < 800, "{}", detail.len());
            assert!(!detail.contains(crate::diagnostic::is_unprintable), "{detail:?}");
            assert!(!detail.contains(['\n', '\t']), "{detail:?}");
        }
    }
    let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
    let (_, detail) = step(&mut ends(1, many, ""), "");
    assert!(
        detail.ends_with(": line 95 | line 96 | line 97 | line 98 | line 99"),
        "{detail}"
    );
}
