//! One log on its way: pulled in parts, landed in the inspection folder, read back, inspected, moved into the stream.

use super::copy::{Copy, Out, RETRY_US, Role, Stage};
use crate::chain::Closed;
use crate::ctx::Ctx;
use crate::io::{DiskAction, DiskResult};
use crate::op::{CopyStep, Op, Pending};
use crate::planted::Bug;
use crate::store::{Store, log};
use crate::wire::Msg;
use ccr_contract::event::EventKind;

/// Attempts at one log; then it is irrecoverable, and the copy needs a reseed.
const TRIES: u32 = 3;

impl Copy {
    /// Asks for the next log where the source has one.
    pub(super) fn follow(&mut self, ctx: &mut Ctx<Pending>, store: &Store, out: &mut Out) {
        let next = store.last().generation + 1;
        let inside = store.orphans.range(next + 1..).next().is_some();
        if next > store.source_state.generated || (self.fills_gaps && !inside) {
            return;
        }
        self.pull(ctx, store, next, out);
    }

    pub(super) fn pull(&mut self, ctx: &mut Ctx<Pending>, store: &Store, next: u64, out: &mut Out) {
        self.stage = Stage::Pulling {
            generation: next,
            since: ctx.now.boot_us,
            buffer: Vec::new(),
        };
        ctx.wake_at(ctx.now.boot_us + self.answer_us());
        out.push(Msg::Pull {
            group: store.at,
            generation: next,
            offset: 0,
        });
    }

    pub(super) fn on_part(
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
            Op::Copy(CopyStep::Landed(generation)),
            DiskAction::Replace { file, bytes },
        );
    }

    /// A disk operation of the copy ended.
    pub fn on_disk(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, step: CopyStep, result: DiskResult) -> Out {
        let mut out = Vec::new();
        match step {
            CopyStep::Landed(g) => {
                self.copied = self.copied.max(g);
                let action = DiskAction::Read {
                    file: store.inspect_file(g),
                    offset: 0,
                    len: store.generation_bytes() + 1,
                };
                store.disk(ctx, Op::Copy(CopyStep::Inspect(g)), action);
            }
            CopyStep::Inspect(g) => self.inspect(ctx, store, g, result),
            CopyStep::Moved(closed) => {
                let g = closed.link.generation;
                store.closed.insert(g, closed);
                if self.keeps_own {
                    store.adopt_orphans();
                }
                self.tries = (0, 0);
                let group = store.name.clone();
                ctx.event(EventKind::CopyInspected { group, generation: g });
                if self.compared && store.bad.is_none() {
                    self.stage = Stage::Following {
                        probed: ctx.now.boot_us,
                    };
                    self.follow(ctx, store, &mut out);
                } else {
                    // While this log was on its way the source changed, or replay found a damaged one: the histories are
                    // compared first.
                    self.stage = Stage::Idle;
                    ctx.wake_at(ctx.now.boot_us);
                }
            }
            CopyStep::SeedSegment(_) | CopyStep::SeedRead(_) | CopyStep::Seeded => {
                self.on_seed_disk(ctx, store, step, result, &mut out);
            }
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
            let gap = ctx.plays(Bug::IgnoreGap);
            if Some(h.stream) != store.stream {
                Err("it belongs to another stream".to_owned())
            } else if h.generation != generation || (generation != last.generation + 1 && !gap) {
                Err(format!("its header says generation {}", h.generation))
            } else if h.previous != last.checksum && !gap && !ctx.plays(Bug::SkipChainCheck) {
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
                store.disk(ctx, Op::Copy(CopyStep::Moved(closed)), DiskAction::Rename { from, to });
            }
            Err(why) => self.attempt_failed(ctx, store, generation, &why),
        }
    }

    pub(super) fn attempt_failed(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, generation: u64, why: &str) {
        let tries = if self.tries.0 == generation {
            self.tries.1 + 1
        } else {
            1
        };
        self.tries = (generation, tries);
        ctx.event(EventKind::CopyInspectionFailed {
            group: store.name.clone(),
            generation,
            attempt: Some(u64::from(tries)),
            why: why.to_owned(),
        });
        if tries >= TRIES && self.role == Role::Follow {
            return self.fail(ctx, store, &format!("generation {generation}: {why}"));
        }
        self.stage = Stage::Waiting {
            until: ctx.now.boot_us + RETRY_US,
        };
        ctx.wake_at(ctx.now.boot_us + RETRY_US);
    }
}
