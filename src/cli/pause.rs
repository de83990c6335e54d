//! `pause` and `resume`: all machines of a lab at once.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::files::Home;
use crate::lab::protocol::Verb;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn pause(home: &Home, args: Args) -> Ended {
    ask(home, args, Verb::Pause, "paused")
}

pub fn resume(home: &Home, args: Args) -> Ended {
    ask(home, args, Verb::Resume, "running")
}

fn ask(home: &Home, args: Args, verb: Verb, word: &str) -> Ended {
    let lab = running(home, &args.lab)?;
    let changed: Vec<String> = lab.client(home)?.get(verb)?;
    if args.json {
        output::json(&serde_json::json!({"lab": lab.instance, "changed": changed}))?;
    } else if changed.is_empty() {
        output::text_out(&format!("{}: all machines were {word} already", lab.instance))?;
    } else {
        output::text_out(&format!("{}: {word}: {}", lab.instance, changed.join(", ")))?;
    }
    Ok(0)
}
