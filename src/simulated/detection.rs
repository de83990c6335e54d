//! Which scenario of the gate finds which planted bug of the runtime, in the simulator.
//!
//! `UPDATE_DOCS=1 cargo test --release --features planted-bugs --lib simulated::detection -- --ignored` hunts (minutes), and writes
//! docs/planted-bugs.md and `detection/found.toml`; without `UPDATE_DOCS` it wants that nothing is found less than that file says.

use super::tests::{gate, run_in};
use super::*;
use crate::verify::{ScenarioReport, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Seeds with which each scenario is tried.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;

/// How a bug showed itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    scenario: String,
    seed: u64,
    /// The invariants that failed.
    #[serde(default)]
    invariants: Vec<String>,
    /// Why the scenario did not pass, where none of the bug's own invariants failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

type AllFound = BTreeMap<String, Found>;

fn kept() -> AllFound {
    toml::from_str(include_str!("detection/found.toml")).unwrap()
}

/// What a run of a scenario shows of a bug; nothing where it passed.
fn found(s: &ScenarioReport, seed: u64, breaks: &[&str]) -> Option<Found> {
    if matches!(s.verdict, Verdict::Pass | Verdict::Skipped) {
        return None;
    }
    let failed = s.invariants.iter().filter(|i| i.verdict == Verdict::Fail);
    let invariants: Vec<String> = failed.map(|i| i.id.clone()).collect();
    let own = invariants.iter().any(|id| breaks.contains(&id.as_str()));
    Some(Found {
        scenario: s.id.clone(),
        seed,
        invariants,
        why: (!own).then(|| s.why.clone().unwrap_or_else(|| format!("{:?}", s.verdict))),
    })
}

/// The first run in which an invariant of the bug's own fails, else the first that does not pass.
fn hunt(lab: &Lab, all: &[Scenario], bug: Bug, breaks: &[&str]) -> Option<Found> {
    let worlds = SimWorlds {
        planted: Some(bug),
        ..SimWorlds::new(lab, Arc::default()).unwrap()
    };
    let mut first = None;
    for seed in SEEDS {
        let dir = tempfile::tempdir().unwrap();
        let report = run_in(&dir.path().join("run"), &worlds, lab, all, seed);
        let each = report.scenarios.iter().filter_map(|s| found(s, seed, breaks));
        let (own, other): (Vec<_>, Vec<_>) = each.partition(|f| f.why.is_none());
        if let Some(own) = own.into_iter().next() {
            return Some(own);
        }
        first = first.or_else(|| other.into_iter().next());
    }
    first
}

/// docs/planted-bugs.md.
fn page(all: &AllFound) -> String {
    let mut page = String::from(HEAD);
    for (bug, breaks) in Bug::ALL {
        let name = format!("{bug:?}");
        let how = match all.get(&name) {
            None => "nothing".to_owned(),
            Some(f) => {
                let by = f.why.clone().unwrap_or_else(|| f.invariants.join(", "));
                format!("{}, seed {}\n  *Shown by*: {by}", f.scenario, f.seed)
            }
        };
        writeln!(page, "- `{name}` ({}): {how}", breaks.join(", ")).unwrap();
    }
    let own = all.values().filter(|f| f.why.is_none()).count();
    let (found, total) = (all.len(), Bug::ALL.len());
    writeln!(
        page,
        "\nFound by an invariant of its own: {own} of {total}; by any sign: {found} of {total}."
    )
    .unwrap();
    page
}

const HEAD: &str = "\
# Planted bugs

What the gate's scenarios are worth: each bug that can be planted in the runtime (`runtime/core/src/planted.rs`), the
invariants of which it breaks one, and which scenario of `ccr` finds it first in the simulator, with ten seeds each.
Without a bug the same scenarios pass with these seeds. The random plans of the simulator find all of them
(`runtime/core/tests/planted.rs`, in CI); what the gate does not find needs an instant, a disk error or a kind of mail
that none of its scenarios has. `src/simulated/detection.rs` writes this page.

";

#[test]
#[ignore = "minutes: make soak"]
fn scenarios_find_planted_bugs() {
    let (lab, all) = gate();
    let mut now = AllFound::new();
    for (bug, breaks) in Bug::ALL {
        let found = hunt(&lab, &all, bug, breaks);
        println!("{bug:?}: {found:?}");
        now.extend(found.map(|f| (format!("{bug:?}"), f)));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let toml = toml::to_string(&now).unwrap();
        fs_err::write(root.join("src/simulated/detection/found.toml"), toml).unwrap();
        return fs_err::write(root.join("docs/planted-bugs.md"), page(&now)).unwrap();
    }
    let own = |all: &AllFound| -> Vec<String> {
        let own = all.iter().filter(|(_, f)| f.why.is_none());
        own.map(|(bug, _)| bug.clone()).collect()
    };
    let lost: Vec<String> = own(&kept())
        .into_iter()
        .filter(|bug| !own(&now).contains(bug))
        .collect();
    assert!(lost.is_empty(), "not found any more: {lost:?}");
}

/// The alarm is worth something only where there is none without a bug.
#[test]
#[ignore = "minutes: make soak"]
fn without_a_bug_every_scenario_passes_with_the_same_seeds() {
    let (lab, all) = gate();
    let worlds = SimWorlds::new(&lab, Arc::default()).unwrap();
    for seed in SEEDS {
        let dir = tempfile::tempdir().unwrap();
        let report = run_in(&dir.path().join("run"), &worlds, &lab, &all, seed);
        let alarms: Vec<Found> = report.scenarios.iter().filter_map(|s| found(s, seed, &[])).collect();
        assert_eq!(alarms, [], "seed {seed}");
    }
}

#[test]
fn the_page_is_of_what_was_found() {
    let page = page(&kept());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/planted-bugs.md");
    assert_eq!(fs_err::read_to_string(file).unwrap(), page);
}
