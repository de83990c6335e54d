//! What the two sides say in frames. Whatever is not exactly one of these is refused.

use crate::wire::{Frame, MAX_BODY};
use std::time::Duration;

/// Version of the protocol. Another one is refused, with this one named.
pub const VERSION: u16 = 2;
/// Bytes of a command's output, or of a file, that the agent sends on a channel before it waits for [`ToAgent::Credit`].
pub const WINDOW: usize = 256 << 10;
/// Bytes of input, or of a file, that the host sends on a channel before it waits for [`FromAgent::Credit`].
pub const INPUT_WINDOW: usize = 64 << 10;
/// Bytes in one frame of input or output.
pub const PART: usize = 16 << 10;
/// Most bytes of an argument vector, as [`argv_bytes`] counts them.
pub const MAX_ARGV: usize = MAX_BODY - 512;
/// Longest key of a follower.
pub const MAX_KEY: usize = 256;
/// Longest line that a follower hands out.
pub const MAX_LINE: usize = MAX_BODY - 64;
/// Longest text that says why something failed.
const MAX_WHY: usize = 1 << 10;

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent {
    /// A session begins (channel 0). What an earlier one began ends, but for followers of the same owner: they wait for
    /// [`ToAgent::Follow`] with their key.
    Hello {
        /// [`VERSION`].
        version: u16,
        /// Comes back in the answer: it tells it from an answer to somebody else.
        nonce: [u8; 16],
        /// For whom followers keep their lines.
        owner: [u8; 16],
    },
    /// Runs an argument vector in a process group of its own.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// The group is killed after so many milliseconds.
        within_ms: u32,
    },
    /// Hands out the lines of a command; of the one that runs already under this key, where there is one.
    Follow {
        /// Names the follower.
        key: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// Which follower the host means, and the next line that it wants; the first that is not acknowledged where absent.
        from: Option<(u64, u64)>,
    },
    /// All lines below this number have arrived.
    Ack {
        /// The next one.
        next: u64,
    },
    /// Part of a command's input or of a file.
    Input(Vec<u8>),
    /// There is no more of it.
    InputEnd,
    /// So many bytes were taken in.
    Credit(u32),
    /// Ends what the channel began.
    Kill,
    /// Writes a file, atomically: it is there, whole and with this mode, or it is as before.
    Put {
        /// Absolute path.
        path: String,
        /// Permissions.
        mode: u32,
        /// Length, bytes.
        length: u64,
    },
    /// Reads a file.
    Get {
        /// Absolute path.
        path: String,
    },
    /// Looks at the clock.
    Look,
    /// Sets the clock, and looks at it.
    Set(Duration),
    /// Looks at the machine.
    Sample,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    /// A session has begun (channel 0).
    Welcome {
        /// [`VERSION`].
        version: u16,
        /// The host's.
        nonce: [u8; 16],
        /// The identifier that the kernel made at boot.
        boot_id: String,
    },
    /// There is no session, or none any more (channel 0).
    Refused {
        /// Why.
        why: String,
    },
    /// A command printed something; a file has it.
    Output(Stream, Vec<u8>),
    /// So many bytes of input were taken in.
    Credit(u32),
    /// Which follower is heard.
    Following {
        /// Which one: no other on this machine has the same.
        id: u64,
        /// The number of the first line that comes.
        next: u64,
        /// In which session its command was begun: the nonce of that one's hello.
        session: [u8; 16],
        /// For how long its command has run, milliseconds.
        ran_ms: u64,
    },
    /// A line of a follower.
    Line {
        /// Its number.
        number: u64,
        /// What it says, without its end.
        text: Vec<u8>,
    },
    /// A command has ended. Nothing follows on this channel.
    Ended {
        /// How.
        how: End,
        /// The end of what a follower complained about.
        stderr: Vec<u8>,
    },
    /// A file was written, or read to its end. Nothing follows on this channel.
    Done,
    /// It was not done. Nothing follows on this channel.
    Failed {
        /// Why.
        why: String,
    },
    /// The clock. Nothing follows on this channel.
    Clock(Clock),
    /// The machine. Nothing follows on this channel.
    Sampled(Sample),
}

/// Where output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output, or a file.
    Out,
    /// Standard error.
    Err,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that the agent did not send.
    Signalled(i32),
    /// It was killed when its time had run out.
    TimeRanOut,
    /// It was killed by [`ToAgent::Kill`].
    Killed,
    /// A follower was ended by a line that is longer than [`MAX_LINE`].
    LineTooLong,
}

/// What a machine's clocks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Time since 1970.
    pub time: Duration,
    /// The clock that began at boot and counts suspended time.
    pub boottime: Duration,
}

/// A look at a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The identifier that the kernel made at boot.
    pub boot_id: String,
    /// Its clocks.
    pub clock: Clock,
    /// Processes that wanted to run, over 1, 5 and 15 minutes, in hundredths.
    pub load: [u32; 3],
    /// Network ports, by name.
    pub ports: Vec<NetworkPort>,
}

/// A network port of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPort {
    /// Its name.
    pub name: String,
    /// Whether the cable is plugged in; unknown while the port is down.
    pub carrier: Option<bool>,
}

