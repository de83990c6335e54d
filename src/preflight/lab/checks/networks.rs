//! Ports, addresses, routes, paths, names.

use super::{Seen, wrong};
use crate::preflight::lab::facts::{Facts, NodeFacts};
use crate::spec::Node;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

impl Facts<'_> {
    /// The lab's machines with what was seen in them.
    fn machines(&self) -> impl Iterator<Item = (&Node, &NodeFacts)> {
        let nodes = self.lab.nodes.iter();
        nodes.filter_map(|n| Some((n, self.nodes.get(n.name.as_str())?.as_ref().ok()?)))
    }

    /// Which machine has an address on which network.
    fn owner(&self, address: Ipv4Addr) -> Option<(&str, &str)> {
        let mut ports = self.lab.nodes.iter().flat_map(|n| n.nics.iter().map(move |p| (n, p)));
        let (node, port) = ports.find(|(_, p)| p.address == address)?;
        Some((node.name.as_str(), port.network.as_str()))
    }
}

pub(super) fn same_mac(f: &Facts<'_>) -> Vec<Seen> {
    let mut all = Vec::new();
    for (node, facts) in f.machines() {
        let Some(links) = &facts.links else { continue };
        for port in &node.nics {
            let right = port.mac.to_string();
            match links.get(&port.interface) {
                Some((mac, _)) if *mac == right => {}
                Some((mac, _)) => all.push(wrong(
                    node.name.as_str(),
                    format!("{} on {} is {mac}, its own is {right}", port.interface, port.network),
                )),
                None => all.push(wrong(node.name.as_str(), format!("there is no {}", port.interface))),
            }
        }
    }
    all
}

pub(super) fn addresses(f: &Facts<'_>) -> Vec<Seen> {
    let moving: Vec<Ipv4Addr> = f
        .lab
        .runtime
        .iter()
        .flat_map(|r| r.endpoints().map(|e| e.address))
        .collect();
    let mut all = Vec::new();
    for (node, facts) in f.machines() {
        let Some(addresses) = &facts.addresses else { continue };
        for port in &node.nics {
            let prefix = f.lab.network(&port.network).map_or(24, |n| n.subnet.prefix);
            let there: Vec<_> = addresses.iter().filter(|a| a.0 == port.interface).collect();
            let on = |what: String| {
                wrong(
                    node.name.as_str(),
                    format!("{} on {}: {what}", port.interface, port.network),
                )
            };
            match there.iter().find(|a| a.1 == port.address) {
                None => all.push(on(format!("{} is missing", port.address))),
                Some(a) if a.2 != prefix => all.push(on(format!("the prefix of {} is {}, not {prefix}", a.1, a.2))),
                Some(_) => {}
            }
            let foreign = there.iter().filter(|a| a.1 != port.address && !moving.contains(&a.1));
            all.extend(foreign.map(|a| on(format!("{} does not belong there", a.1))));
        }
    }
    all
}

pub(super) fn route(f: &Facts<'_>) -> Vec<Seen> {
    let mut all = Vec::new();
    for (node, facts) in f.machines() {
        for line in facts.routes.iter().flatten() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let after = |word: &str| {
                words
                    .iter()
                    .position(|w| *w == word)
                    .and_then(|i| words.get(i + 1))
                    .copied()
            };
            let port = after("dev").and_then(|dev| node.nics.iter().find(|p| p.interface == dev));
            let network = port.and_then(|p| f.lab.network(&p.network));
            let bad = match (words.first(), network) {
                (Some(&"blackhole" | &"unreachable" | &"prohibit" | &"throw"), _) => true,
                (Some(&"default"), Some(network)) => !network.internet,
                // What an address brings along is as right as the address.
                (Some(_), Some(_)) => after("proto") != Some("kernel"),
                // The tool's own port, and loopback.
                _ => false,
            };
            if bad {
                all.push(wrong(node.name.as_str(), format!("`{line}`")));
            }
        }
    }
    all
}

