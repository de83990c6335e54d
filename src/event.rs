//! The one stream out of the engine. Terminal, files and pages are its consumers.

mod lines;
mod node;
mod reader;

pub use node::RuntimeEvent;
pub use reader::{Read, Reader};

use crate::error::{Error, IoContext, Problem, Result};
use crate::lock::lock;
/// The tool's events matter by the measure of the runtime's.
pub use ccr_contract::event::Severity;
use lines::Lines;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Events that the tool itself reads back.
pub mod kind {
    /// Events are missing: the numbers `from` to `to` of `node`'s runtime, or of the lab's journal where no node is named. Its time is
    /// that of the first event behind the gap.
    pub const GAP: &str = "journal.gap";
    /// A new supervisor went on with the machines of one that had died (`dark_since_us`).
    pub const ADOPTED: &str = "supervisor.adopted";
    /// A client's stream of events broke off: the supervisor is gone.
    pub const SUPERVISOR_GONE: &str = "supervisor.gone";
}

/// Who saw it happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The tool itself: steps, waits, verdicts.
    Tool,
    /// libvirt and QEMU.
    Hypervisor,
    /// The user-space networks.
    Fabric,
    /// The workload's clients.
    Client,
    /// The runtime in a machine.
    Node,
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the journal, from 0, without gaps.
    pub seq: u64,
    /// Microseconds of the host's monotonic clock since the journal began.
    pub t_us: u64,
    /// Who saw it.
    pub src: Source,
    /// The node it is about.
    pub node: Option<String>,
    /// Dotted name: `step.begin`, `fault.begin`, `domain.stopped`.
    pub kind: String,
    /// The number that the original system gives this event, where it has one (ccr-semantics 11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// How much it matters.
    pub severity: Severity,
    /// Events of a node: its own boot-time clock, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_t_us: Option<u64>,
    /// Events of a node: how far `t_us` may be off, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_us: Option<u64>,
    /// Events of a node: their number in the runtime's own stream, from 0, without gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_seq: Option<u64>,
    /// The rest.
    #[serde(default)]
    pub data: Value,
}

/// An event before the journal gave it number and time.
#[derive(Debug, Clone)]
pub struct Draft {
    /// See [`Event`].
    pub src: Source,
    /// See [`Event`].
    pub node: Option<String>,
    /// See [`Event`].
    pub kind: String,
    /// See [`Event`].
    pub id: Option<u32>,
    /// See [`Event`].
    pub severity: Severity,
    /// When it happened, where that is not now: microseconds since the journal began.
    pub t_us: Option<u64>,
    /// See [`Event`].
    pub node_t_us: Option<u64>,
    /// See [`Event`].
    pub skew_us: Option<u64>,
    /// See [`Event`].
    pub node_seq: Option<u64>,
    /// See [`Event`].
    pub data: Value,
}

impl Draft {
    /// An `info` event of `src`.
    pub fn new(src: Source, kind: impl Into<String>) -> Self {
        Self {
            src,
            node: None,
            kind: kind.into(),
            id: None,
            severity: Severity::Info,
            t_us: None,
            node_t_us: None,
            skew_us: None,
            node_seq: None,
            data: Value::Null,
        }
    }
    /// About this node.
    #[must_use]
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }
    /// With this severity.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
    /// With this data.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }
}

/// Microseconds of the host's monotonic clock: the same for every process on this host until it reboots.
pub fn monotonic_us() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000
}

/// The wall clock: seconds since 1970, 0 where it is set to before that.
pub fn wall_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// The wall clock (UTC) in a form that sorts by time and fits a file name: `20261120T114500`.
pub fn compact_wall_time() -> String {
    let text = wall_time(wall_seconds());
    text.replace(['-', ':'], "").replace(' ', "T")
}

/// A wall time (UTC) for people, from seconds since 1970: `2026-11-20 11:45:00`.
pub fn wall_time(seconds: u64) -> String {
    let (year, month, day) = civil((seconds / 86_400) as i64);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}")
}

