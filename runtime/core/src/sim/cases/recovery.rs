//! Recovery: what a node makes of a disk on which something is missing, cannot be read, or is not what was written.

use super::fixture::{HUB, Lab};
use crate::durable;
use crate::io::DiskAction;
use ccr_contract::status::{CopyStatus, ServiceState};

/// What happens to a node's disk.
type Change = dyn Fn(&mut Lab, usize);
/// Which operations of a disk.
type Which = fn(&DiskAction) -> bool;

/// The group's files, each with its content.
fn files(lab: &mut Lab, i: usize) -> Vec<(String, Vec<u8>)> {
    let names: Vec<String> = lab.disk(i).names().filter(|n| n.starts_with("E00/")).cloned().collect();
    let of = |n: String| (lab.disk(i).file(&n).map(<[u8]>::to_vec), n);
    names.into_iter().map(of).filter_map(|(b, n)| Some((n, b?))).collect()
}

/// A lab of whose members only the active one is on, and its daemon is dead.
fn only_node(operations: usize) -> (Lab, usize) {
    let mut lab = Lab::new(1, operations);
    lab.secs(20);
    let active = lab.active();
    lab.power_off(1 - active);
    lab.secs(20);
    lab.kill(active);
    (lab, active)
}

/// What a copy says of itself.
fn copy(lab: &mut Lab, i: usize) -> (CopyStatus, Option<String>) {
    let own = lab.world.machines[i].config.node.clone();
    let copies = lab.status(i).copies;
    let copy = copies
        .into_iter()
        .find(|c| c.node == own)
        .expect("it speaks of its own copy");
    (copy.status, copy.error)
}

/// A file of a copy is changed behind its back: it is told, nothing is touched, and a seed makes the copy whole again while
/// what was there is kept.
fn quarantined(file: &str, change: impl Fn(&mut Lab, usize), says: &str) {
    let mut lab = Lab::new(1, 300);
    lab.secs(46);
    let passive = lab.passive();
    lab.kill(passive);
    change(&mut lab, passive);
    let before = files(&mut lab, passive);
    assert!(lab.count(passive, ".edb") > 10);
    lab.start(passive);
    lab.secs(10);
    assert_eq!(files(&mut lab, passive), before, "nothing is touched");
    let (status, error) = copy(&mut lab, passive);
    let error = error.unwrap_or_default();
    assert_eq!(status, CopyStatus::Failed);
    assert!(error.starts_with(file) && error.contains(says), "{error}");
    assert!(lab.since(0, "copy.failed").iter().any(|l| l.contains(says)));
    lab.converges();
    assert!(lab.count(passive, ".bad-1") > 0, "what was not understood is kept");
}

#[test]
fn a_damaged_checkpoint_deletes_nothing() {
    quarantined(
        "E00/E00.chk",
        |lab, i| assert!(lab.disk(i).flip("E00/E00.chk", 0)),
        "damaged",
    );
}

/// No segment behind it follows either: the first one is the cause, and the one that is told.
#[test]
fn the_first_damaged_segment_is_told() {
    let mut lab = Lab::new(1, 300);
    lab.secs(46);
    let passive = lab.passive();
    lab.kill(passive);
    assert!(lab.disk(passive).flip("E00/db/E0000000003.edb", 100));
    lab.start(passive);
    lab.secs(10);
    let told = lab.since(0, "copy.failed");
    assert!(told.iter().any(|l| l.contains("segment 3 of the database")), "{told:?}");
    lab.converges();
}

#[test]
fn a_missing_checkpoint_deletes_nothing_where_there_is_a_database() {
    quarantined(
        "E00/E00.chk",
        |lab, i| assert!(lab.disk(i).remove("E00/E00.chk")),
        "it is missing",
    );
}

#[test]
fn a_damaged_source_file_deletes_nothing_and_is_not_written_over() {
    let zero = |lab: &mut Lab, i: usize| {
        let len = lab.disk(i).file("E00/E00.src").expect("there").len();
        lab.disk(i).put("E00/E00.src", vec![0; len]);
    };
    quarantined("E00/E00.src", zero, "damaged");
}

