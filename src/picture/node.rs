//! One node of the picture.

use super::Role;
use crate::event::RuntimeEvent;
use crate::hypervisor::DomainState;
use crate::spec::NodeRole;
use crate::verify::NodeView;
use ccr_contract::event::EventKind;
use ccr_contract::status::{ClusterState, Hub, ServiceState, Status, Votes};
use serde::Serialize;

/// A node at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodePicture {
    /// What it is in the lab.
    pub kind: Option<NodeRole>,
    /// What it is now.
    pub role: Role,
    /// Since when, in microseconds since the journal began.
    pub since_us: u64,
    /// What the hypervisor says of its machine.
    pub domain: Option<DomainState>,
    /// Whether its runtime answers.
    pub answers: Option<bool>,
    /// Why not.
    pub error: Option<String>,
    /// Where it stands in the cluster, by its own word.
    pub member: Option<ClusterState>,
    /// The votes, as it counts them.
    pub votes: Option<Votes>,
    /// Who owns the quorum, by its word.
    pub quorum_owner: Option<String>,
    /// The highest epoch that it knows.
    pub epoch: Option<u64>,
    /// Its transport.
    pub hub: Option<Hub>,
    /// What its runtime said last.
    #[serde(skip)]
    said: Option<Role>,
    /// When an event said so: what was heard before does not count.
    #[serde(skip)]
    told_us: u64,
    /// Since when a look says so at least: what happened before is no news.
    #[serde(skip)]
    looked_us: u64,
    /// When its machine was switched last by a fault.
    #[serde(skip)]
    switched_us: u64,
}

impl NodePicture {
    pub(super) fn new(kind: Option<NodeRole>) -> Self {
        Self {
            kind,
            role: Role::Unknown,
            since_us: 0,
            domain: None,
            answers: None,
            error: None,
            member: None,
            votes: None,
            quorum_owner: None,
            epoch: None,
            hub: None,
            said: None,
            told_us: 0,
            looked_us: 0,
            switched_us: 0,
        }
    }

    /// What all sources together make of it, from `t_us` on.
    fn settle(&mut self, t_us: u64) {
        let plain = self.kind.is_none() && self.domain == Some(DomainState::Running);
        let role = match (self.domain, self.answers) {
            (Some(DomainState::Off), _) => Role::Off,
            (Some(DomainState::Paused), _) => Role::Frozen,
            (Some(DomainState::Other), _) | (_, Some(false)) => Role::Silent,
            _ if plain => Role::Runs,
            (domain, _) => match (self.said, domain) {
                (Some(said), _) => said,
                (None, Some(_)) => Role::Silent,
                (None, None) => Role::Unknown,
            },
        };
        if role != self.role {
            (self.role, self.since_us) = (role, t_us);
        }
    }

    pub(super) fn look(&mut self, view: &NodeView, t_us: u64) {
        // A machine that a fault has switched since is not what an older look says.
        if view.machine.is_some() && t_us >= self.switched_us {
            self.domain = view.machine;
        }
        let (after, heard) = view.moment.map_or((t_us, t_us), |m| (m.after_us, m.heard_us));
        match &view.status {
            Some(status) if heard >= self.told_us && heard >= self.switched_us => {
                self.answers = Some(true);
                self.error = None;
                self.looked_us = after;
                self.status(status);
            }
            Some(_) => {}
            None if t_us >= self.told_us => {
                self.answers = (self.kind.is_some()).then_some(false);
                self.error.clone_from(&view.error);
                self.forget();
            }
            None => {}
        }
        if matches!(self.domain, Some(DomainState::Off | DomainState::Paused)) {
            self.forget();
        }
        self.settle(t_us);
    }

    fn status(&mut self, status: &Status) {
        self.epoch = Some(status.epoch);
        self.hub.clone_from(&status.hub);
        self.member = status.cluster.as_ref().map(|c| c.state);
        self.votes = status.cluster.as_ref().map(|c| c.votes.clone());
        self.quorum_owner = status.cluster.as_ref().and_then(|c| c.quorum_owner.clone());
        let service = status.service.as_ref();
        let serves = service.is_some_and(|s| {
            s.active.as_deref() == Some(&status.node)
                && matches!(s.state, ServiceState::Online | ServiceState::PartiallyOnline)
        });
        let held_back = service.is_some_and(|s| s.state == ServiceState::OfflinePending);
        self.said = Some(match self.member {
            None => Role::Runs,
            Some(_) if serves => Role::Active,
            Some(ClusterState::NoQuorum) => Role::NoQuorum,
            Some(ClusterState::Forming | ClusterState::Stopped) => Role::Apart,
            Some(ClusterState::Up) if self.said == Some(Role::Fenced) && held_back => Role::Fenced,
            Some(ClusterState::Up) => Role::Passive,
        });
    }

    /// What only it can say, and no longer says.
    fn forget(&mut self) {
        (self.member, self.votes, self.quorum_owner, self.hub) = (None, None, None, None);
    }

    pub(super) fn told(&mut self, told: &RuntimeEvent<'_>) {
        let t_us = told.event.t_us;
        // It may have been before its machine was switched, as far as the clocks say.
        let skew = told.event.skew_us.unwrap_or(0);
        if t_us.saturating_sub(skew) < self.switched_us || t_us < self.looked_us {
            return;
        }
        let role = match &told.what {
            EventKind::Online { .. } | EventKind::PartiallyOnline { .. } | EventKind::Resumed { .. } => Role::Active,
            EventKind::Offline { .. } | EventKind::ClusterJoined { .. } | EventKind::ClusterFormed { .. } => {
                Role::Passive
            }
            EventKind::QuorumLost { .. } => Role::NoQuorum,
            EventKind::Fenced { .. } => Role::Fenced,
            EventKind::Ended { .. } | EventKind::Restarting { .. } => Role::Apart,
            _ => return,
        };
        if self.domain.is_some() {
            self.domain = Some(DomainState::Running);
        }
        (self.answers, self.said, self.told_us) = (Some(true), Some(role), t_us);
        self.settle(t_us);
    }

    /// A client got its answer: whoever answers is not fenced.
    pub(super) fn answered(&mut self, t_us: u64) {
        if self.role == Role::Fenced {
            self.said = Some(Role::Active);
            self.settle(t_us);
        }
    }

    pub(super) fn injected(&mut self, kind: &str, t_us: u64) {
        match kind {
            "power-off" => self.switch(DomainState::Off, t_us),
            "freeze" => self.switch(DomainState::Paused, t_us),
            "power-on" | "resume" => self.switch(DomainState::Running, t_us),
            "reset" => {
                self.said = None;
                self.switch(DomainState::Running, t_us);
            }
            _ => {}
        }
    }

    pub(super) fn healed(&mut self, kind: &str, t_us: u64) {
        match kind {
            "power-off" | "freeze" => self.switch(DomainState::Running, t_us),
            "panic" => {
                self.said = None;
                self.switch(DomainState::Running, t_us);
            }
            _ => {}
        }
    }

    fn switch(&mut self, to: DomainState, t_us: u64) {
        if self.domain == Some(DomainState::Off) || to == DomainState::Off {
            self.said = None;
        }
        (self.domain, self.answers, self.switched_us) = (Some(to), None, t_us);
        self.forget();
        self.settle(t_us);
    }
}
