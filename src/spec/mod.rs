//! The lab file: what a person writes, checked and resolved. Pure: text in, [`Lab`] or [`Invalid`] out.
//!
//! `raw` is the file as written, `decode` reads it with all findings about its shape at once, `resolve` fills in defaults
//! and addresses, `rules` is the table of what must hold, `source` finds a lab's files.

mod checks;
mod decode;
mod lab;
pub mod raw;
mod resolve;
pub mod rules;
mod settings;
mod source;
#[cfg(test)]
mod tests;

pub use crate::diagnostic::{At, Finding, Invalid, Severity, known, render};
pub use ccr_contract::status::NetworkRole;
pub use decode::decode;
pub use lab::*;
pub use settings::{PackSettings, Setting, SettingKind};
pub use source::{LAB_FILE, Source, embedded, find};
#[cfg(test)]
pub(crate) use tests::{entry, with_list};
#[cfg(test)]
pub use tests::{example, example_context};

use crate::error::{Error, Problem, Result};
use crate::units::{Name, Size};

/// What a lab file is checked against.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Images that can be built or are there.
    pub images: Vec<Name>,
    /// Runtime packs and what they declare.
    pub packs: Vec<PackSettings>,
    /// Memory of this host that machines may use; unknown is not checked.
    pub host_memory: Option<Size>,
    /// Ids of preflight's checks, which a lab can break on purpose like rules.
    pub checks: Vec<&'static str>,
}

impl Context {
    /// The pack of this name.
    pub fn pack(&self, name: &str) -> Option<&PackSettings> {
        self.packs.iter().find(|p| p.pack.as_str() == name)
    }
}

/// A lab file that holds.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The lab, resolved.
    pub lab: Lab,
    /// Rules that it breaks on purpose.
    pub warnings: Vec<Finding>,
}

/// Checks and resolves the text of a lab file; `file_name` is what a person reads in the report.
///
/// # Errors
/// [`Error::Invalid`] with every finding; [`Error::Host`] where the lab is well but does not fit this host.
pub fn parse(file_name: &str, text: &str, context: &Context) -> Result<Loaded> {
    let invalid = |findings| Error::Invalid(Box::new(Invalid::new(file_name, text, findings)));
    let file: raw::LabFile = decode(text).map_err(invalid)?;
    let lab = resolve::resolve(&file, text, context);
    let findings = rules::check(&rules::View {
        file: &file,
        lab: &lab,
        context,
    });
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.severity == Severity::Error);
    match errors.as_slice() {
        [] => Ok(Loaded { lab, warnings }),
        [only] if only.rule == rules::NOT_ENOUGH_MEMORY => Err(Error::Host(Problem {
            remedy: only.help.clone(),
            ..Problem::new("run the lab on this host")
                .on(file_name)
                .observed(&only.message)
        })),
        _ => Err(invalid(errors.into_iter().chain(warnings).collect())),
    }
}

/// Checks and resolves a lab's file.
///
/// # Errors
/// Those of [`Source::read`] and [`parse`].
pub fn load(source: &Source, context: &Context) -> Result<Loaded> {
    parse(&source.file_name(), &source.lab_file()?, context)
}

/// The text of a lab file with another name for the lab; everything else stays, comments too.
///
/// # Errors
/// [`Error::Invalid`] where it is no lab file.
pub fn renamed(file_name: &str, text: &str, name: &Name) -> Result<String> {
    let invalid = |findings| Error::Invalid(Box::new(Invalid::new(file_name, text, findings)));
    let file: raw::LabFile = decode(text).map_err(invalid)?;
    let mut renamed = text.to_owned();
    renamed.replace_range(file.name.span, &format!("\"{name}\""));
    Ok(renamed)
}

/// The JSON schema of the lab file, made from the types; checked in as `labs/lab.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(raw::LabFile)
}
