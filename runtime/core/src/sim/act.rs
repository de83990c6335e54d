//! What the steps of a plan do: each one's beginning and its end.

use super::MEMBERS;
use super::disk::{Fails, Rule};
use super::effects::SHARE_HOST;
use super::machine::{Moment, Pause};
use super::plan::{Direction, Step, What, Who};
use super::share::SHARES;
use super::triggers::DelayedDatagrams;
use super::world::{CLIENTS, PRIVATE, PUBLIC, SimEvent, Waiter, World};
use crate::command::{Command, GroupName};
use crate::io::{DiskAction, DiskResult, Input, Reply, ReqId};

/// What a step did that must be undone.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Its cuts: network, from, to.
    pub cuts: Vec<(usize, usize, usize)>,
    /// The machine that it hit.
    pub hit: Option<usize>,
}

impl Done {
    fn hit(i: usize) -> Self {
        Self {
            hit: Some(i),
            ..Self::default()
        }
    }
    /// Cuts between `a` and each of `others`, seen from `a`.
    fn cut(network: usize, a: usize, others: impl IntoIterator<Item = usize>, direction: Direction) -> Self {
        let mut done = Self::default();
        for b in others {
            done.cuts
                .extend((direction != Direction::In).then_some((network, a, b)));
            done.cuts
                .extend((direction != Direction::Out).then_some((network, b, a)));
        }
        done
    }
    fn and(mut self, other: Self) -> Self {
        self.cuts.extend(other.cuts);
        self.hit = self.hit.or(other.hit);
        self
    }
}

