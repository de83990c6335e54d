//! Operators: any member may be asked; one that is not in charge passes the command on and the answer back.

use super::Member;
use super::orderly::Stopping;
use crate::cluster::ProposeError;
use crate::command::{Command, GroupName};
use crate::io::{ConnId, Effect, Reply, ReqId};
use crate::record::{Record, RecordId};
use crate::wire::{self, Msg};
use ccr_contract::event::EventKind;
use ccr_contract::status::Intent;
use std::collections::BTreeMap;

/// How long a command that was passed on may take, in microseconds.
const FORWARD_US: u64 = 90_000_000;

/// How long an operator waits for a majority, in microseconds.
const AGREE_US: u64 = 15_000_000;

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// An operator at this node.
    Local(ReqId),
    /// The other member passed it on.
    Remote(ConnId, u64),
    /// Nobody: a policy.
    Nobody,
}

/// Commands that were passed on.
#[derive(Debug, Default)]
pub struct Operators {
    forwarded: BTreeMap<u64, (ReqId, u64)>,
    /// Changes of the record that operators wait for.
    agreeing: Vec<Agreeing>,
    /// Who waits until the service is stopped.
    pub(super) stopping: Vec<Stopping>,
    /// Who forces the quorum here.
    forcing: Option<Asker>,
    next: u64,
}

/// An operator who waits until a majority has agreed to a change.
#[derive(Debug)]
struct Agreeing {
    asker: Asker,
    id: RecordId,
    text: String,
    until: u64,
    /// Whether it is a stop: that is done when the service is offline.
    stop: bool,
}

/// Who carries a command out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    Here,
    Leader,
    Owner,
    Copy,
}

fn charge(command: &Command) -> Charge {
    match command {
        Command::Status | Command::Dump | Command::ForceQuorum => Charge::Here,
        Command::Move { .. } | Command::Mount { .. } | Command::BackupMark { .. } => Charge::Owner,
        Command::Suspend { .. } | Command::Resume { .. } | Command::Reseed { .. } => Charge::Copy,
        Command::MoveGroup { .. }
        | Command::Stop { .. }
        | Command::Start
        | Command::Set { .. }
        | Command::Evict { .. }
        | Command::Join { .. } => Charge::Leader,
    }
}

/// An answer to a passed-on command.
fn answer(id: u64, reply: &Reply) -> Msg {
    let (done, text) = match reply {
        Reply::Done(t) => (true, t.clone()),
        Reply::Denied(t) => (false, t.clone()),
        other => (false, format!("unexpected answer {other:?}")),
    };
    Msg::Answer { id, done, text }
}

impl Member {
    pub(super) fn on_operator(&mut self, asker: Asker, command: Command) {
        let record = self.cluster.record();
        let me = self.config.node.as_str();
        let of_the_cluster = matches!(charge(&command), Charge::Leader | Charge::Owner);
        if of_the_cluster && !self.cluster.is_up() && !matches!(command, Command::BackupMark { .. }) {
            let cause = self.cluster.cause(self.ctx.now);
            let text = format!("{me} is in no cluster with a majority: {cause}");
            return self.answer(asker, Reply::Denied(text));
        }
        let here = match charge(&command) {
            Charge::Here => true,
            Charge::Leader => record.quorum_owner == me,
            Charge::Owner => record.owner == me,
            Charge::Copy => record.owner != me,
        };
        if here {
            return self.perform(asker, command);
        }
        let Asker::Local(req) = asker else {
            return self.answer(asker, Reply::Denied("neither member is in charge of this now".into()));
        };
        if !self.cluster.peer_up() {
            let text = format!("{} is in charge of this, and is not up", self.cluster.peer_name());
            return self.answer(asker, Reply::Denied(text));
        }
        self.operators.next += 1;
        let id = self.operators.next;
        let until = self.ctx.now.boot_us + FORWARD_US;
        self.operators.forwarded.insert(id, (req, until));
        let peer = self.cluster.peer_name().to_owned();
        self.streams.send(&mut self.ctx, &peer, &Msg::Forward { id, command });
    }

