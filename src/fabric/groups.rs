//! Whole situations as rule sets: partitions, isolated nodes, a dead switch. Pure; roles are resolved elsewhere.

use super::rules::{ANY, Effect, Match, Proto, Rule};
use crate::error::{Error, Problem, Result};
use crate::spec::Lab;
use serde::{Deserialize, Serialize};

/// SMB: what the witness is reached by.
const WITNESS_PORT: u16 = 445;

/// Which nodes are on which network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    networks: Vec<(String, Vec<String>)>,
}

/// One direction between two nodes, or between a node and all others (`*`), on one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The network.
    pub network: String,
    /// Sender.
    pub from: String,
    /// Receiver.
    pub to: String,
}

/// In which direction a fault works, seen from the first node named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both.
    #[default]
    Both,
    /// What it sends.
    Out,
    /// What it receives.
    In,
}

impl Topology {
    /// Of a lab.
    pub fn of(lab: &Lab) -> Self {
        let on = |network: &str| {
            lab.nodes
                .iter()
                .filter(|n| n.address(network).is_some())
                .map(|n| n.name.to_string())
                .collect()
        };
        Self {
            networks: lab.networks.iter().map(|n| (n.name.to_string(), on(&n.name))).collect(),
        }
    }

    /// From names: each network with its nodes.
    pub fn new(networks: Vec<(String, Vec<String>)>) -> Self {
        Self { networks }
    }

    /// `node` apart from all others, the workstation included.
    pub fn isolate(&self, node: &str, direction: Direction, on: &[&str]) -> Result<Vec<Flow>> {
        const WHAT: &str = "isolate a node";
        self.known(WHAT, node)?;
        self.collect(WHAT, on, |nodes| {
            nodes.iter().any(|n| n == node).then(|| both(node, ANY, direction))
        })
    }

    /// `a` apart from `b`.
    pub fn between(&self, a: &str, b: &str, direction: Direction, on: &[&str]) -> Result<Vec<Flow>> {
        const WHAT: &str = "part two nodes";
        self.known(WHAT, a)?;
        self.known(WHAT, b)?;
        if a == b {
            return Err(usage(
                WHAT,
                a,
                "both names are the same".into(),
                "name two nodes".into(),
            ));
        }
        self.collect(WHAT, on, |nodes| {
            (nodes.iter().any(|n| n == a) && nodes.iter().any(|n| n == b)).then(|| both(a, b, direction))
        })
    }

    /// Every node of one side apart from every node of the others. Nodes (and the workstation) on no side reach all.
    pub fn partition(&self, sides: &[Vec<String>], on: &[&str]) -> Result<Vec<Flow>> {
        const WHAT: &str = "partition the lab";
        let wrong = |why: &str| {
            usage(
                WHAT,
                &describe(sides),
                why.into(),
                "name at least two sides, like `node1/node2,hub`".into(),
            )
        };
        if sides.len() < 2 || sides.iter().any(Vec::is_empty) {
            return Err(wrong("a partition has at least two sides, none of them empty"));
        }
        let all: Vec<&String> = sides.iter().flatten().collect();
        for (i, n) in all.iter().enumerate() {
            self.known(WHAT, n)?;
            if all[..i].contains(n) {
                return Err(wrong("a node is on two sides"));
            }
        }
        self.collect(WHAT, on, |nodes| {
            let here =
                |side: &Vec<String>| -> Vec<String> { side.iter().filter(|n| nodes.contains(n)).cloned().collect() };
            let mut flows = Vec::new();
            for (i, side) in sides.iter().enumerate() {
                for a in here(side) {
                    for b in sides[i + 1..].iter().flat_map(here) {
                        flows.extend(both(&a, &b, Direction::Both));
                    }
                }
            }
            (!flows.is_empty()).then_some(flows)
        })
    }

    /// Every node apart from every other one.
    pub fn switch_dead(&self, on: &[&str]) -> Result<Vec<Flow>> {
        self.collect("kill a switch", on, |_| Some(vec![(ANY.to_owned(), ANY.to_owned())]))
    }

    /// The flows of every network in question that `f` has something for; none at all is an error.
    fn collect(
        &self,
        what: &str,
        on: &[&str],
        f: impl Fn(&[String]) -> Option<Vec<(String, String)>>,
    ) -> Result<Vec<Flow>> {
        if let Some(unknown) = on.iter().find(|on| !self.networks.iter().any(|(n, _)| n == *on)) {
            let known: Vec<&str> = self.networks.iter().map(|(n, _)| n.as_str()).collect();
            return Err(usage(
                what,
                unknown,
                format!("there is no network `{}`", unknown.escape_debug()),
                format!("the networks are {}", known.join(", ")),
            ));
        }
        let mut flows = Vec::new();
        for (network, nodes) in &self.networks {
            let named = on.contains(&network.as_str());
            let found = f(nodes).unwrap_or_default();
            if named && found.is_empty() {
                return Err(self.apart(what, network));
            }
            if named || on.is_empty() {
                flows.extend(found.into_iter().map(|(from, to)| Flow {
                    network: network.clone(),
                    from,
                    to,
                }));
            }
        }
        if flows.is_empty() {
            return Err(self.apart(what, "any network"));
        }
        Ok(flows)
    }

    /// The error for machines that are not, or not all, on a network.
    fn apart(&self, what: &str, network: &str) -> Error {
        let each: Vec<String> = self
            .networks
            .iter()
            .map(|(n, nodes)| format!("{n}: {}", nodes.join(" ")))
            .collect();
        let seen = format!("not all of them are on {network}");
        usage(what, network, seen, each.join("; "))
    }

