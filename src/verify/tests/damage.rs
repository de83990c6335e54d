//! Histories of any length with any takeovers: none fails, and every damage is caught.

use super::*;
use proptest::prelude::*;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![Just(Change::Planned), Just(Change::PowerOff)]
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        any::<u64>(),
        5u64..30,
        3u64..10,
        proptest::collection::vec(change(), 0..3),
    )
        .prop_map(|(seed, rate, stretch, changes)| Plan {
            seed,
            rate,
            stretch,
            changes,
        })
}

/// Damage to a history; each must be caught by the named invariant. None where this history has no place for it.
fn damage(h: &mut History, which: usize, pick: usize) -> Option<InvariantId> {
    let failover = takeovers(h).iter().any(|t| !t.planned);
    let choose = |v: Vec<(u64, String, Option<By>)>| -> Option<(u64, String, Option<By>)> {
        (!v.is_empty()).then(|| v[pick % v.len()].clone())
    };
    let there = |h: &History, kind| -> Vec<_> { acked(h, kind).into_iter().filter(|(_, k, _)| stored(h, k)).collect() };
    let durability = if failover { I3 } else { I2 };
    let changed = !takeovers(h).is_empty();
    match which {
        // An acknowledged submit is dropped.
        0 => {
            let (_, key, _) = choose(there(h, OpKind::Submit))?;
            remove(h, &key);
            changed.then_some(durability)
        }
        // An acknowledged deliver that had to be kept is dropped.
        1 => {
            let (_, key, _) = choose(there(h, OpKind::Deliver))?;
            remove(h, &key);
            changed.then_some(durability)
        }
        // A message is there twice.
        2 => {
            let (_, key, _) = choose(there(h, OpKind::Submit))?;
            for d in h.dumps.iter_mut().take(2) {
                let messages = &mut d.groups[0].messages;
                let twin = messages.iter().find(|m| m.key.as_ref() == Some(&key))?.clone();
                messages.push(twin);
            }
            Some(I4)
        }
        // The answers of two epochs change their places.
        3 => {
            let mut answers = acked(h, OpKind::Deliver);
            answers.retain(|(.., by)| by.is_some());
            let (first, last) = (answers.first()?.clone(), answers.last()?.clone());
            if first.2.as_ref()?.epoch == last.2.as_ref()?.epoch {
                return None;
            }
            for (op, other) in [(first.0, last.2), (last.0, first.2)] {
                if let OpLine::Complete { by, .. } = complete(h, op) {
                    *by = other;
                }
            }
            Some(I1)
        }
        // The other member answers in the same epoch.
        4 => {
            let (op, ..) = choose(acked(h, OpKind::Deliver))?;
            if let OpLine::Complete { by: Some(by), .. } = complete(h, op) {
                by.node = if by.node == "node1" {
                    "node2".into()
                } else {
                    "node1".into()
                };
            }
            // With a single answer in its epoch there is no second active.
            let by = complete_by(h, op)?;
            let same = acked(h, OpKind::Deliver)
                .into_iter()
                .filter(|(.., b)| b.as_ref().is_some_and(|b| b.epoch == by.epoch));
            (same.count() > 1).then_some(I1)
        }
        // A message that no client sent.
        5 => {
            for d in h.dumps.iter_mut().take(2) {
                let mut m = d.groups[0].messages.first()?.clone();
                m.key = Some("77777.m1.r7@failoverlab.test".into());
                d.groups[0].messages.push(m);
            }
            Some(I4)
        }
        6..=12 => of_the_members(h, which, pick),
        // Something is left behind.
        _ => {
            h.leaks = Some(vec!["machine node1".into()]);
            Some(I12)
        }
    }
}

