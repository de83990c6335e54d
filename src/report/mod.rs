//! What people and machines read of a run: HTML, JUnit, a table for the terminal. Consumers of events and verdicts.

mod bands;
mod compare;
mod html;
mod index;
mod junit;
mod lanes;
mod spoken;
mod summary;
mod svg;
mod table;
mod text;
mod timeline;
mod trace;

pub use compare::{Comparison, Side, compare, comparison_text};
pub use html::{Page, run_page, scenario_page};
pub use index::{Indexed, index_page};
pub use junit::junit;
pub use summary::summary;
pub use table::table;
pub use trace::trace;
