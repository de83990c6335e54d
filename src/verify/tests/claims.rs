//! I9: what is said, and what is so.

use super::*;
use crate::hypervisor::DomainState;
use ccr_contract::status::{Service, ServiceState};

const S: u64 = 1_000_000;

fn long() -> History {
    history(&Plan {
        stretch: 60,
        ..Plan::new(&[])
    })
}

/// From this time on a machine does not run, and its node says nothing.
fn stop(h: &mut History, node: &str, from_us: u64, to_us: u64) {
    for look in h.observations.iter_mut().filter(|o| (from_us..to_us).contains(&o.t_us)) {
        let view = look.nodes.get_mut(node).unwrap();
        (view.machine, view.status) = (Some(DomainState::Off), None);
    }
}

fn services(h: &mut History, from_us: u64, change: impl Fn(&mut Service)) {
    let looks = h.observations.iter_mut().filter(|o| o.t_us >= from_us);
    let views = looks.flat_map(|o| o.nodes.values_mut());
    views
        .filter_map(|v| v.status.as_mut()?.service.as_mut())
        .for_each(change);
}

#[test]
fn a_claim_that_is_not_so_any_more_is_seen_when_it_lasts() {
    // A failover may take 12 s: up to that is a moment ago, above 36 s is a lie, between them nobody can say.
    for (node, what) in [
        ("node1", "serves"),
        ("hub", "the witness is well"),
        ("node2", "Healthy"),
    ] {
        for (length, verdict_then) in [(5, Verdict::Pass), (20, Verdict::Unknown), (45, Verdict::Fail)] {
            let mut h = long();
            stop(&mut h, node, 10 * S, (10 + length) * S);
            if node == "node2" {
                // Its copy is spoken of by the other one.
                for look in &mut h.observations {
                    let status = look.nodes.get_mut("node1").unwrap().status.as_mut().unwrap();
                    status.copies = sample::healthy().nodes["node2"].status.as_ref().unwrap().copies.clone();
                }
            }
            assert_eq!(verdict(I9, &h), verdict_then, "{node} {length}: {}", detail(I9, &h));
            if verdict_then == Verdict::Fail {
                assert!(detail(I9, &h).contains(what), "{}", detail(I9, &h));
            }
        }
    }
    // Who says in time that it serves no more says the truth.
    let mut h = long();
    stop(&mut h, "node1", 10 * S, 50 * S);
    services(&mut h, 14 * S, |s| s.state = ServiceState::Offline);
    assert_eq!(verdict(I9, &h), Verdict::Pass, "{}", detail(I9, &h));
}

/// One that goes on to say that it serves while another one answers the clients, in a newer epoch.
#[test]
fn a_member_that_says_that_it_serves_beside_the_winner_is_seen() {
    let mut h = long();
    let at = 10 * S;
    for line in &mut h.ops {
        if let OpLine::Complete { by: Some(by), t_us, .. } = line
            && *t_us >= at
        {
            (by.node, by.epoch) = ("node2".into(), 4);
        }
    }
    assert_eq!(verdict(I9, &h), Verdict::Fail, "{}", detail(I9, &h));
    let mut short = h.clone();
    services(&mut short, at + 3 * S, |s| s.active = None);
    assert_eq!(verdict(I9, &short), Verdict::Pass, "{}", detail(I9, &short));
    // It says so in the epoch of those answers: then it is not the one that is late.
    services(&mut h, 0, |s| s.epoch = Some(4));
    assert_eq!(verdict(I9, &h), Verdict::Pass, "{}", detail(I9, &h));
}

#[test]
fn without_the_hypervisor_nothing_is_known_to_be_so() {
    let mut h = failover();
    h.observations
        .iter_mut()
        .flat_map(|o| o.nodes.values_mut())
        .for_each(|v| v.machine = None);
    assert_eq!(verdict(I9, &h), Verdict::Unknown);
}
