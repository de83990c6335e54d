//! What stands while a lab lives and must survive its supervisor: faults in force and the fabric's rules.

use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Event, Journal, kind};
use crate::fabric::Rule;
use crate::files::LabFiles;
use crate::private;
use crate::verify::FaultRecord;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `standing.json`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveFaults {
    /// Number of the last fault.
    pub next: u64,
    /// Faults in force.
    pub faults: Vec<FaultRecord>,
    /// The fabric's rules.
    pub rules: Vec<Rule>,
}

impl ActiveFaults {
    /// What is on disk; nothing where there is no file.
    pub fn load(files: &LabFiles) -> Result<Self> {
        let path = files.active_faults();
        match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::Operation(Problem::new("read the faults in force").on(path.display()).observed(e))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).tried("read the faults in force", path.display()),
        }
    }

    /// Puts a fault on record, in place of an earlier state of it, with the rules as they are.
    pub fn keep(&mut self, record: FaultRecord, rules: Vec<Rule>) {
        match self.faults.iter_mut().find(|f| f.id == record.id) {
            Some(ours) => *ours = record,
            None => self.faults.push(record),
        }
        self.rules = rules;
    }

    /// Takes a fault off the record, with the rules as they are.
    pub fn forget(&mut self, id: u64, rules: Vec<Rule>) {
        self.faults.retain(|f| f.id != id);
        self.rules = rules;
    }

    /// Writes it, old or new, never half.
    pub fn save(&self, files: &LabFiles) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data");
        private::replace(&files.active_faults(), &bytes)
            .tried("write the faults in force", files.active_faults().display())
    }
}

/// When the supervisor before was last seen alive, the time of the journal's last event; and when the networks had been dark before
/// that, which earlier supervisors told the journal when they adopted the lab.
pub(super) fn network_outages(events: &Path, journal: &Journal) -> (u64, Vec<(u64, u64)>) {
    let text = fs_err::read_to_string(events).unwrap_or_default();
    let mut last = None;
    let mut outages = Vec::new();
    for event in text.lines().filter_map(|l| serde_json::from_str::<Event>(l).ok()) {
        if event.kind == kind::ADOPTED {
            let since = event.data["dark_since_us"].as_u64();
            outages.push((since.unwrap_or(event.t_us), event.t_us));
        }
        last = Some(event.t_us);
    }
    (last.unwrap_or_else(|| journal.now_us()), outages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Source};
    use serde_json::json;

    #[test]
    fn every_time_that_the_networks_were_dark_is_known_to_the_next_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let journal = Journal::open(&path, 7).unwrap();
        let tell = |kind: &str, t_us, data| {
            let mut draft = Draft::new(Source::Tool, kind).data(data);
            draft.t_us = Some(t_us);
            journal.emit(draft);
        };
        tell("step.end", 10, json!({}));
        tell(kind::ADOPTED, 25, json!({"dark_since_us": 10}));
        tell(kind::ADOPTED, 40, json!({"dark_since_us": 31}));
        tell("step.end", 50, json!({}));
        assert_eq!(network_outages(&path, &journal), (50, vec![(10, 25), (31, 40)]));
        // A journal that cannot be read says nothing of before; the one stretch that is known begins now.
        let (since, outages) = network_outages(&dir.path().join("none"), &journal);
        assert!(since <= journal.now_us() && outages.is_empty());
    }
}
