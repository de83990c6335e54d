//! The parts of a scenario's page, each from its evidence.

use crate::event::{Event, Source};
use crate::picture::text::{fault_target, is_quiet, plain};
use crate::report::bands::kind_word;
use crate::report::table::word;
use crate::spec::Lab;
use crate::verify::{
    Context, Evidence, History, InvariantId, InvariantReport, Op, OpKind, Outcome, ScenarioReport, Verdict,
};
use crate::wait::Slowness;
use serde::Serialize;
use serde_json::Value;

/// Events that a page shows at most: a journal of hours is for other tools.
const EVENTS: usize = 400;
/// Operations that a page shows of an invariant that is broken.
const CULPRITS: usize = 12;

#[derive(Debug, Serialize)]
pub(super) struct Phase {
    name: &'static str,
    /// In the style sheet.
    class: &'static str,
    ms: u64,
    limit_ms: Option<u64>,
    /// Of the whole, in a hundred.
    share: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Invariant<'a> {
    id: &'a str,
    verdict: &'static str,
    statement: &'static str,
    detail: &'a str,
    /// The operations that break it.
    ops: Vec<Culprit>,
}

#[derive(Debug, Serialize)]
pub(super) struct Culprit {
    op: u64,
    kind: &'static str,
    client: String,
    begin: f64,
    end: Option<f64>,
    outcome: &'static str,
    by: Option<String>,
    seen: String,
}

/// What became of the acknowledged messages of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    kind: &'static str,
    acked: usize,
    stored: usize,
    deleted: usize,
    missing: usize,
    twice: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Fault<'a> {
    id: u64,
    kind: &'a str,
    target: String,
    begin: f64,
    seconds: Option<f64>,
    effective: Option<bool>,
    proof: Vec<(String, String)>,
}

