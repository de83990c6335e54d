//! Parts of a segment that changes under way. The simulator's segments fit into one part.

use super::*;
use crate::chain::Stream;
use crate::io::{Boot, Effect, Now};
use crate::op::{CopyStep, Pending};
use crate::replication::copy::Role;
use crate::store::log::{FileKind, Header, Label};

const STREAM: Stream = Stream([7; 16]);

/// A segment with one message of so many bytes, as it was and as compaction leaves it.
fn segments(len: usize) -> (ChainLink, Vec<u8>, Vec<u8>) {
    let header = Header {
        kind: FileKind::Segment,
        stream: STREAM,
        generation: 1,
        epoch: 1,
        previous: 0,
    };
    let label = Label {
        seq: 1,
        mailbox: "ann".into(),
        hub_id: "hub-1".into(),
        key: String::new(),
    };
    let mut bytes = header.encode().to_vec();
    log::put_message(&mut bytes, &label, &vec![b'x'; len]);
    let checksum = crc32c::crc32c(&bytes);
    log::put_end(&mut bytes, checksum);
    let link = ChainLink {
        generation: 1,
        epoch: 1,
        checksum,
    };
    let scan = log::segment(&bytes).unwrap();
    let (smaller, _) = log::compacted(&bytes, &scan, |_| true);
    (link, bytes, smaller)
}

struct Rig {
    ctx: Ctx<Pending>,
    store: Store,
    copy: Copy,
}

impl Rig {
    /// A copy that was offered a database of one segment, and has asked for it.
    fn new(checkpoint: ChainLink) -> Self {
        let mut ctx = Ctx::new(&Boot {
            entropy: 1,
            version: "test".into(),
            planted: None,
        });
        ctx.begin(Now::default());
        let mut copy = Copy::new();
        copy.role = Role::Follow;
        let mut rig = Self {
            store: Store::new(0, "Group0", 1 << 20, 1 << 20),
            ctx,
            copy,
        };
        rig.copy.begin_seed(&mut rig.ctx, &mut rig.store, "a test");
        rig.again();
        rig.offer(checkpoint);
        rig
    }
    /// The pause is over.
    fn again(&mut self) {
        let Stage::Seeding(seeding) = &mut self.copy.stage else {
            panic!("{:?}", self.copy.stage)
        };
        assert!(matches!(seeding.step, SeedStep::Waiting(_)), "{:?}", seeding.step);
        seeding.step = SeedStep::Waiting(0);
        let mut out = Vec::new();
        self.copy
            .drive_seed(&mut self.ctx, &mut self.store, &mut out, &mut false);
        assert_eq!(out, [Msg::Seed { group: 0 }]);
    }
    fn offer(&mut self, checkpoint: ChainLink) {
        let stream = STREAM.to_string();
        let offer = Msg::Offer {
            group: 0,
            stream,
            checkpoint,
        };
        let out = self.copy.on_msg(&mut self.ctx, &mut self.store, &offer, &[]);
        assert_eq!(requested(&out), Some(0));
    }
    /// A part arrives: what is asked for next.
    fn part(&mut self, offset: usize, bytes: &[u8], total: usize) -> Option<u64> {
        let part = Msg::SegmentPart {
            group: 0,
            generation: 1,
            offset: offset as u64,
            total: total as u64,
        };
        let out = self.copy.on_msg(&mut self.ctx, &mut self.store, &part, bytes);
        requested(&out)
    }
    /// What was written into the seed folder.
    fn written(&mut self) -> Vec<Vec<u8>> {
        let disk = |e: Effect| match e {
            Effect::Disk {
                action: DiskAction::Replace { file, bytes },
                ..
            } if file.starts_with("E00/seed/") => Some(bytes),
            _ => None,
        };
        self.ctx.take_effects().into_iter().filter_map(disk).collect()
    }
}

fn requested(out: &[Msg]) -> Option<u64> {
    match out {
        [] => None,
        [
            Msg::Segment {
                generation: 1, offset, ..
            },
        ] => Some(*offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_that_the_source_makes_smaller_under_way_is_begun_again() {
    let (link, whole, smaller) = segments(10_000);
    // Its rest is shorter than before, or there is none and it comes from the beginning.
    for from_start in [false, true] {
        let mut rig = Rig::new(link);
        assert_eq!(rig.part(0, &whole[..100], whole.len()), Some(100));
        let end = smaller.len();
        if !from_start {
            assert_eq!(rig.part(100, &smaller[100..end - 1], end), Some(0));
        }
        assert_eq!(rig.part(0, &smaller, end), None);
        assert_eq!(rig.written(), std::slice::from_ref(&smaller));
    }
}

#[test]
fn a_part_that_does_not_fit_is_asked_for_three_times_and_a_verified_segment_begins_the_count_anew() {
    let (link, whole, _) = segments(1_000);
    let mut rig = Rig::new(link);
    for n in 1..=3 {
        // The file ends before its end.
        assert_eq!(rig.part(0, &whole[..100], whole.len()), Some(100));
        assert_eq!(rig.part(100, &[], whole.len()), None);
        assert_eq!(matches!(rig.copy.stage, Stage::Failed), n == 3);
        if n < 3 {
            rig.again();
            rig.offer(link);
        }
    }
    let error = rig.copy.error.clone().unwrap_or_default();
    assert!(error.contains("segment 1 ends at byte 100 of"), "{error}");
    assert!(!rig.store.source_state.reseed);

    let mut rig = Rig::new(link);
    rig.part(0, &[], whole.len());
    rig.again();
    rig.offer(link);
    assert_eq!(rig.part(0, &whole, whole.len()), None);
    let done = |rig: &mut Rig, step, result| rig.copy.on_disk(&mut rig.ctx, &mut rig.store, step, result);
    done(&mut rig, CopyStep::SeedSegment(link), DiskResult::Done);
    done(&mut rig, CopyStep::SeedRead(link), DiskResult::Bytes(whole));
    let Stage::Seeding(seeding) = &rig.copy.stage else {
        panic!("{:?}", rig.copy.stage)
    };
    assert!(
        seeding.tries == 0 && matches!(seeding.step, SeedStep::Settling),
        "{seeding:?}"
    );
}
