//! The cluster layer: leases and promises, lives of members, and who counts when each was forced.

use super::super::MEMBERS;
use super::super::disk::Rule;
use super::super::machine::Pause;
use super::fixture::Lab;
use crate::cluster::CLUSTER_FILE;
use crate::command::{Command, GroupName};
use crate::io::{DiskAction, DiskResult, Input};
use crate::wire;
use ccr_contract::status::{ClusterState, ServiceState};

/// The second group's reserve logs find no room on the first node: it is partially online, and tries again every ten seconds.
/// The other member leads, and misses it after a second.
fn partially_online(operations: usize) -> Lab {
    let mut lab = Lab::prepared(2, operations, 120, |world| {
        let what = |a: &DiskAction| matches!(a, DiskAction::Replace { file, .. } if file.starts_with("E01/E01res"));
        let (result, once) = (DiskResult::Full, false);
        world.machines[0].disk.rule = Some(Rule { what, result, once });
    });
    lab.secs(10);
    let (key, value) = ("heartbeat_ms".to_owned(), "200".to_owned());
    let force = false;
    lab.order(0, Command::Set { key, value, force });
    lab.secs(30);
    let to = MEMBERS[1].to_owned();
    let group = GroupName::Cluster;
    lab.order(0, Command::MoveGroup { group, to });
    lab.secs(10);
    lab
}

/// Whether the other member was just told that node 0 wants no lease.
fn wants_none(lab: &Lab) -> bool {
    let Some(Input::Datagram { bytes, .. }) = &lab.world.last[1] else {
        return false;
    };
    wire::decode_heartbeat(bytes).is_ok_and(|h| !h.lease)
}

#[test]
fn a_lease_ends_with_the_promise_that_it_rests_on() {
    let mut lab = partially_online(4000);
    assert_eq!(lab.active(), 0);
    lab.until(25, "a heartbeat that asks for no lease", |l| wants_none(l));
    lab.cut();
    lab.secs(12);
    lab.holds();
    assert_eq!(lab.active(), 1, "the other member took over");
    assert!(!lab.since(0, "cluster.member-down").is_empty());
}

#[test]
fn no_moment_of_a_cut_leaves_two_that_serve() {
    let mut at = partially_online(2000);
    at.until(25, "a heartbeat that asks for no lease", |l| wants_none(l));
    let moment = at.world.now;
    for n in 0..40 {
        let mut lab = partially_online(2000);
        lab.world.trace = None;
        lab.world.run_until(moment - 40_000 + n * 2_000);
        lab.cut();
        lab.secs(8);
        lab.holds();
    }
}

/// What a node says of the service, and whether it has the address.
fn service(lab: &mut Lab, i: usize) -> (Option<ServiceState>, bool) {
    let state = lab.status(i).service.map(|s| s.state);
    (state, lab.world.machines[i].has_address)
}

/// The active member does not own the quorum, and hears nobody any more: with its lease it gives up the word and the address,
/// before the other one has either.
#[test]
fn a_fenced_service_is_not_online_and_has_no_address() {
    let mut lab = Lab::prepared(1, 300, 60, |_| {});
    lab.secs(6);
    let (to, group) = (MEMBERS[1].to_owned(), GroupName::Cluster);
    lab.order(0, Command::MoveGroup { group, to });
    lab.secs(10);
    assert_eq!(service(&mut lab, 0), (Some(ServiceState::Online), true));
    let mark = lab.mark();
    lab.cut();
    let mut fenced_at = None;
    while !lab.world.machines[1].has_address {
        lab.world.run_until(lab.world.now + 10_000);
        let (state, has) = service(&mut lab, 0);
        if state != Some(ServiceState::Online) {
            let since = *fenced_at.get_or_insert(lab.world.now);
            assert!(!has || lab.world.now - since <= 520_000, "the address is kept");
        } else {
            assert_eq!(fenced_at, None, "it is Online again");
        }
        assert!(lab.world.now < 60_000_000, "nobody took over\n{}", lab.tail(20));
    }
    assert!(fenced_at.is_some(), "it was Online until the other one had the address");
    assert!(!lab.world.machines[0].has_address);
    assert!(!lab.since(mark, "service.fenced").is_empty());
    lab.world.run_until(62_000_000);
    lab.converges();
}

