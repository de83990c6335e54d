//! Heartbeats: who is heard, on which network, in which direction; and the grants that renew a lease.

use super::Cluster;
use super::lease::{MAX_UNSEEN_PAUSE_US, Source};
use super::membership::Membership;
use crate::ctx::Ctx;
use crate::io::{Effect, Now};
use crate::op::Pending;
use crate::planted::Bug;
use crate::wire::{self, Echo, Heartbeat, Phase};
use ccr_contract::config::Config;
use ccr_contract::event::EventKind;
use ccr_contract::status::NetworkRole;
use std::net::Ipv4Addr;

/// At most one unscheduled round of heartbeats in this time, in microseconds.
const BETWEEN_ROUNDS_US: u64 = 20_000;
/// Heartbeats whose sending time is remembered.
const SENT_KEPT: usize = 64;

/// One network between the two members.
#[derive(Debug)]
pub(super) struct PeerInterface {
    pub name: String,
    pub role: NetworkRole,
    pub peer: Option<Ipv4Addr>,
    /// Boot time of the last heartbeat that arrived on it.
    pub received_at: Option<u64>,
    /// Since when it has been silent, where it has.
    pub silent_since: Option<u64>,
    /// When the witness was first known to have answered the other member in this silence.
    pub answered_there: Option<u64>,
    /// Whether the other member hears us on it, as it says.
    pub heard_by_peer: Option<bool>,
    /// What was last told of the two directions.
    last_reported: (bool, bool),
}

impl PeerInterface {
    /// Internal traffic never uses a client-only network, not even as the last path.
    pub fn internal(&self) -> bool {
        self.role != NetworkRole::Client && self.peer.is_some()
    }
}

/// The other member.
#[derive(Debug)]
pub(super) struct Peer {
    pub name: String,
    pub interfaces: Vec<PeerInterface>,
    /// The newest heartbeat, by incarnation and number.
    pub view: Option<Heartbeat>,
    /// When that heartbeat came.
    pub view_at: u64,
    /// When it was last known that both hear each other.
    pub mutual_at: Option<u64>,
    /// Its newest heartbeat for which a grant was given, and when it came.
    granted: Option<(u64, u64)>,
    /// Our number when its present life was heard first: whoever has heard a later one from us lived after that.
    since_seq: u64,
    /// A heartbeat of another life of it, that may be an earlier one: incarnation and number. It is answered, and whoever can
    /// answer to that is alive.
    unproven: Option<(u64, u64)>,
}

impl Peer {
    pub fn new(config: &Config) -> Self {
        let none = Default::default();
        let other = config.members.iter().find(|m| m.name != config.node);
        let addresses = other.map_or(&none, |m| &m.addresses);
        let ours = config
            .members
            .iter()
            .find(|m| m.name == config.node)
            .map_or(&none, |m| &m.addresses);
        let interfaces = config.networks.iter().map(|n| PeerInterface {
            name: n.name.clone(),
            role: n.role,
            peer: ours.get(&n.name).and_then(|_| addresses.get(&n.name)).copied(),
            received_at: None,
            silent_since: None,
            answered_there: None,
            heard_by_peer: None,
            last_reported: (false, false),
        });
        Self {
            name: other.map(|m| m.name.clone()).unwrap_or_default(),
            interfaces: interfaces.collect(),
            view: None,
            view_at: 0,
            mutual_at: None,
            granted: None,
            since_seq: 0,
            unproven: None,
        }
    }
}

