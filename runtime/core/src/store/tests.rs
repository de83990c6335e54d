//! What replay and compaction make of a database, and that a log holds whatever is accepted.

use super::active::Change;
use super::log::{Label, Record};
use super::*;
use crate::chain::Stream;
use crate::io::{Boot, Effect};
use crate::mailbox::MAX_MAILBOX;
use crate::mailbox::{mailbox_of, message_key};
use crate::op::{CompactStep, GroupOp, Op, ReplayStep};
use proptest::prelude::*;
use std::sync::Arc;

const SIZE: u64 = 4096;
const LONGEST: u64 = 5 * SIZE;
const STREAM: Stream = Stream([7; 16]);

fn label(seq: u64) -> Label {
    Label {
        seq,
        mailbox: "ann".into(),
        hub_id: format!("hub-{seq}"),
        key: format!("k{seq}"),
    }
}

/// What a log of a test holds.
enum Put {
    Message(u64, &'static [u8]),
    Delete(u64),
}

/// A group with these logs, closed and not replayed, and their bytes.
fn store(logs: &[&[Put]]) -> (Store, Vec<Vec<u8>>) {
    let mut store = Store::new(0, "Group0", SIZE, LONGEST);
    store.stream = Some(STREAM);
    let mut files = Vec::new();
    let mut before = 0;
    for (n, puts) in logs.iter().enumerate() {
        let generation = n as u64 + 1;
        let mut bytes = store.header(generation, 1, before).encode().to_vec();
        for put in *puts {
            match put {
                Put::Message(seq, body) => log::put_message(&mut bytes, &label(*seq), body),
                Put::Delete(seq) => log::put_delete(&mut bytes, &label(*seq)),
            }
        }
        let checksum = crc32c::crc32c(&bytes);
        log::put_end(&mut bytes, checksum);
        let used = bytes.len() as u64;
        bytes.resize(SIZE as usize, 0);
        let link = ChainLink {
            generation,
            epoch: 1,
            checksum,
        };
        store.closed.insert(
            generation,
            Closed {
                link,
                previous: before,
                used,
            },
        );
        before = checksum;
        files.push(bytes);
    }
    (store, files)
}

fn ctx() -> Ctx<GroupOp> {
    Ctx::new(&Boot {
        entropy: 1,
        version: "test".into(),
        planted: None,
    })
}

/// What the disk was asked to replace, by name.
fn replaced(ctx: &mut Ctx<GroupOp>) -> Vec<(String, Vec<u8>)> {
    let disk = |e: Effect| match e {
        Effect::Disk {
            action: DiskAction::Replace { file, bytes },
            ..
        } => Some((file, bytes)),
        _ => None,
    };
    ctx.take_effects().into_iter().filter_map(disk).collect()
}

/// Replays one log; returns its segment.
fn replay(store: &mut Store, ctx: &mut Ctx<GroupOp>, bytes: &[u8]) -> Vec<u8> {
    let generation = store.checkpoint.generation + 1;
    store.replay_towards(ctx, generation);
    let link = store.closed[&generation].link;
    store.on_disk(
        ctx,
        Op::Replay(ReplayStep::Read(generation)),
        DiskResult::Bytes(bytes.to_vec()),
    );
    let segment = replaced(ctx).remove(0).1;
    store.on_disk(ctx, Op::Replay(ReplayStep::Segment(link)), DiskResult::Done);
    let done = store.on_disk(ctx, Op::Replay(ReplayStep::Checkpoint(link)), DiskResult::Done);
    assert_eq!(done, [Outcome::Replayed(generation)]);
    ctx.take_effects();
    segment
}

#[test]
fn what_was_deleted_leaves_the_database_and_everything_else_stays() {
    let (mut store, logs) = store(&[
        &[Put::Message(1, &[b'a'; 400]), Put::Message(2, b"stays")],
        &[Put::Delete(1)],
    ]);
    let mut ctx = ctx();
    let segment = replay(&mut store, &mut ctx, &logs[0]);
    store.compact(&mut ctx);
    assert!(ctx.take_effects().is_empty(), "nothing is deleted yet");
    replay(&mut store, &mut ctx, &logs[1]);
    let (digest, link) = (store.index.digest(), store.segments[&1].link);

    store.compact(&mut ctx);
    assert!(!ctx.take_effects().is_empty(), "the segment is read");
    store.closed.insert(3, store.closed[&2]);
    store.replay_towards(&mut ctx, 3);
    assert!(!store.is_replaying(), "a checkpoint must not be under way meanwhile");
    store.on_disk(
        &mut ctx,
        Op::Compact(CompactStep::Read(1)),
        DiskResult::Bytes(segment.clone()),
    );
    let (file, smaller) = replaced(&mut ctx).remove(0);
    assert_eq!(file, "E00/db/E0000000001.edb");
    assert!(
        smaller.len() + 300 < segment.len(),
        "{} {}",
        smaller.len(),
        segment.len()
    );
    // Its place in the chain, what is left, and where that is now.
    let scan = log::segment(&smaller).unwrap();
    assert_eq!((scan.link(), store.segments[&1].link), (link, link));
    let entry = store.index.get("ann", 2).unwrap();
    let piece = entry.pieces().next().unwrap();
    assert_eq!(&smaller[piece.at as usize..(piece.at + piece.len) as usize], b"stays");
    assert_eq!(
        (store.index.digest(), store.segments[&1].len),
        (digest, smaller.len() as u64)
    );
    // A start reads the same from it: the message is gone, and a second delivery of it is still one.
    let mut index = crate::store::index::Index::default();
    index.apply(&scan);
    assert!(index.get("ann", 1).is_none() && index.was_delivered("hub-1", "ann") && index.get("ann", 2).is_some());
    // Once is enough.
    store.on_disk(&mut ctx, Op::Compact(CompactStep::Written), DiskResult::Done);
    store.compact(&mut ctx);
    assert!(replaced(&mut ctx).is_empty());
}

#[test]
fn a_deletion_that_the_database_has_not_taken_in_takes_nothing_away() {
    let (mut store, logs) = store(&[
        &[Put::Message(1, &[b'a'; 400]), Put::Message(2, &[b'b'; 300])],
        &[Put::Delete(1)],
        &[Put::Delete(2)],
    ]);
    let mut ctx = ctx();
    let segment = replay(&mut store, &mut ctx, &logs[0]);
    replay(&mut store, &mut ctx, &logs[1]);
    // The active node has applied the third log, and its database has not.
    store.index.apply(&log::inspect(&logs[2], SIZE as usize).unwrap());
    store.compact(&mut ctx);
    store.on_disk(&mut ctx, Op::Compact(CompactStep::Read(1)), DiskResult::Bytes(segment));
    let scan = log::segment(&replaced(&mut ctx)[0].1).unwrap();
    let kinds: Vec<bool> = scan
        .records
        .iter()
        .map(|r| matches!(r, Record::Message { .. }))
        .collect();
    assert_eq!(kinds, [false, true]);
}

#[test]
fn a_batch_has_one_checkpoint_and_it_never_names_a_segment_that_could_not_be_written() {
    let (mut store, logs) = store(&[
        &[Put::Message(1, b"one")],
        &[Put::Message(2, b"two")],
        &[Put::Message(3, b"three")],
    ]);
    let mut ctx = ctx();
    store.replay_towards(&mut ctx, 2);
    for generation in 1..=2 {
        ctx.take_effects();
        let bytes = logs[generation as usize - 1].clone();
        let read = Op::Replay(ReplayStep::Read(generation));
        store.on_disk(&mut ctx, read, DiskResult::Bytes(bytes));
        // Nothing is queued behind the segment: on a full disk the checkpoint, which needs no room, would be written without it.
        let queued = replaced(&mut ctx);
        assert_eq!(queued.len(), 1, "{queued:?}");
        assert_eq!(queued[0].0, format!("E00/db/E00{generation:08X}.edb"));
        let link = store.closed[&generation].link;
        store.on_disk(&mut ctx, Op::Replay(ReplayStep::Segment(link)), DiskResult::Done);
    }
    let queued = replaced(&mut ctx);
    assert_eq!((queued.len(), queued[0].0.as_str()), (1, "E00/E00.chk"));
    let link = store.closed[&2].link;
    let done = store.on_disk(&mut ctx, Op::Replay(ReplayStep::Checkpoint(link)), DiskResult::Done);
    assert_eq!(done, [Outcome::Replayed(2)]);
    assert_eq!((store.checkpoint, store.is_replaying()), (link, false));
}

#[test]
fn what_was_replayed_before_a_damaged_log_counts() {
    let (mut store, logs) = store(&[
        &[Put::Message(1, &[b'a'; 400])],
        &[Put::Delete(1)],
        &[Put::Message(3, b"three")],
    ]);
    let mut ctx = ctx();
    store.replay_towards(&mut ctx, 3);
    for generation in 1..=2 {
        let bytes = logs[generation as usize - 1].clone();
        let read = Op::Replay(ReplayStep::Read(generation));
        store.on_disk(&mut ctx, read, DiskResult::Bytes(bytes));
        let link = store.closed[&generation].link;
        store.on_disk(&mut ctx, Op::Replay(ReplayStep::Segment(link)), DiskResult::Done);
    }
    let mut bytes = logs[2].clone();
    bytes[100] ^= 1;
    ctx.take_effects();
    let failed = store.on_disk(&mut ctx, Op::Replay(ReplayStep::Read(3)), DiskResult::Bytes(bytes));
    assert!(matches!(failed.as_slice(), [Outcome::ReplayFailed(_)]), "{failed:?}");
    assert_eq!(replaced(&mut ctx)[0].0, "E00/E00.chk");
    // What the second log deletes is no less safe in the first one before that.
    store.compact(&mut ctx);
    assert!(ctx.take_effects().is_empty());
    let link = store.closed[&2].link;
    store.on_disk(&mut ctx, Op::Replay(ReplayStep::Checkpoint(link)), DiskResult::Done);
    assert_eq!(
        (store.checkpoint, store.bad, store.is_replaying()),
        (link, Some(3), false)
    );
    store.compact(&mut ctx);
    assert!(!ctx.take_effects().is_empty());
}

#[test]
fn a_batch_ends_with_the_log_at_hand_where_it_is_told_to() {
    let (mut store, logs) = store(&[&[Put::Message(1, b"one")], &[Put::Message(2, b"two")]]);
    let mut ctx = ctx();
    store.replay_towards(&mut ctx, 2);
    store.end_batch();
    let read = Op::Replay(ReplayStep::Read(1));
    store.on_disk(&mut ctx, read, DiskResult::Bytes(logs[0].clone()));
    ctx.take_effects();
    let link = store.closed[&1].link;
    store.on_disk(&mut ctx, Op::Replay(ReplayStep::Segment(link)), DiskResult::Done);
    assert_eq!(replaced(&mut ctx)[0].0, "E00/E00.chk");
}

/// Log 3 follows a log 2 that is written anew as little as a log 3 that is: each goes before one of its number is there.
#[test]
fn what_a_mount_goes_without_is_set_aside_before_a_new_log_is_opened() {
    let (mut store, logs) = store(&[
        &[Put::Message(1, b"one")],
        &[Put::Message(2, b"two")],
        &[Put::Message(3, b"three")],
    ]);
    let mut ctx = ctx();
    store.reserved = true;
    store.cut_from(2);
    store.mount(&mut ctx, 2);
    ctx.take_effects();
    let read = Op::Mount(MountRead::Log(1));
    let mounted = store.on_disk(&mut ctx, read, DiskResult::Bytes(logs[0].clone()));
    assert_eq!(mounted, [Outcome::Mounted]);
    let moved = |e: Effect| match e {
        Effect::Disk { action, .. } => match action {
            DiskAction::Rename { from, to } => Some((from, to)),
            DiskAction::Append { file, .. } => Some((file, "written".into())),
            _ => None,
        },
        _ => None,
    };
    let moved: Vec<_> = ctx.take_effects().into_iter().filter_map(moved).take(3).collect();
    let expected = [
        ("E00/E0000000002.log", "E00/E0000000002.log.bad-1"),
        ("E00/E0000000003.log", "E00/E0000000003.log.bad-2"),
        ("E00/E00.log", "written"),
    ];
    assert_eq!(moved, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert!(!store.needs_rewind());
}

/// What the disk holds after what it was asked to do.
fn files(ctx: &mut Ctx<GroupOp>) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for effect in ctx.take_effects() {
        let Effect::Disk { action, .. } = effect else { continue };
        match action {
            DiskAction::Append { file, bytes } => files.entry(file).or_default().extend(bytes),
            DiskAction::SetLen { file, len } => files.get_mut(&file).unwrap().resize(len as usize, 0),
            DiskAction::Rename { from, to } => {
                let bytes = files.remove(&from).unwrap();
                files.insert(to, bytes);
            }
            DiskAction::Delete { file } => _ = files.remove(&file),
            DiskAction::Sync { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    files
}

/// A message of exactly `len` bytes, or of its head alone, with a key of `chars` characters.
fn message(key: char, chars: usize, len: usize) -> Vec<u8> {
    let key = key.to_string().repeat(chars);
    let mut message = format!("Message-ID: <{key}>\r\n\r\n").into_bytes();
    message.resize(len.max(message.len()), b'x');
    message
}

proptest! {
    #[test]
    fn what_is_accepted_is_whole_in_a_generation_of_exact_size(
        messages in proptest::collection::vec((
            prop_oneof![Just(MAX_MAILBOX), 1..=MAX_MAILBOX],
            prop_oneof![Just(log::MAX_HUB_ID), 0..=log::MAX_HUB_ID],
            prop_oneof![Just('𝄞'), Just('é'), Just('k')],
            prop_oneof![Just(128), 0usize..=200],
            prop_oneof![Just(0), 0usize..=40, 0..SIZE as usize, 0..LONGEST as usize],
            any::<bool>(),
        ), 1..6)
    ) {
        let (mut store, mut ctx) = (Store::new(0, "Group0", SIZE, LONGEST), ctx());
        store.open_new(&mut ctx, 1);
        let mut bodies = Vec::new();
        let mut mailboxes = BTreeSet::new();
        let sync = |store: &mut Store, ctx: &mut _| {
            while store.writer.as_ref().is_some_and(|w| !w.flights.is_empty()) {
                store.on_synced(ctx);
            }
        };
        for (n, (mailbox, hub_id, key, chars, below, synced)) in messages.into_iter().enumerate() {
            let fits = if n % 2 == 0 { store.max_message() } else { log::max_message(SIZE) };
            let body = Arc::new(message(key, chars, fits.saturating_sub(below)));
            prop_assert!(body.len() <= store.max_message());
            let mailbox = mailbox_of(&"m".repeat(mailbox)).unwrap();
            mailboxes.insert(mailbox.clone());
            let change = Change::Store {
                mailbox: &mailbox,
                // Not twice the same: that would be a duplicate.
                hub_id: &(0..hub_id).map(|_| char::from(b'a' + n as u8)).collect::<String>(),
                key: &message_key(&body),
                body: &body,
            };
            store.change(&mut ctx, n as u64, 0, change);
            bodies.push(body.to_vec());
            if synced {
                sync(&mut store, &mut ctx);
            }
        }
        sync(&mut store, &mut ctx);
        store.roll(&mut ctx);
        let files = files(&mut ctx);
        let mut index = crate::store::index::Index::default();
        for (_, bytes) in files.iter().filter(|(name, _)| name.starts_with("E00/E000")) {
            index.apply(&log::inspect(bytes, SIZE as usize).unwrap());
        }
        let mut found = BTreeMap::new();
        for entry in mailboxes.iter().flat_map(|m| index.list(m)) {
            let piece = |p: crate::store::pieces::Piece| {
                &files[&store.log_file(p.generation)][p.at as usize..(p.at + p.len) as usize]
            };
            found.insert(entry.label.seq, entry.pieces().map(piece).collect::<Vec<_>>().concat());
        }
        prop_assert_eq!(found.into_values().collect::<Vec<_>>(), bodies);
    }
}
