//! Branches: steps that are done at the same time. Each branch has a runner of its own; what it leaves behind becomes the run's.

use super::file::{Action, Step};
use super::raw::Table;
use super::reader::Reader;
use super::run::{Broken, Made, PAUSE, Runner};
use super::watch::Watch;
use super::{History, Observation, Progress, World};
use crate::diagnostic::{At, Finding};
use crate::error::Result;
use crate::verify::{Check, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The key of a step whose branches are done at the same time.
pub(super) const PARALLEL: &str = "parallel";

/// The most branches.
const MOST: usize = 8;

/// Steps that are done beside those of other branches.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// What people read.
    pub name: String,
    /// Its steps, one after the other.
    pub steps: Vec<Step>,
}

impl Reader<'_> {
    /// A step with branches. A label of one is not seen in another: nobody knows which comes first.
    pub fn parallel(&mut self, table: &Table) -> Option<Action> {
        self.only(table, "`parallel`", &[PARALLEL, "as"]);
        let value = table.get(PARALLEL)?;
        if self.within.contains(&PARALLEL) {
            let finding = Finding::new("bad-value", "a `parallel` holds no other one").on(value, "this one");
            self.find(finding.help("make more branches of it"));
            return None;
        }
        let tables = self.tables(PARALLEL, ["a branch", "branches"], value)?;
        if !(2..=MOST).contains(&tables.len()) {
            let message = format!("`parallel` has 2 to {MOST} branches, not {}", tables.len());
            self.find(Finding::new("bad-value", message).on(value, "this one"));
            return None;
        }
        let before = self.labels.clone();
        self.within.push(PARALLEL);
        let mut branches: Vec<Option<Branch>> = Vec::new();
        for at in &tables {
            let taken = branches.iter().flatten().map(|b| b.name.clone()).collect();
            branches.push(self.branch(at, taken));
            // Those of this one are hidden from the next one.
            let labels = std::mem::replace(&mut self.labels, before.clone());
            self.hidden.extend(labels);
        }
        self.within.pop();
        self.labels.append(&mut self.hidden);
        branches.into_iter().collect::<Option<_>>().map(Action::Parallel)
    }

    fn branch(&mut self, at: &At<Table>, taken: Vec<String>) -> Option<Branch> {
        self.only(&at.value, "a branch", &["name", "steps"]);
        let name = self.text_of(&at.value, "name");
        if name.is_none() && at.value.get("name").is_none() {
            let finding = Finding::new("missing-key", "the branch has no name").on(at, "this one");
            self.find(finding.help("add `name = \"…\"`: reports say which branch did what"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let sound = |n: &str| (1..=32).contains(&n.len()) && n.bytes().all(plain);
        if let Some(name) = &name
            && (!sound(name) || taken.contains(&name.value))
        {
            let message = format!("`{}` cannot be the name of a branch", name.value.escape_debug());
            let why = "each has its own, of letters, digits and -, at most 32";
            self.find(Finding::new("bad-value", message).on(name, why));
        }
        let steps = self.held("a branch", &at.value)?;
        Some(Branch {
            name: name?.value,
            steps,
        })
    }

    /// Finds a step that can only be done where nothing else is.
    pub fn alone<T>(&mut self, verb: &str, place: &At<T>) {
        if self.within.contains(&PARALLEL) {
            let finding = Finding::new("bad-value", format!("`{verb}` stands in no branch")).on(place, "this step");
            self.find(finding.help("do it before `parallel`, or behind it"));
        }
    }
}

/// What a branch leaves behind.
struct Ended {
    well: bool,
    /// It was ended because another one failed, or a person wants to stop.
    interrupted: bool,
    history: History,
    made: Vec<Made>,
    watches: Vec<Watch>,
    checks: Vec<Check>,
    by_events: Vec<usize>,
    roles: super::Roles,
}

impl Runner<'_> {
    /// Does the steps of all branches, each in a thread, and looks at the lab all the while. Ends when all have ended; the first that
    /// does not go well ends the others.
    pub(super) fn parallel(&mut self, branches: &[Branch], place: &str) -> Result<String, Broken> {
        let stop = Arc::new(AtomicBool::new(false));
        let worlds: Result<Vec<_>> = branches.iter().map(|_| self.world.branch(stop.clone())).collect();
        let Some(worlds) = worlds?.into_iter().collect::<Option<Vec<_>>>() else {
            return Err(Broken::Unclear("one thing is done after the other here".to_owned()));
        };
        let (mut looks, over) = (Vec::new(), AtomicUsize::new(0));
        let (looked, ended) = std::thread::scope(|scope| {
            let begun = worlds.into_iter().zip(branches).enumerate();
            let threads: Vec<_> = begun
                .map(|(i, (world, branch))| {
                    let (begin, place) = (self.begin_branch(i), format!("{place} {}", branch.name));
                    let flags = (stop.clone(), &over);
                    scope.spawn(move || begin.run(world, branch, &place, &flags.0, flags.1))
                })
                .collect();
            let is_over = || over.load(Ordering::Relaxed) == branches.len();
            let looked = self.look_beside(is_over, &mut looks);
            if !matches!(looked, Ok(true)) {
                stop.store(true, Ordering::Relaxed);
            }
            let join = |t: std::thread::ScopedJoinHandle<'_, Ended>| {
                t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (looked, threads.into_iter().map(join).collect::<Vec<_>>())
        });
        let outcome = outcome(branches, &ended);
        for one in ended {
            self.take(one, &looks)?;
        }
        self.history.observations.sort_by_key(|o| o.t_us);
        self.history.marks.sort_by_key(|m| m.begin_us);
        self.history.absences.sort_unstable();
        self.history.samples.sort_by_key(|s| s.t_us);
        match looked? {
            true => outcome,
            // What was not so is told of by itself.
            false => Ok("ended: something was not so that must be".to_owned()),
        }
    }

    /// Looks until all branches have ended, or something is not true that must be: whether it was the first.
    fn look_beside(&mut self, is_over: impl Fn() -> bool, looks: &mut Vec<(Observation, Progress)>) -> Result<bool> {
        while !is_over() {
            if self.watches.iter().any(Watch::is_broken) {
                return Ok(false);
            }
            self.world.await_news(PAUSE)?;
            let seen = self.look(None)?;
            looks.push((seen, self.world.progress()));
        }
        Ok(true)
    }

    /// What a branch knows at its beginning.
    fn begin_branch(&self, number: usize) -> Begin {
        Begin {
            roles: self.roles.clone(),
            // Each makes choices of its own.
            seed: self.seed.wrapping_add((number as u64 + 1) << 40),
            history: History {
                from_us: self.history.from_us,
                marks: self.history.marks.clone(),
                ..History::default()
            },
            made: self.made.clone(),
        }
    }

    /// What a branch left becomes this runner's.
    fn take(&mut self, ended: Ended, looks: &[(Observation, Progress)]) -> Result<()> {
        let shift = self.checks.len();
        self.by_events.extend(ended.by_events.iter().map(|i| i + shift));
        self.checks.extend(ended.checks);
        let last = |made: &[Made]| made.last().map(|m| m.begin_us);
        // `survivor` goes by the last fault of all.
        if last(&ended.made) > last(&self.made) {
            let before = std::mem::replace(&mut self.roles, ended.roles.clone());
            self.roles.keep_samples_of(&before);
        }
        self.roles.keep_samples_of(&ended.roles);
        let known = |m: &Made| self.made.iter().any(|ours| ours.id == m.id);
        let new: Vec<Made> = ended.made.into_iter().filter(|m| !known(m)).collect();
        self.made.extend(new);
        self.made.sort_by_key(|m| m.begin_us);
        for record in ended.history.faults {
            match self.history.faults.iter_mut().find(|f| f.id == record.id) {
                // Another branch has undone it.
                Some(ours) if ours.end_us.is_some() => {}
                Some(ours) => *ours = record,
                None => self.history.faults.push(record),
            }
        }
        for mark in ended.history.marks {
            if !self.history.marks.contains(&mark) {
                self.history.marks.push(mark);
            }
        }
        let seen_us = ended.history.observations.last().map_or(0, |o| o.t_us);
        self.history.observations.extend(ended.history.observations);
        self.history.absences.extend(ended.history.absences);
        self.history.samples.extend(ended.history.samples);
        for mut watch in ended.watches {
            // Between the branch's last look and now this runner has looked.
            for (seen, progress) in looks.iter().filter(|(seen, _)| seen.t_us > seen_us) {
                if watch.covers(seen.t_us) {
                    let (truth, shown) = watch.what.judge(self.world.lab(), &self.roles, progress, seen)?;
                    watch.see(seen.t_us, truth, &shown);
                }
            }
            self.watches.push(watch);
        }
        Ok(())
    }
}

/// Counts a branch that is over, also where it panics.
struct Told<'a>(&'a AtomicUsize);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a branch begins with.
struct Begin {
    roles: super::Roles,
    seed: u64,
    history: History,
    made: Vec<Made>,
}

