//! Making an image: packages with mmdebstrap, the trimmed system, kernel and initramfs, the root disk.
//!
//! Everything that needs root's rights runs in name spaces of its own (`unshare`): an ordinary user is root there over a
//! range of ids, root itself keeps its mounts apart. The first process in there dies with us, and all others with it.

use super::manifest::{FileInfo, ImageKey, Manifest};
use super::qemu_img::{DiskFormat, QemuImg};
use super::run::{Run, find_program, missing};
use super::sources;
use super::tree::Tree;
use super::{BUILDER, DISK, INITRD, KERNEL, agent, initramfs};
use crate::capacity;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Journal, Step, wall_seconds};
use crate::wait::Deadline;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const TREE: &str = "tree";
const RAW: &str = "disk.raw";

/// A far mirror over a slow line; the usual is half a minute.
const PACKAGES_WITHIN: Duration = Duration::from_secs(1800);
const DISK_WITHIN: Duration = Duration::from_secs(600);
/// Free space that a build wants, in bytes: the unpacked system, the file system made from it, the disk made from that.
const FREE: u64 = 2 << 30;

/// Programs that a build needs, and the Debian packages that have them.
pub const PROGRAMS: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("newuidmap", "uidmap"),
    ("mke2fs", "e2fsprogs"),
    ("qemu-img", "qemu-utils"),
];

/// One build, in a folder that no other process uses.
#[derive(Debug)]
pub struct Build<'a> {
    /// What is built.
    pub key: &'a ImageKey,
    /// Where: the folder is there and empty.
    pub dir: &'a Path,
    /// Hears of the steps.
    pub journal: &'a Journal,
    /// Set by the person's interruption.
    pub cancel: &'a AtomicBool,
}

/// Whether this host can build at all: before anything is made.
pub fn check_host(key: &ImageKey, dir: &Path) -> Result<()> {
    let what = "build the image";
    for (program, package) in PROGRAMS {
        if find_program(program).is_none() {
            return Err(missing(what, Path::new(program), package));
        }
    }
    let keyring = &key.recipe.debian.keyring;
    if !keyring.exists() {
        let problem = Problem::new(what)
            .on(&key.recipe.name)
            .observed(format!("there is no {}", keyring.display()));
        return Err(Error::Host(
            problem.remedy("sudo apt-get install debian-archive-keyring"),
        ));
    }
    let free = capacity::disk(dir)?.bytes();
    if free < FREE {
        return Err(Error::Host(
            Problem::new(what)
                .on(dir.display())
                .observed(format!(
                    "{} MiB of disk space are free, {} are needed",
                    free >> 20,
                    FREE >> 20
                ))
                .remedy("free disk space, or set FAILOVERLAB_HOME to a folder on a larger disk"),
        ));
    }
    Ok(())
}

