//! `prune`: remove checkpoints that `up` kept, the oldest first, down to a budget.

use super::target::{self, LabArg};
use super::{Ended, output};
use crate::files::Home;
use crate::lab::checkpoint::Store;
use crate::lab::saved::users;
use crate::plan::is_layer;
use crate::units::Size;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// How much the checkpoints that `up` kept (with --all: all of them) may take on the disk afterwards
    #[arg(long, value_name = "SIZE", default_value = "0 B")]
    budget: Size,
    /// Also those that a person kept
    #[arg(long)]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = target::lab_name(home, &args.lab)?;
    let users = users(home, &lab);
    let gone = Store::of(home, &lab).prune(args.budget, |name| args.all || is_layer(name), users)?;
    if args.json {
        output::json(&serde_json::json!({"lab": lab, "removed": gone}))?;
    } else if gone.is_empty() {
        output::text_out(&format!("{lab}: nothing to remove"))?;
    } else {
        let names: Vec<&str> = gone.iter().map(|n| n.as_str()).collect();
        output::text_out(&format!("{lab}: removed {}", names.join(", ")))?;
    }
    Ok(0)
}
