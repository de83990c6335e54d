//! Pure: a lab and what is there of it → ordered steps, each with its reason. Carried out by `lab`.

mod inputs;
mod layers;
mod up;

pub use inputs::Inputs;
pub use layers::{How, Kept, Layer, Origin, is_layer};
pub use up::{Action, up};

use crate::units::Name;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What is there of a lab. Facts only: whoever fills it in draws no conclusions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The image of the lab's machines is in the cache.
    pub image: bool,
    /// The lab's supervisor runs.
    pub supervisor: bool,
    /// The lab has files: at least its record.
    pub files: bool,
    /// An `up` reached its end once: every machine was ready and what it runs was deployed.
    pub complete: bool,
    /// The runtime says that all is well, just now. Without meaning in a lab without a runtime.
    pub healthy: bool,
    /// Networks that forward frames.
    pub networks: BTreeSet<Name>,
    /// Shared disks that have their file.
    pub shared_disks: BTreeSet<Name>,
    /// Machines that have their disks' files.
    pub disks: BTreeSet<Name>,
    /// Machines that have their boot credentials.
    pub credentials: BTreeSet<Name>,
    /// Machines whose processors run.
    pub running: BTreeSet<Name>,
    /// Machines that are suspended.
    pub paused: BTreeSet<Name>,
    /// Machines on which what they run was installed.
    pub deployed: BTreeSet<Name>,
    /// A restore has begun and did not end.
    pub restoring: Option<Restoring>,
    /// Checkpoints that an `up` of this lab kept.
    pub kept: Vec<Kept>,
}

/// A restore that was cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoring {
    /// From this checkpoint.
    pub from: Name,
    /// What that one has behind it, where `up` kept it.
    pub layer: Option<Layer>,
}

impl Observed {
    /// What a supervisor finds that has just begun: itself and the image that it was given.
    pub fn nothing_but_image() -> Self {
        Self {
            image: true,
            supervisor: true,
            ..Self::default()
        }
    }
}

/// Steps in an order in which they can be carried out; those that do not wait for each other may run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// From where the lab comes up; absent where it is there.
    pub origin: Option<Origin>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Unique in the plan: `start-machine:node1`.
    pub id: String,
    /// What is done.
    pub action: Action,
    /// To what: a node, network, disk or image. `None`: to the lab.
    pub on: Option<String>,
    /// Why it has to be done.
    pub reason: String,
    /// Steps of this plan that must be done before.
    pub after: Vec<String>,
}

/// The id of a step that is done to something.
fn id_on(action: Action, on: &str) -> String {
    format!("{}:{on}", action.word())
}

impl Plan {
    fn new() -> Self {
        Self {
            origin: None,
            steps: Vec::new(),
        }
    }

    /// Appends a step and gives back its id. Waits only for what is in the plan already: so there is no cycle.
    fn add(&mut self, action: Action, on: Option<&str>, reason: impl Into<String>, after: Vec<String>) -> String {
        let id = on.map_or_else(|| action.word().to_owned(), |on| id_on(action, on));
        debug_assert!(
            after.iter().all(|a| self.steps.iter().any(|s| s.id == *a)),
            "{id} waits for nothing"
        );
        self.steps.push(Step {
            id: id.clone(),
            action,
            on: on.map(str::to_owned),
            reason: reason.into(),
            after,
        });
        id
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// For a person: from where the lab comes up, then one line for each step, with its reason.
    pub fn render(&self) -> String {
        if self.is_empty() {
            return "nothing to do\n".to_owned();
        }
        let mut text = match &self.origin {
            None => String::new(),
            Some(Origin {
                from: Some(name),
                reason,
                ..
            }) => format!("comes back from {name}: {reason}\n"),
            Some(Origin { reason, .. }) => format!("boots: {reason}\n"),
        };
        let on = |s: &Step| s.on.clone().unwrap_or_default();
        let words = self.steps.iter().map(|s| s.action.word().len()).max().unwrap_or(0);
        let names = self.steps.iter().map(|s| on(s).len()).max().unwrap_or(0);
        for step in &self.steps {
            let word = step.action.word();
            // Writing into a string does not fail.
            let _ = writeln!(text, "{word:<words$}  {:<names$}  {}", on(step), step.reason);
        }
        text
    }
}

#[cfg(test)]
mod tests;
