//! Which lab a person means by LAB.

use crate::error::{Error, IoContext, Problem, Result};
use crate::files::{Home, is_instance};
use crate::lab::client::Client;
use crate::lab::desired;
use crate::lab::record::LabRecord;
use crate::spec;
use crate::units::Name;

/// The argument that names a lab.
#[derive(Debug, Clone, clap::Args)]
pub struct LabArg {
    /// A folder with a lab.toml, a running lab (NAME or NAME@N), a folder under labs/, or a built-in lab
    #[arg(value_name = "LAB")]
    pub lab: Option<String>,
}

impl LabArg {
    /// From an argument that has to be there.
    pub fn of(name: &str) -> Self {
        Self {
            lab: Some(name.to_owned()),
        }
    }
}

/// A lab that has been made, wholly or in part.
#[derive(Debug)]
pub struct Running {
    /// Its name, or `NAME@N`.
    pub instance: String,
    /// What was chosen for it.
    pub record: LabRecord,
}

impl Running {
    /// Its supervisor: the one that runs, or a new one that adopts the machines.
    pub fn client(&self, home: &Home) -> Result<Client> {
        Client::find_or_start(home, &self.instance)
    }

    /// How SSH reaches `node`.
    pub fn way(&self, home: &Home, node: &str) -> Result<crate::guest::ssh::Target> {
        crate::lab::way(&home.lab(&self.instance), &self.record, node)
    }

    /// Refuses a node that the lab does not have.
    pub fn node(&self, name: &str) -> Result<&spec::Node> {
        let lab = &self.record.desired.lab;
        lab.node(name)
            .ok_or_else(|| super::unknown("node", name, lab.nodes.iter().map(|n| n.name.to_string())))
    }
}

/// The name of the lab that `arg` means, whether or not it is up.
pub fn instance(home: &Home, arg: &LabArg) -> Result<String> {
    let name = arg.lab.as_deref();
    if let Some(name) = name
        && is_instance(name)
        && home.lab(name).state.is_dir()
        && !std::path::Path::new(name).join("lab.toml").is_file()
    {
        return Ok(name.to_owned());
    }
    let source = source(home, arg)?;
    Ok(desired::read(&source)?.lab.name.to_string())
}

/// The name of the lab that `arg` means, for what belongs to a lab and its forks together: `ccr` for `ccr@2`.
pub fn lab_name(home: &Home, arg: &LabArg) -> Result<Name> {
    let instance = instance(home, arg)?;
    let name = instance.split('@').next().unwrap_or_default();
    name.parse()
        .map_err(|seen: String| Error::Usage(Problem::new("find the lab").on(name.escape_debug()).observed(seen)))
}

/// The lab's folder that `arg` means. A lab that is up is found by its name from anywhere.
pub fn source(home: &Home, arg: &LabArg) -> Result<spec::Source> {
    let here = std::env::current_dir().tried("find the current folder", "")?;
    let found = spec::find(arg.lab.as_deref(), &here);
    let up = arg
        .lab
        .as_deref()
        .filter(|n| found.is_err() && is_instance(n))
        .map(|n| home.lab(n).record());
    match up.map(|path| LabRecord::load(&path)).transpose()?.flatten() {
        Some(record) => Ok(spec::Source::Folder(
            std::path::Path::new(&record.desired.source)
                .parent()
                .unwrap_or(&here)
                .to_owned(),
        )),
        None => match arg.lab.as_deref().filter(|n| n.contains('@') && is_instance(n)) {
            Some(fork) if found.is_err() => Err(not_up(home, fork, "failoverlab fork makes one")),
            _ => found,
        },
    }
}

/// The lab that `arg` means; an error where it is not up.
pub fn running(home: &Home, arg: &LabArg) -> Result<Running> {
    let instance = instance(home, arg)?;
    match LabRecord::load(&home.lab(&instance).record())? {
        Some(record) => Ok(Running { instance, record }),
        None => Err(not_up(home, &instance, &format!("failoverlab up {instance}"))),
    }
}

fn not_up(home: &Home, instance: &str, remedy: &str) -> Error {
    let seen = match home.instances().as_deref() {
        Ok([]) => "no lab is up".to_owned(),
        Ok(up) => format!("up: {}", up.join(", ")),
        Err(e) => e.to_string(),
    };
    Error::Usage(
        Problem::new("find the running lab")
            .on(instance)
            .observed(seen)
            .remedy(remedy),
    )
}
