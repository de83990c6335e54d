//! Ways into a guest: boot credentials before it runs; our agent, SSH and QEMU's guest agent once it does.

pub mod agent;
pub mod credentials;
pub mod fake;
pub mod keys;
mod lines;
pub mod qemu_agent;
mod quote;
mod ready;
#[cfg(test)]
pub(crate) mod sample;
pub mod ssh;
pub(crate) mod template;
mod transfer;

pub use quote::quote;
pub use ready::{Ready, knock, wait_booted, wait_ready};

use crate::diagnostic::is_unprintable;
use crate::error::{Error, Problem, Result};
use crate::wait::Deadline;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// A command in a guest: an argument vector, never a shell string made from names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: Vec<u8>,
}

impl Command {
    /// A command without input.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
        }
    }
}

/// How a command ended. Must be looked at: see the `check_*` methods.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// Exit status; 128 + signal where a signal ended it.
    pub status: i32,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
}

impl Output {
    /// What a command printed that ended with 0; else an error "could not {what} ({on})" with what it complained about.
    pub fn check_ok(self, what: &str, on: impl fmt::Display) -> Result<Vec<u8>> {
        if self.status == 0 {
            return Ok(self.stdout);
        }
        let seen = match self.complaint().as_str() {
            "" => format!("status {}, not a word", self.status),
            text => format!("status {}: {text}", self.status),
        };
        Err(Error::Operation(Problem::new(what).on(on).observed(seen)))
    }

    /// The same, as text.
    pub fn check_text(self, what: &str, on: impl fmt::Display) -> Result<String> {
        String::from_utf8(self.check_ok(what, &on)?).map_err(|e| {
            Error::Operation(
                Problem::new(what)
                    .on(on)
                    .observed(format!("no UTF-8: {}", excerpt(e.as_bytes()))),
            )
        })
    }

    /// The end of what it complained about; of what it printed where it did not complain.
    pub fn complaint(&self) -> String {
        excerpt(if self.stderr.is_empty() {
            &self.stdout
        } else {
            &self.stderr
        })
    }
}

/// The end of what a program said, fit for an error message: where it failed is in its last words.
pub(crate) fn excerpt(said: &[u8]) -> String {
    const MOST: usize = 600;
    let text = String::from_utf8_lossy(said);
    let text: String = text
        .trim()
        .chars()
        .map(|c| if is_unprintable(c) || c == '\t' { '\u{fffd}' } else { c })
        .collect();
    match text.char_indices().rev().nth(MOST) {
        Some((i, _)) => format!("… {}", &text[i..]),
        None => text,
    }
}

/// A way to act inside a machine. Every call has a deadline; a call that ran out leaves the way unusable and says so.
pub trait Remote: Send + fmt::Debug {
    /// That it still leads into the machine.
    fn check(&mut self, deadline: Deadline) -> Result<()> {
        self.exec(&Command::new(["true"]), deadline).map(drop)
    }
    /// The machine's boot-time clock, as it was at some moment of this call; in hundredths of a second.
    fn boottime(&mut self, deadline: Deadline) -> Result<Duration> {
        const WHAT: &str = "read the machine's boot-time clock";
        let text = self
            .exec(&Command::new(["cat", "/proc/uptime"]), deadline)?
            .check_text(WHAT, "/proc/uptime")?;
        let seconds = text.split_whitespace().next().unwrap_or_default().parse();
        seconds
            .ok()
            .and_then(|s| Duration::try_from_secs_f64(s).ok())
            .ok_or_else(|| Error::Operation(Problem::new(WHAT).observed(excerpt(text.as_bytes()))))
    }
    /// The machine's time of day, since 1970, as it was at some moment of this call.
    fn time(&mut self, deadline: Deadline) -> Result<Duration> {
        const WHAT: &str = "read the machine's time of day";
        let text = self
            .exec(&Command::new(["date", "+%s%3N"]), deadline)?
            .check_text(WHAT, "date")?;
        let ms = text.trim().parse().map(Duration::from_millis);
        ms.map_err(|_| Error::Operation(Problem::new(WHAT).observed(excerpt(text.as_bytes()))))
    }
    /// Runs a command to its end.
    fn exec(&mut self, command: &Command, deadline: Deadline) -> Result<Output>;
    /// The same with a listener: `hear` gets each line of the output as it comes, and nothing now and then while there is
    /// none. Its error ends the command and the way, and is returned.
    fn exec_heard(
        &mut self,
        command: &Command,
        deadline: Deadline,
        hear: &mut dyn FnMut(Option<&str>) -> Result<()>,
    ) -> Result<Output> {
        let output = self.exec(command, deadline)?;
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .try_for_each(|l| hear(Some(l)))?;
        Ok(output)
    }
    /// Writes a file with this mode, atomically (temporary name, then rename).
    fn upload(&mut self, content: &[u8], to: &Path, mode: u32, deadline: Deadline) -> Result<()>;
    /// Reads a file.
    fn download(&mut self, from: &Path, deadline: Deadline) -> Result<Vec<u8>>;
    /// Runs a command and hands out that it is followed, then each line of its output as it comes, and nothing every few seconds while
    /// there is none, until it ends or `on` says stop (`false`).
    fn follow(&mut self, command: &Command, on: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()>;
}

/// What is heard of a command that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed<'a> {
    /// It is followed from here on. One that an earlier session began, and which goes on, has run for so long: what it said first was
    /// said then.
    Begun {
        /// For how long; none where it begins now.
        ran: Option<Duration>,
    },
    /// A line, without its end.
    Line(&'a str),
    /// Nothing for a while.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_what_it_complained_about() {
        let out = |status, stdout: &str, stderr: &str| Output {
            status,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        assert_eq!(out(0, "x", "warning").check_text("look", "node1").unwrap(), "x");
        let e = out(2, "half", "no such file\n")
            .check_ok("look", "node1")
            .unwrap_err()
            .to_string();
        assert_eq!(e, "could not look (node1): status 2: no such file");
        assert!(
            out(3, "", "")
                .check_ok("look", "n")
                .unwrap_err()
                .to_string()
                .contains("not a word")
        );
        let bad = Output {
            status: 0,
            stdout: vec![0xff],
            stderr: vec![],
        };
        assert!(
            bad.check_text("look", "n")
                .unwrap_err()
                .to_string()
                .contains("no UTF-8")
        );
    }

    #[test]
    fn an_excerpt_is_bounded_and_harmless() {
        assert_eq!(excerpt(b" a\x1b[2J\n"), "a\u{fffd}[2J");
        let long = excerpt(&[b'x'; 5000]);
        assert!(long.starts_with('…') && long.len() < 700);
    }
}
