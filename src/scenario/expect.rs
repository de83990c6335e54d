//! What a step may expect of the lab.

use super::expression::word;
use super::roles::Roles;
use crate::error::{Error, Problem, Result};
use crate::hypervisor::DomainState;
use crate::spec::{Lab, NodeRole};
use crate::verify::{Observation, unhealthy};
use ccr_contract::status::{ClusterState, CopyStatus, Intent, ServiceState, Status};

/// An expectation, and of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    what: What,
    on: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Healthy,
    Drained,
    Off,
    Service(ServiceState),
    Cluster(ClusterState),
    Copy(CopyStatus),
}

const WORDS: [(&str, What); 22] = [
    ("healthy", What::Healthy),
    ("drained", What::Drained),
    ("machine-off", What::Off),
    ("service-online", What::Service(ServiceState::Online)),
    ("service-partially-online", What::Service(ServiceState::PartiallyOnline)),
    ("service-online-pending", What::Service(ServiceState::OnlinePending)),
    ("service-offline", What::Service(ServiceState::Offline)),
    ("service-offline-pending", What::Service(ServiceState::OfflinePending)),
    ("service-failed", What::Service(ServiceState::Failed)),
    ("cluster-up", What::Cluster(ClusterState::Up)),
    ("cluster-forming", What::Cluster(ClusterState::Forming)),
    ("cluster-stopped", What::Cluster(ClusterState::Stopped)),
    ("cluster-no-quorum", What::Cluster(ClusterState::NoQuorum)),
    ("copy-healthy", What::Copy(CopyStatus::Healthy)),
    ("copy-failed", What::Copy(CopyStatus::Failed)),
    ("copy-seeding", What::Copy(CopyStatus::Seeding)),
    ("copy-stopped", What::Copy(CopyStatus::Stopped)),
    ("copy-suspended", What::Copy(CopyStatus::Suspended)),
    ("copy-initializing", What::Copy(CopyStatus::Initializing)),
    ("copy-service-down", What::Copy(CopyStatus::ServiceDown)),
    ("copy-resynchronizing", What::Copy(CopyStatus::Resynchronizing)),
    ("copy-disabled", What::Copy(CopyStatus::Disabled)),
];

impl Expectation {
    /// The words that a file may use.
    pub fn names() -> [&'static str; 22] {
        WORDS.map(|(w, _)| w)
    }

    /// That everything is as it should be: what a scenario begins and ends with.
    pub const HEALTHY: Expectation = Expectation {
        what: What::Healthy,
        on: None,
    };

    /// That nothing is on its way any more.
    pub const DRAINED: Expectation = Expectation {
        what: What::Drained,
        on: None,
    };

    pub(super) fn parse_word(text: &str) -> Option<Self> {
        let (_, what) = WORDS.iter().find(|(w, _)| *w == text)?;
        Some(Self { what: *what, on: None })
    }

    /// Of this role or node.
    #[must_use]
    pub fn on(mut self, on: Option<String>) -> Self {
        self.on = on;
        self
    }

    /// Whether it says of the whole cluster that no node serves.
    pub fn is_of_absence(&self) -> bool {
        let absent = match self.what {
            What::Service(state) => !matches!(state, ServiceState::Online | ServiceState::PartiallyOnline),
            What::Cluster(state) => state != ClusterState::Up,
            _ => false,
        };
        absent && self.on.is_none()
    }

    /// Whether it has come true, and what was seen.
    ///
    /// # Errors
    /// Where the role that it names can never be resolved.
    pub fn met(&self, lab: &Lab, roles: &Roles, seen: &Observation) -> Result<(bool, String)> {
        let on = match &self.on {
            None => None,
            Some(word) => match roles.resolve(word, seen) {
                Ok(target) => Some(target.node),
                Err(Error::Operation(p)) => return Ok((false, p.to_string())),
                Err(e) => return Err(e),
            },
        };
        Ok(match (self.what, on) {
            (What::Healthy, _) => healthy(lab, seen),
            (What::Drained, _) => drained(lab, seen),
            (What::Off, Some(node)) => {
                let state = seen.nodes.get(&node).and_then(|v| v.machine);
                (matches!(state, Some(DomainState::Off)), format!("{node} is {state:?}"))
            }
            (What::Service(state), on) => service(seen, state, on.as_deref()),
            (What::Cluster(state), on) => each(lab, seen, on, &word(&state), |s| {
                s.cluster.as_ref().map(|c| word(&c.state))
            }),
            (What::Copy(status), on) => copies(seen, status, on.as_deref()),
            (What::Off, None) => {
                return Err(Error::Usage(
                    Problem::new("see a machine off").observed("the step does not say which"),
                ));
            }
        })
    }
}

