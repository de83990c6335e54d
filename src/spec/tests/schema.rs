//! The checked-in JSON schema is that of the types, and says no more and no less than they do.

use super::super::*;
use super::example_context;
use std::path::Path;

const SCHEMA: &str = "labs/lab.schema.json";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&schema().to_value()).unwrap()
}

fn as_json(text: &str) -> serde_json::Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

#[test]
fn the_checked_in_schema_is_current() {
    let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    let path = root().join(SCHEMA);
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "{SCHEMA} is old: run the test again with UPDATE_SCHEMA=1");
}

/// Text blocks ` ```toml ` of a page that are whole lab files.
fn snippets(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.trim_end() == "```toml" {
            let block: Vec<&str> = lines.by_ref().take_while(|l| l.trim_end() != "```").collect();
            if block.first().is_some_and(|l| l.starts_with("schema")) {
                found.push(block.join("\n"));
            }
        }
    }
    found
}

#[test]
fn every_lab_and_every_snippet_holds() {
    let validator = validator();
    let mut pages: Vec<_> = std::fs::read_dir(root().join("docs"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    pages.push(root().join("README.md"));
    pages.retain(|p| p.is_file() && p.extension().is_some_and(|e| e == "md"));
    let mut checked = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let blocks = snippets(&text).into_iter();
        checked.extend(blocks.map(|s| (page.display().to_string(), s)));
    }
    for name in embedded() {
        let source = Source::Folder(root().join("labs").join(name.as_str()));
        checked.push((source.file_name(), source.lab_file().unwrap()));
    }
    assert!(
        checked.len() >= 4,
        "the labs and the snippets of docs/lab-file.md are there"
    );
    for (place, text) in checked {
        parse(&place, &text, &example_context()).unwrap_or_else(|e| panic!("{place}: {e}"));
        let errors: Vec<String> = validator.iter_errors(&as_json(&text)).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{place}: {errors:?}");
    }
}

#[test]
fn the_schema_refuses_what_the_types_refuse() {
    let validator = validator();
    let net = "[networks.n]\nsubnet = \"10.0.0.0/24\"\n";
    for (bad, why) in [
        ("schema = 1", "no name"),
        ("schema = 1\nname = \"../x\"", "a path"),
        ("schema = 1\nname = \"x\"\nnodez = {}", "an unknown key"),
        ("schema = 1\nname = \"x\"\n[nodes.a]\nvcpus = 0", "no processor"),
        ("schema = 1\nname = \"x\"\n[nodes.a]\nmemory = \"1 kb\"", "a wrong unit"),
        ("schema = 1\nname = \"x\"\n[nodes.A]", "a name in capitals"),
        (
            "schema = 1\nname = \"x\"\n[nodes.a]\nrun = [\"rm x\"]",
            "a shell string",
        ),
        ("schema = 1\nname = \"x\"\n[nodes.a]\nrun = [[]]", "an empty command"),
        (
            "schema = 1\nname = \"x\"\n[nodes.a]\nfiles = { \"etc/x\" = \"\" }",
            "a relative path",
        ),
        (
            "schema = 1\nname = \"x\"\n[nodes.a]\npackages = [\"a b\"]",
            "a package with a space",
        ),
    ] {
        assert!(!validator.is_valid(&as_json(bad)), "the schema takes {why}");
        assert!(parse("x", bad, &example_context()).is_err(), "the types take {why}");
    }
    let good = format!(
        "schema = 1\nname = \"x\"\n{net}[nodes.a]\nnetworks = [\"n\"]\nrun = [[\"true\"]]\nfiles = {{ \"/etc/x\" = \"y\" }}\npackages = [\"g++\"]"
    );
    assert!(validator.is_valid(&as_json(&good)));
    parse("x", &good, &example_context()).unwrap_or_else(|e| panic!("{e}"));
}
