//! `up`: from nothing, from what is kept, and back where a step fails.

use super::world::{World, assert_undone, status, up};
use crate::error::Error;
use crate::hypervisor::{Hypervisor, Kind};
use crate::lab::cancel::Cancel;
use crate::lab::protocol::{UpArgs, Verb};

fn count(world: &World, kind: Kind) -> usize {
    world.fake.calls().iter().filter(|(k, _)| *k == kind).count()
}

#[test]
fn a_lab_comes_up_from_nothing_and_is_kept() {
    let w = World::ccr();
    let engine = w.up();
    w.assert_up(&engine);
    assert_eq!(w.guests.state().deployed.len(), 3);
    assert_eq!(w.kept(), ["booted", "healthy"]);
    let ended: Vec<_> = w.told("step.end");
    assert!(ended.iter().all(|(_, data)| data["ok"] == true), "{ended:?}");
    let of = |step: &str| ended.iter().filter(|(_, data)| data["step"] == step).count();
    assert_eq!([of("start"), of("boot"), of("deploy"), of("form")], [3, 3, 3, 1]);
    // Once more: there is nothing to do, and nothing is done.
    let before = w.fake.calls().len();
    assert_eq!(up(&engine, w.up_args()).unwrap()["steps"], 0);
    assert!(w.fake.calls()[before..].iter().all(|(k, _)| *k == Kind::List));
}

#[test]
fn a_machine_that_does_not_start_takes_all_with_it() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.fake.fail(Kind::Create, 2);
    assert_undone(&up(&engine, w.up_args()).unwrap_err(), "the fake was told to fail");
    w.assert_gone(&engine);
    assert_eq!(w.kept(), Vec::<String>::new());
    // Nothing of it is in the way.
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
}

#[test]
fn a_machine_that_never_answers_takes_all_with_it() {
    let w = World::bare().with_times(0.004);
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("b".into());
    let e = up(&engine, w.up_args()).unwrap_err();
    assert_undone(&e, "could not reach b while it boots");
    assert!(e.to_string().contains("not a word"), "{e}");
    w.assert_gone(&engine);
}

#[test]
fn a_machine_that_dies_while_it_boots_is_not_waited_for() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("c".into());
    std::thread::scope(|scope| {
        let up = scope.spawn(|| up(&engine, w.up_args()));
        super::world::until("see it waited for", || {
            w.guests.state().knocks > 4 && w.fake.domain("c").is_some()
        });
        w.fake.crash("c");
        assert_undone(&up.join().unwrap().unwrap_err(), "it is gone");
    });
    w.assert_gone(&engine);
}

#[test]
fn a_deployment_that_fails_leaves_only_what_was_kept_before() {
    let w = World::ccr();
    let engine = w.open().unwrap();
    w.guests.state().refusing.insert("node2".into());
    assert_undone(&up(&engine, w.up_args()).unwrap_err(), "no space left");
    w.assert_gone(&engine);
    assert_eq!(w.kept(), ["booted"]);
    // The machines need not boot again.
    w.guests.state().refusing.clear();
    let created = count(&w, Kind::Create);
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    assert_eq!((count(&w, Kind::Create), count(&w, Kind::Restore)), (created, 3));
    assert_eq!(
        w.record().unwrap().restored_from.unwrap().as_str().split('-').next(),
        Some("booted")
    );
}

#[test]
fn what_a_person_wants_to_look_at_stays_and_is_finished_later() {
    let w = World::ccr();
    let engine = w.open().unwrap();
    w.guests.state().refusing.insert("node2".into());
    let args = UpArgs {
        keep: true,
        ..w.up_args()
    };
    up(&engine, args).unwrap_err();
    let before = w.domains();
    assert!(before.len() == 3 && !w.record().unwrap().complete);
    w.guests.state().refusing.clear();
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    assert_eq!(w.domains(), before, "the same processes");
}

#[test]
fn a_lab_that_was_whole_keeps_what_it_had_and_no_more() {
    let w = World::bare().with_times(0.004);
    let engine = w.up();
    let before = w.domains();
    w.fake.crash("c");
    w.fake.suspend("b").unwrap();
    w.guests.state().silent.insert("c".into());
    assert_undone(
        &up(&engine, w.up_args()).unwrap_err(),
        "could not reach c while it boots",
    );
    // `c` was not there before, and `b` did not run.
    let now = w.domains();
    assert_eq!(now, [before[0].clone(), ("b".into(), false, before[1].2)]);
    assert!(w.record().unwrap().complete);
    // So it is seen that there is something left to do.
    w.guests.state().silent.clear();
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    assert_eq!(w.domains()[..2], before[..2]);
}

#[test]
fn a_checkpoint_that_cannot_come_back_gives_way_to_the_one_below_and_to_a_boot() {
    let w = World::ccr();
    let engine = w.up();
    super::world::perform(&engine, Verb::Down).unwrap();
    w.assert_gone(&engine);
    // The machines of the healthy one, and one of those of the booted one.
    let created = count(&w, Kind::Create);
    for nth in 1..=4 {
        w.fake.fail(Kind::Restore, nth);
    }
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    let unfit = w.told("checkpoint.unfit");
    assert_eq!(unfit.len(), 2, "{unfit:?}");
    assert_eq!(count(&w, Kind::Create), created + 3);
    assert_eq!(w.record().unwrap().restored_from, None);
}

#[test]
fn a_lab_that_is_brought_back_healthy_is_followed_and_complete() {
    let w = World::ccr();
    let engine = w.up();
    super::world::perform(&engine, Verb::Down).unwrap();
    let created = count(&w, Kind::Create);
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    assert_eq!((count(&w, Kind::Create), count(&w, Kind::Restore)), (created, 3));
    assert_eq!(w.told("lab.restored").len(), 1);
    assert!(status(&engine).machines.iter().all(|m| m.moment.is_some()));
}

#[test]
fn a_client_that_goes_away_takes_back_what_it_began() {
    let w = World::bare();
    let engine = w.open().unwrap();
    w.guests.state().silent.insert("a".into());
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let up = scope.spawn(|| engine.perform(Verb::Up(Box::new(w.up_args())), &cancel));
        super::world::until("see it waited for", || w.guests.state().knocks > 4);
        cancel.cancel();
        assert!(matches!(up.join().unwrap(), Err(Error::Interrupted)));
    });
    w.assert_gone(&engine);
}
