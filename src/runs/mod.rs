//! The folder of a run: everything that its verdicts rest on, and what is needed to run it again. See `docs/runs.md`.

mod merge;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use merge::{Merged, merge};
pub use read::{Run, ScenarioRun, glance, is_run, read};
pub use write::{begin, end, head, scenario, write};

use crate::spec::Lab;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of every file in the folder. Readers take an older one, and say so of a newer one.
pub const SCHEMA: u32 = 1;

/// Names in a run's folder.
pub mod names {
    /// What was run, with what.
    pub const RUN: &str = "run.json";
    /// The resolved lab.
    pub const LAB: &str = "lab.json";
    /// The lab's folder, as far as a run needs it.
    pub const LAB_FOLDER: &str = "lab";
    /// The event journal of a scenario.
    pub const EVENTS: &str = "events.jsonl";
    /// The client's journal of a scenario.
    pub const OPS: &str = "ops.jsonl";
    /// Every look at the lab, one a line.
    pub const OBSERVATIONS: &str = "observations.jsonl";
    /// The final reads.
    pub const DUMPS: &str = "dumps.json";
    /// The rest of a scenario's history: faults, marks of its steps, what was left behind, what is missing.
    pub const HISTORY: &str = "history.json";
    /// What passed the networks before and during a scenario that did not pass, as pcapng.
    pub const NETWORKS: &str = "networks.pcapng";
    /// What each machine printed on its console: a file for each, `NODE.log`.
    pub const CONSOLES: &str = "consoles";
    /// What the system of each machine logged: a file for each, `NODE.log`.
    pub const LOGS: &str = "logs";
    /// The scenario as it was written.
    pub const SCENARIO: &str = "scenario.toml";
    /// The verdict: of a scenario in its folder, of the run in the run's.
    pub const VERDICT: &str = "verdict.json";
    /// The run for CI systems.
    pub const JUNIT: &str = "junit.xml";
    /// The run, or a scenario, for people.
    pub const REPORT: &str = "report.html";
    /// The run for pull requests.
    pub const SUMMARY: &str = "summary.md";
    /// The folder of candidates for a smaller scenario that fails.
    pub const SHRINK: &str = "shrink";
    /// What was asked, predicted and measured, where the run was a demo.
    pub const DEMO: &str = "demo.json";
    /// What is in the folder of a scenario, beside the files that it includes.
    pub const OF_A_SCENARIO: [&str; 11] = [
        EVENTS,
        OPS,
        OBSERVATIONS,
        DUMPS,
        HISTORY,
        NETWORKS,
        CONSOLES,
        LOGS,
        SCENARIO,
        VERDICT,
        REPORT,
    ];
    /// What is in the run's folder beside its scenarios.
    pub const OF_THE_RUN: [&str; 9] = [RUN, LAB, LAB_FOLDER, VERDICT, JUNIT, REPORT, SUMMARY, SHRINK, DEMO];
}

/// What was run, with what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Tool and version.
    pub tool: String,
    /// When it began, seconds since 1970.
    pub wall: u64,
    /// Name of the lab.
    pub lab: String,
    /// blake3 of the lab file's text.
    pub lab_digest: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// `kvm` or `tcg`; `none` in the simulator.
    pub accel: String,
    /// `machines` or `sim`.
    pub on: String,
    /// How often each scenario was run.
    pub repeat: u32,
    /// Which part of the scenarios this is, of how many; none is all of them.
    #[serde(default)]
    pub shard: Option<(usize, usize)>,
    /// The ids of all scenarios, in their order, whichever part of them was run.
    #[serde(default)]
    pub selected: Vec<String>,
    /// Parameters that a person set.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

/// A document with its version.
#[derive(Debug, Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    what: &'a T,
}

impl<'a, T> Versioned<'a, T> {
    fn new(what: &'a T) -> Self {
        Self { schema: SCHEMA, what }
    }
}

/// The resolved lab in its file.
#[derive(Debug, Serialize, Deserialize)]
struct LabDocument {
    lab: Lab,
}
