//! One scenario against one world, from "is it healthy?" to the verdict.

use super::expect::Expectation;
use super::expression::View;
use super::roles::Roles;
use super::{Action, Heal, Order, Scenario, Step, World};
use crate::error::{Error, Problem, Result};
use crate::event::{Draft, Severity, Source};
use crate::units::Span;
use crate::verify::{self, Check, Context, History, HostSpeed, Observation, ScenarioReport, Verdict};
use crate::wait::Slowness;
use serde_json::json;
use std::time::Duration;

/// How long a lab may take until it is healthy before the first step, and drained after the last one. Unscaled.
const SETTLE: Span = Span::secs(90);
/// The longest time between two looks: what the clients count is no news of the lab.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a scenario.
#[derive(Debug)]
pub struct Run {
    /// The verdict and all that it rests on.
    pub report: ScenarioReport,
    /// What the run left behind.
    pub history: History,
}

/// Runs a scenario. Faults are undone and clients stopped whatever happens.
///
/// # Errors
/// [`Error::Interrupted`] where the person wanted it to end; a world that fails otherwise makes the scenario *unknown*.
pub fn run(world: &mut dyn World, scenario: &Scenario, seed: u64) -> Result<Run> {
    let began_us = world.now_us();
    let mut runner = Runner {
        roles: Roles::of(world.lab()),
        world,
        seed,
        history: History {
            from_us: began_us,
            ..History::default()
        },
        injected: 0,
        checks: Vec::new(),
        interrupted: false,
    };
    runner.note(
        "scenario.begin",
        json!({"id": scenario.id, "title": scenario.title, "seed": seed}),
    );
    runner.steps(scenario);
    runner.end()?;
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
            acks: self.require.acks,
            closed_generations: self.require.closed_generations,
            role_changes: self.require.role_changes,
        }
    }
}

struct Runner<'a> {
    world: &'a mut dyn World,
    roles: Roles,
    seed: u64,
    /// What the run leaves behind; faults that are still on have no end.
    history: History,
    /// How many faults were made.
    injected: u64,
    checks: Vec<Check>,
    interrupted: bool,
}

/// How a step ended that did not go well.
enum Broken {
    /// The lab did not do what it must do.
    Failed(String),
    /// Nothing can be said.
    Unclear(String),
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
    fn steps(&mut self, scenario: &Scenario) {
        if self.world.lab().runtime.is_some() {
            let ready = self.expect(&Expectation::HEALTHY, SETTLE).map_err(|e| match e {
                Broken::Failed(seen) => Broken::Unclear(format!("the lab was not healthy to begin with: {seen}")),
                other => other,
            });
            if !self.check("begin", "the lab is healthy", ready) {
                return;
            }
            if let Some(seen) = self.history.observations.last() {
                self.roles.begin(seen);
            }
        }
        for (i, step) in scenario.steps.iter().enumerate() {
            let name = format!("step {}", i + 1);
            self.note(
                "step.begin",
                json!({"step": i + 1, "line": step.line, "text": step.text}),
            );
            let done = self.step(step).and_then(|seen| {
                // What an act brought with it is seen behind it; the other steps have looked themselves.
                if step.action.acts() && self.world.lab().runtime.is_some() {
                    self.look(None)?;
                }
                Ok(seen)
            });
            let well = self.check(&name, &step.text, done);
            let last = self.checks.last();
            let data = json!({"step": i + 1, "verdict": last.map(|c| c.verdict), "seen": last.map(|c| &c.detail)});
            self.note("step.end", data);
            if !well {
                return;
            }
        }
    }

