//! What the simulator says of a scenario is what machines say, but for differences that are listed with their reasons.
//!
//! `agreement/machines.toml` is written from folders of runs on machines, never by hand:
//! `MACHINE_RUNS=FOLDER:FOLDER cargo test --lib simulated::agreement -- --ignored`. What it has no entry for is not compared.

use super::tests::{gate, run_in};
use super::*;
use crate::runs::{self, ScenarioRun};
use crate::verify::Verdict;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What became of a scenario, in words that do not depend on how fast the machines are. Members are `a`, who served first, and `b`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Outcome {
    verdict: Verdict,
    /// Who served at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// In how many epochs somebody was seen to serve.
    epochs: usize,
    /// The copies at the end, as who served saw them: member and status.
    copies: BTreeSet<String>,
    lost_logs: u64,
}

/// A difference that is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    scenario: String,
    field: String,
    why: String,
}

#[derive(Debug, Deserialize)]
struct KnownDifferences {
    #[serde(default)]
    known: Vec<Known>,
}

fn outcome(run: &ScenarioRun) -> Outcome {
    let looks = || {
        run.history
            .observations
            .iter()
            .filter(|o| o.t_us >= run.history.from_us)
    };
    let first = looks().find_map(|o| o.active());
    let role = |node: &str| if Some(node) == first { "a" } else { "b" };
    let serving = looks().flat_map(|o| o.serving());
    let epochs: BTreeSet<u64> = serving.filter_map(|(_, v)| v.service()?.epoch).collect();
    let last = looks().next_back().and_then(|o| o.serving().next());
    let copies = last.and_then(|(_, v)| v.status.as_ref()).map_or(&[][..], |s| &s.copies);
    Outcome {
        verdict: run.report.verdict,
        owner: last.map(|(node, _)| role(node).to_owned()),
        epochs: epochs.len(),
        copies: copies
            .iter()
            .map(|c| format!("{} {:?}", role(&c.node), c.status))
            .collect(),
        lost_logs: run.report.loss.lost_logs,
    }
}

/// The fields of two outcomes that are not the same, each with both values.
fn differences(machines: &Outcome, sim: &Outcome) -> BTreeMap<String, String> {
    let fields = |o: &Outcome| serde_json::to_value(o).unwrap().as_object().unwrap().clone();
    let (machines, sim) = (fields(machines), fields(sim));
    let names: BTreeSet<&String> = machines.keys().chain(sim.keys()).collect();
    let differs = names.into_iter().filter(|n| machines.get(*n) != sim.get(*n));
    let both = |n: &String| format!("machines {:?}, sim {:?}", machines.get(n), sim.get(n));
    differs.map(|n| (n.clone(), both(n))).collect()
}

/// What is wrong with the list of known differences: what is new, and what is not so any more.
fn surprises(found: &BTreeMap<(String, String), String>, known: &[Known]) -> Vec<String> {
    let listed: BTreeSet<(String, String)> = known.iter().map(|k| (k.scenario.clone(), k.field.clone())).collect();
    let new = found.iter().filter(|(at, _)| !listed.contains(*at));
    let new = new.map(|((id, field), both)| format!("{id} {field}: {both}, and it is not listed"));
    let gone = listed.iter().filter(|at| !found.contains_key(*at));
    let gone = gone.map(|(id, field)| format!("{id} {field}: listed, and it is the same on both"));
    let mute = known.iter().filter(|k| k.why.len() < 20);
    let mute = mute.map(|k| format!("{} {}: listed without a reason", k.scenario, k.field));
    new.chain(gone).chain(mute).collect()
}

/// The path of a file of this test.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/simulated/agreement")
        .join(name)
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    toml::from_str(&fs_err::read_to_string(file(name)).unwrap()).unwrap()
}

fn of_machines() -> BTreeMap<String, Outcome> {
    read("machines.toml")
}

#[test]
fn the_simulator_says_what_machines_said() {
    let machines = of_machines();
    let known: KnownDifferences = read("differences.toml");
    let (lab, all) = gate();
    let some: Vec<Scenario> = all.into_iter().filter(|s| machines.contains_key(&s.id)).collect();
    assert!(
        !machines.is_empty() && some.len() == machines.len(),
        "{:?}",
        machines.keys()
    );
    let dir = tempfile::tempdir().unwrap();
    run_in(
        &dir.path().join("run"),
        &SimWorlds::new(&lab, Arc::default()).unwrap(),
        &lab,
        &some,
        1,
    );
    let simulated = runs::read(&dir.path().join("run")).unwrap();
    let mut found = BTreeMap::new();
    for run in &simulated.scenarios {
        let id = &run.report.id;
        let each = differences(&machines[id], &outcome(run)).into_iter();
        found.extend(each.map(|(field, both)| ((id.clone(), field), both)));
    }
    let surprises = surprises(&found, &known.known);
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn a_new_difference_one_that_vanished_and_one_without_a_reason_are_told() {
    let machines = Outcome {
        verdict: Verdict::Pass,
        owner: Some("b".into()),
        epochs: 2,
        copies: BTreeSet::from(["a Healthy".to_owned()]),
        lost_logs: 0,
    };
    let sim = Outcome {
        owner: None,
        ..machines.clone()
    };
    let found = differences(&machines, &sim);
    let found: BTreeMap<_, _> = found
        .into_iter()
        .map(|(f, both)| (("F05".to_owned(), f), both))
        .collect();
    let known = |field: &str, why: &str| Known {
        scenario: "F05".into(),
        field: field.into(),
        why: why.into(),
    };
    let why = "the reason is a whole sentence";
    assert_eq!(surprises(&found, &[known("owner", why)]), Vec::<String>::new());
    assert!(surprises(&found, &[])[0].starts_with("F05 owner: machines Some(String(\"b\")), sim None"));
    let gone = surprises(&found, &[known("owner", why), known("epochs", why)]);
    assert_eq!(gone, ["F05 epochs: listed, and it is the same on both"]);
    assert_eq!(
        surprises(&found, &[known("owner", "")]),
        ["F05 owner: listed without a reason"]
    );
}

/// Writes what runs on machines gave. Other scenarios keep their entries.
#[test]
#[ignore = "needs folders of runs on machines: MACHINE_RUNS=FOLDER:FOLDER"]
fn runs_on_machines_are_noted() {
    let folders = std::env::var_os("MACHINE_RUNS").expect("MACHINE_RUNS names folders of runs");
    let mut all = of_machines();
    for folder in std::env::split_paths(&folders) {
        let run = runs::read(&folder).unwrap();
        assert_eq!(run.manifest.unwrap().on, "machines", "{}", folder.display());
        assert!(run.missing.is_empty(), "{:?}", run.missing);
        all.extend(run.scenarios.iter().map(|s| (s.report.id.clone(), outcome(s))));
    }
    let head = "# What machines gave, by scenario; src/simulated/agreement.rs writes it from folders of runs.\n\n";
    fs_err::write(file("machines.toml"), head.to_owned() + &toml::to_string(&all).unwrap()).unwrap();
}