impl Build<'_> {
    /// Builds; the folder then holds the image's files and nothing else.
    pub fn run(&self) -> Result<Manifest> {
        let begin = Instant::now();
        let (sources, from_host) = sources::sources(&self.key.recipe.debian);
        self.install(&sources, from_host)?;
        let tree = Tree::open(&self.dir.join(TREE))?;
        let packages = tree.packages()?;
        let step = Step::begin(self.journal, "image.system", None, "trim the system");
        let release = self.finish(&tree)?;
        step.done(&format!("trimmed, Linux {release}"));
        let step = Step::begin(self.journal, "image.disk", None, "make the root disk");
        self.make_disk()?;
        step.done("root disk made");
        let mut files = BTreeMap::new();
        for name in [DISK, KERNEL, INITRD] {
            files.insert(name.to_owned(), close(&self.dir.join(name))?);
        }
        Ok(Manifest {
            schema: Manifest::SCHEMA,
            digest: self.key.digest.clone(),
            builder: BUILDER,
            tool: crate::TOOL.into(),
            created: wall_seconds(),
            seconds: begin.elapsed().as_secs_f64(),
            recipe: self.key.recipe.clone(),
            requested: self.key.packages.clone(),
            sources,
            kernel: release,
            packages,
            files,
        })
    }

    fn install(&self, sources: &[String], from_host: bool) -> Result<()> {
        let debian = &self.key.recipe.debian;
        let count = self.key.packages.len();
        let whose = if from_host {
            "the host's mirror"
        } else {
            "the recipe's mirror"
        };
        let text = format!("install {count} packages and what they need from {whose}");
        let step = Step::begin(self.journal, "image.packages", None, &text);
        let on = self.key.to_string();
        let run = self.doing(
            "install the packages of the image",
            &on,
            ("mmdebstrap", "mmdebstrap"),
            PACKAGES_WITHIN,
        );
        let mut command = in_namespace(&run, true)?;
        command.env("TMPDIR", self.dir);
        if let (None, Some(proxy)) = (std::env::var_os("http_proxy"), sources::proxy()) {
            command.env("http_proxy", proxy);
        }
        command.args(["--verbose", "--variant=minbase", "--mode=root", "--format=directory"]);
        // sysfs cannot be mounted where the network is not ours; no package needs it.
        command.arg("--skip=chroot/mount/sys");
        command.args(["--aptopt=Acquire::Retries 3", "--aptopt=Acquire::http::Timeout 30"]);
        // The tree is thrown away if anything goes wrong: dpkg need not sync each file.
        command.arg("--dpkgopt=force-unsafe-io");
        command.args(debian.exclude.iter().map(|p| format!("--dpkgopt=path-exclude={p}")));
        command.arg(format!("--keyring={}", debian.keyring.display()));
        command.arg(format!("--components={}", debian.components.join(",")));
        let include: Vec<&str> = self.key.packages.iter().map(String::as_str).collect();
        command.arg(format!("--include={}", include.join(",")));
        command.arg(&debian.suite).arg(self.dir.join(TREE)).args(sources);
        let mut seen = Installing::default();
        run.output(command, &mut |line| {
            if let Some(text) = seen.hear(line) {
                match seen.total {
                    0 => step.say(&text),
                    total => step.progress(&text, seen.done, total),
                }
            }
        })?;
        step.done(&format!("{} packages installed", seen.done));
        Ok(())
    }

    /// Kernel and initramfs beside the disk, the recipe's changes in the system.
    fn finish(&self, tree: &Tree) -> Result<String> {
        let recipe = &self.key.recipe;
        let release = tree.kernel()?;
        let kernel = tree.path().join("boot").join(format!("vmlinuz-{release}"));
        fs_err::copy(&kernel, self.dir.join(KERNEL)).tried("copy the kernel", &release)?;
        let initrd = initramfs::make(tree.path(), &release, &recipe.kernel.modules)?;
        fs_err::write(self.dir.join(INITRD), initrd).tried("write the initramfs", &release)?;
        for pattern in &recipe.system.remove {
            tree.remove(pattern)?;
        }
        for (path, content) in &recipe.files {
            tree.write(path, 0o644, content.strip_prefix('\n').unwrap_or(content).as_bytes())?;
        }
        tree.set_units(&recipe.system)?;
        agent::install(tree)?;
        Ok(release)
    }

    fn make_disk(&self) -> Result<()> {
        let disk = &self.key.recipe.disk;
        let on = self.key.to_string();
        let run = self.doing(
            "make the root disk of the image",
            &on,
            ("mke2fs", "e2fsprogs"),
            DISK_WITHIN,
        );
        let (tree, raw) = (self.dir.join(TREE), self.dir.join(RAW));
        let mut mke2fs = in_namespace(&run, false)?;
        // Nothing lazy: what is not written now, each machine would write into its overlay at every first boot.
        mke2fs.args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-L",
            "root",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            "-J",
        ]);
        mke2fs.arg(format!("size={}", disk.journal.bytes() >> 20));
        mke2fs
            .arg("-d")
            .args([&tree, &raw])
            .arg(format!("{}k", disk.size.bytes() >> 10));
        run.output(mke2fs, &mut |_| {})?;
        remove_all(&tree)?;
        QemuImg::default().within(DISK_WITHIN).convert(
            (&raw, DiskFormat::Raw),
            (&self.dir.join(DISK), DiskFormat::Qcow2),
            self.cancel,
        )?;
        fs_err::remove_file(&raw).tried("remove the raw disk", raw.display())
    }

    fn doing<'a>(
        &'a self,
        what: &'a str,
        on: &'a str,
        (program, package): (&'a str, &'a str),
        within: Duration,
    ) -> Run<'a> {
        Run {
            what,
            on,
            program,
            package,
            deadline: Deadline::after(within),
            cancel: self.cancel,
        }
    }
}

