//! The log format. A generation is a header, records, an end record, and zeros up to its exact size. A segment of the
//! database has the same shape without the zeros.
//!
//! ```text
//! header, 64 bytes, little endian          record
//!   0  magic "CCRLOG\r\n"                    0  length of the payload, u32
//!   8  version, u16 = 1                      4  CRC32C of kind and payload, u32
//!  10  kind, u16: 1 log, 2 segment           8  kind, u8
//!  12  CRC32C of the other 60 bytes, u32     9  payload
//!  16  stream, 16 bytes
//!  32  generation, u64                      kinds: 1 message, 2 delete, 3 end, 4 tombstone, 5 part, 6 whole
//!  40  epoch, u64                           message: seq u64, CRC32C of the body u32, lengths u16 of
//!  48  checksum of the generation before,        mailbox, hub id, key; these; the body
//!      u32                                  delete:  seq u64, then as a message without a body
//!  52  zeros                                end:     checksum u32: CRC32C of all bytes before this record
//!                                           tombstone: as a message without a body (a message that was deleted)
//!                                           part:    seq u64, CRC32C of the piece u32, where it begins in the body u64;
//!                                                a piece of a body
//!                                           whole:   as a message, with the length of the body, u64, in its place
//! ```
//! A message that fits into no generation is written as *parts*, one behind the other, and a *whole* directly behind them that names
//! it (`pieces.rs` says what of them counts). A ccrd that knows no parts does not understand the log, and leaves it alone.
//!
//! The checksum names the content: it is in the next header, so that the generations are a chain. A log is never known by
//! its number alone, but by (stream, generation, epoch, checksum).
//!
//! A *mark* ([`put_mark`]) is a tombstone without mailbox and hub id, with number 0. To readers of records it says nothing.
//!
//! A segment keeps the checksum of the log that it came from,
//! also when bodies of deleted messages were taken out of it; each of its records has a checksum of its own.

use crate::chain::{ChainLink, Stream};
use crate::mailbox::MAX_KEY;
use crate::mailbox::MAX_MAILBOX;
pub use marks::{MARK, Tail, put_mark, tail};

mod marks;

/// Length of the header in bytes.
pub const HEADER: usize = 64;
/// Length of a record's frame in bytes.
pub const FRAME: usize = 9;
/// Length of the end record in bytes.
pub const END: usize = FRAME + 4;
/// Longest hub id in bytes.
pub const MAX_HUB_ID: usize = 128;
const MAGIC: [u8; 8] = *b"CCRLOG\r\n";
const VERSION: u16 = 1;

/// What kind of file a header begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A generation.
    Log,
    /// A part of the database.
    Segment,
}

/// The header of a generation or segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it begins.
    pub kind: FileKind,
    /// The stream.
    pub stream: Stream,
    /// The generation; the same as in the file's name.
    pub generation: u64,
    /// Epoch in which it was begun.
    pub epoch: u64,
    /// Checksum of the generation before.
    pub previous: u32,
}

/// Why a file is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The header is cut short.
    #[error("{0} bytes are no whole header")]
    NoHeader(usize),
    /// The header is not ours, or damaged.
    #[error("the header is damaged: {0}")]
    BadHeader(&'static str),
    /// A record is damaged or cut short.
    #[error("the record at byte {at} is damaged: {why}")]
    BadRecord {
        /// Where.
        at: usize,
        /// How.
        why: &'static str,
    },
    /// There is no end record.
    #[error("not closed: no end record")]
    NotClosed,
    /// Bytes behind the end record.
    #[error("{0} bytes that are not zero behind the end")]
    Trailing(usize),
    /// Whole, and not understood: a newer ccrd wrote it.
    #[error("written by a newer ccrd: {0}")]
    Strange(String),
    /// Not the length it must have.
    #[error("{len} bytes instead of {want}")]
    BadLength {
        /// Length found.
        len: usize,
        /// Length wanted.
        want: usize,
    },
    /// The end record's checksum is another.
    #[error("checksum {found:08x} instead of {stated:08x}")]
    BadChecksum {
        /// Computed.
        found: u32,
        /// In the end record.
        stated: u32,
    },
}

