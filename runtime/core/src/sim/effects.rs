//! What the shell does in a real machine: maps effects to completions, and decides nothing.

use super::share::{Answer, KEPT_US};
use super::streams::{Answered, Stream};
use super::world::{CLIENTS, PUBLIC, SimEvent, Waiter, World};
use crate::io::{
    AddressKind, ClientRequest, ConnId, Effect, Input, LmtpReply, OpId, Reply, ReqId, WitnessAction, WitnessResult,
};

/// The machine with the share.
pub const SHARE_HOST: usize = 2;

impl World {
    pub(super) fn perform(&mut self, i: usize, effect: Effect) {
        let life = self.machines[i].life;
        match effect {
            Effect::SendDatagram { to, bytes, .. } => self.datagram(i, to, bytes),
            Effect::Connect { conn, to, timeout_us } => self.connect(i, conn, to, timeout_us),
            Effect::SendFrame { conn, bytes } => {
                if let Some(s) = self.open_stream((i, life, conn)) {
                    let forth = self.streams[s].ends[0] == (i, life, conn);
                    self.send_frame(s, forth, bytes);
                }
            }
            Effect::Disconnect { conn } => {
                if let Some(s) = self.open_stream((i, life, conn)) {
                    self.close_stream(s, "closed");
                }
            }
            Effect::UseWitness { share, .. } => {
                self.checks.counters.witness_changes += 1;
                self.truths.other_share(self.now, i);
                self.share.change(i, &share);
            }
            Effect::Witness { op, action, timeout_us } => self.witness(i, op, action, timeout_us),
            Effect::Disk { op, action } => {
                if self.machines[i].disk.push(op, action) {
                    self.disk_next(i);
                }
            }
            Effect::Address { op, which, up } => {
                let machine = &mut self.machines[i];
                match which {
                    AddressKind::Service => machine.has_address = up,
                    AddressKind::Cluster => machine.has_cluster_address = up,
                }
                if up && which == AddressKind::Service {
                    self.workload.service_at = i;
                }
                let us = self.rng.range(1_000, 20_000);
                self.at(us, SimEvent::Input(i, life, Input::AddressDone { op, result: Ok(()) }));
            }
            Effect::Lmtp {
                op,
                envid,
                recipient,
                message,
                timeout_us,
                ..
            } => {
                let request = ClientRequest::Deliver {
                    envid: Some(envid),
                    recipients: vec![recipient],
                    message: message.to_vec(),
                };
                self.lmtp(i, op, request, timeout_us);
            }
            Effect::Reply { req, reply } => self.replied(i, req, reply),
            Effect::CloseClients => self.drop_client_waiters(i),
            Effect::Event(event) => {
                if let Some(outside) = &mut self.outside {
                    outside.told.push((self.now, i, event.clone()));
                }
                self.event(i, &event);
            }
            Effect::Halt { why } => {
                self.note(|| format!("machine {i} halts: {why}"));
                self.checks.counters.halts += 1;
                self.stop_daemon(i, false);
                let life = self.machines[i].life;
                self.at(2_000_000, SimEvent::Restart(i, life));
            }
            Effect::Ended => {
                self.note(|| format!("machine {i}: the daemon has ended"));
                self.stop_daemon(i, false);
                if let Some(us) = self.back_after_us {
                    let life = self.machines[i].life;
                    self.at(us, SimEvent::Restart(i, life));
                }
            }
        }
    }

    fn open_stream(&self, end: (usize, u64, ConnId)) -> Option<usize> {
        self.streams.iter().rposition(|s| s.open && s.ends.contains(&end))
    }

    fn datagram(&mut self, i: usize, to: std::net::Ipv4Addr, bytes: Vec<u8>) {
        let Some((network, j)) = self.machine_at(to) else {
            return;
        };
        let copies = 1 + u64::from(self.rng.chance(1));
        for _ in 0..copies {
            let lost = self.rng.range(0, 100) < self.loss;
            if lost || !self.passes(network, i, j) || !self.machines[j].powered {
                continue;
            }
            let us = self.packet_us();
            let input = Input::Datagram {
                network: if network == PUBLIC {
                    "public".into()
                } else {
                    "private".into()
                },
                from: self.address(network, i),
                bytes: bytes.clone(),
            };
            let life = self.machines[j].life;
            self.hold(i, j, &input);
            self.at(us, SimEvent::Input(j, life, input));
        }
    }

