//! `lab.json`: what was asked for and what was chosen for it. With it a supervisor finds everything again.

use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::hypervisor::{Accel, CableKind, DiskFormat};
use crate::image::Image;
use crate::plan::Inputs;
use crate::private;
use crate::spec::Lab;
use crate::units::Name;
use crate::wait::Slowness;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A lab as it was asked for, before anything is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredState {
    /// The lab.
    pub lab: Lab,
    /// Where its file is, for people.
    pub source: String,
    /// Acceleration.
    pub accel: Accel,
    /// What the cables are made of. A checkpoint comes back with the kind that its machines had: another is another device.
    #[serde(default)]
    pub cables: CableKind,
    /// The host's slowness.
    pub slowness: Slowness,
    /// The image that all of its machines boot.
    pub image: ImageRef,
    /// Seed of every random choice.
    pub seed: u64,
    /// blake3 of the tool and of each program of the pack.
    pub programs: BTreeMap<String, String>,
    /// Everything that goes into the lab: see [`super::desired::known_inputs`].
    #[serde(default)]
    pub inputs: Inputs,
}

/// A base image on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Its digest.
    pub digest: String,
    /// The disk.
    pub disk: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// The kernel for direct boot.
    pub kernel: PathBuf,
    /// The initramfs for direct boot.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
}

impl From<&Image> for ImageRef {
    fn from(image: &Image) -> Self {
        Self {
            digest: image.digest.clone(),
            disk: image.disk.clone(),
            format: image.format,
            kernel: image.kernel.clone(),
            initrd: image.initrd.clone(),
            cmdline: image.cmdline.clone(),
        }
    }
}

/// A lab that is up or on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabRecord {
    /// Version of this shape: 1.
    pub schema: u32,
    /// The lab's or fork's name, also the label of all that was made for it.
    pub instance: String,
    /// What was asked for.
    #[serde(rename = "wish")]
    pub desired: DesiredState,
    /// What was chosen for each machine.
    pub machines: Vec<MachineRecord>,
    /// Cables of the networks.
    pub ports: Vec<crate::fabric::PortAssignment>,
    /// Whether `up` reached the end once.
    pub complete: bool,
    /// The checkpoint that it was brought back from last.
    #[serde(default)]
    pub restored_from: Option<Name>,
    /// The checkpoint that it is being brought back from: set before anything is touched, so that it can be done again.
    #[serde(default)]
    pub restoring: Option<Name>,
}

/// What was chosen for one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The node.
    pub node: String,
    /// UUID of the domain.
    pub uuid: String,
    /// TCP port on 127.0.0.1 that leads to its SSH.
    pub ssh_port: u16,
}

/// A lab without its record can only be removed.
const REMEDY: &str = "take the lab down: `failoverlab down` removes what it can still find";

/// Labs whose record cannot be read, each with the reason. Empty where the folder of labs cannot be listed: [`Home::check`] tells that.
pub fn unreadable(home: &Home) -> BTreeMap<String, String> {
    let labs = home.instances().unwrap_or_default();
    let reason = |lab: String| {
        let e = LabRecord::load(&home.lab(&lab).record()).err()?;
        Some((lab, e.to_string()))
    };
    labs.into_iter().filter_map(reason).collect()
}

impl LabRecord {
    /// A lab on its way.
    pub fn new(instance: &str, desired: DesiredState, machines: Vec<MachineRecord>) -> Self {
        Self {
            schema: 1,
            instance: instance.into(),
            desired,
            machines,
            ports: Vec::new(),
            complete: false,
            restored_from: None,
            restoring: None,
        }
    }

    /// The record at `path`; `None` where there is none.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        match fs_err::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::Operation(
                    Problem::new("read the lab's record")
                        .on(path.display())
                        .observed(e)
                        .remedy(REMEDY),
                )
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e)
                .tried("read the lab's record", path.display())
                .map_err(|e| e.with_remedy(REMEDY)),
        }
    }

    /// Writes the record so that a reader sees the old or the new one, never half of it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self).expect("a record is plain data");
        private::replace(path, &bytes).tried("write the lab's record", path.display())
    }

    /// What was chosen for `node`.
    pub fn machine(&self, node: &str) -> Option<&MachineRecord> {
        self.machines.iter().find(|m| m.node == node)
    }
}

#[cfg(test)]
impl LabRecord {
    /// Of the lab `name`, which is up.
    pub(crate) fn sample(name: &str) -> Self {
        let desired = DesiredState {
            lab: crate::spec::example(name),
            source: format!("labs/{name}/lab.toml"),
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
        };
        Self {
            complete: true,
            ..Self::new(name, desired, Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labs that are up are read by every later build.
    #[test]
    fn names_in_the_file_are_those_of_schema_1() {
        let json = serde_json::to_value(LabRecord::sample("ccr")).unwrap();
        assert!(json["wish"]["lab"].is_object(), "{json}");
    }
}
