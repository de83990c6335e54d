//! `labs/ccr`: the cluster, end to end.

use super::Test::{self, Alone};
use super::bare::{kill, supervisor_of};
use super::tool::{Lab, Tool, same};

pub const TRIALS: &[(&str, Test)] = &[
    ("ccr_control_move_and_power_loss_pass_on_forks", Alone(verify)),
    ("ccr_comes_back_healthy_and_without_a_regroup", Alone(up)),
    ("ccr_is_watched_on_by_another_supervisor", Alone(watched)),
];

/// A healthy lab is what it comes back as: the service is online where it was, in the same epoch.
fn up(tool: &Tool) -> Result<(), String> {
    Lab::kept(tool, "ccr")?;
    let steps = tool.json(&["up", "ccr"])?["steps"].as_u64();
    same("steps of a lab that comes back", steps, Some(2))?;
    let status = tool.json(&["status", "ccr"])?;
    same("why it is not healthy", status["unhealthy"].as_str(), None)?;
    let events = std::fs::read_to_string(tool.home.join("state/labs/ccr/events.jsonl")).map_err(|e| e.to_string())?;
    if let Some(regroup) = events
        .lines()
        .find(|l| l.contains("cluster.regroup") || l.contains("cluster.arbitration"))
    {
        return Err(format!("the cluster did not just go on: {regroup}"));
    }
    let again = tool.json(&["up", "ccr"])?;
    same("steps of a second up", again["steps"].as_u64(), Some(0))?;
    tool.ok(&["down", "ccr"]).map(drop)
}

/// The processes that watch a node, in it.
fn watches(tool: &Tool, node: &str) -> Result<String, String> {
    const LIST: &str = r#"for p in /proc/[0-9]*; do
        [ "$(tr '\0' ' ' <$p/cmdline 2>/dev/null)" != "ccrctl status --json --follow " ] || echo $p; done"#;
    tool.exec("ccr", node, &["sh", "-c", LIST])
}

/// Every node has one watch, which looks do not start anew, and which goes on under a supervisor that adopts the lab.
fn watched(tool: &Tool) -> Result<(), String> {
    Lab::kept(tool, "ccr")?;
    let lab = Lab::up(tool, "ccr", &[])?;
    let all = |tool: &Tool| -> Result<Vec<String>, String> {
        ["node1", "node2", "hub"].iter().map(|n| watches(tool, n)).collect()
    };
    let before = all(tool)?;
    for watch in &before {
        same("watches of a node", watch.lines().count(), 1)?;
    }
    kill(supervisor_of(tool, "ccr")?)?;
    for _ in 0..5 {
        let status = tool.json(&["status", "ccr"])?;
        for machine in status["machines"].as_array().into_iter().flatten() {
            let (node, age) = (&machine["node"], &machine["age_ms"]);
            if machine["runtime"].is_null() || age.as_u64().is_none() {
                return Err(format!("{node} is not seen: {machine}"));
            }
            eprintln!("  {node}: {age} ms");
        }
    }
    same("watches behind the adoption", all(tool)?, before)?;
    lab.down()
}

fn verify(tool: &Tool) -> Result<(), String> {
    let out = tool.run(&[
        "verify",
        "ccr",
        "--scenario",
        "F00",
        "--scenario",
        "F01",
        "--scenario",
        "F05",
        "--seed",
        "7",
        "--json",
    ])?;
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {out:?}"))?;
    for s in report["scenarios"].as_array().into_iter().flatten() {
        let (looks, host) = (&s["looks"], &s["host"]);
        eprintln!(
            "  {} {} {} {} {looks} {host}",
            s["id"], s["verdict"], s["why"], s["timings"]
        );
        if looks["count"].as_u64().is_none_or(|n| n == 0) {
            return Err(format!("{} does not say how closely the lab was seen", s["id"]));
        }
    }
    same("scenarios", report["scenarios"].as_array().map(Vec::len), Some(3))?;
    same("verdict", report["verdict"].as_str(), Some("pass"))?;
    same("exit code", out.status.code(), Some(0))
}
