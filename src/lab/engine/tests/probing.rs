//! Labs that say by probes what healthy is.

use super::world::{World, assert_undone, perform, status, up};
use crate::lab::engine::Engine;
use crate::lab::protocol::{LabStatus, Look, Verb};
use crate::probe::Probe;
use crate::spec::{Health, HealthProbe};
use crate::units::Span;

/// Machines `a`, `b` and `c`, of which the first two must say `yes`.
fn world() -> World {
    let mut w = World::bare();
    w.lab.health = Some(Health {
        must: vec!["well.a.said == 'yes' and well.b.said == 'yes'".into()],
        within: Span::secs(60),
        probes: vec![HealthProbe {
            on: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            probe: Probe {
                name: "well".into(),
                run: vec!["is-well".into()],
                parse: None,
            },
        }],
    });
    say(&w, "a", "yes");
    say(&w, "b", "yes");
    w
}

fn say(w: &World, node: &str, said: &str) {
    w.guests.state().well.insert(node.to_owned(), said.to_owned());
}

fn look(engine: &Engine) -> LabStatus {
    serde_json::from_value(perform(engine, Verb::Status(Some(Look::now()))).unwrap()).unwrap()
}

#[test]
fn it_is_kept_healthy_and_comes_back_healthy() {
    let w = world();
    let engine = w.up();
    w.assert_up(&engine);
    assert_eq!(w.kept(), ["healthy"]);
    assert_eq!(
        status(&engine).machines[0].runtime.as_ref().unwrap().facts["well"]["said"],
        "yes"
    );
    assert!(status(&engine).machines[2].runtime.is_none(), "it is asked nothing");
    perform(&engine, Verb::Down).unwrap();
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    assert_eq!(w.told("lab.restored").len(), 1);
    assert_eq!(up(&engine, w.up_args()).unwrap()["steps"], 0);
}

#[test]
fn one_that_does_not_become_healthy_is_not_kept() {
    let w = world().with_times(0.01);
    say(&w, "b", "not yet");
    let engine = w.open().unwrap();
    let e = up(&engine, w.up_args()).unwrap_err();
    assert_undone(&e, "could not see the lab healthy");
    assert!(e.to_string().contains("well.b.said is \"not yet\""), "{e}");
    w.assert_gone(&engine);
    assert_eq!(w.kept(), Vec::<String>::new());
}

#[test]
fn one_that_becomes_healthy_later_is_waited_for() {
    let w = world();
    say(&w, "b", "not yet");
    let engine = w.open().unwrap();
    std::thread::scope(|scope| {
        let upping = scope.spawn(|| up(&engine, w.up_args()));
        super::world::until("see it waited for", || {
            w.told("step.progress")
                .iter()
                .any(|(_, d)| d["text"].to_string().contains("not yet"))
        });
        assert!(!upping.is_finished());
        say(&w, "b", "yes");
        upping.join().unwrap().unwrap();
    });
    w.assert_up(&engine);
}

#[test]
fn what_cannot_be_asked_is_unknown_and_what_is_wrong_is_not() {
    let w = world().with_times(0.3);
    let engine = w.up();
    say(&w, "a", "no");
    let seen = look(&engine);
    assert!(!seen.unknown && seen.unhealthy.unwrap().contains("well.a.said is \"no\""));
    say(&w, "a", "yes");
    w.guests.state().hung.insert("b".into());
    let seen = look(&engine);
    assert!(seen.unknown, "{:?}", seen.unhealthy);
    assert!(
        seen.unhealthy
            .unwrap()
            .starts_with("it is not known: b cannot be asked: ")
    );
    w.guests.state().hung.clear();
    super::world::until("hear of it again", || look(&engine).unhealthy.is_none());
    // A machine that does not run is known to be wrong.
    w.fake.crash("b");
    let seen = look(&engine);
    assert!(!seen.unknown && seen.unhealthy.unwrap().starts_with("b is "));
}
