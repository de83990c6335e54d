//! A running lab: supervisor, state on disk, lifecycle.
//!
//! The CLI ([`client`]) talks to the [`supervisor`], which keeps one [`engine`]; `up`, `down`, `saved`, `channel` and `active_faults` are
//! parts of that engine. [`record`] is what is remembered, [`protocol`] what is said.

mod active_faults;
pub mod admission;
mod channel;
pub mod checkpoint;
pub mod client;
pub mod desired;
mod down;
pub mod engine;
mod follow;
pub mod fork;
mod forward;
pub mod health;
mod in_flight;
mod machines;
pub mod merged;
pub mod observe;
pub mod protocol;
mod queries;
pub mod record;
pub mod saved;
pub mod supervisor;
mod supervisor_lock;
mod up;
pub mod world;

pub use channel::way;
pub use machines::disks;
