//! The plan of a run, drawn from its seed: what is broken when and for how long, and what operators ask. It is data, so
//! that a failing run can be repeated with fewer steps.

use super::MEMBERS;
use super::disk::Fails;
use super::rng::Rng;
use super::share::SHARES;
use super::world::{CLIENTS, Happening, PRIVATE, PUBLIC, Pause, Waiter, World};
use crate::io::{Command, GroupName, Input, Reply};
use ccr_contract::config::Dial;

/// Whom a step hurts, resolved when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The member that serves.
    Active,
    /// The other one.
    Passive,
    /// The member at this place.
    Member(usize),
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The power goes, and comes back at the end.
    PowerOff(Who),
    /// The same, in the middle of a write.
    PowerOffMidWrite(Who),
    /// The daemon is killed; its supervisor starts it again.
    Kill(Who),
    /// The machine or the process stands still.
    Pause(Who, Pause),
    /// The private network is cut.
    CutPrivate,
    /// One member's public port is cut, in one direction or both.
    CutPublic(Who, Way),
    /// Both paths between the members are cut.
    Partition(Way),
    /// Everything of one member is cut.
    Isolate(Who),
    /// Everything of the active member is cut at the moment when it answers a hub; the answer is not lost, it comes after
    /// the healing, when another one serves perhaps.
    LateAnswer,
    /// The share's server is stopped.
    ShareDown,
    /// The share's server is started anew: its locks are gone.
    ShareRestart,
    /// A hub loses power.
    HubOff(usize),
    /// Datagrams are lost and packets late.
    BadNetwork,
    /// The next write of a disk fails, or the next renaming.
    DiskFails(Who, bool),
    /// The RTC jumps.
    Rtc(Who, bool),
    /// A byte of a closed log on the disk is flipped.
    Flip(Who),
    /// A closed log is deleted behind the node's back.
    LoseLog(Who),
    /// The disk is full.
    DiskFull(Who),
    /// Copying is held up: nothing of it gets through, while heartbeats do.
    Throttle,
    /// Both members lose power at once.
    BothOff,
    /// An operator moves the service.
    Move,
    /// An operator moves the Cluster Group.
    MoveCluster,
    /// An operator moves the service without any check.
    RawMove,
    /// An operator suspends the copy, and resumes it at the end.
    Suspend,
    /// An operator stops the service, and starts it at the end.
    Stop,
    /// An operator seeds the copy anew.
    Reseed,
    /// An operator changes the heartbeat interval.
    Heartbeat(u64),
    /// An operator changes the witness, and brings the quorum resource online again later.
    Witness(usize),
    /// An operator evicts the passive member, and takes it back at the end.
    Evict,
    /// An operator forces the quorum on a member that is alone, the witness being away.
    Force(Who),
    /// The same on a member that has not seen what the other one did alone; the witness is there.
    ForceOld(Who),
    /// An operator asks the member at this place.
    Ask(usize, Command),
}

/// In which direction a cut works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Both.
    Both,
    /// What comes from the first member, or from the one that is hurt.
    Out,
    /// What goes to it.
    In,
}

/// One step with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it begins.
    pub at_us: u64,
    /// How long it lasts.
    pub for_us: u64,
    /// What.
    pub what: What,
}

/// A whole plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// How many operations the clients begin.
    pub ops: usize,
    /// How many hubs there are.
    pub hubs: usize,
    /// The dial.
    pub dial: Dial,
    /// Lost log resilience.
    pub depth: u64,
    /// Storage groups.
    pub groups: usize,
    /// Whether the service goes back to the first member.
    pub failback: bool,
    /// Whether the clients send the longest messages there may be, with the longest keys.
    pub longest: bool,
    pub(super) undo: Vec<Vec<(usize, usize, usize)>>,
    pub(super) hit: Vec<Option<usize>>,
}

/// When steps may begin and end.
pub const WINDOW_US: (u64, u64) = (20_000_000, 80_000_000);

