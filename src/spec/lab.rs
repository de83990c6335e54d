//! The resolved lab: every default filled in, every address given. What all rooms below the lab file work with.

use super::NetworkRole;
use crate::probe::Probe;
use crate::units::{Name, Size, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A lab, ready to be planned. Order is the lab file's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lab {
    /// Its name.
    pub name: Name,
    /// What a person reads.
    pub title: String,
    /// The networks.
    pub networks: Vec<Network>,
    /// The machines.
    pub nodes: Vec<Node>,
    /// Disks that several machines have open at once.
    pub shared_disks: Vec<SharedDisk>,
    /// SMB shares.
    pub shares: Vec<Share>,
    /// The runtime; none is a lab of bare machines.
    pub runtime: Option<Runtime>,
    /// What healthy means, where there is no runtime to say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What a failover is held against.
    pub limits: Limits,
    /// blake3 of the lab file's text, hexadecimal.
    pub digest: String,
    /// Rules and checks of preflight that it breaks on purpose.
    #[serde(default)]
    pub on_purpose: Vec<String>,
    /// Misconfigurations that are in it on purpose.
    #[serde(default)]
    pub mutations: Vec<Mutation>,
}

/// What healthy means in a lab without a runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Expressions over the probes' answers, each of which must hold.
    pub must: Vec<String>,
    /// Longest that `up` waits for it, on a fast host.
    pub within: Span,
    /// What is asked.
    pub probes: Vec<HealthProbe>,
}

/// A question to machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// The machines that are asked.
    pub on: Vec<Name>,
    /// What each is asked.
    #[serde(flatten)]
    pub probe: Probe,
}

/// A misconfiguration that is in a lab on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// Its id in the catalogue.
    pub id: String,
    /// What a person reads.
    pub title: String,
    /// Whether the lab becomes healthy with it.
    pub healthy: bool,
}

impl std::fmt::Display for Mutation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.id, self.title)
    }
}

/// What a machine takes of the host beside its own memory: QEMU, and the code that it translates under emulation
/// ([`crate::hypervisor::TRANSLATED`]).
const BESIDE_MACHINE: Size = Size::mib(200);
/// What a lab's supervisor takes at most (`supervisor-rest` in docs/bench.md).
const SUPERVISOR: Size = Size::mib(64);

impl Lab {
    /// What the lab takes of the host's memory when it is up.
    pub fn host_memory(&self) -> Size {
        let machines = self.nodes.iter().fold(0u64, |sum, n| {
            sum.saturating_add(n.memory.bytes())
                .saturating_add(BESIDE_MACHINE.bytes())
        });
        Size(machines.saturating_add(SUPERVISOR.bytes()))
    }
    /// Whether something says of it how it is: a runtime, or probes.
    pub fn says_how_it_is(&self) -> bool {
        self.runtime.is_some() || self.health.is_some()
    }
    /// The nodes, each behind those that it waits for; else in the file's order.
    pub fn in_waiting_order(&self) -> Vec<&Node> {
        let mut left: Vec<&Node> = self.nodes.iter().collect();
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let is_left = |name: &Name| left.iter().any(|n| n.name == *name);
            // Where all wait for each other, which a rule refuses, the file's order is as good as any.
            let next = left.iter().position(|n| !n.after.iter().any(is_left)).unwrap_or(0);
            ordered.push(left.remove(next));
        }
        ordered
    }
    /// Whether something is asked on the node: its runtime, or probes.
    pub fn asks(&self, node: &Node) -> bool {
        (self.runtime.is_some() && node.role.is_some()) || self.probes(node).next().is_some()
    }
    /// What the lab file has asked on the node.
    pub fn probes(&self, node: &Node) -> impl Iterator<Item = &Probe> {
        let all = self.health.iter().flat_map(|h| &h.probes);
        all.filter(|p| p.on.contains(&node.name)).map(|p| &p.probe)
    }
    /// Whether it is misconfigured so that it never becomes, or does not stay, healthy.
    pub fn is_unwell(&self) -> bool {
        self.mutations.iter().any(|m| !m.healthy)
    }
    /// The nodes that have something to do once the lab is healthy.
    pub fn with_run_after(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| !n.run_after.is_empty())
    }
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name.as_str() == name)
    }
    /// The network of this name.
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|n| n.name.as_str() == name)
    }
    /// The machine with the share `witness`, the third vote.
    pub fn witness(&self) -> Option<&str> {
        let share = self.shares.iter().find(|s| s.name.as_str() == "witness");
        share.map(|s| s.host.as_str())
    }
    /// The nodes of this role.
    pub fn with_role(&self, role: NodeRole) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |n| n.role == Some(role))
    }
}

/// A lab network: one Ethernet segment of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: Name,
    /// Its subnet.
    pub subnet: Subnet,
    /// What it may carry.
    pub role: NetworkRole,
    /// Whether machines reach the internet through it.
    pub internet: bool,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The workstation's own address on it (the subnet's second host address).
    pub workstation: Ipv4Addr,
}

