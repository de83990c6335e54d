//! Checks that find what is wrong before it matters: of the workstation (`doctor`), and of a lab before load (`preflight`).

pub mod host;
pub mod lab;

pub use lab::ids;
