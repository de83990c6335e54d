//! A run's folder as one file, to be handed on: `failoverlab bundle`, and unpacked again by `replay`.
//!
//! A bundle is a compressed tar archive whose first entry, `bundle.json`, says what is in it. What comes from somebody else is not
//! trusted: only regular files and folders with plain names are unpacked, into a folder that is not there yet, up to fixed bounds.

#[cfg(test)]
mod tests;

use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

/// The entry that says what is in a bundle.
const MANIFEST: &str = "bundle.json";
/// Version of its shape.
const SCHEMA: u32 = 1;
/// Most bytes that are unpacked: of one file and in all.
const FILE_MAX: u64 = 64 << 20;
const ALL_MAX: u64 = 256 << 20;
/// Most entries.
const ENTRIES_MAX: usize = 4096;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the shape: 1.
    pub schema: u32,
    /// The tool that made it.
    pub tool: String,
    /// What the run was made with, for comparison: QEMU, image, programs.
    #[serde(default)]
    pub made_with: BTreeMap<String, String>,
    /// Every file → blake3 of its content, hexadecimal.
    pub files: BTreeMap<PathBuf, String>,
}

/// Whether a file's name says that it is a secret or a key: such a one is in no bundle.
fn is_secret(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    ["password", "secret", "id_ed25519", "_key", ".key", ".pem"]
        .iter()
        .any(|s| name.contains(s))
}

/// Whether a content is a private key, whatever its name.
fn has_key(content: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    content.windows(MARK.len()).any(|w| w == MARK)
}

/// The regular files below `folder`, without secrets: path and content.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        let here = folder.join(&at);
        for entry in fs_err::read_dir(&here).tried("read the folder", here.display())? {
            let entry = entry.tried("read the folder", here.display())?;
            let kind = entry.file_type().tried("read the folder", here.display())?;
            let path = at.join(entry.file_name());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !is_secret(&path) {
                let content = fs_err::read(entry.path()).tried("read the file", entry.path().display())?;
                if !has_key(&content) {
                    all.insert(path, content);
                }
            }
        }
    }
    Ok(all)
}

/// Writes all that is in `folder`, without secrets, into the new file `to`; the number of files and the bytes written. Everywhere, what
/// is in `hidden` (passwords, keys) is replaced by a word of the same length.
///
/// # Errors
/// `Usage` where `to` is there already or there is nothing to pack.
pub fn pack(folder: &Path, to: &Path, made_with: BTreeMap<String, String>, hidden: &[String]) -> Result<(usize, u64)> {
    const WHAT: &str = "write the bundle";
    let mut files = contents(folder)?;
    if files.is_empty() {
        return Err(Error::Usage(
            Problem::new(WHAT)
                .on(folder.display())
                .observed("there is no file to pack"),
        ));
    }
    files.values_mut().for_each(|content| hide(content, hidden));
    let digest = |(path, content): (&PathBuf, &Vec<u8>)| (path.clone(), blake3::hash(content).to_hex().to_string());
    let manifest = Manifest {
        schema: SCHEMA,
        tool: crate::TOOL.to_owned(),
        made_with,
        files: files.iter().map(digest).collect(),
    };
    let manifest = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    let file = match crate::private::create_new(to) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::Usage(
                Problem::new(WHAT).on(to.display()).observed("it is there already"),
            ));
        }
        other => other.tried(WHAT, to.display())?,
    };
    let archive = || -> std::io::Result<u64> {
        let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::best()));
        let entries = [(Path::new(MANIFEST), &manifest)].into_iter();
        for (path, content) in entries.chain(files.iter().map(|(p, c)| (p.as_path(), c))) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_slice())?;
        }
        let mut file = tar.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    match archive() {
        Ok(bytes) => Ok((files.len(), bytes)),
        Err(e) => {
            // Half a bundle is none.
            let _ = fs_err::remove_file(to);
            Err(e).tried(WHAT, to.display())
        }
    }
}

/// Replaces every occurrence of each secret.
fn hide(content: &mut [u8], secrets: &[String]) {
    for secret in secrets.iter().filter(|s| s.len() >= 8) {
        let secret = secret.as_bytes();
        let mut at = 0;
        while let Some(found) = content[at..].windows(secret.len()).position(|w| w == secret) {
            content[at + found..at + found + secret.len()].fill(b'*');
            at += found + secret.len();
        }
    }
}

