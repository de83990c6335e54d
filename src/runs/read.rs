//! Reading a run's folder. What is torn, missing or of another version is named, and the rest is read.

use super::{LabDocument, Manifest, SCHEMA, names};
use crate::error::{Error, Problem, Result};
use crate::spec::Lab;
use crate::verify::{History, OnPurpose, RunReport, ScenarioReport, Verdict};
use ccr_contract::dump::Dump;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A run, as far as its folder could be read.
#[derive(Debug)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// What was run, with what.
    pub manifest: Option<Manifest>,
    /// The resolved lab.
    pub lab: Option<Lab>,
    /// The verdicts; where the run's own are not there, put together from those of its scenarios.
    pub report: RunReport,
    /// The scenarios that were run, in the order of the report.
    pub scenarios: Vec<ScenarioRun>,
    /// What could not be read, each with the file and why.
    pub missing: Vec<String>,
}

/// What is left of a scenario.
#[derive(Debug)]
pub struct ScenarioRun {
    /// Its folder.
    pub folder: PathBuf,
    /// Its verdict.
    pub report: ScenarioReport,
    /// What it rests on.
    pub history: History,
    /// The scenario as it was written.
    pub text: String,
}

/// Whether a folder is one of a run.
pub fn is_run(folder: &Path) -> bool {
    [names::RUN, names::VERDICT].iter().any(|n| folder.join(n).is_file())
}

/// Reads a run's folder.
///
/// # Errors
/// [`Error::Usage`] where it is none.
pub fn read(folder: &Path) -> Result<Run> {
    if !is_run(folder) {
        let problem = Problem::new("read the run").on(folder.display());
        let seen = match folder.is_dir() {
            true => format!("there is neither {} nor {} in it", names::RUN, names::VERDICT),
            false => "there is no such folder".to_owned(),
        };
        return Err(Error::Usage(
            problem.observed(seen).remedy("name the folder of a run of `verify`"),
        ));
    }
    let mut reader = Reader {
        root: folder.to_owned(),
        missing: Vec::new(),
    };
    let manifest: Option<Manifest> = reader.document(Path::new(names::RUN));
    let lab = reader.document::<LabDocument>(Path::new(names::LAB)).map(|d| d.lab);
    let report = reader.document::<RunReport>(Path::new(names::VERDICT));
    let scenarios = reader.scenarios(report.as_ref());
    let report = report.unwrap_or_else(|| {
        let m = manifest.clone().unwrap_or_default();
        let all = || scenarios.iter().map(|s| &s.report);
        // What its own verdict would have been is not known.
        let verdict = all().map(|r| r.verdict).fold(Verdict::Unknown, Verdict::and);
        RunReport {
            distributions: Vec::new(),
            on_purpose: lab.as_ref().map(OnPurpose::of).unwrap_or_default(),
            lab: m.lab,
            seed: m.seed,
            accel: m.accel,
            on: m.on,
            verdict,
            scenarios: all().cloned().collect(),
        }
    });
    Ok(Run {
        folder: folder.to_owned(),
        manifest,
        lab,
        report,
        scenarios,
        missing: reader.missing,
    })
}

/// The same without the histories of its scenarios, of which nothing is missing then: for a page over many runs.
///
/// # Errors
/// [`Error::Usage`] where it is none.
pub fn glance(folder: &Path) -> Result<Run> {
    let mut reader = Reader {
        root: folder.to_owned(),
        missing: Vec::new(),
    };
    let manifest: Option<Manifest> = reader.document(Path::new(names::RUN));
    match reader.document(Path::new(names::VERDICT)) {
        // Its scenarios may have theirs.
        None => read(folder),
        Some(report) => Ok(Run {
            folder: folder.to_owned(),
            manifest,
            lab: None,
            report,
            scenarios: Vec::new(),
            missing: reader.missing,
        }),
    }
}

struct Reader {
    root: PathBuf,
    missing: Vec<String>,
}

/// The version of a document or of a file of lines.
#[derive(Debug, Deserialize)]
struct Version {
    schema: u32,
}

#[derive(Debug, Deserialize)]
struct Dumps {
    dumps: Vec<Dump>,
}

impl Reader {
    fn lacks(&mut self, file: &Path, why: impl std::fmt::Display) {
        self.missing.push(format!("{}: {why}", file.display()));
    }

