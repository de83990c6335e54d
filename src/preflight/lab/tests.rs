//! Each check fires on what it is for and on nothing else, and a lab that is well has no finding.

use super::facts::{Facts, NodeFacts, Ping};
use super::gather::{Asked, gather, parse};
use super::{CHECKS, Found, Report, ids, judge};
use crate::deploy::RenderedFile;
use crate::guest::credentials::names;
use crate::guest::fake::FakeRemote;
use crate::spec::{Lab, NetworkRole, example};
use crate::verify::{Observation, sample};
use crate::wait::Deadline;
use ccr_contract::status::{CopyStatus, Intent, MemberState, Network, Path, ServiceState, Status};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A lab as it was seen; tests change a word of it.
struct World {
    lab: Lab,
    nodes: BTreeMap<String, Result<NodeFacts, String>>,
    said: Observation,
}

impl World {
    /// All is well.
    fn well() -> Self {
        let lab = example("ccr");
        let nodes = lab.nodes.iter().enumerate();
        let seen = nodes.map(|(i, n)| (n.name.to_string(), Ok(facts(&lab, i)))).collect();
        let mut said = sample::observation(&lab, 0, "node1", 5, 5);
        for status in said.nodes.values_mut().filter_map(|n| n.status.as_mut()) {
            if let Some(cluster) = &mut status.cluster {
                cluster.networks = lab.networks.iter().map(network).collect();
                cluster.quorum_owner = Some("node1".into());
            }
        }
        Self { lab, nodes: seen, said }
    }
    fn judged(&self) -> Vec<Found> {
        judge(&Facts {
            lab: &self.lab,
            looks: self.said.looks(&self.lab),
            nodes: self.nodes.clone(),
        })
    }
    fn node(&mut self, name: &str) -> &mut NodeFacts {
        self.nodes.get_mut(name).unwrap().as_mut().unwrap()
    }
    fn status(&mut self, name: &str) -> &mut Status {
        self.said.nodes.get_mut(name).unwrap().status.as_mut().unwrap()
    }
}

/// A network as a member has it.
fn network(n: &crate::spec::Network) -> Network {
    let path = |from: &str, to: &str| Path {
        from: from.into(),
        to: to.into(),
        up: Some(true),
    };
    Network {
        name: n.name.to_string(),
        role: n.role,
        paths: vec![path("node1", "node2"), path("node2", "node1")],
    }
}

fn facts(lab: &Lab, i: usize) -> NodeFacts {
    let node = &lab.nodes[i];
    let ports = || node.nics.iter();
    let data = |path: &str| (path.to_owned(), "/dev/vdb".to_owned());
    let pings = ports().flat_map(|p| {
        let others = lab.nodes.iter().filter(|n| n.name != node.name);
        others.filter_map(|n| n.address(&p.network))
    });
    NodeFacts {
        machine_id: Some(format!("{i:032x}")),
        links: Some(
            ports()
                .map(|p| (p.interface.clone(), (p.mac.to_string(), 1500)))
                .collect(),
        ),
        addresses: Some(ports().map(|p| (p.interface.clone(), p.address, 24)).collect()),
        routes: Some(vec![
            "10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15".into(),
        ]),
        mounts: Some([("/".to_owned(), "/dev/vda".to_owned()), data("/data")].into()),
        uuids: Some(
            [
                ("/dev/vda".to_owned(), "00-same".to_owned()),
                ("/dev/vdb".into(), format!("01-{i}")),
            ]
            .into(),
        ),
        space: Some(("/data".into(), 2 << 30)),
        names: Some(names(lab).into_iter().map(|(n, a)| (n, [a].into())).collect()),
        changed: Some(Vec::new()),
        packages: Some([("samba".to_owned(), "2:4.17".to_owned())].into()),
        watchdogs: Some([("ccrd.service".to_owned(), true)].into()),
        pings: pings
            .map(|to| Ping {
                to,
                small: true,
                large: true,
            })
            .collect(),
        claimed: [(
            lab.runtime.as_ref().unwrap().service.as_ref().unwrap().address,
            ["52:54:00:01:00:01".to_owned()].into(),
        )]
        .into(),
        clock: Some((12, 40)),
    }
}

/// Ids of what is found, each once.
fn found(w: &World) -> Vec<String> {
    let ids: BTreeSet<String> = w.judged().into_iter().map(|f| f.id).collect();
    ids.into_iter().collect()
}

type Change = fn(&mut World);

