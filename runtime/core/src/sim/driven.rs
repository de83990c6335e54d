//! A simulated cluster that is driven from outside, step by step: by scenarios instead of a plan.
//!
//! The simulator's own checks do not end such a run: whoever drives it judges what it hears.

use super::configs_of;
use super::machine::Pause;
use super::plan::{Plan, Times};
use super::world::{CLIENTS, PRIVATE, PUBLIC, SimEvent, Waiter, World};
use crate::command::Command;
use crate::io::{ClientRequest, Input, Reply};
use crate::planted::Bug;
use crate::rng::Rng;
use ccr_contract::config::Settings;
use ccr_contract::dump::Dump;
use ccr_contract::event::NodeEvent;
use ccr_contract::status::Status;

/// What was not heard yet.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// Events: when, which machine, what.
    pub told: Vec<(u64, usize, NodeEvent)>,
    /// Answers: the question's number, when, and what; none where whoever was asked is gone.
    pub answers: Vec<(u64, u64, Option<Reply>)>,
    asked: u64,
    operators: std::collections::BTreeSet<u64>,
}

/// The networks of a simulated cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Net {
    /// Of members, hubs and clients.
    Public,
    /// Of the members alone.
    Private,
}

/// One end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A machine: the members are 0 and 1, hubs follow.
    Machine(usize),
    /// The clients.
    Clients,
}

/// Whom a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Whoever has the service address.
    Service,
    /// This machine.
    Machine(usize),
}

/// Two members, hubs, the share and the networks, under somebody's hand.
#[derive(Debug)]
pub struct Cluster {
    world: World,
}

impl Cluster {
    /// Machines that are about to be switched on. `members` and `hubs` are their names; the first hub has the share. The seed is of
    /// everything that the environment chooses.
    ///
    /// # Panics
    /// Where there is no hub.
    pub fn new(seed: u64, members: &[String; 2], hubs: &[String], settings: &Settings, planted: Option<Bug>) -> Self {
        let plan = Plan {
            hubs: hubs.len(),
            ops: 0,
            times: Times::of(settings),
            ..Plan::calm()
        };
        let configs = configs_of(members, hubs, settings);
        let mut world = World::new(Rng::new(seed), configs, plan, false);
        world.planted = planted;
        world.outside = Some(Outside::default());
        Self { world }
    }

