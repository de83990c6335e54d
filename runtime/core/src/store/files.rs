//! The small files of a group, and what becomes of a file that cannot be used: nothing is deleted because it was not read or not
//! understood.

use super::{Store, UNREAD_MS};
use crate::chain::ChainLink;
use crate::ctx::Ctx;
use crate::durable::{self, NotUnderstood};
use crate::io::{DiskAction, DiskResult};
use crate::op::{GroupOp, Op};
use ccr_contract::event::{CopyFault, EventKind, Severity};
use serde::{Deserialize, Serialize};

/// The schema of `E00.chk` and `E00.src`.
const SCHEMA: u64 = 1;

/// Content of `E00.chk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The stream, hexadecimal.
    pub stream: String,
    /// The last log that the database holds; generation 0 for an empty database.
    pub link: ChainLink,
    /// Of a seed's marker: why the files of the old copy are kept under other names, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
}

/// Content of `E00.src`: what a copy must remember although it has not copied it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The last generation that the source is known to have closed.
    pub generated: u64,
    /// Whether an operator suspended the copy.
    #[serde(default)]
    pub suspended: bool,
    /// Whether the copy was found broken and must be seeded anew.
    #[serde(default)]
    pub broken: bool,
    /// Where it was broken because its history is another one: the last log that the source has too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common: Option<u64>,
    /// The last epoch whose logs this node has written itself or has been compared with.
    #[serde(default)]
    pub verified: u64,
    /// Closed logs up to this one are backed up.
    #[serde(default)]
    pub backed_up: u64,
    /// A seed of an older ccrd, which removed the old copy first, is not whole yet: what there is of a database without a
    /// checkpoint may go.
    #[serde(default, skip_serializing_if = "is_false")]
    pub seeding: bool,
    /// A seed has begun and is not whole yet: it is begun again, beside the copy that is here.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reseed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(b: &bool) -> bool {
    !*b
}

impl Checkpoint {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        durable::encode(SCHEMA, self)
    }
    /// Reads the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        durable::decode(SCHEMA, bytes)
    }
}

impl SourceState {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        durable::encode(SCHEMA, self)
    }
    /// Reads the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        durable::decode(SCHEMA, bytes)
    }
}

impl Store {
    pub(crate) fn save_checkpoint(&self, ctx: &mut Ctx<impl From<GroupOp>>, op: Op, link: ChainLink) {
        let stream = self.stream.map(|s| s.to_string()).unwrap_or_default();
        let bytes = Checkpoint {
            stream,
            link,
            keep: None,
        }
        .encode();
        let file = self.file(".chk");
        self.disk(ctx, op, DiskAction::Replace { file, bytes });
    }
    pub(crate) fn save_source_state(&self, ctx: &mut Ctx<impl From<GroupOp>>) {
        if self.quarantined {
            return;
        }
        let bytes = self.source_state.encode();
        let file = self.file(".src");
        self.disk(ctx, Op::Quiet, DiskAction::Replace { file, bytes });
    }
    /// Keeps a file under a name that says so: `E00.log.bad-1`.
    pub(crate) fn set_aside(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, file: String, why: &str) {
        let to = format!("{file}.bad-{}", self.next_bad);
        self.next_bad += 1;
        ctx.event(EventKind::LogSetAside {
            group: self.name.clone(),
            file: file.clone(),
            to: to.clone(),
            why: why.to_owned(),
        });
        self.disk(ctx, Op::Quiet, DiskAction::Rename { from: file, to });
    }
    /// The open log of an earlier life is no part of the stream: it goes, or is kept where it holds more than could be read.
    pub(crate) fn drop_open(&mut self, ctx: &mut Ctx<impl From<GroupOp>>) {
        let file = self.file(".log");
        match self.open_damage.take() {
            Some(why) => self.set_aside(ctx, file, &why),
            None => self.disk(ctx, Op::Quiet, DiskAction::Delete { file }),
        }
    }
    /// The copy of this group has failed.
    pub(crate) fn report_failed(&self, ctx: &mut Ctx<impl From<GroupOp>>, why: &str, fault: Option<CopyFault>) {
        ctx.event(self.failed(why, fault));
    }
    /// Something is wrong with the copy of this group that it may get over by itself.
    pub(crate) fn report_trouble(&self, ctx: &mut Ctx<impl From<GroupOp>>, why: &str, fault: Option<CopyFault>) {
        ctx.event_at(Severity::Warning, self.failed(why, fault));
    }
    fn failed(&self, why: &str, fault: Option<CopyFault>) -> EventKind {
        EventKind::CopyFailed {
            group: self.name.clone(),
            why: why.to_owned(),
            fault,
            epoch: None,
        }
    }
    /// Something could not be read: it is told, and tried again later.
    pub(super) fn unread(&mut self, ctx: &mut Ctx<impl From<GroupOp>>, what: &str, result: &DiskResult) -> String {
        let why = format!("{what} cannot be read: {result:?}");
        ctx.event(EventKind::LogUnreadable {
            group: self.name.clone(),
            why: why.clone(),
        });
        self.reread_at = ctx.after_ms(UNREAD_MS);
        why
    }
    /// Why the group may not be mounted now although it could be later.
    pub(crate) fn held(&self, now: u64) -> Option<&str> {
        let (until, why) = self.hold.as_ref()?;
        (now < *until).then_some(why.as_str())
    }
    /// When it may be mounted again, where it may not now.
    pub(crate) fn held_until(&self, now: u64) -> Option<u64> {
        self.hold.as_ref().map(|(until, _)| *until).filter(|at| *at > now)
    }
}
