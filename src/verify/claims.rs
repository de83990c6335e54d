//! I9: what is said of the lab is so, or was so a moment ago.

use super::evidence::Evidence;
use super::finding::Finding;
use super::{NodeView, Observation, SLACK};
use crate::hypervisor::DomainState;
use ccr_contract::status::{CopyStatus, ServiceState, WitnessHealth};
use std::collections::BTreeMap;

/// A claim that a look contradicts: who makes it, and of what.
type Claim = (String, String);

/// I9: no member goes on to say what is not so any more. That a machine runs not is known by the hypervisor; that a member serves not,
/// by the clients, whom another one answers in a newer epoch.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let limits = e.context.limits;
    let limit = limits.detect.duration() + limits.arbitrate.duration() + limits.mount.duration();
    let period_us = e.context.slowness.scale(limit).as_micros() as u64;
    let most_us = period_us * u64::from(SLACK);
    let answers = newest_answers(e);
    let (mut since, mut longest): (BTreeMap<Claim, u64>, BTreeMap<Claim, (u64, u64)>) = Default::default();
    let (mut looks, mut machines) = (0u64, 0u64);
    for look in e.history.observations.iter().filter(|o| o.t_us >= e.history.from_us) {
        looks += u64::from(look.statuses().next().is_some());
        machines += u64::from(look.nodes.values().any(|v| v.machine.is_some()));
        let lies = lies(e, look, &answers);
        since.retain(|claim, _| lies.contains(claim));
        for claim in lies {
            let first = *since.entry(claim.clone()).or_insert(look.t_us);
            let seen = longest.entry(claim).or_insert((first, look.t_us));
            if look.t_us - first >= seen.1 - seen.0 {
                *seen = (first, look.t_us);
            }
        }
    }
    if looks == 0 {
        return Finding::unknown("no node was ever seen");
    }
    if machines == 0 {
        return Finding::unknown("nobody asked the hypervisor what is so");
    }
    let told = |at_least: u64| -> Vec<String> {
        let lasting = longest.iter().filter(|(_, (from, to))| to - from > at_least);
        let words = lasting.map(|((who, what), (from, to))| {
            format!(
                "{who} says from {:.1} s to {:.1} s that {what}",
                *from as f64 / 1e6,
                *to as f64 / 1e6
            )
        });
        words.collect()
    };
    let wrong = told(most_us);
    match (wrong.is_empty(), told(period_us).into_iter().next()) {
        (false, _) => Finding::of(&wrong, String::new),
        (true, Some(late)) => Finding::unknown(format!(
            "{late}: longer than a failover may take, and not three times as long"
        )),
        (true, None) => Finding::pass(format!("{looks} looks: what was said was so, or had just been so")),
    }
}

/// For each answer of the store: when it had come, by whom and in which epoch; in time.
fn newest_answers<'a>(e: &'a Evidence<'_>) -> Vec<(u64, &'a str, u64)> {
    let answers = e.ops.iter().filter_map(|o| Some((o.end_us?, o.store_answer()?)));
    let mut answers: Vec<_> = answers.map(|(t, by)| (t, by.node.as_str(), by.epoch)).collect();
    answers.sort_unstable();
    // Only those that are newer than all before them say something new.
    let mut highest = 0;
    answers.retain(|(_, _, epoch)| {
        *epoch > highest && {
            highest = *epoch;
            true
        }
    });
    answers
}

/// What is said in a look, and is not so.
fn lies(e: &Evidence<'_>, look: &Observation, answers: &[(u64, &str, u64)]) -> Vec<Claim> {
    let mut lies = Vec::new();
    let still = |node: &str| {
        let machine = look.nodes.get(node).and_then(|v| v.machine);
        matches!(machine, Some(DomainState::Off | DomainState::Paused))
    };
    for (node, view) in look.nodes.iter().filter(|(n, v)| v.status.is_some() && !still(n)) {
        let Some(status) = &view.status else { continue };
        let mut lie = |what: String| lies.push((node.clone(), what));
        let service = status.service.as_ref();
        let up = service.filter(|s| matches!(s.state, ServiceState::Online | ServiceState::PartiallyOnline));
        if let Some(active) = up.and_then(|s| s.active.as_deref()).filter(|a| still(a)) {
            lie(format!("{active} serves, whose machine does not run"));
        }
        let witness = status.cluster.as_ref().and_then(|c| c.witness.as_ref());
        let host = e.context.witness.as_deref();
        if let Some(host) = host.filter(|h| still(h) && witness.is_some_and(|w| w.health == WitnessHealth::Ok)) {
            lie(format!("the witness is well, and {host} does not run"));
        }
        for copy in status
            .copies
            .iter()
            .filter(|c| c.status == CopyStatus::Healthy && still(&c.node))
        {
            lie(format!(
                "the copy of {} on {} is Healthy, which does not run",
                copy.group, copy.node
            ));
        }
        if let Some(by) = outdated(node, view, look.t_us, answers) {
            lie(format!("it serves, and {by} answers the clients in a newer epoch"));
        }
    }
    lies
}

/// Who answers the clients in a newer epoch than that in which a member says that it serves.
fn outdated<'a>(node: &str, view: &NodeView, t_us: u64, answers: &[(u64, &'a str, u64)]) -> Option<&'a str> {
    let status = view.status.as_ref().filter(|_| view.serves())?;
    let epoch = status.service.as_ref().and_then(|s| s.epoch).unwrap_or(status.epoch);
    let said_after = view.moment.map_or(t_us, |m| m.after_us);
    let newer = answers
        .iter()
        .find(|(t, by, newer)| *t <= said_after && *by != node && *newer > epoch);
    newer.map(|(_, by, _)| *by)
}
