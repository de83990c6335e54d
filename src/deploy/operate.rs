//! Asking the runtime in a machine: argument vectors out, JSON in. What is made for people is never parsed.

use super::contract::{Held, Said};
use super::{Pack, Part, mapping};
use crate::error::{Error, Problem, Result};
use crate::guest::{Command, Followed, Output, Remote, excerpt};
use crate::spec::{Lab, Node, known};
use crate::units::Size;
use crate::wait::Deadline;
use ccr_contract::dump::Dump;
use ccr_contract::event::NodeEvent;
use ccr_contract::status::Status;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest answer to `status` or an order.
const ANSWER_MAX: Size = Size::mib(1);
/// Largest dump: as much as a way into a machine carries.
const DUMP_MAX: Size = Size::mib(64);
/// Version of status and dump that this tool reads.
pub(super) const SCHEMA: u32 = 1;

/// What the runtime says of its node.
pub fn status(remote: &mut dyn Remote, pack: &Pack, lab: &Lab, node: &Node, deadline: Deadline) -> Result<Status> {
    const WHAT: &str = "ask the runtime for its status";
    let Said::By(argv) = &pack.runtime.contract.status else {
        let answers = mapping::ask(remote, pack, lab, node, deadline)?;
        return mapping::status(pack, lab, node, answers);
    };
    let status: Status = ask(remote, WHAT, argv, ANSWER_MAX, deadline)?;
    check_schema(WHAT, status.schema)?;
    Ok(status)
}

/// What the store on the node holds, also while the service is stopped.
pub fn dump(remote: &mut dyn Remote, pack: &Pack, lab: &Lab, node: &Node, deadline: Deadline) -> Result<Dump> {
    const WHAT: &str = "ask the runtime what it holds";
    let argv = match &pack.runtime.contract.dump {
        Held::By(argv) => argv,
        Held::List(list) => return mapping::dump(remote, pack, list, lab, node, deadline),
    };
    let dump: Dump = ask(remote, WHAT, argv, DUMP_MAX, deadline)?;
    check_schema(WHAT, dump.schema)?;
    Ok(dump)
}

/// What the runtime answered to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done; else the runtime refused it.
    pub done: bool,
    /// The runtime's own words.
    pub seen: String,
}

/// Gives an order of the pack (`move`, `stop` …). That the runtime refuses it is an answer.
///
/// # Errors
/// `Usage` for a word that the pack does not have; `Operation` where it is not known what became of the order: the machine or the
/// runtime does not answer, the command was killed, its answer is none.
pub fn operate(
    remote: &mut dyn Remote,
    pack: &Pack,
    lab: &Lab,
    node: &Node,
    word: &str,
    args: &[String],
    deadline: Deadline,
) -> Result<Answer> {
    let orders = &pack.runtime.contract.orders;
    let order = orders.get(word).ok_or_else(|| {
        let hint = known(word, orders.keys().map(String::as_str));
        Error::Usage(Problem::new("give the order").on(word.escape_debug()).observed(hint))
    })?;
    let what = format!("give the order `{word}`");
    let native = pack.runtime.contract.is_native();
    let mut argv = order.run.clone();
    if !native {
        argv = pack.filled(&argv, &pack.view(Part::Late, lab, node, None)?)?;
    }
    argv.extend_from_slice(args);
    let output = remote.exec(&Command::new(argv.iter().cloned()), deadline)?;
    if order.refuses(output.status, &output.complaint()) {
        return Ok(Answer {
            done: false,
            seen: output.complaint(),
        });
    }
    let answer = printed(output, &what, &argv, ANSWER_MAX)?;
    if answer.trim_ascii().is_empty() {
        return Ok(Answer {
            done: true,
            seen: String::new(),
        });
    }
    if !native {
        return Ok(Answer {
            done: true,
            seen: excerpt(&answer),
        });
    }
    let answer: Value = parse(&what, &argv, &answer)?;
    Ok(Answer {
        done: true,
        seen: answer["done"]
            .as_str()
            .map_or_else(|| answer.to_string(), str::to_owned),
    })
}

