//! `demo`: lessons in which a person predicts, something is broken, and the lab judges.

use super::progress::Terminal;
use super::target::LabArg;
use super::{Ended, interruptible, output, up, verify};
use crate::demo::{self, ChapterReport, Demo, DemoReport, Input, Nobody, Source, Study};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::hypervisor::Accel;
use crate::lab::lifecycle;
use crate::scenario::{self, Worlds};
use crate::simulated::{self, SimWorlds};
use crate::verify::Verdict;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the demos: how long each takes, its chapters and its lab
    Ls(LsArgs),
    /// Check the files of demos, and print all that is wrong with any; starts nothing
    Check(CheckArgs),
    /// Run a demo: you predict, something is broken, the lab judges
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// A demo by its name, or its folder; all that are known where absent
    #[arg(value_name = "NAME|DIR")]
    demo: Option<String>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The demo by its name, or its folder
    name: String,
    /// Where it runs: on machines, or in the runtime's simulator, which takes seconds and proves less
    #[arg(long, value_enum, default_value_t = verify::Place::Machines)]
    on: verify::Place,
    /// Ask nothing: run all chapters and judge them
    #[arg(long)]
    unattended: bool,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the results; must not be there yet
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Hardware virtualisation or emulation, where the lab is not up yet
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// Print what was measured and judged as one JSON document
    #[arg(long, requires = "unattended")]
    json: bool,
}

/// A demo in the list.
#[derive(Debug, serde::Serialize)]
struct Listed {
    name: String,
    title: String,
    about: String,
    lab: String,
    minutes: u32,
    chapters: usize,
}

pub fn run(home: &Home, args: Args) -> Ended {
    // Paths are told as the person wrote them.
    let here = Path::new("");
    match args.verb {
        Verb::Ls(a) => ls(here, &a),
        Verb::Check(a) => check(home, here, &a),
        Verb::Run(a) => take(home, here, a),
    }
}

fn ls(here: &Path, args: &LsArgs) -> Ended {
    let listed = |name: String| -> Result<Listed> {
        let source = demo::find(&name, here)?;
        let head = demo::head(&source)?;
        Ok(Listed {
            name,
            title: head.title,
            about: head.about,
            lab: head.lab.value,
            minutes: head.minutes,
            chapters: source.chapters()?.len(),
        })
    };
    let all = demo::names(here).into_iter().map(listed).collect::<Result<Vec<_>>>()?;
    if args.json {
        output::json(&all)?;
        return Ok(0);
    }
    output::text_out(&format!(
        "{:<16} {:>7}  {:>8}  {:<8}  TITLE",
        "NAME", "MINUTES", "CHAPTERS", "LAB"
    ))?;
    for d in all {
        let Listed {
            name,
            minutes,
            chapters,
            lab,
            title,
            ..
        } = d;
        output::text_out(&format!("{name:<16} {minutes:>7}  {chapters:>8}  {lab:<8}  {title}"))?;
    }
    Ok(0)
}

/// Reads a demo against the lab that it names.
fn read(home: &Home, source: &Source) -> Result<Demo> {
    demo::read(source, |lab| {
        let source = super::target::source(home, &LabArg::of(lab))?;
        Ok(lifecycle::read(home, &source)?.lab)
    })
}

fn check(home: &Home, here: &Path, args: &CheckArgs) -> Ended {
    let names = args.demo.clone().map_or_else(|| demo::names(here), |name| vec![name]);
    for name in names {
        let demo = read(home, &demo::find(&name, here)?)?;
        for c in &demo.chapters {
            let (steps, asks) = (c.scenario.steps.len(), c.asks.len());
            let sim = simulated::lacks(&c.scenario)
                .map_or_else(String::new, |what| format!("; not on the simulator: {what}"));
            let text = format!(
                "{} {}: {}: {asks} questions, {steps} steps, well{sim}",
                demo.name, c.id, c.title
            );
            output::text_out(&text)?;
        }
    }
    Ok(0)
}

