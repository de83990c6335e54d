//! A step that keeps what a field of a node's status is now: for the report, and to be compared with later.

use super::expression::Value as Kept;
use super::file::Action;
use super::raw::Table;
use super::reader::Reader;
use super::run::{Broken, PAUSE, Runner};
use crate::diagnostic::{Finding, known};
use crate::verify;
use ccr_contract::status::Status;
use serde_json::{Value, json};
use std::time::Duration;

/// The verb.
pub(super) const SAMPLE: &str = "sample";

/// How long a node may be silent. Unscaled.
const ANSWER: Duration = Duration::from_secs(5);

/// What tells the entries of a list apart.
const NAMES: [&str; 3] = ["name", "node", "group"];

/// A field of a status, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The field by its path: `service.epoch`, `copies.0.replayed`, `cluster.votes.have`.
    pub path: String,
    /// The role or machine that is asked.
    pub on: String,
}

impl Reader<'_> {
    /// A field that a status can have.
    pub fn sample(&mut self, table: &Table) -> Option<Action> {
        let path = self.text_of(table, SAMPLE)?;
        let Some(on) = self.target(table, "on") else {
            if table.get("on").is_none() {
                let finding = Finding::new("missing-key", "`sample` does not say of which machine");
                self.find(finding.on(&path, "of which").help("add `on = \"a\"`, or another role"));
            }
            return None;
        };
        let schema = schemars::schema_for!(Status).to_value();
        match field(&schema, &path) {
            Ok(()) => Some(Action::Sample(Sample { path: path.value, on })),
            Err((segment, names)) => {
                let message = format!("a status has no field `{}`", path.value.escape_debug());
                let names = names.iter().map(String::as_str);
                self.find(
                    Finding::new("bad-value", message)
                        .on(&path, "no such field")
                        .help(known(&segment, names)),
                );
                None
            }
        }
    }
}

/// Whether a status can have the field; else the part of its path that is wrong, and what could stand there.
fn field(schema: &Value, path: &str) -> Result<(), (String, Vec<String>)> {
    let mut at = behind(schema, schema);
    for segment in path.split('.') {
        let wrong = |names| (segment.to_owned(), names);
        at = if let Some(fields) = at.get("properties").and_then(Value::as_object) {
            let names = || fields.keys().cloned().collect();
            fields.get(segment).ok_or_else(|| wrong(names()))?
        } else if let Some(items) = at.get("items").filter(|_| !segment.is_empty()) {
            items
        } else if let Some(values) = at.get("additionalProperties").filter(|v| v.is_object()) {
            values
        } else {
            return Err(wrong(Vec::new()));
        };
        at = behind(schema, at);
    }
    Ok(())
}

/// What is meant by a reference, or by something that may be null.
fn behind<'a>(schema: &'a Value, mut at: &'a Value) -> &'a Value {
    loop {
        let named = at.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        let one_of = at.get("anyOf").and_then(Value::as_array);
        let there = one_of.and_then(|all| all.iter().find(|s| s["type"] != "null"));
        match named.and_then(|path| schema.pointer(path)).or(there) {
            Some(next) => at = next,
            None => return at,
        }
    }
}

/// What the field is in a status; an entry of a list is meant by its number, or by its name.
fn pick<'a>(status: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(status, |at, segment| match at {
        Value::Array(items) => match segment.parse::<usize>() {
            Ok(number) => items.get(number),
            Err(_) => items.iter().find(|i| NAMES.iter().any(|name| i[*name] == segment)),
        },
        other => other.get(segment),
    })
}

/// The same as a condition compares it: of a list, how many entries it has. None of what cannot be compared.
fn kept(value: &Value) -> Option<Kept> {
    match value {
        Value::Number(n) => n.as_u64().map(Kept::Number),
        Value::Array(items) => Some(Kept::Number(items.len() as u64)),
        Value::String(text) => Some(Kept::Text(text.clone())),
        Value::Bool(yes) => Some(Kept::Text(yes.to_string())),
        Value::Null | Value::Object(_) => None,
    }
}

impl Runner<'_> {
    /// Keeps what the field is now; waits for a moment where the node does not answer.
    pub(super) fn sample(&mut self, sample: &Sample, label: Option<&str>) -> Result<String, Broken> {
        let begun = self.world.now_us();
        loop {
            let seen = self.look(Some(begun))?;
            let node = self.roles.resolve(&sample.on, &seen)?.node;
            let status = seen.nodes.get(&node).and_then(|v| v.status.as_ref());
            let status = status.map(|s| serde_json::to_value(s).expect("a status is plain data"));
            let value = status.as_ref().and_then(|s| pick(s, &sample.path));
            if let Some(value) = value.filter(|v| !v.is_null()) {
                return Ok(self.keep_sample(sample, &node, seen.t_us, value, label));
            }
            if self.world.now_us() >= begun + self.slowness().scale(ANSWER).as_micros() as u64 {
                let why = match status {
                    Some(_) => "has no such field, or does not know it",
                    None => "does not answer",
                };
                return Err(Broken::Unclear(format!("{node} {why}")));
            }
            self.world.await_news(PAUSE)?;
        }
    }

    fn keep_sample(&mut self, sample: &Sample, node: &str, t_us: u64, value: &Value, label: Option<&str>) -> String {
        if let (Some(label), Some(kept)) = (label, kept(value)) {
            self.roles.keep_sample(label, kept);
        }
        let path = &sample.path;
        self.note(
            "scenario.sample",
            json!({"label": label, "node": node, "path": path, "value": value}),
        );
        self.history.samples.push(verify::Sample {
            label: label.map(str::to_owned),
            node: node.to_owned(),
            path: path.clone(),
            t_us,
            value: value.clone(),
        });
        format!("{path} on {node} = {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_that_a_status_can_have() {
        let schema = schemars::schema_for!(Status).to_value();
        for well in [
            "epoch",
            "service.epoch",
            "service.state",
            "cluster.votes.have",
            "cluster.votes.have.0",
            "copies.0.replayed",
            "copies.First.copy_queue",
            "cluster.members.node1.state",
            "cluster.witness.probed_by.node1.ok",
            "hub.queued",
        ] {
            assert_eq!(field(&schema, well), Ok(()), "{well}");
        }
        for bad in ["", ".", "epoc", "epoch.x", "service", "service."] {
            let is_whole = bad == "service";
            assert_eq!(field(&schema, bad).is_ok(), is_whole, "{bad}");
        }
        let (segment, names) = field(&schema, "service.epoc").unwrap_err();
        assert_eq!(segment, "epoc");
        assert!(names.iter().any(|n| n == "epoch"), "{names:?}");
    }

    #[test]
    fn entries_of_lists_are_meant_by_number_or_name() {
        let status = json!({"copies": [{"group": "First", "node": "node1", "replayed": 3}], "have": ["a", "b"]});
        assert_eq!(pick(&status, "copies.First.replayed"), Some(&json!(3)));
        assert_eq!(pick(&status, "copies.node1.replayed"), Some(&json!(3)));
        assert_eq!(pick(&status, "copies.0.replayed"), Some(&json!(3)));
        assert_eq!(pick(&status, "copies.1.replayed"), None);
        assert_eq!(pick(&status, "copies.0.replayed.x"), None);
        assert_eq!(kept(&status["have"]), Some(Kept::Number(2)));
        assert_eq!(kept(&json!(true)), Some(Kept::Text("true".into())));
        assert_eq!(kept(&json!(-1)), None);
        assert_eq!(kept(&json!(null)), None);
    }
}
