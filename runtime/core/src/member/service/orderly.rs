//! Going offline in order: an operator stops the service, or moves it without any check, or the daemon is told to end. What is
//! open is closed, so that the other member can have it; a stop is done when that one has inspected everything. Where it cannot,
//! the record goes on saying who alone has everything, and the service starts only with that (`Record::sole_copy`).

use super::handoff::HANDOFF_US;
use super::{Outcome, Round, Service, Stage, Unanswered};
use crate::ctx::Ctx;
use crate::io::{AddressKind, Effect, Reply};
use crate::member::asker::Asker;
use crate::op::Pending;
use crate::planted::Bug;
use ccr_contract::event::EventKind;
use ccr_contract::status::{CopyStatus, Intent};

/// How long the disk may take to close what is open, in microseconds.
const CLOSE_US: u64 = 5_000_000;
/// How long a stop waits for a copy that is there and not Healthy, in microseconds.
const UNWELL_US: u64 = 5_000_000;

impl Service {
    /// The service is not this node's any more, or shall not run: goes offline in order where there is the time.
    pub(super) fn leave(&mut self, r: &mut Round<'_>) {
        let up = r.cluster.up;
        match &self.stage {
            Stage::Closing { .. } if up => {}
            Stage::Online | Stage::Verifying(_) | Stage::Draining { .. } if up => {
                self.begin_closing(r, "another owner, or stopped");
            }
            _ if up => self.go_offline(r, "another owner, or stopped"),
            _ => self.go_offline(r, "no majority"),
        }
    }

    /// The daemon was told to end. Where the service is up, it goes offline in order; where it was only about to be, nothing was
    /// acknowledged yet.
    pub(super) fn end_in_order(&mut self, r: &mut Round<'_>) {
        match &self.stage {
            Stage::Online | Stage::Verifying(_) => {
                // Nothing is verified first: whatever that finds, the other one is to serve when this one is gone.
                if let Stage::Verifying(v) = std::mem::replace(&mut self.stage, Stage::Online) {
                    v.asker
                        .deny(r.ctx, "the daemon ends, and gives the service away by itself");
                }
                r.ctx.event(EventKind::MoveBegun {
                    to: r.cluster.peer.to_owned(),
                    comment: format!("ccrd ends on {}", r.cluster.me),
                    verified: None,
                    epoch: self.reported_epoch(&r.cluster),
                });
                self.begin_closing(r, "the daemon ends");
            }
            Stage::Waiting | Stage::Salvaging { .. } | Stage::Mounting | Stage::Address | Stage::Ready => {
                self.go_offline(r, "the daemon ends");
            }
            _ => {}
        }
    }

    fn begin_closing(&mut self, r: &mut Round<'_>, why: &str) {
        r.ctx.emit(Effect::CloseClients);
        r.outcomes.push(Outcome::ClientsCut);
        let which = AddressKind::Service;
        r.ctx.address(Pending::Address(which, false), which, false);
        let since = r.ctx.now.boot_us;
        self.enter(Stage::Closing { since }, why);
        r.ctx.wake_at(since);
    }

    pub(super) fn closing(&mut self, r: &mut Round<'_>, since: u64) {
        r.groups.roll(r.ctx);
        let record = r.cluster.record;
        let mine = r.cluster.is_owner() && record.owner_epoch == self.epoch();
        let stopped = mine && record.intent == Intent::Stopped;
        // Whoever ends leaves nothing that the other one needs.
        let ships = stopped || (mine && r.ends);
        let closed = r.groups.are_drained();
        let (healthy, shipped) = shipped(r);
        // Of a database that is dismounted nothing more can be shipped, and nobody knows what the copy lacks.
        let whole = shipped && !self.partially();
        let done = closed && (whole || !ships);
        let patience = match ships {
            _ if !closed => CLOSE_US,
            true if shipped => 0,
            true if healthy => HANDOFF_US,
            true if r.cluster.peer_up => UNWELL_US,
            _ => 0,
        };
        if done && ships && !stopped {
            let to = r.cluster.peer.to_owned();
            self.release(r, to, Asker::Nobody, since);
        } else if done || r.ctx.due(since + patience) {
            let why = match (stopped, ships) {
                (true, _) if done => "stopped; the copy has everything",
                (true, _) => "stopped; the copy has not everything",
                (_, true) if done => "the daemon ends; the copy has everything",
                (_, true) => "the daemon ends; the copy has not everything",
                _ => "another owner",
            };
            r.outcomes.push(Outcome::WentOffline { given: closed && whole });
            let next = if stopped && done { Stage::Shipped } else { Stage::Off };
            self.go_offline_to(r, next, why, stopped || (done && ships));
        }
    }

