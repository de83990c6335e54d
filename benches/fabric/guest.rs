//! TCP between two machines, over four cables that both have: the fabric, the plain loop, a direct UDP pair, and the fabric over
//! UDP. One boot serves all of them, and they take turns: the same guests, the same moment.

use super::plain;
use failoverlab::event::Journal;
use failoverlab::fabric::transport::free_udp;
use failoverlab::fabric::{Control, Fabric, FabricConfig, NetworkConfig, PortConfig, RingConfig};
use failoverlab::files::{Home, LabFiles};
use failoverlab::guest::keys::Keys;
use failoverlab::guest::ssh::{Ssh, Target};
use failoverlab::guest::{Command, Remote, credentials, wait_ready};
use failoverlab::hypervisor::{Cable, Disk, DiskFormat, Embedded, Hypervisor, Machine, Mgmt, Port};
use failoverlab::image::qemu_img::QemuImg;
use failoverlab::lab::desired;
use failoverlab::lab::record::DesiredState;
use failoverlab::spec::{Lab, Node, Source};
use failoverlab::wait::{Deadline, Slowness};
use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The cables, each a network of its own.
pub const CABLES: [&str; 4] = ["fabric", "plain", "direct", "udp"];
/// How long one transfer takes.
const SECONDS: u32 = 4;
const PORT: u16 = 5001;

const LAB: &str = r#"
schema = 1
name = "bench"
title = "Two machines with four cables"
[defaults]
memory = "256 MiB"
packages = ["iputils-ping"]
[networks.fabric]
subnet = "10.79.1.0/24"
role = "mixed"
[networks.plain]
subnet = "10.79.2.0/24"
role = "internal"
[networks.direct]
subnet = "10.79.3.0/24"
role = "internal"
[networks.udp]
subnet = "10.79.4.0/24"
role = "internal"
[nodes.a]
networks = ["fabric", "plain", "direct", "udp"]
[nodes.b]
networks = ["fabric", "plain", "direct", "udp"]
"#;

/// Takes what comes and says how much it was.
const SINK: &str = r#"$l = IO::Socket::INET->new(Listen => 5, LocalPort => $ARGV[0], ReuseAddr => 1) or die $!;
while ($c = $l->accept) { $n = 0; while (($r = sysread($c, $b, 1 << 18)) > 0) { $n += $r } syswrite($c, "$n\n"); close $c }"#;
/// Sends for some seconds; prints what arrived and how long it took.
const SEND: &str = r#"sub now { open my $f, "<", "/proc/uptime"; (split / /, <$f>)[0] }
$s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or die $!;
$x = "x" x (1 << 16); $t = now();
while (now() - $t < $ARGV[2]) { for (1 .. 16) { syswrite($s, $x) or die $! } }
shutdown($s, 1); $n = <$s>; print $n, now() - $t, "\n""#;

/// One transfer.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    pub mbit_s: f64,
    pub retransmitted: f64,
}

/// The two machines; they end when this is dropped.
pub struct Guests {
    lab: Lab,
    hypervisor: Embedded,
    a: Ssh,
    fabric: Fabric,
    _plain: plain::Switch,
    _dir: tempfile::TempDir,
}

type Tried<T> = Result<T, Box<dyn Error>>;

impl Guests {
    /// Boots them; the image is built where it is missing.
    pub fn start() -> Tried<Self> {
        let cache = Home::from_env()?;
        let dir = tempfile::Builder::new().prefix("flg").tempdir_in("/tmp")?;
        std::fs::write(dir.path().join("lab.toml"), LAB)?;
        let home = Home {
            cache: cache.cache,
            ..Home::under(dir.path())
        };
        let source = Source::Folder(dir.path().to_owned());
        let (journal, cancel) = (Journal::in_memory(), AtomicBool::new(false));
        let desired = desired::decide(&home, &source, desired::read(&source)?.lab, None, 1, &journal, &cancel)?;
        let lab = desired.lab.clone();
        let files = home.lab("bench");
        for folder in [&files.state, &files.run, &files.root()] {
            Home::private_dir(folder)?;
        }
        let fabric = Fabric::start(networks(&lab, &files), journal)?;
        let (plain, [pa, pb]) = plain::udp()?;
        let (da, db) = (free_udp()?, free_udp()?);
        let direct = [da.local_addr()?.port(), db.local_addr()?.port()];
        // QEMU binds them next.
        drop((da, db));
        let ours: Vec<Cable> = fabric.ports().into_iter().map(|p| p.cable).collect();
        let cross = |local, fabric| Cable::Udp { fabric, local };
        let cables = [
            [ours[0].clone(), pa, cross(direct[0], direct[1]), ours[2].clone()],
            [ours[1].clone(), pb, cross(direct[1], direct[0]), ours[3].clone()],
        ];
        let hypervisor = Embedded::open(&files.root(), &home.capabilities())?;
        let keys = Keys::ensure(&files, lab.nodes.iter().map(|n| n.name.as_str()))?;
        let mut targets = Vec::new();
        for (node, cables) in lab.nodes.iter().zip(cables) {
            let machine = machine(&desired, &files, node, &keys, cables)?;
            hypervisor.create(&machine.to_xml()?, false)?;
            targets.push(Target::new(&files, &node.name, machine.mgmt.ssh));
        }
        let mut ready = Vec::new();
        for target in &targets {
            let deadline = Deadline::scaled(Duration::from_secs(120), desired.slowness);
            ready.push(wait_ready(target, deadline, &mut |_| Ok(()))?.0);
        }
        let background = format!("setsid -f perl -MIO::Socket::INET -e \"$0\" {PORT} </dev/null >/dev/null 2>&1");
        let sink = ["sh", "-c", &background, SINK];
        let (b, a) = (ready.pop(), ready.pop());
        run(&mut b.ok_or("no machine b")?, &sink)?;
        Ok(Self {
            lab,
            hypervisor,
            a: a.ok_or("no machine a")?,
            fabric,
            _plain: plain,
            _dir: dir,
        })
    }

