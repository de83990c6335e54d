//! `replay`: a run once more, from nothing but its folder or a bundle of it.

use super::target::LabArg;
use super::{Ended, output, verify};
use crate::bundle;
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::runs::{self, Run, names};
use crate::verify::Verdict;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's folder, or a bundle of it (`failoverlab bundle`)
    run: PathBuf,
    /// Where to unpack the bundle; must not be there yet. Where absent, a folder that is gone afterwards
    #[arg(long, value_name = "FOLDER")]
    unpack: Option<PathBuf>,
    /// Only this scenario, by its id; may be given several times
    #[arg(long, value_name = "ID")]
    scenario: Vec<String>,
    /// Folder for the results; must not be there yet
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the verdicts as one JSON document
    #[arg(long)]
    json: bool,
}

/// The folder of the run, and what goes away with it.
fn folder(args: &Args) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    if args.run.is_dir() || !args.run.exists() {
        return match &args.unpack {
            None => Ok((args.run.clone(), None)),
            Some(_) => {
                let problem = Problem::new("unpack the bundle").on(args.run.display());
                Err(Error::Usage(
                    problem.observed("it is no file: there is nothing to unpack"),
                ))
            }
        };
    }
    let (into, kept) = match &args.unpack {
        Some(into) => (into.clone(), None),
        None => {
            let kept = tempfile::tempdir().tried("make a folder", std::env::temp_dir().display())?;
            (kept.path().join("run"), Some(kept))
        }
    };
    let said = bundle::unpack(&args.run, &into)?;
    if said.tool != crate::TOOL {
        output::remark(&format!(
            "differs: it was made by {}, this is {}",
            said.tool,
            crate::TOOL
        ));
    }
    Ok((into, kept))
}

pub fn run(home: &Home, args: Args) -> Ended {
    let (folder, _kept) = folder(&args)?;
    let before = runs::read(&folder)?;
    for m in &before.missing {
        output::remark(&format!("{}: {m}", folder.display()));
    }
    let again = again(home, &before, &args)?;
    let out = again.out.clone().expect("it was chosen");
    let code = verify::again(home, again)?;
    if args.out.is_none() {
        super::report::write_index(&home.runs())?;
    }
    for line in differences(&before, &runs::glance(&out)?) {
        output::remark(&format!("differs: {line}"));
    }
    Ok(code)
}

/// The run as it was asked for.
fn again(home: &Home, run: &Run, args: &Args) -> Result<verify::Again> {
    let refuse = |file: &str, seen: &str| {
        let problem = Problem::new("run it again").on(run.folder.join(file).display());
        Error::Usage(problem.observed(seen.to_owned()))
    };
    let manifest = run.manifest.as_ref();
    let manifest = manifest.ok_or_else(|| refuse(names::RUN, "without it nobody knows what was run"))?;
    // Each scenario once: its repeats come by themselves.
    let first = run.report.scenarios.iter().filter(|s| s.turn == 1);
    let ids: Vec<&str> = first.map(|s| s.id.as_str()).collect();
    let is_there = |id: &&String| !ids.iter().any(|known| known.eq_ignore_ascii_case(id));
    if let Some(id) = args.scenario.iter().find(is_there) {
        return Err(super::unknown("scenario", id, ids.iter().map(|i| (*i).to_owned())));
    }
    let chosen = ids
        .iter()
        .filter(|id| args.scenario.is_empty() || args.scenario.iter().any(|s| s.eq_ignore_ascii_case(id)));
    let file = |id: &&str| run.folder.join(id).join(names::SCENARIO).display().to_string();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| verify::new_folder(home, &manifest.lab));
    Ok(verify::Again {
        lab: LabArg::of(&run.folder.join(names::LAB_FOLDER).display().to_string()),
        scenario: chosen.map(file).collect(),
        set: manifest.set.clone(),
        seed: manifest.seed,
        repeat: manifest.repeat,
        on_sim: manifest.on == "sim",
        out: Some(out),
        json: args.json,
    })
}

/// In what the run of now is another than that of before: what it was made with, and its verdicts.
fn differences(before: &Run, now: &Run) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(a), Some(b)) = (&before.manifest, &now.manifest) {
        let with = [
            ("tool", &a.tool, &b.tool),
            ("lab file", &a.lab_digest, &b.lab_digest),
            ("acceleration", &a.accel, &b.accel),
        ];
        let other = with.into_iter().filter(|(_, a, b)| a != b);
        all.extend(other.map(|(what, a, b)| format!("{what}: {a} then, {b} now")));
    }
    let word = |v: Verdict| format!("{v:?}").to_lowercase();
    for s in &now.report.scenarios {
        let then = before.report.scenarios.iter().find(|t| t.name() == s.name());
        if let Some(then) = then.filter(|t| t.verdict != s.verdict) {
            all.push(format!(
                "{}: {} then, {} now",
                s.name(),
                word(then.verdict),
                word(s.verdict)
            ));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Manifest;
    use crate::verify::{ScenarioReport, sample};
    use std::path::Path;

    fn run(tool: &str, verdict: Verdict) -> Run {
        Run {
            folder: PathBuf::from("run"),
            manifest: Some(Manifest {
                tool: tool.to_owned(),
                lab: "ccr".to_owned(),
                ..Manifest::default()
            }),
            lab: None,
            report: sample::run(verdict, vec![ScenarioReport::empty("F05", "x", verdict)]),
            scenarios: Vec::new(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_is_another_is_named_and_nothing_else() {
        let before = run("failoverlab 0.1", Verdict::Pass);
        assert_eq!(differences(&before, &before), Vec::<String>::new());
        let now = run("failoverlab 0.2", Verdict::Fail);
        assert_eq!(
            differences(&before, &now),
            [
                "tool: failoverlab 0.1 then, failoverlab 0.2 now",
                "F05: pass then, fail now"
            ]
        );
    }

    #[test]
    fn a_bundle_is_unpacked_and_a_folder_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join(names::RUN), "{}").unwrap();
        let file = dir.path().join("run.tar.gz");
        bundle::pack(&run, &file, std::collections::BTreeMap::new(), &[]).unwrap();
        let args = |run: &Path, unpack: Option<&Path>| Args {
            run: run.to_owned(),
            unpack: unpack.map(Path::to_owned),
            scenario: Vec::new(),
            out: None,
            json: false,
        };
        let (unpacked, kept) = folder(&args(&file, None)).unwrap();
        assert!(unpacked.join(names::RUN).is_file());
        drop(kept);
        assert!(!unpacked.exists(), "nobody asked to keep it");
        let named = dir.path().join("named");
        assert_eq!(folder(&args(&file, Some(&named))).unwrap().0, named);
        assert!(named.join(names::RUN).is_file());
        assert_eq!(folder(&args(&run, None)).unwrap().0, run);
        let refused = folder(&args(&run, Some(&named))).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("nothing to unpack"), "{refused}");
    }
}