/// The cluster's address is where the Cluster Group is, wherever the service is.
#[test]
fn the_clusters_address_goes_with_the_cluster_group() {
    let mut lab = Lab::prepared(1, 300, 60, |_| {});
    lab.secs(6);
    let who = |lab: &Lab| [0, 1].map(|i| lab.world.machines[i].has_cluster_address);
    assert_eq!(who(&lab), [true, false]);
    for (i, is_there) in [(1, [false, true]), (0, [true, false])] {
        let (to, group) = (MEMBERS[i].to_owned(), GroupName::Cluster);
        lab.order(0, Command::MoveGroup { group, to });
        lab.until(5, "it is there", |l| who(l) == is_there);
        assert_eq!(service(&mut lab, 0), (Some(ServiceState::Online), true));
    }
    lab.power_off(0);
    lab.until(20, "the survivor has it", |l| who(l) == [false, true]);
    lab.start(0);
    lab.world.run_until(62_000_000);
    lab.converges();
}

/// The members do not hear each other for five seconds: the lease ends, the other one does not take over, and with the next
/// lease word and address are back. Behind a pause the lease is asked for at once, and nothing moves.
#[test]
fn an_address_comes_back_with_the_lease_and_stays_over_a_pause() {
    let mut lab = Lab::prepared(1, 300, 60, |_| {});
    lab.secs(6);
    let (to, group) = (MEMBERS[1].to_owned(), GroupName::Cluster);
    lab.order(0, Command::MoveGroup { group, to });
    lab.secs(10);
    let mark = lab.mark();
    lab.cut();
    lab.until(6, "the address is given away", |l| !l.world.machines[0].has_address);
    lab.world.cuts.clear();
    lab.until(3, "it serves again", |l| {
        service(l, 0) == (Some(ServiceState::Online), true)
    });
    assert_eq!(lab.since(mark, "service.resumed").len(), 1);
    assert_eq!(lab.since(mark, "cluster.member-down"), Vec::<String>::new());
    for kind in [Pause::Machine, Pause::Process] {
        let mark = lab.mark();
        lab.world.pause(0, kind);
        lab.secs(3);
        lab.world.resume(0);
        lab.until(1, "it serves again", |l| service(l, 0).0 == Some(ServiceState::Online));
        lab.secs(2);
        assert_eq!(service(&mut lab, 0), (Some(ServiceState::Online), true));
        assert_eq!(lab.since(mark, "service.resumed"), Vec::<String>::new(), "{kind:?}");
    }
    lab.world.run_until(62_000_000);
    lab.converges();
}

/// What the cluster has to say since `mark`.
fn disturbances(lab: &Lab, mark: usize) -> Vec<String> {
    let words = ["member-", "quorum-lost", "cluster.joined", "service.", "hub.redelivery"];
    words.iter().flat_map(|w| lab.since(mark, w)).collect()
}

/// A datagram that a member's earlier life sent comes late, whoever serves, and whoever leads.
#[test]
fn a_datagram_of_an_earlier_life_changes_nothing() {
    for (serves, old) in [(0, 1), (0, 0), (1, 1), (1, 0)] {
        let mut lab = Lab::prepared(1, 300, 76, |_| {});
        lab.secs(6);
        let held = lab.world.last[1 - old].clone().expect("a heartbeat");
        lab.kill(old);
        lab.start(old);
        lab.secs(25);
        if lab.active() != serves {
            let (to, comment) = (MEMBERS[serves].to_owned(), "a case".to_owned());
            lab.order(
                lab.active(),
                Command::Move {
                    to,
                    comment,
                    ignore_dismounted: false,
                },
            );
        }
        lab.secs(15);
        lab.until(2, "all is well", |l| l.world.converged().is_ok());
        assert_eq!(lab.active(), serves);
        let (mark, life) = (lab.mark(), lab.world.machines[1 - old].life);
        lab.world.input(1 - old, life, held);
        lab.secs(20);
        assert_eq!(
            disturbances(&lab, mark),
            Vec::<String>::new(),
            "{serves} serves, old one of {old}"
        );
        lab.converges();
    }
}

/// Both members start again, and the first that each hears is what the other one's earlier life sent.
#[test]
fn members_that_heard_an_earlier_life_first_find_each_other() {
    let mut lab = Lab::new(1, 300);
    lab.secs(6);
    let held = [0, 1].map(|i| lab.world.last[i].clone().expect("a heartbeat"));
    lab.cut();
    (0..2).for_each(|i| lab.kill(i));
    (0..2).for_each(|i| lab.start(i));
    lab.secs(1);
    for (i, held) in held.into_iter().enumerate() {
        let life = lab.world.machines[i].life;
        lab.world.input(i, life, held);
    }
    let mark = lab.mark();
    lab.world.cuts.clear();
    lab.until(12, "the cluster is formed again", |l| {
        !l.since(mark, "service.online ").is_empty()
    });
    lab.secs(40);
    lab.converges();
}

