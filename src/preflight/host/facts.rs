//! What is on the host, unjudged. What cannot be read counts as absent.

use crate::capacity;
use crate::error::Error;
use crate::files::{Home, user_name};
use crate::hypervisor::accel::{self, Boot};
use crate::image::Recipe;
use crate::image::run::{Run, find_program};
use crate::units::Name;
use crate::wait::Deadline;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Programs that are looked for, each with the Debian package that has it.
pub(super) const PROGRAMS: [(&str, &str); 8] = [
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
pub(super) const DRIVER_DIRS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libvirt",
    "/usr/lib64/libvirt",
    "/usr/lib/libvirt",
];
pub(super) const DRIVER: &str = "connection-driver/libvirt_driver_qemu.so";
pub(super) const IOHELPERS: [&str; 2] = ["/usr/lib/libvirt/libvirt_iohelper", "/usr/libexec/libvirt_iohelper"];

/// The account for machines in Debian's and Ubuntu's build of libvirt.
pub(super) const ACCOUNT: &str = "libvirt-qemu";

/// Why /dev/kvm does not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoKvm {
    /// There is none.
    Missing,
    /// The user may not open it; the system's words.
    Denied(String),
    /// Something else; the system's words.
    Failed(String),
}

impl std::fmt::Display for NoKvm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no /dev/kvm"),
            Self::Denied(observed) | Self::Failed(observed) => write!(f, "/dev/kvm: {observed}"),
        }
    }
}

/// What was found on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `PRETTY_NAME` of os-release.
    pub os: String,
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
    /// Whether the account is there that libvirt's driver looks up when it runs as root.
    pub account: bool,
    /// How many ids `/etc/subuid` gives the user.
    pub subuids: u64,
    /// How many ids `/etc/subgid` gives the user.
    pub subgids: u64,
    /// Values of the kernel settings on name spaces and on sockets that exist here.
    pub sysctls: BTreeMap<String, String>,
    /// Whether name spaces could be made as a build makes them; what `unshare` said otherwise.
    pub namespaces: Result<(), String>,
    /// The keyring of the built-in image, and whether it is there.
    pub keyring: (PathBuf, bool),
    /// What `rustc --version` says.
    pub rustc: Option<String>,
    /// Memory that programs can still get, in bytes.
    pub memory: u64,
    /// The control group that leaves no more than that; absent where it is the host.
    #[serde(default)]
    pub memory_group: Option<PathBuf>,
    /// Free space of the folder for images and of the one for labs, in bytes.
    pub disks: Vec<(PathBuf, u64)>,
    /// Whether /dev/kvm opens; why not.
    pub kvm: Result<(), NoKvm>,
    /// The boot under KVM that is remembered.
    pub kvm_boot: Option<Boot>,
    /// Why the longest names of labs and nodes would not fit into a socket's path.
    pub socket_paths: Result<(), String>,
    /// What is wrong with the folders for images, labs and sockets: what was seen, and the remedy.
    pub folders: Result<(), (String, String)>,
    /// Labs whose record cannot be read, each with the reason.
    pub damaged: BTreeMap<String, String>,
}

/// The kernel setting: how many datagrams may wait in a unix socket.
pub(super) const QUEUE: &str = "net.unix.max_dgram_qlen";

/// Longest that a program may take to say what it is.
const ANSWER: Duration = Duration::from_secs(5);

