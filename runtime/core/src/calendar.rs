//! Dates: what a second since 1970 is called, in universal time.

/// A second, in universal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc {
    /// The year.
    pub year: u64,
    /// The month, 1 to 12.
    pub month: u64,
    /// The day of the month, from 1.
    pub day: u64,
    /// Days since Thursday, 0 to 6.
    since_thursday: u64,
    /// Second of the day.
    second: u64,
}

impl Utc {
    /// So many seconds after the beginning of 1970.
    pub fn of(unix_s: u64) -> Self {
        let days = unix_s / 86_400;
        // Years from March on, counted from the year 0: a leap day is the last one of its year.
        let z = days + 719_468;
        let (era, day) = (z / 146_097, z % 146_097);
        let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        Self {
            year: era * 400 + year_of_era + u64::from(month >= 10),
            month: (month + 2) % 12 + 1,
            day: day_of_year - (153 * month + 2) / 5 + 1,
            since_thursday: days % 7,
            second: unix_s % 86_400,
        }
    }

    /// `Wed, 28 Feb 2007 23:44:05 +0000` (RFC 5322 3.3).
    pub fn rfc5322(&self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (weekday, month) = (DAYS[self.since_thursday as usize], MONTHS[self.month as usize - 1]);
        format!("{weekday}, {} {month} {} {} +0000", self.day, self.year, self.time())
    }

    /// `2007-02-28 23:44:05`.
    pub fn plain(&self) -> String {
        format!("{}-{:02}-{:02} {}", self.year, self.month, self.day, self.time())
    }

    fn time(&self) -> String {
        let s = self.second;
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix_s, written) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_796_079_906, "Mon, 30 Nov 2026 23:05:06 +0000"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!(Utc::of(unix_s).rfc5322(), written);
        }
        assert_eq!(Utc::of(1_172_706_245).plain(), "2007-02-28 23:44:05");
    }
}
