//! What stands while a lab lives and must survive its supervisor: faults in force and the fabric's rules.

use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Event, Journal};
use crate::fabric::Rule;
use crate::files::LabFiles;
use crate::private;
use crate::verify::FaultRecord;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `standing.json`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Number of the last fault.
    pub next: u64,
    /// Faults in force.
    pub faults: Vec<FaultRecord>,
    /// The fabric's rules.
    pub rules: Vec<Rule>,
}

impl Standing {
    /// What is on disk; nothing where there is no file.
    pub fn load(files: &LabFiles) -> Result<Self> {
        let path = files.standing();
        match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::Operation(Problem::new("read the faults in force").on(path.display()).seen(e))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).tried("read the faults in force", path.display()),
        }
    }

    /// Writes it, old or new, never half.
    pub fn save(&self, files: &LabFiles) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data");
        private::replace(&files.standing(), &bytes).tried("write the faults in force", files.standing().display())
    }

    /// When the supervisor before was last seen alive: the time of the journal's last event before this one's.
    pub fn last_alive(events: &Path, journal: &Journal) -> u64 {
        let last = fs_err::read_to_string(events)
            .ok()
            .and_then(|t| t.lines().rev().find_map(|l| serde_json::from_str::<Event>(l).ok()));
        last.map_or_else(|| journal.now_us(), |e| e.t_us)
    }
}
