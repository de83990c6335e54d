//! I2 covers every orderly step: moves, stops, daemons that were told to end.

use super::*;

/// The same run, in which the service was stopped and started on the other node instead of moved.
fn stopped_and_started(orderly: bool) -> History {
    let mut h = there_and_back();
    h.events.retain(|e| !is!(e, MoveDone));
    for e in h.events.iter_mut().filter(|e| is!(e, Offline)) {
        e.data["orderly"] = json!(orderly);
    }
    h
}

/// Puts events of a node into a history, at an instant.
fn insert(h: &mut History, t_us: u64, node: &str, events: &[EventKind]) {
    let at = h.events.iter().position(|e| e.t_us > t_us).unwrap_or(h.events.len());
    for (n, what) in events.iter().enumerate() {
        h.events.insert(at + n, runtime_event(node, t_us, what));
    }
}

fn offline(epoch: u64) -> EventKind {
    let (why, orderly) = ("an operator stopped it".into(), true);
    EventKind::Offline { why, orderly, epoch }
}

fn online(epoch: u64) -> EventKind {
    EventKind::Online { ms: 90, epoch }
}

fn any_delivered(h: &History) -> String {
    acked(h, OpKind::Deliver)
        .into_iter()
        .find(|(_, k, _)| stored(h, k))
        .unwrap()
        .1
}

#[test]
fn a_stop_and_a_start_elsewhere_are_judged_as_a_move_is() {
    let h = stopped_and_started(true);
    assert!(takeovers(&h).iter().all(|t| t.planned), "{:?}", takeovers(&h));
    assert_eq!(verdict(I2, &h), Verdict::Pass, "{}", detail(I2, &h));
    assert!(detail(I2, &h).contains("2 orderly steps"), "{}", detail(I2, &h));
    for kind in [OpKind::Submit, OpKind::Deliver] {
        let mut damaged = h.clone();
        let key = acked(&h, kind).into_iter().find(|(_, k, _)| stored(&h, k)).unwrap().1;
        remove(&mut damaged, &key);
        assert_eq!(verdict(I2, &damaged), Verdict::Fail, "{kind:?}");
    }
    // Offline for another reason: that is a failover.
    let h = stopped_and_started(false);
    assert!(takeovers(&h).iter().all(|t| !t.planned));
    assert_eq!(verdict(I2, &h), Verdict::Unknown);
}

#[test]
fn a_lab_that_was_just_brought_back_has_a_member_that_served() {
    let whole = there_and_back();
    assert!(!takeovers(&whole).is_empty());
    let mut h = whole.clone();
    for view in h.observations[0].nodes.values_mut() {
        if let Some(service) = view.status.as_mut().and_then(|s| s.service.as_mut()) {
            // Its lease ended with the checkpoint.
            (service.state, service.active) = (ServiceState::OfflinePending, None);
        }
    }
    assert_eq!(h.observations[0].active(), None);
    assert_eq!(takeovers(&h), takeovers(&whole));
}

#[test]
fn what_comes_back_where_it_was_is_judged_too() {
    let mut h = history(&Plan::new(&[]));
    assert_eq!(verdict(I2, &h), Verdict::Unknown, "nothing was done in order");
    let half = h.observations[h.observations.len() / 2].t_us;
    insert(&mut h, half, "node1", &[offline(3), online(4)]);
    assert_eq!(takeovers(&h), []);
    assert_eq!(verdict(I2, &h), Verdict::Pass, "{}", detail(I2, &h));
    let key = any_delivered(&h);
    remove(&mut h, &key);
    assert_eq!(verdict(I2, &h), Verdict::Fail);
    // A loss that an operator accepted is no failure.
    insert(&mut h, half + 1, "node1", &[EventKind::LossAccepted { epoch: 4 }]);
    assert_eq!(verdict(I2, &h), Verdict::Unknown, "{}", detail(I2, &h));
}

#[test]
fn only_the_last_that_a_node_did_makes_a_takeover_orderly() {
    let h = failover();
    let before = h.faults[0].begin_us - 1_000_000;
    let mut stopped = h.clone();
    insert(&mut stopped, before, "node1", &[offline(3)]);
    assert!(
        takeovers(&stopped)[0].planned,
        "it was stopped before it lost its power"
    );
    let mut back = h.clone();
    insert(&mut back, before, "node1", &[offline(3), online(3)]);
    assert!(!takeovers(&back)[0].planned, "it served again when it lost its power");
    assert_eq!(verdict(I3, &back), Verdict::Pass, "{}", detail(I3, &back));
    let (epoch, why) = (4, "an operator says so".to_owned());
    for what in [
        EventKind::LossAccepted { epoch },
        EventKind::QuorumForced {
            epoch,
            recorded: false,
            why,
        },
    ] {
        let mut accepted = stopped.clone();
        insert(&mut accepted, before + 500_000, "node2", std::slice::from_ref(&what));
        assert!(!takeovers(&accepted)[0].planned, "{what:?}");
    }
}