/// Why a frame is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// How much of a frame an argument vector takes, bytes.
pub fn argv_bytes(argv: &[String]) -> usize {
    argv.iter().map(|a| a.len() + 4).sum()
}

/// A text for a frame: not longer than it may be.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    fn u16(self, n: u16) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn text(self, text: &str) -> Self {
        self.u32(text.len() as u32).raw(text.as_bytes())
    }
    fn texts(self, texts: &[String]) -> Self {
        let begun = self.u16(texts.len() as u16);
        texts.iter().fold(begun, |w, t| w.text(t))
    }
    fn time(self, time: Duration) -> Self {
        self.u64(time.as_secs()).u32(time.subsec_nanos())
    }
    fn clock(self, clock: &Clock) -> Self {
        self.time(clock.time).time(clock.boottime)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.raw(N)?.try_into().expect("as long as asked"))
    }
    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
    fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }
    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
    fn text(&mut self, most: usize) -> Result<String, Malformed> {
        let len = self.u32()? as usize;
        if len > most {
            return Err(Malformed("a text is too long"));
        }
        let text = std::str::from_utf8(self.raw(len)?).map_err(|_| Malformed("a text is no UTF-8"))?;
        Ok(text.to_owned())
    }
    /// What goes to the kernel: no zero can be in it.
    fn word(&mut self, most: usize) -> Result<String, Malformed> {
        let word = self.text(most)?;
        if word.contains('\0') {
            return Err(Malformed("a word has a zero in it"));
        }
        Ok(word)
    }
    fn path(&mut self) -> Result<String, Malformed> {
        let path = self.word(4095)?;
        if !path.starts_with('/') {
            return Err(Malformed("a path is not absolute"));
        }
        Ok(path)
    }
    fn argv(&mut self) -> Result<Vec<String>, Malformed> {
        let count = self.u16()?;
        let argv: Vec<String> = (0..count).map(|_| self.word(MAX_ARGV)).collect::<Result<_, _>>()?;
        if argv.first().is_none_or(String::is_empty) {
            return Err(Malformed("no program is named"));
        }
        Ok(argv)
    }
    fn time(&mut self) -> Result<Duration, Malformed> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        if nanos >= 1_000_000_000 || seconds > u64::from(u32::MAX) {
            return Err(Malformed("a time is out of bounds"));
        }
        Ok(Duration::new(seconds, nanos))
    }
    fn clock(&mut self) -> Result<Clock, Malformed> {
        Ok(Clock {
            time: self.time()?,
            boottime: self.time()?,
        })
    }
    fn end<T>(self, message: T) -> Result<T, Malformed> {
        if self.0.is_empty() {
            Ok(message)
        } else {
            Err(Malformed("something stands behind it"))
        }
    }
}

impl ToAgent {
    /// The message as a frame of `channel`.
    pub fn frame(&self, channel: u32) -> Frame {
        let w = Writer::default();
        let (kind, body) = match self {
            Self::Hello { version, nonce, owner } => (1, w.u16(*version).raw(nonce).raw(owner)),
            Self::Run { argv, within_ms } => (2, w.u32(*within_ms).texts(argv)),
            Self::Follow { key, argv, from } => {
                let (id, next) = from.unwrap_or_default();
                let begun = w.text(key).u8(from.is_some().into()).u64(id).u64(next);
                (3, begun.texts(argv))
            }
            Self::Ack { next } => (4, w.u64(*next)),
            Self::Input(bytes) => (5, w.raw(bytes)),
            Self::InputEnd => (6, w),
            Self::Credit(bytes) => (7, w.u32(*bytes)),
            Self::Kill => (8, w),
            Self::Put { path, mode, length } => (9, w.text(path).u32(*mode).u64(*length)),
            Self::Get { path } => (10, w.text(path)),
            Self::Look => (11, w),
            Self::Set(time) => (12, w.time(*time)),
            Self::Sample => (13, w),
        };
        Frame {
            kind,
            channel,
            body: body.0,
        }
    }

    /// What a frame says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(frame: &Frame) -> Result<Self, Malformed> {
        let mut r = Reader(&frame.body);
        let message = match frame.kind {
            1 => {
                let message = Self::Hello {
                    version: r.u16()?,
                    nonce: r.array()?,
                    owner: r.array()?,
                };
                // Other versions may say more: they are to hear which one this is.
                if !matches!(message, Self::Hello { version: VERSION, .. }) {
                    r.rest();
                }
                message
            }
            2 => Self::Run {
                within_ms: r.u32()?,
                argv: r.argv()?,
            },
            3 => {
                let key = r.text(MAX_KEY)?;
                let known = r.flag()?;
                let from = (r.u64()?, r.u64()?);
                if !known && from != (0, 0) {
                    return Err(Malformed("a follower is meant and is not"));
                }
                Self::Follow {
                    key,
                    argv: r.argv()?,
                    from: known.then_some(from),
                }
            }
            4 => Self::Ack { next: r.u64()? },
            5 => Self::Input(r.rest()),
            6 => Self::InputEnd,
            7 => Self::Credit(r.u32()?),
            8 => Self::Kill,
            9 => Self::Put {
                path: r.path()?,
                mode: r.u32()?,
                length: r.u64()?,
            },
            10 => Self::Get { path: r.path()? },
            11 => Self::Look,
            12 => Self::Set(r.time()?),
            13 => Self::Sample,
            _ => return Err(Malformed("nothing of this kind is known")),
        };
        if (frame.channel == 0) != matches!(message, Self::Hello { .. }) {
            return Err(Malformed("it does not belong on its channel"));
        }
        r.end(message)
    }
}