    /// Nothing is acknowledged any more, at once; then everything goes down.
    pub(super) fn go_offline(&mut self, r: &mut Round<'_>, why: &str) {
        self.go_offline_to(r, Stage::Off, why, false);
    }

    /// A resource of the service failed here. The other member is asked first; where that cannot help, this one tries again.
    pub(super) fn fail(&mut self, r: &mut Round<'_>, why: &str) {
        let retry_at = r.ctx.now.boot_us + super::FAILED_US;
        self.go_offline_to(r, Stage::Failed { retry_at }, why, false);
        r.ctx.wake_at(retry_at);
    }

    /// The same; `orderly` where what was acknowledged is on the other member, or the record says who alone has it.
    fn go_offline_to(&mut self, r: &mut Round<'_>, next: Stage, why: &str, orderly: bool) {
        r.ctx.emit(Effect::CloseClients);
        r.outcomes.push(Outcome::ClientsCut);
        r.groups.dismount();
        if self.stage.wants_lease() {
            let which = AddressKind::Service;
            r.ctx.address(Pending::Address(which, false), which, false);
        }
        self.report_offline(r, why, orderly);
        self.end_appointment();
        self.enter(next, why);
    }

    /// A stage is left for one that is offline, or on its way there: who waited is answered in this round, and why.
    fn enter(&mut self, next: Stage, why: &str) {
        match std::mem::replace(&mut self.stage, next) {
            Stage::Verifying(v) => self.unanswered = Some(Unanswered::Verification(v)),
            Stage::Draining { asker, .. } | Stage::Released { asker, .. } => {
                let text = format!("the move was broken off: {why}");
                self.unanswered = Some(Unanswered::Move(asker, Reply::Denied(text)));
            }
            _ => {}
        }
    }

    /// What kept someone waiting is broken off.
    pub(super) fn refuse_broken_verification(&mut self, r: &mut Round<'_>) {
        match self.unanswered.take() {
            Some(Unanswered::Verification(v)) => self.refuse(r, v, "the service is not Online any more"),
            other => self.unanswered = other,
        }
    }
    /// The same of a move.
    pub(super) fn refuse_broken_move(&mut self, ctx: &mut Ctx<Pending>) {
        if let Some(Unanswered::Move(asker, reply)) = self.unanswered.take() {
            asker.answer(ctx, reply);
        }
    }
}

/// Whether the copies of what is mounted here are Healthy, and whether they have inspected every closed log.
pub(super) fn shipped(r: &Round<'_>) -> (bool, bool) {
    let Some(view) = r.cluster.member_heartbeat() else {
        return (false, false);
    };
    let mounted = || r.groups.stores().zip(&view.groups).filter(|(s, _)| s.mounted());
    let healthy = mounted().all(|(_, g)| g.status == CopyStatus::Healthy);
    let inspected = mounted().all(|(s, g)| g.inspected >= s.last().generation);
    let inspected = inspected || r.ctx.plays(Bug::GiveUninspected);
    (healthy, healthy && inspected)
}

#[cfg(test)]
mod tests {
    use super::super::MoveOrder;
    use super::super::stage::Appointment;
    use super::*;
    use crate::io::ReqId;
    use crate::links::PeerStreams;
    use crate::member::fixture::{EPOCH, Facts, at, config, ctx, told};
    use crate::member::groups::Groups;
    use ccr_contract::config::Config;

    /// A service of this node in a stage, with groups that hold nothing.
    struct Bench {
        config: Config,
        service: Service,
        groups: Groups,
        ctx: Ctx<Pending>,
    }

    impl Bench {
        fn new(stage: Stage) -> Self {
            let config = config();
            let mut service = Service::new(&config);
            service.last_used_epoch = EPOCH - 1;
            service.appointment = stage.is_engaged().then(|| Appointment::new(EPOCH, 0));
            service.stage = stage;
            Self {
                groups: Groups::new(&config),
                service,
                config,
                ctx: ctx(1_000),
            }
        }
        /// One round; what it led to.
        fn drive(&mut self, facts: &Facts, ends: bool) -> (Vec<Outcome>, Vec<Effect>) {
            let mut round = Round {
                ctx: &mut self.ctx,
                cluster: facts.snapshot(),
                groups: &mut self.groups,
                streams: &mut PeerStreams::new(&self.config),
                ends,
                outcomes: Vec::new(),
            };
            self.service.drive(&mut round);
            (round.outcomes, self.ctx.take_effects())
        }
    }

