//! What this node is to the cluster, and how that changes: each change in one function.
//!
//! ```text
//!            cluster.json read               second vote: become_up
//!   Unread ------------------> Forming ------------------------------> Up
//!                               ^  ^   <------------------------------  |
//!                               |  |            lose_quorum             |
//!                               |  +-------- Restarting <---------------+
//!                     taken back|    in time     new heartbeat settings |
//!                               +----------- Evicted <------------------+
//!                                                         evicted
//! ```

use super::Cluster;
use crate::ctx::Ctx;
use crate::op::Pending;
use crate::wire::Phase;
use ccr_contract::event::EventKind;

/// What this node is to the cluster. Instants are of the boot-time clock, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    /// `cluster.json` was not read yet.
    Unread,
    /// It looks for a cluster, without anybody to form one with since then.
    Forming {
        /// Since when.
        isolated_since: u64,
    },
    /// The cluster service is away, for new heartbeat settings; then it looks for a cluster again.
    Restarting {
        /// Until when.
        until: u64,
        /// Since when there has been nobody to form one with.
        isolated_since: u64,
    },
    /// It is in a cluster that has a majority.
    Up {
        /// What the other member is to this cluster.
        peer: PeerMembership,
        /// Since when it has had no second vote.
        isolated_since: u64,
    },
    /// An operator shut it out.
    Evicted,
}

/// Who votes, as a majority has agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Electorate {
    /// Both members, and the witness where there is one.
    Full,
    /// This node: the other member was evicted.
    OneMember,
}

impl Electorate {
    /// Whether this node is the whole cluster.
    pub fn is_one_member(self) -> bool {
        self == Self::OneMember
    }
    /// How many votes there are, with a witness or without.
    pub fn votes(self, witness: bool) -> u32 {
        match self {
            Self::Full => 2 + u32::from(witness),
            Self::OneMember => 1,
        }
    }
}

/// What the other member is to the cluster of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerMembership {
    /// No part of it.
    Apart,
    /// Part of it, and on its way up.
    Joining,
    /// Part of it, and was seen up.
    Up,
    /// The one that was part of it is gone: another life of it was heard.
    Restarted,
}

impl Membership {
    /// What is told to the other member.
    pub fn phase(self) -> Phase {
        match self {
            Self::Unread | Self::Forming { .. } | Self::Restarting { .. } => Phase::Forming,
            Self::Up { .. } => Phase::Up,
            Self::Evicted => Phase::Evicted,
        }
    }
    /// Whether the other member is part of this node's cluster.
    pub fn has_peer(self) -> bool {
        matches!(self, Self::Up { peer, .. } if peer != PeerMembership::Apart)
    }
    /// Since when this node has been alone; the present, where it is not.
    pub fn isolated_since(self, now: u64) -> u64 {
        match self {
            Self::Forming { isolated_since }
            | Self::Restarting { isolated_since, .. }
            | Self::Up { isolated_since, .. } => isolated_since,
            Self::Unread | Self::Evicted => now,
        }
    }
    /// Somebody is there now, or a second vote.
    pub fn not_alone(&mut self, now: u64) {
        if let Self::Forming { isolated_since } | Self::Up { isolated_since, .. } = self {
            *isolated_since = now;
        }
    }
    /// Whether it looks for a cluster, at once or when it is back.
    pub fn is_forming(self) -> bool {
        matches!(self, Self::Forming { .. } | Self::Restarting { .. })
    }
    /// The cluster service is back.
    pub fn restarted(&mut self) {
        if let Self::Restarting { isolated_since, .. } = *self {
            *self = Self::Forming { isolated_since };
        }
    }
    /// Another life of the other member was heard.
    pub fn peer_restarted(&mut self) {
        if let Self::Up { peer, .. } = self
            && *peer != PeerMembership::Apart
        {
            *peer = PeerMembership::Restarted;
        }
    }
}

