use super::machine::Pause;
use super::plan::{Direction, Step, What, Who};
use super::*;
use crate::command::Command;

/// The tier of continuous integration: every seed holds every invariant, and every run is worth something.
#[test]
fn seeds_hold_every_invariant() {
    // On two processors: nothing else of this tier takes as long.
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for seed in (half..500).step_by(2) {
                    let outcome = run(seed);
                    assert_eq!(outcome.broken, None, "seed {seed}");
                    assert_eq!(outcome.thin(), None, "seed {seed}");
                }
            });
        }
    });
}

/// What once broke an invariant is kept as a plan, and holds: `regressions/*.json`.
#[test]
fn plans_that_once_broke_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sim/regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|e| e.expect("it can be read").path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let text = std::fs::read(&file).expect("it can be read");
        let kept: Kept = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let outcome = run_plan(kept.seed, kept.plan, false);
        assert_eq!(outcome.broken, None, "{}: {}", file.display(), kept.what);
    }
}

#[test]
fn one_seed_is_one_history() {
    let trace = |seed| {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        run_plan(seed, plan, true).trace
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

/// A plan of these steps: when, for how long (seconds), what.
fn plan(steps: &[(u64, u64, What)]) -> Plan {
    let mut plan = Plan::calm();
    plan.ops = 374;
    plan.steps = steps
        .iter()
        .map(|(at, lasts, what)| Step {
            at_us: at * 1_000_000,
            for_us: lasts * 1_000_000,
            what: what.clone(),
        })
        .collect();
    plan
}

/// The timeline of a plan that must hold every invariant.
fn timeline(steps: &[(u64, u64, What)]) -> String {
    let outcome = run_plan(1, plan(steps), true);
    assert_eq!(outcome.broken, None);
    outcome.trace.join("\n")
}

fn set(key: &str, value: &str, force: bool) -> What {
    let (key, value) = (key.to_owned(), value.to_owned());
    What::Ask(0, Command::Set { key, value, force })
}

#[test]
fn heartbeat_settings_need_the_witness_and_cost_the_quorum_where_they_are_forced_without_it() {
    let t = timeline(&[
        (20, 40, What::ShareDown),
        (30, 1, set("heartbeat_ms", "1000", false)),
        (32, 1, set("heartbeat_ms", "1000", true)),
    ]);
    assert!(t.contains(r#"Denied("the witness cannot be locked now"#), "{t}");
    assert!(t.contains("forced although the witness cannot be locked"), "{t}");
    assert!(t.contains("cluster.restarting"), "{t}");
    assert!(
        t.contains("node 0: cluster.quorum-lost epoch=4 why=neither the other member nor the witness"),
        "{t}"
    );
    let t = timeline(&[(30, 1, set("heartbeat_ms", "1000", false))]);
    assert!(t.contains("REPLY of 0 to step 0: Done"), "{t}");
    assert!(!t.contains("node 0: cluster.quorum-lost"), "the witness stands in: {t}");
}

#[test]
fn what_cannot_be_set_is_refused_with_what_can() {
    let t = timeline(&[
        (20, 1, set("heartbeat_ms", "5", false)),
        (22, 1, set("colour", "red", false)),
        (24, 1, set("network.public.role", "client", false)),
        (26, 1, set("network.private.role", "client", false)),
        (28, 1, set("witness", r"\\nowhere\share", false)),
        (30, 1, set("dial", "lossless", false)),
    ]);
    for (step, word) in [
        (0, "no number from 100"),
        (1, "cannot be set while"),
        (3, "no network would be left"),
        (4, "no node of this cluster and no address"),
    ] {
        let line = t
            .lines()
            .find(|l| l.contains(&format!("REPLY of 0 to step {step}: Denied")));
        assert!(line.is_some_and(|l| l.contains(word)), "{step} {line:?}");
    }
    for step in [2, 5] {
        assert!(t.contains(&format!("REPLY of 0 to step {step}: Done")), "{step}");
    }
}

#[test]
fn a_new_witness_is_in_force_only_after_the_quorum_resource_came_online_again() {
    let change = set("witness", r"\\hub0\witness2", false);
    let (group, to) = (crate::command::GroupName::Cluster, MEMBERS[1].to_owned());
    let steps = [(20, 1, change), (30, 1, What::Ask(0, Command::MoveGroup { group, to }))];
    let outcome = run_plan(1, plan(&steps[..1]), false);
    assert_eq!((outcome.broken, outcome.counters.witness_changes), (None, 0));
    let outcome = run_plan(1, plan(&steps), false);
    assert_eq!(
        (outcome.broken, outcome.counters.witness_changes),
        (None, 2),
        "both members"
    );
}

#[test]
fn an_evicted_member_neither_votes_nor_serves_until_it_is_taken_back() {
    let node = MEMBERS[1].to_owned();
    let t = timeline(&[
        (20, 1, What::Ask(0, Command::Evict { node: "node9".into() })),
        (22, 1, What::Ask(0, Command::Evict { node: node.clone() })),
        (24, 10, What::ShareDown),
        (40, 1, What::Ask(0, Command::Join { node })),
    ]);
    assert!(t.contains("`node9` is not a member"), "{t}");
    assert!(t.contains("node2 is evicted; it holds no vote any more"), "{t}");
    assert!(
        !t.contains("node 0: cluster.quorum-lost"),
        "one member alone is a majority of one: {t}"
    );
    assert!(t.contains("node2 may join again"), "{t}");
}

#[test]
fn force_is_refused_where_it_is_not_needed_and_where_the_other_one_has_it() {
    let t = timeline(&[(20, 1, What::Ask(0, Command::ForceQuorum))]);
    assert!(t.contains("there is nothing to force"), "{t}");
    // Forced on node1 with the witness away; recorded when it is back; then node2 alone asks for the same.
    let t = timeline(&[
        (20, 26, What::Force(Who::Member(0))),
        (47, 50, What::Partition(Direction::Both)),
        (70, 3, What::Ask(1, Command::ForceQuorum)),
        (72, 20, What::PowerOff(Who::Member(0))),
        (85, 3, What::Ask(1, Command::ForceQuorum)),
    ]);
    assert!(t.contains("nothing keeps the other member from the same"), "{t}");
    assert!(
        t.contains("REPLY of 1 to step 2: Denied(\"the other member holds the file\")"),
        "{t}"
    );
    assert!(
        t.contains("REPLY of 1 to step 4: Denied(\"the quorum was forced on node1"),
        "{t}"
    );
}

#[test]
fn the_service_goes_back_only_where_that_is_configured() {
    let to = MEMBERS[1].to_owned();
    let comment = "test".to_owned();
    let mut plan = plan(&[(
        20,
        1,
        What::Ask(
            0,
            Command::Move {
                to,
                comment,
                ignore_dismounted: false,
            },
        ),
    )]);
    let back = |o: &Outcome| o.trace.iter().any(|l| l.contains("failback to the preferred member"));
    let stays = run_plan(1, plan.clone(), true);
    plan.failback = true;
    let goes = run_plan(1, plan, true);
    assert_eq!((&stays.broken, &goes.broken), (&None, &None));
    assert_eq!((back(&stays), back(&goes)), (false, true));
}

#[test]
fn the_service_leaves_a_node_whose_own_public_network_failed_and_stays_where_all_lost_it() {
    let cut = |at, i| (at, 40, What::CutPublic(Who::Member(i), Direction::Both));
    // Wherever each member is between two probes of the witness.
    for at in 20..30 {
        let one = timeline(&[cut(at, 0)]);
        let failed = one.lines().find(|l| l.contains("node 0: cluster.resource-failed"));
        assert!(
            failed.is_some_and(|l| l.contains(" epoch=") && l.contains(" resource=service address")),
            "{one}"
        );
        assert!(one.contains("node 1: service.online epoch"), "{one}");
        let all = timeline(&[cut(at, 0), cut(at, 1)]);
        assert!(!all.contains("cluster.resource-failed"), "{all}");
        assert!(!all.contains("node 1: service.online epoch"), "{all}");
    }
}

/// An acknowledged message is whole on both nodes, however long it is and its names are.
#[test]
fn the_longest_messages_are_kept_whole() {
    let mut plan = plan(&[(40, 1, What::Move)]);
    plan.longest = true;
    let outcome = run_plan(1, plan, false);
    assert_eq!((outcome.broken, outcome.counters.failed_inspections), (None, 0));
    assert!(
        outcome.counters.store_answers > 100,
        "{}",
        outcome.counters.store_answers
    );
}

/// A whole lab that was suspended goes on together: both members' leases are void, and whoever was promised an answer waits. With few
/// clients nothing else makes the members speak before their next heartbeats.
#[test]
fn behind_a_pause_of_the_whole_cluster_clients_do_not_wait_for_the_next_heartbeat() {
    for at in 30..36 {
        let pause = |i| (at, 6, What::Pause(Who::Member(i), Pause::Machine));
        let mut plan = plan(&[pause(0), pause(1)]);
        plan.ops = 25;
        let outcome = run_plan(1, plan, true);
        assert_eq!(outcome.broken, None);
        let resumed = (at + 6) as f64;
        let waited = outcome
            .trace
            .iter()
            .filter(|l| l.contains("hub.delivered"))
            .find_map(|l| {
                let seconds: f64 = l.split_whitespace().next()?.parse().ok()?;
                (seconds > resumed).then_some(seconds - resumed)
            });
        assert!(waited.is_some_and(|s| s < 0.1), "{at}: {waited:?} s after the pause");
    }
}
