//! `dump`: what the store on a node holds, also while the service is stopped: the final reads of I3, I5, I6, I11.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The store of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dump {
    /// Version of this shape: 1.
    pub schema: u32,
    /// The node.
    pub node: String,
    /// The storage groups.
    pub groups: Vec<Group>,
    /// Messages that a hub still holds in its queue; empty on members.
    #[serde(default)]
    pub queued: Vec<Queued>,
}

/// One storage group on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// The logs on disk, oldest first.
    pub logs: Vec<Log>,
    /// Every message that the database holds, in the order of its logs.
    pub messages: Vec<Message>,
    /// Digest of the database's content: equal on two nodes that hold the same.
    pub database: String,
}

/// A closed generation on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// Stream it belongs to.
    pub stream: String,
    /// Its number.
    pub generation: u64,
    /// Epoch in which it was begun.
    pub epoch: u64,
    /// Its checksum, hexadecimal.
    pub checksum: String,
    /// Checksum of the one before, hexadecimal.
    pub previous: String,
    /// Its bytes on disk.
    pub bytes: u64,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// The client's key: the `Message-ID` without angle brackets; null where the message had none.
    pub key: Option<String>,
    /// The hub's own id; null for a message that came by LMTP without one.
    pub hub_id: Option<String>,
    /// Whose mailbox.
    pub mailbox: String,
    /// Stream of the log that holds it.
    pub stream: String,
    /// Generation of the log that holds it.
    pub generation: u64,
    /// Epoch in which it was stored.
    pub epoch: u64,
    /// Bytes of the message.
    pub bytes: u64,
    /// CRC32C of the message's bytes, hexadecimal.
    pub crc32c: String,
}

/// A message that a hub has accepted and not yet delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Queued {
    /// The client's key.
    pub key: Option<String>,
    /// The hub's own id.
    pub hub_id: String,
    /// Whose mailbox.
    pub mailbox: String,
}
