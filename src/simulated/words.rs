//! Which words of scenarios the simulator has.

use crate::fault::Words;
use crate::scenario::{Action, Scenario};
use ccr_contract::ports::STREAM;

/// Faults that it can make; those to frames only where every frame is cut.
const FAULTS: [&str; 17] = [
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
    "cut-witness",
    "loss",
    "disk-full",
];

/// What narrows a fault to some frames.
const NARROWS: [&str; 4] = ["proto", "port", "ethertype", "address"];

/// What narrows it to some paths.
const PATHS: [&str; 2] = ["network", "direction"];

/// Whether these are all frames of the streams between the members, in both directions: the one part of the frames that it cuts.
fn cuts_streams(words: &Words) -> bool {
    let said = |name: &str| words.parameters.get(name).map(String::as_str);
    let port = said("port") == Some(&STREAM.to_string());
    let other = |name: &&str| !matches!(*name, "proto" | "port") && said(name).is_some();
    said("proto") == Some("tcp") && port && !NARROWS.iter().chain(&PATHS).any(other)
}

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
        "cut" if cuts_streams(words) => None,
        _ if narrowed.is_some() => Some(format!("it cuts all frames, not some by `{}`", narrowed.unwrap_or(&""))),
        "loss" if PATHS.iter().chain(&["burst"]).any(|n| said(n).is_some()) || said("between").is_none() => {
            Some("it loses datagrams between the members on every network, each by itself".to_owned())
        }
        "disk-full" if said("disk").is_some_and(|d| d != "data") => Some("it has no disk but data".to_owned()),
        "disk-full" if words.on.as_deref() == Some("witness") => Some("its share's disk has room".to_owned()),
        "kill" if said("process") != Some("ccrd") => Some("it has no process but ccrd".to_owned()),
        "witness-share" if said("how") != Some("stopped") => Some("its share is there or stopped".to_owned()),
        _ => None,
    }
}
