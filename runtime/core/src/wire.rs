//! What nodes say to each other: datagrams (heartbeats), frames on streams, the witness file; and their bounds.
//!
//! A datagram and the witness file are JSON. A frame is a 4-byte big-endian length of its JSON head, the head, and raw
//! bytes behind it (parts of logs). Whatever comes from outside is decoded with these functions, which give an error for
//! garbage, truncation and oversize, and allocate no more than the input is long.

use crate::chain::ChainLink;
use crate::command::Command;
use crate::durable::{self, NotUnderstood};
use crate::record::{Record, RecordId};
use ccr_contract::status::{CopyStatus, Intent, ServiceState};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest frame on a stream, in bytes.
pub const MAX_FRAME: usize = 2 << 20;
/// Longest datagram, in bytes. With few storage groups one fits an Ethernet frame; more of them, and the record with every
/// setting changed, take IP fragments.
pub const MAX_DATAGRAM: usize = 4096;
/// Most storage groups: a heartbeat speaks of each.
pub const MAX_GROUPS: usize = 16;
/// Longest witness file, in bytes.
pub const MAX_WITNESS: usize = 4096;
/// Longest part of a log in one frame, in bytes.
pub const MAX_PART: usize = 256 << 10;
/// Most links of a chain in one frame.
pub const MAX_LINKS: usize = 256;

/// Why bytes from outside were not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Too long.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong {
        /// Length found.
        len: usize,
        /// Bound.
        max: usize,
    },
    /// Cut short.
    #[error("cut short")]
    Truncated,
    /// Not what it should be.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The one datagram between members: everything about the sender, sent on each internal or mixed network once an interval
/// and whenever something changes. State, not deltas: any of them may be lost, repeated or overtaken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Name of the cluster.
    pub cluster: String,
    /// The sender.
    pub from: String,
    /// Made anew at each start of the sender.
    pub incarnation: u64,
    /// Rises with each round of heartbeats.
    pub seq: u64,
    /// Where the sender stands.
    pub phase: Phase,
    /// On which networks (in the configuration's order) the sender hears the receiver.
    pub hears: Vec<bool>,
    /// The newest heartbeat of the receiver that the sender has heard.
    pub echo: Option<Echo>,
    /// Whether an echo of this heartbeat shall renew the sender's lease.
    pub lease: bool,
    /// Whether the sender waits for that echo: its lease has run out, or a pause has ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fenced: bool,
    /// Incarnation of the receiver that the sender counts as a member of its cluster.
    pub member: Option<u64>,
    /// The sender's durable record.
    pub id: RecordId,
    /// Whether the sender knows that a majority has it.
    pub committed: bool,
    /// The last record that the sender knows a majority to have had.
    #[serde(rename = "base")]
    pub last_committed: RecordId,
    /// The highest epoch that the sender has ever seen or tried.
    #[serde(rename = "seen")]
    pub highest_epoch: u64,
    /// The record itself, where the receiver seems not to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// The service on the sender.
    pub service: ServiceState,
    /// The epoch in which the sender serves, or could: 0 where it needs one.
    pub service_epoch: u64,
    /// Whether the sender has handed the service over: it is drained, dismounted, and the copy has every log.
    #[serde(rename = "released")]
    pub handed_over: bool,
    /// Whether it did so while a database was dismounted: of that the copy may lack something.
    #[serde(default)]
    pub given_up: bool,
    /// Whether every hub has said to the sender, as the one that serves, that it delivers again.
    #[serde(default)]
    pub redelivered: bool,
    /// The sender's storage groups, in the configuration's order.
    pub groups: Vec<GroupView>,
    /// Age in milliseconds of the sender's last probe of the witness, and whether it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<(u64, bool)>,
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Looking for a cluster.
    Forming,
    /// In a cluster with a majority.
    Up,
    /// Shut out by an operator.
    Evicted,
}

