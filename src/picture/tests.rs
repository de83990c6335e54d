use super::*;
use crate::hypervisor::DomainState;
use crate::verify::sample::{self, Change, Plan, history};
use crate::verify::{Context, History, Judged, judge};
use crate::wait::Slowness;
use proptest::prelude::*;
use serde_json::json;

/// Every kind of history that the sample makes.
fn histories() -> Vec<(&'static str, History)> {
    [
        ("nothing happens", vec![]),
        ("a planned move", vec![Change::Planned]),
        ("there and back", vec![Change::Planned, Change::Planned]),
        ("power off", vec![Change::PowerOff]),
        ("power off, then a move", vec![Change::PowerOff, Change::Planned]),
        ("power off twice", vec![Change::PowerOff, Change::PowerOff]),
    ]
    .map(|(name, changes)| (name, history(&Plan::new(&changes))))
    .into()
}

fn tracks(h: &History) -> (Tracks, Picture) {
    Tracks::of(&sample::lab(), h).unwrap()
}

/// `active 0.0–8.1, off 8.1–20.2`, in seconds behind the begin.
fn line<T: PartialEq>(extent: Extent, track: &Track<T>, word: impl Fn(&T) -> String) -> String {
    let at = |t: u64| (t - extent.from_us) as f64 / 1e6;
    let all = track.0.iter();
    let all = all.map(|s| format!("{} {:.2}–{:.2}", word(&s.what), at(s.from_us), at(s.to_us)));
    all.collect::<Vec<_>>().join(", ")
}

