//! Shards of one run, put together.

use super::{Manifest, Run, names};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::verify::{RunReport, ScenarioReport, Verdict, turn_name};
use std::collections::BTreeMap;
use std::path::Path;

/// The run that the shards are parts of.
#[derive(Debug)]
pub struct Merged<'a> {
    /// What was run, with what.
    pub manifest: Manifest,
    /// The verdicts, in the order in which one run would have them.
    pub report: RunReport,
    /// For each scenario the shard that has it.
    pub from: Vec<&'a Run>,
}

fn refuse(on: impl std::fmt::Display, seen: impl std::fmt::Display, remedy: &str) -> Error {
    Error::Usage(Problem::new("merge the shards").on(on).observed(seen).remedy(remedy))
}

/// Puts shards together.
///
/// # Errors
/// [`Error::Usage`] where one is missing, there twice, no shard, torn, or of another run.
pub fn merge(shards: &[Run]) -> Result<Merged<'_>> {
    let mut by_place: BTreeMap<usize, (&Run, &Manifest)> = BTreeMap::new();
    let mut whole: Option<(&Run, Manifest)> = None;
    for run in shards {
        let on = run.folder.display();
        let Some(manifest) = &run.manifest else {
            return Err(refuse(
                on,
                format!("its {} cannot be read", names::RUN),
                "run this shard again",
            ));
        };
        let Some((i, _)) = manifest.shard else {
            return Err(refuse(on, "it is no shard", "name the folders of runs with --shard"));
        };
        let common = Manifest {
            shard: manifest.shard.map(|(_, n)| (0, n)),
            wall: 0,
            ..manifest.clone()
        };
        match &whole {
            Some((first, known)) if *known != common => {
                let seen = format!(
                    "it is no part of the same run as {}: {}",
                    first.folder.display(),
                    differs(known, &common)
                );
                return Err(refuse(on, seen, "merge shards of one lab, one seed and one selection"));
            }
            Some(_) => {}
            None => whole = Some((run, common)),
        }
        if let Some((other, _)) = by_place.insert(i, (run, manifest)) {
            let seen = format!("shard {i} is there twice: also {}", other.folder.display());
            return Err(refuse(on, seen, "name each shard once"));
        }
    }
    let Some((_, common)) = whole else {
        return Err(refuse("", "none is named", "name the folders of all shards"));
    };
    let n = common.shard.map_or(1, |(_, n)| n);
    // A shard behind the last scenario has nothing to run.
    let missing: Vec<String> = (1..=n.min(common.selected.len()))
        .filter(|i| !by_place.contains_key(i))
        .map(|i| format!("{i}/{n}"))
        .collect();
    if !missing.is_empty() {
        return Err(refuse(
            missing.join(", "),
            "it is missing",
            "run it, and name its folder too",
        ));
    }
    together(common, n, &by_place)
}

fn together<'a>(common: Manifest, n: usize, by_place: &BTreeMap<usize, (&'a Run, &Manifest)>) -> Result<Merged<'a>> {
    let (mut scenarios, mut from): (Vec<ScenarioReport>, Vec<&'a Run>) = (Vec::new(), Vec::new());
    for (at, id) in common.selected.iter().enumerate() {
        let (run, _) = by_place[&(at % n + 1)];
        for turn in 1..=common.repeat.max(1) {
            let name = turn_name(id, turn);
            let Some(report) = run.report.scenarios.iter().find(|s| s.name() == name) else {
                return Err(refuse(
                    run.folder.display(),
                    format!("{name} is missing in it"),
                    "run this shard again",
                ));
            };
            scenarios.push(report.clone());
            from.push(run);
        }
    }
    let report = RunReport {
        distributions: crate::verify::distributions(&scenarios),
        // One lab: its digest is compared.
        on_purpose: from.first().map(|r| r.report.on_purpose.clone()).unwrap_or_default(),
        lab: common.lab.clone(),
        seed: common.seed,
        accel: common.accel.clone(),
        on: common.on.clone(),
        verdict: scenarios.iter().map(|s| s.verdict).fold(Verdict::Skipped, Verdict::and),
        scenarios,
    };
    let wall = by_place.values().map(|(_, m)| m.wall).min().unwrap_or_default();
    let manifest = Manifest {
        shard: None,
        wall,
        ..common
    };
    Ok(Merged { manifest, report, from })
}

/// In what two runs differ, in words.
fn differs(a: &Manifest, b: &Manifest) -> String {
    let parts = [
        ("lab", a.lab != b.lab),
        ("lab file", a.lab_digest != b.lab_digest),
        ("seed", a.seed != b.seed),
        ("acceleration", a.accel != b.accel),
        ("place", a.on != b.on),
        ("repeats", a.repeat != b.repeat),
        ("number of shards", a.shard != b.shard),
        ("scenarios", a.selected != b.selected),
        ("parameters", a.set != b.set),
        ("build", a.tool != b.tool),
    ];
    let parts: Vec<&str> = parts.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    format!("another {}", parts.join(", "))
}

impl Merged<'_> {
    /// Copies the folders of the scenarios below `to`.
    ///
    /// # Errors
    /// Where that fails.
    pub fn copy_scenarios(&self, to: &Path) -> Result<()> {
        for (report, run) in self.report.scenarios.iter().zip(&self.from) {
            let name = report.name();
            copy(&run.folder.join(&name), &to.join(&name))?;
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    Home::private_dir(to)?;
    for entry in std::fs::read_dir(from).tried("list the folder", from.display())? {
        let entry = entry.tried("list the folder", from.display())?;
        let kind = entry.file_type().tried("look at the file", entry.path().display())?;
        let to = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &to).tried("copy the file", entry.path().display())?;
        }
    }
    Ok(())
}
