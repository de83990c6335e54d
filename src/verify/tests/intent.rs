//! I10: orders that stick.

use super::*;
use ccr_contract::status::CopyStatus;

const S: u64 = 1_000_000;

/// An order and what ends it, in a run without any other event of its own.
fn with(first: (&str, u64), then: Option<(&str, u64)>) -> History {
    let mut h = history(&Plan::new(&[]));
    for (word, t) in [Some(first), then].into_iter().flatten() {
        h.events.push(order(word, json!({}), t - 100_000, t));
    }
    h
}

/// Without any answer of the store from this time on.
fn silent(mut h: History, from_us: u64) -> History {
    let late: Vec<u64> = h
        .operations()
        .unwrap()
        .iter()
        .filter(|o| o.end_us > Some(from_us))
        .map(|o| o.op)
        .collect();
    h.ops.retain(|l| match l {
        OpLine::Invoke { op, .. } | OpLine::Complete { op, .. } => !late.contains(op),
    });
    h
}

#[test]
fn what_is_stopped_stays_so() {
    // The store goes on to answer.
    let h = with(("stop", 2 * S), None);
    assert_eq!(verdict(I10, &h), Verdict::Fail, "{}", detail(I10, &h));
    let well = silent(h, 2 * S);
    assert_eq!(verdict(I10, &well), Verdict::Pass, "{}", detail(I10, &well));
    // It comes online by itself.
    let online = EventKind::Online { ms: 1, epoch: 9 };
    let mut h = well.clone();
    h.events.push(runtime_event("node2", 5 * S, &online));
    assert_eq!(verdict(I10, &h), Verdict::Fail, "{}", detail(I10, &h));
    // An operator started it before.
    let mut h = silent(with(("stop", 2 * S), Some(("start", 4 * S))), 2 * S);
    h.events.push(runtime_event("node1", 5 * S, &online));
    assert_eq!(verdict(I10, &h), Verdict::Pass, "{}", detail(I10, &h));
    // An order that was refused holds nothing.
    let mut h = with(("stop", 2 * S), None);
    h.events.last_mut().unwrap().data["answer"]["done"] = json!(false);
    assert_eq!(verdict(I10, &h), Verdict::Unknown, "{}", detail(I10, &h));
    // Nobody looked behind it.
    let mut h = well;
    h.observations.retain(|o| o.t_us < 2 * S);
    assert_eq!(verdict(I10, &h), Verdict::Unknown, "{}", detail(I10, &h));
}

#[test]
fn what_is_suspended_stays_so() {
    let suspended = |mut h: History, status: CopyStatus| {
        h.events.retain(|e| e.t_us < 2 * S || e.kind == "operator.order");
        let looks = h.observations.iter_mut().filter(|o| o.t_us > 2 * S);
        let statuses = looks
            .flat_map(|o| o.nodes.values_mut())
            .filter_map(|v| v.status.as_mut());
        statuses.flat_map(|s| &mut s.copies).for_each(|c| c.status = status);
        h
    };
    let h = with(("suspend", 2 * S), None);
    assert_eq!(verdict(I10, &h), Verdict::Fail, "it goes on: {}", detail(I10, &h));
    let well = suspended(h.clone(), CopyStatus::Suspended);
    assert_eq!(verdict(I10, &well), Verdict::Pass, "{}", detail(I10, &well));
    let healthy = suspended(h, CopyStatus::Healthy);
    assert_eq!(verdict(I10, &healthy), Verdict::Fail, "{}", detail(I10, &healthy));
    let mut copied = well;
    let (group, generation) = ("First".to_owned(), 3);
    copied.events.push(runtime_event(
        "node2",
        5 * S,
        &EventKind::CopyInspected { group, generation },
    ));
    assert_eq!(verdict(I10, &copied), Verdict::Fail, "{}", detail(I10, &copied));
    // Resumed, it goes on.
    let mut resumed = with(("suspend", 2 * S), Some(("resume", 3 * S)));
    let within = |t: u64| (2 * S..3 * S).contains(&t);
    resumed.events.retain(|e| !within(e.t_us) || e.kind == "operator.order");
    for look in resumed.observations.iter_mut().filter(|o| within(o.t_us)) {
        let statuses = look.nodes.values_mut().filter_map(|v| v.status.as_mut());
        statuses
            .flat_map(|s| &mut s.copies)
            .for_each(|c| c.status = CopyStatus::Suspended);
    }
    assert_eq!(verdict(I10, &resumed), Verdict::Pass, "{}", detail(I10, &resumed));
}

#[test]
fn what_goes_back_by_itself_is_seen() {
    let h = there_and_back();
    assert_eq!(
        verdict(I10, &h),
        Verdict::Fail,
        "nobody ordered it: {}",
        detail(I10, &h)
    );
    assert_eq!(verdict(I10, &ordered(h)), Verdict::Pass);
    // A fault of its own is a cause.
    let h = history(&Plan::new(&[Change::PowerOff, Change::PowerOff]));
    assert_eq!(verdict(I10, &h), Verdict::Pass, "{}", detail(I10, &h));
    let mut h = h;
    h.faults.remove(1);
    assert_eq!(verdict(I10, &h), Verdict::Fail, "{}", detail(I10, &h));
}

#[test]
fn without_an_order_or_a_failover_there_is_nothing_to_stick_to() {
    assert_eq!(verdict(I10, &history(&Plan::new(&[]))), Verdict::Unknown);
}
