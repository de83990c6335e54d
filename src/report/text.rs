//! Text of others on a page, in XML, in Markdown: shown as text, whatever it is.

use std::fmt::Write;

/// Characters of one text that a page shows at most: what is longer stands whole in `verdict.json` and the journals.
const LONGEST: usize = 2_000;

/// Whether a reader would not see it, or see what is beside it differently: controls, and marks that turn the direction of text.
fn is_hidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// The text with everything in it visible: a hidden character stands as its number, like `\u{202e}`.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The beginning of a text that is too long to be read.
pub(super) fn short(text: &str) -> String {
    begin(text, LONGEST)
}

/// The first characters of a text, and how many more there are.
pub(super) fn begin(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => {
            let more = text[at..].chars().count();
            format!("{} … ({more} more characters)", &text[..at])
        }
    }
}

/// Text in one line of Markdown: nothing of it is markup.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::new();
    for c in short(&visible(text)).chars() {
        match c {
            '\n' | '\t' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // Names of people and issues would be called.
            '@' => out.push_str("&#64;"),
            '#' => out.push_str("&#35;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '!' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    // An address becomes a link by itself.
    out.replace("://", ":&#47;/").replace("www.", "www&#46;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_shown() {
        assert_eq!(visible("a\u{202e}b\u{0}c\td"), "a\\u{202e}b\\u{0}c\td");
        assert_eq!(visible("größer → ✕"), "größer → ✕");
    }

    #[test]
    fn a_long_text_ends() {
        let long = short(&"é".repeat(1 << 20));
        assert!(
            long.chars().count() < LONGEST + 40 && long.ends_with("(1046576 more characters)"),
            "{long}"
        );
        assert_eq!(short("x"), "x");
    }

    #[test]
    fn markdown_has_no_markup_of_others() {
        assert_eq!(
            markdown("a|b <img> `x`\n*y* @me #1"),
            "a\\|b &lt;img&gt; \\`x\\` \\*y\\* &#64;me &#35;1"
        );
        assert!(!markdown("https://x.test").contains("://"));
    }
}
