//! Lines and dot-terminated texts on a stream, both bounded: nothing a peer sends can make a buffer grow past its limit.

use super::{Limits, Memory};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes taken from the socket at once.
const CHUNK: usize = 16 << 10;
/// How far an overlong line or message is read on, in multiples of its limit, before the peer is cut off.
const PATIENCE: usize = 4;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer closed the stream.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer said or took nothing for too long.
    #[error("the peer was silent for {} s", .0.as_secs())]
    Idle(Duration),
    /// The peer never stopped.
    #[error("the peer sent {0} bytes without an end")]
    Endless(usize),
    /// The rest of a message that is on its way cannot be had.
    #[error("the message broke off: {0}")]
    Cut(String),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A line as it came.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// With its line end.
    Whole(Vec<u8>),
    /// Longer than the limit; it was read to its end and thrown away.
    TooLong,
}

/// A dot-terminated text as it came.
#[derive(Debug)]
pub enum Text {
    /// Without the stuffed dots and the last line; the permit stands for its bytes.
    Whole(Vec<u8>, Vec<OwnedSemaphorePermit>),
    /// Larger than the limit; it was read to its end and thrown away.
    TooLarge,
    /// There is no memory for it now; it was read to its end and thrown away.
    NoMemory,
}

/// A stream with a buffer that is bounded by `CHUNK`.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    at: usize,
    idle: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// `idle`: the longest silence.
    pub fn new(stream: S, idle: Duration) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            at: 0,
            idle,
        }
    }

    /// Whether the peer has sent more already (pipelining): answers may wait for company.
    pub fn has_more(&self) -> bool {
        self.at < self.buffer.len()
    }

    /// The unread bytes; reads some if there are none.
    async fn fill(&mut self) -> Result<&[u8], Broken> {
        if self.at == self.buffer.len() {
            self.at = 0;
            self.buffer.clear();
            self.buffer.reserve(CHUNK);
            match tokio::time::timeout(self.idle, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(Broken::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(e)) => return Err(e.into()),
                Err(_) => return Err(Broken::Idle(self.idle)),
            }
        }
        Ok(&self.buffer[self.at..])
    }

    /// The next line of at most `limit` bytes, its end included.
    pub async fn line(&mut self, limit: usize) -> Result<Line, Broken> {
        let mut line = Vec::new();
        let mut length = 0;
        loop {
            let bytes = self.fill().await?;
            let (part, ended) = match bytes.iter().position(|b| *b == b'\n') {
                Some(end) => (&bytes[..=end], true),
                None => (bytes, false),
            };
            let n = part.len();
            length += n;
            if length <= limit {
                line.extend_from_slice(part);
            } else {
                line = Vec::new();
            }
            self.at += n;
            match (ended, length > limit) {
                (true, false) => return Ok(Line::Whole(line)),
                (true, true) => return Ok(Line::TooLong),
                (false, _) if length > limit.saturating_mul(PATIENCE) => return Err(Broken::Endless(length)),
                (false, _) => {}
            }
        }
    }

    /// A text of at most `limit` bytes up to a line that is a single dot. Only CRLF ends a line here: anything else
    /// would let a message smuggle a second one. A bare line feed becomes a line end within the text, so that everybody who
    /// hands it on hands on the same lines.
    pub async fn text(&mut self, limit: usize, memory: &Memory) -> Result<Text, Broken> {
        let mut dots = Dots::default();
        let mut text = Vec::new();
        let mut permits = Vec::new();
        let mut room = 0;
        let spoilt = loop {
            let available = self.fill().await?.len();
            // The unstuffed bytes are at most twice those on the wire: all of them may be bare line feeds.
            let most = text.len() + 2 * available;
            if most > room {
                let more = (most - room).max(CHUNK * 4);
                match memory.take(more) {
                    Some(p) => permits.push(p),
                    None => break Text::NoMemory,
                }
                room += more;
                text.reserve(more);
            }
            let (used, done) = dots.unstuff(&self.buffer[self.at..], |b| text.extend_from_slice(b));
            self.at += used;
            if done && text.len() <= limit {
                return Ok(Text::Whole(text, permits));
            }
            if done {
                return Ok(Text::TooLarge);
            }
            if text.len() > limit {
                break Text::TooLarge;
            }
        };
        drop((text, permits));
        self.skip(dots, limit).await.map(|()| spoilt)
    }

    /// Reads a text on to its end, keeping nothing.
    async fn skip(&mut self, mut dots: Dots, limit: usize) -> Result<(), Broken> {
        let mut length = 0;
        loop {
            let (used, done) = dots.unstuff(self.fill().await?, |_| ());
            self.at += used;
            length += used;
            if done {
                return Ok(());
            }
            if length > limit.saturating_mul(PATIENCE) {
                return Err(Broken::Endless(length));
            }
        }
    }

    /// Waits until the peer has closed its side; what it says until then is thrown away.
    pub async fn gone(&mut self) {
        loop {
            self.at = 0;
            self.buffer.clear();
            self.buffer.reserve(CHUNK);
            if let Ok(0) | Err(_) = self.stream.read_buf(&mut self.buffer).await {
                return;
            }
        }
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let sent = async {
            for part in bytes.chunks(CHUNK) {
                tokio::time::timeout(self.idle, self.stream.write_all(part))
                    .await
                    .map_err(|_| Broken::Idle(self.idle))??;
            }
            Ok::<_, Broken>(())
        };
        sent.await
    }

    /// Sends a piece of a dot-terminated text.
    pub async fn send_text(&mut self, stuffing: &mut Stuffing, piece: &[u8]) -> Result<(), Broken> {
        let mut out = Vec::with_capacity(2 * CHUNK);
        for part in piece.chunks(CHUNK) {
            out.clear();
            stuffing.push(part, &mut out);
            self.send(&out).await?;
        }
        Ok(())
    }

    /// Sends its end.
    pub async fn end_text(&mut self, stuffing: Stuffing) -> Result<(), Broken> {
        self.send(stuffing.end()).await
    }

    /// Pushes out what is buffered below, and ends the sending side.
    pub async fn finish(&mut self) {
        let _ = tokio::time::timeout(self.idle, self.stream.shutdown()).await;
    }
}

