//! Restores in a row of a lab whose nodes are followed and watched: no line of events is lost or doubled.
//!
//! `FAILOVERLAB_SOAK_RESTORES` says how many (50 where absent).

use super::super::tool::{Tool, same, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const LAB: &str = "ccr";
const BASE: &str = "fifty";
const NODES: [&str; 3] = ["node1", "node2", "hub"];
const LATER: Duration = Duration::from_secs(300);

/// Number and clock of an event, as its node has them.
type Numbered = (u64, u64);

/// Each restore is followed by a move, of which the watches tell. What the journal then has of each node since the restore begins where
/// the checkpoint ended, and has each number once.
pub fn fifty(tool: &Tool) -> Result<(), String> {
    let rounds: u64 = match std::env::var("FAILOVERLAB_SOAK_RESTORES") {
        Ok(n) => n.parse().map_err(|e| format!("FAILOVERLAB_SOAK_RESTORES={n}: {e}"))?,
        Err(_) => 50,
    };
    let journal = tool.home.join("state/labs").join(LAB).join("events.jsonl");
    // All that was told before the checkpoint is in the journal: what comes again after a restore is known.
    heard(tool, &journal, 0)?;
    // Of a run that was cut off; as a rule there is none.
    tool.run(&["checkpoint", "rm", LAB, BASE])?;
    tool.ok(&["checkpoint", "create", LAB, BASE])?;
    // `up` may have brought the lab back as well.
    let before = std::fs::read_to_string(&journal).map_err(|e| e.to_string())?;
    let before = before.lines().filter(|l| l.contains("\"lab.restored\"")).count() as u64;
    let mut begins: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 1..=rounds {
        tool.ok(&["restore", LAB, BASE])?;
        let (from, to) = active(tool)?;
        tool.exec(LAB, &from, &["ccrctl", "move", &to, "--comment", "soak"])?;
        wait_for("hear of the move by the watches", LATER, || {
            same("who serves", active(tool)?.0, to.clone())
        })?;
        let told = heard(tool, &journal, before + round)?;
        let mut lines = Vec::new();
        for node in NODES {
            let numbers: Vec<u64> = told[node].iter().map(|(n, _)| *n).collect();
            let Some(first) = numbers.first().copied() else {
                continue;
            };
            let whole: Vec<u64> = (first..).take(numbers.len()).collect();
            same(&format!("round {round}: numbers of {node}"), numbers, whole)?;
            let begin = *begins.entry(node).or_insert(first);
            same(&format!("round {round}: the first new event of {node}"), first, begin)?;
            lines.push(format!("{node} {}", told[node].len()));
            same(&format!("round {round}: watches of {node}"), watches(tool, node)?, 1)?;
        }
        same("nodes that told something", lines.len() >= 2, true)?;
        eprintln!("  round {round}: {}", lines.join(", "));
    }
    Ok(())
}

/// Who serves, and the other member, as the supervisor's watches know it.
fn active(tool: &Tool) -> Result<(String, String), String> {
    let status = tool.json(&["status", LAB])?;
    let machines = status["machines"].as_array().into_iter().flatten();
    let says: Vec<&str> = machines
        .filter(|m| m["runtime"]["service"]["state"] == "Online")
        .filter_map(|m| m["runtime"]["service"]["active"].as_str())
        .collect();
    match says.as_slice() {
        [one, other] if one == other => {
            let passive = if *one == "node1" { "node2" } else { "node1" };
            Ok(((*one).to_owned(), passive.to_owned()))
        }
        _ => Err(format!("members say {says:?}")),
    }
}

/// What each node has told since the restore of this number, once the journal has all of it; fails where it has a gap.
fn heard<'a>(tool: &Tool, journal: &Path, restores: u64) -> Result<BTreeMap<&'a str, Vec<Numbered>>, String> {
    let mut told = BTreeMap::new();
    for node in NODES {
        let said = tool.exec(LAB, node, &["ccrctl", "status", "--json"])?;
        let status: Value = serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))?;
        let (next, last_us) = (status["events"]["next"].as_u64(), status["events"]["last_us"].as_u64());
        let last = next.and_then(|n| n.checked_sub(1)).zip(last_us);
        let last = last.ok_or_else(|| format!("{node} does not say how many events it had: {said}"))?;
        wait_for(&format!("have all events of {node}"), LATER, || {
            let (before, all) = around(journal, node, restores)?;
            // One that told nothing since has told this one before.
            let there = all.contains(&last) || (all.is_empty() && before.contains(&last));
            told.insert(node, all);
            there.then_some(()).ok_or_else(|| format!("{last:?} is not there"))
        })?;
    }
    Ok(told)
}

/// The events of `node` in the journal before and behind the restore of this number. One reading: the journal grows meanwhile.
fn around(journal: &Path, node: &str, restores: u64) -> Result<(Vec<Numbered>, Vec<Numbered>), String> {
    let text = std::fs::read_to_string(journal).map_err(|e| e.to_string())?;
    let mut seen = 0;
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    for event in text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
        match event["kind"].as_str() {
            Some("lab.restored") => seen += 1,
            Some("journal.gap") => return Err(format!("a gap: {event}")),
            _ if event["src"] == "node" && event["node"] == *node => {
                let number = event["node_seq"].as_u64().zip(event["node_t_us"].as_u64());
                let number = number.ok_or_else(|| format!("no number: {event}"))?;
                if seen < restores { &mut before } else { &mut behind }.push(number);
            }
            _ => {}
        }
    }
    Ok((before, behind))
}

/// How many processes watch a node, in it.
fn watches(tool: &Tool, node: &str) -> Result<usize, String> {
    super::super::ccr::watches(tool, node).map(|all| all.lines().count())
}
