//! The deterministic simulator: two members, one or two hubs, the witness share, clients, and everything that breaks. One
//! seed is one history.

mod act;
mod cause;
mod check;
mod clients;
mod counters;
mod damage;
mod disk;
pub mod draw;
pub mod driven;
mod effects;
mod machine;
pub mod plan;
mod reads;
mod share;
mod streams;
mod triggers;
mod truth;
mod world;

use crate::command::{Command, GroupName};
use crate::io::Obstacle;
use crate::planted::Bug;
use crate::rng::Rng;
use ccr_contract::config::{Config, DatabaseFailure, Network, Peer, Role, Settings, Shipping, Witness};
use ccr_contract::status::{ClusterState, CopyStatus, NetworkRole, ServiceState};
pub use check::CHECKS;
pub use counters::Counters;
pub use machine::Pause;
use plan::{Plan, WINDOW_US};
use reads::NotWell;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
pub use truth::Phases;
use world::World;

/// When the clients begin.
const WORKLOAD_AT_US: u64 = 14_000_000;
/// How long after the healing everything must be well again.
const CONVERGENCE_US: u64 = 240_000_000;
/// Between two looks behind it. Not a multiple of a second: each would meet the real-time clocks as they tick, when a clock that
/// drifts by a hundredth takes the lease away for some milliseconds.
const LOOK_US: u64 = 2_137_000;

/// Bytes of a generation: so few that a run closes many.
const GENERATION_BYTES: u64 = 4096;
/// The longest message here: five generations.
const MESSAGE_BYTES: u64 = 5 * GENERATION_BYTES;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The invariant that was broken, and how.
    pub broken: Option<(&'static str, String)>,
    /// What happened.
    pub counters: Counters,
    /// How long the phases of its failovers took.
    pub phases: Phases,
    /// The plan that was run.
    pub plan: Plan,
    /// The timeline, where one was asked for.
    pub trace: Vec<String>,
}

impl Outcome {
    /// What the run did too little of to prove anything; none when it did enough.
    pub fn thin(&self) -> Option<String> {
        let c = &self.counters;
        let least = [
            ("operations", c.operations, 300),
            ("closed generations", c.closed_generations, 10),
            ("faults", c.faults, 3),
        ];
        let few = least.iter().find(|(_, n, least)| n < least);
        few.map(|(what, n, least)| format!("{n} {what} instead of {least}"))
    }
}

/// A plan that once broke something, as it is kept in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// What went wrong.
    pub what: String,
    /// The seed of the environment's choices.
    pub seed: u64,
    /// The plan.
    pub plan: Plan,
}

/// Runs the history of a seed.
pub fn run(seed: u64) -> Outcome {
    run_with(seed, None)
}

/// The same on nodes that play a planted bug.
pub fn run_with(seed: u64, planted: Option<Bug>) -> Outcome {
    hunt(seed, planted, None)
}

/// The same with one check switched off, by its name in [`CHECKS`].
pub fn hunt(seed: u64, planted: Option<Bug>, off: Option<&'static str>) -> Outcome {
    let plan = Plan::draw(&mut Rng::new(seed));
    run_world(seed, plan, planted, off, false)
}

/// Runs the history of a seed, on nodes that play a planted bug where one is named, and keeps its timeline.
pub fn trace(seed: u64, planted: Option<Bug>) -> Outcome {
    let plan = Plan::draw(&mut Rng::new(seed));
    run_world(seed, plan, planted, None, true)
}

/// A digest of everything that the nodes of a seed's history did, and when. A change that leaves behaviour as it is leaves every
/// digest as it was.
pub fn digest(seed: u64) -> u64 {
    let plan = Plan::draw(&mut Rng::new(seed));
    let configs = configs(&plan);
    let mut world = World::new(Rng::new(seed).fork(), configs, plan, false);
    world.digest = Some(0xcbf2_9ce4_8422_2325);
    drive(&mut world);
    world.digest.unwrap_or_default()
}

/// Runs a plan with the environment's choices of a seed.
pub fn run_plan(seed: u64, plan: Plan, trace: bool) -> Outcome {
    run_world(seed, plan, None, None, trace)
}

