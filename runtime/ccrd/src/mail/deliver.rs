//! LMTP out: hands one message to the service address, under one deadline.

use super::Limits;
use super::wire::{Broken, Line, Stuffing, Wire, printable};
use ccr_contract::reply::ReplyLine;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Lines of one answer that are read before the peer is taken for mad.
const MAX_LINES: usize = 64;

/// What the store said about one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The text behind them, lines joined by a space.
    pub text: String,
}

impl Reply {
    /// 2xx.
    pub fn is_taken(&self) -> bool {
        self.code / 100 == 2
    }
}

/// Why there is no answer. Whether the message was stored is then unknown.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The conversation broke.
    #[error("{during}: {cause}")]
    Broken {
        /// What was being done.
        during: &'static str,
        /// Why.
        cause: Broken,
    },
    /// The peer refused before the message was sent.
    #[error("{during}: {code} {text}")]
    Refused {
        /// What was being done.
        during: &'static str,
        /// Its code.
        code: u16,
        /// Its text.
        text: String,
    },
    /// An answer that is none.
    #[error("{during}: the answer is no answer: {seen}")]
    Nonsense {
        /// What was being done.
        during: &'static str,
        /// Its beginning.
        seen: String,
    },
    /// The deadline passed.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

/// A message on its way out.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// Name for LHLO.
    pub me: &'a str,
    /// Return path.
    pub from: &'a str,
    /// Its recipients.
    pub to: &'a [String],
    /// The hub's own id, sent as ENVID.
    pub hub_id: &'a str,
    /// The message.
    pub bytes: &'a [u8],
}

/// Delivers over `stream`; one reply for each recipient.
pub async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    message: &Outgoing<'_>,
    deadline: Duration,
) -> Result<Vec<Reply>, Failed> {
    let mut wire = Wire::new(stream, deadline);
    match tokio::time::timeout(deadline, converse(&mut wire, message)).await {
        Ok(done) => done,
        Err(_) => Err(Failed::Late(deadline)),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    m: &Outgoing<'_>,
) -> Result<Vec<Reply>, Failed> {
    expect(wire, "the greeting", 2).await?;
    step(wire, "LHLO", &format!("LHLO {}\r\n", m.me), 2).await?;
    step(
        wire,
        "MAIL",
        &format!("MAIL FROM:<{}> ENVID={}\r\n", m.from, xtext(m.hub_id)),
        2,
    )
    .await?;
    // A refused recipient is that recipient's answer; the others get theirs after the message.
    let mut replies = Vec::new();
    let mut waiting = Vec::new();
    for (at, to) in m.to.iter().enumerate() {
        send(wire, "RCPT", format!("RCPT TO:<{to}>\r\n").as_bytes()).await?;
        let reply = answer(wire, "RCPT").await?;
        if reply.is_taken() {
            waiting.push(at);
        }
        replies.push(reply);
    }
    if !waiting.is_empty() {
        step(wire, "DATA", "DATA\r\n", 3).await?;
        let mut stuffing = Stuffing::default();
        let during = "the message";
        let broken = |cause| Failed::Broken { during, cause };
        wire.send_text(&mut stuffing, m.bytes).await.map_err(broken)?;
        wire.end_text(stuffing).await.map_err(broken)?;
        for at in waiting {
            replies[at] = answer(wire, "the message").await?;
        }
    }
    // Everything is said; a peer that does not say goodbye changes nothing.
    let _ = wire.send(b"QUIT\r\n").await;
    Ok(replies)
}

async fn step<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    during: &'static str,
    line: &str,
    class: u16,
) -> Result<(), Failed> {
    send(wire, during, line.as_bytes()).await?;
    expect(wire, during, class).await
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    during: &'static str,
    bytes: &[u8],
) -> Result<(), Failed> {
    wire.send(bytes).await.map_err(|cause| Failed::Broken { during, cause })
}

async fn expect<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    during: &'static str,
    class: u16,
) -> Result<(), Failed> {
    let Reply { code, text } = answer(wire, during).await?;
    if code / 100 == class {
        Ok(())
    } else {
        Err(Failed::Refused { during, code, text })
    }
}

