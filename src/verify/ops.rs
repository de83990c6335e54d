//! The client's journal, `ops.jsonl`: written outside the cluster, on the workstation's clock.

use ccr_contract::reply::By;
use serde::{Deserialize, Serialize};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpKind {
    /// SMTP to the hub; its 250 means *queued*.
    Submit,
    /// LMTP straight to the service address; the dumpster does not cover it.
    Deliver,
    /// POP3 on the service address.
    Read,
    /// POP3 DELE and QUIT on the service address.
    Delete,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Refused, or never reached the server: it has certainly not happened.
    Fail,
    /// Neither: it stays concurrent with everything after it.
    Unknown,
}

/// One line of `ops.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum OpLine {
    /// Written and synced before the first byte leaves.
    Invoke {
        /// Number of the operation.
        op: u64,
        /// The client.
        client: String,
        /// What it does.
        kind: OpKind,
        /// The message's key (its Message-ID without brackets); of `read`: the mailbox.
        key: String,
        /// Whose mailbox.
        mailbox: String,
        /// Microseconds since the journal began.
        t_us: u64,
    },
    /// Written when it ended.
    Complete {
        /// Number of the operation.
        op: u64,
        /// How it ended.
        outcome: Outcome,
        /// Who answered, where the store did.
        by: Option<By>,
        /// The last reply or the cause of the failure, in its own words.
        seen: String,
        /// Of `read`: the keys that the mailbox held.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<Vec<String>>,
        /// Of `read`: the keys of messages whose content was not what had been sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        damaged: Option<Vec<String>>,
        /// Microseconds since the journal began.
        t_us: u64,
    },
}
