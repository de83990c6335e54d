//! Machines: the virt crate behind one small interface, with a stateful fake.
//!
//! `embedded.rs` is libvirt's in-process QEMU driver, `ffi.rs` holds all `unsafe`, `machine.rs` is the typed model that
//! `templates/domain.xml` is rendered from, `fake.rs` parses that XML and behaves like a hypervisor.

pub mod accel;
mod described;
mod edit;
mod embedded;
mod fake;
mod ffi;
mod lifecycle;
mod machine;
mod memory;
mod orphans;
mod power_cut;
mod reaper;
mod refusal;
mod template;
mod tsc;

pub use crate::image::qemu_img::DiskFormat;
pub use described::*;
pub use embedded::{Embedded, log_environment};
pub use fake::{Fake, FakeDomain, Kind};
pub use ffi::inherit_no_files;
pub use machine::*;
pub use reaper::become_subreaper;
pub use template::{NAMESPACE, TRANSLATED, UNIX_PORTS};

use crate::error::{Error, Problem, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What libvirt says of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Its processors run.
    Running,
    /// Suspended: the guest's boot-time clock stands still.
    Paused,
    /// The process is gone or going.
    Off,
    /// Crashed or in a state that we do not use.
    Other,
}

/// A domain that libvirt has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name (the node's).
    pub name: String,
    /// Its state.
    pub state: DomainState,
    /// The QEMU process, where libvirt's pid file names it.
    pub pid: Option<u32>,
    /// The lab's label in its metadata; none where failoverlab did not make it.
    pub label: Option<String>,
}

/// The state of a machine among these domains. Ours are transient: a machine without one is off.
pub fn power(domains: &[Domain], name: &str) -> DomainState {
    let domain = domains.iter().find(|d| d.name == name);
    domain.map_or(DomainState::Off, |d| d.state)
}

/// Something happened to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// The domain.
    pub name: String,
    /// `started`, `suspended`, `resumed`, `stopped`, `crashed` …
    pub what: String,
    /// libvirt's detail: `destroyed`, `failed`, `shutdown` …
    pub detail: String,
    /// The host's monotonic clock, microseconds.
    pub monotonic_us: u64,
}

/// Hears events on the hypervisor's own thread; must not block.
pub type Listener = Box<dyn Fn(DomainEvent) + Send + Sync>;

/// The part of libvirt that failoverlab uses. Calls block: never on an async worker.
///
/// Errors are [`crate::error::Error::Operation`] with libvirt's own message in `seen`.
pub trait Hypervisor: Send + Sync {
    /// Creates and starts a transient domain; paused where asked.
    fn create(&self, xml: &str, paused: bool) -> Result<()>;
    /// Every domain of this connection. One that cannot be looked at is an error: it is not absent.
    fn list(&self) -> Result<Vec<Domain>>;
    /// One domain; `None` where there is no such.
    fn lookup(&self, name: &str) -> Result<Option<Domain>>;
    /// The live XML.
    fn xml(&self, name: &str) -> Result<String>;
    /// Stops the processors at once.
    fn suspend(&self, name: &str) -> Result<()>;
    /// Lets the processors run again.
    fn resume(&self, name: &str) -> Result<()>;
    /// Ends the process; waits until it is gone. A domain that is gone already is a success.
    fn destroy(&self, name: &str) -> Result<()>;
    /// Carrier of a lab port (by MAC), as the guest sees it.
    fn set_link(&self, name: &str, mac: &str, up: bool) -> Result<()>;
    /// One command of the machine protocol (QMP JSON); the answer's JSON.
    fn monitor(&self, name: &str, command: &str) -> Result<String>;
    /// One command of the guest agent (JSON); the answer's JSON.
    fn agent(&self, name: &str, command: &str, timeout: Duration) -> Result<String>;
    /// Memory and device state of a suspended domain into `memory`, its overlays layered; the process lives on, suspended.
    ///
    /// `disks`: target (`vda`) → the new overlay, an empty qcow2 file on the disk's present one that the caller made (while the domain
    /// still ran). Every disk must be named but the shared raw ones, which cannot be layered. After a failure each disk is on its old
    /// file or on its overlay: [`Hypervisor::xml`] says which.
    fn snapshot(&self, name: &str, memory: &Path, disks: &[(String, PathBuf)]) -> Result<()>;
    /// A domain from a memory file, described by `xml` (other disk paths, ports and sockets than at the snapshot); suspended.
    fn restore(&self, memory: &Path, xml: &str) -> Result<()>;
    /// Hears every event from now on; called on the hypervisor's own thread, must not block.
    fn listen(&self, f: Listener);
}

