//! Every checker has a history in which it must fail, and one in which it must not say anything.

use super::sample::{Change, Plan, history, runtime_event};
use super::*;
use crate::wait::Slowness;
use ccr_contract::event::EventKind;
use ccr_contract::reply::By;
use ccr_contract::status::ServiceState;
use serde_json::json;

/// Whether an event is what a node tells of this kind.
macro_rules! is {
    ($event:expr, $kind:ident) => {
        matches!(
            $event.runtime_event().map(|t| t.what),
            Some(ccr_contract::event::EventKind::$kind { .. })
        )
    };
}

mod chain;
mod claims;
mod damage;
mod intent;
mod orderly;
mod presence;
mod quorum;
mod run;

type Is = fn(&crate::event::Event) -> bool;

fn context() -> Context {
    Context::of(&sample::lab(), Slowness::NONE)
}

fn verdict(id: InvariantId, h: &History) -> Verdict {
    check(id, h, &context()).verdict
}

fn detail(id: InvariantId, h: &History) -> String {
    check(id, h, &context()).detail
}

fn failover() -> History {
    history(&Plan::new(&[Change::PowerOff]))
}

fn there_and_back() -> History {
    history(&Plan::new(&[Change::Planned, Change::Planned]))
}

/// With the operator's orders that each planned move answers.
fn ordered(mut h: History) -> History {
    let moves: Vec<_> = h.events.iter().filter(|e| is!(e, MoveDone)).cloned().collect();
    for done in moves {
        h.events
            .push(order("move", json!({"to": "x"}), done.t_us - 900_000, done.t_us));
    }
    h.events.sort_by_key(|e| e.t_us);
    h
}

/// What the runner tells of an order that was done.
fn order(word: &str, args: serde_json::Value, begin_us: u64, t_us: u64) -> crate::event::Event {
    let what = EventKind::ClusterFormed { epoch: 1 };
    crate::event::Event {
        src: crate::event::Source::Tool,
        node: None,
        kind: "operator.order".into(),
        skew_us: None,
        data: json!({"order": {"verb": word, "args": args}, "answer": {"done": true, "seen": ""}, "begin_us": begin_us}),
        ..runtime_event("node1", t_us, &what)
    }
}

use InvariantId::*;

/// The acknowledged operations of a kind: number, key, who answered.
fn acked(h: &History, wanted: OpKind) -> Vec<(u64, String, Option<By>)> {
    let ops = h.operations().unwrap();
    let found = ops.iter().filter(|o| o.kind == wanted && o.acked());
    found.map(|o| (o.op, o.key.to_owned(), o.by.cloned())).collect()
}

fn remove(h: &mut History, key: &str) {
    for m in h.dumps.iter_mut().flat_map(|d| &mut d.groups).map(|g| &mut g.messages) {
        m.retain(|m| m.key.as_deref() != Some(key));
    }
}

/// The key of a message that a hub acknowledged and the store has.
fn stored_submit(h: &History) -> String {
    let mut submits = acked(h, OpKind::Submit).into_iter().map(|(_, key, _)| key);
    submits.find(|key| stored(h, key)).unwrap()
}

fn stored(h: &History, key: &str) -> bool {
    h.dumps[0].groups[0]
        .messages
        .iter()
        .any(|m| m.key.as_deref() == Some(key))
}

/// The line that completes an operation.
fn complete(h: &mut History, number: u64) -> &mut OpLine {
    h.ops
        .iter_mut()
        .find(|l| matches!(l, OpLine::Complete { op, .. } if *op == number))
        .unwrap()
}

fn deleted(h: &History, key: &str) -> bool {
    acked(h, OpKind::Delete).iter().any(|(_, k, _)| k == key)
}

fn judged<'a>(invariants: &'a [InvariantId], forbid: &'a [Pattern]) -> Judged<'a> {
    Judged {
        id: "F05",
        title: "x",
        invariants,
        forbid,
        events: &[],
        sometimes: &[],
        acks: 50,
        closed_generations: 3,
        role_changes: 1,
    }
}

#[test]
fn healthy_histories_pass() {
    let h = failover();
    for id in [I1, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12] {
        assert_eq!(verdict(id, &h), Verdict::Pass, "{id:?}: {}", detail(id, &h));
    }
    let h = ordered(there_and_back());
    for id in [I1, I2, I4, I5, I6, I7, I8, I9, I10, I11, I12] {
        assert_eq!(verdict(id, &h), Verdict::Pass, "{id:?}: {}", detail(id, &h));
    }
    let h = history(&Plan::new(&[]));
    for id in [I1, I4, I5, I6, I7, I8, I9, I11, I12] {
        assert_eq!(verdict(id, &h), Verdict::Pass, "{id:?}: {}", detail(id, &h));
    }
}

