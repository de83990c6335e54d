//! The clients of the picture: whether the store answers them.

use crate::verify::{OpKind, OpLine, Outcome};
use ccr_contract::reply::By;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Less than this without an answer is nothing that a person notices, in microseconds.
pub const NOTICEABLE_US: u64 = 1_000_000;
/// How long the news that the store answers again is shown, in microseconds.
const RESTORED_US: u64 = 10_000_000;

/// Whether the store answers its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientsState {
    /// No client asks.
    #[default]
    Idle,
    /// It answers.
    Connected,
    /// A client has waited for a second, and none has had an answer since.
    Lost,
    /// It answers again.
    Restored,
}

impl ClientsState {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connected => "connected",
            Self::Lost => "wait",
            Self::Restored => "restored",
        }
    }
}

/// All clients together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Clients {
    /// Whether they are answered.
    pub state: ClientsState,
    /// Since when, in microseconds since the journal began.
    pub since_us: u64,
    /// Operations of the store that it acknowledged.
    pub acked: u64,
    /// Operations of the store that were refused or never arrived.
    pub failed: u64,
    /// Operations of the store of which nothing is known in the end.
    pub unknown: u64,
    /// Operations of the store that are under way.
    pub waiting: u64,
    /// Who answered last.
    pub last: Option<By>,
    /// How long the last wait was, in microseconds.
    pub waited_us: u64,
    /// The longest wait behind the first answer, in microseconds: the outage.
    pub longest_us: u64,
    /// The end of that, in microseconds since the journal began.
    pub longest_end_us: u64,
    #[serde(skip)]
    pending: BTreeSet<u64>,
    /// Since when a client waits without an answer of the store.
    #[serde(skip)]
    waits_us: Option<u64>,
    /// Whether the store has ever answered.
    #[serde(skip)]
    answered: bool,
    /// The last that a client asked or heard.
    #[serde(skip)]
    pub(super) asked_us: u64,
}

impl Clients {
    pub(super) fn line(&mut self, line: &OpLine) {
        match line {
            OpLine::Invoke { kind, .. } if *kind == OpKind::Submit => {}
            OpLine::Invoke { op, t_us, .. } => {
                self.pending.insert(*op);
                self.waits_us.get_or_insert(*t_us);
                self.asked_us = self.asked_us.max(*t_us);
            }
            OpLine::Complete {
                op, outcome, by, t_us, ..
            } if self.pending.remove(op) => {
                self.asked_us = self.asked_us.max(*t_us);
                match outcome {
                    Outcome::Ok => self.answer(by.as_ref(), *t_us),
                    Outcome::Fail => self.failed += 1,
                    Outcome::Unknown => self.unknown += 1,
                }
            }
            OpLine::Complete { .. } => {}
        }
        self.waiting = self.pending.len() as u64;
    }

    fn answer(&mut self, by: Option<&By>, t_us: u64) {
        self.acked += 1;
        self.last = by.cloned().or(self.last.take());
        self.waits_until(t_us);
        self.answered = true;
        if self.state == ClientsState::Lost {
            (self.state, self.since_us) = (ClientsState::Restored, t_us);
        } else if self.state == ClientsState::Idle {
            (self.state, self.since_us) = (ClientsState::Connected, t_us);
        }
        self.waits_us = (!self.pending.is_empty()).then_some(t_us);
    }

    fn waits_until(&mut self, t_us: u64) {
        let Some(from) = self.waits_us else { return };
        self.waited_us = t_us.saturating_sub(from);
        if self.answered && self.waited_us > self.longest_us {
            (self.longest_us, self.longest_end_us) = (self.waited_us, t_us);
        }
    }

    /// Time has come to `t_us`.
    pub(super) fn now(&mut self, t_us: u64) {
        match (self.state, self.waits_us) {
            (ClientsState::Lost, _) => {}
            (_, Some(from)) if t_us >= from + NOTICEABLE_US => {
                (self.state, self.since_us) = (ClientsState::Lost, from);
            }
            (ClientsState::Restored, _) if t_us >= self.since_us + RESTORED_US => {
                (self.state, self.since_us) = (ClientsState::Connected, self.since_us + RESTORED_US);
            }
            _ => {}
        }
    }

    /// No client asks any more: who waits in vain makes the last wait.
    pub(super) fn end(&mut self) {
        if self.answered {
            self.waits_until(self.asked_us);
        }
    }
}