fn bad(file: &Path, seen: impl std::fmt::Display) -> Error {
    Error::Usage(
        Problem::new("unpack the bundle")
            .on(file.display())
            .observed(seen)
            .remedy("get it again from whoever made it; nothing of it was kept"),
    )
}

/// Unpacks a bundle into the new folder `into`, whole or not at all; what it says of itself.
///
/// # Errors
/// `Usage`: it is no bundle, of a newer schema, has other entries than plain files below the folder, is too large, lacks a file or has
/// one that is not what it was.
pub fn unpack(file: &Path, into: &Path) -> Result<Manifest> {
    if into.symlink_metadata().is_ok() {
        let problem = Problem::new("unpack the bundle").on(into.display());
        return Err(Error::Usage(
            problem
                .observed("it is there already")
                .remedy("name a folder that is not there yet"),
        ));
    }
    Home::private_dir(into)?;
    let done = unpack_all(file, into);
    if done.is_err() {
        let _ = fs_err::remove_dir_all(into);
    }
    done
}

fn unpack_all(file: &Path, into: &Path) -> Result<Manifest> {
    let no_bundle = |e: std::io::Error| bad(file, format!("it is no bundle, or a part of one: {e}"));
    let opened = fs_err::File::open(file).map_err(|e| bad(file, e))?;
    // What expands without end ends here.
    let mut archive = tar::Archive::new(GzDecoder::new(opened).take(ALL_MAX));
    let mut manifest: Option<Manifest> = None;
    let mut there = BTreeMap::new();
    for (n, entry) in archive.entries().map_err(no_bundle)?.enumerate() {
        let mut entry = entry.map_err(no_bundle)?;
        let path = entry.path().map_err(no_bundle)?.into_owned();
        if n >= ENTRIES_MAX {
            return Err(bad(file, format!("it has more than {ENTRIES_MAX} entries")));
        }
        let shown = path.display().to_string();
        let shown = shown.escape_debug();
        if !matches!(entry.header().entry_type(), tar::EntryType::Regular) {
            return Err(bad(file, format!("`{shown}` is no regular file")));
        }
        if path.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(bad(file, format!("`{shown}` leads out of its folder")));
        }
        if entry.size() > FILE_MAX {
            return Err(bad(file, format!("`{shown}` is larger than {} MiB", FILE_MAX >> 20)));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(no_bundle)?;
        let Some(manifest) = &manifest else {
            manifest = Some(read_manifest(file, &path, &content)?);
            continue;
        };
        let digest = blake3::hash(&content).to_hex().to_string();
        if manifest.files.get(&path) != Some(&digest) {
            return Err(bad(file, format!("`{shown}` is not what it was when it was packed")));
        }
        let to = into.join(&path);
        let folder = to.parent().unwrap_or(into);
        fs_err::create_dir_all(folder).tried("unpack the bundle", folder.display())?;
        fs_err::write(&to, &content).tried("unpack the bundle", to.display())?;
        if there.insert(path.clone(), ()).is_some() {
            return Err(bad(file, format!("`{shown}` is there twice")));
        }
    }
    let manifest = manifest.ok_or_else(|| bad(file, "it is empty"))?;
    match manifest.files.keys().find(|path| !there.contains_key(*path)) {
        Some(missing) => Err(bad(file, format!("`{}` is missing", missing.display()))),
        None => Ok(manifest),
    }
}

fn read_manifest(file: &Path, path: &Path, content: &[u8]) -> Result<Manifest> {
    if path != Path::new(MANIFEST) {
        return Err(bad(file, format!("it does not begin with {MANIFEST}")));
    }
    // Of another schema everything else may be another as well.
    let schema = serde_json::from_slice::<serde_json::Value>(content).ok();
    match schema.and_then(|v| v["schema"].as_u64()) {
        Some(n) if n == u64::from(SCHEMA) => {}
        Some(n) => return Err(bad(file, format!("it is of schema {n}, this tool reads {SCHEMA}"))),
        None => return Err(bad(file, format!("its {MANIFEST} says no schema"))),
    }
    serde_json::from_slice(content).map_err(|e| bad(file, format!("its {MANIFEST}: {e}")))
}
