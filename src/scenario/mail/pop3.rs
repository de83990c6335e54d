//! Reading and deleting by POP3 (RFC 1939).

use super::content::inspect;
use super::conversation::{Conversation, Ended, Want};
use super::reply::{Lines, Nonsense, shown};
use crate::verify::Outcome;
use ccr_contract::reply::By;

/// Messages that `read` fetches: the newest.
const READ: u32 = 3;
/// Messages that `delete` looks at, from the oldest, for the one that it wants.
const LOOK: u32 = 16;
/// Bytes of one message that are taken.
const MESSAGE_MAX: usize = 4 << 20;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Fetch the newest messages and compare them with what was sent.
    Read,
    /// Remove the message with this key. It is gone only when QUIT is acknowledged.
    Delete(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Greeting,
    User,
    Pass,
    Stat,
    /// Waiting for the first line of message `n`.
    Retr(u32),
    /// Waiting for its text.
    Text(u32),
    Dele,
    Quit,
}

/// The client's side of one visit.
#[derive(Debug)]
pub struct Pop3 {
    task: Task,
    mailbox: String,
    seed: u64,
    run: String,
    at: At,
    lines: Lines,
    text: Vec<u8>,
    /// Messages still to look at: the next one and the last one.
    ahead: std::ops::RangeInclusive<u32>,
    by: Option<By>,
    keys: Vec<String>,
    damaged: Vec<String>,
    out: Option<Vec<u8>>,
    ended: Option<Ended>,
}

impl Pop3 {
    /// Will do `task` in `mailbox`. Messages of the run called `run` were made with `seed`; of others only the key is read.
    pub fn new(task: Task, mailbox: &str, seed: u64, run: &str) -> Self {
        Self {
            task,
            mailbox: mailbox.to_owned(),
            seed,
            run: run.to_owned(),
            at: At::Greeting,
            lines: Lines::default(),
            text: Vec::new(),
            #[expect(clippy::reversed_empty_ranges, reason = "nothing is ahead until the greeting")]
            ahead: 1..=0,
            by: None,
            keys: Vec::new(),
            damaged: Vec::new(),
            out: None,
            ended: None,
        }
    }

    fn say(&mut self, at: At, line: &str) {
        self.at = at;
        self.out = Some(format!("{line}\r\n").into_bytes());
    }

    fn end(&mut self, outcome: Outcome, seen: impl Into<String>) {
        if self.ended.is_none() {
            let read = self.task == Task::Read;
            self.ended = Some(Ended {
                outcome,
                by: self.by.take().filter(|_| outcome == Outcome::Ok),
                seen: seen.into(),
                keys: read.then(|| std::mem::take(&mut self.keys)),
                damaged: (read && !self.damaged.is_empty()).then(|| std::mem::take(&mut self.damaged)),
            });
        }
    }

    /// Nothing is removed before QUIT; after it only its answer tells.
    fn so_far(&self) -> Outcome {
        if self.at == At::Quit {
            Outcome::Unknown
        } else {
            Outcome::Fail
        }
    }

    fn line(&mut self, line: &[u8]) {
        if let At::Text(n) = self.at {
            return self.text_line(n, line);
        }
        let text = shown(line);
        let Some(rest) = text.strip_prefix("+OK") else {
            // After QUIT a refusal does not say that nothing was removed (RFC 1939: "some deleted messages not removed").
            return self.end(self.so_far(), text);
        };
        match self.at {
            At::Greeting => {
                self.by = By::find(rest);
                let user = format!("USER {}", self.mailbox);
                self.say(At::User, &user);
            }
            At::User => {
                let pass = format!("PASS {}", self.mailbox);
                self.say(At::Pass, &pass);
            }
            At::Pass => self.say(At::Stat, "STAT"),
            At::Stat => match rest.split_ascii_whitespace().next().and_then(|n| n.parse::<u32>().ok()) {
                Some(n) => {
                    self.ahead = match self.task {
                        Task::Read => n.saturating_sub(READ - 1).max(1)..=n,
                        Task::Delete(_) => 1..=n.min(LOOK),
                    };
                    self.look_on();
                }
                None => self.end(Outcome::Fail, format!("no answer to STAT: {text}")),
            },
            At::Retr(n) => {
                self.text.clear();
                self.at = At::Text(n);
            }
            At::Dele => self.say(At::Quit, "QUIT"),
            At::Quit => {
                self.by = By::find(rest);
                self.end(Outcome::Ok, text);
            }
            At::Text(_) => unreachable!("handled above"),
        }
    }

    /// The next message, or the end of looking.
    fn look_on(&mut self) {
        match (self.ahead.next(), &self.task) {
            (Some(n), Task::Read) => self.say(At::Retr(n), &format!("RETR {n}")),
            // The header says which message it is.
            (Some(n), Task::Delete(_)) => self.say(At::Retr(n), &format!("TOP {n} 0")),
            (None, Task::Read) => {
                let seen = format!("read {} messages", self.keys.len());
                self.out = Some(b"QUIT\r\n".to_vec());
                self.end(Outcome::Ok, seen);
            }
            (None, Task::Delete(key)) => {
                let seen = format!("{key} is not among the first {LOOK}");
                self.end(Outcome::Fail, seen);
            }
        }
    }

    fn text_line(&mut self, n: u32, line: &[u8]) {
        if line != b"." {
            self.text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            self.text.extend_from_slice(b"\r\n");
            if self.text.len() > MESSAGE_MAX {
                self.end(Outcome::Fail, format!("a message of more than {MESSAGE_MAX} bytes"));
            }
            return;
        }
        let seen = inspect(self.seed, &self.text);
        match (&self.task, seen.key) {
            (Task::Delete(wanted), Some(key)) if *wanted == key => self.say(At::Dele, &format!("DELE {n}")),
            (Task::Read, Some(key)) => {
                if !seen.intact && key.contains(&format!(".{}@", self.run)) {
                    self.damaged.push(key.clone());
                }
                self.keys.push(key);
                self.look_on();
            }
            _ => self.look_on(),
        }
    }
}

impl Conversation for Pop3 {
    fn want(&mut self) -> Want {
        match self.out.take() {
            Some(bytes) => Want::Write(bytes),
            None if self.ended.is_some() => Want::Nothing,
            None => Want::Read,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        self.lines.feed(bytes);
        while self.ended.is_none() {
            match self.lines.next() {
                Ok(Some(line)) => {
                    let line = line.to_vec();
                    self.line(&line);
                }
                Ok(None) => return,
                Err(Nonsense(what)) => self.end(self.so_far(), what),
            }
        }
    }

    fn lost(&mut self, cause: &str) {
        let at = match self.at {
            At::Greeting => "before the greeting",
            At::User | At::Pass => "at the login",
            At::Stat | At::Retr(_) | At::Text(_) => "while reading",
            At::Dele => "before QUIT",
            At::Quit => "after QUIT",
        };
        self.end(self.so_far(), format!("{cause}, {at}"));
        self.out = None;
    }

    fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}
