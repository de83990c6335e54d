//! What there is of a lab, as the plan wants to know it: asked by the supervisor for `up`, and from outside for `--dry-run`.

use super::checkpoint::Store;
use super::client::Client;
use super::desired;
use super::protocol::{LabStatus, Verb};
use super::record::LabRecord;
use crate::error::{Error, Problem, Result};
use crate::files::{Home, LabFiles};
use crate::hypervisor::{self, DomainState};
use crate::plan::{self, Observed, Plan};
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
    if let Some(accel) = hypervisor::accel::remembered(&home.accel()).and_then(|r| r.accel()) {
        let key = desired::input_key(home, lab, &key.digest, &desired::programs(home, lab)?, accel, seed)?;
        warm(home, lab, &key, cold, &mut observed);
    }
    Ok(plan::up(lab, &observed))
}

/// What the checkpoints have to do with `up`: a lab that is not there comes back from the one with its input key, and one that has to
/// boot is kept where there is none.
pub(super) fn warm(home: &Home, lab: &Lab, input_key: &str, cold: bool, observed: &mut Observed) {
    let name = warm_name(input_key);
    let found = Store::of(home, &lab.name).find(&name).ok().flatten();
    match found.filter(|c| c.meta.input_key.as_deref() == Some(input_key)) {
        Some(_) if !observed.files && !cold => observed.restore = Some(name),
        Some(_) => {}
        None => observed.keep = Some(name),
    }
}

/// Name of the checkpoint of a healthy lab into which went what this key stands for.
pub fn warm_name(input_key: &str) -> Name {
    let short = input_key.get(..WARM_DIGITS).unwrap_or(input_key);
    format!("{WARM}{short}")
        .parse()
        .expect("a prefix and hexadecimal digits")
}

/// Whether a checkpoint of this name was kept by `up`, not by a person.
pub fn is_warm(name: &Name) -> bool {
    let digits = name.as_str().strip_prefix(WARM);
    digits.is_some_and(|d| d.len() == WARM_DIGITS && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

const WARM: &str = "warm-";
const WARM_DIGITS: usize = 12;

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
        restore: record.restoring.clone(),
        ..Observed::default()
    }
}
