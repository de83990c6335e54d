//! The supervisor: one process for each running lab or fork. It owns the libvirt connection (the embedded driver takes
//! one root for each process), the fabric and the event journal.
//!
//! Started on demand by [`super::client`], found again by its socket. If it dies the machines live on with dark networks,
//! and the next one adopts them.

use super::engine::Engine;
use super::protocol::{Greeting, LINE_MAX, PROTO, Reply, Request, Since, Verb, build};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Event, Journal, Read};
use crate::fabric::CaptureFilter;
use crate::files::{Home, LabFiles};
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// Set when the client of a request went away: long work looks at it between and inside its steps.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to stop and undo.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// An error once cancelled.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
    /// The flag itself, for work that polls it.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}

/// Events that may wait for a slow client before it is cut off from them.
const EVENTS_QUEUED: usize = 4096;

/// Runs the supervisor of `instance` until it is told to end, or until it has kept nothing for a while.
pub fn run(home: &Home, instance: &str) -> Result<()> {
    let files = home.lab(instance);
    Home::private_dir(&home.runtime)?;
    Home::private_dir(&files.run)?;
    Home::private_dir(&files.state)?;
    let lock = std::fs::File::create(files.lock()).tried("open the lab's lock", files.lock().display())?;
    if lock.try_lock().is_err() {
        // Another supervisor was faster: the client finds its socket.
        return Ok(());
    }
    crate::hypervisor::become_subreaper()?;
    // A session of its own: a terminal's signals are not for this process. It fails only for a leader, which has one.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(512 << 10)
        .max_blocking_threads(64)
        .build()
        .tried("start the supervisor", instance)?;
    // The socket is bound before anything slow, so that a second client waits for the greeting instead of starting another.
    let listener = runtime.block_on(async { bind(&files) })?;
    let journal = Journal::open(&files.events(), 0)?;
    let engine = Arc::new(Engine::open(home.clone(), instance, journal.clone())?);
    let ended = runtime.block_on(serve(listener, engine.clone(), instance));
    drop(engine);
    let _ = std::fs::remove_file(files.socket());
    // Threads that still wait for a guest must not keep the process.
    runtime.shutdown_background();
    if ended? == End::Down {
        remove_files(&files)?;
    }
    drop(lock);
    Ok(())
}

/// Why the supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The lab is gone: its files go too.
    Down,
    /// Nothing to keep, or told to end: the files stay.
    Idle,
}

/// Removes the lab's state and run folders.
fn remove_files(files: &LabFiles) -> Result<()> {
    for dir in [&files.state, &files.run] {
        match fs_err::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).tried("remove the lab's folder", dir.display());
            }
            _ => {}
        }
    }
    Ok(())
}

fn bind(files: &LabFiles) -> Result<UnixListener> {
    let path = files.socket();
    // We hold the lock: a socket that is there belongs to a supervisor that died.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).tried("bind the supervisor's socket", path.display())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .tried("close the supervisor's socket to others", path.display())?;
    Ok(listener)
}

async fn serve(listener: UnixListener, engine: Arc<Engine>, instance: &str) -> Result<End> {
    let (end, mut ended) = watch::channel(None);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .tried("listen for signals", instance)?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let client = Client { engine: engine.clone(), end: end.clone(), instance: instance.to_owned() };
                // A client that breaks the protocol or goes away ends its own conversation only.
                tokio::spawn(async move { let _ = client.converse(stream).await; });
            }
            _ = ended.changed() => {
                if let Some(how) = *ended.borrow() { return Ok(how); }
            }
            _ = terminate.recv() => return Ok(End::Idle),
        }
    }
}

/// One conversation.
struct Client {
    engine: Arc<Engine>,
    end: watch::Sender<Option<End>>,
    instance: String,
}

impl Client {
    async fn converse(self, stream: UnixStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let greeting = Greeting {
            failoverlab: build(),
            proto: PROTO,
            lab: self.instance.clone(),
            pid: std::process::id(),
        };
        send(&mut write, &greeting).await?;
        let mut line = String::new();
        loop {
            line.clear();
            let n = (&mut read).take(LINE_MAX as u64).read_line(&mut line).await?;
            if n == 0 {
                return Ok(());
            }
            let request: Request = match serde_json::from_str(&line) {
                Ok(r) => r,
                Err(e) => {
                    let p = Problem::new("understand the request").on("supervisor socket").seen(e);
                    return send(&mut write, &Reply::of(0, Err(Error::Usage(p)))).await;
                }
            };
            match request.verb {
                Verb::Dial { to, within_ms } => return self.dial(request.id, to, within_ms, read, write).await,
                Verb::Capture(filter) => return self.capture(request.id, filter, read, write).await,
                Verb::Events(since) => return self.events(request.id, since, read, write).await,
                verb => self.work(request.id, verb, &mut read, &mut write).await?,
            }
        }
    }

