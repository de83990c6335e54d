//! One connection with the agent of one machine, which all who act there share.
//!
//! A thread reads what the agent says and lays it before whoever waits for it; what waits is bounded by what the agent may send without
//! being asked to go on. A line that is broken, by whichever side, stays so: a new one is a new session.

use crate::error::{Error, IoContext, Problem, Result};
use crate::lock::lock;
use crate::wait::Deadline;
use lab_agent::message::{Clock, FromAgent, Sample, ToAgent, VERSION, WINDOW};
use lab_agent::wire::{Bad, Decoder, Frame, encode};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// An agent that takes nothing for this long is stopped or gone.
const STALL: Duration = Duration::from_secs(5);
/// Most messages that wait on one channel: what an agent may send without being asked to go on is less.
const WAITING: usize = 16 << 10;
/// The agent's unit, for those who look for it.
const REMEDY: &str = "see whether it runs in the machine: systemctl status failoverlab-agent";

/// For whom an agent keeps the lines of its followers: the same in each session that has the same journal.
pub type Owner = [u8; 16];

/// Which follower a host had, and the next line that it wants, by the follower's key.
pub(super) type Progress = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

/// What a machine's clock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Time since 1970.
    pub time: Duration,
    /// The clock that began at boot and stands still while the machine is suspended.
    pub boottime: Duration,
    /// The identifier that the kernel made at boot.
    pub boot_id: String,
}

/// The connection.
pub struct Line {
    node: String,
    boot_id: String,
    /// Names the session.
    pub(super) nonce: [u8; 16],
    writer: Mutex<UnixStream>,
    state: Mutex<State>,
    changed: Condvar,
    /// Once more, to end it from any thread.
    stream: UnixStream,
    pub(super) progress: Progress,
}

#[derive(Debug)]
struct State {
    channels: BTreeMap<u32, Waiting>,
    next: u32,
    /// Why nothing works any more.
    dead: Option<String>,
    heard: Instant,
}

/// What the agent said on a channel and nobody has taken yet.
#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<FromAgent>,
    bytes: usize,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("node", &self.node)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Nothing is said to the agent while this is held, and it has read all that was said before.
#[derive(Debug)]
pub struct Hold<'a> {
    _writer: MutexGuard<'a, UnixStream>,
    /// What the clock said when it had.
    pub reading: Reading,
}

impl Line {
    /// Begins a session with the agent of `node` behind the socket that its hypervisor listens on. The machine need not run yet.
    ///
    /// # Errors
    /// [`Error::Operation`] where nothing listens, or no agent answers in time.
    pub fn connect(node: &str, socket: &Path, owner: Owner, deadline: Deadline) -> Result<Arc<Self>> {
        let stream = UnixStream::connect(socket).tried("reach the machine's agent", node)?;
        Self::over(node, stream, owner, Progress::default(), deadline)
    }

    /// The same over any connection, by somebody who follows nothing.
    ///
    /// # Errors
    /// As [`Line::connect`].
    pub fn begin_over(node: &str, stream: UnixStream, deadline: Deadline) -> Result<Arc<Self>> {
        Self::over(node, stream, rand::random(), Progress::default(), deadline)
    }

    /// The same over a connection; `progress` says what an earlier line to the same machine brought.
    pub(super) fn over(
        node: &str,
        mut stream: UnixStream,
        owner: Owner,
        progress: Progress,
        deadline: Deadline,
    ) -> Result<Arc<Self>> {
        const WHAT: &str = "reach the machine's agent";
        let mut decoder = Decoder::default();
        let nonce = rand::random::<[u8; 16]>();
        let hello = ToAgent::Hello {
            version: VERSION,
            nonce,
            owner,
        };
        stream.set_write_timeout(Some(STALL)).tried(WHAT, node)?;
        // Whoever spoke before us may have left half a frame.
        let mut bytes = vec![0];
        encode(&hello.frame(0), &mut bytes);
        stream.write_all(&bytes).map_err(|e| failed(WHAT, node, &stalled(&e)))?;
        let (boot_id, behind) =
            welcome(&mut stream, &mut decoder, nonce, deadline).map_err(|seen| failed(WHAT, node, &seen))?;
        stream.set_read_timeout(None).tried(WHAT, node)?;
        let line = Arc::new(Self {
            node: node.to_owned(),
            boot_id,
            nonce,
            writer: Mutex::new(stream.try_clone().tried(WHAT, node)?),
            state: Mutex::new(State {
                channels: BTreeMap::new(),
                next: 0,
                dead: None,
                heard: Instant::now(),
            }),
            changed: Condvar::new(),
            stream: stream.try_clone().tried(WHAT, node)?,
            progress,
        });
        line.take(behind);
        let weak = Arc::downgrade(&line);
        std::thread::Builder::new()
            .name(format!("agent {node}"))
            .stack_size(256 << 10)
            .spawn(move || listen(&weak, stream, decoder))
            .tried(WHAT, node)?;
        Ok(line)
    }

