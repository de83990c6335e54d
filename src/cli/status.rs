//! `status`: machines, networks and what the cluster says.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::fabric;
use crate::files::Home;
use crate::lab::protocol::{LabStatus, MachineStatus, Networks, Verb};
use ccr_contract::status::{Copy, Status};
use std::fmt::Write;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// The networks instead: cables, rules in force, what they carried and lost
    #[arg(long)]
    network: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = running(home, &args.lab)?;
    if args.network {
        let state: Networks = lab.client(home)?.get(Verb::Counters)?;
        if args.json {
            output::json(&state)?;
        } else {
            let text = fabric::picture(&lab.record.wish.lab, &state.rules, &state.counters);
            output::text_out(text.trim_end())?;
        }
        return Ok(0);
    }
    let status: LabStatus = lab.client(home)?.get(Verb::Status)?;
    if args.json {
        output::json(&status)?;
    } else {
        output::text_out(render(&status).trim_end())?;
    }
    Ok(0)
}

fn render(s: &LabStatus) -> String {
    let mut out = format!("{} — {}\n", s.lab, s.title);
    let health = s
        .unhealthy
        .as_deref()
        .map_or("healthy".to_owned(), |why| format!("not healthy: {why}"));
    let _ = writeln!(
        out,
        "{health} · {} · slowness {:.1}",
        format!("{:?}", s.accel).to_lowercase(),
        s.slowness
    );
    out += "\nMACHINE    ROLE    STATE    RUNTIME                    ADDRESSES\n";
    for m in &s.machines {
        let role = m.role.map_or("-".to_owned(), |r| format!("{r:?}").to_lowercase());
        let state = m
            .domain
            .map_or("absent".to_owned(), |d| format!("{d:?}").to_lowercase());
        let addresses: Vec<String> = m.addresses.iter().map(|(n, a)| format!("{n} {a}")).collect();
        let _ = writeln!(
            out,
            "{:<10} {role:<7} {state:<8} {:<26} {}",
            m.node,
            runtime(m),
            addresses.join(", ")
        );
    }
    if let Some(status) = s
        .machines
        .iter()
        .find_map(|m| m.runtime.as_ref().filter(|r| r.cluster.is_some()))
    {
        cluster(&mut out, status);
    }
    let copies = copies(s);
    if !copies.is_empty() {
        out += "\nCOPY       NODE       STATUS           COPY QUEUE  REPLAY QUEUE  GENERATED\n";
        for c in copies {
            let _ = writeln!(
                out,
                "{:<10} {:<10} {:<16} {:>10}  {:>12}  {:>9}",
                c.group,
                c.node,
                format!("{:?}", c.status),
                c.copy_queue,
                c.replay_queue,
                c.generated
            );
        }
    }
    if !s.faults.is_empty() {
        out += "\nFAULT  KIND        TARGET\n";
        for f in &s.faults {
            let _ = writeln!(out, "{:<6} {:<11} {}", f.id, f.kind, f.target);
        }
    }
    for (from, to) in &s.dark {
        let _ = writeln!(
            out,
            "\nnetworks were dark from {:.1} s to {:.1} s: the supervisor had died",
            seconds(*from),
            seconds(*to)
        );
    }
    out
}

/// Each copy once: both members speak of it, and the one that has it knows best.
fn copies(s: &LabStatus) -> Vec<&Copy> {
    let told = s
        .machines
        .iter()
        .filter_map(|m| m.runtime.as_ref())
        .flat_map(|r| r.copies.iter().map(move |c| (r, c)));
    let mut copies: Vec<(bool, &Copy)> = Vec::new();
    for (status, copy) in told {
        let own = status.node == copy.node;
        match copies
            .iter_mut()
            .find(|(_, c)| c.group == copy.group && c.node == copy.node)
        {
            Some(known) if own => *known = (true, copy),
            Some(_) => {}
            None => copies.push((own, copy)),
        }
    }
    copies.into_iter().map(|(_, c)| c).collect()
}

fn runtime(m: &MachineStatus) -> String {
    let Some(status) = &m.runtime else {
        return if m.runtime_error.is_some() {
            "no answer".into()
        } else {
            "-".into()
        };
    };
    match (&status.cluster, &status.hub) {
        (Some(c), _) => {
            let active = status
                .service
                .as_ref()
                .is_some_and(|s| s.active.as_deref() == Some(m.node.as_str()));
            let owner = c.quorum_owner.as_deref() == Some(m.node.as_str());
            let marks = [(active, " active"), (owner, " quorum-owner")]
                .iter()
                .filter(|m| m.0)
                .map(|m| m.1)
                .collect::<String>();
            format!("{}{marks}", format!("{:?}", c.state).to_lowercase())
        }
        (None, Some(h)) => format!("hub: {} queued, {} in dumpster", h.queued, h.dumpster),
        (None, None) => "up".into(),
    }
}

fn cluster(out: &mut String, status: &Status) {
    if let Some(service) = &status.service {
        let on = service.active.as_deref().unwrap_or("nobody");
        let _ = writeln!(
            out,
            "\nservice {} ({}): {:?} on {on}, epoch {}",
            service.name, service.address, service.state, status.epoch
        );
    }
    if let Some(c) = &status.cluster {
        let _ = writeln!(
            out,
            "votes {} of {}: {}",
            c.votes.have.len(),
            c.votes.total,
            c.votes.have.join(", ")
        );
        if let Some(w) = &c.witness {
            let _ = writeln!(
                out,
                "witness {}: {}",
                w.configured,
                format!("{:?}", w.health).to_lowercase()
            );
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
