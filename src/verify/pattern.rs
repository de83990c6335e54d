//! What is forbidden, required or must happen at least once: events of a run, by kind, machine and time.

use super::evidence::Evidence;
use super::finding::Finding;
use super::judge::Gathered;
use super::{BadJournal, Check, Forbidden, Mark, Pattern, single};
use crate::event::Event;

/// Something must not be seen.
pub(super) fn unseen(what: &Pattern, evidence: &Gathered<'_>) -> Check {
    let found = match evidence {
        Err(BadJournal(why)) => Finding::unknown(why),
        Ok(e) => match &what.what {
            Forbidden::SplitBrain => single::split_brain(e),
            _ => judge(e, what, |seen| match seen {
                Seen::Certain(what) => Finding::fail(what),
                Seen::Perhaps(what) => Finding::unknown(what),
                Seen::Never => none_seen(e),
            }),
        },
    };
    check("forbid", format!("no {what}"), what, found)
}

/// Without it nothing can be said.
pub(super) fn required(what: &Pattern, evidence: &Gathered<'_>) -> Check {
    let found = match evidence {
        Err(BadJournal(why)) => Finding::unknown(why),
        Ok(e) => judge(e, what, |seen| match seen {
            Seen::Certain(what) => Finding::pass(what),
            Seen::Perhaps(what) => Finding::unknown(what),
            Seen::Never => Finding::unknown("it never happened"),
        }),
    };
    check("require", format!("{what} happened"), what, found)
}

/// It must happen at least once; of a run that is not `whole`, that it did not says nothing.
pub(super) fn sometimes(what: &Pattern, evidence: &Gathered<'_>, whole: bool) -> Check {
    let found = match evidence {
        Err(BadJournal(why)) => Finding::unknown(why),
        Ok(e) => judge(e, what, |seen| match seen {
            Seen::Certain(what) => Finding::pass(what),
            Seen::Perhaps(what) => Finding::unknown(what),
            Seen::Never if whole => Finding::fail("it never happened"),
            Seen::Never => Finding::unknown("it did not happen as far as the run came, or was seen"),
        }),
    };
    check("sometimes", format!("{what} happens"), what, found)
}

fn check(verb: &str, text: String, what: &Pattern, found: Finding) -> Check {
    Check {
        id: format!("{verb} {what}"),
        text,
        verdict: found.verdict,
        detail: found.detail,
    }
}

/// What of a pattern a run has.
enum Seen {
    /// It happened.
    Certain(String),
    /// Something happened that may be it.
    Perhaps(String),
    /// Nothing did.
    Never,
}

impl Seen {
    /// What either time has.
    fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Seen::Certain(_), _) | (Seen::Perhaps(_), Seen::Perhaps(_) | Seen::Never) => self,
            _ => other,
        }
    }
}

fn judge(e: &Evidence<'_>, what: &Pattern, verdict: impl FnOnce(Seen) -> Finding) -> Finding {
    let (mut seen, mut open) = (Seen::Never, None);
    for bounds in Bounds::all(e, what) {
        match bounds {
            Ok(bounds) => seen = seen.or(bounds.seen(e, what)),
            Err(why) => open = open.or(Some(why)),
        }
    }
    match (seen, open) {
        (seen @ Seen::Certain(_), _) | (seen, None) => verdict(seen),
        (_, Some(why)) => Finding::unknown(why),
    }
}

/// A time and a machine, as a run had them.
struct Bounds<'a> {
    from_us: u64,
    to_us: u64,
    node: Option<&'a str>,
}

/// Where an instant lies that is known with an error.
#[derive(PartialEq)]
enum Side {
    Inside,
    Edge,
    Outside,
}

