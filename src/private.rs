//! Files that only their owner may read: what goes through a lab is nobody else's business.

use crate::error::{self, IoContext};
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
/// also after a loss of power.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = beside(path, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Like [`replace`], but for what can be made again after a loss of power: nothing waits for the disk.
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> Result<()> {
    beside(path, bytes)?.persist(path)?;
    Ok(())
}

/// The text at `path`; where there is none, what `make` gives, kept 0600. Of several who ask at once, whoever is first makes it, and
/// everybody gets that one.
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
