//! `status`: each node answers for itself; what it does not know is null, never a guess.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One node's view of the cluster, its service and its copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of this shape: 1.
    pub schema: u32,
    /// The node that answers.
    pub node: String,
    /// Version of the runtime.
    pub version: String,
    /// The highest epoch this node knows.
    pub epoch: u64,
    /// The cluster layer; null on a node that is no member.
    pub cluster: Option<Cluster>,
    /// The service group; null where unknown.
    pub service: Option<Service>,
    /// The copies this node answers for.
    #[serde(default)]
    pub copies: Vec<Copy>,
    /// The transport; null on a node that is no hub.
    #[serde(default)]
    pub hub: Option<Hub>,
    /// How far its stream of events has come: who follows it knows by this what is still on its way. Null where unknown.
    #[serde(default)]
    pub events: Option<EventsMark>,
    /// The node's boot-time clock, in microseconds, just before it looked: what is said was so after that. Null where unknown.
    #[serde(default)]
    pub node_t_us: Option<u64>,
    /// What else was asked of the node, in names of the lab file's or the pack's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// What could not be read, and why: a probe or a field → words. It is *unknown*, not absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<String, String>,
    /// What the node finds wrong with itself beside all that, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
}

/// The end of a node's stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsMark {
    /// The number that the next event will have.
    pub next: u64,
    /// The node's boot-time clock of the last one, in microseconds; null where there is none. It tells the streams of two lives of a
    /// daemon apart.
    pub last_us: Option<u64>,
}

/// The cluster layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// Where this node stands.
    pub state: ClusterState,
    /// Why it is not in a cluster with a majority: what it misses, or that it was evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The member that owns the quorum resource.
    pub quorum_owner: Option<String>,
    /// The configuration tag this node holds.
    pub config_tag: u64,
    /// Votes, as counted by this node.
    pub votes: Votes,
    /// The members and what this node thinks of them.
    pub members: Vec<Member>,
    /// The networks that carry the cluster's traffic or its clients.
    pub networks: Vec<Network>,
    /// The file share witness; null where none is configured.
    pub witness: Option<Witness>,
}

/// Where a node stands in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterState {
    /// Member of a cluster that has quorum.
    Up,
    /// Started, looking for quorum.
    Forming,
    /// Stopped: the cluster service gave up or was stopped.
    Stopped,
    /// Running without the votes it needs: it serves nothing.
    NoQuorum,
}

/// Votes as counted by one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Votes {
    /// All there are.
    pub total: u32,
    /// A majority.
    pub needed: u32,
    /// Who gave theirs: member names and `witness`.
    pub have: Vec<String>,
}

/// A member, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: MemberState,
}

/// What a node thinks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// Heard, part of the cluster.
    Up,
    /// Not heard.
    Down,
    /// Heard, not yet part of the cluster.
    Joining,
}

/// A network of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// Its name in the lab file.
    pub name: String,
    /// What it may carry.
    pub role: NetworkRole,
    /// Each direction of each pair by itself.
    pub paths: Vec<Path>,
}

/// What a network may carry. Internal traffic never uses a client-only network, not even as the last path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkRole {
    /// Clients and the cluster's own traffic.
    Mixed,
    /// The cluster's own traffic only.
    Internal,
    /// Clients only.
    Client,
}

/// One direction between two members on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Path {
    /// Who sends.
    pub from: String,
    /// Who hears.
    pub to: String,
    /// Whether heartbeats arrive; null where this node cannot know.
    pub up: Option<bool>,
}

/// The witness: what is configured and what is in force may differ (the original's trap).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Witness {
    /// The path that the configuration names.
    pub configured: String,
    /// The path in force since the resource came online.
    pub running: Option<String>,
    /// Health by the last probes.
    pub health: WitnessHealth,
    /// The last probe of each member, by name.
    pub probed_by: BTreeMap<String, WitnessProbe>,
}

/// Health of the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessHealth {
    /// The last probe locked the file.
    Ok,
    /// It did not.
    Failed,
    /// No probe yet.
    Unknown,
}

/// One member's last probe of the witness by a real lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WitnessProbe {
    /// Whether the lock was had.
    pub ok: bool,
    /// How long ago, in milliseconds.
    pub age_ms: u64,
    /// The error's own words.
    #[serde(default)]
    pub error: Option<String>,
}

/// The service group: the clustered mailbox server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ServiceState,
    /// The member that serves.
    pub active: Option<String>,
    /// The member that the service belongs to, whether it serves or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The epoch that its answers carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What is wrong with its databases, or under way: dismounted and with how many lost logs, damaged, verified for a move. Only
    /// the member that serves says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The resources of the service that have failed, each with why. Only the member that it belongs to says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_resources: Vec<String>,
    /// What the operator wants; sticky.
    pub intent: Intent,
    /// The address that moves with it.
    pub address: String,
    /// The hubs still have to deliver again what a takeover may have lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redelivery_due: bool,
}

/// State of the service group, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceState {
    /// All resources online.
    Online,
    /// Some are: address up, database dismounted.
    PartiallyOnline,
    /// Coming online.
    OnlinePending,
    /// Offline.
    Offline,
    /// Going offline.
    OfflinePending,
    /// Failed.
    Failed,
}

/// What the operator wants of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It shall run.
    Started,
    /// It shall stay stopped, whatever fails or reboots.
    Stopped,
}

/// One copy of a storage group. Always replayed ≤ inspected ≤ copied ≤ notified ≤ generated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Copy {
    /// The storage group.
    pub group: String,
    /// Where the copy is.
    pub node: String,
    /// Its status.
    pub status: CopyStatus,
    /// Last generation closed by the active.
    pub generated: u64,
    /// Last generation the copy was told of.
    pub notified: u64,
    /// Last generation copied.
    pub copied: u64,
    /// Last generation inspected.
    pub inspected: u64,
    /// Last generation replayed.
    pub replayed: u64,
    /// generated − inspected.
    pub copy_queue: u64,
    /// inspected − replayed.
    pub replay_queue: u64,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// Status of a copy (ccr-semantics 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CopyStatus {
    /// Nothing blocked.
    Healthy,
    /// Verification failed; a reseed is needed.
    Failed,
    /// A full copy of the database is running.
    Seeding,
    /// Copying is stopped.
    Stopped,
    /// An operator stopped copying and replay.
    Suspended,
    /// Just started: no closed log seen yet.
    Initializing,
    /// The replication service does not answer.
    ServiceDown,
    /// Divergence check or incremental reseed in progress.
    Resynchronizing,
    /// No copy configured: the member that would hold it was evicted.
    Disabled,
}

impl std::fmt::Display for CopyStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its name is the contract's word.
        std::fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for CopyStatus {
    type Err = serde::de::value::Error;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::deserialize(serde::de::value::StrDeserializer::new(word))
    }
}

/// The transport on a hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hub {
    /// Messages accepted and not yet delivered.
    pub queued: u64,
    /// Messages in the dumpster.
    pub dumpster: u64,
    /// Bytes in the dumpster.
    pub dumpster_bytes: u64,
    /// Redelivery requests not yet done.
    pub redeliveries: u64,
    /// The highest epoch seen in an answer of the store: the fence.
    pub epoch_seen: u64,
    /// Messages on the disk that are not understood, and kept aside: they are in no other count.
    #[serde(default)]
    pub set_aside: u64,
    /// Recipients that the store refused for good since the daemon began.
    #[serde(default)]
    pub refused: u64,
}
