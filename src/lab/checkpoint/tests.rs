//! Checkpoints of a lab of fake machines with real disk files: what comes back, what fails, what is left.

mod world;

use super::layers::Chain;
use super::*;
use crate::files::Home;
use crate::guest::agent::tests::serve_stream;
use crate::hypervisor::{DomainState, Hypervisor, Kind};
use crate::image::qemu_img::QemuImg;
use crate::plan::Layer;
use crate::units::{Name, Size};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{World, answer, name, unused};

#[test]
fn a_lab_goes_on_and_comes_back_as_it_was() {
    let w = World::new();
    w.clocks.lock().unwrap().insert("b".into(), -3_600_000_000);
    let mac = w.lab.nodes[0].nics[0].mac.to_string();
    w.fake.set_link("a", &mac, false).unwrap();
    let pids: Vec<_> = w.fake.list().unwrap().into_iter().map(|d| d.pid).collect();
    let c = w.checkpoint("healthy").unwrap();

    w.assert_goes_on(&[]);
    let goes_on = w.fake.list().unwrap().into_iter().map(|d| d.pid);
    assert_eq!(goes_on.collect::<Vec<_>>(), pids);
    assert_eq!(w.wires.0.lock().unwrap().1, 1, "held once");
    let order: Vec<Kind> = w
        .fake
        .calls()
        .into_iter()
        .map(|(k, _)| k)
        .filter(|k| matches!(k, Kind::Suspend | Kind::Snapshot | Kind::Resume))
        .collect();
    let twice = [Kind::Suspend, Kind::Snapshot, Kind::Resume].map(|k| [k, k]);
    assert_eq!(order, twice.concat());
    assert_holds_the_lab(&c, &mac);
    assert_eq!(w.store().get(&name("healthy")).unwrap().meta, c.meta);

    // The lab changes, goes away, and a fork of the checkpoint is what it was.
    let files = w.files("bare");
    std::fs::write(files.shared_disk("quorum"), "now!").unwrap();
    w.down();
    std::fs::remove_dir_all(&files.state).unwrap();
    w.clocks.lock().unwrap().clear();
    let fork = w.files("bare@1");
    let c = w.store().get(&name("healthy")).unwrap();
    unpack(&c, &fork, &w.qemu_img).unwrap();
    unpack(&c, &fork, &w.qemu_img).unwrap();
    assert_eq!(std::fs::read_to_string(fork.shared_disk("quorum")).unwrap(), "then");
    assert_eq!(std::fs::read_to_string(fork.ssh_key()).unwrap(), "secret");
    assert_eq!(std::fs::metadata(fork.ssh_key()).unwrap().mode() & 0o777, 0o600);
    let top = top_layer(&fork.node("a"), "data");
    assert_eq!(top, fork.node("a").layer("data", 1));
    let info = w.qemu_img.info(&top).unwrap();
    assert_eq!(
        info.full_backing_filename.as_deref(),
        Some(fork.node("a").layer("data", 0).as_path())
    );
    let at_rest = std::fs::metadata(&top).unwrap().blocks() * 512;
    assert!(at_rest < 1 << 20, "{at_rest}");

    w.serve_clocks(&fork, answer);
    let back = restore(&c, w.restore_request(&fork)).unwrap();
    assert_eq!(w.wires.held(), 0);
    assert_eq!(back.nodes.len(), 2);
    assert!(
        back.nodes.iter().all(|n| n.clock_error_us.unwrap().abs() <= 20_000),
        "{back:?}"
    );
    assert!((w.clocks.lock().unwrap()["b"] + 3_600_000_000).abs() < 1_000_000);
    assert_eq!(w.fake.domain("a").unwrap().link_up(&mac), Some(false));
    assert!(w.fake.list().unwrap().iter().all(|d| d.state == DomainState::Running));
}

