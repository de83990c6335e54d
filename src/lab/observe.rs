//! What there is of a lab, as the plan wants to know it: asked by the supervisor for `up`, and from outside for `--dry-run`.

use super::client::Client;
use super::files::{Home, LabFiles};
use super::protocol::{LabStatus, Verb};
use super::record::Record;
use super::wish;
use crate::error::{Error, Problem, Result};
use crate::hypervisor::DomainState;
use crate::plan::{self, Observed, Plan};
use crate::spec::Lab;

/// The plan of `up`, without making anything. A supervisor that runs is asked; none is started.
pub fn plan(home: &Home, lab: &Lab) -> Result<Plan> {
    same_lab(home, lab)?;
    let files = home.lab(&lab.name);
    let (store, key) = wish::image_key(home, lab)?;
    let mut observed = match (Record::load(&files.record())?, Client::find(&files)?) {
        (Some(record), Some(mut client)) => of(&record, &client.get(Verb::Status)?, &files),
        (Some(record), None) => Observed {
            supervisor: false,
            networks: Default::default(),
            ..on_disk(&record, &files)
        },
        (None, _) => Observed::default(),
    };
    observed.image = store.find(&key)?.is_some();
    Ok(plan::up(lab, &observed))
}

/// Refuses a lab whose name is taken by one that is up from another file.
pub fn same_lab(home: &Home, lab: &Lab) -> Result<()> {
    match Record::load(&home.lab(&lab.name).record())? {
        Some(record) if record.wish.lab.digest != lab.digest => Err(Error::Usage(
            Problem::new("bring the lab up")
                .on(&lab.name)
                .seen(format!(
                    "it is up from another lab file, or that file has changed: {}",
                    record.wish.source
                ))
                .remedy(format!("failoverlab down {}", lab.name)),
        )),
        _ => Ok(()),
    }
}

/// What the supervisor knows.
pub(super) fn of(record: &Record, status: &LabStatus, files: &LabFiles) -> Observed {
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
fn on_disk(record: &Record, files: &LabFiles) -> Observed {
    let lab = &record.wish.lab;
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
        ..Observed::default()
    }
}
