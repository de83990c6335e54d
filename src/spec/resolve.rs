//! From what is written to what is meant: defaults and addresses. Silent: what does not exist is left out here and
//! found by [`super::rules`].

use super::raw::{self, in_file_order};
use super::{
    Context, Health, HealthProbe, Lab, Limits, LocalDisk, Mac, Mutation, Network, NetworkRole, Nic, Node, NodeFile,
    NodeRole, Runtime, Share, SharedDisk,
};
use crate::probe::Probe;
use crate::units::{Name, Size, Span};
use std::collections::BTreeSet;

/// Longest serial that virtio-blk hands to a guest (virtio specification, VIRTIO_BLK_ID_BYTES).
const SERIAL_MAX: usize = 20;

/// The workstation's address on every lab network: the second of its subnet.
const WORKSTATION: u32 = 2;

/// Every default filled in, every address given.
pub(super) fn resolve(file: &raw::LabFile, text: &str, context: &Context) -> Lab {
    let networks: Vec<Network> = in_file_order(&file.networks)
        .into_iter()
        .map(|(name, n)| network(name, n))
        .collect();
    Lab {
        name: file.name.value.clone(),
        title: file.title.clone().unwrap_or_else(|| file.name.to_string()),
        nodes: nodes(file, &networks),
        networks,
        shared_disks: shared_disks(file),
        shares: shares(file),
        runtime: file.runtime.as_ref().map(|r| runtime(r, context)),
        health: file.health.as_ref().map(|h| health(h, file)),
        limits: Limits {
            detect: file.limits.detect.unwrap_or(Span::secs(7)),
            arbitrate: file.limits.arbitrate.unwrap_or(Span::secs(2)),
            mount: file.limits.mount.unwrap_or(Span::secs(3)),
        },
        digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
        on_purpose: file.on_purpose.iter().map(|id| id.value.clone()).collect(),
        mutations: file.mutations.iter().map(mutation).collect(),
    }
}

fn mutation(m: &raw::Mutation) -> Mutation {
    Mutation {
        id: m.id.value.clone(),
        title: m.title.clone(),
        healthy: m.healthy.unwrap_or(true),
    }
}

fn network(name: &Name, n: &raw::Network) -> Network {
    Network {
        name: name.clone(),
        subnet: n.subnet.value,
        role: n.role.unwrap_or(NetworkRole::Mixed),
        internet: n.internet,
        mtu: n.mtu.as_ref().map_or(1500, |m| m.value),
        workstation: n.subnet.nth(WORKSTATION),
    }
}

fn nodes(file: &raw::LabFile, networks: &[Network]) -> Vec<Node> {
    let defaults = &file.defaults;
    let mut places = Places::default();
    let mut serials: BTreeSet<String> = file.disks.keys().map(|name| name.to_string()).collect();
    let mut nodes = Vec::new();
    for (index, (name, n)) in in_file_order(&file.nodes).into_iter().enumerate() {
        let place = places.next(n.role);
        let image = n.image.as_ref().or(defaults.image.as_ref());
        let memory = n.memory.as_ref().or(defaults.memory.as_ref());
        let mut files = defaults.files.clone();
        files.extend(n.files.clone());
        let packages: BTreeSet<_> = defaults.packages.iter().chain(&n.packages).collect();
        nodes.push(Node {
            name: name.value.clone(),
            role: n.role,
            image: image.map_or_else(default_image, |i| i.value.clone()),
            memory: memory.map_or(Size::mib(384), |m| m.value),
            vcpus: n.vcpus.or(defaults.vcpus).map_or(1, u8::from),
            nics: nics(n, networks, index, place),
            mgmt_mac: mac(0xff, index),
            disks: n.disks.iter().map(|d| local_disk(name, d, &mut serials)).collect(),
            packages: packages.into_iter().map(|p| p.as_str().to_owned()).collect(),
            files: files
                .into_iter()
                .map(|(path, f)| (path.value.as_str().to_owned(), node_file(f)))
                .collect(),
            run: defaults.run.iter().chain(&n.run).map(|argv| argv.0.clone()).collect(),
            after: known_once(&n.after, file),
            run_before: n.run_before.iter().map(|argv| argv.0.clone()).collect(),
            run_after: n.run_after.iter().map(|argv| argv.0.clone()).collect(),
        });
    }
    nodes
}

fn node_file(file: raw::FileText) -> NodeFile {
    let table = match file {
        raw::FileText::Plain(text) => return text.into(),
        raw::FileText::Table(table) => table,
    };
    let template = table.template.is_some();
    let text = table.template.map(|t| t.value).or(table.text).unwrap_or_default();
    let plain = NodeFile::from(text);
    let owner = |o: raw::Owner| {
        let (user, group) = o.as_str().split_once(':').unwrap_or((o.as_str(), o.as_str()));
        (user.to_owned(), group.to_owned())
    };
    NodeFile {
        template,
        mode: table.mode.map_or(plain.mode, |m| {
            u32::from_str_radix(m.as_str(), 8).expect("its digits were checked")
        }),
        owner: table.owner.map_or_else(|| plain.owner.clone(), owner),
        once: table.once,
        ..plain
    }
}

fn default_image() -> Name {
    "debian-12".parse().expect("a constant name")
}

