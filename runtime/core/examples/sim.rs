//! `sim --seeds N [--from SEED] [--threads N] [--failures N] [--trace SEED] [--plan FILE] [--plant N] [--sabotage] [--digests]`:
//! runs the simulator and prints what happened how often, or a digest of each history; a failing seed is shrunk and its timeline
//! printed. `--trace` and `--plan` print the timeline of one seed, or of one plan that is kept in a file. Exit code 1 when an invariant
//! is broken, when a run did too little to prove anything, or when something never happened in 1,000 seeds or more.

use ccr_core::planted::{self, Bug};
use ccr_core::sim::draw::WAITING;
use ccr_core::sim::plan::Plan;
use ccr_core::sim::{self, Counters, Outcome};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The phases of a failover.
const PHASES: [&str; 3] = ["detect", "arbitrate", "mount"];
/// From so many seeds on, every counter must have moved.
const FULL_BATCH: u64 = 1_000;

struct Args {
    seeds: u64,
    from: u64,
    threads: u64,
    failures: usize,
    trace: Option<u64>,
    /// A plan that is kept in a file, to be run once.
    plan: Option<String>,
    planted: Option<Bug>,
    sabotage: bool,
    digests: bool,
}

fn args() -> Option<Args> {
    let mut found = Args {
        seeds: 1_000,
        from: 0,
        threads: 2,
        failures: 1,
        trace: None,
        plan: None,
        planted: None,
        sabotage: false,
        digests: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--sabotage" {
            found.sabotage = true;
            continue;
        }
        if word == "--digests" {
            found.digests = true;
            continue;
        }
        let value = words.next()?;
        if word == "--plan" {
            found.plan = Some(value);
            continue;
        }
        let value = value.parse::<u64>().ok()?;
        match word.as_str() {
            "--seeds" => found.seeds = value,
            "--from" => found.from = value,
            "--threads" => found.threads = value.clamp(1, 64),
            "--failures" => found.failures = value as usize,
            "--plant" => found.planted = Some(Bug::ALL.get(value as usize)?.0),
            "--trace" => found.trace = Some(value),
            _ => return None,
        }
    }
    Some(found)
}

/// What a batch came to.
#[derive(Default)]
struct Batch {
    counters: Counters,
    /// By phase: how long it took, in milliseconds, and in which seed.
    phases: [Vec<(u64, u64)>; 3],
    thin: Vec<(u64, String)>,
    failed: Vec<Outcome>,
}

fn main() -> ExitCode {
    let Some(args) = args() else {
        eprintln!(
            "usage: sim [--seeds N] [--from SEED] [--threads N] [--failures N] [--trace SEED] [--plan FILE] [--digests]\n       with the feature planted-bugs: [--plant N] [--sabotage]"
        );
        return ExitCode::from(2);
    };
    if let Some(seed) = args.trace {
        return timeline(&sim::trace(seed, args.planted));
    }
    if let Some(file) = &args.plan {
        let kept = std::fs::read(file).map_err(|e| e.to_string());
        return match kept.and_then(|text| serde_json::from_slice::<sim::Kept>(&text).map_err(|e| e.to_string())) {
            Ok(kept) => timeline(&sim::run_plan(kept.seed, kept.plan, true)),
            Err(why) => {
                eprintln!("the plan {file} cannot be read: {why}");
                ExitCode::from(2)
            }
        };
    }
    if args.sabotage {
        return sabotage(&args);
    }
    if args.digests {
        digests(&args);
        return ExitCode::SUCCESS;
    }
    let begun = std::time::Instant::now();
    let mut batch = run(&args);
    let seconds = begun.elapsed().as_secs_f64();
    let all = batch.counters.all();
    for (name, count) in &all {
        println!("{count:>12}  {}", name.replace('_', " "));
    }
    for (name, took) in PHASES.iter().zip(&mut batch.phases) {
        took.sort_unstable();
        let at = |percent: usize| {
            took.get(took.len().saturating_sub(1) * percent / 100)
                .copied()
                .unwrap_or_default()
        };
        let ((half, _), (nearly, _), (most, seed)) = (at(50), at(95), at(100));
        println!(
            "{:>12}  {name}: {half} ms (50 %), {nearly} ms (95 %), {most} ms (most, seed {seed})",
            took.len(),
        );
    }
    let mut code = ExitCode::SUCCESS;
    for (seed, what) in &batch.thin {
        println!("seed {seed} proves too little: {what}");
        code = ExitCode::FAILURE;
    }
    for (name, _) in all.iter().filter(|(_, n)| *n == 0 && args.seeds >= FULL_BATCH) {
        let waits = WAITING.contains(name);
        let why = if waits { ", its draw is switched off" } else { "" };
        println!("never happened: {}{why}", name.replace('_', " "));
        if !waits {
            code = ExitCode::FAILURE;
        }
    }
    batch.failed.sort_by_key(|f| f.seed);
    for f in batch.failed.iter().skip(1) {
        println!("seed {} breaks {:?}", f.seed, f.broken);
    }
    match batch.failed.first() {
        None => {
            println!("{} seeds in {seconds:.1} s: every invariant held", args.seeds);
            code
        }
        Some(outcome) => {
            report(outcome);
            ExitCode::FAILURE
        }
    }
}

