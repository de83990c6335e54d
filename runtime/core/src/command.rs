//! What an operator asks of a node.

use serde::{Deserialize, Serialize};

/// What an operator asks. It may be asked of any member; one that is not in charge passes it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb")]
pub enum Command {
    /// This node's own view.
    Status,
    /// What this node's store or queue holds.
    Dump,
    /// Planned move of the service (handoff): checks the copy's health, loses nothing, or is refused. Of a service that is stopped:
    /// where it comes up when it is started.
    Move {
        /// The member that shall serve.
        to: String,
        /// Why; mandatory, logged.
        comment: String,
        /// Although a database is dismounted: it stays what it is, on the other member too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ignore_dismounted: bool,
    },
    /// Whether such a move would begin now: its checks, and nothing else.
    ValidateMove {
        /// The member that would serve.
        to: String,
        /// As in [`Command::Move`].
        ignore_dismounted: bool,
    },
    /// Planned move of a group as the cluster tool does it: no health check at all.
    MoveGroup {
        /// Which group.
        group: GroupName,
        /// The member that shall own it.
        to: String,
    },
    /// Stop the service. Sticky: neither failover nor reboot brings it back.
    Stop {
        /// Why.
        comment: String,
    },
    /// Start the service.
    Start,
    /// Suspend copy and replay.
    Suspend {
        /// Storage group; all without.
        group: Option<String>,
        /// Why.
        comment: String,
    },
    /// Resume copy and replay.
    Resume {
        /// Storage group; all without.
        group: Option<String>,
    },
    /// Seed the copy anew.
    Reseed {
        /// Storage group; all without.
        group: Option<String>,
    },
    /// Mount a database beyond the dial, accepting the loss.
    Mount {
        /// Storage group; all without.
        group: Option<String>,
    },
    /// Tell that closed logs are backed up, so that they may be truncated.
    BackupMark {
        /// Storage group; all without.
        group: Option<String>,
    },
    /// Change a live setting.
    Set {
        /// Its name, as in [`ccr_contract::config::Settings`], or `network.NAME.role`, `witness`.
        key: String,
        /// Its new value as text.
        value: String,
        /// Do it although the witness cannot be locked.
        force: bool,
    },
    /// Form the cluster on this node alone without a majority. Recorded at the witness where it can be seen.
    ForceQuorum,
    /// Remove a member from the cluster.
    Evict {
        /// Which.
        node: String,
    },
    /// Take an evicted member back.
    Join {
        /// Which.
        node: String,
    },
}

/// The cluster's two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupName {
    /// Cluster name, cluster address, quorum resource.
    Cluster,
    /// The clustered mailbox server.
    Service,
}
