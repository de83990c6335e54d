//! Operators: any member may be asked; one that is not in charge passes the command on and the answer back. Who waits for a
//! majority, or for the end of a stop, waits here.

use super::asker::Asker;
use super::groups::Groups;
use super::service::HANDOFF_US;
use crate::cluster::snapshot::Snapshot;
use crate::cluster::{Cluster, ProposeError};
use crate::command::{Command, GroupName};
use crate::ctx::Ctx;
use crate::io::{Reply, ReqId};
use crate::links::PeerStreams;
use crate::op::Pending;
use crate::record::{Record, RecordId};
use crate::wire::Msg;
use ccr_contract::event::EventKind;
use ccr_contract::status::{Intent, ServiceState};
use std::collections::{BTreeMap, VecDeque};

/// How long a command that was passed on may take, in microseconds.
const FORWARD_US: u64 = 90_000_000;
/// How long an operator waits for a majority, in microseconds.
const AGREE_US: u64 = 15_000_000;
/// How long an operator waits for a stop that was agreed to, in microseconds.
const STOP_US: u64 = HANDOFF_US + 15_000_000;

/// Operators who have no answer yet.
#[derive(Debug, Default)]
pub struct Operators {
    forwarded: BTreeMap<u64, Forwarded>,
    /// Answers to what changed a copy on the other member, until what is known of that copy here is of after the change.
    unseen: Vec<Unseen>,
    /// Orders that wait until the change before them is agreed to.
    queued: VecDeque<Queued>,
    /// Changes of the record that operators wait for.
    agreeing: Vec<Agreeing>,
    /// Who waits until the service is stopped.
    stopping: Vec<Waiting>,
    /// Who waits until it is online.
    starting: Vec<Waiting>,
    /// Who forces the quorum here.
    forcing: Option<Asker>,
    next: u64,
}

/// A command that was passed on.
#[derive(Debug)]
struct Forwarded {
    req: ReqId,
    until: u64,
    /// Whether it changes what heartbeats say of the copy there.
    of_the_copy: bool,
}

/// An answer of the other member that is held back until one of its heartbeats answers to this number of ours.
#[derive(Debug)]
struct Unseen {
    req: ReqId,
    reply: Reply,
    seq: u64,
}

/// An order that came while another change of the record was under way.
#[derive(Debug)]
struct Queued {
    asker: Asker,
    command: Command,
    until: u64,
}

/// An operator who waits until a majority has agreed to a change.
#[derive(Debug)]
struct Agreeing {
    asker: Asker,
    id: RecordId,
    text: String,
    until: u64,
    until_then: Then,
    /// What is told when it is agreed to.
    event: Option<EventKind>,
}

/// When a change that was agreed to is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// At once.
    Done,
    /// A stop: when the service is offline.
    Offline,
    /// A start: when it is online.
    Online,
}

/// An operator who waits for the service since a majority has agreed.
#[derive(Debug)]
struct Waiting {
    asker: Asker,
    text: String,
    since: u64,
}

/// How far the service is online or offline on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// Its state.
    pub state: ServiceState,
    /// Whether it is neither up nor on its way.
    pub offline: bool,
    /// Whether the other member has everything.
    pub given_all: bool,
}

/// What there is to say to an operator who waits since then; nothing as long as it is under way.
type Outcome = fn(&mut Ctx<Pending>, &Snapshot<'_>, Here, u64) -> Option<String>;

/// Who carries a command out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    Here,
    Leader,
    Owner,
    Copy,
}

fn charge(command: &Command, intent: Intent) -> Charge {
    match command {
        // Of a stopped service a move is a change of the record.
        Command::Move { .. } | Command::ValidateMove { .. } if intent == Intent::Stopped => Charge::Leader,
        Command::Status | Command::Dump | Command::ForceQuorum => Charge::Here,
        Command::Move { .. } | Command::ValidateMove { .. } | Command::Mount { .. } | Command::BackupMark { .. } => {
            Charge::Owner
        }
        Command::Suspend { .. } | Command::Resume { .. } | Command::Reseed { .. } => Charge::Copy,
        Command::MoveGroup { .. }
        | Command::Stop { .. }
        | Command::Start
        | Command::Set { .. }
        | Command::Evict { .. }
        | Command::Join { .. } => Charge::Leader,
    }
}