    /// The machine.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The identifier that the kernel made at boot.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Whether a call may still succeed.
    pub fn is_usable(&self) -> bool {
        lock(&self.state).dead.is_none()
    }

    /// Ends the session.
    pub fn close(&self) {
        self.die("the session was ended here");
    }

    /// What the clock says.
    ///
    /// # Errors
    /// No answer in time.
    pub fn look(&self, deadline: Deadline) -> Result<Reading> {
        self.clock(&ToAgent::Look, "look at the machine's clock", deadline)
    }

    /// Sets the clock; what it says then.
    ///
    /// # Errors
    /// No answer in time, or the machine refuses.
    pub fn set(&self, since_1970: Duration, deadline: Deadline) -> Result<Reading> {
        self.clock(&ToAgent::Set(since_1970), "set the machine's clock", deadline)
    }

    /// A look at the machine.
    ///
    /// # Errors
    /// No answer in time, or something could not be read.
    pub fn sample(&self, deadline: Deadline) -> Result<Sample> {
        const WHAT: &str = "look at the machine";
        let mut channel = self.begin(WHAT, &ToAgent::Sample)?;
        match channel.hear(deadline)? {
            FromAgent::Sampled(sample) => Ok(sample),
            other => Err(channel.unexpected(other)),
        }
    }

