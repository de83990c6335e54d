//! What this workstation has and lacks: `failoverlab doctor`.
//!
//! [`gather`] looks, [`evaluate`] judges: the second is pure, so that a host that is not here can be tested.

mod facts;

pub use facts::{Facts, NoKvm, gather};

use crate::error::Result;
use crate::files::Home;
use crate::hypervisor::accel::Boot;
use crate::units::Size;
use facts::{ACCOUNT, DRIVER_DIRS, PROGRAMS, QUEUE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Ids that a Debian uses, `nobody` (65534) included.
const IDS: u64 = 65_536;

/// Three machines of 384 MiB and what QEMU needs around each.
const MEMORY_NEEDED: Size = Size::mib(1536);
const MEMORY_GOOD: Size = Size::mib(3072);
/// An image while it is built; an image, the overlays of a lab and a checkpoint.
const DISK_NEEDED: Size = Size::mib(2048);
const DISK_GOOD: Size = Size::mib(6144);

/// What systemd sets at boot; the kernel's own is 10 (docs/fabric.md has what either gives).
const FRAMES_GOOD: u64 = 512;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Labs run, but slower, or not all of the tool can be used.
    Warning,
    /// Labs cannot run, or images cannot be built.
    Missing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Missing => "missing",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its lasting name.
    pub id: String,
    /// How it came out.
    pub state: State,
    /// What was observed.
    #[serde(rename = "seen")]
    pub observed: String,
    /// What to do about it; absent where there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the shape.
    pub schema: u32,
    /// The host, for people.
    pub host: String,
    /// Whether nothing is missing: else the exit code is 4.
    pub ready: bool,
    /// In the order in which they matter.
    pub checks: Vec<Check>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.host)?;
        for c in &self.checks {
            writeln!(f, "{:8} {:16} {}", c.state, c.id, c.observed.replace('\n', "; "))?;
            if let Some(remedy) = &c.remedy {
                writeln!(f, "{:25} -> {remedy}", "")?;
            }
        }
        let worst = self.checks.iter().map(|c| c.state).max();
        f.write_str(match worst {
            Some(State::Missing) => "This host is not ready: see what is missing above.\n",
            Some(State::Warning) => "This host is ready; see the warnings above.\n",
            _ => "This host is ready.\n",
        })
    }
}

/// Looks and judges. `home` is what there is of it, `damaged` the labs in it whose record cannot be read, with the reason.
pub fn doctor(home: &Result<Home>, damaged: BTreeMap<String, String>) -> Report {
    evaluate(&gather(home, damaged))
}

/// Judges what was found.
pub fn evaluate(facts: &Facts) -> Report {
    let checks = vec![
        processor(facts),
        program(facts, "qemu", &["qemu-system-x86_64"]),
        program(facts, "qemu-img", &["qemu-img"]),
        driver(facts),
        account(facts),
        program(facts, "mmdebstrap", &["mmdebstrap"]),
        program(facts, "image-tools", &["mke2fs", "unshare", "setpriv"]),
        id_ranges(facts),
        namespaces(facts),
        keyring(facts),
        kvm(facts),
        memory(facts),
        disk(facts),
        folders(facts),
        labs(facts),
        socket_paths(facts),
        frames(facts),
        rust(facts),
    ];
    Report {
        schema: 1,
        host: format!("{}, user {}", facts.os, facts.user),
        ready: checks.iter().all(|c| c.state != State::Missing),
        checks,
    }
}

fn ok(id: &str, observed: impl Into<String>) -> Check {
    Check {
        id: id.into(),
        state: State::Ok,
        observed: observed.into(),
        remedy: None,
    }
}
fn warning(id: &str, observed: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        state: State::Warning,
        remedy: Some(remedy.into()),
        ..ok(id, observed)
    }
}
fn missing(id: &str, observed: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        state: State::Missing,
        remedy: Some(remedy.into()),
        ..ok(id, observed)
    }
}

impl Facts {
    fn root(&self) -> bool {
        self.uid == 0
    }
    /// `command`, as this user has to type it.
    fn sudo(&self, command: &str) -> String {
        if self.root() {
            command.to_owned()
        } else {
            format!("sudo {command}")
        }
    }
    fn install(&self, packages: &[&str]) -> String {
        self.sudo(&format!("apt-get install {}", packages.join(" ")))
    }
}

fn processor(facts: &Facts) -> Check {
    let id = "processor";
    match facts.machine.as_str() {
        "x86_64" => ok(id, "x86_64"),
        other => missing(id, other, "labs run on x86-64 hosts only"),
    }
}

