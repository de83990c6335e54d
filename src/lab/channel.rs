//! The supervisor's ways into the machines: one session for questions and one that follows events, for each node.

use super::record::Record;
use crate::deploy::{self, Answer, Pack};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Draft, Journal, Severity, Source};
use crate::files::LabFiles;
use crate::guest::ssh::{Ssh, Target};
use crate::guest::{Command, Remote};
use crate::hypervisor::{Domain, DomainState};
use crate::lock::lock;
use crate::wait::Deadline;
use ccr_contract::dump::Dump;
use ccr_contract::event::NodeEvent;
use ccr_contract::status::Status;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The longest that one question to a runtime may take, on a fast host.
const QUESTION: Duration = Duration::from_secs(15);
/// Pause before a follower that lost its machine tries again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a lab that has just become healthy is left alone before its events are followed: nothing is missed, and the handshakes
/// would take the processors from whoever waited for the lab.
const SETTLE: Duration = Duration::from_secs(2);

/// A standing session; none until it is needed, or after it broke.
type Session = Arc<Mutex<Option<Box<dyn Remote>>>>;

/// All nodes' sessions.
pub struct Channels {
    files: LabFiles,
    journal: Journal,
    questions: Mutex<BTreeMap<String, Session>>,
    followers: Mutex<BTreeMap<String, Arc<Follower>>>,
}

/// What a follower's thread shares with the engine.
#[derive(Debug, Default)]
struct Follower {
    stop: AtomicBool,
    wake: (Mutex<()>, Condvar),
    clock: Clock,
}

