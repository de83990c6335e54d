//! What every layer needs while an input is handled: the time, a place for effects, numbers, random bits, timers.

use crate::io::{AddressKind, Boot, DiskAction, Effect, Now, OpId, Reply, ReqId, WitnessAction};
use crate::planted::{self, Bug};
use crate::rng::Rng;
use ccr_contract::event::{EventKind, NodeEvent, Severity};
use std::collections::BTreeMap;

/// Handed down through the layers. `P` says what a completion is for.
#[derive(Debug)]
pub struct Ctx<P> {
    /// The time of the input at hand.
    pub now: Now,
    effects: Vec<Effect>,
    pending: BTreeMap<OpId, P>,
    next_op: u64,
    next_event: u64,
    random: Rng,
    wake: Option<u64>,
    planted: Option<Bug>,
    /// How long nothing was handed in, by the clock that saw more of it.
    rest_us: u64,
}

impl<P> Ctx<P> {
    /// A context without effects.
    pub fn new(boot: &Boot) -> Self {
        Self {
            now: Now::default(),
            effects: Vec::new(),
            pending: BTreeMap::new(),
            next_op: 1,
            next_event: 0,
            random: Rng::from_state(boot.entropy),
            wake: None,
            planted: boot.planted,
            rest_us: 0,
        }
    }

    /// Begins the handling of an input: timers are asked for anew by whoever still waits.
    pub fn begin(&mut self, now: Now) {
        let boot = now.boot_us.saturating_sub(self.now.boot_us);
        self.rest_us = boot.max(now.rtc_us.saturating_sub(self.now.rtc_us));
        self.now = now;
        self.wake = None;
    }
    /// Whether a planted bug is to be played. Never, in a build without any.
    pub fn plays(&self, bug: Bug) -> bool {
        planted::AVAILABLE && self.planted == Some(bug)
    }
    /// How long this node had stood still before this input, in microseconds.
    pub fn rested_us(&self) -> u64 {
        self.rest_us
    }
    /// Ends it.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
    /// What the completed operation was for; none when it was cancelled or never asked for.
    pub fn completed(&mut self, op: OpId) -> Option<P> {
        self.pending.remove(&op)
    }
    /// Asks for a tick at `boot_us` at the latest.
    pub fn wake_at(&mut self, boot_us: u64) {
        self.wake = Some(self.wake.map_or(boot_us, |w| w.min(boot_us)));
    }
    /// The earliest instant asked for.
    pub fn wake(&self) -> Option<u64> {
        self.wake
    }
    /// Whether `boot_us` has come; asks for a tick then where it has not.
    pub fn due(&mut self, boot_us: u64) -> bool {
        if self.now.boot_us >= boot_us {
            return true;
        }
        self.wake_at(boot_us);
        false
    }
    /// `ms` milliseconds from now on the boot-time clock.
    pub fn after_ms(&self, ms: u64) -> u64 {
        self.now.boot_us + ms * 1000
    }

    /// Random bits.
    pub fn random(&mut self) -> u64 {
        self.random.bits()
    }

    /// Adds an effect.
    pub fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
    fn op(&mut self, what: P) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.pending.insert(op, what);
        op
    }
    /// Asks for a disk operation.
    pub fn disk(&mut self, what: P, action: DiskAction) {
        let op = self.op(what);
        self.effects.push(Effect::Disk { op, action });
    }
    /// Asks for a witness operation.
    pub fn witness(&mut self, what: P, action: WitnessAction, timeout_us: u64) {
        let op = self.op(what);
        self.effects.push(Effect::Witness { op, action, timeout_us });
    }
    /// Asks for an address.
    pub fn address(&mut self, what: P, which: AddressKind, up: bool) {
        let op = self.op(what);
        self.effects.push(Effect::Address { op, which, up });
    }
    /// A number for an effect that is built by the caller.
    pub fn number(&mut self, what: P) -> OpId {
        self.op(what)
    }
    /// Answers a request.
    pub fn reply(&mut self, req: ReqId, reply: Reply) {
        self.effects.push(Effect::Reply { req, reply });
    }

    /// Tells the world.
    pub fn event(&mut self, what: EventKind) {
        self.event_at(what.severity(), what);
    }
    /// Tells the world of something that matters more, or less, than its kind usually does.
    pub fn event_at(&mut self, severity: Severity, what: EventKind) {
        let mut event = NodeEvent::new(self.next_event, self.now.boot_us, &what);
        event.severity = severity;
        if self.plays(Bug::TellNoEpoch) && matches!(what, EventKind::Path { .. }) {
            event.data.remove("epoch");
        }
        self.next_event += 1;
        self.effects.push(Effect::Event(event));
    }
}
