//! Who is who: roles become machines at the step that names them.

use super::expression::Value;
use crate::error::{Error, Problem, Result};
use crate::fault::{Fault, Target, Words};
use crate::spec::{Lab, NodeRole, known};
use crate::verify::Observation;
use std::collections::BTreeMap;

/// The roles that a scenario may name, each with who has it.
pub const ROLES: [(&str, &str); 9] = [
    ("active", "the member that serves now"),
    ("passive", "the other member"),
    (
        "quorum-owner",
        "the member that owns the quorum resource, as all members say",
    ),
    ("non-owner", "the other member"),
    ("witness", "the machine with the share `witness`"),
    ("hub", "the hub, where the lab has one"),
    ("a", "the member that served when the scenario began"),
    ("b", "the other member"),
    ("survivor", "the member that the last fault did not hit"),
];

/// Their words.
pub(super) fn role_words<'a>() -> impl Iterator<Item = &'a str> {
    ROLES.iter().map(|(role, _)| *role)
}

/// Whether a word is a role.
pub fn is_role(word: &str) -> bool {
    role_words().any(|r| r == word)
}

/// Whether a machine of this lab can have the role.
pub(super) fn has_role(lab: &Lab, role: &str) -> bool {
    let members = lab.with_role(NodeRole::Member).count();
    match role {
        "active" | "a" | "quorum-owner" => members > 0,
        "witness" => lab.witness().is_some(),
        "hub" => lab.with_role(NodeRole::Hub).count() == 1,
        _ => members == 2,
    }
}

/// Every way in which the roles can lie on the machines of this lab: each role's machine.
pub(super) fn possible(lab: &Lab) -> Vec<BTreeMap<&'static str, String>> {
    let members: Vec<String> = lab.with_role(NodeRole::Member).map(|n| n.name.to_string()).collect();
    // Who serves, who owns the quorum, who served at first, whom the last fault left alone: none follows from another.
    const PAIRS: [(&str, &str); 4] = [
        ("active", "passive"),
        ("quorum-owner", "non-owner"),
        ("a", "b"),
        ("survivor", ""),
    ];
    let ways = if members.len() == 2 { 1 << PAIRS.len() } else { 1 };
    let way = |bits: usize| {
        let mut machines = BTreeMap::new();
        for (i, (one, other)) in PAIRS.iter().enumerate() {
            let first = (bits >> i) & 1;
            machines.extend(members.get(first).map(|m| (*one, m.clone())));
            machines.extend(members.get(1 - first).map(|m| (*other, m.clone())));
        }
        machines.extend(lab.witness().map(|w| ("witness", w.to_owned())));
        machines.extend(lab.with_role(NodeRole::Hub).next().map(|h| ("hub", h.name.to_string())));
        machines
    };
    (0..ways).map(way).collect()
}

/// What is known of who is who in one scenario, and of what was so before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    nodes: Vec<String>,
    members: Vec<String>,
    hubs: Vec<String>,
    witness: Option<String>,
    a: Option<String>,
    b: Option<String>,
    /// Members that the last fault hit.
    hit: Vec<String>,
    closed: Option<u64>,
    /// What was sampled, by the labels of the steps.
    samples: BTreeMap<String, Value>,
}

impl Roles {
    /// Of this lab; `a` and `b` are not known yet.
    pub fn of(lab: &Lab) -> Self {
        let with = |role| lab.with_role(role).map(|n| n.name.to_string()).collect();
        Self {
            nodes: lab.nodes.iter().map(|n| n.name.to_string()).collect(),
            members: with(NodeRole::Member),
            hubs: with(NodeRole::Hub),
            witness: lab.witness().map(str::to_owned),
            ..Self::default()
        }
    }

    /// The last generation that was closed when the scenario began; none where no copy answered then.
    pub(super) fn closed_at_begin(&self) -> Option<u64> {
        self.closed
    }

    /// What was sampled last by the step with this label.
    pub fn sampled(&self, label: &str) -> Option<&Value> {
        self.samples.get(label)
    }

    /// Remembers what was sampled.
    pub fn keep_sample(&mut self, label: &str, value: Value) {
        self.samples.insert(label.to_owned(), value);
    }

    /// Remembers what others have sampled.
    pub fn keep_samples_of(&mut self, others: &Self) {
        let samples = others
            .samples
            .iter()
            .map(|(label, value)| (label.clone(), value.clone()));
        self.samples.extend(samples);
    }

    /// Fixes `a` and `b`: active and passive as the scenario begins; and what was closed by then.
    pub fn begin(&mut self, seen: &Observation) {
        let copies = seen.statuses().flat_map(|(_, s)| &s.copies);
        self.closed = copies.map(|c| c.generated.max(c.inspected)).max();
        self.a = seen.active().map(str::to_owned);
        self.b = self.a.as_ref().and_then(|a| self.other(a).ok());
    }

