//! The cluster layer: who is a member, who has a majority, who owns the two groups. It knows nothing of logs.
//!
//! Invariants:
//! * `saved` is what `cluster.json` holds; only that is told to others. One save is under way at a time.
//! * A node is [`Membership::Up`] only while it has a majority: the other member heard in both directions, or the witness file
//!   held, or, for a bounded time, neither while it arbitrates; in that time its lease runs out by itself.
//! * A grant in a heartbeat is a promise kept in `granted_until`: this node does not serve before that instant.
//! * Heartbeats carry state, never deltas, so the loss of any of them costs time only.

pub mod arbitration;
mod force;
mod forming;
pub mod heartbeat;
pub mod lease;
mod live;
mod membership;
pub mod snapshot;
mod view;
mod votes;

use crate::ctx::Ctx;
use crate::io::{DiskAction, Now};
use crate::op::Pending;
use crate::planted::Bug;
use crate::record::{self, PersistentState, Record};
use crate::wire::{GroupView, Phase};
use arbitration::Witness;
use ccr_contract::config::{Config, Settings};
use ccr_contract::event::EventKind;
use ccr_contract::status::ServiceState;
use heartbeat::Peer;
use lease::{Lease, MAX_UNSEEN_PAUSE_US};
use membership::{Electorate, Membership, PeerMembership};
use std::collections::VecDeque;
use votes::PeerVote;

/// Agreed records that are remembered, for operators who wait for theirs.
const AGREED_KEPT: usize = 16;
/// The file with the record.
pub const CLUSTER_FILE: &str = "cluster.json";

/// What the other layers tell this one before each round.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// State of the service here.
    pub service: ServiceState,
    /// Epoch in which the service runs or may run here; 0 without one.
    pub service_epoch: u64,
    /// Whether the service here needs a lease.
    pub wants_lease: bool,
    /// Whether the service was handed over here.
    pub handed_over: bool,
    /// Whether it was, with a database dismounted.
    pub given_up: bool,
    /// Whether every hub has said that it delivers again.
    pub redelivered: bool,
    /// The storage groups.
    pub groups: Vec<GroupView>,
    /// The highest epoch that this node's logs and databases tell of, 0 where there are none; none before they were read.
    pub history: Option<u64>,
}

/// The cluster layer of one member.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) me: String,
    /// Whose epochs this node's records have.
    epoch_owner: record::EpochOwner,
    name: String,
    /// Position in the configuration's list of members.
    index: usize,
    pub(crate) settings: Settings,
    defaults: live::ConfigDefaults,
    /// The network that carries the service's address.
    service_network: String,
    /// The witness in force.
    witness_path: Option<String>,
    force: force::Force,
    electorate: Electorate,
    membership: Membership,
    incarnation: u64,
    saved: PersistentState,
    saving: Option<PersistentState>,
    /// The last records that a majority agreed to while this node looked on.
    agreed: VecDeque<record::RecordId>,
    peer: Peer,
    seq: u64,
    sent: VecDeque<(u64, Now)>,
    /// Grants of heartbeats up to this number are void: this node has said since that it wants no lease.
    void_through: u64,
    next_beat: u64,
    beat_now: bool,
    last_beat: u64,
    lease: Lease,
    /// Whether the lease was valid in the last round.
    leased: bool,
    /// Until then the other member may rely on this node not to serve.
    granted_until: u64,
    witness: Witness,
    report: NodeReport,
}

/// Why this node may not change the record now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// It is not the leader of a cluster with a majority.
    NotLeader,
    /// A change is under way.
    Busy,
}