/// Prints what happened in one run.
fn timeline(outcome: &Outcome) -> ExitCode {
    outcome.trace.iter().for_each(|line| println!("{line}"));
    println!("{:?}", outcome.broken);
    ExitCode::from(u8::from(outcome.broken.is_some()))
}

fn run(args: &Args) -> Batch {
    let next = AtomicU64::new(args.from);
    let batch = Mutex::new(Batch::default());
    let enough = || batch.lock().is_ok_and(|b| b.failed.len() >= args.failures);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.from + args.seeds || enough() {
                return;
            }
            let outcome = sim::run_with(seed, args.planted);
            let Ok(mut batch) = batch.lock() else { return };
            batch.counters.add(&outcome.counters);
            let phases = &outcome.phases;
            for (all, ms) in batch
                .phases
                .iter_mut()
                .zip([&phases.detect, &phases.arbitrate, &phases.mount])
            {
                all.extend(ms.iter().map(|ms| (*ms, seed)));
            }
            if outcome.broken.is_some() {
                batch.failed.push(outcome);
            } else if let Some(what) = outcome.thin() {
                batch.thin.push((seed, what));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(work);
        }
    });
    batch.into_inner().unwrap_or_default()
}

/// A line for each seed, in any order: two builds whose lines are the same behave in the same way.
fn digests(args: &Args) {
    let next = AtomicU64::new(args.from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.from + args.seeds {
                return;
            }
            println!("{seed} {:016x}", sim::digest(seed));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(work);
        }
    });
}

/// Switches each check off in turn: a planted bug that only this one finds proves that it is not superfluous.
fn sabotage(args: &Args) -> ExitCode {
    if !planted::AVAILABLE {
        eprintln!("this build has no planted bugs: --features planted-bugs");
        return ExitCode::from(2);
    }
    let seeds = args.from..args.from + args.seeds;
    let finds = |bug, off| {
        seeds
            .clone()
            .find(|seed| sim::hunt(*seed, Some(bug), off).broken.is_some())
    };
    let todo = Mutex::new(sim::CHECKS.to_vec());
    let work = || {
        while let Some(check) = todo.lock().ok().and_then(|mut todo| todo.pop()) {
            let mut bugs = Bug::ALL
                .iter()
                .filter(|(_, by)| by.contains(&check))
                .map(|(bug, _)| *bug);
            let unfound = bugs.find(|bug| finds(*bug, None).is_some() && finds(*bug, Some(check)).is_none());
            match unfound {
                Some(bug) => println!("{check}: without it {bug:?} is not found"),
                None => println!("{check}: superfluous, every planted bug is found without it"),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(work);
        }
    });
    ExitCode::SUCCESS
}

fn report(outcome: &Outcome) {
    let show = |plan: &Plan| {
        for s in &plan.steps {
            println!(
                "  {:>6.1} s for {:>4.1} s  {:?}",
                s.at_us as f64 / 1e6,
                s.for_us as f64 / 1e6,
                s.what
            );
        }
    };
    println!("seed {} breaks {:?}", outcome.seed, outcome.broken);
    show(&outcome.plan);
    let small = sim::shrink(outcome);
    println!(
        "still broken with {} of {} steps: {:?}",
        small.plan.steps.len(),
        outcome.plan.steps.len(),
        small.broken
    );
    show(&small.plan);
    let kept = sim::Kept {
        what: String::new(),
        seed: small.seed,
        plan: small.plan.clone(),
    };
    // To be kept in src/sim/regressions once it holds.
    println!("{}", serde_json::to_string(&kept).unwrap_or_default());
    small.trace.iter().for_each(|line| println!("{line}"));
}
