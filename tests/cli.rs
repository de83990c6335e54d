//! The command line, without machines: transcripts of the built tool, and the commands that the pages name.

mod on_disk;

use std::path::Path;

/// `tests/cmd/*.trycmd`: what a person types and what comes back, exit code and all.
#[test]
fn transcripts() {
    let home = tempfile::tempdir().unwrap();
    trycmd::TestCases::new()
        .env("FAILOVERLAB_HOME", home.path().display().to_string())
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd");
}

/// `tests/cmd/up/*.trycmd`: the same with the lab `ccr` up, as far as files go. Nothing of it may start a supervisor.
#[test]
fn transcripts_of_a_lab_that_is_up() {
    let home = tempfile::tempdir().unwrap();
    on_disk::lab(home.path(), "ccr", Vec::new());
    trycmd::TestCases::new()
        .env("FAILOVERLAB_HOME", home.path().display().to_string())
        .env("NO_COLOR", "1")
        .case("tests/cmd/up/*.trycmd")
        .run();
    assert!(!home.path().join("run/ccr/s").exists(), "a supervisor was started");
}

/// Every `failoverlab …` in README.md and docs/ is a command line that the tool takes.
#[test]
fn the_pages_name_commands_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|e| e.unwrap().path());
    let mut seen = 0;
    for page in docs
        .chain([root.join("README.md")])
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        for line in std::fs::read_to_string(&page).unwrap().lines() {
            let Some(command) = line.trim_start().strip_prefix("$ failoverlab ") else {
                continue;
            };
            let command = command
                .split(" #")
                .next()
                .unwrap_or_default()
                .split(" | ")
                .next()
                .unwrap_or_default();
            let argv = std::iter::once("failoverlab").chain(command.split_whitespace());
            if let Err(e) = failoverlab::cli::command().try_get_matches_from(argv) {
                panic!("{}: `{line}`: {e}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} command lines were found");
}
