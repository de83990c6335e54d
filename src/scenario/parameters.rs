//! Parameters of a scenario: values with a name, which a person may set when the scenario is run. They stand in the values of a file
//! as it was read, never in its text: no value can become a key or a step.

use super::raw::{RawPart, RawScenario, Table, Value};
use super::reader::Reader;
use crate::diagnostic::{At, Finding, known};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The parameters of one file, as they are in force.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    values: BTreeMap<String, Value>,
    used: BTreeSet<String>,
}

impl Parameters {
    /// Reads the parameters of a scenario, puts what a person set in the place of what the file says, and fills them in. Finds those
    /// that are used and not there, and those that are there and not used.
    pub fn fill(reader: &mut Reader<'_>, raw: &mut RawScenario) -> Self {
        let told = std::mem::take(&mut raw.parameters);
        let mut all = Self::read(reader, &told, set);
        // Its uses are not wrong as well.
        if reader.found() > 0 {
            return all;
        }
        for step in &mut raw.steps {
            all.fill_table(reader, &mut step.value);
        }
        all.fill_table(reader, &mut raw.settings);
        let events = raw.require.iter_mut().flat_map(|r| &mut r.events);
        for value in events.chain(&mut raw.forbid).chain(&mut raw.sometimes) {
            all.fill_value(reader, value);
        }
        all.find_unused(reader, &told);
        all
    }

    /// The same of a file that is included: `with` is what the step says that includes it, in the file of `outer`.
    pub fn of_part(reader: &mut Reader<'_>, raw: &mut RawPart, with: &Table, outer: &mut Reader<'_>) -> Self {
        for (name, value) in &with.0 {
            let usual = raw.parameters.get(name);
            let (rule, message) = match usual {
                None => (
                    "no-such-parameter",
                    format!("the file has no parameter `{}`", name.value.escape_debug()),
                ),
                Some(usual) if usual.value.kind() != value.value.kind() => {
                    let (wanted, given) = (usual.value.kind(), value.value.kind());
                    (
                        "bad-value",
                        format!("`{}` is {wanted}, not {given}", name.value.escape_debug()),
                    )
                }
                Some(_) => continue,
            };
            let names = raw.parameters.keys().map(|k| k.value.as_str());
            let help = usual.is_none().then(|| known(name, names));
            let mut finding = Finding::new(rule, message).on(name, "this one");
            finding.help = help;
            outer.find(finding);
        }
        let (told, before) = (std::mem::take(&mut raw.parameters), reader.found());
        let given = |_: &mut Reader<'_>, name: &At<String>, usual: &At<Value>| {
            Some(with.get(name).unwrap_or(usual).value.clone())
        };
        let mut all = Self::read(reader, &told, given);
        if reader.found() > before {
            return all;
        }
        for step in &mut raw.steps {
            all.fill_table(reader, &mut step.value);
        }
        all.find_unused(reader, &told);
        all
    }

    fn read(
        reader: &mut Reader<'_>,
        told: &Table,
        in_force: impl Fn(&mut Reader<'_>, &At<String>, &At<Value>) -> Option<Value>,
    ) -> Self {
        let mut all = Self::default();
        for (name, value) in &told.0 {
            if is_sound(reader, name, value)
                && let Some(value) = in_force(reader, name, value)
            {
                all.values.insert(name.value.clone(), value);
            }
        }
        all
    }

    fn find_unused(&self, reader: &mut Reader<'_>, told: &Table) {
        for (name, _) in told.0.iter().filter(|(name, _)| !self.used.contains(&name.value)) {
            let message = format!("the parameter `{}` is used nowhere", name.value.escape_debug());
            let help = format!("write `{{{}}}` in a value, or leave it out", name.value.escape_debug());
            reader.find(
                Finding::new("unused-parameter", message)
                    .on(name, "this one")
                    .help(help),
            );
        }
    }

    /// Their names and values, as a command line sets them.
    pub fn said(&self) -> BTreeMap<String, String> {
        let said = |(name, value): (&String, &Value)| Some((name.clone(), value.argument()?));
        self.values.iter().filter_map(said).collect()
    }

    /// The same text with their values, for people.
    pub fn shown(&self, text: &str) -> String {
        let value = |name: &str| self.values.get(name).and_then(Value::argument);
        replaced(text, |name, written| value(name).unwrap_or_else(|| written.to_owned()))
    }

    fn fill_table(&mut self, reader: &mut Reader<'_>, table: &mut Table) {
        for (_, value) in &mut table.0 {
            self.fill_value(reader, value);
        }
    }

    fn fill_value(&mut self, reader: &mut Reader<'_>, at: &mut At<Value>) {
        match &mut at.value {
            Value::List(items) => items.iter_mut().for_each(|item| self.fill_value(reader, item)),
            Value::Table(table) => self.fill_table(reader, table),
            Value::Text(text) => {
                let uses = uses(text);
                for (_, name) in &uses {
                    self.named(reader, name, at.span.clone());
                }
                // One that stands alone keeps its type: a number stays one.
                let whole = uses.first().filter(|(place, _)| *place == (0..text.len()));
                at.value = match whole.and_then(|(_, name)| self.values.get(*name)) {
                    Some(value) => value.clone(),
                    None => Value::Text(self.shown(text)),
                };
            }
            Value::Number(_) | Value::Decimal(_) | Value::Yes(_) => {}
        }
    }

    fn named(&mut self, reader: &mut Reader<'_>, name: &str, place: Range<usize>) {
        if self.values.contains_key(name) {
            self.used.insert(name.to_owned());
            return;
        }
        let message = format!("there is no parameter `{name}`");
        let names = self.values.keys().map(String::as_str);
        let help = match self.values.is_empty() {
            true => format!("give it a value: `[parameters]` with `{name} = \"…\"`"),
            false => known(name, names),
        };
        reader.find(
            Finding::new("no-such-parameter", message)
                .at(place, "in here")
                .help(help),
        );
    }
}

