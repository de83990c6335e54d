//! `ls`: the labs that are up.

use super::target::names;
use super::{Ended, output};
use crate::files::Home;
use crate::lab::client::Client;
use crate::lab::record::LabRecord;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    lab: String,
    title: String,
    machines: usize,
    /// Whether `up` reached its end.
    complete: bool,
    /// The supervisor's process; null where none runs (the next command starts one).
    supervisor: Option<u32>,
    source: String,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let rows: Vec<Row> = names(home).iter().filter_map(|name| row(home, name)).collect();
    if args.json {
        output::json(&rows)?;
    } else if rows.is_empty() {
        output::text_out("no lab is up")?;
    } else {
        output::text_out(&format!(
            "{:<16} {:>8}  {:<10} {:<10} SOURCE",
            "LAB", "MACHINES", "STATE", "SUPERVISOR"
        ))?;
        for r in rows {
            let supervisor = r.supervisor.map_or("none".to_owned(), |p| p.to_string());
            let state = if r.complete { "up" } else { "partial" };
            output::text_out(&format!(
                "{:<16} {:>8}  {state:<10} {supervisor:<10} {}",
                r.lab, r.machines, r.source
            ))?;
        }
    }
    Ok(0)
}

fn row(home: &Home, name: &str) -> Option<Row> {
    let files = home.lab(name);
    let supervisor = Client::find(&files).ok().flatten().map(|c| c.greeting().pid);
    let record = LabRecord::load(&files.record()).ok().flatten()?;
    Some(Row {
        lab: name.to_owned(),
        title: record.desired.lab.title,
        machines: record.machines.len(),
        complete: record.complete,
        supervisor,
        source: record.desired.source,
    })
}
