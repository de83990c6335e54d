//! The scenario file as written: every value with its place. What a key means is up to the verb beside it.

use crate::diagnostic::At;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The whole file.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawScenario {
    pub id: At<String>,
    pub title: String,
    #[serde(default)]
    pub tags: Vec<At<String>>,
    #[serde(default)]
    pub parameters: Table,
    #[serde(default)]
    pub settings: Table,
    pub steps: Vec<At<Table>>,
    pub require: Option<RawRequire>,
    #[serde(default)]
    pub forbid: Vec<At<Value>>,
    #[serde(default)]
    pub sometimes: Vec<At<Value>>,
    #[serde(default)]
    pub invariants: Vec<At<String>>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawRequire {
    pub acks: u64,
    pub closed_generations: u64,
    pub role_changes: u64,
    pub events: Vec<At<Value>>,
}

/// A file of steps that others include.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPart {
    #[serde(default)]
    pub parameters: Table,
    pub steps: Vec<At<Table>>,
}

/// Any value of a file.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Decimal(f64),
    Yes(bool),
    List(Vec<At<Value>>),
    Table(Table),
}

/// Keys and values, in the file's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub Vec<(At<String>, At<Value>)>);

impl Table {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&At<Value>> {
        self.0.iter().find(|(k, _)| k.value == key).map(|(_, v)| v)
    }

    /// On one line, as a file has it.
    pub fn toml(&self) -> String {
        let bare = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) && !key.is_empty();
        let pair = |(key, value): &(At<String>, At<Value>)| match bare(key) {
            true => format!("{} = {}", key.value, value.value.toml()),
            false => format!("{} = {}", quoted(key), value.value.toml()),
        };
        let pairs: Vec<String> = self.0.iter().map(pair).collect();
        format!("{{ {} }}", pairs.join(", "))
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &At<String>> {
        self.0.iter().map(|(k, _)| k)
    }
}

impl Value {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Number(_) | Value::Decimal(_) => "a number",
            Value::Yes(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// On one line, as a file has it.
    pub fn toml(&self) -> String {
        match self {
            Value::Text(text) => quoted(text),
            Value::Number(n) => n.to_string(),
            Value::Decimal(n) => toml::Value::Float(*n).to_string(),
            Value::Yes(yes) => yes.to_string(),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|i| i.value.toml()).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Table(table) => table.toml(),
        }
    }

    /// As it is written on a command line: commas in a list, slashes between lists; none for a table, which has no place there.
    pub fn argument(&self) -> Option<String> {
        let joined = |items: &[At<Value>], between| {
            let items: Option<Vec<String>> = items.iter().map(|i| i.value.argument()).collect();
            items.map(|i| i.join(between))
        };
        match self {
            Value::Text(t) => Some(t.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Decimal(n) => Some(n.to_string()),
            Value::Yes(yes) => Some(yes.to_string()),
            Value::List(items) if items.iter().any(|i| matches!(i.value, Value::List(_))) => joined(items, "/"),
            Value::List(items) => joined(items, ","),
            Value::Table(_) => None,
        }
    }
}

/// A text on one line, with quotation marks.
fn quoted(text: &str) -> String {
    // What JSON escapes, TOML escapes in the same way; a text never spans lines.
    let json = serde_json::Value::from(text).to_string();
    json.replace('\u{7f}', "\\u007f")
}

/// Reads whatever comes, through the file's own reader: only so the places inside are kept.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false, a list or a table")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Decimal(number))
    }
    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Yes(yes))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = Table::default();
        while let Some(entry) = entries.next_entry()? {
            table.0.push(entry);
        }
        Ok(Value::Table(table))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match d.deserialize_any(Any)? {
            Value::Table(table) => Ok(table),
            other => Err(de::Error::invalid_type(de::Unexpected::Other(other.kind()), &"a table")),
        }
    }
}
