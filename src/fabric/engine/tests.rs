use super::*;
use crate::fabric::frame::tests::ip_frame;
use crate::fabric::{Effect, Match, Rule, RuleOwner};
use crate::units::{Percent, Span};
use proptest::prelude::*;
use smoltcp::wire::IpProtocol;

const MS: u64 = 1_000_000;

/// Three ports on `public` (a, b, c), one on `private` (a).
fn engine() -> Engine {
    let names = Names {
        networks: vec!["public".into(), "private".into()],
        ports: vec![(0, "a".into()), (0, "b".into()), (0, "c".into()), (1, "a".into())],
    };
    Engine::new(names, &[1500, 1500], ())
}

fn mac_of(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 0, port as u8]
}

fn frame_to(to: PortId, from: PortId) -> Vec<u8> {
    ip_frame(mac_of(to), mac_of(from), IpProtocol::Udp, (9, 9), b"hello")
}

fn broadcast(from: PortId) -> Vec<u8> {
    ip_frame([0xff; 6], mac_of(from), IpProtocol::Udp, (9, 9), b"hello")
}

/// Ports that get the frame at once.
fn send(e: &mut Engine, from: PortId, bytes: &[u8], now: u64) -> Vec<PortId> {
    let mut out = Vec::new();
    e.ingress(from, bytes, now, &mut out);
    out.iter().map(|o| o.to).collect()
}

/// An engine that has learned every port.
fn learned() -> Engine {
    let mut e = engine();
    for p in 0..3 {
        send(&mut e, p, &broadcast(p), 0);
    }
    e
}

fn rule(id: &str, from: &str, to: &str, effect: Effect) -> Rule {
    Rule {
        id: id.into(),
        network: "public".into(),
        from: from.into(),
        to: to.into(),
        matches: Match::default(),
        effect,
        seed: 1,
    }
}

#[test]
fn it_floods_what_it_does_not_know_and_learns() {
    let mut e = engine();
    assert_eq!(send(&mut e, 0, &frame_to(1, 0), 0), [1, 2]);
    assert_eq!(send(&mut e, 1, &frame_to(0, 1), 0), [0]);
    assert_eq!(send(&mut e, 0, &frame_to(1, 0), 0), [1]);
    assert_eq!(send(&mut e, 0, &broadcast(0), 0), [1, 2]);
    assert_eq!(send(&mut e, 3, &broadcast(3), 0), [0usize; 0], "networks are apart");
    // To itself: no port gets it.
    assert_eq!(send(&mut e, 0, &frame_to(0, 0), 0), [0usize; 0]);
}

#[test]
fn vlan_tags_pass_and_separate() {
    let mut e = learned();
    let tag = |f: Vec<u8>, vlan: u8| [&f[..12], &[0x81, 0, 0, vlan], &f[12..]].concat();
    let f = tag(frame_to(1, 0), 7);
    let mut out = Vec::new();
    e.ingress(0, &f, 0, &mut out);
    assert_eq!(
        out.iter().map(|o| o.to).collect::<Vec<_>>(),
        [1, 2],
        "not learned in VLAN 7 yet"
    );
    assert!(out.iter().all(|o| o.bytes.is_none()), "forwarded as it came");
    // A full-size frame with a tag fits, one byte more does not.
    let full = |n: usize| tag([&frame_to(1, 0)[..14], &vec![0; n]].concat(), 7);
    assert!(!send(&mut e, 0, &full(1500), 0).is_empty());
    assert!(send(&mut e, 0, &full(1501), 0).is_empty());
    assert_eq!(e.counters().ports[0].malformed, 1);
}