/// `c` has both machines as they were, with the clock of `b` an hour late, and every file.
fn assert_holds_the_lab(c: &Checkpoint, cut: &str) {
    let [a, b] = c.meta.nodes.as_slice() else { panic!() };
    assert_eq!((a.state, b.state), (NodeState::Running, NodeState::Running));
    assert!(
        a.clock_offset_us.unwrap().abs() < 1_000_000 && (b.clock_offset_us.unwrap() + 3_600_000_000).abs() < 1_000_000
    );
    assert!(!a.links[cut]);
    assert_eq!(
        a.layers,
        BTreeMap::from([("root".to_owned(), 0), ("data".to_owned(), 0)])
    );
    assert!(c.meta.skew_us <= c.meta.pause_us);
    for part in &c.meta.parts {
        let mode = std::fs::metadata(c.files.dir.join(&part.path)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o400, "{}", part.path);
    }
    let kinds = |k| c.meta.parts.iter().filter(|p| p.kind == k).count();
    assert_eq!(
        (
            kinds(PartKind::Memory),
            kinds(PartKind::Disk),
            kinds(PartKind::Shared),
            kinds(PartKind::Credential)
        ),
        (2, 3, 1, 1)
    );
}

#[test]
fn whatever_fails_the_lab_goes_on_and_nothing_is_left() {
    for kind in [Kind::Lookup, Kind::Xml, Kind::Suspend, Kind::Snapshot] {
        for nth in [1, 2] {
            let w = World::new();
            w.fake.fail(kind, nth);
            let e = w.checkpoint("c").unwrap_err();
            assert_eq!(e.exit_code(), 5, "{kind:?} {nth}");
            w.assert_goes_on(&[]);
            let (good, bad) = w.store().list().unwrap();
            assert!(good.is_empty() && bad.is_empty());
            assert_eq!(
                std::fs::read_dir(Home::under(w.dir.path()).checkpoints().join("bare"))
                    .unwrap()
                    .count(),
                0
            );
            w.checkpoint("c").unwrap();
            w.assert_goes_on(&[]);
        }
    }
}

/// On a full disk QEMU stops a machine that writes: the room is there again before any goes on.
#[test]
fn what_failed_takes_no_room_when_the_machines_go_on() {
    let w = World::new();
    w.fake.fail(Kind::Snapshot, 2);
    let dir = Home::under(w.dir.path()).checkpoints().join("bare/.c");
    let taken = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = taken.clone();
    w.fake.listen(Box::new(move |e| {
        if e.what == "resumed" {
            let files = ["memory", "shared"].map(|inside| std::fs::read_dir(dir.join(inside)).unwrap());
            let lengths = files
                .into_iter()
                .flatten()
                .map(|f| f.unwrap().metadata().unwrap().len());
            seen.lock().unwrap().push(lengths.collect::<Vec<_>>());
        }
    }));
    w.checkpoint("c").unwrap_err();
    // One machine's memory and the shared disk had been written.
    assert_eq!(*taken.lock().unwrap(), [[0, 0], [0, 0]]);
}

#[test]
fn a_machine_that_does_not_go_on_is_reported() {
    let w = World::new();
    w.fake.fail(Kind::Resume, 2);
    assert!(w.checkpoint("c").is_err());
    assert_eq!(w.wires.held(), 0);
    let paused = w
        .fake
        .list()
        .unwrap()
        .iter()
        .filter(|d| d.state == DomainState::Paused)
        .count();
    assert_eq!(paused, 1);
    // Beside another cause it is said too.
    let w = World::new();
    w.fake.fail(Kind::Snapshot, 1);
    w.fake.fail(Kind::Resume, 1);
    let e = w.checkpoint("c").unwrap_err();
    assert!(e.to_string().contains("snapshot"), "{e}");
    assert_eq!(e.problem().unwrap().rollback.len(), 1);
}

#[test]
fn a_clock_that_does_not_answer_does_not_stop_a_checkpoint() {
    let w = World::new();
    // The program that answered there before there was an agent: it takes no hello for a request.
    let (quiet, _kept): (Vec<_>, Vec<_>) = (0..2).map(|_| UnixStream::pair().unwrap()).unzip();
    for (node, stream) in w.lab.nodes.iter().zip(quiet) {
        serve_stream(&w.files("bare").node(&node.name).agent(), stream);
    }
    let c = w.checkpoint("c").unwrap();
    assert!(
        c.meta
            .nodes
            .iter()
            .all(|n| n.clock_offset_us.is_none() && n.boot_id.is_none())
    );
    w.down();
    unpack(&c, &w.files("bare"), &w.qemu_img).unwrap();
    let back = restore(&c, w.restore_request(&w.files("bare"))).unwrap();
    assert!(back.nodes.iter().all(|n| n.clock_error_us.is_none()));
}

