//! SMTP (RFC 5321) and LMTP (RFC 2033) sessions, with PIPELINING, SIZE and 8BITMIME.

use super::path::{path, recipient, sender};
use super::wire::{Broken, Line, Text, Wire, one_line};
use super::{Limits, Memory};
use smtp_proto::{MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MailFrom, RcptTo, Request};
use std::borrow::Cow;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Which of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// One answer for a message.
    Smtp,
    /// One answer for each recipient; `ENVID` carries the hub's id.
    Lmtp,
}

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Return path; empty for a bounce.
    pub from: String,
    /// Recipients, in their order.
    pub to: Vec<String>,
    /// The id under which a hub sent it (`ENVID`), LMTP only.
    pub hub_id: Option<String>,
    /// Header and body, lines ended by CRLF.
    pub bytes: Vec<u8>,
}

/// What became of a message, or of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The three digits; anything but 2xx, 4xx and 5xx is told as 451.
    pub code: u16,
    /// The text behind them.
    pub text: String,
}

impl Answer {
    /// Of that code.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    fn line(&self) -> String {
        let code = if matches!(self.code / 100, 2 | 4 | 5) {
            self.code
        } else {
            451
        };
        format!("{code} {}\r\n", one_line(&self.text))
    }
}

/// Where messages go.
pub trait Inbox: Send + Sync + 'static {
    /// Before the greeting: its text, or why nobody is served now.
    fn greeting(&self) -> impl Future<Output = Result<String, String>> + Send;
    /// Takes a message. SMTP: one answer. LMTP: one for each recipient.
    fn take(&self, message: Message) -> impl Future<Output = Vec<Answer>> + Send;
}

/// One conversation, until the peer leaves or misbehaves. `name` goes into the greeting.
pub async fn session<S: AsyncRead + AsyncWrite + Unpin, I: Inbox>(
    stream: S,
    dialect: Dialect,
    name: &str,
    inbox: Arc<I>,
    limits: &Limits,
) -> Result<(), Broken> {
    let mut s = Session {
        wire: Wire::new(stream, limits.idle),
        out: Vec::new(),
        dialect,
        name,
        inbox,
        limits,
        greeted: false,
        envelope: None,
        mistakes: 0,
        commands: 0,
    };
    let ended = s.run().await;
    s.wire.finish().await;
    ended
}

/// What a peer is told when there are too many sessions.
pub const TOO_MANY: &str = "421 4.3.2 too many sessions\r\n";

struct Session<'a, S, I> {
    wire: Wire<S>,
    /// Answers that wait for the rest of a pipelined group.
    out: Vec<u8>,
    dialect: Dialect,
    name: &'a str,
    inbox: Arc<I>,
    limits: &'a Limits,
    greeted: bool,
    envelope: Option<Message>,
    mistakes: u32,
    /// Since the last message, or the greeting.
    commands: u32,
}

/// Answers that wait for company, in bytes, before they leave without.
const MUCH: usize = 16 << 10;

enum Next {
    Go,
    Leave,
}

