//! Settings of a scenario: the runtime is set so before the first step. They go with the fork that they were made in.

use super::Order;
use super::expect::Expectation;
use super::raw::Table;
use super::reader::Reader;
use super::run::{Broken, Runner};
use crate::deploy::Takes;
use crate::diagnostic::{Finding, known};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The order that a pack takes settings by, and the key of what is set.
const SET: &str = "set";

impl Reader<'_> {
    /// The settings of a file, each with its value as the order takes it.
    pub fn settings(&mut self, table: &Table) -> Vec<(String, String)> {
        let Some((first, _)) = table.0.first() else {
            return Vec::new();
        };
        let takes = |o: &crate::deploy::OrderSpec| o.takes.iter().any(|p| p.value == Takes::Setting);
        if !self.rules.pack.orders.get(SET).is_some_and(takes) {
            let finding = Finding::new("bad-value", "the runtime of this lab takes no settings");
            let orders = self.rules.pack.orders.keys().map(String::as_str);
            self.find(finding.on(first, "nobody to tell").help(known(SET, orders)));
            return Vec::new();
        }
        let (mut all, mut names) = (Vec::new(), BTreeSet::new());
        for (key, value) in &table.0 {
            // Spellings of one setting would be made one after the other.
            if !names.insert(key.value.replace('-', "_")) {
                let message = format!("the setting `{}` is there twice", key.value.escape_debug());
                self.find(Finding::new("bad-value", message).on(key, "once more"));
            }
            let sound = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if key.value.is_empty() || key.value.starts_with('-') || !key.value.chars().all(sound) {
                let message = format!("`{}` cannot be a setting", key.value.escape_debug());
                self.find(Finding::new("bad-value", message).on(key, "this one"));
            }
            match value.value.argument() {
                Some(text) => all.push((key.value.clone(), text)),
                None => {
                    let message = format!("`{}` cannot be a table", key.value.escape_debug());
                    self.find(Finding::new("bad-value", message).on(value, "this one"));
                }
            }
        }
        all
    }
}

impl Runner<'_> {
    /// Sets the runtime as the scenario asks, and waits until it is healthy again; whether all went well.
    pub(super) fn set_all(&mut self, settings: &[(String, String)]) -> bool {
        for (key, value) in settings {
            let done = self.set(key, value);
            if !self.check(&format!("setting {key}"), &format!("{key} = {value}"), done) {
                return false;
            }
        }
        if settings.is_empty() {
            return true;
        }
        let settled = self.settle(&Expectation::HEALTHY).map_err(not_as_asked);
        self.check("begin", "the lab is healthy with its settings", settled)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<String, Broken> {
        let order = Order {
            word: SET.to_owned(),
            on: None,
            args: BTreeMap::from([(SET.to_owned(), format!("{key}={value}"))]),
        };
        let begin_us = self.world.now_us();
        let answer = self.beside(|world| world.operate(&order))?;
        self.note(
            "operator.order",
            json!({"order": order, "answer": answer, "begin_us": begin_us}),
        );
        match answer.done {
            true => Ok(answer.seen),
            false => Err(not_as_asked(Broken::Failed(answer.seen))),
        }
    }
}

/// The scenario was never brought to where it can say something.
fn not_as_asked(broken: Broken) -> Broken {
    match broken {
        Broken::Failed(seen) | Broken::Unseen(seen) => {
            Broken::Unclear(format!("the lab is not as the scenario asks: {seen}"))
        }
        other => other,
    }
}
