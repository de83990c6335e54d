//! Two histories: the chains of copy and source are compared backwards to the last common log before anything is pulled.
//! What comes after it here is divergent and dropped (incremental reseed), unless the database has taken it in.

use super::copy::{Copy, Out, Role, Stage};
use crate::chain::ChainLink;
use crate::ctx::Ctx;
use crate::io::DiskAction;
use crate::op::{Op, Pending};
use crate::planted::Bug;
use crate::store::{Store, log};
use crate::wire::{MAX_LINKS, Msg};
use ccr_contract::event::EventKind;

impl Copy {
    pub(super) fn on_source(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        stream: &str,
        generated: u64,
        out: &mut Out,
    ) {
        let salvage = self.salvages();
        let changed = if salvage {
            generated > store.source_state.generated
        } else {
            generated != store.source_state.generated
        };
        if changed && store.stream.is_some_and(|s| s.to_string() == stream) {
            store.source_state.generated = generated;
            store.save_source_state(ctx);
        }
        if !matches!(self.stage, Stage::Attaching { .. }) {
            if let Stage::Following { .. } = self.stage {
                self.follow(ctx, store, out);
            }
            return;
        }
        if store.source_state.reseed && !salvage {
            return self.begin_seed(ctx, store, "the last seed was broken off");
        }
        if store.source_state.broken || store.damage.is_some() {
            self.stage = Stage::Failed;
            return;
        }
        let same = store.stream.is_some_and(|s| s.to_string() == stream);
        let empty = store.last().generation == 0 && !store.needs_rewind();
        if !same && salvage {
            return self.wait(ctx);
        }
        if !same && store.stream.is_none() {
            return self.begin_seed(ctx, store, "there is no database here");
        }
        if !same && empty {
            return self.begin_seed(
                ctx,
                store,
                "the source has another log stream, and this database is empty",
            );
        }
        if !same {
            return self.fail(ctx, store, "the source has another log stream");
        }
        if ctx.plays(Bug::SkipChainCheck) {
            self.compared = true;
            self.stage = Stage::Following {
                probed: ctx.now.boot_us,
            };
            return self.follow(ctx, store, out);
        }
        self.early = ctx.plays(Bug::HealthyUncompared);
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
        ctx.wake_at(ctx.now.boot_us + self.answer_us());
        out.push(Msg::Chain {
            group: store.at,
            from,
            to,
        });
    }

    pub(super) fn on_links(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        from: u64,
        links: &[ChainLink],
        out: &mut Out,
    ) {
        if !matches!(self.stage, Stage::Comparing { from: requested, .. } if requested == from) {
            return;
        }
        let ours = store.last().generation;
        let shared = |l: &&ChainLink| store.link(l.generation) == Some(**l);
        let common = links.iter().rev().find(shared).map(|l| l.generation);
        let floor = store.checkpoint.generation;
        let right = match self.role {
            // Only a node that was compared with the history that counts may tell this one that its own is wrong.
            Role::Salvage(served) => self.source_epoch >= served && store.source_state.verified < served,
            Role::Follow | Role::None => true,
        };
        let common = match common {
            Some(g) => g,
            None if from <= 1 => 0,
            None if from > floor => return self.compare(ctx, store, from - 1, out),
            None if right => return self.cannot_resync(ctx, store, 0),
            None => return self.wait(ctx),
        };
        // Whoever salvages from a node that knows no better keeps its own open log: it comes behind what is missing.
        if common == ours && (!store.needs_rewind() || !right) {
            self.compared = true;
            // The logs behind a gap are of the history that counts, as those before it are.
            self.keeps_own = matches!(self.role, Role::Salvage(served) if store.source_state.verified >= served);
            // A source that was never compared with the history that counts knows only what is missing inside ours.
            self.fills_gaps =
                self.keeps_own && matches!(self.role, Role::Salvage(served) if self.source_epoch < served);
            if store.source_state.verified < self.source_epoch {
                store.source_state.verified = self.source_epoch;
                store.save_source_state(ctx);
            }
            self.resyncing = false;
            self.stage = Stage::Following {
                probed: ctx.now.boot_us,
            };
            return self.follow(ctx, store, out);
        }
        if !right {
            // What this node is about to mount is not a prefix of what the other one has: nothing to be had there.
            return self.wait(ctx);
        }
        let records = store.tail.is_some_and(|len| len > log::HEADER as u64);
        if common < ours || records {
            ctx.event(EventKind::CopyDiverged {
                group: store.name.clone(),
                common,
                ours: ours + u64::from(records),
            });
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
        ctx.event(EventKind::CopyBeyondResync {
            group: store.name.clone(),
            common,
            replayed: store.checkpoint.generation,
        });
        store.source_state.common = Some(common);
        self.fail(
            ctx,
            store,
            "the database has taken in logs that the source does not have: seed the copy",
        );
    }

    /// Drops what comes after the last common log, the open log included, and reads the rest of the disk afresh.
    pub(super) fn rewind(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, common: u64) {
        let gone: Vec<u64> = store.closed.range(common + 1..).map(|(g, _)| *g).collect();
        let gone_too: Vec<u64> = std::mem::take(&mut store.orphans).into_keys().collect();
        let mut files: Vec<String> = gone.iter().chain(&gone_too).map(|g| store.log_file(*g)).collect();
        files.push(store.file("tmp.log"));
        store.drop_open(ctx);
        for file in files {
            store.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
        if let (Some(from), Some(to)) = (gone.first(), gone.last()) {
            let (group, from, to) = (store.name.clone(), *from, *to);
            ctx.event(EventKind::CopyResynced { group, from, to });
        }
        self.stage = Stage::Recovering { seeded: false };
        self.copied = common;
        store.recover_after(ctx);
    }
}
