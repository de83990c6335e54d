//! One truth from what all members say: each answers for itself, and for the others only what it last heard. Pure.

use super::NodeLook;
use super::history::serves;
use crate::hypervisor::DomainState;
use crate::spec::NodeRole;
use ccr_contract::status::{Cluster, Copy, Service, ServiceState, Status, Witness};

/// The members' views, merged.
#[derive(Debug, Default)]
pub struct Merged<'a> {
    /// Whose word counts: the member with the highest epoch, of these the one that says that it serves, of these one that is up.
    pub by: Option<&'a Status>,
    /// What speaks against it, in words.
    pub doubts: Vec<String>,
}

impl<'a> Merged<'a> {
    /// Merges what the members' runtimes say.
    pub fn of(looks: &[NodeLook<'a>]) -> Self {
        let members = || looks.iter().filter(|l| l.role == Some(NodeRole::Member));
        let said = || members().filter_map(|l| l.status);
        let rank = |s: &&Status| (s.epoch, serves(s), s.service.is_some(), up(s));
        // Of equals the first: the order of the lab file.
        let by = said().reduce(|best, next| if rank(&next) > rank(&best) { next } else { best });
        let mut doubts = Vec::new();
        let service = by.and_then(|s| s.service.as_ref());
        if let (Some(by), Some(active)) = (by, service.and_then(|s| s.active.as_deref())) {
            doubts.extend(members().find(|l| l.node == active).and_then(|l| absent(l, &by.node)));
        }
        for other in said().filter(|s| Some(s.node.as_str()) != by.map(|b| b.node.as_str())) {
            match (&other.service, service) {
                (Some(theirs), Some(ours)) if view(theirs) != view(ours) => doubts.push(format!(
                    "{} has it as {:?} on {}, epoch {}",
                    other.node,
                    theirs.state,
                    theirs.active.as_deref().unwrap_or("nobody"),
                    other.epoch
                )),
                _ => {}
            }
        }
        Self { by, doubts }
    }

    /// The service.
    pub fn service(&self) -> Option<&'a Service> {
        self.by?.service.as_ref()
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<&'a Cluster> {
        self.by?.cluster.as_ref()
    }
}

fn up(s: &Status) -> bool {
    use ccr_contract::status::ClusterState::Up;
    s.cluster.as_ref().is_some_and(|c| c.state == Up)
}

fn view(s: &Service) -> (ServiceState, Option<&str>) {
    (s.state, s.active.as_deref())
}

/// Why the machine that is said to serve cannot be asked itself.
fn absent(look: &NodeLook<'_>, by: &str) -> Option<String> {
    match look.machine {
        None | Some(DomainState::Running) if look.status.is_some() => None,
        None | Some(DomainState::Running) => Some(format!("{} does not answer: {by} says so", look.node)),
        state => Some(format!("{} is {}: {by} says so", look.node, power(state))),
    }
}

/// A machine's state as a word.
pub fn power(state: Option<DomainState>) -> String {
    format!("{:?}", state.unwrap_or(DomainState::Off)).to_lowercase()
}

/// Each copy once: both members speak of it, and the one that has it knows best.
pub fn copies<'a>(looks: &[NodeLook<'a>]) -> Vec<&'a Copy> {
    let said = looks.iter().filter_map(|l| l.status);
    let told = said.flat_map(|r| r.copies.iter().map(move |c| (r, c)));
    let mut copies: Vec<(bool, &'a Copy)> = Vec::new();
    for (status, copy) in told {
        let own = status.node == copy.node;
        let mut known = copies.iter_mut();
        match known.find(|(_, c)| c.group == copy.group && c.node == copy.node) {
            Some(known) if own => *known = (true, copy),
            Some(_) => {}
            None => copies.push((own, copy)),
        }
    }
    copies.into_iter().map(|(_, c)| c).collect()
}

/// The directions between members on which nothing is heard, as `network from → to`.
pub fn silent_paths(cluster: &Cluster) -> Vec<String> {
    let paths = cluster
        .networks
        .iter()
        .flat_map(|n| n.paths.iter().map(move |p| (n, p)));
    let silent = paths.filter(|(_, p)| p.up == Some(false));
    silent
        .map(|(n, p)| format!("{} {} → {}", n.name, p.from, p.to))
        .collect()
}

