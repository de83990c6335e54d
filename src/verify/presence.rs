//! Proof of presence: a verdict that rests on not having seen something is worth as much as the looking was.
//!
//! The networks worked all the time, every event arrived, and a node served whenever one could.

use super::evidence::Evidence;
use super::{Check, FaultRecord, Forbidden, History, InvariantId, InvariantReport, Observation, SLACK, Verdict};
use crate::event::{Event, RuntimeEvent, kind};
use ccr_contract::event::EventKind;
use ccr_contract::status::Intent;

/// How many failovers a cluster service may take to restart: it stays away until the other member has looked for a majority in vain.
const RESTART: u64 = 2;

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn unknown(id: &str, text: &str, detail: String) -> Check {
    Check {
        id: id.to_owned(),
        text: text.to_owned(),
        verdict: Verdict::Unknown,
        detail,
    }
}

/// While there was no supervisor, no network forwards anything: what happened then is the tool's fault.
///
/// Every look carries it as a state; that a client met no supervisor is a second witness.
pub(super) fn network_outages(history: &History) -> Option<Check> {
    let looks = history.observations.iter().flat_map(|o| &o.network_outages);
    let looked = looks.filter(|(_, to)| *to >= history.from_us).min().map(|(from, to)| {
        let (from, to) = (seconds(*from), seconds(*to));
        format!("the networks were dark from {from:.3} s to {to:.3} s: the lab's supervisor had died")
    });
    let told = || {
        let mut events = history.events.iter().filter(|e| e.t_us >= history.from_us);
        events.find_map(|e| match e.kind.as_str() {
            kind::ADOPTED => Some(format!(
                "a new supervisor adopted the machines at {:.3} s",
                seconds(e.t_us)
            )),
            kind::SUPERVISOR_GONE => Some(format!("the lab's supervisor was gone at {:.3} s", seconds(e.t_us))),
            _ => None,
        })
    };
    let detail = looked.or_else(told)?;
    Some(unknown("networks", "the networks were never dark", detail))
}

/// What the darkness itself may have brought about is not the runtime's failure: it is unknown. That two served, or that something was
/// lost, is a failure whatever the networks did.
pub(super) fn not_theirs(checks: &mut [Check], invariants: &mut [InvariantReport]) {
    let split_brain = format!("forbid {}", Forbidden::SplitBrain.word());
    let checks = checks.iter_mut().filter(|c| !c.id.starts_with(&split_brain));
    let by_time = [InvariantId::I8, InvariantId::I9, InvariantId::I11].map(InvariantId::word);
    let late = invariants.iter_mut().filter(|i| by_time.contains(&i.id.as_str()));
    let verdicts = checks
        .map(|c| (&mut c.verdict, &mut c.detail))
        .chain(late.map(|i| (&mut i.verdict, &mut i.detail)));
    for (verdict, detail) in verdicts.filter(|(v, _)| **v == Verdict::Fail) {
        *verdict = Verdict::Unknown;
        detail.push_str("; but the networks were dark");
    }
}

/// Whether something that was not seen may be among events that never arrived.
pub fn is_missing_events(history: &History) -> bool {
    events(history).is_some()
}

/// Events that never arrived, or that are not understood: what was not seen may have been among them.
pub(super) fn events(history: &History) -> Option<Check> {
    let gaps = history
        .events
        .iter()
        .filter(|e| e.kind == kind::GAP && e.t_us >= history.from_us);
    let gaps = gaps.map(|e| {
        let of = e.node.as_deref().unwrap_or("the lab's journal");
        format!(
            "events {} to {} of {of} at {:.3} s",
            e.data["from"],
            e.data["to"],
            seconds(e.t_us)
        )
    });
    let gaps = gaps.chain(history.missing.iter().cloned());
    let told = history.events.iter().filter(|e| e.t_us >= history.from_us);
    let garbled = told.filter_map(Event::runtime_event).filter(|t| t.what.is_garbled());
    let garbled = garbled.map(|t| {
        let (kind, at) = (t.what.name(), seconds(t.event.t_us));
        format!("what {kind} of {} at {at:.3} s says", t.node)
    });
    let missing: Vec<String> = gaps.chain(garbled).collect();
    let first = missing.first()?;
    let detail = match missing.len() - 1 {
        0 => format!("missing: {first}"),
        more => format!("missing: {first}; and {more} more"),
    };
    Some(unknown("events", "every event arrived", detail))
}

