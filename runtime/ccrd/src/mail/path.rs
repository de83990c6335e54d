//! The paths of MAIL and RCPT as they are written (RFC 5321 4.1.2). What no store will ever take is refused here, before the message
//! is sent. The parser of commands takes quotes away and an unqualified `postmaster` for nobody; both matter for the answer.

use ccr_core::mailbox::mailbox_of;

/// Longest path in bytes, its brackets left out (RFC 5321 4.5.3.1.3).
const MAX_PATH: usize = 254;
/// Longest domain in bytes (RFC 5321 4.5.3.1.2).
const MAX_DOMAIN: usize = 255;
const NOT_ASCII: &str =
    "553 5.6.7 an address of other characters than ASCII needs SMTPUTF8, which is not offered here\r\n";

/// The path in a line, without brackets and source route; none where there are no brackets.
pub fn path(line: &[u8]) -> Option<&[u8]> {
    let begin = line.iter().position(|b| *b == b'<')? + 1;
    let rest = &line[begin..];
    let path = rest[..unquoted(rest, b'>')?].trim_ascii();
    match path.first() {
        Some(b'@') => path.iter().position(|b| *b == b':').map(|colon| &path[colon + 1..]),
        _ => Some(path),
    }
}

/// Where a byte stands outside of quotes for the first time.
fn unquoted(text: &[u8], wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.iter().position(|b| {
        let found = !quoted && *b == wanted;
        match (quoted, escaped, *b) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, _, b'"') => quoted = !quoted,
            _ => {}
        }
        found
    })
}

/// A sender, as it is written; empty for a bounce. Otherwise the answer that refuses it.
pub fn sender(path: &[u8]) -> Result<String, &'static str> {
    if path.is_empty() {
        return Ok(String::new());
    }
    let text = ascii(path)?;
    if text.len() > MAX_PATH {
        return Err("501 5.1.7 the sender is too long\r\n");
    }
    let (local, domain) = halves(text).ok_or("501 5.1.7 write a sender with its domain, like <ann@example.org>\r\n")?;
    let plain = !local.is_empty()
        && text
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'<' && b != b'>');
    if plain && (is_dot_atom(local) || is_quoted(local)) && is_domain(domain) {
        Ok(text.to_owned())
    } else {
        Err("501 5.1.7 bad sender\r\n")
    }
}

/// A recipient, as the store is asked for it, with `home` as the domain of an unqualified postmaster (RFC 5321 4.5.1). Otherwise the
/// answer that refuses it.
pub fn recipient(path: &[u8], home: &str) -> Result<String, &'static str> {
    if path.is_empty() {
        return Err("501 5.1.3 an empty recipient\r\n");
    }
    let text = ascii(path)?;
    if text.eq_ignore_ascii_case("postmaster") {
        return Ok(format!("postmaster@{home}"));
    }
    if text.len() > MAX_PATH {
        return Err("501 5.1.3 the recipient is too long\r\n");
    }
    let (local, domain) =
        halves(text).ok_or("501 5.1.3 write a recipient with its domain, like <ann@example.org>\r\n")?;
    if !is_domain(domain) {
        return Err("501 5.1.3 bad domain\r\n");
    }
    let name = if is_quoted(local) {
        bare(local)
    } else {
        local.to_owned()
    };
    if is_dot_atom(&name) && mailbox_of(&name).is_some() {
        Ok(format!("{name}@{domain}"))
    } else {
        Err("550 5.1.1 no such mailbox name\r\n")
    }
}

fn ascii(path: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(path).ok().filter(|t| t.is_ascii()).ok_or(NOT_ASCII)
}

/// Local part and domain.
fn halves(text: &str) -> Option<(&str, &str)> {
    let at = unquoted(text.as_bytes(), b'@')?;
    Some((&text[..at], &text[at + 1..]))
}

/// RFC 5321 4.1.2: words of atext with a dot between two of them.
fn is_dot_atom(text: &str) -> bool {
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    text.split('.').all(|word| !word.is_empty() && word.bytes().all(atext))
}

/// Whether it is one quoted string: the quote that begins it ends with its last byte.
fn is_quoted(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"') else {
        return false;
    };
    let mut escaped = false;
    let end = inner.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    });
    end.is_some_and(|end| end + 1 == inner.len())
}

/// What a quoted local part says.
fn bare(quoted: &str) -> String {
    let mut said = String::new();
    let mut escaped = false;
    for c in quoted[1..quoted.len() - 1].chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            said.push(c);
        }
    }
    said
}

