//! The program in every machine of a lab by which the tool acts there, at one virtio-serial port, and the protocol that both speak.
//!
//! It runs commands and follows them, writes and reads files, tells and sets the clock, looks at the machine: with a few system calls of
//! a process that is there already, where SSH takes a handshake and each program of an emulated machine a tenth of a second.
//!
//! What arrives is not trusted more than what any socket brings: frames, texts, numbers of jobs and bytes that wait are bounded, and
//! whoever does not keep to the protocol is told so and has no session any more.
//!
//! No crate but `std`: build.rs hands these files to the compiler by itself, and the tool carries the result into images.

pub mod core;
mod follower;
mod job;
mod machine;
pub mod message;
mod serve;
mod sys;
pub mod wire;

pub use machine::{Machine, ThisMachine};
pub use serve::{AtEnd, serve};

/// Name of the port.
pub const PORT: &str = "org.failoverlab.agent";
