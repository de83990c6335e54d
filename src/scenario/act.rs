//! What each step does: acting on the lab, waiting, and looking all the while.

use super::file::{Action, Expect, HealWords, Refused, Step};
use super::run::{Broken, Made, PAUSE, Runner};
use super::statement::Statement;
use super::watch::Watch;
use super::{Heal, Observation, Order, World};
use crate::error::Result;
use crate::event::Event;
use crate::fault::Words;
use crate::units::Span;
use crate::verify::{Forbidden, Verdict};
use crate::wait::Slowness;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

/// How long nobody has to be able to say whether something is true that must be. Unscaled.
const HOLE: Duration = Duration::from_secs(5);

impl Runner<'_> {
    /// Does a step; `place` is what the report calls it.
    pub(super) fn step(&mut self, step: &Step, place: &str) -> Result<String, Broken> {
        match &step.action {
            Action::Load(workload) => {
                let mut workload = workload.clone();
                workload.seed = self.seed;
                self.beside(|world| world.load(&workload))?;
                Ok(format!("{} clients", workload.clients))
            }
            Action::StopLoad => {
                self.beside(|world| world.stop_load())?;
                Ok(format!("{} operations", self.world.progress().begun))
            }
            Action::Wait(time) => {
                self.look_on(time.duration())?;
                Ok(format!("{time} passed"))
            }
            Action::Until(what, within) => {
                let within = *within;
                let seen = self.expect(&Expect {
                    what: what.clone(),
                    within,
                    lasts: None,
                    since: None,
                });
                // Without it the scenario was never brought to where it can say something.
                seen.map_err(|e| match e {
                    Broken::Failed(seen) | Broken::Unseen(seen) => Broken::Unclear(seen),
                    other => other,
                })
            }
            Action::Fault { words, lasts } => self.fault(words, step.label.as_ref(), *lasts),
            Action::Heal(words) => self.heal_like(words),
            Action::Expect(expect) => self.expect(expect),
            Action::Holds { what, lasts } => {
                let seen = self.look_now()?;
                let what = what.clone().fixed(&self.roles, &seen)?;
                let begin_us = seen.t_us;
                let end_us = lasts.map(|l| begin_us + l.duration().as_micros() as u64);
                self.watches
                    .push(Watch::new(what, step.label.clone(), begin_us, end_us));
                // What was seen now counts already.
                self.judge_look(&seen)?;
                Ok("from now on".to_owned())
            }
            Action::Release(label) => {
                let seen = self.look_now()?;
                for watch in self.watches.iter_mut().filter(|w| w.label.as_ref() == Some(label)) {
                    watch.end_us = Some(watch.end_us.map_or(seen.t_us, |end| end.min(seen.t_us)));
                }
                Ok("no longer".to_owned())
            }
            Action::Exec(exec) => self.exec(exec),
            Action::Sample(sample) => self.sample(sample, step.label.as_deref()),
            Action::Parallel(branches) => self.parallel(branches, place),
            Action::Operate {
                word,
                on,
                args,
                machines,
                refused,
            } => self.operate(word, on.as_deref(), args, machines, refused),
        }
    }

    fn fault(&mut self, words: &Words, label: Option<&String>, lasts: Option<Span>) -> Result<String, Broken> {
        let seen = self.look_now()?;
        let fault = words.resolve(self.world.lab(), &|word| self.roles.resolve(word, &seen))?;
        let on = words
            .on
            .as_deref()
            .map(|on| self.roles.resolve(on, &seen))
            .transpose()?;
        // The nth fault of a run makes the same choices in every run with this seed.
        let fault = fault.seeded(self.seed.rotate_left(32) ^ self.made.len() as u64);
        let record = self.beside(|world| world.inject(&fault))?;
        self.made.push(Made {
            id: record.id,
            label: label.cloned(),
            words: words.clone(),
            on: on.map(|t| t.node),
            begin_us: record.begin_us,
        });
        self.roles.hit(&fault);
        let detail = match (record.effective, fault.nodes().as_slice()) {
            (Some(false), _) => "injected, but no effect is proven".to_owned(),
            (_, []) => "injected".to_owned(),
            (_, nodes) => format!("injected on {}", nodes.join(" and ")),
        };
        let id = record.id;
        self.history.faults.push(record);
        let Some(lasts) = lasts else {
            return Ok(detail);
        };
        self.look_on(lasts.duration())?;
        self.beside_heal(&Heal::Id(id))?;
        Ok(format!("{detail}, undone after {lasts}"))
    }

    fn heal_like(&mut self, words: &HealWords) -> Result<String, Broken> {
        let seen = self.look_now()?;
        let ids = |fits: &dyn Fn(&Made) -> bool| -> Vec<Heal> {
            self.made
                .iter()
                .rev()
                .filter(|m| fits(m))
                .map(|m| Heal::Id(m.id))
                .collect()
        };
        let which = match words {
            HealWords::All => vec![Heal::All],
            HealWords::Like {
                kind,
                on: None,
                parameters,
            } if parameters.is_empty() => vec![Heal::Kind(*kind)],
            HealWords::Like { kind, on, parameters } => {
                let on = on.as_deref().map(|on| self.roles.resolve(on, &seen)).transpose()?;
                let fits = |m: &Made| {
                    m.words.kind == *kind
                        && on.as_ref().is_none_or(|on| m.on.as_ref() == Some(&on.node))
                        && parameters
                            .iter()
                            .all(|(key, value)| m.words.parameters.get(key) == Some(value))
                };
                let which = ids(&fits);
                if which.is_empty() {
                    return Err(Broken::Unclear(format!("no such {kind} was made")));
                }
                which
            }
            HealWords::Labelled(label) => ids(&|m| m.label.as_ref() == Some(label)),
        };
        let mut undone = 0;
        for heal in &which {
            undone += self.beside_heal(heal)?;
        }
        Ok(format!("{undone} undone"))
    }

    /// Undoes faults, with somebody who looks meanwhile.
    fn beside_heal(&mut self, which: &Heal) -> Result<usize> {
        let healed = self.beside(|world| world.heal(which))?;
        Ok(self.keep_healed(healed))
    }

    pub(super) fn keep_healed(&mut self, healed: Vec<crate::verify::FaultRecord>) -> usize {
        let count = healed.len();
        for record in healed {
            match self.history.faults.iter_mut().find(|f| f.id == record.id) {
                Some(ours) => *ours = record,
                None => self.history.faults.push(record),
            }
        }
        count
    }

    fn operate(
        &mut self,
        word: &str,
        on: Option<&str>,
        args: &BTreeMap<String, String>,
        machines: &[String],
        refused: &Refused,
    ) -> Result<String, Broken> {
        let seen = self.look_now()?;
        let who = |word: &str| self.roles.resolve(word, &seen).map(|t| t.node);
        let mut args = args.clone();
        for (_, machine) in args.iter_mut().filter(|(name, _)| machines.contains(name)) {
            *machine = who(machine)?;
        }
        let on = on.map(who).transpose()?;
        let word = word.to_owned();
        let order = Order { word, on, args };
        let begin_us = self.world.now_us();
        let answer = self.beside(|world| world.operate(&order))?;
        self.note(
            "operator.order",
            json!({"order": order, "answer": answer, "begin_us": begin_us}),
        );
        let seen = answer.seen;
        match (answer.done, refused) {
            (true, Refused::No) | (false, Refused::Yes) => Ok(seen),
            (false, Refused::Because(cause)) if seen.contains(cause) => Ok(seen),
            (false, Refused::Because(cause)) => Err(Broken::Failed(format!(
                "it was refused, but not because of `{cause}`: {seen}"
            ))),
            (true, _) => Err(Broken::Failed(format!("it was done, and had to be refused: {seen}"))),
            (false, Refused::No) => Err(Broken::Failed(seen)),
        }
    }

    /// Does something to the lab; whoever can looks at it meanwhile, so that nothing happens unseen.
    pub(super) fn beside<T>(&mut self, act: impl FnOnce(&mut dyn World) -> Result<T>) -> Result<T> {
        let looker = self.world.looker().filter(|_| self.world.lab().says_how_it_is());
        let Some(mut looker) = looker else {
            return act(self.world);
        };
        let (over, is_over) = mpsc::channel::<()>();
        let (done, seen) = std::thread::scope(|scope| {
            let looking = scope.spawn(move || {
                let mut seen = Vec::new();
                while is_over.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    // A look that fails is none; where none succeeds, there is a hole.
                    seen.extend(looker.look().ok());
                }
                seen
            });
            let done = act(self.world);
            drop(over);
            let seen = looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (done, seen)
        });
        for look in seen {
            self.keep(look)?;
        }
        done
    }

    /// Lets time pass and looks at the lab all the while: what happens in a wait is seen like what is waited for. Ends early where
    /// something is not true that must be.
    fn look_on(&mut self, time: Duration) -> Result<(), Broken> {
        let until = self.world.now_us().saturating_add(time.as_micros() as u64);
        loop {
            let left = Duration::from_micros(until.saturating_sub(self.world.now_us()));
            if left.is_zero() || self.watches.iter().any(Watch::is_broken) {
                return Ok(());
            }
            self.world.await_news(left.min(PAUSE))?;
            self.look(None)?;
        }
    }

    pub(super) fn expect(&mut self, expect: &Expect) -> Result<String, Broken> {
        if let Statement::Event(kind, on) = &expect.what {
            return self.happens(kind, on.as_deref(), expect);
        }
        let (shown, t_us) = self.comes_true(&expect.what, expect.within)?;
        if expect.what.is_of_absence() {
            // Met by the last look: no node serves, and that is as it should be.
            self.history.absences.push(t_us);
        }
        let Some(lasts) = expect.lasts else {
            return Ok(shown);
        };
        let seen = self.history.observations.last().cloned().unwrap_or_default();
        let what = expect.what.clone().fixed(&self.roles, &seen)?;
        let end_us = t_us + lasts.duration().as_micros() as u64;
        self.watches.push(Watch::new(what, None, t_us, Some(end_us)));
        let looked = self.look_on(lasts.duration()).and_then(|()| Ok(self.look_now()?));
        // It is the last one: nothing else can begin meanwhile.
        let watch = self.watches.pop();
        let end = looked?;
        let hole_us = self.hole_us();
        match watch.map(|w| w.verdict(end.t_us, hole_us)) {
            Some((Verdict::Fail, seen)) => Err(Broken::Failed(format!("it did not stay so for {lasts}: {seen}"))),
            Some((Verdict::Unknown, seen)) => Err(Broken::Unclear(seen)),
            _ => Ok(format!("{shown}, for {lasts}")),
        }
    }

    /// Looks until it is so or the scaled time has passed; says what was seen last, and when. Only what was so after this began can meet
    /// it: what a node said before a fault says nothing of the time after it.
    fn comes_true(&mut self, what: &Statement, within: Span) -> Result<(String, u64), Broken> {
        let begun = self.world.now_us();
        // What must be so at once is asked until somebody can say.
        let at_once = within.duration().is_zero();
        let within = if at_once { HOLE } else { within.duration() };
        loop {
            let seen = self.look(Some(begun))?;
            // A host that becomes busy meanwhile has more time.
            let time = self.slowness().scale(within);
            let until = begun.saturating_add(time.as_micros() as u64);
            let progress = self.world.progress();
            let (truth, shown) = what.judge(self.world.lab(), &self.roles, &progress, &seen)?;
            match truth {
                super::Truth::Yes => return Ok((shown, seen.t_us)),
                super::Truth::No if at_once => return Err(Broken::Failed(shown)),
                _ => {}
            }
            if self.world.now_us() >= until {
                return Err(match at_once {
                    true => Broken::Unclear(format!("nobody could say within {}: {shown}", Span(time))),
                    false => Broken::Failed(format!("not within {}: {shown}", Span(time))),
                });
            }
            self.world.await_news(PAUSE)?;
        }
    }

    /// Waits for an event that is told in time.
    fn happens(&mut self, kind: &Forbidden, on: Option<&str>, expect: &Expect) -> Result<String, Broken> {
        let seen = self.look_now()?;
        let node = on.map(|on| self.roles.resolve(on, &seen)).transpose()?.map(|t| t.node);
        let label = |label: &String| {
            let marks = &self.history.marks;
            marks
                .iter()
                .rfind(|m| m.label.as_ref() == Some(label))
                .map(|m| m.begin_us)
        };
        let since_us = expect
            .since
            .as_ref()
            .and_then(label)
            .or(self.made.last().map(|m| m.begin_us));
        let since_us = since_us.unwrap_or(self.history.from_us);
        let is_it = |e: &Event| {
            kind.is_told_by(e) && node.as_ref().is_none_or(|n| e.node.as_ref() == Some(n)) && e.t_us >= since_us
        };
        let certain = |e: &Event| e.t_us.saturating_sub(e.skew_us.unwrap_or(0)) >= since_us;
        let begun = self.world.now_us();
        let (mut read, mut perhaps) = (0, false);
        loop {
            let events = self.world.events(read);
            read += events.len();
            if let Some(e) = events.iter().find(|e| is_it(e) && certain(e)) {
                let by = e.node.as_deref().unwrap_or("the tool");
                return Ok(format!("{} on {by} at {:.3} s", e.kind, e.t_us as f64 / 1e6));
            }
            perhaps |= events.iter().any(is_it);
            let time = self.slowness().scale(expect.within.duration());
            if self.world.now_us() >= begun.saturating_add(time.as_micros() as u64) {
                let since = since_us as f64 / 1e6;
                return Err(match perhaps {
                    true => Broken::Unclear(format!("one may have come before {since:.3} s or behind it")),
                    false => Broken::Unseen(format!("not within {}: none since {since:.3} s", Span(time))),
                });
            }
            self.world.await_news(PAUSE)?;
            self.look(None)?;
        }
    }

    pub(super) fn look(&mut self, since_us: Option<u64>) -> Result<Observation> {
        let seen = self.world.observe(since_us)?;
        self.keep(seen.clone())?;
        if seen.serving().count() > 1 {
            // One of them may have said so a moment before the other did: what both say of the time after this look decides.
            let again = self.world.observe(Some(seen.t_us))?;
            self.keep(again.clone())?;
            return Ok(again);
        }
        Ok(seen)
    }

    pub(super) fn look_now(&mut self) -> Result<Observation> {
        let now = self.world.now_us();
        self.look(Some(now))
    }

    /// A look belongs to the run, and is judged by all that watches.
    fn keep(&mut self, seen: Observation) -> Result<()> {
        self.judge_look(&seen)?;
        self.history.observations.push(seen);
        Ok(())
    }

    fn judge_look(&mut self, seen: &Observation) -> Result<()> {
        if self.watches.is_empty() && self.sometimes.is_empty() {
            return Ok(());
        }
        let progress = self.world.progress();
        let (lab, roles) = (self.world.lab(), &self.roles);
        for watch in self.watches.iter_mut().filter(|w| w.covers(seen.t_us)) {
            let (truth, shown) = watch.what.judge(lab, roles, &progress, seen)?;
            if truth.is_yes() && watch.what.is_of_absence() {
                self.history.absences.push(seen.t_us);
            }
            watch.see(seen.t_us, truth, &shown);
        }
        for once in self.sometimes.iter_mut().filter(|s| !s.is_met()) {
            let (truth, shown) = once.what.judge(lab, roles, &progress, seen)?;
            once.see(seen.t_us, truth, shown);
        }
        Ok(())
    }

    /// Looks on until everything that must hold for a time has held so long.
    pub(super) fn last_watches(&mut self) -> Result<(), Broken> {
        let Some(last) = self.watches.iter().filter_map(|w| w.end_us).max() else {
            return match self.watches.is_empty() {
                true => Ok(()),
                false => Ok(self.look_now().map(drop)?),
            };
        };
        let left = last.saturating_sub(self.world.now_us());
        self.look_on(Duration::from_micros(left))?;
        Ok(self.look_now().map(drop)?)
    }

    /// Judges everything that had to hold; whether it all did.
    pub(super) fn close_watches(&mut self) -> bool {
        let (now, hole_us) = (self.world.now_us(), self.hole_us());
        let checks: Vec<_> = std::mem::take(&mut self.watches)
            .into_iter()
            .map(|w| w.check(now, hole_us))
            .collect();
        let well = checks.iter().all(|c| c.verdict == Verdict::Pass);
        self.checks.extend(checks);
        well
    }

    fn hole_us(&self) -> u64 {
        let slowness: Slowness = self.slowness();
        slowness.scale(HOLE).as_micros() as u64
    }
}
