//! Steps and statements that stand in another file, piece by piece. What a step may be is said once, by the reader of scenarios.

use super::file::{Rules, Step};
use super::raw::{Table, Value};
use super::reader::{Labelled, Reader};
use super::statement::Statement;
use crate::diagnostic::{At, Finding, Invalid};
use crate::verify::{InvariantId, Pattern};
use serde::Deserialize;
use std::ops::Range;

/// A step as it is written, not yet understood.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Written(At<Table>);

/// A value as it is written: a forbidden pattern.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct WrittenValue(At<Value>);

impl Written {
    /// Bytes of the file.
    pub fn span(&self) -> Range<usize> {
        self.0.span.clone()
    }

    /// The same on one line of TOML.
    pub fn toml(&self) -> String {
        self.0.value.toml()
    }
}

impl WrittenValue {
    /// The same on one line of TOML.
    pub fn toml(&self) -> String {
        self.0.value.toml()
    }
}

/// Reads pieces of a text, in its order: a label goes on from piece to piece. All that is wrong is kept.
pub struct Pieces<'a> {
    reader: Reader<'a>,
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("found", &self.reader.found()).finish()
    }
}

impl<'a> Pieces<'a> {
    /// Of this text, which the places of all pieces are in.
    pub fn new(rules: Rules<'a>, text: &'a str) -> Self {
        Self {
            reader: Reader::new(rules, text),
        }
    }

    /// The steps in the order in which they are done; none where something is wrong with one.
    pub fn steps(&mut self, written: &[Written]) -> Vec<Step> {
        let tables: Vec<At<Table>> = written.iter().map(|w| w.0.clone()).collect();
        self.reader.steps(&tables).unwrap_or_default()
    }

    /// What must not be seen.
    pub fn forbidden(&mut self, written: &[WrittenValue]) -> Vec<Pattern> {
        written.iter().filter_map(|w| self.reader.forbidden(&w.0)).collect()
    }

    /// What is checked at the end.
    pub fn invariants(&mut self, words: &[At<String>]) -> Vec<InvariantId> {
        self.reader.invariants(words)
    }

    /// Lets conditions from here on compare what these names stand for; [`super::Roles::keep_sample`] says what that is.
    pub fn names(&mut self, names: impl IntoIterator<Item = String>) {
        let names = names.into_iter().map(|name| (name, Labelled::Sample));
        self.reader.labels.extend(names);
    }

    /// A condition or a word that one look can show.
    pub fn condition(&mut self, text: &At<String>) -> Option<Statement> {
        match self.reader.statement(text, None)? {
            Statement::Event(..) => {
                let finding = Finding::new("bad-value", "an event is no state: no look shows it");
                self.find(finding.on(text, "this one"));
                None
            }
            statement => Some(statement),
        }
    }

    /// Keeps something that is wrong.
    pub fn find(&mut self, finding: Finding) {
        self.reader.find(finding);
    }

    /// Everything that was found, in this file of this name; none where all is well.
    pub fn into_invalid(self, file_name: &str) -> Option<Invalid> {
        self.reader.into_invalid(file_name)
    }
}