/// A service that no node had for longer than a failover may take, though a majority was there.
///
/// Looks, answers of the store and the members' events say that a node had it. Quiet for a lab without members.
pub(super) fn served(e: &Evidence<'_>) -> Option<Check> {
    const TEXT: &str = "somebody served whenever somebody could";
    let looks: Vec<&Observation> = e
        .history
        .observations
        .iter()
        .filter(|o| o.t_us >= e.history.from_us)
        .collect();
    let had = had(e, &looks);
    let end = looks.last()?.t_us.max(*had.last()?);
    let limits = e.context.limits;
    let limit = limits.detect.duration() + limits.arbitrate.duration() + limits.mount.duration();
    let allowed_us = e.context.slowness.scale(limit).as_micros() as u64;
    let judge = Judge {
        e,
        looks: &looks,
        allowed_us,
        restarts: restarts(e, RESTART * allowed_us),
    };
    let ends = had.iter().copied().skip(1).chain([end]);
    let gaps = had
        .iter()
        .copied()
        .zip(ends)
        .filter(|(from, to)| to - from > allowed_us);
    let found = gaps
        .flat_map(|(from, to)| judge.parts(from, to))
        .filter_map(|(from, to)| judge.part(from, to));
    let (verdict, detail) = found.reduce(|a, b| {
        if b.0 == Verdict::Fail && a.0 != Verdict::Fail {
            b
        } else {
            a
        }
    })?;
    Some(Check {
        verdict,
        ..unknown("service", TEXT, detail)
    })
}

/// The moments at which a node certainly had the service.
fn had(e: &Evidence<'_>, looks: &[&Observation]) -> Vec<u64> {
    // What was heard before the look may be over by then.
    let heard = |o: &Observation| {
        let said = o.serving().map(|(_, v)| v.moment.map_or(o.t_us, |m| m.heard_us));
        said.max()
    };
    let looked = looks.iter().filter_map(|o| heard(o));
    let answered = e
        .ops
        .iter()
        .filter(|o| o.store_answer().is_some())
        .filter_map(|o| o.end_us);
    let online = |t: &&RuntimeEvent<'_>| matches!(t.what, EventKind::Online { .. } | EventKind::PartiallyOnline { .. });
    let online = e.runtime_events().filter(online).map(|t| t.event.t_us);
    let mut had: Vec<u64> = looked
        .chain(answered)
        .chain(online)
        .filter(|t| *t >= e.history.from_us)
        .collect();
    had.sort_unstable();
    had
}

/// When the cluster service of a member restarted, by what the member told: its daemon answers, and it has no vote.
///
/// It is over when the member belongs to a cluster again, and after `most_us` whatever it told: a restart that hangs is no excuse.
fn restarts<'a>(e: &'a Evidence<'_>, most_us: u64) -> Vec<(&'a str, u64, u64)> {
    let is_back = |t: &RuntimeEvent<'_>| {
        matches!(
            t.what,
            EventKind::ClusterFormed { .. } | EventKind::ClusterJoined { .. }
        )
    };
    let begun = e
        .runtime_events()
        .filter(|t| matches!(t.what, EventKind::Restarting { .. }));
    let restart = |begin: &'a RuntimeEvent<'_>| {
        let from = begin.event.t_us;
        let mut own = e
            .runtime_events()
            .filter(|t| t.node == begin.node && t.event.t_us > from);
        let end = own.find(|t| is_back(t)).map_or(u64::MAX, |t| t.event.t_us);
        (begin.node, from, end.min(from + most_us))
    };
    begun.map(restart).collect()
}

struct Judge<'a> {
    e: &'a Evidence<'a>,
    looks: &'a [&'a Observation],
    allowed_us: u64,
    /// When which member's cluster service restarted.
    restarts: Vec<(&'a str, u64, u64)>,
}

