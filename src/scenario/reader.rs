//! Reading a scenario file: values by their types, words, names of machines and steps. Everything that is wrong is kept.

use super::expect::Expectation;
use super::expression::Expression;
use super::file::Rules;
use super::parameters::Parameters;
use super::raw::{Table, Value};
use super::roles::{has_role, role_words};
use super::statement::{EVENT, Statement};
use crate::diagnostic::{At, Finding, Invalid, known};
use crate::verify::{During, Forbidden, InvariantId, Pattern};
use ccr_contract::event::EventKind;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::str::FromStr;

/// What begins the names of events that are not the runtime's: those are not listed anywhere.
const OF_THE_TOOL: [&str; 5] = ["fault.", "domain.", "fabric.", "supervisor.", "watch."];

/// What a step with a label does, as far as other steps may name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Labelled {
    Fault,
    Holds,
    Sample,
    Other,
}

pub(super) struct Reader<'a> {
    pub rules: Rules<'a>,
    text: &'a str,
    findings: Vec<Finding>,
    pub parameters: Parameters,
    /// The labels of the steps so far.
    pub labels: BTreeMap<String, Labelled>,
    /// Those of branches beside the one that is read: nobody can name them, nor take them.
    pub hidden: BTreeMap<String, Labelled>,
    /// The verbs of the steps that hold the one that is read, from outside.
    pub within: Vec<&'static str>,
    /// The files that include the one that is read and are included, from outside; without the scenario's own.
    pub files: Vec<String>,
    /// How often a file was included so far.
    pub included: usize,
    /// The text of each file that was included.
    pub parts: BTreeMap<String, String>,
    /// What is wrong with those.
    invalid: Vec<Invalid>,
}

impl<'a> Reader<'a> {
    pub fn new(rules: Rules<'a>, text: &'a str) -> Self {
        Self {
            rules,
            text,
            findings: Vec::new(),
            parameters: Parameters::default(),
            labels: BTreeMap::new(),
            hidden: BTreeMap::new(),
            within: Vec::new(),
            files: Vec::new(),
            included: 0,
            parts: BTreeMap::new(),
            invalid: Vec::new(),
        }
    }

    /// Takes from another file's reader what goes on from file to file.
    pub fn continues(&mut self, other: &mut Reader<'_>) {
        use std::mem::swap;
        swap(&mut self.labels, &mut other.labels);
        swap(&mut self.hidden, &mut other.hidden);
        swap(&mut self.within, &mut other.within);
        swap(&mut self.files, &mut other.files);
        swap(&mut self.included, &mut other.included);
        swap(&mut self.parts, &mut other.parts);
        self.invalid.append(&mut other.invalid);
    }

