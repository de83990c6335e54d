//! A rule set, checked against the lab's names and sorted by the hooks at which it is judged. Pure.

use super::frame::Summary;
use super::impair::{self, Decision, Drop, FlowState};
use super::rules::{ANY, Rule};
use super::{PortId, RuleCounters};
use crate::error::{Error, Problem, Result};

/// The names that rules may use.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The networks.
    pub networks: Vec<String>,
    /// For each port: index of its network, name of its node.
    pub ports: Vec<(usize, String)>,
}

impl Names {
    fn network(&self, rule: &Rule) -> Result<usize> {
        self.networks.iter().position(|n| *n == rule.network).ok_or_else(|| {
            refused(
                rule,
                format!("there is no network `{}`", rule.network),
                known("networks", &self.networks),
            )
        })
    }

    /// The port of `node` on `network`; `None` for `*`.
    fn port(&self, rule: &Rule, network: usize, node: &str) -> Result<Option<PortId>> {
        if node == ANY {
            return Ok(None);
        }
        if let Some(p) = self.ports.iter().position(|(n, name)| *n == network && name == node) {
            return Ok(Some(p));
        }
        let on = |n| self.ports.iter().filter(move |(x, _)| *x == n).map(|(_, name)| name);
        let why = if self.ports.iter().any(|(_, name)| name == node) {
            format!("`{node}` is not on network `{}`", rule.network)
        } else {
            format!("there is no node `{}`", node.escape_debug())
        };
        Err(refused(
            rule,
            why,
            known(&format!("nodes on `{}`", rule.network), on(network)),
        ))
    }
}

fn known<'a>(what: &str, names: impl IntoIterator<Item = &'a String>) -> String {
    let mut list: Vec<&str> = names.into_iter().map(String::as_str).collect();
    list.sort_unstable();
    format!("{what}: {}", list.join(", "))
}

fn refused(rule: &Rule, seen: String, remedy: impl std::fmt::Display) -> Error {
    Error::Usage(
        Problem::new("set the network rules")
            .on(format!("rule `{}`", rule.id))
            .observed(seen)
            .remedy(remedy),
    )
}

/// A rule set in force, with what it remembers.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The rules, in order, each with its counters.
    pub rules: Vec<(Rule, RuleCounters)>,
    flows: Vec<RuleFlow>,
    ingress: Vec<Vec<usize>>,
    forward: Vec<Vec<(PortId, usize)>>,
    egress: Vec<Vec<usize>>,
    /// For each network: whether any rule is about it.
    pub active: Vec<bool>,
}

#[derive(Debug)]
struct RuleFlow {
    rule: usize,
    from: Option<PortId>,
    to: Option<PortId>,
    state: FlowState,
}

/// The point in the switch at which rules are judged.
#[derive(Debug, Clone, Copy)]
pub enum Hook {
    /// On the cable of the sender, before the switch.
    Ingress(PortId),
    /// Between a sender and a receiver.
    Forward(PortId, PortId),
    /// On the cable of the receiver, behind the switch.
    Egress(PortId),
}

