//! What counts and what does not, each once.

use super::state::{Mark, Next, Pace, State};
use super::*;
use crate::guest::fake::FakeRemote;
use crate::guest::{Command, Followed, Output};
use std::path::Path;
use std::sync::mpsc;

const S: u64 = 1_000_000;

fn limits() -> Limits {
    Limits::of(Slowness::NONE)
}

fn status(node: &str, stamp: Option<u64>, epoch: u64) -> Status {
    let text = json!({"schema": 1, "node": node, "version": "1", "epoch": epoch, "cluster": null, "service": null,
        "node_t_us": stamp});
    serde_json::from_value(text).unwrap()
}

fn mark(host_us: u64, node_us: u64) -> Mark {
    Mark { host_us, node_us }
}

/// A watch that has told a line, stamped 500 s, at 11 s: its clock was read as 499 s at 10 s.
fn told() -> State {
    let mut state = State::default();
    assert!(state.begins(9 * S));
    state.listens(mark(10 * S, 499 * S));
    assert!(state.line(status("a", Some(500 * S), 1), 11 * S));
    state
}

/// The epoch of what a look at `now` uses.
fn used(state: &State, since: Option<u64>, now: u64) -> Option<u64> {
    match state.next(since, now, 0, &limits()) {
        Next::Use(said) => Some(said.0.epoch),
        _ => None,
    }
}

fn asks(state: &State, since: Option<u64>, now: u64) -> bool {
    matches!(state.next(since, now, 0, &limits()), Next::Ask)
}

fn fails(state: &State, since: Option<u64>, now: u64) -> bool {
    matches!(state.next(since, now, 0, &limits()), Next::Fail(_))
}

fn broken() -> Problem {
    Problem::new("watch").observed("broken")
}

#[test]
fn what_was_said_before_a_fault_does_not_count_after_it() {
    let mut state = told();
    assert_eq!(used(&state, None, 12 * S), Some(1));
    assert_eq!(used(&state, Some(10 * S), 12 * S), Some(1));
    // A fault at 12 s: the line was heard before, and one that is heard behind it may be of before as well.
    assert!(asks(&state, Some(12 * S), 13 * S));
    state.line(status("a", Some(501 * S), 2), 13 * S);
    assert!(asks(&state, Some(12 * S), 13 * S));
    assert_eq!(used(&state, None, 13 * S), Some(2));
    // The clock was read as 502 s after the fault: what is stamped later is of after it, whatever the rates of the clocks.
    state.mark(mark(13 * S, 502 * S));
    state.line(status("a", Some(502 * S - 1), 3), 14 * S);
    assert!(asks(&state, Some(12 * S), 14 * S));
    state.line(status("a", Some(502 * S), 4), 15 * S);
    assert_eq!(used(&state, Some(12 * S), 15 * S), Some(4));
    assert!(asks(&state, Some(14 * S), 15 * S));
    // One that came between the reading and its note counts too.
    state.mark(mark(14 * S, 502 * S));
    assert_eq!(used(&state, Some(14 * S), 15 * S), Some(4));
}

#[test]
fn an_answer_counts_from_its_question_on_and_so_do_later_lines() {
    let mut state = told();
    let era = state.era();
    state.answered(&status("a", Some(510 * S), 2), 20 * S, 21 * S, era);
    assert_eq!(used(&state, Some(20 * S), 21 * S), Some(2));
    assert!(asks(&state, Some(20 * S + 1), 21 * S));
    // A line that the answer has overtaken is no news; one behind it was so after the question as well.
    state.line(status("a", Some(509 * S), 3), 21 * S);
    assert_eq!(used(&state, None, 21 * S), Some(2));
    state.line(status("a", Some(511 * S), 4), 22 * S);
    assert_eq!(used(&state, Some(20 * S), 22 * S), Some(4));
    // An answer that a line has overtaken makes the line count.
    state.line(status("a", Some(530 * S), 5), 31 * S);
    state.answered(&status("a", Some(525 * S), 6), 30 * S, 31 * S, era);
    assert_eq!(used(&state, Some(30 * S), 31 * S), Some(5));
    // One to a question of before the machine stood still is its asker's only.
    state.void();
    state.answered(&status("a", Some(540 * S), 7), 32 * S, 33 * S, era);
    assert!(asks(&state, None, 33 * S));
}

