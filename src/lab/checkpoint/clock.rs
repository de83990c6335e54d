//! Guests' clocks against the host's.

use crate::error::Result;
use crate::guest::agent::Agent;
use crate::guest::{Command, Remote};
use crate::wait::Deadline;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that is set this well is set: microseconds, about what an answer of the agent takes.
const CLOSE_US: u64 = 20_000;

/// Attempts to set a clock: one is enough unless an answer came late.
const ATTEMPTS: usize = 4;

/// Looks at a clock; the one with the quickest answer counts.
const LOOKS: usize = 3;

/// Moves the clock by seconds and nanoseconds with `adjtimex` (159) and ADJ_SETOFFSET | ADJ_NANO: one step that needs not know what time it
/// is, so it may come late; then says the boot id, which saves asking for it (each question costs some 50 ms under emulation). perl is
/// in every Debian (perl-base is essential); `date` could only set a time that has passed by then.
const SHIFT: &str = r#"syscall(159, my $t = pack("L x4 q4 l x4 q3 q q x120", 0x2100, 0, 0, 0, 0, 0, 0, 0, 0, @ARGV)) < 0 and exit 1;
open my $f, "<", "/proc/sys/kernel/random/boot_id" or exit 2; print <$f>"#;

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// A machine's clock minus the host's, microseconds; off by at most half of the time that the quickest answer took.
pub(super) fn offset(agent: &mut Agent, deadline: Deadline) -> Result<i64> {
    let mut best = look(agent, deadline)?;
    for _ in 1..LOOKS {
        if best.0 / 2 <= Duration::from_micros(CLOSE_US) {
            break;
        }
        best = best.min(look(agent, deadline)?);
    }
    Ok(best.1)
}

/// One look: how long the answer took, and the offset.
fn look(agent: &mut Agent, deadline: Deadline) -> Result<(Duration, i64)> {
    let before = since_1970();
    let guest = agent.time(deadline)?;
    let took = since_1970().saturating_sub(before);
    Ok((took, micros(guest) - micros(before + took / 2)))
}

/// A clock that was set.
pub(super) struct Set {
    /// How far it is from where it belongs, microseconds.
    pub(super) error_us: i64,
    /// The machine's boot id, where it was said on the way.
    pub(super) boot_id: Option<String>,
}

/// Sets a machine's clock to the host's plus `wanted`.
pub(super) fn set(agent: &mut Agent, wanted: i64, deadline: Deadline) -> Result<Set> {
    // One look will do: what it is off by is seen, and set right, after the step.
    let mut error = look(agent, deadline)?.1 - wanted;
    let mut boot_id = None;
    for _ in 0..ATTEMPTS {
        if error.unsigned_abs() <= CLOSE_US {
            break;
        }
        let by = -error;
        let seconds = by.div_euclid(1_000_000).to_string();
        let nanos = (by.rem_euclid(1_000_000) * 1000).to_string();
        // After `--`: a clock that is ahead is moved by a negative number, which is no option.
        let command = Command::new(["perl", "-e", SHIFT, "--", &seconds, &nanos]);
        let said = agent
            .exec(&command, deadline)?
            .check_text("set the clock", agent.node())?;
        boot_id = Some(said.trim().to_owned());
        error = offset(agent, deadline)? - wanted;
    }
    Ok(Set {
        error_us: error,
        boot_id,
    })
}
