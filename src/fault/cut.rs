//! Frames that the fabric drops silently. The proof is in the rules' counters, so it is complete only at the end.

use super::{Cut, Path, Site};
use crate::error::Result;
use crate::fabric::{Effect, Rule};
use crate::verify::FaultRecord;
use serde_json::json;

/// Ids of the rules that belong to a fault begin with this.
fn prefix(record: &FaultRecord) -> String {
    format!("fault-{}-", record.id)
}

pub(super) fn set(site: &dyn Site, cut: &Cut, record: &mut FaultRecord) -> Result<()> {
    let (_, mut rules) = site.fabric().rules();
    rules.extend(cut.paths.iter().enumerate().map(|(i, path)| Rule {
        id: format!("{}{i}", prefix(record)),
        network: path.network.clone(),
        from: path.from.clone(),
        to: path.to.clone(),
        matches: cut.matches.clone(),
        effect: Effect {
            cut: true,
            ..Effect::default()
        },
        seed: 0,
    }));
    let revision = site.fabric().set(rules)?;
    record.begin_us = site.journal().now_us();
    record.proof = json!({"revision": revision.0});
    Ok(())
}

/// Reads the counters: a cut that no frame met has proved nothing.
pub(super) fn count(site: &dyn Site, cut: &Cut, record: &mut FaultRecord) {
    let counters = site.fabric().counters();
    let ways: Vec<(&Path, Option<u64>)> = cut
        .paths
        .iter()
        .enumerate()
        .map(|(i, path)| {
            let rule = counters.rule(&format!("{}{i}", prefix(record)));
            (path, rule.map(|r| r.dropped))
        })
        .collect();
    // Gone with a supervisor that died: what an earlier look saw stands.
    if ways.iter().all(|(_, dropped)| dropped.is_none()) {
        return;
    }
    let dropped: u64 = ways.iter().filter_map(|(_, dropped)| *dropped).sum();
    let shown = ways
        .iter()
        .map(|(path, dropped)| json!({"network": path.network, "from": path.from, "to": path.to, "dropped": dropped}));
    record.proof["ways"] = shown.collect();
    record.proof["dropped"] = json!(dropped);
    record.effective = Some(dropped > 0);
}

pub(super) fn clear(site: &dyn Site, cut: &Cut, record: &mut FaultRecord) -> Result<()> {
    let prefix = prefix(record);
    let (_, rules) = site.fabric().rules();
    let (ours, rest): (Vec<_>, Vec<_>) = rules.into_iter().partition(|r| r.id.starts_with(&prefix));
    if ours.is_empty() {
        if record.end_us.is_none() && record.effective.is_none() {
            record.effective = Some(false);
            record.proof["lost"] = json!("the rules were gone before the fault ended");
        }
        return Ok(());
    }
    site.fabric().set(rest)?;
    // After the rules went, so that the last frame is counted: the fabric remembers what they had counted.
    count(site, cut, record);
    Ok(())
}
