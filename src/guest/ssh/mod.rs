//! SSH through ssh2: one session, one owner, every call with a deadline, the host key pinned.
//!
//! libssh2 has one lock for each session, and a blocking call holds it. So the session never blocks: each step is tried, and
//! between two tries we wait for the socket ourselves, until the deadline. That also drains both outputs of a command while its
//! input is being written, whichever of them fills a window first.

mod target;

pub use target::{Target, openssh_argv};

use super::keys::public_bytes;
use super::lines::{Lines, MAX_LINE};
use super::transfer::{text_path, upload};
use super::{Command, Followed, Output, Remote, quote};
use crate::error::{Error, IoContext, Problem, Result};
use crate::wait::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, MethodType, Session};
use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most bytes that a command may print before it is given up.
pub const MAX_OUTPUT: usize = 64 << 20;
/// A followed machine that has not even answered a keep-alive for this long is taken for dead.
pub const SILENCE: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Longest wait for the socket in one go.
const TICK: Duration = Duration::from_millis(500);

/// libssh2's "try again".
const EAGAIN: ErrorCode = ErrorCode::Session(-37);

/// One connection to one node.
pub struct Ssh {
    session: Session,
    /// The session's socket once more, to wait for.
    socket: TcpStream,
    node: String,
    /// Why nothing works any more.
    dead: Option<String>,
    heard: Instant,
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh")
            .field("node", &self.node)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

/// Where output came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Stdout,
    Stderr,
}

impl Ssh {
    /// Connects, compares the host key with the pinned one, logs in as root.
    pub fn connect(target: &Target, deadline: Deadline) -> Result<Self> {
        Self::connect_if_heard(target, deadline.left(), deadline)
    }

