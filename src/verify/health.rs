//! What "healthy" means, from what machines and runtime say. Pure.

use super::NodeLook;
use super::history::serves;
use super::merged::{Merged, power, silent_paths, witness_in_force};
use crate::hypervisor::DomainState;
use crate::probe;
use crate::spec::{self, Lab, NodeRole};
use ccr_contract::status::{Cluster, ClusterState, CopyStatus, MemberState, ServiceState, Status, WitnessHealth};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is wrong with a lab, in words. Healthy is one with nothing in either list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What is not as it must be.
    pub wrong: Vec<String>,
    /// What could not be asked or read: nobody knows whether it is as it must be.
    pub unknown: Vec<String>,
}

impl Health {
    /// Everything that keeps it from being healthy, what is certain first.
    pub fn all(self) -> Vec<String> {
        let unknown = self.unknown.into_iter().map(|u| format!("it is not known: {u}"));
        self.wrong.into_iter().chain(unknown).collect()
    }
    /// Whether all that is said against it is that it is not known.
    pub fn is_unknown(&self) -> bool {
        self.wrong.is_empty() && !self.unknown.is_empty()
    }
}

/// Why the lab is not healthy, in words; empty where it is. See [`health`].
pub fn unhealthy(lab: &Lab, looks: &[NodeLook<'_>]) -> Vec<String> {
    health(lab, looks).all()
}

/// How the lab is. `up` waits until it is healthy, and a scenario's `healthy` is the same.
///
/// Every machine runs; of a lab with `[health]` also: every probe is answered, and what must hold of the answers holds; of a lab with a runtime also: every node answers, every member is up and sees all others up on every network, the
/// witness is well, all say of the service that the same one member has it Online, every copy is Healthy.
pub fn health(lab: &Lab, looks: &[NodeLook<'_>]) -> Health {
    let mut all = Health::default();
    let wrong = &mut all.wrong;
    for node in &lab.nodes {
        match looks.iter().find(|l| l.node == node.name.as_str()) {
            None => wrong.push(format!("{} was not looked at", node.name)),
            Some(l) if !runs(l) => wrong.push(format!("{} is {}", l.node, power(l.machine))),
            Some(_) => {}
        }
    }
    if let Some(health) = lab.health.as_ref().filter(|_| wrong.is_empty()) {
        of_probes(health, looks, &mut all);
        return all;
    }
    if lab.runtime.is_none() {
        return all;
    }
    for look in looks.iter().filter(|l| l.role.is_some() && runs(l)) {
        let Some(status) = look.status else {
            let cause = look.error.unwrap_or("no answer");
            wrong.push(format!("the runtime on {} does not answer: {cause}", look.node));
            continue;
        };
        unread(look.node, status, &mut all.unknown);
        wrong.extend(status.wrong.iter().map(|w| format!("{}: {w}", look.node)));
        if look.role == Some(NodeRole::Member) {
            match &status.cluster {
                Some(cluster) => of_cluster(look.node, cluster, wrong),
                None => wrong.push(format!("{} is in no cluster", look.node)),
            }
            of_service(look.node, status, wrong);
        }
    }
    // Each of them is well by itself; together they must say one thing.
    wrong.extend(Merged::of(looks).doubts);
    together(looks, wrong);
    all
}

/// What a node says that it could not read.
fn unread(node: &str, status: &Status, unknown: &mut Vec<String>) {
    let say = |(name, why): (&String, &String)| format!("`{name}` on {node}: {why}");
    unknown.extend(status.unread.iter().map(say));
}

/// The probes of a lab file. An expression that asks for an answer which is not there is not judged.
fn of_probes(health: &spec::Health, looks: &[NodeLook<'_>], all: &mut Health) {
    let mut answers: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
    for look in looks {
        let asked = || {
            health
                .probes
                .iter()
                .filter(|p| p.on.iter().any(|n| n.as_str() == look.node))
        };
        if asked().next().is_none() {
            continue;
        }
        let Some(status) = look.status else {
            let cause = look.error.unwrap_or("no answer");
            all.unknown.push(format!("{} cannot be asked: {cause}", look.node));
            continue;
        };
        unread(look.node, status, &mut all.unknown);
        for probe in asked() {
            let name = probe.probe.name.as_str();
            match status.facts.get(name) {
                Some(answer) => drop(answers.entry(name).or_default().insert(look.node, answer)),
                None if status.unread.contains_key(name) => {}
                None => all.unknown.push(format!("`{name}` on {} was not asked", look.node)),
            }
        }
    }
    for must in &health.must {
        match probe::holds(must, &answers) {
            Ok(true) => {}
            Ok(false) => all
                .wrong
                .push(format!("`{must}` does not hold: {}", shown(must, &answers))),
            // Why is said above.
            Err(_) if !all.unknown.is_empty() => {}
            Err(why) => all.unknown.push(format!("`{must}`: {why}")),
        }
    }
}

/// Longest answer that is shown as it is.
const SHOWN: usize = 120;

/// What an expression asked for.
fn shown(must: &str, answers: &BTreeMap<&str, BTreeMap<&str, &Value>>) -> String {
    let names = probe::names(must).unwrap_or_default();
    let value = |name: &String| match probe::evaluate(name, answers) {
        Ok(value) => format!("{name} is {}", cut(&value.to_string())),
        Err(why) => format!("{name}: {why}"),
    };
    names.iter().map(value).collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
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
