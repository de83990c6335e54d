//! What this host can still give: memory and disk space.

use crate::error::{IoContext, Result};
use crate::units::Size;
use std::path::Path;

/// Memory that programs can still get, where the kernel says.
pub fn memory() -> Option<Size> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<Size> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Size(kib.saturating_mul(1024)))
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
        assert!(memory().unwrap() > Size::mib(1));
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
}
