//! Orderly steps lose nothing: a stop and a start elsewhere, a raw move, a daemon that comes back before it was replaced.

use super::super::clients::{Kind, Outcome};
use super::fixture::Lab;
use crate::command::{Command, GroupName};
use ccr_contract::status::ServiceState;
use std::collections::BTreeSet;

/// Messages that were acknowledged, not deleted, and are not on node `i`.
pub(super) fn lost(lab: &mut Lab, i: usize) -> Vec<String> {
    let there = lab.world.ask_dump(i).expect("the node answers");
    let messages = there.groups.iter().flat_map(|g| &g.messages);
    let there: BTreeSet<&str> = messages.filter_map(|m| m.key.as_deref()).collect();
    let ops = &lab.world.workload.ops;
    let deleted = ops.iter().filter(|o| o.kind == Kind::Delete);
    let deleted: BTreeSet<&str> = deleted.map(|o| o.key.as_str()).collect();
    let stored = ops
        .iter()
        .filter(|o| o.kind == Kind::Deliver && o.outcome == Outcome::Ok);
    let keys = stored.map(|o| o.key.as_str());
    keys.filter(|k| !there.contains(k) && !deleted.contains(k))
        .map(str::to_owned)
        .collect()
}

pub(super) fn state(lab: &mut Lab, i: usize) -> Option<ServiceState> {
    lab.status(i).service.map(|s| s.state)
}

/// Whether node `i` itself serves, all of it.
pub(super) fn serves(lab: &mut Lab, i: usize) -> bool {
    let name = lab.world.machines[i].config.node.clone();
    let service = lab.world.ask_status(i).and_then(|s| s.service);
    service.is_some_and(|s| s.state == ServiceState::Online && s.active == Some(name))
}

fn stop() -> Command {
    Command::Stop {
        comment: "maintenance".into(),
    }
}

/// Until the log that is being written holds something.
pub(super) fn with_an_open_log(lab: &mut Lab) -> usize {
    let a = lab.active();
    lab.until(10, "an open log with records", |lab| {
        lab.disk(a).file("E00/E00.log").is_some_and(|b| b.len() > 600)
    });
    a
}

/// A lab whose copy gets nothing for a while, and has an open log to miss as well; and the member that serves.
fn whose_copy_lags() -> (Lab, usize) {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = lab.active();
    lab.world.throttled = true;
    lab.secs(10);
    with_an_open_log(&mut lab);
    (lab, a)
}

