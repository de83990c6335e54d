//! A stream of bytes as lines.

use std::ops::ControlFlow;

/// Longest line that `Remote::follow` hands out.
pub const MAX_LINE: usize = 1 << 20;

/// Cuts a stream into lines.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
    pub(crate) too_long: bool,
}

impl Lines {
    pub(crate) fn take(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str) -> bool) -> ControlFlow<()> {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(len) = self.rest[begin..].iter().position(|b| *b == b'\n') {
            if !line(&String::from_utf8_lossy(&self.rest[begin..begin + len])) {
                return ControlFlow::Break(());
            }
            begin += len + 1;
        }
        self.rest.drain(..begin);
        self.too_long = self.rest.len() > MAX_LINE;
        if self.too_long {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_stream_is() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for part in ["a", "b\nc", "\n\nd"] {
            let mut keep = |l: &str| {
                seen.push(l.to_owned());
                true
            };
            assert!(lines.take(part.as_bytes(), &mut keep).is_continue());
        }
        assert_eq!(seen, ["ab", "c", ""]);
        assert!(lines.take(&vec![b'x'; MAX_LINE + 1], &mut |_| true).is_break() && lines.too_long);
    }
}