/// What one node said of votes and witness at one time.
#[derive(Debug, Serialize)]
pub(super) struct Votes {
    when: String,
    node: String,
    machine: String,
    cluster: String,
    votes: String,
    owner: String,
    witness: String,
    service: String,
    copy: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    at: f64,
    node: String,
    kind: String,
    severity: crate::event::Severity,
    data: String,
    number: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Ops {
    kind: &'static str,
    ok: usize,
    fail: usize,
    unknown: usize,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    max_ms: Option<f64>,
}

/// An invariant, and where it does not hold the operations that its reason names.
pub(super) fn invariant<'a>(i: &'a InvariantReport, history: &'a History, at: &impl Fn(u64) -> f64) -> Invariant<'a> {
    let all = match i.verdict {
        Verdict::Fail | Verdict::Unknown => history.operations().unwrap_or_default(),
        Verdict::Pass | Verdict::Skipped => Vec::new(),
    };
    let named = |o: &&Op<'_>| names(&i.detail, o);
    Invariant {
        id: &i.id,
        verdict: word(i.verdict),
        statement: InvariantId::parse(&i.id).map_or("", InvariantId::statement),
        detail: &i.detail,
        ops: all
            .iter()
            .filter(named)
            .take(CULPRITS)
            .map(|o| culprit(o, at))
            .collect(),
    }
}

/// Whether a reason names an operation, by its number or the key of its message.
fn names(detail: &str, op: &Op<'_>) -> bool {
    let whole = |text: &str| {
        let ends = |c: char| !c.is_alphanumeric();
        detail
            .match_indices(text)
            .any(|(i, _)| detail[i + text.len()..].chars().next().is_none_or(ends))
    };
    whole(&format!("operation {}", op.op)) || (op.kind != OpKind::Read && op.key.len() > 3 && whole(op.key))
}

fn culprit(op: &Op<'_>, at: &impl Fn(u64) -> f64) -> Culprit {
    Culprit {
        op: op.op,
        kind: kind_word(op.kind),
        client: op.client.to_owned(),
        begin: at(op.begin_us),
        end: op.end_us.map(at),
        outcome: match op.outcome {
            Outcome::Ok => "acknowledged",
            Outcome::Fail => "refused",
            Outcome::Unknown => "not known",
        },
        by: op.by.map(|by| format!("{} in epoch {}", by.node, by.epoch)),
        seen: op.seen.to_owned(),
    }
}

/// What became of acknowledged messages, by how they were sent; nothing where the store was not read at the end.
pub(super) fn loss(lab: &Lab, history: &History) -> Vec<Kept> {
    let context = Context::of(lab, Slowness::NONE);
    let Ok(evidence) = Evidence::of(history, &context) else {
        return Vec::new();
    };
    let Some(stored) = evidence.stored() else {
        return Vec::new();
    };
    let deletes = evidence
        .ops
        .iter()
        .filter(|o| o.kind == OpKind::Delete && o.outcome != Outcome::Fail);
    let deleted: std::collections::BTreeSet<&str> = deletes.map(|o| o.key).collect();
    let of_kind = |kind: OpKind| {
        let acked: Vec<&Op<'_>> = evidence.ops.iter().filter(|o| o.kind == kind && o.acked()).collect();
        let count = |is: &dyn Fn(&str) -> bool| acked.iter().filter(|o| is(o.key)).count();
        (!acked.is_empty()).then(|| Kept {
            kind: kind_word(kind),
            acked: acked.len(),
            stored: count(&|key| stored.contains_key(key)),
            deleted: count(&|key| !stored.contains_key(key) && deleted.contains(key)),
            missing: count(&|key| !stored.contains_key(key) && !deleted.contains(key)),
            twice: count(&|key| stored.get(key).is_some_and(|m| m.len() > 1)),
        })
    };
    [OpKind::Submit, OpKind::Deliver]
        .into_iter()
        .filter_map(of_kind)
        .collect()
}

/// What the time from the fault to the first answer was spent on.
pub(super) fn phases(lab: &Lab, report: &ScenarioReport) -> Vec<Phase> {
    let t = &report.timings;
    let ms = |d: crate::units::Span| d.duration().as_millis() as u64;
    let known = [
        ("detect", t.detect_ms, Some(ms(lab.limits.detect))),
        ("arbitrate", t.arbitrate_ms, Some(ms(lab.limits.arbitrate))),
        ("mount", t.mount_ms, Some(ms(lab.limits.mount))),
    ];
    let sum: u64 = known.iter().filter_map(|(_, ms, _)| *ms).sum();
    let client = t
        .first_ack_ms
        .and_then(|all| all.checked_sub(sum))
        .filter(|_| t.detect_ms.is_some());
    let all = (sum + client.unwrap_or(0)).max(1);
    known
        .into_iter()
        .chain([("first client", client, None)])
        .filter_map(|(name, ms, limit_ms)| {
            let ms = ms?;
            Some(Phase {
                name,
                class: if name == "first client" { "client" } else { name },
                ms,
                limit_ms,
                share: ms as f64 * 100.0 / all as f64,
            })
        })
        .collect()
}

pub(super) fn fault<'a>(f: &'a crate::verify::FaultRecord, at: &impl Fn(u64) -> f64) -> Fault<'a> {
    let role = [f.target.get("role"), f.target.get("on").and_then(|on| on.get("role"))];
    let target = match role.into_iter().flatten().find_map(Value::as_str) {
        Some(role) => format!("{} ({role})", fault_target(f)),
        None => fault_target(f),
    };
    let proof = match &f.proof {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), plain(v))).collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(i, v)| (format!("{}", i + 1), plain(v)))
            .collect(),
        other => vec![(String::new(), plain(other))],
    };
    Fault {
        id: f.id,
        kind: &f.kind,
        target,
        begin: at(f.begin_us),
        seconds: f.end_us.map(|e| e.saturating_sub(f.begin_us) as f64 / 1e6),
        effective: f.effective,
        proof,
    }
}

/// Votes and witness as each node saw them: at the begin, at the worst (the last look before the first heal), at the end.
pub(super) fn votes(lab: &Lab, history: &History, at: &impl Fn(u64) -> f64) -> Vec<Votes> {
    let looks = &history.observations;
    let healed = history
        .faults
        .iter()
        .filter_map(|f| f.end_us.filter(|e| *e > f.begin_us))
        .min();
    let worst = healed.and_then(|h| looks.iter().rev().find(|o| o.t_us <= h));
    let mut picked = vec![("begin", looks.first()), ("under fault", worst), ("end", looks.last())];
    picked.retain(|(_, o)| o.is_some());
    let mut out = Vec::new();
    for (when, look) in picked {
        let Some(look) = look else { continue };
        for node in &lab.nodes {
            let Some(view) = look.nodes.get(node.name.as_str()) else {
                continue;
            };
            out.push(vote(format!("{when}, {:.1} s", at(look.t_us)), &node.name, view));
        }
    }
    out
}

