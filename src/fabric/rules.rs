//! What may be done to frames: the words of `set(owner, rules) → revision`, the same on the supervisor's socket; and whose rules they are.

use crate::units::{Percent, Size, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The workstation's own port: rules may name it like a node.
pub const WORKSTATION: &str = "workstation";

/// Every sender, or every receiver.
pub const ANY: &str = "*";

/// Who put rules in force: nobody else replaces them or takes them away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleOwner {
    /// The person, by the verb `rules`.
    Person,
    /// The fault of this number.
    Fault(u64),
}

impl fmt::Display for RuleOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleOwner::Person => f.write_str("person"),
            RuleOwner::Fault(id) => write!(f, "fault-{id}"),
        }
    }
}

/// The rules in force: a set for each owner. Frames meet the person's first, then those of the faults in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleSets(BTreeMap<RuleOwner, Vec<Rule>>);

impl RuleSets {
    /// Gives `owner` these rules, in place of those that it had.
    pub fn set(&mut self, owner: RuleOwner, rules: Vec<Rule>) {
        if rules.is_empty() {
            self.0.remove(&owner);
        } else {
            self.0.insert(owner, rules);
        }
    }

    /// Takes the rules of `owner` away; whether it had any.
    pub fn remove(&mut self, owner: RuleOwner) -> bool {
        self.0.remove(&owner).is_some()
    }

    /// The rules of `owner`.
    pub fn of(&self, owner: RuleOwner) -> &[Rule] {
        self.0.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// Every rule, in the order in which frames meet them.
    pub fn all(&self) -> Vec<Rule> {
        self.0.values().flatten().cloned().collect()
    }
}

/// One rule.
///
/// With `to` `*` it is judged once, on the sender's cable; with `from` `*` on the receiver's cable; with two names on
/// the way between the two. A frame meets the rules of each of these three places in the order of the set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the set.
    pub id: String,
    /// The network.
    pub network: String,
    /// Sender: a node's name or `*`.
    pub from: String,
    /// Receiver: a node's name or `*`.
    pub to: String,
    /// Which frames; all where absent.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What happens to them.
    pub effect: Effect,
    /// Seed of its random choices.
    #[serde(default)]
    pub seed: u64,
}

/// Which frames a rule is about. Absent fields match everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// EtherType: 2048 IPv4, 2054 ARP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<u16>,
    /// `tcp`, `udp` or `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// TCP or UDP port, source or destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IPv4 address, source or destination (of an ARP frame: sender or target).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::Ipv4Addr>,
}

/// An IP protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// What happens to a matching frame. Effects of one rule are applied in the order of these fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Every frame is dropped silently.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Cut and whole by turns, beginning with the cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap: Option<Flap>,
    /// Frames with an IP packet longer than this are dropped without a word, as by a switch with too small an MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Share of frames that is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Percent>,
    /// Losses come in bursts of this many frames on average; absent: each by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Share of frames in which one byte is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Percent>,
    /// Changed bytes get right checksums, so that the application sees the damage; else the receiver's kernel drops it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mend: bool,
    /// Share of frames that arrives twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Percent>,
    /// Bits a second; what comes faster waits in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bandwidth>,
    /// Bound of the rate's queue; what does not fit is dropped. 64 KiB where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Size>,
    /// Extra time on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// The delay varies by this much; frames keep their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// How it varies; `uniform` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Share of frames that overtakes: they have no delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Percent>,
}

/// A cable that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// How long it is cut.
    pub down: Span,
    /// How long it is whole.
    pub up: Span,
}

/// How a delay varies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Every value between delay − jitter and delay + jitter alike.
    #[default]
    Uniform,
    /// Bell-shaped: the jitter is the standard deviation, cut off at three of them.
    Normal,
    /// Mostly a little more than the delay, seldom much more: the long tail of a busy network.
    Pareto,
}

impl FromStr for Distribution {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "uniform" => Ok(Self::Uniform),
            "normal" => Ok(Self::Normal),
            "pareto" => Ok(Self::Pareto),
            _ => Err(format!("`{}` is no distribution", s.escape_debug())),
        }
    }
}