impl LogError {
    /// Whether it is whole as far as its checksums say, and not understood all the same.
    pub fn is_strange(&self) -> bool {
        matches!(self, LogError::Strange(_))
    }
}

impl Header {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[..8].copy_from_slice(&MAGIC);
        b[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let kind: u16 = if self.kind == FileKind::Log { 1 } else { 2 };
        b[10..12].copy_from_slice(&kind.to_le_bytes());
        b[16..32].copy_from_slice(&self.stream.0);
        b[32..40].copy_from_slice(&self.generation.to_le_bytes());
        b[40..48].copy_from_slice(&self.epoch.to_le_bytes());
        b[48..52].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c::crc32c(&b);
        b[12..16].copy_from_slice(&crc.to_le_bytes());
        b
    }
    /// The header at the beginning of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let b: &[u8; HEADER] = bytes.first_chunk().ok_or(LogError::NoHeader(bytes.len()))?;
        if b[..8] != MAGIC {
            return Err(LogError::BadHeader("no log file"));
        }
        let mut bare = *b;
        bare[12..16].fill(0);
        if crc32c::crc32c(&bare) != u32_at(b, 12) {
            return Err(LogError::BadHeader("checksum"));
        }
        if b[8..10] != VERSION.to_le_bytes() {
            let found = u16_at(b, 8);
            return Err(LogError::Strange(format!(
                "version {found}, this one knows up to {VERSION}"
            )));
        }
        let kind = match u16_at(b, 10) {
            1 => FileKind::Log,
            2 => FileKind::Segment,
            n => return Err(LogError::Strange(format!("kind {n} of file"))),
        };
        Ok(Self {
            kind,
            stream: Stream(b[16..32].try_into().expect("16 bytes")),
            generation: u64_at(b, 32),
            epoch: u64_at(b, 40),
            previous: u32_at(b, 48),
        })
    }
}

fn u16_at(b: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([b[at], b[at + 1]]))
}
fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("4 bytes"))
}
fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("8 bytes"))
}

/// Names a message and says where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Position in the stream of changes; also the message's number in its mailbox.
    pub seq: u64,
    /// Whose mailbox.
    pub mailbox: String,
    /// The hub's id; empty without.
    pub hub_id: String,
    /// The client's key; empty without.
    pub key: String,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message was stored. Its body is `len` bytes at `at` in the file.
    Message {
        /// Which.
        label: Label,
        /// CRC32C of the body.
        crc: u32,
        /// Where the body begins in the file.
        at: u64,
        /// Length of the body.
        len: u64,
    },
    /// A message was deleted.
    Delete(Label),
    /// A message was there once and has been deleted: its hub id still makes a second delivery a duplicate.
    Tombstone(Label),
    /// A piece of a body that fits into no generation: `len` bytes at `at` in the file.
    Part {
        /// The number that its message will have.
        seq: u64,
        /// Where it begins in the body.
        offset: u64,
        /// CRC32C of the piece.
        crc: u32,
        /// Where it begins in the file.
        at: u64,
        /// Its length.
        len: u64,
    },
    /// The parts directly before this are a message.
    Whole {
        /// Which.
        label: Label,
        /// CRC32C of the body.
        crc: u32,
        /// Length of the body.
        len: u64,
    },
}

impl Record {
    /// The number of the message of whose body it tells, where it does.
    pub fn body_of(&self) -> Option<u64> {
        match self {
            Record::Message { label, .. } | Record::Whole { label, .. } => Some(label.seq),
            Record::Part { seq, .. } => Some(*seq),
            Record::Delete(_) | Record::Tombstone(_) => None,
        }
    }
}

const MESSAGE: u8 = 1;
const DELETE: u8 = 2;
const ENDED: u8 = 3;
const TOMBSTONE: u8 = 4;
const PART: u8 = 5;
const WHOLE: u8 = 6;

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let crc = parts
        .iter()
        .fold(crc32c::crc32c(&[kind]), |c, p| crc32c::crc32c_append(c, p));
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.push(kind);
    parts.iter().for_each(|p| out.extend_from_slice(p));
}

