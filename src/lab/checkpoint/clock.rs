//! Guests' clocks against the host's.

use crate::error::Result;
use crate::guest::agent::Agent;
use crate::wait::Deadline;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that is set this well is set: microseconds, about what an answer of the agent takes.
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

/// A machine's clock minus the host's, microseconds; off by at most half of the time that the quickest answer took.
pub(super) fn offset(agent: &mut Agent, deadline: Deadline) -> Result<i64> {
    best_look(agent, deadline).map(|(_, offset)| offset)
}

/// How long the quickest answer took, and the offset that it tells.
fn best_look(agent: &mut Agent, deadline: Deadline) -> Result<(Duration, i64)> {
    let mut best = look(agent, deadline)?;
    for _ in 1..LOOKS {
        if best.0 / 2 <= Duration::from_micros(CLOSE_US) {
            break;
        }
        best = best.min(look(agent, deadline)?);
    }
    Ok(best)
}

/// One look: how long the answer took, and the offset.
fn look(agent: &mut Agent, deadline: Deadline) -> Result<(Duration, i64)> {
    let before = since_1970();
    let guest = agent.time(deadline)?;
    let took = since_1970().saturating_sub(before);
    Ok((took, micros(guest) - micros(before + took / 2)))
}

/// Sets a machine's clock to the host's plus `wanted`; says how far from there it is then, microseconds.
pub(super) fn set(agent: &mut Agent, wanted: i64, deadline: Deadline) -> Result<i64> {
    // One look will do: what it is off by is seen, and set right, after the first order.
    let (mut took, mut offset) = look(agent, deadline)?;
    for _ in 0..ATTEMPTS {
        if (offset - wanted).unsigned_abs() <= CLOSE_US {
            break;
        }
        // An order arrives after half the time of a question.
        let arrives = micros(since_1970() + took / 2);
        agent.set_time(
            Duration::from_micros((arrives + wanted).max(0).unsigned_abs()),
            deadline,
        )?;
        (took, offset) = best_look(agent, deadline)?;
    }
    Ok(offset - wanted)
}