fn program(facts: &Facts, id: &str, names: &[&str]) -> Check {
    let absent: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| !facts.programs.contains_key(*n))
        .collect();
    if absent.is_empty() {
        return ok(
            id,
            names
                .iter()
                .map(|n| facts.programs[*n].as_str())
                .collect::<Vec<_>>()
                .join("; "),
        );
    }
    let mut packages: Vec<&str> = absent
        .iter()
        .filter_map(|n| PROGRAMS.iter().find(|(p, _)| p == n))
        .map(|(_, p)| *p)
        .collect();
    packages.dedup();
    missing(
        id,
        format!("there is no {}", absent.join(", no ")),
        facts.install(&packages),
    )
}

fn driver(facts: &Facts) -> Check {
    let id = "libvirt-driver";
    match (&facts.driver, &facts.iohelper) {
        (Some(path), Some(_)) => ok(id, path.display().to_string()),
        (Some(_), None) => missing(id, "there is no libvirt_iohelper", facts.install(&["libvirt-daemon"])),
        (None, _) => missing(
            id,
            "there is no libvirt_driver_qemu.so",
            facts.install(&["libvirt-daemon", "libvirt-daemon-driver-qemu"]),
        ),
    }
}

/// What makes the account, as scripts/bootstrap does.
const MAKE_ACCOUNT: &str =
    "useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin libvirt-qemu";

/// As root, the driver looks its account up when it begins and gives up without it, though machines run as root.
fn account(facts: &Facts) -> Check {
    let id = "libvirt-account";
    // Other distributions build libvirt for other accounts, which their packages make.
    let elsewhere = |d: &std::path::PathBuf| !d.starts_with(DRIVER_DIRS[0]);
    match facts.account {
        _ if !facts.root() => ok(id, "only root needs it"),
        true => ok(id, ACCOUNT),
        false if facts.driver.as_ref().is_some_and(elsewhere) => ok(id, "this driver is built for another one"),
        false => missing(id, format!("there is no account {ACCOUNT}"), MAKE_ACCOUNT),
    }
}

fn id_ranges(facts: &Facts) -> Check {
    let id = "id-ranges";
    if facts.root() {
        return ok(id, "root needs none");
    }
    let tools = program(facts, id, &["newuidmap", "newgidmap"]);
    if tools.state != State::Ok {
        return tools;
    }
    let observed = format!("{} user ids, {} group ids", facts.subuids, facts.subgids);
    if facts.subuids.min(facts.subgids) >= IDS {
        return ok(id, observed);
    }
    let user = &facts.user;
    let remedy = facts.sudo(&format!(
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    ));
    missing(
        id,
        format!("{observed} in /etc/subuid and /etc/subgid, {IDS} are needed"),
        format!("{remedy} (a range that nobody else has)"),
    )
}

fn namespaces(facts: &Facts) -> Check {
    let id = "user-namespaces";
    let Err(observed) = &facts.namespaces else {
        return ok(
            id,
            if facts.root() {
                "root may make name spaces"
            } else {
                "may be made"
            },
        );
    };
    let is = |name: &str, value: &str| facts.sysctls.get(name).is_some_and(|v| v == value);
    let set = |setting: &str| {
        let now = facts.sudo(&format!("sysctl -w {setting}"));
        format!(
            "{now}; to keep it: echo {setting} | {}",
            facts.sudo("tee /etc/sysctl.d/60-failoverlab.conf")
        )
    };
    let remedy = if is("kernel.apparmor_restrict_unprivileged_userns", "1") && !facts.root() {
        set("kernel.apparmor_restrict_unprivileged_userns=0")
    } else if is("kernel.unprivileged_userns_clone", "0") && !facts.root() {
        set("kernel.unprivileged_userns_clone=1")
    } else if is("user.max_user_namespaces", "0") {
        set("user.max_user_namespaces=65536")
    } else if facts.subuids.min(facts.subgids) < IDS && !facts.root() {
        "first give your user a range of ids (above)".to_owned()
    } else {
        "a container must be allowed to make name spaces (CAP_SYS_ADMIN); else run on the host itself".to_owned()
    };
    missing(id, observed.clone(), remedy)
}

fn keyring(facts: &Facts) -> Check {
    let (path, there) = &facts.keyring;
    match there {
        true => ok("debian-keyring", path.display().to_string()),
        false => missing(
            "debian-keyring",
            format!("there is no {}", path.display()),
            facts.install(&["debian-archive-keyring"]),
        ),
    }
}