#[test]
fn a_cut_has_its_direction() {
    let mut e = learned();
    e.set(RuleOwner::Person, vec![rule("r", "a", "b", Effect::cut())], 0)
        .unwrap();
    assert_eq!(send(&mut e, 0, &frame_to(1, 0), 1), [0usize; 0]);
    assert_eq!(send(&mut e, 1, &frame_to(0, 1), 1), [0]);
    assert_eq!(send(&mut e, 0, &broadcast(0), 1), [2]);
    let c = e.counters();
    assert_eq!((c.rules[0].matched, c.rules[0].dropped), (2, 2));
    assert_eq!((c.ports[1].dropped_out, c.ports[0].dropped_in), (2, 0));
    e.set(
        RuleOwner::Person,
        vec![
            rule("out", "a", "*", Effect::cut()),
            rule("in", "*", "a", Effect::cut()),
        ],
        2,
    )
    .unwrap();
    assert_eq!(send(&mut e, 0, &broadcast(0), 3), [0usize; 0]);
    assert_eq!(send(&mut e, 1, &broadcast(1), 3), [2]);
    let c = e.counters();
    assert_eq!(
        c.retired.iter().map(|r| (r.id.as_str(), r.dropped)).collect::<Vec<_>>(),
        [("r", 2)]
    );
    assert_eq!(c.ports[0].dropped_in, 1);
    e.set(RuleOwner::Person, Vec::new(), 4).unwrap();
    assert_eq!(send(&mut e, 0, &frame_to(1, 0), 5), [1]);
}

#[test]
fn a_cut_cable_teaches_nothing() {
    let mut e = learned();
    e.set(RuleOwner::Person, vec![rule("r", "a", "*", Effect::cut())], 0)
        .unwrap();
    // b's address from a's port: unheard, so b stays where it is.
    send(&mut e, 0, &frame_to(2, 1), 1);
    assert_eq!(send(&mut e, 2, &frame_to(1, 2), 1), [1]);
}

#[test]
fn a_match_spares_the_rest() {
    let mut e = learned();
    let smb = Match {
        proto: Some(crate::fabric::Proto::Tcp),
        port: Some(445),
        ..Match::default()
    };
    e.set(
        RuleOwner::Person,
        vec![Rule {
            matches: smb,
            ..rule("r", "a", "b", Effect::cut())
        }],
        0,
    )
    .unwrap();
    let tcp = |ports| ip_frame(mac_of(1), mac_of(0), IpProtocol::Tcp, ports, b"");
    assert_eq!(send(&mut e, 0, &tcp((1025, 445)), 1), [0usize; 0]);
    assert_eq!(send(&mut e, 0, &tcp((445, 1025)), 1), [0usize; 0]);
    assert_eq!(send(&mut e, 0, &tcp((1025, 25)), 1), [1]);
    assert_eq!(
        send(
            &mut e,
            0,
            &ip_frame(mac_of(1), mac_of(0), IpProtocol::Udp, (1, 445), b""),
            1
        ),
        [1]
    );
}

#[test]
fn delays_add_up_and_a_cut_takes_what_is_under_way() {
    let mut e = learned();
    let slow = Effect {
        delay: Some(Span::millis(100)),
        ..Effect::default()
    };
    let delays = vec![rule("one", "a", "*", slow.clone()), rule("two", "*", "b", slow)];
    e.set(RuleOwner::Person, delays.clone(), 0).unwrap();
    assert!(send(&mut e, 0, &frame_to(1, 0), 0).is_empty());
    assert!(send(&mut e, 0, &frame_to(2, 0), 0).is_empty());
    assert_eq!(e.next_due(), Some(100 * MS));
    let mut out = Vec::new();
    e.due(100 * MS, &mut out);
    assert_eq!(out.iter().map(|o| o.to).collect::<Vec<_>>(), [2]);
    assert_eq!(e.next_due(), Some(200 * MS));
    e.set(
        RuleOwner::Person,
        [delays, vec![rule("cut", "a", "b", Effect::cut())]].concat(),
        150 * MS,
    )
    .unwrap();
    assert_eq!(e.next_due(), None);
    let c = e.counters();
    assert_eq!(
        (c.rules[2].dropped, c.ports[1].dropped_out, c.ports[1].frames_out),
        (1, 1, 2)
    );
}

