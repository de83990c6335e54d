//! I4 and I12: nothing twice, nothing that was never sent, nothing left behind.

use super::evidence::{Evidence, writes};
use super::finding::Finding;
use super::{Op, OpKind, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// What the keys of one run have in common: everything from its own name on.
fn run_of(key: &str) -> Option<&str> {
    key.splitn(3, '.').nth(2)
}

/// I4, by the final read of the active node.
pub(super) fn check(e: &Evidence<'_>) -> Finding {
    let Some(stored) = e.stored() else {
        return Finding::unknown("there is no final read of the active node");
    };
    let sent: BTreeMap<&str, &Op<'_>> = e.ops.iter().filter(|o| writes(o)).map(|o| (o.key, o)).collect();
    // Each workload of a run has a name of its own.
    let runs: BTreeSet<&str> = sent.keys().filter_map(|k| run_of(k)).collect();
    let mut wrong = Vec::new();
    let mut ours = 0u64;
    for (key, messages) in &stored {
        match sent.get(key) {
            Some(op) => {
                ours += 1;
                if op.outcome == Outcome::Fail {
                    wrong.push(format!("{key} is there, though it was refused: {}", op.seen));
                }
                let elsewhere = messages.iter().any(|m| local(&m.mailbox) != op.mailbox);
                if elsewhere {
                    wrong.push(format!("{key} is in another mailbox than {}", op.mailbox));
                }
            }
            None if run_of(key).is_some_and(|run| runs.contains(run)) => wrong.push(format!("{key} was never sent")),
            // Of an earlier run, or a person's own mail.
            None => continue,
        }
        if messages.len() > 1 {
            wrong.push(format!("{key} is there {} times", messages.len()));
        }
    }
    for op in e.ops.iter().filter(|o| o.kind == OpKind::Read) {
        wrong.extend(
            op.damaged
                .iter()
                .map(|key| format!("{key} came back with other content (operation {})", op.op)),
        );
    }
    if wrong.is_empty() && ours == 0 {
        return Finding::unknown("no message of this run is there: nothing can be said of those");
    }
    Finding::of(&wrong, || format!("{ours} messages of this run, each once"))
}

/// The mailbox, whether or not a domain is named with it.
fn local(mailbox: &str) -> &str {
    mailbox.split('@').next().unwrap_or(mailbox)
}

/// I12.
pub(super) fn clean(e: &Evidence<'_>) -> Finding {
    match &e.history.leaks {
        None => Finding::unknown("nobody looked"),
        Some(left) => Finding::of(left, || "nothing is left".to_owned()),
    }
}
