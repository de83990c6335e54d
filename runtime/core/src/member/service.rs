//! The service group: who owns it, and its way online and offline on this node.
//!
//! Invariants:
//! * The service goes online only under an epoch in which the cluster's record, held by a majority, appoints this node, and
//!   each appointment is used by one life of the daemon only.
//! * It goes online only after the instant until which this node had promised the other one not to serve, and only with a
//!   valid lease; every answer needs a valid lease again.
//! * Without a valid lease it is not *Online*, and a moment later the service's address is not here any more
//!   ([`super::fence`]).
//! * A handoff ([`super::handoff`]) loses nothing.

use super::Member;
use super::handoff::HANDOFF_US;
use super::operator::Asker;
use super::salvage::{SALVAGE_ALL_US, SALVAGE_US};
use super::stage::{Appointment, Redelivery, Stage};
use crate::io::{AddressKind, Effect, Reply};
use crate::op::Pending;
use crate::planted::Bug;
use ccr_contract::config::DatabaseFailure;
use ccr_contract::event::{EventKind, OnlineCause};
use ccr_contract::status::Intent;

/// How long a resource that failed is left alone, in microseconds.
const FAILED_US: u64 = 15_000_000;
/// Between two requests to a hub for redelivery, in microseconds.
const REDELIVER_US: u64 = 2_000_000;

impl Member {
    /// Appointments up to this one are used up. A node whose record was lost knows from its logs in which epochs it has served.
    pub(super) fn last_used_epoch(&self) -> u64 {
        self.service.last_used_epoch.max(self.history().unwrap_or(u64::MAX))
    }

    pub(super) fn drive_service(&mut self) {
        self.schedule();
        self.drive_ending();
        let record = self.cluster.record();
        let started = record.intent == Intent::Started || self.ctx.plays(Bug::ServeThoughStopped);
        let appointed = self.ending.is_none()
            && self.cluster.is_up()
            && self.cluster.committed()
            && record.owner == self.config.node
            && started
            && record.owner_epoch > self.last_used_epoch();
        let epoch = record.owner_epoch;
        let still = self.cluster.is_up()
            && record.owner == self.config.node
            && record.owner_epoch == self.service.epoch()
            && started;
        if self.service.is_engaged() && !still {
            self.leave();
        }
        if self.service.stage == Stage::Online && self.cluster.service_network_failed() {
            let why = "the network of the service has failed on this node";
            self.report_resource_failed("service address", why);
            self.go_offline(why);
            // This appointment is used up; what comes next is for the leader to say.
            return self.resource_failed();
        }
        self.keep_address();
        if self.service.stage != Stage::Online {
            self.refuse_move("the service is not Online any more");
        }
        match self.service.stage.clone() {
            Stage::Off | Stage::Shipped | Stage::Failed { .. } if appointed => {
                self.service.appointment = Some(Appointment {
                    epoch,
                    since: self.ctx.now.boot_us,
                    refused: false,
                    forced_mount: false,
                    redelivery: Redelivery::NotAsked,
                });
                self.service.stage = Stage::Waiting;
                let clean = self.cluster.record().clean;
                let why = if clean {
                    OnlineCause::Handoff
                } else {
                    OnlineCause::FailoverOrStart
                };
                let epoch = self.reported_epoch();
                self.ctx.event(EventKind::OnlinePending { why, epoch });
                self.drive_service();
            }
            Stage::Waiting => self.waiting(),
            Stage::Salvaging { until, have, end } => self.salvaging(until, have, end),
            Stage::Mounting => self.mounting(),
            Stage::Ready => self.ready(),
            Stage::Online => self.online(),
            Stage::Draining { to, asker, since } => self.draining(to, asker, since),
            Stage::Closing { since } => self.closing(since),
            Stage::Released { to, asker, since } => self.released(&to, asker, since),
            Stage::Shipped if self.cluster.record().sole_copy.is_none() => self.service.stage = Stage::Off,
            Stage::Failed { retry_at } => {
                if self.ctx.due(retry_at) {
                    self.service.stage = Stage::Off;
                }
            }
            Stage::Off | Stage::Shipped | Stage::Address => {}
        }
        self.ask_hubs();
        if let Some((asker, reply)) = self.service.finished.take() {
            self.answer(asker, reply);
        }
        self.check_service();
    }

