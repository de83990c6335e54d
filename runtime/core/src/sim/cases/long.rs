//! A message that spans generations is there whole, or it is not there: wherever its writer dies, whichever of its parts is missing or
//! damaged, and whatever compaction has come to.

use super::store_model::{Group, SIZE};
use crate::rng::Rng;
use crate::sim::disk::{How, Kind};
use crate::store::log::{self, Record};

/// Three generations and a half.
const LONG: usize = SIZE as usize * 7 / 2;

/// A group that holds a short message, a long one, and a short one behind it in a log of its own, all acknowledged and closed.
fn written() -> Group {
    let mut group = Group::new();
    group.mount();
    for len in [100, LONG, 100] {
        // Behind the long one, so that its last log is not the newest of all.
        if group.given.len() == 2 {
            group.store.roll(&mut group.ctx);
        }
        group.give("ann", len);
        group.settle();
    }
    group.store.roll(&mut group.ctx);
    group.settle();
    assert!(group.given.iter().all(|g| g.acked));
    group.check(false);
    group
}

/// The same, with everything in the database and no log left.
fn replayed(group: &mut Group) {
    group.store.roll(&mut group.ctx);
    group.settle();
    while group.store.checkpoint != group.store.last() {
        let last = group.store.last().generation;
        group.store.replay_towards(&mut group.ctx, last);
        group.settle();
    }
    group.store.truncate(&mut group.ctx, u64::MAX, true);
    group.settle();
}

/// Files of this kind that hold a part of a message.
fn with_parts(group: &Group, kind: Kind) -> Vec<String> {
    let holds = |name: &&String| {
        let scan = group.disk.file(name).and_then(|f| log::scan(f).ok());
        scan.is_some_and(|s| s.records.iter().any(|r| matches!(r, Record::Part { .. })))
    };
    let names = group.disk.names().filter(|n| Kind::of(n) == kind);
    names.filter(holds).cloned().collect()
}

/// The writer dies behind each operation of the disk: the process alone, or the power with what was not flushed, torn in many ways.
#[test]
fn whenever_its_writer_dies_a_message_is_whole_or_not_there() {
    let crashes = [None, Some(1), Some(2), Some(3), Some(4), Some(5)];
    let mut there = [0, 0];
    for power in crashes {
        for operations in 0.. {
            let mut group = Group::new();
            group.mount();
            group.give("ann", 100);
            group.settle();
            let long = group.give("ann", LONG);
            let more = (0..operations).all(|_| group.disk());
            group.crash(power.map(|p| p * 1000 + operations as u64));
            group.mount();
            group.check(false);
            there[usize::from(group.find(long).is_some())] += 1;
            // It comes again, as from a hub, and another one behind it.
            group.store_message(long);
            group.give("ann", 100);
            group.settle();
            assert!(group.given.iter().all(|g| g.acked));
            group.check(false);
            replayed(&mut group);
            group.crash(None);
            group.mount();
            group.check(false);
            if !more {
                break;
            }
        }
    }
    assert!(there[0] > 20 && there[1] > 0, "{there:?}");
}

/// Each log that holds a part, in each way: what is lost is told, and nothing of the message is taken for it.
#[test]
fn a_message_with_a_missing_or_damaged_log_is_not_there_and_that_is_told() {
    hurt(Kind::Closed, |_| {});
}

/// The same of the database, where the logs are gone.
#[test]
fn a_message_with_a_missing_or_damaged_segment_is_not_there_and_that_is_told() {
    hurt(Kind::Segment, replayed);
}

fn hurt(kind: Kind, prepare: fn(&mut Group)) {
    let mut group = written();
    prepare(&mut group);
    let files = with_parts(&group, kind);
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        for how in [How::Delete, How::Flip, How::Truncate, How::Zero] {
            for seed in 0..8 {
                let mut group = written();
                prepare(&mut group);
                assert!(group.disk.damage(&file, how, SIZE as usize, &mut Rng::new(seed)));
                group.crash(None);
                group.mount();
                assert!(group.is_told(), "{file} {how:?}: nothing is told");
                if group.store.mounted() {
                    assert!(group.find(1).is_none(), "{file} {how:?}: half a message is there");
                    group.check(true);
                }
            }
        }
    }
}

