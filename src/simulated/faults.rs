//! Faults in the simulator: made at once, undone by number. What makes them is the simulator itself, so each is its own proof.

use super::Names;
use crate::error::{Error, Problem, Result};
use crate::fabric::ANY;
use crate::fault::{Fault, Signal, Traffic};
use crate::spec::Lab;
use crate::verify::FaultRecord;
use ccr_core::sim::Pause;
use ccr_core::sim::driven::{Cluster, Net, Place};
use serde_json::json;
use std::collections::BTreeSet;

/// How long a machine that lost its power takes to be on again, in microseconds.
const RESTART_US: u64 = 5_000_000;
/// How long the supervisor of processes takes to start a daemon again.
const RESPAWN_US: u64 = 1_000_000;

/// One direction of a path.
type Path = (Net, Place, Place);

/// What undoes a fault.
#[derive(Debug)]
enum Undo {
    Nothing,
    Power(usize, bool),
    Resume(usize),
    /// Its power is taken and given back.
    Restart(usize),
    Cuts(BTreeSet<Path>),
    Share,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    next: u64,
    in_force: Vec<(FaultRecord, Undo)>,
}

fn cannot(fault: &Fault, seen: impl std::fmt::Display) -> Error {
    let problem = Problem::new("simulate the fault").on(fault.kind().word());
    Error::Operation(problem.observed(seen).remedy("run the scenario on machines"))
}

fn net(name: &str) -> Net {
    if name == "private" { Net::Private } else { Net::Public }
}

/// Both directions between a machine and all others on these networks.
fn around(names: &Names, node: usize, networks: &[String]) -> BTreeSet<Path> {
    let own = Place::Machine(node);
    let others = || places(names).filter(move |p| *p != own);
    let pairs = |n: Net| others().flat_map(move |p| [(n, own, p), (n, p, own)]);
    networks.iter().flat_map(|n| pairs(net(n))).collect()
}

fn places(names: &Names) -> impl Iterator<Item = Place> {
    (0..names.all().count()).map(Place::Machine).chain([Place::Clients])
}

/// The paths of a fault to frames.
fn paths(names: &Names, traffic: &Traffic) -> BTreeSet<Path> {
    let end = |name: &str| -> Vec<Place> {
        match names.place(name) {
            Some(i) => vec![Place::Machine(i)],
            None if name == ANY => places(names).collect(),
            None => Vec::new(),
        }
    };
    let mut all = BTreeSet::new();
    for flow in &traffic.flows {
        for from in end(&flow.from) {
            let to = end(&flow.to).into_iter().filter(|to| *to != from);
            all.extend(to.map(|to| (net(&flow.network), from, to)));
        }
    }
    all
}

/// The power goes, and comes back.
fn restart(cluster: &mut Cluster, i: usize) {
    cluster.power(i, false);
    cluster.run_until(cluster.now_us() + RESTART_US);
    cluster.power(i, true);
}

impl Faults {
    /// Makes a fault.
    pub fn inject(&mut self, cluster: &mut Cluster, names: &Names, lab: &Lab, fault: &Fault) -> Result<FaultRecord> {
        let mut record = fault.record(self.next, cluster.now_us());
        let undo = self.act(cluster, names, lab, fault)?;
        self.next += 1;
        (record.pending, record.effective) = (false, Some(true));
        record.proof = json!({"simulated": true});
        if let Undo::Cuts(paths) = &undo {
            record.proof["paths"] = json!(paths.len());
            let each = paths.iter();
            each.for_each(|(net, from, to)| cluster.cut(*net, *from, *to, true));
        }
        self.in_force.push((record.clone(), undo));
        Ok(record)
    }

