//! Faults in the simulator: made at once, undone by number. What makes them is the simulator itself, so each is its own proof.

use super::Names;
use crate::error::{Error, Problem, Result};
use crate::fabric::{ANY, Effect, Match, Proto};
use crate::fault::{Fault, Signal, Traffic, TrafficKind};
use crate::spec::Lab;
use crate::verify::FaultRecord;
use ccr_contract::config::Settings;
use ccr_contract::ports::STREAM;
use ccr_core::sim::Pause;
use ccr_core::sim::driven::{Cluster, Net, Place};
use serde_json::json;
use std::collections::BTreeSet;

/// How long a machine that lost its power takes to be on again, in microseconds.
const RESTART_US: u64 = 5_000_000;
/// How long the supervisor of processes takes to start a daemon again: `RestartSec=` of the unit.
const RESPAWN_US: u64 = 2_000_000;

/// How long a daemon may stand still before its supervisor kills it: `WatchdogSec=` of the unit.
pub(super) fn watchdog_us(settings: &Settings) -> u64 {
    1000 * (settings.heartbeat_ms * u64::from(settings.node_tolerance)).max(5000)
}

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
    /// This member's way to the share is free again.
    ShareCut(usize),
    /// The streams between the members go on.
    Streams,
    /// As many datagrams are lost, in percent, as others in force say.
    Loss(u64),
    /// Its disk has room again.
    Room(usize),
}

/// The faults in force.
#[derive(Debug)]
pub(super) struct Faults {
    watchdog_us: u64,
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
    /// None, on machines whose daemons have these settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            watchdog_us: watchdog_us(settings),
            next: 0,
            in_force: Vec::new(),
        }
    }

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
                    Signal::Stop => cluster.hang(i, self.watchdog_us, RESPAWN_US),
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
                    "disk-full" => {
                        cluster.room(i, Some(0));
                        Undo::Room(i)
                    }
                    other => return Err(cannot(fault, format!("the simulator has no `{other}`"))),
                }
            }
            Fault::Traffic { kind, spec } => return self.to_frames(cluster, names, fault, *kind, spec),
        })
    }

    /// A fault to frames: every one of some paths is cut, or what the simulator has a word of its own for.
    fn to_frames(
        &self,
        cluster: &mut Cluster,
        names: &Names,
        fault: &Fault,
        kind: TrafficKind,
        spec: &Traffic,
    ) -> Result<Undo> {
        let all = paths(names, spec);
        let member = |p: &Place| matches!(p, Place::Machine(0 | 1));
        let between_members = all.len() == 4 && all.iter().all(|(_, from, to)| member(from) && member(to));
        let streams = Match {
            proto: Some(Proto::Tcp),
            port: Some(STREAM),
            ..Match::default()
        };
        let only_loss = |percent| {
            let loss = Some(percent);
            spec.effect
                == Effect {
                    loss,
                    ..Effect::default()
                }
                && spec.matches == Match::default()
        };
        match (kind, spec.effect.loss) {
            (TrafficKind::CutWitness, _) => {
                let on = spec.on.as_ref().and_then(|t| names.place(&t.node));
                let i = on.ok_or_else(|| cannot(fault, "whoever is cut off is not simulated"))?;
                cluster.cut_share(i, true);
                Ok(Undo::ShareCut(i))
            }
            (_, None) if spec.effect == Effect::cut() && spec.matches == Match::default() => Ok(Undo::Cuts(all)),
            (_, None) if spec.effect == Effect::cut() && spec.matches == streams && between_members => {
                cluster.throttle(true);
                Ok(Undo::Streams)
            }
            (_, Some(percent)) if only_loss(percent) && between_members => {
                let percent = percent.0.round() as u64;
                cluster.lose(percent.max(self.lost()));
                Ok(Undo::Loss(percent))
            }
            _ => Err(cannot(fault, "the simulator does that to no frames, or not to these")),
        }
    }

    /// How many datagrams the faults in force lose, in percent.
    fn lost(&self) -> u64 {
        let each = self
            .in_force
            .iter()
            .map(|(_, undo)| if let Undo::Loss(n) = undo { *n } else { 0 });
        each.max().unwrap_or(0)
    }

    /// Whether another fault in force did the same.
    fn again(&self, same: impl Fn(&Undo) -> bool) -> bool {
        self.in_force.iter().any(|(_, undo)| same(undo))
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
                Undo::ShareCut(i) => cluster.cut_share(i, self.again(|u| matches!(u, Undo::ShareCut(j) if *j == i))),
                Undo::Streams => cluster.throttle(self.again(|u| matches!(u, Undo::Streams))),
                Undo::Loss(_) => cluster.lose(self.lost()),
                Undo::Room(i) if self.again(|u| matches!(u, Undo::Room(j) if *j == i)) => {}
                Undo::Room(i) => cluster.room(i, None),
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
