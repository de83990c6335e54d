//! What a node can be, and how that is told apart without colours.

use serde::{Deserialize, Serialize};

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A member that serves.
    Active,
    /// A member that stands by.
    Passive,
    /// No member, and it runs: a hub, a machine without a runtime.
    Runs,
    /// It runs, and is in no cluster: it looks for one, or was stopped.
    Apart,
    /// It runs without the votes that it needs.
    NoQuorum,
    /// It holds its answers back: its lease is not valid.
    Fenced,
    /// Its machine runs, and it does not answer.
    Silent,
    /// Its processors stand still.
    Frozen,
    /// It has no power.
    Off,
    /// No source says.
    Unknown,
}

/// How a bar is drawn. Colour comes third, behind shape and word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Filled.
    Filled,
    /// An outline.
    Outline,
    /// An outline with diagonal lines.
    Hatched,
    /// An outline with upright bars.
    Bars,
    /// An outline with dots.
    Dotted,
    /// A dashed outline, struck through.
    Struck,
}

impl Role {
    /// Every one.
    pub const ALL: [Role; 10] = [
        Role::Active,
        Role::Passive,
        Role::Runs,
        Role::Apart,
        Role::NoQuorum,
        Role::Fenced,
        Role::Silent,
        Role::Frozen,
        Role::Off,
        Role::Unknown,
    ];

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Role::Active => "active",
            Role::Passive => "passive",
            Role::Runs => "runs",
            Role::Apart => "apart",
            Role::NoQuorum => "no quorum",
            Role::Fenced => "fenced",
            Role::Silent => "no answer",
            Role::Frozen => "frozen",
            Role::Off => "off",
            Role::Unknown => "unknown",
        }
    }

    /// A sign before the word, its own for each.
    pub fn mark(self) -> &'static str {
        match self {
            Role::Active => "■",
            Role::Passive => "○",
            Role::Runs => "□",
            Role::Apart => "≠",
            Role::NoQuorum => "⊘",
            Role::Fenced => "#",
            Role::Silent => "…",
            Role::Frozen => "‖",
            Role::Off => "✕",
            Role::Unknown => "?",
        }
    }

    /// How its bar is drawn.
    pub fn shape(self) -> Shape {
        match self {
            Role::Active => Shape::Filled,
            Role::Passive | Role::Runs => Shape::Outline,
            Role::Apart | Role::NoQuorum | Role::Fenced => Shape::Hatched,
            Role::Frozen => Shape::Bars,
            Role::Silent | Role::Unknown => Shape::Dotted,
            Role::Off => Shape::Struck,
        }
    }
}
