//! How plans are drawn: what is harsh in how many seeds, and which steps there are how often.

use super::MEMBERS;
use super::disk::{How, Kind, Unreadable};
use super::machine::Pause;
use super::plan::{Direction, Plan, Step, Then, Times, WINDOW_US, What, Who, usual_drift};
use crate::command::{Command, GroupName};
use crate::rng::Rng;
use ccr_contract::config::Dial;

/// In how many of a hundred seeds a run is harsher in this way. What has come to stay is above 0; 0 is a draw that waits for
/// what it found to be mended.
mod odds {
    /// Messages with up to three recipients, over several groups.
    pub const RECIPIENTS: u64 = 50;
    /// Heartbeats, tolerances, leases and the witness's times other than the lab's.
    pub const TIMES: u64 = 50;
    /// Clocks that drift more than any real one.
    pub const DRIFT: u64 = 30;
    /// Reads and listings that fail, at start or later.
    pub const READS: u64 = 20;
    /// In how many of a hundred of these it is a hub's.
    pub const HUB_READS: u64 = 30;
    /// A file that is damaged; which and how, [`super::DAMAGE`] says.
    pub const DAMAGE: u64 = 20;
    /// Power that goes in the middle of a replacement, a renaming, a deletion or a cut.
    pub const MID_CHANGE: u64 = 20;
    /// The same on a hub.
    pub const HUB_MID_CHANGE: u64 = 20;
    /// Datagrams that are held over a restart of their sender.
    pub const HELD: u64 = 15;
    /// A move, or the end of a node, right behind a service that came online.
    pub const BEHIND_ONLINE: u64 = 20;
    /// A node that is alone with its clients while the one that promised it to stay away is killed.
    pub const ALONE: u64 = 15;
    /// A service that is online in part, and whose member is cut off from the other one between two attempts to mount the rest.
    pub const CUT_AT_NO_LEASE: u64 = 4;
    /// Orders of an operator, whatever the state.
    pub const ORDERS: u64 = 20;
    /// Daemons that are told to end and started again, as by an upgrade.
    pub const RESTARTS: u64 = 25;
    /// Messages that span generations.
    pub const LONG: u64 = 40;
}

/// Counters that stay zero as long as their draw waits.
pub const WAITING: &[&str] = &[];

/// Which files are damaged how, and how often in comparison.
const DAMAGE: &[(Kind, How, u64)] = &[
    (Kind::Checkpoint, How::Flip, 2),
    (Kind::Checkpoint, How::Truncate, 1),
    (Kind::Checkpoint, How::Zero, 1),
    (Kind::Checkpoint, How::Older, 1),
    (Kind::Checkpoint, How::Delete, 1),
    (Kind::Known, How::Flip, 2),
    (Kind::Known, How::Truncate, 1),
    (Kind::Known, How::Zero, 1),
    (Kind::Known, How::Older, 1),
    (Kind::Known, How::Delete, 1),
    (Kind::Open, How::Flip, 2),
    (Kind::Open, How::Zero, 1),
    (Kind::Open, How::Truncate, 1),
    (Kind::Closed, How::Flip, 2),
    (Kind::Closed, How::Truncate, 1),
    (Kind::Closed, How::Zero, 1),
    (Kind::Closed, How::Delete, 1),
    (Kind::Segment, How::Flip, 2),
    (Kind::Segment, How::Truncate, 1),
    (Kind::Segment, How::Zero, 1),
    (Kind::Segment, How::Delete, 1),
    (Kind::Cluster, How::Flip, 2),
    (Kind::Cluster, How::Truncate, 1),
    (Kind::Cluster, How::Zero, 1),
    (Kind::Cluster, How::Older, 1),
    (Kind::Cluster, How::Delete, 1),
    (Kind::Hub, How::Flip, 2),
    (Kind::Hub, How::Truncate, 1),
    (Kind::Hub, How::Zero, 1),
    (Kind::Hub, How::Older, 1),
    (Kind::Hub, How::Delete, 1),
    (Kind::Queue, How::Flip, 2),
    (Kind::Queue, How::Truncate, 1),
    (Kind::Queue, How::Zero, 1),
    (Kind::Queue, How::Delete, 1),
    (Kind::Dumpster, How::Flip, 2),
    (Kind::Dumpster, How::Truncate, 1),
    (Kind::Dumpster, How::Zero, 1),
    (Kind::Dumpster, How::Delete, 1),
];

