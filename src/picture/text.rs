//! What others wrote, for people: pages and terminals show it as text, whatever it is.

use super::fault_of;
use crate::event::Event;
use crate::verify::FaultRecord;
use ccr_contract::event::EventKind;
use serde_json::Value;
use std::collections::BTreeSet;
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
pub fn visible(text: &str) -> String {
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
pub fn short(text: &str) -> String {
    begin(text, LONGEST)
}

/// The first characters of a text, and how many more there are.
pub fn begin(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => {
            let more = text[at..].chars().count();
            format!("{} … ({more} more characters)", &text[..at])
        }
    }
}

/// The text in one line, with everything in it visible: nothing of it moves a cursor or turns what is beside it.
pub fn one_line(text: &str) -> String {
    visible(&text.replace(['\n', '\t'], " "))
}

/// What an event says: its own words where it has some, else its data.
pub fn event_text(event: &Event) -> String {
    let text = event.data.get("text").and_then(Value::as_str);
    match (text, fault_of(event)) {
        (Some(text), _) => text.to_owned(),
        (None, Some(fault)) => format!("{} {}", fault.kind, fault_target(&fault)),
        (None, None) if event.data.is_null() => String::new(),
        (None, None) => plain(&event.data),
    }
}

/// The traffic of logs and mail, of which there is too much to be looked at.
pub fn is_quiet(e: &Event) -> bool {
    matches!(
        e.runtime_event().map(|t| t.what),
        Some(
            EventKind::LogClosed { .. }
                | EventKind::CopyInspected { .. }
                | EventKind::CopyReplayed { .. }
                | EventKind::HubQueued { .. }
                | EventKind::HubDelivered { .. }
        )
    )
}

/// JSON as a person reads it: `a: 1, b: x`.
pub fn plain(v: &Value) -> String {
    match v {
        Value::Null => "–".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join("; "),
        Value::Object(map) => {
            let parts = map.iter().map(|(k, v)| format!("{k}: {}", plain(v)));
            parts.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// What a fault hits: a node, one way or both between two, whole networks.
pub fn fault_target(f: &FaultRecord) -> String {
    let name = |v: &Value| v.get("node").and_then(Value::as_str).map(str::to_owned);
    if let Some(node) = name(&f.target).or_else(|| name(f.target.get("on")?)) {
        return node;
    }
    let ends = f.target.get("between").and_then(Value::as_array);
    if let Some([a, b]) = ends.map(|e| e.iter().filter_map(name).collect::<Vec<_>>()).as_deref() {
        return match f.target.get("direction").and_then(Value::as_str) {
            Some("out") => format!("{a} → {b}"),
            Some("in") => format!("{b} → {a}"),
            _ => format!("{a} ↔ {b}"),
        };
    }
    let paths = f.target.get("paths").and_then(Value::as_array);
    let networks = paths.into_iter().flatten().filter_map(|p| p.get("network")?.as_str());
    let networks: Vec<&str> = networks.collect::<BTreeSet<_>>().into_iter().collect();
    match networks.is_empty() {
        true => "network".to_owned(),
        false => networks.join(", "),
    }
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
    fn a_line_is_one_line() {
        assert_eq!(one_line("a\nb\tc\u{1b}[2J"), "a b c\\u{1b}[2J");
    }
}