/// For each check what makes it fire.
const FIRES: &[(&str, Change)] = &[
    ("not-seen", |w| {
        drop(w.nodes.insert("hub".into(), Err("no answer".into())))
    }),
    ("not-seen", |w| w.node("node1").routes = None),
    ("not-seen", |w| {
        drop(w.node("node1").uuids.as_mut().unwrap().remove("/dev/vdb"))
    }),
    ("not-seen", |w| drop(w.nodes.remove("node2"))),
    ("machine-id", |w| {
        w.node("hub").machine_id = w.node("node1").machine_id.clone()
    }),
    ("machine-id", |w| w.node("hub").machine_id = Some(String::new())),
    ("mounted-twice", |w| {
        w.node("node2").uuids = w.node("node1").uuids.clone()
    }),
    ("data-on-boot-disk", |w| {
        w.node("node2").space = Some(("/".into(), 2 << 30))
    }),
    ("space", |w| w.node("node2").space = Some(("/data".into(), 100 << 20))),
    ("clock", |w| w.node("node2").clock = Some((-3_600_000, 40))),
    ("packages", |w| {
        drop(w.node("node2").packages.as_mut().unwrap().remove("samba"))
    }),
    ("packages", |w| {
        drop(
            w.node("node1")
                .packages
                .as_mut()
                .unwrap()
                .insert("samba".into(), "2:4.18".into()),
        )
    }),
    ("configuration", |w| {
        w.node("node2").changed = Some(vec![("/etc/ccrd/ccrd.toml".into(), "`a` is missing".into())])
    }),
    ("watchdog", |w| {
        w.node("node1").watchdogs = Some([("ccrd.service".to_owned(), false)].into())
    }),
    ("same-mac", |w| w.node("node2").links = w.node("node1").links.clone()),
    ("same-mac", |w| {
        drop(w.node("node2").links.as_mut().unwrap().remove("eth2"))
    }),
    ("addresses", |w| w.node("node2").addresses.as_mut().unwrap()[0].2 = 16),
    ("addresses", |w| {
        drop(w.node("node2").addresses.as_mut().unwrap().remove(1))
    }),
    ("addresses", |w| {
        let foreign = ("eth1".to_owned(), [10, 77, 1, 99].into(), 24);
        w.node("node1").addresses.as_mut().unwrap().push(foreign);
    }),
    ("route", |w| {
        w.node("node1")
            .routes
            .as_mut()
            .unwrap()
            .push("default via 10.77.2.1 dev eth2".into())
    }),
    ("route", |w| {
        w.node("node1")
            .routes
            .as_mut()
            .unwrap()
            .push("blackhole 10.77.2.12".into())
    }),
    ("route", |w| {
        w.node("hub")
            .routes
            .as_mut()
            .unwrap()
            .push("10.77.2.0/24 via 10.77.1.11 dev eth1".into())
    }),
    ("mtu", |w| {
        w.node("node1").links.as_mut().unwrap().get_mut("eth2").unwrap().1 = 1400
    }),
    ("mtu", |w| w.node("node1").pings[0].large = false),
    ("path", |w| {
        (w.node("hub").pings[1].small, w.node("hub").pings[1].large) = (false, false)
    }),
    ("path", |w| {
        let silent = Path {
            from: "node1".into(),
            to: "node2".into(),
            up: Some(false),
        };
        w.status("node2").cluster.as_mut().unwrap().networks[1].paths = vec![silent];
    }),
    ("names", |w| {
        drop(
            w.node("hub")
                .names
                .as_mut()
                .unwrap()
                .insert("node2".into(), [[10, 77, 2, 12].into()].into()),
        )
    }),
    ("names", |w| drop(w.node("hub").names.as_mut().unwrap().remove("exmbx"))),
    ("squatter", |w| {
        let claimed = w.node("hub").claimed.values_mut().next().unwrap();
        claimed.insert("52:54:00:01:00:02".into());
    }),
    ("no-runtime", |w| w.said.nodes.get_mut("hub").unwrap().status = None),
    ("members", |w| {
        w.status("node1").cluster.as_mut().unwrap().members[1].state = MemberState::Down
    }),
    ("members", |w| {
        drop(w.status("node2").cluster.as_mut().unwrap().members.remove(0))
    }),
    ("witness-not-in-force", |w| {
        w.status("node1")
            .cluster
            .as_mut()
            .unwrap()
            .witness
            .as_mut()
            .unwrap()
            .configured = r"\\hub\else".into();
    }),
    ("witness-unreachable", |w| probe_fails(w, "connection refused")),
    ("witness-rights", |w| {
        probe_fails(w, "open: STATUS_ACCESS_DENIED during Create")
    }),
    ("no-witness", |w| {
        for node in ["node1", "node2"] {
            let cluster = w.status(node).cluster.as_mut().unwrap();
            (cluster.witness, cluster.votes.total) = (None, 2);
        }
    }),
    ("one-heartbeat-path", |w| {
        w.lab.networks[0].role = NetworkRole::Client;
        w.status("node1").cluster.as_mut().unwrap().networks[0].role = NetworkRole::Client;
        w.status("node2").cluster.as_mut().unwrap().networks[0].role = NetworkRole::Client;
    }),
    ("service-offline", |w| {
        for node in ["node1", "node2"] {
            w.status(node).service.as_mut().unwrap().state = ServiceState::Offline;
        }
    }),
    ("copy", |w| {
        w.status("node2")
            .copies
            .iter_mut()
            .for_each(|c| c.status = CopyStatus::Suspended)
    }),
    ("settings", |w| w.lab.networks[1].role = NetworkRole::Mixed),
    ("versions", |w| w.status("node2").version = "0.0.9".into()),
];

