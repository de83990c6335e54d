//! One self-contained page: no script, nothing fetched, readable in the dark and in the light.

use super::table::word;
use super::timeline::{Scale, Timeline, draw};
use crate::error::{IoContext, Result};
use crate::event::{Event, Source};
use crate::spec::Lab;
use crate::verify::{History, InvariantId, RunReport, ScenarioReport, Verdict};
use ccr_contract::event::EventKind;
use serde::Serialize;
use serde_json::Value;

const TEMPLATE: &str = include_str!("../../templates/report/report.html");

/// Events that a page shows at most: a journal of hours is for other tools.
const EVENTS: usize = 400;

/// A scenario's part of the page.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// Its verdict.
    pub report: &'a ScenarioReport,
    /// What it rests on.
    pub history: &'a History,
    /// The scenario as it was written.
    pub scenario: &'a str,
}

#[derive(Debug, Serialize)]
struct Whole<'a> {
    lab: &'a Lab,
    run: &'a RunReport,
    verdict: &'static str,
    counts: [(&'static str, usize); 4],
    sections: Vec<Section<'a>>,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Section<'a> {
    report: &'a ScenarioReport,
    anchor: String,
    verdict: &'static str,
    scenario: &'a str,
    timeline: Option<Timeline>,
    phases: Vec<Phase>,
    invariants: Vec<Invariant<'a>>,
    faults: Vec<Fault<'a>>,
    votes: Vec<Votes>,
    events: Vec<Shown>,
    more_events: usize,
    ops: Vec<Ops>,
}

#[derive(Debug, Serialize)]
struct Phase {
    name: &'static str,
    ms: u64,
    limit_ms: Option<u64>,
    /// Of the whole, in a hundred.
    share: f64,
}

#[derive(Debug, Serialize)]
struct Invariant<'a> {
    id: &'a str,
    verdict: &'static str,
    statement: &'static str,
    detail: &'a str,
}

#[derive(Debug, Serialize)]
struct Fault<'a> {
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
struct Votes {
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
struct Shown {
    at: f64,
    node: String,
    kind: String,
    severity: crate::event::Severity,
    data: String,
    number: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Ops {
    kind: &'static str,
    ok: usize,
    fail: usize,
    unknown: usize,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    max_ms: Option<f64>,
}

/// The run as one HTML page.
pub fn html(lab: &Lab, run: &RunReport, pages: &[Page<'_>]) -> Result<String> {
    let mut env = minijinja::Environment::new();
    env.add_filter("seconds", |ms: f64| format!("{:.2} s", ms / 1e3));
    env.add_template("report.html", TEMPLATE)
        .tried("read the template of the report", "report.html")?;
    let sections: Vec<Section<'_>> = pages.iter().enumerate().map(|(i, p)| section(lab, i, p)).collect();
    let count = |v: Verdict| run.scenarios.iter().filter(|s| s.verdict == v).count();
    let whole = Whole {
        lab,
        run,
        verdict: word(run.verdict),
        counts: [Verdict::Pass, Verdict::Fail, Verdict::Unknown, Verdict::Skipped].map(|v| (word(v), count(v))),
        sections,
        version: env!("CARGO_PKG_VERSION"),
    };
    env.get_template("report.html")
        .and_then(|t| t.render(minijinja::value::Serde(&whole)))
        .tried("write the report", "report.html")
}

fn section<'a>(lab: &Lab, index: usize, page: &Page<'a>) -> Section<'a> {
    let (report, history) = (page.report, page.history);
    let scale = Scale::of(history);
    let at = |t_us: u64| scale.map_or(0.0, |s| s.seconds(t_us));
    let (events, more_events) = events(history, &at);
    Section {
        report,
        anchor: format!("s{index}"),
        verdict: word(report.verdict),
        scenario: page.scenario,
        timeline: draw(lab, report, history),
        phases: phases(lab, report),
        invariants: report.invariants.iter().map(invariant).collect(),
        faults: report.faults.iter().map(|f| fault(f, &at)).collect(),
        votes: votes(lab, history, &at),
        events,
        more_events,
        ops: operations(history),
    }
}

fn invariant(i: &crate::verify::InvariantReport) -> Invariant<'_> {
    Invariant {
        id: &i.id,
        verdict: word(i.verdict),
        statement: InvariantId::parse(&i.id).map_or("", InvariantId::statement),
        detail: &i.detail,
    }
}

/// What the time from the fault to the first answer was spent on.
fn phases(lab: &Lab, report: &ScenarioReport) -> Vec<Phase> {
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
                ms,
                limit_ms,
                share: ms as f64 * 100.0 / all as f64,
            })
        })
        .collect()
}