impl Plan {
    /// Draws a plan.
    pub fn draw(rng: &mut Rng) -> Self {
        let count = rng.range(3, 7);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| Step {
                at_us: rng.range(WINDOW_US.0, WINDOW_US.1),
                for_us: 1_000_000 * rng.range(1, 25),
                what: draw_what(rng),
            })
            .collect();
        if rng.chance(30) {
            // A copy that lags behind when the active node dies is what the dial is for.
            let at = rng.range(WINDOW_US.0, WINDOW_US.1 - 30_000_000);
            let lag = rng.range(8_000_000, 30_000_000);
            let step = |at_us, for_us, what| Step { at_us, for_us, what };
            steps.push(step(at, lag + 9_000_000, What::Throttle));
            steps.push(step(at + lag, 25_000_000, What::PowerOff(Who::Active)));
        }
        // A damaged log and a seed of the copy that still had it whole: nothing could bring that back.
        if steps.iter().any(|s| matches!(s.what, What::Flip(_) | What::LoseLog(_))) {
            steps
                .iter_mut()
                .filter(|s| s.what == What::Reseed)
                .for_each(|s| s.what = What::Move);
        }
        if rng.chance(8) {
            // Force accepts a split where the other one lives: no person does it while anything else is broken.
            let ends = steps.iter().map(|s| s.at_us + s.for_us.max(20_000_000));
            let at_us = ends.max().unwrap_or(WINDOW_US.0) + 10_000_000;
            let who = Who::Member(rng.range(0, 2) as usize);
            let (what, for_us) = if rng.chance(50) {
                (What::Force(who), 26_000_000)
            } else {
                (What::ForceOld(who), 50_000_000)
            };
            steps.push(Step { at_us, for_us, what });
        }
        steps.sort_by_key(|s| s.at_us);
        let n = steps.len();
        Self {
            steps,
            ops: 300 + rng.range(0, 100) as usize,
            hubs: if rng.chance(30) { 2 } else { 1 },
            dial: *rng.pick(&[
                Dial::Lossless,
                Dial::GoodAvailability,
                Dial::BestAvailability,
                Dial::BestAvailability,
            ]),
            depth: *rng.pick(&[1, 3, 10]),
            groups: if rng.chance(20) { 2 } else { 1 },
            failback: rng.chance(10),
            longest: rng.chance(10),
            undo: vec![Vec::new(); n],
            hit: vec![None; n],
        }
    }
    /// The same without some steps.
    pub fn without(&self, gone: &[usize]) -> Self {
        let mut plan = self.clone();
        let keep = |i: &usize| !gone.contains(i);
        plan.steps = (0..self.steps.len())
            .filter(keep)
            .map(|i| self.steps[i].clone())
            .collect();
        plan.undo = vec![Vec::new(); plan.steps.len()];
        plan.hit = vec![None; plan.steps.len()];
        plan
    }
}

fn draw_what(rng: &mut Rng) -> What {
    let who = *rng.pick(&[Who::Active, Who::Active, Who::Passive, Who::Member(0), Who::Member(1)]);
    let way = *rng.pick(&[Way::Both, Way::Both, Way::Out, Way::In]);
    let pause = *rng.pick(&[Pause::Machine, Pause::Machine, Pause::Process]);
    match rng.range(0, 105) {
        0..8 => What::PowerOff(who),
        8..14 => What::PowerOffMidWrite(who),
        14..20 => What::Kill(who),
        20..32 => What::Pause(who, pause),
        32..35 => What::CutPrivate,
        35..41 => What::CutPublic(who, way),
        41..50 => What::Partition(way),
        50..56 => What::Isolate(who),
        56..59 => What::ShareDown,
        59..61 => What::ShareRestart,
        61..62 => What::LateAnswer,
        62..65 => What::HubOff(rng.range(0, 2) as usize),
        65..68 => What::BadNetwork,
        68..70 => What::DiskFails(who, rng.chance(50)),
        70..72 => What::Rtc(who, rng.chance(50)),
        72..74 => What::Flip(who),
        74..75 => What::LoseLog(who),
        75..77 => What::Throttle,
        77..79 => What::BothOff,
        79..87 => What::Move,
        87..90 => What::MoveCluster,
        90..91 => What::RawMove,
        91..94 => What::Suspend,
        94..96 => What::Stop,
        96..98 => What::Reseed,
        98..99 => What::DiskFull(Who::Active),
        99..101 => What::Heartbeat(*rng.pick(&[1000, 1200, 1400])),
        101..103 => What::Witness(rng.range(0, 2) as usize),
        _ => What::Evict,
    }
}

