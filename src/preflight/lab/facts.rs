//! What was seen in the machines, unjudged. What could not be read is `None`, never empty.

use crate::spec::Lab;
use crate::verify::NodeLook;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// All that was seen of a lab.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The lab, as its file has it.
    pub lab: &'a Lab,
    /// What its nodes say.
    pub looks: Vec<NodeLook<'a>>,
    /// What was seen in each machine, or why nothing was.
    pub nodes: BTreeMap<String, Result<NodeFacts, String>>,
}

/// What was seen in one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NodeFacts {
    /// Its machine id.
    pub machine_id: Option<String>,
    /// Its ports: name → Ethernet address and largest packet.
    pub links: Option<BTreeMap<String, (String, u32)>>,
    /// Its addresses: port, address, length of the prefix.
    pub addresses: Option<Vec<(String, Ipv4Addr, u8)>>,
    /// Its routes, a line each as `ip` prints them.
    pub routes: Option<Vec<String>>,
    /// What is mounted: where → device.
    pub mounts: Option<BTreeMap<String, String>>,
    /// What of it is mounted: device → UUID of its file system.
    pub uuids: Option<BTreeMap<String, String>>,
    /// Of the runtime's folder: where it is mounted, bytes that are free.
    pub space: Option<(String, u64)>,
    /// What names lead to.
    pub names: Option<BTreeMap<String, BTreeSet<Ipv4Addr>>>,
    /// The runtime's files that differ from what the lab file makes of them, each with the first line that does.
    pub changed: Option<Vec<(String, String)>>,
    /// Installed packages → version.
    pub packages: Option<BTreeMap<String, String>>,
    /// The runtime's units that run → whether something watches that they do not hang.
    pub watchdogs: Option<BTreeMap<String, bool>>,
    /// Echo requests.
    pub pings: Vec<Ping>,
    /// Who answers for an address: address → Ethernet addresses.
    pub claimed: BTreeMap<Ipv4Addr, BTreeSet<String>>,
    /// Its clock minus the host's in milliseconds, and how far off that may be.
    pub clock: Option<(i64, i64)>,
}

/// What became of two echo requests, one of them as large as the network carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// To which address.
    pub to: Ipv4Addr,
    /// Whether the small one was answered.
    pub small: bool,
    /// Whether the large one was.
    pub large: bool,
}

impl Facts<'_> {
    /// The machines that were seen.
    pub fn seen(&self) -> impl Iterator<Item = (&str, &NodeFacts)> {
        self.nodes
            .iter()
            .filter_map(|(n, f)| Some((n.as_str(), f.as_ref().ok()?)))
    }

    /// What a node says of itself.
    pub fn status(&self, node: &str) -> Option<&ccr_contract::status::Status> {
        self.looks.iter().find(|l| l.node == node)?.status
    }
}
