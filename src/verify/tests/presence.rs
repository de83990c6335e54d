//! What makes a verdict that rests on absence unknown, and what makes the absence itself a failure.

use super::*;
use crate::event::{Event, Source, kind as tool};
use crate::hypervisor::DomainState;
use crate::lab::protocol::{LabStatus, MachineStatus};
use ccr_contract::status::Intent;

const S: u64 = 1_000_000;

fn found(h: &History, id: &str) -> Option<Check> {
    let report = judge(judged(&[I1], &[]), h, &context(), Vec::new());
    report.checks.into_iter().find(|c| c.id == id)
}

fn verdict_of(h: &History, id: &str) -> Option<Verdict> {
    found(h, id).map(|c| c.verdict)
}

/// An event of the tool at this time.
fn of_the_tool(h: &History, kind: &str, t_us: u64) -> Event {
    Event {
        kind: kind.into(),
        src: Source::Tool,
        t_us,
        data: json!({"from": 3, "to": 7}),
        ..h.events[0].clone()
    }
}

#[test]
fn healthy_runs_are_whole() {
    for h in [failover(), there_and_back(), history(&Plan::new(&[]))] {
        for id in ["networks", "events", "service"] {
            assert_eq!(found(&h, id), None, "{id}");
        }
    }
}

#[test]
fn networks_that_were_dark_leave_it_open() {
    // What the supervisor says of itself is a state of every look, whoever subscribed to what and when.
    let machine = |n: &crate::spec::Node| MachineStatus {
        node: n.name.to_string(),
        role: n.role,
        domain: Some(DomainState::Running),
        pid: None,
        ssh_port: 1,
        addresses: Vec::new(),
        runtime: None,
        moment: None,
        age_ms: None,
        runtime_error: None,
    };
    let status = LabStatus {
        lab: "ccr".into(),
        title: String::new(),
        accel: crate::hypervisor::Accel::Kvm,
        slowness: 1.0,
        t_us: 5,
        heard: 0,
        machines: sample::lab().nodes.iter().map(machine).collect(),
        mutations: Vec::new(),
        faults: Vec::new(),
        network_outages: vec![(1, 2)],
        unhealthy: None,
        unknown: false,
    };
    // Other builds and `--json` have the outages under this name.
    let dark = |json: serde_json::Value| json["dark"] == serde_json::json!([[1, 2]]);
    assert!(dark(serde_json::to_value(&status).unwrap()));
    let mut h = failover();
    h.observations.push(status.into());
    assert!(dark(serde_json::to_value(h.observations.last()).unwrap()));
    let report = judge(judged(&[I1], &[]), &h, &context(), Vec::new());
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.why.unwrap().contains("dark from 0.000 s to 0.000 s"));
    // An outage before the run does not count.
    h.from_us = 3;
    assert_eq!(found(&h, "networks"), None);
    // A client that meets no supervisor is a second witness, an adoption in the journal a third.
    for kind in [tool::SUPERVISOR_GONE, tool::ADOPTED] {
        let mut h = failover();
        h.events.push(of_the_tool(&h, kind, 20 * S));
        assert_eq!(verdict_of(&h, "networks"), Some(Verdict::Unknown), "{kind}");
        h.from_us = 20 * S + 1;
        assert_eq!(found(&h, "networks"), None, "{kind}");
    }
}

#[test]
fn what_the_darkness_brought_about_is_not_the_runtimes_failure() {
    let mut h = failover();
    let online = h.events.iter().position(|e| is!(e, Online)).unwrap();
    for e in &mut h.events[online..] {
        e.t_us += 20 * S;
    }
    let forbid = [Pattern::of(Forbidden::RoleChange)];
    let late = Check {
        id: "step 4".into(),
        text: "expect service-online".into(),
        verdict: Verdict::Fail,
        detail: "not within 30 s".into(),
    };
    let verdict_of = |h: &History| judge(judged(&[I8, I12], &forbid), h, &context(), vec![late.clone()]).verdict;
    assert_eq!(verdict_of(&h), Verdict::Fail);
    let last = h.observations.len() - 1;
    h.observations[last].network_outages = vec![(5 * S, 8 * S)];
    assert_eq!(verdict_of(&h), Verdict::Unknown);
    // What was left behind stays a failure, and so does a message that is lost or two that serve.
    h.leaks = Some(vec!["rule fault-0-0".into()]);
    assert_eq!(verdict_of(&h), Verdict::Fail);
}

