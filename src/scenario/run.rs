//! One scenario against one world, from "is it healthy?" to the verdict.

use super::expect::Expectation;
use super::file::{Expect, Step};
use super::roles::Roles;
use super::watch::{Sometimes, Watch};
use super::{Heal, Observation, Progress, Scenario, World};
use crate::error::{Error, Problem, Result};
use crate::event::{Draft, Severity, Source};
use crate::fault::Words;
use crate::units::Span;
use crate::verify::{self, Check, Context, History, HostSpeed, Mark, ScenarioReport, Verdict};
use crate::wait::Slowness;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a lab may take until it is healthy before the first step, and drained after the last one. Unscaled.
const SETTLE: Span = Span::secs(90);
/// The longest time between two looks: what the clients count is no news of the lab.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// What became of a scenario.
#[derive(Debug)]
pub struct Run {
    /// The verdict and all that it rests on.
    pub report: ScenarioReport,
    /// What the run left behind.
    pub history: History,
}

/// How far a scenario came.
#[derive(Debug, Clone, Copy)]
pub enum Stage<'a> {
    /// The step of this number, from 0, is about to be done.
    Begins(usize),
    /// It was done.
    Ended {
        /// The step's number, from 0.
        step: usize,
        /// How it went.
        check: &'a Check,
        /// The last look at the lab; none where none was taken.
        seen: Option<&'a Observation>,
        /// Who is who behind the step.
        roles: &'a Roles,
        /// What the clients counted so far.
        progress: Progress,
    },
}

/// Somebody who is told of each step of a scenario, and may take time over it; an error ends the scenario like one of its world.
pub type Follower<'a> = &'a dyn Fn(Stage<'_>) -> Result<()>;

/// Runs a scenario. Faults are undone and clients stopped whatever happens.
///
/// # Errors
/// [`Error::Interrupted`] where the person wanted it to end; a world that fails otherwise makes the scenario *unknown*.
pub fn run(world: &mut dyn World, scenario: &Scenario, seed: u64) -> Result<Run> {
    run_followed(world, scenario, seed, &|_| Ok(()))
}

/// The same with somebody who follows it.
///
/// # Errors
/// As of [`run`].
pub fn run_followed(world: &mut dyn World, scenario: &Scenario, seed: u64, follower: Follower<'_>) -> Result<Run> {
    let began_us = world.now_us();
    let mut runner = Runner {
        roles: Roles::of(world.lab()),
        world,
        seed,
        history: History {
            from_us: began_us,
            ..History::default()
        },
        made: Vec::new(),
        watches: Vec::new(),
        sometimes: scenario.sometimes.iter().cloned().map(Sometimes::new).collect(),
        checks: Vec::new(),
        by_events: Vec::new(),
        interrupted: false,
        follower: Some(follower),
    };
    runner.note(
        "scenario.begin",
        json!({"id": scenario.id, "title": scenario.title, "seed": seed, "parameters": scenario.parameters}),
    );
    let whole = runner.steps(scenario);
    runner.end(whole)?;
    let history = std::mem::take(&mut runner.history);
    let context = Context::of(runner.world.lab(), runner.slowness());
    let mut report = verify::judge(
        scenario.judged(),
        &history,
        &context,
        std::mem::take(&mut runner.checks),
    );
    report.host = Some(HostSpeed {
        slowness: runner.world.slowness().factor(),
        busy: (runner.world.busy() * 10.0).round() / 10.0,
    });
    report.looks = verify::Looks::of(&history.observations);
    report.seconds = runner.world.now_us().saturating_sub(began_us) as f64 / 1e6;
    runner.note(
        "scenario.end",
        json!({"id": scenario.id, "verdict": report.verdict, "why": report.why}),
    );
    Ok(Run { report, history })
}

impl Scenario {
    /// What of it the verdict rests on.
    pub fn judged(&self) -> verify::Judged<'_> {
        verify::Judged {
            id: &self.id,
            title: &self.title,
            invariants: &self.invariants,
            forbid: &self.forbid,
            events: &self.require.events,
            sometimes: &self.sometimes_events,
            acks: self.require.acks,
            closed_generations: self.require.closed_generations,
            role_changes: self.require.role_changes,
        }
    }
}

