//! What people and machines read of a run: HTML, JUnit, a table for the terminal. Consumers of events and verdicts.

mod html;
mod junit;
mod roles;
mod table;
mod timeline;

pub use html::{Page, html};
pub use junit::junit;
pub use table::table;