    /// True time, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.world.now
    }

    /// Lets time pass until `end_us`.
    pub fn run_until(&mut self, end_us: u64) {
        self.world.run_until(end_us);
        while self.world.checks.broken.take().is_some() {
            self.world.run_until(end_us);
        }
    }

    /// Events that were not heard yet: when, which machine, what.
    pub fn told(&mut self) -> Vec<(u64, usize, NodeEvent)> {
        self.world
            .outside
            .as_mut()
            .map(|o| std::mem::take(&mut o.told))
            .unwrap_or_default()
    }

    /// Answers that were not heard yet: the question's number, when, and what; none where whoever was asked is gone.
    pub fn answers(&mut self) -> Vec<(u64, u64, Option<Reply>)> {
        self.world
            .outside
            .as_mut()
            .map(|o| std::mem::take(&mut o.answers))
            .unwrap_or_default()
    }

    /// What a machine says of itself; none where it does not run.
    pub fn status(&mut self, i: usize) -> Option<Status> {
        self.world.ask_status(i)
    }

    /// What it holds; none where it does not run.
    pub fn dump(&mut self, i: usize) -> Option<Dump> {
        self.world.ask_dump(i)
    }

    /// A machine's boot-time clock, in microseconds.
    pub fn boot_us(&self, i: usize) -> u64 {
        self.world.clocks(i).boot_us
    }

    /// Whether a machine has power.
    pub fn is_on(&self, i: usize) -> bool {
        self.world.machines[i].powered
    }

    /// Whether a machine, not only its daemon, stands still.
    pub fn is_frozen(&self, i: usize) -> bool {
        matches!(self.world.machines[i].paused, Some((Pause::Machine, _)))
    }

    /// Takes a machine's power away, or gives it back.
    pub fn power(&mut self, i: usize, on: bool) {
        if on {
            self.world.power_on(i);
        } else {
            self.world.stop_daemon(i, true);
        }
        self.world.share_contact();
    }

    /// A machine stands still, or its daemon alone; or it goes on.
    pub fn pause(&mut self, i: usize, pause: Option<Pause>) {
        match pause {
            Some(kind) => self.world.pause(i, kind),
            None => self.world.resume(i),
        }
        self.world.share_contact();
    }

    /// A daemon stands still. Its supervisor hears nothing from it, kills it within `watchdog_us`, and starts it again after `us`,
    /// unless it goes on before.
    pub fn hang(&mut self, i: usize, watchdog_us: u64, us: u64) {
        self.pause(i, Some(Pause::Process));
        // It last gave a sign of life at most half of that time ago.
        let left = watchdog_us - self.world.more.range(0, watchdog_us / 2 + 1);
        if let Some((Pause::Process, since)) = self.world.machines[i].paused {
            self.world.at(left, SimEvent::Watchdog(i, since, us));
        }
    }

    /// Kills a daemon; its supervisor starts it again after `us`.
    pub fn kill(&mut self, i: usize, us: u64) {
        self.world.kill_for(i, us);
    }

    /// Tells a daemon to end; it is started again after `us`.
    pub fn end(&mut self, i: usize, us: u64) {
        self.world.back_after_us = Some(us);
        self.world.end_in_order(i);
    }

    /// Cuts one direction of a path, or mends it. What is under way is not lost.
    pub fn cut(&mut self, net: Net, from: Place, to: Place, cut: bool) {
        let place = |p| match p {
            Place::Machine(i) => i,
            Place::Clients => CLIENTS,
        };
        let net = match net {
            Net::Public => PUBLIC,
            Net::Private => PRIVATE,
        };
        let path = (net, place(from), place(to));
        if cut {
            self.world.cuts.insert(path);
        } else {
            self.world.cuts.remove(&path);
        }
        self.world.share_contact();
    }

    /// Cuts a member off from the share while everything else passes, or lets it through again.
    pub fn cut_share(&mut self, i: usize, cut: bool) {
        if cut {
            self.world.share_cuts.insert(i);
        } else {
            self.world.share_cuts.remove(&i);
        }
        self.world.share_contact();
    }

    /// Holds up every stream between the members, or lets them go on.
    pub fn throttle(&mut self, held_up: bool) {
        self.world.throttled = held_up;
    }

    /// Datagrams lost, in percent.
    pub fn lose(&mut self, percent: u64) {
        self.world.loss = percent;
    }

    /// Stops the server of the share, or starts it again.
    pub fn share(&mut self, up: bool) {
        if up {
            self.world.share.restarted();
        } else {
            self.world.share.down = true;
        }
    }

    /// Leaves a machine's disk this many bytes of room; none is as many as it wants.
    pub fn room(&mut self, i: usize, bytes: Option<u64>) {
        let disk = &mut self.world.machines[i].disk;
        disk.capacity = bytes.map(|b| disk.used() + b);
    }

    /// An operator asks a machine; the number of the question, none where no daemon runs there.
    pub fn order(&mut self, i: usize, command: Command) -> Option<u64> {
        if !self.world.runs(i) {
            return None;
        }
        let question = self.question(true);
        let req = self.world.next_req();
        self.world.waiters.insert((i, req), Waiter::Outside(question));
        let life = self.world.machines[i].life;
        self.world
            .at(100, SimEvent::Input(i, life, Input::Operator { req, command }));
        Some(question)
    }

    /// A client asks; the number of the question, none where no daemon listens there or no packet gets through.
    pub fn ask(&mut self, whom: Asked, request: ClientRequest) -> Option<u64> {
        let world = &mut self.world;
        let i = match whom {
            Asked::Service => world.service_place()?,
            Asked::Machine(i) => i,
        };
        let through = world.passes(PUBLIC, CLIENTS, i) && world.passes(PUBLIC, i, CLIENTS);
        if !through || !world.kernel_runs(i) || world.machines[i].node.is_none() {
            return None;
        }
        let question = self.question(false);
        let world = &mut self.world;
        let req = world.next_req();
        world.waiters.insert((i, req), Waiter::Outside(question));
        let (us, life) = (world.packet_us(), world.machines[i].life);
        world.at(us, SimEvent::Input(i, life, Input::Client { req, request }));
        Some(question)
    }

    fn question(&mut self, operator: bool) -> u64 {
        let outside = self.world.outside.get_or_insert_default();
        outside.asked += 1;
        if operator {
            outside.operators.insert(outside.asked);
        }
        outside.asked
    }
}

impl World {
    pub(super) fn answer_outside(&mut self, question: u64, reply: Option<Reply>) {
        let now = self.now;
        if let Some(outside) = &mut self.outside {
            outside.answers.push((question, now, reply));
        }
    }

