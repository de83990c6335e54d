//! The storage groups of a member: for each one its store, its copy, and the repair of its files.
//!
//! What a group does depends on what the service does here ([`Use`]) and on what the cluster layer knows of the other member.
//! What clients wait for comes out as an [`Outcome`].

mod mounting;
mod status;

use crate::cluster::snapshot::Snapshot;
use crate::command::Command;
use crate::ctx::Ctx;
use crate::io::{ConnId, DiskResult, Reply};
use crate::links::PeerStreams;
use crate::op::{BodyRead, Op, Part, Pending};
use crate::planted::Bug;
use crate::replication::copy::{Copy, Role};
use crate::replication::repair::Repair;
use crate::replication::source;
use crate::store::active::Ticket;
use crate::store::{self, Store};
use crate::wire::{GroupView, Msg};
use ccr_contract::config::{Config, Settings};
use ccr_contract::event::{CopyFault, EventKind};
use ccr_contract::status::CopyStatus;
pub use mounting::Mount;
use std::collections::BTreeSet;

/// What an operator is told of a seed that was ordered.
const SEED_BEGINS: &str = "a seed begins; its status says when it is Healthy";
/// Planted bugs that call Healthy what was not inspected, or inspect what was not closed.
const NOT_INSPECTED: [Bug; 4] = [
    Bug::SkipChainCheck,
    Bug::ShipOpenLog,
    Bug::IgnoreGap,
    Bug::HealthyUncompared,
];

/// One storage group.
#[derive(Debug)]
pub struct Group {
    /// Its logs and its database.
    pub store: Store,
    /// What it fetches from the other member.
    pub copy: Copy,
    /// What is damaged of it while it serves.
    repair: Repair,
}

/// All of them.
#[derive(Debug)]
pub struct Groups {
    each: Vec<Group>,
    settings: Settings,
    /// Streams of the other member on which it follows these groups.
    followers: BTreeSet<ConnId>,
    /// The number of the last verification that the other member asked for.
    verification: u64,
}

/// What the service does with the groups here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing: they may be copies.
    None,
    /// It serves them, or is on its way up or down.
    Engaged,
    /// The same, and looks for logs that are missing here at the other member.
    Salvages,
}

/// What a completion led to that clients wait for.
#[derive(Debug)]
pub enum Outcome {
    /// Changes in this group are durable.
    Landed(usize, Vec<Ticket>),
    /// A piece of a body was read, or not, of this group.
    Body(usize, BodyRead, DiskResult),
}

impl Groups {
    /// Groups of which nothing was read yet.
    pub fn new(config: &Config) -> Self {
        let (bytes, longest) = (config.settings.generation_bytes, config.settings.message_bytes);
        let names = config.settings.groups.iter().enumerate();
        let each = names.map(|(i, name)| Group {
            store: Store::new(i, name, bytes, longest),
            copy: Copy::new(),
            repair: Repair::default(),
        });
        Self {
            each: each.collect(),
            settings: config.settings.clone(),
            followers: BTreeSet::new(),
            verification: 0,
        }
    }
    /// Begins to read the disk.
    pub fn recover(&mut self, ctx: &mut Ctx<Pending>) {
        for store in self.stores_mut() {
            store.recover(ctx);
        }
    }

