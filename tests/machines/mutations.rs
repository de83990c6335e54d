//! Misconfigurations on machines: each is found by what its file names, and by nothing else; a clean lab has no finding.

mod record;

use super::Test::{self, Alone};
use super::tool::{Lab, Tool, same};
use serde_json::Value;
use std::collections::BTreeSet;

pub const SOAK: &[(&str, Test)] = &[
    (
        "soak_preflight_finds_nothing_in_a_clean_lab_and_a_witness_without_rights",
        Alone(found),
    ),
    ("soak_preflight_is_quiet_twenty_times_and_leaves_no_trace", Alone(quiet)),
    (
        "soak_every_misconfiguration_is_found_and_shown_by_what_its_file_names",
        Alone(all),
    ),
];

fn ids(report: &Value) -> BTreeSet<String> {
    let found = report["found"].as_array().into_iter().flatten();
    found.filter_map(|f| Some(f["id"].as_str()?.to_owned())).collect()
}

/// What preflight says of a lab that is up; whatever its exit code.
fn preflight(tool: &Tool) -> Result<Value, String> {
    let out = tool.run(&["preflight", "ccr", "--json"])?;
    let report: Value = serde_json::from_slice(&out.stdout)
        .map_err(|e| format!("preflight: {e}: {}", String::from_utf8_lossy(&out.stderr)))?;
    let expected = if ids(&report).is_empty() { 0 } else { 1 };
    same("exit code of preflight", out.status.code(), Some(expected)).map_err(|e| format!("{e}: {report:#}"))?;
    Ok(report)
}

/// Brings the lab up with a misconfiguration, and compares what is found with what its file says; seconds of the look.
fn built(tool: &Tool, mutation: &Value) -> Result<f64, String> {
    let id = mutation["id"].as_str().ok_or("a mutation without an id")?;
    let up = ["up", "ccr", "--mutation", id];
    if let Some(why) = mutation["refused"].as_str() {
        let out = tool.run(&up)?;
        same(
            &format!("exit code of `up` with {id}, {why}"),
            out.status.code(),
            Some(5),
        )?;
        eprintln!("  {id}: refused");
        let left = tool.json(&["ls"])?;
        same("labs that are left", left.as_array().map(Vec::len), Some(0))?;
        return Ok(0.0);
    }
    tool.ok(&up)?;
    let report = preflight(tool)?;
    let named = mutation["preflight"].as_array().into_iter().flatten();
    let named: BTreeSet<String> = named.filter_map(|p| Some(p.as_str()?.to_owned())).collect();
    let status = tool.json(&["status", "ccr"])?;
    same(
        "misconfigurations that status names",
        status["mutations"].as_array().map(Vec::len),
        Some(1),
    )?;
    let well = status["unhealthy"].is_null();
    same(
        &format!("whether {id} leaves the lab healthy"),
        Some(well),
        mutation["healthy"].as_bool(),
    )?;
    same(&format!("findings of {id}"), ids(&report), named).map_err(|e| format!("{e}: {report:#}"))?;
    eprintln!("  {id}: found by {:?} in {} s", ids(&report), report["seconds"]);
    report["seconds"]
        .as_f64()
        .ok_or_else(|| "a report without its time".into())
}

/// The scenario that its file names has the verdict that it says; seconds of the scenario and what it failed by, none where it names none.
fn shown(tool: &Tool, mutation: &Value) -> Result<Option<(f64, String)>, String> {
    let (id, says) = (mutation["id"].as_str().unwrap_or_default(), &mutation["shown"]);
    let Some(scenario) = says["scenario"].as_str() else {
        return Ok(None);
    };
    let out = tool.run(&["verify", "ccr", "--mutation", id, "--scenario", scenario, "--json"])?;
    let run: Value = serde_json::from_slice(&out.stdout)
        .map_err(|e| format!("verify: {e}: {}", String::from_utf8_lossy(&out.stderr)))?;
    let told = run["mutations"].as_array().map(Vec::len);
    same("misconfigurations that the run names", told, Some(1))?;
    let of = &run["scenarios"][0];
    let seen = format!("{scenario} of {id}");
    same(&seen, &of["verdict"], &says["verdict"]).map_err(|e| format!("{e}: {}", of["why"]))?;
    let broken = of["invariants"].as_array().into_iter().flatten();
    let broken: BTreeSet<String> = broken
        .filter(|i| i["verdict"] == "fail")
        .filter_map(|i| Some(i["id"].as_str()?.to_owned()))
        .collect();
    let named = says["by"].as_array().into_iter().flatten();
    let named: BTreeSet<String> = named.filter_map(|i| Some(i.as_str()?.to_owned())).collect();
    let by = broken.iter().cloned().collect::<Vec<_>>().join(", ");
    same(&format!("invariants that fail in {seen}"), broken, named).map_err(|e| format!("{e}: {}", of["why"]))?;
    let seconds = of["seconds"].as_f64().ok_or("a scenario without its time")?;
    eprintln!("  {id}: {scenario} is {} in {seconds:.0} s {by}", of["verdict"]);
    Ok(Some((seconds, by)))
}

