//! Running the programs that make an image: with a deadline, cancellable, keeping their last words.

use crate::error::{Error, IoContext, Problem, Result};
use crate::wait::Deadline;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How often a running program is looked at when it says nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a failed program that go into the error.
const LAST_WORDS: usize = 12;
/// Longest line and longest output that are kept, in bytes.
const LINE_MAX: u64 = 16 << 10;
const OUTPUT_MAX: u64 = 16 << 20;

/// Finds a program on `PATH` or, as administrators' folders are not on every user's, in `/usr/sbin` and `/sbin`.
pub fn find_program(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = Path::new(name.as_ref());
    if name.components().count() > 1 {
        return is_executable(name).then(|| name.to_owned());
    }
    std::env::split_paths(&search_path())
        .map(|dir| dir.join(name))
        .find(|p| is_executable(p))
}

/// `PATH` with the administrators' folders at its end.
pub fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What is run: for the error, should it fail.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Fits "could not {what}".
    pub what: &'a str,
    /// The file or image that it is about.
    pub on: &'a str,
    /// The program, as people know it: it may be run by others that set its rights.
    pub program: &'a str,
    /// The Debian package that has the program.
    pub package: &'a str,
    /// When it is ended.
    pub deadline: Deadline,
    /// Set by the person's interruption.
    pub cancel: &'a AtomicBool,
}

enum StderrItem {
    Line(String),
    StderrClosed,
}

impl Run<'_> {
    /// A command in C's locale, without input, in a process group of its own.
    ///
    /// # Errors
    /// [`Error::Host`] where the program is missing.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let found = find_program(program).ok_or_else(|| missing(self.what, program, self.package))?;
        let mut command = Command::new(found);
        command
            .env("LC_ALL", "C")
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .process_group(0);
        Ok(command)
    }

    /// Runs to the end and gives what went to stdout; `line` hears each line of stderr.
    ///
    /// # Errors
    /// [`Error::Operation`] with the program's last lines where it failed or the deadline passed;
    /// [`Error::Interrupted`] where the person cancelled. In each case the program's whole group is gone.
    pub fn output(&self, command: Command, line: &mut dyn FnMut(&str)) -> Result<Vec<u8>> {
        self.output_if(command, &[0], line)
    }

    /// Like [`Run::output`] for a program whose exit status `good` is an answer as well.
    pub fn output_if(&self, mut command: Command, good: &[i32], line: &mut dyn FnMut(&str)) -> Result<Vec<u8>> {
        let program = self.program;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| self.failed(format!("{program}: {e}")))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (tell, hear) = channel();
        let out = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // One byte more than allowed shows that it was too much.
            let _ = stdout.take(OUTPUT_MAX + 1).read_to_end(&mut bytes);
            bytes
        });
        std::thread::spawn(move || {
            for_each_line(stderr, |l| tell.send(StderrItem::Line(l)).is_ok());
            let _ = tell.send(StderrItem::StderrClosed);
        });
        let mut last = VecDeque::new();
        let ended = self.follow(&mut child, &hear, &mut last, line);
        if ended.is_err() {
            end_group(&mut child);
        }
        let status = match ended {
            Err(Error::Operation(p)) => {
                let seen = p.observed.unwrap_or_default();
                return Err(self.failed(with_last_words(&seen, &last)));
            }
            other => other?,
        };
        let bytes = out.join().unwrap_or_default();
        if !status.code().is_some_and(|c| good.contains(&c)) {
            return Err(self.failed(with_last_words(&format!("{program}: {status}"), &last)));
        }
        if bytes.len() as u64 > OUTPUT_MAX {
            return Err(self.failed(format!("{program}: printed more than {} MiB", OUTPUT_MAX >> 20)));
        }
        Ok(bytes)
    }

    fn follow(
        &self,
        child: &mut Child,
        hear: &Receiver<StderrItem>,
        last: &mut VecDeque<String>,
        line: &mut dyn FnMut(&str),
    ) -> Result<ExitStatus> {
        let mut open = true;
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if self.deadline.passed() {
                return Err(self.failed("time ran out".to_owned()));
            }
            if open {
                match hear.recv_timeout(LOOK) {
                    Ok(StderrItem::Line(text)) => {
                        line(&text);
                        keep(last, text);
                        continue;
                    }
                    Ok(StderrItem::StderrClosed) | Err(RecvTimeoutError::Disconnected) => open = false,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            // A grandchild may hold stderr for longer than the program lives: its end is what counts.
            if let Some(status) = child.try_wait().tried(self.what, self.on)? {
                while let Ok(StderrItem::Line(text)) = hear.try_recv() {
                    line(&text);
                    keep(last, text);
                }
                return Ok(status);
            }
            if !open {
                let _ = hear.recv_timeout(LOOK);
            }
        }
    }

    fn failed(&self, seen: String) -> Error {
        let problem = Problem::new(self.what).on(self.on).observed(&seen);
        Error::Operation(match remedy(&seen) {
            Some(r) => problem.remedy(r),
            None => problem,
        })
    }
}