/// The same of what the members have and say.
fn of_the_members(h: &mut History, which: usize, pick: usize) -> Option<InvariantId> {
    match which {
        // A log of one member is another one.
        6 => {
            let logs = &mut h.dumps[pick % 2].groups[0].logs;
            let at = pick % logs.len();
            logs[at].checksum = "beef".into();
            Some(if pick.is_multiple_of(2) { I5 } else { I6 })
        }
        // A log is gone from the middle of a chain.
        7 => {
            let logs = &mut h.dumps[pick % 2].groups[0].logs;
            if logs.len() < 3 {
                return None;
            }
            logs.remove(1 + pick % (logs.len() - 2));
            Some(I5)
        }
        // A message of the passive is gone, and its digest is another one.
        8 => {
            let active = h.observations.last()?.active()?.to_owned();
            let passive = h.dumps.iter_mut().find(|d| d.node != active && !d.groups.is_empty())?;
            let group = &mut passive.groups[0];
            if group.messages.is_empty() {
                return None;
            }
            group.database = "d2".into();
            group.messages.remove(pick % group.messages.len());
            Some(I11)
        }
        // A message of an older epoch than that which went on behind it.
        9 => {
            let last = takeovers(h).iter().map(|t| t.epoch).max()?;
            let messages = &mut h.dumps[pick % 2].groups[0].messages;
            let mut ghost = messages.iter().rfind(|m| m.epoch == last)?.clone();
            ghost.epoch -= 1;
            messages.push(ghost);
            Some(I6)
        }
        // A member serves all the while with its own vote only, and went online so.
        10 => {
            let t = takeovers(h).into_iter().find(|t| !t.planned)?;
            h.events.retain(|e| !is!(e, ArbitrationWon));
            for look in h
                .observations
                .iter_mut()
                .filter(|o| o.t_us >= t.detected_us.unwrap_or(0))
            {
                let status = look.nodes.get_mut(&t.node)?.status.as_mut();
                if let Some(cluster) = status.and_then(|s| s.cluster.as_mut()) {
                    cluster.votes.have.truncate(1);
                }
            }
            Some(I7)
        }
        // What was stopped goes on.
        11 => {
            let (first, last) = (h.events.first()?.t_us, h.events.last()?.t_us);
            let t = first + (last - first) / 4;
            h.events.push(order("stop", json!({}), t, t));
            Some(I10)
        }
        // A machine does not run, and the others go on to speak of it for a minute.
        _ => {
            let looks: Vec<Observation> = h.observations.last().into_iter().cloned().collect();
            let mut look = looks.first()?.clone();
            let active = look.active()?.to_owned();
            let view = look.nodes.get_mut(&active)?;
            (view.machine, view.status) = (Some(crate::hypervisor::DomainState::Off), None);
            for s in 1..60 {
                look.t_us += s * 1_000_000;
                h.observations.push(look.clone());
            }
            Some(I9)
        }
    }
}

fn complete_by(h: &History, number: u64) -> Option<By> {
    h.ops.iter().find_map(|l| match l {
        OpLine::Complete { op, by, .. } if *op == number => by.clone(),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn healthy_histories_pass_and_every_damage_is_caught(plan in plan(), which in 0usize..14, pick in any::<usize>()) {
        let h = history(&plan);
        let h = ordered(h);
        for id in InvariantId::ALL {
            prop_assert_ne!(verdict(id, &h), Verdict::Fail, "{:?}: {}", id, detail(id, &h));
        }
        for id in [I1, I4, I5, I6, I7, I8, I9, I11, I12] {
            prop_assert_eq!(verdict(id, &h), Verdict::Pass, "{:?}: {}", id, detail(id, &h));
        }
        let mut damaged = h.clone();
        if let Some(id) = damage(&mut damaged, which, pick) {
            prop_assert_eq!(verdict(id, &damaged), Verdict::Fail, "damage {} by {:?}: {}", which, id, detail(id, &damaged));
        }
    }
}

/// A member that served before with every vote, and goes on with its own only.
#[test]
fn votes_of_before_prove_nothing() {
    let plan = Plan {
        seed: 0,
        rate: 5,
        stretch: 3,
        changes: vec![Change::Planned, Change::PowerOff],
    };
    let mut h = ordered(history(&plan));
    assert_eq!(verdict(I7, &h), Verdict::Pass, "{}", detail(I7, &h));
    assert_eq!(damage(&mut h, 10, 0), Some(I7));
    assert_eq!(verdict(I7, &h), Verdict::Fail, "{}", detail(I7, &h));
}