/// Default places in a subnet: the first hub or arbiter .10, further ones down from there, members .11, .12 …, the others from .31: cluster
/// and service usually have .20 and .21.
#[derive(Default)]
struct Places {
    hubs: u32,
    members: u32,
    others: u32,
}

impl Places {
    fn next(&mut self, role: Option<NodeRole>) -> u32 {
        let before = |count: &mut u32| std::mem::replace(count, *count + 1);
        match role {
            // Below .0 there is nothing: the rules about addresses say so.
            Some(NodeRole::Hub | NodeRole::Arbiter) => 10u32.saturating_sub(before(&mut self.hubs)),
            Some(NodeRole::Member) => 11 + before(&mut self.members),
            None => 31 + before(&mut self.others),
        }
    }
}

fn nics(node: &raw::Node, networks: &[Network], index: usize, place: u32) -> Vec<Nic> {
    let mut nics = Vec::new();
    for name in &node.networks {
        let Some(at) = networks.iter().position(|n| n.name == name.value) else {
            continue;
        };
        let address = node.addresses.get(name).map(|a| a.value);
        nics.push(Nic {
            network: name.value.clone(),
            address: address.unwrap_or_else(|| networks[at].subnet.nth(place)),
            mac: mac(at + 1, index),
            interface: format!("eth{}", nics.len() + 1),
        });
    }
    nics
}

/// Locally administered (the range of QEMU and libvirt): network, then node. More than fit are refused by a rule.
fn mac(network: usize, node: usize) -> Mac {
    Mac([0x52, 0x54, 0x00, network as u8, 0x00, (node + 1) as u8])
}

fn local_disk(node: &Name, disk: &raw::LocalDisk, serials: &mut BTreeSet<String>) -> LocalDisk {
    LocalDisk {
        name: disk.name.value.clone(),
        size: disk.size.value,
        serial: serial(&format!("{node}-{}", disk.name.value), serials),
    }
}

/// `whole`, cut to what fits; where that is taken, its end is a number.
fn serial(whole: &str, taken: &mut BTreeSet<String>) -> String {
    let cut = |n: usize| whole[..whole.len().min(n)].to_owned();
    let mut serial = cut(SERIAL_MAX);
    let mut n = 2;
    while !taken.insert(serial.clone()) {
        let end = format!("-{n}");
        serial = cut(SERIAL_MAX - end.len()) + &end;
        n += 1;
    }
    serial
}

fn shared_disks(file: &raw::LabFile) -> Vec<SharedDisk> {
    let disk = |(name, d): (&super::At<Name>, &raw::SharedDisk)| SharedDisk {
        name: name.value.clone(),
        size: d.size.value,
        shared_by: known_once(&d.shared_by, file),
        serial: name.to_string(),
    };
    in_file_order(&file.disks).into_iter().map(disk).collect()
}

/// Those that exist, each once.
fn known_once(names: &[super::At<Name>], file: &raw::LabFile) -> Vec<Name> {
    let mut seen = BTreeSet::new();
    let names = names.iter().filter(|n| file.nodes.contains_key(n.as_str()));
    names
        .filter(|n| seen.insert(&n.value))
        .map(|n| n.value.clone())
        .collect()
}

fn shares(file: &raw::LabFile) -> Vec<Share> {
    let share = |(name, s): (&super::At<Name>, &raw::Share)| Share {
        name: name.value.clone(),
        host: s.host.value.clone(),
    };
    in_file_order(&file.shares).into_iter().map(share).collect()
}

/// The longest that `up` waits until a lab is healthy, on a fast host.
const HEALTHY_WITHIN: Span = Span::secs(90);

fn health(h: &raw::Health, file: &raw::LabFile) -> Health {
    let all = || in_file_order(&file.nodes).into_iter().map(|(n, _)| n.value.clone());
    let probe = |(name, p): (&super::At<raw::Identifier>, &raw::Probe)| HealthProbe {
        on: p.on.as_ref().map_or_else(|| all().collect(), |on| known_once(on, file)),
        probe: Probe {
            name: name.as_str().to_owned(),
            run: p.run.0.clone(),
            parse: p.parse,
        },
    };
    Health {
        must: h.must.iter().map(|m| m.value.clone()).collect(),
        within: h.within.unwrap_or(HEALTHY_WITHIN),
        probes: in_file_order(&h.probes).into_iter().map(probe).collect(),
    }
}

fn runtime(r: &raw::Runtime, context: &Context) -> Runtime {
    let pack = context.pack(&r.kind);
    let mut settings = pack.map(super::PackSettings::defaults).unwrap_or_default();
    for (name, value) in &r.settings {
        let declared = pack.and_then(|p| p.get(name));
        if let Some((setting, resolved)) = declared.and_then(|s| Some((s, s.resolve(&value.0).ok()?))) {
            settings.insert(setting.key(name), resolved);
        }
    }
    Runtime {
        kind: r.kind.value.clone(),
        cluster: r.cluster.as_ref().map(|e| e.value.clone()),
        service: r.service.as_ref().map(|e| e.value.clone()),
        settings,
        scaled: r
            .scaled
            .iter()
            .filter_map(|name| Some(pack?.get(name)?.key(name)))
            .collect(),
    }
}
