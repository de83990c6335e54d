//! The verdicts as a table for a terminal.

use crate::verify::{Distribution, HostSpeed, RunReport, ScenarioReport, Verdict};
use std::fmt::Write;

/// The word of a verdict.
pub(super) fn word(v: Verdict) -> &'static str {
    match v {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Unknown => "unknown",
        Verdict::Skipped => "skipped",
    }
}

/// One line for each scenario, with what is wrong below it. Colours are for a terminal that wants them.
pub fn table(run: &RunReport, colours: bool) -> String {
    let mut out: String = run.on_purpose.lines().iter().map(|l| format!("{l}\n")).collect();
    let paint = |v: Verdict, text: &str| match (colours, v) {
        (false, _) => text.to_owned(),
        (true, Verdict::Pass) => format!("\x1b[32m{text}\x1b[0m"),
        (true, Verdict::Fail) => format!("\x1b[31;1m{text}\x1b[0m"),
        (true, Verdict::Unknown) => format!("\x1b[33m{text}\x1b[0m"),
        (true, Verdict::Skipped) => format!("\x1b[2m{text}\x1b[0m"),
    };
    let widest = |f: fn(&ScenarioReport) -> String, head: usize| {
        run.scenarios
            .iter()
            .map(|s| f(s).chars().count())
            .max()
            .unwrap_or(0)
            .max(head)
    };
    let (ids, titles) = (widest(ScenarioReport::name, 8), widest(|s| s.title.clone(), 5).min(52));
    let line = |out: &mut String, cells: [&str; 8]| {
        let [id, title, verdict, outage, detect, acked, lost, seconds] = cells;
        writeln!(
            out,
            "{id:ids$}  {title:titles$}  {verdict}  {outage:>9}  {detect:>9}  {acked:>6}  {lost:>5}  {seconds:>7}"
        )
        .expect("a string takes all");
    };
    line(
        &mut out,
        [
            "scenario", "title", "verdict", "outage", "detect", "acked", "lost", "time",
        ],
    );
    for s in &run.scenarios {
        let ms = |v: Option<u64>| v.map_or_else(|| "-".to_owned(), |v| format!("{:.2} s", v as f64 / 1e3));
        let title: String = s.title.chars().take(titles).collect();
        let verdict = paint(s.verdict, &format!("{:7}", word(s.verdict)));
        line(
            &mut out,
            [
                &s.name(),
                &title,
                &verdict,
                &ms(s.timings.outage_ms),
                &ms(s.timings.detect_ms),
                &s.loss.acked.to_string(),
                &s.loss.lost.to_string(),
                &format!("{:.1} s", s.seconds),
            ],
        );
        if let Some(why) = &s.why {
            writeln!(out, "{:ids$}  {}", "", paint(s.verdict, why)).expect("a string takes all");
        }
        if let Some(summary) = s.host.and_then(HostSpeed::summary) {
            writeln!(out, "{:ids$}  {summary}", "").expect("a string takes all");
        }
    }
    run.distributions.iter().for_each(|d| spreads(&mut out, d));
    out
}

/// The figures of several runs of one scenario.
fn spreads(out: &mut String, of: &Distribution) {
    let head = format!("{}, {} runs", of.id, of.runs);
    writeln!(out, "\n{head:28}  {:>9}  {:>9}  {:>9}  runs", "p50", "p95", "max").expect("a string takes all");
    for s in &of.figures {
        let (name, is_time) = name(&s.name);
        let value = |v: u64| match is_time {
            true => format!("{:.2} s", v as f64 / 1e3),
            false => v.to_string(),
        };
        let [p50, p95, max] = [s.p50, s.p95, s.max].map(value);
        writeln!(out, "{name:28}  {p50:>9}  {p95:>9}  {max:>9}  {:>4}", s.count).expect("a string takes all");
    }
}

/// What a figure is called, and whether it is a time in milliseconds.
fn name(figure: &str) -> (&str, bool) {
    match figure {
        "detect_ms" => ("detection", true),
        "arbitrate_ms" => ("arbitration", true),
        "mount_ms" => ("mount", true),
        "first_ack_ms" => ("first answer of the store", true),
        "outage_ms" => ("outage, as clients saw it", true),
        "lost_logs" => ("lost logs", false),
        other => (other, other.ends_with("_ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample;

    #[test]
    fn a_table_says_what_is_wrong() {
        let mut bad = ScenarioReport::empty("F05", "The active node loses power", Verdict::Unknown);
        bad.why = Some("fault 0: there is no evidence of an effect".into());
        bad.host = Some(HostSpeed {
            slowness: 1.0,
            busy: 2.3,
        });
        bad.timings.outage_ms = Some(9_876);
        let run = sample::run(
            Verdict::Unknown,
            vec![ScenarioReport::empty("F00", "Control", Verdict::Pass), bad],
        );
        insta::assert_snapshot!(table(&run, false));
    }

    #[test]
    fn what_is_wrong_on_purpose_stands_before_all_verdicts() {
        let mut run = sample::run(Verdict::Fail, Vec::new());
        let clean = serde_json::to_value(&run).unwrap();
        assert!(clean.get("mutations").is_none() && table(&run, false).starts_with("scenario"));
        run.on_purpose.mutations = vec!["M10 (Two votes and no witness)".into()];
        run.on_purpose.waived = vec!["ccr-without-witness".into()];
        let lines =
            "misconfigured on purpose: M10 (Two votes and no witness)\nbroken on purpose: ccr-without-witness\n";
        assert!(table(&run, false).starts_with(lines));
        let summary = crate::report::summary(&run);
        assert!(lines.lines().all(|l| summary.contains(l)), "{summary}");
        let page = crate::report::html::run_page(&crate::spec::example("ccr"), &run, "x.html", &[]).unwrap();
        assert!(lines.lines().all(|l| page.contains(l)), "{page}");
        let document = serde_json::to_value(&run).unwrap();
        assert_eq!(document["mutations"][0], "M10 (Two votes and no witness)");
        assert_eq!(serde_json::from_value::<RunReport>(document).unwrap(), run);
    }

    #[test]
    fn a_table_has_the_figures_of_several_runs() {
        let runs = [5_500, 6_100, 5_700].into_iter().enumerate().map(|(i, ms)| {
            let mut r = ScenarioReport::empty("F05", "The active node loses power", Verdict::Pass);
            r.turn = i as u32 + 1;
            (r.timings.detect_ms, r.loss.lost_logs) = (Some(ms), i as u64);
            r.checks = vec![crate::verify::Check {
                id: "begin".into(),
                text: "the lab is healthy".into(),
                verdict: Verdict::Pass,
                detail: "healthy".into(),
            }];
            r
        });
        let scenarios: Vec<ScenarioReport> = runs.collect();
        let run = RunReport {
            distributions: crate::verify::distributions(&scenarios),
            ..sample::run(Verdict::Pass, scenarios)
        };
        insta::assert_snapshot!(table(&run, false));
    }
}
