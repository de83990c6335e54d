//! Lines from a server, bounded: nothing that it sends can make a buffer grow past its limit.

/// Longest line that is taken (RFC 5321 4.5.3.1.5 asks for 512; servers add to it).
const LINE_MAX: usize = 4096;

/// Why a server's bytes make no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nonsense(pub String);

/// Bytes in, lines out.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    at: usize,
}

impl Lines {
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line without its end; none where it has not come whole.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Nonsense> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            return if rest.len() > LINE_MAX {
                Err(Nonsense(format!(
                    "a line of more than {LINE_MAX} bytes: {}",
                    shown(rest)
                )))
            } else {
                Ok(None)
            };
        };
        if end > LINE_MAX {
            return Err(Nonsense(format!("a line of {end} bytes: {}", shown(rest))));
        }
        let from = self.at;
        self.at += end + 1;
        let line = &self.bytes[from..from + end];
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

/// What can be shown of bytes that came from anywhere: one line, bounded.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if bytes.len() > MOST {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let mut lines = Lines::default();
        for part in [&b"250-a\r"[..], b"\n250", b" b\nx"] {
            lines.feed(part);
        }
        assert_eq!(lines.next().unwrap(), Some(&b"250-a"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b"250 b"[..]));
        assert_eq!(lines.next().unwrap(), None);
        lines.feed(b"\n");
        assert_eq!(lines.next().unwrap(), Some(&b"x"[..]));
    }

    #[test]
    fn a_line_without_end_is_nonsense() {
        let mut lines = Lines::default();
        lines.feed(&[b'x'; LINE_MAX + 1]);
        assert!(lines.next().unwrap_err().0.len() < 300);
        let mut lines = Lines::default();
        lines.feed(&[&[b'x'; LINE_MAX + 1][..], b"\n"].concat());
        assert!(lines.next().is_err());
    }
}
