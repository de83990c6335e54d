use super::*;
use crate::event::Journal;
use crate::fabric::transport::{Batch, PortTransport, Udp};
use crate::fabric::{Control, Effect, Fabric, FabricConfig, Match, NetworkConfig, Rule, RuleOwner};
use crate::units::Percent;
use crate::wait::{Probe, wait_until};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 21);

fn in_s(s: u64) -> Deadline {
    Deadline::after(Duration::from_secs(s))
}

fn config_of_lab() -> FabricConfig {
    FabricConfig {
        networks: vec![NetworkConfig {
            name: "public".into(),
            mtu: 1500,
            workstation: Some(([10, 77, 1, 2].into(), 24)),
        }],
        ports: ["a", "b"].map(|n| peer::port("public", n)).to_vec(),
        ..FabricConfig::default()
    }
}

/// A lab network on which the workstation is, and real Linux-like peers made of smoltcp listeners ([`peer`]).
fn lab() -> (Fabric, Arc<LabHost>, peer::Cables) {
    let config = config_of_lab();
    let fabric = Fabric::start(config, Journal::in_memory()).unwrap();
    let cables = peer::Cables::of(&fabric);
    let host = fabric.host("public").unwrap();
    (fabric, host, cables)
}

/// A guest: a smoltcp host of its own behind a UDP port, as QEMU would be.
mod peer {
    use super::*;
    use crate::fabric::{PortAssignment, PortConfig};
    use crate::hypervisor::Cable;
    use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
    use smoltcp::phy::{DeviceCapabilities, Medium, RxToken, TxToken};
    use smoltcp::socket::tcp;
    use smoltcp::time::Instant as At;
    use smoltcp::wire::{EthernetAddress, IpCidr};
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, Ordering};

    pub fn port(network: &str, node: &str) -> PortConfig {
        let mac = Mac([2, 0, 0, 0, 0, node.as_bytes()[0]]);
        PortConfig {
            network: network.into(),
            node: node.into(),
            mac,
            cable: None,
        }
    }

    pub struct Cables(Vec<PortAssignment>);

    impl Cables {
        pub fn of(f: &Fabric) -> Self {
            Self(f.ports())
        }
        pub fn udp(&self, node: &str) -> (UdpSocket, SocketAddrV4) {
            let a = self.0.iter().find(|a| a.node == node).unwrap();
            let Cable::Udp { fabric, local } = a.cable else {
                panic!("{a:?}")
            };
            let s = UdpSocket::bind(("127.0.0.1", local)).unwrap();
            (s, SocketAddrV4::new(Ipv4Addr::LOCALHOST, fabric))
        }
    }

    struct Wire(UdpSocket, SocketAddrV4);
    struct Rx(Vec<u8>);
    struct Tx<'a>(&'a Wire);
    impl RxToken for Rx {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
            f(&self.0)
        }
    }
    impl TxToken for Tx<'_> {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
            let mut b = vec![0; len];
            let r = f(&mut b);
            let _ = self.0.0.send_to(&b, self.0.1);
            r
        }
    }
    impl smoltcp::phy::Device for Wire {
        type RxToken<'a> = Rx;
        type TxToken<'a> = Tx<'a>;
        fn receive(&mut self, _: At) -> Option<(Rx, Tx<'_>)> {
            let mut b = vec![0; 2048];
            let n = self.0.recv(&mut b).ok()?;
            b.truncate(n);
            Some((Rx(b), Tx(self)))
        }
        fn transmit(&mut self, _: At) -> Option<Tx<'_>> {
            Some(Tx(self))
        }
        fn capabilities(&self) -> DeviceCapabilities {
            let mut c = DeviceCapabilities::default();
            c.medium = Medium::Ethernet;
            c.max_transmission_unit = 1514;
            c
        }
    }

    /// What the server does with a connection.
    #[derive(Clone, Copy, PartialEq)]
    pub enum Kind {
        /// Says its name, then sends back what comes, closes when the client does.
        Echo,
        /// Resets the connection at the first byte.
        Reset,
        /// Takes nothing.
        Deaf,
    }

    /// A server at SERVER:25 on `node`; it ends when dropped.
    pub struct Server(Arc<AtomicBool>, Option<JoinHandle<()>>);

    impl Server {
        pub fn start(cables: &Cables, node: &'static str, kind: Kind, announce: bool) -> Self {
            let (socket, to) = cables.udp(node);
            socket.set_nonblocking(true).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let thread = std::thread::spawn(move || serve(Wire(socket, to), node, kind, announce, &stopped));
            Self(stop, Some(thread))
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
            self.1.take().unwrap().join().unwrap();
        }
    }

    /// Makes the last socket of the set the only one that listens.
    fn listen(sockets: &mut SocketSet<'_>, all: &mut Vec<(SocketHandle, bool)>) {
        let last = all.len().saturating_sub(1);
        for (i, (h, _)) in all.iter().enumerate() {
            let s = sockets.get_mut::<tcp::Socket<'_>>(*h);
            match s.state() {
                tcp::State::Listen if i == last => return,
                // Its connection was reset before it began.
                tcp::State::Listen => s.abort(),
                _ => {}
            }
        }
        let buffer = || tcp::SocketBuffer::new(vec![0; 16384]);
        let mut s = tcp::Socket::new(buffer(), buffer());
        s.listen(25).unwrap();
        // Sockets are never removed, so that a new one is behind all others.
        all.push((sockets.add(s), false));
    }

    fn serve(mut wire: Wire, node: &str, kind: Kind, announce: bool, stop: &AtomicBool) {
        let mac = port("", node).mac;
        if announce {
            let g = neighbours::Neighbours::new(SERVER, mac).announce(SERVER);
            wire.0.send_to(&g, wire.1).unwrap();
        }
        let begin = Instant::now();
        let now = || At::from_micros(begin.elapsed().as_micros() as i64);
        let mut config = Config::new(EthernetAddress(mac.0).into());
        config.random_seed = u64::from(mac.0[5]);
        let mut iface = Interface::new(config, &mut wire, now());
        iface.update_ip_addrs(|a| a.push(IpCidr::new(SERVER.into(), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let mut all: Vec<(SocketHandle, bool)> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            // One packet at a time, and always exactly one listener, behind all others: a SYN that comes again belongs
            // to the socket that has its connection, which smoltcp finds only where no listener stands before it.
            loop {
                listen(&mut sockets, &mut all);
                if let PollIngressSingleResult::None = iface.poll_ingress_single(now(), &mut wire, &mut sockets) {
                    break;
                }
            }
            for (h, greeted) in &mut all {
                let s = sockets.get_mut::<tcp::Socket<'_>>(*h);
                if kind == Kind::Deaf {
                    continue;
                }
                if s.can_send() && !*greeted && kind == Kind::Echo {
                    s.send_slice(node.as_bytes()).unwrap();
                    *greeted = true;
                }
                if s.can_recv() && kind == Kind::Reset {
                    s.abort();
                }
                while s.can_recv() && s.can_send() {
                    let room = s.send_capacity() - s.send_queue();
                    let mut data = vec![0; room.min(4096)];
                    let n = s.recv_slice(&mut data).unwrap();
                    s.send_slice(&data[..n]).unwrap();
                }
                if s.state() == tcp::State::CloseWait && s.recv_queue() == 0 && s.send_queue() == 0 {
                    s.close();
                }
            }
            while let PollResult::SocketStateChanged = iface.poll_egress(now(), &mut wire, &mut sockets) {}
            let ms = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            };
            let mut fds = [rustix::event::PollFd::new(&wire.0, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&ms)).unwrap();
        }
    }
}
use peer::{Kind, Server};

