//! The agent as a [`Remote`].

use super::line::{Channel, Line};
use crate::error::{Error, Problem, Result};
use crate::guest::lines::Lines;
use crate::guest::ssh::{MAX_OUTPUT, SILENCE};
use crate::guest::transfer::text_path;
use crate::guest::{Command, Followed, Output, Remote, excerpt};
use crate::lock::lock;
use crate::wait::Deadline;
use lab_agent::message::{End, FromAgent, INPUT_WINDOW, MAX_ARGV, MAX_LINE, PART, Stream, ToAgent, WINDOW, argv_bytes};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The longest silence before a listener is asked whether to go on.
const TICK: Duration = Duration::from_millis(500);
/// After so long a silence a followed machine is asked for a word.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How much earlier the agent gives a command up than we give up the agent: at most this, and a tenth of the time.
const AHEAD: Duration = Duration::from_millis(500);

/// A way into a machine over the line to its agent.
#[derive(Debug, Clone)]
pub struct AgentRemote(Arc<Line>);

/// Who listens to a command's output while it comes.
type Listener<'a> = Option<&'a mut dyn FnMut(Option<&str>) -> Result<()>>;

impl AgentRemote {
    /// A way in over this line.
    pub fn new(line: Arc<Line>) -> Self {
        Self(line)
    }

    /// What cannot be said in a frame.
    fn speakable(&self, command: &Command) -> Result<()> {
        const WHAT: &str = "run a command through the machine's agent";
        let argv = &command.argv;
        let refused = |seen: &str| {
            Problem::new(WHAT)
                .on(format!("{}: {argv:?}", self.0.node()))
                .observed(seen)
        };
        if argv.first().is_none_or(String::is_empty) {
            return Err(Error::Bug(refused("it names no program")));
        }
        if argv.iter().any(|a| a.contains('\0')) {
            return Err(Error::Bug(refused("an argument has a NUL byte")));
        }
        let bytes = argv_bytes(argv);
        if bytes > MAX_ARGV {
            let seen = format!("{bytes} bytes of arguments, at most {MAX_ARGV} go through");
            return Err(Error::Operation(Problem::new(WHAT).on(self.0.node()).observed(seen)));
        }
        Ok(())
    }

    fn run(&self, command: &Command, deadline: Deadline, mut hear: Listener<'_>) -> Result<Output> {
        const WHAT: &str = "run a command through the machine's agent";
        self.speakable(command)?;
        let left = deadline.left();
        let within = left.saturating_sub(AHEAD.min(left / 10));
        let argv = command.argv.clone();
        let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let mut channel = self.0.begin(WHAT, &ToAgent::Run { argv, within_ms })?;
        let mut input = Input::new(&command.stdin);
        let mut output = Collected::default();
        loop {
            input.feed(&channel)?;
            let heard = channel.hear_within(TICK.min(deadline.left()))?;
            match heard {
                None if deadline.passed() => return Err(channel.silent()),
                None => hear.as_mut().map_or(Ok(()), |hear| hear(None))?,
                Some(FromAgent::Credit(bytes)) => input.granted += bytes as usize,
                Some(FromAgent::Output(stream, bytes)) => {
                    output.credit(&channel, bytes.len())?;
                    output.keep(&command.argv[0], self.0.node(), stream, &bytes, &mut hear)?;
                }
                Some(FromAgent::Ended { how, .. }) => return self.ended(command, output, how),
                Some(other) => return Err(channel.unexpected(other)),
            }
        }
    }

    fn ended(&self, command: &Command, output: Collected, how: End) -> Result<Output> {
        let Collected { stdout, stderr, .. } = output;
        let status = match how {
            End::Exited(code) => code,
            End::Signalled(signal) => 128 + signal,
            End::TimeRanOut | End::Killed | End::LineTooLong => {
                let said = excerpt(if stderr.is_empty() { &stdout } else { &stderr });
                let seen = format!("time ran out, it was killed; it had said: {said}");
                let on = format!("{}: {}", self.0.node(), command.argv[0]);
                return Err(Error::Operation(
                    Problem::new("run a command to its end").on(on).observed(seen),
                ));
            }
        };
        Ok(Output { status, stdout, stderr })
    }

