//! Between nodes: datagrams for heartbeats, and streams of frames.
//!
//! Sockets are bound to this node's own addresses, also outgoing ones, because a peer knows nodes by their addresses. They
//! are bound whether or not the address is there at the moment: an interface that loses its carrier may lose its address.

use ccr_core::io::{ConnId, Input};
use ccr_core::wire::{MAX_DATAGRAM, MAX_FRAME};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

/// Bytes that may wait to be sent on one stream. Beyond, the peer counts as lost.
const MAX_WAITING: usize = 16 << 20;
/// Streams that peers may have open to us.
const MAX_ACCEPTED: usize = 32;
/// After this long without an acknowledgement of sent bytes a stream is dead.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet stream is probed after this, and again as often.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// Probes without an answer after which a quiet stream is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A pause before a listener that failed is asked again: it is out of file descriptors, most likely, and some will be closed.
pub async fn after_failed_accept() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Binds a TCP socket to an own address that need not be there yet.
pub fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    rustix::net::sockopt::set_ip_freebind(&socket, true)?;
    socket.bind(SocketAddrV4::new(address, port).into())?;
    socket.listen(128)
}

/// Connects from an own address, within `timeout`.
pub async fn connect(from: Option<Ipv4Addr>, to: SocketAddrV4, timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddrV4::new(from, 0).into())?;
    }
    let stream = match tokio::time::timeout(timeout, socket.connect(to.into())).await {
        Ok(connected) => connected?,
        Err(_) => {
            let why = format!("no connection to {to} within {} ms", timeout.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    };
    watch(&stream)?;
    Ok(stream)
}

/// Makes the kernel notice a peer that is gone.
pub fn watch(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}

/// The heartbeat sockets, one for each network.
#[derive(Debug)]
pub struct Datagrams {
    sockets: HashMap<String, Arc<UdpSocket>>,
    port: u16,
}

impl Datagrams {
    /// Binds to our address on each network. What arrives goes to `inputs`; what finds that full is lost, as datagrams are.
    pub fn start(addresses: &[(String, Ipv4Addr)], port: u16, inputs: &mpsc::Sender<Input>) -> io::Result<Self> {
        let mut sockets = HashMap::new();
        for (network, address) in addresses {
            let socket = Arc::new(udp(*address, port)?);
            tokio::spawn(receive(socket.clone(), network.clone(), inputs.clone()));
            sockets.insert(network.clone(), socket);
        }
        Ok(Self { sockets, port })
    }

    /// Sends now or not at all.
    pub fn send(&self, network: &str, to: Ipv4Addr, bytes: &[u8]) {
        if let Some(socket) = self.sockets.get(network) {
            // A datagram that cannot leave is a lost one: the core knows no other kind of failure.
            let to = SocketAddrV4::new(to, self.port);
            let _ = rustix::net::sendto(socket, bytes, rustix::net::SendFlags::empty(), &to);
        }
    }
}

fn udp(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    sockopt::set_ip_freebind(&fd, true)?;
    bind(&fd, &SocketAddrV4::new(address, port))?;
    UdpSocket::from_std(std::net::UdpSocket::from(fd))
}

async fn receive(socket: Arc<UdpSocket>, network: String, inputs: mpsc::Sender<Input>) {
    // One byte more than allowed, so that a larger one is recognised.
    let mut buffer = [0u8; MAX_DATAGRAM + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((n, SocketAddr::V4(from))) if n <= MAX_DATAGRAM => {
                let datagram = Input::Datagram {
                    network: network.clone(),
                    from: *from.ip(),
                    bytes: buffer[..n].to_vec(),
                };
                if let Err(mpsc::error::TrySendError::Closed(_)) = inputs.try_send(datagram) {
                    return;
                }
            }
            Ok(_) => {}
            // An answer of ICMP to something sent before; the socket itself is well.
            Err(_) if inputs.is_closed() => return,
            // Should it go on failing, the other tasks have their turn.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// The streams of frames.
#[derive(Debug)]
pub struct Streams {
    open: HashMap<ConnId, Outbox>,
    inputs: mpsc::Sender<Input>,
    accepted: mpsc::UnboundedSender<(ConnId, Outbox)>,
    newly_accepted: mpsc::UnboundedReceiver<(ConnId, Outbox)>,
    runtime: Handle,
}

/// The way to the task of one stream.
#[derive(Debug)]
struct Outbox {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    task: Option<tokio::task::AbortHandle>,
}

impl Streams {
    /// What arrives goes to `inputs`, which holds a peer back when it is full.
    pub fn new(inputs: mpsc::Sender<Input>, runtime: Handle) -> Self {
        let (accepted, newly_accepted) = mpsc::unbounded_channel();
        Self {
            open: HashMap::new(),
            inputs,
            accepted,
            newly_accepted,
            runtime,
        }
    }

    /// Accepts peers' streams on one address.
    pub fn accept_on(&self, listener: TcpListener, numbers: Arc<AtomicU64>, room: Arc<Semaphore>) {
        let (inputs, accepted) = (self.inputs.clone(), self.accepted.clone());
        self.runtime.spawn(async move {
            loop {
                let (stream, from) = match listener.accept().await {
                    Ok((stream, SocketAddr::V4(from))) => (stream, *from.ip()),
                    Ok(_) => continue,
                    Err(_) => {
                        after_failed_accept().await;
                        continue;
                    }
                };
                let Ok(permit) = room.clone().try_acquire_owned() else {
                    continue;
                };
                if watch(&stream).is_err() {
                    continue;
                }
                let conn = ConnId::Accepted(numbers.fetch_add(1, Ordering::Relaxed));
                let (outbox, frames) = outbox();
                let waiting = outbox.waiting.clone();
                // The outbox first: the core may answer at once.
                if accepted.send((conn, outbox)).is_err() || inputs.send(Input::Accepted { conn, from }).await.is_err()
                {
                    return;
                }
                let inputs = inputs.clone();
                tokio::spawn(async move {
                    let error = carry(stream, conn, frames, waiting, &inputs).await;
                    let _ = inputs.send(Input::Closed { conn, error }).await;
                    drop(permit);
                });
            }
        });
    }

    /// How many peers' streams there may be.
    pub fn room() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_ACCEPTED))
    }

    /// Opens a stream; the outcome comes as an input.
    pub fn connect(&mut self, conn: ConnId, from: Option<Ipv4Addr>, to: SocketAddrV4, timeout: Duration) {
        let (mut outbox, frames) = outbox();
        let (waiting, inputs) = (outbox.waiting.clone(), self.inputs.clone());
        let task = self.runtime.spawn(async move {
            let error = match connect(from, to, timeout).await {
                Ok(stream) => {
                    // Given up meanwhile: the core must not hear of it as open.
                    if frames.is_closed() || inputs.send(Input::Connected { conn }).await.is_err() {
                        return;
                    }
                    carry(stream, conn, frames, waiting, &inputs).await
                }
                Err(e) => e.to_string(),
            };
            let _ = inputs.send(Input::Closed { conn, error }).await;
        });
        outbox.task = Some(task.abort_handle());
        self.open.insert(conn, outbox);
    }

    /// Sends a frame, if the stream is open.
    pub fn send(&mut self, conn: ConnId, frame: Vec<u8>) {
        self.take_accepted();
        let Some(outbox) = self.open.get(&conn) else {
            return;
        };
        let waiting = outbox.waiting.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
        if waiting > MAX_WAITING || frame.len() > MAX_FRAME {
            // The task sees its outbox closed, and tells the core.
            self.open.remove(&conn);
        } else {
            let _ = outbox.frames.send(frame);
        }
    }

    /// Closes a stream: what was sent before still leaves, if the peer takes it.
    pub fn disconnect(&mut self, conn: ConnId) {
        self.take_accepted();
        self.open.remove(&conn);
    }

    /// The core has been told that the stream is closed.
    pub fn closed(&mut self, conn: ConnId) {
        self.take_accepted();
        if let Some(task) = self.open.remove(&conn).and_then(|o| o.task) {
            task.abort();
        }
    }

    fn take_accepted(&mut self) {
        while let Ok((conn, outbox)) = self.newly_accepted.try_recv() {
            self.open.insert(conn, outbox);
        }
    }
}