pub(super) struct Runner<'a> {
    pub world: &'a mut dyn World,
    pub roles: Roles,
    pub seed: u64,
    /// What the run leaves behind; faults that are still on have no end.
    pub history: History,
    /// The faults that were made.
    pub made: Vec<Made>,
    /// What must be true for a time.
    pub watches: Vec<Watch>,
    /// What must be true at least once.
    pub sometimes: Vec<Sometimes>,
    pub checks: Vec<Check>,
    /// Checks that failed because an event was not seen.
    pub by_events: Vec<usize>,
    pub interrupted: bool,
    /// Whoever is told of the scenario's own steps; those of a branch are nobody's.
    pub follower: Option<Follower<'a>>,
}

/// A fault that was made, as the scenario says it.
#[derive(Clone)]
pub(super) struct Made {
    pub id: u64,
    pub label: Option<String>,
    pub words: Words,
    /// The machine that it was made on.
    pub on: Option<String>,
    pub begin_us: u64,
}

/// How a step ended that did not go well.
pub(super) enum Broken {
    /// The lab did not do what it must do.
    Failed(String),
    /// Nothing can be said.
    Unclear(String),
    /// Something did not happen that events tell of.
    Unseen(String),
    /// The person wants to stop.
    Interrupted,
}

impl From<Error> for Broken {
    fn from(e: Error) -> Self {
        match e {
            Error::Interrupted => Broken::Interrupted,
            e => Broken::Unclear(e.to_string()),
        }
    }
}

