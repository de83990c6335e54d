//! The pages of a run: one over all its scenarios, and one for each. Self-contained: nothing is fetched, and nothing runs but
//! one script of our own, which moves the timeline. Without it the pages are whole.

mod parts;
#[cfg(test)]
mod tests;

use super::spoken::{Spoken, spoken};
use super::svg::{Rect, Timeline};
use super::table::word;
use super::timeline::{draw, overview};
use crate::error::{IoContext, Result};
use crate::picture::text::{begin, short, visible};
use crate::picture::{Tracks, sentence, tokens};
use crate::spec::Lab;
use crate::verify::{History, RunReport, ScenarioReport, Verdict};
use parts::{Fault, Invariant, Kept, Ops, Phase, Shown, Votes};
use serde::Serialize;

/// A scenario's part of a run.
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
struct RunPage<'a> {
    lab: &'a Lab,
    run: &'a RunReport,
    verdict: &'static str,
    counts: [(&'static str, usize); 4],
    ran: Vec<Row<'a>>,
    skipped: Vec<Row<'a>>,
    /// Name of a scenario's page in its folder.
    file: &'a str,
    on_purpose: Vec<String>,
    missing: &'a [String],
    version: &'static str,
    tokens: String,
}

/// Characters of a scenario's text that its page shows at most.
const SCENARIO: usize = 100_000;

/// What moves the timeline.
const SCRIPT: &str = include_str!("../../templates/report/timeline.js");

/// What a page may do: nothing but to show its own styles and run this script.
fn policy() -> String {
    use base64ct::{Base64, Encoding};
    use sha2::{Digest, Sha256};
    let hash = Base64::encode_string(&Sha256::digest(SCRIPT));
    format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'")
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    report: &'a ScenarioReport,
    name: String,
    verdict: &'static str,
}

#[derive(Debug, Serialize)]
struct ScenarioPage<'a> {
    lab: &'a Lab,
    run: &'a RunReport,
    s: Section<'a>,
    /// The page over all scenarios, seen from this one.
    up: String,
    version: &'static str,
    tokens: String,
}

#[derive(Debug, Serialize)]
struct Section<'a> {
    report: &'a ScenarioReport,
    name: String,
    /// The seed of this turn.
    seed: u64,
    verdict: &'static str,
    scenario: &'a str,
    sentence: String,
    timeline: Option<Timeline>,
    overview: Vec<Rect>,
    spoken: Vec<Spoken>,
    phases: Vec<Phase>,
    invariants: Vec<Invariant<'a>>,
    faults: Vec<Fault<'a>>,
    loss: Vec<Kept>,
    votes: Vec<Votes>,
    events: Vec<Shown>,
    more_events: usize,
    ops: Vec<Ops>,
}

/// One of the templates, filled.
pub(super) fn render(name: &str, with: &impl Serialize) -> Result<String> {
    let mut env = minijinja::Environment::new();
    env.add_filter("seconds", |ms: f64| format!("{:.2} s", ms / 1e3));
    env.add_filter("short", |text: String| short(&text));
    env.add_filter("long", |text: String| begin(&text, SCENARIO));
    for (name, text) in [
        ("macros.html", include_str!("../../templates/report/macros.html")),
        ("style.css", include_str!("../../templates/report/style.css")),
        ("index.html", include_str!("../../templates/report/index.html")),
        ("run.html", include_str!("../../templates/report/run.html")),
        ("scenario.html", include_str!("../../templates/report/scenario.html")),
    ] {
        env.add_template(name, text)
            .tried("read the template of the report", name)?;
    }
    env.add_global("script", SCRIPT);
    env.add_global("policy", policy());
    let page = env
        .get_template(name)
        .and_then(|t| t.render(minijinja::value::Serde(with)));
    // The templates have no hidden characters: what there is comes from others.
    Ok(visible(&page.tried("write the report", name)?))
}

/// The run as one page, with links to the pages of its scenarios at `NAME/FILE`. `missing` is what could not be read of it.
///
/// # Errors
/// Only where a template is wrong.
pub fn run_page(lab: &Lab, run: &RunReport, file: &str, missing: &[String]) -> Result<String> {
    let count = |v: Verdict| run.scenarios.iter().filter(|s| s.verdict == v).count();
    let row = |report| Row {
        report,
        name: ScenarioReport::name(report),
        verdict: word(report.verdict),
    };
    let (skipped, ran) = run
        .scenarios
        .iter()
        .map(row)
        .partition(|r| r.report.verdict == Verdict::Skipped);
    let page = RunPage {
        lab,
        run,
        verdict: word(run.verdict),
        counts: [Verdict::Pass, Verdict::Fail, Verdict::Unknown, Verdict::Skipped].map(|v| (word(v), count(v))),
        on_purpose: run.on_purpose.lines(),
        ran,
        skipped,
        file,
        missing,
        version: env!("CARGO_PKG_VERSION"),
        tokens: tokens::style(),
    };
    render("run.html", &page)
}

/// A scenario as one page, in a folder below that of the run's page `file`.
///
/// # Errors
/// Only where a template is wrong.
pub fn scenario_page(lab: &Lab, run: &RunReport, page: &Page<'_>, file: &str) -> Result<String> {
    let page = ScenarioPage {
        lab,
        run,
        s: section(lab, run, page),
        up: format!("../{file}"),
        version: env!("CARGO_PKG_VERSION"),
        tokens: tokens::style(),
    };
    render("scenario.html", &page)
}

fn section<'a>(lab: &Lab, run: &RunReport, page: &Page<'a>) -> Section<'a> {
    let (report, history) = (page.report, page.history);
    let tracks = Tracks::of(lab, history);
    let from_us = tracks.as_ref().map_or(history.from_us, |(t, _)| t.extent.from_us);
    let at = |t_us: u64| (t_us as f64 - from_us as f64) / 1e6;
    let (events, more_events) = parts::events(history, &at);
    Section {
        report,
        name: report.name(),
        seed: run.seed.wrapping_add(u64::from(report.turn.saturating_sub(1))),
        verdict: word(report.verdict),
        scenario: page.scenario,
        sentence: tracks
            .as_ref()
            .map_or_else(String::new, |(t, end)| sentence(end, t.extent.from_us)),
        timeline: tracks.as_ref().map(|(t, _)| draw(lab, history, t)),
        overview: tracks.as_ref().map_or_else(Vec::new, |(t, _)| overview(history, t)),
        spoken: tracks.as_ref().map_or_else(Vec::new, |(t, _)| spoken(history, t)),
        phases: parts::phases(lab, report),
        invariants: report
            .invariants
            .iter()
            .map(|i| parts::invariant(i, history, &at))
            .collect(),
        faults: report.faults.iter().map(|f| parts::fault(f, &at)).collect(),
        loss: parts::loss(lab, history),
        votes: parts::votes(lab, history, &at),
        events,
        more_events,
        ops: parts::operations(history),
    }
}
