//! What the steps of a plan do: each one's beginning and its end.

use super::MEMBERS;
use super::disk::{Fails, Rule};
use super::effects::SHARE_HOST;
use super::machine::{Moment, Pause};
use super::plan::{Direction, What, Who};
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
        let mut cuts = Vec::new();
        let mut hit = None;
        let mut both = |network, a: usize, b: usize, direction: Direction| {
            if direction != Direction::In {
                cuts.push((network, a, b));
            }
            if direction != Direction::Out {
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
                self.machines[i].doomed = self.machines[i].powered.then_some(Moment::Write);
                let life = self.machines[i].life;
                self.at(3_000_000.min(step.for_us / 2), SimEvent::Doom(i, life));
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
                self.at(step.for_us / 4, SimEvent::Restart(i, life));
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
            What::CutPrivate => both(PRIVATE, 0, 1, Direction::Both),
            What::CutPublic(who, direction) => {
                let i = self.who(who);
                (0..=CLIENTS)
                    .filter(|j| *j != i)
                    .for_each(|j| both(PUBLIC, i, j, direction));
            }
            What::Partition(direction) => [PUBLIC, PRIVATE].into_iter().for_each(|n| both(n, 0, 1, direction)),
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
            What::Flip(who) => self.hurt_log(self.who(who), false),
            What::LoseLog(who) => self.hurt_log(self.who(who), true),
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
            What::Ask(i, ref command) => {
                self.checks.counters.orders += 1;
                self.checks.stop_asked |= matches!(command, Command::Stop { .. });
                self.order(n, i, command.clone());
            }
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
            // See below.
            What::PowerOffMidChange(_)
            | What::Unreadable(..)
            | What::Damage(..)
            | What::Hold(_)
            | What::RestartInOrder(_)
            | What::BehindOnline(_)
            | What::NoRoom(_)
            | What::CutAtNoLease => {}
            What::Alone(who) => {
                let i = self.who(who);
                both(PUBLIC, i, 1 - i, Direction::Both);
                both(PRIVATE, i, 1 - i, Direction::Both);
                both(PUBLIC, i, SHARE_HOST, Direction::Both);
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
                self.at(16_000_000, SimEvent::PowerOff(1 - i));
                self.at(17_000_000, SimEvent::PowerOn(i));
                self.at(34_000_000, SimEvent::Order(n, i, Command::ForceQuorum));
            }
        }
        hit = self.begin_harsher(n).or(hit);
        self.trouble();
        if let What::Reseed | What::Ask(_, Command::Reseed { .. }) = step.what {
            self.seed_ordered(None);
        }
        self.cuts.extend(cuts.iter().copied());
        self.done[n] = Done { cuts, hit };
        self.share_contact();
        self.look();
        let wait = match step.what {
            // Its own end comes after its cut.
            What::LateAnswer => 20_000_000,
            _ => step.for_us,
        };
        self.at(wait, SimEvent::Undo(n));
    }

    /// The same of what makes the world harsher; the machine that is hit.
    fn begin_harsher(&mut self, n: usize) -> Option<usize> {
        let step = self.plan.steps[n].clone();
        match step.what {
            What::PowerOffMidChange(who) => {
                let i = self.who(who);
                self.checks.counters.power_offs += 1;
                if self.more.chance(40) {
                    // While it recovers.
                    self.kill_for(i, 100_000);
                }
                self.machines[i].doomed = self.machines[i].powered.then_some(Moment::Change);
                let life = self.machines[i].life;
                self.at(3_000_000.min(step.for_us / 2), SimEvent::Doom(i, life));
                Some(i)
            }
            What::Unreadable(who, what, at_start) => {
                let i = self.who(who);
                self.machines[i].disk.unreadable = Some(what);
                self.checks.unread.insert(i);
                if at_start {
                    self.kill_for(i, 500_000);
                }
                Some(i)
            }
            What::Damage(who, kind, how, down) => {
                let i = self.who(who);
                let hurt = self.damage(i, kind, how);
                if hurt && down {
                    // The daemon had died before: what it has in memory does not matter.
                    self.kill_for(i, step.for_us / 4);
                }
                None
            }
            What::Hold(who) => {
                let from = self.who(who);
                let life = self.machines[from].life;
                let datagrams = Vec::new();
                self.delayed = Some(DelayedDatagrams { from, life, datagrams });
                // Some heartbeats first.
                self.at(step.for_us / 2, SimEvent::Behind(n, from));
                Some(from)
            }
            What::BehindOnline(_) | What::CutAtNoLease => {
                self.waiting.push(n);
                None
            }
            What::RestartInOrder(who) => {
                let i = self.who(who);
                self.back_after_us = Some(self.more.range(50_000, 4_000_000));
                self.end_in_order(i);
                None
            }
            What::NoRoom(who) => {
                let i = self.who(who);
                let what =
                    |a: &DiskAction| matches!(a, DiskAction::Replace { file, .. } if file.starts_with("E01/E01res"));
                let (result, once) = (DiskResult::Full, false);
                let disk = &mut self.machines[i].disk;
                let taken: Vec<String> = disk.names().filter(|n| n.starts_with("E01/E01res")).cloned().collect();
                for file in taken {
                    disk.remove(&file);
                }
                disk.rule = Some(Rule { what, result, once });
                Some(i)
            }
            _ => None,
        }
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
        match step.what {
            What::LateAnswer => self.cut_at_answer = None,
            What::PowerOff(_)
            | What::PowerOffMidWrite(_)
            | What::PowerOffMidChange(_)
            | What::HubOff(_)
            | What::BehindOnline(_)
            | What::CutAtNoLease => {
                self.waiting.retain(|w| *w != n);
                if let Some(i) = self.done[n].hit {
                    self.machines[i].doomed = None;
                    self.power_on(i);
                    if matches!(step.what, What::PowerOffMidWrite(_)) && self.more.chance(30) {
                        // The power flickers.
                        self.machines[i].doomed = Some(Moment::Change);
                        self.at(3_000_000, SimEvent::PowerOn(i));
                    }
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
                if let Some(i) = self.done[n].hit {
                    self.at(3_000_000, SimEvent::PowerOn(i));
                }
            }
            What::Witness(_) => {
                let to = MEMBERS[self.rng.range(0, 2) as usize].to_owned();
                let group = GroupName::Cluster;
                self.order(n, 0, Command::MoveGroup { group, to });
            }
            What::Evict => {
                if let Some(i) = self.done[n].hit {
                    let node = self.machines[i].config.node.clone();
                    self.order(n, 1 - i, Command::Join { node });
                }
            }
            What::Pause(..) => {
                if let Some(i) = self.done[n].hit {
                    self.resume(i);
                }
            }
            What::ShareDown => self.share.restarted(),
            What::BadNetwork => (self.loss, self.delay_us) = (0, 2_000),
            What::Throttle => self.throttled = false,
            What::DiskFull(_) => {
                if let Some(i) = self.done[n].hit {
                    self.machines[i].disk.capacity = None;
                }
            }
            What::Suspend | What::Ask(_, Command::Suspend { .. }) => {
                self.order(n, 0, Command::Resume { group: None });
            }
            What::Ask(i, Command::Evict { ref node }) => {
                let node = node.clone();
                self.order(n, i, Command::Join { node });
            }
            What::Unreadable(who, ..) => {
                let i = self.done[n].hit.unwrap_or(self.who(who));
                self.machines[i].disk.unreadable = None;
            }
            What::Hold(_) => self.let_go(),
            What::NoRoom(_) => {
                if let Some(i) = self.done[n].hit {
                    self.machines[i].disk.rule = None;
                }
            }
            What::Stop | What::Ask(_, Command::Stop { .. }) => self.order(n, 0, Command::Start),
            _ => {}
        }
        self.share_contact();
        self.look();
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
        if let (Some((command, mut ends, at)), Reply::Done(text)) = (self.orders.remove(&req), &reply) {
            ends.retain(|(i, _)| self.has_run_since(*i, at));
            match command {
                Command::Stop { .. } => {
                    self.checks.stopped_in_order(&ends);
                    self.checks.stop_told(self.now, at, text.starts_with("Stopped"));
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