    /// The same for a machine that may still be booting: gives up after `first_word` if not a byte came from it.
    pub(super) fn connect_if_heard(target: &Target, first_word: Duration, deadline: Deadline) -> Result<Self> {
        const WHAT: &str = "connect over SSH";
        let on = &target.node;
        let failed = |seen: &dyn fmt::Display| Error::Operation(Problem::new(WHAT).on(on).observed(seen));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, target.port));
        let left = deadline.left().max(Duration::from_millis(1));
        let socket = TcpStream::connect_timeout(&address, left).map_err(|e| failed(&e))?;
        socket.set_nodelay(true).tried(WHAT, on)?;
        socket.set_nonblocking(true).tried(WHAT, on)?;
        let mut session = Session::new().map_err(|e| failed(&e))?;
        // Made for machines whose processor is emulated: the cheapest of what is safe.
        for (kind, methods) in [
            (MethodType::Kex, "curve25519-sha256,curve25519-sha256@libssh.org"),
            (MethodType::HostKey, "ssh-ed25519"),
        ] {
            session.method_pref(kind, methods).map_err(|e| failed(&e))?;
        }
        session.set_tcp_stream(socket.try_clone().tried(WHAT, on)?);
        session.set_blocking(false);
        let mut ssh = Self {
            session,
            socket,
            node: on.clone(),
            dead: None,
            heard: Instant::now(),
        };
        if !ssh.poll(first_word) {
            return Err(failed(&"time ran out, the machine does not say a word"));
        }
        ssh.drive(WHAT, deadline, Session::handshake)?;
        let pinned = public_bytes(&target.host_key)?;
        match ssh.session.host_key() {
            Some((key, _)) if key == pinned => {}
            _ => {
                return Err(Error::Operation(
                    Problem::new(WHAT)
                        .on(on)
                        .observed(format!(
                            "127.0.0.1:{} does not have the host key that was made for it",
                            target.port
                        ))
                        .remedy("another machine answers on this port: take the lab down and up again"),
                ));
            }
        }
        let identity = fs_err::read_to_string(&target.identity).tried("read the key", target.identity.display())?;
        ssh.drive(WHAT, deadline, |s| {
            s.userauth_pubkey_memory("root", None, &identity, None)
        })?;
        ssh.session.set_keepalive(true, KEEPALIVE.as_secs() as u32);
        Ok(ssh)
    }

    /// The node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether a call may still succeed: false once the connection died or a deadline cut a call short.
    pub fn is_usable(&self) -> bool {
        self.dead.is_none()
    }

    fn die(&mut self, what: &str, seen: impl fmt::Display) -> Error {
        let seen = seen.to_string();
        self.dead.get_or_insert_with(|| seen.clone());
        Error::Operation(
            Problem::new(what)
                .on(&self.node)
                .observed(format!("the SSH connection is gone: {seen}")),
        )
    }

    fn check_alive(&mut self, what: &str) -> Result<()> {
        match self.dead.clone() {
            Some(why) => Err(self.die(what, why)),
            None => Ok(()),
        }
    }

    /// Tries `step` until it does not want to wait any more.
    fn drive<T>(
        &mut self,
        what: &str,
        deadline: Deadline,
        mut step: impl FnMut(&mut Session) -> Result<T, ssh2::Error>,
    ) -> Result<T> {
        loop {
            match step(&mut self.session) {
                Ok(done) => return Ok(done),
                Err(e) if e.code() == EAGAIN => self.wait(what, deadline)?,
                Err(e) => return Err(self.die(what, e)),
            }
        }
    }

    /// Waits, a moment at most, until the socket may have something for us. A deadline that passes leaves the connection unusable: it is not known how
    /// much of the step was done.
    fn wait(&mut self, what: &str, deadline: Deadline) -> Result<()> {
        if !self.poll(deadline.left().min(TICK)) && deadline.passed() {
            return Err(self.die(what, "time ran out, the machine does not answer"));
        }
        Ok(())
    }

    /// Whether the socket became ready within `most`.
    fn poll(&mut self, most: Duration) -> bool {
        let flags = match self.session.block_directions() {
            BlockDirections::Outbound => PollFlags::OUT,
            BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::IN,
        };
        let mut fds = [PollFd::new(&self.socket, flags)];
        let most = Timespec {
            tv_sec: most.as_secs() as i64,
            tv_nsec: most.subsec_nanos().into(),
        };
        let ready = matches!(poll(&mut fds, Some(&most)), Ok(n) if n > 0);
        if ready && fds[0].revents().contains(PollFlags::IN) {
            self.heard = Instant::now();
        }
        ready
    }

    fn start(&mut self, what: &str, command: &Command, deadline: Deadline) -> Result<Channel> {
        let line = quote(&command.argv)?;
        self.check_alive(what)?;
        let mut channel = self.drive(what, deadline, |s| s.channel_session())?;
        self.drive(what, deadline, |_| channel.exec(&line))?;
        Ok(channel)
    }

    /// Everything that can be read or written now; whether anything was.
    fn turn(
        &mut self,
        what: &str,
        channel: &mut Channel,
        input: &mut Input<'_>,
        output: &mut dyn FnMut(From, &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), bool>> {
        let mut moved = input.feed(channel);
        let mut buffer = [0; 32 << 10];
        for from in [From::Stdout, From::Stderr] {
            let mut stream = channel.stream(if from == From::Stdout {
                0
            } else {
                ssh2::EXTENDED_DATA_STDERR
            });
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        moved = true;
                        self.heard = Instant::now();
                        if output(from, &buffer[..n]).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(self.die(what, e)),
                }
            }
        }
        Ok(ControlFlow::Continue(moved))
    }

    /// Status of a command whose output has ended.
    fn finish(&mut self, what: &str, channel: &mut Channel, deadline: Deadline) -> Result<i32> {
        self.drive(what, deadline, |_| channel.close())?;
        self.drive(what, deadline, |_| channel.wait_close())?;
        match channel.exit_signal() {
            Ok(s) if s.exit_signal.is_some() => Ok(128 + signal_number(&s.exit_signal.unwrap_or_default())),
            _ => channel.exit_status().map_err(|e| self.die(what, e)),
        }
    }
}

/// What a command reads, as far as it has not been written.
struct Input<'a> {
    left: &'a [u8],
    ended: bool,
}