/// Finds the end of a dot-terminated text, takes out the stuffed dots (RFC 5321 4.5.2) and completes bare line feeds, whatever the
/// pieces.
#[derive(Debug, Clone, Copy, Default)]
enum Dots {
    /// A line begins.
    #[default]
    Start,
    /// Within a line.
    Within,
    /// After a carriage return.
    Return,
    /// After the dot that began a line.
    Dot,
    /// After that dot and a carriage return, which is still owed to the text.
    DotReturn,
}

impl Dots {
    /// Hands the text's bytes to `keep`. Says how many bytes of `wire` were used, and whether the end was among them.
    fn unstuff(&mut self, wire: &[u8], mut keep: impl FnMut(&[u8])) -> (usize, bool) {
        // The run of bytes that is kept as it is begins here.
        let mut from = 0;
        for (at, byte) in wire.iter().enumerate() {
            *self = match (*self, byte) {
                (Dots::Start, b'.') => {
                    keep(&wire[from..at]);
                    from = at + 1;
                    Dots::Dot
                }
                (Dots::Dot, b'\r') => {
                    from = at + 1;
                    Dots::DotReturn
                }
                (Dots::DotReturn, b'\n') => {
                    *self = Dots::Start;
                    return (at + 1, true);
                }
                (state, byte) => {
                    if let Dots::DotReturn = state {
                        keep(b"\r");
                    }
                    match (state, byte) {
                        (Dots::Return, b'\n') => Dots::Start,
                        (_, b'\r') => Dots::Return,
                        (_, b'\n') => {
                            keep(&wire[from..at]);
                            keep(b"\r\n");
                            from = at + 1;
                            Dots::Within
                        }
                        _ => Dots::Within,
                    }
                }
            };
        }
        keep(&wire[from..]);
        (wire.len(), false)
    }
}

/// Stuffs the dots of a text that goes out piece by piece, and ends it with a whole line and the line that is a single dot.
#[derive(Debug)]
pub struct Stuffing {
    /// A line begins.
    start: bool,
    /// The last two bytes; none yet.
    last: Option<[u8; 2]>,
}

impl Default for Stuffing {
    fn default() -> Self {
        Self {
            start: true,
            last: None,
        }
    }
}

impl Stuffing {
    /// Appends the next piece to `out`.
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for line in piece.split_inclusive(|b| *b == b'\n') {
            // After a bare line feed as well: a receiver that takes it for a line end must not see a lone dot.
            if self.start && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.start = line.ends_with(b"\n");
        }
        self.last = match (piece, self.last) {
            ([], last) => last,
            ([one], last) => Some([last.unwrap_or_default()[1], *one]),
            ([.., before, end], _) => Some([*before, *end]),
        };
    }
    /// The end of the text.
    fn end(self) -> &'static [u8] {
        match self.last {
            None | Some([b'\r', b'\n']) => b".\r\n",
            Some(_) => b"\r\n.\r\n",
        }
    }
}

/// The line without its end, as text if it is printable ASCII or UTF-8.
pub fn printable(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
    (!text.contains(|c: char| c.is_control() && c != '\t')).then_some(text)
}

