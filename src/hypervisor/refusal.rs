//! What libvirt and QEMU say when they refuse something, by its meaning. Their words are looked for here, where they enter, and nowhere
//! else: elsewhere a [`Cause`] stands beside them.

use crate::error::{Cause, Problem};

/// What each text means that the tool does something about.
const CAUSES: [(&str, Cause); 2] = [
    ("Could not set up host forwarding rule", Cause::PortTaken),
    ("Failed to parse user", Cause::NoServiceAccount),
];

/// What QEMU says where it has no network of unix datagrams.
const NO_DATAGRAMS: [&str; 2] = ["-netdev {\"type\":\"dgram\"", "arameter 'type'"];

/// A problem with the words of libvirt or QEMU, and what they mean.
pub(super) fn refused(problem: Problem, words: &str) -> Problem {
    let problem = match NO_DATAGRAMS.iter().all(|text| words.contains(text)) {
        true => problem.remedy(
            "the lab's cables are unix datagrams, which this QEMU has not: install QEMU 7.2 or later, or `down` and `up --cold`",
        ),
        false => problem,
    };
    let cause = CAUSES.iter().find(|(text, _)| words.contains(text));
    Problem {
        cause: cause.map(|(_, cause)| *cause),
        ..problem.observed(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_has_a_cause() {
        let cause = |words: &str| refused(Problem::new("start the machine"), words).cause;
        let taken = "internal error: process exited while connecting to monitor: 2026-11-20T10:11:12.000Z qemu-system-x86_64: \
                     -netdev user,id=mgmt,hostfwd=tcp:127.0.0.1:42259-:22: Could not set up host forwarding rule \
                     'tcp:127.0.0.1:42259-:22' (libvirt error 1: internal error)";
        assert_eq!(cause(taken), Some(Cause::PortTaken));
        let account = "invalid argument: Failed to parse user 'libvirt-qemu'";
        assert_eq!(cause(account), Some(Cause::NoServiceAccount));
        assert_eq!(cause("Domain not found"), None);
        let netdev = r#"qemu-system-x86_64: -netdev {"type":"dgram","id":"cable0","local":{}}: "#;
        let remedy = |why: &str| refused(Problem::new("restore the machine"), &format!("{netdev}{why}")).remedy;
        let old = remedy("Parameter 'type' does not accept value 'dgram'");
        assert!(old.is_some_and(|r| r.contains("QEMU 7.2")));
        assert_eq!(remedy("can't bind unix=/run/a.0 to socket"), None);
        let problem = refused(Problem::new("start the machine").on("node1"), taken);
        assert_eq!(
            (problem.on.as_deref(), problem.observed.as_deref()),
            (Some("node1"), Some(taken))
        );
    }
}
