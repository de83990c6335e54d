mod docs;
mod hostile;
mod payload;
mod resolve;
mod rules;
mod schema;
mod source;

pub(crate) use docs::{entry, with_list};

use super::*;

/// What labs are checked against in tests: the pack `ccr`, the image `debian-12`, a host with enough memory.
pub fn example_context() -> Context {
    let ccr = include_str!("../../../templates/ccr/settings.toml");
    Context {
        images: vec!["debian-12".parse().unwrap()],
        packs: vec![
            PackSettings::parse("ccr".parse().unwrap(), ccr).unwrap(),
            crate::deploy::Pack::load("sentinel").unwrap().settings,
        ],
        host_memory: None,
        checks: crate::preflight::ids(),
    }
}

/// One of the labs under labs/, for tests of every room.
pub fn example(name: &str) -> Lab {
    let source = Source::Embedded(name.parse().unwrap());
    load(&source, &example_context()).unwrap_or_else(|e| panic!("{e}")).lab
}

#[test]
fn the_labs_of_the_tool_hold() {
    for name in embedded() {
        let loaded = load(&Source::Embedded(name), &example_context()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(loaded.warnings, []);
    }
    for name in ["bare", "ccr", "sentinel"] {
        assert!(embedded().iter().any(|n| n.as_str() == name), "{name} is built in");
    }
}

/// A comment in the lab file must not change a snapshot.
fn without_digest(name: &str) -> Lab {
    let lab = example(name);
    assert_eq!(lab.digest.len(), 64);
    Lab {
        digest: String::new(),
        ..lab
    }
}

#[test]
fn lab_ccr_is_resolved() {
    insta::assert_json_snapshot!(without_digest("ccr"));
}

#[test]
fn lab_bare_is_resolved() {
    insta::assert_json_snapshot!(without_digest("bare"));
}

#[test]
fn the_settings_of_ccr_are_those_of_the_contract() {
    use ccr_contract::config::Settings;
    let lab = example("ccr").runtime.unwrap().settings;
    let declared = example_context().packs[0].defaults();
    assert_eq!(lab, declared, "lab ccr writes every default out");
    let settings: Settings = serde_json::from_value(serde_json::to_value(&lab).unwrap()).unwrap();
    assert_eq!(settings, Settings::default());
    let fields = serde_json::to_value(Settings::default()).unwrap();
    assert_eq!(
        fields.as_object().unwrap().keys().collect::<Vec<_>>(),
        lab.keys().collect::<Vec<_>>()
    );
}
