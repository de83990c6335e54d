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
            _ if mine && self.is_released() && cluster.peer_up => appoint(peer, self.has_given_all()),
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
            Some(v) if !mine && (v.handed_over || v.given_up) => appoint(me, v.handed_over),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::asker::Asker;
    use crate::member::fixture::{EPOCH, Facts, ME, PEER, config};
    use crate::record::SoleCopy;

    /// The owner of the record that is proposed, and whether its predecessor has given everything.
    fn owner(stage: Stage, facts: &Facts, ends: bool) -> Option<(String, bool)> {
        let config = config();
        let mut service = Service::new(&config);
        service.stage = stage;
        service.last_used_epoch = EPOCH;
        let next = service.schedule(&facts.snapshot(), &Groups::new(&config), ends)?;
        assert!(
            next.owner_epoch > facts.record.owner_epoch,
            "a new appointment: {next:?}"
        );
        Some((next.owner, next.clean))
    }
    fn released() -> Stage {
        Stage::Released {
            to: PEER.into(),
            asker: Asker::Nobody,
            since: 0,
            whole: true,
        }
    }
    fn failed() -> Stage {
        Stage::Failed { retry_at: 9 }
    }
    fn elsewhere(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = Facts::elsewhere();
        change(&mut facts);
        facts
    }

    #[test]
    fn the_leader_gives_a_service_of_its_own_away() {
        let facts = Facts::new();
        let to_peer = |clean| Some((PEER.to_owned(), clean));
        assert_eq!(owner(released(), &facts, false), to_peer(true));
        let Stage::Released { to, asker, since, .. } = released() else {
            unreachable!("it is")
        };
        let without_a_database = Stage::Released {
            to,
            asker,
            since,
            whole: false,
        };
        assert_eq!(owner(without_a_database, &facts, false), to_peer(false));
        assert_eq!(owner(failed(), &facts, false), to_peer(false));
        assert_eq!(owner(Stage::Waiting, &facts, false), None);
        let mut apart = Facts::new();
        apart.peer_up = false;
        assert_eq!(owner(released(), &apart, false), None, "there is nobody to have it");
        let mut both = Facts::new();
        both.heartbeat.service = ServiceState::Failed;
        assert_eq!(owner(failed(), &both, false), None, "it failed there as well");
    }

    #[test]
    fn the_leader_takes_the_service_of_a_member_that_is_gone_has_failed_or_gives_it() {
        let to_me = |clean| Some((ME.to_owned(), clean));
        assert_eq!(
            owner(Stage::Off, &elsewhere(|f| f.peer_up = false), false),
            to_me(false)
        );
        let failed_there = elsewhere(|f| f.heartbeat.service = ServiceState::Failed);
        assert_eq!(owner(Stage::Off, &failed_there, false), to_me(false));
        assert_eq!(owner(failed(), &failed_there, false), None, "it failed here as well");
        let given = elsewhere(|f| f.heartbeat.handed_over = true);
        assert_eq!(owner(Stage::Off, &given, false), to_me(true));
        let given_up = elsewhere(|f| f.heartbeat.given_up = true);
        assert_eq!(owner(Stage::Off, &given_up, false), to_me(false), "without a database");
        let online = elsewhere(|f| (f.heartbeat.service, f.heartbeat.service_epoch) = (ServiceState::Online, EPOCH));
        assert_eq!(owner(Stage::Off, &online, false), None);
    }

    #[test]
    fn who_does_not_lead_or_has_a_change_under_way_decides_nothing() {
        for change in [
            (|f| f.committed = false) as fn(&mut Facts),
            |f| f.up = false,
            |f| f.record.quorum_owner = PEER.into(),
        ] {
            let facts = elsewhere(|f| {
                f.peer_up = false;
                change(f);
            });
            assert_eq!(owner(Stage::Off, &facts, false), None);
        }
    }

    #[test]
    fn a_stop_that_shipped_everything_frees_both_copies() {
        let mut facts = Facts::new();
        facts.record.sole_copy = Some(SoleCopy {
            node: ME.into(),
            epoch: EPOCH,
        });
        let config = config();
        let mut service = Service::new(&config);
        service.stage = Stage::Shipped;
        let next = service.schedule(&facts.snapshot(), &Groups::new(&config), false);
        let next = next.expect("a record without a sole copy");
        assert_eq!((next.sole_copy, next.owner_epoch), (None, EPOCH));
    }
}
