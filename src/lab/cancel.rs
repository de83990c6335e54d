//! The end of a request whose client went away.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when the client of a request went away: long work looks at it between and inside its steps.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to stop and undo.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// An error once cancelled.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
    /// The flag itself, for work that polls it.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
