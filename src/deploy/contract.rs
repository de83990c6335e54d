//! The contract of a pack: who says how a node is, by a command that speaks it, or by probes and a map of what they say.

use super::Orders;
use crate::diagnostic::At;
use crate::probe::Parse;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The contract's words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Gives a [`ccr_contract::status::Status`].
    pub status: Said,
    /// Prints the same, a line each: at once, at each change and at least every 5 s, at most 4 a second, until it is ended. Where there is
    /// none, `status` is asked now and then.
    pub watch: Option<Vec<String>>,
    /// Prints [`ccr_contract::event::NodeEvent`]s, a line each, until it is ended. A runtime without it tells none.
    pub events: Option<Vec<String>>,
    /// Gives a [`ccr_contract::dump::Dump`].
    pub dump: Held,
    /// What an operator can tell the runtime: `move`, `stop`, `start` …
    #[serde(default)]
    pub orders: Orders,
    /// What is asked in a machine where the status is a map, in this order.
    #[serde(default)]
    pub probes: Vec<ProbeSpec>,
}

/// Who says a status.
#[derive(Debug, Clone)]
pub enum Said {
    /// A command that prints it.
    By(Vec<String>),
    /// The probes: each field is an expression over their answers.
    Map(Map),
}

/// Who says what a store holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Held {
    /// A command that prints it.
    By(Vec<String>),
    /// A command whose output is a list.
    List(HeldList),
}

/// A command that prints a list of what a store holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldList {
    /// On which nodes; see [`super::FileSpec`].
    pub when: Option<String>,
    /// The argument vector; each argument is a template.
    pub run: Vec<String>,
    /// How the output is read; it must be a list.
    pub parse: Parse,
    /// The client's key of an `item`: an expression.
    pub key: String,
}

/// A question in a machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// What expressions call its answer.
    pub name: String,
    /// On which nodes; see [`super::FileSpec`].
    pub when: Option<String>,
    /// The argument vector; each argument is a template.
    pub run: Vec<String>,
    /// How its output is read; see [`crate::probe::Probe::parse`].
    pub parse: Option<Parse>,
    /// Whether it may have no answer: then its name is not defined. Else what it would have said is *unknown*.
    #[serde(default)]
    pub optional: bool,
}

/// Expressions in the shape of what they make.
#[derive(Debug, Clone)]
pub enum Map {
    /// An expression.
    Value(String),
    /// A table. Its `when` says whether it is there at all.
    Table(Vec<(String, At<Map>)>),
    /// A list of tables. The `each` of one makes one for every `item` of a list.
    List(Vec<At<Map>>),
}

impl Map {
    /// The entry of a table.
    pub fn get(&self, key: &str) -> Option<&At<Map>> {
        match self {
            Map::Table(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, m)| m),
            _ => None,
        }
    }
    /// What an entry of a table says, where it is an expression.
    pub fn expression(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Map::Value(expression) => Some(expression),
            _ => None,
        }
    }
}

struct AnyMap;

impl<'de> Visitor<'de> for AnyMap {
    type Value = Map;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an expression as a text, a table of them or a list of tables")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Map, E> {
        Ok(Map::Value(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Map, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<At<Map>>()? {
            if !matches!(item.value, Map::Table(_)) {
                return Err(de::Error::custom("a list in a map is a list of tables"));
            }
            list.push(item);
        }
        Ok(Map::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Map, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Map::Table(table))
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AnyMap)
    }
}

struct CommandOrMap;

impl<'de> Visitor<'de> for CommandOrMap {
    type Value = Said;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command as a list of texts, or a table of expressions")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Said, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(items)).map(Said::By)
    }
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Said, A::Error> {
        AnyMap.visit_map(entries).map(Said::Map)
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(CommandOrMap)
    }
}

/// What a machine of a role does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It may have the service.
    Serves,
    /// It has a vote.
    Votes,
    /// Clients reach the service through it.
    Routes,
}

impl Contract {
    /// Whether the runtime speaks the contract by itself.
    pub fn is_native(&self) -> bool {
        matches!(self.status, Said::By(_))
    }
    /// Every argument vector without a template's place in it, as it is written.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Vec<String>> {
        let status = match &self.status {
            Said::By(argv) => Some(argv),
            Said::Map(_) => None,
        };
        let dump = match &self.dump {
            Held::By(argv) => argv,
            Held::List(list) => &list.run,
        };
        let orders = self.orders.values().map(|o| &o.run);
        let probes = self.probes.iter().map(|p| &p.run);
        let own = status.into_iter().chain(&self.watch).chain(&self.events).chain([dump]);
        own.chain(orders).chain(probes)
    }
}
