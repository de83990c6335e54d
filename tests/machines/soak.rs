//! What is too long for CI: `scripts/test soak` sets `FAILOVERLAB_SOAK`.

mod daemon;
mod evidence;
mod gate;
mod restores;

use super::Test::{self, Alone, With};
use super::bare::{keep, kill, supervisor_of};
use super::tool::{Tool, same};
use std::time::Duration;

pub const TRIALS: &[(&str, Test)] = &[
    (
        "soak_killed_at_any_moment_the_lab_is_there_or_comes_back",
        With("bare", killed),
    ),
    ("soak_the_gate_passes_three_times_in_a_row", Alone(gate::gate)),
    ("soak_fifty_restores_of_one_checkpoint", Alone(fifty)),
    (
        "soak_fifty_restores_in_a_row_lose_and_double_no_event",
        With("ccr", restores::fifty),
    ),
    (
        "soak_a_supervisor_killed_in_a_scenario_is_never_a_pass",
        Alone(evidence::killed),
    ),
    (
        "soak_a_fork_that_is_adopted_is_followed_again",
        Alone(evidence::followed),
    ),
    ("soak_a_machine_without_power_is_seen_off", Alone(evidence::off)),
    ("soak_a_hung_daemon_is_found_on_both_members", With("ccr", daemon::hung)),
    (
        "soak_damage_on_the_passive_costs_nothing_acknowledged",
        With("ccr", daemon::damaged),
    ),
];

/// Kills the supervisor at forty moments of checkpoint, restore and fork.
fn killed(tool: &Tool) -> Result<(), String> {
    keep(tool, "base")?;
    for round in 0..40u64 {
        let (instance, args): (&str, &[&str]) = match round % 3 {
            0 => ("bare", &["checkpoint", "create", "bare", "half"]),
            1 => ("bare", &["restore", "bare", "base"]),
            _ => ("bare@1", &["fork", "bare", "--from", "base"]),
        };
        // Spread over the two and a half seconds that each of them takes, never the same twice.
        let moment = Duration::from_millis(round * 67 % 2500);
        eprintln!("  {} killed after {moment:?}", args.join(" "));
        let mut child = tool.command(args).spawn().map_err(|e| e.to_string())?;
        std::thread::sleep(moment);
        if let Ok(pid) = supervisor_of(tool, instance) {
            kill(pid)?;
        }
        let _ = child.wait();
        if tool.home.join("state/labs/bare@1").exists() {
            tool.ok(&["down", "bare@1"])?;
        }
        tool.ok(&["up", "bare"])?;
        let status = tool.json(&["status", "bare"])?;
        same("why it is not healthy", status["unhealthy"].as_str(), None)?;
        same("machines", tool.machines(), 3)?;
        let kept = tool.json(&["checkpoint", "ls", "bare"])?;
        for name in kept.as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()) {
            if name == "half" {
                tool.ok(&["checkpoint", "rm", "bare", "half"])?;
            }
        }
    }
    Ok(())
}

/// Every run begins with a restore of the same checkpoint: it serves at once, no member regroups, the invariants hold. I3 needs a failover:
/// five more.
fn fifty(tool: &Tool) -> Result<(), String> {
    let restored = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/restored.toml");
    tool.ok(&[
        "verify",
        "ccr",
        "--scenario",
        restored,
        "--repeat",
        "50",
        "--jobs",
        "1",
        "--json",
    ])?;
    tool.ok(&[
        "verify",
        "ccr",
        "--scenario",
        "F05",
        "--repeat",
        "5",
        "--jobs",
        "1",
        "--json",
    ])
    .map(drop)
}