impl Cluster {
    /// A majority has the record: this node is in a cluster.
    pub(super) fn become_up(
        &mut self,
        ctx: &mut Ctx<Pending>,
        peer: PeerMembership,
        how: impl FnOnce(u64) -> EventKind,
    ) {
        assert!(
            matches!(self.membership, Membership::Forming { .. }) && self.saved.committed,
            "a node comes up once, with a record that a majority has"
        );
        let isolated_since = ctx.now.boot_us;
        self.membership = Membership::Up { peer, isolated_since };
        self.beat_now = true;
        ctx.event(how(self.epoch()));
    }

    /// The other member comes, is seen up, and goes.
    pub(super) fn watch_peer(&mut self, ctx: &mut Ctx<Pending>) {
        let Membership::Up { peer, isolated_since } = self.membership else {
            return;
        };
        let lost = self.peer_lost(ctx);
        let left = self.peer.view.as_ref().is_some_and(|v| v.phase != Phase::Up);
        match peer {
            PeerMembership::Apart if !lost && !self.peer_evicted() && self.peer_agrees() => {
                let peer = PeerMembership::Joining;
                self.membership = Membership::Up { peer, isolated_since };
                self.beat_now = true;
                let (member, epoch) = (self.peer.name.clone(), self.epoch());
                ctx.event(EventKind::MemberUp { member, epoch });
            }
            PeerMembership::Apart => {}
            PeerMembership::Joining | PeerMembership::Up | PeerMembership::Restarted if lost => {
                self.remove_peer(ctx, "not heard");
            }
            PeerMembership::Restarted => self.remove_peer(ctx, "restarted or left"),
            PeerMembership::Up if left => self.remove_peer(ctx, "restarted or left"),
            PeerMembership::Joining if left => {}
            PeerMembership::Joining | PeerMembership::Up => {
                let peer = PeerMembership::Up;
                self.membership = Membership::Up { peer, isolated_since };
            }
        }
    }

    fn remove_peer(&mut self, ctx: &mut Ctx<Pending>, why: &str) {
        assert!(self.membership.has_peer(), "only a member is removed");
        let (peer, isolated_since) = (PeerMembership::Apart, ctx.now.boot_us);
        self.membership = Membership::Up { peer, isolated_since };
        self.beat_now = true;
        let (member, why, epoch) = (self.peer.name.clone(), why.to_owned(), self.epoch());
        ctx.event(EventKind::MemberDown { member, why, epoch });
    }

    /// There is no majority any more: nothing is served from now on.
    pub(crate) fn lose_quorum(&mut self, ctx: &mut Ctx<Pending>, why: &str) {
        if !self.is_up() {
            return;
        }
        let isolated_since = ctx.now.boot_us;
        self.membership = Membership::Forming { isolated_since };
        self.lease.end();
        self.force.quorum_lost();
        self.beat_now = true;
        let (why, epoch) = (why.to_owned(), self.epoch());
        ctx.event(EventKind::QuorumLost { why, epoch });
    }

    /// The cluster service restarts, and is away until then.
    pub(super) fn restart(&mut self, ctx: &mut Ctx<Pending>, until: u64) {
        let (why, epoch) = ("the heartbeat settings changed".to_owned(), self.epoch());
        ctx.event(EventKind::Restarting { why, epoch });
        self.lose_quorum(ctx, "the cluster service restarts");
        let isolated_since = ctx.now.boot_us;
        self.membership = Membership::Restarting { until, isolated_since };
    }

    /// A majority has agreed to who is evicted, and who is not.
    pub(super) fn apply_membership(&mut self, ctx: &mut Ctx<Pending>) {
        let gone = self.peer_evicted();
        let me_gone = self.saved.record.evicted.as_deref() == Some(self.me.as_str());
        if gone && self.membership.has_peer() {
            self.remove_peer(ctx, "evicted");
        }
        self.electorate = if gone { Electorate::OneMember } else { Electorate::Full };
        if me_gone && self.membership != Membership::Evicted {
            self.lose_quorum(ctx, "an operator evicted this node");
            self.membership = Membership::Evicted;
            self.beat_now = true;
        } else if !me_gone && self.membership == Membership::Evicted {
            let isolated_since = ctx.now.boot_us;
            self.membership = Membership::Forming { isolated_since };
            self.beat_now = true;
        }
    }
}
