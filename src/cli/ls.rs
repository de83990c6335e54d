//! `ls`: the labs that are up.

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
    /// Why its record cannot be read: `down` removes the lab, nothing else can use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
    /// Misconfigurations that are in it on purpose; its source names them for people.
    mutations: Vec<String>,
}

impl Row {
    fn state(&self) -> &'static str {
        match (&self.damaged, self.complete) {
            (Some(_), _) => "damaged",
            (None, true) => "up",
            (None, false) => "partial",
        }
    }
}

pub fn run(home: &Home, args: Args) -> Ended {
    let rows: Vec<Row> = home.instances()?.iter().filter_map(|name| row(home, name)).collect();
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
            output::text_out(&format!(
                "{:<16} {:>8}  {:<10} {supervisor:<10} {}",
                r.lab,
                r.machines,
                r.state(),
                r.damaged.as_ref().unwrap_or(&r.source)
            ))?;
        }
    }
    Ok(0)
}

/// One lab; none where its folder has no record: it is on its way up, or down.
fn row(home: &Home, name: &str) -> Option<Row> {
    let files = home.lab(name);
    let supervisor = Client::find(&files).ok().flatten().map(|c| c.greeting().pid);
    let mut row = Row {
        lab: name.to_owned(),
        title: String::new(),
        machines: 0,
        complete: false,
        supervisor,
        source: String::new(),
        damaged: None,
        mutations: Vec::new(),
    };
    match LabRecord::load(&files.record()) {
        Ok(record) => {
            let record = record?;
            row.title = record.desired.lab.title;
            row.machines = record.machines.len();
            row.complete = record.complete;
            row.source = record.desired.source;
            row.mutations = record.desired.lab.mutations.into_iter().map(|m| m.id).collect();
        }
        Err(e) => row.damaged = Some(e.to_string()),
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_whose_record_cannot_be_read_is_shown_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        for (name, text) in [("empty", ""), ("cut", "{\"schema\": 1, \"inst"), ("null", "null")] {
            Home::private_dir(&home.lab(name).state).unwrap();
            std::fs::write(home.lab(name).record(), text).unwrap();
        }
        std::fs::create_dir_all(home.lab("folder").record()).unwrap();
        Home::private_dir(&home.lab("claimed").state).unwrap();
        let rows: Vec<_> = home.instances().unwrap().iter().filter_map(|n| row(&home, n)).collect();
        let shown: Vec<_> = rows.iter().map(|r| (r.lab.as_str(), r.state())).collect();
        let damaged = "damaged";
        assert_eq!(
            shown,
            [
                ("cut", damaged),
                ("empty", damaged),
                ("folder", damaged),
                ("null", damaged)
            ]
        );
        assert!(
            rows.iter().all(|r| r.damaged.as_ref().unwrap().contains("lab.json")),
            "{rows:?}"
        );
    }
}
