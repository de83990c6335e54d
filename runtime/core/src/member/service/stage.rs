//! What the service is on this node: its stage, and the appointment under which it is in it.
//!
//! ```text
//!   Off → Waiting → Salvaging → Mounting → Address → Ready → Online ⇄ Verifying
//!    ↑                                                         │         │
//!    ├── Released ← (Closing) ← Draining ←─────────────────────┼─────────┘
//!    ├── Shipped  ←  Closing  ←────────────────────────────────┤
//!    └── Failed, or at once  ←─────────────────────────────────┘
//! ```

use super::verify::Verification;
use crate::io::Reply;
use crate::member::asker::Asker;
use ccr_contract::status::ServiceState;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
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
    /// Online, while the target of a move verifies its databases.
    Verifying(Verification),
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
        /// Whether the copy has everything: no database was dismounted.
        whole: bool,
    },
    /// A resource failed here; it may be tried again then.
    Failed {
        retry_at: u64,
    },
}

impl Stage {
    /// Whether clients are answered, the lease permitting.
    pub fn serves(&self) -> bool {
        matches!(self, Self::Online | Self::Verifying(_))
    }
    /// Whether this node is on its way to serve, serves, or is on its way down.
    pub fn is_engaged(&self) -> bool {
        !matches!(
            self,
            Self::Off | Self::Released { .. } | Self::Shipped | Self::Failed { .. }
        )
    }
    /// Whether the service may be up, so that it needs grants.
    pub fn wants_lease(&self) -> bool {
        self.serves() || matches!(self, Self::Ready | Self::Address | Self::Draining { .. })
    }
    /// Whether the address of the service is looked after: it is here, and goes with the lease.
    pub fn keeps_address(&self) -> bool {
        self.serves() || matches!(self, Self::Ready | Self::Draining { .. })
    }
    /// The state in the original's words, where the lease is valid and the address here; `partially` where a database is missing.
    pub fn state(&self, partially: bool) -> ServiceState {
        match self {
            Self::Off | Self::Shipped => ServiceState::Offline,
            Self::Waiting | Self::Salvaging { .. } | Self::Mounting | Self::Address | Self::Ready => {
                ServiceState::OnlinePending
            }
            Self::Online | Self::Verifying(_) if partially => ServiceState::PartiallyOnline,
            Self::Online | Self::Verifying(_) => ServiceState::Online,
            Self::Draining { .. } | Self::Closing { .. } | Self::Released { .. } => ServiceState::OfflinePending,
            Self::Failed { .. } => ServiceState::Failed,
        }
    }
}

/// An appointment of this node that is in use: the service is on its way up, or up, or on its way down.
#[derive(Debug)]
pub struct Appointment {
    pub epoch: u64,
    /// When the service began to come online here.
    pub since: u64,
    /// Whether some database is not mounted although the service goes on.
    pub refused: bool,
    /// Mount whatever the loss: an operator said so.
    pub forced_mount: bool,
    /// Until then a mount with a loss waits for what the other member, which is heard, still has.
    pub spare_until: Option<u64>,
    pub redelivery: Redelivery,
}

impl Appointment {
    /// One that nothing was done in.
    pub fn new(epoch: u64, now: u64) -> Self {
        Self {
            epoch,
            since: now,
            refused: false,
            forced_mount: false,
            spare_until: None,
            redelivery: Redelivery::NotAsked,
        }
    }
}

/// What the hubs were asked in an appointment.
#[derive(Debug)]
pub enum Redelivery {
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

/// Who waited for a stage that was left, until it is answered in the next round.
#[derive(Debug)]
pub enum Unanswered {
    /// For the verification of a move's target.
    Verification(Verification),
    /// For a move.
    Move(Asker, Reply),
}
