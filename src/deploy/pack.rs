//! A pack: its `runtime.toml`, its settings and its templates.

use super::contract::{Class, Contract, Held};
use crate::error::{Error, Problem, Result};
use crate::guest::template;
use crate::spec::{NodeRole, PackSettings, known};
use crate::units::Name;
use crate::wait::Slowness;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A runtime pack, its templates read.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Its name: the folder below templates/, what a lab file writes as `kind`.
    pub name: Name,
    /// Its `runtime.toml`.
    pub runtime: Runtime,
    /// What a lab may set.
    pub settings: PackSettings,
    /// Of the host that it is rendered for.
    slowness: Slowness,
    /// Template → text.
    pub(super) templates: BTreeMap<String, String>,
}

/// A pack's `runtime.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Runtime {
    /// Version of the contract: 1, or 2, which has roles, maps and workloads.
    pub schema: u32,
    /// What a person reads.
    pub title: String,
    /// Debian packages: part of the image, machines have no internet.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Programs that are built with the tool.
    #[serde(default)]
    pub programs: Vec<ProgramSpec>,
    /// Names of secrets, made once for each lab.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Files to render.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// Symbolic links to make.
    #[serde(default)]
    pub links: Vec<LinkSpec>,
    /// Commands that install and start it, in order.
    #[serde(default)]
    pub steps: Vec<StepSpec>,
    /// The contract's words.
    pub contract: Contract,
    /// What machines it has; where absent members and hubs, as many as there are.
    #[serde(default)]
    pub roles: BTreeMap<NodeRole, Role>,
    /// Whether cluster and service have addresses that move with them: a lab then must give them, else it cannot.
    #[serde(default = "yes")]
    pub moving_addresses: bool,
    /// Where the workload `mail` goes.
    pub workload: Option<Workload>,
    /// The other workloads.
    #[serde(default)]
    pub workloads: BTreeMap<Name, WorkloadSpec>,
    /// Where it has what in a machine, for faults.
    #[serde(default)]
    pub places: PlacesSpec,
}

/// Where a runtime has what in a machine, before it is known in which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacesSpec {
    /// The folder of its files, a template.
    #[serde(default)]
    pub folder: String,
    /// What a file is → its name below the folder, with `*`, `?` and `[…]`, which stand for slashes as well.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The lab's shares.
    #[serde(default)]
    pub shares: BTreeMap<String, SharePlace>,
    /// The units that run it on every node.
    #[serde(default)]
    pub units: Vec<String>,
}

/// Where a runtime has what in a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The folder of its files.
    pub folder: String,
    /// What a file is → its absolute name, with `*`, `?` and `[…]`, which stand for slashes as well.
    pub files: BTreeMap<String, String>,
    /// The lab's shares.
    pub shares: BTreeMap<String, SharePlace>,
    /// The units that run it.
    pub units: Vec<String>,
}

/// A share, on the machine that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharePlace {
    /// The unit of its server.
    pub unit: String,
    /// Its folder.
    pub folder: String,
}

/// A program that is found beside the tool's own executable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSpec {
    /// Its file's name.
    pub name: String,
    /// Where it goes in the machine, mode 0755.
    pub path: String,
}

/// A file to render.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// On which nodes: an expression over what templates see. All where absent.
    pub when: Option<String>,
    /// The template's name in the pack's folder.
    pub template: String,
    /// Where the file goes in the machine.
    pub path: String,
    /// Its permissions, octal.
    #[serde(default = "readable", deserialize_with = "octal")]
    pub mode: u32,
    /// Its user, and the group of the same name; root where absent.
    pub owner: Option<Name>,
    /// Of which part it is.
    #[serde(default)]
    pub early: bool,
}

/// A symbolic link to make.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// On which nodes; see [`FileSpec`].
    pub when: Option<String>,
    /// Where it is.
    pub path: String,
    /// What it leads to.
    pub to: String,
    /// Of which part it is.
    #[serde(default)]
    pub early: bool,
}

/// A command to run while installing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// On which nodes; see [`FileSpec`].
    pub when: Option<String>,
    /// The argument vector; each argument is a template of its own.
    pub run: Vec<String>,
    /// A file in the machine that it reads.
    pub stdin: Option<String>,
    /// What tells in the machine why it failed: an argument vector, without templates. Its output stands in the error.
    #[serde(default)]
    pub explain: Vec<String>,
    /// Only where an earlier deployment is replaced.
    #[serde(default)]
    pub again: bool,
    /// Of which part it is.
    #[serde(default)]
    pub early: bool,
}

/// When something of a pack goes into a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Before its system starts: `early = true`. No setting, no secret and not how slow the host is goes into it, so a machine that has
    /// booted serves for any. Its commands are for a machine that began without it.
    Early,
    /// When it has booted.
    Late,
}

impl Part {
    /// The part of what says `early`.
    pub(super) fn of(early: bool) -> Self {
        if early { Self::Early } else { Self::Late }
    }
}

/// A role of the pack's machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What they do.
    pub class: Vec<Class>,
    /// How many there are; any number where absent.
    pub count: Option<usize>,
}

/// A workload of the pack.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// What the clients speak.
    pub driver: Driver,
    /// TCP port on every machine of a role, which the clients ask who serves.
    pub ask: u16,
    /// What they ask for: a template.
    pub name: String,
    /// Under which key they write.
    pub key: String,
}

/// What clients can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// RESP, and the discovery of a server by asking for it.
    Redis,
}

