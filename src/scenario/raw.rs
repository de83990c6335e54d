//! The scenario file as written.

use super::Mix;
use crate::spec::At;
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
    pub rate: Option<Rate>,
    pub size: Option<Size>,
    pub clients: Option<u8>,
    pub deadline: Option<Span>,
    pub mix: Option<Mix>,
    pub to: Option<At<String>>,
    pub comment: Option<String>,
    pub group: Option<At<String>>,
    pub set: BTreeMap<String, String>,
    pub refused: Option<bool>,

    pub network: Option<At<OneOrMore>>,
    pub between: Option<At<OneOrMore>>,
    pub direction: Option<At<String>>,
    pub proto: Option<At<String>>,
    pub port: Option<At<u16>>,
    pub process: Option<At<String>>,
    pub signal: Option<At<String>>,
}

/// A name, or a list of names.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn joined(&self) -> String {
        match self {
            OneOrMore::One(s) => s.clone(),
            OneOrMore::More(list) => list.join(","),
        }
    }
}

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
            // What each kind of fault takes is checked with its words.
            Verb::Fault => &[
                "on",
                "network",
                "between",
                "direction",
                "proto",
                "port",
                "process",
                "signal",
            ],
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

    /// Keys that it has and that do not belong to `verb`, with their place where it is known.
    pub fn others(&self, verb: Verb) -> Vec<(&'static str, Range<usize>)> {
        fn place<T>(at: &Option<At<T>>) -> Option<Range<usize>> {
            at.as_ref().map(|a| a.span.clone())
        }
        let whole = |is: bool| is.then(|| self.anywhere());
        let there = [
            ("on", place(&self.on)),
            ("within", whole(self.within.is_some())),
            ("rate", whole(self.rate.is_some())),
            ("size", whole(self.size.is_some())),
            ("clients", whole(self.clients.is_some())),
            ("deadline", whole(self.deadline.is_some())),
            ("mix", whole(self.mix.is_some())),
            ("to", place(&self.to)),
            ("comment", whole(self.comment.is_some())),
            ("group", place(&self.group)),
            ("set", whole(!self.set.is_empty())),
            ("refused", whole(self.refused.is_some())),
            ("network", place(&self.network)),
            ("between", place(&self.between)),
            ("direction", place(&self.direction)),
            ("proto", place(&self.proto)),
            ("port", place(&self.port)),
            ("process", place(&self.process)),
            ("signal", place(&self.signal)),
        ];
        there
            .into_iter()
            .filter(|(key, _)| !verb.keys().contains(key))
            .filter_map(|(key, place)| Some((key, place?)))
            .collect()
    }

    /// The place of the verb: where a key has none of its own.
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
        let text = |t: &Option<At<String>>| t.as_ref().map(|t| t.value.clone());
        let names = |n: &Option<At<OneOrMore>>| n.as_ref().map(|n| n.joined());
        [
            ("network", names(&self.network)),
            ("between", names(&self.between)),
            ("direction", text(&self.direction)),
            ("proto", text(&self.proto)),
            ("port", self.port.as_ref().map(|p| p.to_string())),
            ("process", text(&self.process)),
            ("signal", text(&self.signal)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}
