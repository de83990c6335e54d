//! SMTP (RFC 5321) and LMTP (RFC 2033) sessions, with PIPELINING, SIZE and 8BITMIME.

use super::wire::{Broken, Line, Text, Wire, one_line};
use super::{Limits, Memory};
use smtp_proto::Request;
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
}

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
            if !self.wire.has_more() {
                self.flush().await?;
            }
            let next = match self.wire.line(self.limits.line).await? {
                Line::Whole(line) => self.command(&line).await?,
                Line::TooLong => {
                    self.mistake("500 5.5.2 line too long\r\n");
                    Next::Go
                }
            };
            if self.mistakes > self.limits.mistakes {
                self.say("421 4.7.0 too many mistakes\r\n");
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
            Ok(Request::Mail { from }) => self.mail(from),
            Ok(Request::Rcpt { to }) => self.rcpt(&to.address),
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
            Err(smtp_proto::Error::InvalidParameter { param }) => {
                self.mistake(&format!("501 5.5.4 bad {}\r\n", one_line(param)));
            }
            Err(smtp_proto::Error::UnsupportedParameter { param }) => {
                self.mistake(&format!("555 5.5.4 unknown parameter {}\r\n", one_line(&param)));
            }
            Err(smtp_proto::Error::InvalidSenderAddress) => self.mistake("501 5.1.7 bad sender\r\n"),
            Err(smtp_proto::Error::InvalidRecipientAddress) => self.mistake("501 5.1.3 bad recipient\r\n"),
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

    fn mail(&mut self, from: smtp_proto::MailFrom<Cow<'_, str>>) {
        if !self.greeted {
            return self.mistake("503 5.5.1 say hello first\r\n");
        }
        if self.envelope.is_some() {
            return self.mistake("503 5.5.1 one message at a time\r\n");
        }
        if from.size > self.limits.message {
            return self.say("552 5.3.4 too large\r\n");
        }
        self.envelope = Some(Message {
            from: from.address.into_owned(),
            to: Vec::new(),
            hub_id: from
                .env_id
                .filter(|_| self.dialect == Dialect::Lmtp)
                .map(Cow::into_owned),
            bytes: Vec::new(),
        });
        self.say("250 2.1.0 go on\r\n");
    }

    fn rcpt(&mut self, to: &str) {
        let limit = self.limits.recipients;
        match &mut self.envelope {
            None => self.mistake("503 5.5.1 a sender first\r\n"),
            Some(_) if to.is_empty() => self.mistake("501 5.1.3 an empty recipient\r\n"),
            Some(e) if e.to.len() >= limit => self.say("452 4.5.3 too many recipients\r\n"),
            Some(e) => {
                e.to.push(to.to_owned());
                self.say("250 2.1.5 go on\r\n");
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Default)]
    struct Fake {
        got: Mutex<Vec<Message>>,
    }

    impl Inbox for Fake {
        async fn greeting(&self) -> Result<String, String> {
            Ok("ready".into())
        }
        async fn take(&self, message: Message) -> Vec<Answer> {
            let answers = message
                .to
                .iter()
                .map(|t| {
                    if t.starts_with("no") {
                        Answer::new(554, format!("5.3.0 {t} is nobody\r\n250 ok"))
                    } else {
                        Answer::new(250, "2.0.0 stored")
                    }
                })
                .collect();
            self.got.lock().unwrap().push(message);
            answers
        }
    }

    fn limits() -> Limits {
        Limits {
            message: 1000,
            recipients: 3,
            mistakes: 5,
            idle: Duration::from_secs(2),
            ..Limits::default()
        }
    }

    /// Everything that the server says to a client who sends `script` and waits.
    fn talk(dialect: Dialect, script: &[u8]) -> (String, Vec<Message>) {
        let inbox = Arc::new(Fake::default());
        let kept = inbox.clone();
        let said = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let (mut client, server) = tokio::io::duplex(1 << 20);
                let script = script.to_vec();
                let limits = limits();
                let both = async {
                    let _ = client.write_all(&script).await;
                    let _ = client.shutdown().await;
                    let mut said = Vec::new();
                    let _ = client.read_to_end(&mut said).await;
                    said
                };
                tokio::join!(both, session(server, dialect, "hub", inbox, &limits)).0
            });
        (
            String::from_utf8(said).unwrap(),
            std::mem::take(&mut kept.got.lock().unwrap()),
        )
    }

    fn codes(said: &str) -> Vec<&str> {
        said.lines().map(|l| &l[..4]).collect()
    }

    #[test]
    fn a_pipelined_conversation() {
        let (said, got) = talk(
            Dialect::Smtp,
            b"EHLO c\r\nMAIL FROM:<a@x> SIZE=20\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\nSubject: s\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
        );
        assert_eq!(
            codes(&said),
            [
                "220 ", "250-", "250-", "250-", "250-", "250 ", "250 ", "250 ", "250 ", "354 ", "250 ", "221 "
            ]
        );
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].to, ["b@y", "c@y"]);
        assert_eq!(got[0].bytes, b"Subject: s\r\n\r\n.dot\r\n");
        assert_eq!(got[0].hub_id, None);
    }

    #[test]
    fn lmtp_answers_for_each_recipient_and_keeps_the_id() {
        let (said, got) = talk(
            Dialect::Lmtp,
            b"LHLO c\r\nMAIL FROM:<> ENVID=hub-1+2B7\r\nRCPT TO:<b@y>\r\nRCPT TO:<nobody@y>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
        );
        assert_eq!(got[0].hub_id.as_deref(), Some("hub-1+7"));
        assert_eq!(got[0].from, "");
        let tail: Vec<&str> = said.lines().rev().take(3).collect();
        assert!(tail[2].starts_with("250 2.0.0 stored"), "{said}");
        assert!(tail[1].starts_with("554 5.3.0 nobody@y is nobody"), "{said}");
        assert!(tail[0].starts_with("221"), "{said}");
        assert!(said.contains("250-DSN\r\n"));
    }

    #[test]
    fn the_order_of_commands_matters() {
        let (said, got) = talk(
            Dialect::Smtp,
            b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nEHLO c\r\nDATA\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\nRCPT TO:<>\r\n",
        );
        assert_eq!(
            codes(&said),
            [
                "220 ", "503 ", "503 ", "250-", "250-", "250-", "250-", "250 ", "503 ", "250 ", "503 ", "501 "
            ]
        );
        assert!(got.is_empty());
    }

    #[test]
    fn each_dialect_has_its_own_hello() {
        assert_eq!(codes(&talk(Dialect::Lmtp, b"EHLO c\r\n").0), ["220 ", "502 "]);
        assert_eq!(codes(&talk(Dialect::Smtp, b"LHLO c\r\n").0), ["220 ", "502 "]);
    }

    #[test]
    fn limits_hold() {
        let (said, got) = talk(Dialect::Smtp, b"EHLO c\r\nMAIL FROM:<a@x> SIZE=1001\r\n");
        assert!(said.ends_with("552 5.3.4 too large\r\n"), "{said}");
        assert!(got.is_empty());
        let mut big = b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<a@x>\r\nDATA\r\n".to_vec();
        big.extend(std::iter::repeat_n(b'x', 1500));
        big.extend_from_slice(b"\r\n.\r\nNOOP\r\n");
        let (said, got) = talk(Dialect::Smtp, &big);
        assert!(said.ends_with("552 5.3.4 too large\r\n250 2.0.0 here\r\n"), "{said}");
        assert!(got.is_empty());
        let (said, _) = talk(
            Dialect::Smtp,
            b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nRCPT TO:<d@x>\r\n",
        );
        assert!(said.ends_with("452 4.5.3 too many recipients\r\n"), "{said}");
    }

    #[test]
    fn who_never_stops_is_told_why_and_cut_off() {
        let mut big = b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<a@x>\r\nDATA\r\n".to_vec();
        big.extend(std::iter::repeat_n(b'x', 100_000));
        big.extend_from_slice(b"\r\n.\r\nNOOP\r\n");
        let (said, got) = talk(Dialect::Smtp, &big);
        assert!(
            said.ends_with("354 go on, end with a lone dot\r\n552 5.3.4 too large\r\n"),
            "{said}"
        );
        assert!(got.is_empty());
    }

    #[test]
    fn a_message_cut_off_is_none() {
        let (_, got) = talk(
            Dialect::Smtp,
            b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<a@x>\r\nDATA\r\nhalf a mess",
        );
        assert!(got.is_empty());
    }

    #[test]
    fn a_peer_that_only_errs_is_sent_away() {
        let (said, _) = talk(Dialect::Smtp, &b"GET / HTTP/1.1\r\n".repeat(50));
        assert!(said.ends_with("421 4.7.0 too many mistakes\r\n"), "{said}");
        assert!(said.lines().count() < 10, "{said}");
        let (said, _) = talk(Dialect::Smtp, &[&[b'x'; 3000][..], b"\r\nNOOP\r\n"].concat());
        assert_eq!(codes(&said), ["220 ", "500 ", "250 "]);
    }

    proptest! {
        #[test]
        fn any_bytes_get_only_whole_answers(bytes in proptest::collection::vec(any::<u8>(), 0..600), hello in any::<bool>()) {
            let mut script = if hello { b"EHLO c\r\nMAIL FROM:<a@x>\r\n".to_vec() } else { Vec::new() };
            script.extend(bytes);
            let (said, got) = talk(Dialect::Smtp, &script);
            prop_assert!(said.lines().all(|l| l.len() > 3 && l.as_bytes()[..3].iter().all(u8::is_ascii_digit)), "{said}");
            prop_assert!(got.is_empty());
        }

        #[test]
        fn a_command_with_any_argument_is_survived(verb in "(EHLO|MAIL FROM:|RCPT TO:|MAIL FROM:<a@b> |DATA|RSET|VRFY|BDAT|AUTH|STARTTLS|ETRN|BURL|ATRN|NOOP|HELP|EXPN) ?", argument in "\\PC{0,200}") {
            let (said, _) = talk(Dialect::Smtp, format!("EHLO c\r\n{verb}{argument}\r\nQUIT\r\n").as_bytes());
            prop_assert!(said.starts_with("220 "));
        }
    }
}
