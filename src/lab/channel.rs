//! The supervisor's ways into the machines: one session for questions, one that watches and one that follows events, for each node.

use super::follow::{self, Follower};
use super::queries::{Queries, Query};
use super::record::LabRecord;
use super::watch::{self, Known, News, Said, Watches};
use super::ways::{ANSWER, Connector};
use crate::deploy::{self, Answer, Pack};
use crate::error::{Error, Problem, Result};
use crate::event::{Draft, Journal, Severity, Source};
use crate::files::LabFiles;
use crate::guest::Remote;
use crate::guest::agent::{Agents, Line};
use crate::guest::ssh::Target;
use crate::hypervisor::{Domain, DomainState, power};
use crate::lock::lock;
use crate::spec::Node;
use crate::wait::{Deadline, Probe, wait_until};
use ccr_contract::dump::Dump;
use ccr_contract::status::EventsMark;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that one question to a runtime may take, on a fast host.
const QUESTION: Duration = Duration::from_secs(15);
/// How long the end of a run waits for the nodes' events, on a fast host: a machine that is just coming back must have booted.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A standing session; none until it is needed, or after it broke.
type Session = Arc<Mutex<Option<Box<dyn Remote>>>>;

/// All nodes' sessions.
pub struct Channels {
    files: LabFiles,
    ways: Arc<dyn Connector>,
    journal: Journal,
    questions: Mutex<BTreeMap<String, Session>>,
    followers: Mutex<BTreeMap<String, Arc<Follower>>>,
    queries: Queries,
    watches: Watches,
}

/// What a node says, or a question that is under way.
enum Asked {
    Said(Box<Said>),
    Query(Query<Said>),
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
    pub fn new(files: LabFiles, ways: Arc<dyn Connector>, journal: Journal) -> Self {
        Self {
            files,
            ways,
            watches: Watches::new(journal.clone()),
            journal,
            questions: Mutex::default(),
            followers: Mutex::default(),
            queries: Queries::default(),
        }
    }

    /// A new session with `node`.
    pub fn connect(&self, record: &LabRecord, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
        self.ways.connect(&way(&self.files, record, node)?, deadline)
    }

