//! How frames reach a machine: unix datagrams (QEMU's `dgram` network), or UDP on loopback (its `udp` network).
//!
//! One datagram is one Ethernet frame. Frames come and go in batches: a system call for each would cost half the speed.

use crate::event::monotonic_us;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrLike, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrUnix, sendmmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Frames that one system call takes.
pub const BATCH: usize = 64;
/// What we ask of the kernel as receive buffer of a port; it gives what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Frames to and from one machine on one network.
pub trait PortTransport: Send {
    /// Ready when frames can be received.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Takes what is there, at most a batch, without waiting.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;
    /// Hands over frames without waiting; how many of them, from the first, were taken.
    fn send(&mut self, frames: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Whether epoll tells when a peer that took no more takes frames again: what it did not take is worth keeping.
    fn tells_when_writable(&self) -> bool {
        false
    }
    /// The machine's process is another one from now on.
    fn renew(&mut self) {}
    /// UDP ports (ours, the machine's) under which the host's kernel counts what it dropped.
    fn host_ports(&self) -> Option<(u16, u16)> {
        None
    }
}

/// Buffers for one batch of received frames. Stays on the thread that made it.
pub struct Batch {
    buffers: Vec<u8>,
    room: usize,
    lens: Vec<usize>,
    foreign: u64,
    inet: MultiHeaders<SockaddrIn>,
    unix: MultiHeaders<()>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("lens", &self.lens)
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// Room for frames of at most `longest` bytes; a longer one arrives cut to one byte more and is seen as too long.
    pub fn new(longest: usize) -> Self {
        let room = longest + 1;
        Self {
            buffers: vec![0; room * BATCH],
            room,
            lens: Vec::with_capacity(BATCH),
            foreign: 0,
            inet: MultiHeaders::preallocate(BATCH, None),
            unix: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Forgets what it has.
    pub fn clear(&mut self) {
        self.lens.clear();
        self.foreign = 0;
    }

    /// Appends a frame, cut where it is too long; there must be room.
    pub fn push(&mut self, frame: &[u8]) {
        let at = self.lens.len() * self.room;
        let len = frame.len().min(self.room);
        self.buffers[at..at + len].copy_from_slice(&frame[..len]);
        self.lens.push(len);
    }

    /// How many datagrams were received; a foreign one has length 0.
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether nothing was there.
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// The frame at `i`; `None` for one that did not come from the port's machine.
    pub fn frame(&self, i: usize) -> Option<&[u8]> {
        let len = self.lens[i];
        (len != FOREIGN).then(|| &self.buffers[i * self.room..][..len])
    }

    /// How many datagrams of the last batch came from a stranger.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }
}

const FOREIGN: usize = usize::MAX;

/// What `receive` does on a socket whose senders are told apart by `is_sender`.
fn receive<S: SockaddrLike + Copy>(
    fd: BorrowedFd<'_>,
    headers: &mut MultiHeaders<S>,
    buffers: &mut [u8],
    room: usize,
    lens: &mut Vec<usize>,
    is_sender: impl Fn(Option<S>) -> bool,
) -> io::Result<u64> {
    lens.clear();
    let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers.chunks_mut(room).map(|b| [IoSliceMut::new(b)]).collect();
    let got = match recvmmsg(fd.as_raw_fd(), headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
        Ok(got) => got,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(0),
        Err(e) => return Err(e.into()),
    };
    let mut foreign = 0;
    for m in got {
        let mine = is_sender(m.address);
        foreign += u64::from(!mine);
        lens.push(if mine { m.bytes } else { FOREIGN });
    }
    Ok(foreign)
}

/// Sends to `to`, or to the connected peer.
fn send(fd: BorrowedFd<'_>, to: Option<&SocketAddrAny>, frames: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut none: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = frames
        .iter()
        .zip(&mut none)
        .map(|(f, none)| match to {
            Some(to) => MMsgHdr::new_with_addr(to, std::slice::from_ref(f), none),
            None => MMsgHdr::new(std::slice::from_ref(f), none),
        })
        .collect();
    match sendmmsg(fd, &mut messages, SendFlags::DONTWAIT) {
        Ok(n) => Ok(n),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// A machine's port: QEMU binds 127.0.0.1:`local` and sends to ours.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    fabric: u16,
    local: SocketAddrV4,
    to: SocketAddrAny,
}

impl Udp {
    /// Over `socket` (bound on loopback) to the machine at `local`.
    pub fn new(socket: UdpSocket, local: u16) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let fabric = socket.local_addr()?.port();
        // Root may go over the host's limit; where that is refused the limit itself is what we get.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, local);
        Ok(Self {
            socket,
            fabric,
            local,
            to: local.into(),
        })
    }
}

impl PortTransport for Udp {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
    fn receive(&mut self, b: &mut Batch) -> io::Result<()> {
        let local = self.local;
        b.foreign = receive(
            self.socket.as_fd(),
            &mut b.inet,
            &mut b.buffers,
            b.room,
            &mut b.lens,
            |from| from.is_some_and(|a| SocketAddrV4::from(a) == local),
        )?;
        Ok(())
    }
    fn send(&mut self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.socket.as_fd(), Some(&self.to), frames)
    }
    fn host_ports(&self) -> Option<(u16, u16)> {
        Some((self.fabric, self.local.port()))
    }
}

/// A machine's port over unix datagrams: QEMU binds a socket of its own and sends to ours, both by path.
///
/// The kernel drops nothing, and each side waits for the other: QEMU until we have read, we until QEMU has. Our socket is
/// connected to QEMU's, for three reasons. QEMU may then have as much under way as its send buffer holds; to a socket that is
/// connected to nobody it may have `net.unix.max_dgram_qlen` frames (10 on many hosts), and polls hot while these wait. epoll
/// tells us when QEMU takes frames again. And nobody else can send to it, not even a process of the same user.
#[derive(Debug)]
pub struct Unix {
    socket: UnixDatagram,
    ours: PathBuf,
    machine: SocketAddrUnix,
    connected: bool,
}

impl Unix {
    /// Bound to `ours`, in place of what a fabric before us left there, to the machine at `machine`.
    pub fn bind(ours: &Path, machine: &Path) -> io::Result<Self> {
        match std::fs::remove_file(ours) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = UnixDatagram::bind(ours)?;
        std::fs::set_permissions(ours, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        let mut this = Self {
            socket,
            ours: ours.to_owned(),
            machine: SocketAddrUnix::new(machine)?,
            connected: false,
        };
        this.connect();
        Ok(this)
    }

    /// Whether the machine is there.
    fn connect(&mut self) -> bool {
        self.connected = self.connected || rustix::net::connect(&self.socket, &self.machine).is_ok();
        self.connected
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // Nobody finds a socket that nobody reads; the folder goes with the lab.
        let _ = std::fs::remove_file(&self.ours);
    }
}

impl PortTransport for Unix {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
    fn receive(&mut self, b: &mut Batch) -> io::Result<()> {
        let fd = self.socket.as_fd();
        b.foreign = receive(fd, &mut b.unix, &mut b.buffers, b.room, &mut b.lens, |_| true)?;
        if !self.connected && !b.is_empty() {
            self.connect();
        }
        Ok(())
    }
    fn send(&mut self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.connect() {
            match send(self.socket.as_fd(), None, frames) {
                Err(e) if gone(&e) => self.connected = false,
                sent => return sent,
            }
        }
        // A cable with nobody at its end takes everything, as over UDP.
        Ok(frames.len())
    }
    fn tells_when_writable(&self) -> bool {
        true
    }
    fn renew(&mut self) {
        // Connected to a socket that is no more, ours would refuse the new machine's frames. The first frame connects it.
        self.connected = rustix::net::connect_unspec(&self.socket).is_err() && self.connected;
    }
}

/// Whether this error of a send says that the peer is no more.
fn gone(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotConnected};
    matches!(e.kind(), ConnectionRefused | ConnectionReset | NotConnected)
}

/// A bound UDP port on loopback below the range that the kernel hands out by itself, so that no other socket is given it
/// between our choice and QEMU's bind. A busy one is passed over.
pub fn free_udp() -> io::Result<UdpSocket> {
    const FIRST: u64 = 20_000;
    const COUNT: u64 = 12_000;
    // The start differs from process to process, so that two labs that start at once seldom meet.
    let start = monotonic_us()
        .wrapping_mul(31)
        .wrapping_add(u64::from(std::process::id()) * 7919);
    let mut last = None;
    for i in 0..COUNT {
        let port = FIRST + (start + i) % COUNT;
        match UdpSocket::bind((Ipv4Addr::LOCALHOST, port as u16)) {
            Ok(s) => return Ok(s),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(t: &mut impl PortTransport, b: &mut Batch) -> Vec<Option<Vec<u8>>> {
        t.receive(b).unwrap();
        (0..b.len()).map(|i| b.frame(i).map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn datagrams_of_strangers_are_told_apart_and_long_ones_are_seen() {
        let machine = free_udp().unwrap();
        let mut t = Udp::new(free_udp().unwrap(), machine.local_addr().unwrap().port()).unwrap();
        let at = t.socket.local_addr().unwrap();
        let mut b = Batch::new(100);
        assert!(drain(&mut t, &mut b).is_empty());
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        machine.send_to(b"one", at).unwrap();
        stranger.send_to(b"two", at).unwrap();
        machine.send_to(&[7; 300], at).unwrap();
        machine.send_to(b"", at).unwrap();
        let got = drain(&mut t, &mut b);
        assert_eq!(got, [Some(b"one".to_vec()), None, Some(vec![7; 101]), Some(Vec::new())]);
        assert_eq!(b.foreign(), 1);
    }

    #[test]
    fn a_batch_arrives_whole() {
        let machine = free_udp().unwrap();
        machine.set_nonblocking(true).unwrap();
        let mut udp = Udp::new(free_udp().unwrap(), machine.local_addr().unwrap().port()).unwrap();
        let frames: Vec<Vec<u8>> = (0..10u8).map(|n| vec![n; 60]).collect();
        let slices: Vec<IoSlice<'_>> = frames.iter().map(|f| IoSlice::new(f)).collect();
        let mut buf = [0; 100];
        assert_eq!(udp.send(&slices).unwrap(), 10);
        for f in &frames {
            assert_eq!(machine.recv(&mut buf).unwrap(), 60);
            assert_eq!(buf[..60], f[..]);
        }
    }

    #[test]
    fn a_machine_that_is_gone_is_no_error() {
        let gone = free_udp().unwrap().local_addr().unwrap().port();
        let mut udp = Udp::new(free_udp().unwrap(), gone).unwrap();
        for _ in 0..3 {
            assert_eq!(udp.send(&[IoSlice::new(&[1; 60])]).unwrap(), 1);
        }
        assert!(drain(&mut udp, &mut Batch::new(100)).is_empty());
    }

    /// A machine's end of a cable, as QEMU has it: bound, connected to nobody.
    fn qemu(dir: &Path) -> UnixDatagram {
        let _ = std::fs::remove_file(dir.join("q"));
        let socket = UnixDatagram::bind(dir.join("q")).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn cable(dir: &Path) -> Unix {
        Unix::bind(&dir.join("f"), &dir.join("q")).unwrap()
    }

    #[test]
    fn unix_datagrams_wait_for_the_reader_in_both_directions() {
        let dir = tempfile::tempdir().unwrap();
        let machine = qemu(dir.path());
        let mut t = cable(dir.path());
        let frame = [7; 1514];
        let slices = [IoSlice::new(&frame); 8];
        let mut taken = 0;
        let taken = loop {
            match t.send(&slices).unwrap() {
                0 => break taken,
                n => taken += n,
            }
        };
        assert!(taken > 0);
        let mut buf = [0; 2000];
        let got = std::iter::from_fn(|| machine.recv(&mut buf).ok()).count();
        assert_eq!(got, taken, "nothing is lost, nothing is there twice");
        assert!(t.send(&slices).unwrap() > 0, "it takes frames again");
        // And the other way: far more than a queue that nobody is connected to would hold.
        let mut sent = 0;
        while machine.send_to(&frame, dir.path().join("f")).is_ok() {
            sent += 1;
        }
        assert!(sent > 50, "{sent}");
        let (mut b, mut seen) = (Batch::new(1514), 0);
        loop {
            t.receive(&mut b).unwrap();
            if b.is_empty() {
                break;
            }
            seen += b.len();
            assert!((0..b.len()).all(|i| b.frame(i) == Some(&frame[..])));
        }
        assert_eq!(seen, sent);
    }

    #[test]
    fn a_machine_that_goes_and_comes_again_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut t = cable(dir.path());
        let mut b = Batch::new(100);
        let slices = [IoSlice::new(&[1; 60])];
        assert_eq!(t.send(&slices).unwrap(), 1, "nobody is there: a wire into nothing");
        let first = qemu(dir.path());
        assert_eq!(t.send(&slices).unwrap(), 1);
        assert_eq!(first.recv(&mut [0; 100]).unwrap(), 60);
        drop(first);
        assert_eq!(t.send(&slices).unwrap(), 1, "it is gone, and nothing fails");
        let second = qemu(dir.path());
        assert_eq!(t.send(&slices).unwrap(), 1);
        assert_eq!(second.recv(&mut [0; 100]).unwrap(), 60);
        // One that is replaced while nothing is sent to it is heard because we are told.
        drop(second);
        let third = qemu(dir.path());
        assert!(third.send_to(b"deaf", dir.path().join("f")).is_err());
        t.renew();
        third.send_to(b"hear", dir.path().join("f")).unwrap();
        assert_eq!(drain(&mut t, &mut b), [Some(b"hear".to_vec())]);
        assert!(t.connected);
    }

    #[test]
    fn nobody_else_can_send_to_a_connected_cable_and_the_next_fabric_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let machine = qemu(dir.path());
        let t = cable(dir.path());
        let stranger = UnixDatagram::unbound().unwrap();
        let refused = stranger.send_to(b"forged", dir.path().join("f")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        // A fabric that was killed leaves its file.
        std::mem::forget(t);
        let mut next = cable(dir.path());
        machine.send_to(b"again", dir.path().join("f")).unwrap();
        assert_eq!(drain(&mut next, &mut Batch::new(100)), [Some(b"again".to_vec())]);
        drop(next);
        assert!(!dir.path().join("f").exists());
        assert!(Unix::bind(&dir.path().join("x".repeat(108)), &dir.path().join("q")).is_err());
    }
}
