use super::*;
use crate::io::{Boot, Effect};
use crate::store::Closed;
use crate::store::log::{Label, Stream};

const SIZE: u64 = 4096;

fn closed_log(stream: Stream) -> Vec<u8> {
    let header = log::Header {
        kind: log::FileKind::Log,
        stream,
        generation: 1,
        epoch: 2,
        previous: 0,
    };
    let label = Label {
        seq: 1,
        mailbox: "ann".into(),
        hub_id: "hub-1".into(),
        key: "k".into(),
    };
    let mut bytes = header.encode().to_vec();
    log::put_message(&mut bytes, &label, b"hello");
    let crc = crc32c::crc32c(&bytes);
    log::put_end(&mut bytes, crc);
    bytes.resize(SIZE as usize, 0);
    bytes
}

/// The file that a single operation of the disk replaces.
fn replaced(ctx: &mut Ctx<Pending>) -> String {
    match ctx.take_effects().as_slice() {
        [
            Effect::Disk {
                action: DiskAction::Replace { file, .. },
                ..
            },
        ] => file.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_checkpoint_never_names_a_segment_that_could_not_be_written() {
    let mut ctx: Ctx<Pending> = Ctx::new(&Boot {
        entropy: 1,
        version: "test".into(),
        planted: None,
    });
    let mut store = Store::new(0, "Group0", SIZE);
    let bytes = closed_log(Stream([7; 16]));
    let scan = log::inspect(&bytes, SIZE as usize).unwrap();
    store.stream = Some(scan.header.stream);
    let closed = Closed {
        link: scan.link(),
        previous: 0,
        used: scan.used as u64,
    };
    store.closed.insert(1, closed);
    store.replay_towards(&mut ctx, 1);
    ctx.take_effects();
    store.on_disk(&mut ctx, Op::Replay(Step::Read(1)), DiskResult::Bytes(bytes));
    // Nothing is queued behind the segment: on a full disk the checkpoint, which needs no room, would be written without it.
    assert_eq!(replaced(&mut ctx), "E00/db/E0000000001.edb");
    store.on_disk(&mut ctx, Op::Replay(Step::Segment(scan.link())), DiskResult::Done);
    assert_eq!(replaced(&mut ctx), "E00/E00.chk");
    assert!(store.is_replaying());
    let done = store.on_disk(&mut ctx, Op::Replay(Step::Checkpoint(scan.link())), DiskResult::Done);
    assert_eq!(done, [Outcome::Replayed(1)]);
    assert_eq!((store.checkpoint, store.is_replaying()), (scan.link(), false));
}
