//! Domain XML read back: what the fake believes in and what the tests of the template look at.

use crate::error::{Error, Problem, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The part of a domain's XML that failoverlab writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Described {
    /// `kvm` or `qemu`.
    #[serde(rename = "@type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Ours: the lab's label.
    #[serde(default)]
    pub metadata: Metadata,
    /// Memory.
    pub memory: Memory,
    /// Processors.
    pub vcpu: Vcpu,
    /// Boot credentials.
    #[serde(default)]
    pub sysinfo: Sysinfo,
    /// What it boots.
    pub os: Os,
    /// Its processor.
    pub cpu: Cpu,
    /// Its devices.
    pub devices: Devices,
    /// Arguments for QEMU that libvirt does not know.
    #[serde(default)]
    pub commandline: Commandline,
    /// Properties of devices that libvirt does not set.
    #[serde(default, rename = "override")]
    pub overrides: Overrides,
}

impl Described {
    /// Reads a domain's XML; what it does not know is passed over.
    pub fn parse(xml: &str) -> Result<Self> {
        quick_xml::de::from_str(xml)
            .map_err(|e| Error::Operation(Problem::new("read the machine's description").observed(e)))
    }

    /// The label of the lab that the domain belongs to; none where failoverlab did not make it.
    pub fn label(&self) -> Option<&str> {
        self.metadata.lab.as_ref().map(|l| l.name.as_str())
    }

    /// The file behind the disk that the guest has as `target`.
    pub fn disk(&self, target: &str) -> Option<&Path> {
        let disk = self.devices.disk.iter().find(|d| d.target.dev == target)?;
        Some(Path::new(&disk.source.file))
    }

    /// The file that keeps what the guest prints on its console.
    pub fn console_log(&self) -> Option<&Path> {
        let logs = self.devices.serial.iter().filter_map(|c| c.log.as_ref());
        logs.map(|log| Path::new(&log.file)).next()
    }

    /// The id of the NIC given to QEMU past libvirt that has this MAC.
    pub fn unmanaged_nic(&self, mac: &str) -> Option<&str> {
        self.unmanaged_nics()
            .find(|(_, m)| m.eq_ignore_ascii_case(mac))
            .map(|(id, _)| id)
    }

    /// Id and MAC of each NIC given to QEMU past libvirt.
    fn unmanaged_nics(&self) -> impl Iterator<Item = (&str, &str)> {
        self.commandline.arg.iter().filter_map(|a| {
            let option = |name| {
                let all = a.value.split(',').filter_map(|o| o.split_once('='));
                all.filter(|(n, _)| *n == name).map(|(_, v)| v).next()
            };
            Some((option("id")?, option("mac")?))
        })
    }

    /// The networks of unix datagrams given to QEMU past libvirt.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagrams> {
        let all = self.commandline.arg.iter();
        all.filter_map(|a| serde_json::from_str(&a.value).ok())
    }

    /// Ids of the NICs given to QEMU past libvirt that have no carrier.
    pub fn unmanaged_down(&self) -> impl Iterator<Item = &str> {
        let noted = self.metadata.lab.iter().flat_map(|l| &l.down);
        noted.filter_map(|d| self.unmanaged_nic(&d.mac))
    }

    /// Carrier of each lab port, by MAC.
    pub fn carriers(&self) -> BTreeMap<String, bool> {
        let managed = self.devices.interface.iter().map(|i| {
            let up = i.link.as_ref().is_none_or(|l| l.state != "down");
            (i.mac.address.clone(), up)
        });
        // libvirt does not know the carriers of the others: what we set is noted beside the lab's label.
        let lab = self.unmanaged_nics().filter(|(id, _)| *id != MGMT);
        let noted = self.metadata.lab.iter().flat_map(|l| &l.down);
        let down: Vec<&str> = noted.map(|d| d.mac.as_str()).collect();
        let unmanaged = lab.map(|(_, mac)| (mac.to_owned(), !down.contains(&mac)));
        managed.chain(unmanaged).collect()
    }
}

