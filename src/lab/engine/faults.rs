//! Faults and rules of a lab: made, undone, and kept for whoever comes after this process.

use super::Engine;
use crate::deploy::Places;
use crate::error::{Error, Problem, Result};
use crate::event::Journal;
use crate::fabric::{Control, Fabric, Rule, RuleOwner};
use crate::fault::{self, Fault, FaultContext};
use crate::guest::Remote;
use crate::hypervisor::Hypervisor;
use crate::lab::record::LabRecord;
use crate::spec::Lab;
use crate::verify::FaultRecord;
use crate::wait::{Deadline, Slowness};
use std::sync::Arc;

impl Engine {
    /// Makes a fault happen.
    pub(super) fn fault(&self, fault: &Fault) -> Result<FaultRecord> {
        fault::inject(&self.view()?, fault)
    }

    /// Undoes one fault or all, the last one first; those that are undone are no longer in force.
    pub(super) fn heal(&self, id: Option<u64>) -> Result<Vec<FaultRecord>> {
        let view = self.view()?;
        let mut faults = self.state().active_faults.faults.clone();
        if let Some(id) = id
            && !faults.iter().any(|f| f.id == id)
        {
            return Err(Error::Usage(Problem::new("find the fault").on(id).observed(
                match faults.as_slice() {
                    [] => "no fault is in force".to_owned(),
                    some => format!(
                        "in force: {}",
                        some.iter()
                            .map(|f| format!("{} ({})", f.id, f.kind))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                },
            )));
        }
        let mut healed = Vec::new();
        let mut failed = None;
        for record in faults.iter_mut().rev().filter(|f| id.is_none_or(|id| f.id == id)) {
            match fault::undo(&view, record) {
                Ok(()) => healed.push(record.clone()),
                // The others are healed all the same.
                Err(e) => failed = Some(e),
            }
        }
        let mut state = self.state();
        state
            .active_faults
            .faults
            .retain(|f| !healed.iter().any(|h| h.id == f.id));
        state.active_faults.save(&self.files)?;
        failed.map_or(Ok(healed), Err)
    }

    /// Puts a person's own rules in force, in place of those that it had; those of faults stay.
    pub(super) fn rules(&self, rules: Vec<Rule>) -> Result<u64> {
        let revision = self.fabric()?.set(RuleOwner::Person, rules.clone())?;
        let mut state = self.state();
        state.active_faults.rules = rules;
        state.active_faults.save(&self.files)?;
        Ok(revision.0)
    }

    fn view(&self) -> Result<View<'_>> {
        let record = self.record()?;
        Ok(View {
            engine: self,
            fabric: self.fabric()?,
            hypervisor: self.hypervisor()?,
            record,
        })
    }
}

/// The supervisor, as an injector sees it.
struct View<'a> {
    engine: &'a Engine,
    record: Arc<LabRecord>,
    fabric: Arc<Fabric>,
    hypervisor: Arc<dyn Hypervisor>,
}

impl FaultContext for View<'_> {
    fn lab(&self) -> &Lab {
        &self.record.desired.lab
    }
    fn hypervisor(&self) -> &dyn Hypervisor {
        &*self.hypervisor
    }
    fn fabric(&self) -> &dyn Control {
        &*self.fabric
    }
    fn remote(&self, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
        self.engine.channels.connect(&self.record, node, deadline)
    }
    fn places(&self, node: &str) -> Result<Places> {
        let lab = &self.record.desired.lab;
        match (crate::lab::channel::pack(&self.record)?, lab.node(node)) {
            (Some(pack), Some(node)) => pack.places(lab, node),
            _ => Ok(Places::default()),
        }
    }
    fn restart_machine(&self, node: &str) -> Result<()> {
        self.engine.channels.clock_jumped(node);
        self.engine.create_machine(&self.record, node)
    }
    fn journal(&self) -> &Journal {
        &self.engine.backends.journal
    }
    fn slowness(&self) -> Slowness {
        self.record.desired.slowness
    }
    fn next_fault(&self) -> u64 {
        let mut state = self.engine.state();
        state.active_faults.next += 1;
        state.active_faults.next
    }
    fn keep(&self, record: &FaultRecord) -> Result<()> {
        let mut state = self.engine.state();
        state.active_faults.keep(record.clone());
        state.active_faults.save(&self.engine.files)
    }
    fn forget(&self, id: u64) -> Result<()> {
        let mut state = self.engine.state();
        state.active_faults.forget(id);
        state.active_faults.save(&self.engine.files)
    }
}
