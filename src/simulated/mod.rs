//! The simulator as a scenario's world: the same scenario files, journal and verdicts, on the runtime's core in virtual time.
//!
//! The only room that links `runtime/core`. What a scenario asks for and the simulator does not have is told before it runs
//! ([`lacks`]), with the step.

#[cfg(test)]
mod agreement;
mod clients;
#[cfg(all(test, feature = "planted-bugs"))]
mod detection;
mod faults;
mod orders;
#[cfg(test)]
mod tests;
mod words;
mod world;

pub use words::lacks;

use crate::error::{Error, Problem, Result};
use crate::scenario::{Scenario, World, Worlds};
use crate::spec::{Lab, NodeRole};
use ccr_contract::config::Settings;
use ccr_core::planted::Bug;
use ccr_core::sim::driven::Cluster;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use world::SimWorld;

/// How long the machines run before a scenario begins, in microseconds: long enough to form a cluster.
const FORMED_US: u64 = 20_000_000;

/// A simulated lab for each scenario.
#[derive(Debug)]
pub struct SimWorlds {
    lab: Arc<Lab>,
    settings: Settings,
    names: Names,
    interrupted: Arc<AtomicBool>,
    /// What goes wrong in the runtime; only a build with the feature `planted-bugs` can play it.
    planted: Option<Bug>,
}

/// The machines of a lab at their places in the simulator.
#[derive(Debug, Clone)]
struct Names {
    members: [String; 2],
    hubs: Vec<String>,
}

impl Names {
    fn all(&self) -> impl Iterator<Item = &String> {
        self.members.iter().chain(&self.hubs)
    }

    /// The place of a machine.
    fn place(&self, name: &str) -> Option<usize> {
        self.all().position(|n| n == name)
    }
}

impl SimWorlds {
    /// Worlds of a lab; `interrupted` ends a scenario early.
    ///
    /// # Errors
    /// [`Error::Usage`] where the lab is none that the simulator has: two members and hubs with the runtime `ccr`, the share on the
    /// first hub, the networks `public` and `private`.
    pub fn new(lab: &Lab, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let refuse = |seen: String| {
            let problem = Problem::new("simulate the lab").on(&lab.name).observed(seen);
            Error::Usage(problem.remedy("run it on machines: leave `--on sim` out"))
        };
        let runtime = lab.runtime.as_ref().filter(|r| r.kind.as_str() == "ccr");
        let runtime =
            runtime.ok_or_else(|| refuse("its runtime is not `ccr`, the only one that can be simulated".into()))?;
        let of = |role| lab.with_role(role).map(|n| n.name.to_string()).collect::<Vec<_>>();
        let hubs = of(NodeRole::Hub);
        let members: [String; 2] = of(NodeRole::Member)
            .try_into()
            .map_err(|all: Vec<_>| refuse(format!("it has {} members, not 2", all.len())))?;
        if lab.witness().is_none() || lab.witness() != hubs.first().map(String::as_str) {
            return Err(refuse("the share `witness` is not on its first hub".into()));
        }
        let networks: Vec<&str> = lab.networks.iter().map(|n| n.name.as_str()).collect();
        if networks != ["public", "private"] {
            return Err(refuse(format!(
                "its networks are {}, not public, private",
                networks.join(", ")
            )));
        }
        let settings = runtime.settings.clone().into_iter().collect();
        let settings = serde_json::from_value(serde_json::Value::Object(settings));
        Ok(Self {
            lab: Arc::new(lab.clone()),
            settings: settings.map_err(|e| refuse(format!("its settings are not understood: {e}")))?,
            names: Names { members, hubs },
            interrupted,
            planted: None,
        })
    }
}

impl Worlds for SimWorlds {
    fn open(&self, _: &Scenario, seed: u64, _: &Path) -> Result<Box<dyn World>> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let Names { members, hubs } = &self.names;
        let mut cluster = Cluster::new(seed, members, hubs, &self.settings, self.planted);
        cluster.run_until(FORMED_US);
        let world = SimWorld::new(self, cluster, seed);
        Ok(Box::new(world))
    }

    fn lacks(&self, scenario: &Scenario) -> Option<String> {
        lacks(scenario)
    }
}
