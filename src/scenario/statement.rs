//! What a scenario states of a lab: a condition, a word, or that something happened.

use super::Progress;
use super::expect::Expectation;
use super::expression::{Expression, View};
use super::roles::Roles;
use super::truth::Truth;
use crate::error::Result;
use crate::spec::Lab;
use crate::verify::{Forbidden, Observation};
use std::fmt;

/// How a file says that something happened: `event:copy.resynced`.
pub(super) const EVENT: &str = "event:";

/// What a scenario states of a lab.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// A comparison of what the nodes say.
    Condition(Expression),
    /// A word: `healthy`, `service-online`.
    State(Expectation),
    /// An event of this kind, of this role or machine.
    Event(Forbidden, Option<String>),
}

impl Statement {
    /// Whether one look shows it; of an event, no look does.
    ///
    /// # Errors
    /// Where a role that it names can never be resolved.
    pub fn judge(&self, lab: &Lab, roles: &Roles, progress: &Progress, seen: &Observation) -> Result<(Truth, String)> {
        Ok(match self {
            Statement::Condition(condition) => condition.judge(View {
                observation: seen,
                progress,
                roles,
            }),
            Statement::State(word) => word.met(lab, roles, seen)?,
            Statement::Event(..) => (Truth::Unknown, "no look shows an event".to_owned()),
        })
    }

    /// Whether it says of the whole cluster that no node serves.
    pub fn is_of_absence(&self) -> bool {
        matches!(self, Statement::State(word) if word.is_of_absence())
    }

    /// The same of the machine that a role means now, so that it stays that machine.
    ///
    /// # Errors
    /// Where no machine has the role.
    pub fn fixed(self, roles: &Roles, seen: &Observation) -> Result<Self> {
        Ok(match self {
            Statement::State(word) => {
                let on = word.target().map(|on| roles.resolve(on, seen).map(|t| t.node));
                let on = on.transpose()?;
                Statement::State(word.on(on))
            }
            other => other,
        })
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, on) = match self {
            Statement::Condition(condition) => (condition.as_str(), None),
            Statement::State(word) => (word.word(), word.target()),
            Statement::Event(kind, on) => {
                f.write_str(EVENT)?;
                (kind.word(), on.as_deref())
            }
        };
        f.write_str(word)?;
        on.map_or(Ok(()), |on| write!(f, " on {on}"))
    }
}
