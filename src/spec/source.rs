//! Where a lab's files are: a folder, `labs/NAME` in the current folder, or compiled into the tool.

use super::known;
use crate::error::{Error, IoContext, Problem, Result};
use crate::units::Name;
use include_dir::{Dir, include_dir};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name of the lab file in its folder.
pub const LAB_FILE: &str = "lab.toml";

/// Largest file of a lab that is read: a person writes kilobytes.
const FILE_MAX: u64 = 1 << 20;

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/labs");

/// A lab's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On disk.
    Folder(PathBuf),
    /// Compiled into the tool.
    Embedded(Name),
    /// Another one, but for its lab file.
    Changed {
        /// Whose other files these are.
        of: Box<Source>,
        /// The text of the lab file.
        text: String,
        /// What was changed, for people.
        by: String,
    },
}

/// The labs that are compiled into the tool, by name.
pub fn embedded() -> Vec<Name> {
    let mut names: Vec<Name> = EMBEDDED
        .dirs()
        .filter(|d| d.get_file(d.path().join(LAB_FILE)).is_some())
        .filter_map(|d| d.path().to_str()?.parse().ok())
        .collect();
    names.sort();
    names
}

/// The lab that a person means by `LAB` on the command line: a folder with a lab.toml, else `labs/LAB` in the folder
/// `here`, else one compiled into the tool. Without `LAB` the folder `here`. Labs that are up are not looked for here.
///
/// # Errors
/// [`Error::Usage`] where there is none, with the names that are known.
pub fn find(arg: Option<&str>, here: &Path) -> Result<Source> {
    let Some(arg) = arg else {
        return if here.join(LAB_FILE).is_file() {
            Ok(Source::Folder(here.to_owned()))
        } else {
            Err(no_lab("in the current folder", "name a lab", here))
        };
    };
    let folder = here.join(arg);
    if folder.join(LAB_FILE).is_file() {
        return Ok(Source::Folder(folder));
    }
    if folder.file_name().is_some_and(|f| f == LAB_FILE) && folder.is_file() {
        return Ok(Source::Folder(folder.parent().unwrap_or(here).to_owned()));
    }
    if let Some((seen, remedy)) = no_folder(arg, &folder) {
        return Err(Error::Usage(
            Problem::new("find the lab")
                .on(arg.escape_debug())
                .observed(seen)
                .remedy(remedy),
        ));
    }
    let Ok(name) = arg.parse::<Name>() else {
        let remedy = "name a folder with a lab.toml, or a lab by its name".to_owned();
        let lower = arg.to_lowercase();
        let meant = names(here).into_iter().find(|n| n.as_str() == lower);
        let remedy = meant.map_or(remedy, |n| format!("did you mean `{n}`?"));
        return Err(no_lab(arg.escape_debug(), &remedy, here));
    };
    let own = here.join("labs").join(name.as_str());
    if own.join(LAB_FILE).is_file() {
        return Ok(Source::Folder(own));
    }
    if embedded().contains(&name) {
        return Ok(Source::Embedded(name));
    }
    Err(no_lab(
        &name,
        &known(&name, names(here).iter().map(|n| n.as_str())),
        here,
    ))
}

/// Why what is there, or cannot be looked at, is no lab's folder, and what to do; none where nothing of the name is there.
fn no_folder(arg: &str, path: &Path) -> Option<(String, &'static str)> {
    if arg.starts_with("~/") || arg == "~" {
        return Some((
            "the shell did not expand `~`".into(),
            "write it without quotes, or use $HOME",
        ));
    }
    let seen = match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => match std::fs::metadata(path.join(LAB_FILE)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => e.to_string(),
            Ok(_) => format!("its {LAB_FILE} is no regular file"),
            Err(_) => return None,
        },
        Ok(m) if m.is_file() => format!("it is a file, and not a {LAB_FILE}"),
        Ok(_) => "it is neither a folder nor a regular file".to_owned(),
        // A link that leads nowhere is there, and what may not be looked at is not absent.
        Err(_) if arg.parse::<Name>().is_ok() && std::fs::symlink_metadata(path).is_err() => return None,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::fs::symlink_metadata(path).is_err() => return None,
        Err(e) => e.to_string(),
    };
    Some((seen, "name a folder with a lab.toml, or a lab by its name"))
}

