//! `scenario`: check scenario files before anything starts, and begin a new one.

use super::target::LabArg;
use super::{Ended, output};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::lab::lifecycle;
use crate::private;
use crate::scenario::{self, Scenario, Wish};
use crate::units::Span;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check scenario files against a lab, and print all that is wrong with any; starts nothing
    Check(CheckArgs),
    /// Write a scenario of random faults; the same seed, budget and lab write the same bytes
    Generate(GenerateArgs),
    /// List the scenarios of a lab with their tags
    Ls(LsArgs),
    /// Write a scenario to begin with, with a comment for each of its parts
    New(NewArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The lab that they are for
    #[arg(long, default_value = "ccr")]
    lab: String,
    /// Set a parameter of the files, like rate=40/s; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

/// A parameter of scenarios and its value, as a command line has them.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or_else(|| "write it like rate=40/s".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// The lab that it is for
    #[arg(default_value = "ccr")]
    lab: String,
    /// Seed of every choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long its steps may take on a host that is not slow: 1 min to 1 h
    #[arg(long, default_value = "5 min")]
    budget: Span,
    /// Its id; RANDOM-SEED where absent
    #[arg(long)]
    id: Option<String>,
    /// File to write; standard output where absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// The lab
    #[arg(default_value = "ccr")]
    lab: String,
    /// Only those with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// A scenario in the list.
#[derive(Debug, serde::Serialize)]
struct Listed<'a> {
    id: &'a str,
    title: &'a str,
    tags: &'a [String],
    parameters: &'a BTreeMap<String, String>,
    steps: usize,
}

impl<'a> Listed<'a> {
    fn of(s: &'a Scenario) -> Self {
        Self {
            id: &s.id,
            title: &s.title,
            tags: &s.tags,
            parameters: &s.parameters,
            steps: s.steps.len(),
        }
    }
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    /// Its id; the file is NAME.toml in the current folder
    name: String,
}

pub fn run(home: &Home, args: Args) -> Ended {
    match args.verb {
        Verb::Check(a) => check(home, a),
        Verb::Generate(a) => generate(home, a),
        Verb::Ls(a) => ls(home, a),
        Verb::New(a) => new(&a.name),
    }
}

fn check(home: &Home, args: CheckArgs) -> Ended {
    let source = super::target::source(home, &LabArg { lab: Some(args.lab) })?;
    let lab = lifecycle::read(home, &source)?.lab;
    for scenario in scenario::check(&args.files, &lab, &args.set.into_iter().collect())? {
        let steps = scenario.steps.len();
        output::text_out(&format!("{}: {}: {steps} steps, well", scenario.id, scenario.title))?;
    }
    Ok(0)
}

fn generate(home: &Home, args: GenerateArgs) -> Ended {
    let source = super::target::source(home, &LabArg { lab: Some(args.lab) })?;
    let lab = lifecycle::read(home, &source)?.lab;
    let wish = Wish {
        id: args.id.unwrap_or_else(|| format!("RANDOM-{}", args.seed)),
        seed: args.seed,
        budget: args.budget,
    };
    let text = scenario::generated(&lab, &wish)?;
    match args.out {
        Some(path) => write(&path, &text)?,
        None => output::text_out(text.trim_end())?,
    }
    Ok(0)
}

fn ls(home: &Home, args: LsArgs) -> Ended {
    let source = super::target::source(home, &LabArg { lab: Some(args.lab) })?;
    let lab = lifecycle::read(home, &source)?.lab;
    let all = scenario::tagged(scenario::select(&source, &lab, &[], &BTreeMap::new())?, &args.tag)?;
    if args.json {
        output::json(&all.iter().map(Listed::of).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let widest = |f: fn(&Scenario) -> usize| all.iter().map(f).max().unwrap_or(0);
    let (ids, tags) = (widest(|s| s.id.len()), widest(|s| s.tags.join(" ").len()));
    for s in &all {
        output::text_out(&format!("{:ids$}  {:tags$}  {}", s.id, s.tags.join(" "), s.title))?;
    }
    Ok(0)
}

fn new(name: &str) -> Ended {
    let path = PathBuf::from(format!("{name}.toml"));
    let text = scenario::beginning(name)?;
    write(&path, &text)?;
    output::text_out(&format!(
        "{}: written; try `failoverlab verify ccr --scenario ./{}`",
        path.display(),
        path.display()
    ))?;
    Ok(0)
}

/// Writes a file that is not there yet.
fn write(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        return Err(Error::Usage(
            Problem::new("write the scenario")
                .on(path.display())
                .observed("it is there already"),
        ));
    }
    private::create(path)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .tried("write the scenario", path.display())
}
