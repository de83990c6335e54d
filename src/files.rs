//! Every name on disk. Documented in `docs/files.md`; no other module has one of these file names.

mod check;

use crate::error::{Error, IoContext, Problem, Result};
pub use crate::spec::ROOT_DISK;
pub use check::user_name;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a unix socket that Linux takes (`sockaddr_un`), with its closing zero.
pub const SOCKET_PATH_MAX: usize = 108;

/// Folder of a lab that has a folder for each node.
const NODES: &str = "nodes";
/// Folder of a lab's shared disks.
const SHARED: &str = "shared";

/// What `path` will be replaced by, while it is being written.
pub fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// A free name beside `path` for a file that is there and is not what it should be: nothing of it is lost.
pub fn aside(path: &Path) -> PathBuf {
    let named = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if n == 1 { ".bad".into() } else { format!(".bad.{n}") });
        PathBuf::from(name)
    };
    (1..)
        .map(named)
        .find(|p| p.symlink_metadata().is_err())
        .expect("one of all numbers is free")
}

/// Whether this can be the name of a lab or fork, `NAME` or `NAME@N`: nothing else can name a folder of ours.
pub fn is_instance(s: &str) -> bool {
    let (name, fork) = s.split_once('@').map_or((s, None), |(n, f)| (n, Some(f)));
    name.parse::<crate::units::Name>().is_ok()
        && fork.is_none_or(|f| !f.is_empty() && f.len() <= 4 && f.bytes().all(|b| b.is_ascii_digit()))
}

/// The three folders that everything is in. `FAILOVERLAB_HOME` moves all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// May be removed at any time when no lab is up: images, checkpoints, probes.
    pub cache: PathBuf,
    /// Labs that are up, and runs of `verify`.
    pub state: PathBuf,
    /// Sockets and libvirt roots: short names, gone after a reboot.
    pub runtime: PathBuf,
}

impl Home {
    /// From `FAILOVERLAB_HOME`, else the XDG folders.
    ///
    /// # Errors
    /// [`Error::Host`] where no folder is named, or `XDG_RUNTIME_DIR` names another user's.
    pub fn from_env() -> Result<Self> {
        if let Some(home) = std::env::var_os("FAILOVERLAB_HOME").filter(|v| !v.is_empty()) {
            let home = std::path::absolute(PathBuf::from(home)).tried("find the folder of FAILOVERLAB_HOME", "")?;
            return Ok(Self::under(&home));
        }
        use etcetera::BaseStrategy;
        let base = etcetera::choose_base_strategy().map_err(|e| {
            Error::Host(
                Problem::new("find the home folder")
                    .observed(e)
                    .remedy("set HOME, or set FAILOVERLAB_HOME to a folder of your own"),
            )
        })?;
        let uid = rustix::process::getuid().as_raw();
        let runtime = check::runtime_dir(base.runtime_dir())?.map_or_else(
            || PathBuf::from(format!("/tmp/failoverlab-{uid}")),
            |d| d.join("failoverlab"),
        );
        Ok(Self {
            cache: base.cache_dir().join("failoverlab"),
            state: base.state_dir().unwrap_or_else(|| base.data_dir()).join("failoverlab"),
            runtime,
        })
    }

    /// All three under one folder.
    pub fn under(home: &Path) -> Self {
        Self {
            cache: home.join("cache"),
            state: home.join("state"),
            runtime: home.join("run"),
        }
    }

