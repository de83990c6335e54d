//! Watches: what each node's runtime says of itself as it comes, and when that was so.
//!
//! Each line has the node's boot-time clock of the moment before the runtime looked. A *mark* is a reading of that clock that began at an
//! instant of the journal's clock: what is stamped no earlier was so after that instant, at whatever rates the two clocks run. An answer
//! to a question is such a mark by itself. What cannot be shown to be new enough does not count, and the node is asked.

mod state;
#[cfg(test)]
mod tests;

use super::follow::{AGAIN, CONNECT};
use super::halt::Halt;
use crate::deploy::{self, Watched};
use crate::error::{Error, Problem, Result};
use crate::event::{Draft, Event, Journal, Severity, Source, monotonic_us};
use crate::guest::Remote;
use crate::lock::lock;
use crate::verify::Moment;
use crate::wait::{Deadline, Slowness};
use ccr_contract::status::Status;
use serde_json::json;
use state::{Mark, Next, Pace, State};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The longest time in which the same cause of an end is told once.
const MINUTE: Duration = Duration::from_secs(60);
/// By so much a reading of a machine's clock may be too low: the kernel's text has hundredths of a second.
const READING: Duration = Duration::from_millis(10);

/// What a runtime said, and when that was so.
pub(super) type Said = (Status, Moment);

/// How long what was heard stands, on a host of a slowness.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// A watch tells something at least twice in this time.
    stale_us: u64,
    /// A node without a watch is asked again.
    ask_us: u64,
    /// The same where something happened to the cluster or the service.
    least_us: u64,
    /// A node that did not answer is asked again.
    failed_us: u64,
    /// A watch that was just begun tells a line at once: for so long it is waited for. Not one that goes on from an earlier session,
    /// which says nothing until something changes.
    first_us: u64,
    /// A watch that told something in this time will soon tell more, and is waited for as long.
    talk_us: u64,
}

impl Limits {
    fn of(slowness: Slowness) -> Self {
        let us = |ms| slowness.scale(Duration::from_millis(ms)).as_micros() as u64;
        Self {
            stale_us: us(10_000),
            ask_us: us(5_000),
            least_us: us(250),
            failed_us: us(1_000),
            first_us: us(2_000),
            talk_us: us(600),
        }
    }
}

/// Counts what was heard of a lab; who waits for more is woken.
#[derive(Debug, Default)]
pub(super) struct News {
    number: Mutex<u64>,
    changed: Condvar,
}

impl News {
    /// How much was heard.
    pub fn number(&self) -> u64 {
        *lock(&self.number)
    }

    fn tell(&self) {
        *lock(&self.number) += 1;
        self.changed.notify_all();
    }