    /// What must be so whenever the service was looked after.
    fn check_service(&self) {
        let service = &self.service;
        assert_eq!(
            service.is_engaged(),
            service.appointment.is_some(),
            "an appointment is in use exactly while the service is here: {:?}",
            service.stage
        );
        let record = self.cluster.record();
        let mine = self.cluster.is_up() && record.owner == self.config.node && record.owner_epoch == service.epoch();
        assert!(
            !service.serves() || mine,
            "who serves is in a cluster with a majority, and was appointed by its record: {record:?}"
        );
    }

    fn report_resource_failed(&mut self, resource: &str, why: &str) {
        let (resource, why) = (resource.to_owned(), why.to_owned());
        let epoch = self.reported_epoch();
        self.ctx.event(EventKind::ResourceFailed { resource, why, epoch });
    }

    /// A resource of the service failed here. The other member is asked first; where that cannot help, this one tries again.
    fn resource_failed(&mut self) {
        let retry_at = self.ctx.now.boot_us + FAILED_US;
        self.service.stage = Stage::Failed { retry_at };
        self.ctx.wake_at(retry_at);
    }

    fn waiting(&mut self) {
        let recovered = self.stores.iter().all(|s| s.recovered() && s.quiet());
        let busy = self.copies.iter().any(super::Copy::busy);
        if !recovered || busy || !self.ctx.due(self.cluster.safe_to_serve_at()) {
            return;
        }
        let missing = self
            .stores
            .iter()
            .any(|s| s.source_state.generated > s.last().generation);
        // After a handoff nothing can be left over there.
        let left = !self.cluster.record().clean && (0..self.stores.len()).any(|g| !self.has_all(g));
        let somewhere = (missing || left) && self.cluster.reaches_peer(&mut self.ctx);
        let now = self.ctx.now.boot_us;
        let until = now + if somewhere { SALVAGE_US } else { 0 };
        self.service.stage = Stage::Salvaging {
            until,
            have: self.generations(),
            end: now + SALVAGE_ALL_US,
        };
        self.ctx.wake_at(now);
    }

    /// How many logs of a group are lost, and whether it may be mounted with that loss.
    pub(super) fn dial(&self, g: usize) -> (u64, Result<(), String>) {
        let (store, record) = (&self.stores[g], self.cluster.record());
        let lost = store.source_state.generated.saturating_sub(store.last().generation);
        // After a handoff nothing is missing; if something is, it was none.
        let tolerated = if record.clean {
            0
        } else {
            self.cluster.settings().dial.tolerated()
        };
        let forced = self.service.accepts_loss();
        let open_damage = store.open_damage.as_ref().filter(|_| !forced);
        let verdict = match self.copies[g].mountable(store, self.service.accepts_loss()) {
            Err(why) => Err(why),
            Ok(()) if let Some(why) = store.held(self.ctx.now.boot_us) => Err(why.to_owned()),
            Ok(()) if let Some(why) = open_damage => Err(why.clone()),
            Ok(()) if store.stream.is_none() && record.served(g) > 0 => Err("there is no database on this node".into()),
            Ok(())
                if store.source_state.verified < record.served(g)
                    && !self.service.accepts_loss()
                    && !self.ctx.plays(Bug::UnreadSourceIsNone) =>
            {
                Err(format!(
                    "the copy was never compared with the logs of epoch {}",
                    record.served(g)
                ))
            }
            Ok(()) if self.ctx.plays(Bug::MountBeyondDial) => Ok(()),
            Ok(()) if self.held_elsewhere(g) && !self.service.accepts_loss() => Err(format!(
                "only {} has all that was acknowledged before the service was stopped",
                self.cluster.peer_name()
            )),
            Ok(()) if lost > tolerated && !self.service.accepts_loss() => {
                Err(format!("{lost} logs are lost, {tolerated} are tolerated"))
            }
            Ok(()) => Ok(()),
        };
        (lost, verdict)
    }

