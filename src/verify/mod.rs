//! Judging a run: the client's journal and histories, invariants, verdicts. Pure.
//!
//! `history` is what a run left behind. `evidence` is what several checkers need of it; `takeover` has the changes of the
//! active node. One file for each group of invariants judges it: `single` I1, `durability` I2 and I3, `once` I4 and I12,
//! `chain` I5 and I6, `quorum` I7, `bounds` I8, `claims` I9, `intent` I10, `converge` I11. `health` says what is wrong in one look, `merged` what all members say together. `presence` asks whether enough was seen; `judge` puts the verdict together. See docs/verify.md.

mod bounds;
mod chain;
mod claims;
mod converge;
mod distribution;
mod durability;
mod evidence;
mod finding;
mod health;
mod history;
mod intent;
mod judge;
pub mod merged;
mod once;
mod ops;
mod pattern;
mod presence;
mod quorum;
#[cfg(test)]
pub(crate) mod sample;
mod single;
mod takeover;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

use bounds::SLACK;
pub use distribution::{Distribution, Spread, distributions};
pub use evidence::{Context, Evidence};
pub use health::{Health, health, unhealthy};
pub use history::*;
pub use judge::{Judged, check, forbidden, judge, measure};
pub use merged::Merged;
pub use ops::*;
pub use presence::is_missing_events;
pub use takeover::{Takeover, takeovers};
pub use verdict::*;
pub use words::*;
