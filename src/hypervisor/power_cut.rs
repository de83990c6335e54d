//! Ends a machine's process at once, and only then lets libvirt know.
//!
//! libvirt asks a process to end, and looks 200 ms later whether it has; the same when the machine's monitor hangs up, which comes a
//! moment before the process is gone. So we hold the process's ends of its sockets until nothing is left of it: libvirt then finds that
//! there is nothing to wait for.

use super::orphans;
use crate::process::Stat;
use crate::wait::{Deadline, Probe, wait_until};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};
use std::path::Path;
use std::time::Duration;

/// A killed process is gone as soon as the kernel has taken its memory back and its parent has noticed; that of a machine which was
/// adopted is the system's init, and not every container has one that looks.
const GONE: Duration = Duration::from_millis(500);

/// The sockets of a process that was killed: libvirt hears that it hung up when this is dropped.
#[derive(Debug)]
#[must_use = "libvirt is told of the end when this is dropped"]
pub(super) struct Sockets(#[expect(dead_code, reason = "held open, not used")] Vec<OwnedFd>);

/// Kills the QEMU of `root` with this process id. `None`, and it lives on, where the kernel does not let us hold its sockets
/// (`pidfd_getfd`, Linux 5.6, follows the rules of debuggers) or another process has this id: libvirt ends it in its own way then.
pub(super) fn kill(root: &Path, pid: u32) -> Option<Sockets> {
    let process = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    // The id is looked at while it cannot become another process's.
    if !orphans::is_of(root, pid) {
        return None;
    }
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
        let entry = entry.ok()?;
        let is_socket = match std::fs::read_link(entry.path()) {
            Ok(to) => to.to_string_lossy().starts_with("socket:"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(_) => return None,
        };
        if is_socket {
            let number = entry.file_name().to_str()?.parse().ok()?;
            sockets.extend(hold(&process, number).ok()?);
        }
    }
    pidfd_send_signal(&process, Signal::KILL).ok()?;
    // One that takes longer only costs the time that this saves.
    let _ = wait_until("see a killed machine go", Deadline::after(GONE), || {
        Ok(if Stat::of(pid).is_none() {
            Probe::Ready(())
        } else {
            Probe::NotYet("it is still there".into())
        })
    });
    Some(Sockets(sockets))
}

/// A copy of the descriptor `number` of `process`. `None`: it was closed since it was listed, and there is nothing to hold.
fn hold(process: &OwnedFd, number: i32) -> rustix::io::Result<Option<OwnedFd>> {
    match pidfd_getfd(process, number, PidfdGetfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::BADF) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::orphans::tests::pretends;
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_hears_of_the_end_when_nothing_is_left() {
        let root = Path::new("/nowhere/power-cut");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut child = pretends(root, OwnedFd::from(theirs));
        let pid = child.id();
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        if let Err(e) = pidfd_getfd(&process, 0, PidfdGetfdFlags::empty()) {
            assert!(kill(root, pid).is_none(), "what may not be held is not killed");
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            eprintln!("only half tested: this system allows no pidfd_getfd ({e})");
            return;
        }
        assert!(hold(&process, 0).unwrap().is_some());
        assert!(
            hold(&process, 1000).unwrap().is_none(),
            "one that was closed meanwhile is no reason to give up"
        );
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        let sockets = kill(root, pid).unwrap();
        assert!(!reaper.join().unwrap().success());
        assert!(Stat::of(pid).is_none());
        ours.set_nonblocking(true).unwrap();
        let e = ours.read(&mut [0]).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "it has not hung up yet");
        drop(sockets);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "now it has");
    }

    #[test]
    fn a_process_that_is_none_of_ours_lives_on() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut child = pretends(Path::new("/nowhere/else"), OwnedFd::from(theirs));
        assert!(kill(Path::new("/nowhere/power-cut"), child.id()).is_none());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(kill(Path::new("/nowhere/else"), child.id()).is_none(), "it is gone");
    }
}