/// A message that is deleted leaves the database, all its parts; one that is not stays readable in a segment that is written anew, and
/// the parts of one that was never whole go as well.
#[test]
fn compaction_takes_the_parts_of_what_is_deleted_or_was_never_whole_and_no_others() {
    let mut group = Group::new();
    group.mount();
    let (gone, stays) = (group.give("ann", LONG), group.give("bob", LONG));
    group.settle();
    group.give("cid", LONG);
    // Three of its parts are durable when the process dies.
    while with_parts(&group, Kind::Closed).len() < 10 {
        assert!(group.disk());
    }
    group.crash(None);
    group.mount();
    assert!(group.find(2).is_none());
    group.given.pop();
    group.delete(gone);
    group.settle();
    replayed(&mut group);
    let bytes = |group: &Group| {
        let files = with_parts(group, Kind::Segment);
        let scans = files
            .iter()
            .map(|f| log::segment(group.disk.file(f).unwrap()).unwrap().bodies());
        scans.sum::<u64>()
    };
    assert!(bytes(&group) > 2 * LONG as u64);
    let segments = group.disk.names().filter(|n| Kind::of(n) == Kind::Segment).count();
    for _ in 0..segments {
        group.store.compact(&mut group.ctx);
        group.settle();
        group.check(false);
    }
    // Of a segment that holds more of what stays than of what goes nothing is gained.
    let left = bytes(&group);
    assert!((LONG as u64..LONG as u64 + SIZE).contains(&left), "{left}");
    let digest = group.store.index.digest();
    group.crash(None);
    group.mount();
    group.check(false);
    assert_eq!(group.store.index.digest(), digest);
    assert!(group.find(gone).is_none() && group.find(stays).is_some());
    // A second delivery of it is known as one.
    group.store_message(gone);
    group.settle();
    assert!(group.find(gone).is_none());
}

/// A copy has taken the first parts of a message into its database when a segment is written anew: it keeps them, and with the logs
/// that follow the message is whole.
#[test]
fn compaction_keeps_the_parts_of_a_message_that_is_not_whole_yet() {
    let mut group = Group::new();
    group.mount();
    let first = group.give("ann", 2000);
    group.settle();
    group.delete(first);
    let long = group.give("bob", 5 * SIZE as usize);
    group.settle();
    group.store.roll(&mut group.ctx);
    group.settle();
    group.store.replay_towards(&mut group.ctx, 2);
    group.settle();
    // Another life knows what its database holds, and no more.
    group.crash(None);
    group.settle();
    assert_eq!(
        (group.store.checkpoint.generation, group.store.index.list("bob").count()),
        (2, 0)
    );
    group.store.compact(&mut group.ctx);
    group.settle();
    let segment = group.disk.file("E00/db/E0000000001.edb").unwrap();
    let records = log::segment(segment).unwrap().records;
    assert!(
        matches!(
            records[..],
            [Record::Tombstone(_), Record::Delete(_), Record::Part { .. }]
        ),
        "{records:?}"
    );
    group.mount();
    assert!(group.find(long).is_some());
    group.check(false);
}

/// Changes that come while a message is on its way wait behind it, in their order, and nothing comes between its parts.
#[test]
fn what_comes_meanwhile_waits_and_is_acknowledged() {
    let mut group = Group::new();
    group.mount();
    for len in [100, LONG, 100, LONG, 100] {
        group.give("ann", len);
    }
    // The long one once more: it is acknowledged with the first.
    group.store_message(1);
    assert!(!group.store.is_drained());
    group.settle();
    assert!(group.given.iter().all(|g| g.acked));
    let keys: Vec<&str> = group.store.index.list("ann").map(|e| e.label.key.as_str()).collect();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
    group.store.roll(&mut group.ctx);
    group.settle();
    assert!(group.store.is_drained());
}
