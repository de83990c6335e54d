//! Seeding: the old copy stays until the new one is whole, and a seed ends.

use super::super::world::World;
use super::fixture::Lab;
use crate::command::Command;
use crate::io::DiskAction;
use ccr_contract::status::CopyStatus;

/// The group's files outside the seed folder, each with its content; the source file is written all the time.
fn old_files(lab: &mut Lab, i: usize) -> Vec<(String, Vec<u8>)> {
    let mine = |n: &&String| n.starts_with("E00/") && !n.contains("/seed/") && !n.ends_with(".src");
    let names: Vec<String> = lab.disk(i).names().filter(mine).cloned().collect();
    let of = |n: String| (lab.disk(i).file(&n).map(<[u8]>::to_vec), n);
    names.into_iter().map(of).filter_map(|(b, n)| Some((n, b?))).collect()
}

pub(super) fn copy(lab: &mut Lab, i: usize) -> (CopyStatus, String) {
    let own = lab.world.machines[i].config.node.clone();
    let mut copies = lab.status(i).copies.into_iter();
    let copy = copies.find(|c| c.node == own).expect("it speaks of its own copy");
    (copy.status, copy.error.unwrap_or_default())
}

pub(super) fn reseed(lab: &mut Lab, i: usize) {
    lab.world.seed_ordered(None);
    lab.order(i, Command::Reseed { group: None });
}

/// A quiet lab with a Healthy copy; the active and the passive member.
pub(super) fn quiet(prepare: impl Fn(&mut World)) -> (Lab, usize, usize) {
    let mut lab = Lab::prepared(1, 300, 40, prepare);
    lab.secs(50);
    let (a, p) = (lab.active(), lab.passive());
    assert_eq!(copy(&mut lab, p).0, CopyStatus::Healthy);
    assert!(lab.count(a, ".edb") > 10);
    (lab, a, p)
}

#[test]
fn a_source_that_cannot_give_a_part_fails_the_seed_once_with_the_cause_and_the_old_copy_stays() {
    let slow = |world: &mut World| {
        for m in &mut world.machines {
            m.config.settings.scrub_ms = 3_600_000;
        }
    };
    let (mut lab, a, p) = quiet(slow);
    let hole = "E00/db/E000000000A.edb";
    // Nobody has it whole: the source cannot mend itself.
    assert!(lab.disk(p).remove(hole));
    let before = old_files(&mut lab, p);
    let whole = lab.disk(a).file(hole).expect("there").to_vec();
    type Hurt = fn(&mut Lab, usize, &str);
    let hurts: [(Hurt, &str); 3] = [
        (
            |lab, a, f| assert!(lab.disk(a).remove(f)),
            "segment 10: its file is gone",
        ),
        (
            |lab, a, f| assert!(lab.disk(a).flip(f, 80)),
            "segment 10: the record at byte",
        ),
        (
            |lab, a, f| {
                let half = lab.disk(a).file(f).expect("there")[..100].to_vec();
                lab.disk(a).put(f, half);
            },
            "segment 10 ends at byte 100 of",
        ),
    ];
    for (hurt, says) in hurts {
        hurt(&mut lab, a, hole);
        let mark = lab.mark();
        reseed(&mut lab, p);
        lab.secs(20);
        let seeding = lab.since(mark, "copy.seeding");
        assert_eq!(seeding.len(), 1, "{seeding:?}");
        assert!(seeding[0].contains("why=an operator ordered it"), "{seeding:?}");
        let failed = lab.since(mark, "why=the seed has failed");
        assert_eq!(failed.len(), 1, "{failed:?}");
        let (status, error) = copy(&mut lab, p);
        assert_eq!(status, CopyStatus::Failed);
        let says = format!("the seed has failed: the source cannot give {says}");
        assert!(error.contains(&says) && failed[0].contains(&says), "{error}");
        assert_eq!(old_files(&mut lab, p), before, "the old copy stays");
        assert!(
            lab.disk(p).names().all(|n| !n.contains("/seed/")),
            "what was gathered is gone"
        );
        lab.disk(a).put(hole, whole.clone());
    }
    // The source has it again: the same order, given anew.
    reseed(&mut lab, p);
    lab.secs(5);
    assert_eq!(copy(&mut lab, p), (CopyStatus::Healthy, String::new()));
    lab.converges();
}

#[test]
fn a_part_that_could_not_be_read_once_is_asked_for_again() {
    let (mut lab, a, p) = quiet(|_| {});
    let mark = lab.mark();
    reseed(&mut lab, p);
    lab.fails_once(
        a,
        |d| matches!(d, DiskAction::Read { file, .. } if file.ends_with("0A.edb")),
        "EIO",
    );
    lab.until(20, "it is seeded", |lab| !lab.since(mark, "copy.seeded").is_empty());
    assert_eq!(lab.since(mark, "copy.seeding").len(), 1);
    assert_eq!(lab.since(mark, "copy.failed"), Vec::<String>::new());
    lab.converges();
}

#[test]
fn the_old_copy_is_untouched_until_the_new_one_is_whole_and_serves_where_the_source_dies() {
    let (mut lab, a, p) = quiet(|_| {});
    let (before, stored) = (old_files(&mut lab, p), lab.stored(a));
    reseed(&mut lab, p);
    lab.until(5, "half of it is there", |lab| {
        lab.disk(p).names().filter(|n| n.contains("/seed/")).count() > 5
    });
    assert_eq!(copy(&mut lab, p).0, CopyStatus::Seeding);
    lab.kill(a);
    lab.until(40, "the old copy serves", |lab| lab.active() == p);
    let kept = old_files(&mut lab, p);
    let segments = |files: &[(String, Vec<u8>)]| files.iter().filter(|(n, _)| n.ends_with(".edb")).count();
    assert!(segments(&kept) >= segments(&before));
    lab.secs(5);
    assert_eq!(lab.stored(p), stored);
    lab.start(a);
    lab.converges();
}

