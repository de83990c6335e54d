//! The identity of a log: which stream it belongs to, and its place in the chain of generations.

use serde::{Deserialize, Serialize};

/// Identity of a log stream: made when the database is created, the same on all copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Stream(pub [u8; 16]);

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl std::str::FromStr for Stream {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{}` is no stream", s.escape_debug());
        if s.len() != 32 || !s.is_ascii() {
            return Err(bad());
        }
        let mut out = [0; 16];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Stream(out))
    }
}

/// One link of a log chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    /// The generation.
    #[serde(rename = "g")]
    pub generation: u64,
    /// Epoch in its header.
    #[serde(rename = "e")]
    pub epoch: u64,
    /// Its checksum.
    #[serde(rename = "c")]
    pub checksum: u32,
}

/// The link before the first generation.
pub const GENESIS: ChainLink = ChainLink {
    generation: 0,
    epoch: 0,
    checksum: 0,
};

/// A closed log on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Its place in the chain.
    pub link: ChainLink,
    /// Checksum of the one before.
    pub previous: u32,
    /// Bytes in use; the rest is zeros.
    pub used: u64,
}