impl<S: AsyncRead + AsyncWrite + Unpin, I: Inbox> Session<'_, S, I> {
    async fn run(&mut self) -> Result<(), Broken> {
        let greeting = match (self.inbox.greeting().await, self.dialect) {
            (Ok(text), Dialect::Smtp) => format!("220 {} ESMTP {}\r\n", self.name, one_line(&text)),
            (Ok(text), Dialect::Lmtp) => format!("220 {} LMTP {}\r\n", self.name, one_line(&text)),
            (Err(why), _) => {
                self.say(&format!("421 4.3.2 {}\r\n", one_line(&why)));
                return self.flush().await;
            }
        };
        self.say(&greeting);
        loop {
            if !self.wire.has_more() || self.out.len() > MUCH {
                self.flush().await?;
            }
            let next = match self.wire.line(self.limits.line).await? {
                Line::Whole(line) => self.command(&line).await?,
                Line::TooLong => {
                    self.mistake("500 5.5.2 line too long\r\n");
                    Next::Go
                }
            };
            self.commands += 1;
            if self.mistakes > self.limits.mistakes {
                self.say("421 4.7.0 too many mistakes\r\n");
                return self.flush().await;
            }
            if self.commands > self.limits.commands {
                self.say("421 4.7.0 too many commands without a message\r\n");
                return self.flush().await;
            }
            if let Next::Leave = next {
                return self.flush().await;
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
    }

    fn mistake(&mut self, line: &str) {
        self.mistakes += 1;
        self.say(line);
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        let out = std::mem::take(&mut self.out);
        self.wire.send(&out).await
    }

    async fn command(&mut self, line: &[u8]) -> Result<Next, Broken> {
        let lmtp = self.dialect == Dialect::Lmtp;
        match Request::parse(&mut line.iter()) {
            Ok(Request::Ehlo { .. }) if !lmtp => self.hello(),
            Ok(Request::Lhlo { .. }) if lmtp => self.hello(),
            Ok(Request::Helo { .. }) if !lmtp => {
                self.greeted = true;
                self.envelope = None;
                self.say(&format!("250 {}\r\n", self.name));
            }
            Ok(Request::Mail { from }) => self.mail(line, from),
            Ok(Request::Rcpt { to }) => self.rcpt(line, &to),
            Ok(Request::Data) => self.data().await?,
            Ok(Request::Rset) => {
                self.envelope = None;
                self.say("250 2.0.0 forgotten\r\n");
            }
            Ok(Request::Noop { .. }) => self.say("250 2.0.0 here\r\n"),
            Ok(Request::Vrfy { .. }) => self.say("252 2.5.0 send it and see\r\n"),
            Ok(Request::Quit) => {
                self.say("221 2.0.0 bye\r\n");
                return Ok(Next::Leave);
            }
            Ok(other) => {
                let name = other.name();
                self.mistake(&format!("502 5.5.1 {name} is not offered here\r\n"));
            }
            Err(smtp_proto::Error::SyntaxError { syntax }) => {
                self.mistake(&format!("501 5.5.4 write {}\r\n", one_line(syntax)));
            }
            Err(smtp_proto::Error::InvalidParameter { param: "SIZE" }) if is_huge(line) => {
                self.say("552 5.3.4 too large\r\n");
            }
            Err(smtp_proto::Error::InvalidParameter { param }) => {
                self.mistake(&format!("501 5.5.4 bad {}\r\n", one_line(param)));
            }
            Err(smtp_proto::Error::UnsupportedParameter { param }) => {
                self.mistake(&format!("555 5.5.4 unknown parameter {}\r\n", one_line(&param)));
            }
            Err(smtp_proto::Error::InvalidSenderAddress) => {
                let refused = path(line).and_then(|p| sender(p).err());
                self.mistake(refused.unwrap_or("501 5.1.7 bad sender\r\n"));
            }
            Err(smtp_proto::Error::InvalidRecipientAddress) => {
                let refused = path(line).and_then(|p| recipient(p, self.name).err());
                self.mistake(refused.unwrap_or("501 5.1.3 bad recipient\r\n"));
            }
            Err(_) => self.mistake("500 5.5.2 unknown command\r\n"),
        }
        Ok(Next::Go)
    }

    fn hello(&mut self) {
        self.greeted = true;
        self.envelope = None;
        let dsn = if self.dialect == Dialect::Lmtp {
            "250-DSN\r\n"
        } else {
            ""
        };
        self.say(&format!(
            "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n{dsn}250 SIZE {}\r\n",
            self.name, self.limits.message
        ));
    }

    fn mail(&mut self, line: &[u8], from: MailFrom<Cow<'_, str>>) {
        if !self.greeted {
            return self.mistake("503 5.5.1 say hello first\r\n");
        }
        if self.envelope.is_some() {
            return self.mistake("503 5.5.1 one message at a time\r\n");
        }
        if let Some(name) = self.not_offered(&from) {
            return self.mistake(&format!("555 5.5.4 {name} is not offered here\r\n"));
        }
        if from.size > self.limits.message || is_huge(line) {
            return self.say("552 5.3.4 too large\r\n");
        }
        let from_path = match sender(path(line).unwrap_or_default()) {
            Ok(path) => path,
            Err(refused) => return self.say(refused),
        };
        self.envelope = Some(Message {
            from: from_path,
            to: Vec::new(),
            hub_id: from.env_id.map(Cow::into_owned),
            bytes: Vec::new(),
        });
        self.say("250 2.1.0 go on\r\n");
    }

    /// A parameter of MAIL that belongs to an extension which the hello did not announce (RFC 5321 4.1.1.11).
    fn not_offered(&self, from: &MailFrom<Cow<'_, str>>) -> Option<&'static str> {
        let lmtp = self.dialect == Dialect::Lmtp;
        let body = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME;
        let ret = MAIL_RET_FULL | MAIL_RET_HDRS;
        match () {
            () if from.flags & smtp_proto::MAIL_SMTPUTF8 != 0 => Some("SMTPUTF8"),
            () if from.flags & smtp_proto::MAIL_BODY_BINARYMIME != 0 => Some("BINARYMIME"),
            () if from.flags & smtp_proto::MAIL_REQUIRETLS != 0 => Some("REQUIRETLS"),
            () if from.env_id.is_some() && !lmtp => Some("ENVID"),
            () if from.flags & ret != 0 && !lmtp => Some("RET"),
            () if from.flags & !(body | ret) != 0 || from.hold_for > 0 || from.hold_until > 0 => Some("this parameter"),
            () if from.trans_id.is_some() || from.solicit.is_some() || from.mtrk.is_some() || from.auth.is_some() => {
                Some("this parameter")
            }
            () => None,
        }
    }

    fn rcpt(&mut self, line: &[u8], to: &RcptTo<Cow<'_, str>>) {
        let limit = self.limits.recipients;
        let more = to.orcpt.is_some() || to.flags != 0 || to.rrvs != 0;
        let (unknown, name) = (more && self.dialect == Dialect::Smtp, self.name);
        match &mut self.envelope {
            None => self.mistake("503 5.5.1 a sender first\r\n"),
            Some(_) if unknown => self.mistake("555 5.5.4 no parameter of RCPT is offered here\r\n"),
            Some(e) if e.to.len() >= limit => self.say("452 4.5.3 too many recipients\r\n"),
            Some(e) => match recipient(path(line).unwrap_or_default(), name) {
                Ok(to) => {
                    e.to.push(to);
                    self.say("250 2.1.5 go on\r\n");
                }
                // Not a mistake of the program that sends: it asks for what somebody wrote.
                Err(refused) => self.say(refused),
            },
        }
    }

    async fn data(&mut self) -> Result<(), Broken> {
        if self.envelope.as_ref().is_none_or(|e| e.to.is_empty()) {
            self.mistake("503 5.5.1 recipients first\r\n");
            return Ok(());
        }
        let Some(mut message) = self.envelope.take() else {
            return Ok(());
        };
        self.commands = 0;
        self.say("354 go on, end with a lone dot\r\n");
        self.flush().await?;
        let memory: &Memory = &self.limits.memory;
        let text = match self.wire.text(self.limits.message, memory).await {
            Err(endless @ Broken::Endless(_)) => {
                // It is not read to its end, but the peer hears why it is cut off.
                let refused = self.for_each("552 5.3.4 too large\r\n", message.to.len());
                self.say(&refused);
                self.flush().await?;
                return Err(endless);
            }
            text => text?,
        };
        let answers = match text {
            Text::Whole(bytes, permits) => {
                let recipients = message.to.len();
                message.bytes = bytes;
                let mut answers = self.inbox.take(message).await;
                drop(permits);
                let count = if self.dialect == Dialect::Lmtp { recipients } else { 1 };
                answers.resize(count, Answer::new(451, "4.3.0 no answer for this recipient"));
                answers.iter().map(Answer::line).collect()
            }
            Text::TooLarge => self.for_each("552 5.3.4 too large\r\n", message.to.len()),
            Text::NoMemory => self.for_each("452 4.3.1 no memory now, try later\r\n", message.to.len()),
        };
        self.say(&answers);
        Ok(())
    }

    fn for_each(&self, line: &str, recipients: usize) -> String {
        line.repeat(if self.dialect == Dialect::Lmtp { recipients } else { 1 })
    }
}

/// Whether `SIZE=` has more digits than the parser of commands can count.
fn is_huge(line: &[u8]) -> bool {
    line.split(u8::is_ascii_whitespace)
        .any(|word| match word.split_at_checked(5) {
            Some((name, digits)) if name.eq_ignore_ascii_case(b"SIZE=") => {
                digits.iter().skip_while(|d| **d == b'0').count() > 18 && digits.iter().all(u8::is_ascii_digit)
            }
            _ => false,
        })
}

#[cfg(test)]
#[path = "smtp_tests.rs"]
mod tests;
