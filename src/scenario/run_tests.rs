//! The runner against a world without machines.

use super::fake::Fake;
use super::suite::Worlds;
use super::*;
use crate::error::Error;
use crate::spec;
use crate::verify::sample::{self, Change, Plan};
use crate::verify::{Check, RunReport, ScenarioReport, Verdict};
use std::path::Path;
use std::sync::Mutex;

mod exec;
mod kept;
mod language;
mod parallel;
mod repeat;
mod settings;

fn scenario(steps: &str, rest: &str) -> Scenario {
    let lab = spec::example("ccr");
    let text = format!("id = \"X\"\ntitle = \"x\"\nsteps = [\n{steps}\n]\n{rest}");
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &vocabulary(&lab).unwrap(),
        set: &BTreeMap::new(),
        shelf: None,
    };
    parse("x.toml", &text, rules).unwrap_or_else(|e| panic!("{e}"))
}

fn ran(world: &mut Fake, steps: &str) -> ScenarioReport {
    run(world, &scenario(steps, ""), 7).unwrap().report
}

const FAILOVER: &str = r#"
  { workload = "mail", rate = "20/s" },
  { until = "copies.inspected >= 3", within = "30s" },
  { fault = "power-off", on = "active" },
  { expect = "service-online", on = "survivor", within = "30s" },
  { wait = "5s" },
  { heal = "all" },
  { expect = "healthy", within = "60s" },
"#;

#[test]
fn a_failover_runs_to_its_end() {
    let mut world = Fake::new();
    let run = run(&mut world, &scenario(FAILOVER, ""), 7).unwrap();
    assert_eq!(run.report.verdict, Verdict::Pass, "{:?}", run.report.why);
    assert_eq!(world.active, Some("node2"));
    assert_eq!(world.loads[0].seed, 7);
    assert_eq!(run.history.faults.len(), 1);
    let fault = &run.history.faults[0];
    assert_eq!(fault.target, serde_json::json!({"role": "active", "node": "node1"}));
    assert_eq!(
        fault.begin_us, 3_000_000,
        "the fault came as soon as three generations were inspected"
    );
    assert!(
        fault.end_us.unwrap() >= 16_000_000,
        "the heal came 5 s after the takeover"
    );
    assert!(world.finished && !world.running);
    assert!(run.history.observations.windows(2).all(|w| w[0].t_us <= w[1].t_us));
    assert_eq!(run.report.checks.iter().filter(|c| c.id.starts_with("step")).count(), 7);
    assert!(world.notes.contains(&"step.begin".to_owned()));
}

/// What the nodes said before the fault is all that they say: it meets nothing behind it.
#[test]
fn what_was_said_before_a_step_does_not_meet_it() {
    let mut world = Fake::new();
    world.repeats = true;
    let done = run(&mut world, &scenario(FAILOVER, ""), 7).unwrap();
    assert_eq!(done.report.verdict, Verdict::Pass, "{:?}", done.report.why);
    let fault = &done.history.faults[0];
    let behind = |(at, since): &&(u64, Option<u64>)| *at > fault.begin_us && since.is_some();
    let (waits, asks): (Vec<_>, Vec<_>) = world.looks.iter().partition(|(_, since)| since.is_none());
    assert!(!waits.is_empty(), "a wait takes what was said last");
    let mut behind = asks.iter().filter(|l| behind(l)).peekable();
    assert!(behind.peek().is_some() && behind.all(|(_, since)| *since >= Some(fault.begin_us)));
    // Before the fault `a` was said to serve.
    let mut world = Fake::new();
    world.repeats = true;
    let steps = r#"
        { fault = "power-off", on = "active" },
        { expect = "service-online", on = "a", within = "5s" },
    "#;
    assert_eq!(ran(&mut world, steps).verdict, Verdict::Fail);
}

/// One look in which two serve may show two instants: the next one is of what is so after it.
#[test]
fn two_that_serve_are_looked_at_again() {
    let mut world = Fake::new();
    let steps = r#"{ wait = "3s" }"#;
    run(&mut world, &scenario(steps, ""), 7).unwrap();
    assert!(
        world
            .looks
            .iter()
            .all(|(at, since)| since.is_none_or(|s| s == 0 || s >= *at))
    );
    let mut world = Fake::new();
    world.two = 1_000_000..1_100_000;
    let done = run(&mut world, &scenario(steps, ""), 7).unwrap();
    let (first, again) = (&done.history.observations, &world.looks);
    let at = first.iter().position(|o| o.serving().count() > 1).unwrap();
    assert_eq!(again[at + 1].1, Some(first[at].t_us));
}

