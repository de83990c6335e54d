//! TOML into types, with all that is wrong with its shape at once. Lab files and scenario files both come through here.

use super::Finding;
use super::known;
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Findings after which no more are looked for.
const ENOUGH: usize = 40;

/// Reads a `T`. Values wrapped in [`super::At`] know their place.
///
/// serde ends at its first error: so what it stumbled over is taken out and it is sent again, until it comes through.
///
/// # Errors
/// Every finding about syntax, unknown keys, types and missing keys, in the file's order.
pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Finding>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().take(ENOUGH).map(|e| syntax(text, e)).collect());
    }
    let span = root.span();
    let mut root = root.into_inner();
    let mut findings = Vec::new();
    let mut removed: Vec<(Range<usize>, String)> = Vec::new();
    let error = loop {
        match T::deserialize(toml::de::Deserializer::from(Spanned::new(span.clone(), root.clone()))) {
            Ok(value) if findings.is_empty() => return Ok(value),
            Ok(_) => break None,
            Err(e) if findings.len() >= ENOUGH => break Some(e),
            Err(e) => {
                let place = e.span().unwrap_or_default();
                let missing = between(e.message(), "missing field `");
                // A key that was taken out because its value was bad is not missing.
                let ours = missing.is_some_and(|m| removed.iter().any(|(table, key)| *table == place && key == m));
                let taken = take(&mut root, &span, &place);
                if !ours {
                    findings.push(shape(&e));
                }
                match taken {
                    Some(entry) => removed.push(entry),
                    None => break None,
                }
            }
        }
    };
    findings.extend(error.as_ref().map(shape));
    findings.sort_by_key(Finding::start);
    Err(findings)
}

/// Takes out the innermost entry whose key or value stands at `place`; says which table it was in.
fn take(table: &mut DeTable<'_>, table_span: &Range<usize>, place: &Range<usize>) -> Option<(Range<usize>, String)> {
    for (_, value) in table.iter_mut() {
        let span = value.span();
        if let Some(entry) = take_within(value.get_mut(), &span, place) {
            return Some(entry);
        }
    }
    let key = table
        .iter()
        .find(|(k, v)| k.span() == *place || v.span() == *place)
        .map(|(k, _)| k.clone())?;
    table.remove(&key);
    Some((table_span.clone(), key.into_inner().into_owned()))
}

fn take_within(value: &mut DeValue<'_>, span: &Range<usize>, place: &Range<usize>) -> Option<(Range<usize>, String)> {
    match value {
        DeValue::Table(t) => take(t, span, place),
        DeValue::Array(array) => {
            for item in array.iter_mut() {
                let at = item.span();
                if let Some(entry) = take_within(item.get_mut(), &at, place) {
                    return Some(entry);
                }
            }
            let found = array.iter().position(|item| item.span() == *place)?;
            let mut rest = toml::de::DeArray::new();
            for (i, item) in array.iter().enumerate() {
                if i != found {
                    rest.push(item.clone());
                }
            }
            *array = rest;
            Some((span.clone(), String::new()))
        }
        _ => None,
    }
}

fn syntax(text: &str, e: &toml::de::Error) -> Finding {
    let place = e.span().unwrap_or_default();
    let finding = Finding::new("syntax", e.message()).at(place.clone(), "here");
    // The parser may stop at it or behind it.
    let at = text.get(place.start..).and_then(|rest| rest.chars().next());
    let before = text.get(..place.start).and_then(|rest| rest.chars().next_back());
    match at.and_then(no_toml).or_else(|| before.and_then(no_toml)) {
        Some(help) => finding.help(help),
        None => finding,
    }
}

/// What an editor or a web page put in place of what is meant.
fn no_toml(c: char) -> Option<String> {
    let (what, instead) = match c {
        '“' | '”' | '„' | '«' | '»' => ("a typographic quotation mark", "write \""),
        '‘' | '’' | '‚' => ("a typographic quotation mark", "write '"),
        '\u{a0}' | '\u{2007}' | '\u{202f}' => ("a no-break space", "write a plain one"),
        '\u{200b}'..='\u{200f}' | '\u{feff}' => ("a character that cannot be seen", "delete it"),
        '–' | '—' | '−' => ("a dash", "write -"),
        '\u{1a}' => ("Ctrl-Z, an old mark of the end", "delete it"),
        c if c.is_control() && !c.is_whitespace() => ("a control character", "delete it"),
        _ => return None,
    };
    Some(format!(
        "{} (U+{:04X}) is {what}: {instead}",
        c.escape_debug(),
        u32::from(c)
    ))
}

/// What serde says, in our words where it is about names.
fn shape(e: &toml::de::Error) -> Finding {
    let message = e.message();
    let place = e.span().unwrap_or_default();
    let named = |rule, what: &str, written: &str| {
        let finding =
            Finding::new(rule, format!("unknown {what} `{written}`")).at(place.clone(), format!("no such {what}"));
        // Behind the name, serde lists the known ones in backquotes.
        let names = message.split('`').skip(3).step_by(2);
        finding.help(known(written, names))
    };
    if let Some(key) = between(message, "unknown field `") {
        named("unknown-key", "key", key)
    } else if let Some(word) = between(message, "unknown variant `") {
        named("bad-value", "word", word)
    } else if let Some(key) = between(message, "missing field `") {
        Finding::new("missing-key", format!("the key `{key}` is missing")).at(place, "in here")
    } else {
        let message = message.replace("a nonzero u8", "a whole number from 1 to 255");
        Finding::new("bad-value", message).at(place, "this one")
    }
}

fn between<'a>(message: &'a str, begin: &str) -> Option<&'a str> {
    message.strip_prefix(begin)?.split('`').next()
}
