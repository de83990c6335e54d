//! The carrier of a machine's cables, as the guest sees it.

use super::{Cable, FaultContext};
use crate::error::{Error, Problem, Result};
use crate::guest::Command;
use crate::hypervisor::Described;
use crate::spec::Nic;
use crate::verify::FaultRecord;
use crate::wait::Deadline;
use serde_json::{Value, json};
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(5);

pub(super) fn set(context: &dyn FaultContext, cable: &Cable, up: bool, record: &mut FaultRecord) -> Result<()> {
    let node = &cable.on.node;
    let nics = nics(context, cable)?;
    for (done, nic) in nics.iter().enumerate() {
        if let Err(e) = context.hypervisor().set_link(node, &nic.mac.to_string(), up) {
            let undo = nics[..done]
                .iter()
                .filter_map(|n| context.hypervisor().set_link(node, &n.mac.to_string(), !up).err());
            return Err(e.with_rollback(undo.map(|e| e.to_string()).collect::<Vec<_>>()));
        }
    }
    record.begin_us = context.journal().now_us();
    // What is looked up now proves, or proves nothing: the carrier is set.
    let xml = context.hypervisor().xml(node).ok();
    let mut proof = Vec::new();
    let mut effective = Some(true);
    for nic in nics {
        let described = xml
            .as_deref()
            .and_then(|x| link_state(x, &nic.mac.to_string()).ok().flatten());
        let carrier = carrier(context, node, &nic.interface);
        // The guest's own view counts; libvirt's where the guest does not answer.
        effective = match (effective, carrier.or(described)) {
            (Some(false), _) => Some(false),
            (_, Some(is_up)) if is_up != up => Some(false),
            (None, _) | (_, None) => None,
            (Some(true), Some(_)) => Some(true),
        };
        proof.push(json!({
            "network": nic.network, "interface": nic.interface, "guest_carrier": carrier,
            "domain_link": described.map(|u| if u { "up" } else { "down" }),
        }));
    }
    record.proof = Value::Array(proof);
    record.effective = effective;
    if up {
        record.end_us = Some(record.begin_us);
    }
    Ok(())
}

pub(super) fn back_up(context: &dyn FaultContext, cable: &Cable) -> Result<()> {
    // A machine that is off comes back with its carrier up.
    if context.hypervisor().lookup(&cable.on.node)?.is_none() {
        return Ok(());
    }
    for nic in nics(context, cable)? {
        context
            .hypervisor()
            .set_link(&cable.on.node, &nic.mac.to_string(), true)?;
    }
    Ok(())
}

fn nics<'a>(context: &'a dyn FaultContext, cable: &Cable) -> Result<Vec<&'a Nic>> {
    let node = context.lab().node(&cable.on.node);
    cable
        .networks
        .iter()
        .map(|network| {
            node.and_then(|n| n.nics.iter().find(|nic| nic.network.as_str() == network))
                .ok_or_else(|| {
                    Error::Usage(
                        Problem::new("find the cable")
                            .on(format!("{} on {network}", cable.on.node))
                            .observed("the lab has no such cable"),
                    )
                })
        })
        .collect()
}

/// What the guest's kernel says; none where it did not answer.
fn carrier(context: &dyn FaultContext, node: &str, interface: &str) -> Option<bool> {
    let deadline = Deadline::scaled(LOOK, context.slowness());
    let path = format!("/sys/class/net/{interface}/carrier");
    let out = context
        .remote(node, deadline)
        .ok()?
        .exec(&Command::new(["cat", &path]), deadline);
    match out.ok()?.stdout.trim_ascii() {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

/// What the live XML says of the port with this MAC; none where there is no such port.
fn link_state(xml: &str, mac: &str) -> Result<Option<bool>> {
    let carriers = Described::parse(xml)?.carriers();
    let ours = carriers.iter().find(|(m, _)| m.eq_ignore_ascii_case(mac));
    Ok(ours.map(|(_, up)| *up))
}
