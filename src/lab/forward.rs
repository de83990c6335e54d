//! Copies a lab's events into a run's journal, from the first on, over supervisors that die: each next one is asked from where the copy
//! ends. That a supervisor died, and what could not be told, become events of the run.

use super::client::{Client, StreamItem};
use crate::error::{Error, IoContext, Result};
use crate::event::{Draft, Event, Journal, Severity, Source, kind};
use crate::files::{Home, LabFiles};
use crate::lock::lock;
use crate::wait::{Deadline, Probe, wait_until};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between two looks for a supervisor: whoever acts on the lab starts the next one.
const AGAIN: Duration = Duration::from_millis(100);

/// A copy that goes on until it is dropped.
#[derive(Debug)]
pub(super) struct Forward(Arc<Shared>);

struct Shared {
    journal: Journal,
    /// The number of the lab's next event.
    next: AtomicU64,
    stop: AtomicBool,
    hang_up: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Forward {
    /// Begins with the first event of the journal of `instance`, on whose clock `journal` must be.
    pub fn begin(home: &Home, instance: &str, journal: Journal) -> Result<Self> {
        let shared = Arc::new(Shared::new(journal));
        let work = {
            let (shared, files) = (shared.clone(), home.lab(instance));
            move || shared.run(&files)
        };
        std::thread::Builder::new()
            .name("forward events".into())
            .spawn(work)
            .tried("follow the lab's events", instance)?;
        Ok(Self(shared))
    }

    /// Waits until every event before the number `next` is in the run's journal, or is known to be missing.
    pub fn wait_for(&self, next: u64, deadline: Deadline) -> Result<()> {
        wait_until("hear all of the lab's events", deadline, || {
            let come = self.0.next.load(Ordering::Acquire);
            Ok(if come >= next {
                Probe::Ready(())
            } else {
                Probe::NotYet(format!("event {come} of {next}"))
            })
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        if let Some(hang_up) = lock(&self.0.hang_up).take() {
            hang_up();
        }
    }
}

impl Shared {
    fn new(journal: Journal) -> Self {
        Self {
            journal,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            hang_up: Mutex::default(),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn run(&self, files: &LabFiles) {
        while !self.stopped() {
            match Client::find(files) {
                Ok(Some(client)) => {
                    let ended = self.hear(client);
                    if !self.stopped() {
                        self.broke_off(ended.err());
                    }
                }
                // No supervisor is there, or none that can be understood: it was noted when the stream broke off.
                _ => crate::wait::pause(AGAIN),
            }
        }
    }

    fn hear(&self, client: Client) -> Result<()> {
        let hang_up = client.hang_up()?;
        *lock(&self.hang_up) = Some(Box::new(hang_up));
        if self.stopped() {
            return Ok(());
        }
        client.follow(Some(self.next.load(Ordering::Acquire)), |item| {
            match item {
                StreamItem::Event(event) => self.take(event),
                StreamItem::Gap { from, to } => self.missing(from, to),
            }
            !self.stopped()
        })
    }

    fn take(&self, event: &Event) {
        let next = self.next.load(Ordering::Acquire);
        if event.seq < next {
            return;
        }
        if event.seq > next {
            self.missing(next, event.seq - 1);
        }
        self.journal.emit(Draft {
            src: event.src,
            node: event.node.clone(),
            kind: event.kind.clone(),
            id: event.id,
            severity: event.severity,
            t_us: Some(event.t_us),
            node_t_us: event.node_t_us,
            skew_us: event.skew_us,
            node_seq: event.node_seq,
            data: event.data.clone(),
        });
        // Behind the event itself: who waits for the number finds it in the journal.
        self.next.store(event.seq + 1, Ordering::Release);
    }

    fn missing(&self, from: u64, to: u64) {
        let text = format!("events {from} to {to} of the lab's journal are missing");
        self.tell(kind::GAP, json!({"from": from, "to": to, "text": text}));
        self.next.fetch_max(to + 1, Ordering::AcqRel);
    }

    fn broke_off(&self, why: Option<Error>) {
        let why = why.map_or("it ended the stream of events".to_owned(), |e| e.to_string());
        let text = format!("the lab's supervisor is gone: {why}");
        self.tell(kind::SUPERVISOR_GONE, json!({ "text": text }));
    }

    fn tell(&self, kind: &str, data: serde_json::Value) {
        let draft = Draft::new(Source::Tool, kind).severity(Severity::Warning);
        self.journal.emit(draft.data(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::protocol::{Greeting, PROTO, Reply, Request, Verb};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    /// A supervisor that greets, is asked for events, tells what it is given and is gone. From which number it was asked.
    fn supervisor(files: &LabFiles, replies: &[Reply]) -> u64 {
        let _ = std::fs::remove_file(files.socket());
        let listener = UnixListener::bind(files.socket()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        // The next one must not be met by those who come too early for it.
        std::fs::remove_file(files.socket()).unwrap();
        let greeting = Greeting {
            failoverlab: "x".into(),
            proto: PROTO,
            lab: "ccr@1".into(),
            pid: 1,
        };
        writeln!(stream, "{}", serde_json::to_string(&greeting).unwrap()).unwrap();
        let mut asked = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut asked)
            .unwrap();
        for reply in replies {
            writeln!(stream, "{}", serde_json::to_string(reply).unwrap()).unwrap();
        }
        match serde_json::from_str::<Request>(&asked).unwrap().verb {
            Verb::Events(Some(since)) => since.from.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn event(seq: u64, kind: &str) -> Reply {
        let draft = Draft::new(Source::Node, kind).node("node1");
        let event = Journal::in_memory().emit(Draft {
            t_us: Some(1000 + seq),
            ..draft
        });
        Reply::Event(Event { seq, ..event })
    }

    #[test]
    fn a_supervisor_that_is_replaced_leaves_no_seam_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("ccr@1");
        Home::private_dir(&home.runtime).unwrap();
        Home::private_dir(&files.run).unwrap();
        let journal = Journal::in_memory();
        let heard = Arc::<Mutex<Vec<(String, u64)>>>::default();
        let notes = heard.clone();
        journal.listen(move |e| {
            lock(&notes).push((e.kind.clone(), e.t_us));
            true
        });
        let forward = Forward::begin(&home, "ccr@1", journal).unwrap();
        let deadline = || Deadline::after(Duration::from_secs(60));
        assert_eq!(supervisor(&files, &[event(0, "a"), event(1, "b")]), 0);
        forward.wait_for(2, deadline()).unwrap();
        // Nothing is there for a while; the next one is asked for the rest, and has not all of it.
        let rest = [
            event(2, kind::ADOPTED),
            Reply::Gap { from: 3, to: 5 },
            event(6, "c"),
            event(8, "d"),
        ];
        assert_eq!(supervisor(&files, &rest), 2);
        forward.wait_for(9, deadline()).unwrap();
        let kinds: Vec<String> = lock(&heard).iter().map(|(k, _)| k.clone()).collect();
        let gone = kind::SUPERVISOR_GONE;
        assert_eq!(
            kinds[..8],
            ["a", "b", gone, kind::ADOPTED, kind::GAP, "c", kind::GAP, "d"]
        );
        assert_eq!(lock(&heard)[1].1, 1001, "the time is what it was");
        let never = forward.wait_for(10, Deadline::after(Duration::ZERO)).unwrap_err();
        assert!(never.to_string().contains("event 9 of 10"), "{never}");
    }

    #[test]
    fn who_is_done_with_it_hears_of_no_death() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("ccr@1");
        Home::private_dir(&home.runtime).unwrap();
        Home::private_dir(&files.run).unwrap();
        let shared = Shared::new(Journal::in_memory());
        let gone = Arc::<AtomicBool>::default();
        let note = gone.clone();
        shared.journal.listen(move |e| {
            note.fetch_or(e.kind == kind::SUPERVISOR_GONE, Ordering::AcqRel);
            true
        });
        shared.stop.store(true, Ordering::Release);
        shared.run(&files);
        assert!(!gone.load(Ordering::Acquire));
    }
}
