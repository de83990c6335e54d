//! What the fabric does to frames on purpose: rules of its own for each fault. The proof is in the rules' counters, so it is
//! complete only at the end.

use super::{FaultContext, Target, TrafficKind};
use crate::error::Result;
use crate::fabric::groups::{self, Direction, Flow};
use crate::fabric::{ANY, Counters, Effect, Match, PortCounters, Rule, RuleCounters, RuleOwner};
use crate::verify::FaultRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Frames that do not arrive, or not as they were sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The machine whose frames these are; none where two are named, or sides, or a whole network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Target>,
    /// The two between whom it happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[Target; 2]>,
    /// The sides of a partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<Vec<Target>>,
    /// The direction, seen from `on`, or from the first of `between`.
    #[serde(default)]
    pub direction: Direction,
    /// Which frames; all where absent.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What happens to them.
    #[serde(default = "Effect::cut", skip_serializing_if = "is_cut")]
    pub effect: Effect,
    /// Seed of its random choices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The flows that are concerned, one rule each.
    #[serde(rename = "paths")]
    pub flows: Vec<Flow>,
}

fn is_cut(effect: &Effect) -> bool {
    *effect == Effect::cut()
}

impl Traffic {
    /// The machines that it hits. A partition and a dead switch hit every machine alike: none is named.
    pub fn nodes(&self) -> Vec<&str> {
        match (&self.on, &self.between) {
            (Some(t), _) => vec![&t.node],
            (None, Some([a, b])) => vec![&a.node, &b.node],
            (None, None) => Vec::new(),
        }
    }
}

/// The rules of the fault of this number: it owns them.
pub(super) fn rules(id: u64, traffic: &Traffic) -> Vec<Rule> {
    let Traffic {
        flows, matches, effect, ..
    } = traffic;
    let owner = RuleOwner::Fault(id).to_string();
    groups::rules(&owner, flows, matches, effect, traffic.seed.unwrap_or(0))
}

pub(super) fn set(context: &dyn FaultContext, traffic: &Traffic, record: &mut FaultRecord) -> Result<()> {
    let revision = context
        .fabric()
        .set(RuleOwner::Fault(record.id), rules(record.id, traffic))?;
    record.begin_us = context.journal().now_us();
    record.proof = json!({"revision": revision.0});
    // Told only where there are some: most hosts never drop a frame.
    let before = host_drops(&context.fabric().counters(), &traffic.flows);
    if before > 0 {
        record.proof["host_drops_before"] = json!(before);
    }
    Ok(())
}

/// Frames that the host's kernel dropped on the cables of `flows`: losses that are no part of the fault.
fn host_drops(counters: &Counters, flows: &[Flow]) -> u64 {
    let concerned = |p: &&PortCounters| {
        let on = |flow: &Flow| {
            flow.network == p.network && [&flow.from, &flow.to].iter().any(|n| *n == ANY || **n == p.node)
        };
        flows.iter().any(on)
    };
    let drops = |p: &PortCounters| p.host_drops_in + p.host_drops_out;
    counters.ports.iter().filter(concerned).map(drops).sum()
}

/// Reads the counters: an impairment that changed no frame's fate has proved nothing.
pub(super) fn count(context: &dyn FaultContext, kind: TrafficKind, traffic: &Traffic, record: &mut FaultRecord) {
    let counters = context.fabric().counters();
    let owner = RuleOwner::Fault(record.id).to_string();
    let counted: Vec<(&Flow, Option<&RuleCounters>)> = traffic
        .flows
        .iter()
        .map(|flow| (flow, counters.rule(&groups::rule_id(&owner, flow))))
        .collect();
    // Gone with a supervisor that died: what an earlier look saw stands.
    if counted.iter().all(|(_, counted)| counted.is_none()) {
        return;
    }
    let mut all = RuleCounters::default();
    for (_, c) in &counted {
        let Some(c) = c else { continue };
        all.matched += c.matched;
        all.dropped += c.dropped;
        all.delayed += c.delayed;
        all.duplicated += c.duplicated;
        all.corrupted += c.corrupted;
    }
    let shown = counted.iter().map(|(flow, c)| {
        let mut shown =
            json!({"network": flow.network, "from": flow.from, "to": flow.to, "dropped": c.map(|c| c.dropped)});
        if let (Value::Object(flow), Some(c)) = (&mut shown, c) {
            tell(flow, c);
        }
        shown
    });
    record.proof["ways"] = shown.collect();
    record.proof["dropped"] = json!(all.dropped);
    if let Value::Object(proof) = &mut record.proof {
        tell(proof, &all);
    }
    let before = record.proof["host_drops_before"].as_u64().unwrap_or(0);
    match host_drops(&counters, &traffic.flows).saturating_sub(before) {
        0 => {}
        n => record.proof["host_drops"] = json!(n),
    }
    record.effective = Some(effective(kind, &all));
}

fn tell(into: &mut Map<String, Value>, c: &RuleCounters) {
    for (word, n) in [
        ("matched", c.matched),
        ("delayed", c.delayed),
        ("duplicated", c.duplicated),
        ("corrupted", c.corrupted),
    ] {
        if n > 0 {
            into.insert(word.to_owned(), json!(n));
        }
    }
}

/// Whether what was counted is what the fault is about.
fn effective(kind: TrafficKind, c: &RuleCounters) -> bool {
    match kind {
        TrafficKind::Delay => c.delayed > 0,
        // What came too fast waited, or found the queue full.
        TrafficKind::Rate => c.delayed + c.dropped > 0,
        // Some were held up and others overtook them.
        TrafficKind::Reorder => c.delayed > 0 && c.matched > c.delayed,
        TrafficKind::Duplicate => c.duplicated > 0,
        TrafficKind::Corrupt => c.corrupted > 0,
        _ => c.dropped > 0,
    }
}

pub(super) fn clear(
    context: &dyn FaultContext,
    kind: TrafficKind,
    traffic: &Traffic,
    record: &mut FaultRecord,
) -> Result<()> {
    if context.fabric().remove(RuleOwner::Fault(record.id))?.is_none() {
        if record.end_us.is_none() && record.effective.is_none() {
            record.effective = Some(false);
            record.proof["lost"] = json!("the rules were gone before the fault ended");
        }
        return Ok(());
    }
    // After the rules went, so that the last frame is counted: the fabric remembers what they had counted.
    count(context, kind, traffic, record);
    Ok(())
}
