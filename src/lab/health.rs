//! What "healthy" means, from what machines and runtime say. Pure.

use super::merged::{silent_paths, witness_in_force};
use super::protocol::MachineStatus;
use crate::hypervisor::DomainState;
use crate::spec::{Lab, NodeRole};
use ccr_contract::status::{ClusterState, CopyStatus, ServiceState, WitnessHealth};

/// Why the lab is not healthy; `None` where it is.
pub fn unhealthy(lab: &Lab, machines: &[MachineStatus]) -> Option<String> {
    if let Some(m) = machines.iter().find(|m| m.domain != Some(DomainState::Running)) {
        return Some(format!("{} is {}", m.node, super::merged::power(m.domain)));
    }
    lab.runtime.as_ref()?;
    for m in machines.iter().filter(|m| m.role.is_some()) {
        let Some(status) = &m.runtime else {
            let cause = m.runtime_error.as_deref().unwrap_or("no answer");
            return Some(format!("the runtime on {} does not answer: {cause}", m.node));
        };
        if m.role != Some(NodeRole::Member) {
            continue;
        }
        let Some(cluster) = &status.cluster else {
            return Some(format!("{} is in no cluster", m.node));
        };
        if cluster.state != ClusterState::Up {
            return Some(format!("the cluster on {} is {:?}", m.node, cluster.state));
        }
        if let Some(w) = &cluster.witness
            && w.health != WitnessHealth::Ok
        {
            let (path, health) = witness_in_force(w).unwrap_or((&w.configured, "not in force".into()));
            return Some(format!("{} has the witness {path} as {health}", m.node));
        }
        if let Some(path) = silent_paths(cluster).first() {
            return Some(format!("{} has no heartbeats on {path}", m.node));
        }
        match &status.service {
            Some(s) if s.state == ServiceState::Online => {}
            Some(s) => return Some(format!("{} has the service as {:?}", m.node, s.state)),
            None => return Some(format!("{} does not know the service", m.node)),
        }
        if let Some(c) = status.copies.iter().find(|c| c.status != CopyStatus::Healthy) {
            let why = c.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
            return Some(format!("the copy of {} on {} is {:?}{why}", c.group, c.node, c.status));
        }
    }
    None
}

/// The member that serves, as the members say; `None` where none does or they do not agree.
pub fn active(machines: &[MachineStatus]) -> Option<&str> {
    let mut named = machines
        .iter()
        .filter_map(|m| m.runtime.as_ref()?.service.as_ref())
        .filter(|s| s.state == ServiceState::Online)
        .filter_map(|s| s.active.as_deref());
    let first = named.next()?;
    named.all(|n| n == first).then_some(first)
}

/// A member whose runtime answers.
pub fn any_member(machines: &[MachineStatus]) -> Option<&str> {
    machines
        .iter()
        .find(|m| m.role == Some(NodeRole::Member) && m.runtime.is_some())
        .map(|m| m.node.as_str())
}
