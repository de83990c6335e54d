//! `supervise`: the process that keeps one lab. Started by the client, not by people.

use super::Ended;
use crate::files::Home;

#[derive(Debug, clap::Args)]
pub struct Args {
    instance: String,
}

pub fn run(home: &Home, args: Args) -> Ended {
    crate::lab::supervisor::run(home, &args.instance).map(|()| 0)
}
