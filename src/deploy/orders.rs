//! The orders of a pack: what runs, and what a person may say beside it.

use crate::spec::known;
use crate::units::Span;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The orders of a pack, by their words.
pub type Orders = BTreeMap<String, OrderSpec>;

/// An order of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct OrderSpec {
    /// The argument vector in the machine; what is said beside the order is put behind.
    pub run: Vec<String>,
    /// What may be said, in the order of the command line.
    pub takes: Vec<Parameter>,
    /// Exit statuses with which it is refused.
    refused: Vec<i32>,
    /// How what is said of a refusal begins; whatever it is where there is none of these.
    refused_with: Vec<String>,
    /// What must come true until it is done: an expression. It is done when it ends where absent.
    pub done: Option<Done>,
}

/// When an order is done that was only asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// An expression over `service` and `epoch` as they are, and `before`, as they were.
    pub expression: String,
    /// How long that may take, on a fast host.
    pub within: Span,
}

/// Exit status with which an order is refused where the pack says nothing else (docs/packs.md); any other but 0 is a failure.
const REFUSED: i32 = 1;
/// How long an order may take until it is done where the pack says nothing else.
const DONE_WITHIN: Span = Span::secs(60);

/// What may be said beside an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its key in a scenario.
    pub name: String,
    /// What its value is.
    pub value: Takes,
    /// Whether the order makes no sense without it.
    pub needed: bool,
    /// Whether the command line has it by its place, not by its name.
    by_place: bool,
}

/// What a parameter's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takes {
    /// True or false: the option is there or not.
    Flag,
    /// Any text.
    Text,
    /// A machine of the lab.
    Node,
    /// One of these words.
    OneOf(Vec<String>),
    /// A setting and its value, `KEY=VALUE`.
    Setting,
}

/// An order as a pack writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    /// It takes nothing.
    Bare(Vec<String>),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    run: Vec<String>,
    #[serde(default)]
    takes: String,
    #[serde(default)]
    refused: Refused,
    done: Option<String>,
    within: Option<Span>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    #[serde(default)]
    status: Vec<i32>,
    #[serde(default)]
    begins: Vec<String>,
}

impl TryFrom<Written> for OrderSpec {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        let full = match written {
            Written::Full(full) => full,
            Written::Bare(run) => Full {
                run,
                takes: String::new(),
                refused: Refused::default(),
                done: None,
                within: None,
            },
        };
        let within = full.within.unwrap_or(DONE_WITHIN);
        let mut refused = full.refused.status;
        if refused.is_empty() {
            refused.push(REFUSED);
        }
        Ok(Self {
            run: full.run,
            takes: parameters(&full.takes)?,
            refused,
            refused_with: full.refused.begins,
            done: full.done.map(|expression| Done { expression, within }),
        })
    }
}

/// Reads `GROUP(cluster|service) --to NODE [--comment TEXT] [--force]`: brackets around what may be left out, capitals where a value
/// stands. `NODE` is a machine, `KEY=VALUE` a setting, everything else a text.
fn parameters(usage: &str) -> Result<Vec<Parameter>, String> {
    let mut words = usage.split_whitespace();
    let mut all: Vec<Parameter> = Vec::new();
    while let Some(word) = words.next() {
        let needed = !word.starts_with('[');
        let word = word.trim_start_matches('[');
        let closed = word.ends_with(']');
        let bare = word.trim_end_matches(']');
        let parameter = match bare.strip_prefix("--") {
            Some(name) => {
                let value = if closed {
                    Takes::Flag
                } else {
                    let value = words
                        .next()
                        .ok_or_else(|| format!("`--{name}` has no value and no bracket"))?;
                    if !needed && !value.ends_with(']') {
                        return Err(format!("the bracket of `--{name}` does not end behind its value"));
                    }
                    takes(value.trim_end_matches(']')).1
                };
                (name.to_owned(), value, false)
            }
            None => {
                let (name, value) = takes(bare);
                (name, value, true)
            }
        };
        let (name, value, by_place) = parameter;
        let sound = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !name.is_empty();
        if !sound || ["on", "as", "refused", "operate", "move"].contains(&name.as_str()) {
            return Err(format!("`{}` is no name of a parameter", name.escape_debug()));
        }
        if all.iter().any(|p| p.name == name) {
            return Err(format!("`{name}` is there twice"));
        }
        all.push(Parameter {
            name,
            value,
            needed,
            by_place,
        });
    }
    Ok(all)
}

/// What the capitals mean, and the name that they have where they stand by themselves.
fn takes(capitals: &str) -> (String, Takes) {
    match capitals {
        "NODE" => ("node".to_owned(), Takes::Node),
        "KEY=VALUE" => ("set".to_owned(), Takes::Setting),
        _ => match capitals.strip_suffix(')').and_then(|c| c.split_once('(')) {
            Some((name, words)) => {
                let words = words.split('|').map(str::to_owned).collect();
                (name.to_lowercase(), Takes::OneOf(words))
            }
            None => (capitals.to_lowercase(), Takes::Text),
        },
    }
}

