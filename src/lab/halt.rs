//! Telling a thread to end that may be waiting.

use crate::lock::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// What a thread that goes on and on shares with whoever ends it.
#[derive(Debug, Default)]
pub(super) struct Halt {
    told: AtomicBool,
    wake: (Mutex<()>, Condvar),
}

impl Halt {
    /// Ends the thread as soon as it sees the flag.
    pub fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
        drop(lock(&self.wake.0));
        self.wake.1.notify_all();
    }

    /// Whether it was told to end.
    pub fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Waits, but not longer than until it is told to end.
    pub fn wait(&self, time: Duration) {
        let guard = lock(&self.wake.0);
        drop(self.wake.1.wait_timeout_while(guard, time, |(): &mut ()| !self.told()));
    }
}