impl Effect {
    /// A silent cut.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = self.proto.map(|p| format!("{p:?}").to_lowercase());
        let parts = [
            self.ethertype.map(|t| format!("ethertype {t:#06x}")),
            proto,
            self.port.map(|p| format!("port {p}")),
            self.address.map(|a| format!("address {a}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |word: &str, v: Option<String>| v.map(|v| format!("{word} {v}"));
        let text = |v: &dyn fmt::Display| Some(v.to_string());
        let jitter = self.jitter.map(|j| format!(" ± {j}")).unwrap_or_default();
        let mended = if self.mend { " with mended checksums" } else { "" };
        let burst = self.burst.map(|b| format!(" in bursts of {b}")).unwrap_or_default();
        let queue = self.queue.map(|q| format!(" with a queue of {q}")).unwrap_or_default();
        let parts = [
            self.cut.then(|| "cut".to_owned()),
            self.flap.map(|x| format!("flap {} down {} up", x.down, x.up)),
            with("mtu", self.mtu.and_then(|m| text(&m))),
            with("loss", self.loss.map(|l| format!("{l}{burst}"))),
            with("corrupt", self.corrupt.map(|c| format!("{c}{mended}"))),
            with("duplicate", self.duplicate.and_then(|d| text(&d))),
            with("rate", self.rate.map(|r| format!("{r}{queue}"))),
            with("delay", self.delay.map(|d| format!("{d}{jitter}"))),
            with("reorder", self.reorder.and_then(|r| text(&r))),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Bits a second, written `64 kbit/s`, `10 Mbit/s`, `1 Gbit/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(pub u64);

const BANDWIDTHS: [(&str, u64); 4] = [
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1_000),
    ("bit/s", 1),
];

impl FromStr for Bandwidth {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{}` is no rate: write a whole number above 0 and bit/s, kbit/s, Mbit/s or Gbit/s, like `10 Mbit/s`",
                s.escape_debug()
            )
        };
        let t = s.trim();
        let (unit, factor) = BANDWIDTHS.iter().find(|(u, _)| t.ends_with(u)).ok_or_else(bad)?;
        let n: u64 = t[..t.len() - unit.len()].trim_end().parse().map_err(|_| bad())?;
        n.checked_mul(*factor).filter(|n| *n > 0).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = BANDWIDTHS
            .iter()
            .find(|(_, k)| self.0 >= *k && self.0.is_multiple_of(*k))
            .unwrap_or(&BANDWIDTHS[3]);
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl Serialize for Bandwidth {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Bandwidth {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bandwidth".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+ ?(bit|kbit|Mbit|Gbit)/s$", "examples": ["10 Mbit/s"]})
    }
}

/// Number of what is in force; each change has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Revision(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_one_line_and_reads_back() {
        let text = r#"{"id":"r1","network":"public","from":"node1","to":"*","match":{"proto":"tcp","port":445},"effect":{"loss":"30%","burst":4,"rate":"10 Mbit/s","delay":"100 ms"},"seed":7}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), text);
        for bad in [
            r#"{"loss":"120%"}"#,
            r#"{"rate":"0 Mbit/s"}"#,
            r#"{"rate":"10 MB"}"#,
            r#"{"delay":"-1 s"}"#,
            r#"{"explode":true}"#,
        ] {
            assert!(serde_json::from_str::<Effect>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_owner_has_its_own_rules_and_no_other_ones() {
        let rule = |id: &str| -> Rule {
            serde_json::from_value(serde_json::json!({
                "id": id, "network": "public", "from": "*", "to": "*", "effect": {"cut": true}
            }))
            .unwrap()
        };
        let ids = |sets: &RuleSets| sets.all().into_iter().map(|r| r.id).collect::<Vec<_>>();
        let mut sets = RuleSets::default();
        sets.set(RuleOwner::Fault(10), vec![rule("late")]);
        sets.set(RuleOwner::Fault(9), vec![rule("early"), rule("early-too")]);
        sets.set(RuleOwner::Person, vec![rule("mine")]);
        assert_eq!(ids(&sets), ["mine", "early", "early-too", "late"]);
        sets.set(RuleOwner::Fault(9), vec![rule("changed")]);
        assert_eq!(ids(&sets), ["mine", "changed", "late"]);
        assert!(
            sets.remove(RuleOwner::Fault(10))
                && !sets.remove(RuleOwner::Fault(10))
                && !sets.remove(RuleOwner::Fault(1))
        );
        // Who has none is no owner.
        sets.set(RuleOwner::Person, Vec::new());
        assert!(!sets.remove(RuleOwner::Person));
        assert_eq!(
            (ids(&sets), sets.of(RuleOwner::Person)),
            (vec!["changed".to_owned()], &[][..])
        );
        assert_eq!(
            (RuleOwner::Fault(3).to_string(), RuleOwner::Person.to_string()),
            ("fault-3".into(), "person".into())
        );
    }

    #[test]
    fn bandwidths_are_read_back() {
        for n in [1, 999, 1000, 64_000, 1_500_000, 10_000_000_000] {
            assert_eq!(Bandwidth(n).to_string().parse(), Ok(Bandwidth(n)));
        }
        for bad in [
            "",
            "10",
            "0 bit/s",
            "-1 kbit/s",
            "99999999999999999999 bit/s",
            "1.5 Mbit/s",
            "é bit/s",
        ] {
            assert!(bad.parse::<Bandwidth>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_documentation_names_every_effect_and_its_examples_are_rules() {
        let text = include_str!("../../docs/fabric.md");
        let examples: Vec<&str> = text
            .split("```json\n")
            .skip(1)
            .filter_map(|t| t.split("```").next())
            .collect();
        assert!(!examples.is_empty());
        for e in examples {
            serde_json::from_str::<Rule>(e).unwrap_or_else(|why| panic!("{why}: {e}"));
        }
        let schema = serde_json::to_value(schemars::schema_for!(Effect)).unwrap();
        for name in schema["properties"].as_object().unwrap().keys() {
            assert!(
                text.contains(&format!("| `{name}` |")),
                "docs/fabric.md does not explain `{name}`"
            );
        }
    }
}
