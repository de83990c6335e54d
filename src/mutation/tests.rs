//! Every file of the catalogue, and patches that do not apply.

use super::*;
use crate::scenario;
use crate::spec::rules::rule;
use crate::spec::{LAB_FILE, example, example_context};
use crate::{preflight, spec};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn ccr() -> Source {
    Source::Embedded("ccr".parse().unwrap())
}

fn all() -> Vec<Mutation> {
    catalogue(&ccr()).unwrap_or_else(|e| panic!("{e}"))
}

fn mutation(text: &str) -> Mutation {
    let head = "id = 'X'\ntitle = 't'\nseverity = 'hidden'\nsource = 's'\nremedy = 'r'\nlesson = 'l'\n";
    spec::decode(&format!("{head}{text}")).unwrap_or_else(|e| panic!("{e:?}"))
}

#[test]
fn every_file_of_the_catalogue_makes_a_lab_that_breaks_what_it_says() {
    let files = ccr().toml_files(FOLDER).unwrap();
    assert!(files.len() > 30, "{}", files.len());
    for ((path, _), m) in files.iter().zip(all()) {
        assert_eq!(
            path.file_stem().unwrap().to_str(),
            Some(m.id.as_str()),
            "the file is named by its id"
        );
        assert!(
            !m.lesson.trim().is_empty() && !m.remedy.is_empty() && !m.source.is_empty(),
            "{}",
            m.id
        );
        assert!(!m.remedy.ends_with('.') && !m.title.ends_with('.'), "{}", m.id);
        for id in &m.preflight {
            assert!(preflight::ids().contains(&id.as_str()), "{}: no check {id}", m.id);
        }
        for id in &m.rules {
            assert!(
                rule(id).is_some_and(|r| r.waivable),
                "{}: no rule {id} to be broken",
                m.id
            );
        }
        let source = applied(ccr(), std::slice::from_ref(&m.id)).unwrap_or_else(|e| panic!("{e}"));
        let loaded = spec::load(&source, &example_context()).unwrap_or_else(|e| panic!("{}: {e}", m.id));
        let broken: BTreeSet<String> = loaded.warnings.iter().map(|w| w.rule.to_owned()).collect();
        assert_eq!(broken, m.rules, "{}", m.id);
        assert_eq!((loaded.lab.mutations.len(), &loaded.lab.mutations[0].id), (1, &m.id));
        assert_eq!(loaded.lab.is_unwell(), !m.healthy);
        let clean = example("ccr");
        assert_ne!(
            crate::plan::Inputs::of(&loaded.lab),
            crate::plan::Inputs::of(&clean),
            "{}",
            m.id
        );
        if m.refused.is_some() {
            assert!(m.shown.is_none() && m.preflight.is_empty(), "{}: nothing is up", m.id);
        }
        if let Some(shown) = &m.shown {
            let chosen = scenario::select(
                &source,
                &loaded.lab,
                std::slice::from_ref(&shown.scenario),
                &BTreeMap::new(),
            );
            assert_eq!(chosen.unwrap_or_else(|e| panic!("{}: {e}", m.id)).len(), 1);
            assert!(!shown.why.is_empty());
            assert!(
                shown.by.is_empty() || shown.verdict == crate::verify::Verdict::Fail,
                "{}",
                m.id
            );
        }
    }
}

#[test]
fn a_lab_that_is_not_misconfigured_has_the_layers_that_it_had() {
    use crate::plan::Layer::{Booted, Healthy};
    let clean = crate::plan::Inputs::of(&example("ccr"));
    let with = |id: &str| {
        let source = applied(ccr(), &[id.to_owned()]).unwrap();
        crate::plan::Inputs::of(&spec::load(&source, &example_context()).unwrap().lab)
    };
    // What is done after the boot begins with the machines of the clean lab, and never ends as it.
    for id in ["M13", "M30", "M70", "R17"] {
        assert_ne!(with(id).key(Healthy), clean.key(Healthy), "{id}");
    }
    for id in ["M13", "M70", "R17"] {
        assert_eq!(with(id).key(Booted), clean.key(Booted), "{id}");
    }
    assert_ne!(with("M36").key(Booted), clean.key(Booted));
    assert_eq!(applied(ccr(), &[]).unwrap(), ccr());
}

#[test]
fn several_are_applied_together_and_what_is_not_changed_stays_as_it_was_written() {
    let source = applied(ccr(), &["m13".into(), "R17".into()]).unwrap();
    let (before, after) = (ccr().lab_file().unwrap(), source.lab_file().unwrap());
    assert_eq!(source.file_name(), "(built in) labs/ccr/lab.toml with M13 and R17");
    let kept = |line: &&str| line.starts_with('#') || line.contains("original:");
    let comments: Vec<&str> = before.lines().filter(kept).collect();
    assert_eq!(comments, after.lines().filter(kept).collect::<Vec<_>>());
    let lab = spec::load(&source, &example_context()).unwrap().lab;
    assert_eq!(
        lab.mutations.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(),
        ["M13", "R17"]
    );
    assert!(lab.is_unwell());
    // All other files are those of the lab.
    assert_eq!(
        source.toml_files("scenarios").unwrap(),
        ccr().toml_files("scenarios").unwrap()
    );
    assert_eq!(
        source.read(std::path::Path::new("README.md")).unwrap(),
        ccr().read(std::path::Path::new("README.md")).unwrap()
    );
    assert_eq!(source.read(std::path::Path::new(LAB_FILE)).unwrap(), after);
    insta::assert_snapshot!(changed_lines(&before, &after));
}

