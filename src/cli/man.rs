//! `man`: the manual pages, one for each verb, made from the program itself.

use super::{Ended, output};
use crate::error::{Error, IoContext, Problem, Result};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that they are written to (share/man/man1)
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn run(args: Args) -> Ended {
    write(&args.dir)?;
    output::text_out(&format!("{}: written", args.dir.join("failoverlab.1").display()))?;
    Ok(0)
}

/// Writes `failoverlab.1`, `failoverlab-up.1` and so on.
fn write(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        let problem = Problem::new("write the manual pages").on(dir.display());
        return Err(Error::Usage(
            problem.observed("there is no such folder").remedy("make it first"),
        ));
    }
    clap_mangen::generate_to(super::command(), dir).tried("write the manual pages", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_a_page_and_hidden_ones_have_none() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(dir.path().join(name));
        for verb in super::super::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let text = page(&format!("failoverlab-{}.1", verb.get_name())).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{text}");
        }
        assert!(page("failoverlab.1").unwrap().contains("Exit codes"));
        assert!(page("failoverlab-supervise.1").is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let e = write(Path::new("/nowhere/man1")).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("/nowhere/man1"), "{e}");
    }
}
