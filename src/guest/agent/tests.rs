//! The host's side against the agent itself, over a socket, and against peers that misbehave.

mod relaying;

use super::line::Progress;
use super::*;
use crate::error::{Error, Result};
use crate::guest::{Command, Followed, Remote};
use crate::image::agent::PROGRAM;
use crate::wait::{Deadline, Probe, wait_until};
use lab_agent::message::{Clock, FromAgent, Sample, ToAgent, VERSION};
use lab_agent::wire::{Decoder, encode};
use lab_agent::{AtEnd, Machine};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const BOOT_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";
const OURS: Owner = [1; 16];

/// Waits for a condition.
fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let probe = || {
        Ok(match seen() {
            true => Probe::Ready(()),
            false => Probe::NotYet("it is not so".into()),
        })
    };
    wait_until(what, soon(), probe).unwrap();
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// A machine whose clock is what `tell` says; it hears the time that is set.
struct Told<F>(F);

impl<F: FnMut(Option<Duration>) -> Duration> Machine for Told<F> {
    fn boot_id(&self) -> String {
        BOOT_ID.to_owned()
    }
    fn clock(&mut self) -> Clock {
        Clock {
            time: (self.0)(None),
            boottime: Duration::from_secs(9),
        }
    }
    fn set_clock(&mut self, time: Duration) -> std::io::Result<()> {
        (self.0)(Some(time));
        Ok(())
    }
    fn sample(&mut self) -> std::io::Result<Sample> {
        Ok(Sample {
            boot_id: BOOT_ID.to_owned(),
            clock: self.clock(),
            load: [7, 8, 9],
            ports: Vec::new(),
        })
    }
}

/// An agent at one end of a socket; the other end.
fn agent(tell: impl FnMut(Option<Duration>) -> Duration + Send + 'static) -> UnixStream {
    let (ours, port) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let port = File::from(OwnedFd::from(port));
        lab_agent::serve(port, &mut Told(tell), "/".into(), AtEnd::Stop).unwrap();
    });
    ours
}

/// The agent of a machine behind `socket`, as long as the test runs: its clock is what `tell` says. Hosts come and go, one at a time;
/// what it says to nobody is lost, and it is not told that nobody is there.
pub(crate) fn serve(socket: &Path, tell: impl FnMut(Option<Duration>) -> Duration + Send + 'static) {
    serve_stream(socket, agent(tell));
}

/// The same with anything in the agent's place.
pub(crate) fn serve_stream(socket: &Path, mut agent: UnixStream) {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let host = Arc::new(Mutex::new(None::<UnixStream>));
    let (mut said, to) = (agent.try_clone().unwrap(), host.clone());
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = said.read(&mut part) {
            if let Some(host) = &mut *to.lock().unwrap() {
                let _ = host.write_all(&part[..n]);
            }
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            *host.lock().unwrap() = Some(stream.try_clone().unwrap());
            let _ = std::io::copy(&mut stream, &mut agent);
            *host.lock().unwrap() = None;
        }
    });
}

fn line(stream: UnixStream) -> Arc<Line> {
    Line::over("node1", stream, OURS, Progress::default(), soon()).unwrap()
}

fn remote() -> AgentRemote {
    AgentRemote::new(line(agent(|_| Duration::from_secs(5))))
}

fn sh(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

#[test]
fn a_command_goes_through_as_over_any_way() {
    let mut remote = remote();
    let mut command = sh("cat; echo bad >&2; exit 3");
    command.stdin = b"in".repeat(300_000);
    let out = remote.exec(&command, soon()).unwrap();
    assert_eq!((out.status, out.stderr.as_slice()), (3, &b"bad\n"[..]));
    assert!(out.stdout == command.stdin, "{} bytes", out.stdout.len());
    assert_eq!(remote.exec(&sh("kill -9 $$"), soon()).unwrap().status, 137);
    let out = remote.exec(&Command::new(["no-such-program"]), soon()).unwrap();
    assert_eq!((out.status, out.complaint().contains("no-such-program")), (127, true));
    // One that does not read what it is given is none of our business.
    command.argv = vec!["true".into()];
    assert_eq!(remote.exec(&command, soon()).unwrap().status, 0);
}

#[test]
fn many_act_at_once_over_one_line() {
    let remote = remote();
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|n| {
                let mut remote = remote.clone();
                scope.spawn(move || remote.exec(&sh(&format!("yes {n} | head -c 400000")), soon()))
            })
            .collect();
        asked.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
    });
    for (n, out) in outputs.iter().enumerate() {
        assert!(out.stdout == format!("{n}\n").repeat(200_000).into_bytes(), "{n}");
    }
}

