//! `docs/scenarios.md` has every word that a scenario may use. UPDATE_DOCS=1 rewrites its lists.

use super::*;
use crate::deploy::{OrderSpec, Parameter};
use crate::fault::Kind;
use crate::spec::{self, entry, with_list};
use crate::verify::{Forbidden, InvariantId};
use std::path::PathBuf;

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/scenarios.md")
}

fn roles() -> Vec<String> {
    ROLES.map(|(role, who)| entry(&format!("`{role}`: {who}"))).to_vec()
}

fn faults() -> Vec<String> {
    let row = |k: Kind| {
        let parameters: Vec<String> = k.parameters().iter().map(|(name, _)| format!("`{name}`")).collect();
        let (what, proof) = k.says();
        let parameters = if parameters.is_empty() {
            String::new()
        } else {
            format!(". *Parameters*: {}", parameters.join(", "))
        };
        entry(&format!("`{k}`: {what}. *Proof*: {proof}{parameters}"))
    };
    Kind::all().map(row).collect()
}

/// Each parameter once, with all kinds that take it and mean the same by it.
fn parameters() -> Vec<String> {
    let mut rows: Vec<((&str, &str), Vec<Kind>)> = Vec::new();
    for kind in Kind::all() {
        for parameter in kind.parameters() {
            match rows.iter_mut().find(|(p, _)| *p == parameter) {
                Some((_, kinds)) => kinds.push(kind),
                None => rows.push((parameter, vec![kind])),
            }
        }
    }
    let row = |((name, what), kinds): ((&str, &str), Vec<Kind>)| {
        let kinds: Vec<String> = kinds.iter().map(|k| format!("`{k}`")).collect();
        entry(&format!("`{name}` ({}): {what}", kinds.join(", ")))
    };
    rows.into_iter().map(row).collect()
}

/// Each order of the pack, with how a scenario writes what it takes.
fn of_the_pack() -> Vec<String> {
    let orders = vocabulary(&spec::example("ccr")).unwrap().orders;
    let said = |p: &Parameter| match p.needed {
        true => format!("`{}`", p.example()),
        false => format!("[`{}`]", p.example()),
    };
    let row = |(word, order): (&String, &OrderSpec)| {
        let takes: Vec<String> = order.takes.iter().map(said).collect();
        let takes = if takes.is_empty() {
            "nothing".to_owned()
        } else {
            takes.join(", ")
        };
        entry(&format!("`{word}`: {takes}"))
    };
    orders.iter().map(row).collect()
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(|w| format!("- `{w}`")).collect()
}

#[test]
fn the_page_names_every_word() {
    let written = std::fs::read_to_string(page()).unwrap();
    let names: Vec<String> = expression::names()
        .map(|(n, what)| entry(&format!("`{n}`: {what}")))
        .collect();
    let invariants: Vec<String> = InvariantId::NAMES
        .iter()
        .map(|n| entry(&format!("`{n}`: {}", InvariantId::parse(n).unwrap().statement())))
        .collect();
    let lists = [
        ("roles", roles()),
        ("orders", of_the_pack()),
        ("faults", faults()),
        ("parameters", parameters()),
        ("names", names),
        ("expectations", words(Expectation::names())),
        ("forbidden", words(Forbidden::NAMES)),
        ("invariants", invariants),
    ];
    let right = lists
        .iter()
        .fold(written.clone(), |p, (name, rows)| with_list(&p, name, rows));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page(), &right).unwrap();
    } else {
        assert_eq!(written, right, "UPDATE_DOCS=1 cargo test the_page_names_every_word");
    }
}

#[test]
fn every_scenario_in_the_docs_reads() {
    let lab = spec::example("ccr");
    let text = std::fs::read_to_string(page()).unwrap();
    // Files that are included are there as text, each with its path in its first line.
    let dir = tempfile::tempdir().unwrap();
    for part in text.split("```text\n# steps/").skip(1) {
        let (name, part) = part.split_once('\n').unwrap();
        std::fs::create_dir_all(dir.path().join("steps")).unwrap();
        std::fs::write(dir.path().join("steps").join(name), part.split("```").next().unwrap()).unwrap();
    }
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &vocabulary(&lab).unwrap(),
        set: &BTreeMap::new(),
        shelf: Some(&Shelf::beside(&dir.path().join("page.toml"))),
    };
    let snippets: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|s| s.split("```").next())
        .collect();
    for snippet in &snippets {
        parse("docs/scenarios.md", snippet, rules).unwrap_or_else(|e| panic!("{e}"));
    }
    let has_example = |verb: &&str| snippets.iter().any(|s| s.contains(&format!("{{ {verb} = ")));
    let missing: Vec<&str> = step::VERBS.into_iter().filter(|v| !has_example(v)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