#[test]
fn held_frames_come_in_order_and_time_stands_still() {
    let mut e = learned();
    let slow = Effect {
        delay: Some(Span::millis(100)),
        ..Effect::default()
    };
    e.set(RuleOwner::Person, vec![rule("slow", "a", "b", slow)], 0).unwrap();
    send(&mut e, 0, &frame_to(1, 0), 0);
    e.hold(10 * MS);
    let marked = |n: u8| ip_frame(mac_of(2), mac_of(0), IpProtocol::Udp, (9, 9), &[n]);
    for n in 0..5 {
        assert!(send(&mut e, 0, &marked(n), 20 * MS).is_empty());
    }
    let mut out = Vec::new();
    e.due(1000 * MS, &mut out);
    assert!(out.is_empty());
    e.release(1010 * MS, &mut out);
    let last: Vec<u8> = out.iter().map(|o| *o.bytes.as_ref().unwrap().last().unwrap()).collect();
    assert_eq!(last, [0, 1, 2, 3, 4]);
    assert_eq!(e.next_due(), Some(1100 * MS));
}

#[test]
fn queues_and_held_frames_are_bounded_and_counted() {
    let mut e = learned();
    let slow = Effect {
        delay: Some(Span::secs(10)),
        ..Effect::default()
    };
    e.set(RuleOwner::Person, vec![rule("slow", "a", "b", slow)], 0).unwrap();
    let big = [&frame_to(1, 0)[..14], &[0; 1500]].concat();
    let n = 2 * PORT_QUEUE / big.len();
    for _ in 0..n {
        send(&mut e, 0, &big, 1);
    }
    let c = e.counters();
    assert!(e.ports[1].queued <= PORT_QUEUE);
    assert_eq!(c.ports[1].overflow as usize, n - PORT_QUEUE / big.len());
    e.hold(2);
    for _ in 0..2 * HELD / big.len() {
        send(&mut e, 2, &big, 3);
    }
    assert!(e.held.as_ref().unwrap().bytes <= HELD);
    assert!(e.counters().ports[2].overflow > 0);
}

#[test]
fn a_storm_is_bounded_and_known_receivers_are_not_hurt() {
    let mut e = learned();
    for _ in 0..100_000 {
        send(&mut e, 0, &broadcast(0), 1);
    }
    let c = e.counters();
    assert!(c.ports[1].frames_out < FLOOD_BURST + 10);
    assert_eq!(c.ports[0].storm, 100_001 - FLOOD_BURST);
    assert_eq!(send(&mut e, 0, &frame_to(1, 0), 1), [1]);
    assert_eq!(send(&mut e, 1, &broadcast(1), 1), [0, 2], "another port's floods pass");
    assert_eq!(send(&mut e, 0, &broadcast(0), 1_000 * MS), [1, 2], "and it recovers");
}

#[test]
fn copies_and_damage_are_counted() {
    let mut e = learned();
    let all = Some(Percent(100.0));
    let e1 = Effect {
        corrupt: all,
        mend: true,
        duplicate: all,
        ..Effect::default()
    };
    e.set(RuleOwner::Person, vec![rule("r", "a", "*", e1)], 0).unwrap();
    let f = frame_to(1, 0);
    let mut out = Vec::new();
    e.ingress(0, &f, 1, &mut out);
    assert_eq!(out.len(), 2);
    for o in out {
        let got = o.bytes.unwrap();
        let changed = got.iter().zip(&f).filter(|(a, b)| a != b).count();
        assert!((2..=3).contains(&changed), "one byte and the UDP checksum");
    }
    let c = e.counters().rules[0].clone();
    assert_eq!((c.matched, c.duplicated, c.corrupted, c.dropped), (1, 1, 1, 0));
}

#[test]
fn a_refused_set_changes_nothing() {
    let mut e = learned();
    let good = vec![rule("r", "a", "b", Effect::cut())];
    let first = e.set(RuleOwner::Person, good.clone(), 0).unwrap();
    let bad = Rule {
        network: "nowhere".into(),
        ..rule("x", "a", "b", Effect::cut())
    };
    assert_eq!(
        e.set(RuleOwner::Person, vec![rule("y", "*", "*", Effect::cut()), bad], 1)
            .unwrap_err()
            .exit_code(),
        2
    );
    assert_eq!((e.rules().0, e.rules().1.all()), (first, good));
    assert_eq!(send(&mut e, 1, &frame_to(2, 1), 1), [2]);
}

