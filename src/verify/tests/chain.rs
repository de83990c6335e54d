//! I5, I6 and I11: logs, histories and databases.

use super::*;
use ccr_contract::dump::Group;
use ccr_contract::status::{Copy, CopyStatus};

fn groups(h: &mut History, node: usize) -> &mut Group {
    &mut h.dumps[node].groups[0]
}

/// The copy, in the looks at the end.
fn copy(h: &mut History, change: impl Fn(&mut Copy)) {
    let looks = h.observations.iter_mut().rev().take(2);
    let statuses = looks
        .flat_map(|o| o.nodes.values_mut())
        .filter_map(|v| v.status.as_mut());
    statuses.flat_map(|s| &mut s.copies).for_each(change);
}

#[test]
fn each_break_of_a_chain_is_seen() {
    type Damage = fn(&mut History);
    let damages: [(&str, Damage); 7] = [
        ("a log is missing", |h| drop(groups(h, 1).logs.remove(2))),
        ("a log follows another one", |h| {
            groups(h, 1).logs[2].previous = "beef".into()
        }),
        ("a log is of another stream", |h| {
            groups(h, 1).logs[2].stream = "9999".into()
        }),
        ("a log is not what was closed", |h| {
            let logs = &mut groups(h, 1).logs;
            logs[2].checksum = "beef".into();
            logs[3].previous = "beef".into();
        }),
        ("more is replayed than inspected", |h| {
            copy(h, |c| c.replayed = c.inspected + 1)
        }),
        ("more is copied than was told of", |h| {
            copy(h, |c| c.copied = c.notified + 1)
        }),
        ("a queue is wrong", |h| copy(h, |c| c.copy_queue += 1)),
    ];
    for (what, damage) in damages {
        let mut h = failover();
        damage(&mut h);
        assert_eq!(verdict(I5, &h), Verdict::Fail, "{what}: {}", detail(I5, &h));
    }
    let mut h = failover();
    let closed = h.events.iter().find(|e| is!(e, LogClosed)).unwrap().clone();
    h.events.push(crate::event::Event {
        data: {
            let mut data = closed.data.clone();
            data["checksum"] = json!("beef");
            data
        },
        ..closed
    });
    assert_eq!(
        verdict(I5, &h),
        Verdict::Fail,
        "one log was closed twice: {}",
        detail(I5, &h)
    );
}

#[test]
fn without_reads_or_sources_nothing_is_said_of_chains() {
    let mut h = failover();
    h.dumps.remove(1);
    for id in [I5, I6, I11] {
        assert_eq!(verdict(id, &h), Verdict::Unknown, "{id:?}: {}", detail(id, &h));
    }
    let mut h = failover();
    h.events.retain(|e| !is!(e, LogClosed));
    assert_eq!(verdict(I5, &h), Verdict::Unknown);
    let mut h = failover();
    h.events.retain(|e| !is!(e, LogOpened));
    assert_eq!(verdict(I6, &h), Verdict::Unknown);
    let mut h = failover();
    h.observations.clear();
    assert_eq!(verdict(I5, &h), Verdict::Unknown, "no copy was ever seen");
    // Of one log it is not known what its source closed.
    let mut h = failover();
    let at = h.events.iter().position(|e| is!(e, LogClosed)).unwrap();
    h.events.remove(at);
    assert_eq!(verdict(I5, &h), Verdict::Unknown);
}

#[test]
fn what_is_of_another_history_is_seen() {
    // A message that the survivor had not, and its old owner kept.
    let mut h = failover();
    let message = groups(&mut h, 0).messages.last().unwrap().clone();
    let older = ccr_contract::dump::Message { epoch: 3, ..message };
    groups(&mut h, 0).messages.push(older);
    assert_eq!(verdict(I6, &h), Verdict::Fail, "{}", detail(I6, &h));
    // A log of the old epoch in the place of a new one.
    let mut h = failover();
    let log = groups(&mut h, 1).logs.last_mut().unwrap();
    (log.epoch, log.checksum) = (3, "beef".into());
    assert_eq!(verdict(I6, &h), Verdict::Fail, "{}", detail(I6, &h));
    // The same place, the same epoch, another content.
    let mut h = failover();
    groups(&mut h, 1).logs.last_mut().unwrap().checksum = "beef".into();
    assert_eq!(verdict(I6, &h), Verdict::Fail, "{}", detail(I6, &h));
}

#[test]
fn databases_that_differ_are_seen_and_an_open_log_is_no_difference() {
    let differ = |h: &mut History| groups(h, 0).database = "d2".into();
    // One closed message is missing on the passive, or only there.
    let mut h = failover();
    differ(&mut h);
    groups(&mut h, 0).messages.remove(0);
    assert_eq!(verdict(I11, &h), Verdict::Fail, "{}", detail(I11, &h));
    let mut h = failover();
    differ(&mut h);
    groups(&mut h, 1).messages.remove(0);
    assert_eq!(verdict(I11, &h), Verdict::Fail, "{}", detail(I11, &h));
    // Another digest of the same messages says nothing: what it is of is compared.
    let mut h = failover();
    differ(&mut h);
    assert_eq!(verdict(I11, &h), Verdict::Pass, "{}", detail(I11, &h));
    // Without a look before the reads nobody knows what the copy had.
    let last = h.observations.pop().unwrap();
    h.observations = vec![last];
    assert_eq!(verdict(I11, &h), Verdict::Unknown, "{}", detail(I11, &h));
    // What the active has in its open log, the other one cannot have.
    let mut h = failover();
    differ(&mut h);
    let last = groups(&mut h, 1).logs.last().unwrap().generation;
    let message = groups(&mut h, 1).messages[0].clone();
    groups(&mut h, 1).messages.push(ccr_contract::dump::Message {
        key: Some("open".into()),
        generation: last + 1,
        ..message
    });
    assert_eq!(verdict(I11, &h), Verdict::Pass, "{}", detail(I11, &h));
}

#[test]
fn a_lab_that_did_not_come_back_is_seen() {
    let mut h = failover();
    copy(&mut h, |c| c.status = CopyStatus::Failed);
    assert_eq!(verdict(I11, &h), Verdict::Fail);
    let mut h = failover();
    copy(&mut h, |c| {
        c.replayed -= 1;
        c.replay_queue = 1;
    });
    assert_eq!(verdict(I11, &h), Verdict::Fail);
    // A log that was closed just before the last look is on its way.
    let before = failover().observations.iter().rev().nth(1).unwrap().clone();
    let at = h.observations.len() - 2;
    h.observations[at] = before;
    assert_eq!(verdict(I11, &h), Verdict::Pass, "{}", detail(I11, &h));
    let last = |h: &mut History, change: fn(&mut Observation)| change(h.observations.last_mut().unwrap());
    let mut h = failover();
    last(&mut h, |o| {
        for view in o.nodes.values_mut() {
            let service = view.status.as_mut().and_then(|s| s.service.as_mut());
            service.into_iter().for_each(|s| s.active = None);
        }
    });
    assert_eq!(verdict(I11, &h), Verdict::Fail, "nobody serves");
    let mut h = failover();
    last(&mut h, |o| o.nodes.get_mut("node1").unwrap().status = None);
    assert_eq!(verdict(I11, &h), Verdict::Unknown);
    let mut h = failover();
    h.faults[0].end_us = None;
    assert_eq!(verdict(I11, &h), Verdict::Unknown, "a fault is still on");
}
