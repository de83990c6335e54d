//! What `until` waits for: a comparison, or several with `and`, `or`, `not` and parentheses, over one look at the lab.
//!
//! `copies.fresh >= 3 and service.state == Online`. A name stands for the values of every node that knows it; a
//! comparison holds where all of them satisfy it. Where nobody knows it, whether it holds is unknown, and so is its opposite.

use super::Progress;
use super::roles::Roles;
use super::truth::Truth;
use crate::spec::known;
use crate::verify::Observation;
use ccr_contract::status::{ClusterState, CopyStatus, Intent, ServiceState, WitnessHealth};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;

/// Longest expression, and deepest nesting, that is read.
const LONGEST: usize = 1000;
const DEEPEST: usize = 20;

/// What a name's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A node: its name, or a role.
    Node,
}

const SERVICE: &[&str] = &[
    "Online",
    "PartiallyOnline",
    "OnlinePending",
    "Offline",
    "OfflinePending",
    "Failed",
];
const CLUSTER: &[&str] = &["up", "forming", "stopped", "no-quorum"];
const COPY: &[&str] = &[
    "Healthy",
    "Failed",
    "Seeding",
    "Stopped",
    "Suspended",
    "Initializing",
    "ServiceDown",
    "Resynchronizing",
    "Disabled",
];
const INTENT: &[&str] = &["started", "stopped"];
const WITNESS: &[&str] = &["ok", "failed", "unknown"];

/// Every name, with its type and what it is.
const NAMES: &[(&str, Type, &str)] = &[
    (
        "copies.generated",
        Type::Number,
        "last generation closed by the active, as each copy knows it",
    ),
    (
        "copies.notified",
        Type::Number,
        "last generation that a copy was told of",
    ),
    ("copies.copied", Type::Number, "last generation copied"),
    ("copies.inspected", Type::Number, "last generation inspected"),
    (
        "copies.fresh",
        Type::Number,
        "generations inspected that were closed since the scenario began",
    ),
    ("copies.replayed", Type::Number, "last generation replayed"),
    (
        "copies.copy_queue",
        Type::Number,
        "generations not yet copied and inspected",
    ),
    ("copies.replay_queue", Type::Number, "generations not yet replayed"),
    ("copies.status", Type::Word(COPY), "status of a copy"),
    (
        "service.state",
        Type::Word(SERVICE),
        "state of the service, as each member sees it",
    ),
    ("service.active", Type::Node, "the member that serves"),
    (
        "service.intent",
        Type::Word(INTENT),
        "what the operator wants of the service",
    ),
    ("cluster.state", Type::Word(CLUSTER), "where each member stands"),
    (
        "cluster.quorum_owner",
        Type::Node,
        "the member that owns the quorum resource",
    ),
    ("cluster.votes", Type::Number, "votes that each member has"),
    ("cluster.witness", Type::Word(WITNESS), "health of the witness"),
    ("cluster.epoch", Type::Number, "the epoch that each member knows"),
    ("hub.queued", Type::Number, "messages accepted and not delivered"),
    ("hub.dumpster", Type::Number, "messages in the dumpster"),
    ("hub.redeliveries", Type::Number, "redelivery requests not yet done"),
    (
        "load.acks",
        Type::Number,
        "messages that were acknowledged to the clients",
    ),
    ("load.store_answers", Type::Number, "answers of the store itself"),
];

/// The names that an expression may use, each with what it is.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.iter().map(|(name, _, what)| (*name, *what))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Operator {
    #[serde(rename = "==")]
    Is,
    #[serde(rename = "!=")]
    IsNot,
    #[serde(rename = "<")]
    Below,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = ">")]
    Above,
    #[serde(rename = ">=")]
    AtLeast,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A word, or the name of a machine.
    Text(String),
}

/// What stands on a side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    /// A name that is listed, by its place in the list.
    Name(usize),
    /// What was sampled, by the label of the step.
    Sample(String),
    /// As it is written.
    Value(Value),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Compare(Side, Operator, Side),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
}

