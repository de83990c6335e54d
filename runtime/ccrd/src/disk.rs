//! The data folder. One thread carries out the operations, one after another in the order in which they were asked for.
//! A completion is sent after the system call has returned; what failed is told and never tried again.

use ccr_core::io::{DiskAction, DiskResult, OpId};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Ending of a file on its way to replace another one. Never listed: after a crash it is nobody's.
const HALF: &str = ".ccrd-half";
/// Files that are kept open between an append and its sync.
const MAX_OPEN: usize = 64;
/// Most bytes that one read gives.
const MAX_READ: u64 = 64 << 20;

/// Starts the thread. `done` is called from it, in order. It ends when the sender is dropped.
pub fn start(
    folder: &Path,
    done: impl Fn(OpId, DiskResult) + Send + 'static,
) -> io::Result<std::sync::mpsc::Sender<(OpId, DiskAction)>> {
    let mut disk = Disk::open(folder)?;
    let (ask, asked) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("ccrd-disk".into()).spawn(move || {
        while let Ok((op, action)) = asked.recv() {
            done(op, disk.run(action));
        }
    })?;
    Ok(ask)
}

/// The folder and what is known of it.
#[derive(Debug)]
struct Disk {
    folder: PathBuf,
    /// Files with appends that are not synced yet. Kept open, because the kernel tells of a failed write-back only to those
    /// who had the file open.
    unsynced: HashMap<String, File>,
    /// Folders with entries that are not synced yet.
    unnamed: HashSet<PathBuf>,
    /// Files of which a write failed: nothing that was queued behind it touches them.
    failed_files: HashMap<String, DiskResult>,
}

impl Disk {
    fn open(folder: &Path) -> io::Result<Self> {
        let mut disk = Self {
            folder: folder.to_owned(),
            unsynced: HashMap::new(),
            unnamed: HashSet::new(),
            failed_files: HashMap::new(),
        };
        disk.make_folder(folder)?;
        Ok(disk)
    }

