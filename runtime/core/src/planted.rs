//! Bugs that are planted on purpose, to prove that the simulator and the checkers find them. They exist only with the Cargo
//! feature `planted-bugs`, which is never a default, and do nothing until one is chosen at run time ([`crate::io::Boot`]).

/// Whether this build can play any.
pub const AVAILABLE: bool = cfg!(feature = "planted-bugs");

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledge before the flush has returned.
    AckBeforeFlush,
    /// Follow a source without comparing the chains, and take in logs that do not follow the one before.
    SkipChainCheck,
    /// Believe in the lease as long as the boot-time clock alone allows it.
    LeaseByBootClock,
    /// Answer once after a pause without a look at the lease.
    IgnoreLeaseAfterPause,
    /// Count a witness file that the other one holds as won.
    BothWinArbitration,
    /// Store a delivery however often it comes.
    DropDuplicateCheck,
    /// Count a witness that cannot be reached as a vote.
    UnreachableWitnessVotes,
    /// Ship the log that is still being written.
    ShipOpenLog,
    /// Mount whatever is lost.
    MountBeyondDial,
    /// Know a delivery by the hub's id alone, whoever the recipient is.
    DedupeWithoutRecipient,
    /// Remove logs that the other node has not replayed.
    TruncateAlone,
    /// Serve whatever was promised to the other member.
    IgnorePromise,
    /// Forget at a start what an earlier life may have promised.
    ForgetPromise,
    /// Answer a client of a hub before its message is durable.
    QueuedBeforeDurable,
    /// Take a folder that cannot be listed for an empty one.
    UnlistedIsEmpty,
    /// Take a checkpoint that cannot be read for one that is not there.
    UnreadCheckpointIsNone,
    /// Take the note of the source for none where it cannot be read, and for a good one where it was never compared.
    UnreadSourceIsNone,
    /// Skip a message of the queue that cannot be read.
    UnreadMessageIsNone,
    /// Go on with the next log where the source does not have one.
    IgnoreGap,
    /// Call a copy Healthy before its chain was compared with that of a new source.
    HealthyUncompared,
    /// Keep the lease of before when the service here wants none any more.
    KeepLease,
    /// Believe a datagram of an earlier life of the other member.
    BelieveEarlierLife,
    /// Read the bodies of a whole queue at once.
    LoadEveryBody,
    /// Say that the copy has everything without a look at what it has inspected.
    GiveUninspected,
    /// Serve, or go on serving, although an operator has stopped the service.
    ServeThoughStopped,
    /// Wait three times as long as agreed until a member that is silent counts as gone.
    NoticeLate,
    /// Leave the epoch out of what is told of a path.
    TellNoEpoch,
    /// Acknowledge a message that spans generations when its first part is durable.
    AckFirstPart,
    /// Take the parts of messages out of a segment that is written anew, whether they are deleted or not.
    CompactParts,
    /// Give the first piece of a message for all of it.
    GiveFirstPiece,
}

impl Bug {
    /// All of them, with the invariants of which one must break.
    pub const ALL: [(Bug, &'static [&'static str]); 30] = [
        (Bug::AckBeforeFlush, &["I3"]),
        (Bug::SkipChainCheck, &["I5", "I6"]),
        (Bug::LeaseByBootClock, &["I1"]),
        (Bug::IgnoreLeaseAfterPause, &["I1"]),
        (Bug::BothWinArbitration, &["I1", "I7"]),
        (Bug::DropDuplicateCheck, &["I4"]),
        (Bug::UnreachableWitnessVotes, &["I1", "I7"]),
        (Bug::ShipOpenLog, &["I5"]),
        (Bug::MountBeyondDial, &["I3"]),
        (Bug::DedupeWithoutRecipient, &["I3"]),
        (Bug::TruncateAlone, &["I12"]),
        (Bug::IgnorePromise, &["I1"]),
        (Bug::ForgetPromise, &["I1"]),
        (Bug::QueuedBeforeDurable, &["I3"]),
        (Bug::UnlistedIsEmpty, &["I3"]),
        (Bug::UnreadCheckpointIsNone, &["I3", "I11", "I12"]),
        (Bug::UnreadSourceIsNone, &["I3"]),
        (Bug::UnreadMessageIsNone, &["I3"]),
        (Bug::IgnoreGap, &["I5", "I6", "I11"]),
        (Bug::HealthyUncompared, &["I9"]),
        (Bug::KeepLease, &["I1"]),
        (Bug::BelieveEarlierLife, &["I13"]),
        (Bug::LoadEveryBody, &["I14"]),
        (Bug::GiveUninspected, &["I2"]),
        (Bug::ServeThoughStopped, &["I10"]),
        (Bug::NoticeLate, &["I8"]),
        (Bug::TellNoEpoch, &["contract"]),
        (Bug::AckFirstPart, &["I3"]),
        (Bug::CompactParts, &["I3", "I5", "I11"]),
        (Bug::GiveFirstPiece, &["I4"]),
    ];
}
