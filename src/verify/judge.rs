//! From a history to a verdict: the invariants, the evidence, the forbidden patterns, the figures.

use super::evidence::{Context, Evidence};
use super::finding::Finding;
use super::{
    BadJournal, Check, History, InvariantId, InvariantReport, Loss, Pattern, ScenarioReport, Timings, Verdict, bounds,
    chain, claims, converge, durability, intent, once, pattern, presence, quorum, single,
};
use crate::event::Event;
use ccr_contract::event::EventKind;

/// The evidence of a history, or why its journal has none.
pub(super) type Gathered<'a> = Result<Evidence<'a>, BadJournal>;

/// What of a scenario its verdict rests on.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its title.
    pub title: &'a str,
    /// The invariants to check.
    pub invariants: &'a [InvariantId],
    /// What must not be seen.
    pub forbid: &'a [Pattern],
    /// Events without which nothing can be said.
    pub events: &'a [Pattern],
    /// Events that must happen at least once.
    pub sometimes: &'a [Pattern],
    /// Acknowledged writes without which nothing can be said.
    pub acks: u64,
    /// Closed generations before the first fault without which nothing can be said.
    pub closed_generations: u64,
    /// Takeovers without which nothing can be said.
    pub role_changes: u64,
}

/// Checks one invariant.
pub fn check(id: InvariantId, history: &History, context: &Context) -> InvariantReport {
    invariant(id, &Evidence::of(history, context))
}

fn invariant(id: InvariantId, evidence: &Gathered<'_>) -> InvariantReport {
    let found = match evidence {
        Err(BadJournal(why)) => Finding::unknown(format!("the client's journal contradicts itself: {why}")),
        Ok(evidence) => match id {
            InvariantId::I1 => single::check(evidence),
            InvariantId::I2 => durability::planned(evidence),
            InvariantId::I3 => durability::lossy(evidence),
            InvariantId::I4 => once::check(evidence),
            InvariantId::I5 => chain::logs(evidence),
            InvariantId::I6 => chain::history(evidence),
            InvariantId::I7 => quorum::check(evidence),
            InvariantId::I8 => bounds::check(evidence),
            InvariantId::I9 => claims::check(evidence),
            InvariantId::I10 => intent::check(evidence),
            InvariantId::I11 => converge::check(evidence),
            InvariantId::I12 => once::clean(evidence),
        },
    };
    InvariantReport {
        id: id.word().to_owned(),
        verdict: found.verdict,
        detail: found.detail,
    }
}

/// The figures of a run; what cannot be known is left out.
pub fn measure(history: &History, context: &Context) -> (Timings, Loss) {
    figures(&Evidence::of(history, context))
}

fn figures(evidence: &Gathered<'_>) -> (Timings, Loss) {
    match evidence {
        Ok(evidence) => (bounds::timings(evidence), durability::loss(evidence)),
        Err(_) => (Timings::default(), Loss::default()),
    }
}