    fn bytes(&mut self, file: &Path) -> Option<Vec<u8>> {
        match std::fs::read(self.root.join(file)) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.lacks(file, "it is not there");
                None
            }
            Err(e) => {
                self.lacks(file, e);
                None
            }
        }
    }

    /// Whether a file of this version can be read. One without is of a build of before versions.
    fn takes(&mut self, file: &Path, version: Option<u32>) -> bool {
        match version {
            Some(v) if v > SCHEMA => {
                self.lacks(
                    file,
                    format!("its schema {v} is newer than {SCHEMA}, which this build reads"),
                );
                false
            }
            Some(_) => true,
            None => {
                self.lacks(file, "it has no schema: an older build wrote it");
                true
            }
        }
    }

    fn document<T: DeserializeOwned>(&mut self, file: &Path) -> Option<T> {
        let bytes = self.bytes(file)?;
        let value: Value = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            Err(e) => {
                self.lacks(file, format!("it is torn: {e}"));
                return None;
            }
        };
        let version = Version::deserialize(&value).ok().map(|v| v.schema);
        if !self.takes(file, version) {
            return None;
        }
        match T::deserialize(value) {
            Ok(document) => Some(document),
            Err(e) => {
                self.lacks(file, format!("it is not understood: {e}"));
                None
            }
        }
    }

    /// The lines of a file that can be read.
    fn lines<T: DeserializeOwned>(&mut self, file: &Path) -> Vec<T> {
        let Some(bytes) = self.bytes(file) else {
            return Vec::new();
        };
        let mut lines = bytes.split(|b| *b == b'\n').enumerate().peekable();
        let first = lines
            .peek()
            .and_then(|(_, line)| serde_json::from_slice::<Version>(line).ok());
        if !self.takes(file, first.as_ref().map(|v| v.schema)) {
            return Vec::new();
        }
        let (mut read, mut bad, mut first_bad) = (Vec::new(), 0, 0);
        for (i, line) in lines.skip(usize::from(first.is_some())).filter(|(_, l)| !l.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => read.push(line),
                Err(_) => {
                    (bad, first_bad) = (bad + 1, if bad == 0 { i + 1 } else { first_bad });
                }
            }
        }
        if bad > 0 {
            let whole = read.len();
            self.lacks(
                file,
                format!("{bad} torn, the first in line {first_bad}; {whole} whole lines are shown"),
            );
        } else if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            self.lacks(file, "its last line has no end");
        }
        read
    }

    /// The folders of scenarios: those that the run's verdict names, else all that have one of a scenario's files.
    fn scenarios(&mut self, report: Option<&RunReport>) -> Vec<ScenarioRun> {
        let named = report.map(|r| r.scenarios.iter().map(|s| (s.name(), Some(s))).collect::<Vec<_>>());
        let all = named.unwrap_or_else(|| {
            let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
            let has = |p: &Path| p.join(names::SCENARIO).is_file() || p.join(names::VERDICT).is_file();
            let of = entries.filter(|e| has(&e.path()));
            let mut names: Vec<String> = of.filter_map(|e| e.file_name().into_string().ok()).collect();
            names.sort();
            names.into_iter().map(|n| (n, None)).collect()
        });
        all.into_iter().map(|(name, said)| self.scenario(&name, said)).collect()
    }

    fn scenario(&mut self, name: &str, said: Option<&ScenarioReport>) -> ScenarioRun {
        let folder = Path::new(name);
        let before = self.missing.len();
        let rest: Option<History> = self.document(&folder.join(names::HISTORY));
        let dumps: Option<Dumps> = self.document(&folder.join(names::DUMPS));
        let mut history = History {
            ops: self.lines(&folder.join(names::OPS)),
            events: self.lines(&folder.join(names::EVENTS)),
            observations: self.lines(&folder.join(names::OBSERVATIONS)),
            dumps: dumps.map_or_else(Vec::new, |d| d.dumps),
            ..rest.unwrap_or_default()
        };
        let report: Option<ScenarioReport> = self.document(&folder.join(names::VERDICT));
        let text = self.bytes(&folder.join(names::SCENARIO));
        let text = text.map(|t| String::from_utf8_lossy(&t).into_owned());
        // Whoever judges it again must know.
        history.missing.extend_from_slice(&self.missing[before..]);
        let report = report.or_else(|| said.cloned());
        let report = report.unwrap_or_else(|| ScenarioReport {
            why: Some("its verdict could not be read".to_owned()),
            ..ScenarioReport::empty(name, "", Verdict::Unknown)
        });
        if history.faults.is_empty() {
            history.faults.clone_from(&report.faults);
        }
        ScenarioRun {
            folder: self.root.join(folder),
            report,
            history,
            text: text.unwrap_or_default(),
        }
    }
}
