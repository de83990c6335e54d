//! What "healthy" means, from what machines and runtime say. Pure.

use super::merged::{Merged, silent_paths, witness_in_force};
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
    // Each of them is well by itself; together they must say one thing.
    Merged::of(machines).doubts.into_iter().next()
}

/// The member that serves and answers for itself; `None` where none does.
pub fn active(machines: &[MachineStatus]) -> Option<&str> {
    let merged = Merged::of(machines);
    let node = merged.service()?.active.as_deref()?;
    let machine = machines.iter().find(|m| m.node == node)?;
    machine.runtime.is_some().then_some(machine.node.as_str())
}

/// A member whose runtime answers.
pub fn any_member(machines: &[MachineStatus]) -> Option<&str> {
    machines
        .iter()
        .find(|m| m.role == Some(NodeRole::Member) && m.runtime.is_some())
        .map(|m| m.node.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::merged::sample::{machines, member};
    use super::*;
    use crate::verify::sample;
    use ccr_contract::status::{Network, NetworkRole, Path};

    fn why(all: &[MachineStatus]) -> Option<String> {
        unhealthy(&sample::lab(), all)
    }

    fn silent(up: Option<bool>) -> Vec<Network> {
        let path = Path {
            from: "node2".into(),
            to: "node1".into(),
            up,
        };
        vec![Network {
            name: "private".into(),
            role: NetworkRole::Internal,
            paths: vec![path],
        }]
    }

    #[test]
    fn a_network_without_heartbeats_is_not_healthy_and_is_named() {
        let mut all = machines();
        assert_eq!(why(&all), None);
        for (up, seen) in [
            (Some(true), None),
            (None, None),
            (
                Some(false),
                Some("node1 has no heartbeats on private node2 → node1".to_owned()),
            ),
        ] {
            let status = member(&mut all, "node1").runtime.as_mut().unwrap();
            status.cluster.as_mut().unwrap().networks = silent(up);
            assert_eq!(why(&all), seen);
        }
    }

    #[test]
    fn a_failed_witness_and_a_failed_copy_have_causes() {
        let mut all = machines();
        let status = member(&mut all, "node2").runtime.as_mut().unwrap();
        let witness = status.cluster.as_mut().unwrap().witness.as_mut().unwrap();
        witness.configured = r"\\hub\other".into();
        witness.health = WitnessHealth::Failed;
        let probe = witness.probed_by.get_mut("node2").unwrap();
        (probe.ok, probe.error) = (false, Some("access denied".into()));
        let seen = why(&all).unwrap();
        assert_eq!(
            seen,
            r"node2 has the witness \\hub\witness as failed (node2: access denied)"
        );
        let mut all = machines();
        let copy = &mut member(&mut all, "node2").runtime.as_mut().unwrap().copies[0];
        (copy.status, copy.error) = (CopyStatus::Failed, Some("log 7 is damaged".into()));
        assert!(why(&all).unwrap().ends_with("Failed: log 7 is damaged"));
    }

    #[test]
    fn members_that_say_different_things_are_not_healthy() {
        let mut all = machines();
        let service = member(&mut all, "node2")
            .runtime
            .as_mut()
            .unwrap()
            .service
            .as_mut()
            .unwrap();
        service.active = Some("node2".into());
        assert!(
            why(&all).unwrap().contains("has it as Online on node"),
            "{:?}",
            why(&all)
        );
    }

    #[test]
    fn orders_go_to_whoever_serves_and_answers() {
        let mut all = machines();
        assert_eq!(active(&all), Some("node1"));
        // What the other one last heard is no answer.
        member(&mut all, "node1").runtime = None;
        assert_eq!((active(&all), any_member(&all)), (None, Some("node2")));
    }
}
