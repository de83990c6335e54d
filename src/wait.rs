//! Waiting for a condition: the only place that sleeps.
//!
//! Deadlines are scaled by the measured speed of the machine, and a wait that runs out names what it saw last.

use crate::error::{Error, Problem, Result};
use std::time::{Duration, Instant};

/// How slow this machine is against the one the limits were written for: 1.0 or more, at most 5.
///
/// Measured once (acceleration probe) and recorded with every verdict.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Slowness(f64);

impl Slowness {
    /// No scaling.
    pub const NONE: Slowness = Slowness(1.0);
    /// Clamps `factor` to 1.0–5.0 (I8: "at most 5").
    pub fn new(factor: f64) -> Self {
        Self(if factor.is_finite() {
            factor.clamp(1.0, 5.0)
        } else {
            5.0
        })
    }
    /// The factor.
    pub fn factor(self) -> f64 {
        self.0
    }
    /// `d` on this machine.
    pub fn scale(self, d: Duration) -> Duration {
        d.mul_f64(self.0)
    }
}

/// The instant at which a wait gives up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// `d` from now, unscaled.
    pub fn after(d: Duration) -> Self {
        Self(Instant::now() + d)
    }
    /// `d` from now, scaled by the machine's slowness.
    pub fn scaled(d: Duration, slowness: Slowness) -> Self {
        Self::after(slowness.scale(d))
    }
    /// Time left; zero once passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
    /// Whether the deadline has passed.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
    /// The earlier of this deadline and `d` from now.
    #[must_use]
    pub fn at_most(self, d: Duration) -> Self {
        Self(self.0.min(Instant::now() + d))
    }
}

/// What one look at a condition found.
#[derive(Debug)]
pub enum Probe<T> {
    /// The condition holds.
    Ready(T),
    /// Not yet; the text says what was seen instead.
    NotYet(String),
}

/// First pause between two looks; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Lets `d` pass. For time that is itself the point (a scenario's `wait`), never in place of a condition.
pub fn pause(d: Duration) {
    std::thread::sleep(d);
}

/// Looks until `probe` is ready, it fails for good, or `deadline` passes.
///
/// `what` fits "could not {what}" (`reach node1 over SSH`). The error of a wait that ran out carries what was seen last.
pub fn wait_until<T>(what: &str, deadline: Deadline, probe: impl FnMut() -> Result<Probe<T>>) -> Result<T> {
    wait_led(what, deadline, std::thread::sleep, probe)
}

/// The same where something tells that another look is worth it: `rest` returns when it does, after the given time at the latest.
pub fn wait_led<T>(
    what: &str,
    deadline: Deadline,
    mut rest: impl FnMut(Duration),
    mut probe: impl FnMut() -> Result<Probe<T>>,
) -> Result<T> {
    let mut pause = MIN_PAUSE;
    loop {
        match probe()? {
            Probe::Ready(v) => return Ok(v),
            Probe::NotYet(seen) if deadline.passed() => {
                let seen = format!("time ran out; last seen: {seen}");
                return Err(Error::Operation(Problem::new(what).observed(seen)));
            }
            Probe::NotYet(_) => {}
        }
        rest(pause.min(deadline.left()));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_survives_the_time_out() {
        let mut n = 0;
        let e = wait_until::<()>("meet nobody", Deadline::after(Duration::from_millis(20)), || {
            n += 1;
            Ok(Probe::NotYet(format!("look {n}")))
        })
        .unwrap_err();
        assert!(n > 1);
        assert!(e.to_string().contains(&format!("last seen: look {n}")), "{e}");
    }

    #[test]
    fn a_probe_that_fails_for_good_ends_the_wait() {
        let mut n = 0;
        let r = wait_until::<()>("x", Deadline::after(Duration::from_secs(60)), || {
            n += 1;
            Err(Error::Interrupted)
        });
        assert!(matches!(r, Err(Error::Interrupted)));
        assert_eq!(n, 1);
    }

    #[test]
    fn slowness_is_clamped() {
        assert_eq!(Slowness::new(0.2).factor(), 1.0);
        assert_eq!(Slowness::new(f64::NAN).factor(), 5.0);
        assert_eq!(Slowness::new(9.0).factor(), 5.0);
    }
}