/// Lines that came and went.
fn changed_lines(before: &str, after: &str) -> String {
    let minus = before
        .lines()
        .filter(|l| !after.lines().any(|a| a == *l))
        .map(|l| format!("- {l}"));
    let plus = after
        .lines()
        .filter(|l| !before.lines().any(|b| b == *l))
        .map(|l| format!("+ {l}"));
    minus.chain(plus).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_does_not_apply_is_refused() {
    let seen = |m: &Mutation, text: &str| m.patch(text).unwrap_err().to_string();
    let lab = "a = 1\nb = [1]\n[t]\nc = 2\n";
    assert!(seen(&mutation("remove = ['t.d']"), lab).contains("takes out `t.d`, which is not there"));
    assert!(seen(&mutation("remove = ['a.b']"), lab).contains("not there"));
    assert!(seen(&mutation("[lab]\na = 1"), lab).contains("changes nothing"));
    assert!(seen(&mutation("[lab]\nb = [1]"), lab).contains("changes nothing"));
    assert!(seen(&mutation("[lab.a]\nb = 1"), lab).contains("`a` is no table"));
    assert!(seen(&mutation("[lab]\na = [1]"), lab).contains("`a` is no list"));
    assert!(seen(&mutation("[lab]\na = 2"), "a = ").contains("no TOML"));
    let text = mutation("remove = ['t']\n[lab]\nb = [2, 1]\n[lab.n.m]\nx = 'y'")
        .patch(lab)
        .unwrap();
    let read: toml::Table = text.parse().unwrap();
    assert_eq!(read["b"].as_array().unwrap().len(), 2);
    assert_eq!(read["n"]["m"]["x"].as_str(), Some("y"));
    assert!(!read.contains_key("t"));
}

#[test]
fn unknown_ids_and_files_with_unknown_keys_are_named() {
    let error = |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|i| (*i).to_owned()).collect();
        applied(ccr(), &ids).unwrap_err()
    };
    let e = error(&["M14"]);
    assert!(e.to_string().contains("none of this id"), "{e}");
    assert!(e.problem().unwrap().remedy.as_ref().unwrap().contains("M1"), "{e}");
    assert!(error(&["M13", "m13"]).to_string().contains("named twice"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
    std::fs::write(folder.path().join("mutations/A.toml"), "id = 'A'\nsevrity = 'hidden'\n").unwrap();
    std::fs::write(folder.path().join("mutations/B.toml"), "id = ").unwrap();
    let e = catalogue(&Source::Folder(folder.path().to_owned()))
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("sevrity") && e.contains("A.toml") && e.contains("B.toml"),
        "{e}"
    );
}

proptest! {
    #[test]
    fn no_text_and_no_patch_panics(text in "\\PC{0,200}", path in "\\PC{0,20}") {
        let m = Mutation { remove: vec![path], ..mutation("[lab]\na = [1]") };
        let _ = m.patch(&text);
        let _ = spec::decode::<Mutation>(&text);
    }
}

#[test]
fn the_record_of_what_was_seen_on_machines_has_every_misconfiguration() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/detection.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let id = |line: &str| Some(line.strip_prefix("- **")?.split_once("**")?.0.to_owned());
    let listed: Vec<String> = page.lines().filter_map(id).collect();
    assert_eq!(listed, all().into_iter().map(|m| m.id).collect::<Vec<_>>());
}

#[test]
fn the_page_has_the_catalogue_and_the_checks() {
    use crate::spec::{entry, with_list};
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mutations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mutations: Vec<String> = all()
        .iter()
        .map(|m| {
            let shown = m.shown.as_ref();
            let by = |s: &Shown| s.by.iter().map(|id| format!(" by {id}")).collect::<String>();
            let shown = shown.map(|s| format!(". *Shown by*: {}, {:?}{}", s.scenario, s.verdict, by(s)));
            let refused = m.refused.as_ref().map(|why| format!(". *Refused*: {why}"));
            let shown = shown.or(refused).unwrap_or_default();
            entry(&format!(
                "**{}** {} ({}). *Found by*: {}{shown}",
                m.id,
                m.title,
                m.severity,
                m.found_by()
            ))
        })
        .collect();
    let checks: Vec<String> = preflight::lab::CHECKS
        .iter()
        .map(|c| {
            entry(&format!(
                "`{}`: {}. *Why*: {}. *Remedy*: {}",
                c.id, c.finds, c.why, c.remedy
            ))
        })
        .collect();
    let right = with_list(&with_list(&page, "mutations", &mutations), "checks", &checks);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &right).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(
        page == right,
        "docs/mutations.md is old: run the test again with UPDATE_DOCS=1"
    );
    // The example is a file that can be read.
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(
        spec::decode::<Mutation>(example).unwrap_or_else(|e| panic!("{e:?}")).id,
        "M13"
    );
}