fn fault<'a>(f: &'a crate::verify::FaultRecord, at: &impl Fn(u64) -> f64) -> Fault<'a> {
    let target = match f.target.get("node").and_then(Value::as_str) {
        Some(node) => match f.target.get("role").and_then(Value::as_str) {
            Some(role) => format!("{node} ({role})"),
            None => node.to_owned(),
        },
        None => plain(&f.target),
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

/// JSON as a person reads it: `a: 1, b: x`.
fn plain(v: &Value) -> String {
    match v {
        Value::Null => "–".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join("; "),
        Value::Object(map) => {
            let parts = map.iter().map(|(k, v)| format!("{k}: {}", plain(v)));
            parts.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Votes and witness as each node saw them: at the begin, at the worst (the last look before the first heal), at the end.
fn votes(lab: &Lab, history: &History, at: &impl Fn(u64) -> f64) -> Vec<Votes> {
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
fn events(history: &History, at: &impl Fn(u64) -> f64) -> (Vec<Shown>, usize) {
    let wanted = |e: &&Event| {
        e.t_us >= history.from_us && !matches!(e.src, Source::Client) && e.severity > crate::event::Severity::Debug
    };
    let all: Vec<&Event> = history.events.iter().filter(wanted).collect();
    let quiet = |e: &&&Event| {
        !matches!(
            e.runtime_event().map(|t| t.what),
            Some(
                EventKind::LogClosed { .. }
                    | EventKind::CopyInspected { .. }
                    | EventKind::CopyReplayed { .. }
                    | EventKind::HubQueued { .. }
                    | EventKind::HubDelivered { .. }
            )
        )
    };
    let chosen: Vec<&Event> = if all.len() > EVENTS {
        all.iter().filter(quiet).copied().collect()
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

fn operations(history: &History) -> Vec<Ops> {
    use crate::verify::{OpKind, Outcome};
    let Ok(ops) = history.operations() else {
        return Vec::new();
    };
    [
        (OpKind::Submit, "submit"),
        (OpKind::Deliver, "deliver"),
        (OpKind::Read, "read"),
        (OpKind::Delete, "delete"),
    ]
    .into_iter()
    .filter_map(|(kind, name)| {
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
            kind: name,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample::{self, Change, Plan, history};
    use crate::verify::{Context, Forbidden, InvariantId::*, Judged, Pattern, judge};
    use crate::wait::Slowness;

    fn page(id: &'static str, title: &'static str, changes: &[Change], seed: u64) -> (ScenarioReport, History) {
        let lab = sample::lab();
        let h = history(&Plan {
            seed,
            ..Plan::new(changes)
        });
        let invariants: &[InvariantId] = match changes {
            [Change::PowerOff] => &[I1, I3, I4, I8, I12],
            [] => &[I1, I4, I8, I12],
            _ => &[I1, I2, I4, I8, I12],
        };
        let judged = Judged {
            id,
            title,
            invariants,
            forbid: &[Pattern::of(Forbidden::SplitBrain)],
            events: &[],
            sometimes: &[],
            acks: 50,
            closed_generations: 2,
            role_changes: changes.len() as u64,
        };
        let mut report = judge(judged, &h, &Context::of(&lab, Slowness::NONE), Vec::new());
        report.seconds = 41.3;
        report.looks = (id == "F00").then_some(crate::verify::Looks {
            count: 341,
            per_second: 8.3,
            median_age_ms: 120.5,
        });
        (report, h)
    }

    /// `FAILOVERLAB_SAMPLE_REPORT=FILE` keeps the page, to be looked at.
    #[test]
    fn a_page_is_whole_and_safe() {
        let mut pages = [
            page("F00", "Control: nothing is broken", &[], 1),
            page(
                "F01",
                "Planned move to the other node and back",
                &[Change::Planned, Change::Planned],
                2,
            ),
            page("F05", "The active node loses power", &[Change::PowerOff], 7),
        ];
        pages[1].0.title = "Planned <script>alert(1)</script> move & back".into();
        pages[0].1.faults.clear();
        let lab = sample::lab();
        let mut scenarios: Vec<ScenarioReport> = pages.iter().map(|(r, _)| r.clone()).collect();
        if std::env::var_os("FAILOVERLAB_SAMPLE_REPORT").is_some() {
            scenarios[1].title = "Planned move to the other node and back".into();
            pages[1].0.title = scenarios[1].title.clone();
        }
        let run = RunReport {
            distributions: Vec::new(),
            lab: "ccr".into(),
            seed: 7,
            accel: "tcg".into(),
            on: "machines".into(),
            verdict: Verdict::Pass,
            scenarios,
        };
        let scenario = include_str!("../../labs/ccr/scenarios/F05.toml");
        let pages: Vec<Page<'_>> = pages
            .iter()
            .map(|(report, history)| Page {
                report,
                history,
                scenario,
            })
            .collect();
        let text = html(&lab, &run, &pages).unwrap();
        if let Some(path) = std::env::var_os("FAILOVERLAB_SAMPLE_REPORT") {
            std::fs::write(path, &text).unwrap();
            return;
        }
        assert!(!text.contains("<script"), "text of others is never markup");
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            let namespaces = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!namespaces.contains(outside), "the page fetches something: {outside}");
        }
        for part in [
            "F05",
            "The active node loses power",
            "role active",
            "op fail",
            "class=\"outage\"",
            "noticed",
            "I3",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("undefined") && !text.contains("NaN"));
        assert!(text.len() < 1 << 20, "{} bytes", text.len());
    }

    #[test]
    fn a_run_without_anything_makes_a_page_too() {
        let empty = ScenarioReport::empty("F05", "x", Verdict::Unknown);
        let run = RunReport {
            distributions: Vec::new(),
            lab: "ccr".into(),
            seed: 0,
            accel: "tcg".into(),
            on: "machines".into(),
            verdict: Verdict::Unknown,
            scenarios: vec![empty.clone()],
        };
        let page = Page {
            report: &empty,
            history: &History::default(),
            scenario: "",
        };
        assert!(html(&sample::lab(), &run, &[page]).unwrap().contains("unknown"));
    }
}
