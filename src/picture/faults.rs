//! The faults of the picture.

use super::text::fault_target;
use crate::event::Event;
use crate::verify::FaultRecord;
use serde::Serialize;
use serde_json::Value;

/// A fault in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultPicture {
    /// Its word.
    pub kind: String,
    /// What it hits, for people.
    pub on: String,
    /// What it hits, as resolved.
    pub target: Value,
    /// Since when, in microseconds since the journal began.
    pub begin_us: u64,
    /// Whether its effect is proven; null while that is not known.
    pub effective: Option<bool>,
}

impl FaultPicture {
    pub(super) fn of(f: &FaultRecord) -> Self {
        Self {
            kind: f.kind.clone(),
            on: fault_target(f),
            target: f.target.clone(),
            begin_us: f.begin_us,
            effective: f.effective,
        }
    }

    /// A sign for what is known of its effect: seen, none, not known yet.
    pub fn mark(&self) -> &'static str {
        match self.effective {
            Some(true) => "●",
            Some(false) => "△",
            None => "○",
        }
    }

    /// The same in words.
    pub fn effect(&self) -> &'static str {
        match self.effective {
            Some(true) => "proven",
            Some(false) => "without effect",
            None => "no effect yet",
        }
    }
}

/// The fault that a line of the journal is about: one that began, or one that ended.
pub fn fault_of(event: &Event) -> Option<FaultRecord> {
    let about = matches!(event.kind.as_str(), "fault.begin" | "fault.end");
    about.then(|| serde_json::from_value(event.data.clone()).ok()).flatten()
}
