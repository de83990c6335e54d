//! `doctor`: what this host has and lacks, each lack with its remedy.

use super::{Ended, output};
use crate::error::Result;
use crate::files::Home;
use crate::lab::record;
use crate::preflight;

/// Exit code where something is missing, as for a lab that the host cannot run.
const MISSING: u8 = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

/// `home` is what was found of it: what is wrong with it is one of the checks.
pub fn run(home: Result<Home>, args: Args) -> Ended {
    // Folders that are not to be used are one of the checks, and not looked into.
    let damaged = home.as_ref().ok().filter(|h| h.check().is_ok()).map(record::unreadable);
    let report = preflight::host::doctor(&home, damaged.unwrap_or_default());
    if args.json {
        output::json(&report)?;
    } else {
        output::text_out(report.to_string().trim_end())?;
    }
    Ok(if report.ready { 0 } else { MISSING })
}