/// Where a command is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// On this node.
    Here,
    /// On the other member.
    Peer,
    /// Nowhere, and why.
    Nowhere(String),
}

/// Where a command of an operator here, or of one that the other member has `passed_on`, is carried out. `cause` says what keeps this
/// node out of a cluster.
pub fn route(command: &Command, passed_on: bool, cluster: &Snapshot<'_>, cause: impl FnOnce() -> String) -> Route {
    let (record, me) = (cluster.record, cluster.me);
    let charge = charge(command, record.intent);
    let of_the_cluster = matches!(charge, Charge::Leader | Charge::Owner);
    if of_the_cluster && !cluster.up && !matches!(command, Command::BackupMark { .. }) {
        return Route::Nowhere(format!("{me} is in no cluster with a majority: {}", cause()));
    }
    let here = match charge {
        Charge::Here => true,
        Charge::Leader => record.quorum_owner == me,
        Charge::Owner => cluster.is_owner(),
        Charge::Copy => !cluster.is_owner(),
    };
    if here {
        Route::Here
    } else if passed_on {
        Route::Nowhere("neither member is in charge of this now".into())
    } else if !cluster.peer_up {
        Route::Nowhere(format!("{} is in charge of this, and is not up", cluster.peer))
    } else {
        Route::Peer
    }
}

impl Operators {
    /// The other member is asked.
    pub fn pass_on(
        &mut self,
        ctx: &mut Ctx<Pending>,
        streams: &mut PeerStreams,
        peer: &str,
        req: ReqId,
        command: Command,
    ) {
        self.next += 1;
        let id = self.next;
        let forwarded = Forwarded {
            req,
            until: ctx.now.boot_us + FORWARD_US,
            of_the_copy: matches!(
                command,
                Command::Suspend { .. } | Command::Resume { .. } | Command::Reseed { .. }
            ),
        };
        self.forwarded.insert(id, forwarded);
        streams.send(ctx, peer, &Msg::Forward { id, command });
    }

    /// The other member answers. Whoever asks for the copy's status next is not to be told what was so before.
    pub fn on_answer(&mut self, ctx: &mut Ctx<Pending>, cluster: &mut Cluster, id: u64, reply: Reply) {
        match self.forwarded.remove(&id) {
            Some(f) if f.of_the_copy && matches!(reply, Reply::Done(_)) => self.unseen.push(Unseen {
                req: f.req,
                reply,
                seq: cluster.beat_soon(),
            }),
            Some(f) => ctx.reply(f.req, reply),
            None => {}
        }
    }

    /// What changes the record, or forces the quorum: whoever asked is answered when it is done, or cannot be. One change at a
    /// time: an order that meets another one waits for it, as long as an operator waits for a majority.
    pub fn perform(
        &mut self,
        ctx: &mut Ctx<Pending>,
        cluster: &mut Cluster,
        groups: &Groups,
        asker: Asker,
        command: Command,
    ) {
        if command == Command::ForceQuorum || self.queued.is_empty() && !cluster.is_changing() {
            return self.change(ctx, cluster, groups, asker, command);
        }
        let until = ctx.now.boot_us + AGREE_US;
        ctx.wake_at(until);
        self.queued.push_back(Queued { asker, command, until });
    }

    fn drive_queued(&mut self, ctx: &mut Ctx<Pending>, cluster: &mut Cluster, groups: &Groups) {
        while let Some(first) = self.queued.front()
            && (!cluster.is_changing() || ctx.due(first.until))
            && let Some(Queued { asker, command, .. }) = self.queued.pop_front()
        {
            self.change(ctx, cluster, groups, asker, command);
        }
    }

