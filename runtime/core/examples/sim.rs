//! `sim --seeds N [--from SEED] [--threads N] [--failures N] [--trace SEED]`: runs the simulator and prints what happened how often; a failing seed is
//! shrunk and its timeline printed. Exit code 1 when an invariant is broken.

use ccr_core::sim::{self, Counters, Outcome, plan::Plan};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seeds, mut from, mut threads, mut most, mut trace) = (1000_u64, 0_u64, 2_u64, 1_usize, None);
    while let Some(arg) = args.next() {
        let value = args.next().and_then(|v| v.parse::<u64>().ok());
        match (arg.as_str(), value) {
            ("--seeds", Some(n)) => seeds = n,
            ("--from", Some(n)) => from = n,
            ("--threads", Some(n)) => threads = n.clamp(1, 64),
            ("--failures", Some(n)) => most = n as usize,
            ("--trace", Some(n)) => trace = Some(n),
            _ => {
                eprintln!("usage: sim [--seeds N] [--from SEED] [--threads N] [--failures N] [--trace SEED]");
                return ExitCode::from(2);
            }
        }
    }
    if let Some(seed) = trace {
        let outcome = sim::trace(seed);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        println!("{:?}", outcome.broken);
        return ExitCode::from(u8::from(outcome.broken.is_some()));
    }
    let begun = std::time::Instant::now();
    let next = AtomicU64::new(from);
    let total = Mutex::new(Counters::default());
    let failed: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || failed.lock().is_ok_and(|f| f.len() >= most) {
                        return;
                    }
                    let outcome = sim::run(seed);
                    if let Ok(mut total) = total.lock() {
                        total.add(&outcome.counters);
                    }
                    if outcome.broken.is_some()
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(outcome);
                    }
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    if let Ok(total) = total.lock() {
        for (name, count) in total.all() {
            println!("{count:>12}  {}", name.replace('_', " "));
        }
    }
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_by_key(|f| f.seed);
    for f in failed.iter().skip(1) {
        println!("seed {} breaks {:?}", f.seed, f.broken);
    }
    match failed.into_iter().next() {
        None => {
            println!("{seeds} seeds in {seconds:.1} s: every invariant held");
            ExitCode::SUCCESS
        }
        Some(outcome) => {
            report(&outcome);
            ExitCode::FAILURE
        }
    }
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
    small.trace.iter().for_each(|line| println!("{line}"));
}
