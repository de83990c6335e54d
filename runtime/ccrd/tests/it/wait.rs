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