#[test]
fn a_newer_segment_or_log_is_told_as_such_and_left_alone() {
    let newer = |suffix: &'static str| {
        move |lab: &mut Lab, i: usize| {
            let mine = |n: &&String| n.ends_with(suffix) && n.contains("E0000");
            let name = lab.disk(i).names().filter(mine).last().cloned().expect("there");
            let mut bytes = lab.disk(i).file(&name).expect("there").to_vec();
            bytes[8] = 2;
            bytes[12..16].fill(0);
            let crc = crc32c::crc32c(&bytes[..64]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            lab.disk(i).put(&name, bytes);
        }
    };
    quarantined("E00/db/E0000", newer(".edb"), "written by a newer ccrd: version 2");
    quarantined("E00/E0000", newer(".log"), "written by a newer ccrd: version 2");
}

#[test]
fn a_checkpoint_older_than_its_database_deletes_nothing() {
    let mut lab = Lab::new(1, 300);
    lab.secs(25);
    let passive = lab.passive();
    let old = lab.disk(passive).file("E00/E00.chk").expect("there").to_vec();
    lab.secs(21);
    lab.kill(passive);
    let before = lab.count(passive, ".edb");
    lab.disk(passive).put("E00/E00.chk", old);
    lab.start(passive);
    lab.secs(10);
    assert!(lab.count(passive, ".edb") >= before);
    let (status, error) = copy(&mut lab, passive);
    assert_eq!(status, CopyStatus::Failed);
    assert!(error.is_some_and(|e| e.contains("older than the database")));
    lab.converges();
}

#[test]
fn files_of_a_newer_ccrd_on_both_nodes_wait_for_it() {
    let mut lab = Lab::new(1, 300);
    lab.secs(52);
    let (acknowledged, stored) = (lab.acknowledged(), lab.stored(lab.active()));
    assert!(acknowledged > 100 && stored > 100, "{acknowledged} {stored}");
    (0..2).for_each(|i| lab.kill(i));
    let mark = lab.mark();
    let newer: Vec<_> = (0..2)
        .map(|i| lab.disk(i).file("E00/E00.chk").expect("there").to_vec())
        .collect();
    (0..2).for_each(|i| lab.rewrite(i, "E00/E00.chk", |chk| chk["schema"] = 2.into()));
    let before = [files(&mut lab, 0), files(&mut lab, 1)];
    (0..2).for_each(|i| lab.start(i));
    lab.secs(30);
    for (i, before) in before.iter().enumerate() {
        assert_eq!(&files(&mut lab, i), before, "node {i}");
        assert!(
            copy(&mut lab, i)
                .1
                .is_some_and(|e| e.contains("written by a newer ccrd: schema 2"))
        );
    }
    // The newer one is back.
    (0..2).for_each(|i| lab.kill(i));
    for (i, bytes) in newer.into_iter().enumerate() {
        lab.disk(i).put("E00/E00.chk", bytes);
    }
    (0..2).for_each(|i| lab.start(i));
    lab.converges();
    assert_eq!(lab.since(mark, "copy.seeding"), Vec::<String>::new());
}

#[test]
fn files_without_a_schema_and_with_fields_that_are_not_known_are_read() {
    let mut lab = Lab::new(1, 300);
    lab.secs(46);
    let passive = lab.passive();
    lab.kill(passive);
    // As before there was a schema; `cluster.json` had its record at the top.
    for file in ["E00/E00.chk", "E00/E00.src", "cluster.json"] {
        let bytes = lab.disk(passive).file(file).expect("there");
        let mut json: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        if file == "cluster.json" {
            json = json["saved"].take();
        }
        let object = json.as_object_mut().expect("an object");
        object.remove("schema");
        object.remove("crc");
        object.insert("colour".into(), "red".into());
        let bytes = serde_json::to_vec(&json).expect("plain");
        lab.disk(passive).put(file, bytes);
    }
    let mark = lab.mark();
    lab.start(passive);
    lab.secs(5);
    assert_eq!(copy(&mut lab, passive), (CopyStatus::Healthy, None));
    assert_eq!(lab.since(mark, "copy.seeding"), Vec::<String>::new());
    // A ccrd that knows no schema, and would delete what it does not understand, does not start on this disk any more.
    let bytes = lab.disk(passive).file("cluster.json").expect("there").to_vec();
    assert_eq!(durable::schema(&bytes), Ok(2));
    let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    assert!(json.get("record").is_none());
    lab.converges();
}

