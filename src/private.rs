//! Files that only their owner may read: what goes through a lab is private.

use crate::error::{self, IoContext};
use crate::files;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// Begins the file anew, 0600 where it is not there yet.
pub fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Begins a file, 0600, that must not be there yet.
pub fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)
}

/// Replaces the file at once with one of mode 0600 that is on the disk by then: a reader sees the old or the new one, never half,
/// also after a loss of power. One writer at a time: the new one's name is always the same, so that what a kill leaves behind is
/// overwritten by the next one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let next = files::next(path);
    let mut file = create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

/// Like [`replace`], but for what can be made again after a loss of power: nothing waits for the disk.
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> Result<()> {
    beside(path, bytes)?.persist(path)?;
    Ok(())
}

/// The text at `path`; where there is none, what `make` gives, kept 0600. Of several who ask at once, whoever is first makes it, and
/// all get that one.
pub fn made_once(path: &Path, make: impl FnOnce() -> error::Result<String>) -> error::Result<String> {
    let read = || fs_err::read_to_string(path);
    match read() {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        other => return other.tried("read the file", path.display()),
    }
    let file = beside(path, make()?.as_bytes()).tried("write the file", path.display())?;
    match file.persist_noclobber(path) {
        Err(e) if e.error.kind() != ErrorKind::AlreadyExists => Err(e.error).tried("write the file", path.display()),
        _ => read().tried("read the file", path.display()),
    }
}

/// A file in the same folder, 0600, which goes away unless it is given its name.
fn beside(path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_left_behind_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lab.json");
        let names = || {
            let names = std::fs::read_dir(dir.path()).unwrap();
            names.map(|f| f.unwrap().file_name()).collect::<Vec<_>>()
        };
        replace(&path, b"one").unwrap();
        // A folder in the file's place: like a kill, it ends the writing before its last step.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        for _ in 0..3 {
            replace(&path, b"a longer one").unwrap_err();
        }
        assert_eq!(names().len(), 2, "{:?}", names());
        std::fs::remove_dir(&path).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(
            (names(), std::fs::read(&path).unwrap()),
            (vec!["lab.json".into()], b"two".to_vec())
        );
    }
}
