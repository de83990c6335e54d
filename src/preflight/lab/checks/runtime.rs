//! What the nodes' runtime says of the cluster, the witness, the service and the copies.

use super::{Seen, wrong};
use crate::preflight::lab::facts::Facts;
use crate::spec::{NetworkRole, NodeRole};
use crate::verify::merged::Merged;
use ccr_contract::status::{Cluster, ClusterState, CopyStatus, Intent, MemberState, ServiceState, Status, Witness};

impl Facts<'_> {
    /// What each member says.
    fn members(&self) -> impl Iterator<Item = (&str, &Status)> {
        let looks = self.looks.iter().filter(|l| l.role == Some(NodeRole::Member));
        looks.filter_map(|l| Some((l.node, l.status?)))
    }
    fn clusters(&self) -> impl Iterator<Item = (&str, &Cluster)> {
        self.members().filter_map(|(n, s)| Some((n, s.cluster.as_ref()?)))
    }
    fn witnesses(&self) -> impl Iterator<Item = (&str, &Witness)> {
        self.clusters().filter_map(|(n, c)| Some((n, c.witness.as_ref()?)))
    }
    /// Networks in force that carry heartbeats between members, as a member has them.
    fn heartbeat_networks(cluster: &Cluster) -> Vec<&str> {
        let carries = cluster
            .networks
            .iter()
            .filter(|n| n.role != NetworkRole::Client && !n.paths.is_empty());
        carries.map(|n| n.name.as_str()).collect()
    }
}

pub(super) fn no_runtime(f: &Facts<'_>) -> Vec<Seen> {
    let runs = f.lab.runtime.is_some();
    let silent = f
        .looks
        .iter()
        .filter(|l| runs && l.role.is_some() && l.status.is_none());
    let why = |error: Option<&str>| error.unwrap_or("it does not answer").to_owned();
    silent.map(|l| wrong(l.node, why(l.error))).collect()
}

pub(super) fn members(f: &Facts<'_>) -> Vec<Seen> {
    let planned: Vec<&str> = f.lab.with_role(NodeRole::Member).map(|n| n.name.as_str()).collect();
    let mut all = Vec::new();
    for (node, cluster) in f.clusters() {
        if cluster.state != ClusterState::Up {
            let cause = cluster.cause.as_deref().map(|c| format!(": {c}")).unwrap_or_default();
            all.push(wrong(node, format!("its cluster is {:?}{cause}", cluster.state)));
            continue;
        }
        for name in &planned {
            match cluster.members.iter().find(|m| m.name == *name) {
                Some(m) if m.state == MemberState::Up => {}
                Some(m) => all.push(wrong(node, format!("it has {name} as {:?}", m.state))),
                None => all.push(wrong(node, format!("{name} is no member"))),
            }
        }
    }
    all
}

pub(super) fn witness_not_in_force(f: &Facts<'_>) -> Vec<Seen> {
    let differs = f
        .witnesses()
        .filter(|(_, w)| w.running.as_deref() != Some(&w.configured));
    let tell = |(n, w): (&str, &Witness)| {
        let running = w.running.as_deref().unwrap_or("none");
        wrong(n, format!("configured is {}, in force is {running}", w.configured))
    };
    differs.map(tell).collect()
}

/// Each member's own failed probe: who, and the error's words.
fn failed_probes<'a>(f: &'a Facts<'_>) -> Vec<(&'a str, &'a str)> {
    let own = f.witnesses().filter_map(|(n, w)| Some((n, w.probed_by.get(n)?)));
    let failed = own.filter(|(_, p)| !p.ok);
    failed
        .map(|(n, p)| (n, p.error.as_deref().unwrap_or("no word why")))
        .collect()
}

/// Whether the server answered, and refused.
fn is_refusal(error: &str) -> bool {
    const REFUSALS: [&str; 7] = [
        "access denied",
        "access_denied",
        "logon failure",
        "logon_failure",
        "write_protected",
        "bad_network_name",
        "object_",
    ];
    let error = error.to_lowercase();
    REFUSALS
        .iter()
        .any(|r| error.contains(r) || error.replace(' ', "_").contains(r))
}