fn vote(when: String, node: &str, view: &crate::verify::NodeView) -> Votes {
    let name = |v: Value| v.as_str().unwrap_or("–").to_owned();
    let text = |v: Option<Value>| v.map_or_else(|| "–".to_owned(), name);
    let json = |v: &dyn erased::Plain| v.json();
    let cluster = view.status.as_ref().and_then(|s| s.cluster.as_ref());
    let witness = cluster.and_then(|c| c.witness.as_ref());
    Votes {
        when,
        node: node.to_owned(),
        machine: text(view.machine.as_ref().map(|m| json(m))),
        cluster: text(cluster.map(|c| json(&c.state))),
        votes: cluster.map_or_else(
            || "–".to_owned(),
            |c| {
                format!(
                    "{} of {} ({})",
                    c.votes.have.len(),
                    c.votes.total,
                    c.votes.have.join(", ")
                )
            },
        ),
        owner: cluster
            .and_then(|c| c.quorum_owner.clone())
            .unwrap_or_else(|| "–".to_owned()),
        witness: text(witness.map(|w| json(&w.health))),
        service: view.service().map_or_else(
            || "–".to_owned(),
            |s| {
                format!(
                    "{} on {}",
                    name(json(&s.state)),
                    s.active.as_deref().unwrap_or("nobody")
                )
            },
        ),
        copy: view
            .status
            .as_ref()
            .and_then(|s| s.copies.iter().find(|c| c.node == s.node))
            .map_or_else(
                || "–".to_owned(),
                |c| {
                    format!(
                        "{}, {} of {} inspected",
                        name(json(&c.status)),
                        c.inspected,
                        c.generated
                    )
                },
            ),
    }
}

/// Anything of the contract as JSON.
mod erased {
    pub(super) trait Plain {
        fn json(&self) -> serde_json::Value;
    }
    impl<T: serde::Serialize> Plain for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap_or_default()
        }
    }
}

/// What nodes, tool and hypervisor said; the traffic of logs is left out where there is too much of it.
pub(super) fn events(history: &History, at: &impl Fn(u64) -> f64) -> (Vec<Shown>, usize) {
    let wanted = |e: &&Event| {
        e.t_us >= history.from_us && !matches!(e.src, Source::Client) && e.severity > crate::event::Severity::Debug
    };
    let all: Vec<&Event> = history.events.iter().filter(wanted).collect();
    let chosen: Vec<&Event> = if all.len() > EVENTS {
        all.iter().filter(|e| !is_quiet(e)).copied().collect()
    } else {
        all.clone()
    };
    let shown = chosen.iter().take(EVENTS).map(|e| Shown {
        at: at(e.t_us),
        node: e.node.clone().unwrap_or_else(|| "tool".to_owned()),
        kind: e.kind.clone(),
        severity: e.severity,
        data: if e.data.is_null() {
            String::new()
        } else {
            plain(&e.data)
        },
        number: e.id,
    });
    let shown: Vec<Shown> = shown.collect();
    let more = all.len() - shown.len();
    (shown, more)
}

pub(super) fn operations(history: &History) -> Vec<Ops> {
    let Ok(ops) = history.operations() else {
        return Vec::new();
    };
    [OpKind::Submit, OpKind::Deliver, OpKind::Read, OpKind::Delete]
        .into_iter()
        .filter_map(|kind| {
            let of: Vec<_> = ops.iter().filter(|o| o.kind == kind).collect();
            if of.is_empty() {
                return None;
            }
            let mut took: Vec<u64> = of
                .iter()
                .filter(|o| o.acked())
                .filter_map(|o| Some(o.end_us? - o.begin_us))
                .collect();
            took.sort_unstable();
            let at = |part: f64| {
                let last = took.len().checked_sub(1)?;
                Some(took[(last as f64 * part).round() as usize] as f64 / 1e3)
            };
            let count = |outcome| of.iter().filter(|o| o.outcome == outcome).count();
            Some(Ops {
                kind: kind_word(kind),
                ok: count(Outcome::Ok),
                fail: count(Outcome::Fail),
                unknown: count(Outcome::Unknown),
                p50_ms: at(0.5),
                p95_ms: at(0.95),
                max_ms: at(1.0),
            })
        })
        .collect()
}