pub(super) fn mtu(f: &Facts<'_>) -> Vec<Seen> {
    let mut all = Vec::new();
    for (node, facts) in f.machines() {
        for port in &node.nics {
            let right = f.lab.network(&port.network).map_or(1500, |n| u32::from(n.mtu));
            let there = facts.links.as_ref().and_then(|l| l.get(&port.interface));
            if let Some((_, mtu)) = there.filter(|(_, mtu)| *mtu != right) {
                let what = format!(
                    "{} on {} carries {mtu} bytes, its network {right}",
                    port.interface, port.network
                );
                all.push(wrong(node.name.as_str(), what));
            }
        }
        for ping in facts.pings.iter().filter(|p| p.small && !p.large) {
            let (to, network) = f.owner(ping.to).unwrap_or(("?", "?"));
            let on = format!("{} → {to}", node.name);
            all.push(wrong(
                on,
                format!("small packets arrive on {network}, those of full size do not"),
            ));
        }
    }
    all
}

pub(super) fn path(f: &Facts<'_>) -> Vec<Seen> {
    // Of both directions and both kinds of evidence, one line for each network and pair.
    let mut silent: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    let mut add = |network: &str, from: &str, to: &str, what: String| {
        let (a, b) = if from < to { (from, to) } else { (to, from) };
        let said = silent.entry((network.into(), a.into(), b.into())).or_default();
        if !said.contains(&what) {
            said.push(what);
        }
    };
    for (node, facts) in f.machines() {
        for ping in facts.pings.iter().filter(|p| !p.small) {
            if let Some((to, network)) = f.owner(ping.to) {
                add(network, &node.name, to, format!("{to} does not answer {}", node.name));
            }
        }
    }
    // A runtime that does not answer sends no heartbeats, whatever carries them.
    let answers = |member: &str| f.status(member).is_some();
    for cluster in f.looks.iter().filter_map(|l| l.status?.cluster.as_ref()) {
        for network in &cluster.networks {
            let silent = network.paths.iter().filter(|p| p.up == Some(false));
            for path in silent.filter(|p| answers(&p.from) && answers(&p.to)) {
                let what = format!("no heartbeat arrives from {} at {}", path.from, path.to);
                add(&network.name, &path.from, &path.to, what);
            }
        }
    }
    let tell = |((network, a, b), said): ((String, String, String), Vec<String>)| {
        wrong(format!("{network}, {a} and {b}"), said.join("; "))
    };
    silent.into_iter().map(tell).collect()
}

pub(super) fn names(f: &Facts<'_>) -> Vec<Seen> {
    let right = crate::guest::credentials::names(f.lab);
    let mut all = Vec::new();
    for (node, facts) in f.machines() {
        let Some(there) = &facts.names else { continue };
        for (name, address) in &right {
            let found: Vec<String> = there.get(name).into_iter().flatten().map(Ipv4Addr::to_string).collect();
            if found != [address.to_string()] {
                let found = if found.is_empty() {
                    "nothing".into()
                } else {
                    found.join(", ")
                };
                all.push(wrong(
                    node.name.as_str(),
                    format!("`{name}` leads to {found}, not to {address}"),
                ));
            }
        }
    }
    all
}

pub(super) fn squatter(f: &Facts<'_>) -> Vec<Seen> {
    let mac_of = |mac: &str| {
        let owner = f
            .lab
            .nodes
            .iter()
            .find(|n| n.nics.iter().any(|p| p.mac.to_string() == mac));
        owner.map_or_else(|| mac.to_owned(), |n| format!("{} ({mac})", n.name))
    };
    let mut all = Vec::new();
    for (node, facts) in f.machines() {
        for (address, macs) in facts.claimed.iter().filter(|(_, macs)| macs.len() > 1) {
            let who: Vec<String> = macs.iter().map(|m| mac_of(m)).collect();
            all.push(wrong(
                address.to_string(),
                format!("{} hears {} answer for it", node.name, who.join(" and ")),
            ));
        }
    }
    all
}
