//! I11: when everything is undone, one member serves, the others have all that it gave them, and nothing else.

use super::chain::of_the_members;
use super::evidence::Evidence;
use super::finding::Finding;
use super::{Observation, OpKind, Outcome};
use ccr_contract::dump::{Group, Message};
use ccr_contract::status::{Copy, CopyStatus, Intent};
use std::collections::BTreeSet;

/// I11.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let Some(look) = e.history.observations.last() else {
        return Finding::unknown("nobody looked at the end");
    };
    if let Some(fault) = e
        .history
        .faults
        .iter()
        .find(|f| f.end_us.is_none_or(|end| end > look.t_us))
    {
        return Finding::unknown(format!("nobody looked after {} was undone", fault.kind));
    }
    if let Some(silent) = e
        .context
        .members
        .iter()
        .find(|m| look.nodes.get(*m).is_none_or(|v| v.status.is_none()))
    {
        return Finding::unknown(format!("{silent} did not answer in the last look"));
    }
    let quiet = quiet(e);
    let mut wrong = of_the_look(e, look, quiet);
    let (rows, more, unclear) = match of_the_members(e) {
        Ok(_) => databases(e, look, quiet),
        Err(why) => (0, Vec::new(), Some(why)),
    };
    wrong.extend(more);
    match unclear {
        Some(why) if wrong.is_empty() => Finding::unknown(why),
        _ => Finding::of(&wrong, || {
            format!("one history on all members: {rows} messages compared")
        }),
    }
}

/// The looks of the time in which nothing was broken any more and no client did anything.
fn quiet<'a>(e: &'a Evidence<'_>) -> &'a [Observation] {
    let ends = e.history.faults.iter().filter_map(|f| f.end_us);
    let from = ends.chain(e.ops.iter().filter_map(|o| o.end_us)).max().unwrap_or(0);
    let looks = &e.history.observations;
    &looks[looks.partition_point(|o| o.t_us < from)..]
}

/// What a member says of its own copy of a group in a look.
fn copy_in<'a>(look: &'a Observation, member: &str, group: &str) -> Option<&'a Copy> {
    let copies = &look.nodes.get(member)?.status.as_ref()?.copies;
    copies.iter().find(|c| c.group == group && c.node == member)
}

/// What is not as it should be in the last look. A log may have been closed just before it: that nothing waits, any quiet look can say.
fn of_the_look(e: &Evidence<'_>, look: &Observation, quiet: &[Observation]) -> Vec<String> {
    let mut wrong = Vec::new();
    let services = || look.statuses().filter_map(|(_, s)| s.service.as_ref());
    let stopped = services().any(|s| s.intent == Intent::Stopped);
    let active = look.active();
    if active.is_none() && !stopped {
        wrong.push("not exactly one member serves".to_owned());
    }
    for member in e.context.members.iter().filter(|m| active != Some(m.as_str())) {
        let status = look.nodes.get(member).and_then(|v| v.status.as_ref());
        for copy in status
            .iter()
            .flat_map(|s| s.copies.iter())
            .filter(|c| c.node == *member)
        {
            let (name, queues) = (&copy.group, (copy.copy_queue, copy.replay_queue));
            if copy.status != CopyStatus::Healthy && active.is_some() {
                wrong.push(format!("the copy of {name} on {member} is {}", copy.status));
            }
            let mut looks = quiet.iter().filter_map(|o| copy_in(o, member, name));
            if queues != (0, 0) && !looks.any(|c| (c.copy_queue, c.replay_queue) == (0, 0)) {
                wrong.push(format!(
                    "{} and {} logs wait on {member} for {name}",
                    queues.0, queues.1
                ));
            }
        }
    }
    wrong
}

/// How many messages were compared, what is different, and what cannot be said. What the member that serves has in its open log, the others
/// cannot have yet.
fn databases(e: &Evidence<'_>, look: &Observation, quiet: &[Observation]) -> (usize, Vec<String>, Option<String>) {
    let (mut wrong, mut unclear, mut compared) = (Vec::new(), None, 0);
    let group_of = |node: &str, name: &str| -> Option<&Group> {
        let dump = e.history.dumps.iter().find(|d| d.node == node)?;
        dump.groups.iter().find(|g| g.group == name)
    };
    let source = look.active().or(e.context.members.first().map(String::as_str));
    let Some((source, dump)) = source.and_then(|s| Some((s, e.history.dumps.iter().find(|d| d.node == s)?))) else {
        return (0, wrong, unclear);
    };
    for member in e.context.members.iter().filter(|m| m.as_str() != source) {
        for ours in &dump.groups {
            let name = ours.group.as_str();
            let Some(theirs) = group_of(member, name) else {
                wrong.push(format!("{member} has no {name}"));
                continue;
            };
            compared += theirs.messages.len();
            if ours.database == theirs.database {
                continue;
            }
            // The last look came behind the reads: what had been replayed by then, the one before it says.
            let before = quiet.iter().rev().skip(1).find_map(|o| copy_in(o, member, name));
            match before.map(|c| c.replayed) {
                Some(last) => wrong.extend(different(e, last, (source, ours), (member, theirs))),
                None => {
                    unclear = Some(format!(
                        "what {member} had replayed of {name} before it was read is not known"
                    ))
                }
            }
        }
    }
    (compared, wrong, unclear)
}

/// The messages up to generation `last` that only one of them has.
fn different(
    e: &Evidence<'_>,
    last: u64,
    (source, ours): (&str, &Group),
    (member, theirs): (&str, &Group),
) -> Vec<String> {
    // A deletion may be in the open log too.
    let deletes = e
        .ops
        .iter()
        .filter(|o| o.kind == OpKind::Delete && o.outcome != Outcome::Fail);
    let deleted: BTreeSet<&str> = deletes
        .filter(|o| o.by.is_none_or(|by| by.generation > last))
        .map(|o| o.key)
        .collect();
    let only = |have: &Group, lack: &Group| -> Vec<Message> {
        let lacking = have.messages.iter().filter(|m| !lack.messages.contains(m));
        lacking.cloned().collect()
    };
    let named = |m: &Message, node: &str| {
        let key = m.key.as_deref().unwrap_or("a message without a key");
        format!(
            "only {node} has {key}, of generation {} in epoch {}",
            m.generation, m.epoch
        )
    };
    let missing = only(ours, theirs)
        .into_iter()
        .filter(|m| m.generation <= last)
        .map(|m| named(&m, source));
    let strange = only(theirs, ours);
    let strange = strange
        .iter()
        .filter(|m| m.key.as_deref().is_none_or(|k| !deleted.contains(k)));
    missing.chain(strange.map(|m| named(m, member))).collect()
}
