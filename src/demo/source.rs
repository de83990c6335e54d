//! Where a demo's files are: a folder, `demos/NAME` in the current folder, or compiled into the tool.

use crate::error::{Error, IoContext, Problem, Result};
use crate::spec::{self, known};
use include_dir::{Dir, include_dir};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Name of the file that says what a demo is.
pub const HEAD_FILE: &str = "demo.toml";

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/demos");

/// A demo's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On disk.
    Folder(PathBuf),
    /// Compiled into the tool.
    Embedded(String),
}

/// The demo that a person means: a folder with a demo.toml, else `demos/NAME` in the folder `here`, else one compiled into the tool.
///
/// # Errors
/// [`Error::Usage`] where there is none, with the names that are known.
pub fn find(arg: &str, here: &Path) -> Result<Source> {
    let folders = [here.join(arg), here.join("demos").join(arg)];
    if let Some(folder) = folders.into_iter().find(|f| f.join(HEAD_FILE).is_file()) {
        return Ok(Source::Folder(folder));
    }
    let names = names(here);
    if names.iter().any(|n| n == arg) {
        return Ok(Source::Embedded(arg.to_owned()));
    }
    let problem = Problem::new("find the demo").on(arg.escape_debug());
    let seen = format!("no {HEAD_FILE} there, and no demo has this name");
    let help = known(arg, names.iter().map(String::as_str));
    Err(Error::Usage(problem.observed(seen).remedy(help)))
}

/// Demos that can be named from the folder `here`.
pub fn names(here: &Path) -> Vec<String> {
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    let built_in = EMBEDDED.dirs().filter_map(|d| name(d.path()));
    let entries = std::fs::read_dir(here.join("demos")).into_iter().flatten().flatten();
    let own = entries.map(|e| e.path()).filter(|p| p.join(HEAD_FILE).is_file());
    let all: BTreeSet<String> = built_in.chain(own.filter_map(|p| name(&p))).collect();
    all.into_iter().collect()
}

impl Source {
    /// What the demo is called: the name of its folder.
    pub fn name(&self) -> String {
        match self {
            Source::Embedded(name) => name.clone(),
            Source::Folder(dir) => {
                let full = dir.canonicalize().unwrap_or_else(|_| dir.clone());
                let name = full.file_name().unwrap_or(full.as_os_str());
                name.to_string_lossy().into_owned()
            }
        }
    }

    /// What a person reads of one of its files.
    pub fn label(&self, file: &str) -> String {
        match self {
            Source::Folder(dir) => dir.join(file).display().to_string(),
            Source::Embedded(name) => format!("(built in) demos/{name}/{file}"),
        }
    }

    /// The text of one of its files.
    ///
    /// # Errors
    /// [`Error::Usage`] where it is not there, is no regular file, no UTF-8 or larger than 1 MiB.
    pub fn read(&self, file: &str) -> Result<String> {
        match self {
            Source::Folder(dir) => spec::Source::Folder(dir.clone()).read(Path::new(file)),
            Source::Embedded(name) => {
                let text = EMBEDDED
                    .get_file(Path::new(name).join(file))
                    .and_then(|f| f.contents_utf8());
                let refuse = || {
                    Problem::new("read the file")
                        .on(self.label(file))
                        .observed("there is no such file")
                };
                text.map(str::to_owned).ok_or_else(|| Error::Usage(refuse()))
            }
        }
    }

    /// The names of its chapters' files, in their order.
    ///
    /// # Errors
    /// Where the folder cannot be listed.
    pub fn chapters(&self) -> Result<Vec<String>> {
        let paths: Vec<PathBuf> = match self {
            Source::Embedded(name) => {
                let files = EMBEDDED.get_dir(name).into_iter().flat_map(Dir::files);
                files.map(|f| f.path().to_owned()).collect()
            }
            Source::Folder(dir) => {
                let entries = std::fs::read_dir(dir).tried("list the folder", dir.display())?;
                entries.flatten().map(|e| e.path()).collect()
            }
        };
        let is_chapter = |p: &&PathBuf| p.extension().is_some_and(|e| e == "md") && !p.ends_with("README.md");
        let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut files: Vec<String> = paths.iter().filter(is_chapter).filter_map(name).collect();
        files.sort();
        Ok(files)
    }
}
