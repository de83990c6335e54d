//! The clients against servers that behave, and servers that do not.

use super::*;
use crate::event::Journal;
use crate::scenario::{Mix, Workload, WorkloadKind};
use crate::units::{Rate, Size, Span};
use crate::verify::{History, OpKind, Outcome};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

const BY: &str = "node=node1 epoch=7 stream=3f generation=42";

/// A server that says one thing after the other, whatever it hears.
struct Script {
    says: VecDeque<Vec<u8>>,
    /// What happens when it has said everything.
    silent: bool,
    received: Vec<u8>,
    /// Bytes that it takes before its side of the wire breaks.
    takes: usize,
}

impl Script {
    fn new<S: AsRef<[u8]>>(says: impl IntoIterator<Item = S>) -> Self {
        Self {
            says: says.into_iter().map(|s| s.as_ref().to_vec()).collect(),
            silent: false,
            received: Vec::new(),
            takes: usize::MAX,
        }
    }
}

impl Wire for Script {
    fn read(&mut self, buffer: &mut [u8], _: Deadline) -> io::Result<usize> {
        match self.says.pop_front() {
            Some(mut s) => {
                let n = s.len().min(buffer.len());
                buffer[..n].copy_from_slice(&s[..n]);
                if n < s.len() {
                    self.says.push_front(s.split_off(n));
                }
                Ok(n)
            }
            None if self.silent => Err(io::ErrorKind::WouldBlock.into()),
            None => Ok(0),
        }
    }
    fn write_all(&mut self, bytes: &[u8], _: Deadline) -> io::Result<()> {
        self.received.extend_from_slice(bytes);
        if self.received.len() > self.takes {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

fn letter() -> Letter {
    Letter::new(7, "1.m1.r@failoverlab.test", "a@client", "m1@exmbx", 2000)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

fn deliver(dialect: Dialect, script: &mut Script) -> Ended {
    converse(&mut Smtp::new(dialect, letter()), script, soon())
}

fn good(last: &str) -> Vec<String> {
    ["220 hello", "250-a\r\n250 b", "250 ok", "250 ok", "354 go", last]
        .iter()
        .map(|l| format!("{l}\r\n"))
        .collect()
}

#[test]
fn an_acknowledged_delivery_says_by_whom() {
    let mut s = Script::new(good(&format!("250 2.1.5 stored {BY}")));
    let ended = deliver(Dialect::Lmtp, &mut s);
    assert_eq!(ended.outcome, Outcome::Ok);
    assert_eq!(ended.by.unwrap().generation, 42);
    let received = String::from_utf8(s.received).unwrap();
    assert!(
        received.starts_with("LHLO client.failoverlab.test\r\nMAIL FROM:<a@client>\r\nRCPT TO:<m1@exmbx>\r\nDATA\r\n")
    );
    assert!(received.ends_with("\r\n.\r\nQUIT\r\n"), "{received}");
}

#[test]
fn a_hub_that_queues_is_no_store_answer() {
    let ended = deliver(Dialect::Smtp, &mut Script::new(good(&format!("250 queued {BY}"))));
    assert_eq!((ended.outcome, ended.by), (Outcome::Ok, None));
}

#[test]
fn up_to_the_last_line_nothing_has_happened() {
    let all = good("250 x");
    for n in 0..5 {
        for silent in [false, true] {
            let mut s = Script::new(&all[..n]);
            s.silent = silent;
            let ended = deliver(Dialect::Smtp, &mut s);
            assert_eq!(ended.outcome, Outcome::Fail, "after {n} replies: {}", ended.seen);
        }
    }
}

#[test]
fn after_the_last_line_silence_is_unknown() {
    for silent in [false, true] {
        let mut s = Script::new(&good("")[..5]);
        s.silent = silent;
        let ended = deliver(Dialect::Lmtp, &mut s);
        assert_eq!(ended.outcome, Outcome::Unknown, "{}", ended.seen);
    }
}

#[test]
fn a_wire_that_breaks_within_the_message_is_a_failure_and_within_the_last_line_is_not_known() {
    let mut whole = Script::new(good("250 x"));
    deliver(Dialect::Lmtp, &mut whole);
    let dot = whole.received.len() - "QUIT\r\n".len();
    for (takes, outcome) in [
        (dot - 100, Outcome::Fail),
        (dot - 4, Outcome::Fail),
        (dot - 1, Outcome::Unknown),
    ] {
        let mut s = Script::new(good("250 x"));
        s.takes = takes;
        assert_eq!(deliver(Dialect::Lmtp, &mut s).outcome, outcome, "{takes} of {dot}");
    }
}

#[test]
fn refusals_are_failures_and_nonsense_after_the_message_is_not_known() {
    for (last, outcome) in [
        ("451 later", Outcome::Unknown),
        ("554 never", Outcome::Fail),
        ("354 go on", Outcome::Unknown),
        ("25", Outcome::Unknown),
        ("2500 ok", Outcome::Unknown),
        ("OK", Outcome::Unknown),
        ("250-a\r\n251 b", Outcome::Unknown),
        ("\0\u{fffd}", Outcome::Unknown),
        ("999 x", Outcome::Unknown),
    ] {
        let ended = deliver(Dialect::Lmtp, &mut Script::new(good(last)));
        assert_eq!(ended.outcome, outcome, "{last:?}: {}", ended.seen);
    }
    let long = format!("250 {}", "x".repeat(10_000));
    let ended = deliver(Dialect::Lmtp, &mut Script::new(good(&long)));
    assert_eq!(ended.outcome, Outcome::Unknown);
    assert!(ended.seen.len() < 400);
    let endless = "250-x\r\n".repeat(500);
    assert_eq!(
        deliver(Dialect::Lmtp, &mut Script::new(good(&endless))).outcome,
        Outcome::Unknown
    );
}

#[test]
fn an_acknowledgement_before_the_message_is_none() {
    let mut s = Script::new([
        "220 a\r\n",
        "250 a\r\n",
        "250 a\r\n",
        "250 a\r\n",
        "354 go\r\n250 stored\r\n",
    ]);
    let ended = deliver(Dialect::Lmtp, &mut s);
    assert_eq!(ended.outcome, Outcome::Fail, "{}", ended.seen);
}

#[test]
fn replies_may_come_byte_by_byte() {
    let text: String = good(&format!("250 {BY}")).concat();
    // A reply is only read when it is due, so cutting between replies is what a slow server does.
    let mut s = Script::new(text.split_inclusive('\n').flat_map(|l| l.bytes().map(|b| [b])));
    let ended = deliver(Dialect::Lmtp, &mut s);
    assert_eq!((ended.outcome, ended.by.unwrap().epoch), (Outcome::Ok, 7));
}

fn stored(key: &str) -> String {
    let letter = Letter::new(7, key, "a@client", "m1@exmbx", 400);
    format!("+OK\r\n{}.\r\n", String::from_utf8(letter.text).unwrap())
}

fn visit(task: Task, says: &[String]) -> (Ended, String) {
    let mut s = Script::new(says);
    let ended = converse(&mut Pop3::new(task, "m1", 7, "r"), &mut s, soon());
    (ended, String::from_utf8(s.received).unwrap())
}

fn login(count: u32) -> Vec<String> {
    [
        format!("+OK {BY}"),
        "+OK".into(),
        "+OK".into(),
        format!("+OK {count} 999"),
    ]
    .iter()
    .map(|l| format!("{l}\r\n"))
    .collect()
}

#[test]
fn a_read_names_what_it_saw_and_what_was_damaged() {
    let mut says = login(2);
    says.push(stored("1.m1.r@failoverlab.test"));
    says.push(
        stored("2.m1.r@failoverlab.test")
            .replace("+OK\r\nDate", "+OK\r\nReceived: x\r\nDate")
            .replacen("AA", "AB", 1),
    );
    let (ended, received) = visit(Task::Read, &says);
    assert_eq!(ended.outcome, Outcome::Ok, "{}", ended.seen);
    assert_eq!(ended.by.unwrap().node, "node1");
    assert_eq!(ended.keys.unwrap().len(), 2);
    assert!(received.ends_with("RETR 1\r\nRETR 2\r\nQUIT\r\n"), "{received}");
    let mut says = login(1);
    let torn = stored("1.m1.r@failoverlab.test");
    says.push(torn.replacen(&torn[torn.len() - 40..torn.len() - 30], "----------", 1));
    let (ended, _) = visit(Task::Read, &says);
    assert_eq!(ended.damaged.unwrap(), ["1.m1.r@failoverlab.test"]);
}

#[test]
fn nothing_is_deleted_before_quit_is_acknowledged() {
    let key = "2.m1.r@failoverlab.test";
    let mut says = login(2);
    says.push(stored("1.m1.r@failoverlab.test"));
    says.push(stored(key));
    says.push("+OK marked\r\n".into());
    let task = || Task::Delete(key.into());
    let (ended, received) = visit(task(), &says);
    assert!(received.ends_with("DELE 2\r\nQUIT\r\n"), "{received}");
    assert_eq!(ended.outcome, Outcome::Unknown, "no answer to QUIT");
    for (answer, outcome) in [
        (format!("+OK {BY}\r\n"), Outcome::Ok),
        ("-ERR not removed\r\n".into(), Outcome::Unknown),
        ("what\r\n".into(), Outcome::Unknown),
    ] {
        let mut all = says.clone();
        all.push(answer);
        let (ended, _) = visit(task(), &all);
        assert_eq!(ended.outcome, outcome, "{}", ended.seen);
        assert_eq!(ended.by.is_some(), outcome == Outcome::Ok);
    }
    let (ended, received) = visit(Task::Delete("9.m1.r@failoverlab.test".into()), &says);
    assert_eq!(ended.outcome, Outcome::Fail);
    assert!(!received.contains("DELE"));
}

#[test]
fn a_pop3_server_that_talks_nonsense_is_a_failure() {
    for says in [
        vec!["-ERR down\r\n".to_owned()],
        vec!["220 smtp\r\n".to_owned()],
        vec![
            format!("+OK {BY}\r\n"),
            "+OK\r\n".into(),
            "+OK\r\n".into(),
            "+OK many\r\n".into(),
        ],
        vec!["x".repeat(10_000)],
    ] {
        let (ended, _) = visit(Task::Read, &says);
        assert_eq!(ended.outcome, Outcome::Fail, "{}", ended.seen);
    }
}

proptest! {
    #[test]
    fn garbage_never_hangs_panics_or_acknowledges(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..12),
        lmtp in any::<bool>(),
    ) {
        let dialect = if lmtp { Dialect::Lmtp } else { Dialect::Smtp };
        prop_assert_ne!(deliver(dialect, &mut Script::new(&parts)).outcome, Outcome::Ok);
        let mut s = Script::new(&parts);
        let ended = converse(&mut Pop3::new(Task::Read, "m1", 7, "r"), &mut s, soon());
        prop_assert_ne!(ended.outcome, Outcome::Ok);
    }
}

/// A store that takes LMTP on one port and refuses every other.
fn lmtp_server(listener: TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut text = false;
            writeln!(stream, "220 hi\r").unwrap();
            while let Some(Ok(line)) = lines.next() {
                let answer = match (text, line.as_str()) {
                    (true, ".") => format!("250 {BY}"),
                    (true, _) => continue,
                    (false, "DATA") => "354 go".into(),
                    (false, "QUIT") => return,
                    (false, _) => "250 ok".into(),
                };
                text = answer.starts_with("354");
                if writeln!(stream, "{answer}\r").is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn a_load_keeps_its_rate_and_writes_everything_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(lmtp) = listener.local_addr().unwrap() else {
        panic!()
    };
    std::thread::spawn(move || lmtp_server(listener));
    // A port that was bound and is free again: no process listens.
    let dead = {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        match l.local_addr().unwrap() {
            std::net::SocketAddr::V4(a) => a,
            _ => panic!(),
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ops.jsonl");
    let journal = OpJournal::create(&path, Journal::in_memory()).unwrap();
    let workload = Workload {
        kind: WorkloadKind::Mail,
        rate: Rate(200.0),
        size: Size(1024),
        clients: 4,
        deadline: Span::secs(5),
        mix: Mix {
            submit: 0,
            deliver: 1,
            read: 1,
            delete: 0,
        },
        seed: 7,
    };
    let endpoints = Endpoints {
        smtp: Vec::new(),
        lmtp,
        pop3: dead,
        domain: "exmbx".into(),
    };
    let load = Load::start(
        &workload,
        &Service::Mail(endpoints),
        Arc::new(Direct),
        journal.clone(),
        "r",
    )
    .unwrap();
    crate::wait::wait_until("see some answers", soon(), || {
        let p = load.progress();
        Ok(if p.acks >= 20 && p.failed >= 5 {
            crate::wait::Probe::Ready(())
        } else {
            crate::wait::Probe::NotYet(format!("{p:?}"))
        })
    })
    .unwrap();
    let progress = load.stop().unwrap();
    let history = History {
        ops: journal.lines(),
        ..History::default()
    };
    let ops = history.operations().unwrap();
    assert_eq!(ops.len() as u64, progress.begun);
    assert!(
        ops.iter().all(|o| o.end_us.is_some()),
        "a stopped load leaves nothing open"
    );
    let acked: Vec<_> = ops.iter().filter(|o| o.kind == OpKind::Deliver).collect();
    assert!(acked.iter().all(|o| o.store_answer().is_some_and(|b| b.epoch == 7)));
    assert!(
        ops.iter()
            .filter(|o| o.kind == OpKind::Read)
            .all(|o| o.outcome == Outcome::Fail)
    );
    let mut keys: Vec<_> = acked.iter().map(|o| o.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), acked.len(), "every key once");
    assert_eq!(
        std::fs::read_to_string(&path).unwrap().lines().count(),
        journal.lines().len() + 1,
        "a head, and a line for each"
    );
}