fn run_world(seed: u64, plan: Plan, planted: Option<Bug>, off: Option<&'static str>, trace: bool) -> Outcome {
    let configs = configs(&plan);
    let mut world = World::new(Rng::new(seed).fork(), configs, plan.clone(), trace);
    world.planted = planted;
    world.checks.off = off;
    drive(&mut world);
    world.checks.counters.operations = world.workload.ops.len() as u64;
    world.checks.counters.faults = plan.steps.len() as u64;
    for m in &world.machines {
        let (c, t) = (&mut world.checks.counters, m.disk.tally);
        c.failed_reads += t.reads;
        c.failed_listings += t.listings;
        c.undone_cuts += t.cuts;
    }
    Outcome {
        seed,
        broken: world.checks.broken,
        counters: world.checks.counters,
        phases: world.truths.phases,
        plan,
        trace: world.trace.unwrap_or_default(),
    }
}

fn drive(world: &mut World) {
    world.run_until(WORKLOAD_AT_US);
    world.begin_workload(WINDOW_US.1 + 10_000_000 - WORKLOAD_AT_US);
    let faults_end = world
        .plan
        .steps
        .iter()
        .map(|s| s.at_us + s.for_us + 12_000_000)
        .max()
        .unwrap_or(0);
    let end = faults_end.max(WINDOW_US.1 + 20_000_000);
    while world.now < end && world.checks.broken.is_none() {
        let next = (world.now + 3_000_000).min(end);
        world.run_until(next);
        world.check_status();
    }
    world.heal();
    let limit = world.now + CONVERGENCE_US;
    let mut seen = None;
    // Long enough for an open log to be closed that the last redelivery wrote to.
    let well = 5 + world.machines[0].config.settings.idle_roll_ms / 2000;
    let mut settled = 0;
    while world.checks.broken.is_none() {
        world.run_until(world.now + LOOK_US);
        world.check_status();
        match world.converged() {
            Ok(()) if settled >= well => break,
            Ok(()) => settled += 1,
            Err(why) => {
                settled = 0;
                if seen.as_ref() != Some(&why) {
                    let told = (0..2).filter_map(|i| world.ask_status(i)).filter_map(|s| s.cluster);
                    let causes: Vec<_> = told.map(|c| (c.state, c.cause)).collect();
                    world.note(|| format!("not well: {why}; {causes:?}"));
                }
                world.mend(&why);
                seen = Some(why);
            }
        }
        if world.now > limit {
            world.checks.broke(
                "I11",
                format!(
                    "not well {} s after everything was healed: {}",
                    CONVERGENCE_US / 1_000_000,
                    seen.as_ref().map(NotWell::to_string).unwrap_or_default()
                ),
            );
        }
    }
    if world.checks.broken.is_none() {
        world.check_end();
    }
}

/// Runs a failing seed again with ever fewer steps; returns the smallest plan that still fails the same way.
pub fn shrink(failed: &Outcome) -> Outcome {
    let which = failed.broken.as_ref().map(|b| b.0);
    let mut best = failed.plan.clone();
    loop {
        let smaller = (0..best.steps.len())
            .map(|i| best.without(&[i]))
            .find(|plan| run_plan(failed.seed, plan.clone(), false).broken.map(|b| b.0) == which);
        match smaller {
            Some(plan) => best = plan,
            None => return run_plan(failed.seed, best, true),
        }
    }
}

/// Node names of the simulated cluster.
pub const MEMBERS: [&str; 2] = ["node1", "node2"];

fn configs(plan: &Plan) -> Vec<Config> {
    let settings = Settings {
        generation_bytes: GENERATION_BYTES,
        message_bytes: MESSAGE_BYTES,
        dial: plan.dial,
        resilience_depth: plan.depth,
        failback: plan.failback,
        shipping: if plan.ops.is_multiple_of(5) {
            Shipping::Service
        } else {
            Shipping::Any
        },
        database_failure: if plan.ops.is_multiple_of(2) {
            DatabaseFailure::Move
        } else {
            DatabaseFailure::Stay
        },
        groups: (0..plan.groups).map(|g| format!("Group{g}")).collect(),
        ..Settings::default()
    };
    let settings = plan.times.clone().into_settings(settings);
    let hubs: Vec<String> = (0..plan.hubs).map(|h| format!("hub{h}")).collect();
    configs_of(&MEMBERS.map(str::to_owned), &hubs, &settings)
}