impl Begin {
    fn run(
        self,
        mut world: Box<dyn World + Send>,
        branch: &Branch,
        place: &str,
        stop: &AtomicBool,
        over: &AtomicUsize,
    ) -> Ended {
        let _told = Told(over);
        let mut runner = Runner {
            world: &mut *world,
            roles: self.roles,
            seed: self.seed,
            history: self.history,
            made: self.made,
            watches: Vec::new(),
            sometimes: Vec::new(),
            checks: Vec::new(),
            by_events: Vec::new(),
            interrupted: false,
            follower: None,
        };
        let well = runner.walk(&branch.steps, place, stop);
        if !well {
            stop.store(true, Ordering::Relaxed);
        }
        Ended {
            well,
            interrupted: runner.interrupted,
            history: runner.history,
            made: runner.made,
            watches: runner.watches,
            checks: runner.checks,
            by_events: runner.by_events,
            roles: runner.roles,
        }
    }
}

/// What becomes of the step: as the worst of its branches, and what each did.
fn outcome(branches: &[Branch], ended: &[Ended]) -> Result<String, Broken> {
    let verdict = |e: &Ended| e.checks.iter().map(|c| c.verdict).fold(Verdict::Pass, Verdict::and);
    let said = |(branch, e): (&Branch, &Ended)| {
        let bad = e.checks.iter().find(|c| c.verdict != Verdict::Pass);
        match bad {
            Some(check) => format!("{}: {}: {}", branch.name, check.id, check.detail),
            None if e.well => format!("{}: {} steps", branch.name, branch.steps.len()),
            None => format!("{}: ended because another one was", branch.name),
        }
    };
    let said: Vec<String> = branches.iter().zip(ended).map(said).collect();
    let said = said.join("; ");
    match ended.iter().map(verdict).fold(Verdict::Pass, Verdict::and) {
        Verdict::Fail => Err(Broken::Failed(said)),
        Verdict::Unknown => Err(Broken::Unclear(said)),
        _ if ended.iter().all(|e| e.well) => Ok(said),
        _ if ended.iter().any(|e| e.interrupted) => Err(Broken::Interrupted),
        _ => Err(Broken::Unclear(said)),
    }
}
