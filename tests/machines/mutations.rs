//! Misconfigurations on machines: each is found by what its file names, and by nothing else; a clean lab has no finding.

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
        "soak_every_misconfiguration_is_found_by_what_its_file_names",
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

/// Brings the lab up with a misconfiguration, and compares what is found with what its file says.
fn built(tool: &Tool, mutation: &Value) -> Result<(), String> {
    let id = mutation["id"].as_str().ok_or("a mutation without an id")?;
    tool.ok(&["up", "ccr", "--mutation", id])?;
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
    Ok(())
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
    done
}

/// What a machine has that a look into it could change.
fn trace(tool: &Tool, node: &str) -> Result<String, String> {
    const LIST: &str = "cd / && find etc data srv var/lib/ccrd root tmp -xdev -type f ! -path '*E0*' ! -path '*/queue/*' \
        -printf '%p %s %m\\n' 2>/dev/null | sort; ip -o addr show | wc -l; ls /proc | grep -c '^[0-9]' >/dev/null";
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

/// `MUTATIONS=M13,R17` chooses.
fn all(tool: &Tool) -> Result<(), String> {
    let chosen = std::env::var("MUTATIONS").unwrap_or_default();
    let mut wrong = Vec::new();
    for mutation in catalogue(tool)? {
        let id = mutation["id"].as_str().unwrap_or_default();
        if !chosen.is_empty() && !chosen.split(',').any(|c| c == id) {
            continue;
        }
        if let Err(e) = built(tool, &mutation) {
            eprintln!("  {id}: {e}");
            wrong.push(format!("{id}: {e}"));
        }
        tool.ok(&["down", "ccr"])?;
    }
    tool.ok(&["prune", "ccr"])?;
    same(
        "misconfigurations that were not found as their files say",
        wrong,
        Vec::new(),
    )
}
