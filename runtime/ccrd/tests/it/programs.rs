//! Programs that know nothing of this cluster send and read through a planned move and a kill: what was reported as sent is read
//! exactly once, byte for byte, and keeps its unique id. Skipped, with a message, where there is no Python.

use crate::cluster::Cluster;
use crate::failover::{SETTINGS, SOON, healthy, other};
use ccr_contract::status::{Copy, CopyStatus};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/programs.py");
const MESSAGES: usize = 60;
/// How many messages may be on their way when something happens.
const AHEAD: usize = 5;

#[derive(Debug, Deserialize)]
struct Sent {
    key: String,
    to: Vec<String>,
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Found {
    #[serde(rename = "box")]
    mailbox: String,
    key: String,
    digest: String,
    uid: String,
}

/// Whose, and which message: its digest, and its unique id.
type Mail = BTreeMap<(String, String), (String, String)>;

fn python(verb: &str, at: SocketAddrV4, words: &[String]) -> Child {
    Command::new("python3")
        .args([PROGRAM, verb, &at.ip().to_string(), &at.port().to_string()])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3")
}

/// What a reader finds; none where it was cut off.
fn read(cluster: &Cluster, boxes: &BTreeSet<String>) -> Option<Mail> {
    let words: Vec<String> = boxes.iter().cloned().collect();
    let out = python("read", cluster.reading(), &words)
        .wait_with_output()
        .expect("its end");
    if !out.status.success() {
        return None;
    }
    let mut mail = Mail::new();
    for line in String::from_utf8(out.stdout).expect("UTF-8").lines() {
        let found: Found = serde_json::from_str(line).expect("a message");
        let before = mail.insert((found.mailbox, found.key), (found.digest, found.uid));
        assert!(before.is_none(), "twice: {line}");
    }
    Some(mail)
}

#[test]
fn what_programs_report_as_sent_is_read_exactly_once() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let first = cluster.until("the service is online", SOON, Cluster::active);
    let second = other(first);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, second));
    let mut sender = python("send", cluster.submitter().0, &[MESSAGES.to_string()]);
    let mut pace = sender.stdin.take().expect("its input");
    pace.write_all(&[b'\n'; AHEAD]).expect("it reads");
    let lines = BufReader::new(sender.stdout.take().expect("its output")).lines();
    let mut sent: Vec<Sent> = Vec::new();
    for line in lines {
        sent.push(serde_json::from_str(&line.expect("a line")).expect("a message"));
        if sent.len() == MESSAGES / 3 {
            let moved = cluster.ctl(first, &["cms", "move", second, "--comment", "under load"]);
            assert!(moved.is_ok(), "{moved:?}\n{}", cluster.report());
        }
        if sent.len() == MESSAGES * 2 / 3 {
            // Until then it knows nothing of what the other one did, and would mount nothing by itself.
            cluster.until("the copy is healthy again", SOON, |c| healthy(c, first));
            cluster.kill(second);
        }
        if sent.len() + AHEAD <= MESSAGES {
            pace.write_all(b"\n").expect("it reads");
        }
    }
    let end = sender.wait_with_output().expect("its end");
    assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    assert_eq!(sent.len(), MESSAGES);

    let expected: BTreeMap<(String, String), String> = sent
        .iter()
        .flat_map(|s| s.to.iter().map(|to| ((to.clone(), s.key.clone()), s.digest.clone())))
        .collect();
    let boxes: BTreeSet<String> = expected.keys().map(|(b, _)| b.clone()).collect();
    let found = cluster.until("everything is read", SOON, |c| {
        let found = read(c, &boxes)?;
        (found.len() >= expected.len()).then_some(found)
    });
    let digests: BTreeMap<_, _> = found
        .iter()
        .map(|(k, (digest, _))| (k.clone(), digest.clone()))
        .collect();
    assert!(digests == expected, "bytes or messages differ");
    // The dead one comes back and serves: whoever keeps its mail on the server fetches none of it again.
    cluster.power_on(second);
    cluster.until("the copy has every closed log", SOON, |c| {
        let copies = c.status(second)?.copies;
        let whole = |c: &Copy| c.status == CopyStatus::Healthy && c.copy_queue == 0;
        copies.iter().all(whole).then_some(())
    });
    cluster.kill(first);
    cluster.until("the same messages, by the same ids", SOON, |c| {
        (read(c, &boxes)? == found).then_some(())
    });
}
