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
use std::collections::BTreeMap;

/// How long a command that was passed on may take, in microseconds.
const FORWARD_US: u64 = 90_000_000;
/// How long an operator waits for a majority, in microseconds.
const AGREE_US: u64 = 15_000_000;
/// How long an operator waits for a stop that was agreed to, in microseconds.
const STOP_US: u64 = HANDOFF_US + 15_000_000;

/// Operators who have no answer yet.
#[derive(Debug, Default)]
pub struct Operators {
    forwarded: BTreeMap<u64, (ReqId, u64)>,
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

/// An operator who waits until a majority has agreed to a change.
#[derive(Debug)]
struct Agreeing {
    asker: Asker,
    id: RecordId,
    text: String,
    until: u64,
    until_then: Then,
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
        self.forwarded.insert(id, (req, ctx.now.boot_us + FORWARD_US));
        streams.send(ctx, peer, &Msg::Forward { id, command });
    }

    /// The other member answers.
    pub fn on_answer(&mut self, ctx: &mut Ctx<Pending>, id: u64, reply: Reply) {
        if let Some((req, _)) = self.forwarded.remove(&id) {
            ctx.reply(req, reply);
        }
    }

    /// What changes the record, or forces the quorum: whoever asked is answered when it is done, or cannot be.
    pub fn perform(
        &mut self,
        ctx: &mut Ctx<Pending>,
        cluster: &mut Cluster,
        groups: &Groups,
        asker: Asker,
        command: Command,
    ) {
        let change = match command {
            Command::Stop { comment } => {
                let Some(change) = set_intent(&cluster.snapshot(ctx), Intent::Stopped, &comment) else {
                    return asker.answer(ctx, Reply::Unchanged("the service is Stopped already".into()));
                };
                let epoch = cluster.record().id.epoch;
                ctx.event(EventKind::StopOrdered { comment, epoch });
                return self.agree(ctx, cluster, asker, change, Then::Offline);
            }
            Command::Start => {
                let Some(change) = set_intent(&cluster.snapshot(ctx), Intent::Started, "") else {
                    return asker.answer(ctx, Reply::Unchanged("the service is Started already".into()));
                };
                return self.agree(ctx, cluster, asker, change, Then::Online);
            }
            Command::Move { to, comment, .. } => {
                let change = move_stopped(ctx, cluster, groups, &to, &comment);
                if change.is_ok() {
                    let epoch = cluster.record().id.epoch;
                    ctx.event(EventKind::MoveBegun {
                        to,
                        comment,
                        verified: None,
                        epoch,
                    });
                }
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
            Ok(change) => self.agree(ctx, cluster, asker, change, Then::Done),
            Err(why) => asker.deny(ctx, why),
        }
    }

    /// Changes the record; the operator is answered when a majority has the change, or when it is clear that it has not. Whoever
    /// stops or starts the service is answered when it is offline, or online.
    fn agree(
        &mut self,
        ctx: &mut Ctx<Pending>,
        cluster: &mut Cluster,
        asker: Asker,
        (next, text): (Record, String),
        until_then: Then,
    ) {
        let (id, until) = (next.id.clone(), ctx.now.boot_us + AGREE_US);
        match cluster.propose(ctx, next) {
            Ok(()) => self.agreeing.push(Agreeing {
                asker,
                id,
                text,
                until,
                until_then,
            }),
            Err(ProposeError::Busy) => asker.deny(ctx, "another change is under way: try again"),
            Err(ProposeError::NotLeader) => asker.deny(ctx, "this node leads no cluster with a majority"),
        }
    }

    /// One round: answers whose turn it is.
    pub fn drive(&mut self, ctx: &mut Ctx<Pending>, cluster: &mut Cluster, here: Here) {
        self.drive_agreeing(ctx, cluster);
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
        let late = forwarded.filter(|(_, (_, until))| ctx.due(*until)).map(|(id, _)| *id);
        for id in late.collect::<Vec<_>>() {
            let why = format!("no answer from {}", cluster.peer_name());
            self.on_answer(ctx, id, Reply::Denied(why));
        }
    }

    fn drive_agreeing(&mut self, ctx: &mut Ctx<Pending>, cluster: &Cluster) {
        let (stopping, starting) = (&mut self.stopping, &mut self.starting);
        self.agreeing.retain(|w| {
            let (now, id) = (&cluster.record().id, &w.id);
            let agreed = cluster.has_agreed(id);
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
            w.asker.clone().answer(ctx, reply);
            false
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
mod tests {
    use super::*;
    use crate::member::fixture::{Facts, PEER};

    fn way(command: &Command, passed_on: bool, change: impl FnOnce(&mut Facts)) -> Route {
        let mut facts = Facts::new();
        change(&mut facts);
        route(command, passed_on, &facts.snapshot(), || "no witness".into())
    }
    fn group() -> Option<String> {
        None
    }

    #[test]
    fn each_command_goes_to_who_is_in_charge_of_it() {
        let (start, mount) = (Command::Start, Command::Mount { group: group() });
        let resume = Command::Resume { group: group() };
        let peer_leads = |f: &mut Facts| f.record.quorum_owner = PEER.into();
        let peer_serves = |f: &mut Facts| f.record.owner = PEER.into();
        assert_eq!(way(&start, false, |_| {}), Route::Here);
        assert_eq!(way(&start, false, peer_leads), Route::Peer);
        assert_eq!(way(&start, false, peer_serves), Route::Here);
        assert_eq!(way(&mount, false, |_| {}), Route::Here);
        assert_eq!(way(&mount, false, peer_serves), Route::Peer);
        assert_eq!(way(&resume, false, |_| {}), Route::Peer, "the copy is there");
        assert_eq!(way(&resume, false, peer_serves), Route::Here);
        assert_eq!(way(&Command::Status, false, |f| f.up = false), Route::Here);
    }

    #[test]
    fn nothing_is_passed_on_twice_or_to_nobody_and_a_cluster_without_a_majority_says_why() {
        let denied = |command: &Command, passed_on, change: fn(&mut Facts)| match way(command, passed_on, change) {
            Route::Nowhere(why) => why,
            other => panic!("{command:?}: {other:?}"),
        };
        let resume = Command::Resume { group: group() };
        let twice = denied(&resume, true, |_| {});
        assert!(twice.starts_with("neither member"), "{twice}");
        let nobody = denied(&resume, false, |f| f.peer_up = false);
        assert!(nobody.starts_with("node2 is in charge"), "{nobody}");
        let apart = denied(&Command::Start, false, |f| f.up = false);
        assert_eq!(apart, "node1 is in no cluster with a majority: no witness");
        // A mark of what is backed up needs no cluster.
        let mark = Command::BackupMark { group: group() };
        assert_eq!(way(&mark, false, |f| f.up = false), Route::Here);
    }

    #[test]
    fn a_start_is_told_when_it_is_online() {
        let mut ctx = crate::member::fixture::ctx(1_000);
        let mut facts = Facts::new();
        let mut outcome = |facts: &Facts, state, ms| {
            crate::member::fixture::at(&mut ctx, ms);
            let here = Here {
                state,
                offline: false,
                given_all: false,
            };
            start_outcome(&mut ctx, &facts.snapshot(), here, 1_000_000)
        };
        assert_eq!(outcome(&facts, ServiceState::OnlinePending, 1_000), None);
        let online = Some(": Online on node1".to_owned());
        assert_eq!(outcome(&facts, ServiceState::Online, 1_000), online);
        let partly = outcome(&facts, ServiceState::PartiallyOnline, 1_000).unwrap_or_default();
        assert!(partly.starts_with(": PartiallyOnline on node1"), "{partly}");
        facts.record.owner = PEER.into();
        // What this node says is not of the service there.
        assert_eq!(outcome(&facts, ServiceState::Online, 1_000), None);
        facts.record.intent = Intent::Stopped;
        let stopped = outcome(&facts, ServiceState::Offline, 1_000);
        assert_eq!(stopped, Some("; it was stopped again meanwhile".into()));
        facts.record.intent = Intent::Started;
        let late = outcome(&facts, ServiceState::Offline, 90_000);
        assert_eq!(late, Some("; it is not online yet".into()));
    }

    #[test]
    fn a_stop_is_told_when_it_is_offline_and_everything_is_known() {
        let mut ctx = crate::member::fixture::ctx(1_000);
        let mut facts = Facts::new();
        let (up, down) = ((false, false), (true, true));
        let mut outcome = |facts: &Facts, (offline, given_all)| {
            let here = Here {
                state: ServiceState::Offline,
                offline,
                given_all,
            };
            stop_outcome(&mut ctx, &facts.snapshot(), here, 1_000_000)
        };
        assert_eq!(outcome(&facts, up), Some("; it was started again meanwhile".into()));
        facts.record.intent = Intent::Stopped;
        assert_eq!(outcome(&facts, up), None);
        assert_eq!(outcome(&facts, down), Some(String::new()));
        facts.record = facts.record.clone().stopped();
        assert_eq!(
            outcome(&facts, down),
            None,
            "the record does not say yet that both have it"
        );
        let alone = outcome(&facts, (true, false)).unwrap_or_default();
        assert!(alone.starts_with("; only node1 has all"), "{alone}");
    }
}
