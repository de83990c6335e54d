//! Every event of the runtime: its name, the number that the original gives it, how much it matters, and its fields. Written once.

use super::{Claimant, CopyFault, Data, Field, OnlineCause, Severity};
use crate::status::CopyStatus;

/// The name of a field in the JSON.
macro_rules! wire {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

/// `Variant "name" NUMBER, Severity { field ["name in JSON"]: type }`. The number is `none` where the original has none. Of two
/// variants of one name the first counts whose fields are all there.
macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident $name:literal $number:expr, $severity:ident
        { $($field:ident $($wire:literal)?: $type:ty),* $(,)? })*) => {
        /// What a node tells of. Every event of the cluster and of the service carries `epoch`, every event of a storage group `group`.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum EventKind {
            $($(#[$doc])* $variant {
                $(#[doc = concat!("`", wire!($field $($wire)?), "` of the data.")] $field: $type),*
            },)*
            /// Of a name that this build does not know, or without what this build takes for a part of it. It is passed on as it is.
            Unknown {
                /// Its name.
                name: String,
                /// Its data.
                data: Data,
            },
        }

        impl EventKind {
            /// Each kind's name, and the fields that it always has.
            pub const SHAPES: &[(&str, &[&str])] = &[
                $(($name, {
                    const FIELDS: &[(&str, bool)] = &[$((wire!($field $($wire)?), <$type as Field>::OPTIONAL)),*];
                    const COUNT: usize = required(FIELDS);
                    const NAMES: [&str; COUNT] = names(FIELDS);
                    &NAMES
                }),)*
            ];

            /// Its dotted name: `cluster.member-down`.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                    Self::Unknown { name, .. } => name,
                }
            }

            /// Its data.
            pub fn data(&self) -> Data {
                match self {
                    $(Self::$variant { $($field),* } => {
                        let fields = [$((wire!($field $($wire)?), $field.put())),*];
                        let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
                        there.collect()
                    })*
                    Self::Unknown { data, .. } => data.clone(),
                }
            }

            /// What an event of this name says.
            pub fn read(name: &str, data: &Data) -> Self {
                $(if name == $name
                    && let Some(whole) = (|| Some(Self::$variant { $($field: Field::take(data.get(wire!($field $($wire)?)))?),* }))()
                {
                    return whole;
                })*
                Self::Unknown { name: name.to_owned(), data: data.clone() }
            }

            fn usual_number(&self) -> Option<u32> {
                match self {
                    $(Self::$variant { .. } => $number,)*
                    Self::Unknown { .. } => None,
                }
            }

            fn usual_severity(&self) -> Severity {
                match self {
                    $(Self::$variant { .. } => Severity::$severity,)*
                    Self::Unknown { .. } => Severity::Info,
                }
            }
        }
    };
}

const fn required(fields: &[(&str, bool)]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < fields.len() {
        if !fields[at].1 {
            count += 1;
        }
        at += 1;
    }
    count
}

const fn names<const N: usize>(fields: &[(&'static str, bool)]) -> [&'static str; N] {
    let (mut names, mut at, mut count) = ([""; N], 0, 0);
    while at < fields.len() {
        if !fields[at].1 {
            names[count] = fields[at].0;
            count += 1;
        }
        at += 1;
    }
    names
}

impl EventKind {
    /// The number that the original gives it, where it has one (ccr-semantics 11).
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Path { up: true, .. } => Some(1122),
            Self::Path { up: false, .. } => Some(1123),
            _ => self.usual_number(),
        }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Path { up: false, .. } => Severity::Warning,
            Self::Ended {
                served, given: false, ..
            } if *served != 0 => Severity::Warning,
            _ => self.usual_severity(),
        }
    }

    /// Whether this build knows an event of this name, and this one is not like it.
    pub fn is_garbled(&self) -> bool {
        matches!(self, Self::Unknown { name, .. } if Self::SHAPES.iter().any(|(known, _)| known == name))
    }
}