    /// What a followed command says next; nothing after a while, in which the agent was seen to be there.
    fn next_line(&self, channel: &mut Channel<'_>) -> Result<Option<FromAgent>> {
        let heard = channel.hear_within(KEEPALIVE)?;
        if heard.is_none() && self.0.silence() >= KEEPALIVE {
            self.0.look(Deadline::after(SILENCE))?;
        }
        Ok(heard)
    }
}

/// What a command reads, as far as it was not sent.
struct Input<'a> {
    left: &'a [u8],
    granted: usize,
    ended: bool,
}

impl<'a> Input<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            granted: INPUT_WINDOW,
            ended: false,
        }
    }

    /// Sends what the agent takes.
    fn feed(&mut self, channel: &Channel<'_>) -> Result<()> {
        while !self.left.is_empty() && self.granted > 0 {
            let (part, rest) = self.left.split_at(self.left.len().min(self.granted).min(PART));
            channel.say(&ToAgent::Input(part.to_vec()))?;
            self.granted -= part.len();
            self.left = rest;
        }
        if self.left.is_empty() && !self.ended {
            self.ended = true;
            channel.say(&ToAgent::InputEnd)?;
        }
        Ok(())
    }
}

/// What a command printed so far.
#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    lines: Lines,
    /// Taken, and not yet said to be.
    owed: usize,
}

impl Collected {
    /// The agent may send as much again; it is told so now and then.
    fn credit(&mut self, channel: &Channel<'_>, bytes: usize) -> Result<()> {
        self.owed += bytes;
        if self.owed >= WINDOW / 4 {
            channel.say(&ToAgent::Credit(std::mem::take(&mut self.owed) as u32))?;
        }
        Ok(())
    }

    fn keep(&mut self, program: &str, node: &str, from: Stream, bytes: &[u8], hear: &mut Listener<'_>) -> Result<()> {
        let to = if from == Stream::Out {
            &mut self.stdout
        } else {
            &mut self.stderr
        };
        to.extend_from_slice(bytes);
        let mut refused = None;
        let mut too_much = to.len() > MAX_OUTPUT;
        if let (Stream::Out, Some(hear)) = (from, hear) {
            let _ = self.lines.take(bytes, &mut |line| {
                refused = hear(Some(line)).err();
                refused.is_none()
            });
            too_much |= self.lines.too_long;
        }
        if let Some(e) = refused {
            return Err(e);
        }
        if too_much {
            let seen = format!("it printed more than {MAX_OUTPUT} bytes, or too long a line");
            return Err(Error::Operation(
                Problem::new("take what a command prints")
                    .on(format!("{node}: {program}"))
                    .observed(seen),
            ));
        }
        Ok(())
    }
}

impl Remote for AgentRemote {
    fn check(&mut self, deadline: Deadline) -> Result<()> {
        self.0.look(deadline).map(drop)
    }

    fn boottime(&mut self, deadline: Deadline) -> Result<Duration> {
        Ok(self.0.look(deadline)?.boottime)
    }

