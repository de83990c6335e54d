//! A conversation with a server as a machine: it says what it wants, its caller does the I/O.

use super::Wire;
use super::reply::{Nonsense, shown};
use crate::verify::Outcome;
use crate::wait::Deadline;
use ccr_contract::reply::By;
use ccr_contract::reply::ReplyLine;
use std::io;

/// What a conversation wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// These bytes shall be sent.
    Write(Vec<u8>),
    /// Bytes of the other side.
    Read,
    /// Nothing: it has ended.
    Nothing,
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What is certain of the operation.
    pub outcome: Outcome,
    /// Who answered.
    pub by: Option<By>,
    /// The last reply, or the cause.
    pub seen: String,
    /// Keys that the mailbox held, of those looked at.
    pub keys: Option<Vec<String>>,
    /// Keys whose content was not what had been sent.
    pub damaged: Option<Vec<String>>,
}

impl Ended {
    /// With nothing but an outcome and its cause.
    pub fn plain(outcome: Outcome, seen: impl Into<String>) -> Self {
        Self {
            outcome,
            by: None,
            seen: seen.into(),
            keys: None,
            damaged: None,
        }
    }
}

/// A protocol, from the client's side, without I/O.
pub trait Conversation {
    /// What it wants next. Bytes are asked to be written once only.
    fn want(&mut self) -> Want;
    /// What the other side sent.
    fn received(&mut self, bytes: &[u8]);
    /// The connection is gone or time has run out; also where bytes that it wanted written may not have left.
    fn lost(&mut self, cause: &str);
    /// How it ended; none while it goes on.
    fn ended(&self) -> Option<&Ended>;
}

/// Drives a conversation over a wire until it has ended.
pub fn converse(conversation: &mut dyn Conversation, wire: &mut dyn Wire, deadline: Deadline) -> Ended {
    let mut buffer = [0; 16 << 10];
    loop {
        match conversation.want() {
            Want::Write(bytes) => {
                if let Err(e) = wire.write_all(&bytes, deadline) {
                    conversation.lost(&cause(&e));
                }
            }
            Want::Read => match wire.read(&mut buffer, deadline) {
                Ok(0) => conversation.lost("the server closed the connection"),
                Ok(n) => conversation.received(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => conversation.lost(&cause(&e)),
            },
            Want::Nothing => match conversation.ended() {
                Some(ended) => return ended.clone(),
                // A conversation that wants nothing and has not ended would be an endless loop.
                None => conversation.lost("the conversation stopped"),
            },
        }
    }
}

fn cause(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        _ => e.to_string(),
    }
}

/// A server's reply: digits and text of all its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub code: u16,
    pub text: String,
}

/// Lines of one reply that an SMTP server may send.
const LINES_MAX: usize = 100;

/// Puts an SMTP or LMTP reply together.
#[derive(Debug, Default)]
pub(super) struct Replies {
    lines: super::reply::Lines,
    text: Vec<String>,
    code: Option<u16>,
}

impl Replies {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.lines.feed(bytes);
    }

    /// The next whole reply.
    pub fn next(&mut self) -> Result<Option<Reply>, Nonsense> {
        while let Some(line) = self.lines.next()? {
            let read = ReplyLine::parse(line)
                .filter(|l| (200..600).contains(&l.code) && self.code.is_none_or(|first| first == l.code));
            let ReplyLine { code, last, text } = read.ok_or_else(|| Nonsense(format!("no reply: {}", shown(line))))?;
            self.code = Some(code);
            self.text.push(shown(text));
            if last {
                let text = std::mem::take(&mut self.text).join(" ");
                self.code = None;
                return Ok(Some(Reply { code, text }));
            }
            if self.text.len() >= LINES_MAX {
                return Err(Nonsense(format!("a reply of more than {LINES_MAX} lines")));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}
