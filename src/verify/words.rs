//! The words of a scenario that are about its verdict.

use crate::event::Event;
use ccr_contract::event::EventKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An invariant that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InvariantId {
    /// Single active.
    I1,
    /// Durability over orderly steps.
    I2,
    /// Durability over a failover that may lose.
    I3,
    /// Exactly once.
    I4,
    /// Log chain.
    I5,
    /// No divergent replay.
    I6,
    /// Quorum.
    I7,
    /// Bounded time.
    I8,
    /// Truthful status.
    I9,
    /// Sticky intent.
    I10,
    /// Convergence.
    I11,
    /// Clean lab.
    I12,
}

impl InvariantId {
    /// Their words.
    pub const NAMES: [&'static str; 12] = [
        "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12",
    ];

    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
    ];

    /// The invariant of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.word() == word)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// What it says, in one line.
    pub fn statement(self) -> &'static str {
        match self {
            Self::I1 => "No two nodes acknowledge clients at the same time; epochs only rise.",
            Self::I2 => "After an orderly step (a move, a stop, an end) every acknowledged message is there.",
            Self::I3 => {
                "A failover loses exactly what the survivor had not inspected, and nothing that was transported."
            }
            Self::I4 => "No message is there twice, and none that was never sent.",
            Self::I5 => "A copy's marks are in order; its logs are one chain, and what their source closed.",
            Self::I6 => "No copy has anything of another history than the one that survived.",
            Self::I7 => "Who serves has two of three votes, or an operator forced it.",
            Self::I8 => "Detection, arbitration and mount each end in their time.",
            Self::I9 => "What a member says is so, or was so a moment ago.",
            Self::I10 => "What is stopped or suspended stays so; the service does not go back by itself.",
            Self::I11 => "In the end one member serves, the others are Healthy and have everything that it closed.",
            Self::I12 => "The lab is as it was before.",
        }
    }
}

/// What must not be seen in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forbidden {
    /// Two members serve at the same time.
    SplitBrain,
    /// The service comes online on another node.
    RoleChange,
    /// A member loses quorum.
    QuorumLost,
    /// A copy fails.
    CopyFailed,
    /// Any event of this kind.
    Event(String),
}

impl Forbidden {
    /// Their words; the kind of an event, which has a dot, is one too.
    pub const NAMES: [&'static str; 4] = ["split-brain", "role-change", "quorum-lost", "copy-failed"];

    /// What a file names.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "split-brain" => Self::SplitBrain,
            "role-change" => Self::RoleChange,
            "quorum-lost" => Self::QuorumLost,
            "copy-failed" => Self::CopyFailed,
            kind if kind.contains('.') => Self::Event(kind.to_owned()),
            _ => return None,
        })
    }

    /// Its word.
    pub fn word(&self) -> &str {
        match self {
            Self::SplitBrain => "split-brain",
            Self::RoleChange => "role-change",
            Self::QuorumLost => "quorum-lost",
            Self::CopyFailed => "copy-failed",
            Self::Event(kind) => kind,
        }
    }
}

impl Forbidden {
    /// Whether an event is what it names. Two that serve and a change of roles are not told by one event alone.
    pub fn is_told_by(&self, event: &Event) -> bool {
        let told = || event.runtime_event().map(|t| t.what);
        match self {
            Self::SplitBrain | Self::RoleChange => false,
            Self::QuorumLost => matches!(told(), Some(EventKind::QuorumLost { .. })),
            Self::CopyFailed => matches!(told(), Some(EventKind::CopyFailed { .. })),
            Self::Event(kind) => event.kind == *kind,
        }
    }
}

/// Something that may be seen in a run: what, of whom, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// What.
    pub what: Forbidden,
    /// Of this role or machine; of any where absent. A role is whoever has it behind the step that the time begins with, else behind the
    /// last step.
    pub on: Option<String>,
    /// When; in the whole run where absent.
    pub during: Option<During>,
}

impl Pattern {
    /// Of any machine, at any time.
    pub fn of(what: Forbidden) -> Self {
        Self {
            what,
            on: None,
            during: None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.word())?;
        if let Some(on) = &self.on {
            write!(f, " on {on}")?;
        }
        match &self.during {
            Some(during) => write!(f, " during {during}"),
            None => Ok(()),
        }
    }
}

/// From the beginning of one step to the beginning of another one, by their labels: `cut..mended`, `cut..`, `..cut`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct During {
    /// The step that it begins with; the beginning of the run where absent.
    pub from: Option<String>,
    /// The step that it ends with; the end of the run where absent.
    pub to: Option<String>,
}

impl During {
    /// Reads one; none where it has no two dots, or no step.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once("..")?;
        let step = |label: &str| (!label.is_empty()).then(|| label.to_owned());
        let (from, to) = (step(from), step(to));
        (from.is_some() || to.is_some()).then_some(Self { from, to })
    }

    /// The steps that it names.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        [&self.from, &self.to].into_iter().flatten().map(String::as_str)
    }
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |l: &Option<String>| l.clone().unwrap_or_default();
        write!(f, "{}..{}", label(&self.from), label(&self.to))
    }
}
