//! A supervisor that answers from memory, for tests of whoever is its client.

use crate::event::{Draft, Event};
use crate::fabric::{Counters, Revision};
use crate::files::Home;
use crate::lab::protocol::{Greeting, LabStatus, Networks, PROTO, Reply, Request, Since, Verb, build};
use crate::lab::record::LabRecord;
use crate::lock::lock;
use crate::verify::FaultRecord;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What it knows.
#[derive(Debug)]
pub(crate) struct State {
    pub status: LabStatus,
    pub events: Vec<Event>,
    /// What it was asked to do, other than to tell.
    pub done: Vec<Verb>,
    ended: bool,
    talks: Vec<UnixStream>,
}

/// The supervisor of the lab `ccr`.
#[derive(Debug)]
pub(crate) struct Fake {
    pub home: Home,
    shared: Arc<Shared>,
    _dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Fake {
    /// It begins to listen.
    pub fn new(status: LabStatus) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("ccr");
        for folder in [&files.state, &files.run] {
            Home::private_dir(folder).unwrap();
        }
        LabRecord::sample("ccr").save(&files.record()).unwrap();
        let state = State {
            status,
            events: Vec::new(),
            done: Vec::new(),
            ended: false,
            talks: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let listener = UnixListener::bind(files.socket()).unwrap();
        let serves = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = lock(&serves.state);
                if state.ended {
                    return;
                }
                state.talks.push(stream.try_clone().unwrap());
                drop(state);
                let shared = serves.clone();
                std::thread::spawn(move || shared.converse(&stream));
            }
        });
        Self {
            home,
            shared,
            _dir: dir,
        }
    }

    /// Changes what it knows, and whoever waits hears it.
    pub fn change<T>(&self, how: impl FnOnce(&mut State) -> T) -> T {
        let changed = how(&mut lock(&self.shared.state));
        self.shared.changed.notify_all();
        changed
    }

    /// A line of its journal.
    pub fn emit(&self, draft: Draft, t_us: u64) {
        self.change(|state| {
            let seq = state.events.len() as u64;
            state.events.push(Event {
                seq,
                t_us,
                src: draft.src,
                node: draft.node,
                kind: draft.kind,
                id: draft.id,
                severity: draft.severity,
                node_t_us: None,
                skew_us: None,
                node_seq: None,
                data: draft.data,
            });
        });
    }

    /// It ends, as by `kill -9`.
    pub fn end(&self) {
        self.change(|state| {
            state.ended = true;
            for talk in state.talks.drain(..) {
                let _ = talk.shutdown(std::net::Shutdown::Both);
            }
        });
        let socket = self.home.lab("ccr").socket();
        let _ = UnixStream::connect(&socket);
        let _ = std::fs::remove_file(socket);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn converse(&self, stream: &UnixStream) {
        let greeting = Greeting {
            failoverlab: build(),
            proto: PROTO,
            lab: "ccr".into(),
            pid: std::process::id(),
        };
        let mut to = stream;
        let mut say = |what: Value| writeln!(to, "{what}");
        if say(serde_json::to_value(greeting).unwrap()).is_err() {
            return;
        }
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            let Request { id, verb } = serde_json::from_str(&line).unwrap();
            let told = match verb {
                Verb::Events(since) => return self.events(since, &mut say),
                verb => self.answer(verb),
            };
            let reply = Reply::Ok { id, result: told };
            if say(serde_json::to_value(reply).unwrap()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, verb: Verb) -> Value {
        let mut state = lock(&self.state);
        match verb {
            Verb::Status(_) => serde_json::to_value(&state.status).unwrap(),
            Verb::Counters => serde_json::to_value(Networks {
                revision: Revision(1),
                rules: Vec::new(),
                counters: Counters::default(),
            })
            .unwrap(),
            Verb::News { beyond, within_ms } => {
                let within = Duration::from_millis(within_ms);
                let more = |s: &mut State| s.status.heard <= beyond && !s.ended;
                let (state, _) = self.changed.wait_timeout_while(state, within, more).unwrap();
                json!(state.status.heard)
            }
            Verb::Fault(fault) => {
                let value = serde_json::to_value(&*fault).unwrap();
                let record = FaultRecord {
                    id: state.status.faults.len() as u64 + 1,
                    kind: fault.kind().word().to_owned(),
                    target: value["target"].clone(),
                    begin_us: state.status.t_us,
                    end_us: None,
                    proof: Value::Null,
                    effective: Some(true),
                    pending: false,
                };
                state.status.faults.push(record.clone());
                state.status.heard += 1;
                state.done.push(Verb::Fault(fault));
                self.changed.notify_all();
                serde_json::to_value(record).unwrap()
            }
            Verb::Heal { id } => {
                let (healed, left) = std::mem::take(&mut state.status.faults)
                    .into_iter()
                    .partition(|f| id.is_none_or(|id| id == f.id));
                state.status.faults = left;
                state.status.heard += 1;
                state.done.push(Verb::Heal { id });
                self.changed.notify_all();
                let healed: Vec<FaultRecord> = healed;
                serde_json::to_value(healed).unwrap()
            }
            other => {
                state.done.push(other);
                json!({"done": true})
            }
        }
    }

    fn events(&self, since: Option<Since>, say: &mut impl FnMut(Value) -> std::io::Result<()>) {
        let mut next = since.and_then(|s| s.from).unwrap_or(0) as usize;
        loop {
            let state = lock(&self.state);
            let none = |s: &mut State| s.events.len() <= next && !s.ended;
            let state = self.changed.wait_while(state, none).unwrap();
            if state.ended {
                return;
            }
            let event = state.events[next].clone();
            drop(state);
            next += 1;
            if say(serde_json::to_value(Reply::Event(event)).unwrap()).is_err() {
                return;
            }
        }
    }
}
