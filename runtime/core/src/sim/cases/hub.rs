//! A hub: what it makes of its queue when something of it cannot be read, or is not understood.

use super::fixture::{HUB, Lab};
use crate::io::DiskAction;
use ccr_contract::status::Hub;

/// A lab whose hub has messages that nobody takes, and is dead; their names.
fn full() -> (Lab, Vec<String>) {
    let mut lab = Lab::new(1, 300);
    lab.secs(20);
    (0..2).for_each(|i| lab.power_off(i));
    lab.secs(10);
    lab.kill(HUB);
    let names: Vec<String> = lab
        .disk(HUB)
        .names()
        .filter(|n| n.starts_with("queue/"))
        .cloned()
        .collect();
    assert!(names.len() > 10, "{names:?}");
    (lab, names)
}

fn hub(lab: &mut Lab) -> Hub {
    lab.status(HUB).hub.expect("it is a hub")
}

fn serves_again(lab: &mut Lab) {
    (0..2).for_each(|i| lab.start(i));
    // Until the clients have done.
    lab.secs(30);
    lab.converges();
    let left = lab.disk(HUB).names().filter(|n| n.starts_with("queue/")).count();
    assert_eq!((left, hub(lab).set_aside), (0, 0));
}

#[test]
fn a_read_that_fails_at_the_start_halts_the_hub_and_loses_nothing() {
    let reads: [fn(&DiskAction) -> bool; 3] = [
        |a| matches!(a, DiskAction::List { folder } if folder == "queue"),
        |a| matches!(a, DiskAction::Read { file, .. } if file == "hub.json"),
        |a| matches!(a, DiskAction::Read { file, .. } if file.starts_with("queue/")),
    ];
    for read in reads {
        let (mut lab, names) = full();
        lab.fails_once(HUB, read, "input/output error");
        lab.start(HUB);
        lab.until(2, "a halt", |lab| lab.world.checks.counters.halts == 1);
        lab.secs(5);
        assert!(hub(&mut lab).queued >= names.len() as u64);
        serves_again(&mut lab);
    }
}

#[test]
fn a_body_that_cannot_be_read_halts_the_hub_and_loses_nothing() {
    let (mut lab, names) = full();
    lab.start(HUB);
    lab.secs(1);
    // What tells the read of a body from that of a head.
    let body = |a: &DiskAction| matches!(a, DiskAction::Read { len, .. } if *len > 64 << 10);
    lab.fails_once(HUB, body, "EIO");
    lab.until(10, "a halt", |lab| lab.world.checks.counters.halts == 1);
    lab.secs(5);
    assert!(hub(&mut lab).queued >= names.len() as u64);
    serves_again(&mut lab);
}

/// Some files of the queue are changed: they are kept, counted and told, the others are delivered; once they are mended, they are
/// taken again.
fn set_aside(hurt: usize, change: impl Fn(&[u8]) -> Vec<u8>, says: &str) {
    let (mut lab, names) = full();
    let hurt = &names[..hurt];
    let whole: Vec<Vec<u8>> = hurt
        .iter()
        .map(|n| lab.disk(HUB).file(n).expect("there").to_vec())
        .collect();
    for (name, bytes) in hurt.iter().zip(&whole) {
        lab.disk(HUB).put(name, change(bytes));
    }
    lab.start(HUB);
    lab.secs(2);
    (0..2).for_each(|i| lab.start(i));
    // Twice: another start finds them where they are.
    for _ in 0..2 {
        lab.until(60, "the others to be delivered", |lab| {
            lab.world
                .ask_status(HUB)
                .and_then(|s| s.hub)
                .is_some_and(|h| h.queued == 0)
        });
        assert_eq!(hub(&mut lab).set_aside, hurt.len() as u64);
        for (name, bytes) in hurt.iter().zip(&whole) {
            assert_eq!(
                lab.disk(HUB).file(&format!("{name}.bad")),
                Some(change(bytes).as_slice()),
                "it is kept"
            );
        }
        let told = lab.since(0, "hub.set-aside");
        assert!(
            told.len() >= hurt.len() && told.iter().all(|l| l.contains(says)),
            "{told:?}"
        );
        lab.kill(HUB);
        lab.start(HUB);
        lab.secs(2);
    }
    lab.kill(HUB);
    for (name, bytes) in hurt.iter().zip(&whole) {
        lab.disk(HUB).put(&format!("{name}.bad"), bytes.clone());
    }
    let mark = lab.mark();
    lab.start(HUB);
    lab.secs(1);
    assert_eq!(lab.since(mark, "hub.taken-again").len(), hurt.len());
    serves_again(&mut lab);
}

