//! `fork`: independent copies of a lab, each with machines, networks, disks and journal of its own.

use super::progress::Terminal;
use super::target::{self, LabArg};
use super::{Ended, down, output};
use crate::error::Result;
use crate::files::Home;
use crate::lab::checkpoint::{Restored, Store};
use crate::lab::fork;
use crate::lab::protocol::{RestoreArgs, Verb};
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
    let (checkpoint, ours) = match args.from {
        Some(name) => (name, false),
        None => (now(home, &args.lab)?, true),
    };
    let restore = RestoreArgs {
        lab: lab.clone(),
        checkpoint,
    };
    let made = all(home, &restore, args.count);
    if ours {
        // Only the way from there to here: frozen layers live on in whoever links to them.
        Store::of(home, &lab).rm(&restore.checkpoint, |_| None)?;
    }
    let made = made?;
    if args.json {
        output::json(&made)?;
    } else {
        output::text_out(&made.join("\n"))?;
    }
    Ok(0)
}

/// A checkpoint of the running lab, under a name of its own.
fn now(home: &Home, lab: &LabArg) -> Result<Name> {
    let lab = target::running(home, lab)?;
    let name: Name = format!("fork-{}", std::process::id())
        .parse()
        .expect("a prefix and digits");
    let mut terminal = Terminal::new();
    lab.client(home)?
        .ask(Verb::Checkpoint { name: name.clone() }, |e| terminal.show(e))?;
    Ok(name)
}

/// All forks or none.
fn all(home: &Home, args: &RestoreArgs, count: u16) -> Result<Vec<String>> {
    let checkpoint = Store::of(home, &args.lab).get(&args.checkpoint)?;
    crate::lab::admission::forks(home, &checkpoint, count)?;
    let mut made = Vec::new();
    for _ in 0..count {
        let instance = fork::claim(home, &args.lab)?;
        made.push(instance.clone());
        if let Err(e) = restore(home, &instance, args) {
            let failures = made
                .iter()
                .filter_map(|i| down::down(home, i).err().map(|e| e.to_string()));
            return Err(e.with_rollback(failures.collect::<Vec<_>>()));
        }
    }
    Ok(made)
}

/// Brings a lab or fork back from a checkpoint and shows how it goes.
pub fn restore(home: &Home, instance: &str, from: &RestoreArgs) -> Result<Restored> {
    let mut terminal = Terminal::new();
    fork::restore(home, instance, from, |e| terminal.show(e))
}
