//! The cluster layer's part of `status`.

use super::arbitration::NoVote;
use super::membership::Membership;
use super::{CLUSTER_FILE, Cluster, Phase};
use crate::io::{Now, Obstacle};
use ccr_contract::status::{self, ClusterState, MemberState, WitnessHealth, WitnessProbe};

/// What keeps a node out of a cluster with a majority.
#[derive(Debug)]
pub struct Cause {
    /// What of it only an operator ends.
    pub obstacle: Option<Obstacle>,
    /// In words.
    pub text: String,
}

impl Cause {
    fn words(text: impl Into<String>) -> Self {
        let (obstacle, text) = (None, text.into());
        Self { obstacle, text }
    }
}

impl Cluster {
    /// What this node knows of the cluster.
    pub fn status(&self, now: Now) -> status::Cluster {
        let has_peer = self.membership.has_peer();
        let state = self.state(now);
        let cause = (state != ClusterState::Up).then(|| self.cause(now).text);
        let mut have = vec![self.me.clone()];
        if has_peer {
            have.push(self.peer.name.clone());
        }
        // While both members are there nobody holds the file: the vote can be had if the last probe locked it.
        if !self.electorate.is_one_member() && (self.witness.holds() || (has_peer && self.witness.could_be_locked())) {
            have.push("witness".into());
        }
        let total = self.electorate.votes(self.witness_path.is_some());
        let peer_state = match (&self.peer.view, has_peer) {
            (_, true) => MemberState::Up,
            (Some(_), false) if self.peer.interfaces.iter().any(|p| p.received_at.is_some()) => MemberState::Joining,
            _ => MemberState::Down,
        };
        let me_state = if self.is_up() {
            MemberState::Up
        } else {
            MemberState::Joining
        };
        let mut members = vec![(self.me.clone(), me_state), (self.peer.name.clone(), peer_state)];
        if self.index != 0 {
            members.reverse();
        }
        let owner = &self.saved.record.quorum_owner;
        status::Cluster {
            state,
            cause,
            quorum_owner: (!owner.is_empty() && self.is_up()).then(|| owner.clone()),
            config_tag: self.saved.record.id.tag,
            votes: status::Votes {
                total,
                needed: total / 2 + 1,
                have,
            },
            members: members
                .into_iter()
                .map(|(name, state)| status::Member { name, state })
                .collect(),
            networks: self.networks(),
            witness: self.witness_status(now),
        }
    }

    /// What keeps this node out of a cluster with a majority.
    pub fn cause(&self, now: Now) -> Cause {
        let peer = &self.peer.name;
        match self.membership {
            Membership::Evicted => {
                return Cause::words(format!(
                    "an operator evicted this node: `join {}`, asked at {peer}, takes it back",
                    self.me
                ));
            }
            Membership::Restarting { until, .. } if now.boot_us < until => {
                return Cause::words("the cluster service restarts, for new heartbeat settings");
            }
            _ => {}
        }
        let tolerance = self.node_tolerance_us();
        let evicted = self.peer.view.as_ref().is_some_and(|v| v.phase == Phase::Evicted);
        let heard = self.peer.mutual_at.is_some_and(|at| now.boot_us < at + tolerance);
        if heard && !evicted {
            return Cause::words(format!(
                "{peer} is heard, and there is no record yet on which both agree"
            ));
        }
        let alone = if heard {
            format!("{peer} was evicted")
        } else if self.peer.interfaces.iter().any(|p| p.received_at.is_some()) {
            format!("{peer} is heard, and does not hear this node")
        } else {
            format!("{peer} is not heard")
        };
        if self.has_lost_its_record() && self.report.history.is_some() {
            return Cause {
                obstacle: Some(Obstacle::RecordLost),
                text: format!(
                    "{alone}, and {CLUSTER_FILE} is gone while there are logs of a cluster: this node forms none alone without \
                     `force-quorum`"
                ),
            };
        }
        if self.saved.witness_change_pending {
            let witness = self.saved.record.witness.as_deref();
            return Cause {
                obstacle: Some(Obstacle::WitnessUnsettled),
                text: format!(
                    "{alone}, and did not say that it agrees to the witness {}: no witness counts without it or `force-quorum`",
                    witness.unwrap_or("of the configuration")
                ),
            };
        }
        let witness = match (&self.witness_path, &self.witness.why) {
            (None, _) => "there is no witness".to_owned(),
            (Some(_), Some(why)) => format!("the witness gives no vote: {why}"),
            (Some(_), None) => "the witness was not asked yet".to_owned(),
        };
        let newer = self.witness_path.is_some() && self.witness.why == Some(NoVote::NewerCluster);
        Cause {
            obstacle: newer.then_some(Obstacle::NewerCluster),
            text: format!("{alone}, and {witness}"),
        }
    }

    /// What keeps this node out of a cluster with a majority, where that is something that only an operator ends.
    pub fn obstacle(&self, now: Now) -> Option<Obstacle> {
        let out = self.state(now) != ClusterState::Up;
        self.cause(now).obstacle.filter(|_| out)
    }

    fn state(&self, now: Now) -> ClusterState {
        let has_peer = self.membership.has_peer();
        let quorate = self.lease_valid(now) || has_peer || self.witness.holds() || self.electorate.is_one_member();
        match self.membership {
            Membership::Up { .. } if quorate => ClusterState::Up,
            Membership::Up { .. } => ClusterState::NoQuorum,
            Membership::Unread | Membership::Forming { .. } | Membership::Restarting { .. } => ClusterState::Forming,
            Membership::Evicted => ClusterState::Stopped,
        }
    }

    fn networks(&self) -> Vec<status::Network> {
        let network = |p: &super::heartbeat::PeerInterface| status::Network {
            name: p.name.clone(),
            role: p.role,
            paths: if p.internal() {
                vec![
                    status::Path {
                        from: self.peer.name.clone(),
                        to: self.me.clone(),
                        up: Some(p.received_at.is_some()),
                    },
                    status::Path {
                        from: self.me.clone(),
                        to: self.peer.name.clone(),
                        up: p.heard_by_peer,
                    },
                ]
            } else {
                Vec::new()
            },
        };
        self.peer.interfaces.iter().map(network).collect()
    }

    fn witness_status(&self, now: Now) -> Option<status::Witness> {
        let configured = self.configured_witness()?;
        let mut probed_by = std::collections::BTreeMap::new();
        if let Some((at, error)) = &self.witness.probed {
            let probe = WitnessProbe {
                ok: error.is_none(),
                age_ms: now.boot_us.saturating_sub(*at) / 1000,
                error: error.clone(),
            };
            probed_by.insert(self.me.clone(), probe);
        }
        if let Some((age_ms, ok)) = self.peer.view.as_ref().and_then(|v| v.probe) {
            let probe = WitnessProbe {
                ok,
                age_ms: age_ms + now.boot_us.saturating_sub(self.peer.view_at) / 1000,
                error: None,
            };
            probed_by.insert(self.peer.name.clone(), probe);
        }
        let health = match probed_by.get(&self.me) {
            None => WitnessHealth::Unknown,
            Some(p) if p.ok => WitnessHealth::Ok,
            Some(_) => WitnessHealth::Failed,
        };
        Some(status::Witness {
            running: self.witness_path.clone().filter(|_| self.is_up()),
            configured,
            health,
            probed_by,
        })
    }
}