/// An expression that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    root: Node,
    /// Roles and machines that it compares with, with their place in the text.
    nodes: Vec<(String, Range<usize>)>,
}

/// Why an expression was not understood, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadExpression {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// What an expression is judged by.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// A look at the lab.
    pub observation: &'a Observation,
    /// The clients' counters.
    pub progress: &'a Progress,
    /// Who is who.
    pub roles: &'a Roles,
}

impl Expression {
    /// Reads an expression in which nothing that was sampled is named.
    pub fn parse(text: &str) -> Result<Self, BadExpression> {
        Self::with_samples(text, |_| false)
    }

    /// Reads an expression; `is_sample` knows the labels of what was sampled.
    pub fn with_samples(text: &str, is_sample: impl Fn(&str) -> bool) -> Result<Self, BadExpression> {
        let bad = |span: Range<usize>, message: &str| BadExpression {
            span,
            message: message.to_owned(),
            help: None,
        };
        if text.len() > LONGEST {
            return Err(bad(0..LONGEST.min(text.len()), "it is too long"));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens: &tokens,
            at: 0,
            end: text.len(),
            depth: 0,
            nodes: Vec::new(),
            is_sample: &is_sample,
        };
        let root = parser.or()?;
        match parser.tokens.get(parser.at) {
            None => Ok(Self {
                text: text.to_owned(),
                root,
                nodes: parser.nodes,
            }),
            Some(t) => Err(bad(t.span.clone(), "expected `and`, `or` or the end")),
        }
    }

    /// Whether it holds, and what was seen of each of its names.
    pub fn judge(&self, view: View<'_>) -> (Truth, String) {
        let mut seen = Vec::new();
        let truth = self.root.judge(view, &mut seen);
        seen.dedup();
        (truth, seen.join(", "))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The roles and machines that it compares with, each with its place in the text.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        self.nodes.iter().map(|(name, span)| (name.as_str(), span.clone()))
    }
}

impl Node {
    fn judge(&self, view: View<'_>, seen: &mut Vec<String>) -> Truth {
        match self {
            Node::Not(n) => n.judge(view, seen).not(),
            // Both sides are looked at: what was seen of each is wanted.
            Node::And(a, b) => a.judge(view, seen).and(b.judge(view, seen)),
            Node::Or(a, b) => a.judge(view, seen).or(b.judge(view, seen)),
            Node::Compare(left, operator, right) => {
                let values = left.values(view);
                let shown: Vec<String> = values.iter().map(Value::to_string).collect();
                let shown = if shown.is_empty() {
                    "unknown".to_owned()
                } else {
                    shown.join(" ")
                };
                seen.push(format!("{} = {shown}", left.written()));
                let is_node = matches!(left, Side::Name(name) if NAMES[*name].1 == Type::Node);
                let wanted = match right {
                    Side::Value(Value::Text(word)) if is_node => match view.roles.resolve(word, view.observation) {
                        Ok(target) => vec![Value::Text(target.node)],
                        Err(_) => return Truth::Unknown,
                    },
                    Side::Value(value) => vec![value.clone()],
                    sample => sample.values(view),
                };
                let Some(wanted) = wanted.first().filter(|_| !values.is_empty()) else {
                    return Truth::Unknown;
                };
                Truth::of(values.iter().all(|v| operator.compare(v, wanted)))
            }
        }
    }
}

impl Side {
    /// What it stands for; nothing where nobody knows.
    fn values(&self, view: View<'_>) -> Vec<Value> {
        match self {
            Side::Name(name) => values(NAMES[*name].0, view),
            Side::Sample(label) => view.roles.sampled(label).cloned().into_iter().collect(),
            Side::Value(value) => vec![value.clone()],
        }
    }

    fn written(&self) -> String {
        match self {
            Side::Name(name) => NAMES[*name].0.to_owned(),
            Side::Sample(label) => label.clone(),
            Side::Value(value) => value.to_string(),
        }
    }
}

