//! The frame thread: waits for datagrams, asks the engine, sends. It never waits for anything else.

use super::PortId;
use super::capture::Recorder;
use super::engine::{Egress, Engine, Tap};
use super::transport::{Batch, PortTransport};
use crate::error::{Error, IoContext, Problem, Result};
use crate::lock::lock;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// Most frames that one `sendmmsg` takes (the kernel's UIO_MAXIOV).
const SEND_MAX: usize = 1024;
/// Frames that one call takes from a backlog.
const CATCH_UP: usize = 64;
const WAKE: u64 = u64::MAX;
/// Failed reads in a row after which a port counts as unplugged.
const MAX_ERRORS: u32 = 100;

/// Something that the frame thread does between two batches.
type Job = Box<dyn FnOnce(&mut Frames) + Send>;

/// The handle of a frame thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Runner {
    jobs: Mutex<Option<Sender<Job>>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts the thread. `died` is called on it should it panic: the networks are dark from then on.
    pub fn start(engine: Engine<Recorder>, longest: usize, died: impl FnOnce() + Send + 'static) -> Result<Self> {
        let trying = |e: rustix::io::Errno| Error::Host(Problem::new("start the frame thread").observed(e));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(trying)?);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(trying)?;
        epoll::add(&poll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN).map_err(trying)?;
        let (jobs, queue) = channel();
        let mut frames = Frames {
            ports: (0..engine.port_count()).map(|_| Port::default()).collect(),
            engine,
            poll,
            begin: Instant::now(),
            out: Vec::new(),
            dirty: Vec::new(),
        };
        let woken = wake.clone();
        let thread = std::thread::Builder::new()
            .name("frames".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| frames.run(&woken, &queue, longest));
                if std::panic::catch_unwind(run).is_err() {
                    died();
                }
            })
            .tried("start the frame thread", "")?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            wake,
            thread: Some(thread),
        })
    }

    /// Runs `f` on the frame thread between two batches; returns its result.
    pub fn ask<R: Send + 'static>(&self, f: impl FnOnce(&mut Frames) -> R + Send + 'static) -> Result<R> {
        let dead = || {
            Error::Bug(
                Problem::new("reach the frame thread")
                    .observed("it ended")
                    .remedy("`down` and `up` again"),
            )
        };
        let (tx, rx) = channel();
        let job: Job = Box::new(move |frames| {
            // The caller may have been interrupted: the answer is dropped then.
            let _ = tx.send(f(frames));
        });
        {
            let jobs = lock(&self.jobs);
            jobs.as_ref().ok_or_else(dead)?.send(job).map_err(|_| dead())?;
        }
        self.wake();
        rx.recv().map_err(|_| dead())
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        *lock(&self.jobs) = None;
        self.wake();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// Most bytes that wait for a machine which takes no more at this moment: about a quarter of a second of what a guest can
/// take, and more than TCP has under way between two guests. What comes on top is dropped and counted.
pub const BACKLOG: usize = 4 << 20;

#[derive(Default)]
struct Port {
    transport: Option<Box<dyn PortTransport>>,
    /// What goes out after this batch.
    tx: Vec<Tx>,
    /// What the machine did not take yet, the oldest first.
    backlog: VecDeque<Box<[u8]>>,
    /// Its bytes.
    waiting: usize,
    /// Failed reads in a row.
    errors: u32,
}

enum Tx {
    /// A frame of the batch, as it came.
    Slot(usize),
    Own(Box<[u8]>),
}

/// What lives on the frame thread.
pub(super) struct Frames {
    pub engine: Engine<Recorder>,
    ports: Vec<Port>,
    poll: OwnedFd,
    begin: Instant,
    out: Vec<Egress>,
    dirty: Vec<PortId>,
}

impl Frames {
    /// Nanoseconds since the thread began.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Connects a port, in place of what was there.
    pub fn attach(&mut self, port: PortId, transport: Box<dyn PortTransport>) -> std::io::Result<()> {
        epoll::add(
            &self.poll,
            transport.fd(),
            epoll::EventData::new_u64(port as u64),
            epoll::EventFlags::IN,
        )?;
        if let Some(old) = self.ports[port].transport.replace(transport) {
            epoll::delete(&self.poll, old.fd())?;
        }
        self.engine.attach(port, true);
        Ok(())
    }

    /// The process of the machine at `port` is another one from now on; what waited for the old one is lost with it.
    pub fn renew(&mut self, port: PortId) -> std::io::Result<()> {
        let p = &mut self.ports[port];
        if let Some(t) = &mut p.transport {
            t.renew();
        }
        p.backlog.clear();
        p.waiting = 0;
        self.watch(port, false)
    }

    /// Bytes that wait for the machine at `port`.
    #[cfg(test)]
    pub fn waiting(&self, port: PortId) -> usize {
        self.ports[port].waiting
    }

    /// Asks epoll to tell when frames come from `port`, and where `writable` also when it takes some again.
    fn watch(&mut self, port: PortId, writable: bool) -> std::io::Result<()> {
        let Some(t) = &self.ports[port].transport else {
            return Ok(());
        };
        let mut what = epoll::EventFlags::IN;
        what.set(epoll::EventFlags::OUT, writable);
        Ok(epoll::modify(
            &self.poll,
            t.fd(),
            epoll::EventData::new_u64(port as u64),
            what,
        )?)
    }

    fn detach(&mut self, port: PortId) {
        if let Some(old) = self.ports[port].transport.take() {
            // A descriptor that epoll does not know any more is gone as wished.
            let _ = epoll::delete(&self.poll, old.fd());
        }
        self.engine.attach(port, false);
    }

    /// UDP ports of each port that has some.
    pub fn host_ports(&self) -> Vec<(PortId, (u16, u16))> {
        let own = |(i, p): (usize, &Port)| p.transport.as_ref().and_then(|t| t.host_ports()).map(|h| (i, h));
        self.ports.iter().enumerate().filter_map(own).collect()
    }

    /// Forwards what was held.
    pub fn release(&mut self) {
        let now = self.now();
        self.engine.release(now, &mut self.out);
        self.queue(0);
        self.flush(&Batch::new(0));
    }

    fn run(&mut self, wake: &OwnedFd, jobs: &Receiver<Job>, longest: usize) {
        let mut batch = Batch::new(longest);
        let mut ready = Vec::with_capacity(64);
        loop {
            let wait = self.engine.next_wake().map(|due| {
                let left = due.saturating_sub(self.now());
                Timespec {
                    tv_sec: (left / 1_000_000_000) as i64,
                    tv_nsec: (left % 1_000_000_000) as i64,
                }
            });
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("epoll: {e}"),
            }
            for event in ready.drain(..) {
                if event.data.u64() != WAKE {
                    let (port, what) = (event.data.u64() as usize, event.flags);
                    if what.contains(epoll::EventFlags::OUT) {
                        self.catch_up(port);
                    }
                    if what.intersects(!epoll::EventFlags::OUT) {
                        self.receive(port, &mut batch);
                    }
                    continue;
                }
                let _ = rustix::io::read(wake, &mut [0; 8]);
                loop {
                    match jobs.try_recv() {
                        Ok(job) => job(self),
                        Err(std::sync::mpsc::TryRecvError::Empty) => break,
                        Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    }
                }
            }
            if self.engine.next_wake().is_some() {
                let now = self.now();
                self.engine.due(now, &mut self.out);
                self.queue(0);
                self.flush(&batch);
                self.engine.tap().flush(now);
            }
        }
    }

    /// One batch from one port: a busy port does not starve the others.
    fn receive(&mut self, port: PortId, batch: &mut Batch) {
        let p = &mut self.ports[port];
        let Some(transport) = &mut p.transport else { return };
        batch.clear();
        // A single error (the kernel is short of memory) loses frames, as a wire does; a socket that only fails would
        // keep this thread busy for nothing.
        if transport.receive(batch).is_err() {
            p.errors += 1;
            if p.errors > MAX_ERRORS {
                self.detach(port);
            }
            return;
        }
        p.errors = 0;
        self.engine.port(port).foreign += batch.foreign();
        let now = self.now();
        for i in 0..batch.len() {
            if let Some(frame) = batch.frame(i) {
                self.engine.ingress(port, frame, now, &mut self.out);
                self.queue(i);
            }
        }
        self.flush(batch);
    }

    /// Sorts the engine's output by port; `slot` is the frame that it came from.
    fn queue(&mut self, slot: usize) {
        for e in self.out.drain(..) {
            let tx = &mut self.ports[e.to].tx;
            if tx.is_empty() {
                self.dirty.push(e.to);
            }
            tx.push(e.bytes.map_or(Tx::Slot(slot), Tx::Own));
        }
    }

    fn flush(&mut self, batch: &Batch) {
        let mut waits = Vec::new();
        for p in self.dirty.drain(..) {
            let port = &mut self.ports[p];
            let frames: Vec<IoSlice<'_>> = port
                .tx
                .iter()
                .map(|tx| match tx {
                    Tx::Slot(i) => IoSlice::new(batch.frame(*i).unwrap_or(&[])),
                    Tx::Own(bytes) => IoSlice::new(bytes),
                })
                .collect();
            // Frames keep their order: what waits already goes first.
            let mut sent = 0;
            if port.backlog.is_empty() {
                sent = send(&mut port.transport, &frames);
            }
            let rest = &frames[sent..];
            let mut kept = 0;
            if port.transport.as_ref().is_some_and(|t| t.tells_when_writable()) {
                for f in rest {
                    if port.waiting + f.len() > BACKLOG {
                        break;
                    }
                    port.waiting += f.len();
                    port.backlog.push_back((**f).into());
                    kept += 1;
                }
            }
            let lost = &rest[kept..];
            if !lost.is_empty() {
                let bytes = lost.iter().map(|f| f.len() as u64).sum();
                self.engine.refused(p, lost.len() as u64, bytes);
            }
            let begins = kept > 0 && kept == port.backlog.len();
            drop(frames);
            port.tx.clear();
            if begins {
                waits.push(p);
            }
        }
        for p in waits {
            // What epoll knows it can be told to watch otherwise; a port that it does not know was unplugged.
            let _ = self.watch(p, true);
        }
    }

    /// Sends what waits for `port`, as far as it is taken.
    fn catch_up(&mut self, port: PortId) {
        let p = &mut self.ports[port];
        loop {
            let frames: Vec<IoSlice<'_>> = p.backlog.iter().take(CATCH_UP).map(|f| IoSlice::new(f)).collect();
            if frames.is_empty() {
                break;
            }
            let sent = send(&mut p.transport, &frames);
            if sent == 0 {
                return;
            }
            drop(frames);
            p.waiting -= p.backlog.drain(..sent).map(|f| f.len()).sum::<usize>();
        }
        let _ = self.watch(port, false);
    }
}

/// Hands frames over; how many of them, from the first, were taken.
fn send(transport: &mut Option<Box<dyn PortTransport>>, frames: &[IoSlice<'_>]) -> usize {
    let mut sent = 0;
    while let Some(t) = transport
        && sent < frames.len()
    {
        match t.send(&frames[sent..frames.len().min(sent + SEND_MAX)]) {
            Ok(0) | Err(_) => break,
            Ok(n) => sent += n,
        }
    }
    sent
}
