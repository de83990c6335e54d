//! The agent itself at one end of a socket, with real processes and files, and a host at the other end.

use lab_agent::core::JOBS;
use lab_agent::message::{Clock, End, FromAgent, INPUT_WINDOW, Sample, Stream, ToAgent, VERSION, WINDOW};
use lab_agent::wire::{Decoder, encode};
use lab_agent::{AtEnd, Machine, ThisMachine, serve};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// This machine, whose clock is told and never set.
struct Looking(ThisMachine);

impl Machine for Looking {
    fn boot_id(&self) -> String {
        self.0.boot_id()
    }
    fn clock(&mut self) -> Clock {
        self.0.clock()
    }
    fn set_clock(&mut self, _: Duration) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }
    fn sample(&mut self) -> io::Result<Sample> {
        self.0.sample()
    }
}

/// One end of the port, and the agent at the other.
struct Host {
    stream: UnixStream,
    decoder: Decoder,
    heard: VecDeque<(u32, FromAgent)>,
    agent: JoinHandle<io::Result<()>>,
}

impl Host {
    /// A host that said nothing yet.
    fn silent() -> Self {
        let (stream, port) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let serve = move || {
            let port = File::from(OwnedFd::from(port));
            serve(port, &mut Looking(ThisMachine::new().unwrap()), "/".into(), AtEnd::Stop)
        };
        Self {
            stream,
            decoder: Decoder::default(),
            heard: VecDeque::new(),
            agent: std::thread::spawn(serve),
        }
    }

    fn new() -> Self {
        let mut host = Self::silent();
        host.hello();
        host
    }

    fn hello(&mut self) {
        let nonce = [self.heard.len() as u8 + 1; 16];
        let owner = [1; 16];
        self.stream.write_all(&[0]).unwrap();
        self.say(
            0,
            &ToAgent::Hello {
                version: VERSION,
                nonce,
                owner,
            },
        );
        self.decoder.reset();
        loop {
            if let (0, FromAgent::Welcome { nonce: n, boot_id, .. }) = self.hear()
                && n == nonce
            {
                assert_eq!(boot_id.len(), 36);
                return;
            }
        }
    }

