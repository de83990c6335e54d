//! Reading the configuration, and what is plainly impossible in it.

use crate::mail::MAX_MESSAGE;
use ccr_contract::config::{Config, Role};
use ccr_core::wire::MAX_GROUPS;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

/// Where the pack puts it.
pub const FILE: &str = "/etc/ccrd/ccrd.toml";
/// More than any lab needs; a file of another kind is recognised before it is read into memory.
const MAX_BYTES: u64 = 1 << 20;
/// The shape that this daemon reads.
const SCHEMA: u32 = 1;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[error("could not read the configuration {file}: {why}")]
pub struct Unusable {
    file: String,
    why: String,
}

/// Reads and checks a configuration. With it come the keys that this daemon does not know.
pub fn read(file: &Path) -> Result<(Config, Vec<String>), Unusable> {
    let unusable = |why: String| Unusable {
        file: file.display().to_string(),
        why,
    };
    let bytes = std::fs::metadata(file).map_err(|e| unusable(e.to_string()))?.len();
    if bytes > MAX_BYTES {
        return Err(unusable(format!("it has {bytes} bytes, at most {MAX_BYTES} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| unusable(e.to_string()))?;
    parse(&text).map_err(unusable)
}

fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
    let given: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
    // First of all: what a newer one says cannot be judged.
    if let Some(schema) = given.get("schema").and_then(toml::Value::as_integer)
        && schema != i64::from(SCHEMA)
    {
        return Err(format!("schema is {schema}, this daemon reads {SCHEMA}"));
    }
    let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
    if let Some(why) = check(&config) {
        return Err(why);
    }
    let known = toml::Value::try_from(&config).map_err(|e| e.to_string())?;
    let mut unknown = Vec::new();
    strangers(&given.into(), &known, "", &mut unknown);
    Ok((config, unknown))
}

/// The keys of `given` that `known` has not.
fn strangers(given: &toml::Value, known: &toml::Value, at: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (toml::Value::Table(given), toml::Value::Table(known)) => {
            for (key, value) in given {
                let name = format!("{at}{key}").escape_debug().to_string();
                match known.get(key) {
                    Some(known) => strangers(value, known, &format!("{name}."), unknown),
                    None => unknown.push(name),
                }
            }
        }
        (toml::Value::Array(given), toml::Value::Array(known)) => {
            for (given, known) in given.iter().zip(known) {
                strangers(given, known, at, unknown);
            }
        }
        _ => {}
    }
}

/// What is wrong with it, if anything.
fn check(c: &Config) -> Option<String> {
    let peers = match c.role {
        Role::Member => &c.members,
        Role::Hub => &c.hubs,
    };
    let Some(me) = peers.iter().find(|p| p.name == c.node) else {
        let known: Vec<&str> = peers.iter().map(|p| p.name.as_str()).collect();
        return Some(format!(
            "node `{}` is not among those of its role: {}",
            c.node,
            known.join(", ")
        ));
    };
    if me.addresses.is_empty() {
        return Some(format!("node `{}` has no address", c.node));
    }
    if c.members.len() != 2 {
        return Some(format!("a cluster has two members, not {}", c.members.len()));
    }
    let networks: BTreeSet<&str> = c.networks.iter().map(|n| n.name.as_str()).collect();
    if networks.len() != c.networks.len() {
        return Some("two networks have the same name".into());
    }
    if !networks.contains(c.service_network.as_str()) {
        return Some(format!(
            "service-network `{}` is not among the networks",
            c.service_network
        ));
    }
    if let Some(n) = c.networks.iter().find(|n| n.prefix > 32) {
        return Some(format!("network `{}` has prefix {}; at most 32", n.name, n.prefix));
    }
    let mut seen = BTreeSet::from([c.service_address]);
    if !seen.insert(c.cluster_address) {
        return Some(format!(
            "{} is the address of the cluster and of the service",
            c.cluster_address
        ));
    }
    for p in c.members.iter().chain(&c.hubs) {
        for (network, address) in &p.addresses {
            if !networks.contains(network.as_str()) {
                return Some(format!(
                    "`{}` has an address on `{network}`, which is not among the networks",
                    p.name
                ));
            }
            if !seen.insert(*address) {
                return Some(format!("address {address} is given twice"));
            }
        }
    }
    if c.data.is_empty() {
        return Some("data names no folder".into());
    }
    if c.settings.heartbeat_ms == 0 {
        return Some("settings: heartbeat_ms must be above 0".into());
    }
    // A log is read as a whole.
    if !(4096..=64 << 20).contains(&c.settings.generation_bytes) {
        return Some("settings: generation_bytes must be from 4096 to 67108864".into());
    }
    if !(4096..=MAX_MESSAGE as u64).contains(&c.settings.message_bytes) {
        return Some(format!("settings: message_bytes must be from 4096 to {MAX_MESSAGE}"));
    }
    if !(10..=86_400_000).contains(&c.settings.scrub_ms) {
        return Some("settings: scrub_ms must be from 10 to 86400000".into());
    }
    let groups: BTreeSet<&String> = c.settings.groups.iter().collect();
    if groups.len() != c.settings.groups.len() || groups.is_empty() || groups.len() > MAX_GROUPS {
        return Some(format!(
            "settings: groups must name from one to {MAX_GROUPS} storage groups, none of them twice"
        ));
    }
    None
}

/// This node's own addresses, by network.
pub fn own_addresses(c: &Config) -> Vec<(String, Ipv4Addr)> {
    c.members
        .iter()
        .chain(&c.hubs)
        .filter(|p| p.name == c.node)
        .flat_map(|p| p.addresses.iter().map(|(n, a)| (n.clone(), *a)))
        .collect()
}

/// The own address from which `to` is reached: the one on the network on which `to` is known.
pub fn source_for(c: &Config, to: Ipv4Addr) -> Option<Ipv4Addr> {
    let network = if to == c.service_address || to == c.cluster_address {
        Some(c.service_network.as_str())
    } else {
        c.members
            .iter()
            .chain(&c.hubs)
            .flat_map(|p| &p.addresses)
            .find(|(_, a)| **a == to)
            .map(|(n, _)| n.as_str())
    }?;
    own_addresses(c).into_iter().find(|(n, _)| n == network).map(|(_, a)| a)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
schema = 1
node = "node1"
role = "member"
cluster = "exmbcluster"
cluster_address = "10.77.1.20"
service = "exmbx"
service_address = "10.77.1.21"
service_network = "public"
data = "/var/lib/ccrd"
networks = [
  { name = "public", role = "mixed", prefix = 24, interface = "eth0" },
  { name = "private", role = "internal", prefix = 24 },
]
members = [
  { name = "node1", addresses = { public = "10.77.1.11", private = "10.77.2.11" } },
  { name = "node2", addresses = { public = "10.77.1.12", private = "10.77.2.12" } },
]
hubs = [{ name = "hub", addresses = { public = "10.77.1.10" } }]
"#;

    fn why(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ccrd.toml");
        std::fs::write(&file, text).unwrap();
        read(&file).map(|_| ()).unwrap_err().to_string()
    }

    fn good() -> Config {
        toml::from_str(GOOD).unwrap()
    }

    #[test]
    fn a_good_one() {
        assert_eq!(check(&good()), None);
        assert_eq!(
            source_for(&good(), "10.77.2.12".parse().unwrap()),
            Some("10.77.2.11".parse().unwrap())
        );
        assert_eq!(
            source_for(&good(), "10.77.1.21".parse().unwrap()),
            Some("10.77.1.11".parse().unwrap())
        );
        assert_eq!(source_for(&good(), "9.9.9.9".parse().unwrap()), None);
    }

    /// 20,000 damaged configurations in every run, more through `FAILOVERLAB_FUZZ`: no panic, and an error that says
    /// something.
    #[test]
    fn damaged_ones_are_errors_or_still_make_sense() {
        let inputs = std::env::var("FAILOVERLAB_FUZZ")
            .ok()
            .map_or(20_000, |n| n.parse::<u64>().expect("FAILOVERLAB_FUZZ is a number"));
        let mut state = 7_u64;
        let mut random = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n.max(1) as u64) as usize
        };
        const PIECES: [&str; 10] = [
            "[[",
            "]",
            "= \"",
            "\\u0000",
            "99999999999999999999",
            "{",
            "}",
            "\n\"\"\"",
            "-1",
            "é",
        ];
        let mut good = 0;
        for n in 0..inputs {
            let mut text: Vec<char> = GOOD.chars().collect();
            for _ in 0..random(6) {
                let at = random(text.len());
                match random(4) {
                    0 => text.truncate(at),
                    1 => drop(text.drain(at..(at + random(30)).min(text.len()))),
                    2 => drop(text.splice(at..at, PIECES[random(PIECES.len())].chars())),
                    _ => {
                        let from = random(text.len());
                        let part: Vec<char> = text[from..(from + random(60)).min(text.len())].to_vec();
                        text.splice(at..at, part);
                    }
                }
            }
            match parse(&text.into_iter().collect::<String>()) {
                Ok((config, _)) => {
                    good += 1;
                    assert_eq!(check(&config), None);
                }
                Err(why) => assert!(!why.is_empty() && why.len() < 10_000, "input {n}: {why}"),
            }
        }
        assert!(good > 0 && good < inputs);
    }

    /// A tool that is newer by a key: the daemon serves, and says what it does not know.
    #[test]
    fn keys_of_a_newer_tool_are_named_and_left_alone() {
        let text = GOOD
            .replace("interface = \"eth0\"", "interface = \"eth0\", mtu = 9000")
            .replace(
                "hubs =",
                "colour = \"red\"\nsettings.failback = true\nsettings.hearbeat_ms = 1\nhubs =",
            );
        let (config, unknown) = parse(&text).unwrap();
        assert_eq!(unknown, ["colour", "networks.mtu", "settings.hearbeat_ms"]);
        let mut same = good();
        same.settings.failback = true;
        assert_eq!(config, same);
        assert_eq!(parse(GOOD).unwrap(), (good(), Vec::new()));
    }

    #[test]
    fn bad_ones_say_what_and_where() {
        for (from, to, word) in [
            ("schema = 1", "schema = 2", "schema is 2"),
            ("node = \"node1\"", "node = \"hub\"", "node1, node2"),
            ("prefix = 24 }", "prefix = 33 }", "prefix 33"),
            ("service_network = \"public\"", "service_network = \"x\"", "`x`"),
            ("10.77.1.21", "10.77.1.20", "of the service"),
            ("10.77.2.12", "10.77.1.12", "given twice"),
            ("data = \"/var/lib/ccrd\"", "data = \"\"", "no folder"),
            ("role = \"member\"", "role = \"boss\"", "boss"),
            (
                "hubs =",
                "settings.generation_bytes = 100\nhubs =",
                "generation_bytes must",
            ),
            ("hubs =", "settings.scrub_ms = 9\nhubs =", "scrub_ms must be from 10"),
            ("hubs =", "settings.groups = []\nhubs =", "from one to 16"),
            (
                "hubs =",
                "settings.groups = [\"A\", \"A\"]\nhubs =",
                "none of them twice",
            ),
            (
                "cluster = \"exmbcluster\"",
                "clutser = \"exmbcluster\"",
                "missing field `cluster`",
            ),
            // What a newer one says is not judged by what this one knows.
            (
                "schema = 1\nnode = \"node1\"",
                "schema = 2\nnodes = []",
                "schema is 2, this daemon reads 1",
            ),
            ("{ name = \"private\", role", "{ name = \"public\", role", "same name"),
            ("10.77.1.11", "10.77.1.300", "line"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let why = why(&text);
            assert!(why.contains(word) && why.contains("ccrd.toml"), "{why}");
        }
        assert!(why("\0\u{1}").contains("ccrd.toml"));
        assert!(
            read(Path::new("/nowhere/ccrd.toml"))
                .unwrap_err()
                .to_string()
                .contains("/nowhere/ccrd.toml")
        );
    }
}
