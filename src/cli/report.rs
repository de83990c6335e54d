//! `report`: what is left of runs, for people and other tools.

use super::{Ended, output};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::wall_time;
use crate::files::Home;
use crate::report::{self, Indexed, Side};
use crate::runs::{self, Run, names};
use crate::scenario;
use crate::spec::LAB_FILE;
use crate::verify::History;
use fs_err as fs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write the page over all runs anew, and print where it is
    Index {
        /// Folder with runs; where absent, those of this user
        folder: Option<PathBuf>,
    },
    /// Draw a run's pages anew from what is in its folder, and say what is missing
    Open {
        /// The run's folder
        run: PathBuf,
    },
    /// Compare two runs, roles instead of names: 0 the same or better, 1 worse, 3 not comparable
    Compare {
        /// The run before
        a: PathBuf,
        /// The run after
        b: PathBuf,
        /// Print the comparison as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put the shards of one run together
    Merge {
        /// The folders of all shards
        #[arg(required = true)]
        shards: Vec<PathBuf>,
        /// Folder for the whole run; must not be there yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print a scenario of a run in a format of another tool
    Export {
        /// The run's folder
        run: PathBuf,
        /// Its name in the run, like F05 or F05.2
        scenario: String,
        /// As a trace that Perfetto and Chrome open
        #[arg(long, required = true)]
        trace: bool,
    },
}

pub fn run(home: &Home, args: Args) -> Ended {
    match args.verb {
        Verb::Index { folder } => {
            let page = write_index(&folder.unwrap_or_else(|| home.runs()))?;
            output::text_out(&page.display().to_string())?;
            Ok(0)
        }
        Verb::Open { run } => open(&run),
        Verb::Compare { a, b, json } => compare(&a, &b, json),
        Verb::Merge { shards, out } => merge(&shards, &out),
        Verb::Export { run, scenario, .. } => export(&run, &scenario),
    }
}

/// Writes the page over the runs in a folder; where it is.
pub fn write_index(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).tried("list the runs", folder.display())?;
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| runs::is_run(p))
        .collect();
    folders.sort();
    let indexed = |path: &PathBuf| -> Result<Indexed> {
        let run = runs::glance(path)?;
        let manifest = run.manifest.unwrap_or_default();
        Ok(Indexed {
            folder: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            report: run.report,
            began: if manifest.wall > 0 {
                wall_time(manifest.wall)
            } else {
                String::new()
            },
            digest: manifest.lab_digest,
            missing: run.missing,
        })
    };
    let all = folders.iter().rev().map(indexed).collect::<Result<Vec<_>>>()?;
    let page = folder.join("index.html");
    runs::write(&page, report::index_page(&all, names::REPORT)?.as_bytes())?;
    Ok(page)
}

fn say_what_is_missing(run: &Run) {
    for m in &run.missing {
        output::remark(&format!("{}: {m}", run.folder.display()));
    }
}

fn open(folder: &Path) -> Ended {
    let run = runs::read(folder)?;
    say_what_is_missing(&run);
    draw(&run, folder)?;
    output::text_out(&folder.join(names::REPORT).display().to_string())?;
    Ok(0)
}

fn page(s: &runs::ScenarioRun) -> report::Page<'_> {
    report::Page {
        report: &s.report,
        history: &s.history,
        scenario: &s.text,
    }
}

/// Draws the pages of a run that was read.
fn draw(run: &Run, folder: &Path) -> Result<()> {
    let Some(lab) = &run.lab else {
        let problem = Problem::new("draw the run").on(folder.join(names::LAB).display());
        let problem = problem.observed("without the lab nobody knows who is who");
        return Err(Error::Usage(
            problem.remedy("take the file from another run of the same lab"),
        ));
    };
    // A scenario whose folder is gone has no page.
    let there = run.scenarios.iter().filter(|s| folder.join(s.report.name()).is_dir());
    let pages: Vec<report::Page<'_>> = there.map(page).collect();
    scenario::show(folder, lab, &run.report, &pages, &run.missing)
}

fn compare(a: &Path, b: &Path, json: bool) -> Ended {
    let both = [runs::read(a)?, runs::read(b)?];
    both.iter().for_each(say_what_is_missing);
    let histories = [0, 1].map(|i| -> BTreeMap<String, &History> {
        let all = both[i].scenarios.iter();
        all.map(|s| (s.report.name(), &s.history)).collect()
    });
    let side = |i: usize| Side {
        report: &both[i].report,
        lab: both[i].lab.as_ref(),
        digest: both[i].manifest.as_ref().map_or("", |m| &m.lab_digest),
        histories: &histories[i],
    };
    let found = report::compare(side(0), side(1));
    if json {
        output::json(&found)?;
    } else {
        output::text_out(report::comparison_text(&found).trim_end())?;
    }
    Ok(found.exit_code())
}

fn merge(shards: &[PathBuf], out: &Path) -> Ended {
    scenario::can_be_made(out)?;
    let shards = shards.iter().map(|s| runs::read(s)).collect::<Result<Vec<_>>>()?;
    shards.iter().for_each(say_what_is_missing);
    let merged = runs::merge(&shards)?;
    let first = &shards[0];
    let Some(lab) = &first.lab else {
        let problem = Problem::new("merge the shards").on(first.folder.join(names::LAB).display());
        return Err(Error::Usage(problem.observed("it cannot be read")));
    };
    let lab_file = first.folder.join(names::LAB_FOLDER).join(LAB_FILE);
    let lab_file = fs::read_to_string(&lab_file).tried("read the lab file", lab_file.display())?;
    runs::begin(out, &merged.manifest, lab, &lab_file)?;
    merged.copy_scenarios(out)?;
    runs::end(out, &merged.report)?;
    let whole = runs::read(out)?;
    draw(&whole, out)?;
    output::text_out(report::table(&whole.report, false).trim_end())?;
    output::text_out(&format!("\nreport: {}", out.join(names::REPORT).display()))?;
    Ok(whole.report.verdict.exit_code())
}

fn export(folder: &Path, name: &str) -> Ended {
    let run = runs::read(folder)?;
    say_what_is_missing(&run);
    let all = run.scenarios.iter().map(|s| s.report.name());
    let Some(found) = run
        .scenarios
        .iter()
        .find(|s| s.report.name().eq_ignore_ascii_case(name))
    else {
        return Err(super::unknown("scenario", name, all));
    };
    let Some(lab) = &run.lab else {
        let problem = Problem::new("export the scenario").on(folder.join(names::LAB).display());
        return Err(Error::Usage(problem.observed("it cannot be read")));
    };
    let trace = report::trace(lab, &found.history);
    output::text_out(&trace.to_string())?;
    Ok(0)
}
