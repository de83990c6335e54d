//! What crosses between the tool and a runtime in the machines. Types and schema only, no I/O.
//!
//! The tool, `ccrd` and the simulator all use these; nobody writes them twice. Later versions add fields and
//! never rename. Times are milliseconds or microseconds as the field's name says; sizes are bytes.

pub mod config;
pub mod dump;
pub mod event;
pub mod ports;
pub mod reply;
pub mod status;