    /// Waits until more was heard than `beyond`, `most` at the longest; how much was heard then.
    pub fn wait(&self, beyond: u64, most: Duration) -> u64 {
        let guard = lock(&self.number);
        let waited = self.changed.wait_timeout_while(guard, most, |n| *n <= beyond);
        *waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// What `look` finds, as soon as it finds something; it looks again whenever something was heard.
    fn find<T>(&self, most: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let until = Instant::now() + most;
        loop {
            // Before the look: what comes between the look and the wait must wake us.
            let seen = self.number();
            let found = look();
            let left = until.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            self.wait(seen, left);
        }
    }
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Watch {
    halt: Halt,
    state: Mutex<State>,
}

/// What is known of all nodes of a lab.
#[derive(Debug)]
pub(super) struct Watches {
    journal: Journal,
    nodes: Mutex<BTreeMap<String, Arc<Watch>>>,
    news: Arc<News>,
    /// When something last happened to the cluster or the service.
    shaken: Arc<AtomicU64>,
}

/// How a watch is begun.
pub(super) struct Begin {
    /// A way into the machine.
    pub connect: Box<dyn Fn(Deadline) -> Result<Box<dyn Remote>> + Send>,
    /// The pack's `watch`.
    pub argv: Vec<String>,
    /// Of the host.
    pub slowness: Slowness,
}

impl Watches {
    /// Nothing was heard yet. What happens to machines, cluster and service, by the journal, is news as well.
    pub fn new(journal: Journal) -> Self {
        let (news, shaken) = (Arc::<News>::default(), Arc::<AtomicU64>::default());
        let begin = journal.begin_us();
        journal.listen({
            let (news, shaken) = (news.clone(), shaken.clone());
            move |event| {
                let shakes = shakes(event);
                if shakes {
                    shaken.store(monotonic_us().saturating_sub(begin), Ordering::Relaxed);
                }
                if shakes || event.src == Source::Hypervisor {
                    news.tell();
                }
                true
            }
        });
        Self {
            journal,
            nodes: Mutex::default(),
            news,
            shaken,
        }
    }

    /// What tells that there is more.
    pub fn news(&self) -> &Arc<News> {
        &self.news
    }

    fn of(&self, node: &str) -> Arc<Watch> {
        lock(&self.nodes).entry(node.to_owned()).or_default().clone()
    }

    /// Begins to watch `node`; one that is watched already is left alone.
    pub fn begin(&self, node: &str, begin: Begin) -> std::io::Result<()> {
        let watch = self.of(node);
        if !lock(&watch.state).begins(self.journal.now_us()) {
            return Ok(());
        }
        let thread = Thread {
            node: node.to_owned(),
            begin,
            journal: self.journal.clone(),
            news: self.news.clone(),
            watch,
        };
        std::thread::Builder::new()
            .name(format!("watch {node}"))
            .stack_size(256 << 10)
            .spawn(move || thread.run())
            .map(drop)
    }

    /// What `node` said before is not so any more: its machine does not run, or its clock stood still.
    pub fn void(&self, node: &str) {
        lock(&self.of(node).state).void();
    }

    /// What is known of `node`; a question to it where that is not enough.
    pub fn look(&self, node: &str, since_us: Option<u64>, slowness: Slowness) -> Result<Known> {
        let asker = Asker {
            node: node.to_owned(),
            watch: self.of(node),
            journal: self.journal.clone(),
            news: self.news.clone(),
            shaken: self.shaken.clone(),
            since_us,
            limits: Limits::of(slowness),
        };
        Ok(match asker.next() {
            Next::Use(said) => Known::Said(said),
            Next::Fail(problem) => return Err(Error::Operation(problem)),
            Next::WaitUntil(_) | Next::Ask => Known::Ask(asker),
        })
    }

    /// Ends all watches, and forgets what they brought.
    pub fn stop(&self) {
        for (_, watch) in std::mem::take(&mut *lock(&self.nodes)) {
            watch.halt.tell();
        }
        self.news.tell();
    }
}

/// Whether it may have changed what other nodes say.
fn shakes(event: &Event) -> bool {
    let shaking = ["cluster.", "service."];
    event.src == Source::Node && shaking.iter().any(|k| event.kind.starts_with(k))
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Known {
    /// This is so.
    Said(Box<Said>),
    /// The node must be asked.
    Ask(Asker),
}

/// A question to one node.
#[derive(Debug)]
pub(super) struct Asker {
    node: String,
    watch: Arc<Watch>,
    journal: Journal,
    news: Arc<News>,
    shaken: Arc<AtomicU64>,
    since_us: Option<u64>,
    limits: Limits,
}

impl Asker {
    fn next(&self) -> Next {
        let (now, shaken) = (self.journal.now_us(), self.shaken.load(Ordering::Relaxed));
        lock(&self.watch.state).next(self.since_us, now, shaken, &self.limits)
    }

    /// What the node says: by its watch where that is about to tell it, else by `question`. `clock` reads the machine's boot-time clock
    /// without starting anything in it.
    pub fn ask(
        self,
        clock: impl FnOnce() -> Result<Duration>,
        question: impl FnOnce() -> Result<Status>,
    ) -> Result<Said> {
        let until = |next: Next| match next {
            Next::Use(said) => Some(Ok(*said)),
            Next::Fail(problem) => Some(Err(Error::Operation(problem))),
            Next::WaitUntil(_) | Next::Ask => None,
        };
        if let Next::WaitUntil(us) = self.next() {
            let most = Duration::from_micros(us.saturating_sub(self.journal.now_us()));
            let begun = || match self.next() {
                Next::WaitUntil(_) => None,
                next => Some(until(next)),
            };
            if let Some(Some(said)) = self.news.find(most, begun) {
                return said;
            }
        }
        if self.since_us.is_some() && lock(&self.watch.state).talks(self.journal.now_us(), &self.limits) {
            let host_us = self.journal.now_us();
            if let Ok(clock) = clock() {
                lock(&self.watch.state).mark(mark(host_us, clock));
                let most = Duration::from_micros(self.limits.talk_us);
                if let Some(said) = self.news.find(most, || until(self.next())) {
                    return said;
                }
            }
        }
        let (begun_us, era) = (self.journal.now_us(), lock(&self.watch.state).era());
        let answer = question().and_then(|s| of_node(&self.node, s));
        let heard_us = self.journal.now_us();
        let mut state = lock(&self.watch.state);
        let answer = match answer {
            Ok(status) => {
                state.answered(&status, begun_us, heard_us, era);
                let after_us = begun_us;
                Ok((status, Moment { after_us, heard_us }))
            }
            Err(e) => {
                state.failed(begun_us, heard_us, problem(&e), era);
                Err(e)
            }
        };
        drop(state);
        self.news.tell();
        answer
    }
}

/// A reading of the machine's clock that began at `host_us`.
fn mark(host_us: u64, clock: Duration) -> Mark {
    Mark {
        host_us,
        node_us: (clock + READING).as_micros() as u64,
    }
}

fn problem(e: &Error) -> Problem {
    let words = || Problem::new("ask the runtime").observed(e);
    e.problem().cloned().unwrap_or_else(words)
}

/// A node answers for itself.
fn of_node(node: &str, status: Status) -> Result<Status> {
    if status.node == node {
        return Ok(status);
    }
    let seen = format!("it says that it is `{}`", status.node.escape_debug());
    Err(Error::Operation(
        Problem::new("ask the runtime").on(node).observed(seen),
    ))
}

/// Watches one node until it is told to stop.
struct Thread {
    node: String,
    begin: Begin,
    journal: Journal,
    news: Arc<News>,
    watch: Arc<Watch>,
}

/// Why a watch ended.
struct Ended {
    why: Error,
    /// It was not as the contract has it.
    breach: bool,
}

impl From<Error> for Ended {
    fn from(why: Error) -> Self {
        Self { why, breach: false }
    }
}

impl Thread {
    fn run(self) {
        let mut told: Option<(String, Instant)> = None;
        loop {
            let begun_us = self.journal.now_us();
            lock(&self.watch.state).begins(begun_us);
            let Ended { why, breach } = self.once();
            if self.watch.halt.told() {
                return;
            }
            lock(&self.watch.state).broke(begun_us, self.journal.now_us(), problem(&why));
            self.news.tell();
            // The same cause once a minute: it is tried again and again.
            let text = why.to_string();
            let again = |(said, at): &(String, Instant)| *said == text && at.elapsed() < MINUTE;
            if !told.as_ref().is_some_and(again) {
                self.tell(&text, breach);
                told = Some((text, Instant::now()));
            }
            self.watch.halt.wait(AGAIN);
        }
    }

    fn tell(&self, text: &str, breach: bool) {
        let (kind, severity) = if breach {
            ("watch.bad", Severity::Warning)
        } else {
            ("watch.lost", Severity::Debug)
        };
        let draft = Draft::new(Source::Tool, kind).node(&self.node).severity(severity);
        self.journal.emit(draft.data(json!({ "text": text })));
    }

    fn once(&self) -> Ended {
        match self.hear() {
            Ok(ended) | Err(ended) => ended,
        }
    }

    fn hear(&self) -> Result<Ended, Ended> {
        let mut remote = (self.begin.connect)(Deadline::scaled(CONNECT, self.begin.slowness))?;
        let host_us = self.journal.now_us();
        let clock = remote.boottime(Deadline::scaled(CONNECT, self.begin.slowness))?;
        lock(&self.watch.state).listens(mark(host_us, clock));
        let limits = Limits::of(self.begin.slowness);
        let (mut pace, mut heard_us) = (Pace::default(), self.journal.now_us());
        let mut bad = None;
        deploy::watch(&mut *remote, &self.begin.argv, &mut |said| {
            let now = self.journal.now_us();
            let taken = match said {
                Watched::Begins => Ok(()),
                Watched::GoesOn => {
                    lock(&self.watch.state).goes_on();
                    // Whoever waits for its first line asks instead.
                    self.news.tell();
                    Ok(())
                }
                Watched::Said(said) => {
                    heard_us = now;
                    said.and_then(|s| self.take(*s, now, &mut pace))
                }
                Watched::Nothing => self.silent(now.saturating_sub(heard_us), &limits),
            };
            bad = taken.err();
            bad.is_none() && !self.watch.halt.told()
        })?;
        Ok(match bad {
            Some(why) => Ended { why, breach: true },
            None => self.bad("it ended".into()).into(),
        })
    }

    fn take(&self, status: Status, now: u64, pace: &mut Pace) -> Result<()> {
        if !pace.allows(now) {
            return Err(self.bad(format!("it babbles: more than {} lines a second", Pace::MOST)));
        }
        let status = of_node(&self.node, status)?;
        if lock(&self.watch.state).line(status, now) {
            self.news.tell();
        }
        Ok(())
    }

    /// One that stands still is ended and begun again.
    fn silent(&self, for_us: u64, limits: &Limits) -> Result<()> {
        if for_us < limits.stale_us {
            return Ok(());
        }
        let seen = format!("it stands still: not a line for {:.1} s", for_us as f64 / 1e6);
        Err(self.bad(seen))
    }

    fn bad(&self, seen: String) -> Error {
        let on = format!("{}: {}", self.node, self.begin.argv.join(" "));
        Error::Operation(Problem::new("watch the runtime").on(on).observed(seen))
    }
}
