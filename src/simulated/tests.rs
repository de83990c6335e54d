use super::*;
use crate::scenario::{self, About, Options};
use crate::spec::{self, Source};
use crate::verify::{RunReport, Verdict};
use std::collections::BTreeMap;
use std::time::Instant;

fn gate() -> (Lab, Vec<Scenario>) {
    let lab = spec::example("ccr");
    let source = Source::Embedded("ccr".parse().unwrap());
    let all = scenario::select(&source, &lab, &[], &BTreeMap::new()).unwrap();
    (lab, all)
}

fn run(worlds: &SimWorlds, lab: &Lab, scenarios: &[Scenario], seed: u64) -> RunReport {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        seed,
        accel: "none".into(),
        on: "sim".into(),
        repeat: 1,
        folder: dir.path().join("run"),
        jobs: 2,
        fail_fast: false,
        about: About::default(),
    };
    scenario::run_all(worlds, lab, scenarios, &options).unwrap()
}

fn said(run: &RunReport) -> String {
    let line = |s: &crate::verify::ScenarioReport| {
        let why = s.why.as_deref().unwrap_or_default();
        format!("{} {:?} {why}", s.id, s.verdict).trim_end().to_owned()
    };
    run.scenarios.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What is not run is told with its step; everything else passes, as on machines.
#[test]
fn the_gate_passes_on_the_simulator() {
    let (lab, all) = gate();
    let worlds = SimWorlds::new(&lab, Arc::default()).unwrap();
    let began = Instant::now();
    let run = run(&worlds, &lab, &all, 1);
    println!("{} scenarios in {:.1} s", all.len(), began.elapsed().as_secs_f64());
    insta::assert_snapshot!(said(&run));
    assert_eq!(run.verdict, Verdict::Pass);
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let (lab, all) = gate();
    let one: Vec<Scenario> = all.into_iter().filter(|s| s.id == "F05").collect();
    let worlds = SimWorlds::new(&lab, Arc::default()).unwrap();
    let (a, b) = (run(&worlds, &lab, &one, 5), run(&worlds, &lab, &one, 5));
    assert_eq!(a, b);
    assert_ne!(run(&worlds, &lab, &one, 6).scenarios[0].timings, a.scenarios[0].timings);
}

#[test]
fn a_lab_that_is_not_simulated_says_why() {
    let refused = |lab: &Lab, part: &str| {
        let e = SimWorlds::new(lab, Arc::default()).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains(part), "{e}");
    };
    refused(&spec::example("bare"), "runtime");
    let (mut lab, _) = gate();
    lab.networks[1].name = "other".parse().unwrap();
    refused(&lab, "networks");
}

/// By which scenario and invariant each planted bug is found on the gate; those that need what no scenario does are told too.
#[test]
fn planted_bugs_are_found_by_the_gate() {
    const { assert!(ccr_core::planted::AVAILABLE) };
    let (lab, all) = gate();
    let mut out = String::new();
    let mut found = 0;
    for (bug, invariants) in Bug::ALL {
        let worlds = SimWorlds::new(&lab, Arc::default()).unwrap().with_bug(bug);
        let report = run(&worlds, &lab, &all, 1);
        let failing = report.scenarios.iter().find_map(|s| {
            let broken = s
                .invariants
                .iter()
                .find(|i| i.verdict == Verdict::Fail && invariants.contains(&i.id.as_str()))?;
            Some(format!("{} of {}", broken.id, s.id))
        });
        found += usize::from(failing.is_some());
        out.push_str(&format!("{bug:?}: {}\n", failing.as_deref().unwrap_or("not found")));
    }
    println!("{found} of {}", Bug::ALL.len());
    insta::assert_snapshot!(out);
}
