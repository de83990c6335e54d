//! The right to serve, and what this node promised to the other one.
//!
//! A lease runs from the *beginning* of a round trip to a second voter: from the sending of a heartbeat that the other
//! member answered with a grant, or from the beginning of a good beat on the held witness file. It counts as expired when
//! the boot-time clock or the real-time clock says so, or when the two disagree by more than a second since the renewal:
//! then the machine was paused, or a clock was set, and how much time really passed is not known.

use crate::io::Now;

/// Two clocks that disagree by more than this since a renewal end the lease.
pub const MAX_DISAGREEMENT_US: u64 = 1_000_000;
/// Longest pause that the two clocks cannot show: the disagreement allowed, and the RTC's resolution of a second.
pub const MAX_UNSEEN_PAUSE_US: u64 = 2_000_000;

/// Where a right to serve comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The other member granted it.
    Member,
    /// The witness file is held.
    Witness,
}

/// The leases of this node.
#[derive(Debug, Default)]
pub struct Lease {
    member: Option<Now>,
    witness: Option<Now>,
    /// A planted bug: only the boot-time clock is looked at.
    pub(super) boot_clock_only: bool,
}

impl Lease {
    /// A round trip to `source` that began at `begun` has ended well.
    pub fn renew(&mut self, source: Source, begun: Now) {
        let slot = match source {
            Source::Member => &mut self.member,
            Source::Witness => &mut self.witness,
        };
        if slot.is_none_or(|at| at.boot_us < begun.boot_us) {
            *slot = Some(begun);
        }
    }
    /// The source cannot be relied on any more.
    pub fn drop_source(&mut self, source: Source) {
        match source {
            Source::Member => self.member = None,
            Source::Witness => self.witness = None,
        }
    }
    /// Whether a round trip to this source counts, or did until its time was over.
    pub fn rests_on(&self, source: Source) -> bool {
        match source {
            Source::Member => self.member.is_some(),
            Source::Witness => self.witness.is_some(),
        }
    }
    /// Nothing gives a right to serve any more.
    pub fn end(&mut self) {
        (self.member, self.witness) = (None, None);
    }
    /// Whether this node may serve now.
    pub fn valid(&self, now: Now, member_us: u64, witness_us: u64) -> bool {
        let now = |at: Option<Now>| match at {
            Some(at) if self.boot_clock_only => Now {
                boot_us: now.boot_us,
                rtc_us: at.rtc_us + now.boot_us.saturating_sub(at.boot_us),
            },
            _ => now,
        };
        runs(self.member, now(self.member), member_us) || runs(self.witness, now(self.witness), witness_us)
    }
    /// Whether the other member's grant alone allows it.
    pub fn by_member(&self, now: Now, member_us: u64) -> bool {
        runs(self.member, now, member_us)
    }
    /// The boot-time instant at which the longest lease ends.
    pub fn ends(&self, member_us: u64, witness_us: u64) -> Option<u64> {
        let member = self.member.map(|at| at.boot_us + member_us);
        member.max(self.witness.map(|at| at.boot_us + witness_us))
    }
}

fn runs(renewed: Option<Now>, now: Now, len_us: u64) -> bool {
    let Some(at) = renewed else { return false };
    let boot = now.boot_us.saturating_sub(at.boot_us);
    let Some(rtc) = now.rtc_us.checked_sub(at.rtc_us) else {
        // The RTC went backwards: less than its resolution may be noise, more is not.
        return boot <= len_us && at.rtc_us - now.rtc_us + boot <= MAX_DISAGREEMENT_US;
    };
    boot <= len_us && rtc <= len_us + MAX_DISAGREEMENT_US && rtc.abs_diff(boot) <= MAX_DISAGREEMENT_US
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot_ms: u64, rtc_ms: u64) -> Now {
        Now {
            boot_us: boot_ms * 1000,
            rtc_us: rtc_ms * 1000,
        }
    }

    #[test]
    fn ends_by_boot_time() {
        let mut l = Lease::default();
        assert!(!l.valid(now(0, 0), 4_500_000, 2_000_000));
        l.renew(Source::Member, now(1000, 9000));
        assert!(l.valid(now(5500, 13_000), 4_500_000, 2_000_000));
        assert!(!l.valid(now(5501, 13_000), 4_500_000, 2_000_000));
    }

    #[test]
    fn ends_by_a_pause_that_only_the_rtc_saw() {
        let mut l = Lease::default();
        l.renew(Source::Member, now(1000, 9000));
        assert!(!l.valid(now(1100, 60_000), 4_500_000, 2_000_000));
        assert!(!l.valid(now(1100, 10_500), 4_500_000, 2_000_000), "1.4 s apart");
        assert!(
            !l.valid(now(4000, 9000), 4_500_000, 2_000_000),
            "the RTC stood still or was set"
        );
        assert!(!l.valid(now(1100, 1000), 4_500_000, 2_000_000), "the RTC was set back");
    }

    #[test]
    fn an_older_round_trip_does_not_shorten_it() {
        let mut l = Lease::default();
        l.renew(Source::Witness, now(5000, 5000));
        l.renew(Source::Witness, now(4000, 4000));
        assert!(l.valid(now(6900, 7000), 4_500_000, 2_000_000));
    }
}
