//! What counters prove: what happened between two looks, and which rules did nothing. Pure.

use super::{Counters, PortCounters, RuleCounters};

impl Counters {
    /// One port's counters.
    pub fn port(&self, network: &str, node: &str) -> Option<&PortCounters> {
        self.ports.iter().find(|p| p.network == network && p.node == node)
    }

    /// One rule's counters, also where it is no longer in force (then of its last time).
    pub fn rule(&self, id: &str) -> Option<&RuleCounters> {
        self.rules
            .iter()
            .find(|r| r.id == id)
            .or_else(|| self.retired.iter().rev().find(|r| r.id == id))
    }

    /// Rules in force that no frame met: a fault that did nothing.
    pub fn idle_rules(&self) -> Vec<&str> {
        self.rules
            .iter()
            .filter(|r| r.matched == 0)
            .map(|r| r.id.as_str())
            .collect()
    }

    /// What was counted since `before`; a rule that is new since then counts whole.
    #[must_use]
    pub fn since(&self, before: &Counters) -> Counters {
        let rule = |r: &RuleCounters| match before.rules.iter().find(|b| b.id == r.id) {
            // A rule with the same name and lower counts is another rule.
            Some(b) if b.matched <= r.matched && b.dropped <= r.dropped => RuleCounters {
                id: r.id.clone(),
                matched: r.matched - b.matched,
                dropped: r.dropped - b.dropped,
                delayed: r.delayed.saturating_sub(b.delayed),
                duplicated: r.duplicated.saturating_sub(b.duplicated),
                corrupted: r.corrupted.saturating_sub(b.corrupted),
            },
            _ => r.clone(),
        };
        let port = |p: &PortCounters| {
            let zero = PortCounters::default();
            let b = before.port(&p.network, &p.node).unwrap_or(&zero);
            PortCounters {
                network: p.network.clone(),
                node: p.node.clone(),
                frames_in: p.frames_in.saturating_sub(b.frames_in),
                bytes_in: p.bytes_in.saturating_sub(b.bytes_in),
                frames_out: p.frames_out.saturating_sub(b.frames_out),
                bytes_out: p.bytes_out.saturating_sub(b.bytes_out),
                dropped_in: p.dropped_in.saturating_sub(b.dropped_in),
                dropped_out: p.dropped_out.saturating_sub(b.dropped_out),
                foreign: p.foreign.saturating_sub(b.foreign),
                malformed: p.malformed.saturating_sub(b.malformed),
                overflow: p.overflow.saturating_sub(b.overflow),
                storm: p.storm.saturating_sub(b.storm),
                host_drops_in: p.host_drops_in.saturating_sub(b.host_drops_in),
                host_drops_out: p.host_drops_out.saturating_sub(b.host_drops_out),
            }
        };
        // Rules that went in between are still evidence; those that had gone before are not.
        let gone_before = before.retired.last();
        let from = gone_before
            .and_then(|g| self.retired.iter().rposition(|r| r == g))
            .map_or(0, |i| i + 1);
        Counters {
            revision: self.revision,
            ports: self.ports.iter().map(port).collect(),
            rules: self.rules.iter().map(rule).collect(),
            retired: self.retired[from..].iter().map(rule).collect(),
        }
    }

    /// Frames that the host's kernel dropped on the way of `node` on `network`, in either direction.
    pub fn host_drops(&self, network: &str, node: &str) -> u64 {
        self.port(network, node)
            .map_or(0, |p| p.host_drops_in + p.host_drops_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, matched: u64) -> RuleCounters {
        RuleCounters {
            id: id.into(),
            matched,
            dropped: matched,
            ..RuleCounters::default()
        }
    }

    fn counters(frames: u64, rules: Vec<RuleCounters>, retired: Vec<RuleCounters>) -> Counters {
        let port = PortCounters {
            network: "n".into(),
            node: "a".into(),
            frames_in: frames,
            host_drops_out: frames,
            ..PortCounters::default()
        };
        Counters {
            revision: 3,
            ports: vec![port],
            rules,
            retired,
        }
    }

    #[test]
    fn evidence_is_what_happened_in_between() {
        let before = counters(10, vec![rule("a", 5), rule("b", 2)], vec![rule("old", 9)]);
        let after = counters(
            25,
            vec![rule("a", 7), rule("new", 0)],
            vec![rule("old", 9), rule("b", 3)],
        );
        let d = after.since(&before);
        assert_eq!((d.ports[0].frames_in, d.host_drops("n", "a")), (15, 15));
        assert_eq!(d.rules, [rule("a", 2), rule("new", 0)]);
        assert_eq!(d.retired, [rule("b", 1)]);
        assert_eq!(d.idle_rules(), ["new"]);
        assert_eq!(after.rule("b").map(|r| r.matched), Some(3));
        // The same name again, begun anew.
        assert_eq!(
            counters(0, vec![rule("a", 1)], vec![]).since(&before).rules,
            [rule("a", 1)]
        );
    }
}