#[test]
fn what_was_acknowledged_before_a_stop_is_there_when_the_other_node_starts() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = with_an_open_log(&mut lab);
    let mark = lab.mark();
    lab.order(a, stop());
    lab.until(40, "the stop is done", |lab| !lab.since(mark, "REPLY").is_empty());
    assert!(lab.since(mark, "only node").is_empty(), "{}", lab.tail(5));
    lab.power_off(a);
    lab.secs(12);
    lab.start(a);
    lab.secs(15);
    lab.order(1 - a, Command::Start);
    lab.until(20, "it serves again", |lab| serves(lab, 1 - a));
    assert_ne!(lab.active(), a);
    assert_eq!(lost(&mut lab, 1 - a), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_stop_without_a_copy_is_done_and_the_service_starts_only_with_what_was_acknowledged() {
    let (mut lab, a) = whose_copy_lags();
    let mark = lab.mark();
    lab.order(a, stop());
    lab.until(60, "the stop is done", |lab| !lab.since(mark, "REPLY").is_empty());
    assert!(
        !lab.since(mark, "all that was acknowledged").is_empty(),
        "{}",
        lab.tail(5)
    );
    lab.power_off(a);
    lab.world.throttled = false;
    lab.secs(15);
    let mark = lab.mark();
    lab.order(1 - a, Command::Start);
    lab.secs(20);
    assert_eq!(state(&mut lab, 1 - a), Some(ServiceState::PartiallyOnline));
    assert!(!lab.since(mark, "before the service was stopped").is_empty());
    lab.start(a);
    lab.until(40, "it has fetched the rest", |lab| serves(lab, 1 - a));
    assert_eq!(lost(&mut lab, 1 - a), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn the_service_starts_where_everything_is_whoever_owns_it_meanwhile() {
    let (mut lab, a) = whose_copy_lags();
    lab.order(a, stop());
    lab.secs(60);
    lab.power_off(a);
    lab.secs(15);
    lab.start(a);
    lab.secs(20);
    // Nothing can be copied still: the other node cannot serve.
    lab.order(1 - a, Command::Start);
    lab.until(20, "it serves again", |lab| serves(lab, a));
    assert_eq!(lost(&mut lab, a), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_raw_move_takes_the_open_log_of_the_old_node_along() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = with_an_open_log(&mut lab);
    let to = lab.world.machines[1 - a].config.node.clone();
    let mark = lab.mark();
    let group = GroupName::Service;
    lab.order(a, Command::MoveGroup { group, to });
    lab.until(20, "it serves there", |lab| serves(lab, 1 - a));
    assert!(!lab.since(mark, "0 logs behind").is_empty(), "{}", lab.tail(30));
    assert_eq!(lost(&mut lab, 1 - a), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_daemon_that_is_restarted_brings_its_open_log_with_it() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = with_an_open_log(&mut lab);
    lab.kill(a);
    lab.secs(2);
    let mark = lab.mark();
    lab.start(a);
    lab.until(20, "one of them serves", |lab| {
        !lab.since(mark, "service.online ").is_empty()
    });
    let b = lab.active();
    assert_eq!(lost(&mut lab, b), Vec::<String>::new());
    assert!(lab.since(mark, "copy.diverged").is_empty(), "{}", lab.tail(20));
    lab.secs(30);
    lab.converges();
}

/// Until the daemon has ended, within the time that it has.
fn has_ended(lab: &mut Lab, i: usize) {
    let most = crate::io::END_US / 1_000_000 + 1;
    lab.until(most, "the daemon has ended", |lab| lab.world.machines[i].node.is_none());
}

#[test]
fn a_daemon_that_is_told_to_end_hands_the_service_over() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = with_an_open_log(&mut lab);
    let mark = lab.mark();
    lab.end(a);
    has_ended(&mut lab, a);
    assert!(!lab.since(mark, "given=true").is_empty(), "{}", lab.tail(20));
    // Its disk is gone with it: nobody can fetch anything there.
    lab.power_off(a);
    lab.until(20, "it serves there", |lab| serves(lab, 1 - a));
    assert!(!lab.since(mark, "why=handoff").is_empty(), "{}", lab.tail(20));
    assert_eq!(lost(&mut lab, 1 - a), Vec::<String>::new());
    // The other one has the Cluster Group: it has the witness before it misses this one's vote.
    lab.secs(15);
    assert!(lab.since(mark, "service.fenced").is_empty(), "{}", lab.tail(20));
    assert_eq!(lost(&mut lab, 1 - a), Vec::<String>::new());
    lab.start(a);
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_passive_daemon_that_is_told_to_end_costs_no_answer() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let b = lab.passive();
    let mark = lab.mark();
    lab.end(b);
    has_ended(&mut lab, b);
    lab.secs(15);
    for word in ["service.offline", "service.fenced", "cluster.quorum-lost"] {
        assert!(lab.since(mark, word).is_empty(), "{word}: {}", lab.tail(20));
    }
    lab.start(b);
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_daemon_whose_copy_lags_ends_in_its_time_and_says_what_is_left() {
    let (mut lab, a) = whose_copy_lags();
    let mark = lab.mark();
    lab.end(a);
    has_ended(&mut lab, a);
    assert!(!lab.since(mark, "given=false").is_empty(), "{}", lab.tail(20));
    // What is left is in closed logs, which the other one fetches as soon as it can.
    assert!(lab.disk(a).file("E00/E00.log").is_none_or(|b| b.len() <= 600));
    lab.world.throttled = false;
    lab.start(a);
    lab.until(60, "one of them serves", |lab| (0..2).any(|i| serves(lab, i)));
    let b = lab.active();
    assert_eq!(lost(&mut lab, b), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_daemon_that_is_alone_ends_at_once_with_nothing_open() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = lab.active();
    lab.power_off(1 - a);
    lab.secs(15);
    let a = if lab.active() == a {
        with_an_open_log(&mut lab)
    } else {
        a
    };
    let mark = lab.mark();
    lab.end(a);
    lab.until(2, "the daemon has ended", |lab| lab.world.machines[a].node.is_none());
    assert!(!lab.since(mark, "given=false").is_empty(), "{}", lab.tail(20));
    lab.start(a);
    lab.until(30, "it serves again", |lab| serves(lab, a));
    assert_eq!(lost(&mut lab, a), Vec::<String>::new());
    lab.start(1 - a);
    lab.secs(30);
    lab.converges();
}

fn move_to(to: &str, ignore_dismounted: bool) -> Command {
    Command::Move {
        to: to.to_owned(),
        comment: "upgrade".into(),
        ignore_dismounted,
    }
}

/// What node `i` answers to an order, within `s` seconds.
fn answer(lab: &mut Lab, i: usize, order: Command, s: u64) -> String {
    let mark = lab.mark();
    lab.order(i, order);
    lab.until(s, "an answer", |lab| !lab.since(mark, "REPLY").is_empty());
    lab.since(mark, "REPLY").concat()
}

#[test]
fn a_stopped_service_is_moved_and_comes_up_there() {
    let mut lab = Lab::new(1, 400);
    lab.secs(20);
    let a = lab.active();
    let (here, there) = (a, 1 - a);
    let name = lab.world.machines[there].config.node.clone();
    lab.order(a, stop());
    lab.until(40, "it is offline", |lab| {
        state(lab, here) == Some(ServiceState::Offline)
    });
    lab.secs(3);
    // Whoever is asked: the leader carries it out.
    for i in [here, there] {
        let validate = Command::ValidateMove {
            to: name.clone(),
            ignore_dismounted: false,
        };
        let said = answer(&mut lab, i, validate, 5);
        assert!(said.contains("Unchanged(\"nothing stands in the way"), "{said}");
    }
    let said = answer(&mut lab, here, move_to(&name, false), 5);
    assert!(said.contains("comes up there when it is started"), "{said}");
    lab.secs(5);
    assert_eq!(state(&mut lab, there), Some(ServiceState::Offline), "it stays stopped");
    let said = answer(&mut lab, here, move_to(&name, false), 5);
    assert!(said.contains("belongs to node"), "{said}");
    // The old owner is upgraded meanwhile.
    lab.kill(here);
    lab.start(here);
    lab.secs(15);
    lab.order(here, Command::Start);
    lab.until(20, "it serves there", |lab| serves(lab, there));
    assert_eq!(lost(&mut lab, there), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_stopped_service_that_one_member_alone_has_whole_is_not_moved() {
    let (mut lab, a) = whose_copy_lags();
    lab.order(a, stop());
    lab.secs(60);
    let name = lab.world.machines[1 - a].config.node.clone();
    for (order, says) in [
        (move_to(&name, false), "alone has all that was acknowledged"),
        (move_to("node9", false), "is not a member"),
    ] {
        let said = answer(&mut lab, a, order, 5);
        assert!(said.contains("Denied") && said.contains(says), "{said}");
    }
    lab.world.throttled = false;
    lab.order(a, Command::Start);
    lab.secs(30);
    lab.converges();
}

#[test]
fn a_service_with_a_dismounted_database_moves_only_where_the_operator_says_so() {
    let mut lab = Lab::new(2, 400);
    lab.secs(35);
    let (whole, hurt) = (lab.active(), lab.passive());
    lab.kill(hurt);
    let segments = lab.disk(hurt).names();
    let segment = segments.filter(|n| n.starts_with("E01/db/")).min().cloned();
    let segment = segment.expect("a segment of the second group");
    lab.disk(hurt).remove(&segment);
    lab.start(hurt);
    lab.secs(5);
    lab.power_off(whole);
    lab.until(40, "it is up without one database", |lab| {
        state(lab, hurt) == Some(ServiceState::PartiallyOnline)
    });
    let service = lab.status(hurt).service.expect("it serves");
    assert_eq!(service.failed_resources, ["database Group1: dismounted"]);
    lab.start(whole);
    lab.secs(15);
    let name = lab.world.machines[whole].config.node.clone();
    let said = answer(&mut lab, hurt, move_to(&name, false), 5);
    assert!(
        said.contains("Denied") && said.contains("--ignore-dismounted"),
        "{said}"
    );
    let said = answer(&mut lab, hurt, move_to(&name, true), 60);
    assert!(said.contains("Done(\"the service is online on"), "{said}");
    assert!(serves(&mut lab, whole), "{}", lab.tail(5));
    assert_eq!(lab.status(whole).service.expect("it serves").failed_resources, [""; 0]);
    lab.secs(20);
    lab.converges();
}

#[test]
fn a_stop_is_told_when_a_majority_has_agreed_to_it_and_not_before() {
    let mut lab = Lab::new(1, 300);
    lab.secs(20);
    let leader = (0..2).find(|i| {
        let owner = lab.status(*i).cluster.and_then(|c| c.quorum_owner);
        owner.as_deref() == Some(super::super::MEMBERS[*i])
    });
    let leader = leader.expect("somebody leads");
    // Nobody can agree: the other one is not heard, and the share is away.
    lab.cut();
    lab.world.share.down = true;
    let mark = lab.mark();
    lab.order(leader, stop());
    lab.secs(3);
    assert_eq!(lab.since(mark, "service.stop comment"), Vec::<String>::new());
    lab.world.heal();
    lab.until(30, "the stop is agreed to", |lab| {
        !lab.since(mark, "service.stop comment").is_empty()
    });
    let told = lab.since(mark, "service.stop comment");
    assert!(told.len() == 1 && told[0].contains("maintenance"), "{told:?}");
}
