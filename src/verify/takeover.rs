//! Changes of the active node, from the nodes' own events: who, when, planned or not, and what the survivor had.

use super::History;
use crate::event::{Event, Source};
use ccr_contract::event::kind;
use std::collections::BTreeMap;

/// A new generation was opened at a mount (`group`, `stream`, `generation`, `epoch`).
const LOG_OPENED: &str = "log.opened";

/// The service came online somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The member that serves from now on.
    pub node: String,
    /// The epoch in which it does.
    pub epoch: u64,
    /// The member that served before.
    pub from: String,
    /// When it came online, microseconds since the journal began.
    pub t_us: u64,
    /// When it knew that the other member was gone.
    pub detected_us: Option<u64>,
    /// When it had the right to serve.
    pub arbitrated_us: Option<u64>,
    /// How far these times may be off.
    pub skew_us: u64,
    /// Whether it may lose nothing: an operator moved the service, or whoever had it went offline in order before.
    pub planned: bool,
    /// By storage group: the last generation that it had inspected when it mounted. What is missing is not known.
    pub inspected: BTreeMap<String, u64>,
    /// Generations that it knew of and had not inspected.
    pub lost_logs: u64,
}

fn number(e: &Event, name: &str) -> Option<u64> {
    e.data.get(name)?.as_u64()
}

fn text<'a>(e: &'a Event, name: &str) -> Option<&'a str> {
    e.data.get(name)?.as_str()
}

/// Every change of the active node in this run, in time.
pub fn takeovers(history: &History) -> Vec<Takeover> {
    let mut events: Vec<&Event> = history
        .events
        .iter()
        .filter(|e| e.src == Source::Node && e.node.is_some())
        .collect();
    // Within a node the order is the node's own; the sort is stable.
    events.sort_by_key(|e| e.t_us);
    let mut takeovers: Vec<Takeover> = Vec::new();
    let mut active = history.observations.first().and_then(|o| o.active()).map(str::to_owned);
    for (at, e) in events.iter().enumerate().filter(|(_, e)| e.t_us >= history.from_us) {
        let Some(node) = e.node.clone().filter(|_| e.kind == kind::ONLINE) else {
            continue;
        };
        let from = active.replace(node.clone());
        // Coming back where it was, or for the first time, changes nothing.
        let Some(from) = from.filter(|f| *f != node) else {
            continue;
        };
        let past: Vec<&Event> = events[..at].iter().copied().filter(|p| p.node == e.node).collect();
        takeovers.push(describe(e, node, from, &past));
    }
    mark_planned(&mut takeovers, &events, history.from_us);
    takeovers
}

/// What the node's own events before it came online say of it.
fn describe(online: &Event, node: String, from: String, past: &[&Event]) -> Takeover {
    let epoch = number(online, "epoch").unwrap_or(0);
    // Only what it did since it last stood by belongs to this takeover.
    let since = past
        .iter()
        .rposition(|p| p.kind == kind::OFFLINE || p.kind == kind::MEMBER_UP || p.kind == kind::CLUSTER_JOINED)
        .map_or(0, |i| i + 1);
    let recent = &past[since..];
    let of = |wanted: &str| recent.iter().rev().find(|p| p.kind == wanted);
    let pending = of(kind::ONLINE_PENDING).map(|p| p.t_us);
    let detected_us = of(kind::MEMBER_DOWN).map(|p| p.t_us);
    let mut inspected = BTreeMap::new();
    let mut lost_logs = 0;
    for p in past {
        let Some(group) = text(p, "group").map(str::to_owned) else {
            continue;
        };
        match (p.kind.as_str(), number(p, "generation")) {
            (kind::COPY_INSPECTED | kind::COPY_SEEDED, Some(g)) => {
                let last = inspected.entry(group).or_insert(g);
                *last = (*last).max(g);
            }
            // What it closed itself, while it served, it has.
            (kind::LOG_CLOSED, Some(g)) => {
                let last = inspected.entry(group).or_insert(g);
                *last = (*last).max(g);
            }
            // The log that it opened at the mount comes right behind the last one that it had.
            (LOG_OPENED, Some(g)) if number(p, "epoch") == Some(epoch) => {
                inspected.insert(group, g.saturating_sub(1));
            }
            // Divergent logs were dropped: what is left is what came before them.
            (kind::COPY_RESYNCED, _) => {
                if let Some(from) = number(p, "from") {
                    inspected.insert(group, from.saturating_sub(1));
                }
            }
            _ => {}
        }
    }
    for p in recent.iter().filter(|p| p.kind == kind::COPY_LOST) {
        lost_logs += number(p, "lost").unwrap_or(0);
        if let (Some(group), Some(first)) = (text(p, "group"), number(p, "from")) {
            inspected.insert(group.to_owned(), first.saturating_sub(1));
        }
    }
    Takeover {
        epoch,
        from,
        t_us: online.t_us,
        // The quorum owner takes the witness on suspicion, before it gives the other member up.
        arbitrated_us: of(kind::ARBITRATION_WON).map(|p| p.t_us).or(pending).max(detected_us),
        detected_us,
        skew_us: online.skew_us.unwrap_or(0),
        planned: false,
        inspected,
        lost_logs,
        node,
    }
}

