//! The copy's side: pull, inspect, move into the stream, replay.
//!
//! Invariants:
//! * A log enters the copy's stream only after it was read back from the inspection folder, is whole, closed, of the right
//!   stream and generation, and its header names the checksum of the log before it.
//! * Before anything is pulled from a new source the two chains are compared backwards to the last common log. What comes
//!   after it here is divergent and dropped, if the database has not taken it in; otherwise the copy needs a reseed.
//! * Three failed attempts at one log, and the copy is Failed until it is seeded anew.

use super::seed::Seeding;
use crate::ctx::Ctx;
use crate::op::{Part, Pending};
use crate::planted::Bug;
use crate::store::Store;
use crate::wire::Msg;
use ccr_contract::event::EventKind;
use ccr_contract::status::CopyStatus;

/// How long an answer of the source may take, in microseconds.
pub(super) const ANSWER_US: u64 = 5_000_000;
/// The same for a node that is about to mount and looks for what it misses: the other network is tried within its patience.
const SALVAGE_ANSWER_US: u64 = 700_000;
/// Between two attempts to reach the source, in microseconds.
pub(super) const RETRY_US: u64 = 500_000;

/// Who the source is, as the cluster layer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This node serves the group, or nobody does.
    None,
    /// The other member serves it.
    Follow,
    /// This node is about to serve it and looks once more for logs that it misses. The group was served last in this
    /// epoch: whoever has been compared with that one's logs is right.
    Salvage(u64),
}

#[derive(Debug)]
pub(super) enum Stage {
    Idle,
    Waiting {
        until: u64,
    },
    Attaching {
        since: u64,
    },
    Comparing {
        since: u64,
        from: u64,
    },
    Rewinding {
        common: u64,
    },
    Recovering {
        seeded: bool,
    },
    Following {
        probed: u64,
    },
    Pulling {
        generation: u64,
        since: u64,
        buffer: Vec<u8>,
    },
    Inspecting,
    Seeding(Seeding),
    /// The seed is whole, and its marker on the way to the disk.
    Switching,
    Failed,
}

/// A copy of one storage group.
#[derive(Debug)]
pub struct Copy {
    pub(super) stage: Stage,
    pub(super) role: Role,
    pub(super) tries: (u64, u32),
    /// The last generation in the inspection folder or beyond it.
    pub copied: u64,
    /// When the source was last heard.
    received_at: Option<u64>,
    /// Whether the chains were compared since this copy began to follow.
    pub(super) compared: bool,
    /// A planted bug: it counts as healthy before they were.
    pub(super) early: bool,
    /// Whether this node's own logs behind a gap count again as soon as the gap is filled.
    pub(super) keeps_own: bool,
    /// Whether the source is asked only for logs that are missing between logs of this node.
    pub(super) fills_gaps: bool,
    /// The epoch of which the source speaks.
    pub(super) source_epoch: u64,
    pub(super) resyncing: bool,
    /// A full copy was asked for, and why.
    pub(super) ordered: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    last_reported: Option<CopyStatus>,
}

/// What the copy wants said to the source.
pub type Out = Vec<Msg>;

impl Copy {
    /// A copy that follows nobody yet.
    pub fn new() -> Self {
        Self {
            stage: Stage::Idle,
            role: Role::None,
            tries: (0, 0),
            copied: 0,
            received_at: None,
            compared: false,
            early: false,
            keeps_own: false,
            fills_gaps: false,
            source_epoch: 0,
            resyncing: false,
            ordered: None,
            error: None,
            last_reported: None,
        }
    }