impl Cluster {
    /// The layer before anything was read.
    pub fn new(config: &Config, incarnation: u64) -> Self {
        let index = config.members.iter().position(|m| m.name == config.node).unwrap_or(0);
        Self {
            me: config.node.clone(),
            epoch_owner: record::EpochOwner::new(&config.node, config.members.iter().map(|m| m.name.as_str())),
            name: config.cluster.clone(),
            index,
            settings: config.settings.clone(),
            defaults: live::ConfigDefaults::new(config),
            service_network: config.service_network.clone(),
            witness_path: config.witness.as_ref().map(|w| w.path.clone()),
            force: force::Force::default(),
            electorate: Electorate::Full,
            membership: Membership::Unread,
            incarnation,
            saved: PersistentState {
                record: Record::fresh(),
                committed: false,
                last_committed: record::RecordId::default(),
                highest_epoch: 0,
                witness_change_pending: false,
            },
            saving: None,
            agreed: VecDeque::new(),
            peer: Peer::new(config),
            seq: 0,
            sent: VecDeque::new(),
            void_through: 0,
            next_beat: 0,
            beat_now: false,
            last_beat: 0,
            lease: Lease::default(),
            leased: false,
            granted_until: 0,
            witness: Witness::default(),
            report: NodeReport {
                service: ServiceState::Offline,
                service_epoch: 0,
                wants_lease: false,
                handed_over: false,
                given_up: false,
                redelivered: false,
                groups: Vec::new(),
                history: None,
            },
        }
    }

    /// `cluster.json` was read; none is there on a fresh node.
    pub fn start(&mut self, ctx: &mut Ctx<Pending>, file: Option<&[u8]>) -> Result<(), String> {
        if let Some(bytes) = file {
            self.saved = PersistentState::decode(bytes).map_err(|e| format!("{CLUSTER_FILE}: {e}"))?;
            if PersistentState::is_dated(bytes) {
                let (file, bytes) = (CLUSTER_FILE.to_owned(), self.saved.encode());
                ctx.disk(Pending::Quiet, DiskAction::Replace { file, bytes });
            }
        }
        let isolated_since = ctx.now.boot_us;
        self.membership = Membership::Forming { isolated_since };
        self.lease.boot_clock_only = ctx.plays(Bug::LeaseByBootClock);
        self.next_beat = ctx.now.boot_us;
        self.apply_live(ctx, &std::collections::BTreeMap::new(), self.saved.committed);
        if !self.saved.record.id.is_fresh() && !ctx.plays(Bug::ForgetPromise) {
            // What an earlier incarnation of this node granted is forgotten, and may still be relied on.
            self.granted_until = ctx.now.boot_us + self.member_lease_us() + MAX_UNSEEN_PAUSE_US;
        }
        Ok(())
    }

    /// This node as one who makes records.
    pub fn epoch_owner(&self) -> &record::EpochOwner {
        &self.epoch_owner
    }
    /// The durable record.
    pub fn record(&self) -> &Record {
        &self.saved.record
    }
    /// Whether a majority is known to have it.
    pub fn committed(&self) -> bool {
        self.saved.committed && self.saving.is_none()
    }
    /// Whether this node, as the leader, has a change under way.
    pub fn is_changing(&self) -> bool {
        self.is_leader() && !self.committed()
    }
    /// Whether a majority has agreed to exactly this record.
    pub fn has_agreed(&self, id: &record::RecordId) -> bool {
        self.agreed.contains(id)
    }
    /// Whether this node is in a cluster that has a majority.
    pub fn is_up(&self) -> bool {
        matches!(self.membership, Membership::Up { .. })
    }
    /// Whether this node looks for a cluster.
    fn is_forming(&self) -> bool {
        self.membership.is_forming()
    }
    /// Whether this node has no record, and logs that tell of one, or that were not read yet.
    fn has_lost_its_record(&self) -> bool {
        self.saved.record.id.is_fresh() && self.report.history != Some(0)
    }
    /// Whether an operator shut this node out.
    fn is_evicted(&self) -> bool {
        self.membership == Membership::Evicted
    }
    /// Whether this node may change the record.
    pub fn is_leader(&self) -> bool {
        self.is_up() && self.saved.record.quorum_owner == self.me
    }
    /// Name of the other member.
    pub fn peer_name(&self) -> &str {
        &self.peer.name
    }
    /// Whether an answer may leave now.
    pub fn lease_valid(&self, now: Now) -> bool {
        let (member_us, witness_us) = (self.member_lease_us(), self.witness_lease_us());
        let needs_none = self.electorate.is_one_member() || self.force.stands_in();
        self.is_up() && (needs_none || self.lease.valid(now, member_us, witness_us))
    }
    /// The boot-time instant at which the lease ends, where it does.
    fn lease_ends(&self) -> Option<u64> {
        let ends = self.lease.ends(self.member_lease_us(), self.witness_lease_us());
        ends.filter(|_| !self.electorate.is_one_member() && !self.force.stands_in())
    }
    fn member_lease_us(&self) -> u64 {
        self.settings.lease_ms * 1000
    }
    fn witness_lease_us(&self) -> u64 {
        self.settings.witness_lease_ms * 1000
    }
    fn beat_us(&self) -> u64 {
        self.settings.heartbeat_ms * 1000
    }

