//! What this workstation has and lacks: `failoverlab doctor`.
//!
//! [`gather`] looks, [`evaluate`] judges: the second is pure, so that a host that is not here can be tested.

use crate::hypervisor::accel::{self, Boot};
use crate::image::Recipe;
use crate::image::run::{find_program, search_path};
use crate::lab::files::Home;
use crate::units::{Name, Size};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that are looked for, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("newuidmap", "uidmap"),
    ("newgidmap", "uidmap"),
];

/// Where libvirt keeps its drivers: Debian and Ubuntu, Fedora, Arch.
const DRIVER_DIRS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libvirt",
    "/usr/lib64/libvirt",
    "/usr/lib/libvirt",
];
const DRIVER: &str = "connection-driver/libvirt_driver_qemu.so";
const IOHELPERS: [&str; 2] = ["/usr/lib/libvirt/libvirt_iohelper", "/usr/libexec/libvirt_iohelper"];

/// Ids that a Debian uses, `nobody` (65534) included.
const IDS: u64 = 65_536;

/// Three machines of 384 MiB and what QEMU needs around each.
const MEMORY_NEEDED: Size = Size::mib(1536);
const MEMORY_GOOD: Size = Size::mib(3072);
/// An image while it is built; an image, the overlays of a lab and a checkpoint.
const DISK_NEEDED: Size = Size::mib(2048);
const DISK_GOOD: Size = Size::mib(6144);

/// What was found on the host. Every field is as the host says it, unjudged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `PRETTY_NAME` of os-release.
    pub os: String,
    /// `ID` of os-release: `debian`, `ubuntu`.
    pub os_id: String,
    /// Machine, as uname says: `x86_64`.
    pub machine: String,
    /// Effective user id.
    pub uid: u32,
    /// Name of the user.
    pub user: String,
    /// First line that each program of the list printed as its version; absent where there is no such program.
    pub programs: BTreeMap<String, String>,
    /// libvirt's driver for QEMU.
    pub driver: Option<PathBuf>,
    /// libvirt's program that writes a machine's memory into a file.
    pub iohelper: Option<PathBuf>,
    /// How many ids `/etc/subuid` gives the user.
    pub subuids: u64,
    /// How many ids `/etc/subgid` gives the user.
    pub subgids: u64,
    /// Values of the kernel settings on name spaces that exist here.
    pub sysctls: BTreeMap<String, String>,
    /// Whether name spaces could be made as a build makes them; what `unshare` said otherwise.
    pub namespaces: Result<(), String>,
    /// The keyring of the built-in image, and whether it is there.
    pub keyring: (PathBuf, bool),
    /// What `rustc --version` says.
    pub rustc: Option<String>,
    /// Memory that programs can still get, in bytes.
    pub memory: u64,
    /// Free space of the folder for images and of the one for labs, in bytes.
    pub disks: Vec<(PathBuf, u64)>,
    /// Whether /dev/kvm opens; why not.
    pub kvm: Result<(), String>,
    /// The boot under KVM that is remembered.
    pub kvm_boot: Option<Boot>,
    /// Why the longest names of labs and nodes would not fit into a socket's path.
    pub socket_paths: Result<(), String>,
}

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
    /// What was seen.
    pub seen: String,
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
            writeln!(f, "{:8} {:16} {}", c.state, c.id, c.seen.replace('\n', "; "))?;
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

/// Looks and judges.
pub fn doctor(home: &Home) -> Report {
    evaluate(&gather(home))
}

/// Judges what was found.
pub fn evaluate(facts: &Facts) -> Report {
    let checks = vec![
        processor(facts),
        program(facts, "qemu", &["qemu-system-x86_64"]),
        program(facts, "qemu-img", &["qemu-img"]),
        driver(facts),
        program(facts, "mmdebstrap", &["mmdebstrap"]),
        program(facts, "image-tools", &["mke2fs", "unshare", "setpriv"]),
        id_ranges(facts),
        namespaces(facts),
        keyring(facts),
        kvm(facts),
        memory(facts),
        disk(facts),
        socket_paths(facts),
        rust(facts),
    ];
    Report {
        schema: 1,
        host: format!("{}, user {}", facts.os, facts.user),
        ready: checks.iter().all(|c| c.state != State::Missing),
        checks,
    }
}

