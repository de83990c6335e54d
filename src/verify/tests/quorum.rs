//! I7: a majority, or an operator's force.

use super::*;
use ccr_contract::event::Claimant;

fn lost(epoch: u64) -> EventKind {
    EventKind::QuorumLost { why: "x".into(), epoch }
}

/// Changes the votes that a member says it has in every look.
fn votes(h: &mut History, node: &str, from_us: u64, have: usize) {
    for look in h.observations.iter_mut().filter(|o| o.t_us >= from_us) {
        let view = look.nodes.get_mut(node).unwrap();
        if let Some(cluster) = view.status.as_mut().and_then(|s| s.cluster.as_mut()) {
            cluster.votes.have.truncate(have);
        }
    }
}

#[test]
fn going_online_without_a_majority_is_seen() {
    // The survivor never had the witness, and says itself that it has one vote.
    let mut h = failover();
    let down = h.events.iter().find(|e| is!(e, MemberDown)).unwrap().t_us;
    h.events.retain(|e| !is!(e, ArbitrationWon));
    let up = EventKind::MemberUp {
        member: "node1".into(),
        epoch: 3,
    };
    h.events.insert(0, runtime_event("node2", 0, &up));
    let whole = h.clone();
    votes(&mut h, "node2", down, 1);
    assert_eq!(verdict(I7, &h), Verdict::Fail, "{}", detail(I7, &h));
    // Without its own word nobody knows.
    let mut h = whole.clone();
    for look in h.observations.iter_mut().filter(|o| o.t_us > down) {
        let view = look.nodes.get_mut("node2").unwrap();
        view.status.as_mut().and_then(|s| s.cluster.take());
    }
    assert_eq!(verdict(I7, &h), Verdict::Unknown, "{}", detail(I7, &h));
    // It told that it has none, and went online.
    let mut h = whole.clone();
    let at = h.events.iter().position(|e| is!(e, MemberDown)).unwrap();
    h.events.insert(at + 1, runtime_event("node2", down, &lost(3)));
    votes(&mut h, "node2", down, 1);
    assert_eq!(verdict(I7, &h), Verdict::Fail, "{}", detail(I7, &h));
    // An operator forced it: that is logged, and allowed.
    let forced = EventKind::QuorumForced {
        recorded: true,
        epoch: 3,
        why: "x".into(),
    };
    h.events.insert(at + 2, runtime_event("node2", down + 1000, &forced));
    assert_ne!(verdict(I7, &h), Verdict::Fail, "{}", detail(I7, &h));
}

#[test]
fn an_answer_without_a_majority_is_seen() {
    let mut h = failover();
    let (op, ..) = acked(&h, OpKind::Deliver).last().unwrap().clone();
    let begin = h.operations().unwrap().iter().find(|o| o.op == op).unwrap().begin_us;
    h.events.push(runtime_event("node2", begin - 10_000, &lost(4)));
    assert_eq!(verdict(I7, &h), Verdict::Fail, "{}", detail(I7, &h));
    // It had one again before that operation began.
    let won = EventKind::ArbitrationWon {
        claimant: Claimant::Owner,
        epoch: 5,
    };
    let mut again = h.clone();
    again.events.push(runtime_event("node2", begin - 5_000, &won));
    assert_eq!(verdict(I7, &again), Verdict::Pass, "{}", detail(I7, &again));
    // An operation that began before it told so may have been answered before.
    h.events.last_mut().unwrap().t_us = begin + 5_000_000;
    assert_eq!(verdict(I7, &h), Verdict::Pass, "{}", detail(I7, &h));
}

#[test]
fn serving_on_with_one_vote_is_seen_when_it_lasts() {
    let h = history(&Plan {
        stretch: 60,
        ..Plan::new(&[])
    });
    let end = h.observations.last().unwrap().t_us;
    for (from, verdict_then) in [(end - 10_000_000, Verdict::Pass), (end - 50_000_000, Verdict::Fail)] {
        let mut h = h.clone();
        votes(&mut h, "node1", from, 1);
        assert_eq!(verdict(I7, &h), verdict_then, "{}", detail(I7, &h));
    }
}