fn yes() -> bool {
    true
}

/// TCP ports of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// SMTP on each hub.
    pub submit: u16,
    /// LMTP on the service address.
    pub deliver: u16,
    /// POP3 on the service address.
    pub read: u16,
}

fn readable() -> u32 {
    0o644
}

fn octal<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<u32, D::Error> {
    let text = String::deserialize(d)?;
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 && text.len() == 4 => Ok(mode),
        _ => Err(serde::de::Error::custom(format!(
            "`{}` is no mode: write it like \"0644\"",
            text.escape_debug()
        ))),
    }
}

/// The packs that there are: those compiled into the tool and those of the current folder's templates/.
pub fn names() -> Vec<Name> {
    template::folders_with(RUNTIME)
}

const RUNTIME: &str = "runtime.toml";
const SETTINGS: &str = "settings.toml";

impl Pack {
    /// The pack `name`: each of its files from templates/NAME in the current folder, else as compiled into the tool.
    ///
    /// # Errors
    /// `Usage` for an unknown name; `Operation` for a pack that does not hold.
    pub fn load(name: &str) -> Result<Self> {
        let all = names();
        let name = all.iter().find(|n| n.as_str() == name).cloned().ok_or_else(|| {
            let hint = known(name, all.iter().map(Name::as_str));
            Error::Usage(
                Problem::new("find the runtime pack")
                    .on(name.escape_debug())
                    .observed(hint),
            )
        })?;
        let read = |file: &str| template::read(&format!("{name}/{file}"));
        Self::parse(name.clone(), &read(RUNTIME)?, &read(SETTINGS)?, read)
    }

    /// A pack from the texts of its files; `template` reads one of its templates.
    pub(super) fn parse(
        name: Name,
        runtime: &str,
        settings: &str,
        template: impl Fn(&str) -> Result<String>,
    ) -> Result<Self> {
        let broken = |file: &str, seen: String| {
            Error::Operation(
                Problem::new("read the runtime pack")
                    .on(format!("{name}/{file}"))
                    .observed(seen.trim_end()),
            )
        };
        let runtime: Runtime = toml::from_str(runtime).map_err(|e| broken(RUNTIME, e.to_string()))?;
        runtime.check().map_err(|seen| broken(RUNTIME, seen))?;
        let mut settings = PackSettings::parse(name.clone(), settings).map_err(|seen| broken(SETTINGS, seen))?;
        settings.roles = runtime.roles.iter().map(|(role, r)| (*role, r.count)).collect();
        settings.moving_addresses = runtime.moving_addresses;
        let templates = runtime
            .files
            .iter()
            .map(|f| Ok((f.template.clone(), template(&f.template)?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            name,
            runtime,
            settings,
            slowness: Slowness::NONE,
            templates,
        })
    }

    /// The same for machines on a host of that slowness: times that the lab scales are longer, and so is what watches a program.
    #[must_use]
    pub fn on_host(self, slowness: Slowness) -> Self {
        Self { slowness, ..self }
    }

    /// By how much times are multiplied: rounded up to a half, so that two measurements of one host make the same machines.
    pub fn factor(&self) -> f64 {
        (self.slowness.factor() * 2.0).ceil() / 2.0
    }

    /// Its Debian packages.
    pub fn packages(&self) -> &[String] {
        &self.runtime.packages
    }

    /// Ports of the workload `mail`, where it has that.
    pub fn workload(&self) -> Option<Workload> {
        self.runtime.workload
    }
}

impl Runtime {
    /// What the types cannot say.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if ![1, 2].contains(&self.schema) {
            return Err(format!("schema = {}: this tool knows 1 and 2", self.schema));
        }
        if self.schema == 1 {
            let native = self.contract.is_native() && matches!(self.contract.dump, Held::By(_));
            if !native || self.contract.events.is_none() || self.workload.is_none() {
                return Err(
                    "schema = 1 has commands for `status`, `events` and `dump`, and the ports of `workload`".into(),
                );
            }
        } else if !self.roles.values().any(|r| r.class.contains(&Class::Serves)) {
            return Err("no role has the class \"serves\"".into());
        }
        let below = |p: &&String| p.is_empty() || p.starts_with('/') || p.split('/').any(|part| part == "..");
        if let Some(pattern) = self.places.files.values().find(below) {
            return Err(format!("`{}` is no name below the folder", pattern.escape_debug()));
        }
        let paths = self
            .files
            .iter()
            .map(|f| &f.path)
            .chain(self.programs.iter().map(|p| &p.path));
        let folders = self.places.shares.values().map(|s| &s.folder);
        for path in paths.chain(self.links.iter().map(|l| &l.path)).chain(folders) {
            let bad = |p: &str| matches!(p, "" | "." | "..");
            if !path.starts_with('/') || path.split('/').skip(1).any(bad) || path.chars().any(char::is_control) {
                return Err(format!("`{}` is no absolute path of a file", path.escape_debug()));
            }
        }
        for name in self
            .programs
            .iter()
            .map(|p| &p.name)
            .chain(self.files.iter().map(|f| &f.template))
        {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(format!("`{}` is no name of a file", name.escape_debug()));
            }
        }
        for secret in &self.secrets {
            secret.parse::<Name>()?;
        }
        let commands = self.contract.commands().chain(self.steps.iter().map(|s| &s.run));
        for argv in commands {
            if argv.first().is_none_or(String::is_empty) {
                return Err("a command names no program".into());
            }
        }
        Ok(())
    }
}
