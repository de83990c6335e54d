//! Changes of the active node, from the nodes' own events: who, when, planned or not, and what the survivor had.

use super::{Evidence, History};
use crate::event::{Event, RuntimeEvent};
use ccr_contract::event::EventKind;
use std::collections::BTreeMap;

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

/// Every change of the active node in this run, in time.
pub fn takeovers(history: &History) -> Vec<Takeover> {
    let events: Vec<RuntimeEvent<'_>> = history.events.iter().filter_map(Event::runtime_event).collect();
    takeovers_of(history, &events)
}

/// The same, of what the nodes told.
pub(super) fn takeovers_of(history: &History, events: &[RuntimeEvent<'_>]) -> Vec<Takeover> {
    let events = in_time(events);
    let mut takeovers: Vec<Takeover> = Vec::new();
    let mut active = first_active(history, &events);
    for (at, t) in events
        .iter()
        .enumerate()
        .filter(|(_, t)| t.event.t_us >= history.from_us)
    {
        let EventKind::Online { epoch, .. } = t.what else {
            continue;
        };
        let from = active.replace(t.node.to_owned());
        // Coming back where it was, or for the first time, changes nothing.
        let Some(from) = from.filter(|f| f != t.node) else {
            continue;
        };
        let past: Vec<&RuntimeEvent<'_>> = events[..at].iter().copied().filter(|p| p.node == t.node).collect();
        takeovers.push(describe(t, epoch, from, &past));
    }
    mark_planned(&mut takeovers, &events, history.from_us);
    takeovers
}

/// Who served before anybody came online. Not the first look alone: a lab that was just brought back has no lease for a moment.
fn first_active(history: &History, events: &[&RuntimeEvent<'_>]) -> Option<String> {
    let online = |t: &&&RuntimeEvent<'_>| t.event.t_us >= history.from_us && matches!(t.what, EventKind::Online { .. });
    let until = events.iter().find(online).map_or(u64::MAX, |t| t.event.t_us);
    let before = history.observations.iter().take_while(|o| o.t_us < until);
    before.filter_map(|o| o.active()).next().map(str::to_owned)
}

/// Within a node the order is the node's own; the sort is stable.
fn in_time<'a, 'h>(events: &'a [RuntimeEvent<'h>]) -> Vec<&'a RuntimeEvent<'h>> {
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by_key(|t| t.event.t_us);
    events
}

/// What the node's own events before it came online say of it.
fn describe(online: &RuntimeEvent<'_>, epoch: u64, from: String, past: &[&RuntimeEvent<'_>]) -> Takeover {
    // Only what it did since it last stood by belongs to this takeover.
    let stood_by = |p: &&RuntimeEvent<'_>| {
        matches!(
            p.what,
            EventKind::Offline { .. } | EventKind::MemberUp { .. } | EventKind::ClusterJoined { .. }
        )
    };
    // The old node may be back before the service is online: what this one does since it was appointed is no standing by.
    let appointed = |p: &&RuntimeEvent<'_>| matches!(p.what, EventKind::OnlinePending { epoch: e, .. } if e == epoch);
    let before = past.iter().rposition(appointed).unwrap_or(past.len());
    let since = past[..before].iter().rposition(stood_by).map_or(0, |i| i + 1);
    let recent = &past[since..];
    let last = |is: fn(&EventKind) -> bool| recent.iter().rfind(|p| is(&p.what)).map(|p| p.event.t_us);
    let pending = last(|what| matches!(what, EventKind::OnlinePending { .. }));
    let detected_us = last(|what| matches!(what, EventKind::MemberDown { .. }));
    let won = last(|what| matches!(what, EventKind::ArbitrationWon { .. }));
    let mut inspected = inspected_at(epoch, past);
    let mut lost_logs = 0;
    for p in recent {
        if let EventKind::CopyLost { group, from, lost, .. } = &p.what {
            lost_logs += lost;
            inspected.insert(group.clone(), from.saturating_sub(1));
        }
    }
    Takeover {
        node: online.node.to_owned(),
        epoch,
        from,
        t_us: online.event.t_us,
        // The quorum owner takes the witness on suspicion, before it gives the other member up.
        arbitrated_us: won.or(pending).max(detected_us),
        detected_us,
        skew_us: online.event.skew_us.unwrap_or(0),
        planned: false,
        inspected,
        lost_logs,
    }
}

