//! Steps that are done several times: a file has each of them once, a scenario once for every round.

use super::file::Step;
use super::raw::{Table, Value};
use super::reader::Reader;
use crate::diagnostic::{At, Finding};

/// The key that makes a step hold others.
pub(super) const REPEAT: &str = "repeat";

/// The most rounds.
const ROUNDS: i64 = 100;

impl Reader<'_> {
    /// The steps in the order in which they are done; none where something is wrong with one.
    pub fn steps(&mut self, all: &[At<Table>]) -> Option<Vec<Step>> {
        let read: Vec<Option<Vec<Step>>> = all.iter().map(|at| self.one_or_rounds(at)).collect();
        Some(read.into_iter().collect::<Option<Vec<_>>>()?.concat())
    }

    fn one_or_rounds(&mut self, at: &At<Table>) -> Option<Vec<Step>> {
        match self.verb(at)? {
            REPEAT => self.rounds(&at.value),
            verb => Some(vec![self.step(verb, at)?]),
        }
    }

    fn rounds(&mut self, table: &Table) -> Option<Vec<Step>> {
        self.only(table, "`repeat`", &[REPEAT, "steps"]);
        let rounds = self.number_of_rounds(table);
        let steps = self.held(table)?;
        let rounds = rounds?;
        let of = |round| {
            let text = move |s: &Step| format!("round {round} of {rounds}: {}", s.text);
            steps.iter().map(move |s| Step {
                text: text(s),
                ..s.clone()
            })
        };
        Some((1..=rounds).flat_map(of).collect())
    }

    fn number_of_rounds(&mut self, table: &Table) -> Option<i64> {
        let rounds = self.number(table, REPEAT)?;
        if (1..=ROUNDS).contains(&rounds) {
            return Some(rounds);
        }
        let place = table.get(REPEAT).map_or(0..0, |v| v.span.clone());
        let message = format!("`repeat` is a number from 1 to {ROUNDS}, not {rounds}");
        self.find(Finding::new("bad-value", message).at(place, "out of its bounds"));
        None
    }

    /// The steps of one round.
    fn held(&mut self, table: &Table) -> Option<Vec<Step>> {
        let Some(value) = table.get("steps") else {
            let place = table.get(REPEAT).map_or(0..0, |v| v.span.clone());
            let finding = Finding::new("missing-key", "`repeat` does not say what").at(place, "which steps");
            self.find(finding.help("add `steps = [{ … }, { … }]`"));
            return None;
        };
        let items = match &value.value {
            Value::List(items) if !items.is_empty() => items,
            _ => {
                let finding = Finding::new("bad-value", "`steps` is a list of steps").on(value, "this one");
                self.find(finding);
                return None;
            }
        };
        let read: Vec<Option<Step>> = items.iter().map(|item| self.held_one(item)).collect();
        read.into_iter().collect()
    }

    fn held_one(&mut self, item: &At<Value>) -> Option<Step> {
        let Value::Table(table) = &item.value else {
            let message = format!("a step is a table, not {}", item.value.kind());
            self.find(Finding::new("bad-value", message).on(item, "this one"));
            return None;
        };
        let at = At {
            value: table.clone(),
            span: item.span.clone(),
        };
        match self.verb(&at)? {
            REPEAT => {
                let finding = Finding::new("bad-value", "a `repeat` holds no other one").on(&at, "this step");
                self.find(finding.help("write its steps one after the other"));
                None
            }
            verb => self.step(verb, &at),
        }
    }
}