    fn operator() -> Asker {
        Asker::Local(ReqId(5))
    }
    fn denied(effects: &[Effect]) -> Option<&str> {
        effects.iter().find_map(|e| match e {
            Effect::Reply {
                req: ReqId(5),
                reply: Reply::Denied(why),
            } => Some(why.as_str()),
            _ => None,
        })
    }
    fn stopped() -> Facts {
        let mut facts = Facts::new();
        facts.record = facts.record.stopped();
        facts
    }

    #[test]
    fn a_stop_closes_first_and_is_shipped_when_the_copy_has_everything() {
        let mut bench = Bench::new(Stage::Online);
        let (outcomes, effects) = bench.drive(&stopped(), false);
        assert!(outcomes.contains(&Outcome::ClientsCut), "{outcomes:?}");
        assert!(
            matches!(effects[0], Effect::CloseClients),
            "clients are cut off first: {effects:?}"
        );
        // Nothing is mounted here, so that everything is shipped at once.
        assert!(outcomes.contains(&Outcome::WentOffline { given: true }), "{outcomes:?}");
        assert_eq!((&bench.service.stage, bench.service.epoch()), (&Stage::Shipped, 0));
        assert_eq!(bench.service.last_used_epoch, EPOCH, "the appointment is used up");
    }

    #[test]
    fn without_a_majority_it_goes_offline_at_once() {
        let mut bench = Bench::new(Stage::Online);
        let mut facts = Facts::new();
        (facts.up, facts.lease_valid) = (false, false);
        let (outcomes, effects) = bench.drive(&facts, false);
        assert_eq!(outcomes, [Outcome::ClientsCut]);
        let told = told(&effects);
        assert!(
            matches!(&told[..], [EventKind::Offline { why, orderly: false, epoch: EPOCH }] if why == "no majority"),
            "{told:?}"
        );
        assert_eq!(bench.service.stage, Stage::Off);
    }

    #[test]
    fn a_daemon_that_ends_closes_what_is_up_and_gives_up_what_is_not() {
        let mut bench = Bench::new(Stage::Online);
        let (outcomes, _) = bench.drive(&Facts::new(), true);
        assert!(outcomes.contains(&Outcome::WentOffline { given: true }), "{outcomes:?}");
        assert!(bench.service.is_released(), "{:?}", bench.service.stage);
        let mut bench = Bench::new(Stage::Ready);
        bench.drive(&Facts::new(), true);
        assert_eq!(bench.service.stage, Stage::Off);
    }

    #[test]
    fn whoever_waited_for_a_stage_that_is_left_is_answered_in_the_same_round() {
        let draining = Stage::Draining {
            to: "node2".into(),
            asker: operator(),
            since: 0,
        };
        let mut bench = Bench::new(draining);
        let (_, effects) = bench.drive(&stopped(), false);
        assert_eq!(
            denied(&effects),
            Some("the move was broken off: another owner, or stopped")
        );

        let mut bench = Bench::new(Stage::Online);
        let facts = Facts::new();
        let mut round = Round {
            ctx: &mut bench.ctx,
            cluster: facts.snapshot(),
            groups: &mut bench.groups,
            streams: &mut PeerStreams::new(&bench.config),
            ends: false,
            outcomes: Vec::new(),
        };
        bench
            .service
            .begin_move(&mut round, MoveOrder::of("node2".into(), "why"), operator());
        assert!(matches!(bench.service.stage, Stage::Verifying(_)));
        assert!(bench.service.serves(), "it serves while the target verifies");
        let (_, effects) = bench.drive(&stopped(), false);
        assert_eq!(
            denied(&effects),
            Some("the service is not Online any more; the service stays here")
        );
    }

    #[test]
    fn a_resource_that_failed_is_left_alone_for_a_while() {
        let mut bench = Bench::new(Stage::Online);
        let mut facts = Facts::new();
        let mut failed = facts.snapshot();
        failed.service_network_failed = true;
        let mut round = Round {
            ctx: &mut bench.ctx,
            cluster: failed,
            groups: &mut bench.groups,
            streams: &mut PeerStreams::new(&bench.config),
            ends: false,
            outcomes: Vec::new(),
        };
        bench.service.drive(&mut round);
        let retry_at = 1_000_000 + super::super::FAILED_US;
        assert_eq!(bench.service.stage, Stage::Failed { retry_at });
        facts.peer_up = false;
        at(&mut bench.ctx, retry_at / 1000 - 1);
        bench.drive(&facts, false);
        assert!(matches!(bench.service.stage, Stage::Failed { .. }));
        at(&mut bench.ctx, retry_at / 1000);
        bench.drive(&facts, false);
        assert_eq!(bench.service.stage, Stage::Off, "and the appointment is not used again");
    }
}
