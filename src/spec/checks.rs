//! The checks behind [`super::rules::RULES`], one function each. A check does not know its rule's id.

mod ccr;
mod payload;

pub(super) use ccr::*;
pub(super) use payload::*;

use super::raw::{Runtime, in_file_order};
use super::rules::{View, rule, waivable};
use super::{At, Finding, NodeRole, PackSettings, ROOT_DISK, Subnet, known};
use crate::units::{Name, Size};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

/// What the tool's own port uses: QEMU's user-mode network.
const MGMT: Subnet = Subnet {
    base: Ipv4Addr::new(10, 0, 2, 0),
    prefix: 24,
};

const SMALLEST_MEMORY: Size = Size::mib(128);
const SMALLEST_DISK: Size = Size::mib(1);

fn wrong(message: impl Into<String>) -> Finding {
    Finding::new("", message)
}

impl View<'_> {
    fn node_names(&self) -> impl Iterator<Item = &str> {
        in_file_order(&self.file.nodes).into_iter().map(|(n, _)| n.as_str())
    }
    fn network_names(&self) -> impl Iterator<Item = &str> {
        in_file_order(&self.file.networks).into_iter().map(|(n, _)| n.as_str())
    }
    /// Where `node` got its address on `network`: where it is written, else at the node's name.
    fn address_place(&self, node: &str, network: &str) -> (Range<usize>, &'static str) {
        match self.file.nodes.get_key_value(node) {
            Some((name, n)) => match n.addresses.get(network) {
                Some(address) => (address.span.clone(), ""),
                None => (name.span.clone(), "by default "),
            },
            None => (0..0, ""),
        }
    }
    /// The runtime with what its pack declares, where there is such a pack.
    fn runtime(&self) -> Option<(&Runtime, &PackSettings)> {
        let runtime = self.file.runtime.as_ref()?;
        Some((runtime, self.context.pack(&runtime.kind)?))
    }
    /// Cluster and service: what they are called here, where they stand, their address.
    fn endpoints(&self) -> Vec<(&'static str, &At<super::Endpoint>)> {
        let runtime = self.file.runtime.as_ref();
        let both = runtime
            .into_iter()
            .flat_map(|r| [("cluster", &r.cluster), ("service", &r.service)]);
        both.filter_map(|(what, e)| Some((what, e.as_ref()?))).collect()
    }
}

pub(super) fn unsupported_schema(v: &View<'_>) -> Vec<Finding> {
    let schema = &v.file.schema;
    let bad =
        (schema.value != 1).then(|| wrong(format!("schema {} is not known", schema.value)).on(schema, "must be 1"));
    bad.into_iter().collect()
}

pub(super) fn reserved_name(v: &View<'_>) -> Vec<Finding> {
    let network = v.file.networks.keys().filter(|n| n.as_str() == "mgmt");
    let node = v
        .file
        .nodes
        .keys()
        .filter(|n| ["workstation", "localhost"].contains(&n.as_str()));
    let named = |n: &At<Name>| wrong(format!("the name `{}` is taken by the tool", n.value)).on(n, "choose another");
    network.chain(node).map(named).collect()
}

pub(super) fn duplicate_disk(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, n) in &v.file.nodes {
        let shared = v.file.disks.iter().filter(|(_, d)| d.shared_by.contains(node));
        let mut seen: Vec<&At<Name>> = shared.map(|(name, _)| name).collect();
        for disk in &n.disks {
            match seen.iter().find(|d| ***d == disk.name) {
                Some(first) => findings.push(
                    wrong(format!("`{}` has two disks named `{}`", node.value, disk.name.value))
                        .on(&disk.name, "the second")
                        .on(first, "the first"),
                ),
                None => seen.push(&disk.name),
            }
        }
    }
    findings
}

pub(super) fn boot_disk_name(v: &View<'_>) -> Vec<Finding> {
    let disks = v.file.nodes.values().flat_map(|n| &n.disks);
    let finding = |name: &At<Name>| {
        wrong(format!(
            "the name `{}` is taken by the disk that a machine boots from",
            name.value
        ))
        .on(name, "choose another")
    };
    disks
        .map(|d| &d.name)
        .filter(|n| n.as_str() == ROOT_DISK)
        .map(finding)
        .collect()
}