impl Times {
    /// Times within what `set` allows: a heartbeat from 100 ms to a third of the lease.
    fn draw(rng: &mut Rng) -> Self {
        let heartbeat = *rng.pick(&[100, 100, 200, 200, 300, 500, 800, 1200]);
        let node_tolerance = rng.range(3, 9) as u32;
        Self {
            heartbeat,
            node_tolerance,
            interface_tolerance: rng.range(2, u64::from(node_tolerance).min(5) + 1) as u32,
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
}

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
            long: 0,
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
        if let (true, mut rng) = part(rng, odds::READS) {
            self.unreadable(&mut rng);
        }
        if let (true, mut rng) = part(rng, odds::DAMAGE) {
            self.damage(&mut rng);
        }
        if let (true, mut rng) = part(rng, odds::MID_CHANGE) {
            let who = any_member(&mut rng);
            self.add(&mut rng, What::PowerOffMidChange(who));
        }
        if let (true, mut rng) = part(rng, odds::HUB_MID_CHANGE) {
            for _ in 0..2 {
                let who = Who::Hub(rng.range(0, 2) as usize);
                self.add(&mut rng, What::PowerOffMidChange(who));
            }
        }
        if let (true, mut rng) = part(rng, odds::HELD) {
            let who = any_member(&mut rng);
            self.add(&mut rng, What::Hold(who));
        }
        if let (true, mut rng) = part(rng, odds::BEHIND_ONLINE) {
            self.behind_online(&mut rng);
        }
        if let (true, mut rng) = part(rng, odds::ALONE) {
            self.alone(&mut rng);
        }
        if let (true, mut rng) = part(rng, odds::ORDERS) {
            for _ in 0..rng.range(1, 4) {
                let what = What::Ask(rng.range(0, 2) as usize, draw_order(&mut rng));
                self.add(&mut rng, what);
            }
        }
        if let (true, mut rng) = part(rng, odds::DRIFT) {
            self.drift_ppm = *rng.pick(&[1_000, 5_000, 20_000]);
        }
        if let (true, mut rng) = part(rng, odds::RESTARTS) {
            for _ in 0..rng.range(1, 3) {
                let who = *rng.pick(&[Who::Active, Who::Active, Who::Passive, Who::Hub(0)]);
                self.add(&mut rng, What::RestartInOrder(who));
            }
        }
        if let (true, mut rng) = part(rng, odds::CUT_AT_NO_LEASE) {
            self.cut_at_no_lease(&mut rng);
        }
        if let (true, mut rng) = part(rng, odds::LONG) {
            self.long = rng.range(3, 20);
            for _ in 0..rng.range(0, 3) {
                self.add(&mut rng, What::PowerOffMidMessage(Who::Active));
            }
        }
        self.steps.sort_by_key(|s| s.at_us);
        // A damaged file and a seed of the copy that still has it whole: nothing could bring that back.
        let damages = |s: &Step| matches!(s.what, What::Damage(..) | What::Flip(_) | What::LoseLog(_));
        if self.steps.iter().any(damages) {
            let reseeds = |w: &What| matches!(w, What::Reseed | What::Ask(_, Command::Reseed { .. }));
            let all = self.steps.iter_mut();
            all.filter(|s| reseeds(&s.what)).for_each(|s| s.what = What::Move);
        }
        self
    }

    /// The service comes online, and right behind that something happens.
    fn behind_online(&mut self, rng: &mut Rng) {
        let then = *rng.pick(&[
            Then::Move,
            Then::MoveAtReturn,
            Then::MoveAtReturn,
            Then::Kill,
            Then::KillOther,
            Then::PowerOff,
        ]);
        let cause = match rng.range(0, 4) {
            0 => What::Move,
            1 => What::Kill(Who::Active),
            2 => What::Isolate(Who::Active),
            _ => What::PowerOff(Who::Active),
        };
        let at = self.add(rng, What::BehindOnline(then));
        let step = |at_us, for_us, what| Step { at_us, for_us, what };
        if then == Then::MoveAtReturn {
            // Slow enough to be in between.
            self.steps.push(step(at, 20_000_000, What::BadNetwork));
        }
        self.steps.push(step(at + 500_000, 12_000_000, cause));
    }

    /// The active member is alone, and the other one's daemon is killed about then.
    fn alone(&mut self, rng: &mut Rng) {
        self.times = Times::draw(rng);
        let at = self.add(rng, What::Alone(Who::Active));
        let at_us = at + rng.range(0, 400_000);
        let for_us = rng.range(400_000, 4_000_000);
        let what = What::Kill(Who::Passive);
        self.steps.push(Step { at_us, for_us, what });
    }

    /// Members lose each other when one has just heard that the other one wants no lease.
    fn cut_at_no_lease(&mut self, rng: &mut Rng) {
        // So quick that the other one may take over while a lease that was given up would still be good.
        self.times = Times::draw(rng);
        self.times.heartbeat = *rng.pick(&[100, 200]);
        self.groups = self.groups.max(2);
        // Nothing else: whatever moves the service or the lead meanwhile takes the moment away.
        self.steps.clear();
        let at = WINDOW_US.0 + rng.range(0, 10_000_000);
        let mut then = |after_us, for_us, what| {
            let at_us = at + after_us;
            self.steps.push(Step { at_us, for_us, what });
        };
        then(0, 60_000_000, What::NoRoom(Who::Member(0)));
        then(0, 60_000_000, What::NoRoom(Who::Member(1)));
        then(500_000, 2_000_000, What::BothOff);
        then(18_000_000, 1_000_000, What::MoveCluster);
        then(20_000_000, 35_000_000, What::CutAtNoLease);
    }

