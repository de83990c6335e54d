//! The service group: its way online and offline on this node.
//!
//! Invariants:
//! * The service goes online only under an epoch in which the cluster's record, held by a majority, appoints this node, and
//!   each appointment is used by one life of the daemon only.
//! * It goes online only after the instant until which this node had promised the other one not to serve, and only with a
//!   valid lease; every answer needs a valid lease again.
//! * Without a valid lease it is not *Online*, and a moment later the service's address is not here any more ([`fence`]).
//! * A handoff ([`handoff`]) loses nothing.

mod fence;
mod handoff;
mod orderly;
mod salvage;
mod schedule;
mod stage;
mod status;
mod verify;

use super::asker::Asker;
use super::groups::{Groups, Mount, Use};
use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::io::{AddressKind, Reply};
use crate::links::PeerStreams;
use crate::op::Pending;
use crate::planted::Bug;
use crate::record::Record;
use crate::store::Store;
use crate::wire::Msg;
use ccr_contract::config::{Config, DatabaseFailure};
use ccr_contract::event::{EventKind, OnlineCause};
use ccr_contract::status::Intent;
use fence::Address;
pub use handoff::{HANDOFF_US, MoveOrder};
use stage::{Appointment, Redelivery, Stage, Unanswered};

/// How long a resource that failed is left alone, in microseconds.
const FAILED_US: u64 = 15_000_000;
/// Between two requests to a hub for redelivery, in microseconds.
const REDELIVER_US: u64 = 2_000_000;

/// The service group as this node has it.
#[derive(Debug)]
pub struct Service {
    stage: Stage,
    /// The appointment in use: there is one exactly while this node [is engaged](Stage::is_engaged).
    appointment: Option<Appointment>,
    /// Appointments up to this one are used up: they belonged to an earlier life, or ended with a loss of quorum.
    last_used_epoch: u64,
    /// The address of a service that is up.
    address: Address,
    /// When a move away from a damaged database may be tried next.
    move_at: u64,
    /// Since when the preferred member could have the service back.
    preferred_well_since: Option<u64>,
    unanswered: Option<Unanswered>,
    members: Vec<String>,
    hubs: Vec<String>,
    failback: bool,
    database_failure: DatabaseFailure,
    /// The resource that failed here last, and why.
    failed_resource: String,
}

/// What the service looks at and acts through when something has happened.
pub struct Round<'a> {
    /// Time and effects.
    pub ctx: &'a mut Ctx<Pending>,
    /// What the cluster layer says.
    pub cluster: Snapshot<'a>,
    /// The groups that it serves.
    pub groups: &'a mut Groups,
    /// Streams to the other nodes.
    pub streams: &'a mut PeerStreams,
    /// Whether the daemon was told to end.
    pub ends: bool,
    /// What whoever is beside the service must know of it.
    pub outcomes: Vec<Outcome>,
}

/// What became of the service, for the parts beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Clients were cut off: nobody waits for an answer any more.
    ClientsCut,
    /// It went offline in order.
    WentOffline {
        /// Whether the other member has all that was acknowledged.
        given: bool,
    },
}

impl Service {
    /// Nothing runs.
    pub fn new(config: &Config) -> Self {
        Self {
            stage: Stage::Off,
            appointment: None,
            last_used_epoch: u64::MAX,
            address: Address::HERE,
            move_at: 0,
            preferred_well_since: None,
            unanswered: None,
            members: config.members.iter().map(|m| m.name.clone()).collect(),
            hubs: config.hubs.iter().map(|h| h.name.clone()).collect(),
            failback: config.settings.failback,
            database_failure: config.settings.database_failure,
            failed_resource: String::new(),
        }
    }
    /// The record was read from the disk: appointments of earlier lives do not count.
    pub fn start(&mut self, record: &Record) {
        self.last_used_epoch = record.owner_epoch;
    }

