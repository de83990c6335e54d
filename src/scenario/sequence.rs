//! Steps that hold others: a file has each of them once, a scenario as often as it is done.

use super::file::Step;
use super::include::INCLUDE;
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
        let read: Vec<Option<Vec<Step>>> = all.iter().map(|at| self.one_or_several(at)).collect();
        Some(read.into_iter().collect::<Option<Vec<_>>>()?.concat())
    }

    fn one_or_several(&mut self, at: &At<Table>) -> Option<Vec<Step>> {
        match self.verb(at)? {
            INCLUDE => self.included(at),
            REPEAT => self.held_by(REPEAT, at, Self::rounds),
            verb => Some(vec![self.step(verb, at)?]),
        }
    }

    /// A step that holds others, and stands in none of its kind.
    fn held_by(
        &mut self,
        verb: &'static str,
        at: &At<Table>,
        read: fn(&mut Self, &Table) -> Option<Vec<Step>>,
    ) -> Option<Vec<Step>> {
        if self.within.contains(&verb) {
            let message = format!("a `{verb}` holds no other one");
            let finding = Finding::new("bad-value", message).on(at, "this step");
            self.find(finding.help("write its steps one after the other"));
            return None;
        }
        self.within.push(verb);
        let steps = read(self, &at.value);
        self.within.pop();
        steps
    }

    fn rounds(&mut self, table: &Table) -> Option<Vec<Step>> {
        self.only(table, "`repeat`", &[REPEAT, "steps"]);
        let rounds = self.number_of_rounds(table);
        let steps = self.held(REPEAT, table)?;
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

    /// The steps that a step of this verb holds.
    pub(super) fn held(&mut self, verb: &str, table: &Table) -> Option<Vec<Step>> {
        let Some(value) = table.get("steps") else {
            let place = table.get(verb).map_or(0..0, |v| v.span.clone());
            let finding = Finding::new("missing-key", format!("`{verb}` does not say what")).at(place, "which steps");
            self.find(finding.help("add `steps = [{ … }, { … }]`"));
            return None;
        };
        let tables = self.tables("steps", ["a step", "steps"], value)?;
        self.steps(&tables)
    }

    /// A list that is not empty, of tables; what one and all of them are, for people.
    pub(super) fn tables(&mut self, key: &str, [one, all]: [&str; 2], value: &At<Value>) -> Option<Vec<At<Table>>> {
        let items = match &value.value {
            Value::List(items) if !items.is_empty() => items,
            _ => {
                let message = format!("`{key}` is a list of {all}");
                self.find(Finding::new("bad-value", message).on(value, "this one"));
                return None;
            }
        };
        let mut tables = Vec::new();
        for item in items {
            match &item.value {
                Value::Table(table) => tables.push(At {
                    value: table.clone(),
                    span: item.span.clone(),
                }),
                other => {
                    let message = format!("{one} is a table, not {}", other.kind());
                    self.find(Finding::new("bad-value", message).on(item, "this one"));
                }
            }
        }
        (tables.len() == items.len()).then_some(tables)
    }
}
