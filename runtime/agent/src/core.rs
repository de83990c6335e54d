//! What an agent decides, without doing any of it: messages and what became of orders in, orders out. Time is an input.
//!
//! A **session** is one host's; a new one ends what the one before began. A **job** is what a channel of a session began: a command, a
//! follower, a file. A follower of the new session's owner is not ended: it waits a while for the host that asks for it by its key, and
//! keeps its lines meanwhile.

use crate::follower::Follower;
use crate::message::{End, FromAgent, INPUT_WINDOW, Stream, ToAgent, VERSION, WINDOW};
use std::collections::BTreeMap;

/// Most jobs at once.
pub const JOBS: usize = 32;
/// How long a follower waits in a new session to be asked for, milliseconds.
pub const ADOPT_WITHIN: u64 = 60_000;
/// Most bytes that are read of a follower's output at once.
const FOLLOWER_PART: usize = 4 << 10;

/// A job's number: never given twice.
pub type JobId = u64;

/// What the core has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Say this on a channel.
    Say(u32, FromAgent),
    /// A new session: what was not sent yet is not sent any more.
    Unsay,
    /// Begin a process group.
    Spawn(JobId, Vec<String>),
    /// Input of a command, or a file's next bytes.
    Input(JobId, Vec<u8>),
    /// No more of it: a file is complete.
    InputEnd(JobId),
    /// Kill the whole process group; [`Input::Ended`] still comes.
    Kill(JobId),
    /// Begin to write a file.
    Create(JobId, String, u32),
    /// Open a file to read it.
    Open(JobId, String),
    /// Forget a file; nothing comes of it any more.
    Drop(JobId),
    /// Tell the clock on this channel, after it was set.
    Clock(u32, Option<std::time::Duration>),
    /// Tell how the machine is on this channel.
    Sample(u32),
}

/// What the core hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The host said something.
    Said(u32, ToAgent),
    /// The host said something that cannot be understood.
    Garbage(String),
    /// Nobody is at the other end.
    Gone,
    /// A job's command printed something; a file has it. Not more than [`Core::room`] says.
    Output(JobId, Stream, Vec<u8>),
    /// A job's input was taken.
    Taken(JobId, usize),
    /// A job's command could not be begun: the status that a shell would give, and why.
    NotBegun(JobId, i32, String),
    /// A job's process group has ended, and all that it printed was told.
    Ended(JobId, End),
    /// A file was written, or read to its end; or why not.
    Filed(JobId, Result<(), String>),
    /// Time has passed.
    Tick,
}

#[derive(Debug)]
enum Kind {
    Run,
    Follow {
        follower: Follower,
        owner: [u8; 16],
        /// In which session it was begun, and when.
        session: [u8; 16],
        begun: u64,
    },
    /// How many bytes are still to come.
    Put(u64),
    Get,
}

#[derive(Debug)]
struct Job {
    kind: Kind,
    /// Where it is heard; a follower that waits is heard nowhere, and what was given up neither.
    channel: Option<u32>,
    /// Bytes that the host still takes.
    window: usize,
    /// Bytes that the host may still send.
    input: usize,
    input_ended: bool,
    /// When it is ended, milliseconds.
    until: Option<u64>,
    /// Why it was killed.
    killed: Option<End>,
}

/// The state of an agent.
#[derive(Debug, Default)]
pub struct Core {
    boot_id: String,
    owner: Option<[u8; 16]>,
    /// The nonce of the newest session.
    session: [u8; 16],
    jobs: BTreeMap<JobId, Job>,
    next: JobId,
    orders: Vec<Order>,
}

impl Core {
    /// No session yet. `first` is the first job's number: another one for each life of the agent.
    pub fn new(boot_id: &str, first: JobId) -> Self {
        Self {
            boot_id: boot_id.to_owned(),
            next: first,
            ..Self::default()
        }
    }

