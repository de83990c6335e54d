//! The scenario file as written.

use super::Mix;
use crate::diagnostic::At;
use crate::units::{Rate, Size, Span};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawScenario {
    pub id: At<String>,
    pub title: String,
    pub steps: Vec<At<RawStep>>,
    pub require: Option<RawRequire>,
    #[serde(default)]
    pub forbid: Vec<At<String>>,
    #[serde(default)]
    pub invariants: Vec<At<String>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawRequire {
    pub acks: u64,
    pub closed_generations: u64,
    pub role_changes: u64,
}

/// A step: one of the verbs and the keys that belong to it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawStep {
    pub workload: Option<At<String>>,
    pub wait: Option<Span>,
    pub until: Option<At<String>>,
    pub fault: Option<At<String>>,
    pub expect: Option<At<String>>,
    pub heal: Option<At<String>>,
    pub operate: Option<At<String>>,
    #[serde(rename = "move")]
    pub mv: Option<At<String>>,

    pub on: Option<At<String>>,
    pub within: Option<Span>,
    pub rate: Option<At<Plain>>,
    pub size: Option<Size>,
    pub clients: Option<u8>,
    pub deadline: Option<Span>,
    pub mix: Option<Mix>,
    pub to: Option<At<String>>,
    pub comment: Option<String>,
    pub group: Option<At<String>>,
    pub set: BTreeMap<String, String>,
    pub refused: Option<bool>,

    // Parameters of faults; `rate` is one too.
    pub network: Option<At<Plain>>,
    pub between: Option<At<Plain>>,
    pub sides: Option<At<Plain>>,
    pub direction: Option<At<Plain>>,
    pub proto: Option<At<Plain>>,
    pub port: Option<At<Plain>>,
    pub ethertype: Option<At<Plain>>,
    pub address: Option<At<Plain>>,
    pub loss: Option<At<Plain>>,
    pub burst: Option<At<Plain>>,
    pub delay: Option<At<Plain>>,
    pub jitter: Option<At<Plain>>,
    pub distribution: Option<At<Plain>>,
    pub duplicate: Option<At<Plain>>,
    pub reorder: Option<At<Plain>>,
    pub queue: Option<At<Plain>>,
    pub mtu: Option<At<Plain>>,
    pub down: Option<At<Plain>>,
    pub up: Option<At<Plain>>,
    pub corrupt: Option<At<Plain>>,
    pub mend: Option<At<Plain>>,
    pub seed: Option<At<Plain>>,
    pub process: Option<At<Plain>>,
    pub signal: Option<At<Plain>>,
    pub step: Option<At<Plain>>,
    pub strobe: Option<At<Plain>>,
    pub unit: Option<At<Plain>>,
    pub disk: Option<At<Plain>>,
    pub file: Option<At<Plain>>,
    pub how: Option<At<Plain>>,
    pub which: Option<At<Plain>>,
    pub leave: Option<At<Plain>>,
}

/// A parameter of a fault: a word, a number, or a list of words, or of lists.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Plain {
    Text(String),
    Number(i64),
    Yes(bool),
    List(Vec<String>),
    Sides(Vec<Vec<String>>),
}

impl Plain {
    /// As it is written on the command line.
    fn text(&self) -> String {
        match self {
            Plain::Text(s) => s.clone(),
            Plain::Number(n) => n.to_string(),
            Plain::Yes(yes) => yes.to_string(),
            Plain::List(list) => list.join(","),
            Plain::Sides(sides) => sides.iter().map(|s| s.join(",")).collect::<Vec<_>>().join("/"),
        }
    }
}

/// The parameters of all faults by their fields; what each kind of fault takes is checked with its words.
macro_rules! parameters {
    ($($key:ident)*) => {
        const FAULT_KEYS: &[&str] = &["on", $(stringify!($key)),*];

        impl RawStep {
            fn plain(&self) -> Vec<(&'static str, &Option<At<Plain>>)> {
                vec![$((stringify!($key), &self.$key)),*]
            }
        }
    };
}

