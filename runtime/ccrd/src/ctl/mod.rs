//! The operator's way in: JSON lines over a unix socket that only root may open. `ccrctl` is its client.

pub mod client;
mod cluster_view;
mod describe;
#[cfg(test)]
mod docs_test;
pub mod server;
mod verbs;

use ccr_contract::dump::Dump;
use ccr_contract::status::Status;
use ccr_core::command::Command;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Folder of what exists only while the daemon runs.
pub const RUN: &str = "/run/ccrd";
/// The socket in it, mode 0600.
pub const SOCKET: &str = "ctl.sock";
/// Longest request.
const MAX_REQUEST: usize = 16 << 10;

/// One line from `ccrctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// For the core. Answered by one [`Answer`].
    Core(Command),
    /// Events, one line each, from the oldest one kept. A number that this life of the daemon has not come to yet is
    /// [`Answer::Denied`].
    Events {
        /// Whether to wait for more after the newest one.
        follow: bool,
        /// Number of the first one that is wanted. What is missing from there on is told by [`Missing`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
    },
    /// A [`Status`] now, one whenever it has changed or the node has served somebody, and one after [`WATCH_MOST`] without; never sooner
    /// than [`WATCH_LEAST`] after the one before.
    Watch,
}

/// The shortest time between two lines of [`Request::Watch`].
pub const WATCH_LEAST: Duration = Duration::from_millis(250);
/// The longest.
pub const WATCH_MOST: Duration = Duration::from_secs(5);

/// A line among events that were asked for from a number: these are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Numbers.
    Gap {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
}

/// One line back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Dump`].
    Dump(Box<Dump>),
    /// It was carried out.
    Done(String),
    /// It was not; why.
    Denied(String),
    /// Nobody can say whether it was: the core did not answer.
    Failed(String),
}
