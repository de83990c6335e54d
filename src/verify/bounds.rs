//! I8: how long the phases of a failover took.

use super::evidence::Evidence;
use super::finding::Finding;
use super::{Op, OpKind, Takeover, Timings};
use crate::units::Span;
use std::time::Duration;

/// A phase may take this many times its limit before a test fails; the limit itself is judged by the benchmarks.
pub(super) const SLACK: u32 = 3;

/// The fault that a takeover answers: the last one that began before it, behind the takeover `before`, and has a proven effect.
fn cause_us(e: &Evidence<'_>, t: &Takeover, before: Option<&Takeover>) -> Option<u64> {
    let since = before.map_or(0, |b| b.t_us);
    e.history
        .faults
        .iter()
        .filter(|f| f.effective == Some(true) && (since..=t.t_us).contains(&f.begin_us))
        .map(|f| f.begin_us)
        .max()
}

/// The phases of one takeover, in milliseconds; what cannot be known, or it did not have, is left out.
struct Phases {
    cause_us: Option<u64>,
    detect_ms: Option<u64>,
    arbitrate_ms: Option<u64>,
    mount_ms: Option<u64>,
}

impl Phases {
    fn of(e: &Evidence<'_>, at: usize) -> Self {
        let t = &e.takeovers[at];
        let before = at.checked_sub(1).map(|i| &e.takeovers[i]);
        let cause_us = if t.planned { None } else { cause_us(e, t, before) };
        Self {
            cause_us,
            detect_ms: cause_us.zip(t.detected_us).map(|(from, to)| ms(from, to)),
            arbitrate_ms: t.detected_us.zip(t.arbitrated_us).map(|(from, to)| ms(from, to)),
            mount_ms: t.arbitrated_us.map(|from| ms(from, t.t_us)),
        }
    }
}

fn ms(from: u64, to: u64) -> u64 {
    to.saturating_sub(from) / 1000
}

/// The phases of the first takeover that was not planned, else of the first one; and the longest outage.
pub(super) fn timings(e: &Evidence<'_>) -> Timings {
    let outage_ms = outage_us(e).map(|us| us / 1000);
    let unplanned = e.takeovers.iter().position(|t| !t.planned);
    let Some(at) = unplanned.or((!e.takeovers.is_empty()).then_some(0)) else {
        return Timings {
            outage_ms,
            ..Timings::default()
        };
    };
    let (t, phases) = (&e.takeovers[at], Phases::of(e, at));
    let first_answer = e
        .ops
        .iter()
        .filter(|o| {
            o.store_answer()
                .is_some_and(|by| by.node == t.node && by.epoch >= t.epoch)
        })
        .filter_map(|o| o.end_us)
        .min();
    Timings {
        detect_ms: phases.detect_ms,
        arbitrate_ms: phases.arbitrate_ms,
        mount_ms: phases.mount_ms,
        first_ack_ms: phases.cause_us.zip(first_answer).map(|(from, to)| ms(from, to)),
        outage_ms,
    }
}

/// The longest time without an answer of the store, while clients kept asking it.
fn outage_us(e: &Evidence<'_>) -> Option<u64> {
    let asked: Vec<&Op<'_>> = e.ops.iter().filter(|o| o.kind != OpKind::Submit).collect();
    let mut answers: Vec<u64> = asked.iter().filter(|o| o.acked()).filter_map(|o| o.end_us).collect();
    answers.sort_unstable();
    // Those who asked to the end without an answer make the last gap.
    let last_asked = asked.iter().filter_map(|o| o.end_us.or(Some(o.begin_us))).max()?;
    answers.push(last_asked.max(*answers.last()?));
    let mut longest = 0;
    for gap in answers.windows(2).map(|w| w[0]..w[1]) {
        if gap.end - gap.start > longest {
            // From when a client was waiting for an answer in it.
            let waiting = asked
                .iter()
                .filter(|o| o.end_us.is_none_or(|end| end > gap.start) && o.begin_us < gap.end);
            let from = waiting.map(|o| o.begin_us.max(gap.start)).min().unwrap_or(gap.end);
            longest = longest.max(gap.end - from);
        }
    }
    Some(longest)
}

/// I8.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let limits = e.context.limits;
    let allowed = |limit: Duration| e.context.slowness.scale(limit) * SLACK;
    let t = timings(e);
    let factor = e.context.slowness.factor();
    if e.takeovers.is_empty() {
        // Without a failover no client may notice anything for longer than a failover takes to be detected.
        let Some(outage) = t.outage_ms else {
            return Finding::unknown("the store never answered");
        };
        let most = allowed(limits.detect.duration());
        let text = format!(
            "no failover; longest time without an answer {outage} ms, at most {}",
            Span(most)
        );
        return if u128::from(outage) <= most.as_millis() {
            Finding::pass(text)
        } else {
            Finding::fail(text)
        };
    }
    let mut wrong = Vec::new();
    let mut shown = Vec::new();
    let mut missing = Vec::new();
    for (at, t) in e.takeovers.iter().enumerate() {
        let phases = Phases::of(e, at);
        let failover = !t.planned;
        // A second answer to the same fault began with no instant that anybody knows; only its later phases have a length.
        let first = e.takeovers[..at].iter().all(|b| b.planned);
        let parts = [
            (
                "detect",
                phases.detect_ms,
                limits.detect,
                failover && (first || phases.cause_us.is_some()),
            ),
            ("arbitrate", phases.arbitrate_ms, limits.arbitrate, failover),
            ("mount", phases.mount_ms, limits.mount, true),
        ];
        let which = match e.takeovers.len() {
            1 => String::new(),
            _ => format!(" of takeover {} by {}", at + 1, t.node),
        };
        for (name, took, limit, must) in parts {
            match took {
                None if must => missing.push(format!("{name}{which}")),
                None => {}
                Some(took) => {
                    let most = allowed(limit.duration());
                    shown.push(format!("{name}{which} {took} ms (limit {limit})"));
                    if u128::from(took) > most.as_millis() {
                        wrong.push(format!(
                            "{name}{which} took {took} ms: more than {SLACK} × {limit} × {factor:.1}"
                        ));
                    }
                }
            }
        }
    }
    // Times of a node are only as good as its clock could be placed.
    let skew_ms = e.takeovers.iter().map(|t| t.skew_us).max().unwrap_or(0) / 1000;
    let found = Finding::of(&wrong, || {
        format!("{}; times of nodes ± {skew_ms} ms", shown.join(", "))
    });
    if wrong.is_empty() && !missing.is_empty() {
        return Finding::unknown(format!("no event says when {} ended", missing.join(" and ")));
    }
    found
}
