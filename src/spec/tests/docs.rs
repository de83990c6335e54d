//! `docs/lab-file.md` has every key, setting and rule. UPDATE_DOCS=1 rewrites its lists of settings and rules.

use super::super::rules::RULES;
use super::super::*;
use super::example_context;
use std::path::Path;

fn page() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lab-file.md")
}

/// Longest line of a page, in characters: as `scripts/lint-docs` has it, with some room.
const LONGEST: usize = 118;

/// An entry of a list, wrapped.
pub(crate) fn entry(text: &str) -> String {
    let mut lines = vec![String::from("-")];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("one line at least");
        if last.chars().count() + 1 + word.chars().count() > LONGEST {
            lines.push(format!("  {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n")
}

fn rules() -> Vec<String> {
    let row = |r: &rules::Rule| {
        let waivable = if r.waivable { " (may be broken on purpose)" } else { "" };
        entry(&format!("`{}`{waivable}: {}. *Why*: {}", r.id, r.finds, r.why))
    };
    RULES.iter().map(row).collect()
}

fn settings() -> Vec<String> {
    let context = example_context();
    let row = |(name, s): (&Name, &Setting)| {
        let kind = match s.kind {
            SettingKind::Span => "time".to_owned(),
            SettingKind::Size => "size".to_owned(),
            SettingKind::Integer => "number".to_owned(),
            SettingKind::Bool => "true or false".to_owned(),
            SettingKind::Choice => s
                .choices
                .iter()
                .map(|c| format!("`{c}`"))
                .collect::<Vec<_>>()
                .join(", "),
            SettingKind::Names => "list of texts".to_owned(),
        };
        let least = s
            .min
            .as_ref()
            .map(|m| format!(", at least `{}`", m.as_str().map_or(m.to_string(), str::to_owned)));
        let default = s.default.as_str().map_or_else(|| s.default.to_string(), str::to_owned);
        entry(&format!(
            "`{name}`: {} *Kind*: {kind}{}. *Where absent*: `{default}`",
            s.doc,
            least.unwrap_or_default()
        ))
    };
    context.packs[0].settings.iter().map(row).collect()
}

/// The entries between `<!-- list NAME -->` and `<!-- end -->`, replaced.
pub(crate) fn with_list(page: &str, name: &str, entries: &[String]) -> String {
    let begin = format!("<!-- list {name} -->\n");
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no list {name}"));
    let (_, after) = rest.split_once("<!-- end -->").expect("a list ends");
    format!("{before}{begin}{}\n<!-- end -->{after}", entries.join("\n"))
}

#[test]
fn settings_and_rules_are_documented() {
    let text = std::fs::read_to_string(page()).unwrap();
    let now = with_list(&text, "settings", &settings());
    let now = with_list(&now, "rules", &rules());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page(), &now).unwrap();
    }
    assert!(
        now == std::fs::read_to_string(page()).unwrap(),
        "docs/lab-file.md is old: run the test again with UPDATE_DOCS=1"
    );
    assert!(RULES.iter().all(|r| now.contains(&format!("\n- `{}`", r.id))));
}

/// Names of all properties in the schema.
fn keys(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|v| keys(v, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| keys(v, found)),
        _ => {}
    }
}

#[test]
fn every_key_is_documented() {
    let text = std::fs::read_to_string(page()).unwrap();
    let mut all = std::collections::BTreeSet::new();
    keys(&schema().to_value(), &mut all);
    assert!(all.len() > 25, "{all:?}");
    for key in all {
        let named = text.contains(&format!("`{key}`"))
            || text.contains(&format!("[{key}"))
            || text.contains(&format!(".{key}]"));
        let in_braces = text.contains(&format!("{{ {key},")) || text.contains(&format!(", {key} }}"));
        assert!(named || in_braces, "docs/lab-file.md does not have `{key}`");
    }
}
