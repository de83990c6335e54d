//! The fence: what a service that is up does without a valid lease. It answers nobody, it is not *Online*, and it gives its
//! address away, before anybody else may serve: whoever granted the last lease waits for two seconds beyond its end
//! ([`crate::cluster::lease::MAX_UNSEEN_PAUSE_US`]). A lease that comes back within half a second, as behind a pause, leaves
//! the address where it is; later it is taken, and announced, anew.

use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::io::AddressKind;
use crate::op::Pending;
use ccr_contract::event::EventKind;

/// How long a service that is up keeps its address without a lease, in microseconds.
const KEPT_US: u64 = 500_000;

/// Where the address of a service that is up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
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
    pub fn is_returning(self) -> bool {
        matches!(self, Self::Returning { .. })
    }

    /// The address of a service that is up in `epoch` goes with the lease, and comes back with it.
    pub fn keep(&mut self, ctx: &mut Ctx<Pending>, cluster: &Snapshot<'_>, epoch: u64) {
        let (now, which) = (ctx.now.boot_us, AddressKind::Service);
        if cluster.lease_valid {
            let fenced_since = None;
            *self = match *self {
                Self::Here { .. } => Self::Here { fenced_since },
                Self::Returning { .. } => Self::Returning { fenced_since },
                Self::Away => {
                    ctx.address(Pending::Address(which, true), which, true);
                    Self::Returning { fenced_since }
                }
            };
            if let Some(end) = cluster.lease_ends {
                ctx.wake_at(end.max(now) + 1);
            }
            return;
        }
        let (Self::Here { fenced_since } | Self::Returning { fenced_since }) = self else {
            return;
        };
        let since = *fenced_since.get_or_insert(now);
        if ctx.due(since + KEPT_US) {
            *self = Self::Away;
            ctx.address(Pending::Address(which, false), which, false);
            let why = "the lease is over: the address is given away".to_owned();
            ctx.event(EventKind::Fenced { why, epoch });
        }
    }

    /// The address is on the interface, and was announced.
    pub fn came(&mut self, ctx: &mut Ctx<Pending>, epoch: u64) {
        if let Self::Returning { fenced_since } = *self {
            *self = Self::Here { fenced_since };
            let why = "the lease is valid again".to_owned();
            ctx.event(EventKind::Resumed { why, epoch });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Effect;
    use crate::member::fixture::{EPOCH, Facts, at, ctx, told};

    /// Keeps the address at `ms`, and says which way it was sent, and what was told.
    fn keep(address: &mut Address, ctx: &mut Ctx<Pending>, ms: u64, lease_valid: bool) -> (Option<bool>, Vec<String>) {
        at(ctx, ms);
        let mut facts = Facts::new();
        facts.lease_valid = lease_valid;
        address.keep(ctx, &facts.snapshot(), EPOCH);
        let effects = ctx.take_effects();
        let sent = effects.iter().find_map(|e| match e {
            Effect::Address { up, .. } => Some(*up),
            _ => None,
        });
        (sent, told(&effects).iter().map(|e| e.name().to_owned()).collect())
    }

    #[test]
    fn it_goes_half_a_second_behind_the_lease_and_comes_back_with_it() {
        let (mut address, mut ctx) = (Address::HERE, ctx(0));
        let none = || (None, Vec::new());
        assert_eq!(keep(&mut address, &mut ctx, 1_000, true), none());
        assert_eq!(keep(&mut address, &mut ctx, 2_000, false), none());
        assert_eq!(ctx.wake(), Some(2_500_000), "it looks again when the time is over");
        assert_eq!(keep(&mut address, &mut ctx, 2_499, false), none());
        let gone = (Some(false), vec!["service.fenced".to_owned()]);
        assert_eq!(keep(&mut address, &mut ctx, 2_500, false), gone);
        assert_eq!(keep(&mut address, &mut ctx, 9_000, false), none(), "once");
        assert_eq!(keep(&mut address, &mut ctx, 9_100, true), (Some(true), Vec::new()));
        assert!(address.is_returning());
        address.came(&mut ctx, EPOCH);
        assert!(address.is_here());
        let told = told(&ctx.take_effects());
        assert!(
            matches!(told[..], [EventKind::Resumed { epoch: EPOCH, .. }]),
            "{told:?}"
        );
    }

    #[test]
    fn a_short_pause_leaves_it_where_it_is() {
        let (mut address, mut ctx) = (Address::HERE, ctx(0));
        for ms in [1_000, 2_000, 3_000] {
            keep(&mut address, &mut ctx, ms, false);
            assert_eq!(keep(&mut address, &mut ctx, ms + 400, true), (None, Vec::new()));
        }
        assert_eq!(address, Address::HERE);
    }

    #[test]
    fn one_that_is_on_its_way_back_goes_again_when_the_lease_does() {
        let (mut address, mut ctx) = (Address::Away, ctx(0));
        assert_eq!(keep(&mut address, &mut ctx, 1_000, true).0, Some(true));
        assert_eq!(keep(&mut address, &mut ctx, 1_100, false).0, None);
        assert_eq!(keep(&mut address, &mut ctx, 1_600, false).0, Some(false));
        address.came(&mut ctx, EPOCH);
        assert_eq!(address, Address::Away, "what came late is not here");
    }
}
