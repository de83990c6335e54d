//! One look into a machine: its clock by the agent, the rest by one program of programs that every image has. Nothing is written.

use super::facts::{NodeFacts, Ping};
use crate::deploy::RenderedFile;
use crate::error::Result;
use crate::guest::{Command, Remote};
use crate::spec::{Lab, Node, NodeRole};
use crate::wait::Deadline;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

/// IPv4 and ICMP headers of an echo request.
const HEADERS: u32 = 28;

/// Where Debian keeps what is installed.
const PACKAGES: &str = "/var/lib/dpkg/status";

/// What is asked of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Names to look up.
    pub names: BTreeSet<String>,
    /// Addresses to send echo requests to, and the largest packet of their network.
    pub pings: Vec<(Ipv4Addr, u16)>,
    /// Addresses that belong to nobody but whoever serves: port and address.
    pub claims: Vec<(String, Ipv4Addr)>,
    /// The runtime's folder.
    pub folder: String,
    /// What the lab file makes of the runtime's files; without those that are secret.
    pub files: Vec<RenderedFile>,
    /// The runtime's units.
    pub units: Vec<String>,
    /// Whether its packages are compared with those of another machine.
    pub packages: bool,
}

impl Asked {
    /// What belongs to the network; the runtime's part is added by who knows the pack.
    pub fn of(lab: &Lab, node: &Node) -> Self {
        let mut asked = Self {
            packages: node.role == Some(NodeRole::Member),
            ..Self::default()
        };
        for nic in &node.nics {
            let mtu = lab.network(&nic.network).map_or(1500, |n| n.mtu);
            let others = lab.nodes.iter().filter(|n| n.name != node.name);
            asked
                .pings
                .extend(others.filter_map(|n| Some((n.address(&nic.network)?, mtu))));
        }
        asked.names = crate::guest::credentials::names(lab).into_keys().collect();
        let ends = lab.runtime.iter().flat_map(|r| r.endpoints());
        for end in ends {
            let port = node.nics.iter().find(|n| {
                let network = lab.network(&n.network);
                network.is_some_and(|n| n.subnet.has_host(end.address))
            });
            asked.claims.extend(port.map(|n| (n.interface.clone(), end.address)));
        }
        asked
    }

    /// The arguments of [`LOOK`].
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = |kind: &str, rest: String| words.push(format!("{kind}:{rest}"));
        self.names.iter().for_each(|n| word("name", n.clone()));
        self.files.iter().for_each(|f| word("file", f.path.clone()));
        self.units.iter().for_each(|u| word("unit", u.clone()));
        if !self.folder.is_empty() {
            word("folder", self.folder.clone());
        }
        if self.packages {
            word("packages", PACKAGES.to_owned());
        }
        for (address, mtu) in &self.pings {
            word("ping", format!("{address}:{}", u32::from(*mtu).saturating_sub(HEADERS)));
        }
        for (port, address) in &self.claims {
            word("claim", format!("{port}:{address}"));
        }
        words
    }
}

/// Looks into a machine.
///
/// # Errors
/// It does not answer, or not as a machine of a lab does.
pub fn gather(remote: &mut dyn Remote, asked: &Asked, deadline: Deadline) -> Result<NodeFacts> {
    let (asked_ms, clock_ms, answered_ms) = (now_ms(), remote.time(deadline)?.as_millis(), now_ms());
    // Whoever serves goes first.
    let argv = ["nice", "-n", "19", "sh", "-c", LOOK, "sh"]
        .map(str::to_owned)
        .into_iter()
        .chain(asked.words());
    let text = remote
        .exec(&Command::new(argv), deadline)?
        .check_text("look into the machine", "its state")?;
    let half = (answered_ms - asked_ms) / 2;
    let offset = i64::try_from(clock_ms).map(|ms| (ms - asked_ms - half, half + 1));
    Ok(NodeFacts {
        clock: offset.ok(),
        ..parse(&text, asked)
    })
}

/// The workstation's time of day, in milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as i64)
}

/// Sections, each after a line `## NAME`; one whose program failed is not there.
fn sections(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut at = None;
    for line in text.lines() {
        match line.strip_prefix("## ") {
            Some(failed) if failed.starts_with("failed ") => {
                all.remove(&failed["failed ".len()..]);
                at = None;
            }
            Some(name) => {
                all.entry(name).or_default();
                at = Some(name);
            }
            None => {
                if let Some(lines) = at.and_then(|name| all.get_mut(name)) {
                    lines.push(line);
                }
            }
        }
    }
    all
}

pub(super) fn parse(text: &str, asked: &Asked) -> NodeFacts {
    let sections = sections(text);
    let section = |name: &str| sections.get(name);
    NodeFacts {
        machine_id: section("machine-id").and_then(|l| l.first()).map(|l| (*l).to_owned()),
        links: section("links").map(|l| l.iter().filter_map(|l| link(l)).collect()),
        addresses: section("addresses").map(|l| l.iter().filter_map(|l| address(l)).collect()),
        routes: section("routes").map(|l| l.iter().map(|l| l.trim().to_owned()).collect()),
        mounts: section("mounts").map(|l| l.iter().filter_map(|l| mount(l)).collect()),
        uuids: section("uuids").map(|l| l.iter().filter_map(|l| uuid(l)).collect()),
        space: section("space").and_then(|l| space(l.last()?)),
        names: section("names").map(|l| names(l)),
        // Where no file is asked for, none has changed.
        changed: section("files")
            .map(|l| changed(l, &asked.files))
            .or_else(|| asked.files.is_empty().then(Default::default)),
        packages: section("packages").map(|l| packages(l)),
        watchdogs: section("units").map(|l| watchdogs(l)),
        pings: section("pings").map(|l| pings(l)).unwrap_or_default(),
        claimed: section("pings").map(|l| claims(l)).unwrap_or_default(),
        clock: None,
    }
}