#[test]
fn without_room_for_a_layer_nothing_happens() {
    let mut w = World::new();
    w.qemu_img = QemuImg::new("/bin/false");
    assert!(w.checkpoint("c").is_err());
    w.assert_goes_on(&[]);
    assert!(w.fake.calls().iter().all(|(k, _)| *k != Kind::Suspend));
}

#[test]
fn suspended_and_switched_off_machines_come_back_as_such() {
    let w = World::new();
    w.fake.suspend("a").unwrap();
    w.fake.destroy("b").unwrap();
    let c = w.checkpoint("c").unwrap();
    assert_eq!(
        c.meta.nodes.iter().map(|n| n.state).collect::<Vec<_>>(),
        [NodeState::Paused, NodeState::Off]
    );
    w.assert_goes_on(&["a"]);
    assert_eq!(
        top_layer(&w.files("bare").node("b"), "root"),
        w.files("bare").node("b").layer("root", 1)
    );
    w.down();
    unpack(&c, &w.files("bare"), &w.qemu_img).unwrap();
    let back = restore(&c, w.restore_request(&w.files("bare"))).unwrap();
    assert_eq!(back.nodes, []);
    assert_eq!(w.fake.list().unwrap().len(), 1);
    w.assert_goes_on(&["a"]);
}

#[test]
fn whatever_fails_in_coming_back_no_machine_is_left() {
    for (kind, nth) in [
        (Kind::Restore, 1),
        (Kind::Restore, 2),
        (Kind::Resume, 1),
        (Kind::Resume, 2),
    ] {
        let w = World::new();
        let c = w.checkpoint("c").unwrap();
        w.down();
        let files = w.files("bare");
        unpack(&c, &files, &w.qemu_img).unwrap();
        w.fake.fail(kind, nth);
        assert!(restore(&c, w.restore_request(&files)).is_err());
        assert_eq!(w.fake.list().unwrap(), []);
        assert_eq!(w.wires.held(), 0);
        restore(&c, w.restore_request(&files)).unwrap();
        w.assert_goes_on(&[]);
    }
}

#[test]
fn a_machine_that_booted_instead_is_found() {
    let w = World::new();
    let mut c = w.checkpoint("c").unwrap();
    c.meta.nodes[1].boot_id = Some("f".repeat(36));
    w.down();
    unpack(&c, &w.files("bare"), &w.qemu_img).unwrap();
    let e = restore(&c, w.restore_request(&w.files("bare"))).unwrap_err();
    assert!(e.to_string().contains("booted instead"), "{e}");
    assert_eq!(w.fake.list().unwrap(), []);
}

#[test]
fn checkpoints_follow_each_other_and_need_none_before() {
    let w = World::new();
    w.checkpoint("one").unwrap();
    let two = w.checkpoint("two").unwrap();
    assert_eq!(two.meta.nodes[0].layers["root"], 1);
    w.store().rm(&name("one"), unused).unwrap();
    two.verify().unwrap();
    w.down();
    std::fs::remove_dir_all(w.files("bare").state).unwrap();
    let fork = w.files("bare@2");
    unpack(&two, &fork, &w.qemu_img).unwrap();
    w.store().rm(&name("two"), unused).unwrap();
    let top = Chain::find(&fork.node("a").dir, "root").unwrap();
    assert_eq!(top.top, 2);
    for layer in top.files().skip(1) {
        assert!(
            w.qemu_img
                .info(&layer)
                .unwrap()
                .full_backing_filename
                .unwrap()
                .starts_with(&fork.state)
        );
    }
}