    fn run(&mut self, action: DiskAction) -> DiskResult {
        let files: Vec<String> = action.written().map(str::to_owned).collect();
        let result = match files.iter().find_map(|f| self.failed_files.get(f)) {
            Some(earlier) => earlier.clone(),
            None => self.perform(action).unwrap_or_else(|e| match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskResult::Full,
                _ => DiskResult::Failed(e.to_string()),
            }),
        };
        if let DiskResult::Full | DiskResult::Failed(_) = &result {
            self.failed_files.extend(files.into_iter().map(|f| (f, result.clone())));
        }
        result
    }

    fn perform(&mut self, action: DiskAction) -> io::Result<DiskResult> {
        match action {
            DiskAction::Append { file, bytes } => {
                self.writable(&file)?.write_all(&bytes)?;
                Ok(DiskResult::Done)
            }
            DiskAction::Sync { file } => {
                let synced = self.writable(&file).and_then(|f| f.sync_all());
                // After a failed sync the pages count as clean: a second sync would lie.
                self.unsynced.remove(&file);
                synced?;
                self.sync_folder_of(&file)?;
                Ok(DiskResult::Done)
            }
            DiskAction::SetLen { file, len } => {
                self.writable(&file)?.set_len(len)?;
                Ok(DiskResult::Done)
            }
            DiskAction::Replace { file, bytes } => {
                let half = format!("{file}{HALF}");
                let to = self.path(&file)?;
                let from = self.path(&half)?;
                self.make_parents(&to)?;
                let mut f = options().truncate(true).open(&from)?;
                f.write_all(&bytes)?;
                f.sync_all()?;
                self.unsynced.remove(&file);
                std::fs::rename(&from, &to)?;
                sync_folder(&parent(&to))?;
                Ok(DiskResult::Done)
            }
            DiskAction::Rename { from, to } => {
                let (old, new) = (self.path(&from)?, self.path(&to)?);
                self.make_parents(&new)?;
                self.unsynced.remove(&to);
                match std::fs::rename(&old, &new) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(DiskResult::Missing),
                    other => other?,
                }
                if let Some(f) = self.unsynced.remove(&from) {
                    self.unsynced.insert(to, f);
                }
                sync_folder(&parent(&new))?;
                if parent(&old) != parent(&new) {
                    sync_folder(&parent(&old))?;
                }
                Ok(DiskResult::Done)
            }
            DiskAction::Delete { file } => {
                let path = self.path(&file)?;
                self.unsynced.remove(&file);
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(DiskResult::Done),
                    other => other?,
                }
                sync_folder(&parent(&path))?;
                Ok(DiskResult::Done)
            }
            DiskAction::Read { file, offset, len } => self.read(&file, offset, len),
            DiskAction::List { folder } => self.list(&folder),
        }
    }

    fn read(&self, file: &str, offset: u64, len: u64) -> io::Result<DiskResult> {
        let f = match File::open(self.path(file)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(DiskResult::Missing),
            other => other?,
        };
        let left = f.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; left.min(len).min(MAX_READ) as usize];
        let mut got = 0;
        while got < bytes.len() {
            match f.read_at(&mut bytes[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(got);
        Ok(DiskResult::Bytes(bytes))
    }

    fn list(&self, folder: &str) -> io::Result<DiskResult> {
        let path = if folder.is_empty() {
            self.folder.clone()
        } else {
            self.path(folder)?
        };
        let entries = match std::fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(DiskResult::Files(Vec::new())),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let meta = entry.metadata()?;
            // A name that is no text was not made here.
            if let Ok(name) = entry.file_name().into_string()
                && meta.is_file()
                && !name.ends_with(HALF)
            {
                files.push((name, meta.len()));
            }
        }
        files.sort();
        Ok(DiskResult::Files(files))
    }

    /// The file, open for appending, made when missing; stays open until it is synced.
    fn writable(&mut self, file: &str) -> io::Result<&mut File> {
        if !self.unsynced.contains_key(file) {
            let path = self.path(file)?;
            let f = match OpenOptions::new().append(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.make_parents(&path)?;
                    self.unnamed.insert(parent(&path));
                    OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?
                }
                other => other?,
            };
            if self.unsynced.len() >= MAX_OPEN {
                return Err(io::Error::other(format!("{MAX_OPEN} files are written and not synced")));
            }
            self.unsynced.insert(file.to_owned(), f);
        }
        self.unsynced
            .get_mut(file)
            .ok_or_else(|| io::Error::other("the file was just opened"))
    }

    fn sync_folder_of(&mut self, file: &str) -> io::Result<()> {
        let folder = parent(&self.path(file)?);
        if self.unnamed.contains(&folder) {
            sync_folder(&folder)?;
            self.unnamed.remove(&folder);
        }
        Ok(())
    }

    /// A name inside the folder, or nothing: `..`, an absolute name or an empty one never reach the system.
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let inside = !name.is_empty()
            && !name.contains('\0')
            && !name.ends_with('/')
            && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if inside {
            Ok(self.folder.join(name))
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{}` is no name in the data folder", name.escape_debug()),
            ))
        }
    }

    fn make_parents(&mut self, path: &Path) -> io::Result<()> {
        let folder = parent(path);
        self.make_folder(&folder)
    }

    /// Makes a folder and those above it; each new one is named durably.
    fn make_folder(&mut self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.make_folder(above)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        sync_folder(&parent(folder))
    }
}

fn options() -> OpenOptions {
    let mut o = OpenOptions::new();
    o.write(true).create(true).mode(0o600);
    o
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&folder.path().join("a/b")).unwrap();
        (folder, disk)
    }

    fn append(file: &str, bytes: &[u8]) -> DiskAction {
        DiskAction::Append {
            file: file.into(),
            bytes: bytes.into(),
        }
    }

    fn read(file: &str, offset: u64, len: u64) -> DiskAction {
        DiskAction::Read {
            file: file.into(),
            offset,
            len,
        }
    }

    fn names(disk: &mut Disk, folder: &str) -> Vec<(String, u64)> {
        match disk.run(DiskAction::List { folder: folder.into() }) {
            DiskResult::Files(f) => f,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_log_grows_closes_and_is_cut() {
        let (_f, mut d) = disk();
        assert_eq!(names(&mut d, "logs"), []);
        assert_eq!(d.run(append("logs/current", b"one")), DiskResult::Done);
        assert_eq!(d.run(append("logs/current", b"two")), DiskResult::Done);
        assert_eq!(
            d.run(DiskAction::Sync {
                file: "logs/current".into()
            }),
            DiskResult::Done
        );
        assert!(d.unsynced.is_empty() && d.unnamed.is_empty());
        assert_eq!(d.run(read("logs/current", 2, 3)), DiskResult::Bytes(b"etw".to_vec()));
        assert_eq!(d.run(read("logs/current", 100, 3)), DiskResult::Bytes(vec![]));
        d.run(DiskAction::SetLen {
            file: "logs/current".into(),
            len: 4,
        });
        // What is appended after a cut goes to the new end.
        d.run(append("logs/current", b"!"));
        let to = DiskAction::Rename {
            from: "logs/current".into(),
            to: "logs/1".into(),
        };
        assert_eq!(d.run(to.clone()), DiskResult::Done);
        assert_eq!(d.run(to), DiskResult::Missing);
        d.run(append("logs/1", b"?"));
        assert_eq!(
            d.run(read("logs/1", 0, u64::MAX)),
            DiskResult::Bytes(b"onet!?".to_vec())
        );
        assert_eq!(names(&mut d, "logs"), [("1".to_owned(), 6)]);
        for _ in 0..2 {
            assert_eq!(d.run(DiskAction::Delete { file: "logs/1".into() }), DiskResult::Done);
        }
        assert_eq!(d.run(read("logs/1", 0, 1)), DiskResult::Missing);
    }

    #[test]
    fn replaced_as_a_whole() {
        let (f, mut d) = disk();
        for content in [&b"a longer one"[..], b"short"] {
            let r = DiskAction::Replace {
                file: "state".into(),
                bytes: content.into(),
            };
            assert_eq!(d.run(r), DiskResult::Done);
            assert_eq!(d.run(read("state", 0, 100)), DiskResult::Bytes(content.into()));
        }
        std::fs::write(f.path().join("a/b/x.ccrd-half"), b"left by a crash").unwrap();
        std::fs::create_dir(f.path().join("a/b/folder")).unwrap();
        assert_eq!(names(&mut d, ""), [("state".to_owned(), 5)]);
    }

    #[test]
    fn an_append_after_a_replacement_goes_to_the_new_file() {
        let (_f, mut d) = disk();
        d.run(append("s", b"old"));
        d.run(DiskAction::Replace {
            file: "s".into(),
            bytes: b"new".into(),
        });
        d.run(append("s", b"+"));
        assert_eq!(d.run(read("s", 0, 100)), DiskResult::Bytes(b"new+".to_vec()));
    }

    #[test]
    fn nothing_touches_a_file_behind_a_failed_write() {
        let (f, mut d) = disk();
        // A folder in its place: every write to it fails.
        std::fs::create_dir(f.path().join("a/b/open")).unwrap();
        let first = d.run(append("open", b"end"));
        assert!(matches!(first, DiskResult::Failed(_)), "{first:?}");
        std::fs::remove_dir(f.path().join("a/b/open")).unwrap();
        d.run(append("next", b"x"));
        let rename = |from: &str, to: &str| DiskAction::Rename {
            from: from.into(),
            to: to.into(),
        };
        for action in [
            append("open", b"more"),
            DiskAction::SetLen {
                file: "open".into(),
                len: 9,
            },
            DiskAction::Sync { file: "open".into() },
            DiskAction::Delete { file: "open".into() },
            rename("open", "closed"),
            rename("next", "open"),
        ] {
            assert_eq!(d.run(action.clone()), first, "{action:?}");
        }
        // Nor what was to take its place.
        assert_eq!(d.run(append("next", b"y")), first);
        assert_eq!(names(&mut d, ""), [("next".to_owned(), 1)]);
    }

    #[test]
    fn nothing_takes_the_place_of_a_file_that_could_not_be_renamed() {
        let (f, mut d) = disk();
        std::fs::create_dir(f.path().join("a/b/closed")).unwrap();
        d.run(append("open", b"acknowledged"));
        d.run(append("next", b""));
        let rename = |from: &str, to: &str| DiskAction::Rename {
            from: from.into(),
            to: to.into(),
        };
        let first = d.run(rename("open", "closed"));
        assert!(matches!(first, DiskResult::Failed(_)), "{first:?}");
        assert_eq!(d.run(rename("next", "open")), first);
        assert_eq!(d.run(read("open", 0, 100)), DiskResult::Bytes(b"acknowledged".to_vec()));
    }

    #[test]
    fn no_name_leaves_the_folder() {
        let (f, mut d) = disk();
        for bad in ["", "..", "../x", "a/../../x", "/etc/passwd", "./x", "a/", "a\0b"] {
            for action in [
                append(bad, b"x"),
                read(bad, 0, 1),
                DiskAction::Delete { file: bad.into() },
            ] {
                assert!(matches!(d.run(action), DiskResult::Failed(_)), "{bad:?}");
            }
        }
        assert_eq!(std::fs::read_dir(f.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_are_told_in_their_own_words() {
        let (_f, mut d) = disk();
        d.run(append("file", b"x"));
        let DiskResult::Failed(why) = d.run(append("file/below", b"x")) else {
            panic!()
        };
        assert!(why.contains("directory"), "{why}");
        let full = Disk {
            folder: "/dev".into(),
            unsynced: HashMap::new(),
            unnamed: HashSet::new(),
            failed_files: HashMap::new(),
        };
        let mut full = full;
        assert_eq!(full.run(append("full", b"x")), DiskResult::Full);
    }

    #[test]
    fn completions_come_in_order() {
        let f = tempfile::tempdir().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let ask = start(f.path(), move |op, r| tell.send((op, r)).unwrap()).unwrap();
        for n in 1..=100 {
            ask.send((OpId(n), append("log", &[n as u8]))).unwrap();
        }
        ask.send((OpId(101), read("log", 0, 1000))).unwrap();
        for n in 1..=100 {
            assert_eq!(told.recv().unwrap(), (OpId(n), DiskResult::Done));
        }
        let all: Vec<u8> = (1..=100).collect();
        assert_eq!(told.recv().unwrap(), (OpId(101), DiskResult::Bytes(all)));
    }
}