fn kvm(facts: &Facts) -> Check {
    let id = "kvm";
    let slower = "labs run under emulation, several times slower";
    match (&facts.kvm, &facts.kvm_boot) {
        (Err(observed @ NoKvm::Denied(_)), _) => warning(
            id,
            format!("{observed}: {slower}"),
            facts.sudo(&format!("adduser {} kvm", facts.user)) + ", then log in again",
        ),
        (Err(observed), _) => warning(
            id,
            format!("{observed}: {slower}"),
            "switch on virtualisation in the firmware, or in the settings of the machine that hosts this one",
        ),
        (Ok(()), Some(Boot::Failed { observed })) => warning(
            id,
            format!("/dev/kvm opens but no guest booted ({observed}): {slower}"),
            "this host's own hypervisor does not pass it on properly: nothing to do here; `up --accel kvm` tries again",
        ),
        (Ok(()), Some(Boot::Booted { wall_ms, .. })) => ok(id, format!("a guest booted in {wall_ms} ms")),
        (Ok(()), None) => ok(id, "/dev/kvm opens; whether a guest boots is found by the first `up`"),
    }
}

fn memory(facts: &Facts) -> Check {
    let within = facts.memory_group.as_ref();
    let within = within.map_or(String::new(), |group| {
        format!(" within the control group {}", group.display())
    });
    let observed = format!("{} MiB can be used{within}", facts.memory >> 20);
    let remedy = match &facts.memory_group {
        Some(_) => "raise that group's memory limit, close programs in it, or give the lab's nodes less memory",
        None => "close programs, or give the lab's nodes less memory",
    };
    let lab = format!("{observed}; the lab ccr takes {} MiB", MEMORY_NEEDED.bytes() >> 20);
    match facts.memory {
        m if m < MEMORY_NEEDED.bytes() => missing("memory", lab, remedy),
        m if m < MEMORY_GOOD.bytes() => warning("memory", lab, remedy),
        _ => ok("memory", observed),
    }
}

fn disk(facts: &Facts) -> Check {
    let id = "disk";
    let Some((path, free)) = facts.disks.iter().min_by_key(|(_, free)| *free) else {
        return warning(id, "free disk space could not be found out", "see `df`");
    };
    let observed = format!("{} MiB are free at {}", free >> 20, path.display());
    let remedy = "free disk space, or set FAILOVERLAB_HOME to a folder on a larger disk";
    match *free {
        f if f < DISK_NEEDED.bytes() => missing(id, observed, remedy),
        f if f < DISK_GOOD.bytes() => warning(id, observed, remedy),
        _ => ok(id, observed),
    }
}

fn folders(facts: &Facts) -> Check {
    let id = "folders";
    match &facts.folders {
        Ok(()) => ok(id, "those for images, labs and sockets can be used"),
        Err((observed, remedy)) => missing(id, observed, remedy),
    }
}

fn labs(facts: &Facts) -> Check {
    let id = "labs";
    if facts.damaged.is_empty() {
        return ok(id, "every record can be read");
    }
    let downs: Vec<String> = facts
        .damaged
        .keys()
        .map(|lab| format!("failoverlab down {lab}"))
        .collect();
    let reasons: Vec<&str> = facts.damaged.values().map(String::as_str).collect();
    warning(id, reasons.join("; "), downs.join("; "))
}

fn socket_paths(facts: &Facts) -> Check {
    let id = "socket-paths";
    match &facts.socket_paths {
        Ok(()) => ok(id, "the longest names fit"),
        Err(observed) => missing(
            id,
            observed.clone(),
            "set FAILOVERLAB_HOME (or XDG_RUNTIME_DIR) to a shorter path",
        ),
    }
}

/// How many frames may wait for QEMU in a cable's socket.
fn frames(facts: &Facts) -> Check {
    let id = "frame-queue";
    let set = format!("{QUEUE}={FRAMES_GOOD}");
    let remedy = format!("before machines start: {}", facts.sudo(&format!("sysctl -w {set}")));
    let slower = "the machines' networks take more processor time, and are slower on a busy host";
    match facts.sysctls.get(QUEUE).map(|v| (v, v.parse::<u64>())) {
        Some((_, Ok(n))) if n >= FRAMES_GOOD => ok(id, format!("{n} frames")),
        Some((value, _)) => warning(id, format!("{QUEUE} is {value}: {slower}"), remedy),
        None => warning(
            id,
            format!("{QUEUE} cannot be read; where it is small, {slower}"),
            remedy,
        ),
    }
}

fn rust(facts: &Facts) -> Check {
    let id = "rust";
    let needed = env!("CARGO_PKG_RUST_VERSION");
    let remedy = format!("only to build failoverlab itself: rustup toolchain install {needed} (https://rustup.rs)");
    match &facts.rustc {
        Some(observed) if version(observed) >= version(needed) => ok(id, observed.clone()),
        Some(observed) => warning(id, format!("{observed}; {needed} is needed"), remedy),
        None => warning(id, format!("there is no rustc; {needed} is needed"), remedy),
    }
}

/// The first `1.95` or `1.95.0` in a text, as numbers.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.').map(|p| p.parse().ok());
        Some((parts.next()??, parts.next()??))
    })
}

#[cfg(test)]
mod tests;
