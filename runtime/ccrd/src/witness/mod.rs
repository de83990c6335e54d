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
    /// While this file is held: makes another one with room for [`BLOCK`] bytes where it has not got it yet. What it says stays; one that
    /// somebody holds is that one's business.
    fn reserve(&mut self, name: &str, deadline: Duration) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Whether the file is held, as far as this side knows.
    fn is_held(&self) -> bool;
}

/// Proves that a lock can be had, and that there is room for what arbitration writes: opens a file of its own, writes as much as the
/// witness file takes, sees that this one has its room, closes. Tries once more on a new session if the first one failed and there
/// is time. One that is only slow is not given up before the end: the server would have to do for the next one again what it has done,
/// and a slow server would never be done.
pub async fn probe(witness: &mut impl Witness, deadline: Duration) -> Result<(), Fault> {
    let end = tokio::time::Instant::now() + deadline;
    let first = probe_once(witness, deadline).await;
    let left = end.saturating_duration_since(tokio::time::Instant::now());
    match first {
        Err(_) if !left.is_zero() => probe_once(witness, left).await,
        done => done,
    }
}

async fn probe_once(witness: &mut impl Witness, deadline: Duration) -> Result<(), Fault> {
    let all = async {
        witness.open(deadline).await?;
        witness.write(b"1", deadline).await?;
        witness.reserve(FILE, deadline).await?;
        witness.close(deadline).await
    };
    match tokio::time::timeout(deadline, all).await {
        Ok(done) => done,
        Err(_) => Err(Fault::Lost(format!("no answer within {} ms", deadline.as_millis()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share whose openings take so long, one after the other, and fail where that is said.
    struct Openings(Vec<(u64, bool)>);

    impl Witness for Openings {
        async fn open(&mut self, _: Duration) -> Result<Vec<u8>, Fault> {
            let (millis, good) = self.0.remove(0);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            if good {
                Ok(Vec::new())
            } else {
                Err(Fault::Lost("reset".into()))
            }
        }
        async fn write(&mut self, _: &[u8], _: Duration) -> Result<(), Fault> {
            Ok(())
        }
        async fn close(&mut self, _: Duration) -> Result<(), Fault> {
            Ok(())
        }
        async fn reserve(&mut self, name: &str, _: Duration) -> Result<(), Fault> {
            assert_eq!(name, FILE);
            Ok(())
        }
        fn is_held(&self) -> bool {
            false
        }
    }

    /// The outcome, after how long, and how many openings were not needed.
    async fn probed(openings: &[(u64, bool)]) -> (bool, u64, usize) {
        let mut share = Openings(openings.to_vec());
        let begin = tokio::time::Instant::now();
        let good = probe(&mut share, Duration::from_secs(5)).await.is_ok();
        (good, begin.elapsed().as_millis() as u64, share.0.len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_repeated_where_it_failed_and_left_to_go_on_where_it_is_slow() {
        assert_eq!(probed(&[(10, true), (10, true)]).await, (true, 10, 1));
        assert_eq!(probed(&[(4900, true), (4900, true)]).await, (true, 4900, 1), "slow");
        assert_eq!(
            probed(&[(10, false), (4900, true)]).await,
            (true, 4910, 0),
            "failed once"
        );
        assert_eq!(
            probed(&[(10, false), (20, false)]).await,
            (false, 30, 0),
            "failed twice"
        );
        assert_eq!(probed(&[(4000, false), (4000, true)]).await, (false, 5000, 0));
        assert_eq!(probed(&[(9000, true), (10, true)]).await, (false, 5000, 1), "silent");
    }
}
