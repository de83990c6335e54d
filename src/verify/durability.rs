//! I2 and I3: what was acknowledged is there, or was allowed to be lost.

use super::evidence::{Evidence, writes};
use super::finding::Finding;
use super::takeover::orderly_steps;
use super::{Loss, Op, OpKind, Outcome, Takeover, Verdict};
use crate::event::RuntimeEvent;
use ccr_contract::dump::Message;
use ccr_contract::event::EventKind;
use std::collections::{BTreeMap, BTreeSet};

/// What the final reads say of the acknowledged operations.
struct Books<'a> {
    stored: BTreeMap<&'a str, Vec<&'a Message>>,
    /// Keys that a hub still holds.
    queued: BTreeSet<&'a str>,
    /// Hubs whose queue was not read.
    unread: Vec<&'a str>,
    /// Keys that were deleted and acknowledged, with the operation.
    deleted: BTreeMap<&'a str, &'a Op<'a>>,
    /// Keys whose deletion may have happened.
    perhaps_deleted: BTreeSet<&'a str>,
}

impl<'a> Books<'a> {
    fn of(e: &'a Evidence<'a>) -> Option<Self> {
        let deletes = || e.ops.iter().filter(|o| o.kind == OpKind::Delete);
        Some(Self {
            stored: e.stored()?,
            queued: e
                .history
                .dumps
                .iter()
                .flat_map(|d| &d.queued)
                .filter_map(|q| q.key.as_deref())
                .collect(),
            unread: e
                .context
                .hubs
                .iter()
                .map(String::as_str)
                .filter(|hub| !e.history.dumps.iter().any(|d| d.node == *hub))
                .collect(),
            deleted: deletes().filter(|o| o.acked()).map(|o| (o.key, o)).collect(),
            perhaps_deleted: deletes()
                .filter(|o| o.outcome == Outcome::Unknown)
                .map(|o| o.key)
                .collect(),
        })
    }

    /// Acknowledged, not deleted, not stored.
    fn missing(&self, op: &Op<'_>) -> bool {
        !self.stored.contains_key(op.key)
            && !self.deleted.contains_key(op.key)
            && !self.perhaps_deleted.contains(op.key)
    }

    /// Why a missing message that a hub took may still come.
    fn on_its_way(&self, op: &Op<'_>) -> Option<String> {
        if op.kind != OpKind::Submit {
            None
        } else if self.queued.contains(op.key) {
            Some(format!("submit {} is still in a hub's queue", op.key))
        } else {
            let hub = self.unread.first()?;
            Some(format!(
                "submit {} is missing, and the queue of {hub} was not read",
                op.key
            ))
        }
    }
}

/// The takeover that may have lost what this answer acknowledged; the survivor's last inspected generation where known.
enum Fate {
    /// No takeover without a handoff came after it.
    Kept,
    /// The survivor had it.
    Inspected,
    /// The survivor did not have it.
    NotInspected,
    /// It cannot be said.
    Unclear(String),
}

fn fate(e: &Evidence<'_>, op: &Op<'_>) -> Fate {
    let Some(by) = op.by else {
        return Fate::Unclear(format!("the answer to operation {} does not say where it is", op.op));
    };
    let Some(lossy) = e.takeovers.iter().find(|t| !t.planned && t.epoch > by.epoch) else {
        return Fate::Kept;
    };
    match inspected(e, lossy, &by.stream) {
        Some(last) if by.generation <= last => Fate::Inspected,
        Some(_) => Fate::NotInspected,
        None => Fate::Unclear(format!("what {} had inspected is not known", lossy.node)),
    }
}

/// The last generation of the group that this stream belongs to.
fn inspected(e: &Evidence<'_>, t: &Takeover, stream: &str) -> Option<u64> {
    let in_dumps = e
        .history
        .dumps
        .iter()
        .flat_map(|d| &d.groups)
        .find(|g| g.logs.iter().any(|l| l.stream == stream) || g.messages.iter().any(|m| m.stream == stream));
    let in_events = || {
        e.runtime_events().find_map(|t| match &t.what {
            EventKind::LogClosed { group, stream: of, .. } if of == stream => Some(group.as_str()),
            _ => None,
        })
    };
    match in_dumps.map(|g| g.group.as_str()).or_else(in_events) {
        Some(group) => t.inspected.get(group).copied(),
        // With one group only, there is no doubt.
        None if t.inspected.len() == 1 => t.inspected.values().next().copied(),
        None => None,
    }
}