/// The verdict over a scenario: `steps` are what the runner saw itself.
pub fn judge(scenario: Judged<'_>, history: &History, context: &Context, steps: Vec<Check>) -> ScenarioReport {
    let evidence = Evidence::of(history, context);
    let (timings, loss) = figures(&evidence);
    let mut checks = steps;
    checks.extend(presence::network_outages(history));
    checks.extend(presence::events(history));
    if let Ok(evidence) = &evidence {
        checks.extend(presence::served(evidence));
    }
    checks.extend(requirements(&scenario, history, &evidence, &loss));
    checks.extend(history.faults.iter().map(fault));
    checks.extend(scenario.events.iter().map(|p| pattern::required(p, &evidence)));
    // A run that did not come to its end, or of which something is missing, may have ended before it happened.
    let whole = checks.iter().all(|c| c.verdict == Verdict::Pass);
    checks.extend(
        scenario
            .sometimes
            .iter()
            .map(|p| pattern::sometimes(p, &evidence, whole)),
    );
    checks.extend(scenario.forbid.iter().map(|p| pattern::unseen(p, &evidence)));
    let mut invariants: Vec<InvariantReport> = scenario.invariants.iter().map(|i| invariant(*i, &evidence)).collect();
    if presence::network_outages(history).is_some() {
        presence::not_theirs(&mut checks, &mut invariants);
    }
    let parts = checks
        .iter()
        .map(|c| (c.verdict, format!("{}: {}", c.id, c.detail)))
        .chain(
            invariants
                .iter()
                .map(|i| (i.verdict, format!("{}: {}", i.id, i.detail))),
        );
    // A scenario without any check has shown nothing.
    let verdict = parts
        .clone()
        .map(|(v, _)| v)
        .reduce(Verdict::and)
        .map_or(Verdict::Unknown, |v| {
            if v == Verdict::Skipped { Verdict::Unknown } else { v }
        });
    let why = (verdict != Verdict::Pass).then(|| {
        parts
            .into_iter()
            .find(|(v, _)| *v == verdict)
            .map_or_else(|| "nothing was checked".to_owned(), |(_, why)| why)
    });
    ScenarioReport {
        verdict,
        why,
        timings,
        loss,
        faults: history.faults.clone(),
        invariants,
        checks,
        ..ScenarioReport::empty(scenario.id, scenario.title, verdict)
    }
}

/// Less than required is unknown: the run proves nothing.
fn requirements(scenario: &Judged<'_>, history: &History, evidence: &Gathered<'_>, loss: &Loss) -> Vec<Check> {
    let closed = closed_before_fault(history);
    let changes = evidence.as_ref().map_or(0, |e| e.takeovers.len() as u64);
    [
        ("acks", scenario.acks, loss.acked, "acknowledged messages"),
        (
            "closed-generations",
            scenario.closed_generations,
            closed,
            "generations closed before the first fault",
        ),
        (
            "role-changes",
            scenario.role_changes,
            changes,
            "takeovers by another node",
        ),
    ]
    .into_iter()
    .filter(|(_, wanted, ..)| *wanted > 0)
    .map(|(name, wanted, found, what)| Check {
        id: format!("require {name}"),
        text: format!("at least {wanted} {what}"),
        verdict: if found >= wanted {
            Verdict::Pass
        } else {
            Verdict::Unknown
        },
        detail: format!("{found} {what}"),
    })
    .collect()
}

/// By the nodes' events, and where these are less by what the copies were seen to be told of.
fn closed_before_fault(history: &History) -> u64 {
    let first = history.faults.iter().map(|f| f.begin_us).min().unwrap_or(u64::MAX);
    let events = history
        .events
        .iter()
        .filter_map(Event::runtime_event)
        .filter(|t| matches!(t.what, EventKind::LogClosed { .. }))
        .filter(|t| (history.from_us..=first).contains(&t.event.t_us))
        .count() as u64;
    let generated = |o: &super::Observation| {
        o.statuses()
            .flat_map(|(_, s)| s.copies.iter().map(|c| c.generated))
            .max()
    };
    let mut seen = history
        .observations
        .iter()
        .filter(|o| o.t_us <= first)
        .filter_map(generated);
    let grown = seen
        .next()
        .map_or(0, |a| seen.next_back().map_or(0, |z| z.saturating_sub(a)));
    events.max(grown)
}

/// A fault with no proven effect makes the run unknown.
fn fault(f: &super::FaultRecord) -> Check {
    Check {
        id: format!("fault {}", f.id),
        text: format!("{} took effect", f.kind),
        verdict: if f.effective == Some(true) {
            Verdict::Pass
        } else {
            Verdict::Unknown
        },
        detail: match f.effective {
            Some(true) => "proven".to_owned(),
            Some(false) => "the evidence says that it had no effect".to_owned(),
            None if f.pending => "it was about to be made; whether it was is not known".to_owned(),
            None => "there is no evidence of an effect".to_owned(),
        },
    }
}

/// Whether something that must not be seen was seen.
pub fn forbidden(what: &Pattern, history: &History, context: &Context) -> Check {
    pattern::unseen(what, &Evidence::of(history, context))
}