/// Everything of one member, both ways.
fn around(i: usize) -> Vec<(usize, usize, usize)> {
    let mut cuts = vec![(PRIVATE, 0, 1), (PRIVATE, 1, 0)];
    for j in (0..=CLIENTS).filter(|j| *j != i) {
        cuts.extend([(PUBLIC, i, j), (PUBLIC, j, i)]);
    }
    cuts
}

fn set(key: &str, value: String) -> Command {
    Command::Set {
        key: key.into(),
        value,
        force: false,
    }
}

impl World {
    fn who(&self, who: Who) -> usize {
        match who {
            Who::Active => self.workload.service_at,
            Who::Passive => 1 - self.workload.service_at,
            Who::Member(i) => i,
        }
    }

    pub(super) fn begin_step(&mut self, n: usize) {
        let step = self.plan.steps[n].clone();
        self.note(|| format!("STEP {n} {:?} for {} s", step.what, step.for_us / 1_000_000));
        let mut cuts = Vec::new();
        let mut hit = None;
        let mut both = |network, a: usize, b: usize, way: Way| {
            if way != Way::In {
                cuts.push((network, a, b));
            }
            if way != Way::Out {
                cuts.push((network, b, a));
            }
        };
        match step.what {
            What::PowerOff(who) => {
                let i = self.who(who);
                hit = Some(i);
                self.checks.counters.power_offs += 1;
                self.stop_daemon(i, true);
            }
            What::PowerOffMidWrite(who) => {
                let i = self.who(who);
                hit = Some(i);
                self.checks.counters.power_offs += 1;
                self.machines[i].doomed = self.machines[i].powered;
                let life = self.machines[i].life;
                self.at(3_000_000.min(step.for_us / 2), Happening::Doom(i, life));
            }
            What::LateAnswer => self.cut_at_answer = Some((n, self.workload.service_at)),
            What::BothOff => {
                self.stop_daemon(0, true);
                self.stop_daemon(1, true);
                self.checks.counters.power_offs += 2;
            }
            What::Kill(who) => {
                let i = self.who(who);
                self.stop_daemon(i, false);
                let life = self.machines[i].life;
                self.at(step.for_us / 4, Happening::Restart(i, life));
            }
            What::Pause(who, kind) => {
                let i = self.who(who);
                hit = Some(i);
                match kind {
                    Pause::Machine => self.checks.counters.machine_pauses += 1,
                    Pause::Process => self.checks.counters.process_pauses += 1,
                }
                self.pause(i, kind);
            }
            What::CutPrivate => both(PRIVATE, 0, 1, Way::Both),
            What::CutPublic(who, way) => {
                let i = self.who(who);
                (0..=CLIENTS).filter(|j| *j != i).for_each(|j| both(PUBLIC, i, j, way));
            }
            What::Partition(way) => [PUBLIC, PRIVATE].into_iter().for_each(|n| both(n, 0, 1, way)),
            What::Isolate(who) => {
                let i = self.who(who);
                cuts.extend(around(i));
            }
            What::ShareDown => self.share.down = true,
            What::ShareRestart => self.share.restarted(),
            What::HubOff(h) => {
                let i = 2 + h % (self.machines.len() - 2);
                hit = Some(i);
                self.stop_daemon(i, true);
            }
            What::BadNetwork => (self.loss, self.delay_us) = (25, 60_000),
            What::DiskFails(who, renaming) => {
                let i = self.who(who);
                self.machines[i].disk.fail_next = Some(if renaming { Fails::Renaming } else { Fails::Write });
            }
            What::DiskFull(who) => {
                let i = self.who(who);
                hit = Some(i);
                let room = self.rng.range(0, 6_000);
                let disk = &mut self.machines[i].disk;
                disk.capacity = Some(disk.used() + room);
            }
            What::Rtc(who, ahead) => {
                let i = self.who(who);
                self.machines[i].rtc_offset_us += if ahead { 3_600_000_000 } else { -3_600_000_000 };
            }
            What::Flip(who) => self.hurt_log(who, false),
            What::LoseLog(who) => self.hurt_log(who, true),
            What::Throttle => self.throttled = true,
            What::Move => {
                let to = 1 - self.workload.service_at;
                self.order(
                    n,
                    self.workload.service_at,
                    Command::Move {
                        to: self.machines[to].config.node.clone(),
                        comment: "planned".into(),
                    },
                );
            }
            What::MoveCluster | What::RawMove => {
                let group = if step.what == What::RawMove {
                    GroupName::Service
                } else {
                    GroupName::Cluster
                };
                let to = self.machines[1 - self.workload.service_at].config.node.clone();
                self.order(n, 0, Command::MoveGroup { group, to });
            }
            What::Suspend => {
                let comment = "maintenance".into();
                self.order(n, 0, Command::Suspend { group: None, comment });
            }
            What::Stop => {
                self.checks.stop_asked = true;
                let comment = "maintenance".into();
                self.order(n, 0, Command::Stop { comment });
            }
            What::Reseed => self.order(n, 0, Command::Reseed { group: None }),
            What::Ask(i, ref command) => self.order(n, i, command.clone()),
            What::Heartbeat(ms) => {
                self.order(n, 0, set("heartbeat_ms", ms.to_string()));
            }
            What::Witness(which) => {
                self.order(n, 0, set("witness", format!(r"\\hub0\{}", SHARES[which])));
            }
            What::Evict => {
                let i = 1 - self.workload.service_at;
                hit = Some(i);
                self.checks.counters.evictions += 1;
                let node = self.machines[i].config.node.clone();
                self.order(n, 1 - i, Command::Evict { node });
            }
            What::Force(who) => {
                let i = self.who(who);
                hit = Some(1 - i);
                self.stop_daemon(1 - i, true);
                self.share.down = true;
                self.order_later(n, i, Command::ForceQuorum, 16_000_000);
            }
            What::ForceOld(who) => {
                let i = self.who(who);
                hit = Some(1 - i);
                self.stop_daemon(i, true);
                self.at(16_000_000, Happening::PowerOff(1 - i));
                self.at(17_000_000, Happening::PowerOn(i));
                self.at(34_000_000, Happening::Order(n, i, Command::ForceQuorum));
            }
        }
        self.cuts.extend(cuts.iter().copied());
        self.plan.undo[n] = cuts;
        self.plan.hit[n] = hit;
        self.share_contact();
        self.look();
        let wait = match step.what {
            // Its own end comes after its cut.
            What::LateAnswer => 20_000_000,
            _ => step.for_us,
        };
        self.at(wait, Happening::Undo(n));
    }

