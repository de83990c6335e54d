//! `pack`: check the folder of a runtime pack before anything of it is deployed.

use super::{Ended, output};
use crate::deploy;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Read a pack's folder and print all that is wrong with it, each with its place; starts nothing
    Check {
        /// The folders
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
    },
}

pub fn run(args: Args) -> Ended {
    let Verb::Check { folders } = args.verb;
    for folder in folders {
        let pack = deploy::check(&folder)?;
        output::text_out(&format!("{}: {}: well", pack.name, pack.runtime.title))?;
    }
    Ok(0)
}
