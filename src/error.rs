//! The one enum of expected errors, with the documented exit codes.
//!
//! Anything that is not one of these is a bug in failoverlab and ends with exit code 70.

use std::fmt;

/// What went wrong, in words for the person who has to act on it.
///
/// The text fits "could not {what}": lower case, no full stop.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// What was tried: `start the machine`.
    pub what: String,
    /// On what it was tried: a node, a file, a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What was observed last: libvirt's or QEMU's own words, the last answer of a probe.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "seen")]
    pub observed: Option<String>,
    /// What the person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What the observed words mean, where the tool does something about it. It stays within the process.
    #[serde(skip)]
    pub cause: Option<Cause>,
    /// Failures of undoing the step, each in its own words. Empty where everything was undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollback: Vec<String>,
}

/// A failure of another process that the tool knows what to do about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The lab's supervisor ended before it answered: another one finishes what it began.
    SupervisorEnded,
    /// QEMU could not have a port of this host: another process took it.
    PortTaken,
    /// libvirt's driver, as root, looks up the account that its packages make, and there is none.
    NoServiceAccount,
}

impl Problem {
    /// A problem with `what` was tried; add the rest with the builder methods.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            on: None,
            observed: None,
            remedy: None,
            cause: None,
            rollback: Vec::new(),
        }
    }
    /// Names what the step was tried on.
    #[must_use]
    pub fn on(mut self, on: impl fmt::Display) -> Self {
        self.on = Some(on.to_string());
        self
    }
    /// Keeps what was observed last, in its own words.
    #[must_use]
    pub fn observed(mut self, observed: impl fmt::Display) -> Self {
        self.observed = Some(observed.to_string());
        self
    }
    /// Says what the observed words mean.
    #[must_use]
    pub fn because(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }
    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.what)?;
        if let Some(on) = &self.on {
            write!(f, " ({on})")?;
        }
        if let Some(observed) = &self.observed {
            write!(f, ": {observed}")?;
        }
        Ok(())
    }
}

/// Every expected way in which a command can end without its result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid lab or scenario file: rendered with file, line and caret.
    #[error("{0}")]
    Invalid(Box<crate::diagnostic::Invalid>),
    /// A wrong use: an unknown name of a lab, node, network or fault.
    #[error("{0}")]
    Usage(Problem),
    /// The host cannot run this, or the lab does not fit.
    #[error("{0}")]
    Host(Problem),
    /// An operation on a lab or image failed and was undone (or says what was not).
    #[error("{0}")]
    Operation(Problem),
    /// The person interrupted the command.
    #[error("interrupted")]
    Interrupted,
    /// A state that failoverlab believed impossible.
    #[error("bug in failoverlab: {0}")]
    Bug(Problem),
}

/// Result of anything in the tool that can fail in an expected way.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The process exit code (DESIGN: "Exit codes").
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Invalid(_) | Error::Usage(_) => 2,
            Error::Host(_) => 4,
            Error::Operation(_) => 5,
            Error::Bug(_) => 70,
            Error::Interrupted => 130,
        }
    }

    /// The problem inside, where there is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Usage(p) | Error::Host(p) | Error::Operation(p) | Error::Bug(p) => Some(p),
            Error::Invalid(_) | Error::Interrupted => None,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl fmt::Display) -> Self {
        if let Error::Usage(p) | Error::Host(p) | Error::Operation(p) | Error::Bug(p) = &mut self {
            p.remedy = Some(remedy.to_string());
        }
        self
    }

    /// Adds failures of the undo, so that cause and rollback failure are both reported.
    #[must_use]
    pub fn with_rollback(mut self, failures: impl IntoIterator<Item = String>) -> Self {
        if let Error::Usage(p) | Error::Host(p) | Error::Operation(p) | Error::Bug(p) = &mut self {
            p.rollback.extend(failures);
        }
        self
    }
}

/// Turns an I/O error into an operation error that says what was tried on which path.
pub trait IoContext<T> {
    /// `what` fits "could not {what}"; `on` is the path or name.
    fn tried(self, what: &str, on: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> IoContext<T> for std::result::Result<T, E> {
    fn tried(self, what: &str, on: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::Operation(Problem::new(what).on(on).observed(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_sentence() {
        let p = Problem::new("start the machine")
            .on("node1")
            .observed("qemu: no memory");
        assert_eq!(p.to_string(), "could not start the machine (node1): qemu: no memory");
    }

    /// Supervisors of other builds and `--json` have it under this name.
    #[test]
    fn what_was_observed_is_named_seen_in_json() {
        let p = Problem::new("start the machine").observed("no memory");
        let json = serde_json::json!({"what": "start the machine", "seen": "no memory"});
        assert_eq!(serde_json::to_value(&p).unwrap(), json);
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let p = || Problem::new("x");
        let codes: Vec<u8> = [
            Error::Usage(p()),
            Error::Host(p()),
            Error::Operation(p()),
            Error::Bug(p()),
            Error::Interrupted,
        ]
        .iter()
        .map(Error::exit_code)
        .collect();
        assert_eq!(codes, [2, 4, 5, 70, 130]);
    }
}
