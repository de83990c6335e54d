//! Writing a run's folder.

use super::{LabDocument, Manifest, SCHEMA, Versioned, names};
use crate::error::{IoContext, Result};
use crate::files::Home;
use crate::private;
use crate::spec::{LAB_FILE, Lab};
use crate::verify::{History, RunReport, ScenarioReport};
use ccr_contract::dump::Dump;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// The final reads in their file.
#[derive(Debug, Serialize)]
struct Dumps<'a> {
    dumps: &'a [Dump],
}

/// Makes the folder, with what was to be run.
///
/// # Errors
/// Where it cannot be written.
pub fn begin(folder: &Path, manifest: &Manifest, lab: &Lab, lab_file: &str) -> Result<()> {
    Home::private_dir(folder)?;
    json_file(&folder.join(names::RUN), &Versioned::new(manifest))?;
    let document = LabDocument { lab: lab.clone() };
    json_file(&folder.join(names::LAB), &Versioned::new(&document))?;
    let own = folder.join(names::LAB_FOLDER);
    Home::private_dir(&own)?;
    write(&own.join(LAB_FILE), lab_file.as_bytes())
}

/// The verdict over all.
///
/// # Errors
/// Where it cannot be written.
pub fn end(folder: &Path, report: &RunReport) -> Result<()> {
    json_file(&folder.join(names::VERDICT), &Versioned::new(report))
}

/// What a scenario left behind, into its folder. `parts` are the files that its `text` includes, by their paths beside it.
///
/// # Errors
/// Where it cannot be written.
pub fn scenario(
    folder: &Path,
    (text, parts): (&str, &BTreeMap<String, String>),
    report: &ScenarioReport,
    history: &History,
) -> Result<()> {
    lines(&folder.join(names::EVENTS), "events", &history.events)?;
    let ops = folder.join(names::OPS);
    // The clients wrote it as it happened; a simulator has none.
    if !ops.exists() {
        lines(&ops, "ops", &history.ops)?;
    }
    lines(&folder.join(names::OBSERVATIONS), "observations", &history.observations)?;
    let dumps = Dumps { dumps: &history.dumps };
    json_file(&folder.join(names::DUMPS), &Versioned::new(&dumps))?;
    let rest = History {
        ops: Vec::new(),
        events: Vec::new(),
        observations: Vec::new(),
        dumps: Vec::new(),
        ..history.clone()
    };
    json_file(&folder.join(names::HISTORY), &Versioned::new(&rest))?;
    write(&folder.join(names::SCENARIO), text.as_bytes())?;
    for (path, text) in parts {
        let path = folder.join(path);
        if let Some(above) = path.parent() {
            Home::private_dir(above)?;
        }
        write(&path, text.as_bytes())?;
    }
    json_file(&folder.join(names::VERDICT), &Versioned::new(report))
}

/// The first line of a file of lines.
pub fn head(of: &str) -> serde_json::Value {
    json!({"schema": SCHEMA, "file": of})
}

fn lines<T: Serialize>(path: &Path, of: &str, lines: &[T]) -> Result<()> {
    let mut text = head(of).to_string().into_bytes();
    text.push(b'\n');
    for line in lines {
        serde_json::to_writer(&mut text, line).expect("a line is plain data");
        text.push(b'\n');
    }
    write(path, &text)
}

fn json_file<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).expect("it is plain data");
    text.push(b'\n');
    write(path, &text)
}

/// A file of the run, for its owner only.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    private::create(path)
        .and_then(|mut f| f.write_all(bytes))
        .tried("write the file", path.display())
}
