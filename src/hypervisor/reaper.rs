//! Orphans of libvirt: its QEMU processes are daemons, and whoever inherits a daemon must reap it.

use crate::error::{IoContext, Result};
use crate::process::Stat;
use crate::wait::{Deadline, Probe, wait_until};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use std::sync::OnceLock;
use std::time::Duration;

/// Makes this process inherit the daemons that libvirt leaves behind, and reaps them as they end.
///
/// libvirt's probes and `destroy` wait until the process id is gone, which takes as long as its parent takes to reap it: with a
/// slow or missing init that is seconds. Call once before the first connection; later calls do nothing.
pub fn become_subreaper() -> Result<()> {
    static STARTED: OnceLock<()> = OnceLock::new();
    if STARTED.set(()).is_err() {
        return Ok(());
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .tried("inherit the machines' processes", "")?;
    std::thread::Builder::new()
        .name("reaper".into())
        .spawn(reap_for_ever)
        .tried("start the thread that reaps the machines' processes", "")?;
    Ok(())
}

fn reap_for_ever() {
    loop {
        // A wait that runs out only means that nothing ended for an hour.
        let _ = wait_until("see an orphan end", Deadline::after(Duration::from_secs(3600)), || {
            // Blocks until some child has ended, and leaves it for whoever started it; without children it returns at once.
            let ended = rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let reaped = ended.is_ok() && reap_orphans() > 0;
            Ok(if reaped {
                Probe::Ready(())
            } else {
                Probe::NotYet("nothing to reap".into())
            })
        });
    }
}

/// Reaps every ended child that was inherited; returns how many.
fn reap_orphans() -> usize {
    children()
        .into_iter()
        .filter(|&pid| inherited(pid))
        .filter(|&pid| matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))))
        .count()
}

/// Whether `pid`, a child of ours, was started by another process.
///
/// What we (or libvirt within us) fork is in our session or leads its own. A child that is in a third session is a daemon whose
/// parent ended: no thread of this process waits for it, so reaping it takes nothing away from libvirt's own `waitpid`. Read from
/// /proc: getsid(2) answers 0 where our leader lives outside this process namespace (a container's), which is no process id.
fn inherited(pid: Pid) -> bool {
    let session = |pid: u32| Stat::of(pid).map(|s| s.session);
    let pid = pid.as_raw_pid().unsigned_abs();
    match (session(pid), session(std::process::id())) {
        (Some(its), Some(ours)) => its != pid && its != ours,
        _ => false,
    }
}

fn children() -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|p| p.parse().ok().and_then(Pid::from_raw))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_daemon_is_reaped_and_a_child_of_our_own_is_not() {
        become_subreaper().unwrap();
        // Ours: ends at once, and its status must still be there when we ask for it later.
        let mut ours = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let mut leader = Command::new("setsid")
            .args(["--wait", "sh", "-c", "exit 8"])
            .spawn()
            .unwrap();
        // A daemon: a grandchild in a session whose leader has ended.
        let out = Command::new("setsid")
            .args(["sh", "-c", "sleep 0.2 >/dev/null 2>&1 & echo $!"])
            .output()
            .unwrap();
        let daemon: i32 = String::from_utf8(out.stdout).unwrap().trim().parse().unwrap();
        wait_until(
            "see the daemon reaped",
            Deadline::after(Duration::from_secs(10)),
            || {
                let gone = !std::path::Path::new(&format!("/proc/{daemon}")).exists();
                Ok(if gone {
                    Probe::Ready(())
                } else {
                    Probe::NotYet(format!("process {daemon} is still there"))
                })
            },
        )
        .unwrap();
        assert_eq!(ours.wait().unwrap().code(), Some(7));
        assert_eq!(leader.wait().unwrap().code(), Some(8));
    }
}
