//! `meta.json`: what a checkpoint is and which parts it has.

use super::layers::MAX_LAYERS;
use crate::error::{Error, Problem, Result};
use crate::fabric::{Counters, Rule};
use crate::lab::active_faults::ActiveFaults;
use crate::lab::record::LabRecord;
use crate::plan::Layer;
use crate::units::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Version of the shape.
pub const SCHEMA: u32 = 2;

/// A checkpoint, as CONTRACTS has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the shape.
    pub schema: u32,
    /// Its name, unique among the lab's.
    pub name: Name,
    /// The lab.
    pub lab: Name,
    /// blake3 of the lab file.
    pub lab_digest: String,
    /// What it has behind it, for one that `up` kept; what went into it is in the record.
    #[serde(default)]
    pub layer: Option<Layer>,
    /// The tool and its build.
    pub tool: String,
    /// blake3 of the runtime's daemon.
    pub ccrd: Option<String>,
    /// Seed of the lab.
    pub seed: u64,
    /// Wall time, seconds since 1970.
    pub taken: u64,
    /// The checkpoint that the lab itself was restored from.
    pub parent: Option<String>,
    /// From the first suspension's beginning to the last one's end, microseconds.
    pub skew_us: u64,
    /// From the first suspension's beginning until the last machine ran again, microseconds.
    pub pause_us: u64,
    /// Rules that the networks had at the cut. Those of the lab that comes back are made from [`Meta::active_faults`].
    pub rules: Vec<Rule>,
    /// Counters of the networks.
    pub counters: Counters,
    /// The machines, in the lab's order.
    pub nodes: Vec<NodeMeta>,
    /// The files.
    pub parts: Vec<Part>,
    /// The lab's record at the cut, for whoever brings the lab back after it was taken down.
    pub record: LabRecord,
    /// Faults in force.
    #[serde(rename = "standing")]
    pub active_faults: ActiveFaults,
}

/// What every version of the shape has.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// What a machine was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It ran.
    Running,
    /// It was suspended, and comes back suspended.
    Paused,
    /// It was off: it has disks and no memory.
    Off,
}

/// One machine of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMeta {
    /// Its name.
    pub name: String,
    /// What it was doing.
    pub state: NodeState,
    /// When its suspension was complete, microseconds since the first suspension began. Absent where it was not running.
    pub suspended_us: Option<u64>,
    /// Its clock minus the host's, microseconds. Absent where the machine did not answer.
    pub clock_offset_us: Option<i64>,
    /// The identifier that its kernel made at boot. Absent where the machine did not answer.
    pub boot_id: Option<String>,
    /// Carrier of its lab ports, by MAC.
    pub links: BTreeMap<String, bool>,
    /// Number of the frozen top layer of each local disk.
    pub layers: BTreeMap<String, u32>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Relative to the checkpoint's folder.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// Digest, hexadecimal.
    pub blake3: String,
    /// What it is.
    pub kind: PartKind,
    /// The machine it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a file of a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// Memory and device state of a machine.
    Memory,
    /// A layer of a local disk.
    Disk,
    /// A shared disk.
    Shared,
    /// A key.
    Credential,
}

impl Meta {
    /// Reads `meta.json`, refusing what could lead out of the checkpoint's folder or was not written by a tool like this one.
    pub fn parse(text: &[u8], on: &Path) -> Result<Self> {
        let damaged = |seen: String| {
            Error::Operation(
                Problem::new("read the checkpoint")
                    .on(on.display())
                    .observed(seen)
                    .remedy("remove it: `failoverlab checkpoint rm`"),
            )
        };
        // Of another shape, no more than its number can be understood.
        let Version { schema } = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
        if schema != SCHEMA {
            return Err(damaged(format!("shape {schema}, this tool knows {SCHEMA}")));
        }
        let mut meta: Meta = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
        // Older builds kept a healthy lab before its `up` had reached its own end.
        meta.record.complete |= meta.layer == Some(Layer::Healthy);
        if let Some(part) = meta.parts.iter().find(|p| !stays_inside(&p.path)) {
            return Err(damaged(format!("a part at `{}`", part.path.escape_debug())));
        }
        let disks = meta.nodes.iter().flat_map(|n| n.layers.keys());
        if let Some(name) = meta
            .nodes
            .iter()
            .map(|n| &n.name)
            .chain(disks)
            .find(|n| n.parse::<Name>().is_err())
        {
            return Err(damaged(format!("a node or disk `{}`", name.escape_debug())));
        }
        if let Some(n) = meta
            .nodes
            .iter()
            .flat_map(|n| n.layers.values())
            .find(|&&n| n >= MAX_LAYERS)
        {
            return Err(damaged(format!("a disk with {n} layers")));
        }
        Ok(meta)
    }

    /// The machine of this name.
    pub fn node(&self, name: &str) -> Option<&NodeMeta> {
        self.nodes.iter().find(|n| n.name == name)
    }
}

fn stays_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}
