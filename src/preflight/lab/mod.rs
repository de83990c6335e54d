//! What is wrong with a lab that looks well, before the second failure shows it: `failoverlab preflight` (docs/mutations.md).
//!
//! [`gather()`] looks into the machines and changes nothing there, [`judge`] is pure: facts in, findings out. `facts` is what lies between.

mod checks;
mod facts;
mod gather;
#[cfg(test)]
mod tests;

pub use checks::{CHECKS, Check, ids};
pub use facts::{Facts, NodeFacts, Ping};
pub use gather::{Asked, gather};

use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing that is wrong, or that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The check.
    pub id: String,
    /// On what: a machine, a path between two.
    pub on: String,
    /// What was seen.
    pub seen: String,
    /// Why it matters at the next failure.
    pub why: String,
    /// How it is mended.
    pub remedy: String,
    /// The lab file says that it is so on purpose.
    pub on_purpose: bool,
    /// It could not be looked at: whether it is so is not known.
    pub unknown: bool,
}

/// All that preflight found in a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the shape.
    pub schema: u32,
    /// The lab or fork.
    pub lab: String,
    /// Misconfigurations that are in its file on purpose, for people.
    pub mutations: Vec<String>,
    /// How many checks there were.
    pub checks: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was found, in the order of the checks.
    pub found: Vec<Found>,
}

impl Report {
    /// How much was found, in words.
    pub fn count(&self) -> String {
        match self.found.len() {
            0 => "nothing was found".to_owned(),
            1 => "one finding".to_owned(),
            n => format!("{n} findings"),
        }
    }

    /// 0 where nothing was found that is not on purpose, 1 where something was, 3 where something could not be looked at.
    pub fn exit_code(&self) -> u8 {
        let matters = || self.found.iter().filter(|f| !f.on_purpose);
        match (matters().any(|f| !f.unknown), matters().next().is_some()) {
            (true, _) => 1,
            (false, true) => 3,
            (false, false) => 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mutation in &self.mutations {
            writeln!(f, "misconfigured on purpose: {mutation}")?;
        }
        for found in &self.found {
            let mark = match (found.on_purpose, found.unknown) {
                (true, _) => "on purpose",
                (_, true) => "unknown",
                _ => "wrong",
            };
            writeln!(f, "{mark:<10}  {}  {}: {}", found.id, found.on, found.seen)?;
            writeln!(f, "            why: {}", found.why)?;
            writeln!(f, "            remedy: {}", found.remedy)?;
        }
        let (lab, checks, seconds, count) = (&self.lab, self.checks, self.seconds, self.count());
        writeln!(f, "{lab}: {checks} checks in {seconds:.1} s, {count}")
    }
}

/// Every finding of every check.
pub fn judge(facts: &Facts<'_>) -> Vec<Found> {
    let mut all = Vec::new();
    for check in CHECKS {
        for seen in (check.judge)(facts) {
            all.push(Found {
                id: check.id.to_owned(),
                on: seen.on,
                seen: seen.what,
                why: check.why.to_owned(),
                remedy: check.remedy.to_owned(),
                on_purpose: facts.lab.on_purpose.iter().any(|id| id == check.id),
                unknown: seen.unknown,
            });
        }
    }
    all
}
