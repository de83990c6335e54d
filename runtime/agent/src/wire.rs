//! Frames on a stream of bytes: where one ends is never in doubt, whatever came before.
//!
//! A frame is `kind (1), channel (4), body, check (4)`, little-endian; the check is CRC-32 (ISO 3309) of all before it. It is stuffed
//! (Cheshire and Baker, Consistent Overhead Byte Stuffing, 1999), so that no byte of it is zero, and a zero ends it. Whoever begins to
//! speak on a port sends a zero first: it ends whatever an earlier speaker left half said.

use std::fmt;

/// Longest body.
pub const MAX_BODY: usize = 64 << 10;
const HEAD: usize = 5;
const CHECK: usize = 4;
const MAX_FRAME: usize = HEAD + MAX_BODY + CHECK;
/// Longest frame as it is sent, without its closing zero.
pub const MAX_SENT: usize = MAX_FRAME + MAX_FRAME / 254 + 1;

/// What one side says at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is: see `message`.
    pub kind: u8,
    /// Which conversation it belongs to; 0 is the session itself.
    pub channel: u32,
    /// What it carries.
    pub body: Vec<u8>,
}

/// Why something between two zeros is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Longer than any frame.
    TooLong,
    /// Not stuffed as a frame is.
    Stuffing,
    /// Shorter than any frame.
    TooShort,
    /// The check is another one.
    Check,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "it is longer than any frame",
            Self::Stuffing => "its stuffing is wrong",
            Self::TooShort => "it is shorter than any frame",
            Self::Check => "its check is wrong",
        })
    }
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut c = n as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        table[n] = c;
        n += 1;
    }
    table
};

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |c, b| TABLE[usize::from(c as u8 ^ b)] ^ (c >> 8))
}

/// Appends `frame` as it is sent.
///
/// # Panics
/// Where its body is longer than [`MAX_BODY`]: nobody makes one.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    assert!(frame.body.len() <= MAX_BODY, "a body of {} bytes", frame.body.len());
    let mut plain = Vec::with_capacity(HEAD + frame.body.len() + CHECK);
    plain.push(frame.kind);
    plain.extend_from_slice(&frame.channel.to_le_bytes());
    plain.extend_from_slice(&frame.body);
    plain.extend_from_slice(&crc(&plain).to_le_bytes());
    for mut run in plain.split(|b| *b == 0) {
        while run.len() >= 254 {
            out.push(255);
            out.extend_from_slice(&run[..254]);
            run = &run[254..];
        }
        // Behind a run of 254 this says whether a zero follows, as its own code does not.
        out.push(run.len() as u8 + 1);
        out.extend_from_slice(run);
    }
    out.push(0);
}

fn unstuff(mut sent: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(sent.len());
    while let Some((&code, rest)) = sent.split_first() {
        let run = rest.get(..usize::from(code) - 1)?;
        plain.extend_from_slice(run);
        sent = &rest[run.len()..];
        if code < 255 && !sent.is_empty() {
            plain.push(0);
        }
    }
    Some(plain)
}

fn decode(sent: &[u8]) -> Result<Frame, Bad> {
    let plain = unstuff(sent).ok_or(Bad::Stuffing)?;
    if plain.len() < HEAD + CHECK {
        return Err(Bad::TooShort);
    }
    let (said, check) = plain.split_at(plain.len() - CHECK);
    if crc(said).to_le_bytes() != check {
        return Err(Bad::Check);
    }
    Ok(Frame {
        kind: said[0],
        channel: u32::from_le_bytes([said[1], said[2], said[3], said[4]]),
        body: said[HEAD..].to_vec(),
    })
}

/// Cuts a stream into frames. Holds at most one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    open: Vec<u8>,
    too_long: bool,
}

impl Decoder {
    /// The frames, and what stands in place of one, that end in these bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Result<Frame, Bad>> {
        let mut out = Vec::new();
        let mut parts = bytes.split(|b| *b == 0).peekable();
        while let Some(part) = parts.next() {
            if self.open.len() + part.len() > MAX_SENT {
                self.too_long = true;
                self.open = Vec::new();
            } else if !self.too_long {
                self.open.extend_from_slice(part);
            }
            if parts.peek().is_none() {
                break;
            }
            if std::mem::take(&mut self.too_long) {
                out.push(Err(Bad::TooLong));
            } else if !self.open.is_empty() {
                out.push(decode(&self.open));
                self.open.clear();
            }
        }
        out
    }

    /// Forgets what is half said.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(frame: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        encode(frame, &mut out);
        out
    }

    fn frame(body: Vec<u8>) -> Frame {
        Frame {
            kind: 7,
            channel: 3,
            body,
        }
    }

    #[test]
    fn the_check_is_the_one_that_everybody_has() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn every_length_around_a_run_comes_back() {
        for fill in [0, 1, 255] {
            for len in (0..20).chain(240..270).chain(500..520).chain([MAX_BODY]) {
                let frame = frame(vec![fill; len]);
                let sent = sent(&frame);
                assert!(sent.len() <= MAX_SENT + 1 && !sent[..sent.len() - 1].contains(&0));
                assert_eq!(Decoder::default().take(&sent), [Ok(frame)], "{fill} {len}");
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_said_and_the_next_one_is_heard() {
        let good = frame(b"x".to_vec());
        let mut decoder = Decoder::default();
        for (bad, why) in [
            (&b"\x05ab"[..], Bad::Stuffing),
            (b"\x02a", Bad::TooShort),
            (b"\x0bxxxxxxxxxx", Bad::Check),
        ] {
            let bytes = [bad, &[0, 0, 0], &sent(&good)].concat();
            assert_eq!(decoder.take(&bytes), [Err(why), Ok(good.clone())]);
        }
        for _ in 0..100 {
            assert_eq!(decoder.take(&[1; MAX_BODY]), []);
            assert!(decoder.open.capacity() <= 2 * MAX_SENT);
        }
        assert_eq!(decoder.take(&[0]), [Err(Bad::TooLong)]);
        assert_eq!(decoder.take(&sent(&good)), [Ok(good.clone())]);
        // Half a frame of somebody who is gone.
        let half = sent(&good);
        assert_eq!(decoder.take(&half[..half.len() / 2]), []);
        assert_eq!(decoder.take(&[&[0], &half[..]].concat()).last(), Some(&Ok(good)));
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_cut(
            bodies in prop::collection::vec(prop::collection::vec(0..4u8, 0..700), 1..5),
            cut in 1..50usize,
        ) {
            let frames: Vec<Frame> = bodies.into_iter().map(frame).collect();
            let mut bytes = Vec::new();
            frames.iter().for_each(|f| encode(f, &mut bytes));
            let mut decoder = Decoder::default();
            let heard: Vec<Frame> = bytes.chunks(cut).flat_map(|c| decoder.take(c)).map(Result::unwrap).collect();
            prop_assert_eq!(heard, frames);
        }

        #[test]
        fn a_frame_with_any_byte_changed_is_none(
            body in prop::collection::vec(any::<u8>(), 0..300),
            at: prop::sample::Index,
            by in 1..=255u8,
        ) {
            let good = frame(body);
            let mut bytes = sent(&good);
            let end = bytes.len() - 1;
            let at = at.index(end);
            bytes[at] ^= by;
            prop_assert!(!Decoder::default().take(&bytes).contains(&Ok(good)));
        }
    }
}
