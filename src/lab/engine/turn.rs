//! One change at a time.

use crate::error::Result;
use crate::lab::cancel::Cancel;
use crate::lock::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often one that waits looks whether its client has gone.
const GLANCE: Duration = Duration::from_millis(50);

/// The right to change the lab: one request has it, others wait for it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

/// It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    /// Waits until nobody else has it.
    ///
    /// # Errors
    /// `Interrupted` where `cancel` is raised before.
    pub(super) fn take(&self, cancel: &Cancel) -> Result<TurnGuard<'_>> {
        let mut taken = lock(&self.taken);
        loop {
            cancel.check()?;
            if !*taken {
                *taken = true;
                return Ok(TurnGuard(self));
            }
            let waited = self.free.wait_timeout(taken, GLANCE);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) = false;
        self.0.free.notify_one();
    }
}