    fn say(&mut self, channel: u32, message: &ToAgent) {
        let mut bytes = Vec::new();
        encode(&message.frame(channel), &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message. What is half heard of an earlier session is left out.
    fn hear(&mut self) -> (u32, FromAgent) {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            let mut part = [0; 4096];
            let n = self.stream.read(&mut part).expect("the agent says something");
            assert!(n > 0, "the agent is gone");
            let frames = self.decoder.take(&part[..n]).into_iter().flatten();
            self.heard
                .extend(frames.map(|f| (f.channel, FromAgent::parse(&f).unwrap())));
        }
    }

    fn run(&mut self, channel: u32, script: &str, within_ms: u32) {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.say(channel, &ToAgent::Run { argv, within_ms });
    }

    /// Output and end of the command on `channel`; credit is given as it comes.
    fn end(&mut self, channel: u32) -> (Vec<u8>, Vec<u8>, End) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.hear() {
                (c, FromAgent::Output(stream, bytes)) if c == channel => {
                    self.say(channel, &ToAgent::Credit(bytes.len() as u32));
                    if stream == Stream::Out { &mut out } else { &mut err }.extend(bytes);
                }
                (c, FromAgent::Ended { how, .. }) if c == channel => return (out, err, how),
                (_, FromAgent::Credit(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// How a file was done.
    fn filed(&mut self, channel: u32) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        loop {
            match self.hear() {
                (c, FromAgent::Output(Stream::Out, bytes)) if c == channel => {
                    self.say(channel, &ToAgent::Credit(bytes.len() as u32));
                    content.extend(bytes);
                }
                (c, FromAgent::Done) if c == channel => return Ok(content),
                (c, FromAgent::Failed { why }) if c == channel => return Err(why),
                (_, FromAgent::Credit(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn put(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Vec<u8>, String> {
        let path = path.to_str().unwrap().to_owned();
        let length = content.len() as u64;
        self.say(9, &ToAgent::Put { path, mode, length });
        self.say(9, &ToAgent::Input(content.to_vec()));
        self.say(9, &ToAgent::InputEnd);
        self.filed(9)
    }

    fn get(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let path = path.to_str().unwrap().to_owned();
        self.say(8, &ToAgent::Get { path });
        self.filed(8)
    }

    fn follow(&mut self, channel: u32, script: &str, from: Option<(u64, u64)>) {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let key = "k".to_owned();
        self.say(channel, &ToAgent::Follow { key, argv, from });
    }

    fn line(&mut self, channel: u32) -> (u64, String) {
        match self.hear() {
            (c, FromAgent::Line { number, text }) if c == channel => (number, String::from_utf8(text).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn following(&mut self, channel: u32) -> (u64, u64) {
        match self.hear() {
            (c, FromAgent::Following { id, next, .. }) if c == channel => (id, next),
            other => panic!("{other:?}"),
        }
    }

    /// Hangs up, and waits until the agent has seen it.
    fn leave(self) {
        drop(self.stream);
        self.agent.join().unwrap().unwrap();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives, and is not only waited for.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|s| !s.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[test]
fn a_command_has_input_both_outputs_and_a_status() {
    let mut host = Host::new();
    host.run(1, "cat; echo bad >&2; exit 3", 20_000);
    host.say(1, &ToAgent::Input(b"in".to_vec()));
    host.say(1, &ToAgent::InputEnd);
    assert_eq!(host.end(1), (b"in".to_vec(), b"bad\n".to_vec(), End::Exited(3)));
    host.run(1, "kill -9 $$", 20_000);
    assert_eq!(host.end(1).2, End::Signalled(9));
    host.say(
        2,
        &ToAgent::Run {
            argv: vec!["/no/such".into()],
            within_ms: 1000,
        },
    );
    let (out, err, how) = host.end(2);
    assert_eq!((out, how), (vec![], End::Exited(127)));
    assert!(
        String::from_utf8_lossy(&err).contains("/no/such: No such file"),
        "{err:?}"
    );
    host.leave();
}

#[test]
fn more_than_the_windows_goes_through_both_ways_at_once() {
    let mut host = Host::new();
    host.run(1, "cat; cat /proc/self/cmdline >&2", 20_000);
    let content: Vec<u8> = (0..3 * WINDOW).map(|n| (n % 251) as u8).collect();
    let (mut left, mut grant, mut out) = (&content[..], INPUT_WINDOW, Vec::new());
    loop {
        while grant > 0 && !left.is_empty() {
            let n = grant.min(left.len()).min(10_000);
            host.say(1, &ToAgent::Input(left[..n].to_vec()));
            (left, grant) = (&left[n..], grant - n);
            if left.is_empty() {
                host.say(1, &ToAgent::InputEnd);
            }
        }
        match host.hear() {
            (1, FromAgent::Credit(n)) => grant += n as usize,
            (1, FromAgent::Output(Stream::Out, bytes)) => {
                host.say(1, &ToAgent::Credit(bytes.len() as u32));
                out.extend(bytes);
            }
            (1, FromAgent::Output(Stream::Err, _)) => {}
            (1, FromAgent::Ended { how, .. }) => {
                assert_eq!(how, End::Exited(0));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(out == content, "{} of {} bytes", out.len(), content.len());
    host.leave();
}

#[test]
fn a_deadline_kills_the_whole_group() {
    let mut host = Host::new();
    host.run(1, "sleep 600 & echo $!; wait", 300);
    let (out, _, how) = host.end(1);
    assert_eq!(how, End::TimeRanOut);
    let pid = String::from_utf8(out).unwrap();
    eventually("the grandchild is gone", || !lives(&pid));
    // One whose leader has left it too.
    host.run(1, "sleep 600 & echo $!", 300);
    let (out, _, how) = host.end(1);
    assert_eq!(how, End::TimeRanOut);
    let pid = String::from_utf8(out).unwrap();
    eventually("the grandchild is gone", || !lives(&pid));
    host.leave();
}

#[test]
fn what_a_session_began_ends_with_it() {
    let mut host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x");
    host.run(1, "sleep 600 & echo $!; wait", 600_000);
    let (_, FromAgent::Output(_, pid)) = host.hear() else {
        panic!("no pid")
    };
    let path = file.to_str().unwrap().to_owned();
    host.say(
        2,
        &ToAgent::Put {
            path,
            mode: 0o644,
            length: 9,
        },
    );
    host.say(2, &ToAgent::Input(b"half".to_vec()));
    assert_eq!(host.hear(), (2, FromAgent::Credit(4)));
    host.hello();
    let pid = String::from_utf8(pid).unwrap();
    eventually("the group is gone", || !lives(&pid));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    host.run(1, "echo new", 20_000);
    assert_eq!(host.end(1).0, b"new\n");
    // A host that goes away takes its commands with it, at once.
    host.run(1, "sleep 600 & echo $!; wait", 600_000);
    let (_, FromAgent::Output(_, pid)) = host.hear() else {
        panic!("no pid")
    };
    host.leave();
    let pid = String::from_utf8(pid).unwrap();
    eventually("the group is gone", || !lives(&pid));
}

#[test]
fn a_follower_is_adopted_with_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("p");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let script = format!("exec cat {}", pipe.display());
    let mut host = Host::new();
    host.follow(1, &script, None);
    let (id, next) = host.following(1);
    assert_eq!(next, 0);
    let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(b"a\nb\n").unwrap();
    assert_eq!([host.line(1), host.line(1)], [(0, "a".into()), (1, "b".into())]);
    host.hello();
    writer.write_all(b"c\n").unwrap();
    host.follow(5, &script, Some((id, 1)));
    assert_eq!(host.following(5), (id, 1));
    assert_eq!([host.line(5), host.line(5)], [(1, "b".into()), (2, "c".into())]);
    drop(writer);
    let (_, FromAgent::Ended { how, .. }) = host.hear() else {
        panic!("no end")
    };
    assert_eq!(how, End::Exited(0));
    host.leave();
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::new();
    let file = dir.path().join("new folder/ä \"x\"\n$(y)");
    host.put(&file, b"content", 0o640).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    host.put(&file, b"", 0o4755).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o4755);
    assert_eq!(host.get(&file), Ok(vec![]));
    // A link is replaced, not followed; a name as long as a name may be is no longer with us.
    let (target, link) = (dir.path().join("target"), dir.path().join("l".repeat(255)));
    std::fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    host.put(&link, b"new", 0o600).unwrap();
    assert_eq!(
        (std::fs::read(&target).unwrap(), std::fs::read(&link).unwrap()),
        (b"old".to_vec(), b"new".to_vec())
    );
    for bad in ["", "target/x", "new folder", "x/", "x/.", "x/..", &"l".repeat(256)] {
        let path = format!("{}/{bad}", dir.path().display());
        let why = host.put(Path::new(&path), b"x", 0o600).unwrap_err();
        assert!(!why.is_empty(), "{bad}");
    }
    for left in std::fs::read_dir(dir.path()).unwrap() {
        let name = left.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("failoverlab"), "{name}");
    }
    host.leave();
}

#[test]
fn a_file_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::new();
    let file = dir.path().join("big");
    let content: Vec<u8> = (0..5 * WINDOW).map(|n| (n % 253) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    assert!(host.get(&file).unwrap() == content);
    // The kernel's files have a length of 0.
    let status = host.get(Path::new("/proc/self/status")).unwrap();
    assert!(status.starts_with(b"Name:"), "{status:?}");
    let e = |host: &mut Host, path: &str| host.get(Path::new(path)).unwrap_err();
    assert!(e(&mut host, "/no/such").contains("No such file"));
    assert!(e(&mut host, "/").contains("directory"));
    assert!(e(&mut host, "/dev/zero").contains("no regular file"));
    host.leave();
}

#[test]
fn the_clock_is_told_and_a_machine_is_looked_at() {
    let mut host = Host::new();
    host.say(1, &ToAgent::Look);
    let (1, FromAgent::Clock(clock)) = host.hear() else {
        panic!("no clock")
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(now.abs_diff(clock.time) < Duration::from_secs(5), "{clock:?}");
    host.say(1, &ToAgent::Set(Duration::from_secs(5)));
    let (1, FromAgent::Failed { why }) = host.hear() else {
        panic!("no failure")
    };
    assert!(why.contains("permission denied"), "{why}");
    host.say(1, &ToAgent::Sample);
    let (1, FromAgent::Sampled(sample)) = host.hear() else {
        panic!("no sample")
    };
    assert!(
        sample.clock.boottime >= clock.boottime && sample.boot_id.len() == 36,
        "{sample:?}"
    );
    host.leave();
}

#[test]
fn garbage_ends_a_session_and_the_next_one_begins_all_the_same() {
    let mut host = Host::silent();
    host.stream
        .write_all(&[b"GET / HTTP/1.1\r\n\r\n".repeat(9000), vec![7]].concat())
        .unwrap();
    host.hello();
    host.run(1, "sleep 600 & echo $!; wait", 600_000);
    let (_, FromAgent::Output(_, pid)) = host.hear() else {
        panic!("no pid")
    };
    host.stream.write_all(b"\0garbage\0").unwrap();
    let (0, FromAgent::Refused { why }) = host.hear() else {
        panic!("not refused")
    };
    assert!(why.contains("stuffing"), "{why}");
    let pid = String::from_utf8(pid).unwrap();
    eventually("the group is gone", || !lives(&pid));
    host.hello();
    host.run(1, "echo still here", 20_000);
    assert_eq!(host.end(1).0, b"still here\n");
    host.leave();
}

/// Commands that print without end, questions without end, and nobody who reads an answer: the agent stops reading.
#[test]
fn a_host_that_never_reads_is_not_served_without_end() {
    let mut host = Host::new();
    for n in 0..JOBS as u32 - 1 {
        host.run(n + 1, "yes", 600_000);
    }
    host.run(99, "echo $PPID; exec sleep 600", 600_000);
    host.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut question = Vec::new();
    encode(&ToAgent::Sample.frame(100), &mut question);
    let mut asked = 0;
    while host.stream.write_all(&question).is_ok() {
        asked += 1;
        assert!(asked < 1_000_000, "the agent takes questions without end");
    }
    // It serves the next session, when somebody reads again.
    host.stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = host.stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        host.heard.clear();
        host.decoder.reset();
        loop {
            if let (0, FromAgent::Welcome { .. }) = host.hear() {
                return host;
            }
        }
    });
    let mut hello = vec![0];
    let (version, nonce, owner) = (VERSION, [9; 16], [1; 16]);
    encode(&ToAgent::Hello { version, nonce, owner }.frame(0), &mut hello);
    stream.write_all(&hello).unwrap();
    drop(stream);
    let mut host = reader.join().unwrap();
    eventually("there is room again", || {
        host.run(1, "echo again", 20_000);
        match host.hear() {
            (1, FromAgent::Failed { .. }) => false,
            (1, FromAgent::Output(_, said)) => said == b"again\n",
            other => panic!("{other:?}"),
        }
    });
    host.leave();
}