/// The configurations of two members and some hubs, the first of which has the share.
fn configs_of(members: &[String; 2], hubs: &[String], settings: &Settings) -> Vec<Config> {
    let address = |network: u8, last: u8| Ipv4Addr::new(10, 0, network, last);
    let member = |i: usize| Peer {
        name: members[i].clone(),
        addresses: BTreeMap::from([
            ("public".to_owned(), address(1, 11 + i as u8)),
            ("private".to_owned(), address(2, 11 + i as u8)),
        ]),
    };
    let hub = |h: usize| Peer {
        name: hubs[h].clone(),
        addresses: BTreeMap::from([("public".to_owned(), address(1, 100 + h as u8))]),
    };
    let network = |name: &str, role| Network {
        name: name.into(),
        role,
        prefix: 24,
        interface: Some("eth1".into()),
    };
    let config = |name: String, role| Config {
        schema: 1,
        node: name,
        role,
        cluster: "sim".into(),
        cluster_address: address(1, 20),
        service: "mbx".into(),
        service_address: address(1, 21),
        service_network: "public".into(),
        data: "/data".into(),
        networks: vec![
            network("public", NetworkRole::Mixed),
            network("private", NetworkRole::Internal),
        ],
        members: vec![member(0), member(1)],
        hubs: (0..hubs.len()).map(hub).collect(),
        witness: Some(Witness {
            address: address(1, 100),
            port: 445,
            share: "witness".into(),
            path: format!(r"\\{}\witness", hubs[0]),
            user: "witness".into(),
            password_file: "/etc/ccrd/witness".into(),
        }),
        settings: settings.clone(),
    };
    let all = members.iter().map(|m| config(m.clone(), Role::Member));
    all.chain(hubs.iter().map(|h| config(h.clone(), Role::Hub))).collect()
}

impl World {
    /// What an operator does when the cluster does not become well by itself.
    fn mend(&mut self, why: &NotWell) {
        let group = None;
        self.take_away_what_is_not_understood();
        if let Some(i) = self.needs_force() {
            // What the other one did alone, or this one's record said, is given up; mail comes back from the dumpster.
            return self.order(usize::MAX, i, Command::ForceQuorum);
        }
        match why {
            NotWell::Service(_, ServiceState::Failed) => self.mend_failed(),
            NotWell::Copy(_, copy) if copy.status == CopyStatus::Failed => self.mend_failed(),
            NotWell::Service(_, ServiceState::PartiallyOnline) => {
                // First the database that is there; where that is none, back to the node that has one.
                self.mended += 1;
                if self.mended % 4 == 1 {
                    self.checks.loss_accepted();
                    self.order(usize::MAX, 0, Command::Mount { group });
                } else if self.mended % 4 == 3 {
                    self.move_service();
                }
            }
            NotWell::Copy(_, copy) if copy.status == CopyStatus::Suspended => {
                self.order(usize::MAX, 0, Command::Resume { group });
            }
            _ => {}
        }
        let evicted = (0..2)
            .filter_map(|i| self.ask_status(i)?.cluster)
            .any(|c| c.state == ClusterState::Stopped);
        if evicted {
            for (i, node) in MEMBERS.iter().enumerate() {
                self.order(usize::MAX, 1 - i, Command::Join { node: (*node).into() });
            }
        }
        if let NotWell::Service(_, ServiceState::Offline | ServiceState::OfflinePending) = why {
            self.order(usize::MAX, 0, Command::Start);
        }
    }

    /// A copy that failed is seeded anew. Where that does not help, because its source has a hole that nobody can fill, the service
    /// goes to the copy (docs/runtime.md, "The way out of a hole").
    fn mend_failed(&mut self) {
        let said: Vec<_> = (0..2).filter_map(|i| self.ask_what_is_wrong(i)).collect();
        self.reseeds += 1;
        if self.reseeds % 4 == 3 && said.iter().any(|(_, found)| found.contains(&Obstacle::Irreparable)) {
            return self.move_service();
        }
        let failed: BTreeSet<&String> = said
            .iter()
            .flat_map(|(s, _)| &s.copies)
            .filter(|c| c.status == CopyStatus::Failed)
            .map(|c| &c.group)
            .collect();
        for group in failed {
            let group = Some(group.clone());
            self.order(usize::MAX, 0, Command::Reseed { group });
        }
    }

    /// A move that asks for nothing.
    fn move_service(&mut self) {
        let to = MEMBERS[1 - self.workload.service_at].to_owned();
        let group = GroupName::Service;
        self.order(usize::MAX, 0, Command::MoveGroup { group, to });
    }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
