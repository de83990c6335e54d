//! Machines go on from the instant of a checkpoint.

use super::meta::{NodeMeta, NodeState};
use super::store::Checkpoint;
use super::{HoldGuard, clock, each};
use crate::error::{Error, Problem, Result};
use crate::event::monotonic_us;
use crate::fabric;
use crate::guest::agent::Agents;
use crate::hypervisor::{Hypervisor, Machine};
use crate::wait::{Deadline, Slowness};
use std::sync::Arc;
use std::time::Duration;

/// How long a machine may take to go on and to set its clock.
const CLOCK: Duration = Duration::from_secs(20);

/// Where the machines come back.
pub struct RestoreRequest<'a> {
    /// Runs them.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Their networks, on the ports that the machines name, with the checkpoint's rules.
    pub fabric: &'a dyn fabric::Control,
    /// Speaks to their agents.
    pub agents: &'a Agents,
    /// The machines on the files that [`super::unpack()`] made. Carriers are taken from the checkpoint.
    pub machines: Vec<Machine>,
    /// The host's slowness.
    pub slowness: Slowness,
    /// Called as soon as all machines run and their clocks are right: until then nothing else should want their processors.
    pub resumed: &'a (dyn Fn() + Sync),
}

impl std::fmt::Debug for RestoreRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreRequest")
            .field("machines", &self.machines)
            .finish_non_exhaustive()
    }
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Restored {
    /// From the first machine's resumption to the last one's, microseconds.
    pub skew_us: u64,
    /// How long the networks kept frames while machines ran, microseconds.
    pub held_us: u64,
    /// Each machine that was in memory.
    pub nodes: Vec<RestoredNode>,
}

/// How it went with one machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RestoredNode {
    /// Its name.
    pub name: String,
    /// How far its clock is from where it belongs, microseconds; absent where the checkpoint knows no offset.
    pub clock_error_us: Option<i64>,
    /// From its resumption until its clock was right, microseconds.
    pub clock_set_us: Option<u64>,
}

/// Restores every machine suspended, lets them go on together, and sets their clocks while the networks keep frames.
///
/// A machine that was suspended comes back suspended; one that was off stays off. Whatever fails, no machine is left.
pub fn restore(checkpoint: &Checkpoint, to: RestoreRequest<'_>) -> Result<Restored> {
    let known: Vec<(&NodeMeta, Machine)> = to
        .machines
        .iter()
        .filter_map(|m| Some((checkpoint.meta.node(&m.name)?, m.clone())))
        .filter(|(n, _)| n.state != NodeState::Off)
        .collect();
    go_on(checkpoint, &to, &known).map_err(|e| {
        let ended = each(&known, |(n, _)| to.hypervisor.destroy(&n.name));
        e.with_rollback(ended.into_iter().filter_map(Result::err).map(|e| e.to_string()))
    })
}

fn go_on(checkpoint: &Checkpoint, to: &RestoreRequest<'_>, known: &[(&NodeMeta, Machine)]) -> Result<Restored> {
    let held = HoldGuard::hold(to.fabric);
    all(each(known, |(node, machine)| {
        let mut machine = machine.clone();
        for port in &mut machine.ports {
            port.link_up = node.links.get(&port.mac.to_string()).copied().unwrap_or(true);
        }
        to.hypervisor
            .restore(&checkpoint.files.memory(&node.name), &machine.to_xml()?)
    }))?;
    let running: Vec<_> = known.iter().filter(|(n, _)| n.state == NodeState::Running).collect();
    let begin = monotonic_us();
    let resumed = all(each(&running, |(node, _)| {
        to.hypervisor.resume(&node.name).map(|()| monotonic_us())
    }))?;
    let deadline = Deadline::scaled(CLOCK, to.slowness);
    let since: Vec<_> = running.iter().zip(&resumed).collect();
    let set = all(each(&since, |((node, machine), resumed)| {
        let Some(offset) = node.clock_offset_us else {
            return Ok(None);
        };
        let line = to.agents.renew(&node.name, &machine.agent, deadline)?;
        let seen = clock::look(&line, deadline)?;
        same_boot(node, &seen.boot_id)?;
        let error = clock::set(&line, seen, offset, deadline)?;
        Ok(Some((error, monotonic_us() - **resumed)))
    }))?;
    drop(held);
    (to.resumed)();
    let held_us = monotonic_us() - begin;
    let nodes = running.iter().zip(&set).map(|((node, _), set)| RestoredNode {
        name: node.name.clone(),
        clock_error_us: set.map(|(error, _)| error),
        clock_set_us: set.map(|(_, took)| took),
    });
    let nodes = nodes.collect();
    let (first, last) = (resumed.iter().min(), resumed.iter().max());
    Ok(Restored {
        skew_us: last.zip(first).map_or(0, |(l, f)| l - f),
        held_us,
        nodes,
    })
}

/// That it was restored, and not booted.
fn same_boot(node: &NodeMeta, now: &str) -> Result<()> {
    match &node.boot_id {
        Some(then) if then != now => {
            let seen = format!("it booted instead: boot id {now}, at the checkpoint {then}");
            Err(Error::Operation(
                Problem::new("restore the machine").on(&node.name).observed(seen),
            ))
        }
        _ => Ok(()),
    }
}

fn all<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    results.into_iter().collect()
}
