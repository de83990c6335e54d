//! The folder in which a seed gathers a new database beside the old one, and the switch from the one to the other.
//!
//! ```text
//! E00/seed/E0000000001.edb …   segments that were fetched, read back and verified
//! E00/seed/E00.chk             the marker: the new checkpoint; it is written when every segment is there
//! ```
//! Until the marker is durable the old database, its logs and its checkpoint are untouched. From then on the switch is
//! finished by whichever recovery finds the marker: the old files go (or are set aside, where they were not understood), then
//! the segments are moved one by one, and last the marker becomes the checkpoint. As the old files go before the first segment
//! is moved, a seed folder that lacks a segment says that they are gone, and whatever lies beside it is new.

use super::recovery::Recovery;
use super::{Checkpoint, SourceState, Store};
use crate::chain::ChainLink;
use crate::ctx::Ctx;
use crate::io::DiskAction;
use crate::op::{GroupOp, Op};

impl Store {
    pub(super) fn seed_folder(&self) -> String {
        format!("{}/seed", self.folder())
    }
    /// A segment that a seed has fetched.
    pub(crate) fn seed_file(&self, generation: u64) -> String {
        format!("{0}/seed/{0}{generation:08X}.edb", self.prefix())
    }
    /// The marker of a seed that is whole.
    pub(super) fn seed_marker(&self) -> String {
        format!("{0}/seed/{0}.chk", self.prefix())
    }

    /// Removes what a seed has gathered. A marker that is not understood is kept under another name.
    pub(crate) fn clear_seed(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let marker = self.seed_marker();
        if let Some(why) = self.damage.clone().filter(|why| why.starts_with(&marker)) {
            self.set_aside(ctx, marker, &why);
        }
        for file in std::mem::take(&mut self.seeded) {
            self.disk(ctx, Op::Quiet, DiskAction::Delete { file });
        }
    }

    /// A fetched segment goes to the seed folder.
    pub(crate) fn write_seed(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, op: Op, generation: u64, bytes: Vec<u8>) {
        let file = self.seed_file(generation);
        self.seeded.insert(file.clone());
        self.disk(ctx, op, DiskAction::Replace { file, bytes });
    }

    /// Every segment is there: writes the marker. Behind it there is no way back.
    pub(crate) fn mark_seed(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, op: Op, stream: &str, link: ChainLink) {
        let stream = stream.to_owned();
        let keep = self.quarantined.then(|| self.damage.clone().unwrap_or_default());
        let bytes = Checkpoint { stream, link, keep }.encode();
        let file = self.seed_marker();
        self.disk(ctx, op, DiskAction::Replace { file, bytes });
    }

    /// A recovery has found the marker: what is left of the switch is queued.
    pub(super) fn switch(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, marker: &Checkpoint, recovery: &Recovery) {
        self.note_files(recovery);
        let fetched = |name: &String| {
            let g = self.generation_of(name, ".edb")?;
            (1..=marker.link.generation).contains(&g).then_some(g)
        };
        let fetched: Vec<u64> = recovery.seed.iter().filter_map(|(n, _)| fetched(n)).collect();
        if fetched.len() as u64 == marker.link.generation {
            for file in std::mem::take(&mut self.found) {
                match &marker.keep {
                    // An operator gives up what is not understood here: it is kept all the same, out of the way.
                    Some(why) => self.set_aside(ctx, file, why),
                    None if file.ends_with(".src") => {}
                    None => self.disk(ctx, Op::Quiet, DiskAction::Delete { file }),
                }
            }
            // What was known of the old database does not matter any more.
            let (file, bytes) = (self.file(".src"), SourceState::default().encode());
            self.disk(ctx, Op::Quiet, DiskAction::Replace { file, bytes });
        }
        for g in fetched {
            let (from, to) = (self.seed_file(g), self.segment_file(g));
            self.disk(ctx, Op::Quiet, DiskAction::Rename { from, to });
        }
        let (from, to) = (self.seed_marker(), self.file(".chk"));
        self.disk(ctx, Op::Quiet, DiskAction::Rename { from, to });
    }
}