impl Compiled {
    /// Checks every rule and sorts the set. A rule that is in `old` as well keeps its counters and what it remembers.
    ///
    /// Where a rule is refused `old` is as it was, else it is of no more use.
    pub fn new(rules: Vec<Rule>, names: &Names, now: u64, old: &mut Compiled) -> Result<Self> {
        Self::check(&rules, names)?;
        let ports = names.ports.len();
        let mut c = Compiled {
            ingress: vec![Vec::new(); ports],
            forward: vec![Vec::new(); ports],
            egress: vec![Vec::new(); ports],
            active: vec![false; names.networks.len()],
            ..Compiled::default()
        };
        for (index, rule) in rules.into_iter().enumerate() {
            let network = names.network(&rule)?;
            let from = names.port(&rule, network, &rule.from)?;
            let to = names.port(&rule, network, &rule.to)?;
            c.active[network] = true;
            let kept = old.rules.iter().position(|(r, _)| *r == rule);
            let mut flow = |from: Option<PortId>, to: Option<PortId>| {
                let again = old
                    .flows
                    .iter()
                    .find(|w| Some(w.rule) == kept && w.from == from && w.to == to);
                let name = |p: Option<PortId>| p.map_or(ANY, |p| names.ports[p].1.as_str());
                let state = again.map_or_else(|| FlowState::new(&rule, name(from), name(to), now), |w| w.state.clone());
                c.flows.push(RuleFlow {
                    rule: index,
                    from,
                    to,
                    state,
                });
                c.flows.len() - 1
            };
            match (from, to) {
                (Some(f), Some(t)) => {
                    let w = flow(from, to);
                    c.forward[f].push((t, w));
                }
                (Some(f), None) => {
                    let w = flow(from, None);
                    c.ingress[f].push(w);
                }
                (None, Some(t)) => {
                    let w = flow(None, to);
                    c.egress[t].push(w);
                }
                (None, None) => {
                    for p in (0..ports).filter(|p| names.ports[*p].0 == network) {
                        let w = flow(Some(p), None);
                        c.ingress[p].push(w);
                    }
                }
            }
            let counters = match kept {
                Some(k) => std::mem::take(&mut old.rules[k].1),
                None => RuleCounters {
                    id: rule.id.clone(),
                    ..RuleCounters::default()
                },
            };
            c.rules.push((rule, counters));
        }
        Ok(c)
    }

    /// Whether the set may be put in force; nothing is changed.
    pub fn check(rules: &[Rule], names: &Names) -> Result<()> {
        for (i, rule) in rules.iter().enumerate() {
            if rule.id.is_empty() || rule.id.len() > 128 || rule.id.chars().any(char::is_control) {
                return Err(refused(
                    rule,
                    "its id must be 1 to 128 printable characters".into(),
                    "choose another id",
                ));
            }
            if rules[..i].iter().any(|r| r.id == rule.id) {
                return Err(refused(
                    rule,
                    "another rule has the same id".into(),
                    "each rule needs an id of its own",
                ));
            }
            let network = names.network(rule)?;
            names.port(rule, network, &rule.from)?;
            names.port(rule, network, &rule.to)?;
            let loop_back = rule.from != ANY && rule.from == rule.to;
            let both = loop_back.then(|| format!("its sender and receiver are both `{}`", rule.from));
            if let Some(why) = both.or_else(|| impair::nonsense(&rule.effect)) {
                return Err(refused(rule, why, "docs/fabric.md has every effect with its bounds"));
            }
        }
        Ok(())
    }

    /// Judges a frame at one hook; the rule that drops it, if any.
    pub fn judge(
        &mut self,
        hook: Hook,
        len: usize,
        s: &Summary,
        now: u64,
        decision: &mut Decision,
    ) -> Option<(usize, Drop)> {
        match hook {
            Hook::Ingress(p) => judge(
                &self.ingress[p],
                &mut self.flows,
                &mut self.rules,
                len,
                s,
                now,
                decision,
            ),
            Hook::Egress(p) => judge(&self.egress[p], &mut self.flows, &mut self.rules, len, s, now, decision),
            Hook::Forward(from, to) => {
                let list = self.forward[from].iter().filter(|(t, _)| *t == to).map(|(_, w)| w);
                judge(list, &mut self.flows, &mut self.rules, len, s, now, decision)
            }
        }
    }

    /// The rule that cuts the whole flow of a frame that was judged before and is still under way.
    pub fn cut(&mut self, from: PortId, to: PortId, s: &Summary) -> Option<usize> {
        let pair = self.forward[from].iter().filter(|(t, _)| *t == to).map(|(_, w)| w);
        let hit = self.ingress[from]
            .iter()
            .chain(pair)
            .chain(&self.egress[to])
            .map(|w| self.flows[*w].rule)
            .find(|r| {
                let rule = &self.rules[*r].0;
                rule.effect.cut && impair::matches(&rule.matches, s)
            })?;
        let counters = &mut self.rules[hit].1;
        counters.matched += 1;
        counters.dropped += 1;
        Some(hit)
    }
}

