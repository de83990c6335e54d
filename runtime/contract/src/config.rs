//! The configuration that a pack renders and the runtime reads (`/etc/ccrd/ccrd.toml`). The runtime never sees the lab file. Keys that
//! it does not know are those of a newer tool, or mistakes: it names them and goes on.

use crate::status::NetworkRole;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Everything one node's daemon must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// Version of this shape: 1.
    pub schema: u32,
    /// This node's name.
    pub node: String,
    /// What this node does.
    pub role: Role,
    /// Name of the cluster.
    pub cluster: String,
    /// Address of the Cluster Group.
    pub cluster_address: Ipv4Addr,
    /// Name of the service group.
    pub service: String,
    /// Address that moves with the service.
    pub service_address: Ipv4Addr,
    /// The network that carries both addresses.
    pub service_network: String,
    /// Folder of logs, database and queue.
    pub data: String,
    /// The networks, in the lab file's order.
    pub networks: Vec<Network>,
    /// The two members, in the lab file's order: the first one forms the cluster when both start fresh.
    pub members: Vec<Peer>,
    /// The hubs.
    pub hubs: Vec<Peer>,
    /// The file share witness; absent where the lab has none.
    pub witness: Option<Witness>,
    /// Times and policies.
    #[serde(default)]
    pub settings: Settings,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A member: cluster, replication, store.
    Member,
    /// A hub: transport.
    Hub,
}

/// A network as the runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// What it may carry.
    pub role: NetworkRole,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// The interface on this node, `eth0`; absent where this node is not on it.
    pub interface: Option<String>,
}

/// Another node (or this one) and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its address on each network it is on.
    pub addresses: std::collections::BTreeMap<String, Ipv4Addr>,
}

/// The share that holds the witness file. Addresses only: a resolver has timeouts of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Witness {
    /// Address of the host.
    pub address: Ipv4Addr,
    /// TCP port.
    pub port: u16,
    /// Name of the share.
    pub share: String,
    /// The path as people write it: `\\hub\witness`.
    pub path: String,
    /// Account.
    pub user: String,
    /// File that holds the password, mode 0600.
    pub password_file: String,
}

/// Times and policies. Defaults are those of lab `ccr`; the original's values are in its lab file's comments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// Missed heartbeats after which a node is taken for lost.
    pub node_tolerance: u32,
    /// Missed heartbeats after which one path is taken for lost.
    pub interface_tolerance: u32,
    /// How long a node may serve after its last renewed authority.
    pub lease_ms: u64,
    /// How long the challenger waits before it opens the witness file.
    pub arbitration_delay_ms: u64,
    /// Between two probes of the witness.
    pub witness_check_ms: u64,
    /// A partly filled log with an acknowledged write is closed after this long without another.
    pub idle_roll_ms: u64,
    /// Between two status probes of the copy.
    pub status_probe_ms: u64,
    /// Logs that the copy has inspected and both have replayed are removed.
    pub circular: bool,
    /// Lost logs with which the database is still mounted.
    pub dial: Dial,
    /// Bytes of the dumpster for each storage group (original: 18 MB).
    pub dumpster_bytes: u64,
    /// Longest stay in the dumpster, in milliseconds of service time (original: 7 days).
    pub dumpster_age_ms: u64,
    /// How long a message is tried before its sender is told that it expired, in milliseconds of service time (original: 2 days).
    pub queue_age_ms: u64,
    /// Bytes of a generation. The product's is exactly 1 MiB; the simulator uses less.
    pub generation_bytes: u64,
    /// The longest message that is taken, in bytes: it may span generations (original: 10 MB, without what an encoding of its
    /// attachments adds). A dumpster should have room for one and a half.
    pub message_bytes: u64,
    /// Names of the storage groups.
    pub groups: Vec<String>,
    /// Between two beats on a held witness file.
    pub witness_beat_ms: u64,
    /// How long any operation at the witness may take.
    pub witness_timeout_ms: u64,
    /// How long a node that holds the witness file may serve after the beginning of its last good beat.
    pub witness_lease_ms: u64,
    /// Lost log resilience: later generations that must exist before the active's database takes a log (original: 10).
    pub resilience_depth: u64,
    /// Which networks carry the logs.
    pub shipping: Shipping,
    /// What the active does when only its database fails.
    pub database_failure: DatabaseFailure,
    /// Whether the service moves back to the first member when that one is healthy again (original: no).
    pub failback: bool,
    /// How long a client waits for a lease that has run out before it is refused.
    pub hold_ms: u64,
    /// Between two files of a storage group, segments and closed logs, that a member reads to see whether they are whole.
    pub scrub_ms: u64,
}

/// Which networks carry the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shipping {
    /// Any network that both members are on, that of the service first (the original since its first service pack, with
    /// continuous replication host names).
    Any,
    /// That of the service only (the original's first version): when it fails on the active node, the logs stop just when
    /// they are needed.
    Service,
}

/// What the active does when only its database fails, while the node itself is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseFailure {
    /// The service stays, partially online (the original).
    Stay,
    /// The service moves to the other member.
    Move,
}

/// How many lost logs are tolerated by an automatic mount (the 2007 numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dial {
    /// None.
    Lossless,
    /// Three.
    GoodAvailability,
    /// Six.
    BestAvailability,
}

impl Dial {
    /// Lost logs tolerated.
    pub fn tolerated(self) -> u64 {
        match self {
            Dial::Lossless => 0,
            Dial::GoodAvailability => 3,
            Dial::BestAvailability => 6,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1200,
            node_tolerance: 5,
            interface_tolerance: 3,
            lease_ms: 4500,
            arbitration_delay_ms: 1500,
            witness_check_ms: 5000,
            idle_roll_ms: 5000,
            status_probe_ms: 2000,
            circular: true,
            dial: Dial::BestAvailability,
            dumpster_bytes: 18 * 1000 * 1000,
            dumpster_age_ms: 7 * 24 * 3600 * 1000,
            queue_age_ms: 2 * 24 * 3600 * 1000,
            generation_bytes: 1 << 20,
            message_bytes: 12 * 1000 * 1000,
            groups: vec!["First".into()],
            witness_beat_ms: 400,
            witness_timeout_ms: 1000,
            witness_lease_ms: 2000,
            resilience_depth: 10,
            shipping: Shipping::Any,
            database_failure: DatabaseFailure::Stay,
            failback: false,
            hold_ms: 10_000,
            scrub_ms: 10_000,
        }
    }
}
