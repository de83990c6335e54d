//! Seeding: a full copy of the source's database at its checkpoint, segment by segment, beside the copy that is here. Each
//! segment is read back and verified; the switch (`store/seed.rs`) comes when all of them are there. Until then the old copy
//! stays what it is, readable and, where it was whole, mountable.
//!
//! A segment of the source may be made smaller at any time (compaction): one that is on its way is begun again then, which ends
//! because segments only shrink. An interrupted connection costs the segment at hand. A part that the source cannot give, or
//! that is damaged, is asked for again after a new offer, a few times, with a pause; with each verified segment the count begins
//! anew. Then the seed has failed, with the cause, until somebody orders another one.

use super::copy::{ANSWER_US, Copy, Out, RETRY_US, Stage};
use crate::chain::{ChainLink, GENESIS};
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{CopyStep, Op, Pending};
use crate::store::{Store, log};
use crate::wire::Msg;
use ccr_contract::event::{CopyFault, EventKind};

/// Attempts at one segment.
const TRIES: u32 = 3;
/// Between two of them, in microseconds.
const PAUSE_US: u64 = 2_000_000;

/// A seed under way.
#[derive(Debug)]
pub struct Seeding {
    stream: String,
    checkpoint: ChainLink,
    /// The segments up to this one are on the disk, and verified.
    have: ChainLink,
    /// Length of the one that is on its way, as its first part said.
    total: u64,
    buffer: Vec<u8>,
    /// Attempts since the last verified segment.
    tries: u32,
    step: SeedStep,
}

#[derive(Debug)]
enum SeedStep {
    /// Ask again then.
    Waiting(u64),
    /// Asked for the offer, or for a part of a segment, then.
    Requested(u64, Option<u64>),
    /// This segment is written, and read back.
    Writing(ChainLink),
    /// Everything is there; what touches the old copy comes to its end.
    Settling,
}

impl Seeding {
    pub(super) fn interrupted(&mut self, until: u64) {
        if matches!(self.step, SeedStep::Requested(..) | SeedStep::Waiting(_)) {
            self.buffer.clear();
            self.step = SeedStep::Waiting(until);
        }
    }
    /// The generation of the checkpoint that the source offered; 0 before it did.
    pub(super) fn offered(&self) -> u64 {
        self.checkpoint.generation
    }
    fn writes(&self, link: ChainLink) -> bool {
        matches!(self.step, SeedStep::Writing(l) if l == link)
    }
    pub(super) fn awaits(&self, generation: u64) -> bool {
        matches!(self.step, SeedStep::Requested(_, Some(requested)) if requested == generation)
    }
}

impl Copy {
    /// Begins a full copy as soon as nothing else is under way that must come to its end.
    pub fn order_seed(&mut self, ctx: &mut Ctx<Pending>, why: &str) {
        self.ordered = Some(why.to_owned());
        ctx.wake_at(ctx.now.boot_us);
    }

    pub(super) fn begin_seed(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, why: &str) {
        let (group, why) = (store.name.clone(), why.to_owned());
        ctx.event(EventKind::CopySeeding { group, why });
        self.error = None;
        store.end_batch();
        store.clear_seed(ctx);
        store.source_state.reseed = true;
        store.save_source_state(ctx);
        self.stage = Stage::Seeding(Seeding {
            stream: String::new(),
            checkpoint: GENESIS,
            have: GENESIS,
            total: 0,
            buffer: Vec::new(),
            tries: 0,
            step: SeedStep::Waiting(ctx.now.boot_us),
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
            SeedStep::Waiting(until) if ctx.due(until) => {
                out.push(Msg::Seed { group: store.at });
                seeding.step = SeedStep::Requested(ctx.now.boot_us, None);
                ctx.wake_at(ctx.now.boot_us + ANSWER_US);
            }
            SeedStep::Requested(since, _) if ctx.due(since + ANSWER_US) => {
                *reconnect = true;
                seeding.interrupted(ctx.now.boot_us + RETRY_US);
                ctx.wake_at(ctx.now.boot_us + RETRY_US);
            }
            SeedStep::Settling if store.quiet() && !store.is_replaying() => {
                store.mark_seed(ctx, Op::Copy(CopyStep::Seeded), &seeding.stream, seeding.checkpoint);
                self.stage = Stage::Switching;
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
            (Msg::Offer { stream, checkpoint, .. }, SeedStep::Requested(_, None)) => {
                if *stream != seeding.stream || seeding.have.generation > checkpoint.generation {
                    seeding.have = GENESIS;
                }
                seeding.stream.clone_from(stream);
                seeding.checkpoint = *checkpoint;
                self.next_segment(ctx, store, out);
            }
            (
                &Msg::SegmentPart {
                    generation,
                    offset,
                    total,
                    ..
                },
                &SeedStep::Requested(_, Some(requested)),
            ) if requested == generation => self.on_segment_part(ctx, store, (generation, offset, total), body, out),
            _ => {}
        }
    }

    fn on_segment_part(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        (generation, offset, total): (u64, u64, u64),
        body: &[u8],
        out: &mut Out,
    ) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        if offset == 0 {
            seeding.buffer.clear();
            seeding.total = total;
        }
        if total < seeding.total {
            // It was made smaller under way.
            seeding.buffer.clear();
            return ask(ctx, store, seeding, generation, out);
        }
        let end = offset + body.len() as u64;
        let fits = offset == seeding.buffer.len() as u64 && total == seeding.total && end <= total;
        if body.is_empty() || !fits || total > store.generation_bytes() {
            let why = format!("segment {generation} ends at byte {offset} of {}", seeding.total);
            return self.seed_trouble(ctx, store, &why);
        }
        seeding.buffer.extend_from_slice(body);
        if end < total {
            return ask(ctx, store, seeding, generation, out);
        }
        let bytes = std::mem::take(&mut seeding.buffer);
        let read = log::segment(&bytes).map_err(|e| e.to_string());
        let read = read.and_then(|scan| {
            let h = scan.header;
            let ours = h.generation == generation && h.stream.to_string() == seeding.stream;
            if ours && h.previous == seeding.have.checksum {
                Ok(scan.link())
            } else {
                Err("it does not follow the one before it".to_owned())
            }
        });
        match read {
            Ok(link) => {
                seeding.step = SeedStep::Writing(link);
                store.write_seed(ctx, Op::Copy(CopyStep::SeedSegment(link)), generation, bytes);
            }
            Err(why) => self.seed_trouble(ctx, store, &format!("segment {generation}: {why}")),
        }
    }

    fn next_segment(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, out: &mut Out) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        if seeding.have.generation < seeding.checkpoint.generation {
            seeding.buffer.clear();
            ask(ctx, store, seeding, seeding.have.generation + 1, out);
        } else if seeding.have == seeding.checkpoint {
            seeding.step = SeedStep::Settling;
            ctx.wake_at(ctx.now.boot_us);
        } else {
            seeding.have = GENESIS;
            self.seed_trouble(ctx, store, "its segments do not end at its checkpoint");
        }
    }

