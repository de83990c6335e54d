//! Checkpoints of the engine's lab: makes them, and comes back from one, in place or as a fork.

use super::Engine;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Draft, Severity, Source, Step};
use crate::fabric::Control;
use crate::lab::cancel::Cancel;
use crate::lab::checkpoint::{self, About, Checkpoint, Live, RestoreRequest, Restored, Store};
use crate::lab::protocol::{RestoreArgs, build};
use crate::lab::record::{DesiredState, LabRecord};
use crate::lab::saved::{half_restored, users};
use crate::lab::{admission, desired, machines};
use crate::plan::{Layer, is_layer};
use crate::units::{Name, Size};
use serde_json::json;
use std::sync::Arc;

/// What the checkpoints that `up` keeps of one lab may take on the disk together, of both layers: those that no lab needs go first, the
/// one whose last use is longest ago before all.
const BUDGET: Size = Size(4 << 30);

impl Engine {
    /// Keeps the lab as the checkpoint `name`; it goes on in the same processes.
    pub(super) fn checkpoint(&self, name: &Name, layer: Option<Layer>) -> Result<Checkpoint> {
        let record = self.record()?;
        if let Some(from) = &record.restoring {
            return Err(half_restored(&record.instance, from));
        }
        let lab = &record.desired.lab;
        admission::checkpoint(&self.home, lab)?;
        let step = Step::begin(self.journal(), "checkpoint", None, "saving all machines at one instant");
        let fabric = self.fabric()?;
        let live = Live {
            hypervisor: self.hypervisor()?,
            fabric: &*fabric,
            agents: self.channels.agents(),
            lab,
            files: &self.files,
            qemu_img: &self.backends.qemu_img,
            slowness: record.desired.slowness,
        };
        let about = About {
            name: name.clone(),
            layer,
            tool: format!("{} {}", build(), record.desired.programs[desired::TOOL]),
            record: (*record).clone(),
            active_faults: self.active_faults(),
        };
        let made = checkpoint::create(&live, &Store::of(&self.home, &lab.name), about);
        // They stood still for a moment, whatever came of it.
        for node in &lab.nodes {
            self.channels.clock_jumped(&node.name);
        }
        let made = made?;
        step.done(&format!(
            "kept as {name}; the machines stood still for {:.2} s",
            made.meta.pause_us as f64 / 1e6
        ));
        Ok(made)
    }

    /// Keeps the lab for the next `up`, and makes room. The lab is there: what fails here is told, no more.
    pub(super) fn keep_layer(&self, record: &LabRecord, name: &Name) {
        let store = Store::of(&self.home, &record.desired.lab.name);
        let keep = || -> Result<()> {
            let layer = [Layer::Booted, Layer::Healthy]
                .into_iter()
                .find(|l| l.name(&record.desired.inputs) == *name);
            // One that is there and was not found fit to come back from.
            if store.find(name).map_or(true, |found| found.is_some()) {
                store.rm(name, |_| None)?;
            }
            // Healthy is whole: whoever comes back from it, or adopts this lab, has nothing left to do but to follow it.
            if layer == Some(Layer::Healthy) {
                self.keep(LabRecord {
                    complete: true,
                    ..(*self.record()?).clone()
                })?;
            }
            self.checkpoint(name, layer)?;
            self.prune_layers(&store, record)
        };
        if let Err(e) = keep() {
            self.journal().emit(
                Draft::new(Source::Tool, "checkpoint.not-kept")
                    .severity(Severity::Warning)
                    .data(json!({"text": format!("the next `up` has more to do: {e}")})),
            );
        }
    }

    /// What was just kept, and what lies below it, stays.
    fn prune_layers(&self, store: &Store, record: &LabRecord) -> Result<()> {
        let lab = &record.desired.lab.name;
        let users = users(&self.home, lab);
        let ours = [Layer::Booted, Layer::Healthy].map(|layer| layer.name(&record.desired.inputs));
        let needed = |name: &Name| ours.contains(name).then(|| lab.to_string()).or_else(|| users(name));
        store.prune(BUDGET, is_layer, needed)?;
        Ok(())
    }

    /// Refuses a checkpoint of machines that have only booted: nothing in it would ever be healthy.
    pub(super) fn whole(&self, args: &RestoreArgs) -> Result<()> {
        let checkpoint = Store::of(&self.home, &args.lab).get(&args.checkpoint)?;
        if checkpoint.meta.layer != Some(Layer::Booted) {
            return Ok(());
        }
        Err(Error::Usage(
            Problem::new("bring the lab back")
                .on(&args.checkpoint)
                .observed("its machines have booted, and nothing that they run is there")
                .remedy(format!("failoverlab up {} begins with it where it can", args.lab)),
        ))
    }

