//! `verify`: run scenarios, each on a fork of the healthy lab, and judge them. Removes what it made.

use super::progress::Terminal;
use super::target::LabArg;
use super::{Ended, interruptible, output, up};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::Journal;
use crate::files::Home;
use crate::hypervisor::Accel;
use crate::lab::admission;
use crate::lab::lifecycle::{self, Caller};
use crate::lab::protocol::RestoreArgs;
use crate::lab::world::MachineWorlds;
use crate::private;
use crate::report;
use crate::scenario::{self, Scenario};
use crate::spec::Lab;
use crate::verify::{RunReport, Verdict};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Only this scenario: its id, or the path of a file of your own; may be given several times
    #[arg(long, value_name = "ID")]
    scenario: Vec<String>,
    /// Only scenarios with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Set a parameter of the scenarios, like rate=40/s; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::scenario::setting)]
    set: Vec<(String, String)>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each scenario is run, each time with another seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run every Nth scenario, beginning with the Ith (from 1)
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Folder for the results; must not be there yet
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Hardware virtualisation or emulation, where the lab is not up yet
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// Leave the forks of scenarios that did not pass, for a look
    #[arg(long)]
    keep: bool,
    /// Begin no more scenarios when one has failed
    #[arg(long)]
    fail_fast: bool,
    /// Leave out steps of the first scenario that failed for as long as it fails in the same way, in so many runs at most
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    shrink: usize,
    /// How many scenarios run side by side; where absent, one for every two cores, as far as memory carries them
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print the verdicts as one JSON document
    #[arg(long)]
    json: bool,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parsed
        .filter(|(i, n)| (1..=*n).contains(i))
        .ok_or_else(|| "write it like 1/4".to_owned())
}

pub fn run(home: &Home, args: Args) -> Ended {
    let source = super::target::source(home, &args.lab)?;
    let lab = lifecycle::read(home, &source)?.lab;
    let set = args.set.iter().cloned().collect();
    let mut scenarios = scenario::tagged(scenario::select(&source, &lab, &args.scenario, &set)?, &args.tag)?;
    if let Some((i, n)) = args.shard {
        scenarios = scenarios.into_iter().skip(i - 1).step_by(n).collect();
    }
    if scenarios.is_empty() {
        return Err(Error::Usage(
            Problem::new("find a scenario to run")
                .on(&lab.name)
                .observed("there is none"),
        ));
    }
    scenario::distinct(&scenarios, args.repeat)?;
    let folder = args
        .out
        .clone()
        .unwrap_or_else(|| home.runs().join(folder_name(&lab.name)));
    scenario::can_be_made(&folder)?;
    let jobs = admission::jobs(&lab, args.jobs.map(NonZeroUsize::get));
    let terminal = Arc::new(Mutex::new(Terminal::new()));
    let caller = up::caller(&terminal, interruptible()?);
    let from = lifecycle::healthy(home, &source, lab, args.accel, &caller);
    terminal.lock().expect("no bar panics").clear();
    let report = judge(home, from?, &scenarios, &args, jobs, &folder, &caller);
    terminal.lock().expect("no bar panics").clear();
    let (report, shrunk) = report?;
    if args.json {
        output::json(&report)?;
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stdout());
        output::text_out(report::table(&report, colours).trim_end())?;
        output::text_out(&format!("\nreport: {}", folder.join(scenario::names::REPORT).display()))?;
        if let Some(text) = shrunk {
            output::text_out(&text)?;
        }
    }
    Ok(report.verdict.exit_code())
}

fn judge(
    home: &Home,
    from: RestoreArgs,
    scenarios: &[Scenario],
    args: &Args,
    jobs: usize,
    folder: &std::path::Path,
    caller: &Caller,
) -> Result<(RunReport, Option<String>)> {
    let journal = Journal::in_memory();
    let on_event = caller.on_event.clone();
    journal.listen(move |e| {
        on_event(e);
        true
    });
    let worlds = MachineWorlds::new(home, from, caller.interrupted.clone(), journal, args.keep)?;
    let record = worlds.record();
    let options = scenario::Options {
        seed: args.seed,
        accel: format!("{:?}", record.desired.accel).to_lowercase(),
        on: "machines".into(),
        repeat: args.repeat,
        folder: folder.to_owned(),
        jobs,
        fail_fast: args.fail_fast,
    };
    let lab = &record.desired.lab;
    let report = scenario::run_all(&worlds, lab, scenarios, &options)?;
    let shrunk = shrink(&worlds, lab, scenarios, &report, &options, args.shrink)?;
    Ok((report, shrunk))
}

/// The first scenario that failed, with fewer steps: where it is written, in words.
fn shrink(
    worlds: &MachineWorlds,
    lab: &Lab,
    scenarios: &[Scenario],
    report: &RunReport,
    options: &scenario::Options,
    tries: usize,
) -> Result<Option<String>> {
    let failed = report.scenarios.iter().find(|s| s.verdict == Verdict::Fail);
    let of = |id: &str| scenarios.iter().find(|s| s.id == id);
    let Some((failed, whole)) = failed.filter(|_| tries > 0).and_then(|f| Some((f, of(&f.id)?))) else {
        return Ok(None);
    };
    let Some(shrunk) = scenario::shrink_failed(worlds, lab, whole, failed, options, tries)? else {
        return Ok(Some(format!(
            "{}: its steps cannot be told apart in the file",
            failed.id
        )));
    };
    let path = options
        .folder
        .join(scenario::names::SHRINK)
        .join(format!("{}.toml", failed.id));
    private::create(&path)
        .and_then(|mut f| f.write_all(shrunk.text.as_bytes()))
        .tried("write the scenario", path.display())?;
    let (left, of) = shrunk.steps;
    let end = if shrunk.is_least {
        "none more can be left out"
    } else {
        "no more runs were allowed"
    };
    let (id, runs, path) = (&failed.id, shrunk.tried, path.display());
    Ok(Some(format!(
        "{id} fails with {left} of {of} steps, by {runs} runs; {end}: {path}"
    )))
}

/// Sorts by time: `20261120T120000-ccr`.
fn folder_name(instance: &str) -> String {
    format!("{}-{instance}", crate::event::compact_wall_time())
}
