//! What the steps of a plan do: each one's beginning and its end.

use super::MEMBERS;
use super::disk::Fails;
use super::plan::{Way, What, Who};
use super::share::SHARES;
use super::world::{CLIENTS, Happening, PRIVATE, PUBLIC, Pause, Waiter, World};
use crate::io::{Command, GroupName, Input, Reply};

/// What a step did that must be undone.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Its cuts: network, from, to.
    pub cuts: Vec<(usize, usize, usize)>,
    /// The machine that it hit.
    pub hit: Option<usize>,
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
        self.done[n] = Done { cuts, hit };
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
        self.done[n].cuts = around(i);
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
        for cut in std::mem::take(&mut self.done[n].cuts) {
            // Another step may have made the same cut.
            let still = self.done.iter().any(|d| d.cuts.contains(&cut));
            if !still {
                self.cuts.remove(&cut);
            }
        }
        match step.what {
            What::LateAnswer => self.cut_at_answer = None,
            What::PowerOff(_) | What::PowerOffMidWrite(_) | What::HubOff(_) => {
                if let Some(i) = self.done[n].hit {
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
                if let Some(i) = self.done[n].hit {
                    self.at(3_000_000, Happening::PowerOn(i));
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
        self.done.iter_mut().for_each(|d| d.cuts.clear());
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
