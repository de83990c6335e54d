//! A step that runs a command in a machine: its words, and what is made of how the command ends.

use super::World;
use super::file::Action;
use super::raw::{Table, Value};
use super::reader::Reader;
use super::run::{Broken, Runner};
use crate::diagnostic::{At, Finding};
use crate::guest::{Output, excerpt};
use crate::units::Span;

/// The most lines of what a command said that a verdict repeats.
const LINES: usize = 5;

/// A command in a machine, and how it must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The role or machine that runs it.
    pub on: String,
    /// In which time it must end. Unscaled.
    pub within: Span,
    /// The exit status that it must have; any where absent.
    pub status: Option<i32>,
    /// What must be in what it prints.
    pub output: Option<String>,
}

impl Exec {
    /// Whether it ended as it must, and what was seen.
    fn judge(&self, node: &str, ended: &Output) -> Result<String, Broken> {
        let seen = format!("status {} on {node}", ended.status);
        if let Some(wanted) = self.status.filter(|s| *s != ended.status) {
            let said = last_lines(&ended.complaint());
            return Err(Broken::Failed(format!("{seen}, not {wanted}: {said}")));
        }
        let printed = String::from_utf8_lossy(&ended.stdout);
        match self.output.as_deref().filter(|text| !printed.contains(text)) {
            None => Ok(seen),
            Some(text) => {
                let said = last_lines(&excerpt(&ended.stdout));
                let text = text.escape_debug();
                Err(Broken::Failed(format!(
                    "{seen}, without `{text}` in its output: {said}"
                )))
            }
        }
    }
}

/// The last lines of what a command said, on one line.
fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    match lines[lines.len().saturating_sub(LINES)..].join(" | ") {
        none if none.is_empty() => "not a word".to_owned(),
        last => last,
    }
}

impl Runner<'_> {
    pub(super) fn exec(&mut self, exec: &Exec) -> Result<String, Broken> {
        let seen = self.look_now()?;
        let node = self.roles.resolve(&exec.on, &seen)?.node;
        let within = self.slowness().scale(exec.within.duration());
        let ended = self.beside(|world: &mut dyn World| world.exec(&node, &exec.argv, within))?;
        exec.judge(&node, &ended)
    }
}

impl Reader<'_> {
    pub(super) fn exec(&mut self, table: &Table) -> Option<Action> {
        let argv = self.argv(table);
        let place = table.get("exec").map_or(0..0, |v| v.span.clone());
        let on = self.target(table, "on");
        if table.get("on").is_none() {
            let finding = Finding::new("missing-key", "`exec` does not say in which machine").at(place, "where");
            self.find(finding.help("add `on = \"active\"`, or another role"));
        }
        let within = self.deadline("exec", table);
        let status = self.status(table);
        let output = self.text_of(table, "output");
        if let Some(text) = output.as_ref().filter(|text| text.value.is_empty()) {
            self.find(Finding::new("bad-value", "every output has an empty text in it").on(text, "this one"));
        }
        Some(Action::Exec(Exec {
            argv: argv?,
            on: on?,
            within: within?,
            status: status?,
            output: output.map(|text| text.value),
        }))
    }

    /// Program and arguments: texts, as the machine gets them.
    fn argv(&mut self, table: &Table) -> Option<Vec<String>> {
        let value = table.get("exec")?;
        let text = |item: &At<Value>| match &item.value {
            Value::Text(text) if !text.contains('\0') => Some(text.clone()),
            _ => None,
        };
        let argv = match &value.value {
            Value::List(items) => items.iter().map(text).collect::<Option<Vec<String>>>(),
            _ => None,
        };
        let argv = argv.filter(|argv| argv.first().is_some_and(|program| !program.is_empty()));
        if argv.is_none() {
            let finding = Finding::new("bad-value", "`exec` is a program and its arguments: a list of texts");
            self.find(finding.on(value, "this one").help(
                "write it like `exec = [\"systemctl\", \"is-active\", \"ccrd\"]`; no shell reads it: \
                 for one, write `[\"sh\", \"-c\", \"…\"]`",
            ));
        }
        argv
    }

    /// The status that a command must have, where it must have one.
    fn status(&mut self, table: &Table) -> Option<Option<i32>> {
        let Some(value) = table.get("status") else {
            return Some(Some(0));
        };
        match &value.value {
            Value::Number(n @ 0..=255) => Some(Some(*n as i32)),
            Value::Text(text) if text == "any" => Some(None),
            _ => {
                let finding = Finding::new("bad-value", "`status` is a number from 0 to 255, or \"any\"");
                self.find(finding.on(value, "this one"));
                None
            }
        }
    }
}
