//! Cluster continuous replication as pure state machines: inputs in, effects out ([`io`]). Time and the order of
//! completions are inputs; the same core runs in the daemon and in the deterministic simulator.

pub mod cluster;
mod ctx;
pub mod durable;
pub mod io;
pub mod member;
pub mod planted;
pub mod replication;
pub mod sim;
pub mod store;
pub mod transport;
pub mod wire;