    /// One more step, before any force of the quorum: whoever does that has waited for everything else. When it begins.
    fn add(&mut self, rng: &mut Rng, what: What) -> u64 {
        let forces = |s: &&Step| matches!(s.what, What::Force(_) | What::ForceOld(_));
        let force = self.steps.iter().find(forces).map(|s| s.at_us);
        let end = force.map_or(WINDOW_US.1, |at| at.saturating_sub(35_000_000).max(WINDOW_US.0 + 1));
        let at_us = rng.range(WINDOW_US.0, end.min(WINDOW_US.1));
        let for_us = 1_000_000 * rng.range(2, 20);
        self.steps.push(Step { at_us, for_us, what });
        at_us
    }

    fn unreadable(&mut self, rng: &mut Rng) {
        let on_hub = rng.chance(odds::HUB_READS);
        let (who, kinds): (_, &[(Kind, bool)]) = if on_hub {
            let kinds = &[
                (Kind::Hub, false),
                (Kind::Queue, false),
                (Kind::Queue, false),
                (Kind::Queue, true),
                (Kind::Dumpster, false),
                (Kind::Dumpster, true),
            ];
            (Who::Hub(rng.range(0, 2) as usize), kinds)
        } else {
            let kinds = &[
                (Kind::Cluster, false),
                (Kind::Checkpoint, false),
                (Kind::Known, false),
                (Kind::Open, false),
                (Kind::Closed, false),
                (Kind::Segment, false),
                (Kind::Arrival, false),
                (Kind::Closed, true),
                (Kind::Segment, true),
            ];
            (any_member(rng), kinds)
        };
        let (kind, listing) = *rng.pick(kinds);
        let times = if rng.chance(60) { 1 } else { rng.range(2, 40) as u32 };
        let u = Unreadable { kind, listing, times };
        let at_start = rng.chance(70);
        let at = self.add(rng, What::Unreadable(who, u, at_start));
        if kind == Kind::Queue {
            // So that there is a queue.
            self.steps.push(Step {
                at_us: at - 5_000_000,
                for_us: 9_000_000,
                what: What::BothOff,
            });
        }
    }

    fn damage(&mut self, rng: &mut Rng) {
        let all: u64 = DAMAGE.iter().map(|d| d.2).sum();
        let mut at = rng.range(0, all.max(1));
        for (kind, how, often) in DAMAGE {
            if at < *often {
                let who = match kind {
                    Kind::Hub | Kind::Queue | Kind::Dumpster => Who::Hub(rng.range(0, 2) as usize),
                    _ => any_member(rng),
                };
                // Nobody reads an open log but whoever starts.
                let down = rng.chance(60) || *kind == Kind::Open;
                self.add(rng, What::Damage(who, *kind, *how, down));
                return;
            }
            at -= often;
        }
    }
}

fn any_member(rng: &mut Rng) -> Who {
    *rng.pick(&[Who::Active, Who::Passive, Who::Member(0), Who::Member(1)])
}

/// What an operator may ask whatever the state. Without force of the quorum: that is asked where the other one is known to
/// be away.
fn draw_order(rng: &mut Rng) -> Command {
    let node = MEMBERS[rng.range(0, 2) as usize].to_owned();
    let comment = "at any time".to_owned();
    let group = rng.chance(30).then(|| "Group0".to_owned());
    let set = |key: &str, value: String, force| Command::Set {
        key: key.into(),
        value,
        force,
    };
    match rng.range(0, 15) {
        n @ (0 | 1) => Command::Move {
            to: node,
            comment,
            ignore_dismounted: n == 1,
        },
        2 => Command::MoveGroup {
            group: GroupName::Cluster,
            to: node,
        },
        3 => Command::MoveGroup {
            group: GroupName::Service,
            to: node,
        },
        4 => Command::Stop { comment },
        5 => Command::Start,
        6 => Command::Suspend { group, comment },
        7 => Command::Resume { group },
        8 => Command::Reseed { group },
        9 => Command::BackupMark { group },
        10 => set(
            "heartbeat_ms",
            rng.pick(&[100, 200, 500, 1000]).to_string(),
            rng.chance(30),
        ),
        11 => set("node_tolerance", rng.range(3, 8).to_string(), rng.chance(30)),
        12 => set(
            "network.private.role",
            (*rng.pick(&["client", "internal"])).into(),
            false,
        ),
        13 => Command::Evict { node },
        _ => Command::Join { node },
    }
}

fn draw_what(rng: &mut Rng) -> What {
    let who = *rng.pick(&[Who::Active, Who::Active, Who::Passive, Who::Member(0), Who::Member(1)]);
    let direction = *rng.pick(&[Direction::Both, Direction::Both, Direction::Out, Direction::In]);
    let pause = *rng.pick(&[Pause::Machine, Pause::Machine, Pause::Process]);
    match rng.range(0, 105) {
        0..8 => What::PowerOff(who),
        8..14 => What::PowerOffMidWrite(who),
        14..20 => What::Kill(who),
        20..32 => What::Pause(who, pause),
        32..35 => What::CutPrivate,
        35..41 => What::CutPublic(who, direction),
        41..50 => What::Partition(direction),
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