    /// A new session with `node` over its agent, which may not have begun yet: the hello waits for it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn hello(&self, record: &LabRecord, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
        self.ways.hello(&way(&self.files, record, node)?.node, deadline)
    }

    /// A new session with `node` over SSH, as soon as it answers. `seen` hears what each try saw and may end the wait.
    ///
    /// # Errors
    /// It does not answer in time.
    pub fn knock(
        &self,
        record: &LabRecord,
        node: &str,
        deadline: Deadline,
        seen: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Box<dyn Remote>> {
        self.ways.knock(&way(&self.files, record, node)?, deadline, seen)
    }

    /// The line to the agent of `node`.
    ///
    /// # Errors
    /// There is no such node, or its agent does not answer.
    pub fn line(&self, record: &LabRecord, node: &str) -> Result<Arc<Line>> {
        let node = way(&self.files, record, node)?.node;
        self.ways.line(&node, Deadline::scaled(ANSWER, record.desired.slowness))
    }

    /// The lines to the machines' agents.
    pub fn agents(&self) -> &Agents {
        self.ways.agents()
    }

    /// Asks `node` over its standing session; a session that broke is replaced once.
    fn ask_within<T>(
        &self,
        record: &LabRecord,
        node: &str,
        within: Duration,
        question: impl Fn(&mut dyn Remote, Deadline) -> Result<T>,
    ) -> Result<T> {
        let way = way(&self.files, record, node)?;
        let connect = |deadline| self.ways.connect(&way, deadline);
        ask(&self.slot(node), connect, Deadline::after(within), question)
    }

    /// The standing session with `node`, a new one where there is none that works. It is the caller's; [`Channels::keep`] gives it back.
    pub fn take(&self, record: &LabRecord, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
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
    pub fn prepare(&self, record: &LabRecord) {
        let lab = &record.desired.lab;
        for node in lab.nodes.iter().filter(|n| lab.asks(n)) {
            let Ok(way) = way(&self.files, record, &node.name) else {
                continue;
            };
            let (slot, ways) = (self.slot(&node.name), self.ways.clone());
            let deadline = Deadline::scaled(QUESTION, record.desired.slowness);
            let (begun, has_begun) = std::sync::mpsc::channel();
            let open = move || {
                let mut session = lock(&slot);
                let _ = begun.send(());
                // Whoever asks tries again, and says what is wrong.
                *session = ways.connect(&way, deadline).ok();
            };
            if std::thread::Builder::new().name("prepare".into()).spawn(open).is_ok() {
                // Until it has the session's lock: a question must not be faster.
                let _ = has_begun.recv();
            }
        }
    }

    /// What tells that something was heard of the nodes.
    pub fn news(&self) -> &Arc<News> {
        self.watches.news()
    }

    /// What every node's runtime says, by its watch; those whose watch says nothing that was so after `since_us` (now, where that is yet
    /// to come) are asked, at once. `None` for a node of which nothing is asked: it has no runtime, and no probe.
    pub fn statuses(
        &self,
        record: &LabRecord,
        domains: &[Domain],
        within: Duration,
        since_us: Option<u64>,
    ) -> Vec<Option<Result<Said>>> {
        let pack = match pack(record) {
            Ok(pack) => pack,
            Err(e) => {
                let seen = e.to_string();
                let failed = || Error::Operation(Problem::new("load the runtime's pack").observed(&seen));
                return record.desired.lab.nodes.iter().map(|_| Some(Err(failed()))).collect();
            }
        };
        let since_us = since_us.map(|us| us.min(self.journal.now_us()));
        let begin = |node: &Node| self.begin_look(record, domains, node, pack.as_ref(), within, since_us);
        let lab = &record.desired.lab;
        // All are asked before the first is waited for.
        let asked: Vec<_> = lab.nodes.iter().map(|n| lab.asks(n).then(|| begin(n))).collect();
        let until = Instant::now() + within;
        let wait = |asked| match asked {
            Asked::Said(said) => Ok(*said),
            Asked::Query(query) => query.wait(until),
        };
        asked.into_iter().map(|a| a.map(|a| a.and_then(wait))).collect()
    }

    fn begin_look(
        &self,
        record: &LabRecord,
        domains: &[Domain],
        node: &Node,
        pack: Option<&Pack>,
        within: Duration,
        since_us: Option<u64>,
    ) -> Result<Asked> {
        let (name, slowness) = (node.name.as_str(), record.desired.slowness);
        // A machine that does not run cannot answer: asking would only wait.
        match power(domains, name) {
            DomainState::Running => {}
            state => {
                self.watches.void(name);
                let seen = format!("the machine is {state:?}").to_lowercase();
                return Err(Error::Operation(
                    Problem::new("ask the runtime").on(name).observed(seen),
                ));
            }
        }
        let asker = match self.watches.look(name, since_us, slowness)? {
            Known::Said(said) => return Ok(Asked::Said(said)),
            Known::Ask(asker) => asker,
        };
        let (slot, way, pack) = (self.slot(name), way(&self.files, record, name)?, pack.cloned());
        let (lab, node) = (record.desired.lab.clone(), node.clone());
        let ways = self.ways.clone();
        // A machine that is only slow answers behind the look, and keeps its session: the next look needs no handshake.
        let longest = slowness.scale(QUESTION).max(within);
        let question = move || {
            let deadline = Deadline::after(longest);
            let clock = || {
                Ok(ways
                    .line(&way.node, Deadline::scaled(ANSWER, slowness))?
                    .look(deadline)?
                    .boottime)
            };
            asker.ask(clock, || {
                let connect = |deadline| ways.connect(&way, deadline);
                ask(&slot, connect, Deadline::after(longest), |r, d| match &pack {
                    Some(pack) => deploy::status(r, pack, &lab, &node, d),
                    None => deploy::probe(r, &node.name, lab.probes(&node), d),
                })
            })
        };
        Ok(Asked::Query(self.queries.ask(name, question)))
    }

    /// What every node's store holds; `None` for a node that does not answer.
    pub fn dumps(&self, record: &LabRecord) -> Vec<Option<Dump>> {
        let Ok(Some(pack)) = pack(record) else {
            return Vec::new();
        };
        let within = record.desired.slowness.scale(QUESTION * 4);
        self.of_each(record, |node| {
            node.role?;
            self.ask_within(record, &node.name, within, |r, d| {
                deploy::dump(r, &pack, &record.desired.lab, node, d)
            })
            .ok()
        })
    }

    fn of_each<T: Send>(&self, record: &LabRecord, ask: impl Fn(&crate::spec::Node) -> T + Sync) -> Vec<T> {
        let ask = &ask;
        std::thread::scope(|scope| {
            let queries: Vec<_> = record
                .desired
                .lab
                .nodes
                .iter()
                .map(|node| scope.spawn(move || ask(node)))
                .collect();
            queries
                .into_iter()
                .map(|t| t.join().expect("a question does not panic"))
                .collect()
        })
    }

    /// Gives `node` an order of the pack's contract.
    pub fn operate(&self, record: &LabRecord, node: &str, word: &str, args: &[String]) -> Result<Answer> {
        let Some(pack) = pack(record)? else {
            return Err(Error::Usage(
                Problem::new("give the order")
                    .on(word)
                    .observed("the lab has no runtime"),
            ));
        };
        let lab = &record.desired.lab;
        let Some(asked) = lab.node(node) else {
            return Err(way(&self.files, record, node).err().unwrap_or(Error::Interrupted));
        };
        let deadline = Deadline::scaled(QUESTION * 4, record.desired.slowness);
        let slot = self.slot(node);
        once(
            &mut lock(&slot),
            deadline,
            || self.connect(record, node, deadline),
            |remote| deploy::operate(remote, &pack, lab, asked, word, args, deadline),
        )
    }

    /// Watches every node that runs the runtime, where its pack has a watch. Nodes that are watched already are left alone.
    pub fn watch(&self, record: &LabRecord) {
        let Ok(Some(pack)) = pack(record) else { return };
        let Some(argv) = &pack.runtime.contract.watch else {
            return;
        };
        for node in record.desired.lab.nodes.iter().filter(|n| n.role.is_some()) {
            let Ok(way) = way(&self.files, record, &node.name) else {
                continue;
            };
            let ways = self.ways.clone();
            let begin = watch::Begin {
                connect: Box::new(move |deadline| ways.connect(&way, deadline)),
                argv: argv.clone(),
                slowness: record.desired.slowness,
            };
            if let Err(e) = self.watches.begin(&node.name, begin) {
                self.not_begun("watch.failed", &node.name, &e);
            }
        }
    }

    fn not_begun(&self, kind: &str, node: &str, e: &std::io::Error) {
        self.journal.emit(
            Draft::new(Source::Tool, kind)
                .node(node)
                .severity(Severity::Error)
                .data(json!({"text": e.to_string()})),
        );
    }

    /// Follows the events of every node that runs the runtime, and watches it. Nodes that are followed already are left alone.
    pub fn follow(self: &Channels, record: &Arc<LabRecord>) {
        self.watch(record);
        let Ok(Some(pack)) = pack(record) else { return };
        if pack.runtime.contract.events.is_none() {
            return;
        }
        let mut followers = lock(&self.followers);
        for node in record.desired.lab.nodes.iter().filter(|n| n.role.is_some()) {
            let name = node.name.to_string();
            if followers.contains_key(&name) {
                continue;
            }
            let Ok(way) = way(&self.files, record, &name) else {
                continue;
            };
            let follower = Arc::new(Follower::default());
            followers.insert(name.clone(), follower.clone());
            let ways = self.ways.clone();
            let spawned = follow::begin(follow::Thread {
                node: name.clone(),
                connect: Box::new(move |deadline| ways.connect(&way, deadline)),
                pack: pack.clone(),
                journal: self.journal.clone(),
                before: self.files.events(),
                follower,
                slowness: record.desired.slowness,
            });
            if let Err(e) = spawned {
                self.not_begun("follow.failed", &name, &e);
            }
        }
    }

    /// The machine's boot-time clock stood still or began anew: events of before and after are aligned apart, and what it said before is
    /// not so any more.
    pub fn clock_jumped(&self, node: &str) {
        self.watches.void(node);
        if let Some(f) = lock(&self.followers).get(node) {
            f.clock_jumped();
        }
    }

    /// Waits until the journal has every event that the nodes had when they were asked here; what is missing in the end, in words.
    ///
    /// A node that does not answer yet is asked again: it may be coming back.
    pub fn catch_up(&self, record: &LabRecord, domains: impl Fn() -> Result<Vec<Domain>>) -> Result<Vec<String>> {
        let deadline = Deadline::scaled(CATCH_UP, record.desired.slowness);
        if !tells_events(record) {
            return Ok(Vec::new());
        }
        let mut marks: BTreeMap<String, Option<EventsMark>> = BTreeMap::new();
        let mut behind = Vec::new();
        let since_us = Some(self.journal.now_us());
        let caught = wait_until("hear all of the nodes", deadline, || {
            if record
                .desired
                .lab
                .nodes
                .iter()
                .filter(|n| n.role.is_some())
                .any(|n| !marks.contains_key(n.name.as_str()))
            {
                let within = record.desired.slowness.scale(QUESTION);
                for (status, _) in self
                    .statuses(record, &domains()?, within, since_us)
                    .into_iter()
                    .flatten()
                    .flatten()
                {
                    marks.entry(status.node).or_insert(status.events);
                }
            }
            behind = self.behind(record, &marks);
            Ok(if behind.is_empty() {
                Probe::Ready(())
            } else {
                Probe::NotYet(behind.join("; "))
            })
        });
        match caught {
            Err(e) if behind.is_empty() => Err(e),
            _ => Ok(behind),
        }
    }

    /// Which nodes' events are not all in the journal, by what they said.
    fn behind(&self, record: &LabRecord, marks: &BTreeMap<String, Option<EventsMark>>) -> Vec<String> {
        if !tells_events(record) {
            return Vec::new();
        }
        let followers = lock(&self.followers);
        let nodes = record.desired.lab.nodes.iter().filter(|n| n.role.is_some());
        let behind = nodes.filter_map(|node| {
            let name = node.name.as_str();
            Some(match (marks.get(name), followers.get(name)) {
                (None, _) => format!("{name} does not answer"),
                (_, None) => format!("the events of {name} are not followed"),
                (Some(None), _) => format!("{name} does not say how many events it had"),
                (Some(Some(mark)), Some(f)) if f.has(mark) => return None,
                (Some(Some(mark)), Some(_)) => format!("not all {} events of {name} were received", mark.next),
            })
        });
        behind.collect()
    }

    /// Nodes whose events nobody follows.
    #[cfg(test)]
    pub fn unfollowed(&self, record: &LabRecord) -> Vec<String> {
        let nodes = record.desired.lab.nodes.iter().filter(|n| n.role.is_some());
        let followers = lock(&self.followers);
        nodes
            .map(|n| n.name.to_string())
            .filter(|n| !followers.contains_key(n))
            .collect()
    }

    /// Ends all sessions and followers.
    pub fn stop(&self) {
        for (_, f) in std::mem::take(&mut *lock(&self.followers)) {
            f.stop();
        }
        self.watches.stop();
        lock(&self.questions).clear();
        self.queries.forget();
        self.ways.agents().forget();
    }

    /// The same, and nobody gets into a machine until [`Channels::open`]: machines are brought back, and nothing begins in one before its
    /// state is known.
    pub fn close(&self) {
        self.ways.agents().close();
        self.stop();
    }

    /// Lets everybody in again.
    pub fn open(&self) {
        self.ways.agents().open();
    }
}

/// How SSH reaches `node`.
pub fn way(files: &LabFiles, record: &LabRecord, node: &str) -> Result<Target> {
    let machine = record.machine(node).ok_or_else(|| {
        Error::Usage(
            Problem::new("find the node")
                .on(node)
                .observed("the lab has no such node"),
        )
    })?;
    Ok(Target::new(files, node, machine.ssh_port))
}

/// Asks over the standing session; one that broke is replaced once.
fn ask<T>(
    slot: &Session,
    connect: impl FnOnce(Deadline) -> Result<Box<dyn Remote>>,
    deadline: Deadline,
    question: impl Fn(&mut dyn Remote, Deadline) -> Result<T>,
) -> Result<T> {
    let mut session = lock(slot);
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
    let mut remote = connect(deadline)?;
    let answer = question(&mut *remote, deadline);
    *session = answer.is_ok().then_some(remote);
    answer
}

/// The standing session where it still works, else a new one.
fn working(
    session: &mut Option<Box<dyn Remote>>,
    deadline: Deadline,
    connect: impl FnOnce() -> Result<Box<dyn Remote>>,
) -> Result<Box<dyn Remote>> {
    let standing = session.take().and_then(|mut r| r.check(deadline).ok().map(|()| r));
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

/// Whether the lab's runtime tells events.
fn tells_events(record: &LabRecord) -> bool {
    // Of a pack that cannot be read nobody knows: what it may have told is missing.
    record.desired.lab.runtime.is_some() && !matches!(pack(record), Ok(Some(p)) if p.runtime.contract.events.is_none())
}

/// The pack of the lab's runtime; `None` for a lab of bare machines.
pub fn pack(record: &LabRecord) -> Result<Option<Pack>> {
    record
        .desired
        .lab
        .runtime
        .as_ref()
        .map(|r| Ok(Pack::load(&r.kind)?.on_host(record.desired.slowness)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fake::FakeRemote;

    #[test]
    fn an_order_is_given_once_over_a_session_that_works() {
        let (pack, lab) = (Pack::load("ccr").unwrap(), crate::spec::example("ccr"));
        let order = ["ccrctl", "move"];
        let given = |session: &mut Option<Box<dyn Remote>>, fresh: Option<FakeRemote>| {
            let mut fresh = fresh.map(|r| Box::new(r) as Box<dyn Remote>);
            let deadline = Deadline::after(Duration::from_secs(1));
            once(
                session,
                deadline,
                || fresh.take().ok_or(Error::Interrupted),
                |r| deploy::operate(r, &pack, &lab, &lab.nodes[0], "move", &[], deadline),
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
            matches!(&e, Error::Operation(p) if p.observed.as_deref() == Some("reset")),
            "{e}"
        );
        assert!(session.is_none());
    }
}
