//! The source's side: answers what the copy asks. It keeps no state for a copy, but for the checkpoint that it offered last to one
//! that seeds ([`Store::hold_logs`]).

use crate::ctx::Ctx;
use crate::io::{ConnId, DiskAction, DiskResult, Effect};
use crate::op::{Op, Pending};
use crate::planted::Bug;
use crate::store::{Store, log};
use crate::wire::{self, MAX_LINKS, MAX_PART, Msg};

/// Sends a frame without raw bytes.
pub(crate) fn send(ctx: &mut Ctx<Pending>, conn: ConnId, msg: &Msg) {
    let bytes = wire::encode_frame(msg, &[]);
    ctx.emit(Effect::SendFrame { conn, bytes });
}

/// What this node has of a group. `epoch` is that in which it serves, 0 when it does not.
pub(crate) fn offer(ctx: &Ctx<Pending>, store: &Store, epoch: u64) -> Option<Msg> {
    let open = store.open_as_closed().filter(|_| ctx.plays(Bug::ShipOpenLog));
    Some(Msg::Source {
        group: store.at,
        stream: store.stream?.to_string(),
        epoch,
        verified: store.source_state.verified,
        oldest: store.closed.first_key_value().map_or(0, |(g, _)| *g),
        generated: open.map_or(store.last().generation, |(g, _)| g),
    })
}

/// Answers a request of a copy.
pub(crate) fn answer(ctx: &mut Ctx<Pending>, store: &mut Store, conn: ConnId, msg: &Msg, epoch: u64) {
    let group = store.at;
    let reply = match *msg {
        Msg::Attach { .. } => offer(ctx, store, epoch).unwrap_or(Msg::NotSource { group }),
        Msg::Chain { from, to, .. } => {
            let to = to.min(from.saturating_add(MAX_LINKS as u64 - 1));
            let links = (from..=to.min(store.last().generation))
                .filter_map(|g| store.link(g))
                .collect();
            Msg::Links { group, from, links }
        }
        Msg::Seed { .. } => match store.stream.filter(|_| store.damage.is_none()) {
            Some(stream) => {
                store.hold_logs(ctx.now.boot_us, Some(store.checkpoint.generation));
                Msg::Offer {
                    group,
                    stream: stream.to_string(),
                    checkpoint: store.checkpoint,
                }
            }
            None => Msg::NotSource { group },
        },
        Msg::Pull { generation, offset, .. } => {
            if let Some(log) = store.closed.get(&generation).filter(|c| offset < c.used) {
                return read_part(ctx, store, conn, (generation, offset, log.used), false);
            }
            let open = store.open_as_closed().filter(|_| ctx.plays(Bug::ShipOpenLog));
            if let Some((_, total)) = open.filter(|(g, _)| *g == generation) {
                return read_open(ctx, store, conn, (generation, offset, total));
            }
            missing(group, generation, "there is no such log")
        }
        Msg::Segment { generation, offset, .. } => {
            store.hold_logs(ctx.now.boot_us, None);
            if let Some(len) = store.segments.get(&generation).map(|s| s.len) {
                // It was made smaller since its first part was asked for: from the beginning.
                let offset = if offset < len { offset } else { 0 };
                return read_part(ctx, store, conn, (generation, offset, len), true);
            }
            missing(group, generation, "there is no such segment")
        }
        _ => return,
    };
    send(ctx, conn, &reply);
}

fn missing(group: usize, generation: u64, why: &str) -> Msg {
    Msg::Missing {
        group,
        generation,
        why: why.to_owned(),
    }
}

/// Generation, first byte and bytes in use of what a copy asked for.
type PartRequest = (u64, u64, u64);

/// Reads a part of a closed log or of a segment; [`part_read`] sends it.
fn read_part(ctx: &mut Ctx<Pending>, store: &Store, conn: ConnId, requested: PartRequest, segment: bool) {
    let (generation, offset, total) = requested;
    let file = if segment {
        store.segment_file(generation)
    } else {
        store.log_file(generation)
    };
    let len = (total - offset).min(MAX_PART as u64);
    let op = part(conn, requested, segment);
    store.disk(ctx, op, DiskAction::Read { file, offset, len });
}

/// What a planted bug does: reads the open log as if it were closed.
fn read_open(ctx: &mut Ctx<Pending>, store: &Store, conn: ConnId, requested: PartRequest) {
    let (_, offset, total) = requested;
    let file = store.file(".log");
    let len = total - log::END as u64;
    let op = part(conn, requested, false);
    store.disk(ctx, op, DiskAction::Read { file, offset, len });
}

fn part(conn: ConnId, (generation, offset, total): PartRequest, segment: bool) -> Op {
    Op::Part {
        conn,
        generation,
        offset,
        total,
        segment,
    }
}

/// A part was read from the disk: on its way to the copy.
pub(crate) fn part_read(ctx: &mut Ctx<Pending>, group: usize, op: &Op, result: DiskResult) {
    let &Op::Part {
        conn,
        generation,
        offset,
        total,
        segment,
    } = op
    else {
        return;
    };
    let mut bytes = match result {
        DiskResult::Bytes(bytes) => bytes,
        DiskResult::Missing => return send(ctx, conn, &missing(group, generation, "its file is gone")),
        other => {
            let why = format!("it cannot be read: {other:?}");
            return send(ctx, conn, &missing(group, generation, &why));
        }
    };
    if ctx.plays(Bug::ShipOpenLog) && bytes.len() as u64 + log::END as u64 == total {
        let sum = crc32c::crc32c(&bytes);
        log::put_end(&mut bytes, sum);
    }
    let msg = if segment {
        Msg::SegmentPart {
            group,
            generation,
            offset,
            total,
        }
    } else {
        Msg::Part {
            group,
            generation,
            offset,
            total,
        }
    };
    let bytes = wire::encode_frame(&msg, &bytes);
    ctx.emit(Effect::SendFrame { conn, bytes });
}