#[test]
fn every_history_has_its_picture() {
    let mut out = String::new();
    for (name, h) in histories() {
        let (t, end) = tracks(&h);
        out.push_str(&format!("# {name}\n{}\n", sentence(&end, t.extent.from_us)));
        for (node, track) in &t.roles {
            out.push_str(&format!("{node}: {}\n", line(t.extent, track, |r| r.word().to_owned())));
        }
        for (node, track) in &t.votes {
            out.push_str(&format!(
                "votes of {node}: {}\n",
                line(t.extent, track, VotesSeen::text)
            ));
        }
        let service = |(state, active): &(Option<ServiceState>, Option<String>)| {
            let state = state.map_or("–".to_owned(), |s| format!("{s:?}"));
            format!("{state} on {}", active.as_deref().unwrap_or("–"))
        };
        out.push_str(&format!("service: {}\n", line(t.extent, &t.service, service)));
        let clients = line(t.extent, &t.clients, |c| c.word().to_owned());
        out.push_str(&format!("clients: {clients}\n\n"));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn a_failover_is_seen_exactly_when_it_happened() {
    let h = history(&Plan::new(&[Change::PowerOff]));
    let (t, _) = tracks(&h);
    let roles = |i: usize| t.roles[i].1.0.iter().map(|s| s.what).collect::<Vec<_>>();
    assert_eq!(roles(0), [Role::Active, Role::Off, Role::Silent, Role::Passive]);
    assert_eq!(roles(1), [Role::Passive, Role::Active]);
    let off = &t.roles[0].1.0[1];
    assert_eq!(
        (off.from_us, Some(off.to_us)),
        (h.faults[0].begin_us, h.faults[0].end_us)
    );
    for (_, track) in &t.roles {
        assert!(
            track.0.windows(2).all(|w| w[0].to_us == w[1].from_us),
            "no gaps: {track:?}"
        );
    }
}

#[test]
fn the_longest_wait_is_the_outage_of_the_report() {
    for (name, h) in histories() {
        let judged = Judged {
            id: "F",
            title: "",
            invariants: &[],
            forbid: &[],
            events: &[],
            sometimes: &[],
            acks: 0,
            closed_generations: 0,
            role_changes: 0,
        };
        let report = judge(judged, &h, &Context::of(&sample::lab(), Slowness::NONE), Vec::new());
        let (t, end) = tracks(&h);
        assert_eq!(Some(end.clients.longest_us / 1000), report.timings.outage_ms, "{name}");
        assert!(
            t.outage.is_some_and(|(from, to)| to - from == end.clients.longest_us),
            "{name}"
        );
    }
}

#[test]
fn what_no_source_knows_is_null() {
    let mut picture = Picture::new(Arc::new(sample::lab()));
    assert_eq!(picture.json()["nodes"]["node1"]["domain"], json!(null));
    assert_eq!(picture.json()["unhealthy"], json!(null));
    let mut seen = sample::healthy();
    seen.nodes.get_mut("node1").unwrap().status = None;
    picture.apply(Input::Look(&seen));
    let node = &picture.nodes["node1"];
    assert_eq!(
        (node.role, node.answers, &node.votes),
        (Role::Silent, Some(false), &None)
    );
    assert!(picture.unhealthy.unwrap().iter().any(|w| w.contains("node1")));
}

#[test]
fn a_look_that_is_older_than_an_event_changes_nothing() {
    let mut picture = Picture::new(Arc::new(sample::lab()));
    picture.apply(Input::Look(&sample::healthy()));
    let fenced = EventKind::Fenced {
        why: "no lease".into(),
        epoch: 3,
    };
    let event = sample::runtime_event("node1", 2_000_000, &fenced);
    picture.apply(Input::Event(&event));
    assert_eq!(picture.nodes["node1"].role, Role::Fenced);
    let mut late = sample::observation(&sample::lab(), 2_100_000, "node1", 5, 5);
    for view in late.nodes.values_mut() {
        view.moment = Some(crate::verify::Moment {
            after_us: 1_800_000,
            heard_us: 1_900_000,
        });
    }
    picture.apply(Input::Look(&late));
    assert_eq!(picture.nodes["node1"].role, Role::Fenced);
    assert_eq!(picture.service.state, Some(ServiceState::OfflinePending));
    late.nodes.values_mut().for_each(|v| v.moment = None);
    late.t_us = 2_200_000;
    picture.apply(Input::Look(&late));
    assert_eq!(picture.nodes["node1"].role, Role::Active);
}

#[test]
fn states_are_told_apart_without_colours() {
    let drawn: std::collections::BTreeSet<_> = Role::ALL.iter().map(|r| (r.mark(), r.word())).collect();
    assert_eq!(drawn.len(), Role::ALL.len());
    let marks: std::collections::BTreeSet<_> = Role::ALL.iter().map(|r| r.mark()).collect();
    assert_eq!(marks.len(), Role::ALL.len(), "each has a sign of its own");
    // What a member can be beside serving and standing by has neither of their shapes.
    for bad in [
        Role::Apart,
        Role::NoQuorum,
        Role::Fenced,
        Role::Silent,
        Role::Frozen,
        Role::Off,
    ] {
        assert!(
            ![Role::Active.shape(), Role::Passive.shape()].contains(&bad.shape()),
            "{bad:?}"
        );
    }
}

#[test]
fn a_lab_without_members_serves_nothing_and_says_who_runs() {
    let lab = Arc::new(crate::spec::example("bare"));
    let mut picture = Picture::new(lab.clone());
    let view = |machine| crate::verify::NodeView {
        machine: Some(machine),
        ..Default::default()
    };
    let mut look = crate::verify::Observation::default();
    for (i, node) in lab.nodes.iter().enumerate() {
        let off = i == 0;
        let machine = if off { DomainState::Off } else { DomainState::Running };
        look.nodes.insert(node.name.to_string(), view(machine));
    }
    picture.apply(Input::Look(&look));
    assert_eq!(sentence(&picture, 0), "2 of 3 machines run; a is off");
}

/// A cut between the two members of a network that has no others is a cut of their cables; where there is a third it is none.
#[test]
fn cables_of_a_run_are_what_its_faults_say() {
    let flow = |net: &str, from: &str, to: &str| json!({"network": net, "from": from, "to": to});
    let record = |id, kind: &str, target| FaultRecord {
        id,
        kind: kind.into(),
        target,
        begin_us: 5,
        end_us: Some(9),
        proof: json!({}),
        effective: Some(true),
        pending: false,
    };
    let apart = json!({"paths": [flow("private", "node1", "node2"), flow("public", "node1", "node2")]});
    let unplugged = json!({"node": "node2", "networks": ["public"]});
    let (apart, unplugged) = (record(1, "cut", apart), record(2, "link-down", unplugged));
    let mut picture = Picture::of_run(Arc::new(sample::lab()));
    let states = |p: &Picture| {
        [
            "node1/private/out",
            "node2/private/in",
            "node1/public/out",
            "node2/public/in",
        ]
        .map(|key| p.cables[key].state)
    };
    use CableState::*;
    assert_eq!(states(&picture), [Whole; 4]);
    picture.apply(Input::Injected(&apart));
    assert_eq!(states(&picture), [Cut, Cut, Impaired, Impaired]);
    assert_eq!(picture.cables["node1/public/out"].what, ["cut to node2"]);
    picture.apply(Input::Injected(&unplugged));
    assert_eq!(states(&picture), [Cut, Cut, Impaired, NoCarrier]);
    picture.apply(Input::Healed(&apart));
    picture.apply(Input::Healed(&unplugged));
    assert_eq!(states(&picture), [Whole; 4]);
}

#[test]
fn cables_show_their_rules() {
    let rule: Rule = serde_json::from_value(json!({
        "id": "f1", "network": "private", "from": "node1", "to": "*", "effect": {"cut": true}
    }))
    .unwrap();
    let lossy: Rule = serde_json::from_value(json!({
        "id": "f2", "network": "private", "from": "*", "to": "node2", "effect": {"loss": "30%"}
    }))
    .unwrap();
    let port = |node: &str| crate::fabric::PortCounters {
        network: "private".into(),
        node: node.into(),
        dropped_in: 214,
        ..Default::default()
    };
    let counters = Counters {
        ports: vec![port("node1"), port("node2")],
        ..Default::default()
    };
    let mut picture = Picture::new(Arc::new(sample::lab()));
    picture.apply(Input::Counters(5, &[rule, lossy], &counters));
    let state = |key: &str| picture.cables[key].state;
    assert_eq!(state("node1/private/out"), CableState::Cut);
    assert_eq!(state("node1/private/in"), CableState::Whole);
    assert_eq!(state("node2/private/in"), CableState::Impaired);
    assert_eq!(picture.cables["node1/private/out"].dropped, Some(214));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever gets patches in any batches has in the end what one fold makes.
    #[test]
    fn patches_in_any_batches_equal_one_fold(
        seed in 0_u64..50,
        which in 0_usize..4,
        batches in prop::collection::vec(1_usize..120, 1..40),
    ) {
        let changes: &[Change] = [
            &[][..], &[Change::Planned], &[Change::PowerOff], &[Change::PowerOff, Change::Planned],
        ][which];
        let h = history(&Plan { seed, rate: 8, stretch: 3, ..Plan::new(changes) });
        let all = inputs(&h);
        let lab = Arc::new(sample::lab());
        let mut whole = Picture::new(lab.clone());
        all.iter().for_each(|i| whole.apply(*i));
        let mut sender = Picture::new(lab);
        let mut sent = sender.json();
        let mut page = sent.clone();
        let mut rest = &all[..];
        for size in batches.iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            now.iter().for_each(|i| sender.apply(*i));
            let next = sender.json();
            let patch = Patch::between(&sent, &next);
            let wire = serde_json::to_string(&patch).unwrap();
            serde_json::from_str::<Patch>(&wire).unwrap().apply_to(&mut page);
            (sent, rest) = (next, later);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(page, whole.json());
    }
}

/// Clients that were told nothing more do not wait until the end of the drawing.
#[test]
fn behind_their_last_word_clients_do_not_wait() {
    let mut h = history(&Plan::new(&[Change::PowerOff]));
    let (whole, _) = Tracks::of(&sample::lab(), &h).unwrap();
    let (from_us, to_us) = whole.outage.unwrap();
    let at = |l: &crate::verify::OpLine| Input::Op(l).t_us();
    h.ops.retain(|l| at(l) < (from_us + to_us) / 2);
    let last_us = h.ops.iter().map(at).max().unwrap();
    let (tracks, _) = Tracks::of(&sample::lab(), &h).unwrap();
    let [.., lost, idle] = &tracks.clients.0[..] else {
        panic!("{:?}", tracks.clients);
    };
    assert_eq!((lost.what, lost.to_us), (ClientsState::Lost, last_us));
    assert_eq!((idle.what, idle.to_us), (ClientsState::Idle, tracks.extent.to_us));
}