#[test]
fn a_damaged_checkpoint_is_found_before_anything_is_touched() {
    let w = World::new();
    let c = w.checkpoint("c").unwrap();
    let memory = c.files.memory("a");
    std::fs::remove_file(&memory).unwrap();
    std::fs::write(&memory, "short").unwrap();
    let fork = w.files("bare@1");
    let e = unpack(&c, &fork, &w.qemu_img).unwrap_err();
    assert!(e.problem().unwrap().remedy.is_some());
    assert!(!fork.state.exists());
    let meta = c.files.meta();
    let good = std::fs::read_to_string(&meta).unwrap();
    for bad in [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace("memory/a", "../../x"),
        good.replace("memory/a", "/etc/passwd"),
        good.replace("\"schema\": 2", "\"schema\": 1"),
        good.replace("\"root\"", "\"../root\""),
        good.replace("\"wish\"", "\"desired\""),
        good.replace("\"standing\"", "\"faults\""),
    ] {
        std::fs::write(&meta, bad).unwrap();
        assert_eq!(w.store().get(&name("c")).unwrap_err().exit_code(), 5);
        let (good, bad) = w.store().list().unwrap();
        assert_eq!((good.len(), bad.len()), (0, 1));
    }
    w.store().rm(&name("c"), unused).unwrap();
}

/// Older builds kept a healthy lab before its `up` had reached its own end. A fork of it that is adopted must be followed again.
#[test]
fn a_lab_that_was_kept_healthy_is_whole() {
    let w = World::new();
    let c = w.checkpoint("c").unwrap();
    let complete = |complete, layer| {
        let mut meta = c.meta.clone();
        (meta.record.complete, meta.layer) = (complete, layer);
        let text = serde_json::to_vec(&meta).unwrap();
        Meta::parse(&text, &c.files.meta()).unwrap().record.complete
    };
    assert!(complete(false, Some(Layer::Healthy)));
    // One whose machines have only booted is not, nor one that a person kept of a lab whose `up` had failed.
    assert!(!complete(false, Some(Layer::Booted)));
    assert!(!complete(false, None));
    assert!(complete(true, None));
}

#[test]
fn the_store_keeps_what_is_needed() {
    let w = World::new();
    let store = w.store();
    assert_eq!(store.get(&name("x")).unwrap_err().exit_code(), 2);
    store.rm(&name("x"), unused).unwrap_err();
    for n in ["one", "two", "three"] {
        w.checkpoint(n).unwrap();
    }
    assert_eq!(w.checkpoint("one").unwrap_err().exit_code(), 2);
    let used = |n: &Name| (n.as_str() == "one").then(|| "bare@1".to_owned());
    let e = store.rm(&name("one"), used).unwrap_err();
    assert!(e.to_string().contains("bare@1"), "{e}");
    let all = |_: &Name| true;
    assert_eq!(store.prune(Size::mib(1024), all, used).unwrap(), []);
    // What a person kept neither counts nor goes.
    let (listed, _) = store.list().unwrap();
    let one = Size(
        listed
            .iter()
            .find(|c| c.meta.name == name("three"))
            .unwrap()
            .disk_usage()
            .unwrap(),
    );
    assert_eq!(store.prune(one, |n| *n == name("three"), used).unwrap(), []);
    assert_eq!(
        store.prune(Size(0), |n| *n == name("three"), used).unwrap(),
        [name("three")]
    );
    assert_eq!(store.prune(Size(0), all, used).unwrap(), [name("two")]);
    assert_eq!(store.list().unwrap().0[0].meta.name, name("one"));
}

