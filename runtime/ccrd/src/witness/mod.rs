//! The witness file on an SMB share, behind a small surface so that the client library can be replaced.
//!
//! The rules come from measurements with Samba 4.17:
//! - the file is opened with share access *none*, open-if, write-through, without oplock or durable context: whoever has
//!   the handle has the authority, and a dead connection leaves nothing behind;
//! - a write and its flush run under one deadline, the opening with all that belongs to it under another;
//! - after any error or deadline the whole connection is dropped: an open that was given up may still be granted by the
//!   server later, and would keep everybody out for as long as the connection lives.

mod smb;

pub use smb::{Share, SmbWitness};

use std::time::Duration;

/// Name of the witness file in the share.
pub const FILE: &str = "witness.log";
/// Bytes that are always written, whatever the content's length: the rest of a longer one must not stay behind. The
/// fill is zeros, so that a content must not end with one.
pub const BLOCK: usize = ccr_core::wire::MAX_WITNESS;

/// Why an operation on the witness gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Somebody else has the file open.
    #[error("the file is held by another node")]
    Held,
    /// Anything else: the authority, if there was any, is gone.
    #[error("{0}")]
    Lost(String),
}

/// An exclusive hold on one file. One operation at a time; every future may be dropped, which counts as a loss.
pub trait Witness: Send {
    /// Connects, opens the file exclusively and reads it (empty where it is new).
    fn open(&mut self, deadline: Duration) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;
    /// Replaces the content through the handle, and flushes it.
    fn write(&mut self, content: &[u8], deadline: Duration) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Gives the file back. Whatever the answer, it is not held afterwards.
    fn close(&mut self, deadline: Duration) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Whether the file is held, as far as this side knows.
    fn is_held(&self) -> bool;
}

/// Proves that a lock can be had: opens, writes a byte, closes. Tries once more on a new session if the first one failed
/// in the first half of the time.
pub async fn probe(witness: &mut impl Witness, deadline: Duration) -> Result<(), Fault> {
    let end = tokio::time::Instant::now() + deadline;
    let first = probe_once(witness, deadline / 2).await;
    match first {
        Ok(()) => Ok(()),
        Err(_) => probe_once(witness, end.saturating_duration_since(tokio::time::Instant::now())).await,
    }
}

async fn probe_once(witness: &mut impl Witness, deadline: Duration) -> Result<(), Fault> {
    let all = async {
        witness.open(deadline).await?;
        witness.write(b"1", deadline).await?;
        witness.close(deadline).await
    };
    match tokio::time::timeout(deadline, all).await {
        Ok(done) => done,
        Err(_) => Err(Fault::Lost(format!("no answer within {} ms", deadline.as_millis()))),
    }
}