/// An IPv4 subnet, written `10.77.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    /// Network address.
    pub base: Ipv4Addr,
    /// Length of the prefix, 8 to 29.
    pub prefix: u8,
}

/// What a machine does in a failover lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// One of the cluster's members.
    Member,
    /// Transport, and usually host of the witness share.
    Hub,
    /// It votes, and never has the service.
    Arbiter,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, also its host name.
    pub name: Name,
    /// Its role; none in a lab without a runtime.
    pub role: Option<NodeRole>,
    /// The image's name: `debian-12`.
    pub image: Name,
    /// Memory.
    pub memory: Size,
    /// Processors.
    pub vcpus: u8,
    /// Its ports on lab networks, in order: the guest sees eth1, eth2 … (eth0 is the tool's `mgmt`).
    pub nics: Vec<Nic>,
    /// MAC of the `mgmt` port, which belongs to the tool and is in no rendered configuration of the lab.
    pub mgmt_mac: Mac,
    /// Its own data disks, in order.
    pub disks: Vec<LocalDisk>,
    /// Further Debian packages, which go into the image.
    pub packages: Vec<String>,
    /// Files to write before the first boot: path in the guest → file.
    pub files: BTreeMap<String, NodeFile>,
    /// Commands to run once, in order, after the first boot; each an argument vector.
    pub run: Vec<Vec<String>>,
    /// Machines whose commands, and runtime, are there before its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Name>,
    /// The same, when the runtime's files are there, before its own commands.
    #[serde(default)]
    pub run_before: Vec<Vec<String>>,
    /// The same, when the lab is healthy for the first time.
    #[serde(default)]
    pub run_after: Vec<Vec<String>>,
}

/// A file of the lab file's in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenFile")]
pub struct NodeFile {
    /// Its text.
    pub text: String,
    /// Whether the text is a template.
    pub template: bool,
    /// Its permissions.
    pub mode: u32,
    /// Its user and its group.
    pub owner: (String, String),
    /// Whether it is written only where there is none.
    pub once: bool,
}

/// As a record has it; one of before has the text alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenFile {
    Plain(String),
    Whole {
        text: String,
        template: bool,
        mode: u32,
        owner: (String, String),
        once: bool,
    },
}

impl From<WrittenFile> for NodeFile {
    fn from(file: WrittenFile) -> Self {
        match file {
            WrittenFile::Plain(text) => text.into(),
            WrittenFile::Whole {
                text,
                template,
                mode,
                owner,
                once,
            } => Self {
                text,
                template,
                mode,
                owner,
                once,
            },
        }
    }
}

/// A file of root's that everybody may read, written at every boot.
impl From<String> for NodeFile {
    fn from(text: String) -> Self {
        Self {
            text,
            template: false,
            mode: 0o644,
            owner: ("root".into(), "root".into()),
            once: false,
        }
    }
}

impl Node {
    /// Whether the lab file has commands for it that belong to what is deployed.
    pub fn has_commands(&self) -> bool {
        !self.run.is_empty() || !self.run_before.is_empty()
    }
    /// Its address on `network`.
    pub fn address(&self, network: &str) -> Option<Ipv4Addr> {
        self.nics
            .iter()
            .find(|n| n.network.as_str() == network)
            .map(|n| n.address)
    }
}

/// A machine's port on a lab network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    /// The network.
    pub network: Name,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC.
    pub mac: Mac,
    /// Name of the interface in the guest, `eth1`.
    pub interface: String,
}

/// An Ethernet address, written `52:54:00:01:00:0b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// Name of the disk that a machine boots from, among its local disks. No disk of a lab file may have it.
pub const ROOT_DISK: &str = "root";

/// A disk of one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalDisk {
    /// Its name; mounted at `/NAME` by the pack or found by its serial.
    pub name: Name,
    /// Its size.
    pub size: Size,
    /// Its serial in the guest.
    pub serial: String,
}

/// A disk that several machines have open at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedDisk {
    /// Its name.
    pub name: Name,
    /// Its size.
    pub size: Size,
    /// The machines.
    pub shared_by: Vec<Name>,
    /// Its serial in each of them.
    pub serial: String,
}

/// An SMB share on one of the machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its name.
    pub name: Name,
    /// The machine that serves it.
    pub host: Name,
}

/// The runtime to deploy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// The pack: `ccr`.
    pub kind: Name,
    /// The Cluster Group, where the pack moves addresses.
    pub cluster: Option<Endpoint>,
    /// The service group, where the pack moves addresses.
    pub service: Option<Endpoint>,
    /// What the pack declares as settings, defaults filled in. Spans are milliseconds, sizes bytes.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Those of them that are multiplied by the slowness of the host.
    #[serde(default)]
    pub scaled: Vec<String>,
}

impl Runtime {
    /// Service and cluster, where they have addresses that move.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.service.iter().chain(&self.cluster)
    }
    /// What the members are together: the cluster's name, else the pack's.
    pub fn name(&self) -> &str {
        self.cluster.as_ref().map_or(self.kind.as_str(), |c| &c.name)
    }
}

