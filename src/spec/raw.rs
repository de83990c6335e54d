//! The lab file as it is written. Every key is here; what is absent is filled in by [`super::resolve`].
//!
//! The doc comments of the fields are the descriptions in `labs/lab.schema.json`.

use super::{At, Endpoint, NetworkRole, NodeRole, Subnet};
use crate::probe::Parse;
use crate::units::{Name, Size, Span};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::str::FromStr;

/// Named things; [`in_file_order`] gives them back in the order they were written in.
pub type Table<T> = BTreeMap<At<Name>, T>;

/// The entries in the file's order.
pub fn in_file_order<K, T>(table: &BTreeMap<At<K>, T>) -> Vec<(&At<K>, &T)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span.start);
    entries
}

/// A lab file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabFile {
    /// Version of this shape: 1.
    pub schema: At<u32>,
    /// Name of the lab.
    pub name: At<Name>,
    /// What a person reads.
    pub title: Option<String>,
    /// What every node gets that says nothing else.
    #[serde(default)]
    pub defaults: Defaults,
    /// The lab networks.
    #[serde(default)]
    pub networks: Table<Network>,
    /// The machines.
    #[serde(default)]
    pub nodes: Table<Node>,
    /// Disks that several machines have open at once.
    #[serde(default)]
    pub disks: Table<SharedDisk>,
    /// SMB shares.
    #[serde(default)]
    pub shares: Table<Share>,
    /// What is deployed into the machines; a lab without it is a lab of bare machines.
    pub runtime: Option<Runtime>,
    /// What healthy means in a lab without a runtime.
    pub health: Option<Health>,
    /// What a failover is held against.
    #[serde(default)]
    pub limits: Limits,
    /// Rules and checks of preflight that this lab breaks on purpose: they warn only.
    #[serde(default)]
    pub on_purpose: Vec<At<String>>,
    /// Misconfigurations that are in this file on purpose; the tool writes them.
    #[serde(default)]
    pub mutations: Vec<Mutation>,
}

/// A misconfiguration that is in a lab file on purpose.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mutation {
    /// Its id in the catalogue.
    pub id: At<String>,
    /// What a person reads.
    pub title: String,
    /// Whether the lab becomes healthy with it; true where absent.
    pub healthy: Option<bool>,
}

/// What every node gets that says nothing else.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Defaults {
    /// The image's name.
    pub image: Option<At<Name>>,
    /// Memory of a machine.
    pub memory: Option<At<Size>>,
    /// Processors of a machine.
    pub vcpus: Option<NonZeroU8>,
    /// Further Debian packages; they go into the image.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Files to write before the first boot: path in the guest → text, or a table.
    #[serde(default)]
    pub files: BTreeMap<At<GuestPath>, FileText>,
    /// Commands to run once after the first boot, in order; each a list of program and arguments.
    #[serde(default)]
    pub run: Vec<Argv>,
}

/// A file in a guest.
#[derive(Debug, Clone, JsonSchema)]
#[serde(untagged)]
pub enum FileText {
    /// Its text; mode 0644, of root, written at every boot.
    Plain(String),
    /// Whatever else there is to say of it.
    Table(FileTable),
}

/// By hand: what serde makes of an untagged choice has lost its places.
impl<'de> Deserialize<'de> for FileText {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct TextOrTable;
        impl<'de> Visitor<'de> for TextOrTable {
            type Value = FileText;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or a table with `text` or `template`")
            }
            fn visit_str<E>(self, text: &str) -> Result<FileText, E> {
                Ok(FileText::Plain(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FileText, A::Error> {
                FileTable::deserialize(MapAccessDeserializer::new(map)).map(FileText::Table)
            }
        }
        d.deserialize_any(TextOrTable)
    }
}

/// A file in a guest, with all that can be said of it. One of `text` and `template` must be there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileTable {
    /// Its text.
    pub text: Option<String>,
    /// Its text as a minijinja template, which sees `lab`, `node`, `nodes` and `networks`.
    pub template: Option<At<String>>,
    /// Its permissions, octal; "0644" where absent.
    pub mode: Option<FileMode>,
    /// Its owner, `USER` or `USER:GROUP`, whom the image has; root where absent.
    pub owner: Option<Owner>,
    /// Written only where there is no such file: what a program makes of it stays.
    #[serde(default)]
    pub once: bool,
}

/// A lab network.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Its IPv4 subnet, prefix 8 to 29.
    pub subnet: At<Subnet>,
    /// What it may carry; mixed where absent.
    pub role: Option<NetworkRole>,
    /// Whether machines reach the internet through it; off where absent.
    #[serde(default)]
    pub internet: bool,
    /// Largest IP packet in bytes, 576 to 9000; 1500 where absent.
    pub mtu: Option<At<u16>>,
}

/// A machine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// What it does in the cluster.
    pub role: Option<NodeRole>,
    /// Networks it is on: eth1, eth2 … in this order.
    #[serde(default)]
    pub networks: Vec<At<Name>>,
    /// Addresses that differ from the default: network → address.
    #[serde(default)]
    pub addresses: BTreeMap<At<Name>, At<Ipv4Addr>>,
    /// Disks of its own.
    #[serde(default)]
    pub disks: Vec<LocalDisk>,
    /// The image's name.
    pub image: Option<At<Name>>,
    /// Memory.
    pub memory: Option<At<Size>>,
    /// Processors.
    pub vcpus: Option<NonZeroU8>,
    /// Further Debian packages, beside those of the defaults.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Files to write before the first boot, beside those of the defaults.
    #[serde(default)]
    pub files: BTreeMap<At<GuestPath>, FileText>,
    /// Commands to run once after the first boot, behind those of the defaults.
    #[serde(default)]
    pub run: Vec<Argv>,
    /// Machines whose own commands, and runtime, are there before those of this one.
    #[serde(default)]
    pub after: Vec<At<Name>>,
    /// Commands to run once when the runtime's files are there, before its own commands.
    #[serde(default)]
    pub run_before: Vec<Argv>,
    /// Commands to run once when the lab is healthy for the first time.
    #[serde(default)]
    pub run_after: Vec<Argv>,
}

