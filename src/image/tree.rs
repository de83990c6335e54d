//! Changing an installed system that lies in a folder, without ever following its links out of it.

use crate::error::{Error, IoContext, Problem, Result};
use crate::image::recipe::System;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const UNITS: &str = "/etc/systemd/system";

/// The folder with a Debian in it. All its paths are absolute, as a machine will see them.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// Opens the folder.
    pub fn open(path: &Path) -> Result<Self> {
        let root = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .tried("open the installed system", path.display())?;
        Ok(Self {
            root,
            path: path.to_owned(),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a file of this mode there, in place of whatever was; makes the folders to it.
    pub fn write(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.in_folder_of(path, true, |dir, name| {
            remove_at(&dir, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&dir, name, flags, Mode::from_raw_mode(mode))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            File::from(file)
                .write_all(content)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        })
    }

    /// Makes a symbolic link in place of whatever was there.
    pub fn link(&self, path: &str, to: &str) -> Result<()> {
        self.in_folder_of(path, true, |dir, name| {
            remove_at(&dir, name)?;
            symlinkat(to, &dir, name)
        })
    }

    /// Removes the files that match; `*` stands for anything, in the last part of the path only.
    pub fn remove(&self, pattern: &str) -> Result<()> {
        let (folder, pattern_name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        for name in self.list(folder)? {
            if name.to_str().is_some_and(|n| matches(pattern_name, n)) {
                let path = format!("{folder}/{}", name.display());
                self.in_folder_of(&path, false, |dir, name| remove_at(&dir, name))?;
            }
        }
        Ok(())
    }

    /// Names in a folder; none where there is no such folder.
    pub fn list(&self, folder: &str) -> Result<Vec<OsString>> {
        let what = "look into the installed system's folder";
        let Some(dir) = self.folder(folder).tried(what, folder)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir).tried(what, folder)? {
            let name = OsString::from_vec(entry.tried(what, folder)?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Says what runs at boot: nothing that packages enabled, only what `system` names.
    pub fn set_units(&self, system: &System) -> Result<()> {
        for name in self.list(UNITS)? {
            let name = name.to_string_lossy();
            if name.ends_with(".wants") || name.ends_with(".requires") {
                self.remove(&format!("{UNITS}/{name}/*"))?;
            }
        }
        for unit in &system.enable {
            self.enable(unit)?;
        }
        for unit in &system.mask {
            self.link(&format!("{UNITS}/{unit}"), "/dev/null")?;
        }
        self.link(
            &format!("{UNITS}/default.target"),
            "/lib/systemd/system/multi-user.target",
        )?;
        for name in self.list("/lib/systemd/system-generators")? {
            let name = name.to_string_lossy();
            if !system.generators.iter().any(|g| *g == name) {
                self.link(&format!("/etc/systemd/system-generators/{name}"), "/dev/null")?;
            }
        }
        Ok(())
    }

    /// A unit that starts at boot.
    pub fn enable(&self, unit: &str) -> Result<()> {
        let target = if unit.ends_with(".socket") {
            "sockets"
        } else {
            "multi-user"
        };
        let file = if self.exists(&format!("{UNITS}/{unit}")) {
            UNITS
        } else {
            "/lib/systemd/system"
        };
        if !self.exists(&format!("{file}/{unit}")) {
            let problem = Problem::new("enable the unit")
                .on(unit)
                .observed("no installed package has it");
            return Err(Error::Operation(problem.remedy("correct system.enable in the recipe")));
        }
        self.link(
            &format!("{UNITS}/{target}.target.wants/{unit}"),
            &format!("{file}/{unit}"),
        )
    }

    /// Installed packages and their versions, from dpkg's own list.
    pub fn packages(&self) -> Result<BTreeMap<String, String>> {
        let path = self.path.join("var/lib/dpkg/status");
        let text = fs_err::read_to_string(&path).tried("read the list of installed packages", path.display())?;
        Ok(installed(&text))
    }

    /// The release of the only kernel.
    pub fn kernel(&self) -> Result<String> {
        let names = self.list("/usr/lib/modules")?;
        match &names[..] {
            [one] => Ok(one.to_string_lossy().into_owned()),
            other => Err(Error::Operation(
                Problem::new("find the kernel of the image")
                    .observed(format!("{} kernels are installed: {other:?}", other.len()))
                    .remedy("exactly one package of recipe, packs and nodes may bring a kernel"),
            )),
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.in_folder_of(path, false, |dir, name| statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW))
            .is_ok()
    }

    /// Opens a folder as a machine would see it: no link leads out of the tree.
    fn folder(&self, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(
            &self.root,
            if path.is_empty() { "/" } else { path },
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        ) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn in_folder_of<T>(
        &self,
        path: &str,
        make: bool,
        f: impl FnOnce(OwnedFd, &str) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.folder(folder)
            .and_then(|dir| match dir {
                Some(dir) => Ok(dir),
                None if make => self.make_folder(folder),
                None => Err(Errno::NOENT),
            })
            .and_then(|dir| f(dir, name))
            .tried("change the installed system", path)
    }

    fn make_folder(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = match self.folder(parent)? {
            Some(dir) => dir,
            None => self.make_folder(parent)?,
        };
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        let dir = openat(
            &parent,
            name,
            OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
        Ok(dir)
    }
}

/// Removes a file, link or empty folder; one that is not there is fine.
fn remove_at(dir: impl AsFd, name: &str) -> rustix::io::Result<()> {
    let flags = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e),
        Ok(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => AtFlags::REMOVEDIR,
        Ok(_) => AtFlags::empty(),
    };
    unlinkat(&dir, name, flags)
}

/// Whether `name` fits `pattern`, in which each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    (0..=name.len()).any(|i| name.is_char_boundary(i) && matches(rest, &name[i..]))
}

fn installed(status: &str) -> BTreeMap<String, String> {
    status
        .split("\n\n")
        .filter_map(|stanza| {
            let field = |key: &str| stanza.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
            let is_installed = field("Status:").is_some_and(|s| s.ends_with(" installed"));
            let (name, version) = (field("Package:")?, field("Version:")?);
            is_installed.then(|| (name.to_owned(), version.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn files_are_put_over_what_was_there() {
        let (dir, tree) = tree();
        tree.write("/etc/a/b/c.conf", 0o644, b"one").unwrap();
        tree.link("/etc/a/l", "/etc/passwd").unwrap();
        tree.write("/etc/a/l", 0o644, b"two").unwrap();
        tree.write("/etc/a/b/c.conf", 0o644, b"three").unwrap();
        let read = |p: &str| std::fs::read_to_string(dir.path().join(p)).unwrap();
        assert_eq!(
            (read("etc/a/l").as_str(), read("etc/a/b/c.conf").as_str()),
            ("two", "three")
        );
        let mode = std::fs::metadata(dir.path().join("etc/a/l"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn no_link_leads_out_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("victim"), "safe").unwrap();
        let (dir, tree) = tree();
        symlink(outside.path(), dir.path().join("etc")).unwrap();
        symlink("../../../..", dir.path().join("up")).unwrap();
        assert!(tree.write("/etc/victim", 0o644, b"x").is_err());
        tree.remove("/etc/*").unwrap();
        tree.write("/up/here", 0o644, b"x").unwrap();
        assert_eq!(std::fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
        assert!(dir.path().join("here").exists());
    }

    #[test]
    fn removal_takes_what_matches() {
        let (dir, tree) = tree();
        for name in ["ssh_host_rsa", "ssh_host_ed25519.pub", "sshd_config"] {
            tree.write(&format!("/etc/ssh/{name}"), 0o644, b"").unwrap();
        }
        tree.remove("/etc/ssh/ssh_host_*").unwrap();
        tree.remove("/nowhere/*").unwrap();
        tree.remove("/etc/none").unwrap();
        assert_eq!(tree.list("/etc/ssh").unwrap(), ["sshd_config"]);
        assert!(dir.path().join("etc").exists());
        assert!(matches("*-old", "x-old") && !matches("*-old", "x-older") && matches("a*b*c", "a__b_c"));
    }

    #[test]
    fn only_named_units_are_enabled() {
        let (dir, tree) = tree();
        for unit in ["ssh.service", "smbd.service", "n.socket"] {
            tree.write(&format!("/lib/systemd/system/{unit}"), 0o644, b"").unwrap();
        }
        tree.link(
            &format!("{UNITS}/multi-user.target.wants/smbd.service"),
            "/lib/systemd/system/smbd.service",
        )
        .unwrap();
        tree.write("/lib/systemd/system-generators/a", 0o644, b"").unwrap();
        tree.write("/lib/systemd/system-generators/b", 0o644, b"").unwrap();
        let mut system = System {
            enable: vec!["ssh.service".into(), "n.socket".into()],
            mask: vec!["getty.target".into()],
            generators: vec!["a".into()],
            remove: vec![],
        };
        tree.set_units(&system).unwrap();
        assert_eq!(
            tree.list("/etc/systemd/system/multi-user.target.wants").unwrap(),
            ["ssh.service"]
        );
        assert_eq!(
            tree.list("/etc/systemd/system/sockets.target.wants").unwrap(),
            ["n.socket"]
        );
        assert_eq!(tree.list("/etc/systemd/system-generators").unwrap(), ["b"]);
        let masked = std::fs::read_link(dir.path().join("etc/systemd/system/getty.target")).unwrap();
        assert_eq!(masked, Path::new("/dev/null"));
        system.enable.push("none.service".into());
        assert!(
            tree.set_units(&system)
                .unwrap_err()
                .to_string()
                .contains("none.service")
        );
    }

    #[test]
    fn dpkgs_list_is_read() {
        let text = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n Package: y\n\n\
                    Package: b\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: c\n\n\0garbage";
        assert_eq!(installed(text), BTreeMap::from([("a".to_owned(), "1:2-3".to_owned())]));
    }

    #[test]
    fn two_kernels_are_one_too_many() {
        let (_dir, tree) = tree();
        tree.write("/usr/lib/modules/6.1/modules.dep", 0o644, b"").unwrap();
        assert_eq!(tree.kernel().unwrap(), "6.1");
        tree.write("/usr/lib/modules/6.2/modules.dep", 0o644, b"").unwrap();
        assert!(tree.kernel().unwrap_err().to_string().contains("2 kernels"));
    }
}
