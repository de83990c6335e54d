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
        // Something is left behind.
        _ => {
            h.leaks = Some(vec!["machine node1".into()]);
            Some(I12)
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
    fn healthy_histories_pass_and_every_damage_is_caught(plan in plan(), which in 0usize..7, pick in any::<usize>()) {
        let h = history(&plan);
        for id in [I1, I2, I3, I4, I8, I12] {
            prop_assert_ne!(verdict(id, &h), Verdict::Fail, "{:?}: {}", id, detail(id, &h));
        }
        for id in [I1, I4, I8, I12] {
            prop_assert_eq!(verdict(id, &h), Verdict::Pass, "{:?}: {}", id, detail(id, &h));
        }
        let mut damaged = h.clone();
        if let Some(id) = damage(&mut damaged, which, pick) {
            prop_assert_eq!(verdict(id, &damaged), Verdict::Fail, "damage {} by {:?}: {}", which, id, detail(id, &damaged));
        }
    }
}