/// Everything of one member, both ways.
pub(super) fn around(i: usize) -> Vec<(usize, usize, usize)> {
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
            Who::Hub(h) => 2 + h % (self.machines.len() - 2),
        }
    }

    pub(super) fn begin_step(&mut self, n: usize) {
        let step = self.plan.steps[n].clone();
        self.note(|| format!("STEP {n} {:?} for {} s", step.what, step.for_us / 1_000_000));
        let done = self.begin(n, &step);
        self.trouble();
        if let What::Reseed | What::Ask(_, Command::Reseed { .. }) = step.what {
            self.seed_ordered(None);
        }
        self.cuts.extend(done.cuts.iter().copied());
        self.done[n] = done;
        self.share_contact();
        self.look();
        let wait = match step.what {
            // Its own end comes after its cut.
            What::LateAnswer => 20_000_000,
            _ => step.for_us,
        };
        self.at(wait, SimEvent::Undo(n));
    }

    fn begin(&mut self, n: usize, step: &Step) -> Done {
        let active = self.workload.service_at;
        match step.what {
            What::PowerOff(who) => return self.power_off(self.who(who)),
            What::PowerOffMidWrite(who) => {
                return self.power_off_in_the_middle(self.who(who), Moment::Write, step.for_us);
            }
            What::PowerOffMidMessage(who) => {
                return self.power_off_in_the_middle(self.who(who), Moment::Message, step.for_us);
            }
            What::PowerOffMidChange(who) => return self.power_off_mid_change(self.who(who), step.for_us),
            What::LateAnswer => self.cut_at_answer = Some((n, active)),
            What::BothOff => {
                self.power_off(0);
                self.power_off(1);
            }
            What::Kill(who) => self.kill_for(self.who(who), step.for_us / 4),
            What::Pause(who, kind) => return self.stand_still(self.who(who), kind),
            What::CutPrivate => return Done::cut(PRIVATE, 0, [1], Direction::Both),
            What::CutPublic(who, direction) => {
                let i = self.who(who);
                return Done::cut(PUBLIC, i, (0..=CLIENTS).filter(|j| *j != i), direction);
            }
            What::Partition(direction) => {
                return Done::cut(PUBLIC, 0, [1], direction).and(Done::cut(PRIVATE, 0, [1], direction));
            }
            What::Isolate(who) => {
                let cuts = around(self.who(who));
                return Done { cuts, hit: None };
            }
            What::Alone(who) => {
                let i = self.who(who);
                let from_public = Done::cut(PUBLIC, i, [1 - i, SHARE_HOST], Direction::Both);
                return from_public.and(Done::cut(PRIVATE, i, [1 - i], Direction::Both));
            }
            What::ShareDown => self.share.down = true,
            What::ShareRestart => self.share.restarted(),
            What::HubOff(h) => {
                let i = self.who(Who::Hub(h));
                self.stop_daemon(i, true);
                return Done::hit(i);
            }
            What::BadNetwork => (self.loss, self.delay_us) = (25, 60_000),
            What::Throttle => self.throttled = true,
            What::Hold(who) => return self.hold_datagrams(n, self.who(who), step.for_us),
            What::BehindOnline(_) | What::CutAtNoLease => self.waiting.push(n),
            What::RestartInOrder(who) => {
                self.back_after_us = Some(self.more.range(50_000, 4_000_000));
                self.end_in_order(self.who(who));
            }
            What::DiskFails(..)
            | What::DiskFull(_)
            | What::Rtc(..)
            | What::Flip(_)
            | What::LoseLog(_)
            | What::Unreadable(..)
            | What::Damage(..)
            | What::NoRoom(_) => return self.begin_storage(step),
            What::Move
            | What::MoveCluster
            | What::RawMove
            | What::Suspend
            | What::Stop
            | What::Reseed
            | What::Ask(..)
            | What::Heartbeat(_)
            | What::Witness(_)
            | What::Evict
            | What::Force(_)
            | What::ForceOld(_) => return self.begin_order(n, &step.what),
        }
        Done::default()
    }

    fn power_off(&mut self, i: usize) -> Done {
        self.checks.counters.power_offs += 1;
        self.stop_daemon(i, true);
        Done::hit(i)
    }

    /// The power goes at the next such moment, or after a while.
    fn power_off_in_the_middle(&mut self, i: usize, moment: Moment, for_us: u64) -> Done {
        self.checks.counters.power_offs += 1;
        self.machines[i].doomed = self.machines[i].powered.then_some(moment);
        let life = self.machines[i].life;
        self.at(3_000_000.min(for_us / 2), SimEvent::Doom(i, life));
        Done::hit(i)
    }

    fn power_off_mid_change(&mut self, i: usize, for_us: u64) -> Done {
        if self.more.chance(40) {
            // While it recovers.
            self.kill_for(i, 100_000);
        }
        self.power_off_in_the_middle(i, Moment::Change, for_us)
    }

    fn stand_still(&mut self, i: usize, kind: Pause) -> Done {
        match kind {
            Pause::Machine => self.checks.counters.machine_pauses += 1,
            Pause::Process => self.checks.counters.process_pauses += 1,
        }
        self.pause(i, kind);
        Done::hit(i)
    }

    fn hold_datagrams(&mut self, n: usize, from: usize, for_us: u64) -> Done {
        let life = self.machines[from].life;
        let datagrams = Vec::new();
        self.delayed = Some(DelayedDatagrams { from, life, datagrams });
        // Some heartbeats first.
        self.at(for_us / 2, SimEvent::Behind(n, from));
        Done::hit(from)
    }

    /// What hurts a disk, a file or a clock.
    fn begin_storage(&mut self, step: &Step) -> Done {
        match step.what {
            What::DiskFails(who, renaming) => {
                let i = self.who(who);
                self.machines[i].disk.fail_next = Some(if renaming { Fails::Renaming } else { Fails::Write });
            }
            What::DiskFull(who) => {
                let i = self.who(who);
                let room = self.rng.range(0, 6_000);
                let disk = &mut self.machines[i].disk;
                disk.capacity = Some(disk.used() + room);
                return Done::hit(i);
            }
            What::Rtc(who, ahead) => {
                let i = self.who(who);
                self.machines[i].rtc_offset_us += if ahead { 3_600_000_000 } else { -3_600_000_000 };
            }
            What::Flip(who) => self.hurt_log(self.who(who), false),
            What::LoseLog(who) => self.hurt_log(self.who(who), true),
            What::Unreadable(who, what, at_start) => {
                let i = self.who(who);
                self.machines[i].disk.unreadable = Some(what);
                self.checks.unread.insert(i);
                if at_start {
                    self.kill_for(i, 500_000);
                }
                return Done::hit(i);
            }
            What::Damage(who, kind, how, down) => {
                let i = self.who(who);
                let hurt = self.damage(i, kind, how);
                if hurt && down {
                    // The daemon had died before: what it has in memory does not matter.
                    self.kill_for(i, step.for_us / 4);
                }
            }
            What::NoRoom(who) => return self.no_room(self.who(who)),
            _ => {}
        }
        Done::default()
    }

    /// The second group's reserve logs are gone and cannot be written.
    fn no_room(&mut self, i: usize) -> Done {
        let what = |a: &DiskAction| matches!(a, DiskAction::Replace { file, .. } if file.starts_with("E01/E01res"));
        let (result, once) = (DiskResult::Full, false);
        let disk = &mut self.machines[i].disk;
        let taken: Vec<String> = disk.names().filter(|n| n.starts_with("E01/E01res")).cloned().collect();
        for file in taken {
            disk.remove(&file);
        }
        disk.rule = Some(Rule { what, result, once });
        Done::hit(i)
    }

    /// What an operator does.
    fn begin_order(&mut self, n: usize, what: &What) -> Done {
        let active = self.workload.service_at;
        let comment = || "maintenance".to_owned();
        let other = || MEMBERS[1 - active].to_owned();
        match *what {
            What::Move => {
                let (to, comment) = (other(), "planned".into());
                self.order(
                    n,
                    active,
                    Command::Move {
                        to,
                        comment,
                        ignore_dismounted: false,
                    },
                );
            }
            What::MoveCluster | What::RawMove => {
                let raw = *what == What::RawMove;
                let group = if raw { GroupName::Service } else { GroupName::Cluster };
                self.order(n, 0, Command::MoveGroup { group, to: other() });
            }
            What::Suspend => {
                let (group, comment) = (None, comment());
                self.order(n, 0, Command::Suspend { group, comment });
            }
            What::Stop => {
                self.checks.stop_asked = true;
                self.order(n, 0, Command::Stop { comment: comment() });
            }
            What::Reseed => self.order(n, 0, Command::Reseed { group: None }),
            What::Ask(i, ref command) => {
                self.checks.counters.orders += 1;
                self.checks.stop_asked |= matches!(command, Command::Stop { .. });
                self.order(n, i, command.clone());
            }
            What::Heartbeat(ms) => self.order(n, 0, set("heartbeat_ms", ms.to_string())),
            What::Witness(which) => self.order(n, 0, set("witness", format!(r"\\hub0\{}", SHARES[which]))),
            What::Evict => {
                self.checks.counters.evictions += 1;
                self.order(n, active, Command::Evict { node: other() });
                return Done::hit(1 - active);
            }
            What::Force(who) => {
                let i = self.who(who);
                self.stop_daemon(1 - i, true);
                self.share.down = true;
                self.order_later(n, i, Command::ForceQuorum, 16_000_000);
                return Done::hit(1 - i);
            }
            What::ForceOld(who) => {
                let i = self.who(who);
                self.stop_daemon(i, true);
                self.at(16_000_000, SimEvent::PowerOff(1 - i));
                self.at(17_000_000, SimEvent::PowerOn(i));
                self.order_later(n, i, Command::ForceQuorum, 34_000_000);
                return Done::hit(1 - i);
            }
            _ => {}
        }
        Done::default()
    }

    /// The daemon is told to end.
    pub fn end_in_order(&mut self, i: usize) {
        let life = self.machines[i].life;
        self.trouble();
        self.at(100, SimEvent::Input(i, life, Input::End));
    }

    /// The daemon is killed and started again.
    pub(super) fn kill_for(&mut self, i: usize, us: u64) {
        self.stop_daemon(i, false);
        let life = self.machines[i].life;
        self.at(us, SimEvent::Restart(i, life));
    }

    pub(super) fn undo_step(&mut self, n: usize) {
        let step = self.plan.steps[n].clone();
        self.note(|| format!("UNDO {n} {:?}", step.what));
        self.trouble();
        for cut in std::mem::take(&mut self.done[n].cuts) {
            // Another step may have made the same cut.
            let still = self.done.iter().any(|d| d.cuts.contains(&cut));
            if !still {
                self.cuts.remove(&cut);
            }
        }
        let hit = self.done[n].hit;
        match step.what {
            What::LateAnswer => self.cut_at_answer = None,
            What::PowerOff(_)
            | What::PowerOffMidWrite(_)
            | What::PowerOffMidChange(_)
            | What::PowerOffMidMessage(_)
            | What::HubOff(_)
            | What::BehindOnline(_)
            | What::CutAtNoLease => {
                self.waiting.retain(|w| *w != n);
                if let Some(i) = hit {
                    self.power_back(i, matches!(step.what, What::PowerOffMidWrite(_)));
                }
            }
            What::BothOff => {
                let later = self.rng.range(1, 4_000_000);
                let first = self.rng.range(0, 2) as usize;
                self.power_on(first);
                self.at(later, SimEvent::PowerOn(1 - first));
            }
            What::Force(_) | What::ForceOld(_) => {
                // First the witness, so that the force is recorded there before the other one can ask.
                if self.share.down {
                    self.share.restarted();
                }
                if let Some(i) = hit {
                    self.at(3_000_000, SimEvent::PowerOn(i));
                }
            }
            What::Pause(..) => {
                if let Some(i) = hit {
                    self.resume(i);
                }
            }
            What::ShareDown => self.share.restarted(),
            What::BadNetwork => (self.loss, self.delay_us) = (0, 2_000),
            What::Throttle => self.throttled = false,
            What::DiskFull(_) | What::Unreadable(..) | What::NoRoom(_) => {
                if let Some(i) = hit {
                    let disk = &mut self.machines[i].disk;
                    match step.what {
                        What::DiskFull(_) => disk.capacity = None,
                        What::Unreadable(..) => disk.unreadable = None,
                        _ => disk.rule = None,
                    }
                }
            }
            What::Hold(_) => self.let_go(),
            _ => self.undo_order(n, &step.what),
        }
        self.share_contact();
        self.look();
    }

    fn power_back(&mut self, i: usize, may_flicker: bool) {
        self.machines[i].doomed = None;
        self.power_on(i);
        if may_flicker && self.more.chance(30) {
            // The power flickers.
            self.machines[i].doomed = Some(Moment::Change);
            self.at(3_000_000, SimEvent::PowerOn(i));
        }
    }

    /// The operator takes back what was ordered.
    fn undo_order(&mut self, n: usize, what: &What) {
        match what {
            What::Witness(_) => {
                let to = MEMBERS[self.rng.range(0, 2) as usize].to_owned();
                let group = GroupName::Cluster;
                self.order(n, 0, Command::MoveGroup { group, to });
            }
            What::Evict => {
                if let Some(i) = self.done[n].hit {
                    let node = MEMBERS[i].to_owned();
                    self.order(n, 1 - i, Command::Join { node });
                }
            }
            What::Suspend | What::Ask(_, Command::Suspend { .. }) => {
                self.order(n, 0, Command::Resume { group: None });
            }
            What::Ask(i, Command::Evict { node }) => {
                let node = node.clone();
                self.order(n, *i, Command::Join { node });
            }
            What::Stop | What::Ask(_, Command::Stop { .. }) => self.order(n, 0, Command::Start),
            _ => {}
        }
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        self.done.iter_mut().for_each(|d| d.cuts.clear());
        self.note(|| "HEAL".into());
        self.trouble();
        self.cuts.clear();
        (self.loss, self.delay_us, self.throttled) = (0, 2_000, false);
        self.cut_at_answer = None;
        self.waiting.clear();
        self.delayed = None;
        if self.share.down {
            self.share.restarted();
        }
        for i in 0..self.machines.len() {
            self.machines[i].disk.capacity = None;
            self.machines[i].disk.fail_next = None;
            self.machines[i].disk.unreadable = None;
            self.machines[i].disk.rule = None;
            self.machines[i].doomed = None;
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
        self.trouble();
        if let Command::Start = command {
            self.checks.start_asked(self.now);
        }
        let req = self.next_req();
        self.waiters.insert((i, req), Waiter::Operator(n as u64));
        let ends = self.checks.served_last(self.serving_members());
        self.orders.insert(req, (command.clone(), ends, self.now));
        let life = self.machines[i].life;
        self.at(100, SimEvent::Input(i, life, Input::Operator { req, command }));
    }
    fn order_later(&mut self, n: usize, i: usize, command: Command, us: u64) {
        self.at(us, SimEvent::Order(n, i, command));
    }

    pub(super) fn operator_replied(&mut self, i: usize, req: ReqId, step: u64, reply: Reply) {
        self.note(|| format!("REPLY of {i} to step {step}: {reply:?}"));
        let order = self.orders.remove(&req);
        if let (Some((command, mut ends, at)), Reply::Done(_) | Reply::Unchanged(_)) = (order, &reply) {
            ends.retain(|(i, _)| self.has_run_since(*i, at));
            match command {
                Command::Stop { .. } => {
                    self.checks.stopped_in_order(&ends);
                    self.checks.stop_told(self.now, at, matches!(reply, Reply::Done(_)));
                }
                Command::MoveGroup {
                    group: GroupName::Service,
                    ..
                } => self.checks.moved_without_check(self.now, &ends),
                _ => {}
            }
        }
        let what = self.plan.steps.get(step as usize).map(|s| s.what.clone());
        match (what, &reply) {
            (Some(What::Move), Reply::Done(_)) => self.checks.counters.moves += 1,
            (Some(What::Move), Reply::Denied(_)) => self.checks.counters.moves_denied += 1,
            _ => {}
        }
    }
}