impl Input<'_> {
    /// Writes what the window takes. A command that stopped reading is none of our business: its status tells.
    fn feed(&mut self, channel: &mut Channel) -> bool {
        let mut moved = false;
        while !self.left.is_empty() {
            match channel.write(self.left) {
                Ok(n) if n > 0 => {
                    self.left = &self.left[n..];
                    moved = true;
                }
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => self.left = &[],
                _ => return moved,
            }
        }
        if !self.ended && channel.send_eof().map_or_else(|e| e.code() != EAGAIN, |()| true) {
            self.ended = true;
        }
        moved
    }
}

/// Who listens to a command's output while it comes.
type Listener<'a> = Option<&'a mut dyn FnMut(Option<&str>) -> Result<()>>;

impl Ssh {
    fn run(&mut self, command: &Command, deadline: Deadline, mut hear: Listener<'_>) -> Result<Output> {
        const WHAT: &str = "run a command over SSH";
        let mut channel = self.start(WHAT, command, deadline)?;
        let mut input = Input {
            left: &command.stdin,
            ended: false,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut lines = Lines::default();
        loop {
            let mut refused = None;
            let mut keep = |from, bytes: &[u8]| {
                let to: &mut Vec<u8> = if from == From::Stdout { &mut stdout } else { &mut stderr };
                to.extend_from_slice(bytes);
                if to.len() > MAX_OUTPUT {
                    return ControlFlow::Break(());
                }
                match &mut hear {
                    Some(hear) if from == From::Stdout => lines.take(bytes, &mut |line| {
                        refused = hear(Some(line)).err();
                        refused.is_none()
                    }),
                    _ => ControlFlow::Continue(()),
                }
            };
            let turn = self.turn(WHAT, &mut channel, &mut input, &mut keep)?;
            match turn {
                ControlFlow::Break(()) if refused.is_none() => {
                    let program = &command.argv[0];
                    return Err(self.die(
                        WHAT,
                        format!("`{program}` printed more than {MAX_OUTPUT} bytes, or a line of {MAX_LINE}"),
                    ));
                }
                ControlFlow::Continue(_) if channel.eof() => break,
                ControlFlow::Continue(true) if !deadline.passed() => {}
                ControlFlow::Continue(_) => {
                    self.wait(WHAT, deadline)?;
                    refused = hear.as_mut().and_then(|hear| hear(None).err());
                }
                ControlFlow::Break(()) => {}
            }
            if let Some(e) = refused {
                self.die(WHAT, "a command was given up");
                return Err(e);
            }
        }
        let status = self.finish(WHAT, &mut channel, deadline)?;
        Ok(Output { status, stdout, stderr })
    }
}

impl Remote for Ssh {
    fn exec(&mut self, command: &Command, deadline: Deadline) -> Result<Output> {
        self.run(command, deadline, None)
    }

    fn exec_heard(
        &mut self,
        command: &Command,
        deadline: Deadline,
        hear: &mut dyn FnMut(Option<&str>) -> Result<()>,
    ) -> Result<Output> {
        self.run(command, deadline, Some(hear))
    }

    fn upload(&mut self, content: &[u8], to: &Path, mode: u32, deadline: Deadline) -> Result<()> {
        let node = self.node.clone();
        upload(self, &node, content, to, mode, deadline)
    }

    fn download(&mut self, from: &Path, deadline: Deadline) -> Result<Vec<u8>> {
        let command = Command::new(["cat".to_owned(), "--".to_owned(), text_path(from)?]);
        self.exec(&command, deadline)?
            .check_ok("read the file", format_args!("{}:{}", self.node, from.display()))
    }

