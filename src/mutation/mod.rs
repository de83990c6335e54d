//! Misconfigurations as data: each a file below a lab's `mutations/`, that says how it is made, what finds it and what shows it.
//!
//! A misconfigured lab is a lab file and nothing else: [`Mutation::patch`] writes the change into the text of one (docs/mutations.md).
//! So plan, checkpoints, forks and scenarios know nothing of mutations. Pure: text in, text out.

mod patch;
#[cfg(test)]
mod tests;

use crate::diagnostic::Invalid;
use crate::error::{Error, Problem, Result};
use crate::spec::{self, Source, known};
use crate::verify::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The folder of a lab that has them.
pub const FOLDER: &str = "mutations";

/// A file of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mutation {
    /// What it is called by, also its file's name: `M13`.
    pub id: String,
    /// What is wrong, in a line.
    pub title: String,
    /// What it can do.
    pub severity: Severity,
    /// Who told of it: an article, a public report.
    pub source: String,
    /// Rules of the lab file that find it; the changed file breaks them on purpose.
    #[serde(default)]
    pub rules: BTreeSet<String>,
    /// Checks of preflight that find it.
    #[serde(default)]
    pub preflight: BTreeSet<String>,
    /// Whether the lab becomes healthy with it.
    #[serde(default = "yes")]
    pub healthy: bool,
    /// Why the lab cannot be brought up with it: the runtime says so, and `up` ends with an error. Absent where it can.
    pub refused: Option<String>,
    /// What shows it live.
    pub shown: Option<Shown>,
    /// How it is mended.
    pub remedy: String,
    /// What is to be learnt of it.
    pub lesson: String,
    /// What goes out of the lab file, before anything comes in: dotted paths.
    #[serde(default)]
    pub remove: Vec<String>,
    /// What comes into the lab file: tables are merged, lists appended to, anything else replaces what is there.
    #[serde(default)]
    pub lab: toml::Table,
}

impl Mutation {
    /// What finds it before load, for people.
    pub fn found_by(&self) -> String {
        let rules = self.rules.iter().map(|r| format!("rule {r}"));
        let all: Vec<String> = rules.chain(self.preflight.iter().cloned()).collect();
        if all.is_empty() {
            "nothing".into()
        } else {
            all.join(", ")
        }
    }
}

fn yes() -> bool {
    true
}

/// What a misconfiguration can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Acknowledged data is lost, or two serve at once.
    DataLoss,
    /// Nobody serves.
    Outage,
    /// The lab cannot be made whole.
    Blocks,
    /// All looks well until the second failure.
    Hidden,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Severity::DataLoss => "data loss",
            Severity::Outage => "outage",
            Severity::Blocks => "blocks",
            Severity::Hidden => "hidden",
        })
    }
}

/// A scenario, and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Its id.
    pub scenario: String,
    /// Its verdict in the misconfigured lab.
    pub verdict: Verdict,
    /// The invariants that fail then, and no other ones.
    #[serde(default)]
    pub by: BTreeSet<String>,
    /// Why that is so.
    pub why: String,
}

/// All of a lab, by file.
///
/// # Errors
/// [`Error::Invalid`] with all that is wrong with all files.
pub fn catalogue(source: &Source) -> Result<Vec<Mutation>> {
    let (mut all, mut invalid) = (Vec::new(), Vec::new());
    for (path, text) in source.toml_files(FOLDER)? {
        match spec::decode::<Mutation>(&text) {
            Ok(mutation) => all.push(mutation),
            Err(findings) => invalid.push(Invalid::new(&path.display().to_string(), &text, findings)),
        }
    }
    match Invalid::together(invalid) {
        Some(invalid) => Err(Error::Invalid(Box::new(invalid))),
        None => Ok(all),
    }
}

/// The one that is called so.
///
/// # Errors
/// [`Error::Usage`] where there is none, with what is near.
pub fn named<'a>(all: &'a [Mutation], id: &str) -> Result<&'a Mutation> {
    all.iter().find(|m| m.id.eq_ignore_ascii_case(id)).ok_or_else(|| {
        Error::Usage(
            Problem::new("find the mutation")
                .on(id.escape_debug())
                .observed("the lab has none of this id")
                .remedy(known(id, all.iter().map(|m| m.id.as_str()))),
        )
    })
}

/// The lab with these misconfigurations in its file, one after the other; as it is where there are none.
///
/// # Errors
/// An unknown id; one that is there twice or changes nothing.
pub fn applied(source: Source, ids: &[String]) -> Result<Source> {
    if ids.is_empty() {
        return Ok(source);
    }
    let all = catalogue(&source)?;
    let mut text = source.lab_file()?;
    let mut names: Vec<&str> = Vec::new();
    for id in ids {
        let mutation = named(&all, id)?;
        if names.contains(&mutation.id.as_str()) {
            return Err(refused(&mutation.id, "it is named twice"));
        }
        text = mutation.patch(&text)?;
        names.push(&mutation.id);
    }
    Ok(Source::Changed {
        by: names.join(" and "),
        of: Box::new(source),
        text,
    })
}

fn refused(id: &str, seen: impl std::fmt::Display) -> Error {
    Error::Usage(Problem::new("misconfigure the lab").on(id).observed(seen))
}
