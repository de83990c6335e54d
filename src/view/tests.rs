use super::*;
use crate::hypervisor::Accel;
use crate::lab::protocol::sample::machines;
use crate::picture::Role;
use crate::verify::sample;
use serde_json::json;

fn fault(id: u64, begin_us: u64) -> FaultRecord {
    FaultRecord {
        id,
        kind: "freeze".into(),
        target: json!({"node": "node1"}),
        begin_us,
        end_us: None,
        proof: json!({}),
        effective: None,
        pending: false,
    }
}

pub(crate) fn look(t_us: u64, faults: Vec<FaultRecord>) -> LabStatus {
    LabStatus {
        lab: "ccr".into(),
        title: "Two nodes".into(),
        accel: Accel::Tcg,
        slowness: 1.0,
        t_us,
        heard: 0,
        machines: machines(),
        mutations: Vec::new(),
        faults,
        network_outages: Vec::new(),
        unhealthy: None,
        unknown: false,
    }
}

fn told(kind: &str, f: &FaultRecord, t_us: u64) -> News {
    let data = serde_json::to_value(f).unwrap();
    News::Event(Box::new(
        serde_json::from_value(json!({
            "seq": 1, "t_us": t_us, "src": "tool", "node": "node1", "kind": kind, "severity": "warning", "data": data,
        }))
        .unwrap(),
    ))
}

fn view() -> View {
    View::new("ccr", Arc::new(sample::lab()), 3)
}

#[test]
fn journal_and_looks_agree_on_faults_in_either_order() {
    let f = fault(1, 10_000_000);
    let ended = FaultRecord {
        end_us: Some(20_000_000),
        ..f.clone()
    };
    let mut v = view();
    // The journal tells it first; an older look does not know it.
    v.take(told("fault.begin", &f, 10_000_000));
    assert_eq!(v.picture.nodes["node1"].role, Role::Frozen);
    v.take(News::Look(Box::new(look(10_200_000, Vec::new()))));
    assert_eq!(v.picture.faults.len(), 1);
    // What is known of its effect comes with looks.
    let proven = FaultRecord {
        effective: Some(true),
        ..f.clone()
    };
    v.take(News::Look(Box::new(look(12_000_000, vec![proven]))));
    assert_eq!(v.picture.faults[&1].effective, Some(true));
    // Its end is told, and an older look still has it.
    v.take(told("fault.end", &ended, 20_000_000));
    v.take(News::Look(Box::new(look(19_900_000, vec![f.clone()]))));
    assert!(v.picture.faults.is_empty(), "{:?}", v.picture.faults);
    // One that no line of the journal tells of, and that is gone in the same way.
    v.take(News::Look(Box::new(look(30_000_000, vec![fault(2, 9_000_000)]))));
    assert!(v.picture.faults.contains_key(&2));
    v.take(News::Look(Box::new(look(32_000_000, Vec::new()))));
    assert!(v.picture.faults.is_empty());
    // One that is about to be made is none.
    let pending = FaultRecord {
        pending: true,
        ..fault(3, 33_000_000)
    };
    v.take(News::Look(Box::new(look(34_000_000, vec![pending]))));
    assert!(v.picture.faults.is_empty());
}

#[test]
fn an_event_of_before_a_look_changes_no_role() {
    let mut v = view();
    v.take(News::Look(Box::new(look(50_000_000, Vec::new()))));
    assert_eq!(v.picture.nodes["node1"].role, Role::Active);
    let offline = ccr_contract::event::EventKind::Offline {
        why: "move".into(),
        orderly: true,
        epoch: 3,
    };
    v.take(News::Event(Box::new(sample::runtime_event(
        "node1", 9_000_000, &offline,
    ))));
    assert_eq!(v.picture.nodes["node1"].role, Role::Active);
    assert_eq!(v.picture.service.active.as_deref(), Some("node1"));
}

#[test]
fn the_list_of_events_is_bounded() {
    let mut v = view();
    for i in 0..9 {
        v.take(News::Gap { from: i, to: i });
    }
    assert_eq!(v.lines, [Line::Gap(6, 6), Line::Gap(7, 7), Line::Gap(8, 8)]);
}

#[test]
fn silence_is_told_from_the_last_word_on() {
    let mut v = view();
    v.take(News::Look(Box::new(look(5_000_000, Vec::new()))));
    v.take(News::Silent("no supervisor runs".into()));
    v.take(News::Silent("no greeting".into()));
    assert_eq!(v.link, Link::Silent(5_000_000, "no greeting".into()));
    v.take(News::Look(Box::new(look(6_000_000, Vec::new()))));
    assert_eq!(v.link, Link::Live);
}

/// Whatever a live lab tells, until `enough`.
fn until(heard: &std::sync::mpsc::Receiver<News>, v: &mut View, enough: impl Fn(&View) -> bool) {
    let long = std::time::Duration::from_secs(60);
    while !enough(v) {
        v.take(heard.recv_timeout(long).expect("it tells more"));
    }
}

#[test]
fn a_live_lab_is_followed_through_its_supervisors_until_it_is_down() {
    let fake = fake::Fake::new(look(5_000_000, Vec::new()));
    let (tell, heard) = std::sync::mpsc::channel();
    live::follow(&fake.home, "ccr", Arc::new(move |n| tell.send(n).is_ok())).unwrap();
    let mut v = view();
    until(&heard, &mut v, |v| v.link == Link::Live && v.networks.is_some());
    fake.emit(crate::event::Draft::new(crate::event::Source::Tool, "note"), 6_000_000);
    until(&heard, &mut v, |v| !v.lines.is_empty());
    fake.change(|s| {
        s.status.faults.push(fault(1, 7_000_000));
        s.status.heard += 1;
    });
    until(&heard, &mut v, |v| v.picture.faults.contains_key(&1));
    // The supervisor dies: the lab is there, and nobody tells of it.
    fake.end();
    until(&heard, &mut v, |v| matches!(v.link, Link::Silent(..)));
    assert_eq!(v.picture.faults.len(), 1, "what was known is not gone");
    std::fs::remove_file(fake.home.lab("ccr").record()).unwrap();
    until(&heard, &mut v, |v| v.link == Link::Down);
}
