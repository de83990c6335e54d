//! Guests' clocks against the host's.

use crate::error::Result;
use crate::guest::agent::{Line, Reading};
use crate::wait::Deadline;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that is set this well is set: microseconds, about what an answer takes.
const CLOSE_US: u64 = 20_000;

/// Attempts to set a clock: one is enough unless an answer came late.
const ATTEMPTS: usize = 4;

/// Looks at a clock; the one with the quickest answer counts.
const LOOKS: usize = 3;

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// One look at a clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClockSample {
    /// How long the answer took.
    pub took: Duration,
    /// The clock minus the host's, microseconds; off by at most half of the time that the answer took.
    pub offset_us: i64,
    /// The identifier that the machine's kernel made at boot.
    pub boot_id: String,
}

fn timed(ask: impl FnOnce() -> Result<Reading>) -> Result<ClockSample> {
    let before = since_1970();
    let told = ask()?;
    let took = since_1970().saturating_sub(before);
    Ok(ClockSample {
        took,
        offset_us: micros(told.time) - micros(before + took / 2),
        boot_id: told.boot_id,
    })
}

/// One look.
pub(super) fn look(line: &Line, deadline: Deadline) -> Result<ClockSample> {
    timed(|| line.look(deadline))
}

/// The best of some looks.
pub(super) fn look_well(line: &Line, deadline: Deadline) -> Result<ClockSample> {
    let mut best = look(line, deadline)?;
    for _ in 1..LOOKS {
        if best.took / 2 <= Duration::from_micros(CLOSE_US) {
            break;
        }
        let next = look(line, deadline)?;
        if next.took < best.took {
            best = next;
        }
    }
    Ok(best)
}

/// Sets a clock that was looked at to the host's plus `wanted`; says how far from there it is then, microseconds.
pub(super) fn set(line: &Line, mut seen: ClockSample, wanted: i64, deadline: Deadline) -> Result<i64> {
    for _ in 0..ATTEMPTS {
        if (seen.offset_us - wanted).unsigned_abs() <= CLOSE_US {
            break;
        }
        // An order arrives after half the time of a question.
        let arrives = micros(since_1970() + seen.took / 2);
        let time = Duration::from_micros((arrives + wanted).max(0).unsigned_abs());
        seen = timed(|| line.set(time, deadline))?;
    }
    Ok(seen.offset_us - wanted)
}