    /// The cuts of a step that waited for its moment.
    pub(super) fn cut_off(&mut self, n: usize, i: usize) {
        self.note(|| format!("CUT {n}: everything of {i}"));
        self.cuts.extend(around(i));
        self.plan.undo[n] = around(i);
        self.share_contact();
        self.look();
        // Long enough for the other one to take over, short enough for the hub to wait.
        let us = self.rng.range(8_700_000, 9_700_000);
        self.at(us, Happening::Undo(n));
    }

    fn hurt_log(&mut self, who: Who, delete: bool) {
        let i = self.who(who);
        // A log that the other one does not have would be lost for good: no cluster can bring that back.
        let other = &self.machines[1 - i].disk;
        let disk = &self.machines[i].disk;
        let shared = |n: &&String| n.len() == 19 && n.ends_with(".log") && disk.file(n) == other.file(n);
        let logs: Vec<String> = disk.names().filter(shared).cloned().collect();
        let Some(name) = logs.last().cloned() else { return };
        if delete {
            self.machines[i].disk.remove(&name);
        } else {
            self.machines[i].disk.flip(&name, 100);
        }
        self.checks.counters.hurt_logs += 1;
        self.note(|| format!("hurt {name} on {i}"));
    }

    pub(super) fn undo_step(&mut self, n: usize) {
        let step = self.plan.steps[n].clone();
        self.note(|| format!("UNDO {n} {:?}", step.what));
        for cut in std::mem::take(&mut self.plan.undo[n]) {
            // Another step may have made the same cut.
            let still = self.plan.undo.iter().any(|u| u.contains(&cut));
            if !still {
                self.cuts.remove(&cut);
            }
        }
        match step.what {
            What::LateAnswer => self.cut_at_answer = None,
            What::PowerOff(_) | What::PowerOffMidWrite(_) | What::HubOff(_) => {
                if let Some(i) = self.plan.hit[n] {
                    self.power_on(i);
                }
            }
            What::BothOff => {
                let later = self.rng.range(1, 4_000_000);
                let first = self.rng.range(0, 2) as usize;
                self.power_on(first);
                self.at(later, Happening::PowerOn(1 - first));
            }
            What::Force(_) | What::ForceOld(_) => {
                // First the witness, so that the force is recorded there before the other one can ask.
                if self.share.down {
                    self.share.restarted();
                }
                if let Some(i) = self.plan.hit[n] {
                    self.at(3_000_000, Happening::PowerOn(i));
                }
            }
            What::Witness(_) => {
                let to = MEMBERS[self.rng.range(0, 2) as usize].to_owned();
                let group = GroupName::Cluster;
                self.order(n, 0, Command::MoveGroup { group, to });
            }
            What::Evict => {
                if let Some(i) = self.plan.hit[n] {
                    let node = self.machines[i].config.node.clone();
                    self.order(n, 1 - i, Command::Join { node });
                }
            }
            What::Pause(..) => {
                if let Some(i) = self.plan.hit[n] {
                    self.resume(i);
                }
            }
            What::ShareDown => self.share.restarted(),
            What::BadNetwork => (self.loss, self.delay_us) = (0, 2_000),
            What::Throttle => self.throttled = false,
            What::DiskFull(_) => {
                if let Some(i) = self.plan.hit[n] {
                    self.machines[i].disk.capacity = None;
                }
            }
            What::Suspend => self.order(n, 0, Command::Resume { group: None }),
            What::Stop => {
                self.checks.intent(self.now, false);
                self.order(n, 0, Command::Start);
            }
            _ => {}
        }
        self.share_contact();
        self.look();
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        for n in 0..self.plan.steps.len() {
            self.plan.undo[n].clear();
        }
        self.note(|| "HEAL".into());
        self.cuts.clear();
        (self.loss, self.delay_us, self.throttled) = (0, 2_000, false);
        self.cut_at_answer = None;
        if self.share.down {
            self.share.restarted();
        }
        for i in 0..self.machines.len() {
            self.machines[i].disk.capacity = None;
            self.machines[i].disk.fail_next = None;
            self.machines[i].doomed = false;
            self.resume(i);
            self.power_on(i);
        }
        self.share_contact();
        self.look();
    }

