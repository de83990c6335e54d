//! What the service is on this node: its stage, and the appointment under which it is in it.

use super::operator::Asker;
use crate::ctx::Ctx;
use crate::io::Reply;
use crate::op::Pending;
use crate::record::Record;
use ccr_contract::config::Config;
use ccr_contract::event::EventKind;
use ccr_contract::status::ServiceState;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    Off,
    /// Until the other member's last lease is over for certain.
    Waiting,
    /// Looks for logs at the other member: so long without another one, with so many generations here, and then at the end.
    Salvaging {
        until: u64,
        have: u64,
        end: u64,
    },
    Mounting,
    /// The address is on its way.
    Address,
    /// Everything is up; the first valid lease makes it online.
    Ready,
    Online,
    Draining {
        to: String,
        asker: Asker,
        since: u64,
    },
    /// Going offline in order: what is open is closed, and where an operator stops the service, shipped.
    Closing {
        since: u64,
    },
    /// Stopped by an operator, and the copy has everything; the record does not say so yet.
    Shipped,
    /// Handed over; the other member is to be appointed.
    Released {
        to: String,
        asker: Asker,
        since: u64,
    },
    /// A resource failed here; it may be tried again then.
    Failed {
        retry_at: u64,
    },
}

/// An appointment of this node that is in use: the service is on its way up, or up, or on its way down.
#[derive(Debug)]
pub(super) struct Appointment {
    pub epoch: u64,
    /// When the service began to come online here.
    pub since: u64,
    /// Whether some database is not mounted although the service goes on.
    pub refused: bool,
    /// Mount whatever the loss: an operator said so.
    pub forced_mount: bool,
    pub redelivery: Redelivery,
}

/// What the hubs were asked in an appointment.
#[derive(Debug)]
pub(super) enum Redelivery {
    /// Nothing: nothing may be lost, or the service is not online yet.
    NotAsked,
    /// To deliver again.
    Asked {
        /// Hubs that have not said yet that they do.
        left: BTreeSet<String>,
        /// When they are asked again.
        ask_at: u64,
    },
}

/// The service group as this node has it.
#[derive(Debug)]
pub struct Service {
    pub(super) stage: Stage,
    /// The appointment in use: there is one exactly while this node [is engaged](Service::is_engaged).
    pub(super) appointment: Option<Appointment>,
    /// Appointments up to this one are used up: they belonged to an earlier life, or ended with a loss of quorum.
    pub(super) last_used_epoch: u64,
    pub(super) hubs: Vec<String>,
    /// Until then a mount with a loss waits for what the other member, which is heard, still has.
    pub(super) spare_until: Option<u64>,
    /// When a move away from a damaged database may be tried next.
    pub(super) move_at: u64,
    /// Since when the preferred member could have the service back.
    pub(super) preferred_well_since: Option<u64>,
    pub(super) finished: Option<(Asker, Reply)>,
    /// A move that waits for the verification of its target.
    pub(super) verifying: Option<super::verify::Verifying>,
    /// The address of a service that is up.
    pub(super) address: super::fence::Address,
}

impl Service {
    /// Nothing runs.
    pub fn new(config: &Config) -> Self {
        Self {
            stage: Stage::Off,
            appointment: None,
            last_used_epoch: u64::MAX,
            hubs: config.hubs.iter().map(|h| h.name.clone()).collect(),
            spare_until: None,
            move_at: 0,
            preferred_well_since: None,
            finished: None,
            verifying: None,
            address: super::fence::Address::HERE,
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
    /// The appointment of a node that is engaged.
    pub(super) fn appointment(&mut self) -> &mut Appointment {
        let stage = &self.stage;
        match &mut self.appointment {
            Some(appointment) => appointment,
            None => unreachable!("nobody was appointed, and the service is {stage:?}"),
        }
    }
    /// The appointment in use is used up.
    pub(super) fn end_appointment(&mut self) {
        if let Some(ended) = self.appointment.take() {
            self.last_used_epoch = self.last_used_epoch.max(ended.epoch);
        }
    }
    /// Whether an operator has accepted the loss.
    pub(super) fn accepts_loss(&self) -> bool {
        self.appointment.as_ref().is_some_and(|a| a.forced_mount)
    }
    /// Whether clients are answered, the lease permitting.
    pub fn serves(&self) -> bool {
        self.stage == Stage::Online
    }
    /// Whether this node is on its way to serve, or serves.
    pub fn is_engaged(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Off | Stage::Released { .. } | Stage::Shipped | Stage::Failed { .. }
        )
    }
    /// Whether the copies shall look for missing logs at the other member.
    pub fn salvages(&self) -> bool {
        let refused = self.partially() && !self.accepts_loss() && !self.closes();
        matches!(self.stage, Stage::Salvaging { .. }) || refused
    }
    /// Whether a resource failed here.
    pub fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed { .. })
    }
    /// Whether it goes offline in order.
    pub fn closes(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }
    /// Whether this node needs grants.
    pub fn wants_lease(&self) -> bool {
        matches!(
            self.stage,
            Stage::Ready | Stage::Online | Stage::Address | Stage::Draining { .. }
        )
    }
    /// Whether the service was handed over and awaits its new owner.
    pub fn is_released(&self) -> bool {
        matches!(self.stage, Stage::Released { .. })
    }
    /// Whether whoever is appointed next finds everything on the other member: told in heartbeats.
    pub fn has_given_all(&self) -> bool {
        self.is_released() || self.stage == Stage::Shipped
    }
    /// The state in the original's words, where the lease is valid and the address here: see [`super::Member::service_state`].
    pub(super) fn state(&self) -> ServiceState {
        match self.stage {
            Stage::Off | Stage::Shipped => ServiceState::Offline,
            Stage::Waiting | Stage::Salvaging { .. } | Stage::Mounting | Stage::Address | Stage::Ready => {
                ServiceState::OnlinePending
            }
            Stage::Online if self.partially() => ServiceState::PartiallyOnline,
            Stage::Online => ServiceState::Online,
            Stage::Draining { .. } | Stage::Closing { .. } | Stage::Released { .. } => ServiceState::OfflinePending,
            Stage::Failed { .. } => ServiceState::Failed,
        }
    }
    /// Whether some database is not mounted although the service is up.
    pub fn partially(&self) -> bool {
        self.appointment.as_ref().is_some_and(|a| a.refused)
    }
    /// An operator accepts the loss.
    pub fn force_mount(&mut self) {
        self.appointment().forced_mount = true;
    }
    /// Whether every hub has said in this appointment that it delivers again.
    pub fn all_redeliver(&self) -> bool {
        let redelivery = self.appointment.as_ref().map(|a| &a.redelivery);
        let all = matches!(redelivery, Some(Redelivery::Asked { left, .. }) if left.is_empty());
        self.stage == Stage::Online && all
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
}