/// What mmdebstrap is doing, from its lines and those of apt and dpkg.
#[derive(Debug, Default)]
struct Installing {
    done: u64,
    total: u64,
}

impl Installing {
    /// What to tell the person, where the line is worth it.
    fn hear(&mut self, line: &str) -> Option<String> {
        if let Some(text) = line.strip_prefix("I: ") {
            return Some(text.trim_end_matches("...").to_owned());
        }
        if let Some(rest) = line.strip_prefix("Setting up ") {
            self.done += 1;
            return Some(format!(
                "setting up {}",
                rest.split_whitespace().next().unwrap_or_default()
            ));
        }
        // "0 upgraded, 123 newly installed, 0 to remove and 0 not upgraded."
        let newly = line.split(", ").nth(1).and_then(|p| p.strip_suffix(" newly installed"));
        self.total += newly.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        None
    }
}

/// The run's program as root of name spaces of its own that end with us; `whole` adds mounts and processes to the ids.
fn in_namespace(run: &Run<'_>, whole: bool) -> Result<Command> {
    let program = find_program(run.program).ok_or_else(|| missing(run.what, Path::new(run.program), run.package))?;
    let mut command = run.command(Path::new("setpriv"))?;
    command.args(["--pdeathsig", "KILL"]);
    let user = !rustix::process::geteuid().is_root();
    if user || whole {
        command.arg("unshare");
    }
    if user {
        command.args(["--map-auto", "--map-root-user"]);
    }
    if whole {
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// Removes a folder and all in it, files of the user's range of ids included. One that is not there is fine.
pub fn remove_all(dir: &Path) -> Result<()> {
    let what = "remove the folder";
    match fs_err::remove_dir_all(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => return other.tried(what, dir.display()),
    }
    let on = dir.display().to_string();
    // Not cancellable: this is the undoing of what was cancelled.
    let run = Run {
        what,
        on: &on,
        program: "rm",
        package: "coreutils",
        deadline: Deadline::after(DISK_WITHIN),
        cancel: &AtomicBool::new(false),
    };
    let mut command = in_namespace(&run, false)?;
    command.args(["-rf", "--"]).arg(dir);
    run.output(command, &mut |_| {}).map(drop)
}

/// Makes a file of the image read-only, sees it on the disk, and takes its size and digest.
fn close(path: &PathBuf) -> Result<FileInfo> {
    let what = "finish the image's file";
    let on = path.display();
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o444)).tried(what, on)?;
    let file = fs_err::File::open(path).tried(what, path.display())?;
    file.sync_all().tried(what, path.display())?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).tried(what, path.display())?;
    Ok(FileInfo {
        bytes: file.metadata().tried(what, path.display())?.len(),
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_counted_from_apts_lines() {
        let mut seen = Installing::default();
        assert_eq!(
            seen.hear("I: running apt-get update...").as_deref(),
            Some("running apt-get update")
        );
        assert_eq!(
            seen.hear("0 upgraded, 12 newly installed, 0 to remove and 0 not upgraded."),
            None
        );
        assert_eq!(
            seen.hear("Setting up libc6:amd64 (2.36-9) ...").as_deref(),
            Some("setting up libc6:amd64")
        );
        for garbage in [
            "",
            ", ,",
            "x, newly installed",
            "Setting up ",
            "a, 99999999999999999999999 newly installed",
        ] {
            seen.hear(garbage);
        }
        assert_eq!((seen.done, seen.total), (2, 12));
    }
}
