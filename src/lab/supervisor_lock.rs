//! The lock of the supervisor: one process at a time keeps a lab. Its lock goes with the lab's files, so whoever has locked one looks whether
//! it is still the lab's.

use crate::error::{IoContext, Result};
use crate::files::{Home, LabFiles};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

/// Takes the lock, with the lab's folders; `None` where another process has it.
pub(super) fn take(home: &Home, files: &LabFiles) -> Result<Option<File>> {
    loop {
        for dir in [&home.runtime, &files.run] {
            Home::private_dir(dir)?;
        }
        let lock = match File::create(files.lock()) {
            Ok(lock) => lock,
            // Who had it before has just removed the folder.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e).tried("open the lab's lock", files.lock().display()),
        };
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        if is_at(&lock, files) {
            // Not before: who has the lock may be removing it.
            Home::private_dir(&files.state)?;
            return Ok(Some(lock));
        }
    }
}

fn is_at(lock: &File, files: &LabFiles) -> bool {
    let id = |m: std::io::Result<std::fs::Metadata>| m.ok().map(|m| (m.dev(), m.ino()));
    let ours = id(lock.metadata());
    ours.is_some() && ours == id(std::fs::symlink_metadata(files.lock()))
}

/// Gives the lock up and removes the lab's files. The lock goes last: the folders of whoever has the next one are left alone.
pub(super) fn leave(files: &LabFiles, lock: File) -> Result<()> {
    let gone = |tried: std::io::Result<()>, path: &std::path::Path| match tried {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).tried("remove the lab's files", path.display()),
        _ => Ok(()),
    };
    gone(fs_err::remove_dir_all(&files.state), &files.state)?;
    for entry in fs_err::read_dir(&files.run).into_iter().flatten() {
        let path = entry.tried("remove the lab's files", files.run.display())?.path();
        if path == files.lock() {
            continue;
        }
        let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
        let removed = if is_dir {
            fs_err::remove_dir_all(&path)
        } else {
            fs_err::remove_file(&path)
        };
        gone(removed, &path)?;
    }
    gone(fs_err::remove_file(files.lock()), &files.lock())?;
    match fs_err::remove_dir(&files.run) {
        // The next one is there already.
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
        tried => gone(tried, &files.run)?,
    }
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_the_lock_and_what_it_leaves_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("ccr@2");
        let first = take(&home, &files).unwrap().unwrap();
        assert!(take(&home, &files).unwrap().is_none());
        std::fs::create_dir_all(files.root().join("lib")).unwrap();
        std::fs::write(files.socket(), "").unwrap();
        std::fs::write(files.record(), "{}").unwrap();
        leave(&files, first).unwrap();
        assert!(!files.state.exists() && !files.run.exists());
        assert!(take(&home, &files).unwrap().is_some());
    }

    #[test]
    fn a_lock_file_that_was_removed_locks_nothing_and_the_next_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("x");
        let old = take(&home, &files).unwrap().unwrap();
        // As one that opened it before it was removed, and locked it after.
        let late = File::open(files.lock()).unwrap();
        std::fs::remove_file(files.lock()).unwrap();
        drop(old);
        late.try_lock().unwrap();
        assert!(!is_at(&late, &files));
        let next = take(&home, &files).unwrap().unwrap();
        assert!(is_at(&next, &files));
        assert!(!is_at(&late, &files), "another file has its name now");
    }
}
