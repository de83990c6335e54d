//! The clients: each a thread with its own mailbox, all together at a steady rate.

use super::conversation::{Conversation, Ended, converse};
use super::{Dial, Dialect, Letter, OpJournal, Pop3, Smtp, Task, key};
use crate::error::{Error, Problem, Result};
use crate::lock::lock;
use crate::scenario::resp::{Asked, Call, Server};
use crate::scenario::{Progress, Workload};
use crate::verify::{OpKind, Outcome};
use crate::wait::Deadline;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for a connection: a client that hangs on a dead address measures nothing meanwhile.
const CONNECT: Duration = Duration::from_secs(1);
/// A client that is later than this skips what it missed: the load is open, and bounded.
const LATE: Duration = Duration::from_secs(1);

/// Where the clients connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// SMTP on the hubs.
    pub smtp: Vec<SocketAddrV4>,
    /// LMTP on the service address.
    pub lmtp: SocketAddrV4,
    /// POP3 on the service address.
    pub pop3: SocketAddrV4,
    /// What stands behind the `@` of a recipient: the service's name.
    pub domain: String,
}

/// Whom the clients talk to, and in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// SMTP, LMTP and POP3.
    Mail(Endpoints),
    /// RESP, to whoever serves by the word of those that are asked.
    Asked(Asked),
}

/// A workload that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    workload: Workload,
    service: Service,
    run: String,
    dial: Arc<dyn Dial>,
    journal: OpJournal,
    began: Instant,
    /// The next operation in the timetable.
    next: AtomicU64,
    counts: Counts,
    stop: Mutex<Stop>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stop {
    asked: bool,
    /// Why the clients gave up by themselves: nothing can be journalled any more.
    broken: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    acks: AtomicU64,
    store_answers: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    shed: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("workload", &self.workload)
            .finish_non_exhaustive()
    }
}

