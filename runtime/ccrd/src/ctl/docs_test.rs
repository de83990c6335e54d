//! `docs/original.md` names nothing that there is not: tests, scenarios, orders, events, fields of a status. Its counts are right.

use super::client::Cli;
use ccr_contract::event::EventKind;
use clap::Parser;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// What shows a row, in the order of the counts at the page's beginning.
const SHOWN_BY: [&str; 3] = ["*Test*: ", "*Document*: ", "*Not here*: "];

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(Path::new(ROOT).join(path)).ok()
}

/// Each item of a list behind the first heading, on one line.
fn rows(page: &str) -> Vec<String> {
    let (_, sections) = page.split_once("\n## ").unwrap_or_default();
    let items = sections.split("\n- ").skip(1);
    let text = items.map(|item| item.split("\n\n").next().unwrap_or_default());
    text.map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Whether there is such a scenario, or such a function in a file below the root or the core.
fn is_there(test: &str) -> bool {
    let Some((file, name)) = test.trim_matches('`').split_once("::") else {
        let scenario = test.starts_with('F') && test.chars().all(char::is_alphanumeric);
        return scenario && read(format!("labs/ccr/scenarios/{test}.toml")).is_some();
    };
    let text = read(file).or_else(|| read(Path::new("runtime/core/src").join(file)));
    text.is_some_and(|t| t.contains(&format!("fn {name}(")))
}

/// Whether what stands between backquotes is there, where it is an order, a field of a status or an event.
fn is_right(word: &str, fields: &str) -> bool {
    let layers = ["cluster", "service", "log", "database", "copy", "hub"];
    if word.starts_with("ccrctl ") {
        Cli::try_parse_from(word.split_whitespace()).is_ok()
    } else if let Some(path) = word.strip_prefix("status.") {
        path.split('.').all(|f| fields.contains(&format!("pub {f}:")))
    } else if word.split_once('.').is_some_and(|(layer, _)| layers.contains(&layer)) && !word.ends_with(".json") {
        EventKind::SHAPES.iter().any(|(name, _)| *name == word)
    } else {
        true
    }
}

fn findings(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut counts = [0; 3];
    for row in rows(page) {
        let shown: Vec<_> = SHOWN_BY
            .into_iter()
            .enumerate()
            .filter(|(_, by)| row.contains(by))
            .collect();
        let [(kind, by)] = shown[..] else {
            found.push(format!("not shown by exactly one of {SHOWN_BY:?}: {row}"));
            continue;
        };
        counts[kind] += 1;
        let (_, by_what) = row.split_once(by).unwrap_or_default();
        match kind {
            0 => found.extend(
                by_what
                    .split(", ")
                    .filter(|t| !is_there(t))
                    .map(|t| format!("no test {t}: {row}")),
            ),
            1 if !by_what.contains("](") => found.push(format!("no link to a document: {row}")),
            _ => {}
        }
    }
    let [test, document, not_here] = counts;
    let all: usize = counts.iter().sum();
    let counted = format!(
        "Of {all} rows {test} are shown by a test, {document} only by a document, and {not_here} are not here."
    );
    if !page.split_whitespace().collect::<Vec<_>>().join(" ").contains(&counted) {
        found.push(format!("the page does not say: {counted}"));
    }
    let fields = read("runtime/contract/src/status.rs").unwrap_or_default();
    let words = page.split('`').skip(1).step_by(2);
    found.extend(
        words
            .filter(|w| !is_right(w, &fields))
            .map(|w| format!("there is no `{w}`")),
    );
    found
}

#[test]
fn the_page_of_the_original_names_what_there_is() {
    let page = read("docs/original.md").unwrap();
    assert_eq!(findings(&page), Vec::<String>::new());
    assert!(rows(&page).len() > 50);
}

#[test]
fn a_wrong_name_on_the_page_of_the_original_is_found() {
    let page = "Of 1 rows 1 are shown by a test, 0 only by a document,\nand 0 are not here.\n\n## Setup\n\
        - **000** a move → `ccrctl move --comment x`, `service.move`,\n  `status.cluster.votes`. *Test*: F01,\n  \
        `sim/tests.rs::seeds_hold_every_invariant`, `runtime/core/tests/walls.rs::the_core_has_no_import_circle`\n";
    assert_eq!(findings(page), Vec::<String>::new());
    for (right, wrong) in [
        ("every_invariant", "every_invariants"),
        ("sim/tests.rs", "sim/test.rs"),
        ("F01", "F99"),
        ("F01", "../lab"),
        ("ccrctl move", "ccrctl mvoe"),
        ("`ccrctl move --comment x`", "`ccrctl move`"),
        ("service.move", "service.moved"),
        ("cluster.votes", "cluster.voters"),
        ("Of 1 rows", "Of 2 rows"),
        ("*Test*", "*Document*"),
        ("*Test*: ", ""),
        ("*Test*: ", "*Not here*: nothing. *Test*: "),
    ] {
        let damaged = page.replacen(right, wrong, 1);
        assert_ne!(damaged, page, "{right}");
        assert!(!findings(&damaged).is_empty(), "{wrong}");
    }
}