impl Cluster {
    /// A datagram came in.
    pub fn on_datagram(&mut self, ctx: &mut Ctx<Pending>, network: &str, from: Ipv4Addr, bytes: &[u8]) {
        let Ok(hb) = wire::decode_heartbeat(bytes) else { return };
        let now = ctx.now.boot_us;
        let ours = hb.cluster == self.name && hb.from == self.peer.name && hb.hears.len() == self.peer.interfaces.len();
        let Some(at) = self
            .peer
            .interfaces
            .iter()
            .position(|p| p.name == network && p.internal() && p.peer == Some(from))
        else {
            return;
        };
        if !ours || self.membership == Membership::Unread {
            return;
        }
        let old = self.peer.view.as_ref().map(|v| (v.incarnation, v.seq));
        let same = old.is_some_and(|(i, _)| i == hb.incarnation);
        if same && old.is_some_and(|(_, s)| hb.seq < s) {
            return;
        }
        if !same && old.is_some() && !self.lived_later(&hb) && !ctx.plays(Bug::BelieveEarlierLife) {
            self.peer.unproven = Some((hb.incarnation, hb.seq));
            self.beat_now = true;
            return;
        }
        self.peer.interfaces[at].received_at = Some(now);
        self.peer.interfaces[at].silent_since = None;
        self.peer.interfaces[at].answered_there = None;
        if same && old.is_some_and(|(_, s)| hb.seq == s) {
            return;
        }
        if !same {
            self.membership.peer_restarted();
            self.peer.granted = None;
            self.peer.since_seq = self.seq;
        }
        for (interface, hears) in self.peer.interfaces.iter_mut().zip(&hb.hears) {
            interface.heard_by_peer = Some(*hears);
        }
        self.take_echo(&hb, now);
        self.consider_grant(&hb, now);
        if ctx.plays(Bug::IgnorePromise) {
            self.granted_until = 0;
        }
        // Whoever lags behind is answered at once, so that agreement takes a round trip and not an interval.
        if hb.id != self.saved.record.id || (hb.phase != Phase::Up) || hb.member != Some(self.incarnation) {
            self.beat_now = true;
        }
        self.peer.view_at = now;
        self.peer.view = Some(hb);
    }

    /// Whether the sender of a heartbeat lived after the life of the other member that is known here: it has heard what this node
    /// sent after it had heard that one. Incarnations are random, and a datagram may be held for any time: nothing else tells a
    /// restart from what an earlier life sent.
    fn lived_later(&self, hb: &Heartbeat) -> bool {
        hb.echo
            .is_some_and(|e| e.incarnation == self.incarnation && e.seq > self.peer.since_seq && e.seq <= self.seq)
    }

    /// An answer to one of our heartbeats shows that both directions work, and may renew the lease.
    fn take_echo(&mut self, hb: &Heartbeat, now: u64) {
        let Some(echo) = hb.echo.filter(|e| e.incarnation == self.incarnation) else {
            return;
        };
        let hears = hb.hears.iter().any(|h| *h);
        let Some(&(_, sent)) = self.sent.iter().find(|(seq, _)| *seq == echo.seq) else {
            return;
        };
        if hears && now.saturating_sub(sent.boot_us) <= self.beat_us() * 2 {
            self.peer.mutual_at = Some(now);
        }
        if echo.grant && echo.seq > self.void_through && self.saved.record.id.epoch >= hb.id.epoch {
            self.lease.renew(Source::Member, sent);
        }
    }

    /// Grants a lease, unless this node is about to take over, or knows of a newer cluster. The promise runs from the
    /// arrival of the heartbeat, which is later than its sending, where the lease begins.
    fn consider_grant(&mut self, hb: &Heartbeat, now: u64) {
        if !hb.lease {
            // It says that it neither serves nor is about to, and it said so after it had heard this incarnation:
            // nothing that was granted before matters now.
            if self.peer.granted.is_some() || hb.echo.is_some_and(|e| e.incarnation == self.incarnation) {
                self.granted_until = now;
                self.peer.granted = None;
            }
            return;
        }
        let newer_here =
            !hb.last_committed.covers_agreed(&self.saved.last_committed) && hb.id != self.saved.last_committed;
        if self.witness.engaged() || self.report.wants_lease || newer_here {
            return;
        }
        self.peer.granted = Some((hb.seq, now));
        // Its clients wait for this echo.
        self.beat_now |= hb.fenced;
        self.granted_until = self
            .granted_until
            .max(now + self.member_lease_us() + MAX_UNSEEN_PAUSE_US);
    }

