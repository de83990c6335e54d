//! One file for each verb; no logic: parse, ask the rooms below, print.

mod advice;
mod bundle;
mod capture;
mod checkpoint;
mod completions;
mod console;
mod cp;
mod demo;
mod doctor;
mod down;
mod exec;
mod fault;
mod fork;
mod forward;
mod image;
mod init;
mod logs;
mod ls;
mod man;
mod mutations;
mod operate;
mod output;
mod pack;
mod pause;
mod preflight;
mod progress;
mod prune;
mod replay;
mod report;
mod restore;
mod scenario;
mod serve;
mod status;
mod supervise;
mod target;
mod up;
mod verify;
mod watch;

use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use clap::{FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A virtual lab for failover clusters: real machines, broken on purpose, with a verdict you can trust.
#[derive(Debug, Parser)]
#[command(name = "failoverlab", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "LAB is a folder with a lab.toml, a running lab, a folder under labs/, or a lab that is built in \
(ccr, bare); without it, the current folder.\n\n\
Exit codes: 0 done · 1 a verdict is fail · 2 wrong use or an invalid file · 3 a verdict is unknown · 4 the host cannot run this · \
5 an operation failed and was undone · 70 a bug · 130 interrupted."
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Begin a lab of your own: a folder with a commented lab file and its scenarios
    Init(init::Args),
    /// Bring a lab up: make what is missing, wait until it is healthy
    Up(up::Args),
    /// Remove a lab and everything that was made for it
    Down(down::Args),
    /// List the labs that are up
    Ls(ls::Args),
    /// Show machines, networks and what the cluster says
    Status(status::Args),
    /// Log in to a machine, or run a command there
    Ssh(exec::SshArgs),
    /// Run a command in a machine and return its status
    Exec(exec::ExecArgs),
    /// Attach to a machine's serial console (Ctrl-] leaves)
    Console(console::Args),
    /// Watch a lab in the terminal: who serves, votes, cables, copies, faults, events
    Watch(watch::Args),
    /// Show labs that are up, or a run, on a page of this machine; break and mend them there
    Serve(serve::Args),
    /// Show the lab's events, or what a machine printed on its console
    Logs(logs::Args),
    /// Copy a file to or from a machine (NODE:PATH)
    Cp(cp::Args),
    /// Check this host: what is missing and how to mend it
    Doctor(doctor::Args),
    /// Keep a running lab as a checkpoint; list, show and remove checkpoints
    Checkpoint(checkpoint::Args),
    /// Bring a lab back to the instant of a checkpoint
    Restore(restore::Args),
    /// Make independent copies of a running lab or a checkpoint: NAME@1, NAME@2, …
    Fork(fork::Args),
    /// Remove the checkpoints that `up` kept and nobody needs
    Prune(prune::Args),
    /// Suspend all machines of a lab
    Pause(pause::Args),
    /// Let all machines of a lab run again
    Resume(pause::Args),
    /// Build, list and remove base images
    Image(image::Args),
    /// Print the JSON schema of the lab file
    Schema,
    /// Print completions for a shell
    Completions(completions::Args),
    /// Write the manual pages into a folder
    Man(man::Args),
    /// Break something on purpose
    Fault(fault::FaultArgs),
    /// Undo faults
    Heal(fault::HealArgs),
    /// Give an order of the runtime: move the service, stop and start it, suspend and resume a copy
    Operate(operate::Args),
    /// Write what passes the networks' ports as pcapng, dropped frames included
    Capture(capture::Args),
    /// Bring addresses of a lab to ports of 127.0.0.1
    Forward(forward::Args),
    /// Run scenarios against a lab and judge them
    Verify(verify::Args),
    /// Take a lesson: predict, let something be broken, and see what the lab says
    Demo(demo::Args),
    /// Run once more what the folder of a run says
    Replay(replay::Args),
    /// Read, compare and put together runs of `verify`
    Report(report::Args),
    /// List and show the misconfigurations that a lab can be brought up with
    Mutations(mutations::Args),
    /// Find what is wrong with a running lab before the next failure shows it
    Preflight(preflight::Args),
    /// Pack a run's folder into one file for somebody else, without secrets, or unpack one
    Bundle(bundle::Args),
    /// Check scenario files, or begin a new one
    Scenario(scenario::Args),
    /// Check runtime packs
    Pack(pack::Args),
    /// Keep one lab (started by the other verbs)
    #[command(hide = true)]
    Supervise(supervise::Args),
}

