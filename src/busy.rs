//! How busy the host is while something runs on it. Its slowness is measured in processor time, on whatever host (`hypervisor/accel`):
//! that says nothing of how much processor time there is. A piece of work that is timed again and again does.
//!
//! The work is done as nice as the tool is; the machines are nicer, so that what the lab itself needs counts for little, and a compiler
//! beside it for all.

use crate::wait::pause;
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Processor time of one piece of work: longer than the kernel lets anybody go on while others wait.
const WORK: Duration = Duration::from_millis(30);
/// Between two of them.
const EVERY: Duration = Duration::from_secs(1);
/// So many make one measurement: a phase of a failover takes about as long, and one that was unlucky alone means nothing.
const WINDOW: usize = 5;

/// Repeated measurements, and the largest.
#[derive(Debug, Default)]
struct Fold {
    /// The last pieces of work: processor time and time.
    recent: VecDeque<(Duration, Duration)>,
    largest: f64,
}

impl Fold {
    fn add(&mut self, cpu: Duration, wall: Duration) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((cpu, wall));
        let cpu: Duration = self.recent.iter().map(|w| w.0).sum();
        let wall: Duration = self.recent.iter().map(|w| w.1).sum();
        if self.recent.len() == WINDOW && !cpu.is_zero() {
            self.largest = self.largest.max(wall.div_duration_f64(cpu));
        }
    }

    /// How much longer than on an idle host things took at worst: 1 or more; 1 as long as nothing was measured.
    fn factor(&self) -> f64 {
        self.largest.max(1.0)
    }
}

/// Measures from its beginning to its end.
#[derive(Debug)]
pub struct Gauge {
    fold: Arc<Mutex<Fold>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gauge {
    /// Begins.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn begin() -> std::io::Result<Self> {
        let (fold, over) = (Arc::<Mutex<Fold>>::default(), Arc::<AtomicBool>::default());
        let (theirs, told) = (Arc::clone(&fold), Arc::clone(&over));
        let measure = move || {
            while !told.load(Ordering::Relaxed) {
                let (cpu, wall) = work(WORK);
                theirs.lock().unwrap_or_else(PoisonError::into_inner).add(cpu, wall);
                pause(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("gauge".into()).spawn(measure)?;
        Ok(Self {
            fold,
            over,
            thread: Some(thread),
        })
    }

    /// How much longer than on an idle host things took at worst so far: 1 or more.
    pub fn factor(&self) -> f64 {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner).factor()
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It ends by itself; no caller waits for its pause.
        drop(self.thread.take());
    }
}

/// Uses so much processor time of this thread; how much it was, and how long it took.
fn work(least: Duration) -> (Duration, Duration) {
    let cpu = || {
        let t = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
    };
    let (begun, from) = (Instant::now(), cpu());
    loop {
        let used = cpu().saturating_sub(from);
        if used >= least {
            return (used, begun.elapsed());
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn folded(walls: &[u64]) -> f64 {
        let mut fold = Fold::default();
        walls.iter().for_each(|wall| fold.add(MS(30), MS(*wall)));
        fold.factor()
    }

    #[test]
    fn the_largest_of_windows_counts() {
        assert_eq!(folded(&[]), 1.0);
        assert_eq!(folded(&[30; 20]), 1.0);
        assert_eq!(folded(&[90; 4]), 1.0, "too few to say anything");
        assert_eq!(folded(&[90; 5]), 3.0);
        // Busy for a while in the middle: that is what counts, also afterwards.
        let walls = [[30; 10], [60; 10], [30; 10]].concat();
        assert_eq!(folded(&walls), 2.0);
    }

    #[test]
    fn one_that_was_unlucky_alone_means_little() {
        let mut walls = [30; 20];
        walls[9] = 180;
        assert_eq!(folded(&walls), 2.0, "its window's mean, not 6");
    }

    #[test]
    fn work_takes_at_least_as_long_as_its_processor_time() {
        let (cpu, wall) = work(MS(5));
        // The two clocks are read one after the other.
        assert!(cpu >= MS(5) && wall + MS(1) >= cpu, "{cpu:?} {wall:?}");
    }

    #[test]
    fn a_gauge_measures_until_it_ends() {
        let gauge = Gauge::begin().unwrap();
        assert!(gauge.factor() >= 1.0);
        drop(gauge);
    }
}
