//! curl and swaks send, curl and fetchmail read, through a planned move and a kill: whatever a program reports as sent is read exactly
//! once and as it was sent, attachments of 8 MB included, and who keeps a list of what it has read fetches nothing twice. Skipped, with
//! a message, where one of the programs is not installed (`scripts/bootstrap tests` installs them).

use crate::cluster::Cluster;
use crate::failover::{SETTINGS, SOON, healthy, other};
use ccr_contract::status::{Copy, CopyStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

const MESSAGES: usize = 12;
const MAILBOX: &str = "everyday";

/// The n-th message, as it is read in the end.
fn message(n: usize, key: &str) -> Vec<u8> {
    let body: Vec<u8> = match n % 6 {
        0 => b"plain".to_vec(),
        1 => [&b"8 bit: "[..], "Gr\u{fc}\u{df}e".as_bytes(), &[0xff, 0x80]].concat(),
        2 => vec![b'x'; 50_000],
        3 => b".\r\n..\r\n\r\n.\r\n.end".to_vec(),
        4 => b"one\r\ntwo\r\nthree".to_vec(),
        // 8 MB as base64 writes them.
        _ => (0..8_000_000 / 57)
            .flat_map(|_| [&[b'Q'; 76][..], b"\r\n"].concat())
            .collect(),
    };
    let head = format!("Message-ID: <{key}>\r\nSubject: {n}\r\n\r\n");
    [head.as_bytes(), &body, b"\r\n"].concat()
}

/// Sends a file with one of the two programs; whether that one says that it is sent.
fn send(cluster: &Cluster, n: usize, folder: &Path, bytes: &[u8]) -> bool {
    let file = folder.join("message");
    // Some programs end lines with a line feed alone.
    let bare: Vec<u8> = bytes.iter().copied().filter(|b| *b != b'\r').collect();
    std::fs::write(&file, if n % 6 == 4 { &bare } else { bytes }).expect("a file");
    let (at, to) = (cluster.submitter().0, format!("{MAILBOX}@lab"));
    let mut program = if n.is_multiple_of(2) {
        let mut curl = Command::new("curl");
        let others = (0..150).map(|b| format!("box{b}@lab")).filter(|_| n == 0);
        curl.args(["--silent", "--show-error", "--max-time", "60", "--mail-from", "bob@lab"]);
        for to in others.chain([to]) {
            curl.args(["--mail-rcpt", &to]);
        }
        curl.arg("--upload-file").arg(&file).arg(format!("smtp://{at}/client"));
        curl
    } else {
        let mut swaks = Command::new("swaks");
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        swaks.args([
            "--server", &host, "--port", &port, "--helo", "client", "--from", "bob@lab",
        ]);
        swaks.args(["--to", &to, "--timeout", "60s", "--silent", "3"]);
        swaks.arg("--data").arg(format!("@{}", file.display()));
        swaks
    };
    program.output().expect("the program").status.success()
}

fn without_end(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_end()
}

/// Messages by their keys, and the unique ids.
type Read = (BTreeMap<String, Vec<u8>>, BTreeSet<String>);

/// What curl reads of the mailbox.
fn read(cluster: &Cluster) -> Option<Read> {
    let curl = |request: &str, words: &[&str]| {
        let mut curl = Command::new("curl");
        let from = format!("pop3://{}/{request}", cluster.reading());
        curl.args(["--silent", "--show-error", "--max-time", "60", "--user"]);
        let out = curl
            .arg(format!("{MAILBOX}:any"))
            .args(words)
            .arg(from)
            .output()
            .expect("curl");
        out.status.success().then_some(out.stdout)
    };
    let listing = curl("", &["--request", "UIDL"])?;
    let listing = String::from_utf8_lossy(&listing).into_owned();
    // What is delivered again comes last: its number is another one, its id is not.
    let ids = listing
        .lines()
        .filter_map(|l| l.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect();
    let mut found = BTreeMap::new();
    for n in 1..=listing.lines().count() {
        let bytes = curl(&n.to_string(), &[])?;
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned();
        let key = head.split_once("Message-ID: <")?.1.split_once('>')?.0.to_owned();
        assert!(found.insert(key, bytes).is_none(), "twice: {head}");
    }
    Some((found, ids))
}

/// One run of fetchmail, which keeps its mail on the server and a list of what it has; what it fetched.
fn fetch(cluster: &Cluster, folder: &Path) -> Option<String> {
    let (at, rc, out) = (cluster.reading(), folder.join("rc"), folder.join("fetched"));
    let text = format!(
        "poll {} protocol pop3 port {} auth password uidl\n  user \"{MAILBOX}\" password \"any\" keep norewrite sslproto ''\n",
        at.ip(),
        at.port()
    );
    for old in [&rc, &out] {
        match std::fs::remove_file(old) {
            Err(e) if e.kind() != ErrorKind::NotFound => panic!("{}: {e}", old.display()),
            _ => {}
        }
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&rc)
        .expect("a file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("it is written");
    let mut fetchmail = Command::new("fetchmail");
    fetchmail
        .env("FETCHMAILHOME", folder)
        .env("HOME", folder)
        .arg("--fetchmailrc")
        .arg(&rc);
    fetchmail
        .args(["--nodetach", "--nosyslog", "--timeout", "60", "--bsmtp"])
        .arg(&out);
    let ended = fetchmail.output().expect("fetchmail");
    // 0: there was mail; 1: there was none.
    let done = matches!(ended.status.code(), Some(0 | 1));
    if !done {
        eprintln!("fetchmail: {}", String::from_utf8_lossy(&ended.stderr));
    }
    // Where there was no mail it writes no file.
    done.then(|| match std::fs::read(&out) {
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        read => String::from_utf8_lossy(&read.expect("what was fetched")).into_owned(),
    })
}

fn missing() -> Option<&'static str> {
    let there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    ["curl", "swaks", "fetchmail"].into_iter().find(|p| !there(p))
}

#[test]
fn curl_swaks_and_fetchmail_find_everything_once() {
    if let Some(program) = missing() {
        return eprintln!("skipped: {program} is not installed (scripts/bootstrap tests)");
    }
    let Some(mut cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let first = cluster.until("the service is online", SOON, Cluster::active);
    let second = other(first);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, second));
    let mut sent = BTreeMap::new();
    for n in 0..MESSAGES {
        if n == MESSAGES / 3 {
            let moved = cluster.ctl(first, &["cms", "move", second, "--comment", "under load"]);
            assert!(moved.is_ok(), "{moved:?}\n{}", cluster.report());
        }
        if n == MESSAGES * 2 / 3 {
            cluster.until("the copy is healthy again", SOON, |c| healthy(c, first));
            cluster.kill(second);
        }
        let mut attempts = 0;
        cluster.until("a program says that it is sent", SOON, |c| {
            // What is not reported as sent is another message the next time.
            attempts += 1;
            let key = format!("everyday-{n}-{attempts}@test");
            let bytes = message(n, &key);
            send(c, n, folder.path(), &bytes).then(|| sent.insert(key, bytes))
        });
    }
    assert_eq!(sent.len(), MESSAGES);
    let (found, ids) = cluster.until("everything is read", SOON, |c| {
        read(c).filter(|(found, _)| sent.keys().all(|k| found.contains_key(k)))
    });
    for (key, bytes) in &sent {
        assert!(
            without_end(&found[key]) == without_end(bytes),
            "{key} is another message"
        );
    }
    let count = |text: &str| {
        sent.keys()
            .map(|k| text.matches(&format!("Message-ID: <{k}>")).count())
            .collect::<Vec<_>>()
    };
    let fetched = cluster.until("fetchmail fetches", SOON, |c| fetch(c, folder.path()));
    assert!(count(&fetched).iter().all(|n| *n == 1), "{:?}", count(&fetched));
    // The dead one comes back and serves: nobody fetches anything again.
    cluster.power_on(second);
    cluster.until("the copy has every closed log", SOON, |c| {
        let whole = |c: &Copy| c.node == second && c.status == CopyStatus::Healthy && c.copy_queue == 0;
        c.status(second)?.copies.iter().any(whole).then_some(())
    });
    cluster.kill(first);
    cluster.until("the same by the same ids", SOON, |c| {
        let (again, same) = read(c)?;
        (again == found && same == ids).then_some(())
    });
    let again = cluster.until("fetchmail asks again", SOON, |c| fetch(c, folder.path()));
    assert!(count(&again).iter().all(|n| *n == 0), "{:?}", count(&again));
}
