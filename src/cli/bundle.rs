//! `bundle`: a run as one file, for somebody else; and back.

use super::{Ended, output};
use crate::bundle;
use crate::error::{Error, Problem, Result};
use crate::files::Home;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's folder; with --unpack a bundle
    run: PathBuf,
    /// The file to write; must not be there yet
    #[arg(short, long, value_name = "FILE", required_unless_present = "unpack")]
    output: Option<PathBuf>,
    /// Unpack the bundle into this folder instead; must not be there yet
    #[arg(long, value_name = "FOLDER", conflicts_with = "output")]
    unpack: Option<PathBuf>,
}

/// The file of a run that says what it was made with.
const RUN: &str = "run.json";

pub fn run(home: &Home, args: Args) -> Ended {
    if let Some(into) = &args.unpack {
        let manifest = bundle::unpack(&args.run, into)?;
        if manifest.tool != crate::TOOL {
            output::remark(&format!("it was made by {}, this is {}", manifest.tool, crate::TOOL));
        }
        output::text_out(&format!("{}: {} files", into.display(), manifest.files.len()))?;
        return Ok(0);
    }
    let to = args.output.expect("clap wants it where nothing is unpacked");
    let (files, bytes) = bundle::pack(&args.run, &to, made_with(&args.run)?, &secrets(home)?)?;
    output::text_out(&format!(
        "{}: {files} files, {} KiB",
        to.display(),
        bytes.div_ceil(1024)
    ))?;
    Ok(0)
}

/// What the run says of itself.
fn made_with(run: &Path) -> Result<BTreeMap<String, String>> {
    let path = run.join(RUN);
    let refuse = |seen: String| Error::Usage(Problem::new("read the run").on(path.display()).observed(seen));
    let text = match fs_err::read(&path) {
        Ok(text) => text,
        // One of before there were such files.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && run.is_dir() => return Ok(BTreeMap::new()),
        Err(e) => return Err(refuse(e.to_string())),
    };
    let all: BTreeMap<String, Value> = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
    let words = all.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned())));
    Ok(words.collect())
}

/// Passwords of the labs that are up.
fn secrets(home: &Home) -> Result<Vec<String>> {
    let labs = home.instances()?.into_iter();
    let files = labs.flat_map(|name| fs_err::read_dir(home.lab(&name).keys()).into_iter().flatten().flatten());
    let texts = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
    let texts = texts.map(|t| t.trim().to_owned());
    Ok(texts
        .filter(|t| t.len() < 100 && !t.contains(char::is_whitespace))
        .collect())
}
