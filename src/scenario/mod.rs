//! Scenario files and their runner. A scenario runs against a [`World`]: the machines are one, the simulator is another.

mod act;
#[cfg(test)]
mod docs_test;
mod exec;
mod expect;
pub mod expression;
#[cfg(test)]
mod fake;
mod file;
mod generate;
mod include;
pub mod mail;
mod parallel;
mod parameters;
mod pieces;
mod raw;
mod reader;
pub mod resp;
mod roles;
mod run;
#[cfg(test)]
mod run_tests;
mod sample;
mod sequence;
mod settings;
mod shrink;
mod statement;
mod step;
mod suite;
mod tags;
#[cfg(test)]
mod tests;
mod truth;
mod watch;

pub use crate::deploy::Answer;
pub use crate::runs::names;
pub use crate::verify::{History, NodeView, Observation};
pub use exec::Exec;
pub use expect::Expectation;
pub use file::{Action, Expect, HealWords, Refused, Require, Rules, Scenario, Step, Vocabulary, parse};
pub use generate::{Wish, generated};
pub use include::Shelf;
pub use parallel::Branch;
pub use pieces::{Pieces, Written, WrittenValue};
pub use roles::{ROLES, Roles, is_role, resolve_fault};
pub use run::{Follower, Run, Stage, run, run_followed};
pub use sample::Sample;
pub use shrink::{Shrunk, shrink_failed};
pub use statement::Statement;
pub use suite::{About, Options, Worlds, beginning, can_be_made, check, distinct, run_all, select, show, vocabulary};
pub use tags::tagged;
pub use truth::Truth;

use crate::error::Result;
use crate::event::{Draft, Event};
use crate::fault::Fault;
use crate::guest::Output;
use crate::spec::Lab;
use crate::units::{Name, Rate, Size, Span};
use crate::verify::FaultRecord;
use crate::wait::Slowness;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What a scenario acts on and looks at. Time may be virtual: the runner never sleeps by itself.
pub trait World {
    /// The resolved lab.
    fn lab(&self) -> &Lab;
    /// How slow this machine is; 1 in a simulator. Every wait is scaled by it.
    fn slowness(&self) -> Slowness;
    /// How busy the host was at worst since the scenario began: so many times longer than on an idle one things took. Every wait and
    /// every limit is scaled by that as well.
    fn busy(&self) -> f64 {
        1.0
    }
    /// Microseconds since the journal of the lab began: the clock of everything that a run leaves behind.
    fn now_us(&self) -> u64;
    /// Looks at every node. A node that does not answer is in it without a status; that is no error. What a node said of a time before
    /// `since_us` does not count; where that is absent, what was heard last does.
    fn observe(&mut self, since_us: Option<u64>) -> Result<Observation>;
    /// Somebody else who can look while something is done to the lab; none where time stands still meanwhile.
    fn looker(&self) -> Option<Box<dyn Looker>> {
        None
    }
    /// The same world for somebody who acts at the same time. What waits in it ends with `Interrupted` once `stop` is set. None where
    /// one thing is done after the other.
    fn branch(&self, stop: Arc<AtomicBool>) -> Result<Option<Box<dyn World + Send>>> {
        let _ = stop;
        Ok(None)
    }
    /// What came to the run's journal so far, without the first `from`.
    fn events(&self, from: usize) -> Vec<Event>;
    /// Returns when there is something new to see of the lab, after `most` at the latest. Ends early with `Interrupted` as
    /// [`World::pass`] does.
    fn await_news(&mut self, most: Duration) -> Result<()> {
        self.pass(most)
    }
    /// Lets time pass. Ends early with `Interrupted` where the person asked for it.
    fn pass(&mut self, time: Duration) -> Result<()>;
    /// Makes a fault happen.
    fn inject(&mut self, fault: &Fault) -> Result<FaultRecord>;
    /// Undoes faults that are still on and returns their closed records.
    fn heal(&mut self, which: &Heal) -> Result<Vec<FaultRecord>>;
    /// Gives the runtime an order of the pack's contract. That it refuses is an outcome, not an error; an error leaves open what
    /// became of the order.
    fn operate(&mut self, order: &Order) -> Result<Answer>;
    /// Runs a command in a machine. That it ends with any status is an outcome; an error leaves open what became of it. Ends early
    /// with `Interrupted` as [`World::pass`] does.
    fn exec(&mut self, node: &str, argv: &[String], within: Duration) -> Result<Output>;
    /// Starts the clients; a workload that runs already is replaced.
    fn load(&mut self, workload: &Workload) -> Result<()>;
    /// Stops the clients and returns when the last operation is in the journal.
    fn stop_load(&mut self) -> Result<()>;
    /// What the clients counted so far.
    fn progress(&self) -> Progress;
    /// Puts an event of the runner into the run's journal.
    fn note(&mut self, draft: Draft);
    /// Adds to the run's history what the runner has not seen itself: the final reads, a last look, and all that was journalled.
    fn finish(&mut self, history: &mut History) -> Result<()>;
    /// The scenario is over: what was made for it is removed. `passed`: no person will want to look at it.
    fn end(self: Box<Self>, passed: bool) -> Result<()>;
    /// Copies what the machines printed and logged into the scenario's folder, as far as a world has that.
    fn keep_logs(&mut self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }
    /// Copies what passed the networks in the last minutes into the file `to`, where a world keeps that.
    fn keep_networks(&mut self, to: &Path) -> Result<()> {
        let _ = to;
        Ok(())
    }
}