#[test]
fn a_listener_hears_lines_and_its_refusal_ends_the_command() {
    let mut remote = remote();
    let mut heard = Vec::new();
    let out = remote.exec_heard(&sh("echo a; echo b"), soon(), &mut |l| {
        heard.extend(l.map(str::to_owned));
        Ok(())
    });
    assert_eq!(
        (out.unwrap().stdout, heard.join(" ")),
        (b"a\nb\n".to_vec(), "a b".to_owned())
    );
    let begin = Instant::now();
    let e = remote
        .exec_heard(&sh("echo a; exec sleep 600"), soon(), &mut |_| Err(Error::Interrupted))
        .unwrap_err();
    assert!(matches!(e, Error::Interrupted) && begin.elapsed() < Duration::from_secs(10));
    // The line is as good as before.
    assert_eq!(remote.exec(&sh("exit 4"), soon()).unwrap().status, 4);
}

#[test]
fn time_that_runs_out_is_the_commands_fault_while_the_agent_answers() {
    let mut remote = remote();
    // Scaled by how long a shell takes now: it has to come as far as its first word.
    let begun = Instant::now();
    assert_eq!(remote.exec(&sh("echo half"), soon()).unwrap().stdout, b"half\n");
    let within = Duration::from_millis(600) + 20 * begun.elapsed();
    let e = remote
        .exec(&sh("echo half; exec sleep 600"), Deadline::after(within))
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("sh") && e.contains("it was killed") && e.contains("half"),
        "{e}"
    );
    assert_eq!(remote.exec(&sh("exit 4"), soon()).unwrap().status, 4);
}

#[test]
fn words_that_no_frame_carries_are_refused_before() {
    let mut remote = remote();
    let e = remote.exec(&Command::new(Vec::<String>::new()), soon()).unwrap_err();
    assert_eq!(e.exit_code(), 70);
    let e = remote.exec(&Command::new(["a", "b\0c"]), soon()).unwrap_err();
    assert_eq!(e.exit_code(), 70);
    let e = remote.exec(&Command::new(["a".to_owned(), "b".repeat(1 << 20)]), soon());
    assert!(e.unwrap_err().to_string().contains("bytes of arguments"));
    assert_eq!(remote.exec(&sh("exit 4"), soon()).unwrap().status, 4);
}

#[test]
fn files_go_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let mut remote = remote();
    let file = dir.path().join("a b/ü");
    let content: Vec<u8> = (0..700_000).map(|n| (n % 251) as u8).collect();
    remote.upload(&content, &file, 0o640, soon()).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(remote.download(&file, soon()).unwrap() == content);
    let e = remote.download(Path::new("/no/such"), soon()).unwrap_err().to_string();
    assert!(
        e.contains("could not read the file (node1:/no/such)") && e.contains("No such file"),
        "{e}"
    );
    let e = remote
        .upload(&content, dir.path(), 0o600, soon())
        .unwrap_err()
        .to_string();
    assert!(e.contains("could not write the file") && e.contains("directory"), "{e}");
    assert_eq!(
        remote
            .upload(b"", Path::new("x"), 0o600, soon())
            .unwrap_err()
            .exit_code(),
        2
    );
}

#[test]
fn a_follower_outlives_a_line_that_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("p");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let socket = dir.path().join("s");
    serve(&socket, |_| Duration::ZERO);
    let progress = Progress::default();
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        Line::over("node1", stream, OURS, progress.clone(), soon()).unwrap()
    };
    let first = connect();
    let command = Command::new(["cat", pipe.to_str().unwrap()]);
    let (lines, mut writer) = std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            let mut lines = Vec::new();
            let e = AgentRemote::new(first.clone()).follow(&command, &mut |heard| {
                match heard {
                    Followed::Begun { ran } => assert_eq!(ran, None),
                    Followed::Line(l) => lines.push(l.to_owned()),
                    Followed::Nothing => {}
                }
                if heard == Followed::Line("b") {
                    first.close();
                }
                true
            });
            assert!(e.unwrap_err().to_string().contains("ended here"));
            lines
        });
        let mut writer = File::options().write(true).open(&pipe).unwrap();
        writer.write_all(b"a\nb\n").unwrap();
        (following.join().unwrap(), writer)
    });
    assert_eq!(lines, ["a", "b"]);
    writer.write_all(b"c\nd\n").unwrap();
    drop(writer);
    let mut lines = Vec::new();
    let mut ran = None;
    let mut keep = |heard: Followed<'_>| {
        match heard {
            Followed::Begun { ran: since } => ran = since,
            Followed::Line(l) => lines.push(l.to_owned()),
            Followed::Nothing => {}
        }
        true
    };
    AgentRemote::new(connect()).follow(&command, &mut keep).unwrap();
    assert_eq!(lines, ["c", "d"]);
    assert!(ran.is_some(), "it was begun in the session before");
}