#[test]
fn lines_of_before_the_watch_began_are_of_another_past() {
    let mut state = told();
    state.broke(9 * S, 20 * S, broken());
    assert!(state.begins(21 * S));
    // What the agent kept meanwhile, or what a machine that came back had in its memory.
    state.listens(mark(21 * S, 520 * S));
    assert!(!state.line(status("a", Some(519 * S), 2), 22 * S));
    assert_eq!(used(&state, None, 22 * S), None);
    assert!(!state.line(status("a", None, 3), 22 * S));
    assert!(state.line(status("a", Some(520 * S), 4), 22 * S));
    assert_eq!(used(&state, Some(21 * S), 22 * S), Some(4));
}

#[test]
fn nothing_stands_that_nobody_would_correct() {
    // A watch that says nothing for long: the node is asked.
    let mut state = told();
    assert_eq!(used(&state, None, 21 * S), Some(1));
    assert!(asks(&state, None, 21 * S + 1));
    // One that broke: its cause is told for a moment, then the node is asked.
    state.broke(9 * S, 12 * S, broken());
    assert!(fails(&state, None, 13 * S) && asks(&state, None, 13 * S + 1));
    assert!(asks(&state, Some(10 * S), 12 * S), "it was begun before");
    // A machine that stood still.
    let mut state = told();
    state.void();
    assert!(asks(&state, None, 12 * S));
    // A question without an answer.
    let mut state = told();
    let era = state.era();
    state.failed(12 * S, 13 * S, broken(), era);
    assert!(fails(&state, Some(12 * S), 14 * S));
    // One that a line has overtaken is over.
    let mut state = told();
    state.line(status("a", Some(502 * S), 2), 13 * S);
    state.failed(12 * S, 14 * S, broken(), era);
    assert_eq!(used(&state, None, 14 * S), Some(2));
}

#[test]
fn a_watch_that_was_just_begun_is_waited_for() {
    let mut state = State::default();
    assert!(state.begins(10 * S) && !state.begins(10 * S));
    let until = |state: &State, now| match state.next(None, now, 0, &limits()) {
        Next::WaitUntil(us) => Some(us),
        _ => None,
    };
    let long_enough = 10 * S + limits().first_us;
    assert_eq!(until(&state, long_enough - 1), Some(long_enough));
    assert_eq!(until(&state, long_enough), None);
    assert!(asks(&state, None, long_enough));
    state.listens(mark(10 * S, S));
    state.line(status("a", Some(2 * S), 1), long_enough - 1);
    assert_eq!(until(&state, long_enough - 1), None);
}

/// One in the memory of a machine that was brought back said its first line in another session. It will tell what changes.
#[test]
fn a_watch_that_goes_on_is_not_waited_for_and_keeps_what_was_answered() {
    let mut state = State::default();
    assert!(state.begins(10 * S));
    state.listens(mark(10 * S, 500 * S));
    state.goes_on();
    assert!(asks(&state, None, 10 * S) && !state.talks(10 * S, &limits()));
    assert!(!state.begins(10 * S), "there is one");
    state.answered(&status("a", Some(501 * S), 1), 10 * S, 11 * S, 0);
    // Longer than an answer of a node that nobody watches.
    assert_eq!(used(&state, None, 21 * S), Some(1));
    assert!(asks(&state, None, 21 * S + 1));
    state.line(status("a", Some(505 * S), 2), 15 * S);
    assert!(state.talks(15 * S, &limits()));
    assert_eq!(used(&state, None, 16 * S), Some(2));
}

/// A way into a machine in which a watch goes on from an earlier session, and says nothing until this is dropped.
#[derive(Debug)]
struct GoesOn(Mutex<mpsc::Receiver<()>>);

