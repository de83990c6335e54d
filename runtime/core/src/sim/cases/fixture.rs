//! A cluster under a test's control: a world whose plan is empty, with words for what a case does to it.
//!
//! ```text
//! let mut lab = Lab::new(1, 300);       // one storage group, 300 operations of clients
//! lab.secs(46);
//! let passive = lab.passive();
//! lab.kill(passive);
//! lab.disk(passive).flip("E00/E00.chk", 0);
//! lab.start(passive);
//! lab.converges();                      // well again within 240 s, every invariant held
//! ```
use super::super::clients::{Kind, Outcome as Ended};
use super::super::disk::{Disk, Rule};
use super::super::plan::Plan;
use super::super::world::{PRIVATE, PUBLIC, SimEvent, World};
use super::super::{CONVERGENCE_US, WORKLOAD_AT_US, configs};
use crate::command::Command;
use crate::io::{DiskAction, DiskResult};
use crate::rng::Rng;
use ccr_contract::status::Status;

/// The hub's place among the machines.
pub const HUB: usize = 2;

/// Two members (0 and 1), a hub ([`HUB`]) and the witness share on it.
pub struct Lab {
    /// The world, for what has no word here.
    pub world: World,
}

impl Lab {
    /// A lab with clients that begin at 14 s and spread `operations` over the time until 60 s.
    pub fn new(groups: usize, operations: usize) -> Self {
        Self::prepared(groups, operations, 60, |_| {})
    }

    /// The same with clients until `until_s`, changed by `prepare` before the first machine is on.
    pub fn prepared(groups: usize, operations: usize, until_s: u64, prepare: impl Fn(&mut World)) -> Self {
        let mut plan = Plan::calm();
        (plan.groups, plan.ops) = (groups, operations);
        let mut world = World::new(Rng::new(7).fork(), configs(&plan), plan, true);
        prepare(&mut world);
        world.run_until(WORKLOAD_AT_US);
        world.begin_workload(until_s * 1_000_000 - WORKLOAD_AT_US);
        Self { world }
    }

    /// Lets so many seconds pass.
    pub fn secs(&mut self, s: u64) {
        self.world.run_until(self.world.now + s * 1_000_000);
    }
    /// Lets time pass, a millisecond at a time, until `done` says so; fails after `s` seconds.
    pub fn until(&mut self, s: u64, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.world.now + s * 1_000_000;
        while !done(self) {
            assert!(self.world.now < end, "{what}: not within {s} s\n{}", self.tail(20));
            assert_eq!(
                self.world.checks.broken,
                None,
                "while waiting for: {what}\n{}",
                self.tail(20)
            );
            self.world.run_until(self.world.now + 1_000);
        }
    }

    /// The member that serves.
    pub fn active(&self) -> usize {
        self.world.workload.service_at
    }
    /// The other one.
    pub fn passive(&self) -> usize {
        1 - self.active()
    }

    /// The daemon is killed and stays away.
    pub fn kill(&mut self, i: usize) {
        self.world.stop_daemon(i, false);
    }
    /// The power goes and stays away.
    pub fn power_off(&mut self, i: usize) {
        self.world.stop_daemon(i, true);
    }
    /// The daemon is told to end, and stays away.
    pub fn end(&mut self, i: usize) {
        self.world.end_in_order(i);
    }
    /// The daemon, or the machine, starts again.
    pub fn start(&mut self, i: usize) {
        if self.world.machines[i].powered {
            let life = self.world.machines[i].life;
            self.world.at(1, SimEvent::Restart(i, life));
        } else {
            self.world.power_on(i);
        }
    }
    /// Both networks between the members are cut.
    pub fn cut(&mut self) {
        for n in [PUBLIC, PRIVATE] {
            self.world.cuts.extend([(n, 0, 1), (n, 1, 0)]);
        }
    }
    /// An operator's order, given at a member; its answer is in the timeline.
    pub fn order(&mut self, i: usize, command: Command) {
        self.world.order(usize::MAX, i, command);
    }

    /// A machine's disk. Whoever reaches into it is the cause of what becomes of a copy.
    pub fn disk(&mut self, i: usize) -> &mut Disk {
        self.world.seed_ordered(None);
        &mut self.world.machines[i].disk
    }
    /// The next operation of this kind on a machine's disk ends so.
    pub fn fails_once(&mut self, i: usize, what: fn(&DiskAction) -> bool, why: &str) {
        let result = DiskResult::Failed(why.to_owned());
        let once = true;
        self.disk(i).rule = Some(Rule { what, result, once });
    }
    /// Changes a file of JSON behind the node's back; its checksum is right.
    pub fn rewrite(&mut self, i: usize, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let bytes = self.disk(i).file(file).expect("the file is there");
        let mut json = serde_json::from_slice(bytes).expect("it is JSON");
        change(&mut json);
        let bytes = crate::durable::written(&json);
        self.disk(i).put(file, bytes);
    }
    /// How many files of a machine end so.
    pub fn count(&mut self, i: usize, suffix: &str) -> usize {
        self.disk(i).names().filter(|n| n.ends_with(suffix)).count()
    }
    /// Deliveries and submissions that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        let stored = |k: &Kind| matches!(k, Kind::Submit | Kind::Deliver);
        let ops = self.world.workload.ops.iter();
        ops.filter(|o| stored(&o.kind) && o.outcome == Ended::Ok).count()
    }
    /// Messages in the store of a node; 0 where it does not answer.
    pub fn stored(&mut self, i: usize) -> usize {
        let dump = self.world.ask_dump(i);
        dump.map_or(0, |d| d.groups.iter().map(|g| g.messages.len()).sum())
    }
    /// What a node says of itself.
    pub fn status(&mut self, i: usize) -> Status {
        self.world.ask_status(i).expect("the node answers")
    }

    /// Position in the timeline, for [`Self::since`].
    pub fn mark(&self) -> usize {
        self.world.trace.as_ref().map_or(0, Vec::len)
    }
    /// Lines of the timeline since `mark` that contain `word`.
    pub fn since(&self, mark: usize, word: &str) -> Vec<String> {
        let lines = self.world.trace.iter().flatten().skip(mark);
        lines.filter(|l| l.contains(word)).cloned().collect()
    }
    /// The last lines of the timeline.
    pub fn tail(&self, n: usize) -> String {
        let trace = self.world.trace.as_deref().unwrap_or_default();
        trace[trace.len().saturating_sub(n)..].join("\n")
    }

    /// Every invariant held so far.
    pub fn holds(&self) {
        assert_eq!(self.world.checks.broken, None, "{}", self.tail(40));
    }
    /// Heals everything, lets an operator mend what does not heal by itself, and judges the end: well again, and every
    /// invariant held.
    pub fn converges(&mut self) {
        self.world.heal();
        let end = self.world.now + CONVERGENCE_US;
        let (mut well, mut why) = (0, None);
        while well < 5 {
            self.secs(2);
            self.holds();
            assert!(self.world.now < end, "not well: {why:?}\n{}", self.tail(40));
            match self.world.converged() {
                Ok(()) => well += 1,
                Err(seen) => {
                    well = 0;
                    self.world.mend(&seen);
                    why = Some(seen);
                }
            }
        }
        self.world.check_end();
        self.holds();
    }
}

#[test]
fn a_quiet_lab_converges() {
    let mut lab = Lab::new(1, 300);
    lab.secs(50);
    assert!(lab.acknowledged() > 50, "{}", lab.acknowledged());
    lab.converges();
}
