//! The agent at its port: one thread that waits for the port, for pipes and for the end of processes, and carries out what the core says.

use crate::core::{Core, Input, JobId, Order};
use crate::job::{NewFile, Process, Side, open};
use crate::machine::Machine;
use crate::message::{FromAgent, PART, Stream, ToAgent};
use crate::sys::{self, Edges};
use crate::wire::{Decoder, encode};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// While more than this waits to be sent, nothing is read that could make it more.
const QUEUE: usize = 256 << 10;

/// How long nobody has to be at the other end of a device before what was begun is ended. That somebody left and came is told on
/// another path than what he says: a new host may be heard before the old one is missed.
const GONE: Duration = Duration::from_secs(1);

/// What an end of the port means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// Somebody will come again: the port is a device.
    Wait,
    /// Nobody will: the port is a socket.
    Stop,
}

/// Serves whoever is at the other end of `port`. Commands begin in the folder `home`. Returns where the port ends and `at_end` says so.
///
/// # Errors
/// The port cannot be read any more.
pub fn serve(port: File, machine: &mut dyn Machine, home: PathBuf, at_end: AtEnd) -> io::Result<()> {
    sys::do_not_wait(&port)?;
    let edges = Edges::of(&port)?;
    // Another one for each life of the agent, whatever lives a machine's memory has.
    let first = machine.clock().boottime.as_nanos() as JobId;
    let mut server = Server {
        core: Core::new(&machine.boot_id(), first),
        machine,
        home,
        port,
        at_end,
        gone: None,
        decoder: Decoder::default(),
        queue: vec![0],
        readable: false,
        writable: false,
        begun: Instant::now(),
        processes: BTreeMap::new(),
        written: BTreeMap::new(),
        read: BTreeMap::new(),
    };
    // Whoever still waits for an agent that was there before hears that it is not.
    server.say(
        0,
        &FromAgent::Refused {
            why: "the agent has just begun".into(),
        },
    );
    loop {
        if server.turn(&edges)? == Port::Ended {
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Port {
    Open,
    Ended,
}

struct Server<'a> {
    core: Core,
    machine: &'a mut dyn Machine,
    home: PathBuf,
    port: File,
    at_end: AtEnd,
    /// When nobody will have been there for long enough.
    gone: Option<Instant>,
    decoder: Decoder,
    /// What is still to be sent.
    queue: Vec<u8>,
    readable: bool,
    writable: bool,
    begun: Instant,
    processes: BTreeMap<JobId, Process>,
    written: BTreeMap<JobId, NewFile>,
    read: BTreeMap<JobId, File>,
}

impl Server<'_> {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn is_crowded(&self) -> bool {
        self.queue.len() >= QUEUE
    }

    /// Waits for whatever comes first, and does it.
    fn turn(&mut self, edges: &Edges) -> io::Result<Port> {
        let (ids, mut fds) = self.interests(edges);
        let busy = self.readable && !self.is_crowded() || self.can_read_files();
        let due = self
            .core
            .due()
            .map(|d| Duration::from_millis(d.saturating_sub(self.now())));
        let gone = self.gone.map(|g| g.saturating_duration_since(Instant::now()));
        let due = due.into_iter().chain(gone).min();
        sys::wait(&mut fds, if busy { Some(Duration::ZERO) } else { due })?;
        if fds[0].is_ready() && edges.take()? {
            (self.readable, self.writable) = (true, true);
        }
        for ((id, side), _) in ids.iter().zip(&fds[1..]).filter(|(_, fd)| fd.is_ready()) {
            let told = self.processes.get_mut(id).and_then(|p| p.ready(*id, *side, &self.core));
            if let Some(told) = told {
                self.hear(told);
            }
        }
        self.reap();
        self.read_files();
        if self.core.due().is_some_and(|d| d <= self.now()) {
            self.hear(Input::Tick);
        }
        if self.gone.is_some_and(|g| g <= Instant::now()) {
            self.forget_host();
        }
        let port = if self.readable && !self.is_crowded() {
            self.receive()?
        } else {
            Port::Open
        };
        self.send();
        Ok(port)
    }

    fn interests(&self, edges: &Edges) -> (Vec<(JobId, Side)>, Vec<sys::PollFd>) {
        let mut ids = Vec::new();
        let mut fds = vec![edges.interest()];
        for (id, process) in &self.processes {
            let room = |stream| {
                if self.is_crowded() {
                    0
                } else {
                    self.core.room(*id, stream)
                }
            };
            for (side, fd) in process.interests(room) {
                ids.push((*id, side));
                fds.push(fd);
            }
        }
        (ids, fds)
    }

    fn reap(&mut self) {
        let ids: Vec<JobId> = self.processes.keys().copied().collect();
        for id in ids {
            let mut words = Vec::new();
            let ended = self
                .processes
                .get_mut(&id)
                .and_then(|p| p.ended(&mut |stream, bytes| words.push((stream, bytes))));
            for (stream, bytes) in words {
                self.hear(Input::Output(id, stream, bytes));
            }
            if let Some(how) = ended {
                self.processes.remove(&id);
                self.hear(Input::Ended(id, how));
            }
        }
    }

    fn can_read_files(&self) -> bool {
        !self.is_crowded() && self.read.keys().any(|id| self.core.room(*id, Stream::Out) > 0)
    }

    /// A part of each file that is asked for.
    fn read_files(&mut self) {
        let ids: Vec<JobId> = self.read.keys().copied().collect();
        for id in ids {
            let room = self.core.room(id, Stream::Out).min(PART);
            let Some(file) = self.read.get_mut(&id).filter(|_| room > 0) else {
                continue;
            };
            if self.queue.len() >= QUEUE {
                return;
            }
            let mut part = vec![0; room];
            match file.read(&mut part) {
                Ok(0) => {
                    self.read.remove(&id);
                    self.hear(Input::Filed(id, Ok(())));
                }
                Ok(n) => {
                    part.truncate(n);
                    self.hear(Input::Output(id, Stream::Out, part));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.read.remove(&id);
                    self.hear(Input::Filed(id, Err(e.to_string())));
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<Port> {
        let mut part = [0; PART];
        match self.port.read(&mut part) {
            Ok(n) if n > 0 => {
                self.gone = None;
                for heard in self.decoder.take(&part[..n]) {
                    let heard = heard
                        .map_err(|bad| bad.to_string())
                        .and_then(|f| Ok((f.channel, ToAgent::parse(&f).map_err(|bad| bad.to_string())?)));
                    self.hear(match heard {
                        Ok((channel, said)) => Input::Said(channel, said),
                        Err(why) => Input::Garbage(why),
                    });
                }
                Ok(Port::Open)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Port::Open),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                (self.readable, self.gone) = (false, None);
                Ok(Port::Open)
            }
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => Err(e),
            _ => {
                self.readable = false;
                if self.at_end == AtEnd::Wait {
                    self.gone.get_or_insert_with(|| Instant::now() + GONE);
                    return Ok(Port::Open);
                }
                self.forget_host();
                Ok(Port::Ended)
            }
        }
    }

    fn forget_host(&mut self) {
        self.gone = None;
        self.hear(Input::Gone);
        self.decoder.reset();
        self.queue = vec![0];
    }

    /// As much of the queue as the port takes. Whoever does not read has it coming to him later, or never.
    fn send(&mut self) {
        while self.writable && !self.queue.is_empty() {
            match self.port.write(&self.queue) {
                Ok(n) => drop(self.queue.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // That nobody is there is seen when the port is read.
                Err(_) => self.writable = false,
            }
        }
    }

    fn say(&mut self, channel: u32, message: &FromAgent) {
        encode(&message.frame(channel), &mut self.queue);
    }

    fn hear(&mut self, input: Input) {
        let mut heard = VecDeque::from([input]);
        while let Some(input) = heard.pop_front() {
            for order in self.core.hear(self.now(), input) {
                heard.extend(self.carry_out(order));
            }
        }
    }

    /// What became of an order, where there is something to tell.
    fn carry_out(&mut self, order: Order) -> Option<Input> {
        match order {
            Order::Say(channel, message) => self.say(channel, &message),
            Order::Unsay => self.queue = vec![0],
            Order::Clock(channel, set) => {
                let told = match set.map_or(Ok(()), |time| self.machine.set_clock(time)) {
                    Ok(()) => FromAgent::Clock(self.machine.clock()),
                    Err(e) => FromAgent::Failed { why: e.to_string() },
                };
                self.say(channel, &told);
                // Whoever asks for the time waits for it: nothing else comes first.
                self.send();
            }
            Order::Sample(channel) => {
                let told = self
                    .machine
                    .sample()
                    .map_or_else(|e| FromAgent::Failed { why: e.to_string() }, FromAgent::Sampled);
                self.say(channel, &told);
            }
            Order::Spawn(id, argv) => match Process::spawn(&argv, &self.home) {
                Ok(process) => drop(self.processes.insert(id, process)),
                Err((status, why)) => return Some(Input::NotBegun(id, status, why)),
            },
            Order::Kill(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.kill();
                }
            }
            Order::Create(id, path, mode) => match NewFile::create(&path, mode, id) {
                Ok(file) => drop(self.written.insert(id, file)),
                Err(e) => return Some(Input::Filed(id, Err(e.to_string()))),
            },
            Order::Open(id, path) => match open(&path) {
                Ok(file) => drop(self.read.insert(id, file)),
                Err(e) => return Some(Input::Filed(id, Err(e.to_string()))),
            },
            Order::Input(id, bytes) => return self.input(id, &bytes),
            Order::InputEnd(id) => return self.input_end(id),
            Order::Drop(id) => {
                self.written.remove(&id);
                self.read.remove(&id);
            }
        }
        None
    }

    fn input(&mut self, id: JobId, bytes: &[u8]) -> Option<Input> {
        if let Some(process) = self.processes.get_mut(&id) {
            process.input(bytes);
            return None;
        }
        let written = self.written.get_mut(&id)?.write(bytes);
        Some(match written {
            Ok(()) => Input::Taken(id, bytes.len()),
            Err(e) => {
                self.written.remove(&id);
                Input::Filed(id, Err(e.to_string()))
            }
        })
    }

    fn input_end(&mut self, id: JobId) -> Option<Input> {
        if let Some(process) = self.processes.get_mut(&id) {
            process.input_end();
            return None;
        }
        let file = self.written.remove(&id)?;
        Some(Input::Filed(id, file.finish().map_err(|e| e.to_string())))
    }
}