/// How many inputs the fuzz tests take: 20 000 in every run, more through `FAILOVERLAB_FUZZ`.
fn inputs() -> u32 {
    std::env::var("FAILOVERLAB_FUZZ")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(20_000)
}

#[test]
fn random_bytes_never_panic_the_switch() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    let mut e = engine();
    let any = Effect {
        loss: Some(Percent(10.0)),
        corrupt: Some(Percent(50.0)),
        mend: true,
        duplicate: Some(Percent(10.0)),
        mtu: Some(1000),
        delay: Some(Span::millis(1)),
        reorder: Some(Percent(10.0)),
        ..Effect::default()
    };
    let plain = Effect {
        mend: false,
        ..any.clone()
    };
    let arp = Match {
        ethertype: Some(frame::ARP),
        address: Some([10, 0, 0, 1].into()),
        ..Match::default()
    };
    e.set(
        RuleOwner::Person,
        vec![
            rule("1", "*", "*", any),
            rule("2", "a", "b", plain),
            Rule {
                matches: arp,
                ..rule("3", "*", "c", Effect::cut())
            },
        ],
        0,
    )
    .unwrap();
    let headers: [&[u8]; 6] = [
        &[8, 0, 0x45],
        &[8, 6],
        &[0x81, 0],
        &[0x86, 0xdd, 0x60],
        &[0x88, 0xa8, 0, 1, 0x81, 0],
        &[],
    ];
    let (mut out, mut now, mut buf) = (Vec::new(), 0, vec![0u8; 4096]);
    let (mut sent, mut got) = (0u64, 0usize);
    for i in 0..inputs() {
        let len = match i % 4 {
            0 => rng.random_range(0..64),
            1 => rng.random_range(0..2000),
            2 => rng.random_range(1500..1530),
            _ => rng.random_range(0..4096),
        };
        let bytes = &mut buf[..len];
        rng.fill(bytes);
        let head = headers[rng.random_range(0..headers.len())];
        if let Some(place) = bytes.get_mut(12..12 + head.len()) {
            place.copy_from_slice(head);
        }
        now += rng.random_range(0..200_000);
        e.ingress(rng.random_range(0..4), bytes, now, &mut out);
        e.due(now, &mut out);
        sent += 1;
        got += out.len();
        out.clear();
    }
    let c = e.counters();
    let (taken, malformed): (u64, u64) = (
        c.ports.iter().map(|p| p.frames_in).sum(),
        c.ports.iter().map(|p| p.malformed).sum(),
    );
    assert_eq!(taken + malformed, sent, "every input is counted");
    assert!(got > 0 && malformed > 0 && c.rules.iter().take(2).all(|r| r.matched > 0));
}

proptest! {
    /// What a cut covers never comes out, whatever else is in the set; what it does not cover does.
    #[test]
    fn no_frame_crosses_a_cut(
        steps in proptest::collection::vec((0usize..3, 0usize..4, 0usize..3, 0usize..3, 0u64..30), 1..200),
    ) {
        let nodes = ["a", "b", "c", "*"];
        let mut e = learned();
        let (mut cut, mut now) = (None, 0);
        for (kind, to, x, y, pause) in steps {
            now += pause * MS;
            if kind == 0 {
                let mut set = vec![rule("slow", "*", "*", Effect { delay: Some(Span::millis(20)), ..Effect::default() })];
                cut = (x != y).then_some((x, y));
                if let Some((x, y)) = cut {
                    set.push(rule("cut", nodes[x], nodes[y], Effect::cut()));
                }
                e.set(RuleOwner::Person, set, now).unwrap();
            }
            let f = if to == 3 { broadcast(x) } else { frame_to(to, x) };
            let mut out = Vec::new();
            e.ingress(x, &f, now, &mut out);
            e.due(now, &mut out);
            for o in out {
                let sender = o.bytes.as_ref().map_or(x, |b| usize::from(b[11]));
                prop_assert_ne!(Some((sender, o.to)), cut);
            }
        }
    }
}
