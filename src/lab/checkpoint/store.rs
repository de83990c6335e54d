//! The checkpoints of one lab on disk.

use super::hashing::{Checked, compare, on_all_cores};
use super::meta::Meta;
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::{CheckpointFiles, Home};
use crate::units::{Name, Size};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder with a folder for each checkpoint. One whose name begins with a dot is being made, or was not finished.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// A finished checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its files.
    pub files: CheckpointFiles,
    /// What it is.
    pub meta: Meta,
}

/// A checkpoint that is being made. Dropping it removes what is there.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) files: CheckpointFiles,
    finished: PathBuf,
    _lock: std::fs::File,
    done: bool,
}

impl Store {
    /// The store of `lab`.
    pub fn of(home: &Home, lab: &Name) -> Self {
        Self::at(home.checkpoints().join(lab.as_str()))
    }

    /// A store in `dir`, which need not be there yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn files(&self, name: &Name) -> CheckpointFiles {
        CheckpointFiles {
            dir: self.dir.join(name.as_str()),
        }
    }

    /// The finished checkpoint of this name.
    pub fn find(&self, name: &Name) -> Result<Option<Checkpoint>> {
        let files = self.files(name);
        let text = match fs_err::read(files.meta()) {
            Ok(t) => t,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).tried("read the checkpoint", files.dir.display()),
        };
        let meta = Meta::parse(&text, &files.dir)?;
        Ok(Some(Checkpoint { files, meta }))
    }

    /// The finished checkpoint of this name; an error that names those that there are.
    pub fn get(&self, name: &Name) -> Result<Checkpoint> {
        self.find(name)?.ok_or_else(|| {
            let known = self.names().unwrap_or_default();
            let known: Vec<&str> = known.iter().map(Name::as_str).collect();
            let seen = match known.as_slice() {
                [] => "the lab has no checkpoint".to_owned(),
                known => format!("there are: {}", known.join(", ")),
            };
            Error::Usage(Problem::new("find the checkpoint").on(name).observed(seen))
        })
    }

    fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in entries(&self.dir)? {
            if let Some(name) = entry.to_str().and_then(|n| n.parse().ok()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Every finished checkpoint, the oldest first; the second list says which could not be read and why.
    pub fn list(&self) -> Result<(Vec<Checkpoint>, Vec<Error>)> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in self.names()? {
            match self.find(&name) {
                Ok(found) => good.extend(found),
                Err(e) => bad.push(e),
            }
        }
        good.sort_by(|a, b| (a.meta.taken, &a.meta.name).cmp(&(b.meta.taken, &b.meta.name)));
        Ok((good, bad))
    }

    /// Removes a checkpoint. `user` says who needs it still: a lab or fork that was restored from it, another checkpoint.
    pub fn rm(&self, name: &Name, user: impl Fn(&Name) -> Option<String>) -> Result<()> {
        let files = self.files(name);
        if !files.dir.is_dir() {
            return self.get(name).map(drop);
        }
        if let Some(user) = user(name) {
            return Err(Error::Usage(
                Problem::new("remove the checkpoint")
                    .on(name)
                    .observed(format!("{user} depends on it"))
                    .remedy(format!("take {user} down first")),
            ));
        }
        // First out of sight, at once; a removal that is cut short is finished by the next sweep.
        let draft = self.draft_dir(name);
        remove_dir(&draft)?;
        fs_err::rename(&files.dir, &draft).tried("remove the checkpoint", name)?;
        remove_dir(&draft)
    }

    /// Of the checkpoints that `ours` is true for and no lab needs, removes those that cannot be read (another build may have made
    /// them), and then those whose last use is longest ago until ours take at most `budget` together; returns their names.
    pub fn prune(
        &self,
        budget: Size,
        ours: impl Fn(&Name) -> bool,
        user: impl Fn(&Name) -> Option<String>,
    ) -> Result<Vec<Name>> {
        self.sweep()?;
        let (mut all, _) = self.list()?;
        all.retain(|c| ours(&c.meta.name));
        let mut gone = Vec::new();
        for name in self.names()?.into_iter().filter(|n| ours(n) && user(n).is_none()) {
            if self.find(&name).is_err() {
                self.rm(&name, |_| None)?;
                gone.push(name);
            }
        }
        all.sort_by_cached_key(|c| (c.last_use(), c.meta.taken, c.meta.name.clone()));
        while disk_usage_together(&all)? > budget.0 {
            let Some(unused) = all.iter().position(|c| user(&c.meta.name).is_none()) else {
                break;
            };
            let c = all.remove(unused);
            self.rm(&c.meta.name, |_| None)?;
            gone.push(c.meta.name);
        }
        Ok(gone)
    }

    /// Removes what killed processes left unfinished.
    pub fn sweep(&self) -> Result<()> {
        for entry in entries(&self.dir)? {
            let files = CheckpointFiles {
                dir: self.dir.join(&entry),
            };
            if entry.as_encoded_bytes().starts_with(b".") && !being_made(&files) {
                remove_dir(&files.dir)?;
            }
        }
        Ok(())
    }

    fn draft_dir(&self, name: &Name) -> PathBuf {
        self.dir.join(format!(".{name}"))
    }

    /// Begins a checkpoint.
    pub(super) fn begin(&self, name: &Name) -> Result<Draft> {
        let refuse = |seen: &str| Error::Usage(Problem::new("make the checkpoint").on(name).observed(seen));
        let finished = self.files(name).dir;
        if finished.exists() {
            return Err(refuse("there is one of this name"));
        }
        let files = CheckpointFiles {
            dir: self.draft_dir(name),
        };
        if being_made(&files) {
            return Err(refuse("it is being made at this moment"));
        }
        remove_dir(&files.dir)?;
        for dir in files.folders() {
            Home::private_dir(&dir)?;
        }
        let lock = std::fs::File::create(files.lock()).tried("begin the checkpoint", name)?;
        if lock.try_lock().is_err() {
            return Err(refuse("it is being made at this moment"));
        }
        Ok(Draft {
            files,
            finished,
            _lock: lock,
            done: false,
        })
    }
}

