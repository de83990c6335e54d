//! Machines: power and processors.

use super::{FaultContext, Target};
use crate::error::{Error, Problem, Result};
use crate::guest::Command;
use crate::hypervisor::DomainState;
use crate::verify::FaultRecord;
use crate::wait::{Deadline, Probe, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// libvirt's own wait for a process to end is 30 s at most.
const GONE: Duration = Duration::from_secs(40);
/// A look into a guest that answers takes one SSH handshake, about a second on a slow machine.
const LOOK: Duration = Duration::from_secs(5);

/// Suspends, takes that instant, then destroys: libvirt's destroy asks the process to end and waits, a power cut does not.
pub(super) fn off(context: &dyn FaultContext, t: &Target, record: &mut FaultRecord) -> Result<()> {
    let hypervisor = context.hypervisor();
    let pid = running(context, &t.node, "power off the machine")?;
    hypervisor.suspend(&t.node)?;
    record.begin_us = context.journal().now_us();
    if let Err(e) = hypervisor.destroy(&t.node) {
        let undo = hypervisor.resume(&t.node).err();
        return Err(e.with_rollback(undo.map(|e| e.to_string())));
    }
    let mut unseen = true;
    let gone = wait_until(
        "see the machine gone",
        Deadline::scaled(GONE, context.slowness()),
        || {
            unseen = true;
            let state = hypervisor.lookup(&t.node)?.map(|d| d.state);
            unseen = false;
            let process = pid.is_some_and(exists);
            Ok(match (state, process) {
                (None | Some(DomainState::Off), false) => Probe::Ready(()),
                (state, process) => Probe::NotYet(format!("domain {state:?}, process there: {process}")),
            })
        },
    );
    record.effective = if unseen { None } else { Some(gone.is_ok()) };
    record.proof = json!({"suspended_us": record.begin_us, "pid": pid});
    match gone {
        Ok(()) => {
            record.proof["gone_us"] = json!(context.journal().now_us());
            record.proof["domain"] = json!("gone");
        }
        Err(e) => record.proof["domain"] = json!(e.to_string()),
    }
    Ok(())
}

pub(super) fn on(context: &dyn FaultContext, t: &Target, record: &mut FaultRecord) -> Result<()> {
    if let Some(domain) = context.hypervisor().lookup(&t.node)?
        && domain.state != DomainState::Off
    {
        return Err(not_that(
            &t.node,
            "power on the machine",
            &format!("it is {:?} already", domain.state),
        ));
    }
    context.restart_machine(&t.node)?;
    let (effective, domain) = looked(context, &t.node, DomainState::Running, "running");
    let pid = context.hypervisor().lookup(&t.node).ok().flatten().and_then(|d| d.pid);
    record.proof = json!({ "domain": domain, "pid": pid });
    record.effective = effective;
    record.end_us = Some(context.journal().now_us());
    Ok(())
}

pub(super) fn back_on(context: &dyn FaultContext, t: &Target) -> Result<()> {
    match context.hypervisor().lookup(&t.node)?.map(|d| d.state) {
        None | Some(DomainState::Off) => context.restart_machine(&t.node),
        Some(_) => Ok(()),
    }
}

pub(super) fn freeze(context: &dyn FaultContext, t: &Target, record: &mut FaultRecord) -> Result<()> {
    running(context, &t.node, "freeze the machine")?;
    let before = guest_clock(context, &t.node);
    context.hypervisor().suspend(&t.node)?;
    record.begin_us = context.journal().now_us();
    let (effective, domain) = looked(context, &t.node, DomainState::Paused, "paused");
    record.proof = json!({ "domain": domain, "boot_clock_before": before });
    record.effective = effective;
    Ok(())
}

pub(super) fn resume(context: &dyn FaultContext, t: &Target, record: &mut FaultRecord) -> Result<()> {
    let state = context.hypervisor().lookup(&t.node)?.map(|d| d.state);
    if state != Some(DomainState::Paused) {
        return Err(not_that(&t.node, "resume the machine", &describe(state)));
    }
    context.hypervisor().resume(&t.node)?;
    record.begin_us = context.journal().now_us();
    let (effective, domain) = looked(context, &t.node, DomainState::Running, "running");
    record.proof = json!({ "domain": domain });
    record.effective = effective;
    record.end_us = Some(record.begin_us);
    Ok(())
}

/// Ends a freeze. The guest's own clock is the second witness: it must have stood still.
pub(super) fn go_on(context: &dyn FaultContext, t: &Target, record: &mut FaultRecord) -> Result<()> {
    if context.hypervisor().lookup(&t.node)?.map(|d| d.state) != Some(DomainState::Paused) {
        return Ok(());
    }
    let frozen_us = context.journal().now_us().saturating_sub(record.begin_us);
    context.hypervisor().resume(&t.node)?;
    let after = guest_clock(context, &t.node);
    if let Some(stood_still) = stood_still(&record.proof["boot_clock_before"], &after, frozen_us) {
        record.effective = Some(record.effective == Some(true) && stood_still);
    }
    record.proof["frozen_us"] = json!(frozen_us);
    record.proof["boot_clock_after"] = after;
    Ok(())
}

/// Whether the guest's clock missed at least half of the freeze; none where it could not be read or the freeze was too short to tell.
fn stood_still(before: &Value, after: &Value, frozen_us: u64) -> Option<bool> {
    let host = after["host_us"].as_u64()?.checked_sub(before["host_us"].as_u64()?)?;
    let guest = after["boot_us"].as_u64()?.checked_sub(before["boot_us"].as_u64()?)?;
    // /proc/uptime has hundredths of a second, and each look takes its time.
    (frozen_us >= 1_000_000).then(|| host.saturating_sub(guest) >= frozen_us / 2)
}

/// The guest's boot-time clock beside the host's; null where the guest did not answer.
fn guest_clock(context: &dyn FaultContext, node: &str) -> Value {
    let deadline = Deadline::scaled(LOOK, context.slowness());
    let uptime = context
        .remote(node, deadline)
        .and_then(|mut r| r.exec(&Command::new(["cat", "/proc/uptime"]), deadline));
    let seconds = uptime.ok().filter(|o| o.status == 0).and_then(|o| {
        let text = String::from_utf8(o.stdout).ok()?;
        text.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    match seconds {
        Some(s) if s.is_finite() && s >= 0.0 => {
            json!({"host_us": context.journal().now_us(), "boot_us": (s * 1e6) as u64})
        }
        _ => Value::Null,
    }
}

/// Whether the machine is in this state behind the act, and in words; unknown where neither can be read.
fn looked(context: &dyn FaultContext, node: &str, wanted: DomainState, word: &str) -> (Option<bool>, String) {
    match context.hypervisor().lookup(node) {
        Ok(Some(d)) if d.state == wanted => (Some(true), word.to_owned()),
        Ok(_) => (Some(false), format!("not {word}")),
        Err(e) => (None, format!("unknown: {e}")),
    }
}

/// The process of a machine that runs; a usage error where it does not.
fn running(context: &dyn FaultContext, node: &str, what: &str) -> Result<Option<u32>> {
    let domain = context.hypervisor().lookup(node)?;
    match domain {
        Some(d) if d.state == DomainState::Running => Ok(d.pid),
        other => Err(not_that(node, what, &describe(other.map(|d| d.state)))),
    }
}

fn describe(state: Option<DomainState>) -> String {
    match state {
        None | Some(DomainState::Off) => "it is off".to_owned(),
        Some(DomainState::Paused) => "it is frozen".to_owned(),
        Some(DomainState::Running) => "it runs".to_owned(),
        Some(DomainState::Other) => "it is in a state that we do not use".to_owned(),
    }
}

fn not_that(node: &str, what: &str, seen: &str) -> Error {
    Error::Usage(Problem::new(what).on(node).observed(seen))
}

fn exists(pid: u32) -> bool {
    // A process that has ended and was not reaped yet has no executable any more.
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_on_disproves_a_freeze() {
        let at = |host: u64, boot: u64| json!({"host_us": host, "boot_us": boot});
        let s = 1_000_000;
        assert_eq!(stood_still(&at(0, 0), &at(11 * s, s), 10 * s), Some(true));
        assert_eq!(stood_still(&at(0, 0), &at(11 * s, 11 * s), 10 * s), Some(false));
        assert_eq!(stood_still(&at(0, 0), &Value::Null, 10 * s), None);
        assert_eq!(stood_still(&at(0, 0), &at(s, s), s / 10), None);
    }
}