    pub fn text(&self) -> &'a str {
        self.text
    }

    pub fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// What is wrong with a file that is included; once where it is included several times.
    pub fn find_in(&mut self, invalid: Invalid) {
        if self.invalid.iter().all(|i| i.report != invalid.report) {
            self.invalid.push(invalid);
        }
    }

    /// How much was found so far.
    pub fn found(&self) -> usize {
        self.findings.len() + self.invalid.len()
    }

    /// Everything that was found in the file, in its order.
    pub fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(Finding::start);
        self.findings
    }

    /// Everything that was found, in this file of this name and in those that it includes.
    pub fn into_invalid(mut self, file_name: &str) -> Option<Invalid> {
        let (text, others) = (self.text, std::mem::take(&mut self.invalid));
        let own = self.into_findings();
        let own = (!own.is_empty()).then(|| Invalid::new(file_name, text, own));
        Invalid::together(own.into_iter().chain(others))
    }

    fn wrong_type<T>(&mut self, key: &str, value: &At<Value>, wanted: &str) -> Option<T> {
        let message = format!("`{key}` is {wanted}, not {}", value.value.kind());
        self.find(Finding::new("bad-value", message).on(value, "this one"));
        None
    }

    pub fn text_of(&mut self, table: &Table, key: &str) -> Option<At<String>> {
        let value = table.get(key)?;
        match &value.value {
            Value::Text(text) => Some(At {
                value: text.clone(),
                span: value.span.clone(),
            }),
            _ => self.wrong_type(key, value, "a text"),
        }
    }

    pub fn parsed<T: FromStr<Err = String>>(&mut self, table: &Table, key: &str) -> Option<T> {
        let text = self.text_of(table, key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.find(Finding::new("bad-value", why).on(&text, "this one"));
                None
            }
        }
    }

    pub fn number<T: TryFrom<i64>>(&mut self, table: &Table, key: &str) -> Option<T> {
        let value = table.get(key)?;
        match value.value {
            Value::Number(n) => match n.try_into() {
                Ok(n) => Some(n),
                Err(_) => {
                    let finding = Finding::new("bad-value", format!("`{key}` cannot be {n}"));
                    self.find(finding.on(value, "out of its bounds"));
                    None
                }
            },
            _ => self.wrong_type(key, value, "a number"),
        }
    }

    /// Keys that are not among those that belong to `what`.
    pub fn only(&mut self, table: &Table, what: &str, keys: &[&str]) {
        for key in table.keys().filter(|k| !keys.contains(&k.value.as_str())) {
            // Those that are there already are no advice.
            let help = known(key, keys.iter().copied().filter(|k| table.get(k).is_none()));
            let message = format!("`{}` does not belong to {what}", key.value.escape_debug());
            self.find(Finding::new("unknown-key", message).on(key, "not here").help(help));
        }
    }

    /// Finds names that are neither a role that this lab has nor, where they are allowed, a node.
    pub fn node(&mut self, name: &str, place: Range<usize>) {
        let lab = self.rules.lab;
        let is_role = role_words().any(|r| r == name);
        let is_node = lab.node(name).is_some();
        if (is_role && has_role(lab, name)) || (is_node && self.rules.host_names) {
            return;
        }
        let finding = if is_role {
            Finding::new(
                "no-such-role",
                format!("the lab `{}` has no machine for the role `{name}`", lab.name),
            )
            .at(place, "nobody can be meant")
            .help("docs/scenarios.md says who has which role")
        } else if is_node {
            Finding::new("host-name", format!("`{name}` is a host name"))
                .at(place, "name a role instead")
                .help(format!(
                    "the scenarios of a lab say whom they hurt by role: {}",
                    role_words().collect::<Vec<_>>().join(", ")
                ))
        } else {
            let nodes = lab.nodes.iter().filter(|_| self.rules.host_names);
            let nodes = nodes.map(|n| n.name.as_str()).filter(|n| role_words().all(|r| r != *n));
            let names = role_words().chain(nodes);
            Finding::new("bad-value", format!("`{}` is no role", name.escape_debug()))
                .at(place, "this one")
                .help(known(name, names))
        };
        self.find(finding);
    }

    /// Whom a step means.
    pub fn target(&mut self, table: &Table, key: &str) -> Option<String> {
        let on = self.text_of(table, key)?;
        self.node(&on, on.span.clone());
        Some(on.value)
    }

    /// The kind of an event, or a word for one.
    pub fn event(&mut self, word: &str, place: Range<usize>) -> Option<Forbidden> {
        let shapes = || EventKind::SHAPES.iter().map(|(name, _)| *name);
        match Forbidden::parse(word) {
            Some(kind @ (Forbidden::QuorumLost | Forbidden::CopyFailed)) => Some(kind),
            Some(Forbidden::Event(kind))
                if shapes().any(|k| k == kind) || OF_THE_TOOL.iter().any(|begin| kind.starts_with(begin)) =>
            {
                Some(Forbidden::Event(kind))
            }
            _ => {
                // Those of the same part of the runtime, each once; all of them help nobody.
                let part = word.split_once('.').map_or("", |(part, _)| part);
                let near = shapes().filter(|k| k.split_once('.').is_some_and(|(p, _)| part.is_empty() || p == part));
                let names: BTreeSet<&str> = ["quorum-lost", "copy-failed"].into_iter().chain(near).collect();
                let message = format!("there is no event `{}`", word.escape_debug());
                self.find(
                    Finding::new("bad-value", message)
                        .at(place, "no such event")
                        .help(known(word, names)),
                );
                None
            }
        }
    }

    /// A condition, a word or an event; `on` belongs to the two last.
    pub fn statement(&mut self, text: &At<String>, on: Option<At<String>>) -> Option<Statement> {
        if let Some(on) = &on {
            self.node(on, on.span.clone());
        }
        let named = on.as_ref().map(|on| on.value.clone());
        if let Some(kind) = text.strip_prefix(EVENT) {
            let kind = self.event(kind, text.span.clone())?;
            return Some(Statement::Event(kind, named));
        }
        let is_word = text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !text.is_empty();
        if is_word {
            let Some(word) = Expectation::parse_word(text) else {
                self.find(
                    Finding::new("bad-value", format!("unknown expectation `{}`", text.value))
                        .on(text, "no such expectation")
                        .help(known(text, Expectation::names())),
                );
                return None;
            };
            if word.needs_target() && named.is_none() {
                let finding = Finding::new("missing-key", format!("`{}` is said of a machine", text.value));
                self.find(finding.on(text, "of which").help("add `on = \"a\"`, or another role"));
                return None;
            }
            return Some(Statement::State(word.on(named)));
        }
        if let Some(on) = on {
            let finding = Finding::new("unknown-key", "a condition is not said of one machine");
            self.find(
                finding
                    .on(&on, "not here")
                    .help("its names stand for all nodes that know them"),
            );
        }
        self.condition(text).map(Statement::Condition)
    }

    fn condition(&mut self, text: &At<String>) -> Option<Expression> {
        // Behind the opening quotation mark; a text with escapes is pointed at as a whole.
        let plain = text.span.len() == text.value.len() + 2;
        let place = |within: Range<usize>| {
            let from = text.span.start + 1;
            if plain {
                from + within.start..from + within.end
            } else {
                text.span.clone()
            }
        };
        let labels = &self.labels;
        let is_sample = |word: &str| labels.get(word) == Some(&Labelled::Sample);
        match Expression::with_samples(text, is_sample) {
            Ok(expression) => {
                for (name, span) in expression.nodes() {
                    self.node(name, place(span));
                }
                Some(expression)
            }
            Err(e) => {
                let mut finding = Finding::new("bad-expression", e.message).at(place(e.span), "here");
                finding.help = e.help;
                self.find(finding);
                None
            }
        }
    }

    /// A statement, or a table of one and whom it is said of.
    pub fn statement_of(&mut self, value: &At<Value>) -> Option<Statement> {
        match &value.value {
            Value::Text(text) => {
                let text = At {
                    value: text.clone(),
                    span: value.span.clone(),
                };
                self.statement(&text, None)
            }
            Value::Table(_) => {
                let Pattern { what, on, .. } = self.pattern(value, &["event", "on"])?;
                Some(Statement::Event(what, on))
            }
            _ => self.wrong_type("an entry", value, "a text or a table"),
        }
    }

    /// What is checked at the end.
    pub fn invariants(&mut self, words: &[At<String>]) -> Vec<InvariantId> {
        let mut all = Vec::new();
        for word in words {
            let id = InvariantId::parse(word);
            if id.is_none() {
                self.find(
                    Finding::new("bad-value", format!("unknown invariant `{}`", word.value))
                        .on(word, "no such invariant")
                        .help(known(word, InvariantId::NAMES)),
                );
            }
            all.extend(id);
        }
        all
    }

    /// An event that must have happened.
    pub fn required(&mut self, value: &At<Value>) -> Option<Pattern> {
        match &value.value {
            Value::Text(word) => self.event(word, value.span.clone()).map(Pattern::of),
            Value::Table(_) => self.pattern(value, &["event", "on", "during"]),
            _ => self.wrong_type("an event", value, "a text or a table"),
        }
    }

    /// What must not be seen.
    pub fn forbidden(&mut self, value: &At<Value>) -> Option<Pattern> {
        match &value.value {
            Value::Text(word) => self.forbidden_word(word, value.span.clone()).map(Pattern::of),
            Value::Table(_) => self.pattern(value, &["event", "on", "during"]),
            _ => self.wrong_type("a forbidden pattern", value, "a text or a table"),
        }
    }

    fn forbidden_word(&mut self, word: &str, place: Range<usize>) -> Option<Forbidden> {
        match Forbidden::parse(word) {
            None => {
                self.find(
                    Finding::new(
                        "bad-value",
                        format!("unknown forbidden pattern `{}`", word.escape_debug()),
                    )
                    .at(place, "no such forbidden pattern")
                    .help(known(word, Forbidden::NAMES)),
                );
                None
            }
            Some(Forbidden::Event(_)) => self.event(word, place),
            word => word,
        }
    }

    fn pattern(&mut self, value: &At<Value>, keys: &[&str]) -> Option<Pattern> {
        let Value::Table(table) = &value.value else {
            return None;
        };
        let before = self.found();
        self.only(table, "an event", keys);
        let Some(event) = self.text_of(table, "event") else {
            if self.found() == before {
                let finding = Finding::new("missing-key", "the key `event` is missing").on(value, "in here");
                self.find(finding);
            }
            return None;
        };
        let what = if keys.contains(&"during") {
            self.forbidden_word(&event, event.span.clone())?
        } else {
            self.event(&event, event.span.clone())?
        };
        if what == Forbidden::SplitBrain {
            let finding = Finding::new("bad-value", "two that serve are forbidden everywhere and always");
            self.find(
                finding
                    .on(&event, "this one")
                    .help("write it as a text: `\"split-brain\"`"),
            );
        }
        let on = self.target(table, "on");
        let during = self.during(table);
        (self.found() == before).then_some(Pattern { what, on, during })
    }

    /// From one step to another one; the steps were read before.
    fn during(&mut self, table: &Table) -> Option<During> {
        let text = self.text_of(table, "during")?;
        let Some(during) = During::parse(&text) else {
            let finding = Finding::new("bad-value", format!("`{}` is no time", text.value.escape_debug()));
            self.find(
                finding
                    .on(&text, "this one")
                    .help("write it like `cut..mended` or `cut..`, with labels of steps"),
            );
            return None;
        };
        let labels: Vec<&str> = during.labels().collect();
        for label in labels {
            self.label(label, text.span.clone(), None);
        }
        Some(during)
    }

    /// Finds a label that no step has, or none that does this.
    pub fn label(&mut self, label: &str, place: Range<usize>, wanted: Option<Labelled>) -> bool {
        let fits = |l: &Labelled| wanted.is_none_or(|w| w == *l);
        if self.labels.get(label).is_some_and(fits) {
            return true;
        }
        let known = known(
            label,
            self.labels
                .iter()
                .filter(|(_, l)| fits(l))
                .map(|(name, _)| name.as_str()),
        );
        let message = format!("no such step is labelled `{}`", label.escape_debug());
        self.find(Finding::new("bad-value", message).at(place, "which one").help(format!(
            "a step gets a label by `as = \"{}\"`; {known}",
            if label.is_empty() { "NAME" } else { label }
        )));
        false
    }
}