    /// What undoes it; cuts are still to be made.
    fn act(&self, cluster: &mut Cluster, names: &Names, lab: &Lab, fault: &Fault) -> Result<Undo> {
        let place = |node: &str| {
            names
                .place(node)
                .ok_or_else(|| cannot(fault, format!("{node} is not simulated")))
        };
        Ok(match fault {
            Fault::PowerOff(t) => {
                let i = place(&t.node)?;
                cluster.power(i, false);
                Undo::Power(i, true)
            }
            Fault::PowerOn(t) => {
                cluster.power(place(&t.node)?, true);
                Undo::Nothing
            }
            Fault::Freeze(t) => {
                let i = place(&t.node)?;
                cluster.pause(i, Some(Pause::Machine));
                Undo::Resume(i)
            }
            Fault::Resume(t) => {
                cluster.pause(place(&t.node)?, None);
                Undo::Nothing
            }
            Fault::LinkDown(c) => {
                let paths = around(names, place(&c.on.node)?, &c.networks);
                Undo::Cuts(paths)
            }
            Fault::LinkUp(c) => {
                let paths = around(names, place(&c.on.node)?, &c.networks);
                self.mend(cluster, &paths, None);
                Undo::Nothing
            }
            Fault::Kill(p) => {
                let i = place(&p.on.node)?;
                match p.signal {
                    Signal::Kill | Signal::Abrt => cluster.kill(i, RESPAWN_US),
                    Signal::Term => cluster.end(i, RESPAWN_US),
                    Signal::Stop => cluster.pause(i, Some(Pause::Process)),
                }
                if p.signal == Signal::Stop {
                    Undo::Resume(i)
                } else {
                    Undo::Nothing
                }
            }
            Fault::Inside(inside) => {
                let i = place(&inside.on.node)?;
                match fault.kind().word() {
                    "reset" => {
                        restart(cluster, i);
                        Undo::Nothing
                    }
                    "panic" => {
                        cluster.pause(i, Some(Pause::Machine));
                        Undo::Restart(i)
                    }
                    "witness-share" if Some(inside.on.node.as_str()) == lab.witness() => {
                        cluster.share(false);
                        Undo::Share
                    }
                    other => return Err(cannot(fault, format!("the simulator has no `{other}`"))),
                }
            }
            Fault::Traffic { spec, .. } if spec.effect == crate::fabric::Effect::cut() => {
                Undo::Cuts(paths(names, spec))
            }
            Fault::Traffic { .. } => {
                return Err(cannot(
                    fault,
                    "the simulator cuts frames, and does nothing else to them",
                ));
            }
        })
    }

    /// Mends paths that no other fault cuts.
    fn mend(&self, cluster: &mut Cluster, paths: &BTreeSet<Path>, of: Option<u64>) {
        let others = self.in_force.iter().filter(|(r, _)| Some(r.id) != of);
        let still = |path: &Path| {
            let cuts = |undo: &Undo| matches!(undo, Undo::Cuts(all) if all.contains(path));
            of.is_some() && others.clone().any(|(_, undo)| cuts(undo))
        };
        for path @ (net, from, to) in paths {
            if !still(path) {
                cluster.cut(*net, *from, *to, false);
            }
        }
    }

    /// Undoes the faults that are meant, the last one first; their closed records.
    pub fn heal(&mut self, cluster: &mut Cluster, meant: impl Fn(&FaultRecord) -> bool) -> Vec<FaultRecord> {
        let mut healed = Vec::new();
        while let Some(at) = self.in_force.iter().rposition(|(r, _)| meant(r)) {
            let (mut record, undo) = self.in_force.remove(at);
            match undo {
                Undo::Nothing => {}
                Undo::Power(i, on) => cluster.power(i, on),
                Undo::Resume(i) => cluster.pause(i, None),
                Undo::Restart(i) => restart(cluster, i),
                Undo::Cuts(paths) => self.mend(cluster, &paths, Some(record.id)),
                Undo::Share => cluster.share(true),
            }
            record.end_us = Some(cluster.now_us());
            healed.push(record);
        }
        healed
    }

    /// What is in force, in words.
    pub fn left(&self) -> Vec<String> {
        let all = self.in_force.iter();
        all.map(|(r, _)| format!("fault {} ({})", r.id, r.kind)).collect()
    }
}