#[test]
fn the_sample_loses_something() {
    // Otherwise the tests of I3 would show nothing.
    let (timings, loss) = measure(&failover(), &context());
    assert!(loss.lost > 0 && loss.redelivered > 0, "{loss:?}");
    assert_eq!(timings.detect_ms, Some(6_100));
    assert_eq!(timings.arbitrate_ms, Some(1_600));
    assert_eq!(timings.mount_ms, Some(300));
    assert!(timings.first_ack_ms.unwrap() >= 8_000, "{timings:?}");
    assert!(timings.outage_ms.unwrap() >= 8_000, "{timings:?}");
    let t = takeovers(&failover());
    assert_eq!(t.len(), 1);
    assert!(!t[0].planned && t[0].node == "node2" && t[0].from == "node1");
    let t = takeovers(&there_and_back());
    assert!(t.len() == 2 && t.iter().all(|t| t.planned), "{t:?}");
}

#[test]
fn without_evidence_nothing_is_said() {
    let empty = History::default();
    for id in InvariantId::ALL {
        assert_eq!(verdict(id, &empty), Verdict::Unknown, "{id:?}");
    }
    assert_eq!(verdict(I2, &failover()), Verdict::Unknown, "there was no move");
    assert_eq!(
        verdict(I3, &there_and_back()),
        Verdict::Unknown,
        "there was no failover"
    );
    for id in [I3, I4] {
        let mut h = failover();
        h.dumps.clear();
        assert_eq!(verdict(id, &h), Verdict::Unknown, "{id:?}");
    }
    let mut h = failover();
    h.events
        .retain(|e| !e.kind.starts_with("copy.") && !is!(e, LogClosed) && !is!(e, LogOpened));
    assert_eq!(
        verdict(I3, &h),
        Verdict::Unknown,
        "what the survivor had inspected is not known"
    );
    let mut h = failover();
    h.events.retain(|e| !is!(e, MemberDown));
    assert_eq!(verdict(I8, &h), Verdict::Unknown);
    let mut h = failover();
    let (op, ..) = acked(&h, OpKind::Deliver)[0].clone();
    if let OpLine::Complete { by, .. } = complete(&mut h, op) {
        *by = None;
    }
    assert_eq!(verdict(I1, &h), Verdict::Unknown, "an answer that does not say by whom");
}

#[test]
fn the_log_that_a_survivor_opens_says_what_it_had() {
    let mut h = failover();
    let known = takeovers(&h)[0].inspected.clone();
    let opened = h.events.iter().rfind(|e| is!(e, LogOpened)).unwrap();
    assert_eq!(opened.data["generation"], known["First"] + 1);
    h.events.retain(|e| !e.kind.starts_with("copy."));
    assert_eq!(takeovers(&h)[0].inspected, known);
    assert_eq!(verdict(I3, &h), Verdict::Pass);
}

#[test]
fn an_old_node_that_is_back_before_the_service_is_online_hides_no_phase() {
    let mut h = failover();
    let timings = measure(&h, &context()).0;
    let at = h.events.iter().position(|e| is!(e, Mounted)).unwrap();
    let (member, epoch) = ("node1".into(), takeovers(&h)[0].epoch);
    let mounted = &h.events[at];
    let back = EventKind::MemberUp { member, epoch };
    let back = runtime_event(mounted.node.as_deref().unwrap(), mounted.t_us, &back);
    h.events.insert(at, back);
    assert_eq!(verdict(I8, &h), Verdict::Pass, "{}", detail(I8, &h));
    assert_eq!(measure(&h, &context()).0, timings);
}

#[test]
fn what_happened_before_the_run_is_not_judged() {
    let plan = Plan::new(&[Change::PowerOff]);
    let mut h = history(&plan);
    let c = context();
    h.from_us = h.events.iter().rfind(|e| is!(e, Online)).unwrap().t_us + 1;
    h.observations.retain(|o| o.t_us >= h.from_us);
    assert_eq!(takeovers(&h), []);
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::RoleChange), &h, &c).verdict,
        Verdict::Pass
    );
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::parse("service.online").unwrap()), &h, &c).verdict,
        Verdict::Pass
    );
}

