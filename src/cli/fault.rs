//! `fault` and `heal`: break something on purpose, and mend it.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::fault::{Kind, Words};
use crate::files::Home;
use crate::lab::protocol::{LabStatus, Look, Verb};
use crate::scenario::{Observation, resolve_fault};
use crate::verify::FaultRecord;

#[derive(Debug, clap::Args)]
pub struct FaultArgs {
    /// The lab (as for the other verbs)
    lab: String,
    #[arg(help = format!("What to do: {}", Kind::all().map(Kind::word).collect::<Vec<_>>().join(", ")))]
    kind: String,
    /// Whom it hits: a node or a role (active, passive, quorum-owner, non-owner, witness, hub)
    #[arg(long)]
    on: Option<String>,
    /// Its parameters; docs/scenarios.md has those of each kind
    #[arg(value_name = "KEY=VALUE")]
    parameters: Vec<String>,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct HealArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Only the fault of this number
    #[arg(long)]
    id: Option<u64>,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

pub fn fault(home: &Home, args: FaultArgs) -> Ended {
    let words = Words::from_arguments(&args.kind, args.on, &args.parameters)?;
    let lab = running(home, &LabArg { lab: Some(args.lab) })?;
    let spec = &lab.record.desired.lab;
    let look = || {
        Ok(Observation::from(
            lab.client(home)?.get::<LabStatus>(Verb::Status(Some(Look::now())))?,
        ))
    };
    let fault = resolve_fault(&words, spec, look)?;
    let mut client = lab.client(home)?;
    let record: FaultRecord = client.get(Verb::Fault(Box::new(fault)))?;
    if args.json {
        output::json(&record)?;
    } else {
        output::text_out(&line(&record))?;
    }
    Ok(0)
}

pub fn heal(home: &Home, args: HealArgs) -> Ended {
    let lab = running(home, &args.lab)?;
    let records: Vec<FaultRecord> = lab.client(home)?.get(Verb::Heal { id: args.id })?;
    if args.json {
        output::json(&records)?;
    } else if records.is_empty() {
        output::text_out("no fault was in force")?;
    } else {
        records.iter().try_for_each(|r| output::text_out(&line(r)))?;
    }
    Ok(0)
}

fn line(r: &FaultRecord) -> String {
    let effect = match r.effective {
        Some(true) => "took effect",
        Some(false) => "had no effect",
        None => "effect not known yet",
    };
    let until = r.end_us.map_or("in force".to_owned(), |e| {
        format!("undone after {:.1} s", (e - r.begin_us) as f64 / 1e6)
    });
    format!("fault {} {} {}: {until}, {effect}: {}", r.id, r.kind, r.target, r.proof)
}