    fn perform(&mut self, asker: Asker, command: Command) {
        let reply = match command {
            Command::Move { to, comment } => return self.begin_move(to, comment, asker),
            Command::Stop { comment } => return self.set_intent(asker, Intent::Stopped, &comment),
            Command::Start => return self.set_intent(asker, Intent::Started, ""),
            Command::MoveGroup { group, to } => return self.move_group(asker, group, &to),
            Command::Suspend { group, .. } => self.for_groups(group.as_deref(), |store, _, ctx| {
                store.source_state.suspended = true;
                store.save_source_state(ctx);
            }),
            Command::Resume { group } => self.for_groups(group.as_deref(), |store, _, ctx| {
                store.source_state.suspended = false;
                store.save_source_state(ctx);
            }),
            Command::Reseed { group } => {
                if self.copies.iter().all(|c| !c.follows()) {
                    Reply::Denied("nobody serves a database that could be copied".into())
                } else {
                    self.for_groups(group.as_deref(), |store, copy, ctx| {
                        store.source_state.suspended = false;
                        copy.order_seed(ctx, "an operator ordered it");
                    })
                }
            }
            Command::Mount { group } => {
                let found = group.as_deref().is_none_or(|g| self.stores.iter().any(|s| s.name == g));
                let unmounted = self.stores.iter().zip(&self.copies).filter(|(s, _)| !s.mounted());
                let problem = unmounted.filter_map(|(s, c)| c.mountable(s, true).err()).next();
                if !found {
                    Reply::Denied("no such storage group".into())
                } else if let Some(why) = problem {
                    Reply::Denied(format!("not even with a loss: {why}"))
                } else if self.service.partially() {
                    let lost = self.losses();
                    self.service.force_mount();
                    let epoch = self.reported_epoch();
                    self.ctx.event(EventKind::LossAccepted { epoch });
                    Reply::Done(format!("mounting whatever is lost: {lost}"))
                } else {
                    Reply::Denied("no database is waiting to be mounted".into())
                }
            }
            Command::BackupMark { group } => self.for_groups(group.as_deref(), |store, _, ctx| {
                store.source_state.backed_up = store.last().generation;
                store.save_source_state(ctx);
            }),
            Command::Set { key, value, force } => {
                return match self.cluster.set(&key, &value, force) {
                    Ok((next, text)) => self.agree(asker, next, text),
                    Err(why) => self.answer(asker, Reply::Denied(why)),
                };
            }
            Command::Evict { node } => return self.set_membership(asker, &node, true),
            Command::Join { node } => return self.set_membership(asker, &node, false),
            Command::ForceQuorum => {
                return match self.cluster.force_quorum(&mut self.ctx) {
                    Ok(()) => self.operators.forcing = Some(asker),
                    Err(why) => self.answer(asker, Reply::Denied(why)),
                };
            }
            Command::Status => Reply::Status(Box::new(self.status())),
            Command::Dump => Reply::Dump(Box::new(self.dump())),
        };
        self.answer(asker, reply);
    }

    fn for_groups(
        &mut self,
        group: Option<&str>,
        mut act: impl FnMut(&mut crate::store::Store, &mut super::Copy, &mut super::Ctx<super::Pending>),
    ) -> Reply {
        let mut done = Vec::new();
        for (store, copy) in self.stores.iter_mut().zip(&mut self.copies) {
            if group.is_none_or(|g| g == store.name) {
                act(store, copy, &mut self.ctx);
                done.push(store.name.clone());
            }
        }
        if done.is_empty() {
            Reply::Denied("no such storage group".into())
        } else {
            Reply::Done(done.join(", "))
        }
    }

    fn set_intent(&mut self, asker: Asker, intent: Intent, comment: &str) {
        let record = self.cluster.record();
        if record.intent == intent {
            return self.answer(asker, Reply::Done(format!("the service is {intent:?} already")));
        }
        let epoch_owner = self.cluster.epoch_owner();
        let next = record.next(epoch_owner);
        if intent == Intent::Stopped {
            return self.agree_then(asker, next.stopped(), format!("{intent:?}: {comment}"), true);
        }
        // Where all is that was acknowledged, if that one is there.
        let there = |node: &str| node == self.config.node || self.cluster.peer_up();
        let sole_copy = next.sole_copy.as_ref().filter(|h| next.served.contains(&h.epoch));
        let owner = sole_copy
            .map(|h| &h.node)
            .filter(|n| there(n))
            .unwrap_or(&next.owner)
            .clone();
        let mut next = next.appoint(epoch_owner, &owner, false);
        next.intent = intent;
        self.agree(asker, next, format!("{intent:?}: {comment}"));
    }

    fn set_membership(&mut self, asker: Asker, node: &str, evict: bool) {
        match self.cluster.set_membership(node, evict, &mut self.ctx) {
            Ok(next) if evict => self.agree(asker, next, format!("{node} is evicted; it holds no vote any more")),
            Ok(next) => self.agree(asker, next, format!("{node} may join again")),
            Err(why) => self.answer(asker, Reply::Denied(why)),
        }
    }

