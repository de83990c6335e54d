//! `preflight`: what is wrong with a running lab before the next failure shows it.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::files::Home;
use crate::lab::protocol::Verb;
use crate::preflight::lab::Report;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing was found, or only what is on purpose · 1 something is wrong · 3 something could not be looked at."
)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = running(home, &args.lab)?;
    let report: Report = lab.client(home)?.get(Verb::Preflight)?;
    if args.json {
        output::json(&report)?;
    } else {
        output::text_out(report.to_string().trim_end())?;
    }
    Ok(report.exit_code())
}