/// What a verb ends with when it did not fail: its exit code.
type Ended = Result<u8>;

/// Runs the command line; prints the error, if any.
pub fn main() -> ExitCode {
    let parsed = command()
        .try_get_matches()
        .and_then(|m| Ok((wants_json(&m), Cli::from_arg_matches(&m)?)));
    let (as_json, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            let e = advice::of(e);
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    match run(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            output::error(&e, as_json);
            ExitCode::from(e.exit_code())
        }
    }
}

/// Whether the verb was asked for one JSON document.
fn wants_json(matches: &clap::ArgMatches) -> bool {
    matches!(matches.try_get_one("json"), Ok(Some(true))) || matches.subcommand().is_some_and(|(_, m)| wants_json(m))
}

fn run(verb: Verb) -> Ended {
    let home = || -> Result<Home> {
        let home = Home::from_env()?;
        home.check()?;
        Ok(home)
    };
    match verb {
        Verb::Init(a) => init::run(&home()?, a),
        Verb::Mutations(a) => mutations::run(&home()?, a),
        Verb::Preflight(a) => preflight::run(&home()?, a),
        Verb::Bundle(a) => bundle::run(&home()?, a),
        Verb::Up(a) => up::run(&home()?, a),
        Verb::Down(a) => down::run(&home()?, a),
        Verb::Ls(a) => ls::run(&home()?, a),
        Verb::Status(a) => status::run(&home()?, a),
        Verb::Ssh(a) => exec::ssh(&home()?, a),
        Verb::Exec(a) => exec::exec(&home()?, a),
        Verb::Console(a) => console::run(&home()?, a),
        Verb::Operate(a) => operate::run(&home()?, a),
        Verb::Serve(a) => serve::run(&home()?, a),
        Verb::Watch(a) => watch::run(&home()?, a),
        Verb::Logs(a) => logs::run(&home()?, a),
        Verb::Cp(a) => cp::run(&home()?, a),
        Verb::Checkpoint(a) => checkpoint::run(&home()?, a),
        Verb::Restore(a) => restore::run(&home()?, a),
        Verb::Fork(a) => fork::run(&home()?, a),
        Verb::Prune(a) => prune::run(&home()?, a),
        Verb::Pause(a) => pause::pause(&home()?, a),
        Verb::Resume(a) => pause::resume(&home()?, a),
        Verb::Image(a) => image::run(&home()?, a),
        Verb::Fault(a) => fault::fault(&home()?, a),
        Verb::Heal(a) => fault::heal(&home()?, a),
        Verb::Capture(a) => capture::run(&home()?, a),
        Verb::Forward(a) => forward::run(&home()?, a),
        Verb::Verify(a) => verify::run(&home()?, a),
        Verb::Demo(a) => demo::run(&home()?, a),
        Verb::Replay(a) => replay::run(&home()?, a),
        Verb::Report(a) => report::run(&home()?, a),
        Verb::Scenario(a) => scenario::run(&home()?, a),
        Verb::Pack(a) => pack::run(a),
        Verb::Supervise(a) => supervise::run(&home()?, a),
        // It says itself what is wrong with the folders.
        Verb::Doctor(a) => doctor::run(Home::from_env(), a),
        Verb::Schema => {
            output::json(&crate::spec::schema())?;
            Ok(0)
        }
        Verb::Completions(a) => completions::run(a),
        Verb::Man(a) => man::run(a),
    }
}

/// The command line's description, for completions and man pages.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// An interrupted command: what SIGINT does while a request runs.
fn on_interrupt(act: impl Fn() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    act();
                }
            });
        })
        .map(drop)
        .tried("listen for Ctrl-C", "")
}

/// A flag that Ctrl-C raises.
fn interruptible() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    on_interrupt(move || raised.store(true, Relaxed))?;
    Ok(flag)
}

/// The error for an unknown name, with the known ones.
fn unknown(what: &str, name: &str, known: impl IntoIterator<Item = String>) -> Error {
    let known: Vec<String> = known.into_iter().collect();
    Error::Usage(
        Problem::new(format!("find the {what}"))
            .on(name.escape_debug())
            .observed(if known.is_empty() {
                "there is none".into()
            } else {
                format!("known: {}", known.join(", "))
            }),
    )
}

#[cfg(test)]
mod docs_test;
