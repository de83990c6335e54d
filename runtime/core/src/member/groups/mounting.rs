//! The dial: whether a group may be mounted with what is lost of it.

use super::{Group, Groups};
use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::op::Pending;
use crate::planted::Bug;
use crate::store::Store;
use ccr_contract::event::EventKind;

/// Under which appointment groups are mounted.
#[derive(Debug, Clone, Copy)]
pub struct Mount {
    /// Its epoch.
    pub epoch: u64,
    /// Whether an operator has accepted whatever is lost.
    pub loss_accepted: bool,
    /// Whether it is reported that a group is not mounted: not again for what was reported before.
    pub reports: bool,
}

impl Group {
    /// Whether the other member, as it said last, has nothing of this group that is not here: no open log, and no later one.
    pub fn has_all(&self, cluster: &Snapshot<'_>) -> bool {
        let view = cluster.last_heartbeat.and_then(|v| v.groups.get(self.store.at));
        view.is_some_and(|v| v.open == Some(false) && v.inspected <= self.store.last().generation)
    }

    /// Whether the service was stopped in order on the other member before this one had everything, and still has not.
    fn held_elsewhere(&self, cluster: &Snapshot<'_>) -> bool {
        let there = cluster.record.sole_copy(self.store.at) == Some(cluster.peer);
        there && !(cluster.peer_up && self.has_all(cluster))
    }

    /// How many logs are lost, and whether the group may be mounted with that loss.
    pub fn dial(&self, ctx: &Ctx<Pending>, cluster: &Snapshot<'_>, loss_accepted: bool) -> (u64, Result<(), String>) {
        let (store, record) = (&self.store, cluster.record);
        let lost = store.source_state.generated.saturating_sub(store.last().generation);
        // After a handoff nothing is missing; if something is, it was none.
        let tolerated = if record.clean { 0 } else { cluster.dial.tolerated() };
        let served = record.served(store.at);
        let verdict = match self.copy.mountable(store, loss_accepted) {
            Err(why) => Err(why),
            Ok(()) if let Some(why) = store.held(ctx.now.boot_us) => Err(why.to_owned()),
            Ok(()) if let Some(why) = store.open_damage.as_ref().filter(|_| !loss_accepted) => Err(why.clone()),
            Ok(()) if store.stream.is_none() && served > 0 => Err("there is no database on this node".into()),
            Ok(()) if store.source_state.verified < served && !loss_accepted && !ctx.plays(Bug::UnreadSourceIsNone) => {
                Err(format!("the copy was never compared with the logs of epoch {served}"))
            }
            Ok(()) if ctx.plays(Bug::MountBeyondDial) => Ok(()),
            Ok(()) if self.held_elsewhere(cluster) && !loss_accepted => Err(format!(
                "only {} has all that was acknowledged before the service was stopped",
                cluster.peer
            )),
            Ok(()) if lost > tolerated && !loss_accepted => {
                Err(format!("{lost} logs are lost, {tolerated} are tolerated"))
            }
            Ok(()) => Ok(()),
        };
        (lost, verdict)
    }

    /// Mounts the group, with the logs that are lost.
    fn mount(&mut self, ctx: &mut Ctx<Pending>, lost: u64, epoch: u64) {
        let store = &mut self.store;
        if lost > 0 {
            ctx.event(EventKind::CopyLost {
                group: store.name.clone(),
                from: store.last().generation + 1,
                to: store.source_state.generated,
                lost,
                epoch,
            });
        }
        store.source_state.generated = store.last().generation;
        store.source_state.suspended = false;
        store.source_state.broken = false;
        store.source_state.common = None;
        store.source_state.reseed = false;
        store.source_state.verified = epoch;
        store.mount(ctx, epoch);
        store.save_source_state(ctx);
    }
}

impl Groups {
    /// Whether this node has everything of every group.
    pub fn have_all(&self, cluster: &Snapshot<'_>) -> bool {
        self.iter().all(|g| g.has_all(cluster))
    }

    /// Mounts each group of which no more is lost than is tolerated; says whether some was refused.
    pub fn mount(&mut self, ctx: &mut Ctx<Pending>, cluster: &Snapshot<'_>, how: Mount) -> bool {
        let mut refused = false;
        for group in &mut self.each {
            if group.store.mounted() || group.store.is_mounting() {
                continue;
            }
            let (lost, verdict) = group.dial(ctx, cluster, how.loss_accepted);
            match verdict {
                Ok(()) => group.mount(ctx, lost, how.epoch),
                Err(why) => {
                    refused = true;
                    if how.reports {
                        ctx.event(EventKind::DialRefused {
                            group: group.store.name.clone(),
                            lost,
                            tolerated: cluster.dial.tolerated(),
                            epoch: how.epoch,
                            why,
                        });
                    }
                }
            }
        }
        refused
    }

