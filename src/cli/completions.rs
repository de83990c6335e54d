//! `completions`: for a shell, on stdout.

use super::Ended;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Ended {
    clap_complete::generate(args.shell, &mut super::command(), "failoverlab", &mut std::io::stdout());
    Ok(0)
}