    /// Runs one request on a blocking thread, its events beside it; a client that goes away cancels it.
    async fn work(
        &self,
        id: u64,
        verb: Verb,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let cancel = Cancel::default();
        let down = matches!(verb, Verb::Down);
        let mut events = subscribe(self.engine.journal());
        let mut done = tokio::task::spawn_blocking({
            let (engine, cancel) = (self.engine.clone(), cancel.clone());
            move || engine.perform(verb, &cancel)
        });
        let result = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    if send(write, &Reply::Event(event)).await.is_err() { cancel.cancel(); }
                }
                result = &mut done => break result,
                gone = read.fill_buf(), if !cancelled(&cancel) => {
                    // A client says nothing while it waits: the end of the stream is the only thing to hear.
                    if !matches!(gone, Ok(b) if !b.is_empty()) { cancel.cancel(); }
                }
            }
        };
        let result = result.unwrap_or_else(|panic| Err(Error::Bug(Problem::new("carry out the request").seen(panic))));
        while let Ok(event) = events.try_recv() {
            send(write, &Reply::Event(event)).await?;
        }
        let down_done = down && result.is_ok();
        let told = send(write, &Reply::of(id, result)).await;
        if down_done || !self.engine.keeps_anything() {
            self.end.send_replace(Some(End::Down));
        }
        told
    }

    /// Reads the journal's file to the client, and on as it grows: a client that is slow has its own place in it and loses nothing.
    async fn events(
        self,
        id: u64,
        since: Option<Since>,
        mut read: BufReader<OwnedReadHalf>,
        mut write: OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let journal = self.engine.journal();
        // Before the first look: what comes between the look and the wait must wake us.
        let mut grown = grown(journal);
        let mut reader = match journal.reader(since.and_then(|s| s.from)) {
            Ok(reader) => reader,
            Err(e) => return send(&mut write, &Reply::of(id, Err(e))).await,
        };
        loop {
            match reader.read() {
                Ok(Some(Read::Event(e))) => send(&mut write, &Reply::Event(*e)).await?,
                Ok(Some(Read::Gap { from, to })) => send(&mut write, &Reply::Gap { from, to }).await?,
                Err(e) => return send(&mut write, &Reply::of(id, Err(e))).await,
                Ok(None) => tokio::select! {
                    changed = grown.changed() => if changed.is_err() { return Ok(()) },
                    _ = read.fill_buf() => return Ok(()),
                },
            }
        }
    }

    async fn capture(
        self,
        id: u64,
        filter: CaptureFilter,
        read: BufReader<OwnedReadHalf>,
        write: OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let stream = read
            .into_inner()
            .reunite(write)
            .map_err(std::io::Error::other)?
            .into_std()?;
        stream.set_nonblocking(false)?;
        let work = move || {
            let ended = self
                .engine
                .capture(&filter, &stream, line(&Reply::of(id, Ok(Value::Null))));
            // A capture that never began: the client still waits for its reply.
            ended.map_or_else(|e| (&stream).write_all(&line(&Reply::of(id, Err(e)))), Ok)
        };
        tokio::task::spawn_blocking(work).await?
    }

    async fn dial(
        self,
        id: u64,
        to: std::net::SocketAddrV4,
        within_ms: u64,
        read: BufReader<OwnedReadHalf>,
        mut write: OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let engine = self.engine.clone();
        let within = std::time::Duration::from_millis(within_ms);
        let stream = tokio::task::spawn_blocking(move || engine.dial(to, within)).await;
        let stream = match stream.unwrap_or_else(|e| Err(Error::Bug(Problem::new("dial").seen(e)))) {
            Ok(s) => s,
            Err(e) => return send(&mut write, &Reply::of(id, Err(e))).await,
        };
        send(&mut write, &Reply::of(id, Ok(Value::Null))).await?;
        stream.set_nonblocking(true)?;
        let mut there = UnixStream::from_std(stream)?;
        let mut here = tokio::io::join(read, write);
        tokio::io::copy_bidirectional(&mut here, &mut there).await.map(drop)
    }
}

fn cancelled(cancel: &Cancel) -> bool {
    cancel.check().is_err()
}

/// Changes whenever the journal has grown.
fn grown(journal: &Journal) -> watch::Receiver<u64> {
    let (tx, rx) = watch::channel(0);
    journal.listen(move |e| tx.send(e.seq).is_ok());
    rx
}

/// A bounded queue of the events from now on, beside a request: what a person sees while it waits. A client that does not read loses events, never blocks the lab.
fn subscribe(journal: &Journal) -> mpsc::Receiver<Event> {
    let (tx, rx) = mpsc::channel(EVENTS_QUEUED);
    journal.listen(move |e| !matches!(tx.try_send(e.clone()), Err(mpsc::error::TrySendError::Closed(_))));
    rx
}

async fn send(write: &mut OwnedWriteHalf, value: &impl serde::Serialize) -> std::io::Result<()> {
    write.write_all(&line(value)).await
}

fn line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("a message is plain data");
    line.push(b'\n');
    line
}
