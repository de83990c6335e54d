//! docs/detection.md: what became of each misconfiguration on machines, as the last run that chose it saw it.

use serde_json::Value;
use std::path::Path;

const BEGIN: &str = "<!-- list detection -->\n";
const END: &str = "<!-- end -->";

/// Two lines of the page: found before load by what, shown live by what.
pub fn entry(
    mutation: &Value,
    before: &Result<f64, String>,
    live: &Result<Option<(f64, String)>, String>,
) -> (String, String) {
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |key: &str| -> Vec<String> {
        let all = mutation[key].as_array().into_iter().flatten();
        all.map(word).collect()
    };
    let rules = list("rules").into_iter().map(|r| format!("rule {r}"));
    let by: Vec<String> = rules.chain(list("preflight")).collect();
    let by = if by.is_empty() { "nothing".into() } else { by.join(", ") };
    let before = match (before, mutation["refused"].is_string()) {
        (Ok(_), true) => format!("{by}; `up` is refused"),
        (Ok(seconds), false) => format!("{by}, in {seconds:.1} s"),
        (Err(_), _) => "not as its file says".into(),
    };
    let shown = &mutation["shown"];
    let (scenario, verdict) = (word(&shown["scenario"]), word(&shown["verdict"]));
    let live = match live {
        Ok(Some((seconds, by))) if by.is_empty() => format!("{scenario} is {verdict}, in {seconds:.0} s"),
        Ok(Some((seconds, by))) => format!("{scenario} is {verdict} by {by}, in {seconds:.0} s"),
        Ok(None) if scenario.is_empty() => "no scenario is named".into(),
        Ok(None) => "*not run*".into(),
        Err(_) => format!("{scenario} not as its file says"),
    };
    let id = word(&mutation["id"]);
    let text = format!("- **{id}** *Before load*: {before}\n  *Live*: {live}\n");
    (id, text)
}

/// Puts the entry in the place of the one that has its id.
///
/// # Errors
/// There is no such page, or it has no entry of this id.
pub fn keep(page: &Path, (id, entry): &(String, String)) -> Result<(), String> {
    let tried = |e: std::io::Error| format!("{}: {e}", page.display());
    let text = std::fs::read_to_string(page).map_err(tried)?;
    let no_list = || format!("{}: no list", page.display());
    let (before, rest) = text.split_once(BEGIN).ok_or_else(no_list)?;
    let (list, after) = rest.split_once(END).ok_or_else(no_list)?;
    let mark = format!("- **{id}** ");
    let from = list
        .find(&mark)
        .ok_or_else(|| format!("{}: no entry of {id}", page.display()))?;
    let to = list[from + 1..].find("- **").map_or(list.len(), |n| from + 1 + n);
    let list = [&list[..from], entry, &list[to..]].concat();
    std::fs::write(page, [before, BEGIN, &list, END, after].concat()).map_err(tried)
}