#[test]
fn a_store_that_knows_none_of_the_messages_proves_nothing() {
    let mut h = failover();
    for m in h
        .dumps
        .iter_mut()
        .flat_map(|d| &mut d.groups)
        .flat_map(|g| &mut g.messages)
    {
        let key = m.key.as_mut().unwrap();
        key.truncate(key.len() - 1);
    }
    // Keys that were cut short are strangers; nothing of what was sent is there.
    assert_eq!(verdict(I4, &h), Verdict::Unknown);
    assert_eq!(verdict(I3, &h), Verdict::Fail);
}

#[test]
fn a_second_active_is_seen() {
    let h = failover();
    let delivers = acked(&h, OpKind::Deliver);
    let last = delivers.last().unwrap().clone();
    // The old active answers once more, in its own epoch, after the new one.
    let mut late = h.clone();
    if let OpLine::Complete { by: Some(by), .. } = complete(&mut late, last.0) {
        *by = By {
            node: "node1".into(),
            epoch: 3,
            ..by.clone()
        };
    }
    assert_eq!(verdict(I1, &late), Verdict::Fail);
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::SplitBrain), &late, &context()).verdict,
        Verdict::Fail
    );
    // Two nodes in one epoch.
    let mut both = h.clone();
    if let OpLine::Complete { by: Some(by), .. } = complete(&mut both, last.0) {
        by.node = "node1".into();
    }
    assert_eq!(verdict(I1, &both), Verdict::Fail);
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::SplitBrain), &h, &context()).verdict,
        Verdict::Pass
    );
}

#[test]
fn two_that_say_that_they_serve_are_a_split_brain_only_when_it_lasts() {
    let mut h = failover();
    let serve = |o: &mut Observation| {
        for node in ["node1", "node2"] {
            let status = o.nodes.get_mut(node).unwrap().status.as_mut().unwrap();
            status.service.as_mut().unwrap().active = Some(node.into());
        }
    };
    serve(&mut h.observations[3]);
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::SplitBrain), &h, &context()).verdict,
        Verdict::Pass
    );
    serve(&mut h.observations[4]);
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::SplitBrain), &h, &context()).verdict,
        Verdict::Fail
    );
    // What one of them says in the second look may be older than the first look: it proves nothing. What is of the time after it does.
    let first = h.observations[3].t_us;
    for (after_us, verdict) in [(first - 1, Verdict::Pass), (first, Verdict::Fail)] {
        let heard_us = h.observations[4].t_us;
        let view = h.observations[4].nodes.get_mut("node1").unwrap();
        view.moment = Some(Moment { after_us, heard_us });
        assert_eq!(
            forbidden(&Pattern::of(Forbidden::SplitBrain), &h, &context()).verdict,
            verdict
        );
    }
    assert_eq!(
        forbidden(&Pattern::of(Forbidden::SplitBrain), &History::default(), &context()).verdict,
        Verdict::Unknown
    );
}

#[test]
fn a_lost_ack_is_seen() {
    let h = failover();
    let find = |kind| acked(&h, kind).into_iter().find(|(_, k, _)| stored(&h, k)).unwrap().1;
    for kind in [OpKind::Submit, OpKind::Deliver] {
        let mut damaged = h.clone();
        remove(&mut damaged, &find(kind));
        assert_eq!(verdict(I3, &damaged), Verdict::Fail, "{kind:?}");
    }
    let h = there_and_back();
    for kind in [OpKind::Submit, OpKind::Deliver] {
        let key = acked(&h, kind).into_iter().find(|(_, k, _)| stored(&h, k)).unwrap().1;
        let mut damaged = h.clone();
        remove(&mut damaged, &key);
        assert_eq!(verdict(I2, &damaged), Verdict::Fail, "{kind:?}");
    }
}

#[test]
fn what_had_to_be_lost_and_is_there_is_seen() {
    let mut h = failover();
    let lost = acked(&h, OpKind::Deliver)
        .into_iter()
        .find(|(_, k, by)| !stored(&h, k) && !deleted(&h, k) && by.is_some())
        .unwrap();
    let mut ghost = h.dumps[0].groups[0].messages[0].clone();
    ghost.key = Some(lost.1);
    for d in h.dumps.iter_mut().take(2) {
        d.groups[0].messages.push(ghost.clone());
    }
    assert_eq!(verdict(I3, &h), Verdict::Fail);
}

