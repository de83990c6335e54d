//! A running lab: supervisor, state on disk, lifecycle.
//!
//! [`lifecycle`] is what commands and scenarios call. Its [`client`] talks to the [`supervisor`], which has one [`engine`]. What the
//! engine carries out is in files below it: `up`, `boot`, `restore`, `down`. [`record`] is the file of a lab, [`protocol`] the
//! socket's messages.

pub mod active_faults;
pub mod admission;
pub mod cancel;
mod channel;
pub mod checkpoint;
pub mod client;
pub mod desired;
pub mod engine;
mod follow;
mod forward;
mod halt;
mod in_flight;
pub mod lifecycle;
mod machines;
pub mod observe;
pub mod protocol;
mod queries;
pub mod record;
pub mod saved;
pub mod supervisor;
mod supervisor_lock;
mod watch;
mod ways;
pub mod world;

pub use channel::way;
pub use machines::disks;
