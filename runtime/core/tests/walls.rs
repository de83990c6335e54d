//! No import circle between modules, neither of `runtime/core/src` nor of the tool's `src`; no file over 600 lines.
//!
//! A node is a module at the top, a file or a folder, or a folder further down; files of a nested folder count as part of it.
//! What a file names by `crate::` or `super::`, in a `use` or in a path, is an edge; a parent and its child are no circle, nor
//! is what lies within one folder. Comments are not read. Tests are in the core; the tool's are not, as they name whatever they
//! need to show something.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path, `[]` for the root, and its text.
type Source = (Vec<String>, String);
/// Who imports whom, under which parent, and a file that shows it.
type Edges = BTreeMap<(Vec<String>, String), BTreeMap<String, String>>;

/// Every source file under `dir`. Panics where a file cannot be read.
fn sources(dir: &Path, at: &[String], out: &mut Vec<Source>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut module = at.to_vec();
        if !matches!(stem.as_str(), "mod" | "lib" | "main") {
            module.push(stem);
        }
        if path.is_dir() {
            sources(&path, &module, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push((module, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The paths of a use tree or an expression that begin here, behind `prefix`; returns what follows them.
fn paths<'a>(mut rest: &'a str, mut prefix: Vec<String>, out: &mut Vec<Vec<String>>) -> &'a str {
    loop {
        rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = paths(rest, prefix.clone(), out).trim_start();
                rest = rest
                    .split_once([',', '}'])
                    .map_or("", |(before, _)| &rest[before.len()..]);
                rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        match name {
            "super" => _ = prefix.pop(),
            "self" => {}
            _ => prefix.push(name.to_owned()),
        }
        match after.strip_prefix("::") {
            Some(more) if !name.is_empty() => rest = more,
            _ => {
                out.push(prefix);
                return after;
            }
        }
    }
}

fn edges(sources: &[Source]) -> Edges {
    let modules: BTreeSet<&[String]> = sources.iter().map(|(m, _)| &m[..]).collect();
    let folders: BTreeSet<&[String]> = modules.iter().filter_map(|m| m.split_last().map(|(_, p)| p)).collect();
    let mut found = Edges::new();
    for (module, text) in sources {
        let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
        let code = code.join("\n");
        let mut targets = Vec::new();
        for word in ["crate::", "super::"] {
            for (at, _) in code.match_indices(word) {
                let inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$';
                if !code[..at].ends_with(inside) {
                    let from = if word == "crate::" { at + word.len() } else { at };
                    let base = if word == "crate::" { Vec::new() } else { module.clone() };
                    paths(&code[from..], base, &mut targets);
                }
            }
        }
        for target in targets {
            let known = (0..=target.len())
                .rev()
                .find(|n| modules.contains(&target[..*n]))
                .unwrap_or(0);
            let target = &target[..known];
            let same = module.iter().zip(target).take_while(|(a, b)| a == b).count();
            if same == module.len() || same == target.len() {
                continue;
            }
            let folder = |m: &[String]| folders.contains(&m[..=same]);
            if same == 0 || folder(module) && folder(target) {
                let from = (module[..same].to_vec(), module[same].clone());
                found
                    .entry(from)
                    .or_default()
                    .entry(target[same].clone())
                    .or_insert(module.join("/"));
            }
        }
    }
    found
}

/// The edges that lie on a circle, one a line; empty where there is none.
fn circles(sources: &[Source]) -> Vec<String> {
    let edges = edges(sources);
    let reaches = |parent: &Vec<String>, from: &String, to: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = todo.pop() {
            if seen.insert(at.clone()) {
                todo.extend(
                    edges
                        .get(&(parent.clone(), at))
                        .into_iter()
                        .flat_map(|e| e.keys().cloned()),
                );
            }
        }
        seen.contains(to)
    };
    let on_circle = |((parent, from), to): (&(Vec<String>, String), &BTreeMap<String, String>)| {
        let back = to.iter().filter(|(to, _)| reaches(parent, to, from));
        back.map(|(to, file)| format!("{}: {from} → {to}, by {file}", parent.join("/")))
            .collect::<Vec<_>>()
    };
    edges.iter().flat_map(on_circle).collect()
}

/// The tree without its tests: modules in the text that say `#[cfg(test)]`, and files that are named for it.
fn without_tests(mut sources: Vec<Source>) -> Vec<Source> {
    sources.retain(|(m, _)| !m.iter().any(|n| n == "tests" || n.ends_with("_tests")));
    for (_, text) in &mut sources {
        while let Some((before, module)) = text.split_once("\n#[cfg(test)]\nmod ") {
            let after = module.split_once("\n}\n").filter(|_| !module.starts_with("tests;"));
            *text = format!("{before}\n{}", after.map_or("", |(_, after)| after));
        }
    }
    sources
}

fn tree(dir: &str) -> Vec<Source> {
    let mut out = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &[], &mut out);
    assert!(out.len() > 50, "{} files in {dir}", out.len());
    out
}

#[test]
fn the_core_has_no_import_circle() {
    assert_eq!(circles(&tree("src")), Vec::<String>::new());
}

#[test]
fn the_tool_has_no_import_circle() {
    assert_eq!(circles(&without_tests(tree("../../src"))), Vec::<String>::new());
}

#[test]
fn no_file_is_longer_than_a_person_reads() {
    const LONGEST: usize = 600;
    let trees = [
        "src",
        "tests",
        "../agent/src",
        "../agent/tests",
        "../ccrd/src",
        "../ccrd/tests",
        "../contract/src",
        "../../src",
        "../../tests",
    ];
    for dir in trees {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &[], &mut files);
        assert!(!files.is_empty(), "{dir}");
        for (module, text) in files {
            let lines = text.lines().count();
            assert!(lines <= LONGEST, "{dir}: {} has {lines} lines", module.join("/"));
        }
    }
}

#[test]
fn a_circle_is_found_and_a_parent_with_its_child_is_none() {
    let source = |path: &str, text: &str| (path.split('/').map(str::to_owned).collect(), text.to_owned());
    let mut sources = vec![
        source("low", "pub struct A;"),
        source("mid", "use crate::{low::{A, B as C}, self};"),
        source("top", "mod part; use part::B; use crate::mid;"),
        source(
            "top/part",
            "use super::X; use super::super::mid; // crate::top\nfn f() { crate::low::a() }",
        ),
    ];
    assert_eq!(circles(&sources), Vec::<String>::new());
    sources[0].1 = "use crate::{x, y::{z}, mid::{self, B}};".into();
    let found = circles(&sources);
    assert_eq!(found, [": low → mid, by low", ": mid → low, by mid"]);
    sources[0].1 = "fn f(_: super::top::part::B) {}".into();
    assert_eq!(circles(&sources).len(), 4);
}