    /// An operator asks member `i`, or the other one where that is down.
    pub fn order(&mut self, n: usize, i: usize, command: Command) {
        let i = if self.machines[i].node.is_some() { i } else { 1 - i };
        if self.machines[i].node.is_none() {
            return;
        }
        self.note(|| format!("ORDER to {i}: {command:?}"));
        let req = self.next_req();
        self.waiters.insert((i, req), Waiter::Operator(n as u64));
        let life = self.machines[i].life;
        self.at(100, Happening::Input(i, life, Input::Operator { req, command }));
    }
    fn order_later(&mut self, n: usize, i: usize, command: Command, us: u64) {
        self.at(us, Happening::Order(n, i, command));
    }

    pub(super) fn operator_replied(&mut self, i: usize, step: u64, reply: Reply) {
        self.note(|| format!("REPLY of {i} to step {step}: {reply:?}"));
        let what = self.plan.steps.get(step as usize).map(|s| s.what.clone());
        match (what, &reply) {
            (Some(What::Move), Reply::Done(_)) => self.checks.counters.moves += 1,
            (Some(What::Move), Reply::Denied(_)) => self.checks.counters.moves_denied += 1,
            (Some(What::Stop), Reply::Done(text)) => {
                let stopped = text.starts_with("Stopped");
                self.checks.intent(self.now, stopped);
            }
            _ => {}
        }
    }
}