pub(super) fn listed_twice(v: &View<'_>) -> Vec<Finding> {
    let networks = v.file.nodes.values().map(|n| &n.networks);
    let sharers = v.file.disks.values().map(|d| &d.shared_by);
    let awaited = v.file.nodes.values().map(|n| &n.after);
    let probes = v.file.health.iter().flat_map(|h| h.probes.values());
    let asked = probes.filter_map(|p| p.on.as_ref());
    let all = networks.chain(sharers).chain(awaited).chain(asked);
    all.flat_map(|list| twice(list)).collect()
}

fn twice(list: &[At<Name>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, name) in list.iter().enumerate() {
        if let Some(first) = list[..i].iter().find(|n| *n == name) {
            let finding = wrong(format!("`{}` is listed twice", name.value));
            findings.push(finding.on(name, "again here").on(first, "first here"));
        }
    }
    findings
}

pub(super) fn unknown_network(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, n) in &v.file.nodes {
        for network in n.networks.iter().filter(|w| !v.file.networks.contains_key(w.as_str())) {
            findings.push(
                wrong(format!("there is no network `{}`", network.value))
                    .on(network, "no such network")
                    .help(known(network, v.network_names())),
            );
        }
        for network in n.addresses.keys().filter(|w| !n.networks.contains(w)) {
            findings.push(
                wrong(format!("`{}` is not on a network `{}`", node.value, network.value))
                    .on(network, "an address on it says nothing")
                    .help(known(network, n.networks.iter().map(|n| n.as_str()))),
            );
        }
    }
    findings
}

pub(super) fn unknown_node(v: &View<'_>) -> Vec<Finding> {
    let hosts = v.file.shares.values().map(|s| &s.host);
    let sharers = v.file.disks.values().flat_map(|d| &d.shared_by);
    let awaited = v.file.nodes.values().flat_map(|n| &n.after);
    let probes = v.file.health.iter().flat_map(|h| h.probes.values());
    let asked = probes.flat_map(|p| p.on.iter().flatten());
    let all = hosts.chain(sharers).chain(awaited).chain(asked);
    let named = all.filter(|n| !v.file.nodes.contains_key(n.as_str()));
    let finding = |n: &At<Name>| {
        wrong(format!("there is no node `{}`", n.value))
            .on(n, "no such node")
            .help(known(n, v.node_names()))
    };
    named.map(finding).collect()
}

pub(super) fn unknown_image(v: &View<'_>) -> Vec<Finding> {
    let images = v
        .file
        .nodes
        .values()
        .filter_map(|n| n.image.as_ref())
        .chain(&v.file.defaults.image);
    let names = || v.context.images.iter().map(|n| n.as_str());
    let finding = |image: &At<Name>| {
        wrong(format!("there is no image `{}`", image.value))
            .on(image, "no such image")
            .help(known(image, names()))
    };
    let mut findings: Vec<Finding> = images.filter(|i| !v.context.images.contains(i)).map(finding).collect();
    // The image of a file that names none may be unknown as well.
    let unnamed = v.lab.nodes.iter().find(|n| !v.context.images.contains(&n.image));
    if let (true, Some(node)) = (findings.is_empty(), unnamed) {
        let (name, _) = v
            .file
            .nodes
            .get_key_value(node.name.as_str())
            .expect("a resolved node is in the file");
        let message = format!("there is no image `{}`", node.image);
        findings.push(
            wrong(message)
                .on(name, "gets it by default")
                .help(known(&node.image, names())),
        );
    }
    findings
}

pub(super) fn unknown_runtime(v: &View<'_>) -> Vec<Finding> {
    let kind = v.file.runtime.as_ref().map(|r| &r.kind);
    let finding = |kind: &At<Name>| {
        wrong(format!("there is no runtime pack `{}`", kind.value))
            .on(kind, "no such pack")
            .help(known(kind, v.context.packs.iter().map(|p| p.pack.as_str())))
    };
    kind.filter(|k| v.context.pack(k).is_none())
        .map(finding)
        .into_iter()
        .collect()
}

pub(super) fn unknown_setting(v: &View<'_>) -> Vec<Finding> {
    let Some((runtime, pack)) = v.runtime() else {
        return Vec::new();
    };
    let finding = |name: &At<String>| {
        wrong(format!("`{}` has no setting `{}`", pack.pack, name.value))
            .on(name, "no such setting")
            .help(known(name, pack.settings.keys().map(|n| n.as_str())))
    };
    runtime
        .settings
        .keys()
        .chain(&runtime.scaled)
        .filter(|n| pack.get(n).is_none())
        .map(finding)
        .collect()
}