parameters!(rate network between sides direction proto port ethertype address loss burst delay jitter distribution
    duplicate reorder queue mtu down up corrupt mend seed process signal step strobe unit disk file how which leave);

/// The verbs of a step, as the file writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Workload,
    Wait,
    Until,
    Fault,
    Expect,
    Heal,
    Operate,
    Move,
}

impl Verb {
    pub const ALL: [Verb; 8] = [
        Verb::Workload,
        Verb::Wait,
        Verb::Until,
        Verb::Fault,
        Verb::Expect,
        Verb::Heal,
        Verb::Operate,
        Verb::Move,
    ];

    pub fn key(self) -> &'static str {
        match self {
            Verb::Workload => "workload",
            Verb::Wait => "wait",
            Verb::Until => "until",
            Verb::Fault => "fault",
            Verb::Expect => "expect",
            Verb::Heal => "heal",
            Verb::Operate => "operate",
            Verb::Move => "move",
        }
    }

    /// The keys that may stand beside it.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Verb::Workload => &["rate", "size", "clients", "deadline", "mix"],
            Verb::Wait | Verb::Heal => &[],
            Verb::Until => &["within"],
            Verb::Fault => FAULT_KEYS,
            Verb::Expect => &["on", "within"],
            Verb::Operate => &["on", "to", "comment", "group", "set", "refused"],
            Verb::Move => &["on", "comment", "refused"],
        }
    }
}

impl RawStep {
    /// The verbs that it has.
    pub fn verbs(&self) -> Vec<Verb> {
        let has = |v: &Verb| match v {
            Verb::Workload => self.workload.is_some(),
            Verb::Wait => self.wait.is_some(),
            Verb::Until => self.until.is_some(),
            Verb::Fault => self.fault.is_some(),
            Verb::Expect => self.expect.is_some(),
            Verb::Heal => self.heal.is_some(),
            Verb::Operate => self.operate.is_some(),
            Verb::Move => self.mv.is_some(),
        };
        Verb::ALL.into_iter().filter(has).collect()
    }

    /// Keys that it has and that do not belong to `verb`, with their span where it is known.
    pub fn others(&self, verb: Verb) -> Vec<(&'static str, Range<usize>)> {
        fn span<T>(at: &Option<At<T>>) -> Option<Range<usize>> {
            at.as_ref().map(|a| a.span.clone())
        }
        let whole = |is: bool| is.then(|| self.anywhere());
        let there = [
            ("on", span(&self.on)),
            ("within", whole(self.within.is_some())),
            ("size", whole(self.size.is_some())),
            ("clients", whole(self.clients.is_some())),
            ("deadline", whole(self.deadline.is_some())),
            ("mix", whole(self.mix.is_some())),
            ("to", span(&self.to)),
            ("comment", whole(self.comment.is_some())),
            ("group", span(&self.group)),
            ("set", whole(!self.set.is_empty())),
            ("refused", whole(self.refused.is_some())),
        ];
        let parameters = self.plain().into_iter().map(|(key, value)| (key, span(value)));
        there
            .into_iter()
            .chain(parameters)
            .filter(|(key, _)| !verb.keys().contains(key))
            .filter_map(|(key, span)| Some((key, span?)))
            .collect()
    }

    /// The span of the verb: where a key has none of its own.
    fn anywhere(&self) -> Range<usize> {
        let texts = [
            &self.workload,
            &self.until,
            &self.fault,
            &self.expect,
            &self.heal,
            &self.operate,
            &self.mv,
        ];
        texts.into_iter().flatten().next().map_or(0..0, |a| a.span.clone())
    }

    /// The parameters of a fault, as its words take them.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let given = |(key, value): (&str, &Option<At<Plain>>)| Some((key.to_owned(), value.as_ref()?.value.text()));
        self.plain().into_iter().filter_map(given).collect()
    }

    /// The rate of a workload.
    pub fn workload_rate(&self) -> Option<Result<Rate, (Range<usize>, String)>> {
        let rate = self.rate.as_ref()?;
        Some(rate.value.text().parse().map_err(|e| (rate.span.clone(), e)))
    }
}
