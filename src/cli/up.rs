//! `up`: bring a lab up; with `--dry-run`, say what would be done and why.

use super::progress::Terminal;
use super::target::LabArg;
use super::{Ended, interruptible, output};
use crate::files::Home;
use crate::hypervisor::Accel;
use crate::lab::lifecycle::{self, Caller, SEED, UpOptions};
use crate::lab::observe;
use crate::mutation;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Misconfigure the lab on purpose (`failoverlab mutations ls`); several with commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    mutation: Vec<String>,
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
    let source = mutation::applied(super::target::source(home, &args.lab)?, &args.mutation)?;
    let loaded = lifecycle::read(home, &source)?;
    let name = loaded.lab.name.clone();
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
    let options = UpOptions {
        accel: args.accel,
        seed: args.seed,
        keep: args.keep,
        cold: args.cold,
    };
    let terminal = Arc::new(Mutex::new(Terminal::new()));
    let result = lifecycle::up(
        home,
        &source,
        loaded.lab,
        &options,
        &caller(&terminal, interruptible()?),
    );
    let mut terminal = terminal.lock().expect("no bar panics");
    terminal.clear();
    let mut up = result?;
    if args.json {
        up["lab"] = name.as_str().into();
        up["timings"] = terminal
            .finished()
            .iter()
            .map(|f| serde_json::json!({"step": f.step, "node": f.node, "seconds": f.seconds, "ok": f.ok}))
            .collect();
        output::json(&up)?;
    } else {
        output::text_out(&match up["steps"].as_u64() {
            Some(0) => format!("{name}: is up, nothing to do"),
            _ => format!("{name}: up in {:.1} s", up["seconds"].as_f64().unwrap_or_default()),
        })?;
    }
    Ok(0)
}

/// The person at `terminal`, who sees what happens and may interrupt it.
pub fn caller(terminal: &Arc<Mutex<Terminal>>, interrupted: Arc<AtomicBool>) -> Caller {
    let terminal = terminal.clone();
    Caller {
        interrupted,
        on_event: Arc::new(move |e| terminal.lock().expect("no bar panics").show(e)),
    }
}