/// Length of a label without its names: number, checksum, three lengths.
const LABEL: usize = 8 + 4 + 3 * 2;

/// Length of what stands before the piece in a part: number, checksum, offset.
const PART_HEAD: usize = 8 + 4 + 8;

/// The longest message that one generation of `size` bytes can hold, with names of any allowed length.
pub const fn max_message(size: u64) -> usize {
    let others = HEADER + FRAME + LABEL + MAX_MAILBOX + MAX_HUB_ID + MAX_KEY + END;
    (size as usize).saturating_sub(others)
}

fn label_bytes(label: &Label, crc: u32) -> Vec<u8> {
    let mut b = Vec::with_capacity(LABEL + label.mailbox.len() + label.hub_id.len() + label.key.len());
    b.extend_from_slice(&label.seq.to_le_bytes());
    b.extend_from_slice(&crc.to_le_bytes());
    let names = [&label.mailbox, &label.hub_id, &label.key];
    for name in names {
        b.extend_from_slice(&(name.len() as u16).to_le_bytes());
    }
    for name in names {
        b.extend_from_slice(name.as_bytes());
    }
    b
}

/// Bytes that a message's record takes.
pub fn message_len(label: &Label, body: usize) -> usize {
    FRAME + LABEL + label.mailbox.len() + label.hub_id.len() + label.key.len() + body
}
/// Appends a message's record.
pub fn put_message(out: &mut Vec<u8>, label: &Label, body: &[u8]) {
    put(out, MESSAGE, &[&label_bytes(label, crc32c::crc32c(body)), body]);
}
/// Appends a delete record.
pub fn put_delete(out: &mut Vec<u8>, label: &Label) {
    put(out, DELETE, &[&label_bytes(label, 0)]);
}
/// Appends a tombstone.
pub fn put_tombstone(out: &mut Vec<u8>, label: &Label) {
    put(out, TOMBSTONE, &[&label_bytes(label, 0)]);
}
/// Bytes that a part takes beside its piece.
pub const PART_FRAME: usize = FRAME + PART_HEAD;
/// Appends a part: a piece of the body of the message `seq`, which begins at `offset` there.
pub fn put_part(out: &mut Vec<u8>, seq: u64, offset: u64, piece: &[u8]) {
    let crc = crc32c::crc32c(piece).to_le_bytes();
    put(out, PART, &[&seq.to_le_bytes(), &crc, &offset.to_le_bytes(), piece]);
}
/// Bytes that a whole takes.
pub fn whole_len(label: &Label) -> usize {
    message_len(label, 8)
}
/// Appends a whole: the parts before it are a body of `len` bytes with this checksum.
pub fn put_whole(out: &mut Vec<u8>, label: &Label, crc: u32, len: u64) {
    put(out, WHOLE, &[&label_bytes(label, crc), &len.to_le_bytes()]);
}
/// Appends the end record with this checksum.
pub fn put_end(out: &mut Vec<u8>, checksum: u32) {
    put(out, ENDED, &[&checksum.to_le_bytes()]);
}

/// What a file holds, as far as it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Its header.
    pub header: Header,
    /// Its records.
    pub records: Vec<Record>,
    /// The checksum of the end record, where it is closed.
    pub end: Option<u32>,
    /// CRC32C of the bytes up to `used`, the end record not counted.
    pub crc: u32,
    /// Bytes up to the end of the last whole record, the end record counted.
    pub used: usize,
    /// Why the scan ended before the end of the bytes, where it did so for a damaged record.
    pub torn: Option<LogError>,
}