#[test]
fn a_deletion_that_came_undone_is_seen() {
    let mut h = there_and_back();
    let (_, key, by) = acked(&h, OpKind::Delete)[0].clone();
    let mut ghost = h.dumps[0].groups[0].messages[0].clone();
    ghost.key = Some(key);
    ghost.generation = by.unwrap().generation;
    for d in h.dumps.iter_mut().take(2) {
        d.groups[0].messages.push(ghost.clone());
    }
    // I3 speaks of failovers: make one of the moves one.
    h.events.retain(|e| !is!(e, MoveDone));
    assert_eq!(verdict(I3, &h), Verdict::Fail, "{}", detail(I3, &h));
}

#[test]
fn a_message_in_the_queue_at_the_end_is_not_yet_lost() {
    let mut h = failover();
    let key = stored_submit(&h);
    remove(&mut h, &key);
    h.dumps[2].queued.push(ccr_contract::dump::Queued {
        key: Some(key),
        hub_id: "h1".into(),
        mailbox: "m1".into(),
    });
    assert_eq!(verdict(I3, &h), Verdict::Unknown);
}

#[test]
fn a_queue_that_was_not_read_may_hold_what_is_missing() {
    let mut h = failover();
    let key = stored_submit(&h);
    h.dumps.retain(|d| d.node != "hub");
    assert_eq!(verdict(I3, &h), Verdict::Pass, "nothing is missing: {}", detail(I3, &h));
    remove(&mut h, &key);
    assert_eq!(verdict(I3, &h), Verdict::Unknown, "{}", detail(I3, &h));
    assert!(
        detail(I3, &h).contains("the queue of hub was not read"),
        "{}",
        detail(I3, &h)
    );
}

#[test]
fn a_duplicate_a_stranger_and_a_damaged_message_are_seen() {
    let h = failover();
    let add = |h: &History, change: &dyn Fn(&mut ccr_contract::dump::Message)| {
        let mut h = h.clone();
        let mut m = h.dumps[0].groups[0].messages[0].clone();
        change(&mut m);
        for d in h.dumps.iter_mut().take(2) {
            d.groups[0].messages.push(m.clone());
        }
        h
    };
    assert_eq!(verdict(I4, &add(&h, &|_| {})), Verdict::Fail, "twice");
    let stranger = add(&h, &|m| m.key = Some("9999.m1.r7@failoverlab.test".into()));
    assert_eq!(verdict(I4, &stranger), Verdict::Fail, "never sent");
    let other = add(&h, &|m| m.key = Some("9999.m1.r6@failoverlab.test".into()));
    assert_eq!(verdict(I4, &other), Verdict::Pass, "of an earlier run");
    let ops = h.operations().unwrap();
    let refused = ops
        .iter()
        .find(|o| o.kind == OpKind::Deliver && o.outcome == Outcome::Fail)
        .unwrap();
    let ghost = add(&h, &|m| m.key = Some(refused.key.to_owned()));
    assert_eq!(verdict(I4, &ghost), Verdict::Fail, "refused and yet there");
    let wrong_box = {
        let mut h = h.clone();
        for d in h.dumps.iter_mut().take(2) {
            d.groups[0].messages[0].mailbox = "somebody".into();
        }
        h
    };
    assert_eq!(verdict(I4, &wrong_box), Verdict::Fail);
    let mut damaged_read = h.clone();
    let (op, ..) = acked(&h, OpKind::Read)[0].clone();
    if let OpLine::Complete { damaged, .. } = complete(&mut damaged_read, op) {
        *damaged = Some(vec!["1.m1.r7@failoverlab.test".into()]);
    }
    assert_eq!(verdict(I4, &damaged_read), Verdict::Fail);
}

