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

fn judge(e: &Evidence<'_>, what: &Pattern, verdict: impl FnOnce(Seen) -> Finding) -> Finding {
    match Bounds::of(e, what) {
        Err(why) => Finding::unknown(why),
        Ok(bounds) => verdict(bounds.seen(e, what)),
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
    fn of(e: &'a Evidence<'_>, what: &'a Pattern) -> Result<Self, String> {
        let marks = &e.history.marks;
        let mark = |label: &str| {
            let found = marks.iter().find(|m| m.label.as_deref() == Some(label));
            found.ok_or_else(|| format!("the step `{label}` was never begun"))
        };
        let during = what.during.as_ref();
        let from = during.and_then(|d| d.from.as_deref()).map(mark).transpose()?;
        let to = during.and_then(|d| d.to.as_deref()).map(mark).transpose()?;
        let node = what
            .on
            .as_deref()
            .map(|on| machine(e, on, from.or(marks.last())))
            .transpose()?;
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
