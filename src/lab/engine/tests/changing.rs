//! More than one client at once, and the way down.

use super::world::{World, perform, status, until, up};
use crate::error::Error;
use crate::hypervisor::Kind;
use crate::lab::cancel::Cancel;
use crate::lab::protocol::{Look, UpArgs, Verb};
use std::time::{Duration, Instant};

#[test]
fn a_second_client_waits_for_the_first_and_does_its_own() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("a".into());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| up(&engine, w.up_args()));
        until("see it waited for", || w.guests.state().knocks > 4);
        let second = scope.spawn(|| perform(&engine, Verb::Pause));
        let third = scope.spawn(|| up(&engine, w.up_args()));
        // A look waits for nobody.
        assert!(status(&engine).unhealthy.is_none());
        assert!(w.domains().iter().all(|d| d.1) && !second.is_finished() && !third.is_finished());
        w.guests.state().silent.clear();
        first.join().unwrap().unwrap();
        assert_eq!(second.join().unwrap().unwrap().as_array().unwrap().len(), 3);
        third.join().unwrap().unwrap();
    });
    // Whichever of the two was first: the other one's work was done too.
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
}

#[test]
fn a_request_whose_client_goes_away_while_it_waits_is_never_begun() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("a".into());
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| up(&engine, w.up_args()));
        until("see it waited for", || w.guests.state().knocks > 4);
        let waiting = scope.spawn(|| engine.perform(Verb::Down, &cancel));
        cancel.cancel();
        // It ends by itself, while the other one goes on.
        assert!(matches!(waiting.join().unwrap(), Err(Error::Interrupted)));
        assert!(!first.is_finished());
        w.guests.state().silent.clear();
        first.join().unwrap().unwrap();
    });
    w.assert_up(&engine);
}

#[test]
fn a_request_that_is_cancelled_undoes_its_own_and_the_next_one_begins() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("a".into());
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| engine.perform(Verb::Up(Box::new(w.up_args())), &cancel));
        until("see it waited for", || w.guests.state().knocks > 4);
        let next = scope.spawn(|| up(&engine, w.up_args()));
        cancel.cancel();
        assert!(matches!(first.join().unwrap(), Err(Error::Interrupted)));
        w.guests.state().silent.clear();
        next.join().unwrap().unwrap();
    });
    w.assert_up(&engine);
    assert_eq!(
        w.told("step.end").iter().filter(|(_, d)| d["step"] == "stop").count(),
        3
    );
}

#[test]
fn a_machine_that_hangs_delays_no_look_for_long() {
    let w = World::ccr().with_times(0.2);
    let engine = w.up();
    w.guests.state().hung.insert("node2".into());
    let look = || {
        let begun = Instant::now();
        let seen = perform(&engine, Verb::Status(Some(Look::now()))).unwrap();
        let seen: crate::lab::protocol::LabStatus = serde_json::from_value(seen).unwrap();
        (seen, begun.elapsed())
    };
    for _ in 0..2 {
        let (seen, took) = look();
        let answers: Vec<bool> = seen.machines.iter().map(|m| m.runtime.is_some()).collect();
        assert_eq!(answers, [true, false, true]);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(seen.unhealthy.unwrap().contains("node2"));
    }
    w.guests.state().hung.clear();
    until("hear of it again", || look().0.unhealthy.is_none());
}

#[test]
fn a_machine_that_does_not_go_is_told_and_the_others_go() {
    let w = World::bare();
    let engine = w.up();
    w.inject(&engine, "cut", "a").unwrap();
    w.fake.fail(Kind::Destroy, 2);
    let e = perform(&engine, Verb::Down).unwrap_err();
    assert!(e.to_string().contains("the fake was told to fail"), "{e}");
    assert_eq!(w.domains().len(), 1);
    // It is still known, with all that there is of it.
    assert!(w.record().is_some() && engine.keeps_anything());
    assert_eq!(status(&engine).faults.len(), 1);
    perform(&engine, Verb::Down).unwrap();
    w.assert_gone(&engine);
}

#[test]
fn nothing_of_a_lab_that_went_is_taken_for_its_successors() {
    let mut w = World::bare();
    let engine = w.up();
    w.inject(&engine, "cut", "a").unwrap();
    perform(&engine, Verb::Down).unwrap();
    w.assert_gone(&engine);
    // Another client was waiting, with another file.
    w.lab.digest = "another".into();
    let args = UpArgs {
        cold: true,
        ..w.up_args()
    };
    up(&engine, args).unwrap();
    w.die(engine);
    let engine = w.open().unwrap();
    w.assert_up(&engine);
}
