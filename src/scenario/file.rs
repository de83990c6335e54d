//! Scenario files: text in, [`Scenario`] or every finding out. Pure.

use super::expect::Expectation;
use super::expression::Expression;
use super::raw::{RawScenario, RawStep, Verb as Word};
use super::roles::role_words;
use super::{Heal, Verb, Workload, WorkloadKind};
use crate::diagnostic::{At, Finding, Invalid, known};
use crate::error::{Error, Result};
use crate::fault::{Kind, Words};
use crate::spec::{Lab, decode};
use crate::units::{Rate, Size, Span};
use crate::verify::{Forbidden, InvariantId};
use std::collections::BTreeMap;

/// A scenario, checked. What needs a lab that runs (roles) is resolved at each step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its id.
    pub id: String,
    /// What a person reads.
    pub title: String,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Evidence without which nothing can be said.
    pub require: Require,
    /// What must not be seen.
    pub forbid: Vec<Forbidden>,
    /// What is checked at the end.
    pub invariants: Vec<InvariantId>,
    /// The file's own text, kept with the run.
    pub text: String,
}

/// Evidence without which a run is *unknown*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Require {
    /// Acknowledged `submit` and `deliver`.
    pub acks: u64,
    /// Generations that were closed before the first fault (before the end where there is none).
    pub closed_generations: u64,
    /// Times that the service came online on another node.
    pub role_changes: u64,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// Line of the file, from 1.
    pub line: usize,
    /// As a person reads it.
    pub text: String,
}

/// What a step does. Times are unscaled: the runner multiplies by the machine's slowness.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Starts clients; their seed is the run's.
    Load(Workload),
    /// Stops them.
    StopLoad,
    /// Lets time pass.
    Wait(Span),
    /// Waits for a condition: without it the rest proves nothing.
    Until(Expression, Span),
    /// Makes a fault happen.
    Fault(Words),
    /// Undoes faults.
    Heal(Heal),
    /// Must come true in time.
    Expect(Expectation, Span),
    /// Gives the runtime an order.
    Operate {
        /// The verb.
        verb: Verb,
        /// Whom to ask.
        on: Option<String>,
        /// Words of the order; `to` is a role or node.
        args: BTreeMap<String, String>,
        /// Whether it must be refused.
        refused: bool,
    },
}

impl Action {
    /// Whether it does something to the lab, and does not wait and look by itself.
    pub fn acts(&self) -> bool {
        !matches!(self, Action::Wait(_) | Action::Until(..) | Action::Expect(..))
    }
}

/// What a file is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whether host names are allowed: in a person's own file, not under labs/.
    pub host_names: bool,
    /// The lab, for names of nodes and networks.
    pub lab: &'a Lab,
}

/// How long a step waits that does not say it.
const WITHIN: Span = Span::secs(30);

/// Checks the text of a scenario file; `file_name` is what a person reads in the report.
///
/// # Errors
/// [`Error::Invalid`] with every finding.
pub fn parse(file_name: &str, text: &str, rules: Rules<'_>) -> Result<Scenario> {
    let invalid = |findings| Error::Invalid(Box::new(Invalid::new(file_name, text, findings)));
    let raw: RawScenario = decode(text).map_err(invalid)?;
    let mut reader = Reader {
        rules,
        text,
        findings: Vec::new(),
    };
    let scenario = reader.scenario(raw);
    match scenario {
        Some(scenario) if reader.findings.is_empty() => Ok(scenario),
        _ => {
            reader.findings.sort_by_key(Finding::start);
            Err(invalid(reader.findings))
        }
    }
}