fn ok(id: &str, seen: impl Into<String>) -> Check {
    Check {
        id: id.into(),
        state: State::Ok,
        seen: seen.into(),
        remedy: None,
    }
}
fn warning(id: &str, seen: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        state: State::Warning,
        remedy: Some(remedy.into()),
        ..ok(id, seen)
    }
}
fn missing(id: &str, seen: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        state: State::Missing,
        remedy: Some(remedy.into()),
        ..ok(id, seen)
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

fn id_ranges(facts: &Facts) -> Check {
    let id = "id-ranges";
    if facts.root() {
        return ok(id, "root needs none");
    }
    let tools = program(facts, id, &["newuidmap", "newgidmap"]);
    if tools.state != State::Ok {
        return tools;
    }
    let seen = format!("{} user ids, {} group ids", facts.subuids, facts.subgids);
    if facts.subuids.min(facts.subgids) >= IDS {
        return ok(id, seen);
    }
    let user = &facts.user;
    let remedy = facts.sudo(&format!(
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    ));
    missing(
        id,
        format!("{seen} in /etc/subuid and /etc/subgid, {IDS} are needed"),
        format!("{remedy} (a range that nobody else has)"),
    )
}

fn namespaces(facts: &Facts) -> Check {
    let id = "user-namespaces";
    let Err(seen) = &facts.namespaces else {
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
    missing(id, seen.clone(), remedy)
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
        (Err(seen), _) if seen.contains("ermission denied") => warning(
            id,
            format!("{seen}: {slower}"),
            facts.sudo(&format!("adduser {} kvm", facts.user)) + ", then log in again",
        ),
        (Err(seen), _) => warning(
            id,
            format!("{seen}: {slower}"),
            "switch on virtualisation in the firmware, or in the settings of the machine that hosts this one",
        ),
        (Ok(()), Some(Boot::Failed { seen })) => warning(
            id,
            format!("/dev/kvm opens but no guest booted ({seen}): {slower}"),
            "this host's own hypervisor does not pass it on properly: nothing to do here; `up --accel kvm` tries again",
        ),
        (Ok(()), Some(Boot::Booted { wall_ms, .. })) => ok(id, format!("a guest booted in {wall_ms} ms")),
        (Ok(()), None) => ok(id, "/dev/kvm opens; whether a guest boots is found by the first `up`"),
    }
}

fn memory(facts: &Facts) -> Check {
    let seen = format!("{} MiB can be used", facts.memory >> 20);
    let remedy = "close programs, or give the lab's nodes less memory";
    let lab = format!("{seen}; the lab ccr takes {} MiB", MEMORY_NEEDED.bytes() >> 20);
    match facts.memory {
        m if m < MEMORY_NEEDED.bytes() => missing("memory", lab, remedy),
        m if m < MEMORY_GOOD.bytes() => warning("memory", lab, remedy),
        _ => ok("memory", seen),
    }
}

fn disk(facts: &Facts) -> Check {
    let id = "disk";
    let Some((path, free)) = facts.disks.iter().min_by_key(|(_, free)| *free) else {
        return warning(id, "free disk space could not be found out", "see `df`");
    };
    let seen = format!("{} MiB are free at {}", free >> 20, path.display());
    let remedy = "free disk space, or set FAILOVERLAB_HOME to a folder on a larger disk";
    match *free {
        f if f < DISK_NEEDED.bytes() => missing(id, seen, remedy),
        f if f < DISK_GOOD.bytes() => warning(id, seen, remedy),
        _ => ok(id, seen),
    }
}

fn socket_paths(facts: &Facts) -> Check {
    let id = "socket-paths";
    match &facts.socket_paths {
        Ok(()) => ok(id, "the longest names fit"),
        Err(seen) => missing(
            id,
            seen.clone(),
            "set FAILOVERLAB_HOME (or XDG_RUNTIME_DIR) to a shorter path",
        ),
    }
}

fn rust(facts: &Facts) -> Check {
    let id = "rust";
    let needed = env!("CARGO_PKG_RUST_VERSION");
    let remedy = format!("only to build failoverlab itself: rustup toolchain install {needed} (https://rustup.rs)");
    match &facts.rustc {
        Some(seen) if version(seen) >= version(needed) => ok(id, seen.clone()),
        Some(seen) => warning(id, format!("{seen}; {needed} is needed"), remedy),
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

/// Looks at this host. What cannot be read counts as absent.
pub fn gather(home: &Home) -> Facts {
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let uid = rustix::process::geteuid().as_raw();
    let user = user_name(uid);
    let ids = |file: &str| subordinate_ids(&std::fs::read_to_string(file).unwrap_or_default(), &user, uid);
    let name: Name = "debian-12".parse().expect("a valid name");
    let keyring = Recipe::load(&name).map(|r| r.debian.keyring).unwrap_or_default();
    Facts {
        os: os_field(&os, "PRETTY_NAME").unwrap_or_else(|| "an unknown system".into()),
        os_id: os_field(&os, "ID").unwrap_or_default(),
        machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
        uid,
        programs: PROGRAMS
            .iter()
            .filter_map(|(p, _)| Some(((*p).to_owned(), program_version(p)?)))
            .collect(),
        driver: std::env::var_os("LIBVIRT_DRIVER_DIR")
            .map(|d| Path::new(&d).join("libvirt_driver_qemu.so"))
            .into_iter()
            .chain(DRIVER_DIRS.iter().map(|d| Path::new(d).join(DRIVER)))
            .find(|p| p.exists()),
        iohelper: IOHELPERS.iter().map(PathBuf::from).find(|p| p.exists()),
        subuids: ids("/etc/subuid"),
        subgids: ids("/etc/subgid"),
        sysctls: [
            "kernel.apparmor_restrict_unprivileged_userns",
            "kernel.unprivileged_userns_clone",
            "user.max_user_namespaces",
        ]
        .into_iter()
        .filter_map(|name| {
            let value = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect(),
        namespaces: try_namespaces(uid == 0),
        keyring: (keyring.clone(), keyring.exists()),
        rustc: first_line("rustc", &["--version"]).ok(),
        memory: available_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        disks: [&home.cache, &home.state]
            .into_iter()
            .filter_map(|p| free_space(p))
            .collect(),
        kvm: std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop)
            .map_err(|e| {
                if e.kind() == std::io::ErrorKind::NotFound {
                    "there is no /dev/kvm".into()
                } else {
                    format!("/dev/kvm: {e}")
                }
            }),
        kvm_boot: accel::remembered(&home.accel()).and_then(|r| r.kvm),
        socket_paths: {
            let longest = "n".repeat(Name::MAX);
            home.lab(&longest)
                .check_socket_paths([longest.as_str()])
                .map_err(|e| e.to_string())
        },
        user,
    }
}

fn os_field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let by_id = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    // Users of a directory service are not in the file.
    let name = passwd.lines().find_map(by_id).or_else(|| std::env::var("USER").ok());
    name.unwrap_or_else(|| uid.to_string())
}

/// How many ids a file in the form of subuid(5) gives a user, by name or number.
fn subordinate_ids(text: &str, user: &str, uid: u32) -> u64 {
    let count = |line: &str| {
        let [who, _, count] = line.split(':').collect::<Vec<_>>()[..] else {
            return None;
        };
        (who == user || who == uid.to_string()).then(|| count.trim().parse::<u64>().ok())?
    };
    text.lines().filter_map(count).fold(0, u64::saturating_add)
}

fn available_memory(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|l| {
        l.strip_prefix("MemAvailable:")?
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse()
            .ok()
    });
    kib.unwrap_or(0_u64).saturating_mul(1024)
}

/// Free space at a folder, or at the nearest one above it that exists.
fn free_space(path: &Path) -> Option<(PathBuf, u64)> {
    let there = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some((path.to_owned(), stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Something to show for a program that is there: the first line of its version where it tells one.
fn program_version(program: &str) -> Option<String> {
    let path = find_program(program)?;
    // newuidmap knows no such option and would complain.
    if program.starts_with("new") {
        return Some(path.display().to_string());
    }
    let option = if program == "mke2fs" { "-V" } else { "--version" };
    Some(first_line(program, &[option]).unwrap_or_else(|_| path.display().to_string()))
}

/// First line of what a program prints; its complaint where it fails.
fn first_line(program: &str, args: &[&str]) -> Result<String, String> {
    let path = find_program(program).ok_or_else(|| format!("there is no {program}"))?;
    let run = Command::new(path)
        .args(args)
        .env("LC_ALL", "C")
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output();
    let out = run.map_err(|e| format!("{program}: {e}"))?;
    let text = String::from_utf8_lossy(if out.stdout.is_empty() {
        &out.stderr
    } else {
        &out.stdout
    })
    .into_owned();
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    if out.status.success() { Ok(line) } else { Err(line) }
}

/// Makes name spaces exactly as a build does, around a program that does nothing.
fn try_namespaces(root: bool) -> Result<(), String> {
    let ids: &[&str] = if root { &[] } else { &["--map-auto", "--map-root-user"] };
    let rest = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "true"];
    first_line("unshare", &[ids, &rest].concat()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user on Debian 12 with everything.
    fn good() -> Facts {
        Facts {
            os: "Debian GNU/Linux 12 (bookworm)".into(),
            os_id: "debian".into(),
            machine: "x86_64".into(),
            uid: 1000,
            user: "ann".into(),
            programs: PROGRAMS
                .iter()
                .map(|(p, _)| ((*p).to_owned(), format!("{p} 1.0")))
                .collect(),
            driver: Some(Path::new(DRIVER_DIRS[0]).join(DRIVER)),
            iohelper: Some(IOHELPERS[0].into()),
            subuids: 65_536,
            subgids: 65_536,
            sysctls: BTreeMap::from([("user.max_user_namespaces".into(), "96365".into())]),
            namespaces: Ok(()),
            keyring: ("/usr/share/keyrings/debian-archive-keyring.gpg".into(), true),
            rustc: Some("rustc 1.95.0 (59807616e 2026-04-14)".into()),
            memory: 8 << 30,
            disks: vec![("/home/ann/.cache/failoverlab".into(), 50 << 30)],
            kvm: Ok(()),
            kvm_boot: Some(Boot::Booted {
                wall_ms: 700,
                cpu_ms: 650,
            }),
            socket_paths: Ok(()),
        }
    }

    fn found(facts: &Facts, id: &str) -> Check {
        evaluate(facts).checks.into_iter().find(|c| c.id == id).unwrap()
    }

    #[test]
    fn a_good_host_is_ready() {
        let report = evaluate(&good());
        assert!(
            report.ready && report.checks.iter().all(|c| c.state == State::Ok),
            "{report}"
        );
        assert!(report.to_string().ends_with("This host is ready.\n"));
    }

    #[test]
    fn a_fresh_ubuntu_24_04_hears_of_each_obstacle() {
        let mut facts = good();
        facts.os = "Ubuntu 24.04.3 LTS".into();
        facts.os_id = "ubuntu".into();
        facts.programs = BTreeMap::from([
            ("mke2fs".into(), "mke2fs 1.47.0".into()),
            ("unshare".into(), "unshare from util-linux 2.39.3".into()),
            ("setpriv".into(), "setpriv from util-linux 2.39.3".into()),
        ]);
        facts.driver = None;
        facts
            .sysctls
            .insert("kernel.apparmor_restrict_unprivileged_userns".into(), "1".into());
        facts.namespaces = Err("unshare: write failed /proc/self/uid_map: Operation not permitted".into());
        facts.keyring.1 = false;
        facts.rustc = Some("rustc 1.75.0 (82e1608df 2023-12-21)".into());
        facts.kvm = Err("/dev/kvm: Permission denied (os error 13)".into());
        facts.kvm_boot = None;
        insta::assert_snapshot!(evaluate(&facts).to_string());
        assert!(!evaluate(&facts).ready);
    }

    #[test]
    fn each_lack_is_found_alone() {
        type Spoil = fn(&mut Facts);
        let cases: [(&str, State, &str, Spoil); 19] = [
            ("processor", State::Missing, "x86-64", |f| f.machine = "aarch64".into()),
            ("qemu", State::Missing, "install qemu-system-x86", |f| {
                drop(f.programs.remove("qemu-system-x86_64"))
            }),
            ("qemu-img", State::Missing, "install qemu-utils", |f| {
                drop(f.programs.remove("qemu-img"))
            }),
            (
                "libvirt-driver",
                State::Missing,
                "libvirt-daemon libvirt-daemon-driver-qemu",
                |f| f.driver = None,
            ),
            ("libvirt-driver", State::Missing, "install libvirt-daemon", |f| {
                f.iohelper = None
            }),
            ("mmdebstrap", State::Missing, "install mmdebstrap", |f| {
                drop(f.programs.remove("mmdebstrap"))
            }),
            ("image-tools", State::Missing, "install e2fsprogs", |f| {
                drop(f.programs.remove("mke2fs"))
            }),
            ("id-ranges", State::Missing, "install uidmap", |f| {
                drop(f.programs.remove("newgidmap"))
            }),
            ("id-ranges", State::Missing, "sudo usermod --add-subuids", |f| {
                f.subgids = 1000
            }),
            ("user-namespaces", State::Missing, "unprivileged_userns_clone=1", |f| {
                f.namespaces = Err("unshare failed: Operation not permitted".into());
                f.sysctls.insert("kernel.unprivileged_userns_clone".into(), "0".into());
            }),
            ("user-namespaces", State::Missing, "max_user_namespaces=65536", |f| {
                f.namespaces = Err("unshare failed: No space left on device".into());
                f.sysctls.insert("user.max_user_namespaces".into(), "0".into());
            }),
            ("user-namespaces", State::Missing, "container", |f| {
                f.namespaces = Err("mount failed".into())
            }),
            ("debian-keyring", State::Missing, "debian-archive-keyring", |f| {
                f.keyring.1 = false
            }),
            ("kvm", State::Warning, "firmware", |f| {
                f.kvm = Err("there is no /dev/kvm".into())
            }),
            ("kvm", State::Warning, "tries again", |f| {
                f.kvm_boot = Some(Boot::Failed { seen: "it hung".into() })
            }),
            ("memory", State::Warning, "close programs", |f| f.memory = 2 << 30),
            ("memory", State::Missing, "close programs", |f| f.memory = 1 << 30),
            ("disk", State::Missing, "FAILOVERLAB_HOME", |f| {
                f.disks.push(("/s".into(), 1 << 30))
            }),
            ("rust", State::Warning, "rustup", |f| f.rustc = None),
        ];
        for (id, state, remedy, spoil) in cases {
            let mut facts = good();
            spoil(&mut facts);
            let report = evaluate(&facts);
            let bad: Vec<_> = report.checks.iter().filter(|c| c.state != State::Ok).collect();
            assert_eq!(bad.len(), 1, "{report}");
            assert_eq!((bad[0].id.as_str(), bad[0].state), (id, state), "{report}");
            assert!(bad[0].remedy.as_deref().unwrap().contains(remedy), "{report}");
            assert_eq!(report.ready, state != State::Missing);
        }
    }

    #[test]
    fn root_needs_no_ids_and_no_sudo() {
        let mut facts = good();
        (facts.uid, facts.subuids, facts.subgids) = (0, 0, 0);
        facts.programs.remove("newuidmap");
        assert!(evaluate(&facts).ready);
        facts.programs.remove("qemu-img");
        assert_eq!(
            found(&facts, "qemu-img").remedy.as_deref(),
            Some("apt-get install qemu-utils")
        );
    }

    #[test]
    fn a_kvm_that_no_guest_boots_with_is_named() {
        let mut facts = good();
        facts.kvm_boot = Some(Boot::Failed {
            seen: "it hung for 4s".into(),
        });
        assert!(
            found(&facts, "kvm")
                .seen
                .starts_with("/dev/kvm opens but no guest booted (it hung for 4s)")
        );
    }

    #[test]
    fn the_hosts_files_are_read_whatever_is_in_them() {
        assert_eq!(
            subordinate_ids("bob:1:5\nann:100000:65536\n1000:7:10\nann:x\n:::\n", "ann", 1000),
            65_546
        );
        assert_eq!(
            subordinate_ids("ann:1:99999999999999999999\nann:1:-5\n", "ann", 1000),
            0
        );
        assert_eq!(available_memory("MemTotal: 1 kB\nMemAvailable:   2048 kB\n"), 2 << 20);
        assert_eq!(available_memory("MemAvailable: many"), 0);
        assert_eq!(
            os_field("NAME=x\nID=debian\nPRETTY_NAME=\"Debian 12\"", "ID").as_deref(),
            Some("debian")
        );
        assert_eq!(version("rustc 1.95.0-nightly (x)"), Some((1, 95)));
        assert_eq!(version("garbage"), None);
        assert!(version("rustc 1.100.1") > version("1.95"));
    }

    #[test]
    fn this_host_is_judged_without_a_lab() {
        let dir = tempfile::tempdir().unwrap();
        let report = doctor(&Home::under(dir.path()));
        assert_eq!(report.checks.len(), 14);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