fn catalogue(tool: &Tool) -> Result<Vec<Value>, String> {
    let all = tool.json(&["mutations", "ls", "ccr"])?;
    all.as_array().cloned().ok_or_else(|| format!("no catalogue: {all}"))
}

fn found(tool: &Tool) -> Result<(), String> {
    let lab = Lab::up(tool, "ccr", &[])?;
    let clean = preflight(tool)?;
    same("findings of a clean lab", ids(&clean), BTreeSet::new()).map_err(|e| format!("{e}: {clean:#}"))?;
    lab.down()?;
    let all = catalogue(tool)?;
    let m13 = all.iter().find(|m| m["id"] == "M13").ok_or("no M13")?;
    let done = built(tool, m13);
    tool.ok(&["down", "ccr"])?;
    done.map(drop)
}

/// What a machine has that a look into it could change.
fn trace(tool: &Tool, node: &str) -> Result<String, String> {
    const LIST: &str = "cd / && find etc data srv var/lib/ccrd root tmp -xdev -type f ! -path '*E0*' ! -path '*/queue/*' \
        -printf '%p %s %m\\n' 2>/dev/null | sort; ip -br addr; ip route; systemctl --failed --no-legend";
    tool.exec("ccr", node, &["sh", "-c", LIST])
}

fn quiet(tool: &Tool) -> Result<(), String> {
    let lab = Lab::up(tool, "ccr", &[])?;
    let nodes = ["node1", "node2", "hub"];
    let all = |tool: &Tool| -> Result<Vec<String>, String> { nodes.iter().map(|n| trace(tool, n)).collect() };
    let before = all(tool)?;
    for _ in 0..20 {
        let report = preflight(tool)?;
        same("findings of a clean lab", ids(&report), BTreeSet::new()).map_err(|e| format!("{e}: {report:#}"))?;
        eprintln!("  {} s", report["seconds"]);
    }
    same("what is in the machines", all(tool)?, before)?;
    let status = tool.json(&["status", "ccr"])?;
    same("why the lab is not healthy", status["unhealthy"].as_str(), None)?;
    lab.down()
}

/// `MUTATIONS=M13,R17` chooses. `DETECTION=docs/detection.md` keeps what was seen there.
fn all(tool: &Tool) -> Result<(), String> {
    let (chosen, page) = (std::env::var("MUTATIONS").ok(), std::env::var("DETECTION").ok());
    let is_chosen = |id: &str| chosen.as_ref().is_none_or(|c| c.split(',').any(|c| c == id));
    let mut wrong = Vec::new();
    for mutation in catalogue(tool)? {
        let id = mutation["id"].as_str().unwrap_or_default();
        if !is_chosen(id) {
            continue;
        }
        let before = built(tool, &mutation);
        tool.ok(&["down", "ccr"])?;
        let live = match &before {
            Ok(_) => shown(tool, &mutation),
            Err(_) => Ok(None),
        };
        if let Some(page) = &page {
            record::keep(page.as_ref(), &record::entry(&mutation, &before, &live))?;
        }
        for e in [before.err(), live.err()].into_iter().flatten() {
            eprintln!("  {id}: {e}");
            wrong.push(format!("{id}: {e}"));
        }
    }
    tool.ok(&["prune", "ccr"])?;
    same(
        "misconfigurations that were not found or shown as their files say",
        wrong,
        Vec::new(),
    )
}