    /// Whether a group that is not mounted could be, with everything quiet around it.
    pub fn could_mount(&self, ctx: &Ctx<Pending>, cluster: &Snapshot<'_>, loss_accepted: bool) -> bool {
        self.iter().any(|g| {
            let free = !g.store.mounted() && g.copy.is_idle() && g.store.quiet();
            free && g.dial(ctx, cluster, loss_accepted).1.is_ok()
        })
    }

    /// Whether nothing of the groups is under way that a mount would disturb.
    pub fn are_quiet(&self) -> bool {
        !self.copies_busy() && self.stores().all(Store::quiet)
    }

    /// What keeps a group from being mounted even if every loss is accepted.
    pub fn never_mountable(&self) -> Option<String> {
        let unmounted = self.iter().filter(|g| !g.store.mounted());
        unmounted.filter_map(|g| g.copy.mountable(&g.store, true).err()).next()
    }

    /// The groups that are not mounted, with the logs that are lost.
    pub fn losses(&self, ctx: &Ctx<Pending>, cluster: &Snapshot<'_>, loss_accepted: bool) -> String {
        let lost = |g: &Group| {
            let (lost, _) = g.dial(ctx, cluster, loss_accepted);
            format!("{} with {lost} logs lost", g.store.name)
        };
        let dismounted = self.iter().filter(|g| !g.store.mounted());
        dismounted.map(lost).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::fixture::{EPOCH, Facts, PEER, config, ctx};
    use crate::record::SoleCopy;

    /// A group with a database that was compared with the logs of the last appointment and lacks `lost` logs, in a cluster that a test
    /// changes: the dial's refusal.
    fn refusal(lost: u64, loss_accepted: bool, change: impl FnOnce(&mut Groups, &mut Facts)) -> Option<String> {
        let (mut groups, mut facts) = (Groups::new(&config()), Facts::new());
        let store = groups.store(0);
        store.stream = Some(Default::default());
        store.source_state.verified = EPOCH;
        store.source_state.generated = lost;
        change(&mut groups, &mut facts);
        let (said, verdict) = groups.each[0].dial(&ctx(0), &facts.snapshot(), loss_accepted);
        assert_eq!(said, lost);
        verdict.err()
    }

    #[test]
    fn the_dial_tolerates_so_many_logs_and_none_after_a_handoff() {
        assert_eq!(refusal(0, false, |_, _| {}), None);
        assert_eq!(refusal(3, false, |_, _| {}), None);
        let too_many = refusal(4, false, |_, _| {});
        assert_eq!(too_many.as_deref(), Some("4 logs are lost, 3 are tolerated"));
        assert_eq!(refusal(4, true, |_, _| {}), None, "an operator accepts it");
        let handoff = refusal(1, false, |_, facts| facts.record.clean = true);
        assert_eq!(handoff.as_deref(), Some("1 logs are lost, 0 are tolerated"));
    }

    #[test]
    fn what_is_not_known_is_not_mounted_without_an_operator() {
        let uncompared = |groups: &mut Groups, _: &mut Facts| groups.store(0).source_state.verified = EPOCH - 1;
        let why = refusal(0, false, uncompared).unwrap_or_default();
        assert!(why.starts_with("the copy was never compared"), "{why}");
        assert_eq!(refusal(0, true, uncompared), None);
        let empty = |groups: &mut Groups, _: &mut Facts| groups.store(0).stream = None;
        for loss_accepted in [false, true] {
            let why = refusal(0, loss_accepted, empty).unwrap_or_default();
            assert_eq!(why, "there is no database on this node");
        }
        let damaged = |groups: &mut Groups, _: &mut Facts| groups.store(0).damage = Some("torn".into());
        assert_eq!(refusal(0, true, damaged).as_deref(), Some("torn"));
    }

    #[test]
    fn what_the_other_member_alone_has_is_waited_for() {
        let alone = |_: &mut Groups, facts: &mut Facts| {
            facts.record.sole_copy = Some(SoleCopy {
                node: PEER.into(),
                epoch: EPOCH,
            });
            facts.heartbeat.groups[0].inspected = 1;
        };
        let why = refusal(0, false, alone).unwrap_or_default();
        assert!(why.starts_with("only node2 has all"), "{why}");
        let there = |groups: &mut Groups, facts: &mut Facts| {
            alone(groups, facts);
            facts.heartbeat.groups[0].inspected = 0;
        };
        assert_eq!(refusal(0, false, there), None, "this node has all of it by now");
    }
}
