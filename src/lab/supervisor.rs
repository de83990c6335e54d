//! The supervisor: one process for each running lab or fork. It owns the libvirt connection (the embedded driver takes
//! one root for each process), the fabric and the event journal.
//!
//! Started on demand by [`super::client`], found again by its socket. If it dies the machines live on with dark networks,
//! and the next one adopts them.

use super::cancel::Cancel;
use super::engine::{Backends, Engine};
use super::in_flight::{InFlight, InFlightGuard};
use super::protocol::{Greeting, LINE_MAX, PROTO, Reply, Request, Since, Verb, build};
use super::supervisor_lock;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Event, Journal, Read};
use crate::fabric::CaptureFilter;
use crate::files::{Home, LabFiles, is_instance};
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// Events that may wait for a slow client before it is cut off from them.
const EVENTS_QUEUED: usize = 4096;

/// How long a supervisor that keeps nothing waits to be asked for something.
const IDLE: Duration = Duration::from_secs(30);

/// How long a client may take to take its answer from a supervisor that has nothing more to keep.
const TAKEN: Duration = Duration::from_secs(5);

/// Runs the supervisor of `instance` until it is told to end, or until it has kept nothing for a while.
///
/// # Errors
/// [`Error::Usage`] where that is the name of no lab, before anything is made.
pub fn run(home: &Home, instance: &str) -> Result<()> {
    if !is_instance(instance) {
        return Err(Error::Usage(
            Problem::new("keep the lab")
                .on(format!("`{}`", instance.escape_debug()))
                .observed("it is no name of a lab or fork: NAME or NAME@N"),
        ));
    }
    let files = home.lab(instance);
    let Some(lock) = supervisor_lock::take(home, &files)? else {
        // Another supervisor was faster: the client finds its socket.
        return Ok(());
    };
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
    let engine = Arc::new(Engine::open(
        home.clone(),
        instance,
        Backends::of_host(home, instance, journal)?,
    )?);
    let ended = runtime.block_on(serve(listener, engine.clone(), instance, IDLE));
    drop(engine);
    let _ = std::fs::remove_file(files.socket());
    // Threads that still wait for a guest must not keep the process.
    runtime.shutdown_background();
    match ended? {
        End::Down => supervisor_lock::leave(&files, lock),
        End::Told => Ok(()),
    }
}

/// Why the supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is no lab: its files go too.
    Down,
    /// It was told to: the files stay.
    Told,
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

/// Serves until there is nothing to keep and no request is being served any more: the last request ends the supervisor, never the first.
async fn serve(listener: UnixListener, engine: Arc<Engine>, instance: &str, idle: Duration) -> Result<End> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .tried("listen for signals", instance)?;
    let (requests, answers) = (InFlight::new(), InFlight::new());
    let mut going_on = requests.watch();
    let mut met_anybody = false;
    loop {
        let needless = |n: usize| n == 0 && !engine.keeps_anything();
        let unneeded = needless(*going_on.borrow_and_update());
        if unneeded && met_anybody {
            // Work is done before its answer is taken. A client that does not take it delays no other one.
            let _ = tokio::time::timeout(TAKEN, answers.watch().wait_for(|n| *n == 0)).await;
            if needless(*going_on.borrow_and_update()) {
                return Ok(End::Down);
            }
        }
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                met_anybody = true;
                let client = Client {
                    engine: engine.clone(),
                    requests: requests.clone(),
                    answers: answers.clone(),
                    instance: instance.to_owned(),
                    idle,
                };
                let coming = requests.begin();
                // A client that breaks the protocol or goes away ends its own conversation only.
                tokio::spawn(async move { let _ = client.converse(stream, coming).await; });
            }
            _ = going_on.changed() => {}
            () = tokio::time::sleep(idle), if unneeded => return Ok(End::Down),
            _ = terminate.recv() => return Ok(End::Told),
        }
    }
}

/// One conversation.
struct Client {
    engine: Arc<Engine>,
    /// Requests that are carried out, and clients that have come and not asked yet.
    requests: InFlight,
    /// Requests that are not answered yet.
    answers: InFlight,
    instance: String,
    /// How long it counts as one that is about to ask.
    idle: Duration,
}