impl Operator {
    fn compare(self, a: &Value, b: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) if a == b => Equal,
            _ => return self == Operator::IsNot,
        };
        match self {
            Operator::Is => order == Equal,
            Operator::IsNot => order != Equal,
            Operator::Below => order == Less,
            Operator::AtMost => order != Greater,
            Operator::Above => order == Greater,
            Operator::AtLeast => order != Less,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Number(n) => n.fmt(f),
            Value::Text(t) => f.write_str(t),
        }
    }
}

/// What every node that knows `name` says.
fn values(name: &str, view: View<'_>) -> Vec<Value> {
    let (group, field) = name.split_once('.').expect("every name has two parts");
    let number = |n: u64| Some(Value::Number(n));
    let text = |t: &str| Some(Value::Text(t.to_owned()));
    let statuses = || view.observation.statuses().map(|(_, s)| s);
    let active = view.observation.active();
    let (load, progress) = (group == "load", view.progress);
    match group {
        _ if load => match field {
            "acks" => number(progress.acks),
            _ => number(progress.store_answers),
        }
        .into_iter()
        .collect(),
        "copies" => {
            // A node speaks for its own copies; what it stores as the active is no copy.
            let copies = statuses().flat_map(|s| s.copies.iter().filter(|c| c.node == s.node));
            copies
                .filter(|c| active != Some(c.node.as_str()))
                .filter_map(|c| match field {
                    "generated" => number(c.generated),
                    "notified" => number(c.notified),
                    "copied" => number(c.copied),
                    "inspected" => number(c.inspected),
                    "fresh" => number(c.inspected.saturating_sub(view.roles.closed_at_begin()?)),
                    "replayed" => number(c.replayed),
                    "copy_queue" => number(c.copy_queue),
                    "replay_queue" => number(c.replay_queue),
                    _ => text(&word::<CopyStatus>(&c.status)),
                })
                .collect()
        }
        "service" => statuses()
            .filter_map(|s| s.service.as_ref())
            .filter_map(|s| match field {
                "state" => text(&word::<ServiceState>(&s.state)),
                "active" => text(s.active.as_deref()?),
                _ => text(&word::<Intent>(&s.intent)),
            })
            .collect(),
        "cluster" => statuses()
            .filter_map(|s| {
                let c = s.cluster.as_ref()?;
                match field {
                    "state" => text(&word::<ClusterState>(&c.state)),
                    "quorum_owner" => text(c.quorum_owner.as_deref()?),
                    "votes" => number(c.votes.have.len() as u64),
                    "witness" => text(&word::<WitnessHealth>(&c.witness.as_ref()?.health)),
                    _ => number(s.epoch),
                }
            })
            .collect(),
        _ => statuses()
            .filter_map(|s| {
                let h = s.hub.as_ref()?;
                match field {
                    "queued" => number(h.queued),
                    "dumpster" => number(h.dumpster),
                    _ => number(h.redeliveries),
                }
            })
            .collect(),
    }
}

/// The word that the contract has for a state.
pub(super) fn word<T: Serialize + DeserializeOwned>(state: &T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(s)) => s,
        other => unreachable!("states are words, not {other:?}"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    Operator(Operator),
    Open,
    Close,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    span: Range<usize>,
}