/// Whether it can be a parameter.
fn is_sound(reader: &mut Reader<'_>, name: &At<String>, value: &At<Value>) -> bool {
    let finding = if !is_name(name) {
        let message = format!("`{}` cannot be a parameter", name.value.escape_debug());
        let label = "a name has a-z, 0-9 and -, and begins with a letter";
        Finding::new("bad-value", message).on(name, label)
    } else if matches!(value.value, Value::List(_) | Value::Table(_)) {
        Finding::new("bad-value", "a parameter is a text, a number, true or false").on(value, "this one")
    } else {
        return true;
    };
    reader.find(finding);
    false
}

/// The value of a parameter: what a person set, else what the file says; none where something is wrong, which is found.
fn set(reader: &mut Reader<'_>, name: &At<String>, value: &At<Value>) -> Option<Value> {
    let Some(set) = reader.rules.set.get(&name.value) else {
        return Some(value.value.clone());
    };
    let read = match &value.value {
        Value::Number(_) => set.parse().ok().map(Value::Number),
        Value::Decimal(_) => set.parse().ok().map(Value::Decimal),
        Value::Yes(_) => set.parse().ok().map(Value::Yes),
        _ => Some(Value::Text(set.clone())),
    };
    if read.is_none() {
        let (kind, set) = (value.value.kind(), set.escape_debug());
        let message = format!("`{}` is {kind}, and was set to `{set}`", name.value);
        reader.find(Finding::new("bad-value", message).on(value, "what the file says"));
    }
    read
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(plain)
}

/// Where a text uses a parameter, and which: `{name}`. Other braces are as they are written.
fn uses(text: &str) -> Vec<(Range<usize>, &str)> {
    let begins = text.match_indices('{').map(|(i, _)| i);
    let one = |i: usize| {
        let name = &text[i + 1..i + 1 + text[i + 1..].find('}')?];
        is_name(name).then_some((i..i + name.len() + 2, name))
    };
    begins.filter_map(one).collect()
}

/// The text with each use replaced by what `value` makes of its name and of itself.
fn replaced(text: &str, value: impl Fn(&str, &str) -> String) -> String {
    let (mut out, mut behind) = (String::new(), 0);
    for (place, name) in uses(text) {
        out += &text[behind..place.start];
        out += &value(name, &text[place.clone()]);
        behind = place.end;
    }
    out + &text[behind..]
}
