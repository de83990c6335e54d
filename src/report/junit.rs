//! JUnit XML for CI systems: a suite for the run, a case for each scenario.

use crate::error::{IoContext, Result};
use crate::picture::text::{short, visible};
use crate::verify::{RunReport, ScenarioReport, Verdict};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite, XmlString};
use std::fmt::Write;
use std::time::Duration;

/// The run as JUnit XML. A failed scenario is a failure, an unknown one an error: both stop a build, for different reasons.
pub fn junit(run: &RunReport) -> Result<String> {
    let mut report = Report::new("failoverlab");
    let mut suite = TestSuite::new(format!("{} on {}", run.lab, run.on));
    suite.add_property(("seed", run.seed.to_string().as_str()));
    suite.add_property(("accel", run.accel.as_str()));
    for scenario in &run.scenarios {
        suite.add_test_case(case(&run.lab, scenario));
    }
    report.add_test_suite(suite);
    report.to_string().tried("write the JUnit report", &run.lab)
}

fn case(lab: &str, s: &ScenarioReport) -> TestCase {
    let why = visible(&short(s.why.as_deref().unwrap_or_default()));
    let status = match s.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why);
            status
        }
        Verdict::Fail | Verdict::Unknown => {
            let (kind, name) = match s.verdict {
                Verdict::Fail => (NonSuccessKind::Failure, "fail"),
                _ => (NonSuccessKind::Error, "unknown"),
            };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(name).set_message(why).set_description(details(s));
            status
        }
    };
    let mut case = TestCase::new(visible(&format!("{} {}", s.name(), short(&s.title))), status);
    case.set_classname(lab.to_owned());
    if s.seconds.is_finite() && s.seconds >= 0.0 {
        case.set_time(Duration::from_secs_f64(s.seconds));
    }
    case.set_system_out(XmlString::new(details(s)));
    case
}

/// Every check and invariant with its verdict.
fn details(s: &ScenarioReport) -> String {
    let mut out = String::new();
    let checks = s.checks.iter().map(|c| (&c.id, c.verdict, &c.detail));
    let invariants = s.invariants.iter().map(|i| (&i.id, i.verdict, &i.detail));
    for (id, verdict, detail) in checks.chain(invariants) {
        writeln!(
            out,
            "{:8} {id}: {}",
            super::table::word(verdict),
            visible(&short(detail))
        )
        .expect("a string takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample;

    #[test]
    fn two_runs_of_one_scenario_have_two_names() {
        let mut again = ScenarioReport::empty("F05", "The active node loses power", Verdict::Fail);
        again.turn = 2;
        let run = sample::run(
            Verdict::Fail,
            vec![
                ScenarioReport::empty("F05", "The active node loses power", Verdict::Pass),
                again,
            ],
        );
        let text = junit(&run).unwrap();
        for name in [
            "name=\"F05 The active node loses power\"",
            "name=\"F05.2 The active node loses power\"",
        ] {
            assert_eq!(text.matches(name).count(), 1, "{text}");
        }
    }
}
