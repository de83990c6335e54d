//! Machines that were being started when the process died that started them. Either libvirt had not written them down: no other process would
//! ever end such a QEMU. Or it had, with a job that it takes up again and never ends: no call on such a domain ever returns.

use crate::error::{Error, IoContext, Problem, Result};
use crate::process;
use crate::wait::{Deadline, Probe, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

/// A killed process is gone as soon as the kernel has taken its memory back.
const END: Duration = Duration::from_secs(20);

/// What matters of libvirt's notes on a domain (`run/qemu/NAME.xml`).
#[derive(Deserialize)]
struct Notes {
    job: Option<Job>,
}

#[derive(Deserialize)]
struct Job {
    #[serde(rename = "@async")]
    kind: Option<String>,
}

/// Removes libvirt's notes on machines that were being started, before it reads them; returns how many. No machine runs in `root` now.
pub(super) fn forget_unfinished(root: &Path) -> Result<usize> {
    let dir = root.join("run/qemu");
    let mut forgotten = 0;
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "xml") {
            continue;
        }
        let text = fs_err::read_to_string(&path).tried("read libvirt's notes", path.display())?;
        // What cannot be read libvirt will complain about itself.
        let job = quick_xml::de::from_str::<Notes>(&text).ok().and_then(|n| n.job?.kind);
        if job.as_deref() == Some("start") {
            fs_err::remove_file(&path).tried("remove libvirt's notes", path.display())?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

/// Ends every QEMU of `root` that is not among the `known` processes; returns how many.
pub(super) fn end(root: &Path, known: &[u32]) -> Result<usize> {
    let orphans: Vec<u32> = of(root).into_iter().filter(|pid| !known.contains(pid)).collect();
    for &pid in &orphans {
        if let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // One that ended meanwhile is no error.
            let _ = kill_process(target, Signal::KILL);
        }
    }
    wait_until("see machines end that libvirt lost", Deadline::after(END), || {
        Ok(match orphans.iter().filter(|&&pid| process::runs(pid)).count() {
            0 => Probe::Ready(()),
            n => Probe::NotYet(format!("{n} still run")),
        })
    })
    .map_err(|e| {
        Error::Operation(
            Problem::new("end machines that libvirt lost")
                .on(root.display())
                .observed(e),
        )
    })?;
    Ok(orphans.len())
}

/// QEMU processes of `root`.
fn of(root: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|&pid| is_of(root, pid))
        .collect()
}

/// The process id that libvirt wrote down for the machine `name`.
pub(super) fn pid_file(root: &Path, name: &str) -> std::io::Result<u32> {
    let text = fs_err::read_to_string(root.join("run/qemu").join(format!("{name}.pid")))?;
    text.trim().parse().map_err(std::io::Error::other)
}

/// Whether the process is a QEMU of `root`: libvirt names a folder in it on the command line, as `"file":"ROOT/lib/qemu/domain-2-a/…"`.
pub(super) fn is_of(root: &Path, pid: u32) -> bool {
    let mark = format!("\"{}", root.join("lib/qemu/domain-").display());
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&cmdline).contains(&mark)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that looks like a QEMU of `root`, and has this as its standard input.
    pub(in super::super) fn pretends(root: &Path, stdin: impl Into<Stdio>) -> Child {
        let mark = format!(
            "\"file\":\"{}\"",
            root.join("lib/qemu/domain-2-a/master-key.aes").display()
        );
        // Waits for a word that never comes, in a shell of its own that keeps the mark on its command line.
        let child = Command::new("sh")
            .args(["-c", "read word", "sh", &mark])
            .stdin(stdin)
            .spawn()
            .unwrap();
        // It is let go while it still becomes the shell: it has no command line yet, and files that it is about to close.
        wait_until("see it", Deadline::after(END), || {
            Ok(if is_of(root, child.id()) {
                Probe::Ready(())
            } else {
                Probe::NotYet("its command line is not there".into())
            })
        })
        .unwrap();
        child
    }

    #[test]
    fn only_notes_on_unfinished_starts_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(forget_unfinished(dir.path()).unwrap(), 0, "no folder yet");
        let notes = dir.path().join("run/qemu");
        std::fs::create_dir_all(&notes).unwrap();
        let of = |job: &str| {
            format!(
                "<!-- made by libvirt -->\n<domstatus state='paused' reason='starting up' pid='0'>\n  <taint flag='x'/>\n{job}  <domain type='qemu' id='2'><name>a</name></domain>\n</domstatus>"
            )
        };
        for (name, text) in [
            ("a.xml", of("  <job type='none' async='start' flags='0x4'/>\n")),
            ("b.xml", of("  <job type='none' async='snapshot'/>\n")),
            ("c.xml", of("")),
            ("d.xml", "<domstatus".to_owned()),
            ("e.xml.new", of("  <job type='none' async='start'/>\n")),
        ] {
            std::fs::write(notes.join(name), text).unwrap();
        }
        assert_eq!(forget_unfinished(dir.path()).unwrap(), 1);
        let mut left: Vec<_> = std::fs::read_dir(&notes)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["b.xml", "c.xml", "d.xml", "e.xml.new"]);
    }

    #[test]
    fn only_what_libvirt_lost_in_this_root_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (dir.path().join("r"), dir.path().join("r2"));
        let start = |root| pretends(root, Stdio::piped());
        let (mut lost, mut known, mut others) = (start(&ours), start(&ours), start(&other));
        assert_eq!(end(&ours, &[known.id()]).unwrap(), 1);
        assert!(!process::runs(lost.id()));
        assert!(process::runs(known.id()) && process::runs(others.id()));
        assert_eq!(end(&ours, &[known.id()]).unwrap(), 0, "a second time there is nothing");
        for child in [&mut lost, &mut known, &mut others] {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_id_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("run/qemu");
        std::fs::create_dir_all(&notes).unwrap();
        for (name, text) in [("a", "41\n"), ("b", ""), ("c", "4x")] {
            std::fs::write(notes.join(format!("{name}.pid")), text).unwrap();
        }
        assert_eq!(pid_file(dir.path(), "a").unwrap(), 41);
        for name in ["b", "c", "d"] {
            pid_file(dir.path(), name).unwrap_err();
        }
    }
}
