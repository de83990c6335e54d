//! Several scenarios, one after the other, and the folder that a run leaves.

use super::file::{ID_HELP, Vocabulary, is_sound};
use super::run::{Stage, not_run, run_followed};
use super::{History, Rules, Scenario, Shelf, World, parse};
use crate::deploy::Pack;
use crate::diagnostic::Invalid;
use crate::error::{Error, Problem, Result};
use crate::files::Home;
use crate::report;
use crate::runs::{self, Manifest, names};
use crate::spec::{Lab, Source, known};
use crate::verify::{OnPurpose, RunReport, ScenarioReport, Verdict, distributions, turn_name};
use fs_err as fs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where worlds come from: a fork of a lab for each scenario, or a simulator.
pub trait Worlds: Sync {
    /// A world for this scenario. `folder` is its own; the client's journal is written there as it happens. `seed` is of the choices
    /// that the world makes itself.
    fn open(&self, scenario: &Scenario, seed: u64, folder: &Path) -> Result<Box<dyn World>>;
    /// The first step that these worlds cannot do, in words: such a scenario is not run. None where they can do all of them.
    fn lacks(&self, scenario: &Scenario) -> Option<String> {
        let _ = scenario;
        None
    }
    /// Hears how far a scenario came; see [`super::Follower`].
    ///
    /// # Errors
    /// Where somebody who follows it wants it to end.
    fn follow(&self, scenario: &Scenario, stage: Stage<'_>) -> Result<()> {
        let _ = (scenario, stage);
        Ok(())
    }
    /// Hears what became of each scenario, for progress.
    fn ended(&self, report: &ScenarioReport) {
        let _ = report;
    }
}

/// What a run is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Seed of every random choice.
    pub seed: u64,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// `machines` or `sim`.
    pub on: String,
    /// How often each scenario is run; each time with another seed.
    pub repeat: u32,
    /// The run's folder; made, and must not be there yet.
    pub folder: PathBuf,
    /// How many scenarios run side by side.
    pub jobs: usize,
    /// Whether no more begin when one has failed.
    pub fail_fast: bool,
    /// What else is written down, so that the run can be repeated and put together with others.
    pub about: About,
}

/// Of what a run is a part, and what it was made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// Which part of the scenarios is run, of how many; none is all of them.
    pub shard: Option<(usize, usize)>,
    /// The ids of all scenarios, whichever part of them is run.
    pub selected: Vec<String>,
    /// Parameters that a person set.
    pub set: BTreeMap<String, String>,
    /// Text of the lab file.
    pub lab_file: String,
}

/// One scenario of a run, on its way.
struct Turn<'a> {
    scenario: &'a Scenario,
    number: u32,
    seed: u64,
    folder: PathBuf,
}

impl Options {
    /// Every scenario as often as it is to be run, each with a folder of its own.
    fn turns<'a>(&self, scenarios: &'a [Scenario]) -> Vec<Turn<'a>> {
        let turn = |(scenario, n): (&'a Scenario, u32)| Turn {
            scenario,
            number: n + 1,
            seed: self.seed.wrapping_add(u64::from(n)),
            folder: self.folder.join(turn_name(&scenario.id, n + 1)),
        };
        turns(scenarios, self.repeat).map(turn).collect()
    }
}

/// Every scenario as often as it is to be run.
fn turns(scenarios: &[Scenario], repeat: u32) -> impl Iterator<Item = (&Scenario, u32)> {
    scenarios
        .iter()
        .flat_map(move |s| (0..repeat.max(1)).map(move |n| (s, n)))
}

/// Nothing may be taken for something else: each run of each scenario has a name of its own, in the run's folder and in its reports.
///
/// # Errors
/// [`Error::Usage`] where two have one name.
pub fn distinct(scenarios: &[Scenario], repeat: u32) -> Result<()> {
    let mut taken = BTreeSet::from(names::OF_THE_RUN.map(str::to_owned));
    for (scenario, n) in turns(scenarios, repeat) {
        let name = turn_name(&scenario.id, n + 1);
        if let Some(name) = taken.replace(name) {
            return Err(Error::Usage(
                Problem::new("name what is run")
                    .on(format!("`{name}`"))
                    .observed("it is the name of two things in the run's folder")
                    .remedy("name each scenario once (--repeat runs it several times), and give it another id than `NAME.2`"),
            ));
        }
    }
    Ok(())
}