impl Load {
    /// Starts the clients. `run` is in every key and makes it unique.
    pub fn start(
        workload: &Workload,
        service: &Service,
        dial: Arc<dyn Dial>,
        journal: OpJournal,
        run: &str,
    ) -> Result<Self> {
        let m = workload.mix;
        if m.submit + m.deliver + m.read + m.delete == 0 || workload.clients == 0 {
            return Err(Error::Usage(
                Problem::new("start the workload").observed("it has nothing to do"),
            ));
        }
        if m.submit > 0 && matches!(service, Service::Mail(e) if e.smtp.is_empty()) {
            return Err(Error::Usage(
                Problem::new("start the workload").observed("the lab has no hub to submit to"),
            ));
        }
        let shared = Arc::new(Shared {
            workload: workload.clone(),
            service: service.clone(),
            run: run.to_owned(),
            dial,
            journal,
            began: Instant::now(),
            next: AtomicU64::new(0),
            counts: Counts::default(),
            stop: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut load = Load {
            shared: shared.clone(),
            clients: Vec::new(),
        };
        for i in 1..=workload.clients {
            let shared = shared.clone();
            let client = std::thread::Builder::new()
                .name(format!("client m{i}"))
                .spawn(move || Client::new(&shared, i).run())
                .map_err(|e| Error::Operation(Problem::new("start a client").observed(e)))?;
            load.clients.push(client);
        }
        Ok(load)
    }

    /// What was counted so far.
    pub fn progress(&self) -> Progress {
        let c = &self.shared.counts;
        Progress {
            begun: c.begun.load(Relaxed),
            acks: c.acks.load(Relaxed),
            store_answers: c.store_answers.load(Relaxed),
            failed: c.failed.load(Relaxed),
            unknown: c.unknown.load(Relaxed),
            shed: c.shed.load(Relaxed),
        }
    }

    /// Stops the clients, waits for their last operations, and says what was counted.
    ///
    /// # Errors
    /// Where the clients had to give up because their journal could not be written.
    pub fn stop(mut self) -> Result<Progress> {
        self.end();
        let stop = lock(&self.shared.stop);
        match &stop.broken {
            Some(why) => Err(Error::Operation(
                Problem::new("keep the client's journal").observed(why),
            )),
            None => Ok(self.progress()),
        }
    }

    fn end(&mut self) {
        lock(&self.shared.stop).asked = true;
        self.shared.changed.notify_all();
        for client in self.clients.drain(..) {
            // A client that panicked has said so on stderr; its operation stays open, which is unknown.
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Waits until `at`; false where the load is stopped.
    fn wait(&self, at: Instant) -> bool {
        let mut stop = lock(&self.stop);
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if stop.asked || left.is_zero() {
                return !stop.asked;
            }
            stop = self
                .changed
                .wait_timeout(stop, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn give_up(&self, why: &Error) {
        let mut stop = lock(&self.stop);
        stop.asked = true;
        stop.broken.get_or_insert(why.to_string());
        self.changed.notify_all();
    }

    fn period(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.workload.rate.0)
    }

    /// The next place in the timetable. What lies too far back is skipped and counted.
    fn ticket(&self) -> (u64, Instant) {
        let period = self.period();
        loop {
            let n = self.next.fetch_add(1, Relaxed);
            let at = self.began + period.mul_f64(n as f64);
            if at.elapsed() <= LATE.max(period) {
                return (n, at);
            }
            self.counts.shed.fetch_add(1, Relaxed);
        }
    }
}

struct Client<'a> {
    shared: &'a Shared,
    name: String,
    /// Of this run only: what earlier runs left in a mailbox would have to be read past. Empty where there are none.
    mailbox: String,
    /// Acknowledged messages that it may delete, oldest first.
    acknowledged: VecDeque<String>,
    /// Who serves, as it was told last.
    server: Option<Server>,
}

impl<'a> Client<'a> {
    fn new(shared: &'a Shared, number: u8) -> Self {
        Self {
            shared,
            name: format!("m{number}"),
            mailbox: match shared.service {
                Service::Mail(_) => format!("m{number}-{}", shared.run.to_ascii_lowercase()),
                Service::Asked(_) => String::new(),
            },
            acknowledged: VecDeque::new(),
            server: None,
        }
    }

    fn run(&mut self) {
        loop {
            let (n, at) = self.shared.ticket();
            if !self.shared.wait(at) {
                return;
            }
            if let Err(e) = self.operation(n) {
                return self.shared.give_up(&e);
            }
        }
    }

    fn operation(&mut self, n: u64) -> Result<()> {
        let shared = self.shared;
        let kind = self.choose(n);
        let wanted = if kind == OpKind::Delete {
            self.acknowledged.pop_front()
        } else {
            None
        };
        let (op, key) = shared
            .journal
            .invoke(&self.name, kind, &self.mailbox, |op| match kind {
                OpKind::Submit | OpKind::Deliver => key(&shared.run, &self.name, op),
                OpKind::Read => self.mailbox.clone(),
                OpKind::Delete => wanted.unwrap_or_default(),
            })?;
        shared.counts.begun.fetch_add(1, Relaxed);
        let ended = self.perform(kind, &key, n);
        shared.journal.complete(op, &ended)?;
        let counts = &shared.counts;
        match ended.outcome {
            Outcome::Ok => {
                if kind != OpKind::Submit {
                    counts.store_answers.fetch_add(1, Relaxed);
                }
                if matches!(kind, OpKind::Submit | OpKind::Deliver) {
                    counts.acks.fetch_add(1, Relaxed);
                    self.acknowledged.push_back(key);
                }
            }
            Outcome::Fail => {
                counts.failed.fetch_add(1, Relaxed);
            }
            Outcome::Unknown => {
                counts.unknown.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    /// The kind of operation `n`, from the seed. There is nothing to delete before something was acknowledged.
    fn choose(&self, n: u64) -> OpKind {
        if matches!(self.shared.service, Service::Asked(_)) {
            return OpKind::Deliver;
        }
        let m = self.shared.workload.mix;
        let mut random = ChaCha8Rng::seed_from_u64(self.shared.workload.seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let shares = [
            (OpKind::Submit, m.submit),
            (OpKind::Deliver, m.deliver),
            (OpKind::Read, m.read),
            (OpKind::Delete, m.delete),
        ];
        let mut at = random.random_range(0..shares.iter().map(|(_, s)| s).sum());
        for (kind, share) in shares {
            if at < share {
                return match kind {
                    OpKind::Delete if self.acknowledged.is_empty() => OpKind::Read,
                    kind => kind,
                };
            }
            at -= share;
        }
        unreachable!("the shares sum up to more than any number below their sum")
    }

    fn perform(&mut self, kind: OpKind, key: &str, n: u64) -> Ended {
        match &self.shared.service {
            Service::Mail(endpoints) => self.mail(endpoints, kind, key, n),
            Service::Asked(asked) => self.append(asked, key, n),
        }
    }

    /// Appends a value on whoever serves; whoever did not do it is not asked again before somebody says that it serves.
    fn append(&mut self, asked: &Asked, key: &str, n: u64) -> Ended {
        let deadline = Deadline::after(self.shared.workload.deadline.duration());
        let server = match self.server.take().map_or_else(|| self.discover(asked, n, deadline), Ok) {
            Ok(server) => server,
            Err(why) => return Ended::plain(Outcome::Fail, format!("nobody says who serves: {why}")),
        };
        let mut call = Call::new(&["RPUSH", &asked.key, key]);
        let ended = match self.shared.dial.dial(server.address, deadline.at_most(CONNECT)) {
            Ok(mut wire) => converse(&mut call, &mut *wire, deadline),
            Err(e) => return Ended::plain(Outcome::Fail, format!("no connection: {e}")),
        };
        let ended = call.appended(ended, asked, server);
        self.server = (ended.outcome == Outcome::Ok).then_some(server);
        ended
    }

    /// Asks one after the other, each time beginning with another one.
    fn discover(&self, asked: &Asked, n: u64, deadline: Deadline) -> std::result::Result<Server, String> {
        let mut why = "there is nobody to ask".to_owned();
        for i in 0..asked.ask.len() {
            let to = asked.ask[(n as usize + i) % asked.ask.len()];
            let mut call = Call::who_serves(&asked.name);
            let said = match self.shared.dial.dial(to, deadline.at_most(CONNECT)) {
                Ok(mut wire) => converse(&mut call, &mut *wire, deadline.at_most(CONNECT)).seen,
                Err(e) => format!("no connection: {e}"),
            };
            match call.reply.as_ref().map(Server::read) {
                Some(Ok(server)) => return Ok(server),
                Some(Err(seen)) => why = format!("{to}: {seen}"),
                None => why = format!("{to}: {said}"),
            }
        }
        Err(why)
    }

    fn mail(&self, e: &Endpoints, kind: OpKind, key: &str, n: u64) -> Ended {
        let shared = self.shared;
        let w = &shared.workload;
        let letter = || {
            let from = format!("{}@client.failoverlab.test", self.name);
            let to = format!("{}@{}", self.mailbox, e.domain);
            Letter::new(w.seed, key, &from, &to, w.size.bytes())
        };
        let visit = |task| Pop3::new(task, &self.mailbox, w.seed, &shared.run);
        let (to, mut conversation): (SocketAddrV4, Box<dyn Conversation>) = match kind {
            OpKind::Submit => {
                let hub = e.smtp[n as usize % e.smtp.len()];
                (hub, Box::new(Smtp::new(Dialect::Smtp, letter())))
            }
            OpKind::Deliver => (e.lmtp, Box::new(Smtp::new(Dialect::Lmtp, letter()))),
            OpKind::Read => (e.pop3, Box::new(visit(Task::Read))),
            OpKind::Delete => (e.pop3, Box::new(visit(Task::Delete(key.to_owned())))),
        };
        let deadline = Deadline::after(w.deadline.duration());
        match shared.dial.dial(to, deadline.at_most(CONNECT)) {
            Ok(mut wire) => converse(&mut *conversation, &mut *wire, deadline),
            Err(e) => Ended::plain(Outcome::Fail, format!("no connection: {e}")),
        }
    }
}