/// Where a node's boot-time clock lies on the journal's: `t_us = node_t_us + offset_us`.
#[derive(Debug, Default)]
struct Clock {
    /// Counts the times that the machine's clock stood still or began anew: the offset of before is void.
    jumps: AtomicU64,
    placed: Mutex<Option<Placed>>,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    offset_us: i64,
    skew_us: u64,
    jumps: u64,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Channels {
    /// No session yet.
    pub fn new(files: LabFiles, journal: Journal) -> Self {
        Self {
            files,
            journal,
            questions: Mutex::default(),
            followers: Mutex::default(),
        }
    }

    /// A new session with `node`.
    pub fn connect(&self, record: &Record, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
        Ok(Box::new(Ssh::connect(&way(&self.files, record, node)?, deadline)?))
    }

    /// Asks `node` over its standing session; a session that broke is replaced once.
    fn ask_within<T>(
        &self,
        record: &Record,
        node: &str,
        within: Duration,
        question: impl Fn(&mut dyn Remote, Deadline) -> Result<T>,
    ) -> Result<T> {
        let deadline = Deadline::after(within);
        let slot = self.slot(node);
        let mut session = lock(&slot);
        if let Some(remote) = session.as_mut() {
            match question(&mut **remote, deadline) {
                Ok(answer) => return Ok(answer),
                // The session may have died with its machine: a new one tells the difference.
                Err(_) if !deadline.passed() => *session = None,
                Err(e) => {
                    *session = None;
                    return Err(e);
                }
            }
        }
        let mut remote = self.connect(record, node, deadline)?;
        let answer = question(&mut *remote, deadline);
        *session = answer.is_ok().then_some(remote);
        answer
    }

    /// The standing session with `node`, a new one where there is none that works. It is the caller's; [`Channels::keep`] gives it back.
    pub fn take(&self, record: &Record, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
        working(&mut lock(&self.slot(node)), deadline, || {
            self.connect(record, node, deadline)
        })
    }

    /// Makes `remote` the standing session with `node`: whoever asks next needs no handshake.
    pub fn keep(&self, node: &str, remote: Box<dyn Remote>) {
        *lock(&self.slot(node)) = Some(remote);
    }

    fn slot(&self, node: &str) -> Session {
        lock(&self.questions).entry(node.to_owned()).or_default().clone()
    }

    /// Opens the standing sessions with all nodes that will be asked, in the background: who asks one waits for its own only.
    pub fn prepare(&self, record: &Record) {
        for node in record.wish.lab.nodes.iter().filter(|n| n.role.is_some()) {
            let Ok(way) = way(&self.files, record, &node.name) else {
                continue;
            };
            let slot = self.slot(&node.name);
            let deadline = Deadline::scaled(QUESTION, record.wish.slowness);
            let (begun, has_begun) = std::sync::mpsc::channel();
            let open = move || {
                let mut session = lock(&slot);
                let _ = begun.send(());
                // Whoever asks tries again, and says what is wrong.
                *session = Ssh::connect(&way, deadline)
                    .ok()
                    .map(|ssh| Box::new(ssh) as Box<dyn Remote>);
            };
            if std::thread::Builder::new().name("prepare".into()).spawn(open).is_ok() {
                // Until it has the session's lock: a question must not be faster.
                let _ = has_begun.recv();
            }
        }
    }

    /// What every node's runtime says, asked at once; `None` for a node without a runtime.
    pub fn statuses(&self, record: &Record, domains: &[Domain], within: Duration) -> Vec<Option<Result<Status>>> {
        let pack = match pack(record) {
            Ok(Some(pack)) => pack,
            Ok(None) => return record.wish.lab.nodes.iter().map(|_| None).collect(),
            Err(e) => {
                let seen = e.to_string();
                let failed = || Error::Operation(Problem::new("load the runtime's pack").seen(&seen));
                return record.wish.lab.nodes.iter().map(|_| Some(Err(failed()))).collect();
            }
        };
        self.of_each(record, |node| {
            node.role?;
            let name = node.name.as_str();
            // A machine that does not run cannot answer: asking would only wait.
            match domains.iter().find(|d| d.name == name).map(|d| d.state) {
                Some(DomainState::Running) => {}
                other => {
                    let seen = other.map_or("there is no machine".to_owned(), |s| {
                        format!("the machine is {s:?}").to_lowercase()
                    });
                    return Some(Err(Error::Operation(
                        Problem::new("ask the runtime").on(name).seen(seen),
                    )));
                }
            }
            Some(self.ask_within(record, name, within, |r, d| deploy::status(r, &pack, d)))
        })
    }

    /// What every node's store holds; `None` for a node that does not answer.
    pub fn dumps(&self, record: &Record) -> Vec<Option<Dump>> {
        let Ok(Some(pack)) = pack(record) else {
            return Vec::new();
        };
        let within = record.wish.slowness.scale(QUESTION * 4);
        self.of_each(record, |node| {
            node.role?;
            self.ask_within(record, &node.name, within, |r, d| deploy::dump(r, &pack, d))
                .ok()
        })
    }

    fn of_each<T: Send>(&self, record: &Record, ask: impl Fn(&crate::spec::Node) -> T + Sync) -> Vec<T> {
        let ask = &ask;
        std::thread::scope(|scope| {
            let asked: Vec<_> = record
                .wish
                .lab
                .nodes
                .iter()
                .map(|node| scope.spawn(move || ask(node)))
                .collect();
            asked
                .into_iter()
                .map(|t| t.join().expect("a question does not panic"))
                .collect()
        })
    }

    /// Gives `node` an order of the pack's contract.
    pub fn operate(&self, record: &Record, node: &str, word: &str, args: &[String]) -> Result<Answer> {
        let Some(pack) = pack(record)? else {
            return Err(Error::Usage(
                Problem::new("give the order").on(word).seen("the lab has no runtime"),
            ));
        };
        let deadline = Deadline::scaled(QUESTION * 4, record.wish.slowness);
        let slot = self.slot(node);
        once(
            &mut lock(&slot),
            deadline,
            || self.connect(record, node, deadline),
            |remote| deploy::operate(remote, &pack, word, args, deadline),
        )
    }

    /// Follows the events of every node that runs the runtime. Nodes that are followed already are left alone.
    pub fn follow(self: &Channels, record: &Arc<Record>) {
        let Ok(Some(pack)) = pack(record) else { return };
        let mut followers = lock(&self.followers);
        for node in record.wish.lab.nodes.iter().filter(|n| n.role.is_some()) {
            let name = node.name.to_string();
            if followers.contains_key(&name) {
                continue;
            }
            let Ok(way) = way(&self.files, record, &name) else {
                continue;
            };
            let follower = Arc::new(Follower::default());
            followers.insert(name.clone(), follower.clone());
            let thread = Thread {
                way,
                pack: pack.clone(),
                journal: self.journal.clone(),
                follower,
                slowness: record.wish.slowness,
            };
            let spawned = std::thread::Builder::new()
                .name(format!("follow {name}"))
                .stack_size(256 << 10)
                .spawn(move || thread.run());
            if let Err(e) = spawned {
                self.journal.emit(
                    Draft::new(Source::Tool, "follow.failed")
                        .node(name)
                        .severity(Severity::Error)
                        .data(json!({"text": e.to_string()})),
                );
            }
        }
    }

    /// The machine's boot-time clock stood still or began anew: events of before and after are placed apart.
    pub fn clock_jumped(&self, node: &str) {
        if let Some(f) = lock(&self.followers).get(node) {
            f.clock.jumps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends all sessions and followers.
    pub fn stop(&self) {
        for (_, f) in std::mem::take(&mut *lock(&self.followers)) {
            f.stop.store(true, Ordering::Relaxed);
            drop(lock(&f.wake.0));
            f.wake.1.notify_all();
        }
        lock(&self.questions).clear();
    }
}

/// How SSH reaches `node`.
pub fn way(files: &LabFiles, record: &Record, node: &str) -> Result<Target> {
    let machine = record
        .machine(node)
        .ok_or_else(|| Error::Usage(Problem::new("find the node").on(node).seen("the lab has no such node")))?;
    Ok(Target::new(files, node, machine.ssh_port))
}

/// The standing session where it still works, else a new one.
fn working(
    session: &mut Option<Box<dyn Remote>>,
    deadline: Deadline,
    connect: impl FnOnce() -> Result<Box<dyn Remote>>,
) -> Result<Box<dyn Remote>> {
    let nothing = Command::new(["true"]);
    let standing = session
        .take()
        .and_then(|mut r| r.exec(&nothing, deadline).ok().map(|_| r));
    standing.map_or_else(connect, Ok)
}

/// Gives an order over a session, once: one that broke off may have been carried out, and a second one would be refused for it.
/// So the session is tried before, and a broken one replaced.
fn once<T>(
    session: &mut Option<Box<dyn Remote>>,
    deadline: Deadline,
    connect: impl FnOnce() -> Result<Box<dyn Remote>>,
    order: impl FnOnce(&mut dyn Remote) -> Result<T>,
) -> Result<T> {
    let mut remote = working(session, deadline, connect)?;
    let answer = order(&mut *remote);
    *session = answer.is_ok().then_some(remote);
    answer
}

/// The pack of the lab's runtime; `None` for a lab of bare machines.
pub fn pack(record: &Record) -> Result<Option<Pack>> {
    record
        .wish
        .lab
        .runtime
        .as_ref()
        .map(|r| Ok(Pack::load(&r.kind)?.on_host(record.wish.slowness)))
        .transpose()
}

/// Follows one node until it is told to stop.
struct Thread {
    way: Target,
    pack: Pack,
    journal: Journal,
    follower: Arc<Follower>,
    slowness: crate::wait::Slowness,
}

impl Thread {
    fn run(self) {
        // Events that were journalled before the connection broke are not journalled again.
        let mut seen = Seen::default();
        self.wait(SETTLE);
        while !self.stopped() {
            if let Err(e) = self.once(&mut seen) {
                self.journal.emit(
                    Draft::new(Source::Tool, "follow.lost")
                        .node(&self.way.node)
                        .severity(Severity::Debug)
                        .data(json!({"text": e.to_string()})),
                );
            }
            self.wait(AGAIN);
        }
    }

    /// Waits, but not longer than until it is told to stop.
    fn wait(&self, time: Duration) {
        let guard = lock(&self.follower.wake.0);
        drop(
            self.follower
                .wake
                .1
                .wait_timeout_while(guard, time, |()| !self.stopped()),
        );
    }

    fn once(&self, seen: &mut Seen) -> Result<()> {
        let mut remote = Ssh::connect(&self.way, Deadline::scaled(QUESTION, self.slowness))?;
        self.place(&mut remote)?;
        deploy::follow_events(&mut remote, &self.pack, &mut |event| {
            if seen.is_new(&event) {
                self.journal.emit(self.draft(event));
            }
            !self.stopped()
        })
    }

    /// Measures where the node's boot-time clock lies: it was read between two readings of ours.
    fn place(&self, remote: &mut dyn Remote) -> Result<()> {
        let jumps = self.follower.clock.jumps.load(Ordering::Relaxed);
        let deadline = Deadline::scaled(QUESTION, self.slowness);
        let before = self.journal.now_us();
        let out = remote.exec(&Command::new(["cat", "/proc/uptime"]), deadline)?;
        let after = self.journal.now_us();
        let text = String::from_utf8_lossy(&out.stdout);
        let uptime: f64 = text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .parse()
            .tried("read the node's clock", &self.way.node)?;
        let node_us = (uptime * 1e6) as i64;
        let placed = Placed {
            offset_us: (before + (after - before) / 2) as i64 - node_us,
            // The kernel counts hundredths.
            skew_us: (after - before) / 2 + 10_000,
            jumps,
        };
        *lock(&self.follower.clock.placed) = Some(placed);
        Ok(())
    }

    fn draft(&self, event: NodeEvent) -> Draft {
        // Nothing is heard before it happened: the node's clock lies no later than this on the journal's.
        let latest_us = self.journal.now_us() as i64 - event.node_t_us as i64;
        let clock = &self.follower.clock;
        let jumps = clock.jumps.load(Ordering::Relaxed);
        let mut placed = lock(&clock.placed);
        let p = placed.get_or_insert(Placed {
            offset_us: latest_us,
            skew_us: 1_000_000,
            jumps,
        });
        if p.jumps != jumps {
            // The first event after a jump came at once: its delay is the new skew's bound.
            *p = Placed {
                offset_us: latest_us,
                skew_us: p.skew_us.max(500_000),
                jumps,
            };
        }
        p.offset_us = p.offset_us.min(latest_us);
        let t_us = (event.node_t_us as i64 + p.offset_us).max(0) as u64;
        Draft {
            src: Source::Node,
            node: Some(self.way.node.clone()),
            kind: event.kind,
            id: event.id,
            severity: event.severity,
            t_us: Some(t_us),
            node_t_us: Some(event.node_t_us),
            skew_us: Some(p.skew_us),
            data: serde_json::to_value(event.data).expect("plain data"),
        }
    }

    fn stopped(&self) -> bool {
        self.follower.stop.load(Ordering::Relaxed)
    }
}

/// Which events of a node were journalled: number → clock. A daemon that began anew counts from the beginning, on another clock.
#[derive(Debug, Default)]
struct Seen(BTreeMap<u64, u64>);

impl Seen {
    fn is_new(&mut self, e: &NodeEvent) -> bool {
        match self.0.get(&e.seq) {
            Some(t) if *t == e.node_t_us => return false,
            Some(_) => self.0.clear(),
            None => {}
        }
        self.0.insert(e.seq, e.node_t_us);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fake::FakeRemote;

    fn event(seq: u64, node_t_us: u64) -> NodeEvent {
        NodeEvent {
            seq,
            node_t_us,
            kind: "x".into(),
            id: None,
            severity: Severity::Info,
            data: BTreeMap::new(),
        }
    }

    #[test]
    fn an_order_is_given_once_over_a_session_that_works() {
        let pack = Pack::load("ccr").unwrap();
        let order = ["ccrctl", "move"];
        let given = |session: &mut Option<Box<dyn Remote>>, fresh: Option<FakeRemote>| {
            let mut fresh = fresh.map(|r| Box::new(r) as Box<dyn Remote>);
            let deadline = Deadline::after(Duration::from_secs(1));
            once(
                session,
                deadline,
                || fresh.take().ok_or(Error::Interrupted),
                |r| deploy::operate(r, &pack, "move", &[], deadline),
            )
        };
        let alive = || FakeRemote::new().answer(&["true"], 0, "");
        let refusing = || alive().complain(&order, 1, "no");
        // A refusal is no reason for another session.
        let mut session: Option<Box<dyn Remote>> = Some(Box::new(refusing()));
        assert!(!given(&mut session, None).unwrap().done && session.is_some());
        // One that is dead already is replaced; one that dies with the order is not tried again.
        let dead = FakeRemote::new().die(&["true"], "reset").die(&order, "reset");
        let mut session: Option<Box<dyn Remote>> = Some(Box::new(dead));
        assert!(!given(&mut session, Some(refusing())).unwrap().done);
        let mut session: Option<Box<dyn Remote>> = Some(Box::new(alive().die(&order, "reset")));
        let e = given(&mut session, Some(refusing())).unwrap_err();
        assert!(
            matches!(&e, Error::Operation(p) if p.seen.as_deref() == Some("reset")),
            "{e}"
        );
        assert!(session.is_none());
    }

    #[test]
    fn an_event_that_comes_again_is_known_and_a_new_daemon_is_heard() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&event(0, 10)));
        assert!(seen.is_new(&event(1, 20)));
        assert!(!seen.is_new(&event(0, 10)) && !seen.is_new(&event(1, 20)));
        assert!(seen.is_new(&event(2, 20)));
        // The machine booted again: its clock and its numbers begin anew.
        assert!(seen.is_new(&event(0, 5)));
        assert!(seen.is_new(&event(1, 6)));
    }
}
