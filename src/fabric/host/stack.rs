//! The thread of a workstation host: smoltcp between the cable and the unix streams of its connections.

use super::device::Nic;
use super::{ConnectError, HostConfig};
use crate::fabric::inside::Inside;
use crate::fabric::transport::PortTransport;
use crate::spec::Mac;
use crate::wait::Deadline;
use rustix::event::{Timespec, epoll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// Connections at once.
pub(super) const MAX_CONNECTIONS: usize = 512;
/// Bytes that wait in each direction of a connection, beside what the kernel keeps in the unix stream.
const BUFFER: usize = 64 << 10;
/// A peer that acknowledges nothing for so long is gone.
const PEER_GONE: SmolDuration = SmolDuration::from_secs(120);
/// How long a connection whose client is gone may take to end in order.
const LINGER: Duration = Duration::from_secs(10);
/// How long a connection that ended in order answers a peer that did not hear the last acknowledgement.
const LAST_ACKS: Duration = Duration::from_secs(1);
/// Local ports, as of IANA.
const PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
const WAKE: u64 = u64::MAX;
const CABLE: u64 = u64::MAX - 1;

/// What the host is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Connect {
        to: SocketAddrV4,
        deadline: Deadline,
        reply: Sender<Result<UnixStream, ConnectError>>,
    },
    Probe {
        ip: Ipv4Addr,
        deadline: Deadline,
        reply: Sender<Option<Mac>>,
    },
    Announce(Ipv4Addr),
    Claim(Ipv4Addr, bool),
    /// How many connections there are, those that end included.
    #[cfg(test)]
    Count(Sender<usize>),
}

struct Opening {
    to: SocketAddrV4,
    begin: Instant,
    deadline: Deadline,
    reply: Sender<Result<UnixStream, ConnectError>>,
    theirs: UnixStream,
}

struct Connection {
    id: u64,
    handle: SocketHandle,
    /// Our end; the client has the other.
    ours: UnixStream,
    opening: Option<Opening>,
    readable: bool,
    writable: bool,
    /// The client will send no more.
    client_done: bool,
    /// The peer will send no more, and the client knows.
    peer_done: bool,
    /// The client's end is closed, or both sides are done: it may linger until then.
    until: Option<Instant>,
    /// Nothing is left to do but to say so to the peer.
    over: bool,
}

struct Probe {
    ip: Ipv4Addr,
    deadline: Deadline,
    again: Instant,
    reply: Sender<Option<Mac>>,
}

pub(super) struct Stack {
    nic: Nic,
    iface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    probes: Vec<Probe>,
    poll: OwnedFd,
    wake: Arc<OwnedFd>,
    begin: Instant,
    next_port: u16,
    next_id: u64,
}

impl Stack {
    pub fn new(config: HostConfig, cable: Inside, wake: Arc<OwnedFd>) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        epoll::add(
            &poll,
            cable.fd(),
            epoll::EventData::new_u64(CABLE),
            epoll::EventFlags::IN,
        )?;
        let mut nic = Nic::new(cable, config.address, config.mac, config.mtu);
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let mut c = Config::new(HardwareAddress::Ip);
        // Sequence numbers and ports must not repeat those of the process before: its peers may still know them.
        let seed = u64::from_ne_bytes(seed);
        c.random_seed = seed;
        let mut iface = Interface::new(c, &mut nic, SmolInstant::ZERO);
        iface.update_ip_addrs(|a| {
            // The list is empty and holds more than one.
            let _ = a.push(IpCidr::new(config.address.into(), config.prefix));
        });
        let span = u64::from(PORTS.end() - PORTS.start());
        let next_port = PORTS.start() + (seed % span) as u16;
        Ok(Self {
            nic,
            iface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            probes: Vec::new(),
            poll,
            wake,
            begin: Instant::now(),
            next_port,
            next_id: 0,
        })
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn smol_now(&self) -> SmolInstant {
        SmolInstant::from_micros(self.begin.elapsed().as_micros() as i64)
    }

