//! Preflight: what is wrong with the lab before the next failure shows it. Looks into all machines at once and changes nothing.

use super::Engine;
use crate::deploy::{self, Artifacts};
use crate::error::{Error, Result};
use crate::event::{Draft, Severity, Source, Step};
use crate::lab::channel;
use crate::lab::protocol::{Look, looks};
use crate::lab::record::LabRecord;
use crate::preflight::lab::{Asked, CHECKS, Facts, NodeFacts, Report, gather, judge};
use crate::spec::Node;
use crate::wait::Deadline;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest that a look into one machine may take, on a fast host.
const LOOK: Duration = Duration::from_secs(30);

impl Engine {
    /// Looks, judges and tells, as a step of `up`.
    pub(super) fn tell_preflight(&self) -> Result<()> {
        let step = Step::begin(self.journal(), "preflight", None, "looking for what is wrong");
        step.done(&self.preflight()?.count());
        Ok(())
    }

    /// Looks and judges.
    pub(super) fn preflight(&self) -> Result<Report> {
        let begun = Instant::now();
        let record = self.record()?;
        // A runtime that does not answer is waited for while the machines are looked into.
        let (status, nodes) = std::thread::scope(|scope| {
            let status = scope.spawn(|| self.status(Look::default()));
            let nodes = self.look_into_machines(&record);
            (status.join().expect("a look does not panic"), nodes)
        });
        let (status, nodes, lab) = (status?, nodes?, &record.desired.lab);
        let facts = Facts {
            lab,
            looks: looks(&status.machines),
            nodes,
        };
        let found = judge(&facts);
        let report = Report {
            schema: 1,
            lab: self.instance.clone(),
            mutations: lab.mutations.iter().map(ToString::to_string).collect(),
            checks: CHECKS.len(),
            seconds: (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            found,
        };
        for f in &report.found {
            let text = format!("preflight: {} on {}: {}", f.id, f.on, f.seen);
            let severity = if f.on_purpose {
                Severity::Info
            } else {
                Severity::Warning
            };
            let draft = Draft::new(Source::Tool, "preflight.found").severity(severity);
            self.journal()
                .emit(draft.data(json!({"text": text, "id": f.id, "on": f.on, "on_purpose": f.on_purpose})));
        }
        Ok(report)
    }

    fn look_into_machines(&self, record: &LabRecord) -> Result<BTreeMap<String, Result<NodeFacts, String>>> {
        let nodes = record.desired.lab.nodes.iter();
        let asked: Vec<(&Node, Asked)> = nodes.map(|n| Ok((n, self.asked(record, n)?))).collect::<Result<_>>()?;
        let look = |(node, asked): &(&Node, Asked)| {
            let seen = self.look_into(record, node, asked).map_err(|e: Error| e.to_string());
            (node.name.to_string(), seen)
        };
        Ok(std::thread::scope(|scope| {
            let all: Vec<_> = asked.iter().map(|a| scope.spawn(move || look(a))).collect();
            all.into_iter()
                .map(|t| t.join().expect("a look does not panic"))
                .collect()
        }))
    }

    fn look_into(&self, record: &LabRecord, node: &Node, asked: &Asked) -> Result<NodeFacts> {
        let deadline = Deadline::scaled(LOOK, record.desired.slowness);
        // The standing session may be busy with a runtime that does not answer.
        let mut remote = self.channels.connect(record, &node.name, deadline)?;
        gather(&mut *remote, asked, deadline)
    }

    /// What is asked of a node: of its networks, and of what the pack put there.
    fn asked(&self, record: &LabRecord, node: &Node) -> Result<Asked> {
        let lab = &record.desired.lab;
        let mut asked = Asked::of(lab, node);
        if let Some(pack) = channel::pack(record)?.filter(|_| node.role.is_some()) {
            let artifacts = Artifacts {
                secrets: self.files.keys(),
                ..Artifacts::default()
            };
            asked.files = deploy::open_files(lab, node, &pack, &artifacts)?;
            let places = pack.places(lab, node)?;
            (asked.folder, asked.units) = (places.folder, places.units);
        }
        Ok(asked)
    }
}