impl Remote for GoesOn {
    fn boottime(&mut self, _: Deadline) -> Result<Duration> {
        Ok(Duration::from_secs(100))
    }
    fn exec(&mut self, _: &Command, _: Deadline) -> Result<Output> {
        Err(Error::Interrupted)
    }
    fn upload(&mut self, _: &[u8], _: &Path, _: u32, _: Deadline) -> Result<()> {
        Err(Error::Interrupted)
    }
    fn download(&mut self, _: &Path, _: Deadline) -> Result<Vec<u8>> {
        Err(Error::Interrupted)
    }
    fn follow(&mut self, _: &Command, on: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()> {
        let ran = Some(Duration::from_secs(7));
        on(Followed::Begun { ran });
        let _ = lock(&self.0).recv();
        Ok(())
    }
}

/// Whoever waits for the first line of a watch hears that there will be none, and asks.
#[test]
fn a_look_that_waits_for_a_watch_that_goes_on_asks() {
    let watches = Watches::new(Journal::in_memory());
    let (connect, connects) = mpsc::channel();
    let begin = Begin {
        connect: Box::new(move |_| {
            let silent = connects.recv().map_err(|_| Error::Interrupted)?;
            Ok(Box::new(GoesOn(Mutex::new(silent))))
        }),
        argv: vec!["watch".into()],
        slowness: Slowness::NONE,
    };
    watches.begin("a", begin).unwrap();
    let question = asker(&watches, None);
    assert!(matches!(question.next(), Next::WaitUntil(_)));
    let begun = Instant::now();
    let (goes_on, silent) = mpsc::channel();
    let said = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let clock = || unreachable!("it does not talk");
            question.ask(clock, || Ok(status("a", Some(150 * S), 3)))
        });
        connect.send(silent).unwrap();
        asked.join().unwrap().unwrap()
    });
    assert_eq!(said.0.epoch, 3);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_micros(limits().first_us), "{waited:?}");
    watches.stop();
    drop(goes_on);
}

#[test]
fn a_node_without_a_watch_is_asked_now_and_then_and_when_something_happened() {
    let mut state = State::default();
    assert!(asks(&state, None, 0));
    state.answered(&status("a", None, 1), 10 * S, 11 * S, 0);
    assert_eq!(used(&state, None, 16 * S), Some(1));
    assert!(asks(&state, None, 16 * S + 1));
    assert!(asks(&state, Some(10 * S + 1), 11 * S));
    // The cluster changed at 12 s; a burst of events is no burst of questions.
    let next = |now, shaken| state.next(None, now, shaken, &limits());
    assert!(matches!(next(12 * S, 12 * S), Next::Ask));
    assert!(matches!(next(11 * S + 250_000, 11 * S + 200_000), Next::Use(_)));
    assert!(matches!(next(12 * S, 11 * S), Next::Use(_)));
}

#[test]
fn a_watch_may_tell_as_much_as_the_contract_says() {
    let mut pace = Pace::default();
    assert!((0..10_000u64).all(|n| pace.allows(n * S / 4)));
    // What waited on its way comes at once.
    assert!((0..1024u64).all(|_| pace.allows(2500 * S)));
    let mut pace = Pace::default();
    assert!(!(0..10_000u64).all(|n| pace.allows(n * S / 20)));
}

/// The lines of a watch of node `a` whose clock is read as 100 s.
fn watched(lines: &str, status: i32) -> (Watches, Journal, mpsc::Receiver<(String, String)>) {
    let journal = Journal::in_memory();
    let (tell, told) = mpsc::channel();
    journal.listen(move |e| {
        let text = e.data["text"].as_str().unwrap_or_default().to_owned();
        e.src != Source::Tool || tell.send((e.kind.clone(), text)).is_ok()
    });
    let watches = Watches::new(journal.clone());
    let lines = lines.to_owned();
    let begin = Begin {
        connect: Box::new(move |_| {
            let remote = FakeRemote::new().answer(&["cat", "/proc/uptime"], 0, "100.00 1.00\n");
            Ok(Box::new(remote.answer(&["watch"], status, lines.clone())))
        }),
        argv: vec!["watch".into()],
        slowness: Slowness::NONE,
    };
    watches.begin("a", begin).unwrap();
    (watches, journal, told)
}

fn line(node: &str, stamp: u64) -> String {
    serde_json::to_string(&status(node, Some(stamp), 1)).unwrap() + "\n"
}

#[test]
fn what_is_wrong_with_a_watch_is_told_and_its_end_is_one() {
    for (lines, status, kind, why) in [
        (line("a", 101 * S) + "Online\n", 0, "watch.bad", "no such JSON"),
        (line("b", 101 * S), 0, "watch.bad", "it says that it is `b`"),
        (line("a", 101 * S).repeat(2000), 0, "watch.bad", "babbles"),
        (line("a", 101 * S), 0, "watch.lost", "it ended"),
        (String::new(), 3, "watch.lost", "status 3"),
    ] {
        let (watches, _, told) = watched(&lines, status);
        let (told, text) = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(told == kind && text.contains(why), "{why}: {told}: {text}");
        // What it had said before is not so any more.
        let e = watches.look("a", None, Slowness::NONE).unwrap_err().to_string();
        assert!(e.contains(why), "{e}");
        watches.stop();
    }
}