    /// Remembers whom a fault hit, for `survivor`.
    pub fn hit(&mut self, fault: &Fault) {
        let hit: Vec<String> = fault
            .nodes()
            .into_iter()
            .filter(|n| self.members.iter().any(|m| m == n))
            .map(str::to_owned)
            .collect();
        if !hit.is_empty() {
            self.hit = hit;
        }
    }

    /// The machine that a word means now.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such role or node; [`Error::Operation`] where no node has the role now.
    pub fn resolve(&self, word: &str, seen: &Observation) -> Result<Target> {
        let vacant = |seen: &str| Error::Operation(Problem::new("find the node of a role").on(word).observed(seen));
        let node = match word {
            "active" => seen.active().ok_or_else(|| vacant(&who_serves(seen)))?.to_owned(),
            "passive" => self.other(seen.active().ok_or_else(|| vacant(&who_serves(seen)))?)?,
            "quorum-owner" => owner(seen).ok_or_else(|| vacant("the members do not name one owner"))?,
            "non-owner" => self.other(&owner(seen).ok_or_else(|| vacant("the members do not name one owner"))?)?,
            "witness" => self
                .witness
                .clone()
                .ok_or_else(|| vacant("the lab has no share `witness`"))?,
            "hub" => match self.hubs.as_slice() {
                [hub] => hub.clone(),
                [] => return Err(vacant("the lab has no hub")),
                _ => return Err(vacant("the lab has more than one hub")),
            },
            "a" => self
                .a
                .clone()
                .ok_or_else(|| vacant("nobody served when the scenario began"))?,
            "b" => self
                .b
                .clone()
                .ok_or_else(|| vacant("nobody served when the scenario began"))?,
            "survivor" => {
                let mut left = self.members.iter().filter(|m| !self.hit.contains(m));
                match (left.next(), left.next()) {
                    (Some(one), None) if !self.hit.is_empty() => one.clone(),
                    _ => return Err(vacant("the last fault did not leave exactly one member alone")),
                }
            }
            name if self.nodes.iter().any(|n| n == name) => {
                return Ok(Target {
                    role: None,
                    node: name.to_owned(),
                });
            }
            other => {
                let names = role_words().chain(self.nodes.iter().map(String::as_str));
                return Err(Error::Usage(
                    Problem::new("find the node")
                        .on(format!("`{}`", other.escape_debug()))
                        .observed("it is neither a role nor a node")
                        .remedy(known(other, names)),
                ));
            }
        };
        Ok(Target {
            role: Some(word.to_owned()),
            node,
        })
    }

    /// The machine of each role that has one now.
    pub(super) fn all(&self, seen: &Observation) -> BTreeMap<String, String> {
        let known = |role: &str| Some((role.to_owned(), self.resolve(role, seen).ok()?.node));
        role_words().filter_map(known).collect()
    }

    fn other(&self, than: &str) -> Result<String> {
        let mut others = self.members.iter().filter(|m| *m != than);
        match (others.next(), others.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => Err(Error::Operation(
                Problem::new("find the other member")
                    .on(than)
                    .observed("the lab does not have exactly two"),
            )),
        }
    }
}

/// The owner on whom all members agree that name one.
fn owner(seen: &Observation) -> Option<String> {
    let mut owners = seen
        .statuses()
        .filter_map(|(_, s)| s.cluster.as_ref()?.quorum_owner.as_deref());
    let first = owners.next()?;
    owners.all(|o| o == first).then(|| first.to_owned())
}

fn who_serves(seen: &Observation) -> String {
    let serving: Vec<&str> = seen
        .nodes
        .iter()
        .filter(|(_, v)| v.serves())
        .map(|(n, _)| n.as_str())
        .collect();
    match serving.as_slice() {
        [] => "nobody serves".to_owned(),
        many => format!("{} say that they serve", many.join(" and ")),
    }
}
/// What a person's words mean in this lab. A node is itself; a role is whoever has it by `look`, which is taken only where there is one.
///
/// # Errors
/// [`Error::Usage`] where there is no such node, role or parameter; [`Error::Operation`] where no node has the role now.
pub fn resolve_fault(words: &Words, lab: &Lab, look: impl FnOnce() -> Result<Observation>) -> Result<Fault> {
    let known = Roles::of(lab);
    let roles = words.names().into_iter().any(|n| lab.node(n).is_none() && is_role(n));
    let seen = if roles { look()? } else { Observation::default() };
    words.resolve(lab, &|name| match lab.node(name) {
        Some(n) => Ok(Target {
            role: None,
            node: n.name.to_string(),
        }),
        None => known.resolve(name, &seen),
    })
}
