//! What a checker found: a verdict and why.

use super::Verdict;

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub verdict: Verdict,
    pub detail: String,
}

impl Finding {
    pub fn pass(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Pass, detail)
    }
    pub fn fail(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, detail)
    }
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, detail)
    }
    fn new(verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            verdict,
            detail: detail.into(),
        }
    }
    /// A failure that lists some of what was found wrong, a pass where nothing was.
    pub fn of(wrong: &[String], well: impl FnOnce() -> String) -> Self {
        const SHOWN: usize = 5;
        if wrong.is_empty() {
            return Self::pass(well());
        }
        let mut detail = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        if wrong.len() > SHOWN {
            detail.push_str(&format!("; and {} more", wrong.len() - SHOWN));
        }
        Self::fail(detail)
    }
}
