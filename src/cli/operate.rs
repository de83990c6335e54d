//! `operate`: an order of the runtime, as the pack's contract has it.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::deploy::Answer;
use crate::files::Home;
use crate::lab::protocol::Verb;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lab (as for the other verbs)
    lab: String,
    /// The order: move, stop, start, suspend, resume, reseed, set, or another one of the runtime pack
    word: String,
    /// Its arguments, like the node that the service moves to
    args: Vec<String>,
    /// The node to ask; the one that serves where absent
    #[arg(long)]
    node: Option<String>,
    /// Print the runtime's answer as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = running(home, &LabArg::of(&args.lab))?;
    if let Some(node) = &args.node {
        lab.node(node)?;
    }
    let verb = Verb::Operate {
        word: args.word,
        args: args.args,
        node: args.node,
    };
    let answer: Answer = lab.client(home)?.get(verb)?;
    if args.json {
        output::json(&answer)?;
    } else {
        let word = if answer.done { "done" } else { "refused" };
        let seen = Some(answer.seen.as_str()).filter(|s| !s.is_empty());
        output::text_out(&seen.map_or(word.to_owned(), |s| format!("{word}: {s}")))?;
    }
    Ok(if answer.done { 0 } else { 5 })
}