/// What a person can do about a well-known complaint.
fn remedy(seen: &str) -> Option<&'static str> {
    let any = |needles: &[&str]| needles.iter().any(|n| seen.contains(n));
    if any(&["No space left on device", "not enough free space"]) {
        Some("free disk space, or set FAILOVERLAB_HOME to a folder on a larger disk")
    } else if any(&[
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Failed to fetch",
        "Unable to connect",
    ]) {
        Some(
            "check that this host reaches the Debian mirror named above (`apt-get update`), or name another one in images/NAME.toml",
        )
    } else if any(&[
        "unshare failed: Operation not permitted",
        "write failed /proc/self/uid_map",
        "Permission denied: unshare",
    ]) {
        Some("allow user namespaces (Ubuntu 24.04: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`)")
    } else if any(&["newuidmap", "uid_map", "/etc/subuid"]) {
        Some(
            "give your user a range of ids: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`",
        )
    } else if any(&["Unable to locate package"]) {
        Some("correct the package's name in the lab file, the runtime pack or the recipe")
    } else {
        None
    }
}

/// The error for a program that is not there.
pub fn missing(what: &str, program: &Path, package: &str) -> Error {
    Error::Host(
        Problem::new(what)
            .observed(format!("there is no `{}`", program.display()))
            .remedy(format!("sudo apt-get install {package}")),
    )
}

/// Keeps a line as one of the last, unless it only says how far the program has come.
fn keep(last: &mut VecDeque<String>, line: String) {
    if line.is_empty() || ["I: ", "Setting up ", "Get:"].iter().any(|s| line.starts_with(s)) {
        return;
    }
    if last.len() == LAST_WORDS {
        last.pop_front();
    }
    last.push_back(line);
}

fn with_last_words(seen: &str, last: &VecDeque<String>) -> String {
    last.iter().fold(seen.to_owned(), |text, line| text + "\n" + line)
}

/// Calls `f` with each line, in pieces of at most 16 KiB, until it says stop.
pub fn for_each_line(input: impl Read, mut f: impl FnMut(String) -> bool) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if !f(String::from_utf8_lossy(&line).trim_end().to_owned()) => return,
            Ok(_) => {}
        }
    }
}

