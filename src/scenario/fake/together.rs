//! The fake for several who act at the same time. Its clock goes on when all of them wait, to the first that wakes: one runs at a time,
//! always in the same order.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard};

struct State {
    fake: Fake,
    there: BTreeSet<usize>,
    /// Who waits, and until when.
    waiting: BTreeMap<usize, u64>,
}

impl State {
    /// Lets the one who wakes first go on, where all wait.
    fn go_on(&mut self) {
        if self.waiting.len() == self.there.len()
            && let Some((id, at)) = self
                .waiting
                .iter()
                .map(|(id, at)| (*id, *at))
                .min_by_key(|(id, at)| (*at, *id))
        {
            self.fake.now = self.fake.now.max(at);
            self.waiting.remove(&id);
        }
    }
}

/// One of those who act on a fake.
pub(in crate::scenario) struct Together {
    lab: Lab,
    id: usize,
    shared: Arc<(Mutex<State>, Condvar)>,
    stop: Option<Arc<AtomicBool>>,
}

impl Together {
    pub fn new(fake: Fake) -> Self {
        let lab = fake.lab.clone();
        let state = State {
            fake,
            there: BTreeSet::from([0]),
            waiting: BTreeMap::new(),
        };
        Self {
            lab,
            id: 0,
            shared: Arc::new((Mutex::new(state), Condvar::new())),
            stop: None,
        }
    }

    /// The fake as it was left.
    pub fn into_inner(self) -> Fake {
        std::mem::replace(&mut self.state().fake, Fake::new())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        let mut state = self.state();
        state.there.remove(&self.id);
        state.go_on();
        self.shared.1.notify_all();
    }
}

impl World for Together {
    fn lab(&self) -> &Lab {
        &self.lab
    }
    fn slowness(&self) -> Slowness {
        self.state().fake.slowness()
    }
    fn now_us(&self) -> u64 {
        self.state().fake.now_us()
    }
    fn observe(&mut self, since_us: Option<u64>) -> Result<Observation> {
        self.state().fake.observe(since_us)
    }
    fn branch(&self, stop: Arc<AtomicBool>) -> Result<Option<Box<dyn World + Send>>> {
        let mut state = self.state();
        let id = state.there.last().map_or(0, |last| last + 1);
        state.there.insert(id);
        Ok(Some(Box::new(Self {
            lab: self.lab.clone(),
            id,
            shared: self.shared.clone(),
            stop: Some(stop),
        })))
    }
    fn events(&self, from: usize) -> Vec<Event> {
        self.state().fake.events(from)
    }
    fn pass(&mut self, time: Duration) -> Result<()> {
        let mut state = self.state();
        let until = state.fake.now + time.as_micros() as u64;
        state.waiting.insert(self.id, until);
        state.go_on();
        self.shared.1.notify_all();
        let stopped = || self.stop.as_ref().is_some_and(|s| s.load(Ordering::Relaxed));
        while state.waiting.contains_key(&self.id) && !stopped() {
            // Nobody tells that `stop` was set.
            let wait = self.shared.1.wait_timeout(state, Duration::from_millis(1));
            state = wait.unwrap().0;
        }
        state.waiting.remove(&self.id);
        match state.fake.interrupt_at {
            _ if stopped() => Err(Error::Interrupted),
            Some(at) if state.fake.now >= at => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
    fn inject(&mut self, fault: &Fault) -> Result<FaultRecord> {
        self.state().fake.inject(fault)
    }
    fn heal(&mut self, which: &Heal) -> Result<Vec<FaultRecord>> {
        self.state().fake.heal(which)
    }
    fn operate(&mut self, order: &Order) -> Result<Answer> {
        self.state().fake.operate(order)
    }
    fn exec(&mut self, node: &str, argv: &[String], within: Duration) -> Result<Output> {
        self.state().fake.exec(node, argv, within)
    }
    fn load(&mut self, workload: &Workload) -> Result<()> {
        self.state().fake.load(workload)
    }
    fn stop_load(&mut self) -> Result<()> {
        self.state().fake.stop_load()
    }
    fn progress(&self) -> Progress {
        self.state().fake.progress()
    }
    fn note(&mut self, draft: Draft) {
        self.state().fake.note(draft);
    }
    fn finish(&mut self, history: &mut History) -> Result<()> {
        self.state().fake.finish(history)
    }
    fn end(self: Box<Self>, _: bool) -> Result<()> {
        Ok(())
    }
}
