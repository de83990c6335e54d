//! One message by SMTP (RFC 5321) or LMTP (RFC 2033).

use super::conversation::{Conversation, Ended, Replies, Reply, Want};
use super::{Letter, reply::Nonsense};
use crate::verify::Outcome;
use ccr_contract::reply::By;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// To the hub: its 250 means *queued*.
    Smtp,
    /// To the service address: its 250 is a store answer.
    Lmtp,
}

/// Where the conversation stands: what was said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Greeting,
    Hello,
    From,
    To,
    Data,
    /// The text has been handed over, its last line has not.
    Text,
    /// The last line may have left: from here on only an answer tells what happened.
    Dot,
}

/// The client's side of one delivery.
#[derive(Debug)]
pub struct Smtp {
    dialect: Dialect,
    letter: Letter,
    at: At,
    replies: Replies,
    out: Option<Vec<u8>>,
    ended: Option<Ended>,
}

impl Smtp {
    /// Will deliver `letter`.
    pub fn new(dialect: Dialect, letter: Letter) -> Self {
        Self {
            dialect,
            letter,
            at: At::Greeting,
            replies: Replies::default(),
            out: None,
            ended: None,
        }
    }

    fn say(&mut self, at: At, line: String) {
        self.at = at;
        self.out = Some(format!("{line}\r\n").into_bytes());
    }

    fn end(&mut self, outcome: Outcome, seen: String, by: Option<By>) {
        if self.ended.is_none() {
            // A server that was told to expect no more closes without an error; whether it hears it is its own affair.
            self.out = (self.at != At::Text).then(|| b"QUIT\r\n".to_vec());
            self.ended = Some(Ended {
                by,
                ..Ended::plain(outcome, seen)
            });
        }
    }

    /// What is certain if no more is received.
    fn so_far(&self) -> Outcome {
        if self.at == At::Dot {
            Outcome::Unknown
        } else {
            Outcome::Fail
        }
    }

    fn reply(&mut self, reply: &Reply) {
        let wanted = if self.at == At::Data { 354 } else { 250 };
        let good = match self.at {
            At::Greeting => reply.code == 220,
            At::Data => reply.code == wanted,
            _ => reply.code / 10 == wanted / 10,
        };
        match (good, self.at) {
            (true, At::Greeting) => {
                let hello = if self.dialect == Dialect::Lmtp { "LHLO" } else { "EHLO" };
                self.say(At::Hello, format!("{hello} client.failoverlab.test"));
            }
            (true, At::Hello) => self.say(At::From, format!("MAIL FROM:<{}>", self.letter.from)),
            (true, At::From) => self.say(At::To, format!("RCPT TO:<{}>", self.letter.to)),
            (true, At::To) => self.say(At::Data, "DATA".to_owned()),
            (true, At::Data) => {
                self.at = At::Text;
                self.out = Some(stuffed(&self.letter.text));
            }
            (true, At::Dot) => {
                let by = (self.dialect == Dialect::Lmtp).then(|| By::find(&reply.text)).flatten();
                self.end(Outcome::Ok, reply.to_string(), by);
            }
            (_, At::Text) => self.end(Outcome::Fail, format!("answered before the end: {reply}"), None),
            // Only a permanent refusal says that nothing has happened: a store that may not answer any more has perhaps stored it.
            (false, At::Dot) if reply.code < 500 => self.end(Outcome::Unknown, reply.to_string(), None),
            (false, _) => self.end(Outcome::Fail, reply.to_string(), None),
        }
    }
}

impl Conversation for Smtp {
    fn want(&mut self) -> Want {
        match (self.out.take(), self.at) {
            (Some(bytes), _) => Want::Write(bytes),
            (None, _) if self.ended.is_some() => Want::Nothing,
            (None, At::Text) => {
                self.at = At::Dot;
                Want::Write(b".\r\n".to_vec())
            }
            (None, _) => Want::Read,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        self.replies.feed(bytes);
        while self.ended.is_none() {
            match self.replies.next() {
                Ok(Some(reply)) => self.reply(&reply),
                Ok(None) => return,
                Err(Nonsense(what)) => self.end(self.so_far(), what, None),
            }
        }
    }

    fn lost(&mut self, cause: &str) {
        let at = match self.at {
            At::Greeting => "before the greeting",
            At::Hello => "after the greeting",
            At::From | At::To | At::Data => "before the message",
            At::Text => "within the message",
            At::Dot => "after the message",
        };
        self.end(self.so_far(), format!("{cause}, {at}"), None);
        self.out = None;
    }

    fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

/// With a dot before each line that begins with one, without the line that ends it.
fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    for line in text.split_inclusive(|b| *b == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}
