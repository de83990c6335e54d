//! Cluster continuous replication as pure state machines: inputs in, effects out ([`io`]). Time and the order of
//! completions are inputs; the same core runs in the daemon and in the deterministic simulator.
//!
//! Imports run downwards: record, command, calendar, chain, mailbox, rng ← wire, io ← op ← ctx ← links ← cluster | store ← replication ←
//! member | transport ← sim.

pub mod calendar;
pub mod chain;
pub mod cluster;
pub mod command;
mod ctx;
pub mod durable;
pub mod io;
mod links;
pub mod mailbox;
pub mod member;
pub mod op;
pub mod planted;
pub mod record;
pub mod replication;
pub mod rng;
pub mod sim;
pub mod store;
pub mod transport;
pub mod wire;

use ccr_contract::config::{Config, Role};
use io::{Boot, Node};

/// Makes the node that the configuration describes.
pub fn node(config: Config, boot: Boot) -> Box<dyn Node + Send> {
    match config.role {
        Role::Member => Box::new(member::Member::new(config, boot)),
        Role::Hub => Box::new(transport::Hub::new(config, boot)),
    }
}
