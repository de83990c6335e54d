//! A lab address on a loopback port: a person's own mail program works through a failover.

use crate::error::{Error, Problem, Result};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Opens a connection into the lab: what is read from it, and what is written to it.
pub type Dial = dyn Fn() -> Result<(BufReader<UnixStream>, UnixStream)> + Send + Sync;

/// Connections from a loopback port to an address in the lab. Dropping it closes the port; open connections go on.
#[derive(Debug)]
pub struct Forward {
    at: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    served: AtomicU64,
    failed: AtomicU64,
}

impl Forward {
    /// Listens on 127.0.0.1:`listen` (0: any free port) and carries each connection to one that `dial` opens.
    pub fn start(listen: u16, dial: Arc<Dial>) -> Result<Self> {
        let wrong = |e: io::Error| {
            Error::Operation(
                Problem::new("listen for connections into the lab")
                    .on(format!("127.0.0.1:{listen}"))
                    .observed(e)
                    .remedy("choose another port"),
            )
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen)).map_err(wrong)?;
        let at = listener.local_addr().map_err(wrong)?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        let accept = move || {
            for client in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                // A client that was gone before it was accepted, or no descriptor left: the next one may fare better.
                let Ok(client) = client else { continue };
                let (dial, state) = (dial.clone(), shared.clone());
                let serve = std::thread::Builder::new().name("forward".into()).spawn(move || {
                    let ok = splice(client, &*dial).is_ok();
                    let counter = if ok { &state.served } else { &state.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                });
                if serve.is_err() {
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("forward".into())
            .spawn(accept)
            .map_err(wrong)?;
        Ok(Self {
            at,
            state,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Connections that were carried to their end, and those that found no server.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.state.served.load(Ordering::Relaxed),
            self.state.failed.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        // Wakes the listener; where that fails it has ended already.
        let _ = TcpStream::connect_timeout(&self.at, Duration::from_secs(1));
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// Carries one connection; a client whose lab side cannot be reached sees its connection closed.
fn splice(client: TcpStream, dial: &Dial) -> io::Result<()> {
    let (from_lab, to_lab) = dial().map_err(io::Error::other)?;
    let c = client.try_clone()?;
    let up = std::thread::Builder::new()
        .name("forward".into())
        .spawn(move || copy(c, to_lab, |l: &UnixStream| l.shutdown(Shutdown::Write)))?;
    let down = copy(from_lab, client, |c: &TcpStream| c.shutdown(Shutdown::Write));
    up.join()
        .map_err(|_| io::Error::other("a copying thread ended"))?
        .and(down)
}

fn copy<R: Read, W: Write>(mut from: R, mut to: W, end: impl Fn(&W) -> io::Result<()>) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    match end(&to) {
        Err(e) if e.kind() != ErrorKind::NotConnected => Err(e),
        _ => copied.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{Deadline, Probe, wait_until};

    /// A lab whose every address answers in capitals.
    fn shouting() -> Result<(BufReader<UnixStream>, UnixStream)> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut text = String::new();
            ours.read_to_string(&mut text).unwrap();
            ours.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        Ok((BufReader::new(theirs.try_clone().unwrap()), theirs))
    }

    fn no_lab() -> Result<(BufReader<UnixStream>, UnixStream)> {
        Err(Error::Operation(Problem::new("connect into the lab")))
    }

    fn ask(f: &Forward) -> String {
        let mut c = TcpStream::connect(f.address()).unwrap();
        let mut text = String::new();
        // A connection that is closed at once may refuse what is written to it.
        let _ = c.write_all(b"helo").and_then(|()| c.shutdown(Shutdown::Write));
        let _ = c.read_to_string(&mut text);
        text
    }

    #[test]
    fn a_loopback_port_leads_into_the_lab() {
        let f = Forward::start(0, Arc::new(shouting)).unwrap();
        assert!(f.address().ip().is_loopback());
        assert_eq!(ask(&f), "HELO");
        let taken = Forward::start(f.address().port(), Arc::new(shouting));
        assert_eq!(taken.unwrap_err().exit_code(), 5);
        let at = f.address();
        drop(f);
        assert!(TcpStream::connect(at).is_err());
        let f = Forward::start(0, Arc::new(no_lab)).unwrap();
        assert_eq!(ask(&f), "");
        wait_until("count", Deadline::after(Duration::from_secs(5)), || {
            let c = f.counts();
            Ok(if c == (0, 1) {
                Probe::Ready(())
            } else {
                Probe::NotYet(format!("{c:?}"))
            })
        })
        .unwrap();
    }
}