    /// Waits until the agent has read all that was said to it, and says nothing more as long as the answer is kept: a machine that is
    /// saved then has no order in it that nobody knows of.
    ///
    /// # Errors
    /// No answer in time.
    pub fn hold(&self, deadline: Deadline) -> Result<Hold<'_>> {
        const WHAT: &str = "have the machine's agent at rest";
        let mut channel = self.open(WHAT)?;
        let mut writer = lock(&self.writer);
        channel.sayer().say_over(&mut writer, &ToAgent::Look)?;
        match channel.hear(deadline)? {
            FromAgent::Clock(clock) => Ok(Hold {
                reading: self.reading(clock),
                _writer: writer,
            }),
            other => Err(channel.unexpected(other)),
        }
    }

    fn clock(&self, ask: &ToAgent, what: &'static str, deadline: Deadline) -> Result<Reading> {
        let mut channel = self.begin(what, ask)?;
        match channel.hear(deadline)? {
            FromAgent::Clock(clock) => Ok(self.reading(clock)),
            other => Err(channel.unexpected(other)),
        }
    }

    fn reading(&self, clock: Clock) -> Reading {
        Reading {
            time: clock.time,
            boottime: clock.boottime,
            boot_id: self.boot_id.clone(),
        }
    }

    fn open(&self, what: &'static str) -> Result<Channel<'_>> {
        let mut state = lock(&self.state);
        if let Some(why) = &state.dead {
            return Err(failed(what, &self.node, why));
        }
        // Not one that is still in use, should they ever have been used up.
        loop {
            state.next = state.next.wrapping_add(1).max(1);
            if !state.channels.contains_key(&state.next) {
                break;
            }
        }
        let id = state.next;
        state.channels.insert(id, Waiting::default());
        Ok(Channel {
            line: self,
            what,
            id,
            over: false,
        })
    }

    /// Begins something on a channel of its own. `what` fits "could not {what}".
    pub(super) fn begin(&self, what: &'static str, message: &ToAgent) -> Result<Channel<'_>> {
        let mut channel = self.open(what)?;
        if let Err(e) = channel.say(message) {
            channel.over = true;
            return Err(e);
        }
        Ok(channel)
    }

    /// Nothing works any more; why not is what was first seen.
    fn die(&self, seen: &str) -> String {
        let why = lock(&self.state).dead.get_or_insert_with(|| seen.to_owned()).clone();
        self.changed.notify_all();
        let _ = self.stream.shutdown(Shutdown::Both);
        why
    }

    /// Since when nothing was heard of the agent.
    pub(super) fn silence(&self) -> Duration {
        lock(&self.state).heard.elapsed()
    }

    fn take(&self, frames: Vec<Result<Frame, Bad>>) {
        for frame in frames {
            let said = frame
                .map_err(|bad| bad.to_string())
                .and_then(|f| Ok((f.channel, FromAgent::parse(&f).map_err(|bad| bad.to_string())?)));
            let (channel, message) = match said {
                Ok(said) => said,
                Err(bad) => return drop(self.die(&format!("it does not speak as an agent: {bad}"))),
            };
            match message {
                FromAgent::Refused { why } => return drop(self.die(&format!("it ended the session: {why}"))),
                FromAgent::Welcome { .. } => {
                    return drop(self.die("it does not speak as an agent: a welcome that nobody asked for"));
                }
                message => {
                    if !self.lay(channel, message) {
                        return drop(self.die("it sends more than it was asked for"));
                    }
                }
            }
        }
    }

    /// Lays a message before whoever waits for it. What comes for a channel that is over is late, and nobody's.
    fn lay(&self, channel: u32, message: FromAgent) -> bool {
        let mut state = lock(&self.state);
        state.heard = Instant::now();
        let Some(waiting) = state.channels.get_mut(&channel) else {
            return true;
        };
        waiting.bytes += size(&message);
        waiting.messages.push_back(message);
        let bounded = waiting.bytes <= 2 * WINDOW && waiting.messages.len() <= WAITING;
        drop(state);
        self.changed.notify_all();
        bounded
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn size(message: &FromAgent) -> usize {
    match message {
        FromAgent::Output(_, bytes) => bytes.len(),
        FromAgent::Line { text, .. } => text.len(),
        _ => 0,
    }
}

pub(super) fn failed(what: &str, node: &str, seen: &str) -> Error {
    let problem = Problem::new(what)
        .on(node)
        .observed(format!("its agent does not answer: {seen}"));
    Error::Operation(problem.remedy(REMEDY))
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn stalled(e: &io::Error) -> String {
    if is_timeout(e) {
        format!("it took nothing for {} s", STALL.as_secs())
    } else {
        e.to_string()
    }
}

/// Waits for the answer to our hello; the boot id in it, and what came behind it. What came before is of an earlier session.
fn welcome(
    stream: &mut UnixStream,
    decoder: &mut Decoder,
    ours: [u8; 16],
    deadline: Deadline,
) -> Result<(String, Vec<Result<Frame, Bad>>), String> {
    let mut other = 0usize;
    loop {
        let left = deadline.left();
        if left.is_zero() {
            return Err(match other {
                0 => "not a word until time ran out".to_owned(),
                n => format!("{n} bytes that are no answer until time ran out"),
            });
        }
        stream.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        let mut part = [0; 4096];
        let read = match stream.read(&mut part) {
            Ok(0) => return Err("the machine is gone".to_owned()),
            Ok(n) => n,
            Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.to_string()),
        };
        other += read;
        let mut frames = decoder.take(&part[..read]).into_iter();
        while let Some(frame) = frames.next() {
            let said = frame.ok().and_then(|f| FromAgent::parse(&f).ok());
            if let Some(FromAgent::Welcome {
                version,
                nonce,
                boot_id,
            }) = said
                && nonce == ours
            {
                if version != VERSION {
                    return Err(format!("it speaks version {version}, this tool {VERSION}"));
                }
                let id = boot_id.len() == 36 && boot_id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                if !id {
                    return Err(format!("`{}` is no boot id", boot_id.escape_debug()));
                }
                return Ok((boot_id, frames.collect()));
            }
        }
    }
}

/// Reads until the line ends, or nobody has it any more.
fn listen(line: &Weak<Line>, mut stream: UnixStream, mut decoder: Decoder) {
    let mut part = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut part);
        let Some(line) = line.upgrade() else { return };
        match read {
            Ok(0) => {
                return drop(line.die("the connection was closed: the machine is gone, or who had the line to it"));
            }
            Ok(n) => line.take(decoder.take(&part[..n])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return drop(line.die(&e.to_string())),
        }
    }
}

/// One thing that the agent does for us. Dropped before its end, it is ended.
#[derive(Debug)]
pub(super) struct Channel<'a> {
    line: &'a Line,
    what: &'static str,
    id: u32,
    over: bool,
}

/// The speaking half of a channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sayer<'a> {
    line: &'a Line,
    what: &'static str,
    id: u32,
}

