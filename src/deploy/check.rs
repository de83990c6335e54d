//! A pack's folder, checked before anything of it is deployed: every mistake with its place.

use super::contract::{Held, Map, Said};
use super::pack::{Pack, Runtime};
use crate::diagnostic::{Finding, Invalid, known};
use crate::error::{Error, IoContext, Problem, Result};
use crate::probe;
use crate::spec::{PackSettings, decode};
use crate::units::Name;
use ccr_contract::status::Status;
use serde_json::Value;
use std::ops::Range;
use std::path::Path;

const RUNTIME: &str = "runtime.toml";
const SETTINGS: &str = "settings.toml";

/// What expressions and templates of a pack see beside the probes' answers.
const SEEN: [&str; 14] = [
    "arbiters", "cluster", "hosted", "hubs", "item", "lab", "members", "networks", "node", "secrets", "service",
    "settings", "shares", "slowness",
];

/// Reads the pack in `folder` and finds all that is wrong with it.
///
/// # Errors
/// [`Error::Invalid`] with every finding; `Usage` where there is no such pack.
pub fn check(folder: &Path) -> Result<Pack> {
    let read = |file: &str| {
        let path = folder.join(file);
        fs_err::read_to_string(&path).tried("read the pack's file", path.display())
    };
    let name: Option<Name> = folder.file_name().and_then(|n| n.to_str()?.parse().ok());
    let name = name.ok_or_else(|| {
        let seen = "the folder's name is the pack's: use a-z, 0-9 and `-`";
        Error::Usage(Problem::new("check the pack").on(folder.display()).observed(seen))
    })?;
    let (text, settings) = (read(RUNTIME)?, read(SETTINGS)?);
    let place = |file: &str| folder.join(file).display().to_string();
    let mut wrong = Vec::new();
    let mut found = |file: &str, text: &str, findings: Vec<Finding>| {
        if !findings.is_empty() {
            wrong.push(Invalid::new(&place(file), text, findings));
        }
    };
    if let Err(why) = PackSettings::parse(name.clone(), &settings) {
        found(SETTINGS, &settings, vec![Finding::new("bad-value", why)]);
    }
    match decode::<Runtime>(&text) {
        Err(findings) => found(RUNTIME, &text, findings),
        Ok(runtime) => {
            found(RUNTIME, &text, of_runtime(&text, &runtime));
            for file in &runtime.files {
                match read(&file.template) {
                    Err(e) => {
                        let finding =
                            Finding::new("missing-file", e.to_string()).at(of(&text, &file.template), "no such file");
                        found(RUNTIME, &text, vec![finding]);
                    }
                    Ok(template) => found(&file.template, &template, of_template(&template)),
                }
            }
        }
    }
    match Invalid::together(wrong) {
        Some(invalid) => Err(Error::Invalid(Box::new(invalid))),
        None => Pack::parse(name, &text, &settings, read),
    }
}

/// Where a text stands in a file; at its beginning where it is written otherwise.
fn of(text: &str, part: &str) -> Range<usize> {
    text.find(part).map_or(0..0, |at| at..at + part.len())
}

/// Where a name stands in a file as a whole.
fn word(text: &str, name: &str) -> Range<usize> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let mut places = text.match_indices(name).map(|(at, _)| at..at + name.len());
    let whole = |r: &Range<usize>| !text[..r.start].ends_with(inside) && !text[r.end..].starts_with(inside);
    places.find(whole).unwrap_or(0..0)
}

fn of_template(text: &str) -> Vec<Finding> {
    match probe::template_names(text) {
        Err((line, why)) => {
            let begin = text.lines().take(line - 1).map(|l| l.len() + 1).sum();
            let end = begin + text[begin..].lines().next().unwrap_or_default().len();
            vec![Finding::new("bad-template", why).at(begin..end, "cannot be read")]
        }
        Ok(names) => {
            let strange = names.into_iter().filter(|n| !SEEN.contains(&n.as_str()));
            let finding = |name: String| {
                Finding::new("bad-template", format!("no template sees `{name}`"))
                    .at(word(text, &name), "asked for here")
                    .help(known(&name, SEEN))
            };
            strange.map(finding).collect()
        }
    }
}