    fn change(
        &mut self,
        ctx: &mut Ctx<Pending>,
        cluster: &mut Cluster,
        groups: &Groups,
        asker: Asker,
        command: Command,
    ) {
        let epoch = cluster.record().id.epoch;
        let mut event = None;
        let change = match command {
            Command::Stop { comment } => {
                let Some(change) = set_intent(&cluster.snapshot(ctx), Intent::Stopped, &comment) else {
                    return asker.answer(ctx, Reply::Unchanged("the service is Stopped already".into()));
                };
                let event = Some(EventKind::StopOrdered { comment, epoch });
                return self.agree(ctx, cluster, asker, change, (Then::Offline, event));
            }
            Command::Start => {
                let Some(change) = set_intent(&cluster.snapshot(ctx), Intent::Started, "") else {
                    return asker.answer(ctx, Reply::Unchanged("the service is Started already".into()));
                };
                return self.agree(ctx, cluster, asker, change, (Then::Online, None));
            }
            Command::Move { to, comment, .. } => {
                let change = move_stopped(ctx, cluster, groups, &to, &comment);
                event = Some(EventKind::MoveBegun {
                    to,
                    comment,
                    verified: None,
                    epoch,
                });
                change
            }
            Command::ValidateMove { to, .. } => {
                let problem = move_stopped(ctx, cluster, groups, &to, "validation").err();
                let text = format!("nothing stands in the way of a move to {to}; the service stays stopped");
                return asker.answer(ctx, problem.map_or(Reply::Unchanged(text), Reply::Denied));
            }
            Command::MoveGroup { group, to } => move_group(ctx, cluster, groups, group, &to),
            Command::Set { key, value, force } => cluster.set(&key, &value, force),
            Command::Evict { node } => {
                let text = format!("{node} is evicted; it holds no vote any more");
                cluster.set_membership(&node, true, ctx).map(|next| (next, text))
            }
            Command::Join { node } => {
                let text = format!("{node} may join again");
                cluster.set_membership(&node, false, ctx).map(|next| (next, text))
            }
            Command::ForceQuorum => {
                return match cluster.force_quorum(ctx) {
                    Ok(()) => self.forcing = Some(asker),
                    Err(why) => asker.deny(ctx, why),
                };
            }
            other => unreachable!("{other:?} changes no record"),
        };
        match change {
            Ok(change) => self.agree(ctx, cluster, asker, change, (Then::Done, event)),
            Err(why) => asker.deny(ctx, why),
        }
    }

    /// Changes the record; the operator is answered when a majority has the change, or when it is clear that it has not. Whoever
    /// stops or starts the service is answered when it is offline, or online. The event is told when a majority has the change.
    fn agree(
        &mut self,
        ctx: &mut Ctx<Pending>,
        cluster: &mut Cluster,
        asker: Asker,
        (next, text): (Record, String),
        (until_then, event): (Then, Option<EventKind>),
    ) {
        let (id, until) = (next.id.clone(), ctx.now.boot_us + AGREE_US);
        match cluster.propose(ctx, next) {
            Ok(()) => self.agreeing.push(Agreeing {
                asker,
                id,
                text,
                until,
                until_then,
                event,
            }),
            Err(ProposeError::Busy) => asker.deny(ctx, "another change is under way: try again"),
            Err(ProposeError::NotLeader) => asker.deny(ctx, "this node leads no cluster with a majority"),
        }
    }

    /// One round: answers whose turn it is.
    pub fn drive(&mut self, ctx: &mut Ctx<Pending>, cluster: &mut Cluster, groups: &Groups, here: Here) {
        self.drive_agreeing(ctx, cluster);
        self.drive_queued(ctx, cluster, groups);
        let snapshot = cluster.snapshot(ctx);
        let both: [(_, Outcome); 2] = [(&mut self.stopping, stop_outcome), (&mut self.starting, start_outcome)];
        for (waiting, outcome) in both {
            waiting.retain(|w| match outcome(ctx, &snapshot, here, w.since) {
                Some(more) => {
                    let text = format!("{}{more}", w.text);
                    w.asker.clone().answer(ctx, Reply::Done(text));
                    false
                }
                None => true,
            });
        }
        if let Some(outcome) = cluster.force_outcome()
            && let Some(asker) = self.forcing.take()
        {
            asker.answer(ctx, outcome.map_or_else(Reply::Denied, Reply::Done));
        }
        let forwarded = self.forwarded.iter();
        let late = forwarded.filter(|(_, f)| ctx.due(f.until)).map(|(id, _)| *id);
        for id in late.collect::<Vec<_>>() {
            let why = format!("no answer from {}", cluster.peer_name());
            self.on_answer(ctx, cluster, id, Reply::Denied(why));
        }
        self.unseen.retain(|u| {
            let known = cluster.is_answered(u.seq);
            if known {
                ctx.reply(u.req, u.reply.clone());
            }
            !known
        });
    }

