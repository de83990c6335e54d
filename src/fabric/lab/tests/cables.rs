//! Cables over unix datagrams: what waits, what is dropped, and what a restart keeps. Who gets in: `tests/networks.rs`.

use super::*;
use crate::files::Home;
use crate::wait::pause;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// A lab's folder as the tool makes it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("flc").tempdir_in("/tmp").unwrap();
        Home::private_dir(dir.path()).unwrap();
        Self(dir)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, nodes: usize) -> FabricConfig {
        let mut config = config(nodes, 1);
        for p in &mut config.ports {
            p.cable = Some(Cable::Unix {
                fabric: self.socket(&format!("{}.0f", p.node)),
                local: self.socket(&format!("{}.0", p.node)),
            });
        }
        config
    }

    fn fabric(&self, nodes: usize) -> Fabric {
        Fabric::start(self.config(nodes), Journal::in_memory()).unwrap()
    }

    /// A machine without a guest: a socket as QEMU has it.
    fn machine(&self, node: usize) -> Unplugged {
        let own = self.socket(&format!("node{node}.0"));
        let _ = std::fs::remove_file(&own);
        let socket = UnixDatagram::bind(&own).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let fabric = self.socket(&format!("node{node}.0f"));
        Unplugged { socket, fabric, node }
    }
}

struct Unplugged {
    socket: UnixDatagram,
    fabric: PathBuf,
    node: usize,
}

impl Unplugged {
    /// Sends as QEMU does: it waits where the fabric has not read yet.
    fn send(&self, to: Option<usize>, data: &[u8]) {
        let dst = to.map_or([0xff; 6], mac);
        let f = ip_frame(dst, mac(self.node), IpProtocol::Udp, (1, 2), data);
        self.socket.send_to(&f, &self.fabric).unwrap();
    }
    /// Data of the next frame; none where nothing comes.
    fn next(&self) -> Option<Vec<u8>> {
        let mut buf = [0; 2048];
        let n = self.socket.recv(&mut buf).ok()?;
        Some(buf[42..n].to_vec())
    }
    fn number(&self) -> Option<u32> {
        self.next().map(|d| u32::from_le_bytes(d[..4].try_into().unwrap()))
    }
}

/// Frames carry their number and are long.
fn numbered(n: u32) -> Vec<u8> {
    let mut data = vec![0; 1400];
    data[..4].copy_from_slice(&n.to_le_bytes());
    data
}

#[test]
fn frames_cross_and_a_restart_finds_the_machines_again() {
    let folder = Folder::new();
    let f = folder.fabric(2);
    let m = [folder.machine(0), folder.machine(1)];
    m[0].send(None, b"hello");
    assert_eq!(m[1].next().unwrap(), b"hello");
    f.set(RuleOwner::Person, vec![cut("x", "node0", "node1")]).unwrap();
    let (ports, rules) = (f.ports(), f.rules().1);
    // Killed: its sockets stay.
    std::mem::forget(f);
    let mut again = folder.config(2);
    again.rules = rules;
    let f = Fabric::start(again, Journal::in_memory()).unwrap();
    assert_eq!(f.ports(), ports);
    m[0].send(Some(1), b"cut");
    m[1].send(Some(0), b"still");
    assert_eq!(m[0].next().unwrap(), b"still");
    f.set(RuleOwner::Person, Vec::new()).unwrap();
    m[0].send(Some(1), b"whole");
    assert_eq!(m[1].next().unwrap(), b"whole");
    // A machine that is switched off and on has another socket.
    drop(m);
    f.renew("node1").unwrap();
    let m = [folder.machine(0), folder.machine(1)];
    m[1].send(None, b"on again");
    assert_eq!(f.counters().ports[1].foreign, 0);
    f.renew("node0").unwrap();
    m[1].send(None, b"and heard");
    m[0].socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(std::iter::from_fn(|| m[0].next()).any(|d| d == b"and heard"));
    drop(f);
    assert!(!folder.socket("node0.0f").exists());
}