    /// The source could not give what was asked of it. It is asked again a few times; then the seed has failed.
    pub(super) fn seed_trouble(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, why: &str) {
        let Stage::Seeding(seeding) = &mut self.stage else {
            return;
        };
        seeding.tries += 1;
        seeding.buffer.clear();
        if seeding.tries < TRIES {
            let until = ctx.now.boot_us + PAUSE_US;
            seeding.step = SeedStep::Waiting(until);
            return ctx.wake_at(until);
        }
        let why = format!("the seed has failed: the source cannot give {why}");
        self.seed_failed(ctx, store, &why, None);
    }

    /// The old copy stays what it was, and is not followed with until somebody orders another seed or the source changes.
    fn seed_failed(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, why: &str, fault: Option<CopyFault>) {
        store.clear_seed(ctx);
        store.source_state.reseed = false;
        store.save_source_state(ctx);
        self.stage = Stage::Failed;
        self.error = Some(why.to_owned());
        store.report_failed(ctx, why, fault);
    }

    pub(super) fn on_seed_disk(
        &mut self,
        ctx: &mut Ctx<Pending>,
        store: &mut Store,
        step: CopyStep,
        result: DiskResult,
        out: &mut Out,
    ) {
        let full = result == DiskResult::Full;
        if full && matches!(self.stage, Stage::Seeding(_) | Stage::Switching) {
            let why = "the seed has failed: the disk is full";
            return self.seed_failed(ctx, store, why, Some(CopyFault::DiskFull));
        }
        match (step, &mut self.stage) {
            (CopyStep::SeedSegment(link), Stage::Seeding(_)) => {
                let action = DiskAction::Read {
                    file: store.seed_file(link.generation),
                    offset: 0,
                    len: store.generation_bytes() + 1,
                };
                store.disk(ctx, Op::Copy(CopyStep::SeedRead(link)), action);
            }
            (CopyStep::SeedRead(link), Stage::Seeding(seeding)) if seeding.writes(link) => {
                let whole = match &result {
                    DiskResult::Bytes(bytes) => log::segment(bytes).is_ok_and(|s| s.link() == link),
                    _ => false,
                };
                if whole {
                    seeding.have = link;
                    seeding.tries = 0;
                    self.next_segment(ctx, store, out);
                } else {
                    let why = format!("segment {} so that it can be read back", link.generation);
                    self.seed_trouble(ctx, store, &why);
                }
            }
            (CopyStep::Seeded, Stage::Switching) => {
                self.stage = Stage::Recovering { seeded: true };
                store.recover_after(ctx);
            }
            _ => {}
        }
    }
}

fn ask(ctx: &mut Ctx<Pending>, store: &Store, seeding: &mut Seeding, generation: u64, out: &mut Out) {
    seeding.step = SeedStep::Requested(ctx.now.boot_us, Some(generation));
    ctx.wake_at(ctx.now.boot_us + ANSWER_US);
    out.push(Msg::Segment {
        group: store.at,
        generation,
        offset: seeding.buffer.len() as u64,
    });
}

#[cfg(test)]
#[path = "seed_tests.rs"]
mod tests;