    /// The dial: each group is mounted if no more is lost than is tolerated.
    pub(super) fn mount_all(&mut self) {
        if self.copies.iter().any(super::Copy::busy) || self.stores.iter().any(|s| !s.quiet()) {
            return;
        }
        self.service.stage = Stage::Mounting;
        let was_refused = std::mem::replace(&mut self.service.appointment().refused, false);
        let tolerated = self.cluster.settings().dial.tolerated();
        let epoch = self.service.epoch();
        for g in 0..self.stores.len() {
            if self.stores[g].mounted() || self.stores[g].is_mounting() {
                continue;
            }
            let (lost, verdict) = self.dial(g);
            if let Err(why) = verdict {
                self.service.appointment().refused = true;
                if !was_refused {
                    self.ctx.event(EventKind::DialRefused {
                        group: self.stores[g].name.clone(),
                        lost,
                        tolerated,
                        epoch,
                        why,
                    });
                }
                continue;
            }
            let store = &mut self.stores[g];
            if lost > 0 {
                self.ctx.event(EventKind::CopyLost {
                    group: store.name.clone(),
                    from: store.last().generation + 1,
                    to: store.source_state.generated,
                    lost,
                    epoch,
                });
            }
            store.source_state.generated = store.last().generation;
            store.source_state.suspended = false;
            store.source_state.broken = false;
            store.source_state.common = None;
            store.source_state.reseed = false;
            store.source_state.verified = epoch;
            store.mount(&mut self.ctx, epoch);
            store.save_source_state(&mut self.ctx);
        }
    }

    fn mounting(&mut self) {
        if self.stores.iter().any(crate::store::Store::is_mounting) {
            return;
        }
        let all = self.stores.iter().all(crate::store::Store::mounted);
        let appointment = self.service.appointment();
        appointment.refused |= !all;
        let ms = (self.ctx.now.boot_us - appointment.since) / 1000;
        if self.stores.iter().any(crate::store::Store::mounted) {
            let epoch = self.reported_epoch();
            self.ctx.event(EventKind::Mounted { ms, epoch });
        }
        self.service.stage = Stage::Address;
        let which = AddressKind::Service;
        self.ctx.address(Pending::Address(which, true), which, true);
    }

    pub(super) fn on_address(&mut self, which: AddressKind, up: bool, result: Result<(), String>) {
        if let Err(why) = result {
            let resource = match which {
                AddressKind::Service => "service address",
                AddressKind::Cluster => "cluster address",
            };
            self.report_resource_failed(resource, &why);
            if which == AddressKind::Service && up && self.awaits_address() {
                self.go_offline(&format!("the address cannot be had: {why}"));
                self.resource_failed();
            }
            return;
        }
        if which == AddressKind::Service && up {
            if self.service.stage == Stage::Address {
                self.service.stage = Stage::Ready;
            }
            self.address_is_back();
        }
    }

    fn ready(&mut self) {
        // That this node has mounted must be known to a majority before anything is acknowledged: whoever takes over later
        // must know with whose logs to compare its own.
        let epoch = self.service.epoch();
        let record = self.cluster.record();
        let recorded = self.stores.iter().all(|s| !s.mounted() || record.served(s.at) == epoch);
        let here = self.service.address.is_here();
        // A promise that was given while the databases were mounted is kept as well.
        let free = self.ctx.due(self.cluster.safe_to_serve_at());
        if !recorded || !here || !free || !self.cluster.committed() || !self.cluster.lease_valid(self.ctx.now) {
            return;
        }
        self.service.stage = Stage::Online;
        let appointment = self.service.appointment();
        let (refused, ms) = (appointment.refused, (self.ctx.now.boot_us - appointment.since) / 1000);
        let epoch = self.reported_epoch();
        self.ctx.event(if refused {
            EventKind::PartiallyOnline { ms, epoch }
        } else {
            EventKind::Online { ms, epoch }
        });
        if self.cluster.record().redeliver && !refused {
            let (left, ask_at) = (self.service.hubs.iter().cloned().collect(), 0);
            self.service.appointment().redelivery = Redelivery::Asked { left, ask_at };
        }
    }

