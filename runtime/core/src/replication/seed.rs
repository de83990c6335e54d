//! Seeding: a full copy of the source's database at its checkpoint, segment by segment. The copy's own checkpoint is
//! removed first and written last, so that a half-seeded database is none. An interrupted seed goes on with the segments
//! that it does not have yet, as long as the source still has the same stream. Segments that came from different histories
//! are no chain, which the recovery at the end finds.

use super::copy::{ANSWER_US, Copy, Out, RETRY_US, Stage, Step};
use crate::ctx::Ctx;
use crate::io::DiskAction;
use crate::member::Pending;
use crate::store::{Op, Store, log};
use crate::wire::{Link, Msg};
use ccr_contract::event::kind;
use std::collections::BTreeSet;

/// A seed under way.
#[derive(Debug)]
pub struct Seeding {
    stream: String,
    checkpoint: Link,
    /// The segments up to this one are on the disk.
    have: u64,
    /// Length of the one that is on its way, as its first part said.
    total: u64,
    buffer: Vec<u8>,
    step: SeedStep,
}

#[derive(Debug)]
enum SeedStep {
    /// The old files go as soon as nothing else touches the disk.
    Clearing,
    /// Ask again then.
    Waiting(u64),
    /// Asked for the offer, or for a part of a segment, then.
    Asked(u64, Option<u64>),
    /// The disk is at work.
    Writing,
}

impl Seeding {
    pub(super) fn interrupted(&mut self, until: u64) {
        if matches!(self.step, SeedStep::Asked(..) | SeedStep::Waiting(_)) {
            self.buffer.clear();
            self.step = SeedStep::Waiting(until);
        }
    }
}

impl Copy {
    /// Begins a full copy.
    pub fn begin_seed(&mut self, ctx: &mut Ctx<Pending>, store: &Store) {
        ctx.info(kind::COPY_SEEDING, &[("group", store.name.as_str().into())]);
        self.error = None;
        self.stage = Stage::Seeding(Seeding {
            stream: String::new(),
            checkpoint: Link {
                generation: 0,
                epoch: 0,
                checksum: 0,
            },
            have: 0,
            total: 0,
            buffer: Vec::new(),
            step: SeedStep::Clearing,
        });
        ctx.wake_at(ctx.now.boot_us);
    }

    pub(super) fn drive_seed(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        out: &mut Out,
        reconnect: &mut bool,
    ) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        match seeding.step {
            SeedStep::Clearing if store.quiet() && !store.is_replaying() => {
                let mut files = BTreeSet::from([store.file(".chk"), store.file(".log"), store.file("tmp.log")]);
                files.extend(
                    store
                        .closed
                        .keys()
                        .chain(store.strays.keys())
                        .map(|g| store.log_file(*g)),
                );
                files.extend(store.segments.keys().map(|g| store.segment_file(*g)));
                let sealed = store.sealed.then(|| store.damage.clone()).flatten();
                let found = std::mem::take(&mut store.found);
                files.extend(found.iter().filter(|f| !f.ends_with(".src")).cloned());
                if let Some(why) = sealed {
                    // An operator gives up what is not understood here: it is kept all the same, out of the way.
                    for file in found {
                        files.remove(&file);
                        store.set_aside(ctx, file, &why);
                    }
                }
                // Before anything goes: what is left of it after a crash is no database.
                store.forget(ctx);
                for file in files {
                    store.disk(ctx, Op::Quiet, DiskAction::Delete { file });
                }
                seeding.step = SeedStep::Waiting(ctx.now.boot_us);
                ctx.wake_at(ctx.now.boot_us);
            }
            SeedStep::Waiting(until) if ctx.due(until) => {
                out.push(Msg::Seed { group: store.at });
                seeding.step = SeedStep::Asked(ctx.now.boot_us, None);
                ctx.wake_at(ctx.now.boot_us + ANSWER_US);
            }
            SeedStep::Asked(since, _) if ctx.due(since + ANSWER_US) => {
                *reconnect = true;
                seeding.interrupted(ctx.now.boot_us + RETRY_US);
                ctx.wake_at(ctx.now.boot_us + RETRY_US);
            }
            _ => {}
        }
    }

    pub(super) fn on_seed_msg(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        msg: &Msg,
        body: &[u8],
        out: &mut Out,
    ) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        match (msg, &seeding.step) {
            (Msg::Offer { stream, checkpoint, .. }, SeedStep::Asked(_, None)) => {
                let Ok(id) = stream.parse() else { return self.wait(ctx) };
                if *stream != seeding.stream {
                    seeding.have = 0;
                }
                seeding.have = seeding.have.min(checkpoint.generation);
                seeding.stream.clone_from(stream);
                seeding.checkpoint = *checkpoint;
                store.stream = Some(id);
                self.next_segment(ctx, store, out);
            }
            (
                &Msg::SegmentPart {
                    generation,
                    offset,
                    total,
                    ..
                },
                &SeedStep::Asked(_, Some(asked)),
            ) if asked == generation && offset == seeding.buffer.len() as u64 => {
                let end = offset + body.len() as u64;
                if offset == 0 {
                    seeding.total = total;
                }
                // The source may have compacted it meanwhile.
                let same = total == seeding.total && total <= store.generation_bytes();
                if body.is_empty() || !same || end > total {
                    return self.wait(ctx);
                }
                seeding.buffer.extend_from_slice(body);
                if end < total {
                    return ask(ctx, store, seeding, generation, out);
                }
                let bytes = std::mem::take(&mut seeding.buffer);
                let whole = log::segment(&bytes)
                    .is_ok_and(|s| s.header.generation == generation && s.header.stream.to_string() == seeding.stream);
                if !whole {
                    return self.wait(ctx);
                }
                seeding.step = SeedStep::Writing;
                let file = store.segment_file(generation);
                store.disk(
                    ctx,
                    Op::Copy(Step::SeedSegment(generation)),
                    DiskAction::Replace { file, bytes },
                );
            }
            _ => {}
        }
    }

    fn next_segment(&mut self, ctx: &mut Ctx<Pending>, store: &Store, out: &mut Out) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        if seeding.have < seeding.checkpoint.generation {
            seeding.buffer.clear();
            ask(ctx, store, seeding, seeding.have + 1, out);
        } else {
            seeding.step = SeedStep::Writing;
            store.save_checkpoint(ctx, Op::Copy(Step::Seeded), seeding.checkpoint);
        }
    }

    pub(super) fn on_seed_disk(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, step: Step, out: &mut Out) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        match step {
            Step::SeedSegment(g) => {
                seeding.have = g;
                self.next_segment(ctx, store, out);
            }
            Step::Seeded => {
                self.stage = Stage::Recovering { seeded: true };
                store.recover_after(ctx);
            }
            _ => {}
        }
    }
}

fn ask(ctx: &mut Ctx<Pending>, store: &Store, seeding: &mut Seeding, generation: u64, out: &mut Out) {
    seeding.step = SeedStep::Asked(ctx.now.boot_us, Some(generation));
    ctx.wake_at(ctx.now.boot_us + ANSWER_US);
    out.push(Msg::Segment {
        group: store.at,
        generation,
        offset: seeding.buffer.len() as u64,
    });
}