impl Sayer<'_> {
    /// Says something on the channel.
    pub(super) fn say(&self, message: &ToAgent) -> Result<()> {
        self.say_over(&mut lock(&self.line.writer), message)
    }

    fn say_over(&self, writer: &mut UnixStream, message: &ToAgent) -> Result<()> {
        let mut bytes = Vec::new();
        encode(&message.frame(self.id), &mut bytes);
        // Half a frame may be out: there is no way on.
        writer.write_all(&bytes).map_err(|e| {
            let why = self.line.die(&stalled(&e));
            failed(self.what, &self.line.node, &why)
        })
    }
}

impl<'a> Channel<'a> {
    /// Its speaking half, for another thread.
    pub(super) fn sayer(&self) -> Sayer<'a> {
        Sayer {
            line: self.line,
            what: self.what,
            id: self.id,
        }
    }

    /// Whether the agent has said its last word on it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Says something on it.
    pub(super) fn say(&self, message: &ToAgent) -> Result<()> {
        self.sayer().say(message)
    }

    /// What the agent says next on it, where it does within `most`.
    pub(super) fn hear_within(&mut self, most: Duration) -> Result<Option<FromAgent>> {
        let until = Instant::now() + most;
        let mut state = lock(&self.line.state);
        loop {
            if let Some(waiting) = state.channels.get_mut(&self.id)
                && let Some(message) = waiting.messages.pop_front()
            {
                waiting.bytes -= size(&message);
                self.over |= matches!(
                    message,
                    FromAgent::Ended { .. }
                        | FromAgent::Done
                        | FromAgent::Failed { .. }
                        | FromAgent::Clock(_)
                        | FromAgent::Sampled(_)
                );
                return Ok(Some(message));
            }
            if let Some(why) = &state.dead {
                return Err(failed(self.what, &self.line.node, why));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self
                .line
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    /// What the agent says next on it. One that says nothing until the deadline counts as stopped.
    pub(super) fn hear(&mut self, deadline: Deadline) -> Result<FromAgent> {
        match self.hear_within(deadline.left())? {
            Some(message) => Ok(message),
            None => Err(self.silent()),
        }
    }

    /// That the agent said nothing in time: the line is not used any more.
    pub(super) fn silent(&self) -> Error {
        let seen = format!(
            "time ran out; nothing was heard of it for {:.1} s",
            self.line.silence().as_secs_f64()
        );
        self.dead(&seen)
    }

    /// Whether nothing waits to be heard.
    pub(super) fn is_quiet(&self) -> bool {
        let state = lock(&self.line.state);
        state.channels.get(&self.id).is_none_or(|w| w.messages.is_empty())
    }

    /// Ends the line, for what was seen.
    pub(super) fn dead(&self, seen: &str) -> Error {
        let why = self.line.die(seen);
        failed(self.what, &self.line.node, &why)
    }

    /// The error of an answer that is not the one.
    pub(super) fn unexpected(&self, message: FromAgent) -> Error {
        match message {
            FromAgent::Failed { why } => Error::Operation(Problem::new(self.what).on(&self.line.node).observed(why)),
            other => {
                let said = format!("{other:?}");
                self.dead(&format!("it does not speak as an agent: {said:.60}"))
            }
        }
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        if !self.over && self.line.is_usable() {
            let _ = self.say(&ToAgent::Kill);
        }
        lock(&self.line.state).channels.remove(&self.id);
    }
}
