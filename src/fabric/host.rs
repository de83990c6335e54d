//! The workstation's own port on a lab network: a TCP/IP host inside this process.
//!
//! A connection is handed out as one end of a unix stream pair: a plain descriptor that can be read and written with
//! deadlines, given to tokio, or passed to another process. Its buffers are bounded on both sides.

mod acks;
pub mod device;
pub mod neighbours;
mod stack;
#[cfg(test)]
mod tests;

use super::inside::Inside;
use crate::error::{Error, Problem};
use crate::lock::lock;
use crate::spec::Mac;
use crate::wait::Deadline;
use stack::{Job, Stack};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A way for a client on the workstation into a lab network.
pub trait ClientNet: Send + Sync {
    /// Opens a TCP connection. The stream ends (end of file) when the peer closes or resets it.
    fn connect(&self, to: SocketAddrV4, deadline: Deadline) -> Result<UnixStream, ConnectError>;
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The machine answered that no process listens there.
    #[error("connection refused by {0}")]
    Refused(SocketAddrV4),
    /// Nothing came back in time.
    #[error("{to} did not answer within {waited:?}{}", if *.arp { " (nobody answered for its address yet)" } else { "" })]
    TimedOut {
        /// Who was asked.
        to: SocketAddrV4,
        /// How long.
        waited: Duration,
        /// Not even ARP was answered.
        arp: bool,
    },
    /// No host on the network has the address.
    #[error("no host has the address {0}: three ARP requests without an answer")]
    Unreachable(Ipv4Addr),
    /// The address belongs to no lab network that the workstation is on.
    #[error("{to} is on none of the lab's networks ({known})")]
    NoRoute {
        /// The address.
        to: Ipv4Addr,
        /// The networks.
        known: String,
    },
    /// The bound on connections at once is reached.
    #[error("{0} connections are open already")]
    TooMany(usize),
    /// The host cannot give what a connection needs, or the network was taken down.
    #[error("the workstation's port failed: {0}")]
    Failed(String),
}

impl From<ConnectError> for Error {
    fn from(e: ConnectError) -> Self {
        let problem = Problem::new("connect into the lab").observed(&e);
        match e {
            ConnectError::NoRoute { .. } => Error::Usage(problem),
            _ => Error::Operation(problem),
        }
    }
}

/// What a host on a lab network is.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostConfig {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub mac: Mac,
    pub mtu: u16,
}

/// The workstation on one lab network. Dropping it resets its connections.
#[derive(Debug)]
pub struct LabHost {
    config: HostConfig,
    network: String,
    jobs: Mutex<Option<Sender<Job>>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl LabHost {
    /// Plugs the host into `cable`.
    pub(super) fn start(network: &str, config: HostConfig, cable: Inside) -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (jobs, queue) = channel();
        let mut stack = Stack::new(config, cable, wake.clone())?;
        let thread = std::thread::Builder::new()
            .name(format!("host-{network}"))
            .spawn(move || stack.run(&queue))?;
        Ok(Self {
            config,
            network: network.to_owned(),
            jobs: Mutex::new(Some(jobs)),
            wake,
            thread: Some(thread),
        })
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.config.address
    }

    /// Whether `ip` is in its subnet.
    pub fn reaches(&self, ip: Ipv4Addr) -> bool {
        same_subnet(self.config.address, ip, self.config.prefix)
    }

    /// Asks who has `ip` (an ARP probe, RFC 5227, which teaches no host anything); `None` where no answer comes in time.
    pub fn arp_probe(&self, ip: Ipv4Addr, deadline: Deadline) -> Result<Option<Mac>, ConnectError> {
        let (tx, rx) = channel();
        self.send(Job::Probe {
            ip,
            deadline,
            reply: tx,
        })?;
        rx.recv().map_err(|_| gone())
    }

    /// Says to every host that `ip` is at the workstation (a gratuitous ARP).
    pub fn announce(&self, ip: Ipv4Addr) -> Result<(), ConnectError> {
        self.send(Job::Announce(ip))
    }

    /// Takes an address that belongs to another host: announces it and answers for it until the guard is dropped.
    pub fn claim(self: &Arc<Self>, ip: Ipv4Addr) -> Result<AddressConflict, ConnectError> {
        self.send(Job::Claim(ip, true))?;
        self.announce(ip)?;
        Ok(AddressConflict { host: self.clone(), ip })
    }

    /// Ends its connections, also those that are being made: who waits for one hears it at once.
    pub(super) fn hang_up(&self) {
        *lock(&self.jobs) = None;
        self.wake();
    }

    fn send(&self, job: Job) -> Result<(), ConnectError> {
        let jobs = lock(&self.jobs);
        jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        drop(jobs);
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

/// Whether two addresses share their first `prefix` (1 to 32) bits.
pub(super) fn same_subnet(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    (u32::from(a) ^ u32::from(b)) >> (32 - u32::from(prefix).clamp(1, 32)) == 0
}

fn gone() -> ConnectError {
    ConnectError::Failed("its network was taken down".into())
}

impl ClientNet for LabHost {
    fn connect(&self, to: SocketAddrV4, deadline: Deadline) -> Result<UnixStream, ConnectError> {
        if !self.reaches(*to.ip()) {
            let known = format!("{} {}/{}", self.network, self.config.address, self.config.prefix);
            return Err(ConnectError::NoRoute { to: *to.ip(), known });
        }
        let (tx, rx) = channel();
        self.send(Job::Connect {
            to,
            deadline,
            reply: tx,
        })?;
        rx.recv().map_err(|_| gone())?
    }
}

impl Drop for LabHost {
    fn drop(&mut self) {
        self.hang_up();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// An address that the workstation holds although it belongs to another host.
#[derive(Debug)]
pub struct AddressConflict {
    host: Arc<LabHost>,
    ip: Ipv4Addr,
}

impl Drop for AddressConflict {
    fn drop(&mut self) {
        // A host that is gone answers for nothing any more.
        let _ = self.host.send(Job::Claim(self.ip, false));
    }
}
