//! What a step may expect of the lab.

use super::expression::word;
use super::roles::Roles;
use super::truth::Truth;
use crate::error::{Error, Problem, Result};
use crate::hypervisor::DomainState;
use crate::spec::{Lab, NodeRole};
use crate::verify::{Observation, health};
use ccr_contract::status::{Cluster, ClusterState, Copy, CopyStatus, Intent, ServiceState, Status};

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
    Nobody,
    Service(ServiceState),
    Cluster(ClusterState),
    Copy(CopyStatus),
}

const WORDS: [(&str, What); 23] = [
    ("healthy", What::Healthy),
    ("drained", What::Drained),
    ("machine-off", What::Off),
    ("nobody-serves", What::Nobody),
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
    pub fn names() -> [&'static str; 23] {
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

    /// Its word.
    pub fn word(&self) -> &'static str {
        let found = WORDS.iter().find(|(_, what)| *what == self.what);
        found.map_or("", |(word, _)| word)
    }

    /// Whom it is asked of, where one is named.
    pub fn target(&self) -> Option<&str> {
        self.on.as_deref()
    }

    /// Whether it makes no sense without a machine.
    pub fn needs_target(&self) -> bool {
        self.what == What::Off
    }

    /// Whether it says of the whole cluster that no node serves.
    pub fn is_of_absence(&self) -> bool {
        let absent = match self.what {
            What::Nobody => true,
            What::Service(state) => !matches!(state, ServiceState::Online | ServiceState::PartiallyOnline),
            What::Cluster(state) => state != ClusterState::Up,
            _ => false,
        };
        absent && self.on.is_none()
    }

    /// Whether it is true now, and what was seen.
    ///
    /// # Errors
    /// Where the role that it names can never be resolved.
    pub fn met(&self, lab: &Lab, roles: &Roles, seen: &Observation) -> Result<(Truth, String)> {
        let on = match &self.on {
            None => None,
            Some(word) => match roles.resolve(word, seen) {
                Ok(target) => Some(target.node),
                Err(Error::Operation(p)) => return Ok((Truth::Unknown, p.to_string())),
                Err(e) => return Err(e),
            },
        };
        let on = on.as_deref();
        Ok(match (self.what, on) {
            (What::Healthy, _) => healthy(lab, seen),
            (What::Drained, _) => drained(lab, seen),
            (What::Off, Some(node)) => {
                let state = seen.nodes.get(node).and_then(|v| v.machine);
                let off = state.map_or(Truth::Unknown, |s| Truth::of(s == DomainState::Off));
                (off, format!("{node} is {state:?}"))
            }
            (What::Nobody, on) => nobody(&members(lab, seen, on)),
            (What::Service(state), on) => service(lab, seen, state, on),
            (What::Cluster(state), on) => cluster(lab, seen, state, on),
            (What::Copy(status), on) => copies(seen, status, on),
            (What::Off, None) => {
                return Err(Error::Usage(
                    Problem::new("see a machine off").observed("the step does not say which"),
                ));
            }
        })
    }
}

/// What is known of a member and the service.
enum Said<'a> {
    /// It says so itself.
    State(ServiceState, Option<&'a str>),
    /// It says that it is in no cluster with a majority: nothing is served there.
    NoCluster(ClusterState),
    /// The hypervisor says that its processors do not run.
    Stopped(DomainState),
    /// Nobody knows.
    Silent,
}

/// A member, and what is known of it.
struct Told<'a> {
    node: &'a str,
    said: Said<'a>,
}

/// What is known of this member, else of every one.
fn members<'a>(lab: &'a Lab, seen: &'a Observation, on: Option<&'a str>) -> Vec<Told<'a>> {
    let all = lab.with_role(NodeRole::Member).map(|n| n.name.as_str());
    let nodes: Vec<&str> = on.map_or_else(|| all.collect(), |node| vec![node]);
    let told = |node| {
        let view = seen.nodes.get(node);
        let said = match (view.and_then(|v| v.machine), view.and_then(|v| v.status.as_ref())) {
            (Some(state @ (DomainState::Off | DomainState::Paused)), _) => Said::Stopped(state),
            (_, None) => Said::Silent,
            (_, Some(status)) => match (&status.service, &status.cluster) {
                (Some(s), _) => Said::State(s.state, s.active.as_deref()),
                (None, Some(c)) if c.state != ClusterState::Up => Said::NoCluster(c.state),
                _ => Said::Silent,
            },
        };
        Told { node, said }
    };
    nodes.into_iter().map(told).collect()
}

impl Told<'_> {
    fn shown(&self) -> String {
        let node = self.node;
        match &self.said {
            Said::State(s, active) => format!("{node}: {} on {}", word(s), active.unwrap_or("nobody")),
            Said::NoCluster(state) => format!("{node}: {}, serves nothing", word(state)),
            Said::Stopped(state) => format!("{node} is {state:?}"),
            Said::Silent => format!("{node} does not answer"),
        }
    }

    /// Whether it serves.
    fn serves(&self) -> Truth {
        match self.said {
            Said::State(s, active) => Truth::of(is_up(s) && active == Some(self.node)),
            Said::NoCluster(_) | Said::Stopped(_) => Truth::No,
            Said::Silent => Truth::Unknown,
        }
    }

    /// Whether it says of the service that it is in this state; where that is one in which it is up, that it is up there.
    fn says(&self, wanted: ServiceState) -> Truth {
        match self.said {
            Said::State(s, active) => Truth::of(s == wanted && (!is_up(wanted) || active == Some(self.node))),
            Said::NoCluster(_) => Truth::of(wanted == ServiceState::Offline),
            Said::Stopped(_) => Truth::No,
            Said::Silent => Truth::Unknown,
        }
    }
}

