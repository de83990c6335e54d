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
use crate::lab::world::MachineWorlds;
use crate::mutation;
use crate::private;
use crate::report;
use crate::scenario::{self, Scenario};
use crate::simulated::SimWorlds;
use crate::spec::{Lab, Source};
use crate::verify::{RunReport, Verdict};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Misconfigure the lab on purpose (`failoverlab mutations ls`); several with commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    mutation: Vec<String>,
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
    /// Append the verdicts as Markdown to this file, like $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Hardware virtualisation or emulation, where the lab is not up yet
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// Where the scenarios run: on machines, or in the runtime's simulator, which takes seconds and proves less
    #[arg(long, value_enum, default_value_t = Place::Machines)]
    on: Place,
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

/// A run that was there before.
#[derive(Debug)]
pub struct Again {
    /// Its lab.
    pub lab: LabArg,
    /// Its scenarios, by the paths of their files.
    pub scenario: Vec<String>,
    /// Parameters that were set.
    pub set: BTreeMap<String, String>,
    /// Its seed.
    pub seed: u64,
    /// How often each scenario was run.
    pub repeat: u32,
    /// Whether it ran in the simulator.
    pub on_sim: bool,
    /// Folder for the results.
    pub out: Option<PathBuf>,
    /// Whether the verdicts are printed as JSON.
    pub json: bool,
}

/// The same run once more.
pub fn again(home: &Home, of: Again) -> Ended {
    let args = Args {
        lab: of.lab,
        scenario: of.scenario,
        tag: Vec::new(),
        // The lab file of a run has them in it.
        mutation: Vec::new(),
        set: of.set.into_iter().collect(),
        seed: of.seed,
        repeat: of.repeat.max(1),
        shard: None,
        out: of.out,
        summary: None,
        accel: None,
        on: if of.on_sim { Place::Sim } else { Place::Machines },
        keep: false,
        fail_fast: false,
        shrink: 0,
        jobs: None,
        json: of.json,
    };
    run(home, args)
}

/// Where scenarios run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Place {
    /// A fork of the real lab for each
    Machines,
    /// The runtime's core in virtual time; scenarios that need more are skipped, with the step
    Sim,
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
    let source = mutation::applied(super::target::source(home, &args.lab)?, &args.mutation)?;
    let lab = lifecycle::read(home, &source)?.lab;
    let set: BTreeMap<String, String> = args.set.iter().cloned().collect();
    let mut scenarios = scenario::tagged(scenario::select(&source, &lab, &args.scenario, &set)?, &args.tag)?;
    let selected = scenarios.iter().map(|s| s.id.clone()).collect();
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
    let about = scenario::About {
        shard: args.shard,
        selected,
        set,
        lab_file: source.lab_file()?,
    };
    let folder = args.out.clone().unwrap_or_else(|| new_folder(home, &lab.name));
    scenario::can_be_made(&folder)?;
    let terminal = Arc::new(Mutex::new(Terminal::new()));
    let caller = up::caller(&terminal, interruptible()?);
    let report = match args.on {
        Place::Machines => on_machines(
            home,
            &source,
            lab,
            &scenarios,
            &args,
            about,
            &folder,
            (&terminal, &caller),
        ),
        Place::Sim => {
            let worlds = SimWorlds::new(&lab, caller.interrupted.clone())?;
            let jobs = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            let jobs = args.jobs.map_or(jobs, NonZeroUsize::get);
            let options = options(&args, about, jobs, &folder, "none");
            judge(&worlds, &lab, &scenarios, &options, args.shrink)
        }
    };
    terminal.lock().expect("no bar panics").clear();
    let (report, shrunk) = report?;
    if let Some(path) = &args.summary {
        let appended = fs_err::OpenOptions::new().create(true).append(true).open(path);
        let written = appended.and_then(|mut f| f.write_all(report::summary(&report).as_bytes()));
        written.tried("write the summary", path.display())?;
    }
    if args.out.is_none() {
        super::report::write_index(&home.runs())?;
    }
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

fn options(
    args: &Args,
    about: scenario::About,
    jobs: usize,
    folder: &std::path::Path,
    accel: &str,
) -> scenario::Options {
    let on = match args.on {
        Place::Machines => "machines",
        Place::Sim => "sim",
    };
    scenario::Options {
        seed: args.seed,
        accel: accel.to_owned(),
        on: on.to_owned(),
        repeat: args.repeat,
        folder: folder.to_owned(),
        jobs,
        fail_fast: args.fail_fast,
        about,
    }
}

/// The verdicts, and what was made of a scenario that failed, in words.
type Judged = (RunReport, Option<String>);

/// Each scenario on a fork of the healthy lab.
#[expect(clippy::too_many_arguments, reason = "what `run` has at hand")]
fn on_machines(
    home: &Home,
    source: &Source,
    lab: Lab,
    scenarios: &[Scenario],
    args: &Args,
    about: scenario::About,
    folder: &std::path::Path,
    (terminal, caller): (&Mutex<Terminal>, &Caller),
) -> Result<Judged> {
    let jobs = admission::jobs(&lab, args.jobs.map(NonZeroUsize::get));
    let worlds = machine_worlds(home, source, lab, args.accel, args.keep, (terminal, caller))?;
    let record = worlds.record();
    let accel = format!("{:?}", record.desired.accel).to_lowercase();
    let options = options(args, about, jobs, folder, &accel);
    judge(&worlds, &record.desired.lab, scenarios, &options, args.shrink)
}

/// Forks of the healthy lab; `keep` leaves those whose scenario did not pass.
pub(super) fn machine_worlds(
    home: &Home,
    source: &Source,
    lab: Lab,
    accel: Option<Accel>,
    keep: bool,
    (terminal, caller): (&Mutex<Terminal>, &Caller),
) -> Result<MachineWorlds> {
    let from = lifecycle::healthy(home, source, lab, accel, caller);
    terminal.lock().expect("no bar panics").clear();
    let journal = Journal::in_memory();
    let on_event = caller.on_event.clone();
    journal.listen(move |e| {
        on_event(e);
        true
    });
    MachineWorlds::new(home, from?, caller.interrupted.clone(), journal, keep)
}

/// Runs them; makes the first one that fails smaller, by at most `tries` further runs.
fn judge(
    worlds: &dyn scenario::Worlds,
    lab: &Lab,
    scenarios: &[Scenario],
    options: &scenario::Options,
    tries: usize,
) -> Result<Judged> {
    let report = scenario::run_all(worlds, lab, scenarios, options)?;
    let shrunk = shrink(worlds, lab, scenarios, &report, options, tries)?;
    Ok((report, shrunk))
}

/// The first scenario that failed, with fewer steps: where it is written, in words.
fn shrink(
    worlds: &dyn scenario::Worlds,
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

/// The folder of a run that begins now. Names sort by time: `20261120T120000-ccr`, and `20261120T120000-ccr.2` where another run began
/// in the same second.
pub(super) fn new_folder(home: &Home, instance: &str) -> PathBuf {
    let name = format!("{}-{instance}", crate::event::compact_wall_time());
    let first = home.runs().join(&name);
    let others = (2..100).map(|n| home.runs().join(format!("{name}.{n}")));
    let absent = |path: &PathBuf| path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    // Whoever makes it says why it cannot.
    std::iter::once(first.clone())
        .chain(others)
        .find(absent)
        .unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_begin_in_the_same_second_have_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let mut made: Vec<PathBuf> = Vec::new();
        for _ in 0..5 {
            let folder = new_folder(&home, "ccr");
            std::fs::create_dir_all(&folder).unwrap();
            made.push(folder);
        }
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 5, "{made:?}");
    }
}
