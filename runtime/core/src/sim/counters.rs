//! How often things happened in a run or in a batch of runs.

use ccr_contract::event::{Claimant, EventKind};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often things happened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),* }
        impl Counters {
            /// Adds another run's.
            pub fn add(&mut self, other: &Counters) { $(self.$name += other.$name;)* }
            /// Names and values.
            pub fn all(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name)),*] }
        }
    };
}

counters! {
    /// Operations begun.
    operations,
    /// Answers of the store that left.
    store_answers,
    /// Generations closed.
    closed_generations,
    /// Steps of plans.
    faults,
    /// The service came online.
    role_changes,
    /// Arbitrations won by the previous owner of the quorum.
    arbitrations_won_by_owner,
    /// Arbitrations won by a challenger.
    arbitrations_won_by_challenger,
    /// Arbitrations lost.
    arbitrations_lost,
    /// Quorums lost.
    quorums_lost,
    /// Nodes refused to form because the witness had seen a newer cluster.
    partitions_in_time,
    /// Mounts with lost logs.
    lossy_mounts,
    /// Mounts refused by the dial.
    dial_refusals,
    /// Divergences found.
    divergences,
    /// Divergent logs dropped.
    incremental_reseeds,
    /// Full copies of a database completed.
    full_reseeds,
    /// Segments of a database written anew without what was deleted.
    compactions,
    /// Torn tails cut.
    torn_tails,
    /// Files torn by a loss of power.
    torn_files,
    /// Members that lost each other when one had just heard that the other one wants no lease.
    cuts_at_no_lease,
    /// Messages queued again by hubs.
    redeliveries,
    /// Answers with an old epoch that a hub did not count.
    fenced_deliveries,
    /// Answers held back for want of a lease.
    fenced_answers,
    /// Machines paused.
    machine_pauses,
    /// Processes paused.
    process_pauses,
    /// Power losses.
    power_offs,
    /// Quorums forced by an operator.
    forced_quorums,
    /// Live settings that took effect on a member.
    live_settings,
    /// Members evicted.
    evictions,
    /// Changes of the witness in force.
    witness_changes,
    /// Planned moves done.
    moves,
    /// Planned moves refused.
    moves_denied,
    /// Stops carried out.
    orderly_stops,
    /// Members that ended in order.
    orderly_ends,
    /// The same of ones that served and gave the other one everything.
    ends_that_gave_all,
    /// Daemons that stopped themselves after a failed write.
    halts,
    /// Log disks that were full.
    full_disks,
    /// Acknowledged deliveries lost with logs that were not inspected.
    lost_deliveries,
    /// Closed logs damaged or deleted on a disk.
    hurt_logs,
    /// Failed inspections.
    failed_inspections,
    /// Messages with several recipients.
    several_recipients,
    /// Messages that span generations.
    long_messages,
    /// Pieces of these that were read, all but the last.
    pieces_read,
    /// Daemons and machines that went in the middle of such a message.
    cut_in_a_message,
    /// Reads that failed.
    failed_reads,
    /// Listings that failed.
    failed_listings,
    /// Cuts that a loss of power undid.
    undone_cuts,
    /// Losses of power in the middle of a change of the disk.
    power_offs_mid_change,
    /// The same on hubs.
    hub_power_offs_mid_change,
    /// Bits flipped in files.
    flips,
    /// Files cut short.
    truncations,
    /// Sectors zeroed.
    zeroed_sectors,
    /// Files that went back to what they had been.
    older_copies,
    /// Files deleted.
    deletions,
    /// Damaged `cluster.json`.
    damaged_cluster_files,
    /// Damaged checkpoints.
    damaged_checkpoints,
    /// Damaged notes of the source.
    damaged_notes,
    /// Damage in the flushed part of an open log.
    damaged_open_logs,
    /// Damaged closed logs.
    damaged_closed_logs,
    /// Damaged segments.
    damaged_segments,
    /// Damaged `hub.json`.
    damaged_hub_files,
    /// Damaged messages in queues.
    damaged_queue_files,
    /// Damaged messages in dumpsters.
    damaged_dumpster_files,
    /// Damage that the atlas did not allow.
    spared,
    /// Datagrams held over a restart of their sender.
    held_datagrams,
    /// Orders of operators at any time.
    orders,
    /// Moves right behind a service that came online.
    moves_behind_online,
    /// Daemons and machines that went right behind a service that came online.
    ends_behind_online,
    /// Runs with heartbeats of less than a second.
    short_heartbeats,
    /// Runs with clocks that drift by a thousandth or more.
    drifting_clocks,
}

impl Counters {
    /// A node tells of something.
    pub(super) fn count(&mut self, what: &EventKind) {
        match what {
            EventKind::ArbitrationWon {
                claimant: Claimant::Owner,
                ..
            } => self.arbitrations_won_by_owner += 1,
            EventKind::ArbitrationWon { .. } => self.arbitrations_won_by_challenger += 1,
            EventKind::ArbitrationLost { .. } => self.arbitrations_lost += 1,
            EventKind::QuorumLost { .. } => self.quorums_lost += 1,
            EventKind::QuorumForced { .. } => self.forced_quorums += 1,
            EventKind::PartitionInTime { .. } => self.partitions_in_time += 1,
            EventKind::Configured { .. } => self.live_settings += 1,
            EventKind::Ended { .. } => self.orderly_ends += 1,
            EventKind::Online { .. } | EventKind::PartiallyOnline { .. } => self.role_changes += 1,
            EventKind::Fenced { .. } => self.fenced_answers += 1,
            EventKind::LogClosed { .. } => self.closed_generations += 1,
            EventKind::LogFull { .. } => self.full_disks += 1,
            EventKind::LogTorn { .. } => self.torn_tails += 1,
            EventKind::DatabaseCompacted { .. } => self.compactions += 1,
            EventKind::CopyInspectionFailed { .. } => self.failed_inspections += 1,
            EventKind::CopyLost { .. } => self.lossy_mounts += 1,
            EventKind::DialRefused { .. } => self.dial_refusals += 1,
            EventKind::CopyDiverged { .. } | EventKind::CopyBeyondResync { .. } => self.divergences += 1,
            EventKind::CopyResynced { .. } => self.incremental_reseeds += 1,
            EventKind::CopySeeded { .. } => self.full_reseeds += 1,
            EventKind::HubRedelivery { count, .. } => self.redeliveries += count,
            EventKind::HubFenced { .. } => self.fenced_deliveries += 1,
            _ => {}
        }
    }
}
