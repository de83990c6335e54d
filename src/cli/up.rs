//! `up`: bring a lab up; with `--dry-run`, say what would be done and why.

use super::progress::Terminal;
use super::target::LabArg;
use super::{Ended, interruptible, output};
use crate::error::Result;
use crate::event::Journal;
use crate::files::Home;
use crate::hypervisor::Accel;
use crate::lab::client::Client;
use crate::lab::protocol::{UpArgs, Verb};
use crate::lab::record::DesiredState;
use crate::lab::{desired, observe};
use crate::spec::{self, Source};
use serde_json::Value;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Seed of a lab where nobody names one.
pub const SEED: u64 = 1;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Print the steps and why each is needed; do nothing
    #[arg(long)]
    dry_run: bool,
    /// Hardware virtualisation or emulation; probed by booting where absent
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// Seed of every random choice
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Leave what was made when `up` fails, for a look
    #[arg(long)]
    keep: bool,
    /// Boot the machines, even where a checkpoint of the same lab could be brought back
    #[arg(long)]
    cold: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let source = super::target::source(home, &args.lab)?;
    let loaded = read(home, &source)?;
    for warning in &loaded.warnings {
        eprintln!("warning: {}", warning.message);
    }
    if args.dry_run {
        let plan = observe::plan(home, &loaded.lab, args.seed, args.cold)?;
        if args.json {
            output::json(&plan)?;
        } else {
            output::text_out(plan.render().trim_end())?;
        }
        return Ok(0);
    }
    let options = Options {
        accel: args.accel,
        seed: args.seed,
        keep: args.keep,
        cold: args.cold,
    };
    let up = carry_out(home, decide(home, &source, loaded.lab, &options)?, &options)?;
    if args.json {
        output::json(&up)?;
    } else {
        let lab = up["lab"].as_str().unwrap_or_default();
        output::text_out(&match up["steps"].as_u64() {
            Some(0) => format!("{lab}: is up, nothing to do"),
            _ => format!("{lab}: up in {:.1} s", up["seconds"].as_f64().unwrap_or_default()),
        })?;
    }
    Ok(0)
}

/// The lab's file, which must fit this host unless the lab is up.
pub fn read(home: &Home, source: &Source) -> Result<spec::Loaded> {
    let known = desired::read(source)?;
    if home.lab(&known.lab.name).record().is_file() {
        Ok(known)
    } else {
        desired::load(source)
    }
}

/// How a lab is brought up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Forced acceleration.
    pub accel: Option<Accel>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Leave what was made when it fails.
    pub keep: bool,
    /// Boot in any case.
    pub cold: bool,
}

/// What was decided before the supervisor is asked, and what shows how it goes.
pub struct Decided {
    /// What is asked for.
    pub desired: DesiredState,
    terminal: Arc<Mutex<Terminal>>,
    interrupted: Arc<AtomicBool>,
}

/// Decides everything that is decided on the workstation; builds the image where it is missing.
pub fn decide(home: &Home, source: &Source, lab: spec::Lab, options: &Options) -> Result<Decided> {
    observe::same_lab(home, &lab)?;
    let terminal = Arc::new(Mutex::new(Terminal::new()));
    let interrupted = interruptible()?;
    let journal = Journal::in_memory();
    journal.listen({
        let terminal = terminal.clone();
        move |e| {
            show(&terminal, e);
            true
        }
    });
    let desired = desired::decide(home, source, lab, options.accel, options.seed, &journal, &interrupted)?;
    Ok(Decided {
        desired,
        terminal,
        interrupted,
    })
}

fn show(terminal: &Mutex<Terminal>, e: &crate::event::Event) {
    terminal.lock().expect("no bar panics").show(e);
}

/// Brings the lab up and shows how it goes; what `--json` prints.
pub fn carry_out(home: &Home, decided: Decided, options: &Options) -> Result<Value> {
    let Decided {
        desired,
        terminal,
        interrupted,
    } = decided;
    let instance = desired.lab.name.to_string();
    let mut client = Client::find_or_start(home, &instance)?;
    let watch = super::Watch::over(interrupted, client.hang_up()?)?;
    let args = UpArgs {
        desired,
        keep: options.keep,
        cold: options.cold,
    };
    let result = client.ask(Verb::Up(Box::new(args)), |e| show(&terminal, e));
    drop(watch);
    let mut terminal = terminal.lock().expect("no bar panics");
    terminal.clear();
    let mut result = result?;
    result["lab"] = instance.into();
    result["timings"] = terminal
        .finished()
        .iter()
        .map(|f| serde_json::json!({"step": f.step, "node": f.node, "seconds": f.seconds, "ok": f.ok}))
        .collect();
    Ok(result)
}
