//! What the leader decides for the service group: who owns it, and what a majority must know of it.

use super::Member;
use super::stage::Stage;
use crate::record::Record;
use ccr_contract::status::{Intent, ServiceState};

impl Member {
    /// What the leader decides: who owns the service.
    pub(super) fn schedule(&mut self) {
        if !self.cluster.is_leader() || !self.cluster.committed() {
            return;
        }
        let record = self.cluster.record();
        let (me, peer) = (self.config.node.as_str(), self.cluster.peer_name());
        let epoch_owner = self.cluster.epoch_owner();
        let next = || record.next(epoch_owner);
        let appoint = |owner: &str, clean| Some(next().appoint(epoch_owner, owner, clean));
        let mine = record.owner == me;
        let started = record.intent == Intent::Started;
        let view = self.cluster.member_heartbeat().filter(|v| v.id == record.id);
        let proposal = match view {
            // Stopped in order, and the copy has everything: either of them may serve next.
            _ if mine && self.service.stage == Stage::Shipped && record.sole_copy.is_some() => Some(next().shipped()),
            Some(v) if !mine && v.handed_over && !started => record.sole_copy.is_some().then(|| next().shipped()),
            _ if mine && self.service.is_released() && self.cluster.peer_up() => appoint(peer, true),
            _ if mine && self.service.is_released() => None,
            Some(v) if mine && self.service.has_failed() && v.service != ServiceState::Failed => appoint(peer, false),
            _ if mine
                && started
                && self.ending.is_none()
                && self.service.epoch() == 0
                && self.history().is_some()
                && record.owner_epoch <= self.last_used_epoch()
                && self.service.stage == Stage::Off =>
            {
                appoint(me, false)
            }
            _ if !mine && !self.cluster.peer_up() => appoint(me, false),
            Some(v) if !mine && v.handed_over => appoint(me, true),
            Some(v) if !mine && v.service == ServiceState::Failed && !self.service.has_failed() => appoint(me, false),
            Some(v) if !mine && started && v.service_epoch == 0 && v.service == ServiceState::Offline => {
                appoint(peer, false)
            }
            _ => None,
        };
        let proposal = proposal.or_else(|| {
            // What the owner has done, where it serves under this appointment.
            let (mounted, redelivered): (Vec<bool>, bool) = if mine {
                let mine = self.service.epoch() == record.owner_epoch;
                let mounted = self.stores.iter().map(|s| s.mounted() && mine).collect();
                (mounted, mine && self.service.all_redeliver())
            } else {
                let view = view.filter(|v| v.service_epoch == record.owner_epoch)?;
                (view.groups.iter().map(|g| g.mounted).collect(), view.redelivered)
            };
            let mut served = record.served.clone();
            served.resize(mounted.len(), 0);
            for (served, _) in served.iter_mut().zip(mounted).filter(|(_, mounted)| *mounted) {
                *served = record.owner_epoch;
            }
            let redeliver = record.redeliver && !redelivered;
            let mounts = served != record.served && served.contains(&record.owner_epoch);
            (mounts || redeliver != record.redeliver).then(|| Record {
                served,
                redeliver,
                ..next()
            })
        });
        if let Some(record) = proposal {
            // The only refusal is that a change is under way: the next round tries again.
            let _ = self.cluster.propose(&mut self.ctx, record);
        }
    }
}
