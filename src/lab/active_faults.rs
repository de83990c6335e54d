//! What stands while a lab lives and must survive its supervisor: faults in force and the fabric's rules.

use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Journal, Read, Reader, kind};
use crate::fabric::{Rule, RuleOwner, RuleSets};
use crate::fault;
use crate::files::LabFiles;
use crate::private;
use crate::verify::FaultRecord;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Rules that are not known cannot be put in force again, nor faults be undone.
const REMEDY: &str = "take the lab down: `failoverlab down` removes what it can still find";

/// `standing.json`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct ActiveFaults {
    /// Number of the last fault.
    pub next: u64,
    /// Faults in force.
    pub faults: Vec<FaultRecord>,
    /// The fabric's rules that a person set. Those of a fault are made from its record.
    pub rules: Vec<Rule>,
}

/// [`ActiveFaults`] as this or an older build wrote it.
#[derive(Deserialize)]
struct Stored {
    next: u64,
    faults: Vec<FaultRecord>,
    rules: Vec<Rule>,
}

impl From<Stored> for ActiveFaults {
    fn from(
        Stored {
            next,
            faults,
            mut rules,
        }: Stored,
    ) -> Self {
        // Older builds wrote the rules of faults among the person's. A record that cannot be understood takes none away, and is
        // an error in `rule_sets`, before any network forwards.
        let owned: Vec<Rule> = faults.iter().filter_map(|f| fault::rules(f).ok()).flatten().collect();
        rules.retain(|rule| !owned.contains(rule));
        Self { next, faults, rules }
    }
}

impl ActiveFaults {
    /// What is on disk; nothing where there is no file.
    pub fn load(files: &LabFiles) -> Result<Self> {
        let path = files.active_faults();
        match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::Operation(
                    Problem::new("read the faults in force")
                        .on(path.display())
                        .observed(e)
                        .remedy(REMEDY),
                )
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e)
                .tried("read the faults in force", path.display())
                .map_err(|e| e.with_remedy(REMEDY)),
        }
    }

    /// The rules that the fabric must have, each with its owner.
    ///
    /// # Errors
    /// The record of a fault cannot be understood.
    pub fn rule_sets(&self) -> Result<RuleSets> {
        let mut sets = RuleSets::default();
        sets.set(RuleOwner::Person, self.rules.clone());
        for record in &self.faults {
            sets.set(RuleOwner::Fault(record.id), fault::rules(record)?);
        }
        Ok(sets)
    }

    /// Puts a fault on record, in place of an earlier state of it.
    pub fn keep(&mut self, record: FaultRecord) {
        match self.faults.iter_mut().find(|f| f.id == record.id) {
            Some(ours) => *ours = record,
            None => self.faults.push(record),
        }
    }

    /// Takes a fault off the record.
    pub fn forget(&mut self, id: u64) {
        self.faults.retain(|f| f.id != id);
    }

    /// Writes it, old or new, never half.
    pub fn save(&self, files: &LabFiles) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data");
        private::replace(&files.active_faults(), &bytes)
            .tried("write the faults in force", files.active_faults().display())
    }
}

/// When the supervisor before was last seen alive, the time of the journal's last event; and when the networks had been dark before
/// that, which earlier supervisors told the journal when they adopted the lab. A journal that cannot be read, or lacks an event, does
/// not say: then they may have been dark since its beginning.
pub(super) fn network_outages(events: &Path, journal: &Journal) -> (u64, Vec<(u64, u64)>) {
    const UNKNOWN: (u64, Vec<(u64, u64)>) = (0, Vec::new());
    let Ok(mut reader) = Reader::open(events, 0) else {
        return UNKNOWN;
    };
    let (mut last, mut outages) = (None, Vec::new());
    loop {
        match reader.read() {
            Ok(Some(Read::Event(event))) => {
                if event.kind == kind::ADOPTED {
                    let since = event.data["dark_since_us"].as_u64();
                    outages.push((since.unwrap_or(event.t_us), event.t_us));
                }
                last = Some(event.t_us);
            }
            Ok(None) => return (last.unwrap_or_else(|| journal.now_us()), outages),
            Ok(Some(Read::Gap { .. })) | Err(_) => return UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Source};
    use serde_json::json;

    fn fault(id: u64, pending: bool) -> FaultRecord {
        let target = json!({"on": {"node": "node1"}, "paths": [{"network": "public", "from": "node1", "to": "*"}]});
        FaultRecord {
            id,
            kind: "cut".into(),
            target,
            begin_us: 0,
            end_us: None,
            proof: json!({}),
            effective: None,
            pending,
        }
    }

    fn mine() -> Rule {
        let json = json!({"id": "mine", "network": "public", "from": "*", "to": "*", "effect": {"delay": "10 ms"}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn rules_come_back_to_their_owners() {
        let faults = ActiveFaults {
            next: 4,
            faults: vec![fault(2, false), fault(4, true)],
            rules: vec![mine()],
        };
        let sets = faults.rule_sets().unwrap();
        assert_eq!(sets.of(RuleOwner::Person), [mine()]);
        assert_eq!(sets.of(RuleOwner::Fault(2)), fault::rules(&fault(2, false)).unwrap());
        assert_eq!(sets.of(RuleOwner::Fault(2))[0].id, "fault-2:public:node1>*");
        // It was about to be made: it is not in force.
        assert!(sets.of(RuleOwner::Fault(4)).is_empty());
        let strange = FaultRecord {
            kind: "melt".into(),
            ..fault(5, false)
        };
        let unreadable = ActiveFaults {
            faults: vec![strange],
            ..ActiveFaults::default()
        };
        assert!(unreadable.rule_sets().is_err());
    }

    #[test]
    fn what_an_older_build_wrote_of_a_faults_rules_is_the_faults() {
        let older = ActiveFaults {
            next: 2,
            faults: vec![fault(2, false)],
            rules: [vec![mine()], fault::rules(&fault(2, false)).unwrap()].concat(),
        };
        let read: ActiveFaults = serde_json::from_value(serde_json::to_value(&older).unwrap()).unwrap();
        assert_eq!(read.rules, [mine()]);
        assert_eq!(read.rule_sets().unwrap().all(), older.rules);
    }

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
        // What is missing may have told of any time.
        let text = std::fs::read_to_string(&path).unwrap();
        let without = |line: usize, instead: &str| {
            let mut lines: Vec<&str> = text.lines().collect();
            lines[line] = instead;
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            network_outages(&path, &journal)
        };
        assert_eq!(without(2, "no event"), (0, vec![]));
        assert_eq!(without(2, ""), (0, vec![]));
        assert_eq!(
            without(4, r#"{"seq":3,"t_us":60,"ki"#).0,
            40,
            "its last line was cut off"
        );
        assert_eq!(network_outages(&dir.path().join("none"), &journal), (0, vec![]));
    }
}