fn no_lab(on: impl std::fmt::Display, remedy: &str, here: &Path) -> Error {
    let names: Vec<String> = names(here).iter().map(Name::to_string).collect();
    let seen = format!("no {LAB_FILE} there; labs by name: {}", names.join(", "));
    Error::Usage(Problem::new("find the lab").on(on).observed(seen).remedy(remedy))
}

/// Labs that can be named from the folder `here`.
fn names(here: &Path) -> Vec<Name> {
    let mut names = embedded();
    let entries = std::fs::read_dir(here.join("labs")).into_iter().flatten().flatten();
    let own = entries.filter(|e| e.path().join(LAB_FILE).is_file());
    names.extend(own.filter_map(|e| e.file_name().to_str()?.parse().ok()));
    names.sort();
    names.dedup();
    names
}

impl Source {
    /// What a person reads in reports: the path of the lab file.
    pub fn file_name(&self) -> String {
        match self {
            Source::Folder(dir) => dir.join(LAB_FILE).display().to_string(),
            Source::Embedded(name) => format!("(built in) labs/{name}/{LAB_FILE}"),
            Source::Changed { of, by, .. } => format!("{} with {by}", of.file_name()),
        }
    }

    /// The text of the lab file.
    pub fn lab_file(&self) -> Result<String> {
        self.read(Path::new(LAB_FILE))
    }

    /// The text of a file of the lab, by its path in the lab's folder.
    ///
    /// # Errors
    /// [`Error::Usage`] where it is not there, is no regular file, is no UTF-8 or larger than 1 MiB.
    pub fn read(&self, path: &Path) -> Result<String> {
        let refuse = |seen: &str| {
            let file = self.file_name().replace(LAB_FILE, &path.display().to_string());
            Error::Usage(Problem::new("read the file").on(file).observed(seen))
        };
        let bytes = match self {
            Source::Changed { text, .. } if path == Path::new(LAB_FILE) => return Ok(text.clone()),
            Source::Changed { of, .. } => return of.read(path),
            Source::Embedded(name) => {
                let file = EMBEDDED.get_file(Path::new(name.as_str()).join(path));
                file.ok_or_else(|| refuse("there is no such file"))?.contents().to_vec()
            }
            Source::Folder(dir) => read_bounded(&dir.join(path)).map_err(|e| refuse(&e.to_string()))?,
        };
        String::from_utf8(bytes).map_err(|e| refuse(&encoding(&e)))
    }

    /// Files of a folder of the lab that end in `.toml`: path in the lab's folder and text, by name. None where there is no such folder.
    pub fn toml_files(&self, folder: &str) -> Result<Vec<(PathBuf, String)>> {
        let mut paths: Vec<PathBuf> = match self {
            Source::Changed { of, .. } => return of.toml_files(folder),
            Source::Embedded(name) => {
                let root = Path::new(name.as_str());
                let files = EMBEDDED.get_dir(root.join(folder)).into_iter().flat_map(Dir::files);
                let within = |f: &include_dir::File<'_>| f.path().strip_prefix(root).map(Path::to_owned).ok();
                files.filter_map(within).collect()
            }
            Source::Folder(dir) => {
                let entries = match std::fs::read_dir(dir.join(folder)) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(e) => return Err(e).tried("list the folder", dir.join(folder).display()),
                };
                entries
                    .flatten()
                    .map(|e| Path::new(folder).join(e.file_name()))
                    .collect()
            }
        };
        paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
        paths.sort();
        paths.into_iter().map(|p| Ok((p.clone(), self.read(&p)?))).collect()
    }
}

/// What a file that is no UTF-8 seems to be, and where it stops to be UTF-8.
fn encoding(e: &std::string::FromUtf8Error) -> String {
    let (bytes, valid) = (e.as_bytes(), e.utf8_error().valid_up_to());
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return "it is UTF-16 text: save it as UTF-8".to_owned();
    }
    let line = bytes[..valid].iter().filter(|b| **b == b'\n').count() + 1;
    format!(
        "it is no UTF-8 text: the byte 0x{:02x} in line {line}; save it as UTF-8",
        bytes[valid]
    )
}

/// Of a regular file only: a pipe would block, a device never end.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let refuse = |text: &str| Err(std::io::Error::other(text.to_owned()));
    if !std::fs::metadata(path)?.is_file() {
        return refuse("it is no regular file");
    }
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return refuse("it is larger than 1 MiB");
    }
    Ok(bytes)
}