/// The date of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

/// First line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalHead {
    /// Version of the shape.
    pub schema: u32,
    /// Wall time at the beginning, seconds since 1970.
    pub wall: u64,
    /// The host's monotonic clock at `t_us` = 0.
    pub monotonic_us: u64,
    /// Tool and version.
    pub tool: String,
    /// Seed of the run.
    pub seed: u64,
}

type Listener = Box<dyn FnMut(&Event) -> bool + Send>;

/// An append-only journal with listeners. Cheap to clone; safe from any thread.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    begin_us: u64,
    path: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    next: u64,
    file: Option<Lines>,
    /// Events that are in no file: from the first to the last.
    lost: Option<(u64, u64)>,
    listeners: Vec<Listener>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("begin_us", &self.0.begin_us)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// A journal that only tells its listeners.
    pub fn in_memory() -> Self {
        Self::with(monotonic_us(), 0, None, None)
    }

    /// The same on the clock of another journal: its zero is where that one's is, as [`Journal::begin_us`] says.
    pub fn in_memory_since(begin_us: u64) -> Self {
        Self::with(begin_us, 0, None, None)
    }

    /// Opens `path`, or begins it with a head line. A journal that was there goes on with its own clock and numbers; torn lines (the
    /// writer was killed, or its disk was full) are cut out, and an event says how many there were.
    pub fn open(path: &Path, seed: u64) -> Result<Self> {
        let (left, mut file) = lines::open(path)?;
        let begin = match left.head {
            Some(h) => h.monotonic_us,
            None => {
                let head = JournalHead {
                    schema: 1,
                    wall: wall_seconds(),
                    monotonic_us: monotonic_us(),
                    tool: crate::TOOL.into(),
                    seed,
                };
                file.add(&line(&head)).tried("begin the journal", path.display())?;
                head.monotonic_us
            }
        };
        let journal = Self::with(begin, left.next, Some(file), Some(path.to_owned()));
        if left.torn > 0 {
            let text = format!("{} torn lines of the journal were cut out", left.torn);
            let draft = Draft::new(Source::Tool, "journal.mended").severity(Severity::Warning);
            journal.emit(draft.data(serde_json::json!({"lines": left.torn, "text": text})));
        }
        Ok(journal)
    }

    fn with(begin_us: u64, next: u64, file: Option<Lines>, path: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner {
            begin_us,
            path,
            state: Mutex::new(State {
                next,
                file,
                lost: None,
                listeners: Vec::new(),
            }),
        }))
    }

    /// Microseconds since the journal began.
    pub fn now_us(&self) -> u64 {
        monotonic_us().saturating_sub(self.0.begin_us)
    }

    /// The host's monotonic clock at the journal's zero.
    pub fn begin_us(&self) -> u64 {
        self.0.begin_us
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        lock(&self.0.state).next
    }

    /// Reads the journal's file from the event `from` on; without a number, what comes from now on.
    ///
    /// # Errors
    /// Where the journal has no file, or it cannot be opened.
    pub fn reader(&self, from: Option<u64>) -> Result<Reader> {
        let from = from.unwrap_or_else(|| self.next());
        match &self.0.path {
            Some(path) => Reader::open(path, from),
            None => Err(Error::Bug(
                Problem::new("read the journal").observed("it is in memory only"),
            )),
        }
    }

    /// Calls `f` for every event from now on, on the thread that emits it, until it says no more (`false`).
    /// `f` must not block and must not emit.
    pub fn listen(&self, f: impl FnMut(&Event) -> bool + Send + 'static) {
        lock(&self.0.state).listeners.push(Box::new(f));
    }

    /// Numbers the event, writes it, tells the listeners. One that cannot be written must not stop the lab: the listeners still hear
    /// it, and the file says which are missing as soon as it takes lines again.
    pub fn emit(&self, draft: Draft) -> Event {
        let mut state = lock(&self.0.state);
        if let Some((from, to)) = state.lost {
            let text = format!("{} events could not be written", to - from + 1);
            let gap = Draft::new(Source::Tool, kind::GAP).severity(Severity::Error);
            let gap = self.number(
                &state,
                gap.data(serde_json::json!({"from": from, "to": to, "text": text})),
            );
            if state.write(&gap) {
                state.lost = None;
                state.tell(&gap);
            }
        }
        let event = self.number(&state, draft);
        if !state.write(&event) {
            state.lost = Some((state.lost.map_or(event.seq, |(from, _)| from), event.seq));
        }
        state.tell(&event);
        event
    }

    /// The event as the next one.
    fn number(&self, state: &State, draft: Draft) -> Event {
        Event {
            seq: state.next,
            t_us: draft.t_us.unwrap_or_else(|| self.now_us()),
            src: draft.src,
            node: draft.node,
            kind: draft.kind,
            id: draft.id,
            severity: draft.severity,
            node_t_us: draft.node_t_us,
            skew_us: draft.skew_us,
            node_seq: draft.node_seq,
            data: draft.data,
        }
    }
}

