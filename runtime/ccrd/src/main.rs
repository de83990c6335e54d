//! One program under two names: `ccrd`, the daemon, and `ccrctl` (also `ccrd ctl`), its control program.

use ccrd::ctl::{self, client};
use ccrd::daemon::{self, Options};
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The cluster continuous replication daemon.
#[derive(Debug, Parser)]
#[command(
    name = "ccrd",
    version = ccrd::VERSION,
    about,
    after_help = "`ccrd ctl …`, or this program under the name `ccrctl`, controls it."
)]
struct Cli {
    /// The configuration.
    #[arg(long, default_value = ccrd::config::FILE)]
    config: PathBuf,
    /// Folder of the control socket.
    #[arg(long, default_value = ctl::RUN)]
    run: PathBuf,
    /// Read the configuration, say what is wrong with it, and end.
    #[arg(long)]
    check: bool,
    /// For tests: all addresses are in 127/8, and ports count up from this one.
    #[arg(long, hide = true, value_name = "PORT")]
    loopback: Option<u16>,
}

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let called = words
        .first()
        .and_then(|w| Path::new(w).file_name())
        .is_some_and(|n| n == "ccrctl");
    if called {
        return client::run(&client::Cli::of(words));
    }
    if words.get(1).is_some_and(|w| w == "ctl") {
        words.remove(1);
        return client::run(&client::Cli::of(words));
    }
    match serve(Cli::parse_from(words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ccrd: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let (config, unknown) = ccrd::config::read(&cli.config)?;
    if !unknown.is_empty() {
        let known_not = format!(
            "{}: keys that this ccrd does not know: {}",
            cli.config.display(),
            unknown.join(", ")
        );
        if cli.check {
            return Err(known_not.into());
        }
        eprintln!("ccrd: {known_not}");
    }
    if cli.check {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(daemon::run(Options {
        config,
        run: cli.run,
        loopback: cli.loopback,
    }));
    // What still waits for the network must not hold up the end.
    runtime.shutdown_background();
    Ok(ended?)
}