#[test]
fn a_follower_that_fails_says_why_and_one_that_is_enough_is_ended() {
    let mut remote = remote();
    let e = remote
        .follow(&sh("echo a; echo why >&2; exit 3"), &mut |_| true)
        .unwrap_err();
    assert!(e.to_string().contains("status 3: why"), "{e}");
    let (mut pid, script) = (String::new(), "echo $$; exec sleep 600");
    remote
        .follow(&sh(script), &mut |heard| {
            if let Followed::Line(l) = heard {
                pid.push_str(l);
            }
            // It says no more: that is told as well.
            heard != Followed::Nothing
        })
        .unwrap();
    until("see it end", || !Path::new("/proc").join(&pid).exists());
    let too_long = "head -c 70000 /dev/zero | tr '\\0' x; echo; exec sleep 600";
    let e = remote.follow(&sh(too_long), &mut |_| true).unwrap_err();
    assert!(e.to_string().contains("a line is longer than"), "{e}");
}

#[test]
fn the_time_of_day_needs_no_program_in_the_machine() {
    // A program would say what this host's clock says.
    assert_eq!(remote().time(soon()).unwrap(), Duration::from_secs(5));
}

#[test]
fn the_clock_is_told_and_set_and_the_line_held() {
    let set = Arc::new(Mutex::new(None));
    let told = set.clone();
    let line = line(agent(move |to| {
        if to.is_some() {
            *told.lock().unwrap() = to;
        }
        Duration::new(17, 5)
    }));
    let reading = line.look(soon()).unwrap();
    assert_eq!(
        (reading.time, reading.boot_id.as_str()),
        (Duration::new(17, 5), BOOT_ID)
    );
    assert_eq!(
        line.set(Duration::new(18, 7), soon()).unwrap().time,
        Duration::new(17, 5)
    );
    assert_eq!(*set.lock().unwrap(), Some(Duration::new(18, 7)));
    assert_eq!(line.sample(soon()).unwrap().load, [7, 8, 9]);
    let hold = line.hold(soon()).unwrap();
    assert_eq!(hold.reading.time, Duration::new(17, 5));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| line.look(soon()));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!asked.is_finished(), "something was said while the line was held");
        drop(hold);
        asked.join().unwrap().unwrap();
    });
}

/// A peer that does `speak` with the connection; what comes of a hello.
fn meet(speak: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<Arc<Line>> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        speak(&mut theirs);
        // Until the other side gives up.
        let _ = theirs.read_to_end(&mut Vec::new());
    });
    let deadline = Deadline::after(Duration::from_millis(500));
    Line::over("node1", ours, OURS, Progress::default(), deadline)
}

fn say(stream: &mut UnixStream, channel: u32, message: &FromAgent) {
    let mut bytes = Vec::new();
    encode(&message.frame(channel), &mut bytes);
    let _ = stream.write_all(&bytes);
}

/// The next thing that the host says.
fn hear(stream: &mut UnixStream) -> (u32, ToAgent) {
    let mut decoder = Decoder::default();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        if let Some(frame) = decoder.take(&byte).pop() {
            let frame = frame.unwrap();
            return (frame.channel, ToAgent::parse(&frame).unwrap());
        }
    }
}

fn answer_hello(stream: &mut UnixStream, version: u16, boot_id: &str) {
    let (0, ToAgent::Hello { nonce, .. }) = hear(stream) else {
        panic!("no hello")
    };
    let boot_id = boot_id.to_owned();
    let welcome = FromAgent::Welcome {
        version,
        nonce,
        boot_id,
    };
    say(stream, 0, &welcome);
}

#[test]
fn a_peer_that_is_no_agent_is_named_as_such() {
    let why = |met: Result<Arc<Line>>| {
        let e = met.unwrap_err();
        assert_eq!(e.exit_code(), 5);
        let e = e.to_string();
        assert!(e.contains("reach the machine's agent (node1)"), "{e}");
        e
    };
    let e = why(meet(|_| {}));
    assert!(e.contains("not a word until time ran out"), "{e}");
    // The clock's program of earlier images answers nothing that is no line of its own; others say anything.
    let e = why(meet(|s| drop(s.write_all(&b"garbage\n".repeat(1000)))));
    assert!(e.contains("8000 bytes that are no answer"), "{e}");
    let e = why(meet(|s| answer_hello(s, VERSION + 1, BOOT_ID)));
    assert!(e.contains(&format!("it speaks version {}", VERSION + 1)), "{e}");
    let e = why(meet(|s| answer_hello(s, VERSION, "x\u{1b}[2J")));
    assert!(e.contains("is no boot id"), "{e}");
    let e = why(meet(|s| {
        hear(s);
        s.shutdown(std::net::Shutdown::Both).unwrap();
    }));
    assert!(e.contains("the machine is gone"), "{e}");
    let welcome = FromAgent::Welcome {
        version: VERSION,
        nonce: [0; 16],
        boot_id: BOOT_ID.into(),
    };
    let e = why(meet(move |s| say(s, 0, &welcome)));
    assert!(e.contains("no answer until time ran out"), "{e}");
    let e = Line::connect("a", Path::new("/nonexistent/a.t"), OURS, soon()).unwrap_err();
    assert!(e.to_string().contains("reach the machine's agent"), "{e}");
}