fn open(host: &LabHost) -> UnixStream {
    let s = host.connect(SocketAddrV4::new(SERVER, 25), in_s(5)).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    s.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    s
}

fn greeting(s: &mut UnixStream) -> u8 {
    let mut b = [0];
    s.read_exact(&mut b).unwrap();
    b[0]
}

fn connections(host: &LabHost) -> usize {
    let (tx, rx) = channel();
    host.send(Job::Count(tx)).unwrap();
    rx.recv().unwrap()
}

#[test]
fn bytes_come_back_whole_and_ends_are_passed_on() {
    let (_f, host, cables) = lab();
    let _server = Server::start(&cables, "a", Kind::Echo, false);
    let mut s = open(&host);
    assert_eq!(greeting(&mut s), b'a');
    let data: Vec<u8> = (0..1_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (mut w, sent) = (s.try_clone().unwrap(), data.clone());
    let writer = std::thread::spawn(move || {
        w.write_all(&sent).unwrap();
        w.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    s.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == data);
}

#[test]
fn refused_silent_and_missing_hosts_are_told_apart() {
    let (f, host, cables) = lab();
    let _server = Server::start(&cables, "a", Kind::Echo, false);
    let to = |port| SocketAddrV4::new(SERVER, port);
    assert_eq!(
        host.connect(to(26), in_s(5)).unwrap_err(),
        ConnectError::Refused(to(26))
    );
    let absent = Ipv4Addr::new(10, 77, 1, 99);
    let e = host.connect(SocketAddrV4::new(absent, 25), in_s(10)).unwrap_err();
    assert_eq!(e, ConnectError::Unreachable(absent));
    let quick = host
        .connect(
            SocketAddrV4::new(absent, 25),
            Deadline::after(Duration::from_millis(50)),
        )
        .unwrap_err();
    assert!(matches!(quick, ConnectError::TimedOut { arp: true, .. }), "{quick}");
    let silent = Rule {
        id: "x".into(),
        network: "public".into(),
        from: "a".into(),
        to: "workstation".into(),
        matches: Match::default(),
        effect: Effect::cut(),
        seed: 0,
    };
    f.set(RuleOwner::Person, vec![silent]).unwrap();
    let e = host
        .connect(to(25), Deadline::after(Duration::from_millis(200)))
        .unwrap_err();
    assert!(matches!(e, ConnectError::TimedOut { arp: false, .. }), "{e}");
    let far = SocketAddrV4::new([192, 0, 2, 1].into(), 25);
    assert!(matches!(
        f.connect(far, in_s(1)).unwrap_err(),
        ConnectError::NoRoute { .. }
    ));
    assert_eq!(Error::from(f.connect(far, in_s(1)).unwrap_err()).exit_code(), 2);
}

#[test]
fn the_next_segment_goes_where_the_address_moved() {
    let (_f, host, cables) = lab();
    let first = Server::start(&cables, "a", Kind::Echo, false);
    let mut s = open(&host);
    assert_eq!(greeting(&mut s), b'a');
    // b takes the address over with one gratuitous ARP; a stays on the network and would still answer.
    let _second = Server::start(&cables, "b", Kind::Echo, true);
    let taken = wait_until("follow the moved address", in_s(10), || {
        // A connection that begins with a and goes on with b is reset by b.
        let mut from = [0];
        let n = open(&host).read(&mut from).unwrap_or(0);
        Ok(match &from[..n] {
            b"b" => Probe::Ready(()),
            other => Probe::NotYet(format!("{other:?} answered")),
        })
    });
    taken.unwrap();
    // The old connection is unknown to b, which resets it: its next segment did go there.
    // (It may have been reset by an acknowledgement already.)
    let _ = s.write_all(b"anybody there?");
    assert_eq!(s.read(&mut [0; 32]).unwrap_or(0), 0);
    drop(first);
}

#[test]
fn many_connections_at_once_and_none_is_left() {
    let (f, host, cables) = lab();
    let _server = Server::start(&cables, "a", Kind::Echo, false);
    // On a cable that loses frames.
    let lossy = Effect {
        loss: Some(Percent(3.0)),
        ..Effect::default()
    };
    let rule = Rule {
        id: "lossy".into(),
        network: "public".into(),
        from: "*".into(),
        to: "*".into(),
        matches: Match {
            ethertype: Some(0x0800),
            ..Match::default()
        },
        effect: lossy,
        seed: 3,
    };
    f.set(RuleOwner::Person, vec![rule]).unwrap();
    let threads: Vec<_> = (0..48u8)
        .map(|n| {
            let host = host.clone();
            std::thread::spawn(move || {
                let mut s = host.connect(SocketAddrV4::new(SERVER, 25), in_s(30)).unwrap();
                s.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                assert_eq!(greeting(&mut s), b'a');
                let data = vec![n; 20_000];
                s.write_all(&data).unwrap();
                let mut got = vec![0; data.len()];
                s.read_exact(&mut got).unwrap();
                assert!(got == data);
            })
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    assert!(f.counters().rules[0].dropped > 0);
    f.set(RuleOwner::Person, Vec::new()).unwrap();
    wait_until("close every connection", in_s(30), || {
        Ok(match connections(&host) {
            0 => Probe::Ready(()),
            n => Probe::NotYet(format!("{n} open")),
        })
    })
    .unwrap();
}

#[test]
fn a_reset_ends_the_stream_and_a_deaf_peer_does_not_fill_memory() {
    let (_f, host, cables) = lab();
    let reset = Server::start(&cables, "a", Kind::Reset, false);
    let mut s = open(&host);
    s.write_all(b"x").unwrap();
    assert_eq!(s.read(&mut [0; 8]).unwrap_or(0), 0);
    drop(reset);
    let _deaf = Server::start(&cables, "a", Kind::Deaf, false);
    let mut s = open(&host);
    s.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut taken = 0;
    while let Ok(n) = s.write(&[0; 65536]) {
        taken += n;
        assert!(taken < 4 << 20, "bounded");
    }
    drop(s);
    // The client is gone: so is the connection, although the peer never closes.
    wait_until("drop the connection", in_s(30), || {
        Ok(match connections(&host) {
            0 => Probe::Ready(()),
            n => Probe::NotYet(format!("{n} open")),
        })
    })
    .unwrap();
}

#[test]
fn probes_and_claims_of_taken_addresses() {
    let (_f, host, cables) = lab();
    let (a, to_a) = cables.udp("a");
    let answering = std::thread::spawn(move || {
        let (mut buf, mut out) = ([0; 100], Vec::new());
        let mut owner = neighbours::Neighbours::new(SERVER, peer::port("", "a").mac);
        a.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let n = a.recv(&mut buf).unwrap();
        owner.arp(&buf[..n], 0, &mut out);
        a.send_to(&out[0], to_a).unwrap();
    });
    assert_eq!(host.arp_probe(SERVER, in_s(5)).unwrap(), Some(peer::port("", "a").mac));
    answering.join().unwrap();
    let free = Ipv4Addr::new(10, 77, 1, 99);
    assert_eq!(
        host.arp_probe(free, Deadline::after(Duration::from_millis(100)))
            .unwrap(),
        None
    );
    // A guest asks for a claimed address and is told the workstation's MAC.
    let (b, to) = cables.udp("b");
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let conflict = host.claim(free).unwrap();
    let mut buf = [0; 100];
    let n = b.recv(&mut buf).unwrap();
    assert_eq!(
        (&buf[..6], &buf[28..32], n),
        (&[0xff; 6][..], &free.octets()[..], 42),
        "the announcement"
    );
    let asker = neighbours::Neighbours::new([10, 77, 1, 12].into(), Mac([2, 0, 0, 0, 0, b'b']));
    b.send_to(&asker.probe(free), to).unwrap();
    b.recv(&mut buf).unwrap();
    assert_eq!(
        (&buf[..6], &buf[22..27]),
        (&[2, 0, 0, 0, 0, b'b'][..], &[0x52, 0x54, 0, 0xfe, 0][..])
    );
    drop(conflict);
    b.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    b.send_to(&asker.probe(free), to).unwrap();
    assert!(b.recv(&mut buf).is_err());
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Carries frames between two ends until told to stop.
fn bridge(mut a: impl PortTransport, mut b: impl PortTransport, stop: &AtomicBool) {
    let mut batch = Batch::new(1514);
    let mut carry = |from: &mut dyn PortTransport, to: &mut dyn PortTransport| {
        from.receive(&mut batch).unwrap();
        let frames: Vec<_> = (0..batch.len())
            .filter_map(|i| batch.frame(i))
            .map(std::io::IoSlice::new)
            .collect();
        if !frames.is_empty() {
            to.send(&frames).unwrap();
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let moment = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 2_000_000,
        };
        let mut fds =
            [a.fd(), b.fd()].map(|f| rustix::event::PollFd::from_borrowed_fd(f, rustix::event::PollFlags::IN));
        rustix::event::poll(&mut fds, Some(&moment)).unwrap();
        carry(&mut a, &mut b);
        carry(&mut b, &mut a);
    }
}

#[test]
fn a_connection_between_machines_survives_a_restart_of_the_fabric() {
    let (fabric, _, cables) = lab();
    let assigned = fabric.ports();
    let _server = Server::start(&cables, "a", Kind::Echo, false);
    // Machine b: a host of ours behind QEMU's socket.
    let (socket, to) = cables.udp("b");
    let udp = Udp::new(socket, to.port()).unwrap();
    let (ours, theirs) = Inside::pair().unwrap();
    let config = HostConfig {
        address: [10, 77, 1, 12].into(),
        prefix: 24,
        mac: peer::port("", "b").mac,
        mtu: 1500,
    };
    let b = LabHost::start("public", config, theirs).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| bridge(udp, ours, &stop));
        // Also where an assertion below fails: the bridge must not outlive it.
        let _end = End(&stop);
        let mut c = open(&b);
        assert_eq!(greeting(&mut c), b'a');
        let mut echo = |n: u8| {
            let data = vec![n; 50_000];
            let mut got = vec![0; data.len()];
            let mut w = c.try_clone().unwrap();
            let writer = std::thread::spawn(move || w.write_all(&data).unwrap());
            c.read_exact(&mut got).unwrap();
            writer.join().unwrap();
            assert!(got.iter().all(|b| *b == n));
        };
        echo(1);
        drop(fabric);
        let mut config = config_of_lab();
        for (p, a) in config.ports.iter_mut().zip(&assigned) {
            p.cable = Some(a.cable.clone());
        }
        let restarted = std::thread::spawn(|| Fabric::start(config, Journal::in_memory()).unwrap());
        echo(2);
        let fabric = restarted.join().unwrap();
        assert!(fabric.counters().port("public", "b").unwrap().frames_in > 0);
    });
}
