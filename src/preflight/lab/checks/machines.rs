//! What is in each machine, and what two of them must not share.

use super::{Seen, unknown, wrong};
use crate::preflight::lab::facts::{Facts, NodeFacts};
use crate::spec::{NodeRole, ROOT_DISK};
use std::collections::BTreeMap;

/// Room for this long without the other member.
const OUTAGE_S: u64 = 600;
/// The most that a lab's clients send: what scenarios do, with room.
const RATE_BYTES: u64 = 1 << 20;

/// What a machine's clock may be off when it has booted: the clock chip has whole seconds.
const CLOCK_CHIP_MS: i64 = 1000;

/// Each pair of machines that share a value.
fn shared<'a, T: Ord>(values: impl Iterator<Item = (&'a str, T)>) -> Vec<(&'a str, &'a str, T)> {
    let mut first: BTreeMap<T, &str> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (node, value) in values {
        match first.remove_entry(&value) {
            Some((kept, with)) => {
                first.insert(kept, with);
                pairs.push((with, node, value));
            }
            None => drop(first.insert(value, node)),
        }
    }
    pairs
}

pub(super) fn not_seen(f: &Facts<'_>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for node in &f.lab.nodes {
        let facts = match f.nodes.get(node.name.as_str()) {
            Some(Ok(facts)) => facts,
            Some(Err(why)) => {
                seen.push(unknown(node.name.as_str(), why.clone()));
                continue;
            }
            None => {
                seen.push(unknown(node.name.as_str(), "it was not looked at"));
                continue;
            }
        };
        let deployed = f.lab.runtime.is_some() && node.role.is_some();
        let parts = [
            ("machine id", facts.machine_id.is_none()),
            ("ports", facts.links.is_none()),
            ("addresses", facts.addresses.is_none()),
            ("routes", facts.routes.is_none()),
            ("mounts", facts.mounts.is_none()),
            ("file systems", !knows_file_systems(facts)),
            ("names", facts.names.is_none()),
            (
                "packages",
                node.role == Some(NodeRole::Member) && facts.packages.is_none(),
            ),
            ("clock", facts.clock.is_none()),
            ("free space", deployed && facts.space.is_none()),
            ("runtime's files", deployed && facts.changed.is_none()),
            ("runtime's units", deployed && facts.watchdogs.is_none()),
        ];
        let missing: Vec<&str> = parts.iter().filter(|p| p.1).map(|p| p.0).collect();
        if !missing.is_empty() {
            seen.push(unknown(
                node.name.as_str(),
                format!("its {} could not be read", missing.join(", ")),
            ));
        }
    }
    seen
}

pub(super) fn machine_id(f: &Facts<'_>) -> Vec<Seen> {
    let ids = || {
        f.seen()
            .filter_map(|(n, facts)| Some((n, facts.machine_id.as_deref()?)))
    };
    let none = ids().filter(|(_, id)| id.is_empty());
    let none = none.map(|(node, _)| wrong(node, "its /etc/machine-id is empty"));
    let same = shared(ids().filter(|(_, id)| !id.is_empty()));
    let same = same
        .into_iter()
        .map(|(a, b, id)| wrong(format!("{a}, {b}"), format!("both are {id}")));
    none.chain(same).collect()
}

/// Whether each device that is mounted is known by its file system.
fn knows_file_systems(facts: &NodeFacts) -> bool {
    let uuids = facts.uuids.as_ref();
    uuids.is_some_and(|known| {
        facts
            .mounts
            .iter()
            .flatten()
            .all(|(_, device)| known.contains_key(device))
    })
}

/// UUIDs of what a machine has mounted.
fn mounted(facts: &NodeFacts) -> impl Iterator<Item = (&str, &str)> {
    let mounts = facts.mounts.iter().flatten();
    mounts.filter_map(|(place, device)| {
        let uuid = facts.uuids.as_ref()?.get(device)?;
        Some((uuid.as_str(), place.as_str()))
    })
}

pub(super) fn mounted_twice(f: &Facts<'_>) -> Vec<Seen> {
    // The system's own file system comes from one image: each machine writes to a layer of its own.
    let own = |(node, facts)| {
        mounted(facts)
            .filter(|(_, place)| *place != "/")
            .map(move |(uuid, _)| (node, uuid))
    };
    let twice = shared(f.seen().flat_map(own));
    let tell = |(a, b, uuid): (&str, &str, &str)| {
        wrong(format!("{a}, {b}"), format!("both have the file system {uuid} mounted"))
    };
    twice.into_iter().map(tell).collect()
}