/// By group: the last generation that a node had when it mounted in `epoch`.
fn inspected_at(epoch: u64, past: &[&RuntimeEvent<'_>]) -> BTreeMap<String, u64> {
    let mut inspected = BTreeMap::new();
    for p in past {
        match &p.what {
            // What it closed itself, while it served, it has.
            EventKind::CopyInspected { group, generation }
            | EventKind::CopySeeded { group, generation }
            | EventKind::LogClosed { group, generation, .. } => {
                let last = inspected.entry(group.clone()).or_insert(*generation);
                *last = (*last).max(*generation);
            }
            // The log that it opened at the mount comes right behind the last one that it had.
            EventKind::LogOpened {
                group,
                generation,
                epoch: opened_in,
                ..
            } if *opened_in == epoch => {
                inspected.insert(group.clone(), generation.saturating_sub(1));
            }
            // Divergent logs were dropped: what is left is what came before them.
            EventKind::CopyResynced { group, from, .. } => {
                inspected.insert(group.clone(), from.saturating_sub(1));
            }
            _ => {}
        }
    }
    inspected
}

/// A takeover is planned where a move to its node was carried out, in its epoch or between its neighbours, or where the node that
/// served before had stopped or ended in order.
fn mark_planned(takeovers: &mut [Takeover], events: &[&RuntimeEvent<'_>], from_us: u64) {
    for i in 0..takeovers.len() {
        let after = i.checked_sub(1).map_or(from_us, |j| takeovers[j].t_us);
        let before = takeovers.get(i + 1).map_or(u64::MAX, |t| t.t_us);
        let t = &takeovers[i];
        let planned = events.iter().any(|e| {
            let EventKind::MoveDone { to, epoch, .. } = &e.what else {
                return false;
            };
            *to == t.node && (after..before).contains(&e.event.t_us) && (*epoch == t.epoch || epoch + 1 == t.epoch)
        });
        takeovers[i].planned = planned || follows_an_order(t, events, after);
    }
}

/// Whether the last that the old node did with the service was to go offline in order, and no operator has accepted a loss since.
fn follows_an_order(t: &Takeover, events: &[&RuntimeEvent<'_>], after: u64) -> bool {
    let accepted = |e: &&RuntimeEvent<'_>| match e.what {
        EventKind::LossAccepted { epoch } => epoch == t.epoch,
        // An operator who mounts whatever is lost does so behind the takeover.
        EventKind::QuorumForced { .. } => (after..=t.t_us).contains(&e.event.t_us),
        _ => false,
    };
    let before = events.iter().filter(|e| e.event.t_us <= t.t_us && e.node == t.from);
    let last = before.filter_map(|e| of_the_service(&e.what)).next_back();
    last == Some(ServiceStep::Offline { orderly: true }) && !events.iter().any(accepted)
}

/// What a node did with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServiceStep {
    Online,
    Offline { orderly: bool },
}

fn of_the_service(what: &EventKind) -> Option<ServiceStep> {
    match *what {
        EventKind::Online { .. } | EventKind::PartiallyOnline { .. } => Some(ServiceStep::Online),
        EventKind::Offline { orderly, .. } => Some(ServiceStep::Offline { orderly }),
        _ => None,
    }
}

/// Times that the service went offline in order in this run and came online again, anywhere.
pub(super) fn orderly_steps(e: &Evidence<'_>) -> usize {
    let events = in_time(&e.runtime_events)
        .into_iter()
        .filter(|t| t.event.t_us >= e.history.from_us);
    let mut order = false;
    let mut steps = 0;
    for step in events.filter_map(|t| of_the_service(&t.what)) {
        match step {
            ServiceStep::Offline { orderly } => order = orderly,
            ServiceStep::Online => steps += usize::from(std::mem::take(&mut order)),
        }
    }
    steps
}