impl<'a> Bounds<'a> {
    /// One for every time that the step which it begins with was begun: a `repeat` begins its steps once a round. Or why one is not
    /// known.
    fn all(e: &'a Evidence<'_>, what: &'a Pattern) -> Vec<Result<Self, String>> {
        let marks = e.history.marks.as_slice();
        let is = |m: &Mark, label: &str| m.label.as_deref() == Some(label);
        let never = |label: &str| format!("the step `{label}` was never begun");
        let during = what.during.as_ref();
        let to = during.and_then(|d| d.to.as_deref());
        let Some(label) = during.and_then(|d| d.from.as_deref()) else {
            // To the last round.
            let to = to.map(|to| marks.iter().rfind(|m| is(m, to)).ok_or_else(|| never(to)));
            return vec![to.transpose().and_then(|to| Self::of(e, what, None, to))];
        };
        let begun = marks.iter().enumerate().filter(|(_, m)| is(m, label));
        let all: Vec<_> = begun
            .map(|(i, from)| {
                let to = to.map(|to| marks[i + 1..].iter().find(|m| is(m, to)).ok_or_else(|| never(to)));
                to.transpose().and_then(|to| Self::of(e, what, Some(from), to))
            })
            .collect();
        if all.is_empty() { vec![Err(never(label))] } else { all }
    }

    fn of(e: &'a Evidence<'_>, what: &'a Pattern, from: Option<&'a Mark>, to: Option<&Mark>) -> Result<Self, String> {
        let last = e.history.marks.last();
        let node = what.on.as_deref().map(|on| machine(e, on, from.or(last))).transpose()?;
        Ok(Self {
            // What was before the run is left out below.
            from_us: from.map_or(0, |m| m.begin_us),
            to_us: to.map_or(u64::MAX, |m| m.begin_us),
            node,
        })
    }

    fn side(&self, t_us: u64, skew_us: u64) -> Side {
        let (earliest, latest) = (t_us.saturating_sub(skew_us), t_us.saturating_add(skew_us));
        if earliest >= self.to_us || latest < self.from_us {
            Side::Outside
        } else if earliest >= self.from_us && latest < self.to_us {
            Side::Inside
        } else {
            Side::Edge
        }
    }

    fn seen(&self, e: &Evidence<'_>, what: &Pattern) -> Seen {
        let mut perhaps = None;
        for (node, t_us, skew_us, text) in happened(e, &what.what) {
            if self.node.is_some_and(|n| node != Some(n)) {
                continue;
            }
            match self.side(t_us, skew_us) {
                Side::Inside => return Seen::Certain(text),
                Side::Edge => {
                    perhaps.get_or_insert(format!("{text}, which may be before or behind the time that is meant"));
                }
                Side::Outside => {}
            }
        }
        perhaps.map_or(Seen::Never, Seen::Perhaps)
    }
}

/// The machine that a word of the scenario means.
fn machine<'a>(e: &'a Evidence<'_>, on: &'a str, mark: Option<&'a Mark>) -> Result<&'a str, String> {
    let role = mark.and_then(|m| m.nodes.get(on)).map(String::as_str);
    let named = || {
        let names = e.context.members.iter().chain(&e.context.hubs).map(String::as_str);
        names.into_iter().find(|n| *n == on)
    };
    role.or_else(named).ok_or_else(|| format!("no machine was `{on}` then"))
}

/// Every time that something of this kind happened in the run: on which machine, when, how far that may be off, and in words.
fn happened<'a>(e: &'a Evidence<'_>, what: &'a Forbidden) -> Vec<(Option<&'a str>, u64, u64, String)> {
    if *what == Forbidden::RoleChange {
        let words = |t: &'a super::Takeover| {
            let text = format!("{} took over in epoch {}", t.node, t.epoch);
            (Some(t.node.as_str()), t.t_us, t.skew_us, text)
        };
        return e.takeovers.iter().map(words).collect();
    }
    let of_the_run = e.history.events.iter().filter(|event| event.t_us >= e.history.from_us);
    let told = of_the_run.filter(|event| what.is_told_by(event));
    told.map(|event| {
        (
            event.node.as_deref(),
            event.t_us,
            event.skew_us.unwrap_or(0),
            words(event),
        )
    })
    .collect()
}

fn words(event: &Event) -> String {
    let (kind, node) = (&event.kind, event.node.as_deref().unwrap_or("the tool"));
    format!("{kind} on {node} at {:.3} s", event.t_us as f64 / 1e6)
}

/// Not having seen something means nothing where no look was taken.
fn none_seen(e: &Evidence<'_>) -> Finding {
    if e.history.observations.iter().all(|o| o.statuses().next().is_none()) {
        Finding::unknown("no node was ever seen")
    } else {
        Finding::pass("not seen")
    }
}
