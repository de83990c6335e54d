//! The live state of a lab's networks as a small picture in text. Pure.

use super::rules::{ANY, Match, Rule};
use super::{Counters, PortCounters, RuleCounters};
use crate::spec::Lab;
use std::fmt::Write;

/// Each network with its cables, which direction of them is cut (`╳`) or impaired (`~`), what they carried and lost, and
/// its rules with what they did.
pub fn picture(lab: &Lab, rules: &[Rule], counters: &Counters) -> String {
    let mut out = String::new();
    let width = counters.ports.iter().map(|p| p.node.len()).max().unwrap_or(0);
    for net in &lab.networks {
        let _ = writeln!(out, "{} {}, mtu {}", net.name, net.subnet, net.mtu);
        let ports: Vec<&PortCounters> = counters
            .ports
            .iter()
            .filter(|p| p.network == net.name.as_str())
            .collect();
        let here: Vec<&Rule> = rules.iter().filter(|r| r.network == net.name.as_str()).collect();
        for (i, p) in ports.iter().enumerate() {
            let joint = match (i, i + 1 == ports.len()) {
                (0, true) => '─',
                (0, false) => '┐',
                (_, false) => '┤',
                (_, true) => '┘',
            };
            let sends = mark(
                '→',
                here.iter()
                    .filter(|r| (r.from == p.node || r.from == ANY) && r.to == ANY),
            );
            let hears = mark('←', here.iter().filter(|r| r.from == ANY && r.to == p.node));
            let (sent, received) = (p.frames_in, p.frames_out);
            let _ = write!(
                out,
                "  {:width$} ──{sends}──{hears}──{joint} {sent:>9} sent {received:>9} received",
                p.node
            );
            for (name, n) in losses(p).into_iter().filter(|(_, n)| *n > 0) {
                let _ = write!(out, "  {name} {n}");
            }
            out.push('\n');
        }
        for r in here {
            let matches = Some(r.matches.to_string()).filter(|m| !m.is_empty());
            let what = [Some(r.effect.to_string()), matches]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>();
            let did = counters
                .rules
                .iter()
                .find(|c| c.id == r.id)
                .map(did)
                .unwrap_or_default();
            let _ = writeln!(out, "  {} → {}  {} ({}): {did}", r.from, r.to, what.join(", "), r.id);
        }
    }
    out
}

/// How one direction of a cable is: a cut of only some frames is an impairment.
fn mark<'a>(whole: char, rules: impl Iterator<Item = &'a &'a Rule>) -> char {
    rules.fold(whole, |worst, r| match worst {
        '╳' => '╳',
        _ if r.effect.cut && r.matches == Match::default() => '╳',
        _ => '~',
    })
}

fn losses(p: &PortCounters) -> [(&'static str, u64); 7] {
    [
        ("dropped on sending", p.dropped_in),
        ("dropped on receiving", p.dropped_out),
        ("foreign", p.foreign),
        ("malformed", p.malformed),
        ("overflow", p.overflow),
        ("storm", p.storm),
        ("host-drops", p.host_drops_in + p.host_drops_out),
    ]
}

fn did(c: &RuleCounters) -> String {
    let all = [
        ("dropped", c.dropped),
        ("delayed", c.delayed),
        ("duplicated", c.duplicated),
        ("corrupted", c.corrupted),
    ];
    let done: Vec<String> = all
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(word, n)| format!(", {word} {n}"))
        .collect();
    match c.matched {
        0 => "matched nothing yet".into(),
        n => format!("matched {n}{}", done.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Effect, Proto};
    use crate::spec;

    #[test]
    fn a_picture_shows_what_is_broken_and_what_it_did() {
        let lab = spec::example("bare");
        let rule = |id: &str, from: &str, to: &str, effect| Rule {
            id: id.into(),
            network: lab.networks[0].name.to_string(),
            from: from.into(),
            to: to.into(),
            matches: Match::default(),
            effect,
            seed: 0,
        };
        let loss: Effect =
            serde_json::from_str(r#"{"loss":"30%","burst":4,"delay":"100 ms","jitter":"10 ms"}"#).unwrap();
        let nodes: Vec<String> = lab.nodes.iter().map(|n| n.name.to_string()).collect();
        let mut rules = vec![
            rule("r1", &nodes[0], ANY, Effect::cut()),
            rule("r2", ANY, &nodes[1], loss),
            rule("r3", &nodes[0], &nodes[1], Effect::cut()),
        ];
        rules[2].matches = Match {
            proto: Some(Proto::Tcp),
            port: Some(445),
            ..Match::default()
        };
        let mut counters = Counters::default();
        for net in &lab.networks {
            for node in lab.nodes.iter().filter(|n| n.address(&net.name).is_some()) {
                counters.ports.push(PortCounters {
                    network: net.name.to_string(),
                    node: node.name.to_string(),
                    frames_in: 10,
                    ..PortCounters::default()
                });
            }
        }
        counters.ports[0].dropped_in = 7;
        counters.ports[1].host_drops_out = 2;
        counters.rules = rules
            .iter()
            .map(|r| RuleCounters {
                id: r.id.clone(),
                ..RuleCounters::default()
            })
            .collect();
        (counters.rules[0].matched, counters.rules[0].dropped) = (7, 7);
        counters.rules[1].matched = 1;
        insta::assert_snapshot!(picture(&lab, &rules, &counters), @r"
        public 10.78.1.0/24, mtu 1500
          a ──╳──←──┐        10 sent         0 received  dropped on sending 7
          b ──→──~──┤        10 sent         0 received  host-drops 2
          c ──→──←──┘        10 sent         0 received
          a → *  cut (r1): matched 7, dropped 7
          * → b  loss 30% in bursts of 4, delay 100 ms ± 10 ms (r2): matched 1
          a → b  cut, tcp port 445 (r3): matched nothing yet
        private 10.78.2.0/24, mtu 1500
          a ──→──←──┐        10 sent         0 received
          b ──→──←──┤        10 sent         0 received
          c ──→──←──┘        10 sent         0 received
        ");
    }
}
