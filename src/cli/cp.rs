//! `cp`: one file to or from a machine.

use super::target::{LabArg, Running, running};
use super::{Ended, output};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::guest::Remote;
use crate::guest::ssh::Ssh;
use crate::wait::Deadline;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that one copy may take.
const COPY: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// From: PATH on this host or NODE:PATH
    from: String,
    /// To: PATH on this host or NODE:PATH
    to: String,
    /// The lab; the current folder's where absent
    #[arg(long)]
    lab: Option<String>,
}

enum Location {
    Here(PathBuf),
    There(String, PathBuf),
}

pub fn run(home: &Home, args: Args) -> Ended {
    if !args.from.contains(':') && !args.to.contains(':') {
        return Err(one_of_two(&args));
    }
    let lab = running(home, &LabArg { lab: args.lab.clone() })?;
    let deadline = Deadline::after(COPY);
    match (location(&lab, &args.from)?, location(&lab, &args.to)?) {
        (Location::Here(from), Location::There(node, to)) => {
            let content = fs_err::read(&from).tried("read the file", from.display())?;
            let mode = fs_err::metadata(&from)
                .tried("read the file", from.display())?
                .permissions()
                .mode()
                & 0o777;
            let to = if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
                to.join(from.file_name().unwrap_or_default())
            } else {
                to
            };
            Ssh::connect(&lab.way(home, &node)?, deadline)?.upload(&content, &to, mode, deadline)?;
            output::text_out(&format!(
                "{} → {node}:{} ({} bytes)",
                from.display(),
                to.display(),
                content.len()
            ))?;
        }
        (Location::There(node, from), Location::Here(to)) => {
            let content = Ssh::connect(&lab.way(home, &node)?, deadline)?.download(&from, deadline)?;
            let to = if to.is_dir() {
                to.join(from.file_name().unwrap_or_default())
            } else {
                to
            };
            fs_err::write(&to, &content).tried("write the file", to.display())?;
            output::text_out(&format!(
                "{node}:{} → {} ({} bytes)",
                from.display(),
                to.display(),
                content.len()
            ))?;
        }
        _ => return Err(one_of_two(&args)),
    }
    Ok(0)
}

fn one_of_two(args: &Args) -> Error {
    Error::Usage(
        Problem::new("copy")
            .on(format!("{} {}", args.from.escape_debug(), args.to.escape_debug()))
            .observed("exactly one of the two must be NODE:PATH")
            .remedy("failoverlab cp FILE node1:/tmp/, or the other way round"),
    )
}

/// `NODE:PATH` where NODE is a node of the lab; a path of this host otherwise (`./a:b` always is one).
fn location(lab: &Running, word: &str) -> Result<Location> {
    match word.split_once(':') {
        Some((node, path)) if !node.contains('/') => {
            lab.node(node)?;
            Ok(Location::There(node.to_owned(), Path::new(path).to_owned()))
        }
        _ => Ok(Location::Here(word.into())),
    }
}
