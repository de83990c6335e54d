//! What this host can still give: memory and disk space.

use crate::error::{IoContext, Result};
use crate::units::Size;
use std::path::{Path, PathBuf};

/// Where the kernel shows the control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// Memory that programs can still get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// How much.
    pub free: Size,
    /// The control group whose limit is nearer than the host's memory.
    pub group: Option<PathBuf>,
}

/// Memory that programs can still get, where the kernel says: what the host has, or less where a control group of this process, or
/// one above it, allows less (cgroups(7)).
pub fn memory() -> Option<Memory> {
    let free = available(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(within_groups(free, &groups, Path::new(GROUPS)))
}

fn available(meminfo: &str) -> Option<Size> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Size(kib.saturating_mul(1024)))
}

/// The smallest of `free` and what each group on the way up from those of `groups` (`/proc/PID/cgroup`) leaves.
fn within_groups(free: Size, groups: &str, root: &Path) -> Memory {
    let mut memory = Memory { free, group: None };
    for line in groups.lines() {
        // HIERARCHY:CONTROLLERS:PATH; version 2 has no controllers there.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, limit, used) = match controllers {
            "" => (root.to_owned(), "memory.max", "memory.current"),
            c if c.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        let relative = Path::new(path.trim_start_matches('/'));
        // In a container the path may be the host's, of which only the root is seen.
        for group in relative.ancestors().map(|p| root.join(p)) {
            let left = left(&group, limit, used);
            if let Some(left) = left.filter(|l| *l < memory.free) {
                memory = Memory {
                    free: left,
                    group: Some(group),
                };
            }
        }
    }
    memory
}

/// What a group leaves: its limit without what it uses, but for the page cache that it would give back.
fn left(group: &Path, limit: &str, used: &str) -> Option<Size> {
    let number = |name: &str| -> Option<u64> { std::fs::read_to_string(group.join(name)).ok()?.trim().parse().ok() };
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = stat
        .lines()
        .find_map(|l| l.strip_prefix("inactive_file ")?.parse().ok())
        .unwrap_or(0);
    let used = number(used).unwrap_or(0).saturating_sub(cache);
    // `max` is no number: there is no limit.
    Some(Size(number(limit)?.saturating_sub(used)))
}

/// Free space at `path`, or at the nearest folder above it that is there.
pub fn disk(path: &Path) -> Result<Size> {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there).tried("look for free disk space", there.display())?;
    Ok(Size(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_memory_and_disk() {
        assert!(memory().unwrap().free > Size::mib(1));
        let dir = tempfile::tempdir().unwrap();
        assert!(disk(&dir.path().join("not/there/yet")).unwrap() > Size::mib(1));
    }

    #[test]
    fn the_kernels_word_is_read_whatever_it_is() {
        assert_eq!(
            available("MemTotal: 1 kB\nMemAvailable:   2048 kB\n"),
            Some(Size::mib(2))
        );
        assert_eq!(available("MemAvailable: many"), None);
    }

    /// A group below `root` with these files.
    fn group(root: &Path, path: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = root.join(path);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn the_nearest_limit_counts_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let host = Size::mib(21_312);
        group(root, "a/b", &[("memory.max", "max\n"), ("memory.current", "1\n")]);
        let above = group(
            root,
            "a",
            &[("memory.max", "314572800\n"), ("memory.current", "104857600\n")],
        );
        let seen = within_groups(host, "0::/a/b\n", root);
        assert_eq!(
            seen,
            Memory {
                free: Size::mib(200),
                group: Some(above.clone())
            }
        );
        // Page cache is given back.
        std::fs::write(above.join("memory.stat"), "anon 1\ninactive_file 52428800\n").unwrap();
        assert_eq!(within_groups(host, "0::/a/b\n", root).free, Size::mib(250));
        assert_eq!(
            within_groups(Size::mib(100), "0::/a/b\n", root),
            Memory {
                free: Size::mib(100),
                group: None
            }
        );
        // A path of the host's, of which a container sees the root alone.
        let top = group(root, "", &[("memory.max", "157286400\n"), ("memory.current", "0\n")]);
        let seen = within_groups(host, "0::/system.slice/docker-1.scope\n", root);
        assert_eq!((seen.free, seen.group), (Size::mib(150), Some(top)));
    }

    #[test]
    fn the_older_groups_have_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "314572800"),
            ("memory.usage_in_bytes", "209715200"),
        ];
        let ours = group(dir.path(), "memory/user/x", &files);
        let groups = "12:cpu,cpuacct:/user/x\n4:memory:/user/x\n";
        let seen = within_groups(Size::mib(900), groups, dir.path());
        assert_eq!(
            seen,
            Memory {
                free: Size::mib(100),
                group: Some(ours)
            }
        );
    }

    #[test]
    fn garbage_is_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        group(dir.path(), "", &[("memory.max", "-5\n"), ("memory.current", "many")]);
        for groups in ["", "0", "0::", "x:y", ":::::", "0::/../../..\n4:memory"] {
            assert_eq!(
                within_groups(Size::mib(9), groups, dir.path()).free,
                Size::mib(9),
                "{groups}"
            );
        }
    }
}
