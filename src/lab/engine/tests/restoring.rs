//! Checkpoints, and the way back.

use super::world::{World, assert_undone, keep, perform, rules, status, up};
use crate::hypervisor::{Fake, Hypervisor, Kind};
use crate::lab::checkpoint::Store;
use crate::lab::protocol::{Look, Verb};
use std::sync::Arc;

#[test]
fn a_lab_comes_back_in_place_with_the_faults_of_then() {
    let w = World::bare();
    let engine = w.up();
    w.inject(&engine, "cut", "a").unwrap();
    let (then, in_force) = (w.faults(), rules(&engine));
    let before = w.domains();
    keep(&engine, "one");
    assert_eq!(w.domains(), before, "it goes on in the same processes");

    perform(&engine, Verb::Heal { id: None }).unwrap();
    w.inject(&engine, "power-off", "b").unwrap();
    perform(&engine, Verb::Restore(w.restore_args("one"))).unwrap();
    assert_eq!(w.faults(), then);
    assert_eq!(status(&engine).faults, then);
    assert_eq!(rules(&engine), in_force);
    let now = w.domains();
    assert!(now.len() == 3 && now.iter().all(|d| d.1) && now.iter().zip(&before).all(|(n, b)| n.2 != b.2));
    let record = w.record().unwrap();
    assert!(record.complete && record.restoring.is_none() && record.restored_from.unwrap().as_str() == "one");
    perform(&engine, Verb::Heal { id: None }).unwrap();
    w.assert_up(&engine);
}

#[test]
fn a_restore_that_fails_leaves_a_lab_that_can_try_again() {
    let w = World::bare();
    let engine = w.up();
    keep(&engine, "one");
    w.fake.fail(Kind::Restore, 2);
    let e = perform(&engine, Verb::Restore(w.restore_args("one"))).unwrap_err();
    assert_undone(&e, "the fake was told to fail");
    // Neither the one nor the other: no machine is there, and the record says why.
    assert_eq!(w.domains(), []);
    assert_eq!(w.record().unwrap().restoring.unwrap().as_str(), "one");
    assert!(status(&engine).unhealthy.unwrap().contains("cut short"));
    perform(&engine, Verb::Restore(w.restore_args("one"))).unwrap();
    w.assert_up(&engine);
}

#[test]
fn what_is_refused_before_anything_is_touched_changes_nothing() {
    let w = World::ccr();
    let engine = w.up();
    keep(&engine, "one");
    let (before, record) = (w.domains(), w.record());
    // Its image is gone: the way back has been closed already.
    let image = w.dir.path().join("image");
    std::fs::rename(&image, w.dir.path().join("elsewhere")).unwrap();
    perform(&engine, Verb::Restore(w.restore_args("one"))).unwrap_err();
    std::fs::rename(w.dir.path().join("elsewhere"), &image).unwrap();
    assert_eq!((w.domains(), w.record()), (before.clone(), record.clone()));
    w.assert_up(&engine);
    // Somebody still listens: the nodes' events are not missing for a reason of ours.
    assert_eq!(
        engine.channels.unfollowed(&engine.record().unwrap()),
        Vec::<String>::new()
    );
    // Damage is seen before.
    let checkpoint = Store::of(&w.home, &w.lab.name).get(&"one".parse().unwrap()).unwrap();
    let memory = checkpoint.files.memory("node1");
    let text = std::fs::read_to_string(&memory).unwrap();
    std::fs::write(&memory, text.replacen("node1", "nodeX", 1)).unwrap();
    let e = perform(&engine, Verb::Restore(w.restore_args("one"))).unwrap_err();
    assert!(e.to_string().contains("memory/node1"), "{e}");
    assert_eq!((w.domains(), w.record()), (before, record));
    w.assert_up(&engine);
}

#[test]
fn a_fork_that_cannot_come_back_is_not_there_and_its_lab_knows_nothing_of_it() {
    let w = World::bare();
    let engine = w.up();
    keep(&engine, "one");
    let before = w.domains();
    let forked = Arc::new(Fake::new());
    let fork = w.open_as("bare@1", forked.clone()).unwrap();
    forked.fail(Kind::Resume, 2);
    let e = perform(&fork, Verb::Restore(w.restore_args("one"))).unwrap_err();
    assert_undone(&e, "the fake was told to fail");
    assert!(!fork.keeps_anything() && forked.list().unwrap().is_empty());
    let files = w.home.lab("bare@1");
    assert!(!files.record().exists() && !files.node("a").dir.exists());
    perform(&fork, Verb::Restore(w.restore_args("one"))).unwrap();
    assert_eq!(forked.list().unwrap().len(), 3);
    assert_eq!(forked.domain("a").unwrap().described.label(), Some("bare@1"));
    assert_eq!(w.domains(), before);
    w.assert_up(&engine);
}

#[test]
fn a_checkpoint_that_fails_leaves_the_lab_as_it_was() {
    let w = World::bare();
    let engine = w.up();
    let before = w.domains();
    for kind in [Kind::Suspend, Kind::Snapshot, Kind::Resume] {
        w.fake.fail(kind, 2);
        let name = "one".parse().unwrap();
        let e = perform(&engine, Verb::Checkpoint { name }).unwrap_err();
        assert!(e.to_string().contains("the fake was told to fail"), "{e}");
        if kind == Kind::Resume {
            perform(&engine, Verb::Resume).unwrap();
        }
        assert_eq!(w.domains(), before);
        assert_eq!(w.kept(), ["healthy"]);
    }
    keep(&engine, "one");
    w.assert_up(&engine);
}

#[test]
fn a_lab_of_which_a_machine_was_off_comes_back_like_that_and_is_heard() {
    let w = World::ccr();
    let engine = w.up();
    w.inject(&engine, "power-off", "node2").unwrap();
    keep(&engine, "one");
    perform(&engine, Verb::Restore(w.restore_args("one"))).unwrap();
    assert_eq!(w.domains().len(), 2);
    assert_eq!(
        engine.channels.unfollowed(&engine.record().unwrap()),
        Vec::<String>::new()
    );
    let look = Verb::Status(Some(Look::now()));
    perform(&engine, look).unwrap();
    perform(&engine, Verb::Heal { id: None }).unwrap();
    assert_eq!(w.domains().len(), 3);
    up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
}