/// On a node: what it says of itself. Without: that one node, and no more, says so of itself.
fn service(seen: &Observation, wanted: ServiceState, on: Option<&str>) -> (bool, String) {
    let views: Vec<(&str, ServiceState, Option<&str>)> = seen
        .nodes
        .iter()
        .filter_map(|(n, v)| v.service().map(|s| (n.as_str(), s.state, s.active.as_deref())))
        .collect();
    let shown: Vec<String> = views
        .iter()
        .map(|(n, s, active)| format!("{n}: {} on {}", word(s), active.unwrap_or("nobody")))
        .collect();
    let shown = if shown.is_empty() {
        "no member answers".to_owned()
    } else {
        shown.join(", ")
    };
    let up = matches!(wanted, ServiceState::Online | ServiceState::PartiallyOnline);
    let met = match on {
        // That it is up must be said by the node that has it.
        Some(node) => views
            .iter()
            .any(|(n, s, active)| *n == node && *s == wanted && (!up || *active == Some(node))),
        None if up => seen
            .active()
            .is_some_and(|a| views.iter().any(|(n, s, _)| *n == a && *s == wanted)),
        None => !views.is_empty() && views.iter().all(|(_, s, _)| *s == wanted),
    };
    (met, shown)
}

/// On a node: its word. Without: that of every member, and all of them answer.
fn each(
    lab: &Lab,
    seen: &Observation,
    on: Option<String>,
    wanted: &str,
    says: impl Fn(&ccr_contract::status::Status) -> Option<String>,
) -> (bool, String) {
    let of = |node: &str| seen.nodes.get(node)?.status.as_ref().and_then(&says);
    let nodes: Vec<String> = match on {
        Some(node) => vec![node],
        None => lab.with_role(NodeRole::Member).map(|n| n.name.to_string()).collect(),
    };
    let said: Vec<(String, Option<String>)> = nodes.into_iter().map(|n| (n.clone(), of(&n))).collect();
    let shown: Vec<String> = said
        .iter()
        .map(|(n, s)| format!("{n}: {}", s.as_deref().unwrap_or("no answer")))
        .collect();
    let met = !said.is_empty() && said.iter().all(|(_, s)| s.as_deref() == Some(wanted));
    (met, shown.join(", "))
}

fn copies(seen: &Observation, wanted: CopyStatus, on: Option<&str>) -> (bool, String) {
    let active = seen.active();
    let copies: Vec<_> = seen
        .statuses()
        .flat_map(|(_, s)| s.copies.iter().filter(|c| c.node == s.node))
        .filter(|c| match on {
            Some(node) => c.node == node,
            None => active != Some(c.node.as_str()),
        })
        .collect();
    let shown: Vec<String> = copies
        .iter()
        .map(|c| format!("{} on {}: {}", c.group, c.node, word(&c.status)))
        .collect();
    let shown = if shown.is_empty() {
        "no copy answers".to_owned()
    } else {
        shown.join(", ")
    };
    (!copies.is_empty() && copies.iter().all(|c| c.status == wanted), shown)
}

fn healthy(lab: &Lab, seen: &Observation) -> (bool, String) {
    told(&unhealthy(lab, &seen.looks(lab)), "healthy")
}

/// Whether nothing is wrong, and what is seen: all that is wrong, else that it is `well`.
fn told(wrong: &[String], well: &str) -> (bool, String) {
    if wrong.is_empty() {
        (true, well.to_owned())
    } else {
        (false, wrong.join("; "))
    }
}

/// The hubs have delivered everything, what a takeover asked for again too, and every copy has everything. It must be said: each node
/// answers, and one member serves unless an operator stopped the service.
fn drained(lab: &Lab, seen: &Observation) -> (bool, String) {
    let mut wrong = Vec::new();
    for node in lab.nodes.iter().filter(|n| n.role.is_some()) {
        match seen.nodes.get(node.name.as_str()).and_then(|v| v.status.as_ref()) {
            Some(status) => not_drained(status, seen.active(), &mut wrong),
            None => wrong.push(format!("{} does not answer", node.name)),
        }
    }
    let services = || seen.statuses().filter_map(|(_, s)| s.service.as_ref());
    if seen.active().is_none() && !services().any(|s| s.intent == Intent::Stopped) {
        wrong.push("not exactly one member serves".to_owned());
    }
    if services().any(|s| s.redelivery_due) {
        wrong.push("a redelivery is due".to_owned());
    }
    told(&wrong, "drained")
}

fn not_drained(status: &Status, active: Option<&str>, wrong: &mut Vec<String>) {
    let node = &status.node;
    if let Some(hub) = &status.hub
        && (hub.queued > 0 || hub.redeliveries > 0)
    {
        wrong.push(format!(
            "{node}: {} queued, {} redeliveries",
            hub.queued, hub.redeliveries
        ));
    }
    let passive = status.copies.iter().filter(|c| c.node == *node && active != Some(node));
    for c in passive.filter(|c| c.copy_queue > 0 || c.replay_queue > 0) {
        wrong.push(format!(
            "{node}: copy queue {}, replay queue {}",
            c.copy_queue, c.replay_queue
        ));
    }
}
