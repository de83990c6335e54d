//! The witness's share in trouble.

use super::fixture::Lab;
use crate::durable;
use crate::wire::decode_witness;
use ccr_contract::status::WitnessHealth;

fn health(lab: &mut Lab, i: usize) -> WitnessHealth {
    let cluster = lab.status(i).cluster.expect("a member");
    cluster.witness.expect("a witness").health
}

/// The share's disk is full before anybody has written into the witness file: told while all is well, and when its vote is needed it is
/// asked for with patience. Room again, and the survivor serves.
#[test]
fn a_full_witness_disk_is_told_and_asked_with_patience() {
    let mut lab = Lab::new(1, 300);
    lab.secs(6);
    assert_eq!(health(&mut lab, 0), WitnessHealth::Ok);
    lab.world.share.full = true;
    lab.secs(8);
    for i in [0, 1] {
        assert_eq!(health(&mut lab, i), WitnessHealth::Failed, "node {i}");
    }
    let (active, passive) = (lab.active(), lab.passive());
    lab.kill(active);
    let (mark, opened) = (lab.mark(), lab.world.share.opened);
    lab.secs(60);
    lab.holds();
    assert_eq!(health(&mut lab, passive), WitnessHealth::Failed);
    let attempts = lab.world.share.opened - opened;
    // At most one in 300 ms at first, one in 1.2 s later: not one in 16 ms.
    assert!((10..60).contains(&attempts), "{attempts} attempts in 60 s");
    let told = lab.since(mark, "cluster.arbitration").len();
    assert!((1..20).contains(&told), "{told} events in 60 s\n{}", lab.tail(40));
    lab.world.share.full = false;
    lab.until(5, "the survivor serves", |l| l.active() == passive);
    lab.start(active);
    lab.converges();
}

/// A server that needs more than the witness's deadline for an opening, and less than a probe's: whoever runs nothing waits for it.
/// Otherwise the witness would be *ok*, and nobody would ever have its vote.
#[test]
fn a_slow_share_gives_its_vote_to_whoever_runs_nothing() {
    let mut lab = Lab::new(1, 300);
    lab.secs(20);
    let slow_us = lab.world.machines[0].config.settings.witness_timeout_ms * 1000 * 5 / 2;
    lab.world.share.slow_us = slow_us;
    let (active, passive, mark) = (lab.active(), lab.passive(), lab.mark());
    lab.kill(active);
    lab.until(60, "the survivor serves", |l| l.active() == passive);
    assert!(
        !lab.since(mark, "cluster.quorum-lost").is_empty(),
        "it was not slow enough"
    );
    lab.holds();
    lab.world.share.slow_us = 0;
    lab.start(active);
    lab.converges();
}

/// Attempts that give nothing for another reason than before are told.
#[test]
fn another_reason_for_no_vote_is_told() {
    let mut lab = Lab::new(1, 300);
    lab.secs(20);
    let (active, passive, mark) = (lab.active(), lab.passive(), lab.mark());
    lab.world.share.down = true;
    lab.kill(active);
    lab.secs(30);
    assert!(!lab.since(mark, "cluster.arbitration-lost").is_empty());
    let mark = lab.mark();
    lab.secs(10);
    assert_eq!(lab.since(mark, "cluster.arbitration-lost").len(), 0, "the same again");
    lab.world.share.restarted();
    lab.world.share.put(b"{\"schema\": 7}".to_vec());
    lab.secs(15);
    let told = lab.since(mark, "cluster.arbitration-lost");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("newer ccrd"), "{told:?}");
    assert_ne!(lab.active(), passive);
    lab.holds();
}

/// A lab whose witness file says something, and what it says. Nobody holds it.
fn with_a_vote() -> (Lab, serde_json::Value) {
    let mut lab = Lab::new(1, 300);
    lab.secs(20);
    let passive = lab.passive();
    lab.kill(passive);
    lab.until(20, "the leader has the witness", |l| {
        l.world.share.holders().count() == 1
    });
    lab.start(passive);
    lab.until(30, "it is given back", |l| l.world.share.holders().count() == 0);
    let said = lab.world.share.contents().next().expect("a file").to_vec();
    assert!(decode_witness(&said).expect("readable").is_some());
    (lab, serde_json::from_slice(&said).expect("JSON"))
}

/// The file of a newer ccrd, or a damaged one: nobody forms on it and nobody writes over it.
#[test]
fn a_witness_file_that_is_not_understood_is_left_alone() {
    for damaged in [false, true] {
        let (mut lab, mut file) = with_a_vote();
        file["schema"] = if damaged { 1 } else { 2 }.into();
        let mut bytes = durable::written(&file);
        if damaged {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        }
        let was = lab.world.share.put(bytes.clone());
        let (active, passive, mark) = (lab.active(), lab.passive(), lab.mark());
        lab.kill(active);
        lab.secs(40);
        lab.holds();
        assert_ne!(lab.active(), passive, "it formed on what it does not understand");
        let why = if damaged {
            "damaged"
        } else {
            "written by a newer ccrd: schema 2"
        };
        let told = lab.since(mark, why);
        assert!(
            told.iter()
                .any(|l| l.contains("cluster.quorum-lost") || l.contains("cluster.arbitration-lost")),
            "{told:?}"
        );
        assert_eq!(lab.world.share.put(was), bytes, "it was written over");
        lab.until(20, "the survivor serves", |l| l.active() == passive);
        lab.start(active);
        // Clients are over.
        lab.secs(30);
        lab.converges();
    }
}

/// As it was before there was a schema, and with a field that a newer ccrd adds.
#[test]
fn a_witness_file_of_an_older_and_of_a_newer_ccrd_votes() {
    for newer in [false, true] {
        let (mut lab, mut file) = with_a_vote();
        if newer {
            file["colour"] = "red".into();
        } else {
            let object = file.as_object_mut().expect("an object");
            object.remove("schema");
            object.remove("crc");
        }
        lab.world.share.put(durable::written(&file));
        let (active, passive) = (lab.active(), lab.passive());
        lab.kill(active);
        lab.until(20, "the survivor serves", |l| l.active() == passive);
        lab.start(active);
        // Clients are over.
        lab.secs(30);
        lab.converges();
    }
}