    /// Online with a database that was refused: it is mounted as soon as its logs are there, or an operator says so.
    fn online(&mut self) {
        self.verifying();
        let bad = self.stores.iter().any(|s| s.bad.is_some());
        let free = self.service.verifying.is_none();
        if bad
            && free
            && self.config.settings.database_failure == DatabaseFailure::Move
            && self.ctx.due(self.service.move_at)
        {
            self.service.move_at = self.ctx.now.boot_us + HANDOFF_US;
            let to = self.cluster.peer_name().to_owned();
            return self.begin_move(to, "a log of the database is damaged".into(), Asker::Nobody);
        }
        if !self.service.partially() {
            return self.fail_back();
        }
        if let Some(at) = self
            .stores
            .iter()
            .filter_map(|s| s.held_until(self.ctx.now.boot_us))
            .min()
        {
            self.ctx.wake_at(at);
        }
        let ready = (0..self.stores.len()).any(|g| {
            let (store, copy) = (&self.stores[g], &self.copies[g]);
            !store.mounted() && copy.is_idle() && store.quiet() && self.dial(g).1.is_ok()
        });
        if !ready {
            self.service.spare_until = None;
        } else if !self.spares() {
            self.mount_all();
        }
    }

    fn ask_hubs(&mut self) {
        if self.service.stage != Stage::Online {
            return;
        }
        let Appointment { epoch, redelivery, .. } =
            self.service.appointment.as_mut().expect("online by an appointment");
        let Redelivery::Asked { left, ask_at } = redelivery else {
            return;
        };
        if !left.is_empty() && self.ctx.due(*ask_at) {
            *ask_at = self.ctx.now.boot_us + REDELIVER_US;
            self.ctx.wake_at(*ask_at);
            let epoch = *epoch;
            for hub in &*left {
                self.streams
                    .send(&mut self.ctx, hub, &crate::wire::Msg::Redeliver { epoch });
            }
        }
    }

    /// Nothing is acknowledged any more, at once; then everything goes down.
    pub(super) fn go_offline(&mut self, why: &str) {
        self.go_offline_so(why, false);
    }

    /// The same; `orderly` where what was acknowledged is on the other member, or the record says who alone has it.
    pub(super) fn go_offline_so(&mut self, why: &str, orderly: bool) {
        let was_up = matches!(
            self.service.stage,
            Stage::Ready | Stage::Online | Stage::Address | Stage::Draining { .. }
        );
        self.service.spare_until = None;
        self.ctx.emit(Effect::CloseClients);
        self.clients.forget();
        for store in &mut self.stores {
            store.dismount();
        }
        if was_up {
            let which = AddressKind::Service;
            self.ctx.address(Pending::Address(which, false), which, false);
        }
        if let Stage::Draining { asker, .. } | Stage::Released { asker, .. } = &self.service.stage {
            let text = format!("the move was broken off: {why}");
            self.service.finished = Some((asker.clone(), Reply::Denied(text)));
        }
        self.report_offline(why, orderly);
        self.service.end_appointment();
        self.service.stage = Stage::Off;
    }

    pub(super) fn report_offline(&mut self, why: &str, orderly: bool) {
        let (why, epoch) = (why.to_owned(), self.reported_epoch());
        self.ctx.event(EventKind::Offline { why, orderly, epoch });
    }

    pub(super) fn report_refused(&mut self, to: &str, why: &str) {
        let (to, why) = (to.to_owned(), why.to_owned());
        let epoch = self.reported_epoch();
        self.ctx.event(EventKind::MoveRefused { to, why, epoch });
    }

    /// The epoch in which the service is here; where it is not, the cluster's.
    pub(super) fn reported_epoch(&self) -> u64 {
        let appointment = self.service.appointment.as_ref();
        appointment.map_or(self.cluster.record().id.epoch, |a| a.epoch)
    }
}