#[test]
fn a_newer_or_damaged_record_of_the_cluster_halts_the_node_and_is_not_written_over() {
    let mut lab = Lab::new(1, 300);
    lab.secs(46);
    let passive = lab.passive();
    let whole = lab.disk(passive).file("cluster.json").expect("there").to_vec();
    let newer = |lab: &mut Lab, i| lab.rewrite(i, "cluster.json", |c| c["schema"] = 3.into());
    let damaged = |lab: &mut Lab, i: usize| assert!(lab.disk(i).flip("cluster.json", 60));
    let changes: [(&Change, &str); 2] = [
        (&newer, "cluster.json: written by a newer ccrd"),
        (&damaged, "cluster.json: damaged"),
    ];
    for (change, says) in changes {
        lab.kill(passive);
        change(&mut lab, passive);
        let before = lab.disk(passive).file("cluster.json").expect("there").to_vec();
        let mark = lab.mark();
        lab.start(passive);
        lab.secs(5);
        let halts = lab.since(mark, "halts");
        assert!(halts.len() >= 2 && halts.iter().all(|l| l.contains(says)), "{halts:?}");
        assert_eq!(lab.disk(passive).file("cluster.json"), Some(before.as_slice()));
        lab.disk(passive).put("cluster.json", whole.clone());
    }
    lab.secs(5);
    lab.converges();
}

#[test]
fn a_read_or_listing_that_fails_at_the_start_halts_the_node_and_loses_nothing() {
    let reads: [(&str, Which); 7] = [
        ("logs", |a| matches!(a, DiskAction::List { folder } if folder == "E00")),
        (
            "segments",
            |a| matches!(a, DiskAction::List { folder } if folder == "E00/db"),
        ),
        (
            "source",
            |a| matches!(a, DiskAction::Read { file, .. } if file == "E00/E00.src"),
        ),
        (
            "checkpoint",
            |a| matches!(a, DiskAction::Read { file, .. } if file == "E00/E00.chk"),
        ),
        (
            "a segment",
            |a| matches!(a, DiskAction::Read { file, .. } if file.ends_with(".edb")),
        ),
        (
            "a log",
            |a| matches!(a, DiskAction::Read { file, .. } if file.starts_with("E00/E0000")),
        ),
        (
            "the open log",
            |a| matches!(a, DiskAction::Read { file, .. } if file == "E00/E00.log"),
        ),
    ];
    for (name, read) in reads {
        let (mut lab, active) = only_node(400);
        let before = files(&mut lab, active);
        lab.fails_once(active, read, "input/output error");
        let mark = lab.mark();
        lab.start(active);
        lab.until(2, name, |lab| lab.world.checks.counters.halts == 1);
        assert_eq!(files(&mut lab, active), before, "{name}");
        lab.secs(20);
        assert_eq!(
            lab.since(mark, "service.online epoch").len(),
            1,
            "{name}\n{}",
            lab.tail(30)
        );
        assert_eq!(lab.since(mark, "copy.seeding"), Vec::<String>::new(), "{name}");
        lab.start(1 - active);
        lab.converges();
    }
}

/// The open log of the only node that is there, with some bytes of it.
fn open_log(lab: &mut Lab, active: usize) -> Vec<u8> {
    lab.until(30, "some bytes in the open log", |lab| {
        lab.disk(active).file("E00/E00.log").map_or(0, <[u8]>::len) >= 2_500
    });
    lab.kill(active);
    lab.disk(active).file("E00/E00.log").expect("there").to_vec()
}