    /// Whether the copy touches the disk in a way that must end before the group is mounted.
    pub fn busy(&self) -> bool {
        matches!(
            self.stage,
            Stage::Rewinding { .. } | Stage::Recovering { .. } | Stage::Inspecting | Stage::Switching
        )
    }
    /// Whether a new copy is on its way, and nothing of the old one may change.
    pub fn seeds(&self) -> bool {
        matches!(self.stage, Stage::Seeding(_) | Stage::Switching)
    }
    /// The last log that the source may take for replayed here: a seed needs those behind its own checkpoint.
    pub fn replayed(&self, store: &Store) -> u64 {
        let replayed = store.checkpoint.generation;
        match &self.stage {
            Stage::Seeding(seeding) => seeding.offered().min(replayed),
            _ => replayed,
        }
    }
    /// Whether this node holds a database that could be mounted, loss apart. A copy that failed because its history is not
    /// the source's is whole: it is mounted where an operator accepts the loss.
    pub fn mountable(&self, store: &Store, loss_accepted: bool) -> Result<(), String> {
        match &self.stage {
            Stage::Seeding(_) | Stage::Switching => Err("the copy is being seeded".into()),
            Stage::Rewinding { .. } | Stage::Recovering { .. } => Err("the copy is being resynchronised".into()),
            _ if store.source_state.broken && !loss_accepted => {
                Err(self.error.clone().unwrap_or_else(|| "the copy has failed".into()))
            }
            _ => store.damage.clone().map_or(Ok(()), Err),
        }
    }
    /// Whether nothing more can be salvaged for now.
    pub fn salvaged(&self, store: &Store) -> bool {
        self.is_idle() && store.last().generation >= store.source_state.generated
    }

    /// Whether there is a source.
    pub fn follows(&self) -> bool {
        self.role == Role::Follow
    }
    /// Whether the copy has nothing under way that could still shorten a loss.
    pub fn is_idle(&self) -> bool {
        !self.busy() && !matches!(self.stage, Stage::Pulling { .. })
    }

    /// Status, with the definitions of the original's second version.
    pub fn status(&self, ctx_now: u64, store: &Store, probe_us: u64) -> CopyStatus {
        let silent = self
            .received_at
            .is_none_or(|at| ctx_now.saturating_sub(at) > 2 * probe_us);
        match &self.stage {
            _ if self.ordered.is_some() => CopyStatus::Seeding,
            Stage::Seeding(_) | Stage::Switching | Stage::Recovering { seeded: true } => CopyStatus::Seeding,
            _ if store.source_state.broken || store.damage.is_some() => CopyStatus::Failed,
            Stage::Failed => CopyStatus::Failed,
            // Dismounted on the node that is to serve: no copy that could be healthy.
            _ if self.salvages() => CopyStatus::Resynchronizing,
            _ if store.source_state.suspended => CopyStatus::Suspended,
            Stage::Rewinding { .. } | Stage::Recovering { .. } => CopyStatus::Resynchronizing,
            _ if self.role == Role::None => CopyStatus::Stopped,
            _ if silent => CopyStatus::ServiceDown,
            _ if self.resyncing => CopyStatus::Resynchronizing,
            _ if !self.compared && !self.early => CopyStatus::Initializing,
            _ => CopyStatus::Healthy,
        }
    }
    /// Tells of a changed status.
    pub fn report_status(&mut self, ctx: &mut Ctx<Pending>, store: &Store, status: CopyStatus) {
        if self.last_reported == Some(status) {
            return;
        }
        let group = store.name.clone();
        let from = self.last_reported.map_or_else(|| "none".to_owned(), |s| s.to_string());
        ctx.event(EventKind::CopyStatusChanged {
            group,
            from,
            to: status,
        });
        self.last_reported = Some(status);
    }

    /// Replay found a damaged log: it is fetched again.
    pub fn begin_again(&mut self, ctx: &mut Ctx<Pending>) {
        if let Stage::Following { .. } | Stage::Pulling { .. } = self.stage {
            self.stage = Stage::Waiting { until: ctx.now.boot_us };
            ctx.wake_at(ctx.now.boot_us);
        }
    }