#[test]
fn what_never_comes_fails_and_is_healed() {
    let mut world = Fake::new();
    world.takes = None;
    let report = ran(&mut world, FAILOVER);
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(report.why.unwrap().contains("not within 30 s"));
    assert!(world.healed.len() == 1 && world.finished);
}

#[test]
fn a_slow_machine_has_more_time() {
    let mut world = Fake::new();
    world.takes = Some(Duration::from_secs(70));
    assert_eq!(ran(&mut world, FAILOVER).verdict, Verdict::Fail);
    let mut world = Fake::new();
    world.takes = Some(Duration::from_secs(70));
    world.slowness = Slowness::new(3.0);
    assert_eq!(ran(&mut world, FAILOVER).verdict, Verdict::Pass);
}

#[test]
fn a_host_that_becomes_busy_has_more_time_and_the_report_says_so() {
    let mut world = Fake::new();
    world.takes = Some(Duration::from_secs(70));
    world.busy = (20_000_000, 3.0);
    let report = ran(&mut world, FAILOVER);
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.why);
    let host = report.host.unwrap();
    assert_eq!((host.slowness, host.busy), (1.0, 3.0));
    assert_eq!(host.summary().unwrap(), "host: slowness 1.0, busy 3.0: limits × 3.0");
    // Never more than five times, whatever the host does.
    let mut world = Fake::new();
    world.takes = Some(Duration::from_secs(170));
    (world.slowness, world.busy) = (Slowness::new(3.0), (0, 9.0));
    let report = ran(&mut world, FAILOVER);
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(report.why.unwrap().contains("not within 150 s"));
    assert_eq!(ran(&mut Fake::new(), FAILOVER).host.unwrap().summary(), None);
}

#[test]
fn a_condition_that_is_never_met_leaves_it_open() {
    let mut world = Fake::new();
    let report = ran(
        &mut world,
        r#"{ until = "copies.inspected >= 300", within = "10s" }, { fault = "power-off", on = "active" }"#,
    );
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(world.healed.is_empty(), "the steps behind it are not done");
}

#[test]
fn a_fault_without_effect_leaves_it_open() {
    for effective in [Some(false), None] {
        let mut world = Fake::new();
        world.effective = effective;
        let report = ran(&mut world, FAILOVER);
        assert_eq!(report.verdict, Verdict::Unknown, "{effective:?}");
        assert!(report.why.unwrap().starts_with("fault 0"));
    }
}

/// F17 once passed so: the outage began in a `wait`, and the next step was to stop the clients.
#[test]
fn a_wait_looks_on_and_a_service_that_no_node_had_is_no_pass() {
    const S: u64 = 1_000_000;
    let waits = r#"{ wait = "30s" }, { workload = "mail" }, { wait = "40s" }, { workload = "stop" }"#;
    for (gone, verdict) in [
        (0..0, Verdict::Pass),
        (5 * S..12 * S, Verdict::Pass),
        (5 * S..28 * S, Verdict::Unknown),
        // Between two steps, in two waits.
        (20 * S..45 * S, Verdict::Unknown),
        (20 * S..65 * S, Verdict::Fail),
    ] {
        let mut world = Fake::new();
        world.gone = gone.clone();
        let report = ran(&mut world, waits);
        assert_eq!(report.verdict, verdict, "{gone:?}: {:?}", report.why);
        if verdict != Verdict::Pass {
            assert!(report.why.unwrap().starts_with("service: nobody served from"));
        }
    }
    // Where the scenario itself wants to see that no node serves, it is no news.
    let mut world = Fake::new();
    world.gone = 5 * S..28 * S;
    let expected = r#"{ wait = "6s" }, { expect = "service-offline", within = "30s" }, { wait = "30s" }"#;
    assert_eq!(ran(&mut world, expected).verdict, Verdict::Pass);
}