struct Reader<'a> {
    rules: Rules<'a>,
    text: &'a str,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn scenario(&mut self, raw: RawScenario) -> Option<Scenario> {
        let sound = !raw.id.is_empty()
            && raw.id.len() <= 32
            && raw
                .id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !raw.id.starts_with(['.', '-']);
        if !sound {
            self.findings.push(
                Finding::new("bad-value", "the id cannot name a folder")
                    .on(&raw.id, "this one")
                    .help("use letters, digits, - _ and ., at most 32, like `F05`"),
            );
        }
        if raw.steps.is_empty() {
            self.findings
                .push(Finding::new("no-steps", "the scenario does nothing").on(&raw.id, "this one"));
        }
        let steps: Vec<Option<Step>> = raw.steps.iter().map(|s| self.step(s)).collect();
        let invariants = raw
            .invariants
            .iter()
            .map(|i| self.word(i, "invariant", InvariantId::parse, &InvariantId::NAMES));
        let invariants: Vec<_> = invariants.collect();
        let forbid: Vec<_> = raw
            .forbid
            .iter()
            .map(|f| self.word(f, "forbidden pattern", Forbidden::parse, &Forbidden::NAMES))
            .collect();
        Some(Scenario {
            id: raw.id.value,
            title: raw.title,
            steps: steps.into_iter().collect::<Option<_>>()?,
            require: raw.require.map_or_else(Require::default, |r| Require {
                acks: r.acks,
                closed_generations: r.closed_generations,
                role_changes: r.role_changes,
            }),
            forbid: forbid.into_iter().collect::<Option<_>>()?,
            invariants: invariants.into_iter().collect::<Option<_>>()?,
            text: self.text.to_owned(),
        })
    }

    fn word<T>(
        &mut self,
        word: &At<String>,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
        names: &[&'static str],
    ) -> Option<T> {
        let found = parse(word);
        if found.is_none() {
            self.findings.push(
                Finding::new("bad-value", format!("unknown {what} `{}`", word.value))
                    .on(word, format!("no such {what}"))
                    .help(known(word, names.iter().copied())),
            );
        }
        found
    }

    fn step(&mut self, at: &At<RawStep>) -> Option<Step> {
        let raw = &at.value;
        let verbs = raw.verbs();
        let word = match verbs.as_slice() {
            [one] => *one,
            [] => {
                let words: Vec<&str> = Word::ALL.iter().map(|w| w.key()).collect();
                self.findings.push(
                    Finding::new("no-verb", "the step does not say what it does")
                        .on(at, "this step")
                        .help(format!("it has one of {}", words.join(", "))),
                );
                return None;
            }
            [first, second, ..] => {
                let both = format!("the step has both `{}` and `{}`", first.key(), second.key());
                self.findings.push(
                    Finding::new("two-verbs", both)
                        .on(at, "this step")
                        .help("make two steps of it"),
                );
                return None;
            }
        };
        let before = self.findings.len();
        for (key, span) in raw.others(word) {
            let help = match word.keys() {
                [] => format!("`{}` stands by itself", word.key()),
                keys => known(key, keys.iter().copied()),
            };
            self.findings.push(
                Finding::new("unknown-key", format!("`{key}` does not belong to `{}`", word.key()))
                    .at(span, "not here")
                    .help(help),
            );
        }
        for name in [&raw.on, &raw.to].into_iter().flatten() {
            self.node(name, name);
        }
        let action = self.action(raw, word, at);
        // What is not known of a step may be wrong because of what was found already.
        if self.findings.len() > before {
            return None;
        }
        let line = self.text[..at.span.start.min(self.text.len())].matches('\n').count() + 1;
        Some(Step {
            action: action?,
            line,
            text: self.shown(at),
        })
    }

    /// The step as written, on one line.
    fn shown(&self, at: &At<RawStep>) -> String {
        let text = self.text.get(at.span.clone()).unwrap_or_default();
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Finds names that are neither a role nor, where they are allowed, a node.
    fn node<T>(&mut self, name: &str, at: &At<T>) {
        let is_node = self.rules.lab.node(name).is_some();
        if role_words().any(|r| r == name) || (is_node && self.rules.host_names) {
            return;
        }
        let finding = if is_node {
            Finding::new("host-name", format!("`{name}` is a host name"))
                .on(at, "name a role instead")
                .help(format!(
                    "the scenarios of a lab say whom they hurt by role: {}",
                    role_words().collect::<Vec<_>>().join(", ")
                ))
        } else {
            let nodes = self.rules.lab.nodes.iter().filter(|_| self.rules.host_names);
            let names = role_words().chain(nodes.map(|n| n.name.as_str()));
            Finding::new("bad-value", format!("`{name}` is no role"))
                .on(at, "this one")
                .help(known(name, names))
        };
        self.findings.push(finding);
    }

    fn action(&mut self, raw: &RawStep, word: Word, at: &At<RawStep>) -> Option<Action> {
        let within = raw.within.unwrap_or(WITHIN);
        match word {
            Word::Workload => self.workload(raw),
            Word::Wait => raw.wait.map(Action::Wait),
            Word::Until => {
                let text = raw.until.as_ref()?;
                match Expression::parse(text) {
                    Ok(e) => Some(Action::Until(e, within)),
                    Err(e) => {
                        // Behind the opening quotation mark; a text with escapes is pointed at as a whole.
                        let plain = text.span.len() == text.value.len() + 2;
                        let from = text.span.start + 1;
                        let span = if plain {
                            from + e.span.start..from + e.span.end
                        } else {
                            text.span.clone()
                        };
                        let mut finding = Finding::new("bad-expression", e.message).at(span, "here");
                        finding.help = e.help;
                        self.findings.push(finding);
                        None
                    }
                }
            }
            Word::Fault => self.fault(raw, at),
            Word::Expect => {
                let text = raw.expect.as_ref()?;
                let expectation = self.word(text, "expectation", Expectation::parse_word, &Expectation::names())?;
                Some(Action::Expect(
                    expectation.on(raw.on.as_ref().map(|o| o.value.clone())),
                    within,
                ))
            }
            Word::Heal => {
                let text = raw.heal.as_ref()?;
                let names: Vec<&'static str> = std::iter::once("all").chain(Kind::all().map(Kind::word)).collect();
                self.word(
                    text,
                    "fault to heal",
                    |w| match w {
                        "all" => Some(Heal::All),
                        w => w.parse().ok().map(Heal::Kind),
                    },
                    &names,
                )
                .map(Action::Heal)
            }
            Word::Operate | Word::Move => self.operate(raw, word),
        }
    }

    fn workload(&mut self, raw: &RawStep) -> Option<Action> {
        let text = raw.workload.as_ref()?;
        match text.as_str() {
            "stop" => return Some(Action::StopLoad),
            "mail" => {}
            other => {
                self.findings.push(
                    Finding::new("bad-value", format!("unknown workload `{other}`"))
                        .on(text, "no such workload")
                        .help(known(other, ["mail", "stop"])),
                );
                return None;
            }
        }
        let rate = match raw.workload_rate() {
            None => Rate(10.0),
            Some(Ok(rate)) => rate,
            Some(Err((place, why))) => {
                self.findings.push(Finding::new("bad-value", why).at(place, "this one"));
                return None;
            }
        };
        Some(Action::Load(Workload {
            kind: WorkloadKind::Mail,
            rate,
            size: raw.size.unwrap_or(Size(32 << 10)),
            clients: raw.clients.unwrap_or(12),
            deadline: raw.deadline.unwrap_or(Span::secs(5)),
            mix: raw.mix.unwrap_or_default(),
            seed: 0,
        }))
    }

    fn fault(&mut self, raw: &RawStep, at: &At<RawStep>) -> Option<Action> {
        let kind = raw.fault.as_ref()?;
        let on = raw.on.as_ref().map(|o| o.value.clone());
        match Words::new(kind, on, raw.parameters()) {
            Ok(words) => {
                // `on` was looked at already.
                for name in words.names().into_iter().filter(|n| Some(*n) != words.on.as_deref()) {
                    self.node(name, at);
                }
                Some(Action::Fault(words))
            }
            Err(e) => {
                let problem = e.problem().expect("words are wrong in the usage");
                let mut finding = Finding::new("bad-fault", problem.to_string()).on(kind, "this fault");
                finding.help = problem.remedy.clone();
                self.findings.push(finding);
                None
            }
        }
    }

    fn operate(&mut self, raw: &RawStep, word: Word) -> Option<Action> {
        let verb = match (word, &raw.operate) {
            (Word::Move, _) => Verb::Move,
            (_, Some(text)) => self.word(text, "verb", Verb::parse, &Verb::NAMES)?,
            (_, None) => return None,
        };
        let mut args = BTreeMap::new();
        if let Some(to) = &raw.mv {
            self.node(to, to);
        }
        for (key, value) in [
            ("to", raw.to.as_ref().or(raw.mv.as_ref())),
            ("group", raw.group.as_ref()),
        ] {
            if let Some(value) = value {
                args.insert(key.to_owned(), value.value.clone());
            }
        }
        args.extend(raw.comment.clone().map(|c| ("comment".to_owned(), c)));
        args.extend(raw.set.clone());
        if verb == Verb::Move && !args.contains_key("to") {
            let place = raw.operate.as_ref().map_or(0..0, |o| o.span.clone());
            self.findings.push(
                Finding::new("missing-key", "a move needs a target")
                    .at(place, "where to")
                    .help("add `to = \"passive\"`"),
            );
            return None;
        }
        Some(Action::Operate {
            verb,
            on: raw.on.as_ref().map(|o| o.value.clone()),
            args,
            refused: raw.refused.unwrap_or(false),
        })
    }
}
