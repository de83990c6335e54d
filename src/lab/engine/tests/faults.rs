//! Faults and their records, on the way in and on the way out.

use super::world::{World, assert_undone, perform, rules, status};
use crate::hypervisor::{Hypervisor, Kind};
use crate::lab::active_faults::ActiveFaults;
use crate::lab::protocol::Verb;
use crate::verify::FaultRecord;
use std::sync::{Arc, Mutex};

#[test]
fn a_fault_is_on_record_before_it_happens_and_complete_behind_it() {
    let w = World::bare();
    let engine = w.up();
    let (files, seen) = (w.files(), Arc::new(Mutex::new(Vec::new())));
    w.fake.listen(Box::new({
        let seen = seen.clone();
        move |e| {
            let on_disk = ActiveFaults::load(&files).unwrap().faults;
            seen.lock().unwrap().push((e.what, on_disk.first().map(|f| f.pending)));
        }
    }));
    let record = w.inject(&engine, "freeze", "b").unwrap();
    assert_eq!(*seen.lock().unwrap(), [("suspended".to_owned(), Some(true))]);
    assert!(!record.pending && record.effective == Some(true) && record.end_us.is_none());
    assert_eq!(w.faults(), std::slice::from_ref(&record));
    assert_eq!(status(&engine).faults, w.faults());
    let begun = w.told("fault.begin");
    assert!(begun.len() == 1 && begun[0].0 == "b" && begun[0].1["id"] == record.id);

    let healed = perform(&engine, Verb::Heal { id: Some(record.id) }).unwrap();
    let healed: Vec<FaultRecord> = serde_json::from_value(healed).unwrap();
    assert!(healed.len() == 1 && healed[0].end_us > Some(record.begin_us));
    assert_eq!(w.told("fault.end").len(), 1);
    w.assert_up(&engine);
    // It is not in force any more.
    let e = perform(&engine, Verb::Heal { id: Some(record.id) }).unwrap_err();
    assert_eq!(
        (e.exit_code(), e.to_string().contains("no fault is in force")),
        (2, true)
    );
}

#[test]
fn a_fault_that_cannot_be_made_is_taken_back() {
    let w = World::bare();
    let engine = w.up();
    let before = w.domains();
    w.fake.fail(Kind::Destroy, 1);
    let e = w.inject(&engine, "power-off", "a").unwrap_err();
    assert_undone(&e, "the fake was told to fail");
    w.assert_up(&engine);
    assert_eq!(w.domains(), before);
    assert!(w.told("fault.begin").is_empty());
    // Refused ones leave nothing either.
    w.fake.suspend("c").unwrap();
    let e = w.inject(&engine, "freeze", "c").unwrap_err();
    assert_eq!(e.exit_code(), 2, "{e}");
    assert!(w.faults().is_empty());
}

#[test]
fn a_fault_that_cannot_be_taken_back_stays_on_record_until_it_is_healed() {
    let w = World::bare();
    let engine = w.up();
    w.fake.fail(Kind::Destroy, 1);
    // By the injector and by the way back.
    w.fake.fail(Kind::Resume, 1);
    w.fake.fail(Kind::Resume, 2);
    let e = w.inject(&engine, "power-off", "a").unwrap_err();
    assert!(!e.problem().unwrap().rollback.is_empty(), "{e:?}");
    let left = w.faults();
    assert!(left.len() == 1 && left[0].pending && left[0].kind == "power-off");
    assert_eq!(status(&engine).faults, left);
    w.fake.mend();
    perform(&engine, Verb::Heal { id: None }).unwrap();
    w.assert_up(&engine);
}

#[test]
fn all_are_healed_but_the_one_that_cannot() {
    let w = World::bare();
    let engine = w.up();
    w.inject(&engine, "cut", "a").unwrap();
    w.inject(&engine, "power-off", "b").unwrap();
    let frozen = w.inject(&engine, "freeze", "c").unwrap();
    w.fake.fail(Kind::Resume, 1);
    let e = perform(&engine, Verb::Heal { id: None }).unwrap_err();
    assert!(e.to_string().contains("the fake was told to fail"), "{e}");
    assert_eq!(w.faults(), std::slice::from_ref(&frozen));
    assert_eq!(status(&engine).faults, [frozen]);
    assert_eq!(rules(&engine), Vec::<String>::new());
    assert_eq!(w.told("fault.end").len(), 2);
    let running: Vec<bool> = w.domains().iter().map(|d| d.1).collect();
    assert_eq!(running, [true, true, false]);
    perform(&engine, Verb::Heal { id: None }).unwrap();
    w.assert_up(&engine);
}

#[test]
fn what_a_frozen_machine_had_said_does_not_count_when_it_goes_on() {
    let w = World::ccr();
    let engine = w.up();
    let moment = |name: &str| {
        let seen = status(&engine);
        let machine = seen.machines.iter().find(|m| m.node == name).unwrap();
        machine.moment.map(|m| m.after_us)
    };
    assert!(moment("node2").is_some());
    // Nobody looks meanwhile: the look would see that it is frozen.
    w.inject(&engine, "freeze", "node2").unwrap();
    // What it said before is on its way no more.
    let stalls = w.guests.state().stalls;
    super::world::until("hear nothing of it", || w.guests.state().stalls > stalls);
    let healed = engine.journal().now_us();
    perform(&engine, Verb::Heal { id: None }).unwrap();
    super::world::until("hear of it again", || moment("node2").is_some());
    assert!(moment("node2") >= Some(healed));
}