    fn follow(&mut self, command: &Command, on: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()> {
        const WHAT: &str = "follow a command over SSH";
        self.heard = Instant::now();
        let mut channel = self.start(WHAT, command, Deadline::after(SILENCE))?;
        let mut input = Input {
            left: &command.stdin,
            ended: false,
        };
        let mut lines = Lines::default();
        let mut stderr = Vec::new();
        if !on(Followed::Begun { ran: None }) {
            return self.drive(WHAT, Deadline::after(SILENCE), |_| channel.close());
        }
        loop {
            let mut sink = |from, bytes: &[u8]| match from {
                From::Stdout => lines.take(bytes, &mut |l| on(Followed::Line(l))),
                From::Stderr => {
                    // Its last words are enough.
                    stderr.extend_from_slice(bytes);
                    let surplus = stderr.len().saturating_sub(MAX_LINE);
                    stderr.drain(..surplus);
                    ControlFlow::Continue(())
                }
            };
            match self.turn(WHAT, &mut channel, &mut input, &mut sink)? {
                ControlFlow::Break(()) if lines.too_long => {
                    return Err(self.die(WHAT, format!("a line is longer than {MAX_LINE} bytes")));
                }
                ControlFlow::Break(()) => return self.drive(WHAT, Deadline::after(SILENCE), |_| channel.close()),
                ControlFlow::Continue(_) if channel.eof() => break,
                ControlFlow::Continue(true) => {}
                ControlFlow::Continue(false) if !self.listen(WHAT)? && !on(Followed::Nothing) => {
                    return self.drive(WHAT, Deadline::after(SILENCE), |_| channel.close());
                }
                ControlFlow::Continue(false) => {}
            }
        }
        let status = self.finish(WHAT, &mut channel, Deadline::after(SILENCE))?;
        let output = Output {
            status,
            stdout: Vec::new(),
            stderr,
        };
        output
            .check_ok(
                "follow a command",
                format_args!("{}: {}", self.node, command.argv.join(" ")),
            )
            .map(drop)
    }
}

impl Ssh {
    /// Waits for the peer, asking now and then whether it is still there; whether it said something.
    fn listen(&mut self, what: &str) -> Result<bool> {
        if self.poll(KEEPALIVE) {
            return Ok(true);
        }
        if self.heard.elapsed() > SILENCE {
            return Err(self.die(
                what,
                format!("nothing was heard for {} s", self.heard.elapsed().as_secs()),
            ));
        }
        self.drive(what, Deadline::after(SILENCE), |s| s.keepalive_send().map(drop))?;
        Ok(false)
    }
}

/// Linux's number of a signal that SSH names without `SIG`.
fn signal_number(name: &str) -> i32 {
    const NAMES: [(&str, i32); 15] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    // A signal without a name of its own: still a death by signal.
    NAMES
        .iter()
        .find(|(n, _)| *n == name)
        .map_or(127, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Home;
    use crate::guest::keys::Keys;
    use std::net::TcpListener;

    fn target(port: u16) -> (tempfile::TempDir, Target) {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::under(dir.path()).lab("x");
        Keys::ensure(&files, ["node1"]).unwrap();
        (dir, Target::new(&files, "node1", port))
    }

    /// Connects to a peer that does `peer` with the connection.
    fn meet(most: Duration, peer: impl FnOnce(TcpStream) + Send + 'static) -> Error {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_dir, target) = target(listener.local_addr().unwrap().port());
        let other = std::thread::spawn(move || peer(listener.accept().unwrap().0));
        let e = Ssh::connect(&target, Deadline::after(most)).unwrap_err();
        other.join().unwrap();
        e
    }

    #[test]
    fn a_peer_that_says_nothing_ends_with_the_deadline() {
        let e = meet(Duration::from_millis(200), |mut s| {
            // Until the other side gives up.
            let _ = s.read(&mut [0; 1 << 16]);
            let _ = s.read_to_end(&mut Vec::new());
        });
        assert!(e.to_string().contains("time ran out"), "{e}");
    }

    #[test]
    fn a_peer_that_hangs_up_or_talks_nonsense_is_an_error() {
        let e = meet(Duration::from_secs(10), drop);
        assert!(e.to_string().contains("connect over SSH"), "{e}");
        let e = meet(Duration::from_secs(10), |mut s| {
            let _ = s.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
            let _ = s.read_to_end(&mut Vec::new());
        });
        assert!(e.to_string().contains("connection is gone"), "{e}");
    }

    #[test]
    fn a_port_without_a_listener_is_an_error() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_dir, target) = target(port);
        let e = Ssh::connect(&target, Deadline::after(Duration::from_secs(5))).unwrap_err();
        assert!(e.to_string().contains("refused"), "{e}");
    }
}