/// Of both layers alike the one whose last use is longest ago goes first; what they have in common counts once.
#[test]
fn what_was_not_used_for_longest_goes_first() {
    let w = World::new();
    let store = w.store();
    let made: Vec<Checkpoint> = ["one", "two", "three"].map(|n| w.checkpoint(n).unwrap()).into();
    let hours_ago = |n: u64| std::time::SystemTime::now() - Duration::from_secs(3600 * n);
    for (c, hours) in made.iter().zip([4, 3, 2]) {
        let meta = std::fs::File::open(c.files.meta()).unwrap();
        meta.set_modified(hours_ago(hours)).unwrap();
    }
    // A lab came back from the oldest.
    made[0].used();
    let all = |_: &Name| true;
    let left = |budget: u64| {
        let gone = store.prune(Size(budget), all, unused).unwrap();
        gone.iter().map(|n| n.to_string()).collect::<Vec<_>>()
    };
    w.down();
    std::fs::remove_dir_all(w.files("bare").state).unwrap();
    let blocks = |c: &Checkpoint| -> BTreeMap<u64, u64> {
        let parts = c
            .meta
            .parts
            .iter()
            .map(|p| std::fs::metadata(c.files.dir.join(&p.path)).unwrap());
        parts.map(|m| (m.ino(), m.blocks() * 512)).collect()
    };
    let together = |cs: &[&Checkpoint]| -> u64 {
        cs.iter()
            .flat_map(|c| blocks(c))
            .collect::<BTreeMap<_, _>>()
            .values()
            .sum()
    };
    let whole = together(&[&made[0], &made[1], &made[2]]);
    assert!(
        whole < made.iter().map(|c| blocks(c).values().sum::<u64>()).sum(),
        "they have something in common"
    );
    assert_eq!(left(whole), Vec::<String>::new());
    assert_eq!(left(whole - 1), ["two"]);
    assert_eq!(left(together(&[&made[0]])), ["three"]);
}

#[test]
fn what_another_build_kept_goes_whatever_room_there_is_and_what_a_person_kept_stays() {
    let w = World::new();
    for n in ["warm", "used", "mine"] {
        let meta = w.checkpoint(n).unwrap().files.meta();
        let text = std::fs::read_to_string(&meta).unwrap();
        std::fs::write(&meta, text.replace("\"schema\": 2", "\"schema\": 1")).unwrap();
    }
    let whole = w.checkpoint("whole").unwrap();
    let user = |n: &Name| (n.as_str() == "used").then(|| "bare@1".to_owned());
    let gone = w.store().prune(Size::mib(1024), |n| n.as_str() != "mine", user);
    assert_eq!(gone.unwrap(), [name("warm")]);
    let (good, bad) = w.store().list().unwrap();
    assert_eq!(
        (good[0].meta.name.clone(), good.len(), bad.len()),
        (whole.meta.name, 1, 2)
    );
}

#[test]
fn what_a_killed_process_left_is_swept_and_what_is_being_made_is_not() {
    let w = World::new();
    let store = w.store();
    let draft = store.begin(&name("mine")).unwrap();
    assert_eq!(store.begin(&name("mine")).unwrap_err().exit_code(), 2);
    let left = draft.files.dir.with_file_name(".left");
    std::fs::create_dir_all(left.join("memory")).unwrap();
    store.sweep().unwrap();
    assert!(draft.files.dir.exists() && !left.exists());
    let dir = draft.files.dir.clone();
    drop(draft);
    assert!(!dir.exists());
    assert!(store.list().unwrap().0.is_empty());
}

#[test]
fn clocks_come_right_though_an_order_missed() {
    let w = World::new();
    w.clocks.lock().unwrap().insert("a".into(), -5_500_000);
    let c = w.checkpoint("c").unwrap();
    w.down();
    // Time went on without the machines, and the first order on each of them misses by 80 ms.
    w.clocks.lock().unwrap().insert("a".into(), -65_500_000);
    let missed = Arc::new(Mutex::new(Vec::new()));
    w.serve_clocks(&w.files("bare"), move |clocks, node, set| {
        let told = answer(clocks, node, set);
        let mut missed = missed.lock().unwrap();
        if set.is_some() && !missed.contains(&node.to_owned()) {
            missed.push(node.to_owned());
            *clocks.lock().unwrap().get_mut(node).unwrap() -= 80_000;
        }
        told
    });
    unpack(&c, &w.files("bare"), &w.qemu_img).unwrap();
    let back = restore(&c, w.restore_request(&w.files("bare"))).unwrap();
    assert!(
        back.nodes.iter().all(|n| n.clock_error_us.unwrap().abs() <= 20_000),
        "{back:?}"
    );
    assert!((w.clocks.lock().unwrap()["a"] + 5_500_000).abs() <= 100_000);
}
