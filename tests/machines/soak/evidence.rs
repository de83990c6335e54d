//! Evidence that was lost is not evidence of anything: the supervisor is killed at random moments of a scenario.
//!
//! `FAILOVERLAB_SOAK_KILLS` says how many moments of each scenario (20 where absent).

use super::super::bare::{kill, supervisor_of};
use super::super::tool::{Tool, same, text, wait_for};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// The last look comes so long before the end of a scenario: who kills later kills a run that has seen everything.
const AFTER_THE_LAST_LOOK: f64 = 1.5;

/// Kills the fork's supervisor in F05 and in F00: none of these may be a *pass*.
pub fn killed(tool: &Tool) -> Result<(), String> {
    let kills = match std::env::var("FAILOVERLAB_SOAK_KILLS") {
        Ok(n) => n.parse().map_err(|e| format!("FAILOVERLAB_SOAK_KILLS={n}: {e}"))?,
        Err(_) => 20,
    };
    for id in ["F05", "F00"] {
        let whole = run(tool, id, None)?;
        same("verdict without a kill", whole.verdict.as_str(), "pass")?;
        let mut counted = 0;
        let mut random = id[1..].parse::<u64>().map_err(|e| e.to_string())?;
        // A kill that came behind the last look proves nothing: another one for it.
        for _ in 0..2 * kills {
            if counted == kills {
                break;
            }
            let moment = Duration::from_secs_f64((whole.seconds - AFTER_THE_LAST_LOOK) * fraction(&mut random));
            let killed = run(tool, id, Some(moment))?;
            eprintln!(
                "  {id} killed at {:.1} s of {:.1} s: {} {:?}",
                killed.killed_s.unwrap_or(f64::NAN),
                killed.seconds,
                killed.verdict,
                killed.why
            );
            let Some(at) = killed.killed_s.filter(|at| at + AFTER_THE_LAST_LOOK < killed.seconds) else {
                continue;
            };
            counted += 1;
            if killed.verdict == "pass" {
                return Err(format!("{id} passed, though its supervisor was killed at {at:.1} s"));
            }
        }
        same("kills that came in time", counted, kills)?;
    }
    Ok(())
}

/// What became of a run.
struct Ran {
    verdict: String,
    why: Option<String>,
    /// How long the scenario took.
    seconds: f64,
    /// When the supervisor was killed, in the scenario's time.
    killed_s: Option<f64>,
}

/// Runs one scenario and kills its fork's supervisor at this time of it.
fn run(tool: &Tool, id: &str, moment: Option<Duration>) -> Result<Ran, String> {
    let out = tool.home.join("killed");
    if out.exists() {
        std::fs::remove_dir_all(&out).map_err(|e| e.to_string())?;
    }
    let folder = out.display().to_string();
    let args = [
        "verify",
        "ccr",
        "--scenario",
        id,
        "--jobs",
        "1",
        "--out",
        &folder,
        "--json",
    ];
    let mut command = tool.command(&args);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    let child = command.spawn().map_err(|e| e.to_string())?;
    let killed_s = match moment {
        None => None,
        Some(moment) => kill_at(tool, &out.join(id), moment, child.id())?,
    };
    let ended = child.wait_with_output().map_err(|e| e.to_string())?;
    remove_forks(tool)?;
    let report: Value = serde_json::from_slice(&ended.stdout)
        .map_err(|e| format!("verify ended with {}: {e}: {}", ended.status, text(&ended.stdout)))?;
    let scenario = &report["scenarios"][0];
    let verdict = scenario["verdict"].as_str().unwrap_or("none").to_owned();
    if verdict == "fail" {
        // It broke something, or its evidence misleads: either is to be looked at.
        let mut names = (1..=100).map(|n| tool.home.join(format!("failed-{id}-{n}")));
        let kept = names.find(|folder| !folder.exists());
        let kept = kept.ok_or("a hundred failed runs are kept already")?;
        std::fs::rename(&out, &kept).map_err(|e| e.to_string())?;
        eprintln!("  kept: {}", kept.display());
    } else {
        std::fs::remove_dir_all(&out).map_err(|e| e.to_string())?;
    }
    Ok(Ran {
        verdict,
        why: scenario["why"].as_str().map(str::to_owned),
        seconds: scenario["seconds"].as_f64().unwrap_or(0.0),
        killed_s,
    })
}

/// A supervisor that is killed while `verify` removes its fork leaves that fork, and the next one would have another name.
fn remove_forks(tool: &Tool) -> Result<(), String> {
    let labs = tool.json(&["ls"])?;
    let names = labs.as_array().into_iter().flatten().filter_map(|l| l["lab"].as_str());
    for fork in names.filter(|name| name.starts_with("ccr@")) {
        tool.ok(&["down", fork])?;
    }
    Ok(())
}

