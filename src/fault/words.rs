//! What a person says of a fault: one word, whom it hits, and parameters. Checked in two steps: the words by themselves,
//! then against a lab.

use super::{Cable, Cut, Direction, Fault, Path, Process, Signal, Target};
use crate::error::{Error, Problem, Result};
use crate::fabric::{Match, Proto};
use crate::spec::Lab;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// See [`Fault::PowerOff`].
    PowerOff,
    /// See [`Fault::PowerOn`].
    PowerOn,
    /// See [`Fault::Freeze`].
    Freeze,
    /// See [`Fault::Resume`].
    Resume,
    /// See [`Fault::LinkDown`].
    LinkDown,
    /// See [`Fault::LinkUp`].
    LinkUp,
    /// See [`Fault::Cut`].
    Cut,
    /// See [`Fault::Kill`].
    Kill,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 8] = [
        Kind::PowerOff,
        Kind::PowerOn,
        Kind::Freeze,
        Kind::Resume,
        Kind::LinkDown,
        Kind::LinkUp,
        Kind::Cut,
        Kind::Kill,
    ];

    /// Its word in scenario files, on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            Kind::PowerOff => "power-off",
            Kind::PowerOn => "power-on",
            Kind::Freeze => "freeze",
            Kind::Resume => "resume",
            Kind::LinkDown => "link-down",
            Kind::LinkUp => "link-up",
            Kind::Cut => "cut",
            Kind::Kill => "kill",
        }
    }

    /// What happens, and what proves it: for help and docs.
    pub fn says(self) -> (&'static str, &'static str) {
        match self {
            Kind::PowerOff => (
                "the machine stops at once, its memory is lost",
                "domain and process are gone",
            ),
            Kind::PowerOn => ("a machine that is off starts again", "the domain runs"),
            Kind::Freeze => (
                "the processors stand still",
                "the domain is paused; the guest's boot-time clock stood still",
            ),
            Kind::Resume => ("a frozen machine goes on", "the domain runs"),
            Kind::LinkDown => (
                "the carrier goes away",
                "the guest's own view of the carrier, else the domain's",
            ),
            Kind::LinkUp => ("the carrier comes back", "the same"),
            Kind::Cut => (
                "frames are dropped silently",
                "frames that its rules dropped, counted until it is undone",
            ),
            Kind::Kill => ("a process gets a signal", "the process is gone (STOP: stands still)"),
        }
    }

    /// The parameters that it takes, each with what it is, for help and errors.
    pub fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::PowerOff | Kind::PowerOn | Kind::Freeze | Kind::Resume => &[],
            Kind::LinkDown | Kind::LinkUp => &[(
                "network",
                "networks, comma between them; all of the machine's where absent",
            )],
            Kind::Cut => &[
                ("network", "networks, comma between them; all where absent"),
                (
                    "direction",
                    "both, in or out, seen from the machine or from the first of `between`",
                ),
                ("between", "two machines, comma between them"),
                ("proto", "tcp, udp or icmp"),
                ("port", "TCP or UDP port, either end"),
            ],
            Kind::Kill => &[
                ("process", "name of the process, at most 15 bytes"),
                ("signal", "KILL, TERM, ABRT or STOP; KILL where absent"),
            ],
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Kind::ALL.into_iter().find(|k| k.word() == s).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::word).join(", ");
            Error::Usage(
                Problem::new("find the fault")
                    .on(format!("`{}`", s.escape_debug()))
                    .seen("there is no such fault")
                    .remedy(format!("the faults are {known}")),
            )
        })
    }
}

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
            let remedy = match known {
                [] => format!("`{}` takes no parameter", words.kind),
                _ => format!(
                    "`{}` takes {}",
                    words.kind,
                    known.iter().map(|(k, _)| *k).collect::<Vec<_>>().join(", ")
                ),
            };
            return Err(words.wrong(format!("`{}` is not known", name.escape_debug()), remedy));
        }
        words.direction()?;
        words.frames()?;
        let two = words.between()?;
        match words.kind {
            Kind::Cut if two.is_some() && words.on.is_some() => {
                Err(words.wrong("it has both a target and `between`", "leave one of them out".to_owned()))
            }
            Kind::Cut if two.is_none() && words.on.is_none() && words.list("network").is_none() => Err(words.wrong(
                "nothing says what is cut",
                "name a machine or role, two of them with `between`, or a network".to_owned(),
            )),
            Kind::Cut if two.is_none() && words.on.is_none() && words.direction()? != Direction::Both => Err(words
                .wrong(
                    "a whole network has no direction",
                    "name a machine or role, or two of them with `between`".to_owned(),
                )),
            Kind::Cut => Ok(words),
            _ if words.on.is_none() => {
                Err(words.wrong("nothing says whom it hits", "name a machine or a role".to_owned()))
            }
            Kind::Kill => {
                words.process()?;
                words.signal()?;
                Ok(words)
            }
            _ => Ok(words),
        }
    }

    /// The words of a command line: `key=value` each.
    pub fn from_arguments<S: AsRef<str>>(kind: &str, on: Option<String>, arguments: &[S]) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for argument in arguments.iter().map(AsRef::as_ref) {
            let bad = |seen: &str| {
                Error::Usage(
                    Problem::new("read a parameter of the fault")
                        .on(format!("`{}`", argument.escape_debug()))
                        .seen(seen)
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
        self.on
            .as_deref()
            .into_iter()
            .chain(two.into_iter().flatten())
            .collect()
    }

    /// The fault, in this lab, with `who` turning a name or role into a machine.
    pub fn resolve(&self, lab: &Lab, who: &dyn Fn(&str) -> Result<Target>) -> Result<Fault> {
        let on = self.on.as_deref().map(who).transpose()?;
        let target = || on.clone().expect("checked: only a cut has no target");
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
            Kind::Cut => {
                let between = match self.between()? {
                    Some([a, b]) => Some([who(a)?, who(b)?]),
                    None => None,
                };
                self.cut(lab, on, between)?
            }
        })
    }

    fn cable(&self, lab: &Lab, on: Target) -> Result<Cable> {
        let networks = self.networks(lab, &[&on.node])?;
        Ok(Cable { on, networks })
    }

    fn cut(&self, lab: &Lab, on: Option<Target>, between: Option<[Target; 2]>) -> Result<Fault> {
        let direction = self.direction()?;
        let ends: Vec<&str> = match (&on, &between) {
            (Some(t), _) => vec![&t.node],
            (None, Some([a, b])) => vec![&a.node, &b.node],
            (None, None) => Vec::new(),
        };
        if let [a, b] = ends[..]
            && a == b
        {
            return Err(self.wrong(format!("both are {a}"), "name two machines".to_owned()));
        }
        let networks = self.networks(lab, &ends)?;
        let mut paths = Vec::new();
        for network in networks {
            let (here, there) = match ends[..] {
                [] => ("*", "*"),
                [one] => (one, "*"),
                _ => (ends[0], ends[1]),
            };
            let mut way = |from: &str, to: &str| {
                paths.push(Path {
                    network: network.clone(),
                    from: from.to_owned(),
                    to: to.to_owned(),
                });
            };
            if direction != Direction::In {
                way(here, there);
            }
            if direction != Direction::Out && here != there {
                way(there, here);
            }
        }
        Ok(Fault::Cut(Cut {
            on,
            between,
            direction,
            matches: self.frames()?,
            paths,
        }))
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
                Err(self.wrong(
                    format!("no network has {}", ends.join(" and ")),
                    "see the lab file".to_owned(),
                ))
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
                return Err(self.wrong(format!("{end} is not on `{network}`"), "see the lab file".to_owned()));
            }
        }
        Ok(named.into_iter().map(str::to_owned).collect())
    }

    fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.parameters.get(name)?.split(',').map(str::trim).collect())
    }

    fn between(&self) -> Result<Option<[&str; 2]>> {
        match self.list("between").as_deref() {
            None => Ok(None),
            Some(&[a, b]) if !a.is_empty() && !b.is_empty() => Ok(Some([a, b])),
            Some(_) => Err(self.wrong("`between` is not two machines", "write between=a,b".to_owned())),
        }
    }

    fn direction(&self) -> Result<Direction> {
        match self.parameters.get("direction").map(String::as_str) {
            None | Some("both") => Ok(Direction::Both),
            Some("in") => Ok(Direction::In),
            Some("out") => Ok(Direction::Out),
            Some(other) => Err(self.wrong(
                format!("`{}` is no direction", other.escape_debug()),
                "it is both, in or out".to_owned(),
            )),
        }
    }

    fn frames(&self) -> Result<Match> {
        let proto = match self.parameters.get("proto").map(String::as_str) {
            None => None,
            Some("tcp") => Some(Proto::Tcp),
            Some("udp") => Some(Proto::Udp),
            Some("icmp") => Some(Proto::Icmp),
            Some(other) => {
                return Err(self.wrong(
                    format!("`{}` is no protocol", other.escape_debug()),
                    "it is tcp, udp or icmp".to_owned(),
                ));
            }
        };
        let port = match self.parameters.get("port").map(|p| (p, p.parse::<u16>())) {
            None => None,
            Some((_, Ok(port))) if port > 0 && proto != Some(Proto::Icmp) => Some(port),
            Some((text, _)) => {
                return Err(self.wrong(
                    format!("`{}` is no port", text.escape_debug()),
                    "it is a number from 1 to 65535, of tcp or udp".to_owned(),
                ));
            }
        };
        Ok(Match {
            proto,
            port,
            ..Match::default()
        })
    }

    fn process(&self) -> Result<&str> {
        let name = self
            .parameters
            .get("process")
            .ok_or_else(|| self.wrong("nothing says which process", "add process=NAME".to_owned()))?;
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
                "it has at most 15 letters, digits, - _ . or @".to_owned(),
            ))
        }
    }

    fn signal(&self) -> Result<Signal> {
        match self.parameters.get("signal").map(String::as_str) {
            None | Some("KILL") => Ok(Signal::Kill),
            Some("TERM") => Ok(Signal::Term),
            Some("ABRT") => Ok(Signal::Abrt),
            Some("STOP") => Ok(Signal::Stop),
            Some(other) => Err(self.wrong(
                format!("`{}` is no signal that can be sent", other.escape_debug()),
                "it is KILL, TERM, ABRT or STOP".to_owned(),
            )),
        }
    }

    fn wrong(&self, seen: impl std::fmt::Display, remedy: String) -> Error {
        Error::Usage(
            Problem::new("understand the fault")
                .on(format!("`{}`", self.kind))
                .seen(seen)
                .remedy(remedy),
        )
    }
}
