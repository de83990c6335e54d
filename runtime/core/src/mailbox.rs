//! Mailboxes: which one an envelope recipient names, in which storage group it lies, and the key of a message in it.

/// Longest mailbox in bytes.
pub const MAX_MAILBOX: usize = 128;
/// Longest key in bytes.
pub const MAX_KEY: usize = 512;
/// Longest key in characters, four bytes each at most.
const KEY_CHARS: usize = MAX_KEY / 4;

/// The mailbox that a recipient names: the part before the `@`, in small letters.
pub fn mailbox_of(recipient: &str) -> Option<String> {
    let name = recipient.split('@').next().unwrap_or_default();
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'<' | b'>'));
    (plain && !name.is_empty() && name.len() <= MAX_MAILBOX).then(|| name.to_ascii_lowercase())
}

/// The `Message-ID` of a message, without angle brackets; empty where there is none.
pub fn message_key(message: &[u8]) -> String {
    for line in message.split(|b| *b == b'\n').take(1000) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_at_checked(11) else {
            continue;
        };
        if name.eq_ignore_ascii_case(b"message-id:") {
            let text = String::from_utf8_lossy(value);
            let text = text.trim().trim_start_matches('<').trim_end_matches('>');
            return text.chars().filter(|c| !c.is_control()).take(KEY_CHARS).collect();
        }
    }
    String::new()
}

/// The storage group of a mailbox: the same on every node.
pub fn group_of(mailbox: &str, groups: usize) -> usize {
    let hash = mailbox.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % groups.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_and_keys_are_found_and_nothing_hostile_gets_through() {
        assert_eq!(mailbox_of("Ann@example"), Some("ann".into()));
        for bad in ["", "@x", "a/b", "a b", "a\nb", "a\\b", &"x".repeat(129), "ü@x"] {
            assert_eq!(mailbox_of(bad), None, "{bad:?}");
        }
        assert_eq!(
            message_key(b"From: a\r\nMessage-Id: <k1@x>\r\n\r\nMessage-ID: <no>\r\n"),
            "k1@x"
        );
        assert_eq!(message_key(b"From: a\r\n\r\nMessage-ID: <no>\r\n"), "");
        let long = format!("{}@failoverlab.test", "k".repeat(80));
        assert_eq!(message_key(format!("Message-ID: <{long}>\r\n").as_bytes()), long);
        assert_eq!(message_key(b"\xff\xfe\n\n"), "");
    }
}
