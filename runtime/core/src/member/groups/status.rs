//! What an operator is told of the groups.

use super::{Group, Groups};
use crate::cluster::snapshot::Snapshot;
use crate::store::Store;
use ccr_contract::dump;
use ccr_contract::status::{self, CopyStatus};

impl Groups {
    /// The copies: this node answers for its own; where it is the active one, for what the other one said last. `dismounted` says why
    /// a group is not mounted although the service is here.
    pub fn copies(
        &self,
        cluster: &Snapshot<'_>,
        now: u64,
        dismounted: impl Fn(&Group) -> Option<String>,
    ) -> Vec<status::Copy> {
        let copy = |group: &Group| match group {
            Group { store, .. } if store.mounted() => copy_elsewhere(store, cluster),
            _ if cluster.evicted => own_copy(group, cluster, CopyStatus::Disabled, dismounted(group)),
            Group { store, copy, .. } => {
                let status = copy.status(now, store, self.probe_us());
                own_copy(group, cluster, status, dismounted(group))
            }
        };
        self.iter().map(copy).collect()
    }

    /// What is wrong with the databases of the service here: not mounted, or damaged and how far the other member can mend it.
    pub fn causes(&self, peer: &str, dismounted: impl Fn(&Group) -> Option<String>) -> Vec<String> {
        let mut found = Vec::new();
        for group in self.iter() {
            let Group { store, repair, .. } = group;
            found.extend(dismounted(group).map(|why| format!("{} is {why}", store.name)));
            for why in store.scrub.corrupt.values().filter(|_| store.mounted()) {
                let gives = repair.why.as_ref();
                let gives = gives.map_or_else(String::new, |why| format!("; {peer} cannot give it: {why}"));
                found.push(format!("{}: {why}{gives}", store.name));
            }
        }
        found
    }

    /// Whether a database that is served here has damage that the other member cannot mend.
    pub fn are_irreparable(&self) -> bool {
        self.iter()
            .any(|g| g.store.mounted() && !g.store.scrub.corrupt.is_empty() && g.repair.why.is_some())
    }

    /// How far the copies on a member are, for whoever moves the service without a check.
    pub fn lag_on(&self, cluster: &Snapshot<'_>, now: u64, to: &str) -> String {
        let lag = |group: &Group| {
            let (status, behind) = self.copy_on(cluster, now, to, group);
            let status = status.map_or_else(|| "unknown".to_owned(), |s| s.to_string());
            format!("{} there is {status}, {behind} logs behind", group.store.name)
        };
        self.iter().map(lag).collect::<Vec<_>>().join("; ")
    }

    /// Why a service that is stopped cannot be given to this member: nobody serves, so that no copy is Healthy.
    pub fn unfit_on(&self, cluster: &Snapshot<'_>, now: u64, to: &str) -> Option<String> {
        self.iter().find_map(|group| {
            let (name, found) = (&group.store.name, self.copy_on(cluster, now, to, group));
            match found {
                (
                    None
                    | Some(CopyStatus::Failed | CopyStatus::Seeding | CopyStatus::Suspended | CopyStatus::Disabled),
                    _,
                ) => {
                    let status = found.0.map_or_else(|| "unknown".to_owned(), |s| s.to_string());
                    Some(format!("the copy of {name} on {to} is {status}"))
                }
                (_, 0) => None,
                (_, behind) => Some(format!("the copy of {name} on {to} lacks {behind} logs")),
            }
        })
    }

    /// The status of a copy on a member, and how many logs it is behind.
    fn copy_on(&self, cluster: &Snapshot<'_>, now: u64, to: &str, group: &Group) -> (Option<CopyStatus>, u64) {
        let Group { store, copy, .. } = group;
        if to == cluster.me {
            let behind = store.source_state.generated.saturating_sub(store.last().generation);
            return (Some(copy.status(now, store, self.probe_us())), behind);
        }
        let view = cluster.last_heartbeat.and_then(|v| v.groups.get(store.at));
        let generated = store.source_state.generated.max(store.last().generation);
        let inspected = view.map_or(0, |v| v.inspected);
        (view.map(|v| v.status), generated.saturating_sub(inspected))
    }

    /// What the stores hold.
    pub fn dump(&self) -> Vec<dump::Group> {
        self.stores().map(Store::dump).collect()
    }
}

/// The other member's copy of a group that is served here, as it said last.
fn copy_elsewhere(store: &Store, cluster: &Snapshot<'_>) -> status::Copy {
    let generated = store.last().generation;
    let view = |v: &crate::wire::Heartbeat| v.groups.get(store.at).copied();
    let status = match cluster.member_heartbeat().and_then(view) {
        Some(view) => view.status,
        None if cluster.peer_evicted => CopyStatus::Disabled,
        None => CopyStatus::ServiceDown,
    };
    let view = cluster.last_heartbeat.and_then(view);
    // What it said may be older than what this node has closed, or of logs that are not this node's.
    let inspected = view.map_or(0, |v| v.inspected).min(generated);
    // What it wrote itself while it served counts as far as this node began with it.
    let served = view.is_some_and(|v| v.mounted || v.status == CopyStatus::Stopped);
    let inspected = inspected.min(if served { store.begun } else { u64::MAX });
    let inspected = inspected.min(view.and_then(|v| v.common).unwrap_or(u64::MAX));
    let replayed = view.map_or(0, |v| v.replayed).min(inspected);
    status::Copy {
        group: store.name.clone(),
        node: cluster.peer.to_owned(),
        status,
        generated,
        notified: view.map_or(0, |v| v.generated).clamp(inspected, generated),
        copied: inspected,
        inspected,
        replayed,
        copy_queue: generated - inspected,
        replay_queue: inspected - replayed,
        error: None,
    }
}

/// This node's own copy of a group.
fn own_copy(group: &Group, cluster: &Snapshot<'_>, status: CopyStatus, dismounted: Option<String>) -> status::Copy {
    let Group { store, copy, .. } = group;
    let common = store.source_state.common.unwrap_or(u64::MAX);
    let inspected = store.last().generation.min(common);
    let generated = store.source_state.generated.max(inspected);
    let replayed = store.checkpoint.generation.min(common);
    status::Copy {
        group: store.name.clone(),
        node: cluster.me.to_owned(),
        status,
        generated,
        notified: generated,
        copied: copy.copied.clamp(inspected, generated),
        inspected,
        replayed,
        copy_queue: generated - inspected,
        replay_queue: inspected.saturating_sub(replayed),
        error: (store.damage.clone())
            .or_else(|| copy.error.clone())
            .or(dismounted)
            .or_else(|| store.open_damage.clone()),
    }
}
