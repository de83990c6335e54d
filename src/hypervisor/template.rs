//! From the typed model of a machine to libvirt's domain XML.

use super::{Accel, Cable, CableKind, DatagramSocket, Datagrams, Disk, DiskFormat, Machine, Port, tsc};
use crate::error::{Error, Problem, Result};
use crate::files::SOCKET_PATH_MAX;
use crate::units::Size;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use std::path::Path;

/// Room for the code that QEMU translates under emulation. Its own default is 1 GiB, and it fills all that it gets: a machine of
/// 256 MiB was seen to take 1.4 GB of the host.
pub const TRANSLATED: Size = Size::mib(128);

/// XML namespace of what failoverlab writes into a domain's metadata.
pub const NAMESPACE: &str = "https://failoverlab.dev/xmlns/lab/1";

const TEMPLATE: &str = include_str!("../../templates/domain.xml");

/// Longest serial that a virtio disk shows its guest; QEMU cuts longer ones silently.
const SERIAL_MAX: usize = 20;

/// Longest fw_cfg name in bytes: QEMU's `FW_CFG_MAX_FILE_PATH`, 56, less the closing zero.
const FW_CFG_NAME_MAX: usize = 55;

/// The first of the two PCI slots of the ports that libvirt does not know. They come after the tool's own (0x1c), which so is the
/// guest's eth0, and before the chipset's (0x1f); libvirt fills the bus from below.
const CABLE_SLOT: usize = 0x1d;
/// Functions of a PCI slot.
const FUNCTIONS: usize = 8;
/// Most ports of a machine that can be plugged into unix sockets.
pub const UNIX_PORTS: usize = 2 * FUNCTIONS;

impl Machine {
    /// The domain XML. Refuses what XML cannot carry (control characters, paths that are no UTF-8) or QEMU would cut
    /// or misread (relative paths, long serials).
    pub fn to_xml(&self) -> Result<String> {
        self.view()
            .and_then(|v| render(&v).map_err(|e| format!("{e:#}")))
            .map_err(|seen| {
                Error::Operation(
                    Problem::new("describe the machine")
                        .on(self.name.escape_debug())
                        .observed(seen),
                )
            })
    }

    fn view(&self) -> Result<View<'_>, String> {
        Ok(View {
            namespace: NAMESPACE,
            kvm: self.accel == Accel::Kvm,
            name: text("name", &self.name)?,
            uuid: text("uuid", &self.uuid)?,
            label: text("label", &self.label)?,
            memory_kib: self.memory.0 / 1024,
            translated_kib: TRANSLATED.0 / 1024,
            vcpus: self.vcpus,
            kernel: path(&self.kernel)?,
            initrd: path(&self.initrd)?,
            cmdline: text("kernel command line", &self.cmdline)?,
            tsc_khz: (self.accel == Accel::Tcg).then(tsc::khz).flatten(),
            scsi: self.disks.iter().any(|d| d.shared),
            disks: self.disks.iter().map(disk).collect::<Result<_, _>>()?,
            ports: of_kind(&self.ports, CableKind::Udp).map(udp).collect(),
            odd_mtu: of_kind(&self.ports, CableKind::Udp).any(|(_, p)| p.mtu != 1500),
            cables: of_kind(&self.ports, CableKind::Unix)
                .map(cable)
                .collect::<Result<_, _>>()?,
            mgmt: MgmtView {
                mac: self.mgmt.mac.to_string(),
                ssh: self.mgmt.ssh,
            },
            credentials: self
                .credentials
                .iter()
                .map(|c| {
                    if c.name.len() > FW_CFG_NAME_MAX {
                        return Err(format!(
                            "the credential's name `{}` has {} bytes, fw_cfg takes {FW_CFG_NAME_MAX}",
                            c.name.escape_debug(),
                            c.name.len()
                        ));
                    }
                    Ok(CredentialView {
                        name: text("credential", &c.name)?,
                        path: path(&c.path)?,
                    })
                })
                .collect::<Result<_, _>>()?,
            console: path(&self.console)?,
            console_log: path(&self.console_log)?,
            agent: path(&self.agent)?,
            qemu_agent: self.qemu_agent.as_deref().map(path).transpose()?,
        })
    }
}

