//! What the lab says of a chapter: its questions answered, its limits judged. Pure.

use super::measured::{self, Measured};
use super::{Ask, Chapter};
use crate::scenario::{Observation, Progress, Roles, Statement, Truth};
use crate::spec::Lab;
use crate::verify::{Check, ScenarioReport, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The document of `demo run --json`, and `demo.json` in the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// The demo.
    pub demo: String,
    /// What a person reads of it.
    pub title: String,
    /// The lab.
    pub lab: String,
    /// `machines` or `sim`.
    pub on: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Over all chapters.
    pub verdict: Verdict,
    /// The run's folder.
    pub run: PathBuf,
    /// Each chapter.
    pub chapters: Vec<ChapterReport>,
}

/// What became of a chapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChapterReport {
    /// Its id.
    pub id: String,
    /// What a person reads.
    pub title: String,
    /// Over its scenario, its questions and its limits.
    pub verdict: Verdict,
    /// Why it is not a pass.
    pub why: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What was measured.
    pub measured: Measured,
    /// What had to be true of that.
    pub limits: Vec<Check>,
    /// Its questions.
    pub questions: Vec<Answered>,
}

/// A question that the lab answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// Its id.
    pub id: String,
    /// What was asked.
    pub question: String,
    /// Pass where exactly one answer is right; unknown where the lab could not say.
    pub verdict: Verdict,
    /// The right answer.
    pub right: Option<String>,
    /// What the person predicted; none where nobody did.
    pub predicted: Option<String>,
    /// Why the right answer is right, with what was measured.
    pub why: Option<String>,
    /// What was seen of what the answers turn on.
    pub seen: Vec<String>,
}

/// How the lab was when a question's steps were over.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub seen: Observation,
    pub roles: Roles,
    pub progress: Progress,
}

/// What the run of a chapter left for judging.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// How the lab was behind each question's steps, by the question's number.
    pub scenes: BTreeMap<usize, Scene>,
    /// What was predicted, by the numbers of question and answer.
    pub predicted: BTreeMap<usize, usize>,
}

/// Judges a chapter by the report of its scenario.
pub(super) fn chapter(lab: &Lab, chapter: &Chapter, report: &ScenarioReport, left: &Left) -> ChapterReport {
    let measured = measured::of(report);
    let mut all = ChapterReport {
        id: chapter.id.clone(),
        title: chapter.title.clone(),
        verdict: report.verdict,
        why: report.why.clone(),
        seconds: report.seconds,
        measured,
        limits: Vec::new(),
        questions: Vec::new(),
    };
    if report.verdict == Verdict::Skipped {
        all.measured.clear();
        return all;
    }
    all.limits = chapter.limits.iter().map(|l| limit(lab, l, &all.measured)).collect();
    let answered = |(i, ask): (usize, &Ask)| {
        let predicted = left.predicted.get(&i).and_then(|n| ask.choices.get(*n));
        Answered {
            predicted: predicted.map(|c| c.text.clone()),
            ..answer(lab, ask, left.scenes.get(&i), &all.measured)
        }
    };
    all.questions = chapter.asks.iter().enumerate().map(answered).collect();
    for limit in all.limits.iter().filter(|l| l.verdict != Verdict::Pass) {
        all.why
            .get_or_insert_with(|| format!("{}: {}", limit.text, limit.detail));
    }
    for q in all.questions.iter().filter(|q| q.verdict != Verdict::Pass) {
        let seen = || {
            format!(
                "question {}: not exactly one answer is right: {}",
                q.id,
                q.seen.join("; ")
            )
        };
        all.why.get_or_insert_with(seen);
    }
    let verdicts = all.limits.iter().map(|l| l.verdict);
    let verdicts = verdicts.chain(all.questions.iter().map(|q| q.verdict));
    all.verdict = verdicts.fold(all.verdict, Verdict::and);
    all
}

fn limit(lab: &Lab, limit: &Statement, measured: &Measured) -> Check {
    let (truth, seen) = judged(lab, limit, None, measured);
    Check {
        id: "limit".to_owned(),
        text: limit.to_string(),
        verdict: match truth {
            Truth::Yes => Verdict::Pass,
            Truth::No => Verdict::Fail,
            Truth::Unknown => Verdict::Unknown,
        },
        detail: seen,
    }
}

/// Exactly one answer must be right, and nothing may be open.
fn answer(lab: &Lab, ask: &Ask, scene: Option<&Scene>, measured: &Measured) -> Answered {
    let judged: Vec<(Truth, String)> = ask
        .choices
        .iter()
        .map(|choice| judged(lab, &choice.when, scene, measured))
        .collect();
    let right: Vec<usize> = (0..judged.len()).filter(|i| judged[*i].0 == Truth::Yes).collect();
    let open = judged.iter().any(|(truth, _)| *truth == Truth::Unknown);
    let verdict = match (right.as_slice(), open) {
        (_, true) => Verdict::Unknown,
        ([_], false) => Verdict::Pass,
        _ => Verdict::Fail,
    };
    let one = right
        .first()
        .filter(|_| verdict == Verdict::Pass)
        .map(|i| &ask.choices[*i]);
    let mut seen: Vec<String> = judged.into_iter().map(|(_, seen)| seen).collect();
    seen.dedup();
    Answered {
        id: ask.id.clone(),
        question: ask.question.clone(),
        verdict,
        right: one.map(|c| c.text.clone()),
        predicted: None,
        why: one.map(|c| measured::fill(&c.why, measured)),
        seen,
    }
}

/// Whether it is so: of the lab as it was in a scene, and of what was measured. Nobody can say where there is no scene.
fn judged(lab: &Lab, what: &Statement, scene: Option<&Scene>, measured: &Measured) -> (Truth, String) {
    let (seen, mut roles, progress) = match scene {
        Some(s) => (s.seen.clone(), s.roles.clone(), s.progress),
        None => (Observation::default(), Roles::of(lab), Progress::default()),
    };
    measured::keep(measured, &mut roles);
    what.judge(lab, &roles, &progress, &seen)
        .unwrap_or_else(|e| (Truth::Unknown, e.to_string()))
}
