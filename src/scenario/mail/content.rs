//! Messages: the same seed and key give the same bytes, so that a reader can tell a damaged one.

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Characters of a line, its end not counted (RFC 5322 asks for at most 78).
const LINE: usize = 76;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The key of operation `op` of `client` in the run called `run`: its Message-ID without brackets. Short: stores keep 32 characters at least.
pub fn key(run: &str, client: &str, op: u64) -> String {
    format!("{op}.{client}.{run}@fl.test")
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its key.
    pub key: String,
    /// Envelope sender.
    pub from: String,
    /// Envelope recipient.
    pub to: String,
    /// Header and body, lines ended by CRLF, not yet dot-stuffed.
    pub text: Vec<u8>,
}

impl Letter {
    /// A letter of about `size` bytes. Never two lines of it begin with a dot by accident: the alphabet has none.
    pub fn new(seed: u64, key: &str, from: &str, to: &str, size: u64) -> Self {
        let head = format!(
            "Date: Thu, 01 Mar 2007 12:00:00 +0000\r\nFrom: <{from}>\r\nTo: <{to}>\r\nMessage-ID: <{key}>\r\nSubject: {key}\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        );
        let mut text = head.into_bytes();
        let rest = (size as usize).saturating_sub(text.len());
        text.extend_from_slice(&body(seed, key, rest));
        Self {
            key: key.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            text,
        }
    }
}

/// A body of at least one line and about `size` bytes.
fn body(seed: u64, key: &str, size: usize) -> Vec<u8> {
    let mut material = blake3::Hasher::new();
    material.update(&seed.to_le_bytes());
    material.update(key.as_bytes());
    let mut random = ChaCha8Rng::from_seed(*material.finalize().as_bytes());
    let lines = (size / (LINE + 2)).max(1);
    let mut body = Vec::with_capacity(lines * (LINE + 2));
    let mut line = [0u8; LINE];
    for _ in 0..lines {
        random.fill_bytes(&mut line);
        body.extend(line.iter().map(|b| LETTERS[usize::from(b & 63)]));
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// What a stored message says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredMessage {
    /// Its Message-ID without brackets; none where it has none.
    pub key: Option<String>,
    /// Whether its body is the one that `seed` and the key give.
    pub intact: bool,
}

/// Reads a message as it came back. Headers that were added on the way are of no concern; the body must be the same.
pub(super) fn inspect(seed: u64, text: &[u8]) -> StoredMessage {
    let blank = text.windows(4).position(|w| w == b"\r\n\r\n");
    let (head, found) = match blank {
        Some(at) => (&text[..at + 2], &text[at + 4..]),
        None => (text, &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let key = head.split("\r\n").find_map(|l| {
        let (name, value) = l.split_once(':')?;
        let value = value.trim().strip_prefix('<')?.strip_suffix('>')?;
        name.eq_ignore_ascii_case("message-id").then(|| value.to_owned())
    });
    let intact = key
        .as_deref()
        .is_some_and(|k| found.len() >= LINE && found == body(seed, k, found.len()));
    StoredMessage { key, intact }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_known_again_and_a_flipped_bit_is_seen() {
        let letter = Letter::new(7, "1.m1.r@failoverlab.test", "a@b", "m1@s", 4096);
        assert!((3900..=4096).contains(&letter.text.len()));
        let added = [b"Received: from x\r\n".as_slice(), &letter.text].concat();
        let seen = inspect(7, &added);
        assert_eq!(seen.key.as_deref(), Some("1.m1.r@failoverlab.test"));
        assert!(seen.intact);
        let mut flipped = letter.text.clone();
        let last = flipped.len() - 10;
        flipped[last] ^= 1;
        assert!(!inspect(7, &flipped).intact);
        let half = &letter.text[..letter.text.len() - 200];
        assert!(!inspect(7, half).intact, "a torn message is damaged");
        assert!(!inspect(8, &letter.text).intact);
    }

    #[test]
    fn letters_differ_by_seed_and_key_only() {
        let make = |seed, key| Letter::new(seed, key, "a@b", "c@d", 1000).text;
        assert_eq!(make(1, "k"), make(1, "k"));
        assert_ne!(make(1, "k"), make(2, "k"));
        assert_ne!(make(1, "k"), make(1, "l"));
    }

    #[test]
    fn garbage_is_no_letter() {
        for text in [&b""[..], b"\r\n\r\n", b"Message-ID: <", &[0xff; 300]] {
            assert!(!inspect(1, text).intact);
        }
    }
}
