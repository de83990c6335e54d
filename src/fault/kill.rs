//! Processes in a machine, found by name in the guest's own process table.

use super::{FaultContext, Process, Signal};
use crate::error::{Error, Problem, Result};
use crate::guest::{Command, Output, Remote};
use crate::process::Stat;
use crate::verify::FaultRecord;
use crate::wait::{Deadline, Probe, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

/// Finding, signalling and looking again are a few commands in the guest.
const ACT: Duration = Duration::from_secs(20);

pub(super) fn send(context: &dyn FaultContext, p: &Process, record: &mut FaultRecord) -> Result<()> {
    let deadline = Deadline::scaled(ACT, context.slowness());
    let mut guest = context.remote(&p.on.node, deadline)?;
    let victims = find(&mut *guest, &p.process, deadline)?;
    if victims.is_empty() {
        return Err(Error::Usage(
            Problem::new("find the process")
                .on(format!("{} on {}", p.process, p.on.node))
                .observed("no process has this name"),
        ));
    }
    let units: Vec<String> = victims
        .iter()
        .filter_map(|v| unit(&mut *guest, v.pid, deadline))
        .collect();
    // Known before the signal goes: whoever takes it back needs them.
    record.proof = json!({ "units": &units });
    signal(&mut *guest, &victims, p.signal.word(), deadline)?;
    record.begin_us = context.journal().now_us();
    let mut unseen = true;
    let hit = wait_until("see the signal work", deadline, || {
        unseen = true;
        let now = find(&mut *guest, &p.process, deadline)?;
        unseen = false;
        let left: Vec<&Stat> = now
            .iter()
            .filter(|n| victims.iter().any(|v| (v.pid, v.began) == (n.pid, n.began)) && !done(n, p.signal))
            .collect();
        Ok(if left.is_empty() {
            Probe::Ready(())
        } else {
            Probe::NotYet(format!("{} of {} as before", left.len(), victims.len()))
        })
    });
    record.proof = json!({
        "pids": victims.iter().map(|v| v.pid).collect::<Vec<_>>(),
        "units": units,
        "seen": match &hit {
            Ok(()) if p.signal == Signal::Stop => "stopped".to_owned(),
            Ok(()) => "gone".to_owned(),
            Err(e) => e.to_string(),
        },
    });
    record.effective = if unseen { None } else { Some(hit.is_ok()) };
    Ok(())
}

/// Lets stopped processes go on, and starts the service of killed ones again. Both may be done twice.
pub(super) fn back(context: &dyn FaultContext, p: &Process, record: &FaultRecord) -> Result<()> {
    let deadline = Deadline::scaled(ACT, context.slowness());
    let mut guest = match context.remote(&p.on.node, deadline) {
        Ok(guest) => guest,
        // Whether it was sent at all is not known: that must be looked at.
        Err(e) if record.pending => return Err(e),
        // A machine that does not answer was hit by another fault: it comes back with its processes.
        Err(_) => return Ok(()),
    };
    if p.signal == Signal::Stop {
        let mut stopped = find(&mut *guest, &p.process, deadline)?;
        stopped.retain(Stat::stopped);
        if !stopped.is_empty() {
            signal(&mut *guest, &stopped, "CONT", deadline)?;
        }
        return Ok(());
    }
    for unit in record.proof["units"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        succeeded(
            guest.exec(&Command::new(["systemctl", "start", "--", unit]), deadline)?,
            "start the service",
            unit,
        )?;
    }
    Ok(())
}

fn done(process: &Stat, signal: Signal) -> bool {
    match signal {
        Signal::Stop => process.stopped(),
        _ => !process.runs(),
    }
}

/// Every process of this name. The guests have no pgrep, so their /proc is searched.
fn find(guest: &mut dyn Remote, name: &str, deadline: Deadline) -> Result<Vec<Stat>> {
    let search = Command::new([
        "find",
        "/proc",
        "-mindepth",
        "2",
        "-maxdepth",
        "2",
        "-path",
        "/proc/[0-9]*/comm",
        "-exec",
        "grep",
        "-lsxF",
        "--",
        name,
        "{}",
        "+",
    ]);
    let found = guest.exec(&search, deadline)?;
    // find and grep also fail where a process ended between the two: what was printed counts.
    let pids: Vec<u32> = String::from_utf8_lossy(&found.stdout)
        .lines()
        .filter_map(|l| l.strip_prefix("/proc/")?.strip_suffix("/comm")?.parse().ok())
        .collect();
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    let files = pids.iter().map(|p| format!("/proc/{p}/stat"));
    let stats = guest.exec(
        &Command::new(["cat".to_owned(), "--".to_owned()].into_iter().chain(files)),
        deadline,
    )?;
    Ok(String::from_utf8_lossy(&stats.stdout)
        .lines()
        .filter_map(Stat::parse)
        .collect())
}

/// The systemd service that a process belongs to.
fn unit(guest: &mut dyn Remote, pid: u32, deadline: Deadline) -> Option<String> {
    let out = guest
        .exec(&Command::new(["cat", &format!("/proc/{pid}/cgroup")]), deadline)
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    path.rsplit('/')
        .find(|part| part.ends_with(".service"))
        .map(str::to_owned)
}

/// `kill` is a part of the shell here; the script is constant and gets words, not text.
fn signal(guest: &mut dyn Remote, to: &[Stat], name: &str, deadline: Deadline) -> Result<()> {
    let pids = to.iter().map(|f| f.pid.to_string());
    let argv = ["sh", "-c", "s=$1; shift; kill -s \"$s\" -- \"$@\"", "kill", name].map(str::to_owned);
    let out = guest.exec(&Command::new(argv.into_iter().chain(pids)), deadline)?;
    succeeded(out, "send the signal", name)
}

fn succeeded(out: Output, what: &str, on: &str) -> Result<()> {
    if out.status == 0 {
        return Ok(());
    }
    let seen = String::from_utf8_lossy(&out.stderr);
    Err(Error::Operation(Problem::new(what).on(on).observed(format!(
        "status {}: {}",
        out.status,
        seen.trim()
    ))))
}
