//! What goes into a lab, by name: of two labs with the same inputs one is as good as the other.

use super::Layer;
use crate::spec::Lab;
use crate::units::{Size, Span};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that goes into a lab: a name in the lab file's words → its value, or the digest of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// What memory and disks of a machine depend on at the end of its boot.
    booted: BTreeMap<String, String>,
    /// What comes in afterwards.
    healthy: BTreeMap<String, String>,
}

/// What of a lab file no machine knows when it has booted: `*` is one name. Whatever is not here counts as known.
const AFTER_BOOT: [&str; 15] = [
    "title",
    "on_purpose",
    "mutations",
    "limits",
    "health",
    "shares",
    "nodes.*.role",
    "nodes.*.after",
    "nodes.*.run",
    "nodes.*.run_before",
    "nodes.*.run_after",
    "runtime",
    "runtime.kind",
    "runtime.settings",
    "runtime.scaled",
];

/// The text of the lab file is no input: what it means is.
const NO_INPUT: [&str; 1] = ["digest"];

/// Longest value that is kept as it is.
const LONGEST: usize = 80;

impl Inputs {
    /// What the lab file says.
    pub fn of(lab: &Lab) -> Self {
        let mut inputs = Self::default();
        let lab = serde_json::to_value(lab).expect("a lab is plain data");
        flatten("", &lab, &mut |name, value| {
            if !is_below(name, &NO_INPUT) {
                let value = short(value);
                let layer = if is_below(name, &AFTER_BOOT) {
                    Layer::Healthy
                } else {
                    Layer::Booted
                };
                let (name, value) = in_words(name, value);
                inputs.add(layer, name, value);
            }
        });
        inputs
    }

    /// Adds one that the layer and those above it depend on.
    pub fn add(&mut self, layer: Layer, name: impl Into<String>, value: impl Into<String>) {
        let all = match layer {
            Layer::Booted => &mut self.booted,
            Layer::Healthy => &mut self.healthy,
        };
        all.insert(name.into(), value.into());
    }

    /// What the layer depends on.
    fn below(&self, layer: Layer) -> impl Iterator<Item = (&String, &String)> {
        let healthy = (layer == Layer::Healthy).then_some(&self.healthy);
        self.booted.iter().chain(healthy.into_iter().flatten())
    }

    /// Digest of all that the layer depends on, hexadecimal.
    pub fn key(&self, layer: Layer) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [layer.word()].into_iter().chain(
            self.below(layer)
                .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
        ) {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What differs in what the layer depends on: name, its value here and in `other`.
    pub fn differences<'a>(
        &'a self,
        other: &'a Self,
        layer: Layer,
    ) -> Vec<(&'a str, Option<&'a str>, Option<&'a str>)> {
        let (ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (self.below(layer).collect(), other.below(layer).collect());
        let mut all: Vec<_> = ours
            .iter()
            .filter(|(name, value)| theirs.get(**name) != Some(value))
            .map(|(name, value)| {
                (
                    name.as_str(),
                    Some(value.as_str()),
                    theirs.get(*name).map(|v| v.as_str()),
                )
            })
            .collect();
        let gone = theirs.iter().filter(|(name, _)| !ours.contains_key(**name));
        all.extend(gone.map(|(name, value)| (name.as_str(), None, Some(value.as_str()))));
        all.sort_unstable();
        all
    }
}

/// Whether `name` is one of `patterns` or something inside it.
fn is_below(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| {
        let mut parts = name.split('.');
        let inside = pattern
            .split('.')
            .all(|p| parts.next().is_some_and(|n| p == "*" || p == n));
        // `runtime` itself says only that there is one: its parts have patterns of their own.
        inside && (*pattern != "runtime" || parts.next().is_none())
    })
}

