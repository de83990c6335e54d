//! One storage group against a map of messages. In whatever order changes, flushes, rolls, replays, compactions and crashes come:
//! what was acknowledged is there, byte for byte, what was deleted is not, and what was damaged is told.

use crate::chain::GENESIS;
use crate::ctx::Ctx;
use crate::io::{Boot, Effect};
use crate::op::{GroupOp, Part};
use crate::rng::Rng;
use crate::sim::disk::{Disk, How, Kind};
use crate::store::active::Change;
use crate::store::index::Entry;
use crate::store::pieces::Piece;
use crate::store::{Outcome, Store};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use std::sync::Arc;

/// Bytes of a generation: a few messages fill one.
pub(super) const SIZE: u64 = 4096;
const LONGEST: usize = 5 * SIZE as usize;
const MAILBOXES: [&str; 3] = ["ann", "bob", "cid"];
/// What a request is for, above the message's number in its transaction.
const DELETION: u64 = 1 << 32;

/// As much of the group as decides which step may come next.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    mounted: bool,
    /// A file was damaged: nothing is written any more, and what is lost must be told.
    hurt: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A new message of so many bytes, to one of the mailboxes.
    Store(usize, usize),
    /// One of the messages once more.
    Again(prop::sample::Index),
    Delete(prop::sample::Index),
    /// The disk carries out so many operations.
    Disk(usize),
    Roll,
    Replay,
    Compact,
    /// Closed logs go that the database has taken in.
    Truncate,
    Dismount,
    Mount,
    /// The process dies; with a seed, the power goes.
    Crash(Option<u64>),
    /// A file is damaged while nobody has it open.
    Damage(How, u64),
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let crash = prop::option::of(any::<u64>()).prop_map(Step::Crash);
        if !state.mounted {
            let how = prop_oneof![Just(How::Flip), Just(How::Truncate), Just(How::Zero), Just(How::Delete)];
            let damage = (how, any::<u64>()).prop_map(|(how, seed)| Step::Damage(how, seed));
            return prop_oneof![12 => Just(Step::Mount), 2 => crash, 1 => damage].boxed();
        }
        if state.hurt {
            return prop_oneof![Just(Step::Replay), Just(Step::Compact), crash].boxed();
        }
        let message = || any::<prop::sample::Index>();
        prop_oneof![
            12 => (0..MAILBOXES.len(), 0..900usize).prop_map(|(to, len)| Step::Store(to, len)),
            3 => (0..MAILBOXES.len(), 3000..=LONGEST).prop_map(|(to, len)| Step::Store(to, len)),
            2 => message().prop_map(Step::Again),
            5 => message().prop_map(Step::Delete),
            12 => (1..9usize).prop_map(Step::Disk),
            2 => Just(Step::Roll),
            3 => Just(Step::Replay),
            3 => Just(Step::Compact),
            2 => Just(Step::Truncate),
            1 => Just(Step::Dismount),
            2 => crash,
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match step {
            Step::Mount => state.mounted = true,
            Step::Dismount | Step::Crash(_) => state.mounted = false,
            Step::Damage(..) => state.hurt = true,
            _ => {}
        }
        state
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Mount | Step::Damage(..) => !state.mounted,
            Step::Crash(_) => true,
            Step::Replay | Step::Compact => state.mounted,
            _ => state.mounted && !state.hurt,
        }
    }
}

/// A message that was given to the group.
#[derive(Debug)]
pub(super) struct Given {
    mailbox: &'static str,
    body: Arc<Vec<u8>>,
    pub(super) acked: bool,
    deletion: Deletion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    None,
    Asked,
    Acked,
}

/// A group, its disk, and what was given to it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) store: Store,
    pub(super) ctx: Ctx<GroupOp>,
    pub(super) disk: Disk,
    epoch: u64,
    pub(super) given: Vec<Given>,
    /// What it said of damage.
    told: Vec<String>,
}

fn ctx() -> Ctx<GroupOp> {
    Ctx::new(&Boot {
        entropy: 1,
        version: "test".into(),
        planted: None,
    })
}

impl Group {
    pub(super) fn new() -> Self {
        let mut this = Self {
            store: Store::new(0, "Group0", SIZE, LONGEST as u64),
            ctx: ctx(),
            disk: Disk::default(),
            epoch: 0,
            given: Vec::new(),
            told: Vec::new(),
        };
        this.store.recover(&mut this.ctx);
        this
    }

    /// What the group asked for goes to the disk.
    fn submit(&mut self) {
        for effect in self.ctx.take_effects() {
            match effect {
                Effect::Disk { op, action } => _ = self.disk.push(op, action),
                Effect::Event(e) if e.kind.contains("damaged") || e.kind.contains("torn") => self.told.push(e.kind),
                _ => {}
            }
        }
    }

