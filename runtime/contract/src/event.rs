//! `events --follow`: one JSON line an event.

mod field;
mod kind;

pub use field::{Claimant, CopyFault, Field, OnlineCause};
pub use kind::EventKind;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The data of an event, flat.
pub type Data = BTreeMap<String, Value>;

/// An event of a node, as it is written: its kind by name, so that what a newer node tells of is passed on whole. What it means is an
/// [`EventKind`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeEvent {
    /// Position in the node's stream; a reader sees a gap.
    pub seq: u64,
    /// The node's boot-time clock in microseconds.
    pub node_t_us: u64,
    /// Dotted name: `cluster.member-down`, `service.online`, `log.closed`, `copy.inspected`.
    pub kind: String,
    /// The number the original gives it, where it has one (1135 node removed, 1177 quorum lost …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// How much it matters.
    pub severity: Severity,
    /// The rest, flat.
    #[serde(default)]
    pub data: Data,
}

impl NodeEvent {
    /// The event number `seq`, at `node_t_us` of the node's boot-time clock.
    pub fn new(seq: u64, node_t_us: u64, what: &EventKind) -> Self {
        Self {
            seq,
            node_t_us,
            kind: what.name().to_owned(),
            id: what.number(),
            severity: what.severity(),
            data: what.data(),
        }
    }

    /// What it says.
    pub fn what(&self) -> EventKind {
        EventKind::read(&self.kind, &self.data)
    }
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Detail.
    Debug,
    /// Normal course.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// A plain value in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A count, a generation, an epoch.
    Number(u64),
    /// A name or a cause.
    Text(String),
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Value::Bool(v)
    }
}
impl From<u64> for Value {
    fn from(v: u64) -> Self {
        Value::Number(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::Text(v.into())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Value::Text(v)
    }
}
