//! What the layers above read of the cluster layer: plain values of one instant.

use super::Cluster;
use crate::ctx::Ctx;
use crate::io::Now;
use crate::op::Pending;
use crate::record::{EpochOwner, Record};
use crate::wire::Heartbeat;
use ccr_contract::config::Dial;

/// The cluster layer at one instant. Instants are of the boot-time clock, in microseconds.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// This node.
    pub me: &'a str,
    /// The other member.
    pub peer: &'a str,
    /// This node as one who makes records.
    pub epoch_owner: &'a EpochOwner,
    /// The durable record.
    pub record: &'a Record,
    /// Whether a majority is known to have it, and no change of it is under way.
    pub committed: bool,
    /// Whether this node is in a cluster that has a majority.
    pub up: bool,
    /// Whether the other member is part of that cluster.
    pub peer_up: bool,
    /// Whether an operator shut this node out.
    pub evicted: bool,
    /// Whether one shut the other member out.
    pub peer_evicted: bool,
    /// What the other member said last, whatever it belongs to.
    pub last_heartbeat: Option<&'a Heartbeat>,
    /// When the other member counts as lost if it is not heard again; none where it never was heard.
    pub reached_until: Option<u64>,
    /// Whether an answer may leave now.
    pub lease_valid: bool,
    /// When the lease ends, where it does.
    pub lease_ends: Option<u64>,
    /// Until then the other member may rely on this node not to serve.
    pub promised_until: u64,
    /// This node must not begin to serve before.
    pub safe_to_serve_at: u64,
    /// Whether the network of the service has failed on this node alone.
    pub service_network_failed: bool,
    /// How many lost logs a mount without an operator accepts.
    pub dial: Dial,
}

impl Snapshot<'_> {
    /// Whether this node may change the record.
    pub fn is_leader(&self) -> bool {
        self.up && self.record.quorum_owner == self.me
    }
    /// Whether the service belongs to this node.
    pub fn is_owner(&self) -> bool {
        self.record.owner == self.me
    }
    /// What the other member said last, where it can be relied on: it is part of the cluster.
    pub fn member_heartbeat(&self) -> Option<&Heartbeat> {
        self.last_heartbeat.filter(|_| self.peer_up)
    }
    /// Whether both members hear each other, whatever else they are; asks to be woken when that may end.
    pub fn reaches_peer(&self, ctx: &mut Ctx<Pending>) -> bool {
        self.reached_until.is_some_and(|at| !ctx.due(at))
    }
}

impl Cluster {
    /// What the layers above read, as it is at `now`.
    pub fn snapshot(&self, ctx: &Ctx<Pending>) -> Snapshot<'_> {
        let now: Now = ctx.now;
        Snapshot {
            me: &self.me,
            peer: &self.peer.name,
            epoch_owner: &self.epoch_owner,
            record: &self.saved.record,
            committed: self.committed(),
            up: self.is_up(),
            peer_up: self.membership.has_peer(),
            evicted: self.is_evicted(),
            peer_evicted: self.peer_evicted(),
            last_heartbeat: self.peer.view.as_ref(),
            reached_until: self.peer_lost_at(ctx),
            lease_valid: self.lease_valid(now),
            lease_ends: self.lease_ends(),
            promised_until: self.granted_until,
            safe_to_serve_at: self.granted_until.max(self.witness.safe_at),
            service_network_failed: self.service_network_failed(now),
            dial: self.settings.dial,
        }
    }
}