fn tokens(text: &str) -> Result<Vec<Token>, BadExpression> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let operators = [
            ("==", Operator::Is),
            ("!=", Operator::IsNot),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("<", Operator::Below),
            (">", Operator::Above),
        ];
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let (kind, length) = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if let Some((sign, operator)) = operators.iter().find(|(s, _)| rest.starts_with(s)) {
            (Kind::Operator(*operator), sign.len())
        } else if is_word(c) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (Kind::Word(rest[..length].to_owned()), length)
        } else if c == '(' {
            (Kind::Open, 1)
        } else if c == ')' {
            (Kind::Close, 1)
        } else {
            return Err(BadExpression {
                span: at..at + c.len_utf8(),
                message: format!("`{}` does not belong here", c.escape_debug()),
                help: Some("write like `copies.inspected >= 3 and service.state == Online`".to_owned()),
            });
        };
        tokens.push(Token {
            kind,
            span: at..at + length,
        });
        at += length;
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    end: usize,
    depth: usize,
    nodes: Vec<(String, Range<usize>)>,
    is_sample: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Node, BadExpression> {
        let mut left = self.and()?;
        while self.takes("or") {
            left = Node::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, BadExpression> {
        let mut left = self.one()?;
        while self.takes("and") {
            left = Node::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Node, BadExpression> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.bad("it is nested too deep", None));
        }
        let node = if self.takes("not") {
            Node::Not(Box::new(self.one()?))
        } else if self.peek() == Some(&Kind::Open) {
            self.at += 1;
            let inner = self.or()?;
            if self.peek() != Some(&Kind::Close) {
                return Err(self.bad("expected `)`", None));
            }
            self.at += 1;
            inner
        } else {
            self.compare()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn compare(&mut self) -> Result<Node, BadExpression> {
        let every = || NAMES.iter().map(|(n, ..)| *n);
        let Some(Kind::Word(name)) = self.peek().cloned() else {
            return Err(self.bad("expected a name", Some(known("", every()))));
        };
        let left = match NAMES.iter().position(|(n, ..)| *n == name) {
            Some(index) => Side::Name(index),
            None if (self.is_sample)(&name) => Side::Sample(name.clone()),
            None => return Err(self.bad(&format!("there is no `{name}`"), Some(known(&name, every())))),
        };
        self.at += 1;
        let Some(Kind::Operator(operator)) = self.peek().cloned() else {
            return Err(self.bad("expected ==, !=, <, <=, > or >=", None));
        };
        let kind = match left {
            Side::Name(index) => Some(NAMES[index].1),
            _ => None,
        };
        let has_order = kind.is_none_or(|k| k == Type::Number);
        if !has_order && !matches!(operator, Operator::Is | Operator::IsNot) {
            return Err(self.bad(
                &format!("`{name}` has no order"),
                Some("compare it with == or !=".to_owned()),
            ));
        }
        self.at += 1;
        let Some(Kind::Word(word)) = self.peek().cloned() else {
            return Err(self.bad("expected a value", None));
        };
        let right = self.right(&name, kind, word)?;
        self.at += 1;
        Ok(Node::Compare(left, operator, right))
    }

    /// What a name is compared with; `kind` is what its values are, where that is known.
    fn right(&mut self, name: &str, kind: Option<Type>, word: String) -> Result<Side, BadExpression> {
        let text = |word| Ok(Side::Value(Value::Text(word)));
        match kind {
            Some(Type::Word(words)) if words.contains(&word.as_str()) => text(word),
            _ if (self.is_sample)(&word) => Ok(Side::Sample(word)),
            Some(Type::Word(words)) => {
                let help = known(&word, words.iter().copied());
                Err(self.bad(&format!("`{name}` is never `{word}`"), Some(help)))
            }
            Some(Type::Number) => match word.parse() {
                Ok(n) => Ok(Side::Value(Value::Number(n))),
                Err(_) => Err(self.bad(&format!("`{word}` is no number"), None)),
            },
            Some(Type::Node) => {
                self.nodes
                    .extend(self.tokens.get(self.at).map(|t| (word.clone(), t.span.clone())));
                text(word)
            }
            // What was sampled may be either.
            None => match word.parse() {
                Ok(n) => Ok(Side::Value(Value::Number(n))),
                Err(_) => text(word),
            },
        }
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn takes(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Some(Kind::Word(w)) if w == word);
        self.at += usize::from(is);
        is
    }

    fn bad(&self, message: &str, help: Option<String>) -> BadExpression {
        BadExpression {
            span: self.tokens.get(self.at).map_or(self.end..self.end, |t| t.span.clone()),
            message: message.to_owned(),
            help,
        }
    }
}
