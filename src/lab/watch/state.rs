//! What is known of one node, and what of it counts. Pure: times come in, in microseconds since the journal began.

use super::{Limits, Said};
use crate::error::Problem;
use crate::verify::Moment;
use ccr_contract::status::Status;
use std::collections::VecDeque;

/// Marks that are remembered: one for each look that needed one, while what they say of later lines matters.
const MARKS: usize = 16;

/// A reading of the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// When it began.
    pub host_us: u64,
    /// The node's boot-time clock had not gone beyond this when it began.
    pub node_us: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The pack has none, or nobody began it.
    #[default]
    None,
    /// Nothing came yet.
    Begins { since_us: u64 },
    /// Lines come; the last one came then. None yet where it goes on from an earlier session.
    Goes { line_us: Option<u64> },
    /// It ended, and will be begun again.
    Broken,
}

#[derive(Debug)]
struct Failure {
    begun_us: u64,
    at_us: u64,
    problem: Problem,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct State {
    phase: Phase,
    newest: Option<Said>,
    failure: Option<Failure>,
    marks: VecDeque<Mark>,
    /// Lines that are stamped before this were so before anybody listened: of an earlier session, or of another past of the machine.
    floor_us: u64,
    /// Counts what makes earlier answers void.
    era: u64,
}

/// What a look does.
#[derive(Debug)]
pub(super) enum Next {
    /// This is so.
    Use(Box<Said>),
    /// It did not answer, a moment ago.
    Fail(Problem),
    /// Its watch was just begun: a first line is waited for until then.
    WaitUntil(u64),
    /// It is asked.
    Ask,
}

impl State {
    /// A watch is begun; false where there is one.
    pub fn begins(&mut self, now: u64) -> bool {
        if matches!(self.phase, Phase::Begins { .. } | Phase::Goes { .. }) {
            return false;
        }
        self.phase = Phase::Begins { since_us: now };
        true
    }

    /// From here on lines count.
    pub fn listens(&mut self, mark: Mark) {
        self.floor_us = mark.node_us;
        self.marks.clear();
        self.mark(mark);
    }

    /// It was begun in an earlier session, and goes on: a change will be told, and what is so now was told before.
    pub fn goes_on(&mut self) {
        self.phase = Phase::Goes { line_us: None };
    }

    /// A line of the watch; whether it counts.
    pub fn line(&mut self, status: Status, now: u64) -> bool {
        let Some(stamp) = status.node_t_us.filter(|t| *t >= self.floor_us) else {
            return false;
        };
        let Some(after_us) = self.after(stamp) else {
            return false;
        };
        self.phase = Phase::Goes { line_us: Some(now) };
        // An answer to a question may have overtaken it.
        if self.newest.as_ref().is_none_or(|(s, _)| s.node_t_us <= Some(stamp)) {
            let heard_us = now;
            self.newest = Some((status, Moment { after_us, heard_us }));
            self.failure = None;
        }
        true
    }

    /// The latest instant after which what is stamped like this was so.
    fn after(&self, stamp: u64) -> Option<u64> {
        let before = self.marks.iter().filter(|m| m.node_us <= stamp);
        before.map(|m| m.host_us).max()
    }

    /// The node's clock was read.
    pub fn mark(&mut self, mark: Mark) {
        self.marks.push_back(mark);
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
        if let Some((status, moment)) = &mut self.newest
            && status.node_t_us >= Some(mark.node_us)
        {
            moment.after_us = moment.after_us.max(mark.host_us);
        }
    }

    /// An answer to a question that was begun at `begun_us`, in that era.
    pub fn answered(&mut self, status: &Status, begun_us: u64, now: u64, era: u64) {
        if era != self.era {
            return;
        }
        let newer = match (&self.newest, status.node_t_us) {
            (Some((line, _)), Some(stamp)) => line.node_t_us.is_none_or(|t| t < stamp),
            _ => true,
        };
        if let Some(node_us) = status.node_t_us {
            // The node took its stamp after it was asked.
            let host_us = begun_us;
            self.mark(Mark { host_us, node_us });
        }
        if newer {
            let moment = Moment {
                after_us: begun_us,
                heard_us: now,
            };
            self.newest = Some((status.clone(), moment));
        }
        self.failure = None;
    }

    /// A question that was begun at `begun_us`, in that era, has no answer.
    pub fn failed(&mut self, begun_us: u64, now: u64, problem: Problem, era: u64) {
        if era != self.era || self.newest.as_ref().is_some_and(|(_, m)| m.heard_us > begun_us) {
            return;
        }
        self.newest = None;
        self.failure = Some(Failure {
            begun_us,
            at_us: now,
            problem,
        });
    }

    /// The watch that was begun at `begun_us` ended: what it told is not known to be so any more.
    pub fn broke(&mut self, begun_us: u64, now: u64, problem: Problem) {
        self.void();
        self.phase = Phase::Broken;
        self.failure = Some(Failure {
            begun_us,
            at_us: now,
            problem,
        });
    }

    /// What was said before is not so any more.
    pub fn void(&mut self) {
        self.era += 1;
        (self.newest, self.failure) = (None, None);
    }

    /// Of the answers that are waited for.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Whether the watch told something a moment ago, and is likely to tell more.
    pub fn talks(&self, now: u64, limits: &Limits) -> bool {
        matches!(self.phase, Phase::Goes { line_us: Some(us) } if now.saturating_sub(us) <= limits.talk_us)
    }

    /// What a look does that wants what was so after `since`; `shaken` is when something last happened to the cluster or the service.
    pub fn next(&self, since: Option<u64>, now: u64, shaken: u64, limits: &Limits) -> Next {
        if let Some(said) = &self.newest
            && since.is_none_or(|since| said.1.after_us >= since)
            && self.stands(said.1, now, shaken, limits)
        {
            return Next::Use(Box::new(said.clone()));
        }
        if let Some(f) = &self.failure
            && since.is_none_or(|since| f.begun_us >= since)
            && now.saturating_sub(f.at_us) <= limits.failed_us
        {
            return Next::Fail(f.problem.clone());
        }
        match self.phase {
            Phase::Begins { since_us } if now < since_us + limits.first_us => {
                Next::WaitUntil(since_us + limits.first_us)
            }
            _ => Next::Ask,
        }
    }

    fn stands(&self, said: Moment, now: u64, shaken: u64, limits: &Limits) -> bool {
        let age = now.saturating_sub(said.heard_us);
        if matches!(self.phase, Phase::Goes { .. }) {
            return age <= limits.stale_us;
        }
        // Nobody would tell of a change.
        age <= limits.least_us || (age <= limits.ask_us && shaken <= said.heard_us)
    }
}

/// How many lines a watch may tell: a few seconds' worth at once, for they may have waited on their way.
#[derive(Debug)]
pub(super) struct Pace {
    credit: f64,
    at_us: Option<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            credit: Self::AT_ONCE,
            at_us: None,
        }
    }
}

impl Pace {
    /// Lines a second: twice what the contract allows.
    pub const MOST: u32 = 8;
    /// More than the agent keeps of a watch that nobody hears.
    const AT_ONCE: f64 = 1500.0;

    /// Whether one more is allowed.
    pub fn allows(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.at_us.replace(now).unwrap_or(now));
        let earned = passed as f64 / 1e6 * f64::from(Self::MOST);
        self.credit = (self.credit + earned).min(Self::AT_ONCE) - 1.0;
        self.credit >= 0.0
    }
}