    /// Brings the lab back to the instant of a checkpoint: in place of what runs, or as a new lab or fork of this name.
    ///
    /// The checkpoint is compared with its digests before anything is touched. A new lab that cannot come back goes away again; one
    /// that was there is marked, so that the same can be tried again.
    /// `desired` is what `up` asks for; the lab is brought back as that where the same went into the checkpoint.
    pub(super) fn restore(
        &self,
        args: &RestoreArgs,
        desired: Option<&DesiredState>,
        cancel: &Cancel,
    ) -> Result<Restored> {
        let step = Step::begin(
            self.journal(),
            "restore",
            None,
            "comparing the checkpoint with its digests",
        );
        let checkpoint = Store::of(&self.home, &args.lab).get(&args.checkpoint)?;
        checkpoint.verify()?;
        checkpoint.used();
        cancel.check()?;
        let before = self.try_record();
        let fresh = before.is_none();
        self.set_restoring(true);
        self.channels.close();
        let restored = self.come_back(&checkpoint, before, desired, &step);
        self.channels.open();
        self.set_restoring(false);
        let restored = restored.map_err(|e| {
            if fresh {
                let failures = self.down().err().map(|e| e.to_string());
                return e.with_rollback(failures);
            }
            // Nothing was touched yet: what goes on is listened to as before.
            if let Some(record) = self.try_record().filter(|r| r.complete && r.restoring.is_none()) {
                self.channels.follow(&record);
            }
            e
        })?;
        step.done(&format!(
            "machines go on as of {}; the networks kept frames for {:.2} s",
            args.checkpoint,
            restored.held_us as f64 / 1e6
        ));
        Ok(restored)
    }

    fn come_back(
        &self,
        checkpoint: &Checkpoint,
        before: Option<Arc<LabRecord>>,
        desired: Option<&DesiredState>,
        step: &Step,
    ) -> Result<Restored> {
        let name = &checkpoint.meta.name;
        let mut record = self.record_of(checkpoint, before.as_deref(), desired)?;
        self.files
            .check_socket_paths(record.desired.lab.nodes.iter().map(|n| n.name.as_str()))?;
        // From here on there is no way back to what ran, only forward.
        self.keep(LabRecord {
            restoring: Some(name.clone()),
            ..before.as_deref().unwrap_or(&record).clone()
        })?;
        if before.is_some() {
            step.say("ending the machines");
            self.end_machines()?;
            self.stop_networks()?;
        }
        step.say("putting disks and keys in place");
        checkpoint::unpack(checkpoint, &self.files, &self.backends.qemu_img)?;
        let active_faults = checkpoint.meta.active_faults.clone();
        let fabric = self.start_fabric(&record, active_faults.rule_sets()?)?;
        record.ports = fabric.ports();
        // A client that knocks before the machines are there shall be answered when they are.
        fabric.hold();
        let fabric = self.keep_fabric(fabric);
        active_faults.save(&self.files)?;
        self.set_active_faults(active_faults);
        let machines = record.desired.lab.nodes.iter().map(|node| {
            let credentials = self.credentials(&record, node)?;
            machines::machine(&record, &self.files, node, credentials)
                .ok_or_else(|| Error::Bug(Problem::new("find the machine's record").on(&node.name)))
        });
        let machines = machines.collect::<Result<Vec<_>>>()?;
        let record = Arc::new(record);
        step.say("restoring the machines' memory");
        let restored = checkpoint::restore(
            checkpoint,
            RestoreRequest {
                hypervisor: self.hypervisor()?,
                fabric: &*fabric,
                agents: self.channels.agents(),
                machines,
                slowness: record.desired.slowness,
                // Handshakes, where SSH is the way in, cost most of what is left: they begin at once.
                resumed: &|| {
                    self.channels.open();
                    self.channels.prepare(&record);
                },
            },
        )?;
        self.keep(LabRecord::clone(&record))?;
        self.journal()
            .emit(Draft::new(Source::Tool, "lab.restored").data(json!({"from": name, "returned": restored})));
        Ok(restored)
    }

    /// The record of a lab that is brought back: what was asked for then, on this host's ports as they are now. Where `up` brings it
    /// back, what is asked for now: of a layer below *healthy* that is more than went into it.
    fn record_of(
        &self,
        checkpoint: &Checkpoint,
        before: Option<&LabRecord>,
        desired: Option<&DesiredState>,
    ) -> Result<LabRecord> {
        let mut record = checkpoint.meta.record.clone();
        if let (Some(layer), Some(desired)) = (checkpoint.meta.layer, desired)
            && desired.inputs.key(layer) == record.desired.inputs.key(layer)
        {
            record.desired = desired.clone();
        }
        record.instance = self.instance.clone();
        record.restored_from = Some(checkpoint.meta.name.clone());
        record.restoring = None;
        record.machines = match before {
            Some(b) => b.machines.clone(),
            None => machines::choose(&record.desired)?,
        };
        record.ports = before.map(|b| b.ports.clone()).unwrap_or_default();
        for path in [&record.desired.image.disk, &record.desired.image.kernel] {
            fs_err::metadata(path).tried("find the image that the checkpoint stands on", path.display())?;
        }
        Ok(record)
    }
}
