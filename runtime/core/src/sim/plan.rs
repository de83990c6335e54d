//! The plan of a run, drawn from its seed: what is broken when and for how long, what operators ask, and with which times
//! and sizes the lab runs. It is data, so that a failing run can be repeated with fewer steps, and kept in a file.

use super::rng::Rng;
use super::world::Pause;
use crate::io::Command;
use ccr_contract::config::{Dial, Settings};
use serde::{Deserialize, Serialize};

/// In how many of a hundred seeds a run is harsher in this way. What has come to stay is above 0; 0 is a draw that waits for
/// what it found to be mended.
mod odds {
    /// Messages with up to three recipients, over several groups.
    pub const RECIPIENTS: u64 = 50;
    /// Heartbeats, tolerances, leases and the witness's times other than the lab's.
    pub const TIMES: u64 = 50;
    /// Clocks that drift more than any real one.
    pub const DRIFT: u64 = 30;
}

/// Whom a step hurts, resolved when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// The member that serves.
    Active,
    /// The other one.
    Passive,
    /// The member at this place.
    Member(usize),
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Both.
    Both,
    /// What comes from the first member, or from the one that is hurt.
    Out,
    /// What goes to it.
    In,
}

/// One step with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When it begins.
    pub at_us: u64,
    /// How long it lasts.
    pub for_us: u64,
    /// What.
    pub what: What,
}

/// A whole plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Most recipients of a message.
    #[serde(default = "one")]
    pub recipients: u64,
    /// By how much a clock may drift, in parts per million.
    #[serde(default = "usual_drift")]
    pub drift_ppm: u64,
    /// The times that the nodes are configured with.
    #[serde(default)]
    pub times: Times,
}

/// Times of the configuration, in milliseconds, and tolerances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Between two heartbeats.
    pub heartbeat: u64,
    /// Missed heartbeats after which a node is lost.
    pub node_tolerance: u32,
    /// Missed heartbeats after which a path is lost.
    pub interface_tolerance: u32,
    /// How long a lease runs.
    pub lease: u64,
    /// How long a challenger waits.
    pub arbitration_delay: u64,
    /// Between two probes of the witness.
    pub witness_check: u64,
    /// Between two beats on the witness file.
    pub witness_beat: u64,
    /// How long a witness operation may take.
    pub witness_timeout: u64,
    /// How long the witness's lease runs.
    pub witness_lease: u64,
    /// How long an open log is left alone.
    pub idle_roll: u64,
    /// Between two probes of the copy.
    pub status_probe: u64,
}

impl Default for Times {
    fn default() -> Self {
        let s = Settings::default();
        Self {
            heartbeat: s.heartbeat_ms,
            node_tolerance: s.node_tolerance,
            interface_tolerance: s.interface_tolerance,
            lease: s.lease_ms,
            arbitration_delay: s.arbitration_delay_ms,
            witness_check: s.witness_check_ms,
            witness_beat: s.witness_beat_ms,
            witness_timeout: s.witness_timeout_ms,
            witness_lease: s.witness_lease_ms,
            idle_roll: s.idle_roll_ms,
            status_probe: s.status_probe_ms,
        }
    }
}

impl Times {
    /// Times within what `set` allows: a heartbeat from 100 ms to a third of the lease.
    fn draw(rng: &mut Rng) -> Self {
        let heartbeat = *rng.pick(&[100, 100, 200, 200, 300, 500, 800, 1200]);
        let node_tolerance = rng.range(3, 9) as u32;
        Self {
            heartbeat,
            node_tolerance,
            interface_tolerance: rng.range(1, u64::from(node_tolerance).min(5) + 1) as u32,
            lease: (*rng.pick(&[4500, 4500, 2000, 3000, 6000])).max(3 * heartbeat),
            arbitration_delay: *rng.pick(&[1500, 500, 1000, 3000]),
            witness_check: *rng.pick(&[5000, 2000, 8000]),
            witness_beat: *rng.pick(&[400, 200, 600]),
            witness_timeout: *rng.pick(&[1000, 1000, 1500, 2000]),
            witness_lease: *rng.pick(&[2000, 1500, 3000]),
            idle_roll: *rng.pick(&[5000, 1000, 2000, 10_000]),
            status_probe: *rng.pick(&[2000, 1000, 4000]),
        }
    }
    /// The configuration with these times.
    pub(super) fn into_settings(self, rest: Settings) -> Settings {
        Settings {
            heartbeat_ms: self.heartbeat,
            node_tolerance: self.node_tolerance,
            interface_tolerance: self.interface_tolerance,
            lease_ms: self.lease,
            arbitration_delay_ms: self.arbitration_delay,
            witness_check_ms: self.witness_check,
            witness_beat_ms: self.witness_beat,
            witness_timeout_ms: self.witness_timeout,
            witness_lease_ms: self.witness_lease,
            idle_roll_ms: self.idle_roll,
            status_probe_ms: self.status_probe,
            ..rest
        }
    }
}

fn one() -> u64 {
    1
}
fn usual_drift() -> u64 {
    200
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
        let plan = Self {
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
            recipients: 1,
            drift_ppm: usual_drift(),
            times: Times::default(),
        };
        plan.harsher(&mut rng.fork())
    }

    /// What makes the world as harsh as the real one, drawn behind everything else: what is added here leaves the rest of a
    /// seed's plan as it was.
    fn harsher(mut self, rng: &mut Rng) -> Self {
        let part = |rng: &mut Rng, odds: u64| (rng.chance(odds), rng.fork());
        if let (true, mut rng) = part(rng, odds::RECIPIENTS) {
            self.recipients = rng.range(2, 4);
            self.groups = self.groups.max(rng.range(1, 4) as usize);
        }
        if let (true, mut rng) = part(rng, odds::TIMES) {
            self.times = Times::draw(&mut rng);
            for step in &mut self.steps {
                if let What::Heartbeat(ms) = &mut step.what {
                    *ms = *rng.pick(&[100, 200, 300, 500, 1000]);
                }
            }
        }
        if let (true, mut rng) = part(rng, odds::DRIFT) {
            self.drift_ppm = *rng.pick(&[1_000, 5_000, 20_000]);
        }
        self
    }

    /// A plan without any step, in a world that is not harsh.
    pub fn calm() -> Self {
        Self {
            steps: Vec::new(),
            ops: 300,
            hubs: 1,
            dial: Dial::BestAvailability,
            depth: 10,
            groups: 1,
            failback: false,
            longest: false,
            recipients: 1,
            drift_ppm: usual_drift(),
            times: Times::default(),
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
