//! Steps of another file, which stand in a scenario in several places or in several scenarios.

use super::file::Step;
use super::parameters::Parameters;
use super::raw::{RawPart, Table, Value};
use super::reader::Reader;
use crate::diagnostic::{At, Finding, Invalid};
use crate::error::{Error, Problem, Result};
use crate::spec::{Source, decode};
use std::path::{Component, Path, PathBuf};

/// The key of a step that stands for those of another file.
pub(super) const INCLUDE: &str = "include";

/// How deep files include one another, and how often that is done in one scenario.
const DEEPEST: usize = 8;
const MOST: usize = 100;

/// The longest path that is read, in bytes.
const LONGEST: usize = 200;

/// Where included files come from: the folder of the scenario that names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    source: Source,
    folder: PathBuf,
}

impl Shelf {
    /// That of a lab's own scenarios.
    pub fn of_lab(source: &Source) -> Self {
        Self {
            source: source.clone(),
            folder: "scenarios".into(),
        }
    }

    /// That beside a person's own file.
    pub fn beside(file: &Path) -> Self {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
        Self {
            source: Source::Folder(folder.unwrap_or(Path::new(".")).to_owned()),
            folder: PathBuf::new(),
        }
    }

    /// The text of a file, by its path from the folder.
    ///
    /// # Errors
    /// [`Error::Usage`] where it cannot be read, or is a link out of the folder.
    pub fn read(&self, path: &str) -> Result<String> {
        let path = self.folder.join(path);
        if let Source::Folder(dir) = &self.source {
            let refuse = |seen: String| {
                let problem = Problem::new("include the file").on(dir.join(&path).display());
                Error::Usage(problem.observed(seen))
            };
            let real = |p: &Path| p.canonicalize().map_err(|e| refuse(e.to_string()));
            if !real(&dir.join(&path))?.starts_with(real(&dir.join(&self.folder))?) {
                return Err(refuse("it is a link out of the scenario's folder".to_owned()));
            }
        }
        self.source.read(&path)
    }
}

impl Reader<'_> {
    /// The steps of the file that a step names.
    pub fn included(&mut self, at: &At<Table>) -> Option<Vec<Step>> {
        let before = self.found();
        self.only(&at.value, "`include`", &[INCLUDE, "with"]);
        let named = self.text_of(&at.value, INCLUDE)?;
        let with = self.with(&at.value);
        let path = self.path(&named)?;
        if self.found() > before {
            return None;
        }
        let read = match self.rules.shelf {
            Some(shelf) => shelf.read(&path),
            None => Err(Error::Usage(
                Problem::new("include the file").observed("the scenario is in no folder"),
            )),
        };
        match read {
            Ok(text) => self.part(path, &text, &with),
            Err(e) => {
                let seen = e.problem().map_or_else(|| e.to_string(), Problem::to_string);
                self.find(Finding::new("bad-include", seen).on(&named, "this file"));
                None
            }
        }
    }

    fn with(&mut self, table: &Table) -> Table {
        match table.get("with") {
            None => Table::default(),
            Some(At {
                value: Value::Table(with),
                ..
            }) => with.clone(),
            Some(other) => {
                let finding = Finding::new("bad-value", "`with` is a table of parameters and their values");
                self.find(finding.on(other, "this one"));
                Table::default()
            }
        }
    }

    /// The path from the scenario's folder; none where it may not be read.
    fn path(&mut self, named: &At<String>) -> Option<String> {
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        let here = self.files.last().and_then(|f| Path::new(f).parent());
        let path = here.unwrap_or(Path::new("")).join(&named.value);
        let path = path.to_str().unwrap_or_default().to_owned();
        let sound = !named.is_empty()
            && !named.contains(|c: char| c.is_control() || c == '\\')
            && named.ends_with(".toml")
            && Path::new(&named.value).components().all(plain);
        let wrong = if !sound {
            Some("write a path below the file's folder, like `steps/failover.toml`".to_owned())
        } else if path.len() > LONGEST {
            Some(format!("a path has at most {LONGEST} bytes"))
        } else if path
            .split('/')
            .next()
            .is_some_and(|p| super::names::OF_A_SCENARIO.contains(&p))
        {
            Some("a run keeps something else by this name: give it another one".to_owned())
        } else if self.files.contains(&path) {
            let files = self.files.join(" → ");
            Some(format!("it includes itself: {files} → {path}"))
        } else if self.files.len() >= DEEPEST {
            Some(format!("files include one another {DEEPEST} deep at most"))
        } else if self.included >= MOST {
            Some(format!("a scenario includes files {MOST} times at most"))
        } else {
            None
        };
        let Some(why) = wrong else { return Some(path) };
        let message = format!("`{}` cannot be included", named.value.escape_debug());
        self.find(Finding::new("bad-include", message).on(named, "this file").help(why));
        None
    }

    /// The steps of a file; what is wrong in it is told with its own places.
    fn part(&mut self, path: String, text: &str, with: &Table) -> Option<Vec<Step>> {
        self.included += 1;
        self.parts.insert(path.clone(), text.to_owned());
        self.files.push(path.clone());
        let mut inner = Reader::new(self.rules, text);
        inner.continues(self);
        let before = inner.found();
        let steps = match decode::<RawPart>(text) {
            Ok(mut raw) => {
                inner.parameters = Parameters::of_part(&mut inner, &mut raw, with, self);
                // A value that is not there would be found wrong once more.
                (inner.found() == before).then(|| inner.steps(&raw.steps)).flatten()
            }
            Err(findings) => {
                findings.into_iter().for_each(|f| inner.find(f));
                None
            }
        };
        self.continues(&mut inner);
        self.files.pop();
        let findings = inner.into_findings();
        if !findings.is_empty() {
            self.find_in(Invalid::new(&path, text, findings));
        }
        let named = |s: Step| Step {
            file: s.file.or_else(|| Some(path.clone())),
            ..s
        };
        steps.map(|steps| steps.into_iter().map(named).collect())
    }
}
