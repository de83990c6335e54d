//! Running a demo: its chapters are run as scenarios are, while somebody is told and asked.

use super::judge::{self, ChapterReport, DemoReport, Left, Scene};
use super::{Ask, Beat, Chapter, Demo};
use crate::error::Result;
use crate::runs::{self, names};
use crate::scenario::{self, Options, Scenario, Stage, Step, World, Worlds};
use crate::verify::{Check, ScenarioReport};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// Somebody for whom a demo is run.
pub trait Audience: Send {
    /// A chapter begins: its number, from 1, of how many.
    ///
    /// # Errors
    /// Where the person leaves; so for the others.
    fn chapter(&mut self, number: usize, of: usize, chapter: &Chapter) -> Result<()>;
    /// Something to read.
    fn beat(&mut self, beat: &Beat) -> Result<()>;
    /// A question: the number of the answer, none where it is skipped.
    fn ask(&mut self, ask: &Ask) -> Result<Option<usize>>;
    /// A step begins.
    fn begins(&mut self, step: &Step) -> Result<()>;
    /// It ended; `say` is what the author says of what was seen.
    fn ended(&mut self, check: &Check, say: Option<&str>) -> Result<()>;
    /// A chapter is over; `rest` is what stands behind its last step.
    fn over(&mut self, report: &ChapterReport, rest: &[&Beat]);
}

/// Nobody: the demo runs by itself.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Audience for Nobody {
    fn chapter(&mut self, _: usize, _: usize, _: &Chapter) -> Result<()> {
        Ok(())
    }
    fn beat(&mut self, _: &Beat) -> Result<()> {
        Ok(())
    }
    fn ask(&mut self, _: &Ask) -> Result<Option<usize>> {
        Ok(None)
    }
    fn begins(&mut self, _: &Step) -> Result<()> {
        Ok(())
    }
    fn ended(&mut self, _: &Check, _: Option<&str>) -> Result<()> {
        Ok(())
    }
    fn over(&mut self, _: &ChapterReport, _: &[&Beat]) {}
}

/// Runs all chapters, each in a world of its own, and writes the run's folder.
///
/// # Errors
/// [`crate::error::Error::Interrupted`] where the person leaves, and where the folder cannot be written.
pub fn run(worlds: &dyn Worlds, demo: &Demo, audience: &mut dyn Audience, options: &Options) -> Result<DemoReport> {
    let taught = Taught {
        worlds,
        demo,
        state: Mutex::new(State {
            audience,
            left: Left::default(),
            played: 0,
            reports: Vec::new(),
        }),
    };
    let scenarios: Vec<Scenario> = demo.chapters.iter().map(|c| c.scenario.clone()).collect();
    // One after the other: there is one person.
    let options = Options {
        jobs: 1,
        repeat: 1,
        ..options.clone()
    };
    let run = scenario::run_all(&taught, &demo.lab, &scenarios, &options)?;
    let chapters = std::mem::take(&mut taught.state().reports);
    let report = DemoReport {
        demo: demo.name.clone(),
        title: demo.head.title.clone(),
        lab: run.lab,
        on: run.on,
        seed: run.seed,
        verdict: chapters
            .iter()
            .map(|c| c.verdict)
            .fold(run.verdict, crate::verify::Verdict::and),
        run: options.folder.clone(),
        chapters,
    };
    let mut text = serde_json::to_vec_pretty(&report).expect("a report is plain data");
    text.push(b'\n');
    runs::write(&options.folder.join(names::DEMO), &text)?;
    Ok(report)
}

/// The worlds of a demo: those that it was given, and somebody who follows.
struct Taught<'a> {
    worlds: &'a dyn Worlds,
    demo: &'a Demo,
    state: Mutex<State<'a>>,
}

/// How far a demo came.
struct State<'a> {
    audience: &'a mut dyn Audience,
    /// Of the chapter that runs.
    left: Left,
    /// How many of its beats were shown.
    played: usize,
    reports: Vec<ChapterReport>,
}

impl<'a> Taught<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().expect("nobody who is told panics")
    }

    fn chapter(&self, id: &str) -> Option<(usize, &Chapter)> {
        self.demo.chapters.iter().enumerate().find(|(_, c)| c.id == id)
    }
}

impl Worlds for Taught<'_> {
    fn open(&self, scenario: &Scenario, seed: u64, folder: &Path) -> Result<Box<dyn World>> {
        self.worlds.open(scenario, seed, folder)
    }

    fn lacks(&self, scenario: &Scenario) -> Option<String> {
        self.worlds.lacks(scenario)
    }

    fn follow(&self, scenario: &Scenario, stage: Stage<'_>) -> Result<()> {
        let Some((i, chapter)) = self.chapter(&scenario.id) else {
            return Ok(());
        };
        let mut state = self.state();
        match stage {
            Stage::Begins(step) => {
                if step == 0 {
                    state.audience.chapter(i + 1, self.demo.chapters.len(), chapter)?;
                }
                state.show_up_to(chapter, step)?;
                state.audience.begins(&chapter.scenario.steps[step])
            }
            Stage::Ended {
                step,
                check,
                seen,
                roles,
                progress,
            } => {
                let over = |ask: &Ask| ask.steps.end == step + 1;
                for (n, _) in chapter.asks.iter().enumerate().filter(|(_, ask)| over(ask)) {
                    let scene = seen.map(|seen| Scene {
                        seen: seen.clone(),
                        roles: roles.clone(),
                        progress,
                    });
                    state.left.scenes.extend(scene.map(|s| (n, s)));
                }
                state.audience.ended(check, chapter.say(step))
            }
        }
    }

    fn ended(&self, report: &ScenarioReport) {
        self.worlds.ended(report);
        let Some((_, chapter)) = self.chapter(&report.id) else {
            return;
        };
        let mut state = self.state();
        let left = std::mem::take(&mut state.left);
        let played = std::mem::take(&mut state.played);
        let judged = judge::chapter(&self.demo.lab, chapter, report, &left);
        // What stands behind steps that were not done makes no sense.
        let last = chapter.scenario.steps.len();
        let rest = chapter.beats.iter().skip(played).filter(|(at, _)| *at == last);
        let rest: Vec<&Beat> = rest.map(|(_, beat)| beat).collect();
        state.audience.over(&judged, &rest);
        state.reports.push(judged);
    }
}

impl State<'_> {
    /// Shows what stands before a step and was not shown yet.
    fn show_up_to(&mut self, chapter: &Chapter, step: usize) -> Result<()> {
        while let Some((_, beat)) = chapter.beats.get(self.played).filter(|(at, _)| *at <= step) {
            self.played += 1;
            match beat {
                Beat::Ask(n) => {
                    let answer = self.audience.ask(&chapter.asks[*n])?;
                    self.left.predicted.extend(answer.map(|answer| (*n, answer)));
                }
                beat => self.audience.beat(beat)?,
            }
        }
        Ok(())
    }
}

impl Chapter {
    /// What the author says of what a step saw.
    fn say(&self, step: usize) -> Option<&str> {
        self.beats.iter().find_map(|(at, beat)| match beat {
            Beat::Watch { says, .. } => says.get(step.checked_sub(*at)?)?.as_deref(),
            _ => None,
        })
    }
}