#[test]
fn a_phase_that_took_too_long_is_seen() {
    let phases: [(&str, Is); 3] = [
        ("detect", |e| is!(e, MemberDown)),
        ("arbitrate", |e| is!(e, ArbitrationWon)),
        ("mount", |e| is!(e, Online)),
    ];
    for (phase, begins) in phases {
        let mut h = failover();
        let first = h.events.iter().position(begins).unwrap();
        for e in &mut h.events[first..] {
            e.t_us += 20_000_000;
        }
        assert_eq!(verdict(I8, &h), Verdict::Fail, "{phase}: {}", detail(I8, &h));
        let slow = Context {
            slowness: Slowness::new(5.0),
            ..context()
        };
        assert_eq!(
            check(I8, &h, &slow).verdict,
            Verdict::Pass,
            "a slow machine has more time"
        );
    }
    let mut quiet = history(&Plan::new(&[]));
    // A minute without an operation, then one operation in that minute.
    let late = |l: &OpLine| matches!(l, OpLine::Invoke { t_us, .. } if *t_us > 4_000_000);
    let first = quiet.ops.iter().position(late).unwrap();
    let OpLine::Invoke { op: from, .. } = quiet.ops[first] else {
        panic!()
    };
    for line in &mut quiet.ops {
        match line {
            OpLine::Invoke { op, t_us, .. } | OpLine::Complete { op, t_us, .. } if *op >= from => *t_us += 60_000_000,
            _ => {}
        }
    }
    assert_eq!(verdict(I8, &quiet), Verdict::Pass, "no client asked meanwhile");
    let asked = quiet
        .ops
        .iter()
        .position(|l| matches!(l, OpLine::Invoke { t_us, .. } if *t_us > 60_000_000))
        .unwrap();
    quiet.ops.insert(
        asked,
        OpLine::Invoke {
            op: 100_000,
            client: "m9".into(),
            kind: OpKind::Read,
            key: "m9".into(),
            mailbox: "m9".into(),
            t_us: 10_000_000,
        },
    );
    assert_eq!(verdict(I8, &quiet), Verdict::Fail);
}

#[test]
fn every_takeover_is_held_to_its_time() {
    let plan = Plan::new(&[Change::PowerOff, Change::Planned, Change::PowerOff]);
    let h = history(&plan);
    assert_eq!(verdict(I8, &h), Verdict::Pass, "{}", detail(I8, &h));
    assert!(detail(I8, &h).contains("arbitrate of takeover 3"), "{}", detail(I8, &h));
    let phases: [(&str, Is); 3] = [
        ("detect", |e| is!(e, MemberDown)),
        ("arbitrate", |e| is!(e, ArbitrationWon)),
        ("mount", |e| is!(e, Online)),
    ];
    for (phase, begins) in phases {
        let mut late = h.clone();
        let at = h.events.iter().rposition(begins).unwrap();
        for e in &mut late.events[at..] {
            e.t_us += 30_000_000;
        }
        assert_eq!(verdict(I8, &late), Verdict::Fail, "{phase}: {}", detail(I8, &late));
        assert!(
            detail(I8, &late).starts_with(&format!("{phase} of takeover 3")),
            "{}",
            detail(I8, &late)
        );
    }
    let mut silent = h.clone();
    let at = h.events.iter().rposition(|e| is!(e, MemberDown)).unwrap();
    silent.events.remove(at);
    assert_eq!(verdict(I8, &silent), Verdict::Unknown, "{}", detail(I8, &silent));
    // A second answer to one fault: its begin is not known, its other phases are judged.
    let mut again = h.clone();
    let second = again.faults.remove(1).begin_us;
    assert!(second > again.faults[0].begin_us);
    assert_eq!(verdict(I8, &again), Verdict::Pass, "{}", detail(I8, &again));
}

#[test]
fn what_is_left_behind_is_seen() {
    let mut h = failover();
    h.leaks = Some(vec!["rule fault-0-0".into()]);
    assert_eq!(verdict(I12, &h), Verdict::Fail);
}

#[test]
fn a_journal_that_contradicts_itself_proves_nothing() {
    let h = failover();
    let mut twice = h.clone();
    twice.ops.push(h.ops[0].clone());
    let mut headless = h.clone();
    headless.ops.retain(|l| !matches!(l, OpLine::Invoke { op: 0, .. }));
    for bad in [twice, headless] {
        for id in [I1, I2, I3, I4, I8] {
            assert_eq!(verdict(id, &bad), Verdict::Unknown, "{id:?}");
        }
    }
}

#[test]
fn looks_are_counted_and_ages_are_those_of_use() {
    let mut h = failover();
    assert_eq!(Looks::of(&h.observations), None, "nobody said when it was so");
    assert_eq!(Looks::of(&[]), None);
    h.observations.truncate(5);
    for (o, age_ms) in h.observations.iter_mut().zip([50, 300, 500, 100, 200]) {
        o.t_us += 1_000_000;
        let heard_us = o.t_us - age_ms * 1000;
        let after_us = 0;
        o.nodes.get_mut("node1").unwrap().moment = Some(Moment { after_us, heard_us });
    }
    let looks = Looks::of(&h.observations).unwrap();
    assert_eq!((looks.count, looks.median_age_ms), (5, 200.0));
    let seconds = (h.observations[4].t_us - h.observations[0].t_us) as f64 / 1e6;
    assert!((looks.per_second - 4.0 / seconds).abs() < 0.06, "{looks:?}");
}