impl Reader<'_> {
    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    fn ending(&mut self) -> Result<End, Malformed> {
        let (kind, code) = (self.u8()?, self.i32()?);
        Ok(match (kind, code) {
            (0, code) => End::Exited(code),
            (1, code) => End::Signalled(code),
            (2, 0) => End::TimeRanOut,
            (3, 0) => End::Killed,
            (4, 0) => End::LineTooLong,
            _ => return Err(Malformed("no command ends like that")),
        })
    }

    fn sample(&mut self) -> Result<Sample, Malformed> {
        let boot_id = self.text(64)?;
        let clock = self.clock()?;
        let load = [self.u32()?, self.u32()?, self.u32()?];
        let count = self.u16()?;
        let port = |_| {
            let name = self.text(255)?;
            let carrier = match self.u8()? {
                0 => Some(false),
                1 => Some(true),
                2 => None,
                _ => return Err(Malformed("a carrier is neither up nor down nor unknown")),
            };
            Ok(NetworkPort { name, carrier })
        };
        let ports = (0..count).map(port).collect::<Result<_, _>>()?;
        Ok(Sample {
            boot_id,
            clock,
            load,
            ports,
        })
    }
}

impl FromAgent {
    /// The message as a frame of `channel`.
    pub fn frame(&self, channel: u32) -> Frame {
        let w = Writer::default();
        let (kind, body) = match self {
            Self::Welcome {
                version,
                nonce,
                boot_id,
            } => (1, w.u16(*version).raw(nonce).text(boot_id)),
            Self::Refused { why } => (2, w.text(cut(why, MAX_WHY))),
            Self::Output(stream, bytes) => (3, w.u8((*stream == Stream::Err).into()).raw(bytes)),
            Self::Credit(bytes) => (4, w.u32(*bytes)),
            Self::Following {
                id,
                next,
                session,
                ran_ms,
            } => (5, w.u64(*id).u64(*next).raw(session).u64(*ran_ms)),
            Self::Line { number, text } => (6, w.u64(*number).raw(text)),
            Self::Ended { how, stderr } => {
                let (kind, code) = match how {
                    End::Exited(code) => (0, *code),
                    End::Signalled(signal) => (1, *signal),
                    End::TimeRanOut => (2, 0),
                    End::Killed => (3, 0),
                    End::LineTooLong => (4, 0),
                };
                (7, w.u8(kind).raw(&code.to_le_bytes()).raw(stderr))
            }
            Self::Done => (8, w),
            Self::Failed { why } => (9, w.text(cut(why, MAX_WHY))),
            Self::Clock(clock) => (10, w.clock(clock)),
            Self::Sampled(s) => {
                let w = s.load.iter().fold(w.text(&s.boot_id).clock(&s.clock), |w, l| w.u32(*l));
                let w = w.u16(s.ports.len() as u16);
                let w = s
                    .ports
                    .iter()
                    .fold(w, |w, p| w.text(cut(&p.name, 255)).u8(p.carrier.map_or(2, u8::from)));
                (11, w)
            }
        };
        Frame {
            kind,
            channel,
            body: body.0,
        }
    }

    /// What a frame says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(frame: &Frame) -> Result<Self, Malformed> {
        let mut r = Reader(&frame.body);
        let message = match frame.kind {
            1 => Self::Welcome {
                version: r.u16()?,
                nonce: r.array()?,
                boot_id: r.text(64)?,
            },
            2 => Self::Refused { why: r.text(MAX_WHY)? },
            3 => {
                let stream = if r.flag()? { Stream::Err } else { Stream::Out };
                Self::Output(stream, r.rest())
            }
            4 => Self::Credit(r.u32()?),
            5 => Self::Following {
                id: r.u64()?,
                next: r.u64()?,
                session: r.array()?,
                ran_ms: r.u64()?,
            },
            6 => Self::Line {
                number: r.u64()?,
                text: r.rest(),
            },
            7 => Self::Ended {
                how: r.ending()?,
                stderr: r.rest(),
            },
            8 => Self::Done,
            9 => Self::Failed { why: r.text(MAX_WHY)? },
            10 => Self::Clock(r.clock()?),
            11 => Self::Sampled(r.sample()?),
            _ => return Err(Malformed("nothing of this kind is known")),
        };
        let session = matches!(message, Self::Welcome { .. } | Self::Refused { .. });
        if (frame.channel == 0) != session {
            return Err(Malformed("it does not belong on its channel"));
        }
        r.end(message)
    }
}

#[cfg(test)]
mod tests;
