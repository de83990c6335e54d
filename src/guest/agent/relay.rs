//! One thing at the agent for somebody who has no line to it: a process beside the one that has.
//!
//! The client speaks as to an agent; what it asks for gets a channel of the line. Windows are kept from end to end: nothing piles up here.

use super::line::{Channel, Line};
use crate::error::{Error, IoContext, Problem, Result};
use crate::lock::lock;
use lab_agent::message::{FromAgent, INPUT_WINDOW, ToAgent, VERSION};
use lab_agent::wire::{Decoder, Frame, encode};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WHAT: &str = "act in the machine for a command";
/// How often the client's end is looked for.
const TICK: Duration = Duration::from_millis(200);

/// Runs the one command that `client` asks for, over `line`, until it has ended or the client has gone.
///
/// # Errors
/// The client does not speak as to an agent, or the agent is gone.
pub fn relay(line: &Line, mut client: UnixStream) -> Result<()> {
    let mut heard = Heard {
        stream: client.try_clone().tried(WHAT, line.node())?,
        decoder: Decoder::default(),
        frames: VecDeque::new(),
    };
    let Some((0, ToAgent::Hello { nonce, .. })) = heard.next()? else {
        return Err(foreign("no hello"));
    };
    let welcome = FromAgent::Welcome {
        version: VERSION,
        nonce,
        boot_id: line.boot_id().to_owned(),
    };
    say(&mut client, &welcome.frame(0))?;
    let (theirs, run) = match heard.next()? {
        None => return Ok(()),
        Some((theirs, run @ ToAgent::Run { .. })) => (theirs, run),
        Some(_) => return Err(foreign("something else than a command to run")),
    };
    let mut channel = line.begin(WHAT, &run)?;
    let (gone, budget) = (AtomicBool::new(false), Mutex::new(Budget::default()));
    std::thread::scope(|scope| {
        let sayer = channel.sayer();
        let (gone, budget) = (&gone, &budget);
        scope.spawn(move || {
            // Whatever ends it, the other direction notices.
            while let Ok(Some((on, message))) = heard.next() {
                if on != theirs || !lock(budget).allows(&message) || sayer.say(&message).is_err() {
                    break;
                }
            }
            gone.store(true, Ordering::SeqCst);
        });
        let ended = back(&mut channel, theirs, &mut client, gone, budget);
        // One that has heard the last word hangs up itself: what it still says until then, of windows, has to find somebody.
        if ended.is_err() {
            let _ = client.shutdown(Shutdown::Both);
        }
        ended
    })
}

/// Brings to the client what the agent says, to its last word.
fn back(
    channel: &mut Channel<'_>,
    theirs: u32,
    client: &mut UnixStream,
    gone: &AtomicBool,
    budget: &Mutex<Budget>,
) -> Result<()> {
    loop {
        match channel.hear_within(TICK)? {
            Some(message) => {
                lock(budget).notes(&message);
                say(client, &message.frame(theirs))?;
            }
            None if gone.load(Ordering::SeqCst) => return Ok(()),
            None => {}
        }
        if channel.is_over() {
            return Ok(());
        }
    }
}

/// What the client may say: one that says more would end the session of all who share the line.
#[derive(Debug)]
struct Budget {
    input: usize,
    input_ended: bool,
    /// Output that it was sent and did not grant again.
    owed: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            input: INPUT_WINDOW,
            input_ended: false,
            owed: 0,
        }
    }
}

impl Budget {
    fn notes(&mut self, said: &FromAgent) {
        match said {
            FromAgent::Credit(bytes) => self.input += *bytes as usize,
            FromAgent::Output(_, bytes) => self.owed += bytes.len(),
            _ => {}
        }
    }

    fn allows(&mut self, message: &ToAgent) -> bool {
        let spend = |from: &mut usize, bytes| from.checked_sub(bytes).map(|left| *from = left).is_some();
        match message {
            ToAgent::Input(bytes) => !self.input_ended && spend(&mut self.input, bytes.len()),
            ToAgent::InputEnd => !std::mem::replace(&mut self.input_ended, true),
            ToAgent::Credit(bytes) => spend(&mut self.owed, *bytes as usize),
            ToAgent::Kill => true,
            _ => false,
        }
    }
}

fn foreign(seen: &str) -> Error {
    Error::Usage(Problem::new("understand the request to an agent").observed(seen))
}

fn say(client: &mut UnixStream, frame: &Frame) -> Result<()> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    client.write_all(&bytes).tried(WHAT, "")
}

/// What the client says.
struct Heard {
    stream: UnixStream,
    decoder: Decoder,
    frames: VecDeque<Frame>,
}

impl Heard {
    /// The next message; none where the client has gone.
    fn next(&mut self) -> Result<Option<(u32, ToAgent)>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                let message = ToAgent::parse(&frame).map_err(|bad| foreign(&bad.to_string()))?;
                return Ok(Some((frame.channel, message)));
            }
            let mut part = [0; 16 << 10];
            let n = self.stream.read(&mut part).tried(WHAT, "")?;
            if n == 0 {
                return Ok(None);
            }
            for frame in self.decoder.take(&part[..n]) {
                self.frames.push_back(frame.map_err(|bad| foreign(&bad.to_string()))?);
            }
        }
    }
}
