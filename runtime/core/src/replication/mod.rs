//! The replication layer: the copy pulls closed logs from the source, inspects them, and replays them. It knows nothing of
//! votes and groups; it is told who the source is.

pub mod copy;
mod pull;
pub mod repair;
mod resync;
mod seed;
pub mod source;