/// Without a witness, each member is forced while the other one is off: no two share an epoch, and when both hear each other
/// they heal by themselves. What the hub had an answer for is there, whoever gave it.
#[test]
fn two_that_were_forced_one_after_the_other_heal_by_themselves() {
    for first in [0, 1] {
        // Their clocks are right: the later force has the later epoch.
        let mut lab = Lab::prepared(1, 1500, 140, |world| {
            world.machines.iter_mut().for_each(|m| m.rtc_offset_us = 0);
        });
        lab.secs(10);
        lab.world.share.down = true;
        for forced in [first, 1 - first] {
            lab.kill(1 - forced);
            lab.start(forced);
            lab.secs(16);
            let before = lab.acknowledged();
            let mark = lab.mark();
            lab.order(forced, Command::ForceQuorum);
            lab.until(10, "it serves", |l| !l.since(mark, "service.online ").is_empty());
            lab.secs(10);
            lab.holds();
            let more = lab.acknowledged() - before;
            assert!(more > 20, "{more} through {forced}\n{}", lab.tail(40));
            // What it answers carries the epoch that it was forced in, or a later one.
            let forced_in = epoch(&lab.since(mark, "cluster.quorum-forced")[0]);
            assert!(epoch(&lab.since(mark, "service.online ")[0]) >= forced_in);
        }
        let mark = lab.mark();
        lab.start(first);
        lab.until(20, "they are one cluster", |l| {
            !l.since(mark, "cluster.member-up").is_empty() || !l.since(mark, "cluster.joined").is_empty()
        });
        lab.secs(10);
        for i in [0, 1] {
            let status = lab.status(i);
            let service = status.service.expect("a cluster with a majority");
            assert_eq!(
                service.active.as_deref(),
                Some(MEMBERS[1 - first]),
                "the later force counts"
            );
            assert_eq!(status.cluster.map(|c| c.state), Some(ClusterState::Up));
        }
        // Its database has taken in what does not count: a copy that only a seed makes whole.
        lab.world.run_until(145_000_000);
        lab.converges();
    }
}

