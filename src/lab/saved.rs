//! What a checkpoint says of its lab, and who needs it. What `status` says of a lab that is between two states.

use super::checkpoint::Checkpoint;
use super::record::LabRecord;
use crate::error::{Error, Problem, Result};
use crate::files::Home;
use crate::plan::Layer;
use crate::units::Name;

/// The record of the lab that a checkpoint is of, as it was then.
pub fn record(checkpoint: &Checkpoint) -> Result<LabRecord> {
    let mut record: LabRecord = serde_json::from_value(checkpoint.meta.record.clone()).map_err(|e| {
        Error::Operation(
            Problem::new("read the checkpoint's record")
                .on(&checkpoint.meta.name)
                .observed(e),
        )
    })?;
    // `up` kept it of a healthy lab, before it had reached its own end.
    record.complete |= checkpoint.meta.layer == Some(Layer::Healthy);
    Ok(record)
}

/// Says who needs a checkpoint of `lab`: a lab or fork that was brought back from it, or may have been.
pub fn users<'a>(home: &'a Home, lab: &'a Name) -> impl Fn(&Name) -> Option<String> + 'a {
    move |name| {
        let instances = match home.instances() {
            Ok(instances) => instances,
            Err(e) => return Some(e.to_string()),
        };
        instances
            .into_iter()
            .find(|i| match LabRecord::load(&home.lab(i).record()) {
                Ok(None) => false,
                Ok(Some(r)) => {
                    r.desired.lab.name == *lab && [r.restored_from, r.restoring].iter().flatten().any(|n| n == name)
                }
                // It may well need it.
                Err(_) => i.split('@').next() == Some(lab.as_str()),
            })
    }
}

/// What `status` says of a lab that is between two states.
pub(super) fn between(instance: &str, from: &Name, going_on: bool) -> String {
    if going_on {
        format!("{instance} is being brought back from {from}")
    } else {
        half_restored(instance, from).to_string()
    }
}

/// The error of a lab that is between two states.
pub(super) fn half_restored(instance: &str, from: &Name) -> Error {
    Error::Operation(
        Problem::new("use the lab")
            .on(instance)
            .observed(format!("it was being brought back from {from} when that was cut short"))
            .remedy(format!(
                "failoverlab up {instance} (tries again) or failoverlab down {instance}"
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Counters;
    use crate::files::CheckpointFiles;
    use crate::hypervisor::{Accel, CableKind, DiskFormat};
    use crate::lab::checkpoint::Meta;
    use crate::lab::record::{DesiredState, ImageRef};
    use crate::wait::Slowness;
    use serde_json::json;

    fn of_ccr(complete: bool) -> LabRecord {
        let lab = crate::spec::example("ccr");
        LabRecord {
            schema: 1,
            instance: "ccr".into(),
            machines: Vec::new(),
            ports: Vec::new(),
            complete,
            restored_from: None,
            restoring: None,
            desired: DesiredState {
                lab,
                source: "labs/ccr/lab.toml".into(),
                accel: Accel::Tcg,
                cables: CableKind::Unix,
                slowness: Slowness::NONE,
                image: ImageRef {
                    digest: "d".into(),
                    disk: "/d".into(),
                    format: DiskFormat::Qcow2,
                    kernel: "/k".into(),
                    initrd: "/i".into(),
                    cmdline: String::new(),
                },
                seed: 7,
                programs: Default::default(),
                inputs: Default::default(),
            },
        }
    }

    fn checkpoint(record: &LabRecord, layer: Option<Layer>) -> Checkpoint {
        let name: Name = "healthy-0123456789ab".parse().unwrap();
        let meta = Meta {
            schema: 1,
            lab: record.desired.lab.name.clone(),
            lab_digest: record.desired.lab.digest.clone(),
            layer,
            tool: "x".into(),
            ccrd: None,
            seed: 7,
            taken: 0,
            parent: None,
            skew_us: 0,
            pause_us: 0,
            rules: Vec::new(),
            counters: Counters::default(),
            nodes: Vec::new(),
            parts: Vec::new(),
            record: serde_json::to_value(record).unwrap(),
            active_faults: json!({}),
            name,
        };
        let files = CheckpointFiles { dir: "/c".into() };
        Checkpoint { files, meta }
    }

    /// What `up` keeps was written before it had reached its own end. A fork of it that is adopted must be followed again.
    #[test]
    fn a_lab_that_was_kept_healthy_is_whole() {
        let of = |layer| super::record(&checkpoint(&of_ccr(false), Some(layer))).unwrap();
        assert!(of(Layer::Healthy).complete);
        // One whose machines have only booted is not.
        assert!(!of(Layer::Booted).complete);
        // One that a person kept of a lab whose `up` had failed is not.
        assert!(!super::record(&checkpoint(&of_ccr(false), None)).unwrap().complete);
        assert!(super::record(&checkpoint(&of_ccr(true), None)).unwrap().complete);
    }

    /// Labs that are up and checkpoints that exist are read by every later build.
    #[test]
    fn names_in_files_are_those_of_schema_1() {
        let record = of_ccr(true);
        let lab_json = serde_json::to_value(&record).unwrap();
        assert!(lab_json["wish"]["lab"].is_object(), "{lab_json}");
        let meta = serde_json::to_value(checkpoint(&record, None).meta).unwrap();
        assert!(meta["standing"].is_object(), "{meta}");
    }

    #[test]
    fn a_restore_that_goes_on_was_not_cut_short() {
        let from: Name = "one".parse().unwrap();
        let going_on = between("ccr", &from, true);
        assert!(going_on.contains("is being brought back from one"), "{going_on}");
        assert!(!going_on.contains("cut short"), "{going_on}");
        assert!(between("ccr", &from, false).contains("cut short"));
    }
}