/// Whether a run's folder can be made: it is not there, and the nearest folder above it that is takes new entries.
///
/// # Errors
/// [`Error::Usage`] where not. Nothing is made.
pub fn can_be_made(folder: &Path) -> Result<()> {
    let refuse = |seen: String| {
        let problem = Problem::new("make the run's folder")
            .on(folder.display())
            .observed(seen);
        Err(Error::Usage(
            problem.remedy("name a folder that is not there yet, where you may write"),
        ))
    };
    if folder.symlink_metadata().is_ok() {
        return refuse("it is there already".into());
    }
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(above) = full.ancestors().skip(1).find(|p| p.symlink_metadata().is_ok()) else {
        return refuse("no folder above it is there".into());
    };
    match above.metadata() {
        Ok(m) if m.is_dir() => {}
        Ok(_) => return refuse(format!("{} is no folder", above.display())),
        Err(e) => return refuse(format!("{}: {e}", above.display())),
    }
    use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};
    if let Err(e) = accessat(CWD, above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        return refuse(format!("{}: {e}", above.display()));
    }
    match statvfs(above) {
        Ok(fs) if fs.f_flag.contains(StatVfsMountFlags::RDONLY) => refuse(format!("{} is read-only", above.display())),
        _ => Ok(()),
    }
}

/// What the runtime of a lab has words for.
///
/// # Errors
/// Where its pack cannot be read.
pub fn vocabulary(lab: &Lab) -> Result<Vocabulary> {
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind)).transpose()?;
    let words = |pack: Pack| Vocabulary {
        orders: pack.runtime.contract.orders,
        files: pack.runtime.places.files.into_keys().collect(),
        workloads: pack.runtime.workloads.into_keys().collect(),
    };
    Ok(pack.map(words).unwrap_or_default())
}

/// The scenarios of a lab: those named, in that order, else all, in the order of their files.
///
/// # Errors
/// [`Error::Invalid`] with all that is wrong with all files; [`Error::Usage`] where a name is unknown, also one that is `set`, or two
/// files have one id.
pub fn select(source: &Source, lab: &Lab, ids: &[String], set: &BTreeMap<String, String>) -> Result<Vec<Scenario>> {
    let pack = vocabulary(lab)?;
    let shelf = Shelf::of_lab(source);
    let rules = Rules {
        host_names: false,
        lab,
        pack: &pack,
        set,
        shelf: Some(&shelf),
    };
    let mut files = source.toml_files("scenarios")?;
    // Files are called by their ids. In a lab that lacks something some cannot be read: where others are named, that does not matter.
    let is_file = |path: &Path, id: &str| path.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case(id));
    let own = |id: &&String| !is_path(id);
    if ids
        .iter()
        .filter(own)
        .all(|id| files.iter().any(|(path, _)| is_file(path, id)))
        && !ids.is_empty()
    {
        files.retain(|(path, _)| ids.iter().any(|id| is_file(path, id)));
    }
    let of_the_lab = files
        .iter()
        .map(|(path, text)| parse(&path.display().to_string(), text, rules));
    let own = ids.iter().filter(|id| is_path(id)).map(|path| read(path, rules));
    let mut all = together(of_the_lab.chain(own))?;
    let own = all.split_off(files.len());
    for (i, s) in all.iter().enumerate() {
        if all[..i].iter().any(|t| s.id == t.id) {
            return Err(Error::Usage(
                Problem::new("read the scenarios")
                    .on(files[i].0.display())
                    .observed(format!("`{}` is there twice", s.id)),
            ));
        }
    }
    if ids.is_empty() {
        return all_have(all, set);
    }
    let mut own = own.into_iter();
    let chosen = ids.iter().map(|id| match is_path(id) {
        true => own.next().map_or_else(|| named(id, &all), Ok),
        false => named(id, &all),
    });
    all_have(chosen.collect::<Result<_>>()?, set)
}

/// All of them, or all that is wrong with any.
fn together(read: impl Iterator<Item = Result<Scenario>>) -> Result<Vec<Scenario>> {
    let (mut all, mut invalid, mut other) = (Vec::new(), Vec::new(), None);
    for scenario in read {
        match scenario {
            Ok(scenario) => all.push(scenario),
            Err(Error::Invalid(findings)) => invalid.push(*findings),
            Err(e) => {
                other.get_or_insert(e);
            }
        }
    }
    match (Invalid::together(invalid), other) {
        (Some(invalid), _) => Err(Error::Invalid(Box::new(invalid))),
        (None, Some(e)) => Err(e),
        (None, None) => Ok(all),
    }
}

/// Whether it names a person's own file.
fn is_path(id: &str) -> bool {
    id.ends_with(".toml") || id.contains('/')
}

/// A person's own file, which may name machines and includes what is beside it.
fn read(path: &str, rules: Rules<'_>) -> Result<Scenario> {
    let text =
        fs::read_to_string(path).map_err(|e| Error::Usage(Problem::new("read the scenario").on(path).observed(e)))?;
    let shelf = Shelf::beside(Path::new(path));
    let rules = Rules {
        host_names: true,
        shelf: Some(&shelf),
        ..rules
    };
    parse(path, &text, rules)
}