/// The epoch that an event carries.
fn epoch(line: &str) -> u64 {
    let at = line.find("epoch=").expect("it has an epoch") + 6;
    let digits: String = line[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Two operators at two members: each change waits for the one before it.
#[test]
fn orders_that_come_at_once_are_agreed_to_one_after_the_other() {
    let mut lab = Lab::new(1, 100);
    lab.secs(20);
    let mark = lab.mark();
    for (at, tolerance) in [(0, 7), (1, 8), (0, 9)] {
        let (key, value) = ("node_tolerance".to_owned(), format!("{tolerance}"));
        let force = false;
        lab.order(at, Command::Set { key, value, force });
    }
    lab.until(20, "three answers", |l| l.since(mark, "REPLY").len() == 3);
    let replies = lab.since(mark, "REPLY");
    assert!(replies.iter().all(|r| r.contains("Done")), "{replies:?}");
    lab.converges();
}

/// The last answer that an operator got.
fn answer(lab: &mut Lab, i: usize, command: Command) -> String {
    let mark = lab.mark();
    lab.order(i, command);
    lab.until(20, "an answer", |l| !l.since(mark, "REPLY").is_empty());
    lab.since(mark, "REPLY").remove(0)
}

/// A setting for which the other member restarts, while nobody else can vote: it has agreed, and the operator is told so.
#[test]
fn a_change_is_agreed_before_the_other_member_restarts_for_it() {
    let mut lab = Lab::new(1, 300);
    lab.secs(10);
    lab.world.share.down = true;
    lab.secs(8);
    let set = |force| Command::Set {
        key: "node_tolerance".into(),
        value: "8".into(),
        force,
    };
    let reply = answer(&mut lab, 0, set(false));
    assert!(
        reply.contains("Denied") && reply.contains("the witness cannot be locked"),
        "{reply}"
    );
    let reply = answer(&mut lab, 0, set(true));
    assert!(
        reply.contains("Done") && reply.contains("the quorum is lost"),
        "{reply}"
    );
    lab.until(20, "the quorum is lost, as it was told", |l| {
        !l.since(0, "cluster.quorum-lost").is_empty()
    });
    lab.world.share.down = false;
    lab.secs(40);
    lab.converges();
}

/// Without a majority an order is refused with what is missing, and `status` says the same.
#[test]
fn without_a_majority_orders_are_refused_with_the_cause() {
    let mut lab = Lab::new(1, 300);
    lab.secs(6);
    lab.kill(1);
    lab.world.share.down = true;
    lab.secs(20);
    let cluster = lab.status(0).cluster.expect("a member");
    let cause = cluster.cause.expect("it says why");
    assert_eq!(cluster.state, ClusterState::Forming);
    assert!(
        cause.contains("node2 is not heard") && cause.contains("the witness gives no vote"),
        "{cause}"
    );
    let (to, comment) = (MEMBERS[1].to_owned(), "a case".to_owned());
    for command in [
        Command::Start,
        Command::Move {
            to,
            comment,
            ignore_dismounted: false,
        },
    ] {
        let reply = answer(&mut lab, 0, command);
        assert!(reply.contains("Denied") && reply.contains(&cause), "{reply}");
    }
    lab.start(1);
    lab.world.run_until(62_000_000);
    lab.converges();
    assert_eq!(lab.status(0).cluster.expect("a member").cause, None);
}

/// An evicted member says so, and what takes it back; a group that is where it shall go is not moved.
#[test]
fn who_was_evicted_says_so_and_what_is_there_already_is_not_moved() {
    let mut lab = Lab::new(1, 300);
    lab.secs(6);
    let active = lab.active();
    let (to, out) = (MEMBERS[active].to_owned(), MEMBERS[1 - active].to_owned());
    let leader = lab
        .status(0)
        .cluster
        .and_then(|c| c.quorum_owner)
        .expect("somebody leads");
    for (group, to) in [(GroupName::Service, to), (GroupName::Cluster, leader)] {
        let reply = answer(&mut lab, active, Command::MoveGroup { group, to });
        assert!(reply.contains("Denied") && reply.contains("already"), "{reply}");
    }
    let to = MEMBERS[active].to_owned();
    answer(
        &mut lab,
        active,
        Command::MoveGroup {
            group: GroupName::Cluster,
            to,
        },
    );
    let status = lab.status(active).service.expect("a service");
    assert_eq!(
        (status.owner.as_deref(), status.epoch.is_some()),
        (Some(MEMBERS[active]), true)
    );
    let reply = answer(&mut lab, active, Command::Evict { node: out.clone() });
    assert!(reply.contains("is evicted"), "{reply}");
    lab.secs(2);
    let reply = answer(&mut lab, 1 - active, Command::Join { node: out.clone() });
    assert!(reply.contains("an operator evicted this node"), "{reply}");
    let cause = lab
        .status(1 - active)
        .cluster
        .and_then(|c| c.cause)
        .expect("it says why");
    assert!(cause.contains("evicted"), "{cause}");
    answer(&mut lab, active, Command::Join { node: out });
    lab.world.run_until(62_000_000);
    lab.converges();
}

/// A record that is gone is none that never was: with logs of a cluster on its disk, the first member forms no new one alone, in which
/// it would serve what it has in an epoch that the hubs know as an old one. With the other one it goes on.
#[test]
fn a_member_that_lost_its_record_forms_no_cluster_alone() {
    let mut lab = Lab::new(1, 300);
    lab.secs(40);
    let before = lab.status(0).epoch;
    lab.kill(0);
    lab.kill(1);
    assert!(lab.disk(0).remove(CLUSTER_FILE));
    lab.start(0);
    lab.secs(40);
    lab.holds();
    let cluster = lab.status(0).cluster.expect("a member");
    assert_eq!(cluster.state, ClusterState::Forming);
    let cause = cluster.cause.expect("it says why");
    assert!(cause.contains("cluster.json is gone"), "{cause}");
    lab.start(1);
    lab.converges();
    assert!(lab.status(0).epoch > before);
}

/// The same on both: they hear each other, and go on above every epoch that their logs tell of.
#[test]
fn two_that_lost_their_records_go_on_above_what_their_logs_tell() {
    let mut lab = Lab::new(1, 300);
    lab.secs(40);
    let before = lab.status(0).epoch;
    for i in [0, 1] {
        lab.kill(i);
        assert!(lab.disk(i).remove(CLUSTER_FILE));
    }
    lab.start(0);
    lab.start(1);
    lab.converges();
    assert!(lab.status(0).epoch > before, "{} and {before}", lab.status(0).epoch);
}