#[test]
fn events_that_were_lost_leave_it_open() {
    let mut h = failover();
    let at = h.events.len() / 2;
    let (why, epoch) = ("the witness is lost".into(), 3);
    let lost = runtime_event("node2", h.events[at].t_us, &EventKind::QuorumLost { why, epoch });
    let forbid = [Pattern::of(Forbidden::QuorumLost)];
    let whole = {
        let mut h = h.clone();
        h.events.insert(at, lost);
        judge(judged(&[I1], &forbid), &h, &context(), Vec::new())
    };
    assert_eq!(whole.verdict, Verdict::Fail);
    // The same run, but that event was lost on its way: a gap is there in its place.
    let gap = of_the_tool(&h, tool::GAP, h.events[at].t_us);
    h.events.insert(at, gap);
    let report = judge(judged(&[I1], &forbid), &h, &context(), Vec::new());
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(
        report
            .why
            .unwrap()
            .starts_with("events: missing: events 3 to 7 of node")
    );
    // A gap before the run is none of it.
    h.from_us = h.events[at].t_us + 1;
    assert_eq!(found(&h, "events"), None);
    // What had not arrived at the end is missing too.
    let mut h = failover();
    h.missing.push("node1 does not answer".into());
    assert_eq!(verdict_of(&h, "events"), Some(Verdict::Unknown));
}

/// A control run of `stretch` seconds; from 2 s on no node serves, by looks and clients, for `gap` seconds.
fn no_node_serves(stretch: u64, gap: u64) -> History {
    let mut h = history(&Plan {
        stretch,
        ..Plan::new(&[])
    });
    let gone = 2 * S..(2 + gap) * S;
    for o in h.observations.iter_mut().filter(|o| gone.contains(&o.t_us)) {
        serve_not(o);
    }
    let line_t = |l: &OpLine| match l {
        OpLine::Invoke { t_us, .. } | OpLine::Complete { t_us, .. } => *t_us,
    };
    let within: std::collections::BTreeSet<u64> = h
        .ops
        .iter()
        .filter(|l| gone.contains(&line_t(l)))
        .map(|l| match l {
            OpLine::Invoke { op, .. } | OpLine::Complete { op, .. } => *op,
        })
        .collect();
    h.ops.retain(|l| match l {
        OpLine::Invoke { op, .. } | OpLine::Complete { op, .. } => !within.contains(op),
    });
    h
}

fn serve_not(o: &mut Observation) {
    for service in o.nodes.values_mut().filter_map(|v| v.status.as_mut()?.service.as_mut()) {
        service.active = None;
        service.state = ccr_contract::status::ServiceState::Offline;
    }
}

#[test]
fn a_service_that_no_node_had_is_never_a_pass() {
    // The lab's limits allow a failover 12 s; three times as much is a failure.
    assert_eq!(found(&no_node_serves(60, 10), "service"), None);
    assert_eq!(verdict_of(&no_node_serves(60, 20), "service"), Some(Verdict::Unknown));
    assert_eq!(verdict_of(&no_node_serves(60, 40), "service"), Some(Verdict::Fail));
    let slow = Context {
        slowness: Slowness::new(2.0),
        ..context()
    };
    let report = judge(judged(&[I1], &[]), &no_node_serves(60, 20), &slow, Vec::new());
    assert!(
        report.checks.iter().all(|c| c.id != "service"),
        "a slow machine has more time"
    );
}

/// A look that repeats what was heard long ago is no sign that the service is there.
#[test]
fn what_was_heard_before_the_outage_does_not_hide_it() {
    let mut h = no_node_serves(60, 40);
    let gone = 2 * S..42 * S;
    let (heard_us, after_us) = (2 * S - 1, S);
    let old = h.observations.iter().rfind(|o| o.t_us < 2 * S).unwrap().nodes.clone();
    for o in h.observations.iter_mut().filter(|o| gone.contains(&o.t_us)) {
        o.nodes.clone_from(&old);
        for view in o.nodes.values_mut() {
            view.moment = Some(crate::verify::Moment { after_us, heard_us });
        }
    }
    assert_eq!(verdict_of(&h, "service"), Some(Verdict::Fail));
}

#[test]
fn a_service_that_could_not_or_should_not_be_there_is_not_missed() {
    let h = no_node_serves(60, 40);
    let within = |h: &mut History, change: &dyn Fn(&mut Observation)| {
        for o in h.observations.iter_mut().filter(|o| (2 * S..42 * S).contains(&o.t_us)) {
            change(o);
        }
    };
    let mut expected = h.clone();
    expected.absences.push(10 * S);
    assert_eq!(found(&expected, "service"), None);
    let mut stopped = h.clone();
    within(&mut stopped, &|o| {
        for s in o.nodes.values_mut().filter_map(|v| v.status.as_mut()?.service.as_mut()) {
            s.intent = Intent::Stopped;
        }
    });
    assert_eq!(found(&stopped, "service"), None);
    let mut alone = h.clone();
    within(&mut alone, &|o| {
        for node in ["node2", "hub"] {
            o.nodes.get_mut(node).unwrap().status = None;
        }
    });
    assert_eq!(found(&alone, "service"), None, "one vote of three");
    // Machines that are there and cannot reach one another may be right not to serve: no check works it out.
    let mut cut = h;
    cut.faults.push(FaultRecord {
        kind: "partition".into(),
        begin_us: S,
        end_us: Some(50 * S),
        ..failover().faults[0].clone()
    });
    assert_eq!(verdict_of(&cut, "service"), Some(Verdict::Unknown));
}