/// Waits for the scenario to begin, then until its `moment`, and kills. `None` where the run had ended by then.
fn kill_at(tool: &Tool, scenario: &Path, moment: Duration, verify: u32) -> Result<Option<f64>, String> {
    // The clients' journal is made the moment before the first look.
    wait_for("see the scenario begin", Duration::from_secs(600), || {
        let begun = scenario.join("ops.jsonl").exists() || !failoverlab::process::runs(verify);
        begun.then_some(()).ok_or_else(|| "it has not".to_owned())
    })?;
    let begun = Instant::now();
    std::thread::sleep(moment);
    let Ok(pid) = supervisor_of(tool, "ccr@1") else {
        return Ok(None);
    };
    let at = begun.elapsed().as_secs_f64();
    kill(pid)?;
    Ok(Some(at))
}

/// A fork's supervisor dies: the next one journals what the nodes tell from there on, every event once and none left out.
pub fn followed(tool: &Tool) -> Result<(), String> {
    let fork = "ccr@1";
    let warm = warm(tool)?;
    tool.ok(&["fork", "ccr", "--from", &warm])?;
    let journal = tool.home.join("state/labs").join(fork).join("events.jsonl");
    wait_for("hear of the nodes", Duration::from_secs(120), || {
        let heard = of_nodes(&journal)?;
        (!heard.is_empty())
            .then_some(())
            .ok_or_else(|| "nothing yet".to_owned())
    })?;
    kill(supervisor_of(tool, fork)?)?;
    // The networks were dark for a moment: what the cluster made of it is its own business.
    let mut status = Value::Null;
    wait_for("see the fork healthy", Duration::from_secs(300), || {
        status = tool.json(&["status", fork])?;
        status["unhealthy"].as_str().map_or(Ok(()), |why| Err(why.to_owned()))
    })?;
    same("times of darkness", status["dark"].as_array().map(Vec::len), Some(1))?;
    let machines = status["machines"].as_array().into_iter().flatten();
    let mut services = machines.filter_map(|m| m["runtime"]["service"]["active"].as_str());
    let active = services.next().ok_or("nobody serves")?.to_owned();
    let other = if active == "node1" { "node2" } else { "node1" };
    let online = |heard: &[Value]| {
        let there = |e: &&Value| e["kind"] == "service.online" && e["node"] == *other;
        heard.iter().filter(there).count()
    };
    let before = online(&of_nodes(&journal)?);
    tool.exec(fork, &active, &["ccrctl", "move", other, "--comment", "soak"])?;
    wait_for("hear of the move", Duration::from_secs(120), || {
        let heard = of_nodes(&journal)?;
        let moved = online(&heard) > before;
        moved.then_some(()).ok_or_else(|| format!("{} events", heard.len()))
    })?;
    for node in ["node1", "node2", "hub"] {
        let heard = of_nodes(&journal)?;
        let ours = heard.iter().filter(|e| e["node"] == *node);
        let numbers: Vec<u64> = ours.filter_map(|e| e["node_seq"].as_u64()).collect();
        let whole: Vec<u64> = (0..numbers.len() as u64).collect();
        same(&format!("numbers of {node}"), numbers, whole)?;
    }
    tool.ok(&["down", fork]).map(drop)
}

/// The checkpoint that the healthy lab is kept as; made where there is none.
fn warm(tool: &Tool) -> Result<String, String> {
    let find = || -> Result<Option<String>, String> {
        let kept = tool.json(&["checkpoint", "ls", "ccr"])?;
        let mut names = kept.as_array().into_iter().flatten().filter_map(|c| c["name"].as_str());
        Ok(names.find(|n| n.starts_with("healthy-")).map(str::to_owned))
    };
    if find()?.is_none() {
        tool.ok(&["up", "ccr"])?;
        tool.ok(&["down", "ccr"])?;
    }
    find()?.ok_or_else(|| "`up` kept no checkpoint".to_owned())
}

/// What the nodes told, as the journal has it.
fn of_nodes(journal: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(journal).map_err(|e| e.to_string())?;
    let events = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    Ok(events.filter(|e| e["src"] == "node").collect())
}

/// A machine that lost its power has no domain: `machine-off` comes true.
pub fn off(tool: &Tool) -> Result<(), String> {
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/soak/off.toml");
    let out = tool.run(&["verify", "ccr", "--scenario", scenario, "--jobs", "1", "--json"])?;
    let report: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {}", text(&out.stderr)))?;
    let ran = &report["scenarios"][0];
    eprintln!("  {} {}", ran["verdict"], ran["why"]);
    let checks = ran["checks"].as_array().into_iter().flatten();
    let step = checks
        .into_iter()
        .find(|c| c["text"].as_str().is_some_and(|t| t.contains("machine-off")));
    same("machine-off", step.and_then(|s| s["verdict"].as_str()), Some("pass"))?;
    same("verdict", ran["verdict"].as_str(), Some("pass"))
}

/// A number from 0 to 1 (splitmix64).
fn fraction(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