/// `eth1 52:54:00:01:00:01 1500`.
fn link(line: &str) -> Option<(String, (String, u32))> {
    let mut words = line.split(' ');
    let (name, mac, mtu) = (words.next()?, words.next()?, words.next()?);
    Some((name.to_owned(), (mac.to_owned(), mtu.parse().ok()?)))
}

/// `2: eth1    inet 10.77.1.11/24 brd …`.
fn address(line: &str) -> Option<(String, Ipv4Addr, u8)> {
    let mut words = line.split_ascii_whitespace();
    let port = words.nth(1)?.split('@').next()?;
    let (address, prefix) = words.find(|w| w.contains('/'))?.split_once('/')?;
    Some((port.to_owned(), address.parse().ok()?, prefix.parse().ok()?))
}

/// `/dev/vdb /data ext4 rw 0 0`; of two that are mounted at one place the last one.
fn mount(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    let device = words.next().filter(|d| d.starts_with("/dev/"))?;
    Some((words.next()?.to_owned(), device.to_owned()))
}

/// `/dev/vdb: UUID="0d6c…-…"`.
fn uuid(line: &str) -> Option<(String, String)> {
    let (device, uuid) = line.split_once(": UUID=\"")?;
    Some((device.to_owned(), uuid.trim_end().strip_suffix('"')?.to_owned()))
}

/// `/data 2040373248`, as df has it.
fn space(line: &str) -> Option<(String, u64)> {
    let (place, free) = line.trim().rsplit_once(' ')?;
    Some((place.trim().to_owned(), free.parse().ok()?))
}

/// `10.77.1.11 STREAM node1`, then lines without the name.
fn names(lines: &[&str]) -> BTreeMap<String, BTreeSet<Ipv4Addr>> {
    let mut all: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    let mut of = None;
    for line in lines {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        of = words.get(2).copied().or(of);
        if let (Some(name), Some(Ok(address))) = (of, words.first().map(|w| w.parse())) {
            all.entry(name.to_owned()).or_default().insert(address);
        }
    }
    all
}

/// `/etc/ccrd/ccrd.toml:node = "node1"` for each line of each file.
fn changed(lines: &[&str], files: &[RenderedFile]) -> Vec<(String, String)> {
    let differs = |file: &RenderedFile| {
        let prefix = format!("{}:", file.path);
        let mut there = lines.iter().filter_map(|l| l.strip_prefix(prefix.as_str()));
        let mut right = file.content.lines();
        loop {
            return match (there.next(), right.next()) {
                (None, None) => None,
                (a, b) if a == b => continue,
                (Some(a), Some(b)) => Some(format!("`{}` where `{}` belongs", a.trim(), b.trim())),
                (Some(a), None) => Some(format!("`{}` is too much", a.trim())),
                (None, Some(b)) => Some(format!("`{}` is missing", b.trim())),
            };
        }
    };
    files
        .iter()
        .filter_map(|f| Some((f.path.clone(), differs(f)?)))
        .collect()
}

/// `Package:`, `Status:` and `Version:` of each, as dpkg keeps them.
fn packages(lines: &[&str]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let (mut name, mut installed) = ("", false);
    for line in lines {
        match line.split_once(": ") {
            Some(("Package", value)) => (name, installed) = (value, false),
            Some(("Status", value)) => installed = value == "install ok installed",
            Some(("Version", value)) if installed => drop(all.insert(name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    all
}

/// `WatchdogUSec=9s`, `Id=ccrd.service` and `ActiveState=active`, in the order that systemctl has. One that does not run has no watchdog
/// to tell of: it is left out.
fn watchdogs(lines: &[&str]) -> BTreeMap<String, bool> {
    let mut all = BTreeMap::new();
    for unit in lines.split(|l| l.is_empty()) {
        let value = |key: &str| unit.iter().find_map(|l| l.strip_prefix(key));
        let stands_still = matches!(value("ActiveState="), Some("inactive" | "failed"));
        if let (Some(id), Some(watchdog), false) = (value("Id="), value("WatchdogUSec="), stands_still) {
            all.insert(id.to_owned(), !["0", "infinity"].contains(&watchdog));
        }
    }
    all
}

/// `ping 10.77.1.12 yes no`: the small one, the large one.
fn pings(lines: &[&str]) -> Vec<Ping> {
    let ping = |line: &&str| {
        let mut words = line.strip_prefix("ping ")?.split(' ');
        let (to, small, large) = (words.next()?, words.next()?, words.next()?);
        Some(Ping {
            to: to.parse().ok()?,
            small: small == "yes",
            large: large == "yes",
        })
    };
    lines.iter().filter_map(ping).collect()
}

/// `Unicast reply from 10.77.1.21 [52:54:00:01:00:01]  0.9ms`.
fn claims(lines: &[&str]) -> BTreeMap<Ipv4Addr, BTreeSet<String>> {
    let mut all: BTreeMap<Ipv4Addr, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let reply = line.split_once("reply from ").and_then(|(_, rest)| {
            let (address, rest) = rest.split_once(" [")?;
            Some((address.parse().ok()?, rest.split_once(']')?.0.to_lowercase()))
        });
        if let Some((address, mac)) = reply {
            all.entry(address).or_default().insert(mac);
        }
    }
    all
}

/// Sections of what is seen. What waits for answers is begun before all else and heard last. A large echo request that is answered
/// proves the small one.
const LOOK: &str = include_str!("look.sh");
