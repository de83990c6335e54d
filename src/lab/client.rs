//! The CLI's side of the supervisor's socket: finds the supervisor, or starts it, and asks it.

use super::protocol::{Greeting, LINE_MAX, PROTO, Reply, Request, Since, Verb, build, error_of};
use crate::error::{Cause, Error, IoContext, Problem, Result};
use crate::event::Event;
use crate::fabric::CaptureFilter;
use crate::files::{Home, LabFiles};
use crate::guest::agent::{AgentRemote, Line};
use crate::process::Stat;
use crate::wait::{Deadline, Probe, wait_until};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The longest that a supervisor may take to open its socket: libvirt is opened after that.
const START: Duration = Duration::from_secs(20);

/// What comes of following a lab's events.
#[derive(Debug, Clone, Copy)]
pub enum StreamItem<'a> {
    /// Something happened.
    Event(&'a Event),
    /// These cannot be told any more: the first and the last number.
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
}

/// A conversation with a lab's supervisor.
#[derive(Debug)]
pub struct Client {
    read: BufReader<UnixStream>,
    write: UnixStream,
    greeting: Greeting,
    next: u64,
}

impl Client {
    /// The supervisor that runs; `None` where none does.
    pub fn find(files: &LabFiles) -> Result<Option<Self>> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        match UnixStream::connect(files.socket()) {
            Ok(stream) => Self::greet(stream),
            Err(e) if matches!(e.kind(), NotFound | ConnectionRefused) => Ok(None),
            Err(e) => Err(e).tried("reach the supervisor", files.socket().display()),
        }
    }

    /// The supervisor that runs, or a new one. A lab whose machines still run is adopted by the new one.
    pub fn find_or_start(home: &Home, instance: &str) -> Result<Self> {
        let exe = std::env::current_exe().tried("find this program", "")?;
        Self::find_or_start_as(&exe, home, instance)
    }

    fn find_or_start_as(exe: &Path, home: &Home, instance: &str) -> Result<Self> {
        let files = home.lab(instance);
        let mut child = None;
        wait_until("start the lab's supervisor", Deadline::after(START), || {
            if let Some(client) = Self::find(&files)? {
                return Ok(Probe::Ready(client));
            }
            let Some(started) = &mut child else {
                for dir in [&home.state, &files.state, &home.runtime, &files.run] {
                    Home::private_dir(dir)?;
                }
                match start(exe, &files, instance) {
                    Ok(started) => child = Some(started),
                    // The one before has just removed it, with all that it had.
                    Err(_) if !files.state.is_dir() => {}
                    Err(e) => return Err(e),
                }
                return Ok(Probe::NotYet("its socket is not there yet".into()));
            };
            match started.try_wait() {
                // It found another supervisor: one that is about to bind the socket, or one that ends.
                Ok(Some(status)) if status.success() => {
                    child = None;
                    Ok(Probe::NotYet("another supervisor starts or ends".into()))
                }
                Ok(Some(status)) => Err(Error::Operation(
                    Problem::new("start the lab's supervisor")
                        .on(instance)
                        .observed(format!("it ended with {status}: {}", last_line(&files)))
                        .remedy(format!("see {}", files.supervisor_log().display())),
                )),
                _ => Ok(Probe::NotYet("its socket is not there yet".into())),
            }
        })
    }

    /// Hears the supervisor's greeting; none where it ended before it came to that.
    fn greet(stream: UnixStream) -> Result<Option<Self>> {
        let write = stream.try_clone().tried("talk to the supervisor", "")?;
        let mut read = BufReader::new(stream);
        match read.fill_buf() {
            Ok([]) => return Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            _ => {}
        }
        let line = read_line(&mut read)?;
        let greeting: Greeting = serde_json::from_str(&line).map_err(|e| {
            Error::Operation(Problem::new("understand the supervisor's greeting").observed(format!("{e}: {line:.200}")))
        })?;
        if greeting.proto != PROTO {
            return Err(Error::Operation(
                Problem::new("talk to the lab's supervisor")
                    .on(&greeting.lab)
                    .observed(format!("it is failoverlab {} (protocol {}), this is {} (protocol {PROTO})", greeting.failoverlab, greeting.proto, build()))
                    .remedy(format!("take the lab down with that build, or end process {}: the machines live on and this build adopts them", greeting.pid)),
            ));
        }
        Ok(Some(Self {
            read,
            write,
            greeting,
            next: 1,
        }))
    }

    /// The supervisor's greeting.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Asks and waits; `on_event` hears what happens meanwhile.
    pub fn ask(&mut self, verb: Verb, mut on_event: impl FnMut(&Event)) -> Result<Value> {
        let id = self.send(verb)?;
        loop {
            match self.next_reply()? {
                Reply::Event(e) => on_event(&e),
                Reply::Ok { id: of, result } if of == id => return Ok(result),
                Reply::Error { code, problem, .. } => return Err(error_of(code, problem)),
                Reply::Ok { .. } | Reply::Gap { .. } => {}
            }
        }
    }

    /// Asks for something that ends quickly and reads its result as `T`.
    pub fn get<T: DeserializeOwned>(&mut self, verb: Verb) -> Result<T> {
        self.get_with_events(verb, |_| {})
    }

    /// The same for what takes longer: `on_event` hears what happens meanwhile.
    pub fn get_with_events<T: DeserializeOwned>(&mut self, verb: Verb, on_event: impl FnMut(&Event)) -> Result<T> {
        let word = verb.word();
        let value = self.ask(verb, on_event)?;
        serde_json::from_value(value)
            .map_err(|e| Error::Bug(Problem::new("understand the supervisor's answer").on(word).observed(e)))
    }

    /// Hears the events from the number `from` on, until `on` has enough (`false`) or the supervisor ends.
    ///
    /// # Errors
    /// Where the supervisor cannot read its journal.
    pub fn follow(mut self, from: Option<u64>, mut on: impl FnMut(StreamItem<'_>) -> bool) -> Result<()> {
        self.send(Verb::Events(Some(Since { from })))?;
        while let Ok(reply) = self.next_reply() {
            let more = match &reply {
                Reply::Event(e) => on(StreamItem::Event(e)),
                Reply::Gap { from, to } => on(StreamItem::Gap { from: *from, to: *to }),
                Reply::Error { code, problem, .. } => return Err(error_of(*code, problem.clone())),
                Reply::Ok { .. } => true,
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// A connection to an address of the lab, from the workstation's own port.
    pub fn dial(mut self, to: std::net::SocketAddrV4, within: Duration) -> Result<LabStream> {
        self.ask(
            Verb::Dial {
                to,
                within_ms: within.as_millis() as u64,
            },
            |_| {},
        )?;
        Ok(LabStream {
            read: self.read,
            write: self.write,
        })
    }

    /// A stream of pcapng: what passes the networks' ports from now on. It ends when [`Client::hang_up`] is called.
    pub fn capture(mut self, filter: CaptureFilter) -> Result<LabStream> {
        self.ask(Verb::Capture(filter), |_| {})?;
        // The writing half stays open: its end would end the capture.
        Ok(LabStream {
            read: self.read,
            write: self.write,
        })
    }

    /// A way into `node` over its agent, for one command.
    ///
    /// # Errors
    /// Its agent does not answer.
    pub fn agent(mut self, node: &str, deadline: Deadline) -> Result<AgentRemote> {
        let named = node.to_owned();
        self.ask(Verb::Agent { node: named }, |_| {})?;
        // Nobody speaks on the connection before we do: nothing is left in the buffer.
        let line = Line::begin_over(node, self.write, deadline)?;
        Ok(AgentRemote::new(line))
    }

    /// The socket, so that another thread can end the conversation (and so cancel the request).
    pub fn hang_up(&self) -> Result<impl Fn() + Send + use<>> {
        let stream = self
            .write
            .try_clone()
            .tried("talk to the supervisor", &self.greeting.lab)?;
        Ok(move || {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        })
    }

    fn send(&mut self, verb: Verb) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        let mut line = serde_json::to_vec(&Request { id, verb }).expect("a request is plain data");
        line.push(b'\n');
        self.write.write_all(&line).map_err(|e| self.lost(&e.to_string()))?;
        Ok(id)
    }

    fn next_reply(&mut self) -> Result<Reply> {
        let line = read_line(&mut self.read).map_err(|e| self.lost(&e.to_string()))?;
        serde_json::from_str(&line).map_err(|e| {
            Error::Operation(Problem::new("understand the supervisor").observed(format!("{e}: {line:.200}")))
        })
    }

    fn lost(&self, seen: &str) -> Error {
        Error::Operation(
            Problem::new("hear from the lab's supervisor")
                .on(&self.greeting.lab)
                .observed(seen)
                .because(Cause::SupervisorEnded)
                .remedy("run the command again: a new supervisor adopts the machines"),
        )
    }
}

/// A byte stream to an address of the lab.
#[derive(Debug)]
pub struct LabStream {
    // Buffered: a server may speak first, and its words may have come with the supervisor's `ok`.
    read: BufReader<UnixStream>,
    write: UnixStream,
}

impl LabStream {
    /// Longest wait of a read or a write; none waits for ever.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.write.set_read_timeout(timeout)?;
        self.write.set_write_timeout(timeout)
    }
}

impl LabStream {
    /// What is read and what is written, each by itself.
    pub fn into_halves(self) -> (BufReader<UnixStream>, UnixStream) {
        (self.read, self.write)
    }
}

impl Read for LabStream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.read.read(buf)
    }
}