/// One line of an answer out of text that came from anywhere: no line end, bounded.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(Limits::default().line / 4)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Duration = Duration::from_secs(5);

    fn block_on<T>(f: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(f)
    }

    /// A wire whose peer sends `parts`, each by itself, and closes.
    fn wire(parts: Vec<Vec<u8>>) -> Wire<tokio::io::DuplexStream> {
        let (mut far, near) = tokio::io::duplex(64);
        tokio::spawn(async move {
            for p in parts {
                let _ = far.write_all(&p).await;
            }
        });
        Wire::new(near, IDLE)
    }

    #[test]
    fn lines_are_bounded_and_the_next_one_is_found() {
        block_on(async {
            let mut w = wire(vec![b"first\r\n".to_vec(), vec![b'x'; 300], b"\r\nlast\n".to_vec()]);
            assert_eq!(w.line(100).await.unwrap(), Line::Whole(b"first\r\n".to_vec()));
            assert_eq!(w.line(100).await.unwrap(), Line::TooLong);
            assert_eq!(w.line(100).await.unwrap(), Line::Whole(b"last\n".to_vec()));
            assert!(matches!(w.line(100).await, Err(Broken::Closed)));
        });
    }

    #[test]
    fn a_line_without_end_is_cut_off() {
        block_on(async {
            let mut w = wire(vec![vec![b'x'; 2000]]);
            assert!(matches!(w.line(100).await, Err(Broken::Endless(_))));
        });
    }

    #[test]
    fn a_large_text_is_refused_and_the_next_command_is_found() {
        block_on(async {
            let mut w = wire(vec![vec![b'a'; 200], b"\r\n.\r\nNOOP\r\n".to_vec()]);
            assert!(matches!(w.text(100, &Memory::new(1 << 20)).await, Ok(Text::TooLarge)));
            assert_eq!(w.line(100).await.unwrap(), Line::Whole(b"NOOP\r\n".to_vec()));
            let mut w = wire(vec![b"abc\r\n.\r\nNOOP\r\n".to_vec()]);
            assert!(matches!(w.text(100, &Memory::new(0)).await, Ok(Text::NoMemory)));
            assert_eq!(w.line(100).await.unwrap(), Line::Whole(b"NOOP\r\n".to_vec()));
            let mut w = wire(vec![vec![b'a'; 1000]]);
            assert!(matches!(
                w.text(100, &Memory::new(1 << 20)).await,
                Err(Broken::Endless(_))
            ));
        });
    }

    #[test]
    fn a_bare_line_feed_ends_no_text() {
        block_on(async {
            let mut w = wire(vec![b"a\n.\nMAIL FROM:<x>\r\n.\n\r\n.\r\n".to_vec()]);
            let Ok(Text::Whole(text, _)) = w.text(1000, &Memory::new(1 << 20)).await else {
                panic!()
            };
            // Whole lines inside the one message, so that nobody behind sees an end in it either; dots were stuffed by whole lines.
            assert_eq!(text, b"a\r\n.\r\nMAIL FROM:<x>\r\n\r\n\r\n");
        });
    }

    #[test]
    fn bare_line_feeds_count_twice() {
        block_on(async {
            let mut w = wire(vec![vec![b'\n'; 60], b"\r\n.\r\n".to_vec()]);
            assert!(matches!(w.text(100, &Memory::new(1 << 20)).await, Ok(Text::TooLarge)));
            let mut w = wire(vec![vec![b'\n'; 60], b"\r\n.\r\n".to_vec()]);
            let Ok(Text::Whole(text, _)) = w.text(122, &Memory::new(1 << 20)).await else {
                panic!()
            };
            assert_eq!(text, b"\r\n".repeat(61));
        });
    }

    #[test]
    fn a_silent_peer_is_left() {
        block_on(async {
            let (_far, near) = tokio::io::duplex(64);
            let mut w = Wire::new(near, Duration::from_millis(20));
            assert!(matches!(w.line(100).await, Err(Broken::Idle(_))));
            assert!(matches!(w.send(&[0; 200]).await, Err(Broken::Idle(_))));
        });
    }

    #[test]
    fn memory_comes_back() {
        let m = Memory::new(8 << 10);
        let p = m.take(5000).unwrap();
        assert!(m.take(5000).is_none());
        drop(p);
        assert!(m.take(8192).is_some());
    }

    proptest! {
        #[test]
        fn what_is_stuffed_comes_out_again(text in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'a')], 0..200), cut in 1usize..7) {
            // A message is lines with CRLF: bare ends are made whole by whoever hands it over.
            let mut text: Vec<u8> = text.into_iter().filter(|b| *b != b'\r').flat_map(|b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] }).collect();
            if !text.is_empty() && !text.ends_with(b"\r\n") {
                text.extend_from_slice(b"\r\n");
            }
            let (mut sent, mut stuffing) = (Vec::new(), Stuffing::default());
            text.chunks(cut).for_each(|piece| stuffing.push(piece, &mut sent));
            sent.extend_from_slice(stuffing.end());
            sent.extend_from_slice(b"QUIT\r\n");
            let parts = sent.chunks(cut).map(<[u8]>::to_vec).collect();
            block_on(async {
                let mut w = wire(parts);
                match w.text(1 << 20, &Memory::new(1 << 20)).await {
                    Ok(Text::Whole(got, _)) => assert_eq!(got, text),
                    other => panic!("{other:?}"),
                }
                assert_eq!(w.line(100).await.unwrap(), Line::Whole(b"QUIT\r\n".to_vec()));
            });
        }

        #[test]
        fn garbage_never_hangs_or_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            block_on(async {
                let mut w = wire(vec![bytes.clone()]);
                while w.line(64).await.is_ok() {}
                let mut w = wire(vec![bytes]);
                while w.text(64, &Memory::new(1 << 20)).await.is_ok() {}
            });
        }
    }
}
