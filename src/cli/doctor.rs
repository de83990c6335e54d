//! `doctor`: what this host has and lacks, each lack with its remedy.

use super::{Ended, output};
use crate::files::Home;
use crate::preflight;

/// Exit code where something is missing, as for a lab that the host cannot run.
const MISSING: u8 = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let report = preflight::host::doctor(home);
    if args.json {
        output::json(&report)?;
    } else {
        output::text_out(report.to_string().trim_end())?;
    }
    Ok(if report.ready { 0 } else { MISSING })
}
