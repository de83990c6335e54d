//! The two clocks of the core: boot time and the real-time clock.
//!
//! In a paused machine the kernel's clocks all stand still, `CLOCK_REALTIME` included; only the emulated real-time
//! clock chip goes on. So the chip is read, through sysfs, because it needs no ioctl. It tells whole seconds; between
//! two of its ticks the boot-time clock interpolates, so that the two clocks disagree only where time really was lost.
//! After a jump the value may be up to one second too low, never too high.

use std::fs::File;
use std::os::unix::fs::FileExt;

const CHIP: &str = "/sys/class/rtc/rtc0/since_epoch";
const SECOND: u64 = 1_000_000;

/// Reads both clocks. One for each daemon: it remembers the last tick.
#[derive(Debug)]
pub struct Clocks {
    chip: Option<File>,
    ticks: Ticks,
}

impl Clocks {
    /// Opens the clock chip. Where there is none (a container), the kernel's wall clock takes its place: there a
    /// process can be stopped, but not the machine.
    pub fn open() -> Self {
        Self {
            chip: File::open(CHIP).ok(),
            ticks: Ticks::default(),
        }
    }

    /// Whether the chip is read.
    pub fn has_chip(&self) -> bool {
        self.chip.is_some()
    }

    /// Boot time and real-time clock, in microseconds.
    pub fn read(&mut self) -> (u64, u64) {
        let boot = boot_us();
        let rtc = match self.chip_seconds() {
            Some(s) => self.ticks.at(boot, s),
            None => wall_us(),
        };
        (boot, rtc)
    }

    fn chip_seconds(&self) -> Option<u64> {
        let mut text = [0u8; 24];
        let n = self.chip.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..n]).ok()?.trim().parse().ok()
    }
}

/// Microseconds since boot, machine sleep included (`CLOCK_BOOTTIME`).
pub fn boot_us() -> u64 {
    micros(rustix::time::ClockId::Boottime)
}

/// Microseconds since 1970, by the kernel.
pub fn wall_us() -> u64 {
    micros(rustix::time::ClockId::Realtime)
}

fn micros(id: rustix::time::ClockId) -> u64 {
    let t = rustix::time::clock_gettime(id);
    t.tv_sec.max(0) as u64 * SECOND + t.tv_nsec.max(0) as u64 / 1000
}

/// Makes microseconds of a clock that only tells seconds.
#[derive(Debug, Default)]
struct Ticks {
    seen: Option<TickSample>,
}

#[derive(Debug, Clone, Copy)]
struct TickSample {
    /// The second that the chip told.
    second: u64,
    /// Boot time at which that second began, as well as it is known.
    began: u64,
    /// Boot time of the last look.
    looked: u64,
}

impl Ticks {
    fn at(&mut self, boot: u64, second: u64) -> u64 {
        let began = match self.seen {
            Some(s) if s.second == second => s.began,
            // The tick fell between the last look and this one; if the expected instant is in there, it is that.
            Some(s) if s.second < second => {
                (s.began + (second - s.second).saturating_mul(SECOND)).clamp(s.looked, boot.max(s.looked))
            }
            _ => boot,
        };
        self.seen = Some(TickSample {
            second,
            began,
            looked: boot,
        });
        second * SECOND + boot.saturating_sub(began).min(SECOND - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_clocks_go_on() {
        let mut c = Clocks::open();
        let (b1, r1) = c.read();
        let (b2, r2) = c.read();
        assert!(b2 >= b1 && r2 >= r1 && r1 > 0);
    }

    #[test]
    fn a_pause_is_seen() {
        let mut t = Ticks::default();
        t.at(10 * SECOND, 1000);
        let before = t.at(10 * SECOND + 300_000, 1000);
        let after = t.at(10 * SECOND + 400_000, 1007);
        assert!(after - before >= 6 * SECOND, "{before} {after}");
    }

    proptest! {
        /// Looks at any instants of an undisturbed machine: the clocks never drift apart by a second or more.
        #[test]
        fn without_a_pause_the_clocks_agree(phase in 0u64..SECOND, gaps in proptest::collection::vec(0u64..3_000_000, 1..200)) {
            let mut t = Ticks::default();
            let mut boot = 5 * SECOND;
            let (mut low, mut high) = (i64::MAX, i64::MIN);
            for g in gaps {
                boot += g;
                let d = t.at(boot, (boot + phase) / SECOND) as i64 - boot as i64;
                low = low.min(d);
                high = high.max(d);
            }
            prop_assert!(high - low < SECOND as i64, "{low} {high}");
        }

        /// Never above the truth, never more than a second below, whatever pauses there were.
        #[test]
        fn never_ahead(phase in 0u64..SECOND, steps in proptest::collection::vec((0u64..2_000_000, 0u64..20_000_000), 1..100)) {
            let mut t = Ticks::default();
            let (mut boot, mut rtc) = (5 * SECOND, 7 * SECOND + phase);
            for (run, pause) in steps {
                boot += run;
                rtc += run + pause;
                let told = t.at(boot, rtc / SECOND);
                prop_assert!(told <= rtc && told + SECOND > rtc, "{told} {rtc}");
            }
        }
    }
}
