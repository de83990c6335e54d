//! What must hold under the runtime `ccr`.

use super::wrong;
use crate::spec::raw::in_file_order;
use crate::spec::rules::View;
use crate::spec::{Finding, NetworkRole, Node, NodeRole};

/// The share that holds the third vote.
const WITNESS: &str = "witness";

impl View<'_> {
    fn is_ccr(&self) -> bool {
        self.file.runtime.as_ref().is_some_and(|r| r.kind.as_str() == "ccr")
    }
    fn is_member(&self, node: &str) -> bool {
        self.lab.node(node).is_some_and(|n| n.role == Some(NodeRole::Member))
    }
}

pub(in crate::spec) fn ccr_needs_two_members(v: &View<'_>) -> Vec<Finding> {
    let Some(runtime) = v.file.runtime.as_ref().filter(|_| v.is_ccr()) else {
        return Vec::new();
    };
    let members: Vec<_> = in_file_order(&v.file.nodes)
        .into_iter()
        .filter(|(_, n)| n.role == Some(NodeRole::Member))
        .collect();
    if members.len() == 2 {
        return Vec::new();
    }
    let finding =
        wrong(format!("`ccr` has two members, this lab has {}", members.len())).on(&runtime.kind, "asked for here");
    let finding = members
        .iter()
        .skip(2)
        .fold(finding, |f, (name, _)| f.on(name, "one too many"));
    vec![finding.help("give exactly two nodes `role = \"member\"`")]
}

pub(in crate::spec) fn ccr_needs_hub(v: &View<'_>) -> Vec<Finding> {
    let Some(runtime) = v.file.runtime.as_ref().filter(|_| v.is_ccr()) else {
        return Vec::new();
    };
    if v.lab.with_role(NodeRole::Hub).next().is_some() {
        return Vec::new();
    }
    vec![
        wrong("`ccr` has no hub in this lab")
            .on(&runtime.kind, "asked for here")
            .help("give one node `role = \"hub\"`"),
    ]
}

pub(in crate::spec) fn ccr_without_witness(v: &View<'_>) -> Vec<Finding> {
    let Some(runtime) = v.file.runtime.as_ref().filter(|_| v.is_ccr()) else {
        return Vec::new();
    };
    if v.file.shares.contains_key(WITNESS) {
        return Vec::new();
    }
    vec![
        wrong("`ccr` has no witness in this lab")
            .on(&runtime.kind, "asked for here")
            .help("add `[shares.witness]` with a `host` that is no member"),
    ]
}

pub(in crate::spec) fn witness_on_member(v: &View<'_>) -> Vec<Finding> {
    let witness = v.file.shares.get(WITNESS).filter(|_| v.is_ccr());
    let on_member = witness.filter(|s| v.is_member(&s.host));
    on_member
        .map(|s| {
            wrong(format!("the witness is on the member `{}`", s.host.value))
                .on(&s.host, "fails together with a member")
                .help("put it on a hub")
        })
        .into_iter()
        .collect()
}

pub(in crate::spec) fn shared_disk_under_ccr(v: &View<'_>) -> Vec<Finding> {
    if !v.is_ccr() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (name, disk) in in_file_order(&v.file.disks) {
        if let Some(member) = disk.shared_by.iter().find(|n| v.is_member(n)) {
            let finding = wrong(format!("the members of `ccr` share the disk `{}`", name.value));
            findings.push(finding.on(member, "a member").on(name, "the disk"));
        }
    }
    findings
}

pub(in crate::spec) fn one_heartbeat_network(v: &View<'_>) -> Vec<Finding> {
    let Some(runtime) = v.file.runtime.as_ref().filter(|_| v.is_ccr()) else {
        return Vec::new();
    };
    let members: Vec<&Node> = v.lab.with_role(NodeRole::Member).collect();
    let shared = |name: &str| members.iter().filter(|m| m.address(name).is_some()).count() > 1;
    let carry = v
        .lab
        .networks
        .iter()
        .filter(|n| n.role != NetworkRole::Client && shared(&n.name));
    if members.len() < 2 || carry.count() > 1 {
        return Vec::new();
    }
    let clients = in_file_order(&v.file.networks).into_iter();
    let clients = clients.filter(|(_, n)| n.role == Some(NetworkRole::Client));
    let finding =
        wrong("fewer than two networks carry heartbeats between the members").on(&runtime.kind, "asked for here");
    let finding = clients.fold(finding, |f, (name, _)| f.on(name, "for clients only"));
    vec![finding.help("put the members on two networks whose `role` is mixed or internal")]
}