pub(super) fn data_on_boot_disk(f: &Facts<'_>) -> Vec<Seen> {
    let with_disk = |node: &str| {
        let node = f.lab.node(node);
        node.is_some_and(|n| n.role == Some(NodeRole::Member) && n.disks.iter().any(|d| d.name.as_str() != ROOT_DISK))
    };
    let on_root = f.seen().filter(|(n, _)| with_disk(n)).filter_map(|(n, facts)| {
        let (place, _) = facts.space.as_ref()?;
        (place == "/").then(|| wrong(n, "the runtime's folder is on the disk of the system"))
    });
    on_root.collect()
}

pub(super) fn space(f: &Facts<'_>) -> Vec<Seen> {
    let members = f.lab.with_role(NodeRole::Member);
    let short = members.filter_map(|node| {
        let (place, free) = f.nodes.get(node.name.as_str())?.as_ref().ok()?.space.as_ref()?;
        let needed = OUTAGE_S * RATE_BYTES;
        (*free < needed).then(|| {
            let (free, needed) = (free >> 20, needed >> 20);
            wrong(
                node.name.as_str(),
                format!("{free} MiB are free at {place}, ten minutes at 1 MiB/s are {needed} MiB"),
            )
        })
    });
    short.collect()
}

pub(super) fn clock(f: &Facts<'_>) -> Vec<Seen> {
    let runtime = f.lab.runtime.as_ref();
    let heartbeat = runtime.and_then(|r| r.settings.get("heartbeat_ms")?.as_i64());
    let most = heartbeat.unwrap_or(1000) + CLOCK_CHIP_MS;
    let clocks: Vec<(&str, (i64, i64))> = f.seen().filter_map(|(n, facts)| Some((n, facts.clock?))).collect();
    let mut offsets: Vec<i64> = clocks.iter().map(|(_, (offset, _))| *offset).collect();
    offsets.sort_unstable();
    // All of them may be off together: nothing of a lab asks the workstation for the time.
    let Some(middle) = offsets.get(offsets.len().saturating_sub(1) / 2) else {
        return Vec::new();
    };
    let off = clocks
        .iter()
        .filter(|(_, (offset, doubt))| (offset - middle).abs() - doubt > most);
    let tell = |(node, (offset, _)): &(&str, (i64, i64))| {
        let seconds = (*offset - middle) as f64 / 1e3;
        wrong(*node, format!("its clock is {seconds:+.1} s from that of the others"))
    };
    off.map(tell).collect()
}

pub(super) fn packages(f: &Facts<'_>) -> Vec<Seen> {
    let mut members = f.lab.with_role(NodeRole::Member).filter_map(|n| {
        let facts = f.nodes.get(n.name.as_str())?.as_ref().ok()?;
        Some((n.name.as_str(), facts.packages.as_ref()?))
    });
    let Some((first, theirs)) = members.next() else {
        return Vec::new();
    };
    let compare = |(node, ours): (&str, &BTreeMap<String, String>)| {
        let differs = |name: &&String| theirs.get(*name) != ours.get(*name);
        let mut names: Vec<&String> = theirs.keys().chain(ours.keys()).filter(differs).collect();
        names.sort_unstable();
        names.dedup();
        let version = |of: &BTreeMap<String, String>, n: &String| of.get(n).cloned().unwrap_or_else(|| "absent".into());
        let told = names.iter().take(3);
        let told: Vec<String> = told
            .map(|n| {
                format!(
                    "{n} is {} on {first}, {} on {node}",
                    version(theirs, n),
                    version(ours, n)
                )
            })
            .collect();
        (!names.is_empty()).then(|| {
            wrong(
                format!("{first}, {node}"),
                format!("{} differ: {}", names.len(), told.join("; ")),
            )
        })
    };
    members.filter_map(compare).collect()
}

pub(super) fn configuration(f: &Facts<'_>) -> Vec<Seen> {
    let changed = f
        .seen()
        .flat_map(|(n, facts)| facts.changed.iter().flatten().map(move |c| (n, c)));
    changed
        .map(|(n, (path, how))| wrong(n, format!("{path}: {how}")))
        .collect()
}

pub(super) fn watchdog(f: &Facts<'_>) -> Vec<Seen> {
    let units = f
        .seen()
        .flat_map(|(n, facts)| facts.watchdogs.iter().flatten().map(move |u| (n, u)));
    let without = units.filter(|(_, (_, watched))| !**watched);
    without
        .map(|(n, (unit, _))| wrong(n, format!("{unit} has no watchdog")))
        .collect()
}