fn take(home: &Home, here: &Path, args: RunArgs) -> Ended {
    if !args.unattended {
        check_terminal()?;
    }
    let demo = read(home, &demo::find(&args.name, here)?)?;
    let source = super::target::source(home, &LabArg::of(&demo.head.lab))?;
    let default = || verify::new_folder(home, &demo.name);
    let folder = args.out.clone().unwrap_or_else(default);
    scenario::can_be_made(&folder)?;
    let options = |accel: &str, on: &str| {
        Ok::<_, Error>(scenario::Options {
            seed: args.seed,
            accel: accel.to_owned(),
            on: on.to_owned(),
            repeat: 1,
            folder: folder.clone(),
            jobs: 1,
            fail_fast: false,
            about: scenario::About {
                selected: demo.chapters.iter().map(|c| c.id.clone()).collect(),
                lab_file: source.lab_file()?,
                ..scenario::About::default()
            },
        })
    };
    let interrupted = interruptible()?;
    let play = |worlds: &dyn Worlds, options: scenario::Options| match args.unattended {
        true => demo::run(worlds, &demo, &mut Nobody, &options),
        false => {
            introduce(&demo)?;
            let mut study = Study::new(Lines::of_stdin(interrupted.clone())?, std::io::stdout());
            demo::run(worlds, &demo, &mut study, &options)
        }
    };
    let report = match args.on {
        verify::Place::Sim => {
            let worlds = SimWorlds::new(&demo.lab, interrupted.clone())?;
            play(&worlds, options("none", "sim")?)?
        }
        verify::Place::Machines => {
            let terminal = Arc::new(Mutex::new(Terminal::new()));
            let caller = up::caller(&terminal, interrupted.clone());
            let lab = demo.lab.clone();
            let worlds = verify::machine_worlds(home, &source, lab, args.accel, false, (&terminal, &caller))?;
            let accel = format!("{:?}", worlds.record().desired.accel).to_lowercase();
            let report = play(&worlds, options(&accel, "machines")?);
            terminal.lock().expect("no bar panics").clear();
            report?
        }
    };
    if args.out.is_none() {
        super::report::write_index(&home.runs())?;
    }
    match args.json {
        true => output::json(&report)?,
        false => output::text_out(&summary(&report))?,
    }
    Ok(report.verdict.exit_code())
}

/// A person who studies has to be there.
fn check_terminal() -> Result<()> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    let problem = Problem::new("run the demo").observed("input or output is no terminal: nobody can be asked");
    Err(Error::Usage(
        problem.remedy("add --unattended: all chapters are run and judged"),
    ))
}

fn introduce(demo: &Demo) -> Result<()> {
    let demo::Head {
        title, about, minutes, ..
    } = &demo.head;
    let chapters = demo.chapters.len();
    output::text_out(&format!(
        "{title}\n{chapters} chapters, {minutes} minutes, lab {}. q leaves, Ctrl-C too.\n\n{about}",
        demo.lab.name
    ))
}

/// A line for each chapter, with its questions.
fn summary(report: &DemoReport) -> String {
    let verdict = |v: Verdict| format!("{v:?}").to_lowercase();
    let chapter = |c: &ChapterReport| {
        let why = c.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let seconds = c.seconds;
        let mut out = format!(
            "\n{:<8} {}: {} ({seconds:.1} s){why}",
            verdict(c.verdict),
            c.id,
            c.title
        );
        for q in &c.questions {
            let right = q.right.as_deref().unwrap_or("no answer");
            out += &format!("\n           {}: {right}", q.question);
            if let Some(predicted) = &q.predicted {
                let sign = if Some(predicted) == q.right.as_ref() {
                    "as predicted"
                } else {
                    "predicted otherwise"
                };
                out += &format!(" ({sign})");
            }
        }
        out
    };
    let chapters: String = report.chapters.iter().map(chapter).collect();
    let page = report.run.join(scenario::names::REPORT);
    format!(
        "{}: {}{chapters}\n\nreport: {}",
        report.demo,
        verdict(report.verdict),
        page.display()
    )
}

/// Lines of standard input, with somebody who can interrupt.
struct Lines {
    lines: Receiver<std::io::Result<String>>,
    interrupted: Arc<AtomicBool>,
}

impl Lines {
    fn of_stdin(interrupted: Arc<AtomicBool>) -> Result<Self> {
        let (send, lines) = mpsc::channel();
        // It ends with the process: nobody can wake who waits for a key.
        std::thread::Builder::new()
            .name("lines".into())
            .spawn(move || {
                for line in std::io::stdin().lines() {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            })
            .tried("listen to the terminal", "")?;
        Ok(Self { lines, interrupted })
    }
}

impl Input for Lines {
    fn line(&mut self) -> Result<Option<String>> {
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => return line.map(Some).tried("read from the terminal", ""),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.interrupted.load(Ordering::Relaxed) => {
                    return Err(Error::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