impl Label {
    /// Notes whether the port `mac`, which libvirt does not know, has a carrier.
    pub fn note_carrier(&mut self, mac: &str, up: bool) {
        self.down.retain(|d| !d.mac.eq_ignore_ascii_case(mac));
        self.down.extend((!up).then(|| Down { mac: mac.to_owned() }));
    }
}

/// Id of the NIC that is the tool's own.
pub(super) const MGMT: &str = "mgmt";

/// A network of unix datagrams, as QEMU's `-netdev` takes it (`NetdevDgramOptions`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datagrams {
    /// `dgram`.
    pub r#type: String,
    /// Its name: that of the NIC's `netdev`.
    pub id: String,
    /// Bound by QEMU.
    pub local: DatagramSocket,
    /// Where QEMU sends.
    pub remote: DatagramSocket,
}

/// A socket of such a network (`SocketAddress`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatagramSocket {
    /// `unix`.
    pub r#type: String,
    /// Where it is.
    pub path: String,
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($(#[$f:meta])* $field:ident : $t:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        pub struct $name { $($(#[$f])* #[serde(default)] pub $field: $t,)* }
    };
}

part! {
    /// What failoverlab keeps in a domain.
    Metadata {
        /// The lab.
        lab: Option<Label>,
    }
}
part! {
    /// The lab's label.
    Label {
        /// The label.
        #[serde(rename = "@name")]
        name: String,
        /// Ports whose carrier libvirt does not know, and which have none.
        down: Vec<Down>,
    }
}
part! {
    /// A port without carrier.
    Down {
        /// Its MAC.
        #[serde(rename = "@mac")]
        mac: String,
    }
}
part! {
    /// An amount of memory.
    Memory {
        /// Its unit; KiB where absent.
        #[serde(rename = "@unit")]
        unit: String,
        /// The number.
        #[serde(rename = "$text")]
        amount: u64,
    }
}
part! {
    /// Number of processors.
    Vcpu {
        /// The number.
        #[serde(rename = "$text")]
        number: u8,
    }
}
part! {
    /// Entries for the firmware.
    Sysinfo {
        /// `fwcfg`.
        #[serde(rename = "@type")]
        kind: String,
        /// The entries.
        entry: Vec<Entry>,
    }
}
part! {
    /// An fw_cfg entry.
    Entry {
        /// Its name.
        #[serde(rename = "@name")]
        name: String,
        /// The file behind it.
        #[serde(rename = "@file")]
        file: String,
    }
}
part! {
    /// What a machine boots.
    Os {
        /// Machine type.
        r#type: OsType,
        /// Kernel.
        kernel: String,
        /// Initramfs.
        initrd: String,
        /// Kernel command line.
        cmdline: String,
    }
}
part! {
    /// Machine type.
    OsType {
        /// `q35`.
        #[serde(rename = "@machine")]
        machine: String,
    }
}
part! {
    /// Processor model.
    Cpu {
        /// `maximum` or `host-passthrough`.
        #[serde(rename = "@mode")]
        mode: String,
    }
}
part! {
    /// Devices.
    Devices {
        /// Disks.
        disk: Vec<DiskDevice>,
        /// Ports on lab networks.
        interface: Vec<Interface>,
        /// Serial consoles.
        serial: Vec<CharDevice>,
        /// Channels.
        channel: Vec<CharDevice>,
        /// Sources of randomness.
        rng: Vec<Model>,
        /// Balloons: `none`.
        memballoon: Vec<Model>,
        /// Displays.
        graphics: Vec<Model>,
    }
}
part! {
    /// A device of which only the model matters.
    Model {
        /// The model.
        #[serde(rename = "@model")]
        model: String,
    }
}
part! {
    /// A disk.
    DiskDevice {
        /// Format and cache mode.
        driver: DiskDriver,
        /// File.
        source: FileSource,
        /// Where the guest sees it.
        target: DiskTarget,
        /// Serial.
        serial: Option<String>,
        /// Open in several machines.
        shareable: Option<Empty>,
    }
}
part! {
    /// Format and cache mode of a disk.
    DiskDriver {
        /// `qcow2` or `raw`.
        #[serde(rename = "@type")]
        format: String,
        /// Cache mode.
        #[serde(rename = "@cache")]
        cache: Option<String>,
    }
}
part! {
    /// A file.
    FileSource {
        /// Its path.
        #[serde(rename = "@file")]
        file: String,
    }
}
part! {
    /// Where a guest sees a disk.
    DiskTarget {
        /// `vda`, `sda`.
        #[serde(rename = "@dev")]
        dev: String,
        /// `virtio` or `scsi`.
        #[serde(rename = "@bus")]
        bus: String,
    }
}
part! {
    /// An element without content.
    Empty {}
}
part! {
    /// A port on a lab network.
    Interface {
        /// `udp`.
        #[serde(rename = "@type")]
        kind: String,
        /// MAC.
        mac: Address,
        /// The fabric's side and, inside, the machine's.
        source: UdpSource,
        /// Carrier.
        link: Option<Link>,
    }
}
part! {
    /// An address.
    Address {
        /// The address.
        #[serde(rename = "@address")]
        address: String,
    }
}
part! {
    /// Where frames go.
    UdpSource {
        /// Address of the fabric.
        #[serde(rename = "@address")]
        address: String,
        /// Port of the fabric.
        #[serde(rename = "@port")]
        port: u16,
        /// The machine's own socket.
        local: UdpLocal,
    }
}
part! {
    /// The machine's own socket.
    UdpLocal {
        /// Its address.
        #[serde(rename = "@address")]
        address: String,
        /// Its port.
        #[serde(rename = "@port")]
        port: u16,
    }
}
part! {
    /// Carrier.
    Link {
        /// `up` or `down`.
        #[serde(rename = "@state")]
        state: String,
    }
}
part! {
    /// A serial console or channel.
    CharDevice {
        /// `unix`.
        #[serde(rename = "@type")]
        kind: String,
        /// Its socket.
        source: Option<SocketSource>,
        /// The file that keeps what was printed.
        log: Option<LogFile>,
        /// Where the guest sees it.
        target: Option<CharTarget>,
    }
}
part! {
    /// A unix socket.
    SocketSource {
        /// `bind`: QEMU listens.
        #[serde(rename = "@mode")]
        mode: String,
        /// Its path.
        #[serde(rename = "@path")]
        path: String,
    }
}
part! {
    /// A log file.
    LogFile {
        /// Its path.
        #[serde(rename = "@file")]
        file: String,
    }
}
part! {
    /// Where the guest sees a channel.
    CharTarget {
        /// Its name.
        #[serde(rename = "@name")]
        name: Option<String>,
    }
}
part! {
    /// Arguments for QEMU.
    Commandline {
        /// In order.
        arg: Vec<Arg>,
    }
}
part! {
    /// One argument.
    Arg {
        /// Its value.
        #[serde(rename = "@value")]
        value: String,
    }
}
part! {
    /// Properties that libvirt does not set.
    Overrides {
        /// By device.
        device: Vec<Override>,
    }
}
part! {
    /// Properties of one device.
    Override {
        /// libvirt's name of the device.
        #[serde(rename = "@alias")]
        alias: String,
        /// The properties.
        frontend: Frontend,
    }
}
part! {
    /// A device's properties.
    Frontend {
        /// The properties.
        property: Vec<Property>,
    }
}
part! {
    /// A property.
    Property {
        /// Its name.
        #[serde(rename = "@name")]
        name: String,
        /// Its value.
        #[serde(rename = "@value")]
        value: String,
    }
}