    pub fn run(&mut self, jobs: &Receiver<Job>) {
        let mut ready = Vec::with_capacity(64);
        loop {
            loop {
                match jobs.try_recv() {
                    Ok(job) => self.start(job),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return self.end(),
                }
            }
            self.work();
            let wait = self.wait().map(|d| Timespec {
                tv_sec: d.as_secs() as i64,
                tv_nsec: i64::from(d.subsec_nanos()),
            });
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Without epoll nothing can be heard: clients see the end of their streams.
                Err(_) => return self.end(),
            }
            for event in ready.drain(..) {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
                    }
                    CABLE => {}
                    id => {
                        if let Some(c) = self.connections.iter_mut().find(|c| c.id == id) {
                            c.readable = true;
                            c.writable = true;
                            if { event.flags }.contains(epoll::EventFlags::HUP) && c.until.is_none() {
                                c.until = Some(Instant::now() + LINGER);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Resets what is open, so that peers do not wait for a host that is gone.
    fn end(&mut self) {
        for c in &self.connections {
            self.sockets.get_mut::<Socket<'_>>(c.handle).abort();
        }
        let now = self.smol_now();
        self.iface.poll(now, &mut self.nic, &mut self.sockets);
        let now = self.now();
        self.nic.put_out(now);
    }

    /// Moves everything that can be moved.
    fn work(&mut self) {
        let now = self.now();
        let probes = &mut self.probes;
        self.nic.take_in(now, |ip, mac| {
            for p in probes.extract_if(.., |p| p.ip == ip) {
                let _ = p.reply.send(Some(mac));
            }
        });
        self.probe();
        // Data that clients wrote can only leave after the stack took what came in, and the other way round.
        let at = self.smol_now();
        self.iface.poll(at, &mut self.nic, &mut self.sockets);
        let failed = self.nic.neighbours.take_failed();
        for c in &mut self.connections {
            serve(c, self.sockets.get_mut(c.handle), &self.nic, &failed);
        }
        let at = self.smol_now();
        self.iface.poll(at, &mut self.nic, &mut self.sockets);
        // Only now: the reset of an aborted connection leaves with the poll above.
        for c in self.connections.extract_if(.., |c| c.over) {
            self.sockets.remove(c.handle);
        }
        let now = self.now();
        self.nic.put_out(now);
    }

    fn start(&mut self, job: Job) {
        match job {
            Job::Connect { to, deadline, reply } => {
                if let Err((e, reply)) = self.open(to, deadline, reply) {
                    // The asker may be gone.
                    let _ = reply.send(Err(e));
                }
            }
            Job::Probe { ip, deadline, reply } => self.probes.push(Probe {
                ip,
                deadline,
                again: Instant::now(),
                reply,
            }),
            Job::Announce(ip) => {
                let frame = self.nic.neighbours.announce(ip);
                self.nic.cable.push(&frame);
            }
            Job::Claim(ip, on) => self.nic.neighbours.claim(ip, on),
            #[cfg(test)]
            Job::Count(reply) => {
                let _ = reply.send(self.connections.len());
            }
        }
    }

    fn open(
        &mut self,
        to: SocketAddrV4,
        deadline: Deadline,
        reply: Sender<Result<UnixStream, ConnectError>>,
    ) -> Result<(), (ConnectError, Sender<Result<UnixStream, ConnectError>>)> {
        if self.connections.len() >= MAX_CONNECTIONS {
            return Err((ConnectError::TooMany(MAX_CONNECTIONS), reply));
        }
        let id = self.next_id;
        let pair = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            // Edge-triggered: a client that hung up while its data still waits must not keep us awake.
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            epoll::add(&self.poll, &ours, epoll::EventData::new_u64(id), flags)?;
            Ok((ours, theirs))
        });
        let (ours, theirs) = match pair {
            Ok(pair) => pair,
            Err(e) => return Err((ConnectError::Failed(e.to_string()), reply)),
        };
        let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(CongestionControl::Reno);
        let port = self.local_port();
        if let Err(e) = socket.connect(self.iface.context(), (*to.ip(), to.port()), port) {
            return Err((ConnectError::Failed(format!("{to}: {e}")), reply));
        }
        self.next_id += 1;
        let handle = self.sockets.add(socket);
        self.connections.push(Connection {
            id,
            handle,
            ours,
            opening: Some(Opening {
                to,
                begin: Instant::now(),
                deadline,
                reply,
                theirs,
            }),
            readable: false,
            writable: true,
            client_done: false,
            peer_done: false,
            until: None,
            over: false,
        });
        Ok(())
    }

    /// The next local port that no connection has: there are far more than connections.
    fn local_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = if port == *PORTS.end() { *PORTS.start() } else { port + 1 };
            let used = |c: &Connection| {
                self.sockets
                    .get::<Socket<'_>>(c.handle)
                    .local_endpoint()
                    .is_some_and(|e| e.port == port)
            };
            if !self.connections.iter().any(used) {
                return port;
            }
        }
    }