events! {
    /// This node is up in a cluster that it formed.
    ClusterFormed "cluster.formed" None, Info { epoch: u64 }
    /// This node joined the cluster of the other one.
    ClusterJoined "cluster.joined" None, Info { epoch: u64 }
    /// The other member is part of the cluster now.
    MemberUp "cluster.member-up" None, Info { member: String, epoch: u64 }
    /// The other member was removed.
    MemberDown "cluster.member-down" Some(1135), Warning { member: String, why: String, epoch: u64 }
    /// One direction of a path was lost (1123) or regained (1122).
    Path "cluster.path" None, Info { network: String, from: String, to: String, up: bool, epoch: u64 }
    /// The shared record changed hands or content.
    Regroup "cluster.regroup" None, Info { epoch: u64, tag: u64, owner: String, quorum_owner: String }
    /// This node begins to arbitrate at the witness.
    ArbitrationBegin "cluster.arbitration-begin" None, Info { claimant "as": Claimant, epoch: u64 }
    /// It holds the witness file.
    ArbitrationWon "cluster.arbitration-won" None, Info { claimant "as": Claimant, epoch: u64 }
    /// It does not.
    ArbitrationLost "cluster.arbitration-lost" None, Warning { why: String, epoch: u64 }
    /// No majority any more: this node serves nothing.
    QuorumLost "cluster.quorum-lost" Some(1177), Error { why: String, epoch: u64 }
    /// Refused to form: the witness has seen a newer cluster, of epoch `seen`.
    PartitionInTime "cluster.partition-in-time" Some(1573), Error { seen: u64, seen_tag: u64, epoch: u64, tag: u64 }
    /// Formed without a majority by an operator. `recorded`: whether the witness has it, so that nothing that the witness
    /// knows was given up.
    QuorumForced "cluster.quorum-forced" None, Warning { epoch: u64, recorded: bool, why: String }
    /// A probe of the witness succeeded after a failure, or for the first time.
    WitnessOk "cluster.witness-ok" None, Info { epoch: u64 }
    /// A probe failed after a success, or the first one.
    WitnessFailed "cluster.witness-failed" Some(1562), Warning { error: String, epoch: u64 }
    /// The cluster service restarts, for new heartbeat settings.
    Restarting "cluster.restarting" None, Info { why: String, epoch: u64 }
    /// A live setting changed.
    Configured "cluster.configured" None, Info { key: String, value: String, tag: u64, epoch: u64 }
    /// A resource of a group failed on this node.
    ResourceFailed "cluster.resource-failed" Some(1069), Error { resource: String, why: String, epoch: u64 }
    /// The daemon was told to end, and does. `served`: the epoch in which it was up, or 0; `given`: whether the other member has
    /// everything; `late`: whether the time was over.
    Ended "cluster.ended" None, Info { served: u64, given: bool, late: bool, why: String, epoch: u64 }
    /// The service group comes online here.
    OnlinePending "service.online-pending" None, Info { why: OnlineCause, epoch: u64 }
    /// The databases are mounted, `ms` after it began to come online.
    Mounted "service.mounted" None, Info { ms: u64, epoch: u64 }
    /// It serves, `ms` after it began to come online.
    Online "service.online" None, Info { ms: u64, epoch: u64 }
    /// It is up without one or all of its databases.
    PartiallyOnline "service.partially-online" None, Info { ms: u64, epoch: u64 }
    /// An operator has databases mounted whatever is lost.
    LossAccepted "service.loss-accepted" None, Warning { epoch: u64 }
    /// It does not serve here any more. `orderly`: whether what was acknowledged is on the other member, or the cluster knows who
    /// alone has it, so that nothing is lost unless an operator accepts that.
    Offline "service.offline" None, Info { why: String, orderly: bool, epoch: u64 }
    /// Answers were held back because the lease was not valid, or the address was given away for that.
    Fenced "service.fenced" None, Warning { why: String, epoch: u64 }
    /// The lease is valid again, and the address is back: it serves as before.
    Resumed "service.resumed" None, Info { why: String, epoch: u64 }
    /// A planned move was carried out, `ms` after the service was given away, and the new owner serves in `epoch`.
    MoveDone "service.move" Some(100), Info { to: String, ms: u64, done: bool, epoch: u64 }
    /// A planned move was refused, or broken off.
    MoveRefused "service.move" None, Warning { to: String, why: String, epoch: u64 }
    /// A planned move begins. `verified`: files that the target has read before.
    MoveBegun "service.move" None, Info { to: String, comment: String, verified: Option<u64>, epoch: u64 }
    /// An operator orders the service to stop, and why.
    StopOrdered "service.stop" None, Info { comment: String, epoch: u64 }
    /// A hub was asked to deliver again, and has queued `count` messages.
    RedeliveryAsked "service.redelivery-asked" Some(2099), Info { hub: String, epoch: u64, count: u64, ok: bool }
    /// A new generation was opened at a mount.
    LogOpened "log.opened" None, Info { group: String, stream: String, generation: u64, epoch: u64 }
    /// A generation was closed. `checksum`: of the whole log, eight hexadecimal digits.
    LogClosed "log.closed" None, Info { group: String, stream: String, generation: u64, epoch: u64, checksum: String }
    /// A torn tail of so many bytes was cut during recovery; `left` are there.
    LogTorn "log.torn" None, Warning { group: String, bytes: u64, left: u64 }
    /// A file that is damaged, or not understood, is kept under another name.
    LogSetAside "log.set-aside" None, Error { group: String, file: String, to: String, why: String }
    /// A log or segment could not be read; it is tried again.
    LogUnreadable "log.unreadable" None, Warning { group: String, why: String }
    /// What was flushed of the open log is damaged.
    LogDamaged "log.damaged" None, Error { group: String, why: String }
    /// Closed generations up to this one were removed.
    LogTruncated "log.truncated" None, Debug { group: String, through: u64 }
    /// The log disk is full.
    LogFull "log.full" None, Error { group: String }
    /// A segment of the database was written anew without the messages that are deleted: of `from` bytes `to` are left.
    DatabaseCompacted "database.compacted" None, Debug { group: String, generation: u64, from: u64, to: u64 }
    /// A segment or closed log of the node that serves is damaged or gone; nothing is deleted.
    DatabaseDamaged "database.damaged" None, Error { group: String, why: String }
    /// It was fetched from the other member, and is whole again but for messages that were deleted there.
    DatabaseRepaired "database.repaired" None, Info { group: String, what: String, lacks: u64 }
    /// A generation passed inspection.
    CopyInspected "copy.inspected" None, Info { group: String, generation: u64 }
    /// A generation was replayed.
    CopyReplayed "copy.replayed" None, Info { group: String, generation: u64 }
    /// An inspection failed; at a start, without a number of the attempt.
    CopyInspectionFailed "copy.inspection-failed" None, Warning {
        group: String, generation: u64, attempt "try": Option<u64>, why: String,
    }
    /// The copy needs a reseed; as a warning, a file of it is fetched again. Nodes of before `fault` said it in `why` only.
    CopyFailed "copy.failed" None, Error { group: String, why: String, fault: Option<CopyFault>, epoch: Option<u64> }
    /// The status of a copy changed; `from` is `none` at the first time.
    CopyStatusChanged "copy.status" None, Info { group: String, from: String, to: CopyStatus }
    /// An operator suspends copying and replay, and why.
    CopySuspendOrdered "copy.suspend" None, Info { group: String, comment: String }
    /// A full copy of the database begins.
    CopySeeding "copy.seeding" None, Info { group: String, why: String }
    /// A full copy of the database is complete.
    CopySeeded "copy.seeded" None, Info { group: String, generation: u64 }
    /// Logs of this copy behind `common` are not those of the source.
    CopyDiverged "copy.diverged" None, Warning { group: String, common: u64, ours: u64 }
    /// They cannot be dropped: the database has taken them in up to `replayed`.
    CopyBeyondResync "copy.diverged" Some(2058), Error { group: String, common: u64, replayed: u64 }
    /// Divergent logs were dropped.
    CopyResynced "copy.resynced" None, Info { group: String, from: u64, to: u64 }
    /// Mounted with a loss.
    CopyLost "copy.lost" None, Warning { group: String, from: u64, to: u64, lost: u64, epoch: u64 }
    /// Not mounted: more is lost than the dial allows, or the copy cannot be mounted.
    DialRefused "copy.dial-refused" None, Error { group: String, lost: u64, tolerated: u64, epoch: u64, why: String }
    /// A message was accepted.
    HubQueued "hub.queued" None, Info { id: String }
    /// A message was delivered.
    HubDelivered "hub.delivered" None, Debug { id: String, by_node: String, by_epoch: u64 }
    /// Messages of the dumpster were queued again.
    HubRedelivery "hub.redelivery" None, Info { count: u64, epoch: u64 }
    /// A message on the disk is not understood, or gone; where it is there, it is kept as `….bad`.
    HubSetAside "hub.set-aside" None, Error { id: String, why: String }
    /// A message that had been set aside is understood now, and queued again.
    HubTakenAgain "hub.taken-again" None, Info { id: String }
    /// A delivery was acknowledged with an older epoch than was `seen`, and is queued again.
    HubFenced "hub.fenced" None, Warning { id: String, epoch: u64, seen: u64 }
    /// A recipient was refused for good.
    HubRefused "hub.refused" None, Warning { id: String, why: String }
    /// The sender `to` of a message that was refused for a recipient is told so by the message `bounce`.
    HubBounced "hub.bounced" None, Info { id: String, bounce: String, to: String }
    /// Messages left the dumpster by size or age.
    HubEvicted "hub.evicted" None, Info { count: u64 }
}

#[cfg(test)]
mod tests;