impl Write for LabStream {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.write.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn read_line(read: &mut BufReader<UnixStream>) -> Result<String> {
    let mut line = Vec::new();
    let n = read
        .take(LINE_MAX as u64)
        .read_until(b'\n', &mut line)
        .tried("read from the supervisor", "")?;
    if n == 0 {
        return Err(Error::Operation(
            Problem::new("read from the supervisor").observed("it closed the connection"),
        ));
    }
    String::from_utf8(line).tried("read from the supervisor", "")
}

/// Starts `exe` as a supervisor. It outlives whoever called, so it gets none of their files: a lock that a script holds while it
/// calls `up` would else be held for as long as the lab lives.
fn start(exe: &Path, files: &LabFiles, instance: &str) -> Result<std::process::Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(files.supervisor_log())
        .tried("open the supervisor's log", files.supervisor_log().display())?;
    let err = log.try_clone().tried("open the supervisor's log", "")?;
    let mut command = Command::new(exe);
    command
        .args(["supervise", instance])
        .envs(crate::hypervisor::log_environment(&files.supervisor_log()))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(err);
    crate::hypervisor::inherit_no_files(&mut command)
        .spawn()
        .tried("start the lab's supervisor", instance)
}

fn last_line(files: &LabFiles) -> String {
    std::fs::read_to_string(files.supervisor_log())
        .ok()
        .and_then(|t| t.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned))
        .unwrap_or_else(|| "it said nothing".into())
}