/// Hands out the runtime's events until `on` says stop, the runtime ends or the machine dies.
///
/// A line that is no event ends it with an error: a reader that begins again sees by `seq` what it had.
pub fn follow_events(remote: &mut dyn Remote, pack: &Pack, on: &mut dyn FnMut(NodeEvent) -> bool) -> Result<()> {
    const WHAT: &str = "follow the runtime's events";
    let Some(argv) = &pack.runtime.contract.events else {
        return Ok(());
    };
    let mut bad = None;
    remote.follow(&Command::new(argv.iter().cloned()), &mut |heard| {
        let Followed::Line(line) = heard else { return true };
        match parse::<NodeEvent>(WHAT, argv, line.as_bytes()) {
            Ok(event) => on(event),
            Err(e) => {
                bad = Some(e);
                false
            }
        }
    })?;
    bad.map_or(Ok(()), Err)
}

/// What is heard of a watch.
#[derive(Debug)]
pub enum Watched {
    /// It begins: its first line comes at once.
    Begins,
    /// It goes on, as an earlier session began it: a line comes when something changes, or in a few seconds.
    GoesOn,
    /// A line, or why it is none.
    Said(Result<Box<Status>>),
    /// Nothing for a while.
    Nothing,
}

/// Hands out what the runtime says of its node by `argv`, the pack's `watch`, and nothing now and then while it says nothing, until `on`
/// says stop, the runtime ends or the machine dies. A line that is no status of this tool's schema, is too long, or does not say when
/// it was so, is handed out as the error that it is.
pub fn watch(remote: &mut dyn Remote, argv: &[String], on: &mut dyn FnMut(Watched) -> bool) -> Result<()> {
    const WHAT: &str = "watch the runtime";
    let bad = |seen: String| Error::Operation(Problem::new(WHAT).on(argv.join(" ")).observed(seen));
    let read = |line: &str| {
        if line.len() as u64 > ANSWER_MAX.bytes() {
            return Err(bad(format!(
                "a line of {} bytes, at most {ANSWER_MAX} are read",
                line.len()
            )));
        }
        let status: Status = parse(WHAT, argv, line.as_bytes())?;
        check_schema(WHAT, status.schema)?;
        match status.node_t_us {
            Some(_) => Ok(status),
            None => Err(bad("a line does not say when it was so: it has no `node_t_us`".into())),
        }
    };
    let command = Command::new(argv.iter().cloned());
    remote.follow(&command, &mut |heard| {
        on(match heard {
            Followed::Begun { ran: None } => Watched::Begins,
            Followed::Begun { ran: Some(_) } => Watched::GoesOn,
            Followed::Line(line) => Watched::Said(read(line).map(Box::new)),
            Followed::Nothing => Watched::Nothing,
        })
    })
}

fn ask<T: DeserializeOwned>(
    remote: &mut dyn Remote,
    what: &str,
    argv: &[String],
    most: Size,
    deadline: Deadline,
) -> Result<T> {
    let output = remote.exec(&Command::new(argv.iter().cloned()), deadline)?;
    parse(what, argv, &printed(output, what, argv, most)?)
}

fn printed(output: Output, what: &str, argv: &[String], most: Size) -> Result<Vec<u8>> {
    let answer = output.check_ok(what, argv.join(" "))?;
    if answer.len() as u64 > most.bytes() {
        let seen = format!("{} bytes, at most {most} are read", answer.len());
        return Err(Error::Operation(Problem::new(what).on(argv.join(" ")).observed(seen)));
    }
    Ok(answer)
}

fn parse<T: DeserializeOwned>(what: &str, argv: &[String], answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|e| {
        let seen = format!(
            "no such JSON as the contract has ({e}): {}",
            excerpt(&answer[..answer.len().min(600)])
        );
        Error::Operation(Problem::new(what).on(argv.join(" ")).observed(seen))
    })
}

fn check_schema(what: &str, schema: u32) -> Result<()> {
    if schema == SCHEMA {
        return Ok(());
    }
    Err(Error::Operation(
        Problem::new(what)
            .observed(format!("schema {schema}, this tool knows {SCHEMA}"))
            .remedy("deploy the runtime that was built with this tool: `down`, then `up`"),
    ))
}