/// One answer, continued lines joined.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, during: &'static str) -> Result<Reply, Failed> {
    let mut text = String::new();
    for _ in 0..MAX_LINES {
        let line = wire
            .line(Limits::default().line)
            .await
            .map_err(|cause| Failed::Broken { during, cause })?;
        let Line::Whole(bytes) = line else {
            return Err(Failed::Nonsense {
                during,
                seen: "an overlong line".into(),
            });
        };
        let reply = printable(&bytes).and_then(|line| ReplyLine::parse(line.as_bytes()));
        let Some(ReplyLine { code, last, text: rest }) = reply else {
            let seen = String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
                .escape_debug()
                .to_string();
            return Err(Failed::Nonsense { during, seen });
        };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&String::from_utf8_lossy(rest));
        if last {
            return Ok(Reply { code, text });
        }
    }
    Err(Failed::Nonsense {
        during,
        seen: format!("more than {MAX_LINES} lines"),
    })
}

/// RFC 3461 4: the characters that may not stand for themselves are written `+XX`.
fn xtext(id: &str) -> String {
    id.bytes()
        .map(|b| {
            if (b'!'..=b'~').contains(&b) && b != b'+' && b != b'=' {
                char::from(b).to_string()
            } else {
                format!("+{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::smtp::{Answer, Dialect, Inbox, Message, session};
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::AsyncWriteExt;

    #[derive(Default)]
    struct Store(Mutex<Vec<Message>>);

    impl Inbox for Store {
        async fn greeting(&self) -> Result<String, String> {
            Ok(String::new())
        }
        async fn take(&self, message: Message) -> Vec<Answer> {
            let n = message.to.len();
            self.0.lock().unwrap().push(message);
            (0..n)
                .map(|i| {
                    if i == 1 {
                        Answer::new(451, "full")
                    } else {
                        Answer::new(250, "stored node=a")
                    }
                })
                .collect()
        }
    }

    fn outgoing<'a>(to: &'a [String], bytes: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            me: "hub",
            from: "a@x",
            to,
            hub_id: "hub:1=2+3",
            bytes,
        }
    }

    #[tokio::test]
    async fn arrives_as_it_was_sent() {
        let store = Arc::new(Store::default());
        let (near, far) = tokio::io::duplex(512);
        let to = ["a@x".to_owned(), "b@x".to_owned(), "c@x".to_owned()];
        let bytes = b"Subject: s\r\n\r\n.\r\n..\r\nend\r\n";
        let limits = Limits::default();
        let message = outgoing(&to, bytes);
        let (replies, _) = tokio::join!(
            deliver(near, &message, Duration::from_secs(5)),
            session(far, Dialect::Lmtp, "exmbx", store.clone(), &limits)
        );
        let codes: Vec<u16> = replies.unwrap().iter().map(|r| r.code).collect();
        assert_eq!(codes, [250, 451, 250]);
        let got = store.0.lock().unwrap().pop().unwrap();
        assert_eq!(got.bytes, bytes);
        assert_eq!(got.hub_id.as_deref(), Some("hub:1=2+3"));
        assert_eq!(got.to, to);
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(512);
        let to = ["a@x".to_owned()];
        let e = deliver(near, &outgoing(&to, b"x\r\n"), Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(matches!(e, Failed::Late(_) | Failed::Broken { .. }), "{e}");
    }

    #[tokio::test]
    async fn hostile_peers() {
        for (script, word) in [
            (&b"421 go away\r\n"[..], "421 go away"),
            (b"hello\r\n", "no answer"),
            (b"220 ok\r\n250-a\r\n", "closed"),
            (b"22", "closed"),
            (b"2200 ok\r\n", "no answer"),
            ("22é ok\r\n".as_bytes(), "no answer"),
        ] {
            let (near, mut far) = tokio::io::duplex(512);
            far.write_all(script).await.unwrap();
            far.shutdown().await.unwrap();
            let to = ["a@x".to_owned()];
            let e = deliver(near, &outgoing(&to, b"x\r\n"), Duration::from_secs(5))
                .await
                .unwrap_err();
            assert!(e.to_string().contains(word), "{e} / {word}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(line in "\\PC{0,100}") {
            if let Some(line) = ReplyLine::parse(line.as_bytes()) {
                prop_assert!(line.code < 1000);
            }
        }
    }
}