/// Whether the system in a machine has brought up the tool's own port ([`Mgmt`]): it then has told the device which frames it wants.
pub fn mgmt_is_up(hypervisor: &dyn Hypervisor, name: &str) -> Result<bool> {
    let answer = hypervisor.monitor(name, r#"{"execute":"query-rx-filter"}"#)?;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let mgmt = answer["return"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|port| port["name"] == "mgmt");
    // A virtio port that no system has touched takes every frame.
    Ok(mgmt.is_some_and(|port| port["promiscuous"] == serde_json::Value::Bool(false)))
}

/// Turns an `{"error": …}` answer of QEMU's monitor or of the guest agent into an error with its own words.
fn refused(what: &str, on: &str, answer: &str) -> Result<()> {
    let json: serde_json::Value = serde_json::from_str(answer).map_err(|e| {
        Error::Operation(
            Problem::new(what)
                .on(on)
                .observed(format!("an answer that is no JSON: {e}")),
        )
    })?;
    let Some(error) = json.get("error") else { return Ok(()) };
    let word = |key| error.get(key).and_then(serde_json::Value::as_str).unwrap_or("?");
    Err(Error::Operation(Problem::new(what).on(on).observed(format!(
        "{} ({})",
        word("desc"),
        word("class")
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Size;

    /// A machine with one of everything.
    pub(super) fn machine(name: &str) -> Machine {
        let disk = |target: &str, format, serial: Option<&str>, shared| Disk {
            target: target.into(),
            path: format!("/state/node1/{target}.img").into(),
            format,
            serial: serial.map(Into::into),
            shared,
        };
        let port = |network: &str, mac: &str, n: u16, link_up| Port {
            network: network.into(),
            mac: mac.parse().unwrap(),
            cable: Cable::Udp {
                local: 40100 + n,
                fabric: 40000 + n,
            },
            link_up,
            mtu: if link_up { 1500 } else { 9000 },
        };
        Machine {
            name: name.into(),
            uuid: "6f6a1b54-4e4b-4b0a-9d5b-0a1f6f3d2c01".into(),
            label: "ccr@2".into(),
            memory: Size::mib(384),
            vcpus: 1,
            accel: Accel::Tcg,
            kernel: "/cache/vmlinuz".into(),
            initrd: "/cache/initrd.img".into(),
            cmdline: "root=/dev/vda rw console=ttyS0".into(),
            disks: vec![
                disk("vda", DiskFormat::Qcow2, None, false),
                disk("vdb", DiskFormat::Qcow2, Some("data"), false),
                disk("sda", DiskFormat::Raw, Some("quorum"), true),
            ],
            ports: vec![
                port("public", "52:54:00:01:00:0b", 1, true),
                port("private", "52:54:00:02:00:0b", 2, false),
            ],
            mgmt: Mgmt {
                mac: "52:54:00:00:00:0b".parse().unwrap(),
                ssh: 40201,
            },
            credentials: vec![Credential {
                name: "opt/io.systemd.credentials/tmpfiles.extra".into(),
                path: "/state/node1/credentials/tmpfiles".into(),
            }],
            console: "/run/node1.c".into(),
            console_log: "/state/node1/console.log".into(),
            agent: "/run/node1.a".into(),
            qemu_agent: None,
        }
    }
}
