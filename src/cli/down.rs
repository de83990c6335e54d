//! `down`: remove a lab and everything that carries its label, and only that.

use super::progress::Terminal;
use super::target::{self, LabArg};
use super::{Ended, output};
use crate::files::Home;
use crate::lab::lifecycle;

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
    let mut terminal = Terminal::new();
    let removed = lifecycle::take_down(home, &instance, |e| terminal.show(e))?;
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
