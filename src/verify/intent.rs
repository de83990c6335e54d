//! I10: what an operator has stopped or suspended stays so, and nothing goes back by itself.

use super::Op;
use super::evidence::Evidence;
use super::finding::Finding;
use crate::event::Event;
use ccr_contract::event::EventKind;
use ccr_contract::status::CopyStatus;

/// The tool's event of an order that was given.
const ORDER: &str = "operator.order";

/// A time in which an operator's order holds: from its answer to when the one was given that ends it.
#[derive(Debug, Clone, Copy)]
struct Held<'a> {
    from_us: u64,
    to_us: u64,
    /// The storage group that it is about; all where absent.
    group: Option<&'a str>,
}

impl Held<'_> {
    fn has(&self, t_us: u64) -> bool {
        t_us > self.from_us && t_us < self.to_us
    }
}

/// I10.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let stops = held(e, "stop", &["start", "move-group", "mount"]);
    let suspends = held(e, "suspend", &["resume", "reseed"]);
    let mut wrong: Vec<String> = stops.iter().filter_map(|h| served(e, *h)).collect();
    wrong.extend(suspends.iter().filter_map(|h| copied(e, *h)));
    let (looked, back) = failbacks(e);
    wrong.extend(back);
    if stops.is_empty() && suspends.is_empty() && looked == 0 && wrong.is_empty() {
        return Finding::unknown("no order was given that something had to stick to, and no failover happened");
    }
    let unseen = |h: &&Held<'_>| {
        !e.history
            .observations
            .iter()
            .any(|o| h.has(o.t_us) && o.statuses().next().is_some())
    };
    if wrong.is_empty()
        && let Some(h) = stops.iter().chain(&suspends).find(unseen)
    {
        return Finding::unknown(format!(
            "nobody looked after the order at {:.1} s",
            h.from_us as f64 / 1e6
        ));
    }
    Finding::of(&wrong, || {
        format!(
            "{} stops, {} suspensions, {looked} failovers: all stayed so",
            stops.len(),
            suspends.len()
        )
    })
}

/// When orders of this word were done, each until the next one of `ends` was.
fn held<'a>(e: &Evidence<'a>, word: &str, ends: &[&str]) -> Vec<Held<'a>> {
    let done = |event: &&'a Event| event.data["answer"]["done"].as_bool() == Some(true);
    let verb = |event: &'a Event| event.data["order"]["verb"].as_str().unwrap_or_default();
    let orders: Vec<&Event> = e.events(ORDER).filter(done).collect();
    let of = |(at, event): (usize, &&'a Event)| {
        let end = orders[at + 1..].iter().find(|o| ends.contains(&verb(o)));
        Held {
            from_us: event.t_us,
            to_us: end.map_or(u64::MAX, |o| begun(o)),
            group: event.data["order"]["args"]["group"].as_str(),
        }
    };
    orders
        .iter()
        .enumerate()
        .filter(|(_, o)| verb(o) == word)
        .map(of)
        .collect()
}

/// When an order was given: it is told when it is answered.
fn begun(order: &Event) -> u64 {
    order.data["begin_us"].as_u64().unwrap_or(order.t_us)
}

/// That the service was up while it was stopped.
fn served(e: &Evidence<'_>, h: Held<'_>) -> Option<String> {
    let s = |us: u64| us as f64 / 1e6;
    let online = e.runtime_events().find(|t| {
        let up = matches!(t.what, EventKind::Online { .. } | EventKind::PartiallyOnline { .. });
        up && h.has(t.event.t_us.saturating_sub(t.event.skew_us.unwrap_or(0)))
    });
    if let Some(t) = online {
        return Some(format!(
            "stopped at {:.1} s, and online on {} at {:.1} s",
            s(h.from_us),
            t.node,
            s(t.event.t_us)
        ));
    }
    let answered =
        |o: &&Op<'_>| o.store_answer().is_some() && h.has(o.begin_us) && o.end_us.is_some_and(|end| h.has(end));
    let op = e.ops.iter().find(answered)?;
    Some(format!(
        "stopped at {:.1} s, and operation {} was answered at {:.1} s",
        s(h.from_us),
        op.op,
        s(op.begin_us)
    ))
}

/// That a copy went on while it was suspended.
fn copied(e: &Evidence<'_>, h: Held<'_>) -> Option<String> {
    let s = |us: u64| us as f64 / 1e6;
    let ours = |group: &str| h.group.is_none_or(|g| g == group);
    let events = e.runtime_events().find_map(|t| match &t.what {
        EventKind::CopyInspected { group, .. } | EventKind::CopyReplayed { group, .. }
            if ours(group) && h.has(t.event.t_us.saturating_sub(t.event.skew_us.unwrap_or(0))) =>
        {
            Some(format!("{} on {} at {:.1} s", t.event.kind, t.node, s(t.event.t_us)))
        }
        _ => None,
    });
    let looks = || {
        let looks = e.history.observations.iter().filter(|o| h.has(o.t_us));
        let views = looks.flat_map(|o| o.nodes.iter().map(move |(n, v)| (o.t_us, n, v)));
        let mut fresh = views.filter(|(t, _, v)| v.moment.map_or(*t, |m| m.after_us) > h.from_us);
        fresh.find_map(|(t, node, v)| {
            let mut copies = v
                .status
                .iter()
                .flat_map(|s| &s.copies)
                .filter(|c| c.node == *node && ours(&c.group));
            let healthy = copies.find(|c| c.status == CopyStatus::Healthy)?;
            Some(format!("{} is Healthy on {node} at {:.1} s", healthy.group, s(t)))
        })
    };
    let what = events.or_else(looks)?;
    Some(format!("suspended at {:.1} s, and {what}", s(h.from_us)))
}

/// How many failovers there were, and those that went back without a fault or an order.
fn failbacks(e: &Evidence<'_>) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    for pair in e.takeovers.windows(2) {
        let (before, t) = (&pair[0], &pair[1]);
        let between = |us: u64| us >= before.t_us && us <= t.t_us;
        let fault = e.history.faults.iter().any(|f| {
            let in_force = f.begin_us <= t.t_us && f.end_us.is_none_or(|end| end >= t.t_us);
            in_force || between(f.begin_us)
        });
        // A move is done, and told, behind the takeover.
        let ordered = e.events(ORDER).any(|o| o.t_us >= before.t_us && begun(o) <= t.t_us);
        if t.node == before.from && !fault && !ordered {
            wrong.push(format!(
                "{} took over again at {:.1} s by itself",
                t.node,
                t.t_us as f64 / 1e6
            ));
        }
    }
    (e.takeovers.len(), wrong)
}
