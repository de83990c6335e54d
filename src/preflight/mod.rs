//! Checks that find what is wrong before anything is started.
//!
//! `host.rs` looks at the workstation itself (`failoverlab doctor`).

pub mod host;