/// A machine that stands still takes nothing; its frames wait, bounded, and nobody else does.
#[test]
fn a_machine_that_stands_still_blocks_nobody_and_what_is_dropped_is_counted() {
    let folder = Folder::new();
    let f = folder.fabric(3);
    let [sender, still, other] = [0, 1, 2].map(|n| folder.machine(n));
    sender.send(None, b"learn");
    for m in [&still, &other] {
        m.next().unwrap();
        m.send(Some(0), b"learn");
        sender.next().unwrap();
    }
    const ALL: u32 = 10_000;
    let before = f.counters();
    let begin = Instant::now();
    for n in 0..ALL {
        sender.send(Some(1), &numbered(n));
        sender.send(Some(2), &n.to_le_bytes());
        assert_eq!(other.number(), Some(n), "the others go on");
    }
    let c = f.counters().since(&before);
    assert!(c.ports[1].overflow > 0, "{:?} in {:?}", c.ports[1], begin.elapsed());
    assert_eq!(
        (c.ports[1].frames_out + c.ports[1].overflow, c.ports[2].overflow),
        (u64::from(ALL), 0)
    );
    // Standing still costs the switch nothing.
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let cpu = |f: &Fabric| f.runner.ask(move |_| used()).unwrap();
    let before = cpu(&f);
    pause(Duration::from_millis(300));
    let after = cpu(&f);
    let us = (after.tv_sec - before.tv_sec) * 1_000_000 + (after.tv_nsec - before.tv_nsec) / 1000;
    assert!(us < 6_000, "2 % of 300 ms: {us} us");
    // It goes on: what waited comes, in order, the oldest first; then new ones.
    let kept = u32::try_from(c.ports[1].frames_out).unwrap();
    for n in 0..kept {
        assert_eq!(still.number(), Some(n));
    }
    sender.send(Some(1), b"anew");
    assert_eq!(still.next().unwrap(), b"anew");
}

/// More than the receiver takes: each frame arrives in order or is counted as dropped by the fabric.
#[test]
fn under_overload_every_frame_arrives_or_is_counted() {
    let folder = Folder::new();
    let f = folder.fabric(2);
    let [fast, slow] = [0, 1].map(|n| folder.machine(n));
    slow.send(Some(0), b"learn");
    fast.next().unwrap();
    const ALL: u32 = 20_000;
    const END: u32 = u32::MAX;
    let got = std::thread::scope(|s| {
        let slow = &slow;
        let (dropped, overload) = std::sync::mpsc::channel();
        let taken = s.spawn(move || {
            // On any host the receiver is the slower one: it begins to take when the first frame was dropped.
            overload.recv().unwrap();
            let mut got: Vec<u32> = Vec::new();
            loop {
                match slow.number() {
                    Some(END) => return got,
                    Some(n) => got.push(n),
                    None => panic!("the last frame did not come; {} did", got.len()),
                }
                if got.len() < 1000 {
                    // It takes less than the sender has: for as long as there is an overload.
                    pause(Duration::from_micros(200));
                }
            }
        });
        for n in 0..ALL {
            fast.send(Some(1), &numbered(n));
            if n % 256 == 0 && f.counters().ports[1].overflow > 0 {
                let _ = dropped.send(());
            }
        }
        drop(dropped);
        // The end shall not be dropped: it is sent when the queue has room.
        wait_until(
            "see room in the queue",
            Deadline::after(Duration::from_secs(60)),
            || {
                let waiting = f.runner.ask(|frames| frames.waiting(1))?;
                Ok(if waiting == 0 {
                    Probe::Ready(())
                } else {
                    Probe::NotYet(format!("{waiting} bytes wait"))
                })
            },
        )
        .unwrap();
        fast.send(Some(1), &numbered(END));
        taken.join().unwrap()
    });
    let c = &f.counters().ports[1];
    assert!(got.is_sorted(), "frames keep their order");
    assert!(c.overflow > 0, "there was an overload: {c:?}");
    assert_eq!(got.len() as u64 + c.overflow, u64::from(ALL), "{c:?}");
    assert_eq!((c.host_drops_in, c.host_drops_out), (0, 0));
}