    /// Keeps how a step went; false where the rest makes no sense.
    fn check(&mut self, id: &str, text: &str, done: Result<String, Broken>) -> bool {
        let (verdict, detail) = match done {
            Ok(seen) => (Verdict::Pass, seen),
            Err(Broken::Failed(seen)) => (Verdict::Fail, seen),
            Err(Broken::Unclear(seen)) => (Verdict::Unknown, seen),
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

    fn step(&mut self, step: &Step) -> Result<String, Broken> {
        match &step.action {
            Action::Load(workload) => {
                let mut workload = workload.clone();
                workload.seed = self.seed;
                self.world.load(&workload)?;
                Ok(format!("{} clients", workload.clients))
            }
            Action::StopLoad => {
                self.world.stop_load()?;
                Ok(format!("{} operations", self.world.progress().begun))
            }
            Action::Wait(time) => {
                self.look_on(time.duration())?;
                Ok(format!("{time} passed"))
            }
            Action::Until(condition, within) => {
                let seen = self.wait(*within, |runner, seen| {
                    let progress = runner.world.progress();
                    Ok(condition.holds(View {
                        observation: seen,
                        progress: &progress,
                        roles: &runner.roles,
                    }))
                });
                // Without it the scenario was never brought to where it can say something.
                seen.map_err(|e| match e {
                    Broken::Failed(seen) => Broken::Unclear(seen),
                    other => other,
                })
            }
            Action::Fault(words) => {
                let seen = self.look_now()?;
                let fault = words.resolve(self.world.lab(), &|word| self.roles.resolve(word, &seen))?;
                // The nth fault of a run makes the same choices in every run with this seed.
                let fault = fault.seeded(self.seed.rotate_left(32) ^ self.injected);
                self.injected += 1;
                let record = self.world.inject(&fault)?;
                self.roles.hit(&fault);
                let detail = match (record.effective, fault.nodes().as_slice()) {
                    (Some(false), _) => "injected, but no effect is proven".to_owned(),
                    (_, []) => "injected".to_owned(),
                    (_, nodes) => format!("injected on {}", nodes.join(" and ")),
                };
                self.history.faults.push(record);
                Ok(detail)
            }
            Action::Heal(which) => Ok(format!("{} undone", self.heal(which)?)),
            Action::Expect(expectation, within) => {
                let shown = self.expect(expectation, *within)?;
                if expectation.is_of_absence() {
                    // Met by the last look: no node serves, and that is as it should be.
                    self.history
                        .absences
                        .extend(self.history.observations.last().map(|o| o.t_us));
                }
                Ok(shown)
            }
            Action::Operate {
                verb,
                on,
                args,
                refused,
            } => {
                let seen = self.look_now()?;
                let who = |word: &str| self.roles.resolve(word, &seen).map(|t| t.node);
                let mut args = args.clone();
                if let Some(to) = args.get_mut("to") {
                    *to = who(to)?;
                }
                let on = on.as_deref().map(who).transpose()?;
                let order = Order { verb: *verb, on, args };
                let answer = self.world.operate(&order)?;
                self.note("operator.order", json!({"order": order, "answer": answer}));
                match (answer.done, refused) {
                    (true, false) | (false, true) => Ok(answer.seen),
                    (true, true) => Err(Broken::Failed(format!(
                        "it was done, and had to be refused: {}",
                        answer.seen
                    ))),
                    (false, false) => Err(Broken::Failed(answer.seen)),
                }
            }
        }
    }

    /// Lets time pass and looks at the lab all the while: what happens in a wait is seen like what is waited for.
    fn look_on(&mut self, time: Duration) -> Result<(), Broken> {
        let until = self.world.now_us().saturating_add(time.as_micros() as u64);
        loop {
            let left = Duration::from_micros(until.saturating_sub(self.world.now_us()));
            if left.is_zero() {
                return Ok(());
            }
            self.world.await_news(left.min(PAUSE))?;
            self.look(None)?;
        }
    }

    fn expect(&mut self, expectation: &Expectation, within: Span) -> Result<String, Broken> {
        self.wait(within, |runner, seen| {
            expectation.met(runner.world.lab(), &runner.roles, seen)
        })
    }

    /// Looks until `met` says yes or the scaled time has passed; says what was seen last. Only what was so after this began can meet it:
    /// what a node said before a fault says nothing of the time after it.
    fn wait(
        &mut self,
        within: Span,
        met: impl Fn(&Self, &Observation) -> Result<(bool, String)>,
    ) -> Result<String, Broken> {
        let begun = self.world.now_us();
        loop {
            let seen = self.look(Some(begun))?;
            // A host that becomes busy meanwhile has more time.
            let time = self.slowness().scale(within.duration());
            let until = begun.saturating_add(time.as_micros() as u64);
            let (is_met, shown) = met(self, &seen)?;
            if is_met {
                return Ok(shown);
            }
            if self.world.now_us() >= until {
                return Err(Broken::Failed(format!("not within {}: {shown}", Span(time))));
            }
            self.world.await_news(PAUSE)?;
        }
    }

    /// How slow the machines are: the host by itself, and what else it had to do.
    fn slowness(&self) -> Slowness {
        Slowness::new(self.world.slowness().factor() * self.world.busy())
    }

    fn look(&mut self, since_us: Option<u64>) -> Result<Observation> {
        let seen = self.world.observe(since_us)?;
        self.history.observations.push(seen.clone());
        if seen.serving().count() > 1 {
            // One of them may have said so a moment before the other did: what both say of the time after this look decides.
            let again = self.world.observe(Some(seen.t_us))?;
            self.history.observations.push(again.clone());
            return Ok(again);
        }
        Ok(seen)
    }

    fn look_now(&mut self) -> Result<Observation> {
        let now = self.world.now_us();
        self.look(Some(now))
    }

    fn heal(&mut self, which: &Heal) -> Result<usize> {
        let healed = self.world.heal(which)?;
        let count = healed.len();
        for record in healed {
            match self.history.faults.iter_mut().find(|f| f.id == record.id) {
                Some(ours) => *ours = record,
                None => self.history.faults.push(record),
            }
        }
        Ok(count)
    }

    /// Stops clients, undoes faults, waits until nothing is on its way, and takes the final reads.
    fn end(&mut self) -> Result<()> {
        let stopped = self.world.stop_load();
        let healed = self.heal(&Heal::All);
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
                .expect(&Expectation::DRAINED, SETTLE)
                .and_then(|_| self.expect(&Expectation::DRAINED, SETTLE));
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
        Ok(())
    }

    fn note(&mut self, kind: &str, data: serde_json::Value) {
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