/// A name with an address that moves with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The name.
    pub name: Name,
    /// The address.
    pub address: Ipv4Addr,
}

/// What I8 and the benchmarks hold a failover against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// From the fault until the survivor knows.
    pub detect: Span,
    /// From then until the survivor may serve.
    pub arbitrate: Span,
    /// From then until its first answer.
    pub mount: Span,
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{}` is no Ethernet address", s.escape_debug());
        let mut mac = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut mac {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(Mac(mac))
        }
    }
}

impl Subnet {
    /// Whether `a` is a host address of this subnet (not its first, not its last).
    pub fn has_host(self, a: Ipv4Addr) -> bool {
        let (a, first) = (u32::from(a), u32::from(self.base));
        first < a && a < self.last()
    }
    /// The `n`th address counted from the subnet's first; outside it where the subnet is smaller.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(n))
    }
    /// Whether the two share an address.
    pub fn overlaps(self, other: Subnet) -> bool {
        u32::from(self.base) <= other.last() && u32::from(other.base) <= self.last()
    }
    /// Its broadcast address.
    fn last(self) -> u32 {
        u32::from(self.base) | self.host_bits()
    }
    fn host_bits(self) -> u32 {
        u32::MAX >> self.prefix
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl std::str::FromStr for Subnet {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{}` is no subnet: write it like `10.77.1.0/24`", s.escape_debug());
        let (base, prefix) = s.split_once('/').ok_or_else(bad)?;
        let base: Ipv4Addr = base.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(8..=29).contains(&prefix) {
            return Err(format!("the prefix of `{}` must be 8 to 29", s.escape_debug()));
        }
        let subnet = Subnet { base, prefix };
        if u32::from(base) & subnet.host_bits() != 0 {
            return Err(format!("`{}` has bits set behind its prefix", s.escape_debug()));
        }
        Ok(subnet)
    }
}

macro_rules! text_serde {
    ($t:ty, $pattern:literal) => {
        impl Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $t {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($t).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}
text_serde!(Mac, "^([0-9a-f]{2}:){5}[0-9a-f]{2}$");
text_serde!(Subnet, r"^[0-9]+(\.[0-9]+){3}/[0-9]+$");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_subnet_knows_its_hosts() {
        let s: Subnet = "10.77.1.0/29".parse().unwrap();
        let host = |last| s.has_host(Ipv4Addr::new(10, 77, 1, last));
        assert!(!host(0) && host(1) && host(6) && !host(7) && !host(8));
        assert_eq!(s.nth(3), Ipv4Addr::new(10, 77, 1, 3));
    }

    #[test]
    fn subnets_at_the_end_of_the_address_space() {
        let top: Subnet = "255.0.0.0/8".parse().unwrap();
        let last: Subnet = "255.255.255.248/29".parse().unwrap();
        assert!(top.overlaps(last) && last.overlaps(top));
        assert!(last.has_host(Ipv4Addr::new(255, 255, 255, 254)) && !last.has_host(Ipv4Addr::BROADCAST));
        assert_eq!(
            last.nth(11),
            Ipv4Addr::new(0, 0, 0, 3),
            "outside, and no rule takes it for inside"
        );
        assert!(!last.has_host(last.nth(11)));
    }

    #[test]
    fn no_subnets() {
        for bad in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/7",
            "10.0.0.0/30",
            "10.0.0.1/24",
            "10.0.0.0/-1",
            "10.0.0/24",
            "a/24",
            "10.0.0.0/24/",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_ethernet_addresses() {
        assert_eq!("52:54:00:01:00:0b".parse(), Ok(Mac([0x52, 0x54, 0, 1, 0, 0x0b])));
        for bad in [
            "",
            "52:54:00:01:00",
            "52:54:00:01:00:0b:00",
            "5:54:00:01:00:0b",
            "52:54:00:01:00:zz",
            "+1:54:00:01:00:0b",
            "é:54:00:01:00:0b",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn overlapping_is_sharing_an_address(a: u32, b: u32, pa in 8u8..30, pb in 8u8..30, near: bool) {
            let b = if near { a ^ (b & 0xffff) } else { b };
            let subnet = |base: u32, prefix: u8| Subnet { base: (base & !(u32::MAX >> prefix)).into(), prefix };
            let (x, y) = (subnet(a, pa), subnet(b, pb));
            let shared = x.has_host(y.nth(1)) || y.has_host(x.nth(1)) || x.base == y.base;
            prop_assert_eq!(x.overlaps(y), shared);
            prop_assert_eq!(x.overlaps(y), y.overlaps(x));
            prop_assert_eq!(x.to_string().parse(), Ok(x));
        }
        #[test]
        fn what_is_printed_is_read_back(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }
        #[test]
        fn garbage_never_panics(s in "\\PC*") {
            let _ = (s.parse::<Subnet>(), s.parse::<Mac>());
        }
    }
}
