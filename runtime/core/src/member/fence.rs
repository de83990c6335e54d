//! The fence: what a service that is up does without a valid lease. It answers nobody, it is not *Online*, and it gives its
//! address away, before anybody else may serve: whoever granted the last lease waits for two seconds beyond its end
//! ([`crate::cluster::lease::MAX_UNSEEN_PAUSE_US`]). A lease that comes back within half a second, as behind a pause, leaves
//! the address where it is; later it is taken, and announced, anew.

use super::Member;
use super::stage::Stage;
use crate::io::AddressKind;
use crate::op::Pending;
use ccr_contract::event::EventKind;
use ccr_contract::status::ServiceState;

/// How long a service that is up keeps its address without a lease, in microseconds.
const KEPT_US: u64 = 500_000;

/// Where the address of a service that is up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// Here; since then without a valid lease, where that is so.
    Here { fenced_since: Option<u64> },
    /// Given away with the lease.
    Away,
    /// The lease was valid again, and the address is on its way; since then it is not.
    Returning { fenced_since: Option<u64> },
}

impl Address {
    /// Here, with a lease.
    pub const HERE: Self = Self::Here { fenced_since: None };

    pub fn is_here(self) -> bool {
        matches!(self, Self::Here { .. })
    }
}

impl Member {
    /// The state of the service here.
    pub(super) fn service_state(&self) -> ServiceState {
        let up = matches!(self.service.stage, Stage::Online);
        match self.service.address {
            _ if up && !self.cluster.lease_valid(self.ctx.now) => ServiceState::OfflinePending,
            Address::Away | Address::Returning { .. } if up => ServiceState::OnlinePending,
            _ => self.service.state(),
        }
    }

    /// The address goes with the lease, and comes back with it.
    pub(super) fn keep_address(&mut self) {
        let up = matches!(
            self.service.stage,
            Stage::Ready | Stage::Online | Stage::Draining { .. }
        );
        if !up {
            self.service.address = Address::HERE;
            return;
        }
        let (now, which) = (self.ctx.now, AddressKind::Service);
        if self.cluster.lease_valid(now) {
            let fenced_since = None;
            self.service.address = match self.service.address {
                Address::Here { .. } => Address::Here { fenced_since },
                Address::Returning { .. } => Address::Returning { fenced_since },
                Address::Away => {
                    self.ctx.address(Pending::Address(which, true), which, true);
                    Address::Returning { fenced_since }
                }
            };
            if let Some(end) = self.cluster.lease_ends() {
                self.ctx.wake_at(end.max(now.boot_us) + 1);
            }
            return;
        }
        let (Address::Here { fenced_since } | Address::Returning { fenced_since }) = &mut self.service.address else {
            return;
        };
        let since = *fenced_since.get_or_insert(now.boot_us);
        if self.ctx.due(since + KEPT_US) {
            self.service.address = Address::Away;
            self.ctx.address(Pending::Address(which, false), which, false);
            let why = "the lease is over: the address is given away".to_owned();
            let epoch = self.reported_epoch();
            self.ctx.event(EventKind::Fenced { why, epoch });
        }
    }

    /// Whether a service that is up, or coming up, waits for its address.
    pub(super) fn awaits_address(&self) -> bool {
        self.service.stage == Stage::Address || matches!(self.service.address, Address::Returning { .. })
    }

    /// The address is on the interface, and was announced.
    pub(super) fn address_is_back(&mut self) {
        if let Address::Returning { fenced_since } = self.service.address {
            self.service.address = Address::Here { fenced_since };
            let (why, epoch) = ("the lease is valid again".to_owned(), self.reported_epoch());
            self.ctx.event(EventKind::Resumed { why, epoch });
        }
    }
}