    /// The channel to the source ended.
    pub fn on_disconnected(&mut self, ctx: &mut Ctx<Pending>) {
        let until = ctx.now.boot_us + RETRY_US;
        match &mut self.stage {
            Stage::Attaching { .. } | Stage::Comparing { .. } | Stage::Following { .. } | Stage::Pulling { .. } => {
                self.stage = Stage::Waiting { until };
            }
            Stage::Seeding(seeding) => seeding.interrupted(until),
            _ => {}
        }
    }

    pub(super) fn salvages(&self) -> bool {
        matches!(self.role, Role::Salvage(_))
    }
    /// How long an answer may take.
    pub(super) fn answer_us(&self) -> u64 {
        if self.salvages() { SALVAGE_ANSWER_US } else { ANSWER_US }
    }

    /// One round. `reconnect` is set when the channel is of no use.
    pub fn drive(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        role: Role,
        probe_us: u64,
        reconnect: &mut bool,
    ) -> Out {
        let mut out = Vec::new();
        if !store.recovered() && !matches!(self.stage, Stage::Recovering { .. }) {
            return out;
        }
        if role != self.role {
            self.take_role(ctx, store, role);
        }
        if !self.busy()
            && let Some(why) = self.ordered.take()
        {
            self.begin_seed(ctx, store, &why);
        }
        if self.halts(ctx, store) {
            return out;
        }
        self.drive_stage(ctx, store, probe_us, reconnect, &mut out);
        // Not before the chains were compared: what this node closed as the active one may not be the source's, and a
        // database that has taken it in can only be seeded.
        let well = !store.source_state.broken && store.damage.is_none() && !self.seeds();
        if well && role == Role::Follow && self.compared {
            store.replay_towards(ctx, store.last().generation);
            store.compact(ctx);
        }
        out
    }

    fn take_role(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, role: Role) {
        self.role = role;
        self.compared = false;
        self.received_at = None;
        store.end_batch();
        if !self.busy() {
            self.leave(ctx, store);
        }
    }

    /// Whether there is nothing to copy, or an operator does not want it; what was under way ends then.
    fn halts(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store) -> bool {
        // An operator suspends a copy; whoever is to serve looks for what it misses all the same.
        let suspended = store.source_state.suspended && !self.salvages();
        let halted = self.role == Role::None || suspended || store.mounted() || store.is_mounting();
        if suspended {
            store.end_batch();
        }
        if !halted || self.busy() {
            return false;
        }
        if store.mounted() {
            self.error = None;
        }
        if store.mounted() || !matches!(self.stage, Stage::Failed) {
            self.leave(ctx, store);
        }
        true
    }

    fn drive_stage(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        probe_us: u64,
        reconnect: &mut bool,
        out: &mut Out,
    ) {
        let now = ctx.now.boot_us;
        let answer_us = self.answer_us();
        let retry_us = if self.salvages() { 0 } else { RETRY_US };
        match &mut self.stage {
            Stage::Idle => {
                self.stage = Stage::Waiting { until: now };
                ctx.wake_at(now);
            }
            Stage::Waiting { until } => {
                if ctx.due(*until) {
                    out.push(Msg::Attach { group: store.at });
                    self.stage = Stage::Attaching { since: now };
                    ctx.wake_at(now + answer_us);
                }
            }
            Stage::Attaching { since } | Stage::Comparing { since, .. } | Stage::Pulling { since, .. } => {
                if ctx.due(*since + answer_us) {
                    *reconnect = true;
                    self.stage = Stage::Waiting { until: now + retry_us };
                    ctx.wake_at(now + retry_us);
                }
            }
            Stage::Rewinding { common } => {
                let common = *common;
                if store.quiet() && !store.is_replaying() {
                    self.rewind(ctx, store, common);
                }
            }
            Stage::Recovering { .. } => {
                if store.recovered() {
                    self.stage = Stage::Idle;
                    ctx.wake_at(now);
                }
            }
            Stage::Following { probed } => {
                let probe = ctx.due(*probed + probe_us);
                if probe {
                    *probed = now;
                    ctx.wake_at(now + probe_us);
                    out.push(Msg::Attach { group: store.at });
                }
                if self.received_at.is_some_and(|at| now.saturating_sub(at) > ANSWER_US) {
                    *reconnect = true;
                    self.stage = Stage::Waiting { until: now };
                    ctx.wake_at(now);
                } else {
                    self.follow(ctx, store, out);
                }
            }
            Stage::Seeding(_) => self.drive_seed(ctx, store, out, reconnect),
            Stage::Inspecting | Stage::Switching | Stage::Failed => {}
        }
    }

