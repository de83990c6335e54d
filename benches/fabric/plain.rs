//! The ceiling: a loop that copies batches from one port to the other and does nothing else.

use super::load::{Wire, introduce};
use failoverlab::fabric::Cable;
use failoverlab::fabric::compile::Names;
use failoverlab::fabric::engine::Engine;
use failoverlab::fabric::transport::{Batch, PortTransport, Udp, Unix, free_udp};
use std::io::{self, IoSlice};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// Name of the threads of the loops below.
pub const PLAIN: &str = "plain";

/// A thread that ends when this is dropped.
pub struct Switch(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Drop for Switch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(t) = self.1.take() {
            let _ = t.join();
        }
    }
}

/// Runs `each` batch of two transports until dropped; `each` says who gets which frames.
fn switch<T: PortTransport + 'static>(
    mut ports: [T; 2],
    mut each: impl FnMut(usize, &Batch, &mut [T; 2]) + Send + 'static,
) -> Switch {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let work = move || {
        let mut batch = Batch::new(1514 + 8);
        while !stopped.load(Ordering::Relaxed) {
            let ready: Vec<bool> = {
                let mut fds = ports
                    .each_ref()
                    .map(|p| rustix::event::PollFd::from_borrowed_fd(p.fd(), rustix::event::PollFlags::IN));
                let wait = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 50_000_000,
                };
                let _ = rustix::event::poll(&mut fds, Some(&wait));
                fds.iter().map(|f| !f.revents().is_empty()).collect()
            };
            for p in (0..2).filter(|p| ready[*p]) {
                if ports[p].receive(&mut batch).is_ok() {
                    each(p, &batch, &mut ports);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name(PLAIN.into()).spawn(work);
    Switch(stop, Some(thread.expect("a thread starts")))
}

fn send_all(port: &mut impl PortTransport, frames: &[IoSlice<'_>]) {
    let mut sent = 0;
    while sent < frames.len() {
        match port.send(&frames[sent..]) {
            Ok(0) | Err(_) => return,
            Ok(n) => sent += n,
        }
    }
}

/// The plain loop over UDP, and the ports of its two machines.
pub fn udp() -> io::Result<(Switch, [Cable; 2])> {
    // Held until both are chosen, so that no port is chosen twice.
    let mut held = Vec::new();
    let mut cable = || -> io::Result<(Udp, Cable)> {
        let (ours, theirs) = (free_udp()?, free_udp()?);
        let (fabric, local) = (ours.local_addr()?.port(), theirs.local_addr()?.port());
        held.push(theirs);
        Ok((Udp::new(ours, local)?, Cable { fabric, local }))
    };
    let ((ua, a), (ub, b)) = (cable()?, cable()?);
    let copy = |p: usize, batch: &Batch, ports: &mut [Udp; 2]| {
        let frames: Vec<IoSlice<'_>> = (0..batch.len())
            .filter_map(|i| batch.frame(i))
            .map(IoSlice::new)
            .collect();
        send_all(&mut ports[1 - p], &frames);
    };
    Ok((switch([ua, ub], copy), [a, b]))
}

/// The same, with its two machines.
pub fn start() -> io::Result<(Switch, Wire, Wire)> {
    let (s, [a, b]) = udp()?;
    let (a, b) = (Wire::udp(a.local, a.fabric)?, Wire::udp(b.local, b.fabric)?);
    introduce(&a, &b)?;
    Ok((s, a, b))
}

/// The fabric's engine over unix datagram pairs, with its two machines.
pub fn unix_fabric() -> io::Result<(Switch, Wire, Wire)> {
    let ((oa, ta), (ob, tb)) = (UnixDatagram::pair()?, UnixDatagram::pair()?);
    let names = Names {
        networks: vec!["net".into()],
        ports: vec![(0, "node0".into()), (0, "node1".into())],
    };
    let mut engine = Engine::new(names, &[1500], ());
    let (begin, mut out) = (Instant::now(), Vec::new());
    let judge = move |p: usize, batch: &Batch, ports: &mut [Unix; 2]| {
        let now = begin.elapsed().as_nanos() as u64;
        let mut frames = Vec::new();
        for i in 0..batch.len() {
            if let Some(f) = batch.frame(i) {
                engine.ingress(p, f, now, &mut out);
                frames.extend(out.drain(..).map(|_| IoSlice::new(f)));
            }
        }
        send_all(&mut ports[1 - p], &frames);
    };
    let s = switch([Unix::new(oa)?, Unix::new(ob)?], judge);
    let (a, b) = (Wire::Unix(ta), Wire::Unix(tb));
    introduce(&a, &b)?;
    Ok((s, a, b))
}
