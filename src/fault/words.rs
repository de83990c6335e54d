//! What a person says of a fault: one word, whom it hits, and parameters. Checked in two steps: the words by themselves,
//! then against a lab.

mod traffic;

use super::{Cable, Fault, Inside, Kind, Process, Signal, Target, What};
use crate::error::{Error, Problem, Result};
use crate::spec::Lab;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// A fault as a person says it. What can be checked without a lab was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words {
    /// The kind.
    pub kind: Kind,
    /// Whom it hits: a node, or a role.
    pub on: Option<String>,
    /// Its parameters; a list has commas.
    pub parameters: BTreeMap<String, String>,
}

impl Words {
    /// Checks the words by themselves.
    pub fn new(kind: &str, on: Option<String>, parameters: BTreeMap<String, String>) -> Result<Self> {
        let words = Words {
            kind: kind.parse()?,
            on,
            parameters,
        };
        let known = words.kind.parameters();
        if let Some(name) = words.parameters.keys().find(|p| !known.iter().any(|(k, _)| k == p)) {
            let remedy = match known.as_slice() {
                [] => format!("`{}` takes no parameter", words.kind),
                _ => format!(
                    "`{}` takes {}",
                    words.kind,
                    known.iter().map(|(k, _)| *k).collect::<Vec<_>>().join(", ")
                ),
            };
            return Err(words.wrong(format!("`{}` is not known", name.escape_debug()), remedy));
        }
        if words.kind.needs_target() && words.on.is_none() {
            return Err(words.wrong("nothing says whom it hits", "name a machine or a role"));
        }
        match words.kind {
            Kind::Kill => {
                words.process()?;
                words.signal()?;
            }
            Kind::PowerOff | Kind::PowerOn | Kind::Freeze | Kind::Resume | Kind::LinkDown | Kind::LinkUp => {}
            Kind::Traffic(kind) => words.check_traffic(kind)?,
            Kind::Inside(kind) => What::said(kind, &words).map(drop)?,
        }
        Ok(words)
    }

