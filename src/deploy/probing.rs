//! Asking a machine by probes: commands whose output was not made for us.

use super::mapping::Answers;
use super::operate::SCHEMA;
use crate::error::Result;
use crate::guest::{Command, Remote};
use crate::probe::Probe;
use crate::wait::Deadline;
use ccr_contract::status::Status;
use std::collections::BTreeMap;

/// What the probes say of `node`, as facts of a status that has nothing else. A probe without an answer stands in `unread`.
///
/// # Errors
/// The machine does not answer.
pub fn probe<'a>(
    remote: &mut dyn Remote,
    node: &str,
    probes: impl Iterator<Item = &'a Probe>,
    deadline: Deadline,
) -> Result<Status> {
    let probes: Vec<Probe> = probes.cloned().collect();
    let mut status = nothing_of(node);
    for (name, answer) in answers(remote, &probes, deadline)? {
        match answer {
            Ok(value) => drop(status.facts.insert(name, value)),
            Err(why) => drop(status.unread.insert(name, why)),
        }
    }
    Ok(status)
}

/// A status that says nothing.
pub(super) fn nothing_of(node: &str) -> Status {
    Status {
        schema: SCHEMA,
        node: node.to_owned(),
        version: String::new(),
        epoch: 0,
        cluster: None,
        service: None,
        copies: Vec::new(),
        hub: None,
        events: None,
        node_t_us: None,
        facts: BTreeMap::new(),
        unread: BTreeMap::new(),
        wrong: Vec::new(),
    }
}

/// What each probe answers, or why it does not.
pub(super) fn answers(remote: &mut dyn Remote, probes: &[Probe], deadline: Deadline) -> Result<Answers> {
    let mut answers = Answers::new();
    for (i, probe) in probes.iter().enumerate() {
        // A program that hangs must leave the others their time.
        let share = deadline.left() / (probes.len() - i + 1) as u32;
        let command = Command::new(probe.run.iter().cloned());
        let answer = match remote.exec(&command, deadline.at_most(share)) {
            Ok(output) => probe.answer(output.status, &output.stdout, &output.complaint()),
            // Its program, or the machine?
            Err(e) => remote.check(deadline).map(|()| Err(e.to_string()))?,
        };
        answers.insert(probe.name.clone(), answer);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fake::FakeRemote;
    use crate::probe::Parse;
    use serde_json::json;
    use std::time::Duration;

    fn ask(remote: &mut FakeRemote) -> Result<Status> {
        let of = |name: &str, parse| Probe {
            name: name.into(),
            run: vec![name.into()],
            parse,
        };
        let probes = [of("slow", None), of("info", Some(Parse::Pairs)), of("web", None)];
        probe(remote, "a", probes.iter(), Deadline::after(Duration::from_secs(9)))
    }

    #[test]
    fn a_probe_that_hangs_or_babbles_is_unread_and_the_others_are_answered() {
        let mut remote = FakeRemote::new()
            .die(&["slow"], "time ran out, it was killed")
            .answer(&["info"], 0, "garbage")
            .answer(&["web"], 3, "no\n")
            .answer(&["true"], 0, "");
        let status = ask(&mut remote).unwrap();
        assert_eq!(status.facts["web"], json!({"status": 3, "said": "no"}));
        assert_eq!(status.facts.len(), 1);
        assert!(status.unread["slow"].contains("time ran out"), "{:?}", status.unread);
        assert!(status.unread["info"].contains("`garbage` is no `key:value`"));
    }

    #[test]
    fn a_machine_that_is_gone_says_nothing() {
        let mut remote = FakeRemote::new().die(&["slow"], "reset").die(&["true"], "reset");
        assert!(ask(&mut remote).unwrap_err().to_string().contains("reset"));
    }
}
