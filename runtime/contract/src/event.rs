//! `events --follow`: one JSON line an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An event of a node, as the runtime writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeEvent {
    /// Position in the node's stream; a reader sees a gap.
    pub seq: u64,
    /// The node's boot-time clock in microseconds.
    pub node_t_us: u64,
    /// Dotted name: `cluster.member-down`, `service.online`, `log.closed`, `copy.inspected`.
    pub kind: String,
    /// The number the original gives it, where it has one (1135 node removed, 1177 quorum lost …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// How much it matters.
    pub severity: Severity,
    /// The rest, flat.
    #[serde(default)]
    pub data: std::collections::BTreeMap<String, Value>,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Detail.
    Debug,
    /// Normal course.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// A plain value in an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A count, a generation, an epoch.
    Number(u64),
    /// A name or a cause.
    Text(String),
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Value::Bool(v)
    }
}
impl From<u64> for Value {
    fn from(v: u64) -> Self {
        Value::Number(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::Text(v.into())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Value::Text(v)
    }
}

/// Names of the events. Every event of the cluster and service layer carries `epoch`; every event of a storage group
/// carries `group`.
pub mod kind {
    /// This node is up in a cluster that it formed (`epoch`, `votes`).
    pub const CLUSTER_FORMED: &str = "cluster.formed";
    /// This node joined the cluster of the other one (`epoch`).
    pub const CLUSTER_JOINED: &str = "cluster.joined";
    /// The other member is part of the cluster now (`member`).
    pub const MEMBER_UP: &str = "cluster.member-up";
    /// The other member was removed (1135; `member`, `why`).
    pub const MEMBER_DOWN: &str = "cluster.member-down";
    /// One direction of a path changed (1123 lost, 1122 regained; `network`, `from`, `to`, `up`).
    pub const PATH: &str = "cluster.path";
    /// The shared record changed hands or content (`epoch`, `tag`, `owner`, `quorum_owner`).
    pub const REGROUP: &str = "cluster.regroup";
    /// This node begins to arbitrate at the witness (`as`: `owner` or `challenger`).
    pub const ARBITRATION_BEGIN: &str = "cluster.arbitration-begin";
    /// It holds the witness file (`epoch`, `as`).
    pub const ARBITRATION_WON: &str = "cluster.arbitration-won";
    /// It does not (`why`).
    pub const ARBITRATION_LOST: &str = "cluster.arbitration-lost";
    /// No majority any more: this node serves nothing (1177).
    pub const QUORUM_LOST: &str = "cluster.quorum-lost";
    /// Refused to form: the witness has seen a newer cluster (1561-like; `seen`, `ours`).
    pub const PARTITION_IN_TIME: &str = "cluster.partition-in-time";
    /// Formed without a majority by an operator.
    pub const QUORUM_FORCED: &str = "cluster.quorum-forced";
    /// A probe of the witness succeeded after a failure, or for the first time.
    pub const WITNESS_OK: &str = "cluster.witness-ok";
    /// A probe failed after a success, or the first one (1562; `error`).
    pub const WITNESS_FAILED: &str = "cluster.witness-failed";
    /// The cluster service restarts, for new heartbeat settings (`why`).
    pub const RESTARTING: &str = "cluster.restarting";
    /// A live setting changed (`key`, `value`, `tag`).
    pub const CONFIGURED: &str = "cluster.configured";
    /// A resource of a group failed on this node (1069; `resource`, `why`).
    pub const RESOURCE_FAILED: &str = "cluster.resource-failed";
    /// The daemon was told to end, and does (`epoch`, `served`: the epoch in which it was up, or 0; `given`: whether the other
    /// member has everything; `late`: whether the time was over; `why`).
    pub const ENDED: &str = "cluster.ended";
    /// The service group comes online here (`epoch`, `why`).
    pub const ONLINE_PENDING: &str = "service.online-pending";
    /// The databases are mounted (`epoch`, `ms`).
    pub const MOUNTED: &str = "service.mounted";
    /// It serves (`epoch`).
    pub const ONLINE: &str = "service.online";
    /// It is up without one or all of its databases (`epoch`, `why`).
    pub const PARTIALLY_ONLINE: &str = "service.partially-online";
    /// An operator has databases mounted whatever is lost (`epoch`).
    pub const LOSS_ACCEPTED: &str = "service.loss-accepted";
    /// It does not serve here any more (`epoch`, `why`; `orderly`: whether what was acknowledged is on the other member, or the cluster
    /// knows who alone has it, so that nothing is lost unless an operator accepts that).
    pub const OFFLINE: &str = "service.offline";
    /// Answers were held back because the lease was not valid, or the address was given away for that (`why`).
    pub const FENCED: &str = "service.fenced";
    /// The lease is valid again, and the address is back: it serves as before (`epoch`, `why`).
    pub const RESUMED: &str = "service.resumed";
    /// A planned move begins, was carried out or refused (100 when done; `to`, `comment`, `ms`, `why`; `verified`: files that the
    /// target has read before it began).
    pub const MOVE: &str = "service.move";
    /// A new generation was opened at a mount (`group`, `stream`, `generation`, `epoch`).
    pub const LOG_OPENED: &str = "log.opened";
    /// A generation was closed (`group`, `stream`, `generation`, `epoch`, `checksum`).
    pub const LOG_CLOSED: &str = "log.closed";
    /// A torn tail was cut during recovery (`group`, `bytes` cut, `left`).
    pub const LOG_TORN: &str = "log.torn";
    /// A file that is damaged, or not understood, is kept under another name (`group`, `file`, `to`, `why`).
    pub const LOG_SET_ASIDE: &str = "log.set-aside";
    /// A log or segment could not be read; it is tried again (`group`, `why`).
    pub const LOG_UNREADABLE: &str = "log.unreadable";
    /// What was flushed of the open log is damaged (`group`, `why`).
    pub const LOG_DAMAGED: &str = "log.damaged";
    /// Closed generations were removed (`group`, `through`).
    pub const LOG_TRUNCATED: &str = "log.truncated";
    /// A segment of the database was written anew without the messages that are deleted.
    pub const DATABASE_COMPACTED: &str = "database.compacted";
    /// A segment or closed log of the node that serves is damaged or gone; nothing is deleted (`group`, `why`).
    pub const DATABASE_DAMAGED: &str = "database.damaged";
    /// It was fetched from the other member, and is whole again (`group`, `what`).
    pub const DATABASE_REPAIRED: &str = "database.repaired";
    /// The log disk is full (`group`).
    pub const LOG_FULL: &str = "log.full";
    /// A generation passed inspection (`group`, `generation`).
    pub const COPY_INSPECTED: &str = "copy.inspected";
    /// A generation was replayed (`group`, `generation`).
    pub const COPY_REPLAYED: &str = "copy.replayed";
    /// An inspection failed (`group`, `generation`, `try`, `why`).
    pub const COPY_INSPECTION_FAILED: &str = "copy.inspection-failed";
    /// The copy needs a reseed (`group`, `why`).
    pub const COPY_FAILED: &str = "copy.failed";
    /// The status of a copy changed (`group`, `from`, `to`).
    pub const COPY_STATUS: &str = "copy.status";
    /// A full copy of the database begins (`group`, `why`).
    pub const COPY_SEEDING: &str = "copy.seeding";
    /// A full copy of the database is complete (`group`, `generation`).
    pub const COPY_SEEDED: &str = "copy.seeded";
    /// Logs of this copy are not those of the source (2058 when they cannot be dropped; `group`, `common`, `ours`).
    pub const COPY_DIVERGED: &str = "copy.diverged";
    /// Divergent logs were dropped (`group`, `from`, `to`).
    pub const COPY_RESYNCED: &str = "copy.resynced";
    /// Mounted with a loss (`group`, `from`, `to`, `lost`).
    pub const COPY_LOST: &str = "copy.lost";
    /// Not mounted: more is lost than the dial allows (`group`, `lost`, `tolerated`).
    pub const DIAL_REFUSED: &str = "copy.dial-refused";
    /// The hubs were asked to deliver again (2099; `hub`, `ok`).
    pub const REDELIVERY_ASKED: &str = "service.redelivery-asked";
    /// A message was accepted (`id`).
    pub const HUB_QUEUED: &str = "hub.queued";
    /// A message was delivered (`id`, `recipient`, `by_node`, `by_epoch`).
    pub const HUB_DELIVERED: &str = "hub.delivered";
    /// Messages of the dumpster were queued again (`count`, `epoch`).
    pub const HUB_REDELIVERY: &str = "hub.redelivery";
    /// A message on the disk is not understood, or gone; where it is there, it is kept as `….bad` (`id`, `why`).
    pub const HUB_SET_ASIDE: &str = "hub.set-aside";
    /// A message that had been set aside is understood now, and queued again (`id`).
    pub const HUB_TAKEN_AGAIN: &str = "hub.taken-again";
    /// A delivery was acknowledged with an old epoch and is queued again (`id`, `epoch`, `seen`).
    pub const HUB_FENCED: &str = "hub.fenced";
    /// A recipient was refused for good (`id`, `why`).
    pub const HUB_REFUSED: &str = "hub.refused";
    /// Messages left the dumpster by size or age (`count`).
    pub const HUB_EVICTED: &str = "hub.evicted";
}