    /// Takes in what happened at `now` (milliseconds of a clock that only goes forward) and says what is to be done.
    pub fn hear(&mut self, now: u64, input: Input) -> Vec<Order> {
        match input {
            Input::Said(_, ToAgent::Hello { version, nonce, owner }) => self.hello(now, version, nonce, owner),
            Input::Said(..) if self.owner.is_none() => self.refuse("no session has begun".into()),
            Input::Said(channel, said) => {
                if let Err(why) = self.said(now, channel, said) {
                    self.refuse(why.into());
                }
            }
            // The end of what an earlier host said is no frame.
            Input::Garbage(why) if self.owner.is_some() => self.refuse(why),
            Input::Garbage(_) => {}
            Input::Gone => self.end_session(),
            Input::Output(job, stream, bytes) => self.output(job, stream, &bytes),
            Input::Taken(job, bytes) => self.taken(job, bytes),
            Input::NotBegun(job, status, why) => {
                self.output(job, Stream::Err, format!("{why}\n").as_bytes());
                self.ended(job, End::Exited(status));
            }
            Input::Ended(job, how) => self.ended(job, how),
            Input::Filed(job, how) => self.filed(job, how),
            Input::Tick => self.tick(now),
        }
        std::mem::take(&mut self.orders)
    }

    /// How many bytes of a job's output may be read now.
    pub fn room(&self, job: JobId, stream: Stream) -> usize {
        let Some(job) = self.jobs.get(&job) else { return 0 };
        match &job.kind {
            // What was given up is emptied, so that its end is seen.
            _ if job.killed.is_some() => FOLLOWER_PART,
            Kind::Follow { follower, .. } if stream == Stream::Out && follower.is_full() => 0,
            Kind::Follow { .. } => FOLLOWER_PART,
            _ => job.window,
        }
    }

    /// When [`Input::Tick`] is due.
    pub fn due(&self) -> Option<u64> {
        self.jobs
            .values()
            .filter(|j| j.killed.is_none())
            .filter_map(|j| j.until)
            .min()
    }

    fn say(&mut self, channel: u32, message: FromAgent) {
        self.orders.push(Order::Say(channel, message));
    }

    fn refuse(&mut self, why: String) {
        self.end_session();
        self.say(0, FromAgent::Refused { why });
    }

    fn hello(&mut self, now: u64, version: u16, nonce: [u8; 16], owner: [u8; 16]) {
        self.end_session();
        self.orders.push(Order::Unsay);
        let boot_id = self.boot_id.clone();
        // A host of another version hears which one this is, and has no session.
        self.say(
            0,
            FromAgent::Welcome {
                version: VERSION,
                nonce,
                boot_id,
            },
        );
        if version != VERSION {
            return;
        }
        self.owner = Some(owner);
        self.session = nonce;
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in jobs {
            let job = self.jobs.get_mut(&id).expect("it is there");
            match &job.kind {
                Kind::Follow { owner: whose, .. } if *whose == owner && job.killed.is_none() => {
                    job.until = Some(now + ADOPT_WITHIN);
                }
                _ => self.give_up(id),
            }
        }
    }

    /// Nobody hears any more. Followers wait.
    fn end_session(&mut self) {
        self.owner = None;
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in jobs {
            let job = self.jobs.get_mut(&id).expect("it is there");
            match job.kind {
                Kind::Follow { .. } => (job.channel, job.until) = (None, None),
                _ => self.give_up(id),
            }
        }
    }

    /// Ends a job that nobody hears any more.
    fn give_up(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.channel = None;
        match &job.kind {
            Kind::Put(_) | Kind::Get => {
                self.jobs.remove(&id);
                self.orders.push(Order::Drop(id));
            }
            Kind::Follow { follower, .. } if follower.ended() => drop(self.jobs.remove(&id)),
            _ => self.kill(id, End::Killed),
        }
    }