/// The witness that is in force, and what the last probes of it said; `None` where none is in force.
pub fn witness_in_force(w: &Witness) -> Option<(&str, String)> {
    let causes: Vec<String> = w
        .probed_by
        .iter()
        .filter(|(_, p)| !p.ok)
        .map(|(node, p)| format!("{node}: {}", p.error.as_deref().unwrap_or("failed")))
        .collect();
    let health = format!("{:?}", w.health).to_lowercase();
    let health = if causes.is_empty() {
        health
    } else {
        format!("{health} ({})", causes.join("; "))
    };
    Some((w.running.as_deref()?, health))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample::{healthy, status};
    use crate::verify::{Observation, sample};
    use ccr_contract::status::{ClusterState, Path, WitnessHealth, WitnessProbe};

    fn service<'a>(all: &'a mut Observation, name: &str) -> &'a mut Service {
        status(all, name).service.as_mut().unwrap()
    }

    #[test]
    fn members_that_agree_have_one_truth() {
        let (lab, all) = (sample::lab(), healthy());
        let merged = Merged::of(&all.looks(&lab));
        assert_eq!(merged.service().unwrap().active.as_deref(), Some("node1"));
        assert!(merged.doubts.is_empty(), "{:?}", merged.doubts);
        assert!(Merged::of(&[]).service().is_none());
    }

    #[test]
    fn who_serves_knows_best_and_a_newer_epoch_knows_better() {
        // K23: node2 serves clients, node1 has it as failed; both in epoch 4.
        let (lab, mut all) = (sample::lab(), healthy());
        for name in ["node1", "node2"] {
            status(&mut all, name).epoch = 4;
            *service(&mut all, name) = Service {
                state: if name == "node2" {
                    ServiceState::Online
                } else {
                    ServiceState::Failed
                },
                active: (name == "node2").then(|| name.to_owned()),
                ..service(&mut all, name).clone()
            };
        }
        let merged = Merged::of(&all.looks(&lab));
        assert_eq!(merged.service().unwrap().active.as_deref(), Some("node2"));
        assert_eq!(merged.doubts, ["node1 has it as Failed on nobody, epoch 4"]);
        // One that came back from another life says what was so in an older epoch.
        status(&mut all, "node1").epoch = 5;
        assert_eq!(
            Merged::of(&all.looks(&lab)).service().unwrap().state,
            ServiceState::Failed
        );
    }

    #[test]
    fn a_machine_that_is_off_or_silent_serves_by_hearsay_only() {
        let (lab, mut all) = (sample::lab(), healthy());
        let view = all.nodes.get_mut("node1").unwrap();
        (view.machine, view.status) = (Some(DomainState::Off), None);
        let other = service(&mut all, "node2");
        (other.state, other.active) = (ServiceState::Online, Some("node1".into()));
        assert_eq!(Merged::of(&all.looks(&lab)).doubts, ["node1 is off: node2 says so"]);
        all.nodes.get_mut("node1").unwrap().machine = Some(DomainState::Running);
        assert_eq!(
            Merged::of(&all.looks(&lab)).doubts,
            ["node1 does not answer: node2 says so"]
        );
    }

    #[test]
    fn silent_paths_and_a_failed_witness_have_names() {
        let mut all = healthy();
        let status = status(&mut all, "node1");
        let cluster = status.cluster.as_mut().unwrap();
        assert!(silent_paths(cluster).is_empty());
        let path = |from: &str, to: &str, up| Path {
            from: from.into(),
            to: to.into(),
            up,
        };
        cluster.state = ClusterState::Up;
        cluster.networks = vec![ccr_contract::status::Network {
            name: "private".into(),
            role: ccr_contract::status::NetworkRole::Internal,
            paths: vec![path("node2", "node1", Some(false)), path("node1", "node2", None)],
        }];
        assert_eq!(silent_paths(cluster), ["private node2 → node1"]);
        let w = cluster.witness.as_mut().unwrap();
        assert_eq!(witness_in_force(w), Some((r"\\hub\witness", "ok".into())));
        // Another one is configured: the health is that of the one in force.
        w.configured = r"\\hub\other".into();
        w.health = WitnessHealth::Failed;
        let probe = WitnessProbe {
            ok: false,
            age_ms: 9,
            error: Some("access denied".into()),
        };
        w.probed_by.insert("node1".into(), probe);
        assert_eq!(
            witness_in_force(w),
            Some((r"\\hub\witness", "failed (node1: access denied)".into()))
        );
        w.running = None;
        assert_eq!(witness_in_force(w), None);
    }
}