fn probe_fails(w: &mut World, why: &str) {
    let witness = w.status("node1").cluster.as_mut().unwrap().witness.as_mut().unwrap();
    let probe = witness.probed_by.get_mut("node1").unwrap();
    (probe.ok, probe.error) = (false, Some(why.into()));
}

#[test]
fn a_lab_that_is_well_has_no_finding() {
    assert_eq!(World::well().judged(), []);
}

#[test]
fn each_check_fires_alone() {
    for (id, change) in FIRES {
        let mut w = World::well();
        change(&mut w);
        assert_eq!(found(&w), [*id], "{:#?}", w.judged());
    }
    let fired: BTreeSet<&str> = FIRES.iter().map(|f| f.0).collect();
    // This one needs another: one network that carries heartbeats.
    let rest: Vec<&str> = ids().into_iter().filter(|id| !fired.contains(id)).collect();
    assert_eq!(rest, ["owner-elsewhere"]);
    let mut w = World::well();
    for (_, change) in FIRES.iter().filter(|f| f.0 == "one-heartbeat-path") {
        change(&mut w);
    }
    for node in ["node1", "node2"] {
        w.status(node).cluster.as_mut().unwrap().quorum_owner = Some("node2".into());
    }
    assert_eq!(found(&w), ["one-heartbeat-path", "owner-elsewhere"]);
}

#[test]
fn what_comes_close_is_no_finding() {
    let mut w = World::well();
    // Both machines began from one image; an address moves; a clock was looked at slowly; a name has its own address.
    w.node("node1")
        .addresses
        .as_mut()
        .unwrap()
        .push(("eth1".into(), [10, 77, 1, 21].into(), 24));
    w.node("node2").clock = Some((2300, 400));
    w.node("node2")
        .routes
        .as_mut()
        .unwrap()
        .push("10.77.1.0/24 dev eth1 proto kernel scope link src 10.77.1.12".into());
    w.status("node1").cluster.as_mut().unwrap().quorum_owner = Some("node2".into());
    w.status("node2").cluster.as_mut().unwrap().quorum_owner = Some("node2".into());
    assert_eq!(w.judged(), []);
}

/// What else is so because of it.
#[test]
fn a_thing_is_found_once() {
    let mut w = World::well();
    // A member whose runtime was stopped sends no heartbeats, and its unit has no watchdog to tell of.
    let cluster = w.status("node1").cluster.as_mut().unwrap();
    let paths = cluster.networks.iter_mut().flat_map(|n| &mut n.paths);
    paths.filter(|p| p.from == "node2").for_each(|p| p.up = Some(false));
    assert_eq!(found(&w), ["path"]);
    w.said.nodes.get_mut("node2").unwrap().status = None;
    assert_eq!(found(&w), ["no-runtime"]);
    // A service that was stopped has stopped its copies; one that failed has not.
    let mut w = World::well();
    let set = |w: &mut World, intent| {
        for node in ["node1", "node2"] {
            let status = w.status(node);
            let service = status.service.as_mut().unwrap();
            (service.state, service.intent) = (ServiceState::Offline, intent);
            status.copies.iter_mut().for_each(|c| c.status = CopyStatus::Stopped);
        }
    };
    set(&mut w, Intent::Stopped);
    assert_eq!(found(&w), ["service-offline"]);
    set(&mut w, Intent::Started);
    assert_eq!(found(&w), ["copy", "service-offline"]);
}

#[test]
fn what_is_on_purpose_is_told_and_counts_for_nothing() {
    let mut w = World::well();
    probe_fails(&mut w, "connection refused");
    let report = |w: &World| Report {
        schema: 1,
        lab: "ccr".into(),
        mutations: vec!["M15 (nobody looks)".into()],
        checks: CHECKS.len(),
        seconds: 2.5,
        found: w.judged(),
    };
    assert_eq!(report(&w).exit_code(), 1);
    w.lab.on_purpose = vec!["witness-unreachable".into()];
    let told = report(&w);
    assert_eq!(told.exit_code(), 0);
    assert!(told.found[0].on_purpose);
    insta::assert_snapshot!(told.to_string());
    w.node("hub").routes = None;
    assert_eq!(report(&w).exit_code(), 3);
}