fn judge<'a>(
    list: impl IntoIterator<Item = &'a usize>,
    flows: &mut [RuleFlow],
    rules: &mut [(Rule, RuleCounters)],
    len: usize,
    s: &Summary,
    now: u64,
    decision: &mut Decision,
) -> Option<(usize, Drop)> {
    for &w in list {
        let flow = &mut flows[w];
        let (rule, counters) = &mut rules[flow.rule];
        if !impair::matches(&rule.matches, s) {
            continue;
        }
        counters.matched += 1;
        let (delay, extra, damage) = (decision.delay, decision.extra, decision.damage.len());
        if let Some(drop) = flow.state.apply(&rule.effect, len, s, now, decision) {
            counters.dropped += 1;
            return Some((flow.rule, drop));
        }
        counters.delayed += u64::from(decision.delay > delay);
        counters.duplicated += u64::from(decision.extra > extra);
        for d in &mut decision.damage[damage..] {
            d.rule = flow.rule;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Effect, Match};

    fn names() -> Names {
        Names {
            networks: vec!["public".into(), "private".into()],
            ports: vec![(0, "node1".into()), (0, "hub".into()), (1, "node1".into())],
        }
    }

    fn rule(id: &str, network: &str, from: &str, to: &str) -> Rule {
        Rule {
            id: id.into(),
            network: network.into(),
            from: from.into(),
            to: to.into(),
            matches: Match::default(),
            effect: Effect::cut(),
            seed: 0,
        }
    }

    #[test]
    fn refusals_name_what_is_known() {
        let cases = [
            (
                rule("a", "pubic", "*", "*"),
                "there is no network `pubic`",
                "networks: private, public",
            ),
            (
                rule("a", "public", "node9", "*"),
                "there is no node `node9`",
                "nodes on `public`: hub, node1",
            ),
            (
                rule("a", "private", "*", "hub"),
                "`hub` is not on network `private`",
                "nodes on `private`: node1",
            ),
            (rule("a", "public", "hub", "hub"), "both `hub`", ""),
            (rule("", "public", "hub", "*"), "its id", ""),
            (
                Rule {
                    effect: Effect::default(),
                    ..rule("a", "public", "hub", "*")
                },
                "no effect",
                "",
            ),
        ];
        for (rule, seen, remedy) in cases {
            let e = Compiled::check(&[rule], &names()).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            let p = e.problem().unwrap();
            assert!(p.observed.as_deref().unwrap().contains(seen), "{p:?}");
            assert!(p.remedy.as_deref().unwrap().contains(remedy), "{p:?}");
        }
        let twice = [rule("a", "public", "*", "*"), rule("a", "private", "*", "*")];
        assert!(Compiled::check(&twice, &names()).is_err());
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counters() {
        let keep = rule("a", "public", "node1", "*");
        let mut c = Compiled::new(vec![keep.clone()], &names(), 0, &mut Compiled::default()).unwrap();
        let s = Summary::default();
        assert!(c.judge(Hook::Ingress(0), 60, &s, 0, &mut Decision::default()).is_some());
        assert!(c.judge(Hook::Ingress(1), 60, &s, 0, &mut Decision::default()).is_none());
        let set = vec![rule("b", "public", "*", "*"), keep.clone()];
        let mut c = Compiled::new(set, &names(), 0, &mut c).unwrap();
        let matched = |c: &Compiled| c.rules.iter().map(|r| r.1.matched).collect::<Vec<_>>();
        assert_eq!(matched(&c), [0, 1]);
        // A refused set leaves the old one as it was.
        Compiled::new(vec![rule("x", "nowhere", "*", "*")], &names(), 0, &mut c).unwrap_err();
        assert_eq!(matched(&c), [0, 1]);
        assert_eq!(c.rules[1].0, keep);
    }
}