/// Files of a person, checked against a lab: as many as there are.
///
/// # Errors
/// As of [`select`].
pub fn check(paths: &[String], lab: &Lab, set: &BTreeMap<String, String>) -> Result<Vec<Scenario>> {
    let pack = vocabulary(lab)?;
    let rules = Rules {
        host_names: true,
        lab,
        pack: &pack,
        set,
        shelf: None,
    };
    all_have(together(paths.iter().map(|path| read(path, rules)))?, set)
}

/// The same, where each parameter that a person set is one of a scenario among them.
fn all_have(scenarios: Vec<Scenario>, set: &BTreeMap<String, String>) -> Result<Vec<Scenario>> {
    let names: BTreeSet<&str> = scenarios
        .iter()
        .flat_map(|s| s.parameters.keys())
        .map(String::as_str)
        .collect();
    match set.keys().find(|name| !names.contains(name.as_str())) {
        None => Ok(scenarios),
        Some(name) => Err(Error::Usage(
            Problem::new("set the parameter")
                .on(format!("`{}`", name.escape_debug()))
                .observed("none of the scenarios has it")
                .remedy(known(name, names)),
        )),
    }
}

/// A scenario to begin with.
///
/// # Errors
/// [`Error::Usage`] where the name cannot be an id.
pub fn beginning(name: &str) -> Result<String> {
    let text = include_str!("beginning.toml").replace("NAME", name);
    if is_sound(name) {
        return Ok(text);
    }
    Err(Error::Usage(
        Problem::new("name the scenario")
            .on(format!("`{}`", name.escape_debug()))
            .observed("it cannot be an id")
            .remedy(ID_HELP),
    ))
}

fn named(id: &str, all: &[Scenario]) -> Result<Scenario> {
    all.iter()
        .find(|s| s.id.eq_ignore_ascii_case(id))
        .cloned()
        .ok_or_else(|| {
            Error::Usage(
                Problem::new("find the scenario")
                    .on(format!("`{}`", id.escape_debug()))
                    .observed("the lab has no such scenario")
                    .remedy(known(id, all.iter().map(|s| s.id.as_str()))),
            )
        })
}

/// Runs the scenarios and writes the run's folder. A scenario that cannot be run is *unknown*; the others are run.
///
/// # Errors
/// [`Error::Interrupted`], and where the folder cannot be written.
pub fn run_all(worlds: &dyn Worlds, lab: &Lab, scenarios: &[Scenario], options: &Options) -> Result<RunReport> {
    can_be_made(&options.folder)?;
    distinct(scenarios, options.repeat)?;
    let about = &options.about;
    let manifest = Manifest {
        tool: crate::TOOL.to_owned(),
        wall: crate::event::wall_seconds(),
        lab: lab.name.to_string(),
        lab_digest: lab.digest.clone(),
        seed: options.seed,
        accel: options.accel.clone(),
        on: options.on.clone(),
        repeat: options.repeat,
        shard: about.shard,
        selected: about.selected.clone(),
        set: about.set.clone(),
    };
    runs::begin(&options.folder, &manifest, lab, &about.lab_file)?;
    let turns = options.turns(scenarios);
    let broken = AtomicBool::new(false);
    let ended = side_by_side(options.jobs, &turns, |turn| {
        Home::private_dir(&turn.folder)?;
        let why = match broken.load(Ordering::Relaxed) {
            true => Some("not run: one before it failed".to_owned()),
            false => worlds
                .lacks(turn.scenario)
                .map(|what| format!("not on {}: {what}", options.on)),
        };
        let (mut report, history) = match why {
            Some(why) => (left_out(turn.scenario, why), History::default()),
            None => one(worlds, turn)?,
        };
        broken.fetch_or(options.fail_fast && report.verdict == Verdict::Fail, Ordering::Relaxed);
        report.turn = turn.number;
        worlds.ended(&report);
        let written = turn.scenario;
        runs::scenario(&turn.folder, (&written.text, &written.parts), &report, &history)?;
        Ok((report, history, turn.scenario))
    });
    let pages = ended.into_iter().collect::<Result<Vec<_>>>()?;
    let scenarios: Vec<ScenarioReport> = pages.iter().map(|(r, ..)| r.clone()).collect();
    let report = RunReport {
        lab: lab.name.to_string(),
        seed: options.seed,
        accel: options.accel.clone(),
        on: options.on.clone(),
        verdict: pages
            .iter()
            .map(|(r, ..)| r.verdict)
            .fold(Verdict::Skipped, Verdict::and),
        distributions: distributions(&scenarios),
        on_purpose: OnPurpose::of(lab),
        scenarios,
    };
    runs::end(&options.folder, &report)?;
    let pages: Vec<report::Page<'_>> = pages
        .iter()
        .map(|(report, history, scenario)| report::Page {
            report,
            history,
            scenario: &scenario.text,
        })
        .collect();
    show(&options.folder, lab, &report, &pages, &[])?;
    Ok(report)
}

