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