/// I2.
pub(super) fn planned(e: &Evidence<'_>) -> Finding {
    let moves = e.takeovers.iter().filter(|t| t.planned).count();
    let steps = orderly_steps(e).max(moves);
    if steps == 0 {
        return Finding::unknown("no orderly step was carried out");
    }
    let accepted = e
        .runtime_events()
        .any(|t| matches!(t.what, EventKind::LossAccepted { .. }));
    let Some(books) = Books::of(e) else {
        return Finding::unknown("there is no final read of the active node");
    };
    let mut wrong = Vec::new();
    let (mut kept, mut unclear) = (0u64, Vec::new());
    for op in e.ops.iter().filter(|o| o.acked() && writes(o)) {
        // What a failover may lose is I3's business.
        match (op.kind, fate(e, op)) {
            (OpKind::Submit, _) | (_, Fate::Kept | Fate::Inspected) => {}
            (_, Fate::NotInspected) => continue,
            (_, Fate::Unclear(why)) => {
                unclear.push(why);
                continue;
            }
        }
        if !books.missing(op) {
            kept += 1;
        } else if let Some(why) = books.on_its_way(op) {
            unclear.push(why);
        } else if accepted {
            unclear.push(format!("{} is missing, and an operator has accepted a loss", op.key));
        } else {
            wrong.push(format!("{:?} {} was acknowledged and is missing", op.kind, op.key));
        }
    }
    conclude(wrong, &unclear, kept, || {
        format!("{kept} acknowledged messages are there after {steps} orderly steps")
    })
}

/// I3, for `submit` and `deliver` apart.
pub(super) fn lossy(e: &Evidence<'_>) -> Finding {
    let Some(lossy) = e.takeovers.iter().find(|t| !t.planned) else {
        return Finding::unknown("no failover happened");
    };
    let Some(books) = Books::of(e) else {
        return Finding::unknown("there is no final read of the active node");
    };
    let mut wrong = Vec::new();
    let mut unclear = Vec::new();
    let (mut kept, mut lost, mut submits) = (0u64, 0u64, 0u64);
    for op in e.ops.iter().filter(|o| o.acked() && o.kind == OpKind::Deliver) {
        match (books.missing(op), fate(e, op)) {
            (_, Fate::Unclear(why)) => unclear.push(why),
            (true, Fate::NotInspected) => lost += 1,
            (true, _) => wrong.push(format!(
                "deliver {} was acknowledged, inspected, and is missing",
                op.key
            )),
            // Exactly: what the survivor did not have it cannot have.
            (false, Fate::NotInspected) if books.stored.contains_key(op.key) => {
                wrong.push(format!(
                    "deliver {} is there, though {} had not inspected it",
                    op.key, lossy.node
                ));
            }
            (false, _) => kept += 1,
        }
    }
    // What left the dumpster later had been asked for by then.
    let evicts = |t: &RuntimeEvent<'_>| matches!(t.what, EventKind::HubEvicted { .. }) && t.event.t_us <= lossy.t_us;
    let evicted = e.runtime_events().any(evicts);
    for op in e.ops.iter().filter(|o| o.acked() && o.kind == OpKind::Submit) {
        if !books.missing(op) {
            submits += 1;
        } else if let Some(why) = books.on_its_way(op) {
            unclear.push(why);
        } else if evicted {
            unclear.push(format!(
                "submit {} is missing, and the dumpster was too small for some",
                op.key
            ));
        } else {
            wrong.push(format!("submit {} was acknowledged and is missing", op.key));
        }
    }
    wrong.extend(undeleted(e, &books));
    conclude(wrong, &unclear, kept + lost + submits, || {
        format!(
            "submit: none of {submits} missing; deliver: {kept} there, {lost} lost, all {lost} in generations that {} had not \
             inspected",
            lossy.node
        )
    })
}

/// A deletion that was acknowledged in a generation that was kept must have stayed.
fn undeleted(e: &Evidence<'_>, books: &Books<'_>) -> Vec<String> {
    books
        .deleted
        .iter()
        .filter(|(key, _)| books.stored.contains_key(*key))
        // Generation 0: there was nothing to delete.
        .filter(|(_, op)| op.by.is_some_and(|by| by.generation > 0))
        .filter(|(_, op)| matches!(fate(e, op), Fate::Kept | Fate::Inspected))
        .map(|(key, op)| format!("{key} was deleted by operation {} and is there", op.op))
        .collect()
}

fn conclude(wrong: Vec<String>, unclear: &[String], counted: u64, well: impl FnOnce() -> String) -> Finding {
    let found = Finding::of(&wrong, well);
    if found.verdict == Verdict::Fail {
        return found;
    }
    match unclear.first() {
        Some(why) if unclear.len() == 1 => Finding::unknown(why.clone()),
        Some(why) => Finding::unknown(format!("{why}; and {} more", unclear.len() - 1)),
        None if counted == 0 => Finding::unknown("nothing was acknowledged"),
        None => found,
    }
}

/// What became of what was acknowledged.
pub(super) fn loss(e: &Evidence<'_>) -> Loss {
    let acked: Vec<&Op<'_>> = e.ops.iter().filter(|o| o.acked() && writes(o)).collect();
    let books = Books::of(e);
    let missing = |b: &Books<'_>| acked.iter().filter(|o| b.missing(o)).count() as u64;
    let twice = |b: &Books<'_>| b.stored.values().filter(|m| m.len() > 1).count() as u64;
    let redelivered = e.runtime_events().map(|t| match t.what {
        EventKind::HubRedelivery { count, .. } => count,
        _ => 0,
    });
    Loss {
        acked: acked.len() as u64,
        lost: books.as_ref().map_or(0, missing),
        redelivered: redelivered.sum(),
        duplicated: books.as_ref().map_or(0, twice),
        lost_logs: e.takeovers.iter().filter(|t| !t.planned).map(|t| t.lost_logs).sum(),
    }
}