/// Reads as much of `bytes` as is whole.
pub fn scan(bytes: &[u8]) -> Result<Scan, LogError> {
    let header = Header::decode(bytes)?;
    let mut scan = Scan {
        header,
        records: Vec::new(),
        end: None,
        crc: crc32c::crc32c(&bytes[..HEADER]),
        used: HEADER,
        torn: None,
    };
    while scan.end.is_none() {
        let at = scan.used;
        let rest = &bytes[at..];
        if rest.iter().take(FRAME).all(|b| *b == 0) && rest.iter().all(|b| *b == 0) {
            break;
        }
        match record(rest, at) {
            Err(e) => {
                scan.torn = Some(e);
                break;
            }
            Ok((kind, payload)) => {
                let whole = FRAME + payload.len();
                scan.used += whole;
                if kind == ENDED {
                    scan.end = Some(u32_at(payload, 0));
                } else {
                    scan.crc = crc32c::crc32c_append(scan.crc, &rest[..whole]);
                    scan.records.extend(understand(kind, payload, at)?);
                }
            }
        }
    }
    Ok(scan)
}

fn record(rest: &[u8], at: usize) -> Result<(u8, &[u8]), LogError> {
    let bad = |why| LogError::BadRecord { at, why };
    if rest.len() < FRAME {
        return Err(bad("cut short"));
    }
    let len = u32_at(rest, 0) as usize;
    let payload = rest[FRAME..].get(..len).ok_or_else(|| bad("cut short"))?;
    let kind = rest[8];
    if crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload) != u32_at(rest, 4) {
        return Err(bad("checksum"));
    }
    if kind == ENDED && len != 4 {
        return Err(bad("length of the end record"));
    }
    Ok((kind, payload))
}

/// Reads a record whose checksum is right; none is a mark. What is wrong with it was written so.
fn understand(kind: u8, payload: &[u8], at: usize) -> Result<Option<Record>, LogError> {
    let bad = |why: &str| LogError::Strange(format!("the record at byte {at}: {why}"));
    let begin = (at + FRAME) as u64;
    if kind == PART {
        let piece = payload.get(PART_HEAD..).ok_or_else(|| bad("too short for a part"))?;
        let crc = u32_at(payload, 8);
        if crc32c::crc32c(piece) != crc {
            return Err(bad("checksum of the piece"));
        }
        return Ok(Some(Record::Part {
            seq: u64_at(payload, 0),
            offset: u64_at(payload, 12),
            crc,
            at: begin + PART_HEAD as u64,
            len: piece.len() as u64,
        }));
    }
    if !matches!(kind, MESSAGE | DELETE | TOMBSTONE | WHOLE) {
        return Err(bad("unknown kind"));
    }
    let (label, from) = read_label(payload).map_err(bad)?;
    let (crc, rest) = (u32_at(payload, 8), &payload[from..]);
    Ok(match kind {
        MESSAGE if crc32c::crc32c(rest) != crc => return Err(bad("checksum of the body")),
        MESSAGE => Some(Record::Message {
            label,
            crc,
            at: begin + from as u64,
            len: rest.len() as u64,
        }),
        WHOLE => {
            let len = rest.try_into().map_err(|_| bad("no length of the body"))?;
            let len = u64::from_le_bytes(len);
            Some(Record::Whole { label, crc, len })
        }
        DELETE => Some(Record::Delete(label)),
        _ if label.seq == 0 && label.mailbox.is_empty() && label.hub_id.is_empty() => None,
        _ => Some(Record::Tombstone(label)),
    })
}

/// The label at the beginning of a payload, and where it ends.
fn read_label(payload: &[u8]) -> Result<(Label, usize), &'static str> {
    if payload.len() < LABEL {
        return Err("too short for a label");
    }
    let lens = [12, 14, 16].map(|i| u16_at(payload, i));
    let mut from = LABEL;
    let mut name = |len: usize| {
        let text = payload.get(from..from + len).ok_or("names reach behind it")?;
        from += len;
        let text = std::str::from_utf8(text).map_err(|_| "a name is not UTF-8")?;
        Ok::<_, &'static str>(text.to_owned())
    };
    let label = Label {
        seq: u64_at(payload, 0),
        mailbox: name(lens[0])?,
        hub_id: name(lens[1])?,
        key: name(lens[2])?,
    };
    Ok((label, from))
}

