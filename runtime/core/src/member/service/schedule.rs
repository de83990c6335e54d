//! What the leader decides for the service group: who owns it, and what a majority must know of it.

use super::{Service, Stage};
use crate::cluster::snapshot::Snapshot;
use crate::member::groups::Groups;
use crate::record::Record;
use ccr_contract::status::{Intent, ServiceState};

impl Service {
    /// What the leader decides: the next record, where it is another one. `ends` where the daemon was told to end.
    pub fn schedule(&self, cluster: &Snapshot<'_>, groups: &Groups, ends: bool) -> Option<Record> {
        if !cluster.is_leader() || !cluster.committed {
            return None;
        }
        self.appoint(cluster, groups, ends)
            .or_else(|| self.note_progress(cluster, groups))
    }

    /// Whom it makes the owner, and whether the former one has given everything.
    fn appoint(&self, cluster: &Snapshot<'_>, groups: &Groups, ends: bool) -> Option<Record> {
        let (record, me, peer) = (cluster.record, cluster.me, cluster.peer);
        let next = || record.next(cluster.epoch_owner);
        let appoint = |owner: &str, clean| Some(next().appoint(cluster.epoch_owner, owner, clean));
        let mine = cluster.is_owner();
        let started = record.intent == Intent::Started;
        let view = cluster.member_heartbeat().filter(|v| v.id == record.id);
        match view {
            // Stopped in order, and the copy has everything: either of them may serve next.
            _ if mine && self.stage == Stage::Shipped && record.sole_copy.is_some() => Some(next().shipped()),
            Some(v) if !mine && v.handed_over && !started => record.sole_copy.is_some().then(|| next().shipped()),
            _ if mine && self.is_released() && cluster.peer_up => appoint(peer, true),
            _ if mine && self.is_released() => None,
            Some(v) if mine && self.has_failed() && v.service != ServiceState::Failed => appoint(peer, false),
            _ if mine
                && started
                && !ends
                && self.epoch() == 0
                && groups.history().is_some()
                && record.owner_epoch <= self.last_used_epoch(groups)
                && self.stage == Stage::Off =>
            {
                appoint(me, false)
            }
            _ if !mine && !cluster.peer_up => appoint(me, false),
            Some(v) if !mine && v.handed_over => appoint(me, true),
            Some(v) if !mine && v.service == ServiceState::Failed && !self.has_failed() => appoint(me, false),
            Some(v) if !mine && started && v.service_epoch == 0 && v.service == ServiceState::Offline => {
                appoint(peer, false)
            }
            _ => None,
        }
    }

    /// What the owner has done, where it serves under this appointment.
    fn note_progress(&self, cluster: &Snapshot<'_>, groups: &Groups) -> Option<Record> {
        let record = cluster.record;
        let (mounted, redelivered): (Vec<bool>, bool) = if cluster.is_owner() {
            let mine = self.epoch() == record.owner_epoch;
            let mounted = groups.stores().map(|s| s.mounted() && mine).collect();
            (mounted, mine && self.all_redeliver())
        } else {
            let view = cluster.member_heartbeat().filter(|v| v.id == record.id);
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
            ..record.next(cluster.epoch_owner)
        })
    }
}