/// An answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Incarnation of the node that is answered.
    pub incarnation: u64,
    /// Its heartbeat.
    pub seq: u64,
    /// Whether the answering node promises not to take over before the lease that starts with that heartbeat is over.
    pub grant: bool,
}

/// A storage group on the sender of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Last closed generation (source).
    #[serde(rename = "g")]
    pub generated: u64,
    /// Last generation inspected (copy).
    #[serde(rename = "i")]
    pub inspected: u64,
    /// Last generation replayed into the database.
    #[serde(rename = "r")]
    pub replayed: u64,
    /// Status as a copy.
    #[serde(rename = "s")]
    pub status: CopyStatus,
    /// Whether it is mounted there.
    #[serde(rename = "m")]
    pub mounted: bool,
    /// Whether records lie in a log there that is not closed; none where the sender does not know.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// The last log that a copy of another history has in common with its source.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub common: Option<u64>,
}

/// What a frame says. `group` is the index of the storage group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "kebab-case")]
pub enum Msg {
    /// First frame of whoever dialled.
    Hello {
        /// Name of the cluster.
        cluster: String,
        /// The sender.
        node: String,
    },
    /// Copy → source: let me follow this group.
    Attach {
        /// See above.
        group: usize,
    },
    /// Source → copy: this is what I have; sent again whenever a log was closed.
    Source {
        /// See above.
        group: usize,
        /// Identity of the log stream, hexadecimal.
        stream: String,
        /// Epoch in which the source serves; 0 when it does not.
        epoch: u64,
        /// Epoch whose logs the source has, or has been compared with.
        verified: u64,
        /// Oldest closed log on disk.
        oldest: u64,
        /// Newest closed log.
        generated: u64,
    },
    /// Source → copy: I do not serve this group.
    NotSource {
        /// See above.
        group: usize,
    },
    /// Copy → source: your chain from … through ….
    Chain {
        /// See above.
        group: usize,
        /// First generation.
        from: u64,
        /// Last generation.
        to: u64,
    },
    /// Source → copy: what is known of the chain asked for.
    Links {
        /// See above.
        group: usize,
        /// First generation asked for.
        from: u64,
        /// Those known, ascending.
        links: Vec<ChainLink>,
    },
    /// Copy → source: a part of a closed log.
    Pull {
        /// See above.
        group: usize,
        /// Which log.
        generation: u64,
        /// From this byte.
        offset: u64,
    },
    /// Source → copy: the part, as the frame's raw bytes.
    Part {
        /// See above.
        group: usize,
        /// Which log.
        generation: u64,
        /// From this byte.
        offset: u64,
        /// Bytes of the log in use; the rest is zeros.
        total: u64,
    },
    /// Source → copy: that log or segment cannot be had.
    Missing {
        /// See above.
        group: usize,
        /// Which.
        generation: u64,
        /// Why not; empty from an older ccrd.
        #[serde(default)]
        why: String,
    },
    /// Copy → source: what the database consists of.
    Seed {
        /// See above.
        group: usize,
    },
    /// Source → copy: the database at its checkpoint.
    Offer {
        /// See above.
        group: usize,
        /// Identity of the log stream, hexadecimal.
        stream: String,
        /// The checkpoint: the last log that the database holds. There is a segment for each log up to it.
        checkpoint: ChainLink,
    },
    /// Copy → source: a part of a segment.
    Segment {
        /// See above.
        group: usize,
        /// Which segment.
        generation: u64,
        /// From this byte.
        offset: u64,
    },
    /// Source → copy: the part, as the frame's raw bytes.
    SegmentPart {
        /// See above.
        group: usize,
        /// Which segment.
        generation: u64,
        /// From this byte.
        offset: u64,
        /// Bytes of the segment.
        total: u64,
    },
    /// Active → other member: how far is the verification of this number? It begins with the first question.
    Verify {
        /// The number.
        id: u64,
    },
    /// The answer.
    Verified {
        /// The number.
        id: u64,
        /// Files that were read.
        done: u64,
        /// Files to be read.
        total: u64,
        /// Whether all of them were.
        ended: bool,
        /// The first that is damaged, and how.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<String>,
    },
    /// Member → hub: deliver again what the dumpster holds.
    Redeliver {
        /// Epoch of the new active node; a request with an older one is refused.
        epoch: u64,
    },
    /// Hub → member: so many were queued again.
    Redelivered {
        /// Epoch of the request.
        epoch: u64,
        /// Messages.
        count: u64,
    },
    /// Member → member: an operator's command for the one in charge.
    Forward {
        /// Number of the request at the sender.
        id: u64,
        /// The command.
        command: Command,
    },
    /// The answer.
    Answer {
        /// Number of the request.
        id: u64,
        /// Whether it was carried out.
        done: bool,
        /// Whether it was so already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unchanged: bool,
        /// What to tell the operator.
        text: String,
    },
}