#[test]
fn a_watch_that_stands_still_is_ended() {
    let (watches, journal, _told) = watched("", 0);
    let thread = Thread {
        node: "a".into(),
        begin: Begin {
            connect: Box::new(|_| Err(Error::Interrupted)),
            argv: vec!["watch".into()],
            slowness: Slowness::NONE,
        },
        journal,
        news: watches.news().clone(),
        watch: watches.of("a"),
    };
    assert!(thread.silent(10 * S - 1, &limits()).is_ok());
    let e = thread.silent(10 * S, &limits()).unwrap_err().to_string();
    assert!(e.contains("stands still: not a line for 10.0 s"), "{e}");
    watches.stop();
}

/// A question that is asked of node `a`.
fn asker(watches: &Watches, since_us: Option<u64>) -> Asker {
    match watches.look("a", since_us, Slowness::NONE).unwrap() {
        Known::Ask(asker) => asker,
        Known::Said(said) => panic!("{said:?}"),
    }
}

#[test]
fn a_node_that_talks_is_waited_for_and_one_that_is_silent_is_asked() {
    let journal = Journal::in_memory();
    let watches = Watches::new(journal.clone());
    let clock = || Ok(Duration::from_secs(200));
    // Nobody watches it.
    let answer = |epoch| move || Ok(status("a", Some(150 * S), epoch));
    let before = watches.news().number();
    let said = asker(&watches, None).ask(clock, answer(1)).unwrap();
    assert_eq!((said.0.epoch, watches.news().number()), (1, before + 1));
    // It talks: a line is on its way that was so after the look began, and no program is started.
    let watch = watches.of("a");
    let hear = |stamp, epoch| {
        let now = journal.now_us();
        lock(&watch.state).line(status("a", Some(stamp), epoch), now)
    };
    lock(&watch.state).begins(journal.now_us());
    lock(&watch.state).listens(mark(journal.now_us(), 160 * S));
    assert!(hear(170 * S, 2));
    let since = journal.now_us();
    let question = asker(&watches, Some(since));
    let said = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            question.ask(
                || {
                    let read = clock();
                    // Heard behind the reading, one of before it and one of after it.
                    assert!(hear(180 * S, 3) && hear(201 * S, 4));
                    watches.news().tell();
                    read
                },
                || unreachable!("it is not asked"),
            )
        });
        asked.join().unwrap().unwrap()
    });
    assert!(said.0.epoch == 4 && said.1.after_us >= since, "{said:?}");
    // It says nothing in time: it is asked.
    let since = journal.now_us();
    let again = asker(&watches, Some(since));
    let said = again.ask(|| Ok(Duration::from_secs(300)), answer(5)).unwrap();
    assert_eq!(said.0.epoch, 5);
    // Its answer that is another's is none.
    let since = journal.now_us();
    let other = asker(&watches, Some(since)).ask(clock, || Ok(status("b", None, 6)));
    assert!(other.unwrap_err().to_string().contains("it says that it is `b`"));
    // What was forgotten does not come back.
    watches.stop();
    assert!(matches!(watches.look("a", None, Slowness::NONE), Ok(Known::Ask(_))));
}

#[test]
fn what_happens_is_news() {
    let journal = Journal::in_memory();
    let watches = Watches::new(journal.clone());
    let number = |src, kind: &str| {
        journal.emit(Draft::new(src, kind).node("a"));
        (watches.news().number(), watches.shaken.load(Ordering::Relaxed) > 0)
    };
    assert_eq!(number(Source::Tool, "service.x"), (0, false));
    assert_eq!(number(Source::Node, "log.closed"), (0, false));
    assert_eq!(number(Source::Hypervisor, "domain.stopped"), (1, false));
    assert_eq!(number(Source::Node, "service.online"), (2, true));
    assert_eq!(watches.news().wait(1, Duration::from_secs(600)), 2);
    assert_eq!(watches.news().wait(2, Duration::ZERO), 2);
}