/// Why something cannot be said beside an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadArgument {
    /// The parameter; what is missing has no place in a file.
    pub name: String,
    /// Whether it is not there at all.
    pub missing: bool,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl OrderSpec {
    /// Whether the runtime refuses it, that ended with `status` and said this.
    pub fn refuses(&self, status: i32, said: &str) -> bool {
        let begins = |with: &String| said.starts_with(with.as_str());
        self.refused.contains(&status) && (self.refused_with.is_empty() || self.refused_with.iter().any(begins))
    }

    /// Everything that is wrong with what is said beside the order `word`. Whether a machine is one is not asked here.
    pub fn wrong(&self, word: &str, said: &BTreeMap<String, String>) -> Vec<BadArgument> {
        let mut wrong = Vec::new();
        for name in said.keys().filter(|n| self.takes.iter().all(|p| p.name != **n)) {
            wrong.push(BadArgument {
                name: name.clone(),
                missing: false,
                message: format!("`{}` does not belong to the order `{word}`", name.escape_debug()),
                help: if self.takes.is_empty() {
                    format!("`{word}` takes nothing")
                } else {
                    known(name, self.takes.iter().map(|p| p.name.as_str()))
                },
            });
        }
        for parameter in &self.takes {
            let name = &parameter.name;
            let bad = |missing, message, help| BadArgument {
                name: name.clone(),
                missing,
                message,
                help,
            };
            match said.get(name) {
                None if parameter.needed => {
                    let message = format!("the order `{word}` needs `{name}`");
                    wrong.push(bad(true, message, format!("add `{}`", parameter.example())));
                }
                None => {}
                Some(value) => {
                    if let Some(message) = parameter.refuses(value) {
                        wrong.push(bad(false, message, format!("write `{}`", parameter.example())));
                    }
                }
            }
        }
        wrong
    }

    /// The argument vector, for what was checked.
    pub fn argv(&self, said: &BTreeMap<String, String>) -> Vec<String> {
        let given = |p: &Parameter| {
            let value = said.get(&p.name)?.clone();
            Some(match (&p.value, p.by_place) {
                (Takes::Flag, _) if value != "true" => Vec::new(),
                (Takes::Flag, _) => vec![format!("--{}", p.name)],
                (_, true) => vec![value],
                (_, false) => vec![format!("--{}", p.name), value],
            })
        };
        self.takes.iter().filter_map(given).flatten().collect()
    }
}

impl Parameter {
    /// Why a value is none of its, in words.
    fn refuses(&self, value: &str) -> Option<String> {
        let shown = value.escape_debug();
        let name = &self.name;
        match &self.value {
            // What begins like an option would be read as one.
            Takes::Text | Takes::Node if value.starts_with('-') || value.is_empty() => {
                Some(format!("`{name}` cannot be `{shown}`"))
            }
            Takes::Flag if !["true", "false"].contains(&value) => Some(format!("`{name}` is true or false")),
            Takes::OneOf(words) if !words.iter().any(|w| w == value) => {
                Some(format!("`{name}` is {}, not `{shown}`", words.join(" or ")))
            }
            Takes::Setting
                if !value
                    .split_once('=')
                    .is_some_and(|(k, _)| !k.is_empty() && !k.starts_with('-')) =>
            {
                Some(format!("`{name}` names no setting"))
            }
            _ => None,
        }
    }

    /// How a scenario writes it.
    pub fn example(&self) -> String {
        let name = &self.name;
        match &self.value {
            Takes::Flag => format!("{name} = true"),
            Takes::Text => format!("{name} = \"…\""),
            Takes::Node => format!("{name} = \"passive\""),
            Takes::OneOf(words) => format!("{name} = \"{}\"", words.join("\" or \"")),
            Takes::Setting => format!("{name} = {{ KEY = \"VALUE\" }}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(takes: &str) -> OrderSpec {
        Written::Full(Full {
            run: vec!["ctl".into()],
            takes: takes.into(),
            refused: Refused::default(),
            done: None,
            within: None,
        })
        .try_into()
        .unwrap()
    }

    fn said(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_is_said_becomes_arguments_in_the_packs_order() {
        let group = order("GROUP(cluster|service) --to NODE [--comment TEXT]");
        let all = said(&[("to", "node2"), ("group", "cluster"), ("comment", "why not")]);
        assert_eq!(group.wrong("move-group", &all), []);
        assert_eq!(group.argv(&all), ["cluster", "--to", "node2", "--comment", "why not"]);
        let set = order("KEY=VALUE [--force]");
        assert_eq!(
            set.argv(&said(&[("set", "dial=best"), ("force", "true")])),
            ["dial=best", "--force"]
        );
        assert_eq!(
            set.argv(&said(&[("set", "dial=best"), ("force", "false")])),
            ["dial=best"]
        );
        assert!(order("").argv(&said(&[("to", "x")])).is_empty());
    }

    #[test]
    fn what_does_not_belong_is_missing_or_is_no_value_is_named() {
        let wrong = |takes: &str, pairs: &[(&str, &str)]| {
            let found = order(takes).wrong("x", &said(pairs));
            found.into_iter().map(|b| (b.name, b.missing)).collect::<Vec<_>>()
        };
        let one = |name: &str, missing| vec![(name.to_owned(), missing)];
        assert_eq!(wrong("", &[("to", "a")]), one("to", false));
        assert_eq!(wrong("--to NODE", &[]), one("to", true));
        assert_eq!(wrong("NODE", &[("node", "--force")]), one("node", false));
        assert_eq!(wrong("GROUP(a|b)", &[("group", "c")]), one("group", false));
        assert_eq!(wrong("KEY=VALUE", &[("set", "=1")]), one("set", false));
        assert_eq!(wrong("[--force]", &[("force", "yes")]), one("force", false));
        assert_eq!(wrong("[--comment TEXT] [--force]", &[]), []);
    }

    #[test]
    fn a_usage_that_means_nothing_is_refused() {
        for bad in [
            "--to",
            "[--to NODE",
            "--to NODE --to NODE",
            "[--on NODE]",
            "a-1",
            "[]",
            "--",
        ] {
            assert!(parameters(bad).is_err(), "{bad}");
        }
    }
}
