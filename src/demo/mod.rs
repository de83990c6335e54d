//! Demos: lessons of chapters, in which a person predicts, something is broken, and the lab judges.
//!
//! A chapter is Markdown with fences of TOML. What it does, waits for and checks are steps of a scenario, read and run by the same code:
//! each chapter is a scenario, and a run of a demo leaves the folder of a run. Beside it stand questions, which the lab answers.

mod chapter;
mod fences;
mod judge;
mod measured;
mod play;
mod source;
mod study;
#[cfg(test)]
mod tests;
mod written;

pub use judge::{Answered, ChapterReport, DemoReport};
pub use play::{Audience, Nobody, run};
pub use source::{HEAD_FILE, Source, find, names};
pub use study::{Input, Study};

use crate::diagnostic::{At, Finding, Invalid};
use crate::error::{Error, Problem, Result};
use crate::scenario::{Rules, Scenario, Statement, vocabulary};
use crate::spec::{Lab, decode};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// A demo, checked.
#[derive(Debug, Clone)]
pub struct Demo {
    /// What it is called.
    pub name: String,
    /// What is said of it.
    pub head: Head,
    /// The lab that it runs in.
    pub lab: Lab,
    /// Its chapters, in the order of their files.
    pub chapters: Vec<Chapter>,
}

/// What a demo says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// What a person reads.
    pub title: String,
    /// The lab that it runs in, as the command line names it.
    pub lab: At<String>,
    /// What is learned, in a sentence or two.
    pub about: String,
    /// How long a person needs.
    pub minutes: u32,
}

/// A chapter: a scenario, and what a person reads, is asked and is told meanwhile.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// The name of its file without `.md`.
    pub id: String,
    /// What a person reads.
    pub title: String,
    /// What is shown, each with the number of steps that were done before.
    pub beats: Vec<(usize, Beat)>,
    /// What is asked.
    pub asks: Vec<Ask>,
    /// What must be true of what was measured, each with its words.
    pub limits: Vec<Statement>,
    /// What is done, waited for and checked.
    pub scenario: Scenario,
}

/// What a person is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// Markdown.
    Prose(String),
    /// The question of this number.
    Ask(usize),
    /// Steps that do something to the lab begin.
    Do,
    /// The lab is watched: what is said until something is seen, and what is said of each step once it was seen.
    Watch {
        /// Until something is seen.
        meanwhile: Option<String>,
        /// Of each step.
        says: Vec<Option<String>>,
    },
    /// Steps that must come true begin.
    Check,
}

/// A question that the lab answers.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its id, in its chapter.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// What can be answered.
    pub choices: Vec<Choice>,
    /// What helps, for who wants it.
    pub hints: Vec<String>,
    /// The steps that come between this question and the next one behind a step. It is answered by what is so behind the last of them.
    pub steps: Range<usize>,
}

/// An answer that can be given.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// When it is the right one.
    pub when: Statement,
    /// Why it is right or wrong, with names of what was measured in braces.
    pub why: String,
}

/// Reads a demo whole; `lab` finds the lab that it names.
///
/// # Errors
/// [`Error::Invalid`] with all that is wrong in any of its files; [`Error::Usage`] where a file cannot be read.
pub fn read(source: &Source, lab: impl FnOnce(&str) -> Result<Lab>) -> Result<Demo> {
    let head_name = source.label(HEAD_FILE);
    let text = source.read(HEAD_FILE)?;
    let wrong = |findings| Error::Invalid(Box::new(Invalid::new(&head_name, &text, findings)));
    let head: Head = decode(&text).map_err(wrong)?;
    let lab = lab(&head.lab).map_err(|e| match e.problem() {
        Some(Problem { observed, remedy, .. }) if matches!(e, Error::Usage(_)) => {
            let seen = observed.clone().unwrap_or_default();
            let finding = Finding::new("no-lab", format!("there is no such lab: {seen}")).on(&head.lab, "this one");
            wrong(vec![remedy.iter().fold(finding, |f, help| f.help(help))])
        }
        _ => e,
    })?;
    let (pack, set) = (vocabulary(&lab)?, BTreeMap::new());
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &pack,
        set: &set,
        shelf: None,
    };
    let files = source.chapters()?;
    if files.is_empty() {
        let seen = "it has no chapter: no file beside it ends in .md";
        let problem = Problem::new("read the demo").on(head_name).observed(seen);
        return Err(Error::Usage(problem.remedy("write one, like 01-who-serves.md")));
    }
    let (mut chapters, mut invalid) = (Vec::new(), Vec::new());
    for file in files {
        match chapter::read(&file, &source.label(&file), &source.read(&file)?, rules) {
            Ok(chapter) => chapters.push(chapter),
            Err(wrong) => invalid.push(*wrong),
        }
    }
    match Invalid::together(invalid) {
        Some(invalid) => Err(Error::Invalid(Box::new(invalid))),
        None => Ok(Demo {
            name: source.name(),
            head,
            lab,
            chapters,
        }),
    }
}

/// What a demo says of itself.
///
/// # Errors
/// As of [`read`].
pub fn head(source: &Source) -> Result<Head> {
    let text = source.read(HEAD_FILE)?;
    let wrong = |findings| Error::Invalid(Box::new(Invalid::new(&source.label(HEAD_FILE), &text, findings)));
    decode(&text).map_err(wrong)
}