pub(super) fn bad_setting(v: &View<'_>) -> Vec<Finding> {
    let Some((runtime, pack)) = v.runtime() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (name, value) in &runtime.settings {
        if let Some((setting, Err(why))) = pack.get(name).map(|s| (s, s.resolve(&value.value.0))) {
            findings.push(
                wrong(format!("the setting `{}` cannot have this value", name.value))
                    .on(value, why)
                    .help(setting.doc.clone()),
            );
        }
    }
    for name in &runtime.scaled {
        if pack.get(name).is_some_and(|s| s.kind != super::SettingKind::Span) {
            let finding = wrong(format!("the setting `{}` cannot be scaled", name.value));
            findings.push(finding.on(name, "it is no time"));
        }
    }
    findings
}

pub(super) fn unknown_rule(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for id in &v.file.on_purpose {
        let label = match rule(id) {
            Some(rule) if rule.waivable => continue,
            Some(_) => "a lab cannot do without it",
            None if v.context.checks.contains(&id.as_str()) => continue,
            None => "no such rule, and no such check of preflight",
        };
        let finding = wrong(format!("`{}` cannot be broken on purpose", id.value));
        findings.push(finding.on(id, label).help(waivable(id, &v.context.checks)));
    }
    findings
}

pub(super) fn no_machines(v: &View<'_>) -> Vec<Finding> {
    if !v.file.nodes.is_empty() {
        return Vec::new();
    }
    let name = &v.file.name;
    vec![
        wrong(format!("the lab `{}` has no machine", name.value))
            .on(name, "this lab")
            .help("add a table like `[nodes.a]`"),
    ]
}

pub(super) fn different_images(v: &View<'_>) -> Vec<Finding> {
    let mut nodes = v.lab.nodes.iter();
    let Some(first) = nodes.next() else {
        return Vec::new();
    };
    let Some(other) = nodes.find(|n| n.image != first.image) else {
        return Vec::new();
    };
    let place = |node: &super::Node| {
        let (name, n) = v
            .file
            .nodes
            .get_key_value(node.name.as_str())
            .expect("a resolved node is in the file");
        n.image
            .as_ref()
            .or(v.file.defaults.image.as_ref())
            .map_or(name.span.clone(), |i| i.span.clone())
    };
    let label = |n: &super::Node| format!("`{}` has {}", n.name, n.image);
    vec![
        wrong("the machines of a lab boot one image")
            .at(place(other), label(other))
            .at(place(first), label(first)),
    ]
}

pub(super) fn too_many(v: &View<'_>) -> Vec<Finding> {
    fn one_too_many<T>(table: &BTreeMap<At<Name>, T>, what: &str) -> Option<Finding> {
        let entries = in_file_order(table);
        let (name, _) = entries.get(254)?;
        Some(wrong(format!("{} {what}", entries.len())).on(name, "this one is the 255th"))
    }
    let networks = one_too_many(&v.file.networks, "networks");
    let nodes = one_too_many(&v.file.nodes, "nodes");
    networks.into_iter().chain(nodes).collect()
}

pub(super) fn unusable_subnet(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for network in v.file.networks.values() {
        let subnet = network.subnet.value;
        let why = match subnet.base.octets()[0] {
            0 => "0.0.0.0/8 means `this network`",
            127 => "127.0.0.0/8 is loopback",
            224..=239 => "224.0.0.0/4 is multicast",
            240..=255 => "240.0.0.0/4 is reserved",
            _ if subnet.overlaps(MGMT) => "10.0.2.0/24 belongs to the tool's own port",
            _ => continue,
        };
        findings.push(wrong(format!("machines cannot use the subnet {subnet}")).on(&network.subnet, why));
    }
    findings
}

pub(super) fn mtu_out_of_range(v: &View<'_>) -> Vec<Finding> {
    let mtus = v.file.networks.values().filter_map(|n| n.mtu.as_ref());
    let finding =
        |mtu: &At<u16>| wrong(format!("an mtu of {} does not work", mtu.value)).on(mtu, "must be 576 to 9000");
    mtus.filter(|m| !(576..=9000).contains(&m.value)).map(finding).collect()
}

