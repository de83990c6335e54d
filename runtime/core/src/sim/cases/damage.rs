//! Damage that nobody asked for yet: it is found by the scrub and before a planned move, told, and there is a way out.

use super::fixture::Lab;
use super::orderly::{serves, state};
use super::seeding::{copy, quiet, reseed};
use crate::command::{Command, GroupName};
use ccr_contract::status::{CopyStatus, ServiceState};

/// A segment that both members have.
const SEGMENT: &str = "E00/db/E000000000A.edb";

/// A quiet lab whose members look at one file in so many milliseconds.
fn scrubbed(scrub_ms: u64) -> (Lab, usize, usize) {
    quiet(move |world| {
        for m in &mut world.machines {
            m.config.settings.scrub_ms = scrub_ms;
        }
    })
}

fn cause(lab: &mut Lab, i: usize) -> String {
    lab.status(i).service.and_then(|s| s.cause).unwrap_or_default()
}

fn name(lab: &Lab, i: usize) -> String {
    lab.world.machines[i].config.node.clone()
}

fn move_to(lab: &mut Lab, i: usize) {
    let (to, comment) = (name(lab, i), "a test".to_owned());
    lab.order(
        0,
        Command::Move {
            to,
            comment,
            ignore_dismounted: false,
        },
    );
}

#[test]
fn a_damaged_segment_of_the_copy_is_found_by_itself_and_a_seed_heals_it() {
    for gone in [false, true] {
        let (mut lab, _, p) = scrubbed(100);
        let mark = lab.mark();
        if gone {
            assert!(lab.disk(p).remove(SEGMENT));
        } else {
            assert!(lab.disk(p).flip(SEGMENT, 80));
        }
        lab.until(20, "the copy has failed", |lab| copy(lab, p).0 == CopyStatus::Failed);
        let failed = lab.since(mark, "copy.failed");
        assert!(
            failed.len() == 1 && failed[0].contains("why=segment 10 is damaged"),
            "{failed:?}"
        );
        assert!(copy(&mut lab, p).1.starts_with("segment 10 is damaged"));
        lab.secs(10);
        assert_eq!(copy(&mut lab, p).0, CopyStatus::Failed, "never Healthy");
        reseed(&mut lab, p);
        lab.secs(5);
        assert_eq!(copy(&mut lab, p), (CopyStatus::Healthy, String::new()));
        lab.converges();
    }
}

#[test]
fn a_damaged_file_of_the_active_is_told_and_fetched_from_the_copy() {
    for suffix in [".edb", ".log"] {
        for gone in [false, true] {
            let (mut lab, a, p) = scrubbed(100);
            let shared: Vec<String> = lab.disk(p).names().cloned().collect();
            let mine = |n: &&String| n.len() > 15 && n.ends_with(suffix) && shared.contains(n);
            let file = lab.disk(a).names().filter(mine).last().cloned().expect("both have one");
            let whole = lab.disk(a).file(&file).expect("there").to_vec();
            let mark = lab.mark();
            if gone {
                assert!(lab.disk(a).remove(&file));
            } else {
                assert!(lab.disk(a).flip(&file, 80));
            }
            lab.until(30, "it is whole again", |lab| {
                lab.disk(a).file(&file) == Some(whole.as_slice())
            });
            assert_eq!(lab.since(mark, "database.damaged").len(), 1, "{file}");
            lab.until(2, "it is told", |lab| !lab.since(mark, "database.repaired").is_empty());
            assert_eq!(cause(&mut lab, a), "");
            assert_eq!(lab.since(mark, "copy.failed"), Vec::<String>::new());
            lab.converges();
        }
    }
}

#[test]
fn a_damaged_file_of_the_active_that_nobody_can_give_is_told_and_stays() {
    let (mut lab, a, p) = scrubbed(100);
    assert!(lab.disk(a).flip(SEGMENT, 80));
    let damaged = lab.disk(a).file(SEGMENT).expect("there").to_vec();
    lab.power_off(p);
    let mark = lab.mark();
    lab.secs(20);
    assert_eq!(lab.since(mark, "database.damaged").len(), 1);
    assert!(
        cause(&mut lab, a).contains("segment 10 is damaged"),
        "{}",
        cause(&mut lab, a)
    );
    assert_eq!(
        lab.disk(a).file(SEGMENT),
        Some(damaged.as_slice()),
        "nothing is deleted"
    );
    lab.start(p);
    lab.until(60, "the other one gives it", |lab| {
        !lab.since(mark, "database.repaired").is_empty()
    });
    assert_eq!(cause(&mut lab, a), "");
    lab.converges();
}

