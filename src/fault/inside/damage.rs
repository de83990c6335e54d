//! Files of the runtime that are damaged where they lie. Which file is what, the pack says (docs/packs.md).

use super::{Injury, Scene, Words};
use crate::error::{Error, Problem, Result};
use crate::guest::{Command, excerpt};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// As far into a file as content certainly lies, behind any header.
const INSIDE: u64 = 4096;
/// How much is written over.
const ZEROS: u64 = 4096;

/// A file is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageFile {
    /// What it is.
    file: String,
    how: How,
    which: Which,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// The bits of one byte are turned over.
    Flip,
    /// Its second half is cut off.
    Truncate,
    /// A block of it becomes zeros.
    Zero,
    /// It is removed.
    Delete,
    /// It becomes the one before it.
    OldCopy,
}

/// Which of several, in the order of their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Which {
    First,
    #[default]
    Middle,
    Last,
}

impl DamageFile {
    pub(super) fn said(words: &Words) -> Result<Self> {
        let file = words.needed_text("file")?;
        if file.is_empty() || !file.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(words.wrong(
                format!("`{}` is no kind of file", file.escape_debug()),
                "it is a word of the pack, like log or segment",
            ));
        }
        Ok(Self {
            file: file.to_owned(),
            how: words.word("how")?.ok_or_else(|| words.missing("how"))?,
            which: words.word("which")?.unwrap_or_default(),
        })
    }
}

impl Injury for DamageFile {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let (before, (size, path)) = self.find(scene)?;
        let kept = format!("/var/tmp/{}", scene.own_name());
        let digest_before = digest(scene, &path)?;
        scene.about_to(json!({ "file": path, "kept": kept, "bytes": size, "digest_before": digest_before }))?;
        scene.text("keep the file", ["cp", "-p", "--", &path, &kept])?;
        scene.text("keep the file", ["sync", "--", &kept])?;
        let begun_us = scene.now_us();
        self.hurt(scene, &path, size, before.as_deref())?;
        let after = digest(scene, &path);
        let effective = after.as_ref().ok().map(|after| *after != digest_before);
        scene.happened(begun_us, json!({ "digest_after": after.ok() }), effective);
        Ok(())
    }

    /// Puts the file back where it is still as it was left: what the runtime has mended since is its own.
    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        let proof = scene.record.proof.clone();
        let text = |key: &str| proof[key].as_str().map(str::to_owned);
        let (Some(path), Some(kept)) = (text("file"), text("kept")) else {
            return Ok(());
        };
        scene.reached(true)?;
        if digest(scene, &kept)?.is_none() {
            return Ok(());
        }
        // Cut short, it may be damaged in any way.
        if scene.record.pending || digest(scene, &path)? == text("digest_after") {
            const WHAT: &str = "put the file back";
            scene.text(WHAT, ["cp", "-p", "--", &kept, &path])?;
            // The machine may lose its power next.
            let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
            scene.text(WHAT, ["sync", "--", &path, folder])?;
        }
        scene.text("remove what was kept", ["rm", "-f", "--", &kept]).map(drop)
    }
}

impl DamageFile {
    /// The file, with its size, and the one before it.
    fn find(&self, scene: &mut Scene<'_>) -> Result<(Option<String>, (u64, String))> {
        const WHAT: &str = "find the file to damage";
        let places = scene.context.places(&scene.on.node)?;
        let Some(pattern) = places.files.get(&self.file) else {
            let known: Vec<&str> = places.files.keys().map(String::as_str).collect();
            let seen = format!("the runtime has none; it has {}", known.join(", "));
            return Err(scene.refused(WHAT, format!("a file `{}`", self.file), seen));
        };
        let list = [
            "find",
            &places.folder,
            "-type",
            "f",
            "-path",
            pattern,
            "-printf",
            r"%s %p\n",
        ];
        let text = scene.text(WHAT, list)?;
        let mut found: Vec<(String, u64)> = text.lines().filter_map(read).collect();
        found.sort();
        let at = match self.which {
            Which::First => 0,
            Which::Middle => found.len() / 2,
            Which::Last => found.len().saturating_sub(1),
        };
        let before = at
            .checked_sub(1)
            .and_then(|i| found.get(i))
            .map(|(path, _)| path.clone());
        let (path, size) = found
            .get(at)
            .cloned()
            .ok_or_else(|| scene.refused(WHAT, format!("`{pattern}`"), "there is no such file now"))?;
        if self.how == How::OldCopy && before.is_none() {
            return Err(scene.refused(WHAT, format!("`{pattern}`"), "there is none before it"));
        }
        if size == 0 && self.how != How::Delete {
            return Err(scene.refused(WHAT, path, "it is empty"));
        }
        Ok((before, (size, path)))
    }

    fn hurt(&self, scene: &mut Scene<'_>, path: &str, size: u64, before: Option<&str>) -> Result<()> {
        const WHAT: &str = "damage the file";
        let at = (size / 2).min(INSIDE);
        match self.how {
            How::Flip => {
                let (from, skip) = (format!("if={path}"), format!("skip={at}"));
                let read = Command::new(["dd", &from, "bs=1", &skip, "count=1", "status=none"]);
                let byte = scene.run(&read)?.check_ok(WHAT, path)?;
                let [byte] = byte.as_slice() else {
                    return Err(Error::Operation(
                        Problem::new(WHAT).on(path).observed("it became shorter"),
                    ));
                };
                let (to, seek) = (format!("of={path}"), format!("seek={at}"));
                let write = ["dd", &to, "bs=1", &seek, "count=1", "conv=notrunc,fsync", "status=none"];
                let write = Command {
                    stdin: vec![!byte],
                    ..Command::new(write)
                };
                scene.run(&write)?.check_ok(WHAT, path)?;
            }
            How::Zero => {
                let (to, seek) = (format!("of={path}"), format!("seek={at}"));
                let count = format!("count={}", ZEROS.min(size - at));
                let zero = [
                    "dd",
                    "if=/dev/zero",
                    &to,
                    "bs=1",
                    &seek,
                    &count,
                    "conv=notrunc,fsync",
                    "status=none",
                ];
                scene.text(WHAT, zero)?;
            }
            How::Truncate => {
                scene.text(WHAT, ["truncate", "-s", &(size / 2).to_string(), "--", path])?;
                scene.text(WHAT, ["sync", "--", path])?;
            }
            How::OldCopy => {
                scene.text(WHAT, ["cp", "--", before.unwrap_or(path), path])?;
                scene.text(WHAT, ["sync", "--", path])?;
            }
            How::Delete => {
                scene.text(WHAT, ["rm", "--", path])?;
                let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
                scene.text(WHAT, ["sync", "--", folder])?;
            }
        }
        Ok(())
    }
}

/// A line of the list: size and path.
fn read(line: &str) -> Option<(String, u64)> {
    let (size, path) = line.split_once(' ')?;
    Some((path.to_owned(), size.parse().ok()?))
}

/// The file's digest; none where there is no such file.
fn digest(scene: &mut Scene<'_>, path: &str) -> Result<Option<String>> {
    const WHAT: &str = "read the file";
    if scene.run(&Command::new(["test", "-e", path]))?.status == 1 {
        return Ok(None);
    }
    let text = scene.text(WHAT, ["sha256sum", "--", path])?;
    match text.split_whitespace().next() {
        Some(digest) => Ok(Some(digest.trim_start_matches('\\').to_owned())),
        None => Err(Error::Operation(
            Problem::new(WHAT).on(path).observed(excerpt(text.as_bytes())),
        )),
    }
}