/// As a machine prints it.
const SAID: &str = "\
## machine-id
8c7b9a
## links
eth0 52:54:00:ff:00:01 1500
eth1 52:54:00:01:00:01 1500
## addresses
2: eth1    inet 10.77.1.11/24 brd 10.77.1.255 scope global eth1\\       valid_lft forever preferred_lft forever
## routes
10.77.1.0/24 dev eth1 proto kernel scope link src 10.77.1.11 
## mounts
proc /proc proc rw 0 0
/dev/vda / ext4 rw,relatime 0 0
/dev/vdb /data ext4 rw,relatime 0 0
## uuids
/dev/vda: UUID=\"00-11\"
/dev/vdb: UUID=\"0d6c-11\"
## space
Mounted on      Avail
/data      2040373248
## names
10.77.1.11      STREAM node1
10.77.1.11      DGRAM  
10.77.1.11      RAW    
10.77.1.21      STREAM exmbx
## files
/etc/a.toml:x = 1
/etc/a.toml:y = 3
## packages
Package: samba
Status: install ok installed
Version: 2:4.17
Package: gone
Status: deinstall ok config-files
Version: 1
## units
WatchdogUSec=9s
Id=ccrd.service
ActiveState=active

WatchdogUSec=infinity
Id=other.service
ActiveState=active

WatchdogUSec=infinity
Id=stopped.service
ActiveState=inactive
## pings
ping 10.77.1.12 yes no
ARPING 10.77.1.21 from 10.77.1.10 eth1
Unicast reply from 10.77.1.21 [52:54:00:01:00:01]  0.9ms
Unicast reply from 10.77.1.21 [52:54:00:01:00:0B]  1.2ms
";

fn asked() -> Asked {
    let file = |path: &str, content: &str| RenderedFile {
        owner: None,
        path: path.into(),
        mode: 0o644,
        content: content.into(),
    };
    Asked {
        files: vec![file("/etc/a.toml", "x = 1\ny = 2\n"), file("/etc/b", "z\n")],
        names: ["node1".to_owned(), "exmbx".to_owned()].into(),
        pings: vec![([10, 77, 1, 12].into(), 1500)],
        claims: vec![("eth1".into(), [10, 77, 1, 21].into())],
        folder: "/data/ccrd".into(),
        units: vec!["ccrd.service".into()],
        packages: true,
    }
}

#[test]
fn what_a_machine_says_is_read() {
    insta::assert_debug_snapshot!(parse(SAID, &asked()));
}

#[test]
fn a_part_that_failed_is_unknown_and_not_empty() {
    let said = SAID
        .replace("## routes\n", "## failed routes\n## routes\n")
        .replace("## names", "## failed names");
    let facts = parse("## routes\nhalf a line\n## failed routes\n## links\n", &asked());
    assert_eq!((facts.routes, facts.names), (None, None));
    assert_eq!(facts.links, Some(BTreeMap::new()));
    assert_eq!(parse(&said, &asked()).names, None);
}

#[test]
fn a_look_is_the_time_and_one_command_of_arguments() {
    let lab = example("ccr");
    let mut asked = Asked::of(&lab, &lab.nodes[2]);
    asked.folder = "/var/lib/ccrd".into();
    let mut remote = FakeRemote::new().answer(&["date"], 0, "0\n").answer(&["nice"], 0, SAID);
    let facts = gather(&mut remote, &asked, Deadline::after(Duration::from_secs(5))).unwrap();
    assert!(facts.clock.unwrap().0 < -1_000_000, "1970");
    assert_eq!(
        remote.commands.len(),
        2,
        "the fake has no agent: its time is a command as well"
    );
    let words: Vec<&str> = remote.commands[1].argv[7..].iter().map(String::as_str).collect();
    for word in [
        "name:exmbx",
        "name:node2-private",
        "ping:10.77.1.11:1472",
        "claim:eth1:10.77.1.21",
        "folder:/var/lib/ccrd",
    ] {
        assert!(words.contains(&word), "{word}: {words:?}");
    }
    assert!(
        !words.iter().any(|w| w.contains("10.77.2.")),
        "the hub is not on the private network"
    );
    // Whoever serves asks as well: it hears nobody, and need not be known before the look.
    assert_eq!(Asked::of(&lab, &lab.nodes[0]).claims.len(), 2);
}

proptest! {
    #[test]
    fn whatever_a_machine_says_is_no_panic(said in "(## [a-z]{0,8}\n|failed |[ -~]{0,40}\n|/etc/a.toml:|ping |reply from |\\[|\\]|:|/|é){0,30}") {
        let mut w = World::well();
        *w.node("node1") = parse(&said, &asked());
        for f in w.judged() {
            prop_assert!(!f.seen.is_empty() && !f.on.is_empty());
        }
    }
}
