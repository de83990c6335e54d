//! The ceiling: a loop that copies batches from one port to the other and does nothing else.

use super::load::{Wire, introduce};
use failoverlab::fabric::transport::{Batch, PortTransport, Udp, free_udp};
use failoverlab::hypervisor::Cable;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

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
        Ok((Udp::new(ours, local)?, Cable::Udp { fabric, local }))
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
    let (a, b) = (Wire::plug(&a)?, Wire::plug(&b)?);
    introduce(&a, &b)?;
    Ok((s, a, b))
}
