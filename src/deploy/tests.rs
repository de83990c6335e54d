use super::*;
use crate::error::Error;
use crate::files::Home;
use crate::guest::fake::FakeRemote;
use crate::image::Early;
use crate::spec::{self, Lab, Node};
use crate::wait::Deadline;
use ccr_contract::config::{Config, Dial, Role};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

mod checking;
mod contract;
mod installing;
mod mapping;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

fn ccr() -> (Lab, Pack, Secrets) {
    let lab = spec::example("ccr");
    let secrets = Secrets(BTreeMap::from([("witness".to_owned(), "s3cret".to_owned())]));
    (lab, Pack::load("ccr").unwrap(), secrets)
}

/// Both parts of what `pack` writes into `node`.
fn render(pack: &Pack, lab: &Lab, node: &Node, secrets: &Secrets) -> crate::error::Result<Vec<RenderedFile>> {
    let parts = [Part::Early, Part::Late].map(|part| pack.files(part, lab, node, secrets));
    let all: crate::error::Result<Vec<_>> = parts.into_iter().collect();
    Ok(all?.concat())
}

fn content<'a>(files: &'a [RenderedFile], path: &str) -> &'a str {
    &files
        .iter()
        .find(|f| f.path == path)
        .unwrap_or_else(|| panic!("{path} in {files:?}"))
        .content
}

