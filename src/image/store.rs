//! The images of this host: a folder for each digest, complete or absent.

use super::build::{Build, check_host, remove_all};
use super::manifest::{Image, ImageKey, Listed, Manifest, short};
use super::{DISK, INITRD, KERNEL};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Journal, Step};
use crate::files::Home;
use crate::wait::{Deadline, Probe, wait_until};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MANIFEST: &str = "image.json";
/// As long as the longest build.
const OTHER_BUILD_WITHIN: Duration = Duration::from_secs(2400);

/// The folder with all images.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// With this folder, which need not exist ([`Home::images`]).
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The image, where it has been built.
    ///
    /// # Errors
    /// [`Error::Operation`] where its folder is damaged.
    pub fn find(&self, key: &ImageKey) -> Result<Option<Image>> {
        self.manifest(&key.digest).map(|m| m.map(|m| self.image(&m)))
    }

    /// Digest of the image's root disk, hexadecimal; `None` where it was not built. Two builds of one recipe need not be the same.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn disk_digest(&self, key: &ImageKey) -> Result<Option<String>> {
        let manifest = self.manifest(&key.digest)?;
        Ok(manifest.and_then(|m| Some(m.files.get(DISK)?.blake3.clone())))
    }

    /// The image, built if it is not there. Another process that builds the same image is waited for.
    ///
    /// # Errors
    /// [`Error::Host`] where this host cannot build, [`Error::Operation`] where the build failed, [`Error::Interrupted`] once
    /// `cancel` is set. Nothing is left behind in any of these.
    pub fn ensure(&self, key: &ImageKey, journal: &Journal, cancel: &AtomicBool) -> Result<Image> {
        if let Some(image) = self.find(key)? {
            return Ok(image);
        }
        Home::private_dir(&self.dir)?;
        check_host(key, &self.dir)?;
        self.ensure_with(key, journal, cancel, |dir| {
            Build {
                key,
                dir,
                journal,
                cancel,
            }
            .run()
        })
    }

    fn ensure_with(
        &self,
        key: &ImageKey,
        journal: &Journal,
        cancel: &AtomicBool,
        build: impl FnOnce(&Path) -> Result<Manifest>,
    ) -> Result<Image> {
        let outer = Step::begin(journal, "image", None, &format!("image {key}"));
        let busy = || outer.say("waiting for another failoverlab that builds this image");
        let _lock = self.lock(key, cancel, busy)?;
        if let Some(image) = self.find(key)? {
            outer.done(&format!("image {key} was built by another"));
            return Ok(image);
        }
        let dir = self.dir.join(format!("{}.new", key.digest));
        // A builder that was killed may have left it.
        remove_all(&dir)?;
        let built = Home::private_dir(&dir)
            .and_then(|()| build(&dir))
            .and_then(|manifest| self.keep(&dir, &manifest));
        match built {
            Ok(image) => {
                outer.done(&format!("image {key} built"));
                Ok(image)
            }
            Err(e) => Err(match remove_all(&dir) {
                Ok(()) => e,
                Err(undo) => e.with_rollback([undo.to_string()]),
            }),
        }
    }

    /// Writes the manifest and gives the folder its name: from then on the image is there.
    fn keep(&self, dir: &Path, manifest: &Manifest) -> Result<Image> {
        let what = "store the image";
        let text = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
        let path = dir.join(MANIFEST);
        fs_err::write(&path, text).tried(what, path.display())?;
        for synced in [path.as_path(), dir] {
            fs_err::File::open(synced)
                .and_then(|f| f.sync_all())
                .tried(what, synced.display())?;
        }
        let there = self.dir.join(&manifest.digest);
        fs_err::rename(dir, &there).tried(what, there.display())?;
        Ok(self.image(manifest))
    }

    /// Every complete image, by name and age. A damaged one is not an image: `ensure` names it and its remedy.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let digests = self.digests()?;
        let manifests = digests.iter().filter_map(|d| self.manifest(d).ok().flatten());
        let mut all: Vec<Listed> = manifests.map(Manifest::listed).collect();
        all.sort_by(|a, b| (&a.name, a.created).cmp(&(&b.name, b.created)));
        Ok(all)
    }

    /// Removes the image whose digest begins with `which`, or all images of that name. `user` says who uses a digest.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such image or `which` fits several digests; [`Error::Operation`] where one is in use.
    pub fn rm(&self, which: &str, user: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
        let what = "remove the image";
        let named: Vec<String> = self
            .list()?
            .into_iter()
            .filter(|i| *i.name == *which)
            .map(|i| i.digest)
            .collect();
        let chosen = if named.is_empty() {
            let fits: Vec<String> = self
                .digests()?
                .into_iter()
                .filter(|d| which.len() >= 4 && d.starts_with(which))
                .collect();
            if fits.len() != 1 {
                let seen = if fits.is_empty() {
                    "there is no such image"
                } else {
                    "several images begin like this"
                };
                let on = which.escape_debug();
                return Err(Error::Usage(
                    Problem::new(what)
                        .on(on)
                        .observed(seen)
                        .remedy("see `failoverlab image ls`"),
                ));
            }
            fits
        } else {
            named
        };
        for digest in &chosen {
            if let Some(user) = user(digest) {
                let problem = Problem::new(what).on(short(digest)).observed(format!("{user} uses it"));
                return Err(Error::Operation(problem.remedy(format!("failoverlab down {user}"))));
            }
        }
        for digest in &chosen {
            let Some(_lock) = self.try_lock(digest)? else {
                return Err(Error::Operation(
                    Problem::new(what).on(short(digest)).observed("it is being built"),
                ));
            };
            // Out of sight at once, whatever happens to the removal.
            let (there, away) = (self.dir.join(digest), self.dir.join(format!("{digest}.new")));
            remove_all(&away)?;
            fs_err::rename(&there, &away).tried(what, there.display())?;
            remove_all(&away)?;
        }
        Ok(chosen)
    }

    fn digests(&self) -> Result<Vec<String>> {
        let what = "list the images";
        let entries = match fs_err::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.tried(what, self.dir.display())?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.tried(what, self.dir.display())?.file_name();
            found.extend(name.to_str().filter(|n| is_digest(n)).map(str::to_owned));
        }
        Ok(found)
    }

    /// The manifest of a complete folder; `None` where there is no folder.
    fn manifest(&self, digest: &str) -> Result<Option<Manifest>> {
        let dir = self.dir.join(digest);
        let damaged = |seen: String| {
            let remedy = format!("failoverlab image rm {}", short(digest));
            Error::Operation(
                Problem::new("use the image")
                    .on(dir.display())
                    .observed(seen)
                    .remedy(remedy),
            )
        };
        let path = dir.join(MANIFEST);
        let text = match fs_err::read(&path) {
            Ok(text) => text,
            Err(_) if !dir.exists() => return Ok(None),
            Err(e) => return Err(damaged(e.to_string())),
        };
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(format!("{MANIFEST}: {e}")))?;
        if manifest.schema != Manifest::SCHEMA || manifest.digest != digest {
            return Err(damaged(format!("{MANIFEST} is of another image or version")));
        }
        for name in [DISK, KERNEL, INITRD] {
            let expected = manifest.files.get(name).map(|f| f.bytes);
            let found = fs_err::metadata(dir.join(name)).ok().map(|m| m.len());
            if expected.is_none() || expected != found {
                return Err(damaged(format!(
                    "{name} has {found:?} bytes, {expected:?} were written"
                )));
            }
        }
        Ok(Some(manifest))
    }

    fn image(&self, manifest: &Manifest) -> Image {
        manifest.image(&self.dir.join(&manifest.digest))
    }

    fn lock(&self, key: &ImageKey, cancel: &AtomicBool, busy: impl FnOnce()) -> Result<File> {
        let mut busy = Some(busy);
        wait_until(
            "wait for the other build of the image",
            Deadline::after(OTHER_BUILD_WITHIN),
            || {
                if cancel.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                Ok(match self.try_lock(&key.digest)? {
                    Some(lock) => Probe::Ready(lock),
                    None => {
                        if let Some(busy) = busy.take() {
                            busy();
                        }
                        Probe::NotYet(format!("another process builds {key}"))
                    }
                })
            },
        )
    }

    /// The digest's lock, unless another process has it. The kernel releases it when its holder dies; the file stays, for
    /// whoever removed it would let two others in.
    fn try_lock(&self, digest: &str) -> Result<Option<File>> {
        let path = self.dir.join(format!("{digest}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .tried("open the image's lock", path.display())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e).tried("lock the image", path.display()),
        }
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{BUILDER, FileInfo, Recipe};
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU32;
    use std::sync::{Arc, Mutex, mpsc};

    fn key(extra: &[&str]) -> ImageKey {
        let recipe = Recipe::load_from(Path::new("/nonexistent"), &"debian-12".parse().unwrap()).unwrap();
        ImageKey::new(&recipe, extra.iter().copied()).unwrap()
    }
    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        (dir, store)
    }
    /// A builder that writes three short files.
    fn fake(key: &ImageKey, dir: &Path) -> Result<Manifest> {
        let mut files = BTreeMap::new();
        for name in [DISK, KERNEL, INITRD] {
            std::fs::write(dir.join(name), name).unwrap();
            files.insert(
                name.to_owned(),
                FileInfo {
                    bytes: name.len() as u64,
                    blake3: String::new(),
                },
            );
        }
        Ok(Manifest {
            schema: 1,
            digest: key.digest.clone(),
            builder: BUILDER,
            tool: "test".into(),
            created: 1,
            seconds: 0.1,
            recipe: key.recipe.clone(),
            requested: key.packages.clone(),
            sources: vec![],
            kernel: "6.1".into(),
            packages: BTreeMap::new(),
            files,
        })
    }
    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|n| !n.ends_with(".lock"));
        names.sort();
        names
    }
    static GO: AtomicBool = AtomicBool::new(false);

    #[test]
    fn an_image_is_built_once_and_found_again() {
        let (dir, store) = store();
        let key = key(&["samba"]);
        assert_eq!(store.find(&key).unwrap(), None);
        let journal = Journal::in_memory();
        let built = store.ensure_with(&key, &journal, &GO, |d| fake(&key, d)).unwrap();
        assert_eq!(store.find(&key).unwrap(), Some(built.clone()));
        assert_eq!(store.ensure(&key, &journal, &GO).unwrap(), built);
        assert!(built.cmdline.starts_with("root=/dev/vda rw console=ttyS0"));
        assert_eq!(names(dir.path()), [key.digest.as_str()]);
        let listed = store.list().unwrap();
        assert_eq!(
            (listed.len(), listed[0].extra.as_slice()),
            (1, ["samba".to_owned()].as_slice())
        );
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let (dir, store) = store();
        let key = key(&[]);
        let e = store
            .ensure_with(&key, &Journal::in_memory(), &GO, |d| {
                fake(&key, d)?;
                Err(Error::Operation(Problem::new("build").observed("no")))
            })
            .unwrap_err();
        assert!(e.to_string().contains("no"));
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_a_killed_builder_left_is_removed() {
        let (dir, store) = store();
        let key = key(&[]);
        let left = dir.path().join(format!("{}.new", key.digest));
        std::fs::create_dir_all(left.join("tree")).unwrap();
        std::fs::write(dir.path().join(format!("{}.lock", key.digest)), "").unwrap();
        store
            .ensure_with(&key, &Journal::in_memory(), &GO, |d| {
                assert!(std::fs::read_dir(d).unwrap().next().is_none());
                fake(&key, d)
            })
            .unwrap();
        assert_eq!(names(dir.path()), [key.digest.as_str()]);
    }

    #[test]
    fn of_two_builders_one_waits_and_says_so() {
        let (_dir, store) = store();
        let key = key(&[]);
        let built = Arc::new(AtomicU32::new(0));
        let (journal, said) = (Journal::in_memory(), Arc::new(Mutex::new(Vec::new())));
        let (tell, waiting) = mpsc::channel();
        journal.listen({
            let said = said.clone();
            move |e| {
                let text = e.data["text"].as_str().unwrap_or_default().to_owned();
                if text.contains("waiting for another") {
                    let _ = tell.send(());
                }
                said.lock().unwrap().push(text);
                true
            }
        });
        let (began, has_begun) = mpsc::channel();
        let waiting = Mutex::new(waiting);
        std::thread::scope(|s| {
            s.spawn(|| {
                store
                    .ensure_with(&key, &Journal::in_memory(), &GO, |d| {
                        began.send(()).unwrap();
                        waiting.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
                        built.fetch_add(1, Ordering::Relaxed);
                        fake(&key, d)
                    })
                    .unwrap();
            });
            has_begun.recv().unwrap();
            let image = store
                .ensure_with(&key, &journal, &GO, |_| unreachable!("the other one builds"))
                .unwrap();
            assert_eq!(image.digest, key.digest);
        });
        assert_eq!(built.load(Ordering::Relaxed), 1);
        assert!(
            said.lock()
                .unwrap()
                .iter()
                .any(|t| t.contains("waiting for another failoverlab"))
        );
    }

    #[test]
    fn waiting_can_be_cancelled() {
        let (_dir, store) = store();
        let key = key(&[]);
        let lock = store.try_lock(&key.digest).unwrap().unwrap();
        let cancel = AtomicBool::new(true);
        let e = store
            .ensure_with(&key, &Journal::in_memory(), &cancel, |d| fake(&key, d))
            .unwrap_err();
        assert!(matches!(e, Error::Interrupted));
        drop(lock);
    }

    #[test]
    fn damage_is_named_with_its_remedy() {
        let key = key(&[]);
        let cases: [(&str, &[u8]); 4] = [
            (MANIFEST, b"{\"schema\": 1, \"dig"),
            (MANIFEST, b"\0\xff"),
            (DISK, b"shorter"),
            (KERNEL, b""),
        ];
        for (file, content) in cases {
            let (dir, store) = store();
            store
                .ensure_with(&key, &Journal::in_memory(), &GO, |d| fake(&key, d))
                .unwrap();
            std::fs::write(dir.path().join(&key.digest).join(file), content).unwrap();
            let e = store.find(&key).unwrap_err();
            assert_eq!(e.exit_code(), 5);
            assert!(
                e.problem()
                    .unwrap()
                    .remedy
                    .as_deref()
                    .unwrap()
                    .starts_with("failoverlab image rm ")
            );
            // The remedy works.
            store.rm(&key.digest[..12], |_| None).unwrap();
            assert!(names(dir.path()).is_empty());
        }
    }

    #[test]
    fn only_what_no_lab_uses_is_removed() {
        let (dir, store) = store();
        let (one, two) = (key(&[]), key(&["samba"]));
        for k in [&one, &two] {
            store
                .ensure_with(k, &Journal::in_memory(), &GO, |d| fake(k, d))
                .unwrap();
        }
        let used = |d: &str| (d == one.digest).then(|| "ccr".to_owned());
        let e = store.rm("debian-12", used).unwrap_err();
        assert!(e.to_string().contains("ccr uses it"), "{e}");
        assert_eq!(names(dir.path()).len(), 2);
        for unknown in ["debian-13", "", "../x", "zzzz", "\n"] {
            assert_eq!(store.rm(unknown, used).unwrap_err().exit_code(), 2, "{unknown:?}");
        }
        assert_eq!(
            store.rm(&two.digest[..8], used).unwrap(),
            std::slice::from_ref(&two.digest)
        );
        assert_eq!(store.rm("debian-12", |_| None).unwrap(), [one.digest]);
        assert!(names(dir.path()).is_empty());
    }
}
