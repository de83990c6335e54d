//! How frames reach a machine: UDP on loopback (QEMU's `udp` network), or unix datagrams (the workstation's own port).
//!
//! One datagram is one Ethernet frame. Frames come and go in batches: a system call for each would cost half the speed.

use crate::event::monotonic_us;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrLike, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

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
    /// The machine is at another UDP port from now on.
    fn retarget(&mut self, _local: u16) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
    fn retarget(&mut self, local: u16) -> io::Result<()> {
        self.local.set_port(local);
        self.to = self.local.into();
        Ok(())
    }
    fn host_ports(&self) -> Option<(u16, u16)> {
        Some((self.fabric, self.local.port()))
    }
}

/// A port over a connected pair of unix datagram sockets: no UDP ports, no other process can reach it, the kernel drops nothing.
#[derive(Debug)]
pub struct Unix(UnixDatagram);

impl Unix {
    /// Over one end of a pair (or a socket that is connected to its machine).
    pub fn new(socket: UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl PortTransport for Unix {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn receive(&mut self, b: &mut Batch) -> io::Result<()> {
        b.foreign = receive(self.0.as_fd(), &mut b.unix, &mut b.buffers, b.room, &mut b.lens, |_| {
            true
        })?;
        Ok(())
    }
    fn send(&mut self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.0.as_fd(), None, frames)
    }
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
    fn a_batch_arrives_whole_on_either_transport() {
        let machine = free_udp().unwrap();
        machine.set_nonblocking(true).unwrap();
        let mut udp = Udp::new(free_udp().unwrap(), machine.local_addr().unwrap().port()).unwrap();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut unix = Unix::new(ours).unwrap();
        let frames: Vec<Vec<u8>> = (0..10u8).map(|n| vec![n; 60]).collect();
        let slices: Vec<IoSlice<'_>> = frames.iter().map(|f| IoSlice::new(f)).collect();
        let mut buf = [0; 100];
        assert_eq!(udp.send(&slices).unwrap(), 10);
        for f in &frames {
            assert_eq!(machine.recv(&mut buf).unwrap(), 60);
            assert_eq!(buf[..60], f[..]);
        }
        let mut sent = unix.send(&slices).unwrap();
        assert!(sent > 0);
        for f in &frames[..sent] {
            assert_eq!(theirs.recv(&mut buf).unwrap(), 60);
            assert_eq!(buf[..60], f[..]);
        }
        // A full queue takes no more and does not block.
        loop {
            match unix.send(&slices).unwrap() {
                0 => break,
                n => sent += n,
            }
        }
        assert!(sent > 10);
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
}