    pub(super) fn move_group(&mut self, asker: Asker, group: GroupName, to: &str) {
        let unknown = !self.config.members.iter().any(|m| m.name == to);
        if unknown {
            return self.answer(asker, Reply::Denied(format!("`{}` is not a member", to.escape_debug())));
        }
        if to != self.config.node && !self.cluster.peer_up() {
            return self.answer(asker, Reply::Denied(format!("{to} is not up")));
        }
        let next = match group {
            GroupName::Cluster if self.cluster.is_online_on(to) => {
                return self.answer(asker, Reply::Denied(format!("the Cluster Group is on {to} already")));
            }
            GroupName::Cluster => match self.cluster.bring_online_on(to) {
                Ok(next) => next,
                Err(why) => return self.answer(asker, Reply::Denied(why)),
            },
            GroupName::Service if self.cluster.record().owner == to => {
                return self.answer(asker, Reply::Denied(format!("the service group is on {to} already")));
            }
            GroupName::Service => {
                let epoch_owner = self.cluster.epoch_owner();
                self.cluster.record().next(epoch_owner).appoint(epoch_owner, to, false)
            }
        };
        let mut text = format!("moved to {to} without any check of its health");
        if group == GroupName::Service {
            text = format!("{text}: {}", self.lag_on(to));
        }
        self.agree(asker, next, text);
    }

    /// Changes the record; the operator is answered when a majority has the change, or when it is clear that it has not.
    pub(super) fn agree(&mut self, asker: Asker, next: Record, text: String) {
        self.agree_then(asker, next, text, false);
    }

    /// The same; whoever stops the service is answered when it is offline.
    fn agree_then(&mut self, asker: Asker, next: Record, text: String, stop: bool) {
        let id = next.id.clone();
        match self.cluster.propose(&mut self.ctx, next) {
            Ok(()) => {
                let until = self.ctx.now.boot_us + AGREE_US;
                self.operators.agreeing.push(Agreeing {
                    asker,
                    id,
                    text,
                    until,
                    stop,
                });
            }
            Err(ProposeError::Busy) => {
                self.answer(asker, Reply::Denied("another change is under way: try again".into()))
            }
            Err(ProposeError::NotLeader) => self.answer(
                asker,
                Reply::Denied("this node leads no cluster with a majority".into()),
            ),
        }
    }

    fn drive_agreeing(&mut self) {
        let mut waiting = std::mem::take(&mut self.operators.agreeing);
        waiting.retain(|w| {
            let (now, id) = (&self.cluster.record().id, &w.id);
            let reply = if self.cluster.has_agreed(id) && w.stop {
                self.operators.stopping.push(Stopping {
                    asker: w.asker.clone(),
                    text: w.text.clone(),
                    since: self.ctx.now.boot_us,
                });
                return false;
            } else if self.cluster.has_agreed(id) {
                Reply::Done(w.text.clone())
            } else if self.cluster.committed() && now != id && now.covers(id) {
                Reply::Denied("another decision of the cluster was first: look at its status, and try again".into())
            } else if self.ctx.due(w.until) {
                Reply::Denied("no majority has agreed to it yet".into())
            } else {
                return true;
            };
            self.answer(w.asker.clone(), reply);
            false
        });
        self.operators.agreeing.append(&mut waiting);
    }

    pub(super) fn on_operator_answer(&mut self, id: u64, done: bool, text: &str) {
        if let Some((req, _)) = self.operators.forwarded.remove(&id) {
            let text = text.to_owned();
            let reply = if done { Reply::Done(text) } else { Reply::Denied(text) };
            self.ctx.reply(req, reply);
        }
    }

    pub(super) fn drive_operators(&mut self) {
        self.drive_agreeing();
        self.drive_stopping();
        if let Some(outcome) = self.cluster.force_outcome()
            && let Some(asker) = self.operators.forcing.take()
        {
            let reply = outcome.map_or_else(Reply::Denied, Reply::Done);
            self.answer(asker, reply);
        }
        let late: Vec<u64> = {
            let ctx = &mut self.ctx;
            self.operators
                .forwarded
                .iter()
                .filter(|(_, (_, until))| ctx.due(*until))
                .map(|(id, _)| *id)
                .collect()
        };
        for id in late {
            let text = format!("no answer from {}", self.cluster.peer_name());
            self.on_operator_answer(id, false, &text);
        }
    }

    pub(super) fn answer(&mut self, asker: Asker, reply: Reply) {
        match asker {
            Asker::Local(req) => self.ctx.reply(req, reply),
            Asker::Remote(conn, id) => {
                let bytes = wire::encode_frame(&answer(id, &reply), &[]);
                self.ctx.emit(Effect::SendFrame { conn, bytes });
            }
            Asker::Nobody => {}
        }
    }
}