pub(super) fn role_without_network(v: &View<'_>) -> Vec<Finding> {
    let nodes = v
        .file
        .nodes
        .iter()
        .filter(|(_, n)| n.role.is_some() && n.networks.is_empty());
    nodes
        .map(|(name, _)| wrong(format!("`{}` is on no network", name.value)).on(name, "needs `networks`"))
        .collect()
}

pub(super) fn share_host_without_role(v: &View<'_>) -> Vec<Finding> {
    if v.file.runtime.is_none() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (name, share) in &v.file.shares {
        if v.lab.node(&share.host).is_some_and(|n| n.role.is_none()) {
            findings.push(
                wrong(format!("nobody serves the share `{}`", name.value))
                    .on(&share.host, "is neither member nor hub")
                    .help("give the machine `role = \"hub\"`"),
            );
        }
    }
    findings
}

pub(super) fn too_small(v: &View<'_>) -> Vec<Finding> {
    let memories = v
        .file
        .nodes
        .values()
        .filter_map(|n| n.memory.as_ref())
        .chain(&v.file.defaults.memory);
    let memories = memories.map(|m| (m, SMALLEST_MEMORY, "memory"));
    let own = v.file.nodes.values().flat_map(|n| &n.disks).map(|d| &d.size);
    let disks = own
        .chain(v.file.disks.values().map(|d| &d.size))
        .map(|d| (d, SMALLEST_DISK, "a disk"));
    memories
        .chain(disks)
        .filter(|(size, least, _)| size.value < *least)
        .map(|(size, least, what)| {
            wrong(format!("{} is too small for {what}", size.value)).on(size, format!("at least {least}"))
        })
        .collect()
}

pub(super) fn duplicate_name(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let endpoints = v.endpoints();
    for (i, (what, endpoint)) in endpoints.iter().enumerate() {
        let name = &endpoint.name;
        let finding = wrong(format!("the {what} has a name that is taken: `{name}`")).on(endpoint, "this one");
        if let Some((node, _)) = v.file.nodes.get_key_value(name.as_str()) {
            findings.push(finding.on(node, "this machine has it"));
        } else if let Some((other, first)) = endpoints[..i].iter().find(|(_, e)| e.name == *name) {
            findings.push(finding.on(first, format!("the {other} has it")));
        }
    }
    findings
}

pub(super) fn duplicate_address(v: &View<'_>) -> Vec<Finding> {
    let mut seen: BTreeMap<Ipv4Addr, (&str, &str)> = BTreeMap::new();
    let mut findings = Vec::new();
    for node in &v.lab.nodes {
        for nic in &node.nics {
            let here = (node.name.as_str(), nic.network.as_str());
            let Some(first) = seen.get(&nic.address) else {
                seen.insert(nic.address, here);
                continue;
            };
            if *first == here {
                continue;
            }
            let ((a, a_by), (b, b_by)) = (v.address_place(first.0, first.1), v.address_place(here.0, here.1));
            findings.push(
                wrong(format!("{} is the address of two machines", nic.address))
                    .at(b, format!("{b_by}of `{}` on `{}`", here.0, here.1))
                    .at(a, format!("{a_by}of `{}` on `{}`", first.0, first.1)),
            );
        }
    }
    findings
}

pub(super) fn address_taken(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let workstation = |a: Ipv4Addr| v.lab.networks.iter().find(|n| n.workstation == a);
    let endpoints = v.endpoints();
    for node in &v.lab.nodes {
        for nic in &node.nics {
            let (place, by) = v.address_place(&node.name, &nic.network);
            let finding = wrong(format!("the address {} of `{}` is taken", nic.address, node.name));
            let finding = finding.at(place, format!("{by}here"));
            if workstation(nic.address).is_some() {
                findings.push(finding.help("the second address of every subnet is the workstation's own"));
            } else if let Some((what, endpoint)) = endpoints.iter().find(|(_, e)| e.address == nic.address) {
                findings.push(finding.on(endpoint, format!("it is that of the {what}")));
            }
        }
    }
    for (i, (what, endpoint)) in endpoints.iter().enumerate() {
        let finding = wrong(format!("the address {} of the {what} is taken", endpoint.address)).on(endpoint, "here");
        if workstation(endpoint.address).is_some() {
            findings.push(finding.help("the second address of every subnet is the workstation's own"));
        } else if let Some((other, first)) = endpoints[..i].iter().find(|(_, e)| e.address == endpoint.address) {
            findings.push(finding.on(first, format!("it is that of the {other}")));
        }
    }
    findings
}

