//! From what probes answer to the contract's words, on the workstation. What cannot be read is null and stands in `unread`: never a guess.

use super::contract::{HeldList, Map, Said};
use super::pack::{Pack, Part, WorkloadSpec};
use super::render::View;
use crate::error::{Error, Problem, Result};
use crate::guest::{Command, Remote, template};
use crate::probe::{self, Evaluator, Probe};
use crate::spec::{Lab, Node};
use crate::wait::Deadline;
use ccr_contract::dump::{Dump, Group, Message};
use ccr_contract::status::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// What probes answered, or why they did not.
pub(super) type Answers = BTreeMap<String, std::result::Result<Value, String>>;

/// Asks every probe of `pack` that is for the node.
///
/// # Errors
/// The machine does not answer, or the pack does not hold.
pub(super) fn ask(remote: &mut dyn Remote, pack: &Pack, lab: &Lab, node: &Node, deadline: Deadline) -> Result<Answers> {
    let view = pack.view(Part::Late, lab, node, None)?;
    let mut probes = Vec::new();
    for spec in &pack.runtime.contract.probes {
        if pack.holds(spec.when.as_deref(), &view)? {
            probes.push(Probe {
                name: spec.name.clone(),
                run: pack.filled(&spec.run, &view)?,
                parse: spec.parse,
            });
        }
    }
    super::probing::answers(remote, &probes, deadline)
}

/// The status of a node, by what its probes answered.
///
/// # Errors
/// `Operation` for a pack that does not hold.
pub(super) fn status(pack: &Pack, lab: &Lab, node: &Node, answers: Answers) -> Result<Status> {
    let Said::Map(map) = &pack.runtime.contract.status else {
        return Err(Error::Bug(Problem::new("map a status").on(&pack.name)));
    };
    let optional = |name: &str| {
        let mut probes = pack.runtime.contract.probes.iter();
        probes.any(|p| p.name == name && p.optional)
    };
    let mut reader = Reader::of(&pack.view(Part::Late, lab, node, None)?, lab)?;
    for (name, answer) in answers {
        match answer {
            Ok(value) => drop(reader.names.insert(name, value)),
            Err(_) if optional(&name) => {}
            Err(why) => drop(reader.unread.insert(name, why)),
        }
    }
    let mut status = super::probing::nothing_of(&node.name);
    status.version = reader.field(map, "version");
    status.epoch = reader.field(map, "epoch");
    status.cluster = reader.field(map, "cluster");
    status.service = reader.field(map, "service");
    status.copies = reader.field(map, "copies");
    status.facts = reader.field(map, "facts");
    status.wrong = reader
        .field::<Vec<BTreeMap<String, String>>>(map, "wrong")
        .into_iter()
        .flat_map(BTreeMap::into_values)
        .collect();
    status.unread = reader.unread;
    Ok(status)
}

/// What expressions see, and what could not be read so far.
struct Reader {
    evaluator: Evaluator,
    names: serde_json::Map<String, Value>,
    unread: BTreeMap<String, String>,
}

impl Reader {
    fn of(view: &View<'_>, lab: &Lab) -> Result<Self> {
        let value =
            serde_json::to_value(view).map_err(|e| Error::Bug(Problem::new("show expressions the lab").observed(e)))?;
        let Value::Object(names) = value else {
            return Err(Error::Bug(Problem::new("show expressions the lab")));
        };
        let addresses = lab
            .nodes
            .iter()
            .flat_map(|n| n.nics.iter().map(|nic| (nic.address.to_string(), n.name.to_string())));
        Ok(Self {
            evaluator: Evaluator::with_nodes(addresses.collect()),
            names,
            unread: BTreeMap::new(),
        })
    }

    /// A field of the contract; what it is by default where the map does not have it, or it cannot be read.
    fn field<T: DeserializeOwned + Default>(&mut self, map: &Map, key: &str) -> T {
        let Some(part) = map.get(key) else {
            return T::default();
        };
        let known = self.unread.len();
        let value = self.value(&part.value, key);
        if value.is_null() {
            return T::default();
        }
        serde_json::from_value(value).unwrap_or_else(|e| {
            // Where a part of it could not be read, that is why.
            if self.unread.len() == known {
                self.unread.insert(key.to_owned(), e.to_string());
            }
            T::default()
        })
    }

    fn value(&mut self, map: &Map, path: &str) -> Value {
        match map {
            Map::Value(expression) => self.evaluate(expression, path),
            Map::Table(entries) => {
                match map
                    .expression("when")
                    .map(|when| self.evaluate(when, &format!("{path}.when")))
                {
                    None | Some(Value::Bool(true)) => {}
                    Some(_) => return Value::Null,
                }
                let own = entries
                    .iter()
                    .filter(|(key, _)| !["when", "each"].contains(&key.as_str()));
                own.map(|(key, part)| (key.clone(), self.value(&part.value, &format!("{path}.{key}"))))
                    .collect()
            }
            Map::List(tables) => {
                let all = tables.iter().flat_map(|table| self.entries(&table.value, path));
                let all: Vec<Value> = all.collect();
                all.into_iter().filter(|v| !v.is_null()).collect()
            }
        }
    }