    /// Base images, by digest.
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }
    /// The remembered verdict of the acceleration probe.
    pub fn accel(&self) -> PathBuf {
        self.cache.join("accel.json")
    }
    /// libvirt's capabilities cache, copied into each new embedded root.
    pub fn capabilities(&self) -> PathBuf {
        self.cache.join("capabilities")
    }
    /// Checkpoints, by lab and name.
    pub fn checkpoints(&self) -> PathBuf {
        self.cache.join("checkpoints")
    }
    /// Labs that are up.
    pub fn labs(&self) -> PathBuf {
        self.state.join("labs")
    }
    /// Results of `verify`.
    pub fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }
    /// The names of all labs and forks that have a folder, sorted.
    ///
    /// # Errors
    /// The folder of labs cannot be read: that is not the same as none.
    pub fn instances(&self) -> Result<Vec<String>> {
        let tried = |e: std::io::Error| -> Error {
            Error::Host(Problem::new("look for labs").on(self.labs().display()).observed(e))
        };
        let entries = match std::fs::read_dir(self.labs()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(tried(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is no text is none of ours.
            names.extend(
                entry
                    .map_err(tried)?
                    .file_name()
                    .into_string()
                    .ok()
                    .filter(|n| is_instance(n)),
            );
        }
        names.sort();
        Ok(names)
    }
    /// The files of one lab (`ccr`) or fork (`ccr@2`).
    ///
    /// # Panics
    /// Where it is no such name ([`is_instance`]): these folders are removed with all that is in them.
    pub fn lab(&self, instance: &str) -> LabFiles {
        assert!(is_instance(instance), "`{}` can name no lab", instance.escape_debug());
        LabFiles {
            state: self.labs().join(instance),
            run: self.runtime.join(short(instance)),
        }
    }

    /// Makes a folder 0700 and checks that it is ours: the runtime folder may be in a place that others can write to.
    pub fn private_dir(path: &Path) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .tried("make the folder", path.display())?;
        let meta = std::fs::symlink_metadata(path).tried("look at the folder", path.display())?;
        if !meta.is_dir() || meta.uid() != rustix::process::getuid().as_raw() {
            return Err(Error::Host(
                Problem::new("use the folder")
                    .on(path.display())
                    .observed("it is a link or belongs to another user")
                    .remedy("remove it, or set FAILOVERLAB_HOME to a folder of your own"),
            ));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
                .tried("close the folder to others", path.display())?;
        }
        Ok(())
    }
}

/// The instance's name where it is short, else a digest: the whole monitor path must fit into [`SOCKET_PATH_MAX`].
fn short(instance: &str) -> String {
    if instance.len() <= 10 {
        instance.to_owned()
    } else {
        blake3::hash(instance.as_bytes()).to_hex()[..10].to_owned()
    }
}

/// The files of one running lab or fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabFiles {
    /// Survives a reboot of the workstation.
    pub state: PathBuf,
    /// Does not.
    pub run: PathBuf,
}

