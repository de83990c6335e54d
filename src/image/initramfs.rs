//! The initramfs: a static busybox, the few modules that lead to the root disk, and a script of some lines.
//!
//! Debian's own would load udev and settle; under emulation that costs seconds of every boot.

use crate::error::{Error, IoContext, Problem, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The mark of what went into a machine's system before it started.
pub const PREPARED: &str = "/var/lib/failoverlab/prepared";

/// Ends in the kernel's panic where there is no root disk: the acceleration probe waits for exactly that.
pub const INIT: &str = r#"#!/bin/sh
# From the kernel to systemd on the root disk, and nothing else.
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
while read -r module; do busybox insmod "$module"; done < /modules
root=
for word in $(busybox cat /proc/cmdline); do
  case $word in root=*) root=${word#root=} ;; esac
done
busybox umount /proc
busybox mount -t ext4 -o noatime "$root" /root || exit
# What a lab adds goes in once. Its mark is the last of it: a machine that loses its power before that begins anew.
if [ -f /early/mark ] && [ ! -e /root/var/lib/failoverlab/prepared ]; then
  busybox cp -dR /early/files/. /root && busybox sync && busybox cp /early/mark /root/var/lib/failoverlab/prepared
fi
busybox mount --move /dev /root/dev && exec busybox switch_root /root /sbin/init
"#;

/// Makes the initramfs from an installed system at `tree`, whose only kernel is `release`.
///
/// # Errors
/// [`Error::Operation`] for a module that the kernel does not have.
pub fn make(tree: &Path, release: &str, modules: &[String]) -> Result<Vec<u8>> {
    let what = "make the initramfs";
    let folder = tree.join("usr/lib/modules").join(release);
    let read = |name: &str| fs_err::read_to_string(folder.join(name)).tried(what, release);
    let paths = load_order(&read("modules.dep")?, &read("modules.builtin")?, modules).map_err(|m| {
        Error::Operation(
            Problem::new(what)
                .on(release)
                .observed(m)
                .remedy("correct kernel.modules in the recipe"),
        )
    })?;
    let mut archive = Cpio::default();
    for dir in ["bin", "dev", "lib", "proc", "root"] {
        archive.add(dir, 0o040_755, &[]);
    }
    let busybox = fs_err::read(tree.join("usr/bin/busybox")).tried(what, "busybox-static")?;
    archive.add("bin/busybox", 0o100_755, &busybox);
    archive.add("bin/sh", 0o120_777, b"busybox");
    let mut list = String::new();
    for path in &paths {
        let name = format!("lib/{}", path.rsplit('/').next().unwrap_or(path));
        archive.add(&name, 0o100_644, &fs_err::read(folder.join(path)).tried(what, path)?);
        list += &format!("/{name}\n");
    }
    archive.add("modules", 0o100_644, list.as_bytes());
    archive.add("init", 0o100_755, INIT.as_bytes());
    Ok(archive.end())
}

/// What goes into a machine's system before it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Early {
    /// Absolute path, permissions and content of each file.
    pub files: Vec<(String, u32, Vec<u8>)>,
    /// Absolute path of each symbolic link, and what it leads to.
    pub links: Vec<(String, String)>,
    /// What the machine has in [`PREPARED`] from then on.
    pub mark: String,
}

/// An archive that stands behind an image's initramfs: together they bring `early` into a system that has no mark yet.
pub fn early(early: &Early) -> Vec<u8> {
    let mut archive = Cpio::default();
    let mut folders = BTreeSet::new();
    let inside = |path: &str| format!("early/files{path}");
    // A folder stands before what is in it.
    let mut open = |archive: &mut Cpio, name: &str| {
        for (end, _) in name.match_indices('/') {
            if folders.insert(name[..end].to_owned()) {
                archive.add(&name[..end], 0o040_755, &[]);
            }
        }
    };
    open(&mut archive, &inside(PREPARED));
    for (path, mode, content) in &early.files {
        let name = inside(path);
        open(&mut archive, &name);
        archive.add(&name, 0o100_000 | mode, content);
    }
    for (path, to) in &early.links {
        let name = inside(path);
        open(&mut archive, &name);
        archive.add(&name, 0o120_777, to.as_bytes());
    }
    archive.add("early/mark", 0o100_644, early.mark.as_bytes());
    archive.end()
}

