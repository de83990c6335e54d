//! Two machines without guests: they send frames to each other through whatever is measured, and count.

use failoverlab::hypervisor::Cable;
use failoverlab::wait::pause;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrUnix, sendmmsg, sendto};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Frames that may be under way: as many as a default socket buffer holds of the long ones.
const WINDOW: u64 = 64;
const BATCH: usize = 32;
const MEASURE: Duration = Duration::from_millis(800);

/// A machine's end of a cable.
pub enum Wire {
    Udp(UdpSocket),
    /// With the address of the other end where it is, like QEMU's, connected to nobody.
    Unix(UnixDatagram, Option<SocketAddrAny>),
}

impl Wire {
    /// The end that QEMU has: bound to its own side, sending to the fabric's.
    pub fn plug(cable: &Cable) -> io::Result<Self> {
        match cable {
            Cable::Udp { fabric, local } => {
                let s = UdpSocket::bind((Ipv4Addr::LOCALHOST, *local))?;
                s.connect((Ipv4Addr::LOCALHOST, *fabric))?;
                Ok(Self::Udp(s))
            }
            Cable::Unix { fabric, local } => {
                let to = SocketAddrUnix::new(fabric)?;
                Ok(Self::Unix(UnixDatagram::bind(local)?, Some(to.into())))
            }
        }
    }
    /// Two that are connected to each other.
    pub fn direct() -> io::Result<(Self, Self)> {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        a.connect(b.local_addr()?)?;
        b.connect(a.local_addr()?)?;
        Ok((Self::Udp(a), Self::Udp(b)))
    }
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Udp(s) => s.as_fd(),
            Wire::Unix(s, _) => s.as_fd(),
        }
    }
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Udp(s) => s.send(bytes),
            Wire::Unix(s, None) => s.send(bytes),
            Wire::Unix(s, Some(to)) => Ok(sendto(s, bytes, SendFlags::empty(), to)?),
        }
    }
    fn wait(&self, d: Duration) -> io::Result<()> {
        match self {
            Wire::Udp(s) => s.set_read_timeout(Some(d)),
            Wire::Unix(s, _) => s.set_read_timeout(Some(d)),
        }
    }
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Udp(s) => s.recv(buf),
            Wire::Unix(s, _) => s.recv(buf),
        }
    }
}

/// An IPv4 UDP frame of `len` bytes from node0 to node1.
pub fn frame(len: usize) -> Vec<u8> {
    between(1, 0, len)
}

fn between(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut f = vec![0; len];
    f[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, from]);
    f[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    f[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    f[23] = 17;
    f[34..38].copy_from_slice(&[0, 9, 0, 9]);
    f
}

/// Lets a switch learn both.
pub fn introduce(a: &Wire, b: &Wire) -> io::Result<()> {
    let mut buf = [0; 2048];
    for (from, to, f) in [(a, b, between(1, 0, 64)), (b, a, between(0, 1, 64))] {
        to.wait(Duration::from_secs(5))?;
        from.send(&f)?;
        to.receive(&mut buf)?;
    }
    Ok(())
}

/// Frames a second from `a` to `b` with a bounded number under way, and the nanoseconds of processor time that the thread
/// `switch` of this process took for each: what other work on the host does not change much.
pub fn throughput(a: &Wire, b: &Wire, size: usize, switch: &str) -> (f64, f64) {
    let (sent, got, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    b.wait(Duration::from_millis(50)).expect("a socket takes a time-out");
    std::thread::scope(|s| {
        s.spawn(|| receive(b, &sent, &got, &stop));
        s.spawn(|| send(a, size, &sent, &got, &stop));
        let warm = Duration::from_millis(100);
        pause(warm);
        let (begin, first, used) = (Instant::now(), got.load(Ordering::Relaxed), cpu_ns(switch));
        pause(MEASURE);
        let n = (got.load(Ordering::Relaxed) - first) as f64;
        let (seconds, used) = (begin.elapsed().as_secs_f64(), cpu_ns(switch) - used);
        stop.store(true, Ordering::Relaxed);
        (n / seconds, used / n)
    })
}

/// Processor time of this process's threads of this name, in nanoseconds.
fn cpu_ns(name: &str) -> f64 {
    let of = |task: std::path::PathBuf| {
        let read = |file| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        let ours = read("comm").trim_end() == name;
        let ns = read("schedstat").split(' ').next().and_then(|n| n.parse::<f64>().ok());
        ns.filter(|_| ours).unwrap_or(0.0)
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|t| of(t.path())).sum()
}

fn send(a: &Wire, size: usize, sent: &AtomicU64, got: &AtomicU64, stop: &AtomicBool) {
    let f = frame(size);
    let slices = [IoSlice::new(&f)];
    while !stop.load(Ordering::Relaxed) {
        let under_way = sent.load(Ordering::Relaxed).saturating_sub(got.load(Ordering::Relaxed));
        let room = WINDOW.saturating_sub(under_way).min(BATCH as u64) as usize;
        if room < BATCH {
            std::thread::yield_now();
            continue;
        }
        let mut none: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            (0..room).map(|_| SendAncillaryBuffer::default()).collect();
        let message = |n| match a {
            Wire::Udp(_) | Wire::Unix(_, None) => MMsgHdr::new(&slices, n),
            Wire::Unix(_, Some(to)) => MMsgHdr::new_with_addr(to, &slices, n),
        };
        let mut messages: Vec<MMsgHdr<'_>> = none.iter_mut().map(message).collect();
        // A refused send (a full peer) is tried again.
        if let Ok(n) = sendmmsg(a.fd(), &mut messages, SendFlags::empty()) {
            sent.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

fn receive(b: &Wire, sent: &AtomicU64, got: &AtomicU64, stop: &AtomicBool) {
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let mut buffers = vec![0u8; BATCH * 2048];
    while !stop.load(Ordering::Relaxed) {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers.chunks_mut(2048).map(|c| [IoSliceMut::new(c)]).collect();
        match recvmmsg(
            b.fd().as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        ) {
            Ok(n) => {
                got.fetch_add(n.count() as u64, Ordering::Relaxed);
            }
            // Nothing for 50 ms: what was under way is lost; the sender goes on.
            Err(_) => sent.store(got.load(Ordering::Relaxed), Ordering::Relaxed),
        }
    }
}

/// One-way times in microseconds of frames that are sent `gap` apart.
pub fn one_way(a: &Wire, b: &Wire, n: usize, gap: Duration) -> Vec<f64> {
    let zero = Instant::now();
    b.wait(Duration::from_secs(2)).expect("a socket takes a time-out");
    let mut times = std::thread::scope(|s| {
        s.spawn(|| {
            let mut f = frame(100);
            for _ in 0..n {
                let now = zero.elapsed().as_nanos() as u64;
                f[50..58].copy_from_slice(&now.to_le_bytes());
                let _ = a.send(&f);
                pause(gap);
            }
        });
        let (mut times, mut buf) = (Vec::new(), [0; 2048]);
        while times.len() < n {
            // A lost frame ends the measurement early.
            if b.receive(&mut buf).is_err() {
                break;
            }
            let now = zero.elapsed().as_nanos() as u64;
            let sent = u64::from_le_bytes(buf[50..58].try_into().expect("eight bytes"));
            times.push((now - sent) as f64 / 1000.0);
        }
        times
    });
    times.sort_by(f64::total_cmp);
    times
}

/// The value below which the share `p` of sorted values lies.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted
        .get(((sorted.len() as f64 * p) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(values, 0.5)
}
