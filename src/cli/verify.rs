//! `verify`: run scenarios against a lab and judge them. Makes the lab where it is not up, and then removes it again.

use super::progress::Terminal;
use super::target::LabArg;
use super::{Ended, down, on_interrupt, output, up};
use crate::error::{Error, Problem, Result};
use crate::event::Journal;
use crate::hypervisor::Accel;
use crate::lab::files::Home;
use crate::lab::record::Record;
use crate::lab::world::MachineWorlds;
use crate::report;
use crate::scenario::{self, Scenario};
use crate::verify::RunReport;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Only this scenario: its id, or the path of a file of your own; may be given several times
    #[arg(long, value_name = "ID")]
    scenario: Vec<String>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each scenario is run, each time with another seed
    #[arg(long, default_value_t = 1)]
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
    /// Leave the lab up where it was made for this run
    #[arg(long)]
    keep: bool,
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
    let lab = up::read(home, &source)?.lab;
    let mut scenarios = scenario::select(&source, &lab, &args.scenario)?;
    if let Some((i, n)) = args.shard {
        scenarios = scenarios.into_iter().skip(i - 1).step_by(n).collect();
    }
    if scenarios.is_empty() {
        return Err(Error::Usage(
            Problem::new("find a scenario to run")
                .on(&lab.name)
                .seen("there is none"),
        ));
    }
    let instance = lab.name.to_string();
    let was_up = Record::load(&home.lab(&instance).record())?.is_some_and(|r| r.complete);
    let options = up::Options {
        accel: args.accel,
        seed: args.seed,
        keep: false,
    };
    up::up(home, &source, lab, &options)?;
    let folder = args
        .out
        .clone()
        .unwrap_or_else(|| home.runs().join(folder_name(&instance)));
    let judged = judge(home, &instance, &scenarios, &args, &folder);
    if !was_up && !args.keep {
        down::down(home, &instance)?;
    }
    let report = judged?;
    if args.json {
        output::json(&report)?;
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stdout());
        output::text_out(report::table(&report, colours).trim_end())?;
        output::text_out(&format!("\nreport: {}", folder.join(scenario::names::REPORT).display()))?;
    }
    Ok(report.verdict.exit_code())
}

fn judge(
    home: &Home,
    instance: &str,
    scenarios: &[Scenario],
    args: &Args,
    folder: &std::path::Path,
) -> Result<RunReport> {
    let interrupted = Arc::new(AtomicBool::new(false));
    on_interrupt({
        let interrupted = interrupted.clone();
        move || interrupted.store(true, Ordering::Relaxed)
    })?;
    let journal = Journal::in_memory();
    let mut terminal = Terminal::new();
    journal.listen(move |e| {
        terminal.show(e);
        true
    });
    let mut worlds = MachineWorlds::new(home, instance, interrupted, journal)?;
    let record = worlds.record().clone();
    let options = scenario::Options {
        seed: args.seed,
        accel: format!("{:?}", record.wish.accel).to_lowercase(),
        on: "machines".into(),
        repeat: args.repeat,
        folder: folder.to_owned(),
    };
    scenario::run_all(&mut worlds, &record.wish.lab, scenarios, &options)
}

/// Sorts by time: `20261120T120000-ccr`.
fn folder_name(instance: &str) -> String {
    format!("{}-{instance}", crate::event::compact_wall_time())
}
