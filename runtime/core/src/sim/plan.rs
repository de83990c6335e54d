//! The plan of a run, drawn from its seed: what is broken when and for how long, what operators ask, and with which times
//! and sizes the lab runs. It is data, so that a failing run can be repeated with fewer steps, and kept in a file.

use super::disk::{How, Kind, Unreadable};
use super::machine::Pause;
use crate::command::Command;
use ccr_contract::config::{Dial, Settings};
use serde::{Deserialize, Serialize};

/// Whom a step hurts, resolved when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// The member that serves.
    Active,
    /// The other one.
    Passive,
    /// The member at this place.
    Member(usize),
    /// The hub at this place.
    Hub(usize),
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
    CutPublic(Who, Direction),
    /// Both paths between the members are cut.
    Partition(Direction),
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
    /// The power goes in the middle of a replacement, a renaming, a deletion or a cut.
    PowerOffMidChange(Who),
    /// The same, between two parts of a message.
    PowerOffMidMessage(Who),
    /// Something cannot be read for a while; the daemon is killed where it reads that at its start only.
    Unreadable(Who, Unreadable, bool),
    /// A file is damaged, where another place has what it held; while the daemon is down, or while it runs.
    Damage(Who, Kind, How, bool),
    /// Datagrams of a member are held, its daemon is killed, and they arrive when the next one runs.
    Hold(Who),
    /// A member is cut off from the other one and from the witness, not from its clients.
    Alone(Who),
    /// The next time that the service comes online, this follows within half a second.
    BehindOnline(Then),
    /// The daemon is told to end, and started again soon after it has.
    RestartInOrder(Who),
    /// The second group's volume has no room for its reserve logs: it is not mounted, and tried again and again.
    NoRoom(Who),
    /// The members lose each other at the moment in which one of them hears that the other one wants no lease.
    CutAtNoLease,
}

/// What follows right behind a service that came online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// A planned move.
    Move,
    /// A planned move as soon as the other member is back.
    MoveAtReturn,
    /// The daemon that came online is killed.
    Kill,
    /// The other one is.
    KillOther,
    /// The machine that came online loses power.
    PowerOff,
}

/// In which direction a cut works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
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
    /// Whether the clients send the longest messages that a generation holds, with the longest keys.
    pub longest: bool,
    /// Of how many messages in a hundred each spans generations.
    #[serde(default)]
    pub long: u64,
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
        Self::of(&Settings::default())
    }
}

impl Times {
    /// Those of a configuration.
    pub(super) fn of(s: &Settings) -> Self {
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
pub(super) fn usual_drift() -> u64 {
    200
}

/// When steps may begin and end.
pub const WINDOW_US: (u64, u64) = (20_000_000, 80_000_000);

impl Plan {
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
            long: 0,
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
