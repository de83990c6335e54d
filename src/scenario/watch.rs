//! What must be true for a time, and what must be true at least once: both are judged by every look.

use super::statement::Statement;
use super::truth::Truth;
use crate::verify::{Check, Verdict};

/// Something that must be true in every look from its beginning to its end.
#[derive(Debug)]
pub(super) struct Watch {
    pub what: Statement,
    /// By which it is released.
    pub label: Option<String>,
    begin_us: u64,
    /// When it ends; open where it is not known yet.
    pub end_us: Option<u64>,
    /// When it was certainly so for the last time.
    sure_us: u64,
    /// The longest time in which nobody could say.
    hole: (u64, u64),
    looks: usize,
    /// When it was not so, and what was seen.
    broken: Option<(u64, String)>,
}

impl Watch {
    pub fn new(what: Statement, label: Option<String>, begin_us: u64, end_us: Option<u64>) -> Self {
        Self {
            what,
            label,
            begin_us,
            end_us,
            sure_us: begin_us,
            hole: (begin_us, begin_us),
            looks: 0,
            broken: None,
        }
    }

    /// Whether a look at this time is its business.
    pub fn covers(&self, t_us: u64) -> bool {
        self.broken.is_none() && t_us >= self.begin_us && self.end_us.is_none_or(|end| t_us <= end)
    }

    /// What a look tells.
    pub fn see(&mut self, t_us: u64, truth: Truth, shown: &str) {
        match truth {
            Truth::Yes => {
                self.sure(t_us);
                self.looks += 1;
            }
            Truth::No => self.broken = Some((t_us, shown.to_owned())),
            Truth::Unknown => {}
        }
    }

    fn sure(&mut self, t_us: u64) {
        if t_us.saturating_sub(self.sure_us) > self.hole.1 - self.hole.0 {
            self.hole = (self.sure_us, t_us);
        }
        self.sure_us = self.sure_us.max(t_us);
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// What can be said of it at its end; `hole_us` is the longest time in which nobody has to be able to say.
    pub fn verdict(mut self, now_us: u64, hole_us: u64) -> (Verdict, String) {
        let s = |us: u64| us as f64 / 1e6;
        if let Some((t_us, shown)) = self.broken {
            return (Verdict::Fail, format!("at {:.3} s: {shown}", s(t_us)));
        }
        let end_us = self.end_us.map_or(now_us, |end| end.min(now_us));
        self.sure(end_us);
        let (from, to) = self.hole;
        if to - from > hole_us {
            let text = format!("nobody could say from {:.3} s to {:.3} s", s(from), s(to));
            return (Verdict::Unknown, text);
        }
        let (looks, from) = (self.looks, self.begin_us);
        let text = format!("in each of {looks} looks from {:.3} s to {:.3} s", s(from), s(end_us));
        (Verdict::Pass, text)
    }

    /// The same as a check of the scenario.
    pub fn check(self, now_us: u64, hole_us: u64) -> Check {
        let text = self.what.to_string();
        let id = format!("holds {}", self.label.as_deref().unwrap_or(&text));
        let (verdict, detail) = self.verdict(now_us, hole_us);
        Check {
            id,
            text,
            verdict,
            detail,
        }
    }
}

/// Something that must be true in one look at least.
#[derive(Debug)]
pub(super) struct Sometimes {
    pub what: Statement,
    /// When it was so, and what was seen.
    met: Option<(u64, String)>,
    /// Whether a look could say that it is not so.
    decided: bool,
}

impl Sometimes {
    pub fn new(what: Statement) -> Self {
        Self {
            what,
            met: None,
            decided: false,
        }
    }

    pub fn is_met(&self) -> bool {
        self.met.is_some()
    }

    /// What a look tells.
    pub fn see(&mut self, t_us: u64, truth: Truth, shown: String) {
        self.decided |= truth == Truth::No;
        if truth.is_yes() {
            self.met.get_or_insert((t_us, shown));
        }
    }

