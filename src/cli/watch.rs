//! `watch`: a lab in the terminal as it is now, or a run as it was.

use super::Ended;
use super::target::{LabArg, running};
use crate::files::Home;
use crate::view::{Replay, View, live};
use crate::watch;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// The folder of a run of `verify` instead, at any of its moments
    #[arg(long, value_name = "RUN", conflicts_with = "lab")]
    replay: Option<PathBuf>,
}

pub fn run(home: &Home, args: Args) -> Ended {
    if let Some(folder) = args.replay {
        watch::check_terminal("`failoverlab report open RUN` draws the run's pages")?;
        watch::replay(Replay::read(&folder)?)?;
        return Ok(0);
    }
    watch::check_terminal("`failoverlab status` shows it once, `failoverlab logs --follow` its events")?;
    let lab = running(home, &args.lab)?;
    // A supervisor that died is replaced, as by every other command.
    drop(lab.client(home)?);
    let view = View::new(&lab.instance, Arc::new(lab.record.desired.lab.clone()), watch::KEPT);
    watch::live(view, |tell| live::follow(home, &lab.instance, tell))?;
    Ok(0)
}