fn render(view: &View<'_>) -> Result<String, minijinja::Error> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.render_named_str("domain.xml", TEMPLATE, minijinja::value::Serde(view))
}

/// Text that XML can carry and that attribute normalisation leaves alone.
fn text<'a>(what: &str, s: &'a str) -> Result<&'a str, String> {
    match s
        .chars()
        .find(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
    {
        Some(c) => Err(format!(
            "the {what} `{}` has the character U+{:04X} in it",
            s.escape_debug(),
            u32::from(c)
        )),
        None => Ok(s),
    }
}

pub(super) fn path(p: &Path) -> Result<&str, String> {
    let s = p.to_str().ok_or_else(|| format!("the path {p:?} is no UTF-8"))?;
    if !p.is_absolute() {
        return Err(format!("the path `{}` is not absolute", s.escape_debug()));
    }
    text("path", s)
}

fn disk(d: &Disk) -> Result<DiskView<'_>, String> {
    if let Some(serial) = d.serial.as_deref().filter(|s| s.len() > SERIAL_MAX) {
        return Err(format!(
            "the serial `{}` of {} has more than {SERIAL_MAX} bytes",
            serial.escape_debug(),
            d.target
        ));
    }
    if d.shared && d.format != DiskFormat::Raw {
        return Err(format!("the shared disk {} is not raw", d.target));
    }
    Ok(DiskView {
        target: text("disk target", &d.target)?,
        path: path(&d.path)?,
        format: d.format,
        serial: d.serial.as_deref().map(|s| text("serial", s)).transpose()?,
        shared: d.shared,
    })
}

/// The ports with such cables, numbered in order.
fn of_kind(ports: &[Port], kind: CableKind) -> impl Iterator<Item = (usize, &Port)> {
    ports.iter().filter(move |p| p.cable.kind() == kind).enumerate()
}

fn udp((index, p): (usize, &Port)) -> PortView {
    let (local, fabric) = match p.cable {
        Cable::Udp { local, fabric } => (local, fabric),
        Cable::Unix { .. } => unreachable!("the others were chosen"),
    };
    PortView {
        // libvirt's own names.
        alias: format!("net{index}"),
        mac: p.mac.to_string(),
        local,
        fabric,
        link_up: p.link_up,
        mtu: p.mtu,
    }
}

fn cable((index, p): (usize, &Port)) -> Result<CableView, String> {
    let (local, fabric) = match &p.cable {
        Cable::Unix { local, fabric } => (local, fabric),
        Cable::Udp { .. } => unreachable!("the others were chosen"),
    };
    if index >= UNIX_PORTS {
        return Err(format!("more than {UNIX_PORTS} ports over unix datagrams"));
    }
    let socket = |at: &Path| -> Result<DatagramSocket, String> {
        let at = path(at)?;
        if at.len() >= SOCKET_PATH_MAX {
            let seen = format!("the socket `{}` has {} bytes", at.escape_debug(), at.len());
            return Err(format!("{seen}, Linux takes {}", SOCKET_PATH_MAX - 1));
        }
        Ok(DatagramSocket {
            r#type: "unix".into(),
            path: at.into(),
        })
    };
    let netdev = Datagrams {
        r#type: "dgram".into(),
        id: format!("cable{index}"),
        local: socket(local)?,
        remote: socket(fabric)?,
    };
    Ok(CableView {
        netdev: serde_json::to_string(&netdev).map_err(|e| e.to_string())?,
        id: netdev.id,
        address: format!("{:#x}.{}", CABLE_SLOT + index / FUNCTIONS, index % FUNCTIONS),
        mac: p.mac.to_string(),
        link_up: p.link_up,
        mtu: p.mtu,
    })
}

#[derive(Serialize)]
struct View<'a> {
    namespace: &'a str,
    kvm: bool,
    name: &'a str,
    uuid: &'a str,
    label: &'a str,
    memory_kib: u64,
    translated_kib: u64,
    vcpus: u8,
    kernel: &'a str,
    initrd: &'a str,
    cmdline: &'a str,
    tsc_khz: Option<u32>,
    scsi: bool,
    disks: Vec<DiskView<'a>>,
    ports: Vec<PortView>,
    odd_mtu: bool,
    cables: Vec<CableView>,
    mgmt: MgmtView,
    credentials: Vec<CredentialView<'a>>,
    console: &'a str,
    console_log: &'a str,
    agent: &'a str,
    qemu_agent: Option<&'a str>,
}