/// Waits until the supervisor's process is gone: after `down` nothing of the lab is left.
pub fn wait_gone(pid: u32, within: Duration) -> Result<()> {
    wait_until("see the supervisor end", Deadline::after(within), || {
        // A zombie is gone but for its parent's glance.
        Ok(match Stat::of(pid).filter(Stat::runs) {
            None => Probe::Ready(()),
            Some(s) => Probe::NotYet(format!("process {pid} in state {}", s.state)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_setfd};

    /// Writes a program that says how it was called and which files it has. Written by another process: a file that this one, with its
    /// many threads, has just written may be "busy".
    const WRITE: &str = r#"printf '%s\n' '#!/bin/sh' 'echo "$@"' 'ls -l /proc/$$/fd' >"$0" && chmod 755 "$0""#;

    #[test]
    fn a_supervisor_gets_none_of_its_caller_s_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::under(dir.path()).lab("x");
        Home::private_dir(&files.state).unwrap();
        let exe = dir.path().join("lists");
        let written = Command::new("sh").args(["-c", WRITE]).arg(&exe).status().unwrap();
        assert!(written.success());
        // As a shell hands it on: `exec 9>lock`.
        let lock = std::fs::File::create(dir.path().join("lock")).unwrap();
        fcntl_setfd(&lock, FdFlags::empty()).unwrap();

        assert!(start(&exe, &files, "x").unwrap().wait().unwrap().success());
        let said = std::fs::read_to_string(files.supervisor_log()).unwrap();
        assert!(
            said.starts_with("supervise x\n") && said.contains("/dev/null"),
            "{said}"
        );
        assert!(!said.contains("/lock"), "{said}");
        // Any other program has it: the look is a true one.
        let other = Command::new(&exe).output().unwrap();
        assert!(String::from_utf8_lossy(&other.stdout).contains("/lock"));
    }

    /// Ends well twice without a socket, as one does that finds the lock taken; the third one is there for a moment, and the fourth greets.
    const FOURTH: &str = r#"printf '%s\n' '#!/bin/sh' 'echo once >>"$0.times"' '[ $(wc -l <"$0.times") -lt 3 ] || touch "$0.go"' >"$0" && chmod 755 "$0""#;

    #[test]
    fn a_supervisor_that_ends_well_without_a_socket_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("x");
        let exe = dir.path().join("starts");
        assert!(
            Command::new("sh")
                .args(["-c", FOURTH])
                .arg(&exe)
                .status()
                .unwrap()
                .success()
        );
        let socket = files.socket();
        let go = dir.path().join("starts.go");
        let serving = std::thread::spawn(move || {
            wait_until("be started three times", Deadline::after(START), || {
                Ok(if go.exists() {
                    Probe::Ready(())
                } else {
                    Probe::NotYet("not yet".into())
                })
            })
            .unwrap();
            let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
            // One that ends just when a client comes: the client is not greeted, and comes again.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let greeting = Greeting {
                failoverlab: build(),
                proto: PROTO,
                lab: "x".into(),
                pid: 1,
            };
            writeln!(stream, "{}", serde_json::to_string(&greeting).unwrap()).unwrap();
        });
        let client = Client::find_or_start_as(&exe, &home, "x").unwrap();
        assert_eq!(client.greeting().lab, "x");
        serving.join().unwrap();
    }
}
