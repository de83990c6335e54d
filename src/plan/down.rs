//! What `down` has to do.

use super::{Observed, Plan, Word};
use serde::Serialize;

/// What a step of `down` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// Ends a machine.
    EndMachine,
    /// Ends the supervisor, and with it the networks.
    EndSupervisor,
    /// Removes the lab's files.
    RemoveFiles,
}

impl Word for Undo {
    fn word(&self) -> &'static str {
        match self {
            Undo::EndMachine => "end-machine",
            Undo::EndSupervisor => "end-supervisor",
            Undo::RemoveFiles => "remove-files",
        }
    }
}

/// The steps from what is there to nothing. What belongs to no node of the lab file any more goes as well.
pub fn down(seen: &Observed) -> Plan<Undo> {
    let mut plan = Plan::new();
    let running = seen.running.iter().map(|n| (n, "it is running"));
    let paused = seen
        .paused
        .iter()
        .filter(|n| !seen.running.contains(*n))
        .map(|n| (n, "it is suspended"));
    let mut before: Vec<String> = running
        .chain(paused)
        .map(|(name, why)| plan.add(Undo::EndMachine, Some(name), why, Vec::new()))
        .collect();
    if seen.supervisor {
        before = vec![plan.add(Undo::EndSupervisor, None, "it runs the networks", before)];
    }
    if seen.files {
        plan.add(Undo::RemoveFiles, None, "disks, keys and sockets of the lab", before);
    }
    plan
}