    fn drive_agreeing(&mut self, ctx: &mut Ctx<Pending>, cluster: &Cluster) {
        let (stopping, starting) = (&mut self.stopping, &mut self.starting);
        self.agreeing.retain_mut(|w| {
            let (now, id) = (&cluster.record().id, &w.id);
            let agreed = cluster.has_agreed(id);
            if agreed && let Some(event) = w.event.take() {
                ctx.event(event);
            }
            let waiting = match w.until_then {
                Then::Done => None,
                Then::Offline => Some(&mut *stopping),
                Then::Online => Some(&mut *starting),
            };
            let reply = if agreed && let Some(waiting) = waiting {
                waiting.push(Waiting {
                    asker: w.asker.clone(),
                    text: w.text.clone(),
                    since: ctx.now.boot_us,
                });
                return false;
            } else if agreed {
                Reply::Done(w.text.clone())
            } else if cluster.committed() && now != id && now.covers(id) {
                Reply::Denied("another decision of the cluster was first: look at its status, and try again".into())
            } else if ctx.due(w.until) {
                Reply::Denied("no majority has agreed to it yet".into())
            } else {
                return true;
            };
            let late = matches!(reply, Reply::Denied(_)) && w.until != u64::MAX && ctx.due(w.until);
            std::mem::replace(&mut w.asker, Asker::Nobody).answer(ctx, reply);
            // Nobody waits any more, and what is agreed to later is told all the same.
            w.until = u64::MAX;
            late && w.event.is_some()
        });
    }
}

/// The record with another intent; none where it has this one.
fn set_intent(cluster: &Snapshot<'_>, intent: Intent, comment: &str) -> Option<(Record, String)> {
    let record = cluster.record;
    if record.intent == intent {
        return None;
    }
    let text = match intent {
        Intent::Stopped => format!("Stopped: {comment}"),
        Intent::Started => "Started".to_owned(),
    };
    let next = record.next(cluster.epoch_owner);
    if intent == Intent::Stopped {
        return Some((next.stopped(), text));
    }
    // Where all is that was acknowledged, if that one is there.
    let there = |node: &str| node == cluster.me || cluster.peer_up;
    let sole_copy = next.sole_copy.as_ref().filter(|h| next.served.contains(&h.epoch));
    let owner = sole_copy.map(|h| &h.node).filter(|n| there(n)).unwrap_or(&next.owner);
    let owner = owner.clone();
    let mut next = next.appoint(cluster.epoch_owner, &owner, false);
    next.intent = intent;
    Some((next, text))
}

/// The record with another owner of the service, which is stopped, and what to tell the operator when it is agreed to. Both members have
/// all that was acknowledged, or it is refused.
fn move_stopped(
    ctx: &Ctx<Pending>,
    cluster: &Cluster,
    groups: &Groups,
    to: &str,
    comment: &str,
) -> Result<(Record, String), String> {
    let snapshot = cluster.snapshot(ctx);
    let record = snapshot.record;
    if to != snapshot.me && to != snapshot.peer {
        return Err(format!("`{}` is not a member of this cluster", to.escape_debug()));
    }
    if record.owner == to {
        return Err(format!("the service belongs to {to} already, and is stopped"));
    }
    if comment.trim().is_empty() {
        return Err("a comment is mandatory: why is the service moved?".into());
    }
    if to != snapshot.me && !snapshot.peer_up {
        return Err(format!("{to} is not up"));
    }
    if let Some(sole) = &record.sole_copy {
        return Err(format!(
            "the service is not Offline yet, or {} alone has all that was acknowledged: it has to start there",
            sole.node
        ));
    }
    if let Some(why) = groups.unfit_on(&snapshot, ctx.now.boot_us, to) {
        return Err(why);
    }
    let next = record.next(snapshot.epoch_owner);
    let next = next.appoint(snapshot.epoch_owner, to, true);
    let text = format!("the service is stopped and belongs to {to} now: it comes up there when it is started");
    Ok((next, text))
}