/// Looks at this host. Each program has five seconds to answer in: one that hangs is told like one that fails.
/// `damaged` are labs whose record cannot be read.
pub fn gather(home: &crate::error::Result<Home>, damaged: BTreeMap<String, String>) -> Facts {
    let memory = capacity::memory();
    let folders = home
        .as_ref()
        .map_err(told)
        .and_then(|h| h.check().map_err(|e| told(&e)));
    // What lies in folders that are not to be used is not looked at.
    let home = home.as_ref().ok().filter(|_| folders.is_ok());
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let uid = rustix::process::geteuid().as_raw();
    let user = user_name(uid);
    let ids = |file: &str| subordinate_ids(&std::fs::read_to_string(file).unwrap_or_default(), &user, uid);
    let name: Name = "debian-12".parse().expect("a valid name");
    let keyring = Recipe::load(&name).map(|r| r.debian.keyring).unwrap_or_default();
    Facts {
        os: os_field(&os, "PRETTY_NAME").unwrap_or_else(|| "an unknown system".into()),
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
        account: first_line("getent", &["passwd", ACCOUNT]).is_ok(),
        subuids: ids("/etc/subuid"),
        subgids: ids("/etc/subgid"),
        sysctls: [
            "kernel.apparmor_restrict_unprivileged_userns",
            "kernel.unprivileged_userns_clone",
            "user.max_user_namespaces",
            QUEUE,
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
        memory: memory.as_ref().map_or(0, |m| m.free.bytes()),
        memory_group: memory.and_then(|m| m.group),
        disks: home
            .into_iter()
            .flat_map(|h| [&h.cache, &h.state])
            .filter_map(|p| Some((p.clone(), capacity::disk(p).ok()?.bytes())))
            .collect(),
        kvm: std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop)
            .map_err(|e| match e.kind() {
                ErrorKind::NotFound => NoKvm::Missing,
                ErrorKind::PermissionDenied => NoKvm::Denied(e.to_string()),
                _ => NoKvm::Failed(e.to_string()),
            }),
        kvm_boot: home.and_then(|h| accel::remembered(&h.accel())).and_then(|r| r.kvm),
        socket_paths: home.map_or(Ok(()), socket_paths),
        damaged,
        folders,
        user,
    }
}

/// What was seen, and the remedy.
fn told(e: &Error) -> (String, String) {
    let remedy = e.problem().and_then(|p| p.remedy.clone());
    (
        e.to_string(),
        remedy.unwrap_or_else(|| "set FAILOVERLAB_HOME to a folder of your own".into()),
    )
}

fn socket_paths(home: &Home) -> Result<(), String> {
    let longest = "n".repeat(Name::MAX);
    let fits = home.lab(&longest).check_socket_paths([longest.as_str()]);
    fits.map_err(|e| e.to_string())
}

pub(super) fn os_field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// How many ids a file in the form of subuid(5) gives a user, by name or number.
pub(super) fn subordinate_ids(text: &str, user: &str, uid: u32) -> u64 {
    let count = |line: &str| {
        let [who, _, count] = line.split(':').collect::<Vec<_>>()[..] else {
            return None;
        };
        (who == user || who == uid.to_string()).then(|| count.trim().parse::<u64>().ok())?
    };
    text.lines().filter_map(count).fold(0, u64::saturating_add)
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

/// First line of what a program prints; its complaint where it fails or does not answer.
fn first_line(program: &str, args: &[&str]) -> Result<String, String> {
    ask(program, args, ANSWER)
}

fn ask(program: &str, args: &[&str], within: Duration) -> Result<String, String> {
    let run = Run {
        what: "ask it",
        on: program,
        program,
        package: program,
        deadline: Deadline::after(within),
        cancel: &AtomicBool::new(false),
    };
    let mut complaint = None;
    let mut first = |line: &str| {
        complaint.get_or_insert_with(|| line.trim().to_owned());
    };
    let out = run.command(Path::new(program)).and_then(|mut command| {
        command.args(args);
        run.output(command, &mut first)
    });
    match out {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            // mke2fs says what it is on stderr.
            Ok(text
                .lines()
                .next()
                .map(|l| l.trim().to_owned())
                .or(complaint)
                .unwrap_or_default())
        }
        Err(e) => Err(complaint.unwrap_or_else(|| {
            e.problem()
                .and_then(|p| p.observed.clone())
                .unwrap_or_else(|| e.to_string())
        })),
    }
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

    #[test]
    fn a_program_that_never_answers_is_told_like_one_that_fails() {
        let hangs = ask("sleep", &["1000"], Duration::from_millis(100)).unwrap_err();
        assert!(hangs.contains("time ran out"), "{hangs}");
        let fails = ask("ls", &["--no-such-option"], ANSWER).unwrap_err();
        assert!(fails.contains("no-such-option"), "{fails}");
        assert!(ask("no-such-program", &[], ANSWER).is_err());
        assert!(first_line("mke2fs", &["-V"]).unwrap().starts_with("mke2fs"));
    }
}