    /// The source said something about this group.
    pub fn on_msg(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, msg: &Msg, body: &[u8]) -> Out {
        self.received_at = Some(ctx.now.boot_us);
        let mut out = Vec::new();
        if self.role == Role::None {
            return out;
        }
        match msg {
            Msg::Source {
                stream,
                generated,
                epoch,
                verified,
                ..
            } => {
                // Only a node that serves may tell this one that its logs are not the right ones.
                if *epoch == 0 && self.role == Role::Follow {
                    return out;
                }
                self.source_epoch = if *epoch != 0 { *epoch } else { *verified };
                self.on_source(ctx, store, stream, *generated, &mut out);
            }
            Msg::NotSource { .. } => self.wait(ctx),
            Msg::Links { from, links, .. } => self.on_links(ctx, store, *from, links, &mut out),
            Msg::Part {
                generation,
                offset,
                total,
                ..
            } => self.on_part(ctx, store, (*generation, *offset, *total), body, &mut out),
            Msg::Missing { generation, why, .. } => match &self.stage {
                Stage::Pulling { generation: g, .. } if g == generation && ctx.plays(Bug::IgnoreGap) => {
                    self.pull(ctx, store, *generation + 1, &mut out);
                }
                Stage::Pulling { generation: g, .. } if g == generation => {
                    let why = format!("the source cannot give it: {why}");
                    self.attempt_failed(ctx, store, *generation, &why);
                }
                Stage::Seeding(seeding) if seeding.awaits(*generation) => {
                    self.seed_trouble(ctx, store, &format!("segment {generation}: {why}"));
                }
                _ => {}
            },
            Msg::Offer { .. } | Msg::SegmentPart { .. } => self.on_seed_msg(ctx, store, msg, body, &mut out),
            _ => {}
        }
        out
    }

    /// Whatever is under way ends here. What a seed has gathered is of no use any more.
    fn leave(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store) {
        if let Stage::Seeding(_) = self.stage {
            store.clear_seed(ctx);
        }
        self.stage = Stage::Idle;
    }

    pub(super) fn wait(&mut self, ctx: &mut Ctx<Pending>) {
        let until = ctx.now.boot_us + RETRY_US;
        if let Stage::Seeding(seeding) = &mut self.stage {
            seeding.interrupted(until);
        } else if !self.busy() {
            self.stage = Stage::Waiting { until };
        }
        ctx.wake_at(until);
    }

    /// A file of this copy is not what it was. A log that the database has not taken in is fetched again; otherwise the copy has
    /// failed.
    pub fn damaged(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, part: Part, why: &str) {
        if self.seeds() || store.source_state.broken {
            return;
        }
        match part {
            Part::Log(g) if g > store.checkpoint.generation => {
                store.bad = Some(store.bad.map_or(g, |bad| bad.min(g)));
                store.report_trouble(ctx, why, None);
                self.begin_again(ctx);
            }
            Part::Log(_) | Part::Segment(_) => {
                let before = self.error.take();
                self.fail(ctx, store, why);
                self.error = before.map(|b| format!("{b}; {why}")).or(self.error.take());
            }
        }
    }

    pub(super) fn fail(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, why: &str) {
        self.stage = Stage::Failed;
        self.error = Some(why.to_owned());
        store.source_state.broken = true;
        store.save_source_state(ctx);
        store.report_failed(ctx, why, None);
    }
}

impl Default for Copy {
    fn default() -> Self {
        Self::new()
    }
}