/// Kills the child and all that it started in its group, and reaps it.
pub fn end_group(child: &mut Child) {
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn run<'a>(cancel: &'a AtomicBool, within: Duration) -> Run<'a> {
        Run {
            what: "try",
            on: "it",
            program: "sh",
            package: "coreutils",
            deadline: Deadline::after(within),
            cancel,
        }
    }
    fn sh(run: &Run<'_>, script: &str) -> Command {
        let mut c = run.command(Path::new("sh")).unwrap();
        c.args(["-c", script]);
        c
    }

    #[test]
    fn output_and_lines_come_apart() {
        let cancel = AtomicBool::new(false);
        let r = run(&cancel, Duration::from_secs(20));
        let mut lines = Vec::new();
        let out = r
            .output(
                sh(&r, "echo out; echo one >&2; printf 'two\\377' >&2; echo $LC_ALL"),
                &mut |l| lines.push(l.to_owned()),
            )
            .unwrap();
        assert_eq!(out, b"out\nC\n");
        assert_eq!(lines, ["one", "two\u{fffd}"]);
    }

    #[test]
    fn a_failure_keeps_the_last_words_and_knows_the_remedy() {
        let cancel = AtomicBool::new(false);
        let r = run(&cancel, Duration::from_secs(20));
        let script = "for i in $(seq 50); do echo line $i >&2; done; echo 'x: No space left on device' >&2; exit 3";
        let e = r.output(sh(&r, script), &mut |_| {}).unwrap_err();
        let p = e.problem().unwrap();
        let seen = p.observed.as_deref().unwrap();
        assert_eq!(e.exit_code(), 5);
        assert!(
            seen.starts_with("sh: exit status: 3") && seen.contains("line 50") && !seen.contains("line 30"),
            "{seen}"
        );
        assert!(p.remedy.as_deref().unwrap().contains("free disk space"));
    }

    #[test]
    fn a_refused_namespace_and_a_missing_range_of_ids_are_told_apart() {
        for (seen, advice) in [
            (
                "unshare: write failed /proc/self/uid_map: Operation not permitted",
                "apparmor",
            ),
            ("unshare: unshare failed: Operation not permitted", "apparmor"),
            (
                "newuidmap: uid range [1-65536) -> [100000-165536) not allowed",
                "--add-subuids",
            ),
            (
                "newuidmap: write to uid_map failed: Operation not permitted",
                "--add-subuids",
            ),
            ("E: invalid configuration in /etc/subuid for user ann", "--add-subuids"),
        ] {
            let remedy = remedy(seen).unwrap();
            assert!(remedy.contains(advice), "{seen}: {remedy}");
        }
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        let cancel = AtomicBool::new(false);
        let r = run(&cancel, Duration::from_millis(300));
        let mut pids = Vec::new();
        let begin = Instant::now();
        let e = r
            .output(sh(&r, "sleep 300 & echo $! >&2; wait"), &mut |l| {
                pids.push(l.to_owned())
            })
            .unwrap_err();
        assert!(e.to_string().contains("time ran out"), "{e}");
        assert!(begin.elapsed() < Duration::from_secs(300), "it waited for the sleep");
        let pid: u32 = pids[0].parse().unwrap();
        crate::wait::wait_until(
            "see the grandchild end",
            Deadline::after(Duration::from_secs(10)),
            || {
                // Where no process reaps orphans it stays as a zombie.
                Ok(if crate::process::runs(pid) {
                    crate::wait::Probe::NotYet(format!("{pid} runs"))
                } else {
                    crate::wait::Probe::Ready(())
                })
            },
        )
        .unwrap();
    }

    #[test]
    fn a_cancelled_program_is_an_interruption() {
        let cancel = AtomicBool::new(false);
        let r = run(&cancel, Duration::from_secs(60));
        let e = r.output(sh(&r, "echo go >&2; sleep 300"), &mut |_| {
            cancel.store(true, Ordering::Relaxed)
        });
        assert!(matches!(e, Err(Error::Interrupted)));
    }

    #[test]
    fn a_missing_program_is_the_hosts_problem() {
        let cancel = AtomicBool::new(false);
        let e = run(&cancel, Duration::from_secs(1))
            .command(Path::new("no-such-program"))
            .unwrap_err();
        assert_eq!(e.exit_code(), 4);
        assert_eq!(
            e.problem().unwrap().remedy.as_deref(),
            Some("sudo apt-get install coreutils")
        );
    }
}
