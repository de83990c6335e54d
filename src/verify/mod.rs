//! Judging a run: the client's journal and histories, invariants, verdicts. Pure.
//!
//! `history` is what a run left behind, `takeover` reads the changes of the active node from it, one file for each group
//! of invariants judges it (`single` I1, `durability` I2 and I3, `once` I4 and I12, `bounds` I8), `presence` asks whether enough was seen, `check` puts the verdict
//! together.

mod bounds;
mod check;
mod durability;
mod history;
mod once;
mod ops;
mod presence;
#[cfg(test)]
pub(crate) mod sample;
mod single;
mod takeover;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

use bounds::SLACK;
pub use check::{Context, Evidence, Judged, check, forbidden, judge, measure};
pub use history::*;
pub use ops::*;
pub use takeover::{Takeover, takeovers};
pub use verdict::*;
pub use words::*;
