//! From the lab's record to machines, files and ports: what was chosen becomes what QEMU runs.

use super::checkpoint::{local_disks, top_layer};
use super::record::{DesiredState, LabRecord, MachineRecord};
use crate::error::{IoContext, Result};
use crate::fabric::PortAssignment;
use crate::files::LabFiles;
use crate::hypervisor::{Credential, Disk, DiskFormat, Machine, Mgmt, Port};
use crate::spec::{Lab, Node};
use std::net::{Ipv4Addr, TcpListener};

/// What is chosen for a lab's machines before they are made.
pub fn choose(desired: &DesiredState) -> Result<Vec<MachineRecord>> {
    // All listeners are open at once, so that no two machines get one port.
    let held: Vec<TcpListener> = desired
        .lab
        .nodes
        .iter()
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).tried("find a free port for SSH", "127.0.0.1"))
        .collect::<Result<_>>()?;
    desired
        .lab
        .nodes
        .iter()
        .zip(&held)
        .map(|(node, port)| {
            Ok(MachineRecord {
                node: node.name.to_string(),
                uuid: uuid(&desired.lab.name, &node.name),
                ssh_port: port.local_addr().tried("find a free port for SSH", &node.name)?.port(),
            })
        })
        .collect()
}

/// Another free port, for a machine whose own was taken in the meantime.
pub fn another_ssh_port() -> Result<u16> {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).tried("find a free port for SSH", "127.0.0.1")?;
    Ok(held.local_addr().tried("find a free port for SSH", "127.0.0.1")?.port())
}

/// A UUID made from the names, so that every fork of a machine has the same one (a restore keeps it).
fn uuid(lab: &str, node: &str) -> String {
    let hash = blake3::hash(format!("failoverlab/{lab}/{node}").as_bytes());
    let mut b: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
    // RFC 9562, version 8: custom.
    b[6] = b[6] & 0x0f | 0x80;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The disks of `node` as they are now: its own, each by the layer that is written to, then those that it shares.
pub fn disks(lab: &Lab, files: &LabFiles, node: &Node) -> Vec<Disk> {
    let nf = files.node(&node.name);
    // The root is `/dev/vda` on the kernel's command line; the guest finds the others by their serials.
    let serials = std::iter::once(None).chain(node.disks.iter().map(|d| Some(d.serial.clone())));
    let own = local_disks(node).into_iter().zip(serials);
    let own = own.map(|((target, name), serial)| Disk {
        target,
        path: top_layer(&nf, &name),
        format: DiskFormat::Qcow2,
        serial,
        shared: false,
    });
    let shared = lab.shared_disks.iter().filter(|d| d.shared_by.contains(&node.name));
    let shared = shared.zip('a'..='z').map(|(disk, letter)| Disk {
        target: format!("sd{letter}"),
        path: files.shared_disk(&disk.name),
        format: DiskFormat::Raw,
        serial: Some(disk.serial.clone()),
        shared: true,
    });
    own.chain(shared).collect()
}

/// The machine of `node`, as QEMU shall run it.
pub fn machine(record: &LabRecord, files: &LabFiles, node: &Node, credentials: Vec<Credential>) -> Option<Machine> {
    let chosen = record.machine(&node.name)?;
    let nf = files.node(&node.name);
    let image = &record.desired.image;
    let port_of = |network: &str| -> Option<&PortAssignment> {
        record
            .ports
            .iter()
            .find(|p| p.network == network && p.node == node.name.as_str())
    };
    let ports = node
        .nics
        .iter()
        .map(|nic| {
            let assigned = port_of(&nic.network)?;
            Some(Port {
                network: nic.network.to_string(),
                mac: nic.mac,
                cable: assigned.cable.clone(),
                link_up: true,
                mtu: record.desired.lab.network(&nic.network)?.mtu,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Machine {
        name: node.name.to_string(),
        uuid: chosen.uuid.clone(),
        label: record.instance.clone(),
        memory: node.memory,
        vcpus: node.vcpus,
        accel: record.desired.accel,
        kernel: image.kernel.clone(),
        initrd: image.initrd.clone(),
        // The name is there before any unit runs.
        cmdline: format!("{} systemd.hostname={}", image.cmdline, node.name),
        disks: disks(&record.desired.lab, files, node),
        ports,
        mgmt: Mgmt {
            mac: node.mgmt_mac,
            ssh: chosen.ssh_port,
        },
        credentials,
        console: nf.console(),
        console_log: nf.console_log(),
        agent: nf.agent(),
        qemu_agent: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_depends_on_the_names_only() {
        let a = uuid("ccr", "node1");
        assert_eq!(a, uuid("ccr", "node1"));
        assert_ne!(a, uuid("ccr", "node2"));
        assert_eq!(a.len(), 36);
        assert_eq!(&a[14..15], "8");
    }
}