fn outbox() -> (Outbox, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (frames, rest) = mpsc::unbounded_channel();
    let outbox = Outbox {
        frames,
        waiting: Arc::default(),
        task: None,
    };
    (outbox, rest)
}

/// Carries frames both ways until either side ends. Says why it ended.
async fn carry(
    stream: TcpStream,
    conn: ConnId,
    mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    inputs: &mpsc::Sender<Input>,
) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let reading = async {
        loop {
            let bytes = match frame(&mut reader).await {
                Ok(bytes) => bytes,
                Err(e) => return e.to_string(),
            };
            if inputs.send(Input::Frame { conn, bytes }).await.is_err() {
                return "the daemon ends".to_owned();
            }
        }
    };
    let writing = async {
        while let Some(frame) = frames.recv().await {
            let mut whole = (frame.len() as u32).to_be_bytes().to_vec();
            whole.extend_from_slice(&frame);
            let written = writer.write_all(&whole).await;
            waiting.fetch_sub(frame.len(), Ordering::Relaxed);
            if let Err(e) = written {
                return e.to_string();
            }
        }
        let _ = writer.shutdown().await;
        "closed on this side".to_owned()
    };
    tokio::select! {
        why = reading => why,
        why = writing => why,
    }
}

/// One frame: four bytes of length, most significant first, and the bytes. A liar's length allocates nothing.
async fn frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = reader.read_u32().await? as usize;
    if length > MAX_FRAME {
        let why = format!("a frame of {length} bytes; at most {MAX_FRAME} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = Vec::new();
    reader.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ME: Ipv4Addr = Ipv4Addr::LOCALHOST;

    async fn next(inputs: &mut mpsc::Receiver<Input>) -> Input {
        tokio::time::timeout(Duration::from_secs(10), inputs.recv())
            .await
            .expect("an input in time")
            .expect("an open channel")
    }

    struct Pair {
        near: Streams,
        near_inputs: mpsc::Receiver<Input>,
        far: Streams,
        far_inputs: mpsc::Receiver<Input>,
        at: SocketAddrV4,
    }

    fn pair() -> Pair {
        let (near_tx, near_inputs) = mpsc::channel(4);
        let (far_tx, far_inputs) = mpsc::channel(4);
        let near = Streams::new(near_tx, Handle::current());
        let far = Streams::new(far_tx, Handle::current());
        let listener = listen(ME, 0).unwrap();
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
            panic!()
        };
        far.accept_on(listener, Arc::default(), Streams::room());
        Pair {
            near,
            near_inputs,
            far,
            far_inputs,
            at,
        }
    }

    #[tokio::test]
    async fn frames_go_both_ways_in_order() {
        let mut p = pair();
        let dialled = ConnId::Dialled(1);
        p.near.connect(dialled, Some(ME), p.at, Duration::from_secs(5));
        assert!(matches!(next(&mut p.near_inputs).await, Input::Connected { conn } if conn == dialled));
        let Input::Accepted { conn, from } = next(&mut p.far_inputs).await else {
            panic!()
        };
        assert_eq!(from, ME);
        for n in 0..50u8 {
            p.near.send(dialled, vec![n; usize::from(n) * 1000]);
            p.far.send(conn, vec![n]);
        }
        for n in 0..50u8 {
            assert!(
                matches!(next(&mut p.far_inputs).await, Input::Frame { bytes, .. } if bytes == vec![n; usize::from(n) * 1000])
            );
            assert!(matches!(next(&mut p.near_inputs).await, Input::Frame { bytes, .. } if bytes == [n]));
        }
        p.near.disconnect(dialled);
        assert!(matches!(next(&mut p.far_inputs).await, Input::Closed { .. }));
    }

    #[tokio::test]
    async fn a_refused_connection_is_told() {
        let mut p = pair();
        let nowhere = SocketAddrV4::new(ME, 1);
        p.near
            .connect(ConnId::Dialled(1), None, nowhere, Duration::from_secs(5));
        assert!(matches!(next(&mut p.near_inputs).await, Input::Closed { error, .. } if error.contains("refused")));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_lost_and_memory_is_bounded() {
        let mut p = pair();
        let listener = listen(ME, 0).unwrap();
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
            panic!()
        };
        let conn = ConnId::Dialled(7);
        p.near.connect(conn, None, at, Duration::from_secs(5));
        let (_kept, _) = listener.accept().await.unwrap();
        assert!(matches!(next(&mut p.near_inputs).await, Input::Connected { .. }));
        for _ in 0..40 {
            p.near.send(conn, vec![0; 1 << 20]);
        }
        assert!(!p.near.open.contains_key(&conn));
    }

    #[tokio::test]
    async fn hostile_frames_end_the_stream() {
        for (bytes, word) in [
            (&[0xff; 4][..], "at most"),
            (b"GET / HTTP/1.1\r\n\r\n", "at most"),
            (&[0, 0, 0, 9, 1, 2], "end of file"),
            (&[0, 0], "end of file"),
        ] {
            let mut p = pair();
            let mut s = TcpStream::connect(p.at).await.unwrap();
            s.write_all(bytes).await.unwrap();
            drop(s);
            assert!(matches!(next(&mut p.far_inputs).await, Input::Accepted { .. }));
            let Input::Closed { error, .. } = next(&mut p.far_inputs).await else {
                panic!()
            };
            assert!(error.contains(word), "{error}");
        }
    }

    #[tokio::test]
    async fn datagrams_name_their_network() {
        let (tx, mut rx) = mpsc::channel(4);
        let free = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (a, b) = (Ipv4Addr::new(127, 0, 7, 1), Ipv4Addr::new(127, 0, 7, 2));
        let d = Datagrams::start(&[("public".into(), a), ("private".into(), b)], free, &tx).unwrap();
        d.send("public", b, b"beat");
        let Input::Datagram { network, from, bytes } = next(&mut rx).await else {
            panic!()
        };
        assert_eq!((network.as_str(), from, &bytes[..]), ("private", a, &b"beat"[..]));
        d.send("nowhere", b, b"x");
        // Too large by one: dropped here, and the next one still comes.
        let s = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        s.send_to(&[0; MAX_DATAGRAM + 1], (b, free)).unwrap();
        s.send_to(&[1], (b, free)).unwrap();
        assert!(matches!(next(&mut rx).await, Input::Datagram { bytes, .. } if bytes == [1]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let got = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(frame(&mut &bytes[..]));
            if let Ok(f) = got {
                prop_assert_eq!(&bytes[4..4 + f.len()], &f[..]);
            }
        }
    }
}
