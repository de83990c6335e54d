//! Figures of several runs of one scenario: the middle, the tail and the worst, never the mean alone.

use super::{ScenarioReport, Verdict};
use serde::{Deserialize, Serialize};

/// What the runs of one scenario came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The scenario.
    pub id: String,
    /// How many of its runs have anything to say.
    pub runs: usize,
    /// Each figure that at least one of them has.
    pub figures: Vec<Spread>,
}

/// One figure over several runs. Percentiles are values that were measured: those of the nearest rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Its name in a scenario's own report: `detect_ms`, `lost_logs`.
    pub name: String,
    /// How many runs have it.
    pub count: usize,
    /// Half of them are at most this.
    pub p50: u64,
    /// Of a hundred, 95 are at most this.
    pub p95: u64,
    /// The worst.
    pub max: u64,
}

/// A figure's name and its value in a run; none where the run has none.
type Figure = (&'static str, fn(&ScenarioReport) -> Option<u64>);

const FIGURES: [Figure; 6] = [
    ("detect_ms", |r| r.timings.detect_ms),
    ("arbitrate_ms", |r| r.timings.arbitrate_ms),
    ("mount_ms", |r| r.timings.mount_ms),
    ("first_ack_ms", |r| r.timings.first_ack_ms),
    ("outage_ms", |r| r.timings.outage_ms),
    ("lost_logs", |r| Some(r.loss.lost_logs)),
];

/// Of every scenario that was run more than once, in the order of the reports.
pub fn distributions(reports: &[ScenarioReport]) -> Vec<Distribution> {
    let mut all: Vec<Distribution> = Vec::new();
    for report in reports.iter().filter(|r| r.turn > 1) {
        if all.iter().any(|d| d.id == report.id) {
            continue;
        }
        // One that could not be run has measured nothing.
        let says = |r: &&ScenarioReport| r.id == report.id && r.verdict != Verdict::Skipped && !r.checks.is_empty();
        let runs: Vec<&ScenarioReport> = reports.iter().filter(says).collect();
        let spread = |(name, value): &Figure| spread(name, runs.iter().filter_map(|r| value(r)).collect());
        all.push(Distribution {
            id: report.id.clone(),
            runs: runs.len(),
            figures: FIGURES.iter().filter_map(spread).collect(),
        });
    }
    all
}

fn spread(name: &str, mut values: Vec<u64>) -> Option<Spread> {
    values.sort_unstable();
    let rank = |percent: usize| {
        values
            .get((values.len() * percent).div_ceil(100).saturating_sub(1))
            .copied()
    };
    Some(Spread {
        name: name.to_owned(),
        count: values.len(),
        p50: rank(50)?,
        p95: rank(95)?,
        max: rank(100)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Check;
    use proptest::prelude::*;

    fn report(id: &str, turn: u32, detect_ms: Option<u64>, verdict: Verdict) -> ScenarioReport {
        let mut r = ScenarioReport::empty(id, "x", verdict);
        (r.turn, r.timings.detect_ms, r.loss.lost_logs) = (turn, detect_ms, u64::from(turn));
        r.checks = vec![Check {
            id: "begin".into(),
            text: String::new(),
            verdict,
            detail: String::new(),
        }];
        r
    }

    #[test]
    fn runs_of_one_scenario_are_told_together() {
        use Verdict::{Fail, Pass, Skipped, Unknown};
        let mut not_run = report("F05", 4, None, Unknown);
        not_run.checks.clear();
        let all = [
            report("F00", 1, None, Pass),
            report("F05", 1, Some(300), Pass),
            report("F05", 2, Some(100), Fail),
            report("F05", 3, None, Pass),
            not_run,
            report("F05", 5, Some(1), Skipped),
        ];
        let found = distributions(&all);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id.as_str(), found[0].runs), ("F05", 3));
        let told: Vec<_> = found[0]
            .figures
            .iter()
            .map(|s| (s.name.as_str(), s.count, s.p50, s.p95, s.max))
            .collect();
        assert_eq!(told, [("detect_ms", 2, 100, 300, 300), ("lost_logs", 3, 2, 3, 3)]);
        assert_eq!(distributions(&all[..2]), []);
    }

    proptest! {
        #[test]
        fn a_percentile_is_a_value_that_so_many_do_not_exceed(values in proptest::collection::vec(0u64..1000, 1..200)) {
            let s = spread("x", values.clone()).unwrap();
            for (percent, value) in [(50, s.p50), (95, s.p95), (100, s.max)] {
                prop_assert!(values.contains(&value));
                let below = |limit: u64| values.iter().filter(|v| **v <= limit).count() * 100;
                prop_assert!(below(value) >= percent * values.len());
                // No smaller one would do.
                prop_assert!(value == 0 || below(value - 1) < percent * values.len());
            }
        }
    }
}
