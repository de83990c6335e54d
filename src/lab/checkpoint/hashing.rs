//! Digests of parts, and copies and links of their files.

use super::meta::Part;
use crate::error::{Error, IoContext, Problem, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a file looked like when its digest was compared last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileStamp {
    inode: u64,
    size: u64,
    mtime: i64,
    mtime_nsec: i64,
}

/// Path of a part → what it looked like.
pub(super) type Checked = BTreeMap<String, FileStamp>;

/// What the file at `path` looks like. It must be a plain file: no link leads out of a checkpoint.
pub(super) fn look(path: &Path) -> Result<FileStamp> {
    let meta = fs_err::symlink_metadata(path).tried("look at a part of the checkpoint", path.display())?;
    if !meta.is_file() {
        let problem = Problem::new("look at a part of the checkpoint").on(path.display());
        return Err(Error::Operation(problem.observed("it is no plain file")));
    }
    Ok(FileStamp {
        inode: meta.ino(),
        size: meta.size(),
        mtime: meta.mtime(),
        mtime_nsec: meta.mtime_nsec(),
    })
}

pub(super) fn digest(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = fs_err::File::open(path).tried("read a part of the checkpoint", path.display())?;
    hasher
        .update_reader(file)
        .tried("read a part of the checkpoint", path.display())?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Does `f` for each item on as many threads as there are cores; the results are in the items' order.
pub(super) fn on_all_cores<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let workers: Vec<usize> = (0..cores.min(items.len())).collect();
    let mut done: Vec<(usize, R)> = super::each(&workers, |_| {
        let mut mine = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { return mine };
            mine.push((i, f(item)));
        }
    })
    .into_iter()
    .flatten()
    .collect();
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, r)| r).collect()
}

/// Compares a part with its length and digest; one that looks as it did at the last check is not read again.
pub(super) fn compare(dir: &Path, part: &Part, checked: &Checked) -> Result<FileStamp> {
    let path = dir.join(&part.path);
    let seen = look(&path)?;
    let damaged = |seen: String| {
        Error::Operation(
            Problem::new("use the checkpoint")
                .on(path.display())
                .observed(seen)
                .remedy("it is damaged: remove it with `failoverlab checkpoint rm`, then `up --cold`"),
        )
    };
    if seen.size != part.bytes {
        return Err(damaged(format!("{} bytes instead of {}", seen.size, part.bytes)));
    }
    if checked.get(&part.path) == Some(&seen) {
        return Ok(seen);
    }
    let digest = digest(&path)?;
    if digest != part.blake3 {
        return Err(damaged(format!("digest {digest} instead of {}", part.blake3)));
    }
    Ok(seen)
}

/// Another name for a frozen file; a copy where the two folders are on different file systems.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    match std::fs::hard_link(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => copy(from, to),
        r => r.tried("link the file", to.display()),
    }
}

/// A copy: shared blocks where the file system can, else only the blocks that hold data.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    copy_blocks(from, to).tried("copy the file", to.display())
}

fn copy_blocks(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
    let source = File::open(from)?;
    let target = std::fs::OpenOptions::new().write(true).create_new(true).open(to)?;
    let meta = source.metadata()?;
    target.set_permissions(std::fs::Permissions::from_mode(meta.mode() & 0o777 | 0o200))?;
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    target.set_len(meta.len())?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < meta.len() {
        at = match seek(&source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole until the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = seek(&source, SeekFrom::Hole(at))?;
        while at < end {
            let length = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let n = source.read_at(&mut buffer[..length], at)?;
            if n == 0 {
                return Err(std::io::Error::other("the file got shorter while it was copied"));
            }
            target.write_all_at(&buffer[..n], at)?;
            at += n as u64;
        }
    }
    Ok(())
}

/// Makes a file read-only: it is not written to any more.
pub(super) fn freeze(path: &Path) -> Result<()> {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o400)).tried("freeze the file", path.display())
}

#[cfg(test)]
mod tests {
    use super::super::meta::PartKind;
    use super::*;

    #[test]
    fn a_copy_keeps_content_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&a).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        copy(&a, &b).unwrap();
        assert_eq!(digest(&a).unwrap(), digest(&b).unwrap());
        assert!(std::fs::metadata(&b).unwrap().blocks() < 1000);
        assert!(copy(&a, &b).is_err(), "nothing is overwritten");
    }

    #[test]
    fn a_damaged_part_is_found_and_a_known_one_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        std::fs::write(&path, "memory").unwrap();
        let part = Part {
            path: "m".into(),
            bytes: 6,
            blake3: digest(&path).unwrap(),
            kind: PartKind::Memory,
            node: None,
        };
        let none = Checked::new();
        let seen = compare(dir.path(), &part, &none).unwrap();
        let known = Checked::from([("m".to_owned(), seen)]);
        let wrong = Part {
            blake3: "0".repeat(64),
            ..part.clone()
        };
        compare(dir.path(), &wrong, &known).unwrap();
        assert!(compare(dir.path(), &wrong, &none).is_err());
        std::fs::write(&path, "memorx").unwrap();
        assert!(compare(dir.path(), &part, &known).is_err(), "another mtime");
        std::fs::write(&path, "memo").unwrap();
        assert!(compare(dir.path(), &part, &none).is_err(), "truncated");
        std::fs::remove_file(&path).unwrap();
        assert!(compare(dir.path(), &part, &none).is_err(), "missing");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(compare(dir.path(), &part, &none).is_err(), "a link");
    }

    #[test]
    fn results_come_in_order() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(
            on_all_cores(&items, |i| i * 2),
            items.iter().map(|i| i * 2).collect::<Vec<_>>()
        );
        assert!(on_all_cores(&[] as &[u32], |i| i * 2).is_empty());
    }
}