/// Inspects a closed generation: whole, closed, of exactly `size` bytes (used bytes, then zeros), checksum as stated.
pub fn inspect(bytes: &[u8], size: usize) -> Result<Scan, LogError> {
    if bytes.len() != size {
        return Err(LogError::BadLength {
            len: bytes.len(),
            want: size,
        });
    }
    let scan = closed(bytes)?;
    if scan.header.kind != FileKind::Log {
        return Err(LogError::BadHeader("a segment, not a log"));
    }
    Ok(scan)
}

/// Reads a segment of the database.
pub fn segment(bytes: &[u8]) -> Result<Scan, LogError> {
    let scan = closed_any(bytes)?;
    if scan.header.kind != FileKind::Segment {
        return Err(LogError::BadHeader("a log, not a segment"));
    }
    Ok(scan)
}

fn closed_any(bytes: &[u8]) -> Result<Scan, LogError> {
    let scan = scan(bytes)?;
    if let Some(e) = scan.torn {
        return Err(e);
    }
    if scan.end.is_none() {
        return Err(LogError::NotClosed);
    }
    if bytes[scan.used..].iter().any(|b| *b != 0) {
        return Err(LogError::Trailing(bytes.len() - scan.used));
    }
    Ok(scan)
}

fn closed(bytes: &[u8]) -> Result<Scan, LogError> {
    let scan = closed_any(bytes)?;
    match scan.end {
        Some(stated) if stated != scan.crc => Err(LogError::BadChecksum {
            found: scan.crc,
            stated,
        }),
        _ => Ok(scan),
    }
}

impl Scan {
    /// Bytes of the messages' bodies.
    pub fn bodies(&self) -> u64 {
        let len = |r: &Record| match r {
            Record::Message { len, .. } | Record::Part { len, .. } => *len,
            _ => 0,
        };
        self.records.iter().map(len).sum()
    }
    /// The link of the chain that this closed file is.
    pub fn link(&self) -> ChainLink {
        ChainLink {
            generation: self.header.generation,
            epoch: self.header.epoch,
            checksum: self.end.unwrap_or(self.crc),
        }
    }
}

/// A closed log as a segment of the database: the same records with the header's kind changed.
pub fn to_segment(log: &[u8], scan: &Scan) -> Vec<u8> {
    let mut out = log[..scan.used].to_vec();
    let header = Header {
        kind: FileKind::Segment,
        ..scan.header
    };
    out[..HEADER].copy_from_slice(&header.encode());
    out
}

/// Where a piece of a body begins now: the message's number, where the piece begins in the body, and in the file.
pub type Moved = (u64, u64, u64);

/// A segment without the bodies that `gone` names: a tombstone stands for each message, so that a second delivery is still known as
/// one. The rest keeps its order, and the segment its place in the chain. Also where the bodies that are left
/// begin now.
pub fn compacted(segment: &[u8], scan: &Scan, gone: impl Fn(&Record) -> bool) -> (Vec<u8>, Vec<Moved>) {
    let mut out = segment[..HEADER].to_vec();
    let mut moved = Vec::new();
    let bytes = |at: u64, len: u64| &segment[at as usize..(at + len) as usize];
    for record in &scan.records {
        match record {
            Record::Message { label, .. } | Record::Whole { label, .. } if gone(record) => {
                put_tombstone(&mut out, label);
            }
            Record::Message { label, at, len, .. } => {
                put_message(&mut out, label, bytes(*at, *len));
                moved.push((label.seq, 0, out.len() as u64 - len));
            }
            Record::Part { .. } if gone(record) => {}
            Record::Part {
                seq, offset, at, len, ..
            } => {
                put_part(&mut out, *seq, *offset, bytes(*at, *len));
                moved.push((*seq, *offset, out.len() as u64 - len));
            }
            Record::Whole { label, crc, len } => put_whole(&mut out, label, *crc, *len),
            Record::Delete(label) => put_delete(&mut out, label),
            Record::Tombstone(label) => put_tombstone(&mut out, label),
        }
    }
    put_end(&mut out, scan.link().checksum);
    (out, moved)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