    /// Begins to change the record. It counts when [`Self::committed`].
    pub fn propose(&mut self, ctx: &mut Ctx<Pending>, record: Record) -> Result<(), ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if !self.committed() {
            return Err(ProposeError::Busy);
        }
        self.save(ctx, record, false);
        Ok(())
    }

    fn save(&mut self, ctx: &mut Ctx<Pending>, record: Record, committed: bool) {
        assert!(self.saving.is_none(), "one save at a time");
        assert!(
            committed || (record.id.by == self.me && self.epoch_owner.owns(record.id.epoch)),
            "a node proposes records of its own epochs only: {:?}",
            record.id
        );
        let base = if committed {
            &record.id
        } else {
            &self.saved.last_committed
        };
        // With the other member's consent, which `committed` proves, a change of the witness is settled.
        let switches = record.witness != self.saved.record.witness || self.saved.witness_change_pending;
        let saved = PersistentState {
            witness_change_pending: switches && !committed,
            highest_epoch: self.saved.highest_epoch.max(record.id.epoch),
            last_committed: base.clone(),
            record,
            committed,
        };
        let bytes = saved.encode();
        self.saving = Some(saved);
        ctx.disk(
            Pending::ClusterSaved,
            DiskAction::Replace {
                file: CLUSTER_FILE.into(),
                bytes,
            },
        );
    }

    /// The record is on the disk.
    pub fn on_saved(&mut self, ctx: &mut Ctx<Pending>) {
        let Some(saved) = self.saving.take() else { return };
        let committed_now = saved.committed;
        let before = std::mem::replace(&mut self.saved, saved).record.settings;
        self.apply_live(ctx, &before, committed_now);
        self.beat_now = true;
        if committed_now {
            self.agreed.push_back(self.saved.record.id.clone());
            if self.agreed.len() > AGREED_KEPT {
                self.agreed.pop_front();
            }
            self.report_record(ctx);
        }
    }

    /// One round: looks at the time and at what arrived, and acts.
    pub fn drive(&mut self, ctx: &mut Ctx<Pending>, report: NodeReport) {
        match self.membership {
            Membership::Unread => return,
            Membership::Restarting { until, .. } if !ctx.due(until) => return self.probe_witness(ctx),
            Membership::Restarting { .. } => self.membership.restarted(),
            Membership::Forming { .. } | Membership::Up { .. } | Membership::Evicted => {}
        }
        assert!(
            report.service != ServiceState::Online || self.lease_valid(ctx.now),
            "who is online has a valid lease, is the whole cluster, or was forced"
        );
        if self.force.is_requested() && !self.is_forming() {
            self.force_refused("a regular cluster was formed meanwhile");
        }
        let same = |r: &NodeReport| {
            (
                r.service,
                r.service_epoch,
                r.wants_lease,
                r.handed_over,
                r.given_up,
                r.redelivered,
            )
        };
        let state = |g: &GroupView| (g.inspected, g.status, g.mounted, g.open);
        let groups = report.groups.iter().map(state);
        if same(&report) != same(&self.report) || !groups.eq(self.report.groups.iter().map(state)) {
            self.beat_now = true;
        }
        if self.report.wants_lease && !report.wants_lease && !ctx.plays(Bug::KeepLease) {
            // The other member takes its promise for void as soon as it hears of this. So the lease is over now, and no late
            // answer to what was sent before brings it back.
            self.lease.drop_source(lease::Source::Member);
            self.void_through = self.seq;
        }
        self.report = report;
        if self.saved.record.id.is_fresh() {
            // Without a record, but not new: what is agreed to now comes after what its logs tell of.
            self.saved.highest_epoch = self.saved.highest_epoch.max(self.report.history.unwrap_or(0));
        }
        self.watch_paths(ctx);
        match self.membership {
            Membership::Up { .. } => self.drive_up(ctx),
            Membership::Forming { .. } => self.drive_forming(ctx),
            Membership::Evicted => self.drive_evicted(ctx),
            Membership::Unread | Membership::Restarting { .. } => {}
        }
        self.drive_witness(ctx);
        self.commit(ctx);
        self.watch_lease(ctx.now);
        self.check(ctx.now);
    }

    /// Tells the other member what this node is and has, where that is due. Once all layers have looked at what changed: a
    /// heartbeat with a new record and the report of before it would say that nothing came of the record.
    pub fn tell_peer(&mut self, ctx: &mut Ctx<Pending>) {
        if !matches!(self.membership, Membership::Unread | Membership::Restarting { .. }) {
            self.send_heartbeats(ctx);
        }
    }

    /// What must be so whenever the layer has looked at what changed.
    fn check(&self, now: Now) {
        assert!(
            self.witness.holds() || !self.lease.rests_on(lease::Source::Witness),
            "only who holds the witness file has a lease from it"
        );
        assert!(
            self.report.service != ServiceState::Online || self.granted_until <= now.boot_us,
            "who has promised not to serve is not online"
        );
    }

    fn drive_up(&mut self, ctx: &mut Ctx<Pending>) {
        self.watch_peer(ctx);
        if self.saving.is_none() && self.adopt_from_leader(ctx) {
            return;
        }
        if self.peer_knows_better(ctx) {
            return self.lose_quorum(ctx, "the other member is in a newer cluster");
        }
        self.end_force();
        self.learn_what_was_agreed(ctx);
        let now = ctx.now.boot_us;
        if votes::has_majority(self.hold(self.membership.has_peer())) {
            self.membership.not_alone(now);
        } else if ctx.due(self.membership.isolated_since(now) + self.patience_us()) {
            return self.lose_quorum(ctx, "neither the other member nor the witness");
        }
        self.lead(ctx);
    }

    /// Takes over a change that the leader of our cluster made.
    fn adopt_from_leader(&mut self, ctx: &mut Ctx<Pending>) -> bool {
        let Some(record) = self.peer.view.as_ref().and_then(|v| {
            let ours = v.phase == Phase::Up && v.member == Some(self.incarnation);
            let ours = ours && v.last_committed.covers_agreed(&self.saved.last_committed);
            v.record
                .as_ref()
                .filter(|r| ours && r.id == v.id && r.id.newer_than(&self.saved.record.id))
        }) else {
            return false;
        };
        let record = record.clone();
        self.save(ctx, record, true);
        true
    }

    /// The other member has agreed to an earlier record of ours, and this node heard of it after it had gone on to the next one. The
    /// next one was made from it, so it counts as its base: the other member agrees to no record that leaves out what it knows of.
    fn learn_what_was_agreed(&mut self, ctx: &mut Ctx<Pending>) {
        if self.saving.is_some() || self.saved.committed || self.peer_lost(ctx) {
            return;
        }
        let ours = |id: &record::RecordId| {
            id.by == self.me && id.newer_than(&self.saved.last_committed) && self.saved.record.id.newer_than(id)
        };
        let view = self.peer.view.as_ref();
        let agreed = view.filter(|v| v.member == Some(self.incarnation) && v.committed && ours(&v.id));
        if let Some(id) = agreed.map(|v| v.id.clone()) {
            self.saved.last_committed = id;
            let record = self.saved.record.clone();
            self.save(ctx, record, false);
        }
    }

    /// Whether the other member is in a cluster that went on without this node (which was paused, or cut off).
    fn peer_knows_better(&self, ctx: &mut Ctx<Pending>) -> bool {
        let lost = self.peer_lost(ctx);
        self.peer.view.as_ref().is_some_and(|v| {
            !lost
                && v.member != Some(self.incarnation)
                && !self.stand().knows_agreed(&v.last_committed)
                && self.saving.is_none()
        })
    }

    /// What this node has of the record.
    fn stand(&self) -> votes::Stand<'_> {
        votes::Stand {
            id: &self.saved.record.id,
            committed: self.saved.committed,
            last_committed: &self.saved.last_committed,
        }
    }
    /// What it has in hand that is a second vote, or may become one, beside the other member.
    fn hold(&self, peer: bool) -> votes::Hold {
        votes::Hold {
            peer,
            witness: self.witness.holds(),
            forced: self.force.stands_in(),
            single_member: self.electorate.is_one_member(),
        }
    }

    /// A survivor that was not the leader becomes it; a leader goes above every epoch that was ever tried.
    fn lead(&mut self, ctx: &mut Ctx<Pending>) {
        if self.saving.is_some() {
            return;
        }
        let has_peer = self.membership.has_peer();
        let leader_gone = self.saved.record.quorum_owner != self.me && !has_peer;
        let can_agree = votes::has_majority(self.hold(!self.peer_lost(ctx)));
        let highest = self
            .peer
            .view
            .as_ref()
            .map_or(0, |v| v.highest_epoch)
            .max(self.saved.highest_epoch);
        let behind = highest > self.saved.record.id.epoch;
        // Also with a change under way: it goes on in the new epoch, and in the old one the other member might not agree to it.
        let outrun = behind && self.is_leader() && has_peer && can_agree;
        if (leader_gone && can_agree) || outrun {
            let mut floor = self.saved.record.id.clone();
            floor.epoch = highest.max(floor.epoch);
            let record = self.saved.record.claimed_by(&self.epoch_owner, &floor);
            self.save(ctx, record, false);
        }
    }

    /// A record of ours counts as soon as a second voter has it.
    fn commit(&mut self, ctx: &mut Ctx<Pending>) {
        if self.saving.is_some() || self.saved.record.id.by != self.me {
            return;
        }
        let view = self.peer.view.as_ref().filter(|v| v.id == self.saved.record.id);
        let peer = match view.map(|v| v.phase) {
            Some(_) if self.peer_lost(ctx) => PeerVote::None,
            Some(Phase::Up) => PeerVote::Up,
            // A node that counts as evicted by this record agrees to it.
            Some(Phase::Forming | Phase::Evicted) => PeerVote::Apart,
            None => PeerVote::None,
        };
        let second = votes::commits(votes::Votes {
            up: self.is_up(),
            peer,
            witness: self.witness.voted_for(&self.saved.record.id),
            forced: self.force.stands_in(),
            single_member: self.electorate.is_one_member(),
            witness_change_pending: self.saved.witness_change_pending,
        });
        if !second {
            return;
        }
        if !self.saved.committed {
            let record = self.saved.record.clone();
            self.save(ctx, record, true);
        } else if self.is_forming() {
            self.become_up(ctx, PeerMembership::Apart, |epoch| EventKind::ClusterFormed { epoch });
        }
    }

    fn report_record(&self, ctx: &mut Ctx<Pending>) {
        let r = &self.saved.record;
        ctx.event(EventKind::Regroup {
            epoch: r.id.epoch,
            tag: r.id.tag,
            owner: r.owner.clone(),
            quorum_owner: r.quorum_owner.clone(),
        });
    }

    /// How long a node that is alone tries to win the witness before it gives up what it runs: the challenger's delay
    /// and the longest time that a share keeps the handle of a dead client, with some room.
    fn patience_us(&self) -> u64 {
        (self.settings.arbitration_delay_ms + 4 * self.settings.witness_timeout_ms) * 1000
    }
    fn epoch(&self) -> u64 {
        self.saved.record.id.epoch
    }

    /// Whether the right to serve comes from the other member.
    fn leased_by_member(&self, now: Now) -> bool {
        self.lease.by_member(now, self.member_lease_us())
    }
}
