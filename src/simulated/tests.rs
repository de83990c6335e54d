use super::*;
use crate::scenario::{self, About, Options};
use crate::spec::{self, Source};
use crate::verify::{RunReport, Verdict};
use std::collections::BTreeMap;

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
fn a_control_a_move_and_a_power_loss_pass_and_what_it_does_not_have_is_skipped_with_the_step() {
    let (lab, all) = gate();
    let wanted = ["F00", "F01", "F05", "F26"];
    let some: Vec<Scenario> = all.into_iter().filter(|s| wanted.contains(&s.id.as_str())).collect();
    let report = run(&SimWorlds::new(&lab, Arc::default()).unwrap(), &lab, &some, 1);
    let said: Vec<_> = report
        .scenarios
        .iter()
        .map(|s| (s.id.as_str(), s.verdict, s.why.as_deref()))
        .collect();
    let pass = Verdict::Pass;
    assert_eq!(
        said[..3],
        [("F00", pass, None), ("F01", pass, None), ("F05", pass, None)]
    );
    let (_, verdict, why) = said[3];
    assert!(
        verdict == Verdict::Skipped && why.unwrap().contains("`disk-full`"),
        "{why:?}"
    );
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