/// The schema of the witness file.
const WITNESS_SCHEMA: u64 = 1;

/// Content of the witness file. Fields of a newer ccrd are left alone; a newer schema is not understood, and not written over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessFile {
    /// Name of the cluster.
    pub cluster: String,
    /// Identity of the record for which the witness gave its vote.
    pub id: RecordId,
    /// Who wrote.
    pub writer: String,
    /// Whether the writer meant to go on holding the file.
    pub held: bool,
    /// Whether an operator forced the quorum, until a regular one followed.
    #[serde(default)]
    pub forced: bool,
    /// Rises with each beat.
    pub beat: u64,
    /// What the operator wanted of the service when this was written.
    pub intent: Intent,
}

fn json<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, WireError> {
    if bytes.len() > max {
        return Err(WireError::TooLong { len: bytes.len(), max });
    }
    serde_json::from_slice(bytes).map_err(|e| {
        if e.is_eof() {
            WireError::Truncated
        } else {
            // It may quote what came from outside.
            WireError::Malformed(e.to_string().escape_debug().take(200).collect())
        }
    })
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("types of this module have string keys only")
}

/// A heartbeat as bytes.
pub fn encode_heartbeat(h: &Heartbeat) -> Vec<u8> {
    to_json(h)
}
/// A heartbeat from bytes.
pub fn decode_heartbeat(bytes: &[u8]) -> Result<Heartbeat, WireError> {
    json(bytes, MAX_DATAGRAM)
}
/// The witness file as bytes.
pub fn encode_witness(w: &WitnessFile) -> Vec<u8> {
    durable::encode(WITNESS_SCHEMA, w)
}
/// The witness file from bytes; an empty file was never written.
pub fn decode_witness(bytes: &[u8]) -> Result<Option<WitnessFile>, NotUnderstood> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > MAX_WITNESS {
        return Err(NotUnderstood::Damaged(format!(
            "{} bytes where at most {MAX_WITNESS} are allowed",
            bytes.len()
        )));
    }
    durable::decode(WITNESS_SCHEMA, bytes).map(Some)
}

