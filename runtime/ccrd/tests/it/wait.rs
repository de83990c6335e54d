//! The only place of these tests that waits by sleeping: for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `probe` gives something; nothing when the time is over.
pub fn until<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        match probe() {
            None if Instant::now() < end => std::thread::sleep(LOOK),
            found => return found,
        }
    }
}

/// Whether an operation ends before so many pauses of 10 ms have passed, one after the other, on its own runtime: a limit that is as slow
/// as the host is.
pub async fn ends_within<T>(pauses: u32, operation: impl Future<Output = T>) -> Option<T> {
    let limit = async {
        for _ in 0..pauses {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        done = operation => Some(done),
        () = limit => None,
    }
}

/// The same for a probe that is a future.
pub async fn until_async<T>(within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        match probe().await {
            None if Instant::now() < end => tokio::time::sleep(LOOK).await,
            found => return found,
        }
    }
}