#[test]
fn every_act_is_looked_at() {
    let mut world = Fake::new();
    let acts = scenario(
        r#"{ workload = "mail" }, { fault = "power-off", on = "passive" }, { heal = "all" }"#,
        "",
    );
    let history = run(&mut world, &acts, 7).unwrap().history;
    let off = |o: &Observation| o.nodes["node2"].machine == Some(crate::hypervisor::DomainState::Off);
    assert!(
        history.observations.iter().any(off),
        "the machine was seen off behind the fault"
    );
}

#[test]
fn a_lab_that_is_not_healthy_is_not_judged() {
    let mut world = Fake::new();
    world.off.push("node2".into());
    let report = ran(&mut world, FAILOVER);
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.why.unwrap().contains("not healthy to begin with"));
    assert!(world.loads.is_empty());
}

#[test]
fn moves_name_members_and_refusals_can_be_what_is_wanted() {
    let mut world = Fake::new();
    let there_and_back = r#"
      { move = "b" }, { expect = "service-online", on = "b", within = "30s" },
      { move = "passive", comment = "back" }, { expect = "service-online", on = "a", within = "30s" },
    "#;
    assert_eq!(ran(&mut world, there_and_back).verdict, Verdict::Pass);
    let to: Vec<&str> = world.orders.iter().map(|o| o.args["to"].as_str()).collect();
    assert_eq!(to, ["node2", "node1"]);
    for (refuses, wanted, verdict) in [
        (true, true, Verdict::Pass),
        (true, false, Verdict::Fail),
        (false, true, Verdict::Fail),
    ] {
        let mut world = Fake::new();
        world.refuses = refuses;
        let step = format!("{{ operate = \"move\", to = \"passive\", refused = {wanted} }}");
        assert_eq!(ran(&mut world, &step).verdict, verdict, "{refuses} {wanted}");
    }
    for wanted in [true, false] {
        let mut world = Fake::new();
        world.lost = true;
        let report = ran(
            &mut world,
            &format!("{{ operate = \"move\", to = \"passive\", refused = {wanted} }}"),
        );
        assert_eq!(report.verdict, Verdict::Unknown, "no answer is no refusal");
        assert!(report.why.unwrap().contains("no route"));
    }
}

#[test]
fn an_interruption_heals_and_ends() {
    let mut world = Fake::new();
    world.interrupt_at = Some(6_000_000);
    let e = run(&mut world, &scenario(FAILOVER, ""), 7).unwrap_err();
    assert!(matches!(e, Error::Interrupted));
    assert!(!world.running && world.faults.is_empty() && world.healed.len() == 1);
}

#[test]
fn a_role_that_no_node_has_leaves_it_open() {
    let mut world = Fake::new();
    let report = ran(&mut world, r#"{ fault = "power-off", on = "survivor" }"#);
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.why.unwrap().contains("survivor"));
}

struct Fakes(Mutex<Vec<Fake>>);

impl Fakes {
    fn new(worlds: Vec<Fake>) -> Self {
        Self(Mutex::new(worlds))
    }
}

impl Worlds for Fakes {
    fn open(&self, _: &Scenario, _: u64, folder: &Path) -> Result<Box<dyn World>> {
        assert!(folder.is_dir());
        let mut worlds = self.0.lock().unwrap();
        if worlds.is_empty() {
            return Err(Error::Host(
                crate::error::Problem::new("start the lab").observed("no memory"),
            ));
        }
        Ok(Box::new(worlds.remove(0)))
    }
}

fn options(folder: &Path) -> Options {
    Options {
        seed: 7,
        accel: "tcg".into(),
        on: "machines".into(),
        repeat: 1,
        folder: folder.join("run"),
        jobs: 1,
        fail_fast: false,
        about: About::default(),
    }
}