    /// The groups, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Group> {
        self.each.iter()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.each.len()
    }
    /// The stores, in their order.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.each.iter().map(|g| &g.store)
    }
    /// The same, to change them.
    pub fn stores_mut(&mut self) -> impl Iterator<Item = &mut Store> {
        self.each.iter_mut().map(|g| &mut g.store)
    }
    /// The store of a group that clients have named.
    pub fn store(&mut self, g: usize) -> &mut Store {
        &mut self.each[g].store
    }

    /// The highest epoch that the stores tell of: 0 where all are empty, none before all were read.
    pub fn history(&self) -> Option<u64> {
        self.stores()
            .map(Store::history)
            .try_fold(0, |most, epoch| Some(most.max(epoch?)))
    }
    /// How many generations there are, of all groups.
    pub fn generations(&self) -> u64 {
        self.stores().map(|s| s.last().generation).sum()
    }
    /// Whether everything that was acknowledged is closed.
    pub fn are_drained(&self) -> bool {
        self.stores().all(Store::is_drained)
    }
    /// Whether some copy touches the disk in a way that must end before anything is mounted.
    pub fn copies_busy(&self) -> bool {
        self.each.iter().any(|g| g.copy.busy())
    }
    /// The open logs are closed.
    pub fn roll(&mut self, ctx: &mut Ctx<Pending>) {
        for store in self.stores_mut() {
            store.roll(ctx);
        }
    }
    /// Nothing is served from here any more.
    pub fn dismount(&mut self) {
        for store in self.stores_mut() {
            store.dismount();
        }
    }
    /// What the other member is told of each group.
    pub fn views(&self, now: u64) -> Vec<GroupView> {
        let view = |Group { store, copy, .. }: &Group| GroupView {
            generated: if store.mounted() {
                store.last().generation
            } else {
                store.source_state.generated
            },
            inspected: store.last().generation,
            replayed: copy.replayed(store),
            status: copy.status(now, store, self.probe_us()),
            mounted: store.mounted(),
            open: store.has_open(),
            common: store.source_state.common.filter(|_| !store.mounted()),
        };
        self.each.iter().map(view).collect()
    }
    fn probe_us(&self) -> u64 {
        self.settings.status_probe_ms * 1000
    }

    /// A disk operation of a group ended. `epoch` is that in which the service is here, 0 where it is not.
    pub fn on_disk(
        &mut self,
        ctx: &mut Ctx<Pending>,
        streams: &mut PeerStreams,
        (cluster, epoch): (&Snapshot<'_>, u64),
        (g, op): (usize, Op),
        result: DiskResult,
    ) -> Vec<Outcome> {
        let Group { store, copy, .. } = &mut self.each[g];
        let ended = match op {
            Op::Copy(step) => {
                store.ended();
                let out = copy.on_disk(ctx, store, step, result);
                send_to_source(ctx, streams, cluster.peer, out);
                return Vec::new();
            }
            Op::Part {
                generation, segment, ..
            } => {
                store.ended();
                if result == DiskResult::Missing {
                    let part = if segment { Part::Segment } else { Part::Log };
                    store.suspect(part(generation));
                }
                source::part_read(ctx, g, &op, result);
                return Vec::new();
            }
            Op::Body(read) => {
                store.ended();
                return vec![Outcome::Body(g, read, result)];
            }
            op => store.on_disk(ctx, op, result),
        };
        let mut outcomes = Vec::new();
        for what in ended {
            match what {
                store::Outcome::Landed(tickets) => outcomes.push(Outcome::Landed(g, tickets)),
                store::Outcome::Closed(generation) => self.on_log_closed(ctx, g, generation, epoch),
                what => self.each[g].on_outcome(ctx, what),
            }
        }
        outcomes
    }

    /// Whoever follows this group can have another log.
    fn on_log_closed(&mut self, ctx: &mut Ctx<Pending>, g: usize, generation: u64, epoch: u64) {
        let store = &mut self.each[g].store;
        store.source_state.generated = store.source_state.generated.max(generation);
        if let Some(msg) = source::offer(ctx, store, epoch) {
            for conn in &self.followers {
                source::send(ctx, *conn, &msg);
            }
        }
    }

    /// A stream ended, or with `with_source` one on which this node follows.
    pub fn on_closed(&mut self, ctx: &mut Ctx<Pending>, conn: ConnId, with_source: bool) {
        self.followers.remove(&conn);
        if with_source {
            self.disconnected(ctx);
        }
    }
    fn disconnected(&mut self, ctx: &mut Ctx<Pending>) {
        for group in &mut self.each {
            group.copy.on_disconnected(ctx);
        }
    }

    /// The other member asks for what this one has. `epoch` as in [`Self::on_disk`].
    pub fn on_request(&mut self, ctx: &mut Ctx<Pending>, conn: ConnId, msg: &Msg, epoch: u64) {
        let group = match *msg {
            Msg::Attach { group }
            | Msg::Chain { group, .. }
            | Msg::Pull { group, .. }
            | Msg::Seed { group }
            | Msg::Segment { group, .. } => group,
            Msg::Verify { id } => return self.on_verify(ctx, conn, id),
            _ => return,
        };
        let store = self.each.get_mut(group).map(|g| &mut g.store);
        let Some(store) = store.filter(|s| s.recovered()) else {
            return source::send(ctx, conn, &Msg::NotSource { group });
        };
        self.followers.insert(conn);
        source::answer(ctx, store, conn, msg, epoch);
    }

    /// The other member asks how far this one is with its verification; a new number begins one.
    fn on_verify(&mut self, ctx: &mut Ctx<Pending>, conn: ConnId, id: u64) {
        let known = self.verification == id && self.stores().all(|s| s.verified().is_some());
        if !known {
            self.verification = id;
            self.stores_mut().for_each(Store::verify);
        }
        let each = self.stores().filter_map(|s| Some((s, s.verified()?)));
        let (mut done, mut total, mut ended, mut fault) = (0, 0, true, None);
        for (store, v) in each {
            done += v.done;
            total += v.total;
            ended &= v.ended;
            fault = fault.or_else(|| v.fault.as_ref().map(|why| format!("{}: {why}", store.name)));
        }
        let msg = Msg::Verified {
            id,
            done,
            total,
            ended,
            fault,
        };
        source::send(ctx, conn, &msg);
    }

    /// The other member answers what a copy, or a repair, has asked for.
    pub fn on_answer(
        &mut self,
        ctx: &mut Ctx<Pending>,
        streams: &mut PeerStreams,
        cluster: &Snapshot<'_>,
        msg: &Msg,
        body: &[u8],
    ) {
        let (Msg::Source { group, .. }
        | Msg::NotSource { group }
        | Msg::Links { group, .. }
        | Msg::Part { group, .. }
        | Msg::Missing { group, .. }
        | Msg::Offer { group, .. }
        | Msg::SegmentPart { group, .. }) = msg
        else {
            return;
        };
        let Some(Group { store, copy, repair }) = self.each.get_mut(*group) else {
            return;
        };
        let mut out = copy.on_msg(ctx, store, msg, body);
        repair.on_msg(ctx, store, msg, body, &mut out);
        send_to_source(ctx, streams, cluster.peer, out);
    }

    /// An operator asks something of one group, or of all.
    pub fn perform(&mut self, ctx: &mut Ctx<Pending>, command: &Command) -> Reply {
        match command {
            Command::Suspend { group, .. } | Command::Resume { group } => {
                let comment = match command {
                    Command::Suspend { comment, .. } => Some(comment),
                    _ => None,
                };
                let what = if comment.is_some() {
                    "suspended: nothing is copied or replayed"
                } else {
                    "resumed: it is Healthy when it was compared with the source"
                };
                self.for_each(group.as_deref(), what, |Group { store, .. }| {
                    store.source_state.suspended = comment.is_some();
                    store.save_source_state(ctx);
                    if let Some(comment) = comment.cloned() {
                        let group = store.name.clone();
                        ctx.event(EventKind::CopySuspendOrdered { group, comment });
                    }
                })
            }
            Command::Reseed { .. } if self.each.iter().all(|g| !g.copy.follows()) => {
                Reply::Denied("nobody serves a database that could be copied".into())
            }
            Command::Reseed { group } => {
                self.for_each(group.as_deref(), SEED_BEGINS, |Group { store, copy, .. }| {
                    store.source_state.suspended = false;
                    copy.order_seed(ctx, "an operator ordered it");
                })
            }
            Command::BackupMark { group } => {
                self.for_each(group.as_deref(), "marked as backed up", |Group { store, .. }| {
                    store.source_state.backed_up = store.last().generation;
                    store.save_source_state(ctx);
                })
            }
            other => unreachable!("{other:?} is not asked of groups"),
        }
    }

    /// What is done to one group, or to all: `what` is told of each.
    fn for_each(&mut self, group: Option<&str>, what: &str, mut act: impl FnMut(&mut Group)) -> Reply {
        let mut done = Vec::new();
        for found in &mut self.each {
            if group.is_none_or(|g| g == found.store.name) {
                act(found);
                done.push(found.store.name.clone());
            }
        }
        if done.is_empty() {
            Reply::Denied("no such storage group".into())
        } else {
            Reply::Done(format!("{}: {what}", done.join(", ")))
        }
    }

    /// One round.
    pub fn drive(&mut self, ctx: &mut Ctx<Pending>, streams: &mut PeerStreams, cluster: &Snapshot<'_>, used: Use) {
        let roles = self.roles(cluster, used);
        self.note_generated(ctx, cluster, used);
        let peer = cluster.member_heartbeat();
        let peer = |g: usize| peer.and_then(|v| Some(v.groups.get(g)?.replayed));
        let mut reconnect = false;
        let mut out = Vec::new();
        for (g, (group, role)) in self.each.iter_mut().zip(roles).enumerate() {
            group.drive(ctx, &self.settings, (role, used), &mut reconnect, &mut out);
            if let Some(elsewhere) = peer(g) {
                group.truncate(ctx, elsewhere, self.settings.circular);
            }
        }
        if reconnect {
            streams.reset(ctx, cluster.peer);
            self.disconnected(ctx);
        }
        send_to_source(ctx, streams, cluster.peer, out);
        self.check(ctx, cluster);
    }

    /// What must be so whenever the groups were looked after. A copy that is Healthy was compared with what is served here under
    /// this appointment, so it has inspected nothing that was not closed here. Of any other one that cannot be said: it may hold
    /// logs of another history, or of another life of this node.
    fn check(&self, ctx: &Ctx<Pending>, cluster: &Snapshot<'_>) {
        let view = cluster.member_heartbeat().filter(|v| v.id == cluster.record.id);
        let Some(view) = view.filter(|_| cluster.is_owner() && !NOT_INSPECTED.iter().any(|bug| ctx.plays(*bug))) else {
            return;
        };
        for (store, copy) in self.stores().zip(&view.groups).filter(|(s, _)| s.mounted()) {
            let generated = store.last().generation;
            assert!(
                copy.status != CopyStatus::Healthy || copy.inspected <= generated,
                "a Healthy copy has inspected at most what was generated: {} of {generated} in {}",
                copy.inspected,
                store.name
            );
        }
    }

    /// Who each group's source is.
    fn roles(&self, cluster: &Snapshot<'_>, used: Use) -> Vec<Role> {
        let record = cluster.record;
        let serving = cluster.member_heartbeat().filter(|v| {
            let appointed = v.service_epoch != 0 && v.service_epoch == record.owner_epoch;
            appointed && record.owner == v.from && used == Use::None
        });
        let role = |g: usize| match serving {
            _ if used == Use::Salvages => Role::Salvage(record.served(g)),
            Some(v) if v.groups.get(g).is_some_and(|g| g.mounted) => Role::Follow,
            _ => Role::None,
        };
        (0..self.each.len()).map(role).collect()
    }

    /// Which logs the source has closed is known from whatever was heard of it, whoever has a majority now.
    fn note_generated(&mut self, ctx: &mut Ctx<Pending>, cluster: &Snapshot<'_>, used: Use) {
        let record = cluster.record;
        let heartbeat = cluster.last_heartbeat.filter(|v| v.service_epoch != 0);
        for (g, store) in self.each.iter_mut().map(|g| &mut g.store).enumerate() {
            let source = heartbeat.filter(|v| {
                let appointed = record.owner == v.from && v.service_epoch == record.owner_epoch;
                appointed || v.service_epoch == record.served(g)
            });
            let Some(v) = source.and_then(|v| v.groups.get(g)).filter(|v| v.mounted) else {
                continue;
            };
            let follows = store.recovered() && store.stream.is_some() && !store.mounted() && !store.is_mounting();
            let known = store.source_state.generated;
            // A heartbeat from before the source closed its last log takes nothing back from whoever is about to mount.
            let news = v.generated > known || (v.generated < known && used != Use::Salvages);
            if follows && news {
                store.source_state.generated = v.generated;
                store.save_source_state(ctx);
            }
        }
    }
}

