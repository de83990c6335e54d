//! I1: one active at a time, by what the clients were told.

use super::evidence::Evidence;
use super::finding::Finding;
use super::{NodeView, Op, OpKind};
use ccr_contract::reply::By;
use std::collections::BTreeMap;

/// Each epoch has one node, and who asked after an answer of a newer epoch is never answered by an older one.
///
/// An answer is valid at some instant between its operation's begin and end; so two answers contradict each other only
/// where one operation ended before the other began.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let mut answers: Vec<(&Op<'_>, &By)> = e.ops.iter().filter_map(|o| Some((o, o.store_answer()?))).collect();
    let nameless = e
        .ops
        .iter()
        .filter(|o| o.acked() && o.kind != OpKind::Submit && o.by.is_none())
        .count();
    let wrong = contradictions(&mut answers);
    if !wrong.is_empty() {
        return Finding::of(&wrong, String::new);
    }
    if nameless > 0 {
        return Finding::unknown(format!("{nameless} answers of the store do not say by whom they are"));
    }
    if answers.is_empty() {
        return Finding::unknown("the store never answered");
    }
    let epochs: BTreeMap<u64, &str> = answers.iter().map(|(_, by)| (by.epoch, by.node.as_str())).collect();
    let epochs: Vec<String> = epochs
        .iter()
        .map(|(epoch, node)| format!("{node} in epoch {epoch}"))
        .collect();
    Finding::pass(format!("{} answers: {}", answers.len(), epochs.join(", then ")))
}

fn contradictions(answers: &mut [(&Op<'_>, &By)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut owner: BTreeMap<u64, &str> = BTreeMap::new();
    for (op, by) in answers.iter() {
        let first = owner.entry(by.epoch).or_insert(&by.node);
        if *first != by.node {
            wrong.push(format!(
                "both {first} and {} answered in epoch {} (operation {})",
                by.node, by.epoch, op.op
            ));
        }
    }
    // By begin; beside it the highest epoch of all that had ended by then.
    answers.sort_by_key(|(o, _)| o.begin_us);
    let mut ended: Vec<(&Op<'_>, &By)> = answers.to_vec();
    ended.sort_by_key(|(o, _)| o.end_us);
    let mut highest: Option<(&Op<'_>, &By)> = None;
    let mut next = 0;
    for (op, by) in answers.iter() {
        while let Some((o, b)) = ended
            .get(next)
            .filter(|(o, _)| o.end_us.is_some_and(|end| end < op.begin_us))
        {
            if highest.is_none_or(|(_, h)| b.epoch > h.epoch) {
                highest = Some((o, b));
            }
            next += 1;
        }
        if let Some((o, h)) = highest.filter(|(_, h)| h.epoch > by.epoch) {
            wrong.push(format!(
                "{} answered operation {} in epoch {} after {} had answered operation {} in epoch {}",
                by.node, op.op, by.epoch, h.node, o.op, h.epoch
            ));
        }
    }
    wrong
}

/// Two members say that they serve in two looks, and in each between them, or two members answered clients at the same time.
///
/// One look is no proof: what one member says may be older than what the other does. So in the second look both must say what was so
/// after the first one was complete.
pub(super) fn split_brain(e: &Evidence<'_>) -> Finding {
    let mut answers: Vec<(&Op<'_>, &By)> = e.ops.iter().filter_map(|o| Some((o, o.store_answer()?))).collect();
    let wrong = contradictions(&mut answers);
    if !wrong.is_empty() {
        return Finding::of(&wrong, String::new);
    }
    let mut looks = 0;
    let mut since: Option<u64> = None;
    for o in &e.history.observations {
        looks += usize::from(o.statuses().next().is_some());
        let serving: Vec<&str> = o.serving().map(|(n, _)| n).collect();
        if serving.len() < 2 {
            since = None;
            continue;
        }
        let first = *since.get_or_insert(o.t_us);
        let said_after = |v: &NodeView| v.moment.map_or(o.t_us, |m| m.after_us) >= first;
        if o.t_us > first && o.serving().all(|(_, v)| said_after(v)) {
            let t = o.t_us as f64 / 1e6;
            return Finding::fail(format!(
                "{} both said that they serve at {t:.3} s",
                serving.join(" and ")
            ));
        }
    }
    if looks == 0 {
        return Finding::unknown("no node was ever seen");
    }
    Finding::pass(format!("never in {looks} looks and {} answers", answers.len()))
}
