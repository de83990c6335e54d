//! The typed model of a machine: what `templates/domain.xml` is rendered from.

use crate::image::qemu_img::DiskFormat;
use crate::spec::Mac;
use crate::units::Size;
use std::path::PathBuf;

/// How a machine's processor is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's own emulation.
    Tcg,
}

/// A machine, as QEMU shall run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Name of the domain: the node's.
    pub name: String,
    /// UUID of the domain; the same in every fork.
    pub uuid: String,
    /// The lab (or fork) that it belongs to: written into the domain's metadata.
    pub label: String,
    /// Memory.
    pub memory: Size,
    /// Processors.
    pub vcpus: u8,
    /// Acceleration.
    pub accel: Accel,
    /// Kernel for direct boot.
    pub kernel: PathBuf,
    /// Initramfs for direct boot.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Disks in order: vda is the root overlay.
    pub disks: Vec<Disk>,
    /// Ports on lab networks, in order.
    pub ports: Vec<Port>,
    /// The tool's own port.
    pub mgmt: Mgmt,
    /// Boot credentials: fw_cfg name (`opt/io.systemd.credentials/…`) → file.
    pub credentials: Vec<Credential>,
    /// Unix socket of the serial console.
    pub console: PathBuf,
    /// File that keeps what the serial console printed.
    pub console_log: PathBuf,
    /// Unix socket of the agent in the machine.
    pub agent: PathBuf,
    /// Unix socket of QEMU's guest agent's channel; libvirt chooses where `None`.
    pub qemu_agent: Option<PathBuf>,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// Target in the guest: `vda`, `sda`.
    pub target: String,
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Serial in the guest.
    pub serial: Option<String>,
    /// Open in several machines: raw, virtio-scsi, cache none.
    pub shared: bool,
}

/// What the cables of a lab are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CableKind {
    /// UDP on loopback: any QEMU has it, any local user can send to it.
    #[default]
    Udp,
    /// Unix datagrams in a folder that only its owner can enter: QEMU 7.2 and later.
    Unix,
}

/// A cable between a machine and the fabric: each Ethernet frame is one datagram.
///
/// Written to the lab's record as `"fabric"` and `"local"`: two numbers are UDP ports, two texts are paths.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Cable {
    /// UDP ports on 127.0.0.1.
    Udp {
        /// Bound by the fabric: QEMU sends there.
        fabric: u16,
        /// Bound by QEMU.
        local: u16,
    },
    /// Sockets in a folder of the lab.
    Unix {
        /// Bound by the fabric: QEMU sends there.
        fabric: PathBuf,
        /// Bound by QEMU, which removes what is there.
        local: PathBuf,
    },
}

impl Cable {
    /// What it is made of.
    pub fn kind(&self) -> CableKind {
        match self {
            Self::Udp { .. } => CableKind::Udp,
            Self::Unix { .. } => CableKind::Unix,
        }
    }
}

/// A port on a lab network.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// The network, for people.
    pub network: String,
    /// MAC in the guest.
    pub mac: Mac,
    /// What it is plugged into.
    pub cable: Cable,
    /// Carrier.
    pub link_up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u16,
}

/// The tool's own port: user-mode networking, restricted, one forwarded port for SSH.
#[derive(Debug, Clone, PartialEq)]
pub struct Mgmt {
    /// MAC in the guest.
    pub mac: Mac,
    /// TCP port on 127.0.0.1 that leads to the guest's port 22.
    pub ssh: u16,
}

/// A boot credential as an fw_cfg file: no secret is on a command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// fw_cfg name, at most 55 characters.
    pub name: String,
    /// The file, mode 0600.
    pub path: PathBuf,
}
