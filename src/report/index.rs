//! A page over many runs: a matrix of scenarios by runs, and what differs though nothing else does.

use super::html::render;
use super::table::word;
use crate::error::Result;
use crate::picture::tokens;
use crate::verify::{RunReport, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Runs in the matrix at most, the newest ones; older ones are in the list only.
const COLUMNS: usize = 24;

/// A run in the index.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// Its folder, seen from the page.
    pub folder: String,
    /// Its verdicts.
    pub report: RunReport,
    /// Digest of its lab file; empty where it is not known.
    pub digest: String,
    /// When it began, for people; empty where it is not known.
    pub began: String,
    /// What of it could not be read.
    pub missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct IndexPage<'a> {
    /// Name of a run's page in its folder.
    file: &'a str,
    runs: Vec<Listed<'a>>,
    columns: Vec<Column<'a>>,
    rows: Vec<Row<'a>>,
    version: &'static str,
    tokens: String,
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    folder: &'a str,
    began: &'a str,
    lab: &'a str,
    on: &'a str,
    accel: &'a str,
    seed: u64,
    verdict: &'static str,
    counts: String,
    missing: &'a [String],
}

#[derive(Debug, Serialize)]
struct Column<'a> {
    folder: &'a str,
    began: &'a str,
    number: usize,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: String,
    title: &'a str,
    /// The same lab file, seed, place and acceleration gave different verdicts.
    differs: bool,
    cells: Vec<Option<Cell>>,
}

#[derive(Debug, Serialize)]
struct Cell {
    class: &'static str,
    mark: &'static str,
    outage: String,
}

fn mark(v: Verdict) -> &'static str {
    match v {
        Verdict::Pass => "■ P",
        Verdict::Fail => "✕ F",
        Verdict::Unknown => "◇ ?",
        Verdict::Skipped => "– S",
    }
}

/// The page over these runs, the newest first, each with its own page `file` in its folder.
///
/// # Errors
/// Only where a template is wrong.
pub fn index_page(runs: &[Indexed], file: &str) -> Result<String> {
    let mut titles: BTreeMap<String, &str> = BTreeMap::new();
    for s in runs.iter().rev().flat_map(|r| &r.report.scenarios) {
        titles.insert(s.name(), &s.title);
    }
    let differs = differing(runs);
    let columns = &runs[..runs.len().min(COLUMNS)];
    let row = |(name, title): (String, _)| {
        let cell = |r: &Indexed| {
            let s = r.report.scenarios.iter().find(|s| s.name() == name)?;
            let ms = s.timings.outage_ms;
            Some(Cell {
                class: word(s.verdict),
                mark: mark(s.verdict),
                outage: ms.map_or_else(String::new, |ms| format!("{:.1} s", ms as f64 / 1e3)),
            })
        };
        Row {
            differs: differs.contains(&name),
            cells: columns.iter().map(cell).collect(),
            title,
            name,
        }
    };
    let page = IndexPage {
        file,
        runs: runs.iter().map(listed).collect(),
        columns: columns
            .iter()
            .enumerate()
            .map(|(i, r)| Column {
                folder: &r.folder,
                began: &r.began,
                number: i + 1,
            })
            .collect(),
        rows: titles.into_iter().map(row).collect(),
        version: env!("CARGO_PKG_VERSION"),
        tokens: tokens::style(),
    };
    render("index.html", &page)
}

fn listed(r: &Indexed) -> Listed<'_> {
    let count = |v: Verdict| r.report.scenarios.iter().filter(|s| s.verdict == v).count();
    let all = [Verdict::Pass, Verdict::Fail, Verdict::Unknown, Verdict::Skipped];
    let counts = all.into_iter().filter(|v| count(*v) > 0);
    Listed {
        folder: &r.folder,
        began: &r.began,
        lab: &r.report.lab,
        on: &r.report.on,
        accel: &r.report.accel,
        seed: r.report.seed,
        verdict: word(r.report.verdict),
        counts: counts
            .map(|v| format!("{} {}", count(v), word(v)))
            .collect::<Vec<_>>()
            .join(", "),
        missing: &r.missing,
    }
}

/// The scenarios that had different verdicts in runs between which nothing that is written down differs.
fn differing(runs: &[Indexed]) -> BTreeSet<String> {
    type Same<'a> = (String, &'a str, u64, &'a str, &'a str);
    let mut seen: BTreeMap<Same<'_>, Verdict> = BTreeMap::new();
    let mut differ = BTreeSet::new();
    for r in runs.iter().filter(|r| !r.digest.is_empty()) {
        let run = &r.report;
        for s in run.scenarios.iter().filter(|s| s.verdict != Verdict::Skipped) {
            let same = (
                s.name(),
                r.digest.as_str(),
                run.seed,
                run.accel.as_str(),
                run.on.as_str(),
            );
            if *seen.entry(same).or_insert(s.verdict) != s.verdict {
                differ.insert(s.name());
            }
        }
    }
    differ
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::ScenarioReport;
    use crate::verify::sample;

    const DIFFERS: &str = "<span class=\"differs\">";

    fn run(i: usize, verdict: Verdict) -> Indexed {
        let scenarios = (0..34).map(|n| {
            let mut s = ScenarioReport::empty(&format!("F{n:02}"), "The active node loses power", verdict);
            s.timings.outage_ms = Some(4_200);
            s
        });
        Indexed {
            folder: format!("20261120T{i:06}-ccr"),
            report: sample::run(verdict, scenarios.collect()),
            digest: "d".into(),
            began: "2026-11-20 12:00:00".into(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn five_hundred_runs_are_a_small_page() {
        let runs: Vec<Indexed> = (0..500).map(|i| run(i, Verdict::Pass)).collect();
        let page = index_page(&runs, "report.html").unwrap();
        assert!(page.len() < 300_000, "{} bytes", page.len());
        assert!(
            runs.iter()
                .all(|r| page.contains(&format!("href=\"{}/report.html\"", r.folder)))
        );
        assert!(!page.contains(DIFFERS));
    }

    #[test]
    fn what_differs_and_what_is_torn_is_said() {
        let mut runs = vec![run(1, Verdict::Pass), run(2, Verdict::Fail)];
        runs[1].missing = vec!["verdict.json: it is torn".into()];
        let page = index_page(&runs, "report.html").unwrap();
        assert_eq!(page.matches(DIFFERS).count(), 34);
        assert!(page.contains("it is torn"));
        // Another seed is another thing.
        runs[1].report.seed = 8;
        assert!(!index_page(&runs, "report.html").unwrap().contains(DIFFERS));
    }
}
