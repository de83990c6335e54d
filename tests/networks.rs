//! The networks of a supervisor whose machines are this test's own sockets: rules, captures and what survives a restart.

mod another;
mod on_disk;

use failoverlab::fabric::PortAssignment;
use failoverlab::files::Home;
use failoverlab::hypervisor::{Cable, CableKind};
use failoverlab::process;
use failoverlab::wait::{Deadline, Probe, wait_until};
use serde_json::Value;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A machine's end of its cable.
struct Machine {
    socket: Socket,
    mac: [u8; 6],
}

/// As QEMU has it, with the address of the fabric's end.
enum Socket {
    Udp(UdpSocket, u16),
    Unix(UnixDatagram, PathBuf),
}

impl Machine {
    /// A broadcast frame.
    fn send(&self, text: &[u8]) {
        let mut frame = [&[0xff; 6][..], &self.mac, &[0x88, 0xb5], text].concat();
        frame.resize(frame.len().max(60), 0);
        match &self.socket {
            Socket::Udp(s, to) => s.send_to(&frame, ("127.0.0.1", *to)),
            Socket::Unix(s, to) => s.send_to(&frame, to),
        }
        .unwrap();
    }

    /// Whether a frame with `text` comes.
    fn hears(&self, text: &[u8], within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut buf = [0; 2048];
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
            let got = match &self.socket {
                Socket::Udp(s, _) => s.set_read_timeout(Some(left)).and_then(|()| s.recv(&mut buf)),
                Socket::Unix(s, _) => s.set_read_timeout(Some(left)).and_then(|()| s.recv(&mut buf)),
            };
            if got.is_ok_and(|n| buf[14..n].starts_with(text)) {
                return true;
            }
        }
        false
    }
}

/// The lab `bare`, up as far as its files say; the machines on its first network are ours.
struct Lab {
    home: tempfile::TempDir,
    machines: Vec<Machine>,
}

impl Lab {
    fn new(kind: CableKind) -> Self {
        let home = tempfile::Builder::new().prefix("fln").tempdir().unwrap();
        let files = Home::under(home.path()).lab("bare");
        Home::private_dir(&files.run).unwrap();
        let free = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = |s: &UdpSocket| s.local_addr().unwrap().port();
        let nodes = on_disk::lab(home.path(), "bare", Vec::new()).desired.lab.nodes;
        let (mut ports, mut machines, mut fabrics) = (Vec::new(), Vec::new(), Vec::new());
        for node in &nodes {
            for (n, nic) in node.nics.iter().enumerate() {
                let (cable, socket) = match kind {
                    CableKind::Udp => {
                        let (socket, ours) = (free(), free());
                        let (local, fabric) = (port(&socket), port(&ours));
                        fabrics.push(ours);
                        (Cable::Udp { fabric, local }, Socket::Udp(socket, fabric))
                    }
                    CableKind::Unix => {
                        let sockets = files.node(&node.name);
                        let (fabric, local) = (sockets.cable_fabric(n), sockets.cable(n));
                        let socket = Socket::Unix(UnixDatagram::bind(&local).unwrap(), fabric.clone());
                        (Cable::Unix { fabric, local }, socket)
                    }
                };
                ports.push(PortAssignment {
                    network: nic.network.to_string(),
                    node: node.name.to_string(),
                    cable,
                });
                if nic.network == nodes[0].nics[0].network {
                    let mac = nic.mac.0;
                    machines.push(Machine { socket, mac });
                }
            }
        }
        on_disk::lab(home.path(), "bare", ports);
        Lab { home, machines }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_failoverlab"));
        c.args(args)
            .env("FAILOVERLAB_HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        c
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }

    fn networks(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "bare", "--network", "--json"])).unwrap()
    }

    /// Ends the supervisor as a crash would.
    fn kill_supervisor(&self) -> bool {
        let ls: Value = serde_json::from_str(&self.ok(&["ls", "--json"])).unwrap();
        let Some(pid) = ls[0]["supervisor"].as_u64().and_then(|p| u32::try_from(p).ok()) else {
            return false;
        };
        let target = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(target, rustix::process::Signal::KILL).unwrap();
        wait_until(
            "see the supervisor end",
            Deadline::after(Duration::from_secs(10)),
            || {
                Ok(match process::runs(pid) {
                    true => Probe::NotYet("it lives".into()),
                    false => Probe::Ready(()),
                })
            },
        )
        .unwrap();
        true
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_supervisor();
    }
}

/// What a capture has of the frames with `text`: how often it is in it, and how often "dropped" is.
fn captured(file: &Path, text: &[u8]) -> (usize, usize) {
    let bytes = std::fs::read(file).unwrap_or_default();
    let count = |what: &[u8]| bytes.windows(what.len()).filter(|w| *w == what).count();
    (count(text), count(b"dropped: cut by rule fault-1:"))
}