#[test]
fn a_damaged_head_or_message_is_kept_and_taken_again_when_it_is_mended() {
    let flip = |at: usize| {
        move |bytes: &[u8]| {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x20;
            bad
        }
    };
    set_aside(1, flip(2), "damaged");
    set_aside(2, flip(60), "damaged: checksum");
    set_aside(1, |b| b[..40].to_vec(), "damaged: no whole head");
    set_aside(1, |b| vec![0; b.len()], "damaged");
    set_aside(1, |b| b[..b.len() - 1].to_vec(), "damaged: length of the message");
    let last = |b: &[u8]| {
        let mut bad = b.to_vec();
        *bad.last_mut().expect("a message") ^= 1;
        bad
    };
    set_aside(1, last, "damaged: checksum of the message");
}

#[test]
fn messages_of_a_newer_ccrd_wait_for_it() {
    let newer = |bytes: &[u8]| {
        let mut newer = b"{\"schema\":2,".to_vec();
        newer.extend_from_slice(&bytes[b"{\"schema\":1,".len()..]);
        newer
    };
    set_aside(5, newer, "written by a newer ccrd: schema 2");
}

#[test]
fn messages_without_a_schema_and_with_fields_that_are_not_known_are_delivered() {
    let (mut lab, names) = full();
    for name in &names {
        let bytes = lab.disk(HUB).file(name).expect("there").to_vec();
        let end = bytes.iter().position(|b| *b == b'\n').expect("a head");
        let mut head: serde_json::Value = serde_json::from_slice(&bytes[..end]).expect("JSON");
        let object = head.as_object_mut().expect("an object");
        ["schema", "crc", "sum"].iter().for_each(|k| _ = object.remove(*k));
        object.insert("colour".into(), "red".into());
        let mut old = serde_json::to_vec(&head).expect("plain");
        old.extend_from_slice(&bytes[end..]);
        lab.disk(HUB).put(name, old);
    }
    lab.disk(HUB)
        .put("hub.json", br#"{"epoch_seen":1,"clock_ms":1000}"#.to_vec());
    lab.start(HUB);
    lab.secs(2);
    let found = hub(&mut lab);
    assert!(found.queued >= names.len() as u64 && found.set_aside == 0, "{found:?}");
    serves_again(&mut lab);
}

#[test]
fn a_newer_or_damaged_state_of_the_hub_halts_it_and_is_not_written_over() {
    let (mut lab, names) = full();
    let whole = lab.disk(HUB).file("hub.json").expect("there").to_vec();
    for (hurt, says) in [(0, "written by a newer ccrd"), (40, "damaged")] {
        match hurt {
            0 => lab.rewrite(HUB, "hub.json", |h| h["schema"] = 2.into()),
            at => assert!(lab.disk(HUB).flip("hub.json", at)),
        }
        let before = lab.disk(HUB).file("hub.json").expect("there").to_vec();
        let mark = lab.mark();
        lab.start(HUB);
        lab.secs(3);
        let halts = lab.since(mark, "halts");
        assert!(!halts.is_empty() && halts.iter().all(|l| l.contains(says)), "{halts:?}");
        assert_eq!(lab.disk(HUB).file("hub.json"), Some(before.as_slice()));
        lab.kill(HUB);
        lab.disk(HUB).put("hub.json", whole.clone());
    }
    lab.start(HUB);
    lab.secs(3);
    assert!(hub(&mut lab).queued >= names.len() as u64);
    serves_again(&mut lab);
}