/// A member answers while its cluster service restarts, and has no vote.
#[test]
fn a_service_that_waits_for_a_cluster_service_to_restart_is_not_missed() {
    let restarting = |gap: u64, back: Option<u64>| {
        let mut h = no_node_serves(90, gap);
        for o in h
            .observations
            .iter_mut()
            .filter(|o| (2 * S..(2 + gap) * S).contains(&o.t_us))
        {
            o.nodes.get_mut("hub").unwrap().status = None;
        }
        assert!(found(&h, "service").is_some(), "two members that answer are a majority");
        let (why, epoch) = ("the heartbeat settings changed".into(), 3);
        let told = [
            (2 * S, EventKind::Restarting { why, epoch }),
            (back.unwrap_or(90) * S, EventKind::ClusterJoined { epoch }),
        ];
        let told = told.iter().take(1 + usize::from(back.is_some()));
        h.events
            .extend(told.map(|(t_us, what)| runtime_event("node2", *t_us, what)));
        h.events.sort_by_key(|e| e.t_us);
        verdict_of(&h, "service")
    };
    assert_eq!(restarting(16, Some(17)), None);
    // Back long before anybody serves, or never: neither is an excuse.
    assert_eq!(restarting(20, Some(4)), Some(Verdict::Unknown));
    assert_eq!(restarting(70, None), Some(Verdict::Fail));
}

#[test]
fn a_service_that_was_not_looked_at_is_not_a_pass() {
    let mut h = no_node_serves(60, 20);
    h.observations.retain(|o| !(2 * S..22 * S).contains(&o.t_us));
    let check = found(&h, "service").unwrap();
    assert_eq!(check.verdict, Verdict::Unknown);
    assert!(check.detail.contains("nobody looked"), "{}", check.detail);
    // Clients that were answered saw it as well.
    let mut h = history(&Plan {
        stretch: 60,
        ..Plan::new(&[])
    });
    h.observations.retain(|o| !(2 * S..22 * S).contains(&o.t_us));
    assert_eq!(found(&h, "service"), None);
}

#[test]
fn a_failover_that_took_long_is_judged_by_its_phases_and_a_hung_one_fails() {
    let mut late = failover();
    let at = late.faults[0].begin_us + S;
    let moved = |t: &mut u64, by: u64| {
        if *t > at {
            *t += by;
        }
    };
    let shift = |h: &mut History, by: u64| {
        h.events.iter_mut().for_each(|e| moved(&mut e.t_us, by));
        h.observations.iter_mut().for_each(|o| moved(&mut o.t_us, by));
        for line in &mut h.ops {
            match line {
                OpLine::Invoke { t_us, .. } | OpLine::Complete { t_us, .. } => moved(t_us, by),
            }
        }
        if let Some(end) = h.faults[0].end_us.as_mut() {
            moved(end, by);
        }
        // The looks went on.
        let last = h.observations.iter().rfind(|o| o.t_us <= at).unwrap().clone();
        h.observations.extend((1..by / S).map(|n| Observation {
            t_us: at + n * S,
            ..last.clone()
        }));
        h.observations.sort_by_key(|o| o.t_us);
    };
    let mut hung = late.clone();
    shift(&mut late, 8 * S);
    assert_eq!(found(&late, "service"), None);
    shift(&mut hung, 40 * S);
    assert_eq!(verdict_of(&hung, "service"), Some(Verdict::Fail));
}

#[test]
fn an_event_that_is_not_understood_leaves_it_open() {
    let mut h = failover();
    let online = h.events.iter().position(|e| is!(e, Online)).unwrap();
    h.events[online].data = json!({"epoch": "four"});
    let found = found(&h, "events").unwrap();
    assert_eq!(found.verdict, Verdict::Unknown);
    assert!(
        found.detail.starts_with("missing: what service.online of node2 at"),
        "{found:?}"
    );
    // What this build does not know at all is a newer node's business.
    let mut newer = failover();
    newer.events[online].kind = "service.more-than-online".into();
    assert!(verdict_of(&newer, "events").is_none());
}