    fn connect(&mut self, i: usize, conn: ConnId, to: std::net::Ipv4Addr, timeout_us: u64) {
        let life = self.machines[i].life;
        let place = self.machine_at(to);
        let reachable = place.is_some_and(|(n, j)| self.passes(n, i, j) && self.passes(n, j, i) && self.kernel_runs(j));
        let listens = place.is_some_and(|(_, j)| self.machines[j].node.is_some());
        let us = self.packet_us() * 2;
        let (Some((network, j)), true, true) = (place, reachable, listens) else {
            let (us, error) = if reachable {
                (us, "connection refused")
            } else {
                (timeout_us, "timed out")
            };
            let error = error.to_owned();
            return self.at(us, SimEvent::Input(i, life, Input::Closed { conn, error }));
        };
        let theirs = ConnId::Accepted(self.streams.len() as u64);
        let other = self.machines[j].life;
        self.streams
            .push(Stream::new([(i, life, conn), (j, other, theirs)], network));
        let from = self.address(network, i);
        self.at(
            us / 2,
            SimEvent::Input(j, other, Input::Accepted { conn: theirs, from }),
        );
        self.at(us, SimEvent::Input(i, life, Input::Connected { conn }));
    }

    /// Whether a member's packets get to the share's server.
    pub(super) fn reaches_share(&self, i: usize) -> bool {
        self.passes(PUBLIC, i, SHARE_HOST) && !self.share_cuts.contains(&i)
    }

    /// Whether its packets get to a member.
    pub(super) fn share_reaches(&self, i: usize) -> bool {
        self.passes(PUBLIC, SHARE_HOST, i) && !self.share_cuts.contains(&i)
    }

    fn witness(&mut self, i: usize, op: OpId, action: WitnessAction, timeout_us: u64) {
        let life = self.machines[i].life;
        let session = self.session(i, false);
        let there = self.reaches_share(i);
        let action_is_probe = action == WitnessAction::Probe;
        if there {
            let us = self.packet_us() * 2;
            self.at(us, SimEvent::Witness(i, life, session, op, action));
        }
        self.witness_open.insert((i, life, op), action_is_probe);
        self.at(
            timeout_us,
            SimEvent::WitnessDone(i, life, op, WitnessResult::Failed("deadline".into())),
        );
    }

    /// An answer or the deadline, whichever is first. After a failure the shell drops the whole connection.
    pub(super) fn witness_done(&mut self, i: usize, life: u64, op: OpId, result: WitnessResult) {
        let Some(probe) = self.witness_open.remove(&(i, life, op)) else {
            return;
        };
        if matches!(result, WitnessResult::Failed(_)) && !probe && self.machines[i].life == life {
            self.session(i, true);
            if self.reaches_share(i) && self.kernel_runs(i) {
                self.share.hung_up(i);
            }
        }
        self.at(0, SimEvent::Input(i, life, Input::WitnessDone { op, result }));
    }

    pub(super) fn witness_arrives(&mut self, i: usize, life: u64, session: u64, op: OpId, action: &WitnessAction) {
        if !self.kernel_runs(SHARE_HOST) || self.share.down {
            return;
        }
        let answer = self.share.request(self.now, i, session, action);
        let result = match answer {
            Answer::Opened(content) => {
                self.truths.opened(i);
                WitnessResult::Opened(content)
            }
            Answer::Held => WitnessResult::Held,
            Answer::Done => WitnessResult::Done,
            Answer::Bad => WitnessResult::Failed("STATUS_FILE_CLOSED".into()),
            Answer::Full => WitnessResult::Failed("STATUS_DISK_FULL".into()),
        };
        if self.share_reaches(i) {
            let opens = matches!(action, WitnessAction::Open | WitnessAction::Probe);
            let us = self.packet_us() + if opens { self.share.slow_us } else { 0 };
            self.at(us, SimEvent::WitnessDone(i, life, op, result));
        }
    }

    /// Keepalive: the server finds out which holders it cannot reach.
    pub(super) fn share_contact(&mut self) {
        let holders: Vec<(usize, u64)> = self.share.holders().collect();
        for (holder, session) in holders {
            self.contact_holder(holder, session);
        }
    }