#[test]
fn rules_survive_the_supervisor_and_a_capture_shows_what_they_drop() {
    rules_survive(&Lab::new(CableKind::Unix));
}

#[test]
fn rules_survive_the_supervisor_over_udp_too() {
    rules_survive(&Lab::new(CableKind::Udp));
}

fn rules_survive(lab: &Lab) {
    let [a, b, c] = &lab.machines[..] else {
        panic!("three machines")
    };
    let long = Duration::from_secs(20);
    lab.ok(&["fault", "bare", "cut", "between=a,b", "direction=out"]);
    let before = lab.networks();
    let rule = &before["rules"][0];
    assert_eq!(
        (&rule["from"], &rule["to"], &rule["effect"]["cut"]),
        (&"a".into(), &"b".into(), &true.into())
    );
    a.send(b"first");
    assert!(c.hears(b"first", long));
    assert!(lab.kill_supervisor());
    // The next command starts another one, with the same rules on the same ports.
    let after = lab.networks();
    assert_eq!(after["rules"], before["rules"]);
    let refused = lab.run(&["fault", "bare", "loss", "--on", "a", "loss=120%"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        lab.networks()["rules"],
        before["rules"],
        "a refused fault changes nothing"
    );

    let file = lab.home.path().join("x.pcapng");
    let capture = lab
        .command(&["capture", "bare", "--network", "public", "-o", file.to_str().unwrap()])
        .spawn()
        .unwrap();
    // Frames until the capture shows one: nothing else says that it has begun.
    wait_until("see a frame in the capture", Deadline::after(long), || {
        a.send(b"second");
        Ok(match captured(&file, b"second") {
            (0, 0) => Probe::NotYet("no frame".into()),
            _ => Probe::Ready(()),
        })
    })
    .unwrap();
    a.send(b"third");
    assert!(c.hears(b"third", long));
    let pid = rustix::process::Pid::from_child(&capture);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = capture.wait_with_output().unwrap();
    assert!(ended.status.success(), "Ctrl-C is the orderly end of a capture");
    // At a as it came in, at b where it was dropped, at c where it went out.
    let (third, dropped) = captured(&file, b"third");
    assert!(third >= 3 && dropped > 0, "{third} {dropped}");
    assert!(!b.hears(b"", Duration::from_millis(50)), "a frame crossed the cut");

    let unknown = lab.run(&["capture", "bare", "--node", "nobody", "-o", "/dev/null"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(said.contains("a on public"), "{said}");

    let picture = lab.ok(&["status", "bare", "--network"]);
    assert!(
        picture.contains("a → b  cut (fault-1:public:a>b): matched"),
        "{picture}"
    );
    let healed: Value = serde_json::from_str(&lab.ok(&["heal", "bare", "--json"])).unwrap();
    assert_eq!(healed[0]["effective"], true, "{healed}");
    a.send(b"fourth");
    assert!(b.hears(b"fourth", long));
    // The last minutes are on disk.
    let ring = lab.home.path().join("state/labs/bare/ring.pcapng");
    assert!(ring.is_file() && ring.with_extension("old.pcapng").is_file());
}

#[test]
fn no_frame_of_another_account_gets_in() {
    let lab = Lab::new(CableKind::Unix);
    // This starts the supervisor. No machine has spoken yet: its sockets are connected to those that QEMU bound.
    let seen = |networks: &Value| -> u64 {
        let ports = networks["counters"]["ports"].as_array().unwrap().iter();
        ports
            .flat_map(|p| ["frames_in", "malformed", "foreign"].map(|k| p[k].as_u64().unwrap()))
            .sum()
    };
    assert_eq!(seen(&lab.networks()), 0);
    let run = Home::under(lab.home.path()).lab("bare").run;
    let ends = |end: &str| ["a", "b", "c"].map(|n| run.join(format!("{n}.0{end}")));
    let (fabric, machines) = (ends("f"), ends(""));
    assert!(fabric.iter().chain(&machines).all(|s| s.exists()));
    let all = [&fabric[..], &machines[..]].concat();
    assert_eq!(another::forge(&all).unwrap(), ["Permission denied"; 6]);
    // Not by way of a folder that anybody may enter, either: the lab's own is the wall, whatever the home is.
    std::fs::set_permissions(lab.home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(another::forge(&all).unwrap(), ["Permission denied"; 6]);
    assert_eq!(seen(&lab.networks()), 0);
    assert!(!lab.machines.iter().any(|m| m.hears(b"", Duration::from_millis(50))));
    // Our own processes reach QEMU's sockets, so the program works; the fabric's take frames of their machines only.
    assert_eq!(another::send(&machines).unwrap(), ["sent"; 3]);
    assert_eq!(another::send(&fabric).unwrap(), ["Operation not permitted"; 3]);
    lab.machines[0].send(b"hello");
    assert!(lab.machines[1].hears(b"hello", Duration::from_secs(20)));
    assert_eq!(seen(&lab.networks()), 1);
}
