//! What is wrong with a file that a person wrote: where, by which rule, and what to do about it.
//!
//! It stands below [`crate::error`] and the readers of files ([`crate::spec`], [`crate::scenario`]), which all speak of it.

mod at;
mod finding;

pub use at::At;
pub(crate) use finding::is_unprintable;
pub use finding::{Finding, Invalid, Severity, known, render};
