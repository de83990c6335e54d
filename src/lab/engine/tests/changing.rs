//! More than one client at once, and the way down.

use super::world::{World, assert_undone, perform, status, until, up};
use crate::error::Error;
use crate::hypervisor::Kind;
use crate::lab::cancel::Cancel;
use crate::lab::protocol::{Look, UpArgs, Verb};

#[test]
fn a_second_client_waits_for_the_first_and_does_its_own() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("a".into());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| up(&engine, w.up_args()));
        // The others may start later than it is knocked at.
        until("see it alone waited for", || {
            w.guests.state().knocks > 4 && w.domains().iter().filter(|d| d.1).count() == 3
        });
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
fn a_machine_that_hangs_delays_no_look_for_ever() {
    let w = World::ccr().with_times(0.6);
    let engine = w.up();
    w.guests.state().hung.insert("node2".into());
    let look = || -> crate::lab::protocol::LabStatus {
        serde_json::from_value(perform(&engine, Verb::Status(Some(Look::now()))).unwrap()).unwrap()
    };
    for _ in 0..2 {
        // It hangs until it is told to go on: a look that waited for it would never end.
        let seen = look();
        let answers: Vec<bool> = seen.machines.iter().map(|m| m.runtime.is_some()).collect();
        assert_eq!(answers, [true, false, true]);
        assert!(seen.unhealthy.unwrap().contains("node2"));
    }
    w.guests.state().hung.clear();
    until("hear of it again", || look().unhealthy.is_none());
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

#[test]
fn a_lab_that_cannot_be_paused_as_a_whole_runs_on() {
    let w = World::bare();
    let engine = w.up();
    w.fake.fail(Kind::Suspend, 3);
    let e = perform(&engine, Verb::Pause).unwrap_err();
    assert_undone(&e, "the fake was told to fail");
    w.assert_up(&engine);
    // One that cannot be brought back is told beside the cause.
    w.fake.fail(Kind::Suspend, 3);
    w.fake.fail(Kind::Resume, 2);
    let e = perform(&engine, Verb::Pause).unwrap_err();
    assert_eq!(e.problem().unwrap().rollback.len(), 1, "{e}");
    let running = || w.domains().iter().map(|d| d.1).collect::<Vec<_>>();
    assert_eq!(running(), [true, false, true]);
    assert_eq!(perform(&engine, Verb::Resume).unwrap(), serde_json::json!(["b"]));
    w.assert_up(&engine);

    // Of a lab that is paused, all run again that can.
    assert_eq!(perform(&engine, Verb::Pause).unwrap().as_array().unwrap().len(), 3);
    w.fake.fail(Kind::Resume, 1);
    let e = perform(&engine, Verb::Resume).unwrap_err();
    assert!(e.to_string().contains("the fake was told to fail"), "{e}");
    assert_eq!(running(), [false, true, true]);
    perform(&engine, Verb::Resume).unwrap();
    w.assert_up(&engine);
}
