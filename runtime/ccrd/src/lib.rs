//! The shell of the cluster continuous replication runtime: sockets, disk, clocks and programs around the pure core.
//!
//! It maps the core's effects to completions and decides nothing.

pub mod address;
pub mod clock;
pub mod config;
pub mod core;
pub mod ctl;
pub mod daemon;
pub mod disk;
pub mod events;
pub mod mail;
pub mod net;
pub mod notify;
pub mod servers;
pub mod witness;

/// The daemon's version; a build with planted bugs says so.
pub const VERSION: &str = if ccr_core::planted::AVAILABLE {
    concat!(env!("CARGO_PKG_VERSION"), "+planted-bugs")
} else {
    env!("CARGO_PKG_VERSION")
};