pub(super) fn address_outside_subnet(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &v.lab.nodes {
        for nic in &node.nics {
            let network = v
                .lab
                .network(&nic.network)
                .expect("resolved ports are on known networks");
            if network.subnet.has_host(nic.address) {
                continue;
            }
            let (place, by) = v.address_place(&node.name, &nic.network);
            let subnet = v.file.networks.get(network.name.as_str()).map(|n| &n.subnet);
            let mut finding = wrong(format!(
                "{} is no address of the network `{}`",
                nic.address, network.name
            ))
            .at(place, format!("{by}the address of `{}`", node.name));
            if let Some(subnet) = subnet {
                finding = finding.on(subnet, "its subnet");
            }
            findings.push(finding);
        }
    }
    for (what, endpoint) in v.endpoints() {
        let on_all = |network: &Name| v.lab.with_role(NodeRole::Member).all(|m| m.address(network).is_some());
        let home = v
            .lab
            .networks
            .iter()
            .find(|n| n.subnet.has_host(endpoint.address) && on_all(&n.name));
        if home.is_none() {
            findings.push(
                wrong(format!("{} is on no network that every member is on", endpoint.address))
                    .on(endpoint, format!("the address of the {what} moves between the members")),
            );
        }
    }
    findings
}

pub(super) fn overlapping_subnets(v: &View<'_>) -> Vec<Finding> {
    let networks = in_file_order(&v.file.networks);
    let mut findings = Vec::new();
    for (i, (name, b)) in networks.iter().enumerate() {
        for (other, a) in networks[..i].iter().filter(|(_, a)| a.subnet.overlaps(b.subnet.value)) {
            findings.push(
                wrong(format!("the subnets of `{}` and `{}` overlap", other.value, name.value))
                    .on(&b.subnet, "this one")
                    .on(&a.subnet, "and this one"),
            );
        }
    }
    findings
}

pub(super) fn network_without_members(v: &View<'_>) -> Vec<Finding> {
    let empty = v
        .file
        .networks
        .keys()
        .filter(|n| v.file.nodes.values().all(|node| !node.networks.contains(n)));
    empty
        .map(|n| wrong(format!("no machine is on the network `{}`", n.value)).on(n, "carries nothing"))
        .collect()
}

pub(super) fn shared_disk_needs_two(v: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for disk in v.lab.shared_disks.iter().filter(|d| d.shared_by.len() < 2) {
        let (name, _) = v
            .file
            .disks
            .get_key_value(disk.name.as_str())
            .expect("a resolved disk is in the file");
        let machines = disk.shared_by.len();
        findings.push(
            wrong(format!(
                "the shared disk `{}` is in {machines} of the machines",
                disk.name
            ))
            .on(name, "needs two in `shared-by`"),
        );
    }
    findings
}

pub(super) fn share_without_runtime(v: &View<'_>) -> Vec<Finding> {
    if v.file.runtime.is_some() {
        return Vec::new();
    }
    let shares = v.file.shares.keys();
    shares
        .map(|n| wrong(format!("nobody serves the share `{}`", n.value)).on(n, "the lab has no runtime"))
        .collect()
}

pub(super) fn not_enough_memory(v: &View<'_>) -> Vec<Finding> {
    let Some(host) = v.context.host_memory else {
        return Vec::new();
    };
    let wanted = v.lab.host_memory().bytes();
    if wanted <= host.bytes() {
        return Vec::new();
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!(
        "{} machines and what runs them want {} MiB of memory, this host can give {} MiB",
        v.lab.nodes.len(),
        mib(wanted),
        host.bytes() >> 20
    );
    let finding = wrong(message).help("give the machines less `memory`, or end other labs");
    let memories = v
        .file
        .defaults
        .memory
        .iter()
        .chain(v.file.nodes.values().filter_map(|n| n.memory.as_ref()));
    vec![memories.fold(finding, |f, m| f.on(m, "given here"))]
}