impl Runner<'_> {
    /// Whether all of them went well.
    fn steps(&mut self, scenario: &Scenario) -> bool {
        if self.world.lab().says_how_it_is() {
            let ready = self.settle(&Expectation::HEALTHY).map_err(|e| match e {
                Broken::Failed(seen) => Broken::Unclear(format!("the lab was not healthy to begin with: {seen}")),
                other => other,
            });
            if !self.check("begin", "the lab is healthy", ready) || !self.set_all(&scenario.settings) {
                return false;
            }
            if let Some(seen) = self.history.observations.last() {
                self.roles.begin(seen);
            }
        }
        if !self.walk(&scenario.steps, "step", &AtomicBool::new(false)) {
            return false;
        }
        let done = self.last_watches();
        let now = self.world.now_us();
        self.mark(None, now);
        if let Err(broken) = done {
            self.check("end", "what must hold was looked at to its end", Err(broken));
        }
        self.close_watches()
    }

    /// Does the steps until one does not go well or somebody wants to `stop`; whether all did. `place` is what the report calls them.
    pub(super) fn walk(&mut self, steps: &[Step], place: &str, stop: &AtomicBool) -> bool {
        for (i, step) in steps.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                self.interrupted = true;
                return false;
            }
            let name = format!("{place} {}", i + 1);
            let (file, line) = (&step.file, step.line);
            let data = json!({"step": i + 1, "place": name, "file": file, "line": line, "text": step.text});
            self.note("step.begin", data);
            let begun = self.tell(Stage::Begins(i)).map_err(Broken::from);
            let begin_us = self.world.now_us();
            let done = begun.and_then(|()| self.step(step, &name)).and_then(|seen| {
                // What an act brought with it is seen behind it; the other steps have looked themselves.
                if step.action.acts() && self.world.lab().says_how_it_is() {
                    self.look(None)?;
                }
                Ok(seen)
            });
            self.mark(step.label.clone(), begin_us);
            let well = self.check(&name, &step.text, done);
            let last = self.checks.last();
            let (verdict, seen) = (last.map(|c| c.verdict), last.map(|c| &c.detail));
            let data = json!({"step": i + 1, "place": name, "verdict": verdict, "seen": seen});
            self.note("step.end", data);
            if self.tell_ended(i).is_err() {
                self.interrupted = true;
                return false;
            }
            if !well || self.watches.iter().any(Watch::is_broken) {
                self.close_watches();
                return false;
            }
        }
        true
    }

    fn tell(&self, stage: Stage<'_>) -> Result<()> {
        self.follower.map_or(Ok(()), |follower| follower(stage))
    }

    fn tell_ended(&self, step: usize) -> Result<()> {
        let Some(check) = self.checks.last().filter(|_| !self.interrupted) else {
            return Ok(());
        };
        self.tell(Stage::Ended {
            step,
            check,
            seen: self.history.observations.last(),
            roles: &self.roles,
            progress: self.world.progress(),
        })
    }

    /// Remembers a step that has a label, and who is who behind it; without one, the end of the steps.
    fn mark(&mut self, label: Option<String>, begin_us: u64) {
        let behind_all = label.is_none();
        let marks = &mut self.history.marks;
        // Steps without a label leave the end where it will be.
        if behind_all {
            marks.retain(|m| m.label.is_some());
        }
        let nodes = self.history.observations.last().map(|seen| self.roles.all(seen));
        marks.push(Mark {
            label,
            begin_us,
            nodes: nodes.unwrap_or_default(),
        });
    }

    /// Keeps how a step went; false where the rest makes no sense.
    pub(super) fn check(&mut self, id: &str, text: &str, done: Result<String, Broken>) -> bool {
        let (verdict, detail) = match done {
            Ok(seen) => (Verdict::Pass, seen),
            Err(Broken::Failed(seen)) => (Verdict::Fail, seen),
            Err(Broken::Unclear(seen)) => (Verdict::Unknown, seen),
            Err(Broken::Unseen(seen)) => {
                self.by_events.push(self.checks.len());
                (Verdict::Fail, seen)
            }
            Err(Broken::Interrupted) => {
                self.interrupted = true;
                return false;
            }
        };
        self.checks.push(Check {
            id: id.to_owned(),
            text: text.to_owned(),
            verdict,
            detail,
        });
        verdict == Verdict::Pass
    }

    pub(super) fn settle(&mut self, word: &Expectation) -> Result<String, Broken> {
        self.expect(&Expect::of(word.clone(), SETTLE))
    }

    /// How slow the machines are: the host by itself, and what else it had to do.
    pub(super) fn slowness(&self) -> Slowness {
        Slowness::new(self.world.slowness().factor() * self.world.busy())
    }

    /// Stops clients, undoes faults, waits until nothing is on its way, and takes the final reads.
    fn end(&mut self, whole: bool) -> Result<()> {
        let stopped = self.world.stop_load();
        let healed = self.world.heal(&Heal::All).map(|healed| self.keep_healed(healed));
        for (what, result) in [
            ("the clients stop", stopped),
            ("the faults are undone", healed.map(drop)),
        ] {
            if let Err(e) = result {
                self.check("end", what, Err(e.into()));
            }
        }
        if self.interrupted {
            return Err(Error::Interrupted);
        }
        if self.world.lab().runtime.is_some() {
            // Twice: that one node has nothing left may be older than what another one still had for it.
            let drained = self
                .settle(&Expectation::DRAINED)
                .and_then(|_| self.settle(&Expectation::DRAINED));
            let drained = drained.map_err(|e| match e {
                Broken::Failed(seen) => Broken::Unclear(format!("the final reads came too early: {seen}")),
                other => other,
            });
            self.check("end", "nothing is on its way", drained);
        }
        if self.interrupted {
            return Err(Error::Interrupted);
        }
        match self.world.finish(&mut self.history) {
            Ok(()) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(e) => {
                self.check("end", "the final reads", Err(e.into()));
            }
        }
        self.history.observations.sort_by_key(|o| o.t_us);
        self.history.faults.sort_by_key(|f| f.id);
        // An event that never arrived may have been the one.
        if verify::is_missing_events(&self.history) {
            for at in std::mem::take(&mut self.by_events) {
                self.checks[at].verdict = Verdict::Unknown;
                self.checks[at].detail.push_str("; but not every event arrived");
            }
        }
        self.checks.extend(self.sometimes.iter().map(|s| s.check(whole)));
        Ok(())
    }

    pub(super) fn note(&mut self, kind: &str, data: serde_json::Value) {
        self.world
            .note(Draft::new(Source::Tool, kind).severity(Severity::Info).data(data));
    }
}

/// The problem of a scenario that could not be run at all.
pub(super) fn not_run(scenario: &Scenario, why: &Error) -> ScenarioReport {
    let problem = Problem::new("run the scenario").on(&scenario.id).observed(why);
    ScenarioReport {
        why: Some(problem.to_string()),
        ..ScenarioReport::empty(&scenario.id, &scenario.title, Verdict::Unknown)
    }
}
