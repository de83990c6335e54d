//! What the kernel says of a process: one reader of `/proc/PID/stat` for this host and for guests.

use std::time::Duration;

/// A line of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The process id.
    pub pid: u32,
    /// `R`, `S`, `Z`, …
    pub state: char,
    /// Its session: the leader's process id, or 0 where the leader lives outside this process namespace.
    pub session: u32,
    /// When it began, in the kernel's ticks since boot: a process id that is used again is another process.
    pub began: u64,
    /// Processor time in ticks, a guest's included.
    ticks: u64,
}

impl Stat {
    /// The kernel's word on `pid` of this host; none where there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads one line; none where it is not such a line.
    pub fn parse(line: &str) -> Option<Self> {
        let pid = line.split_once(' ')?.0.parse().ok()?;
        // The name before it stands in parentheses and may hold anything.
        let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
        let number = |i: usize| fields.get(i)?.trim_end().parse::<u64>().ok();
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            session: number(3)?.try_into().ok()?,
            ticks: number(11)?.checked_add(number(12)?)?,
            began: number(19)?,
        })
    }

    /// Whether it still runs: one that has ended and was not reaped does not.
    pub fn runs(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether a signal or a debugger holds it.
    pub fn stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Processor time of a process of this host, its guest's included.
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(self.ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second())
    }
}

/// Whether `pid` of this host is there and runs.
pub fn runs(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|s| s.runs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn our_own_line_is_true() {
        let me = Stat::of(std::process::id()).unwrap();
        assert!(me.pid == std::process::id() && me.runs() && me.began > 0);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = Command::new("true").spawn().unwrap();
        crate::wait::wait_until(
            "see it end",
            crate::wait::Deadline::after(Duration::from_secs(10)),
            || {
                Ok(match Stat::of(child.id()).unwrap() {
                    s if s.runs() => crate::wait::Probe::NotYet(s.state.to_string()),
                    _ => crate::wait::Probe::Ready(()),
                })
            },
        )
        .unwrap();
        assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists());
        child.wait().unwrap();
        assert!(!runs(child.id()));
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) Z (b) S 1 7 0 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 99 0 0\n";
        let s = Stat::parse(line).unwrap();
        assert_eq!((s.pid, s.state, s.session, s.ticks, s.began), (7, 'S', 0, 7, 99));
        for bad in ["", "x (a) S", "42 (a", "42 (a) S 1 2"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn anything_else_is_none(text in ".{0,200}") {
            if let Some(s) = Stat::parse(&text) {
                prop_assert!(text.starts_with(|c: char| c.is_ascii_digit() || c == '+'), "{s:?}");
            }
        }
    }
}
