//! `completions`: for a shell, on stdout.

use super::{Ended, output};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Ended {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "failoverlab", &mut text);
    output::text_out(String::from_utf8_lossy(&text).trim_end())?;
    Ok(0)
}