    /// Missed heartbeats after which a node counts as lost, as a time in microseconds.
    pub(super) fn node_tolerance_us(&self) -> u64 {
        self.beat_us() * u64::from(self.settings.node_tolerance)
    }
    /// Missed heartbeats after which a path counts as down, as a time in microseconds.
    fn interface_tolerance_us(&self) -> u64 {
        self.beat_us() * u64::from(self.settings.interface_tolerance)
    }
    /// Whether the other member counts as lost.
    pub(super) fn peer_lost(&self, ctx: &mut Ctx<Pending>) -> bool {
        self.peer_lost_at(ctx).is_none_or(|at| ctx.due(at))
    }
    /// When the other member counts as lost if it is not heard again; none where it never was.
    pub(super) fn peer_lost_at(&self, ctx: &Ctx<Pending>) -> Option<u64> {
        let late = if ctx.plays(Bug::NoticeLate) { 3 } else { 1 };
        self.peer.mutual_at.map(|at| at + late * self.node_tolerance_us())
    }
    /// Whether the other member has been silent for so long that the owner takes precautions.
    pub(super) fn peer_suspect(&self, ctx: &mut Ctx<Pending>) -> bool {
        let tolerance = self.interface_tolerance_us();
        self.peer.mutual_at.is_none_or(|at| ctx.due(at + tolerance))
    }
    /// Whether the other member has the same record and looks for a cluster or is in ours.
    pub(super) fn peer_agrees(&self) -> bool {
        self.saving.is_none()
            && self
                .peer
                .view
                .as_ref()
                .is_some_and(|v| v.id == self.saved.record.id && v.phase != Phase::Evicted)
    }

    /// Whether the network of the service has failed on this node alone: the other member, heard on another network, is not
    /// heard on it, and the witness there answers that one and not this one. Where it answers neither, the network itself is
    /// down, and nothing is gained by a move. What it answered before the silence was noticed says nothing. A network that comes
    /// back is back for one of them first: so the silence must have gone on, for as long as one takes to be noticed.
    pub(super) fn service_network_failed(&self, now: Now) -> bool {
        let interface = self.peer.interfaces.iter().find(|p| p.name == self.service_network);
        let both = interface.and_then(|p| p.silent_since.zip(p.answered_there));
        both.is_some_and(|(silent, answered)| {
            let goes_on = now.boot_us >= answered + self.interface_tolerance_us();
            goes_on && self.witness.failed_since(silent) && self.answered_there(silent).is_some()
        })
    }
    /// When the witness answered the other member last, by this node's clock; none where that is old, or from before a silence.
    fn answered_there(&self, silent: u64) -> Option<u64> {
        let view = self.peer.view.as_ref().filter(|_| self.membership.has_peer())?;
        let (age_ms, _) = view.probe.filter(|(_, ok)| *ok)?;
        let answered = self.peer.view_at.saturating_sub(age_ms * 1000);
        (answered > silent && age_ms < 2 * self.settings.witness_check_ms).then_some(answered)
    }
    /// Notes when a silence began to be one of this node alone.
    fn watch_answers(&mut self, ctx: &mut Ctx<Pending>) {
        for i in 0..self.peer.interfaces.len() {
            let interface = &self.peer.interfaces[i];
            let silent = interface.silent_since.filter(|_| interface.answered_there.is_none());
            if let Some(answered) = silent.and_then(|silent| self.answered_there(silent)) {
                self.peer.interfaces[i].answered_there = Some(answered);
                ctx.wake_at(answered + self.interface_tolerance_us());
            }
        }
    }

    /// Tells of paths that came and went, each direction by itself.
    pub(super) fn watch_paths(&mut self, ctx: &mut Ctx<Pending>) {
        self.watch_answers(ctx);
        let (tolerance, epoch) = (self.interface_tolerance_us(), self.epoch());
        let peer_silent = ctx.now.boot_us.saturating_sub(self.peer.view_at) > tolerance;
        for i in 0..self.peer.interfaces.len() {
            let interface = &mut self.peer.interfaces[i];
            if !interface.internal() {
                continue;
            }
            let in_ = interface.received_at.is_some_and(|at| !ctx.due(at + tolerance));
            if interface.received_at.is_some() && !in_ {
                interface.received_at = None;
                interface.silent_since = Some(ctx.now.boot_us);
                self.witness.probe_now(ctx.now);
            }
            let out = if peer_silent {
                interface.last_reported.1
            } else {
                interface.heard_by_peer == Some(true)
            };
            let was = std::mem::replace(&mut interface.last_reported, (in_, out));
            if was == (in_, out) {
                continue;
            }
            let network = interface.name.clone();
            let (me, peer) = (self.me.clone(), self.peer.name.clone());
            for (was, is, from, to) in [(was.0, in_, &peer, &me), (was.1, out, &me, &peer)] {
                if was != is {
                    ctx.event(EventKind::Path {
                        network: network.clone(),
                        from: from.clone(),
                        to: to.clone(),
                        up: is,
                        epoch,
                    });
                }
            }
        }
    }