#[derive(Serialize)]
struct DiskView<'a> {
    target: &'a str,
    path: &'a str,
    format: DiskFormat,
    serial: Option<&'a str>,
    shared: bool,
}

#[derive(Serialize)]
struct PortView {
    alias: String,
    mac: String,
    local: u16,
    fabric: u16,
    link_up: bool,
    mtu: u16,
}

#[derive(Serialize)]
struct CableView {
    netdev: String,
    id: String,
    address: String,
    mac: String,
    link_up: bool,
    mtu: u16,
}

#[derive(Serialize)]
struct MgmtView {
    mac: String,
    ssh: u16,
}

#[derive(Serialize)]
struct CredentialView<'a> {
    name: &'a str,
    path: &'a str,
}

#[cfg(test)]
mod tests {
    use super::super::tests::machine;
    use super::*;
    use crate::hypervisor::{Credential, Described};
    use proptest::prelude::*;

    #[test]
    fn the_template_says_what_the_model_says() {
        let d = Described::parse(&machine("node1").to_xml().unwrap()).unwrap();
        assert_eq!((d.kind.as_str(), d.cpu.mode.as_str()), ("qemu", "maximum"));
        assert_eq!((d.name.as_str(), d.label()), ("node1", Some("ccr@2")));
        assert_eq!(d.uuid, "6f6a1b54-4e4b-4b0a-9d5b-0a1f6f3d2c01");
        assert_eq!((d.memory.unit.as_str(), d.memory.amount), ("KiB", 384 * 1024));
        assert_eq!(d.os.r#type.machine, "q35");
        let (ours, tsc) = d.os.cmdline.split_once(" tsc_early_khz=").unwrap();
        assert_eq!(ours, "root=/dev/vda rw console=ttyS0");
        assert_eq!(tsc.parse().ok(), tsc::khz());
        let [root, data, quorum] = d.devices.disk.as_slice() else {
            panic!("{:?}", d.devices.disk)
        };
        assert_eq!(
            (root.target.dev.as_str(), root.driver.format.as_str()),
            ("vda", "qcow2")
        );
        assert_eq!((root.serial.as_deref(), root.shareable.is_some()), (None, false));
        assert_eq!(
            (data.target.bus.as_str(), data.serial.as_deref()),
            ("virtio", Some("data"))
        );
        assert_eq!(
            (quorum.target.bus.as_str(), quorum.driver.format.as_str()),
            ("scsi", "raw")
        );
        assert_eq!(
            (quorum.driver.cache.as_deref(), quorum.shareable.is_some()),
            (Some("none"), true)
        );
        let [public, private] = d.devices.interface.as_slice() else {
            panic!("{:?}", d.devices.interface)
        };
        assert_eq!(
            (public.kind.as_str(), public.mac.address.as_str()),
            ("udp", "52:54:00:01:00:0b")
        );
        assert_eq!((public.source.port, public.source.local.port), (40001, 40101));
        assert_eq!(
            (public.source.address.as_str(), public.source.local.address.as_str()),
            ("127.0.0.1", "127.0.0.1")
        );
        let link = |i: &crate::hypervisor::Interface| i.link.as_ref().map(|l| l.state.clone());
        assert_eq!((link(public), link(private)), (Some("up".into()), Some("down".into())));
        let serial = &d.devices.serial[0];
        assert_eq!(serial.source.as_ref().map(|s| s.mode.as_str()), Some("bind"));
        assert_eq!(
            serial.log.as_ref().map(|l| l.file.as_str()),
            Some("/state/node1/console.log")
        );
        assert_eq!(
            d.devices.channel[0].target.as_ref().unwrap().name.as_deref(),
            Some("org.qemu.guest_agent.0")
        );
        let agent = &d.devices.channel[1];
        assert_eq!(agent.source.as_ref().map(|s| s.mode.as_str()), Some("bind"));
        assert_eq!(agent.target.as_ref().unwrap().name.as_deref(), Some(lab_agent::PORT));
        assert_eq!(
            (d.devices.memballoon[0].model.as_str(), d.devices.rng[0].model.as_str()),
            ("none", "virtio")
        );
        assert_eq!(d.devices.graphics, []);
        let [odd] = d.overrides.device.as_slice() else {
            panic!("{:?}", d.overrides)
        };
        assert_eq!(
            (odd.alias.as_str(), odd.frontend.property[0].value.as_str()),
            ("net1", "9000")
        );
        assert_eq!(d.sysinfo.entry[0].name, "opt/io.systemd.credentials/tmpfiles.extra");
        assert_eq!(d.unmanaged_nic("52:54:00:00:00:0B"), Some("mgmt"));
        assert_eq!(d.unmanaged_nic("52:54:00:00:00:0c"), None);
        let netdev = d.commandline.arg[1].value.split(',').collect::<Vec<_>>();
        assert_eq!(
            netdev,
            ["user", "id=mgmt", "restrict=on", "hostfwd=tcp:127.0.0.1:40201-:22"]
        );
    }

    /// A machine whose ports are plugged into unix sockets in `folder`; the second one has no carrier.
    fn over_unix(folder: &str) -> Machine {
        let mut m = machine("node1");
        for (n, p) in m.ports.iter_mut().enumerate() {
            p.cable = Cable::Unix {
                fabric: format!("{folder}/node1.{n}f").into(),
                local: format!("{folder}/node1.{n}").into(),
            };
        }
        m
    }

    #[test]
    fn unix_cables_are_given_to_qemu_past_libvirt() {
        let d = Described::parse(&over_unix("/run/ccr").to_xml().unwrap()).unwrap();
        assert_eq!(
            (d.devices.interface.as_slice(), d.overrides.device.as_slice()),
            (&[][..], &[][..])
        );
        let cables: Vec<Datagrams> = d.datagrams().collect();
        let ends = |c: &Datagrams| (c.id.clone(), c.local.path.clone(), c.remote.path.clone());
        assert_eq!(
            cables.iter().map(ends).collect::<Vec<_>>(),
            [
                ("cable0".into(), "/run/ccr/node1.0".into(), "/run/ccr/node1.0f".into()),
                ("cable1".into(), "/run/ccr/node1.1".into(), "/run/ccr/node1.1f".into()),
            ]
        );
        assert!(
            cables
                .iter()
                .all(|c| (c.r#type.as_str(), c.local.r#type.as_str()) == ("dgram", "unix"))
        );
        assert_eq!(d.unmanaged_nic("52:54:00:01:00:0b"), Some("cable0"));
        assert_eq!(d.unmanaged_down().collect::<Vec<_>>(), ["cable1"]);
        let carriers = [
            ("52:54:00:01:00:0b".to_owned(), true),
            ("52:54:00:02:00:0b".to_owned(), false),
        ];
        assert_eq!(d.carriers(), carriers.into(), "and the tool's own port is no lab port");
        let nic = |slot: &str| {
            d.commandline
                .arg
                .iter()
                .find(|a| a.value.contains(slot))
                .map(|a| a.value.clone())
        };
        assert!(nic("addr=0x1d.0,").unwrap().contains("netdev=cable0"));
        assert!(nic("addr=0x1d.1,").unwrap().ends_with(",host_mtu=9000"));
        // Both kinds in one machine.
        let mut both = over_unix("/run/ccr");
        both.ports[0].cable = machine("node1").ports[0].cable.clone();
        let d = Described::parse(&both.to_xml().unwrap()).unwrap();
        assert_eq!(
            (d.devices.interface.len(), d.datagrams().count(), d.carriers().len()),
            (1, 1, 2)
        );
    }

    #[test]
    fn a_socket_path_that_linux_would_not_take_is_refused() {
        let folder = |n: usize| format!("/{}", "x".repeat(n));
        // With `/node1.0f` and the closing zero.
        over_unix(&folder(107 - 10)).to_xml().unwrap();
        let e = over_unix(&folder(107 - 9)).to_xml().unwrap_err().to_string();
        assert!(e.contains("108 bytes, Linux takes 107"), "{e}");
        let mut m = over_unix("relative");
        assert!(m.to_xml().is_err());
        m = over_unix("/run");
        m.ports = (0..17).map(|_| m.ports[0].clone()).collect();
        assert!(m.to_xml().unwrap_err().to_string().contains("more than 16 ports"));
        m.ports.pop();
        assert!(m.to_xml().unwrap().contains("addr=0x1e.7,"));
    }

    #[test]
    fn kvm_machines_use_the_hosts_processor() {
        let m = Machine {
            accel: Accel::Kvm,
            disks: vec![],
            credentials: vec![],
            ..machine("node1")
        };
        assert_eq!(Described::parse(&m.to_xml().unwrap()).unwrap().os.cmdline, m.cmdline);
        let d = Described::parse(&m.to_xml().unwrap()).unwrap();
        assert_eq!((d.kind.as_str(), d.cpu.mode.as_str()), ("kvm", "host-passthrough"));
    }

    #[test]
    fn what_xml_or_qemu_would_change_is_refused() {
        let bad = |change: fn(&mut Machine), seen: &str| {
            let mut m = machine("node1");
            change(&mut m);
            let e = m.to_xml().unwrap_err();
            assert_eq!(e.exit_code(), 5);
            let said = e.problem().unwrap().observed.clone().unwrap();
            assert!(said.contains(seen), "{said}");
        };
        bad(|m| m.console = "/run/a\nb".into(), "U+000A");
        bad(|m| m.name = "a\0b".into(), "U+0000");
        bad(|m| m.cmdline = "a\u{fffe}".into(), "U+FFFE");
        bad(|m| m.kernel = "vmlinuz".into(), "not absolute");
        bad(|m| m.disks[1].serial = Some("x".repeat(21)), "more than 20 bytes");
        bad(|m| m.disks[2].format = DiskFormat::Qcow2, "not raw");
        bad(
            |m| {
                m.credentials.push(Credential {
                    name: "n".repeat(56),
                    path: "/x".into(),
                })
            },
            "fw_cfg takes 55",
        );
        bad(
            |m| {
                use std::os::unix::ffi::OsStrExt;
                m.initrd = Path::new(std::ffi::OsStr::from_bytes(b"/\xff")).into();
            },
            "no UTF-8",
        );
    }

    proptest! {
        #[test]
        fn hostile_text_comes_back_as_it_was(file in "/[^\\pC]{0,40}", label in "[^\\pC]{0,20}", cmdline in "([^\\pC ][^\\pC]{0,30}[^\\pC ])?") {
            let mut m = machine("node1");
            m.disks[0].path = file.clone().into();
            m.credentials[0].path = file.clone().into();
            m.console_log = file.clone().into();
            m.label.clone_from(&label);
            m.cmdline.clone_from(&cmdline);
            let d = Described::parse(&m.to_xml().unwrap()).unwrap();
            prop_assert_eq!(&d.devices.disk[0].source.file, &file);
            prop_assert_eq!(&d.sysinfo.entry[0].file, &file);
            prop_assert_eq!(&d.devices.serial[0].log.as_ref().unwrap().file, &file);
            prop_assert_eq!(d.label(), Some(label.as_str()));
            let (ours, _) = d.os.cmdline.rsplit_once(" tsc_early_khz=").unwrap();
            prop_assert_eq!(ours.trim(), cmdline.trim());
            prop_assert_eq!(d.devices.disk.len(), 3);
        }

        #[test]
        fn hostile_sockets_come_back_as_they_were(folder in "/[^\\pC]{0,10}") {
            let d = Described::parse(&over_unix(&folder).to_xml().unwrap()).unwrap();
            let sockets: Vec<_> = d.datagrams().map(|c| c.remote.path).collect();
            prop_assert_eq!(sockets, [0, 1].map(|n| format!("{folder}/node1.{n}f")));
        }

        #[test]
        fn any_text_is_rendered_or_refused(file in "/\\PC*|.*", name in ".*") {
            let mut m = machine(&name);
            m.disks[1].path = file.into();
            if let Ok(xml) = m.to_xml() {
                Described::parse(&xml).unwrap();
            }
        }

        #[test]
        fn garbage_is_no_description(xml in "\\PC*|<domain>.*</domain>") {
            prop_assert!(Described::parse(&xml).is_err());
        }
    }
}