    fn contact_holder(&mut self, holder: usize, session: u64) {
        let reachable = self.share_reaches(holder)
            && self.reaches_share(holder)
            && self.kernel_runs(holder)
            && self.kernel_runs(SHARE_HOST);
        let kept = self.rng.range(KEPT_US.0, KEPT_US.1);
        let now = self.now;
        self.share.contact(now, holder, reachable, kept);
        if reachable && session != self.session(holder, false) {
            // A kernel that knows nothing of the connection resets it: the machine was switched on again, or the client hung up
            // while nothing got through.
            self.share.hung_up(holder);
        }
    }

    /// A hub delivers to the service address.
    fn lmtp(&mut self, hub: usize, op: OpId, request: ClientRequest, timeout_us: u64) {
        let life = self.machines[hub].life;
        let late = |result| Input::LmtpDone { op, result };
        let Some(target) = self.service_place() else {
            let us = self.packet_us() * 2;
            return self.at(us, SimEvent::Input(hub, life, late(Err("connection refused".into()))));
        };
        self.at(timeout_us, SimEvent::Input(hub, life, late(Err("deadline".into()))));
        let through = self.passes(PUBLIC, hub, target) && self.machines[target].node.is_some();
        if through && self.machines[target].powered {
            let req = self.next_req();
            self.waiters.insert((target, req), Waiter::Lmtp { hub, life, op });
            let us = self.packet_us() * 4;
            let there = self.machines[target].life;
            self.at(us, SimEvent::Input(target, there, Input::Client { req, request }));
        }
    }

    /// Which machine a packet to the service address reaches: the last that announced it, now and then one that still
    /// has it.
    pub(super) fn service_place(&mut self) -> Option<usize> {
        let with: Vec<usize> = (0..2).filter(|i| self.machines[*i].has_address).collect();
        if with.contains(&self.workload.service_at) && (with.len() == 1 || self.rng.chance(60)) {
            return Some(self.workload.service_at);
        }
        (!with.is_empty()).then(|| *self.rng.pick(&with))
    }

    fn replied(&mut self, i: usize, req: ReqId, reply: Reply) {
        let Some(waiter) = self.waiters.remove(&(i, req)) else {
            return;
        };
        if i < 2 && self.is_client(waiter) {
            self.checks.answered(self.now, i, &reply);
        }
        match waiter {
            Waiter::Operator(step) => self.operator_replied(i, req, step, reply),
            Waiter::Outside(question) => self.answer_outside(question, Some(reply)),
            Waiter::Client(op) => {
                if self.passes(PUBLIC, i, CLIENTS) {
                    self.client_replied(op, i, reply);
                }
            }
            Waiter::Lmtp { hub, life, op } => {
                let result = match reply {
                    Reply::Delivered(mut replies) if replies.len() == 1 => Ok(replies.remove(0)),
                    Reply::Refused { why, .. } => Ok(LmtpReply { code: 451, text: why }),
                    other => Err(format!("{other:?}")),
                };
                if let Some((step, _)) = self.cut_at_answer.take_if(|(_, who)| *who == i) {
                    self.cut_off(step, i);
                }
                let answer = Answered {
                    hub,
                    life,
                    from: i,
                    on_since: self.machines[i].on_since,
                    since: self.now,
                    input: Input::LmtpDone { op, result },
                };
                self.at(0, SimEvent::Answer(answer));
            }
        }
    }

    /// Conversations with this node's store are over; replies that have not left never will.
    pub(super) fn drop_client_waiters(&mut self, i: usize) {
        let gone: Vec<_> = self
            .waiters
            .iter()
            .filter(|((n, _), w)| *n == i && self.is_client(**w))
            .map(|(k, w)| (*k, *w))
            .collect();
        for (key, waiter) in gone {
            self.waiters.remove(&key);
            self.conversation_ended(waiter);
        }
    }
    /// The node died.
    pub(super) fn drop_waiters(&mut self, i: usize) {
        self.drop_client_waiters(i);
        let gone: Vec<Waiter> = self
            .waiters
            .iter()
            .filter(|((n, _), _)| *n == i)
            .map(|(_, w)| *w)
            .collect();
        for waiter in gone {
            self.conversation_ended(waiter);
        }
        self.waiters.retain(|(n, _), _| *n != i);
    }

    fn conversation_ended(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Client(op) => self.client_lost(op),
            Waiter::Lmtp { hub, life, op } => {
                let us = self.packet_us();
                let result = Err("connection reset".to_owned());
                self.at(us, SimEvent::Input(hub, life, Input::LmtpDone { op, result }));
            }
            Waiter::Operator(_) => {}
            Waiter::Outside(question) => self.answer_outside(question, None),
        }
    }
}
