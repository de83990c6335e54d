//! One bare QEMU machine with the credentials of a lab, for tests of what happens inside.

#![expect(dead_code, reason = "each test uses its part")]

use crate::common::{free_port, image};
use failoverlab::error::{Error, Problem, Result};
use failoverlab::files::{Home, LabFiles, NodeFiles};
use failoverlab::guest::keys::Keys;
use failoverlab::guest::ssh::Target;
use failoverlab::guest::{self, Remote, credentials};
use failoverlab::image::Image;
use failoverlab::spec::{Lab, Node};
use failoverlab::wait::Deadline;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running machine; killed when dropped.
pub struct Machine {
    dir: tempfile::TempDir,
    command: Command,
    qemu: Child,
    /// The way in.
    pub target: Target,
    /// The lab's files.
    pub files: LabFiles,
    /// The socket of its agent.
    pub agent: PathBuf,
    /// Further ports on 127.0.0.1: guest port → host port.
    pub ports: Vec<(u16, u16)>,
}

/// The lab that tests use: two members and a hub.
pub fn lab() -> Lab {
    serde_json::from_str(include_str!("lab.json")).unwrap()
}

/// A deadline so many seconds from now.
pub fn within(seconds: u64) -> Deadline {
    Deadline::after(Duration::from_secs(seconds))
}

/// What `argv` printed in the machine.
pub fn run(remote: &mut dyn Remote, argv: &[&str]) -> String {
    let output = remote
        .exec(&guest::Command::new(argv.iter().copied()), within(60))
        .unwrap();
    output.check_text("run", argv.join(" ")).unwrap()
}

/// The machine without its lab's networks and disks.
fn command_line(image: &Image, forward: &str, node: &Node, of_node: &NodeFiles, dir: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-nodefaults",
        "-display",
        "none",
        "-m",
        "384",
    ])
    .arg("-kernel")
    .arg(&image.kernel)
    .arg("-initrd")
    .arg(&image.initrd)
    .args(["-append", &image.cmdline])
    .arg("-drive")
    .arg(format!(
        "file={},if=none,id=root,format=qcow2,cache=unsafe",
        of_node.root_overlay().display()
    ))
    .args(["-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"])
    .arg("-netdev")
    .arg(forward)
    .arg("-device")
    .arg(format!("virtio-net-pci,netdev=mgmt,mac={}", node.mgmt_mac))
    .arg("-serial")
    .arg(format!("file:{}", of_node.console_log().display()))
    .arg("-chardev")
    .arg(format!(
        "socket,id=agent,path={},server=on,wait=off",
        dir.join("agent").display()
    ))
    .args([
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ])
    .arg("-chardev")
    .arg(format!(
        "socket,id=line,path={},server=on,wait=off",
        of_node.agent().display()
    ))
    .args(["-device", "virtserialport,chardev=line,name=org.failoverlab.agent"]);
    qemu
}

impl Machine {
    /// Boots `node` of `lab`, its lab networks unconnected.
    pub fn boot(lab: &Lab, node: &str) -> Self {
        Self::boot_with_ports(lab, node, &[])
    }

    /// The same with further guest ports forwarded.
    pub fn boot_with_ports(lab: &Lab, name: &str, guest_ports: &[u16]) -> Self {
        let image = image();
        let dir = tempfile::tempdir().unwrap();
        let files = Home::under(dir.path()).lab(lab.name.as_str());
        let keys = Keys::ensure(&files, lab.nodes.iter().map(|n| n.name.as_str())).unwrap();
        let node = lab.node(name).unwrap();
        let of_node = files.node(name);
        let given = credentials::write(lab, node, &keys, &of_node).unwrap();
        overlay(&image.disk, &of_node.root_overlay());
        let ssh = free_port();
        let ports: Vec<(u16, u16)> = guest_ports.iter().map(|p| (*p, free_port())).collect();
        let mut forward = format!("user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:{ssh}-:22");
        for (guest, host) in &ports {
            forward += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
        }
        let mut qemu = command_line(&image, &forward, node, &of_node, dir.path());
        std::fs::create_dir_all(of_node.agent().parent().unwrap()).unwrap();
        for (i, nic) in node.nics.iter().enumerate() {
            qemu.arg("-netdev").arg(format!("hubport,id=n{i},hubid={i}"));
            qemu.arg("-device")
                .arg(format!("virtio-net-pci,netdev=n{i},mac={}", nic.mac));
        }
        for disk in &node.disks {
            let path = of_node.disk(disk.name.as_str());
            blank(&path, disk.size.bytes());
            qemu.arg("-drive").arg(format!(
                "file={},if=none,id={},format=qcow2,cache=unsafe",
                path.display(),
                disk.name
            ));
            qemu.arg("-device")
                .arg(format!("virtio-blk-pci,drive={},serial={}", disk.name, disk.serial));
        }
        for c in &given {
            qemu.arg("-fw_cfg")
                .arg(format!("name={},file={}", c.name, c.path.display()));
        }
        let process = qemu.stdin(Stdio::null()).spawn().unwrap();
        Self {
            command: qemu,
            qemu: process,
            target: Target::new(&files, name, ssh),
            agent: of_node.agent(),
            files,
            ports,
            dir,
        }
    }

    /// Loss of power, then power again: disks and credentials are the same.
    pub fn power_cycle(&mut self) {
        self.kill();
        self.qemu = self.command.spawn().unwrap();
    }

    /// Carries requests to QEMU's guest agent.
    pub fn qemu_agent(&self) -> impl FnMut(&str, Duration) -> Result<String> + Send + 'static {
        let path = self.dir.path().join("agent");
        let mut stream: Option<BufReader<UnixStream>> = None;
        move |json, timeout| {
            let failed =
                |e: std::io::Error| Error::Operation(Problem::new("reach the guest agent's socket").observed(e));
            if stream.is_none() {
                stream = Some(BufReader::new(UnixStream::connect(&path).map_err(failed)?));
            }
            let s = stream.as_mut().expect("just made");
            s.get_mut().set_read_timeout(Some(timeout)).map_err(failed)?;
            s.get_mut().write_all(format!("{json}\n").as_bytes()).map_err(failed)?;
            let mut line = String::new();
            s.read_line(&mut line).map_err(failed)?;
            Ok(line)
        }
    }

    /// The arguments of the process, as every user of the host can read them.
    pub fn command_line(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/cmdline", self.qemu.id())).unwrap()).replace('\0', " ")
    }

    /// Ends it as a loss of power would.
    pub fn kill(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = std::fs::read(self.files.node(&self.target.node).console_log()).unwrap_or_default();
            eprintln!(
                "the console's end:\n{}",
                String::from_utf8_lossy(&console[console.len().saturating_sub(1500)..])
            );
        }
        self.kill();
    }
}

fn qemu_img(arguments: &[&std::ffi::OsStr]) {
    assert!(Command::new("qemu-img").args(arguments).status().unwrap().success());
}

fn overlay(base: &std::path::Path, path: &std::path::Path) {
    let [create, q, f, qcow2, b, upper_f] = ["create", "-q", "-f", "qcow2", "-b", "-F"].map(std::ffi::OsStr::new);
    qemu_img(&[
        create,
        q,
        f,
        qcow2,
        b,
        base.as_os_str(),
        upper_f,
        qcow2,
        path.as_os_str(),
    ]);
}

fn blank(path: &std::path::Path, bytes: u64) {
    let size = bytes.to_string();
    let [create, q, f, qcow2] = ["create", "-q", "-f", "qcow2"].map(std::ffi::OsStr::new);
    qemu_img(&[create, q, f, qcow2, path.as_os_str(), size.as_ref()]);
}