    /// The entries that one table of a list makes.
    fn entries(&mut self, table: &Map, path: &str) -> Vec<Value> {
        let Some(each) = table.expression("each") else {
            return vec![self.value(table, path)];
        };
        let known = self.unread.len();
        let items = match self.evaluate(each, &format!("{path}.each")) {
            Value::Array(items) => items,
            Value::Null if self.unread.len() > known => return Vec::new(),
            other => {
                self.unread
                    .insert(path.to_owned(), format!("`{each}` is {other}, no list"));
                return Vec::new();
            }
        };
        let of = |item| {
            self.names.insert("item".to_owned(), item);
            self.value(table, path)
        };
        let all = items.into_iter().map(of).collect();
        self.names.remove("item");
        all
    }

    /// Null where it cannot be read.
    fn evaluate(&mut self, expression: &str, path: &str) -> Value {
        self.evaluator.evaluate(expression, &self.names).unwrap_or_else(|why| {
            let names = probe::names(expression).unwrap_or_default();
            let asks_for = |unread: &String| names.iter().any(|n| n.split('.').next() == Some(unread));
            // That a probe has no answer is told once.
            if !self.unread.keys().any(asks_for) {
                self.unread.insert(path.to_owned(), format!("`{expression}`: {why}"));
            }
            Value::Null
        })
    }
}

/// What the store of a node holds, by a command that prints a list of it.
///
/// # Errors
/// The node has no store, the machine does not answer, or what it says cannot be read.
pub(super) fn dump(
    remote: &mut dyn Remote,
    pack: &Pack,
    list: &HeldList,
    lab: &Lab,
    node: &Node,
    deadline: Deadline,
) -> Result<Dump> {
    const WHAT: &str = "ask the runtime what it holds";
    let view = pack.view(Part::Late, lab, node, None)?;
    let failed = |seen: String| Error::Operation(Problem::new(WHAT).on(&node.name).observed(seen));
    if !pack.holds(list.when.as_deref(), &view)? {
        return Err(failed("it has no store".into()));
    }
    let output = remote.exec(&Command::new(pack.filled(&list.run, &view)?), deadline)?;
    let probe = Probe {
        name: "dump".into(),
        run: list.run.clone(),
        parse: Some(list.parse),
    };
    let answer = probe
        .answer(output.status, &output.stdout, &output.complaint())
        .map_err(&failed)?;
    held(&list.key, answer, lab, node, &view).map_err(failed)
}

/// Every item of `answer` with its key.
fn held(key: &str, answer: Value, lab: &Lab, node: &Node, view: &View<'_>) -> std::result::Result<Dump, String> {
    let Value::Array(items) = answer else {
        return Err(format!("it is no list: {answer}"));
    };
    let mut reader = Reader::of(view, lab).map_err(|e| e.to_string())?;
    let mut messages = Vec::new();
    let mut database = blake3::Hasher::new();
    for (i, item) in items.into_iter().enumerate() {
        reader.names.insert("item".to_owned(), item);
        let key = match reader.evaluator.evaluate(key, &reader.names)? {
            Value::String(key) => key,
            other => return Err(format!("the key of item {i} is {other}, no text")),
        };
        database
            .update(&(key.len() as u64).to_le_bytes())
            .update(key.as_bytes());
        messages.push(Message {
            bytes: key.len() as u64,
            key: Some(key),
            hub_id: None,
            mailbox: String::new(),
            stream: String::new(),
            generation: i as u64 + 1,
            epoch: 0,
            crc32c: String::new(),
        });
    }
    Ok(Dump {
        schema: super::operate::SCHEMA,
        node: node.name.to_string(),
        groups: vec![Group {
            group: "data".into(),
            logs: Vec::new(),
            messages,
            database: database.finalize().to_hex().to_string(),
        }],
        queued: Vec::new(),
    })
}

impl Pack {
    /// What the clients of a workload ask for.
    ///
    /// # Errors
    /// `Operation` for a template that does not hold.
    pub fn workload_name(&self, spec: &WorkloadSpec, lab: &Lab) -> Result<String> {
        let Some(node) = lab.nodes.first() else {
            return Err(Error::Bug(Problem::new("fill in a workload's name").on(&lab.name)));
        };
        let view = self.view(Part::Late, lab, node, None)?;
        template::render_text(&format!("{}/runtime.toml, workloads", self.name), &spec.name, &view)
    }

    /// An argument vector whose arguments are templates.
    ///
    /// # Errors
    /// `Operation` for a template that does not hold.
    pub(super) fn filled(&self, argv: &[String], view: &View<'_>) -> Result<Vec<String>> {
        let place = format!("{}/runtime.toml, an argument", self.name);
        argv.iter().map(|a| template::render_text(&place, a, view)).collect()
    }
}