fn is_up(state: ServiceState) -> bool {
    matches!(state, ServiceState::Online | ServiceState::PartiallyOnline)
}

fn shown(told: &[Told<'_>]) -> String {
    told.iter().map(Told::shown).collect::<Vec<_>>().join(", ")
}

/// No member serves, and every one that runs says so.
fn nobody(told: &[Told<'_>]) -> (Truth, String) {
    let serves = Truth::all(told.iter().map(|t| t.serves().not()));
    (if told.is_empty() { Truth::Unknown } else { serves }, shown(told))
}

/// On a node: what it says of itself. Without, of a state in which it is up: that one node, and no more, says so of itself; of another
/// state: that every member which runs says so.
fn service(lab: &Lab, seen: &Observation, wanted: ServiceState, on: Option<&str>) -> (Truth, String) {
    let told = members(lab, seen, on);
    let truth = match on {
        Some(_) => Truth::all(told.iter().map(|t| t.says(wanted))),
        None if is_up(wanted) => {
            let one = seen
                .active()
                .is_some_and(|a| told.iter().any(|t| t.node == a && t.says(wanted).is_yes()));
            let silent = told.iter().any(|t| matches!(t.said, Said::Silent));
            match (one, silent) {
                (true, _) => Truth::Yes,
                (false, true) => Truth::Unknown,
                (false, false) => Truth::No,
            }
        }
        None => {
            let mut running = told.iter().filter(|t| !matches!(t.said, Said::Stopped(_))).peekable();
            match running.peek() {
                None => Truth::Unknown,
                Some(_) => Truth::all(running.map(|t| t.says(wanted))),
            }
        }
    };
    (truth, shown(&told))
}

/// On a node: where it says that it stands. Without: where every member does.
fn cluster(lab: &Lab, seen: &Observation, wanted: ClusterState, on: Option<&str>) -> (Truth, String) {
    let all = lab.with_role(NodeRole::Member).map(|n| n.name.as_str());
    let nodes: Vec<&str> = on.map_or_else(|| all.collect(), |node| vec![node]);
    let said = |node: &&str| seen.nodes.get(*node)?.status.as_ref()?.cluster.as_ref();
    let truth = |node| said(node).map_or(Truth::Unknown, |c| Truth::of(stands(c, wanted)));
    let shown = nodes.iter().map(|n| match said(n) {
        None => format!("{n}: no answer"),
        Some(c) => format!(
            "{n}: {} with {} of {} votes{}",
            word(&c.state),
            c.votes.have.len(),
            c.votes.total,
            c.cause.as_deref().map(|w| format!(" ({w})")).unwrap_or_default()
        ),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let truth = if nodes.is_empty() {
        Truth::Unknown
    } else {
        Truth::all(nodes.iter().map(truth))
    };
    (truth, shown)
}

/// Whether a member stands there. One that lost its majority forms anew, for as long as it has none: it is without quorum all the while.
fn stands(c: &Cluster, wanted: ClusterState) -> bool {
    let too_few = (c.votes.have.len() as u64) < u64::from(c.votes.needed);
    c.state == wanted || (wanted == ClusterState::NoQuorum && c.state == ClusterState::Forming && too_few)
}

fn copies(seen: &Observation, wanted: CopyStatus, on: Option<&str>) -> (Truth, String) {
    let active = seen.active();
    let copies: Vec<_> = seen
        .statuses()
        .flat_map(|(_, s)| s.copies.iter().filter(|c| c.node == s.node))
        .filter(|c| match on {
            Some(node) => c.node == node,
            None => active != Some(c.node.as_str()),
        })
        .collect();
    if copies.is_empty() {
        return (Truth::Unknown, "no copy answers".to_owned());
    }
    let shown: Vec<String> = copies
        .iter()
        .map(|c| format!("{} on {}: {}", c.group, c.node, word(&c.status)))
        .collect();
    (Truth::of(copies.iter().all(|c| c.status == wanted)), shown.join(", "))
}

fn healthy(lab: &Lab, seen: &Observation) -> (Truth, String) {
    let health = health(lab, &seen.looks(lab));
    let unknown = health.is_unknown();
    let (truth, shown) = told(&health.all(), "healthy");
    (if unknown { Truth::Unknown } else { truth }, shown)
}

/// Whether nothing is wrong, and what is seen: all that is wrong, else that it is `well`.
fn told(wrong: &[String], well: &str) -> (Truth, String) {
    if wrong.is_empty() {
        (Truth::Yes, well.to_owned())
    } else {
        (Truth::No, wrong.join("; "))
    }
}

/// The hubs have delivered everything, what a takeover asked for again too, and every copy has everything. It must be said: each node
/// answers, and one member serves unless an operator stopped the service.
fn drained(lab: &Lab, seen: &Observation) -> (Truth, String) {
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
    // A copy whose service is stopped replays nothing more before a start; what it has is there.
    let replays = |c: &Copy| c.replay_queue > 0 && c.status != CopyStatus::Stopped;
    for c in passive.filter(|c| c.copy_queue > 0 || replays(c)) {
        wrong.push(format!(
            "{node}: copy queue {}, replay queue {}",
            c.copy_queue, c.replay_queue
        ));
    }
}
