//! `status`: machines, networks and what the cluster says.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::fabric;
use crate::files::Home;
use crate::hypervisor::DomainState;
use crate::lab::protocol::{LabStatus, MachineStatus, Networks, Verb, looks};
use crate::verify::merged::{self, Merged};
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
            let text = fabric::picture(&lab.record.desired.lab, &state.rules, &state.counters);
            output::text_out(text.trim_end())?;
        }
        return Ok(0);
    }
    let status: LabStatus = lab.client(home)?.get(Verb::Status(None))?;
    if args.json {
        output::json(&status)?;
    } else {
        output::text_out(render(&status).trim_end())?;
    }
    Ok(0)
}

fn render(s: &LabStatus) -> String {
    let mut out = format!("{} — {}\n", s.lab, s.title);
    let health = match &s.unhealthy {
        None => "healthy".to_owned(),
        Some(why) if s.unknown => format!("unknown whether it is healthy; {why}"),
        Some(why) => format!("not healthy: {why}"),
    };
    let _ = writeln!(
        out,
        "{health} · {} · slowness {:.1}",
        format!("{:?}", s.accel).to_lowercase(),
        s.slowness
    );
    for mutation in &s.mutations {
        let _ = writeln!(out, "misconfigured on purpose: {mutation}");
    }
    out += "\nMACHINE    ROLE    STATE    RUNTIME                       AGE  ADDRESSES\n";
    for m in &s.machines {
        let role = m.role.map_or("-".to_owned(), |r| format!("{r:?}").to_lowercase());
        let state = merged::power(m.domain);
        let addresses: Vec<String> = m.addresses.iter().map(|(n, a)| format!("{n} {a}")).collect();
        let _ = writeln!(
            out,
            "{:<10} {role:<7} {state:<8} {:<26} {:>6}  {}",
            m.node,
            runtime(m),
            m.age_ms
                .map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3)),
            addresses.join(", ")
        );
    }
    for m in &s.machines {
        if let Some(why) = m
            .runtime_error
            .as_ref()
            .filter(|_| m.domain == Some(DomainState::Running))
        {
            let _ = writeln!(out, "{} does not answer: {why}", m.node);
        }
    }
    let looks = looks(&s.machines);
    cluster(&mut out, &Merged::of(&looks));
    let copies = merged::copies(&looks);
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
            if let Some(why) = &c.error {
                let _ = writeln!(out, "           {why}");
            }
        }
    }
    if !s.faults.is_empty() {
        out += "\nFAULT  KIND        TARGET\n";
        for f in &s.faults {
            let _ = writeln!(out, "{:<6} {:<11} {}", f.id, f.kind, f.target);
        }
    }
    for (from, to) in &s.network_outages {
        let _ = writeln!(
            out,
            "\nnetworks were dark from {:.1} s to {:.1} s: the supervisor had died",
            seconds(*from),
            seconds(*to)
        );
    }
    out
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

/// What the members say together, and what speaks against it.
fn cluster(out: &mut String, merged: &Merged<'_>) {
    if let (Some(service), Some(by)) = (merged.service(), merged.by) {
        let on = service.active.as_deref().unwrap_or("nobody");
        let _ = writeln!(
            out,
            "\nservice {} ({}): {:?} on {on}, epoch {}",
            service.name,
            service.address,
            service.state,
            service.epoch.unwrap_or(by.epoch)
        );
        if let Some(cause) = &service.cause {
            let _ = writeln!(out, "  {cause}");
        }
        for doubt in &merged.doubts {
            let _ = writeln!(out, "  but {doubt}");
        }
    }
    let Some(c) = merged.cluster() else { return };
    if let Some(cause) = &c.cause {
        let _ = writeln!(out, "no cluster: {cause}");
    }
    let votes = &c.votes;
    let _ = writeln!(
        out,
        "votes {} of {}: {}",
        votes.have.len(),
        votes.total,
        votes.have.join(", ")
    );
    if let Some(w) = &c.witness {
        match merged::witness_in_force(w) {
            Some((path, health)) => {
                let _ = writeln!(out, "witness {path}: {health}");
                if path != w.configured {
                    let _ = writeln!(out, "  configured is {}, not in force yet", w.configured);
                }
            }
            None => {
                let _ = writeln!(out, "witness {}: not in force", w.configured);
            }
        }
    }
    for path in merged::silent_paths(c) {
        let _ = writeln!(out, "no heartbeats on {path}");
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::Accel;
    use crate::lab::protocol::sample::{machines, member};
    use ccr_contract::status::{CopyStatus, ServiceState, WitnessHealth};

    fn shown(machines: Vec<MachineStatus>) -> String {
        render(&LabStatus {
            lab: "ccr".into(),
            title: "x".into(),
            accel: Accel::Tcg,
            slowness: 1.0,
            t_us: 0,
            heard: 0,
            machines,
            mutations: Vec::new(),
            faults: Vec::new(),
            network_outages: Vec::new(),
            unhealthy: None,
            unknown: false,
        })
    }

    #[test]
    fn a_status_tells_one_truth_with_its_doubts_and_causes() {
        let well = shown(machines());
        assert!(
            well.contains("service exmbx (10.77.1.21): Online on node1, epoch 3\nvotes 3 of 3"),
            "{well}"
        );
        assert!(
            well.contains(r"witness \\hub\witness: ok") && !well.contains("but "),
            "{well}"
        );
        let mut all = machines();
        member(&mut all, "node1").age_ms = Some(412);
        let aged = shown(all);
        let rows: Vec<&str> = aged.lines().filter(|l| l.contains("member")).collect();
        assert!(rows[0].contains(" 0.4 s  ") && rows[1].contains("     -  "), "{aged}");
        let mut all = machines();
        // Failed over: node1 hangs, node2 serves in a newer epoch.
        let hung = member(&mut all, "node1");
        (hung.runtime, hung.runtime_error) = (None, Some("could not ask the runtime: no answer for 5.0 s".into()));
        let status = member(&mut all, "node2").runtime.as_mut().unwrap();
        status.epoch = 4;
        let service = status.service.as_mut().unwrap();
        (service.state, service.active) = (ServiceState::Online, Some("node2".into()));
        let witness = status.cluster.as_mut().unwrap().witness.as_mut().unwrap();
        witness.configured = r"\\hub\other".into();
        witness.health = WitnessHealth::Failed;
        let probe = witness.probed_by.get_mut("node2").unwrap();
        (probe.ok, probe.error) = (false, Some("access denied".into()));
        (status.copies[0].status, status.copies[0].error) = (CopyStatus::Failed, Some("log 7 is damaged".into()));
        let text = shown(all);
        for line in [
            "node1 does not answer: could not ask the runtime: no answer for 5.0 s\n",
            "Online on node2, epoch 4\n",
            "witness \\\\hub\\witness: failed (node2: access denied)\n  configured is \\\\hub\\other, not in force yet\n",
            "           log 7 is damaged\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