    fn known(&self, what: &str, node: &str) -> Result<()> {
        if self.networks.iter().any(|(_, nodes)| nodes.iter().any(|n| n == node)) {
            return Ok(());
        }
        let mut known: Vec<&str> = self
            .networks
            .iter()
            .flat_map(|(_, nodes)| nodes.iter().map(String::as_str))
            .collect();
        known.sort_unstable();
        known.dedup();
        Err(usage(
            what,
            node,
            "there is no such node".into(),
            format!("nodes: {}", known.join(", ")),
        ))
    }
}

fn both(a: &str, b: &str, direction: Direction) -> Vec<(String, String)> {
    let (out, back) = ((a.to_owned(), b.to_owned()), (b.to_owned(), a.to_owned()));
    match direction {
        Direction::Both => vec![out, back],
        Direction::Out => vec![out],
        Direction::In => vec![back],
    }
}

fn describe(sides: &[Vec<String>]) -> String {
    sides.iter().map(|s| s.join(",")).collect::<Vec<_>>().join("/")
}

fn usage(what: &str, on: &str, seen: String, remedy: String) -> Error {
    Error::Usage(Problem::new(what).on(on.escape_debug()).observed(seen).remedy(remedy))
}

/// What the witness is reached by: leave everything else between a node and the witness's host alone.
pub fn witness() -> Match {
    Match {
        proto: Some(Proto::Tcp),
        port: Some(WITNESS_PORT),
        ..Match::default()
    }
}

/// One rule for each flow; their ids begin with `id` and a colon.
pub fn rules(id: &str, flows: &[Flow], matches: &Match, effect: &Effect, seed: u64) -> Vec<Rule> {
    let rule = |p: &Flow| Rule {
        id: rule_id(id, p),
        network: p.network.clone(),
        from: p.from.clone(),
        to: p.to.clone(),
        matches: matches.clone(),
        effect: effect.clone(),
        seed,
    };
    flows.iter().map(rule).collect()
}

/// The id that [`rules`] gives the rule of a flow.
pub fn rule_id(id: &str, p: &Flow) -> String {
    format!("{id}:{}:{}>{}", p.network, p.from, p.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::compile::{Compiled, Names};

    fn topology() -> Topology {
        let n = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Topology::new(vec![
            ("public".into(), n(&["node1", "node2", "hub"])),
            ("private".into(), n(&["node1", "node2"])),
        ])
    }

    fn text(flows: &[Flow]) -> Vec<String> {
        flows
            .iter()
            .map(|p| format!("{}:{}>{}", p.network, p.from, p.to))
            .collect()
    }

    #[test]
    fn situations() {
        let t = topology();
        assert_eq!(
            text(&t.isolate("node1", Direction::Both, &[]).unwrap()),
            ["public:node1>*", "public:*>node1", "private:node1>*", "private:*>node1"]
        );
        assert_eq!(text(&t.isolate("hub", Direction::In, &[]).unwrap()), ["public:*>hub"]);
        assert_eq!(
            text(&t.between("node1", "node2", Direction::Out, &["private"]).unwrap()),
            ["private:node1>node2"]
        );
        assert_eq!(text(&t.switch_dead(&["public"]).unwrap()), ["public:*>*"]);
        let sides = [vec!["node1".to_owned()], vec!["node2".to_owned(), "hub".to_owned()]];
        assert_eq!(
            text(&t.partition(&sides, &[]).unwrap()),
            [
                "public:node1>node2",
                "public:node2>node1",
                "public:node1>hub",
                "public:hub>node1",
                "private:node1>node2",
                "private:node2>node1",
            ]
        );
    }

    #[test]
    fn every_situation_is_a_valid_rule_set() {
        let t = topology();
        let names = Names {
            networks: vec!["public".into(), "private".into()],
            ports: [(0, "node1"), (0, "node2"), (0, "hub"), (1, "node1"), (1, "node2")]
                .map(|(n, s)| (n, s.to_owned()))
                .to_vec(),
        };
        let mut all = rules(
            "iso",
            &t.isolate("node1", Direction::Both, &[]).unwrap(),
            &Match::default(),
            &Effect::cut(),
            1,
        );
        all.extend(rules(
            "w",
            &t.between("node1", "hub", Direction::Both, &[]).unwrap(),
            &witness(),
            &Effect::cut(),
            1,
        ));
        all.extend(rules(
            "dead",
            &t.switch_dead(&[]).unwrap(),
            &Match::default(),
            &Effect::cut(),
            1,
        ));
        Compiled::check(&all, &names).unwrap();
    }

    #[test]
    fn wrong_names_are_refused_and_the_right_ones_named() {
        let t = topology();
        let s = |n: &[&[&str]]| {
            n.iter()
                .map(|s| s.iter().map(|x| (*x).to_owned()).collect())
                .collect::<Vec<Vec<String>>>()
        };
        let cases = [
            (t.isolate("node9", Direction::Both, &[]), "node1, node2"),
            (
                t.isolate("node1", Direction::Both, &["pubic"]),
                "the networks are public, private",
            ),
            (t.isolate("hub", Direction::Both, &["private"]), "private: node1 node2"),
            (t.between("node1", "node1", Direction::Both, &[]), "two nodes"),
            (
                t.between("hub", "node1", Direction::Both, &["private"]),
                "private: node1 node2",
            ),
            (t.partition(&s(&[&["node1"]]), &[]), "two sides"),
            (t.partition(&s(&[&["node1"], &["node1"]]), &[]), "two sides"),
            (t.partition(&s(&[&["node1"], &["x\n"]]), &[]), "nodes: hub"),
        ];
        for (r, remedy) in cases {
            let e = r.unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.problem().unwrap().remedy.as_ref().unwrap().contains(remedy), "{e:?}");
        }
    }
}
