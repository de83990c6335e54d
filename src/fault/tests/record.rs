//! No fault is in force without a record of it, whatever fails and whenever.

use super::*;

/// Makes the fault while the `nth` call of `fails` fails; what came of it.
fn failing(
    kind: &str,
    on: &str,
    arguments: &[&str],
    fails: hypervisor::Kind,
    nth: usize,
) -> (Bench, Result<FaultRecord>) {
    let bench = Bench::new();
    bench.inside.lock().unwrap().carrier = false;
    bench.hypervisor.fail(fails, nth);
    let made = bench.inject(kind, Some(on), arguments);
    (bench, made)
}

fn whole(bench: &Bench) -> bool {
    let node = bench.lab.node("node1").unwrap();
    bench.state("node1") == Some(DomainState::Running)
        && node.nics.iter().all(|nic| {
            let domain = bench.hypervisor.domain("node1").unwrap();
            domain.link_up(&nic.mac.to_string()) == Some(true)
        })
}

/// Whatever fails: a fault that is in force is on record, and heals by that record.
#[test]
fn a_fault_that_is_in_force_is_on_record() {
    use hypervisor::Kind::{Destroy, Lookup, Resume, SetLink, Suspend, Xml};
    for (kind, arguments) in [
        ("power-off", &[][..]),
        ("freeze", &[]),
        ("link-down", &["network=public"]),
    ] {
        for fails in [Lookup, Suspend, Resume, Destroy, SetLink, Xml] {
            for nth in 1..5 {
                let (bench, made) = failing(kind, "node1", arguments, fails, nth);
                let what = format!("{kind}, {fails:?} {nth}: {made:?}");
                let on_record = bench.on_record.lock().unwrap().clone();
                bench.hypervisor.mend();
                match &made {
                    Ok(record) => assert_eq!(on_record.get(&record.id), Some(record), "{what}"),
                    Err(_) => assert!(whole(&bench) || on_record.len() == 1, "{what}"),
                }
                for mut record in on_record.into_values() {
                    undo(&bench, &mut record).unwrap();
                    assert!(record.end_us.is_some());
                }
                assert!(whole(&bench), "{what}: healed by its record");
            }
        }
    }
}

#[test]
fn a_look_behind_the_act_that_fails_proves_nothing_and_undoes_nothing() {
    // The guest does not answer, and libvirt cannot describe the machine: the carrier is down all the same.
    let bench = Bench::new();
    bench.silent.store(true, Relaxed);
    bench.hypervisor.fail(hypervisor::Kind::Xml, 1);
    let mut record = bench.inject("link-down", Some("node1"), &["network=public"]).unwrap();
    assert_eq!((record.effective, record.pending, whole(&bench)), (None, false, false));
    undo(&bench, &mut record).unwrap();
    assert!(whole(&bench));
    let (bench, made) = failing("freeze", "node1", &[], hypervisor::Kind::Lookup, 2);
    let mut record = made.unwrap();
    assert_eq!(
        (record.effective, bench.state("node1")),
        (None, Some(DomainState::Paused))
    );
    assert!(
        record.proof["domain"].as_str().unwrap().starts_with("unknown: "),
        "{}",
        record.proof
    );
    undo(&bench, &mut record).unwrap();
    assert!(whole(&bench));
}

#[test]
fn what_was_refused_leaves_no_record() {
    let bench = Bench::new();
    assert_eq!(bench.inject("resume", Some("node1"), &[]).unwrap_err().exit_code(), 2);
    assert!(bench.on_record.lock().unwrap().is_empty());
    bench.inject("freeze", Some("node1"), &[]).unwrap();
    assert_eq!(bench.on_record.lock().unwrap().len(), 1);
}

#[test]
fn a_fault_that_was_cut_short_is_undone_by_its_pending_record() {
    let bench = Bench::new();
    let pending = |kind: &str| bench.ask(kind, Some("node1"), &[]).unwrap().record(7, 0);
    // Killed between the suspend and the end of the process.
    bench.hypervisor.suspend("node1").unwrap();
    let mut record = pending("power-off");
    assert!(record.pending);
    undo(&bench, &mut record).unwrap();
    assert!(whole(&bench) && record.end_us.is_some());
    assert_eq!(record.effective, None, "it is not known whether it was in force");
    // Killed before anything was done.
    for kind in ["power-off", "freeze", "link-down"] {
        let mut record = pending(kind);
        undo(&bench, &mut record).unwrap();
        assert!(whole(&bench) && record.effective.is_none(), "{kind}: {record:?}");
    }
    // A signal to a machine that does not answer now: it stays on record.
    let kill = bench
        .ask("kill", Some("node1"), &["process=ccrd", "signal=STOP"])
        .unwrap();
    let mut record = kill.record(8, 0);
    bench.silent.store(true, Relaxed);
    undo(&bench, &mut record).unwrap_err();
    assert_eq!(record.end_us, None);
}