/// The power goes when `n` operations of the switch were carried out.
fn power_cut_in_the_switch(n: usize, seal: bool) -> bool {
    let (mut lab, _, p) = quiet(|_| {});
    if seal {
        lab.kill(p);
        assert!(lab.disk(p).flip("E00/E00.chk", 0));
        lab.start(p);
        lab.secs(8);
        assert_eq!(copy(&mut lab, p).0, CopyStatus::Failed);
    }
    let before = old_files(&mut lab, p);
    let marker = "E00/seed/E00.chk";
    reseed(&mut lab, p);
    lab.until(10, "the last segment is fetched", |lab| {
        lab.disk(p).names().filter(|n| n.contains("/seed/")).count() > 10
    });
    let mut done = 0;
    let mut last = Vec::new();
    let mut over = false;
    lab.until(20, "so much of the switch", |lab| {
        let now: Vec<String> = lab.disk(p).names().cloned().collect();
        let begun = !last.is_empty() || now.iter().any(|n| n == marker);
        if !begun {
            assert_eq!(old_files(lab, p), before, "nothing is touched before the marker");
        } else if now != last {
            done += 1;
            over = !now.iter().any(|n| n.contains("/seed/"));
            last = now;
        }
        done > n || over
    });
    lab.power_off(p);
    let mark = lab.mark();
    lab.start(p);
    lab.until(20, "the switch is finished", |lab| {
        !lab.disk(p).names().any(|n| n.contains("/seed/")) && !lab.since(mark, "copy.status").is_empty()
    });
    assert_eq!(
        lab.since(mark, "copy.seeding"),
        Vec::<String>::new(),
        "nothing is fetched again"
    );
    lab.secs(8);
    assert_eq!(copy(&mut lab, p), (CopyStatus::Healthy, String::new()), "{n}");
    if seal {
        let kept = before.iter().filter(|(_, b)| {
            let names: Vec<String> = lab.disk(p).names().filter(|n| n.contains(".bad-")).cloned().collect();
            names.iter().any(|n| lab.disk(p).file(n) == Some(b.as_slice()))
        });
        assert_eq!(kept.count(), before.len(), "everything that was not understood is kept");
    }
    lab.converges();
    over
}

#[test]
fn the_power_may_go_at_any_moment_of_the_switch() {
    for seal in [false, true] {
        let cuts = (0..200).find(|n| power_cut_in_the_switch(*n, seal));
        assert!(cuts.is_some_and(|n| n > 5), "{cuts:?}");
    }
}

#[test]
fn a_seed_that_a_crash_broke_off_is_begun_again() {
    let (mut lab, _, p) = quiet(|_| {});
    reseed(&mut lab, p);
    lab.until(5, "some of it is there", |lab| {
        lab.disk(p).names().filter(|n| n.contains("/seed/")).count() > 3
    });
    lab.power_off(p);
    let mark = lab.mark();
    lab.start(p);
    lab.until(20, "it is seeded", |lab| !lab.since(mark, "copy.seeded").is_empty());
    let seeding = lab.since(mark, "copy.seeding");
    assert!(
        seeding.len() == 1 && seeding[0].contains("why=the last seed was broken off"),
        "{seeding:?}"
    );
    lab.converges();
}

#[test]
fn a_full_disk_fails_the_seed_and_not_the_node() {
    let (mut lab, _, p) = quiet(|_| {});
    let before = old_files(&mut lab, p);
    lab.disk(p).capacity = Some(lab.world.machines[p].disk.used() + 4_000);
    let mark = lab.mark();
    reseed(&mut lab, p);
    lab.secs(10);
    assert_eq!(lab.since(mark, "halts"), Vec::<String>::new());
    let (status, error) = copy(&mut lab, p);
    assert_eq!(
        (status, error.as_str()),
        (CopyStatus::Failed, "the seed has failed: the disk is full")
    );
    assert_eq!(old_files(&mut lab, p), before);
    lab.disk(p).capacity = None;
    lab.converges();
}

#[test]
fn what_follows_the_offered_checkpoint_stays_at_the_source() {
    let mut lab = Lab::prepared(1, 900, 60, |_| {});
    lab.secs(22);
    let p = lab.passive();
    for _ in 0..12 {
        // The checkpoint advances while the seed is under way, and the last heartbeat spoke of the old copy.
        reseed(&mut lab, p);
        lab.secs(3);
    }
    assert_eq!(lab.since(0, "copy.failed"), Vec::<String>::new());
    lab.holds();
    lab.converges();
}

/// Whoever waits for a seed looks at the status as soon as the order is answered.
#[test]
fn an_order_to_the_other_members_copy_is_answered_when_its_status_is_of_after_it() {
    let (mut lab, a, p) = quiet(|_| {});
    // The answer overtakes every heartbeat.
    lab.world.loss = 100;
    let mark = lab.mark();
    reseed(&mut lab, a);
    lab.until(1, "the order is carried out", |lab| {
        !lab.since(mark, "copy.seeding").is_empty()
    });
    lab.until(10, "it is known there", |lab| {
        let answered = !lab.since(mark, "REPLY").is_empty();
        let copies = lab.status(a).copies;
        let of_before = copies[0].status == CopyStatus::Healthy && lab.since(mark, "copy.seeded").is_empty();
        assert!(!(answered && of_before), "{copies:?}");
        if copy(lab, p).0 == CopyStatus::Healthy {
            lab.world.loss = 0;
        }
        answered
    });
    lab.converges();
}
