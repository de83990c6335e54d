//! What there is of a lab, as the plan wants to know it: asked by the supervisor for `up`, and from outside for `--dry-run`.

use super::checkpoint::Store;
use super::client::Client;
use super::desired;
use super::protocol::{LabStatus, Verb};
use super::record::LabRecord;
use crate::error::{Error, Problem, Result};
use crate::files::{Home, LabFiles};
use crate::hypervisor::DomainState;
use crate::plan::{self, How, Kept, Layer, Observed, Plan, Restoring};
use crate::spec::Lab;
use crate::units::Name;

/// The plan of `up`, without making anything. A supervisor that runs is asked; none is started.
pub fn plan(home: &Home, lab: &Lab, seed: u64, cold: bool) -> Result<Plan> {
    same_lab(home, lab)?;
    let files = home.lab(&lab.name);
    let (store, key) = desired::image_key(home, lab)?;
    let mut observed = match (LabRecord::load(&files.record())?, Client::find(&files)?) {
        (Some(record), Some(mut client)) => of(&record, &client.get(Verb::Status(None))?, &files),
        (Some(record), None) => Observed {
            supervisor: false,
            networks: Default::default(),
            ..on_disk(&record, &files)
        },
        (None, _) => Observed::default(),
    };
    observed.image = store.find(&key)?.is_some();
    // Those that cannot be read are told by the `up` that would have needed them.
    (observed.kept, _) = kept(&Store::of(home, &lab.name))?;
    if let Some(cut) = &mut observed.restoring {
        cut.layer = layer(&observed.kept, &cut.from);
    }
    let how = How {
        inputs: desired::known_inputs(home, lab, seed)?,
        cold,
    };
    Ok(plan::up(lab, &how, &observed))
}

/// What `up` kept in `store`, the newest first; and why some of it cannot be read.
pub(super) fn kept(store: &Store) -> Result<(Vec<Kept>, Vec<Error>)> {
    let (found, unreadable) = store.list()?;
    let kept = found.into_iter().rev().filter_map(|checkpoint| {
        let meta = checkpoint.meta;
        Some(Kept {
            name: meta.name,
            layer: meta.layer?,
            inputs: meta.record.desired.inputs,
            unfit: None,
        })
    });
    Ok((kept.collect(), unreadable))
}

/// What the checkpoint of this name has behind it, where `up` kept it.
pub(super) fn layer(kept: &[Kept], name: &Name) -> Option<Layer> {
    kept.iter().find(|k| k.name == *name).map(|k| k.layer)
}

/// Refuses a lab whose name is taken by one that is up from another file.
pub fn same_lab(home: &Home, lab: &Lab) -> Result<()> {
    match LabRecord::load(&home.lab(&lab.name).record())? {
        Some(record) if record.desired.lab.digest != lab.digest => Err(Error::Usage(
            Problem::new("bring the lab up")
                .on(&lab.name)
                .observed(format!(
                    "it is up from another lab file, or that file has changed: {}",
                    record.desired.source
                ))
                .remedy(format!("failoverlab down {}", lab.name)),
        )),
        _ => Ok(()),
    }
}

/// What the supervisor knows.
pub(super) fn of(record: &LabRecord, status: &LabStatus, files: &LabFiles) -> Observed {
    let mut observed = on_disk(record, files);
    observed.healthy = status.unhealthy.is_none();
    for m in &status.machines {
        let Ok(name) = m.node.parse() else { continue };
        match m.domain {
            Some(DomainState::Running) => drop(observed.running.insert(name)),
            Some(DomainState::Paused) => drop(observed.paused.insert(name)),
            _ => {}
        }
    }
    observed
}

/// What the files say by themselves.
fn on_disk(record: &LabRecord, files: &LabFiles) -> Observed {
    let lab = &record.desired.lab;
    let nodes = || lab.nodes.iter().map(|n| n.name.clone());
    Observed {
        image: true,
        supervisor: true,
        files: true,
        complete: record.complete,
        networks: lab.networks.iter().map(|n| n.name.clone()).collect(),
        shared_disks: lab
            .shared_disks
            .iter()
            .map(|d| d.name.clone())
            .filter(|d| files.shared_disk(d).is_file())
            .collect(),
        disks: nodes().filter(|n| files.node(n).root_overlay().is_file()).collect(),
        credentials: nodes().filter(|n| files.node(n).credentials().is_dir()).collect(),
        deployed: nodes().filter(|_| record.complete).collect(),
        restoring: record.restoring.clone().map(|from| Restoring { from, layer: None }),
        ..Observed::default()
    }
}
