//! `labs/ccr`: the cluster, end to end.

use super::Test::{self, Alone};
use super::bare::{kill, supervisor_of};
use super::tool::{Lab, Tool, same, steps};

pub const TRIALS: &[(&str, Test)] = &[
    ("ccr_control_move_and_power_loss_pass_on_forks", Alone(verify)),
    ("ccr_comes_back_healthy_and_without_a_regroup", Alone(up)),
    ("ccr_is_watched_on_by_another_supervisor", Alone(watched)),
    ("ccr_another_setting_needs_no_boot", Alone(setting)),
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
pub fn watches(tool: &Tool, node: &str) -> Result<String, String> {
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

/// A lab with another heartbeat begins with the machines that have booted, and nothing else of it is as it was.
fn setting(tool: &Tool) -> Result<(), String> {
    const FILE: &str = include_str!("../../labs/ccr/lab.toml");
    Lab::kept(tool, "ccr")?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    // One that no earlier run kept; under a second, so that it is told as it is written.
    let ms = 750 + std::process::id() % 250;
    let other = FILE.replace("heartbeat = \"1.2 s\"", &format!("heartbeat = \"{ms} ms\""));
    std::fs::write(dir.path().join("lab.toml"), other).map_err(|e| e.to_string())?;
    let lab = dir.path().display().to_string();
    let plan = tool.json(&["up", &lab, "--dry-run"])?;
    let origin = &plan["origin"];
    same("the layer", origin["layer"].as_str(), Some("booted"))?;
    let reason = origin["reason"].as_str().unwrap_or_default();
    let differs = format!("runtime.settings.heartbeat ({ms} ms, was ");
    same(
        &format!("the setting is named in: {reason}"),
        reason.contains(&differs),
        true,
    )?;

    tool.ok(&["up", &lab])?;
    let events = std::fs::read_to_string(tool.home.join("state/labs/ccr/events.jsonl")).map_err(|e| e.to_string())?;
    let from = origin["from"].as_str().unwrap_or("none");
    let restored = events.lines().any(|l| l.contains("lab.restored") && l.contains(from));
    same("it came back from there", restored, true)?;
    same("a machine booted", events.contains("\"booted\""), false)?;
    let config = tool.exec("ccr", "node2", &["cat", "/etc/ccrd/ccrd.toml"])?;
    let in_force = config.lines().any(|l| l == format!("\"heartbeat_ms\" = {ms}"));
    same("the setting is in force", in_force, true)?;
    let status = tool.json(&["status", "ccr"])?;
    same("why it is not healthy", status["unhealthy"].as_str(), None)?;
    // Both layers are known wherever checkpoints are.
    let kept = tool.json(&["checkpoint", "ls", "ccr"])?;
    let kept = kept.as_array().into_iter().flatten();
    let used = kept
        .filter(|c| c["used_by"] == "ccr")
        .filter_map(|c| c["name"].as_str());
    same("what the lab came from", used.collect::<Vec<_>>(), vec![from])?;
    let refused = tool.run(&["restore", "ccr", from])?;
    same(
        "a restore of machines that have only booted",
        refused.status.code(),
        Some(2),
    )?;
    let again = tool.json(&["up", &lab])?;
    same("steps of a second up", again["steps"].as_u64(), Some(0))?;
    tool.ok(&["down", "ccr"])?;
    let steps = steps(tool, &lab, &[])?;
    same(
        "steps of the next up",
        steps,
        ["start-supervisor", "restore", "wait-healthy"]
            .map(str::to_owned)
            .into(),
    )
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
        // One that an order has to be refused in, one with a fault inside a machine.
        "--scenario",
        "F02",
        "--scenario",
        "F33",
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
    same("scenarios", report["scenarios"].as_array().map(Vec::len), Some(5))?;
    same("verdict", report["verdict"].as_str(), Some("pass"))?;
    same("exit code", out.status.code(), Some(0))
}