fn damaged_open_log(at: usize, len: usize) {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let active = lab.active();
    lab.power_off(1 - active);
    lab.secs(15);
    let mut bytes = open_log(&mut lab, active);
    bytes[at..at + len].iter_mut().for_each(|b| *b ^= 0x20);
    lab.disk(active).put("E00/E00.log", bytes.clone());
    let mark = lab.mark();
    lab.start(active);
    lab.secs(20);
    assert_eq!(
        lab.disk(active).file("E00/E00.log"),
        Some(bytes.as_slice()),
        "nothing is cut"
    );
    assert_eq!(lab.since(mark, "log.torn"), Vec::<String>::new());
    assert_eq!(lab.since(mark, "log.opened"), Vec::<String>::new(), "not mounted");
    assert!(!lab.since(mark, "log.damaged").is_empty());
    let status = lab.status(active);
    assert_eq!(status.service.map(|s| s.state), Some(ServiceState::PartiallyOnline));
    let error = status.copies[0].error.clone().unwrap_or_default();
    assert!(error.contains("E00/E00.log is damaged at byte"), "{error}");
    // An operator accepts the loss: what is whole is taken, the rest is kept.
    lab.start(1 - active);
    lab.converges();
    let kept = lab
        .disk(active)
        .names()
        .find(|n| n.starts_with("E00/E00.log.bad-"))
        .cloned();
    let kept = kept.expect("the damaged log is kept");
    assert_eq!(lab.disk(active).file(&kept), Some(bytes.as_slice()));
}

#[test]
fn damage_in_what_was_flushed_of_the_open_log_is_no_torn_tail() {
    // A record, the header, all of it.
    damaged_open_log(100, 1);
    damaged_open_log(20, 1);
    damaged_open_log(0, 2_500);
}

#[test]
fn what_was_not_flushed_of_the_open_log_is_cut_off() {
    let (mut lab, active) = only_node(400);
    let mut bytes = lab.disk(active).file("E00/E00.log").expect("there").to_vec();
    bytes.extend_from_slice(&[0x5a; 40]);
    lab.disk(active).put("E00/E00.log", bytes);
    let mark = lab.mark();
    lab.start(active);
    lab.secs(20);
    assert_eq!(lab.since(mark, "log.torn").len(), 1);
    assert_eq!(lab.since(mark, "service.online epoch").len(), 1);
    lab.start(1 - active);
    lab.converges();
}

#[test]
fn a_log_that_cannot_be_read_at_the_mount_is_read_again() {
    let (mut lab, active) = only_node(400);
    let start = lab.mark();
    lab.start(active);
    // The recovery has read everything by then; what is read next is read for the mount.
    lab.until(20, "the service's turn", |lab| {
        !lab.since(start, "service.online-pending").is_empty()
    });
    lab.fails_once(
        active,
        |a| matches!(a, DiskAction::Read { file, .. } if file.ends_with(".log")),
        "EIO",
    );
    let mark = lab.mark();
    lab.secs(20);
    assert!(!lab.since(mark, "log.unreadable").is_empty(), "{}", lab.tail(40));
    assert!(!lab.since(mark, "service.online epoch").is_empty(), "{}", lab.tail(40));
    assert_eq!(lab.since(mark, "copy.lost"), Vec::<String>::new());
    lab.start(1 - active);
    lab.converges();
}

#[test]
fn a_log_that_cannot_be_read_for_replay_is_not_damaged() {
    let mut lab = Lab::new(1, 300);
    lab.secs(30);
    let active = lab.active();
    lab.fails_once(
        active,
        |a| matches!(a, DiskAction::Read { file, len: 4097, .. } if file.ends_with(".log")),
        "EIO",
    );
    let mark = lab.mark();
    lab.secs(20);
    assert_eq!(lab.since(mark, "log.unreadable").len(), 1, "{}", lab.tail(40));
    assert_eq!(lab.since(mark, "copy.failed"), Vec::<String>::new());
    assert_eq!(lab.active(), active);
    lab.converges();
    assert_eq!(lab.status(HUB).hub.map(|h| h.queued), Some(0));
}