    /// Sends from a to b over one of the cables.
    pub fn transfer(&mut self, cable: &str) -> Tried<Transfer> {
        let to = self.lab.nodes[1].address(cable).ok_or("no such cable")?.to_string();
        let (port, seconds) = (PORT.to_string(), SECONDS.to_string());
        let before = retransmitted(&mut self.a)?;
        let out = run(
            &mut self.a,
            &["perl", "-MIO::Socket::INET", "-e", SEND, &to, &port, &seconds],
        )?;
        let mut words = out.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(bytes)), Some(Ok(took))) = (words.next(), words.next()) else {
            return Err(format!("not a result: {out:?}").into());
        };
        Ok(Transfer {
            mbit_s: bytes * 8.0 / took / 1e6,
            retransmitted: retransmitted(&mut self.a)? - before,
        })
    }

    /// Frames that the fabric dropped because a machine did not take them.
    pub fn overflow(&self) -> u64 {
        self.fabric.counters().ports.iter().map(|p| p.overflow).sum()
    }

    /// Frames that the host's kernel dropped on the fabric's cables.
    pub fn host_drops(&self) -> u64 {
        let drops = |p: &failoverlab::fabric::PortCounters| p.host_drops_in + p.host_drops_out;
        self.fabric.counters().ports.iter().map(drops).sum()
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for node in &self.lab.nodes {
            if let Err(e) = self.hypervisor.destroy(&node.name) {
                eprintln!("{}: {e}", node.name);
            }
        }
    }
}

/// The fabric's own two networks: one over unix datagrams, one over UDP.
fn networks(lab: &Lab, files: &LabFiles) -> FabricConfig {
    let network = |n: usize| NetworkConfig {
        name: CABLES[n].into(),
        mtu: 1500,
        workstation: None,
    };
    let port = |n: usize, node: &Node| PortConfig {
        network: CABLES[n].into(),
        node: node.name.to_string(),
        mac: node.nics[n].mac,
        cable: (n == 0).then(|| Cable::Unix {
            fabric: files.node(&node.name).cable_fabric(n),
            local: files.node(&node.name).cable(n),
        }),
    };
    let ports = [0, 3].iter().flat_map(|n| lab.nodes.iter().map(|node| port(*n, node)));
    FabricConfig {
        networks: [0, 3].map(network).to_vec(),
        ports: ports.collect(),
        ring: Some(RingConfig::at(files.ring())),
        ..FabricConfig::default()
    }
}

fn machine(desired: &DesiredState, files: &LabFiles, node: &Node, keys: &Keys, cables: [Cable; 4]) -> Tried<Machine> {
    let nf = files.node(&node.name);
    Home::private_dir(&nf.dir)?;
    let image = &desired.image;
    QemuImg::default().create_overlay(&nf.root_overlay(), &image.disk, image.format)?;
    let ports = node.nics.iter().zip(cables).map(|(nic, cable)| Port {
        network: nic.network.to_string(),
        mac: nic.mac,
        cable,
        link_up: true,
        mtu: 1500,
    });
    let ssh = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(Machine {
        name: node.name.to_string(),
        uuid: format!("6f6a1b54-4e4b-4b0a-9d5b-0a1f6f3d2c{:02x}", node.mgmt_mac.0[5]),
        label: "bench".into(),
        memory: node.memory,
        vcpus: node.vcpus,
        accel: desired.accel,
        kernel: image.kernel.clone(),
        initrd: image.initrd.clone(),
        cmdline: format!("{} systemd.hostname={}", image.cmdline, node.name),
        disks: vec![Disk {
            target: "vda".into(),
            path: nf.root_overlay(),
            format: DiskFormat::Qcow2,
            serial: None,
            shared: false,
        }],
        ports: ports.collect(),
        mgmt: Mgmt {
            mac: node.mgmt_mac,
            ssh,
        },
        credentials: credentials::write(&desired.lab, node, keys, &nf)?,
        console: nf.console(),
        console_log: nf.console_log(),
        agent: nf.agent(),
        qemu_agent: None,
    })
}

fn run(ssh: &mut Ssh, argv: &[&str]) -> Tried<String> {
    let deadline = Deadline::scaled(Duration::from_secs(60), Slowness::new(5.0));
    let out = ssh.exec(&Command::new(argv.iter().copied()), deadline)?;
    Ok(out.check_text("run a command in the machine", argv[0])?)
}

/// Segments that the machine's kernel sent again, since it booted.
fn retransmitted(ssh: &mut Ssh) -> Tried<f64> {
    let table = run(ssh, &["grep", "^Tcp:", "/proc/net/snmp"])?;
    let mut lines = table.lines().map(|l| l.split_whitespace());
    let (Some(names), Some(mut values)) = (lines.next(), lines.next()) else {
        return Err("no TCP counters".into());
    };
    let at = names
        .into_iter()
        .position(|n| n == "RetransSegs")
        .ok_or("no RetransSegs")?;
    Ok(values.nth(at).ok_or("no value")?.parse()?)
}
