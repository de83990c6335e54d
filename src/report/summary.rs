//! The run as Markdown, for the summary of a CI job and for pull requests.

use super::table::word;
use super::text::markdown;
use crate::verify::{HostSpeed, RunReport, ScenarioReport, Verdict};
use std::fmt::Write;

fn mark(v: Verdict) -> &'static str {
    match v {
        Verdict::Pass => "✅",
        Verdict::Fail => "❌",
        Verdict::Unknown => "❔",
        Verdict::Skipped => "➖",
    }
}

/// A line over the whole, a table with a row for each scenario that did not pass, and all others below a fold.
pub fn summary(run: &RunReport) -> String {
    let count = |v| run.scenarios.iter().filter(|s| s.verdict == v).count();
    let counts: Vec<String> = [Verdict::Pass, Verdict::Fail, Verdict::Unknown, Verdict::Skipped]
        .into_iter()
        .filter(|v| count(*v) > 0)
        .map(|v| format!("{} {}", count(v), word(v)))
        .collect();
    let mut out = format!(
        "## {} {}: {}\n\n{} on {}, {}, seed {}\n",
        mark(run.verdict),
        markdown(&run.lab),
        word(run.verdict),
        counts.join(", "),
        markdown(&run.on),
        markdown(&run.accel),
        run.seed
    );
    for line in run.on_purpose.lines() {
        let _ = write!(out, "\n{}\n", markdown(&line));
    }
    let (good, bad): (Vec<_>, Vec<_>) = run.scenarios.iter().partition(|s| s.verdict == Verdict::Pass);
    table(&mut out, &bad);
    if !good.is_empty() && !bad.is_empty() {
        let _ = write!(out, "\n<details><summary>{} passed</summary>\n", good.len());
        table(&mut out, &good);
        out.push_str("\n</details>\n");
    } else {
        table(&mut out, &good);
    }
    out
}

fn table(out: &mut String, scenarios: &[&ScenarioReport]) {
    if scenarios.is_empty() {
        return;
    }
    out.push_str(
        "\n| Scenario | Title | Verdict | Outage | Acknowledged | Lost | Why |\n|---|---|---|--:|--:|--:|---|\n",
    );
    for s in scenarios {
        let outage = s
            .timings
            .outage_ms
            .map_or_else(|| "–".to_owned(), |ms| format!("{:.2} s", ms as f64 / 1e3));
        let why = [s.why.clone(), s.host.and_then(HostSpeed::summary)];
        let why: Vec<String> = why.into_iter().flatten().map(|t| markdown(&t)).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} {} | {outage} | {} | {} | {} |",
            markdown(&s.name()),
            markdown(&s.title),
            mark(s.verdict),
            word(s.verdict),
            s.loss.acked,
            s.loss.lost,
            why.join("; ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample;

    #[test]
    fn what_failed_stands_first() {
        let mut bad = ScenarioReport::empty("F05", "The active node loses power", Verdict::Fail);
        bad.why = Some("I3: a|b is missing".into());
        bad.timings.outage_ms = Some(9_876);
        let run = sample::run(
            Verdict::Fail,
            vec![ScenarioReport::empty("F00", "Control", Verdict::Pass), bad],
        );
        insta::assert_snapshot!(summary(&run));
    }
}
