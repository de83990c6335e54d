//! `restore`: bring a lab back to the instant of a checkpoint, whether it is up or not.

use super::progress::Terminal;
use super::target::{self, LabArg};
use super::{Ended, output};
use crate::files::Home;
use crate::lab::checkpoint::Store;
use crate::lab::lifecycle;
use crate::lab::protocol::RestoreArgs;
use crate::units::Name;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder with a lab.toml, a running lab or fork, a folder under labs/, or a built-in lab
    lab: String,
    /// Name of the checkpoint
    name: Name,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let arg = LabArg::of(&args.lab);
    let instance = target::instance(home, &arg)?;
    let restore = RestoreArgs {
        lab: target::lab_name(home, &arg)?,
        checkpoint: args.name,
    };
    // Before a supervisor is started for nothing.
    Store::of(home, &restore.lab).get(&restore.checkpoint)?;
    let began = std::time::Instant::now();
    let mut terminal = Terminal::new();
    let restored = lifecycle::restore(home, &instance, &restore, |e| terminal.show(e))?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        output::json(
            &serde_json::json!({"lab": instance, "checkpoint": restore.checkpoint, "seconds": seconds, "returned": restored}),
        )?;
    } else {
        output::text_out(&format!(
            "{instance}: as of {} again in {seconds:.1} s",
            restore.checkpoint
        ))?;
    }
    Ok(0)
}