/// Paths of `wanted` and of all that they need, in the order in which they must be loaded.
///
/// `modules.dep` names for each module everything that it needs, the first to load last.
fn load_order(dep: &str, builtin: &str, wanted: &[String]) -> Result<Vec<String>, String> {
    let known: BTreeMap<String, (&str, &str)> = dep
        .lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs)))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let key = name.replace('-', "_");
        if builtin.lines().any(|path| module_name(path) == key) {
            continue;
        }
        let (path, needs) = known
            .get(&key)
            .ok_or_else(|| format!("this kernel has no module `{name}`"))?;
        for path in needs.split_whitespace().rev().chain([*path]) {
            if !path.ends_with(".ko") || path.split('/').any(|p| p == "..") {
                return Err(format!("cannot load the module `{path}`: only plain .ko files"));
            }
            if !order.iter().any(|o| o == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// `virtio_blk` of `kernel/drivers/block/virtio-blk.ko.xz`: the kernel does not tell `-` from `_`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// A cpio archive in the kernel's "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let fields = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/v/virtio_pci.ko: kernel/v/legacy.ko kernel/v/modern-dev.ko kernel/v/virtio.ko kernel/v/ring.ko\n\
        kernel/v/virtio.ko: kernel/v/ring.ko\nkernel/v/ring.ko:\nkernel/b/virtio-blk.ko: kernel/v/virtio.ko kernel/v/ring.ko\n\
        kernel/x/packed.ko.xz:\nkernel/x/../../evil.ko:\nnonsense";

    fn order(names: &[&str]) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|s| s.to_string()).collect();
        load_order(DEP, "kernel/fs/ext4/ext4.ko\n", &names)
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let paths = order(&["virtio_pci", "ext4", "virtio_blk"]).unwrap();
        let names: Vec<_> = paths.iter().map(|p| module_name(p)).collect();
        assert_eq!(
            names,
            ["ring", "virtio", "modern_dev", "legacy", "virtio_pci", "virtio_blk"]
        );
    }

    #[test]
    fn unknown_packed_and_hostile_modules_are_refused() {
        assert!(order(&["nfs"]).unwrap_err().contains("no module `nfs`"));
        assert!(order(&["packed"]).unwrap_err().contains("plain .ko"));
        assert!(order(&["evil"]).unwrap_err().contains("plain .ko"));
    }

    #[test]
    fn the_archive_has_the_kernels_form() {
        let mut c = Cpio::default();
        c.add("d", 0o040_755, &[]);
        c.add("f", 0o100_644, b"hello");
        let bytes = c.end();
        // Two entries and the trailer: each a header of 110 bytes and its name, padded to 4, and its content, padded to 4.
        assert_eq!(bytes.len(), 112 + 112 + 8 + 124);
        assert_eq!(&bytes[..22], b"07070100000001000041ed");
        assert_eq!(&bytes[112..118], b"070701");
        assert_eq!(&bytes[112 + 54..112 + 62], b"00000005");
        assert_eq!(&bytes[224..232], b"hello\0\0\0");
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }

    #[test]
    fn what_a_lab_adds_stands_behind_it_with_its_folders() {
        assert!(INIT.contains(&format!("/root{PREPARED}")));
        let added = early(&Early {
            files: vec![
                ("/etc/a/b".into(), 0o600, b"B".to_vec()),
                ("/etc/a/c".into(), 0o755, b"C".to_vec()),
            ],
            links: vec![("/etc/l".into(), "a/b".into())],
            mark: "m".into(),
        });
        let text = String::from_utf8_lossy(&added);
        let entries: Vec<(&str, &str)> = text
            .match_indices("070701")
            .map(|(at, _)| (&text[at + 14..at + 22], &text[at + 110..]))
            .map(|(mode, name)| (mode, name.split('\0').next().unwrap()))
            .collect();
        let [folder, link] = ["000041ed", "0000a1ff"];
        assert_eq!(
            entries,
            [
                (folder, "early"),
                (folder, "early/files"),
                (folder, "early/files/var"),
                (folder, "early/files/var/lib"),
                (folder, "early/files/var/lib/failoverlab"),
                (folder, "early/files/etc"),
                (folder, "early/files/etc/a"),
                ("00008180", "early/files/etc/a/b"),
                ("000081ed", "early/files/etc/a/c"),
                (link, "early/files/etc/l"),
                ("000081a4", "early/mark"),
                ("00000000", "TRAILER!!!"),
            ]
        );
    }

    #[test]
    fn it_is_made_from_a_tree() {
        let tree = tempfile::tempdir().unwrap();
        let modules = tree.path().join("usr/lib/modules/6.1");
        std::fs::create_dir_all(modules.join("kernel")).unwrap();
        std::fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
        std::fs::write(tree.path().join("usr/bin/busybox"), "BUSYBOX").unwrap();
        std::fs::write(modules.join("kernel/a.ko"), "MODULE-A").unwrap();
        std::fs::write(modules.join("modules.dep"), "kernel/a.ko:\n").unwrap();
        std::fs::write(modules.join("modules.builtin"), "").unwrap();
        let made = make(tree.path(), "6.1", &["a".into()]).unwrap();
        let has = |needle: &[u8]| made.windows(needle.len()).any(|w| w == needle);
        assert!(has(b"BUSYBOX") && has(b"MODULE-A") && has(b"/lib/a.ko\n") && has(b"switch_root"));
        let e = make(tree.path(), "6.1", &["b".into()]).unwrap_err();
        assert_eq!(e.exit_code(), 5);
    }
}