impl LabFiles {
    /// The resolved lab and everything chosen for it: [`crate::lab::record::LabRecord`].
    pub fn record(&self) -> PathBuf {
        self.state.join("lab.json")
    }
    /// Faults in force and the fabric's rules: `lab::active_faults`.
    pub fn active_faults(&self) -> PathBuf {
        self.state.join("standing.json")
    }
    /// Removes the record of a lab whose machines are gone, and what belonged to them: disks, keys, credentials, faults. The journal
    /// stays.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn forget_lab(&self) -> Result<()> {
        let gone = |path: &Path, removed: std::io::Result<()>| match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).tried("remove what is left", path.display()),
            _ => Ok(()),
        };
        // First: without it nothing else is found. It may be anything, where something else wrote there.
        let record = match self.record().symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs_err::remove_dir_all(self.record()),
            _ => fs_err::remove_file(self.record()),
        };
        gone(&self.record(), record)?;
        for dir in [self.state.join(NODES), self.state.join(SHARED), self.keys()] {
            gone(&dir, fs_err::remove_dir_all(&dir))?;
        }
        gone(&self.active_faults(), fs_err::remove_file(self.active_faults()))
    }
    /// The event journal.
    pub fn events(&self) -> PathBuf {
        self.state.join("events.jsonl")
    }
    /// The last minutes of the networks; the older half has `.old` before its extension.
    pub fn ring(&self) -> PathBuf {
        self.state.join("ring.pcapng")
    }
    /// What the supervisor and libvirt print.
    pub fn supervisor_log(&self) -> PathBuf {
        self.state.join("supervisor.log")
    }
    /// Keys: `id` and `id.pub` of the tool, host keys of the nodes.
    pub fn keys(&self) -> PathBuf {
        self.state.join("keys")
    }
    /// The tool's private SSH key.
    pub fn ssh_key(&self) -> PathBuf {
        self.keys().join("id")
    }
    /// A node's host key; its public half is beside it with `.pub`.
    pub fn host_key(&self, node: &str) -> PathBuf {
        self.keys().join(format!("host-{node}"))
    }
    /// A secret that a runtime pack asks for, made once for the lab.
    pub fn secret(&self, name: &str) -> PathBuf {
        secret(&self.keys(), name)
    }
    /// Pinned host keys, in OpenSSH's form.
    pub fn known_hosts(&self) -> PathBuf {
        self.keys().join("known_hosts")
    }
    /// What belongs to one node.
    pub fn node(&self, node: &str) -> NodeFiles {
        NodeFiles {
            dir: self.state.join(NODES).join(node),
            run: self.run.clone(),
            node: node.to_owned(),
        }
    }
    /// A disk that several machines have open.
    pub fn shared_disk(&self, disk: &str) -> PathBuf {
        self.state.join(SHARED).join(format!("{disk}.raw"))
    }
    /// The supervisor's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("s")
    }
    /// Held by the supervisor while it lives.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }
    /// Root of libvirt's embedded driver.
    pub fn root(&self) -> PathBuf {
        self.run.join("r")
    }
    /// The longest path that QEMU or libvirt binds under [`LabFiles::root`] for `node`.
    pub fn longest_socket(&self, node: &str) -> PathBuf {
        // As root and as a user the embedded driver puts its monitor here; the id in front of the name grows with restarts.
        self.root()
            .join("lib/qemu")
            .join(format!("domain-9999-{:.20}", node))
            .join("monitor.sock")
    }
    /// Refuses a home whose sockets would not fit into 108 bytes, before anything is made.
    pub fn check_socket_paths<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for node in nodes {
            for path in [self.longest_socket(node), self.node(node).cable_fabric(9)] {
                let len = path.as_os_str().len() + 1;
                if len > SOCKET_PATH_MAX {
                    return Err(Error::Host(
                        Problem::new("use so long a path for sockets")
                            .on(path.display())
                            .observed(format!("{len} bytes, Linux takes {SOCKET_PATH_MAX}"))
                            .remedy("set FAILOVERLAB_HOME (or XDG_RUNTIME_DIR) to a shorter path"),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The secret `name` among a lab's `keys`.
pub fn secret(keys: &Path, name: &str) -> PathBuf {
    keys.join(format!("secret-{name}"))
}

/// Layer `n` of `disk` in `dir`: `root.qcow2`, `root.1.qcow2`. Named the same wherever a chain of layers stands, because each
/// layer names the one below relatively.
pub fn layer(dir: &Path, disk: &str, n: u32) -> PathBuf {
    dir.join(if n == 0 {
        format!("{disk}.qcow2")
    } else {
        format!("{disk}.{n}.qcow2")
    })
}

/// The files of one checkpoint, finished or being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFiles {
    /// Its folder.
    pub dir: PathBuf,
}

impl CheckpointFiles {
    /// What it is and which parts it has; written last.
    pub fn meta(&self) -> PathBuf {
        self.dir.join("meta.json")
    }
    /// What was found when the parts were last compared with their digests.
    pub fn checked(&self) -> PathBuf {
        self.dir.join("checked.json")
    }
    /// Locked while the checkpoint is being made.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }
    /// Its folder and those inside.
    pub fn folders(&self) -> [PathBuf; 5] {
        let inside = |name| self.dir.join(name);
        [
            self.dir.clone(),
            inside("memory"),
            inside("disks"),
            inside("shared"),
            inside("keys"),
        ]
    }
    /// Memory and device state of a node.
    pub fn memory(&self, node: &str) -> PathBuf {
        self.dir.join("memory").join(node)
    }
    /// Layers of a node's local disks.
    pub fn disks(&self, node: &str) -> PathBuf {
        self.dir.join("disks").join(node)
    }
    /// A shared disk.
    pub fn shared(&self, disk: &str) -> PathBuf {
        self.dir.join("shared").join(format!("{disk}.raw"))
    }
    /// The lab's keys.
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }
}

/// The files of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFiles {
    /// Its folder.
    pub dir: PathBuf,
    run: PathBuf,
    node: String,
}

impl NodeFiles {
    /// Overlay on the base image.
    pub fn root_overlay(&self) -> PathBuf {
        self.layer(ROOT_DISK, 0)
    }
    /// A data disk.
    pub fn disk(&self, disk: &str) -> PathBuf {
        self.layer(disk, 0)
    }
    /// Layer `n` of a local disk: 0 is [`NodeFiles::root_overlay`] or [`NodeFiles::disk`], each checkpoint adds one.
    pub fn layer(&self, disk: &str, n: u32) -> PathBuf {
        layer(&self.dir, disk, n)
    }
    /// Boot credentials, one file each.
    pub fn credentials(&self) -> PathBuf {
        self.dir.join("credentials")
    }
    /// The image's initramfs, and what the machine has before its system starts.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd.img")
    }
    /// What the serial console printed.
    pub fn console_log(&self) -> PathBuf {
        self.dir.join("console.log")
    }
    /// The serial console.
    pub fn console(&self) -> PathBuf {
        self.run.join(format!("{}.c", self.node))
    }
    /// The agent in the machine.
    pub fn agent(&self) -> PathBuf {
        self.run.join(format!("{}.a", self.node))
    }
    /// QEMU's end of the cable of the machine's `n`th port.
    pub fn cable(&self, n: usize) -> PathBuf {
        self.run.join(format!("{}.{n}", self.node))
    }
    /// The fabric's end.
    pub fn cable_fabric(&self, n: usize) -> PathBuf {
        self.run.join(format!("{}.{n}f", self.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit_a_socket_path() {
        let longest = "n".repeat(crate::units::Name::MAX);
        let home = Home {
            cache: "/c".into(),
            state: "/s".into(),
            runtime: "/run/user/4294967295/failoverlab".into(),
        };
        let lab = format!("{}@99", "l".repeat(crate::units::Name::MAX));
        home.lab(&lab).check_socket_paths([longest.as_str()]).unwrap();
        let far = Home::under(Path::new(&format!("/{}", "x".repeat(90))));
        assert_eq!(far.lab("ccr").check_socket_paths(["a"]).unwrap_err().exit_code(), 4);
    }

    #[test]
    fn a_private_folder_is_closed_again() {
        let dir = tempfile::tempdir().unwrap();
        let p = dir.path().join("x");
        std::fs::create_dir(&p).unwrap();
        std::fs::set_permissions(&p, std::fs::Permissions::from_mode(0o755)).unwrap();
        Home::private_dir(&p).unwrap();
        assert_eq!(std::fs::metadata(&p).unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&p, &link).unwrap();
        assert_eq!(Home::private_dir(&link).unwrap_err().exit_code(), 4);
    }

    #[test]
    fn only_names_and_forks_can_name_a_folder() {
        for good in ["ccr", "ccr@2", "a-b@12"] {
            assert!(is_instance(good), "{good}");
        }
        for bad in ["", "..", "../x", "ccr@", "ccr@x", "a/b", "a\nb", "@1", "ccr@99999"] {
            assert!(!is_instance(bad), "{bad}");
            let home = Home::under(Path::new("/nowhere"));
            assert!(std::panic::catch_unwind(|| home.lab(bad)).is_err(), "{bad}");
        }
    }
}
