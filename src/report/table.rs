//! The verdicts as a table for a terminal.

use crate::verify::{HostSpeed, RunReport, ScenarioReport, Verdict};
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
    let mut out = String::new();
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
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_wrong() {
        let mut bad = ScenarioReport::empty("F05", "The active node loses power", Verdict::Unknown);
        bad.why = Some("fault 0: there is no evidence of an effect".into());
        bad.host = Some(HostSpeed {
            slowness: 1.0,
            busy: 2.3,
        });
        bad.timings.outage_ms = Some(9_876);
        let run = RunReport {
            lab: "ccr".into(),
            seed: 7,
            accel: "tcg".into(),
            on: "machines".into(),
            verdict: Verdict::Unknown,
            scenarios: vec![ScenarioReport::empty("F00", "Control", Verdict::Pass), bad],
        };
        insta::assert_snapshot!(table(&run, false));
    }
}