    /// Asks for probed addresses, once a second until the deadline.
    fn probe(&mut self) {
        let now = Instant::now();
        for p in self.probes.extract_if(.., |p| p.deadline.passed()) {
            let _ = p.reply.send(None);
        }
        for p in self.probes.iter_mut().filter(|p| p.again <= now) {
            p.again = now + Duration::from_secs(1);
            self.nic.cable.push(&self.nic.neighbours.probe(p.ip));
        }
    }

    /// How long nothing has to be done if nothing comes.
    fn wait(&mut self) -> Option<Duration> {
        let (now, at) = (self.now(), self.smol_now());
        let stack = self.iface.poll_delay(at, &self.sockets).map(Duration::from);
        let arp = self
            .nic
            .neighbours
            .next()
            .map(|n| Duration::from_nanos(n.saturating_sub(now)));
        let clock = Instant::now();
        let of = |c: &Connection| {
            let opening = c.opening.as_ref().map(|o| o.deadline.left());
            let until = c.until.map(|u| u.saturating_duration_since(clock));
            opening.into_iter().chain(until).min()
        };
        let connections = self.connections.iter().filter_map(of).min();
        let probe = |p: &Probe| p.again.saturating_duration_since(clock).min(p.deadline.left());
        let probes = self.probes.iter().map(probe).min();
        [stack, arp, connections, probes].into_iter().flatten().min()
    }
}

/// Moves the bytes of one connection and follows its states.
fn serve(c: &mut Connection, s: &mut Socket<'static>, nic: &Nic, failed: &[Ipv4Addr]) {
    if let Some(o) = c.opening.take() {
        let answer = match s.state() {
            State::SynSent | State::SynReceived if failed.contains(o.to.ip()) => {
                Err(ConnectError::Unreachable(*o.to.ip()))
            }
            State::SynSent | State::SynReceived if o.deadline.passed() => {
                let arp = nic.neighbours.asking(*o.to.ip());
                Err(ConnectError::TimedOut {
                    to: o.to,
                    waited: o.begin.elapsed(),
                    arp,
                })
            }
            State::SynSent | State::SynReceived => {
                c.opening = Some(o);
                return;
            }
            State::Closed => Err(ConnectError::Refused(o.to)),
            _ => Ok(o.theirs),
        };
        c.over = answer.is_err();
        c.readable = true;
        // Only from here on: before, the asker's deadline counts, and a time-out must not look like a refusal.
        s.set_timeout(Some(PEER_GONE));
        // An asker that went away drops the stream: seen below as a client that hung up.
        let _ = o.reply.send(answer);
    }
    if c.over {
        return;
    }
    to_client(c, s);
    from_client(c, s);
    if !c.peer_done && !s.may_recv() && s.recv_queue() == 0 {
        c.peer_done = true;
        // The client may have closed already.
        let _ = c.ours.shutdown(Shutdown::Write);
    }
    let done = c.client_done && c.peer_done && s.send_queue() == 0;
    if done {
        // Only acknowledgements are left.
        let soon = Instant::now() + LAST_ACKS;
        c.until = Some(c.until.map_or(soon, |u| u.min(soon)));
    }
    let late = c.until.is_some_and(|u| u <= Instant::now());
    if late && !done {
        s.abort();
    }
    // What came before the end is still the client's, however slowly it reads.
    c.over |= late || s.state() == State::Closed && s.recv_queue() == 0;
}

fn to_client(c: &mut Connection, s: &mut Socket<'static>) {
    while c.writable && s.can_recv() {
        let mut gone = false;
        let moved = s.recv(|data| match c.ours.write(data) {
            Ok(n) => (n, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => (0, 1),
            Err(e) => {
                gone = e.kind() != ErrorKind::WouldBlock;
                (0, 0)
            }
        });
        if gone {
            // No client will read what comes: the peer is reset at once, as by any host.
            s.abort();
            c.over = true;
            return;
        }
        if matches!(moved, Ok(0) | Err(_)) {
            c.writable = false;
        }
    }
}

fn from_client(c: &mut Connection, s: &mut Socket<'static>) {
    while c.readable && !c.client_done && s.can_send() {
        let mut end = false;
        let moved = s.send(|room| match c.ours.read(room) {
            Ok(0) => {
                end = true;
                (0, 0)
            }
            Ok(n) => (n, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => (0, 1),
            Err(e) => {
                end = e.kind() != ErrorKind::WouldBlock;
                (0, 0)
            }
        });
        if end {
            c.client_done = true;
            s.close();
            s.set_timeout(Some(LINGER.into()));
            return;
        }
        if matches!(moved, Ok(0) | Err(_)) {
            c.readable = false;
        }
    }
}
