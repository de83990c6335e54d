//! Marks, and how a log ends whose writer died.
//!
//! A mark has the stream's own key, and in the place of the body's checksum the length up to which the open log was flushed when it
//! was queued: a mark on the disk proves that what lies before that length was whole there once.

use super::{FRAME, HEADER, LABEL, Label, LogError, TOMBSTONE, label_bytes, put, record, scan, u32_at};
use crate::chain::Stream;

/// Length of a mark in bytes.
pub const MARK: usize = FRAME + LABEL + 8;

/// What ties a mark to its stream.
fn mark_key(stream: Stream) -> String {
    format!("{:08x}", crc32c::crc32c(&stream.0))
}

/// Appends a mark: the first `flushed` bytes are durable.
pub fn put_mark(out: &mut Vec<u8>, stream: Stream, flushed: u64) {
    let label = Label {
        seq: 0,
        mailbox: String::new(),
        hub_id: String::new(),
        key: mark_key(stream),
    };
    put(out, TOMBSTONE, &[&label_bytes(&label, flushed as u32)]);
}

/// The end of a log that was being written when its writer died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// All of it is whole; zeros at the end are no damage, as a roll fills the log up before it gets its name.
    Whole,
    /// A write was cut off: whole up to here, and nothing behind it is known to have been flushed.
    Torn(usize),
    /// Whole up to `whole` only, although it was flushed up to `flushed` once.
    Damaged {
        /// Bytes that are whole.
        whole: usize,
        /// Bytes that were durable.
        flushed: usize,
    },
    /// Whole, and not understood.
    Strange(LogError),
}

/// How the open log of this stream ends.
pub fn tail(bytes: &[u8], stream: Stream) -> Tail {
    let whole = match scan(bytes) {
        Ok(s) if bytes[s.used..].iter().all(|b| *b == 0) => return Tail::Whole,
        Ok(s) => s.used,
        Err(e) if e.is_strange() => return Tail::Strange(e),
        // No record is written before the header is durable.
        Err(_) if bytes.len() > HEADER => {
            let flushed = flushed(bytes, HEADER, stream).unwrap_or(HEADER);
            return Tail::Damaged { whole: 0, flushed };
        }
        Err(_) => 0,
    };
    match flushed(bytes, whole, stream).filter(|flushed| *flushed > whole) {
        Some(flushed) => Tail::Damaged { whole, flushed },
        None => Tail::Torn(whole),
    }
}

/// What the marks behind `from` say, wherever a record begins there.
fn flushed(bytes: &[u8], from: usize, stream: Stream) -> Option<usize> {
    let key = mark_key(stream);
    let flushed = |at: usize| {
        let payload = bytes[at..].get(FRAME..MARK).filter(|_| bytes[at + 8] == TOMBSTONE)?;
        let own = u32_at(bytes, at) as usize == MARK - FRAME && payload.ends_with(key.as_bytes());
        let (_, payload) = record(&bytes[at..], at).ok().filter(|_| own)?;
        let flushed = u32_at(payload, 8) as usize;
        (flushed <= at).then_some(flushed)
    };
    (from..bytes.len().saturating_sub(MARK - 1)).filter_map(flushed).max()
}