#[test]
fn a_planned_move_is_refused_where_the_target_is_damaged_and_done_where_it_was_verified() {
    let (mut lab, a, p) = scrubbed(3_600_000);
    assert!(lab.disk(p).remove(SEGMENT) && lab.disk(p).flip("E00/db/E000000000C.edb", 80));
    lab.secs(5);
    assert_eq!(copy(&mut lab, p).0, CopyStatus::Healthy, "nothing was asked of it");
    let mark = lab.mark();
    move_to(&mut lab, p);
    lab.secs(5);
    let reply = lab.since(mark, "REPLY").concat();
    let to = name(&lab, p);
    let says = format!("the copy on {to} is damaged (Group0: segment 10 is damaged: its file is gone): `reseed` it");
    assert!(reply.contains("Denied") && reply.contains(&says), "{reply}");
    assert_eq!(lab.active(), a);
    assert_eq!(
        lab.since(mark, "service.offline"),
        Vec::<String>::new(),
        "it went on all the while"
    );
    assert_eq!(copy(&mut lab, p).0, CopyStatus::Failed);
    reseed(&mut lab, p);
    lab.secs(5);
    let mark = lab.mark();
    move_to(&mut lab, p);
    lab.until(20, "the move is done", |lab| {
        lab.since(mark, "REPLY").concat().contains("is online on")
    });
    assert!(
        lab.since(mark, "service.move").iter().any(|l| l.contains("verified=")),
        "{}",
        lab.tail(30)
    );
    assert_eq!(lab.active(), p);
    lab.converges();
}

#[test]
fn a_move_is_given_up_where_the_target_dies_during_its_verification() {
    let (mut lab, a, p) = scrubbed(3_600_000);
    let mark = lab.mark();
    lab.disk(p).rule = Some(super::super::disk::Rule {
        what: |d| matches!(d, crate::io::DiskAction::Read { file, .. } if file.ends_with(".edb")),
        result: crate::io::DiskResult::Failed("EIO".into()),
        once: false,
    });
    move_to(&mut lab, p);
    lab.secs(5);
    let reply = lab.since(mark, "REPLY").concat();
    assert!(reply.contains("Denied") && reply.contains("cannot be read"), "{reply}");
    lab.disk(p).rule = None;
    assert_eq!(copy(&mut lab, p).0, CopyStatus::Healthy, "not read is not damaged");
    let mark = lab.mark();
    move_to(&mut lab, p);
    lab.kill(p);
    lab.until(30, "it is given up", |lab| {
        lab.since(mark, "REPLY").concat().contains("Denied")
    });
    lab.secs(2);
    assert!(serves(&mut lab, a));
    lab.start(p);
    lab.converges();
}

#[test]
fn the_way_out_of_a_hole_on_the_active_brings_everything_back() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let (a, p) = (lab.active(), lab.passive());
    // The streams are gone, and a log that nobody else has as well.
    lab.world.throttled = true;
    let closed = |lab: &mut Lab| -> Vec<String> {
        let closed = |n: &&String| n.len() == "E00/E0000000001.log".len() && n.ends_with(".log");
        lab.disk(a).names().filter(closed).cloned().collect()
    };
    let before = closed(&mut lab).len();
    lab.until(40, "some logs more", |lab| closed(lab).len() >= before + 4);
    let logs = closed(&mut lab);
    let hole = logs[logs.len() - 3].clone();
    assert!(lab.disk(p).file(&hole).is_none() && lab.disk(a).remove(&hole));
    lab.world.throttled = false;
    lab.until(40, "the copy has failed", |lab| copy(lab, p).0 == CopyStatus::Failed);
    let error = copy(&mut lab, p).1;
    assert!(error.contains("the source cannot give it: its file is gone"), "{error}");
    lab.secs(5);
    let told = cause(&mut lab, a);
    assert!(
        told.contains("is damaged: its file is gone") && told.contains("cannot give it"),
        "{told}"
    );
    let mark = lab.mark();
    move_to(&mut lab, p);
    lab.secs(3);
    assert!(lab.since(mark, "REPLY").concat().contains("is Failed, not Healthy"));

    // As docs/runtime.md says: the raw move, then the mount.
    let (group, to) = (GroupName::Service, name(&lab, p));
    lab.order(0, Command::MoveGroup { group, to });
    lab.until(30, "it is there, dismounted", |lab| {
        state(lab, p) == Some(ServiceState::PartiallyOnline)
    });
    lab.secs(3);
    let told = cause(&mut lab, p);
    assert!(
        told.contains("Group0 is dismounted, ") && told.contains(" logs lost"),
        "{told}"
    );
    let mark = lab.mark();
    lab.world.checks.loss_accepted();
    lab.order(p, Command::Mount { group: None });
    lab.until(20, "it serves", |lab| serves(lab, p));
    let reply = lab.since(mark, "REPLY").concat();
    assert!(
        reply.contains("mounting whatever is lost: Group0 with ") && reply.contains(" logs lost"),
        "{reply}"
    );
    lab.converges();
}