impl Group {
    /// A completion that concerns this group alone.
    fn on_outcome(&mut self, ctx: &mut Ctx<Pending>, what: store::Outcome) {
        let Self { store, copy, .. } = self;
        match what {
            store::Outcome::Replayed(generation) => {
                let group = store.name.clone();
                ctx.event(EventKind::CopyReplayed { group, generation });
            }
            store::Outcome::ReplayFailed(why) | store::Outcome::MountFailed(why) => {
                store.report_trouble(ctx, &why, None);
                if !store.mounted() {
                    copy.begin_again(ctx);
                }
            }
            store::Outcome::NoRoom(why) => {
                store.report_trouble(ctx, &why, Some(CopyFault::DiskFull));
                copy.begin_again(ctx);
            }
            // A file of this node is not what it was. Who serves goes on and repairs it; a copy fetches it again, or has failed.
            store::Outcome::Damaged(_, why) if store.mounted() => {
                let group = store.name.clone();
                ctx.event(EventKind::DatabaseDamaged { group, why });
            }
            store::Outcome::Damaged(part, why) => copy.damaged(ctx, store, part, &why),
            store::Outcome::Mounted | store::Outcome::Landed(_) | store::Outcome::Closed(_) => {}
        }
    }

    /// One round: copies, replays, looks at its files, mends them.
    fn drive(
        &mut self,
        ctx: &mut Ctx<Pending>,
        settings: &Settings,
        (role, used): (Role, Use),
        reconnect: &mut bool,
        out: &mut Vec<Msg>,
    ) {
        let Self { store, copy, repair } = self;
        let probe_us = settings.status_probe_ms * 1000;
        store.recover_when_stale(ctx);
        out.extend(copy.drive(ctx, store, role, probe_us, reconnect));
        let status = copy.status(ctx.now.boot_us, store, probe_us);
        if !store.mounted() && used == Use::None {
            copy.report_status(ctx, store, status);
        }
        if store.mounted() {
            store.roll_when_idle(ctx, settings.idle_roll_ms * 1000);
            let through = store.last().generation.saturating_sub(settings.resilience_depth);
            store.replay_towards(ctx, through);
            store.compact(ctx);
        }
        if store.mounted() || (used == Use::None && !copy.busy() && !copy.seeds()) {
            store.scrub(ctx, settings.scrub_ms * 1000);
        }
        repair.drive(ctx, store, out);
    }

    /// Logs go that both databases have: the other one has replayed `elsewhere`.
    fn truncate(&mut self, ctx: &mut Ctx<Pending>, elsewhere: u64, circular: bool) {
        if self.store.recovered() && !self.copy.busy() && !self.copy.seeds() {
            self.store.truncate(ctx, elsewhere, circular);
        }
    }
}

/// The failure of a read that a planted bug takes for something else.
pub fn unread(ctx: &Ctx<Pending>, what: &Pending, result: &DiskResult) -> Option<DiskResult> {
    match (what, result) {
        (Pending::Group(_, Op::Recover(step)), DiskResult::Failed(_)) => step.unread(ctx),
        _ => None,
    }
}

/// Sends what copies and repairs want said to the source.
fn send_to_source(ctx: &mut Ctx<Pending>, streams: &mut PeerStreams, peer: &str, out: Vec<Msg>) {
    for msg in out {
        streams.send(ctx, peer, &msg);
    }
}
