//! Reading one step: its verb, and the keys that belong to it.

use super::file::{Action, Expect, HealWords, Refused, Step};
use super::include::INCLUDE;
use super::parallel::PARALLEL;
use super::raw::{Table, Value};
use super::reader::{Labelled, Reader};
use super::roles::possible;
use super::sample::SAMPLE;
use super::sequence::REPEAT;
use super::statement::Statement;
use super::{Mix, Workload, WorkloadKind};
use crate::deploy::Takes;
use crate::diagnostic::{At, Finding, known};
use crate::error::{Error, Problem, Result};
use crate::fault::{Kind, Target, Words};
use crate::units::{Name, Rate, Size, Span};
use std::collections::BTreeMap;
use std::ops::Range;

/// The verbs of a step.
pub(super) const VERBS: [&str; 15] = [
    "workload", "wait", "until", "fault", "heal", "expect", "holds", "release", "move", "operate", "exec", REPEAT,
    INCLUDE, PARALLEL, SAMPLE,
];

/// Words of the file that mean something else where a label could stand.
const TAKEN: [&str; 4] = ["all", "and", "or", "not"];

impl Reader<'_> {
    /// Reads a step that holds no others.
    pub fn step(&mut self, verb: &'static str, at: &At<Table>) -> Option<Step> {
        let table = &at.value;
        let before = self.found();
        let label = self.text_of(table, "as");
        let action = self.action(verb, table);
        if let Some(label) = &label {
            self.take_label(label, verb);
        }
        // What is not known of a step may be wrong because of what was found already.
        if self.found() > before {
            return None;
        }
        let text = self.text();
        let line = text[..at.span.start.min(text.len())].matches('\n').count() + 1;
        let action = action?;
        Some(Step {
            text: match &action {
                Action::Parallel(branches) => {
                    let names: Vec<&str> = branches.iter().map(|b| b.name.as_str()).collect();
                    format!("{PARALLEL}: {}", names.join(", "))
                }
                _ => self.shown(at),
            },
            action,
            label: label.map(|l| l.value),
            file: None,
            line,
        })
    }

    pub fn verb(&mut self, at: &At<Table>) -> Option<&'static str> {
        let there = |v: &&str| at.value.get(v).is_some() && !self.belongs_to_order(&at.value, v);
        let verbs: Vec<&'static str> = VERBS.into_iter().filter(there).collect();
        match verbs.as_slice() {
            [one] => return Some(one),
            [] => {
                let near = |key: &&At<String>| VERBS.iter().any(|v| strsim::jaro_winkler(v, key) > 0.9);
                let finding = match at.value.keys().find(near) {
                    Some(key) => Finding::new("unknown-key", format!("unknown key `{}`", key.value))
                        .on(key, "no such verb")
                        .help(known(key, VERBS)),
                    None => Finding::new("no-verb", "the step does not say what it does")
                        .on(at, "this step")
                        .help(format!("it has one of {}", VERBS.join(", "))),
                };
                self.find(finding);
            }
            [first, second, ..] => {
                let both = format!("the step has both `{first}` and `{second}`");
                let finding = Finding::new("two-verbs", both).on(at, "this step");
                self.find(finding.help("make two steps of it"));
            }
        }
        None
    }

    /// Whether a key is what the order of this step takes: `wait` of `reseed` is no verb.
    fn belongs_to_order(&self, table: &Table, key: &str) -> bool {
        let order = match table.get("operate").map(|o| &o.value) {
            Some(Value::Text(word)) => self.rules.pack.orders.get(word),
            _ => None,
        };
        order.is_some_and(|o| o.takes.iter().any(|p| p.name == key))
    }

    /// The step as written, on one line.
    fn shown(&self, at: &At<Table>) -> String {
        let text = self.text().get(at.span.clone()).unwrap_or_default();
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.parameters.shown(&line)
    }

    fn take_label(&mut self, label: &At<String>, verb: &str) {
        let sound = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && (1..=32).contains(&label.len());
        let number = verb == SAMPLE && label.parse::<u64>().is_ok();
        let word = TAKEN.contains(&label.as_str()) || label.parse::<Kind>().is_ok() || number;
        let wrong = if !sound {
            Some("a label has letters, digits and -, at most 32")
        } else if word {
            Some("it means something else behind `heal` or in a condition")
        } else if self.labels.contains_key(&label.value) || self.hidden.contains_key(&label.value) {
            Some("another step has it already")
        } else {
            None
        };
        if let Some(why) = wrong {
            let message = format!("`{}` cannot be a label", label.value.escape_debug());
            self.find(Finding::new("bad-value", message).on(label, why));
            return;
        }
        let what = match verb {
            "fault" => Labelled::Fault,
            "holds" => Labelled::Holds,
            SAMPLE => Labelled::Sample,
            _ => Labelled::Other,
        };
        self.labels.insert(label.value.clone(), what);
    }

    fn action(&mut self, verb: &'static str, table: &Table) -> Option<Action> {
        let mut keys = vec![verb, "as"];
        keys.extend(match verb {
            "workload" => &["rate", "size", "clients", "deadline", "mix"][..],
            "until" => &["on", "within"],
            "expect" => &["on", "within", "for", "since"],
            "holds" => &["on", "for"],
            "exec" => &["on", "within", "status", "output"],
            SAMPLE => &["on"],
            // Their other keys are those of the fault and of the order.
            "fault" | "heal" | "operate" | "move" | PARALLEL => return self.worded(verb, table),
            _ => &[],
        });
        self.only(table, &format!("`{verb}`"), &keys);
        match verb {
            "workload" => self.workload(table),
            "wait" => self.parsed(table, verb).map(Action::Wait),
            "until" => {
                let what = self.stated(verb, table)?;
                Some(Action::Until(what, self.deadline(verb, table)?))
            }
            "expect" => self.expect(table),
            "exec" => self.exec(table),
            SAMPLE => self.sample(table),
            "holds" => {
                let what = self.stated(verb, table)?;
                if let (Statement::Event(..), Some(text)) = (&what, self.text_of(table, verb)) {
                    let finding = Finding::new("bad-value", "an event is no state that could hold");
                    self.find(
                        finding
                            .on(&text, "this one")
                            .help("use `forbid`, `require` or `expect`"),
                    );
                    return None;
                }
                let lasts = self.parsed(table, "for");
                Some(Action::Holds { what, lasts })
            }
            _ => {
                let label = self.text_of(table, verb)?;
                self.label(&label, label.span.clone(), Some(Labelled::Holds))
                    .then_some(Action::Release(label.value))
            }
        }
    }

    fn worded(&mut self, verb: &'static str, table: &Table) -> Option<Action> {
        match verb {
            "fault" => self.fault(table),
            "heal" => self.heal(table).map(Action::Heal),
            PARALLEL => self.parallel(table),
            _ => self.operate(verb, table),
        }
    }

    fn stated(&mut self, verb: &str, table: &Table) -> Option<Statement> {
        let text = self.text_of(table, verb)?;
        let on = self.text_of(table, "on");
        self.statement(&text, on)
    }

    /// In which time something must come true.
    pub(super) fn deadline(&mut self, verb: &str, table: &Table) -> Option<Span> {
        if table.get("within").is_none() {
            let place = table.get(verb).map_or(0..0, |v| v.span.clone());
            let finding = Finding::new("missing-key", format!("`{verb}` does not say in which time"));
            self.find(
                finding
                    .at(place, "until when")
                    .help("add `within = \"30s\"`, or as long as it may take"),
            );
            return None;
        }
        self.parsed(table, "within")
    }

    fn expect(&mut self, table: &Table) -> Option<Action> {
        let what = self.stated("expect", table)?;
        let lasts: Option<Span> = self.parsed(table, "for");
        let since = self.text_of(table, "since");
        let is_event = matches!(what, Statement::Event(..));
        let misplaced = [("for", is_event), ("since", !is_event)];
        for (key, wrong) in misplaced {
            if let Some(value) = table.get(key).filter(|_| wrong) {
                let message = match key {
                    "for" => "an event does not last",
                    _ => "only of an event it is asked since when",
                };
                self.find(Finding::new("unknown-key", message).on(value, "not here"));
            }
        }
        if let Some(label) = &since {
            self.label(label, label.span.clone(), None);
        }
        // What must be so for a time may have to be so at once.
        let within = match (table.get("within"), lasts) {
            (None, Some(_)) => Span::secs(0),
            _ => self.deadline("expect", table)?,
        };
        Some(Action::Expect(Expect {
            what,
            within,
            lasts,
            since: since.map(|s| s.value),
        }))
    }

    fn workload(&mut self, table: &Table) -> Option<Action> {
        let text = self.text_of(table, "workload")?;
        self.alone("workload", &text);
        match text.as_str() {
            "stop" => {
                self.only(table, "`workload = \"stop\"`", &["workload", "as"]);
                return Some(Action::StopLoad);
            }
            "mail" => {}
            other if self.rules.pack.workloads.iter().any(|w| w.as_str() == other) => {}
            other => {
                self.find(
                    Finding::new("bad-value", format!("unknown workload `{}`", other.escape_debug()))
                        .on(&text, "no such workload")
                        .help(known(
                            other,
                            self.rules
                                .pack
                                .workloads
                                .iter()
                                .map(Name::as_str)
                                .chain(["mail", "stop"])
                                .collect::<Vec<_>>(),
                        )),
                );
                return None;
            }
        }
        Some(Action::Load(Workload {
            kind: match text.parse() {
                Ok(name) if text.as_str() != "mail" => WorkloadKind::Named(name),
                _ => WorkloadKind::Mail,
            },
            rate: self.parsed(table, "rate").unwrap_or(Rate(10.0)),
            size: self.parsed(table, "size").unwrap_or(Size(32 << 10)),
            clients: self.number(table, "clients").unwrap_or(12),
            deadline: self.parsed(table, "deadline").unwrap_or(Span::secs(5)),
            mix: self.mix(table),
            seed: 0,
        }))
    }

    fn mix(&mut self, table: &Table) -> Mix {
        let Some(value) = table.get("mix") else {
            return Mix::default();
        };
        let Value::Table(mix) = &value.value else {
            self.find(Finding::new("bad-value", "`mix` is a table").on(value, "like `{ submit = 45, deliver = 40 }`"));
            return Mix::default();
        };
        self.only(mix, "`mix`", &["submit", "deliver", "read", "delete"]);
        let usual = Mix::default();
        let mut share = |key, usual| self.number(mix, key).unwrap_or(usual);
        Mix {
            submit: share("submit", usual.submit),
            deliver: share("deliver", usual.deliver),
            read: share("read", usual.read),
            delete: share("delete", usual.delete),
        }
    }

    /// Everything beside the verb that is a parameter, as its words take it.
    fn parameters(&mut self, table: &Table, but: &[&str]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (key, value) in table.0.iter().filter(|(k, _)| !but.contains(&k.value.as_str())) {
            match value.value.argument() {
                Some(text) => {
                    all.insert(key.value.clone(), text);
                }
                None => {
                    let finding =
                        Finding::new("bad-value", format!("`{}` cannot be a table", key.value.escape_debug()));
                    self.find(finding.on(value, "this one"));
                }
            }
        }
        all
    }

    fn fault(&mut self, table: &Table) -> Option<Action> {
        let start = self.found();
        let kind = self.text_of(table, "fault")?;
        let lasts = self.parsed(table, "for");
        let parameters = self.parameters(table, &["fault", "on", "as", "for"]);
        if let Ok(known_kind) = kind.parse::<Kind>() {
            self.fault_keys(known_kind, table, &["fault", "on", "as", "for"]);
        }
        if self.found() > start {
            return None;
        }
        let on = self.target(table, "on");
        let made = |parameters| Words::new(&kind, on.clone(), parameters);
        let words = match made(parameters.clone()) {
            Ok(words) => words,
            Err(e) => {
                let place = culprit(&e, &parameters, table, |p| made(p).map(drop)).unwrap_or(kind.span.clone());
                self.bad_fault(&e, place);
                return None;
            }
        };
        if kind.value == "damage-file" {
            self.kind_of_file(table);
        }
        // `on` was looked at already.
        for name in words.names().into_iter().filter(|n| Some(*n) != on.as_deref()) {
            let naming = table.0.iter().find(|(key, value)| {
                let listed = value.value.argument().unwrap_or_default();
                key.value != "fault" && listed.split([',', '/']).any(|part| part.trim() == name)
            });
            self.node(name, naming.map_or(kind.span.clone(), |(_, v)| v.span.clone()));
        }
        if self.found() == start
            && let Some(e) = self.impossible(&words)
        {
            let tried = |p| {
                self.impossible(&Words {
                    parameters: p,
                    ..words.clone()
                })
                .map_or(Ok(()), Err)
            };
            let place = culprit(&e, &parameters, table, tried).unwrap_or(kind.span.clone());
            self.bad_fault(&e, place);
            return None;
        }
        Some(Action::Fault { words, lasts })
    }

    /// Finds a kind of file that the pack does not have.
    fn kind_of_file(&mut self, table: &Table) {
        let files = &self.rules.pack.files;
        let Some(file) = self.text_of(table, "file").filter(|f| !files.contains(&f.value)) else {
            return;
        };
        let message = format!("the runtime has no file `{}`", file.value.escape_debug());
        let help = known(&file, files.iter().map(String::as_str));
        self.find(
            Finding::new("bad-fault", message)
                .on(&file, "no such kind of file")
                .help(help),
        );
    }

    /// Finds keys that are no parameters of this kind of fault.
    fn fault_keys(&mut self, kind: Kind, table: &Table, beside: &[&str]) {
        let parameters = kind.parameters();
        let names: Vec<&str> = beside
            .iter()
            .copied()
            .chain(parameters.iter().map(|(name, _)| *name))
            .collect();
        self.only(table, &format!("the fault `{kind}`"), &names);
    }

    fn bad_fault(&mut self, e: &Error, place: Range<usize>) {
        let seen = e.problem().map_or_else(|| e.to_string(), Problem::to_string);
        let mut finding = Finding::new("bad-fault", seen).at(place, "here");
        finding.help = e.problem().and_then(|p| p.remedy.clone());
        self.find(finding);
    }

    /// Why the fault cannot be made in this lab, whoever has which role then.
    fn impossible(&self, words: &Words) -> Option<Error> {
        let lab = self.rules.lab;
        let mut last = None;
        for machines in possible(lab) {
            let who = |name: &str| -> Result<Target> {
                let node = machines.get(name).map_or(name, String::as_str).to_owned();
                Ok(Target { role: None, node })
            };
            match words.resolve(lab, &who) {
                Ok(_) => return None,
                Err(e) => last = Some(e),
            }
        }
        last
    }

    fn heal(&mut self, table: &Table) -> Option<HealWords> {
        let text = self.text_of(table, "heal")?;
        if let Ok(kind) = text.parse::<Kind>() {
            self.fault_keys(kind, table, &["heal", "on", "as"]);
            return Some(HealWords::Like {
                kind,
                on: self.target(table, "on"),
                parameters: self.parameters(table, &["heal", "on", "as"]),
            });
        }
        self.only(table, "`heal` of this", &["heal", "as"]);
        if text.value == "all" {
            return Some(HealWords::All);
        }
        if self.labels.get(&text.value) == Some(&Labelled::Fault) {
            return Some(HealWords::Labelled(text.value));
        }
        let mut names = vec!["all".to_owned()];
        let faults = self.labels.iter().filter(|(_, l)| **l == Labelled::Fault);
        names.extend(faults.map(|(name, _)| name.clone()));
        names.extend(Kind::all().map(|k| k.word().to_owned()));
        let help = known(&text, names.iter().map(String::as_str));
        self.find(
            Finding::new(
                "bad-value",
                format!("unknown fault to heal `{}`", text.value.escape_debug()),
            )
            .on(&text, "no such fault before it")
            .help(help),
        );
        None
    }

    fn operate(&mut self, verb: &'static str, table: &Table) -> Option<Action> {
        let said = self.text_of(table, verb)?;
        // `move = "b"` is the order `move` with `to`.
        let word = if verb == "move" {
            "move".to_owned()
        } else {
            said.value.clone()
        };
        let orders = &self.rules.pack.orders;
        let Some(order) = orders.get(&word) else {
            let message = format!("the runtime takes no order `{}`", word.escape_debug());
            let finding = Finding::new("bad-value", message).on(&said, "no such order");
            self.find(finding.help(known(&word, orders.keys().map(String::as_str))));
            return None;
        };
        let mut args = self.said_beside(table);
        if verb == "move" {
            self.node(&said, said.span.clone());
            if let Some(to) = table.get("to") {
                self.find(Finding::new("unknown-key", "`move` says itself where to").on(to, "not here"));
            }
            args.insert("to".to_owned(), said.value.clone());
        }
        // What is there and means nothing was found already.
        let wrong = order
            .wrong(&word, &args)
            .into_iter()
            .filter(|b| !b.missing || table.get(&b.name).is_none());
        for bad in wrong {
            let place = table
                .get(&bad.name)
                .filter(|_| !bad.missing)
                .map_or(said.span.clone(), |v| v.span.clone());
            let rule = if bad.missing { "missing-key" } else { "bad-value" };
            self.find(Finding::new(rule, bad.message).at(place, "here").help(bad.help));
        }
        let machines: Vec<String> = order
            .takes
            .iter()
            .filter(|p| p.value == Takes::Node && args.contains_key(&p.name))
            .map(|p| p.name.clone())
            .collect();
        for name in &machines {
            self.target(table, name);
        }
        Some(Action::Operate {
            word,
            on: self.target(table, "on"),
            args,
            machines,
            refused: self.refused(table)?,
        })
    }

    /// What is said beside an order; a setting is a table of one key and its value.
    fn said_beside(&mut self, table: &Table) -> BTreeMap<String, String> {
        const OURS: [&str; 6] = ["operate", "move", "on", "as", "refused", "set"];
        let mut args = self.parameters(table, &OURS);
        let Some(set) = table.get("set") else {
            return args;
        };
        let setting = match &set.value {
            Value::Table(Table(entries)) => match entries.as_slice() {
                [(key, value)] => value.value.argument().map(|v| format!("{}={v}", key.value)),
                _ => None,
            },
            _ => None,
        };
        match setting {
            Some(setting) => {
                args.insert("set".to_owned(), setting);
            }
            None => self.find(
                Finding::new("bad-value", "`set` is one setting and its value")
                    .on(set, "this one")
                    .help("write it like `set = { dial = \"good\" }`; for another one, make another step"),
            ),
        }
        args
    }

    fn refused(&mut self, table: &Table) -> Option<Refused> {
        let Some(value) = table.get("refused") else {
            return Some(Refused::No);
        };
        match &value.value {
            Value::Yes(false) => Some(Refused::No),
            Value::Yes(true) => Some(Refused::Yes),
            Value::Text(cause) if !cause.trim().is_empty() => Some(Refused::Because(cause.clone())),
            _ => {
                let finding = Finding::new("bad-value", "`refused` is true, or what the refusal must say");
                self.find(finding.on(value, "this one"));
                None
            }
        }
    }
}

/// The place of the parameter without which something else, or nothing, would be wrong.
fn culprit(
    error: &Error,
    parameters: &BTreeMap<String, String>,
    table: &Table,
    tried: impl Fn(BTreeMap<String, String>) -> Result<()>,
) -> Option<Range<usize>> {
    let without = |name: &&String| {
        let mut rest = parameters.clone();
        rest.remove(*name);
        tried(rest).err().is_none_or(|e| e.to_string() != error.to_string())
    };
    let name = parameters.keys().find(without)?;
    table.get(name).map(|value| value.span.clone())
}
