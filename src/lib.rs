//! failoverlab: a virtual lab for failover clusters. See `docs/architecture.md` for the map of these modules.

pub mod bundle;
pub mod busy;
pub mod capacity;
pub mod cli;
pub mod demo;
pub mod deploy;
pub mod diagnostic;
pub mod error;
pub mod event;
pub mod fabric;
pub mod fault;
pub mod files;
pub mod guest;
pub mod hypervisor;
pub mod image;
pub mod lab;
pub mod lock;
pub mod mutation;
pub mod picture;
pub mod plan;
pub mod preflight;
pub mod private;
pub mod probe;
pub mod process;
pub mod report;
pub mod runs;
pub mod scenario;
pub mod simulated;
pub mod spec;
pub mod units;
pub mod verify;
pub mod view;
pub mod wait;
pub mod watch;
pub mod web;

/// Name and version, as the files that this tool writes say it.
pub const TOOL: &str = concat!("failoverlab ", env!("CARGO_PKG_VERSION"));