/// The record with another owner of a group, and what to tell the operator when it is agreed to.
fn move_group(
    ctx: &Ctx<Pending>,
    cluster: &Cluster,
    groups: &Groups,
    group: GroupName,
    to: &str,
) -> Result<(Record, String), String> {
    let snapshot = cluster.snapshot(ctx);
    if to != snapshot.me && to != snapshot.peer {
        return Err(format!("`{}` is not a member", to.escape_debug()));
    }
    if to != snapshot.me && !snapshot.peer_up {
        return Err(format!("{to} is not up"));
    }
    let text = format!("moved to {to} without any check of its health");
    match group {
        GroupName::Cluster if cluster.is_online_on(to) => Err(format!("the Cluster Group is on {to} already")),
        GroupName::Cluster => Ok((cluster.bring_online_on(to)?, text)),
        GroupName::Service if snapshot.record.owner == to => Err(format!("the service group is on {to} already")),
        GroupName::Service => {
            let next = snapshot.record.next(snapshot.epoch_owner);
            let next = next.appoint(snapshot.epoch_owner, to, false);
            let lag = groups.lag_on(&snapshot, ctx.now.boot_us, to);
            Ok((next, format!("{text}: {lag}")))
        }
    }
}

/// What there is to say of a start; nothing as long as it is under way.
fn start_outcome(ctx: &mut Ctx<Pending>, cluster: &Snapshot<'_>, here: Here, since: u64) -> Option<String> {
    let late = ctx.due(since + STOP_US);
    let record = cluster.record;
    if record.intent != Intent::Started {
        return Some("; it was stopped again meanwhile".into());
    }
    let owner = &record.owner;
    let state = if cluster.is_owner() {
        Some(here.state)
    } else {
        let view = cluster.member_heartbeat();
        view.filter(|v| v.id == record.id && v.service_epoch == record.owner_epoch)
            .map(|v| v.service)
    };
    match state {
        Some(ServiceState::Online) => Some(format!(": Online on {owner}")),
        Some(ServiceState::PartiallyOnline) => Some(format!(
            ": PartiallyOnline on {owner}, a database is dismounted (its status says why)"
        )),
        _ if late => Some("; it is not online yet".into()),
        _ => None,
    }
}

/// What there is to say of a stop; nothing as long as it is under way.
fn stop_outcome(ctx: &mut Ctx<Pending>, cluster: &Snapshot<'_>, here: Here, since: u64) -> Option<String> {
    let late = ctx.due(since + STOP_US);
    let record = cluster.record;
    if record.intent != Intent::Stopped {
        return Some("; it was started again meanwhile".into());
    }
    let (offline, given_all) = if cluster.is_owner() {
        (here.offline, here.given_all)
    } else {
        let view = cluster.member_heartbeat().filter(|v| v.id == record.id);
        let offline = view
            .is_some_and(|v| v.service_epoch == 0 && matches!(v.service, ServiceState::Offline | ServiceState::Failed));
        (offline, view.is_some_and(|v| v.handed_over))
    };
    match &record.sole_copy {
        // That both have everything must be known to a majority.
        None if offline && cluster.committed => Some(String::new()),
        Some(sole_copy) if offline && !given_all => Some(format!(
            "; only {} has all that was acknowledged: the service starts with it, or dismounted until `mount` accepts the loss",
            sole_copy.node
        )),
        _ if late => Some("; it is not offline yet".into()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "operators_tests.rs"]
mod tests;