fn config(node: &str) -> Config {
    let (lab, pack, secrets) = ccr();
    let files = render(&pack, &lab, lab.node(node).unwrap(), &secrets).unwrap();
    let text = content(&files, "/etc/ccrd/ccrd.toml");
    toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn a_members_configuration_says_what_the_lab_file_says() {
    let c = config("node2");
    assert_eq!((c.schema, c.node.as_str(), c.role), (1, "node2", Role::Member));
    assert_eq!(
        (c.cluster.as_str(), c.cluster_address.to_string()),
        ("exmbcluster", "10.77.1.20".into())
    );
    assert_eq!(
        (c.service.as_str(), c.service_address.to_string()),
        ("exmbx", "10.77.1.21".into())
    );
    assert_eq!((c.service_network.as_str(), c.data.as_str()), ("public", "/data/ccrd"));
    let networks: Vec<_> = c
        .networks
        .iter()
        .map(|n| (n.name.as_str(), n.role, n.prefix, n.interface.as_deref()))
        .collect();
    use ccr_contract::status::NetworkRole::{Internal, Mixed};
    assert_eq!(
        networks,
        [
            ("public", Mixed, 24, Some("eth1")),
            ("private", Internal, 24, Some("eth2"))
        ]
    );
    let members: Vec<_> = c.members.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(members, ["node1", "node2"]);
    assert_eq!(c.members[1].addresses["private"].to_string(), "10.77.2.12");
    assert_eq!(c.hubs.len(), 1);
    assert_eq!(c.hubs[0].addresses.len(), 1);
    let witness = c.witness.unwrap();
    assert_eq!(
        (witness.address.to_string(), witness.port, witness.share.as_str()),
        ("10.77.1.10".into(), 445, "witness")
    );
    assert_eq!(
        (witness.path.as_str(), witness.user.as_str()),
        (r"\\hub\witness", "witness")
    );
    let s = c.settings;
    assert_eq!(
        (s.heartbeat_ms, s.node_tolerance, s.interface_tolerance, s.lease_ms),
        (1200, 5, 3, 4500)
    );
    assert_eq!(
        (
            s.arbitration_delay_ms,
            s.witness_check_ms,
            s.idle_roll_ms,
            s.status_probe_ms
        ),
        (1500, 5000, 5000, 2000)
    );
    assert_eq!(
        (s.circular, s.dial, s.dumpster_bytes, s.generation_bytes),
        (true, Dial::BestAvailability, 18_000_000, 1 << 20)
    );
    assert_eq!((s.dumpster_age_ms, s.queue_age_ms), (604_800_000, 172_800_000));
    assert_eq!(s.groups, ["First"]);
}

#[test]
fn the_hubs_configuration_has_no_witness_and_no_interface_it_is_not_on() {
    let c = config("hub");
    assert_eq!((c.role, c.data.as_str()), (Role::Hub, "/var/lib/ccrd"));
    assert_eq!(c.witness, None);
    assert_eq!(c.networks[1].interface, None);
}

#[test]
fn settings_of_the_lab_file_reach_the_runtime() {
    let (mut lab, pack, secrets) = ccr();
    let settings = &mut lab.runtime.as_mut().unwrap().settings;
    settings.insert("heartbeat_ms".into(), 250.into());
    settings.insert("dial".into(), "lossless".into());
    settings.insert("groups".into(), serde_json::json!(["First", "Second"]));
    let files = render(&pack, &lab, &lab.nodes[0], &secrets).unwrap();
    let c: Config = toml::from_str(content(&files, "/etc/ccrd/ccrd.toml")).unwrap();
    assert_eq!(
        (c.settings.heartbeat_ms, c.settings.dial, c.settings.groups.len()),
        (250, Dial::Lossless, 2)
    );
}

/// The unit's `WatchdogSec`, in milliseconds.
fn watchdog(files: &[RenderedFile]) -> u64 {
    let unit = content(files, "/etc/systemd/system/ccrd.service");
    let value = unit
        .lines()
        .find_map(|l| l.strip_prefix("WatchdogSec=")?.strip_suffix("ms"));
    value.unwrap_or_else(|| panic!("{unit}")).parse().unwrap()
}

/// What stands still is found when the cluster would take it for lost, on both nodes and on the hub, and is tried again.
#[test]
fn a_daemon_that_hangs_is_ended_when_its_node_counts_as_lost() {
    let (mut lab, pack, secrets) = ccr();
    for node in &lab.nodes {
        let files = render(&pack, &lab, node, &secrets).unwrap();
        assert_eq!(watchdog(&files), 6000, "{}", node.name);
        let unit = content(&files, "/etc/systemd/system/ccrd.service");
        for line in [
            "Type=notify",
            "Restart=always",
            "WatchdogSignal=SIGKILL",
            "StartLimitIntervalSec=0",
        ] {
            assert!(unit.lines().any(|l| l == line), "{line}: {unit}");
        }
    }
    let settings = &mut lab.runtime.as_mut().unwrap().settings;
    settings.insert("heartbeat_ms".into(), 100.into());
    let files = render(&pack, &lab, &lab.nodes[0], &secrets).unwrap();
    assert_eq!(watchdog(&files), 5000, "however short the heartbeat");
}

/// Only what the lab names becomes longer on a slow host, and the watchdog.
#[test]
fn times_are_scaled_where_the_lab_says_so() {
    let (mut lab, pack, secrets) = ccr();
    let on = |lab: &Lab, slowness: f64| {
        let pack = pack.clone().on_host(crate::wait::Slowness::new(slowness));
        let files = render(&pack, lab, &lab.nodes[0], &secrets).unwrap();
        let config: Config = toml::from_str(content(&files, "/etc/ccrd/ccrd.toml")).unwrap();
        (config.settings, watchdog(&files))
    };
    let (quick, _) = on(&lab, 1.0);
    assert_eq!((quick.witness_timeout_ms, quick.witness_lease_ms), (1000, 2000));
    // Two measurements of one host are never the same.
    for slowness in [1.51, 1.6, 2.0] {
        let (mut slow, watchdog) = on(&lab, slowness);
        assert_eq!(
            (slow.witness_timeout_ms, slow.witness_lease_ms, watchdog),
            (2000, 4000, 12_000)
        );
        (slow.witness_timeout_ms, slow.witness_lease_ms) = (1000, 2000);
        assert_eq!(slow, quick, "nothing else");
    }
    lab.runtime.as_mut().unwrap().scaled.clear();
    assert_eq!(on(&lab, 5.0).0, quick);
}

#[test]
fn secrets_are_only_in_files_closed_to_others_and_in_no_command() {
    let (lab, pack, secrets) = ccr();
    let mut with_secret = Vec::new();
    let hash = crate::guest::template::render_text("x", "{{ 's3cret' | nt_hash }}", &()).unwrap();
    for node in &lab.nodes {
        for file in render(&pack, &lab, node, &secrets).unwrap() {
            if file.content.contains("s3cret") || file.content.contains(&hash) {
                assert_eq!(file.mode, 0o600, "{file:?}");
                with_secret.push((node.name.to_string(), file.path.clone()));
            }
        }
        for part in [Part::Early, Part::Late] {
            assert!(!format!("{:?}", pack.steps(part, &lab, node).unwrap()).contains("s3cret"));
        }
    }
    with_secret.sort();
    let expected = [
        ("hub", "/etc/samba/witness-share.passwd"),
        ("node1", "/etc/ccrd/witness-password"),
        ("node2", "/etc/ccrd/witness-password"),
    ];
    assert_eq!(with_secret, expected.map(|(n, p)| (n.to_owned(), p.to_owned())));
}

#[test]
fn each_role_gets_its_own() {
    let (lab, pack, secrets) = ccr();
    let mut all = String::new();
    for name in ["node1", "hub"] {
        let node = lab.node(name).unwrap();
        let files = render(&pack, &lab, node, &secrets).unwrap();
        // The configuration is compared by its type, above.
        for f in files.iter().filter(|f| f.path != "/etc/ccrd/ccrd.toml") {
            all += &format!("== {name} {} {:04o}\n{}\n", f.path, f.mode, f.content);
        }
        for part in [Part::Early, Part::Late] {
            for (path, to) in pack.links(part, &lab, node).unwrap() {
                all += &format!("== {name} {part:?} {path} -> {to}\n");
            }
            for s in pack.steps(part, &lab, node).unwrap() {
                all += &format!("== {name} {part:?} $ {s:?}\n");
            }
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_share_that_no_network_leads_to_is_an_error() {
    let (mut lab, pack, secrets) = ccr();
    lab.nodes[0].nics.retain(|n| n.network.as_str() == "private");
    let e = render(&pack, &lab, &lab.nodes[0], &secrets).unwrap_err();
    assert!(e.to_string().contains("no network joins the two"), "{e}");
}

#[test]
fn an_unknown_pack_is_a_wrong_use_that_names_the_known_ones() {
    for bad in ["ccrr", "", "..", "../ccr", "a\nb", "guest"] {
        let e = Pack::load(bad).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{bad:?}: {e}");
    }
    assert!(Pack::load("ccrr").unwrap_err().to_string().contains("ccr"));
    assert_eq!(
        names().iter().map(|n| n.as_str()).collect::<Vec<_>>(),
        ["ccr", "sentinel"]
    );
}

const MINIMAL: &str = "schema = 1\ntitle = 't'\n[contract]\nstatus = ['s']\nevents = ['e']\ndump = ['d']\n[workload]\nsubmit = 25\ndeliver = 24\nread = 110\n";

fn parsed(runtime: &str) -> crate::error::Result<Pack> {
    Pack::parse("x".parse().unwrap(), runtime, "", |name| Ok(format!("template {name}")))
}

#[test]
fn a_pack_that_does_not_hold_says_why() {
    parsed(MINIMAL).unwrap();
    for (more, expected) in [
        ("nonsense = 1", "unknown field `nonsense`"),
        ("files = [{ template = 'a', path = 'etc/x' }]", "no absolute path"),
        ("files = [{ template = 'a', path = '/etc/../x' }]", "no absolute path"),
        ("files = [{ template = '../a', path = '/x' }]", "no name of a file"),
        ("files = [{ template = 'a', path = '/x', mode = '999' }]", "is no mode"),
        ("files = [{ template = 'a', path = '/x', mode = '4755' }]", "is no mode"),
        ("steps = [{ run = [] }]", "names no program"),
        ("secrets = ['../x']", "no name"),
        ("places.files = { log = '/etc/shadow' }", "no name below the folder"),
        ("places.files = { log = 'a/../../b' }", "no name below the folder"),
        (
            "places.shares.w = { unit = 'w.service', folder = 'srv' }",
            "no absolute path",
        ),
    ] {
        let e = parsed(&format!("{more}\n{MINIMAL}")).unwrap_err().to_string();
        assert!(e.contains(expected) && e.contains("x/runtime.toml"), "{more}: {e}");
    }
    assert!(
        parsed(&MINIMAL.replace("= 1", "= 3"))
            .unwrap_err()
            .to_string()
            .contains("this tool knows 1 and 2")
    );
    assert!(parsed("").is_err());
}

#[test]
fn where_the_runtime_has_its_files_depends_on_the_node() {
    let (lab, pack, _) = ccr();
    let of = |node: &str| pack.places(&lab, lab.node(node).unwrap()).unwrap();
    assert_eq!(of("node1").folder, "/data/ccrd");
    assert_eq!(of("node1").files["record"], "/data/ccrd/cluster.json");
    assert_eq!(of("hub").files["queue"], "/var/lib/ccrd/queue/*");
    assert_eq!(of("hub").shares["witness"].folder, "/srv/witness");
    let none = parsed(MINIMAL).unwrap().places(&lab, lab.node("hub").unwrap()).unwrap();
    assert!(none.files.is_empty() && none.shares.is_empty());
}

#[test]
fn the_pack_in_the_documentation_holds() {
    let docs = include_str!("../../docs/packs.md");
    let snippets: Vec<&str> = docs
        .split("```toml\n")
        .skip(1)
        .filter_map(|s| s.split("```").next())
        .filter(|s| s.contains("schema = 1"))
        .collect();
    assert_eq!(snippets.len(), 1);
    let (lab, _, secrets) = ccr();
    let pack = parsed(snippets[0]).unwrap();
    let files = |part, node: &str| pack.files(part, &lab, lab.node(node).unwrap(), &secrets).unwrap().len();
    assert_eq!([files(Part::Late, "hub"), files(Part::Late, "node1")], [1, 0]);
    assert_eq!([files(Part::Early, "hub"), files(Part::Early, "node1")], [1, 1]);
    let (_dir, mut a) = artifacts();
    a.programs = BTreeMap::from([("exampled".to_owned(), a.programs["ccrd"].clone())]);
    let mut remote = FakeRemote::new()
        .answer(LOOKS, 0, ports(&lab, ""))
        .answer(INSTALLS, 0, "");
    deploy(
        &mut remote,
        &lab,
        lab.node("hub").unwrap(),
        Some(&pack),
        &a,
        soon(),
        &mut |_| Ok(()),
    )
    .unwrap();
    assert_eq!(remote.commands[1].argv[7..], ["'systemctl' daemon-reload"]);
    assert_eq!(
        remote.commands[2].argv[7..],
        [
            r#"[ -z "$again" ] || 'systemctl' daemon-reload"#,
            "'systemctl' restart exampled.service",
            "exampled-password --from-stdin </etc/exampled.toml",
        ]
    );
}

#[test]
fn a_when_that_cannot_be_judged_is_an_error() {
    let (lab, _, secrets) = ccr();
    for when in ["node.", "nothing.at.all", "node.name |"] {
        let pack = parsed(&format!(
            "files = [{{ template = 'a', path = '/x', when = \"{when}\" }}]\n{MINIMAL}"
        ))
        .unwrap();
        let e = render(&pack, &lab, &lab.nodes[0], &secrets).unwrap_err();
        assert!(e.to_string().contains("x/runtime.toml"), "{e}");
    }
}

proptest! {
    #[test]
    fn a_garbage_pack_never_panics(text in "\\PC{0,200}") {
        let _ = parsed(&text);
        let _ = parsed(&format!("{MINIMAL}{text}"));
    }
}

/// A folder with keys and a program, and what a deployment takes from it.
fn artifacts() -> (tempfile::TempDir, Artifacts) {
    let dir = tempfile::tempdir().unwrap();
    let ccrd = dir.path().join("ccrd");
    std::fs::write(&ccrd, b"\x7fELF a program").unwrap();
    let secrets = dir.path().join("keys");
    (
        dir,
        Artifacts {
            programs: BTreeMap::from([("ccrd".to_owned(), ccrd)]),
            secrets,
        },
    )
}

fn deploy_to(remote: &mut FakeRemote, lab: &Lab, node: &Node, a: &Artifacts) -> crate::error::Result<DeployReport> {
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind).unwrap());
    deploy(remote, lab, node, pack.as_ref(), a, soon(), &mut |_| Ok(()))
}

const LOOKS: &[&str] = &["sh", "-c", install::LOOK];
const INSTALLS: &[&str] = &["sh", "-c", install::INSTALL];

/// What a look at any machine of `lab` finds, with `digest` deployed.
fn ports(lab: &Lab, digest: &str) -> String {
    there(lab, digest, "", "")
}

/// The same with what it began with: the digest of the early part, and the list of programs.
fn there(lab: &Lab, deployed: &str, prepared: &str, programs: &str) -> String {
    let nics = lab.nodes.iter().flat_map(|n| &n.nics);
    let lines: String = nics.map(|n| format!("{} {}\n", n.mac, n.interface)).collect();
    format!("{deployed}\n{prepared}\n{programs}\n{lines}00:00:00:00:00:00 lo\n")
}

/// What is in `node` before its system starts.
fn early_of(lab: &Lab, node: &Node, a: &Artifacts) -> Early {
    early(lab, node, &Pack::load("ccr").unwrap(), a).unwrap().unwrap()
}

/// Its digest.
fn mark(lab: &Lab, node: &Node) -> String {
    early_digest(lab, node, &Pack::load("ccr").unwrap()).unwrap().unwrap()
}

/// What a machine would find in the stream: path → mode and content.
fn unpack(stream: &[u8]) -> BTreeMap<PathBuf, (u32, String)> {
    let zipped = stream.starts_with(&[0x1f, 0x8b]);
    let stream: Box<dyn std::io::Read> = if zipped {
        Box::new(flate2::read::GzDecoder::new(stream))
    } else {
        Box::new(stream)
    };
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().unwrap().map(|e| {
        let mut e = e.unwrap();
        let mut content = String::new();
        match e.link_name().unwrap() {
            Some(to) => content = to.display().to_string(),
            None => drop(std::io::Read::read_to_string(&mut e, &mut content).unwrap()),
        }
        let path = e.path().unwrap().into_owned();
        (path, (e.header().mode().unwrap(), content))
    });
    entries.collect()
}

#[test]
fn a_secret_that_is_not_ours_is_refused() {
    let (_dir, a) = artifacts();
    let pack = Pack::load("ccr").unwrap();
    let made = Secrets::ensure(&pack, &a.secrets).unwrap();
    assert_eq!(Secrets::ensure(&pack, &a.secrets).unwrap(), made);
    assert_eq!(format!("{made:?}"), r#"{"witness"}"#);
    std::fs::write(a.secrets.join("secret-witness"), "short\n").unwrap();
    assert!(
        Secrets::ensure(&pack, &a.secrets)
            .unwrap_err()
            .to_string()
            .contains("not one that failoverlab made")
    );
}

#[test]
fn the_folder_of_keys_is_closed() {
    let (_dir, a) = artifacts();
    Secrets::ensure(&Pack::load("ccr").unwrap(), &a.secrets).unwrap();
    Home::private_dir(&a.secrets).unwrap();
    assert_eq!(
        std::fs::metadata(&a.secrets).unwrap().permissions().mode() & 0o777,
        0o700
    );
}
