//! What "healthy" means, from what machines and runtime say. Pure.

use super::NodeLook;
use super::history::serves;
use super::merged::{Merged, power, silent_paths, witness_in_force};
use crate::hypervisor::DomainState;
use crate::spec::{Lab, NodeRole};
use ccr_contract::status::{Cluster, ClusterState, CopyStatus, MemberState, ServiceState, Status, WitnessHealth};

/// Why the lab is not healthy, in words; empty where it is. `up` waits for it, and a scenario's `healthy` is the same.
///
/// Every machine runs; of a lab with a runtime also: every node answers, every member is up and sees all others up on every network, the
/// witness is well, all say of the service that the same one member has it Online, every copy is Healthy.
pub fn unhealthy(lab: &Lab, looks: &[NodeLook<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in &lab.nodes {
        match looks.iter().find(|l| l.node == node.name.as_str()) {
            None => wrong.push(format!("{} was not looked at", node.name)),
            Some(l) if !runs(l) => wrong.push(format!("{} is {}", l.node, power(l.machine))),
            Some(_) => {}
        }
    }
    if lab.runtime.is_none() {
        return wrong;
    }
    for look in looks.iter().filter(|l| l.role.is_some() && runs(l)) {
        let Some(status) = look.status else {
            let cause = look.error.unwrap_or("no answer");
            wrong.push(format!("the runtime on {} does not answer: {cause}", look.node));
            continue;
        };
        if look.role == Some(NodeRole::Member) {
            match &status.cluster {
                Some(cluster) => of_cluster(look.node, cluster, &mut wrong),
                None => wrong.push(format!("{} is in no cluster", look.node)),
            }
            of_service(look.node, status, &mut wrong);
        }
    }
    // Each of them is well by itself; together they must say one thing.
    wrong.extend(Merged::of(looks).doubts);
    together(looks, &mut wrong);
    wrong
}

fn runs(look: &NodeLook<'_>) -> bool {
    look.machine == Some(DomainState::Running)
}

fn of_cluster(node: &str, cluster: &Cluster, wrong: &mut Vec<String>) {
    if cluster.state != ClusterState::Up {
        wrong.push(format!("the cluster on {node} is {:?}", cluster.state));
    }
    for m in cluster.members.iter().filter(|m| m.state != MemberState::Up) {
        wrong.push(format!("{node} sees {} as {:?}", m.name, m.state));
    }
    if let Some(w) = &cluster.witness
        && w.health != WitnessHealth::Ok
    {
        let (path, health) = witness_in_force(w).unwrap_or((&w.configured, "not in force".into()));
        wrong.push(format!("{node} has the witness {path} as {health}"));
    }
    let silent = silent_paths(cluster).into_iter();
    wrong.extend(silent.map(|path| format!("{node} has no heartbeats on {path}")));
}

fn of_service(node: &str, status: &Status, wrong: &mut Vec<String>) {
    match &status.service {
        Some(s) if s.state == ServiceState::Online => {}
        Some(s) => wrong.push(format!("{node} has the service as {:?}", s.state)),
        None => wrong.push(format!("{node} does not know the service")),
    }
    for c in status.copies.iter().filter(|c| c.status != CopyStatus::Healthy) {
        let why = c.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
        wrong.push(format!("the copy of {} on {} is {:?}{why}", c.group, c.node, c.status));
    }
}

/// One member serves, and where there is another one, it has a copy.
fn together(looks: &[NodeLook<'_>], wrong: &mut Vec<String>) {
    let members = || looks.iter().filter(|l| l.role == Some(NodeRole::Member));
    let said = || members().filter_map(|l| l.status);
    if said().filter(|s| serves(s)).count() != 1 {
        wrong.push("not exactly one member serves".to_owned());
    }
    let mut copies = said()
        .filter(|s| !serves(s))
        .flat_map(|s| s.copies.iter().filter(|c| c.node == s.node));
    if members().count() > 1 && copies.next().is_none() {
        wrong.push("no copy answers".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample::{healthy, status};
    use crate::verify::{Observation, sample};
    use ccr_contract::status::{Network, NetworkRole, Path};

    /// All that is wrong, in one line.
    fn why(all: &Observation) -> Option<String> {
        let lab = sample::lab();
        let wrong = unhealthy(&lab, &all.looks(&lab));
        (!wrong.is_empty()).then(|| wrong.join("; "))
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
        let mut all = healthy();
        assert_eq!(why(&all), None);
        for (up, seen) in [
            (Some(true), None),
            (None, None),
            (
                Some(false),
                Some("node1 has no heartbeats on private node2 → node1".to_owned()),
            ),
        ] {
            let status = status(&mut all, "node1");
            status.cluster.as_mut().unwrap().networks = silent(up);
            assert_eq!(why(&all), seen);
        }
    }

    #[test]
    fn a_failed_witness_and_a_failed_copy_have_causes() {
        let mut all = healthy();
        let witness = status(&mut all, "node2")
            .cluster
            .as_mut()
            .unwrap()
            .witness
            .as_mut()
            .unwrap();
        witness.configured = r"\\hub\other".into();
        witness.health = WitnessHealth::Failed;
        let probe = witness.probed_by.get_mut("node2").unwrap();
        (probe.ok, probe.error) = (false, Some("access denied".into()));
        let seen = why(&all).unwrap();
        assert_eq!(
            seen,
            r"node2 has the witness \\hub\witness as failed (node2: access denied)"
        );
        let mut all = healthy();
        let copy = &mut status(&mut all, "node2").copies[0];
        (copy.status, copy.error) = (CopyStatus::Failed, Some("log 7 is damaged".into()));
        assert!(why(&all).unwrap().ends_with("Failed: log 7 is damaged"));
    }

    #[test]
    fn members_that_say_different_things_are_not_healthy() {
        let mut all = healthy();
        let service = status(&mut all, "node2").service.as_mut().unwrap();
        service.active = Some("node2".into());
        assert!(
            why(&all).unwrap().contains("has it as Online on node"),
            "{:?}",
            why(&all)
        );
    }

    #[test]
    fn machines_and_members_that_are_not_there_are_named() {
        let mut all = healthy();
        all.nodes.get_mut("hub").unwrap().machine = Some(DomainState::Paused);
        let (node1, node2) = ("node1", "node2");
        all.nodes.get_mut(node1).unwrap().status = None;
        all.nodes.get_mut(node1).unwrap().error = Some("no answer for 5.0 s".into());
        status(&mut all, node2).cluster.as_mut().unwrap().members[0].state = MemberState::Joining;
        let seen = why(&all).unwrap();
        for part in [
            "hub is paused; the runtime on node1 does not answer: no answer for 5.0 s; node2 sees ",
            " as Joining; ",
            "node1 does not answer: node2 says so; not exactly one member serves",
        ] {
            assert!(seen.contains(part), "{part}: {seen}");
        }
        let mut all = healthy();
        all.nodes.remove("hub");
        assert_eq!(why(&all).unwrap(), "hub was not looked at");
        let mut all = healthy();
        status(&mut all, node2).copies.clear();
        assert_eq!(why(&all).unwrap(), "no copy answers");
        // What is not known is not well.
        let mut all = healthy();
        all.nodes.get_mut("hub").unwrap().machine = None;
        assert!(why(&all).unwrap().starts_with("hub is "), "{:?}", why(&all));
    }
}
