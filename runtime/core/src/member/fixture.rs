//! What the parts of a member are tested on: a time, and a cluster layer that says what a test wants.

use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::io::{Boot, Effect, Now};
use crate::op::Pending;
use crate::record::{EpochOwner, Record, RecordId};
use crate::wire::{GroupView, Heartbeat, Phase};
use ccr_contract::config::{Config, Dial, Peer, Role, Settings};
use ccr_contract::event::EventKind;
use ccr_contract::status::{CopyStatus, ServiceState};

/// This node.
pub const ME: &str = "node1";
/// The other member.
pub const PEER: &str = "node2";
/// The epoch in which the service was appointed last.
pub const EPOCH: u64 = 4;

/// The configuration of this node, with one storage group.
pub fn config() -> Config {
    let peer = |name: &str| Peer {
        name: name.into(),
        addresses: Default::default(),
    };
    Config {
        schema: 1,
        node: ME.into(),
        role: Role::Member,
        cluster: "c".into(),
        cluster_address: [10, 0, 0, 1].into(),
        service: "mbx".into(),
        service_address: [10, 0, 0, 2].into(),
        service_network: "public".into(),
        data: "/data".into(),
        networks: Vec::new(),
        members: vec![peer(ME), peer(PEER)],
        hubs: vec![peer("hub0")],
        witness: None,
        settings: Settings {
            groups: vec!["Group0".into()],
            ..Settings::default()
        },
    }
}

/// A context at `ms` milliseconds.
pub fn ctx(ms: u64) -> Ctx<Pending> {
    let mut ctx = Ctx::new(&Boot {
        entropy: 1,
        version: "test".into(),
        planted: None,
    });
    at(&mut ctx, ms);
    ctx
}

/// Lets the time be `ms` milliseconds.
pub fn at(ctx: &mut Ctx<Pending>, ms: u64) {
    ctx.begin(Now {
        boot_us: ms * 1000,
        rtc_us: ms * 1000,
    });
}

/// The events among the effects, with what they say.
pub fn told(effects: &[Effect]) -> Vec<EventKind> {
    let kinds = effects.iter().filter_map(|e| match e {
        Effect::Event(event) => Some(event.what()),
        _ => None,
    });
    kinds.collect()
}

/// A cluster of two members that this node leads, and in which it owns the service. A test changes what it is about.
pub(super) struct Facts {
    pub record: Record,
    pub committed: bool,
    pub up: bool,
    pub peer_up: bool,
    pub heartbeat: Heartbeat,
    pub lease_valid: bool,
    pub promised_until: u64,
    owner: EpochOwner,
}

impl Facts {
    pub fn new() -> Self {
        let id = RecordId {
            epoch: EPOCH,
            tag: 1,
            by: ME.into(),
        };
        let record = Record {
            id: id.clone(),
            quorum_owner: ME.into(),
            owner: ME.into(),
            owner_epoch: EPOCH,
            served: vec![EPOCH],
            ..Record::fresh()
        };
        let group = GroupView {
            generated: 0,
            inspected: 0,
            replayed: 0,
            status: CopyStatus::Healthy,
            mounted: false,
            open: Some(false),
            common: None,
        };
        let heartbeat = Heartbeat {
            cluster: "c".into(),
            from: PEER.into(),
            incarnation: 7,
            seq: 1,
            phase: Phase::Up,
            hears: vec![true],
            echo: None,
            lease: false,
            fenced: false,
            member: Some(1),
            id: id.clone(),
            committed: true,
            last_committed: id,
            highest_epoch: EPOCH,
            record: None,
            service: ServiceState::Offline,
            service_epoch: 0,
            handed_over: false,
            given_up: false,
            redelivered: false,
            groups: vec![group],
            probe: None,
        };
        Self {
            record,
            committed: true,
            up: true,
            peer_up: true,
            heartbeat,
            lease_valid: true,
            promised_until: 0,
            owner: EpochOwner::new(ME, [ME, PEER].into_iter()),
        }
    }
    /// The service belongs to the other member.
    pub fn elsewhere() -> Self {
        let mut facts = Self::new();
        facts.record.owner = PEER.into();
        facts
    }
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            me: ME,
            peer: PEER,
            epoch_owner: &self.owner,
            record: &self.record,
            committed: self.committed,
            up: self.up,
            peer_up: self.peer_up,
            evicted: false,
            peer_evicted: false,
            last_heartbeat: Some(&self.heartbeat),
            reached_until: None,
            lease_valid: self.lease_valid,
            lease_ends: None,
            promised_until: self.promised_until,
            safe_to_serve_at: self.promised_until,
            service_network_failed: false,
            dial: Dial::GoodAvailability,
        }
    }
}