#[test]
fn a_run_leaves_a_folder_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut world = Fake::new();
    world.history = sample::history(&Plan::new(&[Change::PowerOff]));
    // The faults of the fake world are its own; those of the sample would have other numbers.
    world.history.faults.clear();
    let all = [
        scenario(FAILOVER, "invariants = [\"I1\", \"I4\"]"),
        scenario("{ wait = \"1s\" }", ""),
    ];
    let lab = sample::lab();
    let report = run_all(&Fakes::new(vec![world]), &lab, &all[..1], &options).unwrap();
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.scenarios[0].why);
    let run = &options.folder;
    let read: RunReport = serde_json::from_slice(&std::fs::read(run.join(names::VERDICT)).unwrap()).unwrap();
    assert_eq!(read, report);
    for name in [
        names::EVENTS,
        names::OPS,
        names::OBSERVATIONS,
        names::DUMPS,
        names::HISTORY,
        names::REPORT,
        names::SCENARIO,
        names::VERDICT,
    ] {
        assert!(run.join("X").join(name).metadata().unwrap().len() > 2, "{name}");
    }
    assert!(
        std::fs::read_to_string(run.join(names::JUNIT))
            .unwrap()
            .contains("<testsuite ")
    );
    assert!(
        std::fs::read_to_string(run.join(names::REPORT))
            .unwrap()
            .contains("</html>")
    );
    assert!(!run.join("X").join(names::NETWORKS).exists(), "it passed");
    let again = run_all(&Fakes::new(Vec::new()), &lab, &all, &options).unwrap_err();
    assert_eq!(again.exit_code(), 2, "a run is never overwritten");
}

#[test]
fn what_passed_the_networks_is_kept_of_a_scenario_that_did_not_pass() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut world = Fake::new();
    world.effective = Some(false);
    let all = [scenario(FAILOVER, "")];
    let report = run_all(&Fakes::new(vec![world]), &sample::lab(), &all, &options).unwrap();
    assert_eq!(report.verdict, Verdict::Unknown);
    let kept = options.folder.join("X").join(names::NETWORKS);
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "frames");
}

#[test]
fn a_world_that_cannot_be_made_leaves_its_scenario_open_and_the_others_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.repeat = 2;
    let report = run_all(
        &Fakes::new(vec![Fake::new()]),
        &sample::lab(),
        &[scenario("{ wait = \"1s\" }", "")],
        &options,
    )
    .unwrap();
    let verdicts: Vec<Verdict> = report.scenarios.iter().map(|s| s.verdict).collect();
    assert_eq!(verdicts, [Verdict::Pass, Verdict::Unknown]);
    assert!(report.scenarios[1].why.as_ref().unwrap().contains("no memory"));
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(options.folder.join("X.2").is_dir());
    let names: Vec<String> = report.scenarios.iter().map(ScenarioReport::name).collect();
    assert_eq!(names, ["X", "X.2"]);
}

#[test]
fn after_a_failure_the_others_are_skipped_where_that_is_asked_for() {
    let never = scenario("{ expect = \"service-offline\", within = \"1 ms\" }", "");
    let called = |id: &str, scenario: Scenario| Scenario {
        id: id.into(),
        ..scenario
    };
    let all = [
        called("A", scenario("{ wait = \"1s\" }", "")),
        called("B", never),
        called("C", scenario("{ wait = \"1s\" }", "")),
    ];
    for (fail_fast, last) in [(true, Verdict::Skipped), (false, Verdict::Pass)] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            fail_fast,
            ..options(dir.path())
        };
        let worlds = Fakes::new(vec![Fake::new(), Fake::new(), Fake::new()]);
        let report = run_all(&worlds, &sample::lab(), &all, &options).unwrap();
        let verdicts: Vec<Verdict> = report.scenarios.iter().map(|s| s.verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Fail, last]);
        assert_eq!(report.verdict, Verdict::Fail);
    }
}

#[test]
fn what_would_have_one_name_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let one = scenario("{ wait = \"1s\" }", "");
    let called = |id: &str| Scenario {
        id: id.into(),
        ..one.clone()
    };
    for (all, repeat) in [
        (vec![one.clone(), one.clone()], 1),
        (vec![one.clone(), called("X.2")], 2),
        (vec![called("X.3"), called("Y"), one.clone()], 3),
        (vec![called("verdict.json")], 1),
    ] {
        let options = Options {
            repeat,
            ..options(dir.path())
        };
        let e = run_all(&Fakes::new(Vec::new()), &sample::lab(), &all, &options).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{e}");
        assert!(!options.folder.exists(), "nothing was made");
    }
    distinct(&[one.clone(), called("X.2")], 1).unwrap();
    distinct(&[one.clone(), called("X.4")], 3).unwrap();
}