impl State {
    /// Whether it is written, where there is a file.
    fn write(&mut self, event: &Event) -> bool {
        self.file.as_mut().is_none_or(|f| f.add(&line(event)).is_ok())
    }

    fn tell(&mut self, event: &Event) {
        self.next = event.seq + 1;
        self.listeners.retain_mut(|l| l(event));
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("it is plain data");
    line.push(b'\n');
    line
}

/// A step that a person waits for: begun, told about, ended. Dropped without [`Step::done`], it ends as failed.
#[derive(Debug)]
pub struct Step {
    journal: Journal,
    name: String,
    node: Option<String>,
    begun: std::time::Instant,
    ended: bool,
    /// What was said last: the same again is no news.
    said: Mutex<String>,
}

impl Step {
    /// Begins the step `name` (`boot`), saying what is being done or waited for.
    pub fn begin(journal: &Journal, name: &str, node: Option<&str>, text: &str) -> Self {
        let step = Self {
            journal: journal.clone(),
            name: name.to_owned(),
            node: node.map(str::to_owned),
            begun: std::time::Instant::now(),
            ended: false,
            said: Mutex::default(),
        };
        step.emit("step.begin", text, Value::Null);
        step
    }

    /// Says what is being waited for now.
    pub fn say(&self, text: &str) {
        let mut said = lock(&self.said);
        if *said != text {
            text.clone_into(&mut said);
            self.emit("step.progress", text, Value::Null);
        }
    }

    /// How far it is, where that is known.
    pub fn progress(&self, text: &str, done: u64, total: u64) {
        self.emit("step.progress", text, serde_json::json!({"done": done, "total": total}));
    }

    /// Ends the step well.
    pub fn done(mut self, text: &str) {
        self.end(true, text);
    }

    fn end(&mut self, ok: bool, text: &str) {
        self.ended = true;
        let seconds = self.begun.elapsed().as_secs_f64();
        self.emit("step.end", text, serde_json::json!({"ok": ok, "seconds": seconds}));
    }

