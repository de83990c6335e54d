//! A line of an SMTP or LMTP reply. And who answered: the text that the store puts into its LMTP replies, its POP3 greeting and its
//! answer to QUIT.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `node=node1 epoch=7 stream=3f… generation=42`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct By {
    /// The member that answered.
    pub node: String,
    /// Its epoch.
    pub epoch: u64,
    /// The log stream.
    pub stream: String,
    /// The generation that holds what was acknowledged (0: nothing was written).
    pub generation: u64,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "node={} epoch={} stream={} generation={}",
            self.node, self.epoch, self.stream, self.generation
        )
    }
}

impl By {
    /// Finds the four words anywhere in a reply's text; null where one is missing or malformed.
    pub fn find(text: &str) -> Option<By> {
        let word = |name: &str| {
            text.split_ascii_whitespace()
                .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
                .filter(|v| !v.is_empty())
        };
        Some(By {
            node: word("node")?.to_owned(),
            epoch: word("epoch")?.parse().ok()?,
            stream: word("stream")?.to_owned(),
            generation: word("generation")?.parse().ok()?,
        })
    }
}

/// A line of a reply (RFC 5321 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLine<'a> {
    /// The three digits, 0 to 999.
    pub code: u16,
    /// Whether no other line of this reply follows.
    pub last: bool,
    /// What stands behind them.
    pub text: &'a [u8],
}

impl<'a> ReplyLine<'a> {
    /// Reads a line without its end; none where it is no such line.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (digits, rest) = line.split_at_checked(3)?;
        let digit = |code: u16, d: &u8| d.is_ascii_digit().then(|| code * 10 + u16::from(d - b'0'));
        let code = digits.iter().try_fold(0, digit)?;
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return None,
        };
        Some(Self { code, last, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_replies() {
        let line = |code, last, text| Some(ReplyLine { code, last, text });
        for (bytes, read) in [
            (&b"250 ok"[..], line(250, true, &b"ok"[..])),
            (b"250-8BITMIME", line(250, false, b"8BITMIME")),
            (b"354", line(354, true, b"")),
            (b"250-", line(250, false, b"")),
            (b"000 \xff", line(0, true, b"\xff")),
            (b"25", None),
            (b"2x0 ok", None),
            (b"+50 ok", None),
            (b"2500 ok", None),
            (b"250_ok", None),
            ("٢٥٠ ok".as_bytes(), None),
            (b"", None),
        ] {
            assert_eq!(ReplyLine::parse(bytes), read, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn found_again_in_a_reply() {
        let by = By {
            node: "node1".into(),
            epoch: 7,
            stream: "3f".into(),
            generation: 42,
        };
        assert_eq!(By::find(&format!("250 2.1.5 stored {by}")), Some(by));
    }

    #[test]
    fn nothing_is_guessed() {
        for t in [
            "",
            "node=a epoch=x stream=s generation=1",
            "node= epoch=1 stream=s generation=1",
            "250 ok",
        ] {
            assert_eq!(By::find(t), None, "{t}");
        }
    }
}
