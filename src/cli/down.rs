//! `down`: remove a lab and everything that carries its label, and only that.

use super::progress::Terminal;
use super::target::{self, LabArg};
use super::{Ended, output};
use crate::lab::client::{Client, wait_gone};
use crate::lab::files::Home;
use crate::lab::protocol::Verb;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let instance = target::instance(home, &args.lab)?;
    let removed = down(home, &instance)?;
    if args.json {
        output::json(&serde_json::json!({"lab": instance, "removed": removed}))?;
    } else {
        output::text_out(&format!(
            "{instance}: {}",
            if removed { "removed" } else { "was not up" }
        ))?;
    }
    Ok(0)
}

/// Takes `instance` down; whether there was anything.
pub fn down(home: &Home, instance: &str) -> crate::error::Result<bool> {
    let files = home.lab(instance);
    if !files.state.is_dir() && Client::find(&files)?.is_none() {
        return Ok(false);
    }
    let mut terminal = Terminal::new();
    let mut client = Client::find_or_start(home, instance)?;
    let pid = client.greeting().pid;
    client.ask(Verb::Down, |e| terminal.show(e))?;
    wait_gone(pid, Duration::from_secs(20))?;
    Ok(true)
}