impl Judge<'_> {
    /// A gap in the service, cut where a fault began or ended: whatever was under way then began anew.
    fn parts(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let faults = self.e.history.faults.iter();
        let mut cuts: Vec<u64> = faults.flat_map(|f| [Some(f.begin_us), f.end_us]).flatten().collect();
        cuts.retain(|t| (from + 1..to).contains(t));
        cuts.extend([from, to]);
        cuts.sort_unstable();
        cuts.windows(2).map(|w| (w[0], w[1])).collect()
    }

    fn part(&self, from: u64, to: u64) -> Option<(Verdict, String)> {
        if to - from <= self.allowed_us || self.e.history.absences.iter().any(|t| (from..=to).contains(t)) {
            return None;
        }
        let inside: Vec<&Observation> = self
            .looks
            .iter()
            .copied()
            .filter(|o| (from..=to).contains(&o.t_us))
            .collect();
        let mut times: Vec<u64> = inside.iter().map(|o| o.t_us).collect();
        times.insert(0, from);
        times.push(to);
        if let Some(w) = times.windows(2).find(|w| w[1] - w[0] > self.allowed_us) {
            let (from, to) = (seconds(w[0]), seconds(w[1]));
            return Some((Verdict::Unknown, format!("nobody looked from {from:.1} s to {to:.1} s")));
        }
        let (from, to) = self.longest_able(&inside, from, to)?;
        let length = to - from;
        if length <= self.allowed_us {
            return None;
        }
        let text = format!(
            "nobody served from {:.1} s to {:.1} s, longer than a failover may take ({:.1} s)",
            seconds(from),
            seconds(to),
            seconds(self.allowed_us)
        );
        let within = |f: &&FaultRecord| f.begin_us < to && f.end_us.is_none_or(|end| end > from);
        let cause = self.e.history.faults.iter().filter(within).find(|f| on_the_networks(f));
        let taken_over = || self.e.takeovers.iter().any(|t| (from..=to).contains(&t.t_us)) || self.changed(from, to);
        match cause {
            // A node that may not serve without the others does right; whether that is so here is not worked out.
            Some(f) => Some((Verdict::Unknown, format!("{text}; {} was in force", f.kind))),
            None if length > self.allowed_us * u64::from(SLACK) => Some((Verdict::Fail, text)),
            // Its phases are I8's business.
            None if taken_over() => None,
            None => Some((Verdict::Unknown, text)),
        }
    }

    /// The longest time within the part in which a node could have served, by every look.
    fn longest_able(&self, inside: &[&Observation], from: u64, to: u64) -> Option<(u64, u64)> {
        let mut longest: Option<(u64, u64)> = None;
        let mut begun = Some(from);
        let ends = inside.iter().map(|o| (o.t_us, self.able(o))).chain([(to, true)]);
        for (t, able) in ends {
            match (begun, able) {
                (None, true) => begun = Some(t),
                (Some(b), true) if longest.is_none_or(|(x, y)| t - b > y - x) => longest = Some((b, t)),
                (Some(_), false) => begun = None,
                _ => {}
            }
        }
        longest
    }

    /// Whether another member serves behind the gap than before it, by the looks.
    fn changed(&self, from: u64, to: u64) -> bool {
        let before = self
            .looks
            .iter()
            .rev()
            .filter(|o| o.t_us <= from)
            .find_map(|o| o.active());
        let after = self.looks.iter().filter(|o| o.t_us >= to).find_map(|o| o.active());
        before.zip(after).is_some_and(|(a, b)| a != b)
    }

    /// Whether a majority answers, and the operator wants the service.
    fn able(&self, look: &Observation) -> bool {
        let answers = |node: &&String| look.nodes.get(*node).is_some_and(|v| v.status.is_some());
        let restarts = |node: &&String| {
            let mut own = self.restarts.iter().filter(|(n, ..)| n == node);
            own.any(|(_, from, to)| (*from..*to).contains(&look.t_us))
        };
        let votes = |node: &&String| answers(node) && !restarts(node);
        let members = self.e.context.members.iter().filter(votes).count();
        let voters = members + self.e.context.hubs.iter().filter(answers).count().min(1);
        let stopped = || {
            let mut services = look.nodes.values().filter_map(|v| v.service());
            services.any(|s| s.intent == Intent::Stopped)
        };
        members > 0 && voters > 1 && !stopped()
    }
}

/// Whether it keeps machines that are there from reaching one another.
fn on_the_networks(f: &FaultRecord) -> bool {
    const ELSEWHERE: [&str; 17] = [
        "power-off",
        "power-on",
        "freeze",
        "resume",
        "kill",
        "link-up",
        "reset",
        "panic",
        "clock",
        "stop-unit",
        "disk-full",
        "disk-read-only",
        "disk-gone",
        "damage-file",
        "witness-share",
        "cpu-starve",
        "memory-pressure",
    ];
    !ELSEWHERE.contains(&f.kind.as_str())
}
