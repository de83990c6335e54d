//! The cables of the picture: whether frames pass, in each direction.
//!
//! The fabric says which rules are in force and what it counted. Where it does not, as in the folder of a run, the faults say it.

use crate::fabric::groups::{self, Flow};
use crate::fabric::{ANY, Counters, Effect, Match, PortCounters, Rule, RuleOwner};
use crate::spec::Lab;
use crate::verify::FaultRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One direction of a cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cable {
    /// Whether frames pass.
    pub state: CableState,
    /// What happens to them, a rule each: `cut to hub`, `loss 30%`.
    pub what: Vec<String>,
    /// The rules that frames meet there.
    pub rules: Vec<String>,
    /// Frames that passed since the fabric began; null where nobody counts.
    pub frames: Option<u64>,
    /// Frames that a rule dropped.
    pub dropped: Option<u64>,
}

/// Whether frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CableState {
    /// All of them.
    Whole,
    /// Some are lost, late, doubled or changed, or only those of some kind or to some machine.
    Impaired,
    /// None of them.
    Cut,
    /// The machine sees no carrier.
    NoCarrier,
}

impl CableState {
    /// How it is drawn: colour comes third, behind shape and word.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Whole => "─",
            Self::Impaired => "~",
            Self::Cut => "╳",
            Self::NoCarrier => "⊘",
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Impaired => "impaired",
            Self::Cut => "cut",
            Self::NoCarrier => "no carrier",
        }
    }
}

/// What is known of the networks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Networks {
    /// The rules in force, and what each port counted, by the fabric's word.
    told: Option<(Vec<Rule>, Vec<PortCounters>)>,
    /// The rules of faults in force.
    faults: BTreeMap<u64, Vec<Rule>>,
    /// Cables without carrier, as node and network, by fault.
    unplugged: BTreeMap<u64, Vec<(String, String)>>,
}

/// What happens to frames, in the target of a fault.
#[derive(Deserialize)]
struct Traffic {
    paths: Vec<Flow>,
    #[serde(default = "Effect::cut")]
    effect: Effect,
    #[serde(default, rename = "match")]
    matches: Match,
}

/// Whose carrier is away, in the target of a fault.
#[derive(Deserialize)]
struct Unplugged {
    node: String,
    networks: Vec<String>,
}

impl Networks {
    pub fn counted(&mut self, rules: &[Rule], counters: &Counters) {
        self.told = Some((rules.to_vec(), counters.ports.clone()));
    }

    pub fn injected(&mut self, f: &FaultRecord) {
        if let Ok(t) = Traffic::deserialize(&f.target) {
            let owner = RuleOwner::Fault(f.id).to_string();
            let rules = groups::rules(&owner, &t.paths, &t.matches, &t.effect, 0);
            self.faults.insert(f.id, rules);
        }
        match (f.kind.as_str(), Unplugged::deserialize(&f.target)) {
            ("link-down", Ok(c)) => {
                let cables = c.networks.into_iter().map(|n| (c.node.clone(), n));
                self.unplugged.insert(f.id, cables.collect());
            }
            ("link-up", Ok(c)) => self.unplugged.values_mut().for_each(|cables| {
                cables.retain(|(node, network)| *node != c.node || !c.networks.contains(network));
            }),
            _ => {}
        }
    }

    pub fn healed(&mut self, fault: u64) {
        self.faults.remove(&fault);
        self.unplugged.remove(&fault);
    }

    /// Both directions of every cable of the lab.
    pub fn cables(&self, lab: &Lab) -> BTreeMap<String, Cable> {
        let mut cables = BTreeMap::new();
        for node in &lab.nodes {
            for nic in &node.nics {
                for direction in ["out", "in"] {
                    let key = format!("{}/{}/{direction}", node.name, nic.network);
                    cables.insert(key, self.cable(lab, &node.name, &nic.network, direction == "out"));
                }
            }
        }
        cables
    }

    fn cable(&self, lab: &Lab, node: &str, network: &str, out: bool) -> Cable {
        let rules: Vec<&Rule> = match &self.told {
            Some((rules, _)) => rules.iter().collect(),
            None => self.faults.values().flatten().collect(),
        };
        // This end and the other one, as the rule has them.
        let ends = |r: &Rule| match out {
            true => (r.from.clone(), r.to.clone()),
            false => (r.to.clone(), r.from.clone()),
        };
        let on_it = |r: &&&Rule| {
            let (own, other) = ends(r);
            r.network == network && (own == node || own == ANY && other == ANY)
        };
        let here: Vec<&Rule> = rules.iter().filter(on_it).copied().collect();
        let cut_to: Vec<String> = here
            .iter()
            .filter(|r| r.effect.cut && r.matches == Match::default())
            .map(|r| ends(r).1)
            .collect();
        let others = lab
            .nodes
            .iter()
            .filter(|n| n.name.as_str() != node && n.address(network).is_some());
        let all_cut = cut_to.iter().any(|n| n == ANY)
            || !cut_to.is_empty() && others.map(|n| n.name.as_str()).all(|n| cut_to.iter().any(|c| c == n));
        let unplugged = |(n, net): &(String, String)| n == node && net == network;
        let state = match () {
            () if self.unplugged.values().flatten().any(unplugged) => CableState::NoCarrier,
            () if all_cut => CableState::Cut,
            () if here.is_empty() => CableState::Whole,
            () => CableState::Impaired,
        };
        let what = |r: &&Rule| {
            let matches = Some(r.matches.to_string()).filter(|m| !m.is_empty());
            let other = Some(ends(r).1).filter(|n| n != ANY);
            let towards = other.map(|n| format!("{} {n}", if out { "to" } else { "from" }));
            let parts = [Some(r.effect.to_string()), towards, matches];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        let ports = self.told.iter().flat_map(|(_, ports)| ports);
        let port = ports.into_iter().find(|p| p.network == network && p.node == node);
        let counted = port.map(|p| match out {
            true => (p.frames_in, p.dropped_in),
            false => (p.frames_out, p.dropped_out),
        });
        Cable {
            state,
            what: here.iter().map(what).collect(),
            rules: here.iter().map(|r| r.id.clone()).collect(),
            frames: counted.map(|c| c.0),
            dropped: counted.map(|c| c.1),
        }
    }
}