fn of_runtime(text: &str, runtime: &Runtime) -> Vec<Finding> {
    let contract = &runtime.contract;
    let mut checker = Checker {
        text,
        probes: contract.probes.iter().map(|p| p.name.as_str()).collect(),
        findings: Vec::new(),
    };
    if let Err(why) = runtime.check() {
        checker.findings.push(Finding::new("bad-value", why));
    }
    for (i, name) in checker.probes.clone().into_iter().enumerate() {
        if checker.probes[..i].contains(&name) {
            let message = format!("two probes are called `{name}`");
            checker
                .findings
                .push(Finding::new("listed-twice", message).at(of(text, name), "the first"));
        }
    }
    let whens = runtime.files.iter().map(|f| &f.when);
    let whens = whens
        .chain(runtime.links.iter().map(|l| &l.when))
        .chain(runtime.steps.iter().map(|s| &s.when));
    for when in whens.chain(contract.probes.iter().map(|p| &p.when)).flatten() {
        checker.expression(when, &SEEN);
    }
    let steps = runtime.steps.iter().flat_map(|s| &s.run);
    let orders = contract.orders.values().flat_map(|o| &o.run);
    for argument in contract.probes.iter().flat_map(|p| &p.run).chain(steps).chain(orders) {
        checker.template(argument);
    }
    let schema = serde_json::to_value(schemars::schema_for!(Status)).unwrap_or_default();
    if let Said::Map(map) = &contract.status {
        checker.map(map, &schema, &schema, "status", &(0..0));
    }
    if let Held::List(list) = &contract.dump {
        list.run.iter().for_each(|a| checker.template(a));
        list.when.iter().for_each(|w| checker.expression(w, &SEEN));
        checker.expression(&list.key, &["item"]);
    }
    for done in contract.orders.values().filter_map(|o| o.done.as_ref()) {
        checker.expression(&done.expression, &["service", "before"]);
    }
    checker.findings
}

struct Checker<'a> {
    text: &'a str,
    probes: Vec<&'a str>,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    /// An expression that sees `names` and nothing else.
    fn expression(&mut self, expression: &str, names: &[&str]) {
        self.judged(expression, of(self.text, expression), names);
    }

    fn judged(&mut self, expression: &str, place: Range<usize>, names: &[&str]) {
        let asked = match probe::names(expression) {
            Ok(asked) => asked,
            Err(why) => {
                return self
                    .findings
                    .push(Finding::new("bad-expression", why).at(place, "cannot be read"));
            }
        };
        for name in asked
            .iter()
            .filter_map(|n| n.split('.').next())
            .filter(|n| !names.contains(n))
        {
            self.findings.push(
                Finding::new("bad-expression", format!("there is no probe and no name `{name}`"))
                    .at(place.clone(), "asks for it")
                    .help(known(name, names.iter().copied())),
            );
        }
    }

    fn template(&mut self, text: &str) {
        let wrong = of_template(text);
        self.findings.extend(wrong.into_iter().map(|mut f| {
            f.labels = vec![(of(self.text, text), "in this".to_owned())];
            f
        }));
    }

    /// A part of the map, against what the contract has there: keys that it does not have, and those that it must have.
    fn map(&mut self, map: &Map, root: &Value, schema: &Value, path: &str, place: &Range<usize>) {
        let schema = resolved(root, schema);
        match map {
            Map::Value(expression) => {
                let names: Vec<&str> = self.probes.iter().copied().chain(SEEN).collect();
                self.judged(expression, place.clone(), &names);
            }
            Map::List(tables) => tables
                .iter()
                .for_each(|t| self.map(&t.value, root, &schema["items"], path, &t.span)),
            Map::Table(entries) => {
                let properties = schema["properties"].as_object();
                for (key, part) in entries {
                    let control = ["when", "each"].contains(&key.as_str()) || (path == "status.wrong" && key == "say");
                    match properties.and_then(|p| p.get(key)) {
                        Some(of_key) => self.map(&part.value, root, of_key, &format!("{path}.{key}"), &part.span),
                        // A table of names of the pack's own has no properties.
                        None if control || properties.is_none() => {
                            self.map(&part.value, root, &Value::Null, path, &part.span)
                        }
                        None => {
                            let names = properties.into_iter().flat_map(|p| p.keys().map(String::as_str));
                            self.findings.push(
                                Finding::new("unknown-key", format!("{path} has no `{key}`"))
                                    .at(part.span.clone(), "said here")
                                    .help(known(key, names)),
                            );
                        }
                    }
                }
                let given = |key: &str| entries.iter().any(|(k, _)| k == key);
                let needed = schema["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                // The tool fills in those of the whole itself.
                for key in needed.filter(|k| path != "status" && !given(k)) {
                    self.findings.push(
                        Finding::new("missing-key", format!("{path} needs `{key}`"))
                            .at(place.clone(), "it is not here"),
                    );
                }
            }
        }
    }
}

/// What a schema leads to, without null.
fn resolved(root: &Value, schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return root["$defs"][name].clone();
    }
    let other = schema["anyOf"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|s| s["type"] != "null");
    other.map_or_else(|| schema.clone(), |s| resolved(root, s))
}
