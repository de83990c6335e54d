//! I7: who serves has a majority, or an operator forced it.

use super::evidence::Evidence;
use super::finding::Finding;
use super::{NodeView, SLACK};
use crate::event::RuntimeEvent;
use ccr_contract::event::EventKind;
use ccr_contract::status::{ClusterState, Status};

/// Whether a member has the right to serve, by what it told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// It is in a cluster with the other member.
    Together,
    /// It has the witness, or an operator forced it.
    Alone,
    /// It has lost the other member, and has not the witness.
    InDoubt,
    /// It said that it has no majority.
    Lost,
    /// It told nothing of it.
    Unknown,
}

/// I7.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let mut wrong = Vec::new();
    let mut unclear = Vec::new();
    let mut onlines = 0u64;
    for member in &e.context.members {
        let mut right = Right::Unknown;
        let mut since_us = 0;
        for told in e.runtime_events.iter().filter(|t| t.node == *member) {
            let now = after(right, &told.what);
            if now != right {
                (right, since_us) = (now, told.event.t_us);
            }
            let online = matches!(told.what, EventKind::Online { .. } | EventKind::Mounted { .. });
            if !online || told.event.t_us < e.history.from_us {
                continue;
            }
            onlines += 1;
            let at = told.event.t_us as f64 / 1e6;
            match (right, votes_around(e, told, since_us)) {
                (Right::Together | Right::Alone, _) | (_, Some(true)) => {}
                (Right::Lost, _) => wrong.push(format!(
                    "{member} went online at {at:.3} s, and had told that it has no majority"
                )),
                (_, Some(false)) => wrong.push(format!("{member} went online at {at:.3} s with too few votes")),
                (_, None) => unclear.push(format!("nobody knows whose votes {member} had at {at:.3} s")),
            }
        }
        wrong.extend(answers_without(e, member));
        wrong.extend(served_without(e, member));
    }
    let looks = e
        .history
        .observations
        .iter()
        .filter(|o| o.serving().next().is_some())
        .count();
    match (wrong.is_empty(), unclear.into_iter().next()) {
        (false, _) => Finding::of(&wrong, String::new),
        (true, Some(why)) => Finding::unknown(why),
        (true, None) if onlines == 0 && looks == 0 => Finding::unknown("no member was ever seen to serve"),
        (true, None) => Finding::pass(format!(
            "{onlines} times online and {looks} looks, each with a majority"
        )),
    }
}

impl Right {
    fn is_there(self) -> bool {
        matches!(self, Right::Together | Right::Alone)
    }
}

/// The right to serve behind an event.
fn after(right: Right, what: &EventKind) -> Right {
    match what {
        EventKind::ClusterJoined { .. } | EventKind::MemberUp { .. } => Right::Together,
        EventKind::ArbitrationWon { .. } | EventKind::QuorumForced { .. } => Right::Alone,
        EventKind::ClusterFormed { .. } if right == Right::Alone => Right::Alone,
        EventKind::ClusterFormed { .. } => Right::Together,
        // The owner takes the witness on suspicion, before it gives the other member up.
        EventKind::MemberDown { .. } if right == Right::Together => Right::InDoubt,
        EventKind::ArbitrationLost { .. } if right.is_there() => Right::InDoubt,
        EventKind::QuorumLost { .. } => Right::Lost,
        _ => right,
    }
}

/// Whether the votes that a member said it had when it went online were enough; none where no look says. What it had when it served
/// before says nothing.
fn votes_around(e: &Evidence<'_>, online: &RuntimeEvent<'_>, since_us: u64) -> Option<bool> {
    let skew = online.event.skew_us.unwrap_or(0);
    let from_us = since_us
        .saturating_add(skew)
        .max(online.event.t_us.saturating_sub(skew));
    let looks = e
        .history
        .observations
        .iter()
        .filter_map(|o| Some((o.t_us, o.nodes.get(online.node)?)));
    let serving = looks.filter(|(t, v)| *t >= from_us && v.serves());
    serving.filter_map(|(_, v)| v.status.as_ref().and_then(enough)).next()
}

fn enough(status: &Status) -> Option<bool> {
    let cluster = status.cluster.as_ref()?;
    let have = cluster.votes.have.len() as u64;
    Some(cluster.state == ClusterState::Up && have >= u64::from(cluster.votes.needed))
}

/// Answers of the store that a member gave after it had told that it has no majority, and before it had one again.
fn answers_without(e: &Evidence<'_>, member: &str) -> Option<String> {
    let (mut right, mut lost): (Right, Option<(u64, u64)>) = (Right::Unknown, None);
    let mut times = Vec::new();
    for told in e.runtime_events.iter().filter(|t| t.node == member) {
        right = after(right, &told.what);
        let (t, skew) = (told.event.t_us, told.event.skew_us.unwrap_or(0));
        match (right, lost) {
            (Right::Lost, None) => lost = Some((t + skew, u64::MAX)),
            (Right::Together | Right::Alone, Some((from, _))) => {
                times.push((from, t.saturating_sub(skew)));
                lost = None;
            }
            _ => {}
        }
    }
    times.extend(lost);
    let answers = e
        .ops
        .iter()
        .filter(|o| o.store_answer().is_some_and(|by| by.node == member));
    let mut without = answers.filter(|o| {
        let within = |(from, to): &(u64, u64)| o.begin_us >= *from && o.end_us.is_some_and(|end| end < *to);
        times.iter().any(within)
    });
    let op = without.next()?;
    Some(format!("{member} answered operation {} without a majority", op.op))
}

/// Looks in a row in which a member serves and says itself that it has too few votes, for longer than it takes to find that out.
fn served_without(e: &Evidence<'_>, member: &str) -> Option<String> {
    let limits = e.context.limits;
    let bound = e
        .context
        .slowness
        .scale((limits.detect.duration() + limits.arbitrate.duration()) * SLACK);
    let mut since: Option<u64> = None;
    for look in e.history.observations.iter().filter(|o| o.t_us >= e.history.from_us) {
        let view = look.nodes.get(member);
        let lacks = |v: &NodeView| v.serves() && v.status.as_ref().and_then(enough) == Some(false);
        if !view.is_some_and(lacks) {
            since = None;
            continue;
        }
        let first = *since.get_or_insert(look.t_us);
        if u128::from(look.t_us - first) > bound.as_micros() {
            let (from, to) = (first as f64 / 1e6, look.t_us as f64 / 1e6);
            return Some(format!(
                "{member} served from {from:.1} s to {to:.1} s with too few votes"
            ));
        }
    }
    None
}
