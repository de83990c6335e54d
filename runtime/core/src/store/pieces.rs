//! Where bodies are: in one place, or in several where a message spans generations.
//!
//! The parts of a message follow one another in the log, and its whole stands directly behind them; only marks may be between. So at
//! most one message of a group is pending, and any other record ends it: what a writer left unfinished when it died, or when another
//! one went on, is no message, for every reader of the log alike. A whole whose parts are not all there names a message that was
//! deleted: compaction takes parts out of one segment before it comes to the next.

/// A piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The generation that holds it.
    pub generation: u64,
    /// Where it begins in that file.
    pub at: u64,
    /// Its length.
    pub len: u64,
    /// Its CRC32C.
    pub crc: u32,
}

/// Where a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In the generation of its message, from this byte on.
    At(u64),
    /// In pieces, in their order.
    Pieces(Vec<Piece>),
}

/// The parts of a message whose whole has not come yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    seq: u64,
    pieces: Vec<Piece>,
    /// Where the first piece begins in the body: more than 0 where those before it are gone.
    from: u64,
    /// Where the next one begins.
    end: u64,
}

impl Pending {
    /// Whether parts of this message wait for its whole.
    pub fn is(&self, seq: u64) -> bool {
        self.seq == seq && !self.pieces.is_empty()
    }
    /// One more part; returns the pieces of another message that it ends.
    pub fn add(&mut self, seq: u64, offset: u64, piece: Piece) -> Vec<Piece> {
        let follows = self.is(seq) && self.end == offset;
        let ended = if follows { Vec::new() } else { self.end() };
        if !follows {
            (self.seq, self.from) = (seq, offset);
        }
        self.end = offset.saturating_add(piece.len);
        self.pieces.push(piece);
        ended
    }
    /// Something else came: the pieces that are of no use any more.
    pub fn end(&mut self) -> Vec<Piece> {
        std::mem::take(self).pieces
    }
    /// The whole came: the pieces of its body, or else those that are of no use.
    pub fn whole(&mut self, seq: u64, len: u64, crc: u32) -> Result<Vec<Piece>, Vec<Piece>> {
        let all = self.is(seq) && self.from == 0 && self.end == len && self.crc() == crc;
        let pieces = self.end();
        if all { Ok(pieces) } else { Err(pieces) }
    }
    fn crc(&self) -> u32 {
        let add = |crc, p: &Piece| crc32c::crc32c_combine(crc, p.crc, p.len as usize);
        self.pieces.iter().fold(0, add)
    }
    /// A piece begins elsewhere in its file from now on.
    pub fn moved(&mut self, offset: u64, at: u64) {
        move_piece(&mut self.pieces, self.from, offset, at);
    }
}

impl Body {
    /// A piece begins elsewhere in its file from now on.
    pub fn moved(&mut self, offset: u64, at: u64) {
        match self {
            Body::At(was) if offset == 0 => *was = at,
            Body::At(_) => {}
            Body::Pieces(pieces) => move_piece(pieces, 0, offset, at),
        }
    }
}

fn move_piece(pieces: &mut [Piece], from: u64, offset: u64, at: u64) {
    let mut begin = from;
    for piece in pieces {
        if begin == offset {
            piece.at = at;
        }
        begin = begin.saturating_add(piece.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"the body of a message";

    /// The body in pieces of `len` bytes, with where each begins.
    fn cut(len: usize) -> Vec<(u64, Piece)> {
        let piece = |(n, bytes): (usize, &[u8])| {
            let piece = Piece {
                generation: n as u64 + 1,
                at: 100,
                len: bytes.len() as u64,
                crc: crc32c::crc32c(bytes),
            };
            ((n * len) as u64, piece)
        };
        BODY.chunks(len).enumerate().map(piece).collect()
    }
    fn whole(pending: &mut Pending, seq: u64) -> Result<Vec<Piece>, Vec<Piece>> {
        pending.whole(seq, BODY.len() as u64, crc32c::crc32c(BODY))
    }

    #[test]
    fn all_parts_in_their_order_are_a_message() {
        for len in 1..=BODY.len() {
            let mut pending = Pending::default();
            for (offset, piece) in cut(len) {
                assert!(pending.add(7, offset, piece).is_empty());
            }
            assert!(pending.is(7) && !pending.is(8));
            let pieces = whole(&mut pending, 7).unwrap();
            assert_eq!(pieces.len(), BODY.len().div_ceil(len));
            assert_eq!(pending, Pending::default());
        }
    }

    #[test]
    fn with_one_part_less_twice_or_of_another_message_it_is_none() {
        let parts = cut(6);
        for gone in 0..parts.len() {
            let mut pending = Pending::default();
            let left = parts.iter().enumerate().filter(|(n, _)| *n != gone);
            let mut ended = 0;
            for (_, (offset, piece)) in left.clone() {
                ended += pending.add(7, *offset, *piece).len();
            }
            let useless = whole(&mut pending, 7).unwrap_err();
            assert_eq!(useless.len() + ended, parts.len() - 1, "without part {gone}");
        }
        for twice in 0..parts.len() {
            let mut pending = Pending::default();
            let mut ended = 0;
            for (n, (offset, piece)) in parts.iter().enumerate() {
                (0..=usize::from(n == twice)).for_each(|_| ended += pending.add(7, *offset, *piece).len());
            }
            // The first one begins the message anew.
            assert_eq!(whole(&mut pending, 7).is_ok(), twice == 0, "part {twice} twice");
            assert_eq!(ended, twice + 1);
        }
        let mut pending = Pending::default();
        parts
            .iter()
            .for_each(|(offset, piece)| _ = pending.add(7, *offset, *piece));
        assert!(whole(&mut pending.clone(), 8).is_err(), "another message's whole");
        assert_eq!(pending.end().len(), parts.len());
        assert!(whole(&mut pending, 7).is_err(), "none at all");
        let mut other = parts.clone();
        other[1].1.crc ^= 1;
        other
            .iter()
            .for_each(|(offset, piece)| _ = pending.add(7, *offset, *piece));
        assert!(whole(&mut pending, 7).is_err(), "a part of another body");
    }

    #[test]
    fn a_piece_that_moved_is_read_where_it_is() {
        let mut pending = Pending::default();
        cut(6)
            .into_iter()
            .for_each(|(offset, piece)| _ = pending.add(7, offset, piece));
        pending.moved(6, 64);
        let mut body = Body::Pieces(whole(&mut pending, 7).unwrap());
        body.moved(12, 32);
        // Where no piece begins, nothing moves.
        body.moved(13, 1);
        let Body::Pieces(pieces) = &body else {
            panic!("{body:?}")
        };
        assert_eq!(pieces.iter().map(|p| p.at).collect::<Vec<_>>(), [100, 64, 32, 100]);
        let mut small = Body::At(100);
        small.moved(1, 5);
        assert_eq!(small, Body::At(100));
        small.moved(0, 5);
        assert_eq!(small, Body::At(5));
    }
}
