//! The witness's share in trouble.

use super::fixture::Lab;
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