/// A frame as bytes.
pub fn encode_frame(msg: &Msg, body: &[u8]) -> Vec<u8> {
    let head = to_json(msg);
    let mut out = Vec::with_capacity(4 + head.len() + body.len());
    out.extend_from_slice(&(head.len() as u32).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
    out
}
/// A frame from bytes: what it says, and the raw bytes behind.
pub fn decode_frame(bytes: &[u8]) -> Result<(Msg, &[u8]), WireError> {
    if bytes.len() > MAX_FRAME {
        return Err(WireError::TooLong {
            len: bytes.len(),
            max: MAX_FRAME,
        });
    }
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
    let len = u32::from_be_bytes(*len) as usize;
    let (head, body) = rest.split_at_checked(len).ok_or(WireError::Truncated)?;
    Ok((json(head, MAX_FRAME)?, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SoleCopy;
    use proptest::prelude::*;

    fn frame() -> Vec<u8> {
        let msg = Msg::Part {
            group: 0,
            generation: 7,
            offset: 0,
            total: 5,
        };
        encode_frame(&msg, b"hello")
    }

    #[test]
    fn a_frame_is_read_as_it_was_written_and_nothing_shorter_is() {
        let bytes = frame();
        let (msg, body) = decode_frame(&bytes).unwrap();
        assert!(matches!(
            msg,
            Msg::Part {
                generation: 7,
                total: 5,
                ..
            }
        ));
        assert_eq!(body, b"hello");
        for cut in 0..bytes.len() - 5 {
            assert!(decode_frame(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    /// Whoever cannot be understood is no member: the longest heartbeat that there can be fits.
    #[test]
    fn a_heartbeat_of_many_groups_with_every_setting_changed_fits_a_datagram() {
        let name = || "n".repeat(63);
        let id = || RecordId {
            epoch: u64::MAX,
            tag: u64::MAX,
            by: name(),
        };
        let mut record = Record::fresh();
        (record.id, record.quorum_owner, record.owner, record.evicted) = (id(), name(), name(), Some(name()));
        record.served = vec![u64::MAX; MAX_GROUPS];
        record.sole_copy = Some(SoleCopy {
            node: name(),
            epoch: u64::MAX,
        });
        record.witness = Some(format!(r"\\{}\{}", name(), "s".repeat(80)));
        record
            .settings
            .insert("witness".into(), record.witness.clone().unwrap_or_default());
        for (key, value) in [
            ("heartbeat_ms", "1500"),
            ("node_tolerance", "100"),
            ("interface_tolerance", "100"),
            ("dial", "good-availability"),
            ("network.public.role", "internal"),
            ("network.private.role", "internal"),
            ("network.management.role", "internal"),
        ] {
            record.settings.insert(key.into(), value.into());
        }
        let group = GroupView {
            generated: u64::from(u32::MAX),
            inspected: u64::from(u32::MAX),
            replayed: u64::from(u32::MAX),
            status: CopyStatus::Resynchronizing,
            mounted: false,
            open: Some(false),
            common: Some(3),
        };
        let heartbeat = Heartbeat {
            cluster: name(),
            from: name(),
            incarnation: u64::MAX,
            seq: u64::MAX,
            phase: Phase::Forming,
            hears: vec![false; 3],
            echo: Some(Echo {
                incarnation: u64::MAX,
                seq: u64::MAX,
                grant: false,
            }),
            lease: false,
            fenced: true,
            member: Some(u64::MAX),
            id: id(),
            committed: false,
            last_committed: id(),
            highest_epoch: u64::MAX,
            record: Some(record),
            service: ServiceState::PartiallyOnline,
            service_epoch: u64::MAX,
            handed_over: false,
            given_up: false,
            redelivered: false,
            groups: vec![group; MAX_GROUPS],
            probe: Some((u64::MAX, false)),
        };
        let bytes = encode_heartbeat(&heartbeat);
        assert_eq!(decode_heartbeat(&bytes), Ok(heartbeat), "{} bytes", bytes.len());
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_looked_at() {
        let long = vec![b' '; MAX_FRAME + 1];
        assert!(matches!(decode_frame(&long), Err(WireError::TooLong { .. })));
        assert!(matches!(decode_heartbeat(&long), Err(WireError::TooLong { .. })));
        assert!(matches!(decode_witness(&long), Err(NotUnderstood::Damaged(_))));
        assert_eq!(decode_witness(b""), Ok(None));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_frame(&bytes);
            let _ = decode_witness(&bytes);
            prop_assert!(decode_heartbeat(&bytes).is_err());
        }
        #[test]
        fn a_damaged_frame_is_no_panic(at in 0usize..60, with in any::<u8>()) {
            let mut bytes = frame();
            if let Some(b) = bytes.get_mut(at) { *b = with }
            let _ = decode_frame(&bytes);
        }
    }
}
