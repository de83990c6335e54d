//! `replay`: a run once more, from nothing but its folder.

use super::target::LabArg;
use super::{Ended, output, verify};
use crate::error::{Error, Problem};
use crate::files::Home;
use crate::runs::{self, names};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's folder
    run: PathBuf,
    /// Only this scenario, by its id; may be given several times
    #[arg(long, value_name = "ID")]
    scenario: Vec<String>,
    /// Folder for the results; must not be there yet
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the verdicts as one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let run = runs::read(&args.run)?;
    for m in &run.missing {
        output::remark(&format!("{}: {m}", run.folder.display()));
    }
    let refuse = |file: &str, seen: &str| {
        let problem = Problem::new("run it again").on(run.folder.join(file).display());
        Error::Usage(problem.observed(seen.to_owned()))
    };
    let manifest = run.manifest.as_ref();
    let manifest = manifest.ok_or_else(|| refuse(names::RUN, "without it nobody knows what was run"))?;
    // Each scenario once: its repeats come by themselves.
    let first = run.report.scenarios.iter().filter(|s| s.turn == 1);
    let ids: Vec<&str> = first.map(|s| s.id.as_str()).collect();
    let is_there = |id: &&String| !ids.iter().any(|known| known.eq_ignore_ascii_case(id));
    if let Some(id) = args.scenario.iter().find(is_there) {
        return Err(super::unknown("scenario", id, ids.iter().map(|i| (*i).to_owned())));
    }
    let chosen = ids
        .iter()
        .filter(|id| args.scenario.is_empty() || args.scenario.iter().any(|s| s.eq_ignore_ascii_case(id)));
    let file = |id: &&str| run.folder.join(id).join(names::SCENARIO).display().to_string();
    let again = verify::Again {
        lab: LabArg::of(&run.folder.join(names::LAB_FOLDER).display().to_string()),
        scenario: chosen.map(file).collect(),
        set: manifest.set.clone(),
        seed: manifest.seed,
        repeat: manifest.repeat,
        on_sim: manifest.on == "sim",
        out: args.out,
        json: args.json,
    };
    verify::again(home, again)
}