pub(super) fn witness_unreachable(f: &Facts<'_>) -> Vec<Seen> {
    let failed = failed_probes(f).into_iter().filter(|(_, e)| !is_refusal(e));
    failed.map(|(n, e)| wrong(n, e)).collect()
}

pub(super) fn witness_rights(f: &Facts<'_>) -> Vec<Seen> {
    let failed = failed_probes(f).into_iter().filter(|(_, e)| is_refusal(e));
    failed.map(|(n, e)| wrong(n, e)).collect()
}

pub(super) fn no_witness(f: &Facts<'_>) -> Vec<Seen> {
    let without = f.clusters().filter(|(_, c)| c.votes.total == 2 && c.witness.is_none());
    without
        .map(|(n, _)| wrong(n, "it counts two votes, and no witness"))
        .collect()
}

pub(super) fn one_heartbeat_path(f: &Facts<'_>) -> Vec<Seen> {
    let one = f.clusters().filter_map(|(n, c)| {
        let networks = Facts::heartbeat_networks(c);
        // A runtime that does not tell its networks says nothing of them.
        (networks.len() < 2 && c.state == ClusterState::Up && !c.networks.is_empty())
            .then(|| wrong(n, format!("heartbeats go over: {}", or_none(&networks))))
    });
    one.collect()
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}

pub(super) fn owner_elsewhere(f: &Facts<'_>) -> Vec<Seen> {
    let merged = Merged::of(&f.looks);
    let (Some(cluster), Some(service)) = (merged.cluster(), merged.service()) else {
        return Vec::new();
    };
    match (&cluster.quorum_owner, &service.active) {
        (Some(owner), Some(active)) if owner != active && Facts::heartbeat_networks(cluster).len() < 2 => {
            vec![wrong(
                owner.clone(),
                format!("it owns the Cluster Group, {active} serves"),
            )]
        }
        _ => Vec::new(),
    }
}

pub(super) fn service_offline(f: &Facts<'_>) -> Vec<Seen> {
    let merged = Merged::of(&f.looks);
    let Some(service) = merged.service().filter(|s| s.state != ServiceState::Online) else {
        return Vec::new();
    };
    let cause = service.cause.as_deref().map(|c| format!(": {c}")).unwrap_or_default();
    vec![wrong(
        service.name.clone(),
        format!(
            "it is {:?}, the operator wants it {:?}{cause}",
            service.state, service.intent
        ),
    )]
}

pub(super) fn copy(f: &Facts<'_>) -> Vec<Seen> {
    let copies = f
        .members()
        .flat_map(|(n, s)| s.copies.iter().filter(move |c| c.node == n));
    // A service that an operator stopped has stopped its copies: that is one thing, and told as such.
    let merged = Merged::of(&f.looks);
    let stopped = merged.service().is_some_and(|s| s.intent == Intent::Stopped);
    let ill = copies.filter(|c| c.status != CopyStatus::Healthy && !(stopped && c.status == CopyStatus::Stopped));
    let tell = |c: &ccr_contract::status::Copy| {
        let why = c.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
        wrong(c.node.clone(), format!("the copy of {} is {}{why}", c.group, c.status))
    };
    ill.map(tell).collect()
}

pub(super) fn settings(f: &Facts<'_>) -> Vec<Seen> {
    let mut all = Vec::new();
    for (node, cluster) in f.clusters() {
        for network in &cluster.networks {
            let right = f.lab.network(&network.name).map(|n| n.role);
            if right.is_some_and(|r| r != network.role) {
                let right = right.map(|r| format!("{r:?}")).unwrap_or_default();
                all.push(wrong(
                    node,
                    format!("the network {} is {:?}, not {right}", network.name, network.role),
                ));
            }
        }
    }
    all
}

pub(super) fn versions(f: &Facts<'_>) -> Vec<Seen> {
    let mut said = f
        .looks
        .iter()
        .filter_map(|l| Some((l.node, l.status?.version.as_str())))
        .filter(|(_, version)| !version.is_empty());
    let Some((first, version)) = said.next() else {
        return Vec::new();
    };
    let others = said.filter(|(_, v)| *v != version);
    others
        .map(|(n, v)| wrong(format!("{first}, {n}"), format!("{version} and {v}")))
        .collect()
}