    /// One operation of the disk; whether there was one.
    pub(super) fn disk(&mut self) -> bool {
        self.submit();
        let Some((op, result)) = self.disk.complete() else {
            return false;
        };
        let GroupOp(_, op) = self.ctx.completed(op).expect("it was asked for");
        for outcome in self.store.on_disk(&mut self.ctx, op, result) {
            self.hear(outcome);
        }
        self.store.recover_when_stale(&mut self.ctx);
        self.submit();
        true
    }

    /// Until the disk has nothing to do, and what was there is read again where that is needed.
    pub(super) fn settle(&mut self) {
        self.store.recover_when_stale(&mut self.ctx);
        while self.disk() {}
    }

    fn hear(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Landed(tickets) => {
                for ticket in tickets {
                    let given = &mut self.given[(ticket.txn % DELETION) as usize];
                    if ticket.txn >= DELETION {
                        given.deletion = Deletion::Acked;
                    } else {
                        given.acked = true;
                    }
                }
            }
            Outcome::MountFailed(why)
            | Outcome::NoRoom(why)
            | Outcome::ReplayFailed(why)
            | Outcome::Damaged(_, why) => self.told.push(why),
            Outcome::Mounted | Outcome::Closed(_) | Outcome::Replayed(_) => {}
        }
    }

    /// One more message, of so many bytes; its number.
    pub(super) fn give(&mut self, mailbox: &'static str, len: usize) -> usize {
        let n = self.given.len();
        // No two pieces are the same.
        let body: Vec<u8> = (n..).map(|n| (n % 251) as u8).take(len).collect();
        self.given.push(Given {
            mailbox,
            body: Arc::new(body),
            acked: false,
            deletion: Deletion::None,
        });
        self.store_message(n);
        n
    }

    pub(super) fn store_message(&mut self, n: usize) {
        let given = &self.given[n];
        let (hub_id, key) = (format!("hub-{n}"), format!("k{n}"));
        let change = Change::Store {
            mailbox: given.mailbox,
            hub_id: &hub_id,
            key: &key,
            body: &given.body,
        };
        self.store.change(&mut self.ctx, n as u64, 0, change);
    }

    pub(super) fn delete(&mut self, n: usize) {
        let Some(seq) = self.find(n).map(|e| e.label.seq) else {
            return;
        };
        let given = &mut self.given[n];
        if given.deletion == Deletion::None {
            given.deletion = Deletion::Asked;
            let mailbox = given.mailbox;
            let change = Change::Delete { mailbox, seq };
            self.store.change(&mut self.ctx, DELETION | n as u64, 0, change);
        }
    }

    pub(super) fn find(&self, n: usize) -> Option<&Entry> {
        let key = format!("k{n}");
        let mut found = self
            .store
            .index
            .list(self.given[n].mailbox)
            .filter(|e| e.label.key == key);
        let entry = found.next();
        assert!(found.next().is_none(), "message {n} is there twice");
        entry
    }

    pub(super) fn mount(&mut self) {
        self.settle();
        self.epoch += 1;
        // By this a member knows that it lacks logs, and does not serve by itself.
        let lost = self
            .store
            .source_state
            .generated
            .saturating_sub(self.store.last().generation);
        if lost > 0 {
            self.told.push(format!("{lost} logs are lost"));
        }
        if self.store.damage.is_none() && !self.store.quarantined {
            let outcomes = self.store.mount(&mut self.ctx, self.epoch);
            outcomes.into_iter().for_each(|o| self.hear(o));
        }
        self.settle();
        // What a crash left undecided is decided now, for good.
        for n in 0..self.given.len() {
            let there = self.find(n).is_some();
            let given = &mut self.given[n];
            given.acked |= there && self.store.mounted();
            if given.deletion == Deletion::Asked && self.store.mounted() {
                given.deletion = if there { Deletion::None } else { Deletion::Acked };
            }
        }
    }

    pub(super) fn crash(&mut self, power: Option<u64>) {
        self.submit();
        match power {
            None => self.disk.process_died(),
            Some(seed) => _ = self.disk.power_lost(&mut Rng::new(seed)),
        }
        (self.store, self.ctx) = (Store::new(0, "Group0", SIZE, LONGEST as u64), ctx());
        self.store.recover(&mut self.ctx);
    }

    /// Damages a file that a group cannot do without, of those whose loss can be seen from what is left.
    fn damage(&mut self, how: How, seed: u64) {
        self.settle();
        let rng = &mut Rng::new(seed);
        let newest = self.disk.names().filter(|n| Kind::of(n) == Kind::Closed).max().cloned();
        let worth = |name: &&String| match Kind::of(name) {
            // Nothing comes after the last one and tells that it was there.
            Kind::Closed => how != How::Delete || Some(*name) != newest.as_ref(),
            Kind::Segment => true,
            Kind::Checkpoint => how != How::Delete,
            _ => false,
        };
        let names: Vec<String> = self.disk.names().filter(worth).cloned().collect();
        if !names.is_empty() {
            let name = rng.pick(&names).clone();
            self.disk.damage(&name, how, SIZE as usize, rng);
        }
        self.crash(None);
    }

    /// The body of a message as it is on the disk.
    pub(super) fn body(&self, entry: &Entry) -> Option<Vec<u8>> {
        let piece = |p: Piece| {
            let name = match self.store.body_part(p.generation) {
                Some(Part::Segment(g)) => self.store.segment_file(g),
                Some(Part::Log(g)) => self.store.log_file(g),
                None => self.store.file(".log"),
            };
            self.disk.file(&name)?.get(p.at as usize..(p.at + p.len) as usize)
        };
        Some(entry.pieces().map(piece).collect::<Option<Vec<_>>>()?.concat())
    }

    pub(super) fn check(&self, hurt: bool) {
        let known: usize = (0..self.given.len()).filter(|n| self.find(*n).is_some()).count();
        let listed: usize = MAILBOXES.iter().map(|m| self.store.index.list(m).count()).sum();
        assert_eq!(listed, known, "nothing is there that was not given");
        for (n, given) in self.given.iter().enumerate() {
            let entry = self.find(n);
            let lost = given.acked && given.deletion == Deletion::None && entry.is_none();
            let undeleted = given.deletion == Deletion::Acked && entry.is_some();
            assert!(
                !(lost || undeleted) || hurt,
                "message {n}: lost {lost}, undeleted {undeleted}"
            );
            assert!(
                !(lost || undeleted) || !self.told.is_empty(),
                "message {n}, and nothing was told"
            );
            let Some(entry) = entry else { continue };
            assert_eq!(entry.crc, crc32c::crc32c(&given.body), "message {n} is another one");
            // Operations that wait rename and move what is read behind them.
            if self.store.quiet() && !hurt {
                assert!(
                    self.body(entry).as_ref() == Some(&*given.body),
                    "the body of message {n}"
                );
            }
        }
    }
}

