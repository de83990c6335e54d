//! The frequency of the host's time-stamp counter, for guests that QEMU emulates.
//!
//! Under TCG a guest's counter is the host's. A guest that measures its frequency while it boots is wrong by a factor when the host is
//! busy at that moment (seen: 791 and 140 MHz instead of 2300), and then its clock runs that much too fast. So it is told.

use super::ffi;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is watched: long against the time that two looks take.
const WATCHED: Duration = Duration::from_millis(10);

/// Frequency in kHz, a whole number of MHz: the guest refines it by itself where it is right to a percent. `None` where what was
/// measured makes no sense.
pub(super) fn khz() -> Option<u32> {
    static KHZ: OnceLock<Option<u32>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> Option<u32> {
    let begin = look();
    while begin.0.elapsed() < WATCHED {
        std::hint::spin_loop();
    }
    let end = look();
    let seconds = end.0.duration_since(begin.0).as_secs_f64();
    let mhz = (end.1.wrapping_sub(begin.1) as f64 / seconds / 1e6).round();
    (100.0..20_000.0).contains(&mhz).then_some(mhz as u32 * 1000)
}

/// Time and counter at one instant: of several attempts the one that was disturbed least.
fn look() -> (Instant, u64) {
    let attempt = || {
        let before = Instant::now();
        let ticks = ffi::time_stamp_counter();
        (before.elapsed(), before, ticks)
    };
    let (_, at, ticks) = (0..10).map(|_| attempt()).min().unwrap_or_else(attempt);
    (at, ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (a, b) = (f64::from(measure().unwrap()), f64::from(measure().unwrap()));
        assert!((a / b - 1.0).abs() < 0.01, "{a} {b}");
    }
}
