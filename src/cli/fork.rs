//! `fork`: independent copies of a lab, each with machines, networks, disks and journal of its own.

use super::progress::Terminal;
use super::target::{self, LabArg};
use super::{Ended, output};
use crate::event::Event;
use crate::files::Home;
use crate::lab::lifecycle;
use crate::lab::protocol::RestoreArgs;
use crate::units::Name;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Fork from this checkpoint; where absent, from the running lab as it is at this instant
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<Name>,
    /// How many
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    count: u16,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = target::lab_name(home, &args.lab)?;
    let mut terminal = Terminal::new();
    let show = |e: &Event| terminal.show(e);
    let made = match args.from {
        Some(checkpoint) => lifecycle::fork(home, &RestoreArgs { lab, checkpoint }, args.count, show)?,
        None => {
            let running = target::running(home, &args.lab)?;
            lifecycle::fork_running(home, &lab, &running.instance, args.count, show)?
        }
    };
    if args.json {
        output::json(&made)?;
    } else {
        output::text_out(&made.join("\n"))?;
    }
    Ok(0)
}
