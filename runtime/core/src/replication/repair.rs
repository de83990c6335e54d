//! Repair: a segment or closed log of the node that serves is damaged or gone. The other node has the same one, or will have: it
//! is fetched from there, must be the very same generation, and takes the damaged one's place. Nothing waits for it.

use super::copy::ANSWER_US;
use crate::ctx::Ctx;
use crate::op::{Part, Pending};
use crate::store::Store;
use crate::wire::Msg;
use ccr_contract::event::EventKind;

/// Between two attempts, in microseconds.
const AGAIN_US: u64 = 10_000_000;

/// The repair of a group's files, one at a time.
#[derive(Debug, Default)]
pub struct Repair {
    /// What was asked for, and what came of it.
    requested: Option<(Part, Vec<u8>)>,
    /// When the next attempt is due, or the one under way is over.
    due: u64,
    /// The last file that was tried.
    last: Option<Part>,
    /// Why the other node could not give it.
    pub why: Option<String>,
}

impl Repair {
    /// Asks for the next damaged file, where there is one.
    pub fn drive(&mut self, ctx: &mut Ctx<Pending>, store: &Store, out: &mut Vec<Msg>) {
        if store.scrub.corrupt.is_empty() || !store.mounted() {
            *self = Self::default();
            return;
        }
        if !ctx.due(self.due) {
            return;
        }
        let corrupt = || store.scrub.corrupt.keys().copied();
        let part = corrupt().find(|p| Some(*p) > self.last).or_else(|| corrupt().next());
        if let Some(part) = part {
            self.last = Some(part);
            self.requested = Some((part, Vec::new()));
            self.due = ctx.now.boot_us + ANSWER_US;
            ctx.wake_at(self.due);
            out.push(ask(store, part, 0));
        }
    }

    /// The other node answers.
    pub fn on_msg(&mut self, ctx: &mut Ctx<Pending>, store: &mut Store, msg: &Msg, body: &[u8], out: &mut Vec<Msg>) {
        let Some((part, buffer)) = self.requested.as_mut() else {
            return;
        };
        let part = *part;
        let (offset, total) = match (part, msg) {
            (
                Part::Segment(g),
                Msg::SegmentPart {
                    generation,
                    offset,
                    total,
                    ..
                },
            )
            | (
                Part::Log(g),
                Msg::Part {
                    generation,
                    offset,
                    total,
                    ..
                },
            ) if g == *generation => (*offset, *total),
            (Part::Segment(g) | Part::Log(g), Msg::Missing { generation, why, .. }) if g == *generation => {
                let why = why.clone();
                return self.later(ctx, why);
            }
            _ => return,
        };
        let end = offset + body.len() as u64;
        let fits = offset == buffer.len() as u64 && end <= total && total <= store.generation_bytes();
        if body.is_empty() || !fits {
            return self.later(ctx, "it sent a part that does not fit".into());
        }
        buffer.extend_from_slice(body);
        if end < total {
            self.due = ctx.now.boot_us + ANSWER_US;
            ctx.wake_at(self.due);
            return out.push(ask(store, part, end));
        }
        let mut bytes = std::mem::take(buffer);
        if let Part::Log(_) = part {
            bytes.resize(store.generation_bytes() as usize, 0);
        }
        let read = store.part_link(part).map(|link| store.check_part(part, &bytes, link));
        match read {
            // Nobody needs it any more.
            None => _ = store.scrub.corrupt.remove(&part),
            Some(Err(why)) => return self.later(ctx, format!("what it has is damaged or another one: {why}")),
            Some(Ok(scan)) => {
                let lacks = store.replace_part(ctx, part, bytes, &scan);
                ctx.event(EventKind::DatabaseRepaired {
                    group: store.name.clone(),
                    what: part.to_string(),
                    lacks: lacks as u64,
                });
            }
        }
        self.requested = None;
        self.why = None;
        self.due = ctx.now.boot_us;
        ctx.wake_at(self.due);
    }

    fn later(&mut self, ctx: &mut Ctx<Pending>, why: String) {
        self.requested = None;
        self.why = Some(why);
        self.due = ctx.now.boot_us + AGAIN_US;
        ctx.wake_at(self.due);
    }
}

fn ask(store: &Store, part: Part, offset: u64) -> Msg {
    let group = store.at;
    match part {
        Part::Segment(generation) => Msg::Segment {
            group,
            generation,
            offset,
        },
        Part::Log(generation) => Msg::Pull {
            group,
            generation,
            offset,
        },
    }
}
