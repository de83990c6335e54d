//! Settings of a runtime pack: the pack declares name, type, default and meaning; the lab file gives values.

use super::NodeRole;
use crate::units::{Name, Size, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use toml::Value;

/// What a pack declares: the `[settings.NAME]` tables of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackSettings {
    /// The pack: what a lab file writes as `kind`.
    pub pack: Name,
    /// Its settings, by their name in the lab file.
    pub settings: BTreeMap<Name, Setting>,
    /// Roles of its machines, and how many there must be of each; where it names none, members and hubs.
    pub roles: BTreeMap<NodeRole, Option<usize>>,
    /// Whether cluster and service have addresses that move.
    pub moving_addresses: bool,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Setting {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: SettingKind,
    /// Its value where the lab file says nothing, written as in a lab file.
    pub default: Value,
    /// Smallest value of a span, size or integer; 0 where absent.
    pub min: Option<Value>,
    /// The words of a choice.
    #[serde(default)]
    pub choices: Vec<String>,
    /// What it means.
    pub doc: String,
}

/// Type of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingKind {
    /// `"1.2 s"`; reaches the runtime as whole milliseconds under `NAME_ms`.
    Span,
    /// `"1 MiB"`; reaches the runtime as bytes under `NAME_bytes`.
    Size,
    /// A whole number, not negative.
    Integer,
    /// `true` or `false`.
    Bool,
    /// One of the words of `choices`.
    Choice,
    /// A list of names: letters, digits and `-`, beginning with a letter.
    Names,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    #[serde(default)]
    settings: BTreeMap<Name, Setting>,
}

impl PackSettings {
    /// Reads a file that holds `[settings.NAME]` tables and nothing else, and checks its defaults.
    ///
    /// # Errors
    /// What is wrong with it, in one text: a pack is written by developers.
    pub fn parse(pack: Name, text: &str) -> Result<Self, String> {
        let file: SettingsFile = toml::from_str(text).map_err(|e| e.to_string())?;
        Self::new(pack, file.settings)
    }

    /// Declarations, with every default checked.
    pub fn new(pack: Name, settings: BTreeMap<Name, Setting>) -> Result<Self, String> {
        for (name, setting) in &settings {
            if let Some(min) = &setting.min {
                setting
                    .number(min)
                    .map_err(|e| format!("{pack}: smallest value of `{name}`: {e}"))?;
            }
            setting
                .resolve(&setting.default)
                .map_err(|e| format!("{pack}: default of `{name}`: {e}"))?;
        }
        Ok(Self {
            pack,
            settings,
            roles: BTreeMap::new(),
            moving_addresses: true,
        })
    }

    /// The declaration of `name`.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }

    /// Every default, as the runtime gets it.
    pub fn defaults(&self) -> BTreeMap<String, serde_json::Value> {
        let entries = self.settings.iter();
        entries
            .filter_map(|(name, s)| Some((s.key(name), s.resolve(&s.default).ok()?)))
            .collect()
    }
}

impl Setting {
    /// Its name in the runtime's configuration: `idle-roll` → `idle_roll_ms`.
    pub fn key(&self, name: &str) -> String {
        let unit = match self.kind {
            SettingKind::Span => "_ms",
            SettingKind::Size => "_bytes",
            _ => "",
        };
        format!("{}{unit}", name.replace('-', "_"))
    }

    /// The value as the runtime gets it.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn resolve(&self, value: &Value) -> Result<serde_json::Value, String> {
        match self.kind {
            SettingKind::Span | SettingKind::Size | SettingKind::Integer => {
                let n = self.number(value)?;
                match &self.min {
                    Some(min) if n < self.number(min)? => Err(format!("must be at least {}", plain(min))),
                    _ => Ok(n.into()),
                }
            }
            SettingKind::Bool => value
                .as_bool()
                .map(Into::into)
                .ok_or_else(|| "must be true or false".into()),
            SettingKind::Choice => match value.as_str() {
                Some(word) if self.choices.iter().any(|c| c == word) => Ok(word.into()),
                Some(word) => Err(super::known(word, self.choices.iter().map(String::as_str))),
                None => Err(format!("must be one of {}", self.choices.join(", "))),
            },
            SettingKind::Names => names(value).ok_or_else(|| {
                "must be a list of different names, each of letters, digits and -, beginning with a letter".into()
            }),
        }
    }

    fn number(&self, value: &Value) -> Result<u64, String> {
        let text = |example| {
            value
                .as_str()
                .ok_or_else(|| format!("must be a text like \"{example}\""))
        };
        match self.kind {
            SettingKind::Span => {
                let span: Span = text("1.2 s")?.parse()?;
                let ms = u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
                if span.0.subsec_nanos().is_multiple_of(1_000_000) {
                    Ok(ms)
                } else {
                    Err("must be whole milliseconds".into())
                }
            }
            SettingKind::Size => Ok(text("1 MiB")?.parse::<Size>()?.bytes()),
            _ => value
                .as_integer()
                .and_then(|n| u32::try_from(n).ok())
                .map(u64::from)
                .ok_or_else(|| "must be a whole number, 0 to 4294967295".into()),
        }
    }
}

fn names(value: &Value) -> Option<serde_json::Value> {
    let mut names = Vec::new();
    for item in value.as_array()? {
        let name = item.as_str()?;
        let fine = name.len() <= Name::MAX
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fine || names.contains(&name) {
            return None;
        }
        names.push(name);
    }
    (!names.is_empty()).then(|| names.into())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