    /// The words of a command line: `key=value` each.
    pub fn from_arguments<S: AsRef<str>>(kind: &str, on: Option<String>, arguments: &[S]) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for argument in arguments.iter().map(AsRef::as_ref) {
            let bad = |seen: &str| {
                Error::Usage(
                    Problem::new("read a parameter of the fault")
                        .on(format!("`{}`", argument.escape_debug()))
                        .observed(seen)
                        .remedy("write it as key=value"),
                )
            };
            let (key, value) = argument.split_once('=').ok_or_else(|| bad("it has no `=`"))?;
            if parameters.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(bad("it is given twice"));
            }
        }
        Self::new(kind, on, parameters)
    }

    /// Every machine or role that the words name.
    pub fn names(&self) -> Vec<&str> {
        let two = self.between().ok().flatten();
        let sides = self.sides().unwrap_or_default();
        let named = two.into_iter().flatten().chain(sides.into_iter().flatten());
        self.on.as_deref().into_iter().chain(named).collect()
    }

    /// The fault, in this lab, with `who` turning a name or role into a machine.
    pub fn resolve(&self, lab: &Lab, who: &dyn Fn(&str) -> Result<Target>) -> Result<Fault> {
        let on = self.on.as_deref().map(who).transpose()?;
        let target = || on.clone().expect("checked: only what is done to frames has no target");
        Ok(match self.kind {
            Kind::PowerOff => Fault::PowerOff(target()),
            Kind::PowerOn => Fault::PowerOn(target()),
            Kind::Freeze => Fault::Freeze(target()),
            Kind::Resume => Fault::Resume(target()),
            Kind::LinkDown => Fault::LinkDown(self.cable(lab, target())?),
            Kind::LinkUp => Fault::LinkUp(self.cable(lab, target())?),
            Kind::Kill => Fault::Kill(Process {
                on: target(),
                process: self.process()?.to_owned(),
                signal: self.signal()?,
            }),
            Kind::Inside(kind) => Fault::Inside(Box::new(Inside::resolve(self, kind, lab, target())?)),
            Kind::Traffic(kind) => Fault::Traffic {
                kind,
                spec: Box::new(self.traffic(kind, lab, on, who)?),
            },
        })
    }

    fn cable(&self, lab: &Lab, on: Target) -> Result<Cable> {
        let networks = self.networks(lab, &[&on.node])?;
        Ok(Cable { on, networks })
    }

    /// The named networks, else all that every one of `ends` is on.
    fn networks(&self, lab: &Lab, ends: &[&str]) -> Result<Vec<String>> {
        let has = |node: &str, network: &str| lab.node(node).is_some_and(|n| n.address(network).is_some());
        let Some(named) = self.list("network") else {
            let all: Vec<String> = lab
                .networks
                .iter()
                .map(|n| n.name.as_str())
                .filter(|n| ends.iter().all(|e| has(e, n)))
                .map(str::to_owned)
                .collect();
            return if all.is_empty() {
                Err(self.wrong(format!("no network has {}", ends.join(" and ")), "see the lab file"))
            } else {
                Ok(all)
            };
        };
        for network in &named {
            if lab.network(network).is_none() {
                let known: Vec<&str> = lab.networks.iter().map(|n| n.name.as_str()).collect();
                return Err(self.wrong(
                    format!("there is no network `{}`", network.escape_debug()),
                    format!("the networks are {}", known.join(", ")),
                ));
            }
            if let Some(end) = ends.iter().find(|e| !has(e, network)) {
                return Err(self.wrong(format!("{end} is not on `{network}`"), "see the lab file"));
            }
        }
        Ok(named.into_iter().map(str::to_owned).collect())
    }

    fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.parameters.get(name)?.split(',').map(str::trim).collect())
    }

    fn process(&self) -> Result<&str> {
        let name = self
            .parameters
            .get("process")
            .ok_or_else(|| self.wrong("nothing says which process", "add process=NAME"))?;
        // The kernel keeps 15 bytes of a name: a longer one would never be found.
        let sound = !name.is_empty()
            && name.len() <= 15
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'))
            && !name.starts_with('-');
        if sound {
            Ok(name)
        } else {
            Err(self.wrong(
                format!("`{}` is no name of a process", name.escape_debug()),
                "it has at most 15 letters, digits, - _ . or @",
            ))
        }
    }

    fn signal(&self) -> Result<Signal> {
        let Some(text) = self.parameters.get("signal") else {
            return Ok(Signal::Kill);
        };
        Signal::ALL.into_iter().find(|s| s.word() == text).ok_or_else(|| {
            self.wrong(
                format!("`{}` is no signal that can be sent", text.escape_debug()),
                "it is KILL, TERM, ABRT or STOP",
            )
        })
    }

    /// A parameter as it was said.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(|t| t.trim())
    }

    /// One that cannot be left out.
    pub(super) fn needed_text(&self, name: &str) -> Result<&str> {
        self.text(name).ok_or_else(|| self.missing(name))
    }

    /// One that is written as a number with a unit.
    pub(super) fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        self.text(name)
            .map(str::parse)
            .transpose()
            .map_err(|e| self.wrong(format!("`{name}`: {e}"), format!("`{name}`: {}", self.like(name))))
    }

    /// One that is one of a few words.
    pub(super) fn word<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        serde_json::from_value(serde_json::Value::from(text))
            .map(Some)
            .map_err(|_| {
                let seen = format!("`{name}` is `{}`", text.escape_debug());
                self.wrong(seen, format!("it is {}", self.like(name)))
            })
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        self.wrong(
            format!("`{name}` is missing"),
            format!("add `{name}`: {}", self.like(name)),
        )
    }

    /// What a parameter is, in words.
    fn like(&self, name: &str) -> &'static str {
        let known = self.kind.parameters();
        known.iter().find(|(n, _)| *n == name).map_or("value", |(_, what)| what)
    }

    pub(super) fn wrong(&self, seen: impl Display, remedy: impl Display) -> Error {
        Error::Usage(
            Problem::new("understand the fault")
                .on(format!("`{}`", self.kind))
                .observed(seen)
                .remedy(remedy),
        )
    }
}