    fn time(&mut self, deadline: Deadline) -> Result<Duration> {
        Ok(self.0.look(deadline)?.time)
    }

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
        let put = ToAgent::Put {
            path: text_path(to)?,
            mode,
            length: content.len() as u64,
        };
        let mut channel = self.0.begin("write the file", &put)?;
        let mut input = Input::new(content);
        loop {
            input.feed(&channel)?;
            match channel.hear(deadline)? {
                FromAgent::Credit(bytes) => input.granted += bytes as usize,
                FromAgent::Done => return Ok(()),
                other => return Err(on_file(channel.unexpected(other), self.0.node(), to)),
            }
        }
    }

    fn download(&mut self, from: &Path, deadline: Deadline) -> Result<Vec<u8>> {
        let get = ToAgent::Get { path: text_path(from)? };
        let mut channel = self.0.begin("read the file", &get)?;
        let mut content = Collected::default();
        loop {
            match channel.hear(deadline)? {
                FromAgent::Output(stream, bytes) => {
                    content.credit(&channel, bytes.len())?;
                    let file = from.display().to_string();
                    content.keep(&file, self.0.node(), stream, &bytes, &mut None)?;
                }
                FromAgent::Done => return Ok(content.stdout),
                other => return Err(on_file(channel.unexpected(other), self.0.node(), from)),
            }
        }
    }

    /// A command that is followed already, in a session with the same owner, is followed on: from the line behind the last one that
    /// `on` took here, or that the earlier session acknowledged.
    fn follow(&mut self, command: &Command, on: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()> {
        self.speakable(command)?;
        let key = blake3::hash(command.argv.join("\0").as_bytes()).to_hex().to_string();
        let from = lock(&self.0.progress).get(&key).copied();
        let follow = ToAgent::Follow {
            key: key.clone(),
            argv: command.argv.clone(),
            from,
        };
        let mut channel = self.0.begin("follow a command through the machine's agent", &follow)?;
        let (id, mut wanted, ran) = match channel.hear(Deadline::after(SILENCE))? {
            FromAgent::Following {
                id,
                next,
                session,
                ran_ms,
            } => {
                let ran = (session != self.0.nonce).then(|| Duration::from_millis(ran_ms));
                (id, next, ran)
            }
            other => return Err(channel.unexpected(other)),
        };
        lock(&self.0.progress).insert(key.clone(), (id, wanted));
        if !on(Followed::Begun { ran }) {
            return Ok(());
        }
        loop {
            let Some(message) = self.next_line(&mut channel)? else {
                if on(Followed::Nothing) {
                    continue;
                }
                return Ok(());
            };
            match message {
                FromAgent::Line { number, text } if number == wanted => {
                    let goes_on = on(Followed::Line(&String::from_utf8_lossy(&text)));
                    wanted += 1;
                    lock(&self.0.progress).insert(key.clone(), (id, wanted));
                    if channel.is_quiet() || wanted.is_multiple_of(64) {
                        channel.say(&ToAgent::Ack { next: wanted })?;
                    }
                    if !goes_on {
                        return Ok(());
                    }
                }
                FromAgent::Line { number, .. } => {
                    return Err(channel.dead(&format!("line {number} came, {wanted} was due")));
                }
                FromAgent::Ended { how, stderr } => {
                    channel.say(&ToAgent::Ack { next: wanted })?;
                    lock(&self.0.progress).remove(&key);
                    return self.follower_ended(command, how, stderr);
                }
                other => return Err(channel.unexpected(other)),
            }
        }
    }
}

impl AgentRemote {
    fn follower_ended(&self, command: &Command, how: End, stderr: Vec<u8>) -> Result<()> {
        let on = format!("{}: {}", self.0.node(), command.argv.join(" "));
        let status = match how {
            End::Exited(code) => code,
            End::Signalled(signal) => 128 + signal,
            End::LineTooLong => {
                let seen = format!("a line is longer than {MAX_LINE} bytes");
                return Err(Error::Operation(Problem::new("follow a command").on(on).observed(seen)));
            }
            End::TimeRanOut | End::Killed => 128 + 9,
        };
        let stdout = Vec::new();
        let output = Output { status, stdout, stderr };
        output.check_ok("follow a command", on).map(drop)
    }
}

/// The same error, with the file's name.
fn on_file(e: Error, node: &str, path: &Path) -> Error {
    match e {
        Error::Operation(p) if p.remedy.is_none() => Error::Operation(p.on(format_args!("{node}:{}", path.display()))),
        other => other,
    }
}
