//! User-space networks: one learning switch for each lab network, every cable breakable in each direction.
//!
//! The frame path runs on its own thread and never waits for libvirt. See CONTRACTS "Fabric control".

mod capture;
pub mod compile;
pub mod engine;
mod evidence;
mod forward;
pub mod frame;
pub mod groups;
pub mod host;
mod hostdrops;
pub mod impair;
mod inside;
mod lab;
pub mod mactable;
mod pcapng;
mod picture;
mod rules;
mod runner;
pub mod transport;

pub use capture::{Capture, CaptureFilter, RingConfig};
pub use forward::Forward;
pub use host::{AddressConflict, ClientNet, ConnectError, LabHost};
pub use impair::nonsense;
pub use lab::{Fabric, FabricConfig, NetworkConfig, PortAssignment, PortConfig};
pub use picture::picture;
pub use rules::*;

use crate::error::Result;
use serde::{Deserialize, Serialize};

/// What the rest of the tool may ask of a running fabric. Returns when no frame will be judged by the old state.
pub trait Control: Send + Sync {
    /// Puts the rules of `owner` in force, in place of those that it had; everyone else's stay. Unknown networks or nodes, and the id
    /// of another rule, are refused and nothing changes.
    fn set(&self, owner: RuleOwner, rules: Vec<Rule>) -> Result<Revision>;
    /// Takes the rules of `owner` out of force; `None` where it had none.
    fn remove(&self, owner: RuleOwner) -> Result<Option<Revision>>;
    /// The rules in force.
    fn rules(&self) -> (Revision, RuleSets);
    /// Counters since the fabric began.
    fn counters(&self) -> Counters;
    /// Keeps frames (bounded) instead of forwarding them.
    fn hold(&self);
    /// Forwards what was kept, in order, and goes on.
    fn release(&self);
}

/// Index of a port in the fabric's list.
pub type PortId = usize;

/// Counters of everything, for evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// The rule set they were read under.
    pub revision: u64,
    /// Each port.
    pub ports: Vec<PortCounters>,
    /// Each rule in force.
    pub rules: Vec<RuleCounters>,
    /// The last rules that are no longer in force, with what they had counted when they went.
    #[serde(default)]
    pub retired: Vec<RuleCounters>,
}

/// Counters of one machine's port on one network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PortCounters {
    /// The network.
    pub network: String,
    /// The node.
    pub node: String,
    /// Frames that came from the machine.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames handed to the machine.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames from the machine that a rule dropped.
    pub dropped_in: u64,
    /// Frames to the machine that a rule dropped.
    pub dropped_out: u64,
    /// Datagrams that did not come from the machine's own socket.
    pub foreign: u64,
    /// Datagrams too long or too short to be a frame.
    pub malformed: u64,
    /// Frames that a full queue dropped.
    pub overflow: u64,
    /// Floods (broadcast, multicast, unknown receiver) beyond what one port may send.
    #[serde(default)]
    pub storm: u64,
    /// Datagrams that the host's kernel dropped in our socket (frames from the machine).
    #[serde(default)]
    pub host_drops_in: u64,
    /// Datagrams that the host's kernel dropped in QEMU's socket (frames to the machine).
    #[serde(default)]
    pub host_drops_out: u64,
}

/// Counters of one rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// The rule.
    pub id: String,
    /// Frames that matched.
    pub matched: u64,
    /// Of these, dropped.
    pub dropped: u64,
    /// Of these, delayed.
    #[serde(default)]
    pub delayed: u64,
    /// Of these, doubled.
    #[serde(default)]
    pub duplicated: u64,
    /// Copies in which a byte was changed.
    #[serde(default)]
    pub corrupted: u64,
}