    /// Asks for the lease at once where it was lost, and not at the next interval: behind a pause clients may be waiting.
    pub(super) fn watch_lease(&mut self, now: Now) {
        let leased = self.lease_valid(now);
        let was = std::mem::replace(&mut self.leased, leased);
        self.beat_now |= was && !leased && self.report.wants_lease;
    }

    /// A round of heartbeats goes out as soon as may be; its number.
    pub fn beat_soon(&mut self) -> u64 {
        self.beat_now = true;
        self.seq + 1
    }
    /// Whether what is known of the other member was said after it had heard this number of ours, or it is no member any more.
    pub fn is_answered(&self, seq: u64) -> bool {
        let echo = self.peer.view.as_ref().and_then(|v| v.echo);
        !self.membership.has_peer() || echo.is_some_and(|e| e.incarnation == self.incarnation && e.seq >= seq)
    }

    /// Sends a round of heartbeats where one is due, or where something changed.
    pub(super) fn send_heartbeats(&mut self, ctx: &mut Ctx<Pending>) {
        let now = ctx.now.boot_us;
        let hurried = self.beat_now && (self.last_beat == 0 || ctx.due(self.last_beat + BETWEEN_ROUNDS_US));
        if !hurried && !ctx.due(self.next_beat) {
            return;
        }
        self.beat_now = false;
        self.last_beat = now;
        self.next_beat = now + self.beat_us();
        ctx.wake_at(self.next_beat);
        self.seq += 1;
        self.sent.push_back((self.seq, ctx.now));
        if self.sent.len() > SENT_KEPT {
            self.sent.pop_front();
        }
        let bytes = wire::encode_heartbeat(&self.heartbeat(ctx.now));
        if self.peer.unproven.take().is_some() {
            // Its answer took the place of the one that the known life waits for.
            self.beat_now = true;
            ctx.wake_at(now + BETWEEN_ROUNDS_US);
        }
        for interface in self.peer.interfaces.iter().filter(|p| p.internal()) {
            let (network, to) = (
                interface.name.clone(),
                interface.peer.expect("internal interfaces have one"),
            );
            ctx.emit(Effect::SendDatagram {
                network,
                to,
                bytes: bytes.clone(),
            });
        }
    }

    fn heartbeat(&self, now: Now) -> Heartbeat {
        let view = self.peer.view.as_ref();
        let behind = view.is_none_or(|v| v.id != self.saved.record.id);
        let granted = |v: &Heartbeat| self.peer.granted.is_some_and(|(seq, _)| seq == v.seq) && !self.witness.engaged();
        Heartbeat {
            cluster: self.name.clone(),
            from: self.me.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            phase: self.membership.phase(),
            hears: self.peer.interfaces.iter().map(|p| p.received_at.is_some()).collect(),
            echo: match self.peer.unproven {
                Some((incarnation, seq)) => Some(Echo {
                    incarnation,
                    seq,
                    grant: false,
                }),
                None => view.map(|v| Echo {
                    incarnation: v.incarnation,
                    seq: v.seq,
                    grant: granted(v),
                }),
            },
            lease: self.report.wants_lease,
            fenced: self.report.wants_lease && !self.lease_valid(now),
            member: view.filter(|_| self.membership.has_peer()).map(|v| v.incarnation),
            id: self.saved.record.id.clone(),
            committed: self.saved.committed,
            last_committed: self.saved.last_committed.clone(),
            highest_epoch: self.saved.highest_epoch,
            record: behind.then(|| self.saved.record.clone()),
            service: self.report.service,
            service_epoch: self.report.service_epoch,
            handed_over: self.report.handed_over,
            given_up: self.report.given_up,
            redelivered: self.report.redelivered,
            groups: self.report.groups.clone(),
            probe: self.witness.probe_for_peer(now),
        }
    }
}