    /// The appointment under which this node serves or is about to; 0 without.
    pub fn epoch(&self) -> u64 {
        self.appointment.as_ref().map_or(0, |a| a.epoch)
    }
    /// The epoch in which the service is here; where it is not, the cluster's.
    pub fn reported_epoch(&self, cluster: &Snapshot<'_>) -> u64 {
        let appointment = self.appointment.as_ref();
        appointment.map_or(cluster.record.id.epoch, |a| a.epoch)
    }
    /// Appointments up to this one are used up. A node whose record was lost knows from its logs in which epochs it has served.
    fn last_used_epoch(&self, groups: &Groups) -> u64 {
        self.last_used_epoch.max(groups.history().unwrap_or(u64::MAX))
    }
    /// The appointment of a node that is engaged.
    fn appointment(&mut self) -> &mut Appointment {
        let stage = &self.stage;
        match &mut self.appointment {
            Some(appointment) => appointment,
            None => unreachable!("nobody was appointed, and the service is {stage:?}"),
        }
    }
    /// The appointment in use is used up.
    fn end_appointment(&mut self) {
        if let Some(ended) = self.appointment.take() {
            self.last_used_epoch = self.last_used_epoch.max(ended.epoch);
        }
    }
    /// Whether an operator has accepted the loss.
    fn accepts_loss(&self) -> bool {
        self.appointment.as_ref().is_some_and(|a| a.forced_mount)
    }
    /// Whether clients are answered, the lease permitting.
    pub fn serves(&self) -> bool {
        self.stage.serves()
    }
    /// Whether this node is on its way to serve, or serves.
    pub fn is_engaged(&self) -> bool {
        self.stage.is_engaged()
    }
    /// What it does with the groups.
    pub fn uses_groups(&self) -> Use {
        let closes = matches!(self.stage, Stage::Closing { .. });
        let refused = self.partially() && !self.accepts_loss() && !closes;
        match self.stage {
            Stage::Salvaging { .. } => Use::Salvages,
            _ if refused => Use::Salvages,
            _ if self.is_engaged() => Use::Engaged,
            _ => Use::None,
        }
    }
    fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed { .. })
    }
    /// Whether this node needs grants.
    pub fn wants_lease(&self) -> bool {
        self.stage.wants_lease()
    }
    /// Whether the service was handed over and awaits its new owner.
    pub fn is_released(&self) -> bool {
        matches!(self.stage, Stage::Released { .. })
    }
    /// Whether it was stopped in order, and the record does not say so yet.
    pub fn is_shipped(&self) -> bool {
        self.stage == Stage::Shipped
    }
    /// Whether whoever is appointed next finds everything on the other member: told in heartbeats.
    pub fn has_given_all(&self) -> bool {
        matches!(self.stage, Stage::Released { whole: true, .. }) || self.is_shipped()
    }
    /// The epoch in which it was up last, or is, and whether the other member has all that was acknowledged in it; 0 where it was
    /// not up since the last appointment that counts.
    pub fn served(&self) -> (u64, bool) {
        match self.stage {
            Stage::Online | Stage::Verifying(_) | Stage::Draining { .. } | Stage::Closing { .. } => {
                (self.epoch(), false)
            }
            Stage::Released { whole, .. } => (self.last_used_epoch, whole),
            Stage::Shipped => (self.last_used_epoch, true),
            _ => (0, false),
        }
    }
    /// Whether some database is not mounted although the service is up.
    pub fn partially(&self) -> bool {
        self.appointment.as_ref().is_some_and(|a| a.refused)
    }
    /// Whether every hub has said in this appointment that it delivers again.
    pub fn all_redeliver(&self) -> bool {
        let redelivery = self.appointment.as_ref().map(|a| &a.redelivery);
        let all = matches!(redelivery, Some(Redelivery::Asked { left, .. }) if left.is_empty());
        self.serves() && all
    }

    /// A hub has queued again what it had.
    pub fn redelivered(&mut self, ctx: &mut Ctx<Pending>, hub: &str, epoch: u64, count: u64) {
        let asked = self.appointment.as_mut().filter(|a| a.epoch == epoch);
        if let Some(Redelivery::Asked { left, .. }) = asked.map(|a| &mut a.redelivery)
            && left.remove(hub)
        {
            ctx.event(EventKind::RedeliveryAsked {
                hub: hub.to_owned(),
                epoch,
                count,
                ok: true,
            });
        }
    }

    /// An operator mounts what is dismounted, whatever is lost.
    pub fn accept_loss(&mut self, r: &mut Round<'_>, group: Option<&str>) -> Reply {
        if group.is_some_and(|g| r.groups.stores().all(|s| s.name != g)) {
            return Reply::Denied("no such storage group".into());
        }
        if let Some(why) = r.groups.never_mountable() {
            return Reply::Denied(format!("not even with a loss: {why}"));
        }
        if !self.partially() {
            return Reply::Denied("no database is waiting to be mounted".into());
        }
        let lost = r.groups.losses(r.ctx, &r.cluster, self.accepts_loss());
        self.appointment().forced_mount = true;
        let epoch = self.reported_epoch(&r.cluster);
        r.ctx.event(EventKind::LossAccepted { epoch });
        Reply::Done(format!("mounting whatever is lost: {lost}"))
    }

    /// One round: leaves what is not this node's, and goes on with what is.
    pub fn drive(&mut self, r: &mut Round<'_>) {
        if r.ends && r.cluster.up {
            self.end_in_order(r);
        }
        let record = r.cluster.record;
        let started = record.intent == Intent::Started || r.ctx.plays(Bug::ServeThoughStopped);
        let mine = r.cluster.up && r.cluster.is_owner() && started;
        let appointed = mine && !r.ends && r.cluster.committed && record.owner_epoch > self.last_used_epoch(r.groups);
        if self.is_engaged() && !(mine && record.owner_epoch == self.epoch()) {
            self.leave(r);
        }
        if self.serves() && r.cluster.service_network_failed {
            let why = "the network of the service has failed on this node";
            self.report_resource_failed(r, "service address", why);
            // This appointment is used up; what comes next is for the leader to say.
            return self.fail(r, why);
        }
        if self.stage.keeps_address() {
            let epoch = self.reported_epoch(&r.cluster);
            self.address.keep(r.ctx, &r.cluster, epoch);
        } else {
            self.address = Address::HERE;
        }
        self.refuse_broken_verification(r);
        self.go_on(r, appointed);
        self.ask_hubs(r);
        self.refuse_broken_move(r.ctx);
        self.check(&r.cluster);
    }

    /// The next step of the stage; `appointed` where an appointment of this node waits to be used.
    fn go_on(&mut self, r: &mut Round<'_>, appointed: bool) {
        match self.stage.clone() {
            Stage::Off | Stage::Shipped | Stage::Failed { .. } if appointed => {
                self.begin(r);
                self.waiting(r);
            }
            Stage::Waiting => self.waiting(r),
            Stage::Salvaging { until, have, end } => self.salvaging(r, until, have, end),
            Stage::Mounting => self.mounting(r),
            Stage::Ready => self.ready(r),
            Stage::Online | Stage::Verifying(_) => self.online(r),
            Stage::Draining { to, asker, since } => self.draining(r, to, asker, since),
            Stage::Closing { since } => self.closing(r, since),
            Stage::Released { to, asker, since, .. } => self.released(r, &to, asker, since),
            Stage::Shipped if r.cluster.record.sole_copy.is_none() => self.stage = Stage::Off,
            Stage::Failed { retry_at } => {
                if r.ctx.due(retry_at) {
                    self.stage = Stage::Off;
                }
            }
            Stage::Off | Stage::Shipped | Stage::Address => {}
        }
    }

    /// What must be so whenever the service was looked after.
    fn check(&self, cluster: &Snapshot<'_>) {
        assert_eq!(
            self.is_engaged(),
            self.appointment.is_some(),
            "an appointment is in use exactly while the service is here: {:?}",
            self.stage
        );
        let mine = cluster.up && cluster.is_owner() && cluster.record.owner_epoch == self.epoch();
        assert!(
            !self.serves() || mine,
            "who serves is in a cluster with a majority, and was appointed by its record: {:?}",
            cluster.record
        );
    }

    /// The record appoints this node.
    fn begin(&mut self, r: &mut Round<'_>) {
        let record = r.cluster.record;
        self.appointment = Some(Appointment::new(record.owner_epoch, r.ctx.now.boot_us));
        self.stage = Stage::Waiting;
        let why = if record.clean {
            OnlineCause::Handoff
        } else {
            OnlineCause::FailoverOrStart
        };
        let epoch = self.reported_epoch(&r.cluster);
        r.ctx.event(EventKind::OnlinePending { why, epoch });
    }

    /// The dial: each group is mounted if no more is lost than is tolerated.
    fn mount_all(&mut self, r: &mut Round<'_>) {
        if !r.groups.are_quiet() {
            return;
        }
        self.stage = Stage::Mounting;
        let appointment = self.appointment();
        let how = Mount {
            epoch: appointment.epoch,
            loss_accepted: appointment.forced_mount,
            reports: !appointment.refused,
        };
        appointment.refused = r.groups.mount(r.ctx, &r.cluster, how);
    }

    fn mounting(&mut self, r: &mut Round<'_>) {
        if r.groups.stores().any(Store::is_mounting) {
            return;
        }
        let all = r.groups.stores().all(Store::mounted);
        let appointment = self.appointment();
        appointment.refused |= !all;
        let ms = (r.ctx.now.boot_us - appointment.since) / 1000;
        if r.groups.stores().any(Store::mounted) {
            let epoch = self.reported_epoch(&r.cluster);
            r.ctx.event(EventKind::Mounted { ms, epoch });
        }
        self.stage = Stage::Address;
        let which = AddressKind::Service;
        r.ctx.address(Pending::Address(which, true), which, true);
    }

    /// An address is up or down, or cannot be.
    pub fn on_address(&mut self, r: &mut Round<'_>, which: AddressKind, up: bool, result: Result<(), String>) {
        let awaited = which == AddressKind::Service && up;
        match result {
            Err(why) => {
                let resource = match which {
                    AddressKind::Service => "service address",
                    AddressKind::Cluster => "cluster address",
                };
                self.report_resource_failed(r, resource, &why);
                if awaited && (self.stage == Stage::Address || self.address.is_returning()) {
                    self.fail(r, &format!("the address cannot be had: {why}"));
                }
            }
            Ok(()) if awaited => {
                if self.stage == Stage::Address {
                    self.stage = Stage::Ready;
                }
                let epoch = self.reported_epoch(&r.cluster);
                self.address.came(r.ctx, epoch);
            }
            Ok(()) => {}
        }
    }

    fn ready(&mut self, r: &mut Round<'_>) {
        // That this node has mounted must be known to a majority before anything is acknowledged: whoever takes over later
        // must know with whose logs to compare its own.
        let (epoch, record) = (self.epoch(), r.cluster.record);
        let recorded = r.groups.stores().all(|s| !s.mounted() || record.served(s.at) == epoch);
        // A promise that was given while the databases were mounted is kept as well.
        let free = r.ctx.due(r.cluster.safe_to_serve_at);
        if !recorded || !self.address.is_here() || !free || !r.cluster.committed || !r.cluster.lease_valid {
            return;
        }
        self.stage = Stage::Online;
        let hubs = self.hubs.iter().cloned().collect();
        let appointment = self.appointment();
        let (refused, ms) = (appointment.refused, (r.ctx.now.boot_us - appointment.since) / 1000);
        r.ctx.event(if refused {
            EventKind::PartiallyOnline { ms, epoch }
        } else {
            EventKind::Online { ms, epoch }
        });
        if record.redeliver && !refused {
            appointment.redelivery = Redelivery::Asked { left: hubs, ask_at: 0 };
        }
    }

    /// Online with a database that was refused: it is mounted as soon as its logs are there, or an operator says so.
    fn online(&mut self, r: &mut Round<'_>) {
        self.verifying(r);
        let bad = r.groups.stores().any(|s| s.bad.is_some());
        let free = self.stage == Stage::Online;
        if bad && free && self.database_failure == DatabaseFailure::Move && r.ctx.due(self.move_at) {
            self.move_at = r.ctx.now.boot_us + HANDOFF_US;
            let to = r.cluster.peer.to_owned();
            return self.begin_move(r, MoveOrder::of(to, "a log of the database is damaged"), Asker::Nobody);
        }
        if !self.partially() {
            return self.fail_back(r);
        }
        let now = r.ctx.now.boot_us;
        if let Some(at) = r.groups.stores().filter_map(|s| s.held_until(now)).min() {
            r.ctx.wake_at(at);
        }
        if !r.groups.could_mount(r.ctx, &r.cluster, self.accepts_loss()) {
            self.appointment().spare_until = None;
        } else if !self.spares(r) {
            self.mount_all(r);
        }
    }

    fn ask_hubs(&mut self, r: &mut Round<'_>) {
        if !self.serves() {
            return;
        }
        let Appointment { epoch, redelivery, .. } = self.appointment();
        let Redelivery::Asked { left, ask_at } = redelivery else {
            return;
        };
        if !left.is_empty() && r.ctx.due(*ask_at) {
            *ask_at = r.ctx.now.boot_us + REDELIVER_US;
            r.ctx.wake_at(*ask_at);
            for hub in &*left {
                r.streams.send(r.ctx, hub, &Msg::Redeliver { epoch: *epoch });
            }
        }
    }

    fn report_offline(&self, r: &mut Round<'_>, why: &str, orderly: bool) {
        let (why, epoch) = (why.to_owned(), self.reported_epoch(&r.cluster));
        r.ctx.event(EventKind::Offline { why, orderly, epoch });
    }
    fn report_refused(&self, r: &mut Round<'_>, to: &str, why: &str) {
        let (to, why) = (to.to_owned(), why.to_owned());
        let epoch = self.reported_epoch(&r.cluster);
        r.ctx.event(EventKind::MoveRefused { to, why, epoch });
    }
    fn report_resource_failed(&mut self, r: &mut Round<'_>, resource: &str, why: &str) {
        self.failed_resource = format!("{resource}: {why}");
        let (resource, why) = (resource.to_owned(), why.to_owned());
        let epoch = self.reported_epoch(&r.cluster);
        r.ctx.event(EventKind::ResourceFailed { resource, why, epoch });
    }
}
