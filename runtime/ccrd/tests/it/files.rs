//! The files of a cluster that is switched off: found, changed as another version or a bad disk would, put back.

use crate::cluster::{Cluster, NODES};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Every file below a folder, in order.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The kinds of small files that outlive a daemon and have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Record,
    Checkpoint,
    Source,
    HubState,
    Queue,
    Witness,
}

pub const KINDS: [Kind; 6] = [
    Kind::Record,
    Kind::Checkpoint,
    Kind::Source,
    Kind::HubState,
    Kind::Queue,
    Kind::Witness,
];

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let folder = path.parent()?.file_name()?.to_str()?;
        Some(match (folder, name) {
            (_, "cluster.json") => Kind::Record,
            (_, "hub.json") => Kind::HubState,
            (_, ccrd::witness::FILE) => Kind::Witness,
            ("queue" | "dumpster", _) => Kind::Queue,
            (_, name) if name.ends_with(".chk") => Kind::Checkpoint,
            (_, name) if name.ends_with(".src") => Kind::Source,
            _ => return None,
        })
    }
}

/// All of them in a cluster that is switched off.
pub fn small(cluster: &Cluster) -> Vec<(Kind, PathBuf)> {
    let folders = NODES
        .map(|n| cluster.data(n))
        .into_iter()
        .chain([cluster.samba.files()]);
    let files = folders.flat_map(|f| below(&f));
    files.filter_map(|f| Some((Kind::of(&f)?, f))).collect()
}

/// Changes what such a file says. What follows its first line stays, and so does the length of the witness file.
pub fn rewrite(kind: Kind, file: &Path, change: fn(Kind, &mut Value)) {
    let mut bytes = std::fs::read(file).expect("the file");
    let rest = match kind {
        Kind::Queue => bytes.split_off(bytes.iter().position(|b| *b == b'\n').expect("a head")),
        _ => Vec::new(),
    };
    let length = bytes.len();
    if kind == Kind::Witness {
        bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1));
    }
    if bytes.is_empty() {
        return;
    }
    let mut value = serde_json::from_slice(&bytes).expect("JSON");
    change(kind, &mut value);
    bytes = serde_json::to_vec(&value).expect("plain");
    bytes.extend(rest);
    if kind == Kind::Witness {
        bytes.resize(length, 0);
    }
    std::fs::write(file, bytes).expect("the file");
}

/// As a ccrd writes it that is newer by a field. A file without a checksum is as good as one with it.
pub fn newer_by_a_field(_: Kind, value: &mut Value) {
    let object = value.as_object_mut().expect("an object");
    object.remove("crc");
    object.insert("colour".into(), serde_json::json!({"of": "next"}));
}

/// As the first ccrd wrote it: without a schema and what came with it.
pub fn older(kind: Kind, value: &mut Value) {
    let object = value.as_object_mut().expect("an object");
    object.remove("schema");
    object.remove("crc");
    object.remove("sum");
    if kind == Kind::Record
        && let Some(saved) = object.remove("saved")
    {
        *value = saved;
    }
}

/// As a ccrd writes it that is newer by a schema.
pub fn newer_by_a_schema(_: Kind, value: &mut Value) {
    value["schema"] = 99.into();
}

/// A copy of a folder and all that is in it.
pub fn copy(from: &Path, to: &Path) {
    for file in below(from) {
        let to = to.join(file.strip_prefix(from).expect("below it"));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(&file, &to).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}