/// Looks at a lab from beside: while a [`World`] is busy with something.
pub trait Looker: Send {
    /// What was heard last of every node.
    fn look(&mut self) -> Result<Observation>;
}

/// Which faults to undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heal {
    /// Every one.
    All,
    /// Those of this kind.
    Kind(crate::fault::Kind),
    /// The one of this number.
    Id(u64),
}

impl Heal {
    /// Whether it is meant.
    pub fn covers(&self, record: &FaultRecord) -> bool {
        match self {
            Heal::All => true,
            Heal::Kind(k) => record.kind == k.word(),
            Heal::Id(id) => record.id == *id,
        }
    }
}

/// An order to the runtime, in the words of the pack's contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its word in the pack: `move`, `stop`, `start` …
    #[serde(rename = "verb")]
    pub word: String,
    /// The node that is asked; the active (or any that answers) where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What is said beside it, machines by their names; a setting is `set` = `KEY=VALUE`.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
}

/// Clients to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// What they do.
    pub kind: WorkloadKind,
    /// Operations a second, all clients together.
    pub rate: Rate,
    /// Bytes of a message.
    pub size: Size,
    /// Clients, each with its own mailbox.
    pub clients: u8,
    /// After this long without an answer an operation is given up.
    pub deadline: Span,
    /// How many of a hundred operations are of which kind.
    pub mix: Mix,
    /// Seed of every choice.
    pub seed: u64,
}

/// Kinds of workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// SMTP, LMTP and POP3.
    Mail,
    /// One that the pack has: unique values are appended.
    #[serde(untagged)]
    Named(Name),
}

/// Shares of the operations, relative to their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// SMTP to the hub.
    pub submit: u32,
    /// LMTP to the service address.
    pub deliver: u32,
    /// POP3.
    pub read: u32,
    /// POP3 with DELE.
    pub delete: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            submit: 45,
            deliver: 40,
            read: 10,
            delete: 5,
        }
    }
}

/// Counters of the clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Operations begun.
    pub begun: u64,
    /// Acknowledged `submit` and `deliver`.
    pub acks: u64,
    /// Acknowledged by the store itself: `deliver`, `read`, `delete`.
    pub store_answers: u64,
    /// Refused or never arrived.
    pub failed: u64,
    /// Neither.
    pub unknown: u64,
    /// Not begun because all clients were busy: the load was less than asked for.
    pub shed: u64,
}
