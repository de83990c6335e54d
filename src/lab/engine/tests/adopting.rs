//! A supervisor that died is followed by another one.

use super::world::{World, perform, rules, status};
use crate::event::kind;
use crate::hypervisor::Kind;
use crate::lab::protocol::Verb;
use crate::lab::record::LabRecord;

#[test]
fn machines_that_run_are_adopted_with_the_faults_in_force() {
    let w = World::bare();
    let engine = w.up();
    w.inject(&engine, "cut", "a").unwrap();
    w.inject(&engine, "freeze", "b").unwrap();
    let (before, faults, in_force) = (w.domains(), w.faults(), rules(&engine));
    assert!(faults.len() == 2 && !in_force.is_empty());
    w.die(engine);

    let calls = w.fake.calls().len();
    let engine = w.open().unwrap();
    assert_eq!(w.domains(), before, "the same processes in the same states");
    let touched = w.fake.calls().split_off(calls);
    assert!(touched.iter().all(|(k, _)| *k == Kind::List), "{touched:?}");
    assert_eq!(rules(&engine), in_force);
    let seen = status(&engine);
    assert_eq!(seen.faults, faults);
    assert_eq!(seen.network_outages.len(), 1);
    let adopted = w.told(kind::ADOPTED);
    assert!(
        adopted[0].1["text"].as_str().unwrap().contains("3 machines"),
        "{adopted:?}"
    );
    // They are undone by the one that did not make them; the next has a number of its own.
    perform(&engine, Verb::Heal { id: None }).unwrap();
    w.assert_up(&engine);
    assert_eq!(rules(&engine), Vec::<String>::new());
    assert_eq!(w.inject(&engine, "freeze", "c").unwrap().id, 3);
}

#[test]
fn a_whole_lab_is_listened_to_again() {
    let w = World::ccr();
    w.die(w.up());
    let engine = w.open().unwrap();
    assert_eq!(
        engine.channels.unfollowed(&engine.record().unwrap()),
        Vec::<String>::new()
    );
    super::world::until("hear of it", || status(&engine).unhealthy.is_none());
    w.assert_up(&engine);
}

#[test]
fn a_fault_that_was_cut_short_is_in_force_until_it_is_healed() {
    let w = World::bare();
    let engine = w.up();
    // As one whose process was killed between the act and the record.
    let pending = w.inject(&engine, "freeze", "a").unwrap();
    let mut active = engine.active_faults();
    active.faults[0].pending = true;
    active.save(&w.files()).unwrap();
    w.die(engine);
    let engine = w.open().unwrap();
    let seen = status(&engine).faults;
    assert!(seen.len() == 1 && seen[0].pending && seen[0].id == pending.id);
    perform(&engine, Verb::Heal { id: Some(pending.id) }).unwrap();
    w.assert_up(&engine);
}

#[test]
fn a_lab_that_was_half_brought_back_says_so_until_it_is_whole() {
    let w = World::bare();
    let engine = w.up();
    super::world::keep(&engine, "one");
    w.die(engine);
    let half = LabRecord {
        restoring: Some("one".parse().unwrap()),
        ..w.record().unwrap()
    };
    half.save(&w.files().record()).unwrap();
    w.fake.crash("b");

    let engine = w.open().unwrap();
    let told = w.told("lab.half-restored");
    assert!(told[0].1["text"].as_str().unwrap().contains("one"), "{told:?}");
    assert!(status(&engine).unhealthy.unwrap().contains("cut short"));
    let name = "two".parse().unwrap();
    let e = perform(&engine, Verb::Checkpoint { name }).unwrap_err();
    assert!(e.to_string().contains("cut short"), "{e}");
    // `up` does the same again.
    super::world::up(&engine, w.up_args()).unwrap();
    w.assert_up(&engine);
    assert_eq!(w.record().unwrap().restored_from.unwrap().as_str(), "one");
}

#[test]
fn a_hypervisor_that_does_not_answer_is_an_error_and_no_empty_lab() {
    let w = World::bare();
    let engine = w.up();
    let before = w.domains();
    w.die(engine);
    w.fake.fail(Kind::List, 1);
    assert!(w.open().is_err());
    assert!(w.record().is_some());
    let engine = w.open().unwrap();
    assert_eq!(w.domains(), before);
    w.assert_up(&engine);
}

#[test]
fn what_cannot_be_read_can_be_taken_down_and_is_not_overwritten() {
    type Spoil = fn(&std::path::Path);
    let cases: [(&str, bool, Spoil); 4] = [
        ("record", false, |p| std::fs::write(p, "").unwrap()),
        ("record", false, |p| {
            std::fs::write(p, "{\"schema\": 1, \"inst").unwrap()
        }),
        ("record", false, |p| {
            std::fs::remove_file(p).unwrap();
            std::fs::create_dir(p).unwrap();
        }),
        ("faults in force", true, |p| std::fs::write(p, "null").unwrap()),
    ];
    for (what, faults, spoil) in cases {
        let w = World::bare();
        let engine = w.up();
        w.inject(&engine, "cut", "a").unwrap();
        w.die(engine);
        let files = w.files();
        let path = if faults { files.active_faults() } else { files.record() };
        spoil(&path);
        let spoilt = std::fs::read(&path).ok();

        let engine = w.open().unwrap();
        assert!(engine.keeps_anything(), "a supervisor stays for it");
        let up = Verb::Up(Box::new(w.up_args()));
        for verb in [up, Verb::Status(None), Verb::Heal { id: None }, Verb::Counters] {
            let e = perform(&engine, verb).unwrap_err();
            let remedy = e.problem().unwrap().remedy.clone().unwrap();
            assert!(
                e.to_string().contains(what) && remedy.contains("failoverlab down"),
                "{e}"
            );
        }
        assert_eq!(w.domains().len(), 3, "nothing was touched");
        assert_eq!(std::fs::read(&path).ok(), spoilt);

        perform(&engine, Verb::Down).unwrap();
        assert!(w.domains().is_empty() && !engine.keeps_anything());
        assert!(w.record().is_none() && !files.record().exists() && !files.active_faults().exists());
    }
}
