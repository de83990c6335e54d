//! The whole gate: every scenario of the lab, several times with different seeds.

use super::super::tool::Tool;
use serde_json::Value;

/// How often in a row all of them must pass.
const TURNS: u64 = 3;

/// Says of each scenario what came of it and how long it took. One that does not pass ends nothing: all are told.
pub fn gate(tool: &Tool) -> Result<(), String> {
    let mut wrong = Vec::new();
    for seed in 1..=TURNS {
        let out = tool.run(&["verify", "ccr", "--seed", &seed.to_string(), "--json"])?;
        let report: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {out:?}"))?;
        let scenarios = report["scenarios"].as_array().ok_or("the report has no scenarios")?;
        if scenarios.is_empty() {
            return Err("the lab has no scenarios".into());
        }
        for s in scenarios {
            let line = format!(
                "seed {seed}: {} {} {} s {}",
                s["id"], s["verdict"], s["seconds"], s["why"]
            );
            eprintln!("  {line}");
            if s["verdict"] != "pass" {
                wrong.push(line);
            }
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(format!("not passed: {}", wrong.join("; "))),
    }
}