/// A command with a peer that answers the hello and then does `speak`.
fn ask(speak: impl FnOnce(&mut UnixStream, u32) + Send + 'static) -> String {
    let line = meet(move |s| {
        answer_hello(s, VERSION, BOOT_ID);
        let (channel, ToAgent::Run { .. }) = hear(s) else {
            panic!("nothing to run")
        };
        speak(s, channel);
    })
    .unwrap();
    let mut remote = AgentRemote::new(line.clone());
    let begin = Instant::now();
    let e = remote
        .exec(&sh("true"), Deadline::after(Duration::from_millis(800)))
        .unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(!line.is_usable());
    // Whoever comes later hears the same.
    let later = remote.exec(&sh("true"), soon()).unwrap_err().to_string();
    let e = e.to_string();
    assert_eq!(e.split(": ").nth(1), later.split(": ").nth(1), "{e} {later}");
    e
}

#[test]
fn an_agent_that_goes_astray_is_given_up() {
    for (what, said) in [("garbage", b"\0garbage\0".to_vec()), ("oversize", vec![1; 1 << 20])] {
        let e = ask(move |s, _| {
            let _ = s.write_all(&said);
            let _ = s.write_all(&[0]);
        });
        assert!(e.contains("it does not speak as an agent"), "{what}: {e}");
    }
    let e = ask(|_, _| {});
    assert!(e.contains("time ran out; nothing was heard of it for"), "{e}");
    let e = ask(|s, _| {
        let why = "the agent has just begun".into();
        say(s, 0, &FromAgent::Refused { why });
    });
    assert!(e.contains("the agent has just begun"), "{e}");
    let e = ask(|s, channel| say(s, channel, &FromAgent::Done));
    assert!(e.contains("it does not speak as an agent"), "{e}");
    let e = ask(|s, _| s.shutdown(std::net::Shutdown::Both).unwrap());
    assert!(e.contains("the machine is gone"), "{e}");
}

#[test]
fn an_agent_that_sends_without_end_is_given_up() {
    let line = meet(|s| {
        answer_hello(s, VERSION, BOOT_ID);
        let (channel, _) = hear(s);
        let mut bytes = Vec::new();
        let line = FromAgent::Line {
            number: 0,
            text: vec![b'x'; 1000],
        };
        encode(&line.frame(channel), &mut bytes);
        while s.write_all(&bytes).is_ok() {}
    })
    .unwrap();
    // It is asked for one thing and says others: nobody takes them.
    let channel = line.begin("look", &ToAgent::Look).unwrap();
    until("see the line given up", || !line.is_usable());
    assert!(
        channel
            .dead("x")
            .to_string()
            .contains("it sends more than it was asked for")
    );
}

/// The program itself, as machines have it, with its standard input for a port.
fn program() -> (tempfile::TempDir, UnixStream, Child) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let mut file = File::create(&path).unwrap();
    file.write_all(PROGRAM).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(file);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(&path);
    command.arg("-").stdin(OwnedFd::from(theirs));
    loop {
        match command.spawn() {
            Ok(child) => return (dir, ours, child),
            // A process that another test begins at this moment has it open for writing too.
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ExecutableFileBusy, "{e}"),
        }
    }
}

#[test]
fn an_agent_that_is_stopped_or_killed_is_named_within_the_deadline() {
    let (_dir, stream, mut child) = program();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args([name, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    let line = line(stream);
    let mut remote = AgentRemote::new(line.clone());
    assert_eq!(remote.exec(&sh("exit 4"), soon()).unwrap().status, 4);
    signal("-STOP");
    let begin = Instant::now();
    let e = remote
        .exec(&sh("true"), Deadline::after(Duration::from_millis(500)))
        .unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(e.to_string().contains("nothing was heard of it for"), "{e}");
    assert!(
        e.problem()
            .unwrap()
            .remedy
            .as_deref()
            .unwrap()
            .contains("failoverlab-agent")
    );
    signal("-CONT");
    child.kill().unwrap();
    child.wait().unwrap();

    let (_dir, stream, mut child) = program();
    let mut remote = AgentRemote::new(self::line(stream));
    let mut kill = |line: Option<&str>| {
        if line.is_some() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Ok(())
    };
    let e = remote
        .exec_heard(&sh("echo it runs; exec sleep 2"), soon(), &mut kill)
        .unwrap_err();
    assert!(e.to_string().contains("the machine is gone"), "{e}");
}
