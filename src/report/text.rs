//! Text of others in Markdown: shown as text, whatever it is.

use crate::picture::text::{short, visible};

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
    fn markdown_has_no_markup_of_others() {
        assert_eq!(
            markdown("a|b <img> `x`\n*y* @me #1"),
            "a\\|b &lt;img&gt; \\`x\\` \\*y\\* &#64;me &#35;1"
        );
        assert!(!markdown("https://x.test").contains("://"));
    }
}
