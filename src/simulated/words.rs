//! Which words of scenarios the simulator has.

use crate::fault::Words;
use crate::scenario::{Action, Scenario};

/// Faults that it can make; those to frames only where every frame is cut.
const FAULTS: [&str; 14] = [
    "power-off",
    "power-on",
    "freeze",
    "resume",
    "reset",
    "panic",
    "link-down",
    "link-up",
    "kill",
    "cut",
    "isolate",
    "partition",
    "switch-dead",
    "witness-share",
];

/// What narrows a cut to some frames.
const NARROWS: [&str; 4] = ["proto", "port", "ethertype", "address"];

/// The first step that the simulator cannot do, in words; none where it can do all of them.
pub fn lacks(scenario: &Scenario) -> Option<String> {
    scenario.steps.iter().enumerate().find_map(|(i, step)| {
        let what = match &step.action {
            Action::Exec(_) => Some("it has no commands in machines".to_owned()),
            Action::Fault { words, .. } => fault(words),
            Action::Operate { word, args, .. } => super::orders::lacks(word, args),
            _ => None,
        }?;
        Some(format!("step {} ({}): {what}", i + 1, step.text))
    })
}

fn fault(words: &Words) -> Option<String> {
    let kind = words.kind.word();
    let said = |name: &str| words.parameters.get(name).map(String::as_str);
    let narrowed = NARROWS.iter().find(|n| words.parameters.contains_key(**n));
    match kind {
        _ if !FAULTS.contains(&kind) => Some(format!("it has no `{kind}`")),
        _ if narrowed.is_some() => Some(format!("it cuts all frames, not some by `{}`", narrowed.unwrap_or(&""))),
        "kill" if said("process") != Some("ccrd") => Some("it has no process but ccrd".to_owned()),
        "witness-share" if said("how") != Some("stopped") => Some("its share is there or stopped".to_owned()),
        _ => None,
    }
}