/// Writes what people and CI systems read of a run. `missing` is what could not be read of it.
///
/// # Errors
/// Where a file cannot be written.
pub fn show(folder: &Path, lab: &Lab, run: &RunReport, pages: &[report::Page<'_>], missing: &[String]) -> Result<()> {
    runs::write(&folder.join(names::JUNIT), report::junit(run)?.as_bytes())?;
    runs::write(&folder.join(names::SUMMARY), report::summary(run).as_bytes())?;
    for page in pages {
        let path = folder.join(page.report.name()).join(names::REPORT);
        runs::write(&path, report::scenario_page(lab, run, page, names::REPORT)?.as_bytes())?;
    }
    let page = report::run_page(lab, run, names::REPORT, missing)?;
    runs::write(&folder.join(names::REPORT), page.as_bytes())
}

/// Does `work` for each item, in their order, on so many threads; the results are in the items' order. The first failure lets what has
/// begun end and nothing more begin: what did not is missing at the end.
fn side_by_side<T: Sync, R: Send>(jobs: usize, items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Vec<Result<R>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let worker = || {
        let mut mine = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let done = work(item);
            failed.fetch_or(done.is_err(), Ordering::Relaxed);
            mine.push((i, done));
        }
        mine
    };
    let mut all: Vec<(usize, Result<R>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.clamp(1, items.len().max(1)))
            .map(|_| scope.spawn(worker))
            .collect();
        let joined = threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, done)| done).collect()
}

/// What is said of a scenario that was not begun.
fn left_out(scenario: &Scenario, why: String) -> ScenarioReport {
    ScenarioReport {
        why: Some(why),
        ..ScenarioReport::empty(&scenario.id, &scenario.title, Verdict::Skipped)
    }
}

fn one(worlds: &dyn Worlds, turn: &Turn<'_>) -> Result<(ScenarioReport, History)> {
    let unknown = |e: Error| match e {
        Error::Interrupted => Err(e),
        e => Ok((not_run(turn.scenario, &e), History::default())),
    };
    let mut world = match worlds.open(turn.scenario, turn.seed, &turn.folder) {
        Ok(world) => world,
        Err(e) => return unknown(e),
    };
    let ended = run_followed(&mut *world, turn.scenario, turn.seed, &|stage| {
        worlds.follow(turn.scenario, stage)
    });
    let passed = ended.as_ref().is_ok_and(|run| run.report.verdict == Verdict::Pass);
    if !passed {
        // The verdict stands without it.
        let _ = world.keep_networks(&turn.folder.join(names::NETWORKS));
    }
    // Nor does it rest on these.
    let _ = world.keep_logs(&turn.folder);
    let closed = world.end(passed);
    match (ended, closed) {
        (Ok(run), Ok(())) => Ok((run.report, run.history)),
        (Ok(run), Err(e)) => {
            let mut report = run.report;
            report.verdict = report.verdict.and(Verdict::Unknown);
            report.why.get_or_insert(e.to_string());
            Ok((report, run.history))
        }
        (Err(e), Ok(())) => unknown(e),
        (Err(e), Err(also)) => unknown(e.with_rollback([also.to_string()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::{Barrier, Mutex};

    #[test]
    fn scenarios_run_side_by_side_and_are_told_in_order() {
        // Each waits for the two others: it ends only where three really run at once.
        let together = Barrier::new(3);
        let done = side_by_side(3, &[3, 1, 2, 6, 5, 4], |n| {
            together.wait();
            Ok(n * 10)
        });
        assert_eq!(
            done.into_iter().collect::<Result<Vec<_>>>().unwrap(),
            [30, 10, 20, 60, 50, 40]
        );
    }

    #[test]
    fn after_a_failure_nothing_more_begins() {
        let begun = Mutex::new(Vec::new());
        let done = side_by_side(1, &[1, 2, 3], |n| {
            begun.lock().unwrap().push(*n);
            if *n == 2 { Err(Error::Interrupted) } else { Ok(*n) }
        });
        assert_eq!(*begun.lock().unwrap(), [1, 2]);
        assert!(matches!(done.as_slice(), [Ok(1), Err(Error::Interrupted)]));
    }
}
