//! `labs/ccr`: the cluster, end to end.

use super::Test::{self, Alone};
use super::tool::{Lab, Tool, same};

pub const TRIALS: &[(&str, Test)] = &[
    ("ccr_control_move_and_power_loss_pass_on_forks", Alone(verify)),
    ("ccr_comes_back_healthy_and_without_a_regroup", Alone(up)),
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
        eprintln!("  {} {} {} {}", s["id"], s["verdict"], s["why"], s["timings"]);
    }
    same("scenarios", report["scenarios"].as_array().map(Vec::len), Some(3))?;
    same("verdict", report["verdict"].as_str(), Some("pass"))?;
    same("exit code", out.status.code(), Some(0))
}
