use super::*;
use crate::member::fixture::{Facts, PEER};

fn way(command: &Command, passed_on: bool, change: impl FnOnce(&mut Facts)) -> Route {
    let mut facts = Facts::new();
    change(&mut facts);
    route(command, passed_on, &facts.snapshot(), || "no witness".into())
}
fn group() -> Option<String> {
    None
}

#[test]
fn each_command_goes_to_who_is_in_charge_of_it() {
    let (start, mount) = (Command::Start, Command::Mount { group: group() });
    let resume = Command::Resume { group: group() };
    let peer_leads = |f: &mut Facts| f.record.quorum_owner = PEER.into();
    let peer_serves = |f: &mut Facts| f.record.owner = PEER.into();
    assert_eq!(way(&start, false, |_| {}), Route::Here);
    assert_eq!(way(&start, false, peer_leads), Route::Peer);
    assert_eq!(way(&start, false, peer_serves), Route::Here);
    assert_eq!(way(&mount, false, |_| {}), Route::Here);
    assert_eq!(way(&mount, false, peer_serves), Route::Peer);
    assert_eq!(way(&resume, false, |_| {}), Route::Peer, "the copy is there");
    assert_eq!(way(&resume, false, peer_serves), Route::Here);
    assert_eq!(way(&Command::Status, false, |f| f.up = false), Route::Here);
}

#[test]
fn nothing_is_passed_on_twice_or_to_nobody_and_a_cluster_without_a_majority_says_why() {
    let denied = |command: &Command, passed_on, change: fn(&mut Facts)| match way(command, passed_on, change) {
        Route::Nowhere(why) => why,
        other => panic!("{command:?}: {other:?}"),
    };
    let resume = Command::Resume { group: group() };
    let twice = denied(&resume, true, |_| {});
    assert!(twice.starts_with("neither member"), "{twice}");
    let nobody = denied(&resume, false, |f| f.peer_up = false);
    assert!(nobody.starts_with("node2 is in charge"), "{nobody}");
    let apart = denied(&Command::Start, false, |f| f.up = false);
    assert_eq!(apart, "node1 is in no cluster with a majority: no witness");
    // A mark of what is backed up needs no cluster.
    let mark = Command::BackupMark { group: group() };
    assert_eq!(way(&mark, false, |f| f.up = false), Route::Here);
}

#[test]
fn a_start_is_told_when_it_is_online() {
    let mut ctx = crate::member::fixture::ctx(1_000);
    let mut facts = Facts::new();
    let mut outcome = |facts: &Facts, state, ms| {
        crate::member::fixture::at(&mut ctx, ms);
        let here = Here {
            state,
            offline: false,
            given_all: false,
        };
        start_outcome(&mut ctx, &facts.snapshot(), here, 1_000_000)
    };
    assert_eq!(outcome(&facts, ServiceState::OnlinePending, 1_000), None);
    let online = Some(": Online on node1".to_owned());
    assert_eq!(outcome(&facts, ServiceState::Online, 1_000), online);
    let partly = outcome(&facts, ServiceState::PartiallyOnline, 1_000).unwrap_or_default();
    assert!(partly.starts_with(": PartiallyOnline on node1"), "{partly}");
    facts.record.owner = PEER.into();
    // What this node says is not of the service there.
    assert_eq!(outcome(&facts, ServiceState::Online, 1_000), None);
    facts.record.intent = Intent::Stopped;
    let stopped = outcome(&facts, ServiceState::Offline, 1_000);
    assert_eq!(stopped, Some("; it was stopped again meanwhile".into()));
    facts.record.intent = Intent::Started;
    let late = outcome(&facts, ServiceState::Offline, 90_000);
    assert_eq!(late, Some("; it is not online yet".into()));
}

#[test]
fn a_stop_is_told_when_it_is_offline_and_everything_is_known() {
    let mut ctx = crate::member::fixture::ctx(1_000);
    let mut facts = Facts::new();
    let (up, down) = ((false, false), (true, true));
    let mut outcome = |facts: &Facts, (offline, given_all)| {
        let here = Here {
            state: ServiceState::Offline,
            offline,
            given_all,
        };
        stop_outcome(&mut ctx, &facts.snapshot(), here, 1_000_000)
    };
    assert_eq!(outcome(&facts, up), Some("; it was started again meanwhile".into()));
    facts.record.intent = Intent::Stopped;
    assert_eq!(outcome(&facts, up), None);
    assert_eq!(outcome(&facts, down), Some(String::new()));
    facts.record = facts.record.clone().stopped();
    assert_eq!(
        outcome(&facts, down),
        None,
        "the record does not say yet that both have it"
    );
    let alone = outcome(&facts, (true, false)).unwrap_or_default();
    assert!(alone.starts_with("; only node1 has all"), "{alone}");
}
