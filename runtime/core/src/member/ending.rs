//! The daemon is told to end: an upgrade, `systemctl stop` or `restart`, the shutdown of its machine. What it has acknowledged goes
//! to the other member first: the open log is closed and shipped as at an operator's stop, and where the copy is Healthy the
//! service is handed over as by a move, and the Cluster Group with it. What cannot be done in [`END_US`] is left undone, and told.

use super::groups::Groups;
use super::service::Service;
use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::io::END_US;
use crate::op::Pending;
use ccr_contract::event::EventKind;
use ccr_contract::status::ServiceState;

/// A node that was told to end.
#[derive(Debug)]
pub struct Ending {
    /// When it ends, whatever is not done.
    until: u64,
    /// The epoch in which it was up when it was told to; 0 where it was not.
    served: u64,
    /// Whether the other member has all that was acknowledged in that epoch.
    given: bool,
    /// Whether the Cluster Group was moved away, or that was tried.
    moved: bool,
}

/// What is next for a node that was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Something is under way.
    Wait,
    /// The Cluster Group goes to the other member, so that it looks for the witness's vote before it misses this one's.
    MoveClusterGroup,
    /// There is nothing left to do, or no time.
    End,
}

impl Ending {
    /// The process shall end.
    pub fn new(now: u64, service: &Service) -> Self {
        let (served, given) = service.served();
        Self {
            until: now + END_US,
            served,
            given,
            moved: false,
        }
    }
    /// The service went offline in order.
    pub fn went_offline(&mut self, given: bool) {
        self.given = given;
    }

    /// What is next; the end is told.
    pub fn drive(
        &mut self,
        ctx: &mut Ctx<Pending>,
        cluster: &Snapshot<'_>,
        service: &Service,
        groups: &Groups,
    ) -> Next {
        let late = ctx.due(self.until);
        let busy = service.is_engaged()
            || service.is_released()
            || (service.is_shipped() && cluster.peer_up)
            || self.is_taken_from(cluster, groups);
        let next = if busy { Next::Wait } else { self.leave(cluster) };
        if next != Next::End && !late {
            return next;
        }
        let why = match () {
            () if self.served == 0 => "nothing was served here",
            () if self.given => "the other member has everything",
            () => "the other member may lack what was acknowledged here: it is on this node's disk",
        };
        ctx.event(EventKind::Ended {
            served: self.served,
            given: self.given,
            late,
            why: why.to_owned(),
            epoch: service.reported_epoch(cluster),
        });
        Next::End
    }

    /// Whether the other member, which was appointed meanwhile, still fetches what this one has closed.
    fn is_taken_from(&self, cluster: &Snapshot<'_>, groups: &Groups) -> bool {
        let view = cluster.member_heartbeat();
        let lacks = |v: &crate::wire::Heartbeat| {
            let mut pairs = groups.stores().zip(&v.groups);
            v.service != ServiceState::Online && !pairs.all(|(s, g)| g.inspected >= s.last().generation)
        };
        self.served != 0 && !cluster.is_owner() && view.is_some_and(lacks)
    }

    /// The Cluster Group is moved away, where there is somebody to have it.
    fn leave(&mut self, cluster: &Snapshot<'_>) -> Next {
        if !cluster.peer_up {
            return Next::End;
        }
        if self.moved || !cluster.is_leader() {
            let waits = self.moved && !cluster.committed;
            return if waits { Next::Wait } else { Next::End };
        }
        if !cluster.committed {
            return Next::Wait;
        }
        self.moved = true;
        Next::MoveClusterGroup
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::fixture::{Facts, at, config, ctx, told};

    fn node() -> (Service, Groups, Ctx<Pending>) {
        let config = config();
        (Service::new(&config), Groups::new(&config), ctx(1_000))
    }

    #[test]
    fn the_cluster_group_leaves_first_and_only_once() {
        let (service, groups, mut ctx) = node();
        let mut ending = Ending::new(ctx.now.boot_us, &service);
        let mut facts = Facts::new();
        let mut next = |facts: &Facts| ending.drive(&mut ctx, &facts.snapshot(), &service, &groups);
        facts.committed = false;
        assert_eq!(next(&facts), Next::Wait, "a change is under way");
        facts.committed = true;
        assert_eq!(next(&facts), Next::MoveClusterGroup);
        facts.committed = false;
        assert_eq!(next(&facts), Next::Wait, "the move is not agreed to");
        facts.committed = true;
        assert_eq!(next(&facts), Next::End, "whoever leads now: it was tried");
        let told = told(&ctx.take_effects());
        assert!(
            matches!(
                told[..],
                [EventKind::Ended {
                    served: 0,
                    late: false,
                    ..
                }]
            ),
            "{told:?}"
        );
    }

    #[test]
    fn nobody_to_give_it_to_ends_at_once_and_no_time_ends_whatever_is_under_way() {
        let (service, groups, mut ctx) = node();
        let mut apart = Facts::new();
        apart.peer_up = false;
        let mut ending = Ending::new(ctx.now.boot_us, &service);
        assert_eq!(ending.drive(&mut ctx, &apart.snapshot(), &service, &groups), Next::End);
        let mut busy = Facts::new();
        busy.committed = false;
        let mut ending = Ending::new(ctx.now.boot_us, &service);
        ctx.take_effects();
        at(&mut ctx, 1_000 + END_US / 1000);
        assert_eq!(ending.drive(&mut ctx, &busy.snapshot(), &service, &groups), Next::End);
        let told = told(&ctx.take_effects());
        assert!(matches!(told[..], [EventKind::Ended { late: true, .. }]), "{told:?}");
    }
}