    fn emit(&self, kind: &str, text: &str, more: Value) {
        let mut data = serde_json::json!({"step": self.name, "text": text});
        if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
            data.extend(more);
        }
        let mut draft = Draft::new(Source::Tool, kind).data(data);
        draft.node.clone_from(&self.node);
        self.journal.emit(draft);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end(false, "failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Listens with `note`, which adds to a list what it finds worth it.
    fn notes(
        journal: &Journal,
        mut note: impl FnMut(&mut Vec<String>, &Event) -> bool + Send + 'static,
    ) -> Arc<Mutex<Vec<String>>> {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let notes = heard.clone();
        journal.listen(move |e| note(&mut lock(&notes), e));
        heard
    }

    #[test]
    fn a_reopened_journal_goes_on_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let j = Journal::open(&path, 7).unwrap();
        j.emit(Draft::new(Source::Tool, "a"));
        j.emit(Draft::new(Source::Tool, "b"));
        let begin = j.begin_us();
        drop(j);
        let mut f = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        f.write_all(b"{\"seq\":2,\"t_us").unwrap();
        let j = Journal::open(&path, 8).unwrap();
        assert_eq!(j.begin_us(), begin);
        assert_eq!(j.emit(Draft::new(Source::Tool, "c")).seq, 3);
        let events = written(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(events[2].kind, "journal.mended");
        assert_eq!(events[2].data["lines"], 1);
    }

    fn written(text: &str) -> Vec<Event> {
        text.lines().skip(1).map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn torn_lines_in_the_middle_are_cut_out_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let j = Journal::open(&path, 7).unwrap();
        for kind in ["a", "b", "c", "d", "e", "f"] {
            j.emit(Draft::new(Source::Tool, kind));
        }
        drop(j);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // Of `b` only half, and `c` behind it in the same line; of `e` what a disk made of it.
        let half = lines.remove(2)[..20].to_owned();
        lines[2].insert_str(0, &half);
        let text = lines.join("\n").replace("\"e\"", "\u{fffd}e\"") + "\n";
        std::fs::write(&path, text).unwrap();

        let j = Journal::open(&path, 8).unwrap();
        assert_eq!(j.emit(Draft::new(Source::Tool, "g")).seq, 7);
        let events = written(&std::fs::read_to_string(&path).unwrap());
        let told: Vec<_> = events.iter().map(|e| (e.seq, e.kind.as_str())).collect();
        assert_eq!(
            told,
            [(0, "a"), (2, "c"), (3, "d"), (5, "f"), (6, "journal.mended"), (7, "g")]
        );
        assert_eq!(events[4].data["lines"], 2);
    }

    #[test]
    fn events_that_a_full_disk_did_not_take_are_told_as_a_gap() {
        let disk = lines::tests::Disk::default();
        let j = Journal::with(monotonic_us(), 0, Some(Lines::new(disk.clone(), 0)), None);
        let heard = notes(&j, |notes, e| {
            notes.push(e.kind.clone());
            true
        });
        let emit = |kind: &str| j.emit(Draft::new(Source::Tool, kind)).seq;
        let room = |bytes| disk.0.lock().unwrap().1 = bytes;
        room(1 << 20);
        emit("a");
        let whole = disk.0.lock().unwrap().0.len();
        room(whole + 10);
        assert_eq!((emit("b"), emit("c")), (1, 2));
        room(1 << 20);
        assert_eq!(emit("d"), 4);
        let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        let events: Vec<Event> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let told: Vec<_> = events.iter().map(|e| (e.seq, e.kind.as_str())).collect();
        assert_eq!(told, [(0, "a"), (3, "journal.gap"), (4, "d")]);
        assert_eq!((&events[1].data["from"], &events[1].data["to"]), (&1.into(), &2.into()));
        assert_eq!(*heard.lock().unwrap(), ["a", "b", "c", "journal.gap", "d"]);
    }

    #[test]
    fn a_step_says_a_thing_once() {
        let j = Journal::in_memory();
        let heard = notes(&j, |notes, e| {
            notes.push(e.data["text"].as_str().unwrap_or_default().to_owned());
            true
        });
        let step = Step::begin(&j, "deploy", None, "begin");
        for text in ["a", "a", "b", "a"] {
            step.say(text);
        }
        step.done("end");
        assert_eq!(*heard.lock().unwrap(), ["begin", "a", "b", "a", "end"]);
    }

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_777), (2026, 11, 20));
    }

    #[test]
    fn listeners_hear_what_is_written() {
        let j = Journal::in_memory();
        let heard = notes(&j, |notes, e| {
            notes.push(e.kind.clone());
            e.kind != "y"
        });
        for kind in ["x", "y", "z"] {
            j.emit(Draft::new(Source::Client, kind).node("n"));
        }
        assert_eq!(*heard.lock().unwrap(), ["x", "y"]);
    }
}