fn is_domain(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let literal = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    text.len() <= MAX_DOMAIN
        && match literal {
            Some(address) => !address.is_empty() && address.bytes().all(|b| word(b) || b == b'.' || b == b':'),
            None => text
                .split('.')
                .all(|label| !label.is_empty() && label.bytes().all(word)),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_path_of_a_line() {
        for (line, found) in [
            (&b"RCPT TO:<a@x>\r\n"[..], Some(&b"a@x"[..])),
            (b"MAIL FROM:< a@x > SIZE=3", Some(b"a@x")),
            (b"MAIL FROM:<>", Some(b"")),
            (b"RCPT TO:<\"a>b\"@x> NOTIFY=NEVER", Some(b"\"a>b\"@x")),
            (b"RCPT TO:<\"a\\\">b\"@x>", Some(b"\"a\\\">b\"@x")),
            (b"RCPT TO:<@hub,@relay:a@x>", Some(b"a@x")),
            (b"RCPT TO:<@hub>", None),
            (b"RCPT TO:a@x", None),
            (b"RCPT TO:<a@x", None),
        ] {
            assert_eq!(path(line), found, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn recipients() {
        let code = |refused: &'static str| refused[..9].trim_end();
        for (path, expected) in [
            ("ann@x", Ok("ann@x")),
            ("Ann.B+c@EXAMPLE.org", Ok("Ann.B+c@EXAMPLE.org")),
            ("ann@[10.77.1.21]", Ok("ann@[10.77.1.21]")),
            ("\"ann\"@x", Ok("ann@x")),
            ("\"a\\nn\"@x", Ok("ann@x")),
            ("postmaster", Ok("postmaster@hub")),
            ("PostMaster", Ok("postmaster@hub")),
            ("postmaster@x", Ok("postmaster@x")),
            ("", Err("501 5.1.3")),
            ("ann", Err("501 5.1.3")),
            ("ann@", Err("501 5.1.3")),
            ("ann@x..y", Err("501 5.1.3")),
            ("ann@b@x", Err("501 5.1.3")),
            ("a/b@x", Err("550 5.1.1")),
            ("@x", Err("550 5.1.1")),
            ("a..b@x", Err("550 5.1.1")),
            (".a@x", Err("550 5.1.1")),
            ("\"q uoted\"@x", Err("550 5.1.1")),
            ("\"a@b\"@x", Err("550 5.1.1")),
            ("\"\"@x", Err("550 5.1.1")),
            ("\"a..b\"@x", Err("550 5.1.1")),
            ("gü@x", Err("553 5.6.7")),
            ("g@ü", Err("553 5.6.7")),
        ] {
            let got = recipient(path.as_bytes(), "hub").map_err(code);
            assert_eq!(got.as_deref(), expected.as_ref().map(|o| &**o), "{path}");
        }
        let long = format!("{}@x", "a".repeat(129));
        assert_eq!(recipient(long.as_bytes(), "hub").map_err(code), Err("550 5.1.1"));
        let endless = format!("a@{}", "x".repeat(300));
        assert_eq!(recipient(endless.as_bytes(), "hub").map_err(code), Err("501 5.1.3"));
        assert_eq!(recipient(b"\xff@x", "hub").map_err(code), Err("553 5.6.7"));
    }

    #[test]
    fn senders() {
        for good in ["", "ann@x", "\"q uoted\"@x", "\"a\\\"b\"@x", "a/b@x"] {
            assert_eq!(sender(good.as_bytes()).as_deref(), Ok(good));
        }
        for (bad, says) in [
            ("ann", "501 5.1.7 write"),
            ("@x", "501 5.1.7 bad"),
            ("a b@x", "501 5.1.7 bad"),
            ("\"a\"b\"@x", "501 5.1.7"),
            ("\"a<b\"@x", "501 5.1.7 bad"),
            ("a@x y", "501 5.1.7 bad"),
            ("ü@x", "553 5.6.7"),
        ] {
            let refused = sender(bad.as_bytes()).unwrap_err();
            assert!(refused.starts_with(says), "{bad}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_names_a_mailbox_and_anything_else_has_an_answer(text in "[\"\\\\<>@:.a-c /ü]{0,12}") {
            let line = format!("RCPT TO:<{text}>\r\n");
            if let Some(found) = path(line.as_bytes()) {
                match recipient(found, "hub") {
                    Ok(to) => prop_assert!(mailbox_of(&to).is_some() && to.is_ascii(), "{to}"),
                    Err(answer) => prop_assert!(answer.ends_with("\r\n") && answer.starts_with('5')),
                }
                if let Ok(from) = sender(found) {
                    prop_assert!(!from.contains(['<', '>']) && from.is_ascii());
                }
            }
        }
    }
}
