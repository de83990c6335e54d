//! A running lab: supervisor, state on disk, lifecycle.
//!
//! The CLI ([`client`]) talks to the [`supervisor`], which keeps one [`engine`]; `up`, `down`, `saved`, `channel` and `standing` are
//! parts of that engine. [`record`] is what is remembered, [`protocol`] what is said.

pub mod admission;
mod asking;
mod busy;
mod channel;
pub mod checkpoint;
pub mod client;
mod down;
pub mod engine;
mod follow;
pub mod fork;
mod forward;
pub mod health;
mod machines;
pub mod merged;
pub mod observe;
pub mod protocol;
pub mod record;
pub mod saved;
mod seat;
mod standing;
pub mod supervisor;
mod up;
pub mod wish;
pub mod world;

pub use channel::way;
pub use machines::disks;