/// Hands out every value below `value` with its dotted name. A list of things with names is told by them, and in which order they stand.
fn flatten(name: &str, value: &Value, tell: &mut impl FnMut(&str, String)) {
    let inside = |part: &str| {
        if name.is_empty() {
            part.to_owned()
        } else {
            format!("{name}.{part}")
        }
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(part, value)| flatten(&inside(part), value, tell)),
        Value::Array(list) => {
            let names: Option<Vec<&str>> = list
                .iter()
                .map(|v| v.get("name").or_else(|| v.get("network"))?.as_str())
                .collect();
            match names {
                Some(names) => {
                    tell(name, names.join(", "));
                    names
                        .iter()
                        .zip(list)
                        .for_each(|(n, value)| flatten(&inside(n), value, tell));
                }
                None => tell(name, value.to_string()),
            }
        }
        Value::String(text) => tell(name, text.clone()),
        Value::Null => tell(name, "none".into()),
        other => tell(name, other.to_string()),
    }
}

/// A value, or the digest of one that nobody would read in a line.
fn short(value: String) -> String {
    if value.len() <= LONGEST && !value.chars().any(char::is_control) {
        return value;
    }
    blake3::hash(value.as_bytes()).to_hex().to_string()
}

/// A setting as the lab file has it: the runtime's `idle_roll_ms` is `idle-roll`.
fn in_words(name: &str, value: String) -> (String, String) {
    let Some(setting) = name.strip_prefix("runtime.settings.") else {
        return (name.to_owned(), value);
    };
    let number = value.parse::<u64>().ok();
    let (setting, value) = match (setting.strip_suffix("_ms"), setting.strip_suffix("_bytes"), number) {
        (Some(setting), _, Some(ms)) => (setting, Span(Duration::from_millis(ms)).to_string()),
        (_, Some(setting), Some(bytes)) => (setting, Size(bytes).to_string()),
        _ => (setting, value),
    };
    (format!("runtime.settings.{}", setting.replace('_', "-")), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;
    use proptest::prelude::*;

    fn keys(lab: &Lab) -> [String; 2] {
        [Layer::Booted, Layer::Healthy].map(|layer| Inputs::of(lab).key(layer))
    }

    /// Whether the keys of booted and healthy are others after a change.
    fn changed(change: impl FnOnce(&mut Lab)) -> [bool; 2] {
        let mut lab = example("ccr");
        let before = keys(&lab);
        change(&mut lab);
        let after = keys(&lab);
        [before[0] != after[0], before[1] != after[1]]
    }

    #[test]
    fn what_goes_into_ccr() {
        let inputs = Inputs::of(&example("ccr"));
        insta::assert_debug_snapshot!(inputs);
    }

    #[test]
    fn what_is_of_the_runtime_changes_only_the_upper_key() {
        let runtime = |lab: &mut Lab| lab.runtime.take().unwrap();
        for change in [
            Box::new(|l: &mut Lab| l.title.push('!')) as Box<dyn FnOnce(&mut Lab)>,
            Box::new(|l| l.limits.detect = Span::secs(99)),
            Box::new(|l| l.shares.clear()),
            Box::new(|l| l.nodes[0].run.push(vec!["true".into()])),
            Box::new(|l| l.nodes[1].after.push("node1".parse().unwrap())),
            Box::new(|l| {
                l.health = Some(crate::spec::Health {
                    must: vec!["true".into()],
                    within: Span::secs(1),
                    probes: Vec::new(),
                });
            }),
            Box::new(|l| l.nodes[2].role = None),
            Box::new(|l| {
                let r = l.runtime.as_mut().unwrap();
                r.settings.insert("heartbeat_ms".into(), 900.into());
            }),
            Box::new(|l| l.runtime.as_mut().unwrap().scaled.clear()),
            Box::new(|l| l.runtime.as_mut().unwrap().kind = "other".parse().unwrap()),
        ] {
            assert_eq!(changed(change), [false, true]);
        }
        // Names and addresses of the cluster are in every machine's /etc/hosts.
        assert_eq!(changed(|l| drop(runtime(l))), [true, true]);
        assert_eq!(
            changed(|l| l.runtime.as_mut().unwrap().service.as_mut().unwrap().address = [10, 77, 1, 99].into()),
            [true, true]
        );
    }

    #[test]
    fn what_a_machine_knows_changes_both_keys() {
        for change in [
            Box::new(|l: &mut Lab| l.nodes[0].memory = Size::mib(512)) as Box<dyn FnOnce(&mut Lab)>,
            Box::new(|l| l.nodes[0].vcpus = 2),
            Box::new(|l| l.nodes[1].nics[0].address = [10, 77, 1, 77].into()),
            Box::new(|l| l.nodes[1].nics[1].mac.0[5] ^= 1),
            Box::new(|l| l.nodes[1].nics.swap(0, 1)),
            Box::new(|l| l.nodes[1].disks[0].size = Size::mib(64)),
            Box::new(|l| drop(l.nodes[1].disks.pop())),
            Box::new(|l| drop(l.nodes[1].files.insert("/etc/x".into(), "y".to_owned().into()))),
            Box::new(|l| l.nodes[1].packages.push("perl".into())),
            Box::new(|l| l.networks[0].mtu = 9000),
            Box::new(|l| l.networks[0].internet = true),
            Box::new(|l| l.networks.swap(0, 1)),
            Box::new(|l| l.nodes.swap(0, 1)),
            Box::new(|l| drop(l.nodes.pop())),
            Box::new(|l| l.name = "other".parse().unwrap()),
        ] {
            assert_eq!(changed(change), [true, true]);
        }
        let mut lab = example("bare");
        let before = keys(&lab);
        lab.shared_disks[0].size = Size::mib(7);
        assert_ne!(keys(&lab)[0], before[0]);
    }

    #[test]
    fn a_comment_changes_nothing() {
        assert_eq!(changed(|l| l.digest = "another text".into()), [false, false]);
    }

    #[test]
    fn what_differs_is_named_as_the_lab_file_names_it() {
        let mut lab = example("ccr");
        let before = Inputs::of(&lab);
        let settings = &mut lab.runtime.as_mut().unwrap().settings;
        settings.insert("heartbeat_ms".into(), 900.into());
        settings.insert("generation_bytes".into(), (2 << 20).into());
        settings.remove("dial");
        lab.nodes[0].memory = Size::mib(300);
        let after = Inputs::of(&lab);
        assert_eq!(
            after.differences(&before, Layer::Healthy),
            [
                ("nodes.node1.memory", Some("300 MiB"), Some("256 MiB")),
                ("runtime.settings.dial", None, Some("best-availability")),
                ("runtime.settings.generation", Some("2 MiB"), Some("1 MiB")),
                ("runtime.settings.heartbeat", Some("900 ms"), Some("1.2 s")),
            ]
        );
        assert_eq!(after.differences(&before, Layer::Booted).len(), 1);
        assert_eq!(after.differences(&after.clone(), Layer::Healthy), []);
    }

    proptest! {
        /// No two different sets of inputs have one key, wherever names and values end.
        #[test]
        fn a_key_is_of_one_set_of_inputs(
            a in prop::collection::btree_map("[a-c.]{0,3}", "[a-c.]{0,3}", 0..4),
            b in prop::collection::btree_map("[a-c.]{0,3}", "[a-c.]{0,3}", 0..4),
        ) {
            let inputs = |booted: &BTreeMap<String, String>| Inputs { booted: booted.clone(), ..Inputs::default() };
            let (x, y) = (inputs(&a), inputs(&b));
            for layer in [Layer::Booted, Layer::Healthy] {
                prop_assert_eq!(a == b, x.key(layer) == y.key(layer));
                prop_assert_eq!(a == b, x.differences(&y, layer).is_empty());
            }
            prop_assert_ne!(x.key(Layer::Booted), x.key(Layer::Healthy));
        }
    }
}