    /// What can be said of it when all is over; of a run that is not `whole`, that it never came true says nothing.
    pub fn check(&self, whole: bool) -> Check {
        let (verdict, detail) = match &self.met {
            Some((t_us, shown)) => (Verdict::Pass, format!("at {:.3} s: {shown}", *t_us as f64 / 1e6)),
            None if whole && self.decided => (Verdict::Fail, "no look showed it".to_owned()),
            None if whole => (Verdict::Unknown, "nobody could ever say".to_owned()),
            None => (Verdict::Unknown, "no look showed it as far as the run came".to_owned()),
        };
        Check {
            id: format!("sometimes {}", self.what),
            text: format!("{} at least once", self.what),
            verdict,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Expectation;
    use proptest::prelude::*;

    const S: u64 = 1_000_000;

    fn what() -> Statement {
        Statement::State(Expectation::HEALTHY)
    }

    fn judged(looks: &[(u64, Truth)], end: Option<u64>, now: u64) -> Verdict {
        let mut watch = Watch::new(what(), None, 0, end);
        for (t, truth) in looks {
            if watch.covers(*t) {
                watch.see(*t, *truth, "x");
            }
        }
        watch.verdict(now, 5 * S).0
    }

    #[test]
    fn one_look_in_which_it_is_not_so_fails_and_a_time_without_looks_is_unknown() {
        use Truth::{No, Unknown, Yes};
        let every = |truth| (0..20).map(|t| (t * S, truth)).collect::<Vec<_>>();
        assert_eq!(judged(&every(Yes), None, 20 * S), Verdict::Pass);
        let mut once = every(Yes);
        once[9].1 = No;
        assert_eq!(judged(&once, None, 20 * S), Verdict::Fail);
        // Behind its end it may be as it likes.
        assert_eq!(judged(&once, Some(8 * S), 20 * S), Verdict::Pass);
        let mut silent = every(Yes);
        silent[9..13].iter_mut().for_each(|l| l.1 = Unknown);
        assert_eq!(judged(&silent, None, 20 * S), Verdict::Pass, "a moment of silence");
        silent[9..16].iter_mut().for_each(|l| l.1 = Unknown);
        assert_eq!(judged(&silent, None, 20 * S), Verdict::Unknown);
        // Nobody looked at first, at last, ever.
        assert_eq!(judged(&every(Yes)[6..], None, 20 * S), Verdict::Unknown);
        assert_eq!(judged(&every(Yes), None, 25 * S), Verdict::Unknown);
        assert_eq!(judged(&[], None, 20 * S), Verdict::Unknown);
        assert_eq!(judged(&every(Unknown), None, 20 * S), Verdict::Unknown);
    }

    proptest! {
        #[test]
        fn no_pass_hides_a_look_or_a_hole(looks in proptest::collection::vec((0u64..4 * S, 0u8..8), 0..30)) {
            let mut t = 0;
            let looks: Vec<(u64, Truth)> = looks.into_iter().map(|(gap, truth)| {
                t += gap;
                let truth = match truth { 0 => Truth::No, 1 | 2 => Truth::Unknown, _ => Truth::Yes };
                (t, truth)
            }).collect();
            let verdict = judged(&looks, None, t);
            let broken = looks.iter().any(|(_, truth)| *truth == Truth::No);
            prop_assert_eq!(verdict == Verdict::Fail, broken);
            let mut sure: Vec<u64> = looks.iter().filter(|(_, truth)| truth.is_yes()).map(|(t, _)| *t).collect();
            sure.insert(0, 0);
            sure.push(t);
            let hole = sure.windows(2).any(|w| w[1] - w[0] > 5 * S);
            prop_assert_eq!(verdict == Verdict::Unknown, !broken && hole);
        }
    }

    #[test]
    fn once_is_enough_and_never_is_a_failure_where_somebody_could_say() {
        let seen = |truths: &[Truth], whole| {
            let mut once = Sometimes::new(what());
            truths.iter().for_each(|t| once.see(S, *t, String::new()));
            once.check(whole).verdict
        };
        use Truth::{No, Unknown, Yes};
        assert_eq!(seen(&[No, Yes, No], false), Verdict::Pass);
        assert_eq!(seen(&[No, Unknown], true), Verdict::Fail);
        assert_eq!(seen(&[Unknown], true), Verdict::Unknown);
        assert_eq!(seen(&[No], false), Verdict::Unknown);
    }
}
