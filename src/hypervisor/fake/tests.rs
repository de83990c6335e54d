//! The fake behaves as libvirt does.

use super::*;
use crate::hypervisor::tests::machine;
use crate::hypervisor::{Cable, Machine};
use std::sync::Arc;

fn started(name: &str) -> Fake {
    let fake = Fake::new();
    fake.create(&machine(name).to_xml().unwrap(), false).unwrap();
    fake
}

#[test]
fn a_life() {
    let fake = Fake::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let h = heard.clone();
    fake.listen(Box::new(move |e| {
        h.lock().unwrap().push(format!("{} {} {}", e.name, e.what, e.detail))
    }));
    fake.create(&machine("node1").to_xml().unwrap(), true).unwrap();
    let found = fake.lookup("node1").unwrap().unwrap();
    assert_eq!(
        (found.state, found.label.as_deref()),
        (DomainState::Paused, Some("ccr@2"))
    );
    fake.resume("node1").unwrap();
    fake.suspend("node1").unwrap();
    fake.destroy("node1").unwrap();
    fake.destroy("node1").unwrap();
    assert_eq!(fake.list().unwrap(), []);
    assert!(fake.suspend("node1").is_err());
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "node1 started booted",
            "node1 resumed unpaused",
            "node1 suspended paused",
            "node1 stopped destroyed"
        ]
    );
}

#[test]
fn the_nth_call_of_a_kind_fails_and_no_other() {
    let fake = started("node1");
    fake.fail(Kind::Suspend, 2);
    fake.suspend("node1").unwrap();
    fake.resume("node1").unwrap();
    assert!(fake.suspend("node1").is_err());
    assert_eq!(fake.domain("node1").unwrap().state, DomainState::Running);
    fake.suspend("node1").unwrap();
    assert_eq!(fake.calls().iter().filter(|(k, _)| *k == Kind::Suspend).count(), 3);
}

#[test]
fn two_machines_cannot_have_one_port_or_name() {
    let fake = started("node1");
    let xml = |name| machine(name).to_xml().unwrap();
    assert!(fake.create(&xml("node1"), false).is_err());
    let e = fake.create(&xml("node2"), false).unwrap_err();
    assert!(e.to_string().contains("40101"), "{e}");
}

#[test]
fn carriers_are_kept_and_shown() {
    let fake = started("node1");
    fake.set_link("node1", "52:54:00:01:00:0b", false).unwrap();
    fake.set_link("node1", "52:54:00:00:00:0b", false).unwrap();
    assert!(fake.set_link("node1", "52:54:00:00:00:ff", false).is_err());
    let domain = fake.domain("node1").unwrap();
    assert_eq!(domain.link_up("52:54:00:01:00:0b"), Some(false));
    assert!(!domain.unmanaged_links["mgmt"]);
    let live = Described::parse(&fake.xml("node1").unwrap()).unwrap();
    assert_eq!(live, domain.described);
}

#[test]
fn carriers_that_libvirt_does_not_know_are_noted_beside_the_label() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = machine("node1");
    m.disks.clear();
    for (n, p) in m.ports.iter_mut().enumerate() {
        p.cable = Cable::Unix {
            fabric: format!("/run/{n}f").into(),
            local: format!("/run/{n}").into(),
        };
    }
    let fake = Fake::new();
    fake.create(&m.to_xml().unwrap(), true).unwrap();
    let up = |mac| fake.domain("node1").unwrap().link_up(mac);
    assert_eq!(
        (up("52:54:00:01:00:0b"), up("52:54:00:02:00:0b")),
        (Some(true), Some(false))
    );
    fake.set_link("node1", "52:54:00:01:00:0b", false).unwrap();
    fake.set_link("node1", "52:54:00:02:00:0b", true).unwrap();
    assert_eq!(
        (up("52:54:00:01:00:0b"), up("52:54:00:02:00:0b")),
        (Some(false), Some(true))
    );
    let live = Described::parse(&fake.xml("node1").unwrap()).unwrap();
    assert_eq!(live, fake.domain("node1").unwrap().described);
    // A checkpoint is of machines with one kind of cable: over the other they would be other machines.
    fake.snapshot("node1", &dir.path().join("memory"), &[]).unwrap();
    fake.destroy("node1").unwrap();
    let other = Machine {
        disks: Vec::new(),
        ..machine("node1")
    };
    assert!(
        fake.restore(&dir.path().join("memory"), &other.to_xml().unwrap())
            .is_err()
    );
    fake.restore(&dir.path().join("memory"), &m.to_xml().unwrap()).unwrap();
}

#[test]
fn a_snapshot_layers_the_disks_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |f: &str| dir.path().join(f);
    let fake = started("node1");
    let layers = [("vda".to_owned(), at("a")), ("vdb".to_owned(), at("b"))];
    assert!(fake.snapshot("node1", &at("memory"), &layers).is_err(), "it runs");
    fake.suspend("node1").unwrap();
    assert!(
        fake.snapshot("node1", &at("memory"), &layers).is_err(),
        "no overlays were made"
    );
    std::fs::write(at("a"), "").unwrap();
    std::fs::write(at("b"), "").unwrap();
    fake.snapshot("node1", &at("memory"), &layers).unwrap();
    let live = Described::parse(&fake.xml("node1").unwrap()).unwrap();
    assert_eq!(live.devices.disk[0].source.file, at("a").display().to_string());
    assert!(live.devices.disk[2].shareable.is_some());
    fake.destroy("node1").unwrap();
    let mut again = machine("node1");
    again.disks[0].path = at("other");
    fake.restore(&at("memory"), &again.to_xml().unwrap()).unwrap();
    assert_eq!(fake.domain("node1").unwrap().state, DomainState::Paused);
    fake.destroy("node1").unwrap();
    again.ports.pop();
    assert!(
        fake.restore(&at("memory"), &again.to_xml().unwrap()).is_err(),
        "another shape"
    );
    std::fs::write(at("memory"), "damaged").unwrap();
    assert!(
        fake.restore(&at("memory"), &machine("node1").to_xml().unwrap())
            .is_err()
    );
}

#[test]
fn agents_answer_what_they_are_told() {
    let fake = started("node1");
    let ask = |c: &str| fake.agent("node1", c, Duration::from_secs(1));
    ask(r#"{"execute":"guest-ping"}"#).unwrap();
    assert!(ask(r#"{"execute":"guest-exec"}"#).is_err());
    fake.on_agent(|node, _| Ok(format!(r#"{{"return":"{node}"}}"#)));
    assert_eq!(ask("x").unwrap(), r#"{"return":"node1"}"#);
    fake.on_agent(|_, _| Ok("garbage".into()));
    assert!(ask("x").is_err());
}
