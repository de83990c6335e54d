//! `checkpoint`: keep a running lab as one value, and look after what was kept.

use super::progress::Terminal;
use super::target::{self, LabArg};
use super::{Ended, output};
use crate::error::Result;
use crate::files::Home;
use crate::lab::checkpoint::{Checkpoint, Meta, Store};
use crate::lab::protocol::Verb;
use crate::lab::saved::users;
use crate::units::Name;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Keep a running lab as it is at this instant; it goes on
    Create(Named),
    /// List the checkpoints of a lab
    Ls(Ls),
    /// Show what a checkpoint holds
    Show(Named),
    /// Remove a checkpoint
    Rm(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// A folder with a lab.toml, a running lab or fork, a folder under labs/, or a built-in lab
    lab: String,
    /// Name of the checkpoint
    name: Name,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Ls {
    #[command(flatten)]
    lab: LabArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    match args.what {
        What::Create(named) => create(home, named),
        What::Ls(ls) => list(home, &ls),
        What::Show(named) => show(home, &named),
        What::Rm(named) => rm(home, &named),
    }
    .map(|()| 0)
}

fn create(home: &Home, named: Named) -> Result<()> {
    let lab = target::running(home, &LabArg::of(&named.lab))?;
    let mut terminal = Terminal::new();
    let mut client = lab.client(home)?;
    let meta: Meta = client.get_with_events(Verb::Checkpoint { name: named.name }, |e| terminal.show(e))?;
    drop(terminal);
    if named.json {
        return output::json(&summary(&meta));
    }
    output::text_out(&format!(
        "{}: kept as {}; the machines stood still for {:.2} s, {:.1} ms between the first and the last",
        lab.instance,
        meta.name,
        meta.pause_us as f64 / 1e6,
        meta.skew_us as f64 / 1e3,
    ))
}

/// What `--json` prints of a checkpoint: its meta.json without the record, which is long and for the tool only.
fn summary(meta: &Meta) -> serde_json::Value {
    let mut value = serde_json::to_value(meta).expect("plain data");
    if let Some(map) = value.as_object_mut() {
        map.remove("record");
    }
    value
}

fn list(home: &Home, ls: &Ls) -> Result<()> {
    let lab = target::lab_name(home, &ls.lab)?;
    let (all, damaged) = Store::of(home, &lab).list()?;
    if ls.json {
        let rows: Vec<_> = all.iter().map(|c| json!({"name": c.meta.name, "taken": c.meta.taken, "bytes": c.disk_usage().ok(), "nodes": c.meta.nodes.len(), "used_by": users(home, &lab)(&c.meta.name)})).collect();
        return output::json(&rows);
    }
    for e in &damaged {
        eprintln!("warning: {e}");
    }
    if all.is_empty() {
        return output::text_out(&format!("{lab}: no checkpoint"));
    }
    output::text_out(&format!("{:<20} {:<20} {:>9}  USED BY", "NAME", "TAKEN", "DISK"))?;
    for c in &all {
        let user = users(home, &lab)(&c.meta.name).unwrap_or_default();
        let line = format!(
            "{:<20} {:<20} {:>9}  {user}",
            c.meta.name.as_str(),
            taken(&c.meta),
            disk(c)?
        );
        output::text_out(line.trim_end())?;
    }
    Ok(())
}

fn taken(meta: &Meta) -> String {
    crate::event::wall_time(meta.taken)
}

fn disk(c: &Checkpoint) -> Result<String> {
    Ok(format!("{} MiB", c.disk_usage()? >> 20))
}

fn show(home: &Home, named: &Named) -> Result<()> {
    let lab = target::lab_name(home, &LabArg::of(&named.lab))?;
    let found = Store::of(home, &lab).get(&named.name)?;
    let meta = &found.meta;
    if named.json {
        return output::json(&summary(meta));
    }
    output::text_out(&format!(
        "{lab}: {}\n  taken {}, seed {}, by failoverlab {}\n  stood still for {:.2} s, {:.1} ms between the first and the last\n  {} on the disk",
        meta.name,
        taken(meta),
        meta.seed,
        meta.tool.get(..24).unwrap_or(&meta.tool),
        meta.pause_us as f64 / 1e6,
        meta.skew_us as f64 / 1e3,
        disk(&found)?,
    ))?;
    for node in &meta.nodes {
        let bytes: u64 = meta
            .parts
            .iter()
            .filter(|p| p.node.as_deref() == Some(&node.name))
            .map(|p| p.bytes)
            .sum();
        let clock = node.clock_offset_us.map_or("clock unknown".to_owned(), |us| {
            format!("clock {:+.3} s from the host's", us as f64 / 1e6)
        });
        let state = format!("{:?}", node.state).to_lowercase();
        output::text_out(&format!(
            "  {:<12} {state:<8} {:>6} MiB  {clock}",
            node.name,
            bytes >> 20
        ))?;
    }
    Ok(())
}

fn rm(home: &Home, named: &Named) -> Result<()> {
    let lab = target::lab_name(home, &LabArg::of(&named.lab))?;
    Store::of(home, &lab).rm(&named.name, users(home, &lab))?;
    if named.json {
        return output::json(&json!({"lab": lab, "removed": named.name}));
    }
    output::text_out(&format!("{lab}: {} removed", named.name))
}
