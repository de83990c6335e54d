//! What must hold under the runtime `ccr`.

use super::wrong;
use crate::spec::raw::in_file_order;
use crate::spec::rules::View;
use crate::spec::{Finding, NodeRole};

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