/// A takeover is planned where a move to its node was carried out, in its epoch or between its neighbours, or where the node that
/// served before had stopped or ended in order.
fn mark_planned(takeovers: &mut [Takeover], events: &[&Event], from_us: u64) {
    const DONE: u32 = 100;
    for i in 0..takeovers.len() {
        let after = i.checked_sub(1).map_or(from_us, |j| takeovers[j].t_us);
        let before = takeovers.get(i + 1).map_or(u64::MAX, |t| t.t_us);
        let t = &takeovers[i];
        let planned = events.iter().any(|e| {
            e.kind == kind::MOVE
                && e.id == Some(DONE)
                && text(e, "to") == Some(&t.node)
                && (after..before).contains(&e.t_us)
                && number(e, "epoch").is_none_or(|epoch| epoch == t.epoch || epoch + 1 == t.epoch)
        });
        takeovers[i].planned = planned || follows_an_order(t, events, after);
    }
}

/// Whether the last that the old node did with the service was to go offline in order, and no operator has accepted a loss since.
fn follows_an_order(t: &Takeover, events: &[&Event], after: u64) -> bool {
    let accepted = |e: &&&Event| {
        let loss = e.kind == kind::LOSS_ACCEPTED && number(e, "epoch").is_none_or(|epoch| epoch == t.epoch);
        // An operator who mounts whatever is lost does so behind the takeover.
        loss || (e.kind == kind::QUORUM_FORCED && (after..=t.t_us).contains(&e.t_us))
    };
    let before = |e: &&&Event| e.t_us <= t.t_us && e.node.as_ref() == Some(&t.from);
    let last = events.iter().filter(before).rfind(|e| is_of_the_service(e));
    last.is_some_and(|e| is_orderly(e)) && !events.iter().any(|e| accepted(&e))
}

/// Whether a node came online or went offline with it.
fn is_of_the_service(e: &Event) -> bool {
    [kind::ONLINE, kind::PARTIALLY_ONLINE, kind::OFFLINE].contains(&e.kind.as_str())
}

fn is_orderly(e: &Event) -> bool {
    e.kind == kind::OFFLINE && e.data.get("orderly") == Some(&serde_json::Value::Bool(true))
}

/// Times that the service went offline in order in this run and came online again, anywhere.
pub fn orderly_steps(history: &History) -> usize {
    let mut events: Vec<&Event> = history.events.iter().filter(|e| e.src == Source::Node).collect();
    events.sort_by_key(|e| e.t_us);
    let mut order = None;
    let mut steps = 0;
    for e in events
        .into_iter()
        .filter(|e| e.t_us >= history.from_us && is_of_the_service(e))
    {
        if e.kind == kind::OFFLINE {
            order = Some(is_orderly(e));
        } else {
            steps += usize::from(order.take() == Some(true));
        }
    }
    steps
}