    /// Whether a client of the store waits, or a hub, and not an operator.
    pub(super) fn is_client(&self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Client(_) | Waiter::Lmtp { .. } => true,
            Waiter::Operator(_) => false,
            Waiter::Outside(question) => self.outside.as_ref().is_some_and(|o| !o.operators.contains(&question)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let names = ["a".to_owned(), "b".to_owned()];
        let settings = Settings {
            groups: vec!["First".into()],
            ..Settings::default()
        };
        Cluster::new(7, &names, &["hub".to_owned()], &settings, None)
    }

    fn serving(c: &mut Cluster) -> Option<usize> {
        (0..2).find(|i| {
            let status = c.status(*i);
            status.and_then(|s| s.service).is_some_and(|s| {
                s.state == ccr_contract::status::ServiceState::Online && s.active.as_deref() == Some(["a", "b"][*i])
            })
        })
    }

    #[test]
    fn a_driven_cluster_serves_and_fails_over() {
        let mut c = cluster();
        c.run_until(30_000_000);
        let first = serving(&mut c).expect("it serves after half a minute");
        assert!(c.told().iter().any(|(_, _, e)| e.kind == "service.online"));
        let message = b"Message-ID: <k1>\r\n\r\nhello".to_vec();
        let request = ClientRequest::Deliver {
            envid: None,
            recipients: vec!["ann@lab".into()],
            message,
        };
        let question = c.ask(Asked::Service, request).expect("it listens");
        c.run_until(31_000_000);
        let answers = c.answers();
        assert!(
            matches!(&answers[..], [(q, _, Some(Reply::Delivered(_)))] if *q == question),
            "{answers:?}"
        );
        c.power(first, false);
        assert!(!c.is_on(first) && c.status(first).is_none());
        c.run_until(60_000_000);
        assert_eq!(serving(&mut c), Some(1 - first));
        c.power(first, true);
        c.run_until(90_000_000);
        assert!(c.status(first).is_some());
        // Both hold what was acknowledged, or say that it was lost: the runner's business.
        assert!(c.dump(0).is_some() && c.dump(1).is_some());
    }

    #[test]
    fn a_daemon_that_hangs_is_ended_by_its_watchdog_and_one_that_goes_on_is_not() {
        let mut c = cluster();
        c.run_until(30_000_000);
        let first = serving(&mut c).unwrap();
        let life = c.world.machines[first].life;
        c.hang(first, 6_000_000, 2_000_000);
        c.run_until(32_900_000);
        assert!(c.status(first).is_none() && c.is_on(first) && !c.is_frozen(first));
        assert_eq!(c.world.machines[first].life, life, "no watchdog is that soon");
        c.run_until(36_000_000);
        assert!(c.world.machines[first].life > life, "no watchdog is later");
        c.run_until(50_000_000);
        assert!(c.status(first).is_some() && serving(&mut c).is_some());
        let life = c.world.machines[first].life;
        c.hang(first, 6_000_000, 2_000_000);
        c.run_until(52_000_000);
        c.pause(first, None);
        // Another pause is not the one that the watchdog saw.
        c.pause(first, Some(Pause::Machine));
        c.run_until(60_000_000);
        assert_eq!(c.world.machines[first].life, life);
    }

    #[test]
    fn a_member_that_is_cut_off_from_the_share_alone_hears_everybody_else() {
        let mut c = cluster();
        c.run_until(30_000_000);
        let witness = |c: &mut Cluster, i| {
            let cluster = c.status(i).unwrap().cluster.unwrap();
            cluster.witness.unwrap().probed_by[["a", "b"][i]].ok
        };
        assert!((0..2).all(|i| witness(&mut c, i)));
        c.cut_share(1, true);
        c.run_until(50_000_000);
        assert!(witness(&mut c, 0) && !witness(&mut c, 1));
        assert_eq!(c.status(1).unwrap().cluster.unwrap().votes.have.len(), 2);
        c.cut_share(1, false);
        c.run_until(70_000_000);
        assert!(witness(&mut c, 1));
    }

    #[test]
    fn streams_that_are_held_up_ship_no_logs_while_heartbeats_go_on() {
        let mut c = cluster();
        c.run_until(30_000_000);
        let active = serving(&mut c).unwrap();
        c.throttle(true);
        for n in 0..60 {
            let message = format!("Message-ID: <k{n}>\r\n\r\n{}", "x".repeat(64 * 1024)).into_bytes();
            let recipients = vec!["ann@lab".into()];
            let request = ClientRequest::Deliver {
                envid: None,
                recipients,
                message,
            };
            c.ask(Asked::Service, request);
            c.run_until(c.now_us() + 100_000);
        }
        let behind = |c: &mut Cluster| {
            let copies = c.status(active).unwrap().copies;
            copies.iter().map(|copy| copy.generated - copy.copied).max()
        };
        assert!(behind(&mut c) > Some(2), "{:?}", behind(&mut c));
        let votes = c.status(active).unwrap().cluster.unwrap().votes.have;
        assert!(["a", "b"].iter().all(|n| votes.iter().any(|v| v == n)), "{votes:?}");
        c.throttle(false);
        c.run_until(c.now_us() + 30_000_000);
        assert!(behind(&mut c) <= Some(1), "{:?}", behind(&mut c));
    }

    #[test]
    fn an_order_is_answered_and_a_dead_machine_answers_nothing() {
        let mut c = cluster();
        c.run_until(30_000_000);
        let first = serving(&mut c).unwrap();
        let question = c.order(first, Command::Stop { comment: "x".into() }).unwrap();
        c.run_until(40_000_000);
        assert!(
            c.answers()
                .iter()
                .any(|(q, _, r)| *q == question && matches!(r, Some(Reply::Done(_))))
        );
        assert_eq!(serving(&mut c), None);
        let question = c.order(1, Command::Start).unwrap();
        c.power(1, false);
        c.run_until(41_000_000);
        let answers = c.answers();
        assert!(
            !answers.iter().any(|(q, _, r)| *q == question && r.is_some()),
            "{answers:?}"
        );
        assert_eq!(c.order(1, Command::Start), None);
    }
}