/// A disk of one machine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LocalDisk {
    /// Its name.
    pub name: At<Name>,
    /// Its size.
    pub size: At<Size>,
}

/// A disk that several machines have open at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SharedDisk {
    /// Its size.
    pub size: At<Size>,
    /// The machines.
    pub shared_by: Vec<At<Name>>,
}

/// An SMB share.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Share {
    /// The machine that serves it.
    pub host: At<Name>,
}

/// What is deployed into the machines.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Runtime {
    /// The runtime pack.
    pub kind: At<Name>,
    /// Name and address of the Cluster Group, where the pack moves addresses.
    pub cluster: Option<At<Endpoint>>,
    /// Name and address of the service group, where the pack moves addresses.
    pub service: Option<At<Endpoint>>,
    /// Times among the settings that become longer with the measured slowness of the host.
    #[serde(default)]
    pub scaled: Vec<At<String>>,
    /// Settings that the pack declares.
    #[serde(default)]
    pub settings: BTreeMap<At<String>, At<Value>>,
}

/// What healthy means in a lab without a runtime.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Health {
    /// Expressions over the probes' answers, each of which must hold: `web.a.status == 0`.
    pub must: At<Vec<At<String>>>,
    /// Longest that `up` waits for it, multiplied by the host's measured slowness; 90 s where absent.
    pub within: Option<Span>,
    /// What is asked: name → probe.
    #[serde(default)]
    pub probes: BTreeMap<At<Identifier>, Probe>,
}

/// A question to machines.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probe {
    /// The machines that are asked; all where absent.
    pub on: Option<Vec<At<Name>>>,
    /// The command that is run in each.
    pub run: Argv,
    /// How its output is read; where absent the answer is `status` and `said`.
    pub parse: Option<Parse>,
}

/// What a failover is held against.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// From the fault until the survivor knows; 7 s where absent.
    pub detect: Option<Span>,
    /// From then until the survivor may serve; 2 s where absent.
    pub arbitrate: Option<Span>,
    /// From then until its first answer; 3 s where absent.
    pub mount: Option<Span>,
}

/// The value of a setting: its type is the pack's business.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Value(pub toml::Value);

impl JsonSchema for Value {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "integer", "boolean", "array"]})
    }
}

/// Text of a restricted alphabet, checked when it is read.
macro_rules! checked_text {
    ($(#[$doc:meta])* $t:ident, $pattern:literal, $ok:expr, $want:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $t(String);
        impl $t {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $t {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                let ok: fn(&str) -> bool = $ok;
                if ok(s) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(format!("`{}` is no {}", s.escape_debug(), $want))
                }
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $t {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($t).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}

checked_text!(
    /// Name of a Debian package (Debian policy 5.6.1).
    Package,
    "^[a-z0-9][a-z0-9+.-]{1,99}$",
    |s| {
        (2..=100).contains(&s.len())
            && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b))
    },
    "Debian package: use a-z, 0-9, `+`, `-` and `.`, two at least"
);

checked_text!(
    /// A name in expressions.
    Identifier,
    "^[a-z][a-z0-9_]{0,31}$",
    |s| {
        (1..=32).contains(&s.len())
            && s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    },
    "name in expressions: use a-z, 0-9 and `_`, beginning with a letter, at most 32"
);

checked_text!(
    /// Absolute path of a file in a guest.
    GuestPath,
    "^(/[A-Za-z0-9@+:_.-]+)+$",
    |s| {
        s.len() <= 200
            && s.starts_with('/')
            && s[1..]
                .split('/')
                .all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"@+:_.-".contains(&b)))
    },
    "path in a guest: write it from `/`, without `..`, of letters, digits and `@+:_.-`, at most 200 characters"
);

checked_text!(
    /// Permissions, octal.
    FileMode,
    "^0[0-7]{3}$",
    |s| s.len() == 4 && s.starts_with('0') && s.bytes().all(|b| (b'0'..=b'7').contains(&b)),
    "mode: write it like \"0640\""
);

checked_text!(
    /// A user and a group of a guest.
    Owner,
    "^[a-z_][a-z0-9_-]{0,31}(:[a-z_][a-z0-9_-]{0,31})?$",
    |s| {
        let name = |n: &str| {
            (1..=32).contains(&n.len())
                && n.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && n.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        };
        s.split_once(':')
            .map_or_else(|| name(s), |(user, group)| name(user) && name(group))
    },
    "owner: write it like \"redis\" or \"redis:redis\""
);

/// A command: program and arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argv(pub Vec<String>);

impl<'de> Deserialize<'de> for Argv {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let argv = Vec::<String>::deserialize(d)?;
        if argv.first().is_none_or(String::is_empty) || argv.iter().any(|a| a.contains('\0')) {
            return Err(serde::de::Error::custom(
                "a command is a list of program and arguments, like `[\"systemctl\", \"restart\", \"ssh\"]`",
            ));
        }
        Ok(Self(argv))
    }
}

impl JsonSchema for Argv {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Argv".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "array", "items": {"type": "string"}, "minItems": 1})
    }
}