impl Draft {
    /// Writes what is known of the parts and the checkpoint itself, and gives it its name: from here on it is there.
    pub(super) fn finish(mut self, meta: Meta, checked: &Checked) -> Result<Checkpoint> {
        write_json(&self.files.checked(), checked)?;
        write_json(&self.files.meta(), &meta)?;
        fs_err::rename(&self.files.dir, &self.finished).tried("finish the checkpoint", &meta.name)?;
        self.done = true;
        let dir = self.finished.clone();
        let _ = std::fs::remove_file(CheckpointFiles { dir: dir.clone() }.lock());
        Ok(Checkpoint {
            files: CheckpointFiles { dir },
            meta,
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now goes with the next sweep.
            let _ = remove_dir(&self.files.dir);
        }
    }
}

impl Checkpoint {
    /// Compares every part with its length and digest. What looks as it did at the last check is not read again.
    pub fn verify(&self) -> Result<()> {
        let known: Checked = fs_err::read(self.files.checked())
            .ok()
            .and_then(|t| serde_json::from_slice(&t).ok())
            .unwrap_or_default();
        let found = on_all_cores(&self.meta.parts, |part| {
            compare(&self.files.dir, part, &known).map(|seen| (part.path.clone(), seen))
        });
        let checked = found.into_iter().collect::<Result<Checked>>()?;
        if checked != known {
            // Only saves the next check the reading.
            let _ = write_json(&self.files.checked(), &checked);
        }
        Ok(())
    }

    /// Notes that a lab came back from it: what is not used goes first.
    pub fn used(&self) {
        // Only decides what goes first.
        let _ = std::fs::File::open(self.files.meta()).and_then(|f| f.set_modified(SystemTime::now()));
    }

    /// When a lab came back from it, or when it was made.
    fn last_use(&self) -> Option<SystemTime> {
        std::fs::metadata(self.files.meta()).and_then(|m| m.modified()).ok()
    }

    /// Bytes on the disk that would be free without it: a layer that has another link costs nothing.
    pub fn disk_usage(&self) -> Result<u64> {
        self.meta
            .parts
            .iter()
            .map(|part| {
                let path = self.files.dir.join(&part.path);
                let meta = fs_err::symlink_metadata(&path).tried("look at the checkpoint", path.display())?;
                Ok(if meta.nlink() > 1 { 0 } else { meta.blocks() * 512 })
            })
            .sum()
    }
}

/// Bytes on the disk that would be free without all of them: a layer that several have counts once, and not where somebody else has
/// it too.
fn disk_usage_together(all: &[Checkpoint]) -> Result<u64> {
    let mut links: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    let mut bytes = 0;
    for path in all
        .iter()
        .flat_map(|c| c.meta.parts.iter().map(|p| c.files.dir.join(&p.path)))
    {
        let meta = fs_err::symlink_metadata(&path).tried("look at the checkpoint", path.display())?;
        let (ours, of) = links.entry((meta.dev(), meta.ino())).or_insert((0, meta.nlink()));
        *ours += 1;
        if ours == of {
            bytes += meta.blocks() * 512;
        }
    }
    Ok(bytes)
}

fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    match fs_err::read_dir(dir) {
        Ok(entries) => entries
            .map(|e| Ok(e.tried("list the checkpoints", dir.display())?.file_name()))
            .collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).tried("list the checkpoints", dir.display()),
    }
}

/// Whether a living process is making it.
fn being_made(files: &CheckpointFiles) -> bool {
    std::fs::File::open(files.lock()).is_ok_and(|f| f.try_lock().is_err())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs_err::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).tried("remove the folder", dir.display()),
        _ => Ok(()),
    }
}

/// Whole or not at all, and on the disk.
fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().tried("write the file", path.display())
}
