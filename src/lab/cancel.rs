//! The end of a request whose client went away.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when the client of a request went away: long work looks at it between and inside its steps.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    raised: Arc<AtomicBool>,
    parent: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Ends a part of the work: raised with the whole, or by itself, and then the rest of the work goes on.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            raised: Arc::default(),
            parent: Some(Arc::new(self.clone())),
        }
    }
    /// Asks the work to stop and undo.
    pub fn cancel(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }
    /// An error once cancelled.
    pub fn check(&self) -> Result<()> {
        if self.raised.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        self.parent.as_ref().map_or(Ok(()), |p| p.check())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_the_whole_and_the_whole_not_with_a_part() {
        let whole = Cancel::default();
        let parts = [whole.child(), whole.child()];
        parts[0].cancel();
        assert!(parts[0].check().is_err() && parts[1].check().is_ok() && whole.check().is_ok());
        whole.cancel();
        assert!(parts[1].check().is_err() && whole.clone().check().is_err());
    }
}
