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
use crate::io::{DiskAction, DiskResult};
use crate::member::Pending;
use crate::store::{Closed, Op, Store, log};
use crate::wire::{Link, MAX_LINKS, Msg};
use ccr_contract::event::{Severity, kind};
use ccr_contract::status::CopyStatus;

/// How long an answer of the source may take.
const ANSWER_US: u64 = 5_000_000;
/// Between two attempts to reach the source.
pub(super) const RETRY_US: u64 = 500_000;
/// Attempts at one log.
const TRIES: u32 = 3;

/// What a disk operation of the copy was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A log lies in the inspection folder.
    Landed(u64),
    /// It was read back.
    Inspect(u64),
    /// It was moved into the stream.
    Moved(Closed),
    /// A segment of the seed is on the disk.
    SeedSegment(u64),
    /// The seed's checkpoint is on the disk.
    Seeded,
}

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
    Failed,
}

/// A copy of one storage group.
#[derive(Debug)]
pub struct Copy {
    pub(super) stage: Stage,
    role: Role,
    tries: (u64, u32),
    /// The last generation in the inspection folder or beyond it.
    pub copied: u64,
    /// When the source was last heard.
    heard: Option<u64>,
    /// Whether the chains were compared since this copy began to follow.
    compared: bool,
    /// The epoch of which the source speaks.
    source_epoch: u64,
    resyncing: bool,
    /// Why it failed.
    pub error: Option<String>,
    told: Option<CopyStatus>,
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
            heard: None,
            compared: false,
            source_epoch: 0,
            resyncing: false,
            error: None,
            told: None,
        }
    }

    /// Whether the copy touches the disk in a way that must end before the group is mounted.
    pub fn busy(&self) -> bool {
        matches!(
            self.stage,
            Stage::Rewinding { .. } | Stage::Recovering { .. } | Stage::Inspecting
        )
    }
    /// Whether this node holds a database that could be mounted, loss apart.
    pub fn mountable(&self, store: &Store) -> Result<(), String> {
        match &self.stage {
            Stage::Seeding(_) => Err("the copy is being seeded".into()),
            Stage::Rewinding { .. } | Stage::Recovering { .. } => Err("the copy is being resynchronised".into()),
            _ if store.known.broken => Err(self.error.clone().unwrap_or_else(|| "the copy has failed".into())),
            _ => store.damage.clone().map_or(Ok(()), Err),
        }
    }
    /// Whether nothing more can be salvaged for now.
    pub fn salvaged(&self, store: &Store) -> bool {
        !self.busy() && !matches!(self.stage, Stage::Pulling { .. }) && store.last().generation >= store.known.generated
    }

    /// Whether there is a source.
    pub fn follows(&self) -> bool {
        self.role == Role::Follow
    }
    /// Whether the copy has nothing under way that could still shorten a loss.
    pub fn settled(&self) -> bool {
        !self.busy() && !matches!(self.stage, Stage::Pulling { .. })
    }

    /// Status, with the definitions of the original's second version.
    pub fn status(&self, ctx_now: u64, store: &Store, probe_us: u64) -> CopyStatus {
        let silent = self.heard.is_none_or(|at| ctx_now.saturating_sub(at) > 2 * probe_us);
        match &self.stage {
            _ if store.known.broken || store.damage.is_some() => CopyStatus::Failed,
            Stage::Failed => CopyStatus::Failed,
            Stage::Seeding(_) | Stage::Recovering { seeded: true } => CopyStatus::Seeding,
            _ if store.known.suspended => CopyStatus::Suspended,
            Stage::Rewinding { .. } | Stage::Recovering { .. } => CopyStatus::Resynchronizing,
            _ if self.role == Role::None => CopyStatus::Stopped,
            _ if silent => CopyStatus::ServiceDown,
            _ if self.resyncing => CopyStatus::Resynchronizing,
            _ if !self.compared => CopyStatus::Initializing,
            _ => CopyStatus::Healthy,
        }
    }
    /// Tells of a changed status.
    pub fn tell_status(&mut self, ctx: &mut Ctx<Pending>, store: &Store, status: CopyStatus) {
        if self.told == Some(status) {
            return;
        }
        let name = |s: Option<CopyStatus>| s.map_or_else(|| "none".to_owned(), |s| format!("{s:?}"));
        let data = [
            ("group", store.name.as_str().into()),
            ("from", name(self.told).into()),
            ("to", name(Some(status)).into()),
        ];
        ctx.info(kind::COPY_STATUS, &data);
        self.told = Some(status);
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

    fn salvages(&self) -> bool {
        matches!(self.role, Role::Salvage(_))
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
            self.role = role;
            self.compared = false;
            self.heard = None;
            if !self.busy() {
                self.stage = Stage::Idle;
            }
        }
        let now = ctx.now.boot_us;
        let halted = role == Role::None || store.known.suspended || store.mounted() || store.is_mounting();
        if halted && !self.busy() {
            if !matches!(self.stage, Stage::Failed) {
                self.stage = Stage::Idle;
            }
            return out;
        }
        match &mut self.stage {
            Stage::Idle => {
                self.stage = Stage::Waiting { until: now };
                ctx.wake_at(now);
            }
            Stage::Waiting { until } => {
                if ctx.due(*until) {
                    out.push(Msg::Attach { group: store.at });
                    self.stage = Stage::Attaching { since: now };
                    ctx.wake_at(now + ANSWER_US);
                }
            }
            Stage::Attaching { since } | Stage::Comparing { since, .. } | Stage::Pulling { since, .. } => {
                if ctx.due(*since + ANSWER_US) {
                    *reconnect = true;
                    self.stage = Stage::Waiting { until: now + RETRY_US };
                    ctx.wake_at(now + RETRY_US);
                }
            }
            Stage::Rewinding { common } => {
                let common = *common;
                if store.quiet() && !store.is_replaying() {
                    self.rewind(ctx, store, common);
                }
            }
            Stage::Recovering { seeded } => {
                let seeded = *seeded;
                if store.recovered() {
                    self.recovered(ctx, store, seeded);
                }
            }
            Stage::Following { probed } => {
                let probe = ctx.due(*probed + probe_us);
                if probe {
                    *probed = now;
                    ctx.wake_at(now + probe_us);
                    out.push(Msg::Attach { group: store.at });
                }
                if self.heard.is_some_and(|at| now.saturating_sub(at) > ANSWER_US) {
                    *reconnect = true;
                    self.stage = Stage::Waiting { until: now };
                    ctx.wake_at(now);
                } else {
                    self.follow(ctx, store, &mut out);
                }
            }
            Stage::Seeding(_) => self.drive_seed(ctx, store, &mut out, reconnect),
            Stage::Inspecting | Stage::Failed => {}
        }
        // Not before the chains were compared: what this node closed as the active one may not be the source's, and a
        // database that has taken it in can only be seeded.
        if !store.known.broken && store.damage.is_none() && role == Role::Follow && self.compared {
            store.replay_towards(ctx, store.last().generation);
        }
        out
    }

    /// Asks for the next log where the source has one.
    fn follow(&mut self, ctx: &mut Ctx<Pending>, store: &Store, out: &mut Out) {
        let next = store.last().generation + 1;
        if next > store.known.generated {
            return;
        }
        self.stage = Stage::Pulling {
            generation: next,
            since: ctx.now.boot_us,
            buffer: Vec::new(),
        };
        ctx.wake_at(ctx.now.boot_us + ANSWER_US);
        out.push(Msg::Pull {
            group: store.at,
            generation: next,
            offset: 0,
        });
    }

    /// The source said something about this group.
    pub fn on_msg(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, msg: &Msg, body: &[u8]) -> Out {
        self.heard = Some(ctx.now.boot_us);
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
            Msg::Missing { generation, .. } => match &self.stage {
                Stage::Pulling { generation: g, .. } if g == generation => {
                    self.attempt_failed(ctx, store, *generation, "the source does not have it");
                }
                Stage::Seeding(_) => self.begin_seed(ctx, store),
                _ => {}
            },
            Msg::Offer { .. } | Msg::SegmentPart { .. } => self.on_seed_msg(ctx, store, msg, body, &mut out),
            _ => {}
        }
        out
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

    fn on_source(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, stream: &str, generated: u64, out: &mut Out) {
        let salvage = self.salvages();
        let changed = if salvage {
            generated > store.known.generated
        } else {
            generated != store.known.generated
        };
        if changed && store.stream.is_some_and(|s| s.to_string() == stream) {
            store.known.generated = generated;
            store.save_known(ctx);
        }
        if !matches!(self.stage, Stage::Attaching { .. }) {
            if let Stage::Following { .. } = self.stage {
                self.follow(ctx, store, out);
            }
            return;
        }
        if store.known.broken || store.damage.is_some() {
            self.stage = Stage::Failed;
            return;
        }
        let same = store.stream.is_some_and(|s| s.to_string() == stream);
        let empty = store.last().generation == 0 && !store.needs_rewind();
        if !same && salvage {
            return self.wait(ctx);
        }
        if !same && (store.stream.is_none() || empty) {
            return self.begin_seed(ctx, store);
        }
        if !same {
            return self.fail(ctx, store, "the source has another log stream");
        }
        self.compare(ctx, store, store.last().generation, out);
    }

    /// Asks for the source's chain up to `to`.
    fn compare(&mut self, ctx: &mut Ctx<Pending>, store: &Store, to: u64, out: &mut Out) {
        let from = (to + 1)
            .saturating_sub(MAX_LINKS as u64)
            .max(store.checkpoint.generation)
            .max(1);
        self.stage = Stage::Comparing {
            since: ctx.now.boot_us,
            from,
        };
        ctx.wake_at(ctx.now.boot_us + ANSWER_US);
        out.push(Msg::Chain {
            group: store.at,
            from,
            to,
        });
    }

    fn on_links(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, from: u64, links: &[Link], out: &mut Out) {
        if !matches!(self.stage, Stage::Comparing { from: asked, .. } if asked == from) {
            return;
        }
        let ours = store.last().generation;
        let shared = |l: &&Link| store.link(l.generation) == Some(**l);
        let common = links.iter().rev().find(shared).map(|l| l.generation);
        let floor = store.checkpoint.generation;
        let common = match common {
            Some(g) => g,
            None if from <= 1 => 0,
            None if from > floor => return self.compare(ctx, store, from - 1, out),
            None => return self.cannot_resync(ctx, store, 0),
        };
        // Whoever salvages keeps its own open log: it comes behind what is missing.
        if common == ours && (!store.needs_rewind() || self.salvages()) {
            self.compared = true;
            if store.known.verified < self.source_epoch {
                store.known.verified = self.source_epoch;
                store.save_known(ctx);
            }
            self.resyncing = false;
            self.stage = Stage::Following {
                probed: ctx.now.boot_us,
            };
            return self.follow(ctx, store, out);
        }
        let right =
            matches!(self.role, Role::Salvage(served) if self.source_epoch >= served && store.known.verified < served);
        if self.salvages() && !right {
            // What this node is about to mount is not a prefix of what the other one has: nothing to be had there.
            return self.wait(ctx);
        }
        let records = store.leftover.is_some_and(|len| len > log::HEADER as u64);
        if common < ours || records {
            let data = [
                ("group", store.name.as_str().into()),
                ("common", common.into()),
                ("ours", (ours + u64::from(records)).into()),
            ];
            ctx.warn(kind::COPY_DIVERGED, &data);
        }
        if floor > common {
            return self.cannot_resync(ctx, store, common);
        }
        let common = common.min(store.bad.map_or(u64::MAX, |g| g - 1)).max(floor);
        self.resyncing = true;
        self.stage = Stage::Rewinding { common };
        ctx.wake_at(ctx.now.boot_us);
    }

    fn cannot_resync(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, common: u64) {
        let data = [
            ("group", store.name.as_str().into()),
            ("common", common.into()),
            ("replayed", store.checkpoint.generation.into()),
        ];
        ctx.event(kind::COPY_DIVERGED, Some(2058), Severity::Error, &data);
        self.fail(
            ctx,
            store,
            "the database has taken in logs that the source does not have: seed the copy",
        );
    }

    /// Drops what comes after the last common log, the open log included, and reads the rest of the disk afresh.
    fn rewind(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, common: u64) {
        let gone: Vec<u64> = store.closed.range(common + 1..).map(|(g, _)| *g).collect();
        let gone_too = std::mem::take(&mut store.strays);
        let mut files: Vec<String> = gone.iter().chain(&gone_too).map(|g| store.log_file(*g)).collect();
        files.extend([store.file(".log"), store.file("tmp.log")]);
        for file in files {
            store.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
        if let (Some(from), Some(to)) = (gone.first(), gone.last()) {
            let data = [
                ("group", store.name.as_str().into()),
                ("from", (*from).into()),
                ("to", (*to).into()),
            ];
            ctx.info(kind::COPY_RESYNCED, &data);
        }
        self.stage = Stage::Recovering { seeded: false };
        self.copied = common;
        store.recover_after(ctx);
    }

    fn recovered(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, seeded: bool) {
        if seeded {
            let data = [
                ("group", store.name.as_str().into()),
                ("generation", store.checkpoint.generation.into()),
            ];
            ctx.info(kind::COPY_SEEDED, &data);
        }
        self.stage = Stage::Idle;
        ctx.wake_at(ctx.now.boot_us);
    }

    fn on_part(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        (generation, offset, total): (u64, u64, u64),
        body: &[u8],
        out: &mut Out,
    ) {
        let Stage::Pulling {
            generation: g,
            since,
            buffer,
        } = &mut self.stage
        else {
            return;
        };
        if *g != generation || buffer.len() as u64 != offset {
            return;
        }
        let size = store.generation_bytes();
        if body.is_empty() || total > size || offset + body.len() as u64 > total {
            return self.attempt_failed(ctx, store, generation, "the source sent a part that does not fit");
        }
        buffer.extend_from_slice(body);
        *since = ctx.now.boot_us;
        if (buffer.len() as u64) < total {
            let offset = buffer.len() as u64;
            out.push(Msg::Pull {
                group: store.at,
                generation,
                offset,
            });
            return;
        }
        let mut bytes = std::mem::take(buffer);
        bytes.resize(size as usize, 0);
        self.stage = Stage::Inspecting;
        let file = store.inspect_file(generation);
        store.disk(
            ctx,
            Op::Copy(Step::Landed(generation)),
            DiskAction::Replace { file, bytes },
        );
    }

    /// A disk operation of the copy ended.
    pub fn on_disk(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, step: Step, result: DiskResult) -> Out {
        let mut out = Vec::new();
        match step {
            Step::Landed(g) => {
                self.copied = self.copied.max(g);
                let action = DiskAction::Read {
                    file: store.inspect_file(g),
                    offset: 0,
                    len: store.generation_bytes() + 1,
                };
                store.disk(ctx, Op::Copy(Step::Inspect(g)), action);
            }
            Step::Inspect(g) => self.inspect(ctx, store, g, result),
            Step::Moved(closed) => {
                let g = closed.link.generation;
                store.closed.insert(g, closed);
                self.tries = (0, 0);
                let data = [("group", store.name.as_str().into()), ("generation", g.into())];
                ctx.info(kind::COPY_INSPECTED, &data);
                self.stage = Stage::Following {
                    probed: ctx.now.boot_us,
                };
                self.follow(ctx, store, &mut out);
            }
            Step::SeedSegment(_) | Step::Seeded => self.on_seed_disk(ctx, store, step, &mut out),
        }
        out
    }

    fn inspect(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, generation: u64, result: DiskResult) {
        let DiskResult::Bytes(bytes) = result else {
            return self.attempt_failed(ctx, store, generation, "it cannot be read back");
        };
        let last = store.last();
        let verdict = log::inspect(&bytes, store.generation_bytes() as usize).map_err(|e| e.to_string());
        let verdict = verdict.and_then(|scan| {
            let h = scan.header;
            if Some(h.stream) != store.stream {
                Err("it belongs to another stream".to_owned())
            } else if h.generation != generation || generation != last.generation + 1 {
                Err(format!("its header says generation {}", h.generation))
            } else if h.previous != last.checksum {
                Err("the chain is broken: it does not follow the log before it".to_owned())
            } else {
                Ok(scan)
            }
        });
        match verdict {
            Ok(scan) => {
                let closed = Closed {
                    link: scan.link(),
                    previous: scan.header.previous,
                    used: scan.used as u64,
                };
                let (from, to) = (store.inspect_file(generation), store.log_file(generation));
                store.disk(ctx, Op::Copy(Step::Moved(closed)), DiskAction::Rename { from, to });
            }
            Err(why) => self.attempt_failed(ctx, store, generation, &why),
        }
    }

    fn attempt_failed(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, generation: u64, why: &str) {
        let tries = if self.tries.0 == generation {
            self.tries.1 + 1
        } else {
            1
        };
        self.tries = (generation, tries);
        let data = [
            ("group", store.name.as_str().into()),
            ("generation", generation.into()),
            ("try", u64::from(tries).into()),
            ("why", why.into()),
        ];
        ctx.warn(kind::COPY_INSPECTION_FAILED, &data);
        if tries >= TRIES && self.role == Role::Follow {
            return self.fail(ctx, store, &format!("generation {generation}: {why}"));
        }
        self.stage = Stage::Waiting {
            until: ctx.now.boot_us + RETRY_US,
        };
        ctx.wake_at(ctx.now.boot_us + RETRY_US);
    }

    pub(super) fn fail(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, why: &str) {
        self.stage = Stage::Failed;
        self.error = Some(why.to_owned());
        store.known.broken = true;
        store.save_known(ctx);
        let data = [("group", store.name.as_str().into()), ("why", why.into())];
        ctx.event(kind::COPY_FAILED, None, Severity::Error, &data);
    }
}

impl Default for Copy {
    fn default() -> Self {
        Self::new()
    }
}