impl Client {
    async fn converse(self, stream: UnixStream, coming: InFlightGuard) -> std::io::Result<()> {
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
        let mut coming = Some(coming);
        loop {
            line.clear();
            if coming.is_some() {
                tokio::select! {
                    _ = read.fill_buf() => {}
                    () = tokio::time::sleep(self.idle) => coming = None,
                }
            }
            let n = (&mut read).take(LINE_MAX as u64).read_line(&mut line).await?;
            if n == 0 {
                return Ok(());
            }
            let request: Request = match serde_json::from_str(&line) {
                Ok(r) => r,
                Err(e) => {
                    let p = Problem::new("understand the request")
                        .on("supervisor socket")
                        .observed(e);
                    return send(&mut write, &Reply::of(0, Err(Error::Usage(p)))).await;
                }
            };
            // Whoever only listens keeps no supervisor that has nothing else to do.
            if matches!(
                request.verb,
                Verb::Dial { .. } | Verb::Capture(_) | Verb::Agent { .. } | Verb::Events(_)
            ) {
                coming = None;
            }
            match request.verb {
                Verb::Dial { to, within_ms } => return self.dial(request.id, to, within_ms, read, write).await,
                Verb::Capture(filter) => return self.capture(request.id, filter, read, write).await,
                Verb::Agent { node } => return self.agent(request.id, node, read, write).await,
                Verb::Events(since) => return self.events(request.id, since, read, write).await,
                verb => {
                    let request_begun = coming.take().unwrap_or_else(|| self.requests.begin());
                    self.work(request.id, verb, request_begun, &mut read, &mut write)
                        .await?;
                }
            }
        }
    }

    /// Runs one request on a blocking thread, its events beside it; a client that goes away cancels it.
    async fn work(
        &self,
        id: u64,
        verb: Verb,
        begun: InFlightGuard,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let cancel = Cancel::default();
        let _unanswered = self.answers.begin();
        // Who looks again and again is no listener.
        let mut events = match verb {
            Verb::Status(_) | Verb::News { .. } => mpsc::channel(1).1,
            _ => subscribe(self.engine.journal()),
        };
        let mut done = tokio::task::spawn_blocking({
            let (engine, cancel) = (self.engine.clone(), cancel.clone());
            move || {
                let result = engine.perform(verb, &cancel);
                drop(begun);
                result
            }
        });
        let result = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    if send(write, &Reply::Event(event)).await.is_err() { cancel.cancel(); }
                }
                result = &mut done => break result,
                () = gone(read), if !cancelled(&cancel) => cancel.cancel(),
            }
        };
        let result =
            result.unwrap_or_else(|panic| Err(Error::Bug(Problem::new("carry out the request").observed(panic))));
        while let Ok(event) = events.try_recv() {
            send(write, &Reply::Event(event)).await?;
        }
        send(write, &Reply::of(id, result)).await
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
        hand_over(id, read, write, move |stream, ok| {
            self.engine.capture(&filter, stream, ok)
        })
        .await
    }

    async fn agent(
        self,
        id: u64,
        node: String,
        read: BufReader<OwnedReadHalf>,
        write: OwnedWriteHalf,
    ) -> std::io::Result<()> {
        hand_over(id, read, write, move |stream, ok| self.engine.relay(&node, stream, &ok)).await
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
        let stream = match stream.unwrap_or_else(|e| Err(Error::Bug(Problem::new("dial").observed(e)))) {
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

/// Gives the whole connection to `work`, on a blocking thread, with the reply that says that it has begun.
async fn hand_over(
    id: u64,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    work: impl FnOnce(&std::os::unix::net::UnixStream, Vec<u8>) -> Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let stream = read
        .into_inner()
        .reunite(write)
        .map_err(std::io::Error::other)?
        .into_std()?;
    stream.set_nonblocking(false)?;
    let work = move || {
        let ended = work(&stream, line(&Reply::of(id, Ok(Value::Null))));
        // What never began: the client still waits for its reply.
        ended.map_or_else(|e| (&stream).write_all(&line(&Reply::of(id, Err(e)))), Ok)
    };
    tokio::task::spawn_blocking(work).await?
}

/// Returns when the client has gone. One that already asks for more is there; its next request is read when this one is answered.
async fn gone(read: &mut BufReader<OwnedReadHalf>) {
    if matches!(read.fill_buf().await, Ok(more) if !more.is_empty()) {
        std::future::pending().await
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

#[cfg(test)]
mod tests;