    fn kill(&mut self, id: JobId, why: End) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.killed.is_none() {
            job.killed = Some(why);
            self.orders.push(Order::Kill(id));
        }
    }

    fn on(&mut self, channel: u32) -> Option<JobId> {
        self.jobs
            .iter()
            .find(|(_, j)| j.channel == Some(channel))
            .map(|(id, _)| *id)
    }

    fn said(&mut self, now: u64, channel: u32, said: ToAgent) -> Result<(), &'static str> {
        match said {
            ToAgent::Hello { .. } => unreachable!("taken before"),
            ToAgent::Run { argv, within_ms } => {
                if let Some(id) = self.begin(channel, Kind::Run)? {
                    self.job(id).until = Some(now + u64::from(within_ms));
                    self.orders.push(Order::Spawn(id, argv));
                }
            }
            ToAgent::Follow { key, argv, from } => self.follow(now, channel, key, argv, from)?,
            ToAgent::Put { path, mode, length } => {
                if let Some(id) = self.begin(channel, Kind::Put(length))? {
                    self.orders.push(Order::Create(id, path, mode));
                }
            }
            ToAgent::Get { path } => {
                if let Some(id) = self.begin(channel, Kind::Get)? {
                    self.orders.push(Order::Open(id, path));
                }
            }
            ToAgent::Look => self.orders.push(Order::Clock(channel, None)),
            ToAgent::Set(time) => self.orders.push(Order::Clock(channel, Some(time))),
            ToAgent::Sample => self.orders.push(Order::Sample(channel)),
            // What is said to a job that has just ended comes too late, and that is nobody's fault.
            ToAgent::Ack { .. } | ToAgent::Input(_) | ToAgent::InputEnd | ToAgent::Credit(_) | ToAgent::Kill => {
                if let Some(id) = self.on(channel) {
                    self.said_to(id, said)?;
                }
            }
        }
        Ok(())
    }

    fn said_to(&mut self, id: JobId, said: ToAgent) -> Result<(), &'static str> {
        let job = self.job(id);
        match said {
            ToAgent::Ack { next } => {
                let Kind::Follow { follower, .. } = &mut job.kind else {
                    return Err("lines of what is no follower were acknowledged");
                };
                follower.acknowledge(next)?;
                if follower.is_done() {
                    self.jobs.remove(&id);
                }
            }
            ToAgent::Input(bytes) => {
                if job.input_ended || matches!(job.kind, Kind::Follow { .. } | Kind::Get) {
                    return Err("input came where none is taken");
                }
                job.input = job
                    .input
                    .checked_sub(bytes.len())
                    .ok_or("more input came than was granted")?;
                if let Kind::Put(left) = &mut job.kind {
                    *left = left
                        .checked_sub(bytes.len() as u64)
                        .ok_or("a file is longer than was said")?;
                }
                self.orders.push(Order::Input(id, bytes));
            }
            ToAgent::InputEnd => {
                if std::mem::replace(&mut job.input_ended, true) || matches!(job.kind, Kind::Follow { .. } | Kind::Get)
                {
                    return Err("input ended where none is taken");
                }
                if matches!(job.kind, Kind::Put(left) if left > 0) {
                    return Err("a file is shorter than was said");
                }
                self.orders.push(Order::InputEnd(id));
            }
            ToAgent::Credit(bytes) => {
                job.window += bytes as usize;
                if job.window > WINDOW {
                    return Err("more was granted than was sent");
                }
            }
            _ => match job.kind {
                Kind::Put(_) | Kind::Get => {
                    self.orders.push(Order::Drop(id));
                    self.filed(id, Err("it was given up".into()));
                }
                // Its end was told already; it only kept lines.
                Kind::Follow { ref follower, .. } if follower.ended() => drop(self.jobs.remove(&id)),
                _ => self.kill(id, End::Killed),
            },
        }
        Ok(())
    }

    fn job(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a job that was just found")
    }

    /// A new job, where there is room for one.
    fn begin(&mut self, channel: u32, kind: Kind) -> Result<Option<JobId>, &'static str> {
        if self.on(channel).is_some() {
            return Err("a channel is in use");
        }
        if self.jobs.len() >= JOBS {
            let why = format!("{JOBS} jobs are going on already");
            self.say(channel, FromAgent::Failed { why });
            return Ok(None);
        }
        let id = self.next;
        self.next += 1;
        let job = Job {
            kind,
            channel: Some(channel),
            window: WINDOW,
            input: INPUT_WINDOW,
            input_ended: false,
            until: None,
            killed: None,
        };
        self.jobs.insert(id, job);
        Ok(Some(id))
    }

    fn follow(
        &mut self,
        now: u64,
        channel: u32,
        key: String,
        argv: Vec<String>,
        from: Option<(u64, u64)>,
    ) -> Result<(), &'static str> {
        if self.on(channel).is_some() {
            return Err("a channel is in use");
        }
        let there = self.jobs.iter_mut().find_map(|(id, j)| match &mut j.kind {
            Kind::Follow { follower, .. } if follower.key == key && j.killed.is_none() => {
                Some((*id, j.channel.is_none() && follower.goes_on_from(*id, from)))
            }
            _ => None,
        });
        match there {
            Some((id, true)) => {
                let job = self.job(id);
                (job.channel, job.until) = (Some(channel), None);
                let Kind::Follow {
                    follower,
                    session,
                    begun,
                    ..
                } = &job.kind
                else {
                    unreachable!("it was found as one")
                };
                let (lines, ended) = (follower.kept(), follower.end());
                let following = FromAgent::Following {
                    id,
                    next: follower.first(),
                    session: *session,
                    ran_ms: now.saturating_sub(*begun),
                };
                self.say(channel, following);
                for (number, text) in lines {
                    self.say(channel, FromAgent::Line { number, text });
                }
                if let Some((how, stderr)) = ended {
                    self.say(channel, FromAgent::Ended { how, stderr });
                    self.forget_done(id);
                }
                return Ok(());
            }
            // Another host's, or one that has lost lines that this host does not have: it is told which one it hears instead.
            Some((id, false)) => {
                if let Some(channel) = self.job(id).channel {
                    let why = "it is followed on another channel now".to_owned();
                    self.say(channel, FromAgent::Failed { why });
                }
                self.give_up(id);
            }
            None => {}
        }
        let owner = self.owner.expect("only a session says something");
        let follower = Follower::new(key);
        let session = self.session;
        let kind = Kind::Follow {
            follower,
            owner,
            session,
            begun: now,
        };
        if let Some(id) = self.begin(channel, kind)? {
            let (next, ran_ms) = (0, 0);
            self.say(
                channel,
                FromAgent::Following {
                    id,
                    next,
                    session,
                    ran_ms,
                },
            );
            self.orders.push(Order::Spawn(id, argv));
            self.orders.push(Order::InputEnd(id));
        }
        Ok(())
    }

    fn output(&mut self, id: JobId, stream: Stream, bytes: &[u8]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let channel = job.channel;
        match &mut job.kind {
            Kind::Follow { follower, .. } if stream == Stream::Err => follower.complain(bytes),
            // The pipes of what was killed are emptied; its lines ended before.
            Kind::Follow { .. } if job.killed.is_some() => {}
            Kind::Follow { follower, .. } => {
                let too_long = follower.print(bytes).is_err();
                if let Some(channel) = channel {
                    for (number, text) in follower.fresh() {
                        self.orders.push(Order::Say(channel, FromAgent::Line { number, text }));
                    }
                }
                if too_long {
                    self.kill(id, End::LineTooLong);
                }
            }
            _ => {
                // Only what was killed prints more than the host takes: its pipes are emptied.
                let Some(left) = job.window.checked_sub(bytes.len()) else {
                    return;
                };
                job.window = left;
                if let Some(channel) = channel {
                    self.say(channel, FromAgent::Output(stream, bytes.to_vec()));
                }
            }
        }
    }

    fn taken(&mut self, id: JobId, bytes: usize) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.input += bytes;
        if let Some(channel) = job.channel.filter(|_| bytes > 0) {
            self.say(channel, FromAgent::Credit(bytes as u32));
        }
    }

    fn ended(&mut self, id: JobId, how: End) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let how = job.killed.unwrap_or(how);
        let channel = job.channel;
        match &mut job.kind {
            Kind::Follow { follower, .. } if how != End::Killed && (channel.is_some() || job.killed.is_none()) => {
                follower.finish(how);
                let stderr = follower.end().map(|(_, stderr)| stderr).unwrap_or_default();
                if let Some(channel) = channel {
                    for (number, text) in follower.fresh() {
                        self.orders.push(Order::Say(channel, FromAgent::Line { number, text }));
                    }
                    self.say(channel, FromAgent::Ended { how, stderr });
                    self.forget_done(id);
                }
            }
            _ => {
                self.jobs.remove(&id);
                if let Some(channel) = channel {
                    let stderr = Vec::new();
                    self.say(channel, FromAgent::Ended { how, stderr });
                }
            }
        }
    }

    /// A follower that has ended stays until its last line is acknowledged.
    fn forget_done(&mut self, id: JobId) {
        if matches!(&self.job(id).kind, Kind::Follow { follower, .. } if follower.is_done()) {
            self.jobs.remove(&id);
        }
    }

    fn filed(&mut self, id: JobId, how: Result<(), String>) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(channel) = job.channel {
            self.say(
                channel,
                how.map_or_else(|why| FromAgent::Failed { why }, |()| FromAgent::Done),
            );
        }
    }

    fn tick(&mut self, now: u64) {
        let due = |j: &Job| j.killed.is_none() && j.until.is_some_and(|u| u <= now);
        let due: Vec<JobId> = self.jobs.iter().filter(|(_, j)| due(j)).map(|(id, _)| *id).collect();
        for id in due {
            match self.job(id).kind {
                Kind::Follow { .. } => self.give_up(id),
                _ => self.kill(id, End::TimeRanOut),
            }
        }
    }
}