impl StateMachineTest for Group {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self::new()
    }

    fn apply(mut group: Self, _: &Model, step: Step) -> Self {
        let last = group.store.last().generation;
        match step {
            Step::Store(to, len) => {
                group.give(MAILBOXES[to], len);
            }
            Step::Again(which) if !group.given.is_empty() => group.store_message(which.index(group.given.len())),
            Step::Delete(which) if !group.given.is_empty() => group.delete(which.index(group.given.len())),
            Step::Again(_) | Step::Delete(_) => {}
            Step::Disk(n) => (0..n).for_each(|_| _ = group.disk()),
            Step::Roll => group.store.roll(&mut group.ctx),
            Step::Replay => group.store.replay_towards(&mut group.ctx, last),
            Step::Compact => group.store.compact(&mut group.ctx),
            Step::Truncate => group.store.truncate(&mut group.ctx, u64::MAX, true),
            Step::Dismount => group.store.dismount(),
            Step::Mount => group.mount(),
            Step::Crash(power) => group.crash(power),
            Step::Damage(how, seed) => group.damage(how, seed),
        }
        group.submit();
        group
    }

    fn check_invariants(group: &Self, model: &Model) {
        if group.store.mounted() {
            group.check(model.hurt);
        } else if model.mounted {
            assert!(model.hurt && group.is_told(), "it is not mounted, and nothing says why");
        }
    }

    /// The database alone, read by another life, says what the index said.
    fn teardown(mut group: Self, model: Model) {
        if model.hurt || !group.store.mounted() {
            return;
        }
        group.store.roll(&mut group.ctx);
        group.settle();
        while group.store.checkpoint != group.store.last()
            || group.store.checkpoint == GENESIS && !group.given.is_empty()
        {
            let last = group.store.last().generation;
            group.store.replay_towards(&mut group.ctx, last);
            if !group.disk() && group.store.last() == group.store.checkpoint {
                break;
            }
            group.settle();
        }
        group.store.truncate(&mut group.ctx, u64::MAX, true);
        group.settle();
        let digest = group.store.index.digest();
        group.crash(None);
        group.mount();
        assert_eq!(group.store.index.digest(), digest);
        group.check(false);
    }
}

impl Group {
    /// Whether somebody who asks the group hears that something is wrong.
    pub(super) fn is_told(&self) -> bool {
        let store = &self.store;
        let unsound = store.damage.is_some() || store.open_damage.is_some() || store.bad.is_some();
        unsound || store.quarantined || !self.told.is_empty()
    }
}

prop_state_machine! {
    #[test]
    fn a_group_holds_what_a_map_of_messages_holds(sequential 1..80 => Group);
}