pub(in crate::spec) fn internal_network_first(v: &View<'_>) -> Vec<Finding> {
    if !v.is_ccr() {
        return Vec::new();
    }
    let role = |name: &str| v.lab.network(name).map(|n| n.role);
    let mut findings = Vec::new();
    for (name, node) in in_file_order(&v.file.nodes) {
        let (Some(first), true) = (node.networks.first(), v.is_member(name)) else {
            continue;
        };
        let others = node
            .networks
            .iter()
            .any(|n| role(n).is_some_and(|r| r != NetworkRole::Internal));
        if role(first) == Some(NetworkRole::Internal) && others {
            let finding = wrong(format!(
                "the name `{}` leads to its address on an internal network",
                name.value
            ));
            findings.push(
                finding
                    .on(first, "comes first")
                    .help("name the network of the clients first"),
            );
        }
    }
    findings
}

pub(in crate::spec) fn no_data_disk(v: &View<'_>) -> Vec<Finding> {
    let nodes = in_file_order(&v.file.nodes).into_iter().filter(|_| v.is_ccr());
    let without = nodes.filter(|(name, n)| v.is_member(name) && n.disks.iter().all(|d| d.name.as_str() != "data"));
    without
        .map(|(name, _)| {
            wrong(format!("`{}` has no disk for its data", name.value))
                .on(name, "a member")
                .help("add `disks = [{ name = \"data\", size = \"2 GiB\" }]`")
        })
        .collect()
}

/// A setting of the runtime as it is in force, and where it stands.
fn setting<'a>(v: &View<'a>, written: &str, key: &str) -> Option<(&'a serde_json::Value, std::ops::Range<usize>)> {
    let runtime = v.file.runtime.as_ref().filter(|_| v.is_ccr())?;
    let value = v.lab.runtime.as_ref()?.settings.get(key)?;
    let stands = runtime
        .settings
        .iter()
        .find(|(k, _)| k.value == written)
        .map(|(_, s)| s.span.clone());
    Some((value, stands.unwrap_or_else(|| runtime.kind.span.clone())))
}

pub(in crate::spec) fn dumpster_too_small(v: &View<'_>) -> Vec<Finding> {
    let number = |written, key| setting(v, written, key)?.0.as_u64();
    let (Some((room, at)), Some(log)) = (
        setting(v, "dumpster", "dumpster_bytes"),
        number("generation", "generation_bytes"),
    ) else {
        return Vec::new();
    };
    let tolerated = match setting(v, "dial", "dial").and_then(|(dial, _)| dial.as_str()) {
        Some("best-availability") => 6,
        Some("good-availability") => 3,
        _ => 0,
    };
    let needed = log.saturating_mul(tolerated);
    let room = if number("dumpster-age", "dumpster_age_ms") == Some(0) {
        0
    } else {
        room.as_u64().unwrap_or_default()
    };
    if room >= needed.max(1) {
        return Vec::new();
    }
    let message = format!("the dumpster holds {room} B, the dial tolerates the loss of {needed} B of logs");
    vec![
        wrong(message)
            .at(at, "in force")
            .help("make `dumpster` larger, or the `dial` stricter"),
    ]
}

pub(in crate::spec) fn automatic_failback(v: &View<'_>) -> Vec<Finding> {
    let on = setting(v, "failback", "failback").filter(|(value, _)| value.as_bool() == Some(true));
    let tell = |(_, at)| {
        wrong("the service moves back by itself")
            .at(at, "switched on")
            .help("leave `failback` out")
    };
    on.map(tell).into_iter().collect()
}

pub(in crate::spec) fn one_shipping_network(v: &View<'_>) -> Vec<Finding> {
    let only = setting(v, "shipping", "shipping").filter(|(value, _)| value.as_str() == Some("service"));
    let tell = |(_, at)| {
        wrong("logs travel over one network")
            .at(at, "that of the service")
            .help("write `any`, or leave it out")
    };
    only.map(tell).into_iter().collect()
}
