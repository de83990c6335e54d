//! Conversations with the server of [`super`].

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

/// The answers behind a hello, without it.
fn answers(commands: &str) -> Vec<String> {
    let (said, _) = talk(Dialect::Smtp, format!("EHLO c\r\n{commands}QUIT\r\n").as_bytes());
    said.lines().skip(6).map(str::to_owned).collect()
}

#[test]
fn what_no_store_takes_is_refused_at_rcpt_and_the_others_get_their_mail() {
    let said =
        answers("MAIL FROM:<a@x>\r\nRCPT TO:<a/b@x>\r\nRCPT TO:<\"q uoted\"@x>\r\nRCPT TO:<gü@x>\r\nRCPT TO:<ann>\r\n");
    let expected = [
        "250 2.1.0 go on",
        "550 5.1.1 no such mailbox name",
        "550 5.1.1 no such mailbox name",
        "553 5.6.7 an address of other characters than ASCII needs SMTPUTF8, which is not offered here",
        "501 5.1.3 write a recipient with its domain, like <ann@example.org>",
        "221 2.0.0 bye",
    ];
    assert_eq!(said, expected);
    let (_, got) = talk(
        Dialect::Smtp,
        b"EHLO c\r\nMAIL FROM:<\"o dd\"@x>\r\nRCPT TO:<good@x>\r\nRCPT TO:<\"a@b\"@x>\r\nRCPT TO:<PostMaster>\r\nDATA\r\nx\r\n.\r\n",
    );
    assert_eq!(got[0].to, ["good@x", "postmaster@hub"]);
    assert_eq!(got[0].from, "\"o dd\"@x");
}

#[test]
fn a_sender_is_refused_at_mail() {
    let said = answers("MAIL FROM:<ü@x>\r\nMAIL FROM:<ann>\r\nRCPT TO:<a@x>\r\nMAIL FROM:<>\r\n");
    let codes: Vec<&str> = said.iter().map(|l| &l[..9]).collect();
    assert_eq!(codes, ["553 5.6.7", "501 5.1.7", "503 5.5.1", "250 2.1.0", "221 2.0.0"]);
}

#[test]
fn parameters_that_were_not_announced_are_refused() {
    let refused = [
        "SMTPUTF8",
        "BODY=BINARYMIME",
        "ENVID=mine",
        "RET=HDRS",
        "AUTH=<>",
        "REQUIRETLS",
        "HOLDFOR=5",
        "COLOUR=red",
    ];
    for parameter in refused {
        let said = answers(&format!("MAIL FROM:<a@x> {parameter}\r\n"));
        assert!(said[0].starts_with("555 5.5.4"), "{parameter}: {said:?}");
    }
    for parameter in ["SIZE=0", "BODY=8BITMIME", "BODY=7BIT", "size=7 body=8bitmime"] {
        let said = answers(&format!("MAIL FROM:<a@x> {parameter}\r\n"));
        assert!(said[0].starts_with("250"), "{parameter}: {said:?}");
    }
    let said = answers("MAIL FROM:<a@x>\r\nRCPT TO:<b@x> NOTIFY=NEVER\r\nRCPT TO:<b@x>\r\n");
    assert!(
        said[1].starts_with("555 5.5.4") && said[2].starts_with("250"),
        "{said:?}"
    );
    let (said, _) = talk(
        Dialect::Lmtp,
        b"LHLO c\r\nMAIL FROM:<a@x> RET=HDRS ENVID=h\r\nRCPT TO:<b@x> NOTIFY=NEVER\r\n",
    );
    assert!(said.ends_with("250 2.1.0 go on\r\n250 2.1.5 go on\r\n"), "{said}");
}

#[test]
fn a_size_beyond_all_numbers_is_too_large() {
    for size in ["1001", "99999999999999999999", "999999999999999999999999999999"] {
        let said = answers(&format!("MAIL FROM:<a@x> SIZE={size}\r\n"));
        assert_eq!(said[0], "552 5.3.4 too large", "{size}");
    }
    let said = answers("MAIL FROM:<a@x> SIZE=00000000000000000000000000000999\r\n");
    assert!(said[0].starts_with("250"), "{said:?}");
}

#[test]
fn commands_without_end_are_ended_and_answers_do_not_pile_up() {
    let (said, _) = talk(Dialect::Smtp, &b"NOOP\r\n".repeat(100_000));
    assert!(
        said.ends_with("421 4.7.0 too many commands without a message\r\n"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1 + limits().commands as usize + 2);
}

#[test]
fn a_command_ends_with_a_bare_line_feed_too_and_the_message_gets_whole_lines() {
    let (said, got) = talk(
        Dialect::Smtp,
        b"EHLO c\nMAIL FROM:<a@x>\nRCPT TO:<b@x>\nDATA\nx\n.y\n\r\n.\r\nQUIT\n",
    );
    assert!(said.ends_with("221 2.0.0 bye\r\n"), "{said}");
    assert_eq!(got[0].bytes, b"x\r\n.y\r\n\r\n");
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
